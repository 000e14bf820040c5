//! Baselines: SGD with momentum, Adam and AdamW.

use std::sync::Arc;

use super::engine::Clock;
use super::optimizer::{Optimizer, OptimizerState};
use super::report::StepReport;
use super::saved;
use super::work::Work;
use crate::error::{Error, Result};
use crate::gpu::{Gpu, Recording, Slice};
use crate::kernels::vector::{
    FIRST_ORDER_LOSS, FIRST_ORDER_SCALARS, FIRST_ORDER_SUMS, FirstOrderMethod, FirstOrderOperands,
    first_order, inner_products, partial_elements,
};
use crate::objective::{Gradient, Objective, Slot};
use crate::recent::Recent;
use crate::vector::{Layout, Vector};

/// Settings of [`Sgd`].
#[derive(Clone, Debug, PartialEq)]
#[non_exhaustive]
pub struct SgdOptions {
    /// Learning rate. Default 0.1.
    pub learning_rate: f32,
    /// Momentum in 0..1. Default 0.9.
    pub momentum: f32,
    /// Nesterov's form of momentum. Default false.
    pub nesterov: bool,
    /// Decoupled weight decay. Default 0.
    pub weight_decay: f32,
}

impl Default for SgdOptions {
    fn default() -> Self {
        Self {
            learning_rate: 0.1,
            momentum: 0.9,
            nesterov: false,
            weight_decay: 0.0,
        }
    }
}

impl SgdOptions {
    /// Sets the learning rate.
    #[must_use]
    pub fn with_learning_rate(mut self, value: f32) -> Self {
        self.learning_rate = value;
        self
    }

    /// Sets the momentum.
    #[must_use]
    pub fn with_momentum(mut self, value: f32) -> Self {
        self.momentum = value;
        self
    }

    /// What the kernel needs to know.
    pub(super) fn settings(&self) -> [f32; 8] {
        let nesterov = f32::from(u8::from(self.nesterov));
        let (rate, momentum) = (self.learning_rate, self.momentum);
        [
            rate,
            momentum,
            0.0,
            0.0,
            1.0,
            1.0,
            self.weight_decay,
            nesterov,
        ]
    }

    /// Checks the ranges.
    ///
    /// # Errors
    /// [`Error::Option`] naming the option and its range.
    pub fn validate(&self) -> Result<()> {
        check_rates(self.learning_rate, self.weight_decay)?;
        let momentum = self.momentum;
        check(
            "momentum",
            momentum,
            (0.0..1.0).contains(&momentum),
            "in 0..1",
        )
    }

    /// Switches Nesterov's form on or off.
    #[must_use]
    pub fn with_nesterov(mut self, value: bool) -> Self {
        self.nesterov = value;
        self
    }

    /// Sets the decoupled weight decay.
    #[must_use]
    pub fn with_weight_decay(mut self, value: f32) -> Self {
        self.weight_decay = value;
        self
    }
}

/// Settings of [`Adam`].
#[derive(Clone, Debug, PartialEq)]
#[non_exhaustive]
pub struct AdamOptions {
    /// Learning rate. Default 1e-3.
    pub learning_rate: f32,
    /// Decay of the first moment. Default 0.9.
    pub beta1: f32,
    /// Decay of the second moment. Default 0.999.
    pub beta2: f32,
    /// Added to the root of the second moment. Default 1e-8.
    pub epsilon: f32,
    /// Decoupled weight decay: with it, this is AdamW (Loshchilov and Hutter 2019). Default 0.
    pub weight_decay: f32,
}

impl Default for AdamOptions {
    fn default() -> Self {
        Self {
            learning_rate: 1e-3,
            beta1: 0.9,
            beta2: 0.999,
            epsilon: 1e-8,
            weight_decay: 0.0,
        }
    }
}

impl AdamOptions {
    /// Sets the learning rate.
    #[must_use]
    pub fn with_learning_rate(mut self, value: f32) -> Self {
        self.learning_rate = value;
        self
    }

    /// What the kernel needs to know for step `step`, counted from 1.
    pub(super) fn settings(&self, step: i32) -> [f32; 8] {
        // In f64: 1 - 0.999 loses half of the digits of an f32.
        let correction = |beta: f32| (1.0 - f64::from(beta).powi(step)) as f32;
        [
            self.learning_rate,
            self.beta1,
            self.beta2,
            self.epsilon,
            correction(self.beta1),
            correction(self.beta2),
            self.weight_decay,
            0.0,
        ]
    }

    /// Checks the ranges.
    ///
    /// # Errors
    /// [`Error::Option`] naming the option and its range.
    pub fn validate(&self) -> Result<()> {
        check_rates(self.learning_rate, self.weight_decay)?;
        for (name, value) in [("beta1", self.beta1), ("beta2", self.beta2)] {
            check(name, value, (0.0..1.0).contains(&value), "in 0..1")?;
        }
        let epsilon = self.epsilon;
        check(
            "epsilon",
            epsilon,
            epsilon.is_finite() && epsilon > 0.0,
            "above 0",
        )
    }

    /// Sets the decays of the moments.
    #[must_use]
    pub fn with_betas(mut self, beta1: f32, beta2: f32) -> Self {
        (self.beta1, self.beta2) = (beta1, beta2);
        self
    }

    /// Sets the decoupled weight decay.
    #[must_use]
    pub fn with_weight_decay(mut self, value: f32) -> Self {
        self.weight_decay = value;
        self
    }
}

fn check(option: &str, value: f32, valid: bool, range: &str) -> Result<()> {
    if valid {
        Ok(())
    } else {
        Err(Error::Option {
            option: option.into(),
            message: format!("{value} is not {range}"),
        })
    }
}

fn check_rates(learning_rate: f32, weight_decay: f32) -> Result<()> {
    check(
        "learning_rate",
        learning_rate,
        learning_rate.is_finite() && learning_rate > 0.0,
        "above 0",
    )?;
    check(
        "weight_decay",
        weight_decay,
        weight_decay.is_finite() && weight_decay >= 0.0 && learning_rate * weight_decay < 1.0,
        "0 or above, and below 1 / learning_rate",
    )
}

/// Names of what a method remembers, which no other method uses.
pub(super) fn remembered(method: FirstOrderMethod) -> &'static [&'static str] {
    match method {
        FirstOrderMethod::Sgd => &["momentum"],
        FirstOrderMethod::Adam => &["first_moment", "second_moment"],
    }
}

/// Moments of a first-order method, and its kernels.
pub(super) struct Moments {
    method: FirstOrderMethod,
    first: Vector,
    second: Vector,
    /// All that the kernel needs beside vectors: settings, the loss, and `(g.m, g.g, m.m)` before a step.
    scalars: Slice,
    partials: Slice,
}

impl Moments {
    pub(super) fn new(gpu: &Gpu, layout: &Arc<Layout>, method: FirstOrderMethod) -> Result<Self> {
        let first = Vector::new(gpu, "first moment", layout)?;
        Ok(Self {
            method,
            second: Vector::new(gpu, "second moment", layout)?,
            scalars: gpu.uniform("scalars of a first-order step", FIRST_ORDER_SCALARS)?,
            partials: gpu.buffer("partial sums", partial_elements(first.slice()))?,
            first,
        })
    }

    /// Sets the settings of the next step.
    pub(super) fn upload(&self, gpu: &Gpu, settings: &[f32; 8]) -> Result<()> {
        gpu.upload(&self.scalars, 0, settings)
    }

    /// What is read after a step: for [`loss`](Self::loss) and [`sums`](Self::sums).
    pub(super) fn reads(&self) -> &Slice {
        &self.scalars
    }

    /// The loss before the step.
    pub(super) fn loss(scalars: &[f32]) -> f32 {
        scalars[FIRST_ORDER_LOSS]
    }

    /// `(g.m, g.g, m.m)` before the step.
    pub(super) fn sums(scalars: &[f32]) -> &[f32] {
        &scalars[FIRST_ORDER_SUMS..]
    }

    /// Records what must be known before a step: the loss and the inner products.
    pub(super) fn record_sums(
        &self,
        gpu: &Gpu,
        recording: &mut Recording,
        gradient: &Vector,
        loss: &Slice,
    ) -> Result<()> {
        let (g, m) = (gradient.slice(), self.first.slice());
        recording.copy_part(loss, 0, &self.scalars, FIRST_ORDER_LOSS, 1)?;
        let sums = (&self.scalars, FIRST_ORDER_SUMS);
        inner_products(gpu, recording, sums, &self.partials, g, m)
    }

    /// Records a step of `theta` after that, which does nothing where the loss, the gradient or the step is not finite.
    pub(super) fn record_step(
        &self,
        gpu: &Gpu,
        recording: &mut Recording,
        theta: &Vector,
        gradient: &Vector,
    ) -> Result<()> {
        let (g, m) = (gradient.slice(), self.first.slice());
        let operands = FirstOrderOperands {
            theta: theta.slice(),
            first_moment: m,
            second_moment: self.second.slice(),
            gradient: g,
            scalars: &self.scalars,
        };
        first_order(gpu, recording, self.method, &operands)
    }

    /// Whether the step with these settings and sums is one that the kernel takes.
    pub(super) fn moves(&self, settings: &[f32; 8], sums: &[f32]) -> bool {
        let reach = reach(self.method, settings, sums);
        sums[1].is_finite() && reach < LONGEST_STEP
    }

    /// What must be remembered.
    pub(super) fn remembered(&self) -> Vec<(&'static str, &Vector)> {
        let names = remembered(self.method).iter().copied();
        names.zip([&self.first, &self.second]).collect()
    }

    pub(super) fn save(&self, gpu: &Gpu, state: &mut OptimizerState) -> Result<()> {
        for (name, vector) in self.remembered() {
            state.vectors.push((name.into(), vector.read(gpu)?));
        }
        Ok(())
    }

    pub(super) fn restore(&self, gpu: &Gpu, state: &OptimizerState) -> Result<()> {
        let vectors = self.remembered();
        let values = vectors
            .iter()
            .map(|(name, vector)| saved::vector(state, name, vector.layout()))
            .collect::<Result<Vec<_>>>()?;
        for ((_, vector), values) in vectors.into_iter().zip(values) {
            vector.write(gpu, values)?;
        }
        Ok(())
    }
}

/// Buffers of a first-order method, made at the first step.
struct Memory {
    moments: Moments,
    /// Kernels of a whole step, for each gradient seen.
    steps: Recent<Step>,
}

/// The kernels of a step: what is read before it is taken, and what takes it.
struct Step {
    gradient: Arc<Gradient>,
    theta: Vector,
    measure: Recording,
    take: Recording,
}

/// Steps that may be longer are refused, so that parameters stay finite; the kernel has the same number.
const LONGEST_STEP: f32 = 1e37;

/// A bound on the length of a step, as the kernel computes it from `sums = (g.m, g.g, m.m)`.
fn reach(method: FirstOrderMethod, settings: &[f32; 8], sums: &[f32]) -> f32 {
    let reach = settings[0] * (sums[1].sqrt() + sums[2].sqrt());
    match method {
        FirstOrderMethod::Sgd => reach,
        FirstOrderMethod::Adam => reach / (settings[3] * settings[4]),
    }
}

/// What SGD and Adam have in common: moments, and a step without a wait in the middle.
struct FirstOrder {
    method: FirstOrderMethod,
    memory: Option<Memory>,
    steps: i32,
}

impl FirstOrder {
    fn new(method: FirstOrderMethod) -> Self {
        Self {
            method,
            memory: None,
            steps: 0,
        }
    }

    fn memory<O: Objective + ?Sized>(&mut self, objective: &O) -> Result<&mut Memory> {
        if self.memory.is_none() {
            let (gpu, layout) = (objective.gpu(), objective.layout());
            self.memory = Some(Memory {
                moments: Moments::new(gpu, layout, self.method)?,
                steps: Recent::default(),
            });
        }
        self.memory.as_mut().ok_or_else(|| Error::Length {
            what: "memory".into(),
            found: 0,
            expected: 1,
        })
    }

    fn step<O: Objective + ?Sized>(
        &mut self,
        objective: &mut O,
        theta: &Vector,
        batch: &O::Batch,
        settings: [f32; 8],
    ) -> Result<StepReport> {
        let gpu = objective.gpu().clone();
        let clock = Clock::start(&gpu);
        let loaded = objective.load(Slot::default(), batch)?;
        let gradient = objective.gradient(theta, &loaded)?;
        let memory = self.memory(objective)?;
        let moments = &memory.moments;
        let known = |s: &Step| Arc::ptr_eq(&s.gradient, &gradient) && s.theta.is_same(theta);
        let step = memory.steps.find_or(known, 0, || {
            let mut measure = gradient.run.clone();
            moments.record_sums(&gpu, &mut measure, &gradient.gradient, &gradient.value)?;
            let mut take = Recording::new();
            moments.record_step(&gpu, &mut take, theta, &gradient.gradient)?;
            Ok::<_, Error>(Step {
                gradient: Arc::clone(&gradient),
                theta: theta.clone(),
                measure,
                take,
            })
        })?;
        moments.upload(&gpu, &settings)?;
        let read = gpu.submit_and_read(
            |recorder| {
                recorder.replay(&step.measure);
                Ok(())
            },
            &[moments.reads()],
        )?;
        let sums = Moments::sums(&read[0]);
        let (loss, square) = (f64::from(Moments::loss(&read[0])), f64::from(sums[1]));
        if !loss.is_finite() || !moments.moves(&settings, sums) {
            return Err(Error::NotFinite {
                what: if !loss.is_finite() {
                    "the loss".into()
                } else if !square.is_finite() {
                    "the gradient".into()
                } else {
                    "the step".into()
                },
                advice: "Use a smaller learning rate, or check the data.",
            });
        }
        // The last thing that may fail: where it does, nothing has moved.
        gpu.submit(|recorder| recorder.replay(&step.take))?;
        self.steps += 1;
        let mut work = Work::default();
        work.gradients(1, loaded.examples);
        let report = StepReport {
            loss_before: loss,
            gradient_norm: square.sqrt(),
            accepted: true,
            work: work.in_examples(),
            ..StepReport::default()
        };
        Ok(clock.stop(&gpu, report))
    }

    fn state<O: Objective + ?Sized>(&self, objective: &O) -> Result<OptimizerState> {
        let mut state = OptimizerState {
            scalars: vec![("steps".into(), f64::from(self.steps))],
            vectors: vec![],
        };
        if let Some(memory) = &self.memory {
            memory.moments.save(objective.gpu(), &mut state)?;
        }
        Ok(state)
    }

    fn restore<O: Objective + ?Sized>(
        &mut self,
        objective: &O,
        state: &OptimizerState,
    ) -> Result<()> {
        saved::only(state, &["steps"], remembered(self.method))?;
        let steps = saved::count(state, "steps")?;
        if steps > 0 {
            let gpu = objective.gpu().clone();
            self.memory(objective)?.moments.restore(&gpu, state)?;
        } else {
            // A beginning: moments are zero again.
            self.memory = None;
        }
        self.steps = steps as i32;
        Ok(())
    }
}

pub(super) fn missing(name: &str) -> Error {
    Error::Data {
        what: "optimizer state".into(),
        message: format!("it has no '{name}'; it was saved by another optimizer"),
    }
}

/// Stochastic gradient descent with momentum (Polyak 1964, Nesterov 1983):
/// `m <- momentum m + g`, `theta <- theta - learning_rate m`.
pub struct Sgd {
    options: SgdOptions,
    inner: FirstOrder,
}

impl Sgd {
    /// With these options.
    ///
    /// # Errors
    /// [`Error::Option`] naming the option and its range.
    pub fn new(options: SgdOptions) -> Result<Self> {
        options.validate()?;
        Ok(Self {
            options,
            inner: FirstOrder::new(FirstOrderMethod::Sgd),
        })
    }
}

impl<O: Objective + ?Sized> Optimizer<O> for Sgd {
    fn name(&self) -> &'static str {
        "sgd"
    }

    fn attempt(
        &mut self,
        objective: &mut O,
        theta: &Vector,
        batch: &O::Batch,
    ) -> Result<StepReport> {
        let settings = self.options.settings();
        self.inner.step(objective, theta, batch, settings)
    }

    fn state(&self, objective: &O) -> Result<OptimizerState> {
        self.inner.state(objective)
    }

    fn restore(&mut self, objective: &O, state: &OptimizerState) -> Result<()> {
        self.inner.restore(objective, state)
    }
}

/// Adam (Kingma and Ba 2015); AdamW when there is weight decay.
pub struct Adam {
    options: AdamOptions,
    inner: FirstOrder,
}

impl Adam {
    /// With these options.
    ///
    /// # Errors
    /// [`Error::Option`] naming the option and its range.
    pub fn new(options: AdamOptions) -> Result<Self> {
        options.validate()?;
        Ok(Self {
            options,
            inner: FirstOrder::new(FirstOrderMethod::Adam),
        })
    }
}

impl<O: Objective + ?Sized> Optimizer<O> for Adam {
    fn name(&self) -> &'static str {
        if self.options.weight_decay > 0.0 {
            "adamw"
        } else {
            "adam"
        }
    }

    fn attempt(
        &mut self,
        objective: &mut O,
        theta: &Vector,
        batch: &O::Batch,
    ) -> Result<StepReport> {
        let settings = self.options.settings(self.inner.steps + 1);
        self.inner.step(objective, theta, batch, settings)
    }

    fn state(&self, objective: &O) -> Result<OptimizerState> {
        self.inner.state(objective)
    }

    fn restore(&mut self, objective: &O, state: &OptimizerState) -> Result<()> {
        self.inner.restore(objective, state)
    }
}
