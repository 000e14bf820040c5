//! Inputs on a circle.

use crate::graph::Tensor;

/// `cos(2 pi k x / period)` and `sin(2 pi k x / period)` for `k = 1..=harmonics`, `[rows, 2 harmonics]`, of a coordinate `x` `[rows, 1]`: whatever
/// is made of them has this period, with all of its derivatives.
#[must_use]
pub fn periodic(x: Tensor<'_>, period: f32, harmonics: usize) -> Tensor<'_> {
    let waves = (1..=harmonics.max(1)).flat_map(|k| {
        let angle = x * (std::f32::consts::TAU * k as f32 / period);
        [angle.cos(), angle.sin()]
    });
    let waves: Vec<Tensor<'_>> = waves.collect();
    match waves.split_first() {
        Some((first, others)) => first.concat(others, 1),
        None => x,
    }
}
