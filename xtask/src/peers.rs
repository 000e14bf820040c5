//! `cargo xtask peers`: osculant beside PyTorch and burn on the same networks, data and machine.
//!
//! All three programs run in turn, several rounds of it, so that a machine that slows down slows all of them. Each writes JSON with the
//! keys of `bench.json`; `table.rs` makes ratios and Markdown of them.

mod python;
mod table;

use crate::adapter;
use crate::json::Json;
use crate::shell::{self, Outcome};
use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::process::Command;
use table::Round;

const BURN_MANIFEST: &str = "benches/peers/burn/Cargo.toml";
const PAGE: &str = "docs/benchmarks.md";
const OUT: &str = "out/peers";

/// What the user asked for.
#[derive(Debug, PartialEq)]
struct Options {
    rounds: usize,
    quick: bool,
    burn_features: String,
    burn_device: String,
}

pub(crate) fn run(arguments: &[String]) -> Outcome {
    let options = parse(arguments)?;
    adapter::ensure()?;
    let target = target_folder()?;
    let python = python::environment(&target.join("peers-venv"))?;
    build_burn(&options, &target)?;
    shell::stream(shell::cargo().arg("build").args(OURS))?;

    let out = shell::root().join(OUT);
    if out.exists() {
        fs::remove_dir_all(&out).map_err(|error| shell::about(&out, &error))?;
    }
    let mut rounds = Vec::new();
    for round in 1..=options.rounds {
        println!("\nRound {round} of {}", options.rounds);
        let folder = out.join(format!("round-{round}"));
        shell::make_folder(&folder)?;
        rounds.push(Round {
            ours: run_ours(&options, &folder)?,
            torch: run_torch(&options, &python, &folder)?,
            burn: run_burn(&options, &target, &folder)?,
        });
    }

    let section = table::section(&command_line(arguments), &rounds)?;
    println!("\n{section}");
    let copy = out.join("section.md");
    fs::write(&copy, &section).map_err(|error| shell::about(&copy, &error))?;
    println!("The JSON of every round is in {}.", out.display());
    if options.quick {
        println!("A quick run is too short for {PAGE}, which stays as it is.");
        return Ok(());
    }
    let page = shell::root().join(PAGE);
    let text = fs::read_to_string(&page).map_err(|error| shell::about(&page, &error))?;
    let text = table::replace(&text, &section).map_err(|reason| format!("{PAGE}: {reason}"))?;
    fs::write(&page, text).map_err(|error| shell::about(&page, &error))?;
    println!("Its section is in {PAGE}.");
    Ok(())
}

fn parse(arguments: &[String]) -> Outcome<Options> {
    let mut options = Options {
        rounds: 3,
        quick: false,
        burn_features: String::new(),
        burn_device: "cpu".into(),
    };
    let mut rest = arguments.iter();
    while let Some(argument) = rest.next() {
        let mut value = |what: &str| {
            let value = rest.next().cloned();
            value.ok_or_else(|| format!("`{argument}` needs {what}"))
        };
        match argument.as_str() {
            "--quick" => options.quick = true,
            "--rounds" => {
                options.rounds = value("a number of rounds")?
                    .parse()
                    .ok()
                    .filter(|&rounds| rounds > 0)
                    .ok_or("`--rounds` needs a number of at least 1")?;
            }
            "--burn-features" => options.burn_features = value("`fusion`, `autotune` or both")?,
            "--burn-device" => options.burn_device = value("a kind of device, such as `cpu`")?,
            unknown => {
                return Err(format!(
                    "`cargo xtask peers` does not know `{unknown}`; see `cargo xtask help`"
                ));
            }
        }
    }
    Ok(options)
}

fn command_line(arguments: &[String]) -> String {
    let words = ["cargo", "xtask", "peers"].into_iter();
    words
        .chain(arguments.iter().map(String::as_str))
        .collect::<Vec<_>>()
        .join(" ")
}

/// Where cargo puts what it builds; only cargo knows for sure.
fn target_folder() -> Outcome<PathBuf> {
    let arguments = ["metadata", "--no-deps", "--format-version", "1"];
    let output = shell::capture(shell::cargo().args(arguments))?;
    Json::parse(&String::from_utf8_lossy(&output))?
        .text(&["target_directory"])
        .map(PathBuf::from)
        .ok_or_else(|| "`cargo metadata` names no target folder".into())
}

const OURS: [&str; 5] = ["--release", "--features", "cli", "--bin", "osculant"];

fn run_ours(options: &Options, folder: &Path) -> Outcome<Json> {
    let mut bench = shell::cargo();
    bench.args(["run", "--quiet"]).args(OURS);
    bench
        .args(["--", "bench", "--out"])
        .arg(folder.join("ours"));
    if options.quick {
        bench.arg("--quick");
    }
    shell::stream(shell::with_runtime_folder(&mut bench)?)?;
    read(&folder.join("ours").join("bench.json"))
}

fn run_torch(options: &Options, python: &Path, folder: &Path) -> Outcome<Json> {
    let mut peers = Command::new(python);
    peers.current_dir(shell::root()).arg(python::SCRIPT);
    if options.quick {
        peers.arg("--quick");
    }
    record(&mut peers, &folder.join("torch.json"))
}

/// Cargo on burn's program, whose build is kept apart from ours.
fn burn_cargo(options: &Options, target: &Path, verb: &str) -> Command {
    let mut cargo = shell::cargo();
    cargo.env("CARGO_TARGET_DIR", target.join("peers-burn"));
    cargo.args([
        verb,
        "--release",
        "--locked",
        "--manifest-path",
        BURN_MANIFEST,
    ]);
    if !options.burn_features.is_empty() {
        cargo.args(["--features", &options.burn_features]);
    }
    cargo
}

fn build_burn(options: &Options, target: &Path) -> Outcome {
    println!(
        "Building burn's program in {}: about 240 crates and a quarter of an hour on two cores the\n\
         first time, after that seconds. Its sources (about 680 packages) come from cargo's registry.",
        target.join("peers-burn").display()
    );
    shell::stream(&mut burn_cargo(options, target, "build")).map_err(|reason| {
        format!(
            "{reason}\n\
             burn's program could not be built. If cargo says that it cannot reach its registry, run once\n\
             `cargo fetch --locked --manifest-path {BURN_MANIFEST}` where it can (behind a proxy: set\n\
             HTTPS_PROXY; with a mirror: `source.crates-io.replace-with` in cargo's configuration)."
        )
    })
}

fn run_burn(options: &Options, target: &Path, folder: &Path) -> Outcome<Json> {
    let mut burn = burn_cargo(options, target, "run");
    burn.args(["--quiet", "--", "--device", &options.burn_device]);
    if options.quick {
        burn.arg("--quick");
    }
    record(
        shell::with_runtime_folder(&mut burn)?,
        &folder.join("burn.json"),
    )
}

/// Runs a program that prints JSON, keeps that in a file and reads it.
fn record(command: &mut Command, path: &Path) -> Outcome<Json> {
    let file = File::create(path).map_err(|error| shell::about(path, &error))?;
    shell::stream(command.stdout(file))?;
    read(path)
}

fn read(path: &Path) -> Outcome<Json> {
    let text = fs::read_to_string(path).map_err(|error| shell::about(path, &error))?;
    Json::parse(&text).map_err(|reason| format!("{}: {reason}", path.display()))
}

#[cfg(test)]
mod tests {
    use super::{Options, command_line, parse};

    fn words(line: &str) -> Vec<String> {
        line.split_whitespace().map(String::from).collect()
    }

    #[test]
    fn options_are_read() {
        let options = parse(&words("--rounds 5 --quick --burn-features fusion,autotune"));
        let expected = Options {
            rounds: 5,
            quick: true,
            burn_features: "fusion,autotune".into(),
            burn_device: "cpu".into(),
        };
        assert_eq!(options, Ok(expected));
        assert_eq!(
            command_line(&words("--rounds 5")),
            "cargo xtask peers --rounds 5"
        );
    }

    #[test]
    fn wrong_options_are_refused() {
        for (line, word) in [
            ("--rounds", "needs a number"),
            ("--rounds 0", "at least 1"),
            ("--rounds many", "at least 1"),
            ("--burn-device", "kind of device"),
            ("--slow", "does not know `--slow`"),
        ] {
            let reason = parse(&words(line)).err().unwrap_or_default();
            assert!(reason.contains(word), "{line}: {reason}");
        }
    }
}
