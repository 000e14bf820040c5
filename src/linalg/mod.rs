//! Solvers over a linear operator on the device.

mod conjugate_gradients;

pub(crate) use conjugate_gradients::{Afterword, System};
pub use conjugate_gradients::{CgOptions, CgReport, ConjugateGradients, Operator, Stop};
