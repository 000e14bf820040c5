//! Steps on a caller's own buffers: gathered before, scattered after.

use super::optimizer::Optimizer;
use super::recorded::{Recordable, Recorded};
use super::report::StepReport;
use crate::error::Result;
use crate::objective::{Curvature, Objective, OwnKernels, Slot};
use crate::{Check, check_async};

/// A caller's parameters while they are elsewhere, and their buffers hold whatever point is looked at.
struct Gathered<'a> {
    own: &'a mut OwnKernels,
    scattered: bool,
}

impl<'a> Gathered<'a> {
    fn new(own: &'a mut OwnKernels) -> Result<Self> {
        own.gpu().submit(|recorder| recorder.replay(own.gather()))?;
        Ok(Self {
            own,
            scattered: false,
        })
    }

    /// Brings them back.
    fn scatter(mut self) -> Result<()> {
        self.scattered = true;
        self.record()
    }

    fn record(&self) -> Result<()> {
        let own = &*self.own;
        own.gpu().submit(|recorder| recorder.replay(own.scatter()))
    }
}

impl Drop for Gathered<'_> {
    fn drop(&mut self) {
        if !self.scattered {
            // What fails here is that the device is gone, and the buffers with it.
            let _ = self.record();
        }
    }
}

impl OwnKernels {
    /// A step of the parameters where they are: on return the caller's buffers hold the new ones. After an error they hold those of before.
    ///
    /// # Errors
    /// As [`Optimizer::step`].
    #[cfg(not(target_arch = "wasm32"))]
    pub fn step<M: Optimizer<Self> + ?Sized>(&mut self, optimizer: &mut M) -> Result<StepReport> {
        crate::gpu::blocking(self.step_async(optimizer))
    }

    /// As [`step`](Self::step), without blocking the thread. A step that is dropped on its way leaves the caller's buffers with the
    /// parameters of before.
    ///
    /// # Errors
    /// As there.
    pub async fn step_async<M: Optimizer<Self> + ?Sized>(
        &mut self,
        optimizer: &mut M,
    ) -> Result<StepReport> {
        let theta = self.theta().clone();
        let gathered = Gathered::new(self)?;
        let report = optimizer.step_async(gathered.own, &theta, &()).await;
        gathered.scatter()?;
        report
    }

    /// [`check`](crate::check()) at the caller's parameters, which are the same afterwards.
    ///
    /// # Errors
    /// As there.
    #[cfg(not(target_arch = "wasm32"))]
    pub fn check(&mut self, curvature: Curvature) -> Result<Check> {
        crate::gpu::blocking(self.check_async(curvature))
    }

    /// As [`check`](Self::check), without blocking the thread.
    ///
    /// # Errors
    /// As there.
    pub async fn check_async(&mut self, curvature: Curvature) -> Result<Check> {
        let theta = self.theta().clone();
        let gathered = Gathered::new(self)?;
        let found = check_async(gathered.own, &theta, &(), curvature).await;
        gathered.scatter()?;
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
