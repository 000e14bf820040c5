//! K-FAC: programs with Kronecker factors against the f64 twin, steps against the formula in f64, and what steps must not do.

use nalgebra::{DMatrix, DVector};

use crate::harness::least_squares::{batch_of, random_rows, values_of};
use crate::harness::{self, GpuTest, Outcome};
use osculant::Error;
use osculant::data::{Batch, Targets, digits};
use osculant::gpu::Gpu;
use osculant::nn::{Activation, DataShape, Init, Loss, Model, Output, Sequential, TargetShape};
use osculant::objective::{GraphObjective, KroneckerRequest, Layered, Objective, Slot};
use osculant::optim::{Kfac, KfacOptions, Optimizer, OptimizerState, Stateful};
use osculant::random::Philox;
use osculant::vector::Vector;
use rand::RngExt;

pub(crate) fn tests() -> Vec<GpuTest> {
    gpu_tests![
        factors_do_not_depend_on_padding_or_weights_of_the_sum,
        steps_are_the_formula,
        the_unit_of_the_loss_does_not_matter,
        it_trains_without_a_learning_rate,
        a_batch_that_the_averages_do_not_know_moves_no_more_than_others,
        a_restored_state_goes_on_with_the_same_bits,
        a_failed_step_changes_nothing,
        numbers_that_are_not_finite_change_nothing,
        what_has_no_factors_is_refused,
    ]
}

type Any = Box<dyn std::error::Error>;

const FEATURES: usize = 3;
const HIDDEN: usize = 2;

fn regression() -> Model {
    let shape = DataShape {
        features: FEATURES,
        targets: TargetShape::Values(1),
    };
    Sequential::new()
        .dense(HIDDEN)
        .activation(Activation::Tanh)
        .dense(1)
        .model(shape, Loss::MeanSquaredError)
}

fn weighted(rows: usize, seed: u64) -> Batch {
    let mut batch = random_rows(rows, FEATURES, seed);
    for (n, weight) in batch.weights.iter_mut().enumerate() {
        *weight = (1 + n % 3) as f32 / 8.0;
    }
    batch
}

pub(crate) fn near(what: &str, found: &[f64], expected: &[f64], tolerance: f64) -> Outcome {
    let scale = expected
        .iter()
        .fold(1e-30, |most: f64, x| most.max(x.abs()));
    let error = found
        .iter()
        .zip(expected)
        .map(|(a, b)| (a - b).abs() / scale);
    let error = error.fold(0.0, f64::max);
    if found.len() == expected.len() && error <= tolerance {
        return Ok(());
    }
    Err(format!("{what}: off by {error:.2e}\n{found:?}\n{expected:?}").into())
}

pub(crate) fn wide(x: &[f32]) -> Vec<f64> {
    x.iter().map(|&x| f64::from(x)).collect()
}

/// Weight, inputs and cotangents of an example.
type Row = (f64, [DVector<f64>; 2], [DVector<f64>; 2]);

/// Step, weight but for its age, factors, and slope and curvature of a refresh.
type Refresh = (i32, f64, Vec<DMatrix<f64>>, [f64; 2]);

/// What the network of [`regression`] has on a batch, in f64: with one output the sign of a probe makes no difference.
struct Hand {
    loss: f64,
    /// Of both layers, the bias as a last row.
    gradients: [DMatrix<f64>; 2],
    factors: [[DMatrix<f64>; 2]; 2],
    /// Of each row: inputs with a 1 and the slope of the output in what the layer gives.
    rows: Vec<Row>,
}

impl Hand {
    fn new(theta: &[Vec<f64>], batch: &Batch) -> Self {
        let [w0, b0, w1, b1] = theta else {
            unreachable!("two layers")
        };
        let total: f64 = wide(&batch.weights).iter().sum();
        let zeros = |r: usize, c: usize| DMatrix::zeros(r, c);
        let mut hand = Self {
            loss: 0.0,
            gradients: [zeros(FEATURES + 1, HIDDEN), zeros(HIDDEN + 1, 1)],
            factors: [
                [zeros(FEATURES + 1, FEATURES + 1), zeros(HIDDEN, HIDDEN)],
                [zeros(HIDDEN + 1, HIDDEN + 1), zeros(1, 1)],
            ],
            rows: Vec::new(),
        };
        for (n, target) in wide(&values_of(batch)).into_iter().enumerate() {
            let weight = f64::from(batch.weights[n]);
            let mut x = wide(&batch.features[n * FEATURES..(n + 1) * FEATURES]);
            let mut h: Vec<f64> = (0..HIDDEN)
                .map(|j| {
                    let sum: f64 = (0..FEATURES).map(|i| x[i] * w0[i * HIDDEN + j]).sum();
                    (b0[j] + sum).tanh()
                })
                .collect();
            let z: f64 = b1[0] + (0..HIDDEN).map(|j| h[j] * w1[j]).sum::<f64>();
            let slope: Vec<f64> = (0..HIDDEN).map(|j| (1.0 - h[j] * h[j]) * w1[j]).collect();
            x.push(1.0);
            h.push(1.0);
            let (x, h) = (DVector::from_vec(x), DVector::from_vec(h));
            let (slope, one) = (DVector::from_vec(slope), DVector::from_vec(vec![1.0]));
            let off = z - target;
            hand.loss += weight * off * off;
            hand.gradients[0] += 2.0 * weight * off * &x * slope.transpose();
            hand.gradients[1] += 2.0 * weight * off * &h * one.transpose();
            let share = weight / total;
            // The Hessian of (z - t)^2 is 2, and its root the root of 2.
            for (factors, [a, b]) in hand.factors.iter_mut().zip([[&x, &slope], [&h, &one]]) {
                factors[0] += share * a * a.transpose();
                factors[1] += share * 2.0 * b * b.transpose();
            }
            hand.rows.push((weight, [x, h], [slope, one]));
        }
        hand
    }

    /// `D^T C D`.
    fn curvature(&self, direction: &[DMatrix<f64>; 2]) -> f64 {
        let of = |(weight, inputs, slopes): &(f64, [DVector<f64>; 2], [DVector<f64>; 2])| {
            let moved = |l: usize| (inputs[l].transpose() * &direction[l] * &slopes[l])[(0, 0)];
            2.0 * weight * (moved(0) + moved(1)).powi(2)
        };
        self.rows.iter().map(of).sum()
    }
}

fn damped_inverse(factor: &DMatrix<f64>, damping: f64) -> Result<DMatrix<f64>, Any> {
    let n = factor.nrows();
    let shift = damping.sqrt() * factor.trace() / n as f64;
    let damped = factor + DMatrix::identity(n, n) * shift;
    Ok(damped.try_inverse().ok_or("a singular factor")?)
}

fn tensors(matrices: &[DMatrix<f64>; 2]) -> Vec<f64> {
    // Row after row, the bias last: as the parameters lie.
    matrices
        .iter()
        .flat_map(|m| m.transpose().iter().copied().collect::<Vec<_>>())
        .collect()
}

fn factors_do_not_depend_on_padding_or_weights_of_the_sum(gpu: &Gpu) -> Outcome {
    let gpu = &harness::of_its_own(gpu)?;
    let mut objective = GraphObjective::new(gpu, regression())?;
    let theta = objective.initial_parameters(3)?;
    let request = KroneckerRequest::default();
    let structure = objective.structure(request)?;
    let pairs = structure.layers.iter().map(|layer| {
        let bias = layer.bias.map(|bias| bias.parameter);
        (layer.weight, bias)
    });
    if pairs.ne([(0, Some(1)), (2, Some(3))]) {
        return Err(format!("{structure:?}").into());
    }
    let inverses = Vector::new(gpu, "inverses", &structure.functions)?;
    let identity: Vec<Vec<f32>> = structure
        .functions
        .entries()
        .iter()
        .map(|e| {
            (0..e.elements())
                .map(|i| f32::from(u8::from(i % (e.shape[0] + 1) == 0)))
                .collect()
        })
        .collect();
    inverses.write(gpu, &identity)?;
    let batch = weighted(9, 1);
    let hand = Hand::new(
        &theta.read(gpu)?.iter().map(|t| wide(t)).collect::<Vec<_>>(),
        &batch,
    );
    let scaled = Batch {
        weights: batch.weights.iter().map(|w| 4.0 * w).collect(),
        ..batch.clone()
    };
    for (what, batch, factor) in [
        ("as it is", batch.clone(), 1.0),
        ("padded", batch.clone().pad_to(16)?, 1.0),
        ("of larger weights", scaled, 4.0),
    ] {
        let loaded = objective.load(Slot::default(), &batch)?;
        let layers = objective.kronecker([&theta, &inverses], &loaded, request)?;
        layers.signs.write(gpu, &[vec![vec![1.0; batch.len()]]])?;
        gpu.run([&layers.linearize, &layers.refresh, &layers.measure])?;
        let found = layers.factors.read(gpu)?;
        let expected: Vec<&DMatrix<f64>> = hand.factors.iter().flatten().collect();
        for (at, (found, expected)) in found.iter().zip(expected).enumerate() {
            near(
                &format!("factor {at} {what}"),
                &wide(found),
                expected.as_slice(),
                1e-6,
            )?;
        }
        // With identities as inverses the direction is the gradient.
        let direction = layers.direction.read(gpu)?;
        near(
            "direction",
            &wide(&direction.concat()),
            &wide(&layers.gradient.read(gpu)?.concat()),
            0.0,
        )?;
        let gradient: Vec<f64> = tensors(&hand.gradients)
            .iter()
            .map(|g| factor * g)
            .collect();
        near(
            &format!("gradient {what}"),
            &wide(&direction.concat()),
            &gradient,
            1e-5,
        )?;
        let curvature = f64::from(gpu.read(&[&layers.curvature])?[0][0]);
        let expected = factor.powi(3) * hand.curvature(&hand.gradients);
        near(
            &format!("curvature {what}"),
            &[curvature],
            &[expected],
            1e-5,
        )?;
    }
    Ok(())
}

fn steps_are_the_formula(gpu: &Gpu) -> Outcome {
    let gpu = &harness::of_its_own(gpu)?;
    let options = KfacOptions::default()
        .with_damping(0.25)
        .with_step_length(0.3)
        .with_stretch(1.3)
        .with_momentum(0.8)
        .with_memory(0.7)
        .with_interval(2)
        .with_largest(100.0);
    let mut objective = GraphObjective::new(gpu, regression())?;
    let theta = objective.initial_parameters(3)?;
    let mut kfac = Kfac::new(options.clone())?;
    let mut momentum = vec![0.0; 11];
    let mut inverses = None;
    let mut seen: Vec<Refresh> = Vec::new();
    let mut last_slope = None;
    for step in 0..10 {
        let batch = weighted(10, 40 + step);
        let before: Vec<Vec<f64>> = theta.read(gpu)?.iter().map(|t| wide(t)).collect();
        let hand = Hand::new(&before, &batch);
        let report = kfac.step(&mut objective, &theta, &batch)?;
        let now = step as i32;
        let refreshes = [0, 1, 2, 3, 4, 6, 8].contains(&now);
        if refreshes {
            let since = seen.last().map_or(1, |(before, ..)| now - before);
            let factors = hand.factors.iter().flatten().cloned().collect();
            seen.push((now, 1.0 - 0.7f64.powi(since), factors, [0.0; 2]));
        }
        let newest = seen.last().ok_or("no refresh")?.0;
        let weights: Vec<f64> = seen
            .iter()
            .map(|(at, w, ..)| w * 0.7f64.powi(newest - at))
            .collect();
        let all: f64 = weights.iter().sum();
        let weights: Vec<f64> = weights.iter().map(|w| w / all).collect();
        let average = |factor: usize| -> DMatrix<f64> {
            seen.iter()
                .zip(&weights)
                .map(|(seen, &weight)| &seen.2[factor] * weight)
                .sum()
        };
        let inverted = (0..4).map(|factor| damped_inverse(&average(factor), options.damping));
        let inverted: Result<Vec<DMatrix<f64>>, Any> = inverted.collect();
        let inverted = inverted?;
        if step == 0 {
            inverses = Some(inverted.clone());
        }
        let [a0, b0, a1, b1] = &inverses.as_ref().ok_or("no inverses")?[..] else {
            return Err("four factors".into());
        };
        let direction = [a0 * &hand.gradients[0] * b0, a1 * &hand.gradients[1] * b1];
        let along: f64 = direction
            .iter()
            .zip(&hand.gradients)
            .map(|(d, g)| d.dot(g))
            .sum();
        let before_step = last_slope;
        if refreshes {
            seen.last_mut().ok_or("no refresh")?.3 = [along, hand.curvature(&direction)];
        }
        let [slope, curvature] = [0, 1].map(|which| -> f64 {
            seen.iter()
                .zip(&weights)
                .map(|(seen, weight)| weight * seen.3[which])
                .sum()
        });
        let length = 0.3 * slope / curvature;
        // To the average of before this step.
        let scale = (before_step.unwrap_or(slope) / along).sqrt().min(1.3);
        last_slope = Some(slope);
        let direction = tensors(&direction);
        let mut expected = before.concat();
        for ((x, m), d) in expected.iter_mut().zip(&mut momentum).zip(&direction) {
            *m = 0.8 * *m + scale * d;
            *x -= length * *m;
        }
        let moved: f64 = momentum
            .iter()
            .map(|m| (length * m).powi(2))
            .sum::<f64>()
            .sqrt();
        let what = |name: &str| format!("{name} of step {step}");
        near(&what("loss"), &[report.loss_before], &[hand.loss], 1e-5)?;
        near(
            &what("length"),
            &[report.step_length.ok_or("no length")?],
            &[length],
            3e-5,
        )?;
        near(&what("norm"), &[report.step_norm], &[moved], 3e-5)?;
        near(
            &what("parameters"),
            &wide(&theta.read(gpu)?.concat()),
            &expected,
            3e-5,
        )?;
        let waits = if step == 0 { 2 } else { 1 };
        if report.readbacks != waits {
            return Err(format!("{} readbacks in step {step}", report.readbacks).into());
        }
        if refreshes {
            // Those of this step serve from the next one on.
            inverses = Some(inverted);
        }
    }
    Ok(())
}

pub(crate) fn classifier() -> Model {
    let shape = DataShape {
        features: 6,
        targets: TargetShape::Classes(4),
    };
    Sequential::new()
        .dense(5)
        .activation(Activation::Tanh)
        .dense(4)
        .model(shape, Loss::SoftmaxCrossEntropy)
}

pub(crate) fn labelled(rows: usize, seed: u64) -> Batch {
    let mut random = Philox::new(seed, 1 << 42);
    let features: Vec<f32> = (0..6 * rows)
        .map(|_| random.random_range(-1.0..1.0))
        .collect();
    let label = |row: &[f32]| u32::from(row[0] > 0.0) + 2 * u32::from(row[1] > 0.2);
    Batch {
        targets: Targets::Classes {
            labels: features.chunks(6).map(label).collect(),
            classes: 4,
        },
        features,
        weights: vec![1.0 / rows as f32; rows],
    }
}

/// With sketches, which these networks are too small for otherwise.
fn often() -> KfacOptions {
    KfacOptions::default().with_interval(2).with_largest(0.33)
}

fn bits(gpu: &Gpu, theta: &Vector) -> Result<Vec<u32>, Any> {
    Ok(theta
        .read(gpu)?
        .concat()
        .iter()
        .map(|x| x.to_bits())
        .collect())
}

/// A loss of 8 times the size is a gradient of 8 times the size, and the same step.
fn the_unit_of_the_loss_does_not_matter(gpu: &Gpu) -> Outcome {
    let mut found = Vec::new();
    for unit in [1.0, 8.0, 1.0 / 1_048_576.0] {
        let mut objective = GraphObjective::new(gpu, classifier())?;
        let theta = objective.initial_parameters(1)?;
        let mut kfac = Kfac::new(often())?;
        for step in 0..6 {
            let mut batch = labelled(16, step);
            batch.weights.iter_mut().for_each(|w| *w *= unit);
            kfac.step(&mut objective, &theta, &batch)?;
        }
        found.push(bits(gpu, &theta)?);
    }
    if found[0] != found[1] || found[0] != found[2] {
        return Err("other bits for another unit of the loss".into());
    }
    Ok(())
}

fn it_trains_without_a_learning_rate(gpu: &Gpu) -> Outcome {
    let (train, _) = digits()?.split(0.2, 0)?;
    let model = Sequential::new()
        .dense(32)
        .activation(Activation::Tanh)
        .dense(10)
        .model(&train, Loss::SoftmaxCrossEntropy);
    let mut objective = GraphObjective::new(gpu, model)?;
    let theta = objective.initial_parameters(0)?;
    let mut kfac = Kfac::new(KfacOptions::default())?;
    let mut epochs = osculant::data::Epochs::new(train.len(), 64, 0)?;
    let mut work = 0.0;
    while work < 2.0 * train.len() as f64 {
        let batch = train.batch(epochs.next_batch())?.pad_to(64)?;
        work += kfac.step(&mut objective, &theta, &batch)?.work_flops;
    }
    let loss = objective.evaluate(&theta, &train)?.loss;
    // numpy had 0.1 after 2.1 epochs of work.
    if loss < 0.2 {
        Ok(())
    } else {
        Err(format!("a loss of {loss} after two epochs of work").into())
    }
}

/// After fifty batches that are nearly fitted come others, with all labels wrong: the slope is that much larger, and the step is not.
fn a_batch_that_the_averages_do_not_know_moves_no_more_than_others(gpu: &Gpu) -> Outcome {
    let mut objective = GraphObjective::new(gpu, classifier())?;
    let theta = objective.initial_parameters(1)?;
    let mut kfac = Kfac::new(often())?;
    let mut usual = 0.0f64;
    for step in 0..50 {
        let report = kfac.step(&mut objective, &theta, &labelled(16, step % 4))?;
        if step >= 40 {
            usual = usual.max(report.step_norm);
        }
    }
    let mut wrong = labelled(16, 1);
    let Targets::Classes { labels, .. } = &mut wrong.targets else {
        return Err("no classes".into());
    };
    labels
        .iter_mut()
        .for_each(|label| *label = (*label + 1) % 4);
    let report = kfac.step(&mut objective, &theta, &wrong)?;
    let often = report.step_norm / usual;
    if report.loss_before > 1.0 && often < 10.0 {
        Ok(())
    } else {
        Err(format!("a step {often} times as long, {report:?}").into())
    }
}

fn memory(
    objective: &GraphObjective,
    kfac: &Kfac,
    theta: &Vector,
) -> Result<(Vec<u32>, OptimizerState), Any> {
    Ok((bits(objective.gpu(), theta)?, kfac.state(objective)?))
}

fn a_restored_state_goes_on_with_the_same_bits(gpu: &Gpu) -> Outcome {
    let mut objective = GraphObjective::new(gpu, classifier())?;
    let theta = objective.initial_parameters(1)?;
    let mut kfac = Kfac::new(often())?;
    for step in 0..3 {
        kfac.step(&mut objective, &theta, &labelled(16, step))?;
    }
    let state = kfac.state(&objective)?;
    let saved = theta.read(gpu)?;
    for step in 3..6 {
        kfac.step(&mut objective, &theta, &labelled(16, step))?;
    }
    let mut other = GraphObjective::new(gpu, classifier())?;
    let at = other.initial_parameters(5)?;
    at.write(gpu, &saved)?;
    let mut again = Kfac::new(often())?;
    again.restore(&other, &state)?;
    for step in 3..6 {
        again.step(&mut other, &at, &labelled(16, step))?;
    }
    if memory(&objective, &kfac, &theta)? != memory(&other, &again, &at)? {
        return Err("other bits after a state was restored".into());
    }
    // Another structure of factors is not this one.
    let mut diagonal = Kfac::new(often().with_largest(1.0))?;
    match diagonal.restore(&other, &state) {
        Err(Error::Length { .. }) => Ok(()),
        other => Err(format!("a state of other factors: {other:?}").into()),
    }
}

fn a_failed_step_changes_nothing(gpu: &Gpu) -> Outcome {
    let gpu = &harness::of_its_own(gpu)?;
    // Before any step, and at steps of which everything is due and nothing is.
    for steps in [0, 4, 5] {
        let mut objective = GraphObjective::new(gpu, classifier())?;
        let theta = objective.initial_parameters(1)?;
        let mut kfac = Kfac::new(often())?.with_averaging(0.5)?;
        for step in 0..steps {
            kfac.step(&mut objective, &theta, &labelled(16, step))?;
        }
        let before = memory(&objective, &kfac, &theta)?;
        let mut failures = 0;
        loop {
            gpu.fail_after(Some(failures));
            let result = kfac.step(&mut objective, &theta, &labelled(24, 9));
            let reached = !gpu.fails_later();
            gpu.fail_after(None);
            if !reached {
                result?;
                break;
            }
            if result.is_ok() || memory(&objective, &kfac, &theta)? != before {
                return Err(
                    format!("after {steps} steps: operation {failures}: {result:?}").into(),
                );
            }
            failures += if harness::long() { 1 } else { 3 };
        }
        if failures < 5 {
            return Err(format!("only {failures} operations").into());
        }
        let mut other = GraphObjective::new(gpu, classifier())?;
        let at = other.initial_parameters(1)?;
        let mut twin = Kfac::new(often())?.with_averaging(0.5)?;
        for step in 0..steps {
            twin.step(&mut other, &at, &labelled(16, step))?;
        }
        twin.step(&mut other, &at, &labelled(24, 9))?;
        if memory(&objective, &kfac, &theta)? != memory(&other, &twin, &at)? {
            return Err(format!("other bits after failures at step {steps}").into());
        }
    }
    Ok(())
}

fn numbers_that_are_not_finite_change_nothing(gpu: &Gpu) -> Outcome {
    let mut objective = GraphObjective::new(gpu, regression())?;
    let theta = objective.initial_parameters(1)?;
    let mut kfac = Kfac::new(often())?;
    for step in 0..2 {
        let before = memory(&objective, &kfac, &theta)?;
        let huge = batch_of(vec![1.0; 3 * FEATURES], vec![3e38; 3]);
        match kfac.step(&mut objective, &theta, &huge) {
            Err(Error::NotFinite { .. }) => {}
            other => return Err(format!("step {step}: {other:?}").into()),
        }
        if memory(&objective, &kfac, &theta)? != before {
            return Err(format!("step {step} changed something").into());
        }
        kfac.step(&mut objective, &theta, &weighted(8, step))?;
    }
    Ok(())
}

fn what_has_no_factors_is_refused(gpu: &Gpu) -> Outcome {
    let refused = |model: Model, batch: &Batch, says: &str| -> Outcome {
        let mut objective = GraphObjective::new(gpu, model)?;
        let theta = objective.initial_parameters(1)?;
        let before = bits(gpu, &theta)?;
        let mut kfac = Kfac::new(KfacOptions::default())?;
        match kfac.step(&mut objective, &theta, batch) {
            Err(error @ Error::Unsupported { .. }) if error.to_string().contains(says) => {}
            other => return Err(format!("expected '{says}': {other:?}").into()),
        }
        if bits(gpu, &theta)? == before {
            Ok(())
        } else {
            Err("a refused step moved".into())
        }
    };
    let shape = DataShape {
        features: FEATURES,
        targets: TargetShape::Values(1),
    };
    let without_root = Model::new(shape, |scope| {
        let z = scope.dense("line", scope.features(), 1, Init::Glorot);
        let losses = Loss::MeanSquaredError.apply(scope, z);
        let (outputs, metric) = (z, None);
        Output {
            losses,
            outputs,
            metric,
        }
    });
    refused(without_root, &weighted(4, 1), "Model::with_curvature_root")?;
    refused(regression(), &weighted(1, 1), "at least two rows")?;
    for (options, name) in [
        (KfacOptions::default().with_damping(0.0), "damping"),
        (
            KfacOptions::default().with_step_length(f64::NAN),
            "step_length",
        ),
        (KfacOptions::default().with_momentum(1.0), "momentum"),
        (KfacOptions::default().with_memory(1.0), "memory"),
        (KfacOptions::default().with_interval(0), "interval"),
        (KfacOptions::default().with_largest(-1.0), "largest"),
        (KfacOptions::default().with_rank(2.0), "rank"),
    ] {
        match Kfac::new(options) {
            Err(Error::Option { option, .. }) if option == name => {}
            other => return Err(format!("{name}: {other:?}").into()),
        }
    }
    Ok(())
}
