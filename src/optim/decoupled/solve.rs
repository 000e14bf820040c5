//! A solve whose directions and steps come from different folds.

use std::sync::Arc;

use crate::error::Result;
use crate::gpu::{Gpu, Recording, Slice, Work};
use crate::kernels::blocks::{Coefficients, Rows, combine_rows};
use crate::kernels::vector::{combine, inner_products, partial_elements};
use crate::linalg::{CgOptions, Companion, ConjugateGradients, Operator};
use crate::objective::GroupedQuadratic;
use crate::optim::strategy::Turn;
use crate::vector::{Block, Layout, Vector};

/// What outlives a quadratic.
pub(super) struct Memory {
    /// The step of the last time.
    pub(super) previous: Vector,
    /// Two places between which the sum of solutions changes.
    pub(super) sums: [Vector; 2],
    /// `[share, 0, 1, share]` of a solve, then `[warm start, 0]`.
    factors: Slice,
    /// `(x.g', x.x, g'.g')` of each solve's step `x`, with the gradient of the examples that made its steps.
    pub(super) products: Slice,
    partials: Slice,
    /// Whether there is more than one solve.
    averages: bool,
}

impl Memory {
    /// For averages of `turns` solves, with this factor of warm starts.
    pub(super) fn new(
        gpu: &Gpu,
        layout: &Arc<Layout>,
        turns: usize,
        warm_start: f32,
    ) -> Result<Self> {
        let new = |label: &str| Vector::new(gpu, label, layout);
        let previous = new("last step")?;
        let memory = Self {
            products: gpu.buffer("products of steps", 3 * turns)?,
            partials: gpu.buffer("partial sums", partial_elements(previous.slice()))?,
            averages: turns > 1,
            previous,
            sums: [new("sum of steps")?, new("sum of steps")?],
            factors: gpu.buffer("factors of steps", 6)?,
        };
        let share = 1.0 / turns as f32;
        gpu.upload(
            &memory.factors,
            0,
            &[share, 0.0, 1.0, share, warm_start, 0.0],
        )?;
        Ok(memory)
    }
}

/// The quadratic of some folds: that of one of them, or the mean of several.
struct Side {
    gradient: Vector,
    product: Vector,
    variance: Option<Slice>,
    /// Computes the gradient, after a linearization.
    linearize: Recording,
    /// Computes the product, after those of all folds.
    multiply: Recording,
}

impl Side {
    fn new(gpu: &Gpu, quadratic: &GroupedQuadratic, folds: &[usize]) -> Result<Self> {
        if let [only] = folds {
            let group = &quadratic.groups[*only];
            return Ok(Self {
                gradient: group.gradient.clone(),
                product: group.product.clone(),
                variance: group.slope_variance.clone(),
                linearize: Recording::new(),
                multiply: Recording::new(),
            });
        }
        let layout = quadratic.gradient.layout();
        let count = quadratic.groups.len();
        let factors = gpu.buffer("weights of folds", count)?;
        let share = 1.0 / folds.len() as f32;
        let weights: Vec<f32> = (0..count)
            .map(|fold| if folds.contains(&fold) { share } else { 0.0 })
            .collect();
        gpu.upload(&factors, 0, &weights)?;
        let mean = |of: &Block, label: &str| -> Result<(Vector, Recording)> {
            let out = Vector::new(gpu, label, layout)?;
            let mut recording = Recording::new();
            let coefficients = Coefficients {
                slice: &factors,
                first: 0,
                width: count,
            };
            let (to, from) = (Rows::from(&out), Rows::all(of));
            combine_rows(gpu, &mut recording, &to, coefficients, &from, false)?;
            Ok((out, recording))
        };
        let (gradient, linearize) = mean(&quadratic.gradients, "gradient of several folds")?;
        let (product, multiply) = mean(&quadratic.products, "product of several folds")?;
        Ok(Self {
            gradient,
            product,
            variance: None,
            linearize,
            multiply,
        })
    }
}

/// A solve with two of the folds' quadratics.
pub(super) struct Solve {
    pub(super) cg: ConjugateGradients,
    /// Makes both sides' gradients.
    pub(super) before: Work,
    /// Puts `warm_start` times the last step into the first iterate.
    pub(super) recall: Recording,
    /// Measures the solution, and adds a share of it to the sum of several solves, from one place to another: see [`Memory`].
    pub(super) add: Recording,
}

impl Solve {
    /// Solve `number` of a step, for the folds of its turn.
    pub(super) fn new(
        gpu: &Gpu,
        options: &CgOptions,
        memory: &Memory,
        quadratic: &GroupedQuadratic,
        turn: &Turn,
        number: usize,
    ) -> Result<Self> {
        let directions = Side::new(gpu, quadratic, &turn.directions)?;
        let steps = Side::new(gpu, quadratic, &turn.steps)?;
        let mut multiply = quadratic.multiply.clone();
        multiply.append(directions.multiply);
        multiply.append(steps.multiply);
        let operator = Operator {
            input: quadratic.direction.clone(),
            output: directions.product,
            multiply,
        };
        let companion = Companion {
            gradient: steps.gradient,
            product: steps.product,
            variance: steps.variance,
        };
        let cg = ConjugateGradients::with_companion(
            gpu,
            &operator,
            &directions.gradient,
            None,
            options,
            &[],
            Some(&companion),
        )?;
        let mut before = Work::new();
        if number == 0 {
            before.append(quadratic.linearize.clone());
        }
        before.append(directions.linearize);
        before.append(steps.linearize);
        let (solution, previous) = (cg.solution.slice(), memory.previous.slice());
        let factors = &memory.factors;
        let mut recall = Recording::new();
        combine(gpu, &mut recall, solution, previous, previous, (factors, 4))?;
        let (to, from) = (&memory.sums[(number + 1) % 2], &memory.sums[number % 2]);
        let (from, slot) = if number == 0 {
            (solution, 0)
        } else {
            (from.slice(), 2)
        };
        let mut add = Recording::new();
        if memory.averages {
            combine(gpu, &mut add, to.slice(), from, solution, (factors, slot))?;
        }
        inner_products(
            gpu,
            &mut add,
            (&memory.products, 3 * number),
            &memory.partials,
            solution,
            companion.gradient.slice(),
        )?;
        Ok(Self {
            cg,
            before,
            recall,
            add,
        })
    }
}
