//! The sum over the batch at the end of a gradient, taken apart.
//!
//! The gradient of a dense layer is `sum_n x_n d_n^T`: a `dot` that contracts the batch. Stopping before that sum leaves the factors of
//! every example's gradient, from which whatever is to be known of the examples is made: [`per_example`](super::per_example) and
//! [`kronecker`](super::kronecker). A parameter that is used several times has a gradient that is a sum of such terms.

use super::node::{Graph, Node, NodeId, elements};
use super::op::{Binary, Op, Unary};
use crate::error::Result;

/// Which axis of a node counts examples.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum BatchAxis {
    /// The value does not depend on the batch: a parameter or a constant.
    Absent,
    /// Row `i` along this axis depends on example `i` alone.
    At(usize),
    /// Examples are mixed: summed over, or in a way that is not tracked. A row made with such a value is no longer one example's.
    Mixed,
}

/// A part of a node just before its sum over the batch. Its elements are in the node's order, whatever the shape.
#[derive(Clone, Copy, Debug)]
pub(super) enum Term {
    /// `sum_n left[n, :] right[n, :]^T`, factors of shape `[1, n, a]` and `[1, n, b]`.
    Outer(NodeId, NodeId),
    /// `sum_n rows[n, ...]`, with the batch as axis 0.
    Rows(NodeId),
}

/// The terms of which `gradient` is the sum; none where it does not end in a sum over the batch of products of two factors.
pub(super) fn terms(
    graph: &mut Graph,
    gradient: NodeId,
    axes: &[BatchAxis],
) -> Result<Option<Vec<Term>>> {
    let mut terms = Vec::new();
    Ok(collect(graph, gradient, axes, &mut terms)?.then_some(terms))
}

/// Rows `[n, ...]` as `[n, elements]`.
pub(super) fn flattened(graph: &mut Graph, rows: NodeId) -> Result<NodeId> {
    let shape = graph.shape(rows);
    let flat = [shape[0], shape[1..].iter().product()];
    graph.reshape(rows, &flat)
}

fn collect(
    graph: &mut Graph,
    id: NodeId,
    axes: &[BatchAxis],
    terms: &mut Vec<Term>,
) -> Result<bool> {
    let node = graph.node(id).clone();
    let axis = |o: NodeId| axes.get(o.0).copied().unwrap_or(BatchAxis::Mixed);
    match node.op {
        Op::Constant(bits) if f32::from_bits(bits) == 0.0 => Ok(true),
        Op::Reshape => collect(graph, node.operands[0], axes, terms),
        Op::Binary(Binary::Add) => Ok(collect(graph, node.operands[0], axes, terms)?
            && collect(graph, node.operands[1], axes, terms)?),
        Op::Unary(Unary::Neg) => {
            let start = terms.len();
            if !collect(graph, node.operands[0], axes, terms)? {
                return Ok(false);
            }
            for term in &mut terms[start..] {
                *term = match *term {
                    Term::Outer(left, right) => Term::Outer(graph.unary(Unary::Neg, left)?, right),
                    Term::Rows(rows) => Term::Rows(graph.unary(Unary::Neg, rows)?),
                };
            }
            Ok(true)
        }
        Op::Permute(ref permutation) => {
            let start = terms.len();
            if !collect(graph, node.operands[0], axes, terms)? {
                return Ok(false);
            }
            let from = graph.shape(node.operands[0]).clone();
            for term in &mut terms[start..] {
                match permuted(graph, *term, &from, permutation)? {
                    Some(moved) => *term = moved,
                    None => return Ok(false),
                }
            }
            Ok(true)
        }
        Op::Dot {
            transpose_lhs,
            transpose_rhs,
        } if node.shape[0] == 1 => {
            let (lhs, rhs) = (node.operands[0], node.operands[1]);
            let (k_lhs, k_rhs) = (
                if transpose_lhs { 1 } else { 2 },
                if transpose_rhs { 2 } else { 1 },
            );
            let left = if transpose_lhs {
                lhs
            } else {
                graph.permute(lhs, &[0, 2, 1])?
            };
            let right = if transpose_rhs {
                graph.permute(rhs, &[0, 2, 1])?
            } else {
                rhs
            };
            match (axis(lhs), axis(rhs)) {
                (BatchAxis::At(l), BatchAxis::At(r)) if l == k_lhs && r == k_rhs => {}
                // Row n of what no example changes belongs to example n.
                (BatchAxis::Absent, BatchAxis::At(r)) if r == k_rhs => {}
                (BatchAxis::At(l), BatchAxis::Absent) if l == k_lhs => {}
                (BatchAxis::Absent, _) if graph.shape(left)[1] == 1 => {
                    let Some(rows) = summed_row(graph, rhs, axes)? else {
                        return Ok(false);
                    };
                    terms.push(Term::Outer(repeated(graph, left, rows)?, rows));
                    return Ok(true);
                }
                (_, BatchAxis::Absent) if graph.shape(left)[1] == 1 => {
                    let Some(rows) = summed_row(graph, lhs, axes)? else {
                        return Ok(false);
                    };
                    terms.push(Term::Outer(rows, repeated(graph, right, rows)?));
                    return Ok(true);
                }
                _ => return Ok(false),
            }
            terms.push(Term::Outer(left, right));
            Ok(true)
        }
        Op::Sum(ref summed) => {
            let x = node.operands[0];
            let BatchAxis::At(at) = axis(x) else {
                return Ok(false);
            };
            if !summed.contains(&at) {
                return Ok(false);
            }
            let others: Vec<usize> = summed.iter().copied().filter(|&a| a != at).collect();
            let rows = graph.sum(x, &others)?;
            let mut order: Vec<usize> = (0..node.shape.len()).collect();
            order.remove(at);
            order.insert(0, at);
            terms.push(Term::Rows(graph.permute(rows, &order)?));
            Ok(true)
        }
        _ => Ok(false),
    }
}

/// The factor `[1, n, size]` whose sum over the batch this vector is.
fn summed_row(graph: &mut Graph, vector: NodeId, axes: &[BatchAxis]) -> Result<Option<NodeId>> {
    let mut found = Vec::new();
    Ok(
        match collect(graph, vector, axes, &mut found)?.then_some(found.as_slice()) {
            Some(&[Term::Rows(rows)]) => {
                let size = elements(graph.shape(vector));
                let examples = graph.shape(rows)[0];
                Some(graph.reshape(rows, &[1, examples, size])?)
            }
            _ => None,
        },
    )
}

/// A row `[1, 1, size]` for each of the examples of `rows`.
fn repeated(graph: &mut Graph, row: NodeId, rows: NodeId) -> Result<NodeId> {
    let shape = [1, graph.shape(rows)[1], graph.shape(row)[2]];
    graph.broadcast(row, &shape)
}

/// The term of a permuted node of shape `from`: a transposed outer product has its factors swapped, as where a weight is used transposed.
fn permuted(
    graph: &mut Graph,
    term: Term,
    from: &[usize],
    permutation: &[usize],
) -> Result<Option<Term>> {
    match term {
        Term::Outer(left, right) => {
            let order: Vec<usize> = permutation
                .iter()
                .copied()
                .filter(|&axis| from[axis] > 1)
                .collect();
            let sizes = (
                graph.shape(left).last().copied(),
                graph.shape(right).last().copied(),
            );
            Ok(match *order {
                _ if order.is_sorted() => Some(term),
                [b, a] if sizes == (Some(from[a]), Some(from[b])) => Some(Term::Outer(right, left)),
                _ => None,
            })
        }
        Term::Rows(rows) => {
            let mut shape = vec![graph.shape(rows)[0]];
            shape.extend(from);
            let rows = graph.reshape(rows, &shape)?;
            let mut lifted = vec![0];
            lifted.extend(permutation.iter().map(|axis| axis + 1));
            Ok(Some(Term::Rows(graph.permute(rows, &lifted)?)))
        }
    }
}

/// The batch axis of every node. Inputs of more than no axes have it first, and so have leaves of which it is said that they have `rows`.
pub(super) fn batch_axes(graph: &Graph, rows: &[NodeId]) -> Vec<BatchAxis> {
    axes_from(graph, |id, node| match node.op {
        Op::Input(_) => !node.shape.is_empty(),
        Op::Direction(_) => rows.contains(&id),
        _ => false,
    })
}

/// The same where the rows of `x` are the examples, whatever they are made of.
pub(super) fn row_axes(graph: &Graph, x: NodeId) -> Vec<BatchAxis> {
    axes_from(graph, |id, _| id == x)
}

/// The axis of every node that counts the rows of those nodes that `has_rows`, in which it is the first.
fn axes_from(graph: &Graph, has_rows: impl Fn(NodeId, &Node) -> bool) -> Vec<BatchAxis> {
    let mut axes: Vec<BatchAxis> = Vec::with_capacity(graph.nodes().len());
    for (id, node) in graph.nodes().iter().enumerate() {
        if has_rows(NodeId(id), node) {
            axes.push(BatchAxis::At(0));
            continue;
        }
        let of = |i: usize| {
            node.operands
                .get(i)
                .map_or(BatchAxis::Absent, |o| axes[o.0])
        };
        let joined =
            node.operands
                .iter()
                .map(|o| axes[o.0])
                .fold(BatchAxis::Absent, |a, b| match (a, b) {
                    (BatchAxis::Absent, x) | (x, BatchAxis::Absent) => x,
                    (x, y) if x == y => x,
                    _ => BatchAxis::Mixed,
                });
        let from = node
            .operands
            .first()
            .map(|&o| graph.shape(o).as_slice())
            .unwrap_or_default();
        let axis = match (&node.op, of(0)) {
            (
                Op::Parameter(_) | Op::Input(_) | Op::Direction(_) | Op::Constant(_) | Op::Data(_),
                _,
            ) => BatchAxis::Absent,
            (
                Op::Unary(_)
                | Op::Binary(_)
                | Op::Select
                | Op::StopGradient
                | Op::Broadcast
                | Op::OneHot,
                _,
            ) => joined,
            (_, BatchAxis::Mixed) => BatchAxis::Mixed,
            (Op::Reshape, BatchAxis::At(d)) => reshaped(from, &node.shape, d),
            (Op::Permute(p), BatchAxis::At(d)) => p
                .iter()
                .position(|&source| source == d)
                .map_or(BatchAxis::Mixed, BatchAxis::At),
            (Op::Slice(_) | Op::Pad(_), BatchAxis::At(d)) if from[d] == node.shape[d] => {
                BatchAxis::At(d)
            }
            (Op::Sum(reduced) | Op::Max(reduced), BatchAxis::At(d)) if reduced.contains(&d) => {
                BatchAxis::Mixed
            }
            (Op::Sum(_) | Op::Max(_), x) => x,
            (
                Op::Dot {
                    transpose_lhs,
                    transpose_rhs,
                },
                left,
            ) => dot_axis(left, of(1), *transpose_lhs, *transpose_rhs),
            (Op::Gather, BatchAxis::Absent) => of(1),
            (_, BatchAxis::Absent) if joined == BatchAxis::Absent => BatchAxis::Absent,
            _ => BatchAxis::Mixed,
        };
        axes.push(axis);
    }
    axes
}

/// The axis of the same size with as many elements before it.
fn reshaped(from: &[usize], to: &[usize], axis: usize) -> BatchAxis {
    let before: usize = from[..axis].iter().product();
    let mut seen = 1;
    for (d, &size) in to.iter().enumerate() {
        if seen == before && size == from[axis] {
            return BatchAxis::At(d);
        }
        seen *= size;
    }
    BatchAxis::Mixed
}

fn dot_axis(
    left: BatchAxis,
    right: BatchAxis,
    transpose_lhs: bool,
    transpose_rhs: bool,
) -> BatchAxis {
    let m_axis = if transpose_lhs { 2 } else { 1 };
    let n_axis = if transpose_rhs { 1 } else { 2 };
    match (left, right) {
        (BatchAxis::Absent, BatchAxis::Absent) => BatchAxis::Absent,
        (BatchAxis::At(0), BatchAxis::At(0) | BatchAxis::Absent)
        | (BatchAxis::Absent, BatchAxis::At(0)) => BatchAxis::At(0),
        (BatchAxis::At(d), BatchAxis::Absent) if d == m_axis => BatchAxis::At(1),
        (BatchAxis::Absent, BatchAxis::At(d)) if d == n_axis => BatchAxis::At(2),
        _ => BatchAxis::Mixed,
    }
}
