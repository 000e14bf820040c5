//! Second-order optimization on any GPU that wgpu reaches.
//!
//! The loss of a model on a mini-batch has a local quadratic, `q(d) = c + g.d + d.C d / 2`, where `C` is the Hessian or the generalized
//! Gauss-Newton matrix. This crate computes `c`, `g` and products `C v` in WGSL compute shaders, without forming `C`, and steps to the
//! minimum of `q`.
//!
//! - [`nn`]: describe a network, or write a loss as a function of tensors;
//! - [`objective`]: make quadratics of it on a [`gpu::Gpu`];
//! - [`optim`]: improve its parameters by [`optim::NewtonCg`], or by the baselines [`optim::Sgd`] and [`optim::Adam`];
//! - [`linalg`]: the solvers; [`graph`]: the primitives and their derivatives; [`data`]: data sets and batches.
//!
//! ```no_run
//! use osculant::nn::{Activation, Loss, Sequential};
//! use osculant::optim::{NewtonCg, NewtonCgOptions, Optimizer};
//! use osculant::{data::digits, gpu::Gpu, objective::GraphObjective};
//!
//! let (train, _test) = digits()?.split(0.2, 0)?;
//! let network = Sequential::new().dense(32).activation(Activation::Tanh).dense(10);
//! let mut objective = GraphObjective::new(&Gpu::new()?, network.model(&train, Loss::SoftmaxCrossEntropy))?;
//! let theta = objective.initial_parameters(0)?;
//! let report = NewtonCg::new(NewtonCgOptions::default())?.step(&mut objective, &theta, &train.full_batch())?;
//! assert!(report.loss_after < Some(report.loss_before));
//! # Ok::<(), osculant::Error>(())
//! ```

mod check;
pub mod checkpoint;
pub mod data;
pub mod error;
pub mod gpu;
pub mod graph;
pub mod kernels;
pub mod linalg;
pub mod nn;
pub mod objective;
pub mod optim;
mod options;
pub mod random;
mod recent;
pub mod vector;

#[cfg(not(target_arch = "wasm32"))]
pub use check::check;
pub use check::{Check, CheckedProducts, check_async};
pub use error::{Error, Result};

/// The program in the README compiles.
#[cfg(doctest)]
#[doc = include_str!("../README.md")]
pub struct Readme;

/// The model of a differential equation compiles.
#[cfg(doctest)]
#[doc = include_str!("../docs/PDE.md")]
pub struct DifferentialEquations;

/// The walk in the architecture does what it says.
#[cfg(doctest)]
#[doc = include_str!("../docs/ARCHITECTURE.md")]
pub struct Architecture;
