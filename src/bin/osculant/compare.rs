//! `osculant compare`: several optimizers on one problem, at equal work.

use crate::arguments::Compare;
use crate::failure::{Failure, Outcome};
use crate::files;
use crate::methods::{Method, method};
use crate::optimizers::{Origin, Setup};
use crate::problems::Problem;
use crate::progress::Progress;
use crate::report::{Report, Run};
use crate::table;
use crate::training::{Task, Trainer};
use crate::tune::{trial_work, tune};

/// Runs of each optimizer where nothing is said.
const SEEDS: u64 = 3;

/// An optimizer of the comparison, and which of its options were set by hand.
struct Entry {
    setup: Setup,
    fixed: Vec<String>,
}

/// Runs the command.
pub(crate) fn run(arguments: &Compare) -> Outcome {
    let problem = &arguments.problem.open()?;
    let of_file = problem.experiment().map(|experiment| &experiment.compare);
    let work = arguments
        .place
        .work(problem, of_file.and_then(|file| file.work))?;
    let tunes = arguments
        .tune
        .or(of_file.map(|file| file.tune))
        .unwrap_or(false);
    let seeds = arguments
        .seeds
        .or(of_file.and_then(|file| file.seeds))
        .unwrap_or(SEEDS);
    let mut entries = entries(arguments, problem)?;
    // The folder is tried before the work, not after it.
    std::fs::create_dir_all(&arguments.out)
        .map_err(|error| Failure::file(&arguments.out, error))?;
    let data = problem.load(arguments.place.data.as_deref())?;
    let gpu = arguments.place.gpu()?;
    let task = Task {
        gpu: &gpu,
        problem,
        data: &data,
    };

    let mut trials = Vec::new();
    if tunes {
        let validation = data.for_tuning()?;
        for entry in &mut entries {
            let fixed: Vec<&str> = entry.fixed.iter().map(String::as_str).collect();
            let tuned = tune(
                task,
                &validation,
                &entry.setup,
                &fixed,
                trial_work(problem, work),
            )?;
            entry.setup = tuned.setup;
            trials.extend(tuned.trials);
        }
    }

    let mut runs = Vec::new();
    for Entry { setup, .. } in &entries {
        Trainer::warm_up(task, setup)?;
        for seed in 0..seeds {
            let mut trainer = Trainer::new(task, setup, seed)?;
            let mut history = Vec::new();
            let label = format!("{} {} seed {seed}", problem.name(), setup.method.name());
            let mut progress = Progress::new(label, work);
            let end = trainer.run(work, &mut history, |trainer, report, _| {
                progress.update(trainer.work(), trainer.counters.step, report.loss_before);
                Ok(())
            })?;
            let run = Run::new(setup, seed, history, &end)?;
            progress.finish(&table::ending(problem, &run));
            runs.push(run);
        }
    }

    let mut report = Report::new(task, work, runs);
    if tunes {
        report.tuning_work = Some(trial_work(problem, work));
        report.tuning = trials;
    }
    println!("{}", table::terminal(&report));
    files::write(&report, &arguments.out)?;
    println!("report: {}", arguments.out.join("report.html").display());
    Ok(())
}

/// Whether the optimizers and their options can be used.
#[cfg(test)]
pub(crate) fn check(arguments: &Compare, problem: &Problem) -> Outcome {
    entries(arguments, problem).map(|_| ())
}

/// The optimizers that were asked for, with the options of `--set`.
fn entries(arguments: &Compare, problem: &Problem) -> Outcome<Vec<Entry>> {
    let mut entries: Vec<Entry> = Vec::new();
    let optimizers = match problem.experiment() {
        Some(experiment) if arguments.optimizers.is_empty() => &experiment.compare.optimizers,
        _ => &arguments.optimizers,
    };
    if optimizers.is_empty() {
        let in_file = match problem.experiment() {
            Some(_) => {
                ", or in the file below [compare]: optimizers = [\"sgd\", \"adam\", \"newton-cg\"]"
            }
            None => "",
        };
        return Err(Failure::new("which optimizers?").hint(format!(
            "for example --optimizers sgd,adam,newton-cg{in_file}"
        )));
    }
    for &method in optimizers {
        if entries.iter().any(|entry| entry.setup.method == method) {
            return Err(Failure::new(format!("{} is listed twice", method.name())));
        }
        let mut setup = Setup::new(method, problem).with_origin(Origin::Compare);
        let mut fixed = Vec::new();
        if let Some(experiment) = problem.experiment() {
            experiment.configure(&mut setup)?;
            fixed = experiment.fixed(method);
        }
        entries.push(Entry { setup, fixed });
    }
    for setting in &arguments.set {
        let (name, value) = setting.split_once('=').unwrap_or((setting, ""));
        let Some((optimizer, key)) = name.split_once('.') else {
            return Err(unnamed(&entries, setting));
        };
        let wanted = method(optimizer)?;
        let Some(entry) = entries
            .iter_mut()
            .find(|entry| entry.setup.method == wanted)
        else {
            return Err(
                Failure::new(format!("--set {setting}: {optimizer} is not compared")).hint(
                    format!(
                        "add it to --optimizers: --optimizers {}",
                        with(optimizers, wanted)
                    ),
                ),
            );
        };
        if !setting.contains('=') {
            return Err(entry.setup.no_setting(key));
        }
        entry.setup.set(key, value)?;
        entry.fixed.push(key.to_owned());
    }
    for entry in &entries {
        entry.setup.build()?;
    }
    Ok(entries)
}

/// A setting without an optimizer is most likely meant for the first that has the option.
fn unnamed(entries: &[Entry], setting: &str) -> Failure {
    let key = setting.split('=').next().unwrap_or_default();
    let entry = entries.iter().find(|entry| entry.setup.has(key));
    match entry.or(entries.first()) {
        Some(entry) => entry.setup.unnamed(setting),
        None => Failure::new(format!("'{setting}' does not say which optimizer is meant")),
    }
}

/// The list of optimizers with one more.
fn with(optimizers: &[Method], more: Method) -> String {
    let names: Vec<&str> = optimizers.iter().chain([&more]).map(|m| m.name()).collect();
    names.join(",")
}
