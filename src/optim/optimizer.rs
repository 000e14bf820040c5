//! The trait of all optimizers.

use super::origin::with_origin;
use super::report::StepReport;
use super::state::{Stateful, capture};
use crate::error::Result;
use crate::gpu::Gpu;
use crate::objective::Objective;
use crate::vector::Vector;

/// What an optimizer must remember to continue with the same bits.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct OptimizerState {
    /// Numbers, by name.
    pub scalars: Vec<(String, f64)>,
    /// Vectors in parameter space, by name, as lists of tensors.
    pub vectors: Vec<(String, Vec<Vec<f32>>)>,
}

impl OptimizerState {
    /// The number of this name.
    pub fn scalar(&self, name: &str) -> Option<f64> {
        self.scalars
            .iter()
            .find(|(n, _)| n == name)
            .map(|&(_, value)| value)
    }

    /// The vector of this name.
    pub fn vector(&self, name: &str) -> Option<&[Vec<f32>]> {
        self.vectors
            .iter()
            .find(|(n, _)| n == name)
            .map(|(_, value)| value.as_slice())
    }
}

/// A method that improves parameters by one mini-batch at a time.
pub trait Optimizer<O: Objective + ?Sized>: Stateful {
    /// Its name in reports.
    fn name(&self) -> &'static str;

    /// Whether a device can run the method: asks before anything is compiled or changed. A step begins with it.
    ///
    /// # Errors
    /// [`Error::OverLimit`](crate::Error::OverLimit) naming the kernel and the limit of the device.
    fn check(&self, _gpu: &Gpu) -> Result<()> {
        Ok(())
    }

    /// One step on `batch`, changing `theta` in place.
    ///
    /// # Errors
    /// Bad data, numbers that are not finite, loss of the device. `theta` is then as it was. [`Error::NotFinite`](crate::Error::NotFinite)
    /// names the node of the objective where the first such number arises, where [`Objective::locate`] finds it.
    fn step(&mut self, objective: &mut O, theta: &Vector, batch: &O::Batch) -> Result<StepReport> {
        let result = self.attempt(objective, theta, batch);
        with_origin(result, objective, theta, batch)
    }

    /// What [`step`](Self::step) does; its errors do not say where numbers that are not finite come from.
    ///
    /// # Errors
    /// As there.
    fn attempt(
        &mut self,
        objective: &mut O,
        theta: &Vector,
        batch: &O::Batch,
    ) -> Result<StepReport>;

    /// What is needed to continue later: all numbers and copies of all vectors of [`Stateful`], with those of the course.
    ///
    /// # Errors
    /// Loss of the device.
    fn state(&self, objective: &O) -> Result<OptimizerState> {
        capture(self, objective.gpu())
    }

    /// Continues from a state of the same method and model.
    ///
    /// # Errors
    /// [`crate::Error::Length`] or [`crate::Error::Data`] when the state belongs to another method or model.
    fn restore(&mut self, objective: &O, state: &OptimizerState) -> Result<()>;
}
