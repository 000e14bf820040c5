//! Errors of a device: scopes around operations, and whether the device is still there.

use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};

use crate::error::{Error, Result};

/// Locks, also after another thread panicked: what the crate guards stays consistent at every point.
pub(super) fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// What the device was asked for when it complained.
pub(super) enum Request {
    /// Anything but a kernel.
    Other(String),
    /// A kernel, with its text.
    Kernel { label: String, source: String },
}

impl From<&str> for Request {
    fn from(what: &str) -> Self {
        Self::Other(what.into())
    }
}

impl From<String> for Request {
    fn from(what: String) -> Self {
        Self::Other(what)
    }
}

impl Request {
    /// The crate's error for one that came out of a scope around the request.
    pub(super) fn error(self, error: &wgpu::Error) -> Error {
        match (self, error) {
            (Self::Kernel { label, source }, error) => Error::Shader {
                label,
                message: error.to_string(),
                source_text: numbered(&source),
            },
            (Self::Other(what), wgpu::Error::OutOfMemory { .. }) => Error::OutOfMemory { what },
            (Self::Other(what), error) => Error::Gpu {
                what,
                message: error.to_string(),
            },
        }
    }
}

/// The source with a number before each line, as the compiler's messages count them.
fn numbered(source: &str) -> String {
    source
        .lines()
        .enumerate()
        .map(|(index, line)| format!("{:4} | {line}\n", index + 1))
        .collect()
}

/// Runs `work` inside error scopes of all three kinds, and gives its value with what came out of them.
///
/// All three, because an error that no scope catches panics on a device whose owner set no handler.
pub(super) fn scoped<T, P>(
    device: &wgpu::Device,
    work: impl FnOnce() -> T,
    popped: impl Fn(wgpu::ErrorScopeGuard) -> P,
) -> (T, [P; 3]) {
    let internal = device.push_error_scope(wgpu::ErrorFilter::Internal);
    let memory = device.push_error_scope(wgpu::ErrorFilter::OutOfMemory);
    let validation = device.push_error_scope(wgpu::ErrorFilter::Validation);
    let value = work();
    (value, [validation, memory, internal].map(popped))
}

/// As [`scoped`], with the first error at once.
#[cfg(not(target_arch = "wasm32"))]
pub(super) fn scoped_now<T>(
    device: &wgpu::Device,
    work: impl FnOnce() -> T,
) -> (T, Option<wgpu::Error>) {
    let (value, errors) = scoped(device, work, |scope| super::blocking(scope.pop()));
    (value, errors.into_iter().flatten().next())
}

/// Runs `work` inside error scopes, for whom it does not matter what they say.
pub(super) fn unheard<T>(device: &wgpu::Device, work: impl FnOnce() -> T) -> T {
    scoped(device, work, |scope| drop(scope.pop())).0
}

/// Whether a device still works, and what went wrong on it where no scope could see it.
#[derive(Default)]
pub(super) struct Health {
    /// Why the device was lost, once it is.
    lost: OnceLock<String>,
    /// The first error that happened outside every scope, until a call returns it.
    uncaptured: Mutex<Option<String>>,
    /// What comes out of scopes that were popped, in their order.
    #[cfg(target_arch = "wasm32")]
    scopes: Mutex<std::collections::VecDeque<super::BoxFuture<'static, Option<Error>>>>,
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
    pub(super) fn check(
        &self,
        #[cfg(not(target_arch = "wasm32"))] device: &wgpu::Device,
    ) -> Result<()> {
        self.check_reported()?;
        #[cfg(not(target_arch = "wasm32"))]
        if ignores_mistakes(device) {
            self.lose("it was destroyed or reset".into());
            self.check_reported()?;
        }
        #[cfg(target_arch = "wasm32")]
        self.check_popped()?;
        match lock(&self.uncaptured).take() {
            Some(message) => Err(Error::Gpu {
                what: "an earlier command on this device".into(),
                message,
            }),
            None => Ok(()),
        }
    }

    /// Polls a device; whether what was to be waited for came in time.
    #[cfg(not(target_arch = "wasm32"))]
    pub(super) fn poll(&self, device: &wgpu::Device, how: wgpu::PollType) -> Result<bool> {
        use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
        // wgpu 30 panics in `poll` when the driver reports a lost device; it holds no lock at that point.
        match catch_unwind(AssertUnwindSafe(|| device.poll(how))) {
            Ok(Ok(_)) => self.check_reported().map(|()| true),
            Ok(Err(wgpu::PollError::Timeout)) => Ok(false),
            Ok(Err(error)) => {
                self.check(device)?;
                Err(Error::Gpu {
                    what: "waiting for the device".into(),
                    message: error.to_string(),
                })
            }
            Err(panic) => {
                self.check(device)?;
                // Not a lost device: it is the panic of somebody's callback, and not ours to swallow.
                resume_unwind(panic)
            }
        }
    }

    /// Keeps what comes out of scopes some time later, for the next wait.
    #[cfg(target_arch = "wasm32")]
    pub(super) fn keep(&self, error: super::BoxFuture<'static, Option<Error>>) {
        lock(&self.scopes).push_back(error);
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

#[cfg(target_arch = "wasm32")]
impl Health {
    /// The first error that has come out of a scope by now.
    fn check_popped(&self) -> Result<()> {
        use std::task::{Context, Poll, Waker};
        let mut scopes = lock(&self.scopes);
        while let Some(first) = scopes.front_mut() {
            match first.as_mut().poll(&mut Context::from_waker(Waker::noop())) {
                Poll::Pending => break,
                Poll::Ready(error) => {
                    scopes.pop_front();
                    error.map_or(Ok(()), Err)?;
                }
            }
        }
        Ok(())
    }

    /// Waits for what comes out of all scopes so far: the first error in them.
    pub(super) async fn settle(&self) -> Result<()> {
        let scopes = std::mem::take(&mut *lock(&self.scopes));
        let mut first = None;
        for scope in scopes {
            first = first.or(scope.await);
        }
        first.map_or(Ok(()), Err)
    }
}

/// Whether the device is lost, found out without a callback.
///
/// wgpu tells of a loss only through a callback, which a library may not install on a caller's device, and which
/// comes late after `Device::destroy`. But a lost device no longer complains about anything (so says WebGPU, and so
/// does wgpu), and a working one must complain about a buffer without any usage, before it asks the driver for
/// anything. Measured: 1 microsecond.
#[cfg(not(target_arch = "wasm32"))]
fn ignores_mistakes(device: &wgpu::Device) -> bool {
    let (_, error) = scoped_now(device, || {
        device.create_buffer(&wgpu::BufferDescriptor {
            label: Some("osculant: is the device lost?"),
            size: wgpu::COPY_BUFFER_ALIGNMENT,
            usage: wgpu::BufferUsages::empty(),
            mapped_at_creation: false,
        })
    });
    error.is_none()
}
