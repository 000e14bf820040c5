//! Forward mode: the tangent (Jacobian-vector product) of every primitive.
//!
//! `linearize` appends, for given tangents of some nodes, the tangents of others. What it appends that depends on the tangents is linear in
//! them: the *linear part*. Everything else it appends (such as `1 - tanh^2`) depends on the primal values alone and is shared.
//! Tangents of quotients, roots and logarithms are quotients themselves: a tangent times the square of a reciprocal would overflow in
//! second derivatives where the whole product is finite. After "You can linearize anything" in JAX's Autodidax, and Frostig et al. 2021,
//! "Decomposing reverse-mode automatic differentiation".

use std::collections::HashMap;

use super::guard::Guards;
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
    let guards = Guards::new(graph, outputs, &needed, &moves);
    let mut tangent: HashMap<NodeId, NodeId> = tangents.iter().copied().collect();
    for index in 0..needed.len() {
        let id = NodeId(index);
        if needed[index]
            && moves[index]
            && !tangent.contains_key(&id)
            && let Some(t) = rule(graph, id, &tangent, &guards)?
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
    guards: &Guards,
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
            Op::Binary(f) => binary_rule(graph, f, id, &tangents, guards),
            Op::Select => select_rule(graph, id, &tangents, guards),
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
        Op::Unary(f) => return unary_rule(graph, f, id, t, guards),
        Op::Binary(f) => return binary_rule(graph, f, id, &tangents, guards),
        Op::Select => return select_rule(graph, id, &tangents, guards),
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
    y: NodeId,
    t: NodeId,
    guards: &Guards,
) -> Result<Option<NodeId>> {
    let x = graph.node(y).operands[0];
    let shape = graph.shape(x).clone();
    let one = graph.constant(1.0, &shape);
    let quotient = |graph: &mut Graph, t: NodeId, divisor: NodeId| {
        let divisor = guards.masked(graph, y, divisor, 1.0)?;
        graph.binary(Binary::Div, t, divisor)
    };
    let slope = match f {
        Unary::Neg => return Ok(Some(graph.unary(Unary::Neg, t)?)),
        Unary::Step | Unary::IsFinite => return Ok(None),
        Unary::Log => return Ok(Some(quotient(graph, t, x)?)),
        Unary::Log1p => {
            let divisor = graph.binary(Binary::Add, one, x)?;
            return Ok(Some(quotient(graph, t, divisor)?));
        }
        Unary::Sqrt => {
            let half = graph.constant(0.5, &shape);
            let half = graph.binary(Binary::Mul, half, t)?;
            return Ok(Some(quotient(graph, half, y)?));
        }
        Unary::Reciprocal => {
            // Not times y: what comes back to x is then (u / x) / x, whose own tangent is finite where u / x^3 is, though 1 / x^2 may not
            // be.
            let ratio = quotient(graph, t, x)?;
            let product = quotient(graph, ratio, x)?;
            return Ok(Some(graph.unary(Unary::Neg, product)?));
        }
        Unary::Exp => y,
        Unary::Expm1 => graph.unary(Unary::Exp, x)?,
        Unary::Expm1mx => graph.unary(Unary::Expm1, x)?,
        Unary::Tanh => {
            let square = graph.binary(Binary::Mul, y, y)?;
            graph.binary(Binary::Sub, one, square)?
        }
        Unary::Logistic => {
            // Not 1 - y, which loses its digits where y is nearly 1.
            let negative = graph.unary(Unary::Neg, x)?;
            let rest = graph.unary(Unary::Logistic, negative)?;
            graph.binary(Binary::Mul, y, rest)?
        }
        Unary::Softplus => graph.unary(Unary::Logistic, x)?,
        Unary::Sin => graph.unary(Unary::Cos, x)?,
        Unary::Cos => {
            let sine = graph.unary(Unary::Sin, x)?;
            graph.unary(Unary::Neg, sine)?
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
    let slope = guards.masked(graph, y, slope, 0.0)?;
    Ok(Some(graph.binary(Binary::Mul, slope, t)?))
}

fn add(graph: &mut Graph, a: Option<NodeId>, b: Option<NodeId>) -> Result<Option<NodeId>> {
    Ok(match (a, b) {
        (Some(a), Some(b)) => Some(graph.binary(Binary::Add, a, b)?),
        (a, b) => a.or(b),
    })
}

/// `a - b`
fn subtract(graph: &mut Graph, a: Option<NodeId>, b: Option<NodeId>) -> Result<Option<NodeId>> {
    Ok(match (a, b) {
        (Some(a), Some(b)) => Some(graph.binary(Binary::Sub, a, b)?),
        (None, Some(b)) => Some(graph.unary(Unary::Neg, b)?),
        (a, None) => a,
    })
}

fn binary_rule(
    graph: &mut Graph,
    f: Binary,
    y: NodeId,
    tangents: &[Option<NodeId>],
    guards: &Guards,
) -> Result<Option<NodeId>> {
    let &[a, b] = graph.node(y).operands.as_slice() else {
        return Ok(None);
    };
    let &[ta, tb] = tangents else { return Ok(None) };
    // A factor of 0 makes a tangent that is zero everywhere.
    let times = |graph: &mut Graph, t: Option<NodeId>, factor: NodeId| match t {
        Some(t) if graph.constant_value(factor) != Some(0.0) => {
            let factor = guards.masked(graph, y, factor, 0.0)?;
            Ok(Some(graph.binary(Binary::Mul, t, factor)?))
        }
        _ => Ok::<_, crate::error::Error>(None),
    };
    match f {
        Binary::Add => add(graph, ta, tb),
        Binary::Sub => subtract(graph, ta, tb),
        Binary::Mul => {
            let left = times(graph, ta, b)?;
            let right = times(graph, tb, a)?;
            add(graph, left, right)
        }
        Binary::Div if tb.is_none() => {
            let inverse = graph.unary(Unary::Reciprocal, b)?;
            times(graph, ta, inverse)
        }
        Binary::Div => {
            // d(a/b) = da / b - a/b (db / b), so that what comes back to b is u (a/b) / b, smaller than with u / b first.
            let divisor = guards.masked(graph, y, b, 1.0)?;
            let divided = |graph: &mut Graph, t: Option<NodeId>| {
                t.map(|t| graph.binary(Binary::Div, t, divisor)).transpose()
            };
            let left = divided(graph, ta)?;
            let drawn = divided(graph, tb)?;
            let drawn = times(graph, drawn, y)?;
            subtract(graph, left, drawn)
        }
        Binary::Max => {
            let shape = graph.shape(a).clone();
            let zero = graph.constant(0.0, &shape);
            let difference = graph.binary(Binary::Sub, b, a)?;
            let difference = guards.masked(graph, y, difference, 0.0)?;
            let from_b = tb.unwrap_or(zero);
            let from_a = ta.unwrap_or(zero);
            Ok(Some(graph.select(difference, from_b, from_a)?))
        }
    }
}

fn select_rule(
    graph: &mut Graph,
    y: NodeId,
    tangents: &[Option<NodeId>],
    guards: &Guards,
) -> Result<Option<NodeId>> {
    let (condition, &[_, ta, tb]) = (graph.node(y).operands[0], tangents) else {
        return Ok(None);
    };
    if ta.is_none() && tb.is_none() {
        return Ok(None);
    }
    let shape = graph.shape(condition).clone();
    let zero = graph.constant(0.0, &shape);
    let condition = guards.masked(graph, y, condition, 0.0)?;
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
    // A factor of 0 makes a tangent that is zero everywhere.
    let is_zero = |graph: &Graph, factor| graph.constant_value(factor) == Some(0.0);
    let left = tl
        .filter(|_| !is_zero(graph, rhs))
        .map(|t| graph.dot(t, rhs, transpose_lhs, transpose_rhs))
        .transpose()?;
    let right = tr
        .filter(|_| !is_zero(graph, lhs))
        .map(|t| graph.dot(lhs, t, transpose_lhs, transpose_rhs))
        .transpose()?;
    add(graph, left, right)
}
