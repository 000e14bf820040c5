//! Newton-CG, also called Hessian-free optimization (Martens 2010; Martens and Sutskever 2012).

use std::sync::Arc;
use std::time::Instant;

use super::candidates::{AT_ONCE, Candidate, Candidates};
use super::damping::LevenbergMarquardt;
use super::first_order::missing;
use super::optimizer::{Optimizer, OptimizerState};
use super::report::StepReport;
use crate::error::{Error, Result};
use crate::gpu::{Gpu, Recorder, Recording, Slice};
use crate::kernels::vector::{combine, preconditioner};
use crate::linalg::{Afterword, CgOptions, CgReport, ConjugateGradients, Operator, Stop, System};
use crate::objective::{Curvature, Objective, Quadratic, QuadraticRequest};
use crate::vector::Vector;

/// Radii of the trust region whose squares are well inside f32.
const RADII: std::ops::RangeInclusive<f64> = 1e-12..=1e12;

/// Preconditioner of the conjugate gradients.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Preconditioner {
    /// None.
    None,
    /// `(diag F + damping)^exponent` with the diagonal of the empirical Fisher matrix, `sum_n w_n g_n * g_n` (Martens 2010, section 4.7, takes 3/4).
    EmpiricalFisher {
        /// In 0..=1.
        exponent: f32,
    },
}

/// Settings of [`NewtonCg`].
#[derive(Clone, Debug, PartialEq)]
#[non_exhaustive]
pub struct NewtonCgOptions {
    /// The matrix. [`Curvature::GaussNewton`] (default) with Levenberg-Marquardt damping, or [`Curvature::Hessian`] with a trust region.
    pub curvature: Curvature,
    /// Settings of conjugate gradients.
    pub cg: CgOptions,
    /// Damping, with the Gauss-Newton matrix.
    pub damping: LevenbergMarquardt,
    /// Default none: where it was tried it did not save work (see docs/rejected-ideas.md).
    pub preconditioner: Preconditioner,
    /// The next solve starts at this fraction of the last solution (before backtracking); 0 starts at zero. Default 0.95.
    pub warm_start: f32,
    /// Whether to try earlier iterates when the last one has a higher loss. Default true.
    pub backtracking: bool,
    /// Armijo's constant: the loss must fall by this part of the slope. Default 1e-2.
    pub armijo: f64,
    /// Factor between step lengths that the line search tries. Default 0.8.
    pub shrink: f64,
    /// Step lengths that the line search tries before the step is refused. Default 20.
    pub max_line_search: usize,
    /// First radius of the trust region, with the Hessian. Default 1.
    pub radius: f64,
}

impl Default for NewtonCgOptions {
    fn default() -> Self {
        Self {
            curvature: Curvature::GaussNewton,
            cg: CgOptions::default(),
            damping: LevenbergMarquardt::default(),
            preconditioner: Preconditioner::None,
            warm_start: 0.95,
            backtracking: true,
            armijo: 1e-2,
            shrink: 0.8,
            max_line_search: 20,
            radius: 1.0,
        }
    }
}

impl NewtonCgOptions {
    /// Sets the matrix.
    #[must_use]
    pub fn with_curvature(mut self, curvature: Curvature) -> Self {
        self.curvature = curvature;
        self
    }

    /// Sets the conjugate gradient settings.
    #[must_use]
    pub fn with_cg(mut self, cg: CgOptions) -> Self {
        self.cg = cg;
        self
    }

    /// Sets the damping rule.
    #[must_use]
    pub fn with_damping(mut self, damping: LevenbergMarquardt) -> Self {
        self.damping = damping;
        self
    }

    /// Sets the preconditioner.
    #[must_use]
    pub fn with_preconditioner(mut self, preconditioner: Preconditioner) -> Self {
        self.preconditioner = preconditioner;
        self
    }

    /// Sets the fraction of the last solution at which the next solve starts.
    #[must_use]
    pub fn with_warm_start(mut self, fraction: f32) -> Self {
        self.warm_start = fraction;
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
        self.cg.validate()?;
        self.damping.validate()?;
        if self.curvature == Curvature::None {
            return bad(
                "curvature",
                "Newton-CG needs a matrix: Hessian or GaussNewton".into(),
            );
        }
        if let Preconditioner::EmpiricalFisher { exponent } = self.preconditioner
            && !(0.0..=1.0).contains(&exponent)
        {
            return bad(
                "preconditioner exponent",
                format!("{exponent} is not in 0..=1"),
            );
        }
        if !(0.0..=1.0).contains(&self.warm_start) {
            return bad("warm_start", format!("{} is not in 0..=1", self.warm_start));
        }
        if !(self.shrink > 0.0 && self.shrink < 1.0 && self.armijo > 0.0 && self.armijo < 1.0) {
            return bad(
                "line search",
                format!(
                    "shrink {} and armijo {} must be in 0..1",
                    self.shrink, self.armijo
                ),
            );
        }
        if self.max_line_search == 0 || self.max_line_search > 1000 {
            return bad(
                "max_line_search",
                format!("{} is not in 1..=1000", self.max_line_search),
            );
        }
        if !RADII.contains(&self.radius) {
            return bad("radius", format!("{} is not in 1e-12..=1e12", self.radius));
        }
        Ok(())
    }
}

/// Iterations after which the iterate is kept for backtracking: `ceil(1.3^j) - 1` (Martens 2010, section 4.6).
fn kept_iterations(max_iterations: usize) -> Vec<usize> {
    let mut kept = Vec::new();
    let mut power = 1.0f64;
    while power <= max_iterations as f64 + 1.0 {
        power *= 1.3;
        let after = power.ceil() as usize - 1;
        if after >= 1 && after <= max_iterations && kept.last() != Some(&after) {
            kept.push(after);
        }
    }
    kept
}

/// Buffers and recordings for one quadratic.
struct Workspace {
    quadratic: Arc<Quadratic>,
    theta: Vector,
    cg: ConjugateGradients,
    candidates: Candidates,
    /// What a solve depends on: the linearization and the preconditioner.
    before: Recording,
    /// Puts `warm_start` times the last solution into the first iterate.
    recall: Recording,
    /// Saves the solution for the next warm start.
    remember: Recording,
}

/// Vectors that outlive a quadratic.
struct Memory {
    previous: Vector,
    trial: Vector,
    /// `[damping, exponent]` of the preconditioner.
    settings: Slice,
    /// `[warm_start, 0]`
    recall: Slice,
}

/// Newton's method with conjugate gradients on curvature products.
///
/// With the Gauss-Newton matrix a step solves `(G + damping I) d = -g`, goes back over kept iterates while an earlier one has a lower loss, searches
/// along the result until Armijo's condition holds, and adapts the damping by the reduction ratio against the undamped model.
/// With the Hessian it is Steihaug's trust-region method: directions of negative curvature are followed to the boundary.
pub struct NewtonCg {
    options: NewtonCgOptions,
    damping: f64,
    radius: f64,
    has_previous: bool,
    memory: Option<Memory>,
    workspaces: Vec<Workspace>,
}

impl NewtonCg {
    /// With these options.
    ///
    /// # Errors
    /// [`Error::Option`] naming the option and its range.
    pub fn new(options: NewtonCgOptions) -> Result<Self> {
        options.validate()?;
        let (damping, radius) = (options.damping.initial, options.radius);
        Ok(Self {
            options,
            damping,
            radius,
            has_previous: false,
            memory: None,
            workspaces: Vec::new(),
        })
    }

    /// The damping of the next step.
    pub fn damping(&self) -> f64 {
        self.damping
    }

    fn ready<O: Objective + ?Sized>(&mut self, objective: &O) -> Result<()> {
        if self.memory.is_none() {
            let (gpu, layout) = (objective.gpu(), objective.layout());
            self.memory = Some(Memory {
                previous: Vector::new(gpu, "last solution", layout)?,
                trial: Vector::new(gpu, "trial point", layout)?,
                settings: gpu.buffer("preconditioner settings", 2)?,
                recall: gpu.buffer("warm start factor", 2)?,
            });
        }
        Ok(())
    }

    fn workspace<O: Objective + ?Sized>(
        &mut self,
        objective: &mut O,
        theta: &Vector,
        quadratic: &Arc<Quadratic>,
    ) -> Result<usize> {
        let known = |w: &Workspace| Arc::ptr_eq(&w.quadratic, quadratic) && w.theta.is_same(theta);
        if let Some(at) = self.workspaces.iter().position(known) {
            return Ok(at);
        }
        self.ready(objective)?;
        let Some(memory) = &self.memory else {
            return Err(missing("memory"));
        };
        let loss = objective.loss_at(&memory.trial, quadratic)?;
        let gpu = objective.gpu();
        let mut before = quadratic.linearize.clone();
        let mut inverse = None;
        if let Some(diagonal) = &quadratic.fisher_diagonal {
            let vector = Vector::new(gpu, "preconditioner", objective.layout())?;
            preconditioner(
                gpu,
                &mut before,
                vector.slice(),
                diagonal.slice(),
                &memory.settings,
            )?;
            inverse = Some(vector);
        }
        let kept = if self.options.backtracking && self.options.curvature == Curvature::GaussNewton
        {
            kept_iterations(self.options.cg.max_iterations)
        } else {
            Vec::new()
        };
        let operator = Operator::from(quadratic.as_ref());
        let cg = ConjugateGradients::new(
            gpu,
            &operator,
            &quadratic.gradient,
            inverse.as_ref(),
            &self.options.cg,
            &kept,
        )?;
        let mut recall = Recording::new();
        let (solution, previous) = (cg.solution.slice(), memory.previous.slice());
        combine(
            gpu,
            &mut recall,
            solution,
            previous,
            previous,
            (&memory.recall, 0),
        )?;
        let mut remember = Recording::new();
        remember.copy(solution, previous)?;
        let candidates = Candidates::new(gpu, theta, &memory.trial, quadratic, loss)?;
        self.workspaces.push(Workspace {
            quadratic: Arc::clone(quadratic),
            theta: theta.clone(),
            cg,
            candidates,
            before,
            recall,
            remember,
        });
        Ok(self.workspaces.len() - 1)
    }

    /// Solves for the direction, and computes the losses at the candidates that are likely to be wanted.
    fn solve(&mut self, gpu: &Gpu, at: usize) -> Result<(CgReport, Known)> {
        let (workspace, Some(memory)) = (&mut self.workspaces[at], &self.memory) else {
            return Err(missing("memory"));
        };
        let trust_region = self.options.curvature == Curvature::Hessian;
        let damping = if trust_region {
            0.0
        } else {
            self.damping as f32
        };
        if let Preconditioner::EmpiricalFisher { exponent } = self.options.preconditioner {
            // A damping of zero must not divide by zero where no example has a gradient.
            gpu.upload(&memory.settings, 0, &[damping.max(1e-10), exponent])?;
        }
        let warm = !trust_region && self.has_previous && self.options.warm_start > 0.0;
        if warm {
            gpu.upload(&memory.recall, 0, &[self.options.warm_start, 0.0])?;
        }
        let system = System {
            shift: damping,
            radius: trust_region.then_some(self.radius as f32),
            warm,
        };
        let Workspace {
            cg,
            candidates,
            before,
            recall,
            ..
        } = workspace;
        let mut ends = Ends {
            gpu,
            cg,
            candidates,
            places: Vec::new(),
        };
        let before = |recorder: &mut Recorder<'_>| {
            if warm {
                recorder.replay(recall);
            }
            recorder.replay(before);
        };
        let (report, read) = cg.solve_and(system, before, &mut ends)?;
        let places = ends.places;
        let (base, candidates) = candidates.results(&read)?;
        let known = Known {
            base,
            candidates: places.into_iter().zip(candidates).collect(),
        };
        Ok((report, known))
    }
}

/// The last iterates of a solve, whose losses are computed in its last submission.
struct Ends<'a> {
    gpu: &'a Gpu,
    cg: &'a ConjugateGradients,
    candidates: &'a mut Candidates,
    /// Iterations that the candidates come from; none for the last.
    places: Vec<Option<usize>>,
}

/// The last iterate and two before it usually settle how far to go back.
const ENDS: usize = 3;

impl Afterword for Ends<'_> {
    fn prepare(&mut self, end: usize) -> Result<()> {
        let mut list = vec![(None, &self.cg.solution)];
        list.extend(self.cg.kept_before(end).rev().map(|(i, v)| (Some(i), v)));
        list.truncate(ENDS);
        self.places = list.iter().map(|(from, _)| *from).collect();
        let vectors: Vec<(&Vector, f64)> = list.iter().map(|(_, v)| (*v, 1.0)).collect();
        self.candidates.prepare(self.gpu, &vectors)
    }

    fn record(&self, recorder: &mut Recorder<'_>) {
        self.candidates.record(recorder);
    }

    fn reads(&self) -> Vec<&Slice> {
        self.candidates.reads().to_vec()
    }
}

/// What the solve's readback tells of the loss.
struct Known {
    /// The loss before the step.
    base: f64,
    /// Candidates, with the iteration that they come from; none for the last. Those from after the end of the solve equal the last.
    candidates: Vec<(Option<usize>, Candidate)>,
}

/// A step that was chosen: direction, factor, and what is known of them.
struct Choice {
    vector: Vector,
    /// Iteration it comes from, if not the last.
    from: Option<usize>,
    /// Value of the damped model there.
    model: f64,
    factor: f64,
    at: Candidate,
}

impl Workspace {
    /// Goes back over kept iterates while the loss falls. Returns the choice and the number of losses computed beyond those known.
    fn backtrack(
        &mut self,
        gpu: &Gpu,
        report: &CgReport,
        known: &Known,
    ) -> Result<(Choice, usize)> {
        let model = |iteration: usize| report.model.get(iteration).map_or(0.0, |&m| f64::from(m));
        let mut list = vec![(self.cg.solution.clone(), None, model(report.iterations))];
        list.extend(
            self.cg
                .kept(report)
                .rev()
                .map(|(after, v)| (v.clone(), Some(after), model(after))),
        );
        let mut losses = 0;
        let mut fresh: Vec<Candidate> = Vec::new();
        let mut best: Option<Choice> = None;
        for (position, (vector, from, model)) in list.iter().enumerate() {
            let at = match known.candidates.iter().find(|(place, _)| place == from) {
                Some((_, at)) => *at,
                None => {
                    if fresh.is_empty() {
                        let more = &list[position..list.len().min(position + ENDS)];
                        let vectors: Vec<(&Vector, f64)> =
                            more.iter().map(|(v, _, _)| (v, 1.0)).collect();
                        fresh = self.candidates.evaluate(gpu, &vectors)?;
                        fresh.reverse();
                        losses += more.len();
                    }
                    fresh.pop().ok_or_else(|| missing("candidate"))?
                }
            };
            if best.as_ref().is_some_and(|best| at.loss >= best.at.loss) {
                break;
            }
            best = Some(Choice {
                vector: vector.clone(),
                from: *from,
                model: *model,
                factor: 1.0,
                at,
            });
        }
        best.map(|b| (b, losses))
            .ok_or_else(|| missing("candidate"))
    }

    /// Shortens the step until Armijo's condition holds; `None` if it never does. Also the number of losses computed.
    fn line_search(
        &mut self,
        gpu: &Gpu,
        base: f64,
        mut choice: Choice,
        options: &NewtonCgOptions,
    ) -> Result<(Option<Choice>, usize)> {
        let enough =
            |factor: f64, at: &Candidate| at.loss <= base + options.armijo * factor * at.slope;
        if enough(1.0, &choice.at) {
            return Ok((Some(choice), 0));
        }
        let factors: Vec<f64> = (1..options.max_line_search as i32)
            .map(|k| options.shrink.powi(k))
            .collect();
        let mut losses = 0;
        for chunk in factors.chunks(AT_ONCE) {
            let candidates: Vec<(&Vector, f64)> = chunk
                .iter()
                .map(|&factor| (&choice.vector, factor))
                .collect();
            let known = self.candidates.evaluate(gpu, &candidates)?;
            losses += chunk.len();
            if let Some((&factor, at)) = chunk
                .iter()
                .zip(known)
                .find(|(factor, at)| enough(**factor, at))
            {
                choice.factor = factor;
                choice.at = at;
                return Ok((Some(choice), losses));
            }
        }
        Ok((None, losses))
    }
}

impl<O: Objective + ?Sized> Optimizer<O> for NewtonCg {
    fn name(&self) -> &'static str {
        "newton-cg"
    }

    fn step(&mut self, objective: &mut O, theta: &Vector, batch: &O::Batch) -> Result<StepReport> {
        let start = Instant::now();
        let fisher_diagonal = self.options.preconditioner != Preconditioner::None;
        let request = QuadraticRequest {
            curvature: self.options.curvature,
            fisher_diagonal,
            ..QuadraticRequest::default()
        };
        let quadratic = objective.quadratic(theta, batch, request)?;
        let at = self.workspace(objective, theta, &quadratic)?;
        let gpu = objective.gpu().clone();
        let (readbacks, looks) = (gpu.readbacks(), gpu.looks());
        let (cg, known) = self.solve(&gpu, at)?;
        let workspace = &mut self.workspaces[at];
        let base = known.base;
        if !base.is_finite() || cg.stop == Stop::NotFinite {
            self.has_previous = false;
            return Err(Error::NotFinite {
                what: if base.is_finite() {
                    "the Newton direction".into()
                } else {
                    "the loss".into()
                },
                advice: "Use a larger damping, or check the data.",
            });
        }
        let (choice, more) = workspace.backtrack(&gpu, &cg, &known)?;
        let mut losses = known.candidates.len() + more;
        let trust_region = self.options.curvature == Curvature::Hessian;
        let first = (choice.at, choice.model, choice.from);
        let (chosen, more) = if trust_region {
            (Some(choice), 0)
        } else {
            workspace.line_search(&gpu, base, choice, &self.options)?
        };
        losses += more;
        // q(a d) without damping: the damped model value gives d.(C + damping) d = 2 (model - g.d).
        let shift = if trust_region { 0.0 } else { self.damping };
        let promised = |at: &Candidate, model: f64, a: f64| {
            let curvature = 2.0 * (model - at.slope) - shift * at.square;
            a * at.slope + 0.5 * a * a * curvature
        };
        let rho = match &chosen {
            Some(c) => (c.at.loss - base) / promised(&c.at, c.model, c.factor),
            None => (first.0.loss - base) / promised(&first.0, first.1, 1.0),
        };
        // A trust-region step is taken when it achieves a tenth of what the model promised.
        let accepted = chosen.filter(|c| c.at.loss.is_finite() && (!trust_region || rho > 0.1));
        let mut report = StepReport {
            loss_before: base,
            loss_after: Some(accepted.as_ref().map_or(base, |c| c.at.loss)),
            gradient_norm: first.0.gradient_square.sqrt(),
            accepted: accepted.is_some(),
            rho: Some(rho),
            damping: (!trust_region).then_some(self.damping),
            radius: trust_region.then_some(self.radius),
            cg_iterations: Some(cg.iterations),
            cg_stop: Some(cg.stop),
            ..StepReport::default()
        };
        if let Some(choice) = &accepted {
            workspace
                .candidates
                .prepare_move(&gpu, &choice.vector, choice.factor)?;
            report.step_norm = choice.factor * choice.at.square.sqrt();
            report.step_length = Some(choice.factor);
            report.backtracked_to = choice.from;
        }
        gpu.submit(|recorder| {
            recorder.replay(&workspace.remember);
            if accepted.is_some() {
                workspace.candidates.record_move(recorder);
            }
        })?;
        // With no gradient there is no step, and nothing is learnt about the model.
        let stationary = first.0.square == 0.0 && cg.stop == Stop::Residual;
        if stationary {
            report.rho = None;
            report.accepted = false;
        } else if trust_region {
            if rho > 0.75 && matches!(cg.stop, Stop::Boundary | Stop::NegativeCurvature) {
                self.radius = (2.0 * self.radius).min(100.0 * self.options.radius);
            } else if rho.is_nan() || rho < 0.25 {
                self.radius *= 0.25;
            }
            self.radius = self.radius.clamp(*RADII.start(), *RADII.end());
        } else {
            let judged = if accepted.is_some() {
                rho
            } else {
                f64::NEG_INFINITY
            };
            self.damping = self.options.damping.next(self.damping, judged);
            self.has_previous = rho >= 0.0;
        }
        let per_batch = 1.0
            + f64::from(u8::from(fisher_diagonal))
            + 2.0 * cg.products as f64
            + losses as f64 / 3.0;
        report.work = per_batch * objective.examples(batch) as f64;
        report.readbacks = gpu.readbacks() - readbacks;
        report.looks = gpu.looks() - looks;
        report.seconds = start.elapsed().as_secs_f64();
        Ok(report)
    }

    fn state(&self, objective: &O) -> Result<OptimizerState> {
        let scalars = vec![
            ("damping".into(), self.damping),
            ("radius".into(), self.radius),
            (
                "has_previous".into(),
                f64::from(u8::from(self.has_previous)),
            ),
        ];
        let mut vectors = Vec::new();
        if let (true, Some(memory)) = (self.has_previous, &self.memory) {
            vectors.push(("previous".into(), memory.previous.read(objective.gpu())?));
        }
        Ok(OptimizerState { scalars, vectors })
    }

    fn restore(&mut self, objective: &O, state: &OptimizerState) -> Result<()> {
        let scalar = |name: &str| state.scalar(name).ok_or_else(|| missing(name));
        let (damping, radius, has_previous) = (
            scalar("damping")?,
            scalar("radius")?,
            scalar("has_previous")? > 0.0,
        );
        self.ready(objective)?;
        if let (true, Some(memory)) = (has_previous, &self.memory) {
            memory.previous.write(
                objective.gpu(),
                state
                    .vector("previous")
                    .ok_or_else(|| missing("previous"))?,
            )?;
        }
        (self.damping, self.radius, self.has_previous) = (damping, radius, has_previous);
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::kept_iterations;

    #[test]
    fn kept_iterations_follow_martens_grid() {
        assert_eq!(
            kept_iterations(30),
            vec![1, 2, 3, 4, 6, 8, 10, 13, 17, 23, 30]
        );
        assert_eq!(kept_iterations(1), vec![1]);
        assert!(kept_iterations(250).len() < 25);
    }
}
