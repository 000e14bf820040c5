//! Sizes that kernels read from a uniform, so that one compiled kernel serves many of them.

use std::collections::HashMap;

use super::buffer::{ELEMENT, Slice};
use super::device::Gpu;
use super::health::lock;
use crate::error::Result;

/// Sizes of a kernel: as many as one binding holds.
pub(crate) type Sizes = [u32; 4];

/// Bindings in one buffer.
const IN_A_BUFFER: usize = 64;

/// What is bound for all sizes that a kernel was ever recorded with: a few bytes each, which stay as long as the device, as compiled
/// kernels do.
#[derive(Default)]
pub(super) struct Known {
    slices: HashMap<Sizes, Slice>,
    /// The places that are not taken yet.
    free: Vec<Slice>,
}

impl Gpu {
    /// A binding that holds these sizes.
    ///
    /// # Errors
    /// [`Error::OutOfMemory`](crate::Error::OutOfMemory), [`Error::DeviceLost`](crate::Error::DeviceLost).
    pub(crate) fn sizes(&self, sizes: Sizes) -> Result<Slice> {
        let mut known = lock(&self.shared.sizes);
        if let Some(slice) = known.slices.get(&sizes) {
            return Ok(slice.clone());
        }
        if known.free.is_empty() {
            let bytes = u64::from(self.limits().min_uniform_buffer_offset_alignment);
            let apart = (bytes / ELEMENT) as usize;
            // Slices start where storage bindings may, too.
            let apart = apart.next_multiple_of(self.alignment()).max(sizes.len());
            let buffer = self.uniform("sizes of kernels", apart * IN_A_BUFFER)?;
            known.free = (0..IN_A_BUFFER)
                .map(|place| buffer.slice(apart * place..apart * place + sizes.len()))
                .collect::<Result<_>>()?;
        }
        let slice = known.free[known.free.len() - 1].clone();
        self.upload(&slice, 0, &sizes)?;
        known.free.pop();
        known.slices.insert(sizes, slice.clone());
        Ok(slice)
    }
}
