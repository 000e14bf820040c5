//! Running other programs, and the few folders that all commands share.

use std::ffi::OsStr;
use std::fs;
use std::io::ErrorKind;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

/// What a command returns: nothing, or the sentence that tells the user what to do.
pub(crate) type Outcome<T = ()> = Result<T, String>;

/// The repository's root.
pub(crate) fn root() -> PathBuf {
    // Cargo sets the variable at run time too, which stays right when the clone has been moved.
    let package = std::env::var_os("CARGO_MANIFEST_DIR")
        .map_or_else(|| PathBuf::from(env!("CARGO_MANIFEST_DIR")), PathBuf::from);
    package
        .parent()
        .map_or_else(|| PathBuf::from("."), Path::to_path_buf)
}

/// The cargo that runs us, working in the repository's root.
pub(crate) fn cargo() -> Command {
    let mut command = Command::new(std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into()));
    command.current_dir(root());
    command
}

/// Runs a command with its output shown as it comes.
pub(crate) fn stream(command: &mut Command) -> Outcome {
    println!("$ {}", line(command));
    match command.status() {
        Ok(status) if status.success() => Ok(()),
        Ok(status) => Err(format!("`{}` ended with {status}", line(command))),
        Err(error) => Err(start_failure(command, &error)),
    }
}

/// Runs a command quietly and returns what it wrote to standard output.
pub(crate) fn capture(command: &mut Command) -> Outcome<Vec<u8>> {
    match command.stdin(Stdio::null()).output() {
        Ok(output) if output.status.success() => Ok(output.stdout),
        Ok(output) => Err(format!(
            "`{}` ended with {}\n{}",
            line(command),
            output.status,
            String::from_utf8_lossy(&output.stderr).trim_end()
        )),
        Err(error) => Err(start_failure(command, &error)),
    }
}

/// Whether a program can be started at all.
pub(crate) fn exists(program: &str) -> bool {
    Command::new(program)
        .arg("--version")
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .status()
        .is_ok()
}

/// Whether this process may administer the machine without sudo.
pub(crate) fn is_root() -> bool {
    capture(Command::new("id").arg("-u")).is_ok_and(|id| id.trim_ascii() == b"0")
}

/// A new empty folder below `target`, so that nothing is left outside the repository.
pub(crate) fn scratch(name: &str) -> Outcome<PathBuf> {
    let folder = root().join("target").join("xtask").join(name);
    if folder.exists() {
        fs::remove_dir_all(&folder).map_err(|error| about(&folder, &error))?;
    }
    make_folder(&folder)?;
    Ok(folder)
}

/// Creates a folder and its parents.
pub(crate) fn make_folder(folder: &Path) -> Outcome {
    fs::create_dir_all(folder).map_err(|error| about(folder, &error))
}

/// Copies a file so that an interruption never leaves half of it under its final name.
pub(crate) fn copy(from: &Path, to: &Path) -> Outcome {
    let mut partial = to.as_os_str().to_owned();
    partial.push(".part");
    fs::copy(from, &partial).map_err(|error| about(from, &error))?;
    fs::rename(&partial, to).map_err(|error| about(to, &error))
}

/// An error of the file system together with the path it is about.
pub(crate) fn about(path: &Path, error: &std::io::Error) -> String {
    format!("{}: {error}", path.display())
}

/// Gives Vulkan drivers a runtime folder where the machine has none: Mesa complains on every start
/// without it.
pub(crate) fn with_runtime_folder(command: &mut Command) -> Outcome<&mut Command> {
    if std::env::var_os("XDG_RUNTIME_DIR").is_none() {
        let folder = root().join("target").join("xtask").join("runtime");
        make_folder(&folder)?;
        // The specification asks for a folder that only its owner can enter.
        #[cfg(unix)]
        {
            use std::os::unix::fs::PermissionsExt;
            fs::set_permissions(&folder, fs::Permissions::from_mode(0o700))
                .map_err(|error| about(&folder, &error))?;
        }
        command.env("XDG_RUNTIME_DIR", folder);
    }
    Ok(command)
}

fn line(command: &Command) -> String {
    // Cargo's full path says nothing to the reader.
    let program = Path::new(command.get_program());
    let name = program.file_name().unwrap_or(command.get_program());
    std::iter::once(name)
        .chain(command.get_args())
        .map(OsStr::to_string_lossy)
        .collect::<Vec<_>>()
        .join(" ")
}

fn start_failure(command: &Command, error: &std::io::Error) -> String {
    let program = command.get_program().to_string_lossy();
    match error.kind() {
        ErrorKind::NotFound => format!("the program `{program}` is not installed"),
        _ => format!("`{program}` could not be started: {error}"),
    }
}
