//! A loss with all its derivatives, on a device and in the f64 twin.

use std::ops::Range;

use osculant::Result;
use osculant::gpu::{Gpu, Recorder, Slice};
use osculant::graph::batch::batched;
use osculant::graph::derivatives::{gauss_newton_product, gradient, hessian_product};
use osculant::graph::executable::{BlockPart, DeviceLeaves};
use osculant::graph::node::elements;
use osculant::graph::plan::{Block, Request};
use osculant::graph::tensor::Builder;
use osculant::graph::twin::{Leaves, evaluate};
use osculant::graph::{Arena, DType, Executable, Graph, NodeId, Plan, Target, Tensor};
use osculant::random::Philox;
use rand::RngExt;

use super::Outcome;

/// A loss, the programs of its derivatives, and random values for its leaves.
pub(crate) struct Problem {
    pub(crate) graph: Graph,
    pub(crate) loss: NodeId,
    pub(crate) gradient: Vec<NodeId>,
    pub(crate) hessian: Vec<NodeId>,
    /// Empty without outputs.
    pub(crate) gauss_newton: Vec<NodeId>,
    pub(crate) directions: Vec<NodeId>,
    pub(crate) parameters: Vec<Vec<f32>>,
    pub(crate) inputs: Vec<Input>,
}

/// Values of an input.
#[derive(Clone, Debug)]
pub(crate) enum Input {
    Floats(Vec<f32>),
    Indices(Vec<u32>),
}

impl Input {
    fn len(&self) -> usize {
        match self {
            Input::Floats(values) => values.len(),
            Input::Indices(values) => values.len(),
        }
    }
}

/// A loss and, where it has a sensible one, the output of its network.
pub(crate) type Loss<'b> = (Tensor<'b>, Option<Tensor<'b>>);

/// Indices drawn for inputs are below this, unless a test sets its own.
pub(crate) const INDEX_LIMIT: u32 = 5;

impl Problem {
    /// The loss that `define` writes, and its derivatives.
    pub(crate) fn new(define: impl FnOnce(&Builder) -> Loss<'_>) -> Result<Problem> {
        let builder = Builder::new();
        let (loss, outputs) = define(&builder);
        let (loss, outputs) = (loss.id(), outputs.map(Tensor::id));
        Self::of_graph(builder.finish()?, loss, outputs)
    }

    /// The derivatives of `loss`, with respect to all parameters.
    pub(crate) fn of_graph(
        mut graph: Graph,
        loss: NodeId,
        outputs: Option<NodeId>,
    ) -> Result<Problem> {
        let wrt: Vec<NodeId> = graph.parameters().iter().map(|leaf| leaf.node).collect();
        let directions: Vec<NodeId> = wrt
            .iter()
            .map(|&node| {
                let shape = graph.shape(node).clone();
                graph.direction(&shape)
            })
            .collect();
        let gradient = gradient(&mut graph, loss, &wrt)?;
        let hessian = hessian_product(&mut graph, &gradient, &wrt, &directions)?;
        let gauss_newton = match outputs {
            Some(outputs) => gauss_newton_product(&mut graph, loss, outputs, &wrt, &directions)?,
            None => Vec::new(),
        };
        let mut random = Philox::new(7, 1 << 32);
        let parameters = wrt
            .iter()
            .map(|&node| uniform(&mut random, elements(graph.shape(node))))
            .collect();
        let inputs = graph
            .inputs()
            .iter()
            .map(|leaf| {
                let count = elements(graph.shape(leaf.node));
                match graph.node(leaf.node).dtype {
                    DType::F32 => Input::Floats(uniform(&mut random, count)),
                    DType::U32 => Input::Indices(
                        (0..count)
                            .map(|_| random.random_range(0..INDEX_LIMIT))
                            .collect(),
                    ),
                }
            })
            .collect();
        Ok(Problem {
            graph,
            loss,
            gradient,
            hessian,
            gauss_newton,
            directions,
            parameters,
            inputs,
        })
    }

    /// A direction: one vector per parameter.
    pub(crate) fn direction(&self, seed: u64) -> Vec<Vec<f32>> {
        let mut random = Philox::new(seed, (1 << 32) + 1);
        let lengths = self.parameters.iter().map(Vec::len);
        lengths.map(|n| uniform(&mut random, n)).collect()
    }

    /// Values of nodes in f64, with parameters and direction that are exact in f32.
    pub(crate) fn evaluate(
        &self,
        direction: &[Vec<f32>],
        wanted: &[NodeId],
    ) -> Result<Vec<Vec<f64>>> {
        self.evaluate_at(&widen(&self.parameters), &widen(direction), wanted)
    }

    /// Values of nodes in f64.
    pub(crate) fn evaluate_at(
        &self,
        parameters: &[Vec<f64>],
        direction: &[Vec<f64>],
        wanted: &[NodeId],
    ) -> Result<Vec<Vec<f64>>> {
        let leaves = Leaves {
            parameters: parameters.to_vec(),
            ..self.leaves(direction)
        };
        evaluate(&self.graph, &leaves, wanted)
    }

    /// Values of the leaves, in f64.
    pub(crate) fn leaves(&self, direction: &[Vec<f64>]) -> Leaves {
        let inputs = self.inputs.iter().map(|input| match input {
            Input::Floats(values) => values.iter().copied().map(f64::from).collect(),
            Input::Indices(values) => values.iter().copied().map(f64::from).collect(),
        });
        let directions = self.directions.iter().copied();
        Leaves {
            parameters: widen(&self.parameters),
            inputs: inputs.collect(),
            directions: directions.zip(direction.to_vec()).collect(),
        }
    }

    /// The nodes of Hessian and Gauss-Newton products.
    pub(crate) fn products(&self) -> Vec<NodeId> {
        [self.hessian.as_slice(), &self.gauss_newton].concat()
    }

    /// All results with their names: the loss, the gradient and the products, one per parameter.
    pub(crate) fn results(&self) -> Vec<(String, NodeId)> {
        let named = |what: &str, nodes: &[NodeId]| -> Vec<(String, NodeId)> {
            let parameters = self.graph.parameters().iter();
            parameters
                .zip(nodes)
                .map(|(leaf, &node)| (format!("{what} of '{}'", leaf.name), node))
                .collect()
        };
        let mut all = vec![("loss".to_string(), self.loss)];
        all.extend(named("gradient", &self.gradient));
        all.extend(named("Hessian product", &self.hessian));
        all.extend(named("Gauss-Newton product", &self.gauss_newton));
        all
    }

    /// Compares every result on the device with the twin: relative error in norm at most `tolerance`. Two products are made with one
    /// linearization, so that what a product needs must have outlived the first.
    pub(crate) fn check(&self, gpu: &Gpu, tolerance: f64) -> Outcome {
        let results = self.results();
        let nodes: Vec<NodeId> = results.iter().map(|&(_, node)| node).collect();
        let device = OnDevice::new(gpu, self, &nodes)?;
        for seed in [1, 2] {
            let direction = self.direction(seed);
            let found = device.run(gpu, &direction, seed == 1)?;
            let expected = self.evaluate(&direction, &nodes)?;
            for (((name, node), found), expected) in results.iter().zip(found).zip(&expected) {
                let found = widen(&[found]).concat();
                let error = relative_error(&found, expected, FLOOR);
                if error.is_nan() || error > tolerance {
                    let what = self.graph.describe(*node);
                    let message = format!(
                        "{name} ({what}), direction {seed}: relative error {error:.2e} over {tolerance:.0e}"
                    );
                    return Err(with_values(message, &found, expected).into());
                }
            }
        }
        Ok(())
    }
}

/// A compiled program with its buffers.
pub(crate) struct OnDevice {
    pub(crate) executable: Executable,
    directions: Vec<Slice>,
    targets: Vec<Slice>,
}

impl OnDevice {
    /// Compiles the program that computes `wanted`, and uploads the problem's values. Parameters,
    /// directions and results lie in one buffer each, as they do for the optimizers.
    pub(crate) fn new(gpu: &Gpu, problem: &Problem, wanted: &[NodeId]) -> Result<OnDevice> {
        let graph = &problem.graph;
        let leaves = upload(gpu, problem)?;
        let length = |&node: &NodeId| elements(graph.shape(node));
        let directions = flat(gpu, "directions", problem.directions.iter().map(length))?;
        let targets = flat(gpu, "results", wanted.iter().map(length))?;
        let pairs = |nodes: &[NodeId], slices: &[Slice]| -> Vec<(NodeId, Slice)> {
            nodes.iter().copied().zip(slices.iter().cloned()).collect()
        };
        let leaves = DeviceLeaves {
            directions: pairs(&problem.directions, &directions),
            ..leaves
        };
        let executable = Executable::new(gpu, graph, &leaves, &pairs(wanted, &targets))?;
        Ok(OnDevice {
            executable,
            directions,
            targets,
        })
    }

    /// The wanted values for a direction; without `linearize` only the product runs again.
    pub(crate) fn run(
        &self,
        gpu: &Gpu,
        direction: &[Vec<f32>],
        linearize: bool,
    ) -> Result<Vec<Vec<f32>>> {
        for (slice, values) in self.directions.iter().zip(direction) {
            gpu.upload(slice, 0, values)?;
        }
        let targets: Vec<&Slice> = self.targets.iter().collect();
        let record = |recorder: &mut Recorder<'_>| {
            if linearize {
                recorder.replay(&self.executable.linearize);
            }
            recorder.replay(&self.executable.product);
            Ok(())
        };
        gpu.submit_and_read(record, &targets)
    }
}

/// The program for a block of directions, with its buffers: one row per direction.
pub(crate) struct BlockOnDevice {
    executable: Executable,
    pitch: usize,
    direction_ranges: Vec<Range<usize>>,
    target_ranges: Vec<Range<usize>>,
    directions: Slice,
    targets: Slice,
}

impl BlockOnDevice {
    /// For `rows` directions, `width` at a time.
    pub(crate) fn new(
        gpu: &Gpu,
        problem: &Problem,
        wanted: &[NodeId],
        rows: usize,
        width: usize,
    ) -> Result<BlockOnDevice> {
        let length = |&node: &NodeId| elements(problem.graph.shape(node));
        let (direction_ranges, end) = ranges(gpu, problem.directions.iter().map(length));
        let (target_ranges, target_end) = ranges(gpu, wanted.iter().map(length));
        let pitch = end.max(target_end).next_multiple_of(64);
        let directions = gpu.buffer("directions", rows * pitch)?;
        let targets = gpu.buffer("results", rows * pitch)?;
        let mut graph = problem.graph.clone();
        let (direction_nodes, target_nodes) =
            batched(&mut graph, wanted, &problem.directions, width)?;
        let part = |first: usize, whole: &Slice, ranges: &[Range<usize>]| {
            let of = |range: &Range<usize>| {
                let start = first * pitch + range.start;
                whole.slice(start..start + (width - 1) * pitch + range.len())
            };
            ranges.iter().map(of).collect::<Result<Vec<Slice>>>()
        };
        let mut parts = Vec::new();
        for first in (0..rows).step_by(width) {
            let first = first.min(rows - width);
            parts.push(BlockPart {
                directions: part(first, &directions, &direction_ranges)?,
                results: part(first, &targets, &target_ranges)?,
            });
        }
        let request = Request {
            block: Some(Block {
                pitch,
                directions: direction_nodes,
                results: target_nodes,
            }),
            ..Request::default()
        };
        let leaves = upload(gpu, problem)?;
        let plan = Plan::new(&Target::of(gpu), graph, request)?;
        let executable = plan.bind(gpu, &mut Arena::default(), &leaves, &[], &parts)?;
        Ok(BlockOnDevice {
            executable,
            pitch,
            direction_ranges,
            target_ranges,
            directions,
            targets,
        })
    }

    /// For each direction, the wanted values.
    pub(crate) fn run(
        &self,
        gpu: &Gpu,
        directions: &[Vec<Vec<f32>>],
    ) -> Result<Vec<Vec<Vec<f32>>>> {
        for (row, direction) in directions.iter().enumerate() {
            for (range, values) in self.direction_ranges.iter().zip(direction) {
                gpu.upload(&self.directions, row * self.pitch + range.start, values)?;
            }
        }
        let record = |recorder: &mut Recorder<'_>| {
            recorder.replay(&self.executable.linearize);
            recorder.replay(&self.executable.block);
            Ok(())
        };
        let read = gpu.submit_and_read(record, &[&self.targets])?.concat();
        let row = |row: usize| {
            let values = self
                .target_ranges
                .iter()
                .map(|range| read[row * self.pitch..][range.clone()].to_vec());
            values.collect()
        };
        Ok((0..directions.len()).map(row).collect())
    }
}

/// Parameters and inputs on the device.
fn upload(gpu: &Gpu, problem: &Problem) -> Result<DeviceLeaves> {
    let parameters = flat(gpu, "parameters", problem.parameters.iter().map(Vec::len))?;
    for (slice, values) in parameters.iter().zip(&problem.parameters) {
        gpu.upload(slice, 0, values)?;
    }
    let mut inputs = Vec::new();
    for input in &problem.inputs {
        let slice = gpu.buffer("input", input.len())?;
        match input {
            Input::Floats(values) => gpu.upload(&slice, 0, values)?,
            Input::Indices(values) => gpu.upload(&slice, 0, values)?,
        }
        inputs.push(slice);
    }
    Ok(DeviceLeaves {
        parameters,
        inputs,
        ..DeviceLeaves::default()
    })
}

/// The problems here compute with numbers of order one; a smaller result is a difference of those.
const FLOOR: f64 = 1e-2;

/// Ranges of these lengths one after another, each starting where a binding may start; and the end of the last.
fn ranges(gpu: &Gpu, lengths: impl Iterator<Item = usize>) -> (Vec<Range<usize>>, usize) {
    let mut ranges = Vec::new();
    let mut end = 0;
    for length in lengths {
        let start = usize::next_multiple_of(end, gpu.alignment());
        end = start + length;
        ranges.push(start..end);
    }
    (ranges, end)
}

/// Slices of these lengths in one buffer, each starting where a binding may start.
fn flat(gpu: &Gpu, label: &str, lengths: impl Iterator<Item = usize>) -> Result<Vec<Slice>> {
    let (ranges, end) = ranges(gpu, lengths);
    if ranges.is_empty() {
        return Ok(Vec::new());
    }
    let all = gpu.buffer(label, end)?;
    ranges.into_iter().map(|range| all.slice(range)).collect()
}

/// Values in [-1, 1).
pub(crate) fn uniform(random: &mut Philox, count: usize) -> Vec<f32> {
    (0..count)
        .map(|_| random.random_range(-1.0f32..1.0))
        .collect()
}

/// The same numbers in f64.
pub(crate) fn widen(vectors: &[Vec<f32>]) -> Vec<Vec<f64>> {
    let wide = |vector: &Vec<f32>| vector.iter().copied().map(f64::from).collect();
    vectors.iter().map(wide).collect()
}

/// `|found - expected| / |expected|`, where elements smaller than `floor` on average count as `floor`,
/// and an expected zero without a floor as 1.
pub(crate) fn relative_error(found: &[f64], expected: &[f64], floor: f64) -> f64 {
    if found.len() != expected.len() {
        return f64::NAN;
    }
    let norm = |terms: &mut dyn Iterator<Item = f64>| terms.map(|x| x * x).sum::<f64>().sqrt();
    let difference = norm(&mut found.iter().zip(expected).map(|(f, e)| f - e));
    let size = norm(&mut expected.iter().copied()).max(floor * (expected.len() as f64).sqrt());
    if size == 0.0 {
        difference
    } else {
        difference / size
    }
}

/// A message with the first elements of both.
pub(crate) fn with_values(message: String, found: &[f64], expected: &[f64]) -> String {
    let start = |values: &[f64]| -> String {
        let shown: Vec<String> = values.iter().take(8).map(|v| format!("{v:.6}")).collect();
        shown.join(", ")
    };
    format!(
        "{message}\n  found    {}\n  expected {}",
        start(found),
        start(expected)
    )
}
