//! Face of `shaders/draw_rows.wgsl`: row numbers of mini-batches.

use super::philox::PHILOX;
use super::requirements;
use crate::error::{Error, Result};
use crate::gpu::{Gpu, Recording, Slice, grid};

const DRAW_ROWS: &str = include_str!("../../shaders/draw_rows.wgsl");

/// From which rows, and how.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Draw {
    pub(crate) rows: u32,
    /// Of a batch, from 1 to `rows`.
    pub(crate) count: u32,
    /// Of the low and the high half of a row number, 16 at most.
    pub(crate) bits: [u32; 2],
    pub(crate) seed: u64,
}

/// Records `index = rows of batch step[0]`.
///
/// # Errors
/// [`Error::Length`] unless `index` has as many elements as a batch has rows; limits of the device.
pub(crate) fn draw(
    gpu: &Gpu,
    recording: &mut Recording,
    index: &Slice,
    step: &Slice,
    draw: &Draw,
) -> Result<()> {
    if index.len() != draw.count as usize {
        return Err(Error::Length {
            what: format!("'{}', for row numbers,", index.label()),
            found: index.len(),
            expected: draw.count as usize,
        });
    }
    let text = [PHILOX, DRAW_ROWS].concat();
    let pipeline = gpu.kernel("draw_rows", &text, &[], requirements::DRAW_ROWS)?;
    let [low, high] = draw.bits;
    let (seed_low, seed_high) = (draw.seed as u32, (draw.seed >> 32) as u32);
    let settings = gpu.buffer("settings of a draw", 6)?;
    let values = [draw.rows, draw.count, low, high, seed_low, seed_high];
    gpu.upload(&settings, 0, &values)?;
    let workgroups = grid(gpu.limits(), index.len().div_ceil(64))?;
    recording.dispatch(gpu, &pipeline, &[index, step, &settings], workgroups)
}
