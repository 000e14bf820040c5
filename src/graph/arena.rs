//! Buffers for values that live no longer than a phase of a program, shared by programs that run one after another.

use crate::error::Result;
use crate::gpu::{Gpu, Slice};

/// Buffers that programs lend each other. A program reads in them only what it wrote there in the same phase, so any number of programs
/// that are never in the middle of one at the same time may be bound to one arena: on one queue they never are.
#[derive(Debug, Default)]
pub struct Arena {
    /// Largest first.
    buffers: Vec<Slice>,
    /// The most that any program asked for at a time.
    most: usize,
}

impl Arena {
    /// A buffer of its own for each of these numbers of elements, which may be a larger one. Where the arena has none that is large enough
    /// a new one is made; programs that were bound before keep theirs.
    pub(super) fn lend(&mut self, gpu: &Gpu, elements: &[usize]) -> Result<Vec<Slice>> {
        let mut descending: Vec<usize> = (0..elements.len()).collect();
        descending.sort_by_key(|&i| std::cmp::Reverse(elements[i]));
        for (rank, &i) in descending.iter().enumerate() {
            let fits = |slice: &Slice| slice.len() >= elements[i];
            if !self.buffers.get(rank).is_some_and(fits) {
                // Half as much again as the one that was too small, so that sizes that grow step by step leave few behind.
                let before = self.buffers.get(rank).map_or(0, Slice::len);
                let most = gpu.limits().max_storage_buffer_binding_size / 4;
                let grown = (before + before / 2).min(usize::try_from(most).unwrap_or(usize::MAX));
                let buffer = gpu.buffer("intermediate values", elements[i].max(grown))?;
                self.buffers.insert(rank, buffer);
            }
        }
        self.most = self.most.max(elements.len());
        self.buffers.truncate(self.most);
        let mut lent: Vec<(usize, Slice)> = descending
            .iter()
            .zip(&self.buffers)
            .map(|(&i, buffer)| Ok((i, buffer.slice(0..elements[i])?)))
            .collect::<Result<_>>()?;
        lent.sort_by_key(|&(i, _)| i);
        Ok(lent.into_iter().map(|(_, slice)| slice).collect())
    }

    /// Bytes of the buffers.
    #[must_use]
    pub fn bytes(&self) -> u64 {
        self.buffers.iter().map(Slice::bytes).sum()
    }
}
