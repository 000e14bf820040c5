//! Means over seeds.

use crate::training::Point;

/// Mean and standard deviation (of the sample; 0 for one value).
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) struct Summary {
    /// The mean.
    pub(crate) mean: f64,
    /// The standard deviation.
    pub(crate) deviation: f64,
}

impl Summary {
    /// Of some values; none of no value.
    pub(crate) fn of(values: &[f64]) -> Option<Self> {
        let count = values.len() as f64;
        if values.is_empty() {
            return None;
        }
        let mean = values.iter().sum::<f64>() / count;
        let squares: f64 = values.iter().map(|value| (value - mean).powi(2)).sum();
        let deviation = if values.len() > 1 {
            (squares / (count - 1.0)).sqrt()
        } else {
            0.0
        };
        Some(Self { mean, deviation })
    }
}

/// The first evaluation of a run at which the training loss was at or below `level`.
pub(crate) fn first_below(history: &[Point], level: f64) -> Option<&Point> {
    history.iter().find(|point| point.train_loss <= level)
}

/// The geometric mean of curves `(x, y)` with positive `y`, as far as all of them go, at the places where any of them has a point.
///
/// Between two points of a curve its logarithm is interpolated linearly, as the eye does on a logarithmic plot.
pub(crate) fn mean_curve(curves: &[Vec<(f64, f64)>]) -> Vec<(f64, f64)> {
    let ends = curves
        .iter()
        .map(|curve| curve.last().map_or(f64::NEG_INFINITY, |point| point.0));
    let end = ends.fold(f64::INFINITY, f64::min);
    let mut places: Vec<f64> = curves
        .iter()
        .flatten()
        .map(|point| point.0)
        .filter(|x| *x <= end)
        .collect();
    places.sort_by(f64::total_cmp);
    places.dedup();
    let mean = |x: f64| {
        let logarithms: Vec<f64> = curves
            .iter()
            .filter_map(|curve| logarithm_at(curve, x))
            .collect();
        (logarithms.len() == curves.len()).then(|| {
            (
                x,
                (logarithms.iter().sum::<f64>() / curves.len() as f64).exp(),
            )
        })
    };
    places.into_iter().filter_map(mean).collect()
}

fn logarithm_at(curve: &[(f64, f64)], x: f64) -> Option<f64> {
    let after = curve.partition_point(|point| point.0 < x);
    let (x1, y1) = *curve.get(after)?;
    if x1 == x || after == 0 {
        return Some(y1.ln());
    }
    let (x0, y0) = curve[after - 1];
    Some(y0.ln() + (x - x0) / (x1 - x0) * (y1.ln() - y0.ln()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn mean_and_deviation_are_those_of_a_sample() {
        let summary = Summary::of(&[1.0, 2.0, 6.0]);
        assert_eq!(
            summary,
            Some(Summary {
                mean: 3.0,
                deviation: 7.0f64.sqrt()
            })
        );
        assert_eq!(
            Summary::of(&[4.0]),
            Some(Summary {
                mean: 4.0,
                deviation: 0.0
            })
        );
        assert_eq!(Summary::of(&[]), None);
    }

    #[test]
    fn the_mean_curve_ends_with_the_shortest_curve() {
        let curves = [
            vec![(0.0, 1.0), (2.0, 0.01)],
            vec![(0.0, 4.0), (1.0, 0.1), (3.0, 0.1)],
        ];
        let mean = mean_curve(&curves);
        let expected = [(0.0, 2.0), (1.0, 0.1), (2.0, 0.001f64.sqrt())];
        assert_eq!(mean.len(), expected.len());
        for (found, expected) in mean.iter().zip(expected) {
            assert!((found.0 - expected.0).abs() < 1e-12 && (found.1 - expected.1).abs() < 1e-12);
        }
    }
}
