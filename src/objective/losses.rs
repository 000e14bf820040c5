//! Losses at points, and their changes from the loss at a base.

use super::Cost;
use crate::error::Result;
use crate::gpu::{Gpu, Recording, Slice};
use crate::graph::executable::DeviceLeaves;
use crate::graph::{Binary, DType, Executable, Graph, NodeId, Unary};
use crate::vector::Vector;

/// Numbers in [`Losses::results`].
pub(crate) const RESULTS: usize = 3;
/// Error of what an example's loss gains, relative to that: the roundings on the way of a difference through a network, some tens of half ulps.
const ERROR_OF_GAIN: f32 = 64.0 * f32::EPSILON / 2.0;
/// Error of a loss that is computed as a whole, relative to that; its change is a difference of two.
const ERROR_OF_LOSS: f32 = 8.0 * f32::EPSILON / 2.0;

/// Losses at one vector, the *point*, and their changes from the loss at another one, the *base*, on the batch of a slot:
///
/// ```text
/// value   f(point)
/// change  f(point) - f(base), where the objective can without subtracting the two
/// error   a bound on the error of the change
/// ```
///
/// At equal points the change is 0, and the value has the bits of that at the base. The objective of a model computes changes by
/// [`difference`](crate::graph::difference): they are right to some ulps of the change, so that steps can be judged whose changes are a billionth of the loss.
#[derive(Debug)]
pub struct Losses {
    /// `[value, change, error]`.
    pub results: Slice,
    /// Copies base to point, and computes the loss from which changes are measured. The results are those of the base: its loss, and no change.
    pub at_base: Recording,
    /// Computes the results.
    pub at_point: Recording,
    /// What the loss at the base (`run`) and its change at a point (`product`) cost.
    pub cost: Cost,
}

/// What examples contribute to changes.
pub(crate) struct Gains {
    /// The loss at the base, one element, after `at_base`.
    pub(crate) value: Slice,
    pub(crate) at_base: Recording,
    /// What each example's loss gains, after `at_point`.
    pub(crate) gains: Slice,
    /// As many.
    pub(crate) weights: Slice,
    pub(crate) at_point: Recording,
    /// Of both.
    pub(crate) cost: Cost,
    /// `l2` in `l2/2 |theta|^2`.
    pub(crate) l2: f32,
}

impl Losses {
    /// Of a loss that is computed as a whole, one element after `run`, at `point`. Its changes have the errors of the loss.
    ///
    /// # Errors
    /// Limits of the device.
    pub fn of_value(
        gpu: &Gpu,
        base: &Vector,
        point: &Vector,
        value: &Slice,
        run: &Recording,
    ) -> Result<Self> {
        let before = gpu.buffer("loss at the base", 1)?;
        let mut graph = Graph::default();
        let now = graph.input("loss", &[1], DType::F32)?;
        let then = graph.input("loss at the base", &[1], DType::F32)?;
        let change = graph.binary(Binary::Sub, now, then)?;
        let size = absolute(&mut graph, now)?;
        let factor = graph.constant(ERROR_OF_LOSS, &[1]);
        let error = graph.binary(Binary::Mul, factor, size)?;
        let all = graph.concat(&[now, change, error], 0)?;
        let inputs = vec![value.clone(), before.clone()];
        let (results, finish) = finish(gpu, &graph, inputs, all)?;
        let mut at_base = Recording::new();
        at_base.copy(base.slice(), point.slice())?;
        at_base.append(run.clone());
        at_base.copy(value, &before)?;
        at_base.append(finish.clone());
        let mut at_point = run.clone();
        at_point.append(finish);
        Ok(Self {
            results,
            at_base,
            at_point,
            cost: Cost::default(),
        })
    }

    pub(crate) fn of_gains(gpu: &Gpu, [base, point]: [&Vector; 2], of: Gains) -> Result<Self> {
        let mut graph = Graph::default();
        let rows = of.gains.len();
        let before = graph.input("loss at the base", &[1], DType::F32)?;
        let gains = graph.input("gains", &[rows], DType::F32)?;
        let weights = graph.input("weights", &[rows], DType::F32)?;
        let mut inputs = vec![of.value.clone(), of.gains, of.weights];
        let weighted = graph.binary(Binary::Mul, weights, gains)?;
        let size = norm(&mut graph, weighted)?;
        let mut change = graph.sum(weighted, &[0])?;
        if of.l2 > 0.0 {
            for (to, from) in point.parts().iter().zip(base.parts()) {
                let term = penalty(&mut graph, to.len(), of.l2)?;
                change = graph.binary(Binary::Add, change, term)?;
                inputs.extend([to.clone(), from.clone()]);
            }
        }
        let now = graph.binary(Binary::Add, before, change)?;
        let factor = graph.constant(ERROR_OF_GAIN, &[1]);
        let error = graph.binary(Binary::Mul, factor, size)?;
        let all = graph.concat(&[now, change, error], 0)?;
        let (results, finish) = finish(gpu, &graph, inputs, all)?;
        let zeros = gpu.buffer("no change", RESULTS)?;
        let mut at_base = Recording::new();
        at_base.copy(base.slice(), point.slice())?;
        at_base.append(of.at_base);
        at_base.copy(&zeros, &results)?;
        at_base.copy_part(&of.value, 0, &results, 0, 1)?;
        let mut at_point = of.at_point;
        at_point.append(finish);
        Ok(Self {
            results,
            at_base,
            at_point,
            cost: of.cost,
        })
    }
}

/// Buffer of the results, and what computes them.
fn finish(gpu: &Gpu, graph: &Graph, inputs: Vec<Slice>, all: NodeId) -> Result<(Slice, Recording)> {
    let results = gpu.buffer("loss, its change and its error", RESULTS)?;
    let leaves = DeviceLeaves {
        inputs,
        ..DeviceLeaves::default()
    };
    let targets = [(all, results.clone())];
    let run = Executable::new(gpu, graph, &leaves, &targets)?.linearize;
    Ok((results, run))
}

/// The change of `l2/2 |x|^2` for one tensor, `[1]`: `l2/2 (x' - x).(x' + x)`.
fn penalty(graph: &mut Graph, elements: usize, l2: f32) -> Result<NodeId> {
    let number = graph.inputs().len();
    let to = graph.input(&format!("point {number}"), &[elements], DType::F32)?;
    let from = graph.input(&format!("base {number}"), &[elements], DType::F32)?;
    let moved = graph.binary(Binary::Sub, to, from)?;
    let twice = graph.binary(Binary::Add, to, from)?;
    let product = graph.binary(Binary::Mul, moved, twice)?;
    let sum = graph.sum(product, &[0])?;
    let half = graph.constant(0.5 * l2, &[1]);
    graph.binary(Binary::Mul, half, sum)
}

/// `|x|` for each element.
fn absolute(graph: &mut Graph, x: NodeId) -> Result<NodeId> {
    let negative = graph.unary(Unary::Neg, x)?;
    graph.binary(Binary::Max, x, negative)
}

/// The norm of a vector, `[1]`, in units of its largest element, so that no square overflows.
fn norm(graph: &mut Graph, x: NodeId) -> Result<NodeId> {
    let shape = graph.shape(x).clone();
    let sizes = absolute(graph, x)?;
    let largest = graph.max(sizes, &[0])?;
    let unit = graph.broadcast(largest, &shape)?;
    let zero = graph.constant(0.0, &shape);
    let ratio = graph.binary(Binary::Div, x, unit)?;
    let ratio = graph.select(unit, ratio, zero)?;
    let square = graph.binary(Binary::Mul, ratio, ratio)?;
    let sum = graph.sum(square, &[0])?;
    let root = graph.unary(Unary::Sqrt, sum)?;
    graph.binary(Binary::Mul, largest, root)
}
