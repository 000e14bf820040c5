//! The Nystrom approximation of a positive semi-definite operator (Frangella, Tropp and Udell 2021).

use nalgebra::{DMatrix, SymmetricEigen};

use super::{Basis, Eigenvalues, Operator};
use crate::error::{Error, Result};
use crate::gpu::{Commands, Gpu, Recording, Slice, Work};
use crate::kernels::blocks::{Coefficients, InnerProducts, Rows, Sketch, combine_rows, sketch};
use crate::kernels::cg;
use crate::linalg::scale::{check_products, not_finite_product};
use crate::vector::Block;

/// First shift, in units of `|y| / |w|^2`. Rounding errors `e |y|^2` in `Y^T Y` become eigenvalues of about `e |y|^2 / (shift |w|^2)`, and
/// the shift of a space of `|w|^2` dimensions takes about `shift |w|^2` from the eigenvalues: both are small where `shift |w|^2` is near
/// `|y|` times the root of `e`.
const FIRST_SHIFT: f64 = 1e-3;
/// Tries, each with ten times the shift of the one before.
const TRIES: usize = 3;
/// High half of the stream of random numbers: no other part of the crate draws from it.
const STREAM: u32 = 5 << 16;

/// `Y (W^T Y)^+ Y^T` with `Y = C W` for a random block `W`, as eigenpairs: the best approximation of `C` from one block product.
///
/// `Y` is shifted by `s W`, so that `W^T Y` has a Cholesky factorization `L L^T`, and the eigenvalues of `L^-1 Y^T Y L^-T` less `s` are
/// those of the approximation. In f32 they are right to about a thousandth of the Frobenius norm of `C`: enough to precondition with. One
/// block product, and one blocking readback; the small matrices are factorized on the host in f64.
#[derive(Debug)]
pub struct Nystrom {
    gpu: Gpu,
    seed: u64,
    draws: u32,
    rank: usize,
    settings: Slice,
    coefficients: Slice,
    sketch: Recording,
    multiply: Work,
    gram: Recording,
    inner: [InnerProducts; 3],
    to_basis: Recording,
    /// Bits of the largest element of the block's first product.
    largest: Slice,
}

impl Nystrom {
    /// Bytes of the vectors of an approximation of this rank of vectors of so many elements, beside those of operator and basis: to ask
    /// before anything is made.
    #[must_use]
    pub fn bytes(elements: usize, rank: usize) -> u64 {
        4 * elements as u64 * rank as u64
    }

    /// For an operator whose block has as many vectors as the basis.
    ///
    /// # Errors
    /// [`Error::Length`] for other widths, limits of the device.
    pub fn new(gpu: &Gpu, operator: &Operator<Block>, basis: &Basis, seed: u64) -> Result<Self> {
        let rank = basis.rank();
        let (directions, products) = (&operator.input, &operator.output);
        for block in [directions, products] {
            if block.width() != rank {
                return Err(Error::Length {
                    what: format!("the block '{}'", block.slice().label()),
                    found: block.width(),
                    expected: rank,
                });
            }
        }
        let settings = gpu.buffer("sketch settings", 4)?;
        let coefficients = gpu.buffer("block coefficients", 2 * rank * rank)?;
        let mut draw = Recording::new();
        sketch(gpu, &mut draw, directions, 0, &settings, Sketch::Gaussian)?;
        let mut gram = Recording::new();
        let largest = gpu.buffer("largest element of a product", 1)?;
        let product = products.vectors()[0].slice();
        cg::largest(gpu, &mut gram, (&largest, 0), product)?;
        let (w, y) = (Rows::all(directions), Rows::all(products));
        let inner = [
            InnerProducts::record(gpu, &mut gram, &w, &w)?,
            InnerProducts::record(gpu, &mut gram, &w, &y)?,
            InnerProducts::record(gpu, &mut gram, &y, &y)?,
        ];
        let scratch = crate::vector::Block::new(gpu, "Nystrom vectors", basis.layout(), rank)?;
        let mut to_basis = Recording::new();
        for (number, rows) in [w, y].iter().enumerate() {
            let coefficients = Coefficients {
                slice: &coefficients,
                first: number * rank,
                width: 2 * rank,
            };
            let out = Rows::all(&scratch);
            combine_rows(gpu, &mut to_basis, &out, coefficients, rows, number > 0)?;
        }
        basis.record_store(gpu, &mut to_basis, &scratch, 0)?;
        Ok(Self {
            gpu: gpu.clone(),
            seed,
            draws: 0,
            rank,
            settings,
            coefficients,
            sketch: draw,
            multiply: operator.multiply.clone(),
            gram,
            inner,
            to_basis,
            largest,
        })
    }

    /// Random vectors drawn so far: what to remember to go on with the same numbers later.
    pub fn drawn(&self) -> u32 {
        self.draws
    }

    /// Goes on after that many random vectors.
    pub fn set_drawn(&mut self, vectors: u32) {
        self.draws = vectors;
    }

    /// Replays `before` and approximates: the eigenvectors are in the basis then.
    ///
    /// # Errors
    /// [`Error::NotFinite`] where products are not finite, [`Error::Unsupported`] for an operator that is not positive semi-definite, loss
    /// of the device.
    #[cfg(not(target_arch = "wasm32"))]
    pub fn solve<'a>(&mut self, before: impl Into<Commands<'a>>) -> Result<Eigenvalues> {
        crate::gpu::blocking(self.solve_async(before))
    }

    /// As [`solve`](Self::solve), without blocking the thread.
    ///
    /// # Errors
    /// As there.
    pub async fn solve_async<'a>(
        &mut self,
        before: impl Into<Commands<'a>>,
    ) -> Result<Eigenvalues> {
        let settings = [
            self.seed as u32,
            (self.seed >> 32) as u32,
            self.draws,
            STREAM,
        ];
        self.draws = self.draws.wrapping_add(self.rank as u32);
        self.gpu.upload(&self.settings, 0, &settings)?;
        self.gpu.upload(&self.largest, 0, &[0u32])?;
        let reads = self.inner.iter().flat_map(InnerProducts::reads);
        let mut reads = reads.collect::<Vec<_>>();
        reads.push(&self.largest);
        let commands = [
            before.into(),
            (&self.sketch).into(),
            (&self.multiply).into(),
            (&self.gram).into(),
        ];
        let mut read = self.gpu.run_and_read_async(commands, &reads).await?;
        check_products(&read.pop().unwrap_or_default())?;
        let mut read = read.into_iter();
        let [ww, wy, yy] = self.inner.each_ref().map(|inner| inner.sum(&mut read));
        if !wy.iter().chain(yy.iter()).all(|x| x.is_finite()) {
            return Err(not_finite_product());
        }
        let (values, rows) = eigenpairs(&ww, &wy, &yy)?;
        let numbers: Vec<f32> = rows.transpose().iter().map(|&x| x as f32).collect();
        self.gpu.upload(&self.coefficients, 0, &numbers)?;
        self.gpu
            .submit(|recorder| recorder.replay(&self.to_basis))?;
        Ok(Eigenvalues {
            values,
            passes: 1,
            products: self.rank,
        })
    }
}

/// Eigenvalues by falling value, and for each a row of coefficients of `W` and of `Y`.
fn eigenpairs(
    ww: &DMatrix<f64>,
    wy: &DMatrix<f64>,
    yy: &DMatrix<f64>,
) -> Result<(Vec<f64>, DMatrix<f64>)> {
    let n = ww.nrows();
    let trace = ww.trace();
    if yy.trace() <= 0.0 || trace <= 0.0 {
        return Ok((vec![0.0; n], DMatrix::zeros(n, 2 * n)));
    }
    // In units of a power of two near the size of a product, so that nothing but exponents depends on the unit of the operator.
    let unit = (yy.trace() / trace).sqrt().log2().round().exp2();
    let (wy, yy) = (&(wy / unit), &(yy / (unit * unit)));
    let symmetric = |m: DMatrix<f64>| 0.5 * (&m + m.transpose());
    let mut shift = FIRST_SHIFT * (yy.trace() / n as f64).sqrt() / (trace / n as f64);
    for _ in 0..TRIES {
        let (sum, square) = (wy + wy.transpose(), shift * shift);
        let core = symmetric(0.5 * &sum + shift * ww);
        let gram = symmetric(yy + shift * &sum + square * ww);
        if let Some(inverse) = core.cholesky().and_then(|factor| factor.l().try_inverse()) {
            let eigen = SymmetricEigen::new(symmetric(&inverse * gram * inverse.transpose()));
            let mut order: Vec<usize> = (0..n).collect();
            order.sort_by(|&a, &b| eigen.eigenvalues[b].total_cmp(&eigen.eigenvalues[a]));
            let combination = eigen.eigenvectors.transpose() * inverse;
            let values: Vec<f64> = order
                .iter()
                .map(|&i| unit * (eigen.eigenvalues[i] - shift).max(0.0))
                .collect();
            let rows = DMatrix::from_fn(n, 2 * n, |i, j| {
                let from = order[i];
                let length = eigen.eigenvalues[from].max(0.0).sqrt();
                // A direction of rounding errors belongs to no eigenvalue.
                if values[i] <= 0.0 || length == 0.0 {
                    0.0
                } else if j < n {
                    shift * combination[(from, j)] / length
                } else {
                    combination[(from, j - n)] / (length * unit)
                }
            });
            return Ok((values, rows));
        }
        shift *= 10.0;
    }
    Err(Error::Unsupported {
        what: "a Nystrom approximation of this curvature".into(),
        message: "it is not positive semi-definite; use Curvature::GaussNewton".into(),
    })
}

#[cfg(test)]
mod tests {
    use nalgebra::DMatrix;

    use super::eigenpairs;
    use crate::error::Result;

    /// The largest eigenvalue from one random vector, of which these are the inner products.
    fn value(ww: f64, wy: f64, yy: f64) -> Result<f64> {
        let one = |x: f64| DMatrix::from_element(1, 1, x);
        Ok(eigenpairs(&one(ww), &one(wy), &one(yy))?.0[0])
    }

    /// The projection onto the first axis, seen by `w = (1, 1)`: `y = (1, 0)`, and with the shift `s` the eigenvalue is `(y.y + s w.y) /
    /// (w.y + s w.w)`.
    #[test]
    fn the_first_shift_is_a_thousandth() -> Result<()> {
        let shift = 1e-3 * 1.0 / 2.0;
        let expected = (1.0 + shift) / (1.0 + 2.0 * shift);
        assert!((value(2.0, 1.0, 1.0)? - expected).abs() < 1e-12);
        Ok(())
    }

    /// With `|w| = |y| = 1` the shifts are 0.001, 0.01 and 0.1: the last one makes up for a curvature of -0.05 along `w`, and none for one
    /// of -0.2, for which a fourth would.
    #[test]
    fn three_shifts_are_tried() -> Result<()> {
        let shift = 0.1;
        let expected = (1.0 - 0.05 * shift) / (shift - 0.05);
        assert!((value(1.0, -0.05, 1.0)? - expected).abs() < 1e-9);
        assert!(value(1.0, -0.2, 1.0).is_err());
        Ok(())
    }
}
