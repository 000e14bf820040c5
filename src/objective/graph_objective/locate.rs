//! The node at which loss, gradient or curvature products stop being finite, found on the CPU.

use super::GraphObjective;
use super::program::check_cut;
use crate::data::{Batch, Targets};
use crate::error::Result;
use crate::graph::derivatives::{gauss_newton_product, gradient, hessian_product};
use crate::graph::locate::{Located, Rounded, operations};
use crate::graph::twin::Leaves;
use crate::graph::{Graph, NodeId};

/// Results in the order in which they are looked at.
struct Stages {
    graph: Graph,
    loss: NodeId,
    gradients: Vec<NodeId>,
    directions: Vec<NodeId>,
    products: Vec<(&'static str, Vec<NodeId>)>,
}

impl Stages {
    fn operations(&self) -> u64 {
        let products = self.products.iter().flat_map(|(_, nodes)| nodes.iter());
        let mut all: Vec<NodeId> = self.gradients.iter().chain(products).copied().collect();
        all.push(self.loss);
        operations(&self.graph, &all)
    }
}

impl GraphObjective {
    /// See [`Objective::locate`](crate::objective::Objective::locate).
    pub(super) fn find_origin(
        &self,
        parameters: &[Vec<f32>],
        batch: &Batch,
        budget: u64,
    ) -> Result<Located> {
        self.check(batch)?;
        let mut batch = batch.clone();
        let mut stages = self.stages(&batch)?;
        let cost = stages.operations();
        let complete = cost <= budget || batch.len() == 1;
        if !complete {
            // As many examples as may be looked at.
            let rows = batch.len() as f64 * (budget as f64 / cost as f64);
            let first = 0..(rows as usize).max(1);
            batch = batch.part(&[first])?;
            stages = self.stages(&batch)?;
        }
        let wide = |values: &[f32]| values.iter().map(|&x| f64::from(x)).collect::<Vec<f64>>();
        let input = |name: &str| match (name, &batch.targets) {
            ("features", _) => wide(&batch.features),
            ("targets", Targets::Classes { labels, .. }) => {
                labels.iter().copied().map(f64::from).collect()
            }
            ("targets", Targets::Values { values, .. }) => wide(values),
            _ => wide(&batch.weights),
        };
        let graph = &stages.graph;
        let mut leaves = Leaves {
            parameters: parameters.iter().map(|tensor| wide(tensor)).collect(),
            inputs: graph
                .inputs()
                .iter()
                .map(|leaf| input(&leaf.name))
                .collect(),
            directions: Vec::new(),
        };
        let mut rounded = Rounded::default();
        let mut found = rounded.origin(graph, &leaves, &[stages.loss], "the loss")?;
        if found.is_none() {
            found = rounded.origin(graph, &leaves, &stages.gradients, "the gradient")?;
        }
        if found.is_none() {
            let values = stages.gradients.iter().map(|&g| rounded.value(g).to_vec());
            leaves.directions = stages.directions.iter().copied().zip(values).collect();
            for (quantity, nodes) in &stages.products {
                found = rounded.origin(graph, &leaves, nodes, quantity)?;
                if found.is_some() {
                    break;
                }
            }
        }
        if found.is_none() {
            // Parameters that no result shows, such as those behind an activation that is 0.
            let all: Vec<NodeId> = graph.parameters().iter().map(|p| p.node).collect();
            found = rounded.origin(graph, &leaves, &all, "the parameters")?;
        }
        Ok(match found {
            Some(origin) => Located::At(origin),
            None if complete => Located::Nowhere,
            None => Located::Unknown,
        })
    }

    fn stages(&self, batch: &Batch) -> Result<Stages> {
        let program = self.trace(batch.len())?;
        let (losses, outputs) = (program.traced.losses, program.traced.outputs);
        let (mut graph, wrt) = (program.traced.graph, program.parameters);
        let gradients = gradient(&mut graph, program.loss, &wrt)?;
        let mut directions = Vec::new();
        for &parameter in &wrt {
            let shape = graph.shape(parameter).clone();
            directions.push(graph.direction(&shape));
        }
        let mut products = Vec::new();
        let hessian = hessian_product(&mut graph, &gradients, &wrt, &directions);
        if let Ok(nodes) = hessian {
            products.push(("the Hessian product along the gradient", nodes));
        }
        if check_cut(&graph, losses, outputs, &wrt).is_ok() {
            let loss = program.data_loss;
            let nodes = gauss_newton_product(&mut graph, loss, outputs, &wrt, &directions)?;
            products.push(("the Gauss-Newton product along the gradient", nodes));
        }
        Ok(Stages {
            graph,
            loss: program.loss,
            gradients,
            directions,
            products,
        })
    }
}
