//! Downloads a Debian package and unpacks it, installing nothing.

use crate::shell::{self, Outcome};
use std::path::{Path, PathBuf};
use std::process::Command;

/// Downloads `package` into `folder` and returns the path of the `.deb`.
pub(crate) fn download(package: &str, folder: &Path) -> Outcome<PathBuf> {
    for program in ["apt-get", "dpkg-deb"] {
        if !shell::exists(program) {
            return Err(format!(
                "`{program}` is missing; it comes with Debian and Ubuntu"
            ));
        }
    }
    println!("Downloading the Debian package {package} ...");
    if shell::capture(
        apt_get(&[])?
            .current_dir(folder)
            .args(["download", package]),
    )
    .is_err()
    {
        // Package lists may be missing (a fresh container) or older than the archive.
        let lists = lists_of_our_own()?;
        shell::stream(apt_get(&lists)?.arg("update"))?;
        shell::capture(
            apt_get(&lists)?
                .current_dir(folder)
                .args(["download", package]),
        )?;
    }
    let is_archive = |path: &PathBuf| path.extension().is_some_and(|extension| extension == "deb");
    let archive = std::fs::read_dir(folder)
        .map_err(|error| shell::about(folder, &error))?
        .filter_map(|entry| entry.ok().map(|entry| entry.path()))
        .find(is_archive)
        .ok_or_else(|| format!("apt-get said nothing, but there is no {package}_*.deb"))?;
    if let Ok(sum) = shell::capture(Command::new("sha256sum").arg(&archive)) {
        let sum = String::from_utf8_lossy(&sum);
        let sum = sum.split_whitespace().next().unwrap_or_default();
        let name = archive.file_name().unwrap_or_default().to_string_lossy();
        println!("  {name}\n  sha256 {sum}");
    }
    Ok(archive)
}

/// Unpacks the whole archive below `folder`.
pub(crate) fn unpack(archive: &Path, folder: &Path) -> Outcome {
    shell::capture(Command::new("dpkg-deb").arg("-x").arg(archive).arg(folder)).map(drop)
}

fn apt_get(options: &[String]) -> Outcome<Command> {
    let mut command = Command::new("apt-get");
    command.arg("-q").args(options);
    if shell::is_root() {
        // The download folder belongs to root; apt's own user could not write there and would warn.
        command.args(["-o", "APT::Sandbox::User=root"]);
    }
    Ok(command)
}

/// Root updates the system's package lists; anyone else gets lists below `target`, without sudo.
fn lists_of_our_own() -> Outcome<Vec<String>> {
    if shell::is_root() {
        return Ok(Vec::new());
    }
    let base = shell::root().join("target").join("xtask").join("apt");
    let mut options = Vec::new();
    for (setting, name, partial) in [
        ("Dir::State::Lists", "lists", "lists/partial"),
        ("Dir::Cache", "cache", "cache/archives/partial"),
    ] {
        shell::make_folder(&base.join(partial))?;
        options.push("-o".into());
        options.push(format!("{setting}={}", base.join(name).display()));
    }
    Ok(options)
}
