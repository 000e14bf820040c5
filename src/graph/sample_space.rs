//! The curvature of a batch as rows of examples: `C = A^T A`, with products by `A` and its transpose, and both squares of it, without a row
//! ever being formed where that is not asked for.
//!
//! The rows are those of [`per_example`](super::per_example), with the weights of their examples in them. For a dense layer with inputs `x_n`
//! and cotangents `d_n`, and a bias,
//!
//! ```text
//! (A A^T)_nm = (x_n.x_m + 1) (d_n.d_m)      (A v)_n = (x_n^T V + v_b) . d_n      A^T u = sum_n x_n (u_n d_n)^T
//! ```
//!
//! added up over the layers: two small matrix products, one, and one.

use super::example_rows::{ExampleRows, added};
use super::node::{Graph, NodeId, elements};
use super::op::{Binary, Unary};
use super::per_example::{gradient_rows, mixture_rows, root_rows};
use crate::error::{Error, Result};

/// Most terms of a sum of products of rows in f32; such sums are added in f64 by whoever reads them.
pub const TERMS: usize = 1024;

/// A loss counts as this at least where it is divided by its root.
pub const LEAST_LOSS: f32 = 1e-12;

/// Rows `A` of examples, `[columns n]` of them, those of a column after those of the one before, and a right side.
#[derive(Clone, Debug)]
pub struct SampleRows {
    rows: Vec<ExampleRows>,
    /// Numbers `r` `[columns n]` with `A^T r` the gradient of the weighted loss, where they are known.
    residuals: Option<NodeId>,
}

impl SampleRows {
    /// One row for each of `losses` `[n]`, which must not be negative, with `weights` `[n]`: the slope of the residual
    /// `r_n = sqrt(2 w_n l_n)`, whose squares add up to twice the weighted loss.
    ///
    /// # Errors
    /// As [`mixture_rows`].
    pub fn of_root_losses(
        graph: &mut Graph,
        [losses, weights]: [NodeId; 2],
        parameters: &[NodeId],
    ) -> Result<Self> {
        let rows = gradient_rows(graph, losses, parameters)?;
        let shape = graph.shape(losses).clone();
        let least = graph.constant(LEAST_LOSS, &shape);
        let losses = graph.binary(Binary::Max, losses, least)?;
        let twice = graph.binary(Binary::Add, losses, losses)?;
        let root = graph.unary(Unary::Sqrt, twice)?;
        let weight = graph.unary(Unary::Sqrt, weights)?;
        let scale = graph.binary(Binary::Div, weight, root)?;
        Ok(Self {
            rows: scaled(graph, &rows, scale)?,
            residuals: Some(graph.binary(Binary::Mul, weight, root)?),
        })
    }

    /// One row for each example, of a mixture of the columns of the root of its output Hessian: `A^T A` has the mean of the Gauss-Newton
    /// matrix, where signs have equal odds. The gradient is no sum of such rows.
    ///
    /// # Errors
    /// As [`mixture_rows`].
    pub fn of_mixtures(
        graph: &mut Graph,
        (outputs, mixture): (NodeId, NodeId),
        weights: NodeId,
        parameters: &[NodeId],
    ) -> Result<Self> {
        let rows = mixture_rows(graph, (outputs, mixture), parameters)?;
        let weight = graph.unary(Unary::Sqrt, weights)?;
        Ok(Self {
            rows: scaled(graph, &rows, weight)?,
            residuals: None,
        })
    }

    /// A row for each column of the root of each example's output Hessian: `A^T A` is the Gauss-Newton matrix. `residuals` are like the
    /// outputs, with `S rho = dl/dz`, where they are known.
    ///
    /// # Errors
    /// As [`mixture_rows`].
    pub fn of_root(
        graph: &mut Graph,
        root: (NodeId, NodeId, NodeId),
        residuals: Option<NodeId>,
        weights: NodeId,
        parameters: &[NodeId],
    ) -> Result<Self> {
        let rows = root_rows(graph, root, parameters)?;
        let weight = graph.unary(Unary::Sqrt, weights)?;
        let examples = elements(graph.shape(weights));
        let mut by_columns = None;
        if let Some(residuals) = residuals {
            let columns = elements(graph.shape(residuals)) / examples.max(1);
            let all = graph.reshape(residuals, &[examples, columns])?;
            let column = graph.reshape(weight, &[examples, 1])?;
            let column = graph.broadcast(column, &[examples, columns])?;
            let all = graph.binary(Binary::Mul, column, all)?;
            let all = graph.permute(all, &[1, 0])?;
            by_columns = Some(graph.reshape(all, &[columns * examples])?);
        }
        Ok(Self {
            rows: scaled(graph, &rows, weight)?,
            residuals: by_columns,
        })
    }

    /// How many rows there are.
    #[must_use]
    pub fn count(&self) -> usize {
        let [columns, examples] = self.axes();
        columns * examples
    }

    /// The right side, where there is one.
    #[must_use]
    pub fn residuals(&self) -> Option<NodeId> {
        self.residuals
    }

    fn axes(&self) -> [usize; 2] {
        let first = self.rows.first();
        first.map_or([0, 0], |rows| [rows.columns(), rows.examples()])
    }

    /// `A A^T`, `[m, m]`. A sum over the elements of a factor has as many terms as it has elements, and levels of 64 additions.
    ///
    /// # Errors
    /// Shapes that do not fit.
    pub fn gram(&self, graph: &mut Graph) -> Result<NodeId> {
        let m = self.count();
        let mut parts = Vec::with_capacity(self.rows.len());
        for rows in &self.rows {
            parts.push(rows.inner_products(graph)?);
        }
        added(graph, &parts, &[m, m])
    }

    /// `A v`, `[m]`, of a vector in tensors like the parameters.
    ///
    /// # Errors
    /// [`Error::Length`] where there are not as many tensors; shapes that do not fit.
    pub fn image(&self, graph: &mut Graph, vector: &[NodeId]) -> Result<NodeId> {
        if vector.len() != self.rows.len() {
            return Err(Error::Length {
                what: "the list of tensors of a vector".into(),
                found: vector.len(),
                expected: self.rows.len(),
            });
        }
        let mut parts = Vec::with_capacity(self.rows.len());
        for (rows, &tensor) in self.rows.iter().zip(vector) {
            parts.push(rows.products_with(graph, tensor)?);
        }
        let sum = added(graph, &parts, &self.axes())?;
        graph.reshape(sum, &[self.count()])
    }

    /// `A^T u` of `u` `[m]`, a tensor for each parameter.
    ///
    /// # Errors
    /// Shapes that do not fit.
    pub fn combination(&self, graph: &mut Graph, u: NodeId) -> Result<Vec<NodeId>> {
        let factors = graph.reshape(u, &self.axes())?;
        let rows = self.rows.iter();
        rows.map(|rows| rows.scaled(graph, factors)?.sum(graph))
            .collect()
    }

    /// `[A r]^T [A r]` in parts that add up to it, `[parts, k, k]`, each a sum over at most [`TERMS`] rows, `k` one more than there are
    /// parameters; without the right side where there is none. Elements of parameters follow one another without gaps.
    ///
    /// Forms all rows: `m k` numbers, and `2 m k^2` operations.
    ///
    /// # Errors
    /// Shapes that do not fit.
    pub fn normal(&self, graph: &mut Graph) -> Result<NodeId> {
        let m = self.count();
        let mut columns = Vec::with_capacity(self.rows.len() + 1);
        for rows in &self.rows {
            let formed = rows.formed(graph)?;
            let width = elements(graph.shape(formed)) / m.max(1);
            columns.push(graph.reshape(formed, &[m, width])?);
        }
        if let Some(residuals) = self.residuals {
            columns.push(graph.reshape(residuals, &[m, 1])?);
        }
        let all = graph.concat(&columns, 1)?;
        let width = graph.shape(all)[1];
        let parts = m.div_ceil(TERMS);
        let terms = m.div_ceil(parts.max(1));
        let all = graph.pad(all, &[0, 0], &[parts * terms, width])?;
        let all = graph.reshape(all, &[parts, terms, width])?;
        graph.dot(all, all, true, false)
    }
}

fn scaled(graph: &mut Graph, rows: &[ExampleRows], factors: NodeId) -> Result<Vec<ExampleRows>> {
    rows.iter()
        .map(|rows| rows.scaled(graph, factors))
        .collect()
}
