//! [burn](https://burn.dev)'s modules, trained by [osculant]'s second-order methods, on the device and queue that burn has.
//!
//! - [`SharedDevice`]: one wgpu device for both.
//! - [`ModuleObjective`]: a module and a loss. The gradient is burn's, products with the Hessian are differences of gradients.
//! - [`OutputsObjective`]: a module whose outputs are known. Products with the Gauss-Newton matrix are differences of outputs, and a backward
//!   pass.
//!
//! No parameter and no gradient goes through the host.

mod copies;
mod device;
mod joint;
mod network;
mod objective;
mod parameters;
mod session;
mod stored;
mod write;

pub use device::SharedDevice;
pub use objective::{ModuleObjective, OutputsObjective};

#[cfg(doctest)]
#[doc = include_str!("../README.md")]
struct Readme;
