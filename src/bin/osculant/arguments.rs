//! The command line.

use std::path::PathBuf;

use clap::builder::PossibleValuesParser;
use clap::{Args, Parser, Subcommand, ValueEnum};

use crate::bench::synthetic::NETWORKS;
use crate::optimizers::Method;
use crate::problems::Problem;

const EXAMPLES: &str = "\
Examples:
  osculant devices
  osculant doctor
  osculant train digits-mlp --optimizer newton-cg --work 60
  osculant train fashion-mlp --optimizer adam --set batch=256 --checkpoint adam.safetensors
  osculant train fashion-mlp --resume adam.safetensors --work 20 --checkpoint adam.safetensors
  osculant compare digits-mlp --optimizers sgd,adam,newton-cg --seeds 3 --tune --out out/digits
  osculant show digits-mlp --phase hvp
  osculant bench --quick

Environment:
  OSCULANT_ADAPTER   part of the name of the adapter to take
  OSCULANT_BACKEND   vulkan, metal, dx12 or gl
  OSCULANT_TUNING    file written by `osculant tune`";

const OPTIONS: &str = "\
Options of the optimizers (--set KEY=VALUE):
  all        batch              examples per mini-batch, or all
             growth             FACTOR:EPOCHS:MOST: batches grow by the factor after so many epochs each; or none
             decay              how steps get shorter until --work is done: constant, or linear or cosine to 0, or to a
                                factor as in linear:0.1 (learning rates, step lengths, the first factor of line searches)
             averaging          decay of an average of iterates, with which the network is evaluated: 0: none; 1: their mean
  sgd        learning-rate, momentum, nesterov, weight-decay
  debiased-sgd  directions      the first part of a batch, which makes the direction; the rest measures the step along it
             cross-fit          whether the parts also exchange their roles, averaged: true or false
             damping            added to the curvature
             max-step-length    the longest step length
             factor             multiplies it after that
             backwards          whether to go backwards where slopes disagree: true or false
  adam       learning-rate, beta1, beta2, epsilon
  adamw      those of adam, weight-decay
  newton-cg  max-iterations     cap on conjugate gradient iterations per step
             damping            first value of the Levenberg-Marquardt damping
             damping-decrease   its factor after a good step; 1 keeps it fixed
             curvature          ggn, or hessian (with a trust region)
             radius             first radius of the trust region
             preconditioner     none, or fisher (diagonal of the empirical Fisher matrix)
             preconditioner-exponent
             warm-start         fraction of the last solution at which the next solve starts
             backtracking       whether to go back to earlier iterates: true or false
             progress-tolerance, residual-tolerance    when to stop conjugate gradients
             armijo, shrink     constants of the line search
  nystrom-newton-cg  those of newton-cg without the preconditioner and radius, and
             rank, refresh      of the Nystrom approximation: eigenpairs, and steps until the next
  decoupled-newton-cg  those of newton-cg without curvature, preconditioner, radius and backtracking, and
             strategy           decoupled: the first folds of a batch make directions, the rest steps; cross-fit: that from
                                each fold on, averaged; single: all examples make both
             folds              their number; directions: how many make directions, or others: all but one
             shrinking          whether steps shrink with the noise of their slopes: true or false
             acceptance         part of the batch that only judges; 0: the whole batch judges
             dealing            how parts share the rows, with strategy decoupled: disjoint, overlapping or with-replacement
  lrsfn      rank               eigenpairs of the curvature that are captured
             oversampling, power-iterations    of the eigensolver
             refresh            steps from one computation of eigenpairs to the next
             base               what moves the rest: gradient, sgd or adam
             learning-rate, momentum           of that base; momentum for sgd
             step-length, step-length-beyond   in the captured space, and beyond it with base gradient
             automatic          Lanczos steps that measure the step length, with base gradient; 0: none
             damping, damping-decrease         least damping, and its factor after a good step
             curvature          hessian or ggn
             strategy           single; decoupled: the first part of a batch makes eigenvectors, the rest slopes, eigenvalues and
                                steps; cross-fit: each fold does so with eigenvectors of the others, averaged (base gradient)
             curvature-batch    part of the batch that eigenpairs come from, with strategy single
             directions         the part that makes eigenvectors; folds: their number
             acceptance, dealing               as above
             rank-rule          fixed; residual (of random vectors) or noise (over sub-batches) lower the rank
             rank-threshold     largest relative residual, or smallest ratio of signal to noise
             average            decay of a running average of the curvature; 0: none
             storage            of eigenvectors: full or half
  lrsfn-paper  rank, step-length, damping      all fixed, eigenpairs anew in every step
             curvature-batch    part of the batch that is set apart for them";

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

const DOCTOR_EXAMPLES: &str = "\
Examples:
  osculant doctor
  osculant doctor --adapter llvmpipe --json doctor.json

Tried are long loops, NaN and infinities, rounding errors of sums and products, errors of functions,
subgroup operations and workgroup memory; what differs from IEEE 754 or WGSL is shown and explained.";

const STRATEGIES_EXAMPLES: &str = "\
Examples:
  osculant analyze strategies digits-mlp --batches 128,384 --work 40 --out out/strategies
  osculant analyze strategies fashion-mlp --method lrsfn --batches 256 --work 4 --out out/lrsfn

All strategies see the same data in the same order and do the same work: a step of cross-fitting has twice
the products of a single one. Damping, and iterations or step length, are the best of a grid for each, judged on a
validation part of the training rows by the mean over other seeds; then every strategy runs from each seed. Means
with 95 % confidence intervals. Written to the folder of --out: strategies.json, strategies.png and strategies.svg.";

const BIAS_EXAMPLES: &str = "\
Examples:
  osculant analyze bias digits-mlp --batch 64 --out out/bias
  osculant analyze bias fashion-mlp --batch 256 --losses 1,0.5 --directions cg --out out/bias

Trains (SGD with its defaults, or --optimizer) to each of the losses. There, for directions made of a batch A
(top eigenvectors of the Gauss-Newton matrix plus 0.001, or those of conjugate gradients): slope and
curvature on A, on an independent batch B, and on all data. And the loss on all data along the iterates of
conjugate gradients on A, on A and B together, with directions of A and steps of B (decoupled), with both
exchanges averaged (cross-fit), and that shrunk by the noise of the slopes (shrinkage).

Written to the folder of --out: bias.json, bias-directions.csv, bias-path.csv, bias.png and bias.svg.";

const SADDLE_EXAMPLES: &str = "\
Examples:
  osculant analyze saddle --out out/saddle

From near the monkey saddle, and from near the zero of the network of digits-mlp, where all weight
gradients vanish: steps on the full data until the loss has come half of the way, medians over the seeds,
with the best options of a grid for each optimizer. Written to the folder of --out: saddle.json.";

const SPECTRUM_EXAMPLES: &str = "\
Examples:
  osculant analyze spectrum digits-mlp --out out/spectrum
  osculant analyze spectrum digits-mlp --train 5 --optimizer adam --out out/spectrum
  osculant analyze spectrum fashion-mlp --checkpoint adam.safetensors --batch all --out out/spectrum

Each probe is a run of Lanczos' method from a random vector with full re-orthogonalization. Eigenvalues are
the Ritz values of the first probe whose residual is below a thousandth of the largest; the density is the
mean of all probes' quadratures, smoothed.

Written to the folder of --out: spectrum.json, and the picture as spectrum.png and spectrum.svg.";

const MICHALEWICZ_EXAMPLES: &str = "\
Examples:
  osculant michalewicz --ranks 10,30,50 --modes paper,default --seeds 10 --out out/michalewicz

The function of Michalewicz in 100 dimensions, 100 steps from standard normal points: gradient descent,
Newton's method, exact saddle-free Newton, and the low-rank method by rank. Written to the folder of --out:
michalewicz.json.";

const SHOW_EXAMPLES: &str = "\
Examples:
  osculant show digits-mlp --phase hvp
  osculant show fashion-mlp --phase block --width 32 --time
  osculant show digits-mlp --checkpoint adam.safetensors --locate";

const BENCH_EXAMPLES: &str = "\
Examples:
  osculant bench --quick
  osculant bench --out out/bench
  osculant bench --problem digits-mlp --problem wide-mlp --tuning tuning.json

What is measured: the adapter's own limits (multiply-adds, copies), matrix products and vector
operations as fractions of them, and for each network a gradient, Hessian and Gauss-Newton products,
blocks of 32 products, and what conjugate gradients add to a product.

Times are the host's, from submission to the end of the wait, as medians; what is compared takes turns.
Short work is repeated within a submission, so that what a submission costs is a small part. Other work
on the machine shows in the spread (interquartile range over median): repeat where it is large.

Written to the folder of --out: bench.json, with all figures and their spreads.";

const TUNE_EXAMPLES: &str = "\
Examples:
  osculant tune --quick
  osculant tune --out tuning.json
  osculant train digits-mlp --optimizer newton-cg --tuning tuning.json

The file holds for this adapter, this driver and this version of osculant. With the same file a
program has the same bits every time; another file may round differently.";

const TRAIN_EXAMPLES: &str = "\
Examples:
  osculant train digits-mlp --optimizer adam --seed 1 --out out/adam
  osculant train digits-mlp --optimizer newton-cg --set batch=all --set max-iterations=30
  osculant train mnist-mlp --optimizer sgd --work 2 --checkpoint sgd.safetensors
  osculant train mnist-mlp --resume sgd.safetensors --work 4 --checkpoint sgd.safetensors";

const COMPARE_EXAMPLES: &str = "\
Examples:
  osculant compare digits-mlp --optimizers sgd,adam,newton-cg --seeds 3 --tune --out out/digits
  osculant compare fashion-mlp --optimizers adam,newton-cg --work 5 --out out/fashion \\
      --set adam.learning-rate=0.002 --set newton-cg.batch=2048

Written to the folder of --out: report.html, report.json, and the curves as loss-over-work.png,
loss-over-seconds.png and the same as .svg.";

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
#[allow(clippy::unwrap_used, clippy::panic)]
mod tests {
    use std::collections::BTreeSet;

    use clap::CommandFactory;

    use super::*;
    use crate::optimizers::Setup;

    /// What stands below the help of all commands, as it is written: a terminal folds it.
    fn examples(command: &clap::Command) -> Vec<String> {
        let own = command.get_after_help().map(ToString::to_string);
        let below = command.get_subcommands().flat_map(examples);
        own.into_iter().chain(below).collect()
    }

    #[test]
    fn every_example_of_the_help_is_understood() {
        let mut seen = 0;
        for help in examples(&Cli::command()) {
            // A terminal of a hundred columns folds nothing that is to be copied.
            let long = help
                .lines()
                .find(|line| line.starts_with("  osculant ") && line.len() > 100);
            assert_eq!(long, None);
            let help = help.replace("\\\n", " ");
            for line in help.lines().filter(|line| line.starts_with("  osculant ")) {
                let cli = Cli::try_parse_from(line.split_whitespace())
                    .unwrap_or_else(|error| panic!("{line}: {error}"));
                match cli.command {
                    Command::Train(Train {
                        optimizer: Some(method),
                        problem,
                        set,
                        ..
                    }) => {
                        let mut setup = Setup::new(method, problem);
                        setup.set_all(set.iter().map(String::as_str)).unwrap();
                        setup.build().unwrap();
                    }
                    Command::Compare(arguments) => {
                        crate::compare::check(&arguments).unwrap();
                    }
                    _ => {}
                }
                seen += 1;
            }
        }
        assert!(seen >= 30, "only {seen} examples were found");
    }

    /// Both ways: no option is missing from the list, and no name in it is none.
    #[test]
    fn the_list_of_options_is_that_of_the_optimizers() {
        let methods = Method::value_variants();
        let known: BTreeSet<&str> = methods
            .iter()
            .flat_map(|method| method.defaults(Problem::DigitsMlp))
            .map(|(key, _)| key)
            .collect();
        let words: BTreeSet<&str> = OPTIONS
            .split(|c: char| !(c.is_ascii_alphanumeric() || c == '-'))
            .collect();
        for key in &known {
            assert!(words.contains(key), "{key} is not listed");
        }
        let names: BTreeSet<&str> = methods.iter().map(|method| method.name()).collect();
        for line in OPTIONS.lines().skip(1) {
            let text = line.trim_start();
            // What is indented further explains the line before.
            if line.len() - text.len() > 20 {
                continue;
            }
            let first = text.split_whitespace().next().unwrap();
            let text = if line.starts_with("   ") || !(names.contains(first) || first == "all") {
                text
            } else {
                text[first.len()..].trim_start()
            };
            if text.starts_with("those of ") {
                continue;
            }
            for name in text.split("  ").next().unwrap().split(", ") {
                assert!(known.contains(name), "'{name}' is listed and unknown");
            }
        }
    }
}
