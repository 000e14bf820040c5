//! What a kernel asks of a device, and whether the device grants it.

use crate::error::{Error, Result};

/// The resources of a kernel that WebGPU limits.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Requirements {
    /// Storage buffers that it binds.
    pub storage_buffers: u32,
    /// Invocations of a workgroup, all in one dimension.
    pub invocations: u32,
    /// Bytes of workgroup memory.
    pub workgroup_bytes: u32,
}

impl Requirements {
    /// Those of the smallest kernels, without which nothing can be computed.
    pub(crate) const LEAST: Self = Self::new(4, 64, 0);

    /// So many storage buffers, invocations and bytes.
    pub(crate) const fn new(storage_buffers: u32, invocations: u32, workgroup_bytes: u32) -> Self {
        Self {
            storage_buffers,
            invocations,
            workgroup_bytes,
        }
    }

    /// What serves both.
    #[must_use]
    pub(crate) fn largest(self, other: Self) -> Self {
        Self {
            storage_buffers: self.storage_buffers.max(other.storage_buffers),
            invocations: self.invocations.max(other.invocations),
            workgroup_bytes: self.workgroup_bytes.max(other.workgroup_bytes),
        }
    }

    /// Fails where the limits of a device are below what `kernel` requires.
    ///
    /// # Errors
    /// [`Error::OverLimit`] naming the kernel, the limit, and what to do.
    pub fn check(&self, kernel: &str, limits: &wgpu::Limits) -> Result<()> {
        const ADVICE: &str = "request the device with the adapter's own limits (adapter.limits()), or use a method that needs less: \
                              gradients, SGD, Adam and low-rank methods run on every device with four storage buffers";
        let requirements = [
            (
                self.storage_buffers,
                "max_storage_buffers_per_shader_stage",
                limits.max_storage_buffers_per_shader_stage,
            ),
            (
                self.invocations,
                "max_compute_invocations_per_workgroup",
                limits.max_compute_invocations_per_workgroup,
            ),
            (
                self.invocations,
                "max_compute_workgroup_size_x",
                limits.max_compute_workgroup_size_x,
            ),
            (
                self.workgroup_bytes,
                "max_compute_workgroup_storage_size",
                limits.max_compute_workgroup_storage_size,
            ),
        ];
        match requirements
            .into_iter()
            .find(|(needed, _, limit)| needed > limit)
        {
            None => Ok(()),
            Some((needed, limit_name, limit)) => Err(Error::OverLimit {
                what: format!("kernel '{kernel}'"),
                needed: needed.into(),
                limit_name,
                limit: limit.into(),
                advice: ADVICE,
            }),
        }
    }
}
