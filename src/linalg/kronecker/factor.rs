//! One factor with its damping, and functions of it.

use nalgebra::{Cholesky, DMatrix, Dyn, SymmetricEigen};

use super::functions::Function;
use crate::error::{Error, Result};
use crate::graph::kronecker::test_matrix;
use crate::objective::{Form, Side};
use crate::vector::Entry;

/// Added to a sketched factor, as part of its norm, so that its core can be factored; and taken from the eigenvalues again.
const NUDGE: f64 = 1e-6;

/// A factor.
pub(super) struct Known<'f> {
    pub(super) side: Side,
    pub(super) entries: Vec<&'f Entry>,
    pub(super) tensors: Vec<&'f Vec<f32>>,
}

impl Known<'_> {
    /// The mean of its eigenvalues.
    pub(super) fn mean(&self) -> f64 {
        let (n, values) = (self.side.size, self.tensors[0]);
        let diagonal = |step: usize| values.iter().step_by(step).copied().map(f64::from);
        let trace: f64 = match self.side.form {
            Form::Full => diagonal(n + 1).sum(),
            Form::Diagonal => diagonal(1).sum(),
            Form::Sketch { .. } => f64::from(self.tensors[1][0]),
            Form::Mean => return f64::from(values[0]),
        };
        trace / n as f64
    }

    /// The tensors of each function.
    pub(super) fn functions(
        &self,
        shift: f64,
        functions: &[Function],
    ) -> Result<Vec<Vec<Vec<f32>>>> {
        let finite = |x: &f32| x.is_finite();
        let found = match self.tensors.iter().copied().flatten().all(finite) {
            true => self.finite_functions(shift, functions),
            false => None,
        };
        let found = found.filter(|all| all.iter().flatten().flatten().all(finite));
        found.ok_or_else(|| self.not_finite())
    }

    /// Its eigenvectors and eigenvalues, of a matrix.
    pub(super) fn eigen(&self) -> Result<SymmetricEigen<f64, Dyn>> {
        self.check(self.tensors[0])?;
        let found = SymmetricEigen::try_new(self.damped(0.0), f64::EPSILON, 0);
        found.ok_or_else(|| self.not_finite())
    }

    /// Refuses numbers that are not finite.
    pub(super) fn check(&self, numbers: &[f32]) -> Result<()> {
        match numbers.iter().all(|x| x.is_finite()) {
            true => Ok(()),
            false => Err(self.not_finite()),
        }
    }

    fn not_finite(&self) -> Error {
        Error::NotFinite {
            what: format!("the Kronecker factor '{}'", self.entries[0].name),
            advice: "Take shorter steps to where it is computed, or check the data.",
        }
    }

    /// None where something is not finite.
    fn finite_functions(&self, shift: f64, functions: &[Function]) -> Option<Vec<Vec<Vec<f32>>>> {
        if shift == 0.0 && self.mean() == 0.0 {
            let zero = |shape: &Vec<usize>| vec![0.0; shape.iter().product()];
            let zeros: Vec<Vec<f32>> = self.side.function_shapes().iter().map(zero).collect();
            return Some(vec![zeros; functions.len()]);
        }
        match self.side.form {
            Form::Full if functions == [Function::Inverse] => {
                let inverse = Cholesky::new(self.damped(shift))?.inverse();
                Some(vec![vec![narrow(&inverse)]])
            }
            Form::Full => {
                let eigen = SymmetricEigen::try_new(self.damped(shift), f64::EPSILON, 0)?;
                // With rounding an eigenvalue may be below the damping.
                let of = |function: &Function| {
                    let values = eigen.eigenvalues.map(|x| function.of(x.max(shift)));
                    let vectors = &eigen.eigenvectors;
                    let scaled = vectors * DMatrix::from_diagonal(&values);
                    vec![narrow(&(scaled * vectors.transpose()))]
                };
                Some(functions.iter().map(of).collect())
            }
            Form::Diagonal | Form::Mean => {
                let of = |function: &Function| {
                    let own = self.tensors[0].iter();
                    let of = |&x: &f32| function.of(f64::from(x) + shift) as f32;
                    vec![own.map(of).collect()]
                };
                Some(functions.iter().map(of).collect())
            }
            Form::Sketch { columns, rank } => self.sketched(columns, rank, shift, functions),
        }
    }

    /// The matrix with its damping.
    pub(super) fn damped(&self, shift: f64) -> DMatrix<f64> {
        let (n, factor) = (self.side.size, self.tensors[0]);
        let at = |i: usize, j: usize| f64::from(factor[i * n + j]);
        DMatrix::from_fn(n, n, |i, j| {
            0.5 * (at(i, j) + at(j, i)) + if i == j { shift } else { 0.0 }
        })
    }

    /// From the product `Y = F R` with the random matrix `R` the Nystrom approximation `Y (R^T Y)^-1 Y^T = U L U^T` (Tropp et al. 2017, with
    /// their shift), and from that, with the `rank` largest of the eigenvalues `L`, `f(F + s) ~ f(s) + U (f(L + s) - f(s)) U^T`: `M` with
    /// `M M^T` or `-M M^T` as the second part, and `f(s)` and the sign.
    fn sketched(
        &self,
        columns: usize,
        rank: usize,
        shift: f64,
        functions: &[Function],
    ) -> Option<Vec<Vec<Vec<f32>>>> {
        let n = self.side.size;
        let wide = |values: &[f32]| {
            DMatrix::from_row_iterator(n, columns, values.iter().map(|&x| f64::from(x)))
        };
        let (product, random) = (wide(self.tensors[0]), wide(&test_matrix(n, columns)));
        let nudge = NUDGE * product.norm();
        let nudged = product + nudge * &random;
        let core = random.tr_mul(&nudged);
        let core = Cholesky::new(0.5 * (&core + core.transpose()))?;
        // B B^T = U (L + nudge) U^T with B = Y C^-T.
        let b = core
            .l()
            .solve_lower_triangular(&nudged.transpose())?
            .transpose();
        let eigen = SymmetricEigen::try_new(b.tr_mul(&b), f64::EPSILON, 0)?;
        let mut largest: Vec<usize> = (0..columns).collect();
        largest.sort_by(|&i, &j| eigen.eigenvalues[j].total_cmp(&eigen.eigenvalues[i]));
        let squares = eigen.eigenvalues.select_rows(&largest[..rank]);
        let vectors = b * eigen.eigenvectors.select_columns(&largest[..rank]);
        let of = |function: &Function| {
            let weights = squares.map(|square| match square > 0.0 {
                true => {
                    let value = (square - nudge).max(0.0);
                    (function.change(shift, value).abs() / square).sqrt()
                }
                false => 0.0,
            });
            let captured = &vectors * DMatrix::from_diagonal(&weights);
            let sign = function.change(shift, 1.0).signum() as f32;
            let numbers = vec![function.of(shift) as f32, sign];
            vec![narrow(&captured), numbers]
        };
        Some(functions.iter().map(of).collect())
    }
}

/// Row after row.
pub(super) fn narrow(matrix: &DMatrix<f64>) -> Vec<f32> {
    matrix.transpose().iter().map(|&x| x as f32).collect()
}
