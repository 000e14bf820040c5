//! Rayleigh quotients of a basis on examples of any batch.

use std::sync::Arc;

use crate::data::Role;
use crate::error::{Error, Result};
use crate::gpu::{self, Gpu, Slice};
use crate::kernels::blocks::{InnerProducts, Rows};
use crate::linalg::Basis;
use crate::objective::{BlockProduct, Curvature, Curved, Quadratic, QuadraticRequest, Slot};
use crate::optim::saved::missing;
use crate::optim::work::{Work, flops};
use crate::recent::Recent;
use crate::vector::Vector;

/// The slot of the examples on which quotients are measured, one batch after another.
const PLACE: Slot = Slot::new(Role::Steps, 1);

/// What measures Rayleigh quotients. Kernels are recorded once for each quadratic and place in the list of batches.
#[derive(Default)]
pub(super) struct Quotients {
    probes: Recent<Arc<Probe>>,
}

/// Rayleigh quotients on the quadratic of one batch.
struct Probe {
    quadratic: Arc<Quadratic>,
    /// In the list of batches: quadratics of several may be one.
    place: usize,
    run: gpu::Work,
    inner: InnerProducts,
}

impl Probe {
    fn new(gpu: &Gpu, basis: &Basis, quadratic: &Arc<Quadratic>, place: usize) -> Result<Self> {
        let mut run = quadratic.linearize.clone();
        let block = block(quadratic)?;
        basis.record_recall(gpu, run.tail(), &block.directions, 0)?;
        run.append(block.multiply.clone());
        let (left, right) = (Rows::all(&block.directions), Rows::all(&block.products));
        let inner = InnerProducts::record(gpu, run.tail(), &left, &right)?;
        Ok(Self {
            quadratic: Arc::clone(quadratic),
            place,
            run,
            inner,
        })
    }
}

impl Quotients {
    /// `u_i . C u_i` of all vectors of a basis, for each of some batches, in one readback; also the work.
    pub(super) async fn measure<O: Curved + ?Sized>(
        &mut self,
        objective: &mut O,
        theta: &Vector,
        basis: &Basis,
        curvature: Curvature,
        batches: &[&O::Batch],
    ) -> Result<(Vec<Vec<f64>>, Work)> {
        let gpu = objective.gpu().clone();
        let mut work = Work::default();
        let mut probes: Vec<Arc<Probe>> = Vec::new();
        for (place, batch) in batches.iter().enumerate() {
            let request = QuadraticRequest {
                curvature,
                block: basis.rank(),
                ..QuadraticRequest::default()
            };
            let loaded = objective.load(PLACE, batch)?;
            let quadratic = objective.quadratic(theta, &loaded, request)?;
            let known = |p: &Arc<Probe>| Arc::ptr_eq(&p.quadratic, &quadratic) && p.place == place;
            let probe = self
                .probes
                .find_or(known, (theta.life(), quadratic.cost.bytes), || {
                    Probe::new(&gpu, basis, &quadratic, place).map(Arc::new)
                })?;
            // Submitted before the next batch is loaded into the same slot.
            gpu.run_async([&probe.run]).await?;
            let (cost, rank) = (quadratic.cost, basis.rank());
            work.gradient(&cost, &loaded);
            work.block_products(rank, rank, &cost, &loaded);
            work.vectors(flops::block(rank, rank, objective.layout().len()));
            probes.push(Arc::clone(probe));
        }
        let reads: Vec<&Slice> = probes
            .iter()
            .flat_map(|probe| probe.inner.reads())
            .collect();
        let mut read = gpu.read_async(&reads).await?.into_iter();
        let quotients: Vec<Vec<f64>> = probes
            .iter()
            .map(|probe| {
                let matrix = probe.inner.sum(&mut read);
                matrix.diagonal().iter().copied().collect()
            })
            .collect();
        if quotients.iter().flatten().all(|value| value.is_finite()) {
            Ok((quotients, work))
        } else {
            Err(Error::NotFinite {
                what: "a Rayleigh quotient".into(),
                advice: "Use a smaller step length or more damping, or check the data.",
            })
        }
    }
}

/// Standard errors of the means of some measurements.
pub(super) fn standard_errors(measured: &[Vec<f64>], count: usize) -> Vec<f64> {
    let parts = measured.len() as f64;
    (0..count)
        .map(|i| {
            let mean = measured.iter().map(|part| part[i]).sum::<f64>() / parts;
            let square: f64 = measured.iter().map(|part| (part[i] - mean).powi(2)).sum();
            (square / (parts - 1.0) / parts).sqrt()
        })
        .collect()
}

pub(super) fn block(quadratic: &Quadratic) -> Result<&BlockProduct> {
    quadratic.block.as_ref().ok_or_else(|| missing("block"))
}
