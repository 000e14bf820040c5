//! `osculant bench`: what is timed, beside what else, and how.

mod device;
mod network;
pub(crate) mod problems;
mod products;
mod results;
mod tables;
mod timing;
mod vectors;

use std::io::IsTerminal;

use indicatif::{ProgressBar, ProgressStyle};

use self::network::Extent;
use self::results::Results;
use self::timing::Effort;
use crate::arguments::Bench;
use crate::failure::{Failure, Outcome};
use crate::place;

/// Measures, prints tables, writes `bench.json`.
pub(crate) fn run(arguments: &Bench) -> Outcome {
    // What cannot be written is better known before than after.
    if let Some(folder) = &arguments.out {
        std::fs::create_dir_all(folder).map_err(|error| {
            Failure::file(folder, error).hint("--out takes a folder that can be made or written to")
        })?;
    }
    let gpu = place::device(arguments.adapter.as_deref(), arguments.tuning.as_deref())?;
    eprintln!("Measuring on {}", gpu.info());
    let mut problems = problems::problems()?;
    if !arguments.problem.is_empty() {
        problems.retain(|problem| arguments.problem.iter().any(|name| name == problem.name));
    }
    let effort = Effort::new(arguments.quick);
    let steps = Steps::new(3 + problems.len() as u64);

    steps.next("multiply-adds and copies");
    let (fma_peak, fma_kernel) = device::fma_peak(&gpu, effort)?;
    let (copy, copy_kernel) = device::copy(&gpu, effort)?;
    steps.done();
    let products = products::measure(&gpu, effort, arguments.quick, |what| steps.next(what))?;
    steps.done();
    steps.next("vectors");
    let vectors = vectors::measure(&gpu, effort)?;
    steps.done();
    let extent = Extent {
        effort,
        quick: arguments.quick,
    };
    let mut networks = Vec::new();
    for problem in &problems {
        let name = problem.name;
        networks.push(network::measure(&gpu, problem, extent, |what| {
            steps.next(&format!("{name}: {what}"));
        })?);
        steps.done();
    }
    steps.finish();

    let results = Results {
        fma_peak,
        fma_kernel,
        copy,
        copy_kernel,
        products,
        vectors,
        networks,
    };
    println!("{}", tables::text(&results, &gpu));
    if let Some(folder) = &arguments.out {
        let path = folder.join("bench.json");
        let text = serde_json::to_string_pretty(&results.json(&gpu, arguments.quick))
            .map_err(|error| Failure::new(format!("bench.json: {error}")))?;
        std::fs::write(&path, text + "\n").map_err(|error| Failure::file(&path, error))?;
        println!("Written to {}.", path.display());
    }
    Ok(())
}

/// How far the run is: a bar on a terminal, lines elsewhere.
struct Steps {
    bar: Option<ProgressBar>,
}

impl Steps {
    fn new(count: u64) -> Self {
        let bar = std::io::stderr().is_terminal().then(|| {
            let bar = ProgressBar::new(count);
            if let Ok(style) =
                ProgressStyle::with_template("{bar:24} {pos}/{len} {elapsed:>4}  {msg}")
            {
                bar.set_style(style.progress_chars("=> "));
            }
            bar
        });
        Self { bar }
    }

    /// Names what comes next.
    fn next(&self, what: &str) {
        match &self.bar {
            Some(bar) => {
                bar.set_message(what.to_owned());
                bar.tick();
            }
            None => eprintln!("{what}"),
        }
    }

    /// One of the steps is done.
    fn done(&self) {
        if let Some(bar) = &self.bar {
            bar.inc(1);
        }
    }

    fn finish(&self) {
        if let Some(bar) = &self.bar {
            bar.finish_and_clear();
        }
    }
}
