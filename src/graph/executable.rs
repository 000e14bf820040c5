//! A program on a device: kernels recorded over buffers that are planned by lifetime.

use std::collections::HashMap;

use super::fit::{check_leaves, check_slices};
use super::listing::{Listing, list};
use super::lower::{Lowered, lower, operand_limit};
use super::node::{Graph, NodeId, elements};
use super::op::Op;
use super::plan::{Plan, same_buffer};
use super::slots::assign_slots;
use crate::error::{Error, Result};
use crate::gpu::{Gpu, Recording, Slice};
use crate::kernels::template::Rows;
use crate::kernels::tuning::Products;

/// Where the leaves of a graph are on the device.
#[derive(Clone, Debug, Default)]
pub struct DeviceLeaves {
    /// One slice per parameter.
    pub parameters: Vec<Slice>,
    /// One slice per input.
    pub inputs: Vec<Slice>,
    /// Slices of the directions that are given anew for each product.
    pub directions: Vec<(NodeId, Slice)>,
    /// Slices of the points that are given anew for each change of the loss.
    pub points: Vec<(NodeId, Slice)>,
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
    fn rows(self, graph: &Graph) -> Option<Rows> {
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
pub struct BlockTargets {
    /// Elements from the start of a row to the start of the next.
    pub pitch: usize,
    /// The directions.
    pub directions: Vec<NodeId>,
    /// The results.
    pub targets: Vec<NodeId>,
    /// Where they are: the program runs once for each part, one after another.
    pub parts: Vec<BlockPart>,
}

/// Slices for one run of the program for a block.
#[derive(Clone, Debug)]
pub struct BlockPart {
    /// One slice per direction.
    pub directions: Vec<Slice>,
    /// One slice per target.
    pub targets: Vec<Slice>,
}

/// A recorded program in phases: `linearize` runs once per parameters and inputs, `product` once per direction, `block` once per block of
/// directions, `change` once per point.
#[derive(Debug)]
pub struct Executable {
    /// Everything that depends on parameters and inputs alone.
    pub linearize: Recording,
    /// Everything that depends on a direction.
    pub product: Recording,
    /// Everything that depends on a block of directions, for all of its parts.
    pub block: Recording,
    /// Everything that depends on a point.
    pub change: Recording,
    /// The kernels, their costs, and the memory.
    pub listing: Listing,
}

/// What a program does at different times: see [`Executable`].
pub(crate) const LINEARIZE: usize = 0;
pub(crate) const PRODUCT: usize = 1;
pub(crate) const BLOCK: usize = 2;
pub(crate) const CHANGE: usize = 3;
const PHASES: usize = 4;

/// A program before it has buffers.
pub struct Planned<'g> {
    graph: &'g Graph,
    plan: Plan,
    kernels: Vec<Lowered>,
    /// The nodes whose values are wanted, without reshapes.
    results: Vec<NodeId>,
    /// Those of a single direction, as they are wanted.
    targets: Vec<Wanted>,
    /// The results that have rows at a pitch, and these rows.
    rows: HashMap<NodeId, Rows>,
    /// For each result, whether its kernel writes it where it is wanted.
    direct: Vec<bool>,
    assigned: Vec<(NodeId, usize)>,
    slots: Vec<usize>,
}

impl<'g> Planned<'g> {
    /// Plans kernels and buffers for the targets and, after them, those of a block.
    ///
    /// # Errors
    /// [`Error::Shape`] for nodes of another graph and pitches that do not fit; what WGSL cannot express.
    pub fn new(
        gpu: &Gpu,
        graph: &'g Graph,
        [directions, points]: [&[NodeId]; 2],
        targets: &[Wanted],
        block: Option<&BlockTargets>,
    ) -> Result<Self> {
        graph.check_ids(directions)?;
        graph.check_ids(points)?;
        for wanted in targets {
            wanted.check(graph)?;
        }
        if let Some(block) = block {
            for wanted in block.wanted() {
                wanted.check(graph)?;
            }
        }
        let limit = operand_limit(gpu.limits().max_storage_buffers_per_shader_stage);
        let mut all: Vec<NodeId> = targets.iter().map(|wanted| wanted.node).collect();
        let mut groups = [directions.to_vec(), Vec::new(), points.to_vec()];
        let mut pitches = HashMap::new();
        let mut rows = HashMap::new();
        for wanted in targets {
            if let Some(result) = wanted.rows(graph) {
                rows.insert(same_buffer(graph, wanted.node), result);
            }
        }
        if let Some(block) = block {
            all.extend(&block.targets);
            groups[BLOCK - 1].clone_from(&block.directions);
            pitches.extend(block.directions.iter().map(|&node| (node, block.pitch)));
            for &target in &block.targets {
                let result = Rows {
                    elements: elements(&graph.shape(target)[1..]),
                    pitch: block.pitch,
                };
                rows.insert(same_buffer(graph, target), result);
            }
        }
        let (plan, kernels) = lower(graph, &all, &groups, limit, &pitches, &Products::of(gpu))?;
        let results: Vec<NodeId> = all.iter().map(|&node| same_buffer(graph, node)).collect();
        let direct: Vec<bool> = results
            .iter()
            .map(|&result| {
                // A result that is wanted twice or read again is copied to where it is wanted, which may be in one buffer with others.
                let once = results.iter().filter(|&&other| other == result).count() == 1;
                let read_again = kernels.iter().any(|k| k.operands.contains(&result));
                let kernel = kernels.iter().find(|k| k.root == result);
                let fits = |kernel: &Lowered| {
                    rows.get(&result).is_none_or(|rows| {
                        kernel.takes_pitch(elements(graph.shape(result)) / rows.elements)
                    })
                };
                once && !read_again && kernel.is_some_and(fits)
            })
            .collect();
        let placed: Vec<NodeId> = results
            .iter()
            .zip(&direct)
            .filter(|(_, direct)| **direct)
            .map(|(&result, _)| result)
            .collect();
        let copied: Vec<NodeId> = results
            .iter()
            .zip(&direct)
            .filter(|(_, direct)| !**direct)
            .map(|(&result, _)| result)
            .collect();
        let (assigned, slots) = assign_slots(graph, &plan, &kernels, &placed, &copied);
        Ok(Self {
            graph,
            plan,
            kernels,
            results,
            targets: targets.to_vec(),
            rows,
            direct,
            assigned,
            slots: slots.iter().map(|slot| slot.size).collect(),
        })
    }

    /// Bytes of the buffers for intermediate values.
    pub fn bytes(&self) -> u64 {
        let slots: usize = self.slots.iter().sum();
        4 * (slots + self.scratch_elements()) as u64
    }

    /// Bytes of the largest of them.
    pub fn largest_buffer(&self) -> u64 {
        self.slots.iter().max().map_or(0, |&size| size as u64 * 4)
    }

    /// The rows of a result whose kernel stores them at a pitch.
    fn rows(&self, root: NodeId) -> Option<Rows> {
        let position = self.results.iter().position(|&result| result == root)?;
        let rows = self.rows.get(&root).copied();
        rows.filter(|_| self.direct[position])
    }

    /// Makes the buffers and records the kernels.
    ///
    /// # Errors
    /// [`Error::Length`] when a slice does not fit its node; limits of the device; refused shaders.
    pub fn record(
        &self,
        gpu: &Gpu,
        leaves: &DeviceLeaves,
        targets: &[Slice],
        block: Option<&BlockTargets>,
    ) -> Result<Executable> {
        let graph = self.graph;
        check_leaves(graph, leaves)?;
        check_slices(graph, self.targets.iter().copied(), targets.iter())?;
        if let Some(block) = block {
            let (found, planned) = (block.targets.len(), self.results.len() - targets.len());
            if found != planned {
                return Err(Error::Length {
                    what: "the list of results of a block".into(),
                    found,
                    expected: planned,
                });
            }
            block.check_parts(graph)?;
        }
        let mut places = place_leaves(gpu, graph, leaves, &self.results)?;
        let buffers: Vec<Slice> = self
            .slots
            .iter()
            .map(|&size| gpu.buffer("intermediate values", size))
            .collect::<Result<_>>()?;
        for &(node, slot) in &self.assigned {
            places.insert(node, buffers[slot].slice(0..elements(graph.shape(node)))?);
        }
        let single = self.results.iter().zip(&self.direct).zip(targets);
        for ((&result, _), slice) in single.clone().filter(|((_, direct), _)| **direct) {
            places.insert(result, slice.clone());
        }
        let scratch = match self.scratch_elements() {
            0 => None,
            elements => Some(gpu.buffer("parts of sums", elements)?),
        };
        let scratch = scratch.as_ref();
        let mut phases = [(); PHASES].map(|()| Recording::new());
        for phase in [LINEARIZE, PRODUCT, CHANGE] {
            self.phase(gpu, phase, &places, scratch, &mut phases[phase])?;
        }
        for (((&result, _), destination), wanted) in single
            .zip(&self.targets)
            .filter(|(((_, direct), _), _)| !**direct)
        {
            let source = place(&places, graph, result)?;
            let recording = &mut phases[self.plan.phase[result.0]];
            match wanted.rows(graph) {
                None => recording.copy(&source.slice(0..destination.len())?, destination)?,
                Some(rows) => {
                    for row in 0..graph.shape(wanted.node)[0] {
                        let (from, to) = (row * rows.elements, row * rows.pitch);
                        recording.copy_part(source, from, destination, to, rows.elements)?;
                    }
                }
            }
        }
        if let Some(block) = block {
            for part in &block.parts {
                self.block_part(
                    gpu,
                    block,
                    part,
                    targets.len(),
                    (&mut places, scratch),
                    &mut phases[BLOCK],
                )?;
            }
        }
        let [linearize, product, block, change] = phases;
        Ok(Executable {
            listing: list(
                graph,
                &self.kernels,
                &self.results,
                buffers.iter().chain(scratch).map(Slice::bytes),
            ),
            linearize,
            product,
            block,
            change,
        })
    }

    /// Elements for the parts of a sum, which all kernels of the program share.
    fn scratch_elements(&self) -> usize {
        self.kernels
            .iter()
            .map(|lowered| lowered.scratch_elements(self.rows(lowered.root)))
            .max()
            .unwrap_or(0)
    }

    fn phase(
        &self,
        gpu: &Gpu,
        phase: usize,
        places: &HashMap<NodeId, Slice>,
        scratch: Option<&Slice>,
        recording: &mut Recording,
    ) -> Result<()> {
        for lowered in self.kernels.iter().filter(|k| k.phase == phase) {
            let bindings = std::iter::once(&lowered.root)
                .chain(&lowered.operands)
                .chain(&lowered.also)
                .map(|&node| place(places, self.graph, node))
                .collect::<Result<Vec<&Slice>>>()?;
            lowered
                .kernel(self.rows(lowered.root))?
                .record(gpu, recording, &bindings, scratch)?;
        }
        Ok(())
    }

    fn block_part(
        &self,
        gpu: &Gpu,
        block: &BlockTargets,
        part: &BlockPart,
        first: usize,
        (places, scratch): (&mut HashMap<NodeId, Slice>, Option<&Slice>),
        recording: &mut Recording,
    ) -> Result<()> {
        let graph = self.graph;
        let wanted = self.results[first..].iter().zip(&self.direct[first..]);
        for (&node, slice) in block.directions.iter().zip(&part.directions) {
            places.insert(node, slice.clone());
        }
        for ((&result, _), slice) in wanted
            .clone()
            .zip(&part.targets)
            .filter(|((_, direct), _)| **direct)
        {
            places.insert(result, slice.clone());
        }
        self.phase(gpu, BLOCK, places, scratch, recording)?;
        for (((&result, _), destination), &target) in wanted
            .zip(&part.targets)
            .zip(&block.targets)
            .filter(|(((_, direct), _), _)| !**direct)
        {
            let source = place(places, graph, result)?;
            let each = elements(&graph.shape(target)[1..]);
            // A direction that is itself a result has its rows at the pitch, too.
            let is_direction = block.directions.contains(&result);
            let from_pitch = if is_direction { block.pitch } else { each };
            for row in 0..graph.shape(target)[0] {
                let (from, start) = (row * from_pitch, row * block.pitch);
                recording.copy_part(source, from, destination, start, each)?;
            }
        }
        Ok(())
    }
}

impl Executable {
    /// Compiles the program that writes each target node to its slice.
    ///
    /// # Errors
    /// [`Error::Length`] when a slice does not fit its node; limits of the device; refused shaders.
    pub fn new(
        gpu: &Gpu,
        graph: &Graph,
        leaves: &DeviceLeaves,
        targets: &[(NodeId, Slice)],
    ) -> Result<Self> {
        let targets = targets.iter().cloned();
        let (wanted, slices): (Vec<Wanted>, Vec<Slice>) = targets
            .map(|(node, slice)| (Wanted::from(node), slice))
            .unzip();
        Self::with_rows(gpu, graph, leaves, &wanted, &slices)
    }

    /// As [`new`](Self::new), for targets whose rows may lie apart.
    ///
    /// # Errors
    /// As [`new`](Self::new).
    pub fn with_rows(
        gpu: &Gpu,
        graph: &Graph,
        leaves: &DeviceLeaves,
        wanted: &[Wanted],
        slices: &[Slice],
    ) -> Result<Self> {
        let of = |list: &[(NodeId, Slice)]| list.iter().map(|&(node, _)| node).collect();
        let [directions, points]: [Vec<NodeId>; 2] = [of(&leaves.directions), of(&leaves.points)];
        Planned::new(gpu, graph, [&directions, &points], wanted, None)?
            .record(gpu, leaves, slices, None)
    }
}

fn place_leaves(
    gpu: &Gpu,
    graph: &Graph,
    leaves: &DeviceLeaves,
    results: &[NodeId],
) -> Result<HashMap<NodeId, Slice>> {
    let mut places = HashMap::new();
    for (leaf, slice) in graph.parameters().iter().zip(&leaves.parameters) {
        places.insert(leaf.node, slice.clone());
    }
    for (leaf, slice) in graph.inputs().iter().zip(&leaves.inputs) {
        places.insert(leaf.node, slice.clone());
    }
    places.extend(leaves.directions.iter().chain(&leaves.points).cloned());
    let needed = graph.ancestors(results);
    for (index, node) in graph.nodes().iter().enumerate() {
        if let (true, Op::Data(data)) = (needed[index], &node.op) {
            let slice = gpu.buffer("constant tensor", graph.data(*data).len())?;
            gpu.upload(&slice, 0, graph.data(*data))?;
            places.insert(NodeId(index), slice);
        }
    }
    Ok(places)
}

fn place<'a>(places: &'a HashMap<NodeId, Slice>, graph: &Graph, node: NodeId) -> Result<&'a Slice> {
    places.get(&node).ok_or_else(|| Error::Shape {
        node: graph.describe(node),
        message: "it has no value: give the program a slice for this leaf".into(),
    })
}
