//! Moments of gradients, and the kernels that step with them.

use std::sync::Arc;

use crate::error::Result;
use crate::gpu::{Gpu, Recording, Slice};
use crate::kernels::vector::{
    FIRST_ORDER_LOSS, FIRST_ORDER_SCALARS, FIRST_ORDER_SUMS, FirstOrderMethod, FirstOrderOperands,
    first_order, inner_products, partial_elements,
};
use crate::optim::saved::{self, OptimizerState};
use crate::optim::state_tensor::StateTensor;
use crate::vector::{Layout, Vector};

/// Steps that may be longer are refused, so that parameters stay finite; the kernel has the same number.
const LONGEST_STEP: f32 = 1e37;

/// A bound on the length of a step, as the kernel computes it from `sums = (g.m, g.g, m.m)`.
fn reach(method: FirstOrderMethod, settings: &[f32; 8], sums: &[f32]) -> f32 {
    let [rate, epsilon, correction] = [0, 3, 4].map(|at: usize| settings[at]);
    let (g, m) = (sums[1].sqrt(), sums[2].sqrt());
    match method {
        FirstOrderMethod::Sgd => rate * (g / correction + m),
        FirstOrderMethod::Adam => rate * (g + m) / (epsilon * correction),
    }
}

/// Names of what a method remembers, which no other method uses.
pub(in crate::optim) fn remembered(method: FirstOrderMethod) -> &'static [&'static str] {
    match method {
        FirstOrderMethod::Sgd => &["momentum"],
        FirstOrderMethod::Adam => &["first_moment", "second_moment"],
    }
}

/// Moments of a first-order method, and its kernels.
pub(in crate::optim) struct Moments {
    method: FirstOrderMethod,
    first: Vector,
    second: Vector,
    /// All that the kernel needs beside vectors: settings, the loss, and `(g.m, g.g, m.m)` before a step.
    scalars: Slice,
    partials: Slice,
}

impl Moments {
    pub(in crate::optim) fn new(
        gpu: &Gpu,
        layout: &Arc<Layout>,
        method: FirstOrderMethod,
    ) -> Result<Self> {
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
    pub(in crate::optim) fn upload(&self, gpu: &Gpu, settings: &[f32; 8]) -> Result<()> {
        gpu.upload(&self.scalars, 0, settings)
    }

    /// What is read after a step: for [`loss`](Self::loss) and [`sums`](Self::sums).
    pub(in crate::optim) fn reads(&self) -> &Slice {
        &self.scalars
    }

    /// The loss before the step.
    pub(in crate::optim) fn loss(scalars: &[f32]) -> f32 {
        scalars[FIRST_ORDER_LOSS]
    }

    /// `(g.m, g.g, m.m)` before the step.
    pub(in crate::optim) fn sums(scalars: &[f32]) -> &[f32] {
        &scalars[FIRST_ORDER_SUMS..]
    }

    /// Records what must be known before a step: the loss and the inner products.
    pub(in crate::optim) fn record_sums(
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
    pub(in crate::optim) fn record_step(
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
    pub(in crate::optim) fn moves(&self, settings: &[f32; 8], sums: &[f32]) -> bool {
        Self::reaches(self.method, settings, sums)
    }

    /// The same of a method, from what the kernel was given.
    pub(in crate::optim) fn reaches(
        method: FirstOrderMethod,
        settings: &[f32; 8],
        sums: &[f32],
    ) -> bool {
        sums[1].is_finite() && reach(method, settings, sums) < LONGEST_STEP
    }

    /// What must be remembered.
    pub(in crate::optim) fn remembered(&self) -> Vec<(&'static str, &Vector)> {
        let names = remembered(self.method).iter().copied();
        names.zip([&self.first, &self.second]).collect()
    }

    /// The same, for a state.
    pub(in crate::optim) fn tensors(&self) -> Vec<StateTensor> {
        let remembered = self.remembered().into_iter();
        remembered
            .map(|(name, vector)| StateTensor::vector(name, vector))
            .collect()
    }

    pub(in crate::optim) async fn restore(&self, gpu: &Gpu, state: &OptimizerState) -> Result<()> {
        let tensors = self.tensors();
        for (name, vector) in self.remembered() {
            saved::vector(state, name, vector.layout())?;
        }
        for tensor in &tensors {
            tensor.restore(gpu, state).await?;
        }
        Ok(())
    }
}
