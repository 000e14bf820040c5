//! Newton-CG with decoupled mini-batches: directions of some examples, steps along them of others.

mod options;
mod solve;
mod verdict;

use std::sync::Arc;

pub use options::DecoupledOptions;
use solve::{Memory, Solve};
use verdict::{Ending, Verdict};

use super::course::Course;
use super::damping::LARGEST;
use super::engine::{self, Method, Outcome, Proposal};
use super::judge::{Candidate, Judge, Judges};
use super::optimizer::Optimizer;
use super::report::StepReport;
use super::saved::{OptimizerState, missing};
use super::state::Stateful;
use super::state_tensor::StateTensor;
use super::strategy::{Strategy, Turn};
use super::work::{Work, flops};
use super::{not_finite, saved};
use crate::data::Role;
use crate::error::{Error, Result};
use crate::gpu::{BoxFuture, Commands, Gpu, Recording};
use crate::linalg::{CgReport, ConjugateGradients, Stop, System};
use crate::objective::{GroupRequest, GroupedQuadratic, Parts, Slot, without_parts};
use crate::recent::Recent;
use crate::vector::Vector;

/// The solves of a batch's folds.
struct Workspace {
    quadratic: Arc<GroupedQuadratic>,
    theta: Vector,
    solves: Vec<Solve>,
    step: Vector,
    /// Saves the step for the next warm start.
    remember: Arc<Recording>,
    /// On the folds. Where examples are set apart to judge, it only says what is so where no step can be computed.
    judge: Judge,
}

/// Newton-CG whose directions and steps come from different examples, which removes the bias that a mini-batch's own directions bring into
/// its slopes and curvatures (Tatzel et al. 2025).
///
/// A batch is cut into folds by its order: the first rows are the first fold, and so on, so that `data.batch(&roles.next_step().concat())`
/// deals the parts of [`Roles`](crate::data::Roles) in the order of their plan. For each solve conjugate gradients run on the quadratic of
/// some folds, and a [`Companion`](crate::linalg::Companion) chooses the steps along their directions with slope and curvature of the
/// others: two recurrences in one pass. The damping is added to both matrices, and adapted by the reduction ratio of the examples that
/// judge, for which the companions' models stand. A step has one blocking readback for each solve, one more where examples are set apart to
/// judge, and one for every four losses of a line search.
///
/// This is a reconstruction: the paper's text and program were not available. The recurrence, cross-fitting and shrinkage are derived in
/// `docs/ARCHITECTURE.md`.
pub struct DecoupledNewtonCg {
    options: DecoupledOptions,
    turns: Vec<Turn>,
    damping: f64,
    has_previous: bool,
    course: Course,
    memory: Option<Memory>,
    workspaces: Recent<Workspace>,
    judges: Judges,
}

/// What is known when the solves are done.
#[derive(Default)]
struct Solved {
    work: Work,
    /// The companions' models at the end of each solve, damping included.
    models: Vec<f64>,
    iterations: usize,
    stop: Option<Stop>,
}

impl Solved {
    fn count(&mut self, report: &CgReport, quadratic: &GroupedQuadratic) -> Result<()> {
        let elements = quadratic.gradient.layout().len();
        let vectors = flops::conjugate_gradients(report.products, elements)
            + flops::companion(report.products, elements);
        self.work
            .products(report.products, &quadratic.cost, &quadratic.loaded);
        self.work.vectors(vectors);
        if let Some(error) = not_finite::solve(report) {
            return Err(error);
        }
        let model = report.companion_model();
        self.models.push(model.last().copied().unwrap_or(0.0));
        self.iterations = self.iterations.max(report.iterations);
        self.stop = Some(report.stop);
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
    /// on the examples of their steps. For the mean of several steps that is a bound, since the curvature along it is at most the mean of
    /// theirs.
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
            damping: options.newton.damping.first(),
            turns: options.strategy.turns(),
            options,
            has_previous: false,
            course: Course::default(),
            memory: None,
            workspaces: Recent::default(),
            judges: Judges::default(),
        })
    }

    /// The damping of the next step.
    pub fn damping(&self) -> f64 {
        self.damping
    }
}

/// What a step depends on beside memory and caches.
struct Setting<'a> {
    options: &'a DecoupledOptions,
    turns: &'a [Turn],
    damping: f64,
    has_previous: bool,
    /// Of the schedule.
    factor: f64,
}

impl Setting<'_> {
    /// Runs all solves. Where the folds judge, their verdict comes along.
    async fn run_solves(
        &self,
        gpu: &Gpu,
        memory: &Memory,
        workspace: &mut Workspace,
        solved: &mut Solved,
    ) -> Result<Option<Verdict>> {
        let warm = self.has_previous && self.options.newton.warm_start > 0.0;
        let system = System {
            shift: self.damping as f32,
            radius: None,
            warm,
        };
        let judges = self.options.acceptance == 0.0;
        let count = workspace.solves.len();
        for (number, solve) in workspace.solves.iter().enumerate() {
            let recall = warm.then_some((&solve.recall).into());
            let before: Vec<Commands<'_>> =
                recall.into_iter().chain([(&solve.before).into()]).collect();
            if judges && number + 1 == count {
                workspace.judge.begin();
                let mut ending = Ending {
                    gpu,
                    add: &solve.add,
                    step: &workspace.step,
                    factor: self.factor,
                    products: &memory.products,
                    judge: &mut workspace.judge,
                };
                let (report, read) = solve.cg.solve_and(system, &before, &mut ending).await?;
                solved.count(&report, &workspace.quadratic)?;
                return Verdict::new(&mut workspace.judge, read).map(Some);
            }
            let report = solve.cg.solve_after(system, &before).await?;
            solved.count(&report, &workspace.quadratic)?;
            gpu.submit(|recorder| recorder.replay(&solve.add))?;
        }
        Ok(None)
    }
}

impl Workspace {
    fn new(
        gpu: &Gpu,
        theta: &Vector,
        quadratic: &Arc<GroupedQuadratic>,
        memory: &Memory,
        options: &DecoupledOptions,
        turns: &[Turn],
    ) -> Result<Self> {
        let losses = quadratic.losses.as_ref();
        let judge = Judge::new(gpu, [theta, &quadratic.gradient], losses)?;
        let cg = &options.newton.cg;
        let solves = turns
            .iter()
            .enumerate()
            .map(|(number, turn)| Solve::new(gpu, cg, memory, quadratic, turn, number))
            .collect::<Result<Vec<_>>>()?;
        let step = match &solves[..] {
            [only] => only.cg.solution.clone(),
            several => memory.sums[several.len() % 2].clone(),
        };
        let mut remember = Recording::new();
        remember.copy(step.slice(), memory.previous.slice())?;
        Ok(Self {
            quadratic: Arc::clone(quadratic),
            theta: theta.uncounted(),
            solves,
            step,
            remember: Arc::new(remember),
            judge,
        })
    }

    /// What is known at theta, where no step could be computed.
    async fn at_theta(&mut self, gpu: &Gpu, memory: &Memory) -> Result<Candidate> {
        let Self {
            judge, quadratic, ..
        } = self;
        let (before, still) = (&quadratic.linearize, (&memory.previous, 0.0));
        let verdict = Verdict::of(judge, gpu, before, still, &memory.products).await?;
        Ok(verdict.step)
    }
}

impl<O: Parts + ?Sized> Method<O> for DecoupledNewtonCg {
    fn run(&mut self) -> &mut Course {
        &mut self.course
    }

    async fn propose(
        &mut self,
        objective: &mut O,
        theta: &Vector,
        batch: &O::Batch,
    ) -> Result<Proposal> {
        let gpu = objective.gpu().clone();
        ConjugateGradients::check(&gpu)?;
        let (turns, warm_start) = (self.turns.len(), self.options.newton.warm_start);
        if self.memory.is_none() {
            let memory = Memory::new(&gpu, objective.layout(), turns, warm_start)?;
            self.memory = Some(memory);
        }
        let setting = Setting {
            options: &self.options,
            turns: &self.turns,
            damping: self.damping,
            has_previous: self.has_previous,
            factor: self.course.factor(),
        };
        let memory = self.memory.as_ref().ok_or_else(|| missing("memory"))?;
        let caches = (&mut self.workspaces, &mut self.judges);
        setting
            .propose(memory, caches, objective, theta, batch)
            .await
    }

    fn settle(&mut self, _: &Proposal, outcome: &Outcome) {
        self.has_previous |= outcome.accepted;
        if let Some(ratio) = outcome.judged {
            self.damping = self.options.newton.damping.judge(self.damping, ratio);
        }
    }
}

impl Setting<'_> {
    async fn propose<O: Parts + ?Sized>(
        &self,
        memory: &Memory,
        (workspaces, judges): (&mut Recent<Workspace>, &mut Judges),
        objective: &mut O,
        theta: &Vector,
        batch: &O::Batch,
    ) -> Result<Proposal> {
        let gpu = objective.gpu().clone();
        let rows = objective
            .rows(batch)
            .ok_or_else(|| without_parts("folds"))?;
        let strategy = self.options.strategy;
        let (size, apart) = strategy.cut(self.options.acceptance, rows)?;
        let used = size * strategy.folds();
        let cut;
        let folds = if used == rows {
            batch
        } else {
            let first = 0..used;
            cut = objective.part(batch, &[first])?;
            &cut
        };
        let request = GroupRequest {
            curvature: self.options.newton.curvature,
            slope_variance: self.options.shrinks,
            losses: true,
        };
        let loaded = objective.load_groups(Slot::default(), folds, strategy.folds())?;
        let quadratic = objective.grouped(theta, &loaded, request)?;
        let known = |w: &Workspace| Arc::ptr_eq(&w.quadratic, &quadratic) && w.theta.is_same(theta);
        let own = 8 * self.turns.len() * objective.layout().len();
        let bytes = quadratic.cost.bytes + 4 * own as u64;
        let workspace = workspaces.find_or(known, (theta.life(), bytes), || {
            let (options, turns) = (self.options, self.turns);
            Workspace::new(&gpu, theta, &quadratic, memory, options, turns)
        })?;
        let cost = quadratic.cost;
        let mut solved = Solved::default();
        solved.work.gradient(&cost, &loaded);
        let report = StepReport {
            damping: Some(self.damping),
            ..StepReport::default()
        };
        let run = self.run_solves(&gpu, memory, workspace, &mut solved);
        let verdict = match run.await {
            Err(Error::NotFinite { .. }) => {
                let mut work = solved.work;
                work.gradient(&cost, &loaded);
                for cost in workspace.judge.costs() {
                    work.losses(1, &cost, &loaded);
                }
                let still = workspace.at_theta(&gpu, memory).await?;
                return Ok(Proposal::overflow(still, work.in_report(report)));
            }
            other => other?,
        };
        let mut work = solved.work;
        let Workspace {
            step,
            remember,
            judge,
            ..
        } = workspace;
        let start = self.factor;
        let (judging, verdict, judge) = match (apart, verdict) {
            (None, Some(verdict)) => (loaded, verdict, judge),
            (None, None) => return Err(missing("verdict")),
            (Some(apart), _) => {
                let apart = objective.part(batch, &[apart])?;
                let loaded = objective.load(Slot::new(Role::Acceptance, 0), &apart)?;
                let apart = judges.of(objective, theta, &loaded)?;
                work.gradient(&apart.gradient.cost, &loaded);
                let (run, judge) = (&apart.gradient.run, &mut apart.judge);
                let step = (&*step, start);
                let verdict = Verdict::of(judge, &gpu, run, step, &memory.products).await?;
                (loaded, verdict, &mut apart.judge)
            }
        };
        // Nothing moves where no direction has a slope that counts, or the schedule has come to zero; then nothing is learnt about the
        // model, either.
        let first = verdict.step;
        let stationary = first.square == 0.0 || start == 0.0;
        let (chosen, losses) = if stationary {
            (None, 0)
        } else {
            let rule = self.options.newton.search();
            judge.search(&gpu, (step, start, first), rule).await?
        };
        let [at_base, at_point] = judge.costs();
        work.losses(1, &at_base, &judging);
        work.losses(1 + losses, &at_point, &judging);
        let (factor, at) = chosen.unwrap_or((start, first));
        Ok(Proposal {
            base: verdict.base,
            at: Candidate {
                square: first.square,
                ..at
            },
            factor,
            step: match chosen {
                None => None,
                Some(_) => Some(judge.prepare_move(&gpu, step, factor)?),
            },
            promised: solved.promised(&verdict.products, self.damping, factor),
            stationary,
            remember: Some(Arc::clone(remember)),
            report: work.in_report(StepReport {
                step_length: chosen.map(|_| factor),
                cg_iterations: Some(solved.iterations),
                cg_stop: solved.stop,
                ..report
            }),
        })
    }
}

impl Stateful for DecoupledNewtonCg {
    fn course(&self) -> &Course {
        &self.course
    }

    fn course_mut(&mut self) -> &mut Course {
        &mut self.course
    }

    fn scalars(&self) -> Vec<(String, f64)> {
        let has_previous = f64::from(u8::from(self.has_previous));
        vec![
            ("damping".into(), self.damping),
            ("has_previous".into(), has_previous),
        ]
    }

    fn tensors(&self) -> Vec<StateTensor> {
        let memory = self.memory.as_ref().filter(|_| self.has_previous);
        let previous = memory.map(|memory| StateTensor::vector("previous", &memory.previous));
        previous.into_iter().collect()
    }
}

impl<O: Parts + ?Sized> Optimizer<O> for DecoupledNewtonCg {
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

    fn attempt<'a>(
        &'a mut self,
        objective: &'a mut O,
        theta: &'a Vector,
        batch: &'a O::Batch,
    ) -> BoxFuture<'a, Result<StepReport>> {
        Box::pin(engine::step(self, objective, theta, batch))
    }

    fn restore_async<'a>(
        &'a mut self,
        objective: &O,
        state: &'a OptimizerState,
    ) -> BoxFuture<'a, Result<()>> {
        let (gpu, layout) = (objective.gpu().clone(), Arc::clone(objective.layout()));
        Box::pin(async move {
            saved::only(state, &["damping", "has_previous"], &["previous"])?;
            let damping = saved::number(state, "damping", 0.0..=LARGEST)?;
            let has_previous = saved::number(state, "has_previous", 0.0..=1.0)? > 0.0;
            let (gpu, layout) = (&gpu, &layout);
            let warm_start = self.options.newton.warm_start;
            let memory = Memory::new(gpu, layout, self.turns.len(), warm_start)?;
            if has_previous {
                let previous = saved::vector(state, "previous", layout)?;
                memory.previous.write_async(gpu, previous).await?;
            }
            let course = self.course.restored(gpu, layout, state).await?;
            // What is recorded knows the vectors of the old memory.
            self.workspaces.clear();
            self.judges.clear();
            self.memory = Some(memory);
            (self.damping, self.has_previous, self.course) = (damping, has_previous, course);
            Ok(())
        })
    }
}
