//! A model written out for a number of rows, and its derivatives.

use super::GraphObjective;
use super::inputs::Inputs;
use crate::error::{Error, Result};
use crate::gpu::Slice;
use crate::graph::batch::WIDE;
use crate::graph::derivatives::{cut, gauss_newton_product, gradient, hessian_product};
use crate::graph::difference::{Move, difference};
use crate::graph::executable::DeviceLeaves;
use crate::graph::node::{Leaf, elements};
use crate::graph::{Binary, DType, Graph, NodeId};
use crate::nn::Traced;
use crate::objective::Curvature;
use crate::vector::{Entry, Vector};

/// The derivatives of a program, one node per parameter; without curvature no directions and no products.
pub(super) struct Derivatives {
    pub(super) gradients: Vec<NodeId>,
    pub(super) directions: Vec<NodeId>,
    pub(super) products: Vec<NodeId>,
}

/// A model written out for a number of rows, with its weighted loss.
pub(super) struct Program {
    pub(super) traced: Traced,
    pub(super) parameters: Vec<NodeId>,
    /// Of the examples' losses, `[rows]`.
    pub(super) weights: NodeId,
    /// Weighted sum of the examples' losses, `[1]`.
    pub(super) data_loss: NodeId,
    /// That plus the `l2` term.
    pub(super) loss: NodeId,
}

/// Name of the input that holds the sum of a batch's weights.
pub(super) const TOTAL: &str = "total weight";

impl GraphObjective {
    /// The program of a batch of `rows` rows.
    pub(super) fn trace(&self, rows: usize) -> Result<Program> {
        let mut traced = self.model.trace(rows)?;
        let weights = traced.graph.input("weights", &[rows], DType::F32)?;
        self.weighted(traced, weights)
    }

    /// The loss with these weights of the rows, `[rows]`.
    pub(super) fn weighted(&self, mut traced: Traced, weights: NodeId) -> Result<Program> {
        self.check_parameters(&traced)?;
        let graph = &mut traced.graph;
        let weighted = graph.binary(Binary::Mul, weights, traced.losses)?;
        let data_loss = graph.sum(weighted, &[0])?;
        let parameters: Vec<NodeId> = graph.parameters().iter().map(|p| p.node).collect();
        let mut loss = data_loss;
        if self.l2 > 0.0 {
            for &parameter in &parameters {
                let square = graph.binary(Binary::Mul, parameter, parameter)?;
                let axes: Vec<usize> = (0..graph.shape(square).len()).collect();
                let sum = graph.sum(square, &axes)?;
                let sum = graph.reshape(sum, &[1])?;
                let half = graph.constant(0.5 * self.l2, &[1]);
                let term = graph.binary(Binary::Mul, half, sum)?;
                loss = graph.binary(Binary::Add, loss, term)?;
            }
        }
        Ok(Program {
            traced,
            parameters,
            weights,
            data_loss,
            loss,
        })
    }

    /// The parameters must not change with the number of rows: there is one vector of them for all.
    fn check_parameters(&self, traced: &Traced) -> Result<()> {
        let graph = &traced.graph;
        let (found, known) = (graph.parameters(), self.layout.entries());
        let same = |(p, e): (&Leaf, &Entry)| p.name == e.name && *graph.shape(p.node) == e.shape;
        if found.len() == known.len() && found.iter().zip(known).all(same) {
            return Ok(());
        }
        let list = |parts: Vec<String>| parts.join(", ");
        let found = found.iter().map(|p| graph.describe(p.node)).collect();
        let known = known.iter().map(|e| format!("'{}' {:?}", e.name, e.shape));
        Err(Error::Shape {
            node: "the model's parameters".into(),
            message: format!(
                "are {} here, but {} for one row; their names and shapes must not depend on Scope::rows",
                list(found),
                list(known.collect())
            ),
        })
    }

    /// A vector of parameters may be larger than a binding, but kernels of a graph bind its tensors whole.
    pub(super) fn check_bindings(&self) -> Result<()> {
        self.layout.entries().iter().try_for_each(|entry| {
            let what = format!("tensor '{}' of theta", entry.name);
            self.gpu.check_binding(what, entry.elements())
        })
    }

    pub(super) fn leaves(
        &self,
        graph: &Graph,
        theta: &Vector,
        inputs: &Inputs,
    ) -> Result<DeviceLeaves> {
        self.check_bindings()?;
        if theta.layout() != &self.layout {
            return Err(Error::Shape {
                node: "theta".into(),
                message: "was made for another model; use initial_parameters of this objective"
                    .into(),
            });
        }
        let mut slices = Vec::new();
        for leaf in graph.inputs() {
            let slice = match leaf.name.strip_prefix(WIDE).unwrap_or(&leaf.name) {
                "features" => inputs.features.as_ref(),
                "targets" => inputs.targets.as_ref(),
                TOTAL => Some(&inputs.total),
                _ => Some(&inputs.weights),
            };
            // Inputs that gave way to wide ones are as long as one group.
            if let Some(slice) = slice {
                slices.push(slice.slice(0..elements(graph.shape(leaf.node)))?);
            }
        }
        Ok(DeviceLeaves {
            parameters: theta.parts().to_vec(),
            inputs: slices,
            ..DeviceLeaves::default()
        })
    }

    /// Extends a program by what each example's loss gains, `[rows]`, where the parameters move.
    pub(super) fn gains(&self, program: &mut Program) -> Result<(NodeId, Vec<Move>)> {
        let losses = program.traced.losses;
        let graph = &mut program.traced.graph;
        let moves: Vec<Move> = program
            .parameters
            .iter()
            .map(|&node| {
                let shape = graph.shape(node).clone();
                let to = graph.direction(&shape);
                Move { node, to }
            })
            .collect();
        let gains = difference(graph, &[losses], &moves)?;
        let rows = graph.shape(losses).clone();
        let gains = match gains[0] {
            Some(gains) => gains,
            // A loss that depends on no parameter.
            None => graph.constant(0.0, &rows),
        };
        Ok((gains, moves))
    }

    /// Extends a program by its derivatives.
    pub(super) fn differentiate(
        &self,
        program: &mut Program,
        curvature: Curvature,
    ) -> Result<Derivatives> {
        let (losses, outputs) = (program.traced.losses, program.traced.outputs);
        let (graph, parameters) = (&mut program.traced.graph, &program.parameters);
        let gradients = gradient(graph, program.loss, parameters)?;
        let mut directions = Vec::new();
        let mut products = Vec::new();
        if curvature != Curvature::None {
            for &parameter in parameters {
                let shape = graph.shape(parameter).clone();
                directions.push(graph.direction(&shape));
            }
            products = match curvature {
                Curvature::GaussNewton => {
                    check_cut(graph, losses, outputs, parameters)?;
                    let products = gauss_newton_product(
                        graph,
                        program.data_loss,
                        outputs,
                        parameters,
                        &directions,
                    )?;
                    with_l2(graph, products, &directions, self.l2)?
                }
                _ => hessian_product(graph, &gradients, parameters, &directions)?,
            };
        }
        Ok(Derivatives {
            gradients,
            directions,
            products,
        })
    }
}

pub(super) fn pairs(nodes: &[NodeId], slices: &[Slice]) -> Vec<(NodeId, Slice)> {
    nodes.iter().copied().zip(slices.iter().cloned()).collect()
}

/// The Gauss-Newton matrix is defined only when the loss sees the parameters through the outputs alone.
pub(super) fn check_cut(
    graph: &Graph,
    losses: NodeId,
    outputs: NodeId,
    parameters: &[NodeId],
) -> Result<()> {
    let outputs = cut(graph, outputs);
    let mut pending = vec![losses];
    let mut seen = vec![false; graph.nodes().len()];
    while let Some(id) = pending.pop() {
        if id == outputs || seen[id.index()] {
            continue;
        }
        seen[id.index()] = true;
        if parameters.contains(&id) {
            return Err(Error::Unsupported {
                what: "the Gauss-Newton matrix".into(),
                message: format!(
                    "the loss depends on {} other than through the outputs; return other outputs, or use Curvature::Hessian",
                    graph.describe(id)
                ),
            });
        }
        pending.extend(&graph.node(id).operands);
    }
    Ok(())
}

fn with_l2(
    graph: &mut Graph,
    products: Vec<NodeId>,
    directions: &[NodeId],
    l2: f32,
) -> Result<Vec<NodeId>> {
    products
        .into_iter()
        .zip(directions)
        .map(|(product, &direction)| {
            let shape = graph.shape(direction).clone();
            let factor = graph.constant(l2, &shape);
            let term = graph.binary(Binary::Mul, factor, direction)?;
            graph.binary(Binary::Add, product, term)
        })
        .collect()
}
