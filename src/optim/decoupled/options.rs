//! Settings of decoupled Newton-CG.

use crate::data::Role;
use crate::error::Result;
use crate::objective::Curvature;
use crate::optim::newton_cg::{NewtonCgOptions, Preconditioner};
use crate::optim::strategy::Strategy;
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
        self.strategy.plan(self.acceptance, rows)
    }
}
