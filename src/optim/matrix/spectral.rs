//! Eigenvectors and roots of factors, on the host in f64.

use nalgebra::{DMatrix, SymmetricEigen};

/// Row after row, as on the device.
fn matrix(n: usize, values: &[f32]) -> Option<DMatrix<f64>> {
    let finite = values.iter().all(|x| x.is_finite());
    let wide = || values.iter().map(|&x| f64::from(x));
    finite.then(|| DMatrix::from_row_iterator(n, n, wide()))
}

/// A factor with its two triangles averaged.
fn symmetric(n: usize, values: &[f32]) -> Option<DMatrix<f64>> {
    let factor = matrix(n, values)?;
    Some(0.5 * (&factor + factor.transpose()))
}

fn rows_of(matrix: &DMatrix<f64>) -> Vec<f32> {
    matrix.transpose().iter().map(|&x| x as f32).collect()
}

/// Places of numbers from the largest to the smallest; equal ones keep their order.
fn falling(numbers: impl Iterator<Item = f64>) -> Vec<usize> {
    let numbers: Vec<f64> = numbers.collect();
    let mut order: Vec<usize> = (0..numbers.len()).collect();
    order.sort_by(|&a, &b| numbers[b].total_cmp(&numbers[a]));
    order
}

/// Eigenvectors of a factor `[n, n]` as columns, that of the largest eigenvalue first.
pub(super) fn eigenbasis(n: usize, factor: &[f32]) -> Option<Vec<f32>> {
    let eigen = SymmetricEigen::new(symmetric(n, factor)?);
    let order = falling(eigen.eigenvalues.iter().copied());
    Some(rows_of(&eigen.eigenvectors.select_columns(&order)))
}

/// One step of orthogonal iteration from a basis `Q` near the eigenvectors of a factor `F`: `QR(F Q')`, where `Q'` has the columns of `Q`
/// by falling `q^T F q`. With the places that these had.
pub(super) fn iterated(n: usize, factor: &[f32], basis: &[f32]) -> Option<(Vec<usize>, Vec<f32>)> {
    let basis = matrix(n, basis)?;
    let product = symmetric(n, factor)? * &basis;
    let quotients = basis.column_iter().zip(product.column_iter());
    let order = falling(quotients.map(|(q, product)| q.dot(&product)));
    let orthogonal = product.select_columns(&order).qr().q();
    Some((order, rows_of(&orthogonal)))
}

/// `(F + ridge l)^-exponent` of a factor `F` with the largest eigenvalue `l`; the identity where that is zero.
pub(super) fn inverse_root(
    n: usize,
    factor: &[f32],
    exponent: f64,
    ridge: f64,
) -> Option<Vec<f32>> {
    let eigen = SymmetricEigen::new(symmetric(n, factor)?);
    let largest = eigen.eigenvalues.max();
    let root = |x: f64| match largest > 0.0 {
        true => (x.max(0.0) + ridge * largest).powf(-exponent),
        false => 1.0,
    };
    let (vectors, roots) = (&eigen.eigenvectors, eigen.eigenvalues.map(root));
    Some(rows_of(
        &(vectors * DMatrix::from_diagonal(&roots) * vectors.transpose()),
    ))
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    /// `[[2, 1], [1, 2]]` has the eigenvalues 3 and 1 of `(1, 1)` and `(1, -1)`.
    const FACTOR: [f32; 4] = [2.0, 1.0, 1.0, 2.0];

    #[test]
    fn eigenvectors_are_those_of_a_hand_computation() {
        let basis = eigenbasis(2, &FACTOR).unwrap();
        let half = 0.5f32.sqrt();
        let magnitudes: Vec<f32> = basis.iter().map(|x| (x.abs() - half).abs()).collect();
        assert!(magnitudes.iter().all(|&off| off < 1e-7), "{basis:?}");
        // The first column has equal signs.
        assert!(
            basis[0] * basis[2] > 0.0 && basis[1] * basis[3] < 0.0,
            "{basis:?}"
        );
    }

    /// From the unit vectors, of equal quotients: `F` itself is decomposed, and its first column is `(2, 1)`.
    #[test]
    fn an_iteration_is_a_product_and_its_orthogonal_factor() {
        let (order, basis) = iterated(2, &FACTOR, &[1.0, 0.0, 0.0, 1.0]).unwrap();
        assert_eq!(order, [0, 1]);
        let slope = |column: usize| basis[2 + column] / basis[column];
        assert!(
            (slope(0) - 0.5).abs() < 1e-6 && (slope(1) + 2.0).abs() < 1e-6,
            "{basis:?}"
        );
        // The vector of the larger quotient comes first.
        let (order, basis) = iterated(2, &[1.0, 0.0, 0.0, 4.0], &[1.0, 0.0, 0.0, 1.0]).unwrap();
        assert_eq!(order, [1, 0]);
        assert!(
            basis[0].abs() < 1e-6 && (basis[2].abs() - 1.0).abs() < 1e-6,
            "{basis:?}"
        );
    }

    /// With `ridge` 1: eigenvalues 6 and 4, and roots of 1/2.
    #[test]
    fn roots_are_those_of_a_hand_computation() {
        let root = inverse_root(2, &FACTOR, 0.5, 1.0).unwrap();
        let (first, second) = (1.0 / 6f64.sqrt(), 0.5);
        let [same, other] = [first + second, first - second].map(|x| (0.5 * x) as f32);
        let expected = [same, other, other, same];
        assert!(
            root.iter().zip(expected).all(|(a, b)| (a - b).abs() < 1e-7),
            "{root:?}"
        );
        let zero = inverse_root(2, &[0.0; 4], 0.25, 1e-6).unwrap();
        assert_eq!(zero, [1.0, 0.0, 0.0, 1.0]);
    }

    #[test]
    fn factors_that_are_not_finite_have_neither() {
        for bad in [f32::NAN, f32::INFINITY] {
            let factor = [1.0, bad, bad, 1.0];
            assert!(eigenbasis(2, &factor).is_none());
            assert!(iterated(2, &factor, &[1.0, 0.0, 0.0, 1.0]).is_none());
            assert!(inverse_root(2, &factor, 0.25, 1e-6).is_none());
        }
    }
}
