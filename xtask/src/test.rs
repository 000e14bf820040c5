//! `cargo xtask test`: every test, on every adapter that the machine has or can get.

use crate::shell::{self, Outcome};
use crate::{adapter, swiftshader};
use std::ffi::OsString;
use std::path::Path;
use std::process::Command;

pub(crate) fn run(arguments: &[String]) -> Outcome {
    let (with_swiftshader, arguments) = take_option(arguments, "--swiftshader");
    let (families, arguments) = take_option(&arguments, "--families");
    adapter::ensure()?;

    let manifest = if with_swiftshader {
        Some(swiftshader::fetch()?)
    } else if adapter::chosen_drivers().is_none() {
        swiftshader::manifest()
    } else {
        // The user has named the drivers to test on.
        None
    };
    if let Some(manifest) = &manifest {
        println!(
            "SwiftShader is among the Vulkan drivers: {}",
            manifest.display()
        );
    }
    let drivers = manifest
        .map(|manifest| drivers_with(&manifest))
        .transpose()?;
    let command = |arguments: &[&str]| -> Outcome<Command> {
        let mut tests = shell::cargo();
        tests
            .args(["test", "--all-features", "--no-fail-fast"])
            .args(arguments);
        shell::with_runtime_folder(&mut tests)?;
        if let Some(drivers) = &drivers {
            // The first name is the present one, the second is read by loaders before 1.3.207.
            tests
                .env("VK_DRIVER_FILES", drivers)
                .env("VK_ICD_FILENAMES", drivers);
        }
        Ok(tests)
    };
    if !families {
        return shell::stream(command(&["--workspace"])?.args(&arguments));
    }
    if !arguments.is_empty() {
        return Err("--families names its own tests; leave out what follows it".into());
    }
    // What is computed may not depend on which kernel multiplies matrices. A device that lacks one repeats its usual run.
    for family in FAMILIES {
        println!("\nWith '{family}' as the kernel of every matrix product:");
        for suite in SUITES {
            let mut tests = command(&["--test", "gpu", "--", suite])?;
            shell::stream(tests.env("OSCULANT_TUNING", format!("forced:{family}")))?;
        }
    }
    Ok(())
}

/// Beginnings of the names of kernels for matrix products, one for each family.
const FAMILIES: [&str; 3] = ["registers", "subgroup 16", "shared"];
/// The tests of products and of whole programs against PyTorch: what a family can change. On software adapters the kernels made for GPUs
/// are slow.
const SUITES: [&str; 2] = ["primitives::dot", "fixtures::"];

/// Every driver that the loader would use, and one more.
fn drivers_with(manifest: &Path) -> Outcome<OsString> {
    let mut drivers = adapter::driver_manifests();
    if !drivers.iter().any(|driver| driver == manifest) {
        drivers.push(manifest.to_path_buf());
    }
    std::env::join_paths(drivers).map_err(|error| format!("list of Vulkan drivers: {error}"))
}

/// Takes our own option out of the arguments for cargo; what follows `--` belongs to the tests.
fn take_option(arguments: &[String], option: &str) -> (bool, Vec<String>) {
    let end = arguments
        .iter()
        .position(|argument| argument == "--")
        .unwrap_or(arguments.len());
    let (ours, theirs) = arguments.split_at(end);
    let kept: Vec<String> = ours
        .iter()
        .filter(|argument| *argument != option)
        .cloned()
        .collect();
    let found = kept.len() < ours.len();
    (
        found,
        kept.into_iter().chain(theirs.iter().cloned()).collect(),
    )
}

#[cfg(test)]
mod tests {
    use super::take_option;

    #[test]
    fn only_our_option_before_the_separator_is_taken() {
        let given = ["--swiftshader", "--lib", "--", "--swiftshader"].map(String::from);
        let (found, rest) = take_option(&given, "--swiftshader");
        assert!(found);
        assert_eq!(rest, ["--lib", "--", "--swiftshader"]);
        let (found, rest) = take_option(&rest, "--swiftshader");
        assert!(!found);
        assert_eq!(rest.len(), 3);
    }
}
