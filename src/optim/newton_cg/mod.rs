//! Newton-CG, also called Hessian-free optimization (Martens 2010; Martens and Sutskever 2012).

mod approximation;
mod options;
mod recorded;
#[cfg(test)]
mod recorded_tests;
mod trust_region;
mod variables;
mod workspace;

use std::sync::Arc;

use approximation::Approximation;
use options::RADII;
pub use options::{NewtonCgOptions, Preconditioner};
use trust_region::{accepts, next_radius};
use workspace::{Beginning, ENDS, Known, Memory, Workspace};

use super::course::Course;
use super::damping::LARGEST;
use super::decision::Ratio;
use super::engine::{self, Method, Outcome, Proposal};
use super::judge::Candidate;
use super::optimizer::Optimizer;
use super::report::StepReport;
use super::saved::{OptimizerState, missing};
use super::state::Stateful;
use super::state_tensor::StateTensor;
use super::work::Work;
use super::{not_finite, saved};
use crate::error::{Error, Result};
use crate::gpu::{BoxFuture, Gpu, Recorder};
use crate::linalg::{CgReport, ConjugateGradients, Stop};
use crate::objective::{Curvature, Curved, QuadraticRequest, Slot};
use crate::recent::Recent;
use crate::vector::Vector;

/// [`NewtonCg`] with the options of [`NewtonCgOptions::nystrom`]: Nystrom-preconditioned Newton-CG.
pub type NystromNewtonCg = NewtonCg;

/// [`NewtonCg`] with the options of [`NewtonCgOptions::kronecker`]: Newton-CG preconditioned by Kronecker factors.
pub type KroneckerNewtonCg = NewtonCg;

/// Newton's method with conjugate gradients on curvature products.
///
/// With the Gauss-Newton matrix a step solves `(G + damping I) d = -g`, goes back over kept iterates while an earlier one has a lower loss,
/// searches along the result until Armijo's condition holds, and adapts the damping by the reduction ratio against the undamped model. With
/// [`Preconditioner::Nystrom`] it is Nystrom-preconditioned Newton-CG (NysNewton-CG, Rathore et al. 2024), with damping by the reduction
/// ratio where that has a fixed one. With [`Preconditioner::Kronecker`] the approximation `P` is that of K-FAC. Conjugate gradients then work
/// in variables `y = P^(1/2) d`, and steps where an approximation is made have one more blocking readback. With the Hessian it is Steihaug's trust-region method: directions of negative curvature are followed to
/// the boundary.
///
/// A refused step leaves everything as it was but damping or radius.
pub struct NewtonCg {
    options: NewtonCgOptions,
    damping: f64,
    radius: f64,
    has_previous: bool,
    steps: usize,
    course: Course,
    memory: Option<Memory>,
    workspaces: Recent<Workspace>,
}

impl NewtonCg {
    /// With these options.
    ///
    /// # Errors
    /// [`Error::Option`](crate::Error::Option) naming the option and its range.
    pub fn new(options: NewtonCgOptions) -> Result<Self> {
        options.validate()?;
        let (damping, radius) = (
            options.damping.first(),
            f64::from(options.radius as f32).clamp(*RADII.start(), *RADII.end()),
        );
        Ok(Self {
            options,
            damping,
            radius,
            has_previous: false,
            steps: 0,
            course: Course::default(),
            memory: None,
            workspaces: Recent::default(),
        })
    }

    /// The damping of the next step.
    pub fn damping(&self) -> f64 {
        self.damping
    }

    fn trusts(&self) -> bool {
        self.options.curvature == Curvature::Hessian
    }
}

/// A step that was chosen: direction, factor, and what is known of them.
struct Choice {
    vector: Vector,
    /// Iteration it comes from, if not the last.
    from: Option<usize>,
    /// Value of the damped model there.
    model: f64,
    at: Candidate,
}

impl Workspace {
    /// Goes back over kept iterates while the loss falls. Returns the choice and the number of losses computed beyond those known.
    async fn backtrack(
        &mut self,
        gpu: &Gpu,
        report: &CgReport,
        known: &Known,
        factor: f64,
    ) -> Result<(Choice, usize)> {
        let model = |iteration: usize| report.model.get(iteration).copied().unwrap_or(0.0);
        let solution = self.iterates.solution.clone();
        let mut list = vec![(solution, None, model(report.iterations))];
        let kept = self.iterates.before(report.iterations);
        list.extend(kept.map(|(after, v)| (v.clone(), Some(after), model(after))));
        let mut losses = 0;
        let mut fresh: Vec<Candidate> = Vec::new();
        let mut best: Option<Choice> = None;
        for (position, (vector, from, model)) in list.iter().enumerate() {
            let at = match known.candidates.iter().find(|(place, _)| place == from) {
                Some((_, at)) => *at,
                None => {
                    if fresh.is_empty() {
                        let more = &list[position..list.len().min(position + ENDS)];
                        let vectors: Vec<Vector> = more.iter().map(|(v, _, _)| v.clone()).collect();
                        fresh = self.evaluate(gpu, &vectors, factor).await?;
                        fresh.reverse();
                        losses += more.len();
                    }
                    fresh.pop().ok_or_else(|| missing("candidate"))?
                }
            };
            // Where iterates overflowed, an earlier one may be finite.
            let settled = |best: &Choice| best.at.change.is_finite() && at.change >= best.at.change;
            if best.as_ref().is_some_and(settled) {
                break;
            }
            best = Some(Choice {
                vector: vector.clone(),
                from: *from,
                model: *model,
                at,
            });
        }
        best.map(|b| (b, losses))
            .ok_or_else(|| missing("candidate"))
    }
}

impl<O: Curved + ?Sized> Method<O> for NewtonCg {
    fn run(&mut self) -> &mut Course {
        &mut self.course
    }

    async fn propose(
        &mut self,
        objective: &mut O,
        theta: &Vector,
        batch: &O::Batch,
    ) -> Result<Proposal> {
        ConjugateGradients::check(objective.gpu())?;
        let (options, trusts) = (&self.options, self.options.curvature == Curvature::Hessian);
        let preconditioner = options.preconditioner;
        let fisher_diagonal = matches!(preconditioner, Preconditioner::EmpiricalFisher { .. });
        let request = QuadraticRequest {
            curvature: options.curvature,
            fisher_diagonal,
            block: match preconditioner {
                Preconditioner::Nystrom { rank, .. } => rank,
                _ => 0,
            },
            losses: true,
        };
        let loaded = objective.load(Slot::default(), batch)?;
        let quadratic = objective.quadratic(theta, &loaded, request)?;
        if self.memory.is_none() {
            self.memory = Some(Memory::new(objective, options)?);
        }
        let Some(memory) = &mut self.memory else {
            return Err(missing("memory"));
        };
        let factors = memory
            .approximation
            .as_ref()
            .and_then(Approximation::inverse_roots);
        let kronecker = match (preconditioner, factors) {
            (Preconditioner::Kronecker { request, .. }, Some(reads)) => {
                let layered = objective.layered_mut()?;
                Some(layered.kronecker([theta, reads], &loaded, request)?)
            }
            _ => None,
        };
        let known = |w: &Workspace| Arc::ptr_eq(&w.quadratic, &quadratic) && w.theta.is_same(theta);
        let own = Workspace::bytes(objective.layout().len(), options);
        let bytes = quadratic.cost.bytes + own;
        let workspace = self.workspaces.find_or(known, (theta.life(), bytes), || {
            let programs = (&quadratic, kronecker.as_ref());
            Workspace::new(objective, theta, programs, memory, options)
        })?;
        let gpu = objective.gpu().clone();
        let mut work = Work::default();
        let (cost, elements) = (quadratic.cost, objective.layout().len());
        if fisher_diagonal {
            work.gradient_and_fisher_diagonal(&cost, &loaded);
        } else {
            work.gradient(&cost, &loaded);
        }
        let mut report = StepReport {
            damping: (!trusts).then_some(self.damping),
            radius: trusts.then_some(self.radius),
            ..StepReport::default()
        };
        if let Some(refresh) = preconditioner.refresh() {
            let (Some(variables), Some(approximation)) =
                (&mut workspace.variables, &mut memory.approximation)
            else {
                return Err(missing("variables"));
            };
            if self.steps.is_multiple_of(refresh) || !approximation.is_made() {
                variables.count((&quadratic, &loaded), &mut work);
                approximation.begin(&gpu)?;
                let (before, known) = (&quadratic.linearize, &mut approximation.known);
                match variables
                    .approximate(&gpu, before, known, self.damping)
                    .await
                {
                    Err(Error::NotFinite { .. }) => {
                        let still = workspace.at_theta(&gpu, memory).await?;
                        work.gradient(&cost, &loaded);
                        for cost in workspace.judge.costs() {
                            work.losses(1, &cost, &loaded);
                        }
                        return Ok(Proposal::overflow(still, work.in_report(report)));
                    }
                    other => other?,
                }
            }
        }
        let begin = Beginning {
            damping: report.damping,
            radius: report.radius,
            warm: self.has_previous,
            factor: self.course.factor(),
        };
        let (cg, known) = workspace.solve(&gpu, memory, options, &begin).await?;
        let [at_base, at_point] = workspace.judge.costs();
        work.products(cg.products, &cost, &loaded);
        work.vectors(workspace.vector_work(&cg, options, elements));
        work.losses(1, &at_base, &loaded);
        work.losses(known.candidates.len(), &at_point, &loaded);
        report.cg_iterations = Some(cg.iterations);
        report.cg_stop = Some(cg.stop);
        let base = known.base;
        if !base.is_finite() {
            return Err(not_finite::loss());
        }
        if !cg.gradient_norm.is_finite() {
            return Err(not_finite::gradient());
        }
        if cg.stop == Stop::NotFinite && cg.iterations == 0 {
            let first = known
                .candidates
                .first()
                .ok_or_else(|| missing("candidate"))?;
            let still = Candidate {
                loss: base,
                gradient_square: cg.gradient_norm * cg.gradient_norm,
                ..first.1
            };
            return Ok(Proposal::overflow(still, work.in_report(report)));
        }
        let (choice, more) = workspace.backtrack(&gpu, &cg, &known, begin.factor).await?;
        let mut losses = more;
        let Choice {
            vector,
            from,
            model,
            at: first,
        } = choice;
        // With no gradient there is no step, and nothing is learnt about the model; nor where the schedule has come to zero.
        let still = cg.iterations == 0 && first.square == 0.0;
        let stationary = cg.gradient_norm == 0.0 || still || begin.factor == 0.0;
        let chosen = if stationary {
            None
        } else if trusts {
            Some((begin.factor, first))
        } else {
            let start = (&vector, begin.factor, first);
            let judge = &mut workspace.judge;
            let found = judge.search(&gpu, start, options.search()).await?;
            losses += found.1;
            found.0
        };
        work.losses(losses, &at_point, &loaded);
        let (factor, mut at) = chosen.unwrap_or((begin.factor, first));
        // That of conjugate gradients, which work in a unit of their own, does not overflow where the square of the gradient does.
        at.gradient_square = cg.gradient_norm * cg.gradient_norm;
        // q(a d) without damping: the damped model value gives d.(C + damping) d = 2 (model - g.d).
        let shift = if trusts { 0.0 } else { self.damping };
        let curvature = 2.0 * (model - at.slope) - shift * at.square;
        let step = match chosen {
            None => None,
            Some(_) => Some(workspace.judge.prepare_move(&gpu, &vector, factor)?),
        };
        Ok(Proposal {
            base,
            at,
            factor,
            step,
            promised: factor * at.slope + 0.5 * factor * factor * curvature,
            stationary,
            remember: Some(Arc::clone(&workspace.remember)),
            report: work.in_report(StepReport {
                step_length: chosen.map(|_| factor),
                backtracked_to: chosen.and(from),
                ..report
            }),
        })
    }

    fn accepts(&self, proposal: &Proposal) -> bool {
        // A trust-region step is taken when it achieves a tenth of what the model promised.
        !self.trusts() || accepts(proposal.ratio().most)
    }

    fn settle(&mut self, proposal: &Proposal, outcome: &Outcome) {
        self.has_previous |= outcome.accepted;
        if outcome.accepted || proposal.stationary {
            self.steps += 1;
        }
        if let Some(approximation) = self.approximation_mut() {
            approximation.end();
        }
        let Some(ratio) = outcome.judged else {
            return;
        };
        if self.trusts() {
            let stop = proposal.report.cg_stop.unwrap_or(Stop::NotFinite);
            self.radius = self.next_radius(ratio, stop);
        } else {
            self.damping = self.options.damping.judge(self.damping, ratio);
        }
    }

    fn record_back(&self, recorder: &mut Recorder<'_>) {
        if let Some(approximation) = self.approximation() {
            approximation.record_back(recorder);
        }
    }

    fn withdraw(&mut self) {
        if let Some(approximation) = self.approximation_mut() {
            approximation.withdraw();
        }
    }
}

impl NewtonCg {
    fn approximation(&self) -> Option<&Approximation> {
        self.memory.as_ref()?.approximation.as_ref()
    }

    fn approximation_mut(&mut self) -> Option<&mut Approximation> {
        self.memory.as_mut()?.approximation.as_mut()
    }

    /// The radius after a step, or of a refused one's next try.
    fn next_radius(&self, ratio: Ratio, stop: Stop) -> f64 {
        // An f32, as the device computes with it, and as a recorded step makes it.
        let rule = |rho| {
            let next = next_radius(self.radius, self.options.radius, rho, stop);
            f64::from(next as f32).clamp(*RADII.start(), *RADII.end())
        };
        ratio.decides(rule).unwrap_or(self.radius)
    }
}

impl Stateful for NewtonCg {
    fn course(&self) -> &Course {
        &self.course
    }

    fn course_mut(&mut self) -> &mut Course {
        &mut self.course
    }

    fn scalars(&self) -> Vec<(String, f64)> {
        let has_previous = f64::from(u8::from(self.has_previous));
        let mut scalars = vec![
            ("steps".into(), self.steps as f64),
            ("damping".into(), self.damping),
            ("radius".into(), self.radius),
            ("has_previous".into(), has_previous),
        ];
        if let Some(approximation) = self.approximation() {
            scalars.extend(approximation.scalars());
        }
        scalars
    }

    fn tensors(&self) -> Vec<StateTensor> {
        let Some(memory) = &self.memory else {
            return Vec::new();
        };
        let previous = self.has_previous.then_some(&memory.previous);
        let previous = previous.map(|vector| StateTensor::vector("previous", vector));
        let approximation = memory.approximation.as_ref();
        let approximation = approximation.map_or(Vec::new(), Approximation::tensors);
        previous.into_iter().chain(approximation).collect()
    }
}

impl<O: Curved + ?Sized> Optimizer<O> for NewtonCg {
    fn name(&self) -> &'static str {
        match self.options.preconditioner {
            Preconditioner::Nystrom { .. } => "nystrom-newton-cg",
            Preconditioner::Kronecker { .. } => "kronecker-newton-cg",
            Preconditioner::None | Preconditioner::EmpiricalFisher { .. } => "newton-cg",
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
        let memory = Memory::new(objective, &self.options);
        Box::pin(async move {
            let known = ["steps", "damping", "radius", "has_previous"];
            let [scalars, vectors] = Approximation::names(&self.options);
            let vectors = [&["previous"], vectors].concat();
            saved::only(state, &[&known[..], scalars].concat(), &vectors)?;
            let damping = saved::number(state, "damping", 0.0..=LARGEST)?;
            let radius = saved::number(state, "radius", RADII)?;
            let has_previous = saved::number(state, "has_previous", 0.0..=1.0)? > 0.0;
            let steps = saved::count(state, "steps")?;
            let mut memory = memory?;
            if has_previous {
                let previous = saved::vector(state, "previous", &layout)?;
                memory.previous.write_async(&gpu, previous).await?;
            }
            if let Some(approximation) = &mut memory.approximation {
                approximation.restore(&gpu, state, steps).await?;
            }
            let course = self.course.restored(&gpu, &layout, state).await?;
            // What is recorded knows the vectors of the old memory.
            self.workspaces.clear();
            self.memory = Some(memory);
            (self.damping, self.radius, self.has_previous) = (damping, radius, has_previous);
            (self.steps, self.course) = (steps, course);
            Ok(())
        })
    }
}
