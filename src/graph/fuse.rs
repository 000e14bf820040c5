//! Which nodes get a buffer, which are computed inside another node's kernel, and in which phase each kernel runs.
//!
//! A *phase* is how often work is done. Phase 0 depends on parameters and inputs alone and runs once per quadratic; each later phase
//! depends on its own group of leaves that are given anew (phase 1: one direction, phase 2: a block of them, phase 3: a point to which
//! parameters move) and runs once for each. Whatever they need from phase 0 is kept in a buffer, so no product recomputes it.
//!
//! A node gets a buffer if it is a result, if it is not elementwise, if a kernel needs it as a buffer (operands of `dot`), if it crosses
//! the phases, if two kernels would compute it twice, or if its consumer's kernel would read too many buffers or become too long.
//! Everything else is fused into its consumer; and a matrix product or reduction whose only reader is elementwise in it is fused into that:
//! biases and activations are applied before the first store. Last, elementwise kernels over the same elements of which one reads the other
//! become one kernel with several results.

use std::collections::{BTreeSet, HashMap};

use super::fusion::{Fusion, buffers_read, elementwise_in, only_units};
use super::node::{Graph, NodeId};
use super::op::Op;
use super::sharing::Sharing;

/// What a consumer asks of a node that it does not compute itself.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Need {
    /// Any value.
    Nothing,
    /// A buffer, possibly behind strides.
    Strided,
    /// A buffer in row-major order.
    Contiguous,
}

/// Chooses the kernels that compute `targets` when each group of directions is given anew for each product of its kind; a kernel may read
/// `max_operands` buffers.
pub(crate) fn fuse(
    graph: &Graph,
    targets: &[NodeId],
    groups: &[Vec<NodeId>],
    max_operands: usize,
) -> Fusion {
    let count = graph.nodes().len();
    let needed = graph.ancestors(targets);
    let mut phase = vec![0; count];
    for (group, directions) in groups.iter().enumerate() {
        for (index, depends) in graph.depends_on(directions).into_iter().enumerate() {
            if depends {
                phase[index] = group + 1;
            }
        }
    }
    let heavy = heavy(graph);
    let mut in_buffer = vec![false; count];
    let mut need = vec![Need::Nothing; count];
    // The kernels that contain a node: its own, or those of its consumers.
    let mut users: Vec<BTreeSet<usize>> = vec![BTreeSet::new(); count];
    for &target in targets {
        in_buffer[target.0] = !graph.node(target).op.is_leaf();
    }
    for index in (0..count).rev() {
        let node = &graph.nodes()[index];
        if !needed[index] || node.op.is_leaf() {
            continue;
        }
        let is_view = matches!(
            node.op,
            Op::Broadcast | Op::Reshape | Op::Permute(_) | Op::Slice(_) | Op::StopGradient
        );
        let free = is_view || matches!(node.op, Op::Constant(_) | Op::OneHot | Op::Pad(_));
        let satisfied = match need[index] {
            Need::Nothing => true,
            Need::Strided => is_view,
            Need::Contiguous => matches!(node.op, Op::Reshape | Op::StopGradient),
        };
        let crosses = phase[index] == 0 && users[index].iter().any(|&k| phase[k] > 0);
        if !node.op.is_pointwise() || !satisfied || !free && (crosses || users[index].len() > 1) {
            in_buffer[index] = true;
        }
        let inside: BTreeSet<usize> = if in_buffer[index] {
            [index].into()
        } else {
            users[index].clone()
        };
        for (position, operand) in node.operands.iter().enumerate() {
            let o = operand.0;
            users[o].extend(&inside);
            let asked = match node.op {
                Op::Dot { .. } => Need::Strided,
                Op::Gather | Op::ScatterAdd => Need::Contiguous,
                Op::Reshape if !only_units(graph.shape(*operand), &node.shape) => Need::Contiguous,
                _ if in_buffer[index] => Need::Nothing,
                // A view passes on what is asked of it.
                _ if is_view => need[index],
                _ => Need::Nothing,
            };
            need[o] = need[o].max(asked);
            // Repeating a costly elementwise value would compute it again for every copy.
            if node.op == Op::Broadcast && position == 0 && heavy[o] {
                need[o] = need[o].max(Need::Strided);
            }
        }
    }
    limit_kernels(graph, &needed, &mut in_buffer, max_operands);
    let inside = fuse_into_readers(
        graph,
        targets,
        &needed,
        &phase,
        &mut in_buffer,
        max_operands,
    );
    let mut kernels: Vec<NodeId> = (0..count)
        .filter(|&i| needed[i] && in_buffer[i])
        .map(NodeId)
        .collect();
    kernels.sort_by_key(|id| (phase[id.0], id.0));
    let mut fusion = Fusion {
        in_buffer,
        phase,
        inside,
        also: HashMap::new(),
        kernels,
    };
    Sharing::new(graph, targets, &needed, &mut fusion, max_operands).run();
    fusion
}

/// Finds matrix products and reductions with a single reader that is elementwise in them, and takes their buffers away: the reader's kernel
/// computes them.
fn fuse_into_readers(
    graph: &Graph,
    targets: &[NodeId],
    needed: &[bool],
    phase: &[usize],
    in_buffer: &mut [bool],
    max_operands: usize,
) -> Vec<Option<NodeId>> {
    let reads = buffers_read(graph, needed, in_buffer);
    let mut readers: Vec<Vec<usize>> = vec![Vec::new(); needed.len()];
    for index in (0..needed.len()).filter(|&i| needed[i] && in_buffer[i]) {
        for &read in &reads[index] {
            readers[read].push(index);
        }
    }
    let mut inside = vec![None; needed.len()];
    for index in 0..needed.len() {
        let product = NodeId(index);
        let (operation, &[reader]) = (&graph.node(product).op, readers[index].as_slice()) else {
            continue;
        };
        // What is computed inside has bindings of its own for what it reads.
        let own = match operation {
            Op::Dot { .. } => 2,
            Op::Sum(_) | Op::Max(_) => reads[index].len(),
            _ => continue,
        };
        let consumer = NodeId(reader);
        let operands = own + reads[reader].len() - 1;
        let fits = in_buffer[index]
            && needed[index]
            && !targets.contains(&product)
            && phase[reader] == phase[index]
            && inside[reader].is_none()
            && graph.node(consumer).op.is_pointwise()
            && only_units(graph.shape(consumer), graph.shape(product))
            && operands <= max_operands
            && elementwise_in(
                graph,
                in_buffer,
                consumer,
                consumer,
                product,
                &mut HashMap::new(),
            );
        if fits {
            inside[reader] = Some(product);
            in_buffer[index] = false;
        }
    }
    inside
}

/// Elementwise nodes whose fused computation contains a costly function.
fn heavy(graph: &Graph) -> Vec<bool> {
    let mut heavy = vec![false; graph.nodes().len()];
    for (index, node) in graph.nodes().iter().enumerate() {
        let own = match node.op {
            Op::Unary(f) => f.is_expensive(),
            Op::Binary(super::op::Binary::Div) => true,
            _ => false,
        };
        heavy[index] = node.op.is_pointwise() && (own || node.operands.iter().any(|o| heavy[o.0]));
    }
    heavy
}

/// Most nodes that are fused one after another. Longer kernels save nothing, compilers take ever longer over them, and the recursion that
/// writes them needs a bound.
const LONGEST_CHAIN: usize = 128;

/// Gives buffers to more nodes until no kernel reads more than `max_operands` buffers or chains more than [`LONGEST_CHAIN`] nodes.
fn limit_kernels(graph: &Graph, needed: &[bool], in_buffer: &mut [bool], max_operands: usize) {
    let mut reads: Vec<BTreeSet<usize>> = vec![BTreeSet::new(); needed.len()];
    let mut chain = vec![0; needed.len()];
    for index in 0..needed.len() {
        let node = &graph.nodes()[index];
        if !needed[index] || node.op.is_leaf() {
            continue;
        }
        for &NodeId(o) in &node.operands {
            in_buffer[o] |= chain[o] == LONGEST_CHAIN;
            let before = if in_buffer[o] { 0 } else { chain[o] };
            chain[index] = chain[index].max(before + 1);
        }
        loop {
            let mut all = BTreeSet::new();
            for operand in &node.operands {
                let o = operand.0;
                if in_buffer[o] || graph.nodes()[o].op.is_leaf() {
                    all.insert(o);
                } else {
                    all.extend(&reads[o]);
                }
            }
            let largest = node
                .operands
                .iter()
                .filter(|o| !in_buffer[o.0])
                .max_by_key(|o| reads[o.0].len());
            match largest {
                Some(o) if all.len() > max_operands && reads[o.0].len() > 1 => {
                    in_buffer[o.0] = true
                }
                _ => {
                    reads[index] = all;
                    break;
                }
            }
        }
    }
}
