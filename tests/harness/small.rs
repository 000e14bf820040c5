//! Synthetic small adapters: devices of a real one that grant little.

use osculant::gpu::Gpu;

type Any = Box<dyn std::error::Error>;

/// What a small adapter grants.
pub(crate) struct Grants {
    /// Follows the label of the adapter that it is made of.
    pub(crate) label: &'static str,
    storage_buffers: u32,
    /// Bytes of a binding.
    binding: u64,
    /// Whether it has the features of the adapter, or none.
    features: bool,
}

/// Workgroups per dimension: above the 256 of a reduction; a vector of more than 76,800 elements spreads over two dimensions where an
/// invocation has four.
const WORKGROUPS: u32 = 300;

/// As small as [`wgpu::Limits::downlevel_defaults`], and as [`wgpu::Limits::default`], but for workgroups and bindings.
pub(crate) const ADAPTERS: [Grants; 2] = [
    Grants {
        label: "small-4",
        storage_buffers: 4,
        binding: 4 << 20,
        features: false,
    },
    Grants {
        label: "small-8",
        storage_buffers: 8,
        binding: 4 << 20,
        features: true,
    },
];

impl Grants {
    /// A device of the adapter of `gpu`.
    pub(crate) fn device(&self, gpu: &Gpu) -> Result<Gpu, Any> {
        let features = if self.features {
            gpu.features()
        } else {
            wgpu::Features::empty()
        };
        let limits = wgpu::Limits {
            max_storage_buffers_per_shader_stage: self.storage_buffers,
            max_compute_workgroups_per_dimension: WORKGROUPS,
            max_storage_buffer_binding_size: self.binding,
            ..wgpu::Limits::downlevel_defaults()
        };
        device(gpu, features, limits)
    }
}

/// Another device of the adapter of `gpu`, with these features and limits.
pub(crate) fn device(
    gpu: &Gpu,
    features: wgpu::Features,
    limits: wgpu::Limits,
) -> Result<Gpu, Any> {
    let instance = wgpu::Instance::new(wgpu::InstanceDescriptor::new_without_display_handle());
    let adapters = pollster::block_on(instance.enumerate_adapters(wgpu::Backends::all()));
    let is_same = |info: &wgpu::AdapterInfo| {
        info.name == gpu.info().name && info.backend.to_str() == gpu.info().backend
    };
    let adapter = adapters
        .iter()
        .find(|adapter| is_same(&adapter.get_info()))
        .ok_or("the adapter is gone")?;
    let descriptor = wgpu::DeviceDescriptor {
        required_features: features,
        required_limits: limits,
        ..Default::default()
    };
    let (device, queue) = pollster::block_on(adapter.request_device(&descriptor))?;
    Ok(Gpu::from_wgpu(device, queue)?.with_timeout(super::PATIENCE)?)
}
