//! What is timed, beside what else, and how.

pub(crate) mod problems;
pub(crate) mod synthetic;
