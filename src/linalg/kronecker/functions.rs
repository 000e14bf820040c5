//! Functions of damped Kronecker factors, on the host in f64.

use nalgebra::{Cholesky, DMatrix, SymmetricEigen};

use crate::error::{Error, Result};
use crate::graph::kronecker::test_matrix;
use crate::objective::{Form, KroneckerStructure, Side};
use crate::vector::Entry;

/// Added to a sketched factor, as part of its norm, so that its core can be factored; and taken from the eigenvalues again.
const NUDGE: f64 = 1e-6;

/// The least damping of a layer, as a part of the mean eigenvalue of its curvature: far below what matters, and far above rounding.
const LEAST: f64 = 1e-6;

/// A function of a factor `F` with its damping `s`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Function {
    /// `F + s`
    Itself,
    /// `(F + s)^(1/2)`
    Root,
    /// `(F + s)^(-1/2)`
    InverseRoot,
    /// `(F + s)^-1`
    Inverse,
}

impl Function {
    fn of(self, x: f64) -> f64 {
        match self {
            Function::Itself => x,
            Function::Root => x.sqrt(),
            Function::InverseRoot => 1.0 / x.sqrt(),
            Function::Inverse => 1.0 / x,
        }
    }

    /// `f(s + l) - f(s)`, without subtracting.
    fn change(self, s: f64, l: f64) -> f64 {
        let (root, after) = (s.sqrt(), (s + l).sqrt());
        match self {
            Function::Itself => l,
            Function::Root => l / (root + after),
            Function::InverseRoot => -l / (root * after * (root + after)),
            Function::Inverse => -l / (s * (s + l)),
        }
    }
}

/// What is added to the diagonals of the two factors of a layer.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum FactorDamping {
    /// To each factor the square root of this times the mean of its eigenvalues: the unit of the loss does not matter.
    Relative(f64),
    /// Numbers whose product is this, in proportion to the means of the factors' eigenvalues (Martens and Grosse 2015, section 6.3): of all
    /// Kronecker products the one nearest to `A (x) B` and this times the identity. Of one factor all of it, and never less than 1e-6 of
    /// the mean eigenvalue of the product.
    Split(f64),
}

impl FactorDamping {
    /// For the factors of a layer of these mean eigenvalues, of which a missing one counts as 1.
    fn of(self, means: &[f64]) -> Vec<f64> {
        match self {
            FactorDamping::Relative(part) => means.iter().map(|mean| part.sqrt() * mean).collect(),
            FactorDamping::Split(damping) => {
                let product: f64 = means.iter().product();
                let damping = damping.max(LEAST * product);
                let share = 1.0 / means.len() as f64;
                let split = |mean: &f64| match product > 0.0 {
                    true => mean * (damping / product).powf(share),
                    false => damping.powf(share),
                };
                means.iter().map(split).collect()
            }
        }
    }
}

impl KroneckerStructure {
    /// For each of these functions its tensors, of all factors: those for a [`KroneckerOperator`](super::KroneckerOperator). A function of
    /// a factor that is zero, with no damping, is zero: what has no curvature on any example seen does not move.
    ///
    /// Where a factor of order `n` has eigenvalues up to `l`, of mean `m`, its condition with relative damping `c` is at most
    /// `1 + l / (sqrt(c) m)`, and `l <= n m`: far from where f64, or f32 on the way back, would matter. Inverses take `n^3` multiply-adds,
    /// other functions an eigenproblem, about `9 n^3`; sketches of `k` columns `4 n k^2` and an eigenproblem of order `k`.
    ///
    /// # Errors
    /// [`Error::NotFinite`] for factors that are not finite; [`Error::Length`] for other tensors than those of the structure.
    pub fn functions_of(
        &self,
        factors: &[Vec<f32>],
        damping: FactorDamping,
        functions: &[Function],
    ) -> Result<Vec<Vec<Vec<f32>>>> {
        let entries = self.factors.entries();
        let fits = |(entry, own): (&Entry, &Vec<f32>)| entry.elements() == own.len();
        if entries.len() != factors.len() || !entries.iter().zip(factors).all(fits) {
            return Err(Error::Length {
                what: "the list of Kronecker factors".into(),
                found: factors.len(),
                expected: entries.len(),
            });
        }
        let mut found = vec![Vec::new(); functions.len()];
        let mut left = entries.iter().zip(factors);
        for layer in &self.layers {
            let mut known = |&side: &Side| {
                let (entries, tensors) = left.by_ref().take(side.shapes().len()).unzip();
                Known {
                    side,
                    entries,
                    tensors,
                }
            };
            let sides: Vec<Known<'_>> = layer.sides().map(&mut known).collect();
            let means: Vec<f64> = sides.iter().map(Known::mean).collect();
            for (known, shift) in sides.iter().zip(damping.of(&means)) {
                for (all, own) in found.iter_mut().zip(known.functions(shift, functions)?) {
                    all.extend(own);
                }
            }
        }
        Ok(found)
    }

    /// Operations of making inverses, or other functions, two for each multiply-add.
    pub(crate) fn function_flops(&self, functions: &[Function]) -> f64 {
        let matrices = match functions {
            [Function::Inverse] => 2.0,
            // An eigenproblem, and a product for each.
            _ => 9.0 + 2.0 * functions.len() as f64,
        };
        let of = |side: &Side| {
            let n = side.size as f64;
            match side.form {
                Form::Full => matrices * n.powi(3),
                Form::Diagonal => functions.len() as f64 * n,
                Form::Mean => functions.len() as f64,
                Form::Sketch { columns, .. } => {
                    let k = columns as f64;
                    8.0 * n * k * k + 9.0 * k.powi(3)
                }
            }
        };
        self.sides().map(of).sum()
    }
}

/// A factor.
struct Known<'f> {
    side: Side,
    entries: Vec<&'f Entry>,
    tensors: Vec<&'f Vec<f32>>,
}

impl Known<'_> {
    /// The mean of its eigenvalues.
    fn mean(&self) -> f64 {
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
    fn functions(&self, shift: f64, functions: &[Function]) -> Result<Vec<Vec<Vec<f32>>>> {
        let finite = |x: &f32| x.is_finite();
        let found = match self.tensors.iter().copied().flatten().all(finite) {
            true => self.finite_functions(shift, functions),
            false => None,
        };
        let found = found.filter(|all| all.iter().flatten().flatten().all(finite));
        found.ok_or_else(|| Error::NotFinite {
            what: format!("the Kronecker factor '{}'", self.entries[0].name),
            advice: "Use a smaller step_length, or check the data.",
        })
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
    fn damped(&self, shift: f64) -> DMatrix<f64> {
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
fn narrow(matrix: &DMatrix<f64>) -> Vec<f32> {
    matrix.transpose().iter().map(|&x| x as f32).collect()
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;
    use crate::objective::{Layer, Structure};
    use crate::vector::Layout;
    use std::sync::Arc;

    const RELATIVE: FactorDamping = FactorDamping::Relative(4.0);
    const ALL: [Function; 4] = [
        Function::Itself,
        Function::Root,
        Function::InverseRoot,
        Function::Inverse,
    ];

    fn side(size: usize, form: Form) -> Side {
        Side { size, form }
    }

    fn structure(layers: &[(Option<Side>, Side)]) -> KroneckerStructure {
        let layers: Vec<Layer> = layers
            .iter()
            .enumerate()
            .map(|(weight, &(left, right))| Layer {
                structure: Structure::Kronecker,
                weight,
                bias: None,
                left,
                right,
            })
            .collect();
        let layout = |shapes: fn(&Side) -> Vec<Vec<usize>>| {
            let shapes = layers.iter().flat_map(Layer::sides).map(shapes).enumerate();
            let named = |(number, shapes): (usize, Vec<Vec<usize>>)| {
                let shapes = shapes.into_iter().enumerate();
                shapes.map(move |(k, shape)| (format!("side {number} {k}"), shape))
            };
            let tensors: Vec<_> = shapes.flat_map(named).collect();
            Arc::new(Layout::new(&tensors).unwrap())
        };
        KroneckerStructure {
            factors: layout(Side::shapes),
            functions: layout(Side::function_shapes),
            layers,
        }
    }

    /// By hand: `[[2, 1], [1, 4]]` has the mean 3; with damping 4 it becomes `[[8, 1], [1, 10]]`, of determinant 79.
    #[test]
    fn factors_are_damped_by_their_mean_and_inverted() {
        let (full, diagonal) = (side(2, Form::Full), side(2, Form::Diagonal));
        let mean = side(7, Form::Mean);
        let structure = structure(&[
            (Some(full), diagonal),
            (None, side(1, Form::Full)),
            (None, mean),
        ]);
        let factors = vec![
            vec![2.0, 1.0, 1.0, 4.0],
            vec![1.0, 3.0],
            vec![0.0],
            vec![5.0],
        ];
        let found = structure.functions_of(&factors, RELATIVE, &[Function::Inverse]);
        let found = &found.unwrap()[0];
        let expected = [10.0, -1.0, -1.0, 8.0].map(|x: f64| (x / 79.0) as f32);
        for (found, expected) in found[0].iter().zip(expected) {
            assert!((found - expected).abs() < 1e-7, "{found} {expected}");
        }
        assert_eq!(found[1], [1.0 / 5.0, 1.0 / 7.0]);
        assert_eq!(found[2], [0.0]);
        // Of a mean of 5, 5 and twice that.
        assert_eq!(found[3], [1.0 / 15.0]);
        let inverses = structure.function_flops(&[Function::Inverse]);
        assert_eq!(inverses, 16.0 + 2.0 + 2.0 + 1.0);
        assert_eq!(structure.function_flops(&ALL), 17.0 * 9.0 + 8.0 + 4.0);
    }

    /// By hand: means 2 and 8 share a damping of 4 as 1 and 4; of one factor it is all; the least is 1e-6 of 16.
    #[test]
    fn damping_is_split_by_the_means() {
        let split = |damping, means: &[f64]| FactorDamping::Split(damping).of(means);
        let near = |found: Vec<f64>, expected: &[f64]| {
            let close = |(x, y): (&f64, &f64)| (x - y).abs() < 1e-12 * y;
            assert!(
                found.iter().zip(expected).all(close),
                "{found:?} {expected:?}"
            );
        };
        near(split(4.0, &[2.0, 8.0]), &[1.0, 4.0]);
        near(split(4.0, &[2.0]), &[4.0]);
        near(split(0.0, &[2.0, 8.0]), &[2e-3, 8e-3]);
        near(split(9.0, &[0.0, 8.0]), &[3.0, 3.0]);
    }

    /// Roots of a matrix, squared and multiplied with each other.
    #[test]
    fn functions_belong_together() {
        let n = 6;
        let draw = DMatrix::from_fn(n, n, |i, j| ((1 + i * (j + 2)) as f64).sin());
        let factor = &draw * draw.transpose();
        let known = vec![narrow(&factor)];
        let matrix =
            |x: &Vec<f32>| DMatrix::from_row_iterator(n, n, x.iter().map(|&x| f64::from(x)));
        let structure = structure(&[(None, side(n, Form::Full))]);
        let found = structure
            .functions_of(&known, FactorDamping::Split(0.5), &ALL)
            .unwrap();
        let [itself, root, inverse_root, inverse] = [0, 1, 2, 3].map(|k| matrix(&found[k][0]));
        let one = DMatrix::<f64>::identity(n, n);
        for (what, found, expected) in [
            ("itself", &itself, &(&factor + 0.5 * &one)),
            ("root", &(&root * &root), &itself),
            ("inverse root", &(&inverse_root * &root), &one),
            ("inverse", &(&inverse * &itself), &one),
        ] {
            let error = (found - expected).norm() / expected.norm();
            assert!(error < 2e-6, "{what}: {error:.1e}");
        }
        let alone = structure.functions_of(&known, FactorDamping::Split(0.5), &[Function::Inverse]);
        let error = (matrix(&alone.unwrap()[0][0]) - &inverse).norm() / inverse.norm();
        assert!(error < 1e-6, "{error:.1e}");
    }

    /// A factor of a rank below that of its sketch is known exactly, and so is a function of it, or what of that the largest eigenvalues
    /// give.
    #[test]
    fn a_sketch_of_enough_columns_is_exact() {
        let (n, columns, known) = (20, 8, 5);
        let basis = DMatrix::from_fn(n, known, |i, j| ((1 + i * (j + 2)) as f64).sin());
        let factor = &basis * basis.transpose();
        let random = test_matrix(n, columns);
        let random = DMatrix::from_row_iterator(n, columns, random.iter().map(|&x| f64::from(x)));
        let sketch = vec![narrow(&(&factor * random)), vec![factor.trace() as f32]];
        let eigen = SymmetricEigen::new(factor.clone());
        let mut order: Vec<usize> = (0..n).collect();
        order.sort_by(|&i, &j| eigen.eigenvalues[j].total_cmp(&eigen.eigenvalues[i]));
        for rank in [columns, known, 2] {
            let structure = structure(&[(None, side(n, Form::Sketch { columns, rank }))]);
            let found = structure.functions_of(&sketch, FactorDamping::Relative(1.0), &ALL);
            let found = found.unwrap();
            let one = DMatrix::<f64>::identity(n, n);
            let shift = factor.trace() / n as f64;
            let rank = rank.min(known);
            let leading = eigen.eigenvectors.select_columns(&order[..rank]);
            let values = eigen.eigenvalues.select_rows(&order[..rank]);
            for (function, found) in ALL.iter().zip(found) {
                let captured = found[0].iter().map(|&x| f64::from(x));
                let captured = DMatrix::from_row_iterator(n, found[0].len() / n, captured);
                let [scale, weight] = [0, 1].map(|at| f64::from(found[1][at]));
                let found = &one * scale + weight * &captured * captured.transpose();
                let beyond = function.of(shift);
                let values = values.map(|value| function.of(shift + value) - beyond);
                let expected = &leading * DMatrix::from_diagonal(&values) * leading.transpose();
                let expected = expected + &one * beyond;
                let error = (&found - &expected).norm() / expected.norm();
                // In f32 the sketch knows the factor to 3e-5, as one sees where the largest eigenvalues count most.
                let grows = matches!(function, Function::Itself | Function::Root);
                let tolerance = if grows { 5e-5 } else { 1e-5 };
                assert!(
                    error < tolerance,
                    "{function:?} of rank {rank}: {error:.1e}"
                );
            }
        }
    }

    #[test]
    fn factors_that_are_not_finite_are_refused() {
        let structure = structure(&[(None, side(1, Form::Full)), (None, side(2, Form::Full))]);
        for bad in [f32::NAN, f32::INFINITY] {
            let factors = vec![vec![1.0], vec![1.0, bad, bad, 1.0]];
            for functions in [&ALL[3..], &ALL[..]] {
                let refused = structure.functions_of(&factors, RELATIVE, functions);
                let error = refused.unwrap_err().to_string();
                assert!(error.contains("Kronecker factor 'side 1 0'"), "{error}");
            }
        }
        let short = structure.functions_of(&[vec![1.0]], RELATIVE, &ALL);
        assert!(matches!(short, Err(Error::Length { .. })), "{short:?}");
    }
}
