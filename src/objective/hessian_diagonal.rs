//! The diagonal of the Hessian, by products with unit vectors.

use super::{Curvature, Curved, Loaded, QuadraticRequest};
use crate::error::{Error, Result};
use crate::vector::Vector;

/// Unit vectors of one block of products.
const WIDTH: usize = 32;
/// Parameters up to which it is computed: as many products.
const MOST: usize = 1 << 16;

/// The exact diagonal of the Hessian of an objective's loss, its `l2` term included: one list for each parameter.
///
/// Of `P` parameters it takes `P` Hessian products, each about the work of two gradients, in blocks of 32: it is for models of some
/// thousand parameters. Where all activations are piecewise linear it is the diagonal of the Gauss-Newton matrix, which
/// [`Quantity::GaussNewtonDiagonal`](super::Quantity::GaussNewtonDiagonal) has at the price of a few gradients.
///
/// # Errors
/// [`Error::OverLimit`] above 65,536 parameters; as [`Curved::quadratic`].
///
/// ```
/// use osculant::objective::{Curved, Slot, hessian_diagonal};
/// # use osculant::{data::Batch, objective::{GraphObjective, Objective}, vector::Vector};
/// # fn diagonal(objective: &mut GraphObjective, theta: &Vector, batch: &Batch) -> osculant::Result<Vec<Vec<f32>>> {
/// let loaded = objective.load(Slot::default(), batch)?;
/// hessian_diagonal(objective, theta, &loaded)
/// # }
/// ```
#[cfg(not(target_arch = "wasm32"))]
pub fn hessian_diagonal(
    objective: &mut impl Curved,
    at: &Vector,
    loaded: &Loaded,
) -> Result<Vec<Vec<f32>>> {
    crate::gpu::blocking(hessian_diagonal_async(objective, at, loaded))
}

/// As `hessian_diagonal`, without blocking the thread.
///
/// # Errors
/// As there.
pub async fn hessian_diagonal_async(
    objective: &mut impl Curved,
    at: &Vector,
    loaded: &Loaded,
) -> Result<Vec<Vec<f32>>> {
    let entries = at.layout().entries().to_vec();
    let parameters = at.layout().parameters();
    if parameters > MOST {
        return Err(Error::OverLimit {
            what: "products for the diagonal of the Hessian".into(),
            needed: parameters as u64,
            limit_name: "the number of parameters for which it is computed",
            limit: MOST as u64,
            advice: "take the diagonal of the Gauss-Newton matrix, or a smaller model",
        });
    }
    let width = WIDTH.min(parameters);
    let request = QuadraticRequest {
        curvature: Curvature::Hessian,
        block: width,
        ..QuadraticRequest::default()
    };
    let quadratic = objective.quadratic(at, loaded, request)?;
    let Some(block) = &quadratic.block else {
        return Err(Error::Unsupported {
            what: "the diagonal of the Hessian of this objective".into(),
            message: "its quadratics have no products with blocks of directions".into(),
        });
    };
    let gpu = objective.gpu().clone();
    gpu.run_async([&quadratic.linearize]).await?;
    let zeros: Vec<Vec<f32>> = entries.iter().map(|e| vec![0.0; e.elements()]).collect();
    let places = entries.iter().enumerate();
    let places: Vec<(usize, usize)> = places
        .flat_map(|(tensor, e)| (0..e.elements()).map(move |at| (tensor, at)))
        .collect();
    let mut diagonal = zeros.clone();
    for units in places.chunks(width) {
        for (row, vector) in block.directions.vectors().iter().enumerate() {
            let mut unit = zeros.clone();
            if let Some(&(tensor, at)) = units.get(row) {
                unit[tensor][at] = 1.0;
            }
            vector.write_async(&gpu, &unit).await?;
        }
        gpu.run_async([&block.multiply]).await?;
        for (&(tensor, at), vector) in units.iter().zip(block.products.vectors()) {
            let part = vector.parts()[tensor].clone();
            diagonal[tensor][at] = gpu.read_async(&[&part]).await?[0][at];
        }
    }
    Ok(diagonal)
}
