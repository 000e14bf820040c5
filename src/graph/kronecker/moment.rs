//! The factor that rows have: their second moment, in its form.

use super::super::node::{Graph, NodeId, elements};
use super::super::op::Binary;
use super::factors::Tensors;
use super::{Form, Side, Sizes, test_matrix};
use crate::error::Result;

/// Adds `sum_n scale_n x_n x_n^T` of rows `x` `[1, n, size]` in its form; a bias along the factor's axis appends a 1 to each row, or a 0
/// where this use is without it.
///
/// The ones are never laid out beside the rows: `[x s]^T x`, with the scale `s` beside the scaled rows, has all but the last column of the
/// factor, and that is its last row.
pub(super) fn moment(
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
        Form::Mean => vec![rows.mean(graph)?],
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
        if self.appended == Some(true) {
            let last = graph.sum(seen, &[1])?;
            product = graph.concat(&[product, last], 1)?;
        }
        product = graph.pad(product, &[0; 3], &[1, self.size(), columns])?;
        Ok([product, self.trace(graph)?])
    }

    fn trace(&self, graph: &mut Graph) -> Result<NodeId> {
        let squares = graph.binary(Binary::Mul, self.weighted, self.x)?;
        let trace = graph.sum(squares, &[1, 2])?;
        if self.appended != Some(true) {
            return Ok(trace);
        }
        let one = graph.constant(1.0, &[1, 1, 1]);
        graph.binary(Binary::Add, trace, one)
    }

    fn mean(&self, graph: &mut Graph) -> Result<NodeId> {
        let trace = self.trace(graph)?;
        let share = graph.constant(1.0 / self.size() as f32, &[1, 1, 1]);
        graph.binary(Binary::Mul, share, trace)
    }
}
