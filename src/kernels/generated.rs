//! Face of `shaders/pointwise.wgsl` and `shaders/reduce.wgsl`: kernels generated from an [`Expression`].

use std::fmt::Write as _;

use super::expression::Expression;
use super::template::{Kernel, fill};
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

/// Results (or, for sums over few terms, invocations) from which one invocation per result keeps a device busy.
const ENOUGH_OUTPUTS: usize = 2048;
/// Terms up to which one invocation adds them faster than a workgroup with its barriers.
const FEW_TERMS: usize = 32;

fn functions(vector: bool) -> Result<String> {
    fill(
        FUNCTIONS,
        &[(
            "type",
            if vector {
                "alias T = vec4<f32>;"
            } else {
                "alias T = f32;"
            },
        )],
    )
}

/// The kernel of an elementwise computation.
pub(crate) fn pointwise(expression: &Expression) -> Result<Kernel> {
    let (vector, scalar) = expression.vector_axis().unzip();
    let count = expression.axes.iter().product::<usize>() / if vector.is_some() { 4 } else { 1 };
    let mut bindings =
        String::from("@group(0) @binding(0) var<storage, read_write> result: array<T>;\n");
    bindings += &expression.declarations(scalar.as_deref());
    let _ = write!(bindings, "const COUNT: u32 = {count}u;");
    let body = expression.unravel(0..expression.axes.len(), "i", vector) + &expression.body(vector);
    let kernel = fill(POINTWISE, &[("bindings", &bindings), ("body", &body)])?;
    Ok(Kernel {
        label: "pointwise",
        text: functions(vector.is_some())? + &kernel,
        workgroups: count.div_ceil(64),
    })
}

/// The kernel of a reduction over all axes from `expression.kept` on.
pub(crate) fn reduce(expression: &Expression, reduction: Reduction) -> Result<Kernel> {
    let kept = expression.kept;
    let (vector, scalar) = expression.vector_axis().unzip();
    // A vec4 along a reduced axis is folded at the end; along a kept one it is four results.
    let folds = vector.is_some_and(|axis| axis >= kept);
    let outputs: usize = expression.axes[..kept].iter().product();
    let outputs = if vector.is_some() && !folds {
        outputs / 4
    } else {
        outputs
    };
    let terms: usize = expression.axes[kept..].iter().product();
    let terms = if folds { terms / 4 } else { terms };
    let lanes = if terms <= FEW_TERMS || outputs >= ENOUGH_OUTPUTS {
        1
    } else {
        64
    };
    let start = match reduction {
        Reduction::Sum => "0.0",
        // The least f32, rounded towards zero: Tint refuses a literal beyond it that would round to it.
        Reduction::Max => "-3.40282346e38",
    };
    let mut bindings =
        String::from("@group(0) @binding(0) var<storage, read_write> result: array<R>;\n");
    bindings += &expression.declarations(scalar.as_deref());
    let result = if folds { "f32" } else { "T" };
    let _ = write!(
        bindings,
        "const OUTPUTS: u32 = {outputs}u;\nconst TERMS: u32 = {terms}u;\nconst LANES: u32 = {lanes}u;\n\
         const START: T = T({start});\nalias R = {result};"
    );
    let (combine, fold) = match reduction {
        Reduction::Sum => ("a + b", "(a.x + a.y) + (a.z + a.w)"),
        Reduction::Max => ("max(a, b)", "max(max(a.x, a.y), max(a.z, a.w))"),
    };
    let finish = if folds { fold } else { "a" };
    let combine = format!(
        "fn combine(a: T, b: T) -> T {{ return {combine}; }}\nfn finish(a: T) -> R {{ return {finish}; }}"
    );
    let body = expression.unravel(0..kept, "o", vector)
        + &expression.unravel(kept..expression.axes.len(), "r", vector)
        + &expression.body(vector);
    let kernel = fill(
        REDUCE,
        &[
            ("bindings", &bindings),
            ("combine", &combine),
            ("body", &body),
        ],
    )?;
    Ok(Kernel {
        label: match reduction {
            Reduction::Sum => "sum",
            Reduction::Max => "max",
        },
        text: functions(vector.is_some())? + &kernel,
        workgroups: if lanes == 1 {
            outputs.div_ceil(64)
        } else {
            outputs
        },
    })
}
