//! Elementwise kernels over the same elements, of which one reads the other, become one kernel with several results.

use std::collections::{BTreeSet, HashMap, HashSet};

use super::fusion::{Fusion, buffers_read, elementwise_in, only_units};
use super::node::{Graph, NodeId};
use super::op::Op;

/// Joins kernels: see [`Sharing::run`].
pub(super) struct Sharing<'a> {
    graph: &'a Graph,
    targets: &'a [NodeId],
    fusion: &'a mut Fusion,
    max_operands: usize,
    /// The buffers that the kernel of each node reads, what is computed inside it included.
    reads: HashMap<NodeId, BTreeSet<NodeId>>,
    /// The other way round: the nodes whose kernels read the buffer of each node, in ascending order.
    readers: HashMap<NodeId, Vec<NodeId>>,
    /// The kernel in which each node with a buffer is computed.
    host: HashMap<NodeId, NodeId>,
}

/// Most results of a kernel.
const MOST_RESULTS: usize = 4;

impl<'a> Sharing<'a> {
    pub(super) fn new(
        graph: &'a Graph,
        targets: &'a [NodeId],
        needed: &[bool],
        fusion: &'a mut Fusion,
        max_operands: usize,
    ) -> Self {
        let all = buffers_read(graph, needed, &fusion.in_buffer);
        let reads = fusion.kernels.iter().map(|&root| {
            let mut reads = all[root.0].clone();
            // What is inside has no buffer: its reads are among those of the root already.
            reads.remove(&root.0);
            (root, reads.into_iter().map(NodeId).collect())
        });
        let reads: HashMap<NodeId, BTreeSet<NodeId>> = reads.collect();
        let mut readers: HashMap<NodeId, Vec<NodeId>> = HashMap::new();
        let mut ascending = fusion.kernels.clone();
        ascending.sort_unstable();
        for reader in ascending {
            for &read in &reads[&reader] {
                readers.entry(read).or_default().push(reader);
            }
        }
        Self {
            graph,
            targets,
            max_operands,
            reads,
            readers,
            host: fusion.kernels.iter().map(|&root| (root, root)).collect(),
            fusion,
        }
    }

    /// Moves elementwise nodes into the kernel of one that they read, or else of the first one that reads them.
    pub(super) fn run(mut self) {
        for node in self.fusion.kernels.clone() {
            let moves = self.graph.node(node).op.is_pointwise()
                && self.graph.node(node).op != Op::Reshape
                && self.fusion.inside[node.0].is_none()
                && !self.targets.contains(&node)
                && !self.fusion.also.contains_key(&node);
            if !moves {
                continue;
            }
            let read: Vec<NodeId> = self.reads[&node]
                .iter()
                .filter_map(|read| self.host.get(read).copied())
                .collect();
            let readers: Vec<NodeId> = self
                .readers(node)
                .map(|reader| self.host[&reader])
                .collect();
            let candidates = read
                .into_iter()
                .max_by_key(|&host| self.position(host))
                .into_iter()
                .chain(readers.into_iter().min_by_key(|&host| self.position(host)));
            for host in candidates {
                if self.fits(node, host) {
                    self.host.insert(node, host);
                    self.fusion.also.entry(host).or_default().push(node);
                    break;
                }
            }
        }
        self.drop_buffers();
    }

    fn position(&self, root: NodeId) -> (usize, usize) {
        (self.fusion.phase[root.0], root.0)
    }

    /// The nodes with a buffer that read `node`'s.
    fn readers(&self, node: NodeId) -> impl Iterator<Item = NodeId> + '_ {
        self.readers.get(&node).into_iter().flatten().copied()
    }

    /// The nodes that a kernel stores, in ascending order.
    fn stored(&self, host: NodeId) -> Vec<NodeId> {
        let also = self.fusion.also.get(&host).into_iter().flatten();
        let mut all: Vec<NodeId> = std::iter::once(host).chain(also.copied()).collect();
        all.sort_unstable();
        all
    }

    fn fits(&self, node: NodeId, host: NodeId) -> bool {
        let graph = self.graph;
        let computes = |root: NodeId| match self.fusion.inside[root.0] {
            Some(inner) => matches!(graph.node(inner).op, Op::Dot { .. }),
            None => {
                let op = &graph.node(root).op;
                op.is_pointwise() && *op != Op::Reshape || matches!(op, Op::Dot { .. })
            }
        };
        let mut members = self.stored(host);
        members.push(node);
        members.sort_unstable();
        let mut reads: BTreeSet<NodeId> = BTreeSet::new();
        for member in &members {
            reads.extend(&self.reads[member]);
        }
        for member in &members {
            reads.remove(member);
        }
        let in_time = |read: &NodeId| {
            let at = self.host.get(read).copied();
            at.is_none_or(|at| self.position(at) < self.position(host))
        };
        // Everyone else who reads the node does so later.
        let read_later = self.readers(node).all(|reader| {
            let at = self.host[&reader];
            at == host || self.position(at) > self.position(host)
        });
        node != host
            && computes(host)
            && self.host[&host] == host
            && self.fusion.phase[node.0] == self.fusion.phase[host.0]
            && only_units(graph.shape(node), graph.shape(host))
            && members.len() <= MOST_RESULTS
            && self.operands(host, &members, &reads) + members.len() - 1 <= self.max_operands
            && reads.iter().all(in_time)
            && read_later
            && members.iter().all(|&reader| {
                members.iter().all(|&read| {
                    read == reader
                        || !self.reads[&reader].contains(&read)
                        || elementwise_in(
                            graph,
                            &self.fusion.in_buffer,
                            reader,
                            reader,
                            read,
                            &mut HashMap::new(),
                        )
                })
            })
    }

    /// Operands of a kernel that stores `members` and reads the buffers `reads`. A matrix product has bindings of its own for what it
    /// reads, also where they are one buffer, or one that is read elementwise, too.
    fn operands(&self, host: NodeId, members: &[NodeId], reads: &BTreeSet<NodeId>) -> usize {
        let graph = self.graph;
        let product = self.fusion.inside[host.0].unwrap_or(host);
        if !matches!(graph.node(product).op, Op::Dot { .. }) {
            return reads.len();
        }
        let mut elementwise = BTreeSet::new();
        let mut seen = BTreeSet::new();
        let mut pending: Vec<NodeId> = members.to_vec();
        while let Some(next) = pending.pop() {
            if next == product || !seen.insert(next) {
                continue;
            }
            for &operand in &graph.node(next).operands {
                let is_buffer =
                    self.fusion.in_buffer[operand.0] || graph.node(operand).op.is_leaf();
                if is_buffer && reads.contains(&operand) {
                    elementwise.insert(operand);
                } else if !is_buffer {
                    pending.push(operand);
                }
            }
        }
        2 + elementwise.len()
    }

    /// What only its own kernel reads needs no buffer.
    fn drop_buffers(self) {
        let all: Vec<(NodeId, NodeId)> = self
            .fusion
            .also
            .iter()
            .flat_map(|(&host, also)| also.iter().map(move |&node| (host, node)))
            .collect();
        for &(host, node) in &all {
            let outside = self.readers(node).any(|reader| self.host[&reader] != host);
            if !outside {
                self.fusion.in_buffer[node.0] = false;
                if let Some(also) = self.fusion.also.get_mut(&host) {
                    also.retain(|&other| other != node);
                }
            }
        }
        let joined: HashSet<NodeId> = all.into_iter().map(|(_, node)| node).collect();
        self.fusion.kernels.retain(|root| !joined.contains(root));
    }
}
