//! Face of `shaders/dot/join.wgsl`: a product whose terms are divided among several products, which are then added.

use std::ops::Range;

use super::levels::MOST_TERMS;
use super::view::PartsOfView;
use super::{Family, Sizes, View, whole};
use crate::error::Result;
use crate::kernels::store::Store;
use crate::kernels::template::{Before, Kernel, Workgroup, declare_sizes, fill, size};

const JOIN: &str = include_str!("../../../shaders/dot/join.wgsl");
/// Parts that are added before their sums are; the same number is in the shader.
const TOGETHER: usize = 32;
/// A binding may start at every multiple of this on every device, in elements.
const ALIGNMENT: usize = 64;

/// How the terms of a product are divided.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Parts {
    /// Parts of equal length.
    count: usize,
    /// Their terms, a multiple of four, so that vec4s can be loaded from where they start.
    terms: usize,
    /// Terms of one more part; may be none.
    rest: usize,
}

impl Parts {
    /// None where one kernel of the family computes the whole product.
    pub(super) fn of(sizes: Sizes, family: Family) -> Option<Self> {
        let k = sizes.k;
        let wanted = match family {
            Family::Split { parts, .. } => parts as usize,
            _ => 1,
        }
        .max(k.div_ceil(MOST_TERMS));
        if wanted == 1 {
            return None;
        }
        // A few more parts where that leaves no rest, which would be a kernel of its own.
        let even = (wanted..=wanted + wanted / 2).find(|parts| k.is_multiple_of(4 * parts));
        let terms = even.map_or_else(|| k.div_ceil(wanted).next_multiple_of(4), |parts| k / parts);
        Some(Self {
            count: k / terms,
            terms,
            rest: k % terms,
        })
    }

    /// Where the results of the equal parts are, and those of the rest.
    fn ranges(self, sizes: Sizes) -> (Range<usize>, Range<usize>) {
        let each = sizes.batch * sizes.m * sizes.n;
        let end = self.count * each;
        let rest = end.next_multiple_of(ALIGNMENT);
        (0..end, rest..rest + each)
    }
}

/// The product in these parts, each by the kernel `of`, and the kernel that adds them.
pub(super) fn kernel(
    sizes: Sizes,
    lhs: &View,
    rhs: &View,
    parts: Parts,
    of: Family,
    store: &Store,
) -> Result<Kernel> {
    let Sizes { batch, m, n, .. } = sizes;
    let Parts { count, terms, rest } = parts;
    let (equal, last) = parts.ranges(sizes);
    let equal_sizes = Sizes {
        batch: count * batch,
        k: terms,
        ..sizes
    };
    let part = |sizes: Sizes, lhs: &View, rhs: &View| -> Result<Kernel> {
        whole(sizes, lhs, rhs, of, &Store::new(sizes, None, None)?)
    };
    let in_parts = |view: &View, along_k: usize| View {
        parts: Some(PartsOfView {
            batch,
            terms,
            along_k,
        }),
        ..view.clone()
    };
    let (left, right) = (lhs.strides[2], rhs.strides[1]);
    let mut kernels = vec![(
        part(equal_sizes, &in_parts(lhs, left), &in_parts(rhs, right))?,
        equal.clone(),
    )];
    // Without a rest something must be bound that is not read.
    let mut results = vec![equal.clone(), equal.clone()];
    if rest > 0 {
        let beyond = |view: &View, along_k: usize| View {
            offset: view.offset + count * terms * along_k,
            ..view.clone()
        };
        let sizes = Sizes { k: rest, ..sizes };
        let kernel = part(sizes, &beyond(lhs, left), &beyond(rhs, right))?;
        kernels.push((kernel, last.clone()));
        results[1] = last.clone();
    }
    let four = n.is_multiple_of(4);
    let element = if four { "Four" } else { "f32" };
    let constants = format!(
        "const N: u32 = {n}u;\nconst BATCH: u32 = {batch}u;\nconst PARTS: u32 = {count}u;\nconst HAS_REST: bool = {};\n{}\
         @group(0) @binding(0) var<storage, read_write> result: array<{}>;\n\
         @group(0) @binding(1) var<storage, read> partial: array<{element}>;\n\
         @group(0) @binding(2) var<storage, read> rest: array<{element}>;\n{}",
        rest > 0,
        declare_sizes(3 + store.bindings, &["M"]),
        store.element,
        store.operands
    );
    let load = |name: &str, array: &str, elements: &str| {
        let value = if four {
            format!("floats({array}[at / 4u])")
        } else {
            let after = |q| format!("{array}[min(at + {q}u, {elements} - 1u)]");
            let [y, z, w] = [1, 2, 3].map(after);
            format!("vec4<f32>({array}[at], {y}, {z}, {w})")
        };
        format!("fn {name}(at: u32) -> vec4<f32> {{\n    return {value};\n}}\n")
    };
    let each = "BATCH * M() * N";
    let load =
        load("load", "partial", &format!("PARTS * {each}")) + &load("load_rest", "rest", each);
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
        workgroups: (batch * m * n.div_ceil(4)).div_ceil(64),
        textures: Vec::new(),
        longest_loop: count + count.div_ceil(TOGETHER),
        sizes: Some([size(m)?, 0, 0, 0]),
        before: Some(Before {
            kernels,
            operands: 2,
            results,
        }),
    })
}
