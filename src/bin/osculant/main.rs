//! The binary `osculant`: lists adapters, trains networks, compares optimizers, measures speed.

// Its macro is known to the modules behind it.
#[macro_use]
mod output;

mod analyze;
mod arguments;
mod bench;
mod choice;
mod compare;
mod course;
mod devices;
mod doctor;
mod experiment;
mod failure;
mod feed;
mod fields;
mod files;
mod help;
mod hints;
mod html;
mod kronecker;
mod methods;
mod michalewicz;
mod optimizers;
mod paper;
mod place;
mod plots;
mod problems;
mod progress;
mod quantities;
mod remarks;
mod report;
mod sample_space;
mod show;
mod statistics;
mod synthetic;
mod table;
mod train;
mod training;
mod tune;
mod tune_kernels;

use std::process::ExitCode;

use arguments::{Cli, Command};
use clap::Parser;
use failure::Outcome;

fn main() -> ExitCode {
    let cli = match Cli::try_parse() {
        Ok(cli) => cli,
        Err(error) => {
            // Help and version come this way too. Where even printing fails there is nobody to tell.
            let _ = error.print();
            return if error.use_stderr() {
                ExitCode::FAILURE
            } else {
                ExitCode::SUCCESS
            };
        }
    };
    remarks::show();
    match dispatch(cli.command) {
        Ok(()) => ExitCode::SUCCESS,
        Err(failure) => {
            eprintln!("{failure}");
            ExitCode::FAILURE
        }
    }
}

fn dispatch(command: Command) -> Outcome {
    match command {
        Command::Devices { json } => devices::run(json),
        Command::Doctor(arguments) => doctor::run(&arguments),
        Command::Init(arguments) => experiment::init::run(&arguments),
        Command::Train(arguments) => train::run(&arguments),
        Command::Compare(arguments) => compare::run(&arguments),
        Command::Show(arguments) => show::run(&arguments),
        Command::Tune(arguments) => tune_kernels::run(&arguments),
        Command::Bench(arguments) => bench::run(&arguments),
        Command::Analyze(arguments) => analyze::run(&arguments),
        Command::Statistics(arguments) => quantities::run(&arguments),
        Command::Michalewicz(arguments) => michalewicz::run(&arguments),
    }
}
