//! Face of `shaders/gather.wgsl`: rows of a table at indices, and the transpose.

use super::generated::{Reduce, added_up};
use super::loops::{TWO_LEVELS, in_chunks};
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

impl Sizes {
    /// Parts of the indices of scatter_add, for as many as an invocation adds up in two levels.
    fn parts(self, scatter: bool) -> usize {
        if scatter {
            self.count.div_ceil(TWO_LEVELS)
        } else {
            1
        }
    }
}

/// The kernel of gather (`scatter` false) or scatter_add; operands are the source and the indices. `software` says whether the device is a
/// software adapter.
pub(crate) fn kernel(scatter: bool, sizes: Sizes, software: bool) -> Result<Kernel> {
    let Sizes { rows, width, count } = sizes;
    let parts = sizes.parts(scatter);
    let each = count.div_ceil(parts);
    let constants = format!(
        "const SCATTER: bool = {scatter};\nconst ROWS: u32 = {rows}u;\nconst WIDTH: u32 = {width}u;\nconst COUNT: u32 = {count}u;\n\
         const PARTS: u32 = {parts}u;\nconst EACH: u32 = {each}u;"
    );
    let invocations = if scatter { rows * parts } else { count } * width;
    let kernel = Kernel {
        workgroup: Workgroup::APART,
        label: if scatter { "scatter_add" } else { "gather" },
        textures: Vec::new(),
        longest_loop: if scatter { in_chunks(each) } else { 0 },
        sizes: None,
        before: None,
        text: fill(GATHER, &[("constants", &constants)])?,
        workgroups: invocations.div_ceil(64),
    };
    if parts == 1 {
        return Ok(kernel);
    }
    let sum = Reduce::plain_sum(software);
    added_up(kernel, 2, (rows * width, parts), &sum, None)
}
