//! How the length of steps changes over a run.

use std::f64::consts::PI;

use crate::error::Result;
use crate::options::check_range;

/// The factor on the length of a step, as a function of the part `t` of a run that is done:
///
/// ```text
/// constant   1
/// linear     1 - (1 - last) t
/// cosine     last + (1 - last) (1 + cos(pi t)) / 2        (Loshchilov and Hutter 2017)
/// ```
///
/// What a step length is, each method says: the learning rates of SGD, Adam, Muon, SOAP and Shampoo, with which decoupled weight decay
/// shrinks as well; the factor of [`DebiasedSgd`](super::DebiasedSgd); both step lengths of low-rank saddle-free Newton, and the learning rate of its base; the
/// first factor on a direction of Newton-CG, from which its line search goes on.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub enum Schedule {
    /// Always 1.
    #[default]
    Constant,
    /// Falls in a line.
    Linear {
        /// The factor at the end, in 0..=1.
        last: f64,
    },
    /// Falls as half a period of a cosine: slowly at both ends.
    Cosine {
        /// The factor at the end, in 0..=1.
        last: f64,
    },
}

impl Schedule {
    /// The factor where the part `done` of a run is done; below 0 and above 1 it is that at the ends.
    #[must_use]
    pub fn factor(self, done: f64) -> f64 {
        let t = done.clamp(0.0, 1.0);
        match self {
            Self::Constant => 1.0,
            Self::Linear { last } => 1.0 - (1.0 - last) * t,
            Self::Cosine { last } => last + (1.0 - last) * 0.5 * (1.0 + (PI * t).cos()),
        }
    }

    /// Checks the range.
    ///
    /// # Errors
    /// [`Error::Option`](crate::Error::Option).
    pub fn validate(self) -> Result<()> {
        match self {
            Self::Constant => Ok(()),
            Self::Linear { last } | Self::Cosine { last } => {
                check_range("last factor of the schedule", &last, 0.0..=1.0, "0 to 1")
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::Schedule;

    #[test]
    fn factors_are_those_of_a_hand_computation() {
        let line = Schedule::Linear { last: 0.2 };
        let half_root = 0.5 * (1.0 + 0.5f64.sqrt());
        for (schedule, done, factor) in [
            (Schedule::Constant, 0.7, 1.0),
            (line, 0.0, 1.0),
            (line, 0.25, 0.8),
            (line, 1.0, 0.2),
            (line, 7.0, 0.2),
            (Schedule::Cosine { last: 0.0 }, 0.0, 1.0),
            (Schedule::Cosine { last: 0.0 }, 0.25, half_root),
            (Schedule::Cosine { last: 0.0 }, 0.5, 0.5),
            (Schedule::Cosine { last: 0.0 }, 1.0, 0.0),
            (Schedule::Cosine { last: 0.5 }, 1.0 / 3.0, 0.5 + 0.5 * 0.75),
        ] {
            let found = schedule.factor(done);
            assert!(
                (found - factor).abs() < 1e-15,
                "{schedule:?} at {done}: {found}"
            );
        }
        assert_eq!(Schedule::Linear { last: 0.0 }.factor(0.0), 1.0);
    }

    #[test]
    fn a_last_factor_above_one_is_refused() {
        assert!(Schedule::Linear { last: 1.1 }.validate().is_err());
        assert!(Schedule::Cosine { last: f64::NAN }.validate().is_err());
        assert!(Schedule::Cosine { last: 0.0 }.validate().is_ok());
    }
}
