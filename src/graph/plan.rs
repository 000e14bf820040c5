//! A program without a device: its kernels, the values they exchange, and the buffers that these need. It can be printed, asked what it
//! takes, and [bound](super::executable) to slices of a device as often as wanted.

use std::collections::HashMap;
use std::fmt;
use std::sync::Arc;

use super::fusion::{Fusion, same_buffer};
use super::listing::{Listing, list};
use super::lower::{Lowered, lower, operand_limit};
use super::node::{Graph, NodeId, elements};
use super::phase::BLOCK;
use super::spaces::{Space, assign_spaces};
use crate::error::Result;
use crate::gpu::{Gpu, Requirements};
use crate::kernels::dot::Capabilities;
use crate::kernels::loops;
use crate::kernels::template::{Kernel, Rows};
use crate::kernels::tuning::Products;

/// What a program is planned for. The default is a device that grants what WebGPU guarantees, and nothing else.
#[derive(Clone, Debug, PartialEq)]
pub struct Target {
    /// Storage buffers that a kernel may bind.
    pub storage_buffers: u32,
    /// The choice of kernels for matrix products, and what the device can run.
    pub products: Products,
}

impl Default for Target {
    fn default() -> Self {
        Self {
            storage_buffers: 8,
            products: Products::default(),
        }
    }
}

impl Target {
    /// A device as it is, with its tuning.
    #[must_use]
    pub fn of(gpu: &Gpu) -> Self {
        Self {
            storage_buffers: gpu.limits().max_storage_buffers_per_shader_stage,
            products: Products::of(gpu),
        }
    }
}

/// A node whose value is wanted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Wanted {
    /// The node.
    pub node: NodeId,
    /// Elements from the start of one of its rows, along axis 0, to that of the next, where they do not follow one another; at least the
    /// elements of a row.
    pub pitch: Option<usize>,
}

impl From<NodeId> for Wanted {
    fn from(node: NodeId) -> Self {
        Self { node, pitch: None }
    }
}

impl Wanted {
    /// The rows at a pitch, if they are.
    pub(super) fn rows(self, graph: &Graph) -> Option<Rows> {
        self.pitch.map(|pitch| Rows {
            elements: elements(&graph.shape(self.node)[1..]),
            pitch,
        })
    }

    /// Length of the slice that holds it.
    pub(super) fn span(self, graph: &Graph) -> usize {
        let all = elements(graph.shape(self.node));
        self.rows(graph).map_or(all, |rows| {
            let before = (graph.shape(self.node)[0] - 1).saturating_mul(rows.pitch);
            before.saturating_add(rows.elements)
        })
    }
}

/// The part of a program that takes several directions at once: nodes whose axis 0 counts directions, in slices whose rows lie `pitch`
/// elements apart.
#[derive(Clone, Debug)]
pub struct Block {
    /// Elements from the start of a row to the start of the next.
    pub pitch: usize,
    /// The directions.
    pub directions: Vec<NodeId>,
    /// The results.
    pub results: Vec<NodeId>,
}

/// What a program computes, and what it is given anew.
#[derive(Clone, Debug, Default)]
pub struct Request {
    /// Leaves that are given anew for each product.
    pub directions: Vec<NodeId>,
    /// Leaves that are given anew for each change of the loss.
    pub points: Vec<NodeId>,
    /// The nodes whose values are wanted, in any phase but that of a block.
    pub wanted: Vec<Wanted>,
    /// What is computed for a block of directions.
    pub block: Option<Block>,
}

impl Request {
    /// The values of nodes, for directions that are given anew.
    #[must_use]
    pub fn of(wanted: &[NodeId], directions: &[NodeId]) -> Self {
        Self {
            directions: directions.to_vec(),
            wanted: wanted.iter().copied().map(Wanted::from).collect(),
            ..Self::default()
        }
    }
}

/// A kernel with the nodes that it binds.
#[derive(Clone, Debug)]
pub(super) struct PlannedKernel {
    pub(super) phase: usize,
    /// The node whose value it writes, those that it reads, and the others that it writes: in order of binding.
    pub(super) bindings: Vec<NodeId>,
    pub(super) kernel: Kernel,
}

/// A program without a device. [`bind`](Self::bind) makes it an [`Executable`](super::Executable).
#[derive(Clone, Debug)]
pub struct Plan {
    pub(super) graph: Graph,
    pub(super) request: Request,
    pub(super) kernels: Vec<PlannedKernel>,
    /// The phase of each node.
    pub(super) phase: Vec<usize>,
    /// The nodes whose values are wanted, without reshapes; those of the block come last.
    pub(super) results: Vec<NodeId>,
    /// For each result, whether its kernel writes it where it is wanted.
    pub(super) direct: Vec<bool>,
    /// The space of each other value that a kernel writes.
    pub(super) assigned: Vec<(NodeId, usize)>,
    pub(super) spaces: Vec<Space>,
    /// Elements for parts of sums, which all kernels share.
    pub(super) scratch: usize,
    capabilities: Capabilities,
    listing: Arc<Listing>,
}

impl Plan {
    /// Plans kernels and buffers.
    ///
    /// # Errors
    /// [`Error::Shape`](crate::Error::Shape) for nodes of another graph and pitches that do not fit;
    /// [`Error::OverLimit`](crate::Error::OverLimit) for loops that are too long; what WGSL cannot express.
    pub fn new(target: &Target, graph: Graph, request: Request) -> Result<Self> {
        request.check(&graph)?;
        let all: Vec<Wanted> = request.all().collect();
        let nodes: Vec<NodeId> = all.iter().map(|wanted| wanted.node).collect();
        let block = request.block.as_ref();
        let groups = [
            request.directions.clone(),
            block.map_or(Vec::new(), |block| block.directions.clone()),
            request.points.clone(),
        ];
        let pitched = block
            .iter()
            .flat_map(|block| block.directions.iter().map(|&node| (node, block.pitch)));
        let (fusion, lowered) = lower(
            &graph,
            &nodes,
            &groups,
            operand_limit(target.storage_buffers),
            &pitched.collect(),
            &target.products,
        )?;
        let results: Vec<NodeId> = nodes.iter().map(|&n| same_buffer(&graph, n)).collect();
        let rows: HashMap<NodeId, Rows> = all
            .iter()
            .zip(&results)
            .filter_map(|(wanted, &result)| Some((result, wanted.rows(&graph)?)))
            .collect();
        let mut direct = direct(&graph, &lowered, &results, &rows);
        // Of a block the result is written with each part, also where it depends on no direction and was computed before.
        let mut late = Vec::new();
        for at in request.wanted.len()..results.len() {
            if fusion.phase[results[at].0] != BLOCK {
                direct[at] = false;
                late.push(results[at]);
            }
        }
        let stored_at = |root: NodeId| {
            let position = results.iter().position(|&result| result == root)?;
            rows.get(&root).copied().filter(|_| direct[position])
        };
        let [mut placed, mut copied] = [Vec::new(), Vec::new()];
        for (&result, &direct) in results.iter().zip(&direct) {
            if direct { &mut placed } else { &mut copied }.push(result);
        }
        let (assigned, spaces) =
            assign_spaces(&graph, &fusion, &lowered, (&placed, &copied, &late));
        let kernels: Vec<PlannedKernel> = lowered
            .iter()
            .map(|lowered| {
                let kernel = lowered.kernel(stored_at(lowered.root))?;
                let written = std::iter::once(&lowered.root).chain(&lowered.operands);
                Ok(PlannedKernel {
                    phase: lowered.phase,
                    bindings: written.chain(&lowered.also).copied().collect(),
                    kernel,
                })
            })
            .collect::<Result<_>>()?;
        for planned in &kernels {
            loops::check(planned.kernel.label, planned.kernel.longest_of_all())?;
        }
        let scratch = kernels.iter().map(|k| k.kernel.scratch_elements());
        let scratch = scratch.max().unwrap_or(0);
        let Fusion { phase, .. } = fusion;
        Ok(Self {
            listing: Arc::new(list(&graph, &lowered, &results, (&spaces, scratch))),
            kernels,
            phase,
            results,
            direct,
            assigned,
            spaces,
            scratch,
            capabilities: target.products.capabilities,
            graph,
            request,
        })
    }

    /// Its kernels with what they cost, and the memory.
    #[must_use]
    pub fn listing(&self) -> &Arc<Listing> {
        &self.listing
    }

    /// What it computes.
    #[must_use]
    pub fn request(&self) -> &Request {
        &self.request
    }

    /// The graph that it was planned from.
    #[must_use]
    pub fn graph(&self) -> &Graph {
        &self.graph
    }

    /// Iterations of the longest loop of any invocation, of all loops within one kernel together.
    #[must_use]
    pub fn longest_loop(&self) -> usize {
        let loops = self.kernels.iter().map(|k| k.kernel.longest_of_all());
        loops.max().unwrap_or(0)
    }

    /// What a device must grant to its kernels.
    #[must_use]
    pub fn requirements(&self) -> Requirements {
        let all = self.kernels.iter().map(|k| k.kernel.requirements_of_all());
        all.fold(Requirements::new(0, 0, 0), Requirements::largest)
    }

    /// The WGSL of its kernels, each with the node whose value it writes: for reading, and for checking with other compilers than the one
    /// on this machine. Not of those that only make parts of sums for them.
    pub fn sources(&self) -> impl Iterator<Item = (NodeId, String)> {
        let kernels = self.kernels.iter();
        kernels.map(|k| (k.bindings[0], k.kernel.source(&self.capabilities)))
    }

    /// Bytes of host memory that it takes, about.
    pub(crate) fn host_bytes(&self) -> u64 {
        let texts: usize = self.kernels.iter().map(|k| k.kernel.text.len()).sum();
        (texts + 256 * self.graph.nodes().len()) as u64
    }
}

/// The WGSL of every kernel of the program that computes `wanted`, each with the node whose value it writes, for any device.
///
/// # Errors
/// Those of [`Plan::new`].
pub fn sources(
    graph: &Graph,
    wanted: &[NodeId],
    directions: &[NodeId],
) -> Result<Vec<(NodeId, String)>> {
    let request = Request::of(wanted, directions);
    let plan = Plan::new(&Target::default(), graph.clone(), request)?;
    Ok(plan.sources().collect())
}

/// The listing.
impl fmt::Display for Plan {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.listing.fmt(f)
    }
}

/// For each result, whether its kernel writes it where it is wanted. One that is wanted twice or read again is copied there, which may be
/// in one buffer with others.
fn direct(
    graph: &Graph,
    kernels: &[Lowered],
    results: &[NodeId],
    rows: &HashMap<NodeId, Rows>,
) -> Vec<bool> {
    let mut wanted: HashMap<NodeId, usize> = HashMap::new();
    for &result in results {
        *wanted.entry(result).or_default() += 1;
    }
    let read: std::collections::HashSet<NodeId> =
        kernels.iter().flat_map(|k| &k.operands).copied().collect();
    let roots: HashMap<NodeId, &Lowered> = kernels.iter().map(|k| (k.root, k)).collect();
    let is_direct = |result: &NodeId| {
        let fits = |kernel: &&Lowered| {
            rows.get(result).is_none_or(|rows| {
                kernel.takes_pitch(elements(graph.shape(*result)) / rows.elements)
            })
        };
        wanted[result] == 1 && !read.contains(result) && roots.get(result).is_some_and(fits)
    };
    results.iter().map(is_direct).collect()
}
