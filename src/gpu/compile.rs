//! From WGSL to compiled kernels, each compiled once per device.

use std::fmt::Write as _;
use std::sync::Arc;

use super::device::Gpu;
use super::health::{Request, lock};
use super::pipeline::Pipeline;
use super::requirements::Requirements;
use crate::error::Result;

impl Gpu {
    /// The kernel with this WGSL and these values for its `override` constants, compiled at the first call and shared
    /// from then on. Kernels that no recording holds are forgotten beyond a thousand.
    ///
    /// Workgroup memory is *not* set to zero at the start of a kernel.
    ///
    /// # Errors
    /// [`Error::Shader`](crate::Error::Shader) with the reason and the numbered WGSL, [`Error::DeviceLost`](crate::Error::DeviceLost).
    pub fn pipeline(
        &self,
        label: &str,
        source: &str,
        constants: &[(&str, f64)],
    ) -> Result<Arc<Pipeline>> {
        self.check()?;
        let key = cache_key(source, constants);
        if let Some(pipeline) = lock(&self.shared.pipelines).get(&key) {
            return Ok(pipeline);
        }
        // Compiled without the lock, so that threads compile side by side; the first to finish is the one kept.
        let pipeline = Arc::new(self.compile(label, source, constants)?);
        Ok(lock(&self.shared.pipelines).keep(key, pipeline))
    }

    /// Whether the kernel with this WGSL and no constants is compiled.
    pub(crate) fn knows(&self, source: &str) -> bool {
        lock(&self.shared.pipelines).get(source).is_some()
    }

    /// Number of kernels compiled so far.
    #[must_use]
    pub fn pipelines(&self) -> usize {
        lock(&self.shared.pipelines).made()
    }

    /// As [`pipeline`](Self::pipeline), once it is clear that the device grants what the kernel requires.
    ///
    /// # Errors
    /// [`Error::OverLimit`](crate::Error::OverLimit) where it does not; those of [`pipeline`](Self::pipeline).
    pub(crate) fn kernel(
        &self,
        label: &str,
        source: &str,
        constants: &[(&str, f64)],
        requirements: Requirements,
    ) -> Result<Arc<Pipeline>> {
        requirements.check(label, self.limits())?;
        self.pipeline(label, source, constants)
    }

    fn compile(&self, label: &str, source: &str, constants: &[(&str, f64)]) -> Result<Pipeline> {
        let device = self.device();
        let request = || Request::Kernel {
            label: label.into(),
            source: source.into(),
        };
        let descriptor = wgpu::ShaderModuleDescriptor {
            label: Some(label),
            source: wgpu::ShaderSource::Wgsl(source.into()),
        };
        let module = self.guarded(|| device.create_shader_module(descriptor), request)?;
        let make = || {
            let raw = device.create_compute_pipeline(&wgpu::ComputePipelineDescriptor {
                label: Some(label),
                layout: None,
                module: &module,
                entry_point: Some("main"),
                compilation_options: wgpu::PipelineCompilationOptions {
                    constants,
                    zero_initialize_workgroup_memory: false,
                },
                cache: None,
            });
            let layout = raw.get_bind_group_layout(0);
            (raw, layout)
        };
        let (raw, layout) = self.guarded(make, request)?;
        Ok(Pipeline::of(label, raw, layout))
    }
}

/// Equal for equal source and constants, in whatever order the constants come.
fn cache_key(source: &str, constants: &[(&str, f64)]) -> String {
    let mut constants = constants.to_vec();
    constants.sort_by(|a, b| a.0.cmp(b.0));
    let mut key = source.to_owned();
    for (name, value) in constants {
        // By bits, because -0.0 and 0.0 are equal and different constants.
        // Writing to a `String` cannot fail.
        let _ = write!(key, "\0{name}={:x}", value.to_bits());
    }
    key
}
