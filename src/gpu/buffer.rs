//! Device memory: allocation, upload.

use std::sync::atomic::Ordering;

use super::device::Gpu;
use super::health::lock;
use super::sizes::{IN_A_BUFFER, Sizes};
use super::slice::{ELEMENT, Slice};
use super::waits::Event;
use crate::error::{Error, Result};

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
        let descriptor = wgpu::BufferDescriptor {
            label: Some(label),
            size: bytes,
            usage: wgpu::BufferUsages::STORAGE
                | wgpu::BufferUsages::COPY_SRC
                | wgpu::BufferUsages::COPY_DST
                | also,
            mapped_at_creation: false,
        };
        let buffer = self.guarded(
            || self.device().create_buffer(&descriptor),
            || format!("buffer '{label}' ({bytes} bytes)").into(),
        )?;
        self.shared.allocated.fetch_add(bytes, Ordering::Relaxed);
        Ok(self.whole(buffer, label, elements))
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
            Ok(len) if len > 0 => Ok(self.whole(buffer.clone(), label, len)),
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
    /// Data longer than a segment are written in parts. Here each is written once the one before has arrived, so that they take little
    /// memory on the way: [`upload_async`](Self::upload_async) is for those who must not wait for that. A browser takes them all at once.
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
        self.check_upload(slice, offset, data)?;
        let bytes: &[u8] = bytemuck::cast_slice(data);
        for part in self.parts_of_upload(slice, offset, bytes) {
            #[cfg(target_arch = "wasm32")]
            self.write_part(slice, part)?;
            #[cfg(not(target_arch = "wasm32"))]
            super::blocking(self.write_part_async(slice, part))?;
        }
        Ok(())
    }

    /// As [`upload`](Self::upload), without blocking the thread where data are in parts.
    ///
    /// # Errors
    /// As there.
    pub async fn upload_async<T: bytemuck::NoUninit + Sync>(
        &self,
        slice: &Slice,
        offset: usize,
        data: &[T],
    ) -> Result<()> {
        self.check_upload(slice, offset, data)?;
        let bytes: &[u8] = bytemuck::cast_slice(data);
        for part in self.parts_of_upload(slice, offset, bytes) {
            self.write_part_async(slice, part).await?;
        }
        Ok(())
    }

    fn check_upload<T: bytemuck::NoUninit>(
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
        Ok(())
    }

    /// What is written at once, with where it begins; and whether another part comes.
    fn parts_of_upload<'a>(
        &self,
        slice: &Slice,
        offset: usize,
        bytes: &'a [u8],
    ) -> impl Iterator<Item = Part<'a>> + use<'a> {
        let start = slice.offset_bytes() + offset as u64 * ELEMENT;
        let most = slice.longest_segment().saturating_mul(ELEMENT as usize);
        let several = bytes.len() > most;
        let parts = bytes.chunks(most).enumerate();
        parts.map(move |(number, bytes)| Part {
            start: start + (number * most) as u64,
            bytes,
            several,
        })
    }

    /// Writes a part; one of several is submitted by itself.
    fn write_part(&self, slice: &Slice, part: Part<'_>) -> Result<Option<wgpu::SubmissionIndex>> {
        self.guarded(
            || {
                let queue = self.queue();
                queue.write_buffer(slice.buffer(), part.start, part.bytes);
                part.several.then(|| queue.submit([]))
            },
            || uploading(slice).into(),
        )
    }

    async fn write_part_async(&self, slice: &Slice, part: Part<'_>) -> Result<()> {
        match self.write_part(slice, part)? {
            None => Ok(()),
            submission => {
                let what = || uploading(slice);
                self.wait_until(Event::Done, submission, what).await
            }
        }
    }

    /// The first `elements` of a buffer of this device.
    fn whole(&self, buffer: wgpu::Buffer, label: &str, elements: usize) -> Slice {
        let binding = self.limits().max_storage_buffer_binding_size / ELEMENT;
        let binding = usize::try_from(binding).unwrap_or(usize::MAX);
        Slice::of(buffer, label, elements, self.alignment(), binding)
    }

    /// A binding that holds these sizes.
    ///
    /// # Errors
    /// [`Error::OutOfMemory`], [`Error::DeviceLost`].
    pub(crate) fn sizes(&self, sizes: Sizes) -> Result<Slice> {
        let mut known = lock(&self.shared.sizes);
        if let Some(slice) = known.get(&sizes) {
            return Ok(slice);
        }
        let place = match known.free() {
            Some(place) => place,
            None => {
                let bytes = u64::from(self.limits().min_uniform_buffer_offset_alignment);
                let apart = (bytes / ELEMENT) as usize;
                // Slices start where storage bindings may, too.
                let apart = apart.next_multiple_of(self.alignment()).max(sizes.len());
                known.extend(
                    &self.uniform("sizes of kernels", apart * IN_A_BUFFER)?,
                    apart,
                )?
            }
        };
        self.upload(&place, 0, &sizes)?;
        known.keep(sizes);
        Ok(place)
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

/// A part of an upload.
struct Part<'a> {
    /// In its buffer, in bytes.
    start: u64,
    bytes: &'a [u8],
    /// Whether there are others.
    several: bool,
}

fn uploading(slice: &Slice) -> String {
    format!("uploading to '{}'", slice.label())
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
