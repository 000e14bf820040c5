//! Device memory: [`Slice`], allocation, upload.

use std::ops::Range;
use std::sync::Arc;
use std::sync::atomic::Ordering;

use super::device::Gpu;
use super::health::{device_error, scoped};
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
    /// binding cannot start (see [`Gpu::alignment`]).
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

impl Gpu {
    /// A new buffer of `elements` zeros, usable in kernels, as source and as destination of copies; it can be bound whole.
    ///
    /// # Errors
    /// [`Error::Length`] for zero elements, [`Error::OverLimit`] if it is larger than the device's
    /// `max_buffer_size` or `max_storage_buffer_binding_size`, [`Error::OutOfMemory`], [`Error::DeviceLost`].
    pub fn buffer(&self, label: &str, elements: usize) -> Result<Slice> {
        self.check_binding(format!("buffer '{label}'"), elements)?;
        self.storage(label, elements)
    }

    /// As [`buffer`](Self::buffer), but it may be larger than one binding: then only parts of it can be bound, such as its
    /// [segments](Slice::segments).
    ///
    /// # Errors
    /// As [`buffer`](Self::buffer).
    pub fn storage(&self, label: &str, elements: usize) -> Result<Slice> {
        self.allocate(label, elements, wgpu::BufferUsages::empty())
    }

    /// As [`buffer`](Self::buffer), and kernels may also bind it as a uniform: such a binding does not count as a storage buffer. Up to 16
    /// KiB.
    pub(crate) fn uniform(&self, label: &str, elements: usize) -> Result<Slice> {
        let limit = self.limits().max_uniform_buffer_binding_size;
        let what = || format!("buffer '{label}'");
        check_size(what, elements, "max_uniform_buffer_binding_size", limit)?;
        self.allocate(label, elements, wgpu::BufferUsages::UNIFORM)
    }

    fn allocate(&self, label: &str, elements: usize, also: wgpu::BufferUsages) -> Result<Slice> {
        self.check()?;
        if elements == 0 {
            return Err(Error::Length {
                what: format!("buffer '{label}'"),
                found: 0,
                expected: 1,
            });
        }
        check_size(
            || format!("buffer '{label}'"),
            elements,
            "max_buffer_size",
            self.limits().max_buffer_size,
        )?;
        let bytes = elements as u64 * ELEMENT;
        let (buffer, error) = scoped(self.device(), || {
            self.device().create_buffer(&wgpu::BufferDescriptor {
                label: Some(label),
                size: bytes,
                usage: wgpu::BufferUsages::STORAGE
                    | wgpu::BufferUsages::COPY_SRC
                    | wgpu::BufferUsages::COPY_DST
                    | also,
                mapped_at_creation: false,
            })
        });
        match error {
            Some(error) => Err(device_error(
                format!("buffer '{label}' ({bytes} bytes)"),
                &error,
            )),
            None => {
                self.shared.allocated.fetch_add(bytes, Ordering::Relaxed);
                Ok(Slice {
                    buffer,
                    label: label.into(),
                    offset: 0,
                    len: elements,
                    alignment: self.alignment(),
                    binding: self.binding_elements(),
                })
            }
        }
    }

    /// A caller's buffer as a slice, whole; it must belong to this device. Nothing is copied.
    ///
    /// Reading it back needs `COPY_SRC`, uploading `COPY_DST`.
    ///
    /// # Errors
    /// [`Error::Unsupported`] without the usage `STORAGE`, [`Error::Length`] if it holds not even one element.
    pub fn wrap(&self, label: &str, buffer: &wgpu::Buffer) -> Result<Slice> {
        if !buffer.usage().contains(wgpu::BufferUsages::STORAGE) {
            return Err(Error::Unsupported {
                what: format!("using buffer '{label}' in kernels"),
                message: "create it with BufferUsages::STORAGE".into(),
            });
        }
        let elements = buffer.size() / ELEMENT;
        match usize::try_from(elements) {
            Ok(len) if len > 0 => Ok(Slice {
                buffer: buffer.clone(),
                label: label.into(),
                offset: 0,
                len,
                alignment: self.alignment(),
                binding: self.binding_elements(),
            }),
            _ => Err(Error::Length {
                what: format!("buffer '{label}'"),
                found: 0,
                expected: 1,
            }),
        }
    }

    /// Writes `data` into the slice, from `offset` elements on. It takes place before anything that is submitted
    /// later, and after everything submitted already.
    ///
    /// Data longer than a segment are written in parts, each once the one before has arrived, so that they take little memory on the way.
    ///
    /// # Errors
    /// [`Error::Length`] if the data reaches beyond the slice or is not a whole number of elements,
    /// [`Error::OutOfMemory`], [`Error::Gpu`], [`Error::DeviceLost`]; [`Error::Timeout`] for data in parts.
    pub fn upload<T: bytemuck::NoUninit>(
        &self,
        slice: &Slice,
        offset: usize,
        data: &[T],
    ) -> Result<()> {
        self.check()?;
        let bytes: &[u8] = bytemuck::cast_slice(data);
        let elements = bytes.len() / ELEMENT as usize;
        if !bytes.len().is_multiple_of(ELEMENT as usize) {
            let what = format!("the data for '{}', in bytes,", slice.label());
            return Err(Error::Length {
                what,
                found: bytes.len(),
                expected: elements * ELEMENT as usize,
            });
        }
        let end = offset.saturating_add(elements);
        if end > slice.len() {
            let what = format!(
                "'{}' after writing {elements} elements at {offset}",
                slice.label()
            );
            return Err(Error::Length {
                what,
                found: end,
                expected: slice.len(),
            });
        }
        if bytes.is_empty() {
            return Ok(());
        }
        let start = slice.offset_bytes() + offset as u64 * ELEMENT;
        let most = slice.longest_segment().saturating_mul(ELEMENT as usize);
        let what = || format!("uploading to '{}'", slice.label());
        for (number, part) in bytes.chunks(most).enumerate() {
            let start = start + (number * most) as u64;
            let (submission, error) = scoped(self.device(), || {
                self.queue().write_buffer(slice.buffer(), start, part);
                (bytes.len() > most).then(|| self.queue().submit([]))
            });
            if let Some(error) = error {
                return Err(device_error(what(), &error));
            }
            if submission.is_some() {
                self.wait_for(submission, what)?;
            }
        }
        Ok(())
    }

    fn binding_elements(&self) -> usize {
        usize::try_from(self.limits().max_storage_buffer_binding_size / ELEMENT)
            .unwrap_or(usize::MAX)
    }

    /// Fails unless one binding holds so many elements.
    ///
    /// # Errors
    /// [`Error::OverLimit`] for `what`.
    pub(crate) fn check_binding(&self, what: String, elements: usize) -> Result<()> {
        let limit = self.limits().max_storage_buffer_binding_size;
        check_size(|| what, elements, "max_storage_buffer_binding_size", limit)
    }
}

fn check_size(
    what: impl FnOnce() -> String,
    elements: usize,
    limit_name: &'static str,
    limit: u64,
) -> Result<()> {
    let bytes = (elements as u64).saturating_mul(ELEMENT);
    if bytes <= limit {
        return Ok(());
    }
    Err(Error::OverLimit {
        what: what(),
        needed: bytes,
        limit_name,
        limit,
        advice: "use a smaller batch or network, or an adapter with larger buffers",
    })
}
