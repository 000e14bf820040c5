//! Tests of the command line and its help.

#![allow(clippy::unwrap_used, clippy::panic)]

use std::collections::BTreeSet;

use clap::CommandFactory;

use super::*;
use crate::optimizers::Setup;
use crate::problems::Problem;

/// What stands below the help of all commands, as it is written: a terminal folds it.
fn examples(command: &clap::Command) -> Vec<String> {
    let own = command.get_after_help().map(ToString::to_string);
    let below = command.get_subcommands().flat_map(examples);
    own.into_iter().chain(below).collect()
}

/// The problem of an example; for a file, the one that `osculant init` writes.
fn opened(problem: &Choice, written: &std::path::Path) -> Problem {
    match problem {
        Choice::Known(problem) => problem.clone(),
        Choice::File(_) => Choice::File(written.to_owned()).open().unwrap(),
    }
}

#[test]
fn every_example_of_the_help_is_understood() {
    let folder = tempfile::tempdir().unwrap();
    let written = folder.path().join("experiment.toml");
    let init = Init {
        file: written.clone(),
        force: false,
    };
    crate::experiment::init::run(&init).unwrap();
    let mut seen = 0;
    for help in examples(&Cli::command()) {
        // A terminal of a hundred columns folds nothing that is to be copied.
        let long = help
            .lines()
            .find(|line| line.starts_with("  osculant ") && line.len() > 100);
        assert_eq!(long, None);
        let help = help.replace("\\\n", " ");
        for line in help.lines().filter(|line| line.starts_with("  osculant ")) {
            let cli = Cli::try_parse_from(line.split_whitespace())
                .unwrap_or_else(|error| panic!("{line}: {error}"));
            match cli.command {
                Command::Train(Train {
                    optimizer: Some(method),
                    problem,
                    set,
                    ..
                }) => {
                    let mut setup = Setup::new(method, &opened(&problem, &written));
                    setup.set_all(set.iter().map(String::as_str)).unwrap();
                    setup.build().unwrap();
                }
                Command::Compare(arguments) => {
                    crate::compare::check(&arguments, &opened(&arguments.problem, &written))
                        .unwrap();
                }
                _ => {}
            }
            seen += 1;
        }
    }
    assert!(seen >= 30, "only {seen} examples were found");
}

/// Both ways: no option is missing from the list, and no name in it is none.
#[test]
fn the_list_of_options_is_that_of_the_optimizers() {
    let methods = Method::value_variants();
    let known: BTreeSet<&str> = methods
        .iter()
        .flat_map(|method| method.defaults(&Problem::DigitsMlp))
        .map(|(key, _)| key)
        .collect();
    let words: BTreeSet<&str> = OPTIONS
        .split(|c: char| !(c.is_ascii_alphanumeric() || c == '-'))
        .collect();
    for key in &known {
        assert!(words.contains(key), "{key} is not listed");
    }
    let names: BTreeSet<&str> = methods.iter().map(|method| method.name()).collect();
    for line in OPTIONS.lines().skip(1) {
        let text = line.trim_start();
        // What is indented further explains the line before.
        if line.len() - text.len() > 20 {
            continue;
        }
        let first = text.split_whitespace().next().unwrap();
        let text = if line.starts_with("   ") || !(names.contains(first) || first == "all") {
            text
        } else {
            text[first.len()..].trim_start()
        };
        if text.starts_with("those of ") {
            continue;
        }
        for name in text.split("  ").next().unwrap().split(", ") {
            assert!(known.contains(name), "'{name}' is listed and unknown");
        }
    }
}
