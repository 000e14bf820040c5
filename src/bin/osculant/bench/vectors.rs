//! Operations on long vectors: `a x + b y` and inner products.

use osculant::gpu::{Gpu, Recording};
use osculant::kernels::vector::{combine, inner_products, partial_elements};

use super::device::{long_vector, rate};
use super::timing::{Effort, Figure, Times};

/// Bytes per second of both, in GB/s.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Measured {
    /// `a x + b y`: two reads and one write per element.
    pub(crate) axpy: Figure,
    /// `x.y`, `x.x` and `y.y` in one pass: two reads per element.
    pub(crate) dot: Figure,
}

/// Times both on vectors as long as those that are copied.
pub(crate) fn measure(gpu: &Gpu, effort: Effort) -> osculant::Result<Measured> {
    let elements = long_vector(gpu);
    let vector = |label: &str, value: f32| -> osculant::Result<_> {
        let slice = gpu.buffer(label, elements)?;
        gpu.upload(&slice, 0, &vec![value; elements])?;
        Ok(slice)
    };
    let (x, y, out) = (vector("x", 1.0)?, vector("y", 0.5)?, vector("out", 0.0)?);
    let coefficients = gpu.buffer("coefficients", 2)?;
    gpu.upload(&coefficients, 0, &[1e-3f32, 1.0])?;
    let mut axpy = Recording::new();
    combine(gpu, &mut axpy, &out, &x, &y, (&coefficients, 0))?;
    let result = gpu.buffer("inner products", 3)?;
    let partials = gpu.buffer("partial sums", partial_elements(&x))?;
    let mut dot = Recording::new();
    inner_products(gpu, &mut dot, (&result, 0), &partials, &x, &y)?;
    let times = Times::take(gpu, &[&axpy, &dot], effort)?;
    Ok(Measured {
        axpy: rate(times.seconds(0), 12.0 * elements as f64),
        dot: rate(times.seconds(1), 8.0 * elements as f64),
    })
}
