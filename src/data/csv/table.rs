//! The rows of a table as text, and what its columns are for.

use super::super::split::split_rows;
use super::bad;
use crate::{Error, Result};
use csv::{ErrorKind, Position, ReaderBuilder, StringRecord, Trim};
use std::path::{Path, PathBuf};

/// What may stand between the cells, and its name.
const SEPARATORS: [(u8, &str); 3] = [(b',', "commas"), (b';', "semicolons"), (b'\t', "tabs")];
/// Rows from which on a first column 0, 1, 2, ... is remarked on.
const COUNTED: usize = 3;

/// What the columns of a table are for, by their names in the header. Those that are not named are inputs.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Columns {
    /// What is to be predicted: one column, or several of numbers. Without any, the inputs are their own targets.
    pub targets: Vec<String>,
    /// Columns that are not looked at.
    pub ignored: Vec<String>,
    /// Inputs or a target that are categories although they look like numbers, or of which a word that otherwise stands for a missing
    /// value (`NA`, `none`, `?`, ...) is one.
    pub categorical: Vec<String>,
}

impl Columns {
    /// All names, each with the field that it is in.
    fn named(&self) -> impl Iterator<Item = (&'static str, &String)> {
        let fields: [(&'static str, &[String]); 3] = [
            ("targets", &self.targets),
            ("ignored", &self.ignored),
            ("categorical", &self.categorical),
        ];
        fields
            .into_iter()
            .flat_map(|(field, names)| names.iter().map(move |name| (field, name)))
    }
}

/// The rows of a CSV file, as text, with the lines that they are in.
#[derive(Clone, Debug)]
pub struct Table {
    path: PathBuf,
    header: Vec<String>,
    rows: Vec<StringRecord>,
    columns: Columns,
}

impl Table {
    /// Reads a table with a header line.
    ///
    /// The header decides whether commas, semicolons or tabs separate the cells: it is the first of them by which it has all columns that
    /// `columns` names. Cells may stand in quotes, and rows may end with a separator. Inputs without a name, called `Unnamed: 0`, or that
    /// count the rows are inputs like all others, with a warning in the log, since they are what programs write beside their tables.
    ///
    /// # Errors
    /// [`Error::Io`] when the file cannot be read; [`Error::Option`] with the field of `columns` that names a column which is not there,
    /// is there twice, or is named for two purposes; [`Error::Data`], which names the line, when it is not such a table or has no input.
    pub fn read(path: &Path, columns: &Columns) -> Result<Self> {
        let text = read(path)?;
        let (separator, header) = header(path, &text, columns)?;
        check(path, &header, columns, separator)?;
        Self::below(path, &text, separator, header, columns.clone())
    }

    /// Reads a table of more rows, such as those for tests, whose columns are for the same. Ignored ones need not be there.
    ///
    /// # Errors
    /// As [`Table::read`].
    pub fn read_more(&self, path: &Path) -> Result<Self> {
        let mut columns = self.columns.clone();
        let text = read(path)?;
        let (separator, header) = header(path, &text, &columns)?;
        columns.ignored.retain(|name| header.contains(name));
        check(path, &header, &columns, separator)?;
        Self::below(path, &text, separator, header, columns)
    }

    /// The table with the rows below its header.
    fn below(
        path: &Path,
        text: &str,
        separator: u8,
        header: Vec<String>,
        columns: Columns,
    ) -> Result<Self> {
        let mut rows = Vec::new();
        for record in reader(text, separator).into_records() {
            let record = record.map_err(|error| table_error(path, error))?;
            let ends_with_separator =
                record.len() == header.len() + 1 && record.iter().next_back() == Some("");
            if record.len() != header.len() && !ends_with_separator {
                return Err(bad(
                    path,
                    unequal(line(&record), &record, header.len(), separator),
                ));
            }
            rows.push(record);
        }
        if rows.is_empty() {
            return Err(bad(path, "there is no row below the header".to_owned()));
        }
        let table = Self {
            path: path.to_owned(),
            header,
            rows,
            columns,
        };
        table.remark_on_row_numbers();
        Ok(table)
    }

    /// Number of rows, at least one.
    #[must_use]
    #[expect(clippy::len_without_is_empty, reason = "a table is never empty")]
    pub fn len(&self) -> usize {
        self.rows.len()
    }

    /// The names of all columns.
    #[must_use]
    pub fn header(&self) -> &[String] {
        &self.header
    }

    /// The file that it was read from.
    #[must_use]
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// The purposes of the columns.
    #[must_use]
    pub fn columns(&self) -> &Columns {
        &self.columns
    }

    /// Splits the rows at random into (train, test), as [`Dataset::split`](crate::data::Dataset::split) does.
    ///
    /// # Errors
    /// [`Error::Option`] unless both parts get at least one row.
    pub fn split(&self, test_fraction: f64, seed: u64) -> Result<(Self, Self)> {
        let name = self.path.display().to_string();
        let (train, test) = split_rows(self.len(), test_fraction, seed, &name)?;
        let select = |rows: &[usize]| Self {
            rows: rows.iter().map(|&row| self.rows[row].clone()).collect(),
            path: self.path.clone(),
            header: self.header.clone(),
            columns: self.columns.clone(),
        };
        Ok((select(&train), select(&test)))
    }

    /// The cells of a column from top to bottom, each with its line.
    pub(super) fn cells(&self, column: usize) -> impl Iterator<Item = (u64, &str)> {
        self.rows
            .iter()
            .map(move |row| (line(row), row.get(column).unwrap_or_default()))
    }

    /// An error about a cell.
    pub(super) fn bad_cell(&self, column: usize, line: u64, cell: &str, why: &str) -> Error {
        let name = &self.header[column];
        bad(
            &self.path,
            format!("line {line}, column '{name}': '{cell}' {why}"),
        )
    }

    /// Whether a column is one of these.
    pub(super) fn is_in(&self, column: usize, names: &[String]) -> bool {
        names.contains(&self.header[column])
    }

    /// Warns of inputs that look like the numbers of the rows.
    fn remark_on_row_numbers(&self) {
        for column in self.row_numbers() {
            log::warn!(
                "{}: column {column} ('{}') looks like a number of the row; it is an input like the others, so leave it out of the file \
                    or ignore it unless it means something",
                self.path.display(),
                self.header[column],
            );
        }
    }

    /// Inputs without a name, with the one that pandas gives such a column, and a first column that counts from 0 or 1.
    pub(super) fn row_numbers(&self) -> Vec<usize> {
        let counts = |column: usize| {
            let mut numbers = self.cells(column).map(|(_, cell)| cell.parse::<f64>());
            let Some(Ok(start @ (0.0 | 1.0))) = numbers.next() else {
                return false;
            };
            self.len() >= COUNTED
                && numbers
                    .enumerate()
                    .all(|(row, number)| number == Ok(start + 1.0 + row as f64))
        };
        let nameless = |name: &String| name.is_empty() || name.starts_with("Unnamed:");
        let named = [
            &self.columns.targets,
            &self.columns.ignored,
            &self.columns.categorical,
        ];
        (0..self.header.len())
            .filter(|&column| !named.iter().any(|names| self.is_in(column, names)))
            .filter(|&column| nameless(&self.header[column]) || column == 0 && counts(column))
            .collect()
    }
}

fn line(record: &StringRecord) -> u64 {
    record.position().map_or(0, Position::line)
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

/// The separator and the names of the columns: the first separator by which the header has all columns that are named (or the first of
/// them), or else the one that makes most columns of it.
fn header(path: &Path, text: &str, columns: &Columns) -> Result<(u8, Vec<String>)> {
    let mut headers = Vec::new();
    for (separator, _) in SEPARATORS {
        let mut reader = reader(text, separator);
        let names = reader.headers().map_err(|error| table_error(path, error))?;
        let names: Vec<String> = names.iter().map(str::to_owned).collect();
        let known = columns
            .named()
            .filter(|(_, name)| names.contains(name))
            .count();
        headers.push((known, separator, names));
    }
    // The first of equals.
    let chosen = headers
        .into_iter()
        .rev()
        .max_by_key(|(known, _, names)| (*known, names.len()));
    let (_, separator, mut names) = chosen.unwrap_or((0, b',', Vec::new()));
    // A header that ends with a separator has one name too many, as rows that end so have one cell too many.
    if names.len() > 1 && names.last().is_some_and(String::is_empty) {
        names.pop();
    }
    Ok((separator, names))
}

/// Whether every column that is named is there once, and for one purpose.
fn check(path: &Path, header: &[String], columns: &Columns, separator: u8) -> Result<()> {
    let shown = path.display();
    for (option, name) in columns.named() {
        let unusable = |message| {
            Err(Error::Option {
                option: option.to_owned(),
                message,
            })
        };
        let named = |names: &[String]| names.iter().filter(|other| *other == name).count();
        match header.iter().filter(|column| *column == name).count() {
            1 => {}
            0 if header.len() < 2 => {
                return unusable(format!(
                    "{shown} has no column '{name}'; its first line has neither commas nor semicolons nor tabs, which may separate \
                        cells: '{}'",
                    header.join(", ")
                ));
            }
            0 => {
                return unusable(format!(
                    "{shown} has no column '{name}'; its columns, separated by {}, are: {}",
                    name_of(separator),
                    header.join(", ")
                ));
            }
            _ => return unusable(format!("{shown} has more than one column '{name}'")),
        }
        let (targets, ignored) = (named(&columns.targets), named(&columns.ignored));
        let categorical = named(&columns.categorical);
        if ignored > 0 && targets + categorical > 0 {
            return unusable(format!(
                "column '{name}' is ignored, and named for something else as well"
            ));
        }
        if targets > 1 || ignored > 1 || categorical > 1 {
            return unusable(format!("column '{name}' is named twice"));
        }
    }
    let inputs = header
        .iter()
        .filter(|name| !columns.targets.contains(name) && !columns.ignored.contains(name));
    if inputs.count() == 0 {
        let message = match (header, &columns.targets[..]) {
            ([only], [target]) if only == target => {
                format!("'{target}' is the only column; there is no input")
            }
            _ => "every column is a target or ignored; there is no input".to_owned(),
        };
        return Err(bad(path, message));
    }
    Ok(())
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
