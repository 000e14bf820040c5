//! Face of `shaders/dot/join.wgsl`: a product whose terms are divided among several products, which are then added.

use super::{Family, Sizes, View, kernel as product};
use crate::error::Result;
use crate::kernels::store::Store;
use crate::kernels::template::{Before, Kernel, Workgroup, fill};

const JOIN: &str = include_str!("../../../shaders/dot/join.wgsl");

/// The product in `parts` of equal length, each by the kernel `of`, and the kernel that adds them.
pub(super) fn kernel(
    sizes: Sizes,
    lhs: &View,
    rhs: &View,
    parts: usize,
    of: Family,
    store: &Store,
) -> Result<Kernel> {
    let Sizes { m, n, k, .. } = sizes;
    let terms = k / parts;
    let part = |view: &View, stride: usize| {
        let [_, i, j] = view.strides;
        View {
            offset: view.offset,
            strides: [terms * stride, i, j],
        }
    };
    let part_sizes = Sizes {
        batch: parts,
        k: terms,
        ..sizes
    };
    let before = product(
        part_sizes,
        &part(lhs, lhs.strides[2]),
        &part(rhs, rhs.strides[1]),
        of,
        &Store::new(part_sizes, None, None)?,
    )?;
    let four = n.is_multiple_of(4);
    let element = if four { "Four" } else { "f32" };
    let constants = format!(
        "const M: u32 = {m}u;\nconst N: u32 = {n}u;\nconst PARTS: u32 = {parts}u;\n\
         @group(0) @binding(0) var<storage, read_write> result: array<{}>;\n\
         @group(0) @binding(1) var<storage, read> partial: array<{element}>;\n{}",
        store.element, store.operands
    );
    let load = if four {
        "    return floats(partial[at / 4u]);"
    } else {
        "    let last = M * N * PARTS - 1u;\n    \
         return vec4<f32>(partial[at], partial[min(at + 1u, last)], partial[min(at + 2u, last)], partial[min(at + 3u, last)]);"
    };
    let load = format!("fn load(at: u32) -> vec4<f32> {{\n{load}\n}}\n");
    let text = fill(
        JOIN,
        &[
            ("constants", &constants),
            ("load", &load),
            ("store", &store.text),
        ],
    )?;
    Ok(Kernel {
        workgroup: Workgroup::APART,
        label: "dot, join",
        text: store.functions.clone() + &text,
        workgroups: (m * n.div_ceil(4)).div_ceil(64),
        textures: Vec::new(),
        before: Some(Box::new(Before {
            kernel: before,
            elements: parts * m * n,
        })),
    })
}
