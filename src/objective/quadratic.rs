//! The quadratic model and the trait of what makes it.

use std::ops::Range;
use std::sync::Arc;

use crate::error::{Error, Result};
use crate::gpu::{Gpu, Recording, Slice};
use crate::graph::listing::Listing;
use crate::graph::locate::Located;
use crate::vector::{Block, Layout, Vector};

/// The matrix of a quadratic.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum Curvature {
    /// None: value and gradient only.
    #[default]
    None,
    /// The Hessian of the loss. Can be indefinite.
    Hessian,
    /// The generalized Gauss-Newton matrix `J^T H_loss J` (Schraudolph 2002): positive semi-definite for convex losses.
    GaussNewton,
}

/// What a quadratic must be able to answer.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct QuadraticRequest {
    /// Which matrix.
    pub curvature: Curvature,
    /// Also the diagonal of the empirical Fisher matrix, `sum_n w_n g_n * g_n` over the examples' gradients.
    pub fisher_diagonal: bool,
    /// Directions in a block of products; 0: no blocks.
    pub block: usize,
}

/// Products with several directions at once: `C [v_1 .. v_K]`.
///
/// Everything that does not depend on a direction, such as activations, is shared with single products and is there after
/// [`Quadratic::linearize`]. Where the intermediate values of `K` directions are larger than the device's bindings or than the memory set aside for
/// them, the recording goes through the directions in parts.
#[derive(Debug)]
pub struct BlockProduct {
    /// `v_1 .. v_K`; write them before a product.
    pub directions: Block,
    /// `C v_1 .. C v_K` after a product.
    pub products: Block,
    /// Computes `products` from `directions`.
    pub multiply: Recording,
    /// Directions that are multiplied at once: `K`, or fewer where that does not fit.
    pub width: usize,
}

/// The loss near one point on one mini-batch, on the device.
///
/// Replaying [`linearize`](Self::linearize) fills value, gradient and everything that products need; then each replay of
/// [`multiply`](Self::multiply) writes `C direction` to `product`. The buffers stay the same, so a solver records its own kernels around them once.
/// It stays valid until its objective makes another quadratic for a batch of the same number of rows.
#[derive(Debug)]
pub struct Quadratic {
    /// `c`, one element.
    pub value: Slice,
    /// `g`.
    pub gradient: Vector,
    /// `v` in `C v`; write it before a product.
    pub direction: Vector,
    /// `C v` after a product.
    pub product: Vector,
    /// Diagonal of the empirical Fisher matrix, if asked for.
    pub fisher_diagonal: Option<Vector>,
    /// Computes everything that does not depend on a direction.
    pub linearize: Recording,
    /// Computes `product` from `direction`.
    pub multiply: Recording,
    /// Products with several directions at once, if asked for.
    pub block: Option<BlockProduct>,
    /// The kernels of the program, their costs, and its memory.
    pub listing: Listing,
    /// Number of examples the program runs on, padding included.
    pub rows: usize,
}

/// What the quadratics of the groups of a batch must be able to answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct GroupRequest {
    /// Number of groups, of as many rows each.
    pub groups: usize,
    /// Which matrix.
    pub curvature: Curvature,
    /// Also, with each product, the variances of the groups' slopes along its direction.
    pub slope_variance: bool,
}

/// The quadratic of one group of examples, among those of a [`GroupedQuadratic`].
#[derive(Clone, Debug)]
pub struct Group {
    /// `g` of the group.
    pub gradient: Vector,
    /// `C v` of the group, after a product.
    pub product: Vector,
    /// After a product, if asked for: the variance of `direction.g` as a sum over the group's examples, `sum_n w_n^2 (s_n - s)^2 / (1 - sum_n w_n^2 / W^2)` with the
    /// slopes `s_n` of the examples' losses, their mean `s = sum_n w_n s_n / W`, and the group's weights `w_n` scaled to the sum `W` of the batch's. One element.
    pub slope_variance: Option<Slice>,
}

/// The quadratics of the groups of a batch at one point, with products along one direction for all of them in one pass: the first rows of a batch are the
/// first group, and so on.
///
/// Each group stands for the batch: its weights are scaled to the sum of the batch's. The loss and gradient of the batch are the means of the groups', weighted by
/// what the groups' own weights add up to. Network and kernels see the batch as a whole; only where examples are added up are groups kept apart, so this costs
/// what one quadratic of the batch costs, and its vectors once for each group. It stays valid as long as a [`Quadratic`] does.
#[derive(Debug)]
pub struct GroupedQuadratic {
    /// The quadratics.
    pub groups: Vec<Group>,
    /// Their gradients, in one buffer.
    pub gradients: Block,
    /// Their products, in one buffer.
    pub products: Block,
    /// The loss of the whole batch, one element.
    pub value: Slice,
    /// The gradient of the whole batch.
    pub gradient: Vector,
    /// `v` in `C v`; write it before a product.
    pub direction: Vector,
    /// Computes everything that does not depend on a direction.
    pub linearize: Recording,
    /// Computes the products of all groups from `direction`.
    pub multiply: Recording,
    /// The kernels of the program, their costs, and its memory.
    pub listing: Listing,
    /// Number of examples the program runs on, padding included.
    pub rows: usize,
}

/// A program that computes the loss at one vector of parameters, on the batch of a quadratic.
#[derive(Debug)]
pub struct LossProgram {
    /// The loss, one element, after replaying `run`.
    pub value: Slice,
    /// The program.
    pub run: Recording,
}

/// A function of parameters and mini-batches that has local quadratic models.
pub trait Objective {
    /// A mini-batch.
    type Batch;

    /// The device.
    fn gpu(&self) -> &Gpu;

    /// Names, shapes and places of the parameters.
    fn layout(&self) -> &Arc<Layout>;

    /// Number of examples in a batch, for counting work.
    fn examples(&self, batch: &Self::Batch) -> usize;

    /// The rows of a batch in these ranges, as a batch that stands for the whole: with weights of the same sum.
    ///
    /// # Errors
    /// A batch that is too small.
    fn part(&self, batch: &Self::Batch, ranges: &[Range<usize>]) -> Result<Self::Batch>;

    /// Number of rows of a batch, padding included.
    fn rows(&self, batch: &Self::Batch) -> usize;

    /// Loads `batch` and gives the quadratic at `theta`, ready to be linearized. Quadratics are kept: asking again with the same vector and number of
    /// rows only loads the batch.
    ///
    /// # Errors
    /// Data that do not fit the model, curvature that it does not have, limits of the device.
    fn quadratic(
        &mut self,
        theta: &Vector,
        batch: &Self::Batch,
        request: QuadraticRequest,
    ) -> Result<Arc<Quadratic>>;

    /// Loads `batch` and gives the quadratics of its groups at `theta`, as [`quadratic`](Self::quadratic) does for the whole of it.
    ///
    /// # Errors
    /// As there; rows that cannot be cut into groups; [`Error::OverLimit`] where the groups' gradients do not fit one binding; [`Error::Unsupported`] for rows
    /// of a table at indices that are inputs, and by an objective that has no groups.
    fn grouped(
        &mut self,
        _theta: &Vector,
        _batch: &Self::Batch,
        _request: GroupRequest,
    ) -> Result<Arc<GroupedQuadratic>> {
        Err(Error::Unsupported {
            what: "quadratics of groups of examples".into(),
            message: "this objective has only those of whole batches; use an optimizer that works with these"
                .into(),
        })
    }

    /// The loss at `point` on the batch of so many rows that was loaded last.
    ///
    /// # Errors
    /// [`Error::Unsupported`] if there was none, limits of the device.
    fn loss_at(&mut self, point: &Vector, rows: usize) -> Result<Arc<LossProgram>>;

    /// Looks for the first number that is not finite in the loss, its gradient and the curvature products along it, at `theta` on `batch`, by computing them on
    /// the CPU; for errors. `budget` is the number of operations that this may take; where it does not do for all examples, some are looked at.
    ///
    /// # Errors
    /// Data that do not fit the model, loss of the device.
    fn locate(&mut self, _theta: &Vector, _batch: &Self::Batch, _budget: u64) -> Result<Located> {
        Ok(Located::Unknown)
    }
}
