//! Regression data from a CSV file of numbers.

use super::{Dataset, Targets};
use crate::{Error, Result};
use csv::{ErrorKind, ReaderBuilder, StringRecord, Trim};
use std::path::Path;

/// Reads a table with a header line; `target_column` is what is to be predicted, every other column is an input.
///
/// Every cell must be a finite number: drop or encode other columns first.
/// The columns keep their own scale; see [`standardise`](super::standardise).
///
/// # Errors
/// [`Error::Io`] when the file cannot be read, [`Error::Option`] when it has no such column or several, and
/// [`Error::Data`], which names line and column, when it is not such a table.
pub fn load(path: &Path, target_column: &str) -> Result<Dataset> {
    let mut reader = ReaderBuilder::new()
        .trim(Trim::All)
        .from_path(path)
        .map_err(|error| table_error(path, error))?;
    let header = reader
        .headers()
        .map_err(|error| table_error(path, error))?
        .clone();
    let target = find_target(path, &header, target_column)?;

    let (mut features, mut values) = (Vec::new(), Vec::new());
    for record in reader.records() {
        let record = record.map_err(|error| table_error(path, error))?;
        for (column, cell) in record.iter().enumerate() {
            let number = cell.parse::<f32>().ok().filter(|number| number.is_finite());
            let Some(number) = number else {
                let line = record.position().map_or(0, csv::Position::line);
                let name = header.get(column).unwrap_or_default();
                return Err(bad(
                    path,
                    format!("line {line}, column '{name}': '{cell}' is not a finite number"),
                ));
            };
            if column == target {
                values.push(number);
            } else {
                features.push(number);
            }
        }
    }
    let name = path.file_stem().unwrap_or(path.as_os_str());
    Dataset::new(
        name.to_string_lossy(),
        features,
        header.len() - 1,
        Targets::Values { values, width: 1 },
    )
}

fn find_target(path: &Path, header: &StringRecord, target_column: &str) -> Result<usize> {
    let unusable = |message| Error::Option {
        option: "target_column".to_owned(),
        message,
    };
    let mut matching =
        (0..header.len()).filter(|&column| header.get(column) == Some(target_column));
    let Some(target) = matching.next() else {
        let names: Vec<&str> = header.iter().collect();
        let (path, names) = (path.display(), names.join(", "));
        return Err(unusable(format!(
            "{path} has no column '{target_column}'; its columns are: {names}"
        )));
    };
    if matching.next().is_some() {
        let path = path.display();
        return Err(unusable(format!(
            "{path} has more than one column '{target_column}'"
        )));
    }
    if header.len() == 1 {
        return Err(bad(
            path,
            format!("'{target_column}' is the only column; there is no input"),
        ));
    }
    Ok(target)
}

fn table_error(path: &Path, error: csv::Error) -> Error {
    let message = error.to_string();
    match error.into_kind() {
        ErrorKind::Io(source) => Error::Io {
            path: path.display().to_string(),
            source,
        },
        ErrorKind::UnequalLengths {
            pos,
            expected_len,
            len,
        } => {
            let line = pos.map_or(0, |position| position.line());
            bad(
                path,
                format!("line {line} has {len} cells, the header {expected_len}"),
            )
        }
        _ => bad(path, message),
    }
}

fn bad(path: &Path, message: String) -> Error {
    Error::Data {
        what: path.display().to_string(),
        message,
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    fn load_text(text: &str, target: &str) -> Result<Dataset> {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("houses.csv");
        std::fs::write(&path, text).unwrap();
        load(&path, target)
    }

    fn data_error(text: &str) -> String {
        let error = load_text(text, "price").unwrap_err();
        assert!(matches!(error, Error::Data { .. }), "{error}");
        error.to_string()
    }

    #[test]
    fn the_target_column_is_taken_out_of_the_inputs() {
        let data = load_text("rooms, price ,area\n3,1.5,70\n4, -2e1 ,\"80\"\n", "price").unwrap();
        assert_eq!((data.name(), data.width()), ("houses", 2));
        assert_eq!(data.features(), [3.0, 70.0, 4.0, 80.0]);
        let values = vec![1.5, -20.0];
        assert_eq!(data.targets(), &Targets::Values { values, width: 1 });
    }

    #[test]
    fn a_cell_that_is_no_finite_number_is_named() {
        for cell in ["large", "", "NaN", "inf", "1e39"] {
            let text = data_error(&format!("rooms,price\n1,2\n{cell},3\n"));
            assert!(
                text.contains(&format!("line 3, column 'rooms': '{cell}'")),
                "{text}"
            );
        }
    }

    #[test]
    fn a_line_of_another_length_is_named() {
        let text = data_error("rooms,price\n1,2\n1,2,3\n");
        assert!(text.contains("line 3 has 3 cells, the header 2"), "{text}");
    }

    #[test]
    fn an_unknown_or_ambiguous_target_is_refused() {
        let error = load_text("rooms,area\n1,2\n", "price").unwrap_err();
        assert!(matches!(error, Error::Option { .. }), "{error}");
        assert!(error.to_string().contains("rooms, area"), "{error}");
        let error = load_text("price,price\n1,2\n", "price").unwrap_err();
        assert!(matches!(error, Error::Option { .. }), "{error}");
        assert!(matches!(load_text("", "price"), Err(Error::Option { .. })));
    }

    #[test]
    fn a_table_without_rows_or_inputs_is_refused() {
        assert!(data_error("rooms,price\n").contains("no row"));
        assert!(data_error("price\n1\n").contains("only column"));
    }

    #[test]
    fn a_file_that_is_not_text_is_refused() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("houses.csv");
        std::fs::write(&path, b"rooms,price\n1,\xff\n").unwrap();
        assert!(matches!(load(&path, "price"), Err(Error::Data { .. })));
    }

    #[test]
    fn a_missing_file_is_named() {
        let error = load(Path::new("/nowhere/houses.csv"), "price").unwrap_err();
        assert!(matches!(error, Error::Io { .. }), "{error}");
        assert!(error.to_string().contains("/nowhere/houses.csv"), "{error}");
    }
}
