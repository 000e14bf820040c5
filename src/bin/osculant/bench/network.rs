//! A network: its gradient, its curvature products, and what conjugate gradients and a Newton step add to them.

use std::sync::Arc;
use std::time::Instant;

use osculant::data::Batch;
use osculant::gpu::{Gpu, Recording};
use osculant::linalg::{CgOptions, ConjugateGradients, Operator};
use osculant::objective::{
    BlockProduct, Curvature, Curved, GraphObjective, Objective, Quadratic, QuadraticRequest, Slot,
};
use osculant::optim::{NewtonCg, NewtonCgOptions, Optimizer};
use osculant::vector::Vector;
use serde::Serialize;

use super::problems::Problem;
use super::timing::{Effort, Figure, Times, replay, rounds};
use crate::synthetic::uniform;

/// Directions in a block.
const BLOCK: usize = 32;
/// Iterations of the long solve: as many as go into one submission.
const ITERATIONS: usize = 11;
/// Where a product takes longer than this, solves are shorter.
const LONG_PRODUCT_SECONDS: f64 = 5e-2;
/// Iterations of the long solve then.
const FEWER_ITERATIONS: usize = 5;
/// Where a block takes longer than this, a quick run leaves it out, with all that repeats long products.
const LONG_BLOCK_SECONDS: f64 = 1.0;

/// Relative residual that a solve must leave to be timed.
const LEAST_RESIDUAL: f32 = 1e-6;
/// A small difference of large times needs more rounds than a time.
const MORE_SECONDS: f64 = 4.0;

/// How much is done for a network.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Extent {
    /// For each comparison.
    pub(crate) effort: Effort,
    /// Whether what takes long is left out.
    pub(crate) quick: bool,
}

/// Floating-point operations, as the programs list them.
#[derive(Clone, Copy, Debug, Serialize)]
pub(crate) struct Flops {
    /// Loss and gradient.
    pub(crate) gradient: u64,
    /// A Hessian product.
    pub(crate) hvp: u64,
    /// A Gauss-Newton product.
    pub(crate) ggn: u64,
}

/// Kernels in a product.
#[derive(Clone, Copy, Debug, Serialize)]
pub(crate) struct Dispatches {
    /// Of the Hessian.
    pub(crate) hvp: usize,
    /// Of the Gauss-Newton matrix.
    pub(crate) ggn: usize,
    /// Of the Gauss-Newton matrix with a block of directions.
    pub(crate) ggn_block: usize,
}

/// What was measured of a network; times in seconds.
#[derive(Clone, Debug)]
pub(crate) struct Measured {
    pub(crate) name: &'static str,
    pub(crate) loss: f64,
    pub(crate) flops: Flops,
    pub(crate) dispatches: Dispatches,
    pub(crate) planned_bytes: u64,
    pub(crate) peak_bytes: u64,
    pub(crate) block_width: usize,
    /// Replays of the gradient in a submission.
    pub(crate) gradients_together: usize,
    pub(crate) gradient: Figure,
    pub(crate) hvp: Figure,
    pub(crate) ggn: Figure,
    pub(crate) ggn_block: Option<Figure>,
    pub(crate) linearize_over_gradient: Figure,
    pub(crate) ggn_linearize_over_gradient: Figure,
    pub(crate) hvp_over_gradient: Figure,
    pub(crate) ggn_over_gradient: Figure,
    pub(crate) block_gain: Option<Figure>,
    pub(crate) cg_overhead: Option<Figure>,
    pub(crate) readbacks_per_step: Option<f64>,
}

impl Measured {
    /// Flops of a Hessian product over those of the gradient.
    pub(crate) fn hvp_flop_ratio(&self) -> f64 {
        self.flops.hvp as f64 / self.flops.gradient as f64
    }

    /// Flops of a Gauss-Newton product over those of the gradient.
    pub(crate) fn ggn_flop_ratio(&self) -> f64 {
        self.flops.ggn as f64 / self.flops.gradient as f64
    }
}

/// Measures a network; `done` hears what comes next.
pub(crate) fn measure(
    gpu: &Gpu,
    problem: &Problem,
    extent: Extent,
    mut next: impl FnMut(&str),
) -> osculant::Result<Measured> {
    next("programs");
    let indices: Vec<usize> = (0..problem.batch).collect();
    let batch = problem.dataset.batch(&indices)?;
    let mut objective = GraphObjective::new(gpu, problem.model())?;
    let theta = Vector::new(gpu, "theta", objective.layout())?;
    theta.write(gpu, &problem.parameters)?;
    let mut quadratic = |curvature, block| {
        let request = QuadraticRequest {
            curvature,
            block,
            ..QuadraticRequest::default()
        };
        objective.load_quadratic(Slot::default(), &theta, &batch, request)
    };
    let plain = quadratic(Curvature::None, 0)?;
    let hessian = quadratic(Curvature::Hessian, 0)?;
    let before = intermediate_bytes(gpu);
    let gauss_newton = quadratic(Curvature::GaussNewton, BLOCK)?;
    let allocated = before
        .zip(intermediate_bytes(gpu))
        .map(|(before, after)| after.saturating_sub(before));
    let none = Recording::new();
    let block_multiply = match &gauss_newton.block {
        Some(block) => block.multiply.recorded()?,
        None => &none,
    };
    fill_directions(gpu, &[&hessian, &gauss_newton])?;

    next("gradient and products");
    let recordings = [
        plain.linearize.recorded()?,
        hessian.linearize.recorded()?,
        gauss_newton.linearize.recorded()?,
        hessian.multiply.recorded()?,
        gauss_newton.multiply.recorded()?,
    ];
    let times = Times::take(gpu, &recordings, extent.effort)?;
    let [gradient, hvp_linearize, ggn_linearize, hvp, ggn] = [0, 1, 2, 3, 4];
    let loss = f64::from(gpu.read(&[&plain.value])?[0][0]);
    let product = times.seconds(ggn).median;
    let long = extent.quick && product * BLOCK as f64 > LONG_BLOCK_SECONDS;

    let blocks = if long {
        None
    } else {
        next("blocks of products");
        let pair = [recordings[ggn], block_multiply];
        Some(Times::take(gpu, &pair, extent.effort)?)
    };

    next("conjugate gradients");
    let cg_overhead = cg_overhead(gpu, &gauss_newton, product, extent.effort)?;

    let readbacks_per_step = if long {
        None
    } else {
        next("Newton steps");
        Some(readbacks_per_step(gpu, problem, &batch)?)
    };

    let planned_bytes = gauss_newton.listing.planned_bytes();
    Ok(Measured {
        name: problem.name,
        loss,
        flops: Flops {
            gradient: plain.listing.flops(0),
            hvp: hessian.listing.flops(1),
            ggn: gauss_newton.listing.flops(1),
        },
        dispatches: Dispatches {
            hvp: recordings[hvp].dispatches(),
            ggn: recordings[ggn].dispatches(),
            ggn_block: block_multiply.dispatches(),
        },
        planned_bytes,
        peak_bytes: allocated.unwrap_or_else(|| gauss_newton.listing.buffers.iter().sum()),
        block_width: gauss_newton.block.as_ref().map_or(0, |block| block.width),
        gradients_together: times.together[gradient],
        gradient: times.seconds(gradient),
        hvp: times.seconds(hvp),
        ggn: times.seconds(ggn),
        ggn_block: blocks.as_ref().map(|times| times.seconds(1)),
        linearize_over_gradient: times.ratio(hvp_linearize, gradient),
        ggn_linearize_over_gradient: times.ratio(ggn_linearize, gradient),
        hvp_over_gradient: times.ratio(hvp, gradient),
        ggn_over_gradient: times.ratio(ggn, gradient),
        block_gain: blocks.map(|times| times.ratio(0, 1).scaled(BLOCK as f64)),
        cg_overhead,
        readbacks_per_step,
    })
}

/// Bytes of all buffers for intermediate values on the device, as wgpu's allocator has them; not known on every backend.
fn intermediate_bytes(gpu: &Gpu) -> Option<u64> {
    let report = gpu.device().generate_allocator_report()?;
    let buffers = report.allocations.iter();
    let bytes = buffers
        .filter(|allocation| allocation.name == "intermediate values")
        .map(|allocation| allocation.size)
        .sum();
    (bytes > 0).then_some(bytes)
}

/// Directions with numbers between -1 and 1, all different.
fn fill_directions(gpu: &Gpu, quadratics: &[&Arc<Quadratic>]) -> osculant::Result<()> {
    let layout = quadratics[0].direction.layout();
    let direction = |number: usize| -> Vec<Vec<f32>> {
        let entries = layout.entries().iter();
        entries
            .map(|entry| {
                (entry.offset..entry.offset + entry.elements())
                    .map(|index| 2.0 * uniform(1000 + number, index) - 1.0)
                    .collect()
            })
            .collect()
    };
    for quadratic in quadratics {
        quadratic.direction.write(gpu, &direction(0))?;
        if let Some(BlockProduct { directions, .. }) = &quadratic.block {
            for (number, vector) in directions.vectors().iter().enumerate() {
                vector.write(gpu, &direction(number))?;
            }
        }
    }
    Ok(())
}

/// `(time of an iteration - time of a product) / time of a product`, from solves and runs of products of two lengths, so that what a
/// submission and its readback cost is in neither; none where no solve goes on for long enough.
fn cg_overhead(
    gpu: &Gpu,
    quadratic: &Quadratic,
    product: f64,
    effort: Effort,
) -> osculant::Result<Option<Figure>> {
    let most = if product > LONG_PRODUCT_SECONDS {
        FEWER_ITERATIONS
    } else {
        ITERATIONS
    };
    let operator = Operator::from(quadratic);
    let solver = |iterations: usize| {
        let mut options = CgOptions::default().with_max_iterations(iterations);
        options.residual_tolerance = 0.0;
        options.progress_tolerance = 0.0;
        ConjugateGradients::new(gpu, &operator, &quadratic.gradient, None, &options, &[])
    };
    let (long, short) = (solver(most)?, solver(1)?);
    replay(gpu, quadratic.linearize.recorded()?, 1)?;
    let multiply = quadratic.multiply.recorded()?;
    let nothing = Recording::new();
    // A solve that is over moves no vectors any more, and would be timed as too fast. One whose residual has vanished computes with
    // subnormal numbers, which processors are slow at, and would be timed as too slow.
    let mut damping = None;
    for shift in [1e-4, 1e-2, 1.0] {
        let report = long.solve(&nothing, shift, None, false)?;
        if report.iterations == most && report.relative_residual > LEAST_RESIDUAL {
            damping = Some(shift);
            break;
        }
    }
    let Some(damping) = damping else {
        return Ok(None);
    };
    let solve = |solver: &ConjugateGradients| -> osculant::Result<f64> {
        let start = Instant::now();
        solver.solve(&nothing, damping, None, false)?;
        Ok(start.elapsed().as_secs_f64())
    };
    let iterations = || -> osculant::Result<f64> { Ok(solve(&long)? - solve(&short)?) };
    let products = || -> osculant::Result<f64> {
        Ok(replay(gpu, multiply, most)? - replay(gpu, multiply, 1)?)
    };
    let mut overheads = Vec::new();
    let effort = Effort {
        seconds: MORE_SECONDS * effort.seconds,
        ..effort
    };
    rounds(effort, || {
        // The order turns around, so that a machine that changes its speed in between favours neither.
        let (iterations, products) = if overheads.len().is_multiple_of(2) {
            (iterations()?, products()?)
        } else {
            let products = products()?;
            (iterations()?, products)
        };
        overheads.push(iterations / products - 1.0);
        Ok(())
    })?;
    Ok(Some(Figure::of(overheads)))
}

/// Mean blocking readbacks of five Newton-CG steps with default options, after a first one.
fn readbacks_per_step(gpu: &Gpu, problem: &Problem, batch: &Batch) -> osculant::Result<f64> {
    let mut objective = GraphObjective::new(gpu, problem.model())?;
    let theta = Vector::new(gpu, "theta", objective.layout())?;
    theta.write(gpu, &problem.parameters)?;
    let mut optimizer = NewtonCg::new(NewtonCgOptions::default())?;
    optimizer.step(&mut objective, &theta, batch)?;
    let mut readbacks = 0;
    const STEPS: u32 = 5;
    for _ in 0..STEPS {
        readbacks += optimizer.step(&mut objective, &theta, batch)?.readbacks;
    }
    Ok(readbacks as f64 / f64::from(STEPS))
}
