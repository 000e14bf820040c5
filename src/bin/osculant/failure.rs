//! The one error of the binary: a sentence, and what to do about it.

use std::fmt;
use std::path::Path;

use osculant::checkpoint::CheckpointError;

/// Result with a [`Failure`].
pub(crate) type Outcome<T = ()> = Result<T, Failure>;

/// Why a command ended without doing its job.
#[derive(Debug)]
pub(crate) struct Failure {
    message: String,
    hint: Option<String>,
}

impl Failure {
    /// A failure that explains itself.
    pub(crate) fn new(message: impl Into<String>) -> Self {
        Self {
            message: message.into(),
            hint: None,
        }
    }

    /// Adds what to do.
    #[must_use]
    pub(crate) fn hint(mut self, hint: impl Into<String>) -> Self {
        self.hint = Some(hint.into());
        self
    }

    /// What went wrong, without what to do.
    pub(crate) fn message(&self) -> &str {
        &self.message
    }

    /// A failure about a file.
    pub(crate) fn file(path: &Path, error: impl fmt::Display) -> Self {
        Self::new(format!("{}: {error}", path.display()))
    }
}

impl fmt::Display for Failure {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "error: {}", self.message)?;
        match &self.hint {
            Some(hint) => write!(formatter, "\n hint: {hint}"),
            None => Ok(()),
        }
    }
}

impl From<osculant::Error> for Failure {
    /// The library's errors say themselves what to do; here it is said how the command line does it.
    fn from(error: osculant::Error) -> Self {
        let failure = Self::new(error.to_string());
        match error {
            osculant::Error::NoAdapter { .. } => failure
                .hint("`osculant devices` lists the adapters; --adapter takes a part of a name"),
            _ => failure,
        }
    }
}

impl From<CheckpointError> for Failure {
    fn from(error: CheckpointError) -> Self {
        match error {
            CheckpointError::Device(error) => error.into(),
            error => Self::new(error.to_string()),
        }
    }
}
