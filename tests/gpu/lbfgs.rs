//! L-BFGS against the method in f64, and on a curved valley.

use nalgebra::{DMatrix, DVector};

use crate::harness::{GpuTest, Outcome};
use crate::kfac::{near, wide};
use osculant::Error;
use osculant::data::{Batch, Targets};
use osculant::gpu::Gpu;
use osculant::nn::{DataShape, Init, Model, Output, TargetShape};
use osculant::objective::GraphObjective;
use osculant::optim::{Lbfgs, LbfgsOptions, Optimizer};

pub(crate) fn tests() -> Vec<GpuTest> {
    gpu_tests![
        steps_are_those_of_the_method_in_f64,
        a_curved_valley_is_followed_to_its_end,
        options_out_of_range_are_refused,
    ]
}

/// One row without features.
fn nothing() -> Batch {
    Batch {
        features: Vec::new(),
        targets: Targets::Inputs,
        weights: vec![1.0],
    }
}

fn shape() -> DataShape {
    DataShape {
        features: 0,
        targets: TargetShape::Inputs,
    }
}

/// `x^T A x / 2 + b.x` from 0.
fn bowl(a: &DMatrix<f64>, b: &DVector<f64>) -> Model {
    let n = b.len();
    let narrow = |all: &[f64]| all.iter().map(|&x| x as f32).collect::<Vec<f32>>();
    let (a, b) = (narrow(a.as_slice()), narrow(b.as_slice()));
    Model::new(shape(), move |scope| {
        let x = scope.parameter("x", &[n, 1], Init::Constant(0.0));
        let a = scope.data(a.clone(), &[n, n]);
        let b = scope.data(b.clone(), &[n, 1]);
        Output {
            losses: (x * (a.dot(x) * 0.5 + b)).sum(&[0, 1]).reshape(&[1]),
            outputs: x,
            metric: None,
        }
    })
}

/// The inverse by its definition, from the last three pairs, with the lengths that the device found.
fn steps_are_those_of_the_method_in_f64(gpu: &Gpu) -> Outcome {
    let (n, history) = (12, 3);
    let draw = DMatrix::from_fn(n, n, |i, j| f64::from(((1 + i * (j + 2)) as f32).sin()));
    let a = &draw * draw.transpose() / n as f64 + DMatrix::identity(n, n) * 0.1;
    let a = (&a + a.transpose()) / 2.0;
    let b = DVector::from_fn(n, |i, _| f64::from((1.7 * i as f32).cos()));
    let mut objective = GraphObjective::new(gpu, bowl(&a, &b))?;
    let theta = objective.initial_parameters(0)?;
    let mut lbfgs = Lbfgs::new(LbfgsOptions::default().with_history(history))?;
    let mut x = DVector::<f64>::zeros(n);
    let mut pairs: Vec<[DVector<f64>; 2]> = Vec::new();
    for step in 0..9 {
        let report = lbfgs.step(&mut objective, &theta, &nothing())?;
        let length = report.step_length.ok_or("no step")?;
        let g = &a * &x + &b;
        let mut inverse = DMatrix::<f64>::identity(n, n);
        if let Some([s, y]) = pairs.last() {
            inverse *= s.dot(y) / y.dot(y);
        }
        for [s, y] in &pairs[pairs.len().saturating_sub(history)..] {
            let r = 1.0 / s.dot(y);
            let side = DMatrix::identity(n, n) - r * s * y.transpose();
            inverse = &side * inverse * side.transpose() + r * s * s.transpose();
        }
        let moved = -length * inverse * &g;
        let change = 0.5 * moved.dot(&(&a * &moved)) + g.dot(&moved);
        // Sufficient decrease and curvature, of a loss that falls.
        let slope = (g.dot(&moved), (&g + &a * &moved).dot(&moved));
        if change > 1e-4 * slope.0 || slope.1.abs() > 0.9 * slope.0.abs() {
            return Err(format!("step {step}: {change:e}, {slope:?}").into());
        }
        pairs.push([moved.clone(), &a * &moved]);
        x += moved;
        let found = wide(&theta.read(gpu)?.concat());
        near(&format!("step {step}"), &found, x.as_slice(), 2e-4)?;
        // What the device has goes on.
        x = DVector::from_vec(found);
    }
    Ok(())
}

/// The function of Rosenbrock in a chain of ten, from its usual start.
fn a_curved_valley_is_followed_to_its_end(gpu: &Gpu) -> Outcome {
    let n = 10;
    let model = Model::new(shape(), move |scope| {
        let x = scope.parameter("x", &[n], Init::Constant(0.0));
        let (first, next) = (x.slice(&[0], &[n - 1]), x.slice(&[1], &[n - 1]));
        let off = next - first * first;
        let end = first - 1.0;
        Output {
            losses: (off * off * 100.0 + end * end).sum(&[0]).reshape(&[1]),
            outputs: x,
            metric: None,
        }
    });
    let mut objective = GraphObjective::new(gpu, model)?;
    let theta = objective.initial_parameters(0)?;
    let start = (0..n).map(|i| [-1.2, 1.0][i % 2]).collect();
    theta.write(gpu, &[start])?;
    let mut lbfgs = Lbfgs::new(LbfgsOptions::default())?;
    let mut trials = 0.0;
    for step in 0..200 {
        let report = lbfgs.step(&mut objective, &theta, &nothing())?;
        trials += report.work;
        if report.loss_before < 1e-10 {
            // A gradient and little more than one trial each.
            return match trials < 2.5 * f64::from(step + 1) {
                true => Ok(()),
                false => Err(format!("{trials} gradients in {step} steps").into()),
            };
        }
    }
    let at = theta.read(gpu)?;
    Err(format!("not at the end after 200 steps and {trials} gradients: {at:?}").into())
}

fn options_out_of_range_are_refused(_: &Gpu) -> Outcome {
    let base = LbfgsOptions::default;
    for options in [
        base().with_history(0),
        base().with_armijo(0.95),
        base().with_armijo(0.3).with_wolfe(0.2),
        base().with_first(0.0),
    ] {
        match Lbfgs::new(options) {
            Err(Error::Option { .. }) => {}
            other => return Err(format!("{other:?}").into()),
        }
    }
    Ok(())
}
