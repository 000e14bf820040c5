//! Objectives that are functions of the host, in f64.

mod bound;

use std::fmt;
use std::sync::{Arc, Mutex};

use bound::{Base, Batch, Bound, Function, hosted, lock, tensors};

use crate::error::{Error, Result};
use crate::gpu::{Gpu, Slice, Work};
use crate::objective::capability::{Curved, Objective, Parts};
use crate::objective::cost::{Cost, LossCost};
use crate::objective::losses::{LABEL, Losses, RESULTS};
use crate::objective::programs::Programs;
use crate::objective::quadratic::{
    BlockProduct, Curvature, Gradient, GradientRequest, Quadratic, QuadraticRequest,
};
use crate::objective::slot::{Loaded, Slot};
use crate::vector::{Block, Layout, Vector};

/// The product of a curvature matrix at parameters, on a batch, with a vector.
type Product<B> = dyn Fn(&[f64], &B, &[f64]) -> Vec<f64> + Send + Sync;

/// Error of a loss of the host, relative to that: some roundings of f64.
const ERROR_OF_LOSS: f64 = 16.0 * f64::EPSILON;
/// Error of a number that is rounded to f32, relative to that.
const ROUNDING: f64 = f32::EPSILON as f64 / 2.0;

/// A plain function of the host as an objective: loss and gradient in f64, from parameters that the device has in f32. For small problems
/// and tests, and to look at a method without a device in the way: all of them run that need no parts of batches.
///
/// Products with the Hessian are central differences of gradients in f64, unless [`with_product`](Self::with_product) brings them. Changes
/// of the loss are differences in f64: they are right to 1e-15 of the loss.
///
/// **Each evaluation is a round trip**: the parameters, `4 P` bytes, are read back and waited for, the function runs on the host, and loss
/// and gradient are uploaded, `4 P + 4` bytes. A product is one, too, with two gradients where it is a difference; so is a block of products,
/// and a change of the loss. Whole steps cannot be recorded. A function that panics takes the step with it.
///
/// ```
/// use osculant::objective::{Curvature, HostFunction};
/// use osculant::optim::{NewtonCg, NewtonCgOptions, Optimizer};
/// # fn minimum(gpu: &osculant::gpu::Gpu) -> osculant::Result<Vec<f32>> {
/// // Rosenbrock's valley.
/// let mut objective = HostFunction::new(gpu, &[("x", &[2])], |x, ()| {
///     let (a, b) = (1.0 - x[0], x[1] - x[0] * x[0]);
///     (a * a + 100.0 * b * b, vec![-2.0 * a - 400.0 * x[0] * b, 200.0 * b])
/// })?;
/// let theta = objective.parameters(&[-1.2, 1.0])?;
/// let mut newton = NewtonCg::new(NewtonCgOptions::default().with_curvature(Curvature::Hessian))?;
/// for _ in 0..50 {
///     newton.step(&mut objective, &theta, &())?;
/// }
/// Ok(theta.read(gpu)?.concat())
/// # }
/// ```
pub struct HostFunction<B = ()> {
    gpu: Gpu,
    layout: Arc<Layout>,
    function: Arc<Function<B>>,
    product: Option<(Curvature, Arc<Product<B>>)>,
    examples: usize,
    slots: Vec<(Slot, Batch<B>)>,
    gradients: Programs<GradientRequest, (Arc<Base>, Arc<Gradient>)>,
    quadratics: Programs<QuadraticRequest, Arc<Quadratic>>,
}

impl<B> fmt::Debug for HostFunction<B> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("HostFunction")
            .field("layout", &self.layout)
            .finish_non_exhaustive()
    }
}

impl<B: Clone + Send + Sync + 'static> HostFunction<B> {
    /// Of tensors with names and shapes, and a function from the numbers of all of them, one after another, and a batch to the loss and its
    /// gradient. The function must be one: the same numbers, the same result.
    ///
    /// # Errors
    /// [`Error::Shape`] for no tensors, or two of a name.
    pub fn new(
        gpu: &Gpu,
        tensors: &[(&str, &[usize])],
        function: impl Fn(&[f64], &B) -> (f64, Vec<f64>) + Send + Sync + 'static,
    ) -> Result<Self> {
        let named: Vec<(String, Vec<usize>)> = tensors
            .iter()
            .map(|(name, shape)| ((*name).to_owned(), shape.to_vec()))
            .collect();
        Ok(Self {
            gpu: gpu.clone(),
            layout: Arc::new(Layout::new(&named)?),
            function: Arc::new(function),
            product: None,
            examples: 1,
            slots: Vec::new(),
            gradients: Programs::default(),
            quadratics: Programs::default(),
        })
    }

    /// With products with a curvature matrix: from parameters, batch and `v` to `C v`.
    ///
    /// # Errors
    /// [`Error::Option`] for no matrix.
    pub fn with_product(
        mut self,
        curvature: Curvature,
        product: impl Fn(&[f64], &B, &[f64]) -> Vec<f64> + Send + Sync + 'static,
    ) -> Result<Self> {
        crate::objective::own_kernels::some_matrix(curvature)?;
        self.product = Some((curvature, Arc::new(product)));
        self.quadratics = Programs::default();
        Ok(self)
    }

    /// With so many examples in a batch, for counting work; 1 unless said otherwise.
    #[must_use]
    pub fn with_examples(mut self, examples: usize) -> Self {
        self.examples = examples;
        self
    }

    /// Parameters on the device, with these numbers.
    ///
    /// # Errors
    /// [`Error::Length`] for another count; limits of the device.
    pub fn parameters(&self, numbers: &[f64]) -> Result<Vector> {
        let expected = self.layout.parameters();
        if numbers.len() != expected {
            return Err(Error::Length {
                what: "the list of parameters".into(),
                found: numbers.len(),
                expected,
            });
        }
        let theta = Vector::new(&self.gpu, "theta", &self.layout)?;
        theta.write(&self.gpu, &tensors(&self.layout, numbers))?;
        Ok(theta)
    }

    fn bound(&self, loaded: &Loaded) -> Result<Bound<B>> {
        let of = self.slots.iter().find(|(slot, _)| *slot == loaded.slot);
        let (_, batch) = of.ok_or_else(|| Error::Unsupported {
            what: format!("slot {:?} {}", loaded.slot.role, loaded.slot.number),
            message: "no batch is loaded there; load it first".into(),
        })?;
        Ok(Bound {
            layout: Arc::clone(&self.layout),
            function: Arc::clone(&self.function),
            batch: Arc::clone(batch),
        })
    }

    /// The gradient at a vector, and what it leaves.
    fn program(
        &mut self,
        at: &Vector,
        loaded: &Loaded,
        request: GradientRequest,
    ) -> Result<(Arc<Base>, Arc<Gradient>)> {
        if let Some(known) = self.gradients.get(at, loaded, &request) {
            return Ok(known);
        }
        let (gpu, bound) = (&self.gpu, self.bound(loaded)?);
        let (value, gradient) = (
            gpu.buffer("loss", 1)?,
            Vector::new(gpu, "gradient", &self.layout)?,
        );
        let base = Arc::<Base>::default();
        let losses = match request.losses {
            false => None,
            true => Some(losses(gpu, &bound, at, &base)?),
        };
        let run = {
            let (at, base) = (at.uncounted(), Arc::clone(&base));
            let (value, gradient) = (value.clone(), gradient.clone());
            hosted(bound, move |gpu, bound| {
                let (at, base) = (at.clone(), Arc::clone(&base));
                let (value, gradient) = (value.clone(), gradient.clone());
                async move {
                    let parameters = bound.read(&gpu, &at).await?;
                    let (loss, slopes) = bound.evaluate(&parameters)?;
                    gpu.upload(&value, 0, &[loss as f32])?;
                    bound.write(&gpu, &gradient, &slopes).await?;
                    base.set(parameters, loss);
                    Ok(())
                }
            })
        };
        let bytes = 8 * self.layout.len() as u64;
        let program = Arc::new(Gradient {
            value,
            gradient,
            run,
            losses,
            cost: Cost {
                bytes,
                ..Cost::default()
            },
            loaded: *loaded,
        });
        let kept = (base, program);
        self.gradients
            .keep(at, loaded, request, bytes, kept.clone());
        Ok(kept)
    }
}

/// Losses at other points.
fn losses<B: Send + Sync + 'static>(
    gpu: &Gpu,
    bound: &Bound<B>,
    at: &Vector,
    base: &Arc<Base>,
) -> Result<Losses> {
    let point = Vector::new(gpu, "point", at.layout())?;
    let results = gpu.buffer(LABEL, RESULTS)?;
    let at_point = {
        let (point, base, results) = (point.clone(), Arc::clone(base), results.clone());
        hosted(bound.clone(), move |gpu, bound| {
            let (point, base, results) = (point.clone(), Arc::clone(&base), results.clone());
            async move {
                let parameters = bound.read(&gpu, &point).await?;
                let ((now, _), before) = (bound.evaluate(&parameters)?, lock(&base.0).1);
                let change = now - before;
                let error = ERROR_OF_LOSS * (now.abs() + before.abs()) + ROUNDING * change.abs();
                gpu.upload(&results, 0, &[now, change, error].map(|x| x as f32))
            }
        })
    };
    let mut at_base = Work::new();
    at_base.tail().copy(at.slice(), point.slice())?;
    at_base.append({
        let (base, results) = (Arc::clone(base), results.clone());
        Work::hosted(move |gpu| gpu.upload(&results, 0, &[lock(&base.0).1 as f32, 0.0, 0.0]))
    });
    Ok(Losses {
        at_point,
        at_base,
        point,
        results,
        cost_at_base: LossCost::NOTHING,
        cost_at_point: LossCost::LOSS,
    })
}

impl<B: Clone + Send + Sync + 'static> Objective for HostFunction<B> {
    type Batch = B;

    fn gpu(&self) -> &Gpu {
        &self.gpu
    }

    fn layout(&self) -> &Arc<Layout> {
        &self.layout
    }

    fn load(&mut self, slot: Slot, batch: &B) -> Result<Loaded> {
        let batch = Arc::new(batch.clone());
        match self.slots.iter().find(|(known, _)| *known == slot) {
            Some((_, place)) => *lock(place) = batch,
            None => self.slots.push((slot, Arc::new(Mutex::new(batch)))),
        }
        Ok(Loaded {
            slot,
            rows: self.examples,
            examples: self.examples,
            groups: 1,
        })
    }

    fn gradient(
        &mut self,
        at: &Vector,
        loaded: &Loaded,
        request: GradientRequest,
    ) -> Result<Arc<Gradient>> {
        Ok(self.program(at, loaded, request)?.1)
    }
}

impl<B: Clone + Send + Sync + 'static> Curved for HostFunction<B> {
    fn quadratic(
        &mut self,
        at: &Vector,
        loaded: &Loaded,
        request: QuadraticRequest,
    ) -> Result<Arc<Quadratic>> {
        let own = self
            .product
            .as_ref()
            .filter(|(curvature, _)| *curvature == request.curvature)
            .map(|(_, product)| Arc::clone(product));
        let what = match (request.curvature, request.fisher_diagonal) {
            (_, true) => Some("the diagonal of the empirical Fisher matrix"),
            (Curvature::GaussNewton, _) if own.is_none() => Some("Gauss-Newton products"),
            _ => None,
        };
        if let Some(what) = what {
            return Err(Error::Unsupported {
                what: format!("{what} of a function of the host"),
                message: "it gives loss and gradient alone; ask for Curvature::Hessian, or bring products by \
                          `HostFunction::with_product`"
                    .into(),
            });
        }
        let wanted = GradientRequest {
            losses: request.losses,
        };
        let (base, gradient) = self.program(at, loaded, wanted)?;
        let same = |known: &Arc<Quadratic>| known.gradient.is_same(&gradient.gradient);
        if let Some(known) = self.quadratics.find(at, loaded, &request, same) {
            return Ok(known);
        }
        let (gpu, bound) = (&self.gpu, self.bound(loaded)?);
        let new = |label: &str| Vector::new(gpu, label, &self.layout);
        let (direction, product) = (new("direction")?, new("product")?);
        let multiply = |from: &[Vector], to: &[Vector]| -> Work {
            if request.curvature == Curvature::None {
                return Work::new();
            }
            let pairs: Vec<(Vector, Vector)> =
                from.iter().cloned().zip(to.iter().cloned()).collect();
            let (base, own) = (Arc::clone(&base), own.clone());
            hosted(bound.clone(), move |gpu, bound| {
                let (pairs, base, own) = (pairs.clone(), Arc::clone(&base), own.clone());
                async move {
                    let (parameters, _) = lock(&base.0).clone();
                    let slices: Vec<&Slice> = pairs.iter().flat_map(|(v, _)| v.parts()).collect();
                    let read = gpu.read_async(&slices).await?;
                    for (tensors, (_, to)) in read.chunks(bound.layout.entries().len()).zip(&pairs)
                    {
                        let v: Vec<f64> =
                            tensors.iter().flatten().copied().map(f64::from).collect();
                        let found = match &own {
                            None => bound.difference(&parameters, &v)?,
                            Some(own) => {
                                let batch = Arc::clone(&lock(&bound.batch));
                                own(&parameters, &batch, &v)
                            }
                        };
                        bound.check("the product that a function gave", &found)?;
                        bound.write(&gpu, to, &found).await?;
                    }
                    Ok(())
                }
            })
        };
        let width = match request.curvature {
            Curvature::None => 0,
            _ => request.block,
        };
        let block = match width {
            0 => None,
            _ => {
                let new = |label: &str| Block::new(gpu, label, &self.layout, width);
                let (directions, products) = (new("directions")?, new("products")?);
                Some(BlockProduct {
                    multiply: multiply(directions.vectors(), products.vectors()),
                    directions,
                    products,
                    width,
                })
            }
        };
        let (from, to) = (
            std::slice::from_ref(&direction),
            std::slice::from_ref(&product),
        );
        let mut linearize = gradient.run.clone();
        linearize.hold(Arc::clone(&gradient) as _);
        let bytes = gradient.cost.bytes + (2 + 2 * width as u64) * 4 * self.layout.len() as u64;
        let quadratic = Arc::new(Quadratic {
            value: gradient.value.clone(),
            gradient: gradient.gradient.clone(),
            multiply: multiply(from, to),
            direction,
            product,
            fisher_diagonal: None,
            linearize,
            block,
            losses: gradient.losses.clone(),
            listing: Arc::default(),
            cost: Cost {
                bytes,
                ..gradient.cost
            },
            loaded: *loaded,
        });
        let kept = Arc::clone(&quadratic);
        self.quadratics.keep(at, loaded, request, bytes, kept);
        Ok(quadratic)
    }
}

/// None.
impl<B: Clone + Send + Sync + 'static> Parts for HostFunction<B> {}
