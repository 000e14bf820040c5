//! Mesa's compilers for AMD and Intel GPUs, with what lets them run on a machine without such a GPU.
//!
//! A *shim* is a library that, loaded before a driver, answers its calls to the kernel as if the GPU were there. The driver then compiles
//! kernels as it would for the real one, and only executing them fails. Debian packages the AMD shim; the Intel shim is built from Mesa's
//! source. Everything stays below `target/kernel-statistics`, nothing is installed.

use crate::apt;
use crate::shell::{self, Outcome};
use std::ffi::OsString;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

/// The release whose backports hold a Mesa with the AMD shim.
const RELEASE: &str = "bookworm";
const DRIVERS: [&str; 6] = [
    "mesa-vulkan-drivers",
    "mesa-drm-shim",
    "libdrm2",
    "libdrm-amdgpu1",
    "libdrm-intel1",
    "libdrm-common",
];
/// For building the Intel shim, from the backports and from the release.
const HEADERS: [&str; 3] = ["libdrm-dev", "libdrm-radeon1", "libdrm-nouveau2"];
const BUILD_TOOLS: [&str; 5] = ["libpciaccess0", "libpciaccess-dev", "bison", "flex", "m4"];
const PYTHON_PACKAGES: [&str; 5] = ["meson", "ninja", "mako", "packaging", "pyyaml"];
const INTEL_SHIM: &str = "src/intel/tools/libintel_noop_drm_shim.so";

/// The unpacked drivers and shims.
pub(crate) struct Mesa {
    folder: PathBuf,
}

impl Mesa {
    /// Downloads and builds whatever is missing.
    pub(crate) fn ensure() -> Outcome<Self> {
        let mesa = Self {
            folder: shell::root().join("target").join("kernel-statistics"),
        };
        shell::make_folder(&mesa.folder)?;
        if !(mesa.radv_shim().is_file() && mesa.manifest("radeon").is_file()) {
            mesa.fetch()?;
        }
        if !mesa.intel_shim().is_file() {
            mesa.build_intel_shim()?;
        }
        Ok(mesa)
    }

    pub(crate) fn radv_shim(&self) -> PathBuf {
        self.libraries().join("libamdgpu_noop_drm_shim.so")
    }

    pub(crate) fn intel_shim(&self) -> PathBuf {
        self.folder.join("intel-build").join(INTEL_SHIM)
    }

    pub(crate) fn libraries(&self) -> PathBuf {
        self.root().join("usr/lib/x86_64-linux-gnu")
    }

    /// The manifest of one of the drivers: `radeon` or `intel`.
    pub(crate) fn manifest(&self, driver: &str) -> PathBuf {
        self.root()
            .join("usr/share/vulkan/icd.d")
            .join(format!("{driver}_icd.json"))
    }

    fn root(&self) -> PathBuf {
        self.folder.join("root")
    }

    fn fetch(&self) -> Outcome {
        println!(
            "Downloading Mesa's drivers from Debian {RELEASE}-backports into {}; nothing is installed: {}",
            self.folder.display(),
            DRIVERS.join(", ")
        );
        self.unpack(&DRIVERS.map(backported))
    }

    fn build_intel_shim(&self) -> Outcome {
        println!(
            "Building Mesa's Intel shim (about two minutes). Downloaded for it into {}, and not installed: the source of mesa, {}, {}; from \
             the Python package index {}",
            self.folder.display(),
            HEADERS.join(", "),
            BUILD_TOOLS.join(", "),
            PYTHON_PACKAGES.join(", ")
        );
        let packages: Vec<String> = HEADERS
            .iter()
            .map(|name| backported(name))
            .chain(BUILD_TOOLS.map(String::from))
            .collect();
        self.unpack(&packages)?;
        self.relocate_package_files()?;
        let source = self.source()?;
        let python = self.folder.join("python");
        shell::stream(Command::new("python3").args(["-m", "venv"]).arg(&python))?;
        shell::stream(
            Command::new(python.join("bin/pip"))
                .args(["install", "--quiet"])
                .args(PYTHON_PACKAGES),
        )?;
        let build = self.folder.join("intel-build");
        let off = [
            "glx",
            "egl",
            "gbm",
            "gles1",
            "gles2",
            "llvm",
            "zstd",
            "shader-cache",
            "valgrind",
            "libunwind",
        ];
        let empty = [
            "vulkan-drivers",
            "gallium-drivers",
            "platforms",
            "video-codecs",
        ];
        let mut setup = self.with_build_tools(&python, "meson")?;
        setup
            .args(["setup", "--wipe"])
            .arg(&build)
            .arg(source)
            .args([
                "-Dtools=drm-shim,intel",
                "-Dbuildtype=release",
                "-Dopengl=false",
                "-Dc_args=-w",
                "-Dcpp_args=-w",
            ])
            .args(off.map(|option| format!("-D{option}=disabled")))
            .args(empty.map(|option| format!("-D{option}=")));
        shell::make_folder(&build)?;
        shell::stream(&mut setup)?;
        let mut ninja = self.with_build_tools(&python, "ninja")?;
        shell::stream(ninja.arg("-C").arg(&build).arg(INTEL_SHIM))
    }

    /// Downloads packages and unpacks them into one tree.
    fn unpack(&self, packages: &[String]) -> Outcome {
        let archives = shell::scratch("kernel-statistics-packages")?;
        let backports = apt::Backports::of(RELEASE, &self.folder.join("apt"))?;
        backports.download(packages, &archives)?;
        for archive in files_ending(&archives, ".deb")? {
            apt::unpack(&archive, &self.root())?;
        }
        fs::remove_dir_all(&archives).map_err(|error| shell::about(&archives, &error))
    }

    /// Mesa's source, unpacked.
    fn source(&self) -> Outcome<PathBuf> {
        let folder = self.folder.join("source");
        shell::make_folder(&folder)?;
        let backports = apt::Backports::of(RELEASE, &self.folder.join("apt"))?;
        backports.download_source("mesa", &folder)?;
        let archive = files_ending(&folder, ".orig.tar.xz")?
            .pop()
            .ok_or("apt-get said nothing, but there is no mesa_*.orig.tar.xz")?;
        shell::capture(
            Command::new("tar")
                .arg("-C")
                .arg(&folder)
                .arg("-xf")
                .arg(&archive),
        )?;
        fs::remove_file(&archive).map_err(|error| shell::about(&archive, &error))?;
        files_ending(&folder, "")?
            .into_iter()
            .find(|path| path.join("meson.build").is_file())
            .ok_or_else(|| format!("no source of Mesa in {}", folder.display()))
    }

    /// Makes the files for pkg-config say where the headers are.
    fn relocate_package_files(&self) -> Outcome {
        let prefix = format!("prefix={}", self.root().join("usr").display());
        for path in files_ending(&self.libraries().join("pkgconfig"), ".pc")? {
            let text = fs::read_to_string(&path).map_err(|error| shell::about(&path, &error))?;
            let text: Vec<&str> = text
                .lines()
                .map(|line| if line == "prefix=/usr" { &prefix } else { line })
                .collect();
            fs::write(&path, text.join("\n") + "\n")
                .map_err(|error| shell::about(&path, &error))?;
        }
        Ok(())
    }

    fn with_build_tools(&self, python: &Path, program: &str) -> Outcome<Command> {
        let usr = self.root().join("usr");
        let mut path: Vec<PathBuf> = vec![python.join("bin"), usr.join("bin")];
        path.extend(std::env::split_paths(
            &std::env::var_os("PATH").unwrap_or_default(),
        ));
        let path: OsString =
            std::env::join_paths(path).map_err(|error| format!("search path: {error}"))?;
        let mut command = Command::new(python.join("bin").join(program));
        command
            .env("PATH", path)
            .env("PKG_CONFIG_PATH", self.libraries().join("pkgconfig"))
            .env("BISON_PKGDATADIR", usr.join("share/bison"))
            .env("M4", usr.join("bin/m4"));
        Ok(command)
    }
}

fn backported(package: &str) -> String {
    format!("{package}/{RELEASE}-backports")
}

fn files_ending(folder: &Path, end: &str) -> Outcome<Vec<PathBuf>> {
    let mut files: Vec<PathBuf> = fs::read_dir(folder)
        .map_err(|error| shell::about(folder, &error))?
        .filter_map(|entry| entry.ok().map(|entry| entry.path()))
        .filter(|path| path.to_string_lossy().ends_with(end))
        .collect();
    files.sort();
    Ok(files)
}
