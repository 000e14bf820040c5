//! Nystrom preconditioning as a change of variables: `d = F y` with `F = P^(-1/2)`.

use std::sync::Arc;

use crate::error::Result;
use crate::gpu::{Gpu, Recorder, Recording, Work};
use crate::linalg::{Basis, LowRank, Nystrom, Operator, Sandwich, Storage};
use crate::objective::Quadratic;
use crate::optim::saved::{self, OptimizerState, missing};
use crate::optim::state_tensor::StateTensor;
use crate::optim::undo::Undo;
use crate::vector::{Layout, Vector};

/// The approximation, which outlives a quadratic.
pub(super) struct NystromMemory {
    basis: Basis,
    /// Eigenvalues, by falling value; empty before the first approximation.
    pub(super) values: Vec<f64>,
    drawn: u32,
    seed: u64,
    undo: Undo,
    /// Values and number of random vectors before an approximation that may be taken back.
    before: Option<(Vec<f64>, u32)>,
}

impl NystromMemory {
    pub(super) fn new(gpu: &Gpu, layout: &Arc<Layout>, rank: usize, seed: u64) -> Result<Self> {
        let basis = Basis::new(gpu, layout, rank, Storage::Full)?;
        Ok(Self {
            undo: Undo::new(gpu, &basis.slices())?,
            basis,
            values: Vec::new(),
            drawn: 0,
            seed,
            before: None,
        })
    }

    /// Begins an approximation that may be taken back.
    pub(super) fn begin(&mut self, gpu: &Gpu) -> Result<()> {
        self.undo.begin(gpu)?;
        self.before = Some((self.values.clone(), self.drawn));
        Ok(())
    }

    /// Records what brings the eigenvectors back.
    pub(super) fn record_back(&self, recorder: &mut Recorder<'_>) {
        if let Some(back) = self.undo.pending() {
            recorder.replay(back);
        }
    }

    /// Takes the rest of the approximation back.
    pub(super) fn withdraw(&mut self) {
        if let Some((values, drawn)) = self.before.take() {
            (self.values, self.drawn) = (values, drawn);
        }
        self.undo.end();
    }

    /// The approximation stays.
    pub(super) fn end(&mut self) {
        self.before = None;
        self.undo.end();
    }

    pub(super) fn scalars(&self) -> Vec<(String, f64)> {
        if self.values.is_empty() {
            return Vec::new();
        }
        let drawn = ("drawn".into(), f64::from(self.drawn));
        let values = self.values.iter().enumerate();
        let values = values.map(|(i, value)| (format!("eigenvalue {i}"), *value));
        std::iter::once(drawn).chain(values).collect()
    }

    pub(super) fn tensor(&self) -> StateTensor {
        self.tensor_of(self.values.len())
    }

    fn tensor_of(&self, count: usize) -> StateTensor {
        StateTensor::basis("eigenvector".into(), &self.basis, count)
    }

    pub(super) async fn restore(
        &mut self,
        gpu: &Gpu,
        state: &OptimizerState,
        steps: usize,
    ) -> Result<()> {
        if steps == 0 && state.scalar("drawn").is_none() {
            // Before the first step there is none.
            (self.values, self.drawn) = (Vec::new(), 0);
            return Ok(());
        }
        let drawn = saved::number(state, "drawn", 0.0..=f64::from(u32::MAX))?;
        let values = (0..self.basis.rank())
            .map(|i| saved::number(state, &format!("eigenvalue {i}"), 0.0..=f64::MAX))
            .collect::<Result<Vec<f64>>>()?;
        self.tensor_of(values.len()).restore(gpu, state).await?;
        (self.values, self.drawn) = (values, drawn as u32);
        Ok(())
    }
}

/// The variables of one quadratic: conjugate gradients on `F (C + damping) F y = -F g` are those on `(C + damping) d = -g` with the
/// preconditioner `P`.
pub(super) struct Variables {
    nystrom: Nystrom,
    filter: LowRank,
    inverse: LowRank,
    sandwich: Sandwich,
    /// `F g`
    pub(super) gradient: Vector,
}

impl Variables {
    pub(super) fn new(gpu: &Gpu, quadratic: &Quadratic, memory: &NystromMemory) -> Result<Self> {
        let block = quadratic.block.as_ref().ok_or_else(|| missing("block"))?;
        let filter = LowRank::new(gpu, &memory.basis)?;
        Ok(Self {
            nystrom: Nystrom::new(gpu, &Operator::from(block), &memory.basis, memory.seed)?,
            sandwich: Sandwich::new(gpu, &Operator::from(quadratic), &filter)?,
            filter,
            inverse: LowRank::new(gpu, &memory.basis)?,
            gradient: Vector::new(
                gpu,
                "gradient of new variables",
                quadratic.gradient.layout(),
            )?,
        })
    }

    pub(super) fn operator(&self) -> &Operator {
        &self.sandwich.operator
    }

    /// Makes an approximation.
    pub(super) async fn approximate(
        &mut self,
        linearize: &Work,
        memory: &mut NystromMemory,
    ) -> Result<()> {
        self.nystrom.set_drawn(memory.drawn);
        memory.values = self.nystrom.solve_async(linearize).await?.values;
        memory.drawn = self.nystrom.drawn();
        Ok(())
    }

    /// Sets `F` for these eigenvalues and damping.
    pub(super) fn set(&self, gpu: &Gpu, values: &[f64], damping: f64) -> Result<()> {
        // Without damping and eigenvalues there is nothing to scale by.
        let damping_of_scale = damping.max(f64::from(f32::MIN_POSITIVE));
        let least = values.last().copied().unwrap_or(0.0) + damping_of_scale;
        let ratio = |value: &f64| (least / (value + damping_of_scale)).sqrt();
        let weights: Vec<f64> = values.iter().map(|v| ratio(v) - 1.0).collect();
        let inverse: Vec<f64> = values.iter().map(|v| ratio(v).recip() - 1.0).collect();
        self.filter.set(gpu, 1.0, &weights)?;
        self.inverse.set(gpu, 1.0, &inverse)?;
        self.sandwich.set(gpu, damping)
    }

    /// Records `F g`.
    pub(super) fn record_gradient(
        &self,
        gpu: &Gpu,
        recording: &mut Recording,
        gradient: &Vector,
    ) -> Result<()> {
        self.filter.record(gpu, recording, gradient, &self.gradient)
    }

    /// Records `d = F y` into a new vector.
    pub(super) fn record_step(
        &self,
        gpu: &Gpu,
        recording: &mut Recording,
        y: &Vector,
    ) -> Result<Vector> {
        let step = Vector::new(gpu, "iterate in parameter space", y.layout())?;
        self.filter.record(gpu, recording, y, &step)?;
        Ok(step)
    }

    /// Records `y = F^-1 d`.
    pub(super) fn record_inverse(
        &self,
        gpu: &Gpu,
        recording: &mut Recording,
        step: &Vector,
        y: &Vector,
    ) -> Result<()> {
        self.inverse.record(gpu, recording, step, y)
    }
}
