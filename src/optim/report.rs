//! What a step tells about itself.

use crate::linalg::Stop;

/// Why a method that solves to the end has come to it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, serde::Serialize)]
#[non_exhaustive]
pub enum Stall {
    /// A step gains, or promises, less than f32 tells of the loss: the numbers of this device are exhausted.
    Precision,
    /// No damping that was tried lowers the loss.
    Attempts,
}

/// How one step went. Losses are those of the step's mini-batch.
#[derive(Clone, Debug, Default, PartialEq, serde::Serialize)]
#[non_exhaustive]
pub struct StepReport {
    /// Loss before the step.
    pub loss_before: f64,
    /// Loss after the step, where the method computes it.
    pub loss_after: Option<f64>,
    /// Change of the loss by the step, where the method computes it: from differences of examples' losses, where the objective has them, so
    /// that it keeps its digits where it is far smaller than the loss.
    pub loss_change: Option<f64>,
    /// `|g|`.
    pub gradient_norm: f64,
    /// Length of the step taken; 0 if it was refused.
    pub step_norm: f64,
    /// Whether the parameters changed.
    pub accepted: bool,
    /// Factor on the direction found by the line search.
    pub step_length: Option<f64>,
    /// Actual reduction of the loss over the one that the undamped quadratic promised.
    pub rho: Option<f64>,
    /// Damping with which the step was computed.
    pub damping: Option<f64>,
    /// Trust-region radius with which the step was computed.
    pub radius: Option<f64>,
    /// Conjugate gradient iterations.
    pub cg_iterations: Option<usize>,
    /// Iteration whose iterate became the step, when not the last.
    pub backtracked_to: Option<usize>,
    /// Why there is little to gain from further steps, where the method knows.
    pub stall: Option<Stall>,
    /// Why conjugate gradients stopped.
    pub cg_stop: Option<Stop>,
    /// Eigenvalues of the curvature in use, where the method knows them: by falling magnitude, or in the order of its eigenvectors where
    /// they are of other examples than those, one fold after another.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub eigenvalues: Vec<f64>,
    /// Their standard errors, where the method estimates them.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub eigenvalue_noise: Vec<f64>,
    /// Work in examples: a gradient on n examples is n, a curvature product 2n, the empirical Fisher diagonal n, a loss n/3 (of the three
    /// matrix products per layer of a gradient, a loss has one), its change at a candidate 2n/3. Everything computed counts, needed or not.
    pub work: f64,
    /// Work in gradients of an example: the floating-point operations of everything that is computed, two for each multiply-add, over those
    /// of a gradient of one row of the batch. Products, losses, padding, conjugate gradients, inner products of blocks, low-rank operators
    /// and eigenproblems count; moving parameters and moments, trial points and their inner products, which the simplest method has, do
    /// not. So a step of SGD has as many as it has rows. Where an objective does not count operations ([`Cost`](crate::objective::Cost)),
    /// the numbers of [`work`](Self::work) take their place.
    pub work_flops: f64,
    /// Blocking readbacks in the step ([`Gpu::readbacks`](crate::gpu::Gpu::readbacks)); other users of the same `Gpu` at the same time
    /// count too.
    pub readbacks: u64,
    /// Reads in the step that left the device busy ([`Gpu::looks`](crate::gpu::Gpu::looks)).
    pub looks: u64,
    /// Wall-clock time of the step.
    pub seconds: f64,
}
