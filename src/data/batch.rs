//! The rows that one quadratic is made of.

use std::borrow::Cow;
use std::ops::Range;

use super::Targets;
use super::cut::{self, Cut};
use crate::{Error, Result};

/// Some rows of a data set, copied together, with the weight of each in the mean.
///
/// The loss of a batch is `sum_i weights[i] * loss_i`, with any weights from 0 on that are not all 0: they are taken as they are. A batch
/// drawn from a data set has the weights `1/n`, so that its loss is the mean; rows that only fill the batch up ([`Batch::pad_to`]) have
/// weight zero.
#[derive(Debug, Clone, PartialEq)]
pub struct Batch {
    /// Inputs, row after row.
    pub features: Vec<f32>,
    /// Targets of the rows.
    pub targets: Targets,
    /// Weight of each row in the loss, from 0 on.
    pub weights: Vec<f32>,
}

impl Batch {
    /// The batch of a function that needs no data: one row of nothing with weight 1.
    #[must_use]
    pub fn without_data() -> Self {
        Self {
            features: Vec::new(),
            targets: Targets::Inputs,
            weights: vec![1.0],
        }
    }

    /// Number of rows, the filling ones included.
    #[must_use]
    pub fn len(&self) -> usize {
        self.weights.len()
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

    /// Whether there is no row; never so for a batch drawn from a data set.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.weights.is_empty()
    }

    /// Numbers per row of `features`; zero for an empty batch.
    #[must_use]
    pub fn width(&self) -> usize {
        self.features.len().checked_div(self.len()).unwrap_or(0)
    }

    /// Appends rows of weight zero (inputs and targets zero) until there are `rows`, so that a short last batch fits a
    /// program made for `rows` rows. Value, gradient and products stay what they were.
    ///
    /// # Errors
    /// [`Error::Data`] when the batch has more than `rows` rows already, or its vectors disagree about their number.
    pub fn pad_to(mut self, rows: usize) -> Result<Self> {
        let (present, width) = (self.len(), self.width());
        if present > rows {
            return Err(Error::Data {
                what: "batch".to_owned(),
                message: format!("{present} rows do not fit a program made for {rows}"),
            });
        }
        self.check()?;
        self.features.resize(rows * width, 0.0);
        self.targets.pad_to(rows);
        self.weights.resize(rows, 0.0);
        Ok(self)
    }

    /// Whether features, targets and weights are of the same number of rows, and the weights not negative: the fields are open to all.
    fn check(&self) -> Result<()> {
        let bad = |message| {
            Err(Error::Data {
                what: "batch".to_owned(),
                message,
            })
        };
        let (rows, numbers) = (self.len(), self.features.len());
        if rows == 0 || rows * self.width() != numbers {
            return bad(format!("{rows} weights do not fit {numbers} input numbers"));
        }
        cut::check_weights(&self.weights)?;
        self.targets.check("batch", rows)
    }

    /// The batch in groups of as many rows each, one after another. Rows of weight zero at the end, which [`pad_to`](Self::pad_to) appends,
    /// are shared out, so that each group has examples in proportion; else it is the batch itself. Weights stay as they are.
    ///
    /// # Errors
    /// [`Error::Data`] when the rows cannot be shared out evenly, a group would have no example, or the batch disagrees about its number of
    /// rows.
    pub fn in_groups(&self, groups: usize) -> Result<Cow<'_, Self>> {
        self.check()?;
        Ok(match cut::groups(&self.weights, groups)? {
            None => Cow::Borrowed(self),
            Some(cut) => Cow::Owned(self.cut(cut)),
        })
    }

    /// The rows in these ranges as a batch of their own. Rows of weight zero are shared out, so that each part of a padded batch has
    /// examples in proportion: disjoint ranges give disjoint examples. The weights of a part have the sum of the whole batch's.
    ///
    /// # Errors
    /// [`Error::Data`] when a range reaches beyond the batch, the part would have no example, or the batch disagrees about its number of
    /// rows.
    pub fn part(&self, ranges: &[Range<usize>]) -> Result<Self> {
        self.check()?;
        self.cut(cut::part(&self.weights, ranges)?)
            .pad_to(ranges.iter().map(ExactSizeIterator::len).sum())
    }

    fn cut(&self, Cut { places, weights }: Cut) -> Self {
        Self {
            features: super::targets::select_rows(&self.features, self.width(), &places),
            targets: self.targets.select(&places),
            weights,
        }
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    fn batch() -> Batch {
        Batch {
            features: vec![1.0, 2.0, 3.0, 4.0],
            targets: Targets::Classes {
                labels: vec![2, 1],
                classes: 3,
            },
            weights: vec![0.5, 0.5],
        }
    }

    #[test]
    fn padding_appends_rows_without_weight() {
        let padded = batch().pad_to(3).unwrap();
        assert_eq!(padded.features, [1.0, 2.0, 3.0, 4.0, 0.0, 0.0]);
        assert_eq!(padded.weights, [0.5, 0.5, 0.0]);
        let labels = vec![2, 1, 0];
        assert_eq!(padded.targets, Targets::Classes { labels, classes: 3 });
        assert_eq!((padded.len(), padded.width()), (3, 2));
    }

    #[test]
    fn padding_lengthens_every_kind_of_target() {
        let values = |values| Targets::Values { values, width: 1 };
        let padded = Batch {
            targets: values(vec![7.0, 8.0]),
            ..batch()
        };
        assert_eq!(
            padded.pad_to(4).unwrap().targets,
            values(vec![7.0, 8.0, 0.0, 0.0])
        );
        let padded = Batch {
            targets: Targets::Inputs,
            ..batch()
        };
        assert_eq!(padded.pad_to(4).unwrap().targets, Targets::Inputs);
    }

    #[test]
    fn padding_to_the_present_length_changes_nothing() {
        assert_eq!(batch().pad_to(2).unwrap(), batch());
    }

    #[test]
    fn a_batch_that_is_too_long_or_inconsistent_is_refused() {
        assert!(matches!(batch().pad_to(1), Err(Error::Data { .. })));
        let broken = [
            Batch {
                weights: Vec::new(),
                ..batch()
            },
            Batch {
                weights: vec![1.0; 3],
                ..batch()
            },
            Batch {
                weights: vec![0.5, f32::NAN],
                ..batch()
            },
            Batch {
                targets: Targets::Classes {
                    labels: vec![0],
                    classes: 3,
                },
                ..batch()
            },
        ];
        for batch in broken {
            let whole = 0..1;
            assert!(matches!(batch.part(&[whole]), Err(Error::Data { .. })));
            assert!(matches!(batch.in_groups(1), Err(Error::Data { .. })));
            assert!(matches!(batch.pad_to(5), Err(Error::Data { .. })));
        }
    }

    #[test]
    fn parts_are_disjoint_and_share_the_filling() {
        let batch = Batch {
            features: (0..10).map(|i| i as f32).collect(),
            targets: Targets::Inputs,
            weights: vec![0.1; 10],
        };
        let split = |batch: &Batch, ranges: [Range<usize>; 2]| {
            ranges.map(|range| batch.part(&[range]).unwrap())
        };
        let parts = split(&batch, [0..6, 6..8]);
        assert_eq!(parts[0].features, [0.0, 1.0, 2.0, 3.0, 4.0, 5.0]);
        assert_eq!(parts[1].features, [6.0, 7.0]);
        assert!((parts[1].weights[0] - 0.5).abs() < 1e-6);

        let two = batch.part(&[0..1, 8..10]).unwrap();
        assert_eq!(two.features, [0.0, 8.0, 9.0]);

        let padded = split(&batch.pad_to(20).unwrap(), [0..10, 10..20]);
        assert_eq!(padded[0].features[..5], [0.0, 1.0, 2.0, 3.0, 4.0]);
        assert_eq!(padded[1].features[..5], [5.0, 6.0, 7.0, 8.0, 9.0]);
        assert_eq!(padded[1].len(), 10);
        assert!((padded[1].weights.iter().sum::<f32>() - 1.0).abs() < 1e-6);
    }

    #[test]
    fn groups_share_the_filling() {
        let batch = Batch {
            features: (0..5).map(|i| i as f32 + 1.0).collect(),
            targets: Targets::Classes {
                labels: vec![0, 1, 2, 3, 4],
                classes: 5,
            },
            weights: vec![0.1, 0.2, 0.3, 0.2, 0.2],
        };
        let padded = batch.clone().pad_to(9).unwrap();
        let groups = padded.in_groups(3).unwrap();
        assert_eq!(
            groups.features,
            [1.0, 1.0, 1.0, 2.0, 3.0, 2.0, 4.0, 5.0, 4.0]
        );
        assert_eq!(
            groups.weights,
            [0.1, 0.0, 0.0, 0.2, 0.3, 0.0, 0.2, 0.2, 0.0]
        );
        let labels = vec![0, 0, 0, 1, 2, 1, 3, 4, 3];
        assert_eq!(groups.targets, Targets::Classes { labels, classes: 5 });
        assert!(matches!(batch.in_groups(5), Ok(Cow::Borrowed(_))));
        // Filling before the end is somebody's choice.
        let mut chosen = padded.clone();
        chosen.weights.rotate_right(2);
        assert!(matches!(chosen.in_groups(3), Ok(Cow::Borrowed(_))));
        chosen.weights = vec![0.0, 0.0, 0.0, 0.5, 0.0, 0.0, 0.5, 0.0, 0.0];
        assert!(chosen.in_groups(3).is_err());
        assert!(batch.in_groups(2).is_err() && batch.in_groups(0).is_err());
        // Two examples for three groups.
        assert!(self::batch().pad_to(6).unwrap().in_groups(3).is_err());
    }

    #[test]
    fn a_batch_without_an_example_for_each_part_is_refused() {
        let part = |batch: Batch, range: Range<usize>| batch.part(&[range]);
        assert!(part(batch(), 1..3).is_err());
        assert!(part(batch(), 1..1).is_err());
        // Two examples among nine rows: none among the first three.
        assert!(part(batch().pad_to(9).unwrap(), 0..3).is_err());
        assert!(part(batch(), 0..2).is_ok());
    }
}
