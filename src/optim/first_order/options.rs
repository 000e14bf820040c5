//! Settings of SGD and Adam.

use crate::error::{Error, Result};
use crate::kernels::vector::FirstOrderMethod;

/// What tells the first-order methods from each other.
pub trait Rule {
    /// The kernel.
    const METHOD: FirstOrderMethod;

    /// Its name in reports.
    fn name(&self) -> &'static str;

    /// Checks the ranges.
    ///
    /// # Errors
    /// [`Error::Option`].
    fn check(&self) -> Result<()>;

    /// What the kernel needs to know for step `step`, counted from 1, with a factor on its length.
    fn at(&self, step: i32, factor: f64) -> [f32; 8];
}

impl Rule for SgdOptions {
    const METHOD: FirstOrderMethod = FirstOrderMethod::Sgd;

    fn name(&self) -> &'static str {
        "sgd"
    }

    fn check(&self) -> Result<()> {
        self.validate()
    }

    fn at(&self, _: i32, factor: f64) -> [f32; 8] {
        self.settings(factor)
    }
}

impl Rule for AdamOptions {
    const METHOD: FirstOrderMethod = FirstOrderMethod::Adam;

    fn name(&self) -> &'static str {
        if self.weight_decay > 0.0 {
            "adamw"
        } else {
            "adam"
        }
    }

    fn check(&self) -> Result<()> {
        self.validate()
    }

    fn at(&self, step: i32, factor: f64) -> [f32; 8] {
        self.settings(step, factor)
    }
}

/// Settings of [`Sgd`](crate::optim::Sgd).
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

    /// What the kernel needs to know for a step with this factor on the learning rate, with which weight decay shrinks, too.
    pub(in crate::optim) fn settings(&self, factor: f64) -> [f32; 8] {
        let nesterov = f32::from(u8::from(self.nesterov));
        let (rate, momentum) = (scheduled(self.learning_rate, factor), self.momentum);
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

/// Settings of [`Adam`](crate::optim::Adam).
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

    /// What the kernel needs to know for step `step`, counted from 1, with this factor on the learning rate.
    pub(in crate::optim) fn settings(&self, step: i32, factor: f64) -> [f32; 8] {
        // In f64: 1 - 0.999 loses half of the digits of an f32.
        let correction = |beta: f32| (1.0 - f64::from(beta).powi(step)) as f32;
        [
            scheduled(self.learning_rate, factor),
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

/// A learning rate times the factor of a schedule.
fn scheduled(rate: f32, factor: f64) -> f32 {
    (f64::from(rate) * factor) as f32
}
