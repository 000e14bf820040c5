//! `osculant train`: one run, with checkpoints.

use std::path::Path;
use std::time::{Duration, Instant};

use osculant::checkpoint::Checkpoint;

use crate::arguments::Train;
use crate::failure::{Failure, Outcome};
use crate::files;
use crate::methods::method;
use crate::optimizers::{Origin, Setup};
use crate::problems::Problem;
use crate::progress::Progress;
use crate::report::{Report, Run};
use crate::table;
use crate::training::{Counters, End, Point, Task, Trainer};

/// Time between two checkpoints on the way.
const BETWEEN_CHECKPOINTS: Duration = Duration::from_secs(30);

/// Runs the command.
pub(crate) fn run(arguments: &Train) -> Outcome {
    let problem = &arguments.problem.open()?;
    let of_file = problem.experiment().map(|experiment| &experiment.train);
    let work = arguments
        .place
        .work(problem, of_file.and_then(|file| file.work))?;
    let checkpoint = arguments
        .resume
        .as_deref()
        .map(Checkpoint::load)
        .transpose()?;
    let method = arguments
        .optimizer
        .or(of_file.and_then(|file| file.optimizer));
    let setup = match (&checkpoint, method) {
        (Some(checkpoint), _) => stored_setup(checkpoint, problem)?,
        (None, Some(method)) => {
            let mut setup = Setup::new(method, problem).with_origin(Origin::Train);
            if let Some(experiment) = problem.experiment() {
                experiment.configure(&mut setup)?;
            }
            setup.set_all(arguments.set.iter().map(String::as_str))?;
            setup
        }
        (None, None) => {
            let failure = Failure::new("which optimizer?");
            return Err(match problem.experiment() {
                None => failure.hint("for example --optimizer adam"),
                Some(_) => failure.hint("for example --optimizer adam, or in the file below [train]: optimizer = \"adam\""),
            });
        }
    };
    let seed = match &checkpoint {
        Some(checkpoint) => parse(checkpoint, "seed")?,
        None => {
            let of_file = of_file.and_then(|file| file.seed);
            arguments.seed.or(of_file).unwrap_or(0)
        }
    };
    // A wrong option must not wait for the data.
    setup.build()?;
    let data = problem.load(arguments.place.data.as_deref())?;
    let gpu = arguments.place.gpu()?;
    let task = Task {
        gpu: &gpu,
        problem,
        data: &data,
    };
    Trainer::warm_up(task, &setup)?;
    let mut trainer = Trainer::new(task, &setup, seed)?;
    let mut history = Vec::new();
    if let Some(checkpoint) = &checkpoint {
        history = restore(&mut trainer, checkpoint)?;
    }

    let mut progress = Progress::new(
        format!("{} {} seed {seed}", problem.name(), setup.method.name()),
        work,
    );
    let mut saved = Instant::now();
    let end = trainer.run(work, &mut history, |trainer, report, history| {
        progress.update(trainer.work(), trainer.counters.step, report.loss_before);
        if let Some(path) = &arguments.checkpoint
            && saved.elapsed() > BETWEEN_CHECKPOINTS
        {
            save(trainer, &setup, seed, history, path)?;
            saved = Instant::now();
        }
        Ok(())
    })?;
    let run = Run::new(&setup, seed, history, &end)?;
    progress.finish(&table::ending(problem, &run));
    // After a divergence the parameters are those before the failed step: the last sound ones.
    if let Some(path) = &arguments.checkpoint {
        save(&trainer, &setup, seed, &run.history, path)?;
        println!("checkpoint: {}", path.display());
    }
    let report = Report::new(task, work, vec![run]);
    println!("{}", table::terminal(&report));
    if let Some(folder) = &arguments.out {
        files::write(&report, folder)?;
        println!("report: {}", folder.join("report.html").display());
    }
    if arguments.locate && matches!(end, End::Diverged(_)) {
        println!("{}", trainer.locate()?);
    }
    match end {
        End::Finished => Ok(()),
        End::Diverged(why) => {
            let failure = Failure::new(format!("the run diverged: {why}"));
            Err(match setup.calmer() {
                Some(hint) => failure.hint(hint),
                None => failure,
            })
        }
    }
}

fn save(
    trainer: &Trainer<'_>,
    setup: &Setup,
    seed: u64,
    history: &[Point],
    path: &Path,
) -> Outcome {
    let json = |what: serde_json::Result<String>| what.map_err(|e| Failure::new(e.to_string()));
    let state = trainer.optimizer.state(&trainer.objective)?;
    let Counters {
        step,
        examples,
        gradients,
        seconds,
    } = trainer.counters;
    let mut checkpoint = Checkpoint::capture(trainer.task.gpu, &trainer.theta, state)?;
    if let Some(experiment) = trainer.task.problem.experiment() {
        checkpoint = checkpoint.with("experiment", experiment.definition.as_str());
    }
    checkpoint
        .with("problem", trainer.task.problem.name())
        .with("optimizer", setup.method.name())
        .with("options", setup.lines())
        .with("seed", seed.to_string())
        .with("step", step.to_string())
        .with("work", examples.to_string())
        .with("work-flops", gradients.to_string())
        .with("seconds", seconds.to_string())
        .with("epochs", json(serde_json::to_string(&trainer.feed()))?)
        .with("history", json(serde_json::to_string(history))?)
        .save(path)?;
    Ok(())
}

/// The optimizer and options of a checkpoint, if it is of this problem.
fn stored_setup(checkpoint: &Checkpoint, problem: &Problem) -> Outcome<Setup> {
    let stored = checkpoint.metadata("problem")?;
    problem.check_stored(
        checkpoint,
        &format!("osculant train {stored} --resume FILE"),
        "put them back, or train from the start, without --resume",
    )?;
    let method = method(checkpoint.metadata("optimizer")?)?;
    let mut setup = Setup::new(method, problem).with_origin(Origin::Checkpoint);
    setup.set_all(checkpoint.metadata("options")?.lines())?;
    Ok(setup)
}

/// Puts everything back where the stored run was; returns its evaluations.
fn restore(trainer: &mut Trainer<'_>, checkpoint: &Checkpoint) -> Outcome<Vec<Point>> {
    checkpoint.restore_parameters(trainer.task.gpu, &trainer.theta)?;
    let state = checkpoint.optimizer_state(trainer.theta.layout())?;
    trainer.optimizer.restore(&trainer.objective, &state)?;
    trainer.counters = Counters {
        step: parse(checkpoint, "step")?,
        examples: parse(checkpoint, "work")?,
        gradients: parse(checkpoint, "work-flops")?,
        seconds: parse(checkpoint, "seconds")?,
    };
    trainer.set_feed(&parse_json(checkpoint, "epochs")?)?;
    parse_json(checkpoint, "history")
}

fn parse<T: std::str::FromStr>(checkpoint: &Checkpoint, key: &str) -> Outcome<T> {
    let text = checkpoint.metadata(key)?;
    text.parse()
        .map_err(|_| Failure::new(format!("the checkpoint's {key} is '{text}'")))
}

fn parse_json<T: serde::de::DeserializeOwned>(checkpoint: &Checkpoint, key: &str) -> Outcome<T> {
    serde_json::from_str(checkpoint.metadata(key)?)
        .map_err(|error| Failure::new(format!("the checkpoint's {key}: {error}")))
}
