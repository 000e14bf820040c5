//! Newton-CG with decoupled mini-batches: directions of some examples, steps along them of others.

use std::ops::Range;
use std::sync::Arc;
use std::time::Instant;

use super::candidates::Candidates;
use super::first_order::missing;
use super::newton_cg::{NewtonCgOptions, Preconditioner};
use super::optimizer::{Optimizer, OptimizerState};
use super::report::StepReport;
use crate::error::{Error, Result};
use crate::gpu::{Gpu, Recording, Slice};
use crate::kernels::vector::combine;
use crate::linalg::{CgReport, Companion, ConjugateGradients, Operator, Stop};
use crate::objective::{Curvature, Objective, Quadratic, QuadraticRequest};
use crate::vector::Vector;

/// Slots of the two quadratics of a solve; the one that judges is in slot 0.
const DIRECTIONS: usize = 1;
const STEPS: usize = 2;

/// Which examples of a batch make directions, and which make the steps along them.
#[derive(Clone, Copy, Debug, PartialEq)]
#[non_exhaustive]
pub enum Strategy {
    /// The first part of the batch, from 0 to 1, makes directions, the rest makes steps.
    Decoupled(f64),
    /// The batch is cut into this many folds. Each makes the steps along directions of all others, and the steps are averaged; 2 is cross-fitting.
    CrossFit(usize),
}

/// Settings of [`DecoupledNewtonCg`].
#[derive(Clone, Debug, PartialEq)]
#[non_exhaustive]
pub struct DecoupledOptions {
    /// Those of Newton-CG that are not about backtracking and preconditioners, which it does not have here.
    pub newton: NewtonCgOptions,
    /// Who makes what. Default [`Strategy::CrossFit`] with 2 folds.
    pub strategy: Strategy,
    /// Whether each step along a direction is multiplied by `max(0, 1 - variance / slope^2)`. The variance is that of the first slopes of the examples,
    /// at the start of the solve. Default false.
    pub shrinks: bool,
    /// Part of the batch that does nothing but judge the step: losses for the line search and the reduction ratio. 0: the whole batch judges. Default 0.
    pub acceptance: f64,
}

impl Default for DecoupledOptions {
    fn default() -> Self {
        Self {
            newton: NewtonCgOptions::default(),
            strategy: Strategy::CrossFit(2),
            shrinks: false,
            acceptance: 0.0,
        }
    }
}

/// Rows for directions, and rows for steps.
type Parts = [Vec<Range<usize>>; 2];

impl DecoupledOptions {
    /// Sets the options of Newton-CG.
    #[must_use]
    pub fn with_newton(mut self, newton: NewtonCgOptions) -> Self {
        self.newton = newton;
        self
    }

    /// Sets who makes what.
    #[must_use]
    pub fn with_strategy(mut self, strategy: Strategy) -> Self {
        self.strategy = strategy;
        self
    }

    /// Sets whether steps shrink with the noise of their slopes.
    #[must_use]
    pub fn with_shrinking(mut self, shrinks: bool) -> Self {
        self.shrinks = shrinks;
        self
    }

    /// Sets the part of the batch that only judges.
    #[must_use]
    pub fn with_acceptance(mut self, part: f64) -> Self {
        self.acceptance = part;
        self
    }

    /// Checks the ranges.
    ///
    /// # Errors
    /// [`Error::Option`] naming the option and its range.
    pub fn validate(&self) -> Result<()> {
        let bad = |option: &str, message: String| {
            Err(Error::Option {
                option: option.into(),
                message,
            })
        };
        self.newton.validate()?;
        if self.newton.preconditioner != Preconditioner::None {
            return bad(
                "preconditioner",
                "decoupled Newton-CG has none; use Preconditioner::None".into(),
            );
        }
        if self.newton.curvature != Curvature::GaussNewton {
            return bad(
                "curvature",
                "decoupled Newton-CG works with the Gauss-Newton matrix".into(),
            );
        }
        match self.strategy {
            Strategy::Decoupled(part) if !(part > 0.0 && part < 1.0) => {
                bad("strategy", format!("{part} is not a part in 0..1"))
            }
            Strategy::CrossFit(folds) if !(2..=100).contains(&folds) => {
                bad("strategy", format!("{folds} folds are not in 2..=100"))
            }
            _ if !(0.0..1.0).contains(&self.acceptance) => {
                bad("acceptance", format!("{} is not in 0..1", self.acceptance))
            }
            _ => Ok(()),
        }
    }

    /// Ranges of rows for directions and steps of each solve, and those that judge, in a batch of `rows` rows.
    fn deal(&self, rows: usize) -> (Vec<Parts>, Range<usize>) {
        let judging = (self.acceptance * rows as f64).round() as usize;
        let rest = rows - judging.min(rows);
        let judges = if judging == 0 { 0..rows } else { rest..rows };
        let solves = match self.strategy {
            Strategy::Decoupled(part) => {
                let cut = (part * rest as f64).round() as usize;
                let (directions, steps) = (0..cut, cut..rest);
                vec![[vec![directions], vec![steps]]]
            }
            Strategy::CrossFit(folds) => {
                // Folds of one size, so that every solve runs the same programs.
                let size = rest / folds;
                let all = size * folds;
                (0..folds)
                    .map(|fold| {
                        let own = fold * size..(fold + 1) * size;
                        let others = [0..own.start, own.end..all];
                        let others = others.into_iter().filter(|range| !range.is_empty());
                        [others.collect(), vec![own]]
                    })
                    .collect()
            }
        };
        (solves, judges)
    }
}

/// A solve with two quadratics.
struct Pair {
    quadratics: [Arc<Quadratic>; 2],
    cg: ConjugateGradients,
    /// Linearizes both.
    before: Recording,
    /// Puts `warm_start` times the last step into the first iterate.
    recall: Recording,
    /// Adds a share of the solution to the sum of all solves, from one place to another: see [`Memory::sums`].
    add: [Recording; 2],
}

/// What judges a step.
struct Judge {
    quadratic: Arc<Quadratic>,
    theta: Vector,
    candidates: Candidates,
}

struct Memory {
    /// The step of the last time.
    previous: Vector,
    trial: Vector,
    /// Two places between which the sum of solutions changes; the first one holds nothing before the first solve.
    sums: [Vector; 2],
    zeros: Vector,
    /// `[1, share]` of a solve, then `[warm start, 0]`.
    factors: Slice,
}

/// Newton-CG whose directions and steps come from different examples, which removes the bias that a mini-batch's own directions bring into its slopes and
/// curvatures (Tatzel et al. 2025).
///
/// For each solve conjugate gradients run on one quadratic, and a [`Companion`] chooses the steps along their directions with slope and curvature of
/// another: two recurrences in one pass. The damping is added to both matrices, and adapted by the reduction ratio of the examples that judge, for
/// which the companions' models stand. A step has one blocking readback for each solve, and one to judge.
///
/// This is a reconstruction: the paper's text and program were not available. The recurrence, cross-fitting and shrinkage are derived in
/// `docs/ARCHITECTURE.md`.
pub struct DecoupledNewtonCg {
    options: DecoupledOptions,
    damping: f64,
    has_previous: bool,
    memory: Option<Memory>,
    pairs: Vec<Pair>,
    judges: Vec<Judge>,
}

impl DecoupledNewtonCg {
    /// With these options.
    ///
    /// # Errors
    /// [`Error::Option`] naming the option and its range.
    pub fn new(options: DecoupledOptions) -> Result<Self> {
        options.validate()?;
        Ok(Self {
            damping: options.newton.damping.initial,
            options,
            has_previous: false,
            memory: None,
            pairs: Vec::new(),
            judges: Vec::new(),
        })
    }

    /// The damping of the next step.
    pub fn damping(&self) -> f64 {
        self.damping
    }

    fn ready<O: Objective + ?Sized>(&mut self, objective: &O) -> Result<()> {
        if self.memory.is_none() {
            let (gpu, layout) = (objective.gpu(), objective.layout());
            let new = |label: &str| Vector::new(gpu, label, layout);
            self.memory = Some(Memory {
                previous: new("last step")?,
                trial: new("trial point")?,
                sums: [new("sum of steps")?, new("sum of steps")?],
                zeros: new("zeros")?,
                factors: gpu.buffer("factors of steps", 4)?,
            });
        }
        Ok(())
    }

    /// The solve for two parts of a batch, with both loaded.
    fn pair<O: Objective + ?Sized>(
        &mut self,
        objective: &mut O,
        theta: &Vector,
        parts: &[O::Batch; 2],
    ) -> Result<usize> {
        let mut request = QuadraticRequest {
            curvature: self.options.newton.curvature,
            slot: DIRECTIONS,
            ..QuadraticRequest::default()
        };
        let directions = objective.quadratic(theta, &parts[0], request)?;
        request.slot = STEPS;
        request.slope_variance = self.options.shrinks;
        let steps = objective.quadratic(theta, &parts[1], request)?;
        let known = |pair: &Pair| {
            Arc::ptr_eq(&pair.quadratics[0], &directions)
                && Arc::ptr_eq(&pair.quadratics[1], &steps)
        };
        if let Some(at) = self.pairs.iter().position(known) {
            return Ok(at);
        }
        let Some(memory) = &self.memory else {
            return Err(missing("memory"));
        };
        let gpu = objective.gpu();
        let companion = Companion {
            operator: Operator::from(steps.as_ref()),
            gradient: steps.gradient.clone(),
            variance: steps.slope_variance.clone(),
        };
        let cg = ConjugateGradients::with_companion(
            gpu,
            &Operator::from(directions.as_ref()),
            &directions.gradient,
            None,
            &self.options.newton.cg,
            &[],
            Some(&companion),
        )?;
        let mut before = directions.linearize.clone();
        before.append(steps.linearize.clone());
        let mut recall = Recording::new();
        let (solution, previous) = (cg.solution.slice(), memory.previous.slice());
        let factors = &memory.factors;
        combine(gpu, &mut recall, solution, previous, previous, (factors, 2))?;
        let add = |to: usize| -> Result<Recording> {
            let mut recording = Recording::new();
            let (to, from) = (memory.sums[to].slice(), memory.sums[1 - to].slice());
            combine(gpu, &mut recording, to, from, solution, (factors, 0))?;
            Ok(recording)
        };
        let add = [add(0)?, add(1)?];
        self.pairs.push(Pair {
            quadratics: [directions, steps],
            cg,
            before,
            recall,
            add,
        });
        Ok(self.pairs.len() - 1)
    }

    /// Solves on one pair of parts and adds a share of the solution.
    fn solve(&self, gpu: &Gpu, at: usize, number: usize) -> Result<CgReport> {
        let (pair, Some(memory)) = (&self.pairs[at], &self.memory) else {
            return Err(missing("memory"));
        };
        let mut before = Recording::new();
        if number == 0 {
            before.copy(memory.zeros.slice(), memory.sums[0].slice())?;
        }
        let warm = self.has_previous && self.options.newton.warm_start > 0.0;
        if warm {
            before.append(pair.recall.clone());
        }
        before.append(pair.before.clone());
        let report = pair.cg.solve(&before, self.damping as f32, None, warm)?;
        gpu.submit(|recorder| recorder.replay(&pair.add[(number + 1) % 2]))?;
        Ok(report)
    }

    fn judge<O: Objective + ?Sized>(
        &mut self,
        objective: &mut O,
        theta: &Vector,
        batch: &O::Batch,
    ) -> Result<usize> {
        let quadratic = objective.quadratic(theta, batch, QuadraticRequest::default())?;
        let known =
            |judge: &Judge| Arc::ptr_eq(&judge.quadratic, &quadratic) && judge.theta.is_same(theta);
        if let Some(at) = self.judges.iter().position(known) {
            return Ok(at);
        }
        let Some(memory) = &self.memory else {
            return Err(missing("memory"));
        };
        let loss = objective.loss_at(&memory.trial, &quadratic)?;
        let gpu = objective.gpu();
        let candidates = Candidates::new(gpu, theta, &memory.trial, &quadratic, loss)?;
        self.judges.push(Judge {
            quadratic,
            theta: theta.clone(),
            candidates,
        });
        Ok(self.judges.len() - 1)
    }
}

impl<O: Objective + ?Sized> Optimizer<O> for DecoupledNewtonCg {
    fn name(&self) -> &'static str {
        match self.options.strategy {
            Strategy::Decoupled(_) => "decoupled-newton-cg",
            Strategy::CrossFit(_) => "cross-fit-newton-cg",
        }
    }

    fn step(&mut self, objective: &mut O, theta: &Vector, batch: &O::Batch) -> Result<StepReport> {
        let start = Instant::now();
        let gpu = objective.gpu().clone();
        let (readbacks, looks) = (gpu.readbacks(), gpu.looks());
        self.ready(objective)?;
        let (solves, judges) = self.options.deal(objective.rows(batch));
        let share = 1.0 / solves.len() as f64;
        if let Some(memory) = &self.memory {
            let warm = self.options.newton.warm_start;
            gpu.upload(&memory.factors, 0, &[1.0, share as f32, warm, 0.0])?;
        }
        let (mut work, mut model, mut iterations) = (0.0, 0.0, 0);
        let mut stop = Stop::MaxIterations;
        for (number, [directions, steps]) in solves.iter().enumerate() {
            let parts = [
                objective.part(batch, directions)?,
                objective.part(batch, steps)?,
            ];
            let examples: usize = parts.iter().map(|part| objective.examples(part)).sum();
            let at = self.pair(objective, theta, &parts)?;
            let report = self.solve(&gpu, at, number)?;
            if report.stop == Stop::NotFinite {
                self.has_previous = false;
                return Err(Error::NotFinite {
                    what: "the Newton direction".into(),
                    advice: "Use a larger damping, or check the data.",
                });
            }
            work += examples as f64 * (1.0 + 2.0 * report.products as f64);
            model += share * report.companion_model().last().copied().unwrap_or(0.0);
            iterations = iterations.max(report.iterations);
            stop = report.stop;
        }
        let judging = objective.part(batch, &[judges])?;
        let examples = objective.examples(&judging) as f64;
        let at = self.judge(objective, theta, &judging)?;
        let (Some(memory), judge) = (&self.memory, &mut self.judges[at]) else {
            return Err(missing("memory"));
        };
        let step = &memory.sums[solves.len() % 2];
        let candidates = &mut judge.candidates;
        candidates.prepare(&gpu, &[(step, 1.0)])?;
        let linearize = &judge.quadratic.linearize;
        let read = gpu.submit_and_read(
            |recorder| {
                recorder.replay(linearize);
                candidates.record(recorder);
                Ok(())
            },
            &candidates.reads(),
        )?;
        let (base, found) = candidates.results(&read)?;
        let first = found.first().copied().ok_or_else(|| missing("candidate"))?;
        if !base.is_finite() {
            self.has_previous = false;
            return Err(Error::NotFinite {
                what: "the loss".into(),
                advice: "Use a larger damping, or check the data.",
            });
        }
        let search = self.options.newton.search();
        let (chosen, losses) = candidates.search(&gpu, base, (step, first), search)?;
        work += examples * (1.0 + (1 + losses) as f64 / 3.0);
        // Without damping, and for shorter steps as if the step were a minimum along itself.
        let undamped = model - 0.5 * self.damping * first.square;
        let (factor, at) = chosen.unwrap_or((1.0, first));
        let rho = (at.loss - base) / ((2.0 - factor) * factor * undamped);
        let accepted = chosen.is_some() && at.loss.is_finite();
        if accepted {
            candidates.prepare_move(&gpu, step, factor)?;
        }
        let mut remember = Recording::new();
        remember.copy(step.slice(), memory.previous.slice())?;
        gpu.submit(|recorder| {
            recorder.replay(&remember);
            if accepted {
                candidates.record_move(recorder);
            }
        })?;
        let judged = if accepted { rho } else { f64::NEG_INFINITY };
        let used = self.damping;
        self.damping = self.options.newton.damping.next(used, judged);
        self.has_previous = rho >= 0.0;
        Ok(StepReport {
            loss_before: base,
            loss_after: Some(if accepted { at.loss } else { base }),
            gradient_norm: first.gradient_square.sqrt(),
            step_norm: if accepted {
                factor * first.square.sqrt()
            } else {
                0.0
            },
            accepted,
            step_length: accepted.then_some(factor),
            rho: rho.is_finite().then_some(rho),
            damping: Some(used),
            cg_iterations: Some(iterations),
            cg_stop: Some(stop),
            work,
            readbacks: gpu.readbacks() - readbacks,
            looks: gpu.looks() - looks,
            seconds: start.elapsed().as_secs_f64(),
            ..StepReport::default()
        })
    }

    fn state(&self, objective: &O) -> Result<OptimizerState> {
        let has_previous = f64::from(u8::from(self.has_previous));
        let mut state = OptimizerState {
            scalars: vec![
                ("damping".into(), self.damping),
                ("has_previous".into(), has_previous),
            ],
            vectors: Vec::new(),
        };
        if let (true, Some(memory)) = (self.has_previous, &self.memory) {
            let previous = memory.previous.read(objective.gpu())?;
            state.vectors.push(("previous".into(), previous));
        }
        Ok(state)
    }

    fn restore(&mut self, objective: &O, state: &OptimizerState) -> Result<()> {
        let scalar = |name: &str| state.scalar(name).ok_or_else(|| missing(name));
        let (damping, has_previous) = (scalar("damping")?, scalar("has_previous")? > 0.0);
        self.ready(objective)?;
        if let (true, Some(memory)) = (has_previous, &self.memory) {
            let previous = state.vector("previous");
            let previous = previous.ok_or_else(|| missing("previous"))?;
            memory.previous.write(objective.gpu(), previous)?;
        }
        (self.damping, self.has_previous) = (damping, has_previous);
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_row_has_its_roles() {
        let options = DecoupledOptions::default()
            .with_strategy(Strategy::CrossFit(4))
            .with_acceptance(0.2);
        let (solves, judges) = options.deal(20);
        assert_eq!(judges, 16..20);
        assert_eq!(solves.len(), 4);
        let mut steps = Vec::new();
        for [directions, own] in &solves {
            let mut all: Vec<usize> = directions.iter().chain(own).cloned().flatten().collect();
            all.sort_unstable();
            assert_eq!(all, (0..16).collect::<Vec<_>>());
            steps.extend(own.iter().cloned().flatten());
        }
        assert_eq!(steps, (0..16).collect::<Vec<_>>());
        let (solves, judges) = options
            .with_strategy(Strategy::Decoupled(0.75))
            .with_acceptance(0.0)
            .deal(20);
        let (directions, steps) = (0..15, 15..20);
        assert_eq!(
            (solves, judges),
            (vec![[vec![directions], vec![steps]]], 0..20)
        );
    }
}
