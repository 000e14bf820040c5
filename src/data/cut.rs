//! How the rows of a batch are cut into parts and groups, by their weights alone.

use std::ops::Range;

use crate::{Error, Result};

/// Some rows of a batch by their places, with the weights that they get.
#[derive(Debug)]
pub(super) struct Cut {
    pub(super) places: Vec<usize>,
    pub(super) weights: Vec<f32>,
}

/// Places of the rows whose weight is not zero.
fn examples(weights: &[f32]) -> Vec<usize> {
    (0..weights.len()).filter(|&i| weights[i] > 0.0).collect()
}

/// Groups of as many rows each, see [`Batch::in_groups`](super::Batch::in_groups); none where they are the rows as they stand.
///
/// # Errors
/// [`Error::Data`] when the rows cannot be shared out evenly, or a group would have no example.
pub(super) fn groups(weights: &[f32], groups: usize) -> Result<Option<Cut>> {
    let rows = weights.len();
    let examples = examples(weights);
    let even = groups > 0 && rows > 0 && rows.is_multiple_of(groups);
    let filled = examples.len() < rows && examples.last() == Some(&(examples.len() - 1));
    let has_example = |group: &[f32]| group.iter().any(|weight| *weight > 0.0);
    let complete = even
        && if filled {
            examples.len() >= groups
        } else {
            weights.chunks(rows / groups).all(has_example)
        };
    if !complete {
        return Err(Error::Data {
            what: "batch".to_owned(),
            message: format!(
                "{} examples in {rows} rows cannot be cut into {groups} groups of as many rows; use another batch size",
                examples.len()
            ),
        });
    }
    if !filled {
        return Ok(None);
    }
    let mut cut = Cut {
        places: Vec::with_capacity(rows),
        weights: Vec::with_capacity(rows),
    };
    for group in 0..groups {
        let place = |group: usize| group * examples.len() / groups;
        let own = &examples[place(group)..place(group + 1)];
        let end = (group + 1) * rows / groups;
        cut.places.extend_from_slice(own);
        cut.weights.extend(own.iter().map(|&i| weights[i]));
        // Any row may fill the rest.
        cut.places.resize(end, own[0]);
        cut.weights.resize(end, 0.0);
    }
    Ok(Some(cut))
}

/// The examples of some ranges of rows, see [`Batch::part`](super::Batch::part); they may be fewer than the rows of the ranges.
///
/// # Errors
/// [`Error::Data`] when a range reaches beyond the rows, or the part would have no example.
pub(super) fn part(weights: &[f32], ranges: &[Range<usize>]) -> Result<Cut> {
    let rows = weights.len();
    let examples = examples(weights);
    let valid = ranges.iter().all(|r| r.start <= r.end && r.end <= rows);
    // In proportion to the rows: a part never gets more examples than it has rows.
    let place = |row: usize| (row * examples.len()).checked_div(rows).unwrap_or(0);
    let mut own = Vec::new();
    for range in ranges.iter().filter(|_| valid) {
        own.extend_from_slice(&examples[place(range.start)..place(range.end)]);
    }
    if own.is_empty() {
        return Err(Error::Data {
            what: "batch".to_owned(),
            message: format!(
                "{} examples in {rows} rows cannot be cut into parts like {ranges:?}; use a larger batch",
                examples.len()
            ),
        });
    }
    let sum: f64 = own.iter().map(|&i| f64::from(weights[i])).sum();
    let scale = total(weights) / sum;
    let scaled = |&i: &usize| (f64::from(weights[i]) * scale) as f32;
    Ok(Cut {
        weights: own.iter().map(scaled).collect(),
        places: own,
    })
}

/// What weights add up to.
pub(super) fn total(weights: &[f32]) -> f64 {
    weights.iter().map(|&weight| f64::from(weight)).sum()
}

/// Refuses weights that are no numbers from 0 on.
///
/// # Errors
/// [`Error::Data`], which names the row.
pub(super) fn check_weights(weights: &[f32]) -> Result<()> {
    match weights.iter().position(|w| !w.is_finite() || *w < 0.0) {
        None => Ok(()),
        Some(row) => Err(Error::Data {
            what: "batch".to_owned(),
            message: format!(
                "row {row} has weight {}; give numbers from 0 on",
                weights[row]
            ),
        }),
    }
}
