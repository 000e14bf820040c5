//! How often the kernels of a program run.

/// Once per parameters and inputs.
pub(crate) const LINEARIZE: usize = 0;
/// Once per direction.
pub(crate) const PRODUCT: usize = 1;
/// Once per block of directions.
pub(crate) const BLOCK: usize = 2;
/// Once per point.
pub(crate) const CHANGE: usize = 3;
pub(crate) const PHASES: usize = 4;
