//! Many leaves at once: a program with a leading axis over `K` directions, or over `K` groups of examples.
//!
//! What depends on such a leaf gets the axis; everything else is used as it is: activations and slopes for all directions, parameters for
//! all groups. This is JAX's `vmap` (Frostig et al. 2018), with one rule per primitive.

use std::collections::HashMap;

use super::node::{Graph, NodeId, elements};
use super::op::Op;
use crate::error::{Error, Result};

/// `targets`, which are made from `leaves`, for `width` values of these at once: nodes of shape `[width, ..shape of the target]`. The
/// leaves are directions or inputs. Returns the new leaves, of shape `[width, ..]`, and the new targets. A target that depends on no such
/// leaf is repeated.
///
/// # Errors
/// [`Error::Unsupported`] where rows of a table are taken at indices that are among the leaves.
pub fn batched(
    graph: &mut Graph,
    targets: &[NodeId],
    leaves: &[NodeId],
    width: usize,
) -> Result<(Vec<NodeId>, Vec<NodeId>)> {
    graph.check_ids(targets)?;
    graph.check_ids(leaves)?;
    if width == 0 {
        return Err(Error::Option {
            option: "width".into(),
            message: "0 directions or groups; give at least 1".into(),
        });
    }
    let mut wide: HashMap<NodeId, NodeId> = HashMap::new();
    let mut new_leaves = Vec::with_capacity(leaves.len());
    for &leaf in leaves {
        let shape = lead(width, graph.shape(leaf));
        let id = match graph.node(leaf).op {
            Op::Input(index) => {
                let narrow = &graph.inputs()[index];
                let (name, below) = (format!("{WIDE}{}", narrow.name), narrow.below);
                let dtype = graph.node(leaf).dtype;
                graph.bounded_input(&name, &shape, dtype, below)?
            }
            _ => graph.direction(&shape),
        };
        wide.insert(leaf, id);
        new_leaves.push(id);
    }
    let new_targets = with_values(graph, targets, wide, width)?;
    Ok((new_leaves, new_targets))
}

/// `targets` for `width` values at once of the nodes that `wide` maps to such values, of shape `[width, ..shape of the node]`. A target
/// that depends on none of them is repeated.
///
/// # Errors
/// As [`batched`].
pub(super) fn with_values(
    graph: &mut Graph,
    targets: &[NodeId],
    mut wide: HashMap<NodeId, NodeId>,
    width: usize,
) -> Result<Vec<NodeId>> {
    let needed = graph.ancestors(targets);
    let depends = graph.depends_on(&wide.keys().copied().collect::<Vec<_>>());
    for index in 0..needed.len() {
        let id = NodeId(index);
        if needed[index] && depends[index] && !wide.contains_key(&id) {
            let new = rule(graph, id, &wide, width)?;
            wide.insert(id, new);
        }
    }
    let of = |&target: &NodeId| widened(graph, target, &wide, width);
    targets.iter().map(of).collect()
}

/// What the names of wide inputs begin with, before that of the input.
pub const WIDE: &str = "wide ";

/// The shape with an axis of `width` in front.
fn lead(width: usize, shape: &[usize]) -> Vec<usize> {
    let mut out = Vec::with_capacity(shape.len() + 1);
    out.push(width);
    out.extend(shape);
    out
}

/// Axes counted from one further on.
fn shifted(axes: &[usize]) -> Vec<usize> {
    axes.iter().map(|axis| axis + 1).collect()
}

/// The node's wide form; a node that is the same for all is repeated.
fn widened(
    graph: &mut Graph,
    id: NodeId,
    wide: &HashMap<NodeId, NodeId>,
    width: usize,
) -> Result<NodeId> {
    if let Some(&id) = wide.get(&id) {
        return Ok(id);
    }
    let shape = graph.shape(id).clone();
    let one = graph.reshape(id, &lead(1, &shape))?;
    graph.broadcast(one, &lead(width, &shape))
}

fn rule(
    graph: &mut Graph,
    id: NodeId,
    wide: &HashMap<NodeId, NodeId>,
    width: usize,
) -> Result<NodeId> {
    let node = graph.node(id).clone();
    let shape = lead(width, &node.shape);
    if let Op::Dot {
        transpose_lhs,
        transpose_rhs,
    } = node.op
    {
        return dot(
            graph,
            &node.operands,
            wide,
            width,
            (transpose_lhs, transpose_rhs),
        );
    }
    if matches!(node.op, Op::Gather | Op::ScatterAdd) {
        return rows(graph, id, wide, width);
    }
    let operands: Vec<NodeId> = node
        .operands
        .iter()
        .map(|&operand| widened(graph, operand, wide, width))
        .collect::<Result<_>>()?;
    let x = operands.first().copied().unwrap_or(id);
    match &node.op {
        Op::Unary(f) => graph.unary(*f, x),
        Op::Binary(f) => graph.binary(*f, x, operands[1]),
        Op::Select => graph.select(x, operands[1], operands[2]),
        Op::StopGradient => graph.stop_gradient(x),
        Op::Broadcast => graph.broadcast(x, &shape),
        Op::Reshape => graph.reshape(x, &shape),
        Op::Permute(permutation) => {
            let mut order = vec![0];
            order.extend(shifted(permutation));
            graph.permute(x, &order)
        }
        Op::Slice(starts) => graph.slice(x, &lead(0, starts), &shape),
        Op::Pad(before) => graph.pad(x, &lead(0, before), &shape),
        Op::Sum(axes) => graph.sum(x, &shifted(axes)),
        Op::Max(axes) => graph.max(x, &shifted(axes)),
        Op::OneHot => graph.one_hot(x, node.shape[node.shape.len() - 1]),
        // Other leaves depend on none of these.
        _ => Ok(x),
    }
}

/// `[B,M,K] x [B,K,N]`: for `B = 1` the new axis takes the place of the batch, and an operand without it is read in place by each. For `B >
/// 1` it goes inside the batch, which copies an operand.
fn dot(
    graph: &mut Graph,
    operands: &[NodeId],
    wide: &HashMap<NodeId, NodeId>,
    width: usize,
    (transpose_lhs, transpose_rhs): (bool, bool),
) -> Result<NodeId> {
    let batch = graph.shape(operands[0])[0];
    let mut factors = Vec::with_capacity(2);
    for &operand in operands {
        let (rows, columns) = (graph.shape(operand)[1], graph.shape(operand)[2]);
        let matrices = [batch * width, rows, columns];
        factors.push(if batch == 1 {
            match wide.get(&operand) {
                Some(&operand) => graph.reshape(operand, &matrices)?,
                None => graph.broadcast(operand, &matrices)?,
            }
        } else {
            let operand = widened(graph, operand, wide, width)?;
            let inside = graph.permute(operand, &[1, 0, 2, 3])?;
            graph.reshape(inside, &matrices)?
        });
    }
    let product = graph.dot(factors[0], factors[1], transpose_lhs, transpose_rhs)?;
    let (m, n) = (graph.shape(product)[1], graph.shape(product)[2]);
    if batch == 1 {
        return graph.reshape(product, &[width, 1, m, n]);
    }
    let inside = graph.reshape(product, &[batch, width, m, n])?;
    graph.permute(inside, &[1, 0, 2, 3])
}

/// Gather and scatter-add move whole rows: the new axis becomes part of the row.
fn rows(
    graph: &mut Graph,
    id: NodeId,
    wide: &HashMap<NodeId, NodeId>,
    width: usize,
) -> Result<NodeId> {
    let node = graph.node(id).clone();
    let (values, indices) = (node.operands[0], node.operands[1]);
    if wide.contains_key(&indices) {
        return Err(Error::Unsupported {
            what: format!("groups of examples in {}", graph.describe(id)),
            message: "its indices differ from group to group; write it as a product with one_hot"
                .into(),
        });
    }
    let values = widened(graph, values, wide, width)?;
    let from = graph.shape(values).clone();
    let inside = graph.permute(values, &[1, 0, 2])?;
    let flat = graph.reshape(inside, &[from[1], width * from[2]])?;
    let moved = match node.op {
        Op::Gather => graph.gather(flat, indices)?,
        _ => graph.scatter_add(flat, indices, node.shape[0])?,
    };
    let (count, columns) = (node.shape[0], elements(&node.shape[1..]));
    let inside = graph.reshape(moved, &[count, width, columns])?;
    graph.permute(inside, &[1, 0, 2])
}
