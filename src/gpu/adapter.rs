//! Which adapters exist, and which one to take.

use std::cmp::Reverse;
use std::fmt;
use std::time::Duration;

use serde::Serialize;

use crate::error::{Error, Result};

/// The backends this crate asks for: in a browser its own.
const BACKENDS: wgpu::Backends = if cfg!(target_arch = "wasm32") {
    wgpu::Backends::BROWSER_WEBGPU
} else {
    wgpu::Backends::VULKAN
        .union(wgpu::Backends::METAL)
        .union(wgpu::Backends::DX12)
        .union(wgpu::Backends::GL)
};

/// Which adapter to take. The default asks for nothing: the best adapter present, where discrete GPUs come before
/// integrated, virtual, other and software ones, and among equals Vulkan, Metal and DX12 before GL.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct AdapterOptions {
    /// Part of the adapter's name, in any case. Default: any.
    pub name: Option<String>,
    /// `vulkan`, `metal`, `dx12`, `gl`, or in a browser `webgpu`; or several of them with commas. Default: any.
    pub backend: Option<String>,
    /// Position in the list that [`adapters`] returns. Default: the first that fits.
    pub index: Option<usize>,
    /// How long a wait for the device may take before it ends with [`Error::Timeout`]. Default: as many seconds as the environment variable
    /// `OSCULANT_TIMEOUT` says, or 60 s. See [`Gpu::with_timeout`](super::Gpu::with_timeout).
    pub timeout: Option<Duration>,
}

impl AdapterOptions {
    /// Options from the environment: `OSCULANT_ADAPTER` (part of a name) and `OSCULANT_BACKEND`, and where they are
    /// not set wgpu's own `WGPU_ADAPTER_NAME` and `WGPU_BACKEND`.
    #[must_use]
    pub fn from_env() -> Self {
        Self::from_variables(|key| std::env::var(key).ok())
    }

    /// [`from_env`](Self::from_env) with the environment as an argument, so that it can be tested.
    pub(super) fn from_variables(variable: impl Fn(&str) -> Option<String>) -> Self {
        let first = |keys: [&str; 2]| {
            keys.into_iter()
                .filter_map(&variable)
                .map(|value| value.trim().to_owned())
                .find(|value| !value.is_empty())
        };
        Self {
            name: first(["OSCULANT_ADAPTER", "WGPU_ADAPTER_NAME"]),
            backend: first(["OSCULANT_BACKEND", "WGPU_BACKEND"]),
            index: None,
            timeout: None,
        }
    }

    /// Lets a wait for the device take so long.
    #[must_use]
    pub fn with_timeout(mut self, timeout: Duration) -> Self {
        self.timeout = Some(timeout);
        self
    }

    /// Asks for an adapter whose name contains `name`.
    #[must_use]
    pub fn with_name(mut self, name: impl Into<String>) -> Self {
        self.name = Some(name.into());
        self
    }

    /// Asks for a backend: `vulkan`, `metal`, `dx12` or `gl`.
    #[must_use]
    pub fn with_backend(mut self, backend: impl Into<String>) -> Self {
        self.backend = Some(backend.into());
        self
    }

    /// Asks for the adapter at this position of [`adapters`].
    #[must_use]
    pub fn with_index(mut self, index: usize) -> Self {
        self.index = Some(index);
        self
    }

    /// Checks the backend names.
    ///
    /// # Errors
    /// [`Error::Option`] for an unknown name.
    pub fn validate(&self) -> Result<()> {
        self.backends().map(|_| ())
    }

    /// The backends asked for.
    fn backends(&self) -> Result<wgpu::Backends> {
        let Some(names) = &self.backend else {
            return Ok(BACKENDS);
        };
        let mut backends = wgpu::Backends::empty();
        for name in names.split(',') {
            // The aliases are those of wgpu's own WGPU_BACKEND.
            backends |= match name.trim().to_lowercase().as_str() {
                "vulkan" | "vk" => wgpu::Backends::VULKAN,
                "metal" | "mtl" => wgpu::Backends::METAL,
                "dx12" | "d3d12" => wgpu::Backends::DX12,
                "gl" | "gles" | "opengl" => wgpu::Backends::GL,
                "webgpu" if cfg!(target_arch = "wasm32") => wgpu::Backends::BROWSER_WEBGPU,
                _ => {
                    return Err(Error::Option {
                        option: "backend".into(),
                        message: format!(
                            "unknown backend '{name}'; valid are vulkan, metal, dx12, gl"
                        ),
                    });
                }
            };
        }
        Ok(backends)
    }

    /// The adapters that fit, best first; at least one.
    pub(super) async fn candidates(&self) -> Result<Vec<wgpu::Adapter>> {
        let backends = self.backends()?;
        // An index counts in the full list; otherwise backends that nobody asked for need not be started.
        let wanted = if self.index.is_some() {
            BACKENDS
        } else {
            backends
        };
        let name = self.name.as_ref().map(|name| name.to_lowercase());
        let found: Vec<_> = enumerate(wanted)
            .await
            .into_iter()
            .enumerate()
            .filter(|(position, adapter)| {
                let info = adapter.get_info();
                self.index.is_none_or(|index| index == *position)
                    && backends.contains(info.backend.into())
                    && name
                        .as_ref()
                        .is_none_or(|name| info.name.to_lowercase().contains(name))
            })
            .map(|(_, adapter)| adapter)
            .collect();
        if found.is_empty() {
            Err(self.no_adapter().await)
        } else {
            Ok(found)
        }
    }

    async fn no_adapter(&self) -> Error {
        let mut request = String::new();
        if let Some(name) = &self.name {
            request += &format!(" with '{name}' in its name");
        }
        if let Some(backend) = &self.backend {
            request += &format!(" on backend '{backend}'");
        }
        if let Some(index) = self.index {
            request += &format!(" at index {index}");
        }
        let present: Vec<_> = adapters_async()
            .await
            .iter()
            .enumerate()
            .map(|(position, adapter)| format!("[{position}] {adapter}"))
            .collect();
        let hint = if !present.is_empty() {
            "Choose one of these (OSCULANT_ADAPTER, OSCULANT_BACKEND), or ask for nothing to get the first"
        } else if cfg!(target_os = "linux") {
            "On Debian or Ubuntu: apt-get install libvulkan1 mesa-vulkan-drivers (a software Vulkan driver), or install your GPU's driver"
        } else if cfg!(target_arch = "wasm32") {
            "This browser has no WebGPU, or has it switched off; or the page was not fetched over https"
        } else {
            "Install your GPU's driver"
        };
        Error::NoAdapter {
            request,
            present: if present.is_empty() {
                "none".into()
            } else {
                present.join(", ")
            },
            hint: hint.into(),
        }
    }
}

/// What an adapter, or a device made from it, is and can do.
#[derive(Clone, Debug, Serialize)]
#[non_exhaustive]
pub struct AdapterDescription {
    /// The adapter's name, as the driver gives it.
    pub name: String,
    /// `vulkan`, `metal`, `dx12`, `gl` or `webgpu`.
    pub backend: String,
    /// `discrete`, `integrated`, `virtual`, `other` or `cpu`.
    pub device_type: String,
    /// The driver's name.
    pub driver: String,
    /// The driver's version, in its own words.
    pub driver_info: String,
    /// The vendor's number; a PCI vendor id in most cases.
    pub vendor: u32,
    /// The largest range of a buffer that one binding sees, in bytes.
    pub max_storage_buffer_binding_size: u64,
    /// The largest buffer, in bytes.
    pub max_buffer_size: u64,
    /// How many storage buffers one kernel may bind.
    pub max_storage_buffers_per_shader_stage: u32,
    /// Workgroup memory, in bytes.
    pub max_compute_workgroup_storage_size: u32,
    /// Invocations in one workgroup.
    pub max_compute_invocations_per_workgroup: u32,
    /// Alignment of a binding's offset, in bytes.
    pub min_storage_buffer_offset_alignment: u32,
    /// Smallest subgroup; meaningful with the feature `SUBGROUP`.
    pub subgroup_min_size: u32,
    /// Largest subgroup; meaningful with the feature `SUBGROUP`.
    pub subgroup_max_size: u32,
    /// Which of the features that matter here exist: `SUBGROUP`, `SHADER_F16`, `TIMESTAMP_QUERY`.
    pub features: Vec<String>,
}

impl AdapterDescription {
    /// Describes an adapter, or with a device's limits and features a device.
    pub(super) fn new(
        info: &wgpu::AdapterInfo,
        limits: &wgpu::Limits,
        features: wgpu::Features,
    ) -> Self {
        let of_interest =
            wgpu::Features::SUBGROUP | wgpu::Features::SHADER_F16 | wgpu::Features::TIMESTAMP_QUERY;
        Self {
            name: info.name.clone(),
            backend: info.backend.to_str().into(),
            device_type: device_type_name(info.device_type).into(),
            driver: info.driver.clone(),
            driver_info: info.driver_info.clone(),
            vendor: info.vendor,
            max_storage_buffer_binding_size: limits.max_storage_buffer_binding_size,
            max_buffer_size: limits.max_buffer_size,
            max_storage_buffers_per_shader_stage: limits.max_storage_buffers_per_shader_stage,
            max_compute_workgroup_storage_size: limits.max_compute_workgroup_storage_size,
            max_compute_invocations_per_workgroup: limits.max_compute_invocations_per_workgroup,
            min_storage_buffer_offset_alignment: limits.min_storage_buffer_offset_alignment,
            subgroup_min_size: info.subgroup_min_size,
            subgroup_max_size: info.subgroup_max_size,
            features: (features & of_interest)
                .iter_names()
                .map(|(name, _)| name.to_owned())
                .collect(),
        }
    }
}

impl fmt::Display for AdapterDescription {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self {
            name,
            backend,
            device_type,
            driver,
            ..
        } = self;
        write!(formatter, "'{name}' ({backend}, {device_type}")?;
        if !driver.is_empty() {
            write!(formatter, ", driver {driver}")?;
        }
        formatter.write_str(")")
    }
}

/// Every adapter that wgpu finds, best first; a position in this list is what [`AdapterOptions::index`] means.
///
/// Empty when there is no driver.
#[must_use]
#[cfg(not(target_arch = "wasm32"))]
pub fn adapters() -> Vec<AdapterDescription> {
    super::blocking(adapters_async())
}

/// As [`adapters`], without blocking the thread.
pub async fn adapters_async() -> Vec<AdapterDescription> {
    enumerate(BACKENDS)
        .await
        .iter()
        .map(|adapter| {
            AdapterDescription::new(&adapter.get_info(), &adapter.limits(), adapter.features())
        })
        .collect()
}

/// The adapters of these backends, best first, otherwise in the order the drivers give.
async fn enumerate(backends: wgpu::Backends) -> Vec<wgpu::Adapter> {
    let mut descriptor = wgpu::InstanceDescriptor::new_without_display_handle();
    descriptor.backends = backends;
    // wgpu's default turns debugging on in debug builds, which makes those runs slow and noisy.
    descriptor.flags = if std::env::var("OSCULANT_VALIDATION").is_ok_and(|value| value == "1") {
        wgpu::InstanceFlags::debugging()
    } else {
        wgpu::InstanceFlags::empty()
    };
    let instance = wgpu::Instance::new(descriptor);
    let mut adapters = instance.enumerate_adapters(backends).await;
    adapters.sort_by_key(|adapter| {
        let info = adapter.get_info();
        let computes = adapter
            .get_downlevel_capabilities()
            .flags
            .contains(wgpu::DownlevelFlags::COMPUTE_SHADERS);
        (
            Reverse(computes),
            rank(info.device_type),
            info.backend == wgpu::Backend::Gl,
        )
    });
    adapters
}

/// Order of preference of the kinds of device; smaller is better.
fn rank(device_type: wgpu::DeviceType) -> u8 {
    match device_type {
        wgpu::DeviceType::DiscreteGpu => 0,
        wgpu::DeviceType::IntegratedGpu => 1,
        wgpu::DeviceType::VirtualGpu => 2,
        wgpu::DeviceType::Other => 3,
        wgpu::DeviceType::Cpu => 4,
    }
}

fn device_type_name(device_type: wgpu::DeviceType) -> &'static str {
    match device_type {
        wgpu::DeviceType::DiscreteGpu => "discrete",
        wgpu::DeviceType::IntegratedGpu => "integrated",
        wgpu::DeviceType::VirtualGpu => "virtual",
        wgpu::DeviceType::Other => "other",
        wgpu::DeviceType::Cpu => "cpu",
    }
}
