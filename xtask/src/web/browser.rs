//! Finds Chromium, installs it where that can be done, and starts it without a window.

use super::devtools::Page;
use crate::shell::{self, Outcome};
use std::path::Path;
use std::process::{Child, ChildStdin, Command, Stdio};
use std::time::{Duration, Instant};

/// Names another browser.
const VARIABLE: &str = "OSCULANT_BROWSER";
const PROGRAMS: [&str; 7] = [
    "chromium-headless-shell",
    "chromium",
    "chromium-browser",
    "google-chrome",
    "google-chrome-stable",
    "chrome",
    "/Applications/Google Chrome.app/Contents/MacOS/Google Chrome",
];
/// Debian's packages: a Chromium that has no windows at all, and letters for it.
const PACKAGES: [&str; 2] = ["chromium-headless-shell", "fonts-inter"];
/// WebGPU on the processor, which Chromium else does not offer on Linux; nothing that the network is asked for.
const FLAGS: [&str; 11] = [
    "--headless",
    "--remote-debugging-pipe",
    "--enable-unsafe-webgpu",
    "--use-webgpu-adapter=swiftshader",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--disable-quic",
    "--hide-scrollbars",
    "--force-color-profile=srgb",
];

/// A browser that ends with this value.
pub(super) struct Browser {
    child: Child,
    /// Its one page.
    pub(super) page: Page<ChildStdin>,
}

impl Browser {
    /// Starts the browser of this name.
    pub(super) fn start(program: &str) -> Outcome<Self> {
        let profile = shell::scratch("browser")?;
        // The browser listens on file 3 and answers on file 4, which the shell makes of its input and output.
        let mut command = Command::new("sh");
        command.args(["-c", "exec \"$0\" \"$@\" 3<&0 4>&1 </dev/null >&2", program]);
        command.args(FLAGS);
        if shell::is_root() {
            // Chromium's sandbox refuses to run as root; the page is our own.
            command.arg("--no-sandbox");
        }
        command.arg(format!("--user-data-dir={}", profile.display()));
        shell::with_runtime_folder(&mut command)?;
        let log = profile.with_extension("log");
        let file = std::fs::File::create(&log).map_err(|error| shell::about(&log, &error))?;
        let mut child = command
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(file)
            .spawn()
            .map_err(|error| format!("{program} could not be started: {error}"))?;
        let (Some(to), Some(from)) = (child.stdin.take(), child.stdout.take()) else {
            return Err(format!("{program} was started without pipes"));
        };
        match Page::new(to, from) {
            Ok(page) => Ok(Self { child, page }),
            Err(reason) => {
                child.kill().ok();
                child.wait().ok();
                Err(format!(
                    "{program}: {reason}; what it said is in {}",
                    log.display()
                ))
            }
        }
    }
}

impl Drop for Browser {
    fn drop(&mut self) {
        self.page.end();
        let end = Instant::now() + Duration::from_secs(10);
        while Instant::now() < end {
            if !matches!(self.child.try_wait(), Ok(None)) {
                return;
            }
            std::thread::sleep(Duration::from_millis(50));
        }
        self.child.kill().ok();
        self.child.wait().ok();
    }
}

/// A Chromium of this machine; installs Debian's where there is none and that may be done.
pub(super) fn find() -> Outcome<String> {
    if let Ok(program) = std::env::var(VARIABLE) {
        return match shell::exists(&program) {
            true => Ok(program),
            false => Err(format!(
                "{VARIABLE} is {program}, which is no program; correct or unset it"
            )),
        };
    }
    if let Some(program) = present() {
        return Ok(program);
    }
    let advice = format!(
        "the page is tested in Chromium, and there is none: install Chromium or Chrome, or name it in {VARIABLE}"
    );
    let is_debian = std::fs::read_to_string("/etc/os-release")
        .is_ok_and(|release| release.lines().any(|line| line == "ID=debian"));
    if !is_debian || !Path::new("/usr/bin/apt-get").exists() {
        return Err(advice);
    }
    let install = format!(
        "apt-get install -y --no-install-recommends {}",
        PACKAGES.join(" ")
    );
    if !shell::is_root() {
        return Err(format!("{advice}. On Debian, as root: {install}"));
    }
    println!(
        "There is no Chromium. Debian's, which has no windows, will now be installed: {}",
        PACKAGES.join(", ")
    );
    let apt_get = |arguments: &[&str]| {
        let mut command = Command::new("apt-get");
        shell::stream(
            command
                .env("DEBIAN_FRONTEND", "noninteractive")
                .arg("-q")
                .args(arguments),
        )
    };
    apt_get(&["update"])
        .and_then(|()| {
            apt_get(&[&["install", "-y", "--no-install-recommends"][..], &PACKAGES].concat())
        })
        .map_err(|reason| format!("{advice}. Installing it failed: {reason}"))?;
    present().ok_or_else(|| {
        format!(
            "{} is installed, but {} is not found",
            PACKAGES[0], PROGRAMS[0]
        )
    })
}

fn present() -> Option<String> {
    let programs = PROGRAMS
        .into_iter()
        .filter(|program| shell::exists(program));
    programs.map(str::to_owned).next()
}
