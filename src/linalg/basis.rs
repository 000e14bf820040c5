//! A few vectors that span a subspace, in full or half precision, and what solvers do with them.

use std::sync::Arc;

use crate::error::Result;
use crate::gpu::{Gpu, Recording, Slice};
use crate::kernels::blocks::{Coefficients, InnerProducts, Rows, combine_rows};
use crate::kernels::half::{pack, unpack};
use crate::vector::{Block, Layout};

/// Vectors that are unpacked at once.
const UNPACKED: usize = 8;

/// How the numbers of a [`Basis`] are stored.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Storage {
    /// As f32.
    #[default]
    Full,
    /// As half floats: half of the memory, and vectors that are orthonormal to 5e-4 only.
    Half,
}

/// `rank` vectors in parameter space, the rows of a matrix `U`. Cloning it clones the handle, not the numbers.
#[derive(Clone, Debug)]
pub struct Basis {
    layout: Arc<Layout>,
    rank: usize,
    numbers: Numbers,
}

#[derive(Clone, Debug)]
enum Numbers {
    Full(Block),
    Half {
        /// A slice of words for each vector.
        words: Vec<Slice>,
        /// Holds a few vectors while they are used.
        unpacked: Block,
        /// Power of two near the root of the number of elements: those of unit vectors are then about 1.
        scale: f64,
    },
}

impl Basis {
    /// Bytes of a basis of so many vectors of so many elements: to ask before it is made. One in half precision has room to unpack a few.
    #[must_use]
    pub fn bytes(elements: usize, rank: usize, storage: Storage) -> u64 {
        let (elements, vectors) = (elements as u64, rank as u64);
        match storage {
            Storage::Full => 4 * elements * vectors,
            Storage::Half => 2 * elements * vectors + 4 * elements * UNPACKED.min(rank) as u64,
        }
    }

    /// `rank` vectors of zeros.
    ///
    /// # Errors
    /// As [`Block::new`].
    pub fn new(gpu: &Gpu, layout: &Arc<Layout>, rank: usize, storage: Storage) -> Result<Self> {
        let numbers = match storage {
            Storage::Full => Numbers::Full(Block::new(gpu, "eigenvectors", layout, rank)?),
            Storage::Half => Numbers::Half {
                words: (0..rank)
                    .map(|_| gpu.buffer("eigenvector in halves", layout.len() / 2))
                    .collect::<Result<_>>()?,
                unpacked: Block::new(gpu, "unpacked eigenvectors", layout, UNPACKED.min(rank))?,
                scale: (layout.len() as f64).sqrt().log2().round().exp2(),
            },
        };
        Ok(Self {
            layout: Arc::clone(layout),
            rank,
            numbers,
        })
    }

    /// The vectors of a block, as a basis.
    pub(crate) fn of(block: &Block) -> Self {
        Self {
            layout: Arc::clone(block.layout()),
            rank: block.width(),
            numbers: Numbers::Full(block.clone()),
        }
    }

    /// The buffers that hold the vectors.
    pub(crate) fn slices(&self) -> Vec<Slice> {
        match &self.numbers {
            Numbers::Full(block) => vec![block.slice().clone()],
            Numbers::Half { words, .. } => words.clone(),
        }
    }

    /// Number of vectors.
    pub fn rank(&self) -> usize {
        self.rank
    }

    /// Names, shapes and places of the parameters in each vector.
    pub fn layout(&self) -> &Arc<Layout> {
        &self.layout
    }

    /// Reads all vectors, as lists of tensors.
    ///
    /// # Errors
    /// As [`Gpu::read`].
    #[cfg(not(target_arch = "wasm32"))]
    pub fn read(&self, gpu: &Gpu) -> Result<Vec<Vec<Vec<f32>>>> {
        crate::gpu::blocking(self.read_async(gpu))
    }

    /// As [`read`](Self::read), without blocking the thread.
    ///
    /// # Errors
    /// As there.
    pub async fn read_async(&self, gpu: &Gpu) -> Result<Vec<Vec<Vec<f32>>>> {
        let mut groups = Vec::new();
        self.in_groups(gpu, |make, block, _, count| {
            groups.push((make, block.vectors()[..count].to_vec()));
            Ok(())
        })?;
        let mut vectors = Vec::with_capacity(self.rank);
        for (make, group) in groups {
            gpu.submit(|recorder| recorder.replay(&make))?;
            for vector in group {
                vectors.push(vector.read_async(gpu).await?);
            }
        }
        Ok(vectors)
    }

    /// Writes the first vectors, as lists of tensors.
    ///
    /// # Errors
    /// [`crate::Error::Length`] when a list or a tensor has the wrong size.
    #[cfg(not(target_arch = "wasm32"))]
    pub fn write(&self, gpu: &Gpu, vectors: &[&[Vec<f32>]]) -> Result<()> {
        crate::gpu::blocking(self.write_async(gpu, vectors))
    }

    /// As [`write`](Self::write), without blocking the thread where a tensor is longer than a [segment](Slice::segments).
    ///
    /// # Errors
    /// As there.
    pub async fn write_async(&self, gpu: &Gpu, vectors: &[&[Vec<f32>]]) -> Result<()> {
        let buffer = Block::new(gpu, "vector to store", &self.layout, 1)?;
        for (place, tensors) in vectors.iter().enumerate().take(self.rank) {
            buffer.vectors()[0].write_async(gpu, tensors).await?;
            let mut store = Recording::new();
            self.record_store(gpu, &mut store, &buffer, place)?;
            gpu.submit(|recorder| recorder.replay(&store))?;
        }
        Ok(())
    }

    /// Records `products[k, i] = x_k . u_i`, row after row. `2 K r P` flops.
    pub(crate) fn record_products(
        &self,
        gpu: &Gpu,
        recording: &mut Recording,
        x: &Rows,
        products: &Slice,
    ) -> Result<()> {
        self.in_groups(gpu, |make, block, first, count| {
            recording.append(make);
            let rows = Rows::first(block, count);
            let inner = InnerProducts::record(gpu, recording, x, &rows)?;
            inner.record_sum(gpu, recording, products, (first, self.rank))
        })
    }

    /// Records `out_k = sum over i of coefficients[k, i] u_i`, or adds that to `out`. `2 K r P` flops.
    pub(crate) fn record_combination(
        &self,
        gpu: &Gpu,
        recording: &mut Recording,
        out: &Rows,
        coefficients: &Slice,
        adds: bool,
    ) -> Result<()> {
        self.in_groups(gpu, |make, block, first, count| {
            recording.append(make);
            let coefficients = Coefficients {
                slice: coefficients,
                first,
                width: self.rank,
            };
            let rows = Rows::first(block, count);
            combine_rows(gpu, recording, out, coefficients, &rows, adds || first > 0)
        })
    }

    /// Records that the vectors from `place` on become the first ones of a block, as many as there are of both.
    pub(crate) fn record_store(
        &self,
        gpu: &Gpu,
        recording: &mut Recording,
        block: &Block,
        place: usize,
    ) -> Result<()> {
        for (to, from) in (place..self.rank).zip(block.vectors()) {
            match &self.numbers {
                Numbers::Full(own) => recording.copy(from.slice(), own.vectors()[to].slice())?,
                Numbers::Half { words, scale, .. } => {
                    pack(gpu, recording, &words[to], from.slice(), *scale)?;
                }
            }
        }
        Ok(())
    }

    /// Records that the first vectors of a block become the vectors from `place` on, as many as there are of both.
    pub(crate) fn record_recall(
        &self,
        gpu: &Gpu,
        recording: &mut Recording,
        block: &Block,
        place: usize,
    ) -> Result<()> {
        for (from, to) in (place..self.rank).zip(block.vectors()) {
            match &self.numbers {
                Numbers::Full(own) => recording.copy(own.vectors()[from].slice(), to.slice())?,
                Numbers::Half { words, scale, .. } => {
                    unpack(gpu, recording, to.slice(), &words[from], *scale)?;
                }
            }
        }
        Ok(())
    }

    /// Calls `each` with a recording that brings some vectors into the first rows of a block, that block, the first such vector and their
    /// number.
    fn in_groups(
        &self,
        gpu: &Gpu,
        mut each: impl FnMut(Recording, &Block, usize, usize) -> Result<()>,
    ) -> Result<()> {
        match &self.numbers {
            Numbers::Full(block) => each(Recording::new(), block, 0, self.rank),
            Numbers::Half { unpacked, .. } => {
                for first in (0..self.rank).step_by(unpacked.width()) {
                    let mut make = Recording::new();
                    self.record_recall(gpu, &mut make, unpacked, first)?;
                    let count = unpacked.width().min(self.rank - first);
                    each(make, unpacked, first, count)?;
                }
                Ok(())
            }
        }
    }
}
