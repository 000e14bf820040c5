//! Programs of quantities of examples.

use std::sync::Arc;

use super::GraphObjective;
use super::inputs::Inputs;
use super::layers::{normalized, structure};
use super::program::{Program, TOTAL, check_cut, pairs};
use crate::error::Result;
use crate::gpu::{Slice, Work};
use crate::graph::kronecker::{Curvature, LayerFactors, Sizes, factors};
use crate::graph::node::elements;
use crate::graph::per_example::{
    ExampleRows, gradient_rows, mixture_rows, root_rows, root_rows_by, variance,
};
use crate::graph::phase::{LINEARIZE, PRODUCT};
use crate::graph::plan::Request;
use crate::graph::{Binary, DType, Graph, NodeId, Plan, Unary};
use crate::kernels::blocks::{Sketch, sketch};
use crate::nn::Probe;
use crate::objective::kronecker::without_root;
use crate::objective::statistics::{RootProduct, Source, nothing_asked};
use crate::objective::{BatchStatistics, Cost, Loaded, Quantity, StatisticsRequest};
use crate::vector::{Block, Layout, Vector};

/// All factors are matrices.
const SIZES: Sizes = Sizes::up_to(usize::MAX, 0);

/// The plan of such a program.
#[derive(Debug)]
pub(super) struct Measured {
    plan: Plan,
    /// Quantities in the order of the results, behind the loss, with the tensors of each.
    quantities: Vec<(Quantity, Arc<Layout>)>,
    /// Leaves: signs of mixtures, and coefficients of products with the root.
    signs: Option<NodeId>,
    coefficients: Option<NodeId>,
}

/// What quantities are made of.
struct Sources {
    parameters: Vec<NodeId>,
    /// `w`, `w w`, `sqrt w` and `p`, `[rows]`.
    weights: NodeId,
    squared: NodeId,
    root: NodeId,
    shares: NodeId,
    /// Rows of each parameter, by [`Source`], where something is made of them.
    rows: [Vec<ExampleRows>; 3],
}

/// Tensors of a quantity with their names.
type Named = Vec<(String, NodeId)>;

impl GraphObjective {
    /// The plan for so many rows, made where it is not there.
    pub(super) fn measured(
        &mut self,
        rows: usize,
        request: StatisticsRequest,
    ) -> Result<Arc<Measured>> {
        if let Some(known) = self.statistics_plans.get([rows, 1], request) {
            return Ok(known);
        }
        let measured = self.plan_measured(rows, request)?;
        let bytes = measured.plan.host_bytes();
        let plans = &mut self.statistics_plans;
        Ok(plans.keep([rows, 1], request, bytes, measured))
    }

    /// The loss and all quantities in phase 0; for each list of coefficients the product with the root.
    fn plan_measured(&self, rows: usize, request: StatisticsRequest) -> Result<Measured> {
        if request.quantities().next().is_none() {
            return Err(nothing_asked());
        }
        let curved = request.has(Source::Root) || request.has(Source::Mixture);
        let (mut traced, probe) = match curved {
            true => self.model.trace_with_probe(rows)?,
            false => (self.model.trace(rows)?, None),
        };
        let weights = traced.graph.input("weights", &[rows], DType::F32)?;
        let mut program = self.weighted(traced, weights)?;
        let (losses, outputs) = (program.traced.losses, program.traced.outputs);
        let probe = match (curved, probe) {
            (true, None) => return Err(without_root()),
            (true, probe) => {
                check_cut(&program.traced.graph, losses, outputs, &program.parameters)?;
                probe
            }
            _ => None,
        };
        if let (Some(probe), true) = (probe, request.has(Source::Root)) {
            // Whoever has as many outputs is told before their cotangents are laid out.
            let outputs = elements(program.traced.graph.shape(probe.signs));
            let what = "cotangents of all columns of the root".to_owned();
            let all = outputs.saturating_mul(outputs.div_ceil(rows));
            self.gpu.check_binding(what, all)?;
        }
        let sources = sources(&mut program, probe, request)?;
        let graph = &mut program.traced.graph;
        let (mut wanted, mut quantities) = (vec![program.data_loss], Vec::new());
        for quantity in request.quantities() {
            let (named, layout) = sources.measure(graph, quantity)?;
            self.check_tensors(quantity, &layout)?;
            wanted.extend(named.iter().map(|&(_, node)| node));
            quantities.push((quantity, layout));
        }
        let mut coefficients = None;
        if let (Some(probe), true) = (probe, asks_for_gram(request)) {
            let shape = graph.shape(probe.signs).clone();
            let leaf = graph.direction(&shape);
            let root = (outputs, probe.root, probe.signs);
            let rows = root_rows_by(graph, root, leaf, &sources.parameters)?;
            for rows in rows {
                wanted.push(rows.scaled(graph, sources.root)?.sum(graph)?);
            }
            coefficients = Some(leaf);
        }
        let directions: Vec<NodeId> = coefficients.into_iter().collect();
        let asked = Request::of(&wanted, &directions);
        let signs = probe.filter(|_| request.has(Source::Mixture));
        Ok(Measured {
            plan: Plan::new(&self.target, program.traced.graph, asked)?,
            quantities,
            signs: signs.map(|probe| probe.signs),
            coefficients,
        })
    }

    /// Kernels bind the tensors of quantities whole.
    fn check_tensors(&self, quantity: Quantity, layout: &Layout) -> Result<()> {
        layout.entries().iter().try_for_each(|entry| {
            let what = format!("'{}' of {}", entry.name, quantity.name());
            self.gpu.check_binding(what, entry.elements())
        })
    }

    /// Binds such a program.
    pub(super) fn bind_measured(
        &mut self,
        measured: &Measured,
        (theta, inputs, loaded): (&Vector, &Inputs, &Loaded),
    ) -> Result<BatchStatistics> {
        let (gpu, plan) = (self.gpu.clone(), &measured.plan);
        let value = gpu.buffer("loss", 1)?;
        let mut slices = vec![value.clone()];
        let mut results = Vec::with_capacity(measured.quantities.len());
        for (quantity, layout) in &measured.quantities {
            let vector = Vector::new(&gpu, quantity.name(), layout)?;
            slices.extend_from_slice(vector.parts());
            results.push((*quantity, vector));
        }
        let mut leaves = self.leaves(plan.graph(), theta, inputs)?;
        let like = |leaf: NodeId| -> Result<Arc<Layout>> {
            let shape = plan.graph().shape(leaf).clone();
            Ok(Arc::new(Layout::new(&[("signs".into(), shape)])?))
        };
        let mut signs = None;
        if let Some(leaf) = measured.signs {
            let block = Block::new(&gpu, "signs", &like(leaf)?, 1)?;
            leaves.points = pairs(&[leaf], block.vectors()[0].parts());
            signs = Some((block, gpu.buffer("seed of signs", 4)?));
        }
        let mut root = None;
        if let Some(leaf) = measured.coefficients {
            let coefficients = gpu.buffer("coefficients", like(leaf)?.parameters())?;
            let sum = Vector::new(&gpu, "product with the root", &self.layout)?;
            slices.extend_from_slice(sum.parts());
            leaves.directions = vec![(leaf, coefficients.clone())];
            root = Some((coefficients, sum));
        }
        let executable = plan.bind(&gpu, &mut self.arena, &leaves, &slices, &[])?;
        let mut run = Work::new();
        if let Some((block, settings)) = &signs {
            sketch(&gpu, run.tail(), block, 0, settings, Sketch::Signs)?;
        }
        run.append(executable.linearize);
        let elements: usize = slices.iter().map(Slice::len).sum();
        let statistics = BatchStatistics {
            value,
            results,
            run,
            settings: signs.as_ref().map(|(_, settings)| settings.clone()),
            signs: signs.map(|(block, _)| block),
            cost: Cost {
                gradient: self.gradient_flops(loaded.rows)?,
                run: plan.listing().flops(LINEARIZE),
                product: plan.listing().flops(PRODUCT),
                block: 0,
                bytes: plan.listing().kept + 4 * elements as u64,
            },
            root: root.map(|(coefficients, sum)| RootProduct {
                columns: coefficients.len() / loaded.rows,
                coefficients,
                sum,
                multiply: executable.product.into(),
            }),
            loaded: *loaded,
        };
        statistics.seed(&gpu, 0, 0)?;
        Ok(statistics)
    }
}

fn asks_for_gram(request: StatisticsRequest) -> bool {
    request
        .quantities()
        .any(|quantity| quantity == Quantity::GaussNewtonGram)
}

fn sources(
    program: &mut Program,
    probe: Option<Probe>,
    request: StatisticsRequest,
) -> Result<Sources> {
    let (losses, outputs, weights) = (
        program.traced.losses,
        program.traced.outputs,
        program.weights,
    );
    let (graph, parameters) = (&mut program.traced.graph, &program.parameters);
    let mut rows = [const { Vec::new() }; 3];
    if request.has(Source::Gradients) {
        rows[Source::Gradients as usize] = gradient_rows(graph, losses, parameters)?;
    }
    if let Some(Probe { signs, root, .. }) = probe {
        if request.has(Source::Root) {
            let root = (outputs, root, signs);
            rows[Source::Root as usize] = root_rows(graph, root, parameters)?;
        }
        if request.has(Source::Mixture) {
            rows[Source::Mixture as usize] = mixture_rows(graph, (outputs, root), parameters)?;
        }
    }
    let total = graph.input(TOTAL, &[1], DType::F32)?;
    Ok(Sources {
        parameters: parameters.clone(),
        weights,
        squared: graph.binary(Binary::Mul, weights, weights)?,
        root: graph.unary(Unary::Sqrt, weights)?,
        shares: normalized(graph, weights, total)?,
        rows,
    })
}

impl Sources {
    /// The tensors of a quantity, and their layout.
    fn measure(&self, graph: &mut Graph, quantity: Quantity) -> Result<(Named, Arc<Layout>)> {
        let rows = &self.rows[quantity.source() as usize];
        let mut named = Named::new();
        for (index, own) in rows.iter().enumerate() {
            let name = graph.parameters()[index].name.clone();
            match self.of_parameter(graph, quantity, own)? {
                Some(node) => named.push((name, node)),
                None => return self.of_all(graph, quantity, rows),
            }
        }
        let layout = layout(graph, &named)?;
        Ok((named, layout))
    }

    /// A quantity that belongs to several parameters.
    fn of_all(
        &self,
        graph: &mut Graph,
        quantity: Quantity,
        rows: &[ExampleRows],
    ) -> Result<(Named, Arc<Layout>)> {
        if quantity == Quantity::GaussNewtonGram {
            let named = vec![("gram".into(), self.gram(graph, rows)?)];
            let layout = layout(graph, &named)?;
            return Ok((named, layout));
        }
        let curvatures = Curvature::of_rows(rows);
        let layers = factors(graph, &curvatures, &self.parameters, self.shares, SIZES)?;
        let nodes = layers.iter().flat_map(LayerFactors::nodes).copied();
        let layout = structure(graph, &layers)?.factors;
        let names = layout.entries().iter().map(|entry| entry.name.clone());
        Ok((names.zip(nodes).collect(), layout))
    }

    /// A quantity of one parameter; none where it belongs to several.
    fn of_parameter(
        &self,
        graph: &mut Graph,
        quantity: Quantity,
        rows: &ExampleRows,
    ) -> Result<Option<NodeId>> {
        let w = self.weights;
        Ok(Some(match quantity {
            Quantity::Gradient => rows.scaled(graph, w)?.sum(graph)?,
            Quantity::PerExampleGradients => {
                let rows = rows.scaled(graph, w)?.formed(graph)?;
                without_column(graph, rows)?
            }
            Quantity::SquaredNorms => {
                let squares = rows.squared(graph, self.squared)?;
                let norms = squares.sum_over_elements(graph)?;
                without_column(graph, norms)?
            }
            Quantity::InnerProducts => rows.scaled(graph, w)?.inner_products(graph)?,
            Quantity::SquareSum => rows.squared(graph, self.squared)?.sum(graph)?,
            Quantity::SecondMoment => rows.squared(graph, self.shares)?.sum(graph)?,
            Quantity::Variance => variance(graph, rows, self.shares)?,
            Quantity::GaussNewtonDiagonal | Quantity::SampledGaussNewtonDiagonal => {
                rows.squared(graph, w)?.sum(graph)?
            }
            Quantity::PerExampleGaussNewtonDiagonals
            | Quantity::SampledPerExampleGaussNewtonDiagonals => {
                let squares = rows.squared(graph, w)?.sum_over_columns(graph)?;
                let formed = squares.formed(graph)?;
                without_column(graph, formed)?
            }
            Quantity::GaussNewtonRoot | Quantity::SampledGaussNewtonRoot => {
                rows.scaled(graph, self.root)?.formed(graph)?
            }
            Quantity::GaussNewtonGram
            | Quantity::KroneckerFactors
            | Quantity::SampledKroneckerFactors
            | Quantity::EmpiricalKroneckerFactors => return Ok(None),
        }))
    }

    /// The sum of the parameters' inner products.
    fn gram(&self, graph: &mut Graph, rows: &[ExampleRows]) -> Result<NodeId> {
        let mut sum: Option<NodeId> = None;
        for rows in rows {
            let own = rows.scaled(graph, self.root)?.inner_products(graph)?;
            sum = Some(match sum {
                None => own,
                Some(sum) => graph.binary(Binary::Add, sum, own)?,
            });
        }
        sum.ok_or_else(nothing_asked)
    }
}

/// Names and shapes; a number is a tensor of one element.
fn layout(graph: &Graph, named: &Named) -> Result<Arc<Layout>> {
    let shapes = named.iter().map(|(name, node)| {
        let shape = graph.shape(*node).clone();
        (name.clone(), if shape.is_empty() { vec![1] } else { shape })
    });
    Ok(Arc::new(Layout::new(&shapes.collect::<Vec<_>>())?))
}

/// Without the axis of the only column.
fn without_column(graph: &mut Graph, node: NodeId) -> Result<NodeId> {
    let shape = graph.shape(node)[1..].to_vec();
    graph.reshape(node, &shape)
}
