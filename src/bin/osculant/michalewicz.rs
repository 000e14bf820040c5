//! `osculant michalewicz`: how far saddle-free steps come on a function full of saddles, by rank.

use comfy_table::{Table, presets::UTF8_FULL_CONDENSED};
use osculant::Error;
use osculant::data::Batch;
use osculant::gpu::Gpu;
use osculant::linalg::{Basis, EigenOptions, Operator, RandomizedEigensolver, Storage};
use osculant::nn::functions::michalewicz;
use osculant::objective::{Curvature, Curved, GraphObjective, Objective, QuadraticRequest, Slot};
use osculant::optim::{LowRankSaddleFreeNewton, LrsfnOptions, Optimizer, Sgd, SgdOptions};
use osculant::vector::Vector;
use serde::Serialize;

use crate::arguments::{LrsfnMode, Michalewicz};
use crate::failure::{Failure, Outcome};
use crate::place;

/// Dimensions of the function, and steps of a run: those of the table in docs/results.md.
const DIMENSIONS: usize = 100;
const STEPS: usize = 100;
/// Damping of exact saddle-free Newton, and of the low-rank method.
const EXACT_DAMPING: f64 = 1e-4;
const DAMPING: f64 = 1e-3;

/// A row of the table: means over the seeds of the best and of the last value in a run.
#[derive(Clone, Debug, Serialize)]
struct Row {
    method: &'static str,
    mode: Option<&'static str>,
    rank: Option<usize>,
    mean_best: f64,
    /// Standard deviation of the best value over the seeds.
    std: f64,
    final_mean: f64,
}

#[derive(Serialize)]
struct Report {
    dimensions: usize,
    steps: usize,
    seeds: u64,
    start: f64,
    rows: Vec<Row>,
}

/// A step that needs every eigenpair.
#[derive(Clone, Copy)]
enum Exact {
    /// Along the gradient, by `1 / |l_1|`.
    Scaled,
    /// `-C^-1 g`
    Newton,
    /// `-(|C| + damping)^-1 g`
    SaddleFree,
}

/// Best and last value of a run, and the first.
struct Run {
    first: f64,
    best: f64,
    last: f64,
}

/// Runs every method from every seed, prints the table, and writes it.
pub(crate) fn run(arguments: &Michalewicz) -> Outcome {
    if let Some(rank) = arguments
        .ranks
        .iter()
        .find(|rank| !(1..=DIMENSIONS).contains(rank))
    {
        return Err(Failure::new(format!(
            "--ranks {rank}: the function has {DIMENSIONS} dimensions, so ranks go from 1 to {DIMENSIONS}"
        )));
    }
    let gpu = place::device(arguments.adapter.as_deref(), None)?;
    let mut objective = GraphObjective::new(&gpu, michalewicz(DIMENSIONS))?;
    let theta = objective.initial_parameters(0)?;
    let mut start = 0.0;
    let mut rows = Vec::new();
    let mut add = |method, mode: Option<&'static str>, rank: Option<usize>, runs: Vec<Run>| {
        let n = runs.len() as f64;
        let mean = |f: fn(&Run) -> f64| runs.iter().map(f).sum::<f64>() / n;
        let best = mean(|run| run.best);
        let variance = runs.iter().map(|r| (r.best - best).powi(2)).sum::<f64>() / (n - 1.0);
        start = mean(|run| run.first);
        eprintln!(
            "{method} {} {}: {best:.2}",
            mode.unwrap_or(""),
            rank.map_or(String::new(), |r| r.to_string())
        );
        rows.push(Row {
            method,
            mode,
            rank,
            mean_best: best,
            std: if runs.len() > 1 { variance.sqrt() } else { 0.0 },
            final_mean: mean(|run| run.last),
        });
    };
    let seeds = || 0..arguments.seeds;
    let mut gradient_descent = Vec::new();
    for seed in seeds() {
        begin(&objective, &theta, seed)?;
        let mut method = Sgd::new(
            SgdOptions::default()
                .with_learning_rate(1.0)
                .with_momentum(0.0),
        )?;
        gradient_descent.push(optimize(&mut objective, &theta, &mut method)?);
    }
    add("gradient descent", None, None, gradient_descent);
    for (name, kind) in [
        ("curvature-scaled gradient descent", Exact::Scaled),
        ("Newton", Exact::Newton),
        ("saddle-free Newton", Exact::SaddleFree),
    ] {
        let mut runs = Vec::new();
        for seed in seeds() {
            begin(&objective, &theta, seed)?;
            runs.push(exact(&gpu, &mut objective, &theta, kind)?);
        }
        add(name, None, None, runs);
    }
    for mode in &arguments.modes {
        for &rank in &arguments.ranks {
            let mut runs = Vec::new();
            for seed in seeds() {
                begin(&objective, &theta, seed)?;
                let mut method = LowRankSaddleFreeNewton::new(options(*mode, rank))?;
                runs.push(optimize(&mut objective, &theta, &mut method)?);
            }
            add(
                "low-rank saddle-free Newton",
                Some(mode.name()),
                Some(rank),
                runs,
            );
        }
    }
    let report = Report {
        dimensions: DIMENSIONS,
        steps: STEPS,
        seeds: arguments.seeds,
        start,
        rows,
    };
    println!("{}", table(&report));
    if let Some(folder) = &arguments.out {
        let path = folder.join("michalewicz.json");
        let text = serde_json::to_string_pretty(&report)
            .map_err(|error| Failure::new(error.to_string()))?;
        std::fs::create_dir_all(folder)
            .and_then(|()| std::fs::write(&path, text + "\n"))
            .map_err(|error| Failure::new(format!("cannot write {}: {error}", path.display())))?;
        println!("Written: {}", path.display());
    }
    Ok(())
}

fn options(mode: LrsfnMode, rank: usize) -> LrsfnOptions {
    match mode {
        LrsfnMode::Paper => LrsfnOptions::paper(rank, 1.0, DAMPING),
        LrsfnMode::Default => {
            let options = LrsfnOptions::default().with_damping(DAMPING);
            let eigen = options.eigen.clone().with_rank(rank);
            options.with_eigen(eigen)
        }
    }
}

/// Puts the start of a seed into `theta`.
fn begin(objective: &GraphObjective, theta: &Vector, seed: u64) -> Outcome {
    let from = objective.initial_parameters(seed)?;
    theta.write(objective.gpu(), &from.read(objective.gpu())?)?;
    Ok(())
}

fn optimize(
    objective: &mut GraphObjective,
    theta: &Vector,
    method: &mut impl Optimizer<GraphObjective>,
) -> Outcome<Run> {
    let batch = Batch::without_data();
    let mut values = Vec::new();
    for _ in 0..STEPS {
        match method.step(objective, theta, &batch) {
            Ok(report) => values.push(report.loss_before),
            // Steps that are too long lead to where f32 ends, or to where squares of the curvature are outside of it; the run stays where
            // it was.
            Err(Error::NotFinite { .. }) => break,
            Err(Error::Unsupported { .. }) if !values.is_empty() => break,
            Err(error) => return Err(error.into()),
        }
    }
    let (last, _) = linearize(objective, theta, Curvature::None)?;
    values.push(last);
    Ok(summary(&values))
}

fn summary(values: &[f64]) -> Run {
    Run {
        first: values.first().copied().unwrap_or(f64::NAN),
        best: values.iter().copied().fold(f64::INFINITY, f64::min),
        last: values.last().copied().unwrap_or(f64::NAN),
    }
}

/// Value and gradient.
fn linearize(
    objective: &mut GraphObjective,
    theta: &Vector,
    curvature: Curvature,
) -> Outcome<(f64, Vec<f64>)> {
    let request = QuadraticRequest {
        curvature,
        ..QuadraticRequest::default()
    };
    let quadratic =
        objective.load_quadratic(Slot::default(), theta, &Batch::without_data(), request)?;
    let gpu = objective.gpu();
    gpu.run([&quadratic.linearize])?;
    let value = f64::from(gpu.read(&[&quadratic.value])?[0][0]);
    let gradient = quadratic.gradient.read(gpu)?.concat();
    Ok((value, gradient.into_iter().map(f64::from).collect()))
}

/// A method that decomposes the whole Hessian: the eigensolver with a block as wide as the space.
fn exact(gpu: &Gpu, objective: &mut GraphObjective, theta: &Vector, kind: Exact) -> Outcome<Run> {
    let options = EigenOptions::default()
        .with_rank(DIMENSIONS)
        .with_oversampling(0)
        .with_power_iterations(0);
    let request = QuadraticRequest {
        curvature: Curvature::Hessian,
        block: options.width(),
        ..QuadraticRequest::default()
    };
    let quadratic =
        objective.load_quadratic(Slot::default(), theta, &Batch::without_data(), request)?;
    let Some(block) = &quadratic.block else {
        return Err(Failure::new("the program has no block".to_owned()));
    };
    let basis = Basis::new(gpu, theta.layout(), DIMENSIONS, Storage::Full)?;
    let operator = Operator::from(block);
    let mut solver = RandomizedEigensolver::new(gpu, &operator, &basis, &options)?;
    let mut values = Vec::new();
    for _ in 0..STEPS {
        let (value, gradient) = linearize(objective, theta, Curvature::None)?;
        values.push(value);
        let found = solver.solve(&quadratic.linearize, false)?;
        let mut point: Vec<f64> = theta
            .read(gpu)?
            .concat()
            .into_iter()
            .map(f64::from)
            .collect();
        for (vector, &eigenvalue) in basis.read(gpu)?.iter().zip(&found.values) {
            let vector: Vec<f64> = vector.concat().into_iter().map(f64::from).collect();
            let along: f64 = vector.iter().zip(&gradient).map(|(u, g)| u * g).sum();
            let factor = match kind {
                Exact::Scaled => found.values[0].abs().recip(),
                Exact::Newton => eigenvalue.recip(),
                Exact::SaddleFree => (eigenvalue.abs() + EXACT_DAMPING).recip(),
            };
            for (x, u) in point.iter_mut().zip(&vector) {
                *x -= factor * along * u;
            }
        }
        if point.iter().any(|x| !x.is_finite() || x.abs() > 1e4) {
            break;
        }
        theta.write(gpu, &[point.into_iter().map(|x| x as f32).collect()])?;
    }
    values.push(linearize(objective, theta, Curvature::None)?.0);
    Ok(summary(&values))
}

fn table(report: &Report) -> Table {
    let mut table = Table::new();
    table.load_style(UTF8_FULL_CONDENSED).set_header([
        "method",
        "mode",
        "rank",
        "mean best",
        "std",
        "final mean",
    ]);
    for row in &report.rows {
        table.add_row([
            row.method.to_owned(),
            row.mode.unwrap_or("").to_owned(),
            row.rank.map_or(String::new(), |rank| rank.to_string()),
            format!("{:.2}", row.mean_best),
            format!("{:.2}", row.std),
            format!("{:.2}", row.final_mean),
        ]);
    }
    table
}
