//! Lanczos' method (1950) with full double re-orthogonalization.

use std::ops::Bound::Excluded;

use nalgebra::{DMatrix, SymmetricEigen};
use web_time::Instant;

use super::operator::Operator;
use super::scale::{check_products, not_finite_product};
use super::submissions::{Pace, Submissions};
use crate::error::{Error, Result};
use crate::gpu::{Commands, Gpu, Recording, Slice, Work};
use crate::kernels::blocks::{
    Coefficients, InnerProducts, Rows, Sketch, combine_rows, sketch, weigh,
};
use crate::kernels::cg;
use crate::kernels::vector::{inner_products, normalize, partial_elements};
use crate::options::check_range;
use crate::vector::{Block, Vector};

/// Most steps: each needs a vector, and every step works with all of them.
const MOST_STEPS: usize = 4096;
/// A remainder this small against the entries of the tridiagonal matrix is made of rounding errors.
const BREAKDOWN: f64 = 3e-6;
/// High half of the stream of random numbers of starts: no other part of the crate draws from it.
const STREAM: u32 = 4 << 16;

/// Where a run starts.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Start {
    /// At a random vector of normal numbers.
    Random {
        /// Seed of the generator.
        seed: u64,
        /// Which of its vectors.
        number: u32,
    },
    /// At what was written to [`Lanczos::start`].
    Given,
}

/// What a run found: `Q^T C Q` for an orthonormal basis `Q` of the Krylov space. It has fewer rows than steps where the space has a smaller
/// dimension.
#[derive(Clone, Debug, PartialEq)]
pub struct Tridiagonal {
    /// The diagonal.
    pub diagonal: Vec<f64>,
    /// What is next to it; one element fewer.
    pub off_diagonal: Vec<f64>,
    /// Length of the vector that the run started at.
    pub start_norm: f64,
    /// What would come next on the off-diagonal; a rounding error where the Krylov space has ended.
    pub remainder: f64,
}

impl Tridiagonal {
    /// Eigenvalues (Ritz values) by falling value, and eigenvectors as columns.
    pub fn eigen(&self) -> (Vec<f64>, DMatrix<f64>) {
        let n = self.diagonal.len();
        let matrix = DMatrix::from_fn(n, n, |i, j| match i.abs_diff(j) {
            0 => self.diagonal[i],
            1 => self.off_diagonal[i.min(j)],
            _ => 0.0,
        });
        let eigen = SymmetricEigen::new(matrix);
        let mut order: Vec<usize> = (0..n).collect();
        order.sort_by(|&a, &b| eigen.eigenvalues[b].total_cmp(&eigen.eigenvalues[a]));
        let values = order.iter().map(|&i| eigen.eigenvalues[i]).collect();
        let vectors = DMatrix::from_fn(n, n, |i, j| eigen.eigenvectors[(i, order[j])]);
        (values, vectors)
    }

    /// `|C v - value v|` for each Ritz pair, in the order of [`eigen`](Self::eigen): an eigenvalue lies no farther from the Ritz value.
    pub fn residuals(&self) -> Vec<f64> {
        let (_, vectors) = self.eigen();
        let last = vectors.row(vectors.nrows() - 1);
        last.iter().map(|x| self.remainder * x.abs()).collect()
    }

    /// Ritz values with the squares of the first elements of their vectors: a quadrature of the spectral density as the start sees it.
    pub fn quadrature(&self) -> Vec<(f64, f64)> {
        let (values, vectors) = self.eigen();
        let weights = vectors.row(0).map(|x| x * x);
        values.into_iter().zip(weights.iter().copied()).collect()
    }

    /// `|start| f(T) e_1`, the coefficients of `f(C) start` in the basis of the run.
    pub fn function(&self, f: impl Fn(f64) -> f64) -> Vec<f64> {
        let (values, vectors) = self.eigen();
        (0..values.len())
            .map(|row| {
                let terms = values
                    .iter()
                    .enumerate()
                    .map(|(j, &value)| vectors[(row, j)] * f(value) * vectors[(0, j)]);
                self.start_norm * terms.sum::<f64>()
            })
            .collect()
    }
}

/// Runs of Lanczos' method with an operator.
///
/// Every step makes its product orthogonal to all vectors before, twice, so that f32 is enough and no Ritz value comes twice. A run is
/// `steps` products and `8 steps^2 P` flops, has one blocking readback, and keeps `steps` vectors.
#[derive(Debug)]
pub struct Lanczos {
    gpu: Gpu,
    start: Block,
    vectors: Block,
    settings: Slice,
    coefficients: Slice,
    draw: Recording,
    /// Clears the vectors and puts the start's direction into the first place.
    begin: Recording,
    steps: Vec<Work>,
    log: Slice,
    start_sums: Slice,
    /// Bits of the largest elements of the start and of its product.
    largest: [Slice; 2],
    /// Time of a step.
    pace: Pace,
}

impl Lanczos {
    /// Bytes of the vectors of a solver for vectors of so many elements: to ask before anything is made.
    #[must_use]
    pub fn bytes(elements: usize, steps: usize) -> u64 {
        4 * elements as u64 * (steps as u64 + 3)
    }

    /// Prepares runs of up to `steps` steps; a run needs the operator's vectors.
    ///
    /// # Errors
    /// [`Error::Option`] for a number of steps out of range, limits of the device.
    pub fn new(gpu: &Gpu, operator: &Operator, steps: usize) -> Result<Self> {
        check_range("Lanczos steps", &steps, 1..=MOST_STEPS, "1 to 4096")?;
        let layout = operator.input.layout();
        let start = Block::new(gpu, "start of Lanczos", layout, 1)?;
        let vectors = Block::new(gpu, "Lanczos vectors", layout, steps)?;
        let next = Vector::new(gpu, "next Lanczos vector", layout)?;
        let zeros = Vector::new(gpu, "zeros", layout)?;
        let settings = gpu.buffer("sketch settings", 4)?;
        let mut draw = Recording::new();
        sketch(gpu, &mut draw, &start, 0, &settings, Sketch::Gaussian)?;

        let output = operator.output.slice();
        let (sums, start_sums) = (gpu.buffer("square", 3)?, gpu.buffer("square of start", 3)?);
        let partials = gpu.buffer("partial sums", partial_elements(output))?;
        let first = start.vectors()[0].slice();
        let mut begin = Recording::new();
        for vector in vectors.vectors() {
            begin.copy(zeros.slice(), vector.slice())?;
        }
        inner_products(gpu, &mut begin, (&start_sums, 0), &partials, first, first)?;
        normalize(gpu, &mut begin, next.slice(), first, &start_sums)?;
        let largest = [
            gpu.buffer("largest element of a start", 1)?,
            gpu.buffer("largest element of a product", 1)?,
        ];
        cg::largest(gpu, &mut begin, (&largest[0], 0), first)?;

        let products = [
            gpu.buffer("products", steps)?,
            gpu.buffer("products", steps)?,
        ];
        let coefficients = gpu.buffer("coefficients", steps)?;
        let minus = gpu.buffer("minus one", 2 * steps)?;
        let mut numbers = vec![-1.0f32; steps];
        numbers.resize(2 * steps, 0.0);
        gpu.upload(&minus, 0, &numbers)?;
        let mut orthogonalize = Recording::new();
        let (w, all) = (Rows::from(&operator.output), Rows::all(&vectors));
        for products in &products {
            let inner = InnerProducts::record(gpu, &mut orthogonalize, &w, &all)?;
            inner.record_sum(gpu, &mut orthogonalize, products, (0, steps))?;
            let c = &coefficients;
            weigh(gpu, &mut orthogonalize, c, &minus, products, products)?;
            let c = Coefficients {
                slice: c,
                first: 0,
                width: steps,
            };
            combine_rows(gpu, &mut orthogonalize, &w, c, &all, true)?;
        }
        inner_products(
            gpu,
            &mut orthogonalize,
            (&sums, 0),
            &partials,
            output,
            output,
        )?;
        normalize(gpu, &mut orthogonalize, next.slice(), output, &sums)?;

        let log = gpu.buffer("log of Lanczos", 3 * steps)?;
        let recordings = (0..steps)
            .map(|j| {
                let mut step = Work::new();
                step.tail()
                    .copy(next.slice(), vectors.vectors()[j].slice())?;
                step.tail().copy(next.slice(), operator.input.slice())?;
                step.append(operator.multiply.clone());
                if j == 0 {
                    cg::largest(gpu, step.tail(), (&largest[1], 0), output)?;
                }
                step.append(orthogonalize.clone());
                step.tail().copy_part(&products[0], j, &log, 3 * j, 1)?;
                step.tail().copy_part(&products[1], j, &log, 3 * j + 1, 1)?;
                step.tail().copy_part(&sums, 0, &log, 3 * j + 2, 1)?;
                Ok(step)
            })
            .collect::<Result<_>>()?;
        Ok(Self {
            gpu: gpu.clone(),
            start,
            vectors,
            settings,
            coefficients,
            draw,
            begin,
            steps: recordings,
            log,
            start_sums,
            largest,
            pace: Pace::new(Submissions::default()),
        })
    }

    /// Sets how many steps go into one submission; it changes no number. Default [`Submissions::default`].
    ///
    /// # Errors
    /// [`Error::Option`] as [`Submissions::validate`].
    pub fn with_submissions(mut self, submissions: Submissions) -> Result<Self> {
        submissions.validate()?;
        self.pace = Pace::new(submissions);
        Ok(self)
    }

    /// Where to write the vector of [`Start::Given`].
    pub fn start(&self) -> &Vector {
        &self.start.vectors()[0]
    }

    /// Replays `before` and runs.
    ///
    /// # Errors
    /// [`Error::NotFinite`] where products are not finite, [`Error::Unsupported`] where the scale of the start or its product is out of
    /// range, loss of the device.
    #[cfg(not(target_arch = "wasm32"))]
    pub fn run<'a>(&self, before: impl Into<Commands<'a>>, start: Start) -> Result<Tridiagonal> {
        crate::gpu::blocking(self.run_async(before, start))
    }

    /// As [`run`](Self::run), without blocking the thread.
    ///
    /// # Errors
    /// As there.
    pub async fn run_async<'a>(
        &self,
        before: impl Into<Commands<'a>>,
        start: Start,
    ) -> Result<Tridiagonal> {
        if let Start::Random { seed, number } = start {
            let settings = [seed as u32, (seed >> 32) as u32, number, STREAM];
            self.gpu.upload(&self.settings, 0, &settings)?;
        }
        for word in &self.largest {
            self.gpu.upload(word, 0, &[0u32])?;
        }
        let clock = Instant::now();
        let draw = (start != Start::Given).then_some((&self.draw).into());
        let commands = [Some(before.into()), draw, Some((&self.begin).into())];
        self.gpu.run_async(commands.into_iter().flatten()).await?;
        for steps in self.steps.chunks(self.pace.at_once(self.steps.len())) {
            self.gpu.run_async(steps).await?;
        }
        let [start_word, product_word] = &self.largest;
        let reads = [&self.log, &self.start_sums, start_word, product_word];
        let read = self.gpu.read_async(&reads).await?;
        self.pace.measured(clock.elapsed(), self.steps.len());
        check_products(&read[2])?;
        // Of a vector of length 1, whose elements are smaller than 1 by the root of their number.
        let elements = self.vectors.layout().len() as f32;
        let product: Vec<f32> = read[3].iter().map(|x| x * elements.sqrt()).collect();
        check_products(&product)?;
        tridiagonal(&read[0], f64::from(read[1][0]).sqrt())
    }

    /// Writes the combination of the vectors of the last run with these coefficients to `out`.
    ///
    /// # Errors
    /// [`Error::Length`] for more coefficients than steps or another layout, loss of the device.
    pub fn combine(&self, coefficients: &[f64], out: &Vector) -> Result<()> {
        let steps = self.steps.len();
        if coefficients.len() > steps {
            return Err(Error::Length {
                what: "the coefficients of Lanczos vectors".into(),
                found: coefficients.len(),
                expected: steps,
            });
        }
        let mut numbers: Vec<f32> = coefficients.iter().map(|&c| c as f32).collect();
        numbers.resize(steps, 0.0);
        self.gpu.upload(&self.coefficients, 0, &numbers)?;
        let mut recording = Recording::new();
        let coefficients = Coefficients {
            slice: &self.coefficients,
            first: 0,
            width: steps,
        };
        let all = Rows::all(&self.vectors);
        let gpu = &self.gpu;
        combine_rows(gpu, &mut recording, &out.into(), coefficients, &all, false)?;
        gpu.submit(|recorder| recorder.replay(&recording))
    }

    /// The exact saddle-free Newton step `-(|C| + damping)^-1 g` for small problems: as exact as f32 allows where there are as many steps
    /// as the Krylov space of `g` has dimensions, and the best approximation from that space otherwise. What low-rank steps are tested
    /// against.
    ///
    /// # Errors
    /// [`Error::Option`] unless `damping` is above zero, and as [`run`](Self::run).
    #[cfg(not(target_arch = "wasm32"))]
    pub fn saddle_free_step<'a>(
        &self,
        before: impl Into<Commands<'a>>,
        gradient: &Vector,
        damping: f64,
        out: &Vector,
    ) -> Result<Tridiagonal> {
        crate::gpu::blocking(self.saddle_free_step_async(before, gradient, damping, out))
    }

    /// As [`saddle_free_step`](Self::saddle_free_step), without blocking the thread.
    ///
    /// # Errors
    /// As there.
    pub async fn saddle_free_step_async<'a>(
        &self,
        before: impl Into<Commands<'a>>,
        gradient: &Vector,
        damping: f64,
        out: &Vector,
    ) -> Result<Tridiagonal> {
        let positive = (Excluded(0.0), Excluded(f64::INFINITY));
        check_range("damping", &damping, positive, "above 0")?;
        let mut copy = Recording::new();
        copy.copy(gradient.slice(), self.start().slice())?;
        self.gpu.run_async([before.into(), (&copy).into()]).await?;
        let found = self.run_async(&Recording::new(), Start::Given).await?;
        let coefficients = found.function(|value| -(value.abs() + damping).recip());
        self.combine(&coefficients, out)?;
        Ok(found)
    }
}

/// The matrix that a log tells of, which has three numbers for each step: the entry on the diagonal in two parts, and the square of what is
/// next to it. It ends where the Krylov space does.
fn tridiagonal(log: &[f32], start_norm: f64) -> Result<Tridiagonal> {
    let mut found = Tridiagonal {
        diagonal: Vec::new(),
        off_diagonal: Vec::new(),
        start_norm,
        remainder: 0.0,
    };
    let mut largest = 0.0f64;
    let steps = log.len() / 3;
    for (j, entry) in log.chunks_exact(3).enumerate() {
        let diagonal = f64::from(entry[0]) + f64::from(entry[1]);
        let next = f64::from(entry[2]).sqrt();
        if !diagonal.is_finite() || !next.is_finite() || !start_norm.is_finite() {
            return Err(not_finite_product());
        }
        found.diagonal.push(diagonal);
        largest = largest.max(diagonal.abs()).max(next);
        if next <= BREAKDOWN * largest || j + 1 == steps {
            found.remainder = next;
            break;
        }
        found.off_diagonal.push(next);
    }
    Ok(found)
}

#[cfg(test)]
mod tests {
    use super::tridiagonal;
    use crate::error::Result;

    /// Remainders beside a diagonal of 4, of which 3e-6 are 1.2e-5: the larger one is a vector of the space, the smaller one is rounding.
    #[test]
    fn a_remainder_of_three_millionths_ends_the_krylov_space() -> Result<()> {
        for (next, steps) in [(1.3e-5f32, 3), (1.1e-5, 2)] {
            let log = [3.0, 1.0, 1.0, 0.5, 0.0, next * next, 0.25, 0.0, 1.0];
            let found = tridiagonal(&log, 1.0)?;
            assert_eq!(found.diagonal, [4.0, 0.5, 0.25][..steps]);
            assert_eq!(found.off_diagonal.len(), steps - 1);
        }
        // The largest entry may be one off the diagonal.
        let log = [0.0, 0.0, 16.0, 0.0, 0.0, 1.1e-5 * 1.1e-5, 0.25, 0.0, 1.0];
        assert_eq!(tridiagonal(&log, 1.0)?.diagonal.len(), 2);
        Ok(())
    }
}
