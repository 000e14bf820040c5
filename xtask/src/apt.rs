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

/// Package lists of our own that include the backports of a release, whatever the system's lists say.
pub(crate) struct Backports {
    options: Vec<String>,
}

impl Backports {
    /// The backports of the release with this code name, which must be the system's; lists are kept in `folder`.
    pub(crate) fn of(release: &str, folder: &Path) -> Outcome<Self> {
        let system = std::fs::read_to_string("/etc/os-release").unwrap_or_default();
        if !system
            .lines()
            .any(|line| line == format!("VERSION_CODENAME={release}"))
        {
            return Err(format!(
                "this takes packages from the backports of Debian {release}; run it there, for example in a container"
            ));
        }
        // The system's own choice of mirror, which the backports share.
        let mirrors = shell::capture(Command::new("apt-get").args([
            "indextargets",
            "--format",
            "$(REPO_URI)",
            "Created-By: Packages",
            &format!("Codename: {release}"),
        ]))?;
        let mirror = String::from_utf8_lossy(&mirrors)
            .lines()
            .next()
            .map(str::to_owned)
            .ok_or_else(|| {
                format!("apt knows no source of Debian {release}; run apt-get update")
            })?;
        let lists = folder.join("sources.list");
        let entries: String = [("deb", ""), ("deb", "-backports"), ("deb-src", "-backports")]
            .map(|(kind, suite)| {
                format!(
                    "{kind} [signed-by=/usr/share/keyrings/debian-archive-keyring.gpg] {mirror} {release}{suite} main\n"
                )
            })
            .concat();
        shell::make_folder(&folder.join("none"))?;
        std::fs::write(&lists, entries).map_err(|error| shell::about(&lists, &error))?;
        let mut options = private_state(folder)?;
        for (setting, path) in [
            ("Dir::Etc::SourceList", lists),
            ("Dir::Etc::SourceParts", folder.join("none")),
        ] {
            options.push("-o".into());
            options.push(format!("{setting}={}", path.display()));
        }
        let backports = Self { options };
        shell::capture(backports.apt_get()?.arg("update"))?;
        Ok(backports)
    }

    /// Downloads packages, each `NAME` or `NAME/SUITE`, into `folder`.
    pub(crate) fn download(&self, packages: &[String], folder: &Path) -> Outcome {
        shell::capture(
            self.apt_get()?
                .current_dir(folder)
                .arg("download")
                .args(packages),
        )
        .map(drop)
    }

    /// Downloads the original source archive of a package into `folder`.
    pub(crate) fn download_source(&self, package: &str, folder: &Path) -> Outcome {
        shell::capture(self.apt_get()?.current_dir(folder).args([
            "source",
            "--download-only",
            "--tar-only",
            package,
        ]))
        .map(drop)
    }

    fn apt_get(&self) -> Outcome<Command> {
        apt_get(&self.options)
    }
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
    private_state(&shell::root().join("target").join("xtask").join("apt"))
}

/// Options that make apt keep its lists and downloads in `folder`.
fn private_state(folder: &Path) -> Outcome<Vec<String>> {
    let mut options = Vec::new();
    for (setting, name, partial) in [
        ("Dir::State::Lists", "lists", "lists/partial"),
        ("Dir::Cache", "cache", "cache/archives/partial"),
    ] {
        shell::make_folder(&folder.join(partial))?;
        options.push("-o".into());
        options.push(format!("{setting}={}", folder.join(name).display()));
    }
    Ok(options)
}
