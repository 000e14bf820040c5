//! Regression data from a CSV file of numbers.

use super::{Dataset, Targets, rounding};
use crate::{Error, Result};
use csv::{ErrorKind, Position, ReaderBuilder, StringRecord, Trim};
use std::path::Path;

/// What may stand between the cells, and its name.
const SEPARATORS: [(u8, &str); 3] = [(b',', "commas"), (b';', "semicolons"), (b'\t', "tabs")];
/// Rows from which on a first column 0, 1, 2, ... is remarked on.
const COUNTED: usize = 3;

/// Reads a table with a header line; `target_column` is what is to be predicted, every other column is an input.
///
/// The header decides whether commas, semicolons or tabs separate the cells: it is the first of them by which it has the target column.
/// Cells may stand in quotes, and rows may end with a separator. Every cell must be a finite number with a point (not a comma) before its
/// decimals: drop or encode other columns first. Columns without a name, called `Unnamed: 0`, or that count the rows are inputs like all
/// others, with a warning in the log, since they are what programs write beside their tables.
///
/// The columns keep their own scale; see [`standardise`](super::standardise). It also knows the digits that f32 has no room for
/// ([`Dataset::from_f64`]); where they matter, a warning in the log says so.
///
/// # Errors
/// [`Error::Io`] when the file cannot be read, [`Error::Option`] when it has no such column or several, and
/// [`Error::Data`], which names line and column, when it is not such a table, or when f32 cannot hold the target.
pub fn load(path: &Path, target_column: &str) -> Result<Dataset> {
    let text = read(path)?;
    let (separator, mut header) = header(path, &text, target_column)?;
    // A header that ends with a separator has one name too many, as rows that end so have one cell too many.
    if header.len() > 1 && header.last().is_some_and(String::is_empty) {
        header.pop();
    }
    let target = find_target(path, &header, target_column, separator)?;

    let mut values = Vec::new();
    for record in reader(&text, separator).into_records() {
        let record = record.map_err(|error| table_error(path, error))?;
        let line = record.position().map_or(0, Position::line);
        let ends_with_separator =
            record.len() == header.len() + 1 && record.iter().next_back() == Some("");
        if record.len() != header.len() && !ends_with_separator {
            return Err(bad(path, unequal(line, &record, header.len(), separator)));
        }
        for (name, cell) in header.iter().zip(&record) {
            let number = number(cell).map_err(|why| {
                bad(
                    path,
                    format!("line {line}, column '{name}': '{cell}' {why}"),
                )
            })?;
            values.push(number);
        }
    }
    remark_on_row_numbers(path, &header, target, &values);
    check_digits(path, &header, target, &values)?;

    let width = header.len();
    let of_target = |index: &usize| index % width == target;
    let (targets, inputs): (Vec<usize>, Vec<usize>) = (0..values.len()).partition(of_target);
    let features: Vec<f64> = inputs.into_iter().map(|index| values[index]).collect();
    let values = targets
        .into_iter()
        .map(|index| values[index] as f32)
        .collect();
    let name = path.file_stem().unwrap_or(path.as_os_str());
    Dataset::from_f64(
        name.to_string_lossy(),
        &features,
        width - 1,
        Targets::Values { values, width: 1 },
    )
}

/// The text of the file, without a byte order mark.
fn read(path: &Path) -> Result<String> {
    let bytes = std::fs::read(path).map_err(|source| Error::Io {
        path: path.display().to_string(),
        source,
    })?;
    if bytes.starts_with(&[0xff, 0xfe]) || bytes.starts_with(&[0xfe, 0xff]) {
        return Err(bad(path, "the text is UTF-16; save it as UTF-8".to_owned()));
    }
    if bytes.starts_with(&[0x1f, 0x8b]) {
        return Err(bad(
            path,
            "the file is compressed with gzip; unpack it first".to_owned(),
        ));
    }
    let text = String::from_utf8(bytes).map_err(|error| {
        let valid = error.utf8_error().valid_up_to();
        let line = error.as_bytes()[..valid]
            .iter()
            .filter(|&&byte| byte == b'\n')
            .count()
            + 1;
        bad(path, format!("line {line} is not UTF-8 text"))
    })?;
    Ok(match text.strip_prefix('\u{feff}') {
        Some(rest) => rest.to_owned(),
        None => text,
    })
}

fn reader(text: &str, separator: u8) -> csv::Reader<&[u8]> {
    ReaderBuilder::new()
        .delimiter(separator)
        .flexible(true)
        .trim(Trim::All)
        .from_reader(text.as_bytes())
}

/// The separator and the names of the columns: the first separator by which the header has the target column, or else the one that makes
/// most columns of it.
fn header(path: &Path, text: &str, target_column: &str) -> Result<(u8, Vec<String>)> {
    let mut headers = Vec::new();
    for (separator, _) in SEPARATORS {
        let mut reader = reader(text, separator);
        let names = reader.headers().map_err(|error| table_error(path, error))?;
        headers.push((
            separator,
            names.iter().map(str::to_owned).collect::<Vec<_>>(),
        ));
    }
    let names_target =
        |(_, names): &&(u8, Vec<String>)| names.iter().any(|name| name == target_column);
    let chosen = headers.iter().find(names_target).or_else(|| {
        // The first of equals.
        headers.iter().rev().max_by_key(|(_, names)| names.len())
    });
    Ok(chosen.cloned().unwrap_or((b',', Vec::new())))
}

fn find_target(
    path: &Path,
    header: &[String],
    target_column: &str,
    separator: u8,
) -> Result<usize> {
    let unusable = |message| Error::Option {
        option: "target_column".to_owned(),
        message,
    };
    let mut matching = (0..header.len()).filter(|&column| header[column] == target_column);
    let (shown, names) = (path.display(), header.join(", "));
    let Some(target) = matching.next() else {
        return Err(unusable(if header.len() < 2 {
            format!(
                "{shown} has no column '{target_column}'; its first line has neither commas nor semicolons nor tabs, which may separate \
                    cells: '{names}'"
            )
        } else {
            format!(
                "{shown} has no column '{target_column}'; its columns, separated by {}, are: {names}",
                name_of(separator)
            )
        }));
    };
    if matching.next().is_some() {
        return Err(unusable(format!(
            "{shown} has more than one column '{target_column}'"
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

fn name_of(separator: u8) -> &'static str {
    let named = SEPARATORS.iter().find(|(byte, _)| *byte == separator);
    named.map_or("separators", |(_, name)| name)
}

fn unequal(line: u64, record: &StringRecord, expected: usize, separator: u8) -> String {
    let mut text = format!(
        "line {line} has {} cells, the header {expected}; {} separate them",
        record.len(),
        name_of(separator)
    );
    if separator == b',' && record.len() > expected {
        text += " (are some of them decimal commas? Write numbers with a point)";
    }
    text
}

/// The number in a cell, or what is wrong with it.
fn number(cell: &str) -> std::result::Result<f64, &'static str> {
    const MISSING: [&str; 6] = ["na", "n/a", "null", "none", "?", "-"];
    if cell.is_empty() || MISSING.contains(&cell.to_lowercase().as_str()) {
        return Err("is a missing value; fill it in or leave the row out");
    }
    match cell.parse::<f64>() {
        Ok(number) if !number.is_finite() && cell.bytes().any(|byte| byte.is_ascii_digit()) => {
            Err("is beyond f32, which ends at 3.4e38; divide the column by a power of ten")
        }
        Ok(number) if !number.is_finite() => Err("is not a finite number"),
        Ok(number) if !(number as f32).is_finite() => {
            Err("is beyond f32, which ends at 3.4e38; divide the column by a power of ten")
        }
        Ok(number) => Ok(number),
        Err(_) if cell.contains(',') && cell.replace(',', "").parse::<f64>().is_ok() => Err(
            "has a comma inside; write numbers with a decimal point, and without separators of thousands",
        ),
        Err(_) => Err("is not a number; leave the column out or encode it as numbers"),
    }
}

/// Warns of columns that look like the numbers of the rows.
fn remark_on_row_numbers(path: &Path, header: &[String], target: usize, values: &[f64]) {
    for column in row_numbers(header, values) {
        if column != target {
            log::warn!(
                "{}: column {column} ('{}') looks like a number of the row; it is an input like the others, so leave it out of the file \
                    unless it means something",
                path.display(),
                header[column],
            );
        }
    }
}

/// Columns without a name, with the one that pandas gives such a column, and a first one that counts from 0 or 1.
fn row_numbers(header: &[String], values: &[f64]) -> Vec<usize> {
    let width = header.len();
    let counts = || {
        let first = values.iter().step_by(width);
        let start = values.first().copied().unwrap_or(f64::NAN);
        values.len() / width >= COUNTED
            && (start == 0.0 || start == 1.0)
            && first
                .enumerate()
                .all(|(row, &value)| value == start + row as f64)
    };
    let nameless = |name: &String| name.is_empty() || name.starts_with("Unnamed:");
    (0..width)
        .filter(|&column| nameless(&header[column]) || column == 0 && counts())
        .collect()
}

/// Refuses a target that f32 does not hold, and warns of such inputs.
fn check_digits(path: &Path, header: &[String], target: usize, values: &[f64]) -> Result<()> {
    if values.is_empty() {
        return Ok(());
    }
    let lost = rounding::lost(values, header.len(), |index| {
        f64::from(values[index] as f32)
    });
    for (column, lost) in lost.into_iter().enumerate() {
        let name = &header[column];
        if lost > rounding::TOLERATED && column == target {
            return Err(bad(
                path,
                format!(
                    "f32 cannot hold the target '{name}': rounding moves it by up to {lost:.1e} of its standard deviation; subtract a \
                        constant from the column, or scale it"
                ),
            ));
        }
        if lost > rounding::TOLERATED {
            log::warn!(
                "{}: f32 cannot hold column '{name}': rounding moves it by up to {lost:.1e} of its standard deviation, unless \
                    `data::standardise` centres it, which has all digits",
                path.display()
            );
        }
    }
    Ok(())
}

fn table_error(path: &Path, error: csv::Error) -> Error {
    let message = error.to_string();
    match error.into_kind() {
        ErrorKind::Io(source) => Error::Io {
            path: path.display().to_string(),
            source,
        },
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
        let text = data_error("rooms,area,price\n1,2,3\n1,2\n");
        assert!(text.contains("line 3 has 2 cells, the header 3"), "{text}");
    }

    fn two_rows(text: &str) {
        let data = load_text(text, "price").unwrap();
        assert_eq!(
            (data.width(), data.features()),
            (1, &[3.0, 5.0][..]),
            "{text}"
        );
        let values = vec![2.5, 4.0];
        assert_eq!(data.targets(), &Targets::Values { values, width: 1 });
    }

    #[test]
    fn the_header_says_what_separates_the_cells() {
        two_rows("rooms,price\n3,2.5\n5,4\n");
        two_rows("rooms;price\n3;2.5\n5;4\n");
        two_rows("rooms\tprice\r\n3\t2.5\r\n5\t4\r\n");
        two_rows("\u{feff}\"price\",\"rooms\"\n\"2.5\",3\n4,5");
        two_rows("\"rooms, bath\";price\n3;2.5\n5;4\n");
        let error = load_text("rooms;area\n1;2\n", "price")
            .unwrap_err()
            .to_string();
        assert!(
            error.contains("semicolons") && error.contains("rooms, area"),
            "{error}"
        );
        let error = load_text("rooms area\n1 2\n", "price")
            .unwrap_err()
            .to_string();
        assert!(
            error.contains("neither commas nor semicolons nor tabs"),
            "{error}"
        );
    }

    #[test]
    fn rows_and_headers_may_end_with_a_separator() {
        two_rows("rooms,price\n3,2.5,\n5,4,\n");
        two_rows("rooms;price;\n3;2.5;\n5;4\n");
        let text = data_error("rooms,price,\n3,2.5,9\n");
        assert!(text.contains("line 2 has 3 cells"), "{text}");
    }

    #[test]
    fn a_decimal_comma_is_named() {
        let text = data_error("rooms;price\n1,5;2\n");
        assert!(
            text.contains("line 2, column 'rooms': '1,5'") && text.contains("decimal point"),
            "{text}"
        );
        let text = data_error("rooms,price\n1,5,2\n");
        assert!(
            text.contains("line 2 has 3 cells") && text.contains("decimal commas"),
            "{text}"
        );
    }

    #[test]
    fn missing_and_enormous_numbers_are_told_from_words() {
        let reason = |cell: &str, reason: &str| {
            let text = data_error(&format!("rooms,price\n1,2\n3,{cell}\n"));
            assert!(
                text.contains("line 3, column 'price'") && text.contains(reason),
                "{text}"
            );
        };
        for cell in ["", " ", "NA", "null", "?"] {
            reason(cell, "missing");
        }
        for cell in ["1e39", "-4e38", "1e999"] {
            reason(cell, "beyond f32");
        }
        reason("NaN", "not a finite number");
        reason("-inf", "not a finite number");
        reason("red", "not a number");
    }

    #[test]
    fn columns_that_number_the_rows_are_noticed() {
        let noticed = |header: &[&str], values: &[f64]| {
            row_numbers(
                &header
                    .iter()
                    .map(|&name| name.to_owned())
                    .collect::<Vec<_>>(),
                values,
            )
        };
        assert_eq!(noticed(&["", "price"], &[7.0, 2.0]), [0]);
        assert_eq!(noticed(&["price", "Unnamed: 0"], &[7.0, 2.0]), [1]);
        assert_eq!(
            noticed(&["id", "price"], &[1.0, 2.0, 2.0, 2.0, 3.0, 2.0]),
            [0]
        );
        assert!(noticed(&["rooms", "price"], &[1.0, 2.0, 2.0, 2.0, 4.0, 2.0]).is_empty());
        // They stay inputs.
        assert_eq!(load_text(",price\n7,1\n8,2\n", "price").unwrap().width(), 1);
    }

    /// f32 knows 1.7e9 to 128 seconds.
    #[test]
    fn seconds_are_centred_before_they_are_rounded() {
        let rows: Vec<String> = (0..4)
            .map(|row| format!("{},{row}", 1_700_000_000 + 60 * row))
            .collect();
        let text = format!("time,price\n{}\n", rows.join("\n"));
        let mut train = load_text(&text, "price").unwrap();
        let mut test = train.clone();
        crate::data::standardise(&mut train, &mut test).unwrap();
        for (row, &found) in train.features().iter().enumerate() {
            let expected = (row as f64 - 1.5) / 1.25f64.sqrt();
            assert!(
                (f64::from(found) - expected).abs() < 1e-6,
                "{found} {expected}"
            );
        }
        let error = load_text(&text, "time").unwrap_err();
        assert!(
            matches!(error, Error::Data { .. }) && error.to_string().contains("f32"),
            "{error}"
        );
    }

    #[test]
    fn other_encodings_are_named() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("houses.csv");
        for (bytes, word) in [
            (&b"\xff\xfep\0r\0"[..], "UTF-16"),
            (b"\x1f\x8b\x08\0", "gzip"),
            (b"rooms,price\n1,\xff\n", "line 2"),
        ] {
            std::fs::write(&path, bytes).unwrap();
            let error = load(&path, "price").unwrap_err();
            assert!(
                matches!(error, Error::Data { .. }) && error.to_string().contains(word),
                "{error}"
            );
        }
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
    fn a_missing_file_is_named() {
        let error = load(Path::new("/nowhere/houses.csv"), "price").unwrap_err();
        assert!(matches!(error, Error::Io { .. }), "{error}");
        assert!(error.to_string().contains("/nowhere/houses.csv"), "{error}");
    }
}
