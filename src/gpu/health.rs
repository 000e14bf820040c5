//! Errors of a device: scopes around operations, and whether the device is still there.

use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};

use crate::error::{Error, Result};

/// Locks, also after another thread panicked: what the crate guards stays consistent at every point.
pub(super) fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Runs `work` inside error scopes of all three kinds and gives its value with the first error that it caused.
///
/// All three, because an error that no scope catches panics on a device whose owner set no handler.
pub(super) fn scoped<T>(
    device: &wgpu::Device,
    work: impl FnOnce() -> T,
) -> (T, Option<wgpu::Error>) {
    let internal = device.push_error_scope(wgpu::ErrorFilter::Internal);
    let memory = device.push_error_scope(wgpu::ErrorFilter::OutOfMemory);
    let validation = device.push_error_scope(wgpu::ErrorFilter::Validation);
    let value = work();
    let errors = [validation, memory, internal].map(|scope| pollster::block_on(scope.pop()));
    (value, errors.into_iter().flatten().next())
}

/// The crate's error for a wgpu error out of a scope around `what`.
pub(super) fn device_error(what: impl Into<String>, error: &wgpu::Error) -> Error {
    let what = what.into();
    match error {
        wgpu::Error::OutOfMemory { .. } => Error::OutOfMemory { what },
        error => Error::Gpu {
            what,
            message: error.to_string(),
        },
    }
}

/// Whether a device still works, and what went wrong on it where no scope could see it.
#[derive(Debug, Default)]
pub(super) struct Health {
    /// Why the device was lost, once it is.
    lost: OnceLock<String>,
    /// The first error that happened outside every scope, until a call returns it.
    uncaptured: Mutex<Option<String>>,
}

impl Health {
    /// Installs callbacks, which is allowed only on a device that this crate created.
    pub(super) fn listen(self: &Arc<Self>, device: &wgpu::Device) {
        let health = Arc::clone(self);
        device.set_device_lost_callback(move |reason, message| {
            health.lose(match reason {
                wgpu::DeviceLostReason::Destroyed => "it was destroyed".into(),
                wgpu::DeviceLostReason::Unknown => message,
            });
        });
        let health = Arc::clone(self);
        device.on_uncaptured_error(Arc::new(move |error: wgpu::Error| {
            log::error!("uncaptured wgpu error: {error}");
            lock(&health.uncaptured).get_or_insert(error.to_string());
        }));
    }

    /// Fails if the device is lost, or if an error happened outside every scope since the last call.
    pub(super) fn check(&self, device: &wgpu::Device) -> Result<()> {
        self.check_reported()?;
        if ignores_mistakes(device) {
            self.lose("it was destroyed or reset".into());
            self.check_reported()?;
        }
        match lock(&self.uncaptured).take() {
            Some(message) => Err(Error::Gpu {
                what: "an earlier command on this device".into(),
                message,
            }),
            None => Ok(()),
        }
    }

    /// Fails if the device is known to be lost; asks nothing of the device.
    pub(super) fn check_reported(&self) -> Result<()> {
        match self.lost.get() {
            Some(message) => Err(Error::DeviceLost {
                message: message.clone(),
            }),
            None => Ok(()),
        }
    }

    /// Remembers that the device is lost; the first reason stays.
    fn lose(&self, message: String) {
        self.lost.get_or_init(|| message);
    }
}

/// Whether the device is lost, found out without a callback.
///
/// wgpu tells of a loss only through a callback, which a library may not install on a caller's device, and which
/// comes late after `Device::destroy`. But a lost device no longer complains about anything (so says WebGPU, and so
/// does wgpu), and a working one must complain about a buffer without any usage, before it asks the driver for
/// anything. Measured: 1 microsecond.
fn ignores_mistakes(device: &wgpu::Device) -> bool {
    let (_, error) = scoped(device, || {
        device.create_buffer(&wgpu::BufferDescriptor {
            label: Some("osculant: is the device lost?"),
            size: wgpu::COPY_BUFFER_ALIGNMENT,
            usage: wgpu::BufferUsages::empty(),
            mapped_at_creation: false,
        })
    });
    error.is_none()
}
