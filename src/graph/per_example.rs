//! Sums over the batch of squared per-example gradients, without forming a per-example gradient.
//!
//! The gradient of a dense layer is `sum_n x_n d_n^T`: a `dot` that contracts the batch. Stopping before that sum leaves the factors of
//! every example's gradient, and `sum_n (x_n d_n^T)^2 = (X*X)^T (D*D)`, one more `dot` per layer (Goodfellow 2015, "Efficient per-example
//! gradient computations"; BackPACK's `SumGradSquared`). A parameter that is used several times has a gradient that is a sum of such terms,
//! and the square of a sum is the sum over pairs of terms.

use super::node::{Graph, NodeId};
use super::op::{Binary, Unary};
use super::terms::{BatchAxis, Term, batch_axes, flattened, terms};
use crate::error::{Error, Result};

/// For each of `gradients` (of `sum_n w_n loss_n`, with `weights` `[n]` and inputs whose axis 0 is the batch):
/// `sum_n w_n g_n * g_n`, elementwise, where `g_n` is the gradient of `loss_n`.
///
/// # Errors
/// [`Error::Unsupported`] where a gradient does not end in a sum over the batch of products of two factors.
pub fn square_sums(
    graph: &mut Graph,
    gradients: &[NodeId],
    weights: NodeId,
) -> Result<Vec<NodeId>> {
    graph.check_ids(gradients)?;
    graph.check_ids(&[weights])?;
    let axes = batch_axes(graph, &[]);
    let one_example = graph.shape(weights).as_slice() == [1];
    // A term holds w_n g_n, and w_n g_n g_n is wanted: one factor is divided by w_n, before anything is squared, so that small weights do
    // not underflow. Rows of weight 0 are padding.
    let shape = graph.shape(weights).clone();
    let tiny = graph.constant(f32::MIN_POSITIVE, &shape);
    let zero = graph.constant(0.0, &shape);
    let at_least = graph.binary(Binary::Max, weights, tiny)?;
    let inverse = graph.unary(Unary::Reciprocal, at_least)?;
    let scale = graph.select(weights, inverse, zero)?;
    gradients
        .iter()
        .map(|&gradient| {
            if one_example {
                // Sums over one example are simplified away, and its gradient is the whole one.
                let shape = graph.shape(gradient).clone();
                let scale = graph.reshape(scale, &vec![1; shape.len()])?;
                let scale = graph.broadcast(scale, &shape)?;
                let own = graph.binary(Binary::Mul, gradient, scale)?;
                return graph.binary(Binary::Mul, own, gradient);
            }
            square_sum(graph, gradient, scale, &axes)
        })
        .collect()
}

fn square_sum(
    graph: &mut Graph,
    gradient: NodeId,
    scale: NodeId,
    axes: &[BatchAxis],
) -> Result<NodeId> {
    let shape = graph.shape(gradient).clone();
    let Some(terms) = terms(graph, gradient, axes)? else {
        return unsupported(graph, gradient);
    };
    let mut total: Option<NodeId> = None;
    for (i, &a) in terms.iter().enumerate() {
        for (j, &b) in terms.iter().enumerate().skip(i) {
            let mut product = match (a, b) {
                (Term::Outer(la, ra), Term::Outer(lb, rb))
                    if graph.shape(la) == graph.shape(lb) && graph.shape(ra) == graph.shape(rb) =>
                {
                    let left = graph.binary(Binary::Mul, la, lb)?;
                    let right = scaled(graph, ra, scale, 1)?;
                    let right = graph.binary(Binary::Mul, right, rb)?;
                    graph.dot(left, right, true, false)?
                }
                (Term::Rows(ra), Term::Rows(rb)) => {
                    let (ra, rb) = (flattened(graph, ra)?, flattened(graph, rb)?);
                    let rows = scaled(graph, ra, scale, 0)?;
                    let rows = graph.binary(Binary::Mul, rows, rb)?;
                    graph.sum(rows, &[0])?
                }
                _ => return unsupported(graph, gradient),
            };
            product = graph.reshape(product, &shape)?;
            if j > i {
                let two = graph.constant(2.0, &shape);
                product = graph.binary(Binary::Mul, two, product)?;
            }
            total = Some(match total {
                None => product,
                Some(sum) => graph.binary(Binary::Add, sum, product)?,
            });
        }
    }
    Ok(match total {
        Some(total) => total,
        None => graph.constant(0.0, &shape),
    })
}

/// Multiplies by `scale` `[n]` along `axis`.
fn scaled(graph: &mut Graph, x: NodeId, scale: NodeId, axis: usize) -> Result<NodeId> {
    let shape = graph.shape(x).clone();
    let mut lifted = vec![1; shape.len()];
    lifted[axis] = shape[axis];
    let scale = graph.reshape(scale, &lifted)?;
    let scale = graph.broadcast(scale, &shape)?;
    graph.binary(Binary::Mul, x, scale)
}

fn unsupported<T>(graph: &Graph, gradient: NodeId) -> Result<T> {
    Err(Error::Unsupported {
        what: "the diagonal of the empirical Fisher matrix".into(),
        message: format!(
            "the gradient {} does not end in a sum over the batch of products of two factors; use no preconditioner",
            graph.describe(gradient)
        ),
    })
}
