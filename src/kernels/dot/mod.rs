//! The batched matrix product of two strided views: `C[b, m, n] = sum over k of A[b, m, k] B[b, k, n]`.
//!
//! There are several kernels for it, the [families](Family), each with a file here and one in `shaders/dot/`; which one runs is decided by
//! [`tuning`](super::tuning). They share the loads of operands (`view.rs`) and the store of the result (`kernels/store.rs`).

mod family;
mod levels;
mod registers;
mod shared;
mod split;
mod subgroup;
mod view;

pub use family::{Capabilities, Family, Loads, SubgroupTile};
pub(crate) use view::View;

use self::split::Parts;
use super::store::Store;
use super::template::{Kernel, declare_sizes, size};
use crate::error::Result;

/// Sizes of `[B, M, K] x [B, K, N]`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Sizes {
    pub(crate) batch: usize,
    pub(crate) m: usize,
    pub(crate) n: usize,
    pub(crate) k: usize,
}

impl Sizes {
    /// Sizes of the left operand.
    fn left(&self) -> [usize; 3] {
        [self.batch, self.m, self.k]
    }

    /// Sizes of the right operand.
    fn right(&self) -> [usize; 3] {
        [self.batch, self.k, self.n]
    }
}

/// The kernel of the product in this family; operands are the left and the right one, then those of the `store`. More terms than an
/// invocation may add up are divided, whatever the family.
///
/// The device must be able to run the family: see [`Family::runs_on`].
pub(crate) fn kernel(
    sizes: Sizes,
    lhs: &View,
    rhs: &View,
    family: Family,
    store: &Store,
) -> Result<Kernel> {
    match Parts::of(sizes, family) {
        None => whole(sizes, lhs, rhs, family, store),
        Some(parts) => split::kernel(sizes, lhs, rhs, parts, family.of_parts(), store),
    }
}

/// The kernel of the product without parts; of a family that has parts, the kernel of one.
fn whole(sizes: Sizes, lhs: &View, rhs: &View, family: Family, store: &Store) -> Result<Kernel> {
    match family.of_parts() {
        Family::Registers { blocks, wide } => {
            registers::kernel(sizes, lhs, rhs, blocks, wide, store)
        }
        Family::Subgroup(tile) => subgroup::kernel(sizes, lhs, rhs, tile, store),
        Family::Shared | Family::Split { .. } => shared::kernel(sizes, lhs, rhs, store),
    }
}

/// The bindings, with the element types of result, left and right operand.
fn bindings(types: [&str; 3], store: &Store) -> String {
    let [result, lhs, rhs] = types;
    format!(
        "@group(0) @binding(0) var<storage, read_write> result: array<{result}>;\n\
         {}{}{}",
        operand(1, "lhs", lhs),
        operand(2, "rhs", rhs),
        store.operands
    )
}

fn operand(binding: usize, name: &str, element: &str) -> String {
    if element == view::TEXTURE {
        format!("@group(0) @binding({binding}) var {name}: {element};\n")
    } else {
        format!("@group(0) @binding({binding}) var<storage, read> {name}: array<{element}>;\n")
    }
}

/// The size that a kernel reads instead of holding it: rows of the product, or terms where the left operand is transposed. In networks both
/// are the rows of a batch, so that batches of any size share kernels; what else there is are widths of layers, which compilers may know.
fn outer(sizes: Sizes, lhs: &View) -> (Outer, usize) {
    if lhs.strides[1] == 1 && lhs.strides[2] != 1 {
        (Outer::Terms, sizes.k)
    } else {
        (Outer::Rows, sizes.m)
    }
}

/// Whether tiles of this many rows may end beyond the last row. Where the number of rows is read it may be any, and is looked at; that of
/// terms would be in the innermost loop, so kernels for multiples of four and for others are two.
fn overruns(sizes: Sizes, lhs: &View, rows: usize) -> bool {
    outer(sizes, lhs).0 == Outer::Rows || !sizes.m.is_multiple_of(rows)
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Outer {
    Rows,
    Terms,
}

/// The number of terms in WGSL. One that is read is multiplied by `groups.z`, which is 1 and which no compiler knows: lavapipe takes a loop
/// that nothing but a uniform bounds for one to be compiled anew, with the uniform's value, at every dispatch. Where the kernel shrinks by
/// that it keeps to it, and a dispatch takes milliseconds.
fn term_count(sizes: Sizes, lhs: &View) -> &'static str {
    match outer(sizes, lhs).0 {
        Outer::Rows => "K()",
        Outer::Terms => "K() * groups.z",
    }
}

/// The sizes in WGSL: `N` and `BATCH`, and functions `M()` and `K()`, of which one reads what [`outer`] says from the last binding.
fn constants(sizes: Sizes, lhs: &View, store: &Store) -> String {
    let Sizes { batch, m, n, k } = sizes;
    let (read, held) = match outer(sizes, lhs).0 {
        Outer::Rows => ("M", ("K", k)),
        Outer::Terms => ("K", ("M", m)),
    };
    let (name, value) = held;
    format!(
        "const N: u32 = {n}u;\nconst BATCH: u32 = {batch}u;\nfn {name}() -> u32 {{ return {value}u; }}\n{}",
        declare_sizes(3 + store.bindings, &[read])
    )
}

/// What the last binding holds.
fn read_sizes(sizes: Sizes, lhs: &View) -> Result<Option<crate::gpu::Sizes>> {
    Ok(Some([size(outer(sizes, lhs).1)?, 0, 0, 0]))
}

/// The WGSL of every family and variant that a device can run, for sizes that stand for what networks need, each with a name: for reading,
/// and for statistics of compilers.
///
/// # Errors
/// A defect of this crate: a template without a region.
pub fn catalogue(capabilities: &Capabilities) -> Result<Vec<(Family, String, String)>> {
    // Batch, rows, columns, terms.
    const SHAPES: [[usize; 4]; 5] = [
        [1, 512, 512, 512],
        [1, 256, 128, 784],
        [1, 64, 32, 64],
        [1, 256, 10, 128],
        [32, 33, 7, 9],
    ];
    let mut all = Vec::new();
    for [batch, m, n, k] in SHAPES {
        let sizes = Sizes { batch, m, n, k };
        for (layout, transpose_lhs, transpose_rhs) in [
            ("nn", false, false),
            ("nt", false, true),
            ("tn", true, false),
        ] {
            let view = |[_, rows, columns]: [usize; 3], transpose: bool| {
                let batch = rows * columns;
                let strides = if transpose {
                    [batch, 1, rows]
                } else {
                    [batch, columns, 1]
                };
                View::new(0, strides)
            };
            let lhs = view(sizes.left(), transpose_lhs);
            let rhs = view(sizes.right(), transpose_rhs);
            for family in Family::all(capabilities) {
                all.push((
                    family,
                    format!("{layout} {batch}x{m}x{n}x{k}"),
                    kernel(sizes, &lhs, &rhs, family, &Store::new(sizes, None, None)?)?
                        .source(capabilities),
                ));
            }
        }
    }
    Ok(all)
}
