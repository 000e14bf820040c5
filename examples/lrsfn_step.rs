//! Times a step of low-rank saddle-free Newton with its computation of eigenpairs: network 784-128-10, rank 32, gradient on 256 examples,
//! curvature on
//! 64. `benches/peers/lrsfn.py` does the same with PyTorch and curvlinops.

use std::time::Instant;

use osculant::data::{Batch, Targets};
use osculant::gpu::{AdapterOptions, Gpu};
use osculant::linalg::EigenOptions;
use osculant::nn::{Activation, DataShape, Loss, Sequential, TargetShape};
use osculant::objective::GraphObjective;
use osculant::optim::{LowRankSaddleFreeNewton, LrsfnOptions};
use osculant::random::Philox;
use rand::RngExt;

const FEATURES: usize = 784;
const CLASSES: usize = 10;
const RANK: usize = 32;
const STEPS: usize = 25;

fn batch(rows: usize, seed: u64) -> Batch {
    let mut random = Philox::new(seed, 1 << 40);
    Batch {
        features: (0..rows * FEATURES)
            .map(|_| random.random_range(0.0..1.0))
            .collect(),
        targets: Targets::Classes {
            labels: (0..rows)
                .map(|_| random.random_range(0..CLASSES as u32))
                .collect(),
            classes: CLASSES,
        },
        weights: vec![1.0 / rows as f32; rows],
    }
}

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let gpu = Gpu::request(&AdapterOptions::from_env())?;
    let shape = DataShape {
        features: FEATURES,
        targets: TargetShape::Classes(CLASSES),
    };
    let model = Sequential::new()
        .dense(128)
        .activation(Activation::Tanh)
        .dense(CLASSES)
        .model(shape, Loss::SoftmaxCrossEntropy);
    let mut objective = GraphObjective::new(&gpu, model)?;
    let theta = objective.initial_parameters(0)?;
    let eigen = EigenOptions::default()
        .with_rank(RANK)
        .with_oversampling(0)
        .with_power_iterations(0);
    let options = LrsfnOptions::default().with_eigen(eigen).with_damping(0.1);
    let mut method = LowRankSaddleFreeNewton::new(options)?;
    let (gradient, curvature) = (batch(256, 1), batch(64, 2));
    let mut seconds = Vec::new();
    let mut readbacks = 0;
    for step in 0..STEPS {
        let start = Instant::now();
        let report = method.step_with_curvature(&mut objective, &theta, &gradient, &curvature)?;
        // The first steps compile, and start from a random block.
        if step >= 5 {
            seconds.push(start.elapsed().as_secs_f64());
            readbacks = readbacks.max(report.readbacks);
        }
    }
    seconds.sort_by(f64::total_cmp);
    println!(
        "{}: refresh and step {:.1} ms (median of {}; {:.1} to {:.1}), {readbacks} blocking readbacks",
        gpu.info().name,
        1e3 * seconds[seconds.len() / 2],
        seconds.len(),
        1e3 * seconds[0],
        1e3 * seconds[seconds.len() - 1],
    );
    Ok(())
}
