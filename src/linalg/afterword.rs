//! What a caller of conjugate gradients wants to know of the solution, in the submission that ends the solve.

use crate::error::Result;
use crate::gpu::{Commands, Slice};

/// What is to be computed from the solution, in the submission that ends the solve.
pub(crate) trait Afterword: Send + Sync {
    /// Gets ready for a solve that ends after iteration `end`. Where it goes along with the last iterations that is presumed: the solve may
    /// have ended before.
    fn prepare(&mut self, end: usize) -> Result<()>;
    /// What computes it.
    fn commands(&self) -> Vec<Commands<'_>>;
    /// What it wants to read.
    fn reads(&self) -> Vec<&Slice>;
}

/// No afterword.
pub(super) struct Nothing;

impl Afterword for Nothing {
    fn prepare(&mut self, _: usize) -> Result<()> {
        Ok(())
    }

    fn commands(&self) -> Vec<Commands<'_>> {
        Vec::new()
    }

    fn reads(&self) -> Vec<&Slice> {
        Vec::new()
    }
}
