//! The trait of all optimizers.

use super::origin::with_origin;
use super::report::StepReport;
use super::saved::OptimizerState;
use super::state::{Stateful, capture};
use crate::error::Result;
use crate::gpu::{BoxFuture, Gpu};
use crate::objective::Objective;
use crate::vector::Vector;

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
    #[cfg(not(target_arch = "wasm32"))]
    fn step(&mut self, objective: &mut O, theta: &Vector, batch: &O::Batch) -> Result<StepReport> {
        crate::gpu::blocking(self.step_async(objective, theta, batch))
    }

    /// As [`step`](Self::step), without blocking the thread. A step that is dropped on its way is one that did not take place: `theta` and
    /// the method have the bits of before.
    ///
    /// # Errors
    /// As there.
    fn step_async<'a>(
        &'a mut self,
        objective: &'a mut O,
        theta: &'a Vector,
        batch: &'a O::Batch,
    ) -> BoxFuture<'a, Result<StepReport>> {
        Box::pin(async move {
            let result = self.attempt(objective, theta, batch).await;
            with_origin(result, objective, theta, batch).await
        })
    }

    /// What [`step_async`](Self::step_async) does; its errors do not say where numbers that are not finite come from.
    ///
    /// # Errors
    /// As there.
    fn attempt<'a>(
        &'a mut self,
        objective: &'a mut O,
        theta: &'a Vector,
        batch: &'a O::Batch,
    ) -> BoxFuture<'a, Result<StepReport>>;

    /// What is needed to continue later: all numbers and copies of all vectors of [`Stateful`], with those of the course.
    ///
    /// # Errors
    /// Loss of the device.
    #[cfg(not(target_arch = "wasm32"))]
    fn state(&self, objective: &O) -> Result<OptimizerState> {
        crate::gpu::blocking(self.state_async(objective))
    }

    /// As [`state`](Self::state), without blocking the thread. The numbers are those at the call, the vectors those at the first poll.
    ///
    /// # Errors
    /// As there.
    fn state_async(&self, objective: &O) -> BoxFuture<'static, Result<OptimizerState>> {
        capture(self, objective.gpu())
    }

    /// Continues from a state of the same method and model.
    ///
    /// # Errors
    /// [`crate::Error::Length`] or [`crate::Error::Data`] when the state belongs to another method or model.
    #[cfg(not(target_arch = "wasm32"))]
    fn restore(&mut self, objective: &O, state: &OptimizerState) -> Result<()> {
        crate::gpu::blocking(self.restore_async(objective, state))
    }

    /// As [`restore`](Self::restore), without blocking the thread.
    ///
    /// # Errors
    /// As there.
    fn restore_async<'a>(
        &'a mut self,
        objective: &O,
        state: &'a OptimizerState,
    ) -> BoxFuture<'a, Result<()>>;
}
