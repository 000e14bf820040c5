//! What programs of an objective cost.

use crate::graph::listing::Listing;

/// What an objective's programs take: floating-point operations, two for each multiply-add, for all rows of what they compute with. Zeros, the default, where an objective
/// does not count them: optimizers then report work in examples alone.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Cost {
    /// Of the loss and its gradient: the unit in which work is counted.
    pub gradient: u64,
    /// Of what runs once: `run`, `linearize` with all that products need, or the losses at a point.
    pub run: u64,
    /// Of one product.
    pub product: u64,
    /// Of one block of products, all of its directions together.
    pub block: u64,
    /// Bytes of the buffers that it keeps: what whoever keeps the program keeps with it. Not operations, and worth telling where nothing else is counted.
    pub bytes: u64,
}

impl Cost {
    /// Of a program, of whose results the first ones are the loss and its gradient, and of `elements` that it keeps beside its planned buffers.
    pub(crate) fn of(listing: &Listing, first: usize, elements: usize) -> Self {
        let of_gradient = listing.phase(0).filter(|kernel| kernel.serves < first);
        Self {
            gradient: of_gradient.map(|kernel| kernel.flops).sum(),
            run: listing.flops(0),
            product: listing.flops(1),
            block: listing.flops(2),
            bytes: listing.planned_bytes() + 4 * elements as u64,
        }
    }
}
