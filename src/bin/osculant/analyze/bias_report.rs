//! What `osculant analyze bias` reports: figures, files, pictures and a table.

use std::fmt::Write;

use comfy_table::{Table, presets::UTF8_FULL_CONDENSED};
use serde::Serialize;

use super::panel::{self, Mark, Panel, Scale, Series};
use crate::arguments::Bias;
use crate::failure::{Failure, Outcome};

/// Ways to make a step of two batches.
pub(super) const STRATEGIES: [&str; 5] = [
    "single(n)",
    "single(2n)",
    "decoupled",
    "cross-fit",
    "shrinkage",
];

/// A mean over the batches, with its standard error.
#[derive(Clone, Copy, Debug, Serialize)]
pub(super) struct Mean {
    pub(super) mean: f64,
    pub(super) error: f64,
}

pub(super) fn mean(values: &[f64]) -> Mean {
    let n = values.len() as f64;
    let mean = values.iter().sum::<f64>() / n;
    let square: f64 = values.iter().map(|v| (v - mean).powi(2)).sum();
    let error = if values.len() > 1 {
        (square / (n - 1.0) / n).sqrt()
    } else {
        0.0
    };
    Mean { mean, error }
}

/// A quantity on the batch that made the directions, on an independent one, and on all data.
#[derive(Clone, Copy, Debug, Serialize)]
pub(super) struct Three {
    pub(super) a: f64,
    pub(super) b: f64,
    pub(super) full: f64,
    /// Standard errors of the three.
    pub(super) errors: [f64; 3],
}

#[derive(Clone, Debug, Serialize)]
pub(super) struct Direction {
    pub(super) index: usize,
    pub(super) slope: Three,
    pub(super) curvature: Three,
}

#[derive(Clone, Debug, Serialize)]
pub(super) struct PathPoint {
    pub(super) strategy: &'static str,
    pub(super) damping: f64,
    pub(super) iteration: usize,
    /// Change of the loss on all data, with the regularization.
    pub(super) loss_change: f64,
    pub(super) error: f64,
}

#[derive(Clone, Debug, Serialize)]
pub(super) struct Checkpoint {
    pub(super) train_loss: f64,
    pub(super) epochs: f64,
    pub(super) directions: Vec<Direction>,
    pub(super) path: Vec<PathPoint>,
}

#[derive(Serialize)]
pub(super) struct Report {
    pub(super) problem: String,
    pub(super) batch: usize,
    pub(super) batches: u32,
    pub(super) l2: f32,
    pub(super) examples: usize,
    pub(super) checkpoints: Vec<Checkpoint>,
}

pub(super) fn write(report: &Report, arguments: &Bias) -> Outcome {
    let save = |name: &str, text: String| {
        let path = arguments.out.join(name);
        std::fs::write(&path, text).map_err(|error| Failure::file(&path, error))
    };
    let json = serde_json::to_string_pretty(report).map_err(|e| Failure::new(e.to_string()))?;
    save("bias.json", json + "\n")?;
    let mut directions = String::from(
        "train_loss,index,slope_a,slope_b,slope_full,curvature_a,curvature_b,curvature_full\n",
    );
    let mut paths = String::from("train_loss,strategy,damping,iteration,loss_change,error\n");
    // Writing to a String cannot fail.
    for checkpoint in &report.checkpoints {
        for d in &checkpoint.directions {
            let (s, c) = (d.slope, d.curvature);
            let _ = writeln!(
                directions,
                "{},{},{},{},{},{},{},{}",
                checkpoint.train_loss, d.index, s.a, s.b, s.full, c.a, c.b, c.full
            );
        }
        for p in &checkpoint.path {
            let _ = writeln!(
                paths,
                "{},{},{},{},{},{}",
                checkpoint.train_loss, p.strategy, p.damping, p.iteration, p.loss_change, p.error
            );
        }
    }
    save("bias-directions.csv", directions)?;
    save("bias-path.csv", paths)?;
    let title = format!(
        "{}: batches of {}, means of {}",
        report.problem, report.batch, report.batches
    );
    panel::write(&arguments.out, "bias", &title, &panels(report, arguments))
}

/// Above, for each checkpoint, the curvature along the directions; below, the loss along the path without damping.
fn panels(report: &Report, arguments: &Bias) -> Vec<Panel> {
    let curvature = report.checkpoints.iter().map(|checkpoint| {
        let of = |f: fn(&Three) -> f64| {
            let each = checkpoint.directions.iter();
            each.map(|d| (d.index as f64 + 1.0, f(&d.curvature)))
                .collect()
        };
        Panel {
            x: format!("direction, at training loss {:.2}", checkpoint.train_loss),
            y: "curvature".into(),
            x_scale: Scale::Linear,
            y_scale: Scale::Logarithmic,
            rows: Vec::new(),
            series: vec![
                Series::new("own batch", of(|t| t.a), Mark::Line),
                Series::new("other batch", of(|t| t.b), Mark::Line),
                Series::new("all data", of(|t| t.full), Mark::Dashes),
            ],
        }
    });
    let damping = arguments.dampings.first().copied().unwrap_or(0.0);
    let paths = report.checkpoints.iter().map(|checkpoint| {
        let of = |strategy: &str| {
            let each = checkpoint.path.iter();
            each.filter(|p| p.strategy == strategy && p.damping.total_cmp(&damping).is_eq())
                .map(|p| (p.iteration as f64, p.loss_change))
                .collect()
        };
        Panel {
            x: "iterations of conjugate gradients".into(),
            y: "change of the loss on all data".into(),
            x_scale: Scale::Logarithmic,
            y_scale: Scale::Linear,
            rows: Vec::new(),
            series: STRATEGIES
                .iter()
                .map(|name| Series::new(*name, of(name), Mark::Line))
                .collect(),
        }
    });
    curvature.chain(paths).collect()
}

pub(super) fn table(report: &Report) -> Table {
    let mut table = Table::new();
    let mut header = vec![
        "training loss".to_owned(),
        "top curvature: own / all".to_owned(),
        "other / all".to_owned(),
        "damping".to_owned(),
        "iterations".to_owned(),
    ];
    header.extend(STRATEGIES.map(str::to_owned));
    table.load_style(UTF8_FULL_CONDENSED).set_header(header);
    for checkpoint in &report.checkpoints {
        let top = checkpoint.directions.first().map(|d| d.curvature);
        let ratio = |f: fn(&Three) -> f64| top.map_or(f64::NAN, |t| f(&t) / t.full);
        let first = STRATEGIES[0];
        for point in checkpoint.path.iter().filter(|p| p.strategy == first) {
            let of = |strategy: &&str| {
                let same = checkpoint.path.iter().find(|p| {
                    p.strategy == *strategy
                        && p.iteration == point.iteration
                        && p.damping.total_cmp(&point.damping).is_eq()
                });
                same.map_or(String::new(), |p| format!("{:+.4}", p.loss_change))
            };
            let mut row = vec![
                format!("{:.3}", checkpoint.train_loss),
                format!("{:.2}", ratio(|t| t.a)),
                format!("{:.2}", ratio(|t| t.b)),
                point.damping.to_string(),
                point.iteration.to_string(),
            ];
            row.extend(STRATEGIES.iter().map(of));
            table.add_row(row);
        }
    }
    table
}
