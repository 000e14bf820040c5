//! A kernel to be compiled.

use std::collections::HashSet;

/// A text with values for its `override` constants.
#[derive(Clone, Debug)]
pub(crate) struct Listed {
    /// The file in `shaders/`, or what a generated kernel does.
    pub(crate) family: String,
    /// What distinguishes it within its family.
    pub(crate) name: String,
    pub(crate) text: String,
    pub(crate) constants: Vec<(String, f64)>,
}

impl Listed {
    /// Invocations of a workgroup.
    pub(crate) fn invocations(&self) -> Result<u32, String> {
        let module = naga::front::wgsl::parse_str(&self.text)
            .map_err(|error| error.emit_to_string(&self.text))?;
        let entry = module
            .entry_points
            .first()
            .ok_or_else(|| format!("{} has no entry point", self.family))?;
        Ok(entry.workgroup_size.iter().product())
    }
}

/// The first of those with equal text and constants.
pub(crate) fn distinct(kernels: Vec<Listed>) -> Vec<Listed> {
    let mut seen = HashSet::new();
    kernels
        .into_iter()
        .filter(|kernel| seen.insert(format!("{:?}{}", kernel.constants, kernel.text)))
        .collect()
}
