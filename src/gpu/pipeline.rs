//! A compiled kernel.

/// A compiled kernel: entry point `main`, bindings 0, 1, .. of group 0.
///
/// Which bindings are read-only comes from the WGSL. A binding that `main` never uses does not exist for wgpu, so a
/// kernel must use every binding it declares.
#[derive(Debug)]
pub struct Pipeline {
    label: String,
    raw: wgpu::ComputePipeline,
    layout: wgpu::BindGroupLayout,
}

impl Pipeline {
    pub(super) fn of(
        label: &str,
        raw: wgpu::ComputePipeline,
        layout: wgpu::BindGroupLayout,
    ) -> Self {
        Self {
            label: label.into(),
            raw,
            layout,
        }
    }

    /// The label it was first compiled under.
    #[must_use]
    pub fn label(&self) -> &str {
        &self.label
    }

    /// The wgpu pipeline.
    #[must_use]
    pub fn raw(&self) -> &wgpu::ComputePipeline {
        &self.raw
    }

    /// The layout of group 0.
    #[must_use]
    pub fn layout(&self) -> &wgpu::BindGroupLayout {
        &self.layout
    }
}
