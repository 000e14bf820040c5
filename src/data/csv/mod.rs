//! Tables of numbers and words from CSV files.
//!
//! [`load`] reads a table of numbers whole. [`Table`] and [`Encoding`] are the same in steps, for tables with words: rows are read as text,
//! split, and become numbers by what the training rows have.
//!
//! ```
//! use osculant::data::{Targets, csv};
//!
//! # let folder = std::env::temp_dir().join(format!("osculant-doc-{}", std::process::id()));
//! # std::fs::create_dir_all(&folder)?;
//! # let path = folder.join("fruit.csv");
//! std::fs::write(&path, "id,colour,weight,kind\n1,red,150,apple\n2,green,160,apple\n3,yellow,120,banana\n4,green,125,banana\n")?;
//! let columns = csv::Columns {
//!     targets: vec!["kind".into()],
//!     ignored: vec!["id".into()],
//!     ..csv::Columns::default()
//! };
//! let rows = csv::Table::read(&path, &columns)?;
//! let encoding = csv::Encoding::fit(&rows)?;
//! let data = encoding.apply(&rows)?;
//! assert_eq!(encoding.inputs(), ["colour=green", "colour=red", "colour=yellow", "weight"]);
//! assert_eq!(data.row(0), Some(&[0.0, 1.0, 0.0, 150.0][..]));
//! assert_eq!(data.targets(), &Targets::Classes { labels: vec![0, 0, 1, 1], classes: 2 });
//! # std::fs::remove_dir_all(folder)?;
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```

mod cell;
mod encoding;
mod table;

pub use encoding::Encoding;
pub use table::{Columns, Table};

use super::Dataset;
use crate::{Error, Result};
use std::path::Path;

/// Reads a table of numbers with a header line; `target_column` is what is to be predicted, every other column is an input.
///
/// Every cell must be a finite number with a point (not a comma) before its decimals: [`Table`] reads tables with words, or with columns
/// that are no inputs. What it says of separators holds here, too.
///
/// The columns keep their own scale; see [`standardise`](super::standardise). It also knows the digits that f32 has no room for
/// ([`Dataset::from_f64`]); where they matter, a warning in the log says so.
///
/// # Errors
/// [`Error::Io`] when the file cannot be read, [`Error::Option`] when it has no such column or several, and
/// [`Error::Data`], which names line and column, when it is not such a table, or when f32 cannot hold the target.
pub fn load(path: &Path, target_column: &str) -> Result<Dataset> {
    let columns = Columns {
        targets: vec![target_column.to_owned()],
        ..Columns::default()
    };
    let table = Table::read(path, &columns).map_err(|error| match error {
        Error::Option { message, .. } => Error::Option {
            option: "target_column".to_owned(),
            message,
        },
        error => error,
    })?;
    let encoding = Encoding::of_numbers(&table);
    let data = encoding.apply(&table)?;
    let names = encoding.inputs();
    for (column, lost) in data.rounded_columns() {
        log::warn!(
            "{}: f32 cannot hold column '{}': rounding moves it by up to {lost:.1e} of its standard deviation, unless \
                `data::standardise` centres it, which has all digits",
            path.display(),
            names[column]
        );
    }
    Ok(data)
}

fn bad(path: &Path, message: String) -> Error {
    Error::Data {
        what: path.display().to_string(),
        message,
    }
}

#[cfg(test)]
mod tests;
