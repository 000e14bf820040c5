//! What programs of an objective cost.

use crate::graph::listing::Listing;
use crate::graph::phase::{BLOCK, LINEARIZE, PRODUCT};

/// What an objective's programs take: floating-point operations, two for each multiply-add, for all rows of what they compute with. Zeros,
/// the default, where an objective does not count them: optimizers then report work in examples alone.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Cost {
    /// Of the loss and its gradient: the unit in which work is counted.
    pub gradient: u64,
    /// Of what runs once: `run`, or `linearize` with all that products need.
    pub run: u64,
    /// Of one product.
    pub product: u64,
    /// Of one block of products, all of its directions together.
    pub block: u64,
    /// Bytes of the buffers that it has for itself: what whoever keeps the program keeps with it. Not operations, and worth telling where
    /// nothing else is counted.
    pub bytes: u64,
}

impl Cost {
    /// Of programs one after another, with `bytes` beside theirs.
    pub(super) fn sum(parts: impl Iterator<Item = Self>, bytes: u64) -> Self {
        let start = Self {
            bytes,
            ..Self::default()
        };
        parts.fold(start, |sum, part| Self {
            gradient: sum.gradient + part.gradient,
            run: sum.run + part.run,
            product: sum.product + part.product,
            block: sum.block + part.block,
            bytes: sum.bytes + part.bytes,
        })
    }

    /// Of a program, of whose results the first ones are the loss and its gradient, and of `elements` that it keeps beside its planned
    /// buffers for later phases.
    pub(crate) fn of(listing: &Listing, first: usize, elements: usize) -> Self {
        let of_gradient = listing
            .phase(LINEARIZE)
            .filter(|kernel| kernel.serves < first);
        Self {
            gradient: of_gradient.map(|kernel| kernel.flops).sum(),
            run: listing.flops(LINEARIZE),
            product: listing.flops(PRODUCT),
            block: listing.flops(BLOCK),
            bytes: listing.kept + 4 * elements as u64,
        }
    }
}

/// What one loss, or one change of it, costs, for all rows of a batch.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct LossCost {
    /// In gradients of the batch, as papers count: by matrix products, of which a gradient has three for each layer.
    pub gradients: f64,
    /// Floating-point operations; 0 where they are not counted.
    pub flops: u64,
}

impl LossCost {
    /// Of losses of micro-batches: of a gradient of all, as much as of a gradient of each.
    pub(super) fn sum(parts: impl Iterator<Item = Self>) -> Self {
        parts.fold(Self::NOTHING, |sum, part| Self {
            gradients: sum.gradients.max(part.gradients),
            flops: sum.flops + part.flops,
        })
    }

    /// Of a loss at a point: one matrix product per layer.
    pub const LOSS: Self = Self {
        gradients: 1.0 / 3.0,
        flops: 0,
    };
    /// Of a change of the loss from a point whose forward pass is there: two matrix products per layer.
    pub const CHANGE: Self = Self {
        gradients: 2.0 / 3.0,
        flops: 0,
    };
    /// Of what is there already.
    pub const NOTHING: Self = Self {
        gradients: 0.0,
        flops: 0,
    };
}
