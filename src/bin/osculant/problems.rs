//! The problems: a data set and a network for it.

use std::path::{Path, PathBuf};

use clap::ValueEnum;
use osculant::data::{Dataset, Targets, digits, idx};
use osculant::nn::{Activation, Loss, Model, Sequential, autoencoder};

use crate::failure::{Failure, Outcome};

/// Seed of the splits of the data: the same for every run, so that all runs see the same rows.
const SPLIT_SEED: u64 = 0;
/// On larger training sets the training loss is reported on this many rows, the first ones.
const MONITORED_ROWS: usize = 10_000;
/// Classes of all these data sets as they are published.
const CLASSES: usize = 10;

/// A data set and a network.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
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
}

/// The rows that a run sees.
pub(crate) struct Data {
    /// What is trained on.
    pub(crate) train: Dataset,
    /// What is never trained on.
    pub(crate) test: Dataset,
    /// Part of the training rows on which the training loss is reported; none means all.
    monitored: Option<Dataset>,
}

impl Data {
    fn new(train: Dataset, test: Dataset) -> osculant::Result<Self> {
        let monitored = (train.len() > 2 * MONITORED_ROWS)
            .then(|| train.head(MONITORED_ROWS))
            .transpose()?;
        Ok(Self {
            train,
            test,
            monitored,
        })
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
    pub(crate) fn description(&self, problem: Problem) -> String {
        let (train, test) = (thousands(self.train.len()), thousands(self.test.len()));
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
    pub(crate) fn for_tuning(&self) -> osculant::Result<Self> {
        let fraction = if self.train.len() > 2 * MONITORED_ROWS {
            1.0 / 6.0
        } else {
            0.2
        };
        let (train, validation) = self.train.split(fraction, SPLIT_SEED)?;
        Ok(Self {
            train,
            test: validation,
            monitored: None,
        })
    }
}

/// Number of classes of the rows.
fn classes(data: &Dataset) -> usize {
    match data.targets() {
        Targets::Classes { classes, .. } => *classes,
        _ => CLASSES,
    }
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
    pub(crate) fn name(self) -> &'static str {
        match self {
            Problem::DigitsMlp => "digits-mlp",
            Problem::DigitsAutoencoder => "digits-autoencoder",
            Problem::FashionMlp => "fashion-mlp",
            Problem::MnistMlp => "mnist-mlp",
            Problem::MnistAutoencoder => "mnist-autoencoder",
        }
    }

    /// Whether the data set is the one inside the program.
    pub(crate) fn is_small(self) -> bool {
        matches!(self, Problem::DigitsMlp | Problem::DigitsAutoencoder)
    }

    /// Whether the network reproduces its input.
    pub(crate) fn is_autoencoder(self) -> bool {
        matches!(self, Problem::DigitsAutoencoder | Problem::MnistAutoencoder)
    }

    /// Training losses whose price in work and seconds is reported.
    pub(crate) fn levels(self) -> [f64; 2] {
        match self {
            Problem::DigitsMlp | Problem::MnistMlp => [0.1, 0.01],
            Problem::DigitsAutoencoder => [0.02, 0.01],
            Problem::FashionMlp => [0.4, 0.3],
            Problem::MnistAutoencoder => [0.02, 0.01],
        }
    }

    /// How much work to do when nothing is said, in epochs.
    pub(crate) fn default_work(self) -> f64 {
        if self.is_small() { 60.0 } else { 10.0 }
    }

    /// The data; `folder` overrides where the images of the large sets lie.
    pub(crate) fn load(self, folder: Option<&Path>) -> Outcome<Data> {
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
            Problem::DigitsMlp | Problem::DigitsAutoencoder => digits()?.split(0.2, SPLIT_SEED)?,
            Problem::FashionMlp => images("fashion-mnist")?,
            Problem::MnistMlp | Problem::MnistAutoencoder => images("mnist")?,
        };
        if self.is_autoencoder() {
            return Ok(Data::new(train.as_autoencoder(), test.as_autoencoder())?);
        }
        let classes = classes(&train);
        if let Some(labels) = train.original_labels() {
            println!(
                "{classes} classes, for the labels {labels:?} of the files; the network has {classes} outputs"
            );
        } else if classes != CLASSES {
            println!("{classes} classes in the data; the network has {classes} outputs");
        }
        Ok(Data::new(train, test)?)
    }

    /// The network with its loss, with as many outputs as the data have classes.
    pub(crate) fn model(self, data: &Dataset) -> Model {
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

    /// Width of the layer between inputs and outputs.
    fn hidden(self) -> usize {
        match self {
            Problem::DigitsMlp | Problem::MnistAutoencoder => 32,
            Problem::FashionMlp | Problem::MnistMlp => 128,
            Problem::DigitsAutoencoder => 16,
        }
    }

    fn data_name(self) -> &'static str {
        match self {
            Problem::DigitsMlp | Problem::DigitsAutoencoder => "handwritten digits",
            Problem::FashionMlp => "Fashion-MNIST",
            Problem::MnistMlp | Problem::MnistAutoencoder => "MNIST",
        }
    }

    /// What is reported as accuracy, from the model's mean metric: the share of right answers, or for an autoencoder
    /// `1 - sqrt(m)` with the mean `m` of the relative squared errors `|x' - x|^2 / |x|^2`.
    pub(crate) fn accuracy(self, metric: f64) -> f64 {
        if self.is_autoencoder() {
            1.0 - metric.sqrt()
        } else {
            metric
        }
    }

    /// What the reported accuracy means.
    pub(crate) fn accuracy_meaning(self) -> &'static str {
        if self.is_autoencoder() {
            "1 minus the root of the mean relative squared error of the reconstruction"
        } else {
            "the share of right answers"
        }
    }
}
