//! Programs of batches as wholes: gradients, quadratics, losses.

use super::GraphObjective;
use super::block::Products;
use super::inputs::Inputs;
use super::program::{Derivatives, pairs};
use crate::error::Result;
use crate::gpu::Recording;
use crate::graph::derivatives::gradient;
use crate::graph::difference::{Move, difference};
use crate::graph::listing::Listing;
use crate::graph::per_example::square_sums;
use crate::graph::{Executable, NodeId};
use crate::objective::losses::{Gains, Losses};
use crate::objective::{Cost, Curvature, Gradient, Loaded, Quadratic, QuadraticRequest};
use crate::vector::Vector;

impl GraphObjective {
    /// Loss and gradient.
    pub(super) fn build_gradient(
        &self,
        theta: &Vector,
        inputs: &Inputs,
        loaded: &Loaded,
    ) -> Result<Gradient> {
        let mut program = self.trace(loaded.rows)?;
        let leaves = self.leaves(&program, theta, inputs)?;
        let value = self.gpu.buffer("loss", 1)?;
        let vector = Vector::new(&self.gpu, "gradient", &self.layout)?;
        let derivatives = self.differentiate(&mut program, Curvature::None)?;
        let mut targets = vec![(program.loss, value.clone())];
        targets.extend(pairs(&derivatives.gradients, vector.parts()));
        let executable = Executable::new(&self.gpu, &program.traced.graph, &leaves, &targets)?;
        Ok(Gradient {
            value,
            gradient: vector,
            run: executable.linearize,
            cost: Cost::of(&executable.listing, targets.len(), self.layout.len()),
            loaded: *loaded,
        })
    }

    /// Losses at `point`, and how they change from those at `base`: the loss at the base in the first phase, what its examples gain in the second.
    pub(super) fn build_losses(
        &self,
        [base, point]: [&Vector; 2],
        inputs: &Inputs,
        loaded: &Loaded,
    ) -> Result<Losses> {
        let mut program = self.trace(loaded.rows)?;
        let mut leaves = self.leaves(&program, base, inputs)?;
        self.leaves(&program, point, inputs)?;
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
        let gains = difference(graph, &[program.traced.losses], &moves)?;
        let rows = graph.shape(program.traced.losses).clone();
        let gains = match gains[0] {
            Some(gains) => gains,
            // A loss that depends on no parameter.
            None => graph.constant(0.0, &rows),
        };
        let ends: Vec<NodeId> = moves.iter().map(|m| m.to).collect();
        leaves.directions = pairs(&ends, point.parts());
        let value = self.gpu.buffer("loss at the base", 1)?;
        let slice = self.gpu.buffer("what losses gain", loaded.rows)?;
        let targets = [(program.loss, value.clone()), (gains, slice.clone())];
        let executable = Executable::new(&self.gpu, &program.traced.graph, &leaves, &targets)?;
        let gains = Gains {
            cost: Cost::of(&executable.listing, 0, loaded.rows),
            value,
            at_base: executable.linearize,
            gains: slice,
            weights: inputs.weights.clone(),
            at_point: executable.product,
            l2: self.l2,
        };
        Losses::of_gains(&self.gpu, [base, point], gains)
    }

    pub(super) fn build_quadratic(
        &self,
        theta: &Vector,
        inputs: &Inputs,
        loaded: &Loaded,
        request: QuadraticRequest,
    ) -> Result<Quadratic> {
        let mut program = self.trace(loaded.rows)?;
        let mut leaves = self.leaves(&program, theta, inputs)?;
        let new = |label: &str| Vector::new(&self.gpu, label, &self.layout);
        let value = self.gpu.buffer("loss", 1)?;
        let (gradient_vector, direction, product) =
            (new("gradient")?, new("direction")?, new("product")?);
        let derivatives = self.differentiate(&mut program, request.curvature)?;
        let Derivatives {
            gradients,
            directions,
            products,
        } = derivatives;
        let mut targets = vec![(program.loss, value.clone())];
        targets.extend(pairs(&gradients, gradient_vector.parts()));
        let of_gradient = targets.len();
        let fisher_diagonal = if request.fisher_diagonal {
            let graph = &mut program.traced.graph;
            let data_gradients = gradient(graph, program.data_loss, &program.parameters)?;
            let squares = square_sums(graph, &data_gradients, program.weights)?;
            let diagonal = new("empirical Fisher diagonal")?;
            targets.extend(pairs(&squares, diagonal.parts()));
            Some(diagonal)
        } else {
            None
        };
        leaves.directions = pairs(&directions, direction.parts());
        targets.extend(pairs(&products, product.parts()));
        let base = &program.traced.graph;
        let mut quadratic = Quadratic {
            value,
            gradient: gradient_vector,
            direction,
            product,
            fisher_diagonal,
            linearize: Recording::new(),
            multiply: Recording::new(),
            block: None,
            listing: Listing::default(),
            cost: Cost::default(),
            loaded: *loaded,
        };
        let executable = if request.block > 0 && !products.is_empty() {
            let program = Products {
                graph: base,
                directions: &directions,
                products: &products,
            };
            let (executable, block) =
                self.with_block(&program, &leaves, &targets, request.block)?;
            quadratic.block = Some(block);
            executable
        } else {
            Executable::new(&self.gpu, base, &leaves, &targets)?
        };
        quadratic.linearize = executable.linearize;
        quadratic.multiply = executable.product;
        let vectors = 3 + usize::from(request.fisher_diagonal) + 2 * request.block;
        let elements = vectors * self.layout.len();
        quadratic.cost = Cost::of(&executable.listing, of_gradient, elements);
        if let Some(block) = &quadratic.block {
            // The program runs once for each part of a block.
            quadratic.cost.block *= request.block.div_ceil(block.width) as u64;
        }
        quadratic.listing = executable.listing;
        Ok(quadratic)
    }
}
