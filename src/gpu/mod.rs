//! The gpu layer: everything the crate asks of wgpu, behind one handle and five small types.
//!
//! * [`Gpu`] owns (or borrows, see [`Gpu::from_wgpu`]) a device and its queue. It allocates, uploads, compiles,
//!   submits and reads back, and it turns every wgpu error into an [`Error`](crate::Error).
//! * [`Slice`] is a range of a device buffer, in elements of four bytes; kernels bind one that is longer than a binding in its
//!   [segments](Slice::segments).
//! * [`Pipeline`] is a compiled kernel, kept by the `Gpu` so that each kernel is compiled once.
//! * [`Recording`] is a list of dispatches and copies as data. Its bind groups are made when a command is added,
//!   so replaying it a thousand times creates nothing.
//! * [`Work`] is recordings with calls of the host in between; [`Commands`] are one or the other, to be run by [`Gpu::run`].
//! * [`PendingRead`] is data on their way back, while more is submitted.
//! * [`Arrivals`] are data on their way back for which nobody waits; [`Upload`] is a command that carries numbers of the host.
//! * [`Recorder`] replays recordings into a command encoder: the crate's own in [`Gpu::submit`], or the caller's.
//!
//! ```
//! # fn main() -> osculant::Result<()> {
//! use osculant::gpu::{Gpu, Recording, grid};
//!
//! let gpu = Gpu::new()?;
//! let x = gpu.buffer("x", 4)?;
//! gpu.upload(&x, 0, &[1.0f32, 2.0, 3.0, 4.0])?;
//! let double = gpu.pipeline(
//!     "double",
//!     "@group(0) @binding(0) var<storage, read_write> x: array<f32>;
//!      @compute @workgroup_size(64) fn main(@builtin(global_invocation_id) id: vec3<u32>) {
//!          if id.x < arrayLength(&x) { x[id.x] = 2.0 * x[id.x]; }
//!      }",
//!     &[],
//! )?;
//! let mut recording = Recording::new();
//! recording.dispatch(&gpu, &double, &[&x], grid(gpu.limits(), 1)?)?;
//! gpu.submit(|recorder| {
//!     recorder.replay(&recording);
//!     recorder.replay(&recording);
//! })?;
//! assert_eq!(gpu.read(&[&x])?, [[4.0, 8.0, 12.0, 16.0]]);
//! # Ok(())
//! # }
//! ```
//!
//! Errors are found by error scopes around each operation, never by global callbacks on a device that belongs to
//! somebody else. A lost device makes every later call return [`Error::DeviceLost`](crate::Error::DeviceLost).

mod adapter;
mod arrivals;
mod buffer;
mod compile;
mod device;
#[cfg(not(target_arch = "wasm32"))]
mod driver;
#[cfg(feature = "fault-injection")]
mod faults;
mod future;
mod health;
mod idle;
mod outcome;
mod pipeline;
mod readback;
mod recording;
mod requirements;
mod scopes;
mod segments;
mod sizes;
mod slice;
mod staging;
#[cfg(test)]
mod tests;
mod texels;
mod uploads;
mod waits;
mod work;

#[cfg(not(target_arch = "wasm32"))]
pub use adapter::adapters;
pub use adapter::{AdapterDescription, AdapterOptions, adapters_async};
pub use arrivals::Arrivals;
pub use device::Gpu;
pub use future::BoxFuture;
#[cfg(not(target_arch = "wasm32"))]
pub use future::blocking;
pub use pipeline::Pipeline;
pub use readback::PendingRead;
pub(crate) use recording::Binding;
pub use recording::{Command, Custom, Recorder, Recording, grid};
pub use requirements::Requirements;
pub(crate) use sizes::Sizes;
pub use slice::Slice;
pub use texels::Texels;
pub(crate) use texels::{TEXELS_PER_ROW, TEXTURE_ELEMENTS};
pub use uploads::Upload;
pub(crate) use work::replay_all;
pub use work::{Commands, Work};
