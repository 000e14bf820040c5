//! Solvers over a linear operator on the device.

mod conjugate_gradients;
mod randomized;

pub use crate::kernels::blocks::Sketch;
pub(crate) use conjugate_gradients::{Afterword, System};
pub use conjugate_gradients::{CgOptions, CgReport, ConjugateGradients, Operator, Stop};
pub use randomized::{BlockOperator, EigenOptions, Eigenvalues, RandomizedEigensolver};
