//! `cargo xtask kernel-statistics`: what the compilers of AMD's and Intel's drivers make of every kernel, on a machine without such a GPU.
//!
//! The example `kernels` compiles every kernel while the driver prints its statistics; this command gives it the drivers (`mesa`), reads
//! what they print (`amd`, `intel`) and writes tables (`page`).

mod amd;
mod intel;
mod mesa;
mod page;

use crate::shell::{self, Outcome};
use crate::{adapter, example};
use mesa::Mesa;
use std::fs;
use std::path::Path;
use std::process::{Command, Stdio};

/// Where the page is unless `--out` says otherwise.
pub(crate) const PAGE: &str = "docs/kernel-statistics.md";

/// A kernel and what a driver printed while compiling it.
#[derive(Debug, PartialEq)]
struct Compiled<'a> {
    kernel: Kernel,
    output: &'a str,
}

impl Compiled<'_> {
    /// Whether the device has not what the kernel needs.
    fn is_refused(&self) -> bool {
        self.output.contains("@@ refused ")
    }
}

/// As the example `kernels` announces it.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Kernel {
    family: String,
    name: String,
    /// Invocations.
    workgroup: u32,
}

pub(crate) fn run(out: &Path) -> Outcome {
    if (std::env::consts::OS, std::env::consts::ARCH) != ("linux", "x86_64") {
        return Err("the drivers are unpacked for Linux on x86-64 only".into());
    }
    // Brings the Vulkan loader and the libraries that Mesa's drivers are linked with.
    adapter::ensure()?;
    let mesa = Mesa::ensure()?;
    let program = example::build("kernels")?;
    let mut sections = Vec::new();
    for target in amd::TARGETS {
        let printed = compile(
            &mesa,
            &program,
            "radeon",
            &mesa.radv_shim(),
            [("AMDGPU_GPU_ID", target.id), ("RADV_DEBUG", "shaderstats")],
        )?;
        sections.push(amd::section(
            target,
            adapter_line(&printed)?,
            &compiled(&printed)?,
        )?);
    }
    for target in intel::TARGETS {
        let printed = compile(
            &mesa,
            &program,
            "intel",
            &mesa.intel_shim(),
            [
                ("INTEL_STUB_GPU_PLATFORM", target.id),
                ("INTEL_DEBUG", "cs"),
            ],
        )?;
        sections.push(intel::section(
            target,
            adapter_line(&printed)?,
            &compiled(&printed)?,
        )?);
    }
    let old = fs::read_to_string(out).map_err(|error| shell::about(out, &error))?;
    let new = page::replace(&old, &page::generated(&sections))
        .ok_or_else(|| format!("{} has no line `{}`", out.display(), page::BEGIN))?;
    fs::write(out, new).map_err(|error| shell::about(out, &error))?;
    println!("{}", page::summary(&sections));
    println!("Written: {}", out.display());
    Ok(())
}

/// Runs the example on one driver behind its shim and returns what both printed.
fn compile(
    mesa: &Mesa,
    program: &Path,
    driver: &str,
    shim: &Path,
    settings: [(&str, &str); 2],
) -> Outcome<String> {
    let [(key, id), _] = settings;
    println!("Compiling every kernel with the driver `{driver}` for {id} ...");
    let manifest = mesa.manifest(driver);
    let mut command = Command::new(program);
    command
        .envs(settings)
        .env("LD_LIBRARY_PATH", mesa.libraries())
        .env("LD_PRELOAD", shim)
        .env("VK_ICD_FILENAMES", &manifest)
        .env("VK_DRIVER_FILES", &manifest)
        .env("MESA_SHADER_CACHE_DISABLE", "true")
        .env("OSCULANT_BACKEND", "vulkan")
        .env_remove("OSCULANT_ADAPTER")
        .env_remove("WGPU_ADAPTER_NAME")
        .stdin(Stdio::null());
    let output = shell::with_runtime_folder(&mut command)?
        .output()
        .map_err(|error| shell::about(program, &error))?;
    let printed = String::from_utf8_lossy(&output.stderr).into_owned();
    if output.status.success() {
        return Ok(printed);
    }
    let last: Vec<&str> = printed.lines().rev().take(5).collect();
    Err(format!(
        "with {key}={id} the example `kernels` ended with {}; its last lines, the last first:\n  {}",
        output.status,
        last.join("\n  ")
    ))
}

/// The rows of all kernels that a compiler took, from what it wrote.
fn rows<S>(
    target: &str,
    compiled: &[Compiled<'_>],
    parse: impl Fn(&str) -> Option<S>,
    row: impl Fn(&Kernel, &S) -> page::Row,
) -> Outcome<Vec<page::Row>> {
    let taken = compiled.iter().filter(|one| !one.is_refused());
    taken
        .map(|Compiled { kernel, output }| {
            let statistics = parse(output).ok_or_else(|| {
                let (family, name) = (&kernel.family, &kernel.name);
                format!("{target}: no statistics of {family} {name}:\n{output}")
            })?;
            Ok(row(kernel, &statistics))
        })
        .collect()
}

/// The kernels that the device cannot run.
fn refused(compiled: &[Compiled<'_>]) -> Vec<Kernel> {
    compiled
        .iter()
        .filter(|one| one.is_refused())
        .map(|one| one.kernel.clone())
        .collect()
}

/// Name and driver of the adapter.
fn adapter_line(printed: &str) -> Outcome<&str> {
    printed
        .lines()
        .find_map(|line| line.strip_prefix("@@ adapter "))
        .ok_or_else(|| "the example `kernels` named no adapter".into())
}

/// What was printed, cut at the announcements of kernels.
fn compiled(printed: &str) -> Outcome<Vec<Compiled<'_>>> {
    let mut kernels = Vec::new();
    let mut parts = printed.split("@@ kernel ");
    parts.next();
    for part in parts {
        let (head, output) = part.split_once('\n').unwrap_or((part, ""));
        let mut fields = head.splitn(3, " | ");
        let kernel = (|| {
            Some(Kernel {
                family: fields.next()?.into(),
                workgroup: fields.next()?.parse().ok()?,
                name: fields.next()?.into(),
            })
        })()
        .ok_or_else(|| format!("not understood: @@ kernel {head}"))?;
        let output = output.split("@@ end").next().unwrap_or_default();
        kernels.push(Compiled { kernel, output });
    }
    if !printed.contains(&format!("@@ end {} kernels", kernels.len())) {
        return Err("the example `kernels` announced another number of kernels".into());
    }
    Ok(kernels)
}

#[cfg(test)]
mod tests {
    use super::{adapter_line, compiled};

    const PRINTED: &str = "noise\n@@ adapter RADV NAVI31; radv Mesa 25.0.7\n@@ kernel dot | 64 | [4, 4] k 8\nVGPRs: 12\n@@ kernel cg/start | 128 | WARM=0\nVGPRs: 24\n@@ end 2 kernels\n";

    #[test]
    fn output_is_cut_at_announcements() {
        let kernels = compiled(PRINTED).unwrap_or_default();
        assert_eq!(kernels.len(), 2);
        assert_eq!(kernels[0].kernel.family, "dot");
        assert_eq!(kernels[0].kernel.name, "[4, 4] k 8");
        assert_eq!(kernels[1].kernel.workgroup, 128);
        assert_eq!(kernels[1].output, "VGPRs: 24\n");
        assert!(!kernels[1].is_refused());
        let refused = PRINTED.replace("VGPRs: 24", "@@ refused no 64-bit integers");
        let refused = compiled(&refused).unwrap_or_default();
        assert!(!refused[0].is_refused() && refused[1].is_refused());
        assert_eq!(adapter_line(PRINTED), Ok("RADV NAVI31; radv Mesa 25.0.7"));
    }

    #[test]
    fn an_interrupted_run_is_an_error() {
        let cut = PRINTED.replace("@@ end 2 kernels", "");
        assert!(compiled(&cut).is_err());
        assert!(compiled(&PRINTED.replace("| 64 |", "| x |")).is_err());
    }
}
