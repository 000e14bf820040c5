//! The factors of a batch from a random mixture of its curvature's columns.

use crate::error::Result;
use crate::gpu::{Gpu, Slice, Work};
use crate::kernels::blocks::{Sketch, sketch};
use crate::objective::Kronecker;

/// High half of the stream of random numbers: no other part of the crate draws from it.
const STREAM: u32 = 10 << 16;

/// Which signs are drawn next.
pub(super) struct Mixture {
    draw: Slice,
}

impl Mixture {
    pub(super) fn new(gpu: &Gpu) -> Result<Self> {
        let draw = gpu.buffer("sketch settings", 4)?;
        Ok(Self { draw })
    }

    /// Sets the signs of this number.
    pub(super) fn set(&self, gpu: &Gpu, seed: u64, number: u64) -> Result<()> {
        let settings = [seed as u32, (seed >> 32) as u32, number as u32, STREAM];
        gpu.upload(&self.draw, 0, &settings)
    }

    /// Draws the signs and computes the factors, after the program's linearization.
    pub(super) fn refresh(&self, gpu: &Gpu, program: &Kronecker) -> Result<Work> {
        let mut refresh = Work::new();
        let signs = &program.signs;
        sketch(gpu, refresh.tail(), signs, 0, &self.draw, Sketch::Signs)?;
        refresh.append(program.refresh.clone());
        Ok(refresh)
    }
}
