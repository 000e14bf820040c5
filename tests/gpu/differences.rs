//! Changes of a loss by differences of its graph, beside the f64 twin.

use crate::harness::cases;
use crate::harness::compare::OnDevice;
use crate::harness::{GpuTest, Outcome};
use crate::reference::{Reference, draw, narrow, wide_all};
use osculant::Result;
use osculant::data::{Batch, Role, digits};
use osculant::gpu::Gpu;
use osculant::graph::difference::{Move, difference};
use osculant::nn::{Activation, Loss, Model, Sequential};
use osculant::objective::{
    Curvature, GradientRequest, GraphObjective, GroupRequest, Loaded, Losses, Objective, Parts,
    Slot,
};
use osculant::optim::{NewtonCg, NewtonCgOptions, Optimizer};
use osculant::vector::Vector;

pub(crate) fn tests() -> Vec<GpuTest> {
    gpu_tests![
        changes_of_the_loss_keep_their_digits,
        differences_keep_their_digits,
        a_step_of_no_length_changes_no_bit,
    ]
}

/// A network on a thousand digits, somewhat trained, and a direction downhill.
fn trained(gpu: &Gpu) -> Result<(GraphObjective, Model, Vector, Batch)> {
    let data = digits()?;
    let model = Sequential::new()
        .dense(24)
        .activation(Activation::Tanh)
        .dense(10)
        .model(&data, Loss::SoftmaxCrossEntropy);
    let mut objective = GraphObjective::new(gpu, model.clone())?.with_l2(1e-4)?;
    let theta = objective.initial_parameters(3)?;
    let batch = data.batch(&(0..1024).collect::<Vec<_>>())?;
    let mut method = NewtonCg::new(NewtonCgOptions::default())?;
    for _ in 0..6 {
        method.step(&mut objective, &theta, &batch)?;
    }
    Ok((objective, model, theta, batch))
}

/// What the losses of all cases gain along steps down to a millionth, beside the twin.
fn differences_keep_their_digits(gpu: &Gpu) -> Outcome {
    for case in cases::ALL {
        let mut problem = (case.problem)()?;
        let moves: Vec<Move> = problem
            .graph
            .parameters()
            .iter()
            .zip(&problem.directions)
            .map(|(leaf, &to)| Move {
                node: leaf.node,
                to,
            })
            .collect();
        let Some(gain) = difference(&mut problem.graph, &[problem.loss], &moves)?[0] else {
            continue;
        };
        let slopes = problem.gradient.clone();
        let device = OnDevice::new(gpu, &problem, &[gain])?;
        let v = problem.direction(1);
        let gradient = problem.evaluate(&v, &slopes)?.concat();
        let norm = |x: &[f64]| x.iter().map(|x| x * x).sum::<f64>().sqrt();
        for size in [3.0f32, 0.5, 1e-2, 1e-4, 1e-6] {
            let to: Vec<Vec<f32>> = problem
                .parameters
                .iter()
                .zip(&v)
                .map(|(x, v)| x.iter().zip(v).map(|(x, v)| x + size * v).collect())
                .collect();
            let found = f64::from(device.run(gpu, &to, true)?[0][0]);
            let expected = problem.evaluate(&to, &[gain])?[0][0];
            let moved: Vec<f64> = problem
                .parameters
                .concat()
                .iter()
                .zip(to.concat())
                .map(|(x, y)| f64::from(y) - f64::from(*x))
                .collect();
            // Logarithms and roots of negative numbers.
            if expected.is_nan() && found.is_nan() {
                continue;
            }
            let scale = expected.abs().max(0.1 * norm(&gradient) * norm(&moved));
            let error = (found - expected).abs() / scale;
            if error.is_nan() || error > 1e-5 {
                let name = case.name;
                return Err(
                    format!("{name}, {size}: {found:e}, not {expected:e}, {error:.1e}").into(),
                );
            }
        }
    }
    Ok(())
}

/// Losses around `theta`, from where they have begun: of a batch as a whole by its gradient, of groups by their quadratics.
fn begin(objective: &mut GraphObjective, theta: &Vector, loaded: &Loaded) -> Result<Losses> {
    let (run, losses) = if loaded.groups > 1 {
        let request = GroupRequest {
            curvature: Curvature::GaussNewton,
            slope_variance: false,
            losses: true,
        };
        let program = objective.grouped(theta, loaded, request)?;
        (program.linearize.clone(), program.losses.clone())
    } else {
        let request = GradientRequest { losses: true };
        let program = objective.gradient(theta, loaded, request)?;
        (program.run.clone(), program.losses.clone())
    };
    let losses = losses.expect("asked for");
    objective.gpu().run([&run, &losses.at_base])?;
    Ok(losses)
}

/// Changes of the loss along a step, from a tenth of the loss to a billionth, beside those of the f64 twin at the same rounded points.
fn changes_of_the_loss_keep_their_digits(gpu: &Gpu) -> Outcome {
    let (mut objective, model, theta, batch) = trained(gpu)?;
    let from = theta.read(gpu)?;
    let reference = Reference::new(&model, &batch, 1e-4)?;
    let base = reference.value(&wide_all(&from))?;
    let direction = narrow(&draw(&model, 5)?);
    let groups = objective.load_groups(Slot::new(Role::Steps, 0), &batch, 4)?;
    let whole = objective.load(Slot::default(), &batch)?;
    let figures = std::env::var_os("OSCULANT_TEST_FIGURES").is_some();
    let mut seen = 0;
    let mut worst = 0.0f64;
    for loaded in [whole, groups] {
        let losses = begin(&mut objective, &theta, &loaded)?;
        let at_base = gpu.read(&[&losses.results])?;
        if at_base[0][1] != 0.0 {
            return Err(format!("a change of {} at the base", at_base[0][1]).into());
        }
        for power in 1..=9 {
            for sign in [1.0f32, -1.0] {
                let length = sign * 10f32.powi(-power);
                let point: Vec<Vec<f32>> = from
                    .iter()
                    .zip(&direction)
                    .map(|(x, v)| x.iter().zip(v).map(|(x, v)| x + length * v).collect())
                    .collect();
                losses.point.write(gpu, &point)?;
                gpu.run([&losses.at_point])?;
                let found = f64::from(gpu.read(&[&losses.results])?[0][1]);
                let expected = reference.value(&wide_all(&point))? - base;
                let error = (found - expected).abs() / base;
                if figures {
                    let of_change = (found - expected).abs() / expected.abs();
                    eprintln!("{:.2e} {error:.2e} {of_change:.2e}", expected / base);
                }
                // The bar, and far below it: some ulps of the change.
                let allowed = 3e-8_f64.min(1e-5 * expected.abs() / base + 1e-12);
                worst = worst.max(error);
                if error.is_nan() || error > allowed {
                    return Err(format!("{found} beside {expected} of {base}: {error:.1e}").into());
                }
                if expected.abs() > 1e-7 * base {
                    seen += 1;
                    if found.signum() != expected.signum() {
                        return Err(format!("{found} beside {expected}: the sign").into());
                    }
                }
            }
        }
    }
    if seen < 16 {
        return Err(format!("only {seen} changes above 1e-7").into());
    }
    if figures {
        eprintln!("changes: worst error {worst:.2e} of the loss");
    }
    Ok(())
}

/// `f(theta + 0 d)` has the bits of `f(theta)`: for whole batches, groups and parts.
fn a_step_of_no_length_changes_no_bit(gpu: &Gpu) -> Outcome {
    let (mut objective, _, theta, batch) = trained(gpu)?;
    let part = objective.part(&batch, &[3..300, 500..611])?;
    let padded = part.clone().pad_to(512)?;
    let loaded = [
        objective.load(Slot::default(), &batch)?,
        objective.load(Slot::new(Role::Steps, 0), &part)?,
        objective.load(Slot::new(Role::Steps, 1), &padded)?,
        objective.load_groups(Slot::new(Role::Acceptance, 0), &batch, 8)?,
    ];
    for loaded in loaded {
        let losses = begin(&mut objective, &theta, &loaded)?;
        let base = gpu.read(&[&losses.results])?;
        losses.point.write(gpu, &theta.read(gpu)?)?;
        gpu.run([&losses.at_point])?;
        let point = gpu.read(&[&losses.results])?;
        if base != point || base[0][1] != 0.0 {
            return Err(format!("{base:?} and {point:?}").into());
        }
    }
    Ok(())
}
