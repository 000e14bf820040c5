//! `osculant analyze spectrum`: eigenvalues of the curvature at both ends, and the spectral density, by Lanczos.

use comfy_table::{Table, presets::UTF8_FULL_CONDENSED};
use osculant::linalg::{Lanczos, Start, Tridiagonal};
use osculant::objective::{Accumulated, Curved, QuadraticRequest, Slot};
use serde::Serialize;

use super::panel::{self, Mark, Panel, Scale, Series};
use super::start;
use crate::arguments::Spectrum;
use crate::failure::{Failure, Outcome};
use crate::progress::Progress;
use crate::training::Task;

/// Rows whose products are computed at once.
const ROWS: usize = 10_000;
/// Places at which the density is evaluated.
const PLACES: usize = 400;
/// Width of the Gaussian that each Ritz value becomes, as a part of the range.
const WIDTH: f64 = 0.005;
/// A Ritz pair is shown as an eigenvalue when its residual is below this part of the largest.
const CONVERGED: f64 = 1e-3;
/// Densities below this part of the highest are drawn as this.
const LOWEST: f64 = 1e-7;

/// A Ritz value, with the bound on its error.
#[derive(Clone, Copy, Debug, Serialize)]
struct Eigenvalue {
    value: f64,
    residual: f64,
}

/// What is written to `spectrum.json`.
#[derive(Serialize)]
struct Report {
    problem: String,
    curvature: &'static str,
    parameters: usize,
    examples: usize,
    epochs_trained: f64,
    loss: f64,
    gradient_norm: f64,
    /// Mean of the eigenvalues, estimated by the probes, times their number.
    trace: f64,
    /// Part of the spectral density below zero.
    negative: f64,
    steps: usize,
    /// Converged eigenvalues by falling value.
    eigenvalues: Vec<Eigenvalue>,
    density: Vec<[f64; 2]>,
}

/// Runs the command.
pub(crate) fn run(arguments: &Spectrum) -> Outcome {
    let point = &arguments.point;
    std::fs::create_dir_all(&arguments.out)
        .map_err(|error| Failure::file(&arguments.out, error))?;
    let problem = &point.problem.open()?;
    let data = &problem.load(point.data.as_deref())?;
    let rows = start::rows(data, arguments.batch.as_deref())?;
    let gpu = &crate::place::device(point.adapter.as_deref(), point.tuning.as_deref())?;
    let trainer = start::trainer(Task { gpu, problem, data }, point)?;
    let request = QuadraticRequest {
        curvature: arguments.curvature.into(),
        ..QuadraticRequest::default()
    };
    let theta = &trainer.theta;
    let mut objective = Accumulated::new(trainer.objective.sibling()?);
    let all: Vec<usize> = (0..rows.len()).collect();
    let batch = rows.micro_batches(&all, ROWS)?;
    let quadratic = objective.load_quadratic(Slot::default(), theta, &batch, request)?;
    let parameters = theta.layout().parameters();
    let steps = (arguments.steps as usize).min(parameters);
    let lanczos = Lanczos::new(gpu, &quadratic.as_ref().into(), steps)?;
    let label = format!("{} {steps} products", problem.name());
    let mut progress = Progress::new(label, f64::from(arguments.probes));
    let mut runs = Vec::new();
    for number in 0..arguments.probes {
        let seed = point.seed;
        runs.push(lanczos.run(&quadratic.linearize, Start::Random { seed, number })?);
        progress.update(f64::from(number + 1), u64::from(number) + 1, 0.0);
    }
    progress.finish("done");
    let gradient = quadratic.gradient.read(gpu)?.concat();
    let square: f64 = gradient.iter().map(|g| f64::from(*g).powi(2)).sum();
    let report = Report {
        problem: problem.name().to_owned(),
        curvature: match arguments.curvature {
            crate::arguments::Matrix::Hessian => "hessian",
            crate::arguments::Matrix::Ggn => "ggn",
        },
        parameters,
        examples: rows.len(),
        epochs_trained: trainer.work(),
        loss: f64::from(gpu.read(&[&quadratic.value])?[0][0]),
        gradient_norm: square.sqrt(),
        trace: parameters as f64 * mean(&runs, |value| value),
        negative: mean(&runs, |value| f64::from(u8::from(value < 0.0))),
        steps,
        eigenvalues: converged(&runs[0]),
        density: density(&runs),
    };
    println!("{}", table(&report));
    let folder = &arguments.out;
    let json = serde_json::to_string_pretty(&report).map_err(|e| Failure::new(e.to_string()))?;
    let path = folder.join("spectrum.json");
    std::fs::write(&path, json + "\n").map_err(|error| Failure::file(&path, error))?;
    let title = format!(
        "{}: {} on {} examples, loss {:.3}",
        report.problem, report.curvature, report.examples, report.loss
    );
    panel::write(folder, "spectrum", &title, &panels(&report))?;
    println!("picture: {}", folder.join("spectrum.png").display());
    Ok(())
}

/// The mean of a function over the spectral density.
fn mean(runs: &[Tridiagonal], f: impl Fn(f64) -> f64) -> f64 {
    let each = runs.iter().map(|run| {
        run.quadrature()
            .iter()
            .map(|(value, w)| w * f(*value))
            .sum::<f64>()
    });
    each.sum::<f64>() / runs.len() as f64
}

fn converged(run: &Tridiagonal) -> Vec<Eigenvalue> {
    let (values, _) = run.eigen();
    let largest = values.iter().fold(0.0f64, |most, v| most.max(v.abs()));
    values
        .into_iter()
        .zip(run.residuals())
        .map(|(value, residual)| Eigenvalue { value, residual })
        .filter(|e| e.residual <= CONVERGED * largest)
        .collect()
}

fn density(runs: &[Tridiagonal]) -> Vec<[f64; 2]> {
    let points: Vec<(f64, f64)> = runs.iter().flat_map(Tridiagonal::quadrature).collect();
    let low = points.iter().map(|p| p.0).fold(f64::INFINITY, f64::min);
    let high = points.iter().map(|p| p.0).fold(f64::NEG_INFINITY, f64::max);
    let range = (high - low).max(f64::MIN_POSITIVE);
    let width = WIDTH * range;
    let norm = (2.0 * std::f64::consts::PI).sqrt() * width * runs.len() as f64;
    (0..=PLACES)
        .map(|i| {
            let x = low - 0.05 * range + 1.1 * range * i as f64 / PLACES as f64;
            let each = points
                .iter()
                .map(|(value, w)| w * (-0.5 * ((x - value) / width).powi(2)).exp());
            [x, each.sum::<f64>() / norm]
        })
        .collect()
}

fn panels(report: &Report) -> Vec<Panel> {
    let largest = report.eigenvalues.first().map_or(1.0, |e| e.value.abs());
    // Rounding errors are no eigenvalues.
    let visible = |value: f64| value.abs() > 1e-6 * largest;
    let of = |sign: f64| {
        let mut values: Vec<f64> = report
            .eigenvalues
            .iter()
            .map(|e| e.value * sign)
            .filter(|v| *v > 0.0 && visible(*v))
            .collect();
        values.sort_by(|a, b| b.total_cmp(a));
        values
            .into_iter()
            .enumerate()
            .map(|(i, v)| (i as f64 + 1.0, v))
            .collect()
    };
    let highest = report.density.iter().map(|p| p[1]).fold(0.0, f64::max);
    vec![
        Panel {
            x: "place in the order of size".into(),
            y: "eigenvalue, without its sign".into(),
            x_scale: Scale::Linear,
            y_scale: Scale::Logarithmic,
            rows: Vec::new(),
            series: vec![
                Series::new("positive", of(1.0), Mark::Points),
                Series::new("negative", of(-1.0), Mark::Points),
            ],
        },
        Panel {
            x: "eigenvalue".into(),
            y: "spectral density".into(),
            x_scale: Scale::Linear,
            y_scale: Scale::Logarithmic,
            rows: Vec::new(),
            series: vec![Series::new(
                "",
                report
                    .density
                    .iter()
                    .map(|p| (p[0], p[1].max(LOWEST * highest)))
                    .collect(),
                Mark::Line,
            )],
        },
    ]
}

fn table(report: &Report) -> Table {
    let mut table = Table::new();
    table
        .load_style(UTF8_FULL_CONDENSED)
        .set_header(["", "value"]);
    let list = |values: Vec<f64>| {
        let values: Vec<String> = values.iter().map(|v| format!("{v:.4}")).collect();
        values.join("  ")
    };
    let values = || report.eigenvalues.iter().map(|e| e.value);
    let mut lowest: Vec<f64> = values().filter(|v| *v < 0.0).collect();
    lowest.reverse();
    lowest.truncate(5);
    for (name, value) in [
        ("parameters", report.parameters.to_string()),
        ("examples", report.examples.to_string()),
        ("loss", format!("{:.5}", report.loss)),
        ("|gradient|", format!("{:.5}", report.gradient_norm)),
        ("largest eigenvalues", list(values().take(10).collect())),
        ("most negative", list(lowest)),
        ("trace", format!("{:.4}", report.trace)),
        (
            "density below 0",
            format!("{:.1} %", 100.0 * report.negative),
        ),
    ] {
        table.add_row([name.to_owned(), value]);
    }
    table
}
