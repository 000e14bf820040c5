//! Inverses of damped factors, on the host in f64.

use nalgebra::{Cholesky, DMatrix, SymmetricEigen};

use crate::error::{Error, Result};
use crate::graph::kronecker::test_matrix;
use crate::objective::{Form, KroneckerStructure};

/// Added to a sketched factor, as part of its norm, so that its core can be factored; and taken from the eigenvalues again.
const NUDGE: f64 = 1e-6;

/// For each factor `F` of order `n` the inverse of `F + sqrt(damping) tr(F)/n` in its form. The inverse of a factor that is zero is zero:
/// what has no curvature on any example seen does not move.
///
/// Where a factor has eigenvalues up to `l`, of mean `m`, its condition falls to `1 + l / (sqrt(damping) m)`, and `l <= n m`: inverses are
/// far from where f64, or f32 on the way back, would matter.
///
/// # Errors
/// [`Error::NotFinite`] for factors that are not finite.
pub(super) fn inverses(
    structure: &KroneckerStructure,
    factors: &[Vec<f32>],
    damping: f64,
) -> Result<Vec<Vec<f32>>> {
    let mut found = Vec::with_capacity(factors.len());
    for &(order, form) in &structure.sides {
        let entry = &structure.factors.entries()[found.len()];
        let own = &factors[found.len()..][..form.shapes(order).len()];
        let root = damping.sqrt();
        let inverse = match form {
            Form::Full => full(order, &own[0], root),
            Form::Diagonal => Some(vec![diagonal(&own[0], root)]),
            Form::Sketch { columns, rank } => sketched([order, columns, rank], own, root),
        };
        let finite = |tensors: &Vec<Vec<f32>>| tensors.iter().flatten().all(|x| x.is_finite());
        found.extend(inverse.filter(finite).ok_or_else(|| Error::NotFinite {
            what: format!("the Kronecker factor '{}'", entry.name),
            advice: "Use a smaller step_length, or check the data.",
        })?);
    }
    Ok(found)
}

fn full(n: usize, factor: &[f32], root: f64) -> Option<Vec<Vec<f32>>> {
    let at = |i: usize, j: usize| f64::from(factor[i * n + j]);
    let mean = (0..n).map(|i| at(i, i)).sum::<f64>() / n as f64;
    if mean == 0.0 {
        return Some(vec![vec![0.0; n * n]]);
    }
    let damped = DMatrix::from_fn(n, n, |i, j| {
        0.5 * (at(i, j) + at(j, i)) + if i == j { root * mean } else { 0.0 }
    });
    let inverse = Cholesky::new(damped)?.inverse();
    Some(vec![inverse.iter().map(|&x| x as f32).collect()])
}

fn diagonal(factor: &[f32], root: f64) -> Vec<f32> {
    let mean = factor.iter().copied().map(f64::from).sum::<f64>() / factor.len() as f64;
    let inverse = |&x: &f32| (1.0 / (f64::from(x) + root * mean)) as f32;
    match mean {
        0.0 => vec![0.0; factor.len()],
        _ => factor.iter().map(inverse).collect(),
    }
}

/// From the product `Y = F R` with the random matrix `R` the Nystrom approximation `Y (R^T Y)^-1 Y^T = U L U^T` (Tropp et al. 2017, with their
/// shift), and from that, with the `rank` largest of the eigenvalues `L`, `(F + s)^-1 ~ 1/s - U (L / (s (L + s))) U^T`: `M` with `M M^T` as the
/// second part, and `1/s`.
fn sketched([n, columns, rank]: [usize; 3], own: &[Vec<f32>], root: f64) -> Option<Vec<Vec<f32>>> {
    let wide = |values: &[f32]| {
        DMatrix::from_row_iterator(n, columns, values.iter().map(|&x| f64::from(x)))
    };
    let (product, random) = (wide(&own[0]), wide(&test_matrix(n, columns)));
    let shift = root * f64::from(own[1][0]) / n as f64;
    if shift == 0.0 {
        return Some(vec![vec![0.0; n * rank], vec![0.0]]);
    }
    let nudge = NUDGE * product.norm();
    let nudged = product + nudge * &random;
    let core = random.tr_mul(&nudged);
    let core = Cholesky::new(0.5 * (&core + core.transpose()))?;
    // B B^T = U (L + nudge) U^T with B = Y C^-T.
    let b = core
        .l()
        .solve_lower_triangular(&nudged.transpose())?
        .transpose();
    let eigen = SymmetricEigen::new(b.tr_mul(&b));
    let weights = eigen.eigenvalues.map(|square| {
        let value = (square - nudge).max(0.0);
        match square > 0.0 {
            true => (value / (shift * (value + shift) * square)).sqrt(),
            false => 0.0,
        }
    });
    let captured = b * eigen.eigenvectors * DMatrix::from_diagonal(&weights);
    let mut largest: Vec<usize> = (0..columns).collect();
    largest.sort_by(|&i, &j| eigen.eigenvalues[j].total_cmp(&eigen.eigenvalues[i]));
    let rows = captured.select_columns(&largest[..rank]).transpose();
    Some(vec![
        rows.iter().map(|&x| x as f32).collect(),
        vec![(1.0 / shift) as f32],
    ])
}

/// Operations that this takes, two for each multiply-add: `n^3` of these for a matrix; for a sketch of `k` columns `n k^2` each for its core,
/// `B`, its square and the captured part, and an eigenproblem.
pub(super) fn inversion_flops(structure: &KroneckerStructure) -> f64 {
    let of = |&(n, form): &(usize, Form)| match form {
        Form::Full => 2.0 * (n as f64).powi(3),
        Form::Diagonal => n as f64,
        Form::Sketch { columns: k, .. } => 8.0 * (n * k * k) as f64 + 9.0 * (k as f64).powi(3),
    };
    structure.sides.iter().map(of).sum()
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;
    use crate::vector::Layout;
    use std::sync::Arc;

    fn structure(sides: &[(usize, Form)]) -> KroneckerStructure {
        let layout = |shapes: fn(Form, usize) -> Vec<Vec<usize>>| {
            let mut tensors = Vec::new();
            for (side, &(n, form)) in sides.iter().enumerate() {
                let shapes = shapes(form, n).into_iter().enumerate();
                tensors.extend(shapes.map(|(k, shape)| (format!("side {side} {k}"), shape)));
            }
            Arc::new(Layout::new(&tensors).unwrap())
        };
        KroneckerStructure {
            layers: Vec::new(),
            sides: sides.to_vec(),
            factors: layout(Form::shapes),
            inverses: layout(Form::inverse_shapes),
        }
    }

    /// By hand: `[[2, 1], [1, 4]]` has the mean 3; with damping 4 it becomes `[[8, 1], [1, 10]]`, of determinant 79.
    #[test]
    fn factors_are_damped_by_their_mean_and_inverted() {
        let structure = structure(&[(2, Form::Full), (2, Form::Diagonal), (1, Form::Full)]);
        let factors = vec![vec![2.0, 1.0, 1.0, 4.0], vec![1.0, 3.0], vec![0.0]];
        let found = inverses(&structure, &factors, 4.0).unwrap();
        let expected = [10.0, -1.0, -1.0, 8.0].map(|x: f64| (x / 79.0) as f32);
        for (found, expected) in found[0].iter().zip(expected) {
            assert!((found - expected).abs() < 1e-7, "{found} {expected}");
        }
        assert_eq!(found[1], [1.0 / 5.0, 1.0 / 7.0]);
        assert_eq!(found[2], [0.0]);
        assert_eq!(inversion_flops(&structure), 16.0 + 2.0 + 2.0);
    }

    /// A factor of a rank below that of its sketch is known exactly, and so is its inverse, or what of it the largest eigenvalues give.
    #[test]
    fn a_sketch_of_enough_columns_is_exact() {
        let (n, columns, known) = (20, 8, 5);
        let basis = DMatrix::from_fn(n, known, |i, j| ((1 + i * (j + 2)) as f64).sin());
        let factor = &basis * basis.transpose();
        let random = test_matrix(n, columns);
        let random = DMatrix::from_row_iterator(n, columns, random.iter().map(|&x| f64::from(x)));
        let row_wise = |m: &DMatrix<f64>| m.transpose().iter().map(|&x| x as f32).collect();
        let sketch = vec![row_wise(&(&factor * random)), vec![factor.trace() as f32]];
        let eigen = SymmetricEigen::new(factor.clone());
        let mut order: Vec<usize> = (0..n).collect();
        order.sort_by(|&i, &j| eigen.eigenvalues[j].total_cmp(&eigen.eigenvalues[i]));
        for rank in [columns, known, 2] {
            let structure = structure(&[(n, Form::Sketch { columns, rank })]);
            let found = inverses(&structure, &sketch, 1.0).unwrap();
            let captured = found[0].iter().map(|&x| f64::from(x));
            let captured = DMatrix::from_row_iterator(n, rank, captured);
            let one = DMatrix::<f64>::identity(n, n);
            let found = &one * f64::from(found[1][0]) - &captured * captured.transpose();
            let shift = factor.trace() / n as f64;
            let leading = eigen.eigenvectors.select_columns(&order[..rank]);
            let values = eigen.eigenvalues.select_rows(&order[..rank]);
            let known = &leading * DMatrix::from_diagonal(&values) * leading.transpose();
            let expected = (known + one * shift).try_inverse().unwrap();
            let error = (&found - &expected).norm() / expected.norm();
            assert!(error < 1e-5, "{rank}: {error:.1e}");
        }
    }

    #[test]
    fn factors_that_are_not_finite_are_refused() {
        let structure = structure(&[(2, Form::Full)]);
        for bad in [f32::NAN, f32::INFINITY] {
            let factors = vec![vec![1.0, bad, bad, 1.0]];
            let error = inverses(&structure, &factors, 1.0).unwrap_err().to_string();
            assert!(error.contains("Kronecker factor 'side 0 0'"), "{error}");
        }
    }
}
