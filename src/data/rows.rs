//! A batch of a data set by the numbers of its rows.

use std::ops::Range;

use super::cut::{self, Cut};
use super::dataset::equal_weights;
use super::{Batch, Dataset};
use crate::{Error, Result};

/// Rows of a data set by their numbers, with the weight of each: what a [`Batch`] is where the rows are on the device already
/// ([`DeviceDataset`](super::DeviceDataset)), and of the same loss to the bit.
///
/// ```
/// use osculant::data::{Rows, digits};
///
/// let rows = Rows::new(&[3, 14, 15])?.pad_to(4)?;
/// assert_eq!(rows.batch(&digits()?)?, digits()?.batch(&[3, 14, 15])?.pad_to(4)?);
/// # Ok::<(), osculant::Error>(())
/// ```
#[derive(Debug, Clone, PartialEq)]
pub struct Rows {
    /// The filling ones, [`NONE`](Self::NONE), come last.
    numbers: Vec<u32>,
    weights: Vec<f32>,
}

impl Rows {
    /// The number of no row: those that fill a batch up ([`pad_to`](Self::pad_to)), which have inputs and targets of zeros.
    pub const NONE: u32 = u32::MAX;

    /// These rows, each with the weight `1/n`; a row may occur more than once. Whether they are all there is checked with the data set.
    ///
    /// # Errors
    /// [`Error::Data`] when no row is chosen, or a number is beyond those that the device counts with.
    pub fn new(numbers: &[usize]) -> Result<Self> {
        if numbers.is_empty() {
            return Err(bad("it has no rows; give at least one".into()));
        }
        let number = |&row: &usize| {
            let small = u32::try_from(row).ok().filter(|&row| row != Self::NONE);
            small.ok_or_else(|| {
                bad(format!(
                    "row {row} is beyond those that a data set may have"
                ))
            })
        };
        Ok(Self {
            numbers: numbers.iter().map(number).collect::<Result<_>>()?,
            weights: equal_weights(numbers.len()),
        })
    }

    /// The same rows with these weights, which are taken as they are.
    ///
    /// # Errors
    /// [`Error::Data`] unless there is one weight for each row, from 0 on, and not all are 0; a weight for a row that only fills.
    pub fn with_weights(self, weights: Vec<f32>) -> Result<Self> {
        if weights.len() != self.len() {
            let (found, rows) = (weights.len(), self.len());
            return Err(bad(format!("{found} weights for {rows} rows")));
        }
        cut::check_weights(&weights)?;
        if weights.iter().all(|&weight| weight == 0.0) {
            return Err(bad("all weights are zero; some row must count".into()));
        }
        if let Some(row) = (self.chosen()..weights.len()).find(|&row| weights[row] > 0.0) {
            return Err(bad(format!(
                "row {row} only fills the batch up; leave its weight at 0"
            )));
        }
        Ok(Self { weights, ..self })
    }

    /// The row numbers, [`NONE`](Self::NONE) for those that fill.
    #[must_use]
    pub fn numbers(&self) -> &[u32] {
        &self.numbers
    }

    /// Weight of each row in the loss, from 0 on.
    #[must_use]
    pub fn weights(&self) -> &[f32] {
        &self.weights
    }

    /// Number of rows, the filling ones included.
    #[must_use]
    #[expect(clippy::len_without_is_empty, reason = "there is at least one")]
    pub fn len(&self) -> usize {
        self.numbers.len()
    }

    /// Number of examples: rows whose weight is not zero.
    #[must_use]
    pub fn examples(&self) -> usize {
        self.weights.iter().filter(|weight| **weight > 0.0).count()
    }

    /// What the weights add up to.
    #[must_use]
    pub fn total_weight(&self) -> f64 {
        cut::total(&self.weights)
    }

    /// Rows that do not only fill.
    fn chosen(&self) -> usize {
        let fills = |&&number: &&u32| number == Self::NONE;
        self.len() - self.numbers.iter().rev().take_while(fills).count()
    }

    /// Appends rows of weight zero until there are `rows`; see [`Batch::pad_to`].
    ///
    /// # Errors
    /// [`Error::Data`] when there are more already.
    pub fn pad_to(mut self, rows: usize) -> Result<Self> {
        let present = self.len();
        if present > rows {
            return Err(bad(format!(
                "{present} rows do not fit a program made for {rows}"
            )));
        }
        self.numbers.resize(rows, Self::NONE);
        self.weights.resize(rows, 0.0);
        Ok(self)
    }

    /// The rows in groups of as many each; see [`Batch::in_groups`].
    ///
    /// # Errors
    /// [`Error::Data`] when the rows cannot be shared out evenly, or a group would have no example.
    pub fn in_groups(&self, groups: usize) -> Result<Self> {
        let cut = cut::groups(&self.weights, groups)?;
        Ok(cut.map_or_else(|| self.clone(), |cut| self.cut(cut)))
    }

    /// The rows in these ranges; see [`Batch::part`].
    ///
    /// # Errors
    /// [`Error::Data`] when a range reaches beyond the rows, or the part would have no example.
    pub fn part(&self, ranges: &[Range<usize>]) -> Result<Self> {
        self.cut(cut::part(&self.weights, ranges)?)
            .pad_to(ranges.iter().map(ExactSizeIterator::len).sum())
    }

    fn cut(&self, Cut { places, weights }: Cut) -> Self {
        Self {
            numbers: places.iter().map(|&place| self.numbers[place]).collect(),
            weights,
        }
    }

    /// What is in these rows of a data set.
    ///
    /// # Errors
    /// [`Error::Data`] when a row does not exist.
    pub fn batch(&self, dataset: &Dataset) -> Result<Batch> {
        let chosen = &self.numbers[..self.chosen()];
        let rows: Vec<usize> = chosen.iter().map(|&row| row as usize).collect();
        let mut batch = dataset.batch(&rows)?.pad_to(self.len())?;
        batch.weights.clone_from(&self.weights);
        Ok(batch)
    }

    /// Fails unless a data set of so many rows has all of them.
    pub(super) fn check(&self, name: &str, rows: usize) -> Result<()> {
        let beyond = |&&row: &&u32| row != Self::NONE && row as usize >= rows;
        match self.numbers.iter().find(beyond) {
            None => Ok(()),
            Some(row) => Err(Error::Data {
                what: name.to_owned(),
                message: format!("the batch asks for row {row} of {rows}, counted from 0"),
            }),
        }
    }
}

fn bad(message: String) -> Error {
    Error::Data {
        what: "batch".to_owned(),
        message,
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;
    use crate::data::Targets;
    use proptest::prelude::*;

    fn data() -> Dataset {
        let features = (1..=18).map(|i| i as f32).collect();
        let labels = (0..9).map(|i| i % 3).collect();
        Dataset::new("nine", features, 2, Targets::Classes { labels, classes: 3 }).unwrap()
    }

    #[test]
    fn rows_without_sense_are_refused() {
        let message = |result: Result<Rows>| result.unwrap_err().to_string();
        let rows = || Rows::new(&[4, 0]).unwrap();
        assert!(message(Rows::new(&[])).contains("no rows"));
        assert!(message(Rows::new(&[1, u32::MAX as usize])).contains("row 4294967295"));
        assert!(message(rows().with_weights(vec![1.0])).contains("1 weights for 2 rows"));
        assert!(message(rows().with_weights(vec![0.0; 2])).contains("all weights"));
        assert!(message(rows().with_weights(vec![1.0, f32::NAN])).contains("row 1 has weight NaN"));
        let filled = || rows().pad_to(3).unwrap();
        assert!(message(filled().with_weights(vec![1.0; 3])).contains("row 2 only fills"));
        assert!(message(filled().pad_to(2)).contains("3 rows do not fit"));
        let whole = 0..4;
        assert!(message(rows().part(&[whole])).contains("cannot be cut"));
        assert!(message(rows().in_groups(3)).contains("cannot be cut"));
        let error = Rows::new(&[8, 9]).unwrap().check("nine", 9).unwrap_err();
        assert!(error.to_string().contains("row 9 of 9"), "{error}");
        assert!(Rows::new(&[9]).unwrap().batch(&data()).is_err());
    }

    proptest! {
        /// Cut as rows and looked up then, or looked up and cut as a batch: the same.
        #[test]
        fn rows_are_cut_as_batches_are(
            chosen in prop::collection::vec(0usize..9, 1..12), filling in 0usize..6, groups in 1usize..4, at in 0usize..12,
        ) {
            let data = data();
            let (count, rows) = (chosen.len(), chosen.len() + filling);
            let weights: Vec<f32> = (0..rows).map(|i| if i < count { 0.1 + i as f32 } else { 0.0 }).collect();
            let cut = Rows::new(&chosen).unwrap().pad_to(rows).unwrap().with_weights(weights.clone()).unwrap();
            let mut batch = data.batch(&chosen).unwrap().pad_to(rows).unwrap();
            batch.weights = weights;
            prop_assert_eq!(&cut.batch(&data).unwrap(), &batch);
            prop_assert_eq!((cut.len(), cut.examples()), (batch.len(), batch.examples()));
            prop_assert_eq!(cut.total_weight(), batch.total_weight());
            let found = cut.in_groups(groups).and_then(|rows| rows.batch(&data)).ok();
            prop_assert_eq!(found, batch.in_groups(groups).ok().map(std::borrow::Cow::into_owned));
            let ranges = [0..at.min(rows), at.min(rows)..rows, 1.min(rows)..rows];
            for range in ranges {
                let ranges = [range];
                let found = cut.part(&ranges).and_then(|rows| rows.batch(&data)).ok();
                prop_assert_eq!(found, batch.part(&ranges).ok());
            }
        }
    }
}
