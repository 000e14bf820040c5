//! Eigenvalues of a layer's curvature that are not products of its factors'.

use super::super::example_rows::ExampleRows;
use super::super::node::{Graph, NodeId};
use super::super::op::Binary;
use super::super::terms::Term;
use super::LayerFactors;
use crate::error::Result;

/// `S_ij = sum_cn p_n (Q_A^T V_cn Q_B)_ij^2` for a layer's rows `V_cn` of the examples, each a matrix with the bias where it has one, and
/// weights `p` `[n]` that add up to 1: the diagonal of the curvature in a basis, `[rows columns]`. Of all matrices that are diagonal in
/// it, this one is nearest to the curvature. The basis `[Q_A, Q_B]`, with vectors as columns, is that of the factors' eigenvectors.
///
/// Two products for each factor and one for the squares, `n (r^2 + c^2 + r c)` multiply-adds for `r` rows and `c` columns; uses of a
/// parameter are added before they are squared, as pairs.
///
/// # Errors
/// Shapes that do not fit.
pub fn corrected_eigenvalues(
    graph: &mut Graph,
    (factors, rows): (&LayerFactors, &ExampleRows),
    basis: [NodeId; 2],
    scale: NodeId,
) -> Result<NodeId> {
    let mut terms = Vec::with_capacity(rows.terms().len());
    for (at, &term) in rows.terms().iter().enumerate() {
        let present = factors.with_bias.get(at) == Some(&true);
        let along =
            |axis: usize| present && factors.layer.bias.is_some_and(|bias| bias.axis == axis);
        terms.push(match term {
            Term::Outer(left, right) => Term::Outer(
                rotated(graph, left, basis[0], along(0))?,
                rotated(graph, right, basis[1], along(1))?,
            ),
            rows => rows,
        });
    }
    let sizes = basis.map(|vectors| graph.shape(vectors)[0]);
    let rotated = rows.of_shape(&sizes, terms);
    let squares = rotated.squared(graph, scale)?.sum(graph)?;
    graph.reshape(squares, &[sizes[0] * sizes[1]])
}

/// Rows `[c, n, size]` times vectors; with a 1 appended, these have one more row.
fn rotated(graph: &mut Graph, x: NodeId, vectors: NodeId, appended: bool) -> Result<NodeId> {
    let (shape, order) = (graph.shape(x).clone(), graph.shape(vectors)[0]);
    let flat = graph.reshape(x, &[1, shape[0] * shape[1], shape[2]])?;
    let own = graph.slice(vectors, &[0, 0], &[shape[2], order])?;
    let own = graph.reshape(own, &[1, shape[2], order])?;
    let mut product = graph.dot(flat, own, false, false)?;
    if appended {
        let last = graph.slice(vectors, &[shape[2], 0], &[1, order])?;
        let last = graph.reshape(last, &[1, 1, order])?;
        let like = graph.shape(product).clone();
        let last = graph.broadcast(last, &like)?;
        product = graph.binary(Binary::Add, product, last)?;
    }
    graph.reshape(product, &[shape[0], shape[1], order])
}
