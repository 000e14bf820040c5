//! The order in which the rows of a data set are seen.

use crate::random::Philox;
use crate::{Error, Result};
use rand::seq::SliceRandom;
use serde::{Deserialize, Serialize};

/// Endless mini-batches without replacement: every epoch is a fresh permutation of all rows, cut into batches.
///
/// The permutation of epoch `e` depends only on the seed and `e` (it is shuffled by stream `e` of [`Philox`]), not on
/// the size of the batches or on what happened before; so a state of four numbers is enough to resume.
///
/// ```
/// # use osculant::data::Epochs;
/// let mut epochs = Epochs::new(5, 2, 1)?;
/// let sizes = [(); 4].map(|()| epochs.next_batch().len());
/// assert_eq!(sizes, [2, 2, 1, 2]);
/// # Ok::<(), osculant::Error>(())
/// ```
#[derive(Debug, Clone)]
pub struct Epochs {
    batch: usize,
    state: EpochsState,
    /// Permutation of the rows in the present epoch.
    order: Vec<usize>,
}

/// Where a run through the data stands; to be stored with a checkpoint.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct EpochsState {
    /// Seed of all permutations.
    pub seed: u64,
    /// The present epoch, from 0.
    pub epoch: u64,
    /// Rows of the present epoch that were already given out.
    pub position: usize,
    /// Whether a short last batch is left out.
    #[serde(default)]
    pub drop_last: bool,
}

impl Epochs {
    /// Batches of `batch` out of `rows` rows, from the start of epoch 0.
    ///
    /// The last batch of an epoch is shorter when `batch` does not divide `rows`; see [`Epochs::drop_last`].
    ///
    /// # Errors
    /// [`Error::Data`] when there are no rows, [`Error::Option`] unless `batch` is between 1 and `rows`.
    pub fn new(rows: usize, batch: usize, seed: u64) -> Result<Self> {
        let state = EpochsState {
            seed,
            epoch: 0,
            position: 0,
            drop_last: false,
        };
        Self::resume(rows, batch, state)
    }

    /// Continues at `state`: the batches are those that the stored run would have given next.
    ///
    /// # Errors
    /// As [`Epochs::new`], and [`Error::Data`] when the state lies beyond `rows`.
    pub fn resume(rows: usize, batch: usize, state: EpochsState) -> Result<Self> {
        let bad = |message| Error::Data {
            what: "epochs".to_owned(),
            message,
        };
        if rows == 0 {
            return Err(bad("there are no rows to draw batches from".to_owned()));
        }
        if batch == 0 || batch > rows {
            return Err(Error::Option {
                option: "batch".to_owned(),
                message: format!("a batch of {batch} out of {rows} rows; take 1 to {rows}"),
            });
        }
        if state.position > rows {
            let position = state.position;
            return Err(bad(format!(
                "the stored run had seen {position} rows of its epoch, but there are {rows}: it was over other data"
            )));
        }
        let mut epochs = Self {
            batch,
            state,
            order: (0..rows).collect(),
        };
        epochs.shuffle();
        Ok(epochs)
    }

    /// Leaves out (or not) the last batch of an epoch when it is shorter than the others; default: it is kept.
    ///
    /// The rows left out differ from epoch to epoch.
    #[must_use]
    pub fn drop_last(mut self, drop_last: bool) -> Self {
        self.state.drop_last = drop_last;
        self
    }

    /// The rows of the next batch; after the last one of an epoch the next epoch begins.
    pub fn next_batch(&mut self) -> &[usize] {
        let left = self.order.len() - self.state.position;
        if left == 0 || (self.state.drop_last && left < self.batch) {
            self.state.epoch = self.state.epoch.wrapping_add(1);
            self.state.position = 0;
            self.shuffle();
        }
        let start = self.state.position;
        let end = self.order.len().min(start + self.batch);
        self.state.position = end;
        &self.order[start..end]
    }

    /// Examples in a batch.
    #[must_use]
    pub fn batch(&self) -> usize {
        self.batch
    }

    /// Batches in one epoch.
    #[must_use]
    pub fn batches_per_epoch(&self) -> usize {
        if self.state.drop_last {
            self.order.len() / self.batch
        } else {
            self.order.len().div_ceil(self.batch)
        }
    }

    /// Where the run stands, to be given to [`Epochs::resume`].
    #[must_use]
    pub fn state(&self) -> EpochsState {
        self.state
    }

    fn shuffle(&mut self) {
        // From the identity each time, so that no epoch depends on the one before.
        for (row, slot) in self.order.iter_mut().enumerate() {
            *slot = row;
        }
        let mut random = Philox::new(self.state.seed, self.state.epoch);
        self.order.shuffle(&mut random);
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn epoch(epochs: &mut Epochs) -> Vec<usize> {
        let batches = epochs.batches_per_epoch();
        (0..batches)
            .flat_map(|_| epochs.next_batch().to_vec())
            .collect()
    }

    #[test]
    fn impossible_sizes_are_refused() {
        assert!(matches!(Epochs::new(0, 1, 0), Err(Error::Data { .. })));
        assert!(matches!(Epochs::new(5, 0, 0), Err(Error::Option { .. })));
        let error = Epochs::new(5, 6, 0).unwrap_err();
        assert!(matches!(error, Error::Option { .. }), "{error}");
        assert!(
            error.to_string().contains("a batch of 6 out of 5 rows"),
            "{error}"
        );
    }

    #[test]
    fn a_state_of_other_data_is_refused() {
        let mut epochs = Epochs::new(10, 9, 0).unwrap();
        epochs.next_batch();
        assert!(matches!(
            Epochs::resume(5, 2, epochs.state()),
            Err(Error::Data { .. })
        ));
    }

    #[test]
    fn a_state_without_the_last_field_still_loads() {
        let state: EpochsState =
            serde_json::from_str(r#"{"seed":3,"epoch":1,"position":4}"#).unwrap();
        assert!(!state.drop_last);
    }

    /// Pinned, so that a change of generator or shuffle, which would make old runs irreproducible, does not go unseen.
    #[test]
    fn the_first_permutations_of_seed_one_are_as_ever() {
        let mut epochs = Epochs::new(8, 8, 1).unwrap();
        assert_eq!(epoch(&mut epochs), [1, 6, 7, 5, 2, 4, 0, 3]);
        assert_eq!(epoch(&mut epochs), [6, 7, 5, 2, 3, 4, 1, 0]);
    }

    proptest! {
        #[test]
        fn every_row_comes_exactly_once_per_epoch(rows in 1usize..80, size in 1usize..80, seed: u64) {
            let batch = size.min(rows);
            let mut epochs = Epochs::new(rows, batch, seed).unwrap();
            for number in 0..3 {
                let mut seen = epoch(&mut epochs);
                prop_assert_eq!(epochs.state().epoch, number);
                seen.sort_unstable();
                prop_assert_eq!(seen, (0..rows).collect::<Vec<_>>());
            }
        }

        #[test]
        fn full_batches_only_when_the_last_is_dropped(rows in 1usize..80, size in 1usize..80, seed: u64) {
            let batch = size.min(rows);
            let mut epochs = Epochs::new(rows, batch, seed).unwrap().drop_last(true);
            for number in 0..3 {
                let mut seen = Vec::new();
                for _ in 0..rows / batch {
                    let rows = epochs.next_batch();
                    prop_assert_eq!(rows.len(), batch);
                    seen.extend_from_slice(rows);
                }
                prop_assert_eq!(epochs.state().epoch, number);
                seen.sort_unstable();
                seen.dedup();
                prop_assert_eq!(seen.len(), rows / batch * batch);
            }
        }

        #[test]
        fn a_resumed_run_goes_on_as_if_never_interrupted(
            rows in 1usize..40, size in 1usize..40, seed: u64, before in 0usize..30, drop_last: bool,
        ) {
            let batch = size.min(rows);
            let mut whole = Epochs::new(rows, batch, seed).unwrap().drop_last(drop_last);
            for _ in 0..before {
                whole.next_batch();
            }
            let stored = serde_json::to_string(&whole.state()).unwrap();
            let state = serde_json::from_str(&stored).unwrap();
            let mut resumed = Epochs::resume(rows, batch, state).unwrap();
            for _ in 0..30 {
                prop_assert_eq!(whole.next_batch(), resumed.next_batch());
            }
            prop_assert_eq!(whole.state(), resumed.state());
        }

        #[test]
        fn an_epoch_does_not_depend_on_the_size_of_the_batches(rows in 1usize..40, size in 1usize..40, seed: u64) {
            let mut all = Epochs::new(rows, rows, seed).unwrap();
            let mut cut = Epochs::new(rows, size.min(rows), seed).unwrap();
            for _ in 0..3 {
                prop_assert_eq!(epoch(&mut all), epoch(&mut cut));
            }
        }
    }
}
