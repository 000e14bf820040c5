//! What follows from the numbers that a judge found: pure functions of a few scalars.

/// The actual change of the loss over the one that a model promised, as what it may be where the change is known up to an error.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) struct Ratio {
    pub(super) least: f64,
    pub(super) most: f64,
}

impl Ratio {
    /// Of a step that is refused, whatever its ratio.
    pub(super) const REFUSED: Self = Self {
        least: f64::NEG_INFINITY,
        most: f64::NEG_INFINITY,
    };

    /// From a change, the bound on its error, and the change that was promised.
    pub(super) fn new(change: f64, error: f64, promised: f64) -> Self {
        if promised >= 0.0 {
            // A model that promises no fall has nothing to be right about.
            return Self::REFUSED;
        }
        let (a, b) = ((change - error) / promised, (change + error) / promised);
        if a.is_nan() || b.is_nan() {
            // Infinite changes over infinite promises: nothing that is good.
            return Self {
                least: f64::NAN,
                most: f64::NAN,
            };
        }
        Self {
            least: a.min(b),
            most: a.max(b),
        }
    }

    /// The ratio itself, in the middle.
    pub(super) fn value(self) -> f64 {
        0.5 * (self.least + self.most)
    }

    /// What a rule makes of the ratio; none where it depends on the error of the change.
    pub(super) fn decides<T: PartialEq>(self, rule: impl Fn(f64) -> T) -> Option<T> {
        let (least, most) = (rule(self.least), rule(self.most));
        (least == most).then_some(least)
    }
}

/// Whether the loss falls as far as Armijo's condition wants, `change <= constant a slope`; a change that may be so, given its error, is
/// good enough.
pub(super) fn falls_enough(change: f64, error: f64, constant: f64, slope: f64) -> bool {
    change - error <= constant * slope.min(0.0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_ratio_decides_where_its_error_does_not_matter() {
        let good = |rho: f64| rho > 0.75;
        assert_eq!(Ratio::new(-0.9, 0.01, -1.0).decides(good), Some(true));
        assert_eq!(Ratio::new(-0.75, 0.01, -1.0).decides(good), None);
        assert_eq!(Ratio::new(0.1, 0.01, -1.0).decides(good), Some(false));
        // Far below its error.
        assert_eq!(Ratio::new(1e-12, 1e-8, -1e-11).decides(good), None);
        // Of a promise that is far above it.
        assert_eq!(Ratio::new(1e-12, 1e-8, -1.0).decides(good), Some(false));
        assert_eq!(
            Ratio::new(f64::INFINITY, 0.0, -1.0).decides(good),
            Some(false)
        );
        assert_eq!(Ratio::new(0.0, 0.0, 0.0).decides(good), Some(false));
        assert_eq!(Ratio::new(0.1, 0.0, 0.1).decides(good), Some(false));
        assert!((Ratio::new(-0.9, 0.01, -1.0).value() - 0.9).abs() < 1e-12);
    }

    #[test]
    fn a_fall_is_enough_where_it_may_be() {
        assert!(falls_enough(-0.02, 0.0, 0.01, -1.0));
        assert!(!falls_enough(-0.009, 0.0, 0.01, -1.0));
        assert!(falls_enough(-0.009, 0.002, 0.01, -1.0));
        assert!(!falls_enough(1e-9, 1e-10, 0.01, 1.0));
        assert!(falls_enough(0.0, 0.0, 0.01, 0.0));
        assert!(!falls_enough(f64::INFINITY, 0.0, 0.01, -1.0));
    }
}
