//! Face of `shaders/dot/subgroup.wgsl`, whose unrolled parts are written here.

use std::fmt::Write as _;

use super::family::{Loads, SubgroupTile};
use super::levels::{Levels, Terms};
use super::view::{Access, Load, TEXTURE, View};
use super::{Sizes, bindings, constants, overruns, read_sizes, term_count};
use crate::error::Result;
use crate::gpu::TEXTURE_ELEMENTS;
use crate::kernels::store::Store;
use crate::kernels::template::{Kernel, Workgroup, fill};

const SUBGROUP: &str = include_str!("../../../shaders/dot/subgroup.wgsl");
/// Invocations of a workgroup where subgroups are large.
const WORKGROUP: usize = 128;

/// The product with a tile per subgroup.
pub(super) fn kernel(
    sizes: Sizes,
    lhs: &View,
    rhs: &View,
    tile: SubgroupTile,
    store: &Store,
) -> Result<Kernel> {
    let Sizes { batch, m, n, k } = sizes;
    let lanes = tile.subgroup_size as usize;
    let vectors = tile.vectors as usize;
    // The product that the tiles see: rows are unrolled, columns are spread over the lanes.
    let (row_count, column_count) = if tile.exchanged { (n, m) } else { (m, n) };
    let (row_name, column_name) = if tile.exchanged {
        ("N", "M()")
    } else {
        ("M()", "N")
    };
    let of_rows = |tile: usize| overruns(sizes, lhs, tile);
    let of_columns = |tile: usize| !n.is_multiple_of(tile);
    let row_overruns = |rows: usize| {
        if tile.exchanged {
            of_columns(rows)
        } else {
            of_rows(rows)
        }
    };
    let column_overruns = |columns: usize| {
        if tile.exchanged {
            of_rows(columns)
        } else {
            of_columns(columns)
        }
    };
    let rows = (tile.rows as usize).min(row_count.next_multiple_of(4));
    let columns = 4 * lanes * vectors;
    let exchange = |view: &View| {
        if tile.exchanged {
            view.transposed()
        } else {
            view.clone()
        }
    };
    let (row_operand, row_binding, column_operand, column_binding) = if tile.exchanged {
        (rhs, "rhs", lhs, "lhs")
    } else {
        (lhs, "lhs", rhs, "rhs")
    };
    let (row_operand, column_operand) = (exchange(row_operand), exchange(column_operand));
    let row_sizes = [batch, row_count, k];
    // An operand that is contiguous along rows is loaded in blocks of four rows, if there are rows for more than half of the lanes.
    let by_blocks =
        !row_operand.aligned(2, row_sizes) && row_operand.aligned(1, row_sizes) && rows > 2 * lanes;
    let column_sizes = [batch, k, column_count];
    // What is larger than a texture is loaded from its buffer.
    let loads = |view: &View, sizes| match tile.loads {
        Loads::Texture if view.end(sizes) > TEXTURE_ELEMENTS => Loads::Plain,
        loads => loads,
    };
    let (left, row_type) = Load {
        name: "left",
        binding: row_binding,
        view: &row_operand,
        sizes: row_sizes,
        names: [row_name, "K()"],
        overruns: [row_overruns(4), !k.is_multiple_of(4)],
        access: if by_blocks {
            Access::Block
        } else {
            Access::Row
        },
        zero_beyond: true,
        loads: loads(&row_operand, row_sizes),
    }
    .text();
    let (right, column_type) = Load {
        name: "right",
        binding: column_binding,
        view: &column_operand,
        sizes: column_sizes,
        names: ["K()", column_name],
        overruns: [!k.is_multiple_of(4), column_overruns(4)],
        access: Access::Block,
        zero_beyond: false,
        loads: loads(&column_operand, column_sizes),
    }
    .text();
    let types = if tile.exchanged {
        [store.element, column_type, row_type]
    } else {
        [store.element, row_type, column_type]
    };
    let ends = if tile.exchanged {
        [column_operand.end(column_sizes), row_operand.end(row_sizes)]
    } else {
        [row_operand.end(row_sizes), column_operand.end(column_sizes)]
    };
    let textures = (1..3)
        .filter(|&binding| types[binding] == TEXTURE)
        .map(|binding| (binding, ends[binding - 1].next_multiple_of(4)))
        .collect();
    let (down, across) = (row_count.div_ceil(rows), column_count.div_ceil(columns));
    let tiles = batch * down * across;
    let subgroups = if lanes < 32 {
        1
    } else {
        (WORKGROUP / lanes).max(1)
    };
    let constants = constants(sizes, lhs, store)
        + &format!(
            "const SUBGROUP: u32 = {lanes}u;\nconst SUBGROUPS: u32 = {subgroups}u;\n\
             const TILE_ROWS: u32 = {rows}u;\nconst TILE_COLUMNS: u32 = {columns}u;\n\
             fn TILES_DOWN() -> u32 {{ return ({row_name} + {rows}u - 1u) / {rows}u; }}\n\
             fn TILES_ACROSS() -> u32 {{ return ({column_name} + {columns}u - 1u) / {columns}u; }}\n"
        )
        + &bindings(types, store);
    let terms = Terms {
        k,
        step: 4,
        together: 1,
    };
    let count = term_count(sizes, lhs);
    let levels = Levels::new(terms, count, &names(rows, vectors), "vec4<f32>", "");
    let text = fill(
        SUBGROUP,
        &[
            ("constants", &constants),
            ("loads", &(left + &right)),
            ("open", &levels.open),
            ("close", &levels.close),
            ("store", &store.text),
            ("accumulators", &accumulators(rows, vectors)),
            (
                "step",
                &step(
                    [rows, lanes, vectors],
                    by_blocks,
                    (row_overruns(rows), row_name),
                    (column_overruns(columns), column_name),
                ),
            ),
            (
                "results",
                &results(rows, lanes, vectors, tile.exchanged, store.expensive),
            ),
        ],
    )?;
    Ok(Kernel {
        workgroup: Workgroup {
            invocations: (subgroups * lanes) as u32,
            bytes: 0,
        },
        label: "dot, subgroup",
        textures,
        // An expensive store is a loop over the rows, for each vector.
        longest_loop: terms.iterations(0) + rows * vectors,
        sizes: read_sizes(sizes, lhs)?,
        before: None,
        text: store.functions.clone() + &text,
        workgroups: tiles.div_ceil(subgroups),
    })
}

/// `c<row>_<vector>`: four neighbouring columns of a row, of this lane.
fn names(rows: usize, vectors: usize) -> Vec<String> {
    let of_row = |row| (0..vectors).map(move |vector| format!("c{row}_{vector}"));
    (0..rows).flat_map(of_row).collect()
}

fn accumulators(rows: usize, vectors: usize) -> String {
    let declare = |name| format!("    var {name} = vec4<f32>();\n");
    names(rows, vectors).into_iter().map(declare).collect()
}

/// Where the last four of an axis begin.
fn last_four(size: &str) -> String {
    format!("({size} - 1u) / 4u * 4u")
}

/// Loads and multiply-adds of four k.
fn step(
    [rows, lanes, vectors]: [usize; 3],
    by_blocks: bool,
    (row_overruns, row_name): (bool, &str),
    (column_overruns, column_name): (bool, &str),
) -> String {
    let mut text = String::new();
    // Rows that one load of all lanes covers, and where a load may start at most.
    let (covered, per_lane, last) = if by_blocks {
        (4 * lanes, 4, last_four(row_name))
    } else {
        (lanes, 1, format!("{row_name} - 1u"))
    };
    let clamped = |at: String, overrun: bool, last: &str| {
        if overrun {
            format!("min({at}, {last})")
        } else {
            at
        }
    };
    let loads = rows.div_ceil(covered);
    for load in 0..loads {
        let at = format!("row + {}u + lane * {per_lane}u", load * covered);
        // Tiles start at multiples of `rows`; the last may end beyond the last row, and so may the lanes of the last load.
        let overrun = row_overruns || !rows.is_multiple_of(covered);
        let at = clamped(at, overrun, &last);
        let _ = writeln!(text, "        let a{load} = left(batch, {at}, k);");
    }
    for vector in 0..vectors {
        let at = format!("column + {}u + lane * 4u", vector * 4 * lanes);
        let at = clamped(at, column_overruns, &last_four(column_name));
        let _ = writeln!(text, "        let b{vector} = right(batch, k, {at});");
    }
    for row in 0..rows {
        let (load, within) = (row / covered, row % covered);
        let (lane, part) = if by_blocks {
            (within / 4, format!("[{}]", within % 4))
        } else {
            (within, String::new())
        };
        // A term's rounding follows those before it: the order of k is that of the loop.
        for vector in 0..vectors {
            let sum = format!("c{row}_{vector}");
            for (q, component) in ["x", "y", "z", "w"].into_iter().enumerate() {
                let _ = writeln!(
                    text,
                    "        {sum} = fma(vec4<f32>(subgroupBroadcast(a{load}{part}.{component}, {lane}u)), b{vector}[{q}], {sum});"
                );
            }
        }
    }
    text
}

/// The accumulators go to the result. Those of exchanged operands go four rows at a time, which are neighbouring columns of the result.
///
/// With an expensive elementwise part they go through an array and a loop, so that its text is there once: compilers take long over 64
/// copies of a tanh, and run time is lost to the array's loads only where there is much else to compute.
fn results(rows: usize, lanes: usize, vectors: usize, exchanged: bool, expensive: bool) -> String {
    let mut text = String::new();
    for vector in 0..vectors {
        let column = format!("column + {}u + lane * 4u", vector * 4 * lanes);
        let value = |index: usize| {
            if exchanged {
                let component = ["x", "y", "z", "w"][index % 4];
                let [a, b, c, d] =
                    [0, 1, 2, 3].map(|r| format!("c{}_{vector}.{component}", index / 4 * 4 + r));
                format!("vec4<f32>({a}, {b}, {c}, {d})")
            } else {
                format!("c{index}_{vector}")
            }
        };
        let store = |index: &str, value: &str| {
            if exchanged {
                format!("store(batch, {column} + {index} % 4u, row + {index} / 4u * 4u, {value});")
            } else {
                format!("store(batch, row + {index}, {column}, {value});")
            }
        };
        // Writing to a `String` cannot fail.
        if expensive {
            let values: Vec<String> = (0..rows).map(value).collect();
            let _ = write!(
                text,
                "    var tile{vector} = array<vec4<f32>, {rows}>(\n        {}\n    );\n    \
                 for (var i = 0u; i < {rows}u; i += 1u) {{\n        {}\n    }}\n",
                values.join(",\n        "),
                store("i", &format!("tile{vector}[i]"))
            );
        } else {
            for row in 0..rows {
                let _ = writeln!(text, "    {}", store(&format!("{row}u"), &value(row)));
            }
        }
    }
    text
}
