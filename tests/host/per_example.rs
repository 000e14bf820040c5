//! Quantities of examples in the f64 twin: against batches of one example, and against dense Gauss-Newton matrices.

use osculant::graph::derivatives::{gauss_newton_product, gradient};
use osculant::graph::kronecker::{Curvature, Layer, LayerFactors, Sizes, factors};
use osculant::graph::per_example::{
    ExampleRows, gradient_rows, mixture_rows, root_rows, square_sums, variance,
};
use osculant::graph::twin::{Leaves, evaluate};
use osculant::graph::{Binary, Graph, NodeId, Unary};
use osculant::nn::{
    Activation, DataShape, Init, Loss, Model, Output, Probe, Sequential, TargetShape, Traced,
};
use osculant::random::Philox;
use rand::RngExt;

pub(crate) type Outcome = std::result::Result<(), Box<dyn std::error::Error>>;

/// Both sides compute in f64 from graphs of the same constants.
pub(crate) const IDENTITIES: f64 = 1e-11;
/// Of what depends on `S S^T = H`, whose constants are f32, such as `sqrt(2 / 3)`.
pub(crate) const CONSTANTS: f64 = 1e-6;
pub(crate) const ROWS: usize = 5;
const FEATURES: usize = 4;
const OUTPUTS: usize = 3;
/// Not alike, one of them that of padding, and not of sum 1.
pub(crate) const WEIGHTS: [f64; ROWS] = [0.5, 0.0, 0.25, 1.0, 0.125];

pub(crate) fn within(tolerance: f64, what: &str, found: &[f64], expected: &[f64]) -> Outcome {
    let norm = |x: &mut dyn Iterator<Item = f64>| x.map(|v| v * v).sum::<f64>().sqrt();
    let off = norm(&mut found.iter().zip(expected).map(|(a, b)| a - b));
    let scale = norm(&mut expected.iter().copied());
    if found.len() == expected.len() && off <= tolerance * scale {
        return Ok(());
    }
    Err(format!("{what}: off by {off:.2e} of {scale:.2e}\n{found:?}\n{expected:?}").into())
}

pub(crate) fn random(count: usize, seed: u64) -> Vec<f64> {
    let mut draws = Philox::new(seed, 0);
    (0..count).map(|_| draws.random_range(-1.0..1.0)).collect()
}

fn shape_of(loss: Loss) -> DataShape {
    let targets = match loss {
        Loss::SoftmaxCrossEntropy => TargetShape::Classes(OUTPUTS),
        _ => TargetShape::Values(OUTPUTS),
    };
    DataShape {
        features: FEATURES,
        targets,
    }
}

fn network(activation: Activation, loss: Loss) -> Model {
    let layers = Sequential::new().dense(3).activation(activation);
    layers.dense(OUTPUTS).model(shape_of(loss), loss)
}

/// An autoencoder whose second weight is the first one, transposed, and whose first layer is used twice.
fn tied(loss: Loss) -> Model {
    let shape = DataShape {
        features: OUTPUTS,
        targets: shape_of(loss).targets,
    };
    Model::new(shape, move |scope| {
        let w = scope.parameter("w", &[OUTPUTS, 2], Init::Glorot);
        let b = scope.parameter("b", &[2], Init::Constant(0.0));
        let c = scope.parameter("c", &[OUTPUTS], Init::Constant(0.0));
        let x = scope.features();
        let h = (x.dot(w) + b).tanh() * ((x * 0.5).dot(w) + b).logistic();
        let z = h.dot(w.permute(&[1, 0])) + c;
        let losses = loss.apply(scope, z);
        Output {
            losses,
            outputs: z,
            metric: None,
        }
    })
    .with_curvature_root(move |scope, z, signs| loss.curvature_root(scope, z, signs))
    .with_residuals(move |scope, z| loss.residuals(scope, z))
}

/// A weight that is a matrix of products and, reshaped, a factor of single elements: terms of different kinds.
fn mixed(loss: Loss) -> Model {
    Model::new(shape_of(loss), move |scope| {
        let w = scope.parameter("w", &[FEATURES, OUTPUTS], Init::Glorot);
        let x = scope.features();
        let wide = x.concat(&[x, x], 1) * w.reshape(&[1, FEATURES * OUTPUTS]);
        let z = x.dot(w).tanh() + wide.sin().sum(&[1]);
        let losses = loss.apply(scope, z);
        Output {
            losses,
            outputs: z,
            metric: None,
        }
    })
    .with_curvature_root(move |scope, z, signs| loss.curvature_root(scope, z, signs))
    .with_residuals(move |scope, z| loss.residuals(scope, z))
}

/// All models that are tried, with their names.
pub(crate) fn models() -> Vec<(String, Model)> {
    let mut all = Vec::new();
    for activation in Activation::ALL {
        let loss = Loss::SoftmaxCrossEntropy;
        all.push((format!("{activation:?}"), network(activation, loss)));
    }
    for loss in Loss::ALL {
        all.push((format!("{loss:?}"), network(Activation::Tanh, loss)));
        all.push((format!("tied, {loss:?}"), tied(loss)));
        all.push((format!("mixed, {loss:?}"), mixed(loss)));
    }
    all
}

/// A model on a batch, with values of its leaves.
pub(crate) struct Case {
    pub(crate) traced: Traced,
    pub(crate) probe: Probe,
    pub(crate) parameters: Vec<NodeId>,
    pub(crate) weights: NodeId,
    pub(crate) leaves: Leaves,
}

impl Case {
    pub(crate) fn new(model: &Model, weights: &[f64]) -> osculant::Result<Self> {
        let rows = weights.len();
        let (mut traced, probe) = model.trace_with_probe(rows)?;
        let graph = &mut traced.graph;
        let size = |id: NodeId| graph.shape(id).iter().product::<usize>();
        let parameters: Vec<NodeId> = graph.parameters().iter().map(|p| p.node).collect();
        let values = parameters.iter().zip(1..);
        let values = values.map(|(&p, seed)| random(size(p), seed)).collect();
        let targets = model.shape().targets;
        let inputs = graph.inputs().iter().map(|input| {
            let drawn = random(size(input.node), 50);
            match (input.name.as_str(), targets) {
                ("targets", TargetShape::Classes(_)) => {
                    (0..rows).map(|row| (row % OUTPUTS) as f64).collect()
                }
                ("targets", _) => drawn.iter().map(|t| t.abs()).collect(),
                _ => random(size(input.node), 51),
            }
        });
        let mut leaves = Leaves {
            parameters: values,
            inputs: inputs.collect(),
            directions: Vec::new(),
        };
        let given = graph.direction(&[rows]);
        leaves.directions.push((given, weights.to_vec()));
        let probe = probe.ok_or(osculant::Error::Unsupported {
            what: "this model".into(),
            message: "has no probe".into(),
        })?;
        Ok(Self {
            traced,
            probe,
            parameters,
            weights: given,
            leaves,
        })
    }

    /// The same model on one of its examples.
    pub(crate) fn alone(&self, model: &Model, row: usize) -> osculant::Result<Self> {
        let mut one = Self::new(model, &[1.0])?;
        one.leaves.parameters.clone_from(&self.leaves.parameters);
        for (own, all) in one.leaves.inputs.iter_mut().zip(&self.leaves.inputs) {
            let width = own.len();
            own.copy_from_slice(&all[row * width..(row + 1) * width]);
        }
        Ok(one)
    }

    pub(crate) fn at(&self, wanted: &[NodeId]) -> osculant::Result<Vec<Vec<f64>>> {
        evaluate(&self.traced.graph, &self.leaves, wanted)
    }

    pub(crate) fn gradient_rows(&mut self) -> osculant::Result<Vec<ExampleRows>> {
        gradient_rows(&mut self.traced.graph, self.traced.losses, &self.parameters)
    }

    pub(crate) fn root_rows(&mut self) -> osculant::Result<Vec<ExampleRows>> {
        let root = (self.traced.outputs, self.probe.root, self.probe.signs);
        root_rows(&mut self.traced.graph, root, &self.parameters)
    }

    /// The gradients of all parameters and the dense Gauss-Newton matrix, row after row, of the sum of the losses.
    fn dense(&mut self) -> osculant::Result<(Vec<Vec<f64>>, Vec<f64>)> {
        let (losses, outputs) = (self.traced.losses, self.traced.outputs);
        let graph = &mut self.traced.graph;
        let total = graph.sum(losses, &[0])?;
        let gradients = gradient(graph, total, &self.parameters)?;
        let mut directions = Vec::new();
        for &parameter in &self.parameters {
            let shape = graph.shape(parameter).clone();
            directions.push(graph.direction(&shape));
        }
        let products = gauss_newton_product(graph, total, outputs, &self.parameters, &directions)?;
        let gradients = self.at(&gradients)?;
        let sizes: Vec<usize> = gradients.iter().map(Vec::len).collect();
        let mut matrix = Vec::new();
        for unit in 0..sizes.iter().sum() {
            let mut leaves = self.leaves.clone();
            let mut start = 0;
            for (&direction, &size) in directions.iter().zip(&sizes) {
                let values = (start..start + size).map(|at| f64::from(u8::from(at == unit)));
                leaves.directions.push((direction, values.collect()));
                start += size;
            }
            matrix.extend(evaluate(&self.traced.graph, &leaves, &products)?.concat());
        }
        Ok((gradients, matrix))
    }
}

/// What batches of one example have.
struct Alone {
    /// Of each example those of all parameters.
    gradients: Vec<Vec<Vec<f64>>>,
    matrices: Vec<Vec<f64>>,
}

impl Alone {
    fn new(model: &Model, case: &Case) -> osculant::Result<Self> {
        let rows = 0..case.leaves.directions[0].1.len();
        let each = rows.map(|row| case.alone(model, row)?.dense());
        let (gradients, matrices) = each
            .collect::<osculant::Result<Vec<_>>>()?
            .into_iter()
            .unzip();
        Ok(Self {
            gradients,
            matrices,
        })
    }

    /// The diagonal of an example's matrix, one list for each parameter.
    fn diagonal(&self, row: usize) -> Vec<Vec<f64>> {
        let matrix = &self.matrices[row];
        let size = (matrix.len() as f64).sqrt() as usize;
        let mut diagonal = (0..size).map(|i| matrix[i * size + i]);
        let sizes = self.gradients[row].iter().map(Vec::len);
        sizes
            .map(|size| diagonal.by_ref().take(size).collect())
            .collect()
    }

    /// `sum_n w_n f(example n)` for parameter `p`.
    fn sum(&self, weights: &[f64], f: impl Fn(usize) -> Vec<f64>) -> Vec<f64> {
        let mut sum = vec![0.0; f(0).len()];
        for (row, weight) in weights.iter().enumerate() {
            sum.iter_mut()
                .zip(f(row))
                .for_each(|(s, x)| *s += weight * x);
        }
        sum
    }
}

fn squares(x: &[f64]) -> Vec<f64> {
    x.iter().map(|x| x * x).collect()
}

fn dot(a: &[f64], b: &[f64]) -> f64 {
    a.iter().zip(b).map(|(a, b)| a * b).sum()
}

/// Gradients, their norms, inner products, sums, squares and variances.
#[test]
fn gradients_are_those_of_batches_of_one_example() -> Outcome {
    let probabilities: Vec<f64> = WEIGHTS.iter().map(|w| w / 1.875).collect();
    for (name, model) in models() {
        let mut case = Case::new(&model, &WEIGHTS)?;
        let alone = Alone::new(&model, &case)?;
        let rows = case.gradient_rows()?;
        let weights = case.weights;
        let graph = &mut case.traced.graph;
        let shares = graph.direction(&[ROWS]);
        let mut wanted = Vec::new();
        for rows in &rows {
            let scaled = rows.scaled(graph, weights)?;
            let square = graph.binary(Binary::Mul, weights, weights)?;
            let squares = rows.squared(graph, square)?;
            wanted.push([
                scaled.formed(graph)?,
                scaled.sum(graph)?,
                scaled.inner_products(graph)?,
                squares.sum_over_elements(graph)?,
                squares.sum(graph)?,
                variance(graph, rows, shares)?,
            ]);
        }
        case.leaves.directions.push((shares, probabilities.clone()));
        for (p, wanted) in wanted.iter().enumerate() {
            let found = case.at(wanted)?;
            let own: Vec<Vec<f64>> = (0..ROWS)
                .map(|n| {
                    alone.gradients[n][p]
                        .iter()
                        .map(|g| WEIGHTS[n] * g)
                        .collect()
                })
                .collect();
            let of = |row: usize| alone.gradients[row][p].clone();
            let mean = alone.sum(&probabilities, of);
            let off = |row: usize| {
                let g = &alone.gradients[row][p];
                g.iter().zip(&mean).map(|(g, m)| (g - m).powi(2)).collect()
            };
            let products = |a: &Vec<f64>| own.iter().map(|b| dot(a, b)).collect::<Vec<f64>>();
            let expected = [
                own.concat(),
                alone.sum(&WEIGHTS, of),
                own.iter().flat_map(products).collect(),
                own.iter().map(|g| dot(g, g)).collect(),
                alone.sum(&[1.0; ROWS], |row| squares(&own[row])),
                alone.sum(&probabilities, off),
            ];
            for (at, (found, expected)) in found.iter().zip(&expected).enumerate() {
                let what = format!("{name}, parameter {p}, quantity {at}");
                within(IDENTITIES, &what, found, expected)?;
            }
        }
    }
    Ok(())
}

/// Of the weighted gradient that is there: `sum_n w_n g_n^2`.
#[test]
fn sums_of_squares_out_of_a_gradient_are_those_of_its_examples() -> Outcome {
    for (name, model) in models() {
        let mut case = Case::new(&model, &WEIGHTS)?;
        let alone = Alone::new(&model, &case)?;
        let graph = &mut case.traced.graph;
        let input = graph.input("weights", &[ROWS], osculant::graph::DType::F32)?;
        let weighted = graph.binary(Binary::Mul, input, case.traced.losses)?;
        let loss = graph.sum(weighted, &[0])?;
        let gradients = gradient(graph, loss, &case.parameters)?;
        let sums = square_sums(graph, &gradients, input)?;
        case.leaves.inputs.push(WEIGHTS.to_vec());
        for (p, found) in case.at(&sums)?.iter().enumerate() {
            let expected = alone.sum(&WEIGHTS, |row| squares(&alone.gradients[row][p]));
            within(
                IDENTITIES,
                &format!("{name}, parameter {p}"),
                found,
                &expected,
            )?;
        }
    }
    Ok(())
}

/// All columns of the root: diagonals, as sums and of each example, the root itself, and its Gram matrix.
#[test]
fn columns_of_the_root_give_the_gauss_newton_matrix() -> Outcome {
    for (name, model) in models() {
        let mut case = Case::new(&model, &WEIGHTS)?;
        let alone = Alone::new(&model, &case)?;
        let rows = case.root_rows()?;
        let weights = case.weights;
        let graph = &mut case.traced.graph;
        let root = graph.unary(Unary::Sqrt, weights)?;
        let (mut diagonals, mut formed, mut gram) = (Vec::new(), Vec::new(), None);
        for rows in &rows {
            assert_eq!(rows.columns(), OUTPUTS);
            let squares = rows.squared(graph, weights)?;
            let each = squares.sum_over_columns(graph)?.formed(graph)?;
            diagonals.push([squares.sum(graph)?, each]);
            let scaled = rows.scaled(graph, root)?;
            formed.push(scaled.formed(graph)?);
            let products = scaled.inner_products(graph)?;
            gram = Some(match gram {
                None => products,
                Some(sum) => graph.binary(Binary::Add, sum, products)?,
            });
        }
        for (p, wanted) in diagonals.iter().enumerate() {
            let found = case.at(wanted)?;
            let sum = alone.sum(&WEIGHTS, |row| alone.diagonal(row)[p].clone());
            let each = (0..ROWS).flat_map(|row| {
                let diagonal = alone.diagonal(row)[p].clone();
                diagonal.into_iter().map(move |d| WEIGHTS[row] * d)
            });
            within(CONSTANTS, &format!("{name}, diagonal {p}"), &found[0], &sum)?;
            within(
                CONSTANTS,
                &format!("{name}, diagonals {p}"),
                &found[1],
                &each.collect::<Vec<_>>(),
            )?;
        }
        // V^T V is the matrix, V V^T the Gram matrix.
        let parts = case.at(&formed)?;
        let row = |at: usize| -> Vec<f64> {
            let of = |part: &Vec<f64>| {
                let width = part.len() / (OUTPUTS * ROWS);
                part[at * width..(at + 1) * width].to_vec()
            };
            parts.iter().flat_map(of).collect()
        };
        let all: Vec<Vec<f64>> = (0..OUTPUTS * ROWS).map(row).collect();
        let size = all[0].len();
        let matrix: Vec<f64> = (0..size * size)
            .map(|at| all.iter().map(|v| v[at / size] * v[at % size]).sum())
            .collect();
        let expected = alone.sum(&WEIGHTS, |row| alone.matrices[row].clone());
        within(CONSTANTS, &format!("{name}, matrix"), &matrix, &expected)?;
        let products: Vec<f64> = all
            .iter()
            .flat_map(|a| all.iter().map(|b| dot(a, b)))
            .collect();
        let found = case.at(&[gram.ok_or("no parameters")?])?;
        within(
            IDENTITIES,
            &format!("{name}, Gram matrix"),
            &found[0],
            &products,
        )?;
    }
    Ok(())
}

/// The mean over all signs of what one mixture gives is what all columns give.
#[test]
fn one_mixture_has_the_mean_of_all_columns() -> Outcome {
    for (name, model) in models() {
        let mut case = Case::new(&model, &WEIGHTS)?;
        let root = (case.traced.outputs, case.probe.root);
        let mixed = mixture_rows(&mut case.traced.graph, root, &case.parameters)?;
        let exact = case.root_rows()?;
        let weights = case.weights;
        let graph = &mut case.traced.graph;
        let mut diagonal = |rows: &[ExampleRows]| -> osculant::Result<Vec<NodeId>> {
            let of = |rows: &ExampleRows| rows.squared(graph, weights)?.sum(graph);
            rows.iter().map(of).collect()
        };
        let (mixed, exact) = (diagonal(&mixed)?, diagonal(&exact)?);
        let expected = case.at(&exact)?.concat();
        let mut mean = vec![0.0; expected.len()];
        for bits in 0..1usize << OUTPUTS {
            let sign = |c: usize| if bits >> c & 1 == 1 { 1.0 } else { -1.0 };
            let signs: Vec<f64> = (0..ROWS * OUTPUTS).map(|at| sign(at % OUTPUTS)).collect();
            case.leaves.directions.push((case.probe.signs, signs));
            let found = case.at(&mixed)?.concat();
            case.leaves.directions.pop();
            mean.iter_mut().zip(found).for_each(|(m, x)| *m += x / 8.0);
        }
        within(CONSTANTS, &name, &mean, &expected)?;
    }
    Ok(())
}

/// `n` rows of which all but `off` of the size of the mean is alike: nothing is left of an f32 difference of moments, and in f64 a
/// difference loses what the centred rows keep.
#[test]
fn variances_do_not_lose_their_digits_to_the_mean() -> Outcome {
    let model = network(Activation::Tanh, Loss::MeanSquaredError);
    let mut case = Case::new(&model, &[0.25; 4])?;
    let first: Vec<f64> = case.leaves.inputs[0][..FEATURES].to_vec();
    for (row, x) in case.leaves.inputs[0].chunks_mut(FEATURES).enumerate() {
        let off = random(FEATURES, 90 + row as u64);
        x.iter_mut()
            .zip(&first)
            .zip(off)
            .for_each(|((x, f), off)| *x = f + 1e-6 * off);
    }
    let target: Vec<f64> = case.leaves.inputs[1][..OUTPUTS].to_vec();
    case.leaves.inputs[1] = target.repeat(4);
    let alone = Alone::new(&model, &case)?;
    let rows = case.gradient_rows()?;
    let weights = case.weights;
    let graph = &mut case.traced.graph;
    let variances: Vec<NodeId> = rows
        .iter()
        .map(|rows| variance(graph, rows, weights))
        .collect::<osculant::Result<_>>()?;
    for (p, found) in case.at(&variances)?.iter().enumerate() {
        let mean = alone.sum(&[0.25; 4], |row| alone.gradients[row][p].clone());
        let expected = alone.sum(&[0.25; 4], |row| {
            let g = &alone.gradients[row][p];
            g.iter().zip(&mean).map(|(g, m)| (g - m).powi(2)).collect()
        });
        // Deviations of 1e-6 keep ten digits of f64, their squares as many; a difference of moments would keep four.
        within(1e-8, &format!("parameter {p}"), found, &expected)?;
    }
    Ok(())
}

fn dense_block(layer: &Layer, sizes: &[usize], matrix: &[f64]) -> Vec<f64> {
    let total: usize = sizes.iter().sum();
    let start = |p: usize| sizes[..p].iter().sum::<usize>();
    let mut places: Vec<usize> = (start(layer.weight)..).take(sizes[layer.weight]).collect();
    if let Some(bias) = layer.bias {
        places.extend((start(bias.parameter)..).take(sizes[bias.parameter]));
    }
    let rows = places.iter();
    rows.flat_map(|&i| places.iter().map(move |&j| matrix[i * total + j]))
        .collect()
}

/// `A (x) B` of the bias-appended weight, row after row.
fn kronecker(a: &[f64], b: &[f64]) -> Vec<f64> {
    let (n, m) = (
        (a.len() as f64).sqrt() as usize,
        (b.len() as f64).sqrt() as usize,
    );
    let element = |at: usize| {
        let (i, j) = (at / (n * m), at % (n * m));
        a[i / m * n + j / m] * b[i % m * m + j % m]
    };
    (0..n * n * m * m).map(element).collect()
}

/// Exact factors, of all columns, are the blocks of the matrix where a Kronecker product can be: for deep linear networks with the squared
/// error, and for one example beside padding, whatever network and loss.
#[test]
fn exact_factors_are_the_blocks_of_the_gauss_newton_matrix() -> Outcome {
    let linear = Sequential::new().dense(2).dense(4).dense(OUTPUTS);
    let linear = linear.model(shape_of(Loss::MeanSquaredError), Loss::MeanSquaredError);
    let mut cases = vec![("deep linear".to_owned(), linear, vec![0.25, 0.5, 0.25])];
    for (name, model) in models() {
        if !name.starts_with("tied") && !name.starts_with("mixed") {
            cases.push((name, model, vec![1.0, 0.0]));
        }
    }
    for (name, model, weights) in cases {
        let mut case = Case::new(&model, &weights)?;
        let alone = Alone::new(&model, &case)?;
        let rows = case.root_rows()?;
        let scale = case.weights;
        let graph: &mut Graph = &mut case.traced.graph;
        let sizes = Sizes::up_to(100, 0);
        let layers = factors(
            graph,
            &Curvature::of_rows(&rows),
            &case.parameters,
            scale,
            sizes,
        )?;
        let matrix = alone.sum(&weights, |row| alone.matrices[row].clone());
        let parameters: Vec<usize> = case.leaves.parameters.iter().map(Vec::len).collect();
        for LayerFactors { layer, tensors, .. } in &layers {
            let sides: Vec<NodeId> = tensors.iter().map(|side| side[0]).collect();
            let [a, b] = &case.at(&sides)?[..] else {
                return Err("one factor".into());
            };
            let expected = dense_block(layer, &parameters, &matrix);
            within(
                CONSTANTS,
                &format!("{name}, parameter {}", layer.weight),
                &kronecker(a, b),
                &expected,
            )?;
        }
    }
    Ok(())
}

/// Factors of gradients: `A` of the inputs, `B` the second moment of the cotangents of the losses.
#[test]
fn empirical_factors_are_moments_of_gradients() -> Outcome {
    let model = network(Activation::Tanh, Loss::SoftmaxCrossEntropy);
    let shares: Vec<f64> = WEIGHTS.iter().map(|w| w / 1.875).collect();
    let mut case = Case::new(&model, &shares)?;
    let alone = Alone::new(&model, &case)?;
    let rows = case.gradient_rows()?;
    let scale = case.weights;
    let sizes = Sizes::up_to(100, 0);
    let layers = factors(
        &mut case.traced.graph,
        &Curvature::of_rows(&rows),
        &case.parameters,
        scale,
        sizes,
    )?;
    for LayerFactors { layer, tensors, .. } in &layers {
        // The gradient of a bias is the cotangent.
        let bias = layer.bias.ok_or("a layer without its bias")?.parameter;
        let expected = alone.sum(&shares, |row| {
            let d = &alone.gradients[row][bias];
            d.iter()
                .flat_map(|a| d.iter().map(move |b| a * b))
                .collect()
        });
        let found = case.at(&tensors[1])?;
        within(
            IDENTITIES,
            &format!("parameter {}", layer.weight),
            &found[0],
            &expected,
        )?;
    }
    Ok(())
}
