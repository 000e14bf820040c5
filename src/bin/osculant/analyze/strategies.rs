//! `osculant analyze strategies`: full training with single and with decoupled mini-batches, with equal data and equal work, tuned for
//! each.

use comfy_table::{Table, presets::UTF8_FULL_CONDENSED};
use serde::Serialize;

use super::panel::{self, Mark, Panel, Scale, Series};
use crate::arguments::{Strategies, StrategiesMethod};
use crate::failure::{Failure, Outcome};
use crate::methods::Method;
use crate::optimizers::Setup;
use crate::training::{Point, Task, Trainer};
use crate::tune::{SEED, trial_work};

/// Quantiles of Student's distribution at 97.5 %, for 1, 2, ... degrees of freedom; the normal one beyond.
const QUANTILES: [f64; 10] = [
    12.706, 4.303, 3.182, 2.776, 2.571, 2.447, 2.365, 2.306, 2.262, 2.228,
];
const NORMAL_QUANTILE: f64 = 1.96;

/// Who makes what.
struct Strategy {
    name: &'static str,
    method: Method,
    settings: &'static [(&'static str, &'static str)],
}

const fn newton(name: &'static str, settings: &'static [(&'static str, &'static str)]) -> Strategy {
    Strategy {
        name,
        method: Method::DecoupledNewtonCg,
        settings,
    }
}

const fn lrsfn(name: &'static str, settings: &'static [(&'static str, &'static str)]) -> Strategy {
    Strategy {
        name,
        method: Method::Lrsfn,
        settings,
    }
}

const NEWTON_CG: [Strategy; 9] = [
    Strategy {
        name: "single",
        method: Method::NewtonCg,
        settings: &[],
    },
    newton(
        "single, judged apart",
        &[("strategy", "single"), ("acceptance", "0.2")],
    ),
    newton("decoupled", &[("strategy", "decoupled")]),
    newton(
        "decoupled, judged apart",
        &[("strategy", "decoupled"), ("acceptance", "0.2")],
    ),
    newton("cross-fit", &[("strategy", "cross-fit")]),
    newton(
        "cross-fit, shrinking",
        &[("strategy", "cross-fit"), ("shrinking", "true")],
    ),
    newton(
        "cross-fit, judged apart",
        &[("strategy", "cross-fit"), ("acceptance", "0.2")],
    ),
    newton("4-fold", &[("strategy", "cross-fit"), ("folds", "4")]),
    newton(
        "4-fold, steps of three",
        &[
            ("strategy", "cross-fit"),
            ("folds", "4"),
            ("directions", "1"),
        ],
    ),
];

/// All on the gradient as base, which cross-fitting needs, with the Gauss-Newton matrix or Hessian as their default says.
const LRSFN: [Strategy; 6] = [
    lrsfn("single", &[("strategy", "single")]),
    lrsfn(
        "single, judged apart",
        &[("strategy", "single"), ("acceptance", "0.2")],
    ),
    lrsfn("decoupled", &[("strategy", "decoupled")]),
    lrsfn("cross-fit", &[("strategy", "cross-fit")]),
    lrsfn(
        "cross-fit, judged apart",
        &[("strategy", "cross-fit"), ("acceptance", "0.2")],
    ),
    lrsfn("4-fold", &[("strategy", "cross-fit"), ("folds", "4")]),
];

/// One point of the grid.
type Candidate = Vec<(&'static str, String)>;

/// What is tuned for each strategy.
fn grid(arguments: &Strategies) -> Vec<Candidate> {
    let numbers = |values: &[f64]| -> Vec<String> { values.iter().map(f64::to_string).collect() };
    let (key, values) = match arguments.method {
        StrategiesMethod::NewtonCg => {
            let counts: Vec<String> = arguments.iterations.iter().map(u32::to_string).collect();
            ("max-iterations", counts)
        }
        StrategiesMethod::Lrsfn => ("step-length", numbers(&arguments.step_lengths)),
    };
    let mut grid = Vec::new();
    for damping in numbers(&arguments.dampings) {
        for value in &values {
            grid.push(vec![("damping", damping.clone()), (key, value.clone())]);
        }
    }
    grid
}

/// A mean over the seeds, with half of its 95 % confidence interval.
#[derive(Clone, Copy, Debug, Serialize)]
struct Interval {
    mean: f64,
    half_width: f64,
}

#[derive(Clone, Debug, Serialize)]
struct Row {
    strategy: &'static str,
    batch: u32,
    /// What was chosen.
    options: String,
    /// Options and mean validation loss of their trials; none where one diverged.
    trials: Vec<(String, Option<f64>)>,
    steps: f64,
    train_loss: Interval,
    test_loss: Interval,
    test_accuracy: Interval,
    seconds: f64,
    diverged: usize,
}

/// Runs the command.
pub(crate) fn run(arguments: &Strategies) -> Outcome {
    let problem = &arguments.problem.open()?;
    std::fs::create_dir_all(&arguments.out)
        .map_err(|error| Failure::file(&arguments.out, error))?;
    let work = arguments.place.work(problem, None)?;
    let data = problem.load(arguments.place.data.as_deref())?;
    let validation = data.for_tuning()?;
    // Trials see fewer rows than runs.
    let most = validation.train.len();
    let odd = |batch: &&u32| !(1..=most).contains(&(**batch as usize));
    if let Some(batch) = arguments.batches.iter().find(odd) {
        let message = format!("--batches {batch}: trials have {most} rows");
        return Err(
            Failure::new(message).hint(format!("for example --batches {}", most.div_ceil(2)))
        );
    }
    let gpu = arguments.place.gpu()?;
    let task = Task {
        gpu: &gpu,
        problem,
        data: &data,
    };
    let mut rows = Vec::new();
    let strategies: &[Strategy] = match arguments.method {
        StrategiesMethod::NewtonCg => &NEWTON_CG,
        StrategiesMethod::Lrsfn => &LRSFN,
    };
    let grid = grid(arguments);
    let trial_length = arguments
        .trial_work
        .unwrap_or_else(|| trial_work(problem, work));
    for &batch in &arguments.batches {
        for strategy in strategies {
            let with = |candidate: &Candidate| -> Outcome<Setup> {
                let mut setup = Setup::new(strategy.method, problem);
                setup.set("batch", &batch.to_string())?;
                if strategy.method == Method::Lrsfn {
                    for (key, value) in [
                        ("base", "gradient"),
                        ("average", "0"),
                        ("refresh", arguments.refresh.as_str()),
                    ] {
                        setup.set(key, value)?;
                    }
                }
                if arguments.fixed {
                    setup.set("damping-decrease", "1")?;
                }
                for (key, value) in strategy.settings {
                    setup.set(key, value)?;
                }
                for (key, value) in candidate {
                    setup.set(key, value)?;
                }
                Ok(setup)
            };
            let trial = Task {
                data: &validation,
                ..task
            };
            let mut trials = Vec::new();
            for candidate in &grid {
                let mut sum = Some(0.0);
                for number in 0..arguments.tuning_seeds {
                    let mut trainer = Trainer::new(trial, &with(candidate)?, SEED + number)?;
                    let end = finish(&mut trainer, trial_length)?;
                    sum = sum.zip(end).map(|(sum, end)| sum + end.test_loss);
                    if sum.is_none() {
                        break;
                    }
                }
                let loss = sum.map(|sum| sum / arguments.tuning_seeds as f64);
                let options = text(candidate);
                let name = strategy.name;
                eprintln!("{name}, batch {batch}, {options}: {loss:?}");
                trials.push((options, loss));
            }
            let value = |at: usize| trials[at].1.unwrap_or(f64::INFINITY);
            let best = (0..grid.len())
                .min_by(|&a, &b| value(a).total_cmp(&value(b)))
                .unwrap_or(0);
            let mut ends = Vec::new();
            let mut diverged = 0;
            for seed in 0..arguments.seeds {
                let mut trainer = Trainer::new(task, &with(&grid[best])?, seed)?;
                match finish(&mut trainer, work)? {
                    Some(end) => ends.push(end),
                    None => diverged += 1,
                }
            }
            let of = |f: fn(&Point) -> f64| interval(&ends.iter().map(f).collect::<Vec<_>>());
            rows.push(Row {
                strategy: strategy.name,
                batch,
                options: text(&grid[best]),
                trials,
                steps: of(|p| p.step as f64).mean,
                train_loss: of(|p| p.train_loss),
                test_loss: of(|p| p.test_loss),
                test_accuracy: of(|p| p.test_accuracy),
                seconds: of(|p| p.seconds).mean,
                diverged,
            });
            // What is known so far outlives an error in what comes.
            save(arguments, &rows)?;
        }
    }
    println!("{}", table(&rows, problem.accuracy_name()));
    let title = format!(
        "{}: final losses, means of {} runs with 95 % confidence intervals",
        problem.name(),
        arguments.seeds
    );
    panel::write(&arguments.out, "strategies", &title, &panels(&rows))
}

fn save(arguments: &Strategies, rows: &[Row]) -> Outcome {
    let json = serde_json::to_string_pretty(rows).map_err(|e| Failure::new(e.to_string()))?;
    let path = arguments.out.join("strategies.json");
    std::fs::write(&path, json + "\n").map_err(|error| Failure::file(&path, error))
}

/// For each batch size the losses of all strategies, the first one on top.
fn panels(rows: &[Row]) -> Vec<Panel> {
    rows.chunk_by(|a, b| a.batch == b.batch)
        .map(|rows| {
            let losses = |of: fn(&Row) -> Interval, off: f64| -> Vec<(f64, f64)> {
                let from_below = rows.iter().rev().enumerate();
                from_below
                    .flat_map(|(height, row)| {
                        let Interval { mean, half_width } = of(row);
                        let half_width = if half_width.is_nan() { 0.0 } else { half_width };
                        let y = height as f64 + off;
                        // On a logarithmic axis an interval has no end at zero or below.
                        let low = (mean - half_width).max(0.1 * mean);
                        [(mean, y), (low, y), (mean + half_width, y)]
                    })
                    .collect()
            };
            let (training, test) = (
                losses(|r| r.train_loss, 0.12),
                losses(|r| r.test_loss, -0.12),
            );
            let all = || training.iter().chain(&test).map(|point| point.0);
            let (low, high) = (
                all().fold(f64::INFINITY, f64::min),
                all().fold(0.0, f64::max),
            );
            Panel {
                x: format!("loss, batches of {}", rows[0].batch),
                // A logarithmic axis of less than a decade has hardly a label.
                x_scale: if high > 10.0 * low {
                    Scale::Logarithmic
                } else {
                    Scale::Linear
                },
                rows: rows.iter().rev().map(|row| row.strategy.into()).collect(),
                series: vec![
                    Series::new("training", training, Mark::Intervals),
                    Series::new("test", test, Mark::Intervals),
                ],
                ..Panel::default()
            }
        })
        .collect()
}

/// Trains until the work is done, and evaluates once; none where that diverges.
fn finish(trainer: &mut Trainer<'_>, work: f64) -> Outcome<Option<Point>> {
    trainer.set_total(work);
    while trainer.work() < work {
        match trainer.step() {
            Ok(_) => {}
            Err(osculant::Error::NotFinite { .. }) => return Ok(None),
            Err(error) => return Err(error.into()),
        }
    }
    let end = trainer.evaluate()?;
    Ok((end.train_loss.is_finite() && end.test_loss.is_finite()).then_some(end))
}

fn text(candidate: &Candidate) -> String {
    let each: Vec<String> = candidate
        .iter()
        .map(|(key, value)| format!("{key} {value}"))
        .collect();
    each.join(", ")
}

fn interval(values: &[f64]) -> Interval {
    let n = values.len();
    let mean = values.iter().sum::<f64>() / n as f64;
    if n < 2 {
        return Interval {
            mean,
            half_width: f64::NAN,
        };
    }
    let square: f64 = values.iter().map(|v| (v - mean).powi(2)).sum();
    let error = (square / (n as f64 - 1.0) / n as f64).sqrt();
    let quantile = QUANTILES.get(n - 2).copied().unwrap_or(NORMAL_QUANTILE);
    Interval {
        mean,
        half_width: quantile * error,
    }
}

fn table(rows: &[Row], accuracy: &str) -> Table {
    let accuracy = format!("test {accuracy}");
    let mut table = Table::new();
    table.load_style(UTF8_FULL_CONDENSED).set_header([
        "strategy",
        "batch",
        "tuned",
        "steps",
        "training loss",
        "test loss",
        &accuracy,
        "seconds",
    ]);
    for row in rows {
        let with = |i: Interval| format!("{:.4} ± {:.4}", i.mean, i.half_width);
        table.add_row([
            match row.diverged {
                0 => row.strategy.to_owned(),
                count => format!("{} ({count} diverged)", row.strategy),
            },
            row.batch.to_string(),
            row.options.clone(),
            format!("{:.0}", row.steps),
            with(row.train_loss),
            with(row.test_loss),
            format!(
                "{:.2} ± {:.2} %",
                100.0 * row.test_accuracy.mean,
                100.0 * row.test_accuracy.half_width
            ),
            format!("{:.2}", row.seconds),
        ]);
    }
    table
}

#[cfg(test)]
mod tests {
    use super::interval;

    #[test]
    fn intervals_are_students() {
        let found = interval(&[1.0, 2.0, 3.0]);
        assert!((found.mean - 2.0).abs() < 1e-12);
        assert!((found.half_width - 4.303 / 3f64.sqrt()).abs() < 1e-9);
    }
}
