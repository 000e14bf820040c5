//! Functions of damped Kronecker factors, on the host in f64.

use super::corrected::corrected;
use super::factor::Known;
use crate::error::{Error, Result};
use crate::objective::{Form, KroneckerStructure, Layer, Side};
use crate::vector::{Entry, Layout};

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
    pub(super) fn of(self, x: f64) -> f64 {
        match self {
            Function::Itself => x,
            Function::Root => x.sqrt(),
            Function::InverseRoot => 1.0 / x.sqrt(),
            Function::Inverse => 1.0 / x,
        }
    }

    /// `f(s + l) - f(s)`, without subtracting.
    pub(super) fn change(self, s: f64, l: f64) -> f64 {
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
    pub(super) fn of(self, means: &[f64]) -> Vec<f64> {
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

/// What functions of factors are, and in which basis eigenvalues are measured from then on.
#[derive(Clone, Debug, PartialEq)]
pub struct Functions {
    /// For each function its tensors, of all factors.
    pub tensors: Vec<Vec<Vec<f32>>>,
    /// Corrected eigenvalues of layers that have them, in the basis of the functions: the place among the factors' tensors, and the tensor.
    pub eigenvalues: Vec<(usize, Vec<f32>)>,
}

impl KroneckerStructure {
    /// For each of these functions its tensors, of all factors: those for a [`KroneckerOperator`](super::KroneckerOperator). A function of
    /// a factor that is zero, with no damping, is zero: what has no curvature on any example seen does not move. Where eigenvalues are
    /// corrected these are the products of the factors', as they are before any is measured.
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
        Ok(self
            .functions_in(factors, None, damping, functions)?
            .tensors)
    }

    /// The same where corrected eigenvalues were measured in the basis of functions that were `in_use`: with the factors' new eigenvectors
    /// they are taken to these, as a diagonal, `S'_ij = sum_kl (Q'_A^T Q_A)_ik^2 S_kl (Q'_B^T Q_B)_jl^2`.
    ///
    /// # Errors
    /// As [`functions_of`](Self::functions_of), also for functions in use that are not those of the structure.
    pub fn functions_in(
        &self,
        factors: &[Vec<f32>],
        in_use: Option<&[Vec<f32>]>,
        damping: FactorDamping,
        functions: &[Function],
    ) -> Result<Functions> {
        fitting("the list of Kronecker factors", &self.factors, factors)?;
        if let Some(in_use) = in_use {
            let what = "the list of functions of Kronecker factors";
            fitting(what, &self.functions, in_use)?;
        }
        let mut found = Functions {
            tensors: vec![Vec::new(); functions.len()],
            eigenvalues: Vec::new(),
        };
        let mut left = self.factors.entries().iter().zip(factors);
        let mut at = 0;
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
            if let ([a, b, values], Some(_)) = (&sides[..], layer.corrected) {
                let basis = in_use.map(|all| [&all[at], &all[at + 1]]);
                let (own, values) = corrected([a, b, values], basis, damping, functions)?;
                for (all, own) in found.tensors.iter_mut().zip(own) {
                    all.extend(own);
                }
                found.eigenvalues.push((at + 2, values));
            } else {
                let means: Vec<f64> = sides.iter().map(Known::mean).collect();
                for (known, shift) in sides.iter().zip(damping.of(&means)) {
                    let own = known.functions(shift, functions)?;
                    for (all, own) in found.tensors.iter_mut().zip(own) {
                        all.extend(own);
                    }
                }
            }
            // A factor has as many tensors as a function of it.
            at += sides.iter().map(|known| known.tensors.len()).sum::<usize>();
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
        // Eigenvectors, and the change of basis.
        let of_layer = |layer: &Layer| match layer.corrected {
            Some(_) => 11.0,
            None => matrices,
        };
        let of = |matrices: f64, side: &Side| {
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
        let layers = self.layers.iter();
        let all = layers.map(|layer| {
            let matrices = of_layer(layer);
            layer.sides().map(|side| of(matrices, side)).sum::<f64>()
        });
        all.sum()
    }
}

fn fitting(what: &str, layout: &Layout, tensors: &[Vec<f32>]) -> Result<()> {
    let entries = layout.entries();
    let fits = |(entry, own): (&Entry, &Vec<f32>)| entry.elements() == own.len();
    if entries.len() == tensors.len() && entries.iter().zip(tensors).all(fits) {
        return Ok(());
    }
    Err(Error::Length {
        what: what.into(),
        found: tensors.len(),
        expected: entries.len(),
    })
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::super::factor::narrow;
    use super::*;
    use crate::graph::kronecker::test_matrix;
    use crate::objective::Structure;
    use nalgebra::{DMatrix, SymmetricEigen};
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
                corrected: None,
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
