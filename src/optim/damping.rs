//! Levenberg-Marquardt damping.

use std::ops::Bound::{Excluded, Included};

use super::decision::Ratio;
use crate::options::options;

/// Largest damping: with it a step is a gradient step of no length.
pub(super) const LARGEST: f64 = 1e15;

options! {
    /// The rule that keeps the damping where the quadratic can be trusted (Martens 2010, section 4.1): with the reduction ratio `rho`,
    /// multiply by `1/decrease` below 1/4 and by `decrease` above 3/4.
    #[derive(Copy)]
    pub struct LevenbergMarquardt in errors "damping" {
        /// First value.
        initial(with_initial): f64 = 1.0, in 0.0..=LARGEST => "0 to 1e15";
        /// Factor after a step that the model predicted well; 1 keeps the damping fixed.
        decrease(with_decrease): f64 = 2.0 / 3.0, in (Excluded(0.0), Included(1.0)) => "above 0, at most 1";
        /// Smallest value.
        minimum(with_minimum): f64 = 1e-8, in 0.0..=LARGEST => "0 to 1e15";
    }
}

impl LevenbergMarquardt {
    /// The next damping after a step whose ratio is known up to an error: where that could make a difference, the damping stays.
    pub(super) fn judge(&self, damping: f64, ratio: Ratio) -> f64 {
        ratio
            .decides(|rho| self.next(damping, rho))
            .unwrap_or(damping)
    }

    /// The next damping after a step with reduction ratio `rho`; a refused step counts as a bad one.
    pub fn next(&self, damping: f64, rho: f64) -> f64 {
        let next = if rho > 0.75 {
            damping * self.decrease
        } else if rho >= 0.25 {
            damping
        } else {
            damping / self.decrease
        };
        // The cap keeps (C + damping) p within f32 where no step is ever accepted.
        next.max(self.minimum).min(LARGEST)
    }
}

#[cfg(test)]
mod tests {
    use super::LevenbergMarquardt;

    #[test]
    fn damping_grows_after_bad_steps_and_shrinks_after_good_ones() {
        let rule = LevenbergMarquardt::default();
        assert!((rule.next(1.0, 0.9) - 2.0 / 3.0).abs() < 1e-15);
        assert!((rule.next(1.0, 0.76) - 2.0 / 3.0).abs() < 1e-15);
        assert!((rule.next(1.0, 0.74) - 1.0).abs() < 1e-15);
        assert!((rule.next(1.0, 0.26) - 1.0).abs() < 1e-15);
        assert!((rule.next(1.0, 0.24) - 1.5).abs() < 1e-15);
        assert!((rule.next(1.0, 0.5) - 1.0).abs() < 1e-15);
        assert!((rule.next(1.0, 0.1) - 1.5).abs() < 1e-15);
        assert!((rule.next(1.0, f64::NAN) - 1.5).abs() < 1e-15);
        assert!((rule.next(1e-8, 1.0) - 1e-8).abs() < 1e-23);
        let grown = (0..1000).fold(1.0, |damping, _| rule.next(damping, -1.0));
        assert!((grown as f32).is_finite());
        assert!(rule.with_decrease(0.0).validate().is_err());
        assert!(rule.with_initial(f64::NAN).validate().is_err());
    }
}
