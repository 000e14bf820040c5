//! The corrections of Adam's moments, where the device counts the steps.

use crate::error::{Error, Result};
use crate::gpu::{Gpu, Slice};
use crate::optim::first_order::AdamOptions;

/// Most steps that a table has: 8 MiB.
const MOST: usize = 1 << 20;

/// `[1 - beta1^n, 1 - beta2^n]` of step `n`, counted from 1.
fn correction(options: &AdamOptions, step: usize) -> [f32; 2] {
    let settings = options.settings(step as i32, 1.0);
    [settings[4], settings[5]]
}

/// The corrections of one step after another, up to the first one of which both are 1 in f32: 17,321 rows of 8 bytes for a decay of 0.999.
///
/// # Errors
/// [`Error::Unsupported`] for decays whose powers take more than 2^20 steps to vanish.
fn rows(options: &AdamOptions) -> Result<Vec<[f32; 2]>> {
    let ends = |row: &[f32; 2]| *row == [1.0; 2];
    if !ends(&correction(options, MOST)) {
        return Err(Error::Unsupported {
            what: format!(
                "recorded steps with Adam's decays {} and {}",
                options.beta1, options.beta2
            ),
            message: format!(
                "the device has a table of corrections, which are not 1 after {MOST} steps; choose decays up to 0.99998"
            ),
        });
    }
    let mut rows = Vec::new();
    for step in 1..=MOST {
        let row = correction(options, step);
        rows.push(row);
        if ends(&row) {
            break;
        }
    }
    Ok(rows)
}

/// The table on the device.
pub(super) fn table(gpu: &Gpu, options: &AdamOptions) -> Result<Slice> {
    let rows = rows(options)?;
    let table = gpu.buffer("corrections of moments", 2 * rows.len())?;
    gpu.upload(&table, 0, rows.as_flattened())?;
    Ok(table)
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[test]
    fn the_table_ends_where_corrections_are_one() {
        let options = AdamOptions::default();
        let rows = rows(&options).unwrap();
        assert_eq!(rows.len(), 17_321);
        let third = [0.9f32, 0.999].map(|beta| (1.0 - f64::from(beta).powi(3)) as f32);
        assert_eq!(rows[2], third);
        assert_eq!(rows.last(), Some(&[1.0; 2]));
        assert!(rows[rows.len() - 2][1] < 1.0);
        for step in [rows.len() + 1, 1 << 24] {
            assert_eq!(correction(&options, step), [1.0; 2]);
        }
    }

    #[test]
    fn decays_that_hardly_fall_are_refused() {
        let slow = AdamOptions::default().with_beta2(0.99999);
        let message = rows(&slow).unwrap_err().to_string();
        assert!(
            message.contains("0.99999") && message.contains("0.99998"),
            "{message}"
        );
        let enough = AdamOptions::default().with_beta1(0.0).with_beta2(0.99998);
        assert!(rows(&enough).unwrap().len() <= MOST);
    }
}
