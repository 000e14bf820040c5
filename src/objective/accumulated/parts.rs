//! Parts and groups of micro-batches.

use std::ops::Range;
use std::sync::Arc;

use super::sums::Sums;
use super::{Accumulated, Sum};
use crate::data::MicroBatches;
use crate::error::{Error, Result};
use crate::gpu::Work;
use crate::objective::{
    Cost, Group, GroupRequest, GroupedQuadratic, Loaded, Parts, Slot, without_parts,
};
use crate::vector::{Block, Vector};

/// Rows are counted through all micro-batches. A group is made of the groups of the same number of every micro-batch.
impl<O: Parts> Parts for Accumulated<O> {
    fn rows(&self, batch: &Self::Batch) -> Option<usize> {
        let rows = batch.parts().iter().map(|(part, _)| self.inner.rows(part));
        rows.sum()
    }

    fn part(&self, batch: &Self::Batch, ranges: &[Range<usize>]) -> Result<Self::Batch> {
        let none = || without_parts("a part of micro-batches");
        let all = self.rows(batch).ok_or_else(none)?;
        if let Some(range) = ranges.iter().find(|r| r.start > r.end || r.end > all) {
            return Err(Error::Data {
                what: "a part of micro-batches".into(),
                message: format!("rows {range:?} are not among the {all} of the batch"),
            });
        }
        let mut start = 0;
        let mut parts = Vec::new();
        let mut empty = None;
        let (mut whole, mut taken) = (0.0, 0.0);
        for (part, share) in batch.parts() {
            let rows = self.inner.rows(part).ok_or_else(none)?;
            let within: Vec<Range<usize>> = ranges
                .iter()
                .map(|range| {
                    let inside = |row: usize| row.clamp(start, start + rows) - start;
                    inside(range.start)..inside(range.end)
                })
                .filter(|range| !range.is_empty())
                .collect();
            let chosen: usize = within.iter().map(Range::len).sum();
            whole += share;
            if chosen > 0 {
                // Each stands for its micro-batch: what is left of that counts as much less.
                let share = share * chosen as f64 / rows as f64;
                match self.inner.part(part, &within) {
                    Ok(part) => {
                        taken += share;
                        parts.push((part, share));
                    }
                    // Rows without an example, where the micro-batch is padded.
                    Err(error) => empty = Some(error),
                }
            }
            start += rows;
        }
        if let (true, Some(error)) = (parts.is_empty(), empty) {
            return Err(error);
        }
        for (_, share) in &mut parts {
            *share *= whole / taken;
        }
        MicroBatches::new(parts)
    }

    fn load_groups(&mut self, slot: Slot, batch: &Self::Batch, groups: usize) -> Result<Loaded> {
        self.fill(slot, batch.parts(), |inner, slot, part| {
            inner.load_groups(slot, part, groups)
        })
    }

    fn grouped(
        &mut self,
        at: &Vector,
        loaded: &Loaded,
        request: GroupRequest,
    ) -> Result<Arc<GroupedQuadratic>> {
        if request.slope_variance {
            return Err(Error::Unsupported {
                what: "variances of slopes over micro-batches".into(),
                message: "they are of one pass over all examples; give the batch as a whole".into(),
            });
        }
        let held = self.held(loaded)?;
        let (shares, slots) = (held.shares.clone(), held.parts.clone());
        let parts: Vec<Arc<GroupedQuadratic>> = slots
            .iter()
            .map(|part| self.inner.grouped(at, part, request))
            .collect::<Result<_>>()?;
        let made_of = |known: &Sum<GroupedQuadratic>| known.is_of(&parts, &shares);
        if let Some(known) = self.grouped.find(at, loaded, &request, made_of) {
            return Ok(known.all);
        }
        let gpu = self.inner.gpu();
        let sums = Sums {
            gpu,
            shares: &shares,
        };
        let direction = Vector::new(gpu, "direction", self.inner.layout())?;
        let [mut linearize, mut multiply] = [Work::new(), Work::new()];
        for part in &parts {
            linearize.append(part.linearize.clone());
            multiply
                .tail()
                .copy(direction.slice(), part.direction.slice())?;
            multiply.append(part.multiply.clone());
        }
        let results = sums.results(parts.len())?;
        let values: Vec<_> = parts.iter().map(|part| &part.value).collect();
        let whole: Vec<&Vector> = parts.iter().map(|part| &part.gradient).collect();
        let losses: Option<Vec<_>> = parts.iter().map(|part| part.losses.as_ref()).collect();
        let of_groups: Vec<&Block> = parts.iter().map(|part| &part.gradients).collect();
        let products: Vec<&Block> = parts.iter().map(|part| &part.products).collect();
        let gradients = sums.block(linearize.tail(), "gradients of groups", &of_groups)?;
        let products = sums.block(multiply.tail(), "products of groups", &products)?;
        let group = |at: usize| Group {
            gradient: gradients.vectors()[at].clone(),
            product: products.vectors()[at].clone(),
            slope_variance: None,
        };
        let vectors = 6 + 2 * gradients.width() as u64;
        let grouped = Arc::new(GroupedQuadratic {
            groups: (0..gradients.width()).map(group).collect(),
            value: sums.value(linearize.tail(), &results, &values)?,
            gradient: sums.vector(linearize.tail(), "gradient", &whole)?,
            losses: losses
                .map(|losses| sums.losses(at, &results, &losses))
                .transpose()?,
            gradients,
            products,
            direction,
            listing: Arc::clone(&parts[0].listing),
            cost: Cost::sum(
                parts.iter().map(|part| part.cost),
                vectors * at.slice().bytes(),
            ),
            linearize,
            multiply,
            loaded: *loaded,
        });
        let bytes = grouped.cost.bytes;
        let all = Arc::clone(&grouped);
        let sum = Sum { parts, shares, all };
        self.grouped.keep(at, loaded, request, bytes, sum);
        Ok(grouped)
    }
}
