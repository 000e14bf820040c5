//! Another quadratic that walks along the directions of conjugate gradients.

use super::conjugate_gradients::{CgOptions, Operator};
use crate::error::{Error, Result};
use crate::gpu::{Gpu, Recording, Slice};
use crate::kernels::cg;
use crate::kernels::vector::partial_elements;
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
            log: gpu.buffer("log of the companion", 3 * options.max_iterations)?,
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
        if !warm {
            recording.copy(self.zeros.slice(), self.solution.slice())?;
            return recording.copy(gradient, residual);
        }
        let operator = &self.companion.operator;
        recording.copy(self.solution.slice(), operator.input.slice())?;
        recording.append(operator.multiply.clone());
        let (product, x) = (operator.output.slice(), self.solution.slice());
        cg::shifted_sum(gpu, recording, self.state, [residual, product, x, gradient])
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
