//! Newton-CG, also called Hessian-free optimization (Martens 2010; Martens and Sutskever 2012).

mod nystrom;
mod options;
mod trust_region;

use std::sync::Arc;
use std::time::Instant;

use nystrom::{NystromMemory, Variables};
use options::RADII;
pub use options::{NewtonCgOptions, Preconditioner};
use trust_region::{accepts, next_radius};

use super::candidates::{Candidate, Candidates};
use super::damping::LARGEST;
use super::first_order::missing;
use super::optimizer::{Optimizer, OptimizerState};
use super::report::StepReport;
use super::{not_finite, saved};
use crate::error::Result;
use crate::gpu::{Gpu, Recorder, Recording, Slice};
use crate::kernels::vector::{combine, preconditioner};
use crate::linalg::{Afterword, CgReport, ConjugateGradients, Operator, System};
use crate::objective::{Curvature, Objective, Quadratic, QuadraticRequest};
use crate::vector::Vector;

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
    /// The variables in which conjugate gradients works, where those are not the parameters.
    variables: Option<Variables>,
    /// The solution and the kept iterates, in parameter space.
    iterates: Iterates,
    /// What a solve depends on: the linearization and the preconditioner.
    before: Recording,
    /// Puts `warm_start` times the last solution into the first iterate.
    recall: Recording,
    /// Saves the solution for the next warm start.
    remember: Recording,
}

/// Iterates of a solve in parameter space.
struct Iterates {
    solution: Vector,
    /// With the numbers of their iterations, ascending.
    kept: Vec<(usize, Vector)>,
    /// Makes them from those of conjugate gradients.
    make: Recording,
}

impl Iterates {
    /// The kept iterates of a solve that ends after iteration `end`, the last one first.
    fn before(&self, end: usize) -> impl Iterator<Item = (usize, &Vector)> {
        let kept = self.kept.iter().rev();
        kept.filter(move |(after, _)| *after < end)
            .map(|(after, vector)| (*after, vector))
    }
}

/// Vectors that outlive a quadratic.
struct Memory {
    previous: Vector,
    trial: Vector,
    /// `[damping, exponent]` of the preconditioner.
    settings: Slice,
    /// `[warm_start, 0]`
    recall: Slice,
    nystrom: Option<NystromMemory>,
}

/// [`NewtonCg`] with the options of [`NewtonCgOptions::nystrom`]: Nystrom-preconditioned Newton-CG.
pub type NystromNewtonCg = NewtonCg;

/// Newton's method with conjugate gradients on curvature products.
///
/// With the Gauss-Newton matrix a step solves `(G + damping I) d = -g`, goes back over kept iterates while an earlier one has a lower loss, searches
/// along the result until Armijo's condition holds, and adapts the damping by the reduction ratio against the undamped model.
/// With [`Preconditioner::Nystrom`] it is Nystrom-preconditioned Newton-CG (NysNewton-CG, Rathore et al. 2024), with damping by the reduction ratio where
/// that has a fixed one: conjugate gradients then work in variables `y = P^(1/2) d`, and steps where an approximation is made have one more blocking
/// readback. With the Hessian it is Steihaug's trust-region method: directions of negative curvature are followed to the boundary.
pub struct NewtonCg {
    options: NewtonCgOptions,
    damping: f64,
    radius: f64,
    has_previous: bool,
    steps: usize,
    memory: Option<Memory>,
    workspaces: Vec<Workspace>,
}

impl NewtonCg {
    /// With these options.
    ///
    /// # Errors
    /// [`Error::Option`](crate::Error::Option) naming the option and its range.
    pub fn new(options: NewtonCgOptions) -> Result<Self> {
        options.validate()?;
        let (damping, radius) = (options.damping.initial, options.radius);
        Ok(Self {
            options,
            damping,
            radius,
            has_previous: false,
            steps: 0,
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
                nystrom: match self.options.preconditioner {
                    Preconditioner::Nystrom { rank, seed, .. } => {
                        Some(NystromMemory::new(gpu, layout, rank, seed)?)
                    }
                    _ => None,
                },
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
        let loss = objective.loss_at(&memory.trial, quadratic.rows)?;
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
        let mut operator = Operator::from(quadratic.as_ref());
        let mut gradient = quadratic.gradient.clone();
        let variables = match &memory.nystrom {
            None => None,
            Some(nystrom) => Some(Variables::new(gpu, quadratic, nystrom)?),
        };
        if let Some(variables) = &variables {
            operator = variables.operator().clone();
            gradient = variables.gradient.clone();
            variables.record_gradient(gpu, &mut before, &quadratic.gradient)?;
        }
        let cg = ConjugateGradients::new(
            gpu,
            &operator,
            &gradient,
            inverse.as_ref(),
            &self.options.cg,
            &kept,
        )?;
        let mut iterates = Iterates {
            solution: cg.solution.clone(),
            kept: cg
                .kept_before(usize::MAX)
                .map(|(after, vector)| (after, vector.clone()))
                .collect(),
            make: Recording::new(),
        };
        let mut recall = Recording::new();
        let previous = memory.previous.slice();
        let factor = (&memory.recall, 0);
        if let Some(variables) = &variables {
            let own = std::iter::once(&mut iterates.solution);
            for vector in own.chain(iterates.kept.iter_mut().map(|(_, v)| v)) {
                *vector = variables.record_step(gpu, &mut iterates.make, vector)?;
            }
            let start = Vector::new(gpu, "start in parameter space", objective.layout())?;
            combine(gpu, &mut recall, start.slice(), previous, previous, factor)?;
            variables.record_inverse(gpu, &mut recall, &start, &cg.solution)?;
        } else {
            let solution = cg.solution.slice();
            combine(gpu, &mut recall, solution, previous, previous, factor)?;
        }
        let mut remember = Recording::new();
        remember.copy(iterates.solution.slice(), previous)?;
        let candidates = Candidates::new(
            gpu,
            [theta, &memory.trial, &quadratic.gradient],
            &quadratic.value,
            loss,
        )?;
        self.workspaces.push(Workspace {
            quadratic: Arc::clone(quadratic),
            theta: theta.clone(),
            cg,
            candidates,
            variables,
            iterates,
            before,
            recall,
            remember,
        });
        Ok(self.workspaces.len() - 1)
    }

    /// Makes a Nystrom approximation where one is due. Returns the work, in gradients.
    fn approximate(&mut self, at: usize) -> Result<f64> {
        let Preconditioner::Nystrom { rank, refresh, .. } = self.options.preconditioner else {
            return Ok(0.0);
        };
        let (workspace, Some(memory)) = (&mut self.workspaces[at], &mut self.memory) else {
            return Err(missing("memory"));
        };
        let (Some(variables), Some(nystrom)) = (&mut workspace.variables, &mut memory.nystrom)
        else {
            return Err(missing("variables"));
        };
        if !self.steps.is_multiple_of(refresh) && !nystrom.values.is_empty() {
            return Ok(0.0);
        }
        variables.approximate(&workspace.quadratic.linearize, nystrom)?;
        Ok(1.0 + 2.0 * rank as f64)
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
        let mut shift = damping;
        if let (Some(variables), Some(nystrom)) = (&workspace.variables, &memory.nystrom) {
            variables.set(gpu, &nystrom.values, self.damping)?;
            // It is in the operator.
            shift = 0.0;
        }
        let system = System {
            shift,
            radius: trust_region.then_some(self.radius as f32),
            warm,
        };
        let Workspace {
            cg,
            candidates,
            iterates,
            before,
            recall,
            ..
        } = workspace;
        let mut ends = Ends {
            gpu,
            iterates,
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
    iterates: &'a Iterates,
    candidates: &'a mut Candidates,
    /// Iterations that the candidates come from; none for the last.
    places: Vec<Option<usize>>,
}

/// The last iterate and two before it usually settle how far to go back.
const ENDS: usize = 3;

impl Afterword for Ends<'_> {
    fn prepare(&mut self, end: usize) -> Result<()> {
        let mut list = vec![(None, &self.iterates.solution)];
        list.extend(self.iterates.before(end).map(|(i, v)| (Some(i), v)));
        list.truncate(ENDS);
        self.places = list.iter().map(|(from, _)| *from).collect();
        let vectors: Vec<(&Vector, f64)> = list.iter().map(|(_, v)| (*v, 1.0)).collect();
        self.candidates.prepare(self.gpu, &vectors)
    }

    fn record(&self, recorder: &mut Recorder<'_>) {
        recorder.replay(&self.iterates.make);
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
                        let vectors: Vec<(&Vector, f64)> =
                            more.iter().map(|(v, _, _)| (v, 1.0)).collect();
                        fresh = self.candidates.evaluate(gpu, &vectors)?;
                        fresh.reverse();
                        losses += more.len();
                    }
                    fresh.pop().ok_or_else(|| missing("candidate"))?
                }
            };
            // Where iterates overflowed, an earlier one may be finite.
            let settled = |best: &Choice| best.at.loss.is_finite() && at.loss >= best.at.loss;
            if best.as_ref().is_some_and(settled) {
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
        let (found, losses) =
            self.candidates
                .search(gpu, base, (&choice.vector, choice.at), options.search())?;
        Ok(match found {
            None => (None, losses),
            Some((factor, at)) => {
                (choice.factor, choice.at) = (factor, at);
                (Some(choice), losses)
            }
        })
    }
}

impl<O: Objective + ?Sized> Optimizer<O> for NewtonCg {
    fn name(&self) -> &'static str {
        match self.options.preconditioner {
            Preconditioner::Nystrom { .. } => "nystrom-newton-cg",
            _ => "newton-cg",
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
        let preconditioner = self.options.preconditioner;
        let fisher_diagonal = matches!(preconditioner, Preconditioner::EmpiricalFisher { .. });
        let request = QuadraticRequest {
            curvature: self.options.curvature,
            fisher_diagonal,
            block: match preconditioner {
                Preconditioner::Nystrom { rank, .. } => rank,
                _ => 0,
            },
        };
        let quadratic = objective.quadratic(theta, batch, request)?;
        let at = self.workspace(objective, theta, &quadratic)?;
        let gpu = objective.gpu().clone();
        let (readbacks, looks) = (gpu.readbacks(), gpu.looks());
        let sketched = self.approximate(at)?;
        let (cg, known) = self.solve(&gpu, at)?;
        let workspace = &mut self.workspaces[at];
        let base = known.base;
        let failed = if base.is_finite() {
            not_finite::solve(&cg)
        } else {
            Some(not_finite::loss())
        };
        if let Some(error) = failed {
            self.has_previous = false;
            return Err(error);
        }
        // With no gradient there is no step, and nothing is learnt about the model.
        let stationary = cg.gradient_norm == 0.0;
        let (choice, more) = workspace.backtrack(&gpu, &cg, &known)?;
        let mut losses = known.candidates.len() + more;
        let trust_region = self.options.curvature == Curvature::Hessian;
        let first = (choice.at, choice.model, choice.from);
        let stays = stationary || (cg.iterations == 0 && first.0.square == 0.0);
        let (chosen, more) = if stays {
            (None, 0)
        } else if trust_region {
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
        let accepted = chosen.filter(|c| c.at.loss.is_finite() && (!trust_region || accepts(rho)));
        let mut report = StepReport {
            loss_before: base,
            loss_after: Some(accepted.as_ref().map_or(base, |c| c.at.loss)),
            gradient_norm: first.0.gradient_square.sqrt(),
            accepted: accepted.is_some(),
            rho: rho.is_finite().then_some(rho),
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
        self.steps += 1;
        if stationary {
            report.rho = None;
        } else if trust_region {
            self.radius = next_radius(self.radius, self.options.radius, rho, cg.stop);
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
            + losses as f64 / 3.0
            + sketched;
        report.work = per_batch * objective.examples(batch) as f64;
        report.readbacks = gpu.readbacks() - readbacks;
        report.looks = gpu.looks() - looks;
        report.seconds = start.elapsed().as_secs_f64();
        Ok(report)
    }

    fn state(&self, objective: &O) -> Result<OptimizerState> {
        let mut scalars = vec![
            ("steps".into(), self.steps as f64),
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
        if let Some(nystrom) = self.memory.as_ref().and_then(|m| m.nystrom.as_ref()) {
            nystrom.save(objective.gpu(), &mut scalars, &mut vectors)?;
        }
        Ok(OptimizerState { scalars, vectors })
    }

    fn restore(&mut self, objective: &O, state: &OptimizerState) -> Result<()> {
        let scalar = |name: &str| state.scalar(name).ok_or_else(|| missing(name));
        let (damping, radius, has_previous) = (
            saved::number(state, "damping", 0.0..=LARGEST)?,
            saved::number(state, "radius", RADII)?,
            scalar("has_previous")? > 0.0,
        );
        let steps = saved::count(state, "steps")?;
        self.ready(objective)?;
        if let Some(nystrom) = self.memory.as_mut().and_then(|m| m.nystrom.as_mut()) {
            nystrom.restore(objective.gpu(), state)?;
        }
        if let (true, Some(memory)) = (has_previous, &self.memory) {
            memory.previous.write(
                objective.gpu(),
                state
                    .vector("previous")
                    .ok_or_else(|| missing("previous"))?,
            )?;
        }
        (self.damping, self.radius, self.has_previous) = (damping, radius, has_previous);
        self.steps = steps;
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
