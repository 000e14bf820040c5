//! Settings of SPRING and of Levenberg-Marquardt.

use std::ops::Bound::{Excluded, Included};

use crate::error::Result;
use crate::objective::RowKind;
use crate::optim::damping::AdaptiveDamping;
use crate::options::options;

options! {
    /// Settings of [`Spring`](crate::optim::Spring). Damping is relative, so the unit of the loss does not matter. The defaults are the best that were
    /// found for a small network on the digits; on Fashion-MNIST a damping of 1 does better.
    pub struct SpringOptions {
        /// Which rows stand for the curvature.
        rows(with_rows): RowKind = RowKind::RootLosses;
        /// Part of the solution that a step takes.
        step_length(with_step_length): f64 = 0.15, in (Excluded(0.0), Included(10.0)) => "above 0, at most 10";
        /// Added to the diagonal of the Gram matrix, as a part of its mean.
        damping(with_damping): f64 = 0.3, in (Excluded(0.0), Included(1e6)) => "above 0, at most 1e6";
        /// Part of the last solution that the next one starts from.
        momentum(with_momentum): f64 = 0.95, in 0.0..1.0 => "0 or more, below 1";
        /// Longest step: a longer one is made that short.
        longest(with_longest): f64 = 1e6, in (Excluded(0.0), Included(1e30)) => "above 0, at most 1e30";
        /// Seed of the random signs of [`RowKind::Probe`].
        seed(with_seed): u64 = 0;
    }
}

/// What damping is measured in.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Scaling {
    /// The trace of the squares of the rows, over the smaller of their number and that of the parameters.
    #[default]
    Mean,
    /// Each parameter's own diagonal element of `A^T A` (Marquardt 1963): always on the side of the parameters.
    Diagonal,
    /// Nothing: it is added as it is (Levenberg 1944).
    Identity,
}

options! {
    /// Settings of [`LevenbergMarquardt`](crate::optim::LevenbergMarquardt).
    pub struct LevenbergMarquardtOptions {
        /// Which rows stand for the curvature; they must have residuals.
        rows(with_rows): RowKind = RowKind::Exact;
        /// Damping and its rule.
        damping(with_damping): AdaptiveDamping = AdaptiveDamping::default().with_initial(1e-2).with_decrease(1.0 / 3.0).with_minimum(1e-12);
        /// What it is measured in.
        scaling(with_scaling): Scaling = Scaling::Mean;
        /// Dampings that are tried before a step is refused.
        max_attempts(with_max_attempts): usize = 10, in 1..=1000 => "1 to 1000";
        /// Geodesic acceleration where twice its length is at most this part of the step; 0: none.
        acceleration(with_acceleration): f64 = 0.75, in 0.0..=10.0 => "0 to 10";
    } together Self::check_together
}

impl LevenbergMarquardtOptions {
    fn check_together(&self) -> Result<()> {
        self.damping.validate()
    }
}
