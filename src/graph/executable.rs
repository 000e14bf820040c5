//! A program on a device: the kernels of a plan, recorded over slices.

use std::collections::HashMap;
use std::sync::Arc;

use super::arena::Arena;
pub use super::fit::{BlockPart, DeviceLeaves};
use super::fit::{check_leaves, check_slices};
use super::listing::Listing;
use super::node::{Graph, NodeId, elements};
use super::op::Op;
use super::phase::{BLOCK, CHANGE, LINEARIZE, PHASES, PRODUCT};
use super::plan::{Plan, Request, Target, Wanted};
use crate::error::{Error, Result};
use crate::gpu::{Gpu, Recording, Slice};
use crate::kernels::template::{Kernel, compile};

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
    pub listing: Arc<Listing>,
}

impl Executable {
    /// Plans the program that writes each node to its slice, and binds it to buffers of its own.
    ///
    /// # Errors
    /// Those of [`Plan::new`] and [`Plan::bind`].
    pub fn new(
        gpu: &Gpu,
        graph: &Graph,
        leaves: &DeviceLeaves,
        results: &[(NodeId, Slice)],
    ) -> Result<Self> {
        let of = |list: &[(NodeId, Slice)]| list.iter().map(|&(node, _)| node).collect();
        let (nodes, slices): (Vec<Wanted>, Vec<Slice>) = results
            .iter()
            .map(|(node, slice)| (Wanted::from(*node), slice.clone()))
            .unzip();
        let request = Request {
            directions: of(&leaves.directions),
            points: of(&leaves.points),
            wanted: nodes,
            block: None,
        };
        let plan = Plan::new(&Target::of(gpu), graph.clone(), request)?;
        plan.bind(gpu, &mut Arena::default(), leaves, &slices, &[])
    }
}

impl Plan {
    /// Compiles the kernels that the device does not know yet and records them over these slices: `results` for what is wanted, and, for
    /// each part of a block, one after another, its own. Values that a later phase needs get buffers of their own, others those of the
    /// arena.
    ///
    /// # Errors
    /// [`Error::Length`] when a slice does not fit its node; limits of the device; refused shaders.
    pub fn bind(
        &self,
        gpu: &Gpu,
        arena: &mut Arena,
        leaves: &DeviceLeaves,
        results: &[Slice],
        parts: &[BlockPart],
    ) -> Result<Executable> {
        let graph = &self.graph;
        check_leaves(graph, leaves)?;
        check_slices(graph, self.request.wanted.iter().copied(), results.iter())?;
        self.request.check_parts(graph, parts)?;
        let kernels: Vec<&Kernel> = self.kernels.iter().map(|k| &k.kernel).collect();
        compile(gpu, &kernels)?;
        let mut places = self.leaves(gpu, leaves)?;
        let scratch = self.spaces(gpu, arena, &mut places)?;
        let scratch = scratch.as_ref();
        let single = self.results.iter().zip(&self.direct).zip(results);
        for ((&result, _), slice) in single.clone().filter(|((_, direct), _)| **direct) {
            places.insert(result, slice.clone());
        }
        let mut phases = [(); PHASES].map(|()| Recording::new());
        for phase in [LINEARIZE, PRODUCT, CHANGE] {
            self.phase(gpu, phase, &places, scratch, &mut phases[phase])?;
        }
        for (((&result, _), destination), wanted) in single
            .zip(&self.request.wanted)
            .filter(|(((_, direct), _), _)| !**direct)
        {
            let source = place(&places, graph, result)?;
            let recording = &mut phases[self.phase[result.0]];
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
        for part in parts {
            self.block_part(gpu, part, (&mut places, scratch), &mut phases[BLOCK])?;
        }
        let [linearize, product, block, change] = phases;
        Ok(Executable {
            linearize,
            product,
            block,
            change,
            listing: Arc::clone(self.listing()),
        })
    }

    /// Slices of the leaves, and buffers for the tensors that are part of the graph.
    fn leaves(&self, gpu: &Gpu, leaves: &DeviceLeaves) -> Result<HashMap<NodeId, Slice>> {
        let graph = &self.graph;
        let mut places = HashMap::new();
        for (leaf, slice) in graph.parameters().iter().zip(&leaves.parameters) {
            places.insert(leaf.node, slice.clone());
        }
        for (leaf, slice) in graph.inputs().iter().zip(&leaves.inputs) {
            places.insert(leaf.node, slice.clone());
        }
        places.extend(leaves.directions.iter().chain(&leaves.points).cloned());
        let needed = graph.ancestors(&self.results);
        for (index, node) in graph.nodes().iter().enumerate() {
            if let (true, Op::Data(data)) = (needed[index], &node.op) {
                let slice = gpu.buffer("constant tensor", graph.data(*data).len())?;
                gpu.upload(&slice, 0, graph.data(*data))?;
                places.insert(NodeId(index), slice);
            }
        }
        Ok(places)
    }

    /// Gives every other value its buffer; what is left is for parts of sums.
    fn spaces(
        &self,
        gpu: &Gpu,
        arena: &mut Arena,
        places: &mut HashMap<NodeId, Slice>,
    ) -> Result<Option<Slice>> {
        let passing = self.spaces.iter().filter(|space| !space.kept);
        let mut sizes: Vec<usize> = passing.map(|space| space.size).collect();
        sizes.extend((self.scratch > 0).then_some(self.scratch));
        let mut lent = arena.lend(gpu, &sizes)?.into_iter();
        let buffers: Vec<Slice> = self
            .spaces
            .iter()
            .map(|space| match if space.kept { None } else { lent.next() } {
                Some(slice) => Ok(slice),
                None => gpu.buffer("values for later phases", space.size),
            })
            .collect::<Result<_>>()?;
        for &(node, space) in &self.assigned {
            let all = elements(self.graph.shape(node));
            places.insert(node, buffers[space].slice(0..all)?);
        }
        Ok(lent.next())
    }

    fn phase(
        &self,
        gpu: &Gpu,
        phase: usize,
        places: &HashMap<NodeId, Slice>,
        scratch: Option<&Slice>,
        recording: &mut Recording,
    ) -> Result<()> {
        for planned in self.kernels.iter().filter(|k| k.phase == phase) {
            let bindings = planned
                .bindings
                .iter()
                .map(|&node| place(places, &self.graph, node))
                .collect::<Result<Vec<&Slice>>>()?;
            planned.kernel.record(gpu, recording, &bindings, scratch)?;
        }
        Ok(())
    }

    fn block_part(
        &self,
        gpu: &Gpu,
        part: &BlockPart,
        (places, scratch): (&mut HashMap<NodeId, Slice>, Option<&Slice>),
        recording: &mut Recording,
    ) -> Result<()> {
        let Some(block) = &self.request.block else {
            return Ok(());
        };
        let (graph, first) = (&self.graph, self.request.wanted.len());
        let results = self.results[first..].iter().zip(&self.direct[first..]);
        for (&node, slice) in block.directions.iter().zip(&part.directions) {
            places.insert(node, slice.clone());
        }
        for ((&result, _), slice) in results
            .clone()
            .zip(&part.results)
            .filter(|((_, direct), _)| **direct)
        {
            places.insert(result, slice.clone());
        }
        self.phase(gpu, BLOCK, places, scratch, recording)?;
        for (((&result, _), destination), &target) in results
            .zip(&part.results)
            .zip(&block.results)
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

fn place<'a>(places: &'a HashMap<NodeId, Slice>, graph: &Graph, node: NodeId) -> Result<&'a Slice> {
    places.get(&node).ok_or_else(|| Error::Shape {
        node: graph.describe(node),
        message: "it has no value: give the program a slice for this leaf".into(),
    })
}
