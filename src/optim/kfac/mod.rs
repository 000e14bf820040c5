//! Steps with the inverses of Kronecker factors.

mod memory;
mod options;

use std::sync::Arc;

use memory::{Memory, Workspace};
pub use options::{Approximation, KfacOptions};

use super::course::Course;
use super::engine::Clock;
use super::first_order::{Moments, remembered};
use super::optimizer::Optimizer;
use super::report::StepReport;
use super::saved::{self, OptimizerState};
use super::state::Stateful;
use super::state_tensor::StateTensor;
use super::work::Work;
use crate::error::{Error, Result};
use crate::gpu::{BoxFuture, Commands, Gpu, Slice};
use crate::kernels::vector::FirstOrderMethod;
use crate::linalg::{FactorDamping, Function};
use crate::objective::{Layered, Slot};
use crate::recent::Recent;
use crate::vector::Vector;

/// Names of the numbers that a state must have, and of its vectors.
const SCALARS: [&str; 6] = [
    "kfac_steps",
    "kfac_rows",
    "kfac_refreshes",
    "kfac_refreshed_at",
    "kfac_slope",
    "kfac_curvature",
];
const FACTORS: &str = "kfac_factors";
const INVERSES: &str = "kfac_inverses";

/// A batch counts in the averages of slopes and curvatures as one of so many times the average slope, if it has more.
const MOST: f64 = 10.0;

/// What K-FAC remembers beside its vectors.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
struct Counts {
    steps: u64,
    /// Of the first batch, from which the forms of the factors follow.
    rows: u64,
    /// Batches in the averages of factors, slope and curvature.
    refreshes: u64,
    /// The step of the last one.
    refreshed_at: u64,
    slope: f64,
    curvature: f64,
}

/// K-FAC (Martens and Grosse 2015) with a step that measures itself: natural gradient with a Kronecker product for each layer.
///
/// For each layer with gradient `G`, inputs `a_n` (a 1 appended for the bias) and cotangents `b_n` of a random mixture of the columns of a
/// root of the output Hessian:
///
/// ```text
/// A <- average of sum_n w_n a_n a_n^T            B <- average of sum_n w_n b_n b_n^T
/// D  = (A + sqrt(c) tr(A)/dim A)^-1 G (B + sqrt(c) tr(B)/dim B)^-1
/// m <- momentum m + D min(stretch, sqrt(average(g.D) / g.D))
/// theta <- theta - s average(g.D) / average(D.C D) m
/// ```
///
/// with the Gauss-Newton matrix `C`: the length is `s` times that of the minimum along `D`, so there is no learning rate, and the unit of
/// the loss does not matter. Averages are exponential over steps, without the bias of a beginning; a batch whose slope is more than ten times
/// the average counts as ten. Let the steps shrink over the budget
/// ([`Stateful::with_schedule`]) where a run has one: their length is right for the curvature, and does not know the noise.
///
/// A step takes a gradient and two thin products for each layer. At a refresh, of which there are many at first and one in
/// [`interval`](KfacOptions::interval) steps later, it takes factors (a backward pass without the weights' gradients, and a product for each
/// factor), a tangent of the outputs (half of a curvature product), and inverses, which the host computes in f64 from what the step reads
/// back anyway: they serve from the next step on, those of the first step at once. A step has one readback, the first one two.
///
/// A parameter whose gradient is no sum over the examples of products of two factors (a table of which rows are gathered, a weight in
/// several roles) has the diagonal of its curvature in the place of factors; [`diagonals`](crate::objective::KroneckerStructure::diagonals) says which.
///
/// Relative damping, signs instead of sampled labels, and the step length are as measured for this crate; they are not those of the paper,
/// which adapts damping and momentum by an exact quadratic. Where a batch's numbers are not finite the step fails, and parameters and state
/// keep their bits.
pub struct Kfac {
    options: KfacOptions,
    counts: Counts,
    course: Course,
    memory: Option<Memory>,
    workspaces: Recent<Workspace>,
}

impl std::fmt::Debug for Kfac {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Kfac")
            .field("options", &self.options)
            .field("counts", &self.counts)
            .finish_non_exhaustive()
    }
}

impl Kfac {
    /// With these options.
    ///
    /// # Errors
    /// [`Error::Option`] naming the option and its range.
    pub fn new(options: KfacOptions) -> Result<Self> {
        options.validate()?;
        Ok(Self {
            options,
            counts: Counts::default(),
            course: Course::default(),
            memory: None,
            workspaces: Recent::default(),
        })
    }

    /// One step, of which the last thing that may fail is what moves the parameters.
    async fn step_in<O: Layered + ?Sized>(
        &mut self,
        objective: &mut O,
        theta: &Vector,
        batch: &O::Batch,
    ) -> Result<StepReport> {
        let gpu = objective.gpu().clone();
        let loaded = objective.load(Slot::default(), batch)?;
        let (options, before) = (&self.options, self.counts);
        let first = before.refreshes == 0;
        let rows = if first {
            loaded.rows as u64
        } else {
            before.rows
        };
        let request = options.request(rows as usize);
        if first {
            // What a failed step left behind was made for its batch.
            self.memory = None;
        }
        let memory = match self.memory.take() {
            Some(known) => known,
            None => Memory::new(&gpu, objective.layout(), objective.structure(request)?)?,
        };
        let memory = &*self.memory.insert(memory);
        let program = objective.kronecker([theta, &memory.inverses], &loaded, request)?;
        let known = |w: &Workspace| Arc::ptr_eq(&w.program, &program) && w.theta.is_same(theta);
        let bytes = program.cost.bytes;
        let workspace = self.workspaces.find_or(known, (theta.life(), bytes), || {
            memory.record(&gpu, theta, &program)
        })?;

        let due = first || before.since() >= options.wait(before.steps);
        let (old, newest) = before.weights(options.memory);
        let mut after = before;
        let mut work = Work::default();
        work.gradient(&program.cost, &loaded);
        if due {
            memory.prepare(&gpu, (options.seed, before.refreshes), (old, newest))?;
            (after.refreshes, after.refreshed_at) = (before.refreshes + 1, before.steps);
            after.rows = rows;
            work.factors(program.refresh_flops, &loaded);
            work.tangent(&program.cost, &loaded);
            work.vectors(memory.structure.function_flops(&[Function::Inverse]));
        }
        if first {
            let run = [&workspace.linearize, &workspace.refresh];
            let slices: Vec<&Slice> = memory.next.parts().iter().collect();
            let factors = gpu.run_and_read_async(run, &slices).await?;
            self::invert(&gpu, memory, options, (&factors, None))?;
            work.gradient(&program.cost, &loaded);
        }
        let mut run: Vec<Commands<'_>> = Vec::new();
        if first {
            run.push((&memory.renew).into());
        }
        run.push((&workspace.linearize).into());
        let mut reads = vec![memory.moments.reads(), &memory.sums, &program.curvature];
        let renews = due && !first;
        if renews {
            run.push((&workspace.refresh).into());
            reads.extend(memory.next.parts());
            if memory.structure.is_corrected() {
                reads.extend(memory.inverses.parts());
            }
        }
        if due {
            run.push((&program.measure).into());
        }
        let read = gpu.run_and_read_async(run, &reads).await?;
        let sums = Moments::sums(&read[0]);
        let (loss, [slope, square]) = (
            f64::from(Moments::loss(&read[0])),
            [read[1][0], read[1][1]].map(f64::from),
        );
        if due {
            let share = before.share(slope);
            let curvature = f64::from(read[2][0]);
            after.slope = old * before.slope + newest * share * slope;
            after.curvature = old * before.curvature + newest * share * curvature;
        }
        let length = after.length(options.step_length * self.course.factor());
        // What the direction is divided by.
        let known = if first { &after } else { &before };
        let divisor = known.divisor(slope, options.stretch);
        let settings = [
            length as f32,
            options.momentum,
            0.0,
            0.0,
            divisor as f32,
            1.0,
            0.0,
            0.0,
        ];
        let fails = [
            ("the loss", !loss.is_finite()),
            ("the gradient", !square.is_finite()),
            (
                "the step",
                !length.is_finite() || !memory.moments.moves(&settings, sums),
            ),
        ];
        if let Some((what, _)) = fails.into_iter().find(|(_, fails)| *fails) {
            return Err(Error::NotFinite {
                what: what.into(),
                advice: "Use a smaller step_length, or check the data.",
            });
        }
        if renews {
            let (factors, in_use) = read[3..].split_at(memory.next.parts().len());
            let in_use = Some(in_use).filter(|tensors| !tensors.is_empty());
            self::invert(&gpu, memory, options, (factors, in_use))?;
        }
        memory.moments.upload(&gpu, &settings)?;
        let average = self.course.prepare(&gpu, theta)?;
        gpu.submit(|recorder| {
            recorder.replay(&workspace.take);
            if due {
                recorder.replay(&memory.keep);
            }
            if renews {
                recorder.replay(&memory.renew);
            }
            if let Some(average) = &average {
                recorder.replay(average);
            }
        })?;
        after.steps += 1;
        self.counts = after;
        self.course.advance(true);
        // |m'|^2 of m' = momentum m + D / divisor, from (D.m, D.D, m.m).
        let (momentum, [dm, dd, mm]) = (
            f64::from(options.momentum),
            [
                f64::from(sums[0]) / divisor,
                f64::from(sums[1]) / (divisor * divisor),
                f64::from(sums[2]),
            ],
        );
        let moved = (momentum * momentum * mm + 2.0 * momentum * dm + dd).max(0.0);
        Ok(work.in_report(StepReport {
            loss_before: loss,
            gradient_norm: square.sqrt(),
            step_norm: length * moved.sqrt(),
            accepted: true,
            step_length: Some(length),
            damping: Some(options.damping),
            ..StepReport::default()
        }))
    }
}

impl Counts {
    /// `factor` times the step from which the averaged quadratic has its minimum along the direction; none where nothing curves.
    fn length(&self, factor: f64) -> f64 {
        if self.curvature > 0.0 {
            factor * self.slope / self.curvature
        } else {
            0.0
        }
    }

    /// The part of a batch of this slope that joins the averages: what would be more than so many times the average counts as that.
    fn share(&self, slope: f64) -> f64 {
        let most = MOST * self.slope;
        match self.slope > 0.0 && slope > most {
            true => most / slope,
            false => 1.0,
        }
    }

    /// What a direction of this slope is divided by, so that with its square the slope becomes the average; at least `1 / stretch`.
    fn divisor(&self, slope: f64, stretch: f64) -> f64 {
        let whole = (slope / self.slope).sqrt();
        match whole.is_finite() {
            true => whole.max(stretch.recip()),
            false => 1.0,
        }
    }

    /// Steps since the last refresh.
    fn since(&self) -> u64 {
        self.steps.saturating_sub(self.refreshed_at)
    }

    /// The weights of an average and of the batch that joins it: exponential over steps, without the bias of a beginning. Had the averages
    /// begun at 0, their weights would add up to `1 - memory^(steps + 1)` by now.
    fn weights(&self, memory: f64) -> (f64, f64) {
        let power = |steps: u64| memory.powi(steps.clamp(1, 1 << 30) as i32);
        let newest = (1.0 - power(self.since())) / (1.0 - power(self.steps + 1));
        (1.0 - newest, newest)
    }

    fn numbers(&self) -> [f64; 6] {
        [
            self.steps as f64,
            self.rows as f64,
            self.refreshes as f64,
            self.refreshed_at as f64,
            self.slope,
            self.curvature,
        ]
    }

    fn restored(state: &OptimizerState) -> Result<Self> {
        let count = |name: &str| Ok::<_, Error>(saved::count(state, name)? as u64);
        let most = f64::MAX;
        Ok(Self {
            steps: count(SCALARS[0])?,
            rows: count(SCALARS[1])?,
            refreshes: count(SCALARS[2])?,
            refreshed_at: count(SCALARS[3])?,
            slope: saved::number(state, SCALARS[4], -most..=most)?,
            curvature: saved::number(state, SCALARS[5], -most..=most)?,
        })
    }
}

/// Inverts averages that were read, beside the inverses in use where eigenvalues are corrected, and uploads the inverses to where they are
/// not yet in use, with such eigenvalues in their basis.
fn invert(
    gpu: &Gpu,
    memory: &Memory,
    options: &KfacOptions,
    (factors, in_use): (&[Vec<f32>], Option<&[Vec<f32>]>),
) -> Result<()> {
    let damping = FactorDamping::Relative(options.damping);
    let structure = &memory.structure;
    let found = structure.functions_in(factors, in_use, damping, &[Function::Inverse])?;
    memory.coming.write(gpu, &found.tensors[0])?;
    for (at, values) in &found.eigenvalues {
        gpu.upload(&memory.next.parts()[*at], 0, values)?;
    }
    Ok(())
}

impl Stateful for Kfac {
    fn course(&self) -> &Course {
        &self.course
    }

    fn course_mut(&mut self) -> &mut Course {
        &mut self.course
    }

    fn scalars(&self) -> Vec<(String, f64)> {
        let numbers = self.counts.numbers();
        SCALARS
            .iter()
            .map(|name| (*name).to_owned())
            .zip(numbers)
            .collect()
    }

    fn tensors(&self) -> Vec<StateTensor> {
        let memory = self.memory.as_ref().filter(|_| self.counts.refreshes > 0);
        memory.map_or(Vec::new(), Memory::tensors)
    }
}

impl Memory {
    fn tensors(&self) -> Vec<StateTensor> {
        let mut tensors = self.moments.tensors();
        tensors.push(StateTensor::vector(FACTORS, &self.factors));
        tensors.push(StateTensor::vector(INVERSES, &self.inverses));
        tensors
    }
}

impl<O: Layered + ?Sized> Optimizer<O> for Kfac {
    fn name(&self) -> &'static str {
        "kfac"
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
        let vectors = [remembered(FirstOrderMethod::Sgd), &[FACTORS, INVERSES]].concat();
        let counts = saved::only(state, &SCALARS, &vectors).and_then(|()| Counts::restored(state));
        let rows = counts.as_ref().map_or(0, |counts| counts.rows as usize);
        let structure = objective.structure(self.options.request(rows));
        Box::pin(async move {
            let counts = counts?;
            let course = self.course.restored(&gpu, &layout, state).await?;
            let mut memory = None;
            if counts.refreshes > 0 {
                let known = Memory::new(&gpu, &layout, structure?)?;
                for tensor in known.tensors() {
                    tensor.restore(&gpu, state).await?;
                }
                memory = Some(known);
            }
            (self.counts, self.course, self.memory) = (counts, course, memory);
            self.workspaces = Recent::default();
            Ok(())
        })
    }
}
