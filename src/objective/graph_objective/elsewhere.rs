//! Losses at a point, in a program that has the loss at the base.

use super::GraphObjective;
use crate::error::Result;
use crate::gpu::Slice;
use crate::graph::difference::Move;
use crate::graph::executable::CHANGE;
use crate::graph::{Executable, NodeId};
use crate::objective::losses::{LABEL, Losses, RESULTS};
use crate::vector::Vector;

/// Where a program writes them, and where the point is.
pub(super) struct Elsewhere {
    point: Vector,
    results: Slice,
}

impl Elsewhere {
    pub(super) fn new(objective: &GraphObjective) -> Result<Self> {
        Ok(Self {
            point: Vector::new(&objective.gpu, "point", &objective.layout)?,
            results: objective.gpu.buffer(LABEL, RESULTS)?,
        })
    }

    /// Nodes and slices of the point to which parameters move.
    pub(super) fn points(&self, moves: &[Move]) -> Vec<(NodeId, Slice)> {
        let slices = self.point.parts().iter().cloned();
        moves.iter().map(|m| m.to).zip(slices).collect()
    }

    /// Where the results are wanted.
    pub(super) fn results(&self) -> Slice {
        self.results.clone()
    }

    /// The losses around a base with its loss, by what the program records for the point.
    pub(super) fn losses(
        self,
        objective: &GraphObjective,
        base: (&Vector, &Slice),
        executable: &mut Executable,
    ) -> Result<Losses> {
        let at_point = std::mem::take(&mut executable.change);
        let flops = executable.listing.flops(CHANGE);
        Losses::around(
            &objective.gpu,
            base,
            (self.point, self.results),
            at_point,
            flops,
        )
    }
}
