//! SPRING: projected momentum in the space of samples.

use std::sync::Arc;

use nalgebra::{DMatrix, DVector};

use super::memory::{Memory, Workspace};
use super::options::SpringOptions;
use super::prior::{Beside, Known, Pull, solve};
use super::solve::{Damped, addition_flops, gram, joined, normal, not_positive, parted, wide};
use crate::error::Result;
use crate::gpu::{BoxFuture, Slice, replay_all};
use crate::objective::{SampleRequest, SampleSpace, Slot, Square};
use crate::optim::course::Course;
use crate::optim::engine::Clock;
use crate::optim::not_finite;
use crate::optim::optimizer::Optimizer;
use crate::optim::report::StepReport;
use crate::optim::saved::{self, OptimizerState, missing};
use crate::optim::state::Stateful;
use crate::optim::state_tensor::StateTensor;
use crate::optim::work::Work;
use crate::recent::Recent;
use crate::vector::Vector;

const STEPS: &str = "spring_steps";
const LAST: &str = "spring_solution";

/// SPRING (Goldshlager, Abrahamsen and Lin 2024), on root losses unless other rows are asked for: Gauss-Newton steps on mini-batches, of
/// which what the batch does not see is kept from the steps before.
///
/// With the rows `A` of a batch, one for each example, residuals `r` with `A^T r` the gradient, and the last solution `d'`:
///
/// ```text
/// d = mu d' + A^T (A A^T + lambda)^-1 (r - mu A d')        lambda = c tr(A A^T) / m
/// theta <- theta - s d
/// ```
///
/// The solution minimizes `|A d - r|^2 + lambda |d - mu d'|^2`. On root losses `r_n = sqrt(2 w_n l_n)` and `A` has its slopes: the system has
/// as many rows as the batch, whatever the number of outputs, and knows that the least loss is 0; losses must not be negative. Relative
/// damping, root losses and the constants were chosen for this crate and are not those of the paper. Steps of up to `3 (1 - mu)` are stable
/// where it was tried.
///
/// The Gram matrix is made layer by layer, `(x_n.x_m + 1) (d_n.d_m)` for a dense layer, and no row is formed: a step takes losses and
/// cotangents, that matrix, one product with the rows and one with their transpose, each a third of a gradient, and a Cholesky factorization
/// of order `m` on the host in f64: one readback of `m^2` numbers. Where there are fewer parameters than rows, the normal matrix of their
/// order is made instead, from rows that are formed. An `l2` term of the objective is part of the system, with rows of its own that are
/// never written.
///
/// Where a batch's numbers are not finite the step fails, and parameters and state keep their bits. A step is always taken; let the steps
/// shrink over the budget ([`Stateful::with_schedule`]) where a run has one.
///
/// ```
/// use osculant::objective::GraphObjective;
/// use osculant::optim::{Optimizer, Spring, SpringOptions};
/// # use osculant::{data::Batch, vector::Vector};
/// # fn step(objective: &mut GraphObjective, theta: &Vector, batch: &Batch) -> osculant::Result<()> {
/// let mut spring = Spring::new(SpringOptions::default())?;
/// let report = spring.step(objective, theta, batch)?;
/// println!("{} with damping {:?}", report.loss_before, report.damping);
/// # Ok(())
/// # }
/// ```
pub struct Spring {
    options: SpringOptions,
    steps: usize,
    course: Course,
    memory: Option<Memory>,
    workspaces: Recent<Workspace>,
}

impl std::fmt::Debug for Spring {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Spring")
            .field("options", &self.options)
            .field("steps", &self.steps)
            .finish_non_exhaustive()
    }
}

/// A solution as the host knows it.
struct Solved {
    way: Way,
    pull: Pull,
    /// `|g|^2`
    gradient_square: f64,
    /// `|d|^2`
    square: f64,
    flops: f64,
}

/// The numbers that make a solution: coefficients of rows, or all of it.
enum Way {
    Coefficients(DVector<f64>),
    Whole(DVector<f64>),
}

/// Numbers of a system that were read.
struct Read<'r> {
    residuals: Option<DVector<f64>>,
    matrix: &'r [f32],
    sums: [f64; 3],
    /// Images of the last solution and of what is beside it, or these themselves, and zeros for what there is none of.
    vectors: [DVector<f64>; 2],
}

impl Spring {
    /// With these options.
    ///
    /// # Errors
    /// [`Error::Option`](crate::Error::Option) naming the option and its range.
    pub fn new(options: SpringOptions) -> Result<Self> {
        options.validate()?;
        Ok(Self {
            options,
            steps: 0,
            course: Course::default(),
            memory: None,
            workspaces: Recent::default(),
        })
    }

    /// One step, of which the last thing that may fail is what moves the parameters.
    async fn step_in<O: SampleSpace + ?Sized>(
        &mut self,
        objective: &mut O,
        theta: &Vector,
        batch: &O::Batch,
    ) -> Result<StepReport> {
        let (gpu, options) = (objective.gpu().clone(), &self.options);
        let loaded = objective.load(Slot::default(), batch)?;
        let request = SampleRequest {
            kind: options.rows,
            ..SampleRequest::default()
        };
        let system = objective.sample_system(theta, &loaded, request)?;
        let memory = match self.memory.take() {
            Some(known) => known,
            None => Memory::new(&gpu, objective.layout())?,
        };
        let memory = &*self.memory.insert(memory);
        let beside = match (&system.gradient, system.l2 > 0.0) {
            (Some(_), _) => Beside::Gradient,
            (None, true) => Beside::Parameters,
            (None, false) => Beside::Nothing,
        };
        let has_last = options.momentum > 0.0;
        let known = |w: &Workspace| Arc::ptr_eq(&w.system, &system) && w.theta.is_same(theta);
        let bytes = system.cost.bytes;
        let workspace = self.workspaces.find_or(known, (theta.life(), bytes), || {
            memory.record(&gpu, theta, &system, (beside, has_last))
        })?;
        system.seed(&gpu, options.seed, self.steps as u32)?;

        // On the side of the parameters the host has all vectors, else their images.
        let whole = system.square == Square::Normal;
        let mut reads: Vec<&Slice> = vec![&system.value, &memory.sums, &system.matrix];
        reads.extend(&system.residuals);
        let at = reads.len();
        if whole {
            reads.extend(memory.last.parts());
            match beside {
                Beside::Nothing => {}
                Beside::Parameters => reads.extend(theta.parts()),
                Beside::Gradient => reads.extend(system.gradient.iter().flat_map(Vector::parts)),
            }
        } else {
            reads.extend(&workspace.images);
        }
        let read = gpu.run_and_read_async([&workspace.begin], &reads).await?;
        let loss = f64::from(read[0][0]);
        if !loss.is_finite() {
            return Err(not_finite::loss());
        }
        let vectors = match whole {
            false => [0, 1].map(|i: usize| wide(&read[at + i])),
            true => {
                let tensors = theta.parts().len();
                let beside = &read[at + tensors..];
                let none = DVector::zeros(theta.layout().parameters());
                let last = joined(&read[at..at + tensors]);
                [
                    last,
                    if beside.is_empty() {
                        none
                    } else {
                        joined(beside)
                    },
                ]
            }
        };
        let sums = [0, 1, 2].map(|i: usize| f64::from(read[1][i]));
        let numbers = Read {
            residuals: system.residuals.as_ref().map(|_| wide(&read[3])),
            matrix: &read[2],
            sums,
            vectors,
        };
        let pull = Pull {
            damping: options.damping,
            l2: f64::from(system.l2),
            momentum: options.momentum,
            beside,
        };
        let solved = match whole {
            true => by_parameters(&numbers, system.count, pull)?,
            false => by_samples(&numbers, system.count, pull)?,
        };
        if !solved.gradient_square.is_finite() {
            return Err(not_finite::gradient());
        }
        let norm = solved.square.sqrt();
        let length = options.step_length * self.course.factor();
        let length = match length * norm > options.longest {
            true => options.longest / norm,
            false => length,
        };
        if !(length * norm).is_finite() || norm > f64::from(f32::MAX) {
            return Err(not_finite::out_of_scale("the step"));
        }
        let mut work = Work::default();
        work.gradient(&system.cost, &loaded);
        work.vectors(solved.flops);
        memory.prepare(&gpu, solved.pull.start(), length)?;
        match &solved.way {
            Way::Coefficients(u) => {
                let images = usize::from(has_last) + usize::from(beside != Beside::Nothing);
                work.rows(images, system.cost.product, &loaded);
                work.rows(1, system.combine_flops, &loaded);
                let u: Vec<f32> = u.iter().map(|&x| x as f32).collect();
                gpu.upload(&system.coefficients, 0, &u)?;
            }
            Way::Whole(d) => {
                let lengths = memory.next.layout().entries();
                let lengths = lengths.iter().map(|entry| entry.elements());
                memory.next.write_async(&gpu, &parted(d, lengths)).await?;
            }
        }
        let average = self.course.prepare(&gpu, theta)?;
        let left = gpu.until_last_call(&[(&workspace.solve).into()]).await?;
        gpu.submit(|recorder| {
            if !whole {
                replay_all(recorder, &left);
            }
            recorder.replay(&workspace.take);
            if let Some(average) = &average {
                recorder.replay(average);
            }
        })?;
        self.steps += 1;
        self.course.advance(true);
        Ok(work.in_report(StepReport {
            loss_before: loss,
            gradient_norm: solved.gradient_square.sqrt(),
            step_norm: length * norm,
            accepted: true,
            step_length: Some(length),
            damping: Some(solved.pull.damping),
            ..StepReport::default()
        }))
    }
}

/// The damping of a square of this trace: a part of its mean over the rows, and where there is nothing to damp just any.
fn relative(damping: f64, trace: f64, count: usize) -> f64 {
    match trace > 0.0 {
        true => damping * trace / count as f64,
        false => 1.0,
    }
}

/// With the Gram matrix of `m` rows.
fn by_samples(read: &Read<'_>, m: usize, mut pull: Pull) -> Result<Solved> {
    let gram: DMatrix<f64> = gram(read.matrix, m)?;
    pull.damping = relative(pull.damping, gram.trace(), m);
    let zeros = DVector::zeros(m);
    let residuals = read.residuals.as_ref().unwrap_or(&zeros);
    let [_, beside] = &read.vectors;
    let of_rows = residuals.dot(&(&gram * residuals));
    let gradient_square = match pull.beside {
        Beside::Nothing => of_rows,
        Beside::Parameters => {
            let l2 = pull.l2;
            of_rows + 2.0 * l2 * residuals.dot(beside) + l2 * l2 * read.sums[2]
        }
        Beside::Gradient => read.sums[2],
    };
    let known = Known {
        products: read.sums,
        images: read.vectors.clone(),
    };
    let solution = solve(&gram, residuals, &known, &pull)?;
    Ok(Solved {
        way: Way::Coefficients(solution.coefficients),
        pull,
        gradient_square,
        square: solution.square,
        flops: Damped::flops(m),
    })
}

/// With the normal matrix of all parameters.
fn by_parameters(read: &Read<'_>, m: usize, mut pull: Pull) -> Result<Solved> {
    let [last, beside] = &read.vectors;
    let p = last.len();
    let of = normal(read.matrix, p, read.residuals.is_some())?;
    pull.damping = relative(pull.damping, of.matrix.trace(), m);
    let gradient = match (of.right, pull.beside) {
        (_, Beside::Gradient) => beside.clone(),
        (Some((right, _)), _) => right + beside * pull.l2,
        (None, _) => return Err(missing("residuals")),
    };
    let total = pull.total();
    let damped = Damped::new(&of.matrix, |_| total).ok_or_else(not_positive)?;
    let d = damped.solve(&(&gradient + last * (pull.damping * pull.momentum)));
    Ok(Solved {
        pull,
        gradient_square: gradient.norm_squared(),
        square: d.norm_squared(),
        flops: Damped::flops(p) + addition_flops(m, p),
        way: Way::Whole(d),
    })
}

impl Stateful for Spring {
    fn course(&self) -> &Course {
        &self.course
    }

    fn course_mut(&mut self) -> &mut Course {
        &mut self.course
    }

    fn scalars(&self) -> Vec<(String, f64)> {
        vec![(STEPS.into(), self.steps as f64)]
    }

    fn tensors(&self) -> Vec<StateTensor> {
        let memory = self.memory.as_ref().filter(|_| self.steps > 0);
        let tensor = |memory: &Memory| StateTensor::vector(LAST, &memory.last);
        memory.map(tensor).into_iter().collect()
    }
}

impl<O: SampleSpace + ?Sized> Optimizer<O> for Spring {
    fn name(&self) -> &'static str {
        "spring"
    }

    fn attempt<'a>(
        &'a mut self,
        objective: &'a mut O,
        theta: &'a Vector,
        batch: &'a O::Batch,
    ) -> BoxFuture<'a, Result<StepReport>> {
        Box::pin(async move {
            let gpu = objective.gpu().clone();
            let clock = Clock::start(&gpu);
            let report = self.step_in(objective, theta, batch).await?;
            Ok(clock.stop(&gpu, report))
        })
    }

    fn restore_async<'a>(
        &'a mut self,
        objective: &O,
        state: &'a OptimizerState,
    ) -> BoxFuture<'a, Result<()>> {
        let (gpu, layout) = (objective.gpu().clone(), Arc::clone(objective.layout()));
        Box::pin(async move {
            saved::only(state, &[STEPS], &[LAST])?;
            let steps = saved::count(state, STEPS)?;
            let memory = Memory::new(&gpu, &layout)?;
            if steps > 0 {
                StateTensor::vector(LAST, &memory.last)
                    .restore(&gpu, state)
                    .await?;
            }
            let course = self.course.restored(&gpu, &layout, state).await?;
            (self.steps, self.course, self.memory) = (steps, course, Some(memory));
            self.workspaces = Recent::default();
            Ok(())
        })
    }
}
