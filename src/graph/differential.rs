//! Derivatives with respect to inputs, inside a model: what a differential equation is made of.
//!
//! A directional derivative is the [tangent](super::jvp) of a tensor where its input moves along the same vector in every row, and a K-th one
//! the tangent of a (K-1)-th. All of them are appended to the graph of the model, where equal nodes are shared: derivatives of several
//! orders and in several directions have their lower coefficients in common, and the parameters' gradients, curvature products, rows of
//! examples and Kronecker factors are made of them as of any other nodes.
//!
//! A sum of K-th derivatives over `D` directions is `collapsed`: at each node only the sum of the K-th coefficients is computed. So
//! a Laplacian costs at every layer the product of the value, those of `D` first derivatives and one more, `1 + D + 1` instead of `1 + 2
//! D`: the forward Laplacian. Products of the first layer are those of single rows, as all rows move alike.

use super::collapse;
use super::jvp::linearize;
use super::node::{Graph, NodeId};
use super::op::DType;
use super::tensor::Tensor;
use super::terms::{BatchAxis, row_axes};
use crate::error::{Error, Result};

/// `sum_j c_j D_j^K u`, like `u`: for `terms` of factors `c_j` and directions `v_j` in the space of the rows of `x` `[rows, d]`, where `D_j`
/// is the derivative along `v_j` and `K` the `order`.
///
/// # Errors
/// [`Error::Shape`] where `x` is no matrix of numbers or `u` has another number of rows; [`Error::Length`] for a direction of another
/// length; [`Error::Option`] for order 0, no terms, or numbers that are not finite; [`Error::Unsupported`] where a row of `u` may depend on
/// several rows of `x`.
pub fn derivatives(
    graph: &mut Graph,
    (u, x): (NodeId, NodeId),
    order: usize,
    terms: &[(f32, &[f32])],
) -> Result<NodeId> {
    let [rows, width] = check_rows(graph, u, x)?;
    check_terms(width, order, terms)?;
    let mut found = Vec::with_capacity(terms.len());
    for &(factor, direction) in terms {
        let row = graph.data_tensor(direction.to_vec(), &[1, width])?;
        let along = graph.broadcast(row, &[rows, width])?;
        let mut derivative = Some(u);
        for _ in 0..order {
            if let Some(before) = derivative {
                derivative = linearize(graph, &[before], &[(x, along)])?[0];
            }
        }
        found.extend(derivative.map(|derivative| (factor, derivative)));
    }
    let sum = match *found.as_slice() {
        [(1.0, one)] => Some(one),
        _ => collapse::sum(graph, &found)?,
    };
    let shape = graph.shape(u).clone();
    Ok(sum.unwrap_or_else(|| graph.constant(0.0, &shape)))
}

/// Rows and width of `x`, where row `i` of `u` is a function of row `i` of it.
fn check_rows(graph: &Graph, u: NodeId, x: NodeId) -> Result<[usize; 2]> {
    graph.check_ids(&[u, x])?;
    let (DType::F32, &[rows, width]) = (graph.node(x).dtype, graph.shape(x).as_slice()) else {
        return graph.bad(
            "derivative",
            &[u, x],
            "derivatives are with respect to numbers of shape [rows, d]",
        );
    };
    if graph.node(u).dtype != DType::F32 || graph.shape(u).first() != Some(&rows) {
        let message = format!("what is derived has {rows} rows, as many as the inputs");
        return graph.bad("derivative", &[u, x], message);
    }
    // Of a single row there is nothing to be mixed.
    match row_axes(graph, x).get(u.index()) {
        Some(BatchAxis::At(0) | BatchAxis::Absent) => Ok([rows, width]),
        _ if rows == 1 => Ok([rows, width]),
        _ => Err(Error::Unsupported {
            what: format!("the derivative of {}", graph.describe(u)),
            message: format!(
                "each of its rows must be a function of the same row of {} alone; derive before rows are summed, and keep them as the first \
                 axis",
                graph.describe(x)
            ),
        }),
    }
}

fn check_terms(width: usize, order: usize, terms: &[(f32, &[f32])]) -> Result<()> {
    let refused = |option: &str, message: &str| {
        Err(Error::Option {
            option: option.into(),
            message: message.into(),
        })
    };
    if order == 0 {
        return refused("order", "0; the first derivative has order 1");
    }
    if terms.is_empty() {
        return refused("directions", "none; give at least one");
    }
    for &(factor, direction) in terms {
        if direction.len() != width {
            return Err(Error::Length {
                what: "a direction of a derivative".into(),
                found: direction.len(),
                expected: width,
            });
        }
        if !factor.is_finite() || direction.iter().any(|v| !v.is_finite()) {
            return refused("directions", "a number is infinite or not a number");
        }
    }
    Ok(())
}

/// The unit vectors of a space, one after another.
fn unit_vectors(width: usize) -> Vec<Vec<f32>> {
    let unit = |at: usize| (0..width).map(|i| f32::from(u8::from(i == at))).collect();
    (0..width).map(unit).collect()
}

/// Derivatives of a tensor, whose row `i` is a function of row `i` of `x` `[rows, d]`. `x` may be any tensor on the way from the features:
/// what `self` depends on otherwise stays fixed.
impl Tensor<'_> {
    /// The derivative along a vector of `d` numbers, like `self`.
    ///
    /// ```
    /// # use osculant::graph::tensor::Builder;
    /// let builder = Builder::new();
    /// let x = builder.input("x", &[4, 2]); // Columns t and s
    /// let u = x.dot(builder.parameter("w", &[2, 1])).sin();
    /// let u_t = u.derivative(x, &[1.0, 0.0]);
    /// let u_tss = u_t.derivatives(x, 2, &[(1.0, &[0.0, 1.0])]);
    /// assert_eq!(u_tss.shape(), [4, 1]);
    /// # builder.finish()?;
    /// # Ok::<(), osculant::Error>(())
    /// ```
    ///
    /// # Errors
    /// As [`derivatives`]; the builder remembers them.
    pub fn derivative(self, x: Self, direction: &[f32]) -> Self {
        self.derivatives(x, 1, &[(1.0, direction)])
    }

    /// `sum_j c_j D_j^K u` for pairs of a factor `c_j` and a vector `v_j` of `d` numbers, along which `D_j` is the derivative; `K` is the
    /// `order`. The wave operator `u_tt - 4 u_ss` is `u.derivatives(x, 2, &[(1.0, &[1.0, 0.0]), (-4.0, &[0.0, 1.0])])`.
    ///
    /// Summed before it is computed, so cheaper than a sum of [derivatives](Self::derivative). A mixed derivative `u_ts` is a derivative of
    /// a derivative.
    ///
    /// # Errors
    /// As [`derivatives`]; the builder remembers them.
    pub fn derivatives(self, x: Self, order: usize, terms: &[(f32, &[f32])]) -> Self {
        self.make_with(&[x], |graph| {
            derivatives(graph, (self.id(), x.id()), order, terms)
        })
    }

    /// The gradient `[rows, d]` of one number a row, `[rows, 1]`: `d` derivatives, which a Laplacian of the same tensor has in common.
    ///
    /// # Errors
    /// As [`derivatives`], and [`Error::Shape`] for another shape; the builder remembers them.
    pub fn gradient(self, x: Self) -> Self {
        self.make_with(&[x], |graph| {
            if !matches!(graph.shape(self.id()).as_slice(), [_, 1]) {
                let message = "a gradient is of one number a row, [rows, 1]; slice one out";
                return graph.bad("gradient", &[self.id(), x.id()], message);
            }
            let mut columns = Vec::new();
            for unit in unit_vectors(graph.shape(x.id()).last().copied().unwrap_or(0)) {
                let ids = (self.id(), x.id());
                columns.push(derivatives(graph, ids, 1, &[(1.0, &unit)])?);
            }
            graph.concat(&columns, 1)
        })
    }

    /// The Laplacian `sum_i d^2 u / dx_i^2`, like `self`.
    ///
    /// # Errors
    /// As [`derivatives`]; the builder remembers them.
    pub fn laplacian(self, x: Self) -> Self {
        let units = unit_vectors(x.shape().last().copied().unwrap_or(0));
        let terms: Vec<(f32, &[f32])> = units.iter().map(|unit| (1.0, unit.as_slice())).collect();
        self.derivatives(x, 2, &terms)
    }
}
