//! A model: a function that writes the loss of a batch as a graph.

use std::cell::RefCell;
use std::fmt;
use std::sync::Arc;

use super::init::Init;
use crate::data::{Dataset, Targets};
use crate::error::{Error, Result};
use crate::graph::tensor::{Builder, another_builder};
use crate::graph::{DType, Graph, NodeId, Tensor};

/// What the targets of a batch look like.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum TargetShape {
    /// One label below this many classes.
    Classes(usize),
    /// This many floats.
    Values(usize),
    /// The features themselves.
    Inputs,
}

/// Widths of features and targets.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct DataShape {
    /// Floats per example; 0 for a function without data.
    pub features: usize,
    /// The targets of an example.
    pub targets: TargetShape,
}

impl From<&Dataset> for DataShape {
    fn from(dataset: &Dataset) -> Self {
        let targets = match dataset.targets() {
            Targets::Classes { classes, .. } => TargetShape::Classes(*classes),
            Targets::Values { width, .. } => TargetShape::Values(*width),
            Targets::Inputs => TargetShape::Inputs,
        };
        Self {
            features: dataset.width(),
            targets,
        }
    }
}

/// What a model's function sees: the batch, and a place to declare parameters.
#[derive(Debug)]
pub struct Scope<'b> {
    builder: &'b Builder,
    rows: usize,
    shape: DataShape,
    features: Option<Tensor<'b>>,
    targets: Option<Tensor<'b>>,
    initialisers: RefCell<Vec<Init>>,
}

impl<'b> Scope<'b> {
    /// Number of examples in the batch.
    pub fn rows(&self) -> usize {
        self.rows
    }

    /// Number of features of an example.
    pub fn width(&self) -> usize {
        self.shape.features
    }

    /// What the targets look like.
    pub fn target_shape(&self) -> TargetShape {
        self.shape.targets
    }

    /// The features, `[rows, width]`.
    pub fn features(&self) -> Tensor<'b> {
        self.features.unwrap_or_else(|| {
            self.fail(missing("features", "this model was declared without any"))
        })
    }

    /// The class labels, `[rows]`, for [`Tensor::one_hot`] and [`Tensor::gather`]; tables and one-hot rows with fewer places than there are
    /// classes are refused.
    pub fn labels(&self) -> Tensor<'b> {
        match (self.shape.targets, self.targets) {
            (TargetShape::Classes(_), Some(labels)) => labels,
            _ => self.fail(missing(
                "labels",
                "the targets of this model are not class labels",
            )),
        }
    }

    /// The targets as floats, `[rows, width]`; one-hot rows for class labels, the features for an autoencoder.
    pub fn targets(&self) -> Tensor<'b> {
        match (self.shape.targets, self.targets) {
            (TargetShape::Classes(classes), Some(labels)) => labels.one_hot(classes),
            (TargetShape::Values(_), Some(values)) => values,
            _ => self.features(),
        }
    }

    /// Of tensors `[rows, m]` for each row the one that its label chooses: the residuals of the term that a point belongs to (see
    /// [`Points`](crate::data::Points)). Each is computed for every row, so all must be finite there.
    ///
    /// # Errors
    /// [`Error::Shape`] where there are not as many as classes, or they have other shapes than each other.
    pub fn by_term(&self, terms: &[Tensor<'b>]) -> Tensor<'b> {
        let TargetShape::Classes(classes) = self.shape.targets else {
            return self.labels();
        };
        let alike = |pair: &[Tensor<'b>]| pair[0].shape() == pair[1].shape();
        let matrix = |term: &Tensor<'b>| matches!(*term.shape(), [rows, _] if rows == self.rows);
        if terms.len() != classes || !terms.windows(2).all(alike) || !terms.iter().all(matrix) {
            let shapes: Vec<_> = terms.iter().map(|term| term.shape()).collect();
            return self.fail(Error::Shape {
                node: "residuals by term".into(),
                message: format!(
                    "shapes {shapes:?} for {classes} terms; give one tensor [{}, m] for each, all of one shape",
                    self.rows
                ),
            });
        }
        let chosen = self.labels().one_hot(classes);
        let masked = terms
            .iter()
            .enumerate()
            .map(|(term, &residual)| residual * chosen.slice(&[0, term], &[self.rows, 1]));
        let sum = masked.reduce(|sum, residual| sum + residual);
        sum.unwrap_or_else(|| self.labels())
    }

    /// Declares a parameter with its initial values.
    pub fn parameter(&self, name: &str, shape: &[usize], init: Init) -> Tensor<'b> {
        self.initialisers.borrow_mut().push(init);
        self.builder.parameter(name, shape)
    }

    /// A number.
    pub fn constant(&self, value: f32) -> Tensor<'b> {
        self.builder.constant(value)
    }

    /// A tensor given by value; all values must be finite.
    pub fn data(&self, values: Vec<f32>, shape: &[usize]) -> Tensor<'b> {
        self.builder.data(values, shape)
    }

    /// A dense layer `x W + b`, with parameters `NAME.weight` `[inputs, outputs]` and `NAME.bias` `[outputs]`.
    pub fn dense(&self, name: &str, x: Tensor<'b>, outputs: usize, init: Init) -> Tensor<'b> {
        let inputs = x.shape().last().copied().unwrap_or(1);
        let weight = self.parameter(&format!("{name}.weight"), &[inputs, outputs], init);
        let bias = self.parameter(&format!("{name}.bias"), &[outputs], Init::Constant(0.0));
        x.dot(weight) + bias
    }

    /// Reports a mistake; building the model then returns it.
    pub fn fail(&self, error: Error) -> Tensor<'b> {
        self.builder.fail(error)
    }
}

fn missing(what: &str, message: &str) -> Error {
    Error::Shape {
        node: what.into(),
        message: message.into(),
    }
}

/// What a model's function returns.
#[derive(Clone, Copy, Debug)]
pub struct Output<'b> {
    /// The loss of each example, `[rows]`.
    pub losses: Tensor<'b>,
    /// The network's outputs: the loss must depend on parameters only through them, or there is no Gauss-Newton matrix. It may see them
    /// under another shape or sign.
    pub outputs: Tensor<'b>,
    /// A figure of merit of each example, `[rows]`.
    pub metric: Option<Tensor<'b>>,
}

fn residuals_squared<'b>(scope: &Scope<'b>, residuals: Tensor<'b>) -> Output<'b> {
    let axes: Vec<usize> = (1..residuals.shape().len()).collect();
    Output {
        losses: residuals.square().sum(&axes).reshape(&[scope.rows()]),
        outputs: residuals,
        metric: None,
    }
}

type Build = dyn for<'b> Fn(&Scope<'b>) -> Output<'b> + Send + Sync;

type Root = dyn for<'b> Fn(&Scope<'b>, Tensor<'b>, Tensor<'b>) -> Tensor<'b> + Send + Sync;

type Residuals = dyn for<'b> Fn(&Scope<'b>, Tensor<'b>) -> Tensor<'b> + Send + Sync;

/// A function from a batch to the loss of each of its examples, written with graph primitives.
#[derive(Clone)]
pub struct Model {
    shape: DataShape,
    build: Arc<Build>,
    root: Option<Arc<Root>>,
    residuals: Option<Arc<Residuals>>,
}

impl fmt::Debug for Model {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Model")
            .field("shape", &self.shape)
            .finish_non_exhaustive()
    }
}

/// A model written out for a number of rows.
#[derive(Debug)]
pub struct Traced {
    /// Its graph.
    pub graph: Graph,
    /// The loss of each example, `[rows]`.
    pub losses: NodeId,
    /// The network's outputs.
    pub outputs: NodeId,
    /// The figure of merit of each example.
    pub metric: Option<NodeId>,
    /// How each parameter starts.
    pub initialisers: Vec<Init>,
}

/// A mixture of the columns of the root of the output Hessian, by signs that are given anew.
#[derive(Clone, Copy, Debug)]
pub struct Probe {
    /// A leaf of signs, like the outputs.
    pub signs: NodeId,
    /// The mixture, like the outputs.
    pub root: NodeId,
    /// The residuals, like the outputs, where the model says what they are.
    pub residuals: Option<NodeId>,
}

impl Model {
    /// A model from a free-form function.
    ///
    /// ```
    /// use osculant::nn::{DataShape, Init, Model, Output, TargetShape};
    /// // Logistic regression with a bias, on 3 features.
    /// let shape = DataShape { features: 3, targets: TargetShape::Values(1) };
    /// let model = Model::new(shape, |scope| {
    ///     let z = scope.dense("line", scope.features(), 1, Init::Glorot);
    ///     let losses = (z.softplus() - scope.targets() * z).reshape(&[scope.rows()]);
    ///     Output { losses, outputs: z, metric: None }
    /// });
    /// assert_eq!(model.trace(5)?.graph.parameters().len(), 2);
    /// # Ok::<(), osculant::Error>(())
    /// ```
    pub fn new<F>(shape: impl Into<DataShape>, build: F) -> Self
    where
        F: for<'b> Fn(&Scope<'b>) -> Output<'b> + Send + Sync + 'static,
    {
        Self {
            shape: shape.into(),
            build: Arc::new(build),
            root: None,
            residuals: None,
        }
    }

    /// A model whose losses are the squares of residuals, `sum_j r_nj^2`, with the residuals `[rows, m]` as outputs: a differential equation,
    /// a fit by least squares.
    ///
    /// ```
    /// use osculant::nn::{DataShape, Init, Model, TargetShape};
    /// // -u'' = 1 inside of an interval (label 0), and u = 0 at its ends (label 1).
    /// let shape = DataShape { features: 1, targets: TargetShape::Classes(2) };
    /// let model = Model::least_squares(shape, |scope| {
    ///     let x = scope.features();
    ///     let u = scope.dense("last", scope.dense("first", x, 8, Init::Glorot).tanh(), 1, Init::Glorot);
    ///     scope.by_term(&[u.laplacian(x) + 1.0, u])
    /// });
    /// assert_eq!(model.trace(5)?.graph.parameters().len(), 4);
    /// # Ok::<(), osculant::Error>(())
    /// ```
    pub fn least_squares<F>(shape: impl Into<DataShape>, residuals: F) -> Self
    where
        F: for<'b> Fn(&Scope<'b>) -> Tensor<'b> + Send + Sync + 'static,
    {
        Self::new(shape, move |scope| {
            residuals_squared(scope, residuals(scope))
        })
        .with_curvature_root(|scope, _, signs| scope.constant(2.0f32.sqrt()) * signs)
        .with_residuals(|scope, residuals| scope.constant(2.0f32.sqrt()) * residuals)
    }

    /// Says how to mix the columns of a root of the Hessian of an example's loss in its outputs, given scope, outputs and signs: what
    /// methods with Kronecker factors need. For a loss of this crate that is [`Loss::curvature_root`](super::Loss::curvature_root).
    ///
    /// ```
    /// # use osculant::nn::{DataShape, Init, Loss, Model, Output, TargetShape};
    /// # let shape = DataShape { features: 3, targets: TargetShape::Values(1) };
    /// let model = Model::new(shape, |scope| {
    ///     let z = scope.dense("line", scope.features(), 1, Init::Glorot);
    ///     Output { losses: Loss::Poisson.apply(scope, z), outputs: z, metric: None }
    /// })
    /// .with_curvature_root(|scope, z, signs| Loss::Poisson.curvature_root(scope, z, signs));
    /// assert!(model.trace_with_probe(5)?.1.is_some());
    /// # Ok::<(), osculant::Error>(())
    /// ```
    #[must_use]
    pub fn with_curvature_root<F>(mut self, root: F) -> Self
    where
        F: for<'b> Fn(&Scope<'b>, Tensor<'b>, Tensor<'b>) -> Tensor<'b> + Send + Sync + 'static,
    {
        self.root = Some(Arc::new(root));
        self
    }

    /// Says which numbers `rho` the root of [`with_curvature_root`](Self::with_curvature_root) turns into the slope of an example's loss in
    /// its outputs, `S rho = dl/dz`, given scope and outputs: what methods with a row for each output solve for. For a loss of this crate that
    /// is [`Loss::residuals`](super::Loss::residuals).
    ///
    /// ```
    /// # use osculant::nn::{DataShape, Init, Loss, Model, Output, TargetShape};
    /// # let shape = DataShape { features: 3, targets: TargetShape::Values(1) };
    /// let loss = Loss::MeanSquaredError;
    /// let model = Model::new(shape, move |scope| {
    ///     let z = scope.dense("line", scope.features(), 1, Init::Glorot);
    ///     Output { losses: loss.apply(scope, z), outputs: z, metric: None }
    /// })
    /// .with_curvature_root(move |scope, z, signs| loss.curvature_root(scope, z, signs))
    /// .with_residuals(move |scope, z| loss.residuals(scope, z));
    /// assert!(model.trace_with_probe(5)?.1.is_some_and(|probe| probe.residuals.is_some()));
    /// # Ok::<(), osculant::Error>(())
    /// ```
    #[must_use]
    pub fn with_residuals<F>(mut self, residuals: F) -> Self
    where
        F: for<'b> Fn(&Scope<'b>, Tensor<'b>) -> Tensor<'b> + Send + Sync + 'static,
    {
        self.residuals = Some(Arc::new(residuals));
        self
    }

    /// Widths of features and targets.
    pub fn shape(&self) -> DataShape {
        self.shape
    }

    /// Writes the model out for `rows` examples. Its inputs are, as far as there are any: `features` and `targets`.
    ///
    /// # Errors
    /// The first mistake in the model's function, or [`Error::Shape`] when it does not return one loss per example.
    pub fn trace(&self, rows: usize) -> Result<Traced> {
        Ok(self.written(rows, None)?.0)
    }

    /// The same, with the mixture of the root of the output Hessian, where the model says how to make it.
    ///
    /// # Errors
    /// As [`trace`](Self::trace); [`Error::Shape`] where the mixture, or the residuals, are not like the outputs.
    pub fn trace_with_probe(&self, rows: usize) -> Result<(Traced, Option<Probe>)> {
        self.written(rows, self.root.as_deref())
    }

    fn written(&self, rows: usize, root: Option<&Root>) -> Result<(Traced, Option<Probe>)> {
        if rows == 0 {
            return Err(Error::Data {
                what: "batch".into(),
                message: "it is empty".into(),
            });
        }
        let builder = Builder::new();
        let (losses, outputs, metric, initialisers, probe) = {
            let features = (self.shape.features > 0)
                .then(|| builder.input("features", &[rows, self.shape.features]));
            let targets = match self.shape.targets {
                TargetShape::Classes(classes) => {
                    Some(builder.indices_below("targets", &[rows], classes))
                }
                TargetShape::Values(width) if width > 0 => {
                    Some(builder.input("targets", &[rows, width]))
                }
                _ => None,
            };
            let scope = Scope {
                builder: &builder,
                rows,
                shape: self.shape,
                features,
                targets,
                initialisers: RefCell::default(),
            };
            let output = (self.build)(&scope);
            let returned = [Some(output.losses), Some(output.outputs), output.metric];
            if returned
                .iter()
                .flatten()
                .any(|tensor| !tensor.is_of(&builder))
            {
                return Err(another_builder());
            }
            for (name, tensor) in [("losses", Some(output.losses)), ("metric", output.metric)] {
                if let Some(tensor) = tensor
                    && !builder.has_failed()
                    && tensor.shape() != [rows]
                {
                    scope.fail(Error::Shape {
                        node: format!("the model's {name}"),
                        message: format!(
                            "have shape {:?}, expected [{rows}]: one number per example",
                            tensor.shape()
                        ),
                    });
                }
            }
            let probe = root.map(|root| {
                let shape = output.outputs.shape();
                let signs = builder.direction(&shape);
                let root = root(&scope, output.outputs, signs);
                if root.shape() != shape && !builder.has_failed() {
                    scope.fail(Error::Shape {
                        node: "the model's curvature root".into(),
                        message: format!(
                            "has shape {:?}, expected {shape:?}, that of the outputs",
                            root.shape()
                        ),
                    });
                }
                let residuals = self.residuals.as_ref();
                let residuals = residuals.map(|of| of(&scope, output.outputs));
                if let Some(residuals) = residuals
                    && residuals.shape() != shape
                    && !builder.has_failed()
                {
                    scope.fail(Error::Shape {
                        node: "the model's residuals".into(),
                        message: format!(
                            "have shape {:?}, expected {shape:?}, that of the outputs",
                            residuals.shape()
                        ),
                    });
                }
                (signs, root, residuals)
            });
            let of_others = |tensor: Tensor<'_>| !tensor.is_of(&builder);
            if probe.is_some_and(|(_, root, residuals)| {
                of_others(root) || residuals.is_some_and(of_others)
            }) {
                return Err(another_builder());
            }
            let probe = probe.map(|(signs, root, residuals)| Probe {
                signs: signs.id(),
                root: root.id(),
                residuals: residuals.map(Tensor::id),
            });
            let losses = output.losses.named("losses").id();
            let outputs = output.outputs.named("outputs").id();
            (
                losses,
                outputs,
                output.metric.map(|m| m.named("metric").id()),
                scope.initialisers.into_inner(),
                probe,
            )
        };
        let graph = builder.finish()?;
        debug_assert!(
            graph
                .inputs()
                .iter()
                .all(|i| graph.node(i.node).dtype != DType::U32 || i.name == "targets")
        );
        let traced = Traced {
            graph,
            losses,
            outputs,
            metric,
            initialisers,
        };
        Ok((traced, probe))
    }
}
