//! How much work goes into one submission: little enough for a driver's watchdog and for a screen that the device also draws.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use crate::error::Result;
use crate::options::require;

/// How many iterations of a solver go into one submission. No number and no decision depends on it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Submissions {
    /// As many as take about this long, by what iterations took before; one each until that is known. They follow one another without a
    /// wait.
    Timed(Duration),
    /// So many, and the host looks at the end of each submission.
    Fixed(usize),
}

impl Default for Submissions {
    /// 200 ms: a tenth of the time after which drivers give a device up.
    fn default() -> Self {
        Self::Timed(Duration::from_millis(200))
    }
}

impl Submissions {
    /// Checks the ranges.
    ///
    /// # Errors
    /// [`Error::Option`](crate::Error::Option) for a time or a number of zero.
    pub fn validate(&self) -> Result<()> {
        let (possible, message) = match self {
            Self::Timed(time) => (!time.is_zero(), "a submission must be given some time"),
            Self::Fixed(iterations) => (
                *iterations > 0,
                "a submission must have one iteration at least",
            ),
        };
        require(possible, "submissions", message)
    }
}

/// What iterations took so far.
#[derive(Debug)]
pub(super) struct Pace {
    submissions: Submissions,
    /// Nanoseconds of an iteration; 0 before the first is known.
    nanoseconds: AtomicU64,
}

impl Pace {
    pub(super) fn new(submissions: Submissions) -> Self {
        Self {
            submissions,
            nanoseconds: AtomicU64::new(0),
        }
    }

    /// Iterations for the next submission, of which `most` are wanted.
    pub(super) fn at_once(&self, most: usize) -> usize {
        let fit = match (self.submissions, self.nanoseconds.load(Ordering::Relaxed)) {
            (Submissions::Fixed(count), _) => count,
            (Submissions::Timed(_), 0) => 1,
            (Submissions::Timed(time), each) => {
                usize::try_from(time.as_nanos() / u128::from(each)).unwrap_or(usize::MAX)
            }
        };
        fit.clamp(1, most.max(1))
    }

    /// Learns that so many iterations took this long, with what came before them.
    pub(super) fn measured(&self, time: Duration, iterations: usize) {
        let each = time.as_nanos() / iterations.max(1) as u128;
        let each = u64::try_from(each).unwrap_or(u64::MAX).max(1);
        self.nanoseconds.store(each, Ordering::Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_submission_fills_its_time_once_that_is_known() {
        assert_eq!(
            Submissions::default(),
            Submissions::Timed(Duration::from_millis(200))
        );
        let pace = Pace::new(Submissions::default());
        assert_eq!(pace.at_once(11), 1);
        for (seconds, expected) in [(1.0, 2), (0.1, 11), (20.0, 1), (0.0, 11)] {
            pace.measured(Duration::from_secs_f64(seconds), 10);
            assert_eq!(pace.at_once(11), expected, "{seconds}");
        }
        assert_eq!(Pace::new(Submissions::Fixed(3)).at_once(11), 3);
        assert_eq!(Pace::new(Submissions::Fixed(30)).at_once(11), 11);
        assert!(Submissions::Fixed(0).validate().is_err());
        assert!(Submissions::Timed(Duration::ZERO).validate().is_err());
        assert!(Submissions::Fixed(1).validate().is_ok());
    }
}
