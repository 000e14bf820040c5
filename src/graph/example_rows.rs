//! Matrices with a row for each example, in factors.

use std::collections::HashMap;

use super::node::{Graph, NodeId, Shape, elements};
use super::op::Binary;
use super::terms::{Term, flattened};
use crate::error::Result;

/// A matrix with one row `v_cn` for each column `c` and example `n`, and one column for each element of a parameter. A row is a sum of
/// outer products of two factors, or of rows that are there as such. It is only formed by [`formed`](Self::formed), and where a parameter
/// is used in ways whose terms have nothing in common.
#[derive(Clone, Debug)]
pub struct ExampleRows {
    /// Of the parameter.
    shape: Shape,
    columns: usize,
    examples: usize,
    /// Factors of [`Term::Outer`] have the shapes `[c, n, a]` and `[c, n, b]`, and [`Term::Rows`] `[c, n, elements]`: an axis `c` or `n`
    /// of size 1 stands for all columns or examples.
    terms: Vec<Term>,
}

impl ExampleRows {
    /// Of one column, from terms as [`terms`](super::terms::terms) has them.
    pub(super) fn new(
        graph: &mut Graph,
        shape: Shape,
        examples: usize,
        mut terms: Vec<Term>,
    ) -> Result<Self> {
        for term in &mut terms {
            if let Term::Rows(rows) = term {
                let flat = flattened(graph, *rows)?;
                *rows = graph.reshape(flat, &[1, examples, elements(&shape)])?;
            }
        }
        Ok(Self {
            shape,
            columns: 1,
            examples,
            terms,
        })
    }

    /// The nodes of its terms.
    pub(super) fn factors(&self) -> impl Iterator<Item = NodeId> {
        self.terms.iter().flat_map(|&term| match term {
            Term::Outer(left, right) => vec![left, right],
            Term::Rows(rows) => vec![rows],
        })
    }

    /// The same with a form `[columns, ..shape of the factor]` of some of its factors, and the others for all columns.
    pub(super) fn with_columns(
        &self,
        graph: &mut Graph,
        columns: usize,
        wide: &HashMap<NodeId, NodeId>,
    ) -> Result<Self> {
        let rows = self.map(graph, |graph, factor| match wide.get(&factor) {
            None => Ok(factor),
            Some(&wide) => {
                let shape = [&[columns], &graph.shape(factor)[1..]].concat();
                graph.reshape(wide, &shape)
            }
        })?;
        Ok(Self { columns, ..rows })
    }

    fn map(
        &self,
        graph: &mut Graph,
        mut of: impl FnMut(&mut Graph, NodeId) -> Result<NodeId>,
    ) -> Result<Self> {
        let mut term = |term: &Term| {
            Ok(match *term {
                Term::Outer(left, right) => Term::Outer(of(graph, left)?, of(graph, right)?),
                Term::Rows(rows) => Term::Rows(of(graph, rows)?),
            })
        };
        let terms = self.terms.iter().map(&mut term).collect::<Result<_>>()?;
        Ok(self.with(terms))
    }

    /// As many rows, of these terms, of a parameter of another shape.
    pub(super) fn of_shape(&self, shape: &[usize], terms: Vec<Term>) -> Self {
        let shape = shape.to_vec();
        Self {
            shape,
            ..self.with(terms)
        }
    }

    fn with(&self, terms: Vec<Term>) -> Self {
        Self {
            shape: self.shape.clone(),
            terms,
            ..*self
        }
    }

    /// How many columns an example has.
    #[must_use]
    pub fn columns(&self) -> usize {
        self.columns
    }

    /// How many examples there are.
    #[must_use]
    pub fn examples(&self) -> usize {
        self.examples
    }

    /// Its terms.
    pub(super) fn terms(&self) -> &[Term] {
        &self.terms
    }

    /// `s_n v_cn`, for factors `s` `[n]`, or `s_cn v_cn` for factors `[columns, n]`.
    ///
    /// # Errors
    /// Shapes that do not fit.
    pub fn scaled(&self, graph: &mut Graph, factors: NodeId) -> Result<Self> {
        let columns = elements(graph.shape(factors)) / self.examples.max(1);
        let column = graph.reshape(factors, &[columns, self.examples, 1])?;
        let terms = self.terms.iter();
        let terms = terms.map(|&term| times_column(graph, term, column));
        Ok(self.with(terms.collect::<Result<_>>()?))
    }

    /// `s_n v_cn^2`, elementwise, for factors `s` `[n]`: the squares of the factors where there is one term.
    ///
    /// # Errors
    /// Shapes that do not fit.
    pub fn squared(&self, graph: &mut Graph, factors: NodeId) -> Result<Self> {
        let scaled = self.scaled(graph, factors)?;
        let mut terms = Vec::new();
        for (i, &a) in scaled.terms.iter().enumerate() {
            for (j, &b) in self.terms.iter().enumerate().skip(i) {
                let product = self.product(graph, a, b)?;
                terms.push(if j > i {
                    let two = graph.constant(2.0, &[1, 1, 1]);
                    times_column(graph, product, two)?
                } else {
                    product
                });
            }
        }
        Ok(self.with(terms))
    }

    /// `v_cn - v` up to what is the same for all examples and near their mean `v = sum_n p_n v_n`, for weights `p` `[n]` that add up to 1.
    ///
    /// Of an outer product the product of the mean factors is taken away: `a b^T - m k^T = a (b - k)^T + (a - m) k^T`, two terms without a
    /// difference of products.
    ///
    /// # Errors
    /// Shapes that do not fit.
    pub fn centred(&self, graph: &mut Graph, weights: NodeId) -> Result<Self> {
        let column = graph.reshape(weights, &[1, self.examples, 1])?;
        let mut terms = Vec::new();
        for &term in &self.terms {
            match term {
                Term::Outer(left, right) => {
                    let (left_off, _) = off_mean(graph, left, column)?;
                    let (right_off, right_mean) = off_mean(graph, right, column)?;
                    terms.push(Term::Outer(left, right_off));
                    terms.push(Term::Outer(left_off, right_mean));
                }
                Term::Rows(rows) => terms.push(Term::Rows(off_mean(graph, rows, column)?.0)),
            }
        }
        Ok(self.with(terms))
    }

    /// `sum_cn v_cn`, like the parameter: for each term of two factors one matrix product.
    ///
    /// # Errors
    /// Shapes that do not fit.
    pub fn sum(&self, graph: &mut Graph) -> Result<NodeId> {
        let mut sums = Vec::with_capacity(self.terms.len());
        for &term in &self.terms {
            let sum = match self.over_columns(graph, term)? {
                Term::Rows(rows) => graph.sum(rows, &[0, 1])?,
                Term::Outer(left, right) => self.contracted(graph, left, right)?,
            };
            sums.push(graph.reshape(sum, &self.shape)?);
        }
        added(graph, &sums, &self.shape)
    }

    /// `sum_c v_cn`, of one column.
    ///
    /// # Errors
    /// Shapes that do not fit.
    pub fn sum_over_columns(&self, graph: &mut Graph) -> Result<Self> {
        let mut terms = Vec::with_capacity(self.terms.len());
        for &term in &self.terms {
            terms.push(match self.over_columns(graph, term)? {
                wide @ Term::Outer(left, _) if graph.shape(left)[0] > 1 => {
                    let rows = self.rows(graph, wide)?;
                    Term::Rows(graph.sum(rows, &[0])?)
                }
                term => term,
            });
        }
        let columns = 1;
        Ok(Self {
            columns,
            ..self.with(terms)
        })
    }

    /// The sum of the elements of each row, `[columns, n]`.
    ///
    /// # Errors
    /// Shapes that do not fit.
    pub fn sum_over_elements(&self, graph: &mut Graph) -> Result<NodeId> {
        let all = [self.columns, self.examples];
        let mut sums = Vec::with_capacity(self.terms.len());
        for &term in &self.terms {
            let sum = match term {
                Term::Rows(rows) => graph.sum(rows, &[2])?,
                Term::Outer(left, right) => {
                    let (left, right) = (graph.sum(left, &[2])?, graph.sum(right, &[2])?);
                    product(graph, left, right)?
                }
            };
            let sum = graph.broadcast(sum, &[all[0], all[1], 1])?;
            sums.push(graph.reshape(sum, &all)?);
        }
        added(graph, &sums, &all)
    }

    /// The inner product of each row with one `vector` like the parameter, `[columns, n]`: for a term of two factors `(x_cn^T V) . d_cn`, one
    /// product of `n` rows with the vector.
    ///
    /// # Errors
    /// Shapes that do not fit.
    pub fn products_with(&self, graph: &mut Graph, vector: NodeId) -> Result<NodeId> {
        let all = [self.columns, self.examples];
        let mut sums = Vec::with_capacity(self.terms.len());
        for &term in &self.terms {
            let products = match term {
                Term::Rows(rows) => {
                    let vector = graph.reshape(vector, &[1, 1, elements(&self.shape)])?;
                    product(graph, rows, vector)?
                }
                Term::Outer(left, right) => {
                    let [columns, n, a] = axes(graph, left);
                    let b = graph.shape(right)[2];
                    let rows = graph.reshape(left, &[1, columns * n, a])?;
                    let vector = graph.reshape(vector, &[1, a, b])?;
                    let seen = graph.dot(rows, vector, false, false)?;
                    let seen = graph.reshape(seen, &[columns, n, b])?;
                    product(graph, seen, right)?
                }
            };
            let sum = graph.sum(products, &[2])?;
            let [columns, n, _] = axes(graph, products);
            let sum = graph.reshape(sum, &[columns, n])?;
            sums.push(graph.broadcast(sum, &all)?);
        }
        added(graph, &sums, &all)
    }

    /// All rows, `[columns, n, ..shape of the parameter]`.
    ///
    /// # Errors
    /// Shapes that do not fit.
    pub fn formed(&self, graph: &mut Graph) -> Result<NodeId> {
        let shape = [&[self.columns, self.examples], &self.shape[..]].concat();
        let mut all = Vec::with_capacity(self.terms.len());
        for &term in &self.terms {
            let rows = self.rows(graph, term)?;
            all.push(graph.reshape(rows, &shape)?);
        }
        added(graph, &all, &shape)
    }

    /// The inner products of all rows, `[columns n, columns n]`, those of a column after those of the one before: for terms of two factors
    /// products of the inner products of these, `(x_n . x_m) (d_cn . d_km)`.
    ///
    /// # Errors
    /// Shapes that do not fit.
    pub fn inner_products(&self, graph: &mut Graph) -> Result<NodeId> {
        let size = self.columns * self.examples;
        let mut all = Vec::new();
        for &a in &self.terms {
            for &b in &self.terms {
                let products = match (a, b) {
                    (Term::Outer(la, ra), Term::Outer(lb, rb)) if self.alike(graph, a, b) => {
                        let left = self.between(graph, la, lb)?;
                        let right = self.between(graph, ra, rb)?;
                        product(graph, left, right)?
                    }
                    _ => {
                        let (a, b) = (self.rows(graph, a)?, self.rows(graph, b)?);
                        self.between(graph, a, b)?
                    }
                };
                let [c, n] = [self.columns, self.examples];
                let products = graph.broadcast(products, &[c, n, c, n])?;
                all.push(graph.reshape(products, &[size, size])?);
            }
        }
        added(graph, &all, &[size, size])
    }

    /// Inner products of factors, `[c, n, c, n]`.
    fn between(&self, graph: &mut Graph, a: NodeId, b: NodeId) -> Result<NodeId> {
        let mut matrix = |factor: NodeId| {
            let shape = graph.shape(factor).clone();
            let rows = graph.reshape(factor, &[1, shape[0] * shape[1], shape[2]])?;
            Ok((rows, [shape[0], shape[1]]))
        };
        let ((a, [ca, na]), (b, [cb, nb])) = (matrix(a)?, matrix(b)?);
        let products = graph.dot(a, b, false, true)?;
        graph.reshape(products, &[ca, na, cb, nb])
    }

    /// Whether terms have factors of the same sizes.
    fn alike(&self, graph: &Graph, a: Term, b: Term) -> bool {
        let size = |factor: NodeId| graph.shape(factor)[2];
        match (a, b) {
            (Term::Outer(la, ra), Term::Outer(lb, rb)) => {
                size(la) == size(lb) && size(ra) == size(rb)
            }
            (Term::Rows(_), Term::Rows(_)) => true,
            _ => false,
        }
    }

    /// The product of terms, elementwise.
    fn product(&self, graph: &mut Graph, a: Term, b: Term) -> Result<Term> {
        Ok(match (a, b) {
            (Term::Outer(la, ra), Term::Outer(lb, rb)) if self.alike(graph, a, b) => {
                Term::Outer(product(graph, la, lb)?, product(graph, ra, rb)?)
            }
            _ => {
                let (a, b) = (self.rows(graph, a)?, self.rows(graph, b)?);
                Term::Rows(product(graph, a, b)?)
            }
        })
    }

    /// The rows of a term, `[columns, n, elements]`.
    fn rows(&self, graph: &mut Graph, term: Term) -> Result<NodeId> {
        let all = [self.columns, self.examples, elements(&self.shape)];
        let (left, right) = match term {
            Term::Rows(rows) => return graph.broadcast(rows, &all),
            Term::Outer(left, right) => (left, right),
        };
        let ([lc, ln, a], [rc, rn, b]) = (axes(graph, left), axes(graph, right));
        let left = graph.reshape(left, &[lc, ln, a, 1])?;
        let right = graph.reshape(right, &[rc, rn, 1, b])?;
        let rows = product(graph, left, right)?;
        let shape = graph.shape(rows).clone();
        let rows = graph.reshape(rows, &[shape[0], shape[1], a * b])?;
        graph.broadcast(rows, &all)
    }

    /// The sum of a term over the columns, of one column; where both factors differ from column to column the term itself.
    fn over_columns(&self, graph: &mut Graph, term: Term) -> Result<Term> {
        Ok(match term {
            Term::Rows(rows) => Term::Rows(graph.sum(rows, &[0])?),
            Term::Outer(left, right) => match (graph.shape(left)[0], graph.shape(right)[0]) {
                (1, _) => Term::Outer(left, graph.sum(right, &[0])?),
                (_, 1) => Term::Outer(graph.sum(left, &[0])?, right),
                _ => term,
            },
        })
    }

    /// `sum_cn left_cn right_cn^T`, `[1, a, b]`.
    fn contracted(&self, graph: &mut Graph, left: NodeId, right: NodeId) -> Result<NodeId> {
        let ([columns, ln, a], [_, rn, b]) = (axes(graph, left), axes(graph, right));
        if ln.min(rn) < self.examples {
            // A factor that is the same for all examples, of one column.
            let (left, right) = (graph.sum(left, &[1])?, graph.sum(right, &[1])?);
            return self.rows_of_one(graph, left, right);
        }
        let left = graph.reshape(left, &[1, columns * self.examples, a])?;
        let right = graph.reshape(right, &[1, columns * self.examples, b])?;
        graph.dot(left, right, true, false)
    }

    /// `left right^T` of single rows.
    fn rows_of_one(&self, graph: &mut Graph, left: NodeId, right: NodeId) -> Result<NodeId> {
        let left = graph.permute(left, &[0, 2, 1])?;
        product(graph, left, right)
    }
}

fn axes(graph: &Graph, factor: NodeId) -> [usize; 3] {
    let shape = graph.shape(factor);
    [shape[0], shape[1], shape[2]]
}

/// The product, with axes of size 1 repeated.
fn product(graph: &mut Graph, a: NodeId, b: NodeId) -> Result<NodeId> {
    let (a, b) = graph.broadcast_pair(a, b)?;
    graph.binary(Binary::Mul, a, b)
}

/// A term times a column `[1, n, 1]`, of the factor that differs from example to example.
fn times_column(graph: &mut Graph, term: Term, column: NodeId) -> Result<Term> {
    Ok(match term {
        Term::Rows(rows) => Term::Rows(product(graph, rows, column)?),
        Term::Outer(left, right) if graph.shape(right)[1] < graph.shape(left)[1] => {
            Term::Outer(product(graph, left, column)?, right)
        }
        Term::Outer(left, right) => Term::Outer(left, product(graph, right, column)?),
    })
}

/// Rows less their mean, and the mean.
fn off_mean(graph: &mut Graph, rows: NodeId, weights: NodeId) -> Result<(NodeId, NodeId)> {
    let weighted = product(graph, rows, weights)?;
    let mean = graph.sum(weighted, &[1])?;
    let shape = graph.shape(rows).clone();
    let repeated = graph.broadcast(mean, &shape)?;
    Ok((graph.binary(Binary::Sub, rows, repeated)?, mean))
}

/// The sum of nodes of one shape; zeros of none.
pub(super) fn added(graph: &mut Graph, nodes: &[NodeId], shape: &[usize]) -> Result<NodeId> {
    let Some((&first, others)) = nodes.split_first() else {
        return Ok(graph.constant(0.0, shape));
    };
    let mut sum = first;
    for &node in others {
        sum = graph.binary(Binary::Add, sum, node)?;
    }
    Ok(sum)
}
