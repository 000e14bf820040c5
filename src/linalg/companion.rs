//! Another quadratic that walks along the directions of conjugate gradients.

use super::conjugate_gradients::{CgOptions, Operator};
use crate::error::{Error, Result};
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

/// Another quadratic that goes along with a solve: it takes the directions of conjugate gradients on the first one, and chooses the steps along them.
///
/// Slope and curvature, and so the step length, of a direction come from this quadratic only. With examples that the directions know nothing of, both
/// are unbiased; a slope of one quadratic with a curvature of another has no such meaning, and cannot be asked for.
#[derive(Clone, Debug)]
pub struct Companion {
    /// Its matrix.
    pub operator: Operator,
    /// Its gradient.
    pub gradient: Vector,
    /// Variance of the slope along `operator.input`, computed with the product: steps are multiplied by `max(0, 1 - variance / slope^2)`.
    pub variance: Option<Slice>,
}

/// Elements at the end of a log: `x'.r'` and `x'.g'` at the start, each with two sums that nobody needs.
const START_SUMS: usize = 6;

/// Slope, curvature and length for each iteration and for the one at which a solve stops, and [`START_SUMS`].
fn log_elements(options: &CgOptions) -> usize {
    3 * (options.max_iterations + 1) + START_SUMS
}

/// The model's value at the start and the steps in a log.
pub(super) fn read_log(log: &[f32], iterations: usize) -> (f64, Vec<LineStep>) {
    let (steps, start) = log.split_at(log.len().saturating_sub(START_SUMS));
    let start = match start {
        [residual, _, _, gradient, ..] => 0.5 * (f64::from(*residual) + f64::from(*gradient)),
        _ => 0.0,
    };
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
    zeros: Vector,
    state: &'a Slice,
    sums: Slice,
    partials: Slice,
    pub(super) log: Slice,
    empty_log: Slice,
}

impl<'a> Beside<'a> {
    pub(super) fn new(
        gpu: &Gpu,
        companion: &'a Companion,
        operator: &Operator,
        state: &'a Slice,
        options: &CgOptions,
    ) -> Result<Self> {
        let layout = companion.gradient.layout();
        if companion.operator.input.is_same(&operator.input) {
            return Err(Error::Unsupported {
                what: "a companion of conjugate gradients".into(),
                message: "it has the operator's vectors; ask the objective for a quadratic of another slot".into(),
            });
        }
        let solution = Vector::new(gpu, "solution of the companion", layout)?;
        Ok(Self {
            companion,
            residual: Vector::new(gpu, "residual of the companion", layout)?,
            zeros: Vector::new(gpu, "zeros", layout)?,
            state,
            sums: gpu.buffer("sums of the companion", 6)?,
            partials: gpu.buffer("partial sums", partial_elements(solution.slice()))?,
            log: gpu.buffer("log of the companion", log_elements(options))?,
            empty_log: gpu.buffer("empty log", log_elements(options))?,
            solution,
        })
    }

    /// `r' = (C' + shift) x' + g'`. With `warm`, `x'` is what the solution holds, else zero.
    pub(super) fn record_start(
        &self,
        gpu: &Gpu,
        recording: &mut Recording,
        warm: bool,
    ) -> Result<()> {
        let (residual, gradient) = (self.residual.slice(), self.companion.gradient.slice());
        recording.copy(&self.empty_log, &self.log)?;
        if !warm {
            recording.copy(self.zeros.slice(), self.solution.slice())?;
            return recording.copy(gradient, residual);
        }
        let operator = &self.companion.operator;
        recording.copy(self.solution.slice(), operator.input.slice())?;
        recording.append(operator.multiply.clone());
        let (product, x) = (operator.output.slice(), self.solution.slice());
        cg::shifted_sum(gpu, recording, self.state, [residual, product, x, gradient])?;
        let first = self.log.len() - START_SUMS;
        inner_products(
            gpu,
            recording,
            (&self.log, first),
            &self.partials,
            x,
            residual,
        )?;
        inner_products(
            gpu,
            recording,
            (&self.log, first + 3),
            &self.partials,
            x,
            gradient,
        )
    }

    /// The product and the step along the direction of conjugate gradients.
    pub(super) fn record_step(
        &self,
        gpu: &Gpu,
        recording: &mut Recording,
        operator: &Operator,
    ) -> Result<()> {
        let own = &self.companion.operator;
        recording.copy(operator.input.slice(), own.input.slice())?;
        recording.append(own.multiply.clone());
        let operands = cg::CompanionOperands {
            state: self.state,
            sums: &self.sums,
            partials: &self.partials,
            p: own.input.slice(),
            q: own.output.slice(),
            x: self.solution.slice(),
            r: self.residual.slice(),
            log: &self.log,
            variance: self.companion.variance.as_ref(),
        };
        cg::companion(gpu, recording, &operands)
    }
}
