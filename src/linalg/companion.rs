//! Another quadratic that walks along the directions of conjugate gradients.

use super::cg_options::CgOptions;
use crate::error::Result;
use crate::gpu::{Gpu, Recording, Slice};
use crate::kernels::cg;
use crate::kernels::vector::{inner_products, partial_elements};
use crate::vector::Vector;

/// What a companion found along one direction of a solve.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct LineStep {
    /// `d.r'`, with the companion's residual before the step.
    pub slope: f64,
    /// `d.(C' + shift) d`
    pub curvature: f64,
    /// The step along `d`: `-slope / curvature`, possibly shrunk; 0 where the curvature is not positive.
    pub length: f64,
}

/// Another quadratic that goes along with a solve: it takes the directions of conjugate gradients on the first one, and chooses the steps
/// along them.
///
/// Slope and curvature, and so the step length, of a direction come from this quadratic only. With examples that the directions know
/// nothing of, both are unbiased; a slope of one quadratic with a curvature of another has no such meaning, and cannot be asked for.
#[derive(Clone, Debug)]
pub struct Companion {
    /// Its gradient.
    pub gradient: Vector,
    /// The product of its matrix with the operator's input, which the operator's `multiply` computes, too.
    pub product: Vector,
    /// Variance of `input.g'`, computed with the product: steps are multiplied by `max(0, 1 - variance / slope^2)`.
    pub variance: Option<Slice>,
}

/// Elements at the end of a log: the model at the start, and two sums that nobody needs.
const START_SUMS: usize = 3;

/// Slope, curvature and length for each iteration and for the one at which a solve stops, and [`START_SUMS`].
fn log_elements(options: &CgOptions) -> usize {
    3 * (options.max_iterations + 1) + START_SUMS
}

/// The model's value at the start and the steps in a log.
pub(super) fn read_log(log: &[f32], iterations: usize) -> (f64, Vec<LineStep>) {
    let (steps, start) = log.split_at(log.len().saturating_sub(START_SUMS));
    let start = start.first().map_or(0.0, |&value| f64::from(value));
    // The direction at which the solve stopped is there where it was looked at.
    let steps = steps
        .chunks_exact(3)
        .take(iterations + 1)
        .filter(|step| step.iter().any(|x| *x != 0.0))
        .map(|step| LineStep {
            slope: f64::from(step[0]),
            curvature: f64::from(step[1]),
            length: f64::from(step[2]),
        });
    (start, steps.collect())
}

/// Buffers and recordings of a companion.
pub(super) struct Beside<'a> {
    companion: &'a Companion,
    pub(super) solution: Vector,
    residual: Vector,
    scratch: Vector,
    partials: Slice,
    pub(super) log: Slice,
    empty_log: Slice,
}

impl<'a> Beside<'a> {
    pub(super) fn new(gpu: &Gpu, companion: &'a Companion, options: &CgOptions) -> Result<Self> {
        let layout = companion.gradient.layout();
        let new = |label: &str| Vector::new(gpu, label, layout);
        let solution = new("solution of the companion")?;
        Ok(Self {
            companion,
            residual: new("residual of the companion")?,
            scratch: new("mean of residual and gradient")?,
            partials: gpu.buffer("partial sums", partial_elements(solution.slice()))?,
            log: gpu.buffer("log of the companion", log_elements(options))?,
            empty_log: gpu.buffer("empty log", log_elements(options))?,
            solution,
        })
    }

    /// `x' = 0`, which is `zero`, and `r' = g'`.
    pub(super) fn record_cold_start(&self, recording: &mut Recording, zero: &Vector) -> Result<()> {
        recording.copy(&self.empty_log, &self.log)?;
        recording.copy(zero.slice(), self.solution.slice())?;
        recording.copy(self.companion.gradient.slice(), self.residual.slice())
    }

    /// `r' = (C' + shift) x' + g'` for the `x'` that the solution holds, whose product is there.
    pub(super) fn record_warm_start(
        &self,
        gpu: &Gpu,
        recording: &mut Recording,
        state: &Slice,
    ) -> Result<()> {
        recording.copy(&self.empty_log, &self.log)?;
        let (residual, scratch) = (self.residual.slice(), self.scratch.slice());
        let (product, gradient) = (
            self.companion.product.slice(),
            self.companion.gradient.slice(),
        );
        let x = self.solution.slice();
        let vectors = [residual, product, x, gradient, scratch];
        cg::shifted_sum(gpu, recording, state, vectors)?;
        let start = (&self.log, self.log.len() - START_SUMS);
        inner_products(gpu, recording, start, &self.partials, x, scratch)
    }

    /// The step along the direction of conjugate gradients, whose product is there.
    pub(super) fn record_step(
        &self,
        gpu: &Gpu,
        recording: &mut Recording,
        on: &cg::Operands<'_>,
    ) -> Result<()> {
        let own = cg::CompanionOperands {
            q: self.companion.product.slice(),
            x: self.solution.slice(),
            r: self.residual.slice(),
            log: &self.log,
            variance: self.companion.variance.as_ref(),
        };
        cg::companion(gpu, recording, on, &own)
    }
}
