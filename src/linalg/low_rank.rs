//! Functions of a low-rank matrix as operators on vectors.

use crate::error::Result;
use crate::gpu::{Gpu, Recording, Slice};
use crate::kernels::blocks::{Rows, weigh};
use crate::kernels::vector::combine;
use crate::linalg::linear::Linear;
use crate::linalg::{Basis, Operator};
use crate::vector::Vector;

/// `F x = factor x + sum over i of weights[i] (u_i . x) u_i`, for the vectors `u_i` of a basis: where they are orthonormal, any function of
/// a low-rank matrix plus a multiple of the identity. `4 r P` flops, and about as many bytes as the basis has, twice.
#[derive(Debug)]
pub struct LowRank {
    basis: Basis,
    products: Slice,
    /// The weights, and as many zeros.
    weights: Slice,
    coefficients: Slice,
    /// `[1, factor]`
    factors: Slice,
    sum: Vector,
}

impl LowRank {
    /// Of a basis, whose vectors may change later. Allocates one vector.
    ///
    /// # Errors
    /// Limits of the device, [`Error::OutOfMemory`](crate::Error::OutOfMemory).
    pub fn new(gpu: &Gpu, basis: &Basis) -> Result<Self> {
        let rank = basis.rank();
        Ok(Self {
            basis: basis.clone(),
            products: gpu.buffer("projections", rank)?,
            weights: gpu.buffer("weights of projections", 2 * rank)?,
            coefficients: gpu.buffer("coefficients of a basis", rank)?,
            factors: gpu.buffer("factor of the identity", 2)?,
            sum: Vector::new(gpu, "low-rank part", basis.layout())?,
        })
    }

    /// Sets the factor of the identity and the weights, of which missing ones are zero; products submitted before keep those of then.
    ///
    /// # Errors
    /// Loss of the device.
    pub fn set(&self, gpu: &Gpu, factor: f64, weights: &[f64]) -> Result<()> {
        let mut all: Vec<f32> = weights.iter().map(|&w| w as f32).collect();
        all.truncate(self.basis.rank());
        all.resize(self.weights.len(), 0.0);
        gpu.upload(&self.weights, 0, &all)?;
        gpu.upload(&self.factors, 0, &[1.0, factor as f32])
    }

    /// As an operator for solvers, which can be summed, shifted and chained with others. Allocates two vectors, `8 P` bytes; the numbers are
    /// those that are [`set`](Self::set) when a product is submitted.
    ///
    /// # Errors
    /// Limits of the device, [`Error::OutOfMemory`](crate::Error::OutOfMemory).
    pub fn operator(&self, gpu: &Gpu) -> Result<Operator> {
        let new = |label: &str| Vector::new(gpu, label, self.basis.layout());
        let (input, output) = (new("direction")?, new("product")?);
        let mut multiply = Recording::new();
        self.record(gpu, &mut multiply, &input, &output)?;
        Ok(Operator {
            input,
            output,
            multiply: multiply.into(),
        })
    }

    /// Records `out = F x`; `out` must be another vector.
    pub(crate) fn record(
        &self,
        gpu: &Gpu,
        recording: &mut Recording,
        x: &Vector,
        out: &Vector,
    ) -> Result<()> {
        self.basis
            .record_products(gpu, recording, &x.into(), &self.products)?;
        let (c, p) = (&self.coefficients, &self.products);
        weigh(gpu, recording, c, &self.weights, p, p)?;
        self.basis
            .record_combination(gpu, recording, &Rows::from(&self.sum), c, false)?;
        let (sum, x) = (self.sum.slice(), x.slice());
        combine(gpu, recording, out.slice(), sum, x, (&self.factors, 0))
    }
}

impl Linear for LowRank {
    fn record(
        &mut self,
        gpu: &Gpu,
        recording: &mut Recording,
        x: &Vector,
        out: &Vector,
    ) -> Result<()> {
        LowRank::record(self, gpu, recording, x, out)
    }

    fn flops(&self) -> f64 {
        4.0 * (self.basis.rank() * self.basis.layout().len()) as f64
    }
}
