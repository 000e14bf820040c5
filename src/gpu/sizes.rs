//! Sizes that kernels read from a uniform, so that one compiled kernel serves many of them.

use std::collections::HashMap;

use super::slice::Slice;
use crate::error::Result;

/// Sizes of a kernel: as many as one binding holds.
pub(crate) type Sizes = [u32; 4];

/// Bindings in one buffer.
pub(super) const IN_A_BUFFER: usize = 64;

/// What is bound for all sizes that a kernel was ever recorded with: a few bytes each, which stay as long as the device, as compiled
/// kernels do.
#[derive(Default)]
pub(super) struct Known {
    slices: HashMap<Sizes, Slice>,
    /// The places that are not taken yet.
    free: Vec<Slice>,
}

impl Known {
    /// The place that holds these sizes.
    pub(super) fn get(&self, sizes: &Sizes) -> Option<Slice> {
        self.slices.get(sizes).cloned()
    }

    /// The next place that is free.
    pub(super) fn free(&self) -> Option<Slice> {
        self.free.last().cloned()
    }

    /// Takes up the places of a buffer, so many elements apart, and gives the first.
    pub(super) fn extend(&mut self, buffer: &Slice, apart: usize) -> Result<Slice> {
        let place = |number: usize| {
            let start = apart * number;
            buffer.slice(start..start + Sizes::default().len())
        };
        let first = place(0)?;
        self.free = (1..IN_A_BUFFER).map(place).collect::<Result<_>>()?;
        self.free.push(first.clone());
        Ok(first)
    }

    /// Remembers that the next free place holds these sizes.
    pub(super) fn keep(&mut self, sizes: Sizes) {
        if let Some(slice) = self.free.pop() {
            self.slices.insert(sizes, slice);
        }
    }
}
