//! `cargo xtask tint`: validates every kernel with Tint, the WGSL compiler of Chromium.
//!
//! naga, which wgpu uses, accepts texts that browsers refuse, for example barriers under a condition that is not uniform. The npm package
//! `webgpu` holds Dawn, whose null backend validates without a GPU.

use crate::example;
use crate::shell::{self, Outcome};
use std::process::Command;

const SCRIPT: &str = include_str!("tint.mjs");
const PACKAGE: &str = "webgpu@0.6.2";

pub(crate) fn run() -> Outcome {
    for program in ["node", "npm"] {
        if !shell::exists(program) {
            return Err(format!(
                "the program `{program}` is missing; it comes with Node.js"
            ));
        }
    }
    let folder = shell::root().join("target").join("tint");
    shell::make_folder(&folder)?;
    if !folder.join("node_modules/webgpu").is_dir() {
        println!(
            "Downloading the npm package {PACKAGE} into {}",
            folder.display()
        );
        let arguments = [
            "install",
            "--silent",
            "--no-save",
            "--ignore-scripts",
            PACKAGE,
        ];
        shell::stream(
            Command::new("npm")
                .arg("--prefix")
                .arg(&folder)
                .args(arguments),
        )?;
    }
    let script = folder.join("tint.mjs");
    std::fs::write(&script, SCRIPT).map_err(|error| shell::about(&script, &error))?;
    let kernels = folder.join("kernels");
    if kernels.is_dir() {
        std::fs::remove_dir_all(&kernels).map_err(|error| shell::about(&kernels, &error))?;
    }
    let program = example::build("kernels")?;
    shell::stream(Command::new(program).arg("--out").arg(&kernels))?;
    shell::stream(Command::new("node").arg(&script).arg(&kernels))
}
