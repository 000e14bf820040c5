//! Steps on a caller's own buffers: gathered before, scattered after.

use super::optimizer::Optimizer;
use super::recorded::{Recordable, Recorded};
use super::report::StepReport;
use crate::error::Result;
use crate::objective::{Curvature, Objective, OwnKernels, Slot};
use crate::{Check, check};

impl OwnKernels {
    /// A step of the parameters where they are: on return the caller's buffers hold the new ones. After an error they hold those of before.
    ///
    /// # Errors
    /// As [`Optimizer::step`].
    pub fn step<M: Optimizer<Self> + ?Sized>(&mut self, optimizer: &mut M) -> Result<StepReport> {
        let (gpu, theta) = (self.gpu().clone(), self.theta().clone());
        gpu.submit(|recorder| recorder.replay(self.gather()))?;
        let report = optimizer.step(self, &theta, &());
        gpu.submit(|recorder| recorder.replay(self.scatter()))?;
        report
    }

    /// [`check`](crate::check()) at the caller's parameters, which are the same afterwards.
    ///
    /// # Errors
    /// As there.
    pub fn check(&mut self, curvature: Curvature) -> Result<Check> {
        let (gpu, theta) = (self.gpu().clone(), self.theta().clone());
        gpu.submit(|recorder| recorder.replay(self.gather()))?;
        let found = check(self, &theta, &(), curvature);
        gpu.submit(|recorder| recorder.replay(self.scatter()))?;
        found
    }

    /// Steps as commands, for the caller's own encoder: each takes the parameters from the caller's buffers, and leaves the new ones there.
    ///
    /// # Errors
    /// As [`Recordable::recorded`].
    pub fn recorded<M: Recordable<Self>>(&mut self, method: M) -> Result<Recorded<M>> {
        let loaded = self.load(Slot::default(), &())?;
        let theta = self.theta().clone();
        let (before, after) = (self.gather().clone(), self.scatter().clone());
        Ok(method
            .recorded(self, &theta, &loaded)?
            .between(before, after))
    }
}
