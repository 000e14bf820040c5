//! What takes back a change of an optimizer's vectors.

use crate::error::Result;
use crate::gpu::{Gpu, Recording, Slice};
use crate::kernels::step::take;

/// Copies of what a step overwrites before it is known whether it will be taken. Twice the memory of what they are copies of, and `8 N`
/// bytes moved for `N` bytes kept.
pub(super) struct Undo {
    /// Makes the copies.
    pub(super) keep: Recording,
    /// Brings them back.
    pub(super) back: Recording,
    /// What is changed, and the copy of it.
    pairs: Vec<[Slice; 2]>,
    /// Whether there is anything to bring back.
    kept: bool,
}

impl Undo {
    pub(super) fn new(gpu: &Gpu, slices: &[Slice]) -> Result<Self> {
        let (mut keep, mut back) = (Recording::new(), Recording::new());
        let mut pairs = Vec::with_capacity(slices.len());
        for slice in slices {
            let copy = gpu.storage("copy for taking back a step", slice.len())?;
            keep.copy(slice, &copy)?;
            back.copy(&copy, slice)?;
            pairs.push([slice.clone(), copy]);
        }
        Ok(Self {
            keep,
            back,
            pairs,
            kept: false,
        })
    }

    /// Makes the copies; what is changed from now on can be taken back.
    pub(super) fn begin(&mut self, gpu: &Gpu) -> Result<()> {
        gpu.submit(|recorder| recorder.replay(&self.keep))?;
        self.kept = true;
        Ok(())
    }

    /// Records what takes changes since [`keep`](Self::keep) back where the device itself says so.
    pub(super) fn record_back(
        &self,
        gpu: &Gpu,
        recording: &mut Recording,
        flag: (&Slice, usize),
    ) -> Result<()> {
        let mut pairs = self.pairs.iter();
        pairs.try_for_each(|[to, copy]| take(gpu, recording, to, copy, flag))
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
