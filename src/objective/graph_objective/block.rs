//! Products with a block of directions, in as many parts as it takes to fit.

use super::GraphObjective;
use crate::error::Result;
use crate::gpu::Slice;
use crate::graph::batch::batched;
use crate::graph::executable::{BlockPart, BlockTargets, DeviceLeaves, Planned, Wanted};
use crate::graph::{Executable, Graph, NodeId};
use crate::objective::BlockProduct;
use crate::vector::Block;

/// The curvature products of a program.
pub(super) struct Products<'a> {
    pub(super) graph: &'a Graph,
    pub(super) directions: &'a [NodeId],
    pub(super) products: &'a [NodeId],
}

impl GraphObjective {
    /// Compiles a program that also multiplies blocks of `width` directions: all at once, or in as many parts as it takes to fit.
    pub(super) fn with_block(
        &self,
        program: &Products<'_>,
        leaves: &DeviceLeaves,
        targets: &[(NodeId, Slice)],
        width: usize,
    ) -> Result<(Executable, BlockProduct)> {
        let gpu = &self.gpu;
        let (nodes, slices): (Vec<Wanted>, Vec<Slice>) = targets
            .iter()
            .map(|(node, slice)| (Wanted::from(*node), slice.clone()))
            .unzip();
        let directions = Block::new(gpu, "directions", &self.layout, width)?;
        let products = Block::new(gpu, "products", &self.layout, width)?;
        let binding = gpu.limits().max_storage_buffer_binding_size;
        let points: Vec<NodeId> = leaves.points.iter().map(|&(node, _)| node).collect();
        let mut at_once = width;
        loop {
            let mut graph = program.graph.clone();
            let (wide_directions, wide_products) =
                batched(&mut graph, program.products, program.directions, at_once)?;
            let parts = (0..width).step_by(at_once).map(|first| {
                // The last part repeats rows of the one before rather than be of another width.
                let first = first.min(width - at_once);
                Ok(BlockPart {
                    directions: directions.tensors(first, at_once)?,
                    targets: products.tensors(first, at_once)?,
                })
            });
            let block = BlockTargets {
                pitch: self.layout.len(),
                directions: wide_directions,
                targets: wide_products,
                parts: parts.collect::<Result<_>>()?,
            };
            let anew = [program.directions, &points];
            let planned = Planned::new(gpu, &graph, anew, &nodes, Some(&block))?;
            let span = (at_once * self.layout.len()) as u64 * 4;
            let fits = planned.bytes() <= self.block_memory
                && planned.largest_buffer() <= binding
                && span <= binding;
            if fits || at_once == 1 {
                let mut executable = planned.record(gpu, leaves, &slices, Some(&block))?;
                let block = BlockProduct {
                    directions,
                    products,
                    multiply: std::mem::take(&mut executable.block),
                    width: at_once,
                };
                return Ok((executable, block));
            }
            at_once = at_once.div_ceil(2);
        }
    }
}
