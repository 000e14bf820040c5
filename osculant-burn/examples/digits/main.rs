//! A network of burn's on the handwritten digits, by Newton-CG and by burn's Adam. See README.md.

mod data;
mod network;

use std::error::Error;
use std::time::Instant;

use burn::optim::{AdamConfig, GradientsParams};
use burn::tensor::DeviceKind;
use osculant::nn::Loss;
use osculant::optim::{NewtonCg, NewtonCgOptions};
use osculant_burn::{ModuleObjective, SharedDevice};

use data::Rows;
use network::{Mlp, cross_entropy};

type Any = Box<dyn Error>;

/// Steps of Newton-CG, each on all examples.
const STEPS: usize = 25;
/// Passes of Adam over all examples, in batches.
const EPOCHS: usize = 60;
const BATCH: usize = 128;
const LEARNING_RATE: f64 = 3e-3;

fn newton_cg(shared: &SharedDevice, mut module: Mlp, train: &Rows) -> Result<Mlp, Any> {
    let factor = 1.0 / train.len() as f32;
    let mut objective = ModuleObjective::new(shared, &module)?.with_outputs(
        [train.len(), 10],
        Loss::SoftmaxCrossEntropy,
        factor,
    )?;
    let mut newton = NewtonCg::new(NewtonCgOptions::default())?;
    for _ in 0..STEPS {
        let (x, labels) = (train.features.clone(), train.labels.clone());
        let outputs = move |module: &Mlp| module.forward(x.clone());
        let loss = move |z| cross_entropy(z, labels.clone());
        let (stepped, report) = objective.step(&mut newton, module, outputs, loss);
        module = stepped;
        report?;
    }
    Ok(module)
}

fn adam(mut module: Mlp, train: &Rows) -> Mlp {
    let mut adam = AdamConfig::new().init();
    for _ in 0..EPOCHS {
        for batch in train.batches(BATCH) {
            let loss = cross_entropy(module.forward(batch.features), batch.labels);
            let gradients = GradientsParams::from_grads(loss.backward(), &module);
            module = adam.step(LEARNING_RATE, module, gradients);
        }
    }
    module
}

fn main() -> Result<(), Any> {
    let kind = match std::env::args().nth(1).as_deref() {
        Some("cpu") => DeviceKind::Cpu,
        _ => DeviceKind::DefaultDevice,
    };
    let shared = SharedDevice::new(kind)?;
    println!("{}", shared.gpu().info());
    let (train, test) = data::digits(&shared)?;
    let start = Mlp::new(&shared.device());
    let tell = |name: &str, module: &Mlp, seconds: f64| -> Result<(), Any> {
        let (loss, right) = (train.loss(module)?, test.accuracy(module)?);
        println!(
            "{name:<10} {seconds:6.1} s   training loss {loss:.4}   {right:.1} % of the test examples right"
        );
        Ok(())
    };
    tell("start", &start, 0.0)?;
    let began = Instant::now();
    let module = newton_cg(&shared, start.clone(), &train)?;
    tell("newton-cg", &module, began.elapsed().as_secs_f64())?;
    let began = Instant::now();
    let module = adam(start, &train);
    tell("adam", &module, began.elapsed().as_secs_f64())
}
