//! Steps with inverses of Kronecker factors, and the curvature along them.

use super::derivatives::{cut, gradient};
use super::jvp::linearize;
use super::kronecker::{Form, Layer, Side};
use super::node::{Graph, NodeId, elements};
use super::op::Binary;
use crate::error::{Error, Result};

/// The gradients of all parameters times the inverses of their factors, `A^-1 G B^-1`: for each layer, and for each of its
/// [`sides`](Layer::sides), the tensors of its inverse, leaves of their shapes.
///
/// # Errors
/// [`Error::Length`] where lists do not fit the layers.
pub fn preconditioned(
    graph: &mut Graph,
    layers: &[Layer],
    gradients: &[NodeId],
    inverses: &[Vec<Vec<NodeId>>],
) -> Result<Vec<NodeId>> {
    let fits = |(layer, own): (&Layer, &Vec<Vec<NodeId>>)| {
        let tensors = |(side, own): (&Side, &Vec<NodeId>)| side.tensors.len() == own.len();
        layer.sides().count() == own.len() && layer.sides().zip(own).all(tensors)
    };
    if layers.len() != inverses.len() || !layers.iter().zip(inverses).all(fits) {
        return Err(Error::Length {
            what: "the list of inverses of Kronecker factors".into(),
            found: inverses.len(),
            expected: layers.len(),
        });
    }
    let mut results = gradients.to_vec();
    for (layer, inverses) in layers.iter().zip(inverses) {
        let weight = graph.shape(gradients[layer.weight]).clone();
        let own = [1, layer.rows(), elements(&weight) / layer.rows()];
        let mut x = graph.reshape(gradients[layer.weight], &own)?;
        if let Some(bias) = layer.bias {
            let mut beside = own;
            beside[1 + bias.axis] = 1;
            let bias_gradient = graph.reshape(gradients[bias.parameter], &beside)?;
            x = graph.concat(&[x, bias_gradient], 1 + bias.axis)?;
        }
        let first = 3 - inverses.len();
        for ((side, inverse), axis) in layer.sides().zip(inverses).zip(first..) {
            x = times(graph, x, side, inverse, axis)?;
        }
        if let Some(bias) = layer.bias {
            let (mut starts, mut beside) = ([0; 3], own);
            starts[1 + bias.axis] = own[1 + bias.axis];
            beside[1 + bias.axis] = 1;
            let last = graph.slice(x, &starts, &beside)?;
            let shape = graph.shape(gradients[bias.parameter]).clone();
            results[bias.parameter] = graph.reshape(last, &shape)?;
            x = graph.slice(x, &[0; 3], &own)?;
        }
        results[layer.weight] = graph.reshape(x, &weight)?;
    }
    Ok(results)
}

impl Layer {
    /// Rows of the weight, without a bias.
    fn rows(&self) -> usize {
        let bias = self.bias.is_some_and(|bias| bias.axis == 0);
        let left = self.left.as_ref();
        left.map_or(1, |side| side.size - usize::from(bias))
    }
}

/// `x` `[1, l, r]` times the inverse of a factor, which is symmetric, along an axis.
fn times(
    graph: &mut Graph,
    x: NodeId,
    side: &Side,
    inverse: &[NodeId],
    axis: usize,
) -> Result<NodeId> {
    let (size, shape) = (side.size, graph.shape(x).clone());
    match (side.form, inverse) {
        (Form::Full, &[inverse]) => {
            let inverse = graph.reshape(inverse, &[1, size, size])?;
            if axis == 1 {
                graph.dot(inverse, x, false, false)
            } else {
                graph.dot(x, inverse, false, false)
            }
        }
        (Form::Sketch { rank, .. }, &[root, scale]) => {
            let root = graph.reshape(root, &[1, size, rank])?;
            let captured = if axis == 1 {
                let inner = graph.dot(root, x, true, false)?;
                graph.dot(root, inner, false, false)?
            } else {
                let inner = graph.dot(x, root, false, false)?;
                graph.dot(inner, root, false, true)?
            };
            let scale = graph.reshape(scale, &[1, 1, 1])?;
            let scale = graph.broadcast(scale, &shape)?;
            let whole = graph.binary(Binary::Mul, scale, x)?;
            graph.binary(Binary::Sub, whole, captured)
        }
        (_, inverse) => {
            let mut lifted = [1; 3];
            lifted[axis] = size;
            let inverse = graph.reshape(inverse[0], &lifted)?;
            let inverse = graph.broadcast(inverse, &shape)?;
            graph.binary(Binary::Mul, inverse, x)
        }
    }
}

/// The curvature `d^T C d` of a weighted loss along directions of the parameters, with its Gauss-Newton matrix `C`, `[1]`: by one tangent of
/// the outputs, half of a product with `C`.
///
/// # Errors
/// [`Error::Length`] where lists do not fit.
pub fn curvature_along(
    graph: &mut Graph,
    loss: NodeId,
    outputs: NodeId,
    tangents: &[(NodeId, NodeId)],
) -> Result<NodeId> {
    graph.check_ids(&[loss, outputs])?;
    let outputs = cut(graph, outputs);
    let zero = graph.constant(0.0, &[1]);
    let Some(moved) = linearize(graph, &[outputs], tangents)?[0] else {
        return Ok(zero);
    };
    let slope = gradient(graph, loss, &[outputs])?;
    let Some(curved) = linearize(graph, &slope, &[(outputs, moved)])?[0] else {
        return Ok(zero);
    };
    let product = graph.binary(Binary::Mul, moved, curved)?;
    let axes: Vec<usize> = (0..graph.shape(product).len()).collect();
    let sum = graph.sum(product, &axes)?;
    graph.reshape(sum, &[1])
}
