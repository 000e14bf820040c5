//! Times of calls that are waited for.

use std::error::Error;
use std::time::{Duration, Instant};

use burn::tensor::Device;
use serde_json::{Value, json};

/// While warming up, a call slower than this many times the fastest means that something is still being prepared.
const OUTLIER: f64 = 3.0;
/// Calls without an outlier that end the warm-up: autotune has settled then.
const CALM_CALLS: usize = 15;
/// The warm-up ends in any case after this long.
const LONGEST_WARM_UP: Duration = Duration::from_secs(120);
/// Calls fill a sample up to this many milliseconds, so that waiting for the device is a small part. `osculant bench` does the same.
const SAMPLE_MILLISECONDS: f64 = 5.0;
/// Most calls in a sample.
const MOST_TOGETHER: usize = 64;

/// Warms up, then takes samples; the first call never counts.
pub(crate) struct Timer {
    device: Device,
    samples: usize,
    warm_up: Duration,
}

/// Milliseconds of one call.
pub(crate) struct Times {
    pub(crate) median: f64,
    pub(crate) min: f64,
    pub(crate) max: f64,
    pub(crate) samples: usize,
    /// Calls in a sample.
    pub(crate) together: usize,
}

impl Times {
    pub(crate) fn json(&self) -> Value {
        json!({ "median": self.median, "min": self.min, "max": self.max, "samples": self.samples, "together": self.together })
    }
}

impl Timer {
    pub(crate) fn new(device: &Device, samples: usize, warm_up_seconds: f64) -> Self {
        Self {
            device: device.clone(),
            samples,
            warm_up: Duration::from_secs_f64(warm_up_seconds),
        }
    }

    /// Times `call`: several calls one after another, until the device has finished all of them.
    pub(crate) fn milliseconds<T>(
        &self,
        label: &str,
        mut call: impl FnMut() -> Result<T, Box<dyn Error>>,
    ) -> Result<Times, Box<dyn Error>> {
        let mut sample = |calls: usize| -> Result<f64, Box<dyn Error>> {
            let start = Instant::now();
            // Kept until the device has finished, so that nothing can be left out as unused.
            let results = (0..calls).map(|_| call()).collect::<Result<Vec<T>, _>>()?;
            self.device.sync()?;
            let elapsed = 1e3 * start.elapsed().as_secs_f64() / calls as f64;
            drop(results);
            Ok(elapsed)
        };
        let first = sample(1)?;
        let began = Instant::now();
        let (mut best, mut calm) = (f64::INFINITY, 0);
        while (calm < CALM_CALLS || began.elapsed() < self.warm_up)
            && began.elapsed() < LONGEST_WARM_UP
        {
            let elapsed = sample(1)?;
            best = best.min(elapsed);
            calm = if elapsed > OUTLIER * best {
                0
            } else {
                calm + 1
            };
        }
        let together = ((SAMPLE_MILLISECONDS / best).ceil() as usize).clamp(1, MOST_TOGETHER);
        let mut times = (0..self.samples)
            .map(|_| sample(together))
            .collect::<Result<Vec<f64>, _>>()?;
        times.sort_by(f64::total_cmp);
        let middle = times.len() / 2;
        let median = if times.len() % 2 == 1 {
            times[middle]
        } else {
            (times[middle - 1] + times[middle]) / 2.0
        };
        let (min, max) = (times[0], times[times.len() - 1]);
        eprintln!(
            "{label:44} {median:10.3} ms  [{min:.3} to {max:.3}]  {together} together, first call {first:.0} ms"
        );
        Ok(Times {
            median,
            min,
            max,
            samples: self.samples,
            together,
        })
    }
}
