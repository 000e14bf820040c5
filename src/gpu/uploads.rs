//! Numbers that travel in a recording: what the host has to say when it is replayed, and not when it is submitted.

use std::fmt;
use std::sync::{Arc, Mutex};

use super::health::{lock, unheard};
use super::slice::{ELEMENT, Slice};
use crate::error::{Error, Result};

/// A write to a slice that is a command of a recording, made by [`Recording::upload`](super::Recording::upload). Each replay carries the numbers that were
/// [`set`](Self::set) last, so two replays in one encoder may carry different ones; clones are the same command.
///
/// They travel in buffers that the host can write, which come back once their submission has run and are used again: after a few replays
/// nothing is allocated any more. Numbers in an encoder that is never submitted are lost.
#[derive(Clone)]
pub struct Upload {
    shared: Arc<Shared>,
}

struct Shared {
    device: wgpu::Device,
    destination: Slice,
    words: Mutex<Vec<u32>>,
    /// Mapped buffers that wait for their next use.
    free: Mutex<Vec<wgpu::Buffer>>,
}

impl Upload {
    /// A write of the whole slice; of zeros, until told otherwise.
    pub(super) fn to(device: &wgpu::Device, slice: &Slice) -> Result<Self> {
        let usage = slice.buffer().usage();
        if !usage.contains(wgpu::BufferUsages::COPY_DST) {
            return Err(Error::Unsupported {
                what: format!("uploading to '{}'", slice.label()),
                message: "create the buffer with BufferUsages::COPY_DST".into(),
            });
        }
        Ok(Self {
            shared: Arc::new(Shared {
                device: device.clone(),
                destination: slice.clone(),
                words: Mutex::new(vec![0; slice.len()]),
                free: Mutex::default(),
            }),
        })
    }

    /// The numbers of the replays to come.
    ///
    /// # Errors
    /// [`Error::Length`] unless there are as many as the slice has elements.
    pub fn set<T: bytemuck::NoUninit>(&self, data: &[T]) -> Result<()> {
        let bytes: &[u8] = bytemuck::cast_slice(data);
        let destination = &self.shared.destination;
        if bytes.len() as u64 != destination.bytes() {
            return Err(Error::Length {
                what: format!("the numbers to be carried to '{}'", destination.label()),
                found: bytes.len() / ELEMENT as usize,
                expected: destination.len(),
            });
        }
        *lock(&self.shared.words) = bytemuck::pod_collect_to_vec(bytes);
        Ok(())
    }

    /// Records the write into an encoder. What goes wrong, such as no memory, goes wrong with the encoder.
    pub(super) fn record(&self, encoder: &mut wgpu::CommandEncoder) {
        let shared = &self.shared;
        let bytes = shared.destination.bytes();
        let known = lock(&shared.free).pop();
        let buffer = known.unwrap_or_else(|| {
            let descriptor = wgpu::BufferDescriptor {
                label: Some("osculant: upload"),
                size: bytes,
                usage: wgpu::BufferUsages::MAP_WRITE | wgpu::BufferUsages::COPY_SRC,
                mapped_at_creation: true,
            };
            // Where there is no memory, the encoder fails when it uses the buffer.
            unheard(&shared.device, || shared.device.create_buffer(&descriptor))
        });
        match buffer.get_mapped_range_mut(0..bytes) {
            Ok(mut view) => view
                .slice(..)
                .copy_from_slice(bytemuck::cast_slice(&lock(&shared.words))),
            Err(error) => log::error!(
                "no place for the numbers of '{}': {error}",
                shared.destination.label()
            ),
        }
        buffer.unmap();
        let destination = &shared.destination;
        encoder.copy_buffer_to_buffer(
            &buffer,
            0,
            destination.buffer(),
            destination.offset_bytes(),
            bytes,
        );
        let back = (Arc::clone(shared), buffer.clone());
        encoder.map_buffer_on_submit(&buffer, wgpu::MapMode::Write, 0..bytes, move |mapped| {
            let (shared, buffer) = back;
            if mapped.is_ok() {
                lock(&shared.free).push(buffer);
            }
        });
    }
}

impl fmt::Debug for Upload {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            formatter,
            "Upload(to '{}')",
            self.shared.destination.label()
        )
    }
}
