//! Gradient, Hessian product and Gauss-Newton product, as compositions of [`linearize`] and [`transpose`].

use super::jvp::linearize;
use super::node::{Graph, NodeId};
use super::transpose::transpose;
use crate::error::Result;

/// `J^T u` for `outputs` as functions of `wrt`, with one cotangent per output: backpropagation. `None` is zero.
pub fn pull_back(
    graph: &mut Graph,
    outputs: &[(NodeId, NodeId)],
    wrt: &[NodeId],
) -> Result<Vec<Option<NodeId>>> {
    let nodes: Vec<NodeId> = outputs.iter().map(|&(node, _)| node).collect();
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
    let tangents: Vec<(NodeId, NodeId)> = wrt
        .iter()
        .copied()
        .zip(directions.iter().copied())
        .collect();
    let values = linearize(graph, gradient, &tangents)?;
    Ok(filled(graph, wrt, values))
}

/// `J^T H_loss J v`: the generalized Gauss-Newton product (Schraudolph 2002), where `J` is the Jacobian of `outputs` and
/// `H_loss` the Hessian of `loss` as a function of `outputs` alone.
pub fn gauss_newton_product(
    graph: &mut Graph,
    loss: NodeId,
    outputs: NodeId,
    wrt: &[NodeId],
    directions: &[NodeId],
) -> Result<Vec<NodeId>> {
    let tangents: Vec<(NodeId, NodeId)> = wrt
        .iter()
        .copied()
        .zip(directions.iter().copied())
        .collect();
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
