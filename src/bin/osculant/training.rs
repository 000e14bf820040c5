//! One run: an optimizer on a problem, from a seed, until its work is done.

use std::time::Instant;

use osculant::data::{Batch, Dataset, Points};
use osculant::gpu::Gpu;
use osculant::objective::{GraphObjective, Located, Objective};
use osculant::optim::{Optimizer, StepReport};
use osculant::vector::Vector;
use serde::{Deserialize, Serialize};

use crate::failure::Outcome;
use crate::feed::{Feed, FeedState};
use crate::fields::Field;
use crate::optimizers::Setup;
use crate::problems::{Data, Problem};

/// Evaluations per run that the schedule aims at; a step that does more work than the distance between two is followed by one.
const EVALUATIONS: f64 = 120.0;
/// The same on large data sets, where an evaluation costs more than a small step ...
const EVALUATIONS_OF_LARGE_SETS: f64 = 40.0;
/// ... and the smallest distance there, in epochs of work.
const SMALLEST_DISTANCE: f64 = 0.2;
/// A run has diverged when its training loss is this many times the one it began with.
const HOPELESS: f64 = 100.0;

/// How well a network does after some steps.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(crate) struct Point {
    /// Steps taken.
    pub(crate) step: u64,
    /// Work done, in epochs: a gradient of every training row is 1.
    pub(crate) work: f64,
    /// The same in floating-point operations: 1 is as many as the gradients of all training rows have.
    #[serde(default)]
    pub(crate) work_flops: f64,
    /// Time spent on steps, evaluations not counted.
    pub(crate) seconds: f64,
    /// Mean loss on the monitored training rows. JSON has null for what is not finite.
    #[serde(deserialize_with = "or_nan")]
    pub(crate) train_loss: f64,
    /// Mean loss on the test rows.
    #[serde(deserialize_with = "or_nan")]
    pub(crate) test_loss: f64,
    /// See [`Problem::accuracy`]; not a number where the test loss is not finite.
    #[serde(deserialize_with = "or_nan")]
    pub(crate) test_accuracy: f64,
    /// Of a differential equation: the error of the solution at the test points over the solution, in mean squares.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) relative_l2: Option<f64>,
    /// Of a differential equation: the loss of each term, without its weight.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub(crate) term_losses: Vec<f64>,
}

/// A number, or NaN for null.
fn or_nan<'de, D: serde::Deserializer<'de>>(deserializer: D) -> Result<f64, D::Error> {
    Ok(Option::deserialize(deserializer)?.unwrap_or(f64::NAN))
}

/// How a run ended.
#[derive(Clone, Debug, PartialEq)]
pub(crate) enum End {
    /// All work done.
    Finished,
    /// A loss, gradient or step was not finite.
    Diverged(String),
}

impl End {
    /// For reports: `finished`, or `diverged: why`.
    pub(crate) fn text(&self) -> String {
        match self {
            End::Finished => "finished".into(),
            End::Diverged(why) => format!("diverged: {why}"),
        }
    }
}

/// What runs have in common.
#[derive(Clone, Copy)]
pub(crate) struct Task<'a> {
    /// The device.
    pub(crate) gpu: &'a Gpu,
    /// The network.
    pub(crate) problem: &'a Problem,
    /// The rows.
    pub(crate) data: &'a Data,
}

/// The counters of a run.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub(crate) struct Counters {
    /// Steps taken.
    pub(crate) step: u64,
    /// Work, in examples.
    pub(crate) examples: f64,
    /// The same in floating-point operations, over those of a gradient of one example.
    pub(crate) gradients: f64,
    /// Time spent on steps.
    pub(crate) seconds: f64,
}

/// A run in progress.
pub(crate) struct Trainer<'a> {
    pub(crate) task: Task<'a>,
    pub(crate) objective: GraphObjective,
    pub(crate) theta: Vector,
    pub(crate) optimizer: Box<dyn Optimizer<GraphObjective>>,
    pub(crate) counters: Counters,
    feed: Feed,
    /// The rows of the last batch, and what it was filled up to.
    last: Option<(Vec<usize>, usize)>,
    /// Work of the whole run, in epochs, for its schedule.
    total: f64,
    /// Points that every step draws anew.
    points: Option<(&'static Field, Points)>,
}

/// Rows of a data set on which the origin of numbers that are not finite is looked for.
const LOCATED_ROWS: usize = 1000;

/// The node of an objective's loss, gradient or products at which numbers stop being finite, as a line to print: on a batch.
pub(crate) fn locate(
    objective: &mut GraphObjective,
    theta: &Vector,
    batch: &Batch,
) -> Outcome<String> {
    let parameters = theta.read(objective.gpu())?;
    Ok(match objective.locate(&parameters, batch, u64::MAX)? {
        Located::At(origin) => format!("first in {origin}. {}", origin.advice),
        Located::Nowhere | Located::Unknown => format!(
            "loss, gradient and curvature products along the gradient are finite on {} rows, as the CPU computes them in f32",
            batch.len()
        ),
    })
}

/// The first rows of a data set.
pub(crate) fn first_rows(data: &Dataset) -> osculant::Result<Batch> {
    let rows: Vec<usize> = (0..data.len().min(LOCATED_ROWS)).collect();
    data.batch(&rows)
}

impl<'a> Trainer<'a> {
    /// A run at its first step. The seed decides about the initial parameters and the order of the rows.
    pub(crate) fn new(task: Task<'a>, setup: &Setup, seed: u64) -> Outcome<Self> {
        let rows = task.data.train.len();
        let objective = task.problem.objective(task.gpu, &task.data.train)?;
        Ok(Self {
            task,
            theta: objective.initial_parameters(seed)?,
            objective,
            optimizer: setup.build()?,
            counters: Counters::default(),
            feed: Feed::new(setup, rows, seed)?,
            last: None,
            total: f64::INFINITY,
            points: match task.problem.field() {
                Some(field) if field.resampled => Some((field, field.points(seed)?)),
                _ => None,
            },
        })
    }

    /// Takes one step of a run that is thrown away: it compiles every shader, so that no run's time has that in it.
    pub(crate) fn warm_up(task: Task<'a>, setup: &Setup) -> Outcome {
        match Self::new(task, setup, 0)?.step() {
            Ok(_) | Err(osculant::Error::NotFinite { .. }) => Ok(()),
            Err(error) => Err(error.into()),
        }
    }

    /// Says how much work the whole run is to do, in epochs: a schedule ends there.
    pub(crate) fn set_total(&mut self, work: f64) {
        self.total = work;
    }

    /// Work done so far, in epochs.
    pub(crate) fn work(&self) -> f64 {
        self.counters.examples / self.task.data.train.len() as f64
    }

    /// Where the run stands in the data.
    pub(crate) fn feed(&self) -> FeedState {
        self.feed.state()
    }

    /// Continues at a stored place in the data.
    pub(crate) fn set_feed(&mut self, state: &FeedState) -> Outcome {
        self.feed.set_state(state)
    }

    /// These rows, of what the step sees.
    fn batch(&self, rows: &[usize]) -> osculant::Result<Batch> {
        match &self.points {
            None => self.task.data.train.batch(rows),
            Some((field, points)) => field.rows(&points.draw(self.counters.step)?)?.batch(rows),
        }
    }

    /// One step on the next mini-batch. A short last one of an epoch is filled up with rows of weight zero, so that nothing is compiled
    /// again.
    pub(crate) fn step(&mut self) -> osculant::Result<StepReport> {
        let start = Instant::now();
        let (rows, size) = self.feed.next()?;
        let batch = self.batch(&rows)?.pad_to(size)?;
        self.last = Some((rows, size));
        let done = self.work() / self.total;
        self.optimizer.course_mut().set_done(done);
        let report = self
            .optimizer
            .step(&mut self.objective, &self.theta, &batch);
        // A failed step takes its time too.
        self.counters.seconds += start.elapsed().as_secs_f64();
        let report = report?;
        self.counters.examples += report.work;
        self.counters.gradients += report.work_flops;
        self.counters.step += 1;
        Ok(report)
    }

    /// Where numbers stop being finite at the parameters as they are: on the last batch, or before the first step on the first rows.
    pub(crate) fn locate(&mut self) -> Outcome<String> {
        let batch = match &self.last {
            Some((rows, size)) => self.batch(rows)?.pad_to(*size)?,
            None => first_rows(&self.task.data.train)?,
        };
        locate(&mut self.objective, &self.theta, &batch)
    }

    /// The mean loss on the test rows.
    pub(crate) fn test_loss(&mut self) -> osculant::Result<f64> {
        let theta = self.optimizer.evaluation_parameters(&self.theta);
        Ok(self.objective.evaluate(theta, &self.task.data.test)?.loss)
    }

    /// How well the network does now: with the average of iterates, where one is kept.
    pub(crate) fn evaluate(&mut self) -> osculant::Result<Point> {
        let data = self.task.data;
        let theta = self.optimizer.evaluation_parameters(&self.theta);
        let mut term_losses = Vec::new();
        for term in &data.terms {
            term_losses.push(self.objective.evaluate(theta, &term.rows)?.loss);
        }
        let train_loss = if data.terms.is_empty() {
            self.objective.evaluate(theta, data.monitored())?.loss
        } else {
            let weighted = data.terms.iter().zip(&term_losses);
            weighted.map(|(term, loss)| term.weight * loss).sum()
        };
        let test = self.objective.evaluate(theta, &data.test)?;
        Ok(Point {
            step: self.counters.step,
            work: self.work(),
            work_flops: self.counters.gradients / self.task.data.train.len() as f64,
            seconds: self.counters.seconds,
            train_loss,
            test_loss: test.loss,
            test_accuracy: if test.loss.is_finite() {
                let metric = test.metric.unwrap_or(f64::NAN);
                self.task.problem.accuracy(metric, data)
            } else {
                f64::NAN
            },
            relative_l2: data.solution.map(|solution| (test.loss / solution).sqrt()),
            term_losses,
        })
    }

    /// Steps until `work` epochs are done, with evaluations on the way; `watch` sees the run after every step.
    /// `history` holds the evaluations of the run so far, and is continued.
    pub(crate) fn run(
        &mut self,
        work: f64,
        history: &mut Vec<Point>,
        mut watch: impl FnMut(&Self, &StepReport, &[Point]) -> Outcome,
    ) -> Outcome<End> {
        self.set_total(work);
        let distance = if self.task.problem.is_small() {
            work / EVALUATIONS
        } else {
            (work / EVALUATIONS_OF_LARGE_SETS).max(SMALLEST_DISTANCE)
        };
        if history.is_empty() {
            let first = self.evaluate()?;
            let loss = first.train_loss;
            history.push(first);
            if !loss.is_finite() {
                let why = format!("the training loss before the first step is {loss}");
                return Ok(End::Diverged(why));
            }
        }
        let mut due = (self.work() / distance).floor() * distance + distance;
        while self.work() < work {
            let report = match self.step() {
                Ok(report) => report,
                Err(error @ osculant::Error::NotFinite { .. }) => {
                    return Ok(End::Diverged(error.to_string()));
                }
                Err(error) => return Err(error.into()),
            };
            if self.work() >= due || self.work() >= work {
                due = (self.work() / distance).floor() * distance + distance;
                let point = self.evaluate()?;
                let limit = HOPELESS * history[0].train_loss;
                if !point.train_loss.is_finite() || point.train_loss > limit {
                    let loss = point.train_loss;
                    return Ok(End::Diverged(format!("the training loss is {loss:.2e}")));
                }
                history.push(point);
            }
            watch(self, &report, history)?;
        }
        Ok(End::Finished)
    }
}
