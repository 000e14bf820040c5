//! Losses at candidate points `theta + a v`, several in one submission.

use std::sync::Arc;

use super::first_order::missing;
use crate::error::Result;
use crate::gpu::{Gpu, Recorder, Recording, Slice};
use crate::kernels::vector::{combine, inner_products, partial_elements};
use crate::objective::{LossProgram, Objective, Quadratic};
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

/// A line search.
#[derive(Clone, Copy, Debug)]
pub(super) struct Armijo {
    /// The loss must fall by this part of the slope.
    pub(super) constant: f64,
    /// Factor between step lengths.
    pub(super) shrink: f64,
    /// Step lengths that are tried.
    pub(super) most: usize,
}

/// Evaluates candidates on one batch.
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
    /// Places in `recorded` of what was prepared last.
    chosen: Vec<usize>,
    /// Copies the trial point to the parameters.
    take: Recording,
}

/// A quadratic that judges steps, with what evaluates them.
#[derive(Debug)]
pub(super) struct Judge {
    pub(super) quadratic: Arc<Quadratic>,
    theta: Vector,
    pub(super) candidates: Candidates,
}

/// Judges for every size of batch.
#[derive(Debug, Default)]
pub(super) struct Judges(pub(super) Vec<Judge>);

impl Judges {
    /// The place of the judge at `theta` with a quadratic whose batch is loaded, by way of `trial`.
    pub(super) fn of<O: Objective + ?Sized>(
        &mut self,
        objective: &mut O,
        [theta, trial]: [&Vector; 2],
        quadratic: &Arc<Quadratic>,
    ) -> Result<usize> {
        let known = |j: &Judge| Arc::ptr_eq(&j.quadratic, quadratic) && j.theta.is_same(theta);
        if let Some(at) = self.0.iter().position(known) {
            return Ok(at);
        }
        let loss = objective.loss_at(trial, quadratic.rows)?;
        let vectors = [theta, trial, &quadratic.gradient];
        let candidates = Candidates::new(objective.gpu(), vectors, &quadratic.value, loss)?;
        self.0.push(Judge {
            quadratic: Arc::clone(quadratic),
            theta: theta.clone(),
            candidates,
        });
        Ok(self.0.len() - 1)
    }
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
    /// At `theta`, by way of `trial`, on a batch with this gradient there; `base` is its loss, `loss` computes that at `trial`.
    pub(super) fn new(
        gpu: &Gpu,
        [theta, trial, gradient]: [&Vector; 3],
        base: &Slice,
        loss: Arc<LossProgram>,
    ) -> Result<Self> {
        let mut take = Recording::new();
        take.copy(trial.slice(), theta.slice())?;
        Ok(Self {
            theta: theta.clone(),
            trial: trial.clone(),
            gradient: gradient.clone(),
            loss,
            base: base.clone(),
            coefficients: gpu.buffer("step lengths", 2 * AT_ONCE)?,
            partials: gpu.buffer("partial sums", partial_elements(theta.slice()))?,
            losses: gpu.buffer("candidate losses", STRIDE * AT_ONCE)?,
            sums: gpu.buffer("candidate inner products", 3 * AT_ONCE)?,
            recorded: Vec::new(),
            chosen: Vec::new(),
            take,
        })
    }

    /// Gets ready to compute up to [`AT_ONCE`] candidates `(v, a)`: what [`record`](Self::record) records next.
    pub(super) fn prepare(&mut self, gpu: &Gpu, candidates: &[(&Vector, f64)]) -> Result<()> {
        let mut coefficients = Vec::with_capacity(2 * AT_ONCE);
        self.chosen.clear();
        for (slot, &(vector, factor)) in candidates.iter().take(AT_ONCE).enumerate() {
            coefficients.extend([1.0f32, factor as f32]);
            let place = self.place(gpu, vector, slot)?;
            self.chosen.push(place);
        }
        gpu.upload(&self.coefficients, 0, &coefficients)
    }

    /// Records the candidates prepared last.
    pub(super) fn record(&self, recorder: &mut Recorder<'_>) {
        for &place in &self.chosen {
            recorder.replay(&self.recorded[place].trial);
            recorder.replay(&self.recorded[place].measure);
        }
    }

    /// What [`results`](Self::results) needs to be read.
    pub(super) fn reads(&self) -> [&Slice; 3] {
        [&self.base, &self.losses, &self.sums]
    }

    /// Loss at the quadratic's own point, and what is known of the candidates prepared last.
    pub(super) fn results(&self, read: &[Vec<f32>]) -> Result<(f64, Vec<Candidate>)> {
        let [base, losses, sums] = read else {
            return Err(missing("candidate losses"));
        };
        let results = (0..self.chosen.len()).map(|slot| {
            let sum = |i: usize| f64::from(sums[3 * slot + i]);
            let loss = f64::from(losses[STRIDE * slot]);
            let loss = if loss.is_nan() { f64::INFINITY } else { loss };
            Candidate {
                loss,
                slope: sum(0),
                gradient_square: sum(1),
                square: sum(2),
            }
        });
        Ok((f64::from(base[0]), results.collect()))
    }

    /// All of it for up to [`AT_ONCE`] candidates, in one readback.
    pub(super) fn evaluate(
        &mut self,
        gpu: &Gpu,
        candidates: &[(&Vector, f64)],
    ) -> Result<Vec<Candidate>> {
        self.prepare(gpu, candidates)?;
        let read = gpu.submit_and_read(
            |recorder| {
                self.record(recorder);
                Ok(())
            },
            &self.reads(),
        )?;
        Ok(self.results(&read)?.1)
    }

    /// Shortens a step until Armijo's condition holds: the factor and what is known there, if it ever does, and the number of losses computed. A step that
    /// does not lead downhill is not shortened: it is taken whole where the loss does not rise, or not at all.
    pub(super) fn search(
        &mut self,
        gpu: &Gpu,
        base: f64,
        (vector, first): (&Vector, Candidate),
        rule: Armijo,
    ) -> Result<(Option<(f64, Candidate)>, usize)> {
        let enough = |factor: f64, at: &Candidate| {
            at.loss <= base + rule.constant * factor * at.slope.min(0.0)
        };
        if enough(1.0, &first) {
            return Ok((Some((1.0, first)), 0));
        }
        if first.slope.is_nan() || first.slope >= 0.0 {
            return Ok((None, 0));
        }
        let factors: Vec<f64> = (1..rule.most as i32).map(|k| rule.shrink.powi(k)).collect();
        let mut losses = 0;
        for chunk in factors.chunks(AT_ONCE) {
            let candidates: Vec<(&Vector, f64)> = chunk.iter().map(|&a| (vector, a)).collect();
            let known = self.evaluate(gpu, &candidates)?;
            losses += chunk.len();
            let found = chunk.iter().copied().zip(known);
            if let Some(found) = found.into_iter().find(|(a, at)| enough(*a, at)) {
                return Ok((Some(found), losses));
            }
        }
        Ok((None, losses))
    }

    /// Gets ready to move the parameters to `theta + a v`, by the very kernel that made the candidate; for [`record_move`](Self::record_move).
    pub(super) fn prepare_move(&mut self, gpu: &Gpu, vector: &Vector, factor: f64) -> Result<()> {
        self.prepare(gpu, &[(vector, factor)])
    }

    /// Records the move.
    pub(super) fn record_move(&self, recorder: &mut Recorder<'_>) {
        for &place in &self.chosen {
            recorder.replay(&self.recorded[place].trial);
            recorder.replay(&self.take);
        }
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
