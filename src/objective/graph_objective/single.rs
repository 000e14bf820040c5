//! Programs of batches as wholes: gradients and quadratics.

use std::sync::Arc;

use super::GraphObjective;
use super::elsewhere::Elsewhere;
use super::inputs::Inputs;
use super::program::{Derivatives, Program, pairs};
use crate::error::Result;
use crate::graph::batch::batched;
use crate::graph::derivatives::gradient;
use crate::graph::executable::BlockPart;
use crate::graph::per_example::square_sums;
use crate::graph::plan::{Block as WideProgram, Request, Wanted};
use crate::graph::{NodeId, Plan};
use crate::objective::losses::results;
use crate::objective::{
    BlockProduct, Cost, Gradient, GradientRequest, Loaded, Quadratic, QuadraticRequest,
};
use crate::vector::{Block, Vector};

/// The plan of a gradient or quadratic.
#[derive(Debug)]
pub(super) struct Single {
    plan: Plan,
    /// Directions that a block multiplies at once.
    at_once: usize,
}

/// A gradient is a quadratic without curvature.
impl From<GradientRequest> for QuadraticRequest {
    fn from(GradientRequest { losses }: GradientRequest) -> Self {
        Self {
            losses,
            ..Self::default()
        }
    }
}

impl GraphObjective {
    /// The plan for so many rows, made where it is not there.
    pub(super) fn single(&mut self, rows: usize, request: QuadraticRequest) -> Result<Arc<Single>> {
        if let Some(known) = self.single_plans.get([rows, 1], request) {
            return Ok(known);
        }
        let single = self.plan_single(rows, request)?;
        let bytes = single.plan.host_bytes();
        Ok(self.single_plans.keep([rows, 1], request, bytes, single))
    }

    /// The loss, its gradient, and what else is asked for, in this order; products only where there is a curvature.
    fn plan_single(&self, rows: usize, request: QuadraticRequest) -> Result<Single> {
        let mut program = self.trace(rows)?;
        let Derivatives {
            gradients,
            directions,
            products,
        } = self.differentiate(&mut program, request.curvature)?;
        let mut wanted = vec![program.loss];
        wanted.extend(gradients);
        if request.fisher_diagonal {
            let graph = &mut program.traced.graph;
            let data_gradients = gradient(graph, program.data_loss, &program.parameters)?;
            wanted.extend(square_sums(graph, &data_gradients, program.weights)?);
        }
        wanted.extend(&products);
        let mut points = Vec::new();
        if request.losses {
            let (gains, moves) = self.gains(&mut program)?;
            let (before, weights) = (program.loss, program.weights);
            let graph = &mut program.traced.graph;
            wanted.push(results(graph, before, [gains, weights], &moves, self.l2)?);
            points.extend(moves.iter().map(|m| m.to));
        }
        let asked = Request {
            directions,
            points,
            wanted: wanted.into_iter().map(Wanted::from).collect(),
            block: None,
        };
        if request.block > 0 && !products.is_empty() {
            return self.plan_block(program, asked, &products, request.block);
        }
        let plan = Plan::new(&self.target, program.traced.graph, asked)?;
        Ok(Single { plan, at_once: 0 })
    }

    /// The same program with products for `width` directions: all at once, or in as many parts as it takes to fit.
    fn plan_block(
        &self,
        program: Program,
        request: Request,
        products: &[NodeId],
        width: usize,
    ) -> Result<Single> {
        let binding = self.gpu.limits().max_storage_buffer_binding_size;
        let mut at_once = width;
        loop {
            let mut graph = program.traced.graph.clone();
            let (directions, results) =
                batched(&mut graph, products, &request.directions, at_once)?;
            let wide = Request {
                block: Some(WideProgram {
                    pitch: self.layout.len(),
                    directions,
                    results,
                }),
                ..request.clone()
            };
            let plan = Plan::new(&self.target, graph, wide)?;
            let span = (at_once * self.layout.len()) as u64 * 4;
            let largest = plan.listing().buffers.iter().copied().max();
            let fits = plan.listing().planned_bytes() <= self.block_memory
                && largest.unwrap_or(0).max(span) <= binding;
            if fits || at_once == 1 {
                return Ok(Single { plan, at_once });
            }
            at_once = at_once.div_ceil(2);
        }
    }

    /// Loss and gradient.
    pub(super) fn bind_gradient(
        &mut self,
        Single { plan, .. }: &Single,
        (theta, inputs, loaded): (&Vector, &Inputs, &Loaded),
        request: GradientRequest,
    ) -> Result<Gradient> {
        let value = self.gpu.buffer("loss", 1)?;
        let gradient = Vector::new(&self.gpu, "gradient", &self.layout)?;
        let mut leaves = self.leaves(plan.graph(), theta, inputs)?;
        let mut results = vec![value.clone()];
        results.extend_from_slice(gradient.parts());
        let elsewhere = match request.losses {
            true => Some(Elsewhere::new(self, plan, (&mut leaves, &mut results))?),
            false => None,
        };
        let mut executable = plan.bind(&self.gpu, &mut self.arena, &leaves, &results, &[])?;
        let losses = elsewhere.map(|e| e.losses(self, (theta, &value), &mut executable));
        let vectors = 1 + usize::from(request.losses);
        Ok(Gradient {
            cost: self.cost(plan, vectors),
            losses: losses.transpose()?,
            value,
            gradient,
            run: executable.linearize.into(),
            loaded: *loaded,
        })
    }

    /// A quadratic.
    pub(super) fn bind_quadratic(
        &mut self,
        Single { plan, at_once }: &Single,
        (theta, inputs, loaded): (&Vector, &Inputs, &Loaded),
        request: QuadraticRequest,
    ) -> Result<Quadratic> {
        let new = |label: &str| Vector::new(&self.gpu, label, &self.layout);
        let value = self.gpu.buffer("loss", 1)?;
        let (gradient, direction, product) = (new("gradient")?, new("direction")?, new("product")?);
        let fisher_diagonal = request
            .fisher_diagonal
            .then(|| new("empirical Fisher diagonal"))
            .transpose()?;
        let mut leaves = self.leaves(plan.graph(), theta, inputs)?;
        leaves.directions = pairs(&plan.request().directions, direction.parts());
        let mut results = vec![value.clone()];
        results.extend_from_slice(gradient.parts());
        results.extend(fisher_diagonal.iter().flat_map(Vector::parts).cloned());
        if !plan.request().directions.is_empty() {
            results.extend_from_slice(product.parts());
        }
        let elsewhere = match request.losses {
            true => Some(Elsewhere::new(self, plan, (&mut leaves, &mut results))?),
            false => None,
        };
        let width = request.block;
        let block = match at_once {
            0 => None,
            _ => Some((
                Block::new(&self.gpu, "directions", &self.layout, width)?,
                Block::new(&self.gpu, "products", &self.layout, width)?,
            )),
        };
        let mut parts = Vec::new();
        if let Some((directions, products)) = &block {
            for first in (0..width).step_by(*at_once) {
                // The last part repeats rows of the one before rather than be of another width.
                let first = first.min(width - at_once);
                parts.push(BlockPart {
                    directions: directions.tensors(first, *at_once)?,
                    results: products.tensors(first, *at_once)?,
                });
            }
        }
        let mut executable = plan.bind(&self.gpu, &mut self.arena, &leaves, &results, &parts)?;
        let losses = elsewhere.map(|e| e.losses(self, (theta, &value), &mut executable));
        let singles = 3 + usize::from(request.fisher_diagonal) + usize::from(request.losses);
        let mut cost = self.cost(plan, singles + 2 * width);
        // The program runs once for each part of a block.
        cost.block *= parts.len() as u64;
        Ok(Quadratic {
            cost,
            losses: losses.transpose()?,
            value,
            gradient,
            direction,
            product,
            fisher_diagonal,
            block: block.map(|(directions, products)| BlockProduct {
                directions,
                products,
                multiply: executable.block.into(),
                width: *at_once,
            }),
            linearize: executable.linearize.into(),
            multiply: executable.product.into(),
            listing: executable.listing,
            loaded: *loaded,
        })
    }

    /// Operations of a loss with its gradient, of so many rows.
    pub(super) fn gradient_flops(&mut self, rows: usize) -> Result<u64> {
        let single = self.single(rows, QuadraticRequest::default())?;
        Ok(self.cost(&single.plan, 0).gradient)
    }

    /// What a program costs that keeps so many vectors.
    fn cost(&self, plan: &Plan, vectors: usize) -> Cost {
        let of_gradient = 1 + self.layout.entries().len();
        Cost::of(plan.listing(), of_gradient, vectors * self.layout.len())
    }
}
