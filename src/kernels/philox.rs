//! What kernels that draw random numbers begin with: `shaders/philox.wgsl`.

pub(crate) const PHILOX: &str = include_str!("../../shaders/philox.wgsl");
