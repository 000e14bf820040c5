//! Low-rank saddle-free Newton with Levenberg-Marquardt damping (O'Leary-Roseberry, Alger and Ghattas 2020).

mod automatic;
mod fold;
mod options;
mod quotients;
mod roles;
mod spectrum;

use std::sync::Arc;
use std::time::Instant;

use automatic::StepProbe;
use fold::{Fold, Memory};
pub use options::{Base, CurvatureBatch, DampingRule, LrsfnOptions, RankRule};
use roles::Rows;

use super::candidates::{Candidate, Judges};
use super::first_order::{Moments, missing};
use super::optimizer::{Optimizer, OptimizerState};
use super::origin::with_origin;
use super::report::StepReport;
use crate::error::{Error, Result};
use crate::gpu::{Gpu, Recording};
use crate::objective::{Objective, Quadratic, QuadraticRequest};
use crate::vector::Vector;

/// Linearizes a quadratic and makes the step of a fold with its gradient.
struct Maker {
    quadratic: Arc<Quadratic>,
    fold: usize,
    make: Recording,
}

/// The batches of a step.
struct Cast<'a, B: ?Sized> {
    /// What makes eigenvectors, and what steps along them, for each step that is averaged.
    folds: &'a [[&'a B; 2]],
    /// What judges, unless that is what steps.
    judge: Option<&'a B>,
}

/// What a step would do.
struct Proposal {
    /// The loss before.
    base: f64,
    /// Who judged.
    judge: usize,
    candidate: Candidate,
    /// `u_i . g` of each fold.
    projections: Vec<Vec<f32>>,
    /// Whether the base optimizer moved at all.
    moved: bool,
}

/// Low-rank saddle-free Newton:
///
/// ```text
/// d = -alpha sum_i (u_i . g) / (|l_i| + gamma) u_i  -  beta / gamma (g - sum_i (u_i . g) u_i)
/// ```
///
/// with the `r` eigenpairs `(l_i, u_i)` of largest magnitude of the Hessian, damping `gamma`, and step lengths `alpha` and `beta` in the captured space and
/// beyond it. Directions of negative curvature are followed downhill with the length that their magnitude allows. With another [`Base`] the second term is
/// the step of SGD or Adam on the gradient beyond the captured space, made orthogonal to that space.
///
/// Eigenpairs come from the batch of the step, from a part of it ([`CurvatureBatch`]), or from a batch of their own with
/// [`step_with_curvature`](Self::step_with_curvature). With [`CurvatureBatch::Decoupled`] and [`CurvatureBatch::CrossFit`] this is Newton's method in eigenvectors
/// with debiased mini-batches, a reconstruction (Tatzel et al. 2025): `u_i` of some examples, `l_i = u_i . C u_i` and `g` of others.
///
/// Whoever steps, the loss before and after, whether a step is accepted and the reduction ratio are those of the whole batch, or of the part
/// [`LrsfnOptions::acceptance`]. The ratio is the change of that loss over the model's, `g . d + d . C d / 2`: `g` is the judges' gradient, and `d . C d` the
/// mean over folds of `sum_i l_i (u_i . d)^2` of each fold's own step, with the eigenvalues that made it. So the slope is that of the loss which is judged,
/// and the curvature was held out; were all folds' matrices one and positive semi-definite, their mean would bound the mean step's from above.
///
/// A step has one blocking readback, whatever the number of folds. Where eigenpairs are computed there is one more for each fold if they start from
/// the last ones without power iterations, and `2 + power_iterations` more otherwise (see [`RandomizedEigensolver`](crate::linalg::RandomizedEigensolver));
/// one more for each fold with Rayleigh quotients of other examples or a noise test, which share it; and one for an automatic step length.
///
/// The eigensolver, the rules for stable damping, the separate step lengths and everything else in [`LrsfnOptions`] go beyond the paper;
/// [`LrsfnOptions::paper`] is the paper's method as its authors' program has it.
pub struct LowRankSaddleFreeNewton {
    options: LrsfnOptions,
    steps: usize,
    damping: f64,
    /// Step lengths in the captured space and beyond it.
    lengths: [f64; 2],
    memory: Option<Memory>,
    makers: Vec<Maker>,
    judges: Judges,
    probes: Vec<StepProbe>,
}

impl LowRankSaddleFreeNewton {
    /// With these options.
    ///
    /// # Errors
    /// [`Error::Option`] naming the option and its range.
    pub fn new(options: LrsfnOptions) -> Result<Self> {
        options.validate()?;
        let damping = match options.rule {
            DampingRule::Fixed => options.damping,
            DampingRule::Adaptive(rule) => rule.initial.max(options.damping),
        };
        Ok(Self {
            lengths: [options.step_length, options.step_length_beyond],
            options,
            steps: 0,
            damping,
            memory: None,
            makers: Vec::new(),
            judges: Judges::default(),
            probes: Vec::new(),
        })
    }

    /// The eigenvalues in use; empty before the first step. They fall in magnitude, unless they are Rayleigh quotients of other examples than those of the
    /// eigenvectors; with several folds they are one fold's after another's.
    pub fn eigenvalues(&self) -> Vec<f64> {
        self.memory
            .as_ref()
            .map_or(Vec::new(), |memory| all_values(&memory.folds))
    }

    /// One step with gradient and losses of `batch` and curvature of `curvature_batch`. Nothing is cut off from either batch: all of `batch` judges.
    ///
    /// With [`CurvatureBatch::Decoupled`] or [`CurvatureBatch::CrossFit`] only eigenvectors are of `curvature_batch`, and eigenvalues are Rayleigh quotients on
    /// `batch`; there is one fold, which is the first one. Otherwise both are of `curvature_batch`, and slopes alone are of `batch`.
    ///
    /// # Errors
    /// As [`Optimizer::step`].
    pub fn step_with_curvature<O: Objective + ?Sized>(
        &mut self,
        objective: &mut O,
        theta: &Vector,
        batch: &O::Batch,
        curvature_batch: &O::Batch,
    ) -> Result<StepReport> {
        let cast = Cast {
            folds: &[[curvature_batch, batch]],
            judge: None,
        };
        let result = self.timed_step(objective, theta, &cast);
        with_origin(result, objective, theta, batch)
    }

    fn timed_step<O: Objective + ?Sized>(
        &mut self,
        objective: &mut O,
        theta: &Vector,
        cast: &Cast<'_, O::Batch>,
    ) -> Result<StepReport> {
        let start = Instant::now();
        let gpu = objective.gpu().clone();
        let (readbacks, looks) = (gpu.readbacks(), gpu.looks());
        let mut memory = match self.memory.take() {
            Some(memory) => memory,
            None => Memory::new(objective, &self.options)?,
        };
        let result = self.step_in(&mut memory, objective, theta, cast);
        self.memory = Some(memory);
        Ok(StepReport {
            readbacks: gpu.readbacks() - readbacks,
            looks: gpu.looks() - looks,
            seconds: start.elapsed().as_secs_f64(),
            ..result?
        })
    }

    fn step_in<O: Objective + ?Sized>(
        &mut self,
        memory: &mut Memory,
        objective: &mut O,
        theta: &Vector,
        cast: &Cast<'_, O::Batch>,
    ) -> Result<StepReport> {
        let gpu = objective.gpu().clone();
        let mut work = self.prepare(memory, objective, theta, cast)?;
        let used = &memory.folds[..cast.folds.len()];
        let damping = self.current_damping(used);
        let proposal = self.propose(memory, objective, theta, cast, damping)?;
        let Proposal {
            base, candidate, ..
        } = proposal;
        // A gradient of whoever steps and whoever judges, and the loss at the new point.
        let examples = |batch: &O::Batch| objective.examples(batch) as f64;
        let steps = cast.folds.iter().map(|[_, steps]| *steps);
        work += steps.clone().map(examples).sum::<f64>();
        work += match cast.judge {
            Some(judge) => examples(judge) * (1.0 + 1.0 / 3.0),
            None => steps.map(examples).sum::<f64>() / 3.0,
        };
        let mut slopes = proposal.projections.iter().flatten();
        let known = candidate.gradient_square.is_finite()
            && (cast.judge.is_none() || slopes.all(|slope| slope.is_finite()));
        if !base.is_finite() || !known || !proposal.moved {
            return Err(Error::NotFinite {
                what: if !base.is_finite() {
                    "the loss".into()
                } else if proposal.moved {
                    "the gradient".into()
                } else {
                    "the step".into()
                },
                advice: "Use a smaller step length or more damping, or check the data.",
            });
        }
        let each = used.iter().zip(&proposal.projections);
        let curvature: f64 = each
            .map(|(fold, slopes)| fold.curvature_along(slopes, self.lengths[0], damping))
            .sum();
        let curvature = curvature / used.len() as f64;
        let rho = (candidate.loss - base) / (candidate.slope + 0.5 * curvature);
        let adaptive = match self.options.rule {
            DampingRule::Fixed => None,
            DampingRule::Adaptive(rule) => Some(rule),
        };
        // Nothing moves where there is no gradient, and nothing is learnt about the model.
        let stationary = candidate.square == 0.0;
        let accepted = !stationary
            && candidate.loss.is_finite()
            && candidate.square.is_finite()
            && (adaptive.is_none() || candidate.loss <= base);
        if accepted {
            let judge = &self.judges.0[proposal.judge];
            gpu.submit(|recorder| judge.candidates.record_move(recorder))?;
        } else if adaptive.is_none() && !stationary {
            return Err(Error::NotFinite {
                what: "the loss after the step".into(),
                advice: "Use a smaller step length or more damping.",
            });
        }
        if let (Some(rule), false) = (adaptive, stationary) {
            let rho = if accepted { rho } else { f64::NEG_INFINITY };
            self.damping = rule.next(damping, rho).max(self.options.damping);
        }
        self.steps += 1;
        let noise = used.iter().flat_map(|fold| &fold.spectrum.noise);
        Ok(StepReport {
            loss_before: base,
            loss_after: Some(if accepted { candidate.loss } else { base }),
            gradient_norm: candidate.gradient_square.sqrt(),
            step_norm: if accepted {
                candidate.square.sqrt()
            } else {
                0.0
            },
            accepted,
            step_length: Some(self.lengths[0]),
            rho: (rho.is_finite() && !stationary).then_some(rho),
            damping: Some(damping),
            eigenvalues: all_values(used),
            eigenvalue_noise: noise.copied().collect(),
            work,
            ..StepReport::default()
        })
    }

    /// Computes eigenpairs where it is time for them. Returns the work.
    fn prepare<O: Objective + ?Sized>(
        &mut self,
        memory: &mut Memory,
        objective: &mut O,
        theta: &Vector,
        cast: &Cast<'_, O::Batch>,
    ) -> Result<f64> {
        let gpu = objective.gpu().clone();
        let due = self.steps.is_multiple_of(self.options.refresh);
        let holds_out = self.options.holds_out();
        let mut work = 0.0;
        let mut fresh = false;
        for (fold, [directions, steps]) in memory.folds.iter_mut().zip(cast.folds) {
            if due || fold.spectrum.is_new() {
                let held_out = holds_out.then_some(*steps);
                let (options, spectrum) = (&self.options, &mut fold.spectrum);
                work += spectrum.refresh(options, objective, theta, directions, held_out)?;
                fold.upload_subtraction(&gpu)?;
                fresh = true;
            }
        }
        if let (true, Some(lanczos), [[_, steps]]) = (fresh, self.options.automatic, cast.folds) {
            let length = self.measure(&memory.folds[0], objective, theta, steps, lanczos)?;
            self.lengths = [length; 2];
            work += objective.examples(steps) as f64 * (1.0 + 2.0 * lanczos as f64);
        }
        Ok(work)
    }

    /// The damping of a step with these folds.
    fn current_damping(&self, folds: &[Fold]) -> f64 {
        match self.options.rule {
            DampingRule::Fixed => self.options.damping,
            DampingRule::Adaptive(_) => {
                let least = folds.iter().map(|fold| fold.spectrum.least);
                let floor = least.fold(self.options.damping, f64::max);
                self.damping.max(floor)
            }
        }
    }

    /// The automatic step length.
    fn measure<O: Objective + ?Sized>(
        &mut self,
        fold: &Fold,
        objective: &mut O,
        theta: &Vector,
        batch: &O::Batch,
        steps: usize,
    ) -> Result<f64> {
        let request = QuadraticRequest {
            curvature: self.options.curvature,
            ..QuadraticRequest::default()
        };
        let quadratic = objective.quadratic(theta, batch, request)?;
        let gpu = objective.gpu();
        let known = |probe: &StepProbe| Arc::ptr_eq(&probe.quadratic, &quadratic);
        let at = match self.probes.iter().position(known) {
            Some(at) => at,
            None => {
                let basis = &fold.spectrum.basis;
                self.probes
                    .push(StepProbe::new(gpu, &quadratic, basis, steps)?);
                self.probes.len() - 1
            }
        };
        let damping = self.current_damping(std::slice::from_ref(fold));
        self.probes[at].measure(gpu, &fold.spectrum.values, damping)
    }

    /// What makes the step of a fold with the gradient of a quadratic.
    fn maker(
        &mut self,
        memory: &Memory,
        gpu: &Gpu,
        quadratic: &Arc<Quadratic>,
        fold: usize,
    ) -> Result<usize> {
        let known = |m: &Maker| Arc::ptr_eq(&m.quadratic, quadratic) && m.fold == fold;
        if let Some(at) = self.makers.iter().position(known) {
            return Ok(at);
        }
        let mut make = quadratic.linearize.clone();
        memory.record(gpu, &mut make, quadratic, fold)?;
        self.makers.push(Maker {
            quadratic: Arc::clone(quadratic),
            fold,
            make,
        });
        Ok(self.makers.len() - 1)
    }

    /// Makes the step, and evaluates the loss there.
    fn propose<O: Objective + ?Sized>(
        &mut self,
        memory: &Memory,
        objective: &mut O,
        theta: &Vector,
        cast: &Cast<'_, O::Batch>,
        damping: f64,
    ) -> Result<Proposal> {
        let gpu = objective.gpu().clone();
        let settings = self.settings();
        if let (Some(base), Some(settings)) = (&memory.base, &settings) {
            base.moments.upload(&gpu, settings)?;
        }
        let request = QuadraticRequest::default();
        let share = 1.0 / cast.folds.len() as f64;
        let mut quadratic = None;
        let mut before = 0;
        for (number, [_, steps]) in cast.folds.iter().enumerate() {
            let own = objective.quadratic(theta, steps, request)?;
            before = self.maker(memory, &gpu, &own, number)?;
            memory.upload_weights(&gpu, number, self.lengths, damping, share)?;
            if cast.judge.is_some() {
                // Submitted before the next examples are loaded into the same buffers.
                gpu.submit(|recorder| recorder.replay(&self.makers[before].make))?;
            }
            quadratic = Some(own);
        }
        if let Some(judge) = cast.judge {
            quadratic = Some(objective.quadratic(theta, judge, request)?);
        }
        let quadratic = quadratic.ok_or_else(|| missing("quadratic"))?;
        let judge = self
            .judges
            .of(objective, [theta, &memory.trial], &quadratic)?;
        let candidates = &mut self.judges.0[judge].candidates;
        candidates.prepare(&gpu, &[(memory.step(cast.folds.len()), 1.0)])?;
        let before = match cast.judge {
            Some(_) => &quadratic.linearize,
            None => &self.makers[before].make,
        };
        let mut reads = candidates.reads().to_vec();
        let folds = &memory.folds[..cast.folds.len()];
        reads.extend(folds.iter().map(|fold| &fold.projections));
        reads.extend(memory.base.as_ref().map(|base| base.moments.reads()));
        let mut read = gpu.submit_and_read(
            |recorder| {
                recorder.replay(before);
                candidates.record(recorder);
                Ok(())
            },
            &reads,
        )?;
        let moved = match (&memory.base, &settings) {
            (Some(base), Some(settings)) => {
                let scalars = read.pop().ok_or_else(|| missing("sums"))?;
                base.moments.moves(settings, Moments::sums(&scalars))
            }
            _ => true,
        };
        let projections = read.split_off(read.len() - folds.len());
        let (base, found) = candidates.results(&read)?;
        let candidate = found.first().copied().ok_or_else(|| missing("candidate"))?;
        Ok(Proposal {
            base,
            judge,
            candidate,
            projections,
            moved,
        })
    }

    /// Settings of the base optimizer for the next step.
    fn settings(&self) -> Option<[f32; 8]> {
        match &self.options.base {
            Base::Gradient => None,
            Base::Sgd(options) => Some(options.settings()),
            Base::Adam(options) => Some(options.settings(self.steps as i32 + 1)),
        }
    }
}

impl<O: Objective + ?Sized> Optimizer<O> for LowRankSaddleFreeNewton {
    fn name(&self) -> &'static str {
        match (self.options.rule, self.options.curvature_batch) {
            (_, CurvatureBatch::Decoupled(_)) => "decoupled-lrsfn",
            (_, CurvatureBatch::CrossFit(_)) => "cross-fit-lrsfn",
            (DampingRule::Fixed, _) => "lrsfn-paper",
            (DampingRule::Adaptive(_), _) => "lrsfn",
        }
    }

    fn attempt(
        &mut self,
        objective: &mut O,
        theta: &Vector,
        batch: &O::Batch,
    ) -> Result<StepReport> {
        let roles = self.options.deal(objective.rows(batch));
        let part = |rows: &Rows| match rows {
            Some(ranges) => objective.part(batch, ranges).map(Some),
            None => Ok(None),
        };
        let folds = roles
            .folds
            .iter()
            .map(|[directions, steps]| Ok([part(directions)?, part(steps)?]))
            .collect::<Result<Vec<_>>>()?;
        let judging = part(&roles.judges)?;
        let folds: Vec<[&O::Batch; 2]> = folds
            .iter()
            .map(|fold| fold.each_ref().map(|part| part.as_ref().unwrap_or(batch)))
            .collect();
        let judge = (!roles.judge_themselves()).then(|| judging.as_ref().unwrap_or(batch));
        let cast = Cast {
            folds: &folds,
            judge,
        };
        self.timed_step(objective, theta, &cast)
    }

    fn state(&self, objective: &O) -> Result<OptimizerState> {
        let mut state = OptimizerState {
            scalars: vec![
                ("steps".into(), self.steps as f64),
                ("damping".into(), self.damping),
                ("step_length".into(), self.lengths[0]),
                ("step_length_beyond".into(), self.lengths[1]),
            ],
            vectors: vec![],
        };
        if let Some(memory) = &self.memory {
            for (number, fold) in memory.folds.iter().enumerate() {
                let (gpu, of) = (objective.gpu(), prefix(number));
                fold.spectrum.save(gpu, &of, &mut state)?;
            }
            if let Some(base) = &memory.base {
                base.moments.save(objective.gpu(), &mut state)?;
            }
        }
        Ok(state)
    }

    fn restore(&mut self, objective: &O, state: &OptimizerState) -> Result<()> {
        let scalar = |name: &str| state.scalar(name).ok_or_else(|| missing(name));
        let (steps, damping) = (scalar("steps")?, scalar("damping")?);
        let lengths = [scalar("step_length")?, scalar("step_length_beyond")?];
        let gpu = objective.gpu();
        let mut memory = Memory::new(objective, &self.options)?;
        if steps > 0.0 {
            for (number, fold) in memory.folds.iter_mut().enumerate() {
                fold.spectrum.restore(gpu, &prefix(number), state)?;
                fold.upload_subtraction(gpu)?;
            }
            if let Some(base) = &memory.base {
                base.moments.restore(gpu, state)?;
            }
        }
        self.makers.clear();
        self.judges.0.clear();
        self.probes.clear();
        (self.steps, self.damping, self.lengths) = (steps as usize, damping, lengths);
        self.memory = Some(memory);
        Ok(())
    }
}

/// How names of what fold `number` remembers begin.
fn prefix(number: usize) -> String {
    match number {
        0 => String::new(),
        _ => format!("fold {number} "),
    }
}

/// The eigenvalues of one fold after another.
fn all_values(folds: &[Fold]) -> Vec<f64> {
    let values = folds.iter().flat_map(|fold| &fold.spectrum.values);
    values.copied().collect()
}
