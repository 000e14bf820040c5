//! Faces of the kernels on flat vectors: `combine`, `inner_products` with `sum_partials`, `normalize`, `preconditioner`, `first_order`.

use super::dot::Capabilities;
use super::four::four;
use super::loops::{self, in_chunks};
use super::requirements;
use crate::error::{Error, Result};
use crate::gpu::{Gpu, Recording, Slice, grid};

const COMBINE: &str = include_str!("../../shaders/combine.wgsl");
const INNER_PRODUCTS: &str = include_str!("../../shaders/inner_products.wgsl");
const SUM_PARTIALS: &str = include_str!("../../shaders/sum_partials.wgsl");
const PRECONDITIONER: &str = include_str!("../../shaders/preconditioner.wgsl");
const NORMALIZE: &str = include_str!("../../shaders/normalize.wgsl");
const FIRST_ORDER: &str = include_str!("../../shaders/first_order.wgsl");

/// vec4s that an invocation of `combine` makes.
const COMBINED: usize = 4;

/// Number of vec4s of a flat vector, after checking that all have the same length.
pub(crate) fn vec4s(vectors: &[&Slice]) -> Result<usize> {
    let Some(first) = vectors.first() else {
        return Ok(0);
    };
    for vector in vectors {
        if vector.len() != first.len() || !vector.len().is_multiple_of(4) {
            let what = format!("vector '{}'", vector.label());
            return Err(Error::Length {
                what,
                found: vector.len(),
                expected: first.len().next_multiple_of(4),
            });
        }
    }
    Ok(first.len() / 4)
}

/// Workgroups of a reduction over `count` vec4s: enough for a large GPU, but at least four vec4s per invocation.
pub(crate) fn reduction_groups(count: usize) -> usize {
    count.div_ceil(256).clamp(1, 256)
}

/// Records `out = a x + b y` with `(a, b) = coefficients[slot..slot + 2]`; `out` must be another buffer than `x` and `y`.
///
/// # Errors
/// [`Error::Length`] unless the vectors have one length, a multiple of 4; limits of the device.
pub fn combine(
    gpu: &Gpu,
    recording: &mut Recording,
    out: &Slice,
    x: &Slice,
    y: &Slice,
    (coefficients, slot): (&Slice, usize),
) -> Result<()> {
    let count = vec4s(&[out, x, y])?;
    let pipeline = gpu.kernel(
        "combine",
        &[four(&Capabilities::of(gpu)), COMBINE].concat(),
        &[("COUNT", count as f64), ("SLOT", slot as f64)],
        requirements::COMBINE,
    )?;
    recording.dispatch(
        gpu,
        &pipeline,
        &[out, x, y, coefficients],
        grid(gpu.limits(), count.div_ceil(64 * COMBINED))?,
    )
}

/// Elements that [`inner_products`] needs for its partial sums.
#[must_use]
pub fn partial_elements(vector: &Slice) -> usize {
    4 * reduction_groups(vector.len() / 4)
}

/// Records `result[first..first + 3] = (x.y, x.x, y.y)`, summed in an order that depends on nothing but the length; `partials` has the
/// elements that [`partial_elements`] says.
///
/// # Errors
/// As [`combine`].
pub fn inner_products(
    gpu: &Gpu,
    recording: &mut Recording,
    (result, first): (&Slice, usize),
    partials: &Slice,
    x: &Slice,
    y: &Slice,
) -> Result<()> {
    let count = vec4s(&[x, y])?;
    let groups = reduction_groups(count);
    // Vectors of 1 GiB, and no binding is larger than 4 GiB, are 4,160 iterations; the lanes are added by halving six times.
    loops::check("inner_products", in_chunks(count.div_ceil(64 * groups)) + 6)?;
    let text = [four(&Capabilities::of(gpu)), INNER_PRODUCTS].concat();
    let first_stage = gpu.kernel(
        "inner_products",
        &text,
        &[("COUNT", count as f64)],
        requirements::INNER_PRODUCTS,
    )?;
    recording.dispatch(gpu, &first_stage, &[partials, x, y], [groups as u32, 1, 1])?;
    let constants = [("GROUPS", groups as f64), ("FIRST", first as f64)];
    let second_stage = gpu.kernel(
        "sum_partials",
        SUM_PARTIALS,
        &constants,
        requirements::SUM_PARTIALS,
    )?;
    recording.dispatch(gpu, &second_stage, &[result, partials], [1, 1, 1])
}

/// Records `y = x / |x|` with `sums[0] = |x|^2`; zeros where that is zero. `y` must lie in another buffer than `x`.
pub(crate) fn normalize(
    gpu: &Gpu,
    recording: &mut Recording,
    y: &Slice,
    x: &Slice,
    sums: &Slice,
) -> Result<()> {
    let count = vec4s(&[y, x])?;
    let pipeline = gpu.kernel(
        "normalize",
        NORMALIZE,
        &[("COUNT", count as f64)],
        requirements::NORMALIZE,
    )?;
    let workgroups = grid(gpu.limits(), count.div_ceil(64))?;
    recording.dispatch(gpu, &pipeline, &[y, x, sums], workgroups)
}

/// Records `inverse = (diagonal + settings[0])^-settings[1]`.
pub(crate) fn preconditioner(
    gpu: &Gpu,
    recording: &mut Recording,
    inverse: &Slice,
    diagonal: &Slice,
    settings: &Slice,
) -> Result<()> {
    let count = vec4s(&[inverse, diagonal])?;
    let pipeline = gpu.kernel(
        "preconditioner",
        PRECONDITIONER,
        &[("COUNT", count as f64)],
        requirements::PRECONDITIONER,
    )?;
    recording.dispatch(
        gpu,
        &pipeline,
        &[inverse, diagonal, settings],
        grid(gpu.limits(), count.div_ceil(64))?,
    )
}

/// The update rules of `shaders/first_order.wgsl`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum FirstOrderMethod {
    /// With momentum.
    Sgd,
    /// With two moments.
    Adam,
}

/// What a first-order step reads and writes.
#[derive(Clone, Copy, Debug)]
pub(crate) struct FirstOrderOperands<'a> {
    pub(crate) theta: &'a Slice,
    pub(crate) first_moment: &'a Slice,
    pub(crate) second_moment: &'a Slice,
    pub(crate) gradient: &'a Slice,
    /// Eight settings, the loss, three sums: [`FIRST_ORDER_SCALARS`], from [`Gpu::uniform`].
    pub(crate) scalars: &'a Slice,
}

/// Elements of the scalars of a first-order step, and where the loss and the sums are among them.
pub(crate) const FIRST_ORDER_SCALARS: usize = 12;
pub(crate) const FIRST_ORDER_LOSS: usize = 8;
pub(crate) const FIRST_ORDER_SUMS: usize = 9;

/// Records one step of a first-order method.
pub(crate) fn first_order(
    gpu: &Gpu,
    recording: &mut Recording,
    method: FirstOrderMethod,
    on: &FirstOrderOperands<'_>,
) -> Result<()> {
    let count = vec4s(&[on.theta, on.first_moment, on.second_moment, on.gradient])?;
    let constants = [
        ("COUNT", count as f64),
        (
            "METHOD",
            f64::from(u8::from(method == FirstOrderMethod::Adam)),
        ),
    ];
    let pipeline = gpu.kernel(
        "first_order",
        FIRST_ORDER,
        &constants,
        requirements::FIRST_ORDER,
    )?;
    let bindings = [
        on.theta,
        on.first_moment,
        on.second_moment,
        on.gradient,
        on.scalars,
    ];
    recording.dispatch(
        gpu,
        &pipeline,
        &bindings,
        grid(gpu.limits(), count.div_ceil(64))?,
    )
}
