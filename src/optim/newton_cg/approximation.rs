//! What Newton-CG approximates the matrix by, which outlives a quadratic.

use std::sync::Arc;

use super::options::{NewtonCgOptions, Preconditioner};
use crate::error::Result;
use crate::gpu::{Gpu, Recorder};
use crate::linalg::{Basis, KroneckerOperator, Linear, LowRank, Storage};
use crate::objective::{Curved, KroneckerStructure};
use crate::optim::saved::{self, OptimizerState};
use crate::optim::state_tensor::StateTensor;
use crate::optim::undo::Undo;
use crate::vector::{Layout, Vector};

const DRAWN: &str = "drawn";
const EIGENVALUE: &str = "eigenvalue ";
const EIGENVECTOR: &str = "eigenvector";
const INVERSE_ROOTS: &str = "inverse roots of factors";
const ROOTS: &str = "roots of factors";

/// The approximation `P`, in the maps `F = P^(-1/2)` and `F^-1`.
pub(super) struct Approximation {
    pub(super) kind: Kind,
    pub(super) known: Known,
    undo: Undo,
    /// What was known before an approximation that may be taken back.
    before: Option<Known>,
}

pub(super) enum Kind {
    /// By eigenvectors, of falling eigenvalues.
    Nystrom {
        basis: Basis,
        /// `F` and `F^-1`
        maps: Box<[LowRank; 2]>,
        seed: u64,
    },
    /// By Kronecker factors.
    Kronecker {
        structure: Arc<KroneckerStructure>,
        /// `F` and `F^-1`
        maps: Box<[KroneckerOperator; 2]>,
        seed: u64,
    },
}

/// What the host knows of it.
#[derive(Clone, Debug, Default, PartialEq)]
pub(super) struct Known {
    /// Random vectors that were drawn, or mixtures; none before the first approximation.
    pub(super) drawn: u32,
    /// Eigenvalues, by falling value.
    pub(super) values: Vec<f64>,
}

impl Approximation {
    /// That of a preconditioner, if it has one.
    pub(super) fn new<O: Curved + ?Sized>(
        objective: &O,
        options: &NewtonCgOptions,
    ) -> Result<Option<Self>> {
        let (gpu, layout) = (objective.gpu(), objective.layout());
        let kind = match options.preconditioner {
            Preconditioner::Nystrom { rank, seed, .. } => Kind::nystrom(gpu, layout, rank, seed)?,
            Preconditioner::Kronecker { request, seed, .. } => {
                let structure = objective.layered()?.structure(request)?;
                Kind::kronecker(gpu, layout, structure, seed)?
            }
            Preconditioner::None | Preconditioner::EmpiricalFisher { .. } => return Ok(None),
        };
        let kept = match &kind {
            Kind::Nystrom { basis, .. } => basis.slices().to_vec(),
            Kind::Kronecker { maps, .. } => {
                let kept = maps.iter().map(|map| map.tensors().slice().clone());
                kept.collect()
            }
        };
        Ok(Some(Self {
            undo: Undo::new(gpu, &kept)?,
            kind,
            known: Known::default(),
            before: None,
        }))
    }

    /// Whether there is one.
    pub(super) fn is_made(&self) -> bool {
        self.known.drawn > 0
    }

    /// The vector of the inverse roots of Kronecker factors, where there are any.
    pub(super) fn inverse_roots(&self) -> Option<&Vector> {
        match &self.kind {
            Kind::Nystrom { .. } => None,
            Kind::Kronecker { maps, .. } => Some(maps[0].tensors()),
        }
    }

    /// `F` and `F^-1`.
    pub(super) fn maps(&mut self) -> [&mut dyn Linear; 2] {
        match &mut self.kind {
            Kind::Nystrom { maps, .. } => {
                let [filter, inverse] = &mut **maps;
                [filter, inverse]
            }
            Kind::Kronecker { maps, .. } => {
                let [filter, inverse] = &mut **maps;
                [filter, inverse]
            }
        }
    }

    /// Sets both for the damping of a step. Kronecker factors have that of the step in which they were made.
    pub(super) fn set(&self, gpu: &Gpu, damping: f64) -> Result<()> {
        let Kind::Nystrom { maps, .. } = &self.kind else {
            return Ok(());
        };
        let [filter, inverse] = &**maps;
        let values = &self.known.values;
        // Without damping and eigenvalues there is nothing to scale by.
        let damping_of_scale = damping.max(f64::from(f32::MIN_POSITIVE));
        let least = values.last().copied().unwrap_or(0.0) + damping_of_scale;
        let ratio = |value: &f64| (least / (value + damping_of_scale)).sqrt();
        let weights: Vec<f64> = values.iter().map(|v| ratio(v) - 1.0).collect();
        let inverses: Vec<f64> = values.iter().map(|v| ratio(v).recip() - 1.0).collect();
        filter.set(gpu, 1.0, &weights)?;
        inverse.set(gpu, 1.0, &inverses)
    }

    /// Begins an approximation that may be taken back.
    pub(super) fn begin(&mut self, gpu: &Gpu) -> Result<()> {
        self.undo.begin(gpu)?;
        self.before = Some(self.known.clone());
        Ok(())
    }

    /// Records what brings the vectors back.
    pub(super) fn record_back(&self, recorder: &mut Recorder<'_>) {
        if let Some(back) = self.undo.pending() {
            recorder.replay(back);
        }
    }

    /// Takes the rest of the approximation back.
    pub(super) fn withdraw(&mut self) {
        if let Some(before) = self.before.take() {
            self.known = before;
        }
        self.undo.end();
    }

    /// The approximation stays.
    pub(super) fn end(&mut self) {
        self.before = None;
        self.undo.end();
    }

    pub(super) fn scalars(&self) -> Vec<(String, f64)> {
        if !self.is_made() {
            return Vec::new();
        }
        let drawn = (DRAWN.into(), f64::from(self.known.drawn));
        let values = self.known.values.iter().enumerate();
        let values = values.map(|(i, value)| (format!("{EIGENVALUE}{i}"), *value));
        std::iter::once(drawn).chain(values).collect()
    }

    pub(super) fn tensors(&self) -> Vec<StateTensor> {
        match &self.kind {
            _ if !self.is_made() => Vec::new(),
            Kind::Nystrom { basis, .. } => {
                let count = self.known.values.len();
                vec![StateTensor::basis(EIGENVECTOR.into(), basis, count)]
            }
            Kind::Kronecker { maps, .. } => {
                let named = [INVERSE_ROOTS, ROOTS].into_iter().zip(maps.iter());
                named
                    .map(|(name, map)| StateTensor::vector(name, map.tensors()))
                    .collect()
            }
        }
    }

    /// Names of numbers and of vectors in a state, beside those of Newton-CG; some are beginnings.
    pub(super) fn names(options: &NewtonCgOptions) -> [&'static [&'static str]; 2] {
        match options.preconditioner {
            Preconditioner::Nystrom { .. } => [&[DRAWN, EIGENVALUE], &["eigenvector "]],
            Preconditioner::Kronecker { .. } => [&[DRAWN], &[INVERSE_ROOTS, ROOTS]],
            Preconditioner::None | Preconditioner::EmpiricalFisher { .. } => [&[], &[]],
        }
    }

    pub(super) async fn restore(
        &mut self,
        gpu: &Gpu,
        state: &OptimizerState,
        steps: usize,
    ) -> Result<()> {
        self.known = Known::default();
        if steps == 0 && state.scalar(DRAWN).is_none() {
            // Before the first step there is none.
            return Ok(());
        }
        let drawn = saved::number(state, DRAWN, 1.0..=f64::from(u32::MAX))? as u32;
        let rank = match &self.kind {
            Kind::Nystrom { basis, .. } => basis.rank(),
            Kind::Kronecker { .. } => 0,
        };
        let values = (0..rank)
            .map(|i| saved::number(state, &format!("{EIGENVALUE}{i}"), 0.0..=f64::MAX))
            .collect::<Result<Vec<f64>>>()?;
        self.known = Known { drawn, values };
        for tensor in self.tensors() {
            tensor.restore(gpu, state).await?;
        }
        Ok(())
    }
}

impl Kind {
    fn nystrom(gpu: &Gpu, layout: &Arc<Layout>, rank: usize, seed: u64) -> Result<Self> {
        let basis = Basis::new(gpu, layout, rank, Storage::Full)?;
        Ok(Self::Nystrom {
            maps: Box::new([LowRank::new(gpu, &basis)?, LowRank::new(gpu, &basis)?]),
            basis,
            seed,
        })
    }

    fn kronecker(
        gpu: &Gpu,
        layout: &Arc<Layout>,
        structure: KroneckerStructure,
        seed: u64,
    ) -> Result<Self> {
        let map = || KroneckerOperator::new(gpu, layout, &structure);
        Ok(Self::Kronecker {
            maps: Box::new([map()?, map()?]),
            structure: Arc::new(structure),
            seed,
        })
    }
}
