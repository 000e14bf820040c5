//! Objectives that know of each example what it adds to gradient and curvature.

use std::sync::Arc;

use super::{Cost, Loaded, Objective};
use crate::error::{Error, Result};
use crate::gpu::{Gpu, Slice, Work};
use crate::vector::{Block, Vector};

/// High half of the streams of random signs: no other part of the crate draws from these.
const STREAM: u32 = 12 << 16;

/// A quantity of a batch with weights `w_n`, of the loss `sum_n w_n l_n` without an `l2` term.
///
/// `g_n` is the gradient of `l_n`; `J_n` the Jacobian of an example's `C` outputs, `S_n` a root of the Hessian of its loss in them,
/// `S_n S_n^T = H_n`; and `p_n = w_n / sum w`. A tensor `[*p]` has the shape of a parameter, of which there is one for each.
/// `docs/statistics.md` compares with BackPACK's definitions.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Quantity {
    /// `sum_n w_n g_n`, `[*p]`.
    Gradient,
    /// `w_n g_n`, `[n, *p]`: what examples add to the gradient.
    PerExampleGradients,
    /// `|w_n g_n|^2`, `[n]` for each parameter, without forming a gradient.
    SquaredNorms,
    /// `w_n w_m g_n . g_m`, `[n, n]` for each parameter, without forming a gradient.
    InnerProducts,
    /// `sum_n (w_n g_n)^2`, `[*p]`.
    SquareSum,
    /// `sum_n p_n g_n^2`, `[*p]`.
    SecondMoment,
    /// `sum_n p_n (g_n - g)^2` with `g = sum_n p_n g_n`, `[*p]`, from centred factors, so that it keeps its digits where the mean is larger
    /// than the deviations.
    Variance,
    /// The diagonal of the Gauss-Newton matrix `sum_n w_n J_n^T H_n J_n`, `[*p]`, from all columns of the roots.
    GaussNewtonDiagonal,
    /// Its unbiased estimate from one random mixture of the columns for each example.
    SampledGaussNewtonDiagonal,
    /// The diagonals of `w_n J_n^T H_n J_n`, `[n, *p]`.
    PerExampleGaussNewtonDiagonals,
    /// Their unbiased estimates from one random mixture of the columns for each example.
    SampledPerExampleGaussNewtonDiagonals,
    /// `sqrt(w_n) J_n^T S_n e_c`, `[C, n, *p]`: the columns of a root of the Gauss-Newton matrix.
    GaussNewtonRoot,
    /// The same of one random mixture of the columns for each example, `[1, n, *p]`: products of it with itself have the mean of the
    /// Gauss-Newton matrix.
    SampledGaussNewtonRoot,
    /// Inner products of all columns of the root, `[C n, C n]`, one matrix for all parameters together: its eigenvalues are those of the
    /// Gauss-Newton matrix, but for zeros. With [`BatchStatistics::eigenpairs`].
    GaussNewtonGram,
    /// Kronecker factors `A = sum_n p_n a_n a_n^T` of a layer's inputs and `B = sum_cn p_n b_cn b_cn^T` of its cotangents of all columns
    /// (KFLR, Botev, Ritter and Barber 2017).
    KroneckerFactors,
    /// The same with one random mixture of the columns for each example (K-FAC).
    SampledKroneckerFactors,
    /// The same with cotangents of the losses: factors of the empirical Fisher matrix.
    EmpiricalKroneckerFactors,
}

/// The rows of which a quantity is made.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Source {
    /// Gradients of the losses.
    Gradients,
    /// All columns of the roots.
    Root,
    /// One random mixture of them.
    Mixture,
}

impl Quantity {
    /// All of them.
    pub const ALL: [Quantity; 17] = [
        Quantity::Gradient,
        Quantity::PerExampleGradients,
        Quantity::SquaredNorms,
        Quantity::InnerProducts,
        Quantity::SquareSum,
        Quantity::SecondMoment,
        Quantity::Variance,
        Quantity::GaussNewtonDiagonal,
        Quantity::SampledGaussNewtonDiagonal,
        Quantity::PerExampleGaussNewtonDiagonals,
        Quantity::SampledPerExampleGaussNewtonDiagonals,
        Quantity::GaussNewtonRoot,
        Quantity::SampledGaussNewtonRoot,
        Quantity::GaussNewtonGram,
        Quantity::KroneckerFactors,
        Quantity::SampledKroneckerFactors,
        Quantity::EmpiricalKroneckerFactors,
    ];

    /// Its name, as in files and on the command line.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Quantity::Gradient => "gradient",
            Quantity::PerExampleGradients => "per-example-gradients",
            Quantity::SquaredNorms => "squared-norms",
            Quantity::InnerProducts => "inner-products",
            Quantity::SquareSum => "square-sum",
            Quantity::SecondMoment => "second-moment",
            Quantity::Variance => "variance",
            Quantity::GaussNewtonDiagonal => "ggn-diagonal",
            Quantity::SampledGaussNewtonDiagonal => "sampled-ggn-diagonal",
            Quantity::PerExampleGaussNewtonDiagonals => "per-example-ggn-diagonals",
            Quantity::SampledPerExampleGaussNewtonDiagonals => "sampled-per-example-ggn-diagonals",
            Quantity::GaussNewtonRoot => "ggn-root",
            Quantity::SampledGaussNewtonRoot => "sampled-ggn-root",
            Quantity::GaussNewtonGram => "ggn-gram",
            Quantity::KroneckerFactors => "kronecker-factors",
            Quantity::SampledKroneckerFactors => "sampled-kronecker-factors",
            Quantity::EmpiricalKroneckerFactors => "empirical-kronecker-factors",
        }
    }

    /// What BackPACK calls it, or its neighbours where it has no such extension.
    #[must_use]
    pub fn name_in_backpack(self) -> &'static str {
        match self {
            Quantity::Gradient => "grad",
            Quantity::PerExampleGradients => "grad_batch",
            Quantity::SquaredNorms => "batch_l2",
            Quantity::InnerProducts => "batch_dot (Cockpit)",
            Quantity::SquareSum => "sum_grad_squared",
            Quantity::SecondMoment => "-",
            Quantity::Variance => "variance",
            Quantity::GaussNewtonDiagonal => "diag_ggn_exact",
            Quantity::SampledGaussNewtonDiagonal => "diag_ggn_mc",
            Quantity::PerExampleGaussNewtonDiagonals => "diag_ggn_exact_batch",
            Quantity::SampledPerExampleGaussNewtonDiagonals => "diag_ggn_mc_batch",
            Quantity::GaussNewtonRoot => "sqrt_ggn_exact",
            Quantity::SampledGaussNewtonRoot => "sqrt_ggn_mc",
            Quantity::GaussNewtonGram => "gram matrix (ViViT)",
            Quantity::KroneckerFactors => "kflr",
            Quantity::SampledKroneckerFactors => "kfac",
            Quantity::EmpiricalKroneckerFactors => "kfac, empirical (curvlinops)",
        }
    }

    pub(super) fn source(self) -> Source {
        match self {
            Quantity::Gradient
            | Quantity::PerExampleGradients
            | Quantity::SquaredNorms
            | Quantity::InnerProducts
            | Quantity::SquareSum
            | Quantity::SecondMoment
            | Quantity::Variance
            | Quantity::EmpiricalKroneckerFactors => Source::Gradients,
            Quantity::GaussNewtonDiagonal
            | Quantity::PerExampleGaussNewtonDiagonals
            | Quantity::GaussNewtonRoot
            | Quantity::GaussNewtonGram
            | Quantity::KroneckerFactors => Source::Root,
            Quantity::SampledGaussNewtonDiagonal
            | Quantity::SampledPerExampleGaussNewtonDiagonals
            | Quantity::SampledGaussNewtonRoot
            | Quantity::SampledKroneckerFactors => Source::Mixture,
        }
    }
}

/// Which quantities are wanted: a set.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct StatisticsRequest {
    members: u32,
}

impl StatisticsRequest {
    /// These quantities; how often and in which order they are named makes no difference.
    #[must_use]
    pub fn of(quantities: &[Quantity]) -> Self {
        let bits = quantities.iter().map(|&quantity| 1 << quantity as u32);
        Self {
            members: bits.fold(0, |all, bit| all | bit),
        }
    }

    /// Its quantities, in the order of [`Quantity::ALL`].
    pub fn quantities(self) -> impl Iterator<Item = Quantity> {
        let is_member = move |quantity: &Quantity| self.members >> *quantity as u32 & 1 == 1;
        Quantity::ALL.into_iter().filter(is_member)
    }

    /// Whether something is made of such rows.
    pub(super) fn has(self, source: Source) -> bool {
        self.quantities()
            .any(|quantity| quantity.source() == source)
    }
}

/// Quantities of one mini-batch at one vector of parameters.
#[derive(Clone, Debug)]
pub struct BatchStatistics {
    /// The loss without an `l2` term, one element, after `run`.
    pub value: Slice,
    /// Each quantity with its tensors, after `run`, named after the parameters.
    pub results: Vec<(Quantity, Vector)>,
    /// Draws the signs of random mixtures, and computes the loss and all quantities.
    pub run: Work,
    /// The signs of the mixtures that were drawn, like the outputs, where there are any.
    pub signs: Option<Block>,
    pub(super) settings: Option<Slice>,
    pub(super) root: Option<RootProduct>,
    /// What that costs: `run` is that of `run`, `product` that of one eigenvector, and `gradient` that of a loss with its gradient by
    /// itself.
    pub cost: Cost,
    /// What it computes with.
    pub loaded: Loaded,
}

/// Products with the root of the Gauss-Newton matrix.
#[derive(Clone, Debug)]
pub(super) struct RootProduct {
    /// One number for each example and column, `[n, C]`.
    pub(super) coefficients: Slice,
    /// The sum of the root's columns times these.
    pub(super) sum: Vector,
    pub(super) multiply: Work,
    pub(super) columns: usize,
}

impl BatchStatistics {
    /// The tensors of a quantity, if it was asked for.
    #[must_use]
    pub fn get(&self, quantity: Quantity) -> Option<&Vector> {
        let of = |(other, _): &&(Quantity, Vector)| *other == quantity;
        self.results.iter().find(of).map(|(_, vector)| vector)
    }

    /// Which signs `run` draws: the `number`-th of a seed. Without it those of seed 0, number 0.
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

/// An objective that knows what each example of a batch adds to the gradient, and to the Gauss-Newton matrix: BackPACK's quantities
/// (Dangel, Kunstner and Hennig 2020).
///
/// ```
/// use osculant::objective::{GraphObjective, Objective, Quantity, Slot, Statistics, StatisticsRequest};
/// # use osculant::{gpu::Gpu, data::Batch, vector::Vector};
/// # fn noise(gpu: &Gpu, objective: &mut GraphObjective, theta: &Vector, batch: &Batch) -> osculant::Result<()> {
/// let loaded = objective.load(Slot::default(), batch)?;
/// let request = StatisticsRequest::of(&[Quantity::Variance, Quantity::GaussNewtonDiagonal]);
/// let statistics = objective.statistics(theta, &loaded, request)?;
/// gpu.run([&statistics.run])?;
/// for (quantity, tensors) in &statistics.results {
///     println!("{}: {:?}", quantity.name(), tensors.read(gpu)?);
/// }
/// # Ok(())
/// # }
/// ```
pub trait Statistics: Objective {
    /// The quantities at a vector, ready to be computed; in one program, which shares what they have in common.
    ///
    /// # Errors
    /// As [`Objective::gradient`]; [`Error::Unsupported`] for parameters that do not meet rows of single examples, for parts of the
    /// curvature of a loss of which no root is known, and for factors of a batch of one example; [`Error::OverLimit`] for tensors that the
    /// device cannot bind; [`Error::Option`] for a request of nothing.
    fn statistics(
        &mut self,
        at: &Vector,
        loaded: &Loaded,
        request: StatisticsRequest,
    ) -> Result<Arc<BatchStatistics>>;
}

/// What to say of a request of nothing.
pub(super) fn nothing_asked() -> Error {
    Error::Option {
        option: "request".into(),
        message: "no quantity; name at least one of Quantity::ALL".into(),
    }
}
