//! A compiled program for reading: its kernels with what they compute, what they cost, and the memory.

use std::collections::HashMap;
use std::fmt;

use serde::Serialize;

use super::lower::Lowered;
use super::node::{Graph, NodeId, elements};
use super::phase::{BLOCK, CHANGE, LINEARIZE, PRODUCT};
use super::spaces::Space;

/// One kernel of a program.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct ListedKernel {
    /// 0: once per quadratic; 1: once per product; 2: once per block of products; 3: once per change of the loss.
    pub phase: usize,
    /// Kind of kernel; `product+` is a matrix product with what is elementwise in it.
    pub kind: &'static str,
    /// The node whose value it writes, as [`Graph::describe`] calls it.
    pub result: String,
    /// The other nodes whose values it writes.
    pub also: Vec<String>,
    /// The nodes that it reads from buffers.
    pub operands: Vec<String>,
    /// The first of the results, in the order in which they were asked for, that it is needed for; those of a block come last.
    pub serves: usize,
    /// Floating-point operations: two per term of a matrix product, one per elementwise function and per term of a reduction.
    pub flops: u64,
    /// Bytes of the operands and the results, each counted once.
    pub bytes: u64,
}

/// The kernels of a program in order of execution, and its memory.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Listing {
    /// The kernels.
    pub kernels: Vec<ListedKernel>,
    /// Bytes of each buffer for intermediate values.
    pub buffers: Vec<u64>,
    /// Bytes of those among them that hold values for later phases, which the program has for itself; it shares the others.
    pub kept: u64,
    /// Bytes of all values in them, if each had a buffer of its own.
    pub values: u64,
}

impl Listing {
    /// The kernels of a phase.
    pub fn phase(&self, phase: usize) -> impl Iterator<Item = &ListedKernel> {
        self.kernels.iter().filter(move |k| k.phase == phase)
    }

    /// Floating-point operations of a phase.
    pub fn flops(&self, phase: usize) -> u64 {
        self.phase(phase).map(|k| k.flops).sum()
    }

    /// Bytes of all buffers for intermediate values: the peak of a program by itself.
    pub fn planned_bytes(&self) -> u64 {
        self.buffers.iter().sum()
    }
}

/// A line for each kernel, by phase, and one for the memory.
impl fmt::Display for Listing {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let phases = [
            (LINEARIZE, "once"),
            (PRODUCT, "for each direction"),
            (BLOCK, "for each block of directions"),
            (CHANGE, "for each point"),
        ];
        for (phase, often) in phases {
            if self.phase(phase).next().is_none() {
                continue;
            }
            writeln!(f, "{often}:")?;
            for kernel in self.phase(phase) {
                let written = std::iter::once(&kernel.result).chain(&kernel.also);
                let written: Vec<&str> = written.map(String::as_str).collect();
                writeln!(
                    f,
                    "  {} -> {}, from {}: {} flops, {} bytes",
                    kernel.kind,
                    written.join(", "),
                    match kernel.operands.as_slice() {
                        [] => "nothing".to_string(),
                        operands => operands.join(", "),
                    },
                    kernel.flops,
                    kernel.bytes
                )?;
            }
        }
        writeln!(
            f,
            "{} bytes in {} buffers, {} of them for later phases",
            self.planned_bytes(),
            self.buffers.len(),
            self.kept
        )
    }
}

/// Lists kernels; `results` are the nodes that were asked for, without reshapes, `spaces` the buffers for other values, and `scratch` the
/// elements for parts of sums.
pub(super) fn list(
    graph: &Graph,
    kernels: &[Lowered],
    results: &[NodeId],
    (spaces, scratch): (&[Space], usize),
) -> Listing {
    let bytes = |id: NodeId| 4 * elements(graph.shape(id)) as u64;
    let serves = serves(kernels, results);
    Listing {
        kernels: kernels
            .iter()
            .zip(serves)
            .map(|(lowered, serves)| {
                let mut read = lowered.operands.clone();
                read.sort_unstable();
                read.dedup();
                ListedKernel {
                    phase: lowered.phase,
                    kind: lowered.kind(),
                    result: graph.describe(lowered.root),
                    also: lowered.also.iter().map(|&id| graph.describe(id)).collect(),
                    operands: read.iter().map(|&id| graph.describe(id)).collect(),
                    serves,
                    flops: lowered.flops(),
                    bytes: bytes(lowered.root)
                        + lowered.also.iter().map(|&id| bytes(id)).sum::<u64>()
                        + read.iter().map(|&id| bytes(id)).sum::<u64>(),
                }
            })
            .collect(),
        buffers: spaces
            .iter()
            .map(|space| space.size)
            .chain((scratch > 0).then_some(scratch))
            .map(|elements| 4 * elements as u64)
            .collect(),
        kept: spaces
            .iter()
            .filter(|space| space.kept)
            .map(|space| 4 * space.size as u64)
            .sum(),
        values: kernels
            .iter()
            .flat_map(|lowered| std::iter::once(&lowered.root).chain(&lowered.also))
            .map(|&id| bytes(id))
            .sum(),
    }
}

/// For each kernel the first of the results that it is needed for: one walk from the last kernel to the first.
fn serves(kernels: &[Lowered], results: &[NodeId]) -> Vec<usize> {
    let mut first: HashMap<NodeId, usize> = HashMap::new();
    let note = |of: &mut HashMap<NodeId, usize>, node: NodeId, result: usize| {
        let known = of.entry(node).or_insert(result);
        *known = (*known).min(result);
    };
    for (number, &node) in results.iter().enumerate() {
        note(&mut first, node, number);
    }
    let mut all = vec![usize::MAX; kernels.len()];
    for (lowered, serves) in kernels.iter().zip(&mut all).rev() {
        let written = std::iter::once(&lowered.root).chain(&lowered.also);
        *serves = written
            .filter_map(|node| first.get(node))
            .copied()
            .min()
            .unwrap_or(usize::MAX);
        for &operand in &lowered.operands {
            note(&mut first, operand, *serves);
        }
    }
    all
}
