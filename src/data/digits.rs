//! The one data set that is part of the crate, small enough for tests and first steps.

use super::{Dataset, Targets};
use crate::{Error, Result};
use flate2::read::MultiGzDecoder;
use std::io::Read;

/// See `digits.NOTICE.md` for its origin and licence.
static COMPRESSED: &[u8] = include_bytes!("digits.csv.gz");

/// Pixels of an 8x8 picture.
const PIXELS: usize = 64;
/// A pixel counts the dark ones among 16 of the scanned bitmap.
const DARKEST: f32 = 16.0;

/// 1,797 handwritten digits of 8x8 pixels between 0 and 1, in 10 classes.
///
/// Optical Recognition of Handwritten Digits (E. Alpaydin, C. Kaynak, 1998; UCI Machine Learning Repository, CC BY 4.0),
/// its test part, as distributed with scikit-learn.
///
/// # Errors
/// [`Error::Data`] if the copy inside the program is damaged.
pub fn digits() -> Result<Dataset> {
    let damaged = |message: String| Error::Data {
        what: "digits".to_owned(),
        message,
    };
    let mut text = String::new();
    MultiGzDecoder::new(COMPRESSED)
        .read_to_string(&mut text)
        .map_err(|error| damaged(error.to_string()))?;

    let (mut features, mut labels) = (Vec::new(), Vec::new());
    for (index, line) in text.lines().enumerate() {
        let mut numbers = Vec::with_capacity(PIXELS + 1);
        for cell in line.split(',') {
            let number = cell.parse::<u8>();
            numbers.push(number.map_err(|_| damaged(format!("line {}: '{cell}'", index + 1)))?);
        }
        match numbers.split_last() {
            Some((&label, pixels)) if pixels.len() == PIXELS => {
                features.extend(pixels.iter().map(|&pixel| f32::from(pixel) / DARKEST));
                labels.push(u32::from(label));
            }
            _ => {
                return Err(damaged(format!(
                    "line {} is too short or too long",
                    index + 1
                )));
            }
        }
    }
    let targets = Targets::Classes {
        labels,
        classes: 10,
    };
    Dataset::new("digits", features, PIXELS, targets)
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[test]
    fn the_digits_are_complete() {
        let digits = digits().unwrap();
        assert_eq!((digits.len(), digits.width()), (1797, 64));
        let Targets::Classes { labels, .. } = digits.targets() else {
            unreachable!("the digits have classes");
        };
        let count = |class| labels.iter().filter(|&&label| label == class).count();
        // The counts that the UCI repository and scikit-learn state.
        let counts: Vec<usize> = (0..10).map(count).collect();
        assert_eq!(counts, [178, 182, 177, 183, 181, 182, 181, 179, 174, 180]);
        let (least, greatest) = digits
            .features()
            .iter()
            .fold((f32::MAX, f32::MIN), |(low, high), &x| {
                (low.min(x), high.max(x))
            });
        assert_eq!((least, greatest), (0.0, 1.0));
        assert_eq!(
            digits.row(0).unwrap()[..4],
            [0.0, 0.0, 5.0 / 16.0, 13.0 / 16.0]
        );
    }
}
