//! [`Gpu`]: one device with everything that belongs to it.

use std::collections::HashMap;
use std::fmt;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use super::adapter::{AdapterDescription, AdapterOptions};
use super::health::Health;
use super::idle::Idle;
use super::pipeline::Pipeline;
use super::requirements::Requirements;
use super::staging::StagingPool;
use crate::error::{Error, Result};
#[cfg(not(target_arch = "wasm32"))]
use crate::kernels::tuning::Capabilities;
use crate::kernels::tuning::Tuning;

/// A device with its queue, limits, compiled kernels and readback buffers. Cloning shares all of it.
#[derive(Clone)]
pub struct Gpu {
    pub(super) shared: Arc<Shared>,
    tuning: Arc<Tuning>,
    timeout: Duration,
}

/// Compiled kernels that are kept although no recording holds them.
const IDLE_KERNELS: usize = 1024;

/// How long a wait for the device may take unless told otherwise.
const TIMEOUT: Duration = Duration::from_secs(60);

/// Longer waits are cut to this, ten years, which the clocks of all drivers can count.
const LONGEST_WAIT: Duration = Duration::from_secs(10 * 365 * 86_400);

/// What the clones of a [`Gpu`] share.
pub(super) struct Shared {
    pub(super) device: wgpu::Device,
    pub(super) queue: wgpu::Queue,
    pub(super) limits: wgpu::Limits,
    features: wgpu::Features,
    info: AdapterDescription,
    pub(super) health: Arc<Health>,
    pub(super) pipelines: Mutex<Idle<Pipeline>>,
    pub(super) staging: StagingPool,
    pub(super) sizes: Mutex<super::sizes::Known>,
    /// Textures by place among the operands of a kernel and by number of rows.
    pub(super) texels: Mutex<HashMap<(usize, u32), wgpu::Texture>>,
    pub(super) readbacks: AtomicU64,
    pub(super) looks: AtomicU64,
    pub(super) submissions: AtomicU64,
    /// Bytes of all buffers made so far.
    pub(super) allocated: AtomicU64,
    #[cfg(not(target_arch = "wasm32"))]
    pub(super) driver: super::driver::Driver,
    #[cfg(feature = "fault-injection")]
    pub(super) faults: super::faults::Faults,
}

impl Gpu {
    /// A device on the adapter that the environment asks for, or on the best one; see [`AdapterOptions::from_env`].
    ///
    /// # Errors
    /// As [`Gpu::request`].
    #[cfg(not(target_arch = "wasm32"))]
    pub fn new() -> Result<Self> {
        super::blocking(Self::new_async())
    }

    /// As [`new`](Self::new), without blocking the thread.
    ///
    /// # Errors
    /// As there.
    pub async fn new_async() -> Result<Self> {
        Self::request_async(&AdapterOptions::from_env()).await
    }

    /// A device on the best adapter that fits the options, with all of the adapter's limits and features except
    /// experimental ones and `MAPPABLE_PRIMARY_BUFFERS`, which slows discrete GPUs down.
    ///
    /// When several adapters fit and the best gives no device, the next is tried, with a warning in the log.
    ///
    /// # Errors
    /// [`Error::Option`] for an unknown backend name, a tuning that does not fit or a time-out that is none, [`Error::NoAdapter`] when
    /// nothing fits, [`Error::NoDevice`] when no adapter that fits gives a device.
    #[cfg(not(target_arch = "wasm32"))]
    pub fn request(options: &AdapterOptions) -> Result<Self> {
        super::blocking(Self::request_async(options))
    }

    /// As [`request`](Self::request), without blocking the thread.
    ///
    /// # Errors
    /// As there.
    pub async fn request_async(options: &AdapterOptions) -> Result<Self> {
        Self::first(options).await?.with_tuning_from_env()
    }

    /// As [`request`](Self::request), with this choice of kernels for matrix products whatever `OSCULANT_TUNING` says; see
    /// [`with_tuning`](Self::with_tuning).
    ///
    /// # Errors
    /// Those of [`request`](Self::request) and [`with_tuning`](Self::with_tuning).
    #[cfg(not(target_arch = "wasm32"))]
    pub fn request_tuned(options: &AdapterOptions, tuning: Tuning) -> Result<Self> {
        super::blocking(Self::request_tuned_async(options, tuning))
    }

    /// As [`request_tuned`](Self::request_tuned), without blocking the thread.
    ///
    /// # Errors
    /// As there.
    pub async fn request_tuned_async(options: &AdapterOptions, tuning: Tuning) -> Result<Self> {
        Self::first(options).await?.with_tuning(tuning)
    }

    async fn first(options: &AdapterOptions) -> Result<Self> {
        let mut first_error = None;
        let timeout = match options.timeout {
            Some(timeout) => timeout,
            None => timeout_from(|key| std::env::var(key).ok())?,
        };
        for adapter in options.candidates().await? {
            match Self::open(&adapter).await {
                Ok(gpu) => return gpu.with_timeout(timeout),
                Err(error) => {
                    log::warn!("{error}");
                    first_error.get_or_insert(error);
                }
            }
        }
        Err(first_error.unwrap_or_else(|| Error::NoAdapter {
            request: String::new(),
            present: "none".into(),
            hint: "Install your GPU's driver".into(),
        }))
    }

    async fn open(adapter: &wgpu::Adapter) -> Result<Self> {
        let features = adapter.features()
            - wgpu::Features::MAPPABLE_PRIMARY_BUFFERS
            - wgpu::Features::all_experimental_mask();
        let descriptor = wgpu::DeviceDescriptor {
            label: Some("osculant"),
            required_features: features,
            required_limits: adapter.limits(),
            // Buffers here are few, large and long-lived: big pools would only be memory set aside.
            memory_hints: wgpu::MemoryHints::MemoryUsage,
            ..Default::default()
        };
        let device = adapter.request_device(&descriptor).await;
        let (device, queue) = device.map_err(|error| Error::NoDevice {
            adapter: adapter.get_info().name,
            message: error.to_string(),
        })?;
        let health = Arc::new(Health::default());
        health.listen(&device);
        Self::assemble(device, queue, health)
    }

    /// Shares a device that exists already, for example that of a training loop.
    ///
    /// The device's limits and features are taken as they are, and no callback is installed on it: the caller keeps
    /// `on_uncaptured_error` and `set_device_lost_callback`.
    ///
    /// # Errors
    /// [`Error::Unsupported`] if the device cannot run compute shaders, [`Error::OverLimit`] if it grants less than four storage buffers or
    /// workgroups of 64 invocations, which is what the smallest kernels need, [`Error::Option`] for a tuning that does not fit or a
    /// time-out that is none, [`Error::DeviceLost`] if the device is gone.
    pub fn from_wgpu(device: wgpu::Device, queue: wgpu::Queue) -> Result<Self> {
        let timeout = timeout_from(|key| std::env::var(key).ok())?;
        Self::assemble(device, queue, Arc::default())?
            .with_timeout(timeout)?
            .with_tuning_from_env()
    }

    fn assemble(device: wgpu::Device, queue: wgpu::Queue, health: Arc<Health>) -> Result<Self> {
        let limits = device.limits();
        let features = device.features();
        let info = AdapterDescription::new(&device.adapter_info(), &limits, features);
        if limits.max_compute_invocations_per_workgroup == 0
            || limits.max_storage_buffers_per_shader_stage == 0
        {
            return Err(Error::Unsupported {
                what: format!("computing on {info}"),
                message: "the device has no compute shaders; take another adapter, or request the device with \
                          compute limits (for example the adapter's own)"
                    .into(),
            });
        }
        let gpu = Self {
            shared: Arc::new(Shared {
                device,
                queue,
                limits,
                features,
                info,
                health,
                pipelines: Mutex::new(Idle::new(IDLE_KERNELS)),
                staging: StagingPool::default(),
                sizes: Mutex::default(),
                texels: Mutex::default(),
                readbacks: AtomicU64::new(0),
                looks: AtomicU64::new(0),
                #[cfg(feature = "fault-injection")]
                faults: super::faults::Faults::default(),
                submissions: AtomicU64::new(0),
                allocated: AtomicU64::new(0),
                #[cfg(not(target_arch = "wasm32"))]
                driver: super::driver::Driver::default(),
            }),
            tuning: Arc::default(),
            timeout: TIMEOUT,
        };
        gpu.check()?;
        Requirements::LEAST.check("combine", gpu.limits())?;
        Ok(gpu)
    }

    /// The same device with this choice of kernels for matrix products; programs compiled before keep theirs.
    ///
    /// A new `Gpu` has the built-in rules, or what the environment variable `OSCULANT_TUNING` asks for: the name of a file that `osculant
    /// tune` wrote, or `forced:` and the beginning of a kernel's name.
    ///
    /// # Errors
    /// [`Error::Option`] if the tuning was measured on another adapter.
    pub fn with_tuning(&self, tuning: Tuning) -> Result<Self> {
        tuning.check(self.info())?;
        Ok(Self {
            tuning: Arc::new(tuning),
            ..self.clone()
        })
    }

    /// The same device, on which a wait may take so long before it ends with [`Error::Timeout`]; what was made before keeps its own.
    ///
    /// A new `Gpu` waits for [`AdapterOptions::timeout`], or as many seconds as the environment variable `OSCULANT_TIMEOUT` says, or 60 s.
    /// After a time-out the device goes on with what was submitted, and the `Gpu` can be used again once that ends.
    ///
    /// # Errors
    /// [`Error::Option`] for no time at all.
    pub fn with_timeout(&self, timeout: Duration) -> Result<Self> {
        if timeout.is_zero() {
            return Err(Error::Option {
                option: "timeout".into(),
                message: "nothing can be waited for in 0 s; give a time above 0".into(),
            });
        }
        Ok(Self {
            timeout: timeout.min(LONGEST_WAIT),
            ..self.clone()
        })
    }

    /// How long a wait may take; see [`with_timeout`](Self::with_timeout).
    #[must_use]
    pub fn timeout(&self) -> Duration {
        self.timeout
    }

    fn with_tuning_from_env(&self) -> Result<Self> {
        #[cfg(not(target_arch = "wasm32"))]
        return self.with_tuning(Tuning::from_env(&Capabilities::of(self))?);
        #[cfg(target_arch = "wasm32")]
        Ok(self.clone())
    }

    /// The choice of kernels for matrix products.
    #[must_use]
    pub fn tuning(&self) -> &Tuning {
        &self.tuning
    }

    /// Whether one is a clone of the other. Two that were made of one wgpu device are not: wgpu gives devices of different instances equal
    /// numbers, so their buffers could not be told apart.
    pub(crate) fn is_same(&self, other: &Self) -> bool {
        Arc::ptr_eq(&self.shared, &other.shared)
    }

    /// The wgpu device.
    #[must_use]
    pub fn device(&self) -> &wgpu::Device {
        &self.shared.device
    }

    /// The wgpu queue.
    #[must_use]
    pub fn queue(&self) -> &wgpu::Queue {
        &self.shared.queue
    }

    /// The device's limits.
    #[must_use]
    pub fn limits(&self) -> &wgpu::Limits {
        &self.shared.limits
    }

    /// The device's features.
    #[must_use]
    pub fn features(&self) -> wgpu::Features {
        self.shared.features
    }

    /// The adapter's name, backend, driver and kind, with the limits and features of this device.
    #[must_use]
    pub fn info(&self) -> &AdapterDescription {
        &self.shared.info
    }

    /// Bytes of all buffers that [`buffer`](Self::buffer) and its like made so far, those that are gone again included: its difference is what
    /// something made between two calls takes on the device. What data travel in is not counted.
    #[must_use]
    pub fn allocated(&self) -> u64 {
        self.shared.allocated.load(Ordering::Relaxed)
    }

    /// Alignment of a binding's offset, in elements of four bytes; at least 1.
    #[must_use]
    pub fn alignment(&self) -> usize {
        (self.shared.limits.min_storage_buffer_offset_alignment as usize)
            .div_ceil(4)
            .max(1)
    }

    /// Waits on this thread for a submission, or for all of them; `what` names it for the error of a time-out.
    #[cfg(not(target_arch = "wasm32"))]
    pub(super) fn wait_for(
        &self,
        submission_index: Option<wgpu::SubmissionIndex>,
        what: impl FnOnce() -> String,
    ) -> Result<()> {
        self.count_operation()?;
        let wait = wgpu::PollType::Wait {
            submission_index,
            timeout: Some(self.timeout),
        };
        if self.shared.health.poll(self.device(), wait)? {
            return Ok(());
        }
        self.check()?;
        Err(self.timed_out(what()))
    }

    /// Lets wgpu hand over what has finished, without waiting for anything. A browser does that by itself.
    pub(super) fn poll(&self) -> Result<()> {
        self.count_operation()?;
        #[cfg(not(target_arch = "wasm32"))]
        self.shared
            .health
            .poll(self.device(), wgpu::PollType::Poll)?;
        self.shared.health.check_reported()
    }

    /// Counts an operation that a test may let fail.
    pub(super) fn count_operation(&self) -> Result<()> {
        #[cfg(feature = "fault-injection")]
        self.shared.faults.check()?;
        Ok(())
    }

    #[cfg(not(target_arch = "wasm32"))]
    pub(super) fn timed_out(&self, what: String) -> Error {
        Error::Timeout {
            what,
            seconds: self.timeout.as_secs_f64(),
        }
    }

    /// Fails if the device is lost, or if a command outside this crate's error scopes went wrong since the last
    /// check (on devices made by this crate). Every operation begins with this check.
    ///
    /// # Errors
    /// [`Error::DeviceLost`], [`Error::Gpu`].
    pub fn check(&self) -> Result<()> {
        self.count_operation()?;
        let health = &self.shared.health;
        #[cfg(not(target_arch = "wasm32"))]
        return health.check(self.device());
        #[cfg(target_arch = "wasm32")]
        health.check()
    }
}

/// The time-out that the environment asks for, or the usual one.
pub(super) fn timeout_from(variable: impl Fn(&str) -> Option<String>) -> Result<Duration> {
    const NAME: &str = "OSCULANT_TIMEOUT";
    let Some(text) = variable(NAME).filter(|text| !text.trim().is_empty()) else {
        return Ok(TIMEOUT);
    };
    let seconds = text.trim().parse().ok().filter(|seconds| *seconds > 0.0);
    let longest = LONGEST_WAIT.as_secs_f64();
    match seconds.map(|seconds: f64| Duration::try_from_secs_f64(seconds.min(longest))) {
        Some(Ok(timeout)) if !timeout.is_zero() => Ok(timeout),
        _ => Err(Error::Option {
            option: NAME.into(),
            message: format!(
                "'{text}' is not a time in seconds; give a number above 0, for example 300"
            ),
        }),
    }
}

impl fmt::Debug for Gpu {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "Gpu({})", self.shared.info)
    }
}
