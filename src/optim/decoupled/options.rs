//! Settings of decoupled Newton-CG.

use std::ops::Range;

use crate::data::Role;
use crate::error::{Error, Result};
use crate::objective::Curvature;
use crate::optim::newton_cg::{NewtonCgOptions, Preconditioner};
use crate::optim::strategy::{Strategy, judging_rows, no_plan, plan};

/// Settings of [`DecoupledNewtonCg`](super::DecoupledNewtonCg).
#[derive(Clone, Debug, PartialEq)]
#[non_exhaustive]
pub struct DecoupledOptions {
    /// Those of Newton-CG that are not about backtracking and preconditioners, which it does not have here.
    pub newton: NewtonCgOptions,
    /// Who makes what. Default [`Strategy::decoupled`], the best of them in training (`docs/results.md`).
    pub strategy: Strategy,
    /// Whether each step along a direction is multiplied by `max(0, 1 - variance / slope^2)`. The variance is that of the first slopes of
    /// the examples, at the start of the solve. Steps must come from one fold then. Default false.
    pub shrinks: bool,
    /// Part of the batch that does nothing but judge the step: losses for the line search and the reduction ratio. 0: all folds judge.
    /// Default 0.
    pub acceptance: f64,
}

impl Default for DecoupledOptions {
    fn default() -> Self {
        Self {
            newton: NewtonCgOptions::default(),
            strategy: Strategy::decoupled(),
            shrinks: false,
            acceptance: 0.0,
        }
    }
}

impl DecoupledOptions {
    /// Sets the options of Newton-CG.
    #[must_use]
    pub fn with_newton(mut self, newton: NewtonCgOptions) -> Self {
        self.newton = newton;
        self
    }

    /// Sets who makes what.
    #[must_use]
    pub fn with_strategy(mut self, strategy: Strategy) -> Self {
        self.strategy = strategy;
        self
    }

    /// Sets whether steps shrink with the noise of their slopes.
    #[must_use]
    pub fn with_shrinking(mut self, shrinks: bool) -> Self {
        self.shrinks = shrinks;
        self
    }

    /// Sets the part of the batch that only judges.
    #[must_use]
    pub fn with_acceptance(mut self, part: f64) -> Self {
        self.acceptance = part;
        self
    }

    /// Checks the ranges.
    ///
    /// # Errors
    /// [`Error::Option`] naming the option and its range.
    pub fn validate(&self) -> Result<()> {
        let bad = |option: &str, message: String| {
            Err(Error::Option {
                option: option.into(),
                message,
            })
        };
        self.newton.validate()?;
        self.strategy.validate()?;
        if self.newton.preconditioner != Preconditioner::None {
            return bad(
                "preconditioner",
                "decoupled Newton-CG has none; use Preconditioner::None".into(),
            );
        }
        if self.newton.curvature != Curvature::GaussNewton {
            return bad(
                "curvature",
                "decoupled Newton-CG works with the Gauss-Newton matrix".into(),
            );
        }
        if self.shrinks
            && self
                .strategy
                .turns()
                .iter()
                .any(|turn| turn.steps.len() > 1)
        {
            return bad(
                "shrinks",
                "the noise of slopes is known for one fold; let all others make directions".into(),
            );
        }
        if !(0.0..1.0).contains(&self.acceptance) {
            return bad("acceptance", format!("{} is not in 0..1", self.acceptance));
        }
        Ok(())
    }

    /// How a batch of `rows` rows is cut, for [`Roles`](crate::data::Roles) that deal it otherwise than by cutting: directions, steps, and
    /// those that judge.
    ///
    /// # Errors
    /// [`Error::Option`] unless the strategy is [`Strategy::Decoupled`], or where a role would have no rows.
    pub fn plan(&self, rows: usize) -> Result<Vec<(Role, usize)>> {
        let Strategy::Decoupled { folds, directions } = self.strategy else {
            return Err(no_plan());
        };
        let judging = judging_rows(self.acceptance, rows);
        let fold = rows.saturating_sub(judging) / folds.max(1);
        let directions = fold * directions;
        plan(
            directions,
            (fold * folds).saturating_sub(directions),
            judging,
        )
    }

    /// The rows of a batch that are cut into folds, and those after them that judge; none where the folds do.
    pub(super) fn deal(&self, rows: usize) -> (usize, Option<Range<usize>>) {
        let folds = self.strategy.folds();
        let judging = judging_rows(self.acceptance, rows);
        let rest = rows.saturating_sub(judging);
        (rest / folds * folds, (judging > 0).then_some(rest..rows))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rows_that_do_not_fill_the_folds_are_left_out() {
        let options = DecoupledOptions::default().with_strategy(Strategy::cross_fit(4));
        assert_eq!(options.deal(22), (20, None));
        let options = options.with_acceptance(0.2);
        assert_eq!(options.deal(20), (16, Some(16..20)));
        assert_eq!(options.deal(3), (0, Some(2..3)));
        // Where examples are to be set apart, one is.
        assert_eq!(options.with_acceptance(0.01).deal(9), (8, Some(8..9)));
    }

    #[test]
    fn a_plan_is_how_a_batch_is_cut() {
        let options = DecoupledOptions::default().with_strategy(Strategy::Decoupled {
            folds: 4,
            directions: 3,
        });
        let two = [(Role::Directions, 15), (Role::Steps, 5)];
        assert!(options.plan(22).is_ok_and(|plan| plan == two));
        let judged = options.clone().with_acceptance(0.2).plan(20);
        let three = [
            (Role::Directions, 12),
            (Role::Steps, 4),
            (Role::Acceptance, 4),
        ];
        assert!(judged.is_ok_and(|plan| plan == three));
        assert!(options.plan(3).is_err());
        let crossed = options.with_strategy(Strategy::cross_fit(2));
        assert!(crossed.plan(20).is_err());
    }
}
