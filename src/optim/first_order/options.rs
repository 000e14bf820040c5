//! Settings of SGD and Adam.

use std::ops::Bound::Excluded;

use crate::error::Result;
use crate::kernels::vector::FirstOrderMethod;
use crate::options::{options, require};

/// What tells the first-order methods from each other.
pub trait Rule: Send {
    /// The kernel.
    const METHOD: FirstOrderMethod;

    /// Its name in reports.
    fn name(&self) -> &'static str;

    /// Checks the ranges.
    ///
    /// # Errors
    /// [`Error::Option`](crate::Error::Option).
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

options! {
    /// Settings of [`Sgd`](crate::optim::Sgd).
    pub struct SgdOptions {
        /// Learning rate.
        learning_rate(with_learning_rate): f32 = 0.1, in (Excluded(0.0), Excluded(f32::INFINITY)) => "above 0";
        /// Momentum.
        momentum(with_momentum): f32 = 0.9, in 0.0..1.0 => "0 or more, below 1";
        /// Nesterov's form of momentum.
        nesterov(with_nesterov): bool = false;
        /// Decoupled weight decay.
        weight_decay(with_weight_decay): f32 = 0.0, in 0.0..f32::INFINITY => "0 or more, below 1 / learning_rate";
    } together Self::check_together
}

impl SgdOptions {
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

    fn check_together(&self) -> Result<()> {
        check_decay(self.learning_rate, self.weight_decay)
    }
}

options! {
    /// Settings of [`Adam`](crate::optim::Adam).
    pub struct AdamOptions {
        /// Learning rate.
        learning_rate(with_learning_rate): f32 = 1e-3, in (Excluded(0.0), Excluded(f32::INFINITY)) => "above 0";
        /// Decay of the first moment.
        beta1(with_beta1): f32 = 0.9, in 0.0..1.0 => "0 or more, below 1";
        /// Decay of the second moment.
        beta2(with_beta2): f32 = 0.999, in 0.0..1.0 => "0 or more, below 1";
        /// Added to the root of the second moment.
        epsilon(with_epsilon): f32 = 1e-8, in (Excluded(0.0), Excluded(f32::INFINITY)) => "above 0";
        /// Decoupled weight decay: with it, this is AdamW (Loshchilov and Hutter 2019).
        weight_decay(with_weight_decay): f32 = 0.0, in 0.0..f32::INFINITY => "0 or more, below 1 / learning_rate";
    } together Self::check_together
}

impl AdamOptions {
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

    fn check_together(&self) -> Result<()> {
        check_decay(self.learning_rate, self.weight_decay)
    }
}

/// Refuses a weight decay that would turn parameters around.
pub(in crate::optim) fn check_decay(learning_rate: f32, weight_decay: f32) -> Result<()> {
    require(
        learning_rate * weight_decay < 1.0,
        "weight_decay",
        format!(
            "{weight_decay} is not below 1 / learning_rate; with a learning rate of {learning_rate} a step would reverse the parameters"
        ),
    )
}

/// A learning rate times the factor of a schedule.
pub(in crate::optim) fn scheduled(rate: f32, factor: f64) -> f32 {
    (f64::from(rate) * factor) as f32
}
