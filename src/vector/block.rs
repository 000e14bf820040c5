//! Several vectors in one buffer.

use std::sync::Arc;

use super::layout::Layout;
use super::parameters::Vector;
use crate::error::{Error, Result};
use crate::gpu::{Gpu, Slice};

/// `K` vectors in parameter space, one after another in one buffer: the rows of a `[K, len]` matrix, where `len` is that of the layout.
/// Cloning it clones the handle, not the numbers.
///
/// The whole may be larger than one binding; kernels bind the rows that they need.
#[derive(Clone, Debug)]
pub struct Block {
    vectors: Vec<Vector>,
    whole: Slice,
    layout: Arc<Layout>,
}

impl Block {
    /// `width` vectors of zeros.
    ///
    /// # Errors
    /// [`Error::Length`] for no vectors, [`Error::OverLimit`] when a vector is larger than one binding or all are larger than one buffer,
    /// [`Error::OutOfMemory`].
    pub fn new(gpu: &Gpu, label: &str, layout: &Arc<Layout>, width: usize) -> Result<Self> {
        gpu.check_binding(format!("a vector of block '{label}'"), layout.len())?;
        let whole = gpu.storage(label, layout.len().saturating_mul(width))?;
        let vectors = (0..width)
            .map(|row| Vector::part_of(&whole, row * layout.len(), layout))
            .collect::<Result<_>>()?;
        Ok(Self {
            vectors,
            whole,
            layout: Arc::clone(layout),
        })
    }

    /// Number of vectors.
    pub fn width(&self) -> usize {
        self.vectors.len()
    }

    /// The vectors. All lie in one buffer, so a kernel cannot read one and write another.
    pub fn vectors(&self) -> &[Vector] {
        &self.vectors
    }

    /// All rows, one after another.
    pub fn slice(&self) -> &Slice {
        &self.whole
    }

    /// Names, shapes and places of the parameters in each vector.
    pub fn layout(&self) -> &Arc<Layout> {
        &self.layout
    }

    /// Of each tensor: its rows from `first` to `first + count`, which lie one layout's length apart.
    pub(crate) fn tensors(&self, first: usize, count: usize) -> Result<Vec<Slice>> {
        let len = self.layout.len();
        self.layout
            .entries()
            .iter()
            .map(|entry| {
                let start = first * len + entry.offset;
                self.whole
                    .slice(start..start + (count - 1) * len + entry.elements())
            })
            .collect()
    }

    /// Writes one list of tensors per vector.
    ///
    /// # Errors
    /// [`Error::Length`] when a list or a tensor has the wrong size.
    pub fn write(&self, gpu: &Gpu, vectors: &[Vec<Vec<f32>>]) -> Result<()> {
        if vectors.len() != self.width() {
            return Err(Error::Length {
                what: format!("the list of vectors for '{}'", self.whole.label()),
                found: vectors.len(),
                expected: self.width(),
            });
        }
        self.vectors
            .iter()
            .zip(vectors)
            .try_for_each(|(vector, tensors)| vector.write(gpu, tensors))
    }
}
