//! Low-rank saddle-free Newton with Levenberg-Marquardt damping (O'Leary-Roseberry, Alger and Ghattas 2020).

mod automatic;
mod options;
mod spectrum;

use std::sync::Arc;
use std::time::Instant;

use automatic::StepProbe;
pub use options::{Base, CurvatureBatch, DampingRule, LrsfnOptions, RankRule};
use spectrum::Spectrum;

use super::candidates::{Candidate, Candidates};
use super::first_order::{Moments, missing};
use super::optimizer::{Optimizer, OptimizerState};
use super::report::StepReport;
use crate::error::{Error, Result};
use crate::gpu::{Gpu, Recording, Slice};
use crate::kernels::blocks::{Rows, weigh};
use crate::kernels::vector::{FirstOrderMethod, combine};
use crate::objective::{Objective, Quadratic, QuadraticRequest};
use crate::vector::Vector;

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
    spectrum: Spectrum,
    /// The step `d`.
    step: Vector,
    /// Its part in the captured space.
    captured: Vector,
    trial: Vector,
    /// The gradient beyond the captured space, up to rounding errors.
    beyond: Vector,
    base: Option<BaseMemory>,
    /// `u_i . g`
    projections: Slice,
    /// `u_i` times what the step in the complement is made from: what rounding errors, or moments, left of the captured space in it.
    corrections: Slice,
    /// Weights of projections and corrections in what is added to the gradient: -1 and 0.
    subtract: Slice,
    /// The same in the step.
    weights: Slice,
    /// Of the eigenvectors in the sum that is being made.
    coefficients: Slice,
    /// `[1, 1, 1, factor of what the step in the complement is made from]`
    factors: Slice,
}

/// A base optimizer. It moves `direction`, which is zero before.
struct BaseMemory {
    moments: Moments,
    direction: Vector,
    zeros: Vector,
}

/// What a step would do.
struct Proposal {
    /// The loss before.
    base: f64,
    candidate: Candidate,
    /// `u_i . g`
    projections: Vec<f32>,
    /// Whether the base optimizer moved at all.
    moved: bool,
}

/// Low-rank saddle-free Newton:
///
/// ```text
/// d = -alpha sum_i (u_i . g) / (|l_i| + gamma) u_i  -  beta / gamma (g - sum_i (u_i . g) u_i)
/// ```
///
/// with the `r` eigenpairs `(l_i, u_i)` of largest magnitude of the Hessian, damping `gamma`, and step lengths `alpha` and `beta` in the captured space and
/// beyond it. Directions of negative curvature are followed downhill with the length that their magnitude allows. With another [`Base`] the second term is
/// the step of SGD or Adam on the gradient beyond the captured space, made orthogonal to that space.
///
/// Eigenpairs come from the batch of the step, from a part of it ([`CurvatureBatch`]), or from a batch of their own with
/// [`step_with_curvature`](Self::step_with_curvature). A step has one blocking readback. Where eigenpairs are computed there is one more if they start from
/// the last ones without power iterations, and `2 + power_iterations` more otherwise (see [`RandomizedEigensolver`](crate::linalg::RandomizedEigensolver));
/// a noise test and an automatic step length have one each.
///
/// The eigensolver, the rules for stable damping, the separate step lengths and everything else in [`LrsfnOptions`] go beyond the paper;
/// [`LrsfnOptions::paper`] is the paper's method as its authors' program has it.
pub struct LowRankSaddleFreeNewton {
    options: LrsfnOptions,
    steps: usize,
    damping: f64,
    /// Step lengths in the captured space and beyond it.
    lengths: [f64; 2],
    memory: Option<Memory>,
    workspaces: Vec<Workspace>,
    probes: Vec<StepProbe>,
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
            lengths: [options.step_length, options.step_length_beyond],
            options,
            steps: 0,
            damping,
            memory: None,
            workspaces: Vec::new(),
            probes: Vec::new(),
        })
    }

    /// The eigenvalues in use, by falling magnitude; empty before the first step.
    pub fn eigenvalues(&self) -> &[f64] {
        self.memory.as_ref().map_or(&[], |m| &m.spectrum.values)
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
        let mut memory = match self.memory.take() {
            Some(memory) => memory,
            None => Memory::new(objective, &self.options)?,
        };
        let result = self.step_in(&mut memory, objective, theta, batch, curvature_batch);
        self.memory = Some(memory);
        Ok(StepReport {
            readbacks: gpu.readbacks() - readbacks,
            looks: gpu.looks() - looks,
            seconds: start.elapsed().as_secs_f64(),
            ..result?
        })
    }

    fn step_in<O: Objective + ?Sized>(
        &mut self,
        memory: &mut Memory,
        objective: &mut O,
        theta: &Vector,
        batch: &O::Batch,
        curvature_batch: &O::Batch,
    ) -> Result<StepReport> {
        let gpu = objective.gpu().clone();
        let examples = objective.examples(batch) as f64;
        let mut work = 0.0;
        if self.steps.is_multiple_of(self.options.refresh) || memory.spectrum.is_new() {
            work += memory
                .spectrum
                .refresh(&self.options, objective, theta, curvature_batch)?;
            memory.upload_subtraction(&gpu)?;
            if let Some(steps) = self.options.automatic {
                let length = self.measure(memory, objective, theta, batch, steps)?;
                self.lengths = [length; 2];
                work += examples * (1.0 + 2.0 * steps as f64);
            }
        }
        let quadratic = objective.quadratic(theta, batch, QuadraticRequest::default())?;
        let at = self.workspace(memory, objective, theta, &quadratic)?;
        let damping = self.current_damping(&memory.spectrum);
        let proposal = self.propose(memory, &gpu, at, damping)?;
        let Proposal {
            base, candidate, ..
        } = proposal;
        // A gradient, and the loss at the new point.
        work += examples * (1.0 + 1.0 / 3.0);
        if !base.is_finite() || !candidate.gradient_square.is_finite() || !proposal.moved {
            return Err(Error::NotFinite {
                what: if !base.is_finite() {
                    "the loss".into()
                } else if proposal.moved {
                    "the gradient".into()
                } else {
                    "the step".into()
                },
                advice: "Use a smaller step length or more damping, or check the data.",
            });
        }
        let curvature = self.curvature_along(&memory.spectrum, &proposal.projections, damping);
        let rho = (candidate.loss - base) / (candidate.slope + 0.5 * curvature);
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
            step_length: Some(self.lengths[0]),
            rho: rho.is_finite().then_some(rho),
            damping: Some(damping),
            eigenvalues: memory.spectrum.values.clone(),
            eigenvalue_noise: memory.spectrum.noise.clone(),
            work,
            ..StepReport::default()
        })
    }

    /// The damping of a step.
    fn current_damping(&self, spectrum: &Spectrum) -> f64 {
        match self.options.rule {
            DampingRule::Fixed => self.options.damping,
            DampingRule::Adaptive(_) => {
                let least = spectrum.values.last().map_or(0.0, |value| value.abs());
                self.damping.max(least).max(self.options.damping)
            }
        }
    }

    /// `d . C d` within the captured space, with signs.
    fn curvature_along(&self, spectrum: &Spectrum, projections: &[f32], damping: f64) -> f64 {
        let each = spectrum.values.iter().zip(projections);
        each.map(|(value, &projection)| {
            let moved = self.lengths[0] * f64::from(projection) / (value.abs() + damping);
            value * moved * moved
        })
        .sum()
    }

    /// The automatic step length.
    fn measure<O: Objective + ?Sized>(
        &mut self,
        memory: &Memory,
        objective: &mut O,
        theta: &Vector,
        batch: &O::Batch,
        steps: usize,
    ) -> Result<f64> {
        let request = QuadraticRequest {
            curvature: self.options.curvature,
            ..QuadraticRequest::default()
        };
        let quadratic = objective.quadratic(theta, batch, request)?;
        let gpu = objective.gpu();
        let known = |probe: &StepProbe| Arc::ptr_eq(&probe.quadratic, &quadratic);
        let at = match self.probes.iter().position(known) {
            Some(at) => at,
            None => {
                let basis = &memory.spectrum.basis;
                self.probes
                    .push(StepProbe::new(gpu, &quadratic, basis, steps)?);
                self.probes.len() - 1
            }
        };
        let damping = self.current_damping(&memory.spectrum);
        self.probes[at].measure(gpu, &memory.spectrum.values, damping)
    }

    fn workspace<O: Objective + ?Sized>(
        &mut self,
        memory: &Memory,
        objective: &mut O,
        theta: &Vector,
        quadratic: &Arc<Quadratic>,
    ) -> Result<usize> {
        let known = |w: &Workspace| Arc::ptr_eq(&w.quadratic, quadratic) && w.theta.is_same(theta);
        if let Some(at) = self.workspaces.iter().position(known) {
            return Ok(at);
        }
        let loss = objective.loss_at(&memory.trial, quadratic.rows)?;
        let gpu = objective.gpu();
        let mut make = quadratic.linearize.clone();
        memory.record(gpu, &mut make, quadratic)?;
        let candidates = Candidates::new(
            gpu,
            [theta, &memory.trial, &quadratic.gradient],
            &quadratic.value,
            loss,
        )?;
        self.workspaces.push(Workspace {
            quadratic: Arc::clone(quadratic),
            theta: theta.clone(),
            candidates,
            make,
        });
        Ok(self.workspaces.len() - 1)
    }

    /// Makes the step, and evaluates the loss there.
    fn propose(&mut self, memory: &Memory, gpu: &Gpu, at: usize, damping: f64) -> Result<Proposal> {
        let settings = self.settings();
        let workspace = &mut self.workspaces[at];
        if let (Some(base), Some(settings)) = (&memory.base, &settings) {
            gpu.upload(&base.moments.settings, 0, settings)?;
        }
        memory.upload_weights(gpu, self.lengths, damping)?;
        workspace.candidates.prepare(gpu, &[(&memory.step, 1.0)])?;
        let (make, candidates) = (&workspace.make, &workspace.candidates);
        let mut reads = candidates.reads().to_vec();
        reads.push(&memory.projections);
        reads.extend(memory.base.as_ref().map(|base| &base.moments.sums));
        let mut read = gpu.submit_and_read(
            |recorder| {
                recorder.replay(make);
                candidates.record(recorder);
                Ok(())
            },
            &reads,
        )?;
        let moved = match (&memory.base, &settings) {
            (Some(base), Some(settings)) => {
                let sums = read.pop().ok_or_else(|| missing("sums"))?;
                base.moments.moves(settings, &sums)
            }
            _ => true,
        };
        let projections = read.pop().ok_or_else(|| missing("projections"))?;
        let (base, found) = candidates.results(&read)?;
        let candidate = found.first().copied().ok_or_else(|| missing("candidate"))?;
        Ok(Proposal {
            base,
            candidate,
            projections,
            moved,
        })
    }

    /// Settings of the base optimizer for the next step.
    fn settings(&self) -> Option<[f32; 8]> {
        match &self.options.base {
            Base::Gradient => None,
            Base::Sgd(options) => Some(options.settings()),
            Base::Adam(options) => Some(options.settings(self.steps as i32 + 1)),
        }
    }
}

impl Memory {
    fn new<O: Objective + ?Sized>(objective: &O, options: &LrsfnOptions) -> Result<Self> {
        let (gpu, layout) = (objective.gpu(), objective.layout());
        let rank = options.eigen.rank;
        let new = |label: &str| Vector::new(gpu, label, layout);
        let method = match options.base {
            Base::Gradient => None,
            Base::Sgd(_) => Some(FirstOrderMethod::Sgd),
            Base::Adam(_) => Some(FirstOrderMethod::Adam),
        };
        let base = match method {
            None => None,
            Some(method) => Some(BaseMemory {
                moments: Moments::new(gpu, layout, method)?,
                direction: new("step of the base optimizer")?,
                zeros: new("zeros")?,
            }),
        };
        Ok(Self {
            spectrum: Spectrum::new(gpu, layout, options)?,
            step: new("step")?,
            captured: new("step in the captured space")?,
            trial: new("trial point")?,
            beyond: new("gradient beyond the captured space")?,
            base,
            projections: gpu.buffer("projections", rank)?,
            corrections: gpu.buffer("corrections of projections", rank)?,
            subtract: gpu.buffer("weights of projections in the gradient", 2 * rank)?,
            weights: gpu.buffer("weights of projections", 2 * rank)?,
            coefficients: gpu.buffer("coefficients of eigenvectors", rank)?,
            factors: gpu.buffer("factors of gradients", 4)?,
        })
    }

    /// Records the step for a quadratic that is linearized. `8 r P` flops.
    fn record(&self, gpu: &Gpu, make: &mut Recording, quadratic: &Quadratic) -> Result<()> {
        let gradient = &quadratic.gradient;
        self.record_split(gpu, make, gradient, &self.projections, &self.beyond, 0)?;
        // Again: what rounding leaves of the captured space would be multiplied by 1 / damping.
        let mut source = &self.beyond;
        if let Some(base) = &self.base {
            let direction = &base.direction;
            make.copy(base.zeros.slice(), direction.slice())?;
            let moments = &base.moments;
            moments.record(gpu, make, direction, &self.beyond, &quadratic.value)?;
            source = direction;
        }
        self.record_split(gpu, make, source, &self.corrections, &self.step, 2)
    }

    /// Records `products = U x` and `out = (weighted projections and corrections) U + factor x`.
    fn record_split(
        &self,
        gpu: &Gpu,
        make: &mut Recording,
        x: &Vector,
        products: &Slice,
        out: &Vector,
        slot: usize,
    ) -> Result<()> {
        let basis = &self.spectrum.basis;
        basis.record_products(gpu, make, &x.into(), products)?;
        let weights = if slot == 0 {
            &self.subtract
        } else {
            &self.weights
        };
        let (c, first) = (&self.coefficients, &self.projections);
        weigh(gpu, make, c, weights, first, products)?;
        let captured = &self.captured;
        basis.record_combination(gpu, make, &Rows::from(captured), c, false)?;
        let factors = (&self.factors, slot);
        combine(gpu, make, out.slice(), captured.slice(), x.slice(), factors)
    }

    /// Eigenvectors that are not in use stay in the complement.
    fn upload_subtraction(&self, gpu: &Gpu) -> Result<()> {
        let mut numbers = vec![-1.0f32; self.spectrum.values.len()];
        numbers.resize(self.subtract.len(), 0.0);
        gpu.upload(&self.subtract, 0, &numbers)
    }

    fn upload_weights(&self, gpu: &Gpu, [alpha, beta]: [f64; 2], damping: f64) -> Result<()> {
        let rank = self.spectrum.basis.rank();
        let mut weights = vec![0.0f32; 2 * rank];
        // A base optimizer's step has its length already, and nothing of the captured space may stay in it.
        let factor = if self.base.is_some() {
            1.0
        } else {
            -beta / damping
        };
        for (i, value) in self.spectrum.values.iter().enumerate() {
            let captured = -alpha / (value.abs() + damping);
            weights[i] = captured as f32;
            weights[rank + i] = if self.base.is_some() {
                -1.0
            } else {
                (captured - factor) as f32
            };
        }
        gpu.upload(&self.weights, 0, &weights)?;
        gpu.upload(&self.factors, 0, &[1.0, 1.0, 1.0, factor as f32])
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
        let rows = objective.rows(batch);
        let of = |part: f64| ((rows as f64 * part).round() as usize).clamp(1, rows);
        match self.options.curvature_batch {
            CurvatureBatch::Same => self.step_with_curvature(objective, theta, batch, batch),
            CurvatureBatch::Part(part) => {
                let first = 0..of(part);
                let curvature = objective.part(batch, &[first])?;
                self.step_with_curvature(objective, theta, batch, &curvature)
            }
            CurvatureBatch::Apart(part) => {
                let cut = rows - of(part);
                let (first, last) = (0..cut, cut..rows);
                let gradient = objective.part(batch, &[first])?;
                let curvature = objective.part(batch, &[last])?;
                self.step_with_curvature(objective, theta, &gradient, &curvature)
            }
        }
    }

    fn state(&self, objective: &O) -> Result<OptimizerState> {
        let mut state = OptimizerState {
            scalars: vec![
                ("steps".into(), self.steps as f64),
                ("damping".into(), self.damping),
                ("step_length".into(), self.lengths[0]),
                ("step_length_beyond".into(), self.lengths[1]),
            ],
            vectors: vec![],
        };
        if let Some(memory) = &self.memory {
            memory.spectrum.save(objective.gpu(), &mut state)?;
            if let Some(base) = &memory.base {
                base.moments.save(objective.gpu(), &mut state)?;
            }
        }
        Ok(state)
    }

    fn restore(&mut self, objective: &O, state: &OptimizerState) -> Result<()> {
        let scalar = |name: &str| state.scalar(name).ok_or_else(|| missing(name));
        let (steps, damping) = (scalar("steps")?, scalar("damping")?);
        let lengths = [scalar("step_length")?, scalar("step_length_beyond")?];
        let gpu = objective.gpu();
        let mut memory = Memory::new(objective, &self.options)?;
        if steps > 0.0 {
            memory.spectrum.restore(gpu, state)?;
            if let Some(base) = &memory.base {
                base.moments.restore(gpu, state)?;
            }
            memory.upload_subtraction(gpu)?;
        }
        self.workspaces.clear();
        self.probes.clear();
        (self.steps, self.damping, self.lengths) = (steps as usize, damping, lengths);
        self.memory = Some(memory);
        Ok(())
    }
}
