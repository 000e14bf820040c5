//! [`Gpu`]: one device with everything that belongs to it.

use std::collections::HashMap;
use std::fmt;
use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};

use super::adapter::{AdapterDescription, AdapterOptions};
use super::health::{Health, device_error, scoped};
use super::pipeline::Pipeline;
use super::readback::StagingPool;
use super::recording::Recorder;
use crate::error::{Error, Result};
use crate::kernels::tuning::{Capabilities, Tuning};

/// A device with its queue, limits, compiled kernels and readback buffers. Cloning shares all of it.
#[derive(Clone)]
pub struct Gpu {
    pub(super) shared: Arc<Shared>,
    tuning: Arc<Tuning>,
}

/// What the clones of a [`Gpu`] share.
pub(super) struct Shared {
    pub(super) device: wgpu::Device,
    pub(super) queue: wgpu::Queue,
    pub(super) limits: wgpu::Limits,
    features: wgpu::Features,
    info: AdapterDescription,
    health: Arc<Health>,
    pub(super) pipelines: Mutex<HashMap<String, Arc<Pipeline>>>,
    pub(super) staging: StagingPool,
    /// Textures by place among the operands of a kernel and by number of rows.
    pub(super) texels: Mutex<HashMap<(usize, u32), wgpu::Texture>>,
    pub(super) readbacks: AtomicU64,
    pub(super) looks: AtomicU64,
    pub(super) submissions: AtomicU64,
}

impl Gpu {
    /// A device on the adapter that the environment asks for, or on the best one; see [`AdapterOptions::from_env`].
    ///
    /// # Errors
    /// As [`Gpu::request`].
    pub fn new() -> Result<Self> {
        Self::request(&AdapterOptions::from_env())
    }

    /// A device on the best adapter that fits the options, with all of the adapter's limits and features except
    /// experimental ones and `MAPPABLE_PRIMARY_BUFFERS`, which slows discrete GPUs down.
    ///
    /// When several adapters fit and the best gives no device, the next is tried, with a warning in the log.
    ///
    /// # Errors
    /// [`Error::Option`] for an unknown backend name or a tuning that does not fit, [`Error::NoAdapter`] when nothing fits,
    /// [`Error::NoDevice`] when no adapter that fits gives a device.
    pub fn request(options: &AdapterOptions) -> Result<Self> {
        Self::first(options)?.with_tuning_from_env()
    }

    /// As [`request`](Self::request), with this choice of kernels for matrix products whatever `OSCULANT_TUNING` says; see
    /// [`with_tuning`](Self::with_tuning).
    ///
    /// # Errors
    /// Those of [`request`](Self::request) and [`with_tuning`](Self::with_tuning).
    pub fn request_tuned(options: &AdapterOptions, tuning: Tuning) -> Result<Self> {
        Self::first(options)?.with_tuning(tuning)
    }

    fn first(options: &AdapterOptions) -> Result<Self> {
        let mut first_error = None;
        for adapter in options.candidates()? {
            match Self::open(&adapter) {
                Ok(gpu) => return Ok(gpu),
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

    fn open(adapter: &wgpu::Adapter) -> Result<Self> {
        let features = adapter.features()
            - wgpu::Features::MAPPABLE_PRIMARY_BUFFERS
            - wgpu::Features::all_experimental_mask();
        let (device, queue) = pollster::block_on(adapter.request_device(&wgpu::DeviceDescriptor {
            label: Some("osculant"),
            required_features: features,
            required_limits: adapter.limits(),
            // Buffers here are few, large and long-lived: big pools would only be memory set aside.
            memory_hints: wgpu::MemoryHints::MemoryUsage,
            ..Default::default()
        }))
        .map_err(|error| Error::NoDevice {
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
    /// [`Error::Unsupported`] if the device cannot run compute shaders, [`Error::Option`] for a tuning that does not fit,
    /// [`Error::DeviceLost`] if the device is gone.
    pub fn from_wgpu(device: wgpu::Device, queue: wgpu::Queue) -> Result<Self> {
        Self::assemble(device, queue, Arc::default())?.with_tuning_from_env()
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
                pipelines: Mutex::default(),
                staging: StagingPool::default(),
                texels: Mutex::default(),
                readbacks: AtomicU64::new(0),
                looks: AtomicU64::new(0),
                submissions: AtomicU64::new(0),
            }),
            tuning: Arc::default(),
        };
        gpu.check()?;
        Ok(gpu)
    }

    /// The same device with this choice of kernels for matrix products; programs compiled before keep theirs.
    ///
    /// A new `Gpu` has the built-in rules, or what the environment variable `OSCULANT_TUNING` asks for: the name of a file that `osculant tune` wrote, or
    /// `forced:` and the beginning of a kernel's name.
    ///
    /// # Errors
    /// [`Error::Option`] if the tuning was measured on another adapter.
    pub fn with_tuning(&self, tuning: Tuning) -> Result<Self> {
        tuning.check(self.info())?;
        Ok(Self {
            shared: Arc::clone(&self.shared),
            tuning: Arc::new(tuning),
        })
    }

    fn with_tuning_from_env(&self) -> Result<Self> {
        self.with_tuning(Tuning::from_env(&Capabilities::of(self))?)
    }

    /// The choice of kernels for matrix products.
    #[must_use]
    pub fn tuning(&self) -> &Tuning {
        &self.tuning
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

    /// Alignment of a binding's offset, in elements of four bytes; at least 1.
    #[must_use]
    pub fn alignment(&self) -> usize {
        (self.shared.limits.min_storage_buffer_offset_alignment as usize)
            .div_ceil(4)
            .max(1)
    }

    /// Records commands and submits them. An empty recording submits an empty command buffer.
    ///
    /// # Errors
    /// [`Error::Gpu`] if wgpu refuses a command, [`Error::OutOfMemory`], [`Error::DeviceLost`].
    pub fn submit(&self, record: impl FnOnce(&mut Recorder<'_>)) -> Result<()> {
        self.try_submit(|recorder| {
            record(recorder);
            Ok(())
        })
    }

    /// As [`submit`](Self::submit) where recording itself may fail: then nothing is submitted.
    ///
    /// # Errors
    /// Those of `record`, and those of [`submit`](Self::submit).
    pub fn try_submit<T>(&self, record: impl FnOnce(&mut Recorder<'_>) -> Result<T>) -> Result<T> {
        self.submit_indexed(record).map(|(value, _)| value)
    }

    pub(super) fn submit_indexed<T>(
        &self,
        record: impl FnOnce(&mut Recorder<'_>) -> Result<T>,
    ) -> Result<(T, wgpu::SubmissionIndex)> {
        self.check()?;
        let (outcome, error) = scoped(self.device(), || {
            let mut encoder =
                self.device()
                    .create_command_encoder(&wgpu::CommandEncoderDescriptor {
                        label: Some("osculant"),
                    });
            let mut recorder = Recorder::new(&mut encoder);
            let value = record(&mut recorder)?;
            drop(recorder);
            Ok((value, self.queue().submit([encoder.finish()])))
        });
        self.shared.health.check_reported()?;
        let outcome = outcome?;
        self.shared.submissions.fetch_add(1, Ordering::Relaxed);
        match error {
            Some(error) => Err(device_error("submitted commands", &error)),
            None => Ok(outcome),
        }
    }

    /// Waits until everything submitted so far has run.
    ///
    /// # Errors
    /// [`Error::DeviceLost`].
    pub fn wait(&self) -> Result<()> {
        self.check()?;
        self.poll(wgpu::PollType::wait_indefinitely())
    }

    pub(super) fn poll(&self, kind: wgpu::PollType) -> Result<()> {
        // wgpu 30 panics in `poll` when the driver reports a lost device; it holds no lock at that point.
        match catch_unwind(AssertUnwindSafe(|| self.device().poll(kind))) {
            Ok(Ok(_)) => self.shared.health.check_reported(),
            Ok(Err(error)) => {
                self.check()?;
                Err(Error::Gpu {
                    what: "waiting for the device".into(),
                    message: error.to_string(),
                })
            }
            Err(panic) => {
                self.check()?;
                // Not a lost device: it is the panic of somebody's callback, and not ours to swallow.
                resume_unwind(panic)
            }
        }
    }

    /// Fails if the device is lost, or if a command outside this crate's error scopes went wrong since the last
    /// check (on devices made by this crate). Every operation begins with this check.
    ///
    /// # Errors
    /// [`Error::DeviceLost`], [`Error::Gpu`].
    pub fn check(&self) -> Result<()> {
        self.shared.health.check(self.device())
    }
}

impl fmt::Debug for Gpu {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "Gpu({})", self.shared.info)
    }
}
