//! Programs of batches as wholes: gradients, quadratics, losses.

use super::GraphObjective;
use super::block::Products;
use super::inputs::Inputs;
use super::program::{Derivatives, pairs};
use crate::error::Result;
use crate::gpu::Recording;
use crate::graph::Executable;
use crate::graph::derivatives::gradient;
use crate::graph::listing::Listing;
use crate::graph::per_example::square_sums;
use crate::objective::losses::{Examples, Losses, Penalty};
use crate::objective::{Cost, Curvature, Gradient, Loaded, Quadratic, QuadraticRequest};
use crate::vector::Vector;

impl GraphObjective {
    /// Loss and gradient. Also the bytes of its buffers.
    pub(super) fn build_gradient(
        &self,
        theta: &Vector,
        inputs: &Inputs,
        loaded: &Loaded,
    ) -> Result<(Gradient, u64)> {
        let mut program = self.trace(loaded.rows)?;
        let leaves = self.leaves(&program, theta, inputs)?;
        let value = self.gpu.buffer("loss", 1)?;
        let vector = Vector::new(&self.gpu, "gradient", &self.layout)?;
        let derivatives = self.differentiate(&mut program, Curvature::None)?;
        let mut targets = vec![(program.loss, value.clone())];
        targets.extend(pairs(&derivatives.gradients, vector.parts()));
        let executable = Executable::new(&self.gpu, &program.traced.graph, &leaves, &targets)?;
        let bytes = executable.listing.planned_bytes() + 4 * self.layout.len() as u64;
        let gradient = Gradient {
            value,
            gradient: vector,
            run: executable.linearize,
            cost: Cost::of(&executable.listing, targets.len()),
            loaded: *loaded,
        };
        Ok((gradient, bytes))
    }

    /// Losses at `point` of the examples of a batch, and how they change from those at `base`.
    pub(super) fn build_losses(
        &self,
        [base, point]: [&Vector; 2],
        inputs: &Inputs,
        loaded: &Loaded,
    ) -> Result<(Losses, u64)> {
        let program = self.trace(loaded.rows)?;
        let leaves = self.leaves(&program, point, inputs)?;
        self.leaves(&program, base, inputs)?;
        let losses = self.gpu.buffer("losses of examples", loaded.rows)?;
        let targets = [(program.traced.losses, losses.clone())];
        let executable = Executable::new(&self.gpu, &program.traced.graph, &leaves, &targets)?;
        let bytes = executable.listing.planned_bytes() + 8 * loaded.rows as u64;
        let examples = Examples {
            losses,
            weights: Some(inputs.weights.clone()),
            run: executable.linearize,
            flops: executable.listing.flops(0),
        };
        let penalty = (self.l2 > 0.0).then_some(Penalty { l2: self.l2 });
        let losses = Losses::new(&self.gpu, [base, point], examples, penalty)?;
        Ok((losses, bytes))
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
        quadratic.cost = Cost::of(&executable.listing, of_gradient);
        if let Some(block) = &quadratic.block {
            // The program runs once for each part of a block.
            quadratic.cost.block *= request.block.div_ceil(block.width) as u64;
        }
        quadratic.listing = executable.listing;
        Ok(quadratic)
    }
}
