//! Face of `shaders/gather.wgsl`: rows of a table at indices, and the transpose.

use crate::error::Result;
use crate::gpu::{Gpu, Recording, Slice, grid};

const GATHER: &str = include_str!("../../shaders/gather.wgsl");

/// Sizes of a gather or scatter: a table of `rows` rows of `width`, `count` indices.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Sizes {
    pub(crate) rows: usize,
    pub(crate) width: usize,
    pub(crate) count: usize,
}

/// Records gather (`scatter` false) or scatter_add; bindings are result, source, indices.
pub(crate) fn record(
    gpu: &Gpu,
    recording: &mut Recording,
    scatter: bool,
    sizes: Sizes,
    bindings: [&Slice; 3],
) -> Result<()> {
    let constants = [
        ("SCATTER", f64::from(u8::from(scatter))),
        ("ROWS", sizes.rows as f64),
        ("WIDTH", sizes.width as f64),
        ("COUNT", sizes.count as f64),
    ];
    let pipeline = gpu.pipeline(
        if scatter { "scatter_add" } else { "gather" },
        GATHER,
        &constants,
    )?;
    let invocations = if scatter { sizes.rows } else { sizes.count } * sizes.width;
    recording.dispatch(
        gpu,
        &pipeline,
        &bindings,
        grid(gpu.limits(), invocations.div_ceil(64))?,
    )
}
