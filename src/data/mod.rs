//! Data sets, their readers, and the order in which an optimizer sees their rows.
//!
//! A [`Dataset`] is checked once, when it is made; after that every batch drawn from it is valid. [`Epochs`] gives the row numbers of
//! mini-batches, [`Dataset::batch`] the numbers in those rows. A [`DeviceDataset`] is uploaded once; then [`Rows`] are a batch.
//!
//! ```
//! use osculant::data::{Epochs, digits};
//!
//! let (train, test) = digits()?.split(0.2, 1)?;
//! let mut epochs = Epochs::new(train.len(), 100, 1)?;
//! let batch = train.batch(epochs.next_batch())?;
//! assert_eq!((batch.len(), test.len()), (100, 359));
//! # Ok::<(), osculant::Error>(())
//! ```

mod batch;
#[cfg(not(target_arch = "wasm32"))]
pub mod csv;
mod cut;
mod dataset;
mod device;
mod digits;
mod epochs;
#[cfg(not(target_arch = "wasm32"))]
pub mod idx;
#[cfg(not(target_arch = "wasm32"))]
mod labels;
mod micro_batches;
mod points;
mod roles;
mod rounding;
mod rows;
mod scaling;
mod shuffle;
mod split;
mod targets;
#[cfg(not(target_arch = "wasm32"))]
pub mod tensors;

pub use batch::Batch;
pub use dataset::Dataset;
pub use device::DeviceDataset;
pub use digits::digits;
pub use epochs::{Epochs, EpochsState};
pub use micro_batches::MicroBatches;
pub use points::{Points, Region, Sampling, Term};
pub use roles::{Dealing, Growth, Role, Roles, RolesState, rescaled_step};
pub use rows::Rows;
pub use scaling::{Scaling, standardise};
pub use shuffle::Shuffle;
pub use targets::Targets;
