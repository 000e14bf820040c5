//! A line search for the strong Wolfe conditions (Nocedal and Wright 2006, algorithms 3.5 and 3.6), with cubic interpolation.

/// Where the change of the loss is rounding, as a part of the loss: slopes decide there (the approximate Wolfe conditions of Hager and
/// Zhang 2005).
const ROUNDING: f64 = 1e-6;
/// A trial lies between these parts of a bracket.
const INSIDE: [f64; 2] = [0.1, 0.9];
/// Of a bracket whose far end is not finite.
const NOT_FINITE: f64 = 0.1;
/// How much longer a trial may be than the last one that was too short.
const LONGER: [f64; 2] = [2.0, 10.0];

/// What is known at a length.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) struct Probe {
    pub(super) length: f64,
    /// The loss less that at 0.
    pub(super) change: f64,
    pub(super) slope: f64,
}

/// What to do next.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) enum Next {
    Try(f64),
    /// The length that was tried last is the step.
    Take,
    /// No length was found.
    Fail,
}

#[derive(Debug)]
pub(super) struct Search {
    slope: f64,
    /// What counts as no change.
    rounding: f64,
    armijo: f64,
    wolfe: f64,
    trials: usize,
    /// The best end of the bracket, or the last length that was too short.
    low: Probe,
    high: Option<Probe>,
}

impl Search {
    /// From a loss with a negative slope.
    pub(super) fn new(loss: f64, slope: f64, [armijo, wolfe]: [f64; 2], trials: usize) -> Self {
        Self {
            slope,
            rounding: ROUNDING * loss.abs(),
            armijo,
            wolfe,
            trials,
            low: Probe {
                length: 0.0,
                change: 0.0,
                slope,
            },
            high: None,
        }
    }

    /// After another trial.
    pub(super) fn next(&mut self, probe: Probe) -> Next {
        self.trials = self.trials.saturating_sub(1);
        let finite = probe.change.is_finite() && probe.slope.is_finite();
        if !finite || self.is_too_high(probe) {
            self.high = Some(probe);
        } else if probe.slope.abs() <= -self.wolfe * self.slope {
            return Next::Take;
        } else {
            // Downhill from here to the far end, or to the end that was the best.
            let far = self.high.map_or(1.0, |high| high.length - probe.length);
            if probe.slope * far >= 0.0 {
                self.high = Some(self.low);
            }
            self.low = probe;
        }
        let length = self.propose();
        if self.trials > 0 && length.is_finite() && length > 0.0 && length != self.low.length {
            return Next::Try(length);
        }
        // Where nothing satisfies both conditions a length that is low enough will do.
        match self.low == probe && self.low.length > 0.0 {
            true => Next::Take,
            false => Next::Fail,
        }
    }

    /// Whether the loss does not fall enough, or is above that at the best end.
    fn is_too_high(&self, probe: Probe) -> bool {
        let rounded = |change: f64| change.abs() <= self.rounding;
        if rounded(probe.change) && rounded(self.low.change) {
            return probe.slope > (2.0 * self.armijo - 1.0) * self.slope;
        }
        probe.change > self.armijo * probe.length * self.slope || probe.change >= self.low.change
    }

    fn propose(&self) -> f64 {
        let Some(high) = self.high else {
            // Too short: as far as the slope says that it becomes 0, in bounds.
            let (length, fallen) = (self.low.length, self.slope - self.low.slope);
            let zero = length * self.slope / fallen;
            let [least, most] = LONGER;
            return match zero.is_finite() && zero > 0.0 {
                true => zero.clamp(least * length, most * length),
                false => most * length,
            };
        };
        let (low, width) = (self.low, high.length - self.low.length);
        if !high.change.is_finite() || !high.slope.is_finite() {
            return low.length + NOT_FINITE * width;
        }
        let [least, most] = INSIDE;
        let part = minimum_of_cubic([low.slope, high.slope], [low.change, high.change], width);
        low.length + part.clamp(least, most) * width
    }
}

/// The place of the minimum of the cubic with these slopes and values at the ends of an interval, as a part of that; the middle where it has
/// none.
fn minimum_of_cubic([slope, end]: [f64; 2], [from, to]: [f64; 2], width: f64) -> f64 {
    let middle = slope + end - 3.0 * (from - to) / -width;
    let square = middle * middle - slope * end;
    let root = square.max(0.0).sqrt() * width.signum();
    let part = 1.0 - (end + root - middle) / (end - slope + 2.0 * root);
    match square >= 0.0 && part.is_finite() {
        true => part,
        false => 0.5,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The length found for a function with its slope, and the trials.
    fn search(of: impl Fn(f64) -> [f64; 2], first: f64) -> (Option<f64>, usize) {
        let [loss, slope] = of(0.0);
        let mut search = Search::new(loss, slope, [1e-4, 0.1], 20);
        let mut length = first;
        for trial in 1..=20 {
            let [value, slope] = of(length);
            let probe = Probe {
                length,
                change: value - loss,
                slope,
            };
            match search.next(probe) {
                Next::Try(next) => length = next,
                Next::Take => return (Some(length), trial),
                Next::Fail => return (None, trial),
            }
        }
        (None, 20)
    }

    /// By hand: `x^3 - 3 x` on [0, 3] has its minimum at 1; a parabola `(x - 1)^2` on [0, 4], and on [4, 0], too.
    #[test]
    fn cubics_have_their_minimum() {
        let part = minimum_of_cubic([-3.0, 24.0], [0.0, 18.0], 3.0);
        assert!((part - 1.0 / 3.0).abs() < 1e-12, "{part}");
        let part = minimum_of_cubic([-2.0, 6.0], [1.0, 9.0], 4.0);
        assert!((part - 0.25).abs() < 1e-12, "{part}");
        let part = minimum_of_cubic([6.0, -2.0], [9.0, 1.0], -4.0);
        assert!((part - 0.75).abs() < 1e-12, "{part}");
    }

    #[test]
    fn both_conditions_hold_from_any_first_length() {
        let functions: [fn(f64) -> [f64; 2]; 3] = [
            |x| [(x - 1.0).powi(2), 2.0 * (x - 1.0)],
            // Moré and Thuente 1994, their first function with beta = 2.
            |x| [-x / (x * x + 2.0), (x * x - 2.0) / (x * x + 2.0).powi(2)],
            |x| [(x - 3.0).cosh(), (x - 3.0).sinh()],
        ];
        for (number, of) in functions.into_iter().enumerate() {
            let [loss, start] = of(0.0);
            for first in [1e-3, 0.1, 1.0, 10.0, 1e3] {
                let (found, trials) = search(of, first);
                let length = found.expect("a length");
                let [value, slope] = of(length);
                assert!(value <= loss + 1e-4 * length * start, "{number} {first}");
                assert!(
                    slope.abs() <= -0.1 * start,
                    "{number} {first}: {length}, {slope}"
                );
                assert!(trials <= 12, "{number} {first}: {trials} trials");
            }
        }
    }

    #[test]
    fn what_is_not_finite_is_too_far() {
        let of = |x: f64| match x {
            x if x > 0.5 => [f64::NAN, f64::NAN],
            x => [(x - 0.4).powi(2), 2.0 * (x - 0.4)],
        };
        let (found, _) = search(of, 100.0);
        assert!(
            found.is_some_and(|length| (length - 0.4).abs() < 0.05),
            "{found:?}"
        );
    }

    /// A fall of 1e-10 beside a loss of 1 cannot be seen in f32: values that are one rounding too high do not stop the search.
    #[test]
    fn slopes_decide_below_rounding() {
        let of = |x: f64| {
            let seen = 1.0
                + if x > 0.0 {
                    f64::from(f32::EPSILON)
                } else {
                    0.0
                };
            [seen, 2e-10 * (x - 1.0)]
        };
        let (found, trials) = search(of, 0.01);
        let near = |length: f64| (length - 1.0).abs() < 0.11;
        assert!(found.is_some_and(near), "{found:?}");
        assert!(trials < 8, "{trials}");
    }

    #[test]
    fn a_loss_that_only_rises_fails() {
        assert_eq!(
            search(|x| [x, if x == 0.0 { -1.0 } else { 1.0 }], 1.0).0,
            None
        );
    }
}
