//! Objectives give losses and gradients, and local quadratic models of the loss on one mini-batch,
//!
//! ```text
//! q(d) = c + g.d + d.C d / 2      at parameters theta, on a batch
//! ```
//!
//! What an objective can do is a trait each: [`Objective`] has losses and gradients, [`Curved`] products with `C`, [`Parts`] parts and
//! groups of batches, [`Layered`] Kronecker factors of `C`, [`SampleSpace`] rows whose squares add up to `C`,
//! [`Statistics`] what each example adds to both.
//! Batches are loaded into [slots](Slot), and programs compute with what is in theirs. Solvers and optimizers see nothing else of a problem.

mod accumulated;
mod capability;
mod cost;
mod displacement;
mod eigenpairs;
mod finite_differences;
mod graph_objective;
mod hessian_diagonal;
mod host_function;
mod kronecker;
mod losses;
mod own_kernels;
mod programs;
mod quadratic;
mod resident;
mod sample_space;
mod slot;
mod statistics;

pub use crate::graph::kronecker::{Appended, Form, Layer, Side, Sizes, Structure};
pub use crate::graph::locate::{Located, Origin};
pub use accumulated::Accumulated;
pub(crate) use capability::without_parts;
pub use capability::{Curved, Objective, Parts};
pub use cost::{Cost, LossCost};
pub use eigenpairs::Eigenpair;
pub use finite_differences::FiniteDifferences;
pub(crate) use finite_differences::LENGTH as DISPLACEMENT;
pub use graph_objective::{Evaluation, GraphObjective};
#[cfg(not(target_arch = "wasm32"))]
pub use hessian_diagonal::hessian_diagonal;
pub use hessian_diagonal::hessian_diagonal_async;
pub use host_function::HostFunction;
pub use kronecker::{Estimate, Kronecker, KroneckerRequest, KroneckerStructure, Layered};
pub use losses::Losses;
pub use own_kernels::{Buffer, OutputHessian, OwnKernels, OwnOutputs, OwnTensor};
pub use programs::Programs;
pub use quadratic::{
    BlockProduct, Curvature, Gradient, GradientRequest, Group, GroupRequest, GroupedQuadratic,
    Quadratic, QuadraticRequest,
};
pub use resident::{Gather, Resident};
pub(crate) use sample_space::without_residuals;
pub use sample_space::{RowKind, SampleRequest, SampleSpace, SampleSystem, Square};
pub use slot::{Loaded, Slot};
pub use statistics::{BatchStatistics, Quantity, Statistics, StatisticsRequest};
