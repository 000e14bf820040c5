//! A solution that starts from an earlier one: pure functions.
//!
//! ```text
//! d  minimizes  |A d - r|^2 / 2 + l2/2 |d - theta|^2 + lambda/2 |d - mu d'|^2
//! (A^T A + L) d = A^T r + l2 theta + lambda mu d'          L = lambda + l2
//! d = p + A^T u,   (A A^T + L) u = r - A p,   p = (lambda mu d' + l2 theta) / L
//! ```
//!
//! Where the gradient is not `A^T r`, it takes the place of `A^T r + l2 theta`: `r` is 0 and `p = (lambda mu d' + g) / L`.

use nalgebra::{DMatrix, DVector};

use super::solve::{Damped, not_positive};
use crate::error::Result;

/// Strengths of the two terms, and the part of the last solution.
#[derive(Clone, Copy, Debug)]
pub(super) struct Pull {
    /// `lambda`
    pub(super) damping: f64,
    pub(super) l2: f64,
    /// `mu`
    pub(super) momentum: f64,
    /// What `p` has beside the last solution.
    pub(super) beside: Beside,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Beside {
    Nothing,
    /// `l2 theta`
    Parameters,
    /// `g`
    Gradient,
}

impl Pull {
    /// `L`
    pub(super) fn total(&self) -> f64 {
        self.damping + self.l2
    }

    /// `p = a d' + b q`, with the parameters or the gradient as `q`.
    pub(super) fn start(&self) -> [f64; 2] {
        let total = self.total();
        let beside = match self.beside {
            Beside::Nothing => 0.0,
            Beside::Parameters => self.l2,
            Beside::Gradient => 1.0,
        };
        [self.damping * self.momentum / total, beside / total]
    }
}

/// What is known of the last solution `d'` and of `q`: inner products `(d'.q, d'.d', q.q)` and their images.
pub(super) struct Known {
    pub(super) products: [f64; 3],
    pub(super) images: [DVector<f64>; 2],
}

/// A solution in the space of samples.
pub(super) struct Solution {
    pub(super) coefficients: DVector<f64>,
    /// `|d|^2`
    pub(super) square: f64,
}

/// Solves with the Gram matrix; `d` is `p + A^T u`.
pub(super) fn solve(
    gram: &DMatrix<f64>,
    residuals: &DVector<f64>,
    known: &Known,
    pull: &Pull,
) -> Result<Solution> {
    let [a, b] = pull.start();
    let image = &known.images[0] * a + &known.images[1] * b;
    let damped = Damped::new(gram, |_| pull.total()).ok_or_else(not_positive)?;
    let u = damped.solve(&(residuals - &image));
    let [dq, dd, qq] = known.products;
    let start = a * a * dd + 2.0 * a * b * dq + b * b * qq;
    let square = start + 2.0 * u.dot(&image) + u.dot(&(gram * &u));
    Ok(Solution {
        coefficients: u,
        square: square.max(0.0),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn matrix(rows: usize, columns: usize) -> DMatrix<f64> {
        DMatrix::from_fn(rows, columns, |i, j| {
            (1.0 + 3.7 * i as f64 + 1.3 * (j * j) as f64).sin()
        })
    }

    /// The solution by parameters, of its definition, for all that may be beside the last one.
    #[test]
    fn samples_and_parameters_have_one_solution() -> Result<()> {
        let (m, p) = (4, 7);
        let (a, last, theta, r) = (matrix(m, p), matrix(p, 1), matrix(p, 2), matrix(m, 1));
        let (last, theta, r) = (last.column(0), theta.column(1), r.column(0));
        for beside in [Beside::Nothing, Beside::Parameters, Beside::Gradient] {
            let l2 = if beside == Beside::Nothing { 0.0 } else { 0.2 };
            let pull = Pull {
                damping: 0.7,
                l2,
                momentum: 0.9,
                beside,
            };
            let gradient = a.transpose() * r + l2 * theta;
            let total = DMatrix::identity(p, p) * (pull.damping + l2);
            let right = &gradient + pull.damping * pull.momentum * last;
            let expected = (a.transpose() * &a + total).lu().solve(&right);
            let expected = expected.ok_or_else(not_positive)?;
            let (q, residuals) = match beside {
                Beside::Gradient => (gradient.clone(), DVector::zeros(m)),
                _ => (theta.into_owned(), r.into_owned()),
            };
            let known = Known {
                products: [last.dot(&q), last.dot(&last), q.dot(&q)],
                images: [&a * last, &a * &q],
            };
            let found = solve(&(&a * a.transpose()), &residuals, &known, &pull)?;
            let [x, y] = pull.start();
            let d = last * x + q * y + a.transpose() * found.coefficients;
            assert!(
                (&d - &expected).norm() < 1e-12 * expected.norm(),
                "{beside:?}"
            );
            let square = expected.dot(&expected);
            assert!((found.square - square).abs() < 1e-12 * square, "{beside:?}");
        }
        Ok(())
    }

    /// Of a solution with the same rows as the last one what they say is new, and what they do not see is the last one, shrunk.
    #[test]
    fn what_rows_do_not_see_is_kept() -> Result<()> {
        let a = matrix(2, 5);
        let last = matrix(5, 1).column(0).into_owned();
        let normal = &a * a.transpose();
        let Some(inverse) = normal.clone().try_inverse() else {
            return Err(not_positive());
        };
        // The part beyond the rows.
        let beyond = &last - a.transpose() * (inverse * (&a * &last));
        let pull = Pull {
            damping: 1e-9,
            l2: 0.0,
            momentum: 0.5,
            beside: Beside::Nothing,
        };
        let known = Known {
            products: [0.0, last.dot(&last), 0.0],
            images: [&a * &last, DVector::zeros(2)],
        };
        let r = DVector::from_vec(vec![1.0, -2.0]);
        let found = solve(&normal, &r, &known, &pull)?;
        let d = &last * 0.5 + a.transpose() * found.coefficients;
        assert!((&a * &d - r).norm() < 1e-6);
        let row_space = |v: &DVector<f64>| (&a * v).norm();
        let rest = &d - 0.5 * &beyond;
        let outside = rest.dot(&beyond);
        assert!(outside.abs() < 1e-9 && row_space(&beyond) < 1e-9);
        Ok(())
    }
}
