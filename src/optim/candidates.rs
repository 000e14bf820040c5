//! Losses at candidate points `theta + a v`, several in one submission.

use std::sync::Arc;

use crate::error::Result;
use crate::gpu::{Gpu, Recording, Slice};
use crate::kernels::vector::{combine, inner_products, partial_elements};
use crate::objective::{LossProgram, Quadratic};
use crate::vector::Vector;

/// Candidates in one submission.
pub(super) const AT_ONCE: usize = 4;
/// Results start at multiples of this many elements, where any device can bind them.
const STRIDE: usize = 64;

/// What is known of a candidate direction `v` with factor `a`.
#[derive(Clone, Copy, Debug)]
pub(super) struct Candidate {
    /// `f(theta + a v)`; infinite if it is not a number.
    pub(super) loss: f64,
    /// `g.v`
    pub(super) slope: f64,
    /// `|v|^2`
    pub(super) square: f64,
    /// `|g|^2`
    pub(super) gradient_square: f64,
}

/// Evaluates candidates on the batch of one quadratic.
#[derive(Debug)]
pub(super) struct Candidates {
    theta: Vector,
    trial: Vector,
    gradient: Vector,
    loss: Arc<LossProgram>,
    base: Slice,
    coefficients: Slice,
    partials: Slice,
    losses: Slice,
    sums: Slice,
    recorded: Vec<Recorded>,
    /// Copies the trial point to the parameters.
    take: Recording,
}

/// Kernels for a vector in one of the places of a submission.
#[derive(Debug)]
struct Recorded {
    vector: Vector,
    slot: usize,
    /// Makes the trial point.
    trial: Recording,
    /// Loss and inner products at the trial point.
    measure: Recording,
}

impl Candidates {
    pub(super) fn new(
        gpu: &Gpu,
        theta: &Vector,
        trial: &Vector,
        quadratic: &Quadratic,
        loss: Arc<LossProgram>,
    ) -> Result<Self> {
        let mut take = Recording::new();
        take.copy(trial.slice(), theta.slice())?;
        Ok(Self {
            theta: theta.clone(),
            trial: trial.clone(),
            gradient: quadratic.gradient.clone(),
            loss,
            base: quadratic.value.clone(),
            coefficients: gpu.buffer("step lengths", 2 * AT_ONCE)?,
            partials: gpu.buffer("partial sums", partial_elements(theta.slice()))?,
            losses: gpu.buffer("candidate losses", STRIDE * AT_ONCE)?,
            sums: gpu.buffer("candidate inner products", 3 * AT_ONCE)?,
            recorded: Vec::new(),
            take,
        })
    }

    /// Loss at the quadratic's own point, and what is known of up to [`AT_ONCE`] candidates `(v, a)`; one wait.
    pub(super) fn evaluate(
        &mut self,
        gpu: &Gpu,
        candidates: &[(&Vector, f64)],
    ) -> Result<(f64, Vec<Candidate>)> {
        let candidates = &candidates[..candidates.len().min(AT_ONCE)];
        let mut places = Vec::with_capacity(candidates.len());
        let mut coefficients = Vec::with_capacity(2 * AT_ONCE);
        for (slot, &(vector, factor)) in candidates.iter().enumerate() {
            coefficients.extend([1.0f32, factor as f32]);
            places.push(self.place(gpu, vector, slot)?);
        }
        gpu.upload(&self.coefficients, 0, &coefficients)?;
        let read = gpu.submit_and_read(
            |recorder| {
                for &place in &places {
                    recorder.replay(&self.recorded[place].trial);
                    recorder.replay(&self.recorded[place].measure);
                }
                Ok(())
            },
            &[&self.base, &self.losses, &self.sums],
        )?;
        let results = (0..candidates.len()).map(|slot| {
            let sum = |i: usize| f64::from(read[2][3 * slot + i]);
            let loss = f64::from(read[1][STRIDE * slot]);
            let loss = if loss.is_nan() { f64::INFINITY } else { loss };
            Candidate {
                loss,
                slope: sum(0),
                gradient_square: sum(1),
                square: sum(2),
            }
        });
        Ok((f64::from(read[0][0]), results.collect()))
    }

    /// Moves the parameters to `theta + a v`, by the very kernel that made the candidate.
    pub(super) fn accept(&mut self, gpu: &Gpu, vector: &Vector, factor: f64) -> Result<()> {
        let place = self.place(gpu, vector, 0)?;
        gpu.upload(&self.coefficients, 0, &[1.0f32, factor as f32])?;
        gpu.submit(|recorder| {
            recorder.replay(&self.recorded[place].trial);
            recorder.replay(&self.take);
        })
    }

    fn place(&mut self, gpu: &Gpu, vector: &Vector, slot: usize) -> Result<usize> {
        if let Some(at) = self
            .recorded
            .iter()
            .position(|r| r.slot == slot && r.vector.is_same(vector))
        {
            return Ok(at);
        }
        let mut trial = Recording::new();
        let coefficients = (&self.coefficients, 2 * slot);
        combine(
            gpu,
            &mut trial,
            self.trial.slice(),
            self.theta.slice(),
            vector.slice(),
            coefficients,
        )?;
        let mut measure = self.loss.run.clone();
        measure.copy(
            &self.loss.value,
            &self.losses.slice(STRIDE * slot..STRIDE * slot + 1)?,
        )?;
        let (gradient, v) = (self.gradient.slice(), vector.slice());
        inner_products(
            gpu,
            &mut measure,
            (&self.sums, 3 * slot),
            &self.partials,
            gradient,
            v,
        )?;
        self.recorded.push(Recorded {
            vector: vector.clone(),
            slot,
            trial,
            measure,
        });
        Ok(self.recorded.len() - 1)
    }
}
