//! Gradient descent with step lengths that other examples measure.

use std::sync::Arc;
use std::time::Instant;

use super::first_order::missing;
use super::optimizer::{Optimizer, OptimizerState};
use super::report::StepReport;
use crate::error::{Error, Result};
use crate::gpu::{Gpu, Recording, Slice};
use crate::kernels::vector::{combine, inner_products, partial_elements};
use crate::objective::{Curvature, Objective, Quadratic, QuadraticRequest};
use crate::vector::Vector;

/// Name of the number that a state must have.
const STEPS: &str = "debiased_steps";

/// Settings of [`DebiasedSgd`].
#[derive(Clone, Debug, PartialEq)]
#[non_exhaustive]
pub struct DebiasedSgdOptions {
    /// The first part of a batch, from 0 to 1, that makes the direction; the rest measures the step along it. Default 0.5.
    pub directions: f64,
    /// Whether the parts also exchange their roles, and both steps are averaged. Default false.
    pub cross_fit: bool,
    /// Added to the curvature along the direction as `damping |g|^2`. Default 0.
    pub damping: f64,
    /// Longest step length, of either sign. Default 10.
    pub max_step_length: f64,
    /// Multiplies the step length after that. The best step now may not be the best one for later: curvature grows where steps are short, and falls where
    /// they are long. Default 1.
    pub factor: f64,
    /// Whether to go backwards where the slopes of the two parts disagree; no step otherwise. Default false.
    ///
    /// With the slope `s` on all data, and an error `e` of mean zero in the one that is measured, the step `(s + e) / k` changes the quadratic of
    /// all data by `(e^2 - s^2) / 2k`. Where the direction leads downhill on all data (`s > 0`, as it does in the mean), a negative step has `e < -s` and
    /// raises it. So no step is better in each such case, although step lengths are unbiased only with both signs. Where all data are near a minimum along
    /// the direction every step is noise, and half of that is left out.
    pub backwards: bool,
}

impl Default for DebiasedSgdOptions {
    fn default() -> Self {
        Self {
            directions: 0.5,
            cross_fit: false,
            damping: 0.0,
            max_step_length: 10.0,
            factor: 1.0,
            backwards: false,
        }
    }
}

impl DebiasedSgdOptions {
    /// Sets the part of a batch that makes the direction.
    #[must_use]
    pub fn with_directions(mut self, part: f64) -> Self {
        self.directions = part;
        self
    }

    /// Sets whether the parts exchange their roles.
    #[must_use]
    pub fn with_cross_fit(mut self, value: bool) -> Self {
        self.cross_fit = value;
        self
    }

    /// Sets the damping.
    #[must_use]
    pub fn with_damping(mut self, damping: f64) -> Self {
        self.damping = damping;
        self
    }

    /// Sets the longest step length.
    #[must_use]
    pub fn with_max_step_length(mut self, length: f64) -> Self {
        self.max_step_length = length;
        self
    }

    /// Sets what multiplies the step length.
    #[must_use]
    pub fn with_factor(mut self, factor: f64) -> Self {
        self.factor = factor;
        self
    }

    /// Sets whether to go backwards where slopes disagree.
    #[must_use]
    pub fn with_backwards(mut self, value: bool) -> Self {
        self.backwards = value;
        self
    }

    /// Checks the ranges.
    ///
    /// # Errors
    /// [`Error::Option`] naming the option and its range.
    pub fn validate(&self) -> Result<()> {
        let checks = [
            (
                "directions",
                self.directions,
                self.directions > 0.0 && self.directions < 1.0,
                "a part in 0..1",
            ),
            (
                "damping",
                self.damping,
                (0.0..=1e12).contains(&self.damping),
                "in 0..=1e12",
            ),
            (
                "max step length",
                self.max_step_length,
                self.max_step_length > 0.0 && self.max_step_length <= 1e6,
                "above 0 and at most 1e6",
            ),
            (
                "factor",
                self.factor,
                self.factor > 0.0 && self.factor <= 100.0,
                "above 0 and at most 100",
            ),
        ];
        match checks.into_iter().find(|(_, _, valid, _)| !valid) {
            None => Ok(()),
            Some((option, value, _, range)) => Err(Error::Option {
                option: option.into(),
                message: format!("{value} is not {range}"),
            }),
        }
    }

    /// The step length for a slope `g . g'`, a curvature `g . C' g` and a square `|g|^2`.
    fn length(&self, slope: f64, curvature: f64, square: f64) -> f64 {
        let curvature = curvature + self.damping * square;
        if curvature <= 0.0 || (slope < 0.0 && !self.backwards) {
            return 0.0;
        }
        let most = self.max_step_length;
        self.factor * (slope / curvature).clamp(-most, most)
    }
}

/// What a submission does with a part of the batch.
#[derive(Clone, Copy, PartialEq)]
enum Stage {
    /// Gradient of the first part.
    First,
    /// Gradient of the second part, and its slope and curvature along the first one's.
    Second,
    /// Curvature of the first part along the second one's gradient.
    Back,
}

/// Results start at multiples of this many elements.
const STRIDE: usize = 64;

struct Memory {
    /// Of both parts.
    gradients: [Vector; 2],
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
/// with the gradient `g` of one part of the batch, and gradient `g'` and Gauss-Newton matrix `C'` of the other. On its own batch a gradient has the slope
/// `|g|^2`, which is larger than that on all data by the variance of `g`, however small the true slope is. `g . g'` and `g . C' g` have the means of all
/// data, whatever made `g`; their ratio is a little too long in the mean, since `1 / k` is convex.
///
/// This is the case of one direction of the debiased quadratics of Tatzel et al. 2025, a reconstruction: that paper's text and program were not available.
/// Where the curvature is not positive there is no step.
///
/// A step has one blocking readback. Its loss and gradient norm are those of the whole batch, as the mean of its parts; its step length is `alpha`, with both roles
/// the mean of two. The loss after the step is not computed.
pub struct DebiasedSgd {
    options: DebiasedSgdOptions,
    steps: usize,
    memory: Option<Memory>,
    stages: Vec<(Arc<Quadratic>, Stage, Recording)>,
    moves: Vec<(Vector, Recording)>,
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
            memory: None,
            stages: Vec::new(),
            moves: Vec::new(),
        })
    }

    /// Loads a part of the batch for a stage.
    fn stage<O: Objective + ?Sized>(
        &mut self,
        memory: &Memory,
        objective: &mut O,
        theta: &Vector,
        batch: &O::Batch,
        stage: Stage,
    ) -> Result<usize> {
        let curvature = match stage {
            Stage::First => Curvature::None,
            Stage::Second | Stage::Back => Curvature::GaussNewton,
        };
        let request = QuadraticRequest {
            curvature,
            ..QuadraticRequest::default()
        };
        let quadratic = objective.quadratic(theta, batch, request)?;
        let known = |(q, s, _): &(Arc<Quadratic>, Stage, Recording)| {
            Arc::ptr_eq(q, &quadratic) && *s == stage
        };
        if let Some(at) = self.stages.iter().position(known) {
            return Ok(at);
        }
        let run = memory.record(objective.gpu(), &quadratic, stage)?;
        self.stages.push((quadratic, stage, run));
        Ok(self.stages.len() - 1)
    }

    /// Gradients of both parts, and what each sees along the other's.
    fn measure<O: Objective + ?Sized>(
        &mut self,
        memory: &Memory,
        objective: &mut O,
        theta: &Vector,
        parts: &[O::Batch; 2],
    ) -> Result<Measured> {
        let gpu = objective.gpu().clone();
        let mut stages = vec![(Stage::First, &parts[0]), (Stage::Second, &parts[1])];
        if self.options.cross_fit {
            stages.push((Stage::Back, &parts[0]));
        }
        for (stage, part) in stages {
            let at = self.stage(memory, objective, theta, part, stage)?;
            // Submitted before the next part is loaded into the same buffers.
            gpu.submit(|recorder| recorder.replay(&self.stages[at].2))?;
        }
        let read = gpu.read(&[&memory.losses, &memory.sums])?;
        let [losses, sums] = &read[..] else {
            return Err(missing("sums"));
        };
        let sum = |at: usize| f64::from(sums[at]);
        Ok(Measured {
            losses: [f64::from(losses[0]), f64::from(losses[STRIDE])],
            slope: sum(0),
            squares: [sum(1), sum(2)],
            curvatures: [sum(3), if self.options.cross_fit { sum(6) } else { 0.0 }],
        })
    }

    fn take(
        &mut self,
        memory: &Memory,
        gpu: &Gpu,
        theta: &Vector,
        lengths: [f64; 2],
    ) -> Result<()> {
        let at = match self.moves.iter().position(|(t, _)| t.is_same(theta)) {
            Some(at) => at,
            None => {
                let run = memory.record_move(gpu, theta)?;
                self.moves.push((theta.clone(), run));
                self.moves.len() - 1
            }
        };
        let [one, two] = lengths.map(|length| -length as f32);
        gpu.upload(&memory.coefficients, 0, &[one, two, 1.0, 1.0])?;
        gpu.submit(|recorder| recorder.replay(&self.moves[at].1))
    }

    fn step_in<O: Objective + ?Sized>(
        &mut self,
        memory: &Memory,
        objective: &mut O,
        theta: &Vector,
        batch: &O::Batch,
    ) -> Result<StepReport> {
        let gpu = objective.gpu().clone();
        let rows = objective.rows(batch);
        let cut = (self.options.directions * rows as f64).round() as usize;
        let cut = cut.clamp(1, rows.saturating_sub(1).max(1)).min(rows);
        let (first, second) = (0..cut, cut..rows);
        let parts = [
            objective.part(batch, &[first])?,
            objective.part(batch, &[second])?,
        ];
        let examples = parts.each_ref().map(|part| objective.examples(part) as f64);
        let measured = self.measure(memory, objective, theta, &parts)?;
        measured.check()?;
        let Measured {
            losses,
            slope,
            squares,
            curvatures,
        } = measured;
        let options = &self.options;
        let mut lengths = [options.length(slope, curvatures[0], squares[0]), 0.0];
        // A gradient of each part, and a product.
        let mut work = examples[0] + 3.0 * examples[1];
        if options.cross_fit {
            lengths[1] = options.length(slope, curvatures[1], squares[1]);
            lengths = lengths.map(|length| 0.5 * length);
            // Linearized again.
            work += 3.0 * examples[0];
        }
        // |a g + b g'|
        let norm = |[a, b]: [f64; 2]| {
            let square = a * a * squares[0] + 2.0 * a * b * slope + b * b * squares[1];
            square.max(0.0).sqrt()
        };
        let step_norm = norm(lengths);
        let accepted = step_norm > 0.0;
        if accepted {
            self.take(memory, &gpu, theta, lengths)?;
        }
        self.steps += 1;
        let shares = examples.map(|count| count / (examples[0] + examples[1]));
        Ok(StepReport {
            loss_before: shares[0] * losses[0] + shares[1] * losses[1],
            gradient_norm: norm(shares),
            step_norm,
            accepted,
            step_length: Some(lengths[0] + lengths[1]),
            damping: Some(self.options.damping),
            work,
            ..StepReport::default()
        })
    }
}

impl Measured {
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
    fn new<O: Objective + ?Sized>(objective: &O) -> Result<Self> {
        let (gpu, layout) = (objective.gpu(), objective.layout());
        let new = |label: &str| Vector::new(gpu, label, layout);
        let step = new("step")?;
        Ok(Self {
            gradients: [new("gradient of one part")?, new("gradient of the other")?],
            trial: new("trial point")?,
            losses: gpu.buffer("losses", 2 * STRIDE)?,
            sums: gpu.buffer("inner products", 9)?,
            partials: gpu.buffer("partial sums", partial_elements(step.slice()))?,
            coefficients: gpu.buffer("step lengths", 4)?,
            step,
        })
    }

    fn record(&self, gpu: &Gpu, quadratic: &Quadratic, stage: Stage) -> Result<Recording> {
        let mut run = quadratic.linearize.clone();
        let [one, two] = self.gradients.each_ref().map(Vector::slice);
        let gradient = quadratic.gradient.slice();
        let (along, first) = match stage {
            Stage::First => {
                run.copy(&quadratic.value, &self.losses.slice(0..1)?)?;
                run.copy(gradient, one)?;
                return Ok(run);
            }
            Stage::Second => {
                let place = self.losses.slice(STRIDE..STRIDE + 1)?;
                run.copy(&quadratic.value, &place)?;
                run.copy(gradient, two)?;
                inner_products(gpu, &mut run, (&self.sums, 0), &self.partials, one, two)?;
                (one, 3)
            }
            Stage::Back => (two, 6),
        };
        run.copy(along, quadratic.direction.slice())?;
        run.append(quadratic.multiply.clone());
        let (sums, product) = ((&self.sums, first), quadratic.product.slice());
        inner_products(gpu, &mut run, sums, &self.partials, along, product)?;
        Ok(run)
    }

    fn record_move(&self, gpu: &Gpu, theta: &Vector) -> Result<Recording> {
        let mut run = Recording::new();
        let [one, two] = self.gradients.each_ref().map(Vector::slice);
        let (step, trial) = (self.step.slice(), self.trial.slice());
        let factors = &self.coefficients;
        combine(gpu, &mut run, step, one, two, (factors, 0))?;
        combine(gpu, &mut run, trial, theta.slice(), step, (factors, 2))?;
        run.copy(trial, theta.slice())?;
        Ok(run)
    }
}

impl<O: Objective + ?Sized> Optimizer<O> for DebiasedSgd {
    fn name(&self) -> &'static str {
        "debiased-sgd"
    }

    fn attempt(
        &mut self,
        objective: &mut O,
        theta: &Vector,
        batch: &O::Batch,
    ) -> Result<StepReport> {
        let start = Instant::now();
        let gpu = objective.gpu().clone();
        let (readbacks, looks) = (gpu.readbacks(), gpu.looks());
        let memory = match self.memory.take() {
            Some(memory) => memory,
            None => Memory::new(objective)?,
        };
        let result = self.step_in(&memory, objective, theta, batch);
        self.memory = Some(memory);
        Ok(StepReport {
            readbacks: gpu.readbacks() - readbacks,
            looks: gpu.looks() - looks,
            seconds: start.elapsed().as_secs_f64(),
            ..result?
        })
    }

    fn state(&self, _: &O) -> Result<OptimizerState> {
        Ok(OptimizerState {
            scalars: vec![(STEPS.into(), self.steps as f64)],
            vectors: Vec::new(),
        })
    }

    fn restore(&mut self, _: &O, state: &OptimizerState) -> Result<()> {
        let steps = state.scalar(STEPS).ok_or_else(|| missing(STEPS))?;
        self.steps = steps as usize;
        Ok(())
    }
}
