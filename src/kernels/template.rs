//! Kernel texts with replaceable regions.
//!
//! A file in `shaders/` is valid WGSL as it stands (the build validates it). A region between a line `//<name` and the next `//>` holds a
//! default that a generated kernel replaces.

use crate::error::{Error, Result};
use crate::gpu::{Binding, Gpu, Recording, Slice, grid};

/// A generated kernel: entry point `main`, binding 0 the result, bindings 1.. the operands.
#[derive(Clone, Debug)]
pub(crate) struct Kernel {
    pub(crate) label: &'static str,
    pub(crate) text: String,
    /// Workgroups of 64 invocations; how many of them in which dimension does not matter.
    pub(crate) workgroups: usize,
    /// Operands that are read as textures: number of the binding, and how many of its elements are read, a multiple of four.
    pub(crate) textures: Vec<(usize, usize)>,
}

/// Where the rows (axis 0) of a result lie, if not one after another: `elements` each, `pitch` elements apart.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Rows {
    pub(crate) elements: usize,
    pub(crate) pitch: usize,
}

impl Kernel {
    /// Adds a run of the kernel to a recording.
    pub(crate) fn record(
        &self,
        gpu: &Gpu,
        recording: &mut Recording,
        bindings: &[&Slice],
    ) -> Result<()> {
        let pipeline = gpu.pipeline(self.label, &self.text, &[])?;
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
