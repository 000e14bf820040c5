//! Products with functions of Kronecker factors, and the curvature along a step.

use super::derivatives::{cut, gradient};
use super::jvp::linearize;
use super::kronecker::{Form, Layer, Side};
use super::node::{Graph, NodeId, elements};
use super::op::Binary;
use crate::error::{Error, Result};

/// Vectors like the parameters, such as a gradient, times functions of their factors, such as inverses: `f(A) V f(B)`, with for each layer,
/// and for each of its [`sides`](Layer::sides), the tensors of the function, leaves of their [shapes](Side::function_shapes).
///
/// # Errors
/// [`Error::Length`] where lists do not fit the layers.
pub fn preconditioned(
    graph: &mut Graph,
    layers: &[Layer],
    vectors: &[NodeId],
    functions: &[Vec<Vec<NodeId>>],
) -> Result<Vec<NodeId>> {
    let fits = |(layer, own): (&Layer, &Vec<Vec<NodeId>>)| {
        let tensors =
            |(side, own): (&Side, &Vec<NodeId>)| side.function_shapes().len() == own.len();
        layer.sides().count() == own.len() && layer.sides().zip(own).all(tensors)
    };
    if layers.len() != functions.len() || !layers.iter().zip(functions).all(fits) {
        return Err(Error::Length {
            what: "the list of functions of Kronecker factors".into(),
            found: functions.len(),
            expected: layers.len(),
        });
    }
    let mut results = vectors.to_vec();
    for (layer, functions) in layers.iter().zip(functions) {
        let weight = graph.shape(vectors[layer.weight]).clone();
        let own = [1, layer.rows(), elements(&weight) / layer.rows()];
        let mut x = graph.reshape(vectors[layer.weight], &own)?;
        if let Some(bias) = layer.bias {
            let mut beside = own;
            beside[1 + bias.axis] = 1;
            let bias_part = graph.reshape(vectors[bias.parameter], &beside)?;
            x = graph.concat(&[x, bias_part], 1 + bias.axis)?;
        }
        x = match (layer.corrected, &functions[..]) {
            (Some(_), [left, right, values]) => in_basis(graph, x, [left[0], right[0]], values[0])?,
            _ => {
                let first = 3 - functions.len();
                for ((side, function), axis) in layer.sides().zip(functions).zip(first..) {
                    x = times(graph, x, side, function, axis)?;
                }
                x
            }
        };
        if let Some(bias) = layer.bias {
            let (mut starts, mut beside) = ([0; 3], own);
            starts[1 + bias.axis] = own[1 + bias.axis];
            beside[1 + bias.axis] = 1;
            let last = graph.slice(x, &starts, &beside)?;
            let shape = graph.shape(vectors[bias.parameter]).clone();
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

/// Leaves for the tensors of a function of each factor: directions of their [shapes](Side::function_shapes).
pub fn function_leaves(graph: &mut Graph, layers: &[Layer]) -> Vec<Vec<Vec<NodeId>>> {
    let mut of_side = |side: &Side| {
        let shapes = side.function_shapes().into_iter();
        shapes.map(|shape| graph.direction(&shape)).collect()
    };
    let of_layer = |layer: &Layer| layer.sides().map(&mut of_side).collect();
    layers.iter().map(of_layer).collect()
}

/// `Q_A ((Q_A^T x Q_B) * values) Q_B^T` of `x` `[1, l, r]`, elementwise in the basis.
fn in_basis(graph: &mut Graph, x: NodeId, basis: [NodeId; 2], values: NodeId) -> Result<NodeId> {
    let shape = graph.shape(x).clone();
    let [left, right] = basis;
    let left = graph.reshape(left, &[1, shape[1], shape[1]])?;
    let right = graph.reshape(right, &[1, shape[2], shape[2]])?;
    let values = graph.reshape(values, &shape)?;
    let x = graph.dot(left, x, true, false)?;
    let x = graph.dot(x, right, false, false)?;
    let x = graph.binary(Binary::Mul, values, x)?;
    let x = graph.dot(left, x, false, false)?;
    graph.dot(x, right, false, true)
}

/// `x` `[1, l, r]` times a function of a factor, which is symmetric, along an axis.
fn times(
    graph: &mut Graph,
    x: NodeId,
    side: &Side,
    function: &[NodeId],
    axis: usize,
) -> Result<NodeId> {
    let (size, shape) = (side.size, graph.shape(x).clone());
    match (side.form, function) {
        (Form::Full, &[matrix]) => {
            let matrix = graph.reshape(matrix, &[1, size, size])?;
            if axis == 1 {
                graph.dot(matrix, x, false, false)
            } else {
                graph.dot(x, matrix, false, false)
            }
        }
        (Form::Sketch { rank, .. }, &[root, numbers]) => {
            let root = graph.reshape(root, &[1, size, rank])?;
            let captured = if axis == 1 {
                let inner = graph.dot(root, x, true, false)?;
                graph.dot(root, inner, false, false)?
            } else {
                let inner = graph.dot(x, root, false, false)?;
                graph.dot(inner, root, false, true)?
            };
            let mut number = |at: usize| -> Result<NodeId> {
                let number = graph.slice(numbers, &[at], &[1])?;
                let number = graph.reshape(number, &[1, 1, 1])?;
                graph.broadcast(number, &shape)
            };
            let (scale, weight) = (number(0)?, number(1)?);
            let whole = graph.binary(Binary::Mul, scale, x)?;
            let captured = graph.binary(Binary::Mul, weight, captured)?;
            graph.binary(Binary::Add, whole, captured)
        }
        (form, diagonal) => {
            let mut lifted = [1; 3];
            if form == Form::Diagonal {
                lifted[axis] = size;
            }
            let diagonal = graph.reshape(diagonal[0], &lifted)?;
            let diagonal = graph.broadcast(diagonal, &shape)?;
            graph.binary(Binary::Mul, diagonal, x)
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
