//! What to say where a step meets numbers that are not finite: what is so before the step no damping cures.

use crate::error::Error;
use crate::linalg::{CgReport, OUT_OF_SCALE, Stop};

/// Infinite or no number at the parameters where the step begins.
fn at_the_start(what: &str) -> Error {
    Error::NotFinite {
        what: what.into(),
        advice: "It is so where the step begins: check the data, the parameters, and the initialization or learning rate that led to them.",
    }
}

pub(super) fn loss() -> Error {
    at_the_start("the loss")
}

pub(super) fn gradient() -> Error {
    at_the_start("the gradient")
}

/// What is not finite of a step of a method with a learning rate: the loss, the square of the gradient, or else the step itself.
pub(super) fn step(loss: f64, gradient_square: f64) -> Error {
    let what = if !loss.is_finite() {
        "the loss"
    } else if !gradient_square.is_finite() {
        "the gradient"
    } else {
        "the step"
    };
    Error::NotFinite {
        what: what.into(),
        advice: "Use a smaller learning rate, or check the data.",
    }
}

/// Of the factors of a parameter.
pub(super) fn factors(parameter: &str) -> Error {
    Error::NotFinite {
        what: format!("what is made of the factors of '{parameter}'"),
        advice: OUT_OF_SCALE,
    }
}

/// Loss and gradient are finite, and this is not.
pub(super) fn out_of_scale(what: &str) -> Error {
    Error::NotFinite {
        what: what.into(),
        advice: OUT_OF_SCALE,
    }
}

/// What is wrong with a solve that has no iterate to go on with. One that overflows later ends with the last iterate before, which is as
/// good as that of any other stop.
pub(super) fn solve(report: &CgReport) -> Option<Error> {
    if !report.gradient_norm.is_finite() {
        return Some(gradient());
    }
    let failed = report.stop == Stop::NotFinite && report.iterations == 0;
    failed.then(|| out_of_scale("the Newton direction"))
}
