//! Building one of the crate's examples, or its binary, and finding where cargo has put it.

use crate::shell::{self, Outcome};
use std::path::PathBuf;
use std::process::Stdio;

/// Builds an example and returns the path of the program.
pub(crate) fn build(name: &str) -> Outcome<PathBuf> {
    program(name, &["--example", name])
}

/// Builds the crate's binary with optimizations and returns its path.
pub(crate) fn binary() -> Outcome<PathBuf> {
    program(
        "osculant",
        &["--release", "--features", "cli", "--bin", "osculant"],
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
        .args(["--package", "osculant"])
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
    messages
        .lines()
        .filter(|line| line.contains(&format!("\"name\":\"{name}\"")))
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
{"reason":"build-finished","success":true}"#;
        assert_eq!(
            executable(messages, "kernels"),
            Some(PathBuf::from("/a/target/debug/examples/kernels"))
        );
        assert_eq!(executable(messages, "osculant"), None);
    }
}
