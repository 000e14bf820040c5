//! The radius of a trust region (Conn, Gould, Toint 2000, section 6.1).

use super::options::RADII;
use crate::linalg::Stop;

/// A step is taken when it achieves more than this part of what the model promised.
const ACCEPTED: f64 = 0.1;
/// A step that achieves less than this part makes the region smaller,
const POOR: f64 = 0.25;
/// by this factor;
const SHRINK: f64 = 0.25;
/// one that achieves more than this part and was stopped by the boundary makes it larger,
const GOOD: f64 = 0.75;
/// by this factor,
const GROW: f64 = 2.0;
/// up to so many times the first radius.
pub(super) const MOST: f64 = 100.0;

/// Whether to take a step with this reduction ratio.
pub(super) fn accepts(rho: f64) -> bool {
    rho > ACCEPTED
}

/// The next radius after a step with reduction ratio `rho`, whose solve ended with `stop`.
pub(super) fn next_radius(radius: f64, first: f64, rho: f64, stop: Stop) -> f64 {
    let at_the_boundary = matches!(stop, Stop::Boundary | Stop::NegativeCurvature);
    let next = if rho > GOOD && at_the_boundary {
        (GROW * radius).min(MOST * first)
    } else if rho.is_nan() || rho < POOR {
        SHRINK * radius
    } else {
        radius
    };
    next.clamp(*RADII.start(), *RADII.end())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_radius_follows_the_reduction_ratio() {
        let next = |rho, stop| next_radius(3.0, 1.0, rho, stop);
        assert_eq!(next(0.76, Stop::Boundary), 6.0);
        assert_eq!(next(0.76, Stop::NegativeCurvature), 6.0);
        assert_eq!(next(0.76, Stop::Residual), 3.0);
        assert_eq!(next(0.74, Stop::Boundary), 3.0);
        assert_eq!(next(0.26, Stop::Residual), 3.0);
        assert_eq!(next(0.24, Stop::Residual), 0.75);
        assert_eq!(next(f64::NAN, Stop::Residual), 0.75);
        assert_eq!(next(f64::NEG_INFINITY, Stop::Boundary), 0.75);
        assert_eq!(next_radius(60.0, 1.0, 0.9, Stop::Boundary), 100.0);
        assert_eq!(next_radius(1e-12, 1.0, -1.0, Stop::Boundary), 1e-12);
        assert!(accepts(0.101) && !accepts(0.1) && !accepts(f64::NAN));
    }
}
