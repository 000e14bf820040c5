//! How the cells of a table become numbers, by what the training rows have.

use super::super::rounding;
use super::cell::Cell;
use super::{Table, bad};
use crate::data::{Dataset, Targets};
use crate::{Error, Result};
use std::cmp::Ordering;

/// A column that is an input or a target.
#[derive(Clone, Debug, PartialEq)]
struct Column {
    name: String,
    is_target: bool,
    /// The categories in order; none for numbers.
    categories: Option<Vec<String>>,
}

/// How the cells of a table become numbers, fitted on its training rows, to be applied to these and to others.
///
/// A column is of categories where it is declared so ([`Columns::categorical`](super::Columns::categorical)), or where no cell of the
/// training rows is a number; any other is of numbers, and a word in it an error. Categories are those of the training rows, in the order of
/// their numbers where all are numbers, and else of their letters (by Unicode, so capitals come first). An input of categories becomes one
/// input for each, 1 where the row has it and 0 elsewhere, in the place of the column; a target of categories becomes classes.
///
/// Missing values are errors. In a declared column only an empty cell is one.
#[derive(Clone, Debug, PartialEq)]
pub struct Encoding {
    columns: Vec<Column>,
}

impl Encoding {
    /// Looks at the training rows.
    ///
    /// # Errors
    /// [`Error::Data`], which names line and column, for a missing value among words, and where a target has one category only;
    /// [`Error::Option`] where one of several targets has categories.
    pub fn fit(train: &Table) -> Result<Self> {
        let mut encoding = Self::of_numbers(train);
        let several = train.columns().targets.len() > 1;
        for column in &mut encoding.columns {
            let index = place(train, &column.name)?;
            column.categories = categories(train, index)?;
            let Some(categories) = column.categories.as_ref().filter(|_| column.is_target) else {
                continue;
            };
            let name = &column.name;
            if several {
                return Err(Error::Option {
                    option: "targets".to_owned(),
                    message: format!(
                        "'{name}' is a column of categories, which is a target alone or not at all; several targets are numbers"
                    ),
                });
            }
            if let [only] = &categories[..] {
                return Err(bad(
                    train.path(),
                    format!(
                        "all {} training rows have '{only}' in the target '{name}'; there is nothing to tell apart",
                        train.len()
                    ),
                ));
            }
        }
        Ok(encoding)
    }

    /// Every column a number.
    pub(super) fn of_numbers(table: &Table) -> Self {
        let used = (0..table.header().len())
            .filter(|&index| !table.is_in(index, &table.columns().ignored));
        let mut columns: Vec<Column> = used
            .map(|index| Column {
                name: table.header()[index].clone(),
                is_target: table.is_in(index, &table.columns().targets),
                categories: None,
            })
            .collect();
        // Targets in the order in which they were named.
        let order = |column: &Column| {
            table
                .columns()
                .targets
                .iter()
                .position(|name| *name == column.name)
        };
        columns.sort_by_key(order);
        Self { columns }
    }

    /// The categories of a column, in order; none where it is of numbers or not used.
    #[must_use]
    pub fn categories(&self, column: &str) -> Option<&[String]> {
        let found = self.columns.iter().find(|known| known.name == column)?;
        found.categories.as_deref()
    }

    /// The names of the inputs: of a column, or `COLUMN=CATEGORY`.
    #[must_use]
    pub fn inputs(&self) -> Vec<String> {
        let inputs = self.columns.iter().filter(|column| !column.is_target);
        inputs
            .flat_map(
                |Column {
                     name, categories, ..
                 }| match categories {
                    None => vec![name.clone()],
                    Some(categories) => categories
                        .iter()
                        .map(|category| format!("{name}={category}"))
                        .collect(),
                },
            )
            .collect()
    }

    /// The rows of a table as numbers. Columns are found by their names, so another file may have them in another order, and more of them.
    ///
    /// # Errors
    /// [`Error::Data`], which names line and column, for a missing value, a cell that is no number where numbers are expected, a category
    /// that no training row has, and a target that f32 cannot hold; [`Error::Data`] when a column is missing.
    pub fn apply(&self, table: &Table) -> Result<Dataset> {
        let rows = table.len();
        let (targets, inputs): (Vec<&Column>, Vec<&Column>) =
            self.columns.iter().partition(|column| column.is_target);
        let width = self.inputs().len();
        let mut features = vec![0.0; rows * width];
        let mut at = 0;
        for (index, column) in self.places(table, &inputs)? {
            let Some(categories) = &column.categories else {
                for (row, (line, cell)) in table.cells(index).enumerate() {
                    features[row * width + at] = number(table, index, line, cell)?;
                }
                at += 1;
                continue;
            };
            for (row, (line, cell)) in table.cells(index).enumerate() {
                features[row * width + at + category(table, index, line, cell, categories)?] = 1.0;
            }
            at += categories.len();
        }
        let targets = self.targets(table, &targets)?;
        let name = table.path().file_stem().unwrap_or(table.path().as_os_str());
        Dataset::from_f64(name.to_string_lossy(), &features, width, targets)
    }

    fn targets(&self, table: &Table, columns: &[&Column]) -> Result<Targets> {
        let (rows, width) = (table.len(), columns.len());
        let mut values = vec![0.0; rows * width];
        for (at, (index, column)) in self.places(table, columns)?.into_iter().enumerate() {
            if let Some(categories) = &column.categories {
                let labels = table
                    .cells(index)
                    .map(|(line, cell)| Ok(category(table, index, line, cell, categories)? as u32));
                return Ok(Targets::Classes {
                    labels: labels.collect::<Result<_>>()?,
                    classes: categories.len(),
                });
            }
            for (row, (line, cell)) in table.cells(index).enumerate() {
                values[row * width + at] = number(table, index, line, cell)?;
            }
        }
        if columns.is_empty() {
            return Ok(Targets::Inputs);
        }
        let lost = rounding::lost(&values, width, |index| f64::from(values[index] as f32));
        if let Some(at) = lost.iter().position(|&lost| lost > rounding::TOLERATED) {
            return Err(bad(
                table.path(),
                format!(
                    "f32 cannot hold the target '{}': rounding moves it by up to {:.1e} of its standard deviation; subtract a \
                        constant from the column, or scale it",
                    columns[at].name, lost[at]
                ),
            ));
        }
        Ok(Targets::Values {
            values: values.into_iter().map(|value| value as f32).collect(),
            width,
        })
    }

    /// The columns with their places in a table. Where the header is that of the training rows columns may share a name.
    fn places<'a>(
        &self,
        table: &Table,
        columns: &[&'a Column],
    ) -> Result<Vec<(usize, &'a Column)>> {
        let mut seen: Vec<usize> = Vec::new();
        columns
            .iter()
            .map(|&column| {
                let unseen = (0..table.header().len())
                    .find(|index| table.header()[*index] == column.name && !seen.contains(index));
                let index = unseen.map_or_else(|| place(table, &column.name), Ok)?;
                seen.push(index);
                Ok((index, column))
            })
            .collect()
    }
}

fn place(table: &Table, name: &str) -> Result<usize> {
    table.header().iter().position(|known| known == name).ok_or_else(|| {
        let names = table.header().join(", ");
        bad(table.path(), format!("there is no column '{name}', which the training rows have; its columns are: {names}"))
    })
}

/// The categories of a column in order, or none where it is of numbers.
fn categories(train: &Table, index: usize) -> Result<Option<Vec<String>>> {
    let declared = train.is_in(index, &train.columns().categorical);
    let kinds = || train.cells(index).map(|(_, cell)| Cell::of(cell));
    let words = kinds().any(|cell| matches!(cell, Cell::Word))
        && kinds().all(|cell| matches!(cell, Cell::Word | Cell::Missing));
    if !declared && !words {
        return Ok(None);
    }
    let mut found: Vec<String> = Vec::new();
    for (line, cell) in train.cells(index) {
        if cell.is_empty() || !declared && matches!(Cell::of(cell), Cell::Missing) {
            return Err(missing(train, index, line, cell));
        }
        found.push(cell.to_owned());
    }
    let number = |text: &String| text.parse::<f64>().ok().filter(|number| number.is_finite());
    let all_numbers = found.iter().all(|text| number(text).is_some());
    found.sort_by(|a, b| {
        let by_number = number(a).partial_cmp(&number(b)).filter(|_| all_numbers);
        by_number.unwrap_or(Ordering::Equal).then_with(|| a.cmp(b))
    });
    found.dedup();
    Ok(Some(found))
}

fn missing(table: &Table, index: usize, line: u64, cell: &str) -> Error {
    let why = if cell.is_empty() {
        "is a missing value; fill it in or leave the row out"
    } else {
        "is a missing value; fill it in or leave the row out, or declare the column categorical if it is a category"
    };
    table.bad_cell(index, line, cell, why)
}

fn number(table: &Table, index: usize, line: u64, cell: &str) -> Result<f64> {
    Cell::of(cell)
        .number()
        .map_err(|why| table.bad_cell(index, line, cell, why))
}

/// The place of a cell among the categories.
fn category(
    table: &Table,
    index: usize,
    line: u64,
    cell: &str,
    categories: &[String],
) -> Result<usize> {
    categories.iter().position(|known| known == cell).ok_or_else(|| {
        if matches!(Cell::of(cell), Cell::Missing) {
            return missing(table, index, line, cell);
        }
        table.bad_cell(
            index,
            line,
            cell,
            "is in no training row, so nothing can be learned about it; leave the row out, have such rows among those that are trained on, \
                or ignore the column if it only names rows",
        )
    })
}
