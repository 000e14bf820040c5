//! Derivatives with respect to inputs in the f64 twin: against differences, closed forms and a Laplacian derived by hand; what they cost; and
//! that gradients, products, rows of examples and Kronecker factors come through them.

use osculant::data::{Points, Region, Sampling, Term};
use osculant::graph::derivatives::{gauss_newton_product, gradient, hessian_product};
use osculant::graph::kronecker::{Curvature, Sizes, factors};
use osculant::graph::per_example::{gradient_rows, root_rows};
use osculant::graph::tensor::Builder;
use osculant::graph::twin::{Leaves, evaluate};
use osculant::graph::{Graph, NodeId, Op, Tensor};
use osculant::nn::{Activation, DataShape, Init, Loss, Model, Output, TargetShape, periodic};
use osculant::random::Philox;
use osculant::{Error, Result};
use rand::RngExt;

type Outcome = std::result::Result<(), Box<dyn std::error::Error>>;
type Function = for<'b> fn(&'b Builder, Tensor<'b>) -> Tensor<'b>;

const ROWS: usize = 5;
const WIDTH: usize = 2;
/// Of central differences with [`STEP`], whose error is `STEP^2` and the rounding of f64 over it.
const DIFFERENCES: f64 = 1e-7;
const STEP: f64 = 1e-5;
/// What holds to rounding of f64, and of constants that are f32 on both sides.
const IDENTITIES: f64 = 1e-12;

fn random(count: usize, seed: u64) -> Vec<f64> {
    let mut draws = Philox::new(seed, 0);
    (0..count).map(|_| draws.random_range(-1.0..1.0)).collect()
}

fn within(tolerance: f64, what: &str, found: &[f64], expected: &[f64]) -> Outcome {
    let norm = |x: &mut dyn Iterator<Item = f64>| x.map(|v| v * v).sum::<f64>().sqrt();
    let off = norm(&mut found.iter().zip(expected).map(|(a, b)| a - b));
    let scale = norm(&mut expected.iter().copied());
    if found.len() == expected.len() && off <= tolerance * scale.max(1.0) {
        return Ok(());
    }
    Err(format!("{what}: off by {off:.2e} of {scale:.2e}\n{found:?}\n{expected:?}").into())
}

/// A function of rows `[ROWS, WIDTH]`, with values of its leaves.
struct Field {
    graph: Graph,
    u: NodeId,
    x: NodeId,
    leaves: Leaves,
}

impl Field {
    fn new(define: impl for<'b> FnOnce(&'b Builder, Tensor<'b>) -> Tensor<'b>) -> Result<Self> {
        let builder = Builder::new();
        let x = builder.input("x", &[ROWS, WIDTH]);
        let u = define(&builder, x);
        let (u, x) = (u.id(), x.id());
        let graph = builder.finish()?;
        let size = |id: NodeId| graph.shape(id).iter().product::<usize>();
        let parameters = graph.parameters().iter().zip(1..);
        let leaves = Leaves {
            parameters: parameters
                .map(|(p, seed)| random(size(p.node), seed))
                .collect(),
            inputs: vec![random(ROWS * WIDTH, 99)],
            directions: Vec::new(),
        };
        Ok(Self {
            graph,
            u,
            x,
            leaves,
        })
    }

    fn derive(&mut self, u: NodeId, order: usize, terms: &[(f32, &[f32])]) -> Result<NodeId> {
        osculant::graph::differential::derivatives(&mut self.graph, (u, self.x), order, terms)
    }

    fn value(&self, node: NodeId) -> Result<Vec<f64>> {
        Ok(evaluate(&self.graph, &self.leaves, &[node])?.concat())
    }

    /// The central difference of a node where every row of the input moves along a direction.
    fn difference(&mut self, node: NodeId, direction: &[f32]) -> Result<Vec<f64>> {
        let at = self.leaves.inputs[0].clone();
        let mut sides = Vec::new();
        for step in [STEP, -STEP] {
            let moved = at.iter().zip(direction.iter().cycle());
            self.leaves.inputs[0] = moved.map(|(x, v)| x + step * f64::from(*v)).collect();
            sides.push(self.value(node)?);
        }
        self.leaves.inputs[0] = at;
        let pairs = sides[0].iter().zip(&sides[1]);
        Ok(pairs.map(|(a, b)| (a - b) / (2.0 * STEP)).collect())
    }
}

/// A mixture of the inputs that is between 0.2 and 1.8.
fn positive<'b>(b: &'b Builder, x: Tensor<'b>) -> Tensor<'b> {
    x.dot(b.data(vec![0.5, -0.2, 0.3, 0.4], &[2, 2])) + 1.0
}

fn dense<'b>(b: &'b Builder, name: &str, x: Tensor<'b>, outputs: usize) -> Tensor<'b> {
    let inputs = x.shape()[1];
    x.dot(b.parameter(&format!("{name}.weight"), &[inputs, outputs]))
        + b.parameter(&format!("{name}.bias"), &[outputs])
}

/// Two hidden layers.
fn network<'b>(b: &'b Builder, x: Tensor<'b>, activation: Activation) -> Tensor<'b> {
    let h = activation.apply(dense(b, "first", x, 4));
    let h = activation.apply(dense(b, "second", h, 3));
    dense(b, "last", h, 1)
}

const FUNCTIONS: &[(&str, Function)] = &[
    ("exp", |b, x| positive(b, x).exp()),
    ("log", |b, x| positive(b, x).log()),
    ("tanh", |b, x| positive(b, x).tanh()),
    ("logistic", |b, x| positive(b, x).logistic()),
    ("softplus", |b, x| positive(b, x).softplus()),
    ("log1p", |b, x| positive(b, x).log1p()),
    ("expm1", |b, x| positive(b, x).expm1()),
    ("expm1mx", |b, x| positive(b, x).expm1mx()),
    ("sin", |b, x| positive(b, x).sin()),
    ("cos", |b, x| positive(b, x).cos()),
    ("sqrt", |b, x| positive(b, x).sqrt()),
    ("reciprocal", |b, x| positive(b, x).reciprocal()),
    ("erf", |b, x| positive(b, x).erf()),
    ("neg", |b, x| -(positive(b, x).exp())),
    ("quotient", |b, x| x.sin() / positive(b, x)),
    ("quotient by what moves", |b, x| {
        positive(b, x).sin() / positive(b, x).exp()
    }),
    ("maximum", |b, x| {
        x.exp().max(positive(b, x).square() * positive(b, x))
    }),
    ("select", |_, x| x.select((x + 2.0).sqrt(), x.sin())),
    ("sum of products", |_, x| {
        let column = |i: usize| x.slice(&[0, i], &[ROWS, 1]);
        column(0) * column(0).sin() * column(1) + column(1).exp() * column(0) - column(1) * 2.0
    }),
    ("shapes", |b, x| {
        let wide = x.reshape(&[ROWS, 1, WIDTH]).broadcast(&[ROWS, 3, WIDTH]);
        let wide = wide.sin().permute(&[0, 2, 1]) * positive(b, x).reshape(&[ROWS, WIDTH, 1]);
        (wide.sum(&[2]).square().pad(&[0, 1, 0], &[ROWS, 4, 1])).reshape(&[ROWS, 4])
    }),
    ("concat", |_, x| x.concat(&[x.sin(), (x * x).cos()], 1)),
    ("squares of a batch of products", |b, x| {
        let rows = x.reshape(&[1, ROWS, WIDTH]).broadcast(&[2, ROWS, WIDTH]);
        let h = rows.dot(b.parameter("w", &[2, WIDTH, 3])).sin();
        h.permute(&[1, 0, 2]).reshape(&[ROWS, 6])
    }),
    ("softmax", |b, x| {
        let e = (positive(b, x) - x.max_over(&[1])).exp();
        e / e.sum(&[1])
    }),
    ("hard boundary and periodic embedding", |b, x| {
        let angles = x * std::f32::consts::PI;
        let h = dense(b, "first", angles.sin().concat(&[angles.cos()], 1), 4).tanh();
        let phi = (1.0 - x.square()).slice(&[0, 0], &[ROWS, 1]);
        x.slice(&[0, 1], &[ROWS, 1]).sin() + phi * dense(b, "last", h, 1)
    }),
];

/// The first to third derivatives of everything along a direction are differences of the derivatives before, and sums over directions are the
/// sums of these.
fn checked(what: &str, define: impl for<'b> Fn(&'b Builder, Tensor<'b>) -> Tensor<'b>) -> Outcome {
    let mut field = Field::new(define)?;
    let (v, w): (&[f32], &[f32]) = (&[0.75, -0.5], &[0.0, 1.0]);
    let mut along = [field.u, field.u];
    for order in 1..=3 {
        for (direction, before) in [v, w].iter().zip(&mut along) {
            let derivative = field.derive(field.u, order, &[(1.0, direction)])?;
            let expected = field.difference(*before, direction)?;
            let found = field.value(derivative)?;
            within(
                DIFFERENCES,
                &format!("{what}, order {order}"),
                &found,
                &expected,
            )?;
            *before = derivative;
        }
        let sum = field.derive(field.u, order, &[(1.0, v), (-4.0, w), (0.5, v)])?;
        let (a, b) = (field.value(along[0])?, field.value(along[1])?);
        let expected: Vec<f64> = a.iter().zip(&b).map(|(a, b)| 1.5 * a - 4.0 * b).collect();
        let found = field.value(sum)?;
        within(
            IDENTITIES,
            &format!("{what}, sum of order {order}"),
            &found,
            &expected,
        )?;
    }
    Ok(())
}

#[test]
fn derivatives_of_every_function_are_differences() -> Outcome {
    for (name, function) in FUNCTIONS {
        checked(name, function)?;
    }
    for activation in Activation::ALL {
        checked(&format!("{activation:?}"), |b, x| network(b, x, activation))?;
    }
    Ok(())
}

/// `sin(a x + b y)`, `exp(x) y^3` and their derivatives on paper.
#[test]
fn derivatives_are_those_of_closed_forms() -> Outcome {
    let mut wave = Field::new(|_, x| {
        let column = |i: usize| x.slice(&[0, i], &[ROWS, 1]);
        (column(0) * 2.0 + column(1) * 3.0).sin()
    })?;
    let x = wave.leaves.inputs[0].clone();
    let phase: Vec<f64> = x.chunks(2).map(|r| 2.0 * r[0] + 3.0 * r[1]).collect();
    let third = wave.derive(wave.u, 3, &[(1.0, &[1.0, 0.0]), (2.0, &[0.0, 1.0])])?;
    let expected: Vec<f64> = phase.iter().map(|p| -(8.0 + 54.0) * p.cos()).collect();
    within(
        IDENTITIES,
        "third derivatives",
        &wave.value(third)?,
        &expected,
    )?;

    let mut product = Field::new(|_, x| {
        let column = |i: usize| x.slice(&[0, i], &[ROWS, 1]);
        column(0).exp() * column(1) * column(1) * column(1)
    })?;
    let laplacian = product.derive(product.u, 2, &[(1.0, &[1.0, 0.0]), (1.0, &[0.0, 1.0])])?;
    let expected: Vec<f64> = x
        .chunks(2)
        .map(|r| r[0].exp() * (r[1].powi(3) + 6.0 * r[1]))
        .collect();
    within(
        IDENTITIES,
        "Laplacian",
        &product.value(laplacian)?,
        &expected,
    )?;
    // u_xyy, a derivative of a derivative.
    let first = product.derive(product.u, 1, &[(1.0, &[1.0, 0.0])])?;
    let mixed = product.derive(first, 2, &[(1.0, &[0.0, 1.0])])?;
    let expected: Vec<f64> = x.chunks(2).map(|r| r[0].exp() * 6.0 * r[1]).collect();
    within(
        IDENTITIES,
        "mixed derivative",
        &product.value(mixed)?,
        &expected,
    )
}

/// `u = sum_k a_k tanh(w_k . x + b_k)`: the gradient is `sum_k a_k (1 - t^2) w_k` and the Laplacian `sum_k a_k (-2 t) (1 - t^2) |w_k|^2`.
#[test]
fn gradient_and_laplacian_of_a_tanh_network_are_those_derived_by_hand() -> Outcome {
    const HIDDEN: usize = 4;
    let mut found = Vec::new();
    let field = Field::new(|b, x| {
        let h = dense(b, "first", x, HIDDEN).tanh();
        let u = dense(b, "last", h, 1);
        found = vec![u.gradient(x).id(), u.laplacian(x).id()];
        u
    })?;
    let [w, b, a, _] = field.leaves.parameters.as_slice() else {
        return Err("four parameters".into());
    };
    let (mut slopes, mut laplacians) = (Vec::new(), Vec::new());
    for row in field.leaves.inputs[0].chunks(WIDTH) {
        let (mut slope, mut laplacian) = ([0.0; WIDTH], 0.0);
        for k in 0..HIDDEN {
            let t = (row[0] * w[k] + row[1] * w[HIDDEN + k] + b[k]).tanh();
            for d in 0..WIDTH {
                let weight = w[d * HIDDEN + k];
                slope[d] += a[k] * (1.0 - t * t) * weight;
                laplacian -= 2.0 * a[k] * t * (1.0 - t * t) * weight * weight;
            }
        }
        slopes.extend(slope);
        laplacians.push(laplacian);
    }
    within(IDENTITIES, "gradient", &field.value(found[0])?, &slopes)?;
    within(
        IDENTITIES,
        "Laplacian",
        &field.value(found[1])?,
        &laplacians,
    )
}

/// Products with as many rows as there are points: one for the first layer, whose derivatives are rows of its weight, then `1 + D + 1` for
/// each layer, and for the last one those that are asked for.
#[test]
fn a_laplacian_takes_the_products_of_the_forward_laplacian() -> Outcome {
    const D: usize = 5;
    let products = |order: usize, collapsed: bool| -> Result<usize> {
        let builder = Builder::new();
        let x = builder.input("x", &[ROWS, D]);
        let h = dense(&builder, "first", x, 4).tanh();
        let h = dense(&builder, "second", h, 4).tanh();
        let h = dense(&builder, "third", h, 4).tanh();
        let u = dense(&builder, "last", h, 1);
        let units: Vec<Vec<f32>> = (0..D)
            .map(|i| (0..D).map(|j| f32::from(u8::from(i == j))).collect())
            .collect();
        let terms: Vec<(f32, &[f32])> = units.iter().map(|unit| (1.0, &unit[..])).collect();
        let sum = if collapsed {
            u.derivatives(x, order, &terms)
        } else {
            let mut each = terms.iter().map(|term| u.derivatives(x, order, &[*term]));
            each.by_ref()
                .next()
                .map_or(u, |first| each.fold(first, |a, b| a + b))
        };
        let (u, sum) = (u.id(), sum.id());
        let graph = builder.finish()?;
        let needed = graph.ancestors(&[u, sum]);
        let nodes = graph.nodes().iter().zip(needed);
        let counted = nodes.filter(|(node, needed)| {
            *needed && matches!(node.op, Op::Dot { .. }) && node.shape[1] == ROWS
        });
        Ok(counted.count())
    };
    assert_eq!(products(2, true)?, 1 + 2 * (1 + D + 1) + 2);
    assert_eq!(products(2, false)?, 1 + 2 * (1 + 2 * D) + 1 + D);
    assert_eq!(products(3, true)?, 1 + 2 * (1 + 2 * D + 1) + 2);
    Ok(())
}

/// Half the squares of the residuals of an equation with first and second derivatives and a product of them.
fn equation(activation: Activation) -> Model {
    let shape = DataShape {
        features: WIDTH,
        targets: TargetShape::Values(1),
    };
    Model::new(shape, move |scope| {
        let x = scope.features();
        let h = activation.apply(scope.dense("first", x, 4, Init::Glorot));
        let h = activation.apply(scope.dense("second", h, 3, Init::Glorot));
        let u = scope.dense("last", h, 1, Init::Glorot);
        let residual = u.derivative(x, &[1.0, 0.0]) * u - u.laplacian(x);
        Output {
            losses: Loss::MeanSquaredError.apply(scope, residual),
            outputs: residual,
            metric: None,
        }
    })
    .with_curvature_root(|scope, z, signs| Loss::MeanSquaredError.curvature_root(scope, z, signs))
}

/// The model on a batch, the sum of its losses, and values of its leaves.
fn traced(rows: usize) -> Result<(osculant::nn::Traced, osculant::nn::Probe, NodeId, Leaves)> {
    let (mut traced, probe) = equation(Activation::Tanh).trace_with_probe(rows)?;
    let loss = traced.graph.sum(traced.losses, &[0])?;
    let graph = &traced.graph;
    let size = |id: NodeId| graph.shape(id).iter().product::<usize>();
    let parameters = graph.parameters().iter().zip(1..);
    let leaves = Leaves {
        parameters: parameters
            .map(|(p, seed)| random(size(p.node), seed))
            .collect(),
        inputs: vec![random(rows * WIDTH, 50), random(rows, 51)],
        directions: Vec::new(),
    };
    let probe = probe.ok_or_else(|| Error::Unsupported {
        what: "the probe".into(),
        message: "the model has a root".into(),
    })?;
    Ok((traced, probe, loss, leaves))
}

/// Gradients of the loss of an equation, and products with its Hessian and Gauss-Newton matrix, are differences.
#[test]
fn parameters_derivatives_come_through_those_of_inputs() -> Outcome {
    let (traced, _, loss, leaves) = traced(ROWS)?;
    let mut graph = traced.graph;
    let parameters: Vec<NodeId> = graph.parameters().iter().map(|p| p.node).collect();
    let directions: Vec<NodeId> = parameters
        .iter()
        .map(|&p| {
            let shape = graph.shape(p).clone();
            graph.direction(&shape)
        })
        .collect();
    let slopes = gradient(&mut graph, loss, &parameters)?;
    let hessian = hessian_product(&mut graph, &slopes, &parameters, &directions)?;
    let gauss_newton =
        gauss_newton_product(&mut graph, loss, traced.outputs, &parameters, &directions)?;
    let v: Vec<Vec<f64>> = leaves
        .parameters
        .iter()
        .zip(20..)
        .map(|(p, seed)| random(p.len(), seed))
        .collect();
    let at = |step: f64, nodes: &[NodeId]| -> Result<Vec<f64>> {
        let moved = leaves.parameters.iter().zip(&v);
        let moved = moved.map(|(p, v)| p.iter().zip(v).map(|(p, v)| p + step * v).collect());
        let leaves = Leaves {
            parameters: moved.collect(),
            inputs: leaves.inputs.clone(),
            directions: directions.iter().copied().zip(v.clone()).collect(),
        };
        Ok(evaluate(&graph, &leaves, nodes)?.concat())
    };
    let difference = |nodes: &[NodeId]| -> Result<Vec<f64>> {
        let (above, below) = (at(STEP, nodes)?, at(-STEP, nodes)?);
        Ok(above
            .iter()
            .zip(&below)
            .map(|(a, b)| (a - b) / (2.0 * STEP))
            .collect())
    };
    let dot = |a: &[f64], b: &[f64]| a.iter().zip(b).map(|(a, b)| a * b).sum::<f64>();
    let slope = dot(&at(0.0, &slopes)?, &v.concat());
    within(DIFFERENCES, "gradient", &[slope], &difference(&[loss])?)?;
    within(
        DIFFERENCES,
        "Hessian product",
        &at(0.0, &hessian)?,
        &difference(&slopes)?,
    )?;
    // The losses are the squares of the outputs.
    let change = difference(&[traced.outputs])?;
    let curvature = dot(&at(0.0, &gauss_newton)?, &v.concat());
    within(
        DIFFERENCES,
        "curvature",
        &[curvature],
        &[2.0 * dot(&change, &change)],
    )
}

/// Rows of examples are gradients of batches of one, rows of the root have the Gauss-Newton matrix as their sum of outer products, and each
/// weight has Kronecker factors, with its bias where it has one.
#[test]
fn rows_and_factors_come_through_derivatives_of_inputs() -> Outcome {
    let (traced, probe, loss, leaves) = traced(ROWS)?;
    let mut graph = traced.graph;
    let parameters: Vec<NodeId> = graph.parameters().iter().map(|p| p.node).collect();
    let rows = gradient_rows(&mut graph, traced.losses, &parameters)?;
    let formed: Vec<NodeId> = rows
        .iter()
        .map(|r| r.formed(&mut graph))
        .collect::<Result<_>>()?;
    let found = evaluate(&graph, &leaves, &formed)?;
    let (single, ..) = self::traced(1)?;
    let mut one = single.graph;
    let losses = one.sum(single.losses, &[0])?;
    let wrt: Vec<NodeId> = one.parameters().iter().map(|p| p.node).collect();
    let slopes = gradient(&mut one, losses, &wrt)?;
    for row in 0..ROWS {
        let width = |input: usize| leaves.inputs[input].len() / ROWS;
        let of = |i: usize| leaves.inputs[i][row * width(i)..][..width(i)].to_vec();
        let leaves = Leaves {
            parameters: leaves.parameters.clone(),
            inputs: vec![of(0), of(1)],
            directions: Vec::new(),
        };
        for (p, expected) in evaluate(&one, &leaves, &slopes)?.iter().enumerate() {
            let size = expected.len();
            within(IDENTITIES, "row", &found[p][row * size..][..size], expected)?;
        }
    }

    let root = (traced.outputs, probe.root, probe.signs);
    let rows = root_rows(&mut graph, root, &parameters)?;
    let formed: Vec<NodeId> = rows
        .iter()
        .map(|r| r.formed(&mut graph))
        .collect::<Result<_>>()?;
    let directions: Vec<NodeId> = parameters
        .iter()
        .map(|&p| {
            let shape = graph.shape(p).clone();
            graph.direction(&shape)
        })
        .collect();
    let products =
        gauss_newton_product(&mut graph, loss, traced.outputs, &parameters, &directions)?;
    let v: Vec<Vec<f64>> = leaves
        .parameters
        .iter()
        .zip(20..)
        .map(|(p, seed)| random(p.len(), seed))
        .collect();
    let with = Leaves {
        directions: directions.iter().copied().zip(v.clone()).collect(),
        ..leaves.clone()
    };
    let found = evaluate(&graph, &with, &formed)?;
    let mut expected = vec![0.0; v.concat().len()];
    for row in 0..ROWS {
        let of = |p: usize| &found[p][row * v[p].len()..][..v[p].len()];
        let whole: Vec<f64> = (0..v.len()).flat_map(|p| of(p).to_vec()).collect();
        let along: f64 = whole.iter().zip(v.concat()).map(|(a, b)| a * b).sum();
        expected
            .iter_mut()
            .zip(&whole)
            .for_each(|(e, r)| *e += along * r);
    }
    // The root of 2 in f32.
    within(
        1e-6,
        "product",
        &evaluate(&graph, &with, &products)?.concat(),
        &expected,
    )?;

    let scale = graph.constant(1.0 / ROWS as f32, &[ROWS]);
    let sizes = Sizes::up_to(100, 0);
    let layers = factors(
        &mut graph,
        &Curvature::of_rows(&rows),
        &parameters,
        scale,
        sizes,
    )?;
    let found: Vec<_> = layers
        .iter()
        .map(|l| (l.layer.weight, l.layer.left.map(|s| s.size)))
        .collect();
    assert_eq!(layers.len(), 3, "{found:?}");
    // The first weight is used for the value, beside its bias, and for two derivatives, whose inputs are the unit vectors.
    let mut expected = vec![0.0; 9];
    for x in leaves.inputs[0].chunks(WIDTH) {
        let row = [x[0], x[1], 1.0];
        for at in 0..9 {
            expected[at] += row[at / 3] * row[at % 3] / (3 * ROWS) as f64;
        }
    }
    expected[0] += 1.0 / 3.0;
    expected[4] += 1.0 / 3.0;
    let left = evaluate(&graph, &leaves, &layers[0].tensors[0])?.concat();
    within(1e-6, "left factor", &left, &expected)
}

#[test]
fn mistakes_are_refused_in_words() {
    type Mistake = fn(&Builder);
    let refused: [(&[&str], Mistake); 9] = [
        (&["direction", "3", "2"], |b| {
            let x = b.input("x", &[4, 2]);
            x.sin().derivative(x, &[1.0, 0.0, 0.0]);
        }),
        (&["directions", "not a number"], |b| {
            let x = b.input("x", &[4, 2]);
            x.sin().derivative(x, &[f32::NAN, 0.0]);
        }),
        (&["order", "0"], |b| {
            let x = b.input("x", &[4, 2]);
            x.sin().derivatives(x, 0, &[(1.0, &[1.0, 0.0])]);
        }),
        (&["directions", "at least one"], |b| {
            let x = b.input("x", &[4, 2]);
            x.sin().derivatives(x, 2, &[]);
        }),
        (&["[rows, d]", "'x' [4]"], |b| {
            let x = b.input("x", &[4]);
            x.sin().laplacian(x);
        }),
        (&["4 rows", "[2, 4]"], |b| {
            let x = b.input("x", &[4, 2]);
            x.permute(&[1, 0]).derivative(x, &[1.0, 0.0]);
        }),
        (&["same row", "'x' [4, 2]"], |b| {
            let x = b.input("x", &[4, 2]);
            (x - x.mean(&[0])).derivative(x, &[1.0, 0.0]);
        }),
        (&["same row"], |b| {
            let x = b.input("x", &[2, 2]);
            x.permute(&[1, 0]).derivative(x, &[1.0, 0.0]);
        }),
        (&["one number a row", "slice"], |b| {
            let x = b.input("x", &[4, 2]);
            x.sin().gradient(x);
        }),
    ];
    for (words, define) in refused {
        let builder = Builder::new();
        define(&builder);
        let message = match builder.finish() {
            Err(error) => error.to_string(),
            Ok(_) => "no error".into(),
        };
        for word in words {
            assert!(message.contains(word), "'{word}' is missing in: {message}");
        }
    }
}

/// What does not depend on the inputs, or is linear in them, has derivatives of 0.
#[test]
fn derivatives_that_vanish_are_zeros() -> Outcome {
    let mut field = Field::new(|b, x| dense(b, "only", x, 3))?;
    let second = field.derive(field.u, 2, &[(1.0, &[1.0, 0.0]), (1.0, &[0.0, 1.0])])?;
    assert_eq!(field.value(second)?, vec![0.0; ROWS * 3]);
    let mut field = Field::new(|b, _| b.parameter("u", &[1, 3]).broadcast(&[ROWS, 3]))?;
    let first = field.derive(field.u, 1, &[(2.0, &[1.0, 0.0])])?;
    assert_eq!(field.value(first)?, vec![0.0; ROWS * 3]);
    Ok(())
}

/// With the weights of its points a loss is the sum of the means of its terms, each with its weight; and no term sees the others' points.
#[test]
fn losses_of_terms_are_weighted_means() -> Outcome {
    let side = Region::new(&[[0.0, 1.0]])?;
    let terms = vec![
        Term::new("interior", 6, vec![side.clone()]),
        Term::new("ends", 3, side.faces(&[0])).with_weight(10.0),
    ];
    let batch = Points::new("interval", terms, Sampling::Uniform, 3)?
        .draw(0)?
        .full_batch();
    let shape = DataShape {
        features: 1,
        targets: TargetShape::Classes(2),
    };
    let model = Model::least_squares(shape, |scope| {
        let x = scope.features();
        let u = (x * 2.0).exp();
        scope.by_term(&[u.laplacian(x), u - 1.0])
    });
    let traced = model.trace(batch.len())?;
    let inputs: Vec<f64> = batch.features.iter().map(|&x| f64::from(x)).collect();
    let leaves = Leaves {
        inputs: vec![
            inputs.clone(),
            vec![0.0, 0.0, 0.0, 0.0, 0.0, 0.0, 1.0, 1.0, 1.0],
        ],
        ..Leaves::default()
    };
    let losses = evaluate(&traced.graph, &leaves, &[traced.losses])?.concat();
    let weighted = losses.iter().zip(&batch.weights);
    let found: f64 = weighted
        .map(|(loss, &weight)| loss * f64::from(weight))
        .sum();
    let square = |x: f64| x * x;
    let interior: f64 = inputs[..6]
        .iter()
        .map(|x| square(4.0 * (2.0 * x).exp()))
        .sum();
    // The lower end twice, as three points are dealt to two faces.
    let ends = square((2.0f64).exp() - 1.0);
    within(
        1e-6,
        "loss",
        &[found],
        &[interior / 6.0 + 10.0 * ends / 3.0],
    )?;

    let wrong = Model::least_squares(shape, |scope| scope.by_term(&[scope.features()]));
    let message = match wrong.trace(4) {
        Err(error) => error.to_string(),
        Ok(_) => "no error".into(),
    };
    assert!(message.contains("for 2 terms"), "{message}");
    Ok(())
}

/// Everything that is made of waves repeats, with its derivatives.
#[test]
fn functions_on_a_circle_are_periodic() -> Outcome {
    let mut field = Field::new(|b, x| {
        let place = x.slice(&[0, 1], &[ROWS, 1]);
        dense(
            b,
            "last",
            dense(b, "first", periodic(place, 0.5, 3), 4).tanh(),
            1,
        )
    })?;
    let second = field.derive(field.u, 2, &[(1.0, &[0.0, 1.0])])?;
    let here = field.value(second)?;
    for x in &mut field.leaves.inputs[0] {
        *x += 0.5;
    }
    // The constant 2 pi is f32.
    within(1e-5, "a period on", &field.value(second)?, &here)
}
