//! Sums moved up through what is linear: `a W + b W` as `(a + b) W`.
//!
//! The sum over directions of K-th derivatives is linear in the K-th coefficients of what a node is computed from, with slopes that are the
//! same for all directions. So a sum of such derivatives becomes one coefficient of that order at every node, as collapsed Taylor mode
//! propagates it (Dangel et al. 2025, 2505.13644); for second derivatives it is the forward Laplacian (Li et al. 2023, 2307.08214). Here
//! it is a rewrite: the derivatives of each direction are written out, and then nodes with the same linear head are summed below it.

use std::collections::BTreeMap;

use super::node::{Graph, NodeId, Shape};
use super::op::{Binary, Op, Unary};
use crate::error::Result;

/// A sum of nodes with their factors. No factor is 0.
type Terms = BTreeMap<NodeId, f32>;

/// A node that is linear in the operand at this place.
type Member = (NodeId, usize);

/// `sum_j c_j n_j` of nodes of one shape; `None` where nothing is left of it.
pub(super) fn sum(graph: &mut Graph, terms: &[(f32, NodeId)]) -> Result<Option<NodeId>> {
    let mut flat = Terms::new();
    for &(factor, node) in terms {
        *flat.entry(node).or_default() += factor;
    }
    flatten(graph, &mut flat);
    let mut parts = Terms::new();
    while let Some(members) = largest_group(graph, &flat) {
        let inner = members.iter().filter_map(|&(node, at)| {
            let factor = flat.remove(&node)?;
            Some((factor, graph.node(node).operands[at]))
        });
        let inner: Vec<(f32, NodeId)> = inner.collect();
        if let (Some(&head), Some(inner)) = (members.first(), sum(graph, &inner)?) {
            let part = with_operand(graph, head, inner)?;
            *parts.entry(part).or_default() += 1.0;
        }
    }
    for (node, factor) in flat {
        *parts.entry(node).or_default() += factor;
    }
    let mut total: Option<NodeId> = None;
    for (node, factor) in parts {
        let shape = graph.shape(node).clone();
        let scale = graph.constant(factor, &shape);
        let scaled = graph.binary(Binary::Mul, scale, node)?;
        total = Some(match total {
            None => scaled,
            Some(total) => graph.binary(Binary::Add, total, scaled)?,
        });
    }
    Ok(total)
}

/// Replaces sums, differences and minus signs by what they are made of, the later nodes first.
fn flatten(graph: &Graph, terms: &mut Terms) {
    let mut done = Terms::new();
    while let Some((node, factor)) = terms.pop_last() {
        if factor == 0.0 || graph.constant_value(node) == Some(0.0) {
            continue;
        }
        let operands = &graph.node(node).operands;
        let mut add = |at: usize, factor: f32| {
            *terms.entry(operands[at]).or_default() += factor;
        };
        match graph.node(node).op {
            Op::Binary(Binary::Add) => (0..2).for_each(|at| add(at, factor)),
            Op::Binary(Binary::Sub) => {
                add(0, factor);
                add(1, -factor);
            }
            Op::Unary(Unary::Neg) => add(0, -factor),
            _ => *done.entry(node).or_default() += factor,
        }
    }
    *terms = done;
}

/// Most terms, at least two, that differ in one operand alone, in which they are linear; of as many the first.
fn largest_group(graph: &Graph, terms: &Terms) -> Option<Vec<Member>> {
    // The operation, its other operands, and the shapes of the operand and the result.
    type Head<'a> = (&'a Op, Vec<(usize, NodeId)>, &'a Shape, &'a Shape);
    let mut groups: Vec<(Head<'_>, Vec<Member>)> = Vec::new();
    for &id in terms.keys() {
        let node = graph.node(id);
        for varies in linear_in(&node.op) {
            let others = node.operands.iter().enumerate();
            let others = others.filter(|&(at, _)| at != varies);
            // The factors of a product have no places.
            let place = |at: usize| {
                if node.op == Op::Binary(Binary::Mul) {
                    0
                } else {
                    at
                }
            };
            let others = others.map(|(at, &operand)| (place(at), operand)).collect();
            let from = graph.shape(node.operands[varies]);
            let head = (&node.op, others, &node.shape, from);
            match groups.iter_mut().find(|(known, _)| *known == head) {
                None => groups.push((head, vec![(id, varies)])),
                Some((_, members)) if members.iter().any(|&(member, _)| member == id) => {}
                Some((_, members)) => members.push((id, varies)),
            }
        }
    }
    let groups = groups.into_iter().map(|(_, members)| members);
    let groups = groups.filter(|members| members.len() > 1);
    groups.rev().max_by_key(Vec::len)
}

/// The operands in each of which, alone, the operation is linear.
fn linear_in(op: &Op) -> std::ops::Range<usize> {
    match op {
        Op::Binary(Binary::Mul) | Op::Dot { .. } => 0..2,
        Op::Binary(Binary::Div)
        | Op::Broadcast
        | Op::Reshape
        | Op::Permute(_)
        | Op::Slice(_)
        | Op::Pad(_)
        | Op::Sum(_)
        | Op::Gather => 0..1,
        _ => 0..0,
    }
}

/// The node with another operand at this place.
fn with_operand(graph: &mut Graph, (like, at): Member, operand: NodeId) -> Result<NodeId> {
    let node = graph.node(like).clone();
    let mut operands = node.operands;
    operands[at] = operand;
    let shape = &node.shape;
    match node.op {
        Op::Binary(f) => graph.binary(f, operands[0], operands[1]),
        Op::Dot {
            transpose_lhs,
            transpose_rhs,
        } => graph.dot(operands[0], operands[1], transpose_lhs, transpose_rhs),
        Op::Broadcast => graph.broadcast(operand, shape),
        Op::Reshape => graph.reshape(operand, shape),
        Op::Permute(permutation) => graph.permute(operand, &permutation),
        Op::Slice(starts) => graph.slice(operand, &starts, shape),
        Op::Pad(before) => graph.pad(operand, &before, shape),
        Op::Sum(axes) => graph.sum(operand, &axes),
        Op::Gather => graph.gather(operand, operands[1]),
        _ => Ok(like),
    }
}
