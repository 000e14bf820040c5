//! Programs with rows of examples.

use std::sync::Arc;

use super::GraphObjective;
use super::inputs::Inputs;
use super::program::{check_cut, pairs};
use crate::error::Result;
use crate::gpu::Work;
use crate::graph::derivatives::gradient;
use crate::graph::jvp::linearize;
use crate::graph::listing::Listing;
use crate::graph::phase::{CHANGE, LINEARIZE, PRODUCT};
use crate::graph::plan::Request;
use crate::graph::sample_space::SampleRows;
use crate::graph::{DType, NodeId, Plan};
use crate::kernels::blocks::{Sketch, sketch};
use crate::objective::kronecker::without_root;
use crate::objective::sample_space::without_residuals;
use crate::objective::{Cost, Loaded, RowKind, SampleRequest, SampleSystem, Square};
use crate::vector::{Block, Layout, Vector};

/// The plan of such a program.
#[derive(Debug)]
pub(super) struct Sampled {
    plan: Plan,
    square: Square,
    count: usize,
    /// Elements of the square.
    elements: usize,
    has_residuals: bool,
    has_second: bool,
    /// Leaves: the direction, the coefficients, the signs of mixtures.
    directions: Vec<NodeId>,
    coefficients: NodeId,
    signs: Option<NodeId>,
}

impl GraphObjective {
    /// The plan for so many rows, made where it is not there.
    pub(super) fn sampled(&mut self, rows: usize, request: SampleRequest) -> Result<Arc<Sampled>> {
        if let Some(known) = self.sample_plans.get([rows, 1], request) {
            return Ok(known);
        }
        let sampled = self.plan_sampled(rows, request)?;
        let bytes = sampled.plan.host_bytes();
        let plans = &mut self.sample_plans;
        Ok(plans.keep([rows, 1], request, bytes, sampled))
    }

    /// In phase 0 the loss, residuals or gradient, and the square; for each direction its image; for each list of coefficients the
    /// combination.
    fn plan_sampled(&self, rows: usize, request: SampleRequest) -> Result<Sampled> {
        let curved = request.kind != RowKind::RootLosses;
        let (mut traced, probe) = match curved {
            true => self.model.trace_with_probe(rows)?,
            false => (self.model.trace(rows)?, None),
        };
        let weights = traced.graph.input("weights", &[rows], DType::F32)?;
        let mut program = self.weighted(traced, weights)?;
        let (losses, outputs) = (program.traced.losses, program.traced.outputs);
        let (graph, parameters) = (&mut program.traced.graph, &program.parameters);
        if curved {
            check_cut(graph, losses, outputs, parameters)?;
        }
        let of = match (request.kind, probe) {
            (RowKind::RootLosses, _) => {
                SampleRows::of_root_losses(graph, [losses, weights], parameters)?
            }
            (_, None) => return Err(without_root()),
            (RowKind::Probe, Some(probe)) => {
                SampleRows::of_mixtures(graph, (outputs, probe.root), weights, parameters)?
            }
            (RowKind::Exact, Some(probe)) => {
                let root = (outputs, probe.root, probe.signs);
                SampleRows::of_root(graph, root, probe.residuals, weights, parameters)?
            }
        };
        let (m, p) = (of.count(), self.layout.parameters());
        let square = request.square.unwrap_or(match p < m {
            true => Square::Normal,
            false => Square::Gram,
        });
        // Whoever has as many rows is told before they are laid out.
        let (what, size) = match square {
            Square::Gram => ("the Gram matrix of all rows", m.saturating_mul(m)),
            Square::Normal => {
                let k = p + usize::from(of.residuals().is_some());
                let parts = m.div_ceil(crate::graph::sample_space::TERMS);
                let parts = parts.saturating_mul(k).saturating_mul(k);
                ("the rows of all parameters", parts.max(m.saturating_mul(k)))
            }
        };
        self.gpu.check_binding(what.to_owned(), size)?;
        let mut wanted = vec![program.loss];
        match of.residuals() {
            Some(residuals) => wanted.push(residuals),
            None => wanted.extend(gradient(graph, program.loss, parameters)?),
        }
        let matrix = match square {
            Square::Gram => of.gram(graph)?,
            Square::Normal => of.normal(graph)?,
        };
        wanted.push(matrix);
        let mut directions = Vec::with_capacity(parameters.len());
        for &parameter in parameters {
            let shape = graph.shape(parameter).clone();
            directions.push(graph.direction(&shape));
        }
        wanted.push(of.image(graph, &directions)?);
        if request.second {
            let residuals = of.residuals().ok_or_else(without_residuals)?;
            let along: Vec<_> = parameters.iter().copied().zip(directions.clone()).collect();
            let zero = graph.constant(0.0, &[m]);
            let mut second = residuals;
            for _ in 0..2 {
                second = linearize(graph, &[second], &along)?[0].unwrap_or(zero);
            }
            wanted.push(second);
        }
        let coefficients = graph.direction(&[m]);
        wanted.extend(of.combination(graph, coefficients)?);
        let elements = graph.shape(matrix).iter().product();
        let asked = Request {
            points: vec![coefficients],
            ..Request::of(&wanted, &directions)
        };
        let signs = probe.filter(|_| request.kind == RowKind::Probe);
        Ok(Sampled {
            plan: Plan::new(&self.target, program.traced.graph, asked)?,
            square,
            count: m,
            elements,
            has_residuals: of.residuals().is_some(),
            has_second: request.second,
            directions,
            coefficients,
            signs: signs.map(|probe| probe.signs),
        })
    }

    /// Binds such a program.
    pub(super) fn bind_sampled(
        &mut self,
        sampled: &Sampled,
        (theta, inputs, loaded): (&Vector, &Inputs, &Loaded),
    ) -> Result<SampleSystem> {
        let (gpu, plan, m) = (self.gpu.clone(), &sampled.plan, sampled.count);
        let new = |label: &str| Vector::new(&gpu, label, &self.layout);
        let value = gpu.buffer("loss", 1)?;
        let mut results = vec![value.clone()];
        let (mut residuals, mut gradient) = (None, None);
        if sampled.has_residuals {
            let slice = gpu.buffer("residuals", m)?;
            results.push(slice.clone());
            residuals = Some(slice);
        } else {
            let vector = new("gradient")?;
            results.extend_from_slice(vector.parts());
            gradient = Some(vector);
        }
        let matrix = gpu.buffer("square of the rows", sampled.elements)?;
        let image = gpu.buffer("products with the rows", m)?;
        results.extend([matrix.clone(), image.clone()]);
        let mut second = None;
        if sampled.has_second {
            let slice = gpu.buffer("second derivatives of residuals", m)?;
            results.push(slice.clone());
            second = Some(slice);
        }
        let (direction, combination) = (new("direction")?, new("combination of rows")?);
        results.extend_from_slice(combination.parts());
        let coefficients = gpu.buffer("coefficients of rows", m)?;
        let mut leaves = self.leaves(plan.graph(), theta, inputs)?;
        leaves.directions = pairs(&sampled.directions, direction.parts());
        leaves.points = vec![(sampled.coefficients, coefficients.clone())];
        let mut signs = None;
        if let Some(leaf) = sampled.signs {
            let shape = plan.graph().shape(leaf).clone();
            let layout = Arc::new(Layout::new(&[("signs".into(), shape)])?);
            let block = Block::new(&gpu, "signs", &layout, 1)?;
            let drawn = block.vectors()[0].parts()[0].clone();
            leaves.points.push((leaf, drawn));
            signs = Some((block, gpu.buffer("seed of signs", 4)?));
        }
        let executable = plan.bind(&gpu, &mut self.arena, &leaves, &results, &[])?;
        let mut linearize = Work::new();
        if let Some((block, settings)) = &signs {
            sketch(&gpu, linearize.tail(), block, 0, settings, Sketch::Signs)?;
        }
        linearize.append(executable.linearize);
        let listing: &Listing = plan.listing();
        let elements = sampled.elements + 4 * m + 3 * self.layout.len();
        let system = SampleSystem {
            value,
            residuals,
            gradient,
            matrix,
            square: sampled.square,
            count: m,
            l2: self.l2,
            direction,
            image,
            second,
            coefficients,
            combination,
            linearize,
            multiply: executable.product.into(),
            combine: executable.change.into(),
            settings: signs.as_ref().map(|(_, settings)| settings.clone()),
            signs: signs.map(|(block, _)| block),
            cost: Cost {
                gradient: self.gradient_flops(loaded.rows)?,
                run: listing.flops(LINEARIZE),
                product: listing.flops(PRODUCT),
                block: 0,
                bytes: listing.kept + 4 * elements as u64,
            },
            combine_flops: listing.flops(CHANGE),
            loaded: *loaded,
        };
        system.seed(&gpu, 0, 0)?;
        Ok(system)
    }
}
