//! Losses at points, and their changes from the loss at a base.

use super::LossCost;
use crate::error::Result;
use crate::gpu::{Gpu, Recording, Slice, Work};
use crate::graph::difference::Move;
use crate::graph::executable::DeviceLeaves;
use crate::graph::{Binary, DType, Executable, Graph, NodeId, Unary};
use crate::vector::Vector;

/// Numbers in [`Losses::results`].
pub(crate) const RESULTS: usize = 3;
/// Label of their buffer.
pub(crate) const LABEL: &str = "loss, its change and its error";
/// Error of what an example's loss gains, relative to that: the roundings on the way of a difference through a network, some tens of half
/// ulps.
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
/// At equal points the change is 0, and the value has the bits of that at the base. The base is where the program that they belong to was
/// run, or linearized, last: they work with what that left. The objective of a model computes changes by
/// [`difference`](crate::graph::difference): they are right to some ulps of the change, so that steps can be judged whose changes are a
/// billionth of the loss.
#[derive(Clone, Debug)]
pub struct Losses {
    /// The point; to be written before `at_point`.
    pub point: Vector,
    /// `[value, change, error]`.
    pub results: Slice,
    /// Copies base to point, and gets ready to measure changes. The results are those of the base: its loss, and no change.
    pub at_base: Work,
    /// Computes the results.
    pub at_point: Work,
    /// What `at_base` costs.
    pub cost_at_base: LossCost,
    /// What `at_point` costs.
    pub cost_at_point: LossCost,
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
        run: &Work,
    ) -> Result<Self> {
        let mut at_base = Work::new();
        at_base.tail().copy(base.slice(), point.slice())?;
        at_base.append(run.clone());
        Self::whole(gpu, (at_base, LossCost::LOSS), point, (value, run))
    }

    /// As [`of_value`](Self::of_value), where the loss at the base is known already, one element after the program that they belong to.
    ///
    /// # Errors
    /// As there.
    pub fn of_value_from(
        gpu: &Gpu,
        (base, known): (&Vector, &Slice),
        point: &Vector,
        value: &Slice,
        run: &Work,
    ) -> Result<Self> {
        let mut at_base = Work::new();
        at_base.tail().copy(base.slice(), point.slice())?;
        at_base.tail().copy(known, value)?;
        Self::whole(gpu, (at_base, LossCost::NOTHING), point, (value, run))
    }

    /// By work that leaves the loss at the base, and work that leaves that at the point, in one place.
    fn whole(
        gpu: &Gpu,
        (mut at_base, cost_at_base): (Work, LossCost),
        point: &Vector,
        (value, run): (&Slice, &Work),
    ) -> Result<Self> {
        let before = gpu.buffer("loss at the base", 1)?;
        let mut graph = Graph::default();
        let now = graph.input("loss", &[1], DType::F32)?;
        let then = graph.input("loss at the base", &[1], DType::F32)?;
        let all = results_of_values(&mut graph, [now, then])?;
        let results = gpu.buffer(LABEL, RESULTS)?;
        let leaves = DeviceLeaves {
            inputs: vec![value.clone(), before.clone()],
            ..DeviceLeaves::default()
        };
        let targets = [(all, results.clone())];
        let finish = Executable::new(gpu, &graph, &leaves, &targets)?.linearize;
        at_base.tail().copy(value, &before)?;
        at_base.append(finish.clone());
        let mut at_point = run.clone();
        at_point.append(finish);
        Ok(Self {
            point: point.clone(),
            results,
            at_base,
            at_point,
            cost_at_base,
            cost_at_point: LossCost::LOSS,
        })
    }

    /// Around a base with its loss, by a program for the results at the point.
    pub(crate) fn around(
        gpu: &Gpu,
        (base, value): (&Vector, &Slice),
        (point, results): (Vector, Slice),
        at_point: Recording,
        flops: u64,
    ) -> Result<Self> {
        let zeros = gpu.buffer("no change", RESULTS)?;
        let mut at_base = Recording::new();
        at_base.copy(base.slice(), point.slice())?;
        at_base.copy(&zeros, &results)?;
        at_base.copy_part(value, 0, &results, 0, 1)?;
        Ok(Self {
            point,
            results,
            at_base: at_base.into(),
            at_point: at_point.into(),
            cost_at_base: LossCost::NOTHING,
            cost_at_point: LossCost {
                flops,
                ..LossCost::CHANGE
            },
        })
    }
}

/// The results, `[3]`, from the losses at the point and the base, `[1]` each.
fn results_of_values(graph: &mut Graph, [now, then]: [NodeId; 2]) -> Result<NodeId> {
    let change = graph.binary(Binary::Sub, now, then)?;
    let size = absolute(graph, now)?;
    let factor = graph.constant(ERROR_OF_LOSS, &[1]);
    let error = graph.binary(Binary::Mul, factor, size)?;
    graph.concat(&[now, change, error], 0)
}

/// The results, `[3]`: from the loss at the base, `[1]`, what each example's loss gains and its weight, and the moves of parameters, on
/// which there is a term `l2/2 |x|^2`.
pub(crate) fn results(
    graph: &mut Graph,
    before: NodeId,
    [gains, weights]: [NodeId; 2],
    moves: &[Move],
    l2: f32,
) -> Result<NodeId> {
    let weighted = graph.binary(Binary::Mul, weights, gains)?;
    let size = norm(graph, weighted)?;
    let mut change = graph.sum(weighted, &[0])?;
    if l2 > 0.0 {
        for &moved in moves {
            let term = penalty(graph, moved, l2)?;
            change = graph.binary(Binary::Add, change, term)?;
        }
    }
    let now = graph.binary(Binary::Add, before, change)?;
    let factor = graph.constant(ERROR_OF_GAIN, &[1]);
    let error = graph.binary(Binary::Mul, factor, size)?;
    graph.concat(&[now, change, error], 0)
}

/// The change of `l2/2 |x|^2` for one tensor, `[1]`: `l2/2 (x' - x).(x' + x)`.
fn penalty(graph: &mut Graph, Move { node, to }: Move, l2: f32) -> Result<NodeId> {
    let moved = graph.binary(Binary::Sub, to, node)?;
    let twice = graph.binary(Binary::Add, to, node)?;
    let product = graph.binary(Binary::Mul, moved, twice)?;
    let axes: Vec<usize> = (0..graph.shape(product).len()).collect();
    let sum = graph.sum(product, &axes)?;
    let sum = graph.reshape(sum, &[1])?;
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

#[cfg(test)]
mod tests {
    use super::{results, results_of_values};
    use crate::error::Result;
    use crate::graph::twin::{Leaves, evaluate};
    use crate::graph::{DType, Graph, NodeId};

    /// Half an ulp of 1.
    const ROUNDING: f64 = 1.0 / 16_777_216.0;

    /// `[value, change, error]` by a program of three inputs or two, in f64.
    fn value(graph: &Graph, results: NodeId, inputs: Vec<Vec<f64>>) -> Result<Vec<f64>> {
        let leaves = Leaves {
            inputs,
            ..Leaves::default()
        };
        Ok(evaluate(graph, &leaves, &[results])?.concat())
    }

    /// Two examples gain 6 and -2 with the weights 1/2 and 2: of the norm 5 of (3, -4) the error is 64 roundings.
    #[test]
    fn a_change_may_be_off_by_64_roundings() -> Result<()> {
        let mut graph = Graph::default();
        let before = graph.input("before", &[1], DType::F32)?;
        let gains = graph.input("gains", &[2], DType::F32)?;
        let weights = graph.input("weights", &[2], DType::F32)?;
        let all = results(&mut graph, before, [gains, weights], &[], 0.0)?;
        let inputs = vec![vec![10.0], vec![6.0, -2.0], vec![0.5, 2.0]];
        let found = value(&graph, all, inputs)?;
        assert_eq!(found, [9.0, -1.0, 64.0 * ROUNDING * 5.0]);
        Ok(())
    }

    /// A difference of two losses has the error of one, 8 roundings, whatever the sign of the loss.
    #[test]
    fn a_difference_of_losses_may_be_off_by_8_roundings() -> Result<()> {
        let mut graph = Graph::default();
        let now = graph.input("now", &[1], DType::F32)?;
        let then = graph.input("then", &[1], DType::F32)?;
        let all = results_of_values(&mut graph, [now, then])?;
        let found = value(&graph, all, vec![vec![-3.0], vec![2.0]])?;
        assert_eq!(found, [-3.0, -5.0, 8.0 * ROUNDING * 3.0]);
        Ok(())
    }
}
