//! Functions of a layer whose eigenvalues are measured (EKFAC).

use nalgebra::{DMatrix, DVector, Dyn, SymmetricEigen};

use super::factor::{Known, narrow};
use super::functions::{FactorDamping, Function};
use crate::error::Result;

/// Of a function: those of its layer's sides.
type Tensors = Vec<Vec<f32>>;

/// For each function the eigenvectors of both factors, and its values; and the eigenvalues in that basis.
///
/// With eigenvalues `a`, `b` of the factors, their damping `s`, `t` and the corrected eigenvalues `S` a function's values are
/// `f(S + a t + s b + s t)`: those of `(A + s) (x) (B + t)` with `S` in the place of `a b`.
pub(super) fn corrected(
    [a, b, values]: [&Known<'_>; 3],
    basis: Option<[&Vec<f32>; 2]>,
    damping: FactorDamping,
    functions: &[Function],
) -> Result<(Vec<Tensors>, Vec<f32>)> {
    let shifts = damping.of(&[a.mean(), b.mean()]);
    let [a_eigen, b_eigen] = [a.eigen()?, b.eigen()?];
    let [a_values, b_values] =
        [&a_eigen, &b_eigen].map(|eigen| eigen.eigenvalues.map(|x| x.max(0.0)));
    let measured = match basis {
        None => &a_values * b_values.transpose(),
        Some([left, right]) => {
            values.check(values.tensors[0])?;
            let old = wide(values.tensors[0], a.side.size);
            squares(&a_eigen, left) * old * squares(&b_eigen, right).transpose()
        }
    };
    let one = |x: &DVector<f64>, y: f64| x.map(|x| x * y);
    let rows = one(&a_values, shifts[1]);
    let columns = one(&b_values, shifts[0]);
    let damped = DMatrix::from_fn(rows.len(), columns.len(), |i, j| {
        measured[(i, j)] + rows[i] + columns[j] + shifts[0] * shifts[1]
    });
    let [left, right] = [&a_eigen, &b_eigen].map(|eigen| narrow(&eigen.eigenvectors));
    let mut found = Vec::with_capacity(functions.len());
    for function in functions {
        // What has no curvature on any example seen, and no damping, does not move.
        let of = |x: f64| if x > 0.0 { function.of(x) } else { 0.0 };
        let own = narrow(&damped.map(of));
        values.check(&own)?;
        found.push(vec![left.clone(), right.clone(), own]);
    }
    Ok((found, narrow(&measured)))
}

/// The squares of inner products of new eigenvectors with old ones.
fn squares(eigen: &SymmetricEigen<f64, Dyn>, old: &[f32]) -> DMatrix<f64> {
    let vectors = &eigen.eigenvectors;
    vectors.tr_mul(&wide(old, vectors.nrows())).map(|x| x * x)
}

fn wide(rows: &[f32], count: usize) -> DMatrix<f64> {
    let values = rows.iter().map(|&x| f64::from(x));
    DMatrix::from_row_iterator(count, rows.len() / count, values)
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;
    use crate::objective::{Form, Side};
    use crate::vector::Layout;

    const N: usize = 3;
    const DAMPING: FactorDamping = FactorDamping::Relative(0.25);

    fn symmetric(seed: f64) -> DMatrix<f64> {
        let draw = DMatrix::from_fn(N, N, |i, j| (seed + (i * (j + 2)) as f64).sin());
        &draw * draw.transpose()
    }

    /// Functions of factors with these eigenvalues, measured in this basis.
    fn found(
        factors: [&DMatrix<f64>; 2],
        (values, basis): (&[f32], Option<[&Vec<f32>; 2]>),
    ) -> (Vec<Vec<f32>>, Vec<f32>) {
        let names = [
            ("a".to_owned(), vec![N, N]),
            ("b".to_owned(), vec![N, N]),
            ("s".to_owned(), vec![N * N]),
        ];
        let layout = Layout::new(&names).unwrap();
        let tensors = [narrow(factors[0]), narrow(factors[1]), values.to_vec()];
        let known: Vec<Known<'_>> = layout
            .entries()
            .iter()
            .zip(&tensors)
            .map(|(entry, tensor)| Known {
                side: Side {
                    size: entry.shape[0],
                    form: if entry.shape.len() == 2 {
                        Form::Full
                    } else {
                        Form::Diagonal
                    },
                },
                entries: vec![entry],
                tensors: vec![tensor],
            })
            .collect();
        let known = [&known[0], &known[1], &known[2]];
        let (mut found, values) = corrected(known, basis, DAMPING, &[Function::Inverse]).unwrap();
        (found.remove(0), values)
    }

    /// The matrix of order `N^2` that the tensors stand for.
    fn dense(tensors: &[Vec<f32>]) -> DMatrix<f64> {
        let basis = wide(&tensors[0], N).kronecker(&wide(&tensors[1], N));
        let values: Vec<f64> = tensors[2].iter().map(|&x| f64::from(x)).collect();
        &basis * DMatrix::from_diagonal(&DVector::from_vec(values)) * basis.transpose()
    }

    fn near(found: &DMatrix<f64>, expected: &DMatrix<f64>) {
        let error = (found - expected).norm() / expected.norm();
        assert!(error < 2e-6, "off by {error:.1e}");
    }

    /// Without measured eigenvalues the inverse is that of K-FAC, and so it is when products of the eigenvalues were measured.
    #[test]
    fn products_of_eigenvalues_are_those_of_the_factors() {
        let (a, b) = (symmetric(1.0), symmetric(2.0));
        let damped =
            |x: &DMatrix<f64>| x + 0.5 * x.trace() / N as f64 * DMatrix::<f64>::identity(N, N);
        let expected = damped(&a).kronecker(&damped(&b)).try_inverse().unwrap();
        let (first, values) = found([&a, &b], (&[0.0; N * N], None));
        near(&dense(&first), &expected);
        let (second, again) = found([&a, &b], (&values, Some([&first[0], &first[1]])));
        near(&dense(&second), &expected);
        for (x, y) in values.iter().zip(again) {
            assert!(
                (x - y).abs() < 1e-5 * values[N * N - 1].abs().max(1.0),
                "{x} {y}"
            );
        }
    }

    /// In another basis the eigenvalues are the diagonal of the matrix that they were one of.
    #[test]
    fn eigenvalues_follow_the_basis() {
        let (a, b) = (symmetric(1.0), symmetric(2.0));
        let (other_a, other_b) = (symmetric(5.0), symmetric(7.0));
        let (old, _) = found([&a, &b], (&[0.0; N * N], None));
        let values: Vec<f32> = (1..=N * N).map(|k| k as f32).collect();
        let (new, moved) = found([&other_a, &other_b], (&values, Some([&old[0], &old[1]])));
        let matrix = dense(&[old[0].clone(), old[1].clone(), values.clone()]);
        let basis = wide(&new[0], N).kronecker(&wide(&new[1], N));
        let diagonal = (basis.transpose() * matrix * basis).diagonal();
        for (found, expected) in moved.iter().zip(&diagonal) {
            assert!(
                (f64::from(*found) - expected).abs() < 1e-5,
                "{found} {expected}"
            );
        }
        // Their sum is the trace, and of a multiple of the identity nothing changes.
        assert!((moved.iter().sum::<f32>() - 45.0).abs() < 1e-4);
        let (_, alike) = found(
            [&other_a, &other_b],
            (&[2.0; N * N], Some([&old[0], &old[1]])),
        );
        assert!(alike.iter().all(|x| (x - 2.0).abs() < 1e-6), "{alike:?}");
    }
}
