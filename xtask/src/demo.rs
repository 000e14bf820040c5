//! `cargo xtask demo`: the crate's main job, from a clone to a report.

use crate::shell::{self, Outcome};
use crate::{adapter, example};
use std::process::Command;

/// How much work the comparison does.
#[derive(Clone, Copy)]
pub(crate) enum Length {
    /// Three seeds, 30 epochs of work for each optimizer.
    Full,
    /// One seed, 4 epochs: shows that everything runs.
    Quick,
}

const REPORT: &str = "out/demo";

pub(crate) fn run(length: Length) -> Outcome {
    adapter::ensure()?;
    let (seeds, work, binary) = match length {
        Length::Full => ("3", "30", example::binary()?),
        Length::Quick => ("1", "4", example::tested_binary()?),
    };
    let mut compare = Command::new(binary);
    compare
        .current_dir(shell::root())
        .args(["compare", "digits-mlp"]);
    compare.args(["--optimizers", "kfac,newton-cg,sgd,adam,muon", "--tune"]);
    compare.args(["--seeds", seeds, "--work", work, "--out", REPORT]);
    shell::stream(shell::with_runtime_folder(&mut compare)?)?;

    let report = shell::root().join(REPORT);
    println!("\nThe report: {}", report.join("report.html").display());
    println!("Its numbers: {}", report.join("report.json").display());
    Ok(())
}
