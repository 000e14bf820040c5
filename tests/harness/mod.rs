//! One trial per test and adapter, named after both: `primitives::dot [vulkan llvmpipe (LLVM 15.0.6, 256 bits)]`.
//!
//! Chosen modules run twice more on synthetic small adapters: the first adapter that compiles quickly, asked for devices that grant little
//! ([`small`]). There vectors spread over two dimensions of workgroups, rows of a block over several bindings, and kernels are split that
//! would read too many buffers.
//!
//! * `OSCULANT_TEST_ADAPTER=part`: only adapters with this in `backend name`, in any case.
//! * `OSCULANT_TEST_LONG=1`: also, on software adapters, the trials that compile most for them; all trials with the products that users
//!   get, where modules that are about something else take those that are compiled soonest; and walks over all points of a step, where
//!   every few points are looked at.
//! * `OSCULANT_TEST_ALL_ADAPTERS=1`: also software adapters on GL, which are left out where there is one on Vulkan: the same
//!   rasterizer behind a slower interface.

#![allow(dead_code, reason = "not every test target uses everything")]

pub(crate) mod cases;
pub(crate) mod compare;
pub(crate) mod least_squares;
pub(crate) mod logistic;
pub(crate) mod random_graph;
pub(crate) mod rotated;
pub(crate) mod small;
pub(crate) mod wrapped;

use std::process::ExitCode;
use std::sync::{Arc, OnceLock};
use std::time::{Duration, Instant};

use libtest_mimic::{Arguments, Failed, Trial};
use osculant::gpu::{AdapterDescription, AdapterOptions, Gpu, adapters};
use osculant::kernels::tuning::{Family, Tuning};
use osculant::optim::{Recorded, Stateful, StepOutcome, StepReport};

/// What a test returns: nothing, or any error at all.
pub(crate) type Outcome = std::result::Result<(), Box<dyn std::error::Error>>;

/// A test that runs once on every adapter.
pub(crate) struct GpuTest {
    name: &'static str,
    run: Arc<dyn Fn(&Gpu) -> Outcome + Send + Sync>,
}

impl GpuTest {
    /// A test, named after the property that it tests.
    pub(crate) fn new(
        name: &'static str,
        run: impl Fn(&Gpu) -> Outcome + Send + Sync + 'static,
    ) -> Self {
        let run = Arc::new(run);
        Self { name, run }
    }
}

/// A failure that is known and not ours to repair. The trial passes while the test fails, and fails once it passes.
pub(crate) struct ExpectedFailure {
    /// Name of the test.
    pub(crate) test: &'static str,
    /// Part of the adapter's label.
    pub(crate) adapter: &'static str,
    /// Why it fails, with a reference.
    pub(crate) reason: &'static str,
}

/// The modules that also run on the small adapters, and the tests in them that need more than these grant.
pub(crate) struct OnSmallAdapters {
    /// Names of modules, and part of the adapter's label.
    pub(crate) modules: &'static [(&'static str, &'static str)],
    /// Test (or the beginning of its name), part of the adapter's label, and what it needs.
    pub(crate) needs_more: &'static [(&'static str, &'static str, &'static str)],
}

impl OnSmallAdapters {
    fn run(&self, module: &str, test: &str, label: &str) -> bool {
        let more = |&(name, adapter, _): &(&str, &str, &str)| {
            test.starts_with(name) && label.contains(adapter)
        };
        let runs = |&(name, adapter): &(&str, &str)| name == module && label.contains(adapter);
        self.modules.iter().any(runs) && !self.needs_more.iter().any(more)
    }
}

/// Makes a [`GpuTest`] of each function, named after it.
#[allow(unused_macros, reason = "the tests without a device have none")]
macro_rules! gpu_tests {
    ($($test:ident),* $(,)?) => {
        vec![$($crate::harness::GpuTest::new(stringify!($test), $test)),*]
    };
}

/// Runs every test on every adapter as the command line asks, like the standard test runner. With `OSCULANT_TEST_TIMES` in the environment
/// each says how long it took.
pub(crate) fn main(
    modules: Vec<(&str, Vec<GpuTest>)>,
    small: &OnSmallAdapters,
    compiles_most: &[(&str, &[&str])],
    above_products: &(&str, &[&str]),
    expected_failures: &'static [ExpectedFailure],
) -> ExitCode {
    let adapters = chosen_adapters();
    let times = std::env::var_os("OSCULANT_TEST_TIMES").is_some();
    let long = long();
    let mut trials = Vec::new();
    // Neighbouring trials on different adapters, so that they run side by side.
    let tests = modules
        .into_iter()
        .flat_map(|(module, tests)| tests.into_iter().map(move |test| (module, test)));
    for (module, test) in tests {
        for adapter in adapters.iter().filter(|adapter| {
            let most = |&(part, tests): &(&str, &[&str])| {
                let full = format!("{module}::{}", test.name);
                adapter.label.contains(part) && tests.iter().any(|name| full.ends_with(name))
            };
            let short = long || !compiles_most.iter().any(most);
            short && (adapter.grants.is_none() || small.run(module, test.name, &adapter.label))
        }) {
            let (run, adapter) = (Arc::clone(&test.run), Arc::clone(adapter));
            let expected = expected_failures
                .iter()
                .find(|e| e.test == test.name && adapter.label.contains(e.adapter));
            let name = format!("{module}::{} [{}]", test.name, adapter.label);
            let shown = name.clone();
            let (part, above) = above_products;
            let quick = !long && adapter.label.contains(part) && above.contains(&module);
            trials.push(Trial::test(name, move || {
                let start = Instant::now();
                let gpu = adapter.gpu().and_then(|gpu| tuned(gpu, quick));
                let outcome = judge(gpu.and_then(|gpu| run(&gpu)), expected);
                if times {
                    eprintln!("{:8.2} s {shown}", start.elapsed().as_secs_f64());
                }
                outcome
            }));
        }
    }
    if adapters.is_empty() {
        trials.push(Trial::test("an adapter is present", || {
            Err(Failed::from(no_adapter()))
        }));
    }
    libtest_mimic::run(&Arguments::from_args(), trials).exit_code()
}

/// Whether trials that take long were asked for.
pub(crate) fn long() -> bool {
    std::env::var("OSCULANT_TEST_LONG").is_ok_and(|value| value == "1")
}

/// The device as it is, or with the kernels for matrix products that are compiled soonest, unless the environment asks for others.
fn tuned(gpu: &Gpu, quick: bool) -> std::result::Result<Gpu, Box<dyn std::error::Error>> {
    if !quick || std::env::var_os("OSCULANT_TUNING").is_some() {
        return Ok(gpu.clone());
    }
    let soonest = Family::Registers {
        blocks: 1,
        wide: true,
    };
    Ok(gpu.with_tuning(Tuning::forced(soonest))?)
}

/// The same device, with counts, faults and kernels that no other trial shares.
pub(crate) fn of_its_own(gpu: &Gpu) -> osculant::Result<Gpu> {
    Gpu::from_wgpu(gpu.device().clone(), gpu.queue().clone())?
        .with_timeout(PATIENCE)?
        .with_tuning(gpu.tuning().clone())
}

fn judge(outcome: Outcome, expected: Option<&ExpectedFailure>) -> std::result::Result<(), Failed> {
    match (outcome, expected) {
        (Ok(()), None) => Ok(()),
        (Err(error), None) => Err(Failed::from(error.to_string())),
        (Err(_), Some(_)) => Ok(()),
        (Ok(()), Some(known)) => Err(Failed::from(format!(
            "passes, but is listed as an expected failure ({}); remove it from the list",
            known.reason
        ))),
    }
}

/// Part of the name of adapters that take ten times as long as others to compile a kernel.
const SLOW: &str = "SwiftShader";

/// How long a trial waits for its device: software adapters compile kernels when these run, some hundred in one submission, which on a slow
/// machine takes longer than a program should wait.
const PATIENCE: Duration = Duration::from_secs(600);

/// An adapter, and its device once a test has asked for it.
struct Adapter {
    index: usize,
    label: String,
    /// What a small adapter grants.
    grants: Option<&'static small::Grants>,
    gpu: OnceLock<std::result::Result<Gpu, String>>,
}

impl Adapter {
    /// The device, shared by all tests on this adapter, so that equal kernels are compiled once.
    fn gpu(&self) -> std::result::Result<&Gpu, Box<dyn std::error::Error>> {
        let open = || {
            let options = AdapterOptions::default()
                .with_index(self.index)
                .with_timeout(PATIENCE);
            let whole = Gpu::request(&options).map_err(|e| e.to_string())?;
            match self.grants {
                None => Ok(whole),
                Some(grants) => grants.device(&whole).map_err(|e| e.to_string()),
            }
        };
        self.gpu
            .get_or_init(open)
            .as_ref()
            .map_err(|message| message.clone().into())
    }
}

fn chosen_adapters() -> Vec<Arc<Adapter>> {
    let all = adapters();
    let everything = std::env::var("OSCULANT_TEST_ALL_ADAPTERS").is_ok_and(|value| value == "1");
    let wanted = std::env::var("OSCULANT_TEST_ADAPTER")
        .unwrap_or_default()
        .to_lowercase();
    let is_software =
        |a: &AdapterDescription, backend: &str| a.backend == backend && a.device_type == "cpu";
    let has_software_vulkan = all.iter().any(|a| is_software(a, "vulkan"));
    let mut chosen: Vec<Arc<Adapter>> = Vec::new();
    for (index, description) in all.iter().enumerate() {
        let mut label = format!("{} {}", description.backend, description.name);
        if has_software_vulkan && is_software(description, "gl") && !everything && wanted.is_empty()
            || !label.to_lowercase().contains(&wanted)
        {
            continue;
        }
        if chosen.iter().any(|other| other.label == label) {
            label += &format!(" #{index}");
        }
        chosen.push(Arc::new(Adapter {
            index,
            label,
            grants: None,
            gpu: OnceLock::new(),
        }));
    }
    let quick = chosen.iter().find(|adapter| !adapter.label.contains(SLOW));
    let host = quick.or(chosen.first()).cloned();
    for (adapter, grants) in host
        .iter()
        .flat_map(|adapter| small::ADAPTERS.iter().map(move |grants| (adapter, grants)))
    {
        chosen.push(Arc::new(Adapter {
            index: adapter.index,
            label: format!("{} {}", adapter.label, grants.label),
            grants: Some(grants),
            gpu: OnceLock::new(),
        }));
    }
    chosen
}

fn no_adapter() -> String {
    let present: Vec<String> = adapters().iter().map(ToString::to_string).collect();
    if present.is_empty() {
        // The error of a request says what to install on this system.
        return Gpu::request(&AdapterOptions::default())
            .map_or_else(|e| e.to_string(), |_| String::new());
    }
    format!("OSCULANT_TEST_ADAPTER fits none of: {}", present.join(", "))
}

/// So many reports of recorded steps that were submitted. Trials share devices, and another one that polls may have a report in its hands while
/// nothing is left to wait for.
pub(crate) fn arrived<M: Stateful>(
    gpu: &Gpu,
    method: &mut Recorded<M>,
    count: usize,
) -> osculant::Result<Vec<(u64, StepOutcome, StepReport)>> {
    let mut reports = Vec::new();
    for _ in 0..5000 {
        gpu.wait()?;
        reports.extend(method.reports()?);
        if reports.len() >= count {
            break;
        }
        std::thread::sleep(Duration::from_millis(1));
    }
    reports.sort_by_key(|report| report.0);
    Ok(reports)
}
