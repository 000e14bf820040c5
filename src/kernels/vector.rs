//! Faces of the kernels on flat vectors: `combine`, `inner_products` with `sum_partials`, `normalize`, `preconditioner`, `first_order`.
//!
//! Each kernel runs once for each segment of the vectors; sums have a place for each segment among their partial sums, which one last
//! kernel adds.

use super::dot::Capabilities;
use super::finite::FINITE;
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
const DISPLACEMENT: &str = include_str!("../../shaders/displacement.wgsl");
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

/// The segments of vectors, after checking that all have the same length: of each vector a slice, and their number of vec4s.
pub(crate) fn in_segments<'a, const N: usize>(
    vectors: [&'a Slice; N],
) -> Result<impl Iterator<Item = (usize, [Slice; N])> + use<'a, N>> {
    vec4s(&vectors)?;
    let segments = vectors.first().map_or(0, |first| first.segments());
    Ok((0..segments).map(move |number| {
        let parts = vectors.map(|vector| vector.segment(number));
        (parts.first().map_or(0, Slice::len) / 4, parts)
    }))
}

/// Most workgroups of a reduction over a vector or a segment, and the number of those of each segment where there are several: then every
/// segment has as many partial sums, which start where a binding may.
pub(crate) const MOST_GROUPS: usize = 256;

/// Workgroups of a reduction over a vector, or over each of its segments: enough for a large GPU, but at least four vec4s per invocation.
pub(crate) fn reduction_groups(vector: &Slice) -> usize {
    if vector.segments() > 1 {
        return MOST_GROUPS;
    }
    (vector.len() / 4).div_ceil(256).clamp(1, MOST_GROUPS)
}

/// The place of segment `number` of several among partial sums, of which each segment has so many elements.
pub(crate) fn own_partials(
    partials: &Slice,
    (number, segments): (usize, usize),
    elements: usize,
) -> Result<Slice> {
    if segments == 1 {
        return Ok(partials.clone());
    }
    partials.slice(number * elements..(number + 1) * elements)
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
    let text = [four(&Capabilities::of(gpu)), COMBINE].concat();
    for (count, [out, x, y]) in in_segments([out, x, y])? {
        let constants = [("COUNT", count as f64), ("SLOT", slot as f64)];
        let pipeline = gpu.kernel("combine", &text, &constants, requirements::COMBINE)?;
        let workgroups = grid(gpu.limits(), count.div_ceil(64 * COMBINED))?;
        recording.dispatch(gpu, &pipeline, &[&out, &x, &y, coefficients], workgroups)?;
    }
    Ok(())
}

/// Elements that [`inner_products`] needs for its partial sums.
#[must_use]
pub fn partial_elements(vector: &Slice) -> usize {
    4 * reduction_groups(vector) * vector.segments()
}

/// Records `result[first..first + 3] = (x.y, x.x, y.y)`, summed in an order that depends on nothing but the length and, where a vector has
/// several segments, theirs; `partials` has the elements that [`partial_elements`] says.
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
    let (groups, segments) = (reduction_groups(x), x.segments());
    let text = [four(&Capabilities::of(gpu)), INNER_PRODUCTS].concat();
    for (number, (count, [x, y])) in in_segments([x, y])?.enumerate() {
        // Segments of 1 GiB, and no binding is larger than 4 GiB, are 4,160 iterations; the lanes are added by halving six times.
        loops::check("inner_products", in_chunks(count.div_ceil(64 * groups)) + 6)?;
        let first_stage = gpu.kernel(
            "inner_products",
            &text,
            &[("COUNT", count as f64)],
            requirements::INNER_PRODUCTS,
        )?;
        let own = own_partials(partials, (number, segments), 3 * groups)?;
        recording.dispatch(gpu, &first_stage, &[&own, &x, &y], [groups as u32, 1, 1])?;
    }
    let constants = [
        ("GROUPS", (groups * segments) as f64),
        ("FIRST", first as f64),
    ];
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
    for (count, [y, x]) in in_segments([y, x])? {
        let pipeline = gpu.kernel(
            "normalize",
            NORMALIZE,
            &[("COUNT", count as f64)],
            requirements::NORMALIZE,
        )?;
        let workgroups = grid(gpu.limits(), count.div_ceil(64))?;
        recording.dispatch(gpu, &pipeline, &[&y, &x, sums], workgroups)?;
    }
    Ok(())
}

/// Records `inverse = (diagonal + settings[0])^-settings[1]`.
pub(crate) fn preconditioner(
    gpu: &Gpu,
    recording: &mut Recording,
    inverse: &Slice,
    diagonal: &Slice,
    settings: &Slice,
) -> Result<()> {
    for (count, [inverse, diagonal]) in in_segments([inverse, diagonal])? {
        let pipeline = gpu.kernel(
            "preconditioner",
            PRECONDITIONER,
            &[("COUNT", count as f64)],
            requirements::PRECONDITIONER,
        )?;
        let workgroups = grid(gpu.limits(), count.div_ceil(64))?;
        recording.dispatch(gpu, &pipeline, &[&inverse, &diagonal, settings], workgroups)?;
    }
    Ok(())
}

/// Elements of the coefficients of a displacement.
pub(crate) const DISPLACEMENT_COEFFICIENTS: usize = 6;

/// Records the coefficients of `theta + e v`, `theta - e v` and `(g+ - g-) / 2e` with `e |v| = length (1 + |theta|)^(1/3)`, from `sums =
/// (v.theta, v.v, theta.theta)`.
pub(crate) fn displacement(
    gpu: &Gpu,
    recording: &mut Recording,
    length: f32,
    sums: &Slice,
    coefficients: &Slice,
) -> Result<()> {
    let constants = [("LENGTH", f64::from(length))];
    let pipeline = gpu.kernel(
        "displacement",
        DISPLACEMENT,
        &constants,
        requirements::DISPLACEMENT,
    )?;
    recording.dispatch(gpu, &pipeline, &[coefficients, sums], [1, 1, 1])
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
/// Of the settings, which come first.
pub(crate) const FIRST_ORDER_SETTINGS: usize = 8;
pub(crate) const FIRST_ORDER_LOSS: usize = 8;
pub(crate) const FIRST_ORDER_SUMS: usize = 9;

/// Records one step of a first-order method.
pub(crate) fn first_order(
    gpu: &Gpu,
    recording: &mut Recording,
    method: FirstOrderMethod,
    on: &FirstOrderOperands<'_>,
) -> Result<()> {
    let method = f64::from(u8::from(method == FirstOrderMethod::Adam));
    let text = [FINITE, FIRST_ORDER].concat();
    let vectors = [on.theta, on.first_moment, on.second_moment, on.gradient];
    for (count, [theta, first, second, gradient]) in in_segments(vectors)? {
        let pipeline = gpu.kernel(
            "first_order",
            &text,
            &[("COUNT", count as f64), ("METHOD", method)],
            requirements::FIRST_ORDER,
        )?;
        let bindings = [&theta, &first, &second, &gradient, on.scalars];
        let workgroups = grid(gpu.limits(), count.div_ceil(64))?;
        recording.dispatch(gpu, &pipeline, &bindings, workgroups)?;
    }
    Ok(())
}
