//! `cargo xtask race PROBLEM [OPTIMIZER ..]`: K-FAC with its defaults against others, Adam where nothing is said, with the options that
//! reach the same goal soonest, in work and in seconds.
//!
//! Their options come from a grid over learning rate, batch, and schedule (constant, or linear to zero over one of some budgets), run with
//! a seed that is not reported; the setting of least work races for work, that of least seconds for seconds. Runs follow one another, so
//! that seconds can be compared.

use crate::example;
use crate::json::Json;
use crate::shell::{self, Outcome};
use std::fmt::Write as _;
use std::path::{Path, PathBuf};
use std::process::Command;

/// Of the grid; far from those that are reported.
const TUNING_SEED: u64 = 1_000_003;
const SEEDS: u64 = 5;
/// Half the width of a 95 % interval of a mean of five, in standard errors (Student's t with 4 degrees of freedom).
const INTERVAL: f64 = 2.776;

/// What is to be reached, and where the options of others are looked for.
struct Task {
    problem: &'static str,
    /// The number of the history that counts, and whether it is to fall or to rise to the goal.
    figure: &'static str,
    falls: bool,
    goal: f64,
    /// Of methods whose steps are Adam's or as long; for Muon twice as much.
    rates: &'static [f64],
    batches: &'static [u32],
    /// Work of a run whose steps keep their length.
    constant: f64,
    /// Work over which steps shrink to zero.
    linear: &'static [f64],
    /// Budget of K-FAC, over which its steps shrink.
    budget: f64,
}

const TASKS: [Task; 4] = [
    Task {
        problem: "digits-mlp",
        figure: "train_loss",
        falls: true,
        goal: 0.01,
        rates: &[0.01, 0.03, 0.05],
        batches: &[8, 16, 32, 64],
        constant: 16.0,
        linear: &[6.0, 8.0, 10.0],
        budget: 16.0,
    },
    Task {
        problem: "digits-autoencoder",
        figure: "train_loss",
        falls: true,
        goal: 0.01,
        rates: &[0.01, 0.03, 0.05],
        batches: &[8, 16, 32, 64],
        constant: 16.0,
        linear: &[4.0, 6.0, 10.0],
        budget: 16.0,
    },
    Task {
        problem: "fashion-mlp",
        figure: "train_loss",
        falls: true,
        goal: 0.28,
        rates: &[0.001, 0.003, 0.01],
        batches: &[64, 128, 256],
        constant: 4.0,
        linear: &[2.0, 4.0],
        budget: 4.0,
    },
    Task {
        problem: "mnist-autoencoder",
        figure: "test_accuracy",
        falls: false,
        goal: 0.671,
        rates: &[0.001, 0.003, 0.005],
        batches: &[16, 32, 64],
        constant: 4.0,
        linear: &[1.0, 2.0],
        budget: 4.0,
    },
];

/// Where a run reached the goal: its work in multiply-adds and in examples, both in gradients of all training rows, and its seconds.
#[derive(Clone, Copy, Debug, PartialEq)]
struct Reached {
    flops: f64,
    examples: f64,
    seconds: f64,
}

impl Reached {
    fn figures(self) -> [f64; 3] {
        [self.flops, self.examples, self.seconds]
    }
}

pub(crate) fn run(problem: &str, others: &[&str]) -> Outcome {
    let task = TASKS
        .iter()
        .find(|task| task.problem == problem)
        .ok_or_else(|| {
            let known: Vec<&str> = TASKS.iter().map(|task| task.problem).collect();
            format!("no race on `{problem}`; there are {}", known.join(", "))
        })?;
    let others = if others.is_empty() { &["adam"] } else { others };
    let program = example::binary()?;
    let folder = &shell::root().join("out").join("race").join(problem);
    let mut rows = vec![(
        "kfac",
        "its defaults".to_owned(),
        String::new(),
        task.budget,
    )];
    for optimizer in others {
        let found = trials(task, optimizer, (&program, folder))?;
        for (what, figure) in [("least work", 0), ("least seconds", 2)] {
            let best = found
                .iter()
                .min_by(|a, b| a.2.figures()[figure].total_cmp(&b.2.figures()[figure]));
            let (options, work, _) =
                best.ok_or_else(|| format!("no setting of {optimizer} reaches the goal"))?;
            rows.push((
                optimizer,
                format!("{what}: {options} over {work} epochs"),
                options.clone(),
                *work,
            ));
        }
    }
    let mut table = String::from(
        "| optimizer | work, multiply-adds | work, examples | seconds | reached |\n|---|---|---|---|---|\n",
    );
    let mut means = Vec::new();
    for (optimizer, what, options, work) in rows {
        let mut runs = Vec::new();
        for seed in 0..SEEDS {
            runs.extend(race(
                task,
                optimizer,
                &options,
                work,
                seed,
                (&program, folder),
            )?);
        }
        let columns = [0, 1, 2].map(|column| {
            mean(
                &runs
                    .iter()
                    .map(|run| run.figures()[column])
                    .collect::<Vec<_>>(),
            )
        });
        let cells = columns.map(|(mean, half)| format!("{mean:.2} ± {half:.2}"));
        writeln!(
            table,
            "| {optimizer}, {what} | {} | {} of {SEEDS} |",
            cells.join(" | "),
            runs.len()
        )
        .map_err(|e| e.to_string())?;
        means.push(columns.map(|(mean, _)| mean));
    }
    println!("\n{problem}: {} {}\n\n{table}", task.figure, task.goal);
    for (optimizer, pair) in others.iter().zip(means[1..].chunks(2)) {
        println!(
            "K-FAC / {optimizer}: work {:.2} (multiply-adds), seconds {:.2}",
            means[0][0] / pair[0][0],
            means[0][2] / pair[1][2]
        );
    }
    Ok(())
}

/// The settings of the grid with which an optimizer reaches the goal: options, work of the run, and where.
fn trials(
    task: &Task,
    optimizer: &str,
    place: (&Path, &Path),
) -> Outcome<Vec<(String, f64, Reached)>> {
    let mut found = Vec::new();
    let grid = grid(task, optimizer);
    for (number, (options, work)) in grid.iter().enumerate() {
        let reached = race(task, optimizer, options, *work, TUNING_SEED, place)?;
        let verdict = reached.map_or("not reached".to_owned(), |at| {
            format!("{:.2} epochs, {:.2} s", at.flops, at.seconds)
        });
        println!(
            "{}/{} {optimizer} {options} over {work} epochs: {verdict}",
            number + 1,
            grid.len()
        );
        found.extend(reached.map(|at| (options.clone(), *work, at)));
    }
    Ok(found)
}

/// Options and work of every trial of an optimizer.
fn grid(task: &Task, optimizer: &str) -> Vec<(String, f64)> {
    let unit = if optimizer == "muon" { 2.0 } else { 1.0 };
    let mut trials = Vec::new();
    for rate in task.rates.iter().map(|rate| unit * rate) {
        for batch in task.batches {
            let options = format!("learning-rate={rate} batch={batch}");
            trials.push((options.clone(), task.constant));
            trials.extend(
                task.linear
                    .iter()
                    .map(|&work| (format!("{options} decay=linear"), work)),
            );
        }
    }
    trials
}

/// Trains once.
fn race(
    task: &Task,
    optimizer: &str,
    options: &str,
    work: f64,
    seed: u64,
    (program, folder): (&Path, &Path),
) -> Outcome<Option<Reached>> {
    let mut command = Command::new(program);
    command
        .args(["train", task.problem, "--optimizer", optimizer])
        .args(["--work", &work.to_string(), "--seed", &seed.to_string()]);
    for option in options.split_whitespace() {
        command.args(["--set", option]);
    }
    command.arg("--out").arg(folder).current_dir(shell::root());
    shell::capture(&mut command)?;
    let file: PathBuf = folder.join("report.json");
    let text = std::fs::read_to_string(&file).map_err(|error| shell::about(&file, &error))?;
    let report = Json::parse(&text)?;
    let run = report.get(&["runs"]).and_then(|runs| runs.items().first());
    let history = run
        .and_then(|run| run.get(&["history"]))
        .ok_or("a report without a history")?;
    Ok(reached(task, history))
}

/// The first point of a history that is at the goal.
fn reached(task: &Task, history: &Json) -> Option<Reached> {
    let there = |point: &&Json| {
        let figure = point.number(&[task.figure]);
        figure.is_some_and(|figure| {
            if task.falls {
                figure <= task.goal
            } else {
                figure >= task.goal
            }
        })
    };
    let point = history.items().iter().find(there)?;
    Some(Reached {
        flops: point.number(&["work_flops"])?,
        examples: point.number(&["work"])?,
        seconds: point.number(&["seconds"])?,
    })
}

/// The mean, and half the width of its 95 % interval.
fn mean(values: &[f64]) -> (f64, f64) {
    let count = values.len() as f64;
    let mean = values.iter().sum::<f64>() / count;
    let square: f64 = values.iter().map(|value| (value - mean).powi(2)).sum();
    (mean, INTERVAL * (square / (count - 1.0) / count).sqrt())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_point_at_the_goal_counts() -> Outcome {
        let history = r#"[{"train_loss": 2, "work_flops": 0, "work": 0, "seconds": 0},
            {"train_loss": 0.01, "work_flops": 3.5, "work": 3, "seconds": 0.25},
            {"train_loss": 0.005, "work_flops": 4, "work": 4, "seconds": 0.5}]"#;
        let found = reached(&TASKS[0], &Json::parse(history)?);
        assert_eq!(found.map(Reached::figures), Some([3.5, 3.0, 0.25]));
        assert_eq!(reached(&TASKS[0], &Json::List(Vec::new())), None);
        Ok(())
    }

    /// By hand: 1, 2, 3, 4, 5 have the variance 2.5, and 2.776 sqrt(2.5 / 5) = 1.963.
    #[test]
    fn intervals_are_those_of_a_mean_of_five() {
        let (mean, half) = mean(&[1.0, 2.0, 3.0, 4.0, 5.0]);
        assert_eq!(mean, 3.0);
        assert!((half - 1.963).abs() < 1e-3, "{half}");
    }

    #[test]
    fn the_grid_has_every_schedule_of_every_setting() {
        let trials = grid(&TASKS[2], "adam");
        assert_eq!(trials.len(), 3 * 3 * 3);
        assert_eq!(
            trials[1],
            ("learning-rate=0.001 batch=64 decay=linear".to_owned(), 2.0)
        );
    }
}
