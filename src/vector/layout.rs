//! Where each tensor lies in a flat vector.

use crate::error::{Error, Result};

/// Tensors start at multiples of this many elements (256 bytes, the largest alignment that WebGPU allows a device to ask for), so that a
/// layout is the same on every device.
const ALIGNMENT: usize = 64;

/// One tensor of a [`Layout`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Entry {
    /// Its name.
    pub name: String,
    /// Its shape; row-major.
    pub shape: Vec<usize>,
    /// Where it starts, in elements.
    pub offset: usize,
}

impl Entry {
    /// Number of elements; the largest number where there are more than can be counted.
    pub fn elements(&self) -> usize {
        self.shape
            .iter()
            .fold(1, |product: usize, &size| product.saturating_mul(size))
    }
}

/// Names, shapes and places of all parameters. The gaps between tensors are zero in every vector, so that inner products over the whole are
/// right.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Layout {
    entries: Vec<Entry>,
    len: usize,
}

impl Layout {
    /// Lays out tensors one after another.
    ///
    /// # Errors
    /// [`Error::Shape`] for no tensors at all, an empty one, or two of one name.
    pub fn new(tensors: &[(String, Vec<usize>)]) -> Result<Self> {
        let refuse = |name: &str, message: &str| {
            Err(Error::Shape {
                node: name.to_string(),
                message: message.into(),
            })
        };
        let mut entries: Vec<Entry> = Vec::with_capacity(tensors.len());
        let mut len = 0;
        for (name, shape) in tensors {
            let entry = Entry {
                name: name.clone(),
                shape: shape.clone(),
                offset: len,
            };
            if entry.elements() == 0 {
                return refuse(name, "a parameter needs at least one element");
            }
            if entries.iter().any(|e| e.name == *name) {
                return refuse(name, "there are two parameters of this name");
            }
            let end = entry
                .elements()
                .checked_next_multiple_of(ALIGNMENT)
                .and_then(|padded| padded.checked_add(len));
            let Some(end) = end else {
                return refuse(name, "the parameters are more than can be counted");
            };
            len = end;
            entries.push(entry);
        }
        if entries.is_empty() {
            return refuse("parameters", "a model needs at least one");
        }
        Ok(Self { entries, len })
    }

    /// The tensors, in order.
    pub fn entries(&self) -> &[Entry] {
        &self.entries
    }

    /// Elements of a vector, gaps included; a multiple of 64.
    #[expect(clippy::len_without_is_empty, reason = "never empty")]
    pub fn len(&self) -> usize {
        self.len
    }

    /// Number of parameters, gaps not included.
    pub fn parameters(&self) -> usize {
        self.entries.iter().map(Entry::elements).sum()
    }
}

#[cfg(test)]
mod tests {
    use super::{ALIGNMENT, Layout};
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn tensors_are_aligned_and_do_not_overlap(
            shapes in prop::collection::vec(prop::collection::vec(1usize..40, 0..3), 1..8),
        ) {
            let tensors: Vec<(String, Vec<usize>)> = shapes
                .into_iter()
                .enumerate()
                .map(|(i, shape)| (format!("t{i}"), shape))
                .collect();
            let layout = Layout::new(&tensors).map_err(|e| TestCaseError::fail(e.to_string()))?;
            let mut end = 0;
            for (entry, (name, shape)) in layout.entries().iter().zip(&tensors) {
                prop_assert_eq!((&entry.name, &entry.shape), (name, shape));
                prop_assert!(entry.offset >= end && entry.offset < end + ALIGNMENT);
                prop_assert_eq!(entry.offset % ALIGNMENT, 0);
                end = entry.offset + entry.elements();
            }
            prop_assert!(layout.len() >= end && layout.len() < end + ALIGNMENT);
            prop_assert_eq!(layout.len() % ALIGNMENT, 0);
            let elements: usize = tensors.iter().map(|(_, s)| s.iter().product::<usize>()).sum();
            prop_assert_eq!(layout.parameters(), elements);
        }
    }
}
