//! Differences: what nodes gain when others go from one value to another, without subtracting the results.
//!
//! `difference` appends `f(x + d) - f(x)` of given nodes for given moves of others, by a rule for each primitive: `a' b' - a b = da b' + a
//! db`, `exp(x + d) - exp(x) = exp(x) expm1(d)`, and so on. As in [`jvp`](super::jvp) the moves go through the graph in one pass; but these
//! rules are exact for moves of any size, and each result is right to some ulps of *itself*, however small it is beside the values. A loss
//! of 0.5 that changes by 1e-9 has no digit of that change in f32; its difference has six.
//!
//! Moves that are larger than 1 are where an exponential is steep enough to overflow; there functions of the new and the old value are
//! subtracted, which loses no more digits than the values have. So are the rare functions without a formula.

use std::collections::HashMap;

use super::node::{Graph, NodeId};
use super::op::{Binary, Op, Unary};
use crate::error::Result;

/// A node that goes from its value to another one.
#[derive(Clone, Copy, Debug)]
pub struct Move {
    /// The node.
    pub node: NodeId,
    /// Its new value.
    pub to: NodeId,
}

/// What `outputs` gain when some nodes move. `None` is nothing.
///
/// # Errors
/// Nodes of another graph, moves to another shape.
pub fn difference(
    graph: &mut Graph,
    outputs: &[NodeId],
    moves: &[Move],
) -> Result<Vec<Option<NodeId>>> {
    graph.check_ids(outputs)?;
    let sources: Vec<NodeId> = moves.iter().map(|m| m.node).collect();
    let needed = graph.ancestors(outputs);
    let moving = graph.depends_on(&sources);
    let mut gains = Gains::default();
    for m in moves {
        let gain = graph.binary(Binary::Sub, m.to, m.node)?;
        gains.of.insert(m.node, gain);
        gains.new.insert(m.node, m.to);
    }
    for index in 0..needed.len() {
        let id = NodeId(index);
        if needed[index]
            && moving[index]
            && !gains.of.contains_key(&id)
            && let Some(gain) = gains.rule(graph, id)?
        {
            gains.of.insert(id, gain);
            let new = gains.renew(graph, id, gain)?;
            gains.new.insert(id, new);
        }
    }
    Ok(outputs.iter().map(|o| gains.of.get(o).copied()).collect())
}

#[derive(Default)]
struct Gains {
    of: HashMap<NodeId, NodeId>,
    /// New values.
    new: HashMap<NodeId, NodeId>,
}

impl Gains {
    /// The new value of a node, its value where it does not move.
    fn new_of(&self, id: NodeId) -> NodeId {
        self.new.get(&id).copied().unwrap_or(id)
    }

    /// Makes the new value of a node: from those of its operands where that is no work, so that what compares values (which is the largest,
    /// say) finds equal ones equal; else from its gain.
    fn renew(&self, graph: &mut Graph, id: NodeId, gain: NodeId) -> Result<NodeId> {
        let node = graph.node(id).clone();
        let shape = &node.shape;
        let of: Vec<NodeId> = node.operands.iter().map(|&o| self.new_of(o)).collect();
        match node.op {
            Op::Unary(f) => graph.unary(f, of[0]),
            Op::Binary(f) => graph.binary(f, of[0], of[1]),
            Op::Select => graph.select(of[0], of[1], of[2]),
            Op::StopGradient => Ok(of[0]),
            Op::Broadcast => graph.broadcast(of[0], shape),
            Op::Reshape => graph.reshape(of[0], shape),
            Op::Permute(p) => graph.permute(of[0], &p),
            Op::Slice(starts) => graph.slice(of[0], &starts, shape),
            Op::Pad(before) => graph.pad(of[0], &before, shape),
            Op::Max(axes) => graph.max(of[0], &axes),
            _ => graph.binary(Binary::Add, id, gain),
        }
    }

    /// The gain of an operand, zeros where it has none.
    fn or_zero(&self, graph: &mut Graph, id: NodeId) -> NodeId {
        let shape = graph.shape(id).clone();
        let gain = self.of.get(&id).copied();
        gain.unwrap_or_else(|| graph.constant(0.0, &shape))
    }

    fn rule(&self, graph: &mut Graph, id: NodeId) -> Result<Option<NodeId>> {
        let node = graph.node(id).clone();
        let shape = &node.shape;
        let gains: Vec<Option<NodeId>> = node
            .operands
            .iter()
            .map(|o| self.of.get(o).copied())
            .collect();
        if gains.iter().all(Option::is_none) {
            return Ok(None);
        }
        let gain = gains.first().copied().flatten();
        let linear =
            |graph: &mut Graph,
             apply: &dyn Fn(&mut Graph, NodeId) -> Result<NodeId>|
             -> Result<Option<NodeId>> { gain.map(|g| apply(graph, g)).transpose() };
        match &node.op {
            Op::Parameter(_)
            | Op::Input(_)
            | Op::Direction(_)
            | Op::Constant(_)
            | Op::Data(_)
            | Op::OneHot => Ok(None),
            Op::StopGradient => Ok(gain),
            Op::Broadcast => linear(graph, &|graph, g| graph.broadcast(g, shape)),
            Op::Reshape => linear(graph, &|graph, g| graph.reshape(g, shape)),
            Op::Permute(p) => linear(graph, &|graph, g| graph.permute(g, p)),
            Op::Slice(starts) => linear(graph, &|graph, g| graph.slice(g, starts, shape)),
            Op::Pad(before) => linear(graph, &|graph, g| graph.pad(g, before, shape)),
            Op::Sum(axes) => linear(graph, &|graph, g| graph.sum(g, axes)),
            Op::Gather => linear(graph, &|graph, g| graph.gather(g, node.operands[1])),
            Op::ScatterAdd => linear(graph, &|graph, g| {
                graph.scatter_add(g, node.operands[1], shape[0])
            }),
            Op::Max(axes) => {
                // max(x') - m = max((x - m) + d): at the largest element that is d itself.
                let x = node.operands[0];
                let full = graph.shape(x).clone();
                let top = graph.broadcast(id, &full)?;
                let moved = self.beyond(graph, x, top)?;
                Ok(Some(graph.max(moved, axes)?))
            }
            Op::Unary(f) => match gain {
                None => Ok(None),
                Some(gain) => self.unary(graph, *f, id, gain).map(Some),
            },
            Op::Binary(f) => self.binary(graph, *f, id, &gains),
            Op::Select => {
                // With the new condition: (a - y) + da, which is da where a was chosen before.
                let (condition, a, b) = (node.operands[0], node.operands[1], node.operands[2]);
                let condition = self.new_of(condition);
                if gains[0].is_none() {
                    let (a, b) = (self.or_zero(graph, a), self.or_zero(graph, b));
                    return Ok(Some(graph.select(condition, a, b)?));
                }
                let (a, b) = (self.beyond(graph, a, id)?, self.beyond(graph, b, id)?);
                Ok(Some(graph.select(condition, a, b)?))
            }
            Op::Dot {
                transpose_lhs,
                transpose_rhs,
            } => {
                let (lhs, rhs) = (node.operands[0], node.operands[1]);
                let dot = |graph: &mut Graph, a: NodeId, b: NodeId| {
                    graph.dot(a, b, *transpose_lhs, *transpose_rhs)
                };
                let mut sum = None;
                if let Some(gain) = gains[0] {
                    let new = self.new_of(rhs);
                    sum = Some(dot(graph, gain, new)?);
                }
                if let Some(gain) = gains[1] {
                    let right = dot(graph, lhs, gain)?;
                    sum = Some(match sum {
                        None => right,
                        Some(left) => graph.binary(Binary::Add, left, right)?,
                    });
                }
                Ok(sum)
            }
        }
    }

    /// `(x - from) + d`: the new value of `x`, seen from another value.
    fn beyond(&self, graph: &mut Graph, x: NodeId, from: NodeId) -> Result<NodeId> {
        let apart = graph.binary(Binary::Sub, x, from)?;
        match self.of.get(&x) {
            None => Ok(apart),
            Some(&gain) => graph.binary(Binary::Add, apart, gain),
        }
    }

    fn unary(&self, graph: &mut Graph, f: Unary, y: NodeId, d: NodeId) -> Result<NodeId> {
        let x = graph.node(y).operands[0];
        let shape = graph.shape(x).clone();
        let new = self.new_of(x);
        let g = &mut Elementwise { graph, shape };
        // Where the move is small, this; else the difference of the values.
        let near = match f {
            Unary::Neg => return g.neg(d),
            Unary::Step | Unary::IsFinite => {
                let now = g.graph.unary(f, new)?;
                return g.sub(now, y);
            }
            Unary::Relu => {
                // Where x > 0 it is max(d, -x), else max(x + d, 0).
                let back = g.neg(x)?;
                let above = g.binary(Binary::Max, d, back)?;
                let below = g.unary(Unary::Relu, new)?;
                return g.graph.select(x, above, below);
            }
            Unary::Reciprocal => {
                let ratio = g.div(d, x)?;
                let ratio = g.div(ratio, new)?;
                return g.neg(ratio);
            }
            Unary::Sqrt => {
                let now = g.unary(Unary::Sqrt, new)?;
                let sum = g.add(y, now)?;
                let ratio = g.div(d, sum)?;
                let zero = g.constant(0.0);
                return g.graph.select(sum, ratio, zero);
            }
            Unary::Sin | Unary::Cos => {
                let half = g.scale(0.5, d)?;
                let middle = g.add(x, half)?;
                let sine = g.unary(Unary::Sin, half)?;
                let twice = g.scale(if f == Unary::Sin { 2.0 } else { -2.0 }, sine)?;
                let other = if f == Unary::Sin {
                    Unary::Cos
                } else {
                    Unary::Sin
                };
                let slope = g.unary(other, middle)?;
                return g.mul(slope, twice);
            }
            Unary::Tanh => {
                // tanh(a) - tanh(b) = tanh(a - b) (1 - tanh(a) tanh(b))
                let now = g.unary(Unary::Tanh, new)?;
                let product = g.mul(y, now)?;
                let one = g.constant(1.0);
                let rest = g.sub(one, product)?;
                let moved = g.unary(Unary::Tanh, d)?;
                return g.mul(moved, rest);
            }
            Unary::Exp => {
                let factor = g.unary(Unary::Expm1, d)?;
                g.mul(y, factor)?
            }
            Unary::Expm1 => {
                let (e, factor) = (g.unary(Unary::Exp, x)?, g.unary(Unary::Expm1, d)?);
                g.mul(e, factor)?
            }
            Unary::Expm1mx => {
                // e^x (e^d - 1) - d = (e^x - 1) (e^d - 1) + (e^d - 1 - d)
                let (a, b) = (g.unary(Unary::Expm1, x)?, g.unary(Unary::Expm1, d)?);
                let (product, rest) = (g.mul(a, b)?, g.unary(Unary::Expm1mx, d)?);
                g.add(product, rest)?
            }
            Unary::Log => {
                let ratio = g.div(d, x)?;
                return g.unary(Unary::Log1p, ratio);
            }
            Unary::Log1p => {
                let one = g.constant(1.0);
                let from = g.add(one, x)?;
                let ratio = g.div(d, from)?;
                return g.unary(Unary::Log1p, ratio);
            }
            Unary::Logistic => {
                // s(x + d) s(-x) (1 - e^-d)
                let now = g.unary(Unary::Logistic, new)?;
                let back = g.neg(x)?;
                let rest = g.unary(Unary::Logistic, back)?;
                let back = g.neg(d)?;
                let factor = g.unary(Unary::Expm1, back)?;
                let both = g.mul(now, rest)?;
                let product = g.mul(both, factor)?;
                g.neg(product)?
            }
            Unary::Softplus => {
                // log(1 + s(x) (e^d - 1))
                let slope = g.unary(Unary::Logistic, x)?;
                let factor = g.unary(Unary::Expm1, d)?;
                let product = g.mul(slope, factor)?;
                g.unary(Unary::Log1p, product)?
            }
            Unary::Erf => {
                // From the middle m: f'(m) (d + (4 m^2 - 2) d^3 / 24).
                let half = g.scale(0.5, d)?;
                let middle = g.add(x, half)?;
                let square = g.mul(middle, middle)?;
                let back = g.neg(square)?;
                let bell = g.unary(Unary::Exp, back)?;
                let slope = g.scale(std::f32::consts::FRAC_2_SQRT_PI, bell)?;
                let (four, two) = (g.scale(4.0, square)?, g.constant(2.0));
                let bend = g.sub(four, two)?;
                let d2 = g.mul(d, d)?;
                let bend = g.mul(bend, d2)?;
                let bend = g.scale(1.0 / 24.0, bend)?;
                let one = g.constant(1.0);
                let factor = g.add(one, bend)?;
                let moved = g.mul(slope, d)?;
                g.mul(moved, factor)?
            }
        };
        let now = g.unary(f, new)?;
        let far = g.sub(now, y)?;
        // Up to moves of 1, and of 0.1 for the series.
        let least = g.constant(if f == Unary::Erf { 0.01 } else { 1.0 });
        let square = g.mul(d, d)?;
        let beyond = g.sub(square, least)?;
        g.graph.select(beyond, far, near)
    }

    fn binary(
        &self,
        graph: &mut Graph,
        f: Binary,
        y: NodeId,
        gains: &[Option<NodeId>],
    ) -> Result<Option<NodeId>> {
        let (a, b) = (graph.node(y).operands[0], graph.node(y).operands[1]);
        let (da, db) = (gains[0], gains[1]);
        let sum = |graph: &mut Graph, p: Option<NodeId>, q: Option<NodeId>| match (p, q) {
            (Some(p), Some(q)) => graph.binary(Binary::Add, p, q).map(Some),
            (p, q) => Ok(p.or(q)),
        };
        match f {
            Binary::Add => sum(graph, da, db),
            Binary::Sub => {
                let back = db.map(|db| graph.unary(Unary::Neg, db)).transpose()?;
                sum(graph, da, back)
            }
            Binary::Mul => {
                let new = self.new_of(b);
                let left = da
                    .map(|da| graph.binary(Binary::Mul, da, new))
                    .transpose()?;
                let right = db.map(|db| graph.binary(Binary::Mul, a, db)).transpose()?;
                sum(graph, left, right)
            }
            Binary::Div => {
                // a'/b' - a/b = (da - a/b db) / b'
                let new = self.new_of(b);
                let drawn = match db {
                    None => None,
                    Some(db) => {
                        let drawn = graph.binary(Binary::Mul, y, db)?;
                        Some(graph.unary(Unary::Neg, drawn)?)
                    }
                };
                let top = sum(graph, da, drawn)?;
                top.map(|top| graph.binary(Binary::Div, top, new))
                    .transpose()
            }
            Binary::Max => {
                let (a, b) = (self.beyond(graph, a, y)?, self.beyond(graph, b, y)?);
                Ok(Some(graph.binary(Binary::Max, a, b)?))
            }
        }
    }
}

/// Notation for elementwise formulas.
struct Elementwise<'g> {
    graph: &'g mut Graph,
    shape: Vec<usize>,
}

impl Elementwise<'_> {
    fn unary(&mut self, f: Unary, x: NodeId) -> Result<NodeId> {
        self.graph.unary(f, x)
    }

    fn binary(&mut self, f: Binary, a: NodeId, b: NodeId) -> Result<NodeId> {
        self.graph.binary(f, a, b)
    }

    fn constant(&mut self, value: f32) -> NodeId {
        self.graph.constant(value, &self.shape)
    }

    fn neg(&mut self, x: NodeId) -> Result<NodeId> {
        self.unary(Unary::Neg, x)
    }

    fn add(&mut self, a: NodeId, b: NodeId) -> Result<NodeId> {
        self.binary(Binary::Add, a, b)
    }

    fn sub(&mut self, a: NodeId, b: NodeId) -> Result<NodeId> {
        self.binary(Binary::Sub, a, b)
    }

    fn mul(&mut self, a: NodeId, b: NodeId) -> Result<NodeId> {
        self.binary(Binary::Mul, a, b)
    }

    fn div(&mut self, a: NodeId, b: NodeId) -> Result<NodeId> {
        self.binary(Binary::Div, a, b)
    }

    fn scale(&mut self, factor: f32, x: NodeId) -> Result<NodeId> {
        let factor = self.constant(factor);
        self.mul(factor, x)
    }
}
