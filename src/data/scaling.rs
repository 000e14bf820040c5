//! Bringing the columns of a table to mean zero and standard deviation one.

use super::Dataset;
use crate::{Error, Result};

/// Mean and standard deviation of each input column, to be applied to data that was not seen when they were fitted.
#[derive(Debug, Clone, PartialEq)]
pub struct Scaling {
    /// Mean of each column.
    pub means: Vec<f64>,
    /// Standard deviation of each column (divisor n); one for a constant column, which thus becomes zero.
    pub deviations: Vec<f64>,
}

impl Scaling {
    /// Means and deviations of the columns of `data`, in two passes of f64, with the digits that its inputs had before they were rounded to
    /// f32 ([`Dataset::from_f64`]).
    #[must_use]
    pub fn fit(data: &Dataset) -> Self {
        let (width, rows) = (data.width(), data.len() as f64);
        // Sums of differences to the first row, so that a large mean takes no digits.
        let mut means = vec![0.0; width];
        let mut constant = vec![true; width];
        for index in 0..data.features().len() {
            let column = index % width;
            let difference = data.exact(index) - data.exact(column);
            means[column] += difference / rows;
            constant[column] &= difference == 0.0;
        }
        for (column, mean) in means.iter_mut().enumerate() {
            *mean += data.exact(column);
        }
        let mut variances = vec![0.0; width];
        for index in 0..data.features().len() {
            let column = index % width;
            variances[column] += (data.exact(index) - means[column]).powi(2) / rows;
        }
        // Whether a column is constant is asked of its values: its computed variance may be a rounding error.
        let deviation =
            |(variance, constant): (f64, bool)| if constant { 1.0 } else { variance.sqrt() };
        Self {
            deviations: variances.into_iter().zip(constant).map(deviation).collect(),
            means,
        }
    }

    /// `(x - mean) / deviation` for every input of `data`, in f64, and rounded after that.
    ///
    /// # Errors
    /// [`Error::Length`] when the number of columns differs, [`Error::Data`] when a result exceeds the range of f32;
    /// `data` is unchanged then.
    pub fn apply(&self, data: &mut Dataset) -> Result<()> {
        *data = self.applied(data)?;
        Ok(())
    }

    fn applied(&self, data: &Dataset) -> Result<Dataset> {
        let width = data.width();
        for (what, found) in [
            ("means", self.means.len()),
            ("deviations", self.deviations.len()),
        ] {
            if found != width {
                return Err(Error::Length {
                    what: format!("{what} for the columns of {}", data.name()),
                    found,
                    expected: width,
                });
            }
        }
        let features = (0..data.features().len()).map(|index| {
            let column = index % width;
            ((data.exact(index) - self.means[column]) / self.deviations[column]) as f32
        });
        data.with_features(features.collect())
    }
}

/// Brings every input column of `train` to mean zero and standard deviation one, and `test` to the same scale.
///
/// Means and deviations are those of `train` alone: nothing about the test rows leaks into training.
///
/// # Errors
/// As [`Scaling::apply`]; both sets are unchanged then.
pub fn standardise(train: &mut Dataset, test: &mut Dataset) -> Result<Scaling> {
    let scaling = Scaling::fit(train);
    let scaled = (scaling.applied(train)?, scaling.applied(test)?);
    (*train, *test) = scaled;
    Ok(scaling)
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;
    use crate::data::Targets;

    fn data(features: &[f32], width: usize) -> Dataset {
        Dataset::new("sample", features.to_vec(), width, Targets::Inputs).unwrap()
    }

    #[test]
    fn the_scale_is_fitted_on_the_training_rows_alone() {
        let mut train = data(&[1.0, 10.0, 3.0, 30.0], 2);
        let mut test = data(&[5.0, 20.0], 2);
        let scaling = standardise(&mut train, &mut test).unwrap();
        assert_eq!(scaling.means, [2.0, 20.0]);
        assert_eq!(scaling.deviations, [1.0, 10.0]);
        assert_eq!(train.features(), [-1.0, -1.0, 1.0, 1.0]);
        assert_eq!(test.features(), [3.0, 0.0]);
    }

    /// Seconds since 1970, a minute from row to row: f32 knows them to 128 seconds. Against the closed form `(i - 2.5) / sqrt(35 / 12)`.
    #[test]
    fn a_large_mean_takes_no_digits() {
        let seconds: Vec<f64> = (0..6).map(|row| 1.7e9 + 60.0 * f64::from(row)).collect();
        let mut train = Dataset::from_f64("clock", &seconds, 1, Targets::Inputs).unwrap();
        let mut test = train.subset(&[1, 4]).unwrap();
        standardise(&mut train, &mut test).unwrap();
        let expected = |row: usize| ((row as f64 - 2.5) / (35.0f64 / 12.0).sqrt()) as f32;
        for row in 0..6 {
            assert!(
                (train.features()[row] - expected(row)).abs() < 1e-6,
                "{train:?}"
            );
        }
        assert_eq!(test.features(), [train.features()[1], train.features()[4]]);
    }

    /// 0.1 is not a binary fraction: the mean of a thousand of them differs from it by rounding.
    #[test]
    fn a_constant_column_becomes_zero() {
        let mut train = data(&[0.1; 1000], 1);
        let mut test = data(&[1.1], 1);
        standardise(&mut train, &mut test).unwrap();
        assert!(train.features().iter().all(|value| value.abs() < 1e-6));
        assert!((test.features()[0] - 1.0).abs() < 1e-6);
    }

    #[test]
    fn a_failure_leaves_both_sets_unchanged() {
        let (train, test) = (data(&[0.0, 1e-30], 1), data(&[3e38], 1));
        let (mut scaled_train, mut scaled_test) = (train.clone(), test.clone());
        let error = standardise(&mut scaled_train, &mut scaled_test).unwrap_err();
        assert!(error.to_string().contains("row 0, column 0"), "{error}");
        assert_eq!((scaled_train, scaled_test), (train, test));
    }

    #[test]
    fn tables_of_different_width_are_refused() {
        let error = standardise(&mut data(&[1.0, 2.0], 1), &mut data(&[1.0, 2.0], 2)).unwrap_err();
        assert!(
            matches!(
                error,
                Error::Length {
                    found: 1,
                    expected: 2,
                    ..
                }
            ),
            "{error}"
        );
    }
}
