//! Judges of steps: losses at candidate points `theta + a v` and their changes, several in one submission.

use std::sync::Arc;

use super::decision::falls_enough;
use super::saved::missing;
use crate::error::Result;
use crate::gpu::{Commands, Gpu, Recorder, Recording, Slice, Work};
use crate::kernels::step::Evidence;
use crate::kernels::vector::{combine, inner_products, partial_elements};
use crate::objective::{Gradient, GradientRequest, Loaded, LossCost, Losses, Objective};
use crate::recent::Recent;
use crate::vector::Vector;

/// Candidates in one submission.
pub(super) const AT_ONCE: usize = 4;
/// Results start at multiples of this many elements, where any device can bind them.
const STRIDE: usize = 64;

/// What is known of a candidate direction `v` with factor `a`.
#[derive(Clone, Copy, Debug)]
pub(super) struct Candidate {
    /// `f(theta + a v)`
    pub(super) loss: f64,
    /// `f(theta + a v) - f(theta)`; infinite if it, or the loss, is not a finite number.
    pub(super) change: f64,
    /// Bound on the error of the change.
    pub(super) error: f64,
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

/// Moves parameters to a candidate that was judged, by the very kernel that made the point.
#[derive(Clone, Debug)]
pub(super) struct Move {
    trial: Arc<Recording>,
    take: Arc<Recording>,
}

impl Move {
    pub(super) fn record(&self, recorder: &mut Recorder<'_>) {
        recorder.replay(&self.trial);
        recorder.replay(&self.take);
    }
}

/// Judges candidates on the batch of a slot.
#[derive(Debug)]
pub(super) struct Judge {
    theta: Vector,
    gradient: Vector,
    losses: Losses,
    /// The results at theta itself.
    base: Slice,
    coefficients: Slice,
    partials: Slice,
    results: Slice,
    sums: Slice,
    /// Computes losses at theta, as those from which changes are measured.
    at_base: Work,
    /// Whether that is to be done before the next candidate.
    begins: bool,
    recorded: Vec<Recorded>,
    /// Places in `recorded` of what was prepared last.
    chosen: Vec<usize>,
    take: Arc<Recording>,
}

/// Judges for every slot and size of batch that keep apart from those that step.
#[derive(Debug, Default)]
pub(super) struct Judges(Recent<Apart>);

/// A judge with a gradient of its own.
#[derive(Debug)]
pub(super) struct Apart {
    pub(super) gradient: Arc<Gradient>,
    theta: Vector,
    pub(super) judge: Judge,
}

impl Judges {
    /// The judge at `theta` on the batch of a slot.
    pub(super) fn of<O: Objective + ?Sized>(
        &mut self,
        objective: &mut O,
        theta: &Vector,
        loaded: &Loaded,
    ) -> Result<&mut Apart> {
        let gradient = objective.gradient(theta, loaded, GradientRequest { losses: true })?;
        let known = |j: &Apart| Arc::ptr_eq(&j.gradient, &gradient) && j.theta.is_same(theta);
        let bytes = gradient.cost.bytes;
        self.0.find_or(known, (theta.life(), bytes), || {
            Ok(Apart {
                judge: Judge::new(
                    objective.gpu(),
                    [theta, &gradient.gradient],
                    gradient.losses.as_ref(),
                )?,
                theta: theta.uncounted(),
                gradient: Arc::clone(&gradient),
            })
        })
    }

    /// The one that judged last.
    pub(super) fn last(&mut self) -> Option<&mut Judge> {
        self.0.last().map(|apart| &mut apart.judge)
    }

    /// Forgets all.
    pub(super) fn clear(&mut self) {
        self.0.clear();
    }
}

/// Kernels for a vector in one of the places of a submission.
#[derive(Debug)]
struct Recorded {
    vector: Vector,
    slot: usize,
    /// Makes the trial point.
    trial: Arc<Recording>,
    /// Loss and inner products at the trial point.
    measure: Work,
}

impl Judge {
    /// At `theta`, with the gradient there and the losses that were asked for with it.
    pub(super) fn new(
        gpu: &Gpu,
        [theta, gradient]: [&Vector; 2],
        losses: Option<&Losses>,
    ) -> Result<Self> {
        let losses = losses.cloned().ok_or_else(|| missing("losses"))?;
        let mut take = Recording::new();
        take.copy(losses.point.slice(), theta.slice())?;
        let base = gpu.buffer("loss at theta", losses.results.len())?;
        let mut at_base = losses.at_base.clone();
        at_base.tail().copy(&losses.results, &base)?;
        Ok(Self {
            theta: theta.uncounted(),
            gradient: gradient.clone(),
            losses,
            base,
            coefficients: gpu.buffer("step lengths", 2 * AT_ONCE)?,
            partials: gpu.buffer("partial sums", partial_elements(theta.slice()))?,
            results: gpu.buffer("candidate losses", STRIDE * AT_ONCE)?,
            sums: gpu.buffer("candidate inner products", 3 * AT_ONCE)?,
            at_base,
            begins: true,
            recorded: Vec::new(),
            chosen: Vec::new(),
            take: Arc::new(take),
        })
    }

    /// What the loss at theta costs, and that at a candidate.
    pub(super) fn costs(&self) -> [LossCost; 2] {
        [self.losses.cost_at_base, self.losses.cost_at_point]
    }

    /// Begins with a batch: what is computed next takes up the loss at theta first, once its gradient has been computed.
    pub(super) fn begin(&mut self) {
        self.begins = true;
    }

    /// Gets ready to compute up to [`AT_ONCE`] candidates `(v, a)`: the next [`commands`](Self::commands).
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

    /// What computes the candidates prepared last.
    pub(super) fn commands(&self) -> Vec<Commands<'_>> {
        let base = self.begins.then_some((&self.at_base).into());
        let candidates = self.chosen.iter().flat_map(|&place| {
            let Recorded { trial, measure, .. } = &self.recorded[place];
            [(&**trial).into(), measure.into()]
        });
        base.into_iter().chain(candidates).collect()
    }

    /// What [`results`](Self::results) needs to be read.
    pub(super) fn reads(&self) -> [&Slice; 3] {
        [&self.base, &self.results, &self.sums]
    }

    /// Loss at theta, and what is known of the candidates prepared last.
    pub(super) fn results(&mut self, read: &[Vec<f32>]) -> Result<(f64, Vec<Candidate>)> {
        let [base, results, sums] = read else {
            return Err(missing("candidate losses"));
        };
        self.begins = false;
        let results = (0..self.chosen.len()).map(|slot| {
            let sum = |i: usize| f64::from(sums[3 * slot + i]);
            let [loss, change, error] = [0, 1, 2].map(|i| f64::from(results[STRIDE * slot + i]));
            let finite = loss.is_finite() && change.is_finite();
            Candidate {
                loss,
                change: if finite { change } else { f64::INFINITY },
                error,
                slope: sum(0),
                gradient_square: sum(1),
                square: sum(2),
            }
        });
        Ok((f64::from(base[0]), results.collect()))
    }

    /// All of it for up to [`AT_ONCE`] candidates, in one readback.
    pub(super) async fn evaluate(
        &mut self,
        gpu: &Gpu,
        candidates: &[(&Vector, f64)],
    ) -> Result<Vec<Candidate>> {
        self.prepare(gpu, candidates)?;
        let (commands, reads) = (self.commands(), self.reads());
        let read = gpu.run_and_read_async(commands, &reads).await?;
        Ok(self.results(&read)?.1)
    }

    /// Shortens a step, which begins with the factor `start`, until Armijo's condition holds: the factor and what is known there, if it
    /// ever does, and the number of losses computed. A step that does not lead downhill is not shortened: it is taken whole where the loss
    /// does not rise, or not at all.
    pub(super) async fn search(
        &mut self,
        gpu: &Gpu,
        (vector, start, first): (&Vector, f64, Candidate),
        rule: Armijo,
    ) -> Result<(Option<(f64, Candidate)>, usize)> {
        let enough = |factor: f64, at: &Candidate| {
            falls_enough(at.change, at.error, rule.constant * factor, at.slope)
        };
        if enough(start, &first) {
            return Ok((Some((start, first)), 0));
        }
        if first.slope.is_nan() || first.slope >= 0.0 {
            return Ok((None, 0));
        }
        let shrunk = (1..rule.most as i32).map(|k| start * rule.shrink.powi(k));
        let factors: Vec<f64> = shrunk.collect();
        let mut losses = 0;
        for chunk in factors.chunks(AT_ONCE) {
            let candidates: Vec<(&Vector, f64)> = chunk.iter().map(|&a| (vector, a)).collect();
            let known = self.evaluate(gpu, &candidates).await?;
            losses += chunk.len();
            let found = chunk.iter().copied().zip(known);
            if let Some(found) = found.into_iter().find(|(a, at)| enough(*a, at)) {
                return Ok((Some(found), losses));
            }
        }
        Ok((None, losses))
    }

    /// Records the loss at theta and the first `count` candidates `theta + a v`, with the coefficients that are in
    /// [`evidence`](Self::evidence) when it runs.
    pub(super) fn record_grid(
        &mut self,
        gpu: &Gpu,
        recording: &mut Recording,
        v: &Vector,
        count: usize,
    ) -> Result<()> {
        recording.append(self.at_base.recorded()?.clone());
        for slot in 0..count.min(AT_ONCE) {
            let place = self.place(gpu, v, slot)?;
            recording.append((*self.recorded[place].trial).clone());
            recording.append(self.recorded[place].measure.recorded()?.clone());
        }
        Ok(())
    }

    /// What decides on candidates, beside the state of a solve: the losses at theta and at them, inner products, and coefficients `[1, a]`.
    pub(super) fn evidence<'a>(&'a self, state: &'a Slice) -> Evidence<'a> {
        Evidence {
            state,
            base: &self.base,
            results: &self.results,
            sums: &self.sums,
            coefficients: &self.coefficients,
        }
    }

    /// Where trial points are made.
    pub(super) fn point(&self) -> &Vector {
        &self.losses.point
    }

    /// Gets ready to move the parameters to `theta + a v`.
    pub(super) fn prepare_move(&mut self, gpu: &Gpu, vector: &Vector, factor: f64) -> Result<Move> {
        self.prepare(gpu, &[(vector, factor)])?;
        self.prepared_move()
    }

    /// Moves the parameters to the first of the candidates prepared last.
    pub(super) fn prepared_move(&self) -> Result<Move> {
        let trial = self.chosen.first().map(|&at| &self.recorded[at].trial);
        Ok(Move {
            trial: Arc::clone(trial.ok_or_else(|| missing("candidate"))?),
            take: Arc::clone(&self.take),
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
            self.losses.point.slice(),
            self.theta.slice(),
            vector.slice(),
            coefficients,
        )?;
        let mut measure = self.losses.at_point.clone();
        let count = self.losses.results.len();
        measure.tail().copy(
            &self.losses.results,
            &self.results.slice(STRIDE * slot..STRIDE * slot + count)?,
        )?;
        let (gradient, v) = (self.gradient.slice(), vector.slice());
        inner_products(
            gpu,
            measure.tail(),
            (&self.sums, 3 * slot),
            &self.partials,
            gradient,
            v,
        )?;
        self.recorded.push(Recorded {
            vector: vector.clone(),
            slot,
            trial: Arc::new(trial),
            measure,
        });
        Ok(self.recorded.len() - 1)
    }
}
