//! Low-rank saddle-free Newton with Levenberg-Marquardt damping (O'Leary-Roseberry, Alger and Ghattas 2020).

mod automatic;
mod corrections;
mod fold;
mod options;
mod propose;
mod quotients;
mod recorded;
#[cfg(test)]
mod recorded_tests;
mod roles;
mod spectrum;

use std::sync::Arc;

use fold::{Fold, Memory};
pub use options::{Base, DampingRule, LrsfnOptions, RankRule};
use propose::{Caches, Cast};
use roles::Rows;

use super::course::Course;
use super::damping::LARGEST;
use super::decision::falls_enough;
use super::engine::{self, Method, Outcome, Proposal};
use super::first_order::remembered;
use super::optimizer::Optimizer;
use super::origin::with_origin;
use super::report::StepReport;
use super::saved::{self, OptimizerState, missing};
use super::state::Stateful;
use super::state_tensor::StateTensor;
use super::strategy::Strategy;
use crate::error::Result;
use crate::gpu::{BoxFuture, Recorder};
use crate::objective::{Curved, Parts, without_parts};
use crate::vector::Vector;

/// Low-rank saddle-free Newton:
///
/// ```text
/// d = -alpha sum_i (u_i . g) / (|l_i| + gamma) u_i  -  beta / gamma (g - sum_i (u_i . g) u_i)
/// ```
///
/// with the `r` eigenpairs `(l_i, u_i)` of largest magnitude of the Hessian, damping `gamma`, and step lengths `alpha` and `beta` in the
/// captured space and beyond it. Directions of negative curvature are followed downhill with the length that their magnitude allows. With
/// another [`Base`] the second term is the step of SGD or Adam on the gradient beyond the captured space, made orthogonal to that space.
///
/// Eigenpairs come from the batch of the step, from a part of it ([`LrsfnOptions::curvature_part`]), or from a batch of their own with
/// [`step_with_curvature`](Self::step_with_curvature). On the batch that made them eigenvectors are too steep and too curved. With
/// [`Strategy::Decoupled`] and [`Strategy::CrossFit`] this is Newton's method in eigenvectors with debiased mini-batches (Tatzel et al.
/// 2025), a reconstruction, since the paper's text and program were not available: `u_i` of some examples, `l_i = u_i . C u_i` and `g` of
/// others. Each turn of cross-fitting starts from its own last eigenvectors.
///
/// Whoever steps, the loss before and after, whether a step is accepted and the reduction ratio are those of the whole batch, or of the
/// part [`LrsfnOptions::acceptance`]. The ratio is the change of that loss over the model's, `g . d + d . C d / 2`: `g` is the judges'
/// gradient, and `d . C d` the mean over turns of `sum_i l_i (u_i . d)^2` of each turn's own step, with the eigenvalues that made it. So
/// the slope is that of the loss which is judged, and the curvature was held out; were all turns' matrices one and positive semi-definite,
/// their mean would bound the mean step's from above.
///
/// A step has one blocking readback, whatever the number of turns. Where eigenpairs are computed there is one more for each turn if they
/// start from the last ones without power iterations, and `2 + power_iterations` more otherwise (see
/// [`RandomizedEigensolver`](crate::linalg::RandomizedEigensolver)); one more for each turn with Rayleigh quotients of other examples or a
/// noise test, which share it; and one for an automatic step length.
///
/// The eigensolver, the rules for stable damping, the separate step lengths and everything else in [`LrsfnOptions`] go beyond the paper;
/// [`LrsfnOptions::paper`] is the paper's method as its authors' program has it.
pub struct LowRankSaddleFreeNewton {
    options: LrsfnOptions,
    steps: usize,
    damping: f64,
    /// Step lengths in the captured space and beyond it.
    lengths: [f64; 2],
    /// Those of a step that is not decided yet, where they were measured anew.
    next: Option<[f64; 2]>,
    course: Course,
    memory: Option<Memory>,
    caches: Caches,
}

/// A step with the batches of its roles.
struct Step<'a, O: Curved + ?Sized> {
    method: &'a mut LowRankSaddleFreeNewton,
    cast: Cast<'a, O>,
}

impl LowRankSaddleFreeNewton {
    /// With these options.
    ///
    /// # Errors
    /// [`Error::Option`](crate::Error::Option) naming the option and its range.
    pub fn new(options: LrsfnOptions) -> Result<Self> {
        options.validate()?;
        let damping = match options.rule {
            DampingRule::Fixed => options.least_damping(),
            DampingRule::Adaptive(rule) => rule.first().max(options.least_damping()),
        };
        Ok(Self {
            lengths: [options.step_length, options.step_length_beyond],
            options,
            steps: 0,
            damping,
            memory: None,
            next: None,
            course: Course::default(),
            caches: Caches::default(),
        })
    }

    /// The eigenvalues in use; empty before the first step. They fall in magnitude, unless they are Rayleigh quotients of other examples
    /// than those of the eigenvectors; with several turns they are one turn's after another's.
    pub fn eigenvalues(&self) -> Vec<f64> {
        self.memory
            .as_ref()
            .map_or(Vec::new(), |memory| all_values(&memory.folds))
    }

    /// One step with gradient and losses of `batch` and curvature of `curvature_batch`. Nothing is cut off from either batch: all of
    /// `batch` judges.
    ///
    /// With [`Strategy::Decoupled`] or [`Strategy::CrossFit`] only eigenvectors are of `curvature_batch`, and eigenvalues are Rayleigh
    /// quotients on `batch`; there is one turn, which is the first one. Otherwise both are of `curvature_batch`, and slopes alone are of
    /// `batch`.
    ///
    /// # Errors
    /// As [`Optimizer::step`].
    #[cfg(not(target_arch = "wasm32"))]
    pub fn step_with_curvature<O: Parts + ?Sized>(
        &mut self,
        objective: &mut O,
        theta: &Vector,
        batch: &O::Batch,
        curvature_batch: &O::Batch,
    ) -> Result<StepReport> {
        let step = self.step_with_curvature_async(objective, theta, batch, curvature_batch);
        crate::gpu::blocking(step)
    }

    /// As [`step_with_curvature`](Self::step_with_curvature), without blocking the thread.
    ///
    /// # Errors
    /// As there.
    pub async fn step_with_curvature_async<O: Parts + ?Sized>(
        &mut self,
        objective: &mut O,
        theta: &Vector,
        batch: &O::Batch,
        curvature_batch: &O::Batch,
    ) -> Result<StepReport> {
        let mut step = Step {
            method: self,
            cast: Cast {
                folds: &[[curvature_batch, batch]],
                judge: None,
                cut: cut_parts::<O>,
            },
        };
        let result = engine::step(&mut step, objective, theta, batch).await;
        with_origin(result, objective, theta, batch).await
    }

    /// What of a batch makes eigenvectors and what steps along them, for each turn; and what judges, unless those who step do. Nothing
    /// stands for all of it.
    #[allow(clippy::type_complexity)]
    fn deal<O: Parts + ?Sized>(
        &self,
        objective: &O,
        batch: &O::Batch,
    ) -> Result<(Vec<[Option<O::Batch>; 2]>, Option<Option<O::Batch>>)> {
        let roles = match objective.rows(batch) {
            Some(rows) => self.options.deal(rows)?,
            None => self.options.whole()?,
        };
        let part = |rows: &Rows| match rows {
            Some(ranges) => objective.part(batch, ranges).map(Some),
            None => Ok(None),
        };
        let turns = roles.turns.iter();
        let folds = turns
            .map(|[directions, steps]| Ok([part(directions)?, part(steps)?]))
            .collect::<Result<_>>()?;
        let judging = match roles.judge_themselves() {
            true => None,
            false => Some(part(&roles.judges)?),
        };
        Ok((folds, judging))
    }

    /// The damping of a step with these turns.
    fn current_damping(&self, folds: &[Fold]) -> f64 {
        match self.options.rule {
            DampingRule::Fixed => self.options.least_damping(),
            DampingRule::Adaptive(_) => {
                let floor = self.damping_floor(folds);
                f64::from(self.damping as f32).max(floor)
            }
        }
    }

    /// What eigenpairs and options say that a damping which adapts is not below: an f32, which devices compute with.
    fn damping_floor(&self, folds: &[Fold]) -> f64 {
        let least = folds.iter().map(|fold| fold.spectrum.known.least);
        let floor = least.fold(self.options.damping, f64::max);
        f64::from(floor as f32)
    }

    fn adapts(&self) -> bool {
        self.options.rule != DampingRule::Fixed
    }

    /// Settings of the base optimizer for the next step.
    fn settings(&self) -> Option<[f32; 8]> {
        let factor = self.course.factor();
        match &self.options.base {
            Base::Gradient => None,
            Base::Sgd(options) => Some(options.settings(factor)),
            Base::Adam(options) => Some(options.settings(self.steps as i32 + 1, factor)),
        }
    }

    /// The step lengths of the next step, with the factor of the schedule.
    fn lengths(&self) -> [f64; 2] {
        let factor = self.course.factor();
        self.next
            .unwrap_or(self.lengths)
            .map(|length| factor * length)
    }
}

/// A method whose memory is beside it, and comes back whatever happens.
struct Lent<'a> {
    method: &'a mut LowRankSaddleFreeNewton,
    memory: Option<Memory>,
}

impl Drop for Lent<'_> {
    fn drop(&mut self) {
        self.method.memory = self.memory.take();
    }
}

/// A batch in parts of equal size.
fn cut_parts<O: Parts + ?Sized>(
    objective: &O,
    batch: &O::Batch,
    parts: usize,
) -> Result<Vec<O::Batch>> {
    let none = || without_parts("a rank by noise");
    let rows = objective.rows(batch).ok_or_else(none)? / parts;
    (0..parts)
        .map(|part| {
            let own = part * rows..(part + 1) * rows;
            objective.part(batch, &[own])
        })
        .collect()
}

impl<O: Curved + ?Sized> Method<O> for Step<'_, O> {
    fn run(&mut self) -> &mut Course {
        &mut self.method.course
    }

    async fn propose(
        &mut self,
        objective: &mut O,
        theta: &Vector,
        _: &O::Batch,
    ) -> Result<Proposal> {
        let method = &mut *self.method;
        let memory = match method.memory.take() {
            Some(memory) => memory,
            None => Memory::new(objective, &method.options)?,
        };
        let mut lent = Lent {
            method,
            memory: Some(memory),
        };
        let memory = lent.memory.as_mut().ok_or_else(|| missing("memory"))?;
        lent.method
            .propose_in(memory, objective, theta, &self.cast)
            .await
    }

    fn accepts(&self, proposal: &Proposal) -> bool {
        !self.method.adapts() || falls_enough(proposal.at.change, proposal.at.error, 0.0, 0.0)
    }

    fn settle(&mut self, proposal: &Proposal, outcome: &Outcome) {
        let method = &mut *self.method;
        if outcome.accepted || proposal.stationary {
            method.steps += 1;
            if let Some(lengths) = method.next {
                method.lengths = lengths;
            }
        }
        method.next = None;
        if let Some(memory) = &mut method.memory {
            memory.end();
        }
        if let (DampingRule::Adaptive(rule), Some(ratio)) = (method.options.rule, outcome.judged) {
            let damping = proposal.report.damping.unwrap_or(method.damping);
            method.damping = rule
                .judge(damping, ratio)
                .max(method.options.least_damping());
        }
    }

    fn record_back(&self, recorder: &mut Recorder<'_>) {
        if let Some(memory) = &self.method.memory {
            memory.record_back(recorder);
        }
    }

    fn withdraw(&mut self) {
        self.method.next = None;
        if let Some(memory) = &mut self.method.memory {
            memory.withdraw();
        }
    }
}

impl Stateful for LowRankSaddleFreeNewton {
    fn course(&self) -> &Course {
        &self.course
    }

    fn course_mut(&mut self) -> &mut Course {
        &mut self.course
    }

    fn scalars(&self) -> Vec<(String, f64)> {
        let mut scalars = vec![
            ("steps".into(), self.steps as f64),
            ("damping".into(), self.damping),
            ("step_length".into(), self.lengths[0]),
            ("step_length_beyond".into(), self.lengths[1]),
        ];
        let folds = self.memory.iter().flat_map(|memory| &memory.folds);
        for (number, fold) in folds.enumerate() {
            scalars.extend(fold.spectrum.scalars(&prefix(number)));
        }
        scalars
    }

    fn tensors(&self) -> Vec<StateTensor> {
        let Some(memory) = &self.memory else {
            return Vec::new();
        };
        let folds = memory.folds.iter().enumerate();
        let bases = folds.map(|(number, fold)| fold.spectrum.tensor(&prefix(number)));
        let base = memory.base.iter().flat_map(|base| base.moments.tensors());
        bases.chain(base).collect()
    }
}

impl<O: Parts + ?Sized> Optimizer<O> for LowRankSaddleFreeNewton {
    fn name(&self) -> &'static str {
        match (self.options.rule, self.options.strategy) {
            (_, Strategy::Decoupled { .. }) => "decoupled-lrsfn",
            (_, Strategy::CrossFit { .. }) => "cross-fit-lrsfn",
            (DampingRule::Fixed, Strategy::Single) => "lrsfn-paper",
            (DampingRule::Adaptive(_), Strategy::Single) => "lrsfn",
        }
    }

    fn attempt<'a>(
        &'a mut self,
        objective: &'a mut O,
        theta: &'a Vector,
        batch: &'a O::Batch,
    ) -> BoxFuture<'a, Result<StepReport>> {
        Box::pin(async move {
            let (folds, judging) = self.deal(objective, batch)?;
            let folds: Vec<[&O::Batch; 2]> = folds
                .iter()
                .map(|fold| fold.each_ref().map(|part| part.as_ref().unwrap_or(batch)))
                .collect();
            let judge = judging.as_ref().map(|part| part.as_ref().unwrap_or(batch));
            let mut step = Step {
                method: self,
                cast: Cast {
                    folds: &folds,
                    judge,
                    cut: cut_parts::<O>,
                },
            };
            engine::step(&mut step, objective, theta, batch).await
        })
    }

    fn restore_async<'a>(
        &'a mut self,
        objective: &O,
        state: &'a OptimizerState,
    ) -> BoxFuture<'a, Result<()>> {
        let (gpu, layout) = (objective.gpu().clone(), Arc::clone(objective.layout()));
        let memory = Memory::new(objective, &self.options);
        Box::pin(async move {
            let mut memory = memory?;
            let known = ["steps", "damping", "step_length", "step_length_beyond"];
            let mut scalars = known.to_vec();
            scalars.extend(["refreshes", "drawn", "least", "eigenvalue ", "noise "]);
            let mut vectors = vec!["eigenvector "];
            if memory.folds.len() > 1 {
                scalars.push("fold ");
                vectors.push("fold ");
            }
            if let Some(method) = fold::method(&self.options.base) {
                vectors.extend(remembered(method));
            }
            saved::only(state, &scalars, &vectors)?;
            let steps = saved::count(state, "steps")?;
            let damping = saved::number(state, "damping", 0.0..=LARGEST)?;
            let length = |name: &str| saved::number(state, name, 0.0..=f64::MAX);
            let lengths = [length("step_length")?, length("step_length_beyond")?];
            if steps > 0 {
                for (number, fold) in memory.folds.iter_mut().enumerate() {
                    fold.spectrum.restore(&gpu, &prefix(number), state).await?;
                }
                if let Some(base) = &memory.base {
                    base.moments.restore(&gpu, state).await?;
                }
            }
            self.course = self.course.restored(&gpu, &layout, state).await?;
            self.caches = Caches::default();
            (self.steps, self.damping, self.lengths) = (steps, damping, lengths);
            self.memory = Some(memory);
            Ok(())
        })
    }
}

/// How names of what is remembered for the turn from fold `number` on begin.
fn prefix(number: usize) -> String {
    match number {
        0 => String::new(),
        _ => format!("fold {number} "),
    }
}

/// The eigenvalues of one turn after another.
fn all_values(folds: &[Fold]) -> Vec<f64> {
    let values = folds.iter().flat_map(|fold| &fold.spectrum.known.values);
    values.copied().collect()
}
