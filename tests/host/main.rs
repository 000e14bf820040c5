//! Tests of graphs and kernel texts that need no device.

#[path = "../../examples/kernels/hand_written.rs"]
mod hand_written;
#[path = "../harness/mod.rs"]
mod harness;
#[path = "../../examples/kernels/listed.rs"]
mod listed;

mod checks;
mod derivatives;
mod diagonals;
mod differential;
mod eigenvalues;
mod kronecker;
mod per_example;
mod sample_space;
mod shaders;
