//! The figures as text, beside what they should be.

use comfy_table::{ContentArrangement, Table, presets::UTF8_FULL_CONDENSED};
use osculant::gpu::Gpu;

use super::network;
use super::results::Results;
use super::timing::Figure;

/// What a figure should be.
#[derive(Clone, Copy)]
enum Wanted {
    AtLeast(f64, f64),
    AtMost(f64, f64),
}

impl Wanted {
    /// The bar, the aim, and whether the bar is met.
    fn cells(self, value: f64) -> [String; 3] {
        let (sign, bar, aim, met) = match self {
            Self::AtLeast(bar, aim) => ("≥", bar, aim, value >= bar),
            Self::AtMost(bar, aim) => ("≤", bar, aim, value <= bar),
        };
        [
            format!("{sign} {bar}"),
            format!("{aim}"),
            if met { "met" } else { "missed" }.into(),
        ]
    }
}

/// All tables.
pub(crate) fn text(results: &Results, gpu: &Gpu) -> String {
    let info = gpu.info();
    let software = info.device_type == "cpu";
    let mut text = format!("{info}\n\n");
    text += &format!(
        "{:.1} GFLOP/s multiply-adds ({}; spread {})\n{:.1} GB/s copied ({}; spread {})\n\n",
        results.fma_peak.median,
        results.fma_kernel,
        percent(results.fma_peak.spread),
        results.copy.median,
        results.copy_kernel,
        percent(results.copy.spread),
    );
    text += &products(results, software);
    text += "\n\n";
    text += &vectors(results);
    text += "\n\nTimes in milliseconds: the host's, from submission to the end of the wait, short work repeated within a submission.\n";
    text += &times(results);
    text += "\n\nRatios: medians over rounds of the ratio within each round.\n";
    text += &ratios(results);
    text
}

fn products(results: &Results, software: bool) -> String {
    let mut table = table(&[
        "m", "n", "k", "layout", "kernel", "GFLOP/s", "spread", "fraction", "bar", "aim", "",
    ]);
    for row in &results.products {
        let product = row.product;
        let fraction = results.of_peak(row.gflops);
        let mut cells = vec![
            product.m.to_string(),
            product.n.to_string(),
            product.k.to_string(),
            row.transpose(),
            row.family.clone(),
            number(row.gflops.median),
            percent(row.gflops.spread),
            number(fraction),
        ];
        // The bar is one for large squares; skinny products are shown beside them.
        if product.m == product.n && product.n == product.k {
            let aim = if software { 0.45 } else { 0.6 };
            cells.extend(Wanted::AtLeast(0.25, aim).cells(fraction));
        }
        table.add_row(cells);
    }
    table.to_string()
}

fn vectors(results: &Results) -> String {
    let mut table = table(&["vectors", "GB/s", "spread", "of a copy", "bar", "aim", ""]);
    for (name, rate) in [
        ("a x + b y", results.vectors.axpy),
        ("inner products", results.vectors.dot),
    ] {
        let fraction = results.of_copy(rate);
        let mut cells = vec![
            name.to_owned(),
            number(rate.median),
            percent(rate.spread),
            number(fraction),
        ];
        cells.extend(Wanted::AtLeast(0.7, 0.9).cells(fraction));
        table.add_row(cells);
    }
    table.to_string()
}

fn times(results: &Results) -> String {
    let mut table = table(&[
        "network",
        "gradient",
        "Hessian\nproduct",
        "GGN\nproduct",
        "32 GGN products\nin a block",
        "kernels: Hessian,\nGGN, block",
        "planned\nMiB",
        "allocated\nMiB",
    ]);
    for network in &results.networks {
        let milliseconds = |figure: Figure| {
            format!(
                "{} ± {}",
                number(1e3 * figure.median),
                percent(figure.spread)
            )
        };
        let dispatches = network.dispatches;
        let mib = |bytes: u64| number(bytes as f64 / f64::from(1 << 20));
        table.add_row([
            network.name.to_owned(),
            milliseconds(network.gradient),
            milliseconds(network.hvp),
            milliseconds(network.ggn),
            network.ggn_block.map_or_else(|| "-".into(), milliseconds),
            format!(
                "{}, {}, {}",
                dispatches.hvp, dispatches.ggn, dispatches.ggn_block
            ),
            mib(network.planned_bytes),
            mib(network.peak_bytes),
        ]);
    }
    table.to_string()
}

fn ratios(results: &Results) -> String {
    let mut table = table(&["network", "figure", "value", "spread", "bar", "aim", ""]);
    for network in &results.networks {
        for (name, figure, wanted) in figures(network) {
            let mut cells = vec![network.name.to_owned(), name.to_owned()];
            match figure {
                Some(figure) => {
                    cells.extend([number(figure.median), percent(figure.spread)]);
                    if let Some(wanted) = wanted {
                        cells.extend(wanted.cells(figure.median));
                    }
                }
                None => cells.push("not measured".into()),
            }
            table.add_row(cells);
        }
    }
    table.to_string()
}

/// The ratios of a network.
fn figures(network: &network::Measured) -> Vec<(&'static str, Option<Figure>, Option<Wanted>)> {
    let over_flops = |figure: Figure, flop_ratio: f64| Some(figure.scaled(1.0 / flop_ratio));
    // Blocks spare launches where these dominate, and reads of activations where arithmetic does.
    let block = match network.name {
        "digits-mlp" => Some(Wanted::AtLeast(4.0, 10.0)),
        "mnist-autoencoder" => Some(Wanted::AtLeast(1.2, 2.0)),
        _ => None,
    };
    let exact = |value: f64| Figure {
        median: value,
        spread: 0.0,
    };
    vec![
        (
            "linearize / gradient, Hessian",
            Some(network.linearize_over_gradient),
            Some(Wanted::AtMost(1.1, 1.0)),
        ),
        (
            "linearize / gradient, GGN",
            Some(network.ggn_linearize_over_gradient),
            Some(Wanted::AtMost(1.1, 1.0)),
        ),
        (
            "Hessian product / gradient",
            Some(network.hvp_over_gradient),
            Some(Wanted::AtMost(2.2, network_aim(network.hvp_flop_ratio()))),
        ),
        (
            "  over its ratio of flops",
            over_flops(network.hvp_over_gradient, network.hvp_flop_ratio()),
            Some(Wanted::AtMost(1.15, 1.0)),
        ),
        (
            "GGN product / gradient",
            Some(network.ggn_over_gradient),
            Some(Wanted::AtMost(1.5, network_aim(network.ggn_flop_ratio()))),
        ),
        (
            "  over its ratio of flops",
            over_flops(network.ggn_over_gradient, network.ggn_flop_ratio()),
            Some(Wanted::AtMost(1.15, 1.0)),
        ),
        ("32 GGN products / a block of 32", network.block_gain, block),
        (
            "CG iteration beside its product",
            network.cg_overhead,
            Some(Wanted::AtMost(0.1, 0.03)),
        ),
        (
            "readbacks per Newton-CG step",
            network.readbacks_per_step.map(exact),
            Some(Wanted::AtMost(2.0, 1.0)),
        ),
        (
            "allocated / planned bytes",
            Some(exact(
                network.peak_bytes as f64 / network.planned_bytes as f64,
            )),
            None,
        ),
    ]
}

/// A ratio of flops as an aim, with two decimals.
fn network_aim(flop_ratio: f64) -> f64 {
    (100.0 * flop_ratio).round() / 100.0
}

fn table(header: &[&str]) -> Table {
    let mut table = Table::new();
    table
        .load_style(UTF8_FULL_CONDENSED)
        .set_content_arrangement(ContentArrangement::Dynamic)
        .set_header(header.iter().copied());
    if !table.is_tty() {
        table.set_width(160);
    }
    table
}

/// Three significant digits or so.
fn number(value: f64) -> String {
    match value.abs() {
        size if size >= 100.0 => format!("{value:.0}"),
        size if size >= 10.0 => format!("{value:.1}"),
        size if size >= 0.1 => format!("{value:.2}"),
        _ => format!("{value:.3}"),
    }
}

fn percent(part: f64) -> String {
    format!("{:.0} %", 100.0 * part)
}
