//! Linear maps that are recorded between any two vectors.

use crate::error::Result;
use crate::gpu::{Gpu, Recording};
use crate::vector::Vector;

/// A symmetric linear map, whose numbers may change between products.
pub(crate) trait Linear {
    /// Records `out = F x`; `out` must be another vector.
    fn record(
        &mut self,
        gpu: &Gpu,
        recording: &mut Recording,
        x: &Vector,
        out: &Vector,
    ) -> Result<()>;

    /// Operations of a product.
    fn flops(&self) -> f64;
}
