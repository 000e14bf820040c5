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
    pub struct AdaptiveDamping in errors "damping" {
        /// First value.
        initial(with_initial): f64 = 1.0, in 0.0..=LARGEST => "0 to 1e15";
        /// Factor after a step that the model predicted well; 1 keeps the damping fixed.
        decrease(with_decrease): f64 = 2.0 / 3.0, in (Excluded(0.0), Included(1.0)) => "above 0, at most 1";
        /// Smallest value.
        minimum(with_minimum): f64 = 1e-8, in 0.0..=LARGEST => "0 to 1e15";
    }
}

impl AdaptiveDamping {
    /// The next damping after a step whose ratio is known up to an error: where that could make a difference, the damping stays.
    pub(super) fn judge(&self, damping: f64, ratio: Ratio) -> f64 {
        ratio
            .decides(|rho| self.next(damping, rho))
            .unwrap_or(damping)
    }

    /// The next damping after a step with reduction ratio `rho`; a refused step counts as a bad one.
    ///
    /// A damping is an f32, and so is its product with a factor: devices compute with it, and where a step is recorded they make it.
    pub fn next(&self, damping: f64, rho: f64) -> f64 {
        let damping = damping as f32;
        let next = if rho > 0.75 {
            damping * self.decrease as f32
        } else if rho >= 0.25 {
            damping
        } else {
            damping * self.increase()
        };
        // The cap keeps (C + damping) p within f32 where no step is ever accepted.
        f64::from(next.max(self.minimum as f32).min(LARGEST as f32))
    }

    /// Factor after a bad step.
    pub(super) fn increase(&self) -> f32 {
        (1.0 / self.decrease) as f32
    }

    /// The first damping.
    pub(super) fn first(&self) -> f64 {
        f64::from(self.initial as f32)
    }
}

#[cfg(test)]
mod tests {
    use super::AdaptiveDamping;

    #[test]
    fn damping_grows_after_bad_steps_and_shrinks_after_good_ones() {
        let rule = AdaptiveDamping::default();
        let two_thirds = f64::from(2.0f32 / 3.0);
        assert_eq!(rule.next(1.0, 0.9), two_thirds);
        assert_eq!(rule.next(1.0, 0.76), two_thirds);
        assert_eq!(rule.next(1.0, 0.74), 1.0);
        assert_eq!(rule.next(1.0, 0.26), 1.0);
        assert_eq!(rule.next(1.0, 0.24), 1.5);
        assert_eq!(rule.next(1.0, 0.5), 1.0);
        assert_eq!(rule.next(1.0, 0.1), 1.5);
        assert_eq!(rule.next(1.0, f64::NAN), 1.5);
        assert_eq!(rule.next(1e-8, 1.0), f64::from(1e-8f32));
        let grown = (0..1000).fold(1.0, |damping, _| rule.next(damping, -1.0));
        assert!((grown as f32).is_finite());
        assert!(rule.with_decrease(0.0).validate().is_err());
        assert!(rule.with_initial(f64::NAN).validate().is_err());
    }
}
