//! Conjugate gradients in f64 as textbooks have them (Hestenes and Stiefel 1952; Steihaug 1983), with every inner product computed where it
//! is used.

use super::{add, dot};

/// A system `A x = -g` with a symmetric `A`, a preconditioner and a trust region.
pub(crate) struct System<'a> {
    pub(crate) product: &'a dyn Fn(&[f64]) -> Vec<f64>,
    pub(crate) g: &'a [f64],
    /// Inverse diagonal of the preconditioner.
    pub(crate) inverse: Option<&'a [f64]>,
    pub(crate) start: Vec<f64>,
    pub(crate) radius: Option<f64>,
}

/// How a solve ended.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) enum End {
    Cap,
    Boundary,
    NegativeCurvature,
}

/// The last iterate, the value of `g.x + x.A x / 2` at the start and after each iteration, and the end.
pub(crate) struct Solved {
    pub(crate) x: Vec<f64>,
    pub(crate) model: Vec<f64>,
    pub(crate) end: End,
}

impl System<'_> {
    fn precondition(&self, r: &[f64]) -> Vec<f64> {
        match self.inverse {
            Some(inverse) => r.iter().zip(inverse).map(|(r, i)| r * i).collect(),
            None => r.to_vec(),
        }
    }

    /// `a.M b`
    fn metric(&self, a: &[f64], b: &[f64]) -> f64 {
        match self.inverse {
            Some(inverse) => a
                .iter()
                .zip(b)
                .zip(inverse)
                .map(|((a, b), i)| a * b / i)
                .sum(),
            None => dot(a, b),
        }
    }

    fn model(&self, x: &[f64]) -> f64 {
        dot(self.g, x) + 0.5 * dot(x, &(self.product)(x))
    }

    pub(crate) fn solve(&self, iterations: usize) -> Solved {
        let mut x = self.start.clone();
        let mut r = add(self.g, 1.0, &(self.product)(&x));
        let mut z = self.precondition(&r);
        let mut p: Vec<f64> = z.iter().map(|z| -z).collect();
        let mut model = vec![self.model(&x)];
        for _ in 0..iterations {
            let q = (self.product)(&p);
            let (curvature, rz) = (dot(&p, &q), dot(&r, &z));
            let next = add(&x, rz / curvature, &p);
            let outside = self
                .radius
                .is_some_and(|radius| self.metric(&next, &next) >= radius * radius);
            if curvature <= 0.0 || outside {
                let end = if curvature <= 0.0 {
                    End::NegativeCurvature
                } else {
                    End::Boundary
                };
                if let Some(radius) = self.radius {
                    let (xx, xp, pp) = (
                        self.metric(&x, &x),
                        self.metric(&x, &p),
                        self.metric(&p, &p),
                    );
                    let root = (xp * xp + pp * (radius * radius - xx)).sqrt();
                    x = add(&x, (root - xp) / pp, &p);
                    model.push(self.model(&x));
                }
                return Solved { x, model, end };
            }
            r = add(&r, rz / curvature, &q);
            x = next;
            model.push(self.model(&x));
            z = self.precondition(&r);
            let beta = dot(&r, &z) / rz;
            p = p.iter().zip(&z).map(|(p, z)| beta * p - z).collect();
        }
        let end = End::Cap;
        Solved { x, model, end }
    }
}
