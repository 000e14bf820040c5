//! Faces of the kernels that store numbers as half floats, two in a word.

use super::requirements;
use crate::error::Result;
use crate::gpu::{Gpu, Recording, Slice, grid};

const PACK: &str = include_str!("../../shaders/pack_half.wgsl");
const UNPACK: &str = include_str!("../../shaders/unpack_half.wgsl");

/// Records `packed = halves of scale * x`; `packed` has half as many words as `x` has elements.
///
/// # Errors
/// Limits of the device.
pub(crate) fn pack(
    gpu: &Gpu,
    recording: &mut Recording,
    packed: &Slice,
    x: &Slice,
    scale: f64,
) -> Result<()> {
    record(gpu, recording, ("pack_half", PACK), [packed, x], scale)
}

/// Records `x = halves / scale`, the inverse of [`pack`].
///
/// # Errors
/// Limits of the device.
pub(crate) fn unpack(
    gpu: &Gpu,
    recording: &mut Recording,
    x: &Slice,
    packed: &Slice,
    scale: f64,
) -> Result<()> {
    record(gpu, recording, ("unpack_half", UNPACK), [x, packed], scale)
}

fn record(
    gpu: &Gpu,
    recording: &mut Recording,
    (name, text): (&'static str, &str),
    bindings: [&Slice; 2],
    scale: f64,
) -> Result<()> {
    let words = bindings[0].len().min(bindings[1].len());
    let pipeline = gpu.kernel(
        name,
        text,
        &[("COUNT", words as f64), ("SCALE", scale)],
        requirements::HALF,
    )?;
    recording.dispatch(
        gpu,
        &pipeline,
        &bindings,
        grid(gpu.limits(), words.div_ceil(64))?,
    )
}
