//! Gauss-Newton products of a caller's network, by differences of its outputs.

use super::places::{Place, scatter};
use super::{Buffer, gather};
use crate::error::Result;
use crate::gpu::{Gpu, Recording, Slice, Work};
use crate::graph::derivatives::{gradient, hessian_product};
use crate::graph::executable::DeviceLeaves;
use crate::graph::{Binary, Executable};
use crate::kernels::vector::combine;
use crate::nn::{DataShape, Loss, Model, Output, TargetShape};
use crate::objective::displacement::Displacement;
use crate::objective::quadratic::Quadratic;
use crate::options::require;
use crate::vector::Vector;

/// The outputs of a caller's network, and how the loss depends on them.
#[derive(Clone, Debug)]
pub struct OwnOutputs<'a> {
    /// Rows, and outputs of each.
    pub shape: [usize; 2],
    /// Where the caller's forward pass leaves them: f32, row-major.
    pub outputs: Buffer<'a>,
    /// Where the caller's backward pass reads a cotangent of the same shape.
    pub cotangent: Buffer<'a>,
    /// The Hessian of the loss as a function of the outputs.
    pub hessian: OutputHessian,
}

/// The Hessian of a loss as a function of the outputs.
#[derive(Clone, Debug)]
pub enum OutputHessian {
    /// That of `factor` times the sum over rows of one of our losses; a mean over rows has the factor `1 / rows`. None of them needs the
    /// targets: curvatures depend on the outputs alone.
    Of {
        /// The loss of a row.
        loss: Loss,
        /// What it counts.
        factor: f32,
    },
    /// Work of the caller's that multiplies what is in the place of the cotangent with the Hessian there, at the parameters for which the
    /// forward pass ran last.
    Own(Work),
}

/// What products are made of.
#[derive(Debug)]
pub(super) struct Outputs {
    shape: [usize; 2],
    outputs: Place,
    pub(super) cotangent: Place,
    hessian: OutputHessian,
    forward: Work,
    backward: Work,
    pub(super) ways: Ways,
}

/// How outputs are come by.
#[derive(Debug, Default)]
pub(super) struct Ways {
    /// Whether the work of the gradient leaves them.
    pub(super) with_gradient: bool,
    /// Whether products are made at one point beside the parameters.
    pub(super) one_sided: bool,
}

/// Where the tensors of the caller are, and our vectors.
pub(super) struct Between<'a> {
    pub(super) parameters: &'a [Place],
    pub(super) gradients: &'a [Place],
    pub(super) at: &'a Vector,
    pub(super) base: &'a Quadratic,
    /// Length of displacements.
    pub(super) length: f32,
}

impl Outputs {
    pub(super) fn new(
        gpu: &Gpu,
        own: OwnOutputs<'_>,
        [forward, backward]: [Work; 2],
    ) -> Result<Self> {
        let [rows, width] = own.shape;
        require(
            rows > 0 && width > 0,
            "shape",
            "a network has rows and outputs: one of each at least",
        )?;
        if let OutputHessian::Of { factor, .. } = own.hessian {
            require(
                factor > 0.0 && factor.is_finite(),
                "factor",
                "what a row counts is a number above 0, for a mean over rows 1 / rows",
            )?;
        }
        let len = rows.saturating_mul(width);
        Ok(Self {
            shape: own.shape,
            outputs: Place::new(gpu, "outputs", own.outputs, len)?,
            cotangent: Place::new(gpu, "cotangent of the outputs", own.cotangent, len)?,
            hessian: own.hessian,
            forward,
            backward,
            ways: Ways::default(),
        })
    }

    /// Bytes of what products need beside the vectors of a quadratic.
    pub(super) fn bytes(&self, vector: u64) -> u64 {
        let [rows, width] = self.shape;
        20 * (rows * width) as u64 + vector
    }

    /// What comes after the gradient, and what makes a product:
    ///
    /// ```text
    /// t = (z(theta + e v) - z(theta - e v)) / 2e,   product = J(theta)^T H t         on both sides
    /// t = (z(theta + e v) - z(theta)) / e,          product = J(theta + e v)^T H t   on one side
    /// ```
    pub(super) fn record(&self, gpu: &Gpu, between: &Between<'_>) -> Result<[Work; 2]> {
        let Between {
            parameters,
            gradients,
            at,
            base,
            length,
        } = *between;
        let new = |label: &str| gpu.buffer(label, self.shape.iter().product());
        let (here, ahead, behind) = (
            new("outputs")?,
            new("outputs ahead")?,
            new("outputs behind")?,
        );
        let (moved, cotangent) = (new("tangent of the outputs")?, new("cotangent")?);
        let (once, each) = self.hessian(gpu, [&here, &moved, &cotangent])?;
        let mut linearize = match self.ways.with_gradient {
            true => Work::new(),
            false => self.forward.clone(),
        };
        self.outputs.copy_to(linearize.tail(), &here)?;
        linearize.append(once);

        let displacement = Displacement::new(gpu, at, &base.direction)?;
        let mut multiply = Work::new();
        let point = &displacement.point;
        if self.ways.one_sided {
            displacement.ahead(gpu, multiply.tail(), one_sided(length))?;
            self.evaluate(&mut multiply, parameters, point, Some(&ahead))?;
            displacement.difference(gpu, multiply.tail(), &behind, [&ahead, &here])?;
            // That was over 2e.
            let twice = gpu.buffer("two ones", 2)?;
            gpu.upload(&twice, 0, &[1.0f32, 1.0])?;
            combine(gpu, multiply.tail(), &moved, &behind, &behind, (&twice, 0))?;
        } else {
            displacement.ahead(gpu, multiply.tail(), length)?;
            self.evaluate(&mut multiply, parameters, point, Some(&ahead))?;
            displacement.behind(gpu, multiply.tail())?;
            self.evaluate(&mut multiply, parameters, point, Some(&behind))?;
            displacement.difference(gpu, multiply.tail(), &moved, [&ahead, &behind])?;
            // What the backward pass finds is of the parameters themselves again.
            self.evaluate(&mut multiply, parameters, at, None)?;
        }
        match &self.hessian {
            OutputHessian::Of { .. } => {
                multiply.append(each);
                self.cotangent.copy_from(multiply.tail(), &cotangent)?;
            }
            OutputHessian::Own(work) => {
                self.cotangent.copy_from(multiply.tail(), &moved)?;
                multiply.append(work.clone());
            }
        }
        multiply.append(self.backward.clone());
        gather(multiply.tail(), gradients, &base.product)?;
        Ok([linearize, multiply])
    }

    /// The outputs at a vector, copied where there is a place for them.
    fn evaluate(
        &self,
        work: &mut Work,
        parameters: &[Place],
        at: &Vector,
        to: Option<&Slice>,
    ) -> Result<()> {
        scatter(work.tail(), parameters, at)?;
        work.append(self.forward.clone());
        match to {
            Some(to) => self.outputs.copy_to(work.tail(), to),
            None => Ok(()),
        }
    }

    /// What runs once at some outputs, and what then multiplies a tangent with the Hessian there; nothing where the caller does.
    fn hessian(
        &self,
        gpu: &Gpu,
        [outputs, tangent, product]: [&Slice; 3],
    ) -> Result<(Recording, Recording)> {
        let OutputHessian::Of { loss, factor } = self.hessian else {
            return Ok(Default::default());
        };
        let [rows, width] = self.shape;
        let targets = match loss {
            Loss::SoftmaxCrossEntropy => TargetShape::Classes(width),
            _ => TargetShape::Values(width),
        };
        let shape = DataShape {
            features: width,
            targets,
        };
        // A model without parameters, whose features are the outputs.
        let model = Model::new(shape, move |scope| {
            let outputs = scope.features();
            Output {
                losses: loss.apply(scope, outputs),
                outputs,
                metric: None,
            }
        });
        let traced = model.trace(rows)?;
        let (mut graph, z) = (traced.graph, traced.outputs);
        let sum = graph.sum(traced.losses, &[0])?;
        let factor = graph.constant(factor, &[1]);
        let total = graph.binary(Binary::Mul, factor, sum)?;
        let slopes = gradient(&mut graph, total, &[z])?;
        let direction = graph.direction(&self.shape);
        let products = hessian_product(&mut graph, &slopes, &[z], &[direction])?;
        let no_targets = |name: &str, len: usize| match name {
            "features" => Ok(outputs.clone()),
            _ => gpu.buffer("no targets", len),
        };
        let inputs = graph.inputs().iter().map(|leaf| {
            let len = graph.shape(leaf.node).iter().product();
            no_targets(&leaf.name, len)
        });
        let leaves = DeviceLeaves {
            inputs: inputs.collect::<Result<_>>()?,
            directions: vec![(direction, tangent.clone())],
            ..DeviceLeaves::default()
        };
        let results = [(products[0], product.clone())];
        let executable = Executable::new(gpu, &graph, &leaves, &results)?;
        Ok((executable.linearize, executable.product))
    }
}

/// The length of a one-sided displacement, from that of one on both sides. With rounding errors `r` the best are of the size of `r^(1/2)` and
/// `(3 r)^(1/3)` where outputs and derivatives are of size 1. This is three times the former: of the factors 1 to 4 the one whose largest error is
/// smallest on the networks of the tests. There rounding errors count along random directions, and what a difference leaves out along the
/// gradient.
fn one_sided(length: f32) -> f32 {
    (3.0 * length.powi(3)).sqrt()
}
