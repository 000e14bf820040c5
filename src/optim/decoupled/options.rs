//! Settings of decoupled Newton-CG.

use std::ops::Range;

use crate::data::Role;
use crate::error::Result;
use crate::objective::Curvature;
use crate::optim::newton_cg::{NewtonCgOptions, Preconditioner};
use crate::optim::strategy::{Strategy, judging_rows, no_plan, plan};
use crate::options::{options, require};

options! {
    /// Settings of [`DecoupledNewtonCg`](super::DecoupledNewtonCg).
    pub struct DecoupledOptions {
        /// Those of Newton-CG that are not about backtracking and preconditioners, which it does not have here.
        newton(with_newton): NewtonCgOptions = NewtonCgOptions::default();
        /// Who makes what. [`Strategy::decoupled`] is the best of them in training (`docs/results.md`).
        strategy(with_strategy): Strategy = Strategy::decoupled();
        /// Whether each step along a direction is multiplied by `max(0, 1 - variance / slope^2)`. The variance is that of the first slopes
        /// of the examples, at the start of the solve. Steps must come from one fold then.
        shrinks(with_shrinks): bool = false;
        /// Part of the batch that does nothing but judge the step: losses for the line search and the reduction ratio. 0: all folds judge.
        acceptance(with_acceptance): f64 = 0.0, in 0.0..1.0 => "0 or more, below 1";
    } together Self::check_together
}

impl DecoupledOptions {
    fn check_together(&self) -> Result<()> {
        self.newton.validate()?;
        self.strategy.validate()?;
        let plain = self.newton.preconditioner == Preconditioner::None;
        require(
            plain,
            "preconditioner",
            "decoupled Newton-CG has none; use Preconditioner::None",
        )?;
        let definite = self.newton.curvature == Curvature::GaussNewton;
        require(
            definite,
            "curvature",
            "decoupled Newton-CG works with the Gauss-Newton matrix",
        )?;
        let single = self
            .strategy
            .turns()
            .iter()
            .all(|turn| turn.steps.len() == 1);
        require(
            single || !self.shrinks,
            "shrinks",
            "the noise of slopes is known for one fold; let all others make directions",
        )
    }

    /// How a batch of `rows` rows is cut, for [`Roles`](crate::data::Roles) that deal it otherwise than by cutting: directions, steps, and
    /// those that judge.
    ///
    /// # Errors
    /// [`Error::Option`](crate::Error::Option) unless the strategy is [`Strategy::Decoupled`], or where a role would have no rows.
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
