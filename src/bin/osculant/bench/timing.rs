//! Times of recordings, taken in turns.

use std::time::Instant;

use osculant::gpu::{Gpu, Recording};
use serde::Serialize;

/// How much time a figure may take.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Effort {
    /// Fewest rounds.
    pub(crate) rounds: usize,
    /// More rounds until this time has passed.
    pub(crate) seconds: f64,
}

impl Effort {
    /// For a quick run, or a thorough one.
    pub(crate) fn new(quick: bool) -> Self {
        if quick {
            Self {
                rounds: 5,
                seconds: 0.2,
            }
        } else {
            Self {
                rounds: 11,
                seconds: 1.5,
            }
        }
    }
}

/// Replays of a recording fill a submission up to this time, so that what the submission itself costs (about 0.1 ms) is a small part.
const SUBMISSION_SECONDS: f64 = 5e-3;
/// Most replays in a submission.
const MOST_TOGETHER: usize = 64;
/// Most rounds, whatever the time.
const MOST_ROUNDS: usize = 400;

/// Median and spread of a figure over the rounds.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub(crate) struct Figure {
    /// The median.
    pub(crate) median: f64,
    /// Interquartile range over the median.
    pub(crate) spread: f64,
}

impl Figure {
    /// Of at least one value.
    pub(crate) fn of(values: impl IntoIterator<Item = f64>) -> Self {
        let mut sorted: Vec<f64> = values.into_iter().collect();
        sorted.sort_by(f64::total_cmp);
        let median = quantile(&sorted, 0.5);
        let range = quantile(&sorted, 0.75) - quantile(&sorted, 0.25);
        Self {
            median,
            spread: if range == 0.0 {
                0.0
            } else {
                range / median.abs()
            },
        }
    }

    /// The same in another unit.
    pub(crate) fn scaled(self, factor: f64) -> Self {
        Self {
            median: self.median * factor,
            ..self
        }
    }
}

/// A quantile of ascending values, between neighbours in proportion; not a number where there is no value.
fn quantile(sorted: &[f64], part: f64) -> f64 {
    let Some(last) = sorted.len().checked_sub(1) else {
        return f64::NAN;
    };
    let place = part * last as f64;
    let below = place.floor() as usize;
    let above = (below + 1).min(last);
    sorted[below] + (place - below as f64) * (sorted[above] - sorted[below])
}

/// Seconds per replay of several recordings, round after round.
#[derive(Clone, Debug)]
pub(crate) struct Times {
    /// One list of rounds for each recording.
    seconds: Vec<Vec<f64>>,
    /// Replays in a submission, for each recording.
    pub(crate) together: Vec<usize>,
}

impl Times {
    /// Times the recordings in turns, so that other work on the machine meets all alike.
    pub(crate) fn take(
        gpu: &Gpu,
        recordings: &[&Recording],
        effort: Effort,
    ) -> osculant::Result<Self> {
        let mut together = Vec::with_capacity(recordings.len());
        for recording in recordings {
            // The first runs compile, touch memory for the first time, and wake the device up.
            let first = replay(gpu, recording, 1)?;
            let second = replay(gpu, recording, 1)?;
            let several = if first.min(second) < SUBMISSION_SECONDS / 4.0 {
                replay(gpu, recording, 4)? / 4.0
            } else {
                first.min(second)
            };
            let count = (SUBMISSION_SECONDS / several).ceil();
            together.push((count as usize).clamp(1, MOST_TOGETHER));
        }
        let mut seconds = vec![Vec::new(); recordings.len()];
        rounds(effort, || {
            for ((recording, &count), seconds) in recordings.iter().zip(&together).zip(&mut seconds)
            {
                seconds.push(replay(gpu, recording, count)? / count as f64);
            }
            Ok(())
        })?;
        Ok(Self { seconds, together })
    }

    /// Seconds of a recording.
    pub(crate) fn seconds(&self, recording: usize) -> Figure {
        Figure::of(self.seconds[recording].iter().copied())
    }

    /// Time of a recording over that of another one, taken round by round.
    pub(crate) fn ratio(&self, recording: usize, other: usize) -> Figure {
        let pairs = self.seconds[recording].iter().zip(&self.seconds[other]);
        Figure::of(pairs.map(|(one, other)| one / other))
    }
}

/// Repeats a round as often as the effort says.
pub(crate) fn rounds(
    effort: Effort,
    mut round: impl FnMut() -> osculant::Result<()>,
) -> osculant::Result<()> {
    let start = Instant::now();
    for done in 0..MOST_ROUNDS {
        if done >= effort.rounds && start.elapsed().as_secs_f64() >= effort.seconds {
            break;
        }
        round()?;
    }
    Ok(())
}

/// Seconds from submitting `count` replays to the end of the wait for them.
pub(crate) fn replay(gpu: &Gpu, recording: &Recording, count: usize) -> osculant::Result<f64> {
    let start = Instant::now();
    gpu.submit(|recorder| {
        for _ in 0..count {
            recorder.replay(recording);
        }
    })?;
    gpu.wait()?;
    Ok(start.elapsed().as_secs_f64())
}

#[cfg(test)]
mod tests {
    use super::{Effort, Figure, rounds};

    #[test]
    fn figures_are_median_and_interquartile_range() {
        let figure = Figure::of([5.0, 1.0, 3.0, 2.0, 4.0]);
        assert_eq!((figure.median, figure.spread), (3.0, 2.0 / 3.0));
        let figure = Figure::of([4.0, 2.0]).scaled(2.0);
        assert_eq!((figure.median, figure.spread), (6.0, 1.0 / 3.0));
        assert_eq!(Figure::of([0.0]).spread, 0.0);
    }

    #[test]
    fn rounds_are_at_least_as_many_as_asked_for() -> osculant::Result<()> {
        let mut count = 0;
        let effort = Effort {
            rounds: 3,
            seconds: 0.0,
        };
        rounds(effort, || {
            count += 1;
            Ok(())
        })?;
        assert_eq!(count, 3);
        Ok(())
    }
}
