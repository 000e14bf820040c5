//! Which nodes have a buffer and a kernel, and what follows from that.

use std::collections::{BTreeSet, HashMap};

use super::node::{Graph, NodeId};
use super::op::Op;

/// What a program computes in which kernel, in order of execution.
#[derive(Clone, Debug)]
pub(crate) struct Fusion {
    /// For each node of the graph, whether its value is in a buffer made by a kernel.
    pub(crate) in_buffer: Vec<bool>,
    /// For each node, the phase in which it is known: 0, or one more than the group of directions it depends on.
    pub(crate) phase: Vec<usize>,
    /// For each node, the matrix product or reduction that is computed inside its kernel.
    pub(crate) inside: Vec<Option<NodeId>>,
    /// For each node with a kernel, the others whose values that kernel also stores.
    pub(crate) also: HashMap<NodeId, Vec<NodeId>>,
    /// Nodes with a kernel of their own: phase 0 first, in topological order within a phase.
    pub(crate) kernels: Vec<NodeId>,
}

/// Follows nodes that are other names for the same row-major buffer.
pub(crate) fn same_buffer(graph: &Graph, mut id: NodeId) -> NodeId {
    while matches!(graph.node(id).op, Op::Reshape | Op::StopGradient) {
        id = graph.node(id).operands[0];
    }
    id
}

/// True where a reshape only adds or drops axes of size 1.
pub(crate) fn only_units(from: &[usize], to: &[usize]) -> bool {
    from.iter()
        .filter(|&&s| s != 1)
        .eq(to.iter().filter(|&&s| s != 1))
}

/// The buffers that the fused computation of each node reads.
pub(super) fn buffers_read(
    graph: &Graph,
    needed: &[bool],
    in_buffer: &[bool],
) -> Vec<BTreeSet<usize>> {
    let mut reads: Vec<BTreeSet<usize>> = vec![BTreeSet::new(); needed.len()];
    for index in (0..needed.len()).filter(|&i| needed[i]) {
        let mut all = BTreeSet::new();
        for &NodeId(o) in &graph.nodes()[index].operands {
            if in_buffer[o] || graph.nodes()[o].op.is_leaf() {
                all.insert(o);
            } else {
                all.extend(&reads[o]);
            }
        }
        reads[index] = all;
    }
    reads
}

/// Whether, within the kernel of `root`, every use of `product` below `id` is at the element of the result that is being computed.
pub(super) fn elementwise_in(
    graph: &Graph,
    in_buffer: &[bool],
    root: NodeId,
    id: NodeId,
    product: NodeId,
    known: &mut HashMap<NodeId, bool>,
) -> bool {
    if id == product {
        return true;
    }
    let node = graph.node(id);
    if node.op.is_leaf() || in_buffer[id.0] && id != root {
        return true;
    }
    if let Some(&answer) = known.get(&id) {
        return answer;
    }
    let keeps_place = match node.op {
        Op::Unary(_) | Op::Binary(_) | Op::Select | Op::StopGradient => true,
        Op::Reshape => only_units(graph.shape(node.operands[0]), &node.shape),
        _ => false,
    };
    let answer = if keeps_place {
        node.operands
            .iter()
            .all(|&o| elementwise_in(graph, in_buffer, root, o, product, known))
    } else {
        !uses(graph, in_buffer, id, product)
    };
    known.insert(id, answer);
    answer
}

/// Whether the fused computation of `id` reads `product`.
fn uses(graph: &Graph, in_buffer: &[bool], id: NodeId, product: NodeId) -> bool {
    let mut pending: Vec<NodeId> = graph.node(id).operands.clone();
    let mut seen = BTreeSet::new();
    while let Some(next) = pending.pop() {
        if next == product {
            return true;
        }
        if !graph.node(next).op.is_leaf() && !in_buffer[next.0] && seen.insert(next) {
            pending.extend(&graph.node(next).operands);
        }
    }
    false
}
