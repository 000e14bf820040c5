//! A table of inputs and targets, checked once.

use super::split::split_rows;
use super::targets::select_rows;
use super::{Batch, Targets, rounding};
use crate::{Error, Result};

/// A data set in memory: rows of `width` inputs, and the target of each row.
///
/// There is at least one row, every number is finite and every label is below the number of classes.
#[derive(Debug, Clone, PartialEq)]
pub struct Dataset {
    name: String,
    features: Vec<f32>,
    /// What rounding to f32 took from each input, for [`standardise`](super::standardise); empty where it took nothing.
    remainders: Vec<f32>,
    width: usize,
    targets: Targets,
    /// Weight of each row in means, times their number; empty where all are 1.
    weights: Vec<f32>,
    /// The label of each class where the data came from; empty where that is the class's number.
    original_labels: Vec<u32>,
}

impl Dataset {
    /// Takes the inputs `features` (rows x `width`) and their targets, and checks them.
    ///
    /// # Errors
    /// [`Error::Data`], which names the row and column, when there is no row, the numbers of rows disagree, a number is
    /// not finite or a label is not below the number of classes.
    pub fn new(
        name: impl Into<String>,
        features: Vec<f32>,
        width: usize,
        targets: Targets,
    ) -> Result<Self> {
        let dataset = Self {
            name: name.into(),
            features,
            remainders: Vec::new(),
            width,
            targets,
            weights: Vec::new(),
            original_labels: Vec::new(),
        };
        let length = dataset.features.len();
        if length == 0 {
            return Err(dataset.bad("there is no row".to_owned()));
        }
        if width == 0 || !length.is_multiple_of(width) {
            return Err(dataset.bad(format!("{length} numbers do not make rows of {width}")));
        }
        dataset.check_finite()?;
        dataset.targets.check(&dataset.name, dataset.len())?;
        Ok(dataset)
    }

    /// As [`new`](Self::new) from inputs in f64, which are rounded. What that takes from them is kept for
    /// [`standardise`](super::standardise), so that a column whose values are large and close together (seconds since 1970) has all its
    /// digits there: its inputs are centred in f64 and rounded after that.
    ///
    /// ```
    /// # use osculant::data::{Dataset, Targets, standardise};
    /// let seconds = [1_700_000_000.0, 1_700_000_060.0];
    /// let mut train = Dataset::from_f64("clock", &seconds, 1, Targets::Inputs)?;
    /// let mut test = train.clone();
    /// standardise(&mut train, &mut test)?;
    /// assert_eq!(train.features(), [-1.0, 1.0]);
    /// # Ok::<(), osculant::Error>(())
    /// ```
    ///
    /// # Errors
    /// As [`new`](Self::new); and [`Error::Data`], which names the column, where even the sum of two f32 cannot hold its values to
    /// a ten-thousandth of its standard deviation.
    pub fn from_f64(
        name: impl Into<String>,
        features: &[f64],
        width: usize,
        targets: Targets,
    ) -> Result<Self> {
        let (rounded, remainders) = rounding::pair(features);
        let mut dataset = Self::new(name, rounded, width, targets)?;
        let kept = |index: usize| f64::from(dataset.features[index]) + f64::from(remainders[index]);
        let lost = rounding::lost(features, width, kept);
        if let Some(column) = lost.iter().position(|&lost| lost > rounding::TOLERATED) {
            let largest = (column..features.len()).step_by(width);
            let largest = largest
                .map(|index| features[index].abs())
                .fold(0.0, f64::max);
            return Err(dataset.bad(if largest < f64::from(f32::MIN_POSITIVE) {
                format!("column {column} is at most {largest:e}, and f32 ends at 1e-38; multiply it by a power of ten")
            } else {
                format!(
                    "the values of column {column} differ by too little beside their size of {largest:e} for two f32; subtract a \
                        constant from it"
                )
            }));
        }
        if remainders.iter().any(|&low| low != 0.0) {
            dataset.remainders = remainders;
        }
        Ok(dataset)
    }

    /// The name, for reports and messages.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Number of rows, at least one.
    #[must_use]
    #[expect(clippy::len_without_is_empty, reason = "a data set is never empty")]
    pub fn len(&self) -> usize {
        self.features.len() / self.width
    }

    /// Inputs per row.
    #[must_use]
    pub fn width(&self) -> usize {
        self.width
    }

    /// All inputs, row after row.
    #[must_use]
    pub fn features(&self) -> &[f32] {
        &self.features
    }

    /// An input to all the digits that are known of it, which may be more than f32 holds.
    pub(super) fn exact(&self, index: usize) -> f64 {
        let low = self.remainders.get(index).copied().unwrap_or(0.0);
        f64::from(self.features[index]) + f64::from(low)
    }

    /// The input columns in which rounding to f32 moves a value by more than a ten-thousandth of the column's standard deviation, with the
    /// largest such part. [`standardise`](super::standardise) has their digits; without it they are lost.
    #[must_use]
    pub fn rounded_columns(&self) -> Vec<(usize, f64)> {
        if self.remainders.is_empty() {
            return Vec::new();
        }
        let exact: Vec<f64> = (0..self.features.len()).map(|i| self.exact(i)).collect();
        let lost = rounding::lost(&exact, self.width, |i| f64::from(self.features[i]));
        let columns = lost.into_iter().enumerate();
        columns
            .filter(|&(_, lost)| lost > rounding::TOLERATED)
            .collect()
    }

    /// The same inputs with other targets.
    ///
    /// # Errors
    /// [`Error::Data`] as in [`new`](Self::new).
    pub fn with_targets(mut self, targets: Targets) -> Result<Self> {
        targets.check(&self.name, self.len())?;
        self.targets = targets;
        self.original_labels = Vec::new();
        Ok(self)
    }

    /// The same rows with weights: in a batch of `n` rows a row has `w/n`, not `1/n`. So a loss over the data is the mean of `w` times the
    /// loss of each row.
    ///
    /// # Errors
    /// [`Error::Data`] for another number of weights than rows, negative ones, and where all are 0.
    pub fn with_weights(mut self, weights: Vec<f32>) -> Result<Self> {
        if weights.len() != self.len() {
            let (found, rows) = (weights.len(), self.len());
            return Err(self.bad(format!("{found} weights for {rows} rows")));
        }
        super::cut::check_weights(&weights)?;
        if weights.iter().all(|&weight| weight == 0.0) {
            return Err(self.bad("all weights are zero; some row must count".to_owned()));
        }
        self.weights = weights;
        Ok(self)
    }

    /// Whether rows have weights of their own.
    #[must_use]
    pub fn is_weighted(&self) -> bool {
        !self.weights.is_empty()
    }

    /// The label that each class had in the files, where the labels there are not 0, 1, 2, ...; see [`idx::load`](super::idx::load).
    #[must_use]
    pub fn original_labels(&self) -> Option<&[u32]> {
        (!self.original_labels.is_empty()).then_some(self.original_labels.as_slice())
    }

    /// Remembers the labels that the classes had in the files.
    pub(super) fn with_original_labels(mut self, labels: Vec<u32>) -> Self {
        self.original_labels = labels;
        self
    }

    /// The targets of all rows.
    #[must_use]
    pub fn targets(&self) -> &Targets {
        &self.targets
    }

    /// The inputs of one row, or none when there is no such row.
    #[must_use]
    pub fn row(&self, index: usize) -> Option<&[f32]> {
        self.features.chunks_exact(self.width).nth(index)
    }

    /// Splits the rows at random into (train, test); `round(test_fraction * rows)` rows go to test.
    ///
    /// The split depends only on the seed, the fraction and the number of rows.
    ///
    /// # Errors
    /// [`Error::Option`] unless both parts get at least one row.
    pub fn split(&self, test_fraction: f64, seed: u64) -> Result<(Self, Self)> {
        let (train, test) = split_rows(self.len(), test_fraction, seed, &self.name)?;
        Ok((self.select(&train), self.select(&test)))
    }

    /// The chosen rows, in the order given; a row may occur more than once.
    ///
    /// # Errors
    /// [`Error::Data`] when no row is chosen or one does not exist.
    pub fn subset(&self, rows: &[usize]) -> Result<Self> {
        self.check_rows("subset", rows)?;
        Ok(self.select(rows))
    }

    /// The first `rows` rows.
    ///
    /// # Errors
    /// [`Error::Data`] when `rows` is zero or more than there are.
    pub fn head(&self, rows: usize) -> Result<Self> {
        if rows == 0 || rows > self.len() {
            let present = self.len();
            return Err(self.bad(format!("cannot take the first {rows} of {present} rows")));
        }
        let all: Vec<usize> = (0..rows).collect();
        Ok(self.select(&all))
    }

    /// The same inputs, each row being its own target.
    #[must_use]
    pub fn as_autoencoder(&self) -> Self {
        Self {
            targets: Targets::Inputs,
            original_labels: Vec::new(),
            ..self.clone()
        }
    }

    /// The chosen rows as a batch in which each has the weight `1/n`, times its own.
    ///
    /// # Errors
    /// [`Error::Data`] when no row is chosen or one does not exist.
    pub fn batch(&self, rows: &[usize]) -> Result<Batch> {
        self.check_rows("batch", rows)?;
        Ok(Batch {
            features: select_rows(&self.features, self.width, rows),
            targets: self.targets.select(rows),
            weights: self.batch_weights(rows.iter().copied(), rows.len()),
        })
    }

    /// All rows as one batch, in order.
    #[must_use]
    pub fn full_batch(&self) -> Batch {
        Batch {
            features: self.features.clone(),
            targets: self.targets.clone(),
            weights: self.batch_weights(0..self.len(), self.len()),
        }
    }

    fn batch_weights(&self, rows: impl Iterator<Item = usize>, count: usize) -> Vec<f32> {
        if self.weights.is_empty() {
            return equal_weights(count);
        }
        rows.map(|row| self.weights[row] / count as f32).collect()
    }

    /// Puts other inputs of the same shape in place of the present ones, if they are finite.
    pub(super) fn with_features(&self, features: Vec<f32>) -> Result<Self> {
        let data = Self::new(
            self.name.clone(),
            features,
            self.width,
            self.targets.clone(),
        )?;
        let weights = self.weights.clone();
        let data = Self { weights, ..data };
        Ok(data.with_original_labels(self.original_labels.clone()))
    }

    fn select(&self, rows: &[usize]) -> Self {
        Self {
            name: self.name.clone(),
            features: select_rows(&self.features, self.width, rows),
            remainders: if self.remainders.is_empty() {
                Vec::new()
            } else {
                select_rows(&self.remainders, self.width, rows)
            },
            width: self.width,
            targets: self.targets.select(rows),
            weights: match self.weights.is_empty() {
                true => Vec::new(),
                false => select_rows(&self.weights, 1, rows),
            },
            original_labels: self.original_labels.clone(),
        }
    }

    fn check_finite(&self) -> Result<()> {
        match self.features.iter().position(|value| !value.is_finite()) {
            None => Ok(()),
            Some(index) => {
                let (row, column) = (index / self.width, index % self.width);
                let value = self.features[index];
                Err(self.bad(format!("row {row}, column {column} is {value}")))
            }
        }
    }

    fn check_rows(&self, what: &str, rows: &[usize]) -> Result<()> {
        if rows.is_empty() {
            return Err(self.bad(format!("the {what} has no rows")));
        }
        let present = self.len();
        match rows.iter().find(|&&row| row >= present) {
            None => Ok(()),
            Some(row) => Err(self.bad(format!(
                "the {what} asks for row {row} of {present}, counted from 0"
            ))),
        }
    }

    fn bad(&self, message: String) -> Error {
        Error::Data {
            what: self.name.clone(),
            message,
        }
    }
}

pub(super) fn equal_weights(rows: usize) -> Vec<f32> {
    vec![1.0 / rows as f32; rows]
}

#[cfg(test)]
#[path = "dataset_tests.rs"]
#[allow(clippy::unwrap_used)]
mod tests;
