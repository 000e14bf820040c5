//! Which examples of a batch do what.

use std::ops::Range;

use super::options::{LrsfnOptions, RankRule};
use crate::data::Role;
use crate::error::Result;
use crate::objective::without_parts;
use crate::optim::strategy::{Strategy, Turn, rows_of};

/// Rows of a batch; all of them where there are no ranges.
pub(super) type Rows = Option<Vec<Range<usize>>>;

/// The roles of the rows of a batch.
#[derive(Debug, PartialEq)]
pub(super) struct Roles {
    /// Those that make eigenvectors, and those that step along them, for each step that is averaged.
    pub(super) turns: Vec<[Rows; 2]>,
    /// Those that judge.
    pub(super) judges: Rows,
}

impl Roles {
    /// Whether the examples that step also judge, so that one gradient is for both.
    pub(super) fn judge_themselves(&self) -> bool {
        matches!(&self.turns[..], [[_, steps]] if *steps == self.judges)
    }
}

impl LrsfnOptions {
    /// Whether slopes and eigenvalues are of other examples than eigenvectors.
    pub(super) fn holds_out(&self) -> bool {
        self.strategy != Strategy::Single
    }

    /// How a batch of `rows` rows is cut, for [`Roles`](crate::data::Roles) that deal it otherwise than by cutting: eigenvectors,
    /// everything else, and those that judge.
    ///
    /// # Errors
    /// [`Error::Option`](crate::Error::Option) unless the strategy is [`Strategy::Decoupled`], or where a role would have no rows.
    pub fn plan(&self, rows: usize) -> Result<Vec<(Role, usize)>> {
        self.strategy.plan(self.acceptance, rows)
    }

    /// All of a batch that has no parts in every role.
    pub(super) fn whole(&self) -> Result<Roles> {
        let noise = matches!(self.rank_rule, RankRule::Noise { .. });
        if self.holds_out() || self.curvature_part < 1.0 || self.acceptance > 0.0 || noise {
            return Err(without_parts("these options"));
        }
        Ok(Roles {
            turns: vec![[None, None]],
            judges: None,
        })
    }

    /// Deals out a batch of `rows` rows.
    pub(super) fn deal(&self, rows: usize) -> Result<Roles> {
        let (size, judges) = self.strategy.cut(self.acceptance, rows)?;
        let all = 0..rows;
        let some = |ranges: Vec<Range<usize>>| (ranges != [all.clone()]).then_some(ranges);
        let dealt = |turn: &Turn| {
            let folds = [&turn.directions, &turn.steps];
            folds.map(|folds| some(rows_of(folds, size)))
        };
        let mut turns: Vec<[Rows; 2]> = self.strategy.turns().iter().map(dealt).collect();
        if self.curvature_part < 1.0 {
            let part = (size as f64 * self.curvature_part).round() as usize;
            let part = 0..part.clamp(1, size);
            turns[0][0] = some(vec![part]);
        }
        Ok(Roles {
            turns,
            judges: judges.map(|judges| vec![judges]),
        })
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    fn some(range: Range<usize>) -> Rows {
        Some(vec![range])
    }

    #[test]
    fn with_one_fold_all_rows_step() {
        let options = LrsfnOptions::default();
        let same = options.deal(20).unwrap();
        assert!(same.judge_themselves());
        assert_eq!((same.turns, same.judges), (vec![[None, None]], None));
        let options = options.with_curvature_part(0.25).with_acceptance(0.2);
        let part = options.deal(20).unwrap();
        assert!(!part.judge_themselves());
        assert_eq!(part.turns, vec![[some(0..4), some(0..16)]]);
        assert_eq!(part.judges, some(16..20));
        // However small the part, it has a row.
        let part = options.with_curvature_part(0.01).deal(20).unwrap();
        assert_eq!(part.turns[0][0], some(0..1));
    }

    #[test]
    fn folds_have_their_roles() {
        let options = |strategy| LrsfnOptions::default().with_strategy(strategy);
        let decoupled = options(Strategy::Decoupled {
            folds: 4,
            directions: 3,
        });
        let decoupled = decoupled.deal(21).unwrap();
        assert!(!decoupled.judge_themselves());
        assert_eq!(decoupled.turns, vec![[some(0..15), some(15..20)]]);
        assert_eq!(decoupled.judges, None);
        let crossed = options(Strategy::CrossFit {
            folds: 3,
            directions: 1,
        });
        let crossed = crossed.with_acceptance(0.1).deal(20).unwrap();
        assert_eq!(crossed.judges, some(18..20));
        let others = Some(vec![0..6, 12..18]);
        let turns = vec![
            [some(0..6), some(6..18)],
            [some(6..12), others],
            [some(12..18), some(0..12)],
        ];
        assert_eq!(crossed.turns, turns);
    }
}
