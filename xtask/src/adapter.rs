//! Makes sure that wgpu will find an adapter, without building wgpu to ask it.
//!
//! On Linux an adapter means a Vulkan loader and the manifest of at least one driver. What to do
//! about their absence is decided by a pure function from facts about the machine, so that every
//! kind of machine can be tested on any machine.

use crate::shell::{self, Outcome};
use std::ffi::OsString;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

const PACKAGES: [&str; 2] = ["libvulkan1", "mesa-vulkan-drivers"];

/// Returns when there is something for wgpu to find; installs a software driver where it can.
pub(crate) fn ensure() -> Outcome {
    if std::env::var_os("OSCULANT_SKIP_ADAPTER_CHECK").is_some_and(|value| value == "1") {
        return Ok(());
    }
    match plan(&Machine::look()) {
        Plan::Ready => Ok(()),
        Plan::Tell(message) => Err(message),
        Plan::Install { sudo } => {
            install(sudo)?;
            let machine = Machine::look();
            if machine.has_vulkan() {
                println!("A Vulkan driver is installed.\n");
                return Ok(());
            }
            Err(format!(
                "{} are installed, but {}",
                PACKAGES.join(" and "),
                machine.lack()
            ))
        }
    }
}

/// The drivers named by the user's environment, which replace the loader's own search.
pub(crate) fn chosen_drivers() -> Option<Vec<PathBuf>> {
    ["VK_DRIVER_FILES", "VK_ICD_FILENAMES"]
        .into_iter()
        .filter_map(std::env::var_os)
        .find(|list| !list.is_empty())
        .map(|list| expand(&list))
}

/// The manifests that the Vulkan loader will read, in its order.
pub(crate) fn driver_manifests() -> Vec<PathBuf> {
    if let Some(chosen) = chosen_drivers() {
        return chosen;
    }
    let added = std::env::var_os("VK_ADD_DRIVER_FILES").unwrap_or_default();
    expand(&added)
        .into_iter()
        .chain(
            search_folders()
                .iter()
                .flat_map(|folder| manifests_in(folder)),
        )
        .collect()
}

struct Machine {
    system: &'static str,
    /// The dynamic linker finds `libvulkan.so.1`.
    loader: bool,
    /// The loader finds a driver's manifest.
    driver: bool,
    /// The environment names the drivers, so that the loader does not search for others.
    chosen: bool,
    /// The text of `/etc/os-release`.
    release: String,
    root: bool,
    sudo: bool,
}

#[derive(Debug, PartialEq)]
enum Plan {
    Ready,
    Install { sudo: bool },
    Tell(String),
}

impl Machine {
    fn look() -> Self {
        let release = ["/etc/os-release", "/usr/lib/os-release"]
            .into_iter()
            .find_map(|path| fs::read_to_string(path).ok());
        Self {
            system: std::env::consts::OS,
            loader: loader_is_found(),
            driver: driver_manifests().iter().any(|manifest| manifest.is_file()),
            chosen: chosen_drivers().is_some(),
            release: release.unwrap_or_default(),
            root: shell::is_root(),
            sudo: shell::exists("sudo"),
        }
    }

    fn has_vulkan(&self) -> bool {
        self.loader && self.driver
    }

    fn lack(&self) -> &'static str {
        match (self.loader, self.driver) {
            (false, false) => "there is neither a Vulkan loader (libvulkan.so.1) nor a driver",
            (false, true) => "there is no Vulkan loader (libvulkan.so.1)",
            _ => "there is no Vulkan driver",
        }
    }
}

fn plan(machine: &Machine) -> Plan {
    // Metal and DirectX 12 belong to the system; elsewhere wgpu itself will say what it misses.
    if machine.system != "linux" || machine.has_vulkan() {
        return Plan::Ready;
    }
    let lack = machine.lack();
    if machine.chosen && !machine.driver {
        // An installed driver would not be used either.
        return Plan::Tell(
            "VK_DRIVER_FILES or VK_ICD_FILENAMES names no driver manifest that exists; correct or \
             unset it"
                .into(),
        );
    }
    let like = distributions(&machine.release);
    let is = |name: &str| like.iter().any(|entry| entry == name);
    if is("debian") || is("ubuntu") {
        return match (machine.root, machine.sudo) {
            (true, _) => Plan::Install { sudo: false },
            (false, true) => Plan::Install { sudo: true },
            (false, false) => Plan::Tell(format!(
                "{lack}, and there is no sudo to install one; as root run\n  \
                 apt-get update && apt-get install -y --no-install-recommends {}",
                PACKAGES.join(" ")
            )),
        };
    }
    let advice = if is("fedora") || is("rhel") || is("centos") {
        "sudo dnf install vulkan-loader mesa-vulkan-drivers".into()
    } else if is("arch") {
        "sudo pacman -S vulkan-icd-loader vulkan-swrast".into()
    } else if is("suse") || is("opensuse") {
        "sudo zypper install libvulkan1 libvulkan_lvp".into()
    } else if is("alpine") {
        "sudo apk add vulkan-loader mesa-vulkan-swrast".into()
    } else {
        "the Vulkan loader, and Mesa's Vulkan drivers including the software driver `lavapipe` \
         (package names differ between distributions)"
            .to_owned()
    };
    Plan::Tell(format!(
        "{lack}. Install your GPU's driver, or a software driver:\n  {advice}\n\
         If an adapter is there that this check does not see, set OSCULANT_SKIP_ADAPTER_CHECK=1."
    ))
}

fn install(sudo: bool) -> Outcome {
    println!(
        "No Vulkan driver was found. osculant computes through one, so a software driver (Mesa's \
         lavapipe)\nwill now be installed{}: {}",
        if sudo { " with sudo" } else { "" },
        PACKAGES.join(", ")
    );
    let apt_get = |arguments: &[&str]| {
        let mut command = if sudo {
            Command::new("sudo")
        } else {
            Command::new("env")
        };
        if sudo {
            command.arg("env");
        }
        // Without this a package may stop and wait for an answer, for example on the time zone.
        command
            .args(["DEBIAN_FRONTEND=noninteractive", "apt-get"])
            .args(arguments);
        shell::stream(&mut command)
    };
    apt_get(&["update"])?;
    apt_get(&[
        "install",
        "-y",
        "--no-install-recommends",
        PACKAGES[0],
        PACKAGES[1],
    ])
}

/// The distribution's own identifier and those it says to be like, from the text of `os-release`.
fn distributions(release: &str) -> Vec<String> {
    release
        .lines()
        .filter_map(|line| line.trim().split_once('='))
        .filter(|(key, _)| matches!(*key, "ID" | "ID_LIKE"))
        .flat_map(|(_, value)| value.trim_matches(['"', '\'']).split_whitespace())
        .map(str::to_ascii_lowercase)
        .collect()
}

fn loader_is_found() -> bool {
    const LIBRARY: &str = "libvulkan.so.1";
    // Debian keeps ldconfig out of the ordinary user's PATH.
    let cached = ["ldconfig", "/sbin/ldconfig", "/usr/sbin/ldconfig"]
        .into_iter()
        .any(|program| {
            shell::capture(Command::new(program).arg("-p"))
                .is_ok_and(|list| String::from_utf8_lossy(&list).contains(LIBRARY))
        });
    let path = std::env::var_os("LD_LIBRARY_PATH").unwrap_or_default();
    cached
        || std::env::split_paths(&path)
            // Systems on musl have no linker cache.
            .chain(["/usr/lib", "/usr/lib64", "/usr/local/lib"].map(PathBuf::from))
            .any(|folder| folder.join(LIBRARY).exists())
}

/// The loader's search path on Linux (Vulkan Loader documentation, "Driver Discovery on Linux").
fn search_folders() -> Vec<PathBuf> {
    let variable = |name: &str| std::env::var_os(name).filter(|value| !value.is_empty());
    let home = variable("HOME").map(PathBuf::from);
    let one = |name: &str, below_home: &str| -> Vec<PathBuf> {
        let given = variable(name).map(PathBuf::from);
        given
            .or_else(|| home.as_ref().map(|home| home.join(below_home)))
            .into_iter()
            .collect()
    };
    let many = |name: &str, default: &str| -> Vec<PathBuf> {
        std::env::split_paths(&variable(name).unwrap_or_else(|| default.into())).collect()
    };
    let mut folders = Vec::new();
    for base in [
        one("XDG_CONFIG_HOME", ".config"),
        many("XDG_CONFIG_DIRS", "/etc/xdg"),
        vec!["/etc".into()],
        one("XDG_DATA_HOME", ".local/share"),
        many("XDG_DATA_DIRS", "/usr/local/share:/usr/share"),
    ]
    .concat()
    {
        let folder = base.join("vulkan").join("icd.d");
        if !folders.contains(&folder) {
            folders.push(folder);
        }
    }
    folders
}

/// A list as in `VK_DRIVER_FILES`: manifests, or folders of them.
fn expand(list: &OsString) -> Vec<PathBuf> {
    std::env::split_paths(list)
        .filter(|path| !path.as_os_str().is_empty())
        .flat_map(|path| {
            if path.is_dir() {
                manifests_in(&path)
            } else {
                vec![path]
            }
        })
        .collect()
}

fn manifests_in(folder: &Path) -> Vec<PathBuf> {
    let mut manifests: Vec<PathBuf> = fs::read_dir(folder)
        .into_iter()
        .flatten()
        .filter_map(|entry| entry.ok().map(|entry| entry.path()))
        .filter(|path| {
            path.extension()
                .is_some_and(|extension| extension == "json")
        })
        .collect();
    // The order of a folder's entries is the file system's; tests should see a fixed one.
    manifests.sort();
    manifests
}

#[cfg(test)]
mod tests {
    use super::{Machine, Plan, distributions, expand, plan};

    const DEBIAN: &str = "PRETTY_NAME=\"Debian GNU/Linux 12\"\nID=debian\nVERSION_ID=\"12\"\n";
    const MINT: &str = "NAME=\"Linux Mint\"\nID=linuxmint\nID_LIKE=\"ubuntu debian\"\n";

    fn bare(release: &str) -> Machine {
        Machine {
            system: "linux",
            loader: false,
            driver: false,
            chosen: false,
            release: release.into(),
            root: false,
            sudo: false,
        }
    }

    fn told(machine: &Machine) -> String {
        match plan(machine) {
            Plan::Tell(message) => message,
            other => format!("{other:?}"),
        }
    }

    #[test]
    fn distribution_and_its_relatives_are_read() {
        assert_eq!(distributions(DEBIAN), ["debian"]);
        assert_eq!(distributions(MINT), ["linuxmint", "ubuntu", "debian"]);
        assert_eq!(
            distributions("ID='Arch'\n#ID=debian\nVERSION_ID=1"),
            ["arch"]
        );
        assert!(distributions("").is_empty());
    }

    #[test]
    fn nothing_is_done_where_vulkan_is_present_or_not_needed() {
        let complete = Machine {
            loader: true,
            driver: true,
            ..bare(DEBIAN)
        };
        assert_eq!(plan(&complete), Plan::Ready);
        for system in ["macos", "windows"] {
            assert_eq!(plan(&Machine { system, ..bare("") }), Plan::Ready);
        }
    }

    #[test]
    fn debian_and_its_relatives_install_a_driver() {
        for release in [DEBIAN, MINT] {
            let root = Machine {
                root: true,
                ..bare(release)
            };
            assert_eq!(plan(&root), Plan::Install { sudo: false });
            let user = Machine {
                sudo: true,
                ..bare(release)
            };
            assert_eq!(plan(&user), Plan::Install { sudo: true });
            assert!(told(&bare(release)).contains("apt-get install -y"));
        }
        let half = Machine {
            loader: true,
            root: true,
            sudo: true,
            ..bare(DEBIAN)
        };
        assert_eq!(plan(&half), Plan::Install { sudo: false });
    }

    #[test]
    fn a_wrong_choice_of_drivers_installs_nothing() {
        let wrong = Machine {
            loader: true,
            chosen: true,
            root: true,
            ..bare(DEBIAN)
        };
        assert!(told(&wrong).contains("VK_ICD_FILENAMES"));
        // A right choice without a loader still needs the loader.
        let no_loader = Machine {
            driver: true,
            chosen: true,
            root: true,
            ..bare(DEBIAN)
        };
        assert_eq!(plan(&no_loader), Plan::Install { sudo: false });
    }

    #[test]
    fn other_distributions_are_told_what_to_install() {
        for (release, package) in [
            ("ID=fedora", "mesa-vulkan-drivers"),
            (
                "ID=rocky\nID_LIKE=\"rhel centos fedora\"",
                "mesa-vulkan-drivers",
            ),
            ("ID=manjaro\nID_LIKE=arch", "vulkan-swrast"),
            (
                "ID=opensuse-leap\nID_LIKE=\"suse opensuse\"",
                "libvulkan_lvp",
            ),
            ("ID=alpine", "mesa-vulkan-swrast"),
            ("", "lavapipe"),
        ] {
            // Even root must not run another distribution's package manager.
            let message = told(&Machine {
                root: true,
                sudo: true,
                ..bare(release)
            });
            assert!(message.contains(package), "{release}: {message}");
        }
    }

    #[test]
    fn what_is_missing_is_named() {
        let no_driver = told(&Machine {
            loader: true,
            ..bare("")
        });
        assert!(
            no_driver.starts_with("there is no Vulkan driver"),
            "{no_driver}"
        );
        let no_loader = told(&Machine {
            driver: true,
            ..bare("")
        });
        assert!(
            no_loader.starts_with("there is no Vulkan loader"),
            "{no_loader}"
        );
    }

    #[test]
    #[cfg(unix)]
    fn empty_entries_of_a_driver_list_are_dropped() {
        let list = expand(&":/no/such/a.json::/no/such/b.json".into());
        assert_eq!(
            list,
            ["/no/such/a.json", "/no/such/b.json"].map(std::path::PathBuf::from)
        );
    }
}
