//! The problems: a data set and a network for it.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use clap::ValueEnum;
use osculant::checkpoint::Checkpoint;
use osculant::data::{Dataset, Targets, digits, idx};
use osculant::gpu::Gpu;
use osculant::nn::{Activation, Loss, Model, Sequential, autoencoder};
use osculant::objective::GraphObjective;

use crate::experiment::Experiment;
use crate::failure::{Failure, Outcome};
use crate::fields::{self, Field, TermRows};

/// Seed of the splits of the data: the same for every run, so that all runs see the same rows.
const SPLIT_SEED: u64 = 0;
/// On larger training sets the training loss is reported on this many rows, the first ones.
const MONITORED_ROWS: usize = 10_000;
/// Training sets up to this many rows are small.
const SMALL: usize = 2 * MONITORED_ROWS;
/// Classes of all these data sets as they are published.
const CLASSES: usize = 10;

/// A data set and a network.
#[derive(Clone, Debug, ValueEnum)]
pub(crate) enum Problem {
    /// 8x8 digits (inside the program), 64-32-10, tanh, cross-entropy
    DigitsMlp,
    /// 8x8 digits, autoencoder 64-16-64, softplus and sigmoid, squared error
    DigitsAutoencoder,
    /// Fashion-MNIST, 784-128-10, tanh, cross-entropy
    FashionMlp,
    /// MNIST, 784-128-10, tanh, cross-entropy
    MnistMlp,
    /// MNIST, autoencoder 784-32-784, softplus and sigmoid, squared error
    MnistAutoencoder,
    /// Poisson's equation on a square, 2-64-1, tanh, 900 + 120 points
    #[value(name = "poisson-2d")]
    Poisson2d,
    /// Poisson's equation in five dimensions, 5-64-1, tanh, 3,000 + 500 points, drawn anew at every step
    #[value(name = "poisson-5d")]
    Poisson5d,
    /// Heat equation on an interval, 2-64-1, tanh, 900 + 120 points
    #[value(name = "heat-1d")]
    Heat1d,
    /// Burgers' equation, 2-20-20-20-1, tanh, 10,456 points
    Burgers,
    /// Convection on a circle, 3-50-50-50-1, tanh, 10,257 points
    Convection,
    /// Data and network of a file
    #[value(skip)]
    Own(Arc<Experiment>),
}

/// The rows that a run sees.
#[derive(Clone, Debug)]
pub(crate) struct Data {
    /// What is trained on.
    pub(crate) train: Dataset,
    /// What is never trained on.
    pub(crate) test: Dataset,
    /// Part of the training rows on which the training loss is reported; none means all.
    monitored: Option<Dataset>,
    /// See [`spread`].
    spread: f64,
    /// Of a differential equation: the rows of each term.
    pub(crate) terms: Vec<TermRows>,
    /// Of a differential equation: the mean square of its solution on the test rows.
    pub(crate) solution: Option<f64>,
}

impl Data {
    pub(crate) fn new(train: Dataset, test: Dataset) -> osculant::Result<Self> {
        let monitored = (train.len() > SMALL)
            .then(|| train.head(MONITORED_ROWS))
            .transpose()?;
        Ok(Self {
            spread: spread(&train, &test),
            train,
            test,
            monitored,
            terms: Vec::new(),
            solution: None,
        })
    }

    /// Points and the solution of a differential equation.
    fn of_field(field: &Field) -> osculant::Result<Self> {
        let train = field.rows(&field.points(0)?.draw(0)?)?;
        let (test, solution) = field.test()?;
        Ok(Self {
            terms: field.terms(&train)?,
            solution: Some(solution),
            ..Self::new(train, test)?
        })
    }

    /// Whether there are so few training rows that an epoch is cheap.
    pub(crate) fn is_small(&self) -> bool {
        self.train.len() <= SMALL
    }

    /// The rows on which the training loss is reported.
    pub(crate) fn monitored(&self) -> &Dataset {
        self.monitored.as_ref().unwrap_or(&self.train)
    }

    /// The rows on which the training loss is reported, in words.
    pub(crate) fn monitored_rows(&self) -> String {
        match &self.monitored {
            None => "all training rows".to_owned(),
            Some(rows) => format!("the first {} training rows", thousands(rows.len())),
        }
    }

    /// One sentence for reports: the rows, the network and its loss.
    pub(crate) fn description(&self, problem: &Problem) -> String {
        let (train, test) = (thousands(self.train.len()), thousands(self.test.len()));
        if let Problem::Own(experiment) = problem {
            let network = experiment.description();
            return format!(
                "{}, {train} training and {test} test rows; {network}",
                experiment.name
            );
        }
        if let Some(field) = problem.field() {
            let drawn = if field.resampled {
                ", drawn anew at every step"
            } else {
                ""
            };
            return format!(
                "{}; {train} points{drawn}, error at {test} points",
                field.sentence
            );
        }
        let (name, width) = (problem.data_name(), self.train.width());
        let network = match problem.hidden() {
            hidden if problem.is_autoencoder() => format!(
                "autoencoder {width}-{hidden}-{width} with softplus and sigmoid; mean squared error per pixel"
            ),
            hidden => format!(
                "network {width}-{hidden}-{} with tanh; softmax cross-entropy",
                classes(&self.train)
            ),
        };
        format!("{name}, {train} training and {test} test images of {width} pixels; {network}")
    }

    /// The training rows split once more, for tuning: a part to train on, and a validation part in place of the test rows.
    ///
    /// Of a differential equation it is the same points, and the error of the solution.
    pub(crate) fn for_tuning(&self) -> osculant::Result<Self> {
        if self.solution.is_some() {
            return Ok(self.clone());
        }
        let fraction = if !self.is_small() { 1.0 / 6.0 } else { 0.2 };
        let (train, validation) = self.train.split(fraction, SPLIT_SEED)?;
        Ok(Self {
            spread: spread(&train, &validation),
            train,
            test: validation,
            monitored: None,
            terms: Vec::new(),
            solution: None,
        })
    }
}

/// The mean squared distance of the test targets from the mean of the training targets, over the numbers of a row, where they are numbers:
/// the mean squared error of knowing no more than that mean.
fn spread(train: &Dataset, test: &Dataset) -> f64 {
    let (
        Targets::Values {
            values: known,
            width,
        },
        Targets::Values { values, .. },
    ) = (train.targets(), test.targets())
    else {
        return f64::NAN;
    };
    let of_column = |column: usize| {
        let targets = |values: &[f32]| -> Vec<f64> {
            let targets = values.iter().skip(column).step_by(*width);
            targets.map(|&value| f64::from(value)).collect()
        };
        let mean = targets(known).iter().sum::<f64>() / train.len() as f64;
        let squares = targets(values)
            .into_iter()
            .map(|value| (value - mean).powi(2));
        squares.sum::<f64>() / test.len() as f64
    };
    (0..*width).map(of_column).sum::<f64>() / *width as f64
}

/// Number of classes of the rows.
fn classes(data: &Dataset) -> usize {
    match data.targets() {
        Targets::Classes { classes, .. } => *classes,
        _ => CLASSES,
    }
}

/// A number in two digits.
fn two_digits(number: f64) -> f64 {
    format!("{number:.1e}").parse().unwrap_or(number)
}

/// A number with commas between thousands.
fn thousands(number: usize) -> String {
    let digits = number.to_string();
    let groups: Vec<&str> = digits
        .as_bytes()
        .rchunks(3)
        .rev()
        .filter_map(|group| std::str::from_utf8(group).ok())
        .collect();
    groups.join(",")
}

impl Problem {
    /// The name on the command line.
    pub(crate) fn name(&self) -> &str {
        match self {
            Problem::Own(experiment) => &experiment.name,
            Problem::DigitsMlp => "digits-mlp",
            Problem::DigitsAutoencoder => "digits-autoencoder",
            Problem::FashionMlp => "fashion-mlp",
            Problem::MnistMlp => "mnist-mlp",
            Problem::MnistAutoencoder => "mnist-autoencoder",
            _ => self.field().map_or("", |field| field.name),
        }
    }

    /// The differential equation that it is, if any.
    pub(crate) fn field(&self) -> Option<&'static Field> {
        match self {
            Problem::Poisson2d => Some(&fields::POISSON_2D),
            Problem::Poisson5d => Some(&fields::POISSON_5D),
            Problem::Heat1d => Some(&fields::HEAT_1D),
            Problem::Burgers => Some(&fields::BURGERS),
            Problem::Convection => Some(&fields::CONVECTION),
            _ => None,
        }
    }

    /// Whether an epoch is cheap: with the data set inside the program, or a file's of few rows.
    pub(crate) fn is_small(&self) -> bool {
        match self {
            Problem::Own(experiment) => experiment.is_small(),
            Problem::DigitsMlp | Problem::DigitsAutoencoder => true,
            _ => self.field().is_some(),
        }
    }

    /// The file that says what it is, if there is one.
    pub(crate) fn experiment(&self) -> Option<&Experiment> {
        match self {
            Problem::Own(experiment) => Some(experiment),
            _ => None,
        }
    }

    /// Whether the network reproduces its input.
    pub(crate) fn is_autoencoder(&self) -> bool {
        matches!(self, Problem::DigitsAutoencoder | Problem::MnistAutoencoder)
    }

    /// Training losses whose price in work and seconds is reported.
    pub(crate) fn levels(&self, data: &Data) -> [f64; 2] {
        match self {
            // Mean squares are in the units of the targets.
            Problem::Own(experiment)
                if experiment.loss() == Loss::MeanSquaredError && data.spread > 0.0 =>
            {
                [0.1, 0.01].map(|part| two_digits(part * data.spread))
            }
            Problem::Own(_) => [0.1, 0.01],
            Problem::DigitsMlp | Problem::MnistMlp => [0.1, 0.01],
            Problem::DigitsAutoencoder => [0.02, 0.01],
            Problem::FashionMlp => [0.4, 0.3],
            Problem::MnistAutoencoder => [0.02, 0.01],
            _ => [1e-2, 1e-4],
        }
    }

    /// How much work to do when nothing is said, in epochs.
    pub(crate) fn default_work(&self) -> f64 {
        match self {
            _ if self.field().is_some() => 2000.0,
            _ if self.is_small() => 60.0,
            _ => 10.0,
        }
    }

    /// The data; `folder` overrides where the images of the large sets lie.
    pub(crate) fn load(&self, folder: Option<&Path>) -> Outcome<Arc<Data>> {
        if let Some(field) = self.field() {
            return Ok(Arc::new(Data::of_field(field)?));
        }
        let images = |name: &str| {
            let default = PathBuf::from("data").join(name);
            idx::load(folder.unwrap_or(&default), name).map_err(|error| {
                let is_missing = matches!(error, osculant::Error::Io { .. });
                let failure = Failure::from(error);
                if is_missing {
                    failure.hint("where the data are is said by --data FOLDER")
                } else {
                    failure
                }
            })
        };
        let (train, test) = match self {
            Problem::Own(experiment) => {
                return match folder {
                    None => {
                        for remark in &experiment.remarks {
                            println!("{remark}");
                        }
                        Ok(experiment.data())
                    }
                    Some(_) => Err(Failure::new(
                        "--data is about the pictures of MNIST and Fashion-MNIST",
                    )
                    .hint(format!(
                        "{} says itself where its data are; leave --data out",
                        experiment.name
                    ))),
                };
            }
            Problem::DigitsMlp | Problem::DigitsAutoencoder => digits()?.split(0.2, SPLIT_SEED)?,
            Problem::FashionMlp => images("fashion-mnist")?,
            _ => images("mnist")?,
        };
        if self.is_autoencoder() {
            return Ok(Arc::new(Data::new(
                train.as_autoencoder(),
                test.as_autoencoder(),
            )?));
        }
        let classes = classes(&train);
        if let Some(labels) = train.original_labels() {
            println!(
                "{classes} classes, for the labels {labels:?} of the files; the network has {classes} outputs"
            );
        } else if classes != CLASSES {
            println!("{classes} classes in the data; the network has {classes} outputs");
        }
        Ok(Arc::new(Data::new(train, test)?))
    }

    /// The network with its loss, with as many outputs as the data have classes.
    pub(crate) fn model(&self, data: &Dataset) -> Model {
        if let Problem::Own(experiment) = self {
            return experiment.model(data);
        }
        if let Some(field) = self.field() {
            return field.model(data);
        }
        let hidden = self.hidden();
        if self.is_autoencoder() {
            let (code, output) = (Activation::Softplus, Activation::Sigmoid);
            return autoencoder(data.width(), hidden, code, output)
                .model(data, Loss::MeanSquaredError);
        }
        Sequential::new()
            .dense(hidden)
            .activation(Activation::Tanh)
            .dense(classes(data))
            .model(data, Loss::SoftmaxCrossEntropy)
    }

    /// The objective of the network, with what the file adds to its loss.
    pub(crate) fn objective(&self, gpu: &Gpu, data: &Dataset) -> osculant::Result<GraphObjective> {
        let objective = GraphObjective::new(gpu, self.model(data))?;
        match self.experiment() {
            Some(experiment) => objective.with_l2(experiment.l2()),
            None => Ok(objective),
        }
    }

    /// Width of the layer between inputs and outputs, of those that the program knows.
    fn hidden(&self) -> usize {
        match self {
            Problem::DigitsMlp | Problem::MnistAutoencoder => 32,
            Problem::FashionMlp | Problem::MnistMlp => 128,
            Problem::DigitsAutoencoder => 16,
            _ => 0,
        }
    }

    fn data_name(&self) -> &str {
        match self {
            Problem::Own(experiment) => &experiment.name,
            Problem::DigitsMlp | Problem::DigitsAutoencoder => "handwritten digits",
            Problem::FashionMlp => "Fashion-MNIST",
            _ => "MNIST",
        }
    }

    /// What is reported as accuracy, from the model's mean metric: the share of right answers, or for an autoencoder
    /// `1 - sqrt(m)` with the mean `m` of the relative squared errors `|x' - x|^2 / |x|^2`.
    pub(crate) fn accuracy(&self, metric: f64, data: &Data) -> f64 {
        if let Problem::Own(experiment) = self {
            experiment.accuracy(metric, data.spread)
        } else if self.is_autoencoder() {
            1.0 - metric.sqrt()
        } else {
            metric
        }
    }

    /// Refuses a checkpoint that is of another problem, with a hint for that, or of a file that has been changed since, with another one.
    pub(crate) fn check_stored(
        &self,
        checkpoint: &Checkpoint,
        of_another: &str,
        changed: &str,
    ) -> Outcome {
        let stored = checkpoint.metadata("problem")?;
        if stored != self.name() {
            let message = format!("the checkpoint is of {stored}, not of {}", self.name());
            return Err(Failure::new(message).hint(of_another));
        }
        if let Some(experiment) = self.experiment()
            && checkpoint.metadata("experiment")? != experiment.definition
        {
            let message = format!(
                "[data] or [network] of {stored} are not what they were when the checkpoint was written"
            );
            return Err(Failure::new(message).hint(changed));
        }
        Ok(())
    }

    /// What it is called.
    pub(crate) fn accuracy_name(&self) -> &'static str {
        match self {
            Problem::Own(experiment) => experiment.accuracy_name(),
            _ => "accuracy",
        }
    }

    /// What the reported accuracy means.
    pub(crate) fn accuracy_meaning(&self) -> &'static str {
        if let Problem::Own(experiment) = self {
            experiment.accuracy_meaning()
        } else if self.is_autoencoder() {
            "1 minus the root of the mean relative squared error of the reconstruction"
        } else {
            "the share of right answers"
        }
    }
}
