//! Muon.

use std::ops::Bound::Excluded;

use super::adam;
use super::rule::{Form, Matrix, Operands, Rule, Tensors, Update};
use crate::error::Result;
use crate::graph::Tensor;
use crate::optim::first_order::{AdamOptions, check_decay, scheduled};
use crate::options::options;
use crate::vector::Layout;

/// Iterations, and the coefficients `(a, b, c)` of each: singular values from 2e-3 to 1 end between 0.68 and 1.21.
const ITERATIONS: usize = 5;
const COEFFICIENTS: [f32; 3] = [3.4445, -4.775, 2.0315];
/// Added to the norm by which a matrix is divided at first.
const NORM_EPSILON: f32 = 1e-7;

/// Which tensors Muon takes for matrices.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Matrices {
    /// All of two axes or more.
    All,
    /// All but the first and the last of these, as the rule was published: inputs and outputs by Adam.
    Hidden,
}

options! {
    /// Settings of [`Muon`](crate::optim::Muon).
    pub struct MuonOptions {
        /// Learning rate of matrices.
        learning_rate(with_learning_rate): f32 = 0.02, in (Excluded(0.0), Excluded(f32::INFINITY)) => "above 0";
        /// Momentum.
        momentum(with_momentum): f32 = 0.95, in 0.0..1.0 => "0 or more, below 1";
        /// Nesterov's form of momentum.
        nesterov(with_nesterov): bool = true;
        /// Decoupled weight decay of matrices.
        weight_decay(with_weight_decay): f32 = 0.0, in 0.0..f32::INFINITY => "0 or more, below 1 / learning_rate";
        /// Which tensors are matrices. The published rule leaves first and last layer to Adam; small networks consist of these.
        matrices(with_matrices): Matrices = Matrices::All;
        /// Adam for everything else, biases to begin with.
        adam(with_adam): AdamOptions = AdamOptions::default().with_beta2(0.95).with_learning_rate(3e-3);
    } together Self::check_together
}

impl MuonOptions {
    fn check_together(&self) -> Result<()> {
        self.adam.validate()?;
        check_decay(self.learning_rate, self.weight_decay)
    }
}

impl Rule for MuonOptions {
    const NAME: &'static str = "muon";
    const VECTORS: &'static [&'static str] = &["muon_moments"];

    fn check(&self) -> Result<()> {
        self.validate()
    }

    fn forms(&self, layout: &Layout) -> Vec<Form> {
        let entries = layout.entries();
        let matrix = |at: &usize| Matrix::of(&entries[*at], 0);
        let all: Vec<usize> = (0..entries.len())
            .filter(|at| matrix(at).is_some())
            .collect();
        let taken = match self.matrices {
            Matrices::All => &all[..],
            Matrices::Hidden => all.get(1..all.len().max(2) - 1).unwrap_or_default(),
        };
        let form = |at: usize| match matrix(&at) {
            Some(matrix) if taken.contains(&at) => Form::Matrix(matrix),
            _ => Form::Elements(entries[at].elements()),
        };
        (0..entries.len()).map(form).collect()
    }

    fn settings(&self, number: i32, factor: f64) -> Vec<f32> {
        let mut settings = self.adam.settings(number, factor).to_vec();
        let rate = scheduled(self.learning_rate, factor);
        settings.extend([rate, self.momentum, self.weight_decay]);
        settings
    }

    fn memory(&self, matrix: &Matrix) -> [Tensors; 2] {
        [vec![("momentum", matrix.shape.to_vec())], Vec::new()]
    }

    fn update<'b>(&self, matrix: &Matrix, on: &Operands<'b>) -> Update<'b> {
        let [rate, momentum, decay] = [0, 1, 2].map(|at| on.setting(adam::SETTINGS + at));
        let averaged = |m: Tensor<'b>| momentum * m + (1.0 - momentum) * on.gradient;
        let m = averaged(on.state[0]);
        let direction = orthogonalized(if self.nesterov { averaged(m) } else { m });
        let [rows, columns] = matrix.shape.map(|side| side as f32);
        let scale = (columns / rows).max(1.0).sqrt();
        Update {
            step: rate * (scale * direction + decay * on.theta),
            state: vec![m],
        }
    }

    fn flops(&self, matrix: &Matrix) -> f64 {
        let [long, short] = matrix.shape.map(|side| side as f64);
        let (long, short) = (long.max(short), long.min(short));
        ITERATIONS as f64 * (4.0 * short * short * long + 2.0 * short.powi(3))
    }
}

/// Newton-Schulz iterations from `X = M / |M|_F`, on the shorter side: with `A = X X^T`
///
/// ```text
/// X <- a X + (b A + c A^2) X
/// ```
///
/// which takes every singular value `s` to `a s + b s^3 + c s^5`, five times, and so near 1.
fn orthogonalized(matrix: Tensor<'_>) -> Tensor<'_> {
    let [a, b, c] = COEFFICIENTS;
    let is_wide = matrix.shape()[0] <= matrix.shape()[1];
    let norm = matrix.square().sum(&[0, 1]).sqrt();
    let mut x = matrix / (norm + NORM_EPSILON);
    for _ in 0..ITERATIONS {
        let transposed = x.permute(&[1, 0]);
        let square = match is_wide {
            true => x.dot(transposed),
            false => transposed.dot(x),
        };
        let polynomial = b * square + c * square.dot(square);
        let moved = match is_wide {
            true => polynomial.dot(x),
            false => x.dot(polynomial),
        };
        x = a * x + moved;
    }
    x
}
