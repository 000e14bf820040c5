//! The objective of a model written as a graph.

mod groups;
mod inputs;
mod locate;

use std::collections::HashMap;
use std::ops::Range;
use std::sync::Arc;

use inputs::Inputs;

use super::quadratic::{
    BlockProduct, Curvature, GroupRequest, GroupedQuadratic, LossProgram, Objective, Quadratic,
    QuadraticRequest,
};
use crate::data::{Batch, Dataset};
use crate::error::{Error, Result};
use crate::gpu::{Gpu, Recording, Slice};
use crate::graph::batch::{WIDE, batched};
use crate::graph::derivatives::{cut, gauss_newton_product, gradient, hessian_product};
use crate::graph::executable::{BlockPart, BlockTargets, DeviceLeaves, Planned, Wanted};
use crate::graph::listing::Listing;
use crate::graph::locate::Located;
use crate::graph::node::{Leaf, elements};
use crate::graph::per_example::square_sums;
use crate::graph::{Binary, DType, Executable, Graph, NodeId};
use crate::nn::{Model, Traced};
use crate::vector::{Block, Entry, Layout, Vector};

/// Bytes that intermediate values may take before a block of products is computed in parts; see [`GraphObjective::with_block_memory`].
const BLOCK_MEMORY: u64 = 512 << 20;

/// Rows of the batches in which a whole data set is evaluated.
const EVALUATION_ROWS: usize = 1000;

/// A program for one vector of parameters and number of rows.
struct Kept<Request, Program> {
    theta: Vector,
    rows: usize,
    request: Request,
    program: Arc<Program>,
}

/// Mean loss and figure of merit over a data set.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Evaluation {
    /// Mean loss, without the `l2` term.
    pub loss: f64,
    /// Mean of the model's metric, if it has one.
    pub metric: Option<f64>,
}

/// The loss of a [`Model`] on a batch with all its derivatives on the device:
///
/// ```text
/// L(theta) = sum_n w_n loss_n(theta) + l2/2 |theta|^2
/// ```
///
/// with the weights `w_n >= 0` of the batch as they are. Those of a batch drawn from a data set are `1/n`, so that this is the mean; weights of 1 give the sum, beside
/// which the same `l2` is less. Parts and groups of a batch stand for the whole of it: their weights are scaled to the sum of the batch's, so that their losses,
/// gradients and curvatures are estimates of the batch's, each with the whole `l2` term.
///
/// Programs are compiled on first use for each number of rows and kept. Batches may have weights; rows of weight 0 do not count, so a short last
/// batch can be padded ([`Batch::pad_to`]) instead of compiling again.
pub struct GraphObjective {
    gpu: Gpu,
    model: Model,
    layout: Arc<Layout>,
    l2: f32,
    block_memory: u64,
    /// By rows.
    inputs: HashMap<usize, Arc<Inputs>>,
    quadratics: Vec<Kept<QuadraticRequest, Quadratic>>,
    grouped: Vec<Kept<GroupRequest, GroupedQuadratic>>,
    losses: Vec<Kept<(), LossProgram>>,
    evaluations: Vec<Kept<(), Evaluator>>,
}

/// Loss and metric of a batch.
struct Evaluator {
    loss: Slice,
    metric: Option<Slice>,
    run: Recording,
}

impl std::fmt::Debug for GraphObjective {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("GraphObjective")
            .field("model", &self.model)
            .field("layout", &self.layout)
            .finish_non_exhaustive()
    }
}

/// The derivatives of a program, one node per parameter; without curvature no directions and no products.
struct Derivatives {
    gradients: Vec<NodeId>,
    directions: Vec<NodeId>,
    products: Vec<NodeId>,
}

/// The curvature products of a program.
struct Products<'a> {
    graph: &'a Graph,
    directions: &'a [NodeId],
    products: &'a [NodeId],
}

/// A model written out for a number of rows, with its weighted loss.
struct Program {
    traced: Traced,
    parameters: Vec<NodeId>,
    /// Of the examples' losses, `[rows]`.
    weights: NodeId,
    /// Weighted sum of the examples' losses, `[1]`.
    data_loss: NodeId,
    /// That plus the `l2` term.
    loss: NodeId,
}

/// Name of the input that holds the sum of a batch's weights.
const TOTAL: &str = "total weight";

impl GraphObjective {
    /// The objective of a model on a device.
    ///
    /// # Errors
    /// Mistakes in the model ([`Error::Shape`]).
    pub fn new(gpu: &Gpu, model: Model) -> Result<Self> {
        let traced = model.trace(1)?;
        let graph = &traced.graph;
        let tensors: Vec<(String, Vec<usize>)> = graph
            .parameters()
            .iter()
            .map(|p| (p.name.clone(), graph.shape(p.node).clone()))
            .collect();
        let layout = Arc::new(Layout::new(&tensors)?);
        Ok(Self {
            gpu: gpu.clone(),
            model,
            layout,
            l2: 0.0,
            block_memory: BLOCK_MEMORY,
            inputs: HashMap::new(),
            quadratics: Vec::new(),
            grouped: Vec::new(),
            losses: Vec::new(),
            evaluations: Vec::new(),
        })
    }

    /// Adds `l2/2 |theta|^2` to the loss, and so `l2` to the diagonal of every curvature.
    ///
    /// # Errors
    /// [`Error::Option`] unless finite and not negative.
    pub fn with_l2(mut self, l2: f32) -> Result<Self> {
        if !l2.is_finite() || l2 < 0.0 {
            let message = format!("{l2} is not a regularization strength; give a number from 0 on");
            return Err(Error::Option {
                option: "l2".into(),
                message,
            });
        }
        self.l2 = l2;
        Ok(self)
    }

    /// Sets how many bytes the intermediate values of a program may take before a block of products is computed in parts. Default 512 MiB. A smaller
    /// number changes no result: the bits are the same.
    #[must_use]
    pub fn with_block_memory(mut self, bytes: u64) -> Self {
        self.block_memory = bytes;
        self
    }

    /// Another objective of the same function, with programs and batches of its own.
    ///
    /// # Errors
    /// As [`new`](Self::new).
    pub fn sibling(&self) -> Result<Self> {
        let own = Self::new(&self.gpu, self.model.clone())?;
        Ok(own.with_l2(self.l2)?.with_block_memory(self.block_memory))
    }

    /// The model.
    pub fn model(&self) -> &Model {
        &self.model
    }

    /// A vector of initial parameters. The same seed gives the same numbers on every device.
    ///
    /// # Errors
    /// [`Error::OutOfMemory`], or a bad initialiser.
    pub fn initial_parameters(&self, seed: u64) -> Result<Vector> {
        let traced = self.model.trace(1)?;
        // The vector first: where the device has no place for it, no numbers need be drawn.
        let theta = Vector::new(&self.gpu, "theta", &self.layout)?;
        let tensors: Vec<Vec<f32>> = traced
            .initialisers
            .iter()
            .zip(self.layout.entries())
            .enumerate()
            .map(|(index, (init, entry))| init.values(&entry.shape, seed, index))
            .collect::<Result<_>>()?;
        theta.write(&self.gpu, &tensors)?;
        Ok(theta)
    }

    /// Mean loss and metric over a data set, in batches.
    ///
    /// # Errors
    /// Data that do not fit the model.
    pub fn evaluate(&mut self, theta: &Vector, dataset: &Dataset) -> Result<Evaluation> {
        let rows = EVALUATION_ROWS.min(dataset.len());
        let (mut loss, mut metric) = (0.0, None);
        for start in (0..dataset.len()).step_by(rows) {
            let indices: Vec<usize> = (start..dataset.len().min(start + rows)).collect();
            let share = indices.len() as f64 / dataset.len() as f64;
            let batch = dataset.batch(&indices)?.pad_to(rows)?;
            let inputs = self.load(&batch)?;
            let evaluator = self.evaluator(theta, &inputs, rows)?;
            let slices: Vec<&Slice> = std::iter::once(&evaluator.loss)
                .chain(&evaluator.metric)
                .collect();
            let read = self.gpu.submit_and_read(
                |recorder| {
                    recorder.replay(&evaluator.run);
                    Ok(())
                },
                &slices,
            )?;
            loss += share * f64::from(read[0][0]);
            if let Some(values) = read.get(1) {
                *metric.get_or_insert(0.0) += share * f64::from(values[0]);
            }
        }
        Ok(Evaluation { loss, metric })
    }

    /// The program of a batch of `rows` rows.
    fn trace(&self, rows: usize) -> Result<Program> {
        let mut traced = self.model.trace(rows)?;
        let weights = traced.graph.input("weights", &[rows], DType::F32)?;
        self.weighted(traced, weights)
    }

    /// The loss with these weights of the rows, `[rows]`.
    fn weighted(&self, mut traced: Traced, weights: NodeId) -> Result<Program> {
        self.check_parameters(&traced)?;
        let graph = &mut traced.graph;
        let weighted = graph.binary(Binary::Mul, weights, traced.losses)?;
        let data_loss = graph.sum(weighted, &[0])?;
        let parameters: Vec<NodeId> = graph.parameters().iter().map(|p| p.node).collect();
        let mut loss = data_loss;
        if self.l2 > 0.0 {
            for &parameter in &parameters {
                let square = graph.binary(Binary::Mul, parameter, parameter)?;
                let axes: Vec<usize> = (0..graph.shape(square).len()).collect();
                let sum = graph.sum(square, &axes)?;
                let sum = graph.reshape(sum, &[1])?;
                let half = graph.constant(0.5 * self.l2, &[1]);
                let term = graph.binary(Binary::Mul, half, sum)?;
                loss = graph.binary(Binary::Add, loss, term)?;
            }
        }
        Ok(Program {
            traced,
            parameters,
            weights,
            data_loss,
            loss,
        })
    }

    /// The parameters must not change with the number of rows: there is one vector of them for all.
    fn check_parameters(&self, traced: &Traced) -> Result<()> {
        let graph = &traced.graph;
        let (found, known) = (graph.parameters(), self.layout.entries());
        let same = |(p, e): (&Leaf, &Entry)| p.name == e.name && *graph.shape(p.node) == e.shape;
        if found.len() == known.len() && found.iter().zip(known).all(same) {
            return Ok(());
        }
        let list = |parts: Vec<String>| parts.join(", ");
        let found = found.iter().map(|p| graph.describe(p.node)).collect();
        let known = known.iter().map(|e| format!("'{}' {:?}", e.name, e.shape));
        Err(Error::Shape {
            node: "the model's parameters".into(),
            message: format!(
                "are {} here, but {} for one row; their names and shapes must not depend on Scope::rows",
                list(found),
                list(known.collect())
            ),
        })
    }

    fn leaves(&self, program: &Program, theta: &Vector, inputs: &Inputs) -> Result<DeviceLeaves> {
        if theta.layout() != &self.layout {
            return Err(Error::Shape {
                node: "theta".into(),
                message: "was made for another model; use initial_parameters of this objective"
                    .into(),
            });
        }
        let mut slices = Vec::new();
        let graph = &program.traced.graph;
        for leaf in graph.inputs() {
            let slice = match leaf.name.strip_prefix(WIDE).unwrap_or(&leaf.name) {
                "features" => inputs.features.as_ref(),
                "targets" => inputs.targets.as_ref(),
                TOTAL => Some(&inputs.total),
                _ => Some(&inputs.weights),
            };
            // Inputs that gave way to wide ones are as long as one group.
            if let Some(slice) = slice {
                slices.push(slice.slice(0..elements(graph.shape(leaf.node)))?);
            }
        }
        Ok(DeviceLeaves {
            parameters: theta.parts().to_vec(),
            inputs: slices,
            directions: Vec::new(),
        })
    }

    fn build_quadratic(
        &self,
        theta: &Vector,
        inputs: &Inputs,
        rows: usize,
        request: QuadraticRequest,
    ) -> Result<Quadratic> {
        let mut program = self.trace(rows)?;
        let mut leaves = self.leaves(&program, theta, inputs)?;
        let new = |label: &str| Vector::new(&self.gpu, label, &self.layout);
        let value = self.gpu.buffer("loss", 1)?;
        let (gradient_vector, direction, product) =
            (new("gradient")?, new("direction")?, new("product")?);
        let derivatives = self.differentiate(&mut program, request.curvature)?;
        let Derivatives {
            gradients,
            directions,
            products,
        } = derivatives;
        let mut targets = vec![(program.loss, value.clone())];
        targets.extend(pairs(&gradients, gradient_vector.parts()));
        let fisher_diagonal = if request.fisher_diagonal {
            let graph = &mut program.traced.graph;
            let data_gradients = gradient(graph, program.data_loss, &program.parameters)?;
            let squares = square_sums(graph, &data_gradients, program.weights)?;
            let diagonal = new("empirical Fisher diagonal")?;
            targets.extend(pairs(&squares, diagonal.parts()));
            Some(diagonal)
        } else {
            None
        };
        leaves.directions = pairs(&directions, direction.parts());
        targets.extend(pairs(&products, product.parts()));
        let base = &program.traced.graph;
        let mut quadratic = Quadratic {
            value,
            gradient: gradient_vector,
            direction,
            product,
            fisher_diagonal,
            linearize: Recording::new(),
            multiply: Recording::new(),
            block: None,
            listing: Listing::default(),
            rows,
        };
        let executable = if request.block > 0 && !products.is_empty() {
            let program = Products {
                graph: base,
                directions: &directions,
                products: &products,
            };
            let (executable, block) =
                self.with_block(&program, &leaves, &targets, request.block)?;
            quadratic.block = Some(block);
            executable
        } else {
            Executable::new(&self.gpu, base, &leaves, &targets)?
        };
        quadratic.linearize = executable.linearize;
        quadratic.multiply = executable.product;
        quadratic.listing = executable.listing;
        Ok(quadratic)
    }

    /// Extends a program by its derivatives.
    fn differentiate(&self, program: &mut Program, curvature: Curvature) -> Result<Derivatives> {
        let (losses, outputs) = (program.traced.losses, program.traced.outputs);
        let (graph, parameters) = (&mut program.traced.graph, &program.parameters);
        let gradients = gradient(graph, program.loss, parameters)?;
        let mut directions = Vec::new();
        let mut products = Vec::new();
        if curvature != Curvature::None {
            for &parameter in parameters {
                let shape = graph.shape(parameter).clone();
                directions.push(graph.direction(&shape));
            }
            products = match curvature {
                Curvature::GaussNewton => {
                    check_cut(graph, losses, outputs, parameters)?;
                    let products = gauss_newton_product(
                        graph,
                        program.data_loss,
                        outputs,
                        parameters,
                        &directions,
                    )?;
                    with_l2(graph, products, &directions, self.l2)?
                }
                _ => hessian_product(graph, &gradients, parameters, &directions)?,
            };
        }
        Ok(Derivatives {
            gradients,
            directions,
            products,
        })
    }

    /// Compiles a program that also multiplies blocks of `width` directions: all at once, or in as many parts as it takes to fit.
    fn with_block(
        &self,
        program: &Products<'_>,
        leaves: &DeviceLeaves,
        targets: &[(NodeId, Slice)],
        width: usize,
    ) -> Result<(Executable, BlockProduct)> {
        let gpu = &self.gpu;
        let (nodes, slices): (Vec<Wanted>, Vec<Slice>) = targets
            .iter()
            .map(|(node, slice)| (Wanted::from(*node), slice.clone()))
            .unzip();
        let directions = Block::new(gpu, "directions", &self.layout, width)?;
        let products = Block::new(gpu, "products", &self.layout, width)?;
        let binding = gpu.limits().max_storage_buffer_binding_size;
        let mut at_once = width;
        loop {
            let mut graph = program.graph.clone();
            let (wide_directions, wide_products) =
                batched(&mut graph, program.products, program.directions, at_once)?;
            let parts = (0..width).step_by(at_once).map(|first| {
                // The last part repeats rows of the one before rather than be of another width.
                let first = first.min(width - at_once);
                Ok(BlockPart {
                    directions: directions.tensors(first, at_once)?,
                    targets: products.tensors(first, at_once)?,
                })
            });
            let block = BlockTargets {
                pitch: self.layout.len(),
                directions: wide_directions,
                targets: wide_products,
                parts: parts.collect::<Result<_>>()?,
            };
            let planned = Planned::new(gpu, &graph, program.directions, &nodes, Some(&block))?;
            let span = (at_once * self.layout.len()) as u64 * 4;
            let fits = planned.bytes() <= self.block_memory
                && planned.largest_buffer() <= binding
                && span <= binding;
            if fits || at_once == 1 {
                let mut executable = planned.record(gpu, leaves, &slices, Some(&block))?;
                let block = BlockProduct {
                    directions,
                    products,
                    multiply: std::mem::take(&mut executable.block),
                    width: at_once,
                };
                return Ok((executable, block));
            }
            at_once = at_once.div_ceil(2);
        }
    }

    fn evaluator(
        &mut self,
        theta: &Vector,
        inputs: &Inputs,
        rows: usize,
    ) -> Result<Arc<Evaluator>> {
        if let Some(kept) = find(&self.evaluations, theta, rows, &()) {
            return Ok(kept);
        }
        let mut program = self.trace(rows)?;
        let leaves = self.leaves(&program, theta, inputs)?;
        let loss = self.gpu.buffer("loss", 1)?;
        let mut targets = vec![(program.data_loss, loss.clone())];
        let metric = match program.traced.metric {
            None => None,
            Some(metric) => {
                let graph = &mut program.traced.graph;
                let weighted = graph.binary(Binary::Mul, program.weights, metric)?;
                let mean = graph.sum(weighted, &[0])?;
                let slice = self.gpu.buffer("metric", 1)?;
                targets.push((mean, slice.clone()));
                Some(slice)
            }
        };
        let executable = Executable::new(&self.gpu, &program.traced.graph, &leaves, &targets)?;
        let program = Arc::new(Evaluator {
            loss,
            metric,
            run: executable.linearize,
        });
        self.evaluations.push(Kept {
            theta: theta.clone(),
            rows,
            request: (),
            program: Arc::clone(&program),
        });
        Ok(program)
    }
}

fn pairs(nodes: &[NodeId], slices: &[Slice]) -> Vec<(NodeId, Slice)> {
    nodes.iter().copied().zip(slices.iter().cloned()).collect()
}

fn find<R: PartialEq, P>(
    kept: &[Kept<R, P>],
    theta: &Vector,
    rows: usize,
    request: &R,
) -> Option<Arc<P>> {
    kept.iter()
        .find(|k| k.rows == rows && k.request == *request && k.theta.is_same(theta))
        .map(|k| Arc::clone(&k.program))
}

/// The Gauss-Newton matrix is defined only when the loss sees the parameters through the outputs alone.
fn check_cut(graph: &Graph, losses: NodeId, outputs: NodeId, parameters: &[NodeId]) -> Result<()> {
    let outputs = cut(graph, outputs);
    let mut pending = vec![losses];
    let mut seen = vec![false; graph.nodes().len()];
    while let Some(id) = pending.pop() {
        if id == outputs || seen[id.index()] {
            continue;
        }
        seen[id.index()] = true;
        if parameters.contains(&id) {
            return Err(Error::Unsupported {
                what: "the Gauss-Newton matrix".into(),
                message: format!(
                    "the loss depends on {} other than through the outputs; return other outputs, or use Curvature::Hessian",
                    graph.describe(id)
                ),
            });
        }
        pending.extend(&graph.node(id).operands);
    }
    Ok(())
}

fn with_l2(
    graph: &mut Graph,
    products: Vec<NodeId>,
    directions: &[NodeId],
    l2: f32,
) -> Result<Vec<NodeId>> {
    products
        .into_iter()
        .zip(directions)
        .map(|(product, &direction)| {
            let shape = graph.shape(direction).clone();
            let factor = graph.constant(l2, &shape);
            let term = graph.binary(Binary::Mul, factor, direction)?;
            graph.binary(Binary::Add, product, term)
        })
        .collect()
}

impl Objective for GraphObjective {
    type Batch = Batch;

    fn gpu(&self) -> &Gpu {
        &self.gpu
    }

    fn layout(&self) -> &Arc<Layout> {
        &self.layout
    }

    fn examples(&self, batch: &Batch) -> usize {
        batch.weights.iter().filter(|w| **w > 0.0).count()
    }

    fn locate(&mut self, theta: &Vector, batch: &Batch, budget: u64) -> Result<Located> {
        self.find_origin(theta, batch, budget)
    }

    fn part(&self, batch: &Batch, ranges: &[Range<usize>]) -> Result<Batch> {
        batch.part(ranges)
    }

    fn rows(&self, batch: &Batch) -> usize {
        batch.len()
    }

    fn quadratic(
        &mut self,
        theta: &Vector,
        batch: &Batch,
        request: QuadraticRequest,
    ) -> Result<Arc<Quadratic>> {
        let inputs = self.load(batch)?;
        let rows = batch.len();
        if let Some(kept) = find(&self.quadratics, theta, rows, &request) {
            return Ok(kept);
        }
        let program = Arc::new(self.build_quadratic(theta, &inputs, rows, request)?);
        self.quadratics.push(Kept {
            theta: theta.clone(),
            rows,
            request,
            program: Arc::clone(&program),
        });
        Ok(program)
    }

    fn grouped(
        &mut self,
        theta: &Vector,
        batch: &Batch,
        request: GroupRequest,
    ) -> Result<Arc<GroupedQuadratic>> {
        let batch = batch.in_groups(request.groups)?;
        let inputs = self.load(&batch)?;
        let rows = batch.len();
        if let Some(kept) = find(&self.grouped, theta, rows, &request) {
            return Ok(kept);
        }
        let program = Arc::new(self.build_grouped(theta, &inputs, rows, request)?);
        self.grouped.push(Kept {
            theta: theta.clone(),
            rows,
            request,
            program: Arc::clone(&program),
        });
        Ok(program)
    }

    fn loss_at(&mut self, point: &Vector, rows: usize) -> Result<Arc<LossProgram>> {
        if let Some(kept) = find(&self.losses, point, rows, &()) {
            return Ok(kept);
        }
        let Some(inputs) = self.inputs.get(&rows) else {
            return Err(Error::Unsupported {
                what: format!("the loss on a batch of {rows} rows"),
                message: "none was loaded; ask for a quadratic of it first".into(),
            });
        };
        let program = self.trace(rows)?;
        let leaves = self.leaves(&program, point, inputs)?;
        let value = self.gpu.buffer("loss", 1)?;
        let targets = [(program.loss, value.clone())];
        let executable = Executable::new(&self.gpu, &program.traced.graph, &leaves, &targets)?;
        let program = Arc::new(LossProgram {
            value,
            run: executable.linearize,
        });
        self.losses.push(Kept {
            theta: point.clone(),
            rows,
            request: (),
            program: Arc::clone(&program),
        });
        Ok(program)
    }
}
