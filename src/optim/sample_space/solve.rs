//! What the host solves, in f64: without a device.

use nalgebra::{Cholesky, DMatrix, DVector, Dyn};

use crate::error::{Error, Result};
use crate::graph::sample_space::TERMS;
use crate::linalg::OUT_OF_SCALE;

/// A symmetric positive matrix with what is added to its diagonal, factored.
pub(super) struct Damped(Cholesky<f64, Dyn>);

impl Damped {
    /// None where rounding has left a matrix that is not positive.
    pub(super) fn new(matrix: &DMatrix<f64>, added: impl Fn(usize) -> f64) -> Option<Self> {
        let mut matrix = matrix.clone();
        for at in 0..matrix.nrows() {
            matrix[(at, at)] += added(at);
        }
        Cholesky::new(matrix).map(Self)
    }

    pub(super) fn solve(&self, right: &DVector<f64>) -> DVector<f64> {
        self.0.solve(right)
    }

    /// Operations of a factorization of this order and one solve.
    pub(super) fn flops(order: usize) -> f64 {
        let n = order as f64;
        n * n * n / 3.0 + 2.0 * n * n
    }
}

pub(super) fn wide(values: &[f32]) -> DVector<f64> {
    DVector::from_iterator(values.len(), values.iter().copied().map(f64::from))
}

/// All tensors of a vector, one after another.
pub(super) fn joined(tensors: &[Vec<f32>]) -> DVector<f64> {
    let all = tensors.iter().flatten().copied().map(f64::from);
    DVector::from_iterator(tensors.iter().map(Vec::len).sum(), all)
}

/// The tensors of a vector, of these lengths.
pub(super) fn parted(vector: &DVector<f64>, lengths: impl Iterator<Item = usize>) -> Vec<Vec<f32>> {
    let mut values = vector.iter().map(|&x| x as f32);
    lengths.map(|n| values.by_ref().take(n).collect()).collect()
}

/// The Gram matrix of `m` rows.
pub(super) fn gram(read: &[f32], m: usize) -> Result<DMatrix<f64>> {
    added(read, m)
}

/// The normal matrix, and its right side `A^T r` with `r.r` where it has them.
pub(super) struct Normal {
    pub(super) matrix: DMatrix<f64>,
    pub(super) right: Option<(DVector<f64>, f64)>,
}

/// The parts of `[A r]^T [A r]`, added, for `p` parameters.
pub(super) fn normal(read: &[f32], p: usize, has_residuals: bool) -> Result<Normal> {
    let all = added(read, p + usize::from(has_residuals))?;
    if !has_residuals {
        return Ok(Normal {
            matrix: all,
            right: None,
        });
    }
    let right = all.view((0, p), (p, 1)).column(0).into_owned();
    Ok(Normal {
        right: Some((right, all[(p, p)])),
        matrix: all.view((0, 0), (p, p)).into_owned(),
    })
}

/// The sum of symmetric matrices of order `k` that follow one another, and of what rounding made of their symmetry the mean.
fn added(read: &[f32], k: usize) -> Result<DMatrix<f64>> {
    let mut sum = DMatrix::<f64>::zeros(k, k);
    for part in read.chunks_exact((k * k).max(1)) {
        for (sum, &x) in sum.iter_mut().zip(part) {
            *sum += f64::from(x);
        }
    }
    let sum = (&sum + sum.transpose()) * 0.5;
    if sum.iter().all(|x| x.is_finite()) {
        return Ok(sum);
    }
    Err(Error::NotFinite {
        what: "the square of the rows".into(),
        advice: OUT_OF_SCALE,
    })
}

/// Operations of adding the parts of so many rows.
pub(super) fn addition_flops(rows: usize, k: usize) -> f64 {
    (rows.div_ceil(TERMS) * k * k) as f64
}

/// What to say of a square that is not positive with its damping.
pub(super) fn not_positive() -> Error {
    Error::Option {
        option: "damping".into(),
        message: "it is below what f32 tells of the square of the rows, which is not positive with it; use a larger one".into(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// By hand: `[1 2; 2 5] + [3 0; 0 1]`, of which the last column is the right side.
    #[test]
    fn parts_are_added_and_taken_apart() -> Result<()> {
        let normal = normal(&[1.0, 2.0, 2.0, 5.0, 3.0, 0.0, 0.0, 1.0], 1, true)?;
        assert_eq!(normal.matrix.as_slice(), [4.0]);
        let (right, square) = normal.right.ok_or_else(not_positive)?;
        assert_eq!((right.as_slice(), square), (&[2.0][..], 6.0));
        assert!(gram(&[f32::INFINITY], 1).is_err());
        Ok(())
    }

    /// By hand: `(2 + 2) x = 8`; and of what is not positive there is no factor.
    #[test]
    fn damping_is_added_to_the_diagonal() {
        let matrix = DMatrix::from_element(1, 1, 2.0);
        let solved = Damped::new(&matrix, |_| 2.0).map(|d| d.solve(&wide(&[8.0])));
        assert_eq!(solved, Some(wide(&[2.0])));
        assert!(Damped::new(&matrix, |_| -3.0).is_none());
    }

    #[test]
    fn vectors_come_back_in_their_tensors() {
        let tensors = vec![vec![1.0, 2.0], vec![3.0]];
        let lengths = tensors.iter().map(Vec::len);
        assert_eq!(parted(&joined(&tensors), lengths), tensors);
    }
}
