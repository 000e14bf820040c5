//! `osculant show`: a compiled program, kernel by kernel.

use std::ffi::OsStr;
use std::path::Path;
use std::time::Instant;

use clap::ValueEnum;
use comfy_table::{ContentArrangement, Table, presets::UTF8_FULL_CONDENSED};
use osculant::checkpoint::Checkpoint;
use osculant::data::Batch;
use osculant::gpu::{Gpu, Recording};
use osculant::nn::Model;
use osculant::objective::{Curvature, Curved, GraphObjective, Quadratic, QuadraticRequest, Slot};

use crate::arguments::{Phase, Show};
use crate::bench::problems::problems;
use crate::choice::{Choice, is_file};
use crate::experiment::Experiment;
use crate::failure::{Failure, Outcome};
use crate::{place, training};

/// Runs of a kernel in one submission when it is timed, and submissions.
const RUNS: usize = 20;
const SUBMISSIONS: usize = 5;
/// Training rows of a file that make the batch.
const ROWS_OF_FILES: usize = 64;

/// Compiles the program and prints it.
pub(crate) fn run(arguments: &Show) -> Outcome {
    if arguments.locate {
        return locate(arguments);
    }
    let subject = subject(arguments)?;
    let gpu = place::device(arguments.adapter.as_deref(), arguments.tuning.as_deref())?;
    let quadratic = quadratic(&gpu, &subject, arguments)?;
    let (number, work) = match arguments.phase {
        Phase::Gradient | Phase::Linearize => (0, &quadratic.linearize),
        Phase::Hvp | Phase::Ggn => (1, &quadratic.multiply),
        Phase::Block => match &quadratic.block {
            Some(block) => (2, &block.multiply),
            None => return Err(Failure::new("the program has no block".to_owned())),
        },
    };
    let recording = work.recorded()?;
    let milliseconds = if arguments.time {
        gpu.run([&quadratic.linearize])?;
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
    println!("{}", summary(&quadratic, &subject, number, recording));
    Ok(())
}

/// What is shown: a network with a batch.
struct Subject {
    name: String,
    /// The network; none has a term of its own for its parameters but that of a file.
    model: Model,
    l2: f32,
    /// Its parameters, where they are not the initial ones.
    parameters: Option<Vec<Vec<f32>>>,
    batch: Batch,
}

fn subject(arguments: &Show) -> Outcome<Subject> {
    let name = &arguments.problem;
    if is_file(OsStr::new(name)) {
        let experiment = Experiment::open(Path::new(name))?;
        let train = &experiment.data().train;
        let rows: Vec<usize> = (0..train.len().min(ROWS_OF_FILES)).collect();
        return Ok(Subject {
            name: experiment.name.clone(),
            model: experiment.model(train),
            l2: experiment.l2(),
            parameters: None,
            batch: train.batch(&rows)?,
        });
    }
    let Some(problem) = problems()?.into_iter().find(|p| p.name == name) else {
        let message = format!("'{name}' is no network of `osculant bench`");
        return Err(Failure::new(message).hint(format!("osculant show {name} --locate")));
    };
    Ok(Subject {
        name: problem.name.to_owned(),
        model: problem.model(),
        l2: 0.0,
        batch: problem.dataset.full_batch(),
        parameters: Some(problem.parameters),
    })
}

/// Prints where numbers stop being finite, at the parameters of a checkpoint.
fn locate(arguments: &Show) -> Outcome {
    let problem = if is_file(OsStr::new(&arguments.problem)) {
        Choice::File(arguments.problem.clone().into()).open()?
    } else {
        crate::problems::Problem::from_str(&arguments.problem, true).map_err(|_| {
            let message = format!("'{}' is no problem of `osculant train`", arguments.problem);
            Failure::new(message).hint("osculant show digits-mlp --locate")
        })?
    };
    let stored = arguments.checkpoint.as_deref();
    let checkpoint = stored.map(Checkpoint::load).transpose()?;
    let data = problem.load(arguments.data.as_deref())?;
    let gpu = place::device(arguments.adapter.as_deref(), arguments.tuning.as_deref())?;
    let mut objective = problem.objective(&gpu, &data.train)?;
    let theta = objective.initial_parameters(0)?;
    if let Some(checkpoint) = &checkpoint {
        checkpoint.restore_parameters(&gpu, &theta)?;
    }
    let batch = training::first_rows(&data.train)?;
    println!("{}", training::locate(&mut objective, &theta, &batch)?);
    Ok(())
}

fn quadratic(gpu: &Gpu, subject: &Subject, arguments: &Show) -> Outcome<std::sync::Arc<Quadratic>> {
    let mut objective = GraphObjective::new(gpu, subject.model.clone())?.with_l2(subject.l2)?;
    let theta = objective.initial_parameters(0)?;
    if let Some(parameters) = &subject.parameters {
        theta.write(gpu, parameters)?;
    }
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
    Ok(objective.load_quadratic(Slot::default(), &theta, &subject.batch, request)?)
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
    subject: &Subject,
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
        subject.name,
        subject.batch.len(),
        listing.phase(phase).count(),
        recording.dispatches(),
        listing.flops(phase),
        listing.planned_bytes(),
        listing.buffers.len(),
        listing.values,
    )
}
