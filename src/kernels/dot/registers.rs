//! Face of `shaders/dot/registers.wgsl`.

use super::family::Loads;
use super::levels::{Levels, Terms};
use super::view::{Access, Load, View};
use super::{Sizes, bindings, constants, overruns, read_sizes, term_count};
use crate::error::Result;
use crate::kernels::store::Store;
use crate::kernels::template::{Kernel, Workgroup, fill};

const REGISTERS: &str = include_str!("../../../shaders/dot/registers.wgsl");

/// The product with `blocks` (1 or 2) blocks of four rows per invocation: two halve the loads of B.
pub(super) fn kernel(
    sizes: Sizes,
    lhs: &View,
    rhs: &View,
    blocks: u32,
    wide: bool,
    store: &Store,
) -> Result<Kernel> {
    let loads = if wide { Loads::Wide } else { Loads::Plain };
    let (left, lhs_type) = Load {
        name: "left",
        binding: "lhs",
        view: lhs,
        sizes: sizes.left(),
        names: ["M()", "K()"],
        overruns: [overruns(sizes, lhs, 4), !sizes.k.is_multiple_of(4)],
        access: Access::Block,
        // Terms beyond K must be zero on one side; clamped loads would add the last one again.
        zero_beyond: true,
        loads,
    }
    .text();
    let (right, rhs_type) = Load {
        name: "right",
        binding: "rhs",
        view: rhs,
        sizes: sizes.right(),
        names: ["K()", "N"],
        overruns: [sizes.k, sizes.n].map(|size| !size.is_multiple_of(4)),
        access: Access::Block,
        zero_beyond: false,
        loads,
    }
    .text();
    let constants = constants(sizes, lhs, store)
        + &format!("const BLOCKS: u32 = {blocks}u;\n")
        + &bindings([store.element, lhs_type, rhs_type], store);
    let accumulators = &["c0".to_string(), "c1".to_string()][..blocks as usize];
    let terms = Terms {
        k: sizes.k,
        step: 4,
        together: 4,
    };
    let count = term_count(sizes, lhs);
    let levels = Levels::new(terms, count, accumulators, "mat4x4<f32>", "");
    let text = fill(
        REGISTERS,
        &[
            ("constants", &constants),
            ("loads", &(left + &right)),
            ("open", &levels.open),
            ("close", &levels.close),
            ("store", &store.text),
        ],
    )?;
    let invocations = sizes.batch * sizes.m.div_ceil(4 * blocks as usize) * sizes.n.div_ceil(4);
    Ok(Kernel {
        workgroup: Workgroup::APART,
        label: "dot, registers",
        textures: Vec::new(),
        longest_loop: terms.iterations(0),
        sizes: read_sizes(sizes, lhs)?,
        before: None,
        text: store.functions.clone() + &text,
        workgroups: invocations.div_ceil(64),
    })
}
