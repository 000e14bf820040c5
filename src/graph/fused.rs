//! The fused computation of a kernel, collected from the nodes without a buffer.

use std::collections::HashMap;

use super::address::{Addresses, through_view};
use super::fusion::only_units;
use super::node::NodeId;
use super::op::Op;
use crate::kernels::expression::{Coordinate, Range, Step, Within};

/// A node with the coordinates at which it is wanted, and where those hold.
type Key = (NodeId, Vec<Coordinate>, Vec<Range>);

/// Builds an [`Expression`] from the root down.
pub(super) struct Builder<'a> {
    pub(super) addresses: &'a Addresses<'a>,
    pub(super) root: NodeId,
    /// The other nodes that are stored.
    pub(super) also: &'a [NodeId],
    /// The matrix product or reduction inside the kernel, if there is one.
    pub(super) inner: Option<NodeId>,
    /// Sizes of the axes of the index space.
    pub(super) axes: Vec<usize>,
    pub(super) steps: Vec<Step>,
    pub(super) known: HashMap<Key, usize>,
    pub(super) buffers: Vec<NodeId>,
    pub(super) integer: Vec<bool>,
}

impl Builder<'_> {
    fn binding(&mut self, buffer: NodeId, integer: bool) -> usize {
        if let Some(position) = self.buffers.iter().position(|&b| b == buffer) {
            return position;
        }
        self.buffers.push(buffer);
        self.integer.push(integer);
        self.buffers.len() - 1
    }

    fn push(&mut self, step: Step) -> usize {
        self.steps.push(step);
        self.steps.len() - 1
    }

    /// The step that holds the value of `id` at these coordinates; only valid where `inside` holds.
    pub(super) fn visit(
        &mut self,
        id: NodeId,
        coordinates: Vec<Coordinate>,
        inside: Vec<Range>,
    ) -> usize {
        let key = (id, coordinates, inside);
        if let Some(&step) = self.known.get(&key) {
            return step;
        }
        let (coordinates, inside) = (key.1.clone(), key.2.clone());
        let addresses = self.addresses;
        let graph = addresses.graph;
        let node = graph.node(id);
        if self.inner == Some(id) {
            let step = self.push(Step::Inner);
            self.known.insert(key, step);
            return step;
        }
        let computed = id == self.root || self.also.contains(&id);
        let loads = !computed && addresses.has_buffer(id)
            || node.op == Op::Reshape && !only_units(graph.shape(node.operands[0]), &node.shape);
        let step = if loads || node.op.is_leaf() {
            // A root that reshapes a buffer reads the buffer, not itself.
            let (buffer, offset, strides) = if id == self.root && !node.op.is_leaf() {
                let operand = addresses.contiguous(node.operands[0]);
                let (offset, strides) =
                    addresses.linear_address(operand, &coordinates, id, self.axes.len());
                (operand, offset, strides)
            } else {
                addresses.of(id, &coordinates, self.axes.len())
            };
            let binding = self.binding(buffer, false);
            self.push(Step::Load {
                binding,
                offset,
                strides,
                inside,
            })
        } else {
            match &node.op {
                Op::Constant(bits) => self.push(Step::Constant(f32::from_bits(*bits))),
                Op::Unary(f) => {
                    let x = self.visit(node.operands[0], coordinates, inside);
                    self.push(Step::Unary(*f, x))
                }
                Op::Binary(f) => {
                    let a = self.visit(node.operands[0], coordinates.clone(), inside.clone());
                    let b = self.visit(node.operands[1], coordinates, inside);
                    self.push(Step::Binary(*f, a, b))
                }
                Op::Select => {
                    let c = self.visit(node.operands[0], coordinates.clone(), inside.clone());
                    let a = self.visit(node.operands[1], coordinates.clone(), inside.clone());
                    let b = self.visit(node.operands[2], coordinates, inside);
                    self.push(Step::Select(c, a, b))
                }
                Op::OneHot => {
                    let (label, class) = coordinates.split_at(coordinates.len() - 1);
                    let (buffer, offset, strides) =
                        addresses.of(node.operands[0], label, self.axes.len());
                    let binding = self.binding(buffer, true);
                    self.push(Step::OneHot {
                        binding,
                        offset,
                        strides,
                        inside,
                        class: class[0],
                    })
                }
                Op::Pad(_) => {
                    let moved = through_view(graph, id, &coordinates);
                    let mut ranges: Vec<Range> = Vec::new();
                    let mut never = false;
                    for (coordinate, &size) in moved.iter().zip(graph.shape(node.operands[0])) {
                        match coordinate.within(size, &self.axes) {
                            Within::Always => {}
                            Within::Never => never = true,
                            Within::Where(range) => ranges.push(range),
                        }
                    }
                    if never {
                        self.push(Step::Constant(0.0))
                    } else {
                        let x =
                            self.visit(node.operands[0], moved, [inside, ranges.clone()].concat());
                        if ranges.is_empty() {
                            x
                        } else {
                            self.push(Step::Inside(x, ranges))
                        }
                    }
                }
                _ => {
                    let moved = through_view(graph, id, &coordinates);
                    self.visit(node.operands[0], moved, inside)
                }
            }
        };
        self.known.insert(key, step);
        step
    }
}
