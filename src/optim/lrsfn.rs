//! Low-rank saddle-free Newton with Levenberg-Marquardt damping (O'Leary-Roseberry, Alger and Ghattas 2020).

use std::sync::Arc;
use std::time::Instant;

use super::candidates::{Candidate, Candidates};
use super::damping::LevenbergMarquardt;
use super::first_order::missing;
use super::optimizer::{Optimizer, OptimizerState};
use super::report::StepReport;
use crate::error::{Error, Result};
use crate::gpu::{Gpu, Recording, Slice};
use crate::kernels::blocks::{InnerProducts, Rows, combine_rows, weigh};
use crate::kernels::vector::combine;
use crate::linalg::{BlockOperator, EigenOptions, RandomizedEigensolver};
use crate::objective::{Curvature, Objective, Quadratic, QuadraticRequest};
use crate::vector::{Block, Vector};

/// How the damping is set.
#[derive(Clone, Copy, Debug, PartialEq)]
#[non_exhaustive]
pub enum DampingRule {
    /// Always the same.
    Fixed,
    /// At least the smallest captured `|eigenvalue|`, so that a step length of 1 is stable for everything that was not captured: on a quadratic that needs
    /// `step < 2 damping / |l_(r+1)|`. Above that, adapted by the reduction ratio; a step that raises the loss is refused.
    Adaptive(LevenbergMarquardt),
}

/// Settings of [`LowRankSaddleFreeNewton`].
#[derive(Clone, Debug, PartialEq)]
#[non_exhaustive]
pub struct LrsfnOptions {
    /// Which matrix. Default the Hessian, whose negative eigenvalues lead away from saddles.
    pub curvature: Curvature,
    /// The eigensolver.
    pub eigen: EigenOptions,
    /// Step length in the captured space, `alpha`. Default 1.
    pub step_length: f64,
    /// Step length in its complement, where the step is `-step_length_beyond / damping` times the gradient. Default 1.
    pub step_length_beyond: f64,
    /// The damping `gamma`, or the least of it. Default 1e-3.
    pub damping: f64,
    /// How the damping is set. Default adaptive.
    pub rule: DampingRule,
    /// Steps from one computation of eigenpairs to the next. Default 1.
    pub refresh: usize,
    /// Whether a computation starts from the last eigenvectors. Default true.
    pub recall: bool,
}

impl Default for LrsfnOptions {
    fn default() -> Self {
        Self {
            curvature: Curvature::Hessian,
            eigen: EigenOptions::default(),
            step_length: 1.0,
            step_length_beyond: 1.0,
            damping: 1e-3,
            rule: DampingRule::Adaptive(LevenbergMarquardt::default().with_initial(1e-3)),
            refresh: 1,
            recall: true,
        }
    }
}

impl LrsfnOptions {
    /// The method as its authors' program has it: fixed step length and damping, eigenpairs anew in every step from a fixed Gaussian block without
    /// oversampling or power iterations.
    #[must_use]
    pub fn paper(rank: usize, step_length: f64, damping: f64) -> Self {
        Self {
            eigen: EigenOptions::default()
                .with_rank(rank)
                .with_oversampling(0)
                .with_power_iterations(0)
                .with_sketch(crate::linalg::Sketch::Gaussian)
                .with_same_sketch(true),
            step_length,
            step_length_beyond: step_length,
            damping,
            rule: DampingRule::Fixed,
            recall: false,
            ..Self::default()
        }
    }

    /// Sets the eigensolver.
    #[must_use]
    pub fn with_eigen(mut self, eigen: EigenOptions) -> Self {
        self.eigen = eigen;
        self
    }

    /// Sets the matrix.
    #[must_use]
    pub fn with_curvature(mut self, curvature: Curvature) -> Self {
        self.curvature = curvature;
        self
    }

    /// Sets the step lengths in the captured space and in its complement.
    #[must_use]
    pub fn with_step_lengths(mut self, captured: f64, beyond: f64) -> Self {
        self.step_length = captured;
        self.step_length_beyond = beyond;
        self
    }

    /// Sets the damping, or the least of it.
    #[must_use]
    pub fn with_damping(mut self, damping: f64) -> Self {
        self.damping = damping;
        self
    }

    /// Sets how the damping is set.
    #[must_use]
    pub fn with_rule(mut self, rule: DampingRule) -> Self {
        self.rule = rule;
        self
    }

    /// Sets the steps from one computation of eigenpairs to the next.
    #[must_use]
    pub fn with_refresh(mut self, steps: usize) -> Self {
        self.refresh = steps;
        self
    }

    /// Sets whether a computation starts from the last eigenvectors.
    #[must_use]
    pub fn with_recall(mut self, recall: bool) -> Self {
        self.recall = recall;
        self
    }

    /// Checks the ranges.
    ///
    /// # Errors
    /// [`Error::Option`] naming the option and its range.
    pub fn validate(&self) -> Result<()> {
        let bad = |option: &str, message: String| {
            Err(Error::Option {
                option: option.into(),
                message,
            })
        };
        self.eigen.validate()?;
        if let DampingRule::Adaptive(rule) = &self.rule {
            rule.validate()?;
        }
        if self.curvature == Curvature::None {
            return bad(
                "curvature",
                "saddle-free Newton needs a matrix: Hessian or GaussNewton".into(),
            );
        }
        for (name, value) in [
            ("step length", self.step_length),
            (
                "step length beyond the captured space",
                self.step_length_beyond,
            ),
        ] {
            if !(0.0..=1e6).contains(&value) {
                return bad(name, format!("{value} is not in 0..=1e6"));
            }
        }
        if !(1e-12..=1e12).contains(&self.damping) {
            return bad(
                "damping",
                format!("{} is not in 1e-12..=1e12", self.damping),
            );
        }
        if self.refresh == 0 {
            return bad("refresh", "0 is no number of steps; give at least 1".into());
        }
        Ok(())
    }
}

/// The step of one quadratic's gradient.
struct Workspace {
    quadratic: Arc<Quadratic>,
    theta: Vector,
    candidates: Candidates,
    /// Linearizes, projects the gradient and makes the step.
    make: Recording,
}

/// What outlives a quadratic.
struct Memory {
    basis: Block,
    /// The step `d`.
    step: Vector,
    /// Its part in the captured space.
    captured: Vector,
    trial: Vector,
    /// The gradient beyond the captured space, up to rounding errors.
    beyond: Vector,
    /// `u_i . g`
    projections: Slice,
    /// `u_i` times that gradient: what rounding errors left of the captured space in it.
    corrections: Slice,
    /// Weights of projections and corrections in what is subtracted from the gradient: -1 and 0.
    subtract: Slice,
    /// The same in the step.
    weights: Slice,
    /// Of the eigenvectors in the sum that is being made.
    coefficients: Slice,
    /// `[1, 1, 1, -step length beyond / damping]`
    factors: Slice,
}

/// An eigensolver for the quadratic of one batch.
struct Spectral {
    quadratic: Arc<Quadratic>,
    solver: RandomizedEigensolver,
}

/// Low-rank saddle-free Newton:
///
/// ```text
/// d = -alpha sum_i (u_i . g) / (|l_i| + gamma) u_i  -  beta / gamma (g - sum_i (u_i . g) u_i)
/// ```
///
/// with the `r` eigenpairs `(l_i, u_i)` of largest magnitude of the Hessian, damping `gamma`, and step lengths `alpha` and `beta` in the captured space and
/// beyond it. Directions of negative curvature are followed downhill with the length that their magnitude allows.
///
/// Eigenpairs come from the batch of the step, or from a batch of their own with
/// [`step_with_curvature`](Self::step_with_curvature). A step has one blocking readback, and `2 + power_iterations` more where eigenpairs are computed,
/// or further ones where their block is ill-conditioned (see [`RandomizedEigensolver`]).
///
/// The eigensolver, the rules for stable damping and the separate step lengths go beyond the paper; [`LrsfnOptions::paper`] is the paper's method as
/// its authors' program has it.
pub struct LowRankSaddleFreeNewton {
    options: LrsfnOptions,
    steps: usize,
    damping: f64,
    /// Random vectors drawn so far.
    drawn: u32,
    values: Vec<f64>,
    memory: Option<Memory>,
    workspaces: Vec<Workspace>,
    spectral: Vec<Spectral>,
}

impl LowRankSaddleFreeNewton {
    /// With these options.
    ///
    /// # Errors
    /// [`Error::Option`] naming the option and its range.
    pub fn new(options: LrsfnOptions) -> Result<Self> {
        options.validate()?;
        let damping = match options.rule {
            DampingRule::Fixed => options.damping,
            DampingRule::Adaptive(rule) => rule.initial.max(options.damping),
        };
        Ok(Self {
            options,
            steps: 0,
            damping,
            drawn: 0,
            values: Vec::new(),
            memory: None,
            workspaces: Vec::new(),
            spectral: Vec::new(),
        })
    }

    /// The eigenvalues in use, by falling magnitude; empty before the first step.
    pub fn eigenvalues(&self) -> &[f64] {
        &self.values
    }

    /// One step with gradient and losses of `batch` and curvature of `curvature_batch`.
    ///
    /// # Errors
    /// As [`Optimizer::step`].
    pub fn step_with_curvature<O: Objective + ?Sized>(
        &mut self,
        objective: &mut O,
        theta: &Vector,
        batch: &O::Batch,
        curvature_batch: &O::Batch,
    ) -> Result<StepReport> {
        let start = Instant::now();
        let gpu = objective.gpu().clone();
        let (readbacks, looks) = (gpu.readbacks(), gpu.looks());
        self.ready(objective)?;
        let mut work = 0.0;
        if self.steps.is_multiple_of(self.options.refresh) || self.values.is_empty() {
            work += self.refresh(objective, theta, curvature_batch)?;
        }
        let quadratic = objective.quadratic(theta, batch, QuadraticRequest::default())?;
        let at = self.workspace(objective, theta, &quadratic)?;
        let damping = self.current_damping();
        let (base, candidate, projections) = self.propose(&gpu, at, damping)?;
        let examples = objective.examples(batch) as f64;
        // A gradient, and the loss at the new point.
        work += examples * (1.0 + 1.0 / 3.0);
        if !base.is_finite() || !candidate.gradient_square.is_finite() {
            return Err(Error::NotFinite {
                what: if base.is_finite() {
                    "the gradient".into()
                } else {
                    "the loss".into()
                },
                advice: "Use a smaller step length or more damping, or check the data.",
            });
        }
        let promised = -(candidate.slope + 0.5 * self.curvature_along(&projections, damping));
        let rho = (base - candidate.loss) / promised;
        let adaptive = match self.options.rule {
            DampingRule::Fixed => None,
            DampingRule::Adaptive(rule) => Some(rule),
        };
        let accepted = candidate.loss.is_finite()
            && candidate.square.is_finite()
            && (adaptive.is_none() || candidate.loss <= base);
        if accepted {
            let workspace = &mut self.workspaces[at];
            gpu.submit(|recorder| workspace.candidates.record_move(recorder))?;
        } else if adaptive.is_none() {
            return Err(Error::NotFinite {
                what: "the loss after the step".into(),
                advice: "Use a smaller step length or more damping.",
            });
        }
        if let Some(rule) = adaptive {
            let rho = if accepted { rho } else { f64::NEG_INFINITY };
            self.damping = rule.next(damping, rho).max(self.options.damping);
        }
        self.steps += 1;
        Ok(StepReport {
            loss_before: base,
            loss_after: Some(if accepted { candidate.loss } else { base }),
            gradient_norm: candidate.gradient_square.sqrt(),
            step_norm: if accepted {
                candidate.square.sqrt()
            } else {
                0.0
            },
            accepted,
            step_length: Some(self.options.step_length),
            rho: rho.is_finite().then_some(rho),
            damping: Some(damping),
            eigenvalues: self.values.clone(),
            work,
            readbacks: gpu.readbacks() - readbacks,
            looks: gpu.looks() - looks,
            seconds: start.elapsed().as_secs_f64(),
            ..StepReport::default()
        })
    }

    /// The damping of a step.
    fn current_damping(&self) -> f64 {
        match self.options.rule {
            DampingRule::Fixed => self.options.damping,
            DampingRule::Adaptive(_) => {
                let least = self.values.last().map_or(0.0, |value| value.abs());
                self.damping.max(least).max(self.options.damping)
            }
        }
    }

    /// `d . C d` within the captured space, with signs.
    fn curvature_along(&self, projections: &[f32], damping: f64) -> f64 {
        self.values
            .iter()
            .zip(projections)
            .map(|(value, &projection)| {
                let moved =
                    self.options.step_length * f64::from(projection) / (value.abs() + damping);
                value * moved * moved
            })
            .sum()
    }

    fn ready<O: Objective + ?Sized>(&mut self, objective: &O) -> Result<()> {
        if self.memory.is_none() {
            let (gpu, layout) = (objective.gpu(), objective.layout());
            let rank = self.options.eigen.rank;
            self.memory = Some(Memory {
                basis: Block::new(gpu, "eigenvectors", layout, rank)?,
                step: Vector::new(gpu, "step", layout)?,
                captured: Vector::new(gpu, "step in the captured space", layout)?,
                trial: Vector::new(gpu, "trial point", layout)?,
                beyond: Vector::new(gpu, "gradient beyond the captured space", layout)?,
                projections: gpu.buffer("projections", rank)?,
                corrections: gpu.buffer("corrections of projections", rank)?,
                subtract: gpu.buffer("weights of projections in the gradient", 2 * rank)?,
                weights: gpu.buffer("weights of projections", 2 * rank)?,
                coefficients: gpu.buffer("coefficients of eigenvectors", rank)?,
                factors: gpu.buffer("factors of gradients", 4)?,
            });
            if let Some(memory) = &self.memory {
                let mut subtract = vec![-1.0f32; rank];
                subtract.resize(2 * rank, 0.0);
                gpu.upload(&memory.subtract, 0, &subtract)?;
            }
        }
        Ok(())
    }

    /// Computes eigenpairs at `theta` on a batch. Returns the work.
    fn refresh<O: Objective + ?Sized>(
        &mut self,
        objective: &mut O,
        theta: &Vector,
        batch: &O::Batch,
    ) -> Result<f64> {
        let options = &self.options;
        let request = QuadraticRequest {
            curvature: options.curvature,
            block: options.eigen.width(),
            ..QuadraticRequest::default()
        };
        let quadratic = objective.quadratic(theta, batch, request)?;
        let Some(memory) = &self.memory else {
            return Err(missing("memory"));
        };
        let known = self
            .spectral
            .iter()
            .position(|s| Arc::ptr_eq(&s.quadratic, &quadratic));
        let at = match known {
            Some(at) => at,
            None => {
                let block = quadratic.block.as_ref().ok_or_else(|| missing("block"))?;
                let operator = BlockOperator::from(block);
                let solver = RandomizedEigensolver::new(
                    objective.gpu(),
                    &operator,
                    &memory.basis,
                    &options.eigen,
                )?;
                self.spectral.push(Spectral {
                    quadratic: Arc::clone(&quadratic),
                    solver,
                });
                self.spectral.len() - 1
            }
        };
        let recall = options.recall && !self.values.is_empty();
        let solver = &mut self.spectral[at].solver;
        solver.set_drawn(self.drawn);
        let found = solver.solve(&quadratic.linearize, recall)?;
        self.drawn = solver.drawn();
        self.values = found.values;
        let products = self.options.eigen.products() as f64;
        // The linearization is a gradient, too.
        Ok(objective.examples(batch) as f64 * (1.0 + 2.0 * products))
    }

    fn workspace<O: Objective + ?Sized>(
        &mut self,
        objective: &mut O,
        theta: &Vector,
        quadratic: &Arc<Quadratic>,
    ) -> Result<usize> {
        let known = |w: &Workspace| Arc::ptr_eq(&w.quadratic, quadratic) && w.theta.is_same(theta);
        if let Some(at) = self.workspaces.iter().position(known) {
            return Ok(at);
        }
        let Some(memory) = &self.memory else {
            return Err(missing("memory"));
        };
        let loss = objective.loss_at(&memory.trial, quadratic)?;
        let gpu = objective.gpu();
        let gradient = &quadratic.gradient;
        let mut make = quadratic.linearize.clone();
        let basis = Rows::from(&memory.basis);
        // Twice: what rounding leaves of the captured space would be multiplied by 1 / damping.
        for (from, to, result, weights, slot) in [
            (
                gradient,
                &memory.projections,
                &memory.beyond,
                &memory.subtract,
                0,
            ),
            (
                &memory.beyond,
                &memory.corrections,
                &memory.step,
                &memory.weights,
                2,
            ),
        ] {
            let inner = InnerProducts::record(gpu, &mut make, &basis, &from.into())?;
            inner.record_sum(gpu, &mut make, to)?;
            let (c, projections) = (&memory.coefficients, &memory.projections);
            weigh(gpu, &mut make, c, weights, projections, to)?;
            combine_rows(gpu, &mut make, &Rows::from(&memory.captured), c, &basis)?;
            let (out, x, y) = (result.slice(), memory.captured.slice(), from.slice());
            combine(gpu, &mut make, out, x, y, (&memory.factors, slot))?;
        }
        let candidates = Candidates::new(gpu, theta, &memory.trial, quadratic, loss)?;
        self.workspaces.push(Workspace {
            quadratic: Arc::clone(quadratic),
            theta: theta.clone(),
            candidates,
            make,
        });
        Ok(self.workspaces.len() - 1)
    }

    /// Makes the step, and evaluates the loss there: loss before, what is known of the new point, projections of the gradient.
    fn propose(
        &mut self,
        gpu: &Gpu,
        at: usize,
        damping: f64,
    ) -> Result<(f64, Candidate, Vec<f32>)> {
        let (workspace, Some(memory)) = (&mut self.workspaces[at], &self.memory) else {
            return Err(missing("memory"));
        };
        let options = &self.options;
        let beyond = options.step_length_beyond / damping;
        let captured = |value: &f64| -options.step_length / (value.abs() + damping);
        let of_projections = self.values.iter().map(captured);
        let of_corrections = self.values.iter().map(|value| beyond + captured(value));
        let weights: Vec<f32> = of_projections
            .chain(of_corrections)
            .map(|w| w as f32)
            .collect();
        gpu.upload(&memory.weights, 0, &weights)?;
        gpu.upload(&memory.factors, 0, &[1.0, 1.0, 1.0, -beyond as f32])?;
        workspace.candidates.prepare(gpu, &[(&memory.step, 1.0)])?;
        let (make, candidates) = (&workspace.make, &workspace.candidates);
        let mut reads = candidates.reads().to_vec();
        reads.push(&memory.projections);
        let mut read = gpu.submit_and_read(
            |recorder| {
                recorder.replay(make);
                candidates.record(recorder);
                Ok(())
            },
            &reads,
        )?;
        let projections = read.pop().ok_or_else(|| missing("projections"))?;
        let (base, found) = candidates.results(&read)?;
        let candidate = found.first().copied().ok_or_else(|| missing("candidate"))?;
        Ok((base, candidate, projections))
    }
}

impl<O: Objective + ?Sized> Optimizer<O> for LowRankSaddleFreeNewton {
    fn name(&self) -> &'static str {
        match self.options.rule {
            DampingRule::Fixed => "lrsfn-paper",
            DampingRule::Adaptive(_) => "lrsfn",
        }
    }

    fn step(&mut self, objective: &mut O, theta: &Vector, batch: &O::Batch) -> Result<StepReport> {
        self.step_with_curvature(objective, theta, batch, batch)
    }

    fn state(&self, objective: &O) -> Result<OptimizerState> {
        let mut state = OptimizerState {
            scalars: vec![
                ("steps".into(), self.steps as f64),
                ("damping".into(), self.damping),
                ("drawn".into(), f64::from(self.drawn)),
            ],
            vectors: vec![],
        };
        if let Some(memory) = &self.memory {
            for (i, (value, vector)) in self.values.iter().zip(memory.basis.vectors()).enumerate() {
                state.scalars.push((format!("eigenvalue {i}"), *value));
                let name = format!("eigenvector {i}");
                state.vectors.push((name, vector.read(objective.gpu())?));
            }
        }
        Ok(state)
    }

    fn restore(&mut self, objective: &O, state: &OptimizerState) -> Result<()> {
        let scalar = |name: &str| state.scalar(name).ok_or_else(|| missing(name));
        let (steps, damping, drawn) = (scalar("steps")?, scalar("damping")?, scalar("drawn")?);
        let values: Vec<f64> = (0..self.options.eigen.rank)
            .map_while(|i| state.scalar(&format!("eigenvalue {i}")))
            .collect();
        self.ready(objective)?;
        if let Some(memory) = &self.memory {
            for (i, vector) in memory.basis.vectors().iter().take(values.len()).enumerate() {
                let name = format!("eigenvector {i}");
                let tensors = state.vector(&name).ok_or_else(|| missing(&name))?;
                vector.write(objective.gpu(), tensors)?;
            }
        }
        (self.steps, self.damping, self.values) = (steps as usize, damping, values);
        self.drawn = drawn as u32;
        Ok(())
    }
}
