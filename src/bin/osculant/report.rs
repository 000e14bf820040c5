//! What a command found out.

use serde::Serialize;
use serde_json::{Map, Value};

use crate::failure::{Failure, Outcome};
use crate::optimizers::Setup;
use crate::problems::Problem;
use crate::training::{End, Point, Task};
use crate::tune::Trial;

/// `report.json`.
#[derive(Debug, Serialize)]
pub(crate) struct Report {
    /// Name of the problem.
    pub(crate) problem: String,
    /// Of a differential equation: the names of its terms, in the order of their losses.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub(crate) terms: Vec<String>,
    /// Where it ran.
    pub(crate) adapter: Adapter,
    /// All runs, seed after seed for each optimizer.
    pub(crate) runs: Vec<Run>,
    /// Work budget of each run, in epochs.
    pub(crate) work: f64,
    /// Work of each trial of the tuning, in epochs; none without tuning.
    pub(crate) tuning_work: Option<f64>,
    /// The trials of the tuning.
    pub(crate) tuning: Vec<Trial>,
    /// More about the machine.
    pub(crate) environment: Environment,
    /// The command line.
    pub(crate) command: String,
    /// The problem itself, for the texts.
    #[serde(skip)]
    pub(crate) kind: Problem,
    /// Training losses whose price in work and seconds is reported.
    #[serde(skip)]
    pub(crate) levels: [f64; 2],
    /// Data and network in a sentence.
    #[serde(skip)]
    pub(crate) description: String,
    /// The rows that the training loss is of, in words.
    #[serde(skip)]
    pub(crate) monitored: String,
}

/// The adapter.
#[derive(Debug, Serialize)]
pub(crate) struct Adapter {
    /// Its name.
    pub(crate) name: String,
    /// The backend of wgpu.
    pub(crate) backend: String,
    /// The driver with its version.
    pub(crate) driver: String,
}

/// The machine.
#[derive(Debug, Serialize)]
pub(crate) struct Environment {
    /// Version of this program.
    pub(crate) osculant: &'static str,
    /// Operating system.
    pub(crate) system: &'static str,
    /// Processor architecture.
    pub(crate) architecture: &'static str,
    /// Threads that the machine runs at once.
    pub(crate) threads: usize,
    /// Kind of adapter: `discrete`, `integrated`, `virtual`, `other` or `cpu`.
    pub(crate) adapter_type: String,
}

/// One run.
#[derive(Debug, Serialize)]
pub(crate) struct Run {
    /// Name of the optimizer.
    pub(crate) optimizer: &'static str,
    /// All its options.
    pub(crate) options: Map<String, Value>,
    /// Seed of the run.
    pub(crate) seed: u64,
    /// The evaluations, the one before the first step included.
    pub(crate) history: Vec<Point>,
    /// The last of them.
    #[serde(rename = "final")]
    pub(crate) last: Point,
    /// `finished`, or `diverged: why`.
    pub(crate) status: String,
    /// The optimizer with its options, for the texts.
    #[serde(skip)]
    pub(crate) setup: Setup,
}

impl Run {
    /// A run that has ended. `history` has at least the evaluation before the first step.
    pub(crate) fn new(setup: &Setup, seed: u64, history: Vec<Point>, end: &End) -> Outcome<Self> {
        let last = history
            .last()
            .cloned()
            .ok_or_else(|| Failure::new("a run without any evaluation"))?;
        Ok(Self {
            optimizer: setup.method.name(),
            options: setup.json(),
            seed,
            history,
            last,
            status: end.text(),
            setup: setup.clone(),
        })
    }

    /// Whether it diverged.
    pub(crate) fn diverged(&self) -> bool {
        self.status != End::Finished.text()
    }
}

impl Report {
    /// A report of runs, without tuning.
    pub(crate) fn new(task: Task<'_>, work: f64, runs: Vec<Run>) -> Self {
        let (info, problem) = (task.gpu.info(), task.problem);
        let driver = format!("{} {}", info.driver, info.driver_info);
        Self {
            problem: problem.name().to_owned(),
            terms: (task.data.terms.iter())
                .map(|term| term.name.clone())
                .collect(),
            adapter: Adapter {
                name: info.name.clone(),
                backend: info.backend.clone(),
                driver: driver.trim().to_owned(),
            },
            runs,
            work,
            tuning_work: None,
            tuning: Vec::new(),
            environment: Environment {
                osculant: env!("CARGO_PKG_VERSION"),
                system: std::env::consts::OS,
                architecture: std::env::consts::ARCH,
                threads: std::thread::available_parallelism().map_or(1, usize::from),
                adapter_type: info.device_type.clone(),
            },
            command: command_line(),
            kind: problem.clone(),
            levels: problem.levels(task.data),
            description: task.data.description(problem),
            monitored: task.data.monitored_rows(),
        }
    }

    /// The runs by optimizer, in the order of their first.
    pub(crate) fn by_optimizer(&self) -> Vec<Vec<&Run>> {
        let mut groups: Vec<Vec<&Run>> = Vec::new();
        for run in &self.runs {
            match groups
                .iter_mut()
                .find(|group| group[0].optimizer == run.optimizer)
            {
                Some(group) => group.push(run),
                None => groups.push(vec![run]),
            }
        }
        groups
    }
}

/// The command as the user gave it, without the path of the program.
fn command_line() -> String {
    let quoted = std::env::args().skip(1).map(|argument| {
        if argument.contains([' ', '"', '\'']) {
            format!("{argument:?}")
        } else {
            argument
        }
    });
    std::iter::once("osculant".to_owned())
        .chain(quoted)
        .collect::<Vec<_>>()
        .join(" ")
}
