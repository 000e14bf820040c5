//! The report as one HTML file with everything inside.

use std::fmt::Write;

use crate::report::Report;
use crate::table::{Rows, summary};

const STYLE: &str = "
body { font: 16px/1.5 system-ui, sans-serif; max-width: 62rem; margin: 2rem auto; padding: 0 1rem; color: #222; background: #fff }
h1 { font-size: 1.6rem } h2 { font-size: 1.2rem; margin-top: 2rem }
table { border-collapse: collapse; font-size: .875rem; margin: 1rem 0 }
th, td { border: 1px solid #ccc; padding: .3rem .6rem; text-align: left; vertical-align: top }
th { background: #f3f3f3 } tr.chosen td { font-weight: bold; background: #eef7ee }
code { background: #f3f3f3; padding: .1rem .3rem; overflow-wrap: anywhere }
svg { width: 100%; height: auto } figure { margin: 1rem 0 } .wide { overflow-x: auto }
dt { font-weight: bold } dd { margin: 0 0 .5rem 1rem }";

/// The page, with the pictures as SVG inside.
pub(crate) fn page(report: &Report, pictures: &[String]) -> String {
    let mut page = format!(
        "<!DOCTYPE html>\n<html lang=\"en\">\n<head>\n<meta charset=\"utf-8\">\n\
         <meta name=\"viewport\" content=\"width=device-width\">\n<title>osculant: {0}</title>\n\
         <style>{STYLE}\n</style>\n</head>\n<body>\n<h1>osculant: {0}</h1>\n<p>{1}.</p>\n",
        escape(&report.problem),
        escape(&report.description),
    );
    // Writing to a String cannot fail.
    let _ = writeln!(
        page,
        "<h2>Result</h2>\n{}",
        table(&summary(report), |_| false)
    );
    let _ = writeln!(page, "<p>{}</p>", escape(&below_the_table(report)));
    for picture in pictures {
        let _ = writeln!(page, "<figure>{}</figure>", inline(picture));
    }
    let _ = writeln!(page, "<p>{}</p>", escape(CURVES));
    let _ = writeln!(
        page,
        "<h2>How to read this</h2>\n<dl>{}</dl>",
        definitions(report)
    );
    page.push_str(&tuning(report));
    let options = report.by_optimizer().into_iter().map(|runs| {
        let text = serde_json::to_string(&runs[0].options).unwrap_or_default();
        format!(
            "<dt>{}</dt><dd><code>{}</code></dd>",
            runs[0].optimizer,
            escape(&text)
        )
    });
    let _ = writeln!(
        page,
        "<h2>All options</h2>\n<dl>{}</dl>",
        options.collect::<String>()
    );
    let (adapter, environment) = (&report.adapter, &report.environment);
    let _ = writeln!(
        page,
        "<h2>Where it ran</h2>\n<p>Adapter: {} ({}, {}), driver {}. Machine: {} {}, {} threads. osculant {}.</p>\n\
         <p>Command: <code>{}</code></p>\n</body>\n</html>",
        escape(&adapter.name),
        escape(&adapter.backend),
        escape(&environment.adapter_type),
        escape(&adapter.driver),
        environment.system,
        environment.architecture,
        environment.threads,
        environment.osculant,
        escape(&report.command),
    );
    page
}

const CURVES: &str = "Thin lines are single runs, thick lines the geometric mean over the runs of an optimizer, \
                      as far as all of them go.";

fn below_the_table(report: &Report) -> String {
    let seeds = report
        .by_optimizer()
        .iter()
        .map(Vec::len)
        .max()
        .unwrap_or(1);
    let runs = if seeds > 1 {
        format!("Mean ± standard deviation over {seeds} runs with different seeds")
    } else {
        "One run each, so nothing is known about the spread over seeds".to_owned()
    };
    format!(
        "{runs}; each seed gives all optimizers the same initial parameters. Work and seconds \"to train loss\" are those of the \
         first evaluation at or below it. Test {} is {}.",
        report.kind.accuracy_name(),
        report.kind.accuracy_meaning()
    )
}

fn definitions(report: &Report) -> String {
    let monitored = &report.monitored;
    let tuning = match report.tuning_work {
        None => "No options were searched for: all are defaults or were given on the command line (below). A comparison without tuning \
            says \
                 little about the optimizers."
            .to_owned(),
        Some(work) => format!(
            "A grid of options for each optimizer (below), each tried once for {work:.3} epochs of work, with another seed than the \
                runs, on a part of the training rows; chosen was the lowest loss at the end, on the other part of the training \
             rows (validation). The test rows had no say. A grid of learning rates grew while its best value was at an end; \
             then two other batch sizes were tried, at the best rate and at the next one up. newton-cg's grid, over batch size \
             and iterations, is no larger. Trials are not counted in the work and \
             seconds above. \
             What is not in a grid has its default, and the defaults of newton-cg were chosen by hand on the digits, by training loss."
        ),
    };
    let entries = [
        (
            "Work",
            format!(
                "counts the examples through which a method computes, divided by the number of training rows: a gradient of n examples \
                    is n, a curvature product 2n, a loss n/3, its change along a step 2n/3, the preconditioner's diagonal n. \
                 Everything computed counts, refused steps included. \
                 Each run has a budget of {} epochs, and ends with the step that reaches it.",
                report.work
            ),
        ),
        (
            "Work by operations",
            "counts floating-point operations, those of conjugate gradients, eigensolvers and low-rank operators included, divided by \
                those of the \
             gradients of all training rows."
                .to_owned(),
        ),
        (
            "Seconds",
            format!(
                "is the wall-clock time of the steps, the gathering of their mini-batches included, on {} and this machine; on another \
                    adapter the \
                 order may differ. Shaders were compiled before, and evaluations are not counted.",
                report.adapter.name
            ),
        ),
        (
            "Train loss",
            format!(
                "is the mean loss on {monitored}, evaluated at up to 120 places of each run, not an average over mini-batches."
            ),
        ),
        ("Tuning", tuning),
    ];
    let entries = entries
        .into_iter()
        .map(|(term, text)| format!("<dt>{term}</dt><dd>{}</dd>\n", escape(&text)));
    entries.collect()
}

fn tuning(report: &Report) -> String {
    if report.tuning.is_empty() {
        return String::new();
    }
    let rows = report.tuning.iter().map(|trial| {
        let loss = trial.validation_loss;
        vec![
            trial.optimizer.to_owned(),
            trial.options.clone(),
            loss.map_or_else(|| "diverged".into(), |loss| format!("{loss:.4}")),
            format!("{:.1}", trial.work),
            if trial.chosen {
                "chosen".into()
            } else {
                String::new()
            },
        ]
    });
    let header = [
        "optimizer",
        "options",
        "validation loss at the end",
        "work in epochs",
        "",
    ];
    let rows = Rows {
        header: header.map(str::to_owned).into(),
        rows: rows.collect(),
    };
    format!(
        "<h2>Tuning</h2>\n{}",
        table(&rows, |index| report.tuning[index].chosen)
    )
}

fn table(rows: &Rows, emphasised: impl Fn(usize) -> bool) -> String {
    let cells = |cells: &[String], tag: &str| {
        let cells = cells
            .iter()
            .map(|cell| format!("<{tag}>{}</{tag}>", escape(cell).replace('\n', "<br>")));
        cells.collect::<String>()
    };
    let mut text = format!(
        "<div class=\"wide\"><table>\n<tr>{}</tr>\n",
        cells(&rows.header, "th")
    );
    for (index, row) in rows.rows.iter().enumerate() {
        let class = if emphasised(index) {
            " class=\"chosen\""
        } else {
            ""
        };
        let _ = writeln!(text, "<tr{class}>{}</tr>", cells(row, "td"));
    }
    text + "</table></div>\n"
}

/// An SVG without its fixed size, so that it takes the width of the page.
fn inline(svg: &str) -> String {
    let start = svg.find("<svg").unwrap_or(0);
    let end = svg[start..].find('>').map_or(svg.len(), |end| start + end);
    let tag = svg[start..end]
        .split(' ')
        .filter(|attribute| !attribute.starts_with("width=") && !attribute.starts_with("height="));
    tag.collect::<Vec<_>>().join(" ") + &svg[end..]
}

fn escape(text: &str) -> String {
    text.replace('&', "&amp;")
        .replace('<', "&lt;")
        .replace('>', "&gt;")
        .replace('"', "&quot;")
}
