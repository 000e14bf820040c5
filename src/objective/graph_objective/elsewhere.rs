//! Losses at a point, in a program that has the loss at the base.

use super::GraphObjective;
use super::program::pairs;
use crate::error::Result;
use crate::gpu::Slice;
use crate::graph::executable::DeviceLeaves;
use crate::graph::phase::CHANGE;
use crate::graph::{Executable, Plan};
use crate::objective::losses::{LABEL, Losses, RESULTS};
use crate::vector::Vector;

/// Where a program writes them, and where the point is.
pub(super) struct Elsewhere {
    point: Vector,
    results: Slice,
}

impl Elsewhere {
    /// For a plan with points, whose last result they are: adds both to the slices of its leaves and results.
    pub(super) fn new(
        objective: &GraphObjective,
        plan: &Plan,
        (leaves, all): (&mut DeviceLeaves, &mut Vec<Slice>),
    ) -> Result<Self> {
        let point = Vector::new(&objective.gpu, "point", &objective.layout)?;
        let results = objective.gpu.buffer(LABEL, RESULTS)?;
        leaves.points = pairs(&plan.request().points, point.parts());
        all.push(results.clone());
        Ok(Self { point, results })
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
