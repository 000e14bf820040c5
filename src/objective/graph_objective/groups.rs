//! The quadratics of groups of examples, in one program.

use std::sync::Arc;

use super::GraphObjective;
use super::elsewhere::Elsewhere;
use super::inputs::Inputs;
use super::program::{Derivatives, Program, TOTAL, pairs};
use crate::error::{Error, Result};
use crate::gpu::Slice;
use crate::graph::batch::batched;
use crate::graph::jvp::linearize;
use crate::graph::plan::{Request, Wanted};
use crate::graph::{Binary, DType, Graph, NodeId, Plan};
use crate::kernels::blocks::{Coefficients, Rows, combine_rows};
use crate::objective::losses::results;
use crate::objective::{Cost, Curvature, Group, GroupRequest, GroupedQuadratic, Loaded};
use crate::vector::{Block, Vector};

/// Elements from one group's variance to the next, where any device can bind them.
const STRIDE: usize = 64;

/// The plan of the quadratics of groups.
#[derive(Debug)]
pub(super) struct Grouped {
    plan: Plan,
    /// Whether variances of slopes are among the results.
    variances: bool,
}

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

    /// The plan for the groups of what was loaded, made where it is not there.
    pub(super) fn groups(
        &mut self,
        loaded: &Loaded,
        request: GroupRequest,
    ) -> Result<Arc<Grouped>> {
        let rows = [loaded.rows, loaded.groups];
        if let Some(known) = self.grouped_plans.get(rows, request) {
            return Ok(known);
        }
        let grouped = self.plan_groups(rows, request)?;
        let bytes = grouped.plan.host_bytes();
        Ok(self.grouped_plans.keep(rows, request, bytes, grouped))
    }

    /// The program of one group, for all of them: see [`batched`].
    fn plan_groups(&self, [rows, count]: [usize; 2], request: GroupRequest) -> Result<Grouped> {
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
        let (vectors, rest) = rest.split_at(gradients.len() + products.len());
        let (variances, gains) = rest.split_at(variance.iter().len());

        let weighted = graph.binary(Binary::Mul, losses, shares)?;
        let whole = graph.sum(weighted, &[0])?;
        let apart = |pitch: usize| {
            move |&node: &NodeId| Wanted {
                node,
                pitch: Some(pitch),
            }
        };
        let mut wanted = vec![Wanted::from(whole), Wanted::from(shares)];
        wanted.extend(vectors.iter().map(apart(self.layout.len())));
        wanted.extend(variances.iter().map(apart(STRIDE)));
        if let [gains, weights] = *gains {
            let flat = [gains, weights].map(|node| graph.reshape(node, &[rows]));
            let [gains, weights] = flat;
            let before = graph.reshape(whole, &[1])?;
            let all = results(graph, before, [gains?, weights?], &moves, self.l2)?;
            wanted.push(Wanted::from(all));
        }
        let request = Request {
            directions,
            points: moves.iter().map(|m| m.to).collect(),
            wanted,
            block: None,
        };
        Ok(Grouped {
            plan: Plan::new(&self.target, program.traced.graph, request)?,
            variances: !variances.is_empty(),
        })
    }

    /// The quadratics of groups.
    pub(super) fn bind_groups(
        &mut self,
        Grouped { plan, variances }: &Grouped,
        (theta, inputs, loaded): (&Vector, &Inputs, &Loaded),
        request: GroupRequest,
    ) -> Result<GroupedQuadratic> {
        let count = loaded.groups;
        let value = self.gpu.buffer("loss", 1)?;
        let factors = self.gpu.buffer("shares of groups", count)?;
        let block = |label: &str| Block::new(&self.gpu, label, &self.layout, count);
        let (gradient_block, product_block) =
            (block("gradients of groups")?, block("products of groups")?);
        let new = |label: &str| Vector::new(&self.gpu, label, &self.layout);
        let (gradient, direction) = (new("gradient")?, new("direction")?);
        let variance = variances
            .then(|| {
                self.gpu
                    .buffer("variances of slopes", STRIDE * (count - 1) + 1)
            })
            .transpose()?;

        let mut leaves = self.leaves(plan.graph(), theta, inputs)?;
        leaves.directions = pairs(&plan.request().directions, direction.parts());
        let mut results = vec![value.clone(), factors.clone()];
        results.extend(gradient_block.tensors(0, count)?);
        if !plan.request().directions.is_empty() {
            results.extend(product_block.tensors(0, count)?);
        }
        results.extend(variance.clone());
        let elsewhere = match request.losses {
            true => Some(Elsewhere::new(self, plan, (&mut leaves, &mut results))?),
            false => None,
        };
        let mut executable = plan.bind(&self.gpu, &mut self.arena, &leaves, &results, &[])?;
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
        let of_gradients = 2 + self.layout.entries().len();
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
            linearize: executable.linearize.into(),
            multiply: executable.product.into(),
            cost: Cost::of(&executable.listing, of_gradients, elements),
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
