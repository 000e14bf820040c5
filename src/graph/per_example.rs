//! What is known of each example: quantities of per-example gradients and of a root of the Gauss-Newton matrix, without forming them where
//! that is not asked for.
//!
//! Both are matrices with a row for each example (and for each column of the root), which backpropagation has in factors:
//! [`gradient_rows`], [`root_rows`] and [`mixture_rows`] stop it before its sum over the batch, and [`ExampleRows`] is the little algebra of which all
//! quantities are made: scale, square, centre, multiply with one another, and sum over examples, over columns or over elements. The names
//! of these quantities, and those of BackPACK (Dangel, Kunstner and Hennig 2020, "BackPACK: Packing more into backprop"), are in
//! `docs/statistics.md`.
//!
//! For a dense layer a row is `x_n d_n^T`, and `sum_n (x_n d_n^T)^2 = (X*X)^T (D*D)` is one `dot` (Goodfellow 2015, "Efficient per-example
//! gradient computations"). A parameter that is used several times has rows that are sums of such terms, and the square of a sum is the
//! sum over pairs of terms.

use std::collections::HashMap;

use super::batch::with_values;
use super::derivatives::pull_back;
pub use super::example_rows::ExampleRows;
use super::node::{Graph, NodeId, elements};
use super::op::{Binary, Unary};
use super::terms::{BatchAxis, Term, batch_axes, terms};
use crate::error::{Error, Result};

/// What is pulled back to the parameters, before the sum over the batch.
#[derive(Clone, Copy, Debug)]
pub enum Cotangents {
    /// Ones, of each of these losses `[n]`.
    Losses(NodeId),
    /// All columns of a root of the Hessian of each example's loss in its outputs.
    Root {
        /// Outputs, whose axis 0 is the batch.
        outputs: NodeId,
        /// A mixture of the columns, like the outputs, as [`Probe`](crate::nn::Probe) has it.
        root: NodeId,
        /// The leaf that mixes them.
        signs: NodeId,
    },
    /// One for each example.
    One {
        /// Outputs, whose axis 0 is the batch.
        outputs: NodeId,
        /// Like them.
        cotangent: NodeId,
    },
}

impl Cotangents {
    /// The function that is pulled back, and the cotangents `[columns, ..]`.
    fn wide(self, graph: &mut Graph) -> Result<(NodeId, NodeId)> {
        match self {
            Cotangents::Losses(losses) => {
                graph.check_ids(&[losses])?;
                let shape = [&[1], &graph.shape(losses)[..]].concat();
                Ok((losses, graph.constant(1.0, &shape)))
            }
            Cotangents::One { outputs, cotangent } => {
                graph.check_ids(&[outputs, cotangent])?;
                let shape = [&[1], &graph.shape(cotangent)[..]].concat();
                Ok((outputs, graph.reshape(cotangent, &shape)?))
            }
            Cotangents::Root {
                outputs,
                root,
                signs,
            } => {
                graph.check_ids(&[outputs, root, signs])?;
                let units = columns_of(graph, outputs, signs)?;
                Ok((outputs, mixed(graph, (root, signs), units)?))
            }
        }
    }
}

/// The rows `v_cn` of the cotangents for each of `parameters`, where they are known: none for a parameter whose cotangent does not end in a
/// sum over the batch of products of two factors.
///
/// # Errors
/// [`Error::Unsupported`] where outputs have no row for each example.
pub fn known_rows(
    graph: &mut Graph,
    cotangents: Cotangents,
    parameters: &[NodeId],
) -> Result<Vec<Option<ExampleRows>>> {
    let wide = cotangents.wide(graph)?;
    rows(graph, wide, parameters)
}

/// The rows `g_n`, gradients of each of `losses` `[n]`, for each of `parameters`: one column.
///
/// # Errors
/// As [`mixture_rows`].
pub fn gradient_rows(
    graph: &mut Graph,
    losses: NodeId,
    parameters: &[NodeId],
) -> Result<Vec<ExampleRows>> {
    all(graph, Cotangents::Losses(losses), parameters)
}

/// The rows `J_n^T S_n e_c` for each of `parameters`: for every example `n` the Jacobian of its `outputs`, and column `c` of the root `S_n`
/// of the Hessian of its loss, where `root` mixes these columns by the leaf `signs` (as [`Probe`](crate::nn::Probe) has them). Their
/// squares add up to the diagonal of the Gauss-Newton matrix. There are as many columns as an example has outputs.
///
/// The backward part takes as long as that of so many gradients.
///
/// # Errors
/// As [`mixture_rows`].
pub fn root_rows(
    graph: &mut Graph,
    (outputs, root, signs): (NodeId, NodeId, NodeId),
    parameters: &[NodeId],
) -> Result<Vec<ExampleRows>> {
    let cotangents = Cotangents::Root {
        outputs,
        root,
        signs,
    };
    all(graph, cotangents, parameters)
}

/// Unit vectors `[columns, ..like the signs]`: column `c` is the mixture by the c-th, the same for all examples.
fn columns_of(graph: &mut Graph, outputs: NodeId, signs: NodeId) -> Result<NodeId> {
    let shape = graph.shape(signs).clone();
    let Some((&examples, rest)) = shape.split_first() else {
        return Err(without_rows(graph, EXAMPLES, outputs));
    };
    let columns = elements(rest);
    let units = (0..columns * columns).map(|at| f32::from(u8::from(at % (columns + 1) == 0)));
    let mut lifted = vec![columns, 1];
    lifted.extend(rest);
    let units = match columns {
        1 => graph.constant(1.0, &lifted),
        _ => graph.data_tensor(units.collect(), &lifted)?,
    };
    lifted[1] = examples;
    graph.broadcast(units, &lifted)
}

/// As [`root_rows`], of one column: the mixture of the columns by `coefficients`, like the signs. Their [sum](ExampleRows::sum) is the
/// product of the root with these numbers.
///
/// # Errors
/// As [`mixture_rows`].
pub fn root_rows_by(
    graph: &mut Graph,
    root: (NodeId, NodeId, NodeId),
    coefficients: NodeId,
    parameters: &[NodeId],
) -> Result<Vec<ExampleRows>> {
    graph.check_ids(&[root.0, root.1, root.2, coefficients])?;
    let lifted = [&[1], &graph.shape(coefficients)[..]].concat();
    let coefficients = graph.reshape(coefficients, &lifted)?;
    let wide = mixed(graph, (root.1, root.2), coefficients)?;
    let rows = rows(graph, (root.0, wide), parameters)?;
    required(graph, rows, parameters)
}

/// The root mixed by numbers `[columns, ..like the signs]`.
fn mixed(graph: &mut Graph, (root, signs): (NodeId, NodeId), numbers: NodeId) -> Result<NodeId> {
    let columns = graph.shape(numbers)[0];
    let wide = with_values(graph, &[root], HashMap::from([(signs, numbers)]), columns)?;
    Ok(wide[0])
}

/// The rows `J_n^T u_n` for each of `parameters`, of `outputs` whose axis 0 is the batch and cotangents `u` like these: one column.
///
/// # Errors
/// [`Error::Unsupported`] where outputs have no row for each example, or a parameter's cotangent does not end in a sum over the batch of
/// products of two factors.
pub fn mixture_rows(
    graph: &mut Graph,
    (outputs, cotangent): (NodeId, NodeId),
    parameters: &[NodeId],
) -> Result<Vec<ExampleRows>> {
    all(graph, Cotangents::One { outputs, cotangent }, parameters)
}

fn all(
    graph: &mut Graph,
    cotangents: Cotangents,
    parameters: &[NodeId],
) -> Result<Vec<ExampleRows>> {
    let rows = known_rows(graph, cotangents, parameters)?;
    required(graph, rows, parameters)
}

fn required(
    graph: &Graph,
    rows: Vec<Option<ExampleRows>>,
    parameters: &[NodeId],
) -> Result<Vec<ExampleRows>> {
    let of = |(rows, &parameter): (Option<ExampleRows>, &NodeId)| {
        rows.ok_or_else(|| without_rows(graph, EXAMPLES, parameter))
    };
    rows.into_iter().zip(parameters).map(of).collect()
}

/// The rows of cotangents `[columns, ..like the outputs]`. The program is transposed for a leaf in their place, which depends on its own
/// example alone whatever they are made of, taken apart, and then made for all columns at once.
fn rows(
    graph: &mut Graph,
    (outputs, cotangents): (NodeId, NodeId),
    parameters: &[NodeId],
) -> Result<Vec<Option<ExampleRows>>> {
    let shape = graph.shape(outputs).clone();
    let Some(&examples) = shape.first() else {
        return Err(without_rows(graph, EXAMPLES, outputs));
    };
    let leaf = graph.direction(&shape);
    let moved = pull_back(graph, &[(outputs, leaf)], parameters)?;
    let axes = batch_axes(graph, &[leaf]);
    let columns = graph.shape(cotangents)[0];
    let mut all = Vec::with_capacity(parameters.len());
    for (&parameter, cotangent) in parameters.iter().zip(moved) {
        let terms = match cotangent {
            None => Some(Vec::new()),
            Some(cotangent) => taken_apart(graph, cotangent, examples, &axes)?,
        };
        let shape = graph.shape(parameter).clone();
        let rows = terms.map(|terms| ExampleRows::new(graph, shape, examples, terms));
        all.push(rows.transpose()?);
    }
    let depends = graph.depends_on(&[leaf]);
    let factors = all.iter().flatten().flat_map(ExampleRows::factors);
    let narrow: Vec<NodeId> = factors.filter(|factor| depends[factor.index()]).collect();
    let wide = with_values(graph, &narrow, HashMap::from([(leaf, cotangents)]), columns)?;
    let wide: HashMap<NodeId, NodeId> = narrow.into_iter().zip(wide).collect();
    let mut wider = |rows: &ExampleRows| rows.with_columns(graph, columns, &wide);
    all.iter()
        .map(|rows| rows.as_ref().map(&mut wider).transpose())
        .collect()
}

/// The terms before the sum over the batch. A gradient of one example is all of its sum.
fn taken_apart(
    graph: &mut Graph,
    gradient: NodeId,
    examples: usize,
    axes: &[BatchAxis],
) -> Result<Option<Vec<Term>>> {
    if examples > 1 {
        return terms(graph, gradient, axes);
    }
    let mut shape = vec![1];
    shape.extend(graph.shape(gradient));
    Ok(Some(vec![Term::Rows(graph.reshape(gradient, &shape)?)]))
}

/// What is missing where a gradient has no rows.
const EXAMPLES: &str = "a quantity of each example";

fn without_rows(graph: &Graph, what: &str, node: NodeId) -> Error {
    Error::Unsupported {
        what: what.into(),
        message: format!(
            "the gradient of {} is no sum over the batch of products of two factors; take another method, or write the model so that every \
             parameter meets rows that belong to one example each",
            graph.describe(node)
        ),
    }
}

/// The variance of rows over the examples, elementwise, with `weights` `[n]` that add up to 1: `sum_n p_n (v_n - v)^2` with
/// `v = sum_n p_n v_n`, like the parameter and never negative.
///
/// Not as a difference of `sum_n p_n v_n^2` and `v^2`, which loses its digits where the mean is larger than the deviations: rows are
/// [centred](ExampleRows::centred) first, in factors, and what is subtracted then is small. For a dense layer that takes three products.
///
/// # Errors
/// Shapes that do not fit.
pub fn variance(graph: &mut Graph, rows: &ExampleRows, weights: NodeId) -> Result<NodeId> {
    let rows = rows.centred(graph, weights)?;
    let squares = rows.squared(graph, weights)?.sum(graph)?;
    let mean = rows.scaled(graph, weights)?.sum(graph)?;
    let mean = graph.binary(Binary::Mul, mean, mean)?;
    let variance = graph.binary(Binary::Sub, squares, mean)?;
    let shape = graph.shape(variance).clone();
    let zero = graph.constant(0.0, &shape);
    graph.binary(Binary::Max, variance, zero)
}

/// For each of `gradients` (of `sum_n w_n loss_n`, with `weights` `[n]` and inputs whose axis 0 is the batch):
/// `sum_n w_n g_n * g_n`, elementwise, where `g_n` is the gradient of `loss_n`: the diagonal of the empirical Fisher matrix, out of a
/// gradient that is there.
///
/// # Errors
/// [`Error::Unsupported`] where a gradient does not end in a sum over the batch of products of two factors.
pub fn square_sums(
    graph: &mut Graph,
    gradients: &[NodeId],
    weights: NodeId,
) -> Result<Vec<NodeId>> {
    graph.check_ids(gradients)?;
    graph.check_ids(&[weights])?;
    let axes = batch_axes(graph, &[]);
    // Rows are w_n g_n, and w_n g_n g_n is wanted: one factor is divided by w_n, before anything is squared, so that small weights do
    // not underflow. Rows of weight 0 are padding.
    let shape = graph.shape(weights).clone();
    let tiny = graph.constant(f32::MIN_POSITIVE, &shape);
    let zero = graph.constant(0.0, &shape);
    let at_least = graph.binary(Binary::Max, weights, tiny)?;
    let inverse = graph.unary(Unary::Reciprocal, at_least)?;
    let scale = graph.select(weights, inverse, zero)?;
    let mut sums = Vec::with_capacity(gradients.len());
    for &gradient in gradients {
        let Some(terms) = taken_apart(graph, gradient, elements(&shape), &axes)? else {
            return Err(without_rows(
                graph,
                "the diagonal of the empirical Fisher matrix",
                gradient,
            ));
        };
        let of = graph.shape(gradient).clone();
        let rows = ExampleRows::new(graph, of, elements(&shape), terms)?;
        sums.push(rows.squared(graph, scale)?.sum(graph)?);
    }
    Ok(sums)
}
