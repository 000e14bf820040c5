//! The Python environment of the PyTorch peer.

use crate::shell::{self, Outcome};
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

/// The program that runs in it.
pub(crate) const SCRIPT: &str = "benches/peers/peers.py";
const REQUIREMENTS: &str = "benches/peers/requirements.txt";
/// Copy of the requirements that an environment was completed with, inside it.
const COMPLETED: &str = "osculant-requirements.txt";

/// Returns the interpreter of an environment in `folder` that has the requirements; makes one if there is none.
pub(crate) fn environment(folder: &Path) -> Outcome<PathBuf> {
    let python = if cfg!(windows) {
        folder.join("Scripts").join("python.exe")
    } else {
        folder.join("bin").join("python")
    };
    let path = shell::root().join(REQUIREMENTS);
    let wanted = fs::read_to_string(&path).map_err(|error| shell::about(&path, &error))?;
    let completed = folder.join(COMPLETED);
    if python.exists() && fs::read_to_string(&completed).is_ok_and(|has| has == wanted) {
        println!("The Python environment is there: {}", folder.display());
        return Ok(python);
    }

    println!(
        "Making a Python environment with PyTorch, curvlinops and BackPACK in\n  {}\n\
         pip downloads the packages of {REQUIREMENTS}: about 2.8 GB, 4.6 GB on disk. On Linux\n\
         PyTorch's package asks for CUDA's libraries even where it runs on the CPU only.\n\
         Nothing outside that folder changes; remove it to undo.",
        folder.display()
    );
    if !python.exists() {
        let base = base_python()?;
        shell::stream(Command::new(base).args(["-m", "venv"]).arg(folder)).map_err(|reason| {
            format!("{reason}\nOn Debian and Ubuntu the module venv is the package python3-venv.")
        })?;
    }
    // Without dependencies, because the list is complete, and because curvlinops and BackPACK ask for more than they use here.
    let mut install = Command::new(&python);
    install.args(["-m", "pip", "install", "--no-deps", "--requirement"]);
    shell::stream(install.arg(&path)).map_err(|reason| advice(&reason))?;
    shell::copy(&path, &completed)?;
    Ok(python)
}

/// The interpreter to make the environment with.
fn base_python() -> Outcome<&'static str> {
    let report = "import sys; print(sys.version_info[0], sys.version_info[1])";
    for name in ["python3", "python"] {
        if let Ok(output) = shell::capture(Command::new(name).args(["-c", report])) {
            check_version(&String::from_utf8_lossy(&output))
                .map_err(|reason| format!("`{name}` {reason}"))?;
            return Ok(name);
        }
    }
    Err("`python3` is missing; install Python 3.11 or newer".into())
}

fn check_version(report: &str) -> Outcome {
    let mut numbers = report.split_whitespace().map(str::parse::<u32>);
    match (numbers.next(), numbers.next()) {
        (Some(Ok(major)), Some(Ok(minor))) if (major, minor) >= (3, 11) => Ok(()),
        (Some(Ok(major)), Some(Ok(minor))) => Err(format!(
            "is Python {major}.{minor}; the packages need 3.11 or newer"
        )),
        _ => Err("does not tell its version".into()),
    }
}

fn advice(reason: &str) -> String {
    format!(
        "{reason}\n\
         pip could not install {REQUIREMENTS}. If it says that it cannot reach its index: behind a proxy set\n\
         HTTPS_PROXY, with a mirror set PIP_INDEX_URL, without a network copy the wheels to a folder and set\n\
         PIP_NO_INDEX=1 PIP_FIND_LINKS=FOLDER. If a version is not found, there may be no wheel of it for\n\
         this Python or this system. The same command then goes on where it stopped."
    )
}

#[cfg(test)]
mod tests {
    use super::check_version;

    #[test]
    fn old_interpreters_are_refused() {
        assert_eq!(check_version("3 11\n"), Ok(()));
        assert_eq!(check_version("4 0"), Ok(()));
        for report in ["3 10", "2 7", "", "three"] {
            assert!(check_version(report).is_err(), "{report}");
        }
    }
}
