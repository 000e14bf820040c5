//! Objectives out of a caller's own buffers and passes.

mod gradients;
mod outputs;
mod places;

use std::sync::Arc;

use gradients::Gradients;
use outputs::{Between, Outputs, Ways};
pub use outputs::{OutputHessian, OwnOutputs};
use places::{Place, check_apart, gather, scatter};

use super::capability::{Curved, Objective, Parts};
use super::cost::Cost;
use super::finite_differences::FiniteDifferences;
use super::programs::Programs;
use super::quadratic::{Curvature, Gradient, GradientRequest, Quadratic, QuadraticRequest};
use super::slot::{Loaded, Slot};
use crate::error::{Error, Result};
use crate::gpu::{Gpu, Recording, Work};
use crate::vector::{Layout, Vector};

/// A buffer of the caller, and the byte from which on something lies in it: any multiple of four.
pub type Buffer<'a> = (&'a wgpu::Buffer, u64);

/// A parameter tensor of a caller: f32, row-major.
#[derive(Clone, Copy, Debug)]
pub struct OwnTensor<'a> {
    /// Its name, for messages and checkpoints.
    pub name: &'a str,
    /// Its shape.
    pub shape: &'a [usize],
    /// Where it is.
    pub parameters: Buffer<'a>,
    /// Where the caller's passes leave its gradient.
    pub gradient: Buffer<'a>,
}

/// A training loop of somebody else, as an objective: parameters in the caller's own buffers, and work of the caller's own that computes
/// the loss and its gradient from them: passes, or calls of the host that submit by themselves. All optimizers step on it that need no parts of batches.
///
/// The passes see nothing new: they read the parameters where they always did. Whatever point an optimizer wants to know the loss at is
/// copied there on the device, the passes run, and the gradient is copied from where they leave it. So tensors may lie in one buffer or in
/// many, one behind the other or apart. The batch is what is in the caller's buffers when a step runs: it must not change within one.
///
/// Products with the Hessian are made by [`FiniteDifferences`], unless there is a kernel for them: [`with_product`](Self::with_product).
/// Those with the Gauss-Newton matrix need one, or the outputs of the network: [`with_outputs`](Self::with_outputs).
///
/// ```
/// use osculant::gpu::{Gpu, Work};
/// use osculant::objective::{Curvature, OwnKernels};
/// use osculant::optim::{NewtonCg, NewtonCgOptions};
/// # struct Network { parameters: wgpu::Buffer, gradient: wgpu::Buffer, loss: wgpu::Buffer }
/// # impl Network { fn record(&self, _encoder: &mut wgpu::CommandEncoder) {} }
/// # fn train(device: &wgpu::Device, queue: &wgpu::Queue, network: std::sync::Arc<Network>) -> osculant::Result<()> {
/// let gpu = Gpu::from_wgpu(device.clone(), queue.clone())?;
/// let (parameters, gradient, loss) = (&network.parameters, &network.gradient, &network.loss);
/// let passes = { let network = network.clone(); Work::passes(move |encoder| network.record(encoder)) };
/// let mut objective = OwnKernels::flat(&gpu, parameters, gradient, loss, passes)?;
/// let mut newton = NewtonCg::new(NewtonCgOptions::default().with_curvature(Curvature::Hessian))?;
/// for _ in 0..100 {
///     // The caller's next batch.
///     let report = objective.step(&mut newton)?;
///     println!("{}", report.loss_before);
/// }
/// # Ok(())
/// # }
/// ```
#[derive(Debug)]
pub struct OwnKernels {
    differences: FiniteDifferences<Gradients>,
    product: Option<OwnProduct>,
    outputs: Option<Outputs>,
    quadratics: Programs<QuadraticRequest, Arc<Quadratic>>,
    theta: Vector,
    gather: Recording,
    scatter: Recording,
}

/// Whoever brings products says of which matrix.
pub(super) fn some_matrix(curvature: Curvature) -> Result<()> {
    crate::options::require(
        curvature != Curvature::None,
        "curvature",
        "say which matrix the product is with: Hessian or GaussNewton",
    )
}

/// A product kernel of the caller's.
#[derive(Debug)]
struct OwnProduct {
    curvature: Curvature,
    directions: Vec<Place>,
    products: Vec<Place>,
    work: Work,
}

impl OwnKernels {
    /// Of tensors, the place of the loss (one f32), and the work that computes loss and gradient: [passes](Work::passes), or a
    /// [call of the host](Work::hosted) that submits by itself.
    ///
    /// # Errors
    /// [`Error::Length`] for places beyond their buffers, [`Error::Unsupported`] for buffers without the usages `STORAGE`, `COPY_SRC` and, of
    /// parameters, `COPY_DST`; [`Error::Shape`] for two
    /// tensors of a name; limits of the device.
    pub fn new(
        gpu: &Gpu,
        tensors: &[OwnTensor<'_>],
        loss: Buffer<'_>,
        work: impl Into<Work>,
    ) -> Result<Self> {
        let gradients = Gradients::new(gpu, tensors, loss, work.into())?;
        let theta = Vector::new(gpu, "theta", gradients.layout())?;
        let [mut before, mut after] = [Recording::new(), Recording::new()];
        gather(&mut before, &gradients.parameters, &theta)?;
        scatter(&mut after, &gradients.parameters, &theta)?;
        Ok(Self {
            theta,
            gather: before,
            scatter: after,
            differences: FiniteDifferences::new(gradients),
            product: None,
            outputs: None,
            quadratics: Programs::default(),
        })
    }

    /// Of parameters that fill one buffer, with a gradient that is laid out like them.
    ///
    /// # Errors
    /// As [`new`](Self::new).
    pub fn flat(
        gpu: &Gpu,
        parameters: &wgpu::Buffer,
        gradient: &wgpu::Buffer,
        loss: &wgpu::Buffer,
        work: impl Into<Work>,
    ) -> Result<Self> {
        let tensor = OwnTensor {
            name: "parameters",
            shape: &[(parameters.size() / 4) as usize],
            parameters: (parameters, 0),
            gradient: (gradient, 0),
        };
        Self::new(gpu, &[tensor], (loss, 0), work)
    }

    /// With work that multiplies a direction with a curvature matrix, at the parameters for which that of the gradient ran last; the
    /// places of directions and products are in the order of the tensors. Buffers of directions need `STORAGE` and `COPY_DST`, those of
    /// products `STORAGE` and `COPY_SRC`. Look at the products once with [`Operator::probe`](crate::linalg::Operator::probe).
    ///
    /// # Errors
    /// As [`new`](Self::new); [`Error::Option`] for no matrix, [`Error::Length`] unless there is a place for each tensor.
    pub fn with_product(
        mut self,
        curvature: Curvature,
        directions: &[Buffer<'_>],
        products: &[Buffer<'_>],
        work: impl Into<Work>,
    ) -> Result<Self> {
        some_matrix(curvature)?;
        let own = OwnProduct {
            curvature,
            directions: self.places("direction", directions)?,
            products: self.places("product", products)?,
            work: work.into(),
        };
        check_apart(own.directions.iter().chain(&own.products))?;
        let mut copies = Recording::new();
        scatter(&mut copies, &own.directions, &self.theta)?;
        gather(&mut copies, &own.products, &self.theta)?;
        self.product = Some(own);
        self.quadratics = Programs::default();
        Ok(self)
    }

    /// With the outputs of the caller's network, for products with the Gauss-Newton matrix `J^T H J`: `J v` by a difference of outputs on
    /// both sides, exactly `H` of the loss, and the caller's backward pass for `J^T`. A product costs three forward passes and a backward
    /// pass. Displacements are as with [`FiniteDifferences`], and so are errors, which do not change that the matrix is positive
    /// semi-definite up to them.
    ///
    /// `forward` computes the outputs at the parameters in the caller's buffers, and leaves what `backward` needs. `backward` takes the
    /// cotangent `u` of the outputs, and leaves `J^T u` where the gradient goes. Buffers of outputs need `STORAGE` and `COPY_SRC`, those of
    /// cotangents `STORAGE` and `COPY_DST`.
    ///
    /// ```
    /// use osculant::gpu::Work;
    /// use osculant::nn::Loss;
    /// use osculant::objective::{OutputHessian, OwnKernels, OwnOutputs};
    /// # struct Network { outputs: wgpu::Buffer, cotangent: wgpu::Buffer }
    /// # fn with_outputs(own: OwnKernels, network: &Network, forward: Work, backward: Work) -> osculant::Result<OwnKernels> {
    /// let outputs = OwnOutputs {
    ///     shape: [128, 10],
    ///     outputs: (&network.outputs, 0),
    ///     cotangent: (&network.cotangent, 0),
    ///     hessian: OutputHessian::Of { loss: Loss::SoftmaxCrossEntropy, factor: 1.0 / 128.0 },
    /// };
    /// own.with_outputs(outputs, forward, backward)
    /// # }
    /// ```
    ///
    /// # Errors
    /// As [`new`](Self::new); [`Error::Option`] for a shape or factor that is none.
    pub fn with_outputs(
        mut self,
        outputs: OwnOutputs<'_>,
        forward: impl Into<Work>,
        backward: impl Into<Work>,
    ) -> Result<Self> {
        let work = [forward.into(), backward.into()];
        let outputs = Outputs::new(self.gpu(), outputs, work)?;
        let own = self.differences.inner();
        let places = own.parameters.iter().chain(&own.gradients);
        check_apart(places.chain([&outputs.cotangent]))?;
        self.outputs = Some(outputs);
        self.quadratics = Programs::default();
        Ok(self)
    }

    /// With work that leaves the loss where that of loss and gradient does, and nothing else: for the points that a step only compares. It
    /// is to be the same number, up to rounding. Without it the work of loss and gradient runs there.
    ///
    /// ```
    /// use osculant::gpu::Work;
    /// use osculant::objective::OwnKernels;
    /// # fn forward(_encoder: &mut wgpu::CommandEncoder) {}
    /// # fn with_loss(own: OwnKernels) -> OwnKernels {
    /// own.with_loss(Work::passes(|encoder| forward(encoder)))
    /// # }
    /// ```
    #[must_use]
    pub fn with_loss(mut self, work: impl Into<Work>) -> Self {
        self.differences.inner_mut().set_loss(work.into());
        self.quadratics = Programs::default();
        self
    }

    /// Where the work of loss and gradient leaves the outputs, too, where those of [`with_outputs`](Self::with_outputs) are: a step has one
    /// forward pass less.
    ///
    /// # Errors
    /// [`Error::Unsupported`] before [`with_outputs`](Self::with_outputs).
    pub fn with_outputs_of_gradient(self) -> Result<Self> {
        self.with_ways(|ways| ways.with_gradient = true)
    }

    /// With products made at one point beside the parameters, where the outputs `z` and the backward pass `J^T` are taken:
    ///
    /// ```text
    /// product = J(theta + e v)^T H (z(theta + e v) - z(theta)) / e
    /// ```
    ///
    /// It costs a forward pass and a backward pass, as much as a gradient. It is one: of the function
    /// `(z(theta + d) - z(theta))^T H (z(theta + d) - z(theta)) / 2` of `d`, at `d = e v`, over `e`. That function has the Gauss-Newton matrix
    /// as Hessian at zero, and no slope there, so that this is a difference of gradients. With `e = h / |v|` and
    /// `h = (3 length^3)^(1/2) (1 + |theta|)^(1/3)`, shorter than on both sides, errors are of the size of `r^(1/2)` in place of
    /// `r^(2/3)`, with an ulp `r`: up to 1.5e-3 of a product where they are 1.7e-4 on both sides, on the networks of the tests. A Hessian of the caller's ([`OutputHessian::Own`]) is that at `theta + e v`, which is an error of the same
    /// kind.
    ///
    /// # Errors
    /// [`Error::Unsupported`] before [`with_outputs`](Self::with_outputs).
    pub fn with_one_sided_outputs(self) -> Result<Self> {
        self.with_ways(|ways| ways.one_sided = true)
    }

    fn with_ways(mut self, change: impl FnOnce(&mut Ways)) -> Result<Self> {
        let outputs = self.outputs.as_mut().ok_or_else(|| Error::Unsupported {
            what: "another way to outputs".into(),
            message: "call `OwnKernels::with_outputs` before, which says where they are".into(),
        })?;
        change(&mut outputs.ways);
        self.quadratics = Programs::default();
        Ok(self)
    }

    /// With so many examples in a batch, for counting work; 1 unless said otherwise.
    #[must_use]
    pub fn with_examples(mut self, examples: usize) -> Self {
        self.differences.inner_mut().examples = examples;
        self
    }

    /// With displacements of another length: see [`FiniteDifferences::with_length`].
    ///
    /// # Errors
    /// As there.
    pub fn with_length(mut self, length: f32) -> Result<Self> {
        self.differences = self.differences.with_length(length)?;
        Ok(self)
    }

    /// The parameters on our side, as they were gathered last or as a step has left them.
    pub fn theta(&self) -> &Vector {
        &self.theta
    }

    /// Copies the caller's parameters to [`theta`](Self::theta): what comes before a step.
    pub fn gather(&self) -> &Recording {
        &self.gather
    }

    /// Copies [`theta`](Self::theta) to the caller's parameters, where the last point that a step looked at still is.
    pub fn scatter(&self) -> &Recording {
        &self.scatter
    }

    fn places(&self, label: &str, buffers: &[Buffer<'_>]) -> Result<Vec<Place>> {
        let entries = self.layout().entries();
        if buffers.len() != entries.len() {
            return Err(Error::Length {
                what: format!("the list of places for the {label}"),
                found: buffers.len(),
                expected: entries.len(),
            });
        }
        let places = entries.iter().zip(buffers).map(|(entry, buffer)| {
            let label = format!("{label} of {}", entry.name);
            Place::new(self.gpu(), &label, *buffer, entry.elements())
        });
        places.collect()
    }
}

impl Objective for OwnKernels {
    /// The batch is what is in the caller's buffers.
    type Batch = ();

    fn gpu(&self) -> &Gpu {
        self.differences.gpu()
    }

    fn layout(&self) -> &Arc<Layout> {
        self.differences.layout()
    }

    fn load(&mut self, slot: Slot, batch: &()) -> Result<Loaded> {
        self.differences.load(slot, batch)
    }

    fn gradient(
        &mut self,
        at: &Vector,
        loaded: &Loaded,
        request: GradientRequest,
    ) -> Result<Arc<Gradient>> {
        self.differences.gradient(at, loaded, request)
    }
}

impl Curved for OwnKernels {
    fn quadratic(
        &mut self,
        at: &Vector,
        loaded: &Loaded,
        request: QuadraticRequest,
    ) -> Result<Arc<Quadratic>> {
        let curvature = request.curvature;
        let product = self
            .product
            .as_ref()
            .filter(|own| own.curvature == curvature);
        let outputs = self
            .outputs
            .as_ref()
            .filter(|_| curvature == Curvature::GaussNewton);
        if product.is_none() && outputs.is_none() {
            return self.differences.quadratic(at, loaded, request);
        }
        if let Some(known) = self.quadratics.get(at, loaded, &request) {
            return Ok(known);
        }
        // All but the product is as with differences.
        let none = QuadraticRequest {
            curvature: Curvature::None,
            ..request
        };
        let base = self.differences.quadratic(at, loaded, none)?;
        let (mut linearize, mut multiply) = (base.linearize.clone(), Work::new());
        let mut bytes = base.cost.bytes;
        if let Some(own) = product {
            scatter(multiply.tail(), &own.directions, &base.direction)?;
            multiply.append(own.work.clone());
            gather(multiply.tail(), &own.products, &base.product)?;
        } else if let Some(outputs) = outputs {
            let own = self.differences.inner();
            let between = Between {
                parameters: &own.parameters,
                gradients: &own.gradients,
                at,
                base: &base,
                length: self.differences.length(),
            };
            let [once, each] = outputs.record(self.differences.gpu(), &between)?;
            linearize.append(once);
            multiply = each;
            bytes += outputs.bytes(at.slice().bytes());
        }
        let gpu = self.differences.gpu().clone();
        let block = FiniteDifferences::<Gradients>::block(
            &gpu,
            at,
            request.block,
            (&multiply, [&base.direction, &base.product]),
        )?;
        let quadratic = Arc::new(Quadratic {
            linearize,
            multiply,
            block,
            cost: Cost { bytes, ..base.cost },
            ..(*base).clone()
        });
        self.quadratics
            .keep(at, loaded, request, bytes, Arc::clone(&quadratic));
        Ok(quadratic)
    }
}

/// None.
impl Parts for OwnKernels {}
