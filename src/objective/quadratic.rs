//! Gradients and local quadratic models, as plain data.

use std::sync::Arc;

use super::{Cost, Loaded, Losses};
use crate::gpu::{Slice, Work};
use crate::graph::listing::Listing;
use crate::vector::{Block, Vector};

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
    /// Also losses at other points, and their changes.
    pub losses: bool,
}

/// What a gradient must be able to answer.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct GradientRequest {
    /// Also losses at other points, and their changes.
    pub losses: bool,
}

/// Products with several directions at once: `C [v_1 .. v_K]`.
///
/// Everything that does not depend on a direction, such as activations, is shared with single products and is there after
/// [`Quadratic::linearize`]. Where the intermediate values of `K` directions are larger than the device's bindings or than the memory set
/// aside for them, the recording goes through the directions in parts.
#[derive(Clone, Debug)]
pub struct BlockProduct {
    /// `v_1 .. v_K`; write them before a product.
    pub directions: Block,
    /// `C v_1 .. C v_K` after a product.
    pub products: Block,
    /// Computes `products` from `directions`.
    pub multiply: Work,
    /// Directions that are multiplied at once: `K`, or fewer where that does not fit.
    pub width: usize,
}

/// The loss and its gradient at one vector, on the batch of a slot.
#[derive(Clone, Debug)]
pub struct Gradient {
    /// `c`, one element, after `run`.
    pub value: Slice,
    /// `g`, after `run`.
    pub gradient: Vector,
    /// Computes both.
    pub run: Work,
    /// Losses at other points, if asked for; they need `run` to have run before.
    pub losses: Option<Losses>,
    /// What that costs.
    pub cost: Cost,
    /// What it computes with.
    pub loaded: Loaded,
}

/// The loss near one point on one mini-batch, on the device.
///
/// Running [`linearize`](Self::linearize) fills value, gradient and everything that products need; then each run of
/// [`multiply`](Self::multiply) writes `C direction` to `product`. The buffers stay the same, so a solver records its own kernels around
/// them once. It is that of the batch which is in its slot when it is linearized.
#[derive(Clone, Debug)]
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
    pub linearize: Work,
    /// Computes `product` from `direction`.
    pub multiply: Work,
    /// Products with several directions at once, if asked for.
    pub block: Option<BlockProduct>,
    /// Losses at other points, if asked for; they need `linearize` to have run before.
    pub losses: Option<Losses>,
    /// The kernels of the program, their costs, and its memory.
    pub listing: Arc<Listing>,
    /// What the recordings cost.
    pub cost: Cost,
    /// What it computes with.
    pub loaded: Loaded,
}

/// What the quadratics of the groups of a batch must be able to answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct GroupRequest {
    /// Which matrix.
    pub curvature: Curvature,
    /// Also, with each product, the variances of the groups' slopes along its direction.
    pub slope_variance: bool,
    /// Also losses of the whole batch at other points, and their changes.
    pub losses: bool,
}

/// The quadratic of one group of examples, among those of a [`GroupedQuadratic`].
#[derive(Clone, Debug)]
pub struct Group {
    /// `g` of the group.
    pub gradient: Vector,
    /// `C v` of the group, after a product.
    pub product: Vector,
    /// After a product, if asked for: the variance of `direction.g` as a sum over the group's examples, `sum_n w_n^2 (s_n - s)^2 / (1 -
    /// sum_n w_n^2 / W^2)` with the slopes `s_n` of the examples' losses, their mean `s = sum_n w_n s_n / W`, and the group's weights `w_n`
    /// scaled to the sum `W` of the batch's. One element.
    pub slope_variance: Option<Slice>,
}

/// The quadratics of the groups of a batch at one point, with products along one direction for all of them in one pass: the first rows of a
/// batch are the first group, and so on.
///
/// Each group stands for the batch: its weights are scaled to the sum of the batch's. The loss and gradient of the batch are the means of
/// the groups', weighted by what the groups' own weights add up to. Network and kernels see the batch as a whole; only where examples are
/// added up are groups kept apart, so this costs what one quadratic of the batch costs, and its vectors once for each group. It is that of
/// the batch which is in its slot when it is linearized.
#[derive(Clone, Debug)]
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
    pub linearize: Work,
    /// Computes the products of all groups from `direction`.
    pub multiply: Work,
    /// Losses at other points, if asked for; they need `linearize` to have run before.
    pub losses: Option<Losses>,
    /// The kernels of the program, their costs, and its memory.
    pub listing: Arc<Listing>,
    /// What the recordings cost.
    pub cost: Cost,
    /// What it computes with.
    pub loaded: Loaded,
}
