//! Baselines: SGD with momentum, Adam and AdamW.

use std::sync::Arc;
use std::time::Instant;

use super::optimizer::{Optimizer, OptimizerState};
use super::report::StepReport;
use crate::error::{Error, Result};
use crate::gpu::{Gpu, Recording, Slice};
use crate::kernels::vector::{
    FirstOrderMethod, FirstOrderOperands, first_order, inner_products, partial_elements,
};
use crate::objective::{Curvature, Objective, Quadratic, QuadraticRequest};
use crate::vector::Vector;

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

/// Buffers of a first-order method, made at the first step.
struct Memory {
    first_moment: Vector,
    second_moment: Vector,
    settings: Slice,
    sums: Slice,
    partials: Slice,
    /// Kernels of a whole step, for each quadratic seen.
    steps: Vec<(Arc<Quadratic>, Vector, Recording)>,
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
            let first_moment = Vector::new(gpu, "first moment", layout)?;
            self.memory = Some(Memory {
                second_moment: Vector::new(gpu, "second moment", layout)?,
                settings: gpu.buffer("settings", 8)?,
                sums: gpu.buffer("inner products", 3)?,
                partials: gpu.buffer("partial sums", partial_elements(first_moment.slice()))?,
                first_moment,
                steps: Vec::new(),
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
        let start = Instant::now();
        let request = QuadraticRequest {
            curvature: Curvature::None,
            fisher_diagonal: false,
            ..QuadraticRequest::default()
        };
        let quadratic = objective.quadratic(theta, batch, request)?;
        let method = self.method;
        let gpu = objective.gpu().clone();
        let memory = self.memory(objective)?;
        let known = memory
            .steps
            .iter()
            .position(|(q, t, _)| Arc::ptr_eq(q, &quadratic) && t.is_same(theta));
        let at = match known {
            Some(at) => at,
            None => {
                let recording = record_step(&gpu, method, memory, theta, &quadratic)?;
                memory
                    .steps
                    .push((Arc::clone(&quadratic), theta.clone(), recording));
                memory.steps.len() - 1
            }
        };
        let (readbacks, looks) = (gpu.readbacks(), gpu.looks());
        gpu.upload(&memory.settings, 0, &settings)?;
        let recording = &memory.steps[at].2;
        let read = gpu.submit_and_read(
            |recorder| {
                recorder.replay(recording);
                Ok(())
            },
            &[&quadratic.value, &memory.sums],
        )?;
        let (loss, square) = (f64::from(read[0][0]), f64::from(read[1][1]));
        let reach = reach(method, &settings, &read[1]);
        if !loss.is_finite() || !square.is_finite() || reach.is_nan() || reach >= LONGEST_STEP {
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
        self.steps += 1;
        Ok(StepReport {
            loss_before: loss,
            gradient_norm: square.sqrt(),
            accepted: true,
            work: objective.examples(batch) as f64,
            readbacks: gpu.readbacks() - readbacks,
            looks: gpu.looks() - looks,
            seconds: start.elapsed().as_secs_f64(),
            ..StepReport::default()
        })
    }

    fn state<O: Objective + ?Sized>(&self, objective: &O) -> Result<OptimizerState> {
        let mut state = OptimizerState {
            scalars: vec![("steps".into(), f64::from(self.steps))],
            vectors: vec![],
        };
        if let Some(memory) = &self.memory {
            for (name, vector) in remembered(self.method, memory) {
                state
                    .vectors
                    .push((name.into(), vector.read(objective.gpu())?));
            }
        }
        Ok(state)
    }

    fn restore<O: Objective + ?Sized>(
        &mut self,
        objective: &O,
        state: &OptimizerState,
    ) -> Result<()> {
        let steps = state.scalar("steps").ok_or_else(|| missing("steps"))?;
        if steps > 0.0 {
            let gpu = objective.gpu().clone();
            let method = self.method;
            let vectors = remembered(method, self.memory(objective)?);
            let values = vectors
                .iter()
                .map(|(name, _)| state.vector(name).ok_or_else(|| missing(name)))
                .collect::<Result<Vec<_>>>()?;
            for ((_, vector), values) in vectors.into_iter().zip(values) {
                vector.write(&gpu, values)?;
            }
        } else {
            // A beginning: moments are zero again.
            self.memory = None;
        }
        self.steps = steps as i32;
        Ok(())
    }
}

/// What a method must remember, under names that no other method uses.
fn remembered(method: FirstOrderMethod, memory: &Memory) -> Vec<(&'static str, &Vector)> {
    match method {
        FirstOrderMethod::Sgd => vec![("momentum", &memory.first_moment)],
        FirstOrderMethod::Adam => vec![
            ("first_moment", &memory.first_moment),
            ("second_moment", &memory.second_moment),
        ],
    }
}

pub(super) fn missing(name: &str) -> Error {
    Error::Data {
        what: "optimizer state".into(),
        message: format!("it has no '{name}'; it was saved by another optimizer"),
    }
}

fn record_step(
    gpu: &Gpu,
    method: FirstOrderMethod,
    memory: &Memory,
    theta: &Vector,
    quadratic: &Quadratic,
) -> Result<Recording> {
    let gradient = quadratic.gradient.slice();
    let mut recording = quadratic.linearize.clone();
    inner_products(
        gpu,
        &mut recording,
        (&memory.sums, 0),
        &memory.partials,
        gradient,
        memory.first_moment.slice(),
    )?;
    let operands = FirstOrderOperands {
        theta: theta.slice(),
        first_moment: memory.first_moment.slice(),
        second_moment: memory.second_moment.slice(),
        gradient,
        settings: &memory.settings,
        loss: &quadratic.value,
        sums: &memory.sums,
    };
    first_order(gpu, &mut recording, method, &operands)?;
    Ok(recording)
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
        check_rates(options.learning_rate, options.weight_decay)?;
        check(
            "momentum",
            options.momentum,
            (0.0..1.0).contains(&options.momentum),
            "in 0..1",
        )?;
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

    fn step(&mut self, objective: &mut O, theta: &Vector, batch: &O::Batch) -> Result<StepReport> {
        let o = &self.options;
        let nesterov = f32::from(u8::from(o.nesterov));
        let settings = [
            o.learning_rate,
            o.momentum,
            0.0,
            0.0,
            1.0,
            1.0,
            o.weight_decay,
            nesterov,
        ];
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
        check_rates(options.learning_rate, options.weight_decay)?;
        for (name, value) in [("beta1", options.beta1), ("beta2", options.beta2)] {
            check(name, value, (0.0..1.0).contains(&value), "in 0..1")?;
        }
        check(
            "epsilon",
            options.epsilon,
            options.epsilon.is_finite() && options.epsilon > 0.0,
            "above 0",
        )?;
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

    fn step(&mut self, objective: &mut O, theta: &Vector, batch: &O::Batch) -> Result<StepReport> {
        let o = &self.options;
        let step = self.inner.steps + 1;
        // In f64: 1 - 0.999 loses half of the digits of an f32.
        let correction = |beta: f32| (1.0 - f64::from(beta).powi(step)) as f32;
        let (first, second) = (correction(o.beta1), correction(o.beta2));
        let settings = [
            o.learning_rate,
            o.beta1,
            o.beta2,
            o.epsilon,
            first,
            second,
            o.weight_decay,
            0.0,
        ];
        self.inner.step(objective, theta, batch, settings)
    }

    fn state(&self, objective: &O) -> Result<OptimizerState> {
        self.inner.state(objective)
    }

    fn restore(&mut self, objective: &O, state: &OptimizerState) -> Result<()> {
        self.inner.restore(objective, state)
    }
}
