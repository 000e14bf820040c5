//! The small matrices of the eigensolver, on two rows whose inner products are known.

use nalgebra::DMatrix;

use super::{WELL_CONDITIONED, orthonormal, small_problem};
use crate::error::Result;

/// Inner products of two rows, from their squares and the product of both.
fn products(squares: [f64; 2], both: f64) -> DMatrix<f64> {
    DMatrix::from_row_slice(2, 2, &[squares[0], both, both, squares[1]])
}

/// Inner products of two rows of length 1, of which the smaller eigenvalue is `ratio` times the larger one.
fn gram(ratio: f64) -> DMatrix<f64> {
    products([1.0, 1.0], (1.0 - ratio) / (1.0 + ratio))
}

/// Square lengths of the rows `A Y`, the shorter one first.
fn lengths(gram: &DMatrix<f64>, turn: &DMatrix<f64>) -> [f64; 2] {
    let after = turn * gram * turn.transpose();
    let (a, b) = (after[(0, 0)], after[(1, 1)]);
    [a.min(b), a.max(b)]
}

#[test]
fn one_pass_is_enough_from_a_thousandth_on() -> Result<()> {
    for (ratio, enough) in [(1.1e-3, true), (0.9e-3, false)] {
        let (turn, done) = orthonormal(&gram(ratio), false)?;
        assert_eq!(done, enough, "{ratio}");
        let [shorter, longer] = lengths(&gram(ratio), &turn);
        assert_eq!((shorter - 1.0).abs() < 1e-9, enough, "{ratio}: {shorter}");
        // A block of products is used as it is, or is made orthonormal first, by the same measure.
        let used = small_problem(&gram(ratio), &gram(ratio), 2, WELL_CONDITIONED)?;
        assert_eq!(used.is_some(), enough, "{ratio}");
        assert!((longer - 1.0).abs() < 1e-4, "{ratio}: {longer}");
    }
    Ok(())
}

#[test]
fn the_last_pass_gives_up_below_a_tenth_of_that() -> Result<()> {
    for (ratio, length) in [(1.1e-4, 1.0), (0.9e-4, 0.0)] {
        let (turn, done) = orthonormal(&gram(ratio), true)?;
        let [shorter, longer] = lengths(&gram(ratio), &turn);
        assert!(done && (longer - 1.0).abs() < 1e-9, "{ratio}: {longer}");
        assert!((shorter - length).abs() < 1e-9, "{ratio}: {shorter}");
    }
    Ok(())
}

/// A direction of the square length `ratio` beside the largest comes to `ratio / (ratio + shift)`: to a half where it is as small as the
/// shift.
#[test]
fn a_pass_is_shifted_by_a_hundred_thousandth() -> Result<()> {
    for (ratio, length) in [(1e-5, 0.5), (3e-5, 0.75)] {
        let (turn, done) = orthonormal(&gram(ratio), false)?;
        let [shorter, _] = lengths(&gram(ratio), &turn);
        assert!(
            !done && (shorter - length).abs() < 1e-6,
            "{ratio}: {shorter}"
        );
    }
    Ok(())
}

#[test]
fn rows_of_a_hundredth_are_not_given_up() -> Result<()> {
    for (square, found) in [(1.1e-2, 2), (0.9e-2, 1)] {
        let count = |gram: &DMatrix<f64>| -> Result<usize> {
            let solved = small_problem(gram, gram, 2, 0.0)?;
            let values = solved.map(|(values, _)| values).unwrap_or_default();
            // All directions have the eigenvalue 1, but for those that are missing.
            Ok(values.iter().filter(|&&value| value > 0.5).count())
        };
        // A short row, and two rows whose difference is short: the smaller eigenvalue is 1 less the inner product.
        assert_eq!(count(&products([1.0, square], 0.0))?, found, "{square}");
        assert_eq!(
            count(&products([1.0, 1.0], 1.0 - square))?,
            found,
            "{square}"
        );
    }
    Ok(())
}
