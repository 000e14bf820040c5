//! From the device to the host without waiting: copies that arrive some submissions later.

use std::collections::VecDeque;
use std::fmt;
use std::sync::atomic::Ordering;
use std::sync::{Arc, Mutex};

use super::device::Gpu;
use super::health::lock;
use super::recording::{Recorder, Recording};
use super::slice::Slice;
use super::uploads::Upload;
use crate::error::{Error, Result};

/// Copies of a slice that are taken in encoders, also in those of others, and arrive once the device has run them. Nothing waits for them:
/// wgpu hands them over whenever something is submitted or polled.
///
/// There is room for as many as were asked for, which are used again in a ring. Copies that nobody fetched make room for new ones, the
/// oldest first; where all room is under way to the device, a copy is left out.
pub struct Arrivals {
    gpu: Gpu,
    slice: Slice,
    /// The number of a copy, one more, on the device: what is not behind it was never copied.
    stamp: Slice,
    write: Recording,
    upload: Upload,
    most: usize,
    ring: Arc<Mutex<Ring>>,
}

#[derive(Default)]
struct Ring {
    free: Vec<wgpu::Buffer>,
    /// Mapped, in the order in which they arrived.
    arrived: VecDeque<(u64, wgpu::Buffer)>,
    /// Buffers made so far that are still of use.
    made: usize,
}

/// What is behind a copy of this number; never 0, which buffers begin with.
fn stamp_of(number: u64) -> u32 {
    (number as u32).wrapping_add(1) | 0x8000_0000
}

/// A buffer on its way; gives its room back where the encoder is dropped and nothing will ever arrive.
struct UnderWay {
    ring: Arc<Mutex<Ring>>,
    buffer: Option<wgpu::Buffer>,
}

impl Drop for UnderWay {
    fn drop(&mut self) {
        if let Some(buffer) = self.buffer.take() {
            lock(&self.ring).free.push(buffer);
        }
    }
}

impl Arrivals {
    /// Of this slice, with room for `most` copies.
    ///
    /// # Errors
    /// [`Error::Option`] for no room, [`Error::Unsupported`] for a buffer made without [`wgpu::BufferUsages::COPY_SRC`].
    pub fn new(gpu: &Gpu, slice: &Slice, most: usize) -> Result<Self> {
        crate::options::require(
            most > 0,
            "arrivals",
            "there must be room for one copy at least",
        )?;
        if !slice
            .buffer()
            .usage()
            .contains(wgpu::BufferUsages::COPY_SRC)
        {
            return Err(Error::Unsupported {
                what: format!("copying '{}' to the host", slice.label()),
                message: "create the buffer with BufferUsages::COPY_SRC".into(),
            });
        }
        let (stamp, mut write) = (gpu.buffer("number of a copy", 1)?, Recording::new());
        Ok(Self {
            gpu: gpu.clone(),
            slice: slice.clone(),
            upload: write.upload(gpu, &stamp)?,
            stamp,
            write,
            most,
            ring: Arc::default(),
        })
    }

    /// Records a copy of the slice as it is then, under this number; says whether there was room.
    pub fn record(&self, recorder: &mut Recorder<'_>, number: u64) -> bool {
        let Some(buffer) = self.room() else {
            return false;
        };
        // One number always fits.
        let _ = self.upload.set(&[stamp_of(number)]);
        recorder.replay(&self.write);
        let (encoder, bytes) = (recorder.encoder(), self.slice.bytes());
        let copies = [(&self.slice, 0), (&self.stamp, bytes)];
        for (slice, to) in copies {
            encoder.copy_buffer_to_buffer(
                slice.buffer(),
                slice.offset_bytes(),
                &buffer,
                to,
                slice.bytes(),
            );
        }
        let bytes = bytes + self.stamp.bytes();
        let mut under_way = UnderWay {
            ring: Arc::clone(&self.ring),
            buffer: Some(buffer.clone()),
        };
        encoder.map_buffer_on_submit(&buffer, wgpu::MapMode::Read, 0..bytes, move |mapped| {
            // Where the mapping failed, the device is gone.
            if let (Ok(()), Some(buffer)) = (mapped, under_way.buffer.take()) {
                lock(&under_way.ring).arrived.push_back((number, buffer));
            }
        });
        true
    }

    /// What has arrived since the last call, in the order of its numbers. Asks the device, but never waits.
    ///
    /// # Errors
    /// [`Error::DeviceLost`], [`Error::Gpu`].
    pub fn take(&self) -> Result<Vec<(u64, Vec<u32>)>> {
        self.gpu.poll()?;
        let arrived: Vec<_> = lock(&self.ring).arrived.drain(..).collect();
        let mut all = Vec::with_capacity(arrived.len());
        for (number, buffer) in arrived {
            let view = buffer.get_mapped_range(0..self.slice.bytes() + self.stamp.bytes());
            let words = view.map(|view| bytemuck::pod_collect_to_vec::<u8, u32>(&view));
            buffer.unmap();
            lock(&self.ring).free.push(buffer);
            let mut words = words.map_err(|error| Error::Gpu {
                what: format!("reading a copy of '{}'", self.slice.label()),
                message: error.to_string(),
            })?;
            // An encoder that the device refused maps its buffers all the same.
            if words.pop() == Some(stamp_of(number)) {
                self.gpu.shared.looks.fetch_add(1, Ordering::Relaxed);
                all.push((number, words));
            }
        }
        // Where several threads ask the device, they may hand over one before the other.
        all.sort_by_key(|(number, _)| *number);
        Ok(all)
    }

    fn room(&self) -> Option<wgpu::Buffer> {
        let mut ring = lock(&self.ring);
        if let Some(buffer) = ring.free.pop() {
            return Some(buffer);
        }
        if ring.made < self.most {
            let descriptor = wgpu::BufferDescriptor {
                label: Some("osculant: report"),
                size: self.slice.bytes() + self.stamp.bytes(),
                usage: wgpu::BufferUsages::MAP_READ | wgpu::BufferUsages::COPY_DST,
                mapped_at_creation: false,
            };
            let make = || self.gpu.device().create_buffer(&descriptor);
            let what = || format!("room for a copy of '{}'", self.slice.label()).into();
            return match self.gpu.guarded(make, what) {
                Ok(buffer) => {
                    ring.made += 1;
                    Some(buffer)
                }
                Err(error) => {
                    log::warn!("{error}");
                    None
                }
            };
        }
        let (_, oldest) = ring.arrived.pop_front()?;
        oldest.unmap();
        Some(oldest)
    }
}

impl fmt::Debug for Arrivals {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "Arrivals(of '{}')", self.slice.label())
    }
}
