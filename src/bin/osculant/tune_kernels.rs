//! `osculant tune`: which kernel for matrix products is fastest on an adapter.

use std::io::IsTerminal;

use comfy_table::{ContentArrangement, Table, presets::UTF8_FULL_CONDENSED};
use indicatif::{ProgressBar, ProgressStyle};
use osculant::gpu::{AdapterOptions, Gpu};
use osculant::kernels::autotune::{Measured, representative_products, tune};
use osculant::kernels::tuning::Tuning;

use crate::arguments::TuneKernels;
use crate::failure::Outcome;

/// Measures, prints a table, writes the file.
pub(crate) fn run(arguments: &TuneKernels) -> Outcome {
    let mut options = AdapterOptions::from_env();
    if let Some(name) = &arguments.adapter {
        options = options.with_name(name);
    }
    // A table that the environment names may be an old one, to be replaced now; measuring does not look at it.
    let gpu = Gpu::request_tuned(&options, Tuning::builtin())?;
    eprintln!("Measuring on {}", gpu.info());
    let products = representative_products(arguments.quick).len() as u64;
    let bar = std::io::stderr().is_terminal().then(|| {
        let bar = ProgressBar::new(products);
        if let Ok(style) = ProgressStyle::with_template("{bar:24} {pos}/{len} {elapsed:>4}  {msg}")
        {
            bar.set_style(style.progress_chars("=> "));
        }
        bar.tick();
        bar
    });
    let (tuning, measured) = tune(&gpu, arguments.quick, |measured| match &bar {
        Some(bar) => {
            bar.set_message(describe(measured));
            bar.inc(1);
        }
        None => eprintln!("{}", describe(measured)),
    })?;
    if let Some(bar) = bar {
        bar.finish_and_clear();
    }
    println!("{}", table(&measured));
    tuning.write(&arguments.out)?;
    println!(
        "Written to {0}. Use it with --tuning {0}, or OSCULANT_TUNING={0}.",
        arguments.out.display()
    );
    Ok(())
}

fn describe(measured: &Measured) -> String {
    let product = measured.product;
    let best = measured
        .seconds
        .first()
        .map_or(String::new(), |(family, seconds)| {
            format!("{family}, {:.1} GFLOP/s", product.flops() / seconds / 1e9)
        });
    format!(
        "{}x{}x{}x{} {}: {best}",
        product.batch, product.m, product.n, product.k, product.layout
    )
}

fn table(measured: &[Measured]) -> Table {
    let mut table = Table::new();
    table
        .load_style(UTF8_FULL_CONDENSED)
        .set_content_arrangement(ContentArrangement::Dynamic)
        .set_header([
            "batch",
            "m",
            "n",
            "k",
            "layout",
            "fastest kernel",
            "GFLOP/s",
            "next",
            "GFLOP/s",
        ]);
    for Measured { product, seconds } in measured {
        let mut row = vec![
            product.batch.to_string(),
            product.m.to_string(),
            product.n.to_string(),
            product.k.to_string(),
            product.layout.to_string(),
        ];
        for rank in 0..2 {
            let (name, speed) =
                seconds
                    .get(rank)
                    .map_or_else(Default::default, |(family, seconds)| {
                        (
                            family.to_string(),
                            format!("{:.1}", product.flops() / seconds / 1e9),
                        )
                    });
            row.extend([name, speed]);
        }
        table.add_row(row);
    }
    table
}
