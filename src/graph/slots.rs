//! Buffers for intermediate values, planned by lifetime.

use std::collections::HashMap;

use super::lower::Lowered;
use super::node::{Graph, NodeId, elements};
use super::plan::Plan;

/// A planned buffer: its size, and the last kernel that reads what is in it now.
pub(super) struct Slot {
    pub(super) size: usize,
    busy_until: usize,
}

const FOREVER: usize = usize::MAX;

/// Assigns slots to the values that have no place yet, reusing a slot once its value has been read for the last time. `placed` need none;
/// `copied` are read at the end of their phase.
pub(super) fn assign_slots(
    graph: &Graph,
    plan: &Plan,
    kernels: &[Lowered],
    placed: &[NodeId],
    copied: &[NodeId],
) -> (Vec<(NodeId, usize)>, Vec<Slot>) {
    let mut last_read: HashMap<NodeId, usize> = HashMap::new();
    for (kernel, lowered) in kernels.iter().enumerate() {
        for &operand in &lowered.operands {
            // Products are repeated: what they read from phase 0 must survive them all.
            let crosses = plan.phase[operand.0] == 0 && lowered.phase > 0;
            let until = if crosses { FOREVER } else { kernel };
            let entry = last_read.entry(operand).or_insert(until);
            *entry = (*entry).max(until);
        }
    }
    for node in copied {
        last_read.insert(*node, FOREVER);
    }
    let mut slots: Vec<Slot> = Vec::new();
    let mut assigned = Vec::new();
    let stored = |lowered: &Lowered| [&[lowered.root], lowered.also.as_slice()].concat();
    for (kernel, root) in kernels
        .iter()
        .map(stored)
        .enumerate()
        .flat_map(|(kernel, stored)| stored.into_iter().map(move |root| (kernel, root)))
    {
        if placed.contains(&root) {
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
