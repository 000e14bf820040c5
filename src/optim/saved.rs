//! The saved state of an optimizer, and checks of one before it is taken up.

use std::ops::RangeInclusive;

use crate::error::{Error, Result};
use crate::vector::Layout;

/// Names of what a state has of a course.
pub(super) const STEPS: &str = "course_steps";
pub(super) const AVERAGED: &str = "course_averaged";
pub(super) const AVERAGE: &str = "average";
/// All of them.
const COURSE: [&str; 3] = [STEPS, AVERAGED, AVERAGE];

/// What an optimizer must remember to continue with the same bits.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct OptimizerState {
    /// Numbers, by name.
    pub scalars: Vec<(String, f64)>,
    /// Vectors, by name, as lists of tensors: in parameter space, or of factors of the curvature.
    pub vectors: Vec<(String, Vec<Vec<f32>>)>,
}

impl OptimizerState {
    /// The number of this name.
    pub fn scalar(&self, name: &str) -> Option<f64> {
        self.scalars
            .iter()
            .find(|(n, _)| n == name)
            .map(|&(_, value)| value)
    }

    /// The vector of this name.
    pub fn vector(&self, name: &str) -> Option<&[Vec<f32>]> {
        self.vectors
            .iter()
            .find(|(n, _)| n == name)
            .map(|(_, value)| value.as_slice())
    }
}

/// The error for what a state lacks.
pub(super) fn missing(name: &str) -> Error {
    Error::Data {
        what: "optimizer state".into(),
        message: format!("it has no '{name}'; it was saved by another optimizer"),
    }
}

/// The number of that name, which must be in a range.
///
/// # Errors
/// [`Error::Data`] where it is missing, not a number, or out of range.
pub(super) fn number(
    state: &OptimizerState,
    name: &str,
    range: RangeInclusive<f64>,
) -> Result<f64> {
    let value = state.scalar(name).ok_or_else(|| missing(name))?;
    if range.contains(&value) {
        return Ok(value);
    }
    Err(Error::Data {
        what: "optimizer state".into(),
        message: format!(
            "'{name}' is {value}, which is not in {:e}..={:e}; the file is damaged, or of other options",
            range.start(),
            range.end()
        ),
    })
}

/// The vector of that name, whose tensors must have the sizes of a layout and finite numbers.
///
/// # Errors
/// [`Error::Data`] where it is missing or damaged, [`Error::Length`] where it is of another model.
pub(super) fn vector<'s>(
    state: &'s OptimizerState,
    name: &str,
    layout: &Layout,
) -> Result<&'s [Vec<f32>]> {
    let tensors = state.vector(name).ok_or_else(|| missing(name))?;
    let entries = layout.entries();
    if tensors.len() != entries.len() {
        return Err(Error::Length {
            what: format!("the list of tensors of '{name}'"),
            found: tensors.len(),
            expected: entries.len(),
        });
    }
    for (tensor, entry) in tensors.iter().zip(entries) {
        if tensor.len() != entry.elements() {
            return Err(Error::Length {
                what: format!("tensor '{}' of '{name}'", entry.name),
                found: tensor.len(),
                expected: entry.elements(),
            });
        }
        if let Some(place) = tensor.iter().position(|x| !x.is_finite()) {
            return Err(Error::Data {
                what: "optimizer state".into(),
                message: format!(
                    "element {place} of tensor '{}' of '{name}' is {}; the file is damaged",
                    entry.name, tensor[place]
                ),
            });
        }
    }
    Ok(tensors)
}

/// A count of steps.
///
/// # Errors
/// As [`number`].
pub(super) fn count(state: &OptimizerState, name: &str) -> Result<usize> {
    Ok(number(state, name, 0.0..=f64::from(i32::MAX))? as usize)
}

/// Checks that a state has no numbers and no vectors but those of a course and those that an optimizer knows: names, or beginnings of names
/// that end with a space. Other methods' states have others.
///
/// # Errors
/// [`Error::Data`] with the first unknown name.
pub(super) fn only(state: &OptimizerState, scalars: &[&str], vectors: &[&str]) -> Result<()> {
    let knows = |known: &[&str], name: &str| {
        let mut all = known.iter().chain(&COURSE);
        all.any(|k| *k == name || (k.ends_with(' ') && name.starts_with(k)))
    };
    let mut numbers = state.scalars.iter().map(|(name, _)| name);
    let mut tensors = state.vectors.iter().map(|(name, _)| name);
    let strange = numbers.find(|name| !knows(scalars, name));
    match strange.or_else(|| tensors.find(|name| !knows(vectors, name))) {
        None => Ok(()),
        Some(name) => Err(Error::Data {
            what: "optimizer state".into(),
            message: format!(
                "it has a '{name}', which this method does not know; it was saved by another optimizer"
            ),
        }),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_are_checked_and_strangers_refused() {
        let mut state = OptimizerState {
            scalars: vec![("damping".into(), 1.0), ("eigenvalue 3".into(), 2.0)],
            vectors: Vec::new(),
        };
        assert!(number(&state, "damping", 0.0..=2.0).is_ok_and(|d| d == 1.0));
        assert!(number(&state, "damping", 2.0..=3.0).is_err());
        assert!(number(&state, "radius", 0.0..=2.0).is_err());
        assert!(only(&state, &["damping", "eigenvalue "], &[]).is_ok());
        assert!(only(&state, &["damping"], &[]).is_err());
        state.scalars[0].1 = f64::NAN;
        assert!(number(&state, "damping", 0.0..=2.0).is_err());
    }
}
