//! Modules of burn's, trained and differentiated.

#![allow(clippy::unwrap_used, clippy::panic)]

mod clones;
mod derivatives;
mod fixture;
mod refusals;
mod steps;
mod threads;

type Outcome = Result<(), Box<dyn std::error::Error>>;
