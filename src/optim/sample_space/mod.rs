//! Methods that solve in the space of samples, or in that of the parameters where it is smaller.

mod levenberg_marquardt;
mod memory;
mod options;
mod prior;
mod solve;
mod spring;
mod trial;

pub use levenberg_marquardt::LevenbergMarquardt;
pub use options::{LevenbergMarquardtOptions, Scaling, SpringOptions};
pub use spring::Spring;
