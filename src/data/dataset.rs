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

    /// The chosen rows as a batch in which each has the weight `1/n`.
    ///
    /// # Errors
    /// [`Error::Data`] when no row is chosen or one does not exist.
    pub fn batch(&self, rows: &[usize]) -> Result<Batch> {
        self.check_rows("batch", rows)?;
        Ok(Batch {
            features: select_rows(&self.features, self.width, rows),
            targets: self.targets.select(rows),
            weights: equal_weights(rows.len()),
        })
    }

    /// All rows as one batch, in order.
    #[must_use]
    pub fn full_batch(&self) -> Batch {
        Batch {
            features: self.features.clone(),
            targets: self.targets.clone(),
            weights: equal_weights(self.len()),
        }
    }

    /// Puts other inputs of the same shape in place of the present ones, if they are finite.
    pub(super) fn with_features(&self, features: Vec<f32>) -> Result<Self> {
        let data = Self::new(
            self.name.clone(),
            features,
            self.width,
            self.targets.clone(),
        )?;
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
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn classes(labels: Vec<u32>, classes: usize) -> Targets {
        Targets::Classes { labels, classes }
    }

    /// Row `i` is `[i, -i]` with label `i mod 3`.
    fn counted(rows: usize) -> Dataset {
        let features = (0..rows).flat_map(|i| [i as f32, -(i as f32)]).collect();
        let labels = (0..rows as u32).map(|i| i % 3).collect();
        Dataset::new("counted", features, 2, classes(labels, 3)).unwrap()
    }

    fn message(features: Vec<f32>, width: usize, targets: Targets) -> String {
        let error = Dataset::new("sample", features, width, targets).unwrap_err();
        assert!(matches!(error, Error::Data { .. }), "{error}");
        error.to_string()
    }

    #[test]
    fn impossible_shapes_are_refused() {
        assert!(message(vec![], 2, Targets::Inputs).contains("no row"));
        assert!(message(vec![1.0], 0, Targets::Inputs).contains("rows of 0"));
        assert!(message(vec![1.0; 5], 2, Targets::Inputs).contains("rows of 2"));
        assert!(message(vec![1.0; 4], 2, classes(vec![0], 1)).contains("1 labels"));
        for (values, width) in [(vec![1.0; 3], 2), (vec![], 0), (vec![1.0], usize::MAX)] {
            let text = message(vec![1.0; 4], 2, Targets::Values { values, width });
            assert!(text.contains("target values"), "{text}");
        }
    }

    #[test]
    fn what_f32_cannot_hold_is_kept_through_selections_or_refused() {
        let seconds: Vec<f64> = (0..4).map(|i| 1.7e9 + f64::from(i)).collect();
        let data = Dataset::from_f64("clock", &seconds, 1, Targets::Inputs).unwrap();
        assert_eq!(data.features(), [1.7e9; 4]);
        let part = data.subset(&[3, 1]).unwrap().as_autoencoder();
        assert_eq!([part.exact(0), part.exact(1)], [1.7e9 + 3.0, 1.7e9 + 1.0]);

        let refused = |values: &[f64]| {
            Dataset::from_f64("tiny", values, 2, Targets::Inputs)
                .unwrap_err()
                .to_string()
        };
        let text = refused(&[1.0, 1e-50, 2.0, 3e-50]);
        assert!(text.contains("column 1") && text.contains("f32"), "{text}");
        let text = refused(&[1.0, 1e39]);
        assert!(text.contains("row 0, column 1"), "{text}");
        // A constant column loses nothing that could tell its rows apart.
        assert!(Dataset::from_f64("constant", &[1e-50; 3], 1, Targets::Inputs).is_ok());
    }

    #[test]
    fn numbers_that_are_not_finite_are_named() {
        let text = message(vec![1.0, 2.0, 3.0, f32::NAN], 2, Targets::Inputs);
        assert!(text.contains("row 1, column 1 is NaN"), "{text}");
        let values = vec![0.0, f32::INFINITY];
        let text = message(vec![1.0; 4], 2, Targets::Values { values, width: 1 });
        assert!(text.contains("row 1, target column 0 is inf"), "{text}");
    }

    #[test]
    fn labels_out_of_range_are_named() {
        let text = message(vec![1.0; 4], 2, classes(vec![0, 3], 3));
        assert!(text.contains("row 1 has label 3"), "{text}");
    }

    #[test]
    fn a_batch_holds_its_rows_with_equal_weights() {
        let batch = counted(10).batch(&[4, 0, 4]).unwrap();
        assert_eq!(batch.features, [4.0, -4.0, 0.0, 0.0, 4.0, -4.0]);
        assert_eq!(batch.targets, classes(vec![1, 0, 1], 3));
        assert_eq!(batch.weights, [1.0 / 3.0; 3]);
    }

    #[test]
    fn batches_and_subsets_without_or_beyond_rows_are_refused() {
        let data = counted(4);
        assert!(matches!(data.batch(&[]), Err(Error::Data { .. })));
        assert!(
            data.batch(&[0, 4])
                .unwrap_err()
                .to_string()
                .contains("row 4 of 4")
        );
        assert!(matches!(data.subset(&[]), Err(Error::Data { .. })));
        assert!(matches!(data.subset(&[9]), Err(Error::Data { .. })));
        assert!(matches!(data.head(0), Err(Error::Data { .. })));
        assert!(matches!(data.head(5), Err(Error::Data { .. })));
        assert_eq!(data.row(4), None);
    }

    #[test]
    fn the_full_batch_is_the_batch_of_all_rows() {
        let data = counted(4);
        assert_eq!(data.full_batch(), data.batch(&[0, 1, 2, 3]).unwrap());
        assert_eq!(data.head(4).unwrap(), data);
        assert_eq!(data.row(2), Some(&[2.0, -2.0][..]));
    }

    #[test]
    fn an_autoencoder_has_its_inputs_as_targets() {
        let data = counted(4).as_autoencoder();
        assert_eq!(data.batch(&[1]).unwrap().targets, Targets::Inputs);
        assert_eq!(data.features(), counted(4).features());
    }

    #[test]
    fn a_split_that_leaves_a_part_empty_is_refused() {
        for fraction in [0.0, 1.0, -0.5, 2.0, 0.01, f64::NAN, f64::INFINITY] {
            let error = counted(10).split(fraction, 1).unwrap_err();
            assert!(matches!(error, Error::Option { .. }), "{fraction}");
        }
    }

    proptest! {
        #[test]
        fn a_split_keeps_every_row_once_with_its_target(rows in 2usize..60, seed: u64) {
            let data = counted(rows);
            let (train, test) = data.split(0.5, seed).unwrap();
            prop_assert_eq!(&(train.clone(), test.clone()), &data.split(0.5, seed).unwrap());
            let mut seen = Vec::new();
            for part in [&train, &test] {
                let Targets::Classes { labels, .. } = part.targets() else {
                    return Err(TestCaseError::fail("the split changed the kind of target"));
                };
                for (row, label) in part.features().chunks_exact(2).zip(labels) {
                    prop_assert_eq!(row[0] as u32 % 3, *label);
                    seen.push(row[0] as usize);
                }
            }
            seen.sort_unstable();
            prop_assert_eq!(seen, (0..rows).collect::<Vec<_>>());
        }
    }
}
