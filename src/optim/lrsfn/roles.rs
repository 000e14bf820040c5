//! Which examples of a batch do what.

use std::ops::Range;

use super::options::{CurvatureBatch, LrsfnOptions};
use crate::data::Role;
use crate::error::Result;
use crate::optim::strategy::{judging_rows, no_plan, plan};

/// Rows of a batch; all of them where there are no ranges.
pub(super) type Rows = Option<Vec<Range<usize>>>;

/// The roles of the rows of a batch.
#[derive(Debug, PartialEq)]
pub(super) struct Roles {
    /// Those that make eigenvectors, and those that step along them, for each step that is averaged.
    pub(super) folds: Vec<[Rows; 2]>,
    /// Those that judge.
    pub(super) judges: Rows,
}

impl Roles {
    /// Whether the examples that step also judge, so that one gradient is for both.
    pub(super) fn judge_themselves(&self) -> bool {
        matches!(&self.folds[..], [[_, steps]] if *steps == self.judges)
    }
}

impl LrsfnOptions {
    /// Whether slopes and eigenvalues are of other examples than eigenvectors.
    pub(super) fn holds_out(&self) -> bool {
        match self.curvature_batch {
            CurvatureBatch::Same | CurvatureBatch::Part(_) => false,
            CurvatureBatch::Decoupled(_) | CurvatureBatch::CrossFit(_) => true,
        }
    }

    /// The number of steps that are averaged.
    pub(super) fn folds(&self) -> usize {
        match self.curvature_batch {
            CurvatureBatch::CrossFit(folds) => folds,
            _ => 1,
        }
    }

    /// How a batch of `rows` rows is cut, for [`Roles`](crate::data::Roles) that deal it otherwise than by cutting: eigenvectors,
    /// everything else, and those that judge.
    ///
    /// # Errors
    /// [`Error::Option`](crate::Error::Option) unless the batch is [`CurvatureBatch::Decoupled`], or where a role would have no rows.
    pub fn plan(&self, rows: usize) -> Result<Vec<(Role, usize)>> {
        if !matches!(self.curvature_batch, CurvatureBatch::Decoupled(_)) {
            return Err(no_plan());
        }
        let roles = self.deal(rows);
        let count = |rows: &Rows| rows.iter().flatten().map(ExactSizeIterator::len).sum();
        let [directions, steps] = &roles.folds[0];
        plan(count(directions), count(steps), count(&roles.judges))
    }

    /// Deals out a batch of `rows` rows. Where it is too small, a role gets no rows.
    pub(super) fn deal(&self, rows: usize) -> Roles {
        let judging = judging_rows(self.acceptance, rows);
        let rest = rows.saturating_sub(judging);
        let some = |range: Range<usize>| Some(vec![range]);
        let (all, judges) = if judging == 0 {
            (None, None)
        } else {
            (some(0..rest), some(rest..rows))
        };
        let of =
            |part: f64, most: usize| ((rest as f64 * part).round() as usize).clamp(1, most.max(1));
        let folds = match self.curvature_batch {
            CurvatureBatch::Same => vec![[all.clone(), all]],
            CurvatureBatch::Part(part) => vec![[some(0..of(part, rest)), all]],
            CurvatureBatch::Decoupled(part) => {
                let cut = of(part, rest.saturating_sub(1)).min(rest);
                vec![[some(0..cut), some(cut..rest)]]
            }
            CurvatureBatch::CrossFit(folds) => {
                // Folds of one size, so that every one runs the same programs.
                let size = rest / folds;
                let end = size * folds;
                let fold = |number: usize| {
                    let own = number * size..(number + 1) * size;
                    let others = [0..own.start, own.end..end];
                    let others = others.into_iter().filter(|range| !range.is_empty());
                    [Some(others.collect()), some(own)]
                };
                (0..folds).map(fold).collect()
            }
        };
        Roles { folds, judges }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_row_has_its_roles() {
        let options = |batch| LrsfnOptions::default().with_curvature_batch(batch);
        let some = |range: Range<usize>| Some(vec![range]);
        let same = options(CurvatureBatch::Same).deal(20);
        assert!(same.judge_themselves());
        assert_eq!((same.folds, same.judges), (vec![[None, None]], None));
        let part = options(CurvatureBatch::Part(0.25)).with_acceptance(0.2);
        let part = part.deal(20);
        assert!(!part.judge_themselves());
        assert_eq!(part.folds, vec![[some(0..4), some(0..16)]]);
        assert_eq!(part.judges, some(16..20));
        let decoupled = options(CurvatureBatch::Decoupled(0.75)).deal(20);
        assert!(!decoupled.judge_themselves());
        assert_eq!(decoupled.folds, vec![[some(0..15), some(15..20)]]);
        assert_eq!(decoupled.judges, None);
        let plan = [(Role::Directions, 15), (Role::Steps, 5)];
        let options_of = options(CurvatureBatch::Decoupled(0.75));
        assert!(options_of.plan(20).is_ok_and(|found| found == plan));
        assert!(options(CurvatureBatch::Same).plan(20).is_err());
        // Neither role is left without a row.
        for part in [0.01, 0.99] {
            let roles = options(CurvatureBatch::Decoupled(part)).deal(2);
            assert_eq!(roles.folds, vec![[some(0..1), some(1..2)]]);
        }
        let crossed = options(CurvatureBatch::CrossFit(4)).with_acceptance(0.1);
        let crossed = crossed.deal(20);
        assert_eq!(crossed.judges, some(18..20));
        assert_eq!(crossed.folds.len(), 4);
        let mut stepping = Vec::new();
        for [others, own] in &crossed.folds {
            let rows = others.iter().chain(own).flatten().cloned().flatten();
            let mut rows: Vec<usize> = rows.collect();
            rows.sort_unstable();
            assert_eq!(rows, (0..16).collect::<Vec<_>>());
            stepping.extend(own.iter().flatten().cloned().flatten());
        }
        assert_eq!(stepping, (0..16).collect::<Vec<_>>());
    }
}
