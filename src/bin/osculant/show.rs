//! `osculant show`: a compiled program, kernel by kernel.

use std::time::Instant;

use clap::ValueEnum;
use comfy_table::{ContentArrangement, Table, presets::UTF8_FULL_CONDENSED};
use osculant::checkpoint::Checkpoint;
use osculant::gpu::{Gpu, Recording};
use osculant::objective::{Curvature, Curved, GraphObjective, Quadratic, QuadraticRequest, Slot};

use crate::arguments::{Phase, Show};
use crate::bench::problems::{Problem, problems};
use crate::failure::{Failure, Outcome};
use crate::{place, training};

/// Runs of a kernel in one submission when it is timed, and submissions.
const RUNS: usize = 20;
const SUBMISSIONS: usize = 5;

/// Compiles the program and prints it.
pub(crate) fn run(arguments: &Show) -> Outcome {
    if arguments.locate {
        return locate(arguments);
    }
    let all = problems()?;
    let Some(problem) = all.iter().find(|p| p.name == arguments.problem) else {
        let message = format!("'{}' is no network of `osculant bench`", arguments.problem);
        let hint = format!("osculant show {} --locate", arguments.problem);
        return Err(Failure::new(message).hint(hint));
    };
    let gpu = place::device(arguments.adapter.as_deref(), arguments.tuning.as_deref())?;
    let quadratic = quadratic(&gpu, problem, arguments)?;
    let (number, recording) = match arguments.phase {
        Phase::Gradient | Phase::Linearize => (0, &quadratic.linearize),
        Phase::Hvp | Phase::Ggn => (1, &quadratic.multiply),
        Phase::Block => match &quadratic.block {
            Some(block) => (2, &block.multiply),
            None => return Err(Failure::new("the program has no block".to_owned())),
        },
    };
    let milliseconds = if arguments.time {
        gpu.submit(|recorder| recorder.replay(&quadratic.linearize))?;
        Some(times(&gpu, recording)?)
    } else {
        None
    };
    if arguments.json {
        let text = serde_json::to_string_pretty(&*quadratic.listing)
            .map_err(|error| Failure::new(error.to_string()))?;
        println!("{text}");
        return Ok(());
    }
    println!("{}", table(&quadratic, number, milliseconds.as_deref()));
    println!("{}", summary(&quadratic, problem, number, recording));
    Ok(())
}

/// Prints where numbers stop being finite, at the parameters of a checkpoint.
fn locate(arguments: &Show) -> Outcome {
    let Ok(problem) = crate::problems::Problem::from_str(&arguments.problem, true) else {
        let message = format!("'{}' is no problem of `osculant train`", arguments.problem);
        return Err(Failure::new(message).hint("osculant show digits-mlp --locate"));
    };
    let stored = arguments.checkpoint.as_deref();
    let checkpoint = stored.map(Checkpoint::load).transpose()?;
    let data = problem.load(arguments.data.as_deref())?;
    let gpu = place::device(arguments.adapter.as_deref(), arguments.tuning.as_deref())?;
    let mut objective = GraphObjective::new(&gpu, problem.model(&data.train))?;
    let theta = objective.initial_parameters(0)?;
    if let Some(checkpoint) = &checkpoint {
        checkpoint.restore_parameters(&gpu, &theta)?;
    }
    let batch = training::first_rows(&data.train)?;
    println!("{}", training::locate(&mut objective, &theta, &batch)?);
    Ok(())
}

fn quadratic(gpu: &Gpu, problem: &Problem, arguments: &Show) -> Outcome<std::sync::Arc<Quadratic>> {
    let mut objective = GraphObjective::new(gpu, problem.model())?;
    let theta = objective.initial_parameters(0)?;
    theta.write(gpu, &problem.parameters)?;
    let curvature = match arguments.phase {
        Phase::Gradient => Curvature::None,
        Phase::Ggn => Curvature::GaussNewton,
        Phase::Hvp => Curvature::Hessian,
        Phase::Linearize | Phase::Block => arguments.curvature.into(),
    };
    let request = QuadraticRequest {
        curvature,
        block: if arguments.phase == Phase::Block {
            arguments.width as usize
        } else {
            0
        },
        ..QuadraticRequest::default()
    };
    Ok(objective.load_quadratic(
        Slot::default(),
        &theta,
        &problem.dataset.full_batch(),
        request,
    )?)
}

/// Milliseconds of each kernel, with the copies of its operands to textures: the least of several submissions of many runs.
fn times(gpu: &Gpu, recording: &Recording) -> Outcome<Vec<f64>> {
    let runs = recording.kernel_runs();
    runs.iter()
        .map(|run| {
            let mut many = Recording::new();
            for _ in 0..RUNS {
                many.append(run.clone());
            }
            let mut least = f64::INFINITY;
            for _ in 0..=SUBMISSIONS {
                let start = Instant::now();
                gpu.submit(|recorder| recorder.replay(&many))?;
                gpu.wait()?;
                least = least.min(start.elapsed().as_secs_f64() * 1e3 / RUNS as f64);
            }
            Ok(least)
        })
        .collect()
}

fn table(quadratic: &Quadratic, phase: usize, milliseconds: Option<&[f64]>) -> Table {
    let mut table = Table::new();
    let mut header = vec!["#", "kernel", "writes", "reads", "flops", "bytes"];
    if milliseconds.is_some() {
        header.extend(["ms", "GFLOP/s", "GB/s"]);
    }
    table
        .load_style(UTF8_FULL_CONDENSED)
        .set_content_arrangement(ContentArrangement::Dynamic)
        .set_header(header);
    for (index, kernel) in quadratic.listing.phase(phase).enumerate() {
        let mut row = vec![
            index.to_string(),
            kernel.kind.to_owned(),
            std::iter::once(&kernel.result)
                .chain(&kernel.also)
                .cloned()
                .collect::<Vec<_>>()
                .join("\n"),
            kernel.operands.join("\n"),
            kernel.flops.to_string(),
            kernel.bytes.to_string(),
        ];
        if let Some(&ms) = milliseconds.and_then(|times| times.get(index)) {
            row.push(format!("{ms:.4}"));
            row.push(format!("{:.2}", kernel.flops as f64 / ms * 1e-6));
            row.push(format!("{:.2}", kernel.bytes as f64 / ms * 1e-6));
        }
        table.add_row(row);
    }
    table
}

fn summary(
    quadratic: &Quadratic,
    problem: &Problem,
    phase: usize,
    recording: &Recording,
) -> String {
    let listing = &quadratic.listing;
    let parts = quadratic.block.as_ref().map_or(String::new(), |block| {
        format!(
            "Directions: {}, {} at once.\n",
            block.directions.width(),
            block.width
        )
    });
    format!(
        "{}, batch {}: {} kernels in this phase, {} dispatches, {} flops.\n{parts}\
         Memory for intermediate values of all phases: {} bytes in {} buffers, planned and allocated (each value in a buffer of \
         its own: {} bytes).\n\
         `product+` and `sum+` compute what is elementwise in their results before they store them.",
        problem.name,
        problem.batch,
        listing.phase(phase).count(),
        recording.dispatches(),
        listing.flops(phase),
        listing.planned_bytes(),
        listing.buffers.len(),
        listing.values,
    )
}
