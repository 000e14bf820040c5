//! SOAP.

use super::adam::Adam;
use super::factors::{FIRST_FACTOR, averaged, between, forms, made, memory};
use super::rule::{Form, Matrix, Operands, Rule, Tensors, Update};
use super::spectral::{eigenbasis, iterated};
use crate::error::Result;
use crate::graph::Tensor;
use crate::optim::first_order::AdamOptions;
use crate::optim::work::flops;
use crate::options::options;
use crate::vector::Layout;

options! {
    /// Settings of [`Soap`](crate::optim::Soap).
    pub struct SoapOptions {
        /// Adam in the rotated space, for matrices, and Adam for all else. The factors decay with its `beta2`.
        adam(with_adam): AdamOptions = AdamOptions::default().with_learning_rate(3e-3).with_beta1(0.95).with_beta2(0.95);
        /// Steps from one basis to the next.
        interval(with_interval): u32 = 10, in 1..=100_000 => "1 to 100,000";
        /// Sides that are longer are not rotated.
        largest(with_largest): usize = 1024;
    }
}

impl Rule for SoapOptions {
    const NAME: &'static str = "soap";
    const VECTORS: &'static [&'static str] = &["soap_moments", "soap_bases"];

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
        let (adam, [left, right]) = (Adam::of(on), made(matrix, on));
        let turned = |basis: Option<Tensor<'b>>| basis.map(|basis| basis.permute(&[1, 0]));
        let rotated = |x| between([turned(left), right], x);
        let m = adam.first_moment(on.state[0], on.gradient);
        let v = adam.second_moment(on.state[1], rotated(on.gradient).square());
        let direction = adam.direction(rotated(m), v);
        let mut state = vec![m, v];
        state.extend(averaged(matrix, on, &adam));
        Update {
            step: adam.step(between([left, turned(right)], direction), on.theta),
            state,
        }
    }

    /// Two rotations, one back, and the factors.
    fn flops(&self, matrix: &Matrix) -> f64 {
        4.0 * matrix.products()
    }

    fn refreshes(&self, steps: i32) -> bool {
        i64::from(steps) % i64::from(self.interval) == 0
    }

    fn refresh(
        &self,
        matrix: &Matrix,
        first: bool,
        state: &mut [Vec<f32>],
        made: &mut [Vec<f32>],
    ) -> Option<()> {
        let (moments, factors) = state.split_at_mut(FIRST_FACTOR);
        let mut orders = matrix.shape.map(|side| (0..side).collect::<Vec<usize>>());
        let sides = orders.iter_mut().zip(matrix.sides);
        let sides = sides.filter_map(|(order, has)| has.then_some(order));
        for ((order, factor), basis) in sides.zip(factors).zip(made) {
            if first {
                *basis = eigenbasis(order.len(), factor)?;
            } else {
                (*order, *basis) = iterated(order.len(), factor, basis)?;
            }
        }
        // The second moment goes with the columns of the bases.
        let columns = matrix.shape[1];
        let old = moments[1].clone();
        for (row, &from) in moments[1].chunks_mut(columns).zip(&orders[0]) {
            let from = &old[from * columns..(from + 1) * columns];
            for (v, &column) in row.iter_mut().zip(&orders[1]) {
                *v = from[column];
            }
        }
        Some(())
    }

    fn refresh_flops(&self, matrix: &Matrix, first: bool) -> f64 {
        let of = |n: usize| match first {
            true => flops::eigen(n),
            false => flops::orthogonal_iteration(n),
        };
        matrix.orders().map(of).sum()
    }
}
