//! What errors about numbers that are not finite say about where these come from.

use crate::error::{Error, Result};
use crate::graph::locate::Located;
use crate::objective::Objective;
use crate::vector::Vector;

/// Operations on the CPU that looking for a node may take after a step that failed: about a second.
const BUDGET: u64 = 400_000_000;

/// Names, in an error about numbers that are not finite, the node of the objective that made the first of them, with the advice that fits
/// it.
pub(super) async fn with_origin<T, O: Objective + ?Sized>(
    result: Result<T>,
    objective: &mut O,
    theta: &Vector,
    batch: &O::Batch,
) -> Result<T> {
    let Err(Error::NotFinite { what, advice }) = result else {
        return result;
    };
    let gpu = objective.gpu().clone();
    let located = match theta.read_async(&gpu).await {
        Ok(parameters) => objective.locate(&parameters, batch, BUDGET),
        Err(error) => Err(error),
    };
    Err(match located {
        Ok(Located::At(origin)) => Error::NotFinite {
            what: format!("{what} (first in {origin})"),
            advice: origin.advice,
        },
        Ok(Located::Nowhere) => Error::NotFinite {
            what: format!(
                "{what} (although the loss, the gradient and curvature products along it are finite in f32 on the CPU)"
            ),
            advice,
        },
        // The error at hand matters more than one of the search.
        Ok(Located::Unknown) | Err(_) => Error::NotFinite { what, advice },
    })
}
