//! A quadratic function with known eigenvalues and eigenvectors.

use osculant::nn::{DataShape, Init, Model, Output, TargetShape};
use osculant::random::Philox;
use rand::RngExt;

/// `f(x) = sum of d_i y_i^2 / 2` with `y = x - 2 w (w . x)`: eigenvalues `d`, eigenvectors the reflected axes.
pub(crate) struct Rotated {
    d: Vec<f32>,
    w: Vec<f32>,
    /// Where each eigenvalue is in `d`.
    places: Vec<usize>,
}

impl Rotated {
    /// With the first `count` eigenvalues `values`; the others are zero.
    pub(crate) fn new(n: usize, values: impl Fn(usize) -> f64, count: usize) -> Self {
        let mut random = Philox::new(3, 5 << 40);
        let mut w: Vec<f32> = (0..n).map(|_| random.random_range(-1.0..1.0)).collect();
        let norm = w.iter().map(|x| x * x).sum::<f32>().sqrt();
        w.iter_mut().for_each(|x| *x /= norm);
        let mut d = vec![0.0; n];
        // A stride that shares no factor with n.
        let stride = (0..)
            .map(|k| n / 3 + k)
            .find(|s| gcd(*s, n) == 1)
            .unwrap_or(1);
        let places: Vec<usize> = (0..count.min(n)).map(|i| i * stride % n).collect();
        for (i, &place) in places.iter().enumerate() {
            d[place] = values(i) as f32;
        }
        Self { d, w, places }
    }

    /// As a model; the parameters start at normal numbers.
    pub(crate) fn model(&self) -> Model {
        let (n, d, w) = (self.d.len(), self.d.clone(), self.w.clone());
        let shape = DataShape {
            features: 0,
            targets: TargetShape::Inputs,
        };
        Model::new(shape, move |scope| {
            let x = scope.parameter("x", &[n, 1], Init::Normal(1.0));
            let w = scope.data(w.clone(), &[n, 1]);
            let along = (x * w).sum(&[0, 1]).broadcast(&[n, 1]);
            let y = x - w * along * 2.0;
            let f = (y.square() * scope.data(d.clone(), &[n, 1])).sum(&[0, 1]) * 0.5;
            Output {
                losses: f.reshape(&[1]),
                outputs: x,
                metric: None,
            }
        })
    }

    /// `u . v` of a vector with eigenvector `i`: a reflected axis.
    pub(crate) fn along(&self, v: &[f32], i: usize) -> f64 {
        let place = self.places[i];
        let wv: f64 = self
            .w
            .iter()
            .zip(v)
            .map(|(w, v)| f64::from(*w) * f64::from(*v))
            .sum();
        f64::from(v[place]) - 2.0 * f64::from(self.w[place]) * wv
    }
}

fn gcd(a: usize, b: usize) -> usize {
    if b == 0 { a } else { gcd(b, a % b) }
}

/// Largest `|u_i . u_j - (i = j)|` over vectors that are not zero.
pub(crate) fn orthogonality(vectors: &[Vec<f32>]) -> f64 {
    let mut worst = 0.0f64;
    for (i, a) in vectors.iter().enumerate() {
        for (j, b) in vectors.iter().enumerate().take(i + 1) {
            let dot: f64 = a
                .iter()
                .zip(b)
                .map(|(a, b)| f64::from(*a) * f64::from(*b))
                .sum();
            let missing = i == j && a.iter().all(|x| *x == 0.0);
            if !missing {
                worst = worst.max((dot - if i == j { 1.0 } else { 0.0 }).abs());
            }
        }
    }
    worst
}
