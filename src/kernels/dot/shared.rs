//! Face of `shaders/dot/shared.wgsl`.

use super::family::Loads;
use super::levels::{Levels, Terms};
use super::view::{Access, Load, View};
use super::{Sizes, bindings, constants, read_sizes, term_count};
use crate::error::Result;
use crate::kernels::store::Store;
use crate::kernels::template::{Kernel, Workgroup, fill};

const SHARED: &str = include_str!("../../../shaders/dot/shared.wgsl");
/// Rows and columns of the tile of a workgroup.
const TILE: usize = 64;
/// Terms of a step; the loop over them is within the one over steps.
const STEP: usize = 16;

/// The product with tiles in workgroup memory. Operands are loaded along the axis in which they are contiguous.
pub(super) fn kernel(sizes: Sizes, lhs: &View, rhs: &View, store: &Store) -> Result<Kernel> {
    let left_along_k = lhs.strides[2] == 1 || lhs.strides[1] != 1;
    let right_along_k = rhs.strides[1] == 1 && rhs.strides[2] != 1;
    type Names = [&'static str; 2];
    let load = |name,
                binding,
                view: &View,
                (sizes, names): ([usize; 3], Names),
                transpose,
                zero_beyond| {
        let ([b, i, j], [name_i, name_j]) = (sizes, names);
        let (view, sizes, names) = if transpose {
            (view.transposed(), [b, j, i], [name_j, name_i])
        } else {
            (view.clone(), sizes, names)
        };
        Load {
            name,
            binding,
            view: &view,
            sizes,
            names,
            overruns: [sizes[1], sizes[2]].map(|size| !size.is_multiple_of(4)),
            access: Access::Row,
            zero_beyond,
            loads: Loads::Plain,
        }
        .text()
    };
    // Terms beyond K are zero in the tile of A.
    let (left, lhs_type) = load(
        "left",
        "lhs",
        lhs,
        (sizes.left(), ["M()", "K()"]),
        !left_along_k,
        left_along_k,
    );
    let of_right = (sizes.right(), ["K()", "N"]);
    let (right, rhs_type) = load("right", "rhs", rhs, of_right, right_along_k, false);
    let constants = constants(sizes, lhs, store)
        + &format!(
            "const LEFT_ALONG_K: bool = {left_along_k};\nconst RIGHT_ALONG_K: bool = {right_along_k};\n"
        )
        + &bindings([store.element, lhs_type, rhs_type], store);
    let accumulators = ["c0", "c1", "c2", "c3"].map(String::from);
    let terms = Terms {
        k: sizes.k,
        step: STEP,
        together: 1,
    };
    let count = term_count(sizes, lhs);
    let levels = Levels::new(terms, count, &accumulators, "vec4<f32>", "groups.z");
    let text = fill(
        SHARED,
        &[
            ("constants", &constants),
            ("loads", &(left + &right)),
            ("open", &levels.open),
            ("close", &levels.close),
            ("store", &store.text),
        ],
    )?;
    Ok(Kernel {
        workgroup: Workgroup {
            invocations: 256,
            bytes: 4 * (1056 + 1088),
        },
        label: "dot, shared",
        textures: Vec::new(),
        longest_loop: terms.iterations(STEP),
        sizes: read_sizes(sizes, lhs)?,
        before: None,
        text: store.functions.clone() + &text,
        workgroups: sizes.batch * sizes.m.div_ceil(TILE) * sizes.n.div_ceil(TILE),
    })
}
