//! A loss written as a free-form function over graph primitives: an autoencoder with tied weights, `x -> tanh(x W + b) W^T + c`, and a
//! penalty on the code. The weight matrix is used twice; its derivatives are right without a word about it.

use osculant::data::digits;
use osculant::gpu::Gpu;
use osculant::nn::{Init, Model, Output};
use osculant::objective::GraphObjective;
use osculant::optim::{NewtonCg, NewtonCgOptions, Optimizer};

fn main() -> osculant::Result<()> {
    let (train, test) = digits()?.as_autoencoder().split(0.2, 0)?;
    let model = Model::new(&train, |scope| {
        let (rows, width, code) = (scope.rows(), scope.width(), 12);
        let x = scope.features();
        let weight = scope.parameter("weight", &[width, code], Init::Glorot);
        let hidden_bias = scope.parameter("hidden.bias", &[code], Init::Constant(0.0));
        let output_bias = scope.parameter("output.bias", &[width], Init::Constant(0.0));
        let hidden = (x.dot(weight) + hidden_bias).tanh();
        let decoded = hidden.dot(weight.permute(&[1, 0])) + output_bias;
        // The penalty needs the code as an output too: the loss may see the parameters only through the outputs.
        let outputs = decoded.concat(&[hidden], 1);
        let error = outputs.slice(&[0, 0], &[rows, width]) - x;
        let penalty = outputs
            .slice(&[0, width], &[rows, code])
            .square()
            .mean(&[1]);
        let losses = (error.square().mean(&[1]) + penalty * 1e-3).reshape(&[rows]);
        Output {
            losses,
            outputs,
            metric: None,
        }
    });
    let mut objective = GraphObjective::new(&Gpu::new()?, model)?;
    let theta = objective.initial_parameters(0)?;
    let mut optimizer = NewtonCg::new(NewtonCgOptions::default())?;
    let batch = train.full_batch();
    for step in 1..=10 {
        let report = optimizer.step(&mut objective, &theta, &batch)?;
        println!(
            "step {step}: loss {:.5}, {} CG iterations, stopped by {:?}, damping {:.3}",
            report.loss_after.unwrap_or(f64::NAN),
            report.cg_iterations.unwrap_or(0),
            report.cg_stop,
            report.damping.unwrap_or(f64::NAN),
        );
    }
    println!(
        "loss on test data: {:.5}",
        objective.evaluate(&theta, &test)?.loss
    );
    Ok(())
}
