//! `osculant analyze strategies`: full training with single and with decoupled mini-batches, at equal work, damping tuned for each.

use comfy_table::{Table, presets::UTF8_FULL_CONDENSED};
use serde::Serialize;

use crate::arguments::Strategies;
use crate::failure::{Failure, Outcome};
use crate::optimizers::{Method, Setup};
use crate::training::{End, Task, Trainer};
use crate::tune::{SEED, final_loss, trial_work};

/// Quantiles of Student's distribution at 97.5 %, for 1, 2, ... degrees of freedom; the normal one beyond.
const QUANTILES: [f64; 10] = [
    12.706, 4.303, 3.182, 2.776, 2.571, 2.447, 2.365, 2.306, 2.262, 2.228,
];
const NORMAL_QUANTILE: f64 = 1.96;

/// Seeds over whose mean a damping is judged: one good run of an erratic setting must not choose it.
const TUNING_SEEDS: u64 = 4;

/// Name, optimizer, and settings.
type Strategy = (
    &'static str,
    Method,
    &'static [(&'static str, &'static str)],
);

const STRATEGIES: [Strategy; 6] = [
    ("single", Method::NewtonCg, &[]),
    (
        "decoupled",
        Method::DecoupledNewtonCg,
        &[("strategy", "decoupled")],
    ),
    (
        "cross-fit",
        Method::DecoupledNewtonCg,
        &[("strategy", "cross-fit")],
    ),
    (
        "4-fold",
        Method::DecoupledNewtonCg,
        &[("strategy", "cross-fit"), ("folds", "4")],
    ),
    (
        "cross-fit, shrinking",
        Method::DecoupledNewtonCg,
        &[("strategy", "cross-fit"), ("shrinking", "true")],
    ),
    (
        "cross-fit, judged apart",
        Method::DecoupledNewtonCg,
        &[("strategy", "cross-fit"), ("acceptance", "0.2")],
    ),
];

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
    damping: f64,
    /// Damping and mean validation loss of its trials; none where one diverged.
    trials: Vec<(f64, Option<f64>)>,
    steps: f64,
    train_loss: Interval,
    test_loss: Interval,
    test_accuracy: Interval,
    seconds: f64,
    diverged: usize,
}

/// Runs the command.
pub(crate) fn run(arguments: &Strategies) -> Outcome {
    let problem = arguments.problem;
    std::fs::create_dir_all(&arguments.out)
        .map_err(|error| Failure::file(&arguments.out, error))?;
    let work = arguments.place.work(problem)?;
    let data = problem.load(arguments.place.data.as_deref())?;
    let validation = data.for_tuning()?;
    let gpu = arguments.place.gpu()?;
    let task = Task {
        gpu: &gpu,
        problem,
        data: &data,
    };
    let mut rows = Vec::new();
    for &batch in &arguments.batches {
        for &(name, method, settings) in &STRATEGIES {
            let with = |damping: f64| -> Outcome<Setup> {
                let mut setup = Setup::new(method, problem);
                setup.set("batch", &batch.to_string())?;
                setup.set("max-iterations", &arguments.iterations.to_string())?;
                setup.set("damping", &damping.to_string())?;
                if arguments.fixed {
                    setup.set("damping-decrease", "1")?;
                }
                for (key, value) in settings {
                    setup.set(key, value)?;
                }
                Ok(setup)
            };
            let mut trials = Vec::new();
            for &damping in &arguments.dampings {
                let trial = Task {
                    data: &validation,
                    ..task
                };
                let mut losses = Vec::new();
                for number in 0..TUNING_SEEDS {
                    let mut trainer = Trainer::new(trial, &with(damping)?, SEED + number)?;
                    losses.push(final_loss(&mut trainer, trial_work(problem, work))?);
                }
                let sum: Option<f64> = losses.into_iter().sum();
                let loss = sum.map(|sum| sum / TUNING_SEEDS as f64);
                eprintln!("{name}, batch {batch}, damping {damping}: {loss:?}");
                trials.push((damping, loss));
            }
            let value = |loss: Option<f64>| loss.unwrap_or(f64::INFINITY);
            let best = trials
                .iter()
                .min_by(|a, b| value(a.1).total_cmp(&value(b.1)))
                .map_or(1.0, |trial| trial.0);
            let mut ends = Vec::new();
            let mut diverged = 0;
            for seed in 0..arguments.seeds {
                let mut trainer = Trainer::new(task, &with(best)?, seed)?;
                let mut history = Vec::new();
                let end = trainer.run(work, &mut history, |_, _, _| Ok(()))?;
                diverged += usize::from(end != End::Finished);
                ends.extend(history.last().copied());
            }
            let of = |f: fn(&crate::training::Point) -> f64| {
                interval(&ends.iter().map(f).collect::<Vec<_>>())
            };
            rows.push(Row {
                strategy: name,
                batch,
                damping: best,
                trials,
                steps: of(|p| p.step as f64).mean,
                train_loss: of(|p| p.train_loss),
                test_loss: of(|p| p.test_loss),
                test_accuracy: of(|p| p.test_accuracy),
                seconds: of(|p| p.seconds).mean,
                diverged,
            });
        }
    }
    println!("{}", table(&rows));
    let json = serde_json::to_string_pretty(&rows).map_err(|e| Failure::new(e.to_string()))?;
    let path = arguments.out.join("strategies.json");
    std::fs::write(&path, json + "\n").map_err(|error| Failure::file(&path, error))
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

fn table(rows: &[Row]) -> Table {
    let mut table = Table::new();
    table.load_style(UTF8_FULL_CONDENSED).set_header([
        "strategy",
        "batch",
        "damping",
        "steps",
        "training loss",
        "test loss",
        "test accuracy",
        "seconds",
    ]);
    for row in rows {
        let with = |i: Interval| format!("{:.4} ± {:.4}", i.mean, i.half_width);
        table.add_row([
            row.strategy.to_owned(),
            row.batch.to_string(),
            row.damping.to_string(),
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
