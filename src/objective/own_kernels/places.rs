//! Where the tensors of a caller lie, and copies between them and our vectors.

use crate::error::{Error, Result};
use crate::gpu::{Gpu, Recording, Slice};
use crate::vector::Vector;

/// Some elements of a caller's buffer, from any multiple of four bytes on.
#[derive(Clone, Debug)]
pub(super) struct Place {
    buffer: Slice,
    start: usize,
    len: usize,
}

impl Place {
    /// So many elements, from a byte on.
    pub(super) fn new(
        gpu: &Gpu,
        label: &str,
        (buffer, offset): (&wgpu::Buffer, u64),
        len: usize,
    ) -> Result<Self> {
        let buffer = gpu.wrap(label, buffer)?;
        if !offset.is_multiple_of(4) {
            return Err(Error::Unsupported {
                what: format!("'{label}' at byte {offset} of its buffer"),
                message: "numbers of four bytes start at multiples of 4".into(),
            });
        }
        let start = usize::try_from(offset / 4).unwrap_or(usize::MAX);
        let end = start.saturating_add(len);
        if end > buffer.len() {
            return Err(Error::Length {
                what: format!("the end of '{label}' in its buffer, in elements of four bytes,"),
                found: end,
                expected: buffer.len(),
            });
        }
        Ok(Self { buffer, start, len })
    }

    /// Whether both have elements in common.
    fn overlaps(&self, other: &Self) -> bool {
        let apart = self.start + self.len <= other.start || other.start + other.len <= self.start;
        self.buffer.buffer() == other.buffer.buffer() && !apart
    }

    /// Records a copy to a slice of as many elements.
    pub(super) fn copy_to(&self, recording: &mut Recording, to: &Slice) -> Result<()> {
        recording.copy_part(&self.buffer, self.start, to, 0, self.len)
    }

    /// Records a copy of a slice of as many elements.
    pub(super) fn copy_from(&self, recording: &mut Recording, from: &Slice) -> Result<()> {
        recording.copy_part(from, 0, &self.buffer, self.start, self.len)
    }
}

/// Refuses places that overlap: whatever is written to the one would be in the other.
pub(super) fn check_apart<'a>(places: impl IntoIterator<Item = &'a Place>) -> Result<()> {
    let places: Vec<&Place> = places.into_iter().collect();
    for (number, place) in places.iter().enumerate() {
        if let Some(other) = places[..number].iter().find(|other| place.overlaps(other)) {
            let (one, two) = (other.buffer.label(), place.buffer.label());
            return Err(Error::Unsupported {
                what: format!("'{one}' and '{two}' in the same elements of a buffer"),
                message: "give each a range of its own; look at the offsets, which are in bytes"
                    .into(),
            });
        }
    }
    Ok(())
}

/// Records copies of all tensors into a vector.
pub(super) fn gather(recording: &mut Recording, places: &[Place], to: &Vector) -> Result<()> {
    let mut all = places.iter().zip(to.parts());
    all.try_for_each(|(place, part)| place.copy_to(recording, part))
}

/// Records copies of all tensors of a vector to their places.
pub(super) fn scatter(recording: &mut Recording, places: &[Place], from: &Vector) -> Result<()> {
    let mut all = places.iter().zip(from.parts());
    all.try_for_each(|(place, part)| place.copy_from(recording, part))
}
