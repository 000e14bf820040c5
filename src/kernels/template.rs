//! Kernel texts with replaceable regions.
//!
//! A file in `shaders/` is valid WGSL as it stands (the build validates it). A region between a line `//<name` and the next `//>` holds a
//! default that a generated kernel replaces.

use super::dot::Capabilities;
use super::four::four;
use crate::error::{Error, Result};
use crate::gpu::{Binding, Gpu, Recording, Slice, grid};

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
    /// What runs before it. Both have the same operands, but this kernel's first one takes the place of the two that only the other reads.
    pub(crate) before: Option<Box<Before>>,
}

/// A kernel whose result only the next one reads.
#[derive(Clone, Debug)]
pub(crate) struct Before {
    pub(crate) kernel: Kernel,
    /// Elements of the result.
    pub(crate) elements: usize,
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

    /// Elements that it needs for the result of the kernel before it.
    pub(crate) fn scratch_elements(&self) -> usize {
        self.before.as_ref().map_or(0, |before| before.elements)
    }

    /// Adds a run of the kernel to a recording; `scratch` holds [`scratch_elements`](Self::scratch_elements), where it needs any.
    pub(crate) fn record(
        &self,
        gpu: &Gpu,
        recording: &mut Recording,
        bindings: &[&Slice],
        scratch: Option<&Slice>,
    ) -> Result<()> {
        let mut bindings = bindings.to_vec();
        if let (Some(before), Some(scratch)) = (&self.before, scratch) {
            let partial = scratch.slice(0..before.elements)?;
            before
                .kernel
                .record(gpu, recording, &[&partial, bindings[1], bindings[2]], None)?;
            bindings.splice(1..3, [scratch]);
        }
        let pipeline = gpu.pipeline(self.label, &self.source(&Capabilities::of(gpu)), &[])?;
        let mut resources = Vec::with_capacity(bindings.len());
        for (number, &slice) in bindings.iter().enumerate() {
            let texture = self.textures.iter().find(|(binding, _)| *binding == number);
            resources.push(match texture {
                Some(&(_, elements)) => Binding::Texels(gpu.texels(slice, number, elements)?),
                None => Binding::Slice(slice),
            });
        }
        recording.dispatch_bindings(
            gpu,
            &pipeline,
            &resources,
            grid(gpu.limits(), self.workgroups)?,
        )
    }
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
    use super::fill;

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
