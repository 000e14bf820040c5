//! Eigenpairs of largest magnitude of a symmetric, possibly indefinite operator, from products with a random block (Halko, Martinsson and Tropp 2011).

use nalgebra::{DMatrix, DVector, SymmetricEigen};

use crate::error::{Error, Result};
use crate::gpu::{Gpu, Recording, Slice};
use crate::kernels::blocks::{InnerProducts, Rows, Sketch, combine_rows, sketch};
use crate::objective::BlockProduct;
use crate::vector::Block;

/// A symmetric linear operator on blocks of vectors: replaying `multiply` writes `C v` to `products` for every `v` in `directions`.
#[derive(Clone, Debug)]
pub struct BlockOperator {
    /// The vectors; the solver writes them.
    pub directions: Block,
    /// Their products.
    pub products: Block,
    /// The products' program.
    pub multiply: Recording,
}

impl From<&BlockProduct> for BlockOperator {
    fn from(block: &BlockProduct) -> Self {
        Self {
            directions: block.directions.clone(),
            products: block.products.clone(),
            multiply: block.multiply.clone(),
        }
    }
}

/// Settings of a [`RandomizedEigensolver`].
#[derive(Clone, Debug, PartialEq)]
#[non_exhaustive]
pub struct EigenOptions {
    /// Eigenpairs wanted. Default 20.
    pub rank: usize,
    /// Vectors in the random block beyond them. Default 10.
    pub oversampling: usize,
    /// Further products of the block with the operator before the eigenvalues are computed: each squares the ratio between captured and other
    /// eigenvalues. Default 1.
    pub power_iterations: usize,
    /// Distribution of the random block. Default [`Sketch::Gaussian`].
    pub sketch: Sketch,
    /// Seed of the random block.
    pub seed: u64,
    /// Whether every solve draws the same random block. Default false.
    pub same_sketch: bool,
}

impl Default for EigenOptions {
    fn default() -> Self {
        Self {
            rank: 20,
            oversampling: 10,
            power_iterations: 1,
            sketch: Sketch::Gaussian,
            seed: 0,
            same_sketch: false,
        }
    }
}

impl EigenOptions {
    /// Sets the number of eigenpairs.
    #[must_use]
    pub fn with_rank(mut self, rank: usize) -> Self {
        self.rank = rank;
        self
    }

    /// Sets the oversampling.
    #[must_use]
    pub fn with_oversampling(mut self, oversampling: usize) -> Self {
        self.oversampling = oversampling;
        self
    }

    /// Sets the number of power iterations.
    #[must_use]
    pub fn with_power_iterations(mut self, power_iterations: usize) -> Self {
        self.power_iterations = power_iterations;
        self
    }

    /// Sets the distribution of the random block.
    #[must_use]
    pub fn with_sketch(mut self, sketch: Sketch) -> Self {
        self.sketch = sketch;
        self
    }

    /// Sets the seed of the random block.
    #[must_use]
    pub fn with_seed(mut self, seed: u64) -> Self {
        self.seed = seed;
        self
    }

    /// Sets whether every solve draws the same random block.
    #[must_use]
    pub fn with_same_sketch(mut self, same: bool) -> Self {
        self.same_sketch = same;
        self
    }

    /// Vectors in a block: rank and oversampling.
    #[must_use]
    pub fn width(&self) -> usize {
        self.rank.saturating_add(self.oversampling)
    }

    /// Products with the operator in a solve, counted in single vectors.
    #[must_use]
    pub fn products(&self) -> usize {
        self.width() * (2 + self.power_iterations)
    }

    /// Checks the ranges.
    ///
    /// # Errors
    /// [`Error::Option`] naming the option and its range.
    pub fn validate(&self) -> Result<()> {
        if self.rank == 0 || self.width() > MOST_VECTORS || self.power_iterations > 100 {
            return Err(Error::Option {
                option: "rank, oversampling and power iterations".into(),
                message: format!(
                    "{}, {} and {}: the rank must be at least 1, rank and oversampling together at most {MOST_VECTORS}, power iterations at most 100",
                    self.rank, self.oversampling, self.power_iterations
                ),
            });
        }
        Ok(())
    }
}

/// Small matrices are as wide as the block, and the host decomposes them.
const MOST_VECTORS: usize = 1024;
/// Ratio of the smallest to the largest eigenvalue of a normalized matrix of inner products from which on one pass makes the block orthonormal to
/// rounding: that matrix is right to about 1e-6.
const WELL_CONDITIONED: f64 = 1e-3;
/// What is added to those eigenvalues, as a part of the largest, where that is not so (shifted Cholesky QR, Fukaya et al. 2020).
const SHIFT: f64 = 1e-5;
/// Passes before directions that are still dependent are given up.
const MOST_PASSES: usize = 5;
/// A direction whose square length after the last pass is below this was given up.
const DEAD: f64 = 1e-2;

/// What a solve found; the vectors are in [`RandomizedEigensolver::basis`].
#[derive(Clone, Debug, PartialEq)]
pub struct Eigenvalues {
    /// By falling magnitude; zeros at the end where the operator, or what a block could see of it, has a smaller rank.
    pub values: Vec<f64>,
    /// Passes of orthogonalization that the block needed in all.
    pub passes: usize,
}

/// The `rank` eigenpairs `(l, u)` of largest `|l|` of a symmetric operator.
///
/// Double pass: `Y = C W` for random `W`, `Q` an orthonormal basis of `Y`, and the eigenpairs of `Q^T C Q`, where each power iteration replaces `Y` by
/// `C Q` before. `Q = Y A`, with `A` from the eigenvectors of `Y^T Y` in f64 on the host; where `Y` is so ill-conditioned that f32 inner products do not
/// tell its small directions, a shifted pass makes it better first, and another follows (as shifted Cholesky QR does). What is left of
/// non-orthogonality goes into the small eigenproblem, which is a generalized one.
///
/// Memory: two blocks of `rank + oversampling` vectors, which belong to the operator, and one of `rank`. Blocking readbacks: `2 + power_iterations`, one
/// more for each pass beyond the first.
#[derive(Debug)]
pub struct RandomizedEigensolver {
    gpu: Gpu,
    options: EigenOptions,
    basis: Block,
    settings: Slice,
    coefficients: Slice,
    draw: Recording,
    recall: Recording,
    multiply: Recording,
    products_products: (Recording, InnerProducts),
    directions_directions: (Recording, InnerProducts),
    directions_products: (Recording, InnerProducts),
    /// directions = A products
    products_to_directions: Recording,
    /// directions = A directions
    directions_to_directions: Recording,
    /// basis = A directions
    to_basis: Recording,
    draws: u32,
}

impl RandomizedEigensolver {
    /// A solver for an operator whose block has [`EigenOptions::width`] vectors; eigenvectors go to `basis`, which has `rank`.
    ///
    /// # Errors
    /// [`Error::Option`], [`Error::Length`] for blocks of other widths, limits of the device.
    pub fn new(
        gpu: &Gpu,
        operator: &BlockOperator,
        basis: &Block,
        options: &EigenOptions,
    ) -> Result<Self> {
        options.validate()?;
        let width = options.width();
        for (block, expected) in [
            (&operator.directions, width),
            (&operator.products, width),
            (basis, options.rank),
        ] {
            if block.width() != expected {
                return Err(Error::Length {
                    what: format!("the block '{}'", block.slice().label()),
                    found: block.width(),
                    expected,
                });
            }
        }
        let (directions, products) = (&operator.directions, &operator.products);
        let settings = gpu.buffer("sketch settings", 4)?;
        let coefficients = gpu.buffer("block coefficients", width * width)?;
        let mut draw = Recording::new();
        sketch(gpu, &mut draw, directions, &settings, options.sketch)?;
        let mut recall = draw.clone();
        recall.copy(
            basis.slice(),
            &directions.slice().slice(0..basis.slice().len())?,
        )?;
        let inner = |left: &Block, right: &Block| -> Result<(Recording, InnerProducts)> {
            let mut recording = Recording::new();
            let inner = InnerProducts::record(gpu, &mut recording, &left.into(), &right.into())?;
            Ok((recording, inner))
        };
        let turned = |out: &Block, input: &Block| -> Result<Recording> {
            let mut recording = Recording::new();
            combine_rows(
                gpu,
                &mut recording,
                &out.into(),
                &coefficients,
                &Rows::from(input),
            )?;
            Ok(recording)
        };
        let mut directions_to_directions = turned(products, directions)?;
        directions_to_directions.copy(products.slice(), directions.slice())?;
        Ok(Self {
            gpu: gpu.clone(),
            options: options.clone(),
            basis: basis.clone(),
            draw,
            recall,
            multiply: operator.multiply.clone(),
            products_products: inner(products, products)?,
            directions_directions: inner(directions, directions)?,
            directions_products: inner(directions, products)?,
            products_to_directions: turned(directions, products)?,
            directions_to_directions,
            to_basis: turned(basis, directions)?,
            settings,
            coefficients,
            draws: 0,
        })
    }

    /// The eigenvectors: orthonormal rows, in the order of the eigenvalues; rows of zeros where an eigenvalue is missing.
    pub fn basis(&self) -> &Block {
        &self.basis
    }

    /// Random vectors drawn so far: what to remember to go on with the same numbers later.
    pub fn drawn(&self) -> u32 {
        self.draws
    }

    /// Goes on after that many random vectors.
    pub fn set_drawn(&mut self, vectors: u32) {
        self.draws = vectors;
    }

    /// Replays `before`, draws a block, or takes the last eigenvectors and draws only the rest of it with `recall`, and computes eigenpairs.
    ///
    /// # Errors
    /// [`Error::NotFinite`] where products are not finite, loss of the device.
    pub fn solve(&mut self, before: &Recording, recall: bool) -> Result<Eigenvalues> {
        let seed = self.options.seed;
        let stream = if self.options.same_sketch {
            0
        } else {
            self.draws
        };
        self.draws = self.draws.wrapping_add(self.options.width() as u32);
        self.gpu.upload(
            &self.settings,
            0,
            &[seed as u32, (seed >> 32) as u32, stream, STREAM],
        )?;
        let start = if recall { &self.recall } else { &self.draw };
        let mut passes = 0;
        let mut gram = self.inner(&[before, start, &self.multiply], &self.products_products)?;
        for iteration in 0..=self.options.power_iterations {
            let (mut coefficients, mut done) = orthonormal(&gram, false)?;
            let mut turn = &self.products_to_directions;
            passes += 1;
            while !done {
                self.put(&coefficients)?;
                gram = self.inner(&[turn], &self.directions_directions)?;
                passes += 1;
                (coefficients, done) = orthonormal(&gram, passes >= MOST_PASSES)?;
                turn = &self.directions_to_directions;
            }
            self.put(&coefficients)?;
            if iteration < self.options.power_iterations {
                gram = self.inner(&[turn, &self.multiply], &self.products_products)?;
                continue;
            }
            let (own, projected) = self.two(&[turn, &self.multiply])?;
            let (values, vectors) = small_problem(&own, &projected, self.options.rank)?;
            self.put(&vectors)?;
            self.gpu
                .submit(|recorder| recorder.replay(&self.to_basis))?;
            return Ok(Eigenvalues { values, passes });
        }
        Err(Error::Unsupported {
            what: "an eigenproblem without a pass".into(),
            message: "this cannot be".into(),
        })
    }

    /// Uploads a matrix of coefficients, row after row.
    fn put(&self, matrix: &DMatrix<f64>) -> Result<()> {
        let rows: Vec<f32> = matrix.transpose().iter().map(|&x| x as f32).collect();
        self.gpu.upload(&self.coefficients, 0, &rows)
    }

    fn inner(
        &self,
        recordings: &[&Recording],
        (last, inner): &(Recording, InnerProducts),
    ) -> Result<DMatrix<f64>> {
        let read = self.gpu.submit_and_read(
            |recorder| {
                for recording in recordings {
                    recorder.replay(recording);
                }
                recorder.replay(last);
                Ok(())
            },
            &inner.reads(),
        )?;
        Ok(inner.sum(&mut read.into_iter()))
    }

    /// Inner products of directions with themselves and with their products.
    fn two(&self, recordings: &[&Recording]) -> Result<(DMatrix<f64>, DMatrix<f64>)> {
        let (own, projected) = (&self.directions_directions, &self.directions_products);
        let reads = [own.1.reads(), projected.1.reads()].concat();
        let read = self.gpu.submit_and_read(
            |recorder| {
                for recording in recordings {
                    recorder.replay(recording);
                }
                recorder.replay(&own.0);
                recorder.replay(&projected.0);
                Ok(())
            },
            &reads,
        )?;
        let mut read = read.into_iter();
        Ok((own.1.sum(&mut read), projected.1.sum(&mut read)))
    }
}

/// High half of the stream of random numbers: no other part of the crate draws from it.
const STREAM: u32 = 3 << 16;

/// `A` with `A G A^T` nearly the identity, and whether rows `A Y` are orthonormal to rounding, where `G` are the inner products of the rows of `Y`.
/// With `last`, directions that `G` cannot tell from rounding errors are given up: their rows are zero.
fn orthonormal(gram: &DMatrix<f64>, last: bool) -> Result<(DMatrix<f64>, bool)> {
    check_finite(gram)?;
    let largest = gram.diagonal().max();
    let scale = gram.diagonal().map(|square| {
        if square > 0.0 && square > largest * 1e-30 {
            square.sqrt().recip()
        } else {
            0.0
        }
    });
    let scaled = DMatrix::from_fn(gram.nrows(), gram.ncols(), |i, j| {
        0.5 * (gram[(i, j)] + gram[(j, i)]) * scale[i] * scale[j]
    });
    let eigen = SymmetricEigen::new(scaled);
    let most = eigen.eigenvalues.max();
    let live = scale.iter().filter(|&&s| s > 0.0).count();
    let mut sorted: Vec<f64> = eigen.eigenvalues.iter().copied().collect();
    sorted.sort_by(|a, b| b.total_cmp(a));
    let least = sorted.get(live.saturating_sub(1)).copied().unwrap_or(0.0);
    let done = last || least >= WELL_CONDITIONED * most;
    let factor: DVector<f64> = eigen.eigenvalues.map(|value| {
        if most <= 0.0 {
            0.0
        } else if done {
            if value >= 0.1 * WELL_CONDITIONED * most {
                value.sqrt().recip()
            } else {
                0.0
            }
        } else {
            (value.max(0.0) + SHIFT * most).sqrt().recip()
        }
    });
    let matrix = DMatrix::from_fn(gram.nrows(), gram.ncols(), |i, j| {
        factor[i] * eigen.eigenvectors[(j, i)] * scale[j]
    });
    Ok((matrix, done))
}

/// Eigenvalues of `T v = l G v` by falling magnitude, and rows `v` with `v G v^T = 1`: `rank` of them, filled up with zeros.
fn small_problem(
    gram: &DMatrix<f64>,
    projected: &DMatrix<f64>,
    rank: usize,
) -> Result<(Vec<f64>, DMatrix<f64>)> {
    check_finite(gram)?;
    check_finite(projected)?;
    let symmetric = |m: &DMatrix<f64>| 0.5 * (m + m.transpose());
    let metric = SymmetricEigen::new(symmetric(gram));
    let live: Vec<usize> = (0..gram.nrows())
        .filter(|&i| metric.eigenvalues[i] > DEAD)
        .collect();
    if live.is_empty() {
        return Ok((vec![0.0; rank], DMatrix::zeros(rank, gram.ncols())));
    }
    // Rows of `whiten` are orthonormal in the metric.
    let whiten = DMatrix::from_fn(live.len(), gram.ncols(), |i, j| {
        metric.eigenvectors[(j, live[i])] / metric.eigenvalues[live[i]].sqrt()
    });
    let eigen = SymmetricEigen::new(&whiten * symmetric(projected) * whiten.transpose());
    let mut order: Vec<usize> = (0..live.len()).collect();
    order.sort_by(|&a, &b| {
        let magnitude = |i: usize| eigen.eigenvalues[i].abs();
        magnitude(b).total_cmp(&magnitude(a))
    });
    let vectors = eigen.eigenvectors.transpose() * whiten;
    let mut values = vec![0.0; rank];
    let mut rows = DMatrix::zeros(rank, gram.ncols());
    for (to, &from) in order.iter().take(rank).enumerate() {
        values[to] = eigen.eigenvalues[from];
        rows.set_row(to, &vectors.row(from));
    }
    Ok((values, rows))
}

fn check_finite(matrix: &DMatrix<f64>) -> Result<()> {
    if matrix.iter().all(|x| x.is_finite()) {
        Ok(())
    } else {
        Err(Error::NotFinite {
            what: "a product with the curvature".into(),
            advice: "Check the data, or use a smaller step length.",
        })
    }
}
