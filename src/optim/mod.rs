//! Optimizers: each combines quadratics into steps.
//!
//! [`NewtonCg`], [`DecoupledNewtonCg`] and [`LowRankSaddleFreeNewton`] are the second-order ones; [`DebiasedSgd`] knows the curvature along
//! one direction; [`Kfac`] has a Kronecker product for each layer; [`Spring`] and [`LevenbergMarquardt`]
//! solve in the space of samples; [`Sgd`], [`Adam`], and [`Muon`], [`Soap`] and [`Shampoo`], which see
//! gradients as matrices, are baselines. All change parameters only when a step has succeeded.

mod average;
mod control;
mod course;
mod damping;
mod debiased_sgd;
mod decision;
mod decoupled;
mod engine;
mod first_order;
mod judge;
mod kfac;
mod lbfgs;
mod lrsfn;
mod matrix;
mod mixture;
mod newton_cg;
mod not_finite;
mod optimizer;
mod origin;
mod own_kernels;
mod recorded;
mod report;
mod sample_space;
mod saved;
mod schedule;
mod state;
mod state_tensor;
mod strategy;
mod undo;
mod work;

pub use course::Course;
pub use damping::AdaptiveDamping;
pub use debiased_sgd::{DebiasedSgd, DebiasedSgdOptions};
pub use decoupled::{DecoupledNewtonCg, DecoupledOptions};
pub use first_order::{Adam, AdamOptions, FirstOrder, Sgd, SgdOptions};
pub use kfac::{Approximation, Kfac, KfacOptions};
pub use lbfgs::{Lbfgs, LbfgsOptions};
pub use lrsfn::{Base, DampingRule, LowRankSaddleFreeNewton, LrsfnOptions, RankRule};
pub use matrix::{
    Matrices, MatrixMethod, Muon, MuonOptions, Shampoo, ShampooOptions, Soap, SoapOptions,
};
pub use newton_cg::{
    KroneckerNewtonCg, NewtonCg, NewtonCgOptions, NystromNewtonCg, Preconditioner,
};
pub use optimizer::Optimizer;
pub use recorded::{Recordable, Recorded, StepOutcome};
pub use report::{Stall, StepReport};
pub use sample_space::{
    LevenbergMarquardt, LevenbergMarquardtOptions, Scaling, Spring, SpringOptions,
};
pub use saved::OptimizerState;
pub use schedule::Schedule;
pub use state::Stateful;
pub use state_tensor::StateTensor;
pub use strategy::Strategy;
