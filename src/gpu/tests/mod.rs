//! Tests of the gpu layer. They need an adapter; a software one will do.
#![expect(clippy::panic, reason = "a test fails by panicking")]

mod devices;
mod futures;
mod recordings;

use super::*;
use crate::error::{Error, Result};

pub(super) const TWICE: &str = "
override FACTOR: f32 = 2.0;
@group(0) @binding(0) var<storage, read> x: array<f32>;
@group(0) @binding(1) var<storage, read_write> y: array<f32>;
@compute @workgroup_size(64)
fn main(
    @builtin(global_invocation_id) id: vec3<u32>,
    @builtin(num_workgroups) groups: vec3<u32>,
) {
    let i = id.x + id.y * groups.x * 64u;
    if i < arrayLength(&y) { y[i] += FACTOR * x[i]; }
}
";

/// A device, lost at once. It has to be one that nobody else uses.
pub(super) fn lost(gpu: &Gpu) {
    gpu.device().destroy();
}

pub(super) fn is_lost<T: std::fmt::Debug>(result: Result<T>) -> bool {
    matches!(result, Err(Error::DeviceLost { .. }))
}
