//! The WGSL of a program.

use std::collections::HashMap;

use super::lower::{lower, operand_limit};
use super::node::{Graph, NodeId};
use crate::error::Result;
use crate::kernels::tuning::Products;

/// The WGSL of every kernel of the program that computes `targets`, each with the node whose value it writes: for reading, and for checking
/// with other compilers than the one on this machine.
///
/// # Errors
/// [`Error::Shape`](crate::Error::Shape) for nodes of another graph; what WGSL cannot express.
pub fn sources(
    graph: &Graph,
    targets: &[NodeId],
    directions: &[NodeId],
) -> Result<Vec<(NodeId, String)>> {
    sources_for(graph, targets, directions, &Products::default())
}

/// As [`sources`], with this choice of kernels for matrix products.
///
/// # Errors
/// As [`sources`].
pub fn sources_for(
    graph: &Graph,
    targets: &[NodeId],
    directions: &[NodeId],
    products: &Products,
) -> Result<Vec<(NodeId, String)>> {
    for &node in targets.iter().chain(directions) {
        graph.check_ids(&[node])?;
    }
    let groups = [directions.to_vec()];
    let pitches = HashMap::new();
    let limit = operand_limit(8);
    let (_, kernels) = lower(graph, targets, &groups, limit, &pitches, products)?;
    kernels
        .iter()
        .map(|lowered| {
            Ok((
                lowered.root,
                lowered.kernel(None)?.source(&products.capabilities),
            ))
        })
        .collect()
}
