//! The eigenpairs that low-rank saddle-free Newton works with, and how they are computed again.

use std::sync::Arc;

use super::options::{LrsfnOptions, RankRule};
use super::quotients::{Quotients, block, standard_errors};
use crate::error::Result;
use crate::gpu::{Gpu, Recorder, Slice};
use crate::kernels::blocks::{Rows, weigh};
use crate::linalg::{
    Basis, Eigenvalues, Operator, RandomizedEigensolver, RangeFinder, RangeOptions,
};
use crate::objective::{Curved, Quadratic, QuadraticRequest, Slot};
use crate::optim::saved::{self, OptimizerState};
use crate::optim::state_tensor::StateTensor;
use crate::optim::undo::Undo;
use crate::optim::work::{Work, flops};
use crate::recent::Recent;
use crate::vector::{Block, Layout, Vector};

/// Eigenpairs of the curvature.
pub(super) struct Spectrum {
    pub(super) basis: Basis,
    pub(super) known: Known,
    /// What was known before eigenpairs that may be taken back.
    before: Option<Known>,
    undo: Undo,
    solvers: Recent<Solver>,
    quotients: Quotients,
}

/// What the host knows of them.
#[derive(Clone, Default)]
pub(super) struct Known {
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
}

#[cfg_attr(
    target_pointer_width = "64",
    expect(
        clippy::large_enum_variant,
        reason = "one is made for each solver, which is far larger"
    )
)]
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
        let basis = Basis::new(gpu, layout, options.eigen.rank, options.storage)?;
        Ok(Self {
            undo: Undo::new(gpu, &basis.slices())?,
            basis,
            known: Known::default(),
            before: None,
            solvers: Recent::default(),
            quotients: Quotients::default(),
        })
    }

    /// Records what brings eigenvectors back.
    pub(super) fn record_back(&self, recorder: &mut Recorder<'_>) {
        if let Some(back) = self.undo.pending() {
            recorder.replay(back);
        }
    }

    /// Takes the rest back.
    pub(super) fn withdraw(&mut self) {
        if let Some(before) = self.before.take() {
            self.known = before;
        }
        self.undo.end();
    }

    /// New eigenpairs stay.
    pub(super) fn end(&mut self) {
        self.before = None;
        self.undo.end();
    }

    /// Whether no eigenpairs were computed yet.
    pub(super) fn is_new(&self) -> bool {
        self.known.refreshes == 0
    }

    /// Computes eigenpairs at `theta` on a batch, which may be taken back. With examples held out, eigenvalues and their noise are of
    /// those. Returns the work.
    ///
    /// ```text
    /// l_i = u_i . C' u_i                               with C' of the examples held out
    /// l_i = u_i . A u_i + s (u_i . (C' - C) u_i)       in a running average A, of which s C is new
    /// ```
    pub(super) async fn refresh<O: Curved + ?Sized>(
        &mut self,
        options: &LrsfnOptions,
        objective: &mut O,
        theta: &Vector,
        batch: &O::Batch,
        held_out: Option<&O::Batch>,
        parts: &[O::Batch],
    ) -> Result<Work> {
        let gpu = objective.gpu().clone();
        self.undo.begin(&gpu)?;
        self.before = Some(self.known.clone());
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
        let loaded = objective.load(Slot::default(), batch)?;
        let quadratic = objective.quadratic(theta, &loaded, request)?;
        let (basis, solvers, known) = (&self.basis, &mut self.solvers, &mut self.known);
        let is = |s: &Solver| Arc::ptr_eq(&s.quadratic, &quadratic);
        let own = options.eigen.width() * objective.layout().len();
        let bytes = quadratic.cost.bytes + 4 * own as u64;
        let solver = solvers.find_or(is, (theta.life(), bytes), || {
            Solver::new(options, &gpu, basis, &quadratic)
        })?;
        let decay = options.average;
        let old = decay * (1.0 - decay.powi(known.refreshes as i32));
        let new = 1.0 - decay;
        if let Some(weights) = &solver.weights {
            // The solver sees C + (old / new) U L U^T; its eigenvalues times new / (old + new) are those of the average.
            let width = options.eigen.width();
            let mut row: Vec<f32> = known
                .values
                .iter()
                .map(|value| (old / new * value) as f32)
                .collect();
            row.resize(options.eigen.rank, 0.0);
            let mut all = row.repeat(width);
            all.resize(weights.len(), 0.0);
            gpu.upload(weights, 0, &all)?;
        }
        let recall = options.recall && !known.values.is_empty();
        let method = &mut solver.method;
        let found = solve(method, &mut known.drawn, &quadratic, recall).await?;
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
        let mut work = Work::default();
        let (cost, elements) = (quadratic.cost, objective.layout().len());
        work.gradient(&cost, &loaded);
        work.block_products(found.products, request.block, &cost, &loaded);
        let rank = options.eigen.rank;
        work.vectors(if growing {
            flops::range_finder(found.products, rank, elements)
        } else {
            flops::randomized(request.block, found.passes, elements)
        });
        let averages = solver.weights.is_some();
        if averages {
            work.vectors(flops::low_rank(found.products, rank, elements));
        }
        let mut batches: Vec<&O::Batch> = held_out.into_iter().collect();
        if averages && held_out.is_some() {
            batches.push(batch);
        }
        let whole = batches.len();
        batches.extend(parts);
        let measured = if batches.is_empty() {
            Vec::new()
        } else {
            let quotients = &mut self.quotients;
            let (measured, more) = quotients
                .measure(objective, theta, basis, options.curvature, &batches)
                .await?;
            work += more;
            measured
        };
        known.refreshes += 1;
        known.noise = if parts.is_empty() {
            Vec::new()
        } else {
            standard_errors(&measured[whole..], own.len())
        };
        known.values = match &measured[..whole] {
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
            let pairs = known.values.iter().zip(&known.noise);
            let kept = pairs.take_while(|&pair| clear(pair)).count();
            known.values.truncate(kept);
            known.noise.truncate(kept);
        }
        let last = known.values.len().checked_sub(1);
        known.least = last.map_or(0.0, |last| own[last].abs());
        Ok(work)
    }

    /// The numbers that must be remembered, under names that begin with `of`.
    pub(super) fn scalars(&self, of: &str) -> Vec<(String, f64)> {
        let known = &self.known;
        let counts = [
            ("refreshes", f64::from(known.refreshes)),
            ("drawn", f64::from(known.drawn)),
            ("least", known.least),
        ];
        let lists = [("eigenvalue", &known.values), ("noise", &known.noise)];
        let counts = counts.map(|(name, value)| (format!("{of}{name}"), value));
        let lists = lists.into_iter().flat_map(|(name, list)| {
            let each = list.iter().enumerate();
            each.map(move |(i, value)| (format!("{of}{name} {i}"), *value))
        });
        counts.into_iter().chain(lists).collect()
    }

    /// The vectors: those that are not in use start the next computation, too.
    pub(super) fn tensor(&self, of: &str) -> StateTensor {
        StateTensor::basis(format!("{of}eigenvector"), &self.basis, self.basis.rank())
    }

    /// Takes up what was saved under names that begin with `of`.
    pub(super) async fn restore(
        &mut self,
        gpu: &Gpu,
        of: &str,
        state: &OptimizerState,
    ) -> Result<()> {
        let of_name = |name: &str| format!("{of}{name}");
        let known = Known {
            refreshes: saved::count(state, &of_name("refreshes"))? as u32,
            drawn: saved::number(state, &of_name("drawn"), 0.0..=f64::from(u32::MAX))? as u32,
            least: saved::number(state, &of_name("least"), 0.0..=f64::MAX)?,
            values: self.list(state, &of_name("eigenvalue"), -f64::MAX)?,
            noise: self.list(state, &of_name("noise"), 0.0)?,
        };
        self.tensor(of).restore(gpu, state).await?;
        self.known = known;
        Ok(())
    }

    /// The numbers `name 0`, `name 1` and so on, as many as there are, which must not be below `least`.
    fn list(&self, state: &OptimizerState, name: &str, least: f64) -> Result<Vec<f64>> {
        (0..self.basis.rank())
            .map(|i| format!("{name} {i}"))
            .take_while(|name| state.scalar(name).is_some())
            .map(|name| saved::number(state, &name, least..=f64::MAX))
            .collect()
    }
}

impl Solver {
    fn new(
        options: &LrsfnOptions,
        gpu: &Gpu,
        basis: &Basis,
        quadratic: &Arc<Quadratic>,
    ) -> Result<Self> {
        let mut operator = Operator::from(block(quadratic)?);
        let mut weights = None;
        if options.average > 0.0 {
            let elements = 2 * options.eigen.width() * options.eigen.rank;
            let slice = gpu.buffer("weights of the last eigenpairs", elements)?;
            averaged(gpu, &mut operator, basis, &slice)?;
            weights = Some(slice);
        }
        let method = match options.rank_rule {
            RankRule::Residual(tolerance) => {
                let range = RangeOptions {
                    tolerance,
                    seed: options.eigen.seed,
                };
                Method::Growing(RangeFinder::new(gpu, &operator, basis, &range)?)
            }
            _ => Method::Fixed(RandomizedEigensolver::new(
                gpu,
                &operator,
                basis,
                &options.eigen,
            )?),
        };
        Ok(Self {
            quadratic: Arc::clone(quadratic),
            method,
            weights,
        })
    }
}

async fn solve(
    method: &mut Method,
    drawn: &mut u32,
    quadratic: &Quadratic,
    recall: bool,
) -> Result<Eigenvalues> {
    match method {
        Method::Fixed(solver) => {
            solver.set_drawn(*drawn);
            let found = solver.solve_async(&quadratic.linearize, recall).await?;
            *drawn = solver.drawn();
            Ok(found)
        }
        Method::Growing(finder) => {
            finder.set_drawn(*drawn);
            let found = finder.solve_async(&quadratic.linearize).await?;
            *drawn = finder.drawn();
            Ok(found)
        }
    }
}

/// Adds the last eigenpairs to an operator: `C + sum over i of weights[i] u_i u_i^T`. `weights` holds them once for each vector of a block,
/// and as many zeros. `4 K r P` flops more.
fn averaged(
    gpu: &Gpu,
    operator: &mut Operator<Block>,
    basis: &Basis,
    weights: &Slice,
) -> Result<()> {
    let elements = weights.len() / 2;
    let products = gpu.buffer("projections", elements)?;
    let coefficients = gpu.buffer("coefficients of a basis", elements)?;
    let multiply = operator.multiply.tail();
    let directions = Rows::all(&operator.input);
    basis.record_products(gpu, multiply, &directions, &products)?;
    let (c, p) = (&coefficients, &products);
    weigh(gpu, multiply, c, weights, p, p)?;
    basis.record_combination(gpu, multiply, &Rows::all(&operator.output), c, true)
}
