//! `cargo xtask demo`: the crate's main job, from a clone to a report.

use crate::adapter;
use crate::shell::{self, Outcome};

/// How much work the comparison does.
#[derive(Clone, Copy)]
pub(crate) enum Length {
    /// Three seeds, 80 epochs of work for each optimizer.
    Full,
    /// One seed, 6 epochs: shows that everything runs.
    Quick,
}

const REPORT: &str = "out/demo";

pub(crate) fn run(length: Length) -> Outcome {
    adapter::ensure()?;
    let (seeds, work, profile) = match length {
        Length::Full => ("3", "80", "release"),
        // Tests have built what it needs in this profile.
        Length::Quick => ("1", "6", "dev"),
    };
    let binary = ["--profile", profile, "--all-features", "--bin", "osculant"];
    shell::stream(shell::cargo().arg("build").args(binary))?;

    // Through `cargo run`, because only cargo knows for sure where it has put the binary.
    let mut compare = shell::cargo();
    compare
        .args(["run", "--quiet"])
        .args(binary)
        .args(["--", "compare", "digits-mlp"]);
    compare.args(["--optimizers", "sgd,adam,newton-cg", "--tune"]);
    compare.args(["--seeds", seeds, "--work", work, "--out", REPORT]);
    shell::stream(shell::with_runtime_folder(&mut compare)?)?;

    let report = shell::root().join(REPORT);
    println!("\nThe report: {}", report.join("report.html").display());
    println!("Its numbers: {}", report.join("report.json").display());
    Ok(())
}
