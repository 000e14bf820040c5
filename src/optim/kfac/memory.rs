//! What K-FAC has on the device.

use std::sync::Arc;

use crate::error::Result;
use crate::gpu::{Gpu, Recording, Slice, Work};
use crate::kernels::vector::{FirstOrderMethod, combine, inner_products, partial_elements};
use crate::objective::{Kronecker, KroneckerStructure};
use crate::optim::first_order::Moments;
use crate::optim::mixture::Mixture;
use crate::vector::{Layout, Vector};

pub(super) struct Memory {
    pub(super) structure: KroneckerStructure,
    pub(super) moments: Moments,
    /// Running averages, and those with this step's factors, which take their place once the step is taken.
    pub(super) factors: Vector,
    pub(super) next: Vector,
    /// Inverses in use, and those that are uploaded and not yet in use.
    pub(super) inverses: Vector,
    pub(super) coming: Vector,
    /// Weights of average and newest factors.
    weights: Slice,
    mixture: Mixture,
    /// `(g.D, g.g, D.D)`
    pub(super) sums: Slice,
    partials: Slice,
    /// Puts what is uploaded into use.
    pub(super) renew: Recording,
    /// Puts this step's averages into use.
    pub(super) keep: Recording,
}

/// What is recorded for one program.
pub(super) struct Workspace {
    pub(super) program: Arc<Kronecker>,
    pub(super) theta: Vector,
    /// Value, gradient and direction, with their inner products.
    pub(super) linearize: Work,
    /// This batch's factors, and the running averages with them.
    pub(super) refresh: Work,
    /// Moves the parameters.
    pub(super) take: Recording,
}

impl Memory {
    pub(super) fn new(
        gpu: &Gpu,
        layout: &Arc<Layout>,
        structure: KroneckerStructure,
    ) -> Result<Self> {
        let new = |label: &str| Vector::new(gpu, label, &structure.factors);
        let (factors, next) = (new("average factors")?, new("next average factors")?);
        let new = |label: &str| Vector::new(gpu, label, &structure.functions);
        let (inverses, coming) = (new("inverse factors")?, new("next inverse factors")?);
        let mut renew = Recording::new();
        renew.copy(coming.slice(), inverses.slice())?;
        let mut keep = Recording::new();
        keep.copy(next.slice(), factors.slice())?;
        let direction = Vector::new(gpu, "direction", layout)?;
        Ok(Self {
            moments: Moments::new(gpu, layout, FirstOrderMethod::Sgd)?,
            weights: gpu.buffer("weights of average and newest factors", 2)?,
            mixture: Mixture::new(gpu)?,
            sums: gpu.buffer("inner products", 3)?,
            partials: gpu.buffer("partial sums", partial_elements(direction.slice()))?,
            structure,
            factors,
            next,
            inverses,
            coming,
            renew,
            keep,
        })
    }

    /// Says which signs are drawn next, and what the newest factors weigh.
    pub(super) fn prepare(
        &self,
        gpu: &Gpu,
        (seed, number): (u64, u64),
        (old, newest): (f64, f64),
    ) -> Result<()> {
        self.mixture.set(gpu, seed, number)?;
        gpu.upload(&self.weights, 0, &[old as f32, newest as f32])
    }

    pub(super) fn record(
        &self,
        gpu: &Gpu,
        theta: &Vector,
        program: &Arc<Kronecker>,
    ) -> Result<Workspace> {
        let (gradient, direction) = (&program.gradient, &program.direction);
        let mut linearize = program.linearize.clone();
        inner_products(
            gpu,
            linearize.tail(),
            (&self.sums, 0),
            &self.partials,
            gradient.slice(),
            direction.slice(),
        )?;
        let tail = linearize.tail();
        self.moments
            .record_sums(gpu, tail, direction, &program.value)?;
        let mut refresh = self.mixture.refresh(gpu, program)?;
        combine(
            gpu,
            refresh.tail(),
            self.next.slice(),
            self.factors.slice(),
            program.factors.slice(),
            (&self.weights, 0),
        )?;
        let mut take = Recording::new();
        self.moments.record_step(gpu, &mut take, theta, direction)?;
        Ok(Workspace {
            program: Arc::clone(program),
            theta: theta.uncounted(),
            linearize,
            refresh,
            take,
        })
    }
}
