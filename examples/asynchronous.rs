//! Training that never blocks its thread: what a browser asks for, and a server that has other things to do.
//!
//! `cargo run --release --example asynchronous`; the function `train` is the same in a browser, where
//! `wasm_bindgen_futures::spawn_local` takes the place of `block_on`.

use osculant::Result;
use osculant::data::{Dataset, digits};
use osculant::gpu::Gpu;
use osculant::nn::{Activation, Loss, Sequential};
use osculant::objective::GraphObjective;
use osculant::optim::{NewtonCg, NewtonCgOptions, Optimizer, StepReport};

/// Trains a network, and tells of each step.
async fn train(data: &Dataset, steps: usize, tell: impl Fn(usize, &StepReport)) -> Result<f64> {
    let gpu = Gpu::new_async().await?;
    let network = Sequential::new()
        .dense(32)
        .activation(Activation::Tanh)
        .dense(10);
    let model = network.model(data, Loss::SoftmaxCrossEntropy);
    let mut objective = GraphObjective::new(&gpu, model)?;
    let theta = objective.initial_parameters(0)?;
    let batch = data.full_batch();
    let mut newton = NewtonCg::new(NewtonCgOptions::default())?;
    for number in 0..steps {
        // Others have the thread while the device computes.
        let report = newton.step_async(&mut objective, &theta, &batch).await?;
        tell(number, &report);
    }
    let found = objective.evaluate_async(&theta, data).await?;
    Ok(found.metric.unwrap_or(f64::NAN))
}

fn main() -> Result<()> {
    let data = digits()?;
    let tell = |number: usize, report: &StepReport| {
        println!("{number}: loss {:.4}", report.loss_before);
    };
    let accuracy = pollster::block_on(train(&data, 10, tell))?;
    println!("accuracy {accuracy:.4}");
    Ok(())
}
