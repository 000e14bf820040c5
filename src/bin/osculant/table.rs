//! The summary of a report as rows of text: on the terminal, and in the HTML page.

use comfy_table::{ContentArrangement, Table, presets::UTF8_FULL_CONDENSED};

use crate::problems::Problem;
use crate::report::{Report, Run};
use crate::statistics::{Summary, first_below};
use crate::training::Point;

/// A table as text.
pub(crate) struct Rows {
    /// Titles of the columns.
    pub(crate) header: Vec<String>,
    /// One row for each optimizer.
    pub(crate) rows: Vec<Vec<String>>,
}

/// The summary: for each optimizer what its runs ended with, and what it cost to reach given losses.
pub(crate) fn summary(report: &Report) -> Rows {
    let levels = report.levels;
    let is_field = report.kind.field().is_some();
    let accuracy_name = if is_field {
        "relative L2".to_owned()
    } else {
        format!("test\n{}", report.kind.accuracy_name())
    };
    let mut header: Vec<String> = [
        "optimizer",
        "options",
        "train loss",
        "test loss",
        &accuracy_name,
        "work",
        "work by\noperations",
        "seconds",
    ]
    .map(str::to_owned)
    .into();
    header.extend(levels.map(|level| format!("to train\nloss {level}")));
    let rows = report.by_optimizer().into_iter().map(|runs| {
        let last = |of: fn(&Point) -> f64| {
            let values: Vec<f64> = runs.iter().map(|run| of(&run.last)).collect();
            Summary::of(&values)
        };
        let diverged = runs.iter().filter(|run| run.diverged()).count();
        let mut name = runs[0].optimizer.to_owned();
        if diverged > 0 {
            name += &format!("\n{diverged} of {}\ndiverged", runs.len());
        }
        let mut row = vec![
            name,
            runs[0].setup.to_string(),
            loss(last(|point| point.train_loss)),
            loss(last(|point| point.test_loss)),
            if is_field {
                loss(last(|point| point.relative_l2.unwrap_or(f64::NAN)))
            } else {
                accuracy(last(|point| point.test_accuracy))
            },
            plain(last(|point| point.work)),
            plain(last(|point| point.work_flops)),
            plain(last(|point| point.seconds)),
        ];
        row.extend(levels.map(|level| price(&runs, level)));
        row
    });
    Rows {
        rows: rows.collect(),
        header,
    }
}

/// The summary for the terminal.
pub(crate) fn terminal(report: &Report) -> String {
    let rows = summary(report);
    let mut table = Table::new();
    table
        .load_style(UTF8_FULL_CONDENSED)
        .set_content_arrangement(ContentArrangement::Dynamic)
        .set_header(&rows.header)
        .add_rows(&rows.rows);
    if !table.is_tty() {
        table.set_width(160);
    }
    table.to_string()
}

/// `mean ± deviation` with three digits; `±` only where there is more than one seed.
fn with_deviation(summary: Option<Summary>, show: impl Fn(f64) -> String) -> String {
    match summary {
        None => "-".into(),
        Some(Summary { mean, deviation }) if deviation > 0.0 => {
            format!("{} ± {}", show(mean), show(deviation))
        }
        Some(Summary { mean, .. }) => show(mean),
    }
}

fn loss(summary: Option<Summary>) -> String {
    with_deviation(summary, |value| {
        if (1e-3..1e4).contains(&value.abs()) {
            format!("{value:.4}")
        } else {
            format!("{value:.1e}")
        }
    })
}

fn accuracy(summary: Option<Summary>) -> String {
    match summary {
        Some(summary) if !summary.mean.is_finite() => percent(summary.mean),
        _ => with_deviation(summary, |value| format!("{:.2}", 100.0 * value)) + " %",
    }
}

/// A share in percent, or that it is none.
pub(crate) fn percent(share: f64) -> String {
    if share.is_finite() {
        format!("{:.2} %", 100.0 * share)
    } else {
        "not finite".into()
    }
}

/// The last line of a run.
pub(crate) fn ending(problem: &Problem, run: &Run) -> String {
    let Point {
        work,
        seconds,
        train_loss,
        test_loss,
        test_accuracy,
        relative_l2,
        ..
    } = run.last;
    let quality = match relative_l2 {
        Some(error) => format!("train loss {train_loss:.1e}  relative L2 {error:.1e}"),
        None => format!(
            "train loss {train_loss:.4}  test {} {}",
            problem.accuracy_name(),
            percent(test_accuracy)
        ),
    };
    let mut text = format!("{quality}  {work:.1} epochs  {seconds:.1} s");
    if !test_loss.is_finite() {
        text += &format!("  the test loss is {test_loss}: some outputs are not finite");
    }
    if run.diverged() {
        text += &format!("  {}", run.status);
    }
    text
}

fn plain(summary: Option<Summary>) -> String {
    with_deviation(summary, |value| {
        if value < 10.0 {
            format!("{value:.2}")
        } else {
            format!("{value:.1}")
        }
    })
}

/// Mean work and seconds to a training loss, over the runs that reach it.
fn price(runs: &[&Run], level: f64) -> String {
    let reached: Vec<&Point> = runs
        .iter()
        .filter_map(|run| first_below(&run.history, level))
        .collect();
    if reached.is_empty() {
        return "not reached".into();
    }
    let mean = |of: fn(&Point) -> f64| {
        Summary::of(&reached.iter().map(|point| of(point)).collect::<Vec<_>>())
    };
    let text = format!(
        "{} epochs\n{} by ops\n{} s",
        plain(mean(|point| point.work)),
        plain(mean(|point| point.work_flops)),
        plain(mean(|point| point.seconds))
    );
    if reached.len() == runs.len() {
        text
    } else {
        format!("{text}\n({} of {} runs)", reached.len(), runs.len())
    }
}
