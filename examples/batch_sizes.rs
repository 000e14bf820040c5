//! What the first step with a batch of another size costs, and what many vectors and sizes take of memory: figures of docs/benchmarks.md.
//!
//! ```sh
//! MESA_SHADER_CACHE_DISABLE=true cargo run --release --example batch_sizes
//! ```
//!
//! The variable keeps llvmpipe from taking kernels from an earlier run.

use std::time::Instant;

use osculant::data::{Dataset, digits};
use osculant::gpu::Gpu;
use osculant::nn::{Activation, Loss, Sequential};
use osculant::objective::GraphObjective;
use osculant::optim::{Adam, AdamOptions, NewtonCg, NewtonCgOptions, Optimizer};
use osculant::vector::Vector;

const ROWS: [usize; 8] = [256, 192, 320, 250, 333, 500, 96, 1000];
const VECTORS: u64 = 20;
const SIZES: usize = 50;

fn main() -> osculant::Result<()> {
    let (data, gpu) = (digits()?, Gpu::new()?);
    let network = Sequential::new()
        .dense(64)
        .activation(Activation::Tanh)
        .dense(32)
        .activation(Activation::Tanh)
        .dense(10);
    let model = network.model(&data, Loss::SoftmaxCrossEntropy);
    let mut objective = GraphObjective::new(&gpu, model)?;
    first_steps(
        &mut objective,
        &data,
        "Adam",
        &mut Adam::new(AdamOptions::default())?,
    )?;
    first_steps(
        &mut objective,
        &data,
        "Newton-CG",
        &mut NewtonCg::new(NewtonCgOptions::default())?,
    )?;
    many_vectors(
        &mut objective,
        &data,
        "Adam",
        &mut Adam::new(AdamOptions::default())?,
    )?;
    many_vectors(
        &mut objective,
        &data,
        "Newton-CG",
        &mut NewtonCg::new(NewtonCgOptions::default())?,
    )
}

/// Seconds of the first step with each number of rows.
fn first_steps(
    objective: &mut GraphObjective,
    data: &Dataset,
    name: &str,
    optimizer: &mut impl Optimizer<GraphObjective>,
) -> osculant::Result<()> {
    let theta = objective.initial_parameters(0)?;
    for rows in ROWS {
        let batch = data.batch(&(0..rows).collect::<Vec<_>>())?;
        let start = Instant::now();
        optimizer.step(objective, &theta, &batch)?;
        println!(
            "{name}, first step with {rows} rows: {:.3} s",
            start.elapsed().as_secs_f64()
        );
    }
    Ok(())
}

/// Memory of the process after every hundred steps from vector after vector, each with all sizes of batches; all vectors stay alive.
fn many_vectors(
    objective: &mut GraphObjective,
    data: &Dataset,
    name: &str,
    optimizer: &mut impl Optimizer<GraphObjective>,
) -> osculant::Result<()> {
    let mut steps = 0;
    let vectors: Vec<Vector> = (0..VECTORS)
        .map(|seed| objective.initial_parameters(seed))
        .collect::<osculant::Result<_>>()?;
    for theta in &vectors {
        for size in 0..SIZES {
            let batch = data.batch(&(0..64 + 8 * size).collect::<Vec<_>>())?;
            optimizer.step(objective, theta, &batch)?;
            steps += 1;
            if steps % 100 == 0 {
                println!("{name}, {steps} steps: {}", memory());
            }
        }
    }
    Ok(())
}

/// Memory of the process, where the system tells.
fn memory() -> String {
    let text = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let line = text.lines().find_map(|line| line.strip_prefix("VmRSS:"));
    line.map_or_else(|| "unknown".into(), |line| line.trim().to_string())
}
