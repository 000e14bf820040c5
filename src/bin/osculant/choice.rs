//! The problem that a command is about: one that the program knows, or a file.

use std::ffi::OsStr;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use clap::builder::{EnumValueParser, PossibleValue, PossibleValuesParser, TypedValueParser};
use clap::error::{ContextKind, ContextValue};
use clap::{Arg, Command, ValueEnum};

use crate::experiment::Experiment;
use crate::failure::Outcome;
use crate::problems::Problem;
use crate::synthetic::NETWORKS;

/// How files are called where values are listed.
const FILE: &str = "FILE.toml";

/// What was asked for.
#[derive(Clone, Debug)]
pub(crate) enum Choice {
    /// One of the program.
    Known(Problem),
    /// One of a file.
    File(PathBuf),
}

impl Choice {
    /// The problem itself: a file is read, with its data.
    pub(crate) fn open(&self) -> Outcome<Problem> {
        match self {
            Choice::Known(problem) => Ok(problem.clone()),
            Choice::File(path) => Ok(Problem::Own(Arc::new(Experiment::open(path)?))),
        }
    }
}

/// Whether a name is that of a file.
pub(crate) fn is_file(name: &OsStr) -> bool {
    Path::new(name)
        .extension()
        .is_some_and(|end| end.eq_ignore_ascii_case("toml"))
}

fn of_file() -> PossibleValue {
    PossibleValue::new(FILE).help("data and network of a file; `osculant init` writes one")
}

/// Adds files to the values that a message lists.
fn with_files(mut error: clap::Error) -> clap::Error {
    if let Some(ContextValue::Strings(known)) = error.get(ContextKind::ValidValue) {
        let all = known.iter().cloned().chain([FILE.to_owned()]).collect();
        error.insert(ContextKind::ValidValue, ContextValue::Strings(all));
    }
    error
}

/// Problems of the program, and files.
#[derive(Clone)]
pub(crate) struct ChoiceParser;

impl TypedValueParser for ChoiceParser {
    type Value = Choice;

    fn parse_ref(
        &self,
        command: &Command,
        arg: Option<&Arg>,
        value: &OsStr,
    ) -> Result<Choice, clap::Error> {
        if is_file(value) {
            return Ok(Choice::File(value.into()));
        }
        let known = EnumValueParser::<Problem>::new().parse_ref(command, arg, value);
        known.map(Choice::Known).map_err(with_files)
    }

    fn possible_values(&self) -> Option<Box<dyn Iterator<Item = PossibleValue>>> {
        let known = Problem::value_variants()
            .iter()
            .filter_map(Problem::to_possible_value);
        Some(Box::new(known.chain([of_file()])))
    }
}

/// Names of the networks of `osculant bench`, after them of the other ones of `osculant train`, and files.
#[derive(Clone)]
pub(crate) struct Shown;

impl Shown {
    fn names() -> Vec<PossibleValue> {
        let bench = NETWORKS.map(|network| network.name);
        let trained = Problem::value_variants()
            .iter()
            .filter_map(Problem::to_possible_value);
        let others = trained.filter(|value| !bench.contains(&value.get_name()));
        bench
            .into_iter()
            .map(PossibleValue::new)
            .chain(others)
            .collect()
    }
}

impl TypedValueParser for Shown {
    type Value = String;

    fn parse_ref(
        &self,
        command: &Command,
        arg: Option<&Arg>,
        value: &OsStr,
    ) -> Result<String, clap::Error> {
        match value.to_str() {
            Some(name) if is_file(value) => Ok(name.to_owned()),
            _ => PossibleValuesParser::new(Self::names())
                .parse_ref(command, arg, value)
                .map_err(with_files),
        }
    }

    fn possible_values(&self) -> Option<Box<dyn Iterator<Item = PossibleValue>>> {
        let known = Self::names().into_iter();
        Some(Box::new(known.chain([of_file()])))
    }
}
