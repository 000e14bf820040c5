//! Newton-CG with decoupled mini-batches: directions of some examples, steps along them of others.

mod options;
mod solve;

use std::sync::Arc;
use std::time::Instant;

pub use options::DecoupledOptions;
use solve::{Memory, Solve};

use super::candidates::{Candidate, Candidates};
use super::first_order::missing;
use super::optimizer::{Optimizer, OptimizerState};
use super::report::StepReport;
use super::strategy::{Strategy, Turn};
use crate::error::{Error, Result};
use crate::gpu::{Gpu, Recorder, Recording, Slice};
use crate::linalg::{Afterword, CgReport, Stop, System};
use crate::objective::{GroupRequest, GroupedQuadratic, Objective, Quadratic, QuadraticRequest};
use crate::vector::Vector;

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

/// Newton-CG whose directions and steps come from different examples, which removes the bias that a mini-batch's own directions bring into its slopes and
/// curvatures (Tatzel et al. 2025).
///
/// A batch is cut into folds by its order: the first rows are the first fold, and so on, so that `data.batch(&roles.next_step().concat())` deals the parts of
/// [`Roles`](crate::data::Roles) in the order of their plan. For each solve conjugate gradients run on the quadratic of some folds, and a
/// [`Companion`](crate::linalg::Companion)
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
        let loss = objective.loss_at(&memory.trial, quadratic.rows)?;
        let (gpu, options) = (objective.gpu(), &self.options.newton.cg);
        let solves = self
            .turns
            .iter()
            .enumerate()
            .map(|(number, turn)| Solve::new(gpu, options, memory, quadratic, turn, number))
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
