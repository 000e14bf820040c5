//! Newton-CG with decoupled mini-batches: directions of some examples, steps along them of others.

mod options;
mod solve;

use std::sync::Arc;
use std::time::Instant;

pub use options::DecoupledOptions;
use solve::{Memory, Solve};

use super::candidates::{Candidate, Candidates, Judge, Judges};
use super::damping::LARGEST;
use super::first_order::missing;
use super::optimizer::{Optimizer, OptimizerState};
use super::report::StepReport;
use super::strategy::{Strategy, Turn};
use super::{not_finite, saved};
use crate::error::Result;
use crate::gpu::{Gpu, Recorder, Recording, Slice};
use crate::linalg::{Afterword, CgReport, ConjugateGradients, Stop, System};
use crate::objective::{GroupRequest, GroupedQuadratic, Objective, QuadraticRequest};
use crate::vector::Vector;

/// The solves of a batch's folds.
struct Workspace {
    quadratic: Arc<GroupedQuadratic>,
    theta: Vector,
    solves: Vec<Solve>,
    step: Vector,
    /// Saves the step for the next warm start.
    remember: Recording,
    /// Where no examples are set apart to judge.
    candidates: Option<Candidates>,
}

/// What those who judge say of a step.
struct Verdict {
    /// The loss before.
    base: f64,
    step: Candidate,
    /// What the solves promised, with the steps' own slopes and squares: see [`Memory::products`].
    products: Vec<f32>,
}

impl Verdict {
    fn new(candidates: &Candidates, mut read: Vec<Vec<f32>>) -> Result<Self> {
        let products = read.pop().ok_or_else(|| missing("products of steps"))?;
        let (base, found) = candidates.results(&read)?;
        let step = found.first().copied();
        Ok(Self {
            base,
            step: step.ok_or_else(|| missing("candidate"))?,
            products,
        })
    }

    /// The verdict of examples set apart.
    fn of(judge: &mut Judge, gpu: &Gpu, step: &Vector, products: &Slice) -> Result<Self> {
        let (linearize, candidates) = (&judge.quadratic.linearize, &mut judge.candidates);
        candidates.prepare(gpu, &[(step, 1.0)])?;
        let mut reads = candidates.reads().to_vec();
        reads.push(products);
        let read = gpu.submit_and_read(
            |recorder| {
                recorder.replay(linearize);
                candidates.record(recorder);
                Ok(())
            },
            &reads,
        )?;
        Self::new(candidates, read)
    }
}

/// Newton-CG whose directions and steps come from different examples, which removes the bias that a mini-batch's own directions bring into its slopes and
/// curvatures (Tatzel et al. 2025).
///
/// A batch is cut into folds by its order: the first rows are the first fold, and so on, so that `data.batch(&roles.next_step().concat())` deals the parts of
/// [`Roles`](crate::data::Roles) in the order of their plan. For each solve conjugate gradients run on the quadratic of some folds, and a
/// [`Companion`](crate::linalg::Companion)
/// chooses the steps along their directions with slope and curvature of the others: two recurrences in one pass. The damping is added to both matrices, and
/// adapted by the reduction ratio of the examples that judge, for which the companions' models stand. A step has one blocking readback for each solve,
/// one more where examples are set apart to judge, and one for every four losses of a line search.
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
    judges: Judges,
}

/// What is known when the solves are done.
struct Solved {
    work: f64,
    /// The companions' models at the end of each solve, damping included.
    models: Vec<f64>,
    iterations: usize,
    stop: Stop,
}

/// The step and its loss, in the last submission of the last solve.
struct Ending<'a> {
    gpu: &'a Gpu,
    add: &'a Recording,
    step: &'a Vector,
    products: &'a Slice,
    candidates: &'a mut Candidates,
}

impl Afterword for Ending<'_> {
    fn prepare(&mut self, _: usize) -> Result<()> {
        self.candidates.prepare(self.gpu, &[(self.step, 1.0)])
    }

    fn record(&self, recorder: &mut Recorder<'_>) {
        recorder.replay(self.add);
        self.candidates.record(recorder);
    }

    fn reads(&self) -> Vec<&Slice> {
        let mut reads = self.candidates.reads().to_vec();
        reads.push(self.products);
        reads
    }
}

impl Solved {
    fn count(&mut self, report: &CgReport, examples: f64) -> Result<()> {
        if let Some(error) = not_finite::solve(report) {
            return Err(error);
        }
        self.work += 2.0 * report.products as f64 * examples;
        let model = report.companion_model();
        self.models.push(model.last().copied().unwrap_or(0.0));
        self.iterations = self.iterations.max(report.iterations);
        self.stop = report.stop;
        Ok(())
    }
}

impl Solved {
    /// What the steps of all solves promise, shortened by a factor and without damping: the mean of their models
    ///
    /// ```text
    /// a s + a^2 (m - s),     s = g'.x,  m = s + x.C' x / 2
    /// ```
    ///
    /// on the examples of their steps. For the mean of several steps that is a bound, since the curvature along it is at most the mean of theirs.
    fn promised(&self, products: &[f32], damping: f64, factor: f64) -> f64 {
        let each = self.models.iter().zip(products.chunks_exact(3));
        let sum: f64 = each
            .map(|(damped, products)| {
                let (slope, square) = (f64::from(products[0]), f64::from(products[1]));
                let model = damped - 0.5 * damping * square;
                factor * slope + factor * factor * (model - slope)
            })
            .sum();
        sum / self.models.len() as f64
    }
}

impl DecoupledNewtonCg {
    /// With these options.
    ///
    /// # Errors
    /// [`Error::Option`](crate::Error::Option) naming the option and its range.
    pub fn new(options: DecoupledOptions) -> Result<Self> {
        options.validate()?;
        Ok(Self {
            damping: options.newton.damping.initial,
            turns: options.strategy.turns(),
            options,
            has_previous: false,
            memory: None,
            workspaces: Vec::new(),
            judges: Judges::default(),
        })
    }

    /// The damping of the next step.
    pub fn damping(&self) -> f64 {
        self.damping
    }

    fn ready<O: Objective + ?Sized>(&mut self, objective: &O) -> Result<()> {
        if self.memory.is_none() {
            let warm_start = self.options.newton.warm_start;
            let memory = Memory::new(
                objective.gpu(),
                objective.layout(),
                self.turns.len(),
                warm_start,
            )?;
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
        let loss = if self.options.acceptance > 0.0 {
            None
        } else {
            Some(objective.loss_at(&memory.trial, quadratic.rows)?)
        };
        let (gpu, options) = (objective.gpu(), &self.options.newton.cg);
        let solves = self
            .turns
            .iter()
            .enumerate()
            .map(|(number, turn)| Solve::new(gpu, options, memory, quadratic, turn, number))
            .collect::<Result<Vec<_>>>()?;
        let step = match &solves[..] {
            [only] => only.cg.solution.clone(),
            several => memory.sums[several.len() % 2].clone(),
        };
        let mut remember = Recording::new();
        remember.copy(step.slice(), memory.previous.slice())?;
        let vectors = [theta, &memory.trial, &quadratic.gradient];
        let candidates = loss
            .map(|loss| Candidates::new(gpu, vectors, &quadratic.value, loss))
            .transpose()?;
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

    /// Runs all solves. Where the folds judge, their verdict comes along.
    fn run(&mut self, gpu: &Gpu, at: usize, examples: f64) -> Result<(Solved, Option<Verdict>)> {
        let (workspace, Some(memory)) = (&mut self.workspaces[at], &self.memory) else {
            return Err(missing("memory"));
        };
        let warm = self.has_previous && self.options.newton.warm_start > 0.0;
        let system = System {
            shift: self.damping as f32,
            radius: None,
            warm,
        };
        let mut solved = Solved {
            work: examples,
            models: Vec::new(),
            iterations: 0,
            stop: Stop::MaxIterations,
        };
        let count = workspace.solves.len();
        let mut verdict = None;
        for (number, solve) in workspace.solves.iter().enumerate() {
            let before = |recorder: &mut Recorder<'_>| {
                if warm {
                    recorder.replay(&solve.recall);
                }
                recorder.replay(&solve.before);
            };
            if let (Some(candidates), true) = (&mut workspace.candidates, number + 1 == count) {
                let mut ending = Ending {
                    gpu,
                    add: &solve.add,
                    step: &workspace.step,
                    products: &memory.products,
                    candidates,
                };
                let (report, read) = solve.cg.solve_and(system, before, &mut ending)?;
                solved.count(&report, examples)?;
                verdict = Some(Verdict::new(candidates, read)?);
            } else {
                let report = solve.cg.solve_after(system, before)?;
                solved.count(&report, examples)?;
                gpu.submit(|recorder| recorder.replay(&solve.add))?;
            }
        }
        Ok((solved, verdict))
    }

    /// [`Optimizer::step`], which forgets the last step where this fails.
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
        let (solved, verdict) = self.run(&gpu, at, examples)?;
        let Some(memory) = &self.memory else {
            return Err(missing("memory"));
        };
        let Workspace {
            step,
            remember,
            candidates,
            ..
        } = &mut self.workspaces[at];
        let mut work = solved.work;
        let (judging, verdict, candidates) = match (apart, verdict, candidates) {
            (None, Some(verdict), Some(candidates)) => (examples, verdict, candidates),
            (None, _, _) => return Err(missing("verdict")),
            (Some(apart), _, _) => {
                let apart = objective.part(batch, &[apart])?;
                let quadratic = objective.quadratic(theta, &apart, QuadraticRequest::default())?;
                let vectors = [theta, &memory.trial];
                let at = self.judges.of(objective, vectors, &quadratic)?;
                let judge = &mut self.judges.0[at];
                let verdict = Verdict::of(judge, &gpu, step, &memory.products)?;
                let judging = objective.examples(&apart) as f64;
                work += judging;
                (judging, verdict, &mut judge.candidates)
            }
        };
        let (base, first) = (verdict.base, verdict.step);
        if !base.is_finite() {
            return Err(not_finite::loss());
        }
        if !first.gradient_square.is_finite() {
            return Err(if first.slope.is_finite() {
                not_finite::out_of_scale("the square of the gradient")
            } else {
                not_finite::gradient()
            });
        }
        // Nothing moves where no direction has a slope that counts; then nothing is learnt about the model, either.
        let stationary = first.square == 0.0;
        let search = self.options.newton.search();
        let (chosen, losses) = if stationary {
            (None, 0)
        } else {
            candidates.search(&gpu, base, (step, first), search)?
        };
        work += judging * (1 + losses) as f64 / 3.0;
        let (factor, end) = chosen.unwrap_or((1.0, first));
        let rho = (end.loss - base) / solved.promised(&verdict.products, self.damping, factor);
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
        let used = self.damping;
        if !stationary {
            let judged = if accepted { rho } else { f64::NEG_INFINITY };
            self.damping = self.options.newton.damping.next(used, judged);
        }
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
            rho: (rho.is_finite() && !stationary).then_some(rho),
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

    fn check(&self, gpu: &Gpu) -> Result<()> {
        ConjugateGradients::check(gpu)
    }

    fn attempt(
        &mut self,
        objective: &mut O,
        theta: &Vector,
        batch: &O::Batch,
    ) -> Result<StepReport> {
        let start = Instant::now();
        ConjugateGradients::check(objective.gpu())?;
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
        saved::only(state, &["damping", "has_previous"])?;
        let scalar = |name: &str| state.scalar(name).ok_or_else(|| missing(name));
        let (damping, has_previous) = (
            saved::number(state, "damping", 0.0..=LARGEST)?,
            scalar("has_previous")? > 0.0,
        );
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
