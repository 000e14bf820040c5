//! Solvers over a linear operator on the device.

mod conjugate_gradients;

pub use conjugate_gradients::{CgOptions, CgReport, ConjugateGradients, Operator, Stop};
