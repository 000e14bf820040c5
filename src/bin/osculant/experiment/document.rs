//! A TOML file with the places of its keys and values, for messages that say where.

use std::ops::Range;
use std::path::{Path, PathBuf};

use toml::Spanned;
use toml::de::{DeTable, DeValue};

use super::nearest::nearest;
use crate::failure::{Failure, Outcome};

/// The text of a file.
#[derive(Clone, Debug)]
pub(crate) struct Document {
    path: PathBuf,
    text: String,
}

/// A key that a table may have.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Key {
    /// Its name.
    pub(crate) name: &'static str,
    /// What its value is, with an article.
    pub(crate) form: &'static str,
    /// A value of that form, as it is written.
    pub(crate) example: &'static str,
}

/// A value with its place in the text.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Found<T> {
    pub(crate) value: T,
    pub(crate) span: Range<usize>,
}

impl Document {
    pub(crate) fn read(path: &Path) -> Outcome<Self> {
        let text = std::fs::read_to_string(path).map_err(|error| {
            let failure = Failure::file(path, &error);
            match error.kind() {
                std::io::ErrorKind::NotFound => failure.hint(format!(
                    "osculant init {} writes one to begin with",
                    path.display()
                )),
                std::io::ErrorKind::InvalidData => {
                    failure.hint("TOML files are UTF-8 text: save it so")
                }
                _ => failure,
            }
        })?;
        Ok(Self {
            path: path.to_owned(),
            text,
        })
    }

    #[cfg(test)]
    pub(crate) fn of(text: &str) -> Self {
        Self {
            path: PathBuf::from("net.toml"),
            text: text.to_owned(),
        }
    }

    pub(crate) fn path(&self) -> &Path {
        &self.path
    }

    /// A path of the file, which is relative to it.
    pub(crate) fn beside(&self, path: &str) -> PathBuf {
        self.path.parent().unwrap_or(Path::new("")).join(path)
    }

    /// The table of the whole file.
    pub(crate) fn table(&self) -> Outcome<DeTable<'_>> {
        let parsed = DeTable::parse(&self.text).map_err(|error| {
            let span = error.span().unwrap_or_default();
            let failure = self.failure(&span, error.message());
            failure.hint("TOML has lines KEY = VALUE below [TABLES]; texts stand in double quotes, lists in [ ]")
        })?;
        Ok(parsed.into_inner())
    }

    /// The line of a place, counted from 1.
    fn line(&self, at: usize) -> usize {
        self.text.as_bytes()[..at.min(self.text.len())]
            .iter()
            .filter(|&&byte| byte == b'\n')
            .count()
            + 1
    }

    /// A failure about a place in the file.
    pub(crate) fn failure(&self, span: &Range<usize>, message: impl std::fmt::Display) -> Failure {
        let start = span.start.min(self.text.len());
        let before = self.text.get(..start).unwrap_or_default();
        let column = before
            .rsplit('\n')
            .next()
            .unwrap_or_default()
            .chars()
            .count()
            + 1;
        Failure::new(format!(
            "{}, line {}, column {column}: {message}",
            self.path.display(),
            self.line(start)
        ))
    }

    /// A failure about the whole file.
    pub(crate) fn incomplete(&self, message: impl std::fmt::Display) -> Failure {
        Failure::new(format!("{}: {message}", self.path.display()))
    }
}

/// A table of the file, of which all keys are known.
#[derive(Clone, Copy)]
pub(crate) struct Section<'a> {
    pub(crate) document: &'a Document,
    /// Its name; empty for the whole file.
    name: &'a str,
    table: Option<&'a DeTable<'a>>,
    keys: &'a [Key],
}

/// What a value is, in words.
fn kind(value: &DeValue<'_>) -> &'static str {
    match value {
        DeValue::String(_) => "a text",
        DeValue::Integer(_) | DeValue::Float(_) => "a number",
        DeValue::Boolean(_) => "true or false",
        DeValue::Datetime(_) => "a date",
        DeValue::Array(_) => "a list",
        DeValue::Table(_) => "a table",
    }
}

impl<'a> Section<'a> {
    /// The table of this name; an empty one where the file has none.
    ///
    /// Keys that are not known are refused first, so that a mistyped one is not reported as missing.
    pub(crate) fn open(
        document: &'a Document,
        root: &'a DeTable<'a>,
        name: &'a str,
        keys: &'a [Key],
    ) -> Outcome<Self> {
        let table = table(document, root, name)?;
        let section = Self {
            document,
            name,
            table,
            keys,
        };
        let known = || keys.iter().map(|key| key.name);
        for key in table.iter().flat_map(|table| table.keys()) {
            if !known().any(|name| name == &**key.get_ref()) {
                return Err(section.unknown(key, known().collect()));
            }
        }
        Ok(section)
    }

    /// The table of this name, whatever its keys are.
    pub(crate) fn tables(
        document: &'a Document,
        root: &'a DeTable<'a>,
        name: &'a str,
    ) -> Outcome<Self> {
        let table = table(document, root, name)?;
        Ok(Self {
            document,
            name,
            table,
            keys: &[],
        })
    }

    /// The failure of a key that is not known.
    pub(crate) fn unknown(&self, key: &Spanned<impl AsRef<str>>, known: Vec<&str>) -> Failure {
        let wrong = key.get_ref().as_ref();
        unknown(
            self.document,
            &key.span(),
            &format!("[{}] has no key '{wrong}'", self.name),
            wrong,
            &known,
        )
    }

    /// The keys and values of a table of whatever keys.
    pub(crate) fn entries(
        &self,
    ) -> impl Iterator<Item = (&'a str, &'a Spanned<DeValue<'a>>, Range<usize>)> {
        let entries = self.table.into_iter().flat_map(|table| table.iter());
        entries.map(|(key, value)| (&**key.get_ref(), value, key.span()))
    }

    fn get(&self, name: &str) -> Option<&'a Spanned<DeValue<'a>>> {
        self.table?.get(name)
    }

    pub(crate) fn has(&self, name: &str) -> bool {
        self.get(name).is_some()
    }

    /// The keys that are there.
    pub(crate) fn present(&self) -> Vec<&'a str> {
        self.entries().map(|(key, ..)| key).collect()
    }

    /// Where a key's value is, or else the start of the file.
    pub(crate) fn span(&self, name: &str) -> Range<usize> {
        self.get(name).map_or(0..0, Spanned::span)
    }

    /// A failure about the value of a key.
    pub(crate) fn bad(&self, name: &str, message: impl std::fmt::Display) -> Failure {
        self.document.failure(
            &self.span(name),
            format!("{name} in [{}] {message}", self.name),
        )
    }

    /// A key that must be there.
    pub(crate) fn missing(&self, name: &str, why: &str) -> Failure {
        let key = self.key(name);
        let example = key.map_or("...", |key| key.example);
        self.document
            .incomplete(format!("[{}] has no {name}; {why}", self.name))
            .hint(format!("write below [{}]: {name} = {example}", self.name))
    }

    fn key(&self, name: &str) -> Option<&Key> {
        self.keys.iter().find(|key| key.name == name)
    }

    /// The value of a key, if `take` can use it; `None` if there is none.
    fn value<T>(
        &self,
        name: &str,
        take: impl FnOnce(&'a DeValue<'a>) -> Option<T>,
    ) -> Outcome<Option<Found<T>>> {
        let Some(found) = self.get(name) else {
            return Ok(None);
        };
        match take(found.get_ref()) {
            Some(value) => Ok(Some(Found {
                value,
                span: found.span(),
            })),
            None => Err(self.unusable(name, found)),
        }
    }

    fn unusable(&self, name: &str, found: &Spanned<DeValue<'_>>) -> Failure {
        let written = self
            .document
            .text
            .get(found.span())
            .unwrap_or_default()
            .trim();
        let shown = if written.contains('\n') || written.len() > 40 {
            kind(found.get_ref()).to_owned()
        } else {
            written.to_owned()
        };
        let Some(key) = self.key(name) else {
            return self.bad(name, format!("is {shown}"));
        };
        self.bad(name, format!("is {shown}, which is not {}", key.form))
            .hint(format!("for example {name} = {}", key.example))
    }

    pub(crate) fn text(&self, name: &str) -> Outcome<Option<Found<String>>> {
        self.value(name, |value| value.as_str().map(str::to_owned))
    }

    /// A text, or a list of texts.
    pub(crate) fn texts(&self, name: &str) -> Outcome<Option<Found<Vec<String>>>> {
        self.value(name, |value| match value {
            DeValue::String(text) => Some(vec![text.to_string()]),
            DeValue::Array(list) => list
                .iter()
                .map(|item| item.get_ref().as_str().map(str::to_owned))
                .collect(),
            _ => None,
        })
    }

    pub(crate) fn flag(&self, name: &str) -> Outcome<Option<bool>> {
        Ok(self.value(name, DeValue::as_bool)?.map(|found| found.value))
    }

    /// A number for which `valid` holds.
    pub(crate) fn number(&self, name: &str, valid: impl Fn(f64) -> bool) -> Outcome<Option<f64>> {
        let found = self.value(name, |value| {
            let number = match value {
                DeValue::Integer(_) => whole(value)? as f64,
                DeValue::Float(float) => float.as_str().parse().ok()?,
                _ => return None,
            };
            valid(number).then_some(number)
        })?;
        Ok(found.map(|found| found.value))
    }

    /// A whole number in a range.
    pub(crate) fn whole(
        &self,
        name: &str,
        range: std::ops::RangeInclusive<u64>,
    ) -> Outcome<Option<u64>> {
        let found = self.value(name, |value| {
            whole(value).filter(|number| range.contains(number))
        })?;
        Ok(found.map(|found| found.value))
    }

    /// A whole number from 1 on, or a list of such.
    pub(crate) fn widths(&self, name: &str) -> Outcome<Option<Vec<usize>>> {
        let width = |value: &DeValue<'_>| {
            whole(value)
                .and_then(|width| usize::try_from(width).ok())
                .filter(|&width| width > 0)
        };
        let found = self.value(name, |value| match value {
            DeValue::Array(list) => list.iter().map(|item| width(item.get_ref())).collect(),
            value => width(value).map(|width| vec![width]),
        })?;
        Ok(found.map(|found| found.value))
    }

    /// One of some names, with what it stands for.
    pub(crate) fn choice<T: Copy>(
        &self,
        name: &str,
        choices: &[(&'static str, T)],
    ) -> Outcome<Option<(&'static str, T)>> {
        let Some(text) = self.text(name)? else {
            return Ok(None);
        };
        choices
            .iter()
            .find(|(known, _)| *known == text.value)
            .copied()
            .map(Some)
            .ok_or_else(|| {
                let known: Vec<&str> = choices.iter().map(|(known, _)| *known).collect();
                let message = format!(
                    "{name} in [{}] is '{}', which is none of its values",
                    self.name, text.value
                );
                unknown(self.document, &text.span, &message, &text.value, &known)
            })
    }
}

fn table<'a>(
    document: &Document,
    root: &'a DeTable<'a>,
    name: &str,
) -> Outcome<Option<&'a DeTable<'a>>> {
    let Some(found) = root.get(name) else {
        return Ok(None);
    };
    found.get_ref().as_table().map(Some).ok_or_else(|| {
        let message = format!("{name} is {}, not a table", kind(found.get_ref()));
        let hint = format!("write [{name}] in a line of its own, and its keys below it");
        document.failure(&found.span(), message).hint(hint)
    })
}

/// A failure about a name that is not known, with the nearest one that is, or all of them.
pub(crate) fn unknown(
    document: &Document,
    span: &Range<usize>,
    message: &str,
    wrong: &str,
    known: &[&str],
) -> Failure {
    let failure = document.failure(span, message);
    match nearest(wrong, known.iter().copied()) {
        Some(meant) => failure.hint(format!(
            "did you mean '{meant}'? There are {}",
            known.join(", ")
        )),
        None => failure.hint(format!("there are {}", known.join(", "))),
    }
}

/// A whole number from 0 on.
fn whole(value: &DeValue<'_>) -> Option<u64> {
    let integer = value.as_integer()?;
    u64::from_str_radix(integer.as_str(), integer.radix()).ok()
}

/// A value as `--set` has it, if it is a text, a number, or true or false.
pub(crate) fn as_text(value: &DeValue<'_>) -> Option<String> {
    match value {
        DeValue::String(text) => Some(text.to_string()),
        DeValue::Integer(number) if number.radix() == 10 => Some(number.as_str().to_owned()),
        DeValue::Float(number) => Some(number.as_str().to_owned()),
        DeValue::Boolean(flag) => Some(flag.to_string()),
        _ => None,
    }
}
