//! A vector on the device.

use std::sync::{Arc, Weak};

use super::layout::Layout;
use crate::error::{Error, Result};
use crate::gpu::{Gpu, Slice};

/// A vector in parameter space, on the device. Cloning it clones the handle, not the numbers.
///
/// It is one buffer, which may be larger than one binding: kernels over the whole vector run over its [segments](Slice::segments) then. A
/// tensor that a kernel of its own reads must fit a binding.
#[derive(Clone, Debug)]
pub struct Vector {
    whole: Slice,
    parts: Vec<Slice>,
    layout: Arc<Layout>,
    /// Shared by the handles that keep the vector in use.
    life: Arc<()>,
}

impl Vector {
    /// A vector of zeros.
    ///
    /// # Errors
    /// [`Error::OverLimit`] when it is larger than one buffer, [`Error::OutOfMemory`].
    pub fn new(gpu: &Gpu, label: &str, layout: &Arc<Layout>) -> Result<Self> {
        Self::part_of(&gpu.storage(label, layout.len())?, 0, layout)
    }

    /// The vector that starts at element `start` of a larger buffer.
    pub(super) fn part_of(buffer: &Slice, start: usize, layout: &Arc<Layout>) -> Result<Self> {
        let whole = buffer.slice(start..start + layout.len())?;
        let parts = layout
            .entries()
            .iter()
            .map(|entry| whole.slice(entry.offset..entry.offset + entry.elements()))
            .collect::<Result<_>>()?;
        Ok(Self {
            whole,
            parts,
            layout: Arc::clone(layout),
            life: Arc::default(),
        })
    }

    /// A handle that does not count as one: what caches keep, so that they can tell when nobody else has the vector any more.
    #[must_use]
    pub(crate) fn uncounted(&self) -> Self {
        Self {
            life: Arc::default(),
            ..self.clone()
        }
    }

    /// Dead once the last handle is dropped that counts.
    pub(crate) fn life(&self) -> Weak<()> {
        Arc::downgrade(&self.life)
    }

    /// The whole vector, gaps included.
    pub fn slice(&self) -> &Slice {
        &self.whole
    }

    /// The tensors, in the order of the layout.
    pub fn parts(&self) -> &[Slice] {
        &self.parts
    }

    /// Names, shapes and places.
    pub fn layout(&self) -> &Arc<Layout> {
        &self.layout
    }

    /// Whether both are handles of the same numbers.
    pub fn is_same(&self, other: &Vector) -> bool {
        self.whole.buffer() == other.whole.buffer() && self.whole.offset() == other.whole.offset()
    }

    /// Writes all tensors.
    ///
    /// # Errors
    /// [`Error::Length`] when a tensor has the wrong size; nothing is written then.
    pub fn write(&self, gpu: &Gpu, tensors: &[Vec<f32>]) -> Result<()> {
        self.check_tensors(tensors)?;
        for (part, tensor) in self.parts.iter().zip(tensors) {
            gpu.upload(part, 0, tensor)?;
        }
        Ok(())
    }

    /// As [`write`](Self::write), without blocking the thread where a tensor is longer than a [segment](Slice::segments).
    ///
    /// # Errors
    /// As there.
    pub async fn write_async(&self, gpu: &Gpu, tensors: &[Vec<f32>]) -> Result<()> {
        self.check_tensors(tensors)?;
        for (part, tensor) in self.parts.iter().zip(tensors) {
            gpu.upload_async(part, 0, tensor).await?;
        }
        Ok(())
    }

    fn check_tensors(&self, tensors: &[Vec<f32>]) -> Result<()> {
        if tensors.len() != self.parts.len() {
            let what = format!("the list of tensors for '{}'", self.whole.label());
            return Err(Error::Length {
                what,
                found: tensors.len(),
                expected: self.parts.len(),
            });
        }
        for (entry, tensor) in self.layout.entries().iter().zip(tensors) {
            if entry.elements() != tensor.len() {
                let what = format!("tensor '{}'", entry.name);
                return Err(Error::Length {
                    what,
                    found: tensor.len(),
                    expected: entry.elements(),
                });
            }
        }
        Ok(())
    }

    /// Reads all tensors.
    ///
    /// # Errors
    /// As [`Gpu::read`].
    #[cfg(not(target_arch = "wasm32"))]
    pub fn read(&self, gpu: &Gpu) -> Result<Vec<Vec<f32>>> {
        crate::gpu::blocking(self.read_async(gpu))
    }

    /// As [`read`](Self::read), without blocking the thread.
    ///
    /// # Errors
    /// As there.
    pub async fn read_async(&self, gpu: &Gpu) -> Result<Vec<Vec<f32>>> {
        gpu.read_async(&self.parts.iter().collect::<Vec<_>>()).await
    }
}
