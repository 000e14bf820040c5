//! Face of `shaders/dot.wgsl`: the batched matrix product of two strided views.

use super::expression::Expression;
use super::store::Store;
use super::template::{Kernel, fill};
use crate::error::Result;

const DOT: &str = include_str!("../../shaders/dot.wgsl");

/// An operand read in place: element `[b, i, j]` is at `offset + b*strides[0] + i*strides[1] + j*strides[2]`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct View {
    pub(crate) offset: usize,
    pub(crate) strides: [usize; 3],
}

impl View {
    /// The view with its last two axes exchanged.
    pub(crate) fn transposed(&self) -> View {
        let [b, i, j] = self.strides;
        View {
            offset: self.offset,
            strides: [b, j, i],
        }
    }

    /// vec4 loads along the axis of stride 1 need every address they start at to be a multiple of 4.
    fn aligned(&self, along: usize, sizes: [usize; 3]) -> bool {
        let other = 3 - along;
        self.strides[along] == 1
            && sizes[along].is_multiple_of(4)
            && self.offset.is_multiple_of(4)
            && (sizes[0] == 1 || self.strides[0].is_multiple_of(4))
            && (sizes[other] == 1 || self.strides[other].is_multiple_of(4))
    }
}

/// Sizes of `[B, M, K] x [B, K, N]`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Sizes {
    pub(crate) batch: usize,
    pub(crate) m: usize,
    pub(crate) n: usize,
    pub(crate) k: usize,
}

/// The load function of one operand and the element type of its binding. The block's vectors run along `inner` (axis 2), its four vectors along
/// axis 1; `names` are the WGSL variables of the two axes.
fn load(name: &str, view: &View, sizes: [usize; 3], names: [&str; 2]) -> (String, &'static str) {
    let [sb, si, sj] = view.strides;
    let base = format!("batch * {sb}u + {}u", view.offset);
    let clamp = |axis: usize, delta: usize| -> String {
        // Rows beyond the edge are loaded from the last one and never stored; where an edge cannot occur nothing is clamped.
        let at = format!("{} + {delta}u", names[axis - 1]);
        if sizes[axis].is_multiple_of(4) {
            at
        } else {
            format!("min({at}, {}u)", sizes[axis] - 1)
        }
    };
    if view.aligned(2, sizes) {
        let column = |j: usize| {
            format!(
                "{name}[({base} + ({}) * {si}u + {}) / 4u]",
                clamp(1, j),
                names[1]
            )
        };
        let columns: Vec<String> = (0..4).map(column).collect();
        (
            format!("return mat4x4<f32>({});", columns.join(", ")),
            "vec4<f32>",
        )
    } else if view.aligned(1, sizes) {
        let column = |j: usize| {
            format!(
                "{name}[({base} + {} + ({}) * {sj}u) / 4u]",
                names[0],
                clamp(2, j)
            )
        };
        let columns: Vec<String> = (0..4).map(column).collect();
        (
            format!("return transpose(mat4x4<f32>({}));", columns.join(", ")),
            "vec4<f32>",
        )
    } else {
        let mut columns = Vec::new();
        for i in 0..4 {
            let elements: Vec<String> = (0..4)
                .map(|j| {
                    format!(
                        "{name}[{base} + ({}) * {si}u + ({}) * {sj}u]",
                        clamp(1, i),
                        clamp(2, j)
                    )
                })
                .collect();
            columns.push(format!("vec4<f32>({})", elements.join(", ")));
        }
        (
            format!("return mat4x4<f32>({});", columns.join(",\n        ")),
            "f32",
        )
    }
}

/// The kernel of the product; operands are the left and the right one, then those of `finish`, which is applied to each element before it is
/// stored. With a `pitch`, the matrices of the result are that many elements apart.
pub(crate) fn kernel(
    sizes: Sizes,
    lhs: &View,
    rhs: &View,
    finish: Option<&Expression>,
    pitch: Option<usize>,
) -> Result<Kernel> {
    let Sizes { batch, m, n, k } = sizes;
    let (load_lhs, lhs_type) = load("lhs", lhs, [batch, m, k], ["row", "k"]);
    let (load_rhs, rhs_type) = load("rhs", rhs, [batch, k, n], ["k", "column"]);
    // Terms beyond K must be zero on one side; clamped loads would add the last one again.
    let load_lhs = if k.is_multiple_of(4) {
        load_lhs
    } else {
        let masked = load_lhs.trim_start_matches("return ").trim_end_matches(';');
        format!(
            "let block = {masked};\n    let inside = vec4<f32>(select(vec4(0.0), vec4(1.0), vec4(k, k + 1u, k + 2u, k + 3u) < vec4({k}u)));\n    \
             return mat4x4<f32>(block[0] * inside, block[1] * inside, block[2] * inside, block[3] * inside);"
        )
    };
    // Two blocks of rows per invocation halve the loads of B, where enough invocations remain.
    let blocks = if batch * m.div_ceil(8) * n.div_ceil(4) >= 1024 {
        2
    } else {
        1
    };
    let store = Store::new(sizes, finish, pitch)?;
    let constants = format!(
        "const M: u32 = {m}u;\nconst N: u32 = {n}u;\nconst K: u32 = {k}u;\nconst BATCH: u32 = {batch}u;\nconst BLOCKS: u32 = {blocks}u;\n\
         @group(0) @binding(1) var<storage, read> lhs: array<{lhs_type}>;\n\
         @group(0) @binding(2) var<storage, read> rhs: array<{rhs_type}>;\n{}",
        store.bindings
    );
    let text = fill(
        DOT,
        &[
            ("constants", &constants),
            ("lhs", &load_lhs),
            ("rhs", &load_rhs),
            ("store", &store.text),
        ],
    )?;
    let invocations = batch * m.div_ceil(4 * blocks) * n.div_ceil(4);
    Ok(Kernel {
        label: "dot",
        text: store.functions + &text,
        workgroups: invocations.div_ceil(64),
    })
}
