//! What a model's loss, gradient and products are in the f64 twin, and the same on a device.
//!
//! The `l2` term and the Fisher diagonal are computed here without the objective's graph: `l2/2 |theta|^2` by hand, the diagonal from the
//! gradient of each example by itself.

#![allow(dead_code, reason = "not every test target uses everything")]

pub(crate) mod conjugate_gradients;
pub(crate) mod examples;

use osculant::Result;
use osculant::data::{Batch, Targets};
use osculant::gpu::Gpu;
use osculant::graph::derivatives::{gauss_newton_product, gradient, hessian_product};
use osculant::graph::per_example::square_sums;
use osculant::graph::twin::{Leaves, evaluate};
use osculant::graph::{Binary, DType, Graph, NodeId};
use osculant::nn::{Model, TargetShape};
use osculant::objective::{Curvature, Curved, GraphObjective, Objective, QuadraticRequest, Slot};
use osculant::random::Philox;
use osculant::vector::Vector;
use rand::RngExt;

/// A vector in parameter space, one list per tensor.
pub(crate) type Tensors = Vec<Vec<f64>>;

/// A model on a batch, in f64.
pub(crate) struct Reference {
    pub(crate) graph: Graph,
    inputs: Vec<Vec<f64>>,
    weights: Vec<f64>,
    weights_input: usize,
    directions: Vec<NodeId>,
    loss: NodeId,
    gradient: Vec<NodeId>,
    hessian: Vec<NodeId>,
    gauss_newton: Vec<NodeId>,
    l2: f64,
}

/// Everything about a quadratic, tensors one after another.
#[derive(Clone, Debug)]
pub(crate) struct Answers {
    pub(crate) value: f64,
    pub(crate) gradient: Vec<f64>,
    pub(crate) hessian: Vec<f64>,
    pub(crate) gauss_newton: Vec<f64>,
    pub(crate) fisher: Vec<f64>,
}

impl Answers {
    /// Results with their names.
    pub(crate) fn named(&self) -> [(&'static str, Vec<f64>); 5] {
        [
            ("loss", vec![self.value]),
            ("gradient", self.gradient.clone()),
            ("Hessian product", self.hessian.clone()),
            ("Gauss-Newton product", self.gauss_newton.clone()),
            ("empirical Fisher diagonal", self.fisher.clone()),
        ]
    }
}

impl Reference {
    pub(crate) fn new(model: &Model, batch: &Batch, l2: f32) -> Result<Self> {
        let traced = model.trace(batch.len())?;
        let mut graph = traced.graph;
        let weights = graph.input("weights", &[batch.len()], DType::F32)?;
        let weighted = graph.binary(Binary::Mul, weights, traced.losses)?;
        let loss = graph.sum(weighted, &[0])?;
        let wrt: Vec<NodeId> = graph.parameters().iter().map(|p| p.node).collect();
        let directions: Vec<NodeId> = wrt
            .iter()
            .map(|&p| {
                let shape = graph.shape(p).clone();
                graph.direction(&shape)
            })
            .collect();
        let gradients = gradient(&mut graph, loss, &wrt)?;
        let hessian = hessian_product(&mut graph, &gradients, &wrt, &directions)?;
        let gauss_newton =
            gauss_newton_product(&mut graph, loss, traced.outputs, &wrt, &directions)?;
        let weight_values = wide(&batch.weights);
        let inputs: Vec<Vec<f64>> = graph
            .inputs()
            .iter()
            .map(|leaf| match (leaf.name.as_str(), &batch.targets) {
                ("features", _) => wide(&batch.features),
                ("targets", Targets::Classes { labels, .. }) => {
                    labels.iter().copied().map(f64::from).collect()
                }
                ("targets", Targets::Values { values, .. }) => wide(values),
                _ => weight_values.clone(),
            })
            .collect();
        let weights_input = graph
            .inputs()
            .iter()
            .position(|leaf| leaf.name == "weights")
            .unwrap_or(0);
        Ok(Self {
            graph,
            inputs,
            weights: weight_values,
            weights_input,
            directions,
            loss,
            gradient: gradients,
            hessian,
            gauss_newton,
            l2: f64::from(l2),
        })
    }

    fn leaves(&self, theta: &Tensors, v: &Tensors, weights: &[f64]) -> Leaves {
        let mut inputs = self.inputs.clone();
        inputs[self.weights_input] = weights.to_vec();
        Leaves {
            parameters: theta.clone(),
            inputs,
            directions: self.directions.iter().copied().zip(v.clone()).collect(),
        }
    }

    /// The gradient with these weights instead of the batch's, without `l2`.
    fn data_gradient(&self, theta: &Tensors, weights: &[f64]) -> Result<Vec<f64>> {
        Ok(evaluate(
            &self.graph,
            &self.leaves(theta, &Vec::new(), weights),
            &self.gradient,
        )?
        .concat())
    }

    /// The loss.
    pub(crate) fn value(&self, theta: &Tensors) -> Result<f64> {
        let leaves = self.leaves(theta, &Vec::new(), &self.weights);
        let loss = evaluate(&self.graph, &leaves, &[self.loss])?[0][0];
        Ok(loss + 0.5 * self.l2 * dot(&theta.concat(), &theta.concat()))
    }

    /// The gradient.
    pub(crate) fn gradient(&self, theta: &Tensors) -> Result<Vec<f64>> {
        let data = self.data_gradient(theta, &self.weights)?;
        Ok(add(&data, self.l2, &theta.concat()))
    }

    /// Everything, products with `v`.
    pub(crate) fn answers(&self, theta: &Tensors, v: &Tensors) -> Result<Answers> {
        let leaves = self.leaves(theta, v, &self.weights);
        let hessian = evaluate(&self.graph, &leaves, &self.hessian)?.concat();
        let gauss_newton = evaluate(&self.graph, &leaves, &self.gauss_newton)?.concat();
        Ok(Answers {
            value: self.value(theta)?,
            gradient: self.gradient(theta)?,
            hessian: add(&hessian, self.l2, &v.concat()),
            gauss_newton: add(&gauss_newton, self.l2, &v.concat()),
            fisher: self.fisher_by_example(theta)?,
        })
    }

    /// `sum_n w_n g_n * g_n` from the gradient of each example by itself.
    pub(crate) fn fisher_by_example(&self, theta: &Tensors) -> Result<Vec<f64>> {
        let mut sum: Vec<f64> = vec![0.0; theta.iter().map(Vec::len).sum()];
        for (n, &weight) in self.weights.iter().enumerate() {
            let mut only = vec![0.0; self.weights.len()];
            only[n] = 1.0;
            for (s, g) in sum.iter_mut().zip(self.data_gradient(theta, &only)?) {
                *s += weight * g * g;
            }
        }
        Ok(sum)
    }

    /// The same from the transformation of the graph.
    pub(crate) fn fisher_by_graph(&self, theta: &Tensors) -> Result<Vec<f64>> {
        let mut graph = self.graph.clone();
        let weights = graph.inputs()[self.weights_input].node;
        let squares = square_sums(&mut graph, &self.gradient, weights)?;
        let leaves = self.leaves(theta, &Vec::new(), &self.weights);
        Ok(evaluate(&graph, &leaves, &squares)?.concat())
    }
}

/// The quadratic of an objective on a device, multiplied with `v`.
pub(crate) fn on_device(
    objective: &mut GraphObjective,
    theta: &Vector,
    batch: &Batch,
    v: &Tensors,
    fisher_diagonal: bool,
) -> Result<Answers> {
    let gpu = objective.gpu().clone();
    let mut answers = Answers {
        value: 0.0,
        gradient: Vec::new(),
        hessian: Vec::new(),
        gauss_newton: Vec::new(),
        fisher: Vec::new(),
    };
    for curvature in [Curvature::Hessian, Curvature::GaussNewton] {
        let request = QuadraticRequest {
            curvature,
            fisher_diagonal: fisher_diagonal && curvature == Curvature::GaussNewton,
            ..QuadraticRequest::default()
        };
        let quadratic = objective.load_quadratic(Slot::default(), theta, batch, request)?;
        gpu.run([&quadratic.linearize])?;
        quadratic.direction.write(&gpu, &narrow(v))?;
        gpu.run([&quadratic.multiply])?;
        answers.value = f64::from(gpu.read(&[&quadratic.value])?[0][0]);
        answers.gradient = flat(&quadratic.gradient.read(&gpu)?);
        let product = flat(&quadratic.product.read(&gpu)?);
        match curvature {
            Curvature::Hessian => answers.hessian = product,
            _ => answers.gauss_newton = product,
        }
        if let Some(diagonal) = &quadratic.fisher_diagonal {
            answers.fisher = flat(&diagonal.read(&gpu)?);
        }
    }
    Ok(answers)
}

/// Writes tensors to a new vector of the objective's layout.
pub(crate) fn vector(gpu: &Gpu, objective: &GraphObjective, values: &Tensors) -> Result<Vector> {
    let vector = Vector::new(gpu, "theta", objective.layout())?;
    vector.write(gpu, &narrow(values))?;
    Ok(vector)
}

/// Random parameters or directions for a model: f32 numbers, of standard deviation about `1/sqrt(fan in)`.
pub(crate) fn draw(model: &Model, seed: u64) -> Result<Tensors> {
    let mut random = Philox::new(seed, 1 << 40);
    let traced = model.trace(1)?;
    let graph = traced.graph;
    Ok(graph
        .parameters()
        .iter()
        .map(|leaf| {
            let shape = graph.shape(leaf.node);
            let count: usize = shape.iter().product();
            let scale = match **shape {
                [inputs, _] => 1.7 / (inputs as f32).sqrt(),
                _ => 0.3,
            };
            (0..count)
                .map(|_| f64::from(scale * random.random_range(-1.0f32..1.0)))
                .collect()
        })
        .collect())
}

/// A random batch for a model, every number finite and fit for all losses; weights `1/n`.
pub(crate) fn batch_for(model: &Model, rows: usize, seed: u64) -> Batch {
    let mut random = Philox::new(seed, 1 << 41);
    let shape = model.shape();
    let features = (0..rows * shape.features)
        .map(|_| random.random_range(0.0f32..1.0))
        .collect();
    let targets = match shape.targets {
        TargetShape::Classes(classes) => Targets::Classes {
            labels: (0..rows)
                .map(|_| random.random_range(0..classes as u32))
                .collect(),
            classes,
        },
        TargetShape::Values(width) => Targets::Values {
            values: (0..rows * width)
                .map(|_| random.random_range(0.0f32..1.0))
                .collect(),
            width,
        },
        TargetShape::Inputs => Targets::Inputs,
    };
    Batch {
        features,
        targets,
        weights: vec![1.0 / rows as f32; rows],
    }
}

/// A batch for functions without data.
pub(crate) fn no_data() -> Batch {
    Batch {
        features: Vec::new(),
        targets: Targets::Inputs,
        weights: vec![1.0],
    }
}

/// `|found - expected| / |expected|`, or the absolute error where `expected` is zero; NaN for different lengths.
pub(crate) fn relative_error(found: &[f64], expected: &[f64]) -> f64 {
    if found.len() != expected.len() {
        return f64::NAN;
    }
    let difference = add(found, -1.0, expected);
    let norm = dot(expected, expected).sqrt();
    dot(&difference, &difference).sqrt() / if norm == 0.0 { 1.0 } else { norm }
}

/// Compares all results; `tolerance` is relative in norm.
pub(crate) fn compare(
    what: &str,
    found: &Answers,
    expected: &Answers,
    tolerance: f64,
) -> std::result::Result<(), String> {
    for ((name, found), (_, expected)) in found.named().iter().zip(expected.named()) {
        if found.is_empty() {
            continue;
        }
        let error = relative_error(found, &expected);
        if error.is_nan() || error > tolerance {
            let start = |v: &[f64]| format!("{:?}", &v[..v.len().min(6)]);
            return Err(format!(
                "{what}: {name} is off by {error:.2e}, more than {tolerance:.0e}\n  found    {}\n  expected {}",
                start(found),
                start(&expected)
            ));
        }
    }
    Ok(())
}

pub(crate) fn wide(values: &[f32]) -> Vec<f64> {
    values.iter().copied().map(f64::from).collect()
}

pub(crate) fn wide_all(values: &[Vec<f32>]) -> Tensors {
    values.iter().map(|v| wide(v)).collect()
}

pub(crate) fn narrow(values: &Tensors) -> Vec<Vec<f32>> {
    values
        .iter()
        .map(|v| v.iter().map(|&x| x as f32).collect())
        .collect()
}

pub(crate) fn flat(values: &[Vec<f32>]) -> Vec<f64> {
    wide_all(values).concat()
}

/// Cuts a flat vector into tensors of the lengths of `like`.
pub(crate) fn cut(values: &[f64], like: &Tensors) -> Tensors {
    let mut rest = values;
    like.iter()
        .map(|tensor| {
            let (head, tail) = rest.split_at(tensor.len());
            rest = tail;
            head.to_vec()
        })
        .collect()
}

pub(crate) fn dot(a: &[f64], b: &[f64]) -> f64 {
    a.iter().zip(b).map(|(a, b)| a * b).sum()
}

/// `a + factor b`
pub(crate) fn add(a: &[f64], factor: f64, b: &[f64]) -> Vec<f64> {
    a.iter().zip(b).map(|(a, b)| a + factor * b).collect()
}

/// Bits of all tensors, for comparisons that must be exact.
pub(crate) fn bits(values: &[Vec<f32>]) -> Vec<u32> {
    values.iter().flatten().map(|x| x.to_bits()).collect()
}

/// Solves the dense system `a x = b` (row-major, small) by elimination with partial pivoting.
pub(crate) fn solve_dense(a: &[f64], b: &[f64]) -> Vec<f64> {
    let n = b.len();
    let mut rows: Vec<Vec<f64>> = (0..n)
        .map(|i| {
            let mut row = a[i * n..(i + 1) * n].to_vec();
            row.push(b[i]);
            row
        })
        .collect();
    for column in 0..n {
        let pivot = (column..n)
            .max_by(|&i, &j| rows[i][column].abs().total_cmp(&rows[j][column].abs()))
            .unwrap_or(column);
        rows.swap(column, pivot);
        let top = rows[column].clone();
        for row in rows.iter_mut().skip(column + 1) {
            let factor = row[column] / top[column];
            for (x, t) in row.iter_mut().zip(&top).skip(column) {
                *x -= factor * t;
            }
        }
    }
    let mut x = vec![0.0; n];
    for i in (0..n).rev() {
        let known: f64 = (i + 1..n).map(|j| rows[i][j] * x[j]).sum();
        x[i] = (rows[i][n] - known) / rows[i][i];
    }
    x
}
