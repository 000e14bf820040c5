//! Face of `shaders/pointwise.wgsl` and `shaders/reduce.wgsl`: kernels generated from an [`Expression`].

use std::fmt::Write as _;

use super::expression::{Expression, Step};
use super::function::Binary;
use super::loops::{CHUNK, TWO_LEVELS, in_chunks};
use super::template::{Before, Kernel, Rows, Workgroup, declare_sizes, fill, size};
use crate::error::Result;

const FUNCTIONS: &str = include_str!("../../shaders/functions.wgsl");
const POINTWISE: &str = include_str!("../../shaders/pointwise.wgsl");
const REDUCE: &str = include_str!("../../shaders/reduce.wgsl");

/// How the terms of a reduction are combined.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Reduction {
    Sum,
    Max,
}

/// Results from which one invocation per result keeps a GPU busy, and a software adapter with its few cores.
const ENOUGH_OUTPUTS: [usize; 2] = [2048, 16];
/// Invocations of a workgroup that share a result.
const LANES: usize = 64;
/// Most parts of a result of one invocation each; with more terms a workgroup shares every part.
const MOST_PARTS_ALONE: usize = 64;
/// Iterations of the loops over the lanes.
const OVER_LANES: usize = 14;
/// Terms up to which one invocation adds them faster than a workgroup with its barriers; which are dear in software.
const FEW_TERMS: [usize; 2] = [32, 256];

pub(crate) fn functions(vector: bool) -> Result<String> {
    fill(
        FUNCTIONS,
        &[(
            "type",
            if vector {
                "alias T = vec4<f32>;\nalias U = vec4<u32>;"
            } else {
                "alias T = f32;\nalias U = u32;"
            },
        )],
    )
}

/// The axis of vec4s and the bindings read as scalars; only where no vec4 of the result spans two rows, and
/// rows start where one may.
fn vector_axis(expression: &Expression, rows: Option<Rows>) -> (Option<usize>, Option<Vec<bool>>) {
    let fits = |axis| {
        axis >= expression.kept
            || rows
                .is_none_or(|rows| rows.elements.is_multiple_of(4) && rows.pitch.is_multiple_of(4))
    };
    expression
        .vector_axis()
        .filter(|&(axis, _)| fits(axis))
        .unzip()
}

/// The type in which results are stored: one float, or four neighbours.
fn element(four: bool) -> &'static str {
    if four { "Four" } else { "f32" }
}

/// Stores one of them.
fn store(four: bool) -> &'static str {
    if four {
        "    result[at] = stored(value);"
    } else {
        "    result[at] = value;"
    }
}

/// Where result `i` (of type `T`, `unit` elements each) lies.
fn place(rows: Option<Rows>, unit: usize) -> String {
    let at = match rows {
        None => "i".to_string(),
        Some(Rows { elements, pitch }) => {
            let (elements, pitch) = (elements / unit, pitch / unit);
            format!("(i / {elements}u) * {pitch}u + i % {elements}u")
        }
    };
    format!("\nfn place(i: u32) -> u32 {{ return {at}; }}")
}

/// The kernel of an elementwise computation.
pub(crate) fn pointwise(expression: &Expression, rows: Option<Rows>) -> Result<Kernel> {
    let (vector, scalar) = vector_axis(expression, rows);
    let count = expression.axes.iter().product::<usize>() / if vector.is_some() { 4 } else { 1 };
    let mut bindings = format!(
        "@group(0) @binding(0) var<storage, read_write> result: array<{}>;\n",
        element(vector.is_some())
    );
    bindings += &expression.declarations(1, scalar.as_deref());
    bindings +=
        &expression.also_declarations(1 + expression.integer.len(), element(vector.is_some()));
    let last = 1 + expression.integer.len() + expression.also.len();
    bindings += &declare_sizes(last, &["COUNT"]);
    bindings += &place(rows, if vector.is_some() { 4 } else { 1 });
    let body = expression.unravel(0..expression.axes.len(), "i", vector)
        + &expression.body(vector, 1, "T")
        + &expression.also_stores("i", vector.is_some());
    let store = store(vector.is_some());
    let kernel = fill(
        POINTWISE,
        &[("bindings", &bindings), ("body", &body), ("store", store)],
    )?;
    Ok(Kernel {
        workgroup: Workgroup::APART,
        label: "pointwise",
        textures: Vec::new(),
        longest_loop: 0,
        sizes: Some([size(count)?, 0, 0, 0]),
        before: None,
        text: functions(vector.is_some())? + &kernel,
        workgroups: count.div_ceil(64),
    })
}

/// A reduction over all axes of `terms` from `terms.kept` on, and what is elementwise in its results.
#[derive(Clone, Debug)]
pub(crate) struct Reduce {
    pub(crate) terms: Expression,
    pub(crate) kind: Reduction,
    /// Applied to each result before it is stored; its loads are the operands after those of the terms.
    pub(crate) finish: Option<Expression>,
    /// Whether the device is a software adapter.
    pub(crate) software: bool,
}

/// How a reduction is divided among invocations.
#[derive(Clone, Debug)]
struct Division {
    /// The axis of vec4s, the bindings of the terms read as scalars, and those of the finish.
    vector: Option<(usize, Vec<bool>, Option<Vec<bool>>)>,
    /// Whether a vec4 lies along a reduced axis, so that it is folded into one result.
    folds: bool,
    /// Elements of a result.
    unit: usize,
    outputs: usize,
    /// Terms of a result, of four elements each if they fold.
    terms: usize,
    lanes: usize,
    /// Parts of the terms, of `each` terms or fewer.
    parts: usize,
    each: usize,
}

impl Division {
    fn longest_loop(&self) -> usize {
        let over_lanes = if self.lanes > 1 { OVER_LANES } else { 0 };
        in_chunks(self.each.min(self.terms).div_ceil(self.lanes)) + over_lanes
    }
}

/// `outputs` sums or maxima over `parts` results of each, which lie `outputs` apart.
fn over_parts(outputs: usize, parts: usize) -> Expression {
    let kept = usize::from(outputs > 1);
    Expression {
        axes: [outputs, parts][1 - kept..].to_vec(),
        kept,
        steps: vec![Step::Load {
            binding: 0,
            offset: 0,
            strides: [1, outputs][1 - kept..].to_vec(),
            inside: Vec::new(),
        }],
        integer: vec![false],
        value: 0,
        also: Vec::new(),
    }
}

/// The kernel that adds up `parts` results of `outputs` elements each, which `kernel` makes from its first `operands` operands.
pub(crate) fn added_up(
    kernel: Kernel,
    operands: usize,
    (outputs, parts): (usize, usize),
    reduce: &Reduce,
    rows: Option<Rows>,
) -> Result<Kernel> {
    let last = Reduce {
        terms: over_parts(outputs, parts),
        ..reduce.clone()
    };
    Ok(Kernel {
        before: Some(Before {
            kernels: vec![(kernel, 0..outputs * parts)],
            operands,
            results: std::iter::once(0..outputs * parts).collect(),
        }),
        ..last.kernel(rows)?
    })
}

impl Reduce {
    /// A sum without anything before or after it, for [`added_up`].
    pub(crate) fn plain_sum(software: bool) -> Self {
        Self {
            terms: over_parts(1, 1),
            kind: Reduction::Sum,
            finish: None,
            software,
        }
    }

    fn division(&self, rows: Option<Rows>) -> Division {
        let (terms, kept) = (&self.terms, self.terms.kept);
        let vector = self.vector_axis(rows);
        let folds = vector.as_ref().is_some_and(|(axis, _, _)| *axis >= kept);
        let unit = if vector.is_some() && !folds { 4 } else { 1 };
        let outputs = terms.axes[..kept].iter().product::<usize>() / unit;
        let count = terms.axes[kept..].iter().product::<usize>() / if folds { 4 } else { 1 };
        let kind = usize::from(self.software);
        let alone = count <= FEW_TERMS[kind]
            || outputs >= ENOUGH_OUTPUTS[kind] && count <= MOST_PARTS_ALONE * TWO_LEVELS;
        let lanes = if alone { 1 } else { LANES };
        let parts = count.div_ceil(lanes * TWO_LEVELS);
        // Whole chunks.
        let each = count.div_ceil(parts).next_multiple_of(lanes * CHUNK);
        Division {
            vector,
            folds,
            unit,
            outputs,
            terms: count,
            lanes,
            parts: count.div_ceil(each),
            each,
        }
    }

    /// The axis of vec4s, the bindings of the terms read as scalars, and those of the finish. A vec4 along a reduced axis is folded into
    /// one result.
    fn vector_axis(&self, rows: Option<Rows>) -> Option<(usize, Vec<bool>, Option<Vec<bool>>)> {
        let (Some(axis), Some(scalar)) = vector_axis(&self.terms, rows) else {
            return None;
        };
        let finish = match &self.finish {
            None => None,
            // One result: the functions are there for vec4s alone.
            Some(finish) if axis >= self.terms.kept => {
                return (!finish.calls_functions()).then_some((axis, scalar, None));
            }
            // Four neighbouring results: also for the finish, whose last axis they lie along.
            Some(finish) => Some(finish.vector_along(finish.axes.len().checked_sub(1)?)?),
        };
        Some((axis, scalar, finish))
    }

    /// The kernel, with its results one after another or in rows at a pitch. More terms than one workgroup adds up are divided into parts.
    pub(crate) fn kernel(&self, rows: Option<Rows>) -> Result<Kernel> {
        let division = self.division(rows);
        if division.parts == 1 {
            return self.part(&division, rows);
        }
        let first = Self {
            finish: None,
            ..self.clone()
        };
        // As it was divided: without the finish there may be another axis of vec4s.
        let kernel = first.part(&division, None)?;
        let results = (division.outputs * division.unit, division.parts);
        added_up(kernel, self.terms.integer.len(), results, self, rows)
    }

    /// The kernel that makes the results of all parts, one part after another.
    fn part(&self, division: &Division, rows: Option<Rows>) -> Result<Kernel> {
        let (terms, kept) = (&self.terms, self.terms.kept);
        let &Division {
            vector: ref choice,
            folds,
            unit,
            outputs,
            terms: count,
            lanes,
            parts,
            each,
        } = division;
        let vector = choice.as_ref().map(|(axis, _, _)| *axis);
        let scalar = choice.as_ref().map(|(_, scalar, _)| scalar.as_slice());
        let finish_scalar = choice.as_ref().and_then(|(_, _, finish)| finish.as_deref());
        let (start, combine, fold) = match self.kind {
            Reduction::Sum => (
                "T(0.0)",
                "a + b".to_string(),
                "(a.x + a.y) + (a.z + a.w)".to_string(),
            ),
            Reduction::Max => {
                let max = |a: &str, b: &str, kind| format!("({})", Binary::Max.wgsl(a, b, kind));
                let pairs = (max("a.x", "a.y", "f32"), max("a.z", "a.w", "f32"));
                (
                    // WGSL has no literal for -inf; this is not a constant expression, which could not have that value.
                    "bitcast<T>(bits)",
                    max("a", "b", "T"),
                    max(&pairs.0, &pairs.1, "f32"),
                )
            }
        };
        let mut bindings = format!(
            "@group(0) @binding(0) var<storage, read_write> result: array<{}>;\n",
            element(unit == 4)
        );
        bindings += &terms.declarations(1, scalar);
        let first = 1 + terms.integer.len();
        if let Some(finish) = &self.finish {
            bindings += &finish.declarations(first, finish_scalar);
        }
        let result = if folds { "f32" } else { "T" };
        let last = first
            + self
                .finish
                .as_ref()
                .map_or(0, |finish| finish.integer.len());
        bindings += &declare_sizes(last, &["OUTPUTS", "TERMS", "PARTS", "EACH"]);
        let _ = write!(
            bindings,
            "const PARTED: bool = {};\nconst LANES: u32 = {lanes}u;\nalias R = {result};",
            parts > 1
        );
        bindings += &place(rows, unit);
        let inner = if folds { fold.as_str() } else { "a" };
        let finish = match &self.finish {
            None => format!("    return {inner};"),
            Some(finish) => {
                let axes = finish.axes.len();
                let along = if unit == 4 { axes.checked_sub(1) } else { None };
                format!(
                    "    let inner = {inner};\n{}{}\n    return value;",
                    finish.unravel(0..axes, "o", along),
                    finish.body(along, first, result)
                )
            }
        };
        let combine = format!(
            "fn start() -> T {{\n    let bits = U(0xff800000u);\n    return {start};\n}}\nfn combine(a: T, b: T) -> T {{ return \
                {combine}; }}\nfn finish(o: u32, a: T) -> R {{\n{finish}\n}}\n\
             fn store(at: u32, value: R) {{\n{}\n}}",
            store(unit == 4)
        );
        let body = terms.unravel(0..kept, "o", vector)
            + &terms.unravel(kept..terms.axes.len(), "r", vector)
            + &terms.body(vector, 1, "T");
        let kernel = fill(
            REDUCE,
            &[
                ("bindings", &bindings),
                ("combine", &combine),
                ("body", &body),
            ],
        )?;
        Ok(Kernel {
            // A partial result of every invocation, of one or four elements.
            workgroup: Workgroup {
                invocations: 64,
                bytes: 64 * 4 * if vector.is_some() { 4 } else { 1 },
            },
            textures: Vec::new(),
            longest_loop: division.longest_loop(),
            sizes: Some([size(outputs)?, size(count)?, size(parts)?, size(each)?]),
            before: None,
            label: match self.kind {
                Reduction::Sum => "sum",
                Reduction::Max => "max",
            },
            text: functions(vector.is_some())? + &kernel,
            workgroups: if lanes == 1 {
                (outputs * parts).div_ceil(64)
            } else {
                outputs * parts
            },
        })
    }
}
