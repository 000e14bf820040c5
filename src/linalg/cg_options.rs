//! Settings of conjugate gradients.

use super::submissions::Submissions;
use crate::error::Result;
use crate::options::options;

/// Most iterations, and the longest window over which progress is measured.
const MOST_ITERATIONS: usize = 100_000;

options! {
    /// Settings of a solve.
    pub struct CgOptions in errors "cg" {
        /// Cap on iterations.
        max_iterations(with_max_iterations): usize = 250, in 1..=MOST_ITERATIONS => "1 to 100,000";
        /// Stop when `|r| <= residual_tolerance |g|`; f32 can reach about 1e-5.
        residual_tolerance(with_residual_tolerance): f32 = 1e-5, in 0.0..1.0 => "0 or more, below 1";
        /// Martens' epsilon: stop when the model fell by less than `k epsilon` of its value over the last `k = max(min_window, i/10)`
        /// iterations. 0 switches the test off.
        progress_tolerance(with_progress_tolerance): f32 = 5e-4, in 0.0..1.0 => "0 or more, below 1";
        /// Smallest `k` of that test.
        min_window(with_min_window): usize = 10, in 1..=MOST_ITERATIONS => "1 to 100,000";
        /// How many iterations go into one submission. It changes no number and no decision.
        submissions(with_submissions): Submissions = Submissions::default();
    } together Self::check_together
}

impl CgOptions {
    fn check_together(&self) -> Result<()> {
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
        assert!(
            error.contains("cg max_iterations: 0 is out of range; allowed is 1 to 100,000"),
            "{error}"
        );
        assert!(
            CgOptions::default()
                .with_residual_tolerance(f32::NAN)
                .validate()
                .is_err()
        );
        assert!(CgOptions::default().validate().is_ok());
    }
}
