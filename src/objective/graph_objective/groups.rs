//! The quadratics of groups of examples, in one program.

use super::GraphObjective;
use super::elsewhere::Elsewhere;
use super::inputs::Inputs;
use super::program::{Derivatives, Program, TOTAL, pairs};
use crate::error::{Error, Result};
use crate::gpu::Slice;
use crate::graph::batch::batched;
use crate::graph::executable::Wanted;
use crate::graph::jvp::linearize;
use crate::graph::{Binary, DType, Executable, Graph, NodeId};
use crate::kernels::blocks::{Coefficients, Rows, combine_rows};
use crate::objective::losses::results;
use crate::objective::{Cost, Curvature, Group, GroupRequest, GroupedQuadratic, Loaded};
use crate::vector::{Block, Vector};

/// Elements from one group's variance to the next, where any device can bind them.
const STRIDE: usize = 64;

/// Weights of a group of examples among those of a batch.
struct GroupWeights {
    /// As they are in the batch, `[rows]`.
    own: NodeId,
    /// The sum of the batch's weights, `[1]`: an input that is the same for all groups.
    total: NodeId,
    /// The group's part of it, `[1]`.
    share: NodeId,
    /// The weights divided by their sum, `[rows]`.
    normalised: NodeId,
}

impl GraphObjective {
    /// The program of a group of `rows` rows, which stands for the batch.
    fn trace_group(&self, rows: usize) -> Result<(Program, GroupWeights)> {
        let mut traced = self.model.trace(rows)?;
        let graph = &mut traced.graph;
        let weights = graph.input("weights", &[rows], DType::F32)?;
        let total = graph.input(TOTAL, &[1], DType::F32)?;
        let sum = graph.sum(weights, &[0])?;
        let share = graph.binary(Binary::Div, sum, total)?;
        let sums = graph.broadcast(sum, &[rows])?;
        let normalised = graph.binary(Binary::Div, weights, sums)?;
        let totals = graph.broadcast(total, &[rows])?;
        let scaled = graph.binary(Binary::Mul, normalised, totals)?;
        let group = GroupWeights {
            own: weights,
            total,
            share,
            normalised,
        };
        Ok((self.weighted(traced, scaled)?, group))
    }

    /// The program of one group, for all of them: see [`batched`].
    pub(super) fn build_grouped(
        &self,
        theta: &Vector,
        inputs: &Inputs,
        loaded: &Loaded,
        request: GroupRequest,
    ) -> Result<GroupedQuadratic> {
        let Loaded {
            rows,
            groups: count,
            ..
        } = *loaded;
        let limit = self.gpu.limits().max_storage_buffer_binding_size;
        let needed = 4 * (count * self.layout.len()) as u64;
        if needed > limit {
            return Err(Error::OverLimit {
                what: format!("gradients of {count} groups"),
                needed,
                limit_name: "max_storage_buffer_binding_size",
                limit,
                advice: "cut batches into fewer groups, or use a smaller model",
            });
        }
        let (mut program, group) = self.trace_group(rows / count)?;
        let Derivatives {
            gradients,
            directions,
            products,
        } = self.differentiate(&mut program, request.curvature)?;
        let variance = if request.slope_variance && request.curvature != Curvature::None {
            slope_variance(&mut program, &group, &directions)?
        } else {
            None
        };
        let (gains, moves) = match request.losses {
            true => self
                .gains(&mut program)
                .map(|(gains, moves)| (vec![gains, group.own], moves))?,
            false => Default::default(),
        };
        let graph = &mut program.traced.graph;
        let mut all = vec![program.loss, group.share];
        all.extend(
            gradients
                .iter()
                .chain(&products)
                .chain(&variance)
                .chain(&gains),
        );
        let leaves = graph.inputs().iter().map(|leaf| leaf.node);
        let leaves: Vec<NodeId> = leaves.filter(|&leaf| leaf != group.total).collect();
        let (_, all) = batched(graph, &all, &leaves, count)?;
        let (losses, shares, rest) = (all[0], all[1], &all[2..]);
        let (gradients, rest) = rest.split_at(gradients.len());
        let (products, rest) = rest.split_at(products.len());
        let (variances, gains) = rest.split_at(variance.iter().len());

        let weighted = graph.binary(Binary::Mul, losses, shares)?;
        let whole = graph.sum(weighted, &[0])?;
        let at_point = match *gains {
            [gains, weights] => {
                let flat = [gains, weights].map(|node| graph.reshape(node, &[rows]));
                let [gains, weights] = flat;
                let before = graph.reshape(whole, &[1])?;
                Some(results(graph, before, [gains?, weights?], &moves, self.l2)?)
            }
            _ => None,
        };
        let value = self.gpu.buffer("loss", 1)?;
        let factors = self.gpu.buffer("shares of groups", count)?;
        let block = |label: &str| Block::new(&self.gpu, label, &self.layout, count);
        let (gradient_block, product_block) =
            (block("gradients of groups")?, block("products of groups")?);
        let new = |label: &str| Vector::new(&self.gpu, label, &self.layout);
        let (gradient, direction) = (new("gradient")?, new("direction")?);
        let mut wanted = vec![Wanted::from(whole), Wanted::from(shares)];
        let mut slices = vec![value.clone(), factors.clone()];
        let apart = |pitch: usize| {
            move |&node: &NodeId| Wanted {
                node,
                pitch: Some(pitch),
            }
        };
        for (nodes, block) in [(gradients, &gradient_block), (products, &product_block)] {
            wanted.extend(nodes.iter().map(apart(self.layout.len())));
            slices.extend(block.tensors(0, count)?.into_iter().take(nodes.len()));
        }
        let variance = match variances {
            [] => None,
            _ => Some(
                self.gpu
                    .buffer("variances of slopes", STRIDE * (count - 1) + 1)?,
            ),
        };
        wanted.extend(variances.iter().map(apart(STRIDE)));
        slices.extend(variance.clone());

        let mut leaves = self.leaves(&program, theta, inputs)?;
        leaves.directions = pairs(&directions, direction.parts());
        let elsewhere = match at_point {
            None => None,
            Some(all) => {
                let elsewhere = Elsewhere::new(self)?;
                leaves.points = elsewhere.points(&moves);
                wanted.push(Wanted::from(all));
                slices.push(elsewhere.results());
                Some(elsewhere)
            }
        };
        let graph = &program.traced.graph;
        let mut executable = Executable::with_rows(&self.gpu, graph, &leaves, &wanted, &slices)?;
        let shares = Coefficients {
            slice: &factors,
            first: 0,
            width: count,
        };
        combine_rows(
            &self.gpu,
            &mut executable.linearize,
            &Rows::from(&gradient),
            shares,
            &Rows::all(&gradient_block),
            false,
        )?;
        let of = |at: usize| -> Result<Group> {
            let own = |slice: Slice| slice.slice(STRIDE * at..STRIDE * at + 1);
            Ok(Group {
                gradient: gradient_block.vectors()[at].clone(),
                product: product_block.vectors()[at].clone(),
                slope_variance: variance.clone().map(own).transpose()?,
            })
        };
        let singles = 2 + usize::from(request.losses);
        let elements = (singles + 2 * count) * self.layout.len();
        let losses = elsewhere.map(|e| e.losses(self, (theta, &value), &mut executable));
        Ok(GroupedQuadratic {
            losses: losses.transpose()?,
            groups: (0..count).map(of).collect::<Result<_>>()?,
            gradients: gradient_block,
            products: product_block,
            value,
            gradient,
            direction,
            linearize: executable.linearize,
            multiply: executable.product,
            cost: Cost::of(&executable.listing, 2 + gradients.len(), elements),
            listing: executable.listing,
            loaded: *loaded,
        })
    }
}

/// The variance of the slope along `directions`, `[1]`; none where the loss depends on no parameter.
fn slope_variance(
    program: &mut Program,
    group: &GroupWeights,
    directions: &[NodeId],
) -> Result<Option<NodeId>> {
    let parameters = program.parameters.iter().copied();
    let tangents: Vec<(NodeId, NodeId)> = parameters.zip(directions.iter().copied()).collect();
    let losses = program.traced.losses;
    let graph = &mut program.traced.graph;
    let Some(slopes) = linearize(graph, &[losses], &tangents)?[0] else {
        return Ok(None);
    };
    let mean = variance_of_mean(graph, slopes, group.normalised)?;
    // The slope is the mean times the sum of the batch's weights.
    let squared = graph.binary(Binary::Mul, group.total, group.total)?;
    graph.binary(Binary::Mul, squared, mean).map(Some)
}

/// `sum_n p_n^2 (s_n - s)^2 / (1 - sum_n p_n^2)` with `s = sum_n p_n s_n` and weights `p` whose sum is 1: for equal ones the variance of a
/// mean of `n` numbers, estimated from them.
fn variance_of_mean(graph: &mut Graph, numbers: NodeId, weights: NodeId) -> Result<NodeId> {
    let shape = graph.shape(numbers).clone();
    let weighted = graph.binary(Binary::Mul, weights, numbers)?;
    let mean = graph.sum(weighted, &[0])?;
    let mean = graph.broadcast(mean, &shape)?;
    let off = graph.binary(Binary::Sub, numbers, mean)?;
    let off = graph.binary(Binary::Mul, weights, off)?;
    let squares = graph.binary(Binary::Mul, off, off)?;
    let sum = graph.sum(squares, &[0])?;
    let weight_squares = graph.binary(Binary::Mul, weights, weights)?;
    let rest = graph.sum(weight_squares, &[0])?;
    let one = graph.constant(1.0, &[1]);
    let rest = graph.binary(Binary::Sub, one, rest)?;
    graph.binary(Binary::Div, sum, rest)
}
