//! Derivatives with respect to inputs on the device: the residuals of an equation, with gradient and curvature products, against the twin.

use crate::harness::compare::Problem;
use crate::harness::{GpuTest, Outcome};
use osculant::gpu::Gpu;
use osculant::graph::Tensor;
use osculant::graph::tensor::Builder;

pub(crate) fn tests() -> Vec<GpuTest> {
    gpu_tests![
        equations_of_second_order_are_those_of_the_twin,
        third_derivatives_are_those_of_the_twin,
    ]
}

const ROWS: usize = 37;
/// A Hessian product of a second derivative is of fourth order: some dozen roundings of 6e-8 more than a product of a plain network has.
const TOLERANCE: f64 = 2e-5;

fn dense<'b>(b: &'b Builder, name: &str, x: Tensor<'b>, outputs: usize) -> Tensor<'b> {
    let inputs = x.shape()[1];
    x.dot(b.parameter(&format!("{name}.weight"), &[inputs, outputs]))
        + b.parameter(&format!("{name}.bias"), &[outputs])
}

/// The squares of the residuals that `equation` makes of `u` and the inputs, of a network with so many units in its hidden layers.
fn problem(
    hidden: &[usize],
    equation: impl for<'b> FnOnce(Tensor<'b>, Tensor<'b>) -> Tensor<'b>,
) -> osculant::Result<Problem> {
    Problem::new(|b| {
        let x = b.input("x", &[ROWS, 2]);
        let layers = hidden.iter().enumerate();
        let h = layers.fold(x, |h, (layer, &units)| {
            dense(b, &format!("hidden {layer}"), h, units).tanh()
        });
        let residual = equation(dense(b, "last", h, 1), x);
        let loss = residual.square().sum(&[0, 1]).reshape(&[]);
        (loss, Some(residual))
    })
}

/// Burgers' equation with a Laplacian.
fn equations_of_second_order_are_those_of_the_twin(gpu: &Gpu) -> Outcome {
    let burgers = problem(&[9, 6], |u, x| {
        u.derivative(x, &[1.0, 0.0]) + u * u.derivative(x, &[0.0, 1.0]) - u.laplacian(x) * 0.1
    })?;
    burgers.check(gpu, TOLERANCE)
}

/// The equation of Korteweg and de Vries.
fn third_derivatives_are_those_of_the_twin(gpu: &Gpu) -> Outcome {
    let kdv = problem(&[9], |u, x| {
        let third = u.derivatives(x, 3, &[(1.0, &[0.0, 1.0])]);
        u.derivative(x, &[1.0, 0.0]) + u * u.derivative(x, &[0.0, 1.0]) * 6.0 + third
    })?;
    kdv.check(gpu, TOLERANCE)
}
