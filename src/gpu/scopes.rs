//! Operations inside error scopes.

use super::device::Gpu;
use super::health::Request;
#[cfg(target_arch = "wasm32")]
use super::health::scoped;
#[cfg(not(target_arch = "wasm32"))]
use super::health::scoped_now;
use crate::error::Result;

impl Gpu {
    /// Runs `work` inside error scopes, and fails with the first error that it caused. In a browser that is known only later: then a wait
    /// to come fails, or [`check`](Self::check).
    #[cfg(not(target_arch = "wasm32"))]
    pub(super) fn guarded<T>(
        &self,
        work: impl FnOnce() -> T,
        request: impl FnOnce() -> Request,
    ) -> Result<T> {
        match scoped_now(self.device(), work) {
            (value, None) => Ok(value),
            (_, Some(error)) => Err(request().error(&error)),
        }
    }

    /// Runs `work` inside error scopes. What they catch is known only later: then a wait to come fails, or [`check`](Self::check).
    #[cfg(target_arch = "wasm32")]
    pub(super) fn guarded<T>(
        &self,
        work: impl FnOnce() -> T,
        request: impl FnOnce() -> Request,
    ) -> Result<T> {
        let (value, scopes) = scoped(self.device(), work, wgpu::ErrorScopeGuard::pop);
        let request = request();
        let error = async move {
            let mut first = None;
            for scope in scopes {
                first = first.or(scope.await);
            }
            first.map(|error| request.error(&error))
        };
        self.shared.health.keep(Box::pin(error));
        Ok(value)
    }
}
