//! Lines on the standard output.

use std::fmt::Arguments;
use std::io::{ErrorKind, Write};

/// As that of the standard library, but where nobody reads any more, as behind `| head`, the rest is not printed, and the command goes on to
/// its end.
macro_rules! println {
    ($($text:tt)*) => {
        $crate::output::line(format_args!($($text)*))
    };
}

/// Prints a line. Where that fails the command ends: what was asked for cannot be given.
pub(crate) fn line(text: Arguments<'_>) {
    match writeln!(std::io::stdout(), "{text}") {
        Err(error) if error.kind() != ErrorKind::BrokenPipe => {
            eprintln!("standard output: {error}");
            std::process::exit(1);
        }
        _ => {}
    }
}
