//! Settings of conjugate gradients.

use super::submissions::Submissions;
use crate::error::{Error, Result};

/// Most iterations, and the longest window over which progress is measured.
const MOST_ITERATIONS: usize = 100_000;

/// Settings of a solve.
#[derive(Clone, Debug, PartialEq)]
#[non_exhaustive]
pub struct CgOptions {
    /// Cap on iterations. Default 250.
    pub max_iterations: usize,
    /// Stop when `|r| <= residual_tolerance |g|`. Default 1e-5, about what f32 can reach.
    pub residual_tolerance: f32,
    /// Martens' epsilon: stop when the model fell by less than `k epsilon` of its value over the last `k = max(min_window, i/10)`
    /// iterations. 0 switches the test off. Default 5e-4.
    pub progress_tolerance: f32,
    /// Smallest `k` of that test. Default 10.
    pub min_window: usize,
    /// How many iterations go into one submission. It changes no number and no decision. Default [`Submissions::default`].
    pub submissions: Submissions,
}

impl Default for CgOptions {
    fn default() -> Self {
        Self {
            max_iterations: 250,
            residual_tolerance: 1e-5,
            progress_tolerance: 5e-4,
            min_window: 10,
            submissions: Submissions::default(),
        }
    }
}

impl CgOptions {
    /// Sets how many iterations go into one submission.
    #[must_use]
    pub fn with_submissions(mut self, value: Submissions) -> Self {
        self.submissions = value;
        self
    }

    /// Sets the cap on iterations.
    #[must_use]
    pub fn with_max_iterations(mut self, value: usize) -> Self {
        self.max_iterations = value;
        self
    }

    /// Sets the residual tolerance.
    #[must_use]
    pub fn with_residual_tolerance(mut self, value: f32) -> Self {
        self.residual_tolerance = value;
        self
    }

    /// Sets Martens' epsilon; 0 switches the test off.
    #[must_use]
    pub fn with_progress_tolerance(mut self, value: f32) -> Self {
        self.progress_tolerance = value;
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
        if self.max_iterations == 0 || self.max_iterations > MOST_ITERATIONS {
            return bad(
                "cg max_iterations",
                format!("{} is not in 1..=100000", self.max_iterations),
            );
        }
        if self.min_window == 0 || self.min_window > MOST_ITERATIONS {
            return bad(
                "cg min_window",
                format!("{} is not in 1..=100000", self.min_window),
            );
        }
        for (name, value) in [
            ("cg residual_tolerance", self.residual_tolerance),
            ("cg progress_tolerance", self.progress_tolerance),
        ] {
            if !(0.0..1.0).contains(&value) {
                return bad(name, format!("{value} is not in 0..1"));
            }
        }
        self.submissions.validate()
    }
}

#[cfg(test)]
mod tests {
    use super::CgOptions;

    #[test]
    fn options_out_of_range_are_named() {
        let refused = CgOptions::default().with_max_iterations(0).validate();
        let error = refused.err().map(|e| e.to_string()).unwrap_or_default();
        assert!(error.contains("max_iterations"), "{error}");
        assert!(
            CgOptions::default()
                .with_residual_tolerance(f32::NAN)
                .validate()
                .is_err()
        );
        assert!(CgOptions::default().validate().is_ok());
    }
}
