//! Mappable buffers that are used again.

use std::collections::HashMap;
use std::sync::Mutex;

use super::health::lock;

/// Buffers are pooled in classes of powers of two, from this size in bytes.
pub(super) const SMALLEST_CLASS: u64 = 256;

/// Larger buffers are given back to the driver: a checkpoint should not keep its size in memory for ever.
pub(super) const LARGEST_CLASS: u64 = 64 << 20;

/// Mappable buffers that wait for their next use, by size.
#[derive(Debug, Default)]
pub(super) struct StagingPool {
    free: Mutex<HashMap<u64, Vec<wgpu::Buffer>>>,
}

impl StagingPool {
    pub(super) fn take(&self, size: u64) -> Option<wgpu::Buffer> {
        lock(&self.free).get_mut(&size)?.pop()
    }

    pub(super) fn give_back(&self, buffer: wgpu::Buffer) {
        if buffer.size() <= LARGEST_CLASS {
            lock(&self.free)
                .entry(buffer.size())
                .or_default()
                .push(buffer);
        }
    }
}
