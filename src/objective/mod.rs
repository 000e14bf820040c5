//! Objectives make quadratics: the local quadratic model of the loss on one mini-batch,
//!
//! ```text
//! q(d) = c + g.d + d.C d / 2      at parameters theta, on a batch
//! ```
//!
//! Solvers and optimizers see nothing else of a problem.

mod graph_objective;
mod mean;
mod quadratic;

pub use crate::graph::locate::{Located, Origin};
pub use graph_objective::{Evaluation, GraphObjective};
pub use mean::MeanQuadratic;
pub use quadratic::{
    BlockProduct, Curvature, Group, GroupRequest, GroupedQuadratic, LossProgram, Objective,
    Quadratic, QuadraticRequest,
};
