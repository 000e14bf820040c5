//! Second-order optimization on any GPU that wgpu reaches.

pub mod data;
pub mod error;
pub mod gpu;
pub mod graph;
pub mod kernels;
pub mod linalg;
pub mod nn;
pub mod objective;
pub mod optim;
pub mod random;
pub mod vector;

pub use error::{Error, Result};
