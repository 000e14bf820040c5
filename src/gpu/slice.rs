//! A range of device memory.

use std::ops::Range;
use std::sync::Arc;

use crate::error::{Error, Result};

/// Bytes of one element; everything on the device is `f32` or `u32`.
pub(super) const ELEMENT: u64 = 4;

/// A range of a device buffer, in elements of four bytes. Cloning shares the memory.
#[derive(Clone, Debug)]
pub struct Slice {
    buffer: wgpu::Buffer,
    label: Arc<str>,
    /// Start, in elements.
    offset: u64,
    /// Length, in elements; never zero.
    len: usize,
    /// What a start must be a multiple of, in elements.
    alignment: usize,
    /// What one binding holds, in elements.
    binding: usize,
}

impl Slice {
    /// The first `len` elements of a buffer, on a device on which parts start at multiples of `alignment` elements and a binding holds
    /// `binding` of them.
    pub(super) fn of(
        buffer: wgpu::Buffer,
        label: &str,
        len: usize,
        alignment: usize,
        binding: usize,
    ) -> Self {
        Self {
            buffer,
            label: label.into(),
            offset: 0,
            len,
            alignment,
            binding,
        }
    }

    /// The buffer this is a part of.
    #[must_use]
    pub fn buffer(&self) -> &wgpu::Buffer {
        &self.buffer
    }

    /// The label of the buffer, for messages.
    #[must_use]
    pub fn label(&self) -> &str {
        &self.label
    }

    pub(super) fn shared_label(&self) -> Arc<str> {
        Arc::clone(&self.label)
    }

    /// Where the slice starts in its buffer, in elements.
    #[must_use]
    pub fn offset(&self) -> u64 {
        self.offset
    }

    /// Where the slice starts in its buffer, in bytes.
    #[must_use]
    pub fn offset_bytes(&self) -> u64 {
        self.offset * ELEMENT
    }

    /// Number of elements; never zero.
    #[must_use]
    #[expect(clippy::len_without_is_empty, reason = "a slice is never empty")]
    pub fn len(&self) -> usize {
        self.len
    }

    pub(super) fn alignment(&self) -> usize {
        self.alignment
    }

    /// What one binding holds, in elements: a slice that is longer is bound in [segments](Self::segments).
    pub(super) fn binding_elements(&self) -> usize {
        self.binding
    }

    /// The same elements as if a binding held so many.
    #[cfg(test)]
    pub(crate) fn with_binding(&self, elements: usize) -> Self {
        Self {
            binding: elements,
            ..self.clone()
        }
    }

    /// Number of bytes.
    #[must_use]
    pub fn bytes(&self) -> u64 {
        self.len as u64 * ELEMENT
    }

    /// The part `range` of this slice, in elements counted from its start.
    ///
    /// # Errors
    /// [`Error::Length`] if the range is empty or reaches beyond the end, [`Error::Unsupported`] if it starts where a
    /// binding cannot start (see [`Gpu::alignment`](super::Gpu::alignment)).
    pub fn slice(&self, range: Range<usize>) -> Result<Self> {
        let expected = self.len;
        if range.end > expected {
            let what = format!("the end of a part of '{}'", self.label);
            return Err(Error::Length {
                what,
                found: range.end,
                expected,
            });
        }
        if range.is_empty() {
            let what = format!("a part of '{}' starting at {}", self.label, range.start);
            return Err(Error::Length {
                what,
                found: 0,
                expected: 1,
            });
        }
        let offset = self.offset + range.start as u64;
        if !offset.is_multiple_of(self.alignment as u64) {
            return Err(Error::Unsupported {
                what: format!("a part of '{}' starting at element {offset}", self.label),
                message: format!(
                    "on this device parts start at multiples of {} elements",
                    self.alignment
                ),
            });
        }
        Ok(self.at(range))
    }

    /// As [`slice`](Self::slice), for a range that is known to be one.
    pub(super) fn at(&self, range: Range<usize>) -> Self {
        Self {
            offset: self.offset + range.start as u64,
            len: range.len(),
            ..self.clone()
        }
    }

    /// The slice as a resource for a bind group.
    #[must_use]
    pub fn binding(&self) -> wgpu::BindingResource<'_> {
        wgpu::BindingResource::Buffer(wgpu::BufferBinding {
            buffer: &self.buffer,
            offset: self.offset_bytes(),
            size: wgpu::BufferSize::new(self.bytes()),
        })
    }
}
