//! The command line.

use std::path::PathBuf;

use clap::builder::PossibleValuesParser;
use clap::{Args, Parser, Subcommand, ValueEnum};

use crate::help::{
    BENCH_EXAMPLES, BIAS_EXAMPLES, COMPARE_EXAMPLES, DOCTOR_EXAMPLES, EXAMPLES,
    MICHALEWICZ_EXAMPLES, OPTIONS, SADDLE_EXAMPLES, SHOW_EXAMPLES, SPECTRUM_EXAMPLES,
    STRATEGIES_EXAMPLES, TRAIN_EXAMPLES, TUNE_EXAMPLES,
};
use crate::methods::Method;
use crate::problems::Problem;
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
    /// Run Newton-like methods on a function full of saddles
    #[command(after_help = MICHALEWICZ_EXAMPLES)]
    Michalewicz(Michalewicz),
}

/// The analyses.
#[derive(Debug, Subcommand)]
pub(crate) enum Analyze {
    /// Eigenvalues at both ends of the spectrum, and the spectral density, by Lanczos
    #[command(after_help = SPECTRUM_EXAMPLES)]
    Spectrum(Spectrum),
    /// Steps that each optimizer needs to leave a saddle point
    #[command(after_help = SADDLE_EXAMPLES)]
    Saddle(Saddle),
    /// What a mini-batch thinks of its own directions, and what becomes of steps along them
    #[command(after_help = BIAS_EXAMPLES)]
    Bias(Bias),
    /// Full training with single and with decoupled mini-batches, by Newton-CG or low-rank saddle-free Newton
    #[command(after_help = STRATEGIES_EXAMPLES)]
    Strategies(Strategies),
}

/// Where data and device come from.
#[derive(Args, Debug)]
pub(crate) struct Place {
    /// Work budget of each run in epochs: a gradient of every training row is 1, a curvature product of every row 2
    /// [default: 60 for the digits, 10 for the large sets]
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

/// Names of the networks of `osculant bench` and, after them, of the other ones of `osculant train`.
fn shown() -> Vec<&'static str> {
    let bench = NETWORKS.map(|network| network.name);
    let trained = Problem::value_variants().iter().map(|p| p.name());
    let others = trained.filter(|name| !bench.contains(name));
    bench.iter().copied().chain(others).collect()
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
    /// A network of `osculant bench`, or with --locate one of `osculant train`
    #[arg(value_parser = PossibleValuesParser::new(shown()))]
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

/// Where an analysis takes place.
#[derive(Args, Debug)]
pub(crate) struct Point {
    /// Data set and network
    #[arg(value_enum)]
    pub(crate) problem: Problem,
    /// Parameters of a checkpoint of `osculant train`
    #[arg(long, value_name = "FILE", conflicts_with = "train")]
    pub(crate) checkpoint: Option<PathBuf>,
    /// Train for this many epochs first
    #[arg(long, value_name = "EPOCHS", default_value_t = 0.0)]
    pub(crate) train: f64,
    /// The optimizer for that, with its defaults
    #[arg(long, value_enum, default_value = "sgd")]
    pub(crate) optimizer: Method,
    /// Seed of the initial parameters, of the order of the rows, and of random vectors
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
}

/// `osculant analyze strategies`.
#[derive(Args, Debug)]
pub(crate) struct Strategies {
    /// Data set and network
    #[arg(value_enum)]
    pub(crate) problem: Problem,
    /// Examples in a batch, all roles together
    #[arg(long, value_delimiter = ',', default_value = "384")]
    pub(crate) batches: Vec<u32>,
    /// The optimizer
    #[arg(long, value_enum, default_value_t = StrategiesMethod::NewtonCg)]
    pub(crate) method: StrategiesMethod,
    /// Iterations of conjugate gradients in a solve that are tried
    #[arg(long, value_delimiter = ',', default_value = "2,8", value_parser = clap::value_parser!(u32).range(1..=1000))]
    pub(crate) iterations: Vec<u32>,
    /// Step lengths of low-rank saddle-free Newton that are tried
    #[arg(long, value_delimiter = ',', default_value = "0.3,1")]
    pub(crate) step_lengths: Vec<f64>,
    /// Steps from one computation of eigenpairs to the next
    #[arg(long, default_value = "10")]
    pub(crate) refresh: String,
    /// Runs over whose mean a candidate is judged: one good run of an erratic setting must not choose it
    #[arg(long, default_value_t = 4, value_parser = clap::value_parser!(u64).range(1..=100))]
    pub(crate) tuning_seeds: u64,
    /// Dampings that are tried, the first ones of their runs
    #[arg(
        long,
        value_delimiter = ',',
        default_value = "0.003,0.01,0.03,0.1,0.3,1,3"
    )]
    pub(crate) dampings: Vec<f64>,
    /// Epochs of work of a trial; without it that of a run, or a quarter of it where an epoch takes seconds
    #[arg(long, value_name = "EPOCHS")]
    pub(crate) trial_work: Option<f64>,
    /// Keep the damping fixed instead of adapting it by the reduction ratio
    #[arg(long)]
    pub(crate) fixed: bool,
    /// Runs of each strategy
    #[arg(long, default_value_t = 5, value_parser = clap::value_parser!(u64).range(2..=1000))]
    pub(crate) seeds: u64,
    /// Work, data and device.
    #[command(flatten)]
    pub(crate) place: Place,
    /// Write the results into this folder
    #[arg(long, value_name = "FOLDER")]
    pub(crate) out: PathBuf,
}

/// Optimizers whose batches can have roles.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum StrategiesMethod {
    /// Newton's method with conjugate gradients
    NewtonCg,
    /// Low-rank saddle-free Newton
    Lrsfn,
}

/// Directions that a batch makes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum DirectionKind {
    /// Top eigenvectors of the Gauss-Newton matrix
    Eig,
    /// Those of conjugate gradients
    Cg,
}

/// `osculant analyze bias`.
#[derive(Args, Debug)]
pub(crate) struct Bias {
    /// Parameters, data and device.
    #[command(flatten)]
    pub(crate) point: Point,
    /// Examples in each of the two batches
    #[arg(long, default_value_t = 64, value_parser = clap::value_parser!(u32).range(2..=1_000_000))]
    pub(crate) batch: u32,
    /// Directions whose slopes and curvatures are compared
    #[arg(long, value_enum, default_value = "eig")]
    pub(crate) directions: DirectionKind,
    /// Number of such directions
    #[arg(long, default_value_t = 10, value_parser = clap::value_parser!(u32).range(1..=200))]
    pub(crate) k: u32,
    /// Pairs of batches
    #[arg(long, default_value_t = 12, value_parser = clap::value_parser!(u32).range(1..=10_000))]
    pub(crate) batches: u32,
    /// Training losses at which is measured, falling
    #[arg(long, value_delimiter = ',', default_value = "2.15,0.47,0.15")]
    pub(crate) losses: Vec<f64>,
    /// Iterations of conjugate gradients
    #[arg(long, default_value_t = 16, value_parser = clap::value_parser!(u32).range(1..=1000))]
    pub(crate) iterations: u32,
    /// Dampings beside the regularization of 0.001; the picture shows the first
    #[arg(long, value_delimiter = ',', default_value = "0,0.01")]
    pub(crate) dampings: Vec<f64>,
    /// Rows that count as all data, or 'all' [default: all, 10000 on large sets]
    #[arg(long, value_name = "ROWS")]
    pub(crate) rows: Option<String>,
    /// Write the results into this folder
    #[arg(long, value_name = "FOLDER")]
    pub(crate) out: PathBuf,
}

/// `osculant analyze saddle`.
#[derive(Args, Debug)]
pub(crate) struct Saddle {
    /// Starting points of each run
    #[arg(long, default_value_t = 5, value_parser = clap::value_parser!(u64).range(1..=1000))]
    pub(crate) seeds: u64,
    /// Part of the name of the adapter to take; see `osculant devices`
    #[arg(long, value_name = "NAME")]
    pub(crate) adapter: Option<String>,
    /// Write the results into this folder
    #[arg(long, value_name = "FOLDER")]
    pub(crate) out: PathBuf,
}

/// `osculant analyze spectrum`.
#[derive(Args, Debug)]
pub(crate) struct Spectrum {
    /// Parameters, data and device.
    #[command(flatten)]
    pub(crate) point: Point,
    /// The matrix
    #[arg(long, value_enum, default_value = "hessian")]
    pub(crate) curvature: Matrix,
    /// Training rows of the mean, or 'all' [default: all, 10000 on large sets]
    #[arg(long, value_name = "ROWS")]
    pub(crate) batch: Option<String>,
    /// Lanczos steps of a probe: products with the matrix
    #[arg(long, default_value_t = 80, value_parser = clap::value_parser!(u32).range(2..=2000))]
    pub(crate) steps: u32,
    /// Probes
    #[arg(long, default_value_t = 4, value_parser = clap::value_parser!(u32).range(1..=1000))]
    pub(crate) probes: u32,
    /// Write the results into this folder
    #[arg(long, value_name = "FOLDER")]
    pub(crate) out: PathBuf,
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
    /// Data set and network
    #[arg(value_enum)]
    pub(crate) problem: Problem,
    /// The optimizer; with --resume that of the checkpoint
    #[arg(long, value_enum, required_unless_present = "resume")]
    pub(crate) optimizer: Option<Method>,
    /// Set an option of the optimizer; may be repeated
    #[arg(long, value_name = "KEY=VALUE")]
    pub(crate) set: Vec<String>,
    /// Seed of the initial parameters and of the order of the rows [default: 0]
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
    /// Data set and network
    #[arg(value_enum)]
    pub(crate) problem: Problem,
    /// The optimizers, with commas between them
    #[arg(long, value_enum, value_delimiter = ',', required = true)]
    pub(crate) optimizers: Vec<Method>,
    /// Runs of each optimizer, with the seeds 0, 1, ...
    #[arg(long, default_value_t = 3, value_parser = clap::value_parser!(u64).range(1..=1000))]
    pub(crate) seeds: u64,
    /// Find options first: a small grid for each optimizer, judged on a validation part of the training rows
    #[arg(long)]
    pub(crate) tune: bool,
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
