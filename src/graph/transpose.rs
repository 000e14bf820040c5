//! Reverse mode: the transpose of every primitive that is linear in an operand.
//!
//! If `y = A t`, transposing with cotangent `u` appends `A^T u`. Applied to the linear part that [`linearize`](super::jvp::linearize) made,
//! this is backpropagation.

use std::collections::HashMap;

use super::node::{Graph, NodeId};
use super::op::{Binary, Op, Unary};
use crate::error::{Error, Result};

/// For linear `outputs` of the nodes `wrt`, each with its cotangent: the cotangent of each of `wrt`. `None` is zero.
pub fn transpose(
    graph: &mut Graph,
    outputs: &[(NodeId, NodeId)],
    wrt: &[NodeId],
) -> Result<Vec<Option<NodeId>>> {
    let roots: Vec<NodeId> = outputs.iter().map(|&(node, _)| node).collect();
    graph.check_ids(&roots)?;
    graph.check_ids(wrt)?;
    let needed = graph.ancestors(&roots);
    let linear = graph.depends_on(wrt);
    let mut cotangent: HashMap<NodeId, NodeId> = HashMap::new();
    for &(output, value) in outputs {
        accumulate(graph, &mut cotangent, output, value)?;
    }
    for index in (0..needed.len()).rev() {
        let id = NodeId(index);
        if !needed[index] || !linear[index] || wrt.contains(&id) {
            continue;
        }
        if let Some(u) = cotangent.get(&id).copied() {
            for (operand, value) in rule(graph, id, u, &linear)? {
                accumulate(graph, &mut cotangent, operand, value)?;
            }
        }
    }
    Ok(wrt
        .iter()
        .map(|node| cotangent.get(node).copied())
        .collect())
}

fn accumulate(
    graph: &mut Graph,
    cotangent: &mut HashMap<NodeId, NodeId>,
    node: NodeId,
    value: NodeId,
) -> Result<()> {
    let total = match cotangent.get(&node) {
        Some(&sum) => graph.binary(Binary::Add, sum, value)?,
        None => value,
    };
    cotangent.insert(node, total);
    Ok(())
}

/// The contributions of a node's cotangent `u` to its linear operands.
fn rule(
    graph: &mut Graph,
    id: NodeId,
    u: NodeId,
    linear: &[bool],
) -> Result<Vec<(NodeId, NodeId)>> {
    let node = graph.node(id).clone();
    let operands = &node.operands;
    let is_linear = |operand: NodeId| linear[operand.0];
    let not_linear = |graph: &Graph| {
        Err(Error::Unsupported {
            what: format!("the transpose of {}", graph.describe(id)),
            message:
                "it is not linear in the moving operand; transpose takes only what linearize made"
                    .into(),
        })
    };
    let x = operands[0];
    let from = graph.shape(x).clone();
    Ok(match node.op {
        Op::Unary(Unary::Neg) => vec![(x, graph.unary(Unary::Neg, u)?)],
        Op::Binary(f) => {
            let (a, b) = (operands[0], operands[1]);
            let mut out = Vec::with_capacity(2);
            match f {
                Binary::Add | Binary::Sub => {
                    if is_linear(a) {
                        out.push((a, u));
                    }
                    if is_linear(b) {
                        let value = if f == Binary::Sub {
                            graph.unary(Unary::Neg, u)?
                        } else {
                            u
                        };
                        out.push((b, value));
                    }
                }
                Binary::Mul if is_linear(a) != is_linear(b) => {
                    let (moving, factor) = if is_linear(a) { (a, b) } else { (b, a) };
                    // A factor of 0 brings nothing back.
                    if graph.constant_value(factor) != Some(0.0) {
                        out.push((moving, graph.binary(Binary::Mul, u, factor)?));
                    }
                }
                Binary::Div if is_linear(a) && !is_linear(b) => {
                    out.push((a, graph.binary(Binary::Div, u, b)?))
                }
                _ => return not_linear(graph),
            }
            out
        }
        Op::Select if !is_linear(operands[0]) => {
            let zero = graph.constant(0.0, &node.shape);
            let mut out = Vec::with_capacity(2);
            if is_linear(operands[1]) {
                out.push((operands[1], graph.select(operands[0], u, zero)?));
            }
            if is_linear(operands[2]) {
                out.push((operands[2], graph.select(operands[0], zero, u)?));
            }
            out
        }
        Op::Broadcast => {
            let axes: Vec<usize> = (0..from.len())
                .filter(|&d| from[d] != node.shape[d])
                .collect();
            vec![(x, graph.sum(u, &axes)?)]
        }
        Op::Reshape => vec![(x, graph.reshape(u, &from)?)],
        Op::Permute(p) => {
            let mut inverse = vec![0; p.len()];
            for (d, &source) in p.iter().enumerate() {
                inverse[source] = d;
            }
            vec![(x, graph.permute(u, &inverse)?)]
        }
        Op::Slice(starts) => vec![(x, graph.pad(u, &starts, &from)?)],
        Op::Pad(before) => vec![(x, graph.slice(u, &before, &from)?)],
        Op::Sum(_) => vec![(x, graph.broadcast(u, &from)?)],
        Op::Dot {
            transpose_lhs: tl,
            transpose_rhs: tr,
        } => {
            let (lhs, rhs) = (operands[0], operands[1]);
            match (is_linear(lhs), is_linear(rhs)) {
                // A = u B^T, or A^T = B u^T when A is stored transposed.
                (true, false) if !tl => vec![(lhs, graph.dot(u, rhs, false, !tr)?)],
                (true, false) => vec![(lhs, graph.dot(rhs, u, tr, true)?)],
                // B = A^T u, or B^T = u^T A when B is stored transposed.
                (false, true) if !tr => vec![(rhs, graph.dot(lhs, u, !tl, false)?)],
                (false, true) => vec![(rhs, graph.dot(u, lhs, true, tl)?)],
                _ => return not_linear(graph),
            }
        }
        Op::Gather => vec![(x, graph.scatter_add(u, operands[1], from[0])?)],
        Op::ScatterAdd => vec![(x, graph.gather(u, operands[1])?)],
        _ => return not_linear(graph),
    })
}
