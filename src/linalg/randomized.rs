//! Eigenpairs of largest magnitude of a symmetric, possibly indefinite operator, from products with a random block (Halko, Martinsson and
//! Tropp 2011).

use nalgebra::{DMatrix, DVector, SymmetricEigen};

use crate::error::{Error, Result};
use crate::gpu::{Commands, Gpu, Recording, Slice, Work};
use crate::kernels::blocks::{Coefficients, InnerProducts, Rows, combine_rows, sketch, weigh};
use crate::kernels::cg;
use crate::linalg::scale::{check_products, not_finite_product};
use crate::linalg::{Basis, EigenOptions, Operator};
use crate::vector::Block;

/// Ratio of the smallest to the largest eigenvalue of a normalized matrix of inner products from which on one pass makes the block
/// orthonormal to rounding: that matrix is right to about 1e-6.
const WELL_CONDITIONED: f64 = 1e-3;
/// What is added to those eigenvalues, as a part of the largest, where that is not so (shifted Cholesky QR, Fukaya et al. 2020).
const SHIFT: f64 = 1e-5;
/// Passes before directions that are still dependent are given up.
pub(super) const MOST_PASSES: usize = 5;
/// A direction whose square length after the last pass is below this was given up.
const DEAD: f64 = 1e-2;

/// What a solve found; the vectors are in [`RandomizedEigensolver::basis`].
#[derive(Clone, Debug, PartialEq)]
pub struct Eigenvalues {
    /// By falling magnitude; zeros at the end where the operator, or what a block could see of it, has a smaller rank.
    pub values: Vec<f64>,
    /// Passes of orthogonalization that the block needed in all.
    pub passes: usize,
    /// Products with the operator, counted in single vectors.
    pub products: usize,
}

/// The `rank` eigenpairs `(l, u)` of largest `|l|` of a symmetric operator.
///
/// Double pass: `Y = C W` for random `W`, `Q` an orthonormal basis of `Y`, and the eigenpairs of `Q^T C Q`, where each power iteration
/// replaces `Y` by `C Q` before. `Q = Y A`, with `A` from the eigenvectors of `Y^T Y` in f64 on the host; where `Y` is so ill-conditioned
/// that f32 inner products do not tell its small directions, a shifted pass makes it better first, and another follows (as shifted Cholesky
/// QR does). What is left of non-orthogonality goes into the small eigenproblem, which is a generalized one.
///
/// Memory: two blocks of `rank + oversampling` vectors, which belong to the operator, and the basis. Blocking readbacks: `2 +
/// power_iterations`, one more for each pass beyond the first. A solve that starts from the last eigenvectors and has no power iterations
/// presumes that their products are well enough conditioned, which they are while the operator changes slowly: it multiplies twice before
/// it looks, and has one readback.
#[derive(Debug)]
pub struct RandomizedEigensolver {
    gpu: Gpu,
    options: EigenOptions,
    basis: Basis,
    settings: Slice,
    coefficients: Slice,
    draw: Recording,
    recall: Recording,
    multiply: Work,
    /// products = C^2 directions, directions = C directions
    twice: Work,
    products_products: (Recording, InnerProducts),
    directions_directions: (Recording, InnerProducts),
    directions_products: (Recording, InnerProducts),
    /// directions = A products
    products_to_directions: Recording,
    /// directions = A directions
    directions_to_directions: Recording,
    /// basis = A directions
    to_basis: Recording,
    /// Bits of the largest element of the block's first product.
    largest: Slice,
    measure_scale: Recording,
    draws: u32,
}

impl RandomizedEigensolver {
    /// A solver for an operator whose block has [`EigenOptions::width`] vectors; eigenvectors go to `basis`, which has `rank`.
    ///
    /// # Errors
    /// [`Error::Option`], [`Error::Length`] for blocks of other widths, limits of the device.
    pub fn new(
        gpu: &Gpu,
        operator: &Operator<Block>,
        basis: &Basis,
        options: &EigenOptions,
    ) -> Result<Self> {
        options.validate()?;
        let width = options.width();
        let (directions, products) = (&operator.input, &operator.output);
        for (what, found, expected) in [
            ("directions", directions.width(), width),
            ("products", products.width(), width),
            ("eigenvectors", basis.rank(), options.rank),
        ] {
            if found != expected {
                return Err(Error::Length {
                    what: format!("the number of {what}"),
                    found,
                    expected,
                });
            }
        }
        let settings = gpu.buffer("sketch settings", 4)?;
        let coefficients = gpu.buffer("block coefficients", width * width)?;
        let mut draw = Recording::new();
        sketch(gpu, &mut draw, directions, 0, &settings, options.sketch)?;
        let mut recall = Recording::new();
        if options.oversampling > 0 {
            let (rank, kind) = (options.rank, options.sketch);
            sketch(gpu, &mut recall, directions, rank, &settings, kind)?;
        }
        basis.record_recall(gpu, &mut recall, directions, 0)?;
        if options.oversampling > 0 {
            let rest = Rows::beyond(directions, options.rank)?;
            subtract_projection(gpu, &mut recall, &rest, basis, options.oversampling)?;
        }
        let inner = |left: &Block, right: &Block| -> Result<(Recording, InnerProducts)> {
            let mut recording = Recording::new();
            let inner = InnerProducts::record(gpu, &mut recording, &left.into(), &right.into())?;
            Ok((recording, inner))
        };
        let turned = |out: &Block, input: &Block| -> Result<Recording> {
            let mut recording = Recording::new();
            let coefficients = Coefficients {
                slice: &coefficients,
                first: 0,
                width,
            };
            let (out, input) = (Rows::all(out), Rows::all(input));
            combine_rows(gpu, &mut recording, &out, coefficients, &input, false)?;
            Ok(recording)
        };
        let mut directions_to_directions = turned(products, directions)?;
        directions_to_directions.copy(products.slice(), directions.slice())?;
        let mut to_basis = turned(products, directions)?;
        basis.record_store(gpu, &mut to_basis, products, 0)?;
        let mut twice = operator.multiply.clone();
        twice.tail().copy(products.slice(), directions.slice())?;
        twice.append(operator.multiply.clone());
        let largest = gpu.buffer("largest element of a product", 1)?;
        let mut measure_scale = Recording::new();
        let product = products.vectors()[0].slice();
        cg::largest(gpu, &mut measure_scale, (&largest, 0), product)?;
        Ok(Self {
            largest,
            measure_scale,
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
            to_basis,
            twice,
            settings,
            coefficients,
            draws: 0,
        })
    }

    /// The eigenvectors: orthonormal rows, in the order of the eigenvalues; rows of zeros where an eigenvalue is missing.
    pub fn basis(&self) -> &Basis {
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

    /// Replays `before`, draws a block, or takes the last eigenvectors and draws only the rest of it with `recall`, and computes
    /// eigenpairs.
    ///
    /// # Errors
    /// [`Error::NotFinite`] where products are not finite, [`Error::Unsupported`] where their scale is out of range, loss of the device.
    #[cfg(not(target_arch = "wasm32"))]
    pub fn solve<'a>(
        &mut self,
        before: impl Into<Commands<'a>>,
        recall: bool,
    ) -> Result<Eigenvalues> {
        crate::gpu::blocking(self.solve_async(before, recall))
    }

    /// As [`solve`](Self::solve), without blocking the thread.
    ///
    /// # Errors
    /// As there.
    pub async fn solve_async<'a>(
        &mut self,
        before: impl Into<Commands<'a>>,
        recall: bool,
    ) -> Result<Eigenvalues> {
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
        self.gpu.upload(&self.largest, 0, &[0u32])?;
        let scale = &self.measure_scale;
        let start = if recall { &self.recall } else { &self.draw };
        let width = self.options.width();
        let mut found = Eigenvalues {
            values: Vec::new(),
            passes: 0,
            products: 0,
        };
        let (mut gram, mut turn);
        if recall && self.options.power_iterations == 0 {
            found.products += 2 * width;
            let parts = [
                before.into(),
                start.into(),
                (&self.twice).into(),
                scale.into(),
            ];
            let (own, projected) = self.two(&parts).await?;
            if let Some((values, vectors)) =
                small_problem(&own, &projected, self.options.rank, WELL_CONDITIONED)?
            {
                found.passes += 1;
                return self.finish(found, values, &vectors);
            }
            (gram, turn) = (own, &self.directions_to_directions);
        } else {
            found.products += width;
            let parts = [
                before.into(),
                start.into(),
                (&self.multiply).into(),
                scale.into(),
            ];
            gram = self.inner(&parts, &self.products_products).await?;
            turn = &self.products_to_directions;
        }
        let mut power_iterations = self.options.power_iterations;
        loop {
            let (mut coefficients, mut done) = orthonormal(&gram, false)?;
            found.passes += 1;
            let mut passes = 1;
            while !done {
                self.put(&coefficients)?;
                gram = self
                    .inner(&[turn.into()], &self.directions_directions)
                    .await?;
                passes += 1;
                found.passes += 1;
                (coefficients, done) = orthonormal(&gram, passes >= MOST_PASSES)?;
                turn = &self.directions_to_directions;
            }
            self.put(&coefficients)?;
            found.products += width;
            if power_iterations == 0 {
                break;
            }
            power_iterations -= 1;
            let parts = [turn.into(), (&self.multiply).into()];
            gram = self.inner(&parts, &self.products_products).await?;
            turn = &self.products_to_directions;
        }
        let parts = [turn.into(), (&self.multiply).into()];
        let (own, projected) = self.two(&parts).await?;
        let (values, vectors) = small_problem(&own, &projected, self.options.rank, 0.0)?
            .unwrap_or((vec![0.0; self.options.rank], DMatrix::zeros(0, width)));
        self.finish(found, values, &vectors)
    }

    /// Makes the eigenvectors from the rows of coefficients, of which missing ones are zero.
    fn finish(
        &self,
        found: Eigenvalues,
        values: Vec<f64>,
        vectors: &DMatrix<f64>,
    ) -> Result<Eigenvalues> {
        let width = self.options.width();
        self.put(&vectors.clone().resize(width, width, 0.0))?;
        self.gpu
            .submit(|recorder| recorder.replay(&self.to_basis))?;
        Ok(Eigenvalues { values, ..found })
    }

    /// Uploads a matrix of coefficients, row after row.
    fn put(&self, matrix: &DMatrix<f64>) -> Result<()> {
        let rows: Vec<f32> = matrix.transpose().iter().map(|&x| x as f32).collect();
        self.gpu.upload(&self.coefficients, 0, &rows)
    }

    async fn inner(
        &self,
        parts: &[Commands<'_>],
        (last, inner): &(Recording, InnerProducts),
    ) -> Result<DMatrix<f64>> {
        let mut reads = inner.reads();
        reads.push(&self.largest);
        let mut read = self.read(parts, &[last], &reads).await?;
        check_products(&read.pop().unwrap_or_default())?;
        Ok(inner.sum(&mut read.into_iter()))
    }

    /// Inner products of directions with themselves and with their products.
    async fn two(&self, parts: &[Commands<'_>]) -> Result<(DMatrix<f64>, DMatrix<f64>)> {
        let (own, projected) = (&self.directions_directions, &self.directions_products);
        let mut reads = [own.1.reads(), projected.1.reads()].concat();
        reads.push(&self.largest);
        let last = [&own.0, &projected.0];
        let mut read = self.read(parts, &last, &reads).await?;
        check_products(&read.pop().unwrap_or_default())?;
        let mut read = read.into_iter();
        Ok((own.1.sum(&mut read), projected.1.sum(&mut read)))
    }

    /// Does parts, and others after them, and reads.
    async fn read(
        &self,
        parts: &[Commands<'_>],
        last: &[&Recording],
        reads: &[&Slice],
    ) -> Result<Vec<Vec<f32>>> {
        let last = last.iter().map(|&recording| recording.into());
        let commands = parts.iter().copied().chain(last);
        self.gpu.run_and_read_async(commands, reads).await
    }
}

/// High half of the stream of random numbers: no other part of the crate draws from it.
const STREAM: u32 = 3 << 16;

/// `A` with `A G A^T` nearly the identity, and whether rows `A Y` are orthonormal to rounding, where `G` are the inner products of the rows
/// of `Y`. With `last`, directions that `G` cannot tell from rounding errors are given up: their rows are zero.
pub(super) fn orthonormal(gram: &DMatrix<f64>, last: bool) -> Result<(DMatrix<f64>, bool)> {
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

/// Eigenvalues of `T v = l G v` by falling magnitude, and rows `v` with `v G v^T = 1`: `rank` of them, filled up with zeros. None where
/// `G`, with its rows and columns scaled, has an eigenvalue below `least` times its largest.
pub(super) fn small_problem(
    gram: &DMatrix<f64>,
    projected: &DMatrix<f64>,
    rank: usize,
    least: f64,
) -> Result<Option<(Vec<f64>, DMatrix<f64>)>> {
    check_finite(gram)?;
    check_finite(projected)?;
    let largest = gram.diagonal().max();
    // After an orthonormalization a short row is one that was given up; before it, lengths say nothing.
    let (shortest, shortest_sum) = if least > 0.0 {
        (1e-30, 0.0)
    } else {
        (DEAD, DEAD)
    };
    let live: Vec<usize> = (0..gram.nrows())
        .filter(|&i| gram[(i, i)] > shortest * largest)
        .collect();
    if live.is_empty() {
        return Ok(None);
    }
    let scale = |i: usize| gram[(live[i], live[i])].sqrt().recip();
    let scaled = |m: &DMatrix<f64>| {
        DMatrix::from_fn(live.len(), live.len(), |i, j| {
            let (row, column) = (live[i], live[j]);
            0.5 * (m[(row, column)] + m[(column, row)]) * scale(i) * scale(j)
        })
    };
    let metric = SymmetricEigen::new(scaled(gram));
    let kept: Vec<usize> = (0..live.len())
        .filter(|&i| metric.eigenvalues[i] > shortest_sum)
        .collect();
    if kept.is_empty() || metric.eigenvalues.min() < least * metric.eigenvalues.max() {
        return Ok(None);
    }
    // Rows of `whiten` are orthonormal in the metric.
    let whiten = DMatrix::from_fn(kept.len(), live.len(), |i, j| {
        metric.eigenvectors[(j, kept[i])] / metric.eigenvalues[kept[i]].sqrt()
    });
    let eigen = SymmetricEigen::new(&whiten * scaled(projected) * whiten.transpose());
    let mut order: Vec<usize> = (0..kept.len()).collect();
    order.sort_by(|&a, &b| {
        let magnitude = |i: usize| eigen.eigenvalues[i].abs();
        magnitude(b).total_cmp(&magnitude(a))
    });
    let vectors = eigen.eigenvectors.transpose() * whiten;
    let mut values = vec![0.0; rank];
    let mut rows = DMatrix::zeros(rank, gram.ncols());
    for (to, &from) in order.iter().take(rank).enumerate() {
        values[to] = eigen.eigenvalues[from];
        for (i, &column) in live.iter().enumerate() {
            rows[(to, column)] = vectors[(from, i)] * scale(i);
        }
    }
    Ok(Some((values, rows)))
}

/// Records `rows -= (rows . U^T) U`.
pub(super) fn subtract_projection(
    gpu: &Gpu,
    recording: &mut Recording,
    rows: &Rows,
    basis: &Basis,
    count: usize,
) -> Result<()> {
    let elements = count * basis.rank();
    let products = gpu.buffer("projections", elements)?;
    let coefficients = gpu.buffer("coefficients of a basis", elements)?;
    let weights = gpu.buffer("minus one", 2 * elements)?;
    let mut numbers = vec![-1.0f32; elements];
    numbers.resize(2 * elements, 0.0);
    gpu.upload(&weights, 0, &numbers)?;
    basis.record_products(gpu, recording, rows, &products)?;
    weigh(
        gpu,
        recording,
        &coefficients,
        &weights,
        &products,
        &products,
    )?;
    basis.record_combination(gpu, recording, rows, &coefficients, true)
}

fn check_finite(matrix: &DMatrix<f64>) -> Result<()> {
    if matrix.iter().all(|x| x.is_finite()) {
        Ok(())
    } else {
        Err(not_finite_product())
    }
}

#[cfg(test)]
#[path = "randomized_tests.rs"]
mod tests;
