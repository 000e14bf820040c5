//! Bad input gives an error that says what is wrong, never a panic, and leaves the parameters as they were.

use crate::harness::{GpuTest, Outcome};
use crate::reference::{batch_for, bits, no_data};
use osculant::Error;
use osculant::data::{Batch, Dataset, Targets};
use osculant::gpu::Gpu;
use osculant::graph::{DType, Graph};
use osculant::linalg::{CgOptions, ConjugateGradients, Operator};
use osculant::nn::{DataShape, Init, Loss, Model, Output, Sequential, TargetShape};
use osculant::objective::{
    Curvature, Curved, GradientRequest, GraphObjective, Objective, QuadraticRequest, Slot,
};
use osculant::optim::{
    Adam, AdamOptions, AdaptiveDamping, NewtonCg, NewtonCgOptions, Optimizer, Preconditioner, Sgd,
    SgdOptions,
};
use osculant::vector::{Layout, Vector};

pub(crate) fn tests() -> Vec<GpuTest> {
    gpu_tests![
        batches_that_do_not_fit_are_refused_and_theta_stays,
        data_sets_that_do_not_fit_are_refused,
        models_with_mistakes_are_refused,
        options_out_of_range_are_refused,
        theta_of_another_model_is_refused,
        tensors_of_a_wrong_size_are_not_written,
        networks_beyond_the_device_are_refused,
        gauss_newton_of_a_loss_beside_the_outputs_is_refused,
        fisher_diagonal_of_an_unsupported_structure_is_refused,
        parameters_that_are_not_finite_stay_as_they_are,
        sgd_that_overflows_keeps_the_last_finite_parameters,
        steps_beyond_f32_are_refused,
        newton_on_an_overflowing_loss_is_refused,
        solves_with_bad_arguments_are_refused,
        states_that_do_not_fit_are_refused,
        initialisers_out_of_range_are_refused,
    ]
}

type Any = Box<dyn std::error::Error>;

/// The message of the error, which must be of the kind that `is` accepts and contain `part`.
fn refused<T>(
    what: &str,
    outcome: osculant::Result<T>,
    is: fn(&Error) -> bool,
    part: &str,
) -> Result<(), Any> {
    match outcome {
        Ok(_) => Err(format!("{what}: no error").into()),
        Err(error) if is(&error) && error.to_string().contains(part) => Ok(()),
        Err(error) => Err(format!("{what}: unexpected {error:?}").into()),
    }
}

fn is_data(e: &Error) -> bool {
    matches!(e, Error::Data { .. })
}
fn is_option(e: &Error) -> bool {
    matches!(e, Error::Option { .. })
}
fn is_shape(e: &Error) -> bool {
    matches!(e, Error::Shape { .. })
}
fn is_unsupported(e: &Error) -> bool {
    matches!(e, Error::Unsupported { .. })
}
fn is_not_finite(e: &Error) -> bool {
    matches!(e, Error::NotFinite { .. })
}
fn is_length(e: &Error) -> bool {
    matches!(e, Error::Length { .. })
}
fn is_over_limit(e: &Error) -> bool {
    matches!(e, Error::OverLimit { .. })
}

fn classes(features: usize, classes: usize) -> DataShape {
    let targets = TargetShape::Classes(classes);
    DataShape { features, targets }
}

fn values(features: usize, width: usize) -> DataShape {
    let targets = TargetShape::Values(width);
    DataShape { features, targets }
}

fn classifier() -> Model {
    Sequential::new()
        .dense(3)
        .model(classes(2, 3), Loss::SoftmaxCrossEntropy)
}

type Boxed = Box<dyn Optimizer<GraphObjective>>;

fn all() -> osculant::Result<Vec<Boxed>> {
    let hessian = NewtonCgOptions::default().with_curvature(Curvature::Hessian);
    let fisher = NewtonCgOptions::default()
        .with_preconditioner(Preconditioner::EmpiricalFisher { exponent: 0.75 });
    Ok(vec![
        Box::new(Sgd::new(SgdOptions::default())?),
        Box::new(Adam::new(AdamOptions::default())?),
        Box::new(NewtonCg::new(NewtonCgOptions::default())?),
        Box::new(NewtonCg::new(hessian)?),
        Box::new(NewtonCg::new(fisher)?),
    ])
}

fn request(curvature: Curvature) -> QuadraticRequest {
    QuadraticRequest {
        curvature,
        fisher_diagonal: false,
        ..QuadraticRequest::default()
    }
}

fn batches_that_do_not_fit_are_refused_and_theta_stays(gpu: &Gpu) -> Outcome {
    let model = classifier();
    let good = batch_for(&model, 4, 1);
    let labels = |labels: Vec<u32>| Targets::Classes { labels, classes: 3 };
    let with = |change: &dyn Fn(&mut Batch)| {
        let mut batch = good.clone();
        change(&mut batch);
        batch
    };
    let bad = [
        (
            "empty",
            "empty",
            with(&|b| {
                *b = Batch {
                    features: vec![],
                    targets: labels(vec![]),
                    weights: vec![],
                }
            }),
        ),
        (
            "too few features",
            "features",
            with(&|b| b.features.truncate(7)),
        ),
        (
            "too many features",
            "features",
            with(&|b| b.features.extend([0.0; 4])),
        ),
        (
            "NaN",
            "feature 1 of example 2",
            with(&|b| b.features[5] = f32::NAN),
        ),
        (
            "infinity",
            "feature 0 of example 0",
            with(&|b| b.features[0] = f32::INFINITY),
        ),
        (
            "label",
            "label 3 of example 1",
            with(&|b| b.targets = labels(vec![0, 3, 1, 2])),
        ),
        (
            "label",
            "out of range",
            with(&|b| b.targets = labels(vec![0, u32::MAX, 1, 2])),
        ),
        (
            "too few labels",
            "labels",
            with(&|b| b.targets = labels(vec![0, 1, 2])),
        ),
        ("kind", "targets", with(&|b| b.targets = Targets::Inputs)),
        (
            "kind",
            "targets",
            with(&|b| {
                b.targets = Targets::Values {
                    values: vec![0.0; 12],
                    width: 3,
                }
            }),
        ),
        (
            "weights of zero",
            "weights",
            with(&|b| b.weights = vec![0.0; 4]),
        ),
        (
            "negative weight",
            "weights",
            with(&|b| b.weights[2] = -0.25),
        ),
        (
            "weight of NaN",
            "weights",
            with(&|b| b.weights[2] = f32::NAN),
        ),
        (
            "infinite weight",
            "weights",
            with(&|b| b.weights[2] = f32::INFINITY),
        ),
        (
            "too few weights",
            "features",
            with(&|b| b.weights.truncate(3)),
        ),
    ];
    let mut objective = GraphObjective::new(gpu, model)?;
    let theta = objective.initial_parameters(1)?;
    for mut optimizer in all()? {
        optimizer.step(&mut objective, &theta, &good)?;
        let before = bits(&theta.read(gpu)?);
        for (what, part, batch) in &bad {
            let outcome = optimizer.step(&mut objective, &theta, batch);
            refused(what, outcome, is_data, part)?;
        }
        if bits(&theta.read(gpu)?) != before {
            return Err(format!("{}: theta changed", optimizer.name()).into());
        }
        optimizer.step(&mut objective, &theta, &good)?;
    }
    // Float targets.
    let model = Sequential::new()
        .dense(2)
        .model(values(2, 2), Loss::MeanSquaredError);
    let good = batch_for(&model, 3, 1);
    let mut objective = GraphObjective::new(gpu, model)?;
    let theta = objective.initial_parameters(1)?;
    for (part, targets) in [
        ("target values", vec![0.0; 5]),
        (
            "target 1 of example 2",
            vec![0.0, 0.0, 0.0, 0.0, 0.0, f32::NAN],
        ),
    ] {
        let batch = Batch {
            targets: Targets::Values {
                values: targets,
                width: 2,
            },
            ..good.clone()
        };
        let outcome =
            objective.load_quadratic(Slot::default(), &theta, &batch, request(Curvature::None));
        refused("targets", outcome, is_data, part)?;
    }
    Ok(())
}

fn data_sets_that_do_not_fit_are_refused(gpu: &Gpu) -> Outcome {
    let mut objective = GraphObjective::new(gpu, classifier())?;
    let theta = objective.initial_parameters(1)?;
    let targets = |classes| Targets::Classes {
        labels: vec![0, classes as u32 - 1],
        classes,
    };
    let wide = Dataset::new("wide", vec![0.0; 6], 3, targets(3))?;
    refused(
        "width",
        objective.evaluate(&theta, &wide),
        is_data,
        "features",
    )?;
    let many = Dataset::new("many classes", vec![0.0; 4], 2, targets(4))?;
    refused(
        "labels",
        objective.evaluate(&theta, &many),
        is_data,
        "label 3",
    )?;
    let itself = Dataset::new("itself", vec![0.0; 4], 2, Targets::Inputs)?;
    refused(
        "kind",
        objective.evaluate(&theta, &itself),
        is_data,
        "targets",
    )
}

fn models_with_mistakes_are_refused(gpu: &Gpu) -> Outcome {
    let wrong: Vec<(&str, Model)> = vec![
        (
            "labels for a float loss",
            Sequential::new()
                .dense(3)
                .model(values(2, 3), Loss::SoftmaxCrossEntropy),
        ),
        (
            "other number of outputs",
            Sequential::new()
                .dense(4)
                .model(classes(2, 3), Loss::SoftmaxCrossEntropy),
        ),
        (
            "other number of outputs",
            Sequential::new()
                .dense(4)
                .model(values(2, 3), Loss::MeanSquaredError),
        ),
        (
            "no parameters",
            Sequential::new().model(values(3, 3), Loss::MeanSquaredError),
        ),
        (
            "no features",
            Sequential::new()
                .dense(3)
                .model(values(0, 3), Loss::MeanSquaredError),
        ),
        (
            "no classes",
            Sequential::new()
                .dense(3)
                .model(classes(2, 0), Loss::SoftmaxCrossEntropy),
        ),
        (
            "no outputs",
            Sequential::new()
                .dense(0)
                .model(values(2, 3), Loss::MeanSquaredError),
        ),
        (
            "no targets",
            Sequential::new()
                .dense(3)
                .model(values(2, 0), Loss::MeanSquaredError),
        ),
        (
            "more elements than there are numbers",
            Sequential::new()
                .dense(usize::MAX)
                .model(values(2, 3), Loss::MeanSquaredError),
        ),
        (
            "a sum, not a loss of each example",
            Model::new(values(2, 1), |scope| {
                let z = scope.dense("d", scope.features(), 1, Init::Glorot);
                Output {
                    losses: z.sum(&[0, 1]),
                    outputs: z,
                    metric: None,
                }
            }),
        ),
        (
            "two parameters of one name",
            Model::new(values(2, 1), |scope| {
                let x = scope.features();
                let z = scope.dense("d", x, 1, Init::Glorot) + scope.dense("d", x, 1, Init::Glorot);
                Output {
                    losses: z.reshape(&[scope.rows()]),
                    outputs: z,
                    metric: None,
                }
            }),
        ),
        (
            "shapes",
            Model::new(values(2, 1), |scope| {
                let w = scope.parameter("w", &[3, 1], Init::Glorot);
                let z = scope.features().dot(w);
                Output {
                    losses: z.reshape(&[scope.rows()]),
                    outputs: z,
                    metric: None,
                }
            }),
        ),
        (
            "labels of float targets",
            Model::new(values(2, 1), |scope| {
                let z = scope.dense("d", scope.features(), 1, Init::Glorot) + scope.labels();
                Output {
                    losses: z.reshape(&[scope.rows()]),
                    outputs: z,
                    metric: None,
                }
            }),
        ),
    ];
    for (what, model) in wrong {
        // Some mistakes show only in a batch of more than one row.
        let outcome = GraphObjective::new(gpu, model.clone()).and_then(|mut objective| {
            let theta = objective.initial_parameters(1)?;
            objective.load_quadratic(
                Slot::default(),
                &theta,
                &batch_for(&model, 3, 1),
                request(Curvature::None),
            )
        });
        match outcome {
            Ok(_) => return Err(format!("{what}: no error").into()),
            Err(error) => log::info!("{what}: {error}"),
        }
    }
    // No classes, in a model that does not look at its labels.
    let model = Model::new(classes(2, 0), |scope| {
        let z = scope.dense("d", scope.features(), 1, Init::Glorot);
        Output {
            losses: z.square().reshape(&[scope.rows()]),
            outputs: z,
            metric: None,
        }
    });
    let batch = Batch {
        features: vec![1.0, 2.0],
        targets: Targets::Classes {
            labels: vec![0],
            classes: 0,
        },
        weights: vec![1.0],
    };
    let mut objective = GraphObjective::new(gpu, model)?;
    let theta = objective.initial_parameters(1)?;
    let outcome =
        objective.load_quadratic(Slot::default(), &theta, &batch, request(Curvature::None));
    refused("label of no classes", outcome, is_data, "label 0")
}

fn options_out_of_range_are_refused(gpu: &Gpu) -> Outcome {
    let bad = [f32::NAN, f32::INFINITY, -0.1];
    for value in bad.into_iter().chain([0.0]) {
        let sgd = SgdOptions::default().with_learning_rate(value);
        refused(
            "rate",
            Sgd::new(sgd).map(|_| ()),
            is_option,
            "learning_rate",
        )?;
        let adam = AdamOptions::default().with_learning_rate(value);
        refused(
            "rate",
            Adam::new(adam).map(|_| ()),
            is_option,
            "learning_rate",
        )?;
        let mut adam = AdamOptions::default();
        adam.epsilon = value;
        refused("epsilon", Adam::new(adam).map(|_| ()), is_option, "epsilon")?;
    }
    for value in bad.into_iter().chain([1.0]) {
        let sgd = SgdOptions::default().with_momentum(value);
        refused("momentum", Sgd::new(sgd).map(|_| ()), is_option, "momentum")?;
        for (betas, name) in [((value, 0.9), "beta1"), ((0.9, value), "beta2")] {
            let adam = AdamOptions::default()
                .with_beta1(betas.0)
                .with_beta2(betas.1);
            refused(name, Adam::new(adam).map(|_| ()), is_option, name)?;
        }
    }
    for value in bad.into_iter().chain([1e6]) {
        let sgd = SgdOptions::default().with_weight_decay(value);
        refused(
            "decay",
            Sgd::new(sgd).map(|_| ()),
            is_option,
            "weight_decay",
        )?;
        let adam = AdamOptions::default().with_weight_decay(value);
        refused(
            "decay",
            Adam::new(adam).map(|_| ()),
            is_option,
            "weight_decay",
        )?;
    }
    for value in bad {
        let outcome = GraphObjective::new(gpu, classifier())?.with_l2(value);
        refused("l2", outcome, is_option, "l2")?;
    }
    let newton = |name: &str, change: &dyn Fn(&mut NewtonCgOptions)| {
        let mut options = NewtonCgOptions::default();
        change(&mut options);
        refused(name, NewtonCg::new(options).map(|_| ()), is_option, name)
    };
    newton("curvature", &|o| o.curvature = Curvature::None)?;
    for value in [f32::NAN, -1.0, 1.5] {
        newton("warm_start", &|o| o.warm_start = value)?;
        newton("exponent", &|o| {
            o.preconditioner = Preconditioner::EmpiricalFisher { exponent: value }
        })?;
        newton("residual_tolerance", &|o| o.cg.residual_tolerance = value)?;
        newton("progress_tolerance", &|o| o.cg.progress_tolerance = value)?;
    }
    for value in [f64::NAN, f64::INFINITY, -1.0, 1e300] {
        newton("radius", &|o| o.radius = value)?;
        newton("damping", &|o| {
            o.damping = AdaptiveDamping::default().with_initial(value)
        })?;
        newton("minimum", &|o| o.damping.minimum = value)?;
        newton("decrease", &|o| o.damping.decrease = value)?;
        newton("armijo", &|o| o.armijo = value)?;
        newton("shrink", &|o| o.shrink = value)?;
    }
    newton("radius", &|o| o.radius = 0.0)?;
    newton("decrease", &|o| o.damping.decrease = 0.0)?;
    for value in [0, usize::MAX] {
        newton("max_iterations", &|o| o.cg.max_iterations = value)?;
    }
    for value in [0, usize::MAX] {
        newton("min_window", &|o| o.cg.min_window = value)?;
        newton("max_line_search", &|o| o.max_line_search = value)?;
    }
    Ok(())
}

fn theta_of_another_model_is_refused(gpu: &Gpu) -> Outcome {
    let other = Sequential::new()
        .dense(4)
        .model(classes(2, 4), Loss::SoftmaxCrossEntropy);
    let theta = GraphObjective::new(gpu, other)?.initial_parameters(1)?;
    let before = bits(&theta.read(gpu)?);
    let mut objective = GraphObjective::new(gpu, classifier())?;
    let batch = batch_for(objective.model(), 4, 1);
    for mut optimizer in all()? {
        let outcome = optimizer.step(&mut objective, &theta, &batch);
        refused("theta", outcome, is_shape, "another model")?;
    }
    let dataset = Dataset::new("two", batch.features.clone(), 2, batch.targets.clone())?;
    refused(
        "theta",
        objective.evaluate(&theta, &dataset),
        is_shape,
        "another model",
    )?;
    if bits(&theta.read(gpu)?) != before {
        return Err("theta changed".into());
    }
    Ok(())
}

fn tensors_of_a_wrong_size_are_not_written(gpu: &Gpu) -> Outcome {
    let objective = GraphObjective::new(gpu, classifier())?;
    let theta = objective.initial_parameters(1)?;
    let before = bits(&theta.read(gpu)?);
    for tensors in [
        vec![],
        vec![vec![0.0; 6]],
        vec![vec![0.0; 6], vec![0.0; 4]],
        vec![vec![0.0; 7], vec![0.0; 3]],
    ] {
        refused("tensors", theta.write(gpu, &tensors), is_length, "")?;
    }
    if bits(&theta.read(gpu)?) != before {
        return Err("theta changed".into());
    }
    Ok(())
}

fn networks_beyond_the_device_are_refused(gpu: &Gpu) -> Outcome {
    // One element more than a binding may have, which is found before a single number is drawn.
    let elements = gpu.limits().max_storage_buffer_binding_size as usize / 4 + 1;
    for width in [elements, 1 << 40] {
        let model = Sequential::new()
            .dense(width)
            .model(values(1, width), Loss::MeanSquaredError);
        let objective = GraphObjective::new(gpu, model)?;
        refused(
            "parameters",
            objective.initial_parameters(1),
            is_over_limit,
            "theta",
        )?;
    }
    // Few parameters, but a batch whose features fit no buffer would need one to be made first; a wide intermediate value does not.
    let model = Model::new(values(1, 1), move |scope| {
        let w = scope.parameter("w", &[1, 1], Init::Constant(1.0));
        let wide = scope.features().dot(w).broadcast(&[scope.rows(), elements]);
        let outputs = wide.sin().cos().sum(&[1]);
        let repeated = (wide.exp() + outputs).max_over(&[1]);
        Output {
            losses: (outputs + repeated).reshape(&[scope.rows()]),
            outputs,
            metric: None,
        }
    });
    let mut objective = GraphObjective::new(gpu, model)?;
    let theta = objective.initial_parameters(1)?;
    let batch = batch_for(objective.model(), 1, 1);
    // Fused or not: an error, or a program without that buffer.
    let _ = objective.load_quadratic(Slot::default(), &theta, &batch, request(Curvature::Hessian));
    gpu.check()?;
    Ok(())
}

fn gauss_newton_of_a_loss_beside_the_outputs_is_refused(gpu: &Gpu) -> Outcome {
    let model = Model::new(values(2, 1), |scope| {
        let z = scope.dense("d", scope.features(), 1, Init::Glorot);
        let w = scope.parameter("scale", &[1, 1], Init::Constant(1.0));
        let losses = (z * w - scope.targets()).square().reshape(&[scope.rows()]);
        Output {
            losses,
            outputs: z,
            metric: None,
        }
    });
    let mut objective = GraphObjective::new(gpu, model)?;
    let theta = objective.initial_parameters(1)?;
    let batch = batch_for(objective.model(), 3, 1);
    let outcome = objective.load_quadratic(
        Slot::default(),
        &theta,
        &batch,
        request(Curvature::GaussNewton),
    );
    refused("Gauss-Newton", outcome, is_unsupported, "scale")?;
    let before = bits(&theta.read(gpu)?);
    let mut newton = NewtonCg::new(NewtonCgOptions::default())?;
    refused(
        "Newton",
        newton.step(&mut objective, &theta, &batch),
        is_unsupported,
        "scale",
    )?;
    if bits(&theta.read(gpu)?) != before {
        return Err("theta changed".into());
    }
    // The Hessian has no need of outputs.
    objective.load_quadratic(Slot::default(), &theta, &batch, request(Curvature::Hessian))?;
    Ok(())
}

fn fisher_diagonal_of_an_unsupported_structure_is_refused(gpu: &Gpu) -> Outcome {
    // A loss of each example that looks at the others.
    let mixing = Model::new(values(2, 1), |scope| {
        let z = scope.dense("d", scope.features(), 1, Init::Glorot);
        let losses = (z - z.mean(&[0])).square().reshape(&[scope.rows()]);
        Output {
            losses,
            outputs: z,
            metric: None,
        }
    });
    let mut objective = GraphObjective::new(gpu, mixing)?;
    let theta = objective.initial_parameters(1)?;
    let batch = batch_for(objective.model(), 3, 1);
    let request = QuadraticRequest {
        curvature: Curvature::None,
        fisher_diagonal: true,
        ..QuadraticRequest::default()
    };
    let outcome = objective.load_quadratic(Slot::default(), &theta, &batch, request);
    refused("Fisher", outcome, is_unsupported, "empirical Fisher")?;
    Ok(())
}

fn parameters_that_are_not_finite_stay_as_they_are(gpu: &Gpu) -> Outcome {
    for poison in [f32::NAN, f32::INFINITY] {
        for mut optimizer in all()? {
            let mut objective = GraphObjective::new(gpu, classifier())?;
            let theta = objective.initial_parameters(1)?;
            let batch = batch_for(objective.model(), 4, 1);
            let good = theta.read(gpu)?;
            optimizer.step(&mut objective, &theta, &batch)?;
            let mut tensors = good.clone();
            tensors[0][1] = poison;
            theta.write(gpu, &tensors)?;
            for _ in 0..2 {
                let outcome = optimizer.step(&mut objective, &theta, &batch);
                refused("parameters", outcome, is_not_finite, "loss")?;
                if bits(&theta.read(gpu)?) != bits(&tensors) {
                    return Err(format!("{}: theta changed", optimizer.name()).into());
                }
            }
            // The optimizer is not poisoned.
            theta.write(gpu, &good)?;
            let report = optimizer.step(&mut objective, &theta, &batch)?;
            if !report.loss_before.is_finite()
                || theta.read(gpu)?.concat().iter().any(|x| !x.is_finite())
            {
                return Err(format!("{}: {report:?} afterwards", optimizer.name()).into());
            }
        }
    }
    Ok(())
}

fn sgd_that_overflows_keeps_the_last_finite_parameters(gpu: &Gpu) -> Outcome {
    for rate in [30.0, 1e6, 1e30] {
        let model = Sequential::new()
            .dense(2)
            .dense(2)
            .model(values(3, 2), Loss::MeanSquaredError);
        let mut objective = GraphObjective::new(gpu, model)?;
        let theta = objective.initial_parameters(1)?;
        let batch = batch_for(objective.model(), 4, 1);
        let mut sgd = Sgd::new(SgdOptions::default().with_learning_rate(rate))?;
        let mut before = theta.read(gpu)?;
        let mut failed = false;
        for _ in 0..200 {
            let outcome = sgd.step(&mut objective, &theta, &batch);
            let after = theta.read(gpu)?;
            if after.concat().iter().any(|x| !x.is_finite()) {
                return Err(format!("rate {rate}: parameters overflowed").into());
            }
            if outcome.is_err() {
                refused("overflow", outcome, is_not_finite, "not finite")?;
                if bits(&after) != bits(&before) {
                    return Err(format!("rate {rate}: a failed step changed theta").into());
                }
                failed = true;
                break;
            }
            before = after;
        }
        if !failed {
            return Err(format!("rate {rate}: no overflow in 200 steps").into());
        }
    }
    Ok(())
}

/// A gradient of about one and a rate near the largest number: the loss is finite, the step is not.
fn steps_beyond_f32_are_refused(gpu: &Gpu) -> Outcome {
    let mut sgd = Sgd::new(SgdOptions::default().with_learning_rate(3e38))?;
    let mut adam = Adam::new(AdamOptions::default().with_learning_rate(3e38))?;
    let model = Sequential::new()
        .dense(2)
        .model(values(3, 2), Loss::MeanSquaredError);
    let mut objective = GraphObjective::new(gpu, model)?;
    let theta = objective.initial_parameters(1)?;
    let mut batch = batch_for(objective.model(), 4, 1);
    batch.features.iter_mut().for_each(|x| *x *= 30.0);
    let before = bits(&theta.read(gpu)?);
    for optimizer in [&mut sgd as &mut dyn Optimizer<GraphObjective>, &mut adam] {
        let outcome = optimizer.step(&mut objective, &theta, &batch);
        refused(optimizer.name(), outcome, is_not_finite, "the step")?;
        if bits(&theta.read(gpu)?) != before {
            return Err(format!("{}: theta changed", optimizer.name()).into());
        }
    }
    Ok(())
}

fn newton_on_an_overflowing_loss_is_refused(gpu: &Gpu) -> Outcome {
    for scale in [1e15, 1e25] {
        for mut optimizer in all()?.into_iter().skip(2) {
            let model = Sequential::new()
                .dense(2)
                .model(values(3, 2), Loss::MeanSquaredError);
            let mut objective = GraphObjective::new(gpu, model)?;
            let theta = objective.initial_parameters(1)?;
            let mut batch = batch_for(objective.model(), 4, 1);
            batch.features.iter_mut().for_each(|x| *x *= scale);
            let before = bits(&theta.read(gpu)?);
            let outcome = optimizer.step(&mut objective, &theta, &batch);
            // Conjugate gradients do not depend on the scale, so a loss that is finite may well be lowered.
            if let (1e15, Ok(report)) = (scale, &outcome)
                && report
                    .loss_after
                    .is_some_and(|after| after <= report.loss_before)
            {
                continue;
            }
            refused("overflow", outcome, is_not_finite, "not finite")?;
            if bits(&theta.read(gpu)?) != before {
                return Err("theta changed".into());
            }
        }
    }
    Ok(())
}

fn solves_with_bad_arguments_are_refused(gpu: &Gpu) -> Outcome {
    let model = Model::new(
        DataShape {
            features: 0,
            targets: TargetShape::Inputs,
        },
        |scope| {
            let x = scope.parameter("x", &[1], Init::Constant(1.0));
            Output {
                losses: x.square(),
                outputs: x,
                metric: None,
            }
        },
    );
    let mut objective = GraphObjective::new(gpu, model)?;
    let theta = objective.initial_parameters(0)?;
    let quadratic = objective.load_quadratic(
        Slot::default(),
        &theta,
        &no_data(),
        request(Curvature::Hessian),
    )?;
    let operator = Operator::from(quadratic.as_ref());
    let options = CgOptions::default();
    let cg = ConjugateGradients::new(gpu, &operator, &quadratic.gradient, None, &options, &[])?;
    let run = |shift, radius, warm| cg.solve(&quadratic.linearize, shift, radius, warm);
    for shift in [-1.0, f32::NAN, f32::INFINITY] {
        refused("shift", run(shift, None, false), is_option, "shift")?;
    }
    for radius in [-1.0, 0.0, f32::NAN, f32::INFINITY, 1e25] {
        refused("radius", run(0.0, Some(radius), false), is_option, "radius")?;
    }
    refused(
        "warm",
        run(0.0, Some(1.0), true),
        is_option,
        "start from zero",
    )?;
    let tensors = [("x".to_string(), vec![70])];
    let other = Vector::new(gpu, "other", &std::sync::Arc::new(Layout::new(&tensors)?))?;
    let outcome = ConjugateGradients::new(gpu, &operator, &other, None, &options, &[]);
    refused("layout", outcome, is_length, "")?;
    // What was loaded elsewhere.
    let mut elsewhere = GraphObjective::new(gpu, classifier())?;
    let outcome = elsewhere.gradient(&theta, &quadratic.loaded, GradientRequest::default());
    refused("loss", outcome.map(|_| ()), is_unsupported, "load it first")
}

fn states_that_do_not_fit_are_refused(gpu: &Gpu) -> Outcome {
    let other = Sequential::new()
        .dense(4)
        .model(classes(2, 4), Loss::SoftmaxCrossEntropy);
    for index in 0..3 {
        let mut trained = all()?.swap_remove(index);
        let mut objective = GraphObjective::new(gpu, other.clone())?;
        let theta = objective.initial_parameters(1)?;
        let batch = batch_for(objective.model(), 4, 1);
        trained.step(&mut objective, &theta, &batch)?;
        let state = trained.state(&objective)?;
        let mut fresh = all()?.swap_remove(index);
        let here = GraphObjective::new(gpu, classifier())?;
        refused("other model", fresh.restore(&here, &state), is_length, "")?;
        refused(
            "nothing",
            fresh.restore(&here, &Default::default()),
            is_data,
            "optimizer state",
        )?;
    }
    Ok(())
}

fn initialisers_out_of_range_are_refused(gpu: &Gpu) -> Outcome {
    for deviation in [f32::NAN, f32::INFINITY, -1.0] {
        let layers = Sequential::new().dense_with(2, Init::Normal(deviation));
        let objective =
            GraphObjective::new(gpu, layers.model(values(2, 2), Loss::MeanSquaredError))?;
        refused(
            "deviation",
            objective.initial_parameters(1),
            is_option,
            "initialiser",
        )?;
    }
    let mut graph = Graph::new();
    for shape in [vec![0], vec![3, 0]] {
        refused("parameter", graph.parameter("w", &shape), is_shape, "w")?;
        refused("input", graph.input("x", &shape, DType::F32), is_shape, "x")?;
    }
    for shape in [vec![0], vec![3, 0], vec![usize::MAX], vec![usize::MAX, 2]] {
        refused("layout", Layout::new(&[("w".into(), shape)]), is_shape, "w")?;
    }
    refused("no tensors", Layout::new(&[]), is_shape, "")?;
    let twice = [("w".into(), vec![1]), ("w".into(), vec![2])];
    refused("twice", Layout::new(&twice), is_shape, "two")
}
