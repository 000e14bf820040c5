//! What an objective can do, a trait for each: losses and gradients, products with the curvature, parts and groups of batches.

use std::ops::Range;
use std::sync::Arc;

use super::kronecker::{Layered, without_factors};
use super::quadratic::{
    Gradient, GradientRequest, GroupRequest, GroupedQuadratic, Quadratic, QuadraticRequest,
};
use super::slot::{Loaded, Slot};
use crate::error::{Error, Result};
use crate::gpu::Gpu;
use crate::graph::locate::Located;
use crate::vector::{Layout, Vector};

/// A function of parameters and mini-batches with its gradient: what SGD and Adam need.
///
/// Programs are recorded once: whoever asks again with the same vector for what was loaded in the same way gets the same `Arc`, and
/// optimizers keep what they record around it ([`Programs`](super::Programs) does that, and forgets what was not asked for in a long time).
///
/// ```
/// use osculant::objective::{GradientRequest, GraphObjective, Objective, Slot};
/// # use osculant::{gpu::Gpu, nn::{Loss, Sequential}, data::digits};
/// # fn losses(gpu: &Gpu) -> osculant::Result<()> {
/// let data = digits()?;
/// let model = Sequential::new().dense(10).model(&data, Loss::SoftmaxCrossEntropy);
/// let mut objective = GraphObjective::new(gpu, model)?;
/// let theta = objective.initial_parameters(0)?;
/// let loaded = objective.load(Slot::default(), &data.batch(&[0, 1, 2])?)?;
/// let gradient = objective.gradient(&theta, &loaded, GradientRequest::default())?;
/// gpu.run([&gradient.run])?;
/// let (loss, slopes) = (gpu.read(&[&gradient.value])?, gradient.gradient.read(gpu)?);
/// # Ok(())
/// # }
/// ```
pub trait Objective: Send {
    /// A mini-batch.
    type Batch: Send + Sync;

    /// The device.
    fn gpu(&self) -> &Gpu;

    /// Names, shapes and places of the parameters.
    fn layout(&self) -> &Arc<Layout>;

    /// Puts a batch into a slot.
    ///
    /// # Errors
    /// Data that do not fit the model. The slot is as it was then, or holds nothing.
    fn load(&mut self, slot: Slot, batch: &Self::Batch) -> Result<Loaded>;

    /// Loss and gradient at a vector, and, if asked for, losses at other points.
    ///
    /// # Errors
    /// A vector of another model, limits of the device.
    fn gradient(
        &mut self,
        at: &Vector,
        loaded: &Loaded,
        request: GradientRequest,
    ) -> Result<Arc<Gradient>>;

    /// Looks for the first number that is not finite in the loss, its gradient and the curvature products along it, at these parameters,
    /// tensor by tensor, on `batch`, by computing them on the CPU; for errors. `budget` is the number of operations that this may take;
    /// where it does not do for all examples, some are looked at.
    ///
    /// # Errors
    /// Data that do not fit the model.
    fn locate(
        &mut self,
        _parameters: &[Vec<f32>],
        _batch: &Self::Batch,
        _budget: u64,
    ) -> Result<Located> {
        Ok(Located::Unknown)
    }
}

/// An objective with products with its curvature: what Newton-CG needs.
///
/// ```
/// use osculant::objective::{Curvature, Curved, GraphObjective, Objective, QuadraticRequest, Slot};
/// # use osculant::{gpu::Gpu, data::Batch, vector::Vector};
/// # type Tensors = Vec<Vec<f32>>;
/// # fn product(gpu: &Gpu, objective: &mut GraphObjective, theta: &Vector, batch: &Batch, v: &Tensors) -> osculant::Result<Tensors> {
/// let loaded = objective.load(Slot::default(), batch)?;
/// let request = QuadraticRequest { curvature: Curvature::Hessian, ..QuadraticRequest::default() };
/// let quadratic = objective.quadratic(theta, &loaded, request)?;
/// quadratic.direction.write(gpu, v)?;
/// gpu.run([&quadratic.linearize, &quadratic.multiply])?;
/// quadratic.product.read(gpu)
/// # }
/// ```
pub trait Curved: Objective {
    /// The quadratic at a vector, ready to be linearized.
    ///
    /// # Errors
    /// As [`Objective::gradient`]; curvature that the objective does not have.
    fn quadratic(
        &mut self,
        at: &Vector,
        loaded: &Loaded,
        request: QuadraticRequest,
    ) -> Result<Arc<Quadratic>>;

    /// This objective, where its curvature has Kronecker factors.
    ///
    /// # Errors
    /// [`Error::Unsupported`] where it has none.
    fn layered(&self) -> Result<&dyn Layered<Batch = Self::Batch>> {
        Err(without_factors())
    }

    /// The same, to ask for programs.
    ///
    /// # Errors
    /// As [`layered`](Self::layered).
    fn layered_mut(&mut self) -> Result<&mut dyn Layered<Batch = Self::Batch>> {
        Err(without_factors())
    }

    /// Puts a batch into a slot and gives its quadratic.
    ///
    /// # Errors
    /// As [`load`](Objective::load) and [`quadratic`](Self::quadratic).
    fn load_quadratic(
        &mut self,
        slot: Slot,
        at: &Vector,
        batch: &Self::Batch,
        request: QuadraticRequest,
    ) -> Result<Arc<Quadratic>> {
        let loaded = self.load(slot, batch)?;
        self.quadratic(at, &loaded, request)
    }
}

/// An objective whose batches have parts: what methods need whose directions and steps come from different examples.
///
/// Where a batch has no parts, `impl Parts for Own {}` says so: low-rank saddle-free Newton, which asks for parts only where its options
/// do, runs on it then.
///
/// ```
/// use osculant::objective::{Curvature, GraphObjective, GroupRequest, Parts, Slot};
/// # use osculant::{gpu::Gpu, data::Batch, vector::Vector};
/// # fn halves(gpu: &Gpu, objective: &mut GraphObjective, theta: &Vector, batch: &Batch) -> osculant::Result<Vec<Vec<Vec<f32>>>> {
/// let loaded = objective.load_groups(Slot::default(), batch, 2)?;
/// let request = GroupRequest { curvature: Curvature::GaussNewton, slope_variance: false, losses: false };
/// let halves = objective.grouped(theta, &loaded, request)?;
/// gpu.run([&halves.linearize])?;
/// halves.groups.iter().map(|half| half.gradient.read(gpu)).collect()
/// # }
/// ```
pub trait Parts: Curved {
    /// Number of rows of a batch, padding included; none where batches have no parts.
    fn rows(&self, _batch: &Self::Batch) -> Option<usize> {
        None
    }

    /// The rows of a batch in these ranges, as a batch that stands for the whole: with weights of the same sum.
    ///
    /// # Errors
    /// A batch that is too small, [`Error::Unsupported`] where there are no parts.
    fn part(&self, _batch: &Self::Batch, _ranges: &[Range<usize>]) -> Result<Self::Batch> {
        Err(without_parts("a part of a batch"))
    }

    /// Puts a batch into a slot that is cut into groups of as many rows each.
    ///
    /// # Errors
    /// As [`Objective::load`]; rows that cannot be cut into groups.
    fn load_groups(&mut self, _slot: Slot, _batch: &Self::Batch, _groups: usize) -> Result<Loaded> {
        Err(without_parts("a batch in groups"))
    }

    /// The quadratics of the groups of what was loaded so.
    ///
    /// # Errors
    /// As [`Curved::quadratic`]; [`Error::OverLimit`] where the groups' gradients do not fit one binding;
    /// [`Error::Unsupported`] for rows of a table at indices that are inputs.
    fn grouped(
        &mut self,
        _at: &Vector,
        _loaded: &Loaded,
        _request: GroupRequest,
    ) -> Result<Arc<GroupedQuadratic>> {
        Err(without_parts("the quadratics of groups"))
    }
}

/// What to say of options that need parts where there are none.
pub(crate) fn without_parts(what: &str) -> Error {
    Error::Unsupported {
        what: format!("{what} of an objective without parts"),
        message: "use Strategy::Single with a curvature_part of 1, no acceptance and no RankRule::Noise, or implement \
                  osculant::objective::Parts"
            .into(),
    }
}
