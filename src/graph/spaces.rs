//! Buffers for intermediate values, planned by lifetime.

use std::collections::{HashMap, HashSet};

use super::fusion::Fusion;
use super::lower::Lowered;
use super::node::{Graph, NodeId, elements};

/// A planned buffer.
#[derive(Clone, Copy, Debug)]
pub(super) struct Space {
    /// Elements.
    pub(super) size: usize,
    /// Whether something in it is read in a later phase than it was made in, and so must outlive everything that runs in between.
    pub(super) kept: bool,
    /// The last kernel that reads what is in it now.
    busy_until: usize,
}

const FOREVER: usize = usize::MAX;

/// Assigns spaces to the values that have no place yet, reusing a space once its value has been read for the last time. `placed` need none;
/// `copied` are read at the end of their phase, and `late` in a later one.
pub(super) fn assign_spaces(
    graph: &Graph,
    fusion: &Fusion,
    kernels: &[Lowered],
    (placed, copied, late): (&[NodeId], &[NodeId], &[NodeId]),
) -> (Vec<(NodeId, usize)>, Vec<Space>) {
    let mut last_read: HashMap<NodeId, usize> = HashMap::new();
    let mut crossing: HashSet<NodeId> = late.iter().copied().collect();
    for (kernel, lowered) in kernels.iter().enumerate() {
        for &operand in &lowered.operands {
            // Products are repeated: what they read from another phase must survive them all.
            let crosses = fusion.phase[operand.0] != lowered.phase;
            if crosses {
                crossing.insert(operand);
            }
            let until = if crosses { FOREVER } else { kernel };
            let entry = last_read.entry(operand).or_insert(until);
            *entry = (*entry).max(until);
        }
    }
    for node in copied {
        last_read.insert(*node, FOREVER);
    }
    let mut spaces: Vec<Space> = Vec::new();
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
        // A value that stays would take what is left over of a larger space from everybody else.
        let fits = |space: &Space| {
            space.size >= size && (until != FOREVER || size.saturating_mul(4) >= space.size * 3)
        };
        let best = (0..spaces.len())
            .filter(|&s| spaces[s].busy_until < kernel && fits(&spaces[s]))
            .min_by_key(|&s| spaces[s].size);
        let space = match best {
            Some(space) => space,
            None => {
                spaces.push(Space {
                    size,
                    kept: false,
                    busy_until: 0,
                });
                spaces.len() - 1
            }
        };
        spaces[space].busy_until = until;
        spaces[space].kept |= crossing.contains(&root);
        assigned.push((root, space));
    }
    (assigned, spaces)
}
