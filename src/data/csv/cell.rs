//! What a cell of a table is.

/// What stands for a value that is not there.
const MISSING: [&str; 6] = ["na", "n/a", "null", "none", "?", "-"];

/// A cell, by its text.
pub(super) enum Cell {
    /// A number that f32 holds.
    Number(f64),
    /// Nothing, or what stands for it.
    Missing,
    /// Something like a number that cannot be used, with what is wrong.
    Unusable(&'static str),
    /// Anything else.
    Word,
}

const BEYOND: &str = "is beyond f32, which ends at 3.4e38; divide the column by a power of ten";

impl Cell {
    pub(super) fn of(text: &str) -> Self {
        if text.is_empty() || MISSING.contains(&text.to_lowercase().as_str()) {
            return Self::Missing;
        }
        match text.parse::<f64>() {
            Ok(number) if !number.is_finite() && text.bytes().any(|byte| byte.is_ascii_digit()) => {
                Self::Unusable(BEYOND)
            }
            Ok(number) if !number.is_finite() => Self::Unusable("is not a finite number"),
            Ok(number) if !(number as f32).is_finite() => Self::Unusable(BEYOND),
            Ok(number) => Self::Number(number),
            Err(_) if text.contains(',') && text.replace(',', "").parse::<f64>().is_ok() => {
                Self::Unusable(
                    "has a comma inside; write numbers with a decimal point, and without separators of thousands",
                )
            }
            Err(_) => Self::Word,
        }
    }

    /// The number, or what is wrong with the cell where a number is expected.
    pub(super) fn number(self) -> Result<f64, &'static str> {
        match self {
            Self::Number(number) => Ok(number),
            Self::Missing => Err("is a missing value; fill it in or leave the row out"),
            Self::Unusable(why) => Err(why),
            Self::Word => Err(
                "is not a number; leave the column out, encode it as numbers, or declare it categorical",
            ),
        }
    }
}
