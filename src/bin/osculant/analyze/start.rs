//! Where an analysis takes place: the parameters and the rows.

use osculant::checkpoint::Checkpoint;
use osculant::data::Dataset;
use osculant::gpu::Gpu;
use osculant::vector::Vector;

use crate::arguments::Point;
use crate::failure::{Failure, Outcome};
use crate::optimizers::Setup;
use crate::problems::{Data, Problem};
use crate::progress::Progress;
use crate::training::{End, Task, Trainer};

/// Examples on large data sets where nothing is said.
const EXAMPLES: usize = 10_000;

/// The parameters asked for: those of a checkpoint, or those after some training.
pub(crate) fn trainer<'a>(task: Task<'a>, point: &Point) -> Outcome<Trainer<'a>> {
    let Task { gpu, problem, .. } = task;
    let mut setup = Setup::new(point.optimizer, problem);
    if let Some(experiment) = problem.experiment() {
        experiment.configure(&mut setup)?;
    }
    let mut trainer = Trainer::new(task, &setup, point.seed)?;
    if let Some(path) = &point.checkpoint {
        restore(problem, &Checkpoint::load(path)?, gpu, &trainer.theta)?;
    } else if point.train > 0.0 {
        let label = format!("{} {}", problem.name(), setup.method.name());
        let mut progress = Progress::new(label, point.train);
        let end = trainer.run(point.train, &mut Vec::new(), |trainer, report, _| {
            progress.update(trainer.work(), trainer.counters.step, report.loss_before);
            Ok(())
        })?;
        progress.finish("trained");
        if let End::Diverged(why) = end {
            return Err(Failure::new(format!(
                "the training before it diverged: {why}"
            )));
        }
    }
    Ok(trainer)
}

/// Takes the parameters of a checkpoint that is of this problem.
pub(crate) fn restore(
    problem: &Problem,
    checkpoint: &Checkpoint,
    gpu: &Gpu,
    theta: &Vector,
) -> Outcome {
    let stored = checkpoint.metadata("problem")?;
    let name = problem.name();
    problem.check_stored(
        checkpoint,
        &format!("name the problem {stored} in place of {name}"),
        "put them back, or name the file as it was",
    )?;
    Ok(checkpoint.restore_parameters(gpu, theta)?)
}

/// The first training rows, as many as were asked for.
pub(crate) fn rows(data: &Data, batch: Option<&str>) -> Outcome<Dataset> {
    let all = data.train.len();
    let count = match batch {
        None if all > 2 * EXAMPLES => EXAMPLES,
        None | Some("all") => all,
        Some(text) => match text.parse() {
            Ok(count) if (1..=all).contains(&count) => count,
            _ => {
                return Err(Failure::new(format!(
                    "--batch {text}: give a number of rows from 1 to {all}, or 'all'"
                )));
            }
        },
    };
    Ok(data.train.head(count)?)
}
