//! What becomes of numbers of 53 bits in f32, which has 24.

/// The part of a column's standard deviation that rounding may take without a word. f32 takes more from a column whose values are more than
/// about a thousand times as large as their spread.
pub(super) const TOLERATED: f64 = 1e-4;

/// Each number as the sum of two f32, 48 bits together: the nearest one, and what is left.
pub(super) fn pair(values: &[f64]) -> (Vec<f32>, Vec<f32>) {
    values
        .iter()
        .map(|&value| {
            let high = value as f32;
            (high, (value - f64::from(high)) as f32)
        })
        .unzip()
}

/// The largest error of each column, in units of its standard deviation, when `kept(index)` stands for `values[index]`; 0 for a constant
/// column.
pub(super) fn lost(values: &[f64], width: usize, kept: impl Fn(usize) -> f64) -> Vec<f64> {
    let rows = (values.len() / width) as f64;
    (0..width)
        .map(|column| {
            let of_column = || values.iter().enumerate().skip(column).step_by(width);
            // Differences to one of the values, so that a large mean takes no digits.
            let origin = values[column];
            let mean = of_column()
                .map(|(_, value)| (value - origin) / rows)
                .sum::<f64>();
            // In units of the largest, whose square may not fit f64.
            let centred = || of_column().map(|(_, value)| (value - origin) - mean);
            let largest = centred().map(f64::abs).fold(0.0, f64::max);
            if largest == 0.0 {
                return 0.0;
            }
            let variance = centred().map(|x| (x / largest).powi(2) / rows).sum::<f64>();
            let error = of_column()
                .map(|(index, value)| (value - kept(index)).abs())
                .fold(0.0, f64::max);
            error / (largest * variance.sqrt())
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_pair_holds_forty_eight_bits() {
        let value = 1.0 + 2f64.powi(-40);
        let (high, low) = pair(&[value]);
        assert_eq!(f64::from(high[0]) + f64::from(low[0]), value);
    }

    #[test]
    fn the_loss_is_counted_in_standard_deviations() {
        // The columns are -1, 1 and, with a deviation of 3, a constant apart from what is lost.
        let values = [-1.0, 97.0, 1.0, 103.0];
        let found = lost(&values, 2, |index| {
            values[index].trunc() + 0.5 * f64::from(index == 3)
        });
        assert_eq!(found, [0.0, 0.5 / 3.0]);
        assert_eq!(lost(&[1e-50; 2], 1, |_| 0.0), [0.0]);
        let large = lost(&[1e200, -1e200], 1, |_| 0.0);
        assert!((large[0] - 1.0).abs() < 1e-12, "{large:?}");
    }
}
