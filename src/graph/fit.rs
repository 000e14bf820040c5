//! The nodes and slices that a program is given, and whether they fit its graph.

use super::node::{Graph, NodeId, elements};
use super::plan::{Block, Request, Wanted};
use crate::error::{Error, Result};
use crate::gpu::Slice;

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

/// Slices for one run of the program for a block.
#[derive(Clone, Debug)]
pub struct BlockPart {
    /// One slice per direction.
    pub directions: Vec<Slice>,
    /// One slice per result.
    pub results: Vec<Slice>,
}

impl Wanted {
    /// Whether there is such a node, with rows that do not overlap at the pitch.
    pub(super) fn check(self, graph: &Graph) -> Result<()> {
        graph.check_ids(&[self.node])?;
        let (Some(pitch), shape) = (self.pitch, graph.shape(self.node)) else {
            return Ok(());
        };
        let refuse = |message: String| {
            Err(Error::Shape {
                node: graph.describe(self.node),
                message,
            })
        };
        match shape.split_first() {
            None => refuse("has no rows that could lie at a pitch; ask for it without one".into()),
            Some((_, row)) if pitch < elements(row) => refuse(format!(
                "has rows of {} elements, which overlap at a pitch of {pitch}",
                elements(row)
            )),
            Some(_) => Ok(()),
        }
    }
}

impl Request {
    /// What is wanted, those of the block last.
    pub(super) fn all(&self) -> impl Iterator<Item = Wanted> {
        let block = self
            .block
            .iter()
            .flat_map(|block| block.rows(&block.results));
        self.wanted.iter().copied().chain(block)
    }

    /// Whether all of its nodes are of the graph, and its pitches do.
    pub(super) fn check(&self, graph: &Graph) -> Result<()> {
        graph.check_ids(&self.directions)?;
        graph.check_ids(&self.points)?;
        let directions = self
            .block
            .iter()
            .flat_map(|block| block.rows(&block.directions));
        let mut all = directions.chain(self.all());
        all.try_for_each(|wanted| wanted.check(graph))
    }

    /// Whether every part has a slice for each direction and result of the block, of its length.
    pub(super) fn check_parts(&self, graph: &Graph, parts: &[BlockPart]) -> Result<()> {
        let Some(block) = &self.block else {
            return Ok(());
        };
        for part in parts {
            for (nodes, slices, what) in [
                (
                    &block.directions,
                    &part.directions,
                    "the directions of a block",
                ),
                (&block.results, &part.results, "the results of a block"),
            ] {
                if slices.len() != nodes.len() {
                    return Err(Error::Length {
                        what: format!("the list of slices for {what}"),
                        found: slices.len(),
                        expected: nodes.len(),
                    });
                }
                check_slices(graph, block.rows(nodes), slices.iter())?;
            }
        }
        Ok(())
    }
}

impl Block {
    /// Nodes with their rows at its pitch.
    fn rows(&self, nodes: &[NodeId]) -> impl Iterator<Item = Wanted> {
        let pitch = Some(self.pitch);
        nodes.iter().map(move |&node| Wanted { node, pitch })
    }
}

/// Whether a slice has the length that a node needs; none has length 0.
fn check_length(graph: &Graph, wanted: Wanted, slice: Option<&Slice>) -> Result<()> {
    let (found, expected) = (slice.map_or(0, Slice::len), wanted.span(graph));
    if found == expected {
        return Ok(());
    }
    Err(Error::Length {
        what: graph.describe(wanted.node),
        found,
        expected,
    })
}

/// Whether there is a slice for each result, and no more.
pub(super) fn check_slices<'s>(
    graph: &Graph,
    wanted: impl Iterator<Item = Wanted>,
    mut slices: impl Iterator<Item = &'s Slice>,
) -> Result<()> {
    let mut results = 0;
    for wanted in wanted {
        check_length(graph, wanted, slices.next())?;
        results += 1;
    }
    match slices.count() {
        0 => Ok(()),
        more => Err(Error::Length {
            what: "the list of slices for the results".into(),
            found: results + more,
            expected: results,
        }),
    }
}

pub(super) fn check_leaves(graph: &Graph, leaves: &DeviceLeaves) -> Result<()> {
    let check = |node: NodeId, slice: Option<&Slice>| check_length(graph, node.into(), slice);
    for (i, leaf) in graph.parameters().iter().enumerate() {
        check(leaf.node, leaves.parameters.get(i))?;
    }
    for (i, leaf) in graph.inputs().iter().enumerate() {
        check(leaf.node, leaves.inputs.get(i))?;
    }
    for (node, slice) in leaves.directions.iter().chain(&leaves.points) {
        graph.check_ids(&[*node])?;
        check(*node, Some(slice))?;
    }
    Ok(())
}
