//! The eigenpairs that low-rank saddle-free Newton works with, and how they are computed again.

use std::sync::Arc;

use super::options::{LrsfnOptions, RankRule};
use super::quotients::{Quotients, block, standard_errors};
use crate::error::Result;
use crate::gpu::{Gpu, Slice};
use crate::kernels::blocks::{Rows, weigh};
use crate::linalg::{
    Basis, BlockOperator, Eigenvalues, RandomizedEigensolver, RangeFinder, RangeOptions,
};
use crate::objective::{Objective, Quadratic, QuadraticRequest};
use crate::optim::first_order::missing;
use crate::optim::optimizer::OptimizerState;
use crate::vector::{Layout, Vector};

/// Eigenpairs of the curvature.
pub(super) struct Spectrum {
    pub(super) basis: Basis,
    /// The eigenvalues in use. They fall in magnitude, unless they are Rayleigh quotients on other examples than those of the eigenvectors.
    pub(super) values: Vec<f64>,
    /// Magnitude of the last one of them on the examples of the eigenvectors: what was not captured there is no larger.
    pub(super) least: f64,
    /// Their standard errors, where they are estimated.
    pub(super) noise: Vec<f64>,
    /// Computations so far.
    refreshes: u32,
    /// Random vectors drawn so far.
    drawn: u32,
    solvers: Vec<Solver>,
    quotients: Quotients,
}

enum Method {
    Fixed(RandomizedEigensolver),
    Growing(RangeFinder),
}

/// An eigensolver for the quadratic of one batch.
struct Solver {
    quadratic: Arc<Quadratic>,
    method: Method,
    /// Weights of the last eigenpairs in a running average, see [`averaged`].
    weights: Option<Slice>,
}

impl Spectrum {
    pub(super) fn new(gpu: &Gpu, layout: &Arc<Layout>, options: &LrsfnOptions) -> Result<Self> {
        Ok(Self {
            basis: Basis::new(gpu, layout, options.eigen.rank, options.storage)?,
            values: Vec::new(),
            least: 0.0,
            noise: Vec::new(),
            refreshes: 0,
            drawn: 0,
            solvers: Vec::new(),
            quotients: Quotients::default(),
        })
    }

    /// Whether no eigenpairs were computed yet.
    pub(super) fn is_new(&self) -> bool {
        self.refreshes == 0
    }

    /// Computes eigenpairs at `theta` on a batch. With examples held out, eigenvalues and their noise are of those. Returns the work.
    ///
    /// ```text
    /// l_i = u_i . C' u_i                               with C' of the examples held out
    /// l_i = u_i . A u_i + s (u_i . (C' - C) u_i)       in a running average A, of which s C is new
    /// ```
    pub(super) fn refresh<O: Objective + ?Sized>(
        &mut self,
        options: &LrsfnOptions,
        objective: &mut O,
        theta: &Vector,
        batch: &O::Batch,
        held_out: Option<&O::Batch>,
    ) -> Result<f64> {
        let growing = matches!(options.rank_rule, RankRule::Residual(_));
        let request = QuadraticRequest {
            curvature: options.curvature,
            block: if growing {
                options.eigen.oversampling
            } else {
                options.eigen.width()
            },
            ..QuadraticRequest::default()
        };
        let quadratic = objective.quadratic(theta, batch, request)?;
        let at = self.solver(options, objective.gpu(), &quadratic)?;
        let solver = &mut self.solvers[at];
        let decay = options.average;
        let old = decay * (1.0 - decay.powi(self.refreshes as i32));
        let new = 1.0 - decay;
        if let Some(weights) = &solver.weights {
            // The solver sees C + (old / new) U L U^T; its eigenvalues times new / (old + new) are those of the average.
            let width = options.eigen.width();
            let mut row: Vec<f32> = self
                .values
                .iter()
                .map(|value| (old / new * value) as f32)
                .collect();
            row.resize(options.eigen.rank, 0.0);
            let mut all = row.repeat(width);
            all.resize(weights.len(), 0.0);
            objective.gpu().upload(weights, 0, &all)?;
        }
        let recall = options.recall && !self.values.is_empty();
        let found = solve(&mut solver.method, &mut self.drawn, &quadratic, recall)?;
        let scale = if solver.weights.is_some() {
            new / (old + new)
        } else {
            1.0
        };
        let mut own: Vec<f64> = found.values.iter().map(|value| scale * value).collect();
        while own.last() == Some(&0.0) {
            own.pop();
        }
        // The linearization is a gradient, too.
        let cost = |batch: &O::Batch, products: usize, objective: &O| {
            objective.examples(batch) as f64 * (1.0 + 2.0 * products as f64)
        };
        let mut work = cost(batch, found.products, objective);
        let averages = self.solvers[at].weights.is_some();
        let parts = match options.rank_rule {
            RankRule::Noise { parts, .. } => cut(objective, held_out.unwrap_or(batch), parts)?,
            _ => Vec::new(),
        };
        let mut batches: Vec<&O::Batch> = held_out.into_iter().collect();
        if averages && held_out.is_some() {
            batches.push(batch);
        }
        let whole = batches.len();
        batches.extend(&parts);
        let mut measured = Vec::new();
        if !batches.is_empty() {
            let curvature = options.curvature;
            let quotients = &mut self.quotients;
            measured = quotients.measure(objective, theta, &self.basis, curvature, &batches)?;
            let rank = options.eigen.rank;
            work += batches
                .iter()
                .map(|batch| cost(batch, rank, objective))
                .sum::<f64>();
        }
        self.refreshes += 1;
        self.noise = if parts.is_empty() {
            Vec::new()
        } else {
            standard_errors(&measured[whole..], own.len())
        };
        self.values = match &measured[..whole] {
            [] => own.clone(),
            [theirs, rest @ ..] => (0..own.len())
                .map(|i| match rest.first() {
                    Some(mine) => own[i] + scale * (theirs[i] - mine[i]),
                    None => theirs[i],
                })
                .collect(),
        };
        if let RankRule::Noise { least, .. } = options.rank_rule {
            let clear = |(value, noise): (&f64, &f64)| value.abs() >= least * noise;
            let pairs = self.values.iter().zip(&self.noise);
            let kept = pairs.take_while(|&pair| clear(pair)).count();
            self.values.truncate(kept);
            self.noise.truncate(kept);
        }
        let last = self.values.len().checked_sub(1);
        self.least = last.map_or(0.0, |last| own[last].abs());
        Ok(work)
    }

    fn solver(
        &mut self,
        options: &LrsfnOptions,
        gpu: &Gpu,
        quadratic: &Arc<Quadratic>,
    ) -> Result<usize> {
        let known = |s: &Solver| Arc::ptr_eq(&s.quadratic, quadratic);
        if let Some(at) = self.solvers.iter().position(known) {
            return Ok(at);
        }
        let mut operator = BlockOperator::from(block(quadratic)?);
        let mut weights = None;
        if options.average > 0.0 {
            let elements = 2 * options.eigen.width() * options.eigen.rank;
            let slice = gpu.buffer("weights of the last eigenpairs", elements)?;
            averaged(gpu, &mut operator, &self.basis, &slice)?;
            weights = Some(slice);
        }
        let method = match options.rank_rule {
            RankRule::Residual(tolerance) => {
                let range = RangeOptions {
                    tolerance,
                    seed: options.eigen.seed,
                };
                Method::Growing(RangeFinder::new(gpu, &operator, &self.basis, &range)?)
            }
            _ => Method::Fixed(RandomizedEigensolver::new(
                gpu,
                &operator,
                &self.basis,
                &options.eigen,
            )?),
        };
        self.solvers.push(Solver {
            quadratic: Arc::clone(quadratic),
            method,
            weights,
        });
        Ok(self.solvers.len() - 1)
    }

    /// Adds what must be remembered, under names that begin with `of`.
    pub(super) fn save(&self, gpu: &Gpu, of: &str, state: &mut OptimizerState) -> Result<()> {
        let scalars = [
            ("refreshes", f64::from(self.refreshes)),
            ("drawn", f64::from(self.drawn)),
            ("least", self.least),
        ];
        for (name, value) in scalars {
            state.scalars.push((format!("{of}{name}"), value));
        }
        // Vectors that are not in use start the next computation, too.
        for (i, vector) in self.basis.read(gpu)?.into_iter().enumerate() {
            state.vectors.push((format!("{of}eigenvector {i}"), vector));
        }
        for (i, value) in self.values.iter().enumerate() {
            state.scalars.push((format!("{of}eigenvalue {i}"), *value));
        }
        for (i, noise) in self.noise.iter().enumerate() {
            state.scalars.push((format!("{of}noise {i}"), *noise));
        }
        Ok(())
    }

    /// Takes up what was saved under names that begin with `of`.
    pub(super) fn restore(&mut self, gpu: &Gpu, of: &str, state: &OptimizerState) -> Result<()> {
        let scalar = |name: &str| {
            let name = format!("{of}{name}");
            state.scalar(&name).ok_or_else(|| missing(&name))
        };
        let (refreshes, drawn, least) = (scalar("refreshes")?, scalar("drawn")?, scalar("least")?);
        let list = |name: &str| -> Vec<f64> {
            (0..self.basis.rank())
                .map_while(|i| state.scalar(&format!("{of}{name} {i}")))
                .collect()
        };
        let (values, noise) = (list("eigenvalue"), list("noise"));
        let vectors = (0..self.basis.rank())
            .map(|i| {
                let name = format!("{of}eigenvector {i}");
                state.vector(&name).ok_or_else(|| missing(&name))
            })
            .collect::<Result<Vec<_>>>()?;
        self.basis.write(gpu, &vectors)?;
        (self.values, self.noise) = (values, noise);
        (self.refreshes, self.drawn, self.least) = (refreshes as u32, drawn as u32, least);
        Ok(())
    }
}

fn solve(
    method: &mut Method,
    drawn: &mut u32,
    quadratic: &Quadratic,
    recall: bool,
) -> Result<Eigenvalues> {
    match method {
        Method::Fixed(solver) => {
            solver.set_drawn(*drawn);
            let found = solver.solve(&quadratic.linearize, recall)?;
            *drawn = solver.drawn();
            Ok(found)
        }
        Method::Growing(finder) => {
            finder.set_drawn(*drawn);
            let found = finder.solve(&quadratic.linearize)?;
            *drawn = finder.drawn();
            Ok(found)
        }
    }
}

/// A batch in parts of equal size.
fn cut<O: Objective + ?Sized>(
    objective: &O,
    batch: &O::Batch,
    parts: usize,
) -> Result<Vec<O::Batch>> {
    let rows = objective.rows(batch) / parts;
    (0..parts)
        .map(|part| {
            let own = part * rows..(part + 1) * rows;
            objective.part(batch, &[own])
        })
        .collect()
}

/// Adds the last eigenpairs to an operator: `C + sum over i of weights[i] u_i u_i^T`. `weights` holds them once for each vector of a block, and as many
/// zeros. `4 K r P` flops more.
fn averaged(gpu: &Gpu, operator: &mut BlockOperator, basis: &Basis, weights: &Slice) -> Result<()> {
    let elements = weights.len() / 2;
    let products = gpu.buffer("projections", elements)?;
    let coefficients = gpu.buffer("coefficients of a basis", elements)?;
    let multiply = &mut operator.multiply;
    let directions = Rows::all(&operator.directions);
    basis.record_products(gpu, multiply, &directions, &products)?;
    let (c, p) = (&coefficients, &products);
    weigh(gpu, multiply, c, weights, p, p)?;
    basis.record_combination(gpu, multiply, &Rows::all(&operator.products), c, true)
}
