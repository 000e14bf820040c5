//! Damped solutions of a system, and what they promise: pure functions.

use nalgebra::{DMatrix, DVector};

use super::options::Scaling;
use super::prior::{Beside, Known, Pull, solve};
use super::solve::Damped;

/// A square of the rows on the host, with what is solved for.
pub(super) enum System {
    Samples(Samples),
    Parameters(Parameters),
}

/// In the space of samples: `d = b theta + A^T u`.
pub(super) struct Samples {
    pub(super) gram: DMatrix<f64>,
    pub(super) residuals: DVector<f64>,
    /// `A theta` and `|theta|^2`, where there is an `l2` term.
    pub(super) image: DVector<f64>,
    pub(super) square: f64,
    pub(super) l2: f64,
}

/// In the space of parameters.
pub(super) struct Parameters {
    pub(super) normal: DMatrix<f64>,
    /// With that of the `l2` term.
    pub(super) gradient: DVector<f64>,
    pub(super) l2: f64,
}

/// The numbers that make a solution: coefficients of rows and of the parameters, or all of it.
#[derive(Clone, Debug)]
pub(super) enum Way {
    Coefficients { rows: DVector<f64>, beside: f64 },
    Whole(DVector<f64>),
}

/// A solution with its damping.
pub(super) struct Trial {
    pub(super) way: Way,
    pub(super) damped: Damped,
    /// `|d|^2`
    pub(super) square: f64,
    /// `-g.d`, and `d.C d` with the undamped matrix.
    pub(super) slope: f64,
    pub(super) curvature: f64,
}

impl System {
    /// Of the matrix.
    pub(super) fn order(&self) -> usize {
        match self {
            Self::Samples(of) => of.gram.nrows(),
            Self::Parameters(of) => of.normal.nrows(),
        }
    }

    /// The solution with this damping; none where rounding has left a matrix that is not positive with it. `smaller` is the smaller of the
    /// numbers of rows and of parameters, over which the mean of the diagonal is taken.
    pub(super) fn at(&self, damping: f64, scaling: Scaling, smaller: usize) -> Option<Trial> {
        let trace = match self {
            Self::Samples(of) => of.gram.trace(),
            Self::Parameters(of) => of.normal.trace(),
        };
        let lambda = match scaling {
            Scaling::Mean => damping * trace / smaller.max(1) as f64,
            Scaling::Identity | Scaling::Diagonal => damping,
        };
        match self {
            Self::Samples(of) => of.at(lambda),
            Self::Parameters(of) => of.at(lambda, scaling),
        }
    }
}

impl Samples {
    fn at(&self, damping: f64) -> Option<Trial> {
        let pull = Pull {
            damping,
            l2: self.l2,
            momentum: 0.0,
            beside: match self.l2 > 0.0 {
                true => Beside::Parameters,
                false => Beside::Nothing,
            },
        };
        let nothing = DVector::zeros(self.residuals.len());
        let known = Known {
            products: [0.0, 0.0, self.square],
            images: [nothing, self.image.clone()],
        };
        let found = solve(&self.gram, &self.residuals, &known, &pull).ok()?;
        let [_, b] = pull.start();
        let u = found.coefficients;
        let image = &self.image * b + &self.gram * &u;
        let with_theta = b * self.square + u.dot(&self.image);
        Some(Trial {
            damped: Damped::new(&self.gram, |_| pull.total())?,
            square: found.square,
            slope: -self.residuals.dot(&image) - self.l2 * with_theta,
            curvature: image.norm_squared() + self.l2 * found.square,
            way: Way::Coefficients { rows: u, beside: b },
        })
    }
}

impl Parameters {
    fn at(&self, damping: f64, scaling: Scaling) -> Option<Trial> {
        let diagonal = |at: usize| match scaling {
            Scaling::Diagonal => damping * self.normal[(at, at)].max(f64::from(f32::MIN_POSITIVE)),
            _ => damping,
        };
        let damped = Damped::new(&self.normal, |at| diagonal(at) + self.l2)?;
        let d = damped.solve(&self.gradient);
        let square = d.norm_squared();
        Some(Trial {
            damped,
            square,
            slope: -self.gradient.dot(&d),
            curvature: d.dot(&(&self.normal * &d)) + self.l2 * square,
            way: Way::Whole(d),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn rows() -> DMatrix<f64> {
        DMatrix::from_fn(4, 6, |i, j| {
            (1.0 + 3.7 * i as f64 + 1.3 * (j * j) as f64).sin()
        })
    }

    /// Both spaces have one solution, that of its definition, and make the same promises.
    #[test]
    fn both_spaces_promise_the_same() {
        let a = rows();
        let r = DVector::from_fn(4, |i, _| (0.3 + i as f64).cos());
        let theta = DVector::from_fn(6, |i, _| (0.7 * i as f64).sin());
        for l2 in [0.0, 0.4] {
            let samples = System::Samples(Samples {
                gram: &a * a.transpose(),
                residuals: r.clone(),
                image: &a * &theta,
                square: theta.norm_squared(),
                l2,
            });
            let gradient = a.transpose() * &r + &theta * l2;
            let normal = a.transpose() * &a;
            let parameters = System::Parameters(Parameters {
                normal: normal.clone(),
                gradient: gradient.clone(),
                l2,
            });
            for scaling in [Scaling::Mean, Scaling::Identity] {
                let trials = [&samples, &parameters].map(|s| s.at(0.2, scaling, 4));
                let [Some(one), Some(two)] = trials else {
                    unreachable!("both are positive");
                };
                let (Way::Coefficients { rows, beside }, Way::Whole(d)) = (&one.way, &two.way)
                else {
                    unreachable!("of both spaces");
                };
                let by_rows = a.transpose() * rows + &theta * *beside;
                assert!((by_rows - d).norm() < 1e-12);
                let lambda = match scaling {
                    Scaling::Mean => 0.2 * normal.trace() / 4.0,
                    _ => 0.2,
                };
                let left = &normal * d + d * (lambda + l2);
                assert!((left - &gradient).norm() < 1e-12);
                for (x, y) in [
                    (one.slope, two.slope),
                    (one.curvature, two.curvature),
                    (one.square, two.square),
                ] {
                    assert!((x - y).abs() < 1e-11 * y.abs(), "{x} {y}");
                }
            }
        }
    }

    /// By hand: `(4 + 0.5 * 4) d = 3`.
    #[test]
    fn the_diagonal_scales_the_damping() {
        let system = Parameters {
            normal: DMatrix::from_element(1, 1, 4.0),
            gradient: DVector::from_element(1, 3.0),
            l2: 0.0,
        };
        let found = system
            .at(0.5, Scaling::Diagonal)
            .map(|t| (t.square, t.slope, t.curvature));
        let Some((square, slope, curvature)) = found else {
            unreachable!("it is positive");
        };
        for (x, y) in [(square, 0.25), (slope, -1.5), (curvature, 1.0)] {
            assert!((x - y).abs() < 1e-14, "{x} {y}");
        }
    }
}
