//! Curvature for objectives that have only gradients: products by differences.

use std::sync::Arc;

use super::capability::{Curved, Objective, Parts};
use super::cost::Cost;
use super::displacement::Displacement;
use super::programs::Programs;
use super::quadratic::{
    BlockProduct, Curvature, Gradient, GradientRequest, Quadratic, QuadraticRequest,
};
use super::slot::{Loaded, Slot};
use crate::error::{Error, Result};
use crate::gpu::{Gpu, Work};
use crate::graph::locate::Located;
use crate::options::check_range;
use crate::vector::{Block, Layout, Vector};

/// Length of a displacement over the cube root of `1 + |theta|`: see [`FiniteDifferences`].
pub(crate) const LENGTH: f32 = 0.0056;

/// An objective with products with its Hessian, made of one that has gradients alone:
///
/// ```text
/// C v = (g(theta + e v) - g(theta - e v)) / 2e       e = h / |v|,   h = length (1 + |theta|)^(1/3)
/// ```
///
/// with `e` rounded down to a power of two, so that equal gradients give a product of zero and twice a direction twice the product. A direction
/// shorter than 1e-19, whose square is no number of f32, counts as zero. A product costs two gradients. Its error along a direction of length 1 is of two kinds. With `r` an ulp of f32, 2^-24: gradients that are
/// off by `r |g|`, at parameters that are rounded by `r |theta|`, make one of `r (|g| + |C| |theta|) / h`; and what the difference leaves out
/// makes `h^2 / 6` times the third derivative. Their sum is smallest at `h = (3 r (|g| + |C| |theta|) / |third derivative|)^(1/3)`, which with gradient
/// and derivatives of size 1 is the `h` above with `length = (3 r)^(1/3) = 0.0056`. The error is flat there.
/// Gradients whose sums are pairwise are off by some ulps, those of one long chain by a thousand: then a larger
/// [`length`](Self::with_length) is better.
///
/// ```
/// use osculant::objective::{Curvature, Curved, FiniteDifferences, Objective, QuadraticRequest, Slot};
/// # use osculant::vector::Vector;
/// /// Of an objective whose author wrote kernels for loss and gradient.
/// fn product<O: Objective>(own: O, theta: &Vector, batch: &O::Batch, v: &[Vec<f32>]) -> osculant::Result<Vec<Vec<f32>>> {
///     let gpu = own.gpu().clone();
///     let mut objective = FiniteDifferences::new(own);
///     let request = QuadraticRequest { curvature: Curvature::Hessian, ..QuadraticRequest::default() };
///     let quadratic = objective.load_quadratic(Slot::default(), theta, batch, request)?;
///     quadratic.direction.write(&gpu, v)?;
///     gpu.run([&quadratic.linearize, &quadratic.multiply])?;
///     quadratic.product.read(&gpu)
/// }
/// ```
#[derive(Debug)]
pub struct FiniteDifferences<O> {
    inner: O,
    length: f32,
    programs: Programs<QuadraticRequest, Arc<Quadratic>>,
}

impl<O: Objective> FiniteDifferences<O> {
    /// Around an objective.
    #[must_use]
    pub fn new(inner: O) -> Self {
        Self {
            inner,
            length: LENGTH,
            programs: Programs::default(),
        }
    }

    /// With another length of displacements, over the cube root of `1 + |theta|`. Products that are asked for later have it.
    ///
    /// # Errors
    /// [`Error::Option`] outside of 1e-6..=1.
    pub fn with_length(mut self, length: f32) -> Result<Self> {
        check_range("length", &length, 1e-6..=1.0, "1e-6 to 1")?;
        self.length = length;
        self.programs = Programs::default();
        Ok(self)
    }

    /// The length of displacements.
    pub(super) fn length(&self) -> f32 {
        self.length
    }

    /// The objective inside.
    pub fn inner(&self) -> &O {
        &self.inner
    }

    /// The same, to be changed.
    pub fn inner_mut(&mut self) -> &mut O {
        &mut self.inner
    }

    /// A block of products, one after another by what computes `product` from `direction`; none of no width.
    pub(super) fn block(
        gpu: &Gpu,
        at: &Vector,
        width: usize,
        (multiply, [direction, product]): (&Work, [&Vector; 2]),
    ) -> Result<Option<BlockProduct>> {
        if width == 0 {
            return Ok(None);
        }
        let new = |label: &str| Block::new(gpu, label, at.layout(), width);
        let (directions, products) = (new("directions")?, new("products")?);
        let mut all = Work::new();
        for (v, to) in directions.vectors().iter().zip(products.vectors()) {
            all.tail().copy(v.slice(), direction.slice())?;
            all.append(multiply.clone());
            all.tail().copy(product.slice(), to.slice())?;
        }
        Ok(Some(BlockProduct {
            directions,
            products,
            multiply: all,
            width: 1,
        }))
    }

    /// Records `product = C direction` around gradients at a point of its own.
    fn multiply(
        &mut self,
        at: &Vector,
        loaded: &Loaded,
        [direction, product]: [&Vector; 2],
    ) -> Result<(Work, Cost)> {
        let gpu = self.inner.gpu().clone();
        let displacement = Displacement::new(&gpu, at, direction)?;
        let ahead = Vector::new(&gpu, "gradient ahead", at.layout())?;
        let point = &displacement.point;
        let gradient = self
            .inner
            .gradient(point, loaded, GradientRequest::default())?;
        let mut multiply = Work::new();
        multiply.hold(Arc::clone(&gradient) as _);
        multiply.hold(Arc::new(point.clone()));
        let (here, ahead) = (gradient.gradient.slice(), ahead.slice());
        displacement.ahead(&gpu, multiply.tail(), self.length)?;
        multiply.append(gradient.run.clone());
        multiply.tail().copy(here, ahead)?;
        displacement.behind(&gpu, multiply.tail())?;
        multiply.append(gradient.run.clone());
        displacement.difference(&gpu, multiply.tail(), product.slice(), [ahead, here])?;
        Ok((multiply, gradient.cost))
    }
}

impl<O: Objective> Objective for FiniteDifferences<O> {
    type Batch = O::Batch;

    fn gpu(&self) -> &Gpu {
        self.inner.gpu()
    }

    fn layout(&self) -> &Arc<Layout> {
        self.inner.layout()
    }

    fn load(&mut self, slot: Slot, batch: &O::Batch) -> Result<Loaded> {
        self.inner.load(slot, batch)
    }

    fn gradient(
        &mut self,
        at: &Vector,
        loaded: &Loaded,
        request: GradientRequest,
    ) -> Result<Arc<Gradient>> {
        self.inner.gradient(at, loaded, request)
    }

    fn locate(
        &mut self,
        parameters: &[Vec<f32>],
        batch: &O::Batch,
        budget: u64,
    ) -> Result<Located> {
        self.inner.locate(parameters, batch, budget)
    }
}

impl<O: Objective> Curved for FiniteDifferences<O> {
    fn quadratic(
        &mut self,
        at: &Vector,
        loaded: &Loaded,
        request: QuadraticRequest,
    ) -> Result<Arc<Quadratic>> {
        refuse(request.curvature, request.fisher_diagonal)?;
        let losses = GradientRequest {
            losses: request.losses,
        };
        let gradient = self.inner.gradient(at, loaded, losses)?;
        let same = |known: &Arc<Quadratic>| known.gradient.is_same(&gradient.gradient);
        if let Some(known) = self.programs.find(at, loaded, &request, same) {
            return Ok(known);
        }
        let gpu = self.inner.gpu().clone();
        let new = |label: &str| Vector::new(&gpu, label, at.layout());
        let (direction, product) = (new("direction")?, new("product")?);
        let curved = request.curvature != Curvature::None;
        let (multiply, one) = if curved {
            self.multiply(at, loaded, [&direction, &product])?
        } else {
            (Work::new(), Cost::default())
        };
        let width = if curved { request.block } else { 0 };
        let block = Self::block(&gpu, at, width, (&multiply, [&direction, &product]))?;
        let vector = 4 * at.layout().len() as u64;
        let bytes = gradient.cost.bytes + one.bytes + (4 + 2 * width as u64) * vector;
        let mut linearize = gradient.run.clone();
        linearize.hold(Arc::clone(&gradient) as _);
        let quadratic = Arc::new(Quadratic {
            value: gradient.value.clone(),
            gradient: gradient.gradient.clone(),
            direction,
            product,
            fisher_diagonal: None,
            linearize,
            multiply,
            block,
            losses: gradient.losses.clone(),
            listing: Arc::default(),
            cost: Cost {
                product: 2 * one.run,
                block: 2 * one.run * width as u64,
                bytes,
                ..gradient.cost
            },
            loaded: *loaded,
        });
        let kept = Arc::clone(&quadratic);
        self.programs.keep(at, loaded, request, bytes, kept);
        Ok(quadratic)
    }
}

/// None.
impl<O: Objective> Parts for FiniteDifferences<O> {}

/// Refuses what differences of gradients do not give.
fn refuse(curvature: Curvature, fisher_diagonal: bool) -> Result<()> {
    let what = match (curvature, fisher_diagonal) {
        (Curvature::GaussNewton, _) => "Gauss-Newton products",
        (_, true) => "the diagonal of the empirical Fisher matrix",
        _ => return Ok(()),
    };
    Err(Error::Unsupported {
        what: format!("{what} by differences of gradients"),
        message: "they need the outputs of the network: see `OwnKernels::with_outputs`; or ask for Curvature::Hessian, which Newton-CG \
                  has with a trust region, and low-rank saddle-free Newton with `LrsfnOptions::with_curvature`"
            .into(),
    })
}
