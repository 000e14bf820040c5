//! The eigenpairs that low-rank saddle-free Newton works with, and how they are computed again.

use std::sync::Arc;

use super::options::{LrsfnOptions, RankRule};
use crate::error::Result;
use crate::gpu::{Gpu, Recording, Slice};
use crate::kernels::blocks::{InnerProducts, Rows, weigh};
use crate::linalg::{
    Basis, BlockOperator, Eigenvalues, RandomizedEigensolver, RangeFinder, RangeOptions,
};
use crate::objective::{BlockProduct, Objective, Quadratic, QuadraticRequest};
use crate::optim::first_order::missing;
use crate::optim::optimizer::OptimizerState;
use crate::vector::{Layout, Vector};

/// Eigenpairs of the curvature.
pub(super) struct Spectrum {
    pub(super) basis: Basis,
    /// The eigenvalues in use, by falling magnitude.
    pub(super) values: Vec<f64>,
    /// Their standard errors, where they are estimated.
    pub(super) noise: Vec<f64>,
    /// Computations so far.
    refreshes: u32,
    /// Random vectors drawn so far.
    drawn: u32,
    solvers: Vec<Solver>,
    probes: Vec<Probe>,
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

/// Rayleigh quotients of the eigenvectors on the quadratic of a sub-batch.
struct Probe {
    quadratic: Arc<Quadratic>,
    run: Recording,
    inner: InnerProducts,
}

impl Spectrum {
    pub(super) fn new(gpu: &Gpu, layout: &Arc<Layout>, options: &LrsfnOptions) -> Result<Self> {
        Ok(Self {
            basis: Basis::new(gpu, layout, options.eigen.rank, options.storage)?,
            values: Vec::new(),
            noise: Vec::new(),
            refreshes: 0,
            drawn: 0,
            solvers: Vec::new(),
            probes: Vec::new(),
        })
    }

    /// Whether no eigenpairs were computed yet.
    pub(super) fn is_new(&self) -> bool {
        self.refreshes == 0
    }

    /// Computes eigenpairs at `theta` on a batch. Returns the work.
    pub(super) fn refresh<O: Objective + ?Sized>(
        &mut self,
        options: &LrsfnOptions,
        objective: &mut O,
        theta: &Vector,
        batch: &O::Batch,
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
        self.values = found.values.iter().map(|value| scale * value).collect();
        while self.values.last() == Some(&0.0) {
            self.values.pop();
        }
        self.refreshes += 1;
        // The linearization is a gradient, too.
        let mut products = found.products;
        self.noise.clear();
        if let RankRule::Noise { least, parts } = options.rank_rule {
            self.measure_noise(options, objective, theta, batch, parts)?;
            products += options.eigen.rank;
            let clear = |(value, noise): (&f64, &f64)| value.abs() >= least * noise;
            let kept = self
                .values
                .iter()
                .zip(&self.noise)
                .take_while(|&pair| clear(pair))
                .count();
            self.values.truncate(kept);
            self.noise.truncate(kept);
        }
        Ok(objective.examples(batch) as f64 * (1.0 + 2.0 * products as f64))
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

    /// Standard errors of the eigenvectors' Rayleigh quotients over `parts` sub-batches, in one readback.
    fn measure_noise<O: Objective + ?Sized>(
        &mut self,
        options: &LrsfnOptions,
        objective: &mut O,
        theta: &Vector,
        batch: &O::Batch,
        parts: usize,
    ) -> Result<()> {
        let rank = options.eigen.rank;
        let rows = objective.rows(batch) / parts;
        let batches = (0..parts)
            .map(|part| {
                let own = part * rows..(part + 1) * rows;
                objective.part(batch, &[own])
            })
            .collect::<Result<Vec<_>>>()?;
        let gpu = objective.gpu().clone();
        let mut results = Vec::new();
        for (part, batch) in batches.iter().enumerate() {
            let request = QuadraticRequest {
                curvature: options.curvature,
                block: rank,
                ..QuadraticRequest::default()
            };
            let quadratic = objective.quadratic(theta, batch, request)?;
            let at = match self.probes.get(part) {
                Some(probe) if Arc::ptr_eq(&probe.quadratic, &quadratic) => part,
                _ => {
                    self.probes.truncate(part);
                    let mut run = quadratic.linearize.clone();
                    let block = block(&quadratic)?;
                    self.basis
                        .record_recall(&gpu, &mut run, &block.directions, 0)?;
                    run.append(block.multiply.clone());
                    let (left, right) = (Rows::all(&block.directions), Rows::all(&block.products));
                    let inner = InnerProducts::record(&gpu, &mut run, &left, &right)?;
                    self.probes.push(Probe {
                        quadratic,
                        run,
                        inner,
                    });
                    part
                }
            };
            // Submitted before the next sub-batch is loaded into the same buffers.
            gpu.submit(|recorder| recorder.replay(&self.probes[at].run))?;
            results.push(at);
        }
        let reads: Vec<&Slice> = results
            .iter()
            .flat_map(|&at| self.probes[at].inner.reads())
            .collect();
        let mut read = gpu.read(&reads)?.into_iter();
        let quotients: Vec<Vec<f64>> = results
            .iter()
            .map(|&at| {
                let matrix = self.probes[at].inner.sum(&mut read);
                matrix.diagonal().iter().copied().collect()
            })
            .collect();
        self.noise = (0..self.values.len())
            .map(|i| {
                let each: Vec<f64> = quotients.iter().map(|part| part[i]).collect();
                let mean = each.iter().sum::<f64>() / parts as f64;
                let square: f64 = each.iter().map(|x| (x - mean).powi(2)).sum();
                (square / (parts as f64 - 1.0) / parts as f64).sqrt()
            })
            .collect();
        Ok(())
    }

    pub(super) fn save(&self, gpu: &Gpu, state: &mut OptimizerState) -> Result<()> {
        let scalars = [
            ("refreshes", f64::from(self.refreshes)),
            ("drawn", f64::from(self.drawn)),
        ];
        for (name, value) in scalars {
            state.scalars.push((name.into(), value));
        }
        // Vectors that are not in use start the next computation, too.
        for (i, vector) in self.basis.read(gpu)?.into_iter().enumerate() {
            state.vectors.push((format!("eigenvector {i}"), vector));
        }
        for (i, value) in self.values.iter().enumerate() {
            state.scalars.push((format!("eigenvalue {i}"), *value));
        }
        for (i, noise) in self.noise.iter().enumerate() {
            state.scalars.push((format!("noise {i}"), *noise));
        }
        Ok(())
    }

    pub(super) fn restore(&mut self, gpu: &Gpu, state: &OptimizerState) -> Result<()> {
        let scalar = |name: &str| state.scalar(name).ok_or_else(|| missing(name));
        let (refreshes, drawn) = (scalar("refreshes")?, scalar("drawn")?);
        let list = |name: &str| -> Vec<f64> {
            (0..self.basis.rank())
                .map_while(|i| state.scalar(&format!("{name} {i}")))
                .collect()
        };
        let (values, noise) = (list("eigenvalue"), list("noise"));
        let vectors = (0..self.basis.rank())
            .map(|i| {
                let name = format!("eigenvector {i}");
                state.vector(&name).ok_or_else(|| missing(&name))
            })
            .collect::<Result<Vec<_>>>()?;
        self.basis.write(gpu, &vectors)?;
        (self.values, self.noise) = (values, noise);
        (self.refreshes, self.drawn) = (refreshes as u32, drawn as u32);
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

fn block(quadratic: &Quadratic) -> Result<&BlockProduct> {
    quadratic.block.as_ref().ok_or_else(|| missing("block"))
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
