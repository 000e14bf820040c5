//! Which nodes matter only where a `select` chooses their branch.
//!
//! A branch may be undefined where it is not chosen: `select(x, sqrt(x), 0)` at -1. Its value does no harm there, but its slope would: what
//! comes back from the branch is 0 times a slope that is infinite or not a number. So slopes of such nodes are *masked*, which is possible
//! as far as each element of a node reaches the result through one element of the branch: through elementwise functions and reshapes. A
//! broadcast, a reduction or a product in the branch ends it.

use super::node::{Graph, NodeId};
use super::op::{Op, Unary};
use crate::error::Result;

/// The condition of a `select`, and whether the branch is the one for `condition > 0`.
type Choice = (NodeId, bool);

/// Most choices that are kept of nested ones, the outer ones first, so that deep nesting costs no more than its nodes.
const DEEPEST: usize = 16;

/// For each node, the choices that all of its uses wait for.
pub(super) struct Guards {
    /// Of nested `select`s, the outer one first.
    choices: Vec<Vec<Choice>>,
}

impl Guards {
    /// Of the nodes that `outputs` need and that move.
    pub(super) fn new(graph: &Graph, outputs: &[NodeId], needed: &[bool], moves: &[bool]) -> Self {
        let chooses = |index: &usize| needed[*index] && graph.nodes()[*index].op == Op::Select;
        if !(0..needed.len()).any(|index| chooses(&index)) {
            return Self {
                choices: Vec::new(),
            };
        }
        // None where no derivative has come through so far.
        let mut found: Vec<Option<Vec<Choice>>> = vec![None; needed.len()];
        for output in outputs {
            found[output.0] = Some(Vec::new());
        }
        for index in (0..needed.len()).rev() {
            if !needed[index] || !moves[index] {
                continue;
            }
            let Some(here) = found[index].clone() else {
                continue;
            };
            let node = &graph.nodes()[index];
            match node.op {
                Op::StopGradient | Op::Unary(Unary::Step | Unary::IsFinite) => {}
                Op::Select => {
                    for (operand, side) in [(1, true), (2, false)] {
                        let mut inner = here.clone();
                        if inner.len() < DEEPEST {
                            inner.push((node.operands[0], side));
                        }
                        meet(&mut found[node.operands[operand].0], &inner);
                    }
                }
                Op::Unary(_) | Op::Binary(_) | Op::Reshape => {
                    for operand in &node.operands {
                        meet(&mut found[operand.0], &here);
                    }
                }
                _ => {
                    for operand in &node.operands {
                        meet(&mut found[operand.0], &[]);
                    }
                }
            }
        }
        let choices = found.into_iter().map(Option::unwrap_or_default).collect();
        Self { choices }
    }

    /// `value`, which belongs to the derivative of `node`, where the node matters, and `otherwise` elsewhere.
    pub(super) fn masked(
        &self,
        graph: &mut Graph,
        node: NodeId,
        value: NodeId,
        otherwise: f32,
    ) -> Result<NodeId> {
        let choices = self.choices.get(node.0).map_or(&[][..], Vec::as_slice);
        if choices.is_empty() || graph.constant_value(value).is_some() {
            return Ok(value);
        }
        let shape = graph.shape(value).clone();
        let otherwise = graph.constant(otherwise, &shape);
        let mut masked = value;
        for &(condition, side) in choices.iter().rev() {
            let condition = graph.reshape(condition, &shape)?;
            masked = if side {
                graph.select(condition, masked, otherwise)?
            } else {
                graph.select(condition, otherwise, masked)?
            };
        }
        Ok(masked)
    }
}

/// Keeps of the choices that were found those that come first in `others`, too.
fn meet(found: &mut Option<Vec<Choice>>, others: &[Choice]) {
    match found {
        None => *found = Some(others.to_vec()),
        Some(choices) => {
            let common = choices.iter().zip(others).take_while(|(a, b)| a == b);
            choices.truncate(common.count());
        }
    }
}
