//! What a step of K-FAC takes beside one of Adam: the mean of 200 steps from the start, factors, inverses and step lengths included, on
//! networks of the command line's problems and random inputs in batches of their sizes.
//!
//! `cargo run --release --example kfac_steps -- [rounds]`; in a round each method has new parameters. The first round, which compiles, is
//! left out.

use std::time::Instant;

use osculant::data::{Batch, Dataset, Targets};
use osculant::gpu::Gpu;
use osculant::nn::{Activation, Loss, Sequential};
use osculant::objective::{GraphObjective, Objective};
use osculant::optim::{Adam, AdamOptions, Kfac, KfacOptions, Optimizer};
use osculant::random::Philox;
use rand_distr::{Distribution, StandardUniform};

const STEPS: usize = 200;

/// Name, units, whether the inputs are to be reproduced, and rows of a batch.
const NETWORKS: [(&str, [usize; 3], bool, usize); 4] = [
    ("digits-mlp", [64, 32, 10], false, 64),
    ("digits-autoencoder", [64, 16, 64], true, 64),
    ("fashion-mlp", [784, 128, 10], false, 256),
    ("mnist-autoencoder", [784, 32, 784], true, 256),
];

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let rounds: usize = match std::env::args().nth(1) {
        Some(rounds) => rounds.parse()?,
        None => 5,
    };
    let gpu = Gpu::new()?;
    println!("{}", gpu.info());
    for (name, units, reproduces, rows) in NETWORKS {
        let data = random(units, 16 * rows)?;
        let (data, hidden, last, loss) = if reproduces {
            let data = data.as_autoencoder();
            (
                data,
                Activation::Softplus,
                Activation::Sigmoid,
                Loss::MeanSquaredError,
            )
        } else {
            (
                data,
                Activation::Tanh,
                Activation::Identity,
                Loss::SoftmaxCrossEntropy,
            )
        };
        let model = Sequential::new()
            .dense(units[1])
            .activation(hidden)
            .dense(units[2])
            .activation(last)
            .model(&data, loss);
        let batches = (0..16).map(|b| data.batch(&(b * rows..(b + 1) * rows).collect::<Vec<_>>()));
        let batches = batches.collect::<Result<Vec<_>, _>>()?;
        let mut objective = GraphObjective::new(&gpu, model)?;
        let mut times: [Vec<f64>; 2] = [Vec::new(), Vec::new()];
        for round in 0..=rounds {
            let mut kfac = Kfac::new(KfacOptions::default())?;
            let mut adam = Adam::new(AdamOptions::default())?;
            let taken = [
                steps(&mut kfac, &mut objective, &batches)?,
                steps(&mut adam, &mut objective, &batches)?,
            ];
            for (times, taken) in times.iter_mut().zip(taken).filter(|_| round > 0) {
                times.push(taken);
            }
        }
        let [kfac, adam] = times.map(quartiles);
        println!(
            "{name}, {rows} rows: kfac {kfac:.3?} ms a step (quartiles), adam {adam:.3?}, ratio of medians {:.2}",
            kfac[1] / adam[1]
        );
    }
    Ok(())
}

fn random([inputs, _, outputs]: [usize; 3], rows: usize) -> osculant::Result<Dataset> {
    let features = StandardUniform.sample_iter(Philox::new(0, 0));
    let features = features.take(rows * inputs).collect();
    let classes = outputs.min(10);
    let labels = (0..rows).map(|row| (row * 7 % classes) as u32).collect();
    let targets = Targets::Classes { labels, classes };
    Dataset::new("random", features, inputs, targets)
}

/// Milliseconds of a step.
fn steps(
    optimizer: &mut dyn Optimizer<GraphObjective>,
    objective: &mut GraphObjective,
    batches: &[Batch],
) -> osculant::Result<f64> {
    let theta = objective.initial_parameters(0)?;
    let start = Instant::now();
    for step in 0..STEPS {
        optimizer.step(objective, &theta, &batches[step % batches.len()])?;
    }
    objective.gpu().wait()?;
    Ok(1e3 * start.elapsed().as_secs_f64() / STEPS as f64)
}

fn quartiles(mut values: Vec<f64>) -> [f64; 3] {
    values.sort_by(f64::total_cmp);
    let at = |part: f64| values[(part * (values.len() - 1) as f64) as usize];
    [at(0.25), at(0.5), at(0.75)]
}
