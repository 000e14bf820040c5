//! An operator between two copies of another: what a change of variables makes of it.

use super::linear::Linear;
use super::operator::Operator;
use crate::error::Result;
use crate::gpu::{Gpu, Slice, Work};
use crate::kernels::vector::combine;
use crate::vector::Vector;

/// `F (C + shift) F`: the matrix of the quadratic after `x = F y`. A product is one with `C` and two with `F`.
#[derive(Debug)]
pub(crate) struct Sandwich {
    pub(crate) operator: Operator,
    /// `[1, shift]`
    shift: Slice,
}

impl Sandwich {
    pub(crate) fn new(gpu: &Gpu, inner: &Operator, filter: &mut dyn Linear) -> Result<Self> {
        let layout = inner.input.layout();
        let new = |label: &str| Vector::new(gpu, label, layout);
        let (input, output) = (new("direction before F")?, new("product after F")?);
        let shifted = new("shifted product")?;
        let shift = gpu.buffer("shift", 2)?;
        let mut multiply = Work::new();
        filter.record(gpu, multiply.tail(), &input, &inner.input)?;
        multiply.append(inner.multiply.clone());
        let (sum, product, x) = (shifted.slice(), inner.output.slice(), inner.input.slice());
        combine(gpu, multiply.tail(), sum, product, x, (&shift, 0))?;
        filter.record(gpu, multiply.tail(), &shifted, &output)?;
        Ok(Self {
            operator: Operator {
                input,
                output,
                multiply,
            },
            shift,
        })
    }

    /// Sets the shift.
    pub(crate) fn set(&self, gpu: &Gpu, shift: f64) -> Result<()> {
        gpu.upload(&self.shift, 0, &[1.0, shift as f32])
    }
}
