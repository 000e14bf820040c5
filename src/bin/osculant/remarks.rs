//! Warnings of the library, shown as they come.

use log::{LevelFilter, Log, Metadata, Record};

struct Remarks;

/// Shows warnings from now on.
pub(crate) fn show() {
    // A second logger is refused; there is none.
    if log::set_logger(&Remarks).is_ok() {
        log::set_max_level(LevelFilter::Warn);
    }
}

impl Log for Remarks {
    /// What wgpu and drivers have to say about themselves is for developers.
    fn enabled(&self, metadata: &Metadata<'_>) -> bool {
        metadata.level() <= log::Level::Warn && metadata.target().starts_with("osculant")
    }

    fn log(&self, record: &Record<'_>) {
        if self.enabled(record.metadata()) {
            eprintln!("warning: {}", record.args());
        }
    }

    fn flush(&self) {}
}
