//! Programs with Kronecker factors.

use std::sync::Arc;

use super::GraphObjective;
use super::inputs::Inputs;
use super::program::{Program, check_cut};
use crate::error::Result;
use crate::graph::derivatives::gradient;
use crate::graph::kronecker::{
    Curvature, Layer, LayerFactors, corrected_eigenvalues, factors, sampled_diagonals,
};
use crate::graph::listing::Listing;
use crate::graph::per_example::{Cotangents, ExampleRows, known_rows};
use crate::graph::phase::CHANGE;
use crate::graph::plan::Request;
use crate::graph::preconditioned::{curvature_along, function_leaves, preconditioned};
use crate::graph::{Binary, DType, Graph, NodeId, Plan, Unary};
use crate::nn::Probe;
use crate::objective::kronecker::without_root;
use crate::objective::{
    Cost, Estimate, Kronecker, KroneckerRequest, KroneckerStructure, Loaded, Structure,
};
use crate::vector::{Block, Layout, Vector};

/// A batch's program with the factors of all layers.
struct Factored {
    program: Program,
    layers: Vec<LayerFactors>,
    /// Leaves of functions of the factors: for each layer, and each of its sides, its tensors.
    inverses: Vec<Vec<Vec<NodeId>>>,
    signs: NodeId,
    /// The sum of the weights, once more.
    total: NodeId,
}

/// The plan of such a program.
#[derive(Debug)]
pub(super) struct Layers {
    plan: Plan,
    structure: Arc<KroneckerStructure>,
    /// Leaves: inverses, the direction, signs, the total weight.
    inverses: Vec<NodeId>,
    directions: Vec<NodeId>,
    signs: NodeId,
    total: NodeId,
}

impl GraphObjective {
    /// The plan for so many rows, made where it is not there.
    pub(super) fn layers(&mut self, rows: usize, request: KroneckerRequest) -> Result<Arc<Layers>> {
        if let Some(known) = self.layer_plans.get([rows, 1], request) {
            return Ok(known);
        }
        let layers = self.plan_layers(rows, request)?;
        let bytes = layers.plan.host_bytes();
        Ok(self.layer_plans.keep([rows, 1], request, bytes, layers))
    }

    /// A batch's program with the factors of all layers. The sum of the weights is a leaf of its own, given with the signs, so that the
    /// factors belong to the phase of these and no other.
    fn factored(&self, rows: usize, request: KroneckerRequest) -> Result<Factored> {
        let (mut traced, probe) = self.model.trace_with_probe(rows)?;
        let probe = probe.ok_or_else(without_root)?;
        let weights = traced.graph.input("weights", &[rows], DType::F32)?;
        let mut program = self.weighted(traced, weights)?;
        let (losses, outputs) = (program.traced.losses, program.traced.outputs);
        let (graph, parameters) = (&mut program.traced.graph, &program.parameters);
        check_cut(graph, losses, outputs, parameters)?;
        let total = graph.direction(&[1]);
        let scale = normalized(graph, weights, total)?;
        let curvatures = curvatures(
            graph,
            (losses, outputs),
            probe,
            request.estimate,
            (parameters, scale),
        )?;
        let mut layers = factors(graph, &curvatures, parameters, scale, request.sizes)?;
        let alone: Vec<Layer> = layers.iter().map(|factors| factors.layer).collect();
        let inverses = function_leaves(graph, &alone);
        for (factors, functions) in layers.iter_mut().zip(&inverses) {
            let layer = factors.layer;
            if let (Some(_), Curvature::Rows(rows), [left, right, _]) =
                (layer.corrected, &curvatures[layer.weight], &functions[..])
            {
                let basis = [left[0], right[0]];
                let values = corrected_eigenvalues(graph, (factors, rows), basis, scale)?;
                factors.tensors.push(vec![values]);
            }
        }
        Ok(Factored {
            program,
            layers,
            inverses,
            signs: probe.signs,
            total,
        })
    }

    /// In phase 0 loss, gradient and direction; for each direction the curvature along it; for each draw of signs the factors.
    fn plan_layers(&self, rows: usize, request: KroneckerRequest) -> Result<Layers> {
        let Factored {
            mut program,
            layers,
            inverses,
            signs,
            total,
        } = self.factored(rows, request)?;
        let (parameters, outputs) = (&program.parameters, program.traced.outputs);
        let graph = &mut program.traced.graph;
        let gradients = gradient(graph, program.loss, parameters)?;
        let structure = Arc::new(structure(graph, &layers)?);
        let results = preconditioned(graph, &structure.layers, &gradients, &inverses)?;
        let mut tangents = Vec::new();
        for &parameter in parameters {
            let shape = graph.shape(parameter).clone();
            tangents.push((parameter, graph.direction(&shape)));
        }
        let directions: Vec<NodeId> = tangents.iter().map(|&(_, leaf)| leaf).collect();
        let curvature = curvature_along(graph, program.data_loss, outputs, &tangents)?;
        let curvature = with_l2(graph, curvature, &directions, self.l2)?;
        let mut wanted = vec![program.loss];
        wanted.extend(gradients);
        wanted.extend(results);
        wanted.push(curvature);
        wanted.extend(layers.iter().flat_map(LayerFactors::nodes));
        let asked = Request {
            points: vec![signs, total],
            ..Request::of(&wanted, &directions)
        };
        Ok(Layers {
            plan: Plan::new(&self.target, program.traced.graph, asked)?,
            structure,
            inverses: inverses.into_iter().flatten().flatten().collect(),
            directions,
            signs,
            total,
        })
    }

    /// Which factors there are, whatever the number of rows.
    pub(super) fn layer_structure(&self, request: KroneckerRequest) -> Result<KroneckerStructure> {
        let Factored {
            program, layers, ..
        } = self.factored(2, request)?;
        structure(&program.traced.graph, &layers)
    }

    /// Binds such a program.
    pub(super) fn bind_layers(
        &mut self,
        layers: &Layers,
        ([theta, inverses], inputs, loaded): ([&Vector; 2], &Inputs, &Loaded),
    ) -> Result<Kronecker> {
        let plan = &layers.plan;
        let gpu = self.gpu.clone();
        let new = |label: &str| Vector::new(&gpu, label, &self.layout);
        let value = gpu.buffer("loss", 1)?;
        let (gradient, direction) = (new("gradient")?, new("preconditioned gradient")?);
        let factors = Vector::new(&gpu, "Kronecker factors", &layers.structure.factors)?;
        let curvature = gpu.buffer("curvature along a direction", 1)?;
        let shape = plan.graph().shape(layers.signs).clone();
        let layout = Arc::new(Layout::new(&[("signs".into(), shape)])?);
        let signs = Block::new(&gpu, "signs", &layout, 1)?;
        let mut leaves = self.leaves(plan.graph(), theta, inputs)?;
        let given = layers.inverses.iter().zip(inverses.parts());
        let along = layers.directions.iter().zip(direction.parts());
        leaves.directions = given.chain(along).map(|(&n, s)| (n, s.clone())).collect();
        let drawn = signs.vectors()[0].parts()[0].clone();
        leaves.points = vec![(layers.signs, drawn), (layers.total, inputs.total.clone())];
        let mut results = vec![value.clone()];
        for vector in [&gradient, &direction] {
            results.extend_from_slice(vector.parts());
        }
        results.push(curvature.clone());
        results.extend_from_slice(factors.parts());
        let executable = plan.bind(&gpu, &mut self.arena, &leaves, &results, &[])?;
        let elements = 2 * self.layout.len() + layers.structure.factors.len() + layout.len();
        let listing: &Listing = plan.listing();
        Ok(Kronecker {
            value,
            gradient,
            direction,
            curvature,
            signs,
            factors,
            linearize: executable.linearize.into(),
            refresh: executable.change.into(),
            measure: executable.product.into(),
            cost: Cost::of(listing, 1 + self.layout.entries().len(), elements),
            refresh_flops: listing.flops(CHANGE),
            loaded: *loaded,
        })
    }
}

/// What factors are made of: rows of the examples, and a sampled diagonal for parameters that have none.
fn curvatures(
    graph: &mut Graph,
    (losses, outputs): (NodeId, NodeId),
    Probe { signs, root, .. }: Probe,
    estimate: Estimate,
    (parameters, scale): (&[NodeId], NodeId),
) -> Result<Vec<Curvature>> {
    let cotangents = match estimate {
        Estimate::Mixture => Cotangents::One {
            outputs,
            cotangent: root,
        },
        Estimate::Exact => Cotangents::Root {
            outputs,
            root,
            signs,
        },
        Estimate::Empirical => Cotangents::Losses(losses),
    };
    let rows = known_rows(graph, cotangents, parameters)?;
    let without = rows
        .iter()
        .zip(parameters)
        .filter(|(rows, _)| rows.is_none());
    let without: Vec<NodeId> = without.map(|(_, &parameter)| parameter).collect();
    let mut diagonals = match without.is_empty() {
        true => Vec::new(),
        false => sampled_diagonals(graph, (outputs, root), &without, scale)?,
    }
    .into_iter();
    let known = |rows: Option<ExampleRows>| match rows {
        Some(rows) => Some(Curvature::Rows(rows)),
        None => diagonals.next().map(Curvature::Diagonal),
    };
    Ok(rows.into_iter().filter_map(known).collect())
}

/// Weights that add up to 1.
pub(super) fn normalized(graph: &mut Graph, weights: NodeId, total: NodeId) -> Result<NodeId> {
    let shape = graph.shape(weights).clone();
    let inverse = graph.unary(Unary::Reciprocal, total)?;
    let inverse = graph.broadcast(inverse, &shape)?;
    graph.binary(Binary::Mul, weights, inverse)
}

/// Adds `l2 |d|^2`.
fn with_l2(graph: &mut Graph, curvature: NodeId, d: &[NodeId], l2: f32) -> Result<NodeId> {
    let mut sum = curvature;
    for &d in d.iter().filter(|_| l2 > 0.0) {
        let square = graph.binary(Binary::Mul, d, d)?;
        let axes: Vec<usize> = (0..graph.shape(square).len()).collect();
        let square = graph.sum(square, &axes)?;
        let square = graph.reshape(square, &[1])?;
        let factor = graph.constant(l2, &[1]);
        let term = graph.binary(Binary::Mul, factor, square)?;
        sum = graph.binary(Binary::Add, sum, term)?;
    }
    Ok(sum)
}

pub(super) fn structure(graph: &Graph, layers: &[LayerFactors]) -> Result<KroneckerStructure> {
    let name = |parameter: usize| &graph.parameters()[parameter].name;
    let layers: Vec<Layer> = layers.iter().map(|factors| factors.layer).collect();
    let (mut factors, mut functions) = (Vec::new(), Vec::new());
    for layer in &layers {
        let parts: &[&str] = match (layer.structure, layer.left) {
            (Structure::Diagonal, _) => &["diagonal"],
            (Structure::Kronecker, None) => &["columns"],
            (Structure::Kronecker, Some(_)) => &["rows", "columns", "eigenvalues"],
        };
        for (side, part) in layer.sides().zip(parts) {
            let what = format!("{} {part}", name(layer.weight));
            for (number, shape) in side.shapes().into_iter().enumerate() {
                let part = if number == 0 { "" } else { " trace" };
                factors.push((format!("{what}{part}"), shape));
            }
            for (number, shape) in side.function_shapes().into_iter().enumerate() {
                let part = if number == 0 { "" } else { " numbers" };
                functions.push((format!("{what}{part}"), shape));
            }
        }
    }
    Ok(KroneckerStructure {
        layers,
        factors: Arc::new(Layout::new(&factors)?),
        functions: Arc::new(Layout::new(&functions)?),
    })
}
