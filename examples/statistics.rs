//! What each example of a batch adds to gradient and curvature, and what it costs to know that.
//!
//! ```sh
//! cargo run --release --example statistics
//! ```
//!
//! The network and the batch are those with which BackPACK was timed on one thread of a CPU (784-1024-512-256-128-64-10, 128 rows). A time
//! is the median of several rounds, in which all requests take turns, over that of a loss with its gradient in the same rounds.

use std::time::Instant;

use osculant::data::{Batch, Targets};
use osculant::gpu::{Gpu, Work};
use osculant::nn::{Activation, DataShape, Loss, Sequential, TargetShape};
use osculant::objective::{
    GradientRequest, GraphObjective, Objective, Quantity, Slot, Statistics, StatisticsRequest,
};
use osculant::random::Philox;
use rand::RngExt;

const ROUNDS: usize = 15;
const ROWS: usize = 128;

/// Requests, and BackPACK's times over those of a gradient where they were measured. All have the gradient with them, as its have.
const REQUESTS: [(&str, &[Quantity], Option<f64>); 7] = [
    ("squared norms", &[Quantity::SquaredNorms], Some(1.32)),
    ("sum of squares", &[Quantity::SquareSum], Some(1.68)),
    ("variance", &[Quantity::Variance], Some(2.46)),
    (
        "GGN diagonal, sampled",
        &[Quantity::SampledGaussNewtonDiagonal],
        Some(2.11),
    ),
    ("GGN diagonal", &[Quantity::GaussNewtonDiagonal], Some(3.84)),
    (
        "K-FAC factors",
        &[Quantity::SampledKroneckerFactors],
        Some(2.24),
    ),
    ("KFLR factors", &[Quantity::KroneckerFactors], Some(9.46)),
];

fn main() -> osculant::Result<()> {
    let gpu = Gpu::new()?;
    println!("{}", gpu.info());
    let mut layers = Sequential::new();
    for width in [1024, 512, 256, 128, 64] {
        layers = layers.dense(width).activation(Activation::Relu);
    }
    let shape = DataShape {
        features: 784,
        targets: TargetShape::Classes(10),
    };
    let model = layers.dense(10).model(shape, Loss::SoftmaxCrossEntropy);
    let mut objective = GraphObjective::new(&gpu, model)?;
    let theta = objective.initial_parameters(0)?;
    let mut random = Philox::new(1, 0);
    let batch = Batch {
        features: (0..ROWS * 784)
            .map(|_| random.random_range(0.0..1.0))
            .collect(),
        targets: Targets::Classes {
            labels: (0..ROWS).map(|_| random.random_range(0..10)).collect(),
            classes: 10,
        },
        weights: vec![1.0 / ROWS as f32; ROWS],
    };
    let loaded = objective.load(Slot::default(), &batch)?;
    let gradient = objective.gradient(&theta, &loaded, GradientRequest::default())?;
    let mut works: Vec<Work> = vec![gradient.run.clone()];
    let mut operations = vec![1.0];
    for (_, quantities, _) in REQUESTS {
        for all in [
            quantities.to_vec(),
            [quantities, &[Quantity::Gradient]].concat(),
        ] {
            let request = StatisticsRequest::of(&all);
            let statistics = objective.statistics(&theta, &loaded, request)?;
            let cost = statistics.cost;
            operations.push(cost.run as f64 / cost.gradient as f64);
            works.push(statistics.run.clone());
        }
    }
    let mut times: Vec<Vec<f64>> = vec![Vec::new(); works.len()];
    for round in 0..=ROUNDS {
        for (work, times) in works.iter().zip(&mut times) {
            let start = Instant::now();
            gpu.run([work])?;
            gpu.wait()?;
            // The first round compiles.
            if round > 0 {
                times.push(start.elapsed().as_secs_f64() * 1e3);
            }
        }
    }
    let median = |times: &Vec<f64>| {
        let mut times = times.clone();
        times.sort_by(f64::total_cmp);
        times[times.len() / 2]
    };
    let medians: Vec<f64> = times.iter().map(median).collect();
    println!("loss and gradient: {:.2} ms", medians[0]);
    println!(
        "{:<24}{:>10}{:>12}{:>12}{:>12}{:>12}",
        "", "alone", "operations", "+ gradient", "operations", "BackPACK"
    );
    for (at, (name, _, peer)) in REQUESTS.iter().enumerate() {
        let [alone, both] = [1 + 2 * at, 2 + 2 * at];
        let peer = peer.map_or("-".into(), |peer| format!("{peer:.2}"));
        println!(
            "{name:<24}{:>10.2}{:>12.2}{:>12.2}{:>12.2}{peer:>12}",
            medians[alone] / medians[0],
            operations[alone],
            medians[both] / medians[0],
            operations[both],
        );
    }
    Ok(())
}
