//! The core: a static single-assignment graph of tensor primitives and three transformations of it.
//!
//! Read in this order:
//! 1. [`op`]: the primitives.
//! 2. [`node`]: the graph. Nodes are appended, never changed; every new node is checked for shape, simplified, and shared with an equal
//!    one.
//! 3. [`tensor`]: the notation in which a person writes a loss.
//! 4. [`jvp`]: the tangent of every primitive. Running it over a graph appends the *linear part*; `guard` says which slopes matter only
//!    where a `select` chooses their branch.
//! 5. [`transpose`]: the transpose of every linear primitive. Running it over a linear part appends its adjoint.
//! 6. [`derivatives`]: gradient = transpose of the linearised loss; Hessian product = linearised gradient; Gauss-Newton product =
//!    transpose(J) H J. [`difference`]: what a loss gains along a step, without subtracting losses.
//!    [`differential`]: derivatives with respect to inputs, in models; `collapse` moves their sums up to where they are cheap.
//! 7. `terms`: a gradient stopped before its sum over the batch. From it [`per_example`], rows of examples in factors with all that is
//!    made of them, and [`kronecker`], the factors of the Gauss-Newton matrix of each layer; [`preconditioned`], steps with their inverses;
//!    [`sample_space`], the curvature as a product of rows.
//! 8. [`twin`]: the same graph evaluated in f64 on the CPU, the reference for every test.
//!    [`locate`]: the node at which a number stops being finite, by the same.
//! 9. [`batch`]: a linear part for a whole block of directions at once.
//! 10. `fuse`: which nodes get buffers, in a `fusion`; `lower`: kernels for the GPU, whose elementwise parts `fused` collects, with the `address`es that they read; `spaces`: buffers by
//!     lifetime; and all of that is a [`plan`], without a device; [`listing`]: a plan for reading.
//! 11. [`executable`]: a plan bound to slices, once they `fit`, and to an [`arena`] of buffers that programs share.
//!
//! No derivative is written by hand above [`jvp`] and [`transpose`].

mod address;
mod append;
pub mod arena;
pub mod batch;
mod collapse;
pub mod derivatives;
pub mod difference;
pub mod differential;
mod dot;
mod example_rows;
pub mod executable;
mod fit;
mod fuse;
mod fused;
mod fusion;
mod guard;
pub mod jvp;
pub mod kronecker;
pub mod listing;
pub mod locate;
pub mod lower;
pub mod node;
pub mod op;
pub mod per_example;
pub(crate) mod phase;
pub mod plan;
pub mod preconditioned;
pub mod sample_space;
mod sharing;
mod spaces;
pub mod tensor;
mod terms;
pub mod transpose;
pub mod twin;

pub use arena::Arena;
pub use executable::Executable;
pub use node::{Graph, NodeId, Shape};
pub use op::{Binary, DType, Op, Unary};
pub use plan::{Plan, Target};
pub use tensor::Tensor;
