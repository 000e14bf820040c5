//! Linear least squares: a model whose matrix anyone can write down.

#![allow(dead_code, reason = "not every test target uses everything")]

use std::ops::Range;

use osculant::data::{Batch, Targets};
use osculant::nn::{DataShape, Init, Model, Output, TargetShape};
use osculant::random::Philox;
use rand::RngExt;

use super::Outcome;

/// `sum over rows of w_n (y_n - x_n . theta)^2 / 2` with `n` features, from `start` in all of them: the matrix of a batch is `X^T W X`.
pub(crate) fn least_squares(n: usize, start: f32) -> Model {
    let shape = DataShape {
        features: n,
        targets: TargetShape::Values(1),
    };
    Model::new(shape, move |scope| {
        let theta = scope.parameter("theta", &[n, 1], Init::Constant(start));
        let outputs = scope.features().dot(theta);
        let off = outputs - scope.targets();
        Output {
            losses: (off.square() * 0.5).reshape(&[scope.rows()]),
            outputs,
            metric: None,
        }
    })
}

/// Rows with one value each, all of the same weight.
pub(crate) fn batch_of(features: Vec<f32>, values: Vec<f32>) -> Batch {
    let count = values.len();
    Batch {
        features,
        targets: Targets::Values { values, width: 1 },
        weights: vec![1.0 / count as f32; count],
    }
}

/// Random rows.
pub(crate) fn random_rows(count: usize, n: usize, seed: u64) -> Batch {
    let mut random = Philox::new(seed, 1 << 42);
    let mut draw =
        |count: usize| -> Vec<f32> { (0..count).map(|_| random.random_range(-1.0..1.0)).collect() };
    let features = draw(count * n);
    batch_of(features, draw(count))
}

/// The values of a batch.
pub(crate) fn values_of(batch: &Batch) -> Vec<f32> {
    match &batch.targets {
        Targets::Values { values, .. } => values.clone(),
        _ => Vec::new(),
    }
}

/// Whether a number is another one, relative to that or to a thousandth.
pub(crate) fn near(found: f64, expected: f64, tolerance: f64, what: &str) -> Outcome {
    if (found - expected).abs() <= tolerance * expected.abs().max(1e-3) {
        Ok(())
    } else {
        Err(format!("{what}: {found}, not {expected}").into())
    }
}

/// Loss, gradient, and slope and curvature along a vector, in f64, of some rows of a batch.
pub(crate) struct Dense(Vec<(Vec<f64>, f64)>);

impl Dense {
    pub(crate) fn new(batch: &Batch, n: usize, range: Range<usize>) -> Self {
        let values = values_of(batch);
        let row = |at: usize| {
            let features = wide(&batch.features[at * n..(at + 1) * n]);
            (features, f64::from(values[at]))
        };
        Self(range.map(row).collect())
    }

    fn mean(&self, of: impl Fn(&[f64], f64) -> f64) -> f64 {
        let sum: f64 = self.0.iter().map(|(x, y)| of(x, *y)).sum();
        sum / self.0.len() as f64
    }

    pub(crate) fn loss(&self, theta: &[f64]) -> f64 {
        self.mean(|x, y| 0.5 * (y - dot(x, theta)).powi(2))
    }

    pub(crate) fn gradient(&self, theta: &[f64]) -> Vec<f64> {
        let one = |i: usize| self.mean(|x, y| (dot(x, theta) - y) * x[i]);
        (0..theta.len()).map(one).collect()
    }

    pub(crate) fn slope(&self, theta: &[f64], along: &[f64]) -> f64 {
        self.mean(|x, y| (dot(x, theta) - y) * dot(x, along))
    }

    pub(crate) fn curvature(&self, along: &[f64]) -> f64 {
        self.mean(|x, _| dot(x, along).powi(2))
    }
}

pub(crate) fn dot(x: &[f64], y: &[f64]) -> f64 {
    x.iter().zip(y).map(|(x, y)| x * y).sum()
}

pub(crate) fn wide(x: &[f32]) -> Vec<f64> {
    x.iter().map(|&x| f64::from(x)).collect()
}
