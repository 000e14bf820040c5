//! Objectives whose curvature is a product of rows of examples.

use std::sync::Arc;

use super::{Cost, Loaded, Objective};
use crate::error::{Error, Result};
use crate::gpu::{Gpu, Slice, Work};
use crate::vector::{Block, Vector};

/// High half of the stream of random numbers: no other part of the crate draws from it.
const STREAM: u32 = 13 << 16;

/// Which rows `A` stand for the curvature `A^T A` of a batch, with the weights `w_n` of its examples.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum RowKind {
    /// One for each example: the slope of the residual `r_n = sqrt(2 w_n l_n)`, for losses that are not negative. `A^T r` is the gradient.
    #[default]
    RootLosses,
    /// One for each example, of a random mixture of the columns of the root of its output Hessian. The gradient is no sum of such rows.
    Probe,
    /// One for each column of that root, as many as an example has outputs: `A^T A` is the Gauss-Newton matrix. `A^T r` is the gradient
    /// where the model says what its residuals are ([`Model::with_residuals`](crate::nn::Model::with_residuals)).
    Exact,
}

/// Which square of the rows is wanted.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Square {
    /// The Gram matrix `A A^T`, of the order of the rows, made layer by layer without the rows.
    Gram,
    /// The normal matrix `A^T A`, of the order of the parameters, from rows that are formed.
    Normal,
}

/// What is wanted of the rows of a batch.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct SampleRequest {
    /// Which rows.
    pub kind: RowKind,
    /// Which square; none: the smaller one.
    pub square: Option<Square>,
    /// Also second derivatives of the residuals along a direction.
    pub second: bool,
}

/// The rows `A` of a batch at one vector, by products with them.
#[derive(Clone, Debug)]
pub struct SampleSystem {
    /// The loss with its `l2` term, one element, after [`linearize`](Self::linearize).
    pub value: Slice,
    /// `r` `[m]`, with `A^T r` the gradient without the `l2` term, after `linearize`; where it is known.
    pub residuals: Option<Slice>,
    /// The gradient with the `l2` term, after `linearize`; where there are no residuals.
    pub gradient: Option<Vector>,
    /// The square, after `linearize`: of [`Square::Gram`] `A A^T`, row after row; of [`Square::Normal`] parts `[parts, k, k]` that add up to
    /// `[A r]^T [A r]` (`A^T A` without residuals), over at most 1,024 rows each, to be added in f64.
    pub matrix: Slice,
    /// Which one it is.
    pub square: Square,
    /// `m`, the rows.
    pub count: usize,
    /// The curvature that a term `l2/2 |theta|^2` of the loss adds to `A^T A`.
    pub l2: f32,
    /// `v`; write it before `multiply`.
    pub direction: Vector,
    /// `A v` `[m]`, after `multiply`.
    pub image: Slice,
    /// The second derivatives of the residuals along `v`, `[m]`, after `multiply`; if asked for.
    pub second: Option<Slice>,
    /// `u` `[m]`; write it before `combine`.
    pub coefficients: Slice,
    /// `A^T u`, after `combine`.
    pub combination: Vector,
    /// Draws the signs of mixtures, and computes loss, residuals and the square.
    pub linearize: Work,
    /// Computes `A v`.
    pub multiply: Work,
    /// Computes `A^T u`.
    pub combine: Work,
    /// The signs that were drawn, like the outputs, for [`RowKind::Probe`].
    pub signs: Option<Block>,
    pub(super) settings: Option<Slice>,
    /// What that costs: `run` is that of `linearize`, `product` that of `multiply`, `gradient` that of a loss with its gradient by itself.
    pub cost: Cost,
    /// Operations of `combine`.
    pub combine_flops: u64,
    /// What it computes with.
    pub loaded: Loaded,
}

impl SampleSystem {
    /// Which signs `linearize` draws: the `number`-th of a seed. Without it those of seed 0, number 0.
    ///
    /// # Errors
    /// Of the device.
    pub fn seed(&self, gpu: &Gpu, seed: u64, number: u32) -> Result<()> {
        match &self.settings {
            Some(settings) => {
                let of_seed = [seed as u32, (seed >> 32) as u32, number, STREAM];
                gpu.upload(settings, 0, &of_seed)
            }
            None => Ok(()),
        }
    }
}

/// An objective whose curvature on a batch is `A^T A` with few rows: what methods need that solve in the space of samples.
///
/// ```text
/// (A^T A + lambda)^-1 A^T r = A^T (A A^T + lambda)^-1 r
/// ```
///
/// ```
/// use osculant::objective::{GraphObjective, Objective, SampleRequest, SampleSpace, Slot};
/// # use osculant::{gpu::Gpu, data::Batch, vector::Vector};
/// # fn gram(gpu: &Gpu, objective: &mut GraphObjective, theta: &Vector, batch: &Batch) -> osculant::Result<Vec<f32>> {
/// let loaded = objective.load(Slot::default(), batch)?;
/// let system = objective.sample_system(theta, &loaded, SampleRequest::default())?;
/// gpu.run([&system.linearize])?;
/// Ok(gpu.read(&[&system.matrix])?.concat())
/// # }
/// ```
pub trait SampleSpace: Objective {
    /// The rows at a vector, ready to be computed.
    ///
    /// # Errors
    /// As [`Objective::gradient`]; [`Error::Unsupported`] for parameters that do not meet rows of single examples, for [`RowKind::Probe`]
    /// and [`RowKind::Exact`] of a loss of which no root is known, and for second derivatives without residuals; [`Error::OverLimit`] for
    /// a square that the device cannot bind.
    fn sample_system(
        &mut self,
        at: &Vector,
        loaded: &Loaded,
        request: SampleRequest,
    ) -> Result<Arc<SampleSystem>>;
}

/// What to say where residuals are asked for that are not known.
pub(crate) fn without_residuals() -> Error {
    Error::Unsupported {
        what: "residuals of this model".into(),
        message: "it does not say what its residuals are; add Model::with_residuals, for a loss of this crate with Loss::residuals, or take \
                  RowKind::RootLosses"
            .into(),
    }
}
