//! Where the elements of a node are: in which buffer, behind which views.

use std::collections::HashMap;

use super::fusion::{Fusion, only_units};
use super::node::{Graph, NodeId};
use super::op::Op;
use crate::kernels::expression::Coordinate;

/// Coordinates in the operand of a view from coordinates in the view.
pub(super) fn through_view(
    graph: &Graph,
    id: NodeId,
    coordinates: &[Coordinate],
) -> Vec<Coordinate> {
    const ORIGIN: Coordinate = Coordinate {
        axis: None,
        offset: 0,
    };
    let node = graph.node(id);
    let from = graph.shape(node.operands[0]);
    match &node.op {
        Op::Broadcast => (0..from.len())
            .map(|d| if from[d] == 1 { ORIGIN } else { coordinates[d] })
            .collect(),
        Op::Permute(p) => {
            let mut out = vec![ORIGIN; from.len()];
            for (d, &source) in p.iter().enumerate() {
                out[source] = coordinates[d];
            }
            out
        }
        Op::Slice(starts) => coordinates
            .iter()
            .zip(starts)
            .map(|(c, &s)| Coordinate {
                axis: c.axis,
                offset: c.offset + s as isize,
            })
            .collect(),
        Op::Pad(before) => coordinates
            .iter()
            .zip(before)
            .map(|(c, &b)| Coordinate {
                axis: c.axis,
                offset: c.offset - b as isize,
            })
            .collect(),
        // Axes of size 1 come and go; the others keep their order.
        Op::Reshape => {
            let mut rest = coordinates
                .iter()
                .zip(&node.shape)
                .filter(|&(_, &s)| s != 1)
                .map(|(c, _)| *c);
            from.iter()
                .map(|&s| {
                    if s == 1 {
                        ORIGIN
                    } else {
                        rest.next().unwrap_or(ORIGIN)
                    }
                })
                .collect()
        }
        _ => coordinates.to_vec(),
    }
}

fn strides(shape: &[usize]) -> Vec<usize> {
    let mut strides = vec![1; shape.len()];
    for d in (1..shape.len()).rev() {
        strides[d - 1] = strides[d] * shape[d];
    }
    strides
}

/// Addresses of elements in the buffers of a program. Buffers in `pitches` have their rows that far apart, the others one after another.
pub(super) struct Addresses<'a> {
    pub(super) graph: &'a Graph,
    pub(super) fusion: &'a Fusion,
    pub(super) pitches: &'a HashMap<NodeId, usize>,
}

impl Addresses<'_> {
    pub(super) fn has_buffer(&self, id: NodeId) -> bool {
        self.fusion.in_buffer[id.0] || self.graph.node(id).op.is_leaf()
    }

    /// Address of an element behind views: the buffer's node, offset and stride per axis of the index space.
    pub(super) fn of(
        &self,
        mut id: NodeId,
        coordinates: &[Coordinate],
        axes: usize,
    ) -> (NodeId, isize, Vec<usize>) {
        let graph = self.graph;
        let mut coordinates = coordinates.to_vec();
        loop {
            let node = graph.node(id);
            let reshapes_buffer =
                node.op == Op::Reshape && !only_units(graph.shape(node.operands[0]), &node.shape);
            if self.has_buffer(id) || reshapes_buffer || node.operands.is_empty() {
                let buffer = self.contiguous(id);
                let (offset, per_axis) = self.linear_address(buffer, &coordinates, id, axes);
                return (buffer, offset, per_axis);
            }
            coordinates = through_view(graph, id, &coordinates);
            id = node.operands[0];
        }
    }

    /// Offset and stride per axis of the index space of an element of `id`, which is `buffer` or a reshape of it.
    pub(super) fn linear_address(
        &self,
        buffer: NodeId,
        coordinates: &[Coordinate],
        id: NodeId,
        axes: usize,
    ) -> (isize, Vec<usize>) {
        let mut strides = strides(self.graph.shape(id));
        if let (Some(&pitch), Some(first)) = (self.pitches.get(&buffer), strides.first_mut()) {
            *first = pitch;
        }
        let mut offset = 0;
        let mut per_axis = vec![0; axes];
        for (coordinate, stride) in coordinates.iter().zip(strides) {
            offset += coordinate.offset * stride as isize;
            if let Some(axis) = coordinate.axis {
                per_axis[axis] += stride;
            }
        }
        (offset, per_axis)
    }

    /// The buffer behind an operand that must be row-major.
    pub(super) fn contiguous(&self, mut id: NodeId) -> NodeId {
        while !self.has_buffer(id) {
            match self.graph.node(id).operands.first() {
                Some(&operand) => id = operand,
                None => break,
            }
        }
        id
    }
}
