//! Any weights from 0 on mean what the documentation says: the loss is `sum_n w_n loss_n + l2/2 |theta|^2`, in values, gradients, products,
//! groups and parts.

use crate::harness::{GpuTest, Outcome};
use crate::reference::{
    Reference, batch_for, compare, draw, narrow, on_device, relative_error, vector,
};
use osculant::data::{Batch, Targets};
use osculant::gpu::Gpu;
use osculant::nn::{Activation, DataShape, Loss, Model, Sequential, TargetShape};
use osculant::objective::{
    Curvature, Curved, GraphObjective, GroupRequest, Parts, QuadraticRequest, Slot,
};

pub(crate) fn tests() -> Vec<GpuTest> {
    gpu_tests![
        quadratics_are_weighted_sums,
        groups_stand_for_the_batch,
        slope_variances_are_those_of_weighted_sums,
        sums_of_weights_that_are_no_numbers_are_refused,
    ]
}

const ROWS: usize = 12;
const L2: f32 = 0.1;
/// Rounding errors of sums of some ten terms in f32, with room for cancellation in gradients.
const TOLERANCE: f64 = 2e-5;

fn model() -> Model {
    let shape = DataShape {
        features: 3,
        targets: TargetShape::Values(2),
    };
    Sequential::new()
        .dense(4)
        .activation(Activation::Tanh)
        .dense(2)
        .model(shape, Loss::MeanSquaredError)
}

/// Weights that sum to 1, to the number of rows, to something else, and tiny and large ones; with zeros anywhere.
fn weights() -> Vec<Vec<f32>> {
    let uneven: Vec<f32> = (0..ROWS).map(|n| ((7 * n) % 5) as f32 * 0.3).collect();
    let scaled = |factor: f32| uneven.iter().map(|w| factor * w).collect();
    vec![
        vec![1.0 / ROWS as f32; ROWS],
        vec![1.0; ROWS],
        uneven.clone(),
        scaled(1e-6),
        scaled(1e4),
    ]
}

fn batches() -> Vec<Batch> {
    let with = |weights| Batch {
        weights,
        ..batch_for(&model(), ROWS, 3)
    };
    weights().into_iter().map(with).collect()
}

fn quadratics_are_weighted_sums(gpu: &Gpu) -> Outcome {
    let (theta, v) = (draw(&model(), 1)?, draw(&model(), 2)?);
    for batch in batches() {
        let expected = Reference::new(&model(), &batch, L2)?.answers(&theta, &v)?;
        let mut objective = GraphObjective::new(gpu, model())?.with_l2(L2)?;
        let at = vector(gpu, &objective, &theta)?;
        let found = on_device(&mut objective, &at, &batch, &v, true)?;
        compare(
            &format!("{:?}", batch.weights),
            &found,
            &expected,
            TOLERANCE,
        )?;
    }
    Ok(())
}

/// A group's rows with weights that sum to those of the batch.
fn group(batch: &Batch, count: usize, at: usize) -> Batch {
    let rows = ROWS / count;
    let (start, end) = (at * rows, (at + 1) * rows);
    let own: f64 = batch.weights[start..end]
        .iter()
        .map(|&w| f64::from(w))
        .sum();
    let all: f64 = batch.weights.iter().map(|&w| f64::from(w)).sum();
    let Targets::Values { values, width } = &batch.targets else {
        return batch.clone();
    };
    let scaled = |&w: &f32| (f64::from(w) * all / own) as f32;
    Batch {
        features: batch.features[3 * start..3 * end].to_vec(),
        targets: Targets::Values {
            values: values[width * start..width * end].to_vec(),
            width: *width,
        },
        weights: batch.weights[start..end].iter().map(scaled).collect(),
    }
}

fn groups_stand_for_the_batch(gpu: &Gpu) -> Outcome {
    let (theta, v) = (draw(&model(), 1)?, draw(&model(), 2)?);
    let mut objective = GraphObjective::new(gpu, model())?.with_l2(L2)?;
    let at = vector(gpu, &objective, &theta)?;
    for batch in batches() {
        let whole = Reference::new(&model(), &batch, L2)?.answers(&theta, &v)?;
        for count in [1, 2, 3] {
            for curvature in [Curvature::Hessian, Curvature::GaussNewton] {
                let request = GroupRequest {
                    curvature,
                    slope_variance: false,
                    losses: true,
                };
                let loaded = objective.load_groups(Slot::default(), &batch, count)?;
                let grouped = objective.grouped(&at, &loaded, request)?;
                grouped.direction.write(gpu, &narrow(&v))?;
                gpu.run([&grouped.linearize, &grouped.multiply])?;
                let check = |what: &str, found: &[f64], expected: &[f64]| {
                    let error = relative_error(found, expected);
                    if error.is_nan() || error > TOLERANCE {
                        let weights = &batch.weights;
                        return Err(format!("{what}: {error:.1e}, {count} groups, {weights:?}"));
                    }
                    Ok(())
                };
                let flat = |tensors: Vec<Vec<f32>>| -> Vec<f64> {
                    tensors.concat().into_iter().map(f64::from).collect()
                };
                let value = f64::from(gpu.read(&[&grouped.value])?[0][0]);
                check("value", &[value], &[whole.value])?;
                check(
                    "gradient",
                    &flat(grouped.gradient.read(gpu)?),
                    &whole.gradient,
                )?;
                // The loss that judges steps is the same function.
                let judge = grouped.losses.as_ref().ok_or("no losses")?;
                gpu.run([&judge.at_base])?;
                let judged = f64::from(gpu.read(&[&judge.results])?[0][0]);
                check("loss", &[judged], &[whole.value])?;
                for (place, own) in grouped.groups.iter().enumerate() {
                    let examples = group(&batch, count, place);
                    let expected = Reference::new(&model(), &examples, L2)?.answers(&theta, &v)?;
                    check(
                        "group gradient",
                        &flat(own.gradient.read(gpu)?),
                        &expected.gradient,
                    )?;
                    let product = match curvature {
                        Curvature::Hessian => &expected.hessian,
                        _ => &expected.gauss_newton,
                    };
                    check("group product", &flat(own.product.read(gpu)?), product)?;
                }
            }
        }
    }
    Ok(())
}

fn slope_variances_are_those_of_weighted_sums(gpu: &Gpu) -> Outcome {
    let (theta, v) = (draw(&model(), 1)?, draw(&model(), 2)?);
    let mut objective = GraphObjective::new(gpu, model())?.with_l2(L2)?;
    let at = vector(gpu, &objective, &theta)?;
    for batch in batches() {
        let request = GroupRequest {
            curvature: Curvature::GaussNewton,
            slope_variance: true,
            losses: false,
        };
        let loaded = objective.load_groups(Slot::default(), &batch, 2)?;
        let grouped = objective.grouped(&at, &loaded, request)?;
        grouped.direction.write(gpu, &narrow(&v))?;
        gpu.run([&grouped.linearize, &grouped.multiply])?;
        for (place, own) in grouped.groups.iter().enumerate() {
            let examples = group(&batch, 2, place);
            let total: f64 = examples.weights.iter().map(|&w| f64::from(w)).sum();
            let mut slopes = Vec::new();
            for row in 0..examples.len() {
                let mut only = examples.clone();
                only.weights = vec![0.0; examples.len()];
                only.weights[row] = 1.0;
                let gradient = Reference::new(&model(), &only, 0.0)?.gradient(&theta)?;
                let terms = gradient.iter().zip(v.concat());
                slopes.push(terms.map(|(g, v)| g * v).sum::<f64>());
            }
            let weighted = || {
                slopes
                    .iter()
                    .zip(&examples.weights)
                    .map(|(s, &w)| (s, f64::from(w)))
            };
            let mean = weighted().map(|(s, w)| w * s).sum::<f64>() / total;
            let squares: f64 = weighted().map(|(_, w)| (w / total).powi(2)).sum();
            let spread: f64 = weighted().map(|(s, w)| (w * (s - mean)).powi(2)).sum();
            let expected = spread / (1.0 - squares);
            let slice = own.slope_variance.as_ref().ok_or("no variance")?;
            let found = f64::from(gpu.read(&[slice])?[0][0]);
            let error = (found / expected - 1.0).abs();
            // Squares of differences of slopes, each to some 1e-6 of the largest.
            if error.is_nan() || error > 1e-3 {
                return Err(
                    format!("{found:e} in place of {expected:e}: {:?}", batch.weights).into(),
                );
            }
        }
    }
    Ok(())
}

fn sums_of_weights_that_are_no_numbers_are_refused(gpu: &Gpu) -> Outcome {
    let mut objective = GraphObjective::new(gpu, model())?;
    let theta = objective.initial_parameters(1)?;
    for bad in [3e38, 1e-42] {
        let batch = Batch {
            weights: vec![bad; ROWS],
            ..batch_for(&model(), ROWS, 3)
        };
        match objective.load_quadratic(Slot::default(), &theta, &batch, QuadraticRequest::default())
        {
            Err(osculant::Error::Data { message, .. }) if message.contains("add up to") => {}
            other => return Err(format!("weights of {bad}: {:?}", other.map(|_| ())).into()),
        }
    }
    Ok(())
}
