//! What a solve needs for one quadratic, and how it runs.

use std::sync::Arc;

use super::approximation::Approximation;
use super::options::{NewtonCgOptions, Preconditioner};
use super::variables::Variables;
use crate::error::Result;
use crate::gpu::{Commands, Gpu, Recording, Slice, Work};
use crate::kernels::vector::{combine, preconditioner};
use crate::linalg::{Afterword, CgReport, ConjugateGradients, Operator, System};
use crate::objective::{Curvature, Curved, Kronecker, Objective, Quadratic};
use crate::optim::judge::{Candidate, Judge};
use crate::optim::saved::missing;
use crate::optim::work::flops;
use crate::vector::Vector;

/// The last iterate and two before it usually settle how far to go back.
pub(super) const ENDS: usize = 3;

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

/// A damping of zero must not divide by zero where no example has a gradient.
pub(super) const LEAST_DAMPING: f32 = 1e-10;

/// Vectors that outlive a quadratic.
pub(super) struct Memory {
    pub(super) previous: Vector,
    /// `[damping, exponent]` of the preconditioner.
    pub(super) settings: Slice,
    /// `[warm_start, 0]`
    pub(super) recall: Slice,
    pub(super) approximation: Option<Approximation>,
}

impl Memory {
    pub(super) fn new<O: Curved + ?Sized>(
        objective: &O,
        options: &NewtonCgOptions,
    ) -> Result<Self> {
        let (gpu, layout) = (objective.gpu(), objective.layout());
        Ok(Self {
            previous: Vector::new(gpu, "last solution", layout)?,
            settings: gpu.buffer("preconditioner settings", 2)?,
            recall: gpu.buffer("warm start factor", 2)?,
            approximation: Approximation::new(objective, options)?,
        })
    }
}

/// Buffers and recordings for one quadratic.
pub(super) struct Workspace {
    pub(super) quadratic: Arc<Quadratic>,
    pub(super) theta: Vector,
    pub(super) cg: ConjugateGradients,
    pub(super) judge: Judge,
    /// The variables in which conjugate gradients works, where those are not the parameters.
    pub(super) variables: Option<Variables>,
    /// The solution and the kept iterates, in parameter space.
    pub(super) iterates: Iterates,
    /// What a solve depends on: the linearization and the preconditioner.
    pub(super) before: Work,
    /// Puts `warm_start` times the last solution into the first iterate.
    pub(super) recall: Recording,
    /// Saves the solution for the next warm start.
    pub(super) remember: Arc<Recording>,
}

/// Iterates of a solve in parameter space.
pub(super) struct Iterates {
    pub(super) solution: Vector,
    /// With the numbers of their iterations, ascending.
    kept: Vec<(usize, Vector)>,
    /// Makes them from those of conjugate gradients.
    make: Recording,
}

impl Iterates {
    /// The kept iterates of a solve that ends after iteration `end`, the last one first.
    pub(super) fn before(&self, end: usize) -> impl Iterator<Item = (usize, &Vector)> {
        let kept = self.kept.iter().rev();
        kept.filter(move |(after, _)| *after < end)
            .map(|(after, vector)| (*after, vector))
    }
}

/// How a solve starts.
pub(super) struct Beginning {
    /// None with the trust region.
    pub(super) damping: Option<f64>,
    pub(super) radius: Option<f64>,
    /// Whether there is a last solution to start from.
    pub(super) warm: bool,
    /// The schedule's factor on the direction.
    pub(super) factor: f64,
}

/// What the solve's readback tells of the loss.
pub(super) struct Known {
    /// The loss before the step.
    pub(super) base: f64,
    /// Candidates, with the iteration that they come from; none for the last. Those from after the end of the solve equal the last.
    pub(super) candidates: Vec<(Option<usize>, Candidate)>,
}

impl Workspace {
    /// Bytes of the vectors of a workspace.
    pub(super) fn bytes(elements: usize, options: &NewtonCgOptions) -> u64 {
        // And the start, the preconditioner and trial points.
        ConjugateGradients::bytes(elements, iterations_to_keep(options).len(), false)
            + 16 * elements as u64
    }

    pub(super) fn new<O: Objective + ?Sized>(
        objective: &O,
        theta: &Vector,
        (quadratic, kronecker): (&Arc<Quadratic>, Option<&Arc<Kronecker>>),
        memory: &mut Memory,
        options: &NewtonCgOptions,
    ) -> Result<Self> {
        let gpu = objective.gpu();
        let losses = quadratic.losses.as_ref();
        let judge = Judge::new(gpu, [theta, &quadratic.gradient], losses)?;
        let mut before = quadratic.linearize.clone();
        let mut inverse = None;
        if let Some(diagonal) = &quadratic.fisher_diagonal {
            let vector = Vector::new(gpu, "preconditioner", objective.layout())?;
            preconditioner(
                gpu,
                before.tail(),
                vector.slice(),
                diagonal.slice(),
                &memory.settings,
            )?;
            inverse = Some(vector);
        }
        let mut operator = Operator::from(quadratic.as_ref());
        let mut gradient = quadratic.gradient.clone();
        let mut approximation = memory.approximation.as_mut();
        let variables = match &mut approximation {
            None => None,
            Some(approximation) => {
                let variables = Variables::new(gpu, quadratic, kronecker, approximation)?;
                operator = variables.operator().clone();
                let changed = (&quadratic.gradient, &variables.gradient);
                approximation.record(gpu, before.tail(), changed.0, changed.1)?;
                gradient = variables.gradient.clone();
                Some(variables)
            }
        };
        let cg = ConjugateGradients::new(
            gpu,
            &operator,
            &gradient,
            inverse.as_ref(),
            &options.cg,
            &iterations_to_keep(options),
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
        if let Some(approximation) = &mut approximation {
            let own = std::iter::once(&mut iterates.solution);
            for vector in own.chain(iterates.kept.iter_mut().map(|(_, v)| v)) {
                let step = Vector::new(gpu, "iterate in parameter space", vector.layout())?;
                approximation.record(gpu, &mut iterates.make, vector, &step)?;
                *vector = step;
            }
            let start = Vector::new(gpu, "start in parameter space", objective.layout())?;
            combine(gpu, &mut recall, start.slice(), previous, previous, factor)?;
            approximation.record_inverse(gpu, &mut recall, &start, &cg.solution)?;
        } else {
            let solution = cg.solution.slice();
            combine(gpu, &mut recall, solution, previous, previous, factor)?;
        }
        let mut remember = Recording::new();
        remember.copy(iterates.solution.slice(), previous)?;
        Ok(Self {
            quadratic: Arc::clone(quadratic),
            theta: theta.uncounted(),
            cg,
            judge,
            variables,
            iterates,
            before,
            recall,
            remember: Arc::new(remember),
        })
    }

    /// Solves for the direction, and has the candidates judged that are likely to be wanted.
    pub(super) async fn solve(
        &mut self,
        gpu: &Gpu,
        memory: &Memory,
        options: &NewtonCgOptions,
        begin: &Beginning,
    ) -> Result<(CgReport, Known)> {
        let damping = begin.damping.unwrap_or(0.0);
        if let Preconditioner::EmpiricalFisher { exponent } = options.preconditioner {
            let settings = [(damping as f32).max(LEAST_DAMPING), exponent];
            gpu.upload(&memory.settings, 0, &settings)?;
        }
        let warm = begin.warm && begin.radius.is_none() && options.warm_start > 0.0;
        if warm {
            gpu.upload(&memory.recall, 0, &[options.warm_start, 0.0])?;
        }
        let mut shift = damping as f32;
        if let (Some(variables), Some(approximation)) = (&self.variables, &memory.approximation) {
            approximation.set(gpu, damping)?;
            variables.set(gpu, damping)?;
            // It is in the operator.
            shift = 0.0;
        }
        let system = System {
            shift,
            radius: begin.radius.map(|radius| radius as f32),
            warm,
        };
        let Self {
            cg,
            judge,
            iterates,
            before,
            recall,
            ..
        } = self;
        judge.begin();
        let mut ends = Ends {
            gpu,
            iterates,
            judge,
            factor: begin.factor,
            places: Vec::new(),
        };
        let recall = warm.then_some((&*recall).into());
        let before: Vec<Commands<'_>> = recall.into_iter().chain([(&*before).into()]).collect();
        let (report, read) = cg.solve_and(system, &before, &mut ends).await?;
        let places = ends.places;
        let (base, candidates) = judge.results(&read)?;
        let known = Known {
            base,
            candidates: places.into_iter().zip(candidates).collect(),
        };
        Ok((report, known))
    }

    /// The losses of up to [`ENDS`] candidates.
    pub(super) async fn evaluate(
        &mut self,
        gpu: &Gpu,
        vectors: &[Vector],
        factor: f64,
    ) -> Result<Vec<Candidate>> {
        let vectors: Vec<(&Vector, f64)> = vectors.iter().map(|v| (v, factor)).collect();
        self.judge.evaluate(gpu, &vectors).await
    }

    /// Operations of a solve and of its iterates beside products with the curvature.
    pub(super) fn vector_work(
        &self,
        report: &CgReport,
        options: &NewtonCgOptions,
        elements: usize,
    ) -> f64 {
        let products = report.products;
        let mut work = flops::conjugate_gradients(products, elements);
        if let Preconditioner::EmpiricalFisher { .. } = options.preconditioner {
            work += flops::diagonal(products, elements);
        }
        if let Some(variables) = &self.variables {
            // The gradient, the solution and the iterates that are kept change variables, too.
            work += variables.flops(products, 2 + self.iterates.kept.len());
        }
        work
    }

    /// What is known at theta, where a solve could not even begin.
    pub(super) async fn at_theta(&mut self, gpu: &Gpu, memory: &Memory) -> Result<Candidate> {
        gpu.run_async([&self.quadratic.linearize]).await?;
        self.judge.begin();
        let still = self.judge.evaluate(gpu, &[(&memory.previous, 0.0)]).await?;
        still.first().copied().ok_or_else(|| missing("candidate"))
    }
}

fn iterations_to_keep(options: &NewtonCgOptions) -> Vec<usize> {
    if options.backtracking && options.curvature == Curvature::GaussNewton {
        kept_iterations(options.cg.max_iterations)
    } else {
        Vec::new()
    }
}

/// The last iterates of a solve, whose losses are computed in its last submission.
struct Ends<'a> {
    gpu: &'a Gpu,
    iterates: &'a Iterates,
    judge: &'a mut Judge,
    factor: f64,
    /// Iterations that the candidates come from; none for the last.
    places: Vec<Option<usize>>,
}

impl Afterword for Ends<'_> {
    fn prepare(&mut self, end: usize) -> Result<()> {
        let mut list = vec![(None, &self.iterates.solution)];
        list.extend(self.iterates.before(end).map(|(i, v)| (Some(i), v)));
        list.truncate(ENDS);
        self.places = list.iter().map(|(from, _)| *from).collect();
        let vectors: Vec<(&Vector, f64)> = list.iter().map(|(_, v)| (*v, self.factor)).collect();
        self.judge.prepare(self.gpu, &vectors)
    }

    fn commands(&self) -> Vec<Commands<'_>> {
        let make = Commands::from(&self.iterates.make);
        std::iter::once(make).chain(self.judge.commands()).collect()
    }

    fn reads(&self) -> Vec<&Slice> {
        self.judge.reads().to_vec()
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
