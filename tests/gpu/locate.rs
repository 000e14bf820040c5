//! The node at which numbers stop being finite is named; and the Gauss-Newton matrix of losses that see the outputs under another shape or
//! sign.

use crate::harness::{GpuTest, Outcome};
use crate::reference::{batch_for, compare, draw, on_device, vector};
use osculant::Error;
use osculant::data::Batch;
use osculant::gpu::Gpu;
use osculant::graph::Tensor;
use osculant::nn::{
    Activation, DataShape, Init, Loss, Model, Output, Scope, Sequential, TargetShape,
};
use osculant::objective::{
    Curvature, Curved, GraphObjective, Located, Objective, QuadraticRequest, Slot,
};
use osculant::optim::{
    Adam, AdamOptions, DecoupledNewtonCg, DecoupledOptions, LowRankSaddleFreeNewton, LrsfnOptions,
    NewtonCg, NewtonCgOptions, Optimizer, Sgd, SgdOptions,
};

pub(crate) fn tests() -> Vec<GpuTest> {
    gpu_tests![
        losses_of_views_of_the_outputs_have_a_gauss_newton_matrix,
        parameters_that_depend_on_rows_are_refused,
        errors_of_steps_name_the_node,
        each_result_is_followed_back,
        a_budget_is_kept_with_fewer_examples,
    ]
}

const VALUES: DataShape = DataShape {
    features: 3,
    targets: TargetShape::Values(2),
};

type View = for<'b> fn(&Scope<'b>, Tensor<'b>) -> Tensor<'b>;

/// Outputs are linear in the parameters here, so that the Gauss-Newton matrix is the Hessian, which knows nothing of outputs.
fn losses_of_views_of_the_outputs_have_a_gauss_newton_matrix(gpu: &Gpu) -> Outcome {
    // What the outputs are of `x W` (already a reshape, of a batched product), and what the loss sees of them.
    let named: [(&str, View); 5] = [
        ("product", |_, z| z),
        ("reshape", |s, z| z.reshape(&[2, s.rows()])),
        ("minus", |_, z| -z),
        ("permuted", |_, z| z.permute(&[1, 0])),
        ("padded", |s, z| z.pad(&[0, 1], &[s.rows(), 4])),
    ];
    let seen: [(&str, View); 7] = [
        ("itself", |_, z| z),
        ("reshape", |_, z| {
            z.reshape(&[z.shape().iter().product::<usize>(), 1])
        }),
        ("minus", |_, z| -z),
        ("minus minus", |_, z| -(-z)),
        ("minus of a reshape", |_, z| {
            -z.reshape(&[1, z.shape().iter().product::<usize>()])
        }),
        ("times one", |_, z| (z * 1.0 + 0.0) * -1.0),
        ("a product with it", |s, z| {
            let columns = z.shape()[1];
            z.dot(s.data(vec![0.5; columns], &[columns, 1]))
        }),
    ];
    for (of, outputs) in named {
        for (how, view) in seen {
            let model = Model::new(VALUES, move |s| {
                let z = s.features().dot(s.parameter("w", &[3, 2], Init::Glorot));
                let named = outputs(s, z);
                let seen = view(s, named);
                // The mean of squares, shared out over the examples.
                let count = seen.shape().iter().product::<usize>();
                let flat = (seen - 0.3).square().reshape(&[1, count]).sum(&[1]);
                let losses = flat.reshape(&[1]).broadcast(&[s.rows()]);
                Output {
                    losses,
                    outputs: named,
                    metric: None,
                }
            });
            let batch = batch_for(&model, 4, 3);
            let (theta, v) = (draw(&model, 1)?, draw(&model, 2)?);
            let mut objective = GraphObjective::new(gpu, model)?;
            let at = vector(gpu, &objective, &theta)?;
            let what = format!("{how} of {of}");
            let mut found = on_device(&mut objective, &at, &batch, &v, false)
                .map_err(|e| format!("{what}: {e}"))?;
            let expected = found.clone();
            found.gauss_newton = found.hessian.clone();
            if expected.hessian.iter().all(|h| *h == 0.0) {
                return Err(format!("{what}: no curvature").into());
            }
            compare(&what, &found, &expected, 1e-5)?;
        }
    }
    Ok(())
}

fn parameters_that_depend_on_rows_are_refused(gpu: &Gpu) -> Outcome {
    let model = Model::new(VALUES, |s| {
        let z = s.features().dot(s.parameter("w", &[3, 2], Init::Glorot));
        let z = z + s.parameter("b", &[s.rows(), 2], Init::Glorot);
        Output {
            losses: z.square().sum(&[1]).reshape(&[s.rows()]),
            outputs: z,
            metric: None,
        }
    });
    let batch = batch_for(&model, 4, 3);
    let mut objective = GraphObjective::new(gpu, model)?;
    let theta = objective.initial_parameters(1)?;
    match objective.load_quadratic(Slot::default(), &theta, &batch, QuadraticRequest::default()) {
        Err(Error::Shape { message, .. }) if message.contains("Scope::rows") => Ok(()),
        other => Err(format!("{:?}", other.map(|_| ())).into()),
    }
}

fn optimizers() -> osculant::Result<Vec<Box<dyn Optimizer<GraphObjective>>>> {
    let options = NewtonCgOptions::default().with_curvature(Curvature::Hessian);
    Ok(vec![
        Box::new(Sgd::new(SgdOptions::default())?),
        Box::new(Adam::new(AdamOptions::default())?),
        Box::new(NewtonCg::new(NewtonCgOptions::default())?),
        Box::new(NewtonCg::new(options)?),
        Box::new(DecoupledNewtonCg::new(DecoupledOptions::default())?),
        Box::new(LowRankSaddleFreeNewton::new(LrsfnOptions::default())?),
    ])
}

/// A function of one parameter, on examples that do not matter.
fn function(at: f32, f: View) -> Model {
    Model::new(VALUES, move |s| {
        let x = s.parameter("x", &[1, 1], Init::Constant(at));
        let z = f(s, x + s.features().sum(&[1]) * 0.0);
        Output {
            losses: z.reshape(&[s.rows()]),
            outputs: z,
            metric: None,
        }
    })
}

fn errors_of_steps_name_the_node(gpu: &Gpu) -> Outcome {
    let cases: [(f32, View, [&str; 3]); 4] = [
        (-0.5, |_, x| x.sqrt(), ["sqrt", "sqrt of -0.5", "relu"]),
        (
            -0.5,
            |_, x| x.log(),
            ["log", "the logarithm of -0.5", "above zero"],
        ),
        (
            100.0,
            |_, x| x.exp(),
            ["exp", "exp of 100 overflows", "88.7"],
        ),
        (1e25, |_, x| x.square(), ["mul", "overflows f32", "rescale"]),
    ];
    for (at, f, words) in cases {
        for mut optimizer in optimizers()? {
            let model = function(at, f);
            let batch = batch_for(&model, 8, 3);
            let mut objective = GraphObjective::new(gpu, model)?;
            let theta = objective.initial_parameters(1)?;
            let name = optimizer.name();
            let error = match optimizer.step(&mut objective, &theta, &batch) {
                Err(error @ Error::NotFinite { .. }) => error.to_string(),
                other => return Err(format!("{name}: {:?}", other.map(|_| ())).into()),
            };
            for word in words {
                if !error.contains(word) {
                    return Err(format!("{name}: no '{word}' in {error}").into());
                }
            }
            if error.contains("larger damping") {
                return Err(format!("{name}: {error}").into());
            }
        }
    }
    Ok(())
}

fn each_result_is_followed_back(gpu: &Gpu) -> Outcome {
    let cases: [(&str, f32, View, &str); 2] = [
        (
            "the loss",
            2.0,
            |_, x| (x - 2.0).log(),
            "the logarithm of 0",
        ),
        // The slope of sqrt at 0.
        ("the gradient", 0.0, |_, x| x.sqrt(), " / 0 (from"),
    ];
    for (quantity, at, f, cause) in cases {
        let model = function(at, f);
        let batch = batch_for(&model, 5, 3);
        let mut objective = GraphObjective::new(gpu, model)?;
        let theta = objective.initial_parameters(1)?;
        match objective.locate(&theta.read(gpu)?, &batch, u64::MAX)? {
            Located::At(origin)
                if origin.quantity.contains(quantity) && origin.cause.contains(cause) => {}
            other => return Err(format!("{quantity}: {other:?}").into()),
        }
    }
    // A parameter behind a network, by name and place; then everything sound.
    let network = Sequential::new()
        .dense(3)
        .activation(Activation::Tanh)
        .dense(2);
    let model = network.model(VALUES, Loss::MeanSquaredError);
    let batch = batch_for(&model, 5, 3);
    let mut objective = GraphObjective::new(gpu, model)?;
    let theta = objective.initial_parameters(1)?;
    if objective.locate(&theta.read(gpu)?, &batch, u64::MAX)? != Located::Nowhere {
        return Err("found in a sound network".into());
    }
    let mut tensors = theta.read(gpu)?;
    tensors[2][3] = f32::NAN;
    theta.write(gpu, &tensors)?;
    match objective.locate(&theta.read(gpu)?, &batch, u64::MAX)? {
        Located::At(origin)
            if origin.node.contains("'dense1.weight'") && origin.element == [1, 1] =>
        {
            Ok(())
        }
        other => Err(format!("{other:?}").into()),
    }
}

fn a_budget_is_kept_with_fewer_examples(gpu: &Gpu) -> Outcome {
    let model = Sequential::new()
        .dense(64)
        .dense(2)
        .model(VALUES, Loss::MeanSquaredError);
    let batch: Batch = batch_for(&model, 256, 3);
    let mut objective = GraphObjective::new(gpu, model)?;
    let theta = objective.initial_parameters(1)?;
    if objective.locate(&theta.read(gpu)?, &batch, 100_000)? != Located::Unknown {
        return Err("a tenth of the examples does not show that all are sound".into());
    }
    let mut tensors = theta.read(gpu)?;
    tensors[0][0] = f32::INFINITY;
    theta.write(gpu, &tensors)?;
    match objective.locate(&theta.read(gpu)?, &batch, 100_000)? {
        Located::At(origin) if origin.node.contains("dense0.weight") => Ok(()),
        other => Err(format!("{other:?}").into()),
    }
}
