//! What a recorded step of Newton-CG takes beside one that the host judges: digits, a batch of 384, ten iterations, one candidate.
//!
//! `cargo run --release --example recorded_steps -- [pairs]`; each pair is ten steps of both kinds, by turns.

use std::time::Instant;

use osculant::data::digits;
use osculant::gpu::Gpu;
use osculant::linalg::CgOptions;
use osculant::nn::{Activation, Loss, Sequential};
use osculant::objective::{GraphObjective, Objective, Slot};
use osculant::optim::{NewtonCg, NewtonCgOptions, Optimizer, Recordable};

const STEPS: usize = 10;

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let pairs: usize = match std::env::args().nth(1) {
        Some(pairs) => pairs.parse()?,
        None => 30,
    };
    let gpu = Gpu::new()?;
    let data = digits()?;
    let model = Sequential::new()
        .dense(64)
        .activation(Activation::Tanh)
        .dense(32)
        .activation(Activation::Tanh)
        .dense(10)
        .model(&data, Loss::SoftmaxCrossEntropy);
    let batch = data.batch(&(0..384).collect::<Vec<_>>())?;
    let mut objective = GraphObjective::new(&gpu, model)?;
    // No reason to stop before the cap.
    let cg = CgOptions::default()
        .with_max_iterations(10)
        .with_residual_tolerance(0.0)
        .with_progress_tolerance(0.0);
    let options = NewtonCgOptions::default()
        .with_cg(cg)
        .with_backtracking(false)
        .with_max_line_search(1);
    let (host_theta, device_theta) = (
        objective.initial_parameters(0)?,
        objective.initial_parameters(0)?,
    );
    let mut host = NewtonCg::new(options.clone())?;
    let loaded = objective.load(Slot::default(), &batch)?;
    let mut device = NewtonCg::new(options)?.recorded(&mut objective, &device_theta, &loaded)?;
    let (mut times, mut ratios) = ([Vec::new(), Vec::new()], Vec::new());
    for pair in 0..=pairs {
        let start = Instant::now();
        for _ in 0..STEPS {
            host.step(&mut objective, &host_theta, &batch)?;
        }
        gpu.wait()?;
        let by_host = start.elapsed().as_secs_f64() / STEPS as f64;
        let start = Instant::now();
        for _ in 0..STEPS {
            gpu.try_submit(|recorder| device.record(recorder))?;
        }
        gpu.wait()?;
        let recorded = start.elapsed().as_secs_f64() / STEPS as f64;
        device.reports()?;
        // The first pair compiles.
        if pair > 0 {
            times[0].push(1e3 * by_host);
            times[1].push(1e3 * recorded);
            ratios.push(recorded / by_host);
        }
    }
    let quartiles = |values: &mut Vec<f64>| {
        values.sort_by(f64::total_cmp);
        let at = |part: f64| {
            values
                .get((part * (values.len() - 1) as f64) as usize)
                .copied()
                .unwrap_or(f64::NAN)
        };
        [at(0.25), at(0.5), at(0.75)]
    };
    let same = host_theta.read(&gpu)? == device_theta.read(&gpu)?;
    println!("{}", gpu.info());
    println!(
        "host-judged  {:.3?} ms a step (quartiles)",
        quartiles(&mut times[0])
    );
    println!("recorded     {:.3?} ms a step", quartiles(&mut times[1]));
    println!(
        "ratio        {:.3?}; the same parameters after all: {same}",
        quartiles(&mut ratios)
    );
    Ok(())
}
