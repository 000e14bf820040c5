//! What takes back a change of an optimizer's vectors.

use crate::error::Result;
use crate::gpu::{Gpu, Recording, Slice};

/// Copies of what a step overwrites before it is known whether it will be taken. Twice the memory of what they are copies of, and `8 N`
/// bytes moved for `N` bytes kept.
pub(super) struct Undo {
    /// Makes the copies.
    pub(super) keep: Recording,
    /// Brings them back.
    pub(super) back: Recording,
    /// Whether there is anything to bring back.
    kept: bool,
}

impl Undo {
    pub(super) fn new(gpu: &Gpu, slices: &[Slice]) -> Result<Self> {
        let (mut keep, mut back) = (Recording::new(), Recording::new());
        for slice in slices {
            let copy = gpu.storage("copy for taking back a step", slice.len())?;
            keep.copy(slice, &copy)?;
            back.copy(&copy, slice)?;
        }
        Ok(Self {
            keep,
            back,
            kept: false,
        })
    }

    /// Makes the copies; what is changed from now on can be taken back.
    pub(super) fn begin(&mut self, gpu: &Gpu) -> Result<()> {
        gpu.submit(|recorder| recorder.replay(&self.keep))?;
        self.kept = true;
        Ok(())
    }

    /// What to replay to take the changes since [`begin`](Self::begin) back, if any.
    pub(super) fn pending(&self) -> Option<&Recording> {
        self.kept.then_some(&self.back)
    }

    /// The changes stay, or were taken back.
    pub(super) fn end(&mut self) {
        self.kept = false;
    }
}
