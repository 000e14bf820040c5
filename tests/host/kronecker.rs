//! Kronecker factors in the f64 twin: against sums over examples by hand, against the Gauss-Newton matrix where a Kronecker product is
//! exact, and the roots of output Hessians.

use osculant::graph::derivatives::{gauss_newton_product, gradient};
use osculant::graph::jvp::linearize;
use osculant::graph::kronecker::{
    Curvature, Form, Layer, LayerFactors, Sizes, factors, test_matrix,
};
use osculant::graph::per_example::mixture_rows;
use osculant::graph::preconditioned::{curvature_along, function_leaves, preconditioned};
use osculant::graph::tensor::Builder;
use osculant::graph::twin::{Leaves, evaluate};
use osculant::graph::{Binary, Graph, NodeId};
use osculant::nn::{Activation, DataShape, Loss, Probe, Sequential, TargetShape, Traced};
use osculant::random::Philox;
use rand::RngExt;

type Outcome = std::result::Result<(), Box<dyn std::error::Error>>;

const IDENTITIES: f64 = 1e-11;
/// The graph's constants are f32, `sqrt(2 / 3)` of the squared error among them.
const CONSTANTS: f64 = 1e-7;
const ROWS: usize = 5;
const CLASSES: usize = 3;
/// All factors are matrices.
const LARGE: Sizes = Sizes::up_to(100, 0);

/// Of the factors of columns their means.
const MEANS: Sizes = Sizes {
    mean_columns: true,
    ..LARGE
};

/// The tensors of all factors.
fn tensors(layers: &[LayerFactors]) -> Vec<NodeId> {
    let nodes = layers.iter().flat_map(LayerFactors::nodes);
    nodes.copied().collect()
}

/// The layers without their nodes.
fn alone(layers: &[LayerFactors]) -> Vec<Layer> {
    layers.iter().map(|factors| factors.layer).collect()
}

fn near(what: &str, found: &[f64], expected: &[f64]) -> Outcome {
    within(IDENTITIES, what, found, expected)
}

fn within(tolerance: f64, what: &str, found: &[f64], expected: &[f64]) -> Outcome {
    let scale = expected
        .iter()
        .fold(1e-30, |most: f64, x| most.max(x.abs()));
    let error = found
        .iter()
        .zip(expected)
        .map(|(a, b)| (a - b).abs() / scale);
    let error = error.fold(0.0, f64::max);
    if found.len() == expected.len() && error <= tolerance {
        return Ok(());
    }
    Err(format!("{what}: off by {error:.2e}\n{found:?}\n{expected:?}").into())
}

fn random(count: usize, seed: u64) -> Vec<f64> {
    let mut draws = Philox::new(seed, 0);
    (0..count).map(|_| draws.random_range(-1.0..1.0)).collect()
}

/// All rows of signs of one example.
fn all_signs() -> impl Iterator<Item = Vec<f64>> {
    (0..1usize << CLASSES).map(|bits| {
        let sign = |c: usize| if bits >> c & 1 == 1 { 1.0 } else { -1.0 };
        (0..CLASSES).map(sign).collect()
    })
}

fn shape_of(loss: Loss, features: usize) -> DataShape {
    let targets = match loss {
        Loss::SoftmaxCrossEntropy => TargetShape::Classes(CLASSES),
        _ => TargetShape::Values(CLASSES),
    };
    DataShape { features, targets }
}

/// A network with its probe and values for its leaves.
struct Case {
    traced: Traced,
    probe: Probe,
    leaves: Leaves,
}

impl Case {
    fn new(loss: Loss, network: Sequential, features: usize) -> osculant::Result<Self> {
        let (traced, probe) = network
            .model(shape_of(loss, features), loss)
            .trace_with_probe(ROWS)?;
        let graph = &traced.graph;
        let size = |id: NodeId| graph.shape(id).iter().product::<usize>();
        let parameters = graph.parameters().iter().zip(1..);
        let parameters = parameters
            .map(|(p, seed)| random(size(p.node), seed))
            .collect();
        let inputs = graph
            .inputs()
            .iter()
            .map(|input| match input.name.as_str() {
                "targets" if loss == Loss::SoftmaxCrossEntropy => {
                    (0..ROWS).map(|row| (row % CLASSES) as f64).collect()
                }
                "targets" => random(size(input.node), 50)
                    .iter()
                    .map(|t| t.abs())
                    .collect(),
                _ => random(size(input.node), 51),
            });
        let leaves = Leaves {
            parameters,
            inputs: inputs.collect(),
            directions: Vec::new(),
        };
        let probe = probe.ok_or(osculant::Error::Unsupported {
            what: "this model".into(),
            message: "has no probe".into(),
        })?;
        Ok(Self {
            traced,
            probe,
            leaves,
        })
    }

    fn parameters(&self) -> Vec<NodeId> {
        self.traced
            .graph
            .parameters()
            .iter()
            .map(|p| p.node)
            .collect()
    }

    /// The value of nodes for these signs of every example, and values of other leaves.
    fn at(
        &self,
        signs: &[f64],
        others: &[(NodeId, Vec<f64>)],
        wanted: &[NodeId],
    ) -> osculant::Result<Vec<Vec<f64>>> {
        let mut leaves = self.leaves.clone();
        leaves.directions.push((self.probe.signs, signs.to_vec()));
        leaves.directions.extend_from_slice(others);
        evaluate(&self.traced.graph, &leaves, wanted)
    }

    /// The factors of all layers, with a leaf for the weights of the examples.
    fn factors(&mut self, sizes: Sizes) -> osculant::Result<(Vec<LayerFactors>, NodeId)> {
        let scale = self.traced.graph.direction(&[ROWS]);
        let root = (self.traced.outputs, self.probe.root);
        let parameters = self.parameters();
        let graph = &mut self.traced.graph;
        let rows = mixture_rows(graph, root, &parameters)?;
        let layers = factors(graph, &Curvature::of_rows(&rows), &parameters, scale, sizes)?;
        Ok((layers, scale))
    }
}

fn mlp() -> Sequential {
    Sequential::new()
        .dense(4)
        .activation(Activation::Tanh)
        .dense(CLASSES)
}

/// With all signs, the mean of `(S xi) (S xi)^T` is the Hessian of each example's loss in its outputs.
#[test]
fn the_root_of_the_output_hessian_is_a_root() -> Outcome {
    for loss in Loss::ALL {
        let mut case = Case::new(loss, mlp(), 6)?;
        let graph = &mut case.traced.graph;
        let total = graph.sum(case.traced.losses, &[0])?;
        let outputs = case.traced.outputs;
        let slope = gradient(graph, total, &[outputs])?;
        let along = graph.direction(&[ROWS, CLASSES]);
        let product = linearize(graph, &slope, &[(outputs, along)])?[0].ok_or("no curvature")?;
        let mut mean = vec![0.0; ROWS * CLASSES * CLASSES];
        for signs in all_signs() {
            let root = case.at(&signs.repeat(ROWS), &[], &[case.probe.root])?;
            for (row, b) in root[0].chunks(CLASSES).enumerate() {
                for (at, (i, j)) in pairs().enumerate() {
                    mean[row * 9 + at] += b[i] * b[j] / 8.0;
                }
            }
        }
        for column in 0..CLASSES {
            let unit: Vec<f64> = (0..ROWS * CLASSES)
                .map(|at| f64::from(u8::from(at % CLASSES == column)))
                .collect();
            let hessian = case.at(&unit, &[(along, unit.clone())], &[product])?;
            let found: Vec<f64> = (0..ROWS * CLASSES)
                .map(|at| mean[at / CLASSES * 9 + at % CLASSES * CLASSES + column])
                .collect();
            within(
                CONSTANTS,
                &format!("{loss:?}, column {column}"),
                &found,
                &hessian[0],
            )?;
        }
    }
    Ok(())
}

fn pairs() -> impl Iterator<Item = (usize, usize)> {
    (0..CLASSES).flat_map(|i| (0..CLASSES).map(move |j| (i, j)))
}

/// Activations, and cotangents of a mixture, of a network of two layers: by hand.
#[test]
fn factors_are_sums_over_examples() -> Outcome {
    let mut case = Case::new(Loss::SoftmaxCrossEntropy, mlp(), 6)?;
    let (layers, scale) = case.factors(LARGE)?;
    assert_eq!(layers.len(), 2, "{layers:?}");
    let weights: Vec<f64> = (1..=ROWS).map(|n| n as f64 / 15.0).collect();
    let signs: Vec<f64> = (0..ROWS * CLASSES)
        .map(|i| [1.0, -1.0][i * i / 2 % 2])
        .collect();
    let wanted = tensors(&layers);
    let found = case.at(&signs, &[(scale, weights.clone())], &wanted)?;

    let [w0, b0, w1, b1] = &case.leaves.parameters[..] else {
        return Err("not two layers".into());
    };
    let x = &case.leaves.inputs[0];
    let mut expected = [vec![0.0; 49], vec![0.0; 16], vec![0.0; 25], vec![0.0; 9]];
    for n in 0..ROWS {
        let row = &x[6 * n..6 * n + 6];
        let h: Vec<f64> = (0..4)
            .map(|j| (b0[j] + (0..6).map(|i| row[i] * w0[4 * i + j]).sum::<f64>()).tanh())
            .collect();
        let z: Vec<f64> = (0..3)
            .map(|c| b1[c] + (0..4).map(|j| h[j] * w1[3 * j + c]).sum::<f64>())
            .collect();
        let e: Vec<f64> = z.iter().map(|z| z.exp()).collect();
        let p: Vec<f64> = e.iter().map(|x| x / e.iter().sum::<f64>()).collect();
        let xi = &signs[3 * n..3 * n + 3];
        let mixed: f64 = (0..3).map(|c| p[c].sqrt() * xi[c]).sum();
        let b: Vec<f64> = (0..3).map(|c| p[c].sqrt() * xi[c] - p[c] * mixed).collect();
        let back: Vec<f64> = (0..4)
            .map(|j| (1.0 - h[j] * h[j]) * (0..3).map(|c| w1[3 * j + c] * b[c]).sum::<f64>())
            .collect();
        let with_one = |v: &[f64]| [v, &[1.0]].concat();
        for (sum, v) in expected
            .iter_mut()
            .zip([with_one(row), back, with_one(&h), b])
        {
            for i in 0..v.len() {
                for j in 0..v.len() {
                    sum[i * v.len() + j] += weights[n] * v[i] * v[j];
                }
            }
        }
    }
    for (at, (found, expected)) in found.iter().zip(&expected).enumerate() {
        near(&format!("factor {at}"), found, expected)?;
    }

    // Sides of more than three elements as diagonals: those of the same matrices.
    let (layers, scale) = case.factors(Sizes::up_to(3, 0))?;
    let wanted = tensors(&layers);
    let diagonals = case.at(&signs, &[(scale, weights)], &wanted)?;
    for (at, (found, full)) in diagonals.iter().zip(&expected).enumerate() {
        let order = (full.len() as f64).sqrt() as usize;
        let expected: Vec<f64> = match order {
            3 => full.clone(),
            _ => (0..order).map(|i| full[i * order + i]).collect(),
        };
        near(&format!("diagonal {at}"), found, &expected)?;
    }

    // The matrices of rows, and the means of the others' eigenvalues.
    let (layers, scale) = case.factors(MEANS)?;
    let weights: Vec<f64> = (1..=ROWS).map(|n| n as f64 / 15.0).collect();
    let means = case.at(&signs, &[(scale, weights)], &tensors(&layers))?;
    for (at, (found, full)) in means.iter().zip(&expected).enumerate() {
        let order = isqrt(full.len());
        let trace: f64 = (0..order).map(|i| full[i * order + i]).sum();
        match at % 2 {
            0 => near(&format!("beside means {at}"), found, full)?,
            // 1 / order is an f32.
            _ => within(
                CONSTANTS,
                &format!("mean {at}"),
                found,
                &[trace / order as f64],
            )?,
        }
    }

    // Sketches of the same matrices on the left, with their traces.
    let (layers, scale) = case.factors(Sizes::up_to(3, 2))?;
    let weights = (1..=ROWS).map(|n| n as f64 / 15.0).collect();
    let sketches = case.at(&signs, &[(scale, weights)], &tensors(&layers))?;
    for (at, order) in [(0, 7), (2, 5)] {
        // With more columns than eigenvectors are wanted, as many as there are rows.
        let (full, random) = (&expected[at], test_matrix(order, order));
        let product: Vec<f64> = (0..order * order)
            .map(|e| {
                let (row, column) = (e / order, e % order);
                (0..order)
                    .map(|k| full[row * order + k] * f64::from(random[order * k + column]))
                    .sum()
            })
            .collect();
        let trace = (0..order).map(|i| full[i * order + i]).sum();
        let place = at / 2 * 3;
        near(&format!("sketch {at}"), &sketches[place], &product)?;
        near(&format!("trace {at}"), &sketches[place + 1], &[trace])?;
    }
    Ok(())
}

/// In deep linear networks with the squared error the cotangents do not depend on the example, and the mean over all signs is exact: the
/// Kronecker product of the factors is the block of the Gauss-Newton matrix (Bernacchia et al. 2018).
#[test]
fn in_deep_linear_networks_the_product_is_the_block_of_the_gauss_newton_matrix() -> Outcome {
    let network = Sequential::new().dense(2).dense(4).dense(CLASSES);
    let mut case = Case::new(Loss::MeanSquaredError, network, 3)?;
    let parameters = case.parameters();
    let (layers, scale) = case.factors(LARGE)?;
    let weights = vec![1.0 / ROWS as f64; ROWS];
    let wanted = tensors(&layers);
    let mut sides: Vec<Vec<f64>> = Vec::new();
    for signs in all_signs() {
        let drawn = case.at(&signs.repeat(ROWS), &[(scale, weights.clone())], &wanted)?;
        sides.resize(drawn.len(), Vec::new());
        for (sum, drawn) in sides.iter_mut().zip(drawn) {
            sum.resize(drawn.len(), 0.0);
            sum.iter_mut().zip(drawn).for_each(|(s, d)| *s += d / 8.0);
        }
    }
    let graph = &mut case.traced.graph;
    let mean = graph.sum(case.traced.losses, &[0])?;
    let share = graph.constant(1.0 / ROWS as f32, &[1]);
    let mean = graph.binary(Binary::Mul, share, mean)?;
    let directions: Vec<NodeId> = parameters
        .iter()
        .map(|&p| {
            let shape = graph.shape(p).clone();
            graph.direction(&shape)
        })
        .collect();
    let outputs = case.traced.outputs;
    let products = gauss_newton_product(graph, mean, outputs, &parameters, &directions)?;
    for (number, layer) in alone(&layers).iter().enumerate() {
        let bias = layer.bias.ok_or("a layer without its bias")?;
        let (a, b) = (&sides[2 * number], &sides[2 * number + 1]);
        let (rows, columns) = (
            (a.len() as f64).sqrt() as usize,
            (b.len() as f64).sqrt() as usize,
        );
        for unit in 0..rows * columns {
            let mut values: Vec<(NodeId, Vec<f64>)> = directions
                .iter()
                .zip(&case.leaves.parameters)
                .map(|(&node, like)| (node, vec![0.0; like.len()]))
                .collect();
            let (i, j) = (unit / columns, unit % columns);
            if i + 1 == rows {
                values[bias.parameter].1[j] = 1.0;
            } else {
                values[layer.weight].1[unit] = 1.0;
            }
            let wanted = [products[layer.weight], products[bias.parameter]];
            let block = case.at(&[1.0; ROWS * CLASSES], &values, &wanted)?.concat();
            let kronecker: Vec<f64> = (0..rows * columns)
                .map(|at| a[at / columns * rows + i] * b[at % columns * columns + j])
                .collect();
            // The twin holds 1 / ROWS as the f32 that the graph has.
            let found: Vec<f64> = kronecker
                .iter()
                .map(|k| k * 5.0 * f64::from(0.2f32))
                .collect();
            within(
                CONSTANTS,
                &format!("layer {number}, column {unit}"),
                &found,
                &block,
            )?;
        }
    }
    Ok(())
}

/// `A^-1 G B^-1` with leaves for the inverses, the bias as a last row, and diagonals.
#[test]
fn gradients_are_multiplied_from_both_sides() -> Outcome {
    let mut case = Case::new(Loss::SoftmaxCrossEntropy, mlp(), 6)?;
    let parameters = case.parameters();
    for sizes in [LARGE, Sizes::up_to(4, 0), Sizes::up_to(4, 2), MEANS] {
        let (layers, _) = case.factors(sizes)?;
        let graph = &mut case.traced.graph;
        let total = graph.sum(case.traced.losses, &[0])?;
        let gradients = gradient(graph, total, &parameters)?;
        let layers = alone(&layers);
        let leaves = function_leaves(graph, &layers);
        let results = preconditioned(graph, &layers, &gradients, &leaves)?;
        let mut values: Vec<(NodeId, Vec<f64>)> = Vec::new();
        let mut dense: Vec<[Vec<f64>; 2]> = Vec::new();
        for (number, (layer, own)) in layers.iter().zip(&leaves).enumerate() {
            let mut full = Vec::new();
            for (k, (side, leaves)) in layer.sides().zip(own).enumerate() {
                let n = side.size;
                let draw = random(n * n, (100 + 10 * number + k) as u64);
                let symmetric = |i: usize, j: usize| draw[i * n + j] + draw[j * n + i];
                // Of a sketch 0.7 - 1.5 M M^T.
                let sketched = |i: usize, j: usize| {
                    let one = if i == j { 0.7 } else { 0.0 };
                    one - 1.5 * (draw[2 * i] * draw[2 * j] + draw[2 * i + 1] * draw[2 * j + 1])
                };
                let (tensors, element): (Vec<Vec<f64>>, &dyn Fn(usize, usize) -> f64) =
                    match side.form {
                        Form::Full => {
                            let all = (0..n * n).map(|at| symmetric(at / n, at % n));
                            (vec![all.collect()], &symmetric)
                        }
                        Form::Diagonal => {
                            let all = (0..n).map(|i| symmetric(i, i));
                            (vec![all.collect()], &|i, j| {
                                if i == j { symmetric(i, i) } else { 0.0 }
                            })
                        }
                        Form::Mean => (vec![vec![draw[0]]], &|i, j| {
                            if i == j { draw[0] } else { 0.0 }
                        }),
                        Form::Sketch { .. } => {
                            (vec![draw[..2 * n].to_vec(), vec![0.7, -1.5]], &sketched)
                        }
                    };
                values.extend(leaves.iter().copied().zip(tensors));
                full.push(
                    (0..n * n)
                        .map(|at| element(at / n, at % n))
                        .collect::<Vec<f64>>(),
                );
            }
            let [left, right] = <[Vec<f64>; 2]>::try_from(full).map_err(|_| "one factor")?;
            dense.push([left, right]);
        }
        let signs = [1.0; ROWS * CLASSES];
        let g = case.at(&signs, &values, &gradients)?;
        let found = case.at(&signs, &values, &results)?;
        for (layer, [left, right]) in layers.iter().zip(&dense) {
            let bias = layer.bias.ok_or("a layer without its bias")?.parameter;
            let (rows, columns) = (isqrt(left.len()), isqrt(right.len()));
            let gradient = [&g[layer.weight][..], &g[bias]].concat();
            let expected: Vec<f64> = (0..rows * columns)
                .map(|at| {
                    let (i, j) = (at / columns, at % columns);
                    let term = |k: usize, l: usize| {
                        left[i * rows + k] * gradient[k * columns + l] * right[l * columns + j]
                    };
                    (0..rows)
                        .map(|k| (0..columns).map(|l| term(k, l)).sum::<f64>())
                        .sum()
                })
                .collect();
            let found = [&found[layer.weight][..], &found[bias]].concat();
            near(
                &format!("parameter {} with {sizes:?}", layer.weight),
                &found,
                &expected,
            )?;
        }
    }
    Ok(())
}

fn isqrt(n: usize) -> usize {
    (n as f64).sqrt() as usize
}

/// One tangent gives what a product gives.
#[test]
fn the_curvature_along_a_direction_is_that_of_the_gauss_newton_matrix() -> Outcome {
    for loss in Loss::ALL {
        let mut case = Case::new(loss, mlp(), 6)?;
        let parameters = case.parameters();
        let graph = &mut case.traced.graph;
        let total = graph.sum(case.traced.losses, &[0])?;
        let mut tangents = Vec::new();
        for &p in &parameters {
            let shape = graph.shape(p).clone();
            tangents.push((p, graph.direction(&shape)));
        }
        let directions: Vec<NodeId> = tangents.iter().map(|&(_, d)| d).collect();
        let outputs = case.traced.outputs;
        let along = curvature_along(graph, total, outputs, &tangents)?;
        let products = gauss_newton_product(graph, total, outputs, &parameters, &directions)?;
        let mut values = Vec::new();
        for (seed, (&d, like)) in directions.iter().zip(&case.leaves.parameters).enumerate() {
            values.push((d, random(like.len(), 200 + seed as u64)));
        }
        let signs = [1.0; ROWS * CLASSES];
        let found = case.at(&signs, &values, &[along])?.concat();
        let products = case.at(&signs, &values, &products)?.concat();
        let direction: Vec<f64> = values.iter().flat_map(|(_, v)| v.clone()).collect();
        let expected: f64 = products.iter().zip(&direction).map(|(a, b)| a * b).sum();
        near(&format!("{loss:?}"), &found, &[expected])?;
    }
    Ok(())
}

/// A weight that is used twice, once transposed, and parameters that enter once.
#[test]
fn parameters_that_are_used_otherwise() -> Outcome {
    let build = || -> osculant::Result<(Graph, [NodeId; 3], Vec<NodeId>)> {
        let builder = Builder::new();
        let x = builder.input("x", &[ROWS, 3]);
        let w = builder.parameter("w", &[3, 4]);
        let scale = builder.parameter("scale", &[3]);
        let h = x.dot(w).tanh();
        let z = h.dot(w.permute(&[1, 0])) * scale;
        let (z, h) = (z.id(), h.id());
        let mut graph = builder.finish()?;
        let root = graph.direction(&[ROWS, 3]);
        let parameters = graph.parameters().iter().map(|p| p.node).collect();
        Ok((graph, [z, root, h], parameters))
    };
    let (mut graph, [z, root, h], parameters) = build()?;
    let weights = graph.direction(&[ROWS]);
    let rows = mixture_rows(&mut graph, (z, root), &parameters)?;
    let layers = factors(
        &mut graph,
        &Curvature::of_rows(&rows),
        &parameters,
        weights,
        LARGE,
    )?;
    let [tied, once] = &layers[..] else {
        return Err(format!("{layers:?}").into());
    };
    let (both, single) = (tied.layer, once.layer);
    let left = both.left.ok_or("one factor of two")?;
    assert_eq!((left.size, both.right.size, both.bias), (3, 4, None));
    assert_eq!((single.left, single.right.size), (None, 3));
    let leaves = Leaves {
        parameters: vec![random(12, 1), random(3, 2)],
        inputs: vec![random(ROWS * 3, 3)],
        directions: vec![
            (root, random(ROWS * 3, 4)),
            (weights, vec![1.0 / ROWS as f64; ROWS]),
        ],
    };
    let [l, r, o] = [&tied.tensors[0], &tied.tensors[1], &once.tensors[0]].map(|t| t[0]);
    let wanted = [l, r, o, h, z];
    let found = evaluate(&graph, &leaves, &wanted)?;
    let (w, scale) = (&leaves.parameters[0], &leaves.parameters[1]);
    let mut expected = [vec![0.0; 9], vec![0.0; 16], vec![0.0; 9]];
    for n in 0..ROWS {
        let (x, h) = (
            &leaves.inputs[0][3 * n..3 * n + 3],
            &found[3][4 * n..4 * n + 4],
        );
        let u = &leaves.directions[0].1[3 * n..3 * n + 3];
        // z = scale * (W h): the cotangent of W h is scale * u, which is a factor of the rows of W, with h as that of its columns.
        let inner: Vec<f64> = (0..3).map(|i| scale[i] * u[i]).collect();
        let back: Vec<f64> = (0..4)
            .map(|j| (1.0 - h[j] * h[j]) * (0..3).map(|i| w[4 * i + j] * inner[i]).sum::<f64>())
            .collect();
        let own: Vec<f64> = (0..3)
            .map(|i| found[4][3 * n + i] / scale[i] * u[i])
            .collect();
        let share = 1.0 / ROWS as f64;
        // The mean of two uses on the left, the sum on the right.
        for (sum, v, share) in [
            (0, x, 0.5 * share),
            (0, &inner[..], 0.5 * share),
            (1, &back[..], share),
            (1, h, share),
            (2, &own[..], share),
        ] {
            for i in 0..v.len() {
                for j in 0..v.len() {
                    expected[sum][i * v.len() + j] += share * v[i] * v[j];
                }
            }
        }
    }
    for (at, expected) in expected.iter().enumerate() {
        near(&format!("factor {at}"), &found[at], expected)?;
    }
    Ok(())
}
