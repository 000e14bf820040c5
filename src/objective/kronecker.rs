//! Objectives whose curvature has a Kronecker product for each layer.

use std::sync::Arc;

use super::{Cost, Loaded, Objective};
use crate::error::{Error, Result};
use crate::gpu::{Slice, Work};
#[cfg(doc)]
use crate::graph::kronecker::Form;
use crate::graph::kronecker::{Layer, Side, Sizes, Structure};
use crate::vector::{Block, Layout, Vector};

/// Which cotangents the factors of columns are made of.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum Estimate {
    /// For each example one random mixture of the columns of a root of its output Hessian, by signs: factors with the mean of the exact ones.
    #[default]
    Mixture,
    /// All columns: exact, and the backward part of as many gradients as an example has outputs (KFLR, Botev, Ritter and Barber 2017).
    Exact,
    /// The gradient of each example's loss, with its label: factors of the empirical Fisher matrix, which is small where the loss is,
    /// whatever the curvature (Kunstner, Balles and Hennig 2019, "Limitations of the empirical Fisher approximation").
    Empirical,
}

/// What is wanted of Kronecker factors.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct KroneckerRequest {
    /// How factors are held.
    pub sizes: Sizes,
    /// What those of columns are made of.
    pub estimate: Estimate,
}

impl Default for KroneckerRequest {
    fn default() -> Self {
        Self {
            sizes: Sizes::up_to(512, 64),
            estimate: Estimate::Mixture,
        }
    }
}

/// Which parameters share Kronecker factors, and of what orders these are.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct KroneckerStructure {
    /// A weight with its bias where it has one, or a parameter with one factor: by their places in the layout of the parameters.
    pub layers: Vec<Layer>,
    /// The tensors of the factors of all layers: those of a layer follow one another, that of the rows of its weight first. See [`Form`].
    pub factors: Arc<Layout>,
    /// Those of functions of them, such as inverses; as many.
    pub functions: Arc<Layout>,
}

impl KroneckerStructure {
    /// Parameters without Kronecker structure, by their places in the layout of the parameters: these have a diagonal.
    pub fn diagonals(&self) -> impl Iterator<Item = usize> {
        let diagonal = |layer: &&Layer| layer.structure == Structure::Diagonal;
        self.layers
            .iter()
            .filter(diagonal)
            .map(|layer| layer.weight)
    }

    /// Whether eigenvalues of some layer are corrected.
    pub fn is_corrected(&self) -> bool {
        self.layers.iter().any(|layer| layer.corrected.is_some())
    }

    /// The factors of all layers, in the order of their tensors.
    pub fn sides(&self) -> impl Iterator<Item = &Side> {
        self.layers.iter().flat_map(Layer::sides)
    }
}

/// The loss with its gradient, the Kronecker factors of its Gauss-Newton matrix, and a direction, on one mini-batch.
///
/// With inputs `a_n` of a layer (a 1 appended where it has a bias), cotangents `b_n` as the [`Estimate`] has them, and weights `w_n`:
///
/// ```text
/// A = sum_n w_n a_n a_n^T / sum w     B = sum_n w_n b_n b_n^T / sum w     direction = A~^-1 G B~^-1
/// ```
///
/// where `A~^-1` and `B~^-1` are what is in the vector of inverses that the program was made for. A parameter without Kronecker structure has
/// the diagonal of its curvature, divided by `sum w`, as its only factor.
#[derive(Clone, Debug)]
pub struct Kronecker {
    /// `c`, one element.
    pub value: Slice,
    /// `g`.
    pub gradient: Vector,
    /// The gradient times the inverses.
    pub direction: Vector,
    /// `direction^T C direction` with the Gauss-Newton matrix, one element, after [`measure`](Self::measure).
    pub curvature: Slice,
    /// Signs of the mixtures, one row: write or draw them before [`refresh`](Self::refresh).
    pub signs: Block,
    /// The factors of this batch, after [`refresh`](Self::refresh).
    pub factors: Vector,
    /// Computes value, gradient and direction.
    pub linearize: Work,
    /// Computes the factors, after [`linearize`](Self::linearize).
    pub refresh: Work,
    /// Computes the curvature along the direction, after [`linearize`](Self::linearize).
    pub measure: Work,
    /// What that costs: `run` is that of `linearize`, `product` that of `measure`.
    pub cost: Cost,
    /// Operations of `refresh`.
    pub refresh_flops: u64,
    /// What it computes with.
    pub loaded: Loaded,
}

/// An objective whose curvature has Kronecker factors: what K-FAC needs.
///
/// ```
/// use osculant::objective::{GraphObjective, KroneckerRequest, Layered, Slot};
/// # use osculant::{gpu::Gpu, data::Batch, vector::Vector};
/// # fn factors(gpu: &Gpu, objective: &mut GraphObjective, theta: &Vector, batch: &Batch) -> osculant::Result<Vec<Vec<f32>>> {
/// let request = KroneckerRequest::default();
/// let structure = objective.structure(request)?;
/// let inverses = Vector::new(gpu, "inverses", &structure.functions)?;
/// let loaded = objective.load(Slot::default(), batch)?;
/// let layers = objective.kronecker([theta, &inverses], &loaded, request)?;
/// let ones = vec![vec![1.0; layers.signs.layout().len()]];
/// layers.signs.write(gpu, &[ones])?;
/// gpu.run([&layers.linearize, &layers.refresh])?;
/// layers.factors.read(gpu)
/// # }
/// # use osculant::objective::Objective;
/// ```
pub trait Layered: Objective {
    /// Which factors there are.
    ///
    /// # Errors
    /// [`Error::Unsupported`] for a loss of which no root of its Hessian is known.
    fn structure(&self, request: KroneckerRequest) -> Result<KroneckerStructure>;

    /// The factors at a vector, and steps with a vector of inverses, of the structure's layout.
    ///
    /// # Errors
    /// As [`structure`](Self::structure); a batch that is not loaded, limits of the device.
    fn kronecker(
        &mut self,
        at_and_inverses: [&Vector; 2],
        loaded: &Loaded,
        request: KroneckerRequest,
    ) -> Result<Arc<Kronecker>>;
}

/// What to say where a model does not tell a root.
pub(super) fn without_root() -> Error {
    Error::Unsupported {
        what: "Kronecker factors of this model".into(),
        message: "it does not say how to mix the columns of a root of the loss's Hessian in its outputs; add Model::with_curvature_root, \
                  for a loss of this crate with Loss::curvature_root"
            .into(),
    }
}

/// What to say of an objective that is not layered.
pub(super) fn without_factors() -> Error {
    Error::Unsupported {
        what: "Kronecker factors of this objective".into(),
        message: "use an objective of a graph (GraphObjective or Resident), another preconditioner, or implement \
                  osculant::objective::Layered and give it in Curved::layered"
            .into(),
    }
}
