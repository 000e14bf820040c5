//! `osculant analyze`: what curvature looks like.

mod panel;
mod saddle;
mod spectrum;
mod start;

use crate::arguments::Analyze;
use crate::failure::Outcome;

/// Runs the command.
pub(crate) fn run(arguments: &Analyze) -> Outcome {
    match arguments {
        Analyze::Saddle(arguments) => saddle::run(arguments),
        Analyze::Spectrum(arguments) => spectrum::run(arguments),
    }
}
