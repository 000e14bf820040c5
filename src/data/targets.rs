//! What the rows of a data set are to be mapped to.

use crate::{Error, Result};

/// The targets of a list of rows.
#[derive(Debug, Clone, PartialEq)]
pub enum Targets {
    /// One class per row.
    Classes {
        /// Class of each row, below `classes`.
        labels: Vec<u32>,
        /// Number of classes.
        classes: usize,
    },
    /// `width` real numbers per row, row after row.
    Values {
        /// The numbers, rows x `width`.
        values: Vec<f32>,
        /// Numbers per row.
        width: usize,
    },
    /// The target is the input itself, as an autoencoder needs; nothing is stored twice.
    Inputs,
}

impl Targets {
    /// Checks that there is one valid target for each of `rows` rows.
    pub(super) fn check(&self, name: &str, rows: usize) -> Result<()> {
        let bad = |message| {
            Err(Error::Data {
                what: name.to_owned(),
                message,
            })
        };
        match self {
            Self::Classes { labels, classes } => {
                if labels.len() != rows {
                    return bad(format!("{rows} rows, but {} labels", labels.len()));
                }
                let outside = |label: &u32| usize::try_from(*label).map_or(true, |l| l >= *classes);
                if let Some(row) = labels.iter().position(outside) {
                    let label = labels[row];
                    return bad(format!(
                        "row {row} has label {label}, but there are {classes} classes, from 0"
                    ));
                }
            }
            Self::Values { values, width } => {
                if *width == 0 || rows.checked_mul(*width) != Some(values.len()) {
                    let length = values.len();
                    return bad(format!(
                        "{rows} rows of {width} target values cannot be made of {length} numbers"
                    ));
                }
                if let Some(index) = values.iter().position(|value| !value.is_finite()) {
                    let (row, column) = (index / width, index % width);
                    return bad(format!(
                        "row {row}, target column {column} is {}",
                        values[index]
                    ));
                }
            }
            Self::Inputs => {}
        }
        Ok(())
    }

    /// The targets of the chosen rows, which the caller has checked to exist.
    pub(super) fn select(&self, rows: &[usize]) -> Self {
        match self {
            Self::Classes { labels, classes } => Self::Classes {
                labels: rows.iter().map(|&row| labels[row]).collect(),
                classes: *classes,
            },
            Self::Values { values, width } => Self::Values {
                values: select_rows(values, *width, rows),
                width: *width,
            },
            Self::Inputs => Self::Inputs,
        }
    }

    /// Lengthens the targets to `rows` rows with label 0 or zeros.
    pub(super) fn pad_to(&mut self, rows: usize) {
        match self {
            Self::Classes { labels, .. } => labels.resize(rows, 0),
            Self::Values { values, width } => values.resize(rows * *width, 0.0),
            Self::Inputs => {}
        }
    }
}

/// The chosen rows of a row-major matrix, one after the other.
pub(super) fn select_rows(values: &[f32], width: usize, rows: &[usize]) -> Vec<f32> {
    let mut selected = Vec::with_capacity(rows.len() * width);
    for &row in rows {
        selected.extend_from_slice(&values[row * width..(row + 1) * width]);
    }
    selected
}
