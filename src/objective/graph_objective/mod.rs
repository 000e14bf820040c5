//! The objective of a model written as a graph.

mod capabilities;
mod elsewhere;
mod evaluation;
mod groups;
mod inputs;
mod layers;
mod locate;
mod plans;
mod program;
mod sample_space;
mod single;
mod statistics;

use std::sync::Arc;

pub use evaluation::Evaluation;
use evaluation::{Evaluator, Wanted};
use groups::Grouped;
pub(super) use inputs::Inputs;
use inputs::Places;
pub(super) use inputs::check_weights;
use layers::Layers;
use plans::Plans;
use sample_space::Sampled;
use single::Single;
use statistics::Measured;

use super::kronecker::{Kronecker, KroneckerRequest};
use super::programs::Programs;
use super::quadratic::{
    Gradient, GradientRequest, GroupRequest, GroupedQuadratic, Quadratic, QuadraticRequest,
};
use super::sample_space::{SampleRequest, SampleSystem};
use super::statistics::{BatchStatistics, StatisticsRequest};
use crate::error::{Error, Result};
use crate::gpu::Gpu;
use crate::graph::{Arena, Target};
use crate::nn::Model;
use crate::recent::BUDGET;
use crate::vector::{Layout, Vector};

/// Bytes that intermediate values may take before a block of products is computed in parts; see [`GraphObjective::with_block_memory`].
const BLOCK_MEMORY: u64 = 512 << 20;

/// The loss of a [`Model`] on a batch with all its derivatives on the device:
///
/// ```text
/// L(theta) = sum_n w_n loss_n(theta) + l2/2 |theta|^2
/// ```
///
/// with the weights `w_n >= 0` of the batch as they are. Those of a batch drawn from a data set are `1/n`, so that this is the mean;
/// weights of 1 give the sum, beside which the same `l2` is less. Parts and groups of a batch stand for the whole of it: their weights are
/// scaled to the sum of the batch's, so that their losses, gradients and curvatures are estimates of the batch's, each with the whole `l2`
/// term.
///
/// Programs are planned on first use for each number of rows, and bound to buffers for each vector and slot; both are kept as long as there
/// is memory set aside for them. Values that no later phase needs are in buffers that all programs share.
/// Batches may have weights; rows of weight 0 do not count, so a short last batch can be padded
/// ([`Batch::pad_to`](crate::data::Batch::pad_to)) instead of compiling again.
pub struct GraphObjective {
    gpu: Gpu,
    model: Model,
    layout: Arc<Layout>,
    l2: f32,
    block_memory: u64,
    program_memory: u64,
    places: Places,
    target: Target,
    single_plans: Plans<QuadraticRequest, Single>,
    grouped_plans: Plans<GroupRequest, Grouped>,
    layer_plans: Plans<KroneckerRequest, Layers>,
    statistics_plans: Plans<StatisticsRequest, Measured>,
    sample_plans: Plans<SampleRequest, Sampled>,
    arena: Arena,
    gradients: Programs<GradientRequest, On<Gradient>>,
    quadratics: Programs<QuadraticRequest, On<Quadratic>>,
    grouped: Programs<GroupRequest, On<GroupedQuadratic>>,
    layered: Programs<KroneckerRequest, Layered>,
    statistics: Programs<StatisticsRequest, On<BatchStatistics>>,
    samples: Programs<SampleRequest, On<SampleSystem>>,
    evaluations: Programs<Wanted, On<Evaluator>>,
}

/// A program with the batch that it reads: where a program is kept, so is its batch's place.
type On<P> = (Arc<Inputs>, Arc<P>);

/// A program with Kronecker factors, with the batch and the inverses that it reads.
type Layered = (Arc<Inputs>, Vector, Arc<Kronecker>);

fn layered(bytes: u64) -> Programs<KroneckerRequest, Layered> {
    Programs::with_budget(bytes).with_held(|(_, _, program)| Arc::strong_count(program) > 1)
}

/// No programs yet.
fn programs<R: PartialEq, P>(bytes: u64) -> Programs<R, On<P>> {
    Programs::with_budget(bytes).with_held(|(_, program)| Arc::strong_count(program) > 1)
}

impl std::fmt::Debug for GraphObjective {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("GraphObjective")
            .field("model", &self.model)
            .field("layout", &self.layout)
            .finish_non_exhaustive()
    }
}

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
            program_memory: BUDGET,
            places: Places::default(),
            target: Target::of(gpu),
            single_plans: Plans::default(),
            grouped_plans: Plans::default(),
            layer_plans: Plans::default(),
            statistics_plans: Plans::default(),
            sample_plans: Plans::default(),
            arena: Arena::default(),
            gradients: programs(BUDGET),
            quadratics: programs(BUDGET),
            grouped: programs(BUDGET),
            layered: layered(BUDGET),
            statistics: programs(BUDGET),
            samples: programs(BUDGET),
            evaluations: programs(BUDGET),
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
        Ok(self.without_programs())
    }

    /// Sets how many bytes the intermediate values of a program may take before a block of products is computed in parts. Default 512 MiB.
    /// A smaller number changes no result: the bits are the same.
    #[must_use]
    pub fn with_block_memory(mut self, bytes: u64) -> Self {
        self.block_memory = bytes;
        self.without_programs()
    }

    /// Forgets what was made for other settings.
    fn without_programs(self) -> Self {
        let bytes = self.program_memory;
        Self {
            single_plans: Plans::default(),
            grouped_plans: Plans::default(),
            layer_plans: Plans::default(),
            statistics_plans: Plans::default(),
            sample_plans: Plans::default(),
            ..self
        }
        .with_program_memory(bytes)
    }

    /// Sets how many bytes the buffers of kept programs may take, for each kind of program: gradients, quadratics, those of
    /// groups, Kronecker factors, rows of examples, statistics. Beyond that, and beyond 64 programs, the one that was not asked for the longest is forgotten,
    /// and bound again when it is. Default 1 GiB.
    #[must_use]
    pub fn with_program_memory(mut self, bytes: u64) -> Self {
        self.program_memory = bytes;
        self.gradients = programs(bytes);
        self.quadratics = programs(bytes);
        self.grouped = programs(bytes);
        self.layered = layered(bytes);
        self.statistics = programs(bytes);
        self.samples = programs(bytes);
        self.evaluations = programs(bytes);
        self
    }

    /// Another objective of the same function, with programs and batches of its own.
    ///
    /// # Errors
    /// As [`new`](Self::new).
    pub fn sibling(&self) -> Result<Self> {
        let own = Self::new(&self.gpu, self.model.clone())?;
        Ok(own
            .with_l2(self.l2)?
            .with_block_memory(self.block_memory)
            .with_program_memory(self.program_memory))
    }

    /// The model.
    pub fn model(&self) -> &Model {
        &self.model
    }

    /// A vector of initial parameters. The same seed gives the same numbers on every device.
    ///
    /// # Errors
    /// [`Error::OverLimit`] where a tensor is larger than one binding or all are larger than one buffer, [`Error::OutOfMemory`], or a bad
    /// initialiser.
    pub fn initial_parameters(&self, seed: u64) -> Result<Vector> {
        let traced = self.model.trace(1)?;
        self.check_bindings()?;
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
}
