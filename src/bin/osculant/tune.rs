//! Finding options: a small grid for each optimizer, judged on a validation part of the training rows.

use std::time::Instant;

use serde::Serialize;

use crate::failure::Outcome;
use crate::methods::Method;
use crate::optimizers::Setup;
use crate::problems::{Data, Problem};
use crate::training::{Task, Trainer};

/// Seed of all trials; far from those of the runs, which must not profit from it.
pub(crate) const SEED: u64 = 1_000_003;
/// Evaluations of a trial.
const EVALUATIONS: f64 = 8.0;
/// How far a learning-rate grid may grow beyond an end where the best value lies.
const EXTENSIONS: usize = 3;
/// A trial is given up when its loss is this many times the one it began with.
const HOPELESS: f64 = 3.0;

/// One trial of the grid.
#[derive(Clone, Debug, Serialize)]
pub(crate) struct Trial {
    /// The optimizer.
    pub(crate) optimizer: &'static str,
    /// The options that were tried.
    pub(crate) options: String,
    /// Work of the trial, in epochs of the smaller training part.
    pub(crate) work: f64,
    /// Validation loss at the end of the trial; none if it diverged.
    pub(crate) validation_loss: Option<f64>,
    /// Whether it was chosen.
    pub(crate) chosen: bool,
}

/// What tuning found for an optimizer.
pub(crate) struct Tuned {
    /// The optimizer with the best options.
    pub(crate) setup: Setup,
    /// All trials.
    pub(crate) trials: Vec<Trial>,
}

/// The work of one trial, in epochs, for runs of `work` epochs: all of it, or a quarter where an epoch takes seconds. A shorter trial
/// favours options that fail later.
pub(crate) fn trial_work(problem: &Problem, work: f64) -> f64 {
    if problem.is_small() {
        work
    } else {
        (work / 4.0).max(work.min(1.0))
    }
}

/// One candidate: the options that differ from the defaults.
type Candidate = Vec<(&'static str, String)>;

/// A grid of candidates; one over a single number can grow at its ends.
struct Grid {
    candidates: Vec<Candidate>,
    /// Factor between neighbours of a grid over a single number.
    factor: Option<f64>,
}

fn learning_rates(rates: &[f64]) -> Grid {
    let candidates = rates
        .iter()
        .map(|rate| vec![("learning-rate", rate.to_string())]);
    // The grids go in steps of about the root of ten: 1, 3, 10.
    Grid {
        candidates: candidates.collect(),
        factor: Some(10f64.sqrt()),
    }
}

/// The grid of an optimizer. Newton-CG gets no more candidates than the others.
fn grid(method: Method, problem: &Problem) -> Grid {
    match method {
        Method::Sgd => learning_rates(&[0.003, 0.01, 0.03, 0.1, 0.3, 1.0]),
        Method::Adam | Method::Adamw | Method::Soap | Method::Shampoo | Method::Lrsfn => {
            learning_rates(&[3e-4, 1e-3, 3e-3, 1e-2, 3e-2, 1e-1])
        }
        Method::Muon => learning_rates(&[1e-3, 3e-3, 1e-2, 3e-2, 1e-1, 3e-1]),
        // For small batches.
        Method::DecoupledNewtonCg => {
            let batches = if problem.is_small() {
                ["64", "128", "256"]
            } else {
                ["256", "512", "1024"]
            };
            pairs(("batch", &batches), ("max-iterations", &["1", "2", "4"]))
        }
        Method::NewtonCg | Method::NystromNewtonCg | Method::KroneckerNewtonCg => {
            let (batches, iterations) = if problem.is_small() {
                (["256", "384", "512"], ["2", "3", "5"])
            } else {
                (["512", "1024", "2048"], ["2", "3", "5"])
            };
            pairs(("batch", &batches), ("max-iterations", &iterations))
        }
        Method::DebiasedSgd => {
            let batches = if problem.is_small() {
                ["32", "64", "128"]
            } else {
                ["128", "256", "512"]
            };
            pairs(("batch", &batches), ("factor", &["0.5", "1", "2"]))
        }
        Method::Lbfgs => pairs(
            ("history", &["5", "10", "30"]),
            ("first-step", &["0.03", "0.1", "0.3"]),
        ),
        Method::LevenbergMarquardt => pairs(
            ("damping", &["0.001", "0.01", "0.1"]),
            ("damping-decrease", &["0.1", "0.3333333333333333"]),
        ),
        // Their defaults are for all tasks.
        Method::Kfac | Method::Spring => Grid {
            candidates: Vec::new(),
            factor: None,
        },
        Method::LrsfnPaper => pairs(
            ("step-length", &["0.005", "0.05", "0.5"]),
            ("damping", &["0.001", "0.01", "0.1"]),
        ),
    }
}

/// Every value of one option with every value of another.
fn pairs((one, ones): (&'static str, &[&str]), (other, others): (&'static str, &[&str])) -> Grid {
    let candidates = ones.iter().flat_map(|a| {
        others
            .iter()
            .map(move |b| vec![(one, (*a).to_owned()), (other, (*b).to_owned())])
    });
    Grid {
        candidates: candidates.collect(),
        factor: None,
    }
}

/// Tries the grid of an optimizer. Options in `fixed` were set by hand and are not tuned.
pub(crate) fn tune(
    task: Task<'_>,
    validation: &Data,
    base: &Setup,
    fixed: &[&str],
    work: f64,
) -> Outcome<Tuned> {
    let task = Task {
        data: validation,
        ..task
    };
    let mut grid = grid(base.method, task.problem);
    for candidate in &mut grid.candidates {
        candidate.retain(|(key, _)| !fixed.contains(key));
        fit_batch(candidate, validation.train.len());
    }
    grid.candidates.dedup();
    grid.candidates.retain(|candidate| !candidate.is_empty());
    if grid.candidates.is_empty() {
        return Ok(Tuned {
            setup: base.clone(),
            trials: Vec::new(),
        });
    }
    let mut tried: Vec<(Candidate, Setup, Trial)> = Vec::new();
    for candidate in grid.candidates {
        tried.push(attempt(task, base, candidate, work)?);
    }
    let loss = |trial: &Trial| trial.validation_loss.unwrap_or(f64::INFINITY);
    let best = |tried: &[(Candidate, Setup, Trial)]| {
        (0..tried.len()).min_by(|&a, &b| loss(&tried[a].2).total_cmp(&loss(&tried[b].2)))
    };
    if let Some(factor) = grid.factor {
        for _ in 0..EXTENSIONS {
            let at = best(&tried).unwrap_or(0);
            let (step, place) = match at {
                0 => (1.0 / factor, 0),
                at if at + 1 == tried.len() => (factor, tried.len()),
                _ => break,
            };
            let [(key, value)] = tried[at].0.as_slice() else {
                break;
            };
            let value = round_to_grid(value.parse().unwrap_or(1.0) * step);
            let candidate = vec![(*key, value.to_string())];
            tried.insert(place, attempt(task, base, candidate, work)?);
        }
        if !fixed.contains(&"batch") {
            let at = best(&tried).unwrap_or(0);
            for mut candidate in other_batches(&tried[at].0, task.problem, factor) {
                fit_batch(&mut candidate, validation.train.len());
                tried.push(attempt(task, base, candidate, work)?);
            }
        }
    }
    let at = best(&tried).unwrap_or(0);
    tried[at].2.chosen = true;
    let setup = tried[at].1.clone();
    Ok(Tuned {
        setup,
        trials: tried.into_iter().map(|(_, _, trial)| trial).collect(),
    })
}

/// Takes all rows in place of a batch of more than there are.
fn fit_batch(candidate: &mut Candidate, rows: usize) {
    for (key, value) in candidate {
        if *key == "batch" && value.parse().is_ok_and(|batch: usize| batch > rows) {
            "all".clone_into(value);
        }
    }
}

/// After the learning rate, the batch size: larger ones at the rate that was best, and at the next one up.
fn other_batches(best: &Candidate, problem: &Problem, factor: f64) -> Vec<Candidate> {
    let [(key, value)] = best.as_slice() else {
        return Vec::new();
    };
    let rate: f64 = value.parse().unwrap_or(1.0);
    let batches = if problem.is_small() {
        ["64", "128"]
    } else {
        ["64", "256"]
    };
    let with = |batch: &str, rate: f64| {
        let rate = round_to_grid(rate).to_string();
        vec![("batch", batch.to_owned()), (*key, rate)]
    };
    batches
        .iter()
        .flat_map(|b| [with(b, rate), with(b, rate * factor)])
        .collect()
}

/// The nearest of ..., 0.3, 1, 3, 10, ...
fn round_to_grid(value: f64) -> f64 {
    let power = 10f64.powf(value.log10().floor());
    let digit = value / power;
    let rounded = if digit < 2.0 {
        1.0
    } else if digit < 6.0 {
        3.0
    } else {
        10.0
    };
    // Through text, so that 0.1 is the number that is printed so.
    format!("{:e}", rounded * power)
        .parse()
        .map_or(value, |v: f64| (v * 1e12).round() / 1e12)
}

fn attempt(
    task: Task<'_>,
    base: &Setup,
    candidate: Candidate,
    work: f64,
) -> Outcome<(Candidate, Setup, Trial)> {
    let mut setup = base.clone();
    for (key, value) in &candidate {
        setup.set(key, value)?;
    }
    let start = Instant::now();
    let mut trainer = Trainer::new(task, &setup, SEED)?;
    let validation_loss = final_loss(&mut trainer, work)?;
    let options: Vec<String> = candidate
        .iter()
        .map(|(key, value)| format!("{key}={value}"))
        .collect();
    let options = options.join(", ");
    let name = setup.method.name();
    let verdict = validation_loss.map_or_else(
        || "diverged".to_owned(),
        |loss| format!("validation loss {loss:.4}"),
    );
    eprintln!(
        "tune {:<23} {options:<34} {verdict} ({:.1} s)",
        name,
        start.elapsed().as_secs_f64()
    );
    let work = trainer.work();
    let trial = Trial {
        optimizer: name,
        options,
        work,
        validation_loss,
        chosen: false,
    };
    Ok((candidate, setup, trial))
}

/// The validation loss at the end of a trial, or none if it diverges. The lowest on the way would favour options that fall fast and then
/// fail.
fn final_loss(trainer: &mut Trainer<'_>, work: f64) -> Outcome<Option<f64>> {
    trainer.set_total(work);
    let first = trainer.test_loss()?;
    let mut last = first;
    for part in 1..=EVALUATIONS as u32 {
        while trainer.work() < work * f64::from(part) / EVALUATIONS {
            match trainer.step() {
                Ok(_) => {}
                Err(osculant::Error::NotFinite { .. }) => return Ok(None),
                Err(error) => return Err(error.into()),
            }
        }
        last = trainer.test_loss()?;
        // The error of a solution may grow before it falls: what is trained is how well the equation holds.
        let hopeless = trainer.task.data.solution.is_none() && last > HOPELESS * first;
        if !last.is_finite() || hopeless {
            return Ok(None);
        }
    }
    Ok(Some(last))
}

#[cfg(test)]
mod tests {
    use super::round_to_grid;

    #[test]
    fn a_grid_goes_on_in_steps_of_one_and_three() {
        let step = 10f64.sqrt();
        for (from, to) in [(1.0, 3.0), (3.0, 10.0), (0.03, 0.1), (0.1, 0.3)] {
            assert_eq!(round_to_grid(from * step), to);
            assert_eq!(round_to_grid(to / step), from);
        }
    }
}
