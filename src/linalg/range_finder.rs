//! Eigenpairs to a tolerance instead of a rank: an adaptive range finder (Halko, Martinsson and Tropp 2011, section 4.4) with
//! Rayleigh-Ritz.

use std::ops::Bound::Excluded;

use nalgebra::DMatrix;

use super::randomized::{MOST_PASSES, orthonormal, small_problem, subtract_projection};
use super::{Basis, Eigenvalues, Operator};
use crate::error::Result;
use crate::gpu::{Commands, Gpu, Recording, Slice, Work};
use crate::kernels::blocks::{Coefficients, InnerProducts, Rows, Sketch, combine_rows, sketch};
use crate::kernels::cg;
use crate::linalg::scale::check_products;
use crate::options::check_range;
use crate::vector::Block;

/// High half of the stream of random numbers: no other part of the crate draws from it.
const STREAM: u32 = 6 << 16;

/// Settings of a [`RangeFinder`].
#[derive(Clone, Debug, PartialEq)]
pub struct RangeOptions {
    /// Vectors are added until `|(I - Q Q^T) C w| <= tolerance |C w|` for every random vector `w` of a block.
    pub tolerance: f64,
    /// Seed of the random vectors.
    pub seed: u64,
}

impl RangeOptions {
    /// Checks the range of the tolerance.
    ///
    /// # Errors
    /// [`Error::Option`](crate::Error::Option).
    pub fn validate(&self) -> Result<()> {
        let inside = (Excluded(0.0), Excluded(1.0));
        check_range(
            "residual tolerance",
            &self.tolerance,
            inside,
            "above 0, below 1",
        )
    }
}

/// Finds an orthonormal basis `Q` of the range of a symmetric operator, block by block, until it holds all but a given part of the products
/// of random vectors; and then the eigenpairs of `Q^T C Q`.
///
/// At most as many vectors are found as the basis of eigenvectors holds. A block of `b` vectors costs `2 b` products and `16 b R P` flops
/// for a basis of `R` vectors, and two blocking readbacks or more; the last block, which passes the test, only `b` products. It keeps `R`
/// vectors beside the basis.
#[derive(Debug)]
pub struct RangeFinder {
    gpu: Gpu,
    options: RangeOptions,
    rank: usize,
    width: usize,
    draws: u32,
    settings: Slice,
    coefficients: Slice,
    turns: Slice,
    /// Bits of the largest element of a product.
    largest: Slice,
    clear: Recording,
    /// Products of random vectors, and what is left of them outside of the span of `Q`.
    look: Work,
    before: InnerProducts,
    after: InnerProducts,
    /// directions = A products
    products_to_directions: Recording,
    /// directions = A directions
    directions_to_directions: Recording,
    /// Takes the span of `Q` out of the directions again: what was small before is made of rounding errors, which know nothing of it.
    clean: (Recording, InnerProducts),
    /// Puts a block into its place, and multiplies it.
    groups: Vec<(Work, InnerProducts)>,
    own: (Recording, InnerProducts),
    to_basis: Recording,
}

impl RangeFinder {
    /// Bytes of the vectors of a range finder of so many vectors, in blocks of `width`, of so many elements, beside those of operator and
    /// basis: to ask before anything is made.
    #[must_use]
    pub fn bytes(elements: usize, rank: usize, width: usize) -> u64 {
        let width = width.max(1);
        4 * elements as u64 * ((rank.div_ceil(width) + 1) * width) as u64
    }

    /// For an operator whose block has as many vectors as are to be added at once.
    ///
    /// # Errors
    /// [`Error::Option`](crate::Error::Option) as [`RangeOptions::validate`], limits of the device.
    pub fn new(
        gpu: &Gpu,
        operator: &Operator<Block>,
        basis: &Basis,
        options: &RangeOptions,
    ) -> Result<Self> {
        options.validate()?;
        let (directions, products) = (&operator.input, &operator.output);
        let (rank, width, layout) = (basis.rank(), directions.width(), basis.layout());
        let count = rank.div_ceil(width);
        let all = count * width;
        let range = Block::new(gpu, "range", layout, all)?;
        let zeros = Block::new(gpu, "zeros", layout, width)?;
        let settings = gpu.buffer("sketch settings", 4)?;
        let coefficients = gpu.buffer("block coefficients", width * width)?;
        let turns = gpu.buffer("coefficients of eigenvectors", rank * all)?;
        let len = layout.len() * width;
        let place = |group: usize| range.slice().slice(group * len..(group + 1) * len);

        let mut clear = Recording::new();
        for group in 0..count {
            clear.copy(zeros.slice(), &place(group)?)?;
        }
        let rows = Rows::all(products);
        let mut look = Work::new();
        sketch(gpu, look.tail(), directions, 0, &settings, Sketch::Gaussian)?;
        look.append(operator.multiply.clone());
        let largest = gpu.buffer("largest element of a product", 1)?;
        let product = products.vectors()[0].slice();
        cg::largest(gpu, look.tail(), (&largest, 0), product)?;
        let before = InnerProducts::record(gpu, look.tail(), &rows, &rows)?;
        let found = Basis::of(&range);
        for _ in 0..2 {
            subtract_projection(gpu, look.tail(), &rows, &found, width)?;
        }
        let after = InnerProducts::record(gpu, look.tail(), &rows, &rows)?;

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
        let mut clean = Recording::new();
        let own = Rows::all(directions);
        subtract_projection(gpu, &mut clean, &own, &found, width)?;
        let clean_inner = InnerProducts::record(gpu, &mut clean, &own, &own)?;
        let mut again = turned(products, directions)?;
        again.copy(products.slice(), directions.slice())?;
        let groups = (0..count)
            .map(|group| {
                let mut group_product = Work::new();
                group_product
                    .tail()
                    .copy(directions.slice(), &place(group)?)?;
                group_product.append(operator.multiply.clone());
                let range = Rows::all(&range);
                let inner = InnerProducts::record(gpu, group_product.tail(), &range, &rows)?;
                Ok((group_product, inner))
            })
            .collect::<Result<_>>()?;
        let mut own = Recording::new();
        let own_inner =
            InnerProducts::record(gpu, &mut own, &Rows::all(&range), &Rows::all(&range))?;
        let mut to_basis = Recording::new();
        for first in (0..rank).step_by(width) {
            let coefficients = Coefficients {
                slice: &turns,
                first: first * all,
                width: all,
            };
            let out = Rows::first(products, width.min(rank - first));
            let input = Rows::all(&range);
            combine_rows(gpu, &mut to_basis, &out, coefficients, &input, false)?;
            basis.record_store(gpu, &mut to_basis, products, first)?;
        }
        Ok(Self {
            gpu: gpu.clone(),
            options: options.clone(),
            rank,
            width,
            draws: 0,
            clear,
            look,
            before,
            after,
            products_to_directions: turned(directions, products)?,
            directions_to_directions: again,
            clean: (clean, clean_inner),
            groups,
            own: (own, own_inner),
            to_basis,
            settings,
            coefficients,
            turns,
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

    /// Replays `before` and finds eigenpairs; the values after those found are zero.
    ///
    /// # Errors
    /// [`Error::NotFinite`](crate::Error::NotFinite) where products are not finite, loss of the device.
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
        let (gpu, width) = (&self.gpu, self.width);
        let mut found = Eigenvalues {
            values: vec![0.0; self.rank],
            passes: 0,
            products: 0,
        };
        gpu.run_async([before.into(), (&self.clear).into()]).await?;
        let mut used = 0;
        for (group, _) in &self.groups {
            let seed = self.options.seed;
            let settings = [seed as u32, (seed >> 32) as u32, self.draws, STREAM];
            self.draws = self.draws.wrapping_add(width as u32);
            gpu.upload(&self.settings, 0, &settings)?;
            gpu.upload(&self.largest, 0, &[0u32])?;
            found.products += width;
            let reads = [self.before.reads(), self.after.reads(), vec![&self.largest]].concat();
            let mut read = self.read([&self.look], &reads).await?;
            check_products(&read.next_back().unwrap_or_default())?;
            let (all, mut gram) = (self.before.sum(&mut read), self.after.sum(&mut read));
            let share = |i: usize| gram[(i, i)] / all[(i, i)].max(f64::MIN_POSITIVE);
            let rest = (0..width).map(share).fold(0.0, f64::max).sqrt();
            if rest <= self.options.tolerance {
                break;
            }
            let (mut coefficients, _) = orthonormal(&gram, false)?;
            let mut turn = &self.products_to_directions;
            let (mut passes, mut done) = (1, false);
            while !done {
                self.put(&self.coefficients, &coefficients)?;
                let mut read = self
                    .read([turn, &self.clean.0], &self.clean.1.reads())
                    .await?;
                gram = self.clean.1.sum(&mut read);
                passes += 1;
                (coefficients, done) = orthonormal(&gram, passes >= MOST_PASSES)?;
                turn = &self.directions_to_directions;
            }
            found.passes += passes;
            self.put(&self.coefficients, &coefficients)?;
            gpu.run_async([turn.into(), Commands::from(group)]).await?;
            found.products += width;
            used += 1;
        }
        if used == 0 {
            self.finish(&DMatrix::zeros(0, 0))?;
            return Ok(found);
        }
        let parts = self.groups[..used]
            .iter()
            .flat_map(|(_, inner)| inner.reads());
        let reads: Vec<&Slice> = self.own.1.reads().into_iter().chain(parts).collect();
        let mut read = self.read([&self.own.0], &reads).await?;
        let own = self.own.1.sum(&mut read);
        let mut projected = DMatrix::zeros(own.nrows(), own.ncols());
        for (group, (_, inner)) in self.groups[..used].iter().enumerate() {
            let part = inner.sum(&mut read);
            // Of later blocks nothing was known yet; their own columns have it.
            for column in 0..width {
                for row in 0..(group + 1) * width {
                    let (i, j) = (row, group * width + column);
                    projected[(i, j)] = part[(row, column)];
                    projected[(j, i)] = part[(row, column)];
                }
            }
        }
        if let Some((values, vectors)) = small_problem(&own, &projected, self.rank, 0.0)? {
            found.values = values;
            self.finish(&vectors)?;
        } else {
            self.finish(&DMatrix::zeros(0, 0))?;
        }
        Ok(found)
    }

    /// Makes the eigenvectors from rows of coefficients, of which missing ones are zero.
    fn finish(&self, vectors: &DMatrix<f64>) -> Result<()> {
        let all = self.groups.len() * self.width;
        self.put(&self.turns, &vectors.clone().resize(self.rank, all, 0.0))?;
        self.gpu.submit(|recorder| recorder.replay(&self.to_basis))
    }

    fn put(&self, slice: &Slice, matrix: &DMatrix<f64>) -> Result<()> {
        let rows: Vec<f32> = matrix.transpose().iter().map(|&x| x as f32).collect();
        self.gpu.upload(slice, 0, &rows)
    }

    async fn read<'a, C: Into<Commands<'a>>>(
        &'a self,
        commands: impl IntoIterator<Item = C>,
        reads: &'a [&'a Slice],
    ) -> Result<std::vec::IntoIter<Vec<f32>>> {
        let read = self.gpu.run_and_read_async(commands, reads).await?;
        Ok(read.into_iter())
    }
}
