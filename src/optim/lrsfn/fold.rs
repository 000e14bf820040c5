//! The step of one turn of the folds: its eigenpairs, and the kernels that make a step with them.

use std::sync::Arc;

use super::options::{Base, LrsfnOptions};
use super::spectrum::Spectrum;
use crate::error::Result;
use crate::gpu::{Gpu, Recorder, Recording, Slice};
use crate::kernels::blocks::{Rows, weigh};
use crate::kernels::spectrum::{SPECTRUM_ELEMENTS, Spectrum as Numbers, eigenvector_weights};
use crate::kernels::vector::{FirstOrderMethod, combine};
use crate::objective::{Gradient, Objective};
use crate::optim::first_order::Moments;
use crate::optim::undo::Undo;
use crate::vector::{Layout, Vector};

/// What outlives a quadratic.
pub(super) struct Memory {
    /// One for each turn of the strategy.
    pub(super) folds: Vec<Fold>,
    /// The step `d`. With several folds: two places between which the sum of steps changes, and the step of one fold.
    steps: Vec<Vector>,
    /// The part of a step in the captured space.
    captured: Vector,
    zeros: Vector,
    /// The gradient beyond the captured space, up to rounding errors.
    beyond: Vector,
    pub(super) base: Option<BaseMemory>,
    /// `u_i` times what the step in the complement is made from: what rounding errors, or moments, left of the captured space in it.
    corrections: Slice,
    /// Of the eigenvectors in the sum that is being made.
    coefficients: Slice,
    /// `[1, 1, 1, factor of what the step in the complement is made from]`, the last by the kernel that makes weights.
    factors: Slice,
}

/// For the turn that counts from one fold on: eigenpairs, and how a gradient becomes a step with them.
pub(super) struct Fold {
    pub(super) spectrum: Spectrum,
    /// `u_i . g`
    pub(super) projections: Slice,
    /// Weights of projections and corrections in what is added to the gradient: -1 and 0.
    subtract: Slice,
    /// The same in the step.
    weights: Slice,
    /// What they are made from: step lengths, damping and eigenvalues.
    pub(super) numbers: Slice,
}

/// A base optimizer. It moves `direction`, which is zero before.
pub(super) struct BaseMemory {
    pub(super) moments: Moments,
    pub(super) undo: Undo,
    direction: Vector,
}

/// The method of a base optimizer.
pub(super) fn method(base: &Base) -> Option<FirstOrderMethod> {
    match base {
        Base::Gradient => None,
        Base::Sgd(_) => Some(FirstOrderMethod::Sgd),
        Base::Adam(_) => Some(FirstOrderMethod::Adam),
    }
}

impl Fold {
    fn new(gpu: &Gpu, layout: &Arc<Layout>, options: &LrsfnOptions) -> Result<Self> {
        let rank = options.eigen.rank;
        Ok(Self {
            spectrum: Spectrum::new(gpu, layout, options)?,
            projections: gpu.buffer("projections", rank)?,
            subtract: gpu.buffer("weights of projections in the gradient", 2 * rank)?,
            weights: gpu.buffer("weights of projections", 2 * rank)?,
            numbers: gpu.buffer(
                "step lengths, damping and eigenvalues",
                SPECTRUM_ELEMENTS + rank,
            )?,
        })
    }

    /// Eigenvectors that are not in use stay in the complement.
    pub(super) fn upload_subtraction(&self, gpu: &Gpu) -> Result<()> {
        let mut numbers = vec![-1.0f32; self.spectrum.known.values.len()];
        numbers.resize(self.subtract.len(), 0.0);
        gpu.upload(&self.subtract, 0, &numbers)
    }

    /// Step lengths and damping of the next step, with the eigenvalues.
    pub(super) fn upload_numbers(&self, gpu: &Gpu, numbers: Numbers) -> Result<()> {
        let values = &self.spectrum.known.values;
        let numbers = Numbers {
            count: values.len() as u32,
            ..numbers
        };
        let rank = self.spectrum.basis.rank();
        gpu.upload(&self.numbers, 0, &numbers.words(values, rank))
    }

    /// `d . C d` within the captured space, with signs, for a step of length `alpha`.
    pub(super) fn curvature_along(&self, projections: &[f32], alpha: f64, damping: f64) -> f64 {
        let each = self.spectrum.known.values.iter().zip(projections);
        each.map(|(value, &projection)| {
            let moved = alpha * f64::from(projection) / (value.abs() + damping);
            value * moved * moved
        })
        .sum()
    }
}

impl Memory {
    pub(super) fn new<O: Objective + ?Sized>(
        objective: &O,
        options: &LrsfnOptions,
    ) -> Result<Self> {
        let (gpu, layout) = (objective.gpu(), objective.layout());
        let rank = options.eigen.rank;
        let factors = gpu.buffer("factors of gradients", 4)?;
        gpu.upload(&factors, 0, &[1.0f32; 4])?;
        let new = |label: &str| Vector::new(gpu, label, layout);
        let base = match method(&options.base) {
            None => None,
            Some(method) => {
                let moments = Moments::new(gpu, layout, method)?;
                let remembered = moments.remembered().into_iter();
                let slices: Vec<Slice> = remembered.map(|(_, v)| v.slice().clone()).collect();
                Some(BaseMemory {
                    undo: Undo::new(gpu, &slices)?,
                    moments,
                    direction: new("step of the base optimizer")?,
                })
            }
        };
        let folds = (0..options.strategy.turns().len())
            .map(|_| Fold::new(gpu, layout, options))
            .collect::<Result<Vec<_>>>()?;
        let steps = if folds.len() == 1 { 1 } else { 3 };
        let steps = (0..steps).map(|_| new("step"));
        Ok(Self {
            folds,
            steps: steps.collect::<Result<Vec<_>>>()?,
            captured: new("step in the captured space")?,
            zeros: new("zeros")?,
            beyond: new("gradient beyond the captured space")?,
            base,
            corrections: gpu.buffer("corrections of projections", rank)?,
            coefficients: gpu.buffer("coefficients of eigenvectors", rank)?,
            factors,
        })
    }

    /// Records what brings back everything that a step overwrites.
    pub(super) fn record_back(&self, recorder: &mut Recorder<'_>) {
        for fold in &self.folds {
            fold.spectrum.record_back(recorder);
        }
        if let Some(back) = self.base.as_ref().and_then(|base| base.undo.pending()) {
            recorder.replay(back);
        }
    }

    /// Takes the rest of what a step changes back.
    pub(super) fn withdraw(&mut self) {
        for fold in &mut self.folds {
            fold.spectrum.withdraw();
        }
        if let Some(base) = &mut self.base {
            base.undo.end();
        }
    }

    /// What the step changed stays.
    pub(super) fn end(&mut self) {
        for fold in &mut self.folds {
            fold.spectrum.end();
        }
        if let Some(base) = &mut self.base {
            base.undo.end();
        }
    }

    /// A vector of finite numbers, for a step of no length.
    pub(super) fn still(&self) -> &Vector {
        &self.zeros
    }

    /// The step that `folds` of them made together.
    pub(super) fn step(&self, folds: usize) -> &Vector {
        &self.steps[(folds + 1) % 2]
    }

    /// Records the step of fold `number` for a gradient that is computed, and adds it to those of the folds before. `8 r P` flops.
    pub(super) fn record(
        &self,
        gpu: &Gpu,
        make: &mut Recording,
        of: &Gradient,
        number: usize,
    ) -> Result<()> {
        let fold = &self.folds[number];
        let out = if number == 0 {
            &self.steps[0]
        } else {
            &self.steps[2]
        };
        let gradient = &of.gradient;
        let outputs = [&fold.weights, &self.factors];
        eigenvector_weights(gpu, make, outputs, &fold.numbers, self.base.is_some())?;
        let (products, weights) = (&fold.projections, &fold.subtract);
        let split = Split {
            fold,
            products,
            weights,
            slot: 0,
        };
        self.record_split(gpu, make, gradient, &self.beyond, &split)?;
        // Again: what rounding leaves of the captured space would be multiplied by 1 / damping.
        let mut source = &self.beyond;
        if let Some(base) = &self.base {
            let direction = &base.direction;
            make.copy(self.zeros.slice(), direction.slice())?;
            let moments = &base.moments;
            moments.record_sums(gpu, make, &self.beyond, &of.value)?;
            moments.record_step(gpu, make, direction, &self.beyond)?;
            source = direction;
        }
        let (products, weights) = (&self.corrections, &fold.weights);
        let split = Split {
            fold,
            products,
            weights,
            slot: 2,
        };
        self.record_split(gpu, make, source, out, &split)?;
        if number == 0 {
            return Ok(());
        }
        let (to, from) = (self.step(number + 1).slice(), self.step(number).slice());
        combine(gpu, make, to, from, out.slice(), (&self.factors, 0))
    }

    /// Records `products = U x` and `out = (weighted projections and corrections) U + factor x`.
    fn record_split(
        &self,
        gpu: &Gpu,
        make: &mut Recording,
        x: &Vector,
        out: &Vector,
        split: &Split<'_>,
    ) -> Result<()> {
        let basis = &split.fold.spectrum.basis;
        basis.record_products(gpu, make, &x.into(), split.products)?;
        let (c, first) = (&self.coefficients, &split.fold.projections);
        weigh(gpu, make, c, split.weights, first, split.products)?;
        let captured = &self.captured;
        basis.record_combination(gpu, make, &Rows::from(captured), c, false)?;
        let factors = (&self.factors, split.slot);
        combine(gpu, make, out.slice(), captured.slice(), x.slice(), factors)
    }
}

/// Where a split of a vector into its captured part and the rest finds its numbers.
struct Split<'a> {
    fold: &'a Fold,
    products: &'a Slice,
    weights: &'a Slice,
    /// In [`Memory::factors`].
    slot: usize,
}
