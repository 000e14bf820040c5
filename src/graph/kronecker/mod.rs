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
//! No layer knows of this: `a_n` and `b_n` are the two factors of a row of an example ([`per_example`](super::per_example)). A parameter
//! whose gradient is no sum of such products has a diagonal instead ([`Structure::Diagonal`]).

mod eigenvalues;
mod factors;
mod moment;

use rand_distr::{Distribution, StandardNormal};

pub use eigenvalues::corrected_eigenvalues;
pub use factors::{Curvature, factors, sampled_diagonals};

use super::node::NodeId;
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
    /// The mean `[1]` of its eigenvalues, and functions of that: the factor as a multiple of the identity.
    Mean,
}

impl Form {
    /// The tensors of a factor of order `n`.
    #[must_use]
    pub fn shapes(self, n: usize) -> Vec<Vec<usize>> {
        match self {
            Form::Full => vec![vec![n, n]],
            Form::Diagonal => vec![vec![n]],
            Form::Sketch { columns, .. } => vec![vec![n, columns], vec![1]],
            Form::Mean => vec![vec![1]],
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
    /// Whether of factors of columns only the mean eigenvalue is kept: then the factors of rows do all the work (FOOF, Benzing 2022,
    /// "Gradient descent on neurons and its link to approximate second-order optimization").
    pub mean_columns: bool,
    /// Whether the eigenvalues of products of two matrices are measured, in the basis of their eigenvectors, and not products of the factors'
    /// (EKFAC, George et al. 2018, "Fast approximate natural gradient descent in a Kronecker-factored eigenbasis").
    pub corrected: bool,
}

/// Columns of a sketch beyond the eigenvectors that are taken from it: a sketch of few columns may miss a leading one (Halko, Martinsson and
/// Tropp 2011 take 5 or 10). They are computed at refreshes only, and no step multiplies by them.
pub const OVERSAMPLING: usize = 8;

impl Sizes {
    /// Matrices up to an order, sketches for so many eigenvectors or diagonals beyond.
    #[must_use]
    pub const fn up_to(largest: usize, rank: usize) -> Self {
        Self {
            largest,
            rank,
            mean_columns: false,
            corrected: false,
        }
    }

    fn form(self, axis: usize, size: usize) -> Form {
        if axis == 1 && self.mean_columns {
            Form::Mean
        } else if size <= self.largest {
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

/// What the factors of a layer stand for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Structure {
    /// Their Kronecker product, or the only one, is the curvature's approximation.
    Kronecker,
    /// The parameter's gradient is no sum over the batch of products of two factors: its only factor is the diagonal of its curvature, from
    /// the examples' rows where they are known, or [sampled](sampled_diagonals).
    Diagonal,
}

/// A parameter, or a weight with its bias, and the form of its curvature.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Layer {
    /// Whether its curvature is a Kronecker product.
    pub structure: Structure,
    /// Which parameter.
    pub weight: usize,
    /// The bias that goes with it.
    pub bias: Option<Appended>,
    /// The factor of its rows; none for a parameter that enters an example once, whose gradient has one factor, and for a diagonal.
    pub left: Option<Side>,
    /// The factor of its columns.
    pub right: Side,
    /// Eigenvalues of its curvature in the basis of the factors' eigenvectors, row after row, as a diagonal: then functions of the factors are
    /// their eigenvectors, as columns.
    pub corrected: Option<Side>,
}

impl Layer {
    /// Its factors, and after them its eigenvalues where they are corrected.
    pub fn sides(&self) -> impl Iterator<Item = &Side> {
        let factors = self.left.iter().chain(std::iter::once(&self.right));
        factors.chain(&self.corrected)
    }
}

/// The factors of a layer in a graph.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LayerFactors {
    /// What they are factors of.
    pub layer: Layer,
    /// For each use of the weight, whether the bias is in it.
    pub with_bias: Vec<bool>,
    /// For each of its [sides](Layer::sides) the nodes of its tensors.
    pub tensors: Vec<Vec<NodeId>>,
}

impl LayerFactors {
    /// The nodes of all its tensors.
    pub fn nodes(&self) -> impl Iterator<Item = &NodeId> {
        self.tensors.iter().flatten()
    }
}
