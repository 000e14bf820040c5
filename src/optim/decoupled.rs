//! Newton-CG with decoupled mini-batches: directions of some examples, steps along them of others.

use std::ops::Range;
use std::sync::Arc;
use std::time::Instant;

use super::candidates::{Candidate, Candidates};
use super::first_order::missing;
use super::newton_cg::{NewtonCgOptions, Preconditioner};
use super::optimizer::{Optimizer, OptimizerState};
use super::report::StepReport;
use super::strategy::{Strategy, Turn};
use crate::error::{Error, Result};
use crate::gpu::{Gpu, Recorder, Recording, Slice};
use crate::kernels::blocks::{Coefficients, Rows, combine_rows};
use crate::kernels::vector::combine;
use crate::linalg::{Afterword, CgReport, Companion, ConjugateGradients, Operator, Stop, System};
use crate::objective::{
    Curvature, GroupRequest, GroupedQuadratic, Objective, Quadratic, QuadraticRequest,
};
use crate::vector::{Block, Vector};

/// Settings of [`DecoupledNewtonCg`].
#[derive(Clone, Debug, PartialEq)]
#[non_exhaustive]
pub struct DecoupledOptions {
    /// Those of Newton-CG that are not about backtracking and preconditioners, which it does not have here.
    pub newton: NewtonCgOptions,
    /// Who makes what. Default [`Strategy::cross_fit`] with 2 folds.
    pub strategy: Strategy,
    /// Whether each step along a direction is multiplied by `max(0, 1 - variance / slope^2)`. The variance is that of the first slopes of the examples,
    /// at the start of the solve. Steps must come from one fold then. Default false.
    pub shrinks: bool,
    /// Part of the batch that does nothing but judge the step: losses for the line search and the reduction ratio. 0: all folds judge. Default 0.
    pub acceptance: f64,
}

impl Default for DecoupledOptions {
    fn default() -> Self {
        Self {
            newton: NewtonCgOptions::default(),
            strategy: Strategy::cross_fit(2),
            shrinks: false,
            acceptance: 0.0,
        }
    }
}

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
        self.strategy.validate()?;
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
        if self.shrinks
            && self
                .strategy
                .turns()
                .iter()
                .any(|turn| turn.steps.len() > 1)
        {
            return bad(
                "shrinks",
                "the noise of slopes is known for one fold; let all others make directions".into(),
            );
        }
        if !(0.0..1.0).contains(&self.acceptance) {
            return bad("acceptance", format!("{} is not in 0..1", self.acceptance));
        }
        Ok(())
    }

    /// The rows of a batch that are cut into folds, and those after them that judge; none where the folds do.
    fn deal(&self, rows: usize) -> (usize, Option<Range<usize>>) {
        let judging = (self.acceptance * rows as f64).round() as usize;
        let folds = self.strategy.folds();
        let used = (rows - judging.min(rows)) / folds * folds;
        (used, (judging > 0).then(|| rows - judging..rows))
    }
}

/// The quadratic of some folds: that of one of them, or the mean of several.
struct Side {
    gradient: Vector,
    product: Vector,
    variance: Option<Slice>,
    /// Computes the gradient, after a linearization.
    linearize: Recording,
    /// Computes the product, after those of all folds.
    multiply: Recording,
}

impl Side {
    fn new(gpu: &Gpu, quadratic: &GroupedQuadratic, folds: &[usize]) -> Result<Self> {
        if let [only] = folds {
            let group = &quadratic.groups[*only];
            return Ok(Self {
                gradient: group.gradient.clone(),
                product: group.product.clone(),
                variance: group.slope_variance.clone(),
                linearize: Recording::new(),
                multiply: Recording::new(),
            });
        }
        let layout = quadratic.gradient.layout();
        let count = quadratic.groups.len();
        let factors = gpu.buffer("weights of folds", count)?;
        let share = 1.0 / folds.len() as f32;
        let weights: Vec<f32> = (0..count)
            .map(|fold| if folds.contains(&fold) { share } else { 0.0 })
            .collect();
        gpu.upload(&factors, 0, &weights)?;
        let mean = |of: &Block, label: &str| -> Result<(Vector, Recording)> {
            let out = Vector::new(gpu, label, layout)?;
            let mut recording = Recording::new();
            let coefficients = Coefficients {
                slice: &factors,
                first: 0,
                width: count,
            };
            let (to, from) = (Rows::from(&out), Rows::all(of));
            combine_rows(gpu, &mut recording, &to, coefficients, &from, false)?;
            Ok((out, recording))
        };
        let (gradient, linearize) = mean(&quadratic.gradients, "gradient of several folds")?;
        let (product, multiply) = mean(&quadratic.products, "product of several folds")?;
        Ok(Self {
            gradient,
            product,
            variance: None,
            linearize,
            multiply,
        })
    }
}

/// A solve with two of the folds' quadratics.
struct Solve {
    cg: ConjugateGradients,
    /// Makes both sides' gradients.
    before: Recording,
    /// Puts `warm_start` times the last step into the first iterate.
    recall: Recording,
    /// Adds a share of the solution to the sum of all solves, from one place to another: see [`Memory::sums`].
    add: Recording,
}

/// The solves of a batch's folds.
struct Workspace {
    quadratic: Arc<GroupedQuadratic>,
    theta: Vector,
    solves: Vec<Solve>,
    step: Vector,
    /// Saves the step for the next warm start.
    remember: Recording,
    candidates: Candidates,
}

/// What judges a step, where the folds do not.
struct Judge {
    quadratic: Arc<Quadratic>,
    theta: Vector,
    candidates: Candidates,
}

impl Judge {
    /// The loss before, and what is known of a step.
    fn verdict(&mut self, gpu: &Gpu, step: &Vector) -> Result<(f64, Candidate)> {
        let (linearize, candidates) = (&self.quadratic.linearize, &mut self.candidates);
        candidates.prepare(gpu, &[(step, 1.0)])?;
        let read = gpu.submit_and_read(
            |recorder| {
                recorder.replay(linearize);
                candidates.record(recorder);
                Ok(())
            },
            &candidates.reads(),
        )?;
        let (base, found) = candidates.results(&read)?;
        let first = found.first().copied();
        Ok((base, first.ok_or_else(|| missing("candidate"))?))
    }
}

struct Memory {
    /// The step of the last time.
    previous: Vector,
    trial: Vector,
    /// Two places between which the sum of solutions changes.
    sums: [Vector; 2],
    /// `[share, 0, 1, share]` of a solve, then `[warm start, 0]`.
    factors: Slice,
}

/// Newton-CG whose directions and steps come from different examples, which removes the bias that a mini-batch's own directions bring into its slopes and
/// curvatures (Tatzel et al. 2025).
///
/// A batch is cut into folds by its order: the first rows are the first fold, and so on, so that `data.batch(&roles.next_step().concat())` deals the parts of
/// [`Roles`](crate::data::Roles) in the order of their plan. For each solve conjugate gradients run on the quadratic of some folds, and a [`Companion`]
/// chooses the steps along their directions with slope and curvature of the others: two recurrences in one pass. The damping is added to both matrices, and
/// adapted by the reduction ratio of the examples that judge, for which the companions' models stand. A step has one blocking readback for each solve, and
/// one more where examples are set apart to judge.
///
/// This is a reconstruction: the paper's text and program were not available. The recurrence, cross-fitting and shrinkage are derived in
/// `docs/ARCHITECTURE.md`.
pub struct DecoupledNewtonCg {
    options: DecoupledOptions,
    turns: Vec<Turn>,
    damping: f64,
    has_previous: bool,
    memory: Option<Memory>,
    workspaces: Vec<Workspace>,
    judges: Vec<Judge>,
}

/// What is known when the solves are done.
struct Solved {
    work: f64,
    /// Mean of the companions' models.
    model: f64,
    iterations: usize,
    stop: Stop,
}

/// The step and its loss, in the last submission of the last solve.
struct Verdict<'a> {
    gpu: &'a Gpu,
    add: &'a Recording,
    step: &'a Vector,
    candidates: &'a mut Candidates,
}

impl Afterword for Verdict<'_> {
    fn prepare(&mut self, _: usize) -> Result<()> {
        self.candidates.prepare(self.gpu, &[(self.step, 1.0)])
    }

    fn record(&self, recorder: &mut Recorder<'_>) {
        recorder.replay(self.add);
        self.candidates.record(recorder);
    }

    fn reads(&self) -> Vec<&Slice> {
        self.candidates.reads().to_vec()
    }
}

impl Solved {
    fn count(&mut self, report: &CgReport, examples: f64, share: f64) -> Result<()> {
        if report.stop == Stop::NotFinite {
            return Err(Error::NotFinite {
                what: "the Newton direction".into(),
                advice: "Use a larger damping, or check the data.",
            });
        }
        self.work += 2.0 * report.products as f64 * examples;
        self.model += share * report.companion_model().last().copied().unwrap_or(0.0);
        self.iterations = self.iterations.max(report.iterations);
        self.stop = report.stop;
        Ok(())
    }
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
            turns: options.strategy.turns(),
            options,
            has_previous: false,
            memory: None,
            workspaces: Vec::new(),
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
            let memory = Memory {
                previous: new("last step")?,
                trial: new("trial point")?,
                sums: [new("sum of steps")?, new("sum of steps")?],
                factors: gpu.buffer("factors of steps", 6)?,
            };
            let share = 1.0 / self.turns.len() as f32;
            let factors = [share, 0.0, 1.0, share, self.options.newton.warm_start, 0.0];
            gpu.upload(&memory.factors, 0, &factors)?;
            self.memory = Some(memory);
        }
        Ok(())
    }

    /// The solves on the folds of a batch, which is loaded.
    fn workspace<O: Objective + ?Sized>(
        &mut self,
        objective: &mut O,
        theta: &Vector,
        quadratic: &Arc<GroupedQuadratic>,
    ) -> Result<usize> {
        let known = |w: &Workspace| Arc::ptr_eq(&w.quadratic, quadratic) && w.theta.is_same(theta);
        if let Some(at) = self.workspaces.iter().position(known) {
            return Ok(at);
        }
        let Some(memory) = &self.memory else {
            return Err(missing("memory"));
        };
        let loss = objective.loss_at(&memory.trial, quadratic.rows)?;
        let gpu = objective.gpu();
        let solves = self
            .turns
            .iter()
            .enumerate()
            .map(|(number, turn)| self.solve(gpu, memory, quadratic, turn, number))
            .collect::<Result<Vec<_>>>()?;
        let step = memory.sums[solves.len() % 2].clone();
        let mut remember = Recording::new();
        remember.copy(step.slice(), memory.previous.slice())?;
        let vectors = [theta, &memory.trial, &quadratic.gradient];
        let candidates = Candidates::new(gpu, vectors, &quadratic.value, loss)?;
        self.workspaces.push(Workspace {
            quadratic: Arc::clone(quadratic),
            theta: theta.clone(),
            solves,
            step,
            remember,
            candidates,
        });
        Ok(self.workspaces.len() - 1)
    }

    fn solve(
        &self,
        gpu: &Gpu,
        memory: &Memory,
        quadratic: &GroupedQuadratic,
        turn: &Turn,
        number: usize,
    ) -> Result<Solve> {
        let directions = Side::new(gpu, quadratic, &turn.directions)?;
        let steps = Side::new(gpu, quadratic, &turn.steps)?;
        let mut multiply = quadratic.multiply.clone();
        multiply.append(directions.multiply);
        multiply.append(steps.multiply);
        let operator = Operator {
            input: quadratic.direction.clone(),
            output: directions.product,
            multiply,
        };
        let companion = Companion {
            gradient: steps.gradient,
            product: steps.product,
            variance: steps.variance,
        };
        let cg = ConjugateGradients::with_companion(
            gpu,
            &operator,
            &directions.gradient,
            None,
            &self.options.newton.cg,
            &[],
            Some(&companion),
        )?;
        let mut before = Recording::new();
        if number == 0 {
            before.append(quadratic.linearize.clone());
        }
        before.append(directions.linearize);
        before.append(steps.linearize);
        let (solution, previous) = (cg.solution.slice(), memory.previous.slice());
        let factors = &memory.factors;
        let mut recall = Recording::new();
        combine(gpu, &mut recall, solution, previous, previous, (factors, 4))?;
        let (to, from) = (&memory.sums[(number + 1) % 2], &memory.sums[number % 2]);
        let (from, slot) = if number == 0 {
            (solution, 0)
        } else {
            (from.slice(), 2)
        };
        let mut add = Recording::new();
        combine(gpu, &mut add, to.slice(), from, solution, (factors, slot))?;
        Ok(Solve {
            cg,
            before,
            recall,
            add,
        })
    }

    /// Runs all solves. Where the folds judge, their verdict comes along: the loss before, and what is known of the step.
    fn run(
        &mut self,
        gpu: &Gpu,
        at: usize,
        examples: f64,
        judges: bool,
    ) -> Result<(Solved, Option<(f64, Candidate)>)> {
        let workspace = &mut self.workspaces[at];
        let warm = self.has_previous && self.options.newton.warm_start > 0.0;
        let system = System {
            shift: self.damping as f32,
            radius: None,
            warm,
        };
        let mut solved = Solved {
            work: examples,
            model: 0.0,
            iterations: 0,
            stop: Stop::MaxIterations,
        };
        let count = workspace.solves.len();
        let share = 1.0 / count as f64;
        let mut verdict = None;
        for (number, solve) in workspace.solves.iter().enumerate() {
            let before = |recorder: &mut Recorder<'_>| {
                if warm {
                    recorder.replay(&solve.recall);
                }
                recorder.replay(&solve.before);
            };
            if judges && number + 1 == count {
                let mut afterword = Verdict {
                    gpu,
                    add: &solve.add,
                    step: &workspace.step,
                    candidates: &mut workspace.candidates,
                };
                let (report, read) = solve.cg.solve_and(system, before, &mut afterword)?;
                solved.count(&report, examples, share)?;
                let (base, found) = workspace.candidates.results(&read)?;
                let first = found.first().copied();
                verdict = Some((base, first.ok_or_else(|| missing("candidate"))?));
            } else {
                let report = solve.cg.solve_after(system, before)?;
                solved.count(&report, examples, share)?;
                gpu.submit(|recorder| recorder.replay(&solve.add))?;
            }
        }
        Ok((solved, verdict))
    }

    /// What judges on examples set apart, which are loaded.
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
        let loss = objective.loss_at(&memory.trial, quadratic.rows)?;
        let gpu = objective.gpu();
        let vectors = [theta, &memory.trial, &quadratic.gradient];
        let candidates = Candidates::new(gpu, vectors, &quadratic.value, loss)?;
        self.judges.push(Judge {
            quadratic,
            theta: theta.clone(),
            candidates,
        });
        Ok(self.judges.len() - 1)
    }

    /// As [`Optimizer::step`], with nothing forgotten about an error.
    fn try_step<O: Objective + ?Sized>(
        &mut self,
        objective: &mut O,
        theta: &Vector,
        batch: &O::Batch,
    ) -> Result<StepReport> {
        let gpu = objective.gpu().clone();
        self.ready(objective)?;
        let rows = objective.rows(batch);
        let (used, apart) = self.options.deal(rows);
        let cut;
        let folds = if used == rows {
            batch
        } else {
            let first = 0..used;
            cut = objective.part(batch, &[first])?;
            &cut
        };
        let request = GroupRequest {
            groups: self.options.strategy.folds(),
            curvature: self.options.newton.curvature,
            slope_variance: self.options.shrinks,
        };
        let quadratic = objective.grouped(theta, folds, request)?;
        let at = self.workspace(objective, theta, &quadratic)?;
        let examples = objective.examples(folds) as f64;
        let (solved, verdict) = self.run(&gpu, at, examples, apart.is_none())?;
        let mut work = solved.work;
        let mut judging = examples;
        let mut judge = None;
        if let Some(apart) = apart {
            let apart = objective.part(batch, &[apart])?;
            judging = objective.examples(&apart) as f64;
            work += judging;
            judge = Some(self.judge(objective, theta, &apart)?);
        }
        let Workspace {
            step,
            remember,
            candidates,
            ..
        } = &mut self.workspaces[at];
        let (candidates, (base, first)) = match (judge, verdict) {
            (Some(judge), _) => {
                let judge = &mut self.judges[judge];
                let verdict = judge.verdict(&gpu, step)?;
                (&mut judge.candidates, verdict)
            }
            (None, verdict) => (candidates, verdict.ok_or_else(|| missing("verdict"))?),
        };
        if !base.is_finite() {
            return Err(Error::NotFinite {
                what: "the loss".into(),
                advice: "Use a larger damping, or check the data.",
            });
        }
        let search = self.options.newton.search();
        let (chosen, losses) = candidates.search(&gpu, base, (step, first), search)?;
        work += judging * (1 + losses) as f64 / 3.0;
        // Without damping, and for shorter steps as if the step were a minimum along itself.
        let undamped = solved.model - 0.5 * self.damping * first.square;
        let (factor, end) = chosen.unwrap_or((1.0, first));
        let rho = (end.loss - base) / ((2.0 - factor) * factor * undamped);
        let accepted = chosen.is_some() && end.loss.is_finite();
        if accepted {
            candidates.prepare_move(&gpu, step, factor)?;
        }
        gpu.submit(|recorder| {
            recorder.replay(remember);
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
            loss_after: Some(if accepted { end.loss } else { base }),
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
            cg_iterations: Some(solved.iterations),
            cg_stop: Some(solved.stop),
            work,
            ..StepReport::default()
        })
    }
}

impl<O: Objective + ?Sized> Optimizer<O> for DecoupledNewtonCg {
    fn name(&self) -> &'static str {
        match self.options.strategy {
            Strategy::Single => "single-newton-cg",
            Strategy::Decoupled { .. } => "decoupled-newton-cg",
            Strategy::CrossFit { .. } => "cross-fit-newton-cg",
        }
    }

    fn step(&mut self, objective: &mut O, theta: &Vector, batch: &O::Batch) -> Result<StepReport> {
        let start = Instant::now();
        let gpu = objective.gpu().clone();
        let (readbacks, looks) = (gpu.readbacks(), gpu.looks());
        let result = self.try_step(objective, theta, batch);
        if result.is_err() {
            self.has_previous = false;
        }
        Ok(StepReport {
            readbacks: gpu.readbacks() - readbacks,
            looks: gpu.looks() - looks,
            seconds: start.elapsed().as_secs_f64(),
            ..result?
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
    fn rows_that_do_not_fill_the_folds_are_left_out() {
        let options = DecoupledOptions::default().with_strategy(Strategy::cross_fit(4));
        assert_eq!(options.deal(22), (20, None));
        let options = options.with_acceptance(0.2);
        assert_eq!(options.deal(20), (16, Some(16..20)));
        assert_eq!(options.deal(3), (0, Some(2..3)));
    }
}
