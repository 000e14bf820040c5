//! What kernels that test numbers begin with: `shaders/finite.wgsl`.

pub(crate) const FINITE: &str = include_str!("../../shaders/finite.wgsl");
