//! Programs of batches as wholes: gradients, quadratics, losses.

use super::GraphObjective;
use super::block::Products;
use super::elsewhere::Elsewhere;
use super::inputs::Inputs;
use super::program::{Derivatives, Program, pairs};
use crate::error::Result;
use crate::gpu::{Recording, Slice};
use crate::graph::derivatives::gradient;
use crate::graph::executable::DeviceLeaves;
use crate::graph::listing::Listing;
use crate::graph::per_example::square_sums;
use crate::graph::{Executable, NodeId};
use crate::objective::losses::results;
use crate::objective::{
    Cost, Curvature, Gradient, GradientRequest, Loaded, Quadratic, QuadraticRequest,
};
use crate::vector::Vector;

impl GraphObjective {
    /// Loss and gradient.
    pub(super) fn build_gradient(
        &self,
        theta: &Vector,
        inputs: &Inputs,
        loaded: &Loaded,
        request: GradientRequest,
    ) -> Result<Gradient> {
        let mut program = self.trace(loaded.rows)?;
        let mut leaves = self.leaves(&program, theta, inputs)?;
        let value = self.gpu.buffer("loss", 1)?;
        let vector = Vector::new(&self.gpu, "gradient", &self.layout)?;
        let derivatives = self.differentiate(&mut program, Curvature::None)?;
        let mut targets = vec![(program.loss, value.clone())];
        targets.extend(pairs(&derivatives.gradients, vector.parts()));
        let of_gradient = targets.len();
        let elsewhere = match request.losses {
            true => Some(self.elsewhere(&mut program, &mut leaves, &mut targets)?),
            false => None,
        };
        let mut executable = Executable::new(&self.gpu, &program.traced.graph, &leaves, &targets)?;
        let losses = elsewhere.map(|e| e.losses(self, (theta, &value), &mut executable));
        let vectors = 1 + usize::from(request.losses);
        let elements = vectors * self.layout.len();
        Ok(Gradient {
            cost: Cost::of(&executable.listing, of_gradient, elements),
            losses: losses.transpose()?,
            value,
            gradient: vector,
            run: executable.linearize,
            loaded: *loaded,
        })
    }

    /// Extends a program by the losses at a point.
    fn elsewhere(
        &self,
        program: &mut Program,
        leaves: &mut DeviceLeaves,
        targets: &mut Vec<(NodeId, Slice)>,
    ) -> Result<Elsewhere> {
        let elsewhere = Elsewhere::new(self)?;
        let (gains, moves) = self.gains(program)?;
        let (before, weights) = (program.loss, program.weights);
        let graph = &mut program.traced.graph;
        let all = results(graph, before, [gains, weights], &moves, self.l2)?;
        leaves.points = elsewhere.points(&moves);
        targets.push((all, elsewhere.results()));
        Ok(elsewhere)
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
        let elsewhere = match request.losses {
            true => Some(self.elsewhere(&mut program, &mut leaves, &mut targets)?),
            false => None,
        };
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
            losses: None,
            listing: Listing::default(),
            cost: Cost::default(),
            loaded: *loaded,
        };
        let mut executable = if request.block > 0 && !products.is_empty() {
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
        let at = (theta, &quadratic.value);
        let losses = elsewhere.map(|e| e.losses(self, at, &mut executable));
        quadratic.losses = losses.transpose()?;
        quadratic.linearize = executable.linearize;
        quadratic.multiply = executable.product;
        let singles = 3 + usize::from(request.fisher_diagonal) + usize::from(request.losses);
        let vectors = singles + 2 * request.block;
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
