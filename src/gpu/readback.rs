//! From the device to the host: one submission and one mapping for any number of slices, with reused buffers.

use std::sync::Arc;
use std::sync::atomic::Ordering;

use super::device::Gpu;
use super::recording::Recorder;
use super::slice::{ELEMENT, Slice};
use super::staging::{LARGEST_CLASS, SMALLEST_CLASS};
use super::waits::Event;
use crate::error::{Error, Result};

/// Data on their way to the host, see [`Gpu::submit_and_read_later`]. Dropping it forgets them without waiting.
#[derive(Debug)]
pub struct PendingRead {
    gpu: Gpu,
    /// None where there is nothing to read, or nothing any more.
    staged: Option<Staged>,
    lengths: Vec<usize>,
    /// Label of the first slice, for the error of a time-out.
    label: Arc<str>,
}

/// A pooled buffer that a submission fills. It is mapped only when somebody waits: a buffer with a mapping under way could not go back to
/// the pool.
#[derive(Debug)]
struct Staged {
    buffer: wgpu::Buffer,
    bytes: u64,
    submission: wgpu::SubmissionIndex,
    /// Submissions so far, this one included.
    submissions: u64,
}

impl PendingRead {
    /// Waits for the submission, but not for later ones, and gives the slices' contents in order.
    ///
    /// # Errors
    /// [`Error::Timeout`], [`Error::OutOfMemory`], [`Error::Gpu`], [`Error::DeviceLost`].
    #[cfg(not(target_arch = "wasm32"))]
    pub fn wait(self) -> Result<Vec<Vec<f32>>> {
        super::blocking(self.wait_async())
    }

    /// As [`wait`](Self::wait), without blocking the thread.
    ///
    /// # Errors
    /// As there.
    pub async fn wait_async(self) -> Result<Vec<Vec<f32>>> {
        self.fetch().await
    }

    async fn fetch<T: bytemuck::Pod + Send>(mut self) -> Result<Vec<Vec<T>>> {
        let gpu = self.gpu.clone();
        let Some(staged) = self.staged.take() else {
            return Ok(vec![Vec::new(); self.lengths.len()]);
        };
        let shared = &gpu.shared;
        let followed = shared.submissions.load(Ordering::Relaxed) > staged.submissions;
        let what = || match self.lengths.len() {
            0 | 1 => format!("reading '{}'", self.label),
            several => format!("reading '{}' and {} others", self.label, several - 1),
        };
        // Where this fails, or is dropped, the buffer is dropped and not given back: a mapping of it may still be under way.
        let mapped = Event::Mapped(staged.buffer.clone(), staged.bytes);
        gpu.wait_until(mapped, Some(staged.submission.clone()), what)
            .await?;
        let failed = |error: wgpu::MapRangeError| Error::Gpu {
            what: "reading back".into(),
            message: error.to_string(),
        };
        let mut result = Vec::with_capacity(self.lengths.len());
        {
            let view = staged
                .buffer
                .get_mapped_range(0..staged.bytes)
                .map_err(failed)?;
            let mut rest: &[u8] = &view;
            for length in &self.lengths {
                let (bytes, after) = rest.split_at(length * ELEMENT as usize);
                result.push(bytemuck::pod_collect_to_vec(bytes));
                rest = after;
            }
        }
        staged.buffer.unmap();
        shared.staging.give_back(staged.buffer);
        let counter = if followed {
            &shared.looks
        } else {
            &shared.readbacks
        };
        counter.fetch_add(1, Ordering::Relaxed);
        Ok(result)
    }
}

impl Drop for PendingRead {
    fn drop(&mut self) {
        // Not mapped, so the next submission may fill it again.
        if let Some(staged) = self.staged.take() {
            self.gpu.shared.staging.give_back(staged.buffer);
        }
    }
}

impl Gpu {
    /// The slices' contents as `f32`, in order. Waits for everything submitted before.
    ///
    /// Slices that are together longer than a segment are read in parts, so that they take little memory on the way.
    ///
    /// # Errors
    /// [`Error::Timeout`], [`Error::OutOfMemory`], [`Error::Gpu`], [`Error::DeviceLost`].
    #[cfg(not(target_arch = "wasm32"))]
    pub fn read(&self, slices: &[&Slice]) -> Result<Vec<Vec<f32>>> {
        super::blocking(self.read_async(slices))
    }

    /// As [`read`](Self::read), without blocking the thread.
    ///
    /// # Errors
    /// As there.
    pub async fn read_async(&self, slices: &[&Slice]) -> Result<Vec<Vec<f32>>> {
        self.read_parts(slices).await
    }

    /// The slices' contents as `u32`, in order; otherwise as [`read`](Self::read).
    ///
    /// # Errors
    /// As [`read`](Self::read).
    #[cfg(not(target_arch = "wasm32"))]
    pub fn read_u32(&self, slices: &[&Slice]) -> Result<Vec<Vec<u32>>> {
        super::blocking(self.read_u32_async(slices))
    }

    /// As [`read_u32`](Self::read_u32), without blocking the thread.
    ///
    /// # Errors
    /// As there.
    pub async fn read_u32_async(&self, slices: &[&Slice]) -> Result<Vec<Vec<u32>>> {
        self.read_parts(slices).await
    }

    /// Records commands and reads the slices after them, in the same submission.
    ///
    /// # Errors
    /// As [`try_submit`](Self::try_submit) and [`read`](Self::read); [`Error::OverLimit`] if the slices together are larger than the
    /// device's `max_buffer_size`.
    #[cfg(not(target_arch = "wasm32"))]
    pub fn submit_and_read(
        &self,
        record: impl FnOnce(&mut Recorder<'_>) -> Result<()>,
        slices: &[&Slice],
    ) -> Result<Vec<Vec<f32>>> {
        super::blocking(self.submit_and_read_async(record, slices))
    }

    /// As [`submit_and_read`](Self::submit_and_read), without blocking the thread. What is recorded is submitted when the future is first
    /// polled.
    ///
    /// # Errors
    /// As there.
    pub async fn submit_and_read_async(
        &self,
        record: impl FnOnce(&mut Recorder<'_>) -> Result<()>,
        slices: &[&Slice],
    ) -> Result<Vec<Vec<f32>>> {
        self.download(record, slices).await
    }

    /// Records commands and copies the slices after them, in the same submission, for [`PendingRead::wait`] to fetch. Until then nothing
    /// waits, so more can be submitted meanwhile.
    ///
    /// # Errors
    /// As [`submit_and_read`](Self::submit_and_read).
    pub fn submit_and_read_later(
        &self,
        record: impl FnOnce(&mut Recorder<'_>) -> Result<()>,
        slices: &[&Slice],
    ) -> Result<PendingRead> {
        let total = slices
            .iter()
            .map(|slice| slice.bytes())
            .fold(0, u64::saturating_add);
        if total == 0 {
            self.try_submit(record)?;
            return Ok(PendingRead {
                gpu: self.clone(),
                staged: None,
                lengths: slices.iter().map(|slice| slice.len()).collect(),
                label: "".into(),
            });
        }
        let staging = self.staging_buffer(total)?;
        let ((), submission) = self.submit_indexed(|recorder| {
            record(recorder)?;
            let encoder = recorder.encoder();
            let mut position = 0;
            for slice in slices {
                let bytes = slice.bytes();
                encoder.copy_buffer_to_buffer(
                    slice.buffer(),
                    slice.offset_bytes(),
                    &staging,
                    position,
                    bytes,
                );
                position += bytes;
            }
            Ok(())
        })?;
        Ok(PendingRead {
            gpu: self.clone(),
            staged: Some(Staged {
                buffer: staging,
                bytes: total,
                submission,
                submissions: self.shared.submissions.load(Ordering::Relaxed),
            }),
            lengths: slices.iter().map(|slice| slice.len()).collect(),
            label: slices
                .first()
                .map_or_else(|| "".into(), |slice| slice.shared_label()),
        })
    }

    /// How many times data was read back so far with nothing queued behind it: the device idles from the end of each until the host submits
    /// again. See [`looks`](Self::looks) for the others.
    #[must_use]
    pub fn readbacks(&self) -> u64 {
        self.shared.readbacks.load(Ordering::Relaxed)
    }

    /// How many times data was read back so far while something submitted later, through this `Gpu` or a clone, kept the device busy.
    #[must_use]
    pub fn looks(&self) -> u64 {
        self.shared.looks.load(Ordering::Relaxed)
    }

    async fn read_parts<T: bytemuck::Pod + Send>(&self, slices: &[&Slice]) -> Result<Vec<Vec<T>>> {
        let total: usize = slices.iter().map(|slice| slice.len()).sum();
        if slices.iter().all(|slice| total <= slice.binding_elements()) {
            return self.download(|_| Ok(()), slices).await;
        }
        let mut result = Vec::with_capacity(slices.len());
        for slice in slices {
            let mut all = Vec::with_capacity(slice.len());
            for number in 0..slice.segments() {
                let segment = slice.segment(number);
                let part = self.download(|_| Ok(()), &[&segment]).await?;
                for values in part {
                    all.extend_from_slice(&values);
                }
            }
            result.push(all);
        }
        Ok(result)
    }

    async fn download<T: bytemuck::Pod + Send>(
        &self,
        record: impl FnOnce(&mut Recorder<'_>) -> Result<()>,
        slices: &[&Slice],
    ) -> Result<Vec<Vec<T>>> {
        self.submit_and_read_later(record, slices)?.fetch().await
    }

    /// A mappable buffer of at least `bytes`, from the pool if it has one.
    fn staging_buffer(&self, bytes: u64) -> Result<wgpu::Buffer> {
        self.check()?;
        let limit = self.limits().max_buffer_size;
        if bytes > limit {
            return Err(Error::OverLimit {
                what: "reading back".into(),
                needed: bytes,
                limit_name: "max_buffer_size",
                limit,
                advice: "read in several calls",
            });
        }
        // Beyond the pool's sizes, and where the next power of two is over the limit, take exactly what is needed.
        let class = bytes.max(SMALLEST_CLASS).next_power_of_two();
        let size = if class <= LARGEST_CLASS.min(limit) {
            class
        } else {
            bytes
        };
        if let Some(buffer) = self.shared.staging.take(size) {
            return Ok(buffer);
        }
        self.guarded(
            || {
                self.device().create_buffer(&wgpu::BufferDescriptor {
                    label: Some("osculant: readback"),
                    size,
                    usage: wgpu::BufferUsages::MAP_READ | wgpu::BufferUsages::COPY_DST,
                    mapped_at_creation: false,
                })
            },
            || format!("a readback buffer ({size} bytes)").into(),
        )
    }
}
