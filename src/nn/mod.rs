//! Networks: layers, losses and initialisers, all of them compositions of graph primitives.

mod activation;
pub mod functions;
mod init;
mod loss;
mod model;
mod periodic;
mod sequential;

pub use activation::Activation;
pub use init::Init;
pub use loss::Loss;
pub use model::{DataShape, Model, Output, Probe, Scope, TargetShape, Traced};
pub use periodic::periodic;
pub use sequential::{Sequential, autoencoder};
