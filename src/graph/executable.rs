//! A program on a device: kernels recorded over buffers that are planned by lifetime.

use std::collections::HashMap;

use super::lower::{Plan, operand_limit, plan, same_buffer};
use super::node::{Graph, NodeId, elements};
use super::op::Op;
use crate::error::{Error, Result};
use crate::gpu::{Gpu, Recording, Slice};
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
}

/// A recorded program in two phases: `linearize` runs once per parameters and inputs, `product` once per direction.
#[derive(Debug)]
pub struct Executable {
    /// Everything that depends on parameters and inputs alone.
    pub linearize: Recording,
    /// Everything that depends on a direction.
    pub product: Recording,
    /// Elements of the buffers that hold intermediate values.
    pub planned_elements: usize,
}

/// A planned buffer: its size, and the last kernel that reads what is in it now.
struct Slot {
    size: usize,
    busy_until: usize,
}

const FOREVER: usize = usize::MAX;

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
        check_leaves(graph, leaves, targets)?;
        let directions: Vec<NodeId> = leaves.directions.iter().map(|&(node, _)| node).collect();
        let results: Vec<NodeId> = targets
            .iter()
            .map(|&(node, _)| same_buffer(graph, node))
            .collect();
        let limit = operand_limit(gpu.limits().max_storage_buffers_per_shader_stage);
        let plan = plan(graph, &results, &directions, limit);
        let products = Products::of(gpu);
        let mut kernels = Vec::with_capacity(plan.kernels.len());
        let mut reads: Vec<Vec<NodeId>> = Vec::with_capacity(plan.kernels.len());
        for &root in &plan.kernels {
            let (kernel, operands) = plan.kernel(graph, root, &products)?;
            kernels.push(kernel);
            reads.push(operands);
        }
        let mut places = place_leaves(gpu, graph, leaves, &results)?;
        let read_again: Vec<NodeId> = reads.iter().flatten().copied().collect();
        let mut copies = Vec::new();
        for (&result, (_, slice)) in results.iter().zip(targets) {
            // A result that is wanted twice is copied to both places, which may lie in one buffer.
            let direct = !graph.node(result).op.is_leaf()
                && !read_again.contains(&result)
                && results.iter().filter(|&&other| other == result).count() == 1;
            if direct {
                places.insert(result, slice.clone());
            } else {
                copies.push((result, slice.clone()));
            }
        }
        let (assigned, slots) = assign_slots(graph, &plan, &reads, &places, &copies);
        let buffers: Vec<Slice> = slots
            .iter()
            .map(|slot| gpu.buffer("intermediate values", slot.size))
            .collect::<Result<_>>()?;
        for (node, slot) in assigned {
            places.insert(node, buffers[slot].slice(0..elements(graph.shape(node)))?);
        }
        let mut recordings = [Recording::new(), Recording::new()];
        for ((&root, kernel), operands) in plan.kernels.iter().zip(kernels).zip(&reads) {
            let bindings = std::iter::once(&root)
                .chain(operands)
                .map(|&node| place(&places, graph, node))
                .collect::<Result<Vec<&Slice>>>()?;
            kernel.record(gpu, &mut recordings[plan.phase[root.0]], &bindings)?;
        }
        for (node, destination) in copies {
            let source = place(&places, graph, node)?;
            recordings[plan.phase[node.0]]
                .copy(&source.slice(0..destination.len())?, &destination)?;
        }
        let [linearize, product] = recordings;
        Ok(Executable {
            linearize,
            product,
            planned_elements: slots.iter().map(|slot| slot.size).sum(),
        })
    }
}

fn check_leaves(graph: &Graph, leaves: &DeviceLeaves, targets: &[(NodeId, Slice)]) -> Result<()> {
    let check = |node: NodeId, slice: Option<&Slice>| -> Result<()> {
        let (found, expected) = (slice.map_or(0, Slice::len), elements(graph.shape(node)));
        if found == expected {
            Ok(())
        } else {
            Err(Error::Length {
                what: graph.describe(node),
                found,
                expected,
            })
        }
    };
    for (i, leaf) in graph.parameters().iter().enumerate() {
        check(leaf.node, leaves.parameters.get(i))?;
    }
    for (i, leaf) in graph.inputs().iter().enumerate() {
        check(leaf.node, leaves.inputs.get(i))?;
    }
    for (node, slice) in leaves.directions.iter().chain(targets) {
        check(*node, Some(slice))?;
    }
    Ok(())
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
    places.extend(leaves.directions.iter().cloned());
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

/// Assigns slots to the values that have no place yet, reusing a slot once its value has been read for the last time.
fn assign_slots(
    graph: &Graph,
    plan: &Plan,
    reads: &[Vec<NodeId>],
    places: &HashMap<NodeId, Slice>,
    copies: &[(NodeId, Slice)],
) -> (Vec<(NodeId, usize)>, Vec<Slot>) {
    let mut last_read: HashMap<NodeId, usize> = HashMap::new();
    for (kernel, operands) in reads.iter().enumerate() {
        for &operand in operands {
            // Products are repeated: what they read from phase 0 must survive them all.
            let crosses = plan.phase[operand.0] == 0 && plan.phase[plan.kernels[kernel].0] == 1;
            let until = if crosses { FOREVER } else { kernel };
            let entry = last_read.entry(operand).or_insert(until);
            *entry = (*entry).max(until);
        }
    }
    for (node, _) in copies {
        last_read.insert(*node, FOREVER);
    }
    let mut slots: Vec<Slot> = Vec::new();
    let mut assigned = Vec::new();
    for (kernel, &root) in plan.kernels.iter().enumerate() {
        if places.contains_key(&root) {
            continue;
        }
        let size = elements(graph.shape(root));
        let until = last_read.get(&root).copied().unwrap_or(kernel);
        // A value that stays would take what is left over of a larger slot from everybody else.
        let fits = |slot: &Slot| {
            slot.size >= size && (until != FOREVER || size.saturating_mul(4) >= slot.size * 3)
        };
        let best = (0..slots.len())
            .filter(|&s| slots[s].busy_until < kernel && fits(&slots[s]))
            .min_by_key(|&s| slots[s].size);
        let slot = match best {
            Some(slot) => slot,
            None => {
                slots.push(Slot {
                    size,
                    busy_until: 0,
                });
                slots.len() - 1
            }
        };
        slots[slot].busy_until = until;
        assigned.push((root, slot));
    }
    (assigned, slots)
}

fn place<'a>(places: &'a HashMap<NodeId, Slice>, graph: &Graph, node: NodeId) -> Result<&'a Slice> {
    places.get(&node).ok_or_else(|| Error::Shape {
        node: graph.describe(node),
        message: "it has no value: give the program a slice for this leaf".into(),
    })
}
