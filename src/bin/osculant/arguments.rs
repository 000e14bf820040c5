//! The command line.

use std::path::PathBuf;

use clap::builder::PossibleValuesParser;
use clap::{Args, Parser, Subcommand, ValueEnum};

pub(crate) use crate::analyze::arguments::{
    Analyze, Bias, DirectionKind, Point, Saddle, Spectrum, Strategies, StrategiesMethod,
};
use crate::choice::{Choice, ChoiceParser, Shown};

use crate::help::{
    BENCH_EXAMPLES, COMPARE_EXAMPLES, DOCTOR_EXAMPLES, EXAMPLES, INIT_EXAMPLES,
    MICHALEWICZ_EXAMPLES, OPTIONS, SHOW_EXAMPLES, STATISTICS_EXAMPLES, TRAIN_EXAMPLES,
    TUNE_EXAMPLES,
};
use crate::methods::Method;
use crate::synthetic::NETWORKS;

/// Second-order optimization on any GPU that wgpu reaches
#[derive(Debug, Parser)]
#[command(name = "osculant", version, after_help = EXAMPLES, arg_required_else_help = true)]
pub(crate) struct Cli {
    /// What to do.
    #[command(subcommand)]
    pub(crate) command: Command,
}

/// The commands.
#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    /// List the adapters that wgpu finds
    #[command(after_help = "Examples:\n  osculant devices\n  osculant devices --json")]
    Devices {
        /// As JSON, with all limits
        #[arg(long)]
        json: bool,
    },
    /// Try what an adapter does where drivers differ, for reports of bugs
    #[command(after_help = DOCTOR_EXAMPLES)]
    Doctor(Doctor),
    /// Write a file with data and a network to begin with, for train, compare and show
    #[command(after_help = INIT_EXAMPLES)]
    Init(Init),
    /// Train a network with one optimizer
    #[command(after_help = format!("{OPTIONS}\n\n{TRAIN_EXAMPLES}"))]
    Train(Train),
    /// Compare optimizers on a problem and write a report
    #[command(after_help = format!("{OPTIONS}\n\n{COMPARE_EXAMPLES}"))]
    Compare(Compare),
    /// Print the kernels of a program: what they compute, what they cost, and the memory
    #[command(after_help = SHOW_EXAMPLES)]
    Show(Show),
    /// Measure which kernels for matrix products are fastest on an adapter
    #[command(after_help = TUNE_EXAMPLES)]
    Tune(TuneKernels),
    /// Measure gradients and curvature products against what the adapter can do
    #[command(after_help = BENCH_EXAMPLES)]
    Bench(Bench),
    /// Look at the curvature of a network's loss
    #[command(subcommand)]
    Analyze(Analyze),
    /// Write what each example of a batch adds to gradient and curvature
    #[command(after_help = STATISTICS_EXAMPLES)]
    Statistics(BatchQuantities),
    /// Run Newton-like methods on a function full of saddles
    #[command(after_help = MICHALEWICZ_EXAMPLES)]
    Michalewicz(Michalewicz),
}

/// Where data and device come from.
#[derive(Args, Debug)]
pub(crate) struct Place {
    /// Work budget of each run in epochs: a gradient of every training row is 1, a curvature product of every row 2
    /// [default: that of the file, or 60, and 10 for large sets]
    #[arg(long, value_name = "EPOCHS", allow_negative_numbers = true)]
    pub(crate) work: Option<f64>,
    /// Folder with the images of MNIST or Fashion-MNIST [default: data/mnist, data/fashion-mnist]
    #[arg(long, value_name = "FOLDER")]
    pub(crate) data: Option<PathBuf>,
    /// Part of the name of the adapter to take; see `osculant devices`
    #[arg(long, value_name = "NAME")]
    pub(crate) adapter: Option<String>,
    /// Kernels for matrix products, as `osculant tune` measured them [default: rules for the kind of adapter]
    #[arg(long, value_name = "FILE")]
    pub(crate) tuning: Option<PathBuf>,
}

/// A part of a program.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum Phase {
    /// Loss and gradient
    Gradient,
    /// Loss, gradient, and everything that products need
    Linearize,
    /// One Hessian-vector product
    Hvp,
    /// One Gauss-Newton-vector product
    Ggn,
    /// Products with several directions at once
    Block,
}

/// A matrix of second derivatives.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum Matrix {
    /// The Hessian
    Hessian,
    /// The generalized Gauss-Newton matrix
    Ggn,
}

impl From<Matrix> for osculant::objective::Curvature {
    fn from(matrix: Matrix) -> Self {
        match matrix {
            Matrix::Hessian => Self::Hessian,
            Matrix::Ggn => Self::GaussNewton,
        }
    }
}

/// `osculant init`.
#[derive(Args, Debug)]
pub(crate) struct Init {
    /// The file to write; a table of invented fruit is written beside it
    #[arg(value_name = "FILE.toml", default_value = "experiment.toml")]
    pub(crate) file: PathBuf,
    /// Overwrite files that are there
    #[arg(long)]
    pub(crate) force: bool,
}

/// `osculant doctor`.
#[derive(Args, Debug)]
pub(crate) struct Doctor {
    /// Part of the name of the adapter to take; see `osculant devices`
    #[arg(long, value_name = "NAME")]
    pub(crate) adapter: Option<String>,
    /// Also write all findings to this file, as JSON
    #[arg(long, value_name = "FILE")]
    pub(crate) json: Option<PathBuf>,
}

/// `osculant show`.
#[derive(Args, Debug)]
pub(crate) struct Show {
    /// A network of `osculant bench`, or with --locate one of `osculant train`, or a file
    #[arg(value_parser = Shown)]
    pub(crate) problem: String,
    /// Instead of kernels: the node at which loss, gradient or curvature products stop being finite, on the first rows of the training set
    #[arg(long, conflicts_with_all = ["phase", "time", "json"])]
    pub(crate) locate: bool,
    /// With --locate: parameters of a checkpoint of `osculant train` [default: initial ones]
    #[arg(long, value_name = "FILE", requires = "locate")]
    pub(crate) checkpoint: Option<PathBuf>,
    /// With --locate: folder with the images of MNIST or Fashion-MNIST [default: data/mnist, data/fashion-mnist]
    #[arg(long, value_name = "FOLDER", requires = "locate")]
    pub(crate) data: Option<PathBuf>,
    /// The part to print
    #[arg(long, value_enum, default_value = "hvp")]
    pub(crate) phase: Phase,
    /// The matrix, for linearize and block
    #[arg(long, value_enum, default_value = "ggn")]
    pub(crate) curvature: Matrix,
    /// Directions in a block
    #[arg(long, default_value_t = 32, value_parser = clap::value_parser!(u32).range(1..=4096))]
    pub(crate) width: u32,
    /// Also time each kernel alone
    #[arg(long)]
    pub(crate) time: bool,
    /// As JSON, all phases
    #[arg(long)]
    pub(crate) json: bool,
    /// Part of the name of the adapter to take; see `osculant devices`
    #[arg(long, value_name = "NAME")]
    pub(crate) adapter: Option<String>,
    /// Kernels for matrix products, as `osculant tune` measured them [default: rules for the kind of adapter]
    #[arg(long, value_name = "FILE")]
    pub(crate) tuning: Option<PathBuf>,
}

/// `osculant statistics`.
#[derive(Args, Debug)]
pub(crate) struct BatchQuantities {
    /// Data set and network, or a file that says what they are
    #[arg(value_parser = ChoiceParser)]
    pub(crate) problem: Choice,
    /// Quantities, with commas between them [default: those whose size does not grow with the batch]
    #[arg(long, value_name = "NAME", value_delimiter = ',', value_parser = PossibleValuesParser::new(crate::quantities::names()))]
    pub(crate) quantity: Vec<String>,
    /// The batch: so many of the first training rows [default: 128, or all of fewer]
    #[arg(long, value_parser = clap::value_parser!(u32).range(1..))]
    pub(crate) rows: Option<u32>,
    /// Parameters of a checkpoint of `osculant train` [default: initial ones]
    #[arg(long, value_name = "FILE")]
    pub(crate) checkpoint: Option<PathBuf>,
    /// Seed of the initial parameters and of random signs
    #[arg(long, default_value_t = 0)]
    pub(crate) seed: u64,
    /// Folder with the images of MNIST or Fashion-MNIST [default: data/mnist, data/fashion-mnist]
    #[arg(long, value_name = "FOLDER")]
    pub(crate) data: Option<PathBuf>,
    /// Part of the name of the adapter to take; see `osculant devices`
    #[arg(long, value_name = "NAME")]
    pub(crate) adapter: Option<String>,
    /// Kernels for matrix products, as `osculant tune` measured them [default: rules for the kind of adapter]
    #[arg(long, value_name = "FILE")]
    pub(crate) tuning: Option<PathBuf>,
    /// Write NAME.safetensors of each quantity into this folder
    #[arg(long, value_name = "FOLDER")]
    pub(crate) out: PathBuf,
}

/// `osculant tune`.
#[derive(Args, Debug)]
pub(crate) struct TuneKernels {
    /// Fewer products and fewer runs
    #[arg(long)]
    pub(crate) quick: bool,
    /// Part of the name of the adapter to take; see `osculant devices`
    #[arg(long, value_name = "NAME")]
    pub(crate) adapter: Option<String>,
    /// The file to write
    #[arg(long, value_name = "FILE", default_value = "tuning.json")]
    pub(crate) out: PathBuf,
}

/// `osculant bench`.
#[derive(Args, Debug)]
pub(crate) struct Bench {
    /// Fewer repetitions, and of the widest network only what is short: under a minute
    #[arg(long)]
    pub(crate) quick: bool,
    /// A network to measure; may be repeated [default: all]
    #[arg(long, value_name = "NAME", value_parser = PossibleValuesParser::new(NETWORKS.map(|network| network.name)))]
    pub(crate) problem: Vec<String>,
    /// Part of the name of the adapter to take; see `osculant devices`
    #[arg(long, value_name = "NAME")]
    pub(crate) adapter: Option<String>,
    /// Kernels for matrix products, as `osculant tune` measured them [default: rules for the kind of adapter]
    #[arg(long, value_name = "FILE")]
    pub(crate) tuning: Option<PathBuf>,
    /// Write bench.json into this folder
    #[arg(long, value_name = "FOLDER")]
    pub(crate) out: Option<PathBuf>,
}

/// A form of low-rank saddle-free Newton.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum LrsfnMode {
    /// Fixed damping and step length, a fixed random block, as its authors' program has it
    Paper,
    /// Damping above what was not captured, refusal of steps that raise the loss
    Default,
}

impl LrsfnMode {
    /// The name on the command line.
    pub(crate) fn name(self) -> &'static str {
        match self {
            LrsfnMode::Paper => "paper",
            LrsfnMode::Default => "default",
        }
    }
}

/// `osculant michalewicz`.
#[derive(Args, Debug)]
pub(crate) struct Michalewicz {
    /// Ranks of the low-rank method
    #[arg(long, value_delimiter = ',', default_value = "10,30,50")]
    pub(crate) ranks: Vec<usize>,
    /// Its forms
    #[arg(
        long,
        value_enum,
        value_delimiter = ',',
        default_value = "paper,default"
    )]
    pub(crate) modes: Vec<LrsfnMode>,
    /// Number of starting points
    #[arg(long, default_value_t = 10, value_parser = clap::value_parser!(u64).range(1..=10_000))]
    pub(crate) seeds: u64,
    /// Part of the name of the adapter to take; see `osculant devices`
    #[arg(long, value_name = "NAME")]
    pub(crate) adapter: Option<String>,
    /// Write michalewicz.json into this folder
    #[arg(long, value_name = "FOLDER")]
    pub(crate) out: Option<PathBuf>,
}

/// `osculant train`.
#[derive(Args, Debug)]
pub(crate) struct Train {
    /// Data set and network, or a file that says what they are
    #[arg(value_parser = ChoiceParser)]
    pub(crate) problem: Choice,
    /// The optimizer [default: that of the file, or with --resume of the checkpoint]
    #[arg(long, value_enum)]
    pub(crate) optimizer: Option<Method>,
    /// Set an option of the optimizer; may be repeated
    #[arg(long, value_name = "KEY=VALUE")]
    pub(crate) set: Vec<String>,
    /// Seed of the initial parameters and of the order of the rows [default: that of the file, or 0]
    #[arg(long, conflicts_with = "resume")]
    pub(crate) seed: Option<u64>,
    /// Work, data and device.
    #[command(flatten)]
    pub(crate) place: Place,
    /// Write a checkpoint (safetensors) here at the end, and every half minute on the way
    #[arg(long, value_name = "FILE")]
    pub(crate) checkpoint: Option<PathBuf>,
    /// Continue from a checkpoint, with the bits of a run that was never interrupted
    #[arg(long, value_name = "FILE", conflicts_with_all = ["optimizer", "set"])]
    pub(crate) resume: Option<PathBuf>,
    /// Where the run diverges, compute the last batch on the CPU and name the node at which numbers stop being finite
    #[arg(long)]
    pub(crate) locate: bool,
    /// Write a report into this folder
    #[arg(long, value_name = "FOLDER")]
    pub(crate) out: Option<PathBuf>,
}

/// `osculant compare`.
#[derive(Args, Debug)]
pub(crate) struct Compare {
    /// Data set and network, or a file that says what they are
    #[arg(value_parser = ChoiceParser)]
    pub(crate) problem: Choice,
    /// The optimizers, with commas between them [default: those of the file]
    #[arg(long, value_enum, value_delimiter = ',')]
    pub(crate) optimizers: Vec<Method>,
    /// Runs of each optimizer, with the seeds 0, 1, ... [default: that of the file, or 3]
    #[arg(long, value_parser = clap::value_parser!(u64).range(1..=1000))]
    pub(crate) seeds: Option<u64>,
    /// Find options first: a small grid for each optimizer, judged on a validation part of the training rows; --tune=false
    /// where a file says so
    #[arg(long, num_args = 0..=1, require_equals = true, default_missing_value = "true", value_name = "BOOL")]
    pub(crate) tune: Option<bool>,
    /// Set an option of one of the optimizers; it is then not tuned. May be repeated
    #[arg(long, value_name = "OPTIMIZER.KEY=VALUE")]
    pub(crate) set: Vec<String>,
    /// Work, data and device.
    #[command(flatten)]
    pub(crate) place: Place,
    /// Write the report into this folder
    #[arg(long, value_name = "FOLDER")]
    pub(crate) out: PathBuf,
}

#[cfg(test)]
#[path = "arguments_tests.rs"]
mod tests;
