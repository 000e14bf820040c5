//! Shampoo with Adam's step lengths.

use std::ops::Bound::{Excluded, Included};

use super::adam::Adam;
use super::factors::{FIRST_FACTOR, averaged, between, forms, made, memory};
use super::rule::{Form, Matrix, Operands, Rule, Tensors, Update};
use super::spectral::inverse_root;
use crate::error::Result;
use crate::graph::Tensor;
use crate::optim::first_order::AdamOptions;
use crate::optim::work::flops;
use crate::options::options;
use crate::vector::Layout;

options! {
    /// Settings of [`Shampoo`](crate::optim::Shampoo).
    pub struct ShampooOptions {
        /// Adam, which gives each step of a matrix its length, and makes those of all else. The factors decay with its `beta2`.
        adam(with_adam): AdamOptions = AdamOptions::default().with_learning_rate(3e-3).with_beta2(0.99);
        /// Added to the eigenvalues of a factor, as a part of the largest.
        ridge(with_ridge): f64 = 1e-6, in (Excluded(0.0), Included(1.0)) => "above 0, at most 1";
        /// Steps from one pair of roots to the next.
        interval(with_interval): u32 = 10, in 1..=100_000 => "1 to 100,000";
        /// Sides that are longer have no factor.
        largest(with_largest): usize = 1024;
    }
}

impl Rule for ShampooOptions {
    const NAME: &'static str = "shampoo";
    const VECTORS: &'static [&'static str] = &["shampoo_moments", "shampoo_roots"];

    fn check(&self) -> Result<()> {
        self.validate()?;
        self.adam.validate()
    }

    fn forms(&self, layout: &Layout) -> Vec<Form> {
        forms(layout, self.largest)
    }

    fn settings(&self, number: i32, factor: f64) -> Vec<f32> {
        self.adam.settings(number, factor).to_vec()
    }

    fn memory(&self, matrix: &Matrix) -> [Tensors; 2] {
        memory(matrix)
    }

    fn update<'b>(&self, matrix: &Matrix, on: &Operands<'b>) -> Update<'b> {
        let adam = Adam::of(on);
        let m = adam.first_moment(on.state[0], on.gradient);
        let v = adam.second_moment(on.state[1], on.gradient.square());
        let mut state = vec![m, v];
        state.extend(averaged(matrix, on, &adam));
        let direction = between(made(matrix, on), m);
        let norm = |x: Tensor<'b>| x.square().sum(&[0, 1]).sqrt();
        let (own, wanted) = (norm(direction), norm(adam.direction(m, v)));
        // Where nothing pulls, nothing is scaled.
        let scale = own.select(wanted / own, own);
        Update {
            step: adam.step(scale * direction, on.theta),
            state,
        }
    }

    /// The direction, and the factors.
    fn flops(&self, matrix: &Matrix) -> f64 {
        2.0 * matrix.products()
    }

    fn refreshes(&self, steps: i32) -> bool {
        i64::from(steps) % i64::from(self.interval) == 0
    }

    fn refresh(
        &self,
        matrix: &Matrix,
        _first: bool,
        state: &mut [Vec<f32>],
        made: &mut [Vec<f32>],
    ) -> Option<()> {
        // Of a matrix with two factors each has half of the whole root.
        let exponent = 0.5 / matrix.orders().count() as f64;
        let factors = matrix.orders().zip(&state[FIRST_FACTOR..]).zip(made);
        for ((order, factor), root) in factors {
            *root = inverse_root(order, factor, exponent, self.ridge)?;
        }
        Some(())
    }

    fn refresh_flops(&self, matrix: &Matrix, _first: bool) -> f64 {
        let of = |n: usize| flops::eigen(n) + 2.0 * (n as f64).powi(3);
        matrix.orders().map(of).sum()
    }
}
