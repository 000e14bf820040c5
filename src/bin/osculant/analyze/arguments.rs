//! What the analyses take from the command line.

use std::path::PathBuf;

use clap::{Args, Subcommand, ValueEnum};

use crate::arguments::{Matrix, Place};
use crate::choice::{Choice, ChoiceParser};
use crate::help::{BIAS_EXAMPLES, SADDLE_EXAMPLES, SPECTRUM_EXAMPLES, STRATEGIES_EXAMPLES};
use crate::methods::Method;

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

/// Where an analysis takes place.
#[derive(Args, Debug)]
pub(crate) struct Point {
    /// Data set and network, or a file that says what they are
    #[arg(value_parser = ChoiceParser)]
    pub(crate) problem: Choice,
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
    /// Data set and network, or a file that says what they are
    #[arg(value_parser = ChoiceParser)]
    pub(crate) problem: Choice,
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
