//! Which examples of a batch make directions, and which make the steps along them.

use std::ops::Range;

use crate::data::Role;
use crate::error::{Error, Result};
use crate::options::require;

/// Which examples of a batch make directions (those of conjugate gradients, eigenvectors, a gradient), and which make the steps along
/// them: slopes, curvatures and step lengths.
///
/// A batch is cut into folds in its order. All folds have as many rows, so that each runs the same programs; rows that do not fill them
/// make neither. Where folds would have no row, the error asks for a larger batch.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Strategy {
    /// All examples make directions and steps.
    Single,
    /// The first folds make directions, all others make the steps along them.
    Decoupled {
        /// Number of folds.
        folds: usize,
        /// Of which so many make directions.
        directions: usize,
    },
    /// That once for each fold, from which on the folds are counted, and the steps are averaged: every example makes directions and steps.
    /// The last fold steps in the first turn.
    CrossFit {
        /// Number of folds.
        folds: usize,
        /// Of which so many make directions at a time.
        directions: usize,
    },
}

/// The folds of one solve.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Turn {
    pub(super) directions: Vec<usize>,
    pub(super) steps: Vec<usize>,
}

impl Strategy {
    /// One half makes directions, the other steps.
    #[must_use]
    pub fn decoupled() -> Self {
        Self::Decoupled {
            folds: 2,
            directions: 1,
        }
    }

    /// Each fold makes the steps along directions of all others; with two folds cross-fitting.
    #[must_use]
    pub fn cross_fit(folds: usize) -> Self {
        Self::CrossFit {
            folds,
            directions: folds.saturating_sub(1),
        }
    }

    /// Number of folds.
    #[must_use]
    pub fn folds(&self) -> usize {
        match *self {
            Self::Single => 1,
            Self::Decoupled { folds, .. } | Self::CrossFit { folds, .. } => folds,
        }
    }

    /// Checks the ranges.
    ///
    /// # Errors
    /// [`Error::Option`].
    pub fn validate(&self) -> Result<()> {
        let (Self::Decoupled { folds, directions } | Self::CrossFit { folds, directions }) = *self
        else {
            return Ok(());
        };
        let possible = (2..=100).contains(&folds) && (1..folds).contains(&directions);
        require(
            possible,
            "strategy",
            format!(
                "{directions} of {folds} folds make directions: there must be 2 to 100 folds, and one at least for either"
            ),
        )
    }

    /// The folds of each solve.
    pub(super) fn turns(&self) -> Vec<Turn> {
        let (turns, folds, directions) = match *self {
            Self::Single => {
                return vec![Turn {
                    directions: vec![0],
                    steps: vec![0],
                }];
            }
            Self::Decoupled { folds, directions } => (1, folds, directions),
            Self::CrossFit { folds, directions } => (folds, folds, directions),
        };
        (0..turns)
            .map(|first| {
                let mut order: Vec<usize> = (0..folds).map(|i| (first + i) % folds).collect();
                let steps = order.split_off(directions);
                Turn {
                    directions: order,
                    steps,
                }
            })
            .collect()
    }

    /// The number of rows of each fold of a batch of `rows`, and the last rows that are set apart to judge: `acceptance` of them, one at
    /// least, unless that is zero.
    ///
    /// # Errors
    /// [`Error::Option`] where folds would be empty.
    pub(super) fn cut(
        &self,
        acceptance: f64,
        rows: usize,
    ) -> Result<(usize, Option<Range<usize>>)> {
        let judging = if acceptance == 0.0 {
            0
        } else {
            ((acceptance * rows as f64).round() as usize).clamp(1, rows.max(1))
        };
        let (rest, folds) = (rows.saturating_sub(judging), self.folds());
        let size = rest / folds;
        require(
            size > 0,
            "batch",
            format!("{rest} rows for {folds} fold(s), {judging} that judge: use a larger batch"),
        )?;
        Ok((size, (judging > 0).then_some(rest..rows)))
    }

    /// How a batch of `rows` rows is cut: directions, steps, and those that judge.
    ///
    /// # Errors
    /// [`Error::Option`] unless the strategy is [`Decoupled`](Self::Decoupled), or where a role would have no rows.
    pub(super) fn plan(&self, acceptance: f64, rows: usize) -> Result<Vec<(Role, usize)>> {
        self.validate()?;
        let Self::Decoupled { folds, directions } = *self else {
            return Err(Error::Option {
                option: "strategy".into(),
                message:
                    "every example has all roles; only decoupled batches can be dealt to roles"
                        .into(),
            });
        };
        let (size, judges) = self.cut(acceptance, rows)?;
        let steps = folds - directions;
        let mut plan = vec![
            (Role::Directions, size * directions),
            (Role::Steps, size * steps),
        ];
        plan.extend(judges.map(|judges| (Role::Acceptance, judges.len())));
        Ok(plan)
    }
}

/// The rows of these folds of `size` rows each, in the order of the batch.
pub(super) fn rows_of(folds: &[usize], size: usize) -> Vec<Range<usize>> {
    let mut folds = folds.to_vec();
    folds.sort_unstable();
    let runs = folds.chunk_by(|fold, next| fold + 1 == *next);
    runs.map(|run| run[0] * size..(run[0] + run.len()) * size)
        .collect()
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    fn decoupled(folds: usize, directions: usize) -> Strategy {
        Strategy::Decoupled { folds, directions }
    }

    #[test]
    fn every_fold_has_its_turn() {
        let turns = Strategy::cross_fit(4).turns();
        let steps: Vec<usize> = turns.iter().flat_map(|turn| turn.steps.clone()).collect();
        assert_eq!(steps, [3, 0, 1, 2]);
        for turn in &turns {
            let mut all = [turn.directions.clone(), turn.steps.clone()].concat();
            all.sort_unstable();
            assert_eq!(all, [0, 1, 2, 3]);
        }
        let turns = decoupled(4, 1).turns();
        assert_eq!(turns.len(), 1);
        assert_eq!(
            (&turns[0].directions[..], &turns[0].steps[..]),
            (&[0][..], &[1, 2, 3][..])
        );
    }
    #[test]
    fn rows_that_do_not_fill_the_folds_are_left_out() {
        let crossed = Strategy::cross_fit(4);
        assert_eq!(crossed.cut(0.0, 22).ok(), Some((5, None)));
        assert_eq!(crossed.cut(0.2, 20).ok(), Some((4, Some(16..20))));
        // Where examples are to be set apart, one is.
        assert_eq!(crossed.cut(0.01, 9).ok(), Some((2, Some(8..9))));
        for (acceptance, rows) in [(0.0, 3), (0.2, 4)] {
            let error = crossed.cut(acceptance, rows).unwrap_err().to_string();
            assert!(error.contains("larger batch"), "{error}");
        }
    }

    #[test]
    fn rows_of_folds_are_in_the_order_of_the_batch() {
        assert_eq!(rows_of(&[3, 0, 1], 5), [0..10, 15..20]);
        assert_eq!(rows_of(&[0, 2], 5), [0..5, 10..15]);
    }

    #[test]
    fn a_plan_is_how_a_batch_is_cut() {
        let two = vec![(Role::Directions, 15), (Role::Steps, 5)];
        assert_eq!(decoupled(4, 3).plan(0.0, 22).ok(), Some(two));
        let three = vec![
            (Role::Directions, 12),
            (Role::Steps, 4),
            (Role::Acceptance, 4),
        ];
        assert_eq!(decoupled(4, 3).plan(0.2, 20).ok(), Some(three));
        for (strategy, rows) in [
            (decoupled(4, 3), 3),
            (decoupled(0, 0), 20),
            (Strategy::cross_fit(2), 20),
        ] {
            assert!(strategy.plan(0.0, rows).is_err());
        }
    }
}
