//! Gradient, Hessian product and Gauss-Newton product, as compositions of [`linearize`] and [`transpose`].

use super::jvp::linearize;
use super::node::{Graph, NodeId};
use super::op::{Op, Unary};
use super::transpose::transpose;
use crate::error::{Error, Result};

/// Pairs each node with its direction.
fn along(wrt: &[NodeId], directions: &[NodeId]) -> Result<Vec<(NodeId, NodeId)>> {
    if wrt.len() != directions.len() {
        return Err(Error::Length {
            what: "the list of directions".into(),
            found: directions.len(),
            expected: wrt.len(),
        });
    }
    Ok(wrt
        .iter()
        .copied()
        .zip(directions.iter().copied())
        .collect())
}

/// `J^T u` for `outputs` as functions of `wrt`, with one cotangent per output: backpropagation. `None` is zero.
pub fn pull_back(
    graph: &mut Graph,
    outputs: &[(NodeId, NodeId)],
    wrt: &[NodeId],
) -> Result<Vec<Option<NodeId>>> {
    let nodes: Vec<NodeId> = outputs.iter().map(|&(node, _)| node).collect();
    graph.check_ids(wrt)?;
    // Placeholders for the tangents: they vanish in the transposition.
    let tangents: Vec<(NodeId, NodeId)> = wrt
        .iter()
        .map(|&node| {
            let shape = graph.shape(node).clone();
            (node, graph.direction(&shape))
        })
        .collect();
    let moved = linearize(graph, &nodes, &tangents)?;
    let seeds: Vec<(NodeId, NodeId)> = moved
        .iter()
        .zip(outputs)
        .filter_map(|(&t, &(_, u))| t.map(|t| (t, u)))
        .collect();
    let placeholders: Vec<NodeId> = tangents.iter().map(|&(_, t)| t).collect();
    transpose(graph, &seeds, &placeholders)
}

/// Replaces missing cotangents by zeros of the right shape.
fn filled(graph: &mut Graph, nodes: &[NodeId], values: Vec<Option<NodeId>>) -> Vec<NodeId> {
    nodes
        .iter()
        .zip(values)
        .map(|(&node, value)| {
            value.unwrap_or_else(|| {
                let shape = graph.shape(node).clone();
                graph.constant(0.0, &shape)
            })
        })
        .collect()
}

/// The gradient of the scalar `loss` with respect to each of `wrt`.
pub fn gradient(graph: &mut Graph, loss: NodeId, wrt: &[NodeId]) -> Result<Vec<NodeId>> {
    graph.check_ids(&[loss])?;
    let shape = graph.shape(loss).clone();
    let one = graph.constant(1.0, &shape);
    let values = pull_back(graph, &[(loss, one)], wrt)?;
    Ok(filled(graph, wrt, values))
}

/// `H v`: the tangent of the gradient along the directions (forward over reverse).
pub fn hessian_product(
    graph: &mut Graph,
    gradient: &[NodeId],
    wrt: &[NodeId],
    directions: &[NodeId],
) -> Result<Vec<NodeId>> {
    let tangents = along(wrt, directions)?;
    if gradient.len() != wrt.len() {
        return Err(Error::Length {
            what: "the gradient".into(),
            found: gradient.len(),
            expected: wrt.len(),
        });
    }
    let values = linearize(graph, gradient, &tangents)?;
    Ok(filled(graph, wrt, values))
}

/// Where the loss is cut from the network that makes its outputs: the node behind the changes of view of `outputs`.
///
/// If `z = V p` with an injective linear map `V`, a function of `z` is one of `p`, and `J_z^T H_z J_z = J_p^T V^T H_z V J_p = J_p^T H_p
/// J_p`: the Gauss-Newton matrix is the same. So the cut may lie behind reshapes, permutations, repetitions, zeros around and minus signs;
/// and it must, because the loss, which sees the outputs through such views too, was simplified when it was made: a reshape of a reshape is
/// one of the node behind both.
pub fn cut(graph: &Graph, outputs: NodeId) -> NodeId {
    let mut cut = outputs;
    while let Some(node) = graph.nodes().get(cut.index())
        && matches!(
            node.op,
            Op::Reshape | Op::Permute(_) | Op::Broadcast | Op::Pad(_) | Op::Unary(Unary::Neg)
        )
    {
        cut = node.operands[0];
    }
    cut
}

/// `J^T H_loss J v`: the generalized Gauss-Newton product (Schraudolph 2002), where `J` is the Jacobian of `outputs` and
/// `H_loss` the Hessian of `loss` as a function of `outputs` alone (or of what they are a view of, which is the same: [`cut`]).
pub fn gauss_newton_product(
    graph: &mut Graph,
    loss: NodeId,
    outputs: NodeId,
    wrt: &[NodeId],
    directions: &[NodeId],
) -> Result<Vec<NodeId>> {
    let tangents = along(wrt, directions)?;
    graph.check_ids(&[loss, outputs])?;
    let outputs = cut(graph, outputs);
    let moved = linearize(graph, &[outputs], &tangents)?;
    let Some(jacobian_product) = moved[0] else {
        return Ok(filled(graph, wrt, vec![None; wrt.len()]));
    };
    let output_gradient = gradient(graph, loss, &[outputs])?;
    let curved = linearize(graph, &output_gradient, &[(outputs, jacobian_product)])?;
    let values = match curved[0] {
        None => vec![None; wrt.len()],
        Some(curved) => transpose(graph, &[(jacobian_product, curved)], directions)?,
    };
    Ok(filled(graph, wrt, values))
}
