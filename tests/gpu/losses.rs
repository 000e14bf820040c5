//! Losses of confident, fitted, offset and confidently wrong outputs: loss, slope and curvature of one example against formulas in f64 that
//! are not the losses' own, and metrics of outputs that are equal or not finite.

use crate::harness::compare::{Input, OnDevice, Problem};
use crate::harness::{GpuTest, Outcome};
use osculant::data::{Dataset, Targets};
use osculant::gpu::Gpu;
use osculant::nn::{DataShape, Init, Loss, Model, Output, Sequential, TargetShape};
use osculant::objective::GraphObjective;

/// Relative error of loss and slope, and of curvature beside the largest entry of the example's Hessian.
const TOLERANCE: f64 = 1e-5;

pub(crate) fn tests() -> Vec<GpuTest> {
    gpu_tests![
        softmax_cross_entropy_keeps_its_digits,
        binary_cross_entropy_keeps_its_digits,
        poisson_deviance_keeps_its_digits,
        accuracy_counts_the_first_of_the_largest_and_nothing_that_is_not_finite,
        relative_errors_of_empty_targets_are_errors,
    ]
}

/// What an example has: its loss, slopes, and Hessian row by row.
struct Expected {
    loss: f64,
    slope: Vec<f64>,
    hessian: Vec<Vec<f64>>,
    /// Absolute errors of loss and slope that are due to the rounding of what they are made from.
    rounding: [f64; 2],
}

/// Losses, slopes and Hessians of outputs `z` `[rows, width]` that are parameters.
fn check(gpu: &Gpu, loss: Loss, z: &[Vec<f32>], targets: Input, expected: &[Expected]) -> Outcome {
    let (rows, width) = (z.len(), z[0].len());
    let shape = DataShape {
        features: 0,
        targets: match targets {
            Input::Indices(_) => TargetShape::Classes(width),
            Input::Floats(_) => TargetShape::Values(width),
        },
    };
    let model = Model::new(shape, move |scope| {
        let z = scope.parameter("z", &[rows, width], Init::Constant(0.0));
        Output {
            losses: loss.apply(scope, z),
            outputs: z,
            metric: None,
        }
    });
    let traced = model.trace(rows)?;
    let mut graph = traced.graph;
    let total = graph.sum(traced.losses, &[0])?;
    let mut problem = Problem::of_graph(graph, total, Some(traced.outputs))?;
    problem.parameters = vec![z.concat()];
    problem.inputs = vec![targets];
    let wanted = [
        traced.losses,
        problem.gradient[0],
        problem.hessian[0],
        problem.gauss_newton[0],
    ];
    let device = OnDevice::new(gpu, &problem, &wanted)?;
    for column in 0..width {
        let direction: Vec<f32> = (0..rows * width)
            .map(|i| if i % width == column { 1.0 } else { 0.0 })
            .collect();
        let found = device.run(gpu, std::slice::from_ref(&direction), true)?;
        let twin = problem.evaluate(&[direction], &wanted)?;
        let found: Vec<Vec<f64>> = found
            .iter()
            .map(|v| v.iter().map(|&x| f64::from(x)).collect())
            .collect();
        for (who, found) in [("device", &found), ("twin", &twin)] {
            for (row, e) in expected.iter().enumerate() {
                let near = |what: &str, found: f64, expected: f64, allowed: f64| -> Outcome {
                    let error = (found - expected).abs();
                    // Devices may take subnormal numbers for zeros.
                    if error.is_nan() || error > allowed + 2.0 * f64::from(f32::MIN_POSITIVE) {
                        let z = &z[row];
                        return Err(format!("{who}, {loss:?} of {z:?} (row {row}): {what} is {found:e}, expected {expected:e}").into());
                    }
                    Ok(())
                };
                near(
                    "loss",
                    found[0][row],
                    e.loss,
                    TOLERANCE * e.loss + e.rounding[0],
                )?;
                let largest = e
                    .hessian
                    .iter()
                    .flatten()
                    .fold(0.0, |m: f64, h| m.max(h.abs()));
                for c in 0..width {
                    let at = row * width + c;
                    near(
                        "slope",
                        found[1][at],
                        e.slope[c],
                        TOLERANCE * e.slope[c].abs() + e.rounding[1],
                    )?;
                    for products in &found[2..4] {
                        near(
                            "curvature",
                            products[at],
                            e.hessian[column][c],
                            TOLERANCE * largest,
                        )?;
                    }
                }
            }
        }
    }
    Ok(())
}

fn softmax(z: &[f32], label: usize) -> Expected {
    let z: Vec<f64> = z.iter().map(|&z| f64::from(z)).collect();
    let top = z.iter().copied().fold(f64::NEG_INFINITY, f64::max);
    let m = z.iter().position(|&z| z == top).unwrap_or(0);
    let e: Vec<f64> = z.iter().map(|z| (z - top).exp()).collect();
    let without = |c: usize| -> f64 {
        let others = e.iter().enumerate().filter(|&(d, _)| d != c);
        others.map(|(_, e)| e).sum()
    };
    let sum = 1.0 + without(m);
    let hessian = |j: usize, k: usize| match j == k {
        true => e[j] / sum * without(j) / sum,
        false => -e[j] / sum * e[k] / sum,
    };
    Expected {
        loss: without(m).ln_1p() - (z[label] - top),
        slope: (0..z.len())
            .map(|c| {
                if c == label {
                    -without(c) / sum
                } else {
                    e[c] / sum
                }
            })
            .collect(),
        hessian: (0..z.len())
            .map(|j| (0..z.len()).map(|k| hessian(j, k)).collect())
            .collect(),
        rounding: [0.0; 2],
    }
}

fn softmax_cross_entropy_keeps_its_digits(gpu: &Gpu) -> Outcome {
    for width in [2usize, 3, 8, 100] {
        let mut z = Vec::new();
        let mut labels = Vec::new();
        for gap in [0.0f32, 1e-3, 0.25, 1.0, 5.0, 12.0, 40.0, 60.0, 300.0] {
            for common in [0.0f32, 100.0, -1e4, 1e6] {
                // The gap as these numbers hold it; the others differ, or two are the largest.
                for (top, other) in [(0, 1), (1, 0)] {
                    let mut row: Vec<f32> = (0..width).map(|c| common - 0.25 * c as f32).collect();
                    row[top] = common + gap;
                    row[other] = common;
                    // Right, wrong, and neither of the first two.
                    for label in [0, 1, width - 1] {
                        z.push(row.clone());
                        labels.push(label as u32);
                    }
                }
            }
        }
        let expected: Vec<Expected> = z
            .iter()
            .zip(&labels)
            .map(|(z, &label)| softmax(z, label as usize))
            .collect();
        check(
            gpu,
            Loss::SoftmaxCrossEntropy,
            &z,
            Input::Indices(labels),
            &expected,
        )?;
    }
    Ok(())
}

fn binary_cross_entropy_keeps_its_digits(gpu: &Gpu) -> Outcome {
    let logits = [0.0f32, 1e-3, 0.5, 3.9, 8.0, 17.0, 40.0, 80.0, 1e6];
    let mut z = Vec::new();
    let mut targets = Vec::new();
    let mut expected = Vec::new();
    for z_of in logits.iter().flat_map(|&z| [z, -z]) {
        for t in [0.0f32, 1.0, 0.25] {
            let (x, p) = (f64::from(z_of), f64::from(t));
            let logistic = |x: f64| 1.0 / (1.0 + (-x).exp());
            let softplus = |x: f64| x.max(0.0) + (-x.abs()).exp().ln_1p();
            z.push(vec![z_of]);
            targets.push(t);
            expected.push(Expected {
                loss: p * softplus(-x) + (1.0 - p) * softplus(x),
                slope: vec![(1.0 - p) * logistic(x) - p * logistic(-x)],
                hessian: vec![vec![logistic(x) * logistic(-x)]],
                rounding: [0.0; 2],
            });
        }
    }
    check(
        gpu,
        Loss::BinaryCrossEntropy,
        &z,
        Input::Floats(targets),
        &expected,
    )
}

fn poisson_deviance_keeps_its_digits(gpu: &Gpu) -> Outcome {
    let mut z = Vec::new();
    let mut targets = Vec::new();
    let mut expected = Vec::new();
    for t in [0.0f32, 1.0, 2.0, 7.0, 1000.0, 1e6] {
        let fitted = if t > 0.0 { t.ln() } else { -3.0 };
        for z_of in [
            fitted,
            fitted + 1e-3,
            fitted - 1e-3,
            fitted + 0.1,
            fitted + 3.0,
            -40.0,
            -1e6,
        ] {
            let (x, n) = (f64::from(z_of), f64::from(t));
            let u = x - n.ln();
            // What a rounding of log t, or a driver's logarithm, makes of it.
            let error = if t > 0.0 { 5e-7 * (1.0 + n.ln()) } else { 0.0 };
            let (loss, slope) = if t > 0.0 {
                (n * osculant::graph::Unary::Expm1mx.apply(u), n * u.exp_m1())
            } else {
                (x.exp(), x.exp())
            };
            z.push(vec![z_of]);
            targets.push(t);
            expected.push(Expected {
                loss,
                slope: vec![slope],
                hessian: vec![vec![x.exp()]],
                rounding: [slope.abs() * error + n * error * error, x.exp() * error],
            });
        }
    }
    check(gpu, Loss::Poisson, &z, Input::Floats(targets), &expected)
}

fn accuracy_counts_the_first_of_the_largest_and_nothing_that_is_not_finite(gpu: &Gpu) -> Outcome {
    let labels = vec![0, 1, 2, 0, 1, 2];
    let data = Dataset::new(
        "six",
        vec![1.0; 6],
        1,
        Targets::Classes { labels, classes: 3 },
    )?;
    let third = 1.0 / 3.0;
    let cases: [([f32; 3], f64, bool); 7] = [
        ([0.0; 3], third, true),
        ([0.0, 5.0, 5.0], third, true),
        ([-1.0, -2.0, 4.0], third, true),
        ([f32::NAN; 3], 0.0, false),
        ([0.0, f32::NAN, 1.0], 0.0, false),
        ([f32::INFINITY, 0.0, 1.0], 0.0, false),
        ([f32::NEG_INFINITY, 0.0, 1.0], 0.0, false),
    ];
    let model = Sequential::new()
        .dense(3)
        .model(&data, Loss::SoftmaxCrossEntropy);
    let mut objective = GraphObjective::new(gpu, model)?;
    let theta = objective.initial_parameters(1)?;
    for (bias, accuracy, finite) in cases {
        theta.write(gpu, &[vec![0.0; 3], bias.to_vec()])?;
        let found = objective.evaluate(&theta, &data)?;
        let metric = found.metric.ok_or("no metric")?;
        if (metric - accuracy).abs() > 1e-6 || found.loss.is_finite() != finite {
            return Err(
                format!("outputs {bias:?}: {found:?}, expected accuracy {accuracy}").into(),
            );
        }
    }
    // Of three equal classes the first is the prediction, not another.
    let first = Dataset::new(
        "first",
        vec![1.0],
        1,
        Targets::Classes {
            labels: vec![1],
            classes: 3,
        },
    )?;
    theta.write(gpu, &[vec![0.0; 3], vec![0.0, 5.0, 5.0]])?;
    let found = objective.evaluate(&theta, &first)?.metric;
    let second = Dataset::new(
        "second",
        vec![1.0],
        1,
        Targets::Classes {
            labels: vec![2],
            classes: 3,
        },
    )?;
    let other = objective.evaluate(&theta, &second)?.metric;
    if (found, other) != (Some(1.0), Some(0.0)) {
        return Err(format!("ties: {found:?} and {other:?}").into());
    }
    Ok(())
}

fn relative_errors_of_empty_targets_are_errors(gpu: &Gpu) -> Outcome {
    let data = Dataset::new(
        "two",
        vec![1.0, 1.0],
        1,
        Targets::Values {
            values: vec![0.0, 0.0, 3.0, 4.0],
            width: 2,
        },
    )?;
    let model = Sequential::new()
        .dense(2)
        .model(&data, Loss::MeanSquaredError);
    let mut objective = GraphObjective::new(gpu, model)?;
    let theta = objective.initial_parameters(1)?;
    theta.write(gpu, &[vec![0.0; 2], vec![1.0, 2.0]])?;
    let found = objective
        .evaluate(&theta, &data)?
        .metric
        .ok_or("no metric")?;
    // |(1, 2)|^2 = 5, and |(1, 2) - (3, 4)|^2 / 25 = 8 / 25.
    let expected = 0.5 * (5.0 + 8.0 / 25.0);
    if (found - expected).abs() > 1e-6 {
        return Err(format!("metric {found}, expected {expected}").into());
    }
    Ok(())
}
