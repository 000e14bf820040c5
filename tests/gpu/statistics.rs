//! Quantities of examples on the device: against their definitions in f64, eigenpairs and diagonals against products, and what has none.

use std::sync::Arc;

use crate::harness::{self, GpuTest, Outcome};
use crate::reference::examples::Examples;
use crate::reference::{
    Reference, Tensors, batch_for, draw, relative_error, vector, wide, wide_all,
};
use osculant::Error;
use osculant::data::Batch;
use osculant::gpu::Gpu;
use osculant::nn::{Activation, DataShape, Init, Loss, Model, Output, Sequential, TargetShape};
use osculant::objective::{
    Curvature, Curved, GraphObjective, Objective, QuadraticRequest, Quantity, Slot, Statistics,
    StatisticsRequest, hessian_diagonal,
};

pub(crate) fn tests() -> Vec<GpuTest> {
    gpu_tests![
        every_quantity_is_that_of_its_definition,
        a_weight_that_is_used_twice_has_the_quantities_of_both_uses,
        one_example_is_a_batch,
        padding_changes_no_sum,
        signs_follow_their_seed,
        programs_serve_the_batches_that_follow,
        eigenpairs_are_those_of_the_gauss_newton_matrix,
        the_diagonal_of_the_hessian_is_that_of_its_products,
        what_has_no_rows_is_refused,
    ]
}

/// Errors on a device, in f32, relative in norm.
const DEVICE: f64 = 1e-5;
const OUTPUTS: usize = 3;

fn shape_of(loss: Loss, features: usize) -> DataShape {
    let targets = match loss {
        Loss::SoftmaxCrossEntropy => TargetShape::Classes(OUTPUTS),
        _ => TargetShape::Values(OUTPUTS),
    };
    DataShape { features, targets }
}

fn network(activation: Activation, loss: Loss) -> Model {
    let layers = Sequential::new().dense(7).activation(activation).dense(6);
    let layers = layers.activation(activation).dense(OUTPUTS);
    layers.model(shape_of(loss, 5), loss)
}

/// An autoencoder whose second weight is the first one, transposed.
fn tied() -> Model {
    let loss = Loss::MeanSquaredError;
    Model::new(shape_of(loss, OUTPUTS), move |scope| {
        let w = scope.parameter("w", &[OUTPUTS, 2], Init::Glorot);
        let b = scope.parameter("b", &[2], Init::Constant(0.0));
        let c = scope.parameter("c", &[OUTPUTS], Init::Constant(0.0));
        let h = (scope.features().dot(w) + b).tanh();
        let z = h.dot(w.permute(&[1, 0])) + c;
        let losses = loss.apply(scope, z);
        Output {
            losses,
            outputs: z,
            metric: None,
        }
    })
    .with_curvature_root(move |scope, z, signs| loss.curvature_root(scope, z, signs))
}

/// Weights that are not alike, one of them that of padding, and whose sum is not 1.
fn weighted(model: &Model, rows: usize, seed: u64) -> Batch {
    let mut batch = batch_for(model, rows, seed);
    for (n, weight) in batch.weights.iter_mut().enumerate() {
        *weight = if rows > 1 { (n % 4) as f32 / 8.0 } else { 0.5 };
    }
    batch
}

fn near(what: &str, found: &[f64], expected: &[f64]) -> Outcome {
    let error = relative_error(found, expected);
    if error <= DEVICE {
        return Ok(());
    }
    let start = |v: &[f64]| format!("{:?}", &v[..v.len().min(6)]);
    Err(format!(
        "{what}: off by {error:.2e}\n{}\n{}",
        start(found),
        start(expected)
    )
    .into())
}

/// Computes quantities on the device, and compares them with their definitions.
fn compare(gpu: &Gpu, what: &str, model: &Model, batch: &Batch, all: &[Quantity]) -> Outcome {
    let mut objective = GraphObjective::new(gpu, model.clone())?;
    let values = draw(model, 3)?;
    let theta = vector(gpu, &objective, &values)?;
    let loaded = objective.load(Slot::default(), batch)?;
    let statistics = objective.statistics(&theta, &loaded, StatisticsRequest::of(all))?;
    statistics.seed(gpu, 7, 1)?;
    gpu.run([&statistics.run])?;
    let signs = match &statistics.signs {
        Some(signs) => wide(&signs.vectors()[0].read(gpu)?.concat()),
        None => vec![1.0; batch.len() * OUTPUTS],
    };
    if signs.iter().any(|sign| sign.abs() != 1.0) {
        return Err(format!("{what}: these are no signs: {signs:?}").into());
    }
    let expected = Examples::new(model, batch, &values, &signs)?;
    let value = Reference::new(model, batch, 0.0)?.value(&values)?;
    near(what, &wide(&gpu.read(&[&statistics.value])?[0]), &[value])?;
    assert_eq!(statistics.results.len(), all.len());
    for (quantity, found) in &statistics.results {
        let expected = expected.quantity(*quantity);
        let entries = found.layout().entries();
        assert_eq!(entries.len(), expected.len(), "{what}, {quantity:?}");
        for ((entry, found), expected) in entries.iter().zip(found.read(gpu)?).zip(&expected) {
            let what = format!("{what}, {} of {}", quantity.name(), entry.name);
            near(&what, &wide(&found), expected)?;
        }
    }
    Ok(())
}

/// All at once, which share a program, and some by themselves; for all losses, and activations with and without a second derivative.
fn every_quantity_is_that_of_its_definition(gpu: &Gpu) -> Outcome {
    for loss in Loss::ALL {
        let model = network(Activation::Tanh, loss);
        let batch = weighted(&model, 9, 1);
        compare(gpu, &format!("{loss:?}"), &model, &batch, &Quantity::ALL)?;
    }
    let model = network(Activation::Relu, Loss::SoftmaxCrossEntropy);
    let batch = weighted(&model, 9, 1);
    for quantity in [
        Quantity::Variance,
        Quantity::GaussNewtonDiagonal,
        Quantity::KroneckerFactors,
    ] {
        compare(gpu, "alone", &model, &batch, &[quantity])?;
    }
    Ok(())
}

fn a_weight_that_is_used_twice_has_the_quantities_of_both_uses(gpu: &Gpu) -> Outcome {
    let model = tied();
    let factors = |q: &Quantity| q.name().ends_with("factors");
    let all: Vec<Quantity> = Quantity::ALL.into_iter().filter(|q| !factors(q)).collect();
    compare(gpu, "tied", &model, &weighted(&model, 6, 2), &all)
}

fn one_example_is_a_batch(gpu: &Gpu) -> Outcome {
    let model = network(Activation::Tanh, Loss::SoftmaxCrossEntropy);
    let factors = |q: &Quantity| q.name().ends_with("factors");
    let all: Vec<Quantity> = Quantity::ALL.into_iter().filter(|q| !factors(q)).collect();
    let batch = weighted(&model, 1, 2);
    // A variance of nothing is nothing: f32 leaves the rounding of a mean of one, relative to which no error can be.
    let all: Vec<Quantity> = all
        .into_iter()
        .filter(|&q| q != Quantity::Variance)
        .collect();
    compare(gpu, "one example", &model, &batch, &all)?;
    let mut objective = GraphObjective::new(gpu, model)?;
    let theta = objective.initial_parameters(1)?;
    let loaded = objective.load(Slot::default(), &batch)?;
    let request = StatisticsRequest::of(&[Quantity::Variance, Quantity::SecondMoment]);
    let statistics = objective.statistics(&theta, &loaded, request)?;
    gpu.run([&statistics.run])?;
    let read = |quantity| -> Result<Vec<f32>, Error> {
        let vector = statistics.get(quantity).ok_or(Error::Option {
            option: "quantity".into(),
            message: "was asked for".into(),
        })?;
        Ok(vector.read(gpu)?.concat())
    };
    let (variance, moment) = (read(Quantity::Variance)?, read(Quantity::SecondMoment)?);
    let all = variance.iter().zip(&moment);
    match all
        .into_iter()
        .find(|(v, m)| **v > 1e-10 * **m || **v < 0.0)
    {
        None => Ok(()),
        Some(found) => Err(format!("variance and moment of one: {found:?}").into()),
    }
}

fn padding_changes_no_sum(gpu: &Gpu) -> Outcome {
    let model = network(Activation::Tanh, Loss::Poisson);
    let sums = [
        Quantity::Gradient,
        Quantity::SquareSum,
        Quantity::SecondMoment,
        Quantity::Variance,
        Quantity::GaussNewtonDiagonal,
        Quantity::KroneckerFactors,
        Quantity::EmpiricalKroneckerFactors,
    ];
    let mut objective = GraphObjective::new(gpu, model.clone())?;
    let theta = objective.initial_parameters(2)?;
    let batch = weighted(&model, 6, 5);
    let mut read = |batch: &Batch| -> Result<Vec<Vec<f64>>, Error> {
        let loaded = objective.load(Slot::default(), batch)?;
        let statistics = objective.statistics(&theta, &loaded, StatisticsRequest::of(&sums))?;
        gpu.run([&statistics.run])?;
        let results = statistics.results.iter();
        results
            .map(|(_, vector)| Ok(wide(&vector.read(gpu)?.concat())))
            .collect()
    };
    let (plain, padded) = (read(&batch)?, read(&batch.clone().pad_to(8)?)?);
    for ((quantity, plain), padded) in sums.iter().zip(&plain).zip(&padded) {
        near(quantity.name(), padded, plain)?;
    }
    Ok(())
}

fn signs_follow_their_seed(gpu: &Gpu) -> Outcome {
    let model = network(Activation::Tanh, Loss::SoftmaxCrossEntropy);
    let mut objective = GraphObjective::new(gpu, model.clone())?;
    let theta = objective.initial_parameters(2)?;
    let loaded = objective.load(Slot::default(), &weighted(&model, 64, 5))?;
    let request = StatisticsRequest::of(&[Quantity::SampledGaussNewtonDiagonal]);
    let statistics = objective.statistics(&theta, &loaded, request)?;
    let signs = statistics.signs.clone().ok_or("no signs")?;
    let mut drawn = Vec::new();
    for (seed, number) in [(1, 0), (1, 0), (1, 1), (2, 0)] {
        statistics.seed(gpu, seed, number)?;
        gpu.run([&statistics.run])?;
        drawn.push(signs.vectors()[0].read(gpu)?.concat());
    }
    let mean = drawn[0].iter().sum::<f32>() / drawn[0].len() as f32;
    let alike = drawn[0] == drawn[1];
    if alike && drawn[0] != drawn[2] && drawn[0] != drawn[3] && mean.abs() < 0.25 {
        return Ok(());
    }
    Err(format!("mean {mean}, same seed alike: {alike}").into())
}

/// The same program, of which nobody need ask twice, computes with the batch that is in its slot.
fn programs_serve_the_batches_that_follow(gpu: &Gpu) -> Outcome {
    let model = network(Activation::Tanh, Loss::SoftmaxCrossEntropy);
    let mut objective = GraphObjective::new(gpu, model.clone())?;
    let values = draw(&model, 4)?;
    let theta = vector(gpu, &objective, &values)?;
    let request = StatisticsRequest::of(&[Quantity::Variance]);
    let mut programs = Vec::new();
    for seed in [1, 2] {
        let batch = weighted(&model, 5, seed);
        let loaded = objective.load(Slot::default(), &batch)?;
        let statistics = objective.statistics(&theta, &loaded, request)?;
        gpu.run([&statistics.run])?;
        let found = statistics.results[0].1.read(gpu)?.concat();
        let expected = Examples::new(&model, &batch, &values, &[1.0; 5 * OUTPUTS])?;
        near(
            "variance",
            &wide(&found),
            &expected.quantity(Quantity::Variance).concat(),
        )?;
        let cost = statistics.cost;
        if cost.gradient == 0 || cost.run <= cost.gradient / 2 || cost.bytes == 0 {
            return Err(format!("{cost:?}").into());
        }
        programs.push(statistics);
    }
    if Arc::ptr_eq(&programs[0], &programs[1]) {
        return Ok(());
    }
    Err("a program was made twice".into())
}

/// `C v = l v` with products on the device, for all eigenvalues of which the trace consists.
fn eigenpairs_are_those_of_the_gauss_newton_matrix(gpu: &Gpu) -> Outcome {
    for model in [network(Activation::Tanh, Loss::SoftmaxCrossEntropy), tied()] {
        let mut objective = GraphObjective::new(gpu, model.clone())?;
        let theta = vector(gpu, &objective, &draw(&model, 4)?)?;
        let loaded = objective.load(Slot::default(), &weighted(&model, 7, 1))?;
        let request = [Quantity::GaussNewtonGram, Quantity::GaussNewtonDiagonal];
        let statistics = objective.statistics(&theta, &loaded, StatisticsRequest::of(&request))?;
        gpu.run([&statistics.run])?;
        let pairs = statistics.eigenpairs(gpu, 100)?;
        let diagonal = statistics
            .get(Quantity::GaussNewtonDiagonal)
            .ok_or("no diagonal")?;
        let trace: f64 = wide(&diagonal.read(gpu)?.concat()).iter().sum();
        let sum: f64 = pairs.iter().map(|pair| pair.value).sum();
        near("trace", &[sum], &[trace])?;
        let request = QuadraticRequest {
            curvature: Curvature::GaussNewton,
            ..QuadraticRequest::default()
        };
        let quadratic = objective.quadratic(&theta, &loaded, request)?;
        gpu.run([&quadratic.linearize])?;
        for (at, pair) in pairs.iter().enumerate() {
            quadratic.direction.write(gpu, &pair.vector)?;
            gpu.run([&quadratic.multiply])?;
            let product = wide(&quadratic.product.read(gpu)?.concat());
            let vector = wide(&pair.vector.concat());
            let scaled: Vec<f64> = vector.iter().map(|x| pair.value * x).collect();
            for other in &pairs[..at] {
                let other = wide(&other.vector.concat());
                let product: f64 = vector.iter().zip(&other).map(|(a, b)| a * b).sum();
                if product.abs() > DEVICE {
                    return Err(format!("pair {at}: {product:.2e} of one before").into());
                }
            }
            // What is small beside the largest eigenvalue is known to f32 of that.
            let off: f64 = product
                .iter()
                .zip(&scaled)
                .map(|(a, b)| (a - b).powi(2))
                .sum();
            if off.sqrt() > DEVICE * pairs[0].value || pair.value > pairs[at.max(1) - 1].value {
                return Err(format!("pair {at} of {}: off by {}", pair.value, off.sqrt()).into());
            }
        }
    }
    let model = network(Activation::Tanh, Loss::SoftmaxCrossEntropy);
    let mut objective = GraphObjective::new(gpu, model.clone())?;
    let theta = objective.initial_parameters(1)?;
    let loaded = objective.load(Slot::default(), &weighted(&model, 4, 1))?;
    let request = StatisticsRequest::of(&[Quantity::Gradient]);
    let statistics = objective.statistics(&theta, &loaded, request)?;
    match statistics.eigenpairs(gpu, 1) {
        Err(Error::Unsupported { message, .. }) if message.contains("GaussNewtonGram") => Ok(()),
        other => Err(format!("{other:?}").into()),
    }
}

fn the_diagonal_of_the_hessian_is_that_of_its_products(gpu: &Gpu) -> Outcome {
    for (model, l2) in [
        (network(Activation::Tanh, Loss::BinaryCrossEntropy), 0.01),
        (tied(), 0.0),
    ] {
        let mut objective = GraphObjective::new(gpu, model.clone())?.with_l2(l2)?;
        let values = draw(&model, 4)?;
        let theta = vector(gpu, &objective, &values)?;
        let batch = weighted(&model, 7, 1);
        let loaded = objective.load(Slot::default(), &batch)?;
        let found = hessian_diagonal(&mut objective, &theta, &loaded)?;
        let reference = Reference::new(&model, &batch, l2)?;
        let zeros: Tensors = values.iter().map(|v| vec![0.0; v.len()]).collect();
        let mut expected = Vec::new();
        for (tensor, zero) in zeros.iter().enumerate() {
            for at in 0..zero.len() {
                let mut unit = zeros.clone();
                unit[tensor][at] = 1.0;
                let product = reference.answers(&values, &unit)?.hessian;
                expected.push(product[expected.len()]);
            }
        }
        near("diagonal", &wide_all(&found).concat(), &expected)?;
    }
    Ok(())
}

fn what_has_no_rows_is_refused(gpu: &Gpu) -> Outcome {
    let gpu = &harness::of_its_own(gpu)?;
    let shape = shape_of(Loss::MeanSquaredError, 4);
    let refused = |model: Model, rows: usize, all: &[Quantity], says: &str| -> Outcome {
        let batch = weighted(&model, rows, 1);
        let mut objective = GraphObjective::new(gpu, model.clone())?;
        let theta = vector(gpu, &objective, &draw(&model, 1)?)?;
        let loaded = objective.load(Slot::default(), &batch)?;
        match objective.statistics(&theta, &loaded, StatisticsRequest::of(all)) {
            Err(error) if error.to_string().contains(says) => Ok(()),
            other => Err(format!("expected '{says}': {other:?}").into()),
        }
    };
    let without_root = || {
        Model::new(shape, |scope| {
            let z = scope.dense("line", scope.features(), OUTPUTS, Init::Glorot);
            let losses = Loss::MeanSquaredError.apply(scope, z);
            Output {
                losses,
                outputs: z,
                metric: None,
            }
        })
    };
    let root = "Model::with_curvature_root";
    refused(
        without_root(),
        4,
        &[Quantity::SampledGaussNewtonDiagonal],
        root,
    )?;
    refused(without_root(), 4, &[], "name at least one")?;
    // One number of a matrix, for all examples: its gradient is no sum of products.
    let sliced = Model::new(shape, |scope| {
        let w = scope.parameter("w", &[4, OUTPUTS], Init::Glorot);
        let z = scope.features().dot(w) * w.slice(&[0, 0], &[1, 1]);
        let losses = Loss::MeanSquaredError.apply(scope, z);
        Output {
            losses,
            outputs: z,
            metric: None,
        }
    });
    refused(sliced, 4, &[Quantity::Variance], "'w'")?;
    let model = network(Activation::Tanh, Loss::SoftmaxCrossEntropy);
    refused(model, 1, &[Quantity::KroneckerFactors], "at least two rows")?;
    // Values that the loss sees beside the outputs.
    let beside = Model::new(shape, |scope| {
        let z = scope.dense("line", scope.features(), OUTPUTS, Init::Glorot);
        let losses = Loss::MeanSquaredError.apply(scope, z.tanh());
        Output {
            losses,
            outputs: z.sin(),
            metric: None,
        }
    })
    .with_curvature_root(|scope, z, signs| Loss::MeanSquaredError.curvature_root(scope, z, signs));
    refused(
        beside,
        4,
        &[Quantity::GaussNewtonDiagonal],
        "other than through the outputs",
    )?;
    // So many outputs that the columns of their roots fit no binding.
    let limit = gpu.limits().max_storage_buffer_binding_size / 4;
    let many = 1 << (limit.ilog2() / 2 + 1);
    let wide = DataShape {
        features: 1,
        targets: TargetShape::Values(many),
    };
    let loss = Loss::MeanSquaredError;
    let wide = Sequential::new().dense(many).model(wide, loss);
    let diagonal = [Quantity::GaussNewtonDiagonal];
    refused(wide, 1, &diagonal, "all columns of the root")?;
    // A tensor that no kernel binds: refused before there is a buffer.
    let wide = 1 << 16;
    let rows = usize::try_from(limit)? / (wide * OUTPUTS) + 1;
    if rows <= 4096 {
        let many = Model::new(
            DataShape {
                features: wide,
                ..shape
            },
            |scope| {
                let z = scope.dense("line", scope.features(), OUTPUTS, Init::Glorot);
                let losses = Loss::MeanSquaredError.apply(scope, z);
                Output {
                    losses,
                    outputs: z,
                    metric: None,
                }
            },
        );
        refused(
            many,
            rows,
            &[Quantity::PerExampleGradients],
            "per-example-gradients",
        )?;
    }
    Ok(())
}
