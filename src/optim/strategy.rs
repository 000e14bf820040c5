//! Which examples of a batch make directions, and which make the steps along them.

use crate::data::Role;
use crate::error::{Error, Result};
use crate::options::require;

/// Which parts of a batch make directions, and which make the steps along them. The batch is cut into folds of as many rows.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Strategy {
    /// All examples make directions and steps, as in [`NewtonCg`](super::NewtonCg).
    Single,
    /// The first folds make directions, the others make the steps along them.
    Decoupled {
        /// Number of folds.
        folds: usize,
        /// Of which so many make directions.
        directions: usize,
    },
    /// That once for each fold, from which on the folds are counted, and the steps are averaged: every example makes directions and steps.
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
}

/// Rows of a batch of `rows` that are set apart to judge: where any are to be, one at least.
pub(super) fn judging_rows(acceptance: f64, rows: usize) -> usize {
    if acceptance == 0.0 {
        return 0;
    }
    let judging = (acceptance * rows as f64).round() as usize;
    judging.clamp(1, rows.max(1))
}

/// The plan of a batch that is cut into a part for directions, one for steps, and one that judges.
///
/// # Errors
/// [`Error::Option`] where a part would be empty.
pub(super) fn plan(directions: usize, steps: usize, judging: usize) -> Result<Vec<(Role, usize)>> {
    require(
        directions > 0 && steps > 0,
        "batch",
        format!(
            "{directions} rows for directions, {steps} for steps, {judging} that judge: use a larger batch"
        ),
    )?;
    let mut plan = vec![(Role::Directions, directions), (Role::Steps, steps)];
    if judging > 0 {
        plan.push((Role::Acceptance, judging));
    }
    Ok(plan)
}

/// What to say where every example has all roles.
pub(super) fn no_plan() -> Error {
    Error::Option {
        option: "strategy".into(),
        message: "every example has all roles; only decoupled batches can be dealt to roles".into(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

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
        let turns = Strategy::Decoupled {
            folds: 4,
            directions: 1,
        }
        .turns();
        assert_eq!(turns.len(), 1);
        assert_eq!(
            (&turns[0].directions[..], &turns[0].steps[..]),
            (&[0][..], &[1, 2, 3][..])
        );
    }
}
