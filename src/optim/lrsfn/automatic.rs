//! The automatic step length: what the preconditioned matrix of other examples allows.

use std::sync::Arc;

use crate::error::Result;
use crate::gpu::Gpu;
use crate::linalg::{Basis, Lanczos, LowRank, Operator, Sandwich, Start};
use crate::objective::Quadratic;

/// Seed of the start of Lanczos: the same in every run.
const SEED: u64 = 0;

/// Measures `|P^-1/2 C P^-1/2|` for the quadratic of one batch, with `P = U |L| U^T + damping I`.
pub(super) struct StepProbe {
    pub(super) quadratic: Arc<Quadratic>,
    filter: LowRank,
    lanczos: Lanczos,
}

impl StepProbe {
    pub(super) fn new(
        gpu: &Gpu,
        quadratic: &Arc<Quadratic>,
        basis: &Basis,
        steps: usize,
    ) -> Result<Self> {
        let mut filter = LowRank::new(gpu, basis)?;
        let sandwich = Sandwich::new(gpu, &Operator::from(quadratic.as_ref()), &mut filter)?;
        sandwich.set(gpu, 0.0)?;
        Ok(Self {
            quadratic: Arc::clone(quadratic),
            lanczos: Lanczos::new(gpu, &sandwich.operator, steps)?,
            filter,
        })
    }

    /// The step length `1 / (2 m)`, with `m` the largest `|eigenvalue|` that Lanczos sees; 1 for a matrix of zeros. One blocking readback.
    pub(super) async fn measure(&self, gpu: &Gpu, values: &[f64], damping: f64) -> Result<f64> {
        let beyond = damping.sqrt().recip();
        let weights: Vec<f64> = values
            .iter()
            .map(|value| (value.abs() + damping).sqrt().recip() - beyond)
            .collect();
        self.filter.set(gpu, beyond, &weights)?;
        let start = Start::Random {
            seed: SEED,
            number: 0,
        };
        let before = &self.quadratic.linearize;
        let (found, _) = self.lanczos.run_async(before, start).await?.eigen();
        let most = found.iter().fold(0.0, |most: f64, x| most.max(x.abs()));
        Ok(if most > 0.0 { 0.5 / most } else { 1.0 })
    }
}
