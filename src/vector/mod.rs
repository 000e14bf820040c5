//! Vectors in parameter space: one flat f32 buffer, in which every tensor starts where a binding may start.

mod block;
mod layout;
mod parameters;

pub use block::Block;
pub use layout::{Entry, Layout};
pub use parameters::Vector;
