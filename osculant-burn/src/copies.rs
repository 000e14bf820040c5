//! Copies on the device, between tensors of burn's and slices of osculant's.

use burn::tensor::Tensor;
use osculant::Result;
use osculant::gpu::{Gpu, Slice};

use crate::stored::Stored;

/// Copies to be submitted together, after what burn had to do with the tensors.
#[derive(Default)]
pub(crate) struct Copies {
    from_burn: Vec<(Stored, Slice)>,
    to_burn: Vec<(Slice, Stored)>,
    zeros: Vec<Slice>,
}

impl Copies {
    /// A tensor without automatic differentiation to a slice of as many elements.
    pub(crate) fn read<const D: usize>(&mut self, tensor: Tensor<D>, to: &Slice) -> Result<()> {
        self.from_burn.push((Stored::read(tensor)?, to.clone()));
        Ok(())
    }

    /// A slice to memory of a tensor of as many elements.
    pub(crate) fn write(&mut self, from: &Slice, to: Stored) {
        self.to_burn.push((from.clone(), to));
    }

    /// Zeros to a slice.
    pub(crate) fn zeros(&mut self, to: &Slice) {
        self.zeros.push(to.clone());
    }

    /// Submits all.
    pub(crate) fn submit(self, gpu: &Gpu) -> Result<()> {
        let read = self.from_burn.last().map(|(stored, _)| stored);
        let written = self.to_burn.last().map(|(_, stored)| stored);
        if let Some(stored) = read.or(written) {
            stored.flush()?;
        }
        gpu.submit(|recorder| {
            let encoder = recorder.encoder();
            for slice in &self.zeros {
                encoder.clear_buffer(slice.buffer(), slice.offset_bytes(), Some(slice.bytes()));
            }
            for (from, to) in &self.from_burn {
                let (buffer, start) = from.range();
                let (there, at) = (to.buffer(), to.offset_bytes());
                encoder.copy_buffer_to_buffer(buffer, start, there, at, to.bytes());
            }
            for (from, to) in &self.to_burn {
                let (buffer, start) = to.range();
                let (here, at) = (from.buffer(), from.offset_bytes());
                encoder.copy_buffer_to_buffer(here, at, buffer, start, from.bytes());
            }
        })
    }
}
