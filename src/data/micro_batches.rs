//! Batches that are too large for one pass.

use super::{Batch, Dataset};
use crate::{Error, Result};

/// A batch in parts, each with the factor of its loss: `sum_i share_i loss_i`. For the mean over all examples each share is the part of the
/// examples that are in the micro-batch, so that the shares add up to 1.
#[derive(Clone, Debug, PartialEq)]
pub struct MicroBatches<B> {
    parts: Vec<(B, f64)>,
}

impl<B> MicroBatches<B> {
    /// Of parts with their shares.
    ///
    /// # Errors
    /// [`Error::Data`] for no parts, and shares that are not positive numbers.
    pub fn new(parts: Vec<(B, f64)>) -> Result<Self> {
        let bad = |message: String| {
            Err(Error::Data {
                what: "micro-batches".into(),
                message,
            })
        };
        if parts.is_empty() {
            return bad("there are none; give at least one".into());
        }
        if let Some((_, share)) = parts.iter().find(|(_, s)| !s.is_finite() || *s <= 0.0) {
            return bad(format!("a share of {share} is not a positive number"));
        }
        Ok(Self { parts })
    }

    /// The micro-batches with their shares.
    #[must_use]
    pub fn parts(&self) -> &[(B, f64)] {
        &self.parts
    }
}

impl Dataset {
    /// The chosen rows in micro-batches of up to `rows` rows, all padded to equal numbers, whose mean is that of the rows.
    ///
    /// # Errors
    /// As [`batch`](Self::batch).
    pub fn micro_batches(&self, chosen: &[usize], rows: usize) -> Result<MicroBatches<Batch>> {
        let count = chosen.len().div_ceil(rows.max(1)).max(1);
        let rows = chosen.len().div_ceil(count).max(1);
        let part = |chosen_part: &[usize]| {
            let share = chosen_part.len() as f64 / chosen.len() as f64;
            Ok((self.batch(chosen_part)?.pad_to(rows)?, share))
        };
        MicroBatches::new(chosen.chunks(rows).map(part).collect::<Result<_>>()?)
    }
}
