//! The f64 twin: evaluates the same graph on the CPU, plainly, one node after another. The reference for every test of a kernel.

use super::node::{Graph, NodeId, elements};
use super::op::{Binary, Op};
use crate::error::{Error, Result};
use crate::kernels::function::select_f64;

/// Values for the leaves of a graph.
#[derive(Clone, Debug, Default)]
pub struct Leaves {
    /// One entry per parameter.
    pub parameters: Vec<Vec<f64>>,
    /// One entry per input; indices are stored as whole numbers.
    pub inputs: Vec<Vec<f64>>,
    /// Values of directions, by the direction's node; missing ones must not be needed.
    pub directions: Vec<(NodeId, Vec<f64>)>,
}

/// Values of the `wanted` nodes.
///
/// # Errors
/// [`Error::Length`] when a leaf has the wrong number of values, or a needed direction has none.
pub fn evaluate(graph: &Graph, leaves: &Leaves, wanted: &[NodeId]) -> Result<Vec<Vec<f64>>> {
    graph.check_ids(wanted)?;
    let needed = graph.ancestors(wanted);
    let mut values: Vec<Vec<f64>> = vec![Vec::new(); graph.nodes().len()];
    for index in 0..graph.nodes().len() {
        if !needed[index] {
            continue;
        }
        let id = NodeId(index);
        let node = graph.node(id);
        let operands: Vec<&[f64]> = node
            .operands
            .iter()
            .map(|o| values[o.0].as_slice())
            .collect();
        let shapes: Vec<&[usize]> = node
            .operands
            .iter()
            .map(|&o| graph.shape(o).as_slice())
            .collect();
        let leaf = |found: Option<&Vec<f64>>| -> Result<Vec<f64>> {
            let found = found.map(Vec::as_slice).unwrap_or_default();
            if found.len() != elements(&node.shape) {
                return Err(Error::Length {
                    what: graph.describe(id),
                    found: found.len(),
                    expected: elements(&node.shape),
                });
            }
            Ok(found.to_vec())
        };
        let value = match &node.op {
            Op::Parameter(i) => leaf(leaves.parameters.get(*i))?,
            Op::Input(i) => leaf(leaves.inputs.get(*i))?,
            Op::Direction(_) => leaf(
                leaves
                    .directions
                    .iter()
                    .find(|(n, _)| *n == id)
                    .map(|(_, v)| v),
            )?,
            op => compute(graph, op, &operands, &shapes, &node.shape),
        };
        values[index] = value;
    }
    Ok(wanted.iter().map(|w| values[w.0].clone()).collect())
}

pub(super) fn strides(shape: &[usize]) -> Vec<usize> {
    let mut strides = vec![1; shape.len()];
    for d in (1..shape.len()).rev() {
        strides[d - 1] = strides[d] * shape[d];
    }
    strides
}

/// Calls `f(linear index, index along each axis)` for every element.
fn for_each_index(shape: &[usize], mut f: impl FnMut(usize, &[usize])) {
    let mut index = vec![0; shape.len()];
    for linear in 0..elements(shape) {
        f(linear, &index);
        for d in (0..shape.len()).rev() {
            index[d] += 1;
            if index[d] < shape[d] {
                break;
            }
            index[d] = 0;
        }
    }
}

pub(super) fn compute(
    graph: &Graph,
    op: &Op,
    x: &[&[f64]],
    shapes: &[&[usize]],
    shape: &[usize],
) -> Vec<f64> {
    let count = elements(shape);
    let mut out = vec![0.0; count];
    match op {
        Op::Parameter(_) | Op::Input(_) | Op::Direction(_) => {}
        Op::Constant(bits) => out.fill(f64::from(f32::from_bits(*bits))),
        Op::Data(i) => out = graph.data(*i).iter().map(|&v| f64::from(v)).collect(),
        Op::Unary(f) => out = x[0].iter().map(|&v| f.apply(v)).collect(),
        Op::Binary(f) => {
            out = x[0]
                .iter()
                .zip(x[1])
                .map(|(&a, &b)| f.apply(a, b))
                .collect()
        }
        Op::Select => {
            out = (0..count)
                .map(|i| select_f64(x[0][i], x[1][i], x[2][i]))
                .collect()
        }
        Op::StopGradient | Op::Reshape => out = x[0].to_vec(),
        Op::Broadcast => {
            let from = strides(shapes[0]);
            for_each_index(shape, |i, index| {
                let source = (0..index.len())
                    .map(|d| {
                        if shapes[0][d] == 1 {
                            0
                        } else {
                            index[d] * from[d]
                        }
                    })
                    .sum::<usize>();
                out[i] = x[0][source];
            });
        }
        Op::Permute(p) => {
            let from = strides(shapes[0]);
            for_each_index(shape, |i, index| {
                out[i] = x[0][p
                    .iter()
                    .zip(index)
                    .map(|(&source, &at)| at * from[source])
                    .sum::<usize>()];
            });
        }
        Op::Slice(starts) => {
            let from = strides(shapes[0]);
            for_each_index(shape, |i, index| {
                out[i] = x[0][(0..index.len())
                    .map(|d| (index[d] + starts[d]) * from[d])
                    .sum::<usize>()];
            });
        }
        Op::Pad(before) => {
            let to = strides(shape);
            for_each_index(shapes[0], |i, index| {
                out[(0..index.len())
                    .map(|d| (index[d] + before[d]) * to[d])
                    .sum::<usize>()] = x[0][i];
            });
        }
        Op::Sum(_) | Op::Max(_) => {
            let is_sum = matches!(op, Op::Sum(_));
            if !is_sum {
                out.fill(f64::NEG_INFINITY);
            }
            let to = strides(shape);
            for_each_index(shapes[0], |i, index| {
                let at = (0..index.len())
                    .map(|d| if shape[d] == 1 { 0 } else { index[d] * to[d] })
                    .sum::<usize>();
                out[at] = if is_sum {
                    out[at] + x[0][i]
                } else {
                    Binary::Max.apply(out[at], x[0][i])
                };
            });
        }
        Op::Dot {
            transpose_lhs,
            transpose_rhs,
        } => {
            let (m, n) = (shape[1], shape[2]);
            let k = if *transpose_lhs {
                shapes[0][1]
            } else {
                shapes[0][2]
            };
            for b in 0..shape[0] {
                for i in 0..m {
                    for l in 0..k {
                        let left =
                            x[0][b * m * k + if *transpose_lhs { l * m + i } else { i * k + l }];
                        for j in 0..n {
                            let right = x[1]
                                [b * k * n + if *transpose_rhs { j * k + l } else { l * n + j }];
                            out[(b * m + i) * n + j] += left * right;
                        }
                    }
                }
            }
        }
        Op::Gather => {
            for (i, &row) in x[1].iter().enumerate() {
                let (width, row) = (shape[1], row as usize);
                // Out-of-range indices give zeros, as on the device.
                if row < shapes[0][0] {
                    out[i * width..(i + 1) * width]
                        .copy_from_slice(&x[0][row * width..(row + 1) * width]);
                }
            }
        }
        Op::ScatterAdd => {
            for (i, &row) in x[1].iter().enumerate() {
                let (width, row) = (shape[1], row as usize);
                for c in 0..width {
                    if row < shape[0] {
                        out[row * width + c] += x[0][i * width + c];
                    }
                }
            }
        }
        Op::OneHot => {
            let classes = shape[shape.len() - 1];
            for (i, &label) in x[0].iter().enumerate() {
                if (label as usize) < classes {
                    out[i * classes + label as usize] = 1.0;
                }
            }
        }
    }
    out
}
