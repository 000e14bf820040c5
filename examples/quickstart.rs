//! Trains a small network on the embedded digits by Newton-CG.

use osculant::data::digits;
use osculant::gpu::Gpu;
use osculant::nn::{Activation, Loss, Sequential};
use osculant::objective::GraphObjective;
use osculant::optim::{NewtonCg, NewtonCgOptions, Optimizer};

fn main() -> osculant::Result<()> {
    let (train, test) = digits()?.split(0.2, 0)?;
    let model = Sequential::new()
        .dense(32)
        .activation(Activation::Tanh)
        .dense(10);
    let mut objective =
        GraphObjective::new(&Gpu::new()?, model.model(&train, Loss::SoftmaxCrossEntropy))?;
    let theta = objective.initial_parameters(0)?;
    let mut optimizer = NewtonCg::new(NewtonCgOptions::default())?;
    let batch = train.full_batch();
    for step in 1..=10 {
        let report = optimizer.step(&mut objective, &theta, &batch)?;
        println!(
            "step {step}: loss {:.4} -> {:.4}",
            report.loss_before,
            report.loss_after.unwrap_or(f64::NAN)
        );
    }
    println!("on test data: {:?}", objective.evaluate(&theta, &test)?);
    Ok(())
}
