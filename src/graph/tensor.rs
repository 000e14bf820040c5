//! Notation: a handle on a node with operators, so that a loss reads like a formula.
//!
//! Operands broadcast as in NumPy. A mistake (shapes that do not fit) does not panic and needs no `?` at every step: the builder remembers
//! the first one and [`Builder::finish`] returns it.

use std::cell::RefCell;
use std::collections::BTreeSet;
use std::ops::{Add, Div, Mul, Neg, Sub};

use super::node::{FINITE_ONLY, Graph, NodeId, Shape};
use super::op::{Binary, DType, Unary};
use crate::error::{Error, Result};

/// A graph under construction.
#[derive(Debug, Default)]
pub struct Builder {
    graph: RefCell<Graph>,
    first_error: RefCell<Option<Error>>,
}

/// A value in a graph under construction. Copying it copies the handle.
#[derive(Clone, Copy, Debug)]
pub struct Tensor<'b> {
    builder: &'b Builder,
    id: NodeId,
}

impl Builder {
    /// An empty graph.
    pub fn new() -> Self {
        Self::default()
    }

    fn make(&self, f: impl FnOnce(&mut Graph) -> Result<NodeId>) -> Tensor<'_> {
        let mut graph = self.graph.borrow_mut();
        let id = match f(&mut graph) {
            Ok(id) => id,
            Err(error) => {
                self.first_error.borrow_mut().get_or_insert(error);
                // Stands in for the value that could not be made; `finish` refuses the graph.
                graph.constant(0.0, &[])
            }
        };
        Tensor { builder: self, id }
    }

    /// A parameter.
    pub fn parameter(&self, name: &str, shape: &[usize]) -> Tensor<'_> {
        self.make(|g| g.parameter(name, shape))
    }

    /// An input of floats.
    pub fn input(&self, name: &str, shape: &[usize]) -> Tensor<'_> {
        self.make(|g| g.input(name, shape, DType::F32))
    }

    /// A leaf that is given anew for each run of a phase.
    pub(crate) fn direction(&self, shape: &[usize]) -> Tensor<'_> {
        self.make(|g| Ok(g.direction(shape)))
    }

    /// An input of indices or labels that are all below a number; see [`Graph::index_input`].
    pub fn indices_below(&self, name: &str, shape: &[usize], below: usize) -> Tensor<'_> {
        self.make(|g| g.index_input(name, shape, below))
    }

    /// An input of indices or labels without a bound: what there is no place for gives zeros.
    pub fn indices(&self, name: &str, shape: &[usize]) -> Tensor<'_> {
        self.make(|g| g.input(name, shape, DType::U32))
    }

    /// A number, which broadcasts to any shape.
    pub fn constant(&self, value: f32) -> Tensor<'_> {
        self.make(|g| {
            if value.is_finite() {
                return Ok(g.constant(value, &[]));
            }
            Err(Error::Unsupported {
                what: format!("the constant {value}"),
                message: FINITE_ONLY.into(),
            })
        })
    }

    /// A tensor given by value.
    pub fn data(&self, values: Vec<f32>, shape: &[usize]) -> Tensor<'_> {
        self.make(|g| g.data_tensor(values, shape))
    }

    /// Remembers a mistake found outside the graph (an unknown option, a missing input).
    pub fn fail(&self, error: Error) -> Tensor<'_> {
        self.make(|_| Err(error))
    }

    /// The graph, or the first mistake.
    pub fn finish(self) -> Result<Graph> {
        match self.first_error.into_inner() {
            Some(error) => Err(error),
            None => Ok(self.graph.into_inner()),
        }
    }

    pub(crate) fn has_failed(&self) -> bool {
        self.first_error.borrow().is_some()
    }
}

impl<'b> Tensor<'b> {
    /// The node behind the handle.
    pub fn id(self) -> NodeId {
        self.id
    }

    /// The shape.
    pub fn shape(self) -> Shape {
        self.builder.graph.borrow().shape(self.id).clone()
    }

    /// Names the node for errors and listings.
    pub fn named(self, name: &str) -> Self {
        self.builder.graph.borrow_mut().set_name(self.id, name);
        self
    }

    /// Whether the handle belongs to this builder.
    pub(crate) fn is_of(self, builder: &Builder) -> bool {
        std::ptr::eq(self.builder, builder)
    }

    /// A node made from this tensor and others, which must be of the same builder.
    pub(super) fn make_with(
        self,
        others: &[Self],
        f: impl FnOnce(&mut Graph) -> Result<NodeId>,
    ) -> Self {
        let mut foreign = others.iter().filter(|other| !other.is_of(self.builder));
        match foreign.next() {
            None => self.builder.make(f),
            Some(other) => {
                // Neither graph has the other's node, whichever is finished.
                other.builder.fail(another_builder());
                self.builder.fail(another_builder())
            }
        }
    }

    fn unary(self, f: Unary) -> Self {
        self.builder.make(|g| g.unary(f, self.id))
    }

    fn binary(self, f: Binary, other: Self) -> Self {
        self.make_with(&[other], |g| {
            let (a, b) = g.broadcast_pair(self.id, other.id)?;
            g.binary(f, a, b)
        })
    }

    /// `e^x`
    pub fn exp(self) -> Self {
        self.unary(Unary::Exp)
    }

    /// Natural logarithm.
    pub fn log(self) -> Self {
        self.unary(Unary::Log)
    }

    /// Hyperbolic tangent.
    pub fn tanh(self) -> Self {
        self.unary(Unary::Tanh)
    }

    /// `1 / (1 + e^-x)`
    pub fn logistic(self) -> Self {
        self.unary(Unary::Logistic)
    }

    /// `log(1 + e^x)`
    pub fn softplus(self) -> Self {
        self.unary(Unary::Softplus)
    }

    /// `log(1 + x)`, with all digits where `x` is small.
    pub fn log1p(self) -> Self {
        self.unary(Unary::Log1p)
    }

    /// `e^x - 1`, with all digits where `x` is small.
    pub fn expm1(self) -> Self {
        self.unary(Unary::Expm1)
    }

    /// `e^x - 1 - x`, with all digits where `x` is small.
    pub fn expm1mx(self) -> Self {
        self.unary(Unary::Expm1mx)
    }

    /// Sine.
    pub fn sin(self) -> Self {
        self.unary(Unary::Sin)
    }

    /// Cosine.
    pub fn cos(self) -> Self {
        self.unary(Unary::Cos)
    }

    /// Square root.
    pub fn sqrt(self) -> Self {
        self.unary(Unary::Sqrt)
    }

    /// `1 / x`
    pub fn reciprocal(self) -> Self {
        self.unary(Unary::Reciprocal)
    }

    /// Error function.
    pub fn erf(self) -> Self {
        self.unary(Unary::Erf)
    }

    /// `max(x, 0)`
    pub fn relu(self) -> Self {
        self.unary(Unary::Relu)
    }

    /// 1 where `x > 0`, else 0.
    pub fn step(self) -> Self {
        self.unary(Unary::Step)
    }

    /// 1 where `x` is finite, else (infinite or not a number) 0.
    pub fn is_finite(self) -> Self {
        self.unary(Unary::IsFinite)
    }

    /// `x * x`
    pub fn square(self) -> Self {
        self * self
    }

    /// The larger of the two, elementwise.
    pub fn max(self, other: Self) -> Self {
        self.binary(Binary::Max, other)
    }

    /// `a` where `self > 0`, else `b`, and NaN where `self` is; the three broadcast together.
    ///
    /// A branch may be undefined where it is not chosen: its slopes are masked there. That reaches as far back as the branch is made
    /// element by element (and by reshapes) of the same number of elements. Where it is made through a broadcast, a reduction, a product of
    /// matrices, or where a value is used outside the branch, too, slopes that are infinite or not a number come through as NaN; choose an
    /// operand that is harmless before: `x.select(x, one).log()` in place of `x.log()`.
    pub fn select(self, a: Self, b: Self) -> Self {
        self.make_with(&[a, b], |g| {
            let (condition, a) = g.broadcast_pair(self.id, a.id)?;
            let (condition, b) = g.broadcast_pair(condition, b.id)?;
            let (a, b) = g.broadcast_pair(a, b)?;
            g.select(condition, a, b)
        })
    }

    /// The same value, constant for every derivative.
    pub fn stop_gradient(self) -> Self {
        self.builder.make(|g| g.stop_gradient(self.id))
    }

    /// Sum over `axes`, which stay with size 1.
    pub fn sum(self, axes: &[usize]) -> Self {
        self.builder.make(|g| g.sum(self.id, axes))
    }

    /// Mean over `axes`, which stay with size 1.
    pub fn mean(self, axes: &[usize]) -> Self {
        let shape = self.shape();
        let axes: BTreeSet<usize> = axes.iter().copied().collect();
        let count: usize = axes.iter().filter_map(|&a| shape.get(a)).product();
        let axes: Vec<usize> = axes.into_iter().collect();
        self.sum(&axes) * (1.0 / count as f32)
    }

    /// Maximum over `axes`, which stay with size 1.
    pub fn max_over(self, axes: &[usize]) -> Self {
        self.builder.make(|g| g.max(self.id, axes))
    }

    /// The same elements under another shape.
    pub fn reshape(self, shape: &[usize]) -> Self {
        self.builder.make(|g| g.reshape(self.id, shape))
    }

    /// Repeats axes of size 1; missing leading axes are added.
    pub fn broadcast(self, shape: &[usize]) -> Self {
        self.builder.make(|g| {
            let mut lifted = vec![1; shape.len().saturating_sub(g.shape(self.id).len())];
            lifted.extend(g.shape(self.id).clone());
            let x = g.reshape(self.id, &lifted)?;
            g.broadcast(x, shape)
        })
    }

    /// Axis `d` of the result is axis `permutation[d]` of `self`.
    pub fn permute(self, permutation: &[usize]) -> Self {
        self.builder.make(|g| g.permute(self.id, permutation))
    }

    /// Elements from `starts`, `shape` many along each axis.
    pub fn slice(self, starts: &[usize], shape: &[usize]) -> Self {
        self.builder.make(|g| g.slice(self.id, starts, shape))
    }

    /// Zeros around `self`: `before` of them ahead of each axis, up to `shape`.
    pub fn pad(self, before: &[usize], shape: &[usize]) -> Self {
        self.builder.make(|g| g.pad(self.id, before, shape))
    }

    /// `self` and then `others` along `axis`.
    pub fn concat(self, others: &[Self], axis: usize) -> Self {
        let parts: Vec<NodeId> = std::iter::once(self.id)
            .chain(others.iter().map(|t| t.id))
            .collect();
        self.make_with(others, |g| g.concat(&parts, axis))
    }

    /// Matrix product of `[M,K]` and `[K,N]`, or of batches `[B,M,K]` and `[B,K,N]`; an operand of two axes is shared by the whole batch.
    pub fn dot(self, other: Self) -> Self {
        self.make_with(&[other], |g| {
            let lift = |g: &mut Graph, x: NodeId| match *g.shape(x).as_slice() {
                [rows, columns] => g.reshape(x, &[1, rows, columns]),
                _ => Ok(x),
            };
            let flat = g.shape(self.id).len() == 2 && g.shape(other.id).len() == 2;
            let (mut a, mut b) = (lift(g, self.id)?, lift(g, other.id)?);
            if let (&[ba, m, k], &[bb, k2, n]) = (g.shape(a).as_slice(), g.shape(b).as_slice()) {
                let batch = ba.max(bb);
                a = g.broadcast(a, &[batch, m, k])?;
                b = g.broadcast(b, &[batch, k2, n])?;
            }
            let product = g.dot(a, b, false, false)?;
            if flat {
                let shape = g.shape(product)[1..].to_vec();
                return g.reshape(product, &shape);
            }
            Ok(product)
        })
    }

    /// Rows of this table `[R,D]` at `indices` `[I]`.
    pub fn gather(self, indices: Self) -> Self {
        self.make_with(&[indices], |g| g.gather(self.id, indices.id))
    }

    /// Labels `[I]` as rows of zeros with a one: `[I, classes]`.
    pub fn one_hot(self, classes: usize) -> Self {
        self.builder.make(|g| g.one_hot(self.id, classes))
    }
}

/// Tensors of two graphs in one expression.
pub(crate) fn another_builder() -> Error {
    Error::Shape {
        node: "an expression of two tensors".into(),
        message: "one of them was made by another builder, and so belongs to another graph; make both by the same one".into(),
    }
}

macro_rules! operator {
    ($trait:ident, $method:ident, $f:expr) => {
        impl<'b> $trait for Tensor<'b> {
            type Output = Tensor<'b>;
            fn $method(self, other: Self) -> Self {
                self.binary($f, other)
            }
        }
        impl<'b> $trait<f32> for Tensor<'b> {
            type Output = Tensor<'b>;
            fn $method(self, other: f32) -> Self {
                self.binary($f, self.builder.constant(other))
            }
        }
        impl<'b> $trait<Tensor<'b>> for f32 {
            type Output = Tensor<'b>;
            fn $method(self, other: Tensor<'b>) -> Tensor<'b> {
                other.builder.constant(self).binary($f, other)
            }
        }
    };
}

operator!(Add, add, Binary::Add);
operator!(Sub, sub, Binary::Sub);
operator!(Mul, mul, Binary::Mul);
operator!(Div, div, Binary::Div);

impl Neg for Tensor<'_> {
    type Output = Self;
    fn neg(self) -> Self {
        self.unary(Unary::Neg)
    }
}
