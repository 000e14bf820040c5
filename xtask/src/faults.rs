//! `cargo xtask faults`: plants each fault of `tests/faults/` into a copy of the repository, and demands that its test fails.
//!
//! A fault is a patch whose head says in two lines what it breaks and which test must notice, as arguments for `cargo test`:
//!
//! ```text
//! Fault: Armijo's condition asks for half of what it should
//! Test: --test gpu -- optimizers::constants
//! ```

use crate::adapter;
use crate::shell::{self, Outcome};
use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::Instant;

/// A planted fault.
struct Fault {
    name: String,
    patch: PathBuf,
    /// What it breaks.
    breaks: String,
    /// Arguments for `cargo test`.
    test: Vec<String>,
}

/// A copy of the repository's files, with a build folder of its own.
struct Copy {
    tree: PathBuf,
    builds: PathBuf,
}

/// How a run of a test ended.
#[derive(PartialEq)]
enum Run {
    Passed,
    Failed,
    DoesNotBuild,
}

pub(crate) fn run(names: &[String]) -> Outcome {
    adapter::ensure()?;
    let all = all()?;
    if let Some(unknown) = names.iter().find(|n| all.iter().all(|f| f.name != **n)) {
        let known: Vec<&str> = all.iter().map(|fault| fault.name.as_str()).collect();
        return Err(format!(
            "no fault `{unknown}`; there are: {}",
            known.join(", ")
        ));
    }
    let faults: Vec<Fault> = all
        .into_iter()
        .filter(|fault| names.is_empty() || names.contains(&fault.name))
        .collect();
    let copy = Copy::make()?;
    // A test that fails anyway notices nothing.
    for test in faults
        .iter()
        .map(|fault| &fault.test)
        .collect::<BTreeSet<_>>()
    {
        let how = match copy.test(test)? {
            Run::Passed => continue,
            Run::Failed => "pass",
            Run::DoesNotBuild => "build",
        };
        return Err(format!(
            "`cargo test {}` does not {how} without any fault",
            test.join(" ")
        ));
    }
    let mut missed = Vec::new();
    for fault in &faults {
        let began = Instant::now();
        copy.plant(fault)?;
        let run = copy.test(&fault.test)?;
        copy.refresh()?;
        let verdict = match run {
            Run::Failed => "caught",
            Run::Passed => "NOT CAUGHT",
            Run::DoesNotBuild => "DOES NOT BUILD",
        };
        println!(
            "{verdict:14} {} ({}; {}; {} s)",
            fault.name,
            fault.breaks,
            fault.test.join(" "),
            began.elapsed().as_secs()
        );
        if run != Run::Failed {
            missed.push(fault.name.as_str());
        }
    }
    println!("{} of {} caught", faults.len() - missed.len(), faults.len());
    if missed.is_empty() {
        Ok(())
    } else {
        Err(format!("not caught: {}", missed.join(", ")))
    }
}

/// Removes the files below a folder that are not wanted.
fn remove_others(folder: &Path, wanted: &BTreeSet<PathBuf>) -> Outcome {
    let entries = fs::read_dir(folder).map_err(|error| shell::about(folder, &error))?;
    for entry in entries {
        let path = entry.map_err(|error| shell::about(folder, &error))?.path();
        if path.is_dir() {
            remove_others(&path, wanted)?;
        } else if !wanted.contains(&path) {
            fs::remove_file(&path).map_err(|error| shell::about(&path, &error))?;
        }
    }
    Ok(())
}

/// Every fault, by name.
fn all() -> Outcome<Vec<Fault>> {
    let folder = shell::root().join("tests").join("faults");
    let entries = fs::read_dir(&folder).map_err(|error| shell::about(&folder, &error))?;
    let mut faults = Vec::new();
    for entry in entries {
        let patch = entry.map_err(|error| shell::about(&folder, &error))?.path();
        if patch.extension().is_some_and(|ending| ending == "patch") {
            let text = fs::read_to_string(&patch).map_err(|error| shell::about(&patch, &error))?;
            faults.push(parse(patch, &text)?);
        }
    }
    faults.sort_by(|a, b| a.name.cmp(&b.name));
    Ok(faults)
}

fn parse(patch: PathBuf, text: &str) -> Outcome<Fault> {
    let field = |key: &str| {
        let found = text.lines().find_map(|line| line.strip_prefix(key));
        found
            .map(|value| value.trim().to_string())
            .ok_or_else(|| format!("{} has no line `{key} ..`", patch.display()))
    };
    let stem = patch.file_stem().unwrap_or_default();
    Ok(Fault {
        name: stem.to_string_lossy().into_owned(),
        breaks: field("Fault:")?,
        test: field("Test:")?
            .split_whitespace()
            .map(String::from)
            .collect(),
        patch,
    })
}

impl Copy {
    fn make() -> Outcome<Self> {
        let folder = shell::root().join("target").join("faults");
        let copy = Self {
            tree: folder.join("tree"),
            builds: folder.join("builds"),
        };
        shell::make_folder(&copy.tree)?;
        copy.refresh()?;
        Ok(copy)
    }

    /// Makes the copy equal to the working tree; files that are equal keep their times, so that little is built again, and what is no
    /// longer in the tree goes.
    fn refresh(&self) -> Outcome {
        let mut list = Command::new("git");
        list.current_dir(shell::root()).args([
            "ls-files",
            "-z",
            "--cached",
            "--others",
            "--exclude-standard",
        ]);
        let list = shell::capture(&mut list)?;
        let mut wanted = BTreeSet::new();
        for name in String::from_utf8_lossy(&list)
            .split('\0')
            .filter(|name| !name.is_empty())
        {
            let (from, to) = (shell::root().join(name), self.tree.join(name));
            // A file that was deleted and not yet committed.
            let Ok(content) = fs::read(&from) else {
                continue;
            };
            wanted.insert(to.clone());
            if fs::read(&to).is_ok_and(|present| present == content) {
                continue;
            }
            if let Some(parent) = to.parent() {
                shell::make_folder(parent)?;
            }
            fs::write(&to, content).map_err(|error| shell::about(&to, &error))?;
        }
        remove_others(&self.tree, &wanted)
    }

    fn plant(&self, fault: &Fault) -> Outcome {
        let mut apply = Command::new("git");
        // So that git takes the copy for a folder, not for a part of this repository.
        let ceiling = self.tree.parent().unwrap_or(Path::new("/"));
        apply
            .current_dir(&self.tree)
            .env("GIT_CEILING_DIRECTORIES", ceiling)
            .args(["apply", "-C1"])
            .arg(&fault.patch);
        shell::capture(&mut apply)
            .map(drop)
            .map_err(|error| format!("{} no longer fits: {error}", fault.patch.display()))
    }

    fn test(&self, arguments: &[String]) -> Outcome<Run> {
        let end = arguments
            .iter()
            .position(|argument| argument == "--")
            .unwrap_or(arguments.len());
        let build = |quiet: &mut Command| -> Outcome<bool> {
            quiet.stdin(Stdio::null()).stdout(Stdio::null());
            quiet
                .output()
                .map(|output| output.status.success())
                .map_err(|error| format!("cargo could not be started: {error}"))
        };
        if !build(self.cargo()?.args(&arguments[..end]).arg("--no-run"))? {
            return Ok(Run::DoesNotBuild);
        }
        let passed = build(self.cargo()?.args(arguments))?;
        Ok(if passed { Run::Passed } else { Run::Failed })
    }

    fn cargo(&self) -> Outcome<Command> {
        let mut tests = shell::cargo();
        tests
            .current_dir(&self.tree)
            .env("CARGO_TARGET_DIR", &self.builds)
            .args(["test", "--quiet", "--all-features"]);
        shell::with_runtime_folder(&mut tests)?;
        Ok(tests)
    }
}

#[cfg(test)]
mod tests {
    use super::{all, parse};

    #[test]
    fn the_head_of_a_patch_says_what_it_breaks_and_which_test_notices() {
        let text = "Fault: a b\nTest: --lib -- x::y\n---\ndiff --git a/f b/f\n";
        let fault = parse("some/07-name.patch".into(), text);
        assert!(fault.is_ok_and(|fault| {
            fault.name == "07-name"
                && fault.breaks == "a b"
                && fault.test == ["--lib", "--", "x::y"]
        }));
        assert!(parse("x.patch".into(), "Fault: a\n").is_err());
    }

    #[test]
    fn every_patch_in_the_repository_has_a_head() {
        assert!(all().is_ok_and(|faults| !faults.is_empty()));
    }
}
