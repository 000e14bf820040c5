//! Operations that fail on purpose: what a test needs to see what an error leaves behind, at every point where there may be one.

use std::sync::atomic::{AtomicU64, Ordering};

use super::Gpu;
use crate::error::{Error, Result};

const NEVER: u64 = u64::MAX;

/// How many operations go well before one fails.
#[derive(Debug)]
pub(super) struct Faults(AtomicU64);

impl Default for Faults {
    fn default() -> Self {
        Self(AtomicU64::new(NEVER))
    }
}

impl Faults {
    /// Counts an operation.
    pub(super) fn check(&self) -> Result<()> {
        let left = self.0.load(Ordering::Relaxed);
        if left == NEVER {
            return Ok(());
        }
        let next = left.checked_sub(1).unwrap_or(NEVER);
        self.0.store(next, Ordering::Relaxed);
        if next == NEVER {
            return Err(Error::Gpu {
                what: "an operation that a test lets fail".into(),
                message: "it was the turn of this one".into(),
            });
        }
        Ok(())
    }
}

impl Gpu {
    /// Lets one operation of this device fail, after so many that go well; none again with nothing. Uploads, allocations, compilations,
    /// submissions and waits count.
    pub fn fail_after(&self, operations: Option<u64>) {
        let operations = operations.unwrap_or(NEVER);
        self.shared.faults.0.store(operations, Ordering::Relaxed);
    }

    /// Whether an operation is still to fail.
    #[must_use]
    pub fn fails_later(&self) -> bool {
        self.shared.faults.0.load(Ordering::Relaxed) != NEVER
    }
}
