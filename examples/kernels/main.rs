//! Compiles every kernel of the crate on an adapter and runs none, so that a driver can print what its compiler made of each.
//!
//! On an AMD GPU with Mesa's driver, for example:
//!
//! ```text
//! RADV_DEBUG=shaderstats MESA_SHADER_CACHE_DISABLE=1 cargo run --example kernels
//! ```
//!
//! Before each compilation a line `@@ kernel FAMILY | INVOCATIONS | NAME` goes to standard error, where drivers print as well. The kernels
//! are those of `shaders/` with every choice that their `override` constants offer, those of the gradients and curvature products of four
//! networks, and those that the device could use for matrix products of several sizes. With `--out FOLDER` nothing is compiled: the texts
//! go to `FOLDER/N.wgsl` with an index `FOLDER/kernels.json`, for other compilers.

mod hand_written;
mod listed;
mod networks;

use std::collections::HashSet;
use std::error::Error;
use std::path::Path;
use std::process::ExitCode;

use listed::Listed;
use osculant::gpu::Gpu;
use osculant::kernels::dot;
use osculant::kernels::tuning::{Capabilities, Products};

fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let arguments: Vec<&str> = arguments.iter().map(String::as_str).collect();
    let outcome = match arguments.as_slice() {
        [] => compile(),
        ["--out", folder] => write(Path::new(folder)),
        _ => Err("usage: kernels [--out FOLDER]".into()),
    };
    match outcome {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("error: {error}");
            ExitCode::FAILURE
        }
    }
}

/// Every kernel once: the same text may come from several places.
fn all(capabilities: &Capabilities, products: &Products) -> Result<Vec<Listed>, Box<dyn Error>> {
    let mut kernels = hand_written::all()?;
    // Templates run only filled in, as the others here are; but what is open in those of conjugate gradients is two numbers, given for
    // GPUs. Only software loads 64 bits.
    kernels.retain(|kernel| {
        let filled = !kernel.text.contains("\n//<") || kernel.family.starts_with("cg/");
        filled && !kernel.name.ends_with("64-bit loads")
    });
    kernels.extend(networks::all(products)?);
    kernels.extend(
        dot::catalogue(capabilities)?
            .into_iter()
            .map(|(family, name, text)| Listed {
                family: format!("dot {family}"),
                name,
                text,
                constants: Vec::new(),
            }),
    );
    let mut seen = HashSet::new();
    kernels.retain(|kernel| seen.insert(format!("{:?}{}", kernel.constants, kernel.text)));
    Ok(kernels)
}

/// Invocations of a workgroup.
fn invocations(kernel: &Listed) -> Result<u32, Box<dyn Error>> {
    let module = naga::front::wgsl::parse_str(&kernel.text)
        .map_err(|error| error.emit_to_string(&kernel.text))?;
    let entry = module.entry_points.first();
    let entry = entry.ok_or_else(|| format!("{} has no entry point", kernel.family))?;
    Ok(entry.workgroup_size.iter().product())
}

fn compile() -> Result<(), Box<dyn Error>> {
    let gpu = Gpu::new()?;
    let kernels = all(&Capabilities::of(&gpu), &Products::of(&gpu))?;
    let info = gpu.info();
    eprintln!(
        "@@ adapter {}; {} {}",
        info.name, info.driver, info.driver_info
    );
    for kernel in &kernels {
        eprintln!(
            "@@ kernel {} | {} | {}",
            kernel.family,
            invocations(kernel)?,
            kernel.name
        );
        let constants: Vec<(&str, f64)> = kernel
            .constants
            .iter()
            .map(|(name, value)| (name.as_str(), *value))
            .collect();
        // Some need what not every device has; that is for the reader of the statistics to judge.
        if let Err(error) = gpu.pipeline(&kernel.name, &kernel.text, &constants) {
            let message = error.to_string();
            eprintln!("@@ refused {}", message.lines().next().unwrap_or_default());
        }
    }
    eprintln!("@@ end {} kernels", kernels.len());
    Ok(())
}

fn write(folder: &Path) -> Result<(), Box<dyn Error>> {
    std::fs::create_dir_all(folder)?;
    let mut index = Vec::new();
    // A device that has what most have; 32 lanes are those of NVIDIA's.
    let capabilities = Capabilities {
        subgroup_size: Some(32),
        large_workgroups: true,
        ..Capabilities::default()
    };
    for (number, kernel) in all(&capabilities, &Products::default())?.iter().enumerate() {
        let file = format!("{number}.wgsl");
        std::fs::write(folder.join(&file), &kernel.text)?;
        let constants: serde_json::Map<String, serde_json::Value> = kernel
            .constants
            .iter()
            .map(|(name, value)| (name.clone(), (*value).into()))
            .collect();
        index.push(serde_json::json!({
            "file": file,
            "family": kernel.family,
            "name": kernel.name,
            "constants": constants,
        }));
    }
    std::fs::write(
        folder.join("kernels.json"),
        serde_json::to_string_pretty(&index)?,
    )?;
    println!("{} kernels in {}", index.len(), folder.display());
    Ok(())
}
