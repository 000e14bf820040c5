//! What tells the methods that treat weights as matrices from each other.

use crate::error::Result;
use crate::graph::Tensor;
use crate::vector::{Entry, Layout};

/// How a tensor of parameters is stepped.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Form {
    /// Element by element, by Adam; how many there are.
    Elements(usize),
    /// As a matrix.
    Matrix(Matrix),
}

/// A tensor as a matrix: its last axis by all others, so that a weight `[in, out]` is itself.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Matrix {
    /// Rows and columns.
    pub shape: [usize; 2],
    /// Whether there is a factor of its rows, and of its columns.
    pub sides: [bool; 2],
}

impl Form {
    /// What a graph of the rule has for the tensor.
    pub(super) fn shape(&self) -> Vec<usize> {
        match self {
            Form::Elements(count) => vec![*count],
            Form::Matrix(matrix) => matrix.shape.to_vec(),
        }
    }

    /// The matrix, if it is one.
    pub(super) fn matrix(&self) -> Option<&Matrix> {
        match self {
            Form::Elements(_) => None,
            Form::Matrix(matrix) => Some(matrix),
        }
    }
}

impl Matrix {
    /// The matrix of a tensor, with factors of the sides up to `largest`; none for vectors, and where there is nothing but one row or
    /// column.
    pub(super) fn of(entry: &Entry, largest: usize) -> Option<Self> {
        let (&columns, others) = entry.shape.split_last()?;
        let rows = others.iter().product();
        let shape = [rows, columns];
        (!others.is_empty() && rows > 1 && columns > 1).then(|| Self {
            shape,
            sides: shape.map(|side| side <= largest),
        })
    }

    /// Orders of its factors.
    pub(super) fn orders(&self) -> impl Iterator<Item = usize> {
        let sides = self.shape.into_iter().zip(self.sides);
        sides.filter_map(|(order, has)| has.then_some(order))
    }

    /// Operations of a product of each of its factors with the matrix, or of the matrix with itself.
    pub(super) fn products(&self) -> f64 {
        let [rows, columns] = self.shape.map(|side| side as f64);
        self.orders().map(|n| 2.0 * n as f64 * rows * columns).sum()
    }
}

/// Names and shapes of tensors.
pub(super) type Tensors = Vec<(&'static str, Vec<usize>)>;

/// Leaves of the graph of a step, for one tensor of the parameters.
pub struct Operands<'b> {
    /// Numbers of the step; the first eight are those of [`AdamOptions`](crate::optim::AdamOptions).
    pub settings: Tensor<'b>,
    /// Its gradient.
    pub gradient: Tensor<'b>,
    /// Itself.
    pub theta: Tensor<'b>,
    /// What is remembered of it.
    pub state: Vec<Tensor<'b>>,
    /// What the host made for it.
    pub made: Vec<Tensor<'b>>,
}

impl<'b> Operands<'b> {
    /// A number of the step.
    pub(super) fn setting(&self, at: usize) -> Tensor<'b> {
        self.settings.slice(&[at], &[1])
    }
}

/// What a step makes of them.
pub struct Update<'b> {
    /// What is taken from the parameters.
    pub step: Tensor<'b>,
    /// What is to be remembered.
    pub state: Vec<Tensor<'b>>,
}

/// What tells methods that treat weights as matrices from each other.
pub trait Rule: Send + Sync {
    /// Its name in reports.
    const NAME: &'static str;
    /// Names, in a state, of the vector that a step computes, and of that which the host makes.
    const VECTORS: &'static [&'static str];

    /// Checks the ranges.
    ///
    /// # Errors
    /// [`Error::Option`](crate::Error::Option).
    fn check(&self) -> Result<()>;

    /// How each tensor is stepped.
    fn forms(&self, layout: &Layout) -> Vec<Form>;

    /// Numbers of the step of this number, counted from 1 without one that only makes factors, with a factor on its length.
    fn settings(&self, number: i32, factor: f64) -> Vec<f32>;

    /// What is remembered of a matrix, and what the host makes for it.
    fn memory(&self, matrix: &Matrix) -> [Tensors; 2];

    /// Appends the step of a matrix to a graph.
    fn update<'b>(&self, matrix: &Matrix, on: &Operands<'b>) -> Update<'b>;

    /// Operations of the products in that.
    fn flops(&self, matrix: &Matrix) -> f64;

    /// Whether the host makes anew what it makes, from what the step after so many leaves.
    fn refreshes(&self, _steps: i32) -> bool {
        false
    }

    /// Makes it, of what is remembered, and of what was made before, except for the first time: then that is zero. None where it cannot be
    /// made, because numbers are not finite.
    fn refresh(
        &self,
        _matrix: &Matrix,
        _first: bool,
        _state: &mut [Vec<f32>],
        _made: &mut [Vec<f32>],
    ) -> Option<()> {
        Some(())
    }

    /// Operations of that.
    fn refresh_flops(&self, _matrix: &Matrix, _first: bool) -> f64 {
        0.0
    }
}
