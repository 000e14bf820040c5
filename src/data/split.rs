//! Which rows are trained on, and which are set apart.

use crate::random::Philox;
use crate::{Error, Result};
use rand::seq::SliceRandom;

/// The stream that a split is drawn from: far from the streams of the epochs, so that one seed serves both.
const SPLIT_STREAM: u64 = u64::MAX;

/// The numbers of the (training, test) rows of `rows`, see [`Dataset::split`](super::Dataset::split); `name` is for the message.
///
/// # Errors
/// [`Error::Option`] unless both parts get at least one row.
pub(super) fn split_rows(
    rows: usize,
    test_fraction: f64,
    seed: u64,
    name: &str,
) -> Result<(Vec<usize>, Vec<usize>)> {
    // The conversion saturates and takes NaN to zero, so that a senseless fraction leaves one part empty.
    let test_rows = (test_fraction * rows as f64).round() as usize;
    if test_rows == 0 || test_rows >= rows {
        return Err(Error::Option {
            option: "test_fraction".to_owned(),
            message: format!(
                "{test_fraction} of the {rows} rows of {name} leaves a part empty; take a fraction between 0 and 1"
            ),
        });
    }
    let mut order: Vec<usize> = (0..rows).collect();
    order.shuffle(&mut Philox::new(seed, SPLIT_STREAM));
    let train = order.split_off(test_rows);
    Ok((train, order))
}
