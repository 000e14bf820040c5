//! Builds the page: the library as WebAssembly, the JavaScript beside it, and the files of `web/page`.

use crate::shell::{self, Outcome};
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

const TARGET: &str = "wasm32-unknown-unknown";
/// The module has the name of the crate.
const MODULE: &str = "osculant_web";

/// Where the page is built.
pub(super) fn folder() -> PathBuf {
    shell::root().join("target").join("web")
}

/// Builds everything, and returns the folder.
pub(super) fn build() -> Outcome<PathBuf> {
    ensure_target()?;
    let lock = read(&shell::root().join("Cargo.lock"))?;
    let manifest = read(&glue_manifest())?;
    agree(&lock, &manifest)?;

    let module = module()?;
    let glue = glue()?;
    let folder = folder();
    if folder.exists() {
        fs::remove_dir_all(&folder).map_err(|error| shell::about(&folder, &error))?;
    }
    shell::make_folder(&folder)?;
    let bindings = folder.join("bindings");
    shell::capture(Command::new(glue).arg(module).arg(&bindings))?;
    let page = shell::root().join("web").join("page");
    let entries = fs::read_dir(&page).map_err(|error| shell::about(&page, &error))?;
    for entry in entries.flatten() {
        shell::copy(&entry.path(), &folder.join(entry.file_name()))?;
    }
    Ok(folder)
}

/// Rust's library for browsers.
fn ensure_target() -> Outcome {
    let root = shell::capture(Command::new("rustc").args(["--print", "sysroot"]))?;
    let library = Path::new(String::from_utf8_lossy(&root).trim())
        .join("lib/rustlib")
        .join(TARGET);
    if library.is_dir() {
        return Ok(());
    }
    if !shell::exists("rustup") {
        return Err(format!(
            "this Rust cannot compile for browsers, and there is no rustup to add that with: install the standard library for {TARGET}"
        ));
    }
    shell::stream(Command::new("rustup").args(["target", "add", TARGET]))
}

/// Compiles the bindings, and returns the WebAssembly.
fn module() -> Outcome<PathBuf> {
    println!("Compiling the library for browsers ...");
    let mut command = shell::cargo();
    command.args(["rustc", "--package", "osculant-web", "--lib"]);
    command.args([
        "--crate-type",
        "cdylib",
        "--profile",
        "web",
        "--target",
        TARGET,
    ]);
    built(&mut command, &format!("{MODULE}.wasm"))
}

/// Compiles the program that writes the JavaScript, and returns it.
fn glue() -> Outcome<PathBuf> {
    println!("Compiling the program that writes the JavaScript beside it ...");
    let mut command = shell::cargo();
    command.args(["build", "--release", "--locked", "--manifest-path"]);
    command.arg(glue_manifest());
    // Beside the rest, and not in web/glue.
    if std::env::var_os("CARGO_TARGET_DIR").is_none() {
        command
            .arg("--target-dir")
            .arg(shell::root().join("target"));
    }
    built(
        &mut command,
        &format!("glue{}", std::env::consts::EXE_SUFFIX),
    )
}

fn glue_manifest() -> PathBuf {
    shell::root().join("web/glue/Cargo.toml")
}

/// Runs a build, and finds the file of this name among what cargo says it made.
fn built(command: &mut Command, name: &str) -> Outcome<PathBuf> {
    let output = command
        .args(["--quiet", "--message-format=json-render-diagnostics"])
        .stderr(Stdio::inherit())
        .output()
        .map_err(|error| format!("cargo could not be started: {error}"))?;
    if !output.status.success() {
        return Err(format!("{name} does not build"));
    }
    file_in(&String::from_utf8_lossy(&output.stdout), name)
        .ok_or_else(|| format!("cargo does not say where {name} is"))
}

/// The last path in cargo's messages that ends with this name.
fn file_in(messages: &str, name: &str) -> Option<PathBuf> {
    let is_file = |text: &&str| Path::new(text).file_name().is_some_and(|file| file == name);
    let mut paths = messages.lines().flat_map(|line| line.split('"'));
    paths.rfind(is_file).map(PathBuf::from)
}

/// Whether both sides of the bindings are of one version; each has a lock of its own.
fn agree(lock: &str, glue: &str) -> Outcome {
    let library = lock
        .split("[[package]]")
        .find(|package| package.contains("name = \"wasm-bindgen\"\n"))
        .and_then(|package| quoted_after(package, "version = \""));
    let ours = quoted_after(glue, "wasm-bindgen-cli-support = \"=");
    if library.is_some() && library == ours {
        return Ok(());
    }
    Err(format!(
        "the library has wasm-bindgen {}, and web/glue/Cargo.toml {}: write the first into the second, and run cargo update there",
        library.unwrap_or("of no version"),
        ours.unwrap_or("none"),
    ))
}

fn quoted_after<'t>(text: &'t str, beginning: &str) -> Option<&'t str> {
    let start = text.find(beginning)? + beginning.len();
    text[start..].split('"').next()
}

fn read(path: &Path) -> Outcome<String> {
    fs::read_to_string(path).map_err(|error| shell::about(path, &error))
}

#[cfg(test)]
mod tests {
    use super::{agree, file_in};
    use std::path::PathBuf;

    #[test]
    fn the_module_is_found_in_cargos_messages() {
        let messages = r#"{"target":{"name":"osculant"},"filenames":["/t/libosculant.rlib"]}
{"target":{"name":"osculant_web"},"filenames":["/t/web/osculant_web.wasm"],"executable":null}
{"reason":"build-finished","success":true}"#;
        let found = Some(PathBuf::from("/t/web/osculant_web.wasm"));
        assert_eq!(file_in(messages, "osculant_web.wasm"), found);
        assert_eq!(file_in(messages, "glue"), None);
    }

    #[test]
    fn versions_of_both_sides_must_be_equal() {
        let lock = "[[package]]\nname = \"wasm-bindgen\"\nversion = \"0.2.1\"\n\n[[package]]\nname = \"x\"\nversion = \"3\"\n";
        assert_eq!(
            agree(lock, "wasm-bindgen-cli-support = \"=0.2.1\"\n"),
            Ok(())
        );
        let refused = agree(lock, "wasm-bindgen-cli-support = \"=0.2.2\"\n");
        assert!(
            refused.is_err_and(|reason| reason.contains("0.2.1, and web/glue/Cargo.toml 0.2.2"))
        );
    }
}
