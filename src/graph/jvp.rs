//! Forward mode: the tangent (Jacobian-vector product) of every primitive.
//!
//! `linearize` appends, for given tangents of some nodes, the tangents of others. What it appends that depends on the tangents is linear in
//! them: the *linear part*. Everything else it appends (such as `1 - tanh^2`) depends on the primal values alone and is shared.
//! After "You can linearize anything" in JAX's Autodidax, and Frostig et al. 2021, "Decomposing reverse-mode automatic differentiation".

use std::collections::HashMap;

use super::node::{Graph, NodeId};
use super::op::{Binary, Op, Unary};
use crate::error::Result;

/// Tangents of `outputs` when the nodes in `tangents` move along the given tangents. `None` is a tangent of zero.
///
/// A node in `tangents` counts as an independent variable: what it is computed from does not matter.
pub fn linearize(
    graph: &mut Graph,
    outputs: &[NodeId],
    tangents: &[(NodeId, NodeId)],
) -> Result<Vec<Option<NodeId>>> {
    graph.check_ids(outputs)?;
    graph.check_tangents(tangents)?;
    let sources: Vec<NodeId> = tangents.iter().map(|&(node, _)| node).collect();
    let needed = graph.ancestors(outputs);
    let moves = graph.depends_on(&sources);
    let mut tangent: HashMap<NodeId, NodeId> = tangents.iter().copied().collect();
    for index in 0..needed.len() {
        let id = NodeId(index);
        if needed[index]
            && moves[index]
            && !tangent.contains_key(&id)
            && let Some(t) = rule(graph, id, &tangent)?
        {
            tangent.insert(id, t);
        }
    }
    Ok(outputs
        .iter()
        .map(|output| tangent.get(output).copied())
        .collect())
}

/// The tangent of one node from the tangents of its operands.
fn rule(
    graph: &mut Graph,
    id: NodeId,
    tangent: &HashMap<NodeId, NodeId>,
) -> Result<Option<NodeId>> {
    let node = graph.node(id).clone();
    let shape = &node.shape;
    let x = node.operands.first().copied();
    let tangents: Vec<Option<NodeId>> = node
        .operands
        .iter()
        .map(|o| tangent.get(o).copied())
        .collect();
    let t = tangents.first().copied().flatten();
    // Operations of one moving operand: nothing moves, nothing comes out.
    let (Some(x), Some(t)) = (x, t) else {
        return match node.op {
            Op::Binary(f) => binary_rule(graph, f, &node.operands, &tangents),
            Op::Select => select_rule(graph, &node.operands, &tangents),
            Op::Dot {
                transpose_lhs,
                transpose_rhs,
            } => dot_rule(
                graph,
                &node.operands,
                &tangents,
                transpose_lhs,
                transpose_rhs,
            ),
            _ => Ok(None),
        };
    };
    Ok(Some(match node.op {
        Op::Parameter(_) | Op::Input(_) | Op::Direction(_) | Op::Constant(_) | Op::Data(_) => {
            return Ok(None);
        }
        Op::StopGradient | Op::OneHot => return Ok(None),
        Op::Unary(f) => return unary_rule(graph, f, x, id, t),
        Op::Binary(f) => return binary_rule(graph, f, &node.operands, &tangents),
        Op::Select => return select_rule(graph, &node.operands, &tangents),
        Op::Dot {
            transpose_lhs,
            transpose_rhs,
        } => {
            return dot_rule(
                graph,
                &node.operands,
                &tangents,
                transpose_lhs,
                transpose_rhs,
            );
        }
        Op::Broadcast => graph.broadcast(t, shape)?,
        Op::Reshape => graph.reshape(t, shape)?,
        Op::Permute(p) => graph.permute(t, &p)?,
        Op::Slice(starts) => graph.slice(t, &starts, shape)?,
        Op::Pad(before) => graph.pad(t, &before, shape)?,
        Op::Sum(axes) => graph.sum(t, &axes)?,
        Op::Max(axes) => {
            // The tangent at the largest element; equal ones share it.
            let full = graph.shape(x).clone();
            let top = graph.broadcast(id, &full)?;
            let below = graph.binary(Binary::Sub, top, x)?;
            let below = graph.unary(Unary::Step, below)?;
            let one = graph.constant(1.0, &full);
            let is_top = graph.binary(Binary::Sub, one, below)?;
            let count = graph.sum(is_top, &axes)?;
            let count = graph.broadcast(count, &full)?;
            let share = graph.binary(Binary::Div, is_top, count)?;
            let moved = graph.binary(Binary::Mul, share, t)?;
            graph.sum(moved, &axes)?
        }
        Op::Gather => graph.gather(t, node.operands[1])?,
        Op::ScatterAdd => graph.scatter_add(t, node.operands[1], shape[0])?,
    }))
}

/// `t * f'(x)`, with `f'` written through `y = f(x)` where that is cheaper.
fn unary_rule(
    graph: &mut Graph,
    f: Unary,
    x: NodeId,
    y: NodeId,
    t: NodeId,
) -> Result<Option<NodeId>> {
    let shape = graph.shape(x).clone();
    let one = graph.constant(1.0, &shape);
    let slope = match f {
        Unary::Neg => return Ok(Some(graph.unary(Unary::Neg, t)?)),
        Unary::Step => return Ok(None),
        Unary::Exp => y,
        Unary::Log => graph.unary(Unary::Reciprocal, x)?,
        Unary::Tanh => {
            let square = graph.binary(Binary::Mul, y, y)?;
            graph.binary(Binary::Sub, one, square)?
        }
        Unary::Logistic => {
            let rest = graph.binary(Binary::Sub, one, y)?;
            graph.binary(Binary::Mul, y, rest)?
        }
        Unary::Softplus => graph.unary(Unary::Logistic, x)?,
        Unary::Sin => graph.unary(Unary::Cos, x)?,
        Unary::Cos => {
            let sine = graph.unary(Unary::Sin, x)?;
            graph.unary(Unary::Neg, sine)?
        }
        Unary::Sqrt => {
            let half = graph.constant(0.5, &shape);
            graph.binary(Binary::Div, half, y)?
        }
        Unary::Reciprocal => {
            let square = graph.binary(Binary::Mul, y, y)?;
            graph.unary(Unary::Neg, square)?
        }
        Unary::Erf => {
            let square = graph.binary(Binary::Mul, x, x)?;
            let negative = graph.unary(Unary::Neg, square)?;
            let bell = graph.unary(Unary::Exp, negative)?;
            let scale = graph.constant(std::f32::consts::FRAC_2_SQRT_PI, &shape);
            graph.binary(Binary::Mul, scale, bell)?
        }
        Unary::Relu => graph.unary(Unary::Step, x)?,
    };
    Ok(Some(graph.binary(Binary::Mul, slope, t)?))
}

fn add(graph: &mut Graph, a: Option<NodeId>, b: Option<NodeId>) -> Result<Option<NodeId>> {
    Ok(match (a, b) {
        (Some(a), Some(b)) => Some(graph.binary(Binary::Add, a, b)?),
        (a, b) => a.or(b),
    })
}

fn binary_rule(
    graph: &mut Graph,
    f: Binary,
    operands: &[NodeId],
    tangents: &[Option<NodeId>],
) -> Result<Option<NodeId>> {
    let &[a, b] = operands else { return Ok(None) };
    let &[ta, tb] = tangents else { return Ok(None) };
    let negated =
        |graph: &mut Graph, t: Option<NodeId>| t.map(|t| graph.unary(Unary::Neg, t)).transpose();
    let times = |graph: &mut Graph, t: Option<NodeId>, factor: NodeId| {
        t.map(|t| graph.binary(Binary::Mul, t, factor)).transpose()
    };
    match f {
        Binary::Add => add(graph, ta, tb),
        Binary::Sub => match (ta, tb) {
            (Some(ta), Some(tb)) => Ok(Some(graph.binary(Binary::Sub, ta, tb)?)),
            (None, tb) => negated(graph, tb),
            (ta, None) => Ok(ta),
        },
        Binary::Mul => {
            let left = times(graph, ta, b)?;
            let right = times(graph, tb, a)?;
            add(graph, left, right)
        }
        Binary::Div => {
            // d(a/b) = da * (1/b) - db * (a/b^2)
            let inverse = graph.unary(Unary::Reciprocal, b)?;
            let left = times(graph, ta, inverse)?;
            let right = match tb {
                None => None,
                Some(_) => {
                    let ratio = graph.binary(Binary::Mul, a, inverse)?;
                    let factor = graph.binary(Binary::Mul, ratio, inverse)?;
                    let scaled = times(graph, tb, factor)?;
                    negated(graph, scaled)?
                }
            };
            add(graph, left, right)
        }
        Binary::Max => {
            let shape = graph.shape(a).clone();
            let zero = graph.constant(0.0, &shape);
            let difference = graph.binary(Binary::Sub, b, a)?;
            let from_b = tb.unwrap_or(zero);
            let from_a = ta.unwrap_or(zero);
            Ok(Some(graph.select(difference, from_b, from_a)?))
        }
    }
}

fn select_rule(
    graph: &mut Graph,
    operands: &[NodeId],
    tangents: &[Option<NodeId>],
) -> Result<Option<NodeId>> {
    let (Some(&condition), &[_, ta, tb]) = (operands.first(), tangents) else {
        return Ok(None);
    };
    if ta.is_none() && tb.is_none() {
        return Ok(None);
    }
    let shape = graph.shape(condition).clone();
    let zero = graph.constant(0.0, &shape);
    Ok(Some(graph.select(
        condition,
        ta.unwrap_or(zero),
        tb.unwrap_or(zero),
    )?))
}

fn dot_rule(
    graph: &mut Graph,
    operands: &[NodeId],
    tangents: &[Option<NodeId>],
    transpose_lhs: bool,
    transpose_rhs: bool,
) -> Result<Option<NodeId>> {
    let (&[lhs, rhs], &[tl, tr]) = (operands, tangents) else {
        return Ok(None);
    };
    let left = tl
        .map(|t| graph.dot(t, rhs, transpose_lhs, transpose_rhs))
        .transpose()?;
    let right = tr
        .map(|t| graph.dot(lhs, t, transpose_lhs, transpose_rhs))
        .transpose()?;
    add(graph, left, right)
}
