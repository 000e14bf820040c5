//! The factors of all layers.

use super::super::derivatives::pull_back;
use super::super::example_rows::ExampleRows;
use super::super::fusion::same_buffer;
use super::super::node::{Graph, NodeId, elements};
use super::super::op::{Binary, Unary};
use super::super::terms::Term;
use super::moment::moment;
use super::{Appended, Form, Layer, LayerFactors, Side, Sizes, Structure};
use crate::error::{Error, Result};

/// What is known of a parameter's curvature.
#[derive(Clone, Debug)]
pub enum Curvature {
    /// The rows of the examples.
    Rows(ExampleRows),
    /// Its diagonal, like the parameter.
    Diagonal(NodeId),
}

impl Curvature {
    /// Of parameters whose rows are all known.
    #[must_use]
    pub fn of_rows(rows: &[ExampleRows]) -> Vec<Self> {
        rows.iter().cloned().map(Curvature::Rows).collect()
    }
}

/// The nodes of a factor's tensors.
pub(super) type Tensors = Vec<NodeId>;

/// The terms of one parameter's gradient, each as `[1, n, size]` factors: the left one is missing where there is one factor.
type Uses = Vec<(Option<NodeId>, NodeId)>;

/// The factors of every parameter's curvature, from its rows and weights `scale` `[n]` of the examples that add up to 1: of the
/// Gauss-Newton matrix from all columns of a root ([`root_rows`](crate::graph::per_example::root_rows)) or a random mixture of them
/// ([`mixture_rows`](crate::graph::per_example::mixture_rows)), of the empirical Fisher matrix from gradients
/// ([`gradient_rows`](crate::graph::per_example::gradient_rows)).
///
/// A parameter that is used several times has the mean of its uses' left factors, and the sum of their right ones ("expand" of Eschenhagen
/// et al. 2023). One that is used in ways whose factors have nothing in common has the diagonal of its curvature,
/// `sum_cn scale_n v_cn^2` of its rows `v_cn`; so has one of which a diagonal is given.
///
/// # Errors
/// [`Error::Unsupported`] for rows of a single example, whose factors are not known apart; [`Error::Length`] where there are not as many
/// curvatures as parameters.
pub fn factors(
    graph: &mut Graph,
    curvatures: &[Curvature],
    parameters: &[NodeId],
    scale: NodeId,
    sizes: Sizes,
) -> Result<Vec<LayerFactors>> {
    if curvatures.len() != parameters.len() {
        return Err(Error::Length {
            what: "the list of curvatures of parameters".into(),
            found: curvatures.len(),
            expected: parameters.len(),
        });
    }
    let (mut uses, mut diagonals) = (Vec::new(), Vec::new());
    for (curvature, &parameter) in curvatures.iter().zip(parameters) {
        let (found, diagonal) = match curvature {
            Curvature::Diagonal(diagonal) => (Uses::new(), Some(*diagonal)),
            Curvature::Rows(rows) if rows.examples() < 2 => {
                return Err(of_one_example(graph, parameter));
            }
            Curvature::Rows(rows) => match factored(graph, rows.terms())? {
                Some(found) => (found, None),
                None => (Uses::new(), Some(rows.squared(graph, scale)?.sum(graph)?)),
            },
        };
        uses.push(found);
        diagonals.push(diagonal);
    }
    let biases = pair(graph, &uses);
    let is_bias = |p: usize| (biases.iter().flatten()).any(|bias| bias.appended.parameter == p);
    let mut layers = Vec::new();
    for weight in (0..uses.len()).filter(|&p| !is_bias(p)) {
        layers.push(match diagonals[weight] {
            Some(diagonal) => of_diagonal(graph, weight, diagonal)?,
            None => of_uses(
                graph,
                (weight, biases[weight].as_ref()),
                &uses[weight],
                (scale, sizes),
            )?
            .ok_or_else(|| of_one_example(graph, parameters[weight]))?,
        });
    }
    Ok(layers)
}

/// For each of `parameters` `(sum_n sqrt(p_n) J_n^T u_n)^2`, elementwise, for `outputs` with a row for each example, cotangents `u` like
/// these and weights `scale` `[n]` that are the `p_n`. Where `u_n` is a mixture by random signs of the columns of a root of an example's
/// output Hessian, independent of those of other examples, its mean is the diagonal of the Gauss-Newton matrix, whatever the model does with
/// the parameter; its standard deviation is 1.4 times its mean where many columns count. One gradient for all parameters together.
///
/// # Errors
/// Shapes that do not fit.
pub fn sampled_diagonals(
    graph: &mut Graph,
    (outputs, cotangent): (NodeId, NodeId),
    parameters: &[NodeId],
    scale: NodeId,
) -> Result<Vec<NodeId>> {
    graph.check_ids(&[outputs, cotangent, scale])?;
    let shape = graph.shape(cotangent).clone();
    let mut column = vec![1; shape.len()];
    column[0] = elements(graph.shape(scale));
    let root = graph.unary(Unary::Sqrt, scale)?;
    let root = graph.reshape(root, &column)?;
    let root = graph.broadcast(root, &shape)?;
    let cotangent = graph.binary(Binary::Mul, root, cotangent)?;
    let moved = pull_back(graph, &[(outputs, cotangent)], parameters)?;
    let mut squares = Vec::with_capacity(parameters.len());
    for (&parameter, moved) in parameters.iter().zip(moved) {
        let shape = graph.shape(parameter).clone();
        let moved = moved.unwrap_or_else(|| graph.constant(0.0, &shape));
        squares.push(graph.binary(Binary::Mul, moved, moved)?);
    }
    Ok(squares)
}

/// A parameter with its diagonal.
fn of_diagonal(graph: &mut Graph, weight: usize, diagonal: NodeId) -> Result<LayerFactors> {
    let size = elements(graph.shape(diagonal));
    let diagonal = graph.reshape(diagonal, &[size])?;
    let form = Form::Diagonal;
    Ok(LayerFactors {
        layer: Layer {
            structure: Structure::Diagonal,
            weight,
            bias: None,
            left: None,
            right: Side { size, form },
            corrected: None,
        },
        with_bias: Vec::new(),
        tensors: vec![vec![diagonal]],
    })
}

/// A parameter, with its bias where it has one, with factors of its uses; none without any.
fn of_uses(
    graph: &mut Graph,
    (weight, bias): (usize, Option<&Bias>),
    uses: &Uses,
    (scale, sizes): (NodeId, Sizes),
) -> Result<Option<LayerFactors>> {
    let (mut left, mut right): (Option<(Side, Tensors)>, _) = (None, None);
    for (at, &(l, r)) in uses.iter().enumerate() {
        let along = |axis: usize| {
            let bias = bias.filter(|bias| bias.appended.axis == axis)?;
            Some(bias.present[at])
        };
        if let Some(l) = l {
            left = Some(moment(graph, left, (l, scale), (0, along(0)), sizes)?);
        }
        right = Some(moment(graph, right, (r, scale), (1, along(1)), sizes)?);
    }
    if let (Some((_, tensors)), 2..) = (&mut left, uses.len()) {
        for tensor in tensors {
            let shape = graph.shape(*tensor).clone();
            let share = graph.constant(1.0 / uses.len() as f32, &shape);
            *tensor = graph.binary(Binary::Mul, share, *tensor)?;
        }
    }
    let (left, tensors): (Option<Side>, Option<Tensors>) = left.unzip();
    let corrected = |right: Side| {
        let left = left.filter(|left| left.form == Form::Full && right.form == Form::Full);
        left.filter(|_| sizes.corrected).map(|left| Side {
            size: left.size * right.size,
            form: Form::Diagonal,
        })
    };
    Ok(right.map(|(right, last)| LayerFactors {
        layer: Layer {
            structure: Structure::Kronecker,
            weight,
            bias: bias.map(|bias| bias.appended),
            left,
            right,
            corrected: corrected(right),
        },
        with_bias: bias.map_or(Vec::new(), |bias| bias.present.clone()),
        tensors: tensors.into_iter().chain([last]).collect(),
    }))
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
    let Some(&(left, right)) = uses.first() else {
        return Ok(None);
    };
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
            Some(present).filter(|present| present.contains(&true))
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

fn of_one_example(graph: &Graph, parameter: NodeId) -> Error {
    Error::Unsupported {
        what: "the Kronecker factors of the curvature".into(),
        message: format!(
            "of a single example the gradient of {} is not known in factors; give batches of at least two rows, or train by another method",
            graph.describe(parameter)
        ),
    }
}
