//! Progress of a run: a bar on a terminal, a line every few seconds elsewhere.

use std::io::IsTerminal;
use std::time::{Duration, Instant};

use indicatif::{ProgressBar, ProgressStyle};

/// Seconds between two lines where there is no terminal.
const BETWEEN_LINES: Duration = Duration::from_secs(5);
/// Milliseconds between two updates of the bar: a step can take less than one.
const BETWEEN_UPDATES: Duration = Duration::from_millis(100);
/// The bar counts thousandths of an epoch.
const PARTS: f64 = 1000.0;

/// Shows how far a run is.
pub(crate) struct Progress {
    bar: Option<ProgressBar>,
    label: String,
    total: f64,
    start: Instant,
    first_step: Option<u64>,
    shown: Instant,
}

impl Progress {
    /// For a run of `total` epochs of work.
    pub(crate) fn new(label: impl Into<String>, total: f64) -> Self {
        let label = label.into();
        let bar = std::io::stderr().is_terminal().then(|| {
            let bar = ProgressBar::new((total * PARTS) as u64);
            let template = "{prefix:<28} {bar:24} {elapsed:>4}  {msg}";
            if let Ok(style) = ProgressStyle::with_template(template) {
                bar.set_style(style.progress_chars("=> "));
            }
            bar.with_prefix(label.clone())
        });
        let now = Instant::now();
        Self {
            bar,
            label,
            total,
            start: now,
            first_step: None,
            shown: now,
        }
    }

    /// After a step: work done, number of steps, loss of the step's mini-batch.
    pub(crate) fn update(&mut self, work: f64, step: u64, loss: f64) {
        let first_step = *self.first_step.get_or_insert(step);
        let interval = if self.bar.is_some() {
            BETWEEN_UPDATES
        } else {
            BETWEEN_LINES
        };
        if self.shown.elapsed() < interval {
            return;
        }
        self.shown = Instant::now();
        let seconds = self.start.elapsed().as_secs_f64();
        let rate = (step - first_step) as f64 / seconds;
        let total = self.total;
        let message = format!("loss {loss:.4}  epoch {work:.1}/{total:.0}  {rate:.1} steps/s");
        match &self.bar {
            Some(bar) => {
                bar.set_position((work * PARTS) as u64);
                bar.set_message(message);
            }
            None => eprintln!("{}: {message}", self.label),
        }
    }

    /// Replaces the bar by a last line.
    pub(crate) fn finish(&self, message: &str) {
        if let Some(bar) = &self.bar {
            bar.finish_and_clear();
        }
        eprintln!("{:<28} {message}", self.label);
    }
}
