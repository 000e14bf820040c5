//! SPRING: steps against the solve by parameters in f64 for all kinds of rows, and what steps must not do.

use nalgebra::{DMatrix, DVector};

use crate::harness::least_squares::batch_of;
use crate::harness::{self, GpuTest, Outcome};
use crate::kfac::{near, wide};
use osculant::Error;
use osculant::data::{Batch, Targets};
use osculant::gpu::Gpu;
use osculant::nn::{Activation, DataShape, Loss, Model, Sequential, TargetShape};
use osculant::objective::{
    GraphObjective, Objective, Quantity, RowKind, SampleRequest, SampleSpace, Slot, Square,
    Statistics, StatisticsRequest,
};
use osculant::optim::{Optimizer, OptimizerState, Spring, SpringOptions};
use osculant::vector::Vector;

pub(crate) fn tests() -> Vec<GpuTest> {
    gpu_tests![
        steps_are_the_solve_by_parameters,
        the_unit_of_the_loss_does_not_matter,
        a_restored_state_goes_on_with_the_same_bits,
        a_failed_step_changes_nothing,
        what_has_no_rows_is_refused,
    ]
}

type Any = Box<dyn std::error::Error>;

const FEATURES: usize = 3;
const CLASSES: usize = 3;

pub(crate) fn model(loss: Loss) -> Model {
    let shape = DataShape {
        features: FEATURES,
        targets: match loss {
            Loss::SoftmaxCrossEntropy => TargetShape::Classes(CLASSES),
            _ => TargetShape::Values(CLASSES),
        },
    };
    let hidden = Sequential::new().dense(4).activation(Activation::Tanh);
    hidden.dense(CLASSES).model(shape, loss)
}

/// Rows of different weights, one of them padding.
pub(crate) fn batch(loss: Loss, rows: usize, seed: u64) -> Batch {
    let drawn = harness::least_squares::random_rows(rows, FEATURES + CLASSES, seed);
    let mut features = Vec::new();
    let mut values = Vec::new();
    for row in drawn.features.chunks(FEATURES + CLASSES) {
        features.extend_from_slice(&row[..FEATURES]);
        values.extend(row[FEATURES..].iter().map(|x| x.abs()));
    }
    let weights = (0..rows).map(|n| (n % 4) as f32 / rows as f32);
    Batch {
        features,
        targets: match loss {
            Loss::SoftmaxCrossEntropy => Targets::Classes {
                labels: (0..rows).map(|n| (n % CLASSES) as u32).collect(),
                classes: CLASSES,
            },
            _ => Targets::Values {
                values,
                width: CLASSES,
            },
        },
        weights: weights.collect(),
    }
}

/// The rows `A`, and the gradient without an `l2` term, by another program.
pub(crate) struct Dense {
    pub(crate) a: DMatrix<f64>,
    pub(crate) gradient: DVector<f64>,
    pub(crate) square: Square,
}

fn matrix(tensors: &[Vec<f32>], count: usize) -> DMatrix<f64> {
    let widths: Vec<usize> = tensors.iter().map(|t| t.len() / count).collect();
    let rows = (0..count).flat_map(|n| {
        let parts = tensors.iter().zip(&widths);
        parts.flat_map(move |(t, &w)| wide(&t[n * w..(n + 1) * w]))
    });
    DMatrix::from_row_iterator(count, widths.iter().sum(), rows.collect::<Vec<f64>>())
}

/// What the program that a step used has left, and what [`Statistics`] say of the same batch.
pub(crate) fn dense(
    objective: &mut GraphObjective,
    theta: &Vector,
    batch: &Batch,
    request: SampleRequest,
) -> Result<Dense, Any> {
    let gpu = objective.gpu().clone();
    let loaded = objective.load(Slot::default(), batch)?;
    let system = objective.sample_system(theta, &loaded, request)?;
    let rows = batch.len();
    let quantity = match request.kind {
        RowKind::RootLosses => Quantity::PerExampleGradients,
        _ => Quantity::GaussNewtonRoot,
    };
    let asked = StatisticsRequest::of(&[Quantity::Gradient, quantity]);
    let statistics = objective.statistics(theta, &loaded, asked)?;
    gpu.run([&system.linearize, &statistics.run])?;
    let read = |of: Quantity| -> Result<Vec<Vec<f32>>, Any> {
        Ok(statistics.get(of).ok_or("no statistics")?.read(&gpu)?)
    };
    let gradient = DVector::from_vec(wide(&read(Quantity::Gradient)?.concat()));
    let residuals = match &system.residuals {
        Some(slice) => wide(&gpu.read(&[slice])?.concat()),
        None => vec![0.0; system.count],
    };
    let residuals = DVector::from_vec(residuals);
    let tensors = read(quantity)?;
    let mut a = matrix(
        &tensors,
        rows * if quantity == Quantity::GaussNewtonRoot {
            CLASSES
        } else {
            1
        },
    );
    match request.kind {
        RowKind::RootLosses => {
            for (n, mut row) in a.row_iter_mut().enumerate() {
                row /= if residuals[n] > 0.0 {
                    residuals[n]
                } else {
                    1.0
                };
            }
        }
        RowKind::Exact => {}
        RowKind::Probe => {
            let signs = system.signs.as_ref().ok_or("no signs")?;
            let signs = wide(&signs.vectors()[0].read(&gpu)?.concat());
            let all = a.clone();
            a = DMatrix::from_fn(rows, all.ncols(), |n, p| {
                let column = |c: usize| signs[n * CLASSES + c] * all[(c * rows + n, p)];
                (0..CLASSES).map(column).sum()
            });
        }
    }
    Ok(Dense {
        a,
        gradient,
        square: system.square,
    })
}

fn flat(gpu: &Gpu, theta: &Vector) -> Result<DVector<f64>, Any> {
    Ok(DVector::from_vec(wide(&theta.read(gpu)?.concat())))
}

/// Three steps each, for all rows, with and without an `l2` term, on both sides: 31 parameters, of 6 to 40 examples.
fn steps_are_the_solve_by_parameters(gpu: &Gpu) -> Outcome {
    let cases = [
        (Loss::SoftmaxCrossEntropy, RowKind::RootLosses, 6),
        (Loss::SoftmaxCrossEntropy, RowKind::RootLosses, 40),
        (Loss::SoftmaxCrossEntropy, RowKind::Probe, 6),
        (Loss::SoftmaxCrossEntropy, RowKind::Probe, 40),
        (Loss::SoftmaxCrossEntropy, RowKind::Exact, 6),
        (Loss::MeanSquaredError, RowKind::Exact, 8),
        (Loss::MeanSquaredError, RowKind::Exact, 40),
    ];
    for (number, (loss, kind, rows)) in cases.into_iter().enumerate() {
        let l2 = [0.0, 0.3][number % 2];
        let mut objective = GraphObjective::new(gpu, model(loss))?.with_l2(l2)?;
        let theta = objective.initial_parameters(3)?;
        let options = SpringOptions::default()
            .with_rows(kind)
            .with_momentum(0.8)
            .with_seed(7);
        let (damping, length) = (options.damping, options.step_length);
        let mut spring = Spring::new(options)?;
        let mut last = DVector::zeros(theta.layout().parameters());
        for step in 0..3 {
            let what = format!("{loss:?}, {kind:?} of {rows}, step {step}");
            let batch = batch(loss, rows, step);
            let before = flat(gpu, &theta)?;
            let at = theta.read(gpu)?;
            let report = spring.step(&mut objective, &theta, &batch)?;
            let moved = &before - flat(gpu, &theta)?;
            // The rows at the point that the step came from.
            let after = theta.read(gpu)?;
            theta.write(gpu, &at)?;
            let request = SampleRequest {
                kind,
                ..SampleRequest::default()
            };
            let known = dense(&mut objective, &theta, &batch, request)?;
            theta.write(gpu, &after)?;
            let expected_side = match 31 < known.a.nrows() {
                true => Square::Normal,
                false => Square::Gram,
            };
            assert_eq!(known.square, expected_side, "{what}");
            let l2 = f64::from(l2);
            let normal = known.a.transpose() * &known.a;
            let lambda = damping * normal.trace() / known.a.nrows() as f64;
            let gradient = &known.gradient + l2 * &before;
            let shift = DMatrix::identity(normal.nrows(), normal.nrows()) * (lambda + l2);
            let right = &gradient + lambda * 0.8 * &last;
            last = (normal + shift).lu().solve(&right).ok_or("singular")?;
            let expected = length * &last;
            near(&what, moved.as_slice(), expected.as_slice(), 1e-4)?;
            let told = [
                report.step_norm,
                report.gradient_norm,
                report.damping.ok_or("none")?,
            ];
            let right = [expected.norm(), gradient.norm(), lambda];
            for (found, expected) in told.iter().zip(right) {
                near(&format!("{what}, report"), &[*found], &[expected], 1e-4)?;
            }
        }
    }
    Ok(())
}

/// A loss of 1000 times the size: the same steps.
fn the_unit_of_the_loss_does_not_matter(gpu: &Gpu) -> Outcome {
    let loss = Loss::SoftmaxCrossEntropy;
    let run = |unit: f32| -> Result<DVector<f64>, Any> {
        let mut objective = GraphObjective::new(gpu, model(loss))?;
        let theta = objective.initial_parameters(3)?;
        let mut spring = Spring::new(SpringOptions::default())?;
        for step in 0..3 {
            let mut batch = batch(loss, 8, step);
            batch.weights.iter_mut().for_each(|weight| *weight *= unit);
            spring.step(&mut objective, &theta, &batch)?;
        }
        flat(gpu, &theta)
    };
    let (one, thousand) = (run(1.0)?, run(1000.0)?);
    near("thousandfold", thousand.as_slice(), one.as_slice(), 1e-4)
}

fn bits(gpu: &Gpu, theta: &Vector) -> Result<Vec<u32>, Any> {
    let all = theta.read(gpu)?.concat();
    Ok(all.iter().map(|x| x.to_bits()).collect())
}

/// Parameters and state.
pub(crate) fn memory<M: Optimizer<GraphObjective>>(
    objective: &GraphObjective,
    method: &M,
    theta: &Vector,
) -> Result<(Vec<u32>, OptimizerState), Any> {
    Ok((bits(objective.gpu(), theta)?, method.state(objective)?))
}

/// Three steps, and three more of the method and of one that takes up its state, with equal bits.
pub(crate) fn goes_on<M: Optimizer<GraphObjective>>(
    gpu: &Gpu,
    new: impl Fn() -> Result<M, Error>,
    loss: Loss,
) -> Outcome {
    let mut objective = GraphObjective::new(gpu, model(loss))?;
    let theta = objective.initial_parameters(1)?;
    let mut method = new()?;
    for step in 0..3 {
        method.step(&mut objective, &theta, &batch(loss, 8, step))?;
    }
    let (state, saved) = (method.state(&objective)?, theta.read(gpu)?);
    let mut other = GraphObjective::new(gpu, model(loss))?;
    let at = other.initial_parameters(5)?;
    at.write(gpu, &saved)?;
    let mut again = new()?;
    again.restore(&other, &state)?;
    for step in 3..6 {
        method.step(&mut objective, &theta, &batch(loss, 8, step))?;
        again.step(&mut other, &at, &batch(loss, 8, step))?;
    }
    match memory(&objective, &method, &theta)? == memory(&other, &again, &at)? {
        true => Ok(()),
        false => Err("other bits after a state was restored".into()),
    }
}

fn a_restored_state_goes_on_with_the_same_bits(gpu: &Gpu) -> Outcome {
    for rows in [RowKind::RootLosses, RowKind::Probe] {
        let new = || Spring::new(SpringOptions::default().with_rows(rows));
        goes_on(gpu, new, Loss::SoftmaxCrossEntropy)?;
    }
    Ok(())
}

/// Each operation of a step fails in turn, on batches of `rows`; then the step has the bits of one that did not fail.
pub(crate) fn fails_unchanged<M: Optimizer<GraphObjective>>(
    gpu: &Gpu,
    new: impl Fn() -> Result<M, Error>,
    loss: Loss,
    rows: usize,
) -> Outcome {
    for steps in [0, 2] {
        let mut objective = GraphObjective::new(gpu, model(loss))?;
        let theta = objective.initial_parameters(1)?;
        let mut method = new()?.with_averaging(0.5)?;
        for step in 0..steps {
            method.step(&mut objective, &theta, &batch(loss, rows, step))?;
        }
        let before = memory(&objective, &method, &theta)?;
        let mut failures = 0;
        loop {
            gpu.fail_after(Some(failures));
            let result = method.step(&mut objective, &theta, &batch(loss, rows, 9));
            let reached = !gpu.fails_later();
            gpu.fail_after(None);
            if !reached {
                result?;
                break;
            }
            if result.is_ok() || memory(&objective, &method, &theta)? != before {
                return Err(format!("{steps} steps, operation {failures}: {result:?}").into());
            }
            failures += if harness::long() { 1 } else { 3 };
        }
        if failures < 5 {
            return Err(format!("only {failures} operations").into());
        }
        let mut other = GraphObjective::new(gpu, model(loss))?;
        let at = other.initial_parameters(1)?;
        let mut twin = new()?.with_averaging(0.5)?;
        for step in 0..steps {
            twin.step(&mut other, &at, &batch(loss, rows, step))?;
        }
        twin.step(&mut other, &at, &batch(loss, rows, 9))?;
        if memory(&objective, &method, &theta)? != memory(&other, &twin, &at)? {
            return Err(format!("other bits after failures at step {steps}").into());
        }
    }
    Ok(())
}

fn a_failed_step_changes_nothing(gpu: &Gpu) -> Outcome {
    let gpu = &harness::of_its_own(gpu)?;
    let new = || Spring::new(SpringOptions::default());
    // On both sides.
    fails_unchanged(gpu, new, Loss::SoftmaxCrossEntropy, 8)?;
    fails_unchanged(gpu, new, Loss::SoftmaxCrossEntropy, 40)?;
    let mut objective = GraphObjective::new(gpu, model(Loss::MeanSquaredError))?;
    let theta = objective.initial_parameters(1)?;
    let mut spring = new()?;
    let before = memory(&objective, &spring, &theta)?;
    let huge = Batch {
        targets: Targets::Values {
            values: vec![3e38; 3 * CLASSES],
            width: CLASSES,
        },
        ..batch_of(vec![1.0; 3 * FEATURES], vec![0.0; 3])
    };
    match spring.step(&mut objective, &theta, &huge) {
        Err(Error::NotFinite { .. }) => {}
        other => return Err(format!("{other:?}").into()),
    }
    match memory(&objective, &spring, &theta)? == before {
        true => Ok(()),
        false => Err("numbers that are not finite changed something".into()),
    }
}

fn what_has_no_rows_is_refused(gpu: &Gpu) -> Outcome {
    use osculant::nn::{Init, Output};
    let shape = DataShape {
        features: FEATURES,
        targets: TargetShape::Values(CLASSES),
    };
    let without_root = Model::new(shape, |scope| {
        let z = scope.dense("line", scope.features(), CLASSES, Init::Glorot);
        Output {
            losses: Loss::MeanSquaredError.apply(scope, z),
            outputs: z,
            metric: None,
        }
    });
    let mut objective = GraphObjective::new(gpu, without_root)?;
    let theta = objective.initial_parameters(1)?;
    let rows = batch(Loss::MeanSquaredError, 4, 1);
    let mut exact = Spring::new(SpringOptions::default().with_rows(RowKind::Exact))?;
    match exact.step(&mut objective, &theta, &rows) {
        Err(error @ Error::Unsupported { .. })
            if error.to_string().contains("Model::with_curvature_root") => {}
        other => return Err(format!("{other:?}").into()),
    }
    for (options, name) in [
        (SpringOptions::default().with_damping(0.0), "damping"),
        (
            SpringOptions::default().with_step_length(f64::NAN),
            "step_length",
        ),
        (SpringOptions::default().with_momentum(1.0), "momentum"),
        (SpringOptions::default().with_longest(0.0), "longest"),
    ] {
        match Spring::new(options) {
            Err(Error::Option { option, .. }) if option == name => {}
            other => return Err(format!("{name}: {other:?}").into()),
        }
    }
    Ok(())
}
