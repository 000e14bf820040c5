//! The curvature of each layer as a Kronecker product (Martens and Grosse 2015, "Optimizing neural
//! networks with Kronecker-factored approximate curvature").
//!
//! Backpropagation of the columns of a root of the output Hessian, `S S^T = H_loss`, gives the Gauss-Newton matrix: its block of a dense
//! layer with inputs `a_n` and cotangents `b_n` is `sum_n (a_n a_n^T) (x) (b_n b_n^T)`. Its factors are taken apart,
//!
//! ```text
//! A = sum_n w_n a_n a_n^T        B = sum_n w_n b_n b_n^T        with weights that add up to 1,
//! ```
//!
//! where `b_n` is one random mixture of the columns, so that `B` has the mean of them all; or `B` is the sum over all columns, and exact.
//! No layer knows of this: `a_n` and `b_n` are the two factors of a row of an example ([`per_example`](super::per_example)).

use rand_distr::{Distribution, StandardNormal};

use super::example_rows::ExampleRows;
use super::fusion::same_buffer;
use super::node::{Graph, NodeId, elements};
use super::op::Binary;
use super::terms::Term;
use crate::error::{Error, Result};
use crate::random::Philox;

/// First stream of random matrices: no other part of the crate draws from these.
const STREAM: u64 = 11 << 48;

/// How a factor `F` of order `n` is held.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Form {
    /// The matrix `[n, n]`, and functions of it.
    Full,
    /// Its diagonal `[n]`, and functions of that.
    Diagonal,
    /// Its product `[n, columns]` with a random matrix, and its trace `[1]`; a function of it is `s + w M M^T` with `M` `[n, rank]`, and `s`
    /// and `w` in `[2]`.
    Sketch {
        /// Columns of the random matrix.
        columns: usize,
        /// Eigenvectors that functions of it know, at most as many.
        rank: usize,
    },
}

impl Form {
    /// The tensors of a factor of order `n`.
    #[must_use]
    pub fn shapes(self, n: usize) -> Vec<Vec<usize>> {
        match self {
            Form::Full => vec![vec![n, n]],
            Form::Diagonal => vec![vec![n]],
            Form::Sketch { columns, .. } => vec![vec![n, columns], vec![1]],
        }
    }

    /// The tensors of a function of it, such as its inverse; as many.
    #[must_use]
    pub fn function_shapes(self, n: usize) -> Vec<Vec<usize>> {
        match self {
            Form::Sketch { rank, .. } => vec![vec![n, rank], vec![2]],
            _ => self.shapes(n),
        }
    }
}

/// One factor of a layer's curvature.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Side {
    /// Its order.
    pub size: usize,
    /// How it is held.
    pub form: Form,
}

impl Side {
    /// The shapes of its tensors.
    #[must_use]
    pub fn shapes(&self) -> Vec<Vec<usize>> {
        self.form.shapes(self.size)
    }

    /// The shapes of the tensors of a function of it, as many.
    #[must_use]
    pub fn function_shapes(&self) -> Vec<Vec<usize>> {
        self.form.function_shapes(self.size)
    }
}

/// How large a factor may be to be held as a matrix.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Sizes {
    /// Order up to which factors are matrices. Larger ones of columns are diagonals.
    pub largest: usize,
    /// Eigenvectors that are known of larger ones of rows, by a sketch of [`OVERSAMPLING`] more columns.
    pub rank: usize,
}

/// Columns of a sketch beyond the eigenvectors that are taken from it: a sketch of few columns may miss a leading one (Halko, Martinsson and
/// Tropp 2011 take 5 or 10). They are computed at refreshes only, and no step multiplies by them.
pub const OVERSAMPLING: usize = 8;

impl Sizes {
    fn form(self, axis: usize, size: usize) -> Form {
        if size <= self.largest {
            Form::Full
        } else if axis == 0 && self.rank > 0 {
            Form::Sketch {
                columns: (self.rank + OVERSAMPLING).min(size),
                rank: self.rank.min(size),
            }
        } else {
            Form::Diagonal
        }
    }
}

/// The random matrix `[n, columns]` of the sketches of factors of order `n`, row after row: standard normal numbers, the same on every device.
#[must_use]
pub fn test_matrix(n: usize, columns: usize) -> Vec<f32> {
    let random = Philox::new(0, STREAM + n as u64);
    let numbers = StandardNormal.sample_iter(random).take(n * columns);
    numbers.map(|x: f64| x as f32).collect()
}

/// A bias that belongs to a weight: its gradient is the sum of one of the two factors of the weight's, as if the other one had a further
/// element of 1, and of 0 in uses of the weight without the bias, as those by derivatives with respect to inputs are.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Appended {
    /// Which parameter.
    pub parameter: usize,
    /// The axis of the weight along which it is one more row (0) or column (1).
    pub axis: usize,
}

/// A parameter, or a weight with its bias, whose curvature is a Kronecker product.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Layer {
    /// Which parameter.
    pub weight: usize,
    /// The bias that goes with it.
    pub bias: Option<Appended>,
    /// The factor of its rows; none for a parameter that enters an example once, whose gradient has one factor.
    pub left: Option<Side>,
    /// The factor of its columns.
    pub right: Side,
}

impl Layer {
    /// Its factors.
    pub fn sides(&self) -> impl Iterator<Item = &Side> {
        self.left.iter().chain(std::iter::once(&self.right))
    }
}

/// The factors of a layer in a graph.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LayerFactors {
    /// What they are factors of.
    pub layer: Layer,
    /// For each of its [sides](Layer::sides) the nodes of its tensors.
    pub tensors: Vec<Vec<NodeId>>,
}

impl LayerFactors {
    /// The nodes of all its tensors.
    pub fn nodes(&self) -> impl Iterator<Item = &NodeId> {
        self.tensors.iter().flatten()
    }
}

/// The nodes of a factor's tensors.
type Tensors = Vec<NodeId>;

/// The terms of one parameter's gradient, each as `[1, n, size]` factors: the left one is missing where there is one factor.
type Uses = Vec<(Option<NodeId>, NodeId)>;

/// The factors of every parameter's curvature, from its rows and weights `scale` `[n]` of the examples that add up to 1: of the
/// Gauss-Newton matrix from all columns of a root ([`root_rows`](super::per_example::root_rows)) or a random mixture of them
/// ([`mixture_rows`](super::per_example::mixture_rows)), of the empirical Fisher matrix from gradients
/// ([`gradient_rows`](super::per_example::gradient_rows)).
///
/// A parameter that is used several times has the mean of its uses' left factors, and the sum of their right ones ("expand" of Eschenhagen
/// et al. 2023).
///
/// # Errors
/// [`Error::Unsupported`] for a parameter whose gradient does not end in a sum over the batch of products of two factors, as that of a
/// single example; [`Error::Length`] where there are not as many rows as parameters.
pub fn factors(
    graph: &mut Graph,
    rows: &[ExampleRows],
    parameters: &[NodeId],
    scale: NodeId,
    sizes: Sizes,
) -> Result<Vec<LayerFactors>> {
    if rows.len() != parameters.len() {
        return Err(Error::Length {
            what: "the list of rows of parameters".into(),
            found: rows.len(),
            expected: parameters.len(),
        });
    }
    let mut uses = Vec::with_capacity(parameters.len());
    for (rows, &parameter) in rows.iter().zip(parameters) {
        let found = match rows.terms() {
            terms if !terms.is_empty() && rows.examples() > 1 => factored(graph, terms)?,
            _ => None,
        };
        uses.push(found.ok_or_else(|| without_structure(graph, parameter))?);
    }
    let biases = pair(graph, &uses);
    let is_bias = |p: usize| (biases.iter().flatten()).any(|bias| bias.appended.parameter == p);
    let mut layers = Vec::new();
    for (weight, uses) in uses.iter().enumerate().filter(|&(p, _)| !is_bias(p)) {
        let bias = &biases[weight];
        let [mut left, mut right] = [None, None];
        for (at, &(l, r)) in uses.iter().enumerate() {
            let along = |axis: usize| {
                let bias = bias.as_ref().filter(|bias| bias.appended.axis == axis)?;
                Some(bias.present[at])
            };
            if let Some(l) = l {
                left = Some(moment(graph, left, (l, scale), (0, along(0)), sizes)?);
            }
            right = Some(moment(graph, right, (r, scale), (1, along(1)), sizes)?);
        }
        let Some(right) = right else {
            return Err(without_structure(graph, parameters[weight]));
        };
        if let (Some((_, tensors)), 2..) = (&mut left, uses.len()) {
            for tensor in tensors {
                let shape = graph.shape(*tensor).clone();
                let share = graph.constant(1.0 / uses.len() as f32, &shape);
                *tensor = graph.binary(Binary::Mul, share, *tensor)?;
            }
        }
        let (left, tensors): (Option<Side>, Option<Tensors>) = left.unzip();
        layers.push(LayerFactors {
            layer: Layer {
                weight,
                bias: bias.as_ref().map(|bias| bias.appended),
                left,
                right: right.0,
            },
            tensors: tensors.into_iter().chain([right.1]).collect(),
        });
    }
    Ok(layers)
}

/// All terms as pairs of factors, the columns one after another; none where they are of different kinds or sizes.
fn factored(graph: &mut Graph, terms: &[Term]) -> Result<Option<Uses>> {
    let mut flat = |factor: NodeId| {
        let shape = graph.shape(factor).clone();
        graph.reshape(factor, &[1, shape[0] * shape[1], shape[2]])
    };
    let mut uses = Uses::new();
    for &term in terms {
        uses.push(match term {
            Term::Outer(left, right) => (Some(flat(left)?), flat(right)?),
            Term::Rows(rows) => (None, flat(rows)?),
        });
    }
    let alike = |a: NodeId, b: NodeId| graph.shape(a) == graph.shape(b);
    let (left, right) = uses[0];
    let same = uses.iter().all(|&(l, r)| {
        alike(r, right)
            && match (l, left) {
                (Some(l), Some(left)) => alike(l, left),
                (l, left) => l.is_none() && left.is_none(),
            }
    });
    Ok(same.then_some(uses))
}

/// A bias in the uses of its weight.
struct Bias {
    appended: Appended,
    /// For each use of the weight, whether the bias is in it.
    present: Vec<bool>,
}

/// For each parameter of two factors the one of a single factor that is one of these, each of its uses in one of the weight's.
fn pair(graph: &Graph, uses: &[Uses]) -> Vec<Option<Bias>> {
    let mut taken = vec![false; uses.len()];
    let same = |a: NodeId, b: NodeId| same_buffer(graph, a) == same_buffer(graph, b);
    let mut biases = Vec::with_capacity(uses.len());
    for weight in uses {
        // Which uses of the weight are those of the bias, if all of the bias's are among them.
        let present = |bias: &Uses, axis: usize| {
            let mut present = vec![false; weight.len()];
            for b in bias {
                let fits = |(left, right): (Option<NodeId>, NodeId)| match (b.0, left) {
                    (None, Some(left)) => same(b.1, if axis == 0 { right } else { left }),
                    _ => false,
                };
                let at = (0..weight.len()).find(|&at| !present[at] && fits(weight[at]))?;
                present[at] = true;
            }
            Some(present)
        };
        let mut candidates = (0..uses.len()).flat_map(|p| [(p, 0), (p, 1)]);
        biases.push(candidates.find_map(|(parameter, axis)| {
            let present = (!taken[parameter]).then(|| present(&uses[parameter], axis));
            let present = present.flatten()?;
            taken[parameter] = true;
            let appended = Appended { parameter, axis };
            Some(Bias { appended, present })
        }));
    }
    biases
}

/// Adds `sum_n scale_n x_n x_n^T` of rows `x` `[1, n, size]` in its form; a bias along the factor's axis appends a 1 to each row, or a 0
/// where this use is without it.
///
/// The ones are never laid out beside the rows: `[x s]^T x`, with the scale `s` beside the scaled rows, has all but the last column of the
/// factor, and that is its last row.
fn moment(
    graph: &mut Graph,
    before: Option<(Side, Tensors)>,
    (x, scale): (NodeId, NodeId),
    (axis, appended): (usize, Option<bool>),
    sizes: Sizes,
) -> Result<(Side, Tensors)> {
    let shape = graph.shape(x).clone();
    let (own, size) = (shape[2], shape[2] + usize::from(appended.is_some()));
    // The same weights for all columns of an example.
    let examples = elements(graph.shape(scale));
    let scale = graph.reshape(scale, &[1, examples])?;
    let scale = graph.broadcast(scale, &[shape[1] / examples, examples])?;
    let column = graph.reshape(scale, &[1, shape[1], 1])?;
    let scale = graph.broadcast(column, &shape)?;
    let weighted = graph.binary(Binary::Mul, scale, x)?;
    let form = sizes.form(axis, size);
    let rows = Rows {
        x,
        weighted,
        column,
        own,
        appended,
    };
    let mut tensors = match form {
        Form::Full => vec![rows.full(graph)?],
        Form::Diagonal => vec![rows.diagonal(graph)?],
        Form::Sketch { columns, .. } => rows.sketch(graph, columns)?.to_vec(),
    };
    for (tensor, shape) in tensors.iter_mut().zip(form.shapes(size)) {
        *tensor = graph.reshape(*tensor, &shape)?;
    }
    if let Some((_, before)) = before {
        for (tensor, before) in tensors.iter_mut().zip(before) {
            *tensor = graph.binary(Binary::Add, before, *tensor)?;
        }
    }
    Ok((Side { size, form }, tensors))
}

/// Rows of a factor, and the same times their scale `column`.
struct Rows {
    x: NodeId,
    weighted: NodeId,
    column: NodeId,
    /// Elements of a row without the appended one.
    own: usize,
    /// Whether a 1 or a 0 is appended, if any.
    appended: Option<bool>,
}

impl Rows {
    /// The order of the factor.
    fn size(&self) -> usize {
        self.own + usize::from(self.appended.is_some())
    }

    fn full(&self, graph: &mut Graph) -> Result<NodeId> {
        let Some(true) = self.appended else {
            let product = graph.dot(self.weighted, self.x, true, false)?;
            let size = self.size();
            return graph.pad(product, &[0; 3], &[1, size, size]);
        };
        let rows = graph.concat(&[self.weighted, self.column], 2)?;
        let product = graph.dot(rows, self.x, true, false)?;
        let mean = graph.slice(product, &[0, self.own, 0], &[1, 1, self.own])?;
        let mean = graph.permute(mean, &[0, 2, 1])?;
        let one = graph.constant(1.0, &[1, 1, 1]);
        let last = graph.concat(&[mean, one], 1)?;
        graph.concat(&[product, last], 2)
    }

    fn diagonal(&self, graph: &mut Graph) -> Result<NodeId> {
        let squares = graph.binary(Binary::Mul, self.weighted, self.x)?;
        let sum = graph.sum(squares, &[1])?;
        let Some(true) = self.appended else {
            return graph.pad(sum, &[0; 3], &[1, 1, self.size()]);
        };
        let one = graph.constant(1.0, &[1, 1, 1]);
        graph.concat(&[sum, one], 2)
    }

    /// The product with the random matrix, and the trace.
    fn sketch(&self, graph: &mut Graph, columns: usize) -> Result<[NodeId; 2]> {
        let random = test_matrix(self.size(), columns);
        let own = random[..self.own * columns].to_vec();
        let own = graph.data_tensor(own, &[1, self.own, columns])?;
        let mut seen = graph.dot(self.weighted, own, false, false)?;
        if self.appended == Some(true) {
            let last = random[self.own * columns..].to_vec();
            let last = graph.data_tensor(last, &[1, 1, columns])?;
            let shape = graph.shape(seen).clone();
            let last = graph.broadcast(last, &shape)?;
            let column = graph.broadcast(self.column, &shape)?;
            let constant = graph.binary(Binary::Mul, column, last)?;
            seen = graph.binary(Binary::Add, seen, constant)?;
        }
        let mut product = graph.dot(self.x, seen, true, false)?;
        let squares = graph.binary(Binary::Mul, self.weighted, self.x)?;
        let mut trace = graph.sum(squares, &[1, 2])?;
        if self.appended == Some(true) {
            let last = graph.sum(seen, &[1])?;
            product = graph.concat(&[product, last], 1)?;
            let one = graph.constant(1.0, &[1, 1, 1]);
            trace = graph.binary(Binary::Add, trace, one)?;
        }
        product = graph.pad(product, &[0; 3], &[1, self.size(), columns])?;
        Ok([product, trace])
    }
}

fn without_structure(graph: &Graph, parameter: NodeId) -> Error {
    Error::Unsupported {
        what: "the Kronecker factors of the curvature".into(),
        message: format!(
            "the gradient of {} is no sum over at least two examples of products of two factors; train it by another method, or give \
             batches of at least two rows",
            graph.describe(parameter)
        ),
    }
}
