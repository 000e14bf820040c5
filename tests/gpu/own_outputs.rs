//! Gauss-Newton products of a caller's network, by differences of its outputs.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use crate::harness::{GpuTest, Outcome};
use crate::reference::{batch_for, flat, relative_error};
use osculant::data::{Batch, Targets, digits};
use osculant::gpu::{Gpu, Slice, Work};
use osculant::graph::derivatives::{gradient, pull_back};
use osculant::graph::executable::DeviceLeaves;
use osculant::graph::{DType, Executable, NodeId};
use osculant::nn::{Activation, DataShape, Init, Loss, Model, Sequential, TargetShape};
use osculant::objective::{
    Curvature, Curved, GraphObjective, OutputHessian, OwnKernels, OwnOutputs, OwnTensor,
    QuadraticRequest, Slot,
};
use osculant::optim::{NewtonCg, NewtonCgOptions, Optimizer, Recordable};
use osculant::random::Philox;
use osculant::vector::Vector;
use rand::RngExt;

pub(crate) fn tests() -> Vec<GpuTest> {
    gpu_tests![
        products_are_near_exact_ones,
        work_of_the_callers_may_be_the_hessian,
        products_on_one_side_cost_a_gradient,
        newton_steps_as_with_exact_products,
        outputs_are_checked,
    ]
}

type Any = Box<dyn std::error::Error>;

/// A network of a caller: passes of its own, here made by programs of a graph, over buffers of its own.
struct Caller {
    parameters: Vec<Slice>,
    gradients: Vec<Slice>,
    outputs: Slice,
    cotangent: Slice,
    loss: Slice,
    /// Loss and gradient, outputs, and the vector-Jacobian product.
    works: [Work; 3],
    shape: [usize; 2],
    tensors: Vec<(String, Vec<usize>)>,
}

impl Caller {
    fn new(gpu: &Gpu, model: &Model, batch: &Batch) -> Result<Arc<Self>, Any> {
        let rows = batch.len();
        let traced = model.trace(rows)?;
        let (mut graph, outputs) = (traced.graph, traced.outputs);
        let width = graph.shape(outputs)[1];
        let leaves: Vec<(String, NodeId)> = graph
            .parameters()
            .iter()
            .map(|leaf| (leaf.name.clone(), leaf.node))
            .collect();
        let nodes: Vec<NodeId> = leaves.iter().map(|(_, node)| *node).collect();
        let tensors: Vec<(String, Vec<usize>)> = leaves
            .iter()
            .map(|(name, node)| (name.clone(), graph.shape(*node).to_vec()))
            .collect();
        let like = |what: &str| -> Result<Vec<Slice>, Any> {
            let slices = tensors
                .iter()
                .map(|(name, shape)| gpu.buffer(&format!("{what} {name}"), shape.iter().product()));
            Ok(slices.collect::<osculant::Result<_>>()?)
        };
        let (parameters, gradients) = (like("own")?, like("own gradient of")?);
        let features = gpu.buffer("features", batch.features.len())?;
        gpu.upload(&features, 0, &batch.features)?;
        let targets = match &batch.targets {
            Targets::Classes { labels, .. } => {
                let slice = gpu.buffer("targets", labels.len())?;
                gpu.upload(&slice, 0, labels)?;
                slice
            }
            Targets::Values { values, .. } => {
                let slice = gpu.buffer("targets", values.len())?;
                gpu.upload(&slice, 0, values)?;
                slice
            }
            Targets::Inputs => features.clone(),
        };
        let (z, u) = (
            gpu.buffer("own outputs", rows * width)?,
            gpu.buffer("own cotangent", rows * width)?,
        );
        let loss = gpu.buffer("own loss", 1)?;
        // One graph for all three, which share nothing else.
        let sum = graph.sum(traced.losses, &[0])?;
        let share = graph.constant(1.0 / rows as f32, &[1]);
        let mean = graph.binary(osculant::graph::Binary::Mul, share, sum)?;
        let slopes = gradient(&mut graph, mean, &nodes)?;
        let cotangent = graph.input("cotangent", &[rows, width], DType::F32)?;
        let pulled = pull_back(&mut graph, &[(outputs, cotangent)], &nodes)?;
        let pulled: Vec<NodeId> = pulled.into_iter().flatten().collect();
        let leaves = DeviceLeaves {
            parameters: parameters.clone(),
            inputs: vec![features, targets, u.clone()],
            ..DeviceLeaves::default()
        };
        let work = |results: Vec<(NodeId, Slice)>| -> Result<Work, Any> {
            Ok(Executable::new(gpu, &graph, &leaves, &results)?
                .linearize
                .into())
        };
        let to = |nodes: &[NodeId]| -> Vec<(NodeId, Slice)> {
            nodes
                .iter()
                .copied()
                .zip(gradients.iter().cloned())
                .collect()
        };
        let mut first = to(&slopes);
        first.push((mean, loss.clone()));
        let works = [
            work(first)?,
            work(vec![(outputs, z.clone())])?,
            work(to(&pulled))?,
        ];
        Ok(Arc::new(Self {
            parameters,
            gradients,
            outputs: z,
            cotangent: u,
            loss,
            works,
            shape: [rows, width],
            tensors,
        }))
    }

    /// With this work for loss and gradient, and no outputs.
    fn bare(&self, gpu: &Gpu, both: Work) -> Result<OwnKernels, Any> {
        let place = |slice: &'_ Slice| (slice.buffer().clone(), slice.offset_bytes());
        let places: Vec<_> = self.parameters.iter().map(place).collect();
        let slopes: Vec<_> = self.gradients.iter().map(place).collect();
        let tensors: Vec<OwnTensor<'_>> = (0..self.tensors.len())
            .map(|i| OwnTensor {
                name: &self.tensors[i].0,
                shape: &self.tensors[i].1,
                parameters: (&places[i].0, places[i].1),
                gradient: (&slopes[i].0, slopes[i].1),
            })
            .collect();
        Ok(OwnKernels::new(
            gpu,
            &tensors,
            (self.loss.buffer(), 0),
            both,
        )?)
    }

    fn own_outputs(&self, hessian: OutputHessian) -> OwnOutputs<'_> {
        OwnOutputs {
            shape: self.shape,
            outputs: (self.outputs.buffer(), 0),
            cotangent: (self.cotangent.buffer(), 0),
            hessian,
        }
    }

    fn objective(&self, gpu: &Gpu, hessian: OutputHessian) -> Result<OwnKernels, Any> {
        let [both, forward, backward] = self.works.clone();
        let own = self.bare(gpu, both)?;
        Ok(own.with_outputs(self.own_outputs(hessian), forward, backward)?)
    }

    fn start(&self, gpu: &Gpu, theta: &Vector) -> Outcome {
        for (slice, tensor) in self.parameters.iter().zip(theta.read(gpu)?) {
            gpu.upload(slice, 0, &tensor)?;
        }
        Ok(())
    }

    /// That of one of our losses.
    fn hessian(&self, loss: Loss) -> OutputHessian {
        let factor = 1.0 / self.shape[0] as f32;
        OutputHessian::Of { loss, factor }
    }
}

fn network(widths: &[usize], shape: impl Into<DataShape>, outputs: usize, loss: Loss) -> Model {
    let layers = widths.iter().fold(Sequential::new(), |layers, &width| {
        layers.dense(width).activation(Activation::Tanh)
    });
    layers.dense(outputs).model(shape, loss)
}

/// The networks of the digits and of Fashion-MNIST, and small ones with every loss.
fn subjects() -> Result<Vec<(Model, Batch, Loss)>, Any> {
    let data = digits()?;
    let softmax = Loss::SoftmaxCrossEntropy;
    let model = network(&[64, 32], &data, 10, softmax);
    let batch = data.batch(&(0..256).collect::<Vec<_>>())?;
    let mut subjects = vec![(model, batch, softmax)];
    let of = |features, targets| DataShape { features, targets };
    let model = network(&[128], of(784, TargetShape::Classes(10)), 10, softmax);
    let mut batch = batch_for(&model, 64, 1);
    batch.features.iter_mut().for_each(|x| *x = 0.5 * x.abs());
    subjects.push((model, batch, softmax));
    for loss in [
        Loss::BinaryCrossEntropy,
        Loss::MeanSquaredError,
        Loss::Poisson,
    ] {
        let model = network(&[6], of(5, TargetShape::Values(3)), 3, loss);
        let mut batch = batch_for(&model, 24, 2);
        if let Targets::Values { values, .. } = &mut batch.targets {
            values.iter_mut().for_each(|t| *t = t.abs().min(1.0));
        }
        subjects.push((model, batch, loss));
    }
    Ok(subjects)
}

const GAUSS_NEWTON: QuadraticRequest = {
    QuadraticRequest {
        curvature: Curvature::GaussNewton,
        fisher_diagonal: false,
        block: 0,
        losses: false,
    }
};

fn random(theta: &Vector, seed: u64, scale: f32) -> Vec<Vec<f32>> {
    let mut random = Philox::new(seed, 1 << 41);
    let entries = theta.layout().entries().iter();
    entries
        .map(|entry| {
            (0..entry.elements())
                .map(|_| scale * random.random_range(-1.0f32..1.0))
                .collect()
        })
        .collect()
}

fn product<O: Curved>(
    gpu: &Gpu,
    objective: &mut O,
    theta: &Vector,
    batch: &O::Batch,
    v: &[Vec<f32>],
) -> Result<[Vec<f64>; 2], Any> {
    let quadratic = objective.load_quadratic(Slot::default(), theta, batch, GAUSS_NEWTON)?;
    quadratic.direction.write(gpu, v)?;
    gpu.run([&quadratic.linearize, &quadratic.multiply])?;
    let gradient = flat(&quadratic.gradient.read(gpu)?);
    Ok([flat(&quadratic.product.read(gpu)?), gradient])
}

/// Along random directions of three lengths and along the gradient: within a thousandth.
fn products_are_near_exact_ones(gpu: &Gpu) -> Outcome {
    for (model, batch, loss) in subjects()? {
        let mut exact = GraphObjective::new(gpu, model.clone())?;
        let caller = Caller::new(gpu, &model, &batch)?;
        let own = || caller.objective(gpu, caller.hessian(loss));
        near(gpu, &mut exact, (&caller, own()?), (&batch, loss), 1e-3)?;
        let one_sided = own()?.with_one_sided_outputs()?;
        near(gpu, &mut exact, (&caller, one_sided), (&batch, loss), 3e-3)?;
    }
    Ok(())
}

fn near(
    gpu: &Gpu,
    exact: &mut GraphObjective,
    (caller, mut own): (&Caller, OwnKernels),
    (batch, loss): (&Batch, Loss),
    bound: f64,
) -> Outcome {
    for seed in 0..2 {
        let theta = exact.initial_parameters(seed)?;
        caller.start(gpu, &theta)?;
        gpu.run([own.gather()])?;
        let at = own.theta().clone();
        let gradient = exact.load_quadratic(Slot::default(), &theta, batch, GAUSS_NEWTON)?;
        gpu.run([&gradient.linearize])?;
        let mut directions = vec![gradient.gradient.read(gpu)?];
        directions.extend([1.0, 1e-6, 1e6].map(|scale| random(&theta, seed + 5, scale)));
        for (number, v) in directions.iter().enumerate() {
            let [expected, slopes] = product(gpu, exact, &theta, batch, v)?;
            let [found, own_slopes] = product(gpu, &mut own, &at, &(), v)?;
            let error = relative_error(&found, &expected);
            if std::env::var_os("OSCULANT_TEST_FIGURES").is_some() {
                eprintln!(
                    "{loss:?} of {}, bound {bound:.0e}, direction {number}: {error:.1e}",
                    found.len()
                );
            }
            assert!(error < bound, "{loss:?}, direction {number}: {error:e}");
            let error = relative_error(&own_slopes, &slopes);
            assert!(error < 1e-5, "{loss:?}: {error:e}");
        }
        gpu.run([own.scatter()])?;
    }
    let found = own.check(Curvature::GaussNewton)?;
    assert!(found.passed(), "{loss:?}: {found}");
    Ok(())
}

/// Of the squared error it is a factor: work that multiplies with that gives the bits of ours.
fn work_of_the_callers_may_be_the_hessian(gpu: &Gpu) -> Outcome {
    let shape = DataShape {
        features: 4,
        targets: TargetShape::Values(2),
    };
    let model = network(&[5], shape, 2, Loss::MeanSquaredError);
    let batch = batch_for(&model, 16, 1);
    let caller = Caller::new(gpu, &model, &batch)?;
    // 2 / 2 outputs / 16 rows: a power of two.
    let scaled = Work::hosted({
        let cotangent = caller.cotangent.clone();
        move |gpu| {
            let mut read = gpu.read(&[&cotangent])?.concat();
            read.iter_mut().for_each(|x| *x *= 0.0625);
            gpu.upload(&cotangent, 0, &read)
        }
    });
    let theta = GraphObjective::new(gpu, model)?.initial_parameters(3)?;
    let v = random(&theta, 1, 1.0);
    let mut found = Vec::new();
    for hessian in [
        caller.hessian(Loss::MeanSquaredError),
        OutputHessian::Own(scaled),
    ] {
        let mut own = caller.objective(gpu, hessian)?;
        caller.start(gpu, &theta)?;
        gpu.run([own.gather()])?;
        let at = own.theta().clone();
        found.push(product(gpu, &mut own, &at, &(), &v)?);
    }
    assert_eq!(found[0], found[1]);
    Ok(())
}

/// On one side a product has one forward pass and one backward pass, and where the gradient leaves the outputs a step has no other.
fn products_on_one_side_cost_a_gradient(gpu: &Gpu) -> Outcome {
    let (model, batch, loss) = subjects()?.swap_remove(2);
    let caller = Caller::new(gpu, &model, &batch)?;
    let theta = GraphObjective::new(gpu, model)?.initial_parameters(3)?;
    caller.start(gpu, &theta)?;
    let counted = |work: &Work| {
        let count = Arc::new(AtomicUsize::new(0));
        let counting = Arc::clone(&count);
        let mut counted = Work::passes(move |_| {
            counting.fetch_add(1, Ordering::Relaxed);
        });
        counted.append(work.clone());
        (counted, count)
    };
    let [both, forward, backward] = caller.works.clone();
    let ((forward, forwards), (backward, backwards)) = (counted(&forward), counted(&backward));
    let mut with_outputs = both;
    with_outputs.append(caller.works[1].clone());
    let mut found = Vec::new();
    for (gradient, in_gradient) in [(caller.works[0].clone(), false), (with_outputs, true)] {
        let own = caller.bare(gpu, gradient)?;
        let outputs = caller.own_outputs(caller.hessian(loss));
        let own = own.with_outputs(outputs, forward.clone(), backward.clone())?;
        let own = own.with_one_sided_outputs()?;
        let mut own = match in_gradient {
            true => own.with_outputs_of_gradient()?,
            false => own,
        };
        gpu.run([own.gather()])?;
        let at = own.theta().clone();
        found.push(product(gpu, &mut own, &at, &(), &random(&theta, 1, 1.0))?);
        gpu.run([own.scatter()])?;
        let counts = [&forwards, &backwards].map(|count| count.swap(0, Ordering::Relaxed));
        assert_eq!(counts, [2 - usize::from(in_gradient), 1]);
    }
    assert_eq!(found[0], found[1]);
    Ok(())
}

/// With the damping that goes with Gauss-Newton, also recorded: the loss falls as far as with exact products, within a twentieth.
fn newton_steps_as_with_exact_products(gpu: &Gpu) -> Outcome {
    let (model, batch, loss) = subjects()?.swap_remove(0);
    let mut exact = GraphObjective::new(gpu, model.clone())?;
    let theta = exact.initial_parameters(0)?;
    let caller = Caller::new(gpu, &model, &batch)?;
    let mut own = caller.objective(gpu, caller.hessian(loss))?;
    caller.start(gpu, &theta)?;
    let newton = || NewtonCg::new(NewtonCgOptions::default());
    let (mut one, mut other) = (newton()?, newton()?);
    let mut losses = [0.0; 2];
    for _ in 0..12 {
        losses[0] = one.step(&mut exact, &theta, &batch)?.loss_before;
        losses[1] = own.step(&mut other)?.loss_before;
    }
    assert!(
        losses[0] < 0.5 && (losses[1] / losses[0] - 1.0).abs() < 0.05,
        "{losses:?}"
    );
    let loaded = osculant::objective::Objective::load(&mut own, Slot::default(), &())?;
    let at = own.theta().clone();
    newton()?.recorded(&mut own, &at, &loaded)?;
    Ok(())
}

fn outputs_are_checked(gpu: &Gpu) -> Outcome {
    let shape = DataShape {
        features: 2,
        targets: TargetShape::Values(1),
    };
    let model = Model::new(shape, |scope| {
        let z = scope.dense("line", scope.features(), 1, Init::Glorot);
        osculant::nn::Output {
            losses: Loss::MeanSquaredError.apply(scope, z),
            outputs: z,
            metric: None,
        }
    });
    let caller = Caller::new(gpu, &model, &batch_for(&model, 8, 1))?;
    let with = |change: fn(&mut OwnOutputs<'_>, &Caller)| -> Result<String, Any> {
        let own = caller.objective(gpu, caller.hessian(Loss::MeanSquaredError))?;
        let mut outputs = OwnOutputs {
            shape: caller.shape,
            outputs: (caller.outputs.buffer(), 0),
            cotangent: (caller.cotangent.buffer(), 0),
            hessian: caller.hessian(Loss::MeanSquaredError),
        };
        change(&mut outputs, &caller);
        let refused = own.with_outputs(outputs, Work::new(), Work::new());
        Ok(refused.err().ok_or("was taken")?.to_string())
    };
    let factor = |outputs: &mut OwnOutputs<'_>, _: &Caller| {
        outputs.hessian = OutputHessian::Of {
            loss: Loss::Poisson,
            factor: 0.0,
        };
    };
    assert!(with(factor)?.contains("factor"));
    assert!(with(|outputs, _| outputs.shape = [0, 1])?.contains("shape"));
    assert!(with(|outputs, _| outputs.shape = [1 << 20, 64])?.contains("outputs"));
    assert!(with(|outputs, _| outputs.outputs.1 = 2)?.contains("multiples of 4"));
    Ok(())
}
