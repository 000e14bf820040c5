//! Losses at points, and their changes from the loss at a base.

use super::Cost;
use crate::error::Result;
use crate::gpu::{Gpu, Recording, Slice};
use crate::graph::executable::DeviceLeaves;
use crate::graph::{Binary, DType, Executable, Graph, NodeId};
use crate::vector::Vector;

/// Numbers in [`Losses::results`].
pub(crate) const RESULTS: usize = 3;

/// Losses at one vector, the *point*, and their changes from the loss at another one, the *base*, on the batch of a slot:
///
/// ```text
/// value   f(point) = sum_n w_n l_n(point) + l2/2 |point|^2
/// change  f(point) - f(base) = sum_n w_n (l_n(point) - l_n(base)) + l2/2 (point - base).(point + base)
/// square  sum_n (w_n l_n(point))^2
/// ```
///
/// Losses of examples at base and point come from the same kernels, so at equal points the change is 0, and rounding errors of examples do not depend on each
/// other: the change is off by about an ulp of a loss over the root of the number of examples, where the difference of two sums would be off by an ulp of the sum.
#[derive(Debug)]
pub struct Losses {
    /// `[value, change, square]`.
    pub results: Slice,
    /// Copies base to point, and remembers the losses there as those from which changes are measured. The change in the results is 0 then.
    pub at_base: Recording,
    /// Computes the results.
    pub at_point: Recording,
    /// What either of them costs.
    pub cost: Cost,
}

/// Losses of examples.
pub(crate) struct Examples {
    /// After `run`.
    pub(crate) losses: Slice,
    /// As many, if they are not all 1.
    pub(crate) weights: Option<Slice>,
    pub(crate) run: Recording,
    /// Operations of that; 0 where they are not counted.
    pub(crate) flops: u64,
}

/// `l2/2 |theta|^2`
pub(crate) struct Penalty {
    pub(crate) l2: f32,
}

impl Losses {
    /// Of a loss that is computed as a whole, one element after `run`: for objectives whose examples are nobody's business. Its changes have the errors of
    /// the loss.
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
        let examples = Examples {
            losses: value.clone(),
            weights: None,
            run: run.clone(),
            flops: 0,
        };
        Self::new(gpu, [base, point], examples, None)
    }

    pub(crate) fn new(
        gpu: &Gpu,
        [base, point]: [&Vector; 2],
        examples: Examples,
        penalty: Option<Penalty>,
    ) -> Result<Self> {
        let results = gpu.buffer("loss, its change and its square", RESULTS)?;
        let before = gpu.buffer("losses of examples at the base", examples.losses.len())?;
        let mut program = Sums::new(examples.losses.len(), examples.weights.is_some())?;
        let mut inputs = vec![examples.losses.clone(), before.clone()];
        inputs.extend(examples.weights);
        if let Some(Penalty { l2 }) = penalty {
            for (to, from) in point.parts().iter().zip(base.parts()) {
                program.penalize(to.len(), l2)?;
                inputs.extend([to.clone(), from.clone()]);
            }
        }
        let leaves = DeviceLeaves {
            inputs,
            ..DeviceLeaves::default()
        };
        let targets = [(program.all, results.clone())];
        let sums = Executable::new(gpu, &program.graph, &leaves, &targets)?;
        let cost = Cost {
            run: match examples.flops {
                0 => 0,
                flops => flops + sums.listing.flops(0),
            },
            ..Cost::default()
        };
        let sums = sums.linearize;
        let mut at_base = Recording::new();
        at_base.copy(base.slice(), point.slice())?;
        at_base.append(examples.run.clone());
        at_base.copy(&examples.losses, &before)?;
        at_base.append(sums.clone());
        let mut at_point = examples.run;
        at_point.append(sums);
        Ok(Self {
            results,
            at_base,
            at_point,
            cost,
        })
    }
}

/// The results as a program of losses of examples at point and base, their weights, and tensors of the point and the base by turns.
struct Sums {
    graph: Graph,
    /// `[RESULTS]`
    all: NodeId,
}

impl Sums {
    fn new(rows: usize, weighted: bool) -> Result<Self> {
        let mut graph = Graph::default();
        let now = graph.input("losses", &[rows], DType::F32)?;
        let before = graph.input("losses at the base", &[rows], DType::F32)?;
        let change = graph.binary(Binary::Sub, now, before)?;
        let (value, change) = if weighted {
            let weights = graph.input("weights", &[rows], DType::F32)?;
            (
                graph.binary(Binary::Mul, weights, now)?,
                graph.binary(Binary::Mul, weights, change)?,
            )
        } else {
            (now, change)
        };
        let square = graph.binary(Binary::Mul, value, value)?;
        let mut all = place(&mut graph, value, 0)?;
        for (number, results) in [(1, change), (2, square)] {
            let row = place(&mut graph, results, number)?;
            all = graph.binary(Binary::Add, all, row)?;
        }
        let sums = graph.sum(all, &[1])?;
        let all = graph.reshape(sums, &[RESULTS])?;
        Ok(Self { graph, all })
    }

    /// Adds `l2/2 |x|^2` for one tensor of `elements`.
    fn penalize(&mut self, elements: usize, l2: f32) -> Result<()> {
        let graph = &mut self.graph;
        let number = graph.inputs().len();
        let name = |what: &str| format!("{what} {number}");
        let to = graph.input(&name("point"), &[elements], DType::F32)?;
        let from = graph.input(&name("base"), &[elements], DType::F32)?;
        let moved = graph.binary(Binary::Sub, to, from)?;
        let twice = graph.binary(Binary::Add, to, from)?;
        let change = graph.binary(Binary::Mul, moved, twice)?;
        let value = graph.binary(Binary::Mul, to, to)?;
        let value = place(graph, value, 0)?;
        let change = place(graph, change, 1)?;
        let both = graph.binary(Binary::Add, value, change)?;
        let sums = graph.sum(both, &[1])?;
        let sums = graph.reshape(sums, &[RESULTS])?;
        let half = graph.constant(0.5 * l2, &[RESULTS]);
        let term = graph.binary(Binary::Mul, half, sums)?;
        self.all = graph.binary(Binary::Add, self.all, term)?;
        Ok(())
    }
}

/// A vector as row `number` of a matrix of [`RESULTS`] rows, zero elsewhere.
fn place(graph: &mut Graph, vector: NodeId, number: usize) -> Result<NodeId> {
    let elements = graph.shape(vector)[0];
    let row = graph.reshape(vector, &[1, elements])?;
    graph.pad(row, &[number, 0], &[RESULTS, elements])
}
