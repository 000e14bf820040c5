//! Modules of burn's as objectives.

use burn::module::Module;
use burn::tensor::Tensor;
use osculant::Result;
use osculant::nn::Loss;
use osculant::objective::{Objective, OwnKernels};
use osculant::optim::{Optimizer, StepReport};
use osculant::vector::Vector;

use crate::SharedDevice;
use crate::joint::{Joint, OutputsOf};
use crate::network::Network;

/// A module of burn's and a loss, for osculant's optimizers: the gradient is burn's, and products with the Hessian are made of two,
///
/// ```text
/// C v = (g(theta + e v) - g(theta - e v)) / 2e
/// ```
///
/// as by [`FiniteDifferences`](osculant::objective::FiniteDifferences). `theta` are the parameters that require gradients; frozen ones stay
/// what they are. All optimizers step on it that need no parts of batches and take the Hessian: Newton-CG with its trust region, low-rank
/// saddle-free Newton, SGD, Adam.
///
/// ```no_run
/// use burn::nn::{Linear, LinearConfig};
/// use burn::tensor::{DeviceKind, Tensor};
/// use osculant::objective::Curvature;
/// use osculant::optim::{NewtonCg, NewtonCgOptions};
/// use osculant_burn::{ModuleObjective, SharedDevice};
///
/// # fn main() -> osculant::Result<()> {
/// let shared = SharedDevice::new(DeviceKind::DefaultDevice)?;
/// let device = shared.device();
/// let mut module = LinearConfig::new(3, 1).init(&device);
/// let mut objective = ModuleObjective::new(&shared, &module)?;
/// let mut newton = NewtonCg::new(NewtonCgOptions::default().with_curvature(Curvature::Hessian))?;
/// for _ in 0..10 {
///     let (x, y) = (Tensor::<2>::ones([8, 3], &device), Tensor::<2>::zeros([8, 1], &device)); // the next batch
///     let loss = move |module: &Linear| (module.forward(x.clone()) - y.clone()).square().mean();
///     let (stepped, report) = objective.step(&mut newton, module, loss);
///     module = stepped;
///     println!("{}", report?.loss_before);
/// }
/// # Ok(())
/// # }
/// ```
pub struct ModuleObjective<M>(Joint<M>);

impl<M: Module + 'static> ModuleObjective<M> {
    /// For modules with the names and shapes of this one's parameters.
    ///
    /// # Errors
    /// [`Error::Unsupported`](osculant::Error::Unsupported) for a parameter on another device or on one without automatic differentiation,
    /// with integers or booleans, with floats that are no f32, or that occurs twice; [`Error::Shape`](osculant::Error::Shape) where none
    /// requires gradients; limits of the device.
    pub fn new(shared: &SharedDevice, module: &M) -> Result<Self> {
        Joint::new(shared, module).map(Self)
    }

    /// With the outputs of the module: so many rows, and so many outputs of each. The loss of outputs is `factor` times the sum over rows of
    /// one of osculant's: where it is a mean over rows, as burn's `CrossEntropyLoss` is, the factor is `1 / rows`.
    ///
    /// ```no_run
    /// use burn::nn::{Linear, LinearConfig};
    /// use osculant::nn::Loss;
    /// use osculant_burn::{ModuleObjective, OutputsObjective, SharedDevice};
    /// # fn digits(shared: &SharedDevice) -> osculant::Result<OutputsObjective<Linear>> {
    /// let module = LinearConfig::new(64, 10).init(&shared.device());
    /// ModuleObjective::new(shared, &module)?.with_outputs([128, 10], Loss::SoftmaxCrossEntropy, 1.0 / 128.0)
    /// # }
    /// ```
    ///
    /// # Errors
    /// [`Error::Option`](osculant::Error::Option) for a shape or factor that is none; limits of the device.
    pub fn with_outputs(
        self,
        shape: [usize; 2],
        loss: Loss,
        factor: f32,
    ) -> Result<OutputsObjective<M>> {
        let outputs = OutputsOf {
            shape,
            loss,
            factor,
        };
        self.0.with_outputs(outputs).map(OutputsObjective)
    }

    /// With so many examples in a batch, for counting work; 1 unless said otherwise.
    #[must_use]
    pub fn with_examples(self, examples: usize) -> Self {
        Self(self.0.with_examples(examples))
    }

    /// With displacements of another length: see [`FiniteDifferences::with_length`](osculant::objective::FiniteDifferences::with_length).
    ///
    /// # Errors
    /// As there.
    pub fn with_length(self, length: f32) -> Result<Self> {
        self.0.with_length(length).map(Self)
    }

    /// A step: the module comes back with the new parameters, or with those of before where the step was refused or failed. Clones of the
    /// module, and of its parameters, keep the numbers that they had.
    ///
    /// `loss` gives the loss of a module, of one element, on the batch of this step; it is called some tens of times, at parameters on the
    /// way, and has to give the same loss for the same parameters. Dropout is to be off, and what a module counts by itself, such as running
    /// means, counts all of these calls. The tensors that it needs are to be moved into it: a clone of a tensor is a handle.
    ///
    /// # Errors
    /// As [`Optimizer::step`]; [`Error::Shape`](osculant::Error::Shape) for a module with other parameters than the first one, and for a
    /// loss of more than one element; [`Error::Unsupported`](osculant::Error::Unsupported) as [`new`](Self::new), and for a loss without
    /// automatic differentiation.
    pub fn step<O, F>(&mut self, optimizer: &mut O, module: M, loss: F) -> (M, Result<StepReport>)
    where
        O: Optimizer<OwnKernels> + ?Sized,
        F: FnMut(&M) -> Tensor<1> + Send + 'static,
    {
        let network = Network::Loss(Box::new(loss));
        self.0.run(module, network, |own| own.step(optimizer))
    }

    /// Does anything with the objective at the parameters of a module, which are in `theta`: [`osculant::check()`], products, eigenvalues. The
    /// module comes back with what is in `theta` then.
    ///
    /// ```no_run
    /// use burn::nn::Linear;
    /// use burn::tensor::Tensor;
    /// use osculant::objective::Curvature;
    /// use osculant_burn::ModuleObjective;
    /// # fn look(objective: &mut ModuleObjective<Linear>, module: Linear, x: Tensor<2>) -> osculant::Result<Linear> {
    /// let loss = move |module: &Linear| module.forward(x.clone()).square().mean();
    /// let (module, found) = objective.at(module, loss, |own, theta| osculant::check(own, theta, &(), Curvature::Hessian));
    /// println!("{}", found?);
    /// # Ok(module)
    /// # }
    /// ```
    ///
    /// # Errors
    /// Those of `act`, and as [`step`](Self::step).
    pub fn at<F, T>(
        &mut self,
        module: M,
        loss: F,
        act: impl FnOnce(&mut OwnKernels, &Vector) -> Result<T>,
    ) -> (M, Result<T>)
    where
        F: FnMut(&M) -> Tensor<1> + Send + 'static,
    {
        let network = Network::Loss(Box::new(loss));
        self.0.run(module, network, |own| gathered(own, act))
    }
}

/// A module of burn's whose outputs are known: as [`ModuleObjective`], with products with the Gauss-Newton matrix `J^T H J` of the outputs
/// `z`,
///
/// ```text
/// t = (z(theta + e v) - z(theta)) / e,   product = J(theta + e v)^T H t
/// ```
///
/// with `H` exactly the Hessian of the loss as a function of `z`, and `J^T` by burn's backward pass: a product costs what a gradient does, and is
/// right to about 2e-3 ([`OwnKernels::with_one_sided_outputs`]). So Newton-CG has the damping that goes with Gauss-Newton, which is its
/// default. Products with the Hessian are still differences of gradients.
pub struct OutputsObjective<M>(Joint<M>);

impl<M: Module + 'static> OutputsObjective<M> {
    /// With displacements of another length: see [`FiniteDifferences::with_length`](osculant::objective::FiniteDifferences::with_length).
    ///
    /// # Errors
    /// As there.
    pub fn with_length(self, length: f32) -> Result<Self> {
        self.0.with_length(length).map(Self)
    }

    /// A step, as [`ModuleObjective::step`]: `outputs` gives the outputs of a module, rows by outputs of each, and `loss` the loss of outputs.
    /// That is to be the loss that the objective was made for: its Hessian is not looked for in `loss`.
    ///
    /// # Errors
    /// As there; [`Error::Shape`](osculant::Error::Shape) for outputs of another shape.
    pub fn step<O, Z, F>(
        &mut self,
        optimizer: &mut O,
        module: M,
        outputs: Z,
        loss: F,
    ) -> (M, Result<StepReport>)
    where
        O: Optimizer<OwnKernels> + ?Sized,
        Z: FnMut(&M) -> Tensor<2> + Send + 'static,
        F: FnMut(Tensor<2>) -> Tensor<1> + Send + 'static,
    {
        let network = Network::Outputs(Box::new(outputs), Box::new(loss));
        self.0.run(module, network, |own| own.step(optimizer))
    }

    /// Does anything with the objective at the parameters of a module: see [`ModuleObjective::at`].
    ///
    /// # Errors
    /// As there.
    pub fn at<Z, F, T>(
        &mut self,
        module: M,
        outputs: Z,
        loss: F,
        act: impl FnOnce(&mut OwnKernels, &Vector) -> Result<T>,
    ) -> (M, Result<T>)
    where
        Z: FnMut(&M) -> Tensor<2> + Send + 'static,
        F: FnMut(Tensor<2>) -> Tensor<1> + Send + 'static,
    {
        let network = Network::Outputs(Box::new(outputs), Box::new(loss));
        self.0.run(module, network, |own| gathered(own, act))
    }
}

/// Between a copy of the parameters from their places, and one to them.
fn gathered<T>(
    own: &mut OwnKernels,
    act: impl FnOnce(&mut OwnKernels, &Vector) -> Result<T>,
) -> Result<T> {
    let (gpu, theta) = (own.gpu().clone(), own.theta().clone());
    gpu.run([own.gather()])?;
    let done = act(own, &theta);
    gpu.run([own.scatter()])?;
    done
}
