//! Face of `shaders/gather.wgsl`: rows of a table at indices, and the transpose.

use super::template::{Kernel, Workgroup, fill};
use crate::error::Result;

const GATHER: &str = include_str!("../../shaders/gather.wgsl");

/// Sizes of a gather or scatter: a table of `rows` rows of `width`, `count` indices.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Sizes {
    pub(crate) rows: usize,
    pub(crate) width: usize,
    pub(crate) count: usize,
}

/// The kernel of gather (`scatter` false) or scatter_add; operands are the source and the indices.
pub(crate) fn kernel(scatter: bool, sizes: Sizes) -> Result<Kernel> {
    let Sizes { rows, width, count } = sizes;
    let constants = format!(
        "const SCATTER: bool = {scatter};\nconst ROWS: u32 = {rows}u;\nconst WIDTH: u32 = {width}u;\nconst COUNT: u32 = {count}u;"
    );
    let invocations = if scatter { rows } else { count } * width;
    Ok(Kernel {
        workgroup: Workgroup::APART,
        label: if scatter { "scatter_add" } else { "gather" },
        textures: Vec::new(),
        before: None,
        text: fill(GATHER, &[("constants", &constants)])?,
        workgroups: invocations.div_ceil(64),
    })
}
