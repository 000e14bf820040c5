//! What commands need before they start: the device, and for training a sensible amount of work.

use std::path::Path;

use osculant::gpu::{AdapterOptions, Gpu};
use osculant::kernels::tuning::Tuning;

use crate::arguments::Place;
use crate::failure::{Failure, Outcome};
use crate::problems::Problem;

/// The device of the adapter whose name has this part, or the best one, with a tuning file or the built-in rules.
pub(crate) fn device(adapter: Option<&str>, tuning: Option<&Path>) -> Outcome<Gpu> {
    let mut options = AdapterOptions::from_env();
    if let Some(name) = adapter {
        options = options.with_name(name);
    }
    Ok(match tuning {
        Some(path) => Gpu::request_tuned(&options, Tuning::read(path)?)?,
        None => Gpu::request(&options)?,
    })
}

impl Place {
    /// The device that was asked for, or the best one.
    pub(crate) fn gpu(&self) -> Outcome<Gpu> {
        device(self.adapter.as_deref(), self.tuning.as_deref())
    }

    /// The work budget in epochs: that of the command line, of a file, or the default.
    pub(crate) fn work(&self, problem: &Problem, of_file: Option<f64>) -> Outcome<f64> {
        match self.work.or(of_file) {
            None => Ok(problem.default_work()),
            Some(work) if work.is_finite() && work > 0.0 => Ok(work),
            Some(work) => Err(
                Failure::new(format!("--work {work} is not an amount of work"))
                    .hint("give a number of epochs above 0, for example --work 20"),
            ),
        }
    }
}
