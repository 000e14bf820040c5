//! Checks every shader at build time, so that a broken one fails the build and not a user's run.

use std::path::{Path, PathBuf};
use std::{fs, io, process};

use naga::valid::{Capabilities, ValidationFlags, Validator};

fn main() {
    // Cargo watches a folder with everything in it.
    println!("cargo::rerun-if-changed=build.rs");
    println!("cargo::rerun-if-changed=shaders");
    let failures = match check_all(Path::new("shaders")) {
        Ok(failures) => failures,
        Err(error) => vec![format!("cannot read the folder shaders: {error}")],
    };
    for failure in &failures {
        for line in failure.lines() {
            println!("cargo::error={line}");
        }
    }
    if !failures.is_empty() {
        process::exit(1);
    }
}

/// The messages of all shaders that are wrong.
fn check_all(folder: &Path) -> io::Result<Vec<String>> {
    let mut failures = Vec::new();
    for path in wgsl_files(folder)? {
        let name = path.display().to_string();
        let source = with_includes(folder, &fs::read_to_string(&path)?)?;
        if let Err(message) = check(&name, &source) {
            failures.push(format!("shader {name} is wrong:\n{message}"));
        }
    }
    Ok(failures)
}

/// The text with the files named by its lines `//#include NAME` in front, as the crate puts them together at run time.
fn with_includes(folder: &Path, source: &str) -> io::Result<String> {
    let mut text = String::new();
    for name in source
        .lines()
        .filter_map(|line| line.strip_prefix("//#include "))
    {
        text += &fs::read_to_string(folder.join(name.trim()))?;
    }
    Ok(text + source)
}

/// All `*.wgsl` below `folder`, in order of their names; none if the folder does not exist.
fn wgsl_files(folder: &Path) -> io::Result<Vec<PathBuf>> {
    let mut files = Vec::new();
    if !folder.is_dir() {
        return Ok(files);
    }
    for entry in fs::read_dir(folder)? {
        let path = entry?.path();
        if path.is_dir() {
            files.extend(wgsl_files(&path)?);
        } else if path
            .extension()
            .is_some_and(|extension| extension == "wgsl")
        {
            files.push(path);
        }
    }
    files.sort();
    Ok(files)
}

/// Parses and validates one shader. All capabilities are allowed: which of them a device has is known only at run time.
fn check(name: &str, source: &str) -> Result<(), String> {
    let module = naga::front::wgsl::parse_str(source)
        .map_err(|error| error.emit_to_string_with_path(source, name))?;
    Validator::new(ValidationFlags::all(), Capabilities::all())
        .validate(&module)
        .map(|_| ())
        .map_err(|error| error.emit_to_string_with_path(source, name))
}
