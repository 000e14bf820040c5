//! Preconditioning as a change of variables: `d = F y` with `F = P^(-1/2)`.

use std::sync::Arc;

use super::approximation::{Approximation, Kind, Known};
use crate::error::Result;
use crate::gpu::{Gpu, Recording, Slice, Work as Recorded};
use crate::linalg::{FactorDamping, Function, Nystrom, Operator, Sandwich};
use crate::objective::{Kronecker, KroneckerStructure, Loaded, Quadratic};
use crate::optim::mixture::Mixture;
use crate::optim::saved::missing;
use crate::optim::work::{Work, flops};
use crate::vector::Vector;

/// Functions of factors that are `F` and `F^-1`.
const MAPS: [Function; 2] = [Function::InverseRoot, Function::Root];

/// The variables of one quadratic: conjugate gradients on `F (C + damping) F y = -F g` are those on `(C + damping) d = -g` with the
/// preconditioner `P`.
pub(super) struct Variables {
    sandwich: Sandwich,
    /// `F g`
    pub(super) gradient: Vector,
    source: Source,
    /// Operations of a product with `F`.
    map_flops: f64,
}

/// What makes approximations of the quadratic's matrix.
enum Source {
    Nystrom(Box<Nystrom>, usize),
    Kronecker(Box<Factors>),
}

/// Kronecker factors of the quadratic's batch.
struct Factors {
    program: Arc<Kronecker>,
    mixture: Mixture,
    refresh: Recorded,
    structure: Arc<KroneckerStructure>,
    /// The tensors of `F` and `F^-1`.
    maps: [Vector; 2],
    seed: u64,
}

impl Factors {
    /// Makes `F` and `F^-1` for a damping.
    async fn approximate(&self, gpu: &Gpu, number: u32, damping: f64) -> Result<()> {
        self.mixture.set(gpu, self.seed, u64::from(number))?;
        let tensors: Vec<&Slice> = self.program.factors.parts().iter().collect();
        let run = [&self.program.linearize, &self.refresh];
        let factors = gpu.run_and_read_async(run, &tensors).await?;
        let damping = FactorDamping::Split(damping);
        let functions = self.structure.functions_of(&factors, damping, &MAPS)?;
        let mut maps = self.maps.iter().zip(&functions);
        maps.try_for_each(|(map, tensors)| map.write(gpu, tensors))
    }
}

impl Variables {
    pub(super) fn new(
        gpu: &Gpu,
        quadratic: &Quadratic,
        kronecker: Option<&Arc<Kronecker>>,
        approximation: &mut Approximation,
    ) -> Result<Self> {
        let source = match (&approximation.kind, kronecker) {
            (Kind::Nystrom { basis, seed, .. }, _) => {
                let block = quadratic.block.as_ref().ok_or_else(|| missing("block"))?;
                let solver = Nystrom::new(gpu, &Operator::from(block), basis, *seed)?;
                Source::Nystrom(Box::new(solver), basis.rank())
            }
            (
                Kind::Kronecker {
                    structure,
                    maps,
                    seed,
                },
                Some(program),
            ) => {
                let mixture = Mixture::new(gpu)?;
                Source::Kronecker(Box::new(Factors {
                    program: Arc::clone(program),
                    refresh: mixture.refresh(gpu, program)?,
                    mixture,
                    structure: Arc::clone(structure),
                    maps: maps.each_ref().map(|map| map.tensors().clone()),
                    seed: *seed,
                }))
            }
            (Kind::Kronecker { .. }, None) => return Err(missing("factors")),
        };
        let [filter, _] = approximation.maps();
        let layout = quadratic.gradient.layout();
        Ok(Self {
            map_flops: filter.flops(),
            sandwich: Sandwich::new(gpu, &Operator::from(quadratic), filter)?,
            gradient: Vector::new(gpu, "gradient of new variables", layout)?,
            source,
        })
    }

    pub(super) fn operator(&self) -> &Operator {
        &self.sandwich.operator
    }

    /// Makes an approximation, for a step with this damping.
    pub(super) async fn approximate(
        &mut self,
        gpu: &Gpu,
        linearize: &Recorded,
        known: &mut Known,
        damping: f64,
    ) -> Result<()> {
        match &mut self.source {
            Source::Nystrom(solver, _) => {
                solver.set_drawn(known.drawn);
                known.values = solver.solve_async(linearize).await?.values;
                known.drawn = solver.drawn();
            }
            Source::Kronecker(factors) => {
                factors.approximate(gpu, known.drawn, damping).await?;
                known.drawn = known.drawn.saturating_add(1);
            }
        }
        Ok(())
    }

    /// Counts what an approximation costs.
    pub(super) fn count(&self, (quadratic, loaded): (&Quadratic, &Loaded), work: &mut Work) {
        match &self.source {
            Source::Nystrom(_, rank) => {
                work.gradient(&quadratic.cost, loaded);
                work.block_products(*rank, *rank, &quadratic.cost, loaded);
                work.vectors(flops::nystrom(*rank, self.gradient.layout().len()));
            }
            Source::Kronecker(factors) => {
                work.gradient(&factors.program.cost, loaded);
                work.factors(factors.program.refresh_flops, loaded);
                work.vectors(factors.structure.function_flops(&MAPS));
            }
        }
    }

    /// Operations of changing variables in a solve of so many products, of which `vectors` change beside.
    pub(super) fn flops(&self, products: usize, vectors: usize) -> f64 {
        let (shift, elements) = (2.0 * products as f64, self.gradient.layout().len() as f64);
        (2 * products + vectors) as f64 * self.map_flops + shift * elements
    }

    /// Sets the damping.
    pub(super) fn set(&self, gpu: &Gpu, damping: f64) -> Result<()> {
        self.sandwich.set(gpu, damping)
    }
}

impl Approximation {
    /// Records `y = F x`.
    pub(super) fn record(
        &mut self,
        gpu: &Gpu,
        recording: &mut Recording,
        x: &Vector,
        y: &Vector,
    ) -> Result<()> {
        let [filter, _] = self.maps();
        filter.record(gpu, recording, x, y)
    }

    /// Records `x = F^-1 y`.
    pub(super) fn record_inverse(
        &mut self,
        gpu: &Gpu,
        recording: &mut Recording,
        y: &Vector,
        x: &Vector,
    ) -> Result<()> {
        let [_, inverse] = self.maps();
        inverse.record(gpu, recording, y, x)
    }
}
