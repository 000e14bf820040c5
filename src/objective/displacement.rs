//! Points on both sides of parameters along a direction, for central differences.

use crate::error::Result;
use crate::gpu::{Gpu, Recording, Slice};
use crate::kernels::vector::{
    DISPLACEMENT_COEFFICIENTS, combine, displacement, inner_products, partial_elements,
};
use crate::vector::Vector;

/// `theta + e v`, then `theta - e v`, in one place, with `e` from `|theta|` and `|v|`: see [`FiniteDifferences`](super::FiniteDifferences).
#[derive(Debug)]
pub(super) struct Displacement {
    theta: Vector,
    direction: Vector,
    /// Where the points are made.
    pub(super) point: Vector,
    sums: Slice,
    partials: Slice,
    coefficients: Slice,
}

impl Displacement {
    pub(super) fn new(gpu: &Gpu, theta: &Vector, direction: &Vector) -> Result<Self> {
        Ok(Self {
            theta: theta.uncounted(),
            direction: direction.clone(),
            point: Vector::new(gpu, "displaced parameters", theta.layout())?,
            sums: gpu.buffer("squares of direction and parameters", 3)?,
            partials: gpu.buffer("partial sums", partial_elements(theta.slice()))?,
            coefficients: gpu.buffer("displacement", DISPLACEMENT_COEFFICIENTS)?,
        })
    }

    /// Records how far to go, and the point ahead.
    pub(super) fn ahead(&self, gpu: &Gpu, recording: &mut Recording, length: f32) -> Result<()> {
        let (v, theta) = (self.direction.slice(), self.theta.slice());
        inner_products(gpu, recording, (&self.sums, 0), &self.partials, v, theta)?;
        displacement(gpu, recording, length, &self.sums, &self.coefficients)?;
        self.displaced(gpu, recording, 0)
    }

    /// Records the point behind, after that ahead.
    pub(super) fn behind(&self, gpu: &Gpu, recording: &mut Recording) -> Result<()> {
        self.displaced(gpu, recording, 2)
    }

    fn displaced(&self, gpu: &Gpu, recording: &mut Recording, factors: usize) -> Result<()> {
        let (to, theta, v) = (
            self.point.slice(),
            self.theta.slice(),
            self.direction.slice(),
        );
        combine(gpu, recording, to, theta, v, (&self.coefficients, factors))
    }

    /// Records `to = (ahead - behind) / 2e`.
    pub(super) fn difference(
        &self,
        gpu: &Gpu,
        recording: &mut Recording,
        to: &Slice,
        [ahead, behind]: [&Slice; 2],
    ) -> Result<()> {
        let factors = (&self.coefficients, 4);
        combine(gpu, recording, to, ahead, behind, factors)
    }
}
