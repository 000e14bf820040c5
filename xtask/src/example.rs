//! Building one of the crate's examples, or its binary, and finding where cargo has put it.

use crate::shell::{self, Outcome};
use std::path::PathBuf;
use std::process::Stdio;

/// Builds an example and returns the path of the program.
pub(crate) fn build(name: &str) -> Outcome<PathBuf> {
    program(name, &["--package", "osculant", "--example", name])
}

/// Builds the crate's binary with optimizations and returns its path.
pub(crate) fn binary() -> Outcome<PathBuf> {
    program(
        "osculant",
        &[
            "--package",
            "osculant",
            "--release",
            "--features",
            "cli",
            "--bin",
            "osculant",
        ],
    )
}

/// The binary that tests run, built as they build it: after them there is nothing to compile.
pub(crate) fn tested_binary() -> Outcome<PathBuf> {
    program(
        "osculant",
        &["--workspace", "--all-features", "--tests", "--bins"],
    )
}

fn program(name: &str, arguments: &[&str]) -> Outcome<PathBuf> {
    println!("Building `{name}` ...");
    let output = shell::cargo()
        .args([
            "build",
            "--quiet",
            "--message-format=json-render-diagnostics",
        ])
        .args(arguments)
        .stderr(Stdio::inherit())
        .output()
        .map_err(|error| format!("cargo could not be started: {error}"))?;
    if !output.status.success() {
        return Err(format!("`{name}` does not build"));
    }
    executable(&String::from_utf8_lossy(&output.stdout), name)
        .ok_or_else(|| format!("cargo does not say where `{name}` is"))
}

/// The program's path, from cargo's messages: one JSON object a line.
fn executable(messages: &str, name: &str) -> Option<PathBuf> {
    const KEY: &str = "\"executable\":\"";
    // The end of the profile's description.
    const TEST: &str = "\"test\":true},\"features\"";
    messages
        .lines()
        .filter(|line| line.contains(&format!("\"name\":\"{name}\"")))
        .filter(|line| !line.contains(TEST))
        .find_map(|line| {
            let start = line.find(KEY)? + KEY.len();
            let end = start + line[start..].find('"')?;
            Some(line[start..end].into())
        })
}

#[cfg(test)]
mod tests {
    use super::executable;
    use std::path::PathBuf;

    #[test]
    fn the_path_is_read_from_cargos_messages() {
        let messages = r#"{"reason":"compiler-artifact","target":{"kind":["lib"],"name":"osculant"},"executable":null}
{"reason":"compiler-artifact","target":{"kind":["example"],"name":"kernels"},"filenames":[],"executable":"/a/target/debug/examples/kernels","fresh":true}
{"reason":"compiler-artifact","target":{"kind":["bin"],"name":"osculant"},"profile":{"opt_level":"1","test":true},"features":["cli"],"executable":"/a/deps/osculant-1"}
{"reason":"compiler-artifact","target":{"kind":["bin"],"name":"osculant"},"profile":{"opt_level":"1","test":false},"features":["cli"],"executable":"/a/osculant"}
{"reason":"build-finished","success":true}"#;
        assert_eq!(
            executable(messages, "kernels"),
            Some(PathBuf::from("/a/target/debug/examples/kernels"))
        );
        // The program, and not its tests.
        assert_eq!(
            executable(messages, "osculant"),
            Some(PathBuf::from("/a/osculant"))
        );
        assert_eq!(executable(messages, "another"), None);
    }
}
