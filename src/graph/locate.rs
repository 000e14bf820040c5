//! Where a number stopped being finite: the graph evaluated on the CPU, every node rounded to f32 as a device rounds it, and followed back
//! from a result that is not finite to an element whose operands all are.
//!
//! Only the elements that a result reads count: an infinity in a branch that `select` does not choose, or whose reciprocal is taken, is no
//! fault.

use std::fmt;

use super::node::{Graph, NodeId, elements};
use super::op::{Binary, Op, Unary};
use super::twin::{Leaves, compute, strides};
use crate::error::{Error, Result};

/// The element at which a number stopped being finite.
#[derive(Clone, Debug, PartialEq)]
pub struct Origin {
    /// The quantity that was followed back, such as `the gradient`.
    pub quantity: String,
    /// The node, as [`Graph::describe`] gives it.
    pub node: String,
    /// The element along each axis.
    pub element: Vec<usize>,
    /// Its value.
    pub value: f64,
    /// What was computed of which numbers.
    pub cause: String,
    /// What to do about that.
    pub advice: &'static str,
}

impl fmt::Display for Origin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "{}: {} is {} at {:?}: {}",
            self.quantity, self.node, self.value, self.element, self.cause
        )
    }
}

/// What a search for the origin of numbers that are not finite found.
#[derive(Clone, Debug, PartialEq)]
pub enum Located {
    /// The first place.
    At(Origin),
    /// Everything is finite, as the CPU computes it in f32.
    Nowhere,
    /// This objective cannot tell, or looking at everything costs more than was allowed.
    Unknown,
}

/// Values of the nodes of a graph that may grow, each rounded to f32.
#[derive(Debug, Default)]
pub(crate) struct Rounded {
    values: Vec<Option<Vec<f64>>>,
}

impl Rounded {
    /// The value of a node that was computed.
    pub(crate) fn value(&self, id: NodeId) -> &[f64] {
        let value = self.values.get(id.0).and_then(Option::as_deref);
        value.unwrap_or_default()
    }

    /// Computes `targets` and what they need, as far as that is not known yet, and follows the first number in them that is not finite back
    /// to its origin.
    ///
    /// # Errors
    /// [`Error::Length`] where a leaf has the wrong number of values.
    pub(crate) fn origin(
        &mut self,
        graph: &Graph,
        leaves: &Leaves,
        targets: &[NodeId],
        quantity: &str,
    ) -> Result<Option<Origin>> {
        self.compute(graph, leaves, targets)?;
        for &target in targets {
            let finite = |x: &f64| x.is_finite();
            if let Some(element) = self.value(target).iter().position(|x| !finite(x)) {
                let (mut id, mut element) = (target, element);
                while let Some(before) = self.source(graph, id, element) {
                    (id, element) = before;
                }
                return Ok(Some(self.describe(graph, id, element, quantity)));
            }
        }
        Ok(None)
    }

    fn compute(&mut self, graph: &Graph, leaves: &Leaves, targets: &[NodeId]) -> Result<()> {
        let needed = graph.ancestors(targets);
        self.values.resize(graph.nodes().len(), None);
        for (index, node) in graph.nodes().iter().enumerate() {
            if !needed[index] || self.values[index].is_some() {
                continue;
            }
            let id = NodeId(index);
            let operands: Vec<&[f64]> = node.operands.iter().map(|&o| self.value(o)).collect();
            let shapes: Vec<&[usize]> = (node.operands.iter())
                .map(|&o| graph.shape(o).as_slice())
                .collect();
            let directions = &leaves.directions;
            let given = match &node.op {
                Op::Parameter(i) => Some(leaves.parameters.get(*i)),
                Op::Input(i) => Some(leaves.inputs.get(*i)),
                Op::Direction(_) => Some(directions.iter().find(|(n, _)| *n == id).map(|(_, v)| v)),
                _ => None,
            };
            let value = match given {
                Some(found) => {
                    let found = found.cloned().unwrap_or_default();
                    if found.len() != elements(&node.shape) {
                        return Err(Error::Length {
                            what: graph.describe(id),
                            found: found.len(),
                            expected: elements(&node.shape),
                        });
                    }
                    found
                }
                None => compute(graph, &node.op, &operands, &shapes, &node.shape),
            };
            let round = |x: &f64| f64::from(*x as f32);
            self.values[index] = Some(value.iter().map(round).collect());
        }
        Ok(())
    }

    /// The element of an operand that made this one not finite: one of those that it reads.
    fn source(&self, graph: &Graph, id: NodeId, element: usize) -> Option<(NodeId, usize)> {
        let node = graph.node(id);
        let value = self.value(id)[element];
        let read = reads(graph, id, element, |operand, at| {
            self.value(node.operands[operand])[at]
        });
        let with = |wanted: &dyn Fn(f64) -> bool| {
            let found = read
                .iter()
                .find(|&&(operand, at)| wanted(self.value(node.operands[operand])[at]));
            found.map(|&(operand, at)| (node.operands[operand], at))
        };
        // A NaN comes from a NaN where there is one; else infinities cancel. A maximum is one of its operands.
        if value.is_nan() {
            with(&f64::is_nan).or_else(|| with(&|x| !x.is_finite()))
        } else if matches!(node.op, Op::Max(_) | Op::Binary(Binary::Max)) {
            with(&|x| x == value)
        } else {
            with(&|x| !x.is_finite())
        }
    }

    fn describe(&self, graph: &Graph, id: NodeId, element: usize, quantity: &str) -> Origin {
        let node = graph.node(id);
        let operands: Vec<f64> = match node.op {
            Op::Unary(_) | Op::Binary(_) => (node.operands.iter())
                .map(|&operand| self.value(operand)[element])
                .collect(),
            _ => Vec::new(),
        };
        let (mut cause, advice) = explain(graph, id, &operands);
        if !operands.is_empty() {
            let from: Vec<String> = node.operands.iter().map(|&o| graph.describe(o)).collect();
            cause += &format!(" (from {})", from.join(" and "));
        }
        Origin {
            quantity: quantity.to_owned(),
            node: graph.describe(id),
            element: along_axes(element, &node.shape),
            value: self.value(id)[element],
            cause,
            advice,
        }
    }
}

/// Multiplications and additions that computing these nodes takes, roughly.
pub(crate) fn operations(graph: &Graph, targets: &[NodeId]) -> u64 {
    let needed = graph.ancestors(targets);
    let mut total = 0u64;
    for (node, _) in graph
        .nodes()
        .iter()
        .zip(needed)
        .filter(|(_, needed)| *needed)
    {
        let terms = match node.op {
            Op::Dot { transpose_lhs, .. } => {
                graph.shape(node.operands[0])[if transpose_lhs { 1 } else { 2 }]
            }
            _ => 1,
        };
        let read = node.operands.iter().map(|&o| elements(graph.shape(o)));
        let most = read.fold(elements(&node.shape).saturating_mul(terms), usize::max);
        total = total.saturating_add(most as u64);
    }
    total
}

/// The index along each axis.
fn along_axes(element: usize, shape: &[usize]) -> Vec<usize> {
    let steps = strides(shape);
    let at = |(step, size): (&usize, &usize)| element / step % size;
    steps.iter().zip(shape).map(at).collect()
}

/// The elements, as (position of the operand, place in it), that an element of a node is computed from.
fn reads(
    graph: &Graph,
    id: NodeId,
    element: usize,
    value: impl Fn(usize, usize) -> f64,
) -> Vec<(usize, usize)> {
    let node = graph.node(id);
    let index = along_axes(element, &node.shape);
    let shape_of = |operand: usize| graph.shape(node.operands[operand]).as_slice();
    let place = |operand: usize, index: &[usize]| -> usize {
        let steps = strides(shape_of(operand));
        index.iter().zip(steps).map(|(at, step)| at * step).sum()
    };
    match &node.op {
        Op::Parameter(_) | Op::Input(_) | Op::Direction(_) | Op::Constant(_) | Op::Data(_) => {
            Vec::new()
        }
        Op::Unary(_) | Op::StopGradient | Op::Reshape => vec![(0, element)],
        Op::Binary(_) => vec![(0, element), (1, element)],
        Op::Select => {
            let condition = value(0, element);
            if condition.is_nan() {
                vec![(0, element)]
            } else {
                vec![(if condition > 0.0 { 1 } else { 2 }, element)]
            }
        }
        Op::Broadcast => {
            let from = shape_of(0);
            let inside = index.iter().zip(from);
            let inside: Vec<usize> = inside.map(|(&i, &size)| i.min(size - 1)).collect();
            vec![(0, place(0, &inside))]
        }
        Op::Permute(order) => {
            let mut source = vec![0; index.len()];
            for (&axis, &at) in order.iter().zip(&index) {
                source[axis] = at;
            }
            vec![(0, place(0, &source))]
        }
        Op::Slice(starts) => {
            let moved = index.iter().zip(starts);
            let moved: Vec<usize> = moved.map(|(i, start)| i + start).collect();
            vec![(0, place(0, &moved))]
        }
        Op::Pad(before) => {
            let moved = index.iter().zip(before).zip(shape_of(0));
            let moved = moved
                .map(|((i, before), &size)| i.checked_sub(*before).filter(|&inside| inside < size));
            let inside: Option<Vec<usize>> = moved.collect();
            inside
                .map(|inside| (0, place(0, &inside)))
                .into_iter()
                .collect()
        }
        Op::Sum(axes) | Op::Max(axes) => {
            let from = shape_of(0);
            let sizes: Vec<usize> = axes.iter().map(|&axis| from[axis]).collect();
            (0..elements(&sizes))
                .map(|term| {
                    let mut source = index.clone();
                    for (&axis, at) in axes.iter().zip(along_axes(term, &sizes)) {
                        source[axis] = at;
                    }
                    (0, place(0, &source))
                })
                .collect()
        }
        Op::Dot {
            transpose_lhs,
            transpose_rhs,
        } => {
            let (batch, row, column) = (index[0], index[1], index[2]);
            let terms = shape_of(0)[if *transpose_lhs { 1 } else { 2 }];
            (0..terms)
                .flat_map(|k| {
                    let left = if *transpose_lhs {
                        [batch, k, row]
                    } else {
                        [batch, row, k]
                    };
                    let right = if *transpose_rhs {
                        [batch, column, k]
                    } else {
                        [batch, k, column]
                    };
                    [(0, place(0, &left)), (1, place(1, &right))]
                })
                .collect()
        }
        Op::Gather => {
            let row = value(1, index[0]) as usize;
            let exists = row < shape_of(0)[0];
            exists
                .then(|| (0, place(0, &[row, index[1]])))
                .into_iter()
                .collect()
        }
        Op::ScatterAdd => (0..shape_of(1)[0])
            .filter(|&i| value(1, i) as usize == index[0])
            .map(|i| (0, place(0, &[i, index[1]])))
            .collect(),
        Op::OneHot => Vec::new(),
    }
}

const OVERFLOW: &str = "Numbers beyond 3.4e38 do not fit f32: rescale features, targets or the loss, or begin with smaller parameters \
    and take smaller steps.";

/// A number as f32, with a power of ten where it is long.
fn short(x: f64) -> String {
    let x = x as f32;
    let plain = x.to_string();
    if plain.len() > 12 {
        format!("{x:e}")
    } else {
        plain
    }
}

/// What a node did with its operands that are finite, and what helps.
fn explain(graph: &Graph, id: NodeId, operands: &[f64]) -> (String, &'static str) {
    let node = graph.node(id);
    let text: Vec<String> = operands.iter().copied().map(short).collect();
    match (&node.op, text.as_slice()) {
        (Op::Parameter(_), _) => (
            "the parameter itself".into(),
            "No step can mend it: write finite parameters, from a checkpoint of before or from new initial values.",
        ),
        (Op::Unary(Unary::Log), [x]) => (
            format!("the logarithm of {x}"),
            "Keep what a logarithm is taken of above zero: add a small number, or write the loss with softplus or a log-sum-exp.",
        ),
        (Op::Unary(Unary::Sqrt), [x]) => (
            format!("sqrt of {x}"),
            "Keep what sqrt is taken of above zero, on the branch of a select that is not chosen too: take relu of it and add a small \
                number.",
        ),
        (Op::Unary(Unary::Exp), [x]) => (
            format!("exp of {x} overflows f32"),
            "Beyond 88.7 exp does not fit f32: subtract the largest operand first, as a log-sum-exp does, or bound the operand.",
        ),
        (Op::Unary(Unary::Reciprocal), [x]) => (format!("1 / {x}"), DIVISION),
        (Op::Unary(_), [x]) => (
            format!("{} of {x}", node.op.name()),
            "Keep its operand where the function is defined and fits f32.",
        ),
        (Op::Binary(Binary::Div), [a, b]) => (
            format!("{a} / {b}"),
            if operands[1].abs() < 1e-30 {
                DIVISION
            } else {
                OVERFLOW
            },
        ),
        (Op::Binary(f), [a, b]) => {
            let sign = match f {
                Binary::Add => "+",
                Binary::Sub => "-",
                _ => "*",
            };
            (format!("{a} {sign} {b} overflows f32"), OVERFLOW)
        }
        (Op::Sum(_), _) => ("the sum overflows f32".into(), OVERFLOW),
        (Op::ScatterAdd, _) => ("the sum of rows overflows f32".into(), OVERFLOW),
        (Op::Dot { .. }, _) => ("the sum of products overflows f32".into(), OVERFLOW),
        _ => (
            "the value itself, which was given".into(),
            "Give finite values.",
        ),
    }
}

const DIVISION: &str = "Keep what is divided by away from zero: add a small number, inside the root where it is a root (the slope of \
    sqrt at 0 is infinite).";

#[cfg(test)]
#[path = "locate_tests.rs"]
mod tests;
