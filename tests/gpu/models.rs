//! Every model on every adapter: loss, gradient, Hessian product, Gauss-Newton product and Fisher diagonal against the f64 twin, and the
//! identities that they obey.

use crate::harness::{GpuTest, Outcome};
use crate::reference::{
    Answers, Reference, Tensors, add, batch_for, compare, cut, dot, draw, flat, narrow, on_device,
    relative_error, vector, wide,
};
use osculant::data::{Batch, Targets};
use osculant::gpu::Gpu;
use osculant::nn::{
    Activation, DataShape, Init, Loss, Model, Output, Sequential, TargetShape, autoencoder,
};
use osculant::objective::{Curvature, Curved, GraphObjective, QuadraticRequest, Slot};

/// Errors of single operations are 1e-7; sums over some hundred terms with cancellation cost two digits at most.
const TOLERANCE: f64 = 1e-4;

pub(crate) fn tests() -> Vec<GpuTest> {
    gpu_tests![
        networks_of_the_problems_agree_with_the_twin,
        every_activation_agrees_with_the_twin,
        every_loss_agrees_with_the_twin,
        free_form_models_agree_with_the_twin,
        extreme_outputs_stay_finite,
        l2_belongs_to_value_gradient_and_curvatures,
        products_are_symmetric_linear_and_gauss_newton_is_not_negative,
        hessian_product_is_the_difference_of_gradients_in_the_twin,
        gauss_newton_is_the_hessian_of_a_linear_model,
        padding_rows_change_nothing,
        fisher_diagonal_of_unequal_weights,
        fisher_diagonal_of_a_batch_of_one,
        fisher_diagonal_equals_batches_of_one_in_the_twin,
        linearizing_again_gives_fresh_products,
        evaluation_of_a_data_set_is_the_mean_of_its_batches,
    ]
}

fn classes(features: usize, classes: usize) -> DataShape {
    let targets = TargetShape::Classes(classes);
    DataShape { features, targets }
}

fn values(features: usize, width: usize) -> DataShape {
    let targets = TargetShape::Values(width);
    DataShape { features, targets }
}

fn itself(features: usize) -> DataShape {
    let targets = TargetShape::Inputs;
    DataShape { features, targets }
}

fn stack(hidden: usize, activation: Activation, outputs: usize) -> Sequential {
    Sequential::new()
        .dense(hidden)
        .activation(activation)
        .dense(outputs)
}

fn small() -> Model {
    stack(6, Activation::Tanh, 4).model(classes(5, 4), Loss::SoftmaxCrossEntropy)
}

/// One matrix as encoder and, transposed, as decoder.
fn tied_autoencoder(width: usize, code: usize) -> Model {
    Model::new(itself(width), move |scope| {
        let x = scope.features();
        let w = scope.parameter("w", &[width, code], Init::Glorot);
        let b = scope.parameter("b", &[code], Init::Constant(0.0));
        let c = scope.parameter("c", &[width], Init::Constant(0.0));
        let hidden = (x.dot(w) + b).tanh();
        let outputs = (hidden.dot(w.permute(&[1, 0])) + c).logistic();
        let losses = (outputs - x).square().mean(&[1]).reshape(&[scope.rows()]);
        Output {
            losses,
            outputs,
            metric: None,
        }
    })
}

/// One square matrix applied three times, as in a recurrent network.
fn recurrent(width: usize) -> Model {
    Model::new(classes(width, width), move |scope| {
        let w = scope.parameter("w", &[width, width], Init::Glorot);
        let b = scope.parameter("b", &[width], Init::Constant(0.0));
        let mut outputs = scope.features();
        for _ in 0..3 {
            outputs = (outputs.dot(w) + b).sin();
        }
        Output {
            losses: Loss::SoftmaxCrossEntropy.apply(scope, outputs),
            outputs,
            metric: None,
        }
    })
}

/// Two inputs with layers of their own, joined, a branch around a layer, and a product of branches.
fn branching() -> Model {
    Model::new(values(7, 2), |scope| {
        let (rows, x) = (scope.rows(), scope.features());
        let left = x.slice(&[0, 0], &[rows, 4]);
        let right = x.slice(&[0, 4], &[rows, 3]);
        let a = scope.dense("left", left, 5, Init::LeCun).tanh();
        let b = scope.dense("right", right, 5, Init::LeCun).logistic();
        let joined = a.concat(&[b], 1);
        let inner = scope.dense("inner", joined, 10, Init::Glorot).softplus();
        let merged = joined + inner * joined;
        let outputs = scope.dense("out", merged, 2, Init::Glorot);
        Output {
            losses: Loss::MeanSquaredError.apply(scope, outputs),
            outputs,
            metric: None,
        }
    })
}

/// Device against twin for one model on a random batch.
fn check(gpu: &Gpu, name: &str, model: Model, rows: usize, fisher: bool) -> Outcome {
    let batch = batch_for(&model, rows, 3);
    check_on(gpu, name, model, &batch, fisher)
}

fn check_on(gpu: &Gpu, name: &str, model: Model, batch: &Batch, fisher: bool) -> Outcome {
    let (theta, v) = (draw(&model, 1)?, draw(&model, 2)?);
    let twin = Reference::new(&model, batch, 0.0)?;
    let expected = twin.answers(&theta, &v)?;
    if fisher {
        let found = twin.fisher_by_graph(&theta)?;
        let error = relative_error(&found, &expected.fisher);
        if error.is_nan() || error > 1e-10 {
            return Err(
                format!("{name}: Fisher diagonal of the graph is off by {error:.2e}").into(),
            );
        }
    }
    let mut objective = GraphObjective::new(gpu, model)?;
    let at = vector(gpu, &objective, &theta)?;
    let found = on_device(&mut objective, &at, batch, &v, fisher)?;
    compare(name, &found, &expected, TOLERANCE)?;
    Ok(())
}

fn networks_of_the_problems_agree_with_the_twin(gpu: &Gpu) -> Outcome {
    let digits = stack(32, Activation::Tanh, 10);
    let digits = digits.model(classes(64, 10), Loss::SoftmaxCrossEntropy);
    check(gpu, "digits-mlp", digits, 20, true)?;
    let digits = autoencoder(64, 16, Activation::Softplus, Activation::Sigmoid);
    let digits = digits.model(itself(64), Loss::MeanSquaredError);
    check(gpu, "digits-autoencoder", digits, 12, true)?;
    let mnist = stack(128, Activation::Tanh, 10);
    let mnist = mnist.model(classes(784, 10), Loss::SoftmaxCrossEntropy);
    check(gpu, "fashion-mlp", mnist, 5, true)?;
    let mnist = autoencoder(784, 32, Activation::Softplus, Activation::Sigmoid);
    let mnist = mnist.model(itself(784), Loss::MeanSquaredError);
    check(gpu, "mnist-autoencoder", mnist, 3, true)
}

fn every_activation_agrees_with_the_twin(gpu: &Gpu) -> Outcome {
    for activation in Activation::ALL {
        let model = Sequential::new()
            .dense(6)
            .activation(activation)
            .dense(5)
            .activation(activation)
            .dense(3)
            .model(values(7, 3), Loss::MeanSquaredError);
        check(gpu, &format!("{activation:?}"), model, 9, true)?;
    }
    Ok(())
}

fn every_loss_agrees_with_the_twin(gpu: &Gpu) -> Outcome {
    for loss in Loss::ALL {
        let shape = match loss {
            Loss::SoftmaxCrossEntropy => classes(5, 4),
            _ => values(5, 4),
        };
        let model = stack(6, Activation::Tanh, 4).model(shape, loss);
        check(gpu, &format!("{loss:?}"), model, 8, true)?;
    }
    for loss in [Loss::BinaryCrossEntropy, Loss::MeanSquaredError] {
        // One-hot rows as float targets, and a single output.
        let model = stack(6, Activation::Silu, 4).model(classes(5, 4), loss);
        check(gpu, &format!("{loss:?} of classes"), model, 8, true)?;
        let model = stack(3, Activation::Silu, 1).model(values(1, 1), loss);
        check(gpu, &format!("{loss:?} of one output"), model, 8, true)?;
    }
    Ok(())
}

fn free_form_models_agree_with_the_twin(gpu: &Gpu) -> Outcome {
    check(gpu, "branching", branching(), 6, true)?;
    check(gpu, "recurrent", recurrent(5), 6, true)?;
    check(gpu, "tied autoencoder", tied_autoencoder(9, 4), 7, true)
}

/// Logits of some hundreds: exp would overflow if a loss took it of them.
fn extreme_outputs_stay_finite(gpu: &Gpu) -> Outcome {
    for loss in [Loss::SoftmaxCrossEntropy, Loss::BinaryCrossEntropy] {
        let model = Sequential::new().dense(3).model(classes(2, 3), loss);
        let mut batch = batch_for(&model, 4, 1);
        batch.features = vec![900.0, -700.0, -900.0, 800.0, 1e-3, 0.0, 300.0, 300.0];
        check_on(gpu, &format!("{loss:?} far out"), model, &batch, true)?;
    }
    Ok(())
}

fn l2_belongs_to_value_gradient_and_curvatures(gpu: &Gpu) -> Outcome {
    for model in [small(), branching()] {
        let batch = batch_for(&model, 6, 3);
        let (theta, v) = (draw(&model, 1)?, draw(&model, 2)?);
        let expected = Reference::new(&model, &batch, 0.7)?.answers(&theta, &v)?;
        let mut objective = GraphObjective::new(gpu, model)?.with_l2(0.7)?;
        let at = vector(gpu, &objective, &theta)?;
        let found = on_device(&mut objective, &at, &batch, &v, true)?;
        compare("l2", &found, &expected, TOLERANCE)?;
    }
    Ok(())
}

fn products_are_symmetric_linear_and_gauss_newton_is_not_negative(gpu: &Gpu) -> Outcome {
    for (name, model) in [
        ("small", small()),
        ("branching", branching()),
        ("tied", tied_autoencoder(9, 4)),
    ] {
        let batch = batch_for(&model, 6, 3);
        let theta = draw(&model, 1)?;
        let (u, v) = (draw(&model, 2)?, draw(&model, 3)?);
        let both = cut(&add(&u.concat(), -2.0, &v.concat()), &u);
        let mut objective = GraphObjective::new(gpu, model)?;
        let at = vector(gpu, &objective, &theta)?;
        let mut times = |d: &Tensors| -> osculant::Result<Answers> {
            on_device(&mut objective, &at, &batch, d, false)
        };
        let (of_u, of_v, of_both) = (times(&u)?, times(&v)?, times(&both)?);
        let (flat_u, flat_v) = (u.concat(), v.concat());
        for (what, cu, cv, cb) in [
            ("Hessian", &of_u.hessian, &of_v.hessian, &of_both.hessian),
            (
                "Gauss-Newton",
                &of_u.gauss_newton,
                &of_v.gauss_newton,
                &of_both.gauss_newton,
            ),
        ] {
            let scale = dot(&flat_u, &flat_u).sqrt() * dot(cv, cv).sqrt();
            let gap = (dot(&flat_u, cv) - dot(&flat_v, cu)).abs() / scale;
            if gap.is_nan() || gap > 1e-5 {
                return Err(
                    format!("{name}: u.{what} v and v.{what} u differ by {gap:.2e}").into(),
                );
            }
            let error = relative_error(cb, &add(cu, -2.0, cv));
            if error.is_nan() || error > 1e-5 {
                return Err(format!("{name}: {what} is not linear: {error:.2e}").into());
            }
        }
        if dot(&flat_u, &of_u.gauss_newton) <= 0.0 || dot(&flat_v, &of_v.gauss_newton) <= 0.0 {
            return Err(format!("{name}: negative curvature of the Gauss-Newton matrix").into());
        }
    }
    Ok(())
}

fn hessian_product_is_the_difference_of_gradients_in_the_twin(_: &Gpu) -> Outcome {
    let deep = Sequential::new()
        .dense(5)
        .activation(Activation::Gelu)
        .dense(4)
        .activation(Activation::Silu)
        .dense(3)
        .model(values(4, 3), Loss::Poisson);
    for (name, model) in [
        ("small", small()),
        ("deep", deep),
        ("branching", branching()),
        ("recurrent", recurrent(5)),
        ("tied", tied_autoencoder(9, 4)),
    ] {
        let batch = batch_for(&model, 5, 3);
        let (theta, v) = (draw(&model, 1)?, draw(&model, 2)?);
        let twin = Reference::new(&model, &batch, 0.1)?;
        let product = twin.answers(&theta, &v)?.hessian;
        // Central differences: truncation h^2, rounding 1e-16 / h.
        let h = 1e-5;
        let moved = |h: f64| twin.gradient(&cut(&add(&theta.concat(), h, &v.concat()), &theta));
        let difference: Vec<f64> = add(&moved(h)?, -1.0, &moved(-h)?)
            .iter()
            .map(|d| d / (2.0 * h))
            .collect();
        let error = relative_error(&product, &difference);
        if error.is_nan() || error > 1e-6 {
            return Err(format!("{name}: {error:.2e}").into());
        }
    }
    Ok(())
}

fn gauss_newton_is_the_hessian_of_a_linear_model(gpu: &Gpu) -> Outcome {
    for loss in Loss::ALL {
        let shape = match loss {
            Loss::SoftmaxCrossEntropy => classes(5, 4),
            _ => values(5, 4),
        };
        let model = Sequential::new().dense(4).model(shape, loss);
        let batch = batch_for(&model, 7, 3);
        let (theta, v) = (draw(&model, 1)?, draw(&model, 2)?);
        let mut objective = GraphObjective::new(gpu, model)?;
        let at = vector(gpu, &objective, &theta)?;
        let found = on_device(&mut objective, &at, &batch, &v, false)?;
        let error = relative_error(&found.gauss_newton, &found.hessian);
        if error.is_nan() || error > 1e-5 {
            return Err(format!("{loss:?}: {error:.2e}").into());
        }
    }
    Ok(())
}

fn padding_rows_change_nothing(gpu: &Gpu) -> Outcome {
    for (name, model) in [
        ("small", small()),
        ("branching", branching()),
        ("tied", tied_autoencoder(9, 4)),
    ] {
        let batch = batch_for(&model, 6, 3);
        let padded = batch.clone().pad_to(10)?;
        let (theta, v) = (draw(&model, 1)?, draw(&model, 2)?);
        let mut objective = GraphObjective::new(gpu, model)?;
        let at = vector(gpu, &objective, &theta)?;
        let short = on_device(&mut objective, &at, &batch, &v, true)?;
        let long = on_device(&mut objective, &at, &padded, &v, true)?;
        if (batch.examples(), padded.examples()) != (6, 6) {
            return Err("padding counts as work".into());
        }
        compare(name, &long, &short, 1e-6)?;
    }
    Ok(())
}

fn fisher_diagonal_of_unequal_weights(gpu: &Gpu) -> Outcome {
    for (name, model) in [
        ("small", small()),
        ("branching", branching()),
        ("tied", tied_autoencoder(9, 4)),
        ("recurrent", recurrent(5)),
    ] {
        let mut batch = batch_for(&model, 6, 3);
        batch.weights = vec![0.5, 0.1, 0.0, 0.25, 2.0, 1e-3];
        check_on(gpu, name, model, &batch, true)?;
    }
    Ok(())
}

fn fisher_diagonal_of_a_batch_of_one(gpu: &Gpu) -> Outcome {
    check(gpu, "small", small(), 1, true)?;
    check(gpu, "branching", branching(), 1, true)?;
    check(gpu, "tied", tied_autoencoder(9, 4), 1, true)
}

fn fisher_diagonal_equals_batches_of_one_in_the_twin(_: &Gpu) -> Outcome {
    for model in [small(), tied_autoencoder(9, 4)] {
        let batch = batch_for(&model, 4, 3);
        let theta = draw(&model, 1)?;
        let width = model.shape().features;
        let mut sum: Vec<f64> = vec![0.0; theta.concat().len()];
        for row in 0..4 {
            let targets = match &batch.targets {
                Targets::Classes { labels, classes } => Targets::Classes {
                    labels: vec![labels[row]],
                    classes: *classes,
                },
                _ => Targets::Inputs,
            };
            let one = Batch {
                features: batch.features[row * width..(row + 1) * width].to_vec(),
                targets,
                weights: vec![1.0],
            };
            for (s, g) in sum
                .iter_mut()
                .zip(Reference::new(&model, &one, 0.0)?.gradient(&theta)?)
            {
                *s += 0.25 * g * g;
            }
        }
        let found = Reference::new(&model, &batch, 0.0)?.fisher_by_graph(&theta)?;
        let error = relative_error(&found, &sum);
        if error.is_nan() || error > 1e-12 {
            return Err(format!("{error:.2e}").into());
        }
    }
    Ok(())
}

fn linearizing_again_gives_fresh_products(gpu: &Gpu) -> Outcome {
    let model = branching();
    let (first, second) = (batch_for(&model, 6, 3), batch_for(&model, 6, 4));
    let v = draw(&model, 2)?;
    let mut objective = GraphObjective::new(gpu, model.clone())?;
    let at = vector(gpu, &objective, &draw(&model, 1)?)?;
    for (seed, batch) in [(1, &first), (5, &first), (5, &second), (1, &first)] {
        let theta = draw(&model, seed)?;
        at.write(gpu, &narrow(&theta))?;
        let found = on_device(&mut objective, &at, batch, &v, true)?;
        let expected = Reference::new(&model, batch, 0.0)?.answers(&theta, &v)?;
        compare(
            "after writing theta or a batch",
            &found,
            &expected,
            TOLERANCE,
        )?;
    }
    // Several products with one linearization.
    let request = QuadraticRequest {
        curvature: Curvature::GaussNewton,
        fisher_diagonal: false,
        ..QuadraticRequest::default()
    };
    let quadratic = objective.load_quadratic(Slot::default(), &at, &first, request)?;
    gpu.run([&quadratic.linearize])?;
    let twin = Reference::new(&model, &first, 0.0)?;
    for seed in 10..14 {
        let v = draw(&model, seed)?;
        quadratic.direction.write(gpu, &narrow(&v))?;
        gpu.run([&quadratic.multiply])?;
        let expected = twin.answers(&draw(&model, 1)?, &v)?.gauss_newton;
        let error = relative_error(&flat(&quadratic.product.read(gpu)?), &expected);
        if error.is_nan() || error > TOLERANCE {
            return Err(format!("product {seed}: {error:.2e}").into());
        }
    }
    Ok(())
}

/// 1,001 rows and more make two batches, the second of them padded.
fn evaluation_of_a_data_set_is_the_mean_of_its_batches(gpu: &Gpu) -> Outcome {
    let model = Sequential::new()
        .dense(3)
        .model(classes(2, 3), Loss::SoftmaxCrossEntropy);
    let batch = batch_for(&model, 1203, 3);
    let Targets::Classes { labels, .. } = &batch.targets else {
        return Err("labels expected".into());
    };
    let theta = draw(&model, 1)?;
    let expected = Reference::new(&model, &batch, 0.0)?.value(&theta)?;
    let (mut right, mut logits) = (0, Vec::new());
    for (row, &label) in labels.iter().enumerate() {
        let z: Vec<f64> = (0..3)
            .map(|c| {
                let x = |i: usize| f64::from(batch.features[2 * row + i]);
                theta[1][c] + x(0) * theta[0][c] + x(1) * theta[0][3 + c]
            })
            .collect();
        right += usize::from(z.iter().all(|&other| other <= z[label as usize]));
        logits.extend(z);
    }
    let dataset =
        osculant::data::Dataset::new("random", batch.features.clone(), 2, batch.targets.clone())?;
    let mut objective = GraphObjective::new(gpu, model)?.with_l2(0.5)?;
    let at = vector(gpu, &objective, &theta)?;
    let found = objective.evaluate(&at, &dataset)?;
    let accuracy = found.metric.ok_or("no metric")?;
    if (found.loss / expected - 1.0).abs() > 1e-5 {
        return Err(format!("loss {} instead of {expected}", found.loss).into());
    }
    if (accuracy - right as f64 / 1203.0).abs() > 1e-5 {
        return Err(format!("accuracy {accuracy} instead of {right} of 1203").into());
    }
    let outputs = wide(&objective.outputs(&at, &dataset)?);
    let error = relative_error(&outputs, &logits);
    if outputs.len() != logits.len() || error > 1e-6 {
        return Err(format!("{} outputs, off by {error:.1e}", outputs.len()).into());
    }
    Ok(())
}
