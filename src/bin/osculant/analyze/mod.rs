//! `osculant analyze`: what curvature looks like.

pub(crate) mod arguments;
mod bias;
mod bias_report;
mod panel;
mod saddle;
mod spectrum;
pub(crate) mod start;
mod strategies;

use crate::arguments::Analyze;
use crate::failure::Outcome;

/// Runs the command.
pub(crate) fn run(arguments: &Analyze) -> Outcome {
    match arguments {
        Analyze::Bias(arguments) => bias::run(arguments),
        Analyze::Saddle(arguments) => saddle::run(arguments),
        Analyze::Strategies(arguments) => strategies::run(arguments),
        Analyze::Spectrum(arguments) => spectrum::run(arguments),
    }
}
