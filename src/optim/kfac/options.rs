//! Settings of K-FAC.

use std::ops::Bound::{Excluded, Included};

use crate::objective::{Estimate, KroneckerRequest, Sizes};
use crate::options::options;

/// What a layer's gradient is multiplied by.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Approximation {
    /// The inverses of both factors.
    Kfac,
    /// That of the factor of inputs alone, and that of the mean eigenvalue of the other one (FOOF, Benzing 2022, "Gradient descent on
    /// neurons and its link to approximate second-order optimization").
    Foof,
    /// The inverse in the basis of both factors' eigenvectors, with eigenvalues that are measured and not products of the factors' (EKFAC,
    /// George et al. 2018, "Fast approximate natural gradient descent in a Kronecker-factored eigenbasis"). For layers whose factors are both
    /// matrices, see [`largest`](KfacOptions::largest); others have K-FAC.
    Ekfac,
}

options! {
    /// Settings of [`Kfac`](crate::optim::Kfac). One setting, the default, is meant for all tasks: there is no learning rate.
    ///
    /// How the factors are held follows from the rows of the first batch, since what a step costs beside its gradient does: with `n` rows a
    /// factor of order `k` as a matrix costs `k / 2n` of its layer's gradient in every step, and a sketch for `r` eigenvectors `r / n`.
    pub struct KfacOptions {
        /// Factor on the step that the quadratic along the direction wants, averaged over batches.
        step_length(with_step_length): f64 = 0.45, in (Excluded(0.0), Included(10.0)) => "above 0, at most 10";
        /// Added to the diagonal of each factor: its square root times the mean of the factor's eigenvalues.
        damping(with_damping): f64 = 2.0, in (Excluded(0.0), Included(1e6)) => "above 0, at most 1e6";
        /// Momentum.
        momentum(with_momentum): f32 = 0.7, in 0.0..1.0 => "0 or more, below 1";
        /// What a step leaves of the running averages of factors, slopes and curvatures.
        memory(with_memory): f64 = 0.99, in 0.0..1.0 => "0 or more, below 1";
        /// How much longer a direction is made at most, where its slope `g.D` is below the averaged one: directions are scaled to that, so that
        /// an example which the averages do not know yet moves no more than others.
        stretch(with_stretch): f64 = 4.5, in 1.0..=1e3 => "1 to 1000";
        /// Most steps from one refresh of factors, their inverses, slope and curvature to the next. The first steps have them more often.
        interval(with_interval): u64 = 20, in 1..=100_000 => "1 to 100,000";
        /// Order up to which a factor is a matrix, as a part of the first batch's rows. Of larger ones that of inputs is sketched, and of that
        /// of outputs the diagonal is kept.
        largest(with_largest): f64 = 0.55, in 0.0..=1e6 => "0 to 1e6";
        /// Eigenvectors that a larger factor of inputs is sketched for, as a part of the first batch's rows; 0: its diagonal.
        rank(with_rank): f64 = 0.0625, in 0.0..=1.0 => "0 to 1";
        /// What a layer's gradient is multiplied by.
        approximation(with_approximation): Approximation = Approximation::Kfac;
        /// What the factors of outputs are made of.
        estimate(with_estimate): Estimate = Estimate::Mixture;
        /// Seed of the random signs.
        seed(with_seed): u64 = 0;
    }
}

/// The part of the steps so far that goes by before the next refresh, up to the interval.
const PATIENCE: f64 = 0.2;

impl KfacOptions {
    /// Steps from the last refresh to the next one, after so many steps.
    pub(super) fn wait(&self, steps: u64) -> u64 {
        self.interval.min(1 + (PATIENCE * steps as f64) as u64)
    }

    pub(super) fn request(&self, rows: usize) -> KroneckerRequest {
        let part = |of: f64| of * rows as f64;
        KroneckerRequest {
            sizes: Sizes {
                largest: part(self.largest) as usize,
                rank: part(self.rank).ceil() as usize,
                mean_columns: self.approximation == Approximation::Foof,
                corrected: self.approximation == Approximation::Ekfac,
            },
            estimate: self.estimate,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// By hand: every step up to the fourth; every third after ten; at most the interval.
    #[test]
    fn refreshes_become_rarer() {
        let options = KfacOptions::default();
        let waits = [0, 4, 5, 10, 94, 95, 1000].map(|steps| options.wait(steps));
        assert_eq!(waits, [1, 1, 2, 3, 19, 20, 20]);
    }

    #[test]
    fn forms_follow_the_rows() {
        let sizes = |rows| KfacOptions::default().request(rows).sizes;
        let of = Sizes::up_to;
        assert_eq!(
            [sizes(64), sizes(256), sizes(3)],
            [of(35, 4), of(140, 16), of(1, 1)]
        );
    }
}
