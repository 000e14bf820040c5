//! Kernel texts with replaceable regions.
//!
//! A file in `shaders/` is valid WGSL as it stands (the build validates it). A region between a line `//<name` and the next `//>` holds a
//! default that a generated kernel replaces.

use std::ops::Range;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use super::dot::Capabilities;
use super::four::four;
use super::loops;
use crate::error::{Error, Result};
use crate::gpu::{Binding, Gpu, Pipeline, Recording, Requirements, Sizes, Slice, grid};

/// A generated kernel: entry point `main`, binding 0 the result, bindings 1.. the operands.
#[derive(Clone, Debug)]
pub(crate) struct Kernel {
    pub(crate) label: &'static str,
    /// The text without what stands before it; see [`source`](Self::source).
    pub(crate) text: String,
    /// Workgroups of 64 invocations; how many of them in which dimension does not matter.
    pub(crate) workgroups: usize,
    /// Operands that are read as textures: number of the binding, and how many of its elements are read, a multiple of four.
    pub(crate) textures: Vec<(usize, usize)>,
    /// Its invocations and memory.
    pub(crate) workgroup: Workgroup,
    /// Iterations of its longest invocation, of all loops together.
    pub(crate) longest_loop: usize,
    /// Sizes that the text reads from its last binding instead of holding them: how many invocations there are, terms, rows. Kernels that
    /// differ in nothing else are one.
    pub(crate) sizes: Option<Sizes>,
    /// What runs before it. The first operands are read there alone; in their place this kernel reads the results.
    pub(crate) before: Option<Before>,
}

/// A workgroup of a kernel.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Workgroup {
    pub(crate) invocations: u32,
    /// Of workgroup memory.
    pub(crate) bytes: u32,
}

impl Workgroup {
    /// 64 invocations, each on its own.
    pub(crate) const APART: Self = Self {
        invocations: 64,
        bytes: 0,
    };
}

/// Kernels whose results only the next one reads.
#[derive(Clone, Debug)]
pub(crate) struct Before {
    /// With where the results are, in elements.
    pub(crate) kernels: Vec<(Kernel, Range<usize>)>,
    /// How many operands they read.
    pub(crate) operands: usize,
    /// What is bound in place of these.
    pub(crate) results: Vec<Range<usize>>,
}

/// Where the rows (axis 0) of a result lie, if not one after another: `elements` each, `pitch` elements apart.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Rows {
    pub(crate) elements: usize,
    pub(crate) pitch: usize,
}

impl Kernel {
    /// The whole text for a device.
    pub(crate) fn source(&self, capabilities: &Capabilities) -> String {
        let uses_four = ["Four", "floats(", "stored("]
            .iter()
            .any(|word| self.text.contains(word));
        let before = if uses_four { four(capabilities) } else { "" };
        [before, &self.text].concat()
    }

    /// What it asks of a device, by itself; what runs before it asks for itself.
    pub(crate) fn requirements(&self) -> Requirements {
        let declares = |line: &&str| line.starts_with("@group(0)") && line.contains("var<storage");
        let storage_buffers = self.text.lines().filter(declares).count();
        let Workgroup { invocations, bytes } = self.workgroup;
        Requirements::new(storage_buffers as u32, invocations, bytes)
    }

    /// Itself and what runs before it.
    fn all(&self) -> impl Iterator<Item = &Self> {
        let before = self.before.iter().flat_map(|before| &before.kernels);
        before.map(|(kernel, _)| kernel).chain([self])
    }

    /// What it asks of a device together with what runs before it.
    pub(crate) fn requirements_of_all(&self) -> Requirements {
        let all = self.all().map(Self::requirements);
        all.fold(Requirements::new(0, 0, 0), Requirements::largest)
    }

    /// Iterations of the longest invocation, of what runs before it too.
    pub(crate) fn longest_of_all(&self) -> usize {
        self.all().map(|k| k.longest_loop).max().unwrap_or(0)
    }

    /// Elements that it needs for the result of the kernel before it.
    pub(crate) fn scratch_elements(&self) -> usize {
        let ends = self.before.iter().flat_map(|before| &before.kernels);
        ends.map(|(_, range)| range.end).max().unwrap_or(0)
    }

    fn compiled(&self, gpu: &Gpu) -> Result<Arc<Pipeline>> {
        let source = self.source(&Capabilities::of(gpu));
        gpu.kernel(self.label, &source, &[], self.requirements())
    }

    /// Adds a run of the kernel to a recording; `scratch` holds [`scratch_elements`](Self::scratch_elements), where it needs any.
    pub(crate) fn record(
        &self,
        gpu: &Gpu,
        recording: &mut Recording,
        bindings: &[&Slice],
        scratch: Option<&Slice>,
    ) -> Result<()> {
        loops::check(self.label, self.longest_loop)?;
        let mut bindings = bindings.to_vec();
        let results: Vec<Slice>;
        if let Some(before) = &self.before {
            let scratch = scratch.ok_or_else(|| Error::Length {
                what: format!("the space for parts of kernel '{}'", self.label),
                found: 0,
                expected: self.scratch_elements(),
            })?;
            let read = 1..1 + before.operands;
            for (kernel, range) in &before.kernels {
                let result = scratch.slice(range.clone())?;
                let operands = [&[&result], &bindings[read.clone()]].concat();
                kernel.record(gpu, recording, &operands, None)?;
            }
            results = before
                .results
                .iter()
                .map(|range| scratch.slice(range.clone()))
                .collect::<Result<_>>()?;
            bindings.splice(read, &results);
        }
        let pipeline = self.compiled(gpu)?;
        let mut resources = Vec::with_capacity(bindings.len());
        for (number, &slice) in bindings.iter().enumerate() {
            let texture = self.textures.iter().find(|(binding, _)| *binding == number);
            resources.push(match texture {
                Some(&(_, elements)) => Binding::Texels(gpu.texels(slice, number, elements)?),
                None => Binding::Slice(slice),
            });
        }
        let sizes = self.sizes.map(|sizes| gpu.sizes(sizes)).transpose()?;
        resources.extend(sizes.as_ref().map(Binding::Slice));
        recording.dispatch_bindings(
            gpu,
            &pipeline,
            &resources,
            grid(gpu.limits(), self.workgroups)?,
        )
    }
}

/// Compiles those kernels that the device does not know yet, side by side, so that recording finds them.
///
/// # Errors
/// That of one that is refused.
pub(crate) fn compile(gpu: &Gpu, kernels: &[&Kernel]) -> Result<()> {
    let capabilities = Capabilities::of(gpu);
    let all = kernels.iter().flat_map(|kernel| kernel.all());
    let missing: Vec<&Kernel> = all
        .filter(|kernel| !gpu.knows(&kernel.source(&capabilities)))
        .collect();
    let next = AtomicUsize::new(0);
    let work = || {
        while let Some(kernel) = missing.get(next.fetch_add(1, Ordering::Relaxed)) {
            kernel.compiled(gpu)?;
        }
        Ok(())
    };
    let threads = std::thread::available_parallelism().map_or(1, usize::from);
    std::thread::scope(|scope| {
        let others: Vec<_> = (1..threads.min(missing.len()))
            .map(|_| scope.spawn(work))
            .collect();
        let mut outcome = work();
        for thread in others {
            // A panic is the driver's; recording the kernel meets it again.
            outcome = outcome.and(thread.join().unwrap_or(Ok(())));
        }
        outcome
    })
}

/// The declaration of the sizes of a kernel, with functions of these names for them.
pub(crate) fn declare_sizes(binding: usize, names: &[&str]) -> String {
    let mut text = format!("@group(0) @binding({binding}) var<uniform> sizes: vec4<u32>;\n");
    for (name, component) in names.iter().zip(["x", "y", "z", "w"]) {
        text += &format!("fn {name}() -> u32 {{ return sizes.{component}; }}\n");
    }
    text
}

/// A size in u32.
///
/// # Errors
/// [`Error::OverLimit`] for one that is beyond it.
pub(crate) fn size(number: usize) -> Result<u32> {
    u32::try_from(number).map_err(|_| Error::OverLimit {
        what: "a size of a kernel".into(),
        needed: number as u64,
        limit_name: "the range of u32",
        limit: u32::MAX.into(),
        advice: "use a smaller batch or network",
    })
}

/// Replaces each named region of `text`.
///
/// # Errors
/// [`Error::Unsupported`] if a region is missing: a defect of this crate, caught by every test that makes a kernel.
pub(crate) fn fill(text: &str, regions: &[(&str, &str)]) -> Result<String> {
    let mut out = text.to_string();
    for (name, content) in regions {
        let missing = || Error::Unsupported {
            what: format!("the region '{name}' of a kernel template"),
            message: "the shader file has no such region".into(),
        };
        let open = format!("//<{name}\n");
        let start = out.find(&open).ok_or_else(missing)?;
        let end = start + out[start..].find("//>").ok_or_else(missing)?;
        out.replace_range(start..end + 3, content);
    }
    Ok(out)
}

#[cfg(test)]
mod tests {
    use super::{Kernel, fill};
    use crate::error::Result;
    use crate::gpu::Requirements;
    use crate::kernels::dot::{Capabilities, Family, Sizes, View, kernel};
    use crate::kernels::store::Store;
    use crate::kernels::{gather, requirements};

    /// What the text of a kernel declares, as the compiler sees it.
    fn declared(kernel: &Kernel, capabilities: &Capabilities) -> Requirements {
        let text = kernel.source(capabilities);
        let module = naga::front::wgsl::parse_str(&text).unwrap_or_default();
        let mut found = Requirements::new(0, 0, 0);
        if let Some(main) = module.entry_points.first() {
            found.invocations = main.workgroup_size.iter().product();
        }
        for (_, variable) in module.global_variables.iter() {
            match variable.space {
                naga::AddressSpace::Storage { .. } => found.storage_buffers += 1,
                naga::AddressSpace::WorkGroup => {
                    let inner = &module.types[variable.ty].inner;
                    found.workgroup_bytes += inner.size(module.to_ctx());
                }
                _ => {}
            }
        }
        found
    }

    #[test]
    fn generated_kernels_require_what_they_declare() -> Result<()> {
        let sizes = Sizes {
            batch: 1,
            m: 64,
            n: 32,
            k: 64,
        };
        let [lhs, rhs] = [[64 * 64, 64, 1], [64 * 32, 32, 1]].map(|strides| View::new(0, strides));
        let mut seen = 0;
        for subgroup_size in [None, Some(4), Some(32), Some(128)] {
            let capabilities = Capabilities {
                subgroup_size,
                textures: true,
                wide_loads: true,
                large_workgroups: true,
                software: false,
            };
            for family in Family::all(&capabilities) {
                let store = Store::new(sizes, None, None)?;
                let product = kernel(sizes, &lhs, &rhs, family, &store)?;
                let before = product.before.iter().flat_map(|before| &before.kernels);
                for kernel in before.map(|(kernel, _)| kernel).chain([&product]) {
                    let found = declared(kernel, &capabilities);
                    assert_eq!(kernel.requirements(), found, "{family}");
                    seen += 1;
                }
            }
        }
        assert!(seen > 20, "only {seen}");
        let sizes = gather::Sizes {
            rows: 3,
            width: 5,
            count: 7,
        };
        for scatter in [false, true] {
            let kernel = gather::kernel(scatter, sizes, false)?;
            let found = declared(&kernel, &Capabilities::default());
            assert_eq!(kernel.requirements(), found);
        }
        Ok(())
    }

    /// No face states more than every WebGPU device grants.
    #[test]
    fn stated_requirements_are_within_the_defaults() -> Result<()> {
        for (kernel, requirements) in requirements::stated() {
            requirements.check(kernel, &wgpu::Limits::default())?;
            let small = requirements.check(kernel, &wgpu::Limits::downlevel_defaults());
            let few = ["cg/ends", "cg/largest"].contains(&kernel);
            let large = kernel.starts_with("cg/") && !few || kernel == "step/decide";
            assert_eq!(small.is_err(), large, "{kernel}");
        }
        Ok(())
    }

    #[test]
    fn regions_are_replaced_and_missing_ones_are_errors() {
        let text = "a\n//<x\nold\n//>\nb\n//<y\n//>\n";
        assert_eq!(
            fill(text, &[("y", "Y"), ("x", "X")]).ok().as_deref(),
            Some("a\nX\nb\nY\n")
        );
        assert!(fill(text, &[("z", "Z")]).is_err());
    }
}
