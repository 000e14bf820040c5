//! Gradient descent with step lengths that other examples measure.

use std::ops::Bound::{Excluded, Included};
use std::sync::Arc;

use super::course::Course;
use super::engine::Clock;
use super::optimizer::Optimizer;
use super::report::StepReport;
use super::saved::{self, OptimizerState, missing};
use super::state::Stateful;
use super::state_tensor::StateTensor;
use super::strategy::{Strategy, rows_of};
use super::work::Work;
use crate::data::Role;
use crate::error::{Error, Result};
use crate::gpu::{self, BoxFuture, Gpu, Recording, Slice};
use crate::kernels::vector::{combine, inner_products, partial_elements};
use crate::objective::{Curvature, Parts, Quadratic, QuadraticRequest, Slot, without_parts};
use crate::options::{options, require};
use crate::recent::Recent;
use crate::vector::Vector;

/// Name of the number that a state must have.
const STEPS: &str = "debiased_steps";

options! {
    /// Settings of [`DebiasedSgd`].
    pub struct DebiasedSgdOptions {
        /// Which examples make the direction, and which measure the step along it: [`Strategy::Decoupled`], or [`Strategy::CrossFit`] with
        /// two folds, which exchange their gradients.
        strategy(with_strategy): Strategy = Strategy::decoupled();
        /// Added to the curvature along the direction as `damping |g|^2`.
        damping(with_damping): f64 = 0.0, in 0.0..=1e12 => "0 to 1e12";
        /// Longest step length, of either sign.
        max_step_length(with_max_step_length): f64 = 10.0, in (Excluded(0.0), Included(1e6)) => "above 0, at most 1e6";
        /// Multiplies the step length after that. The best step now may not be the best one for later: curvature grows where steps are
        /// short, and falls where they are long.
        factor(with_factor): f64 = 1.0, in (Excluded(0.0), Included(100.0)) => "above 0, at most 100";
        /// Whether to go backwards where the slopes of the two parts disagree; no step otherwise.
        ///
        /// With the slope `s` on all data, and an error `e` of mean zero in the one that is measured, the step `(s + e) / k` changes the
        /// quadratic of all data by `(e^2 - s^2) / 2k`. Where the direction leads downhill on all data (`s > 0`, as it does in the mean), a
        /// negative step has `e < -s` and raises it. So no step is better in each such case, although step lengths are unbiased only with
        /// both signs. Where all data are near a minimum along the direction every step is noise, and half of that is left out.
        backwards(with_backwards): bool = false;
    } together Self::check_together
}

impl DebiasedSgdOptions {
    fn check_together(&self) -> Result<()> {
        self.strategy.validate()?;
        let possible = match self.strategy {
            Strategy::Single => false,
            Strategy::Decoupled { .. } => true,
            Strategy::CrossFit { folds, .. } => folds == 2,
        };
        require(
            possible,
            "strategy",
            "debiased steps are decoupled, or cross-fitted with two folds, each of which measures the step along the other's gradient",
        )
    }

    fn crosses(&self) -> bool {
        matches!(self.strategy, Strategy::CrossFit { .. })
    }

    /// The step length for a slope `g . g'`, a curvature `g . C' g` and a square `|g|^2`, before the factor.
    fn length(&self, slope: f64, curvature: f64, square: f64) -> f64 {
        let curvature = curvature + self.damping * square;
        if curvature <= 0.0 || (slope < 0.0 && !self.backwards) {
            return 0.0;
        }
        let most = self.max_step_length;
        (slope / curvature).clamp(-most, most)
    }
}

/// Results start at multiples of this many elements.
const STRIDE: usize = 64;

struct Memory {
    step: Vector,
    trial: Vector,
    /// Of both parts, [`STRIDE`] apart.
    losses: Slice,
    /// `(g.g', g.g, g'.g')`, then `(g.C'g, ..)`, then `(g'.Cg', ..)`.
    sums: Slice,
    partials: Slice,
    /// Of both gradients in the step, then of parameters and step.
    coefficients: Slice,
}

/// What is recorded for the quadratics of two parts.
struct Workspace {
    parts: [Arc<Quadratic>; 2],
    theta: Vector,
    measure: gpu::Work,
    take: Recording,
}

/// What the host reads.
struct Measured {
    losses: [f64; 2],
    /// `g.g'`
    slope: f64,
    /// `|g|^2` and `|g'|^2`
    squares: [f64; 2],
    /// `g.C'g` and `g'.Cg'`
    curvatures: [f64; 2],
}

/// Gradient descent with the step that other examples want, the smallest debiased second-order method:
///
/// ```text
/// theta <- theta - alpha g        alpha = factor (g . g') / (g . (C' + damping) g)
/// ```
///
/// with the gradient `g` of one part of the batch, and gradient `g'` and Gauss-Newton matrix `C'` of the other. On its own batch a gradient
/// has the slope `|g|^2`, which is larger than that on all data by the variance of `g`, however small the true slope is. `g . g'` and `g .
/// C' g` have the means of all data, whatever made `g`; their ratio is a little too long in the mean, since `1 / k` is convex.
///
/// This is the case of one direction of the debiased quadratics of Tatzel et al. 2025, a reconstruction: that paper's text and program were
/// not available. Where the curvature is not positive there is no step.
///
/// A step has one blocking readback. Its loss and gradient norm are those of all folds, as the mean of both parts; its step length is
/// `alpha`, in cross-fitting the mean of two. The loss after the step is not computed.
pub struct DebiasedSgd {
    options: DebiasedSgdOptions,
    steps: usize,
    course: Course,
    memory: Option<Memory>,
    workspaces: Recent<Workspace>,
}

impl DebiasedSgd {
    /// With these options.
    ///
    /// # Errors
    /// [`Error::Option`] naming the option and its range.
    pub fn new(options: DebiasedSgdOptions) -> Result<Self> {
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
    async fn step_in<O: Parts + ?Sized>(
        &mut self,
        objective: &mut O,
        theta: &Vector,
        batch: &O::Batch,
    ) -> Result<StepReport> {
        let gpu = objective.gpu().clone();
        if self.memory.is_none() {
            self.memory = Some(Memory::new(objective)?);
        }
        let memory = self.memory.as_ref().ok_or_else(|| missing("memory"))?;
        let options = &self.options;
        let (strategy, cross_fit) = (options.strategy, options.crosses());
        let rows = objective
            .rows(batch)
            .ok_or_else(|| without_parts("two folds"))?;
        let (size, _) = strategy.cut(0.0, rows)?;
        let mut part = |folds: &[usize], role: Role, curvature: Curvature| {
            let part = objective.part(batch, &rows_of(folds, size))?;
            let loaded = objective.load(Slot::new(role, 0), &part)?;
            let request = QuadraticRequest {
                curvature,
                ..QuadraticRequest::default()
            };
            objective.quadratic(theta, &loaded, request)
        };
        let back = if cross_fit {
            Curvature::GaussNewton
        } else {
            Curvature::None
        };
        let turns = strategy.turns();
        let parts = [
            part(&turns[0].directions, Role::Directions, back)?,
            part(&turns[0].steps, Role::Steps, Curvature::GaussNewton)?,
        ];
        let examples = parts.each_ref().map(|part| part.loaded.examples);
        let bytes = parts.iter().map(|part| part.cost.bytes).sum();
        let known = |w: &Workspace| {
            let same = w.parts.iter().zip(&parts).all(|(a, b)| Arc::ptr_eq(a, b));
            same && w.theta.is_same(theta)
        };
        let workspace = self.workspaces.find_or(known, (theta.life(), bytes), || {
            Ok::<_, Error>(Workspace {
                measure: memory.record(&gpu, &parts, cross_fit)?,
                take: memory.record_move(&gpu, theta, &parts)?,
                parts: parts.clone(),
                theta: theta.uncounted(),
            })
        })?;
        let reads = [&memory.losses, &memory.sums];
        let read = gpu.run_and_read_async([&workspace.measure], &reads).await?;
        let measured = Measured::new(&read, cross_fit)?;
        measured.check()?;
        let Measured {
            losses,
            slope,
            squares,
            curvatures,
        } = measured;
        let factor = options.factor * self.course.factor();
        let length = |side: usize| factor * options.length(slope, curvatures[side], squares[side]);
        let mut lengths = [length(0), 0.0];
        let mut work = Work::default();
        for part in &parts {
            work.gradient(&part.cost, &part.loaded);
        }
        work.products(1, &parts[1].cost, &parts[1].loaded);
        if cross_fit {
            lengths = [0.5 * length(0), 0.5 * length(1)];
            work.products(1, &parts[0].cost, &parts[0].loaded);
        }
        // |a g + b g'|
        let norm = |[a, b]: [f64; 2]| {
            let square = a * a * squares[0] + 2.0 * a * b * slope + b * b * squares[1];
            square.max(0.0).sqrt()
        };
        let step_norm = norm(lengths);
        let accepted = step_norm > 0.0;
        if accepted {
            let [one, two] = lengths.map(|length| -length as f32);
            gpu.upload(&memory.coefficients, 0, &[one, two, 1.0, 1.0])?;
            let average = self.course.prepare(&gpu, theta)?;
            gpu.submit(|recorder| {
                recorder.replay(&workspace.take);
                if let Some(average) = &average {
                    recorder.replay(average);
                }
            })?;
        }
        self.steps += 1;
        self.course.advance(accepted);
        let all = (examples[0] + examples[1]) as f64;
        let shares = examples.map(|count| count as f64 / all);
        Ok(work.in_report(StepReport {
            loss_before: shares[0] * losses[0] + shares[1] * losses[1],
            gradient_norm: norm(shares),
            step_norm,
            accepted,
            step_length: Some(lengths[0] + lengths[1]),
            damping: Some(self.options.damping),
            ..StepReport::default()
        }))
    }
}

impl Measured {
    fn new(read: &[Vec<f32>], cross_fit: bool) -> Result<Self> {
        let [losses, sums] = read else {
            return Err(missing("sums"));
        };
        let sum = |at: usize| f64::from(sums[at]);
        Ok(Self {
            losses: [f64::from(losses[0]), f64::from(losses[STRIDE])],
            slope: sum(0),
            squares: [sum(1), sum(2)],
            curvatures: [sum(3), if cross_fit { sum(6) } else { 0.0 }],
        })
    }

    fn check(&self) -> Result<()> {
        let finite = |numbers: &[f64]| numbers.iter().all(|x| x.is_finite());
        let what = if !finite(&self.losses) {
            "the loss"
        } else if !finite(&self.squares) || !self.slope.is_finite() {
            "the gradient"
        } else if !finite(&self.curvatures) {
            "the curvature along the gradient"
        } else {
            return Ok(());
        };
        Err(Error::NotFinite {
            what: what.into(),
            advice: "Use a smaller factor or longest step length, or check the data.",
        })
    }
}

impl Memory {
    fn new<O: Parts + ?Sized>(objective: &O) -> Result<Self> {
        let (gpu, layout) = (objective.gpu(), objective.layout());
        let new = |label: &str| Vector::new(gpu, label, layout);
        let step = new("step")?;
        Ok(Self {
            trial: new("trial point")?,
            losses: gpu.buffer("losses", 2 * STRIDE)?,
            sums: gpu.buffer("inner products", 9)?,
            partials: gpu.buffer("partial sums", partial_elements(step.slice()))?,
            coefficients: gpu.buffer("step lengths", 4)?,
            step,
        })
    }

    /// Records gradients of both parts, and what each sees along the other's.
    fn record(&self, gpu: &Gpu, parts: &[Arc<Quadratic>; 2], cross_fit: bool) -> Result<gpu::Work> {
        let mut run = gpu::Work::new();
        for (number, part) in parts.iter().enumerate() {
            let place = STRIDE * number;
            run.append(part.linearize.clone());
            run.tail()
                .copy(&part.value, &self.losses.slice(place..place + 1)?)?;
        }
        let [one, two] = parts.each_ref().map(|part| part.gradient.slice());
        inner_products(gpu, run.tail(), (&self.sums, 0), &self.partials, one, two)?;
        let mut sides = vec![(one, &parts[1], 3)];
        if cross_fit {
            sides.push((two, &parts[0], 6));
        }
        for (along, part, first) in sides {
            run.tail().copy(along, part.direction.slice())?;
            run.append(part.multiply.clone());
            let (sums, product) = ((&self.sums, first), part.product.slice());
            inner_products(gpu, run.tail(), sums, &self.partials, along, product)?;
        }
        Ok(run)
    }

    fn record_move(
        &self,
        gpu: &Gpu,
        theta: &Vector,
        parts: &[Arc<Quadratic>; 2],
    ) -> Result<Recording> {
        let mut run = Recording::new();
        let [one, two] = parts.each_ref().map(|part| part.gradient.slice());
        let (step, trial) = (self.step.slice(), self.trial.slice());
        let factors = &self.coefficients;
        combine(gpu, &mut run, step, one, two, (factors, 0))?;
        combine(gpu, &mut run, trial, theta.slice(), step, (factors, 2))?;
        run.copy(trial, theta.slice())?;
        Ok(run)
    }
}

impl Stateful for DebiasedSgd {
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
        Vec::new()
    }
}

impl<O: Parts + ?Sized> Optimizer<O> for DebiasedSgd {
    fn name(&self) -> &'static str {
        "debiased-sgd"
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
            saved::only(state, &[STEPS], &[])?;
            let steps = saved::count(state, STEPS)?;
            self.course = self.course.restored(&gpu, &layout, state).await?;
            self.steps = steps;
            Ok(())
        })
    }
}
