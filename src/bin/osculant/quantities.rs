//! `osculant statistics`: what each example of a batch adds to gradient and curvature, as files.

use std::path::Path;

use comfy_table::{ContentArrangement, Table, presets::UTF8_FULL_CONDENSED};
use osculant::checkpoint::Checkpoint;
use osculant::gpu::Gpu;
use osculant::objective::{
    BatchStatistics, Objective, Quantity, Slot, Statistics, StatisticsRequest, hessian_diagonal,
};
use osculant::vector::Layout;
use safetensors::{Dtype, tensor::TensorView};

use crate::analyze::start;
use crate::arguments::BatchQuantities;
use crate::failure::{Failure, Outcome};
use crate::place;

/// Rows of a batch where nothing is said.
const ROWS: usize = 128;

/// The quantity that is not one of a batch's program, and its name in BackPACK.
pub(crate) const HESSIAN_DIAGONAL: (&str, &str) = ("hessian-diagonal", "diag_h");

/// Quantities where nothing is said: those whose size does not grow with the batch.
const DEFAULT: [Quantity; 9] = [
    Quantity::Gradient,
    Quantity::SquaredNorms,
    Quantity::SquareSum,
    Quantity::SecondMoment,
    Quantity::Variance,
    Quantity::GaussNewtonDiagonal,
    Quantity::SampledGaussNewtonDiagonal,
    Quantity::KroneckerFactors,
    Quantity::EmpiricalKroneckerFactors,
];

/// All names that `--quantity` takes.
pub(crate) fn names() -> Vec<&'static str> {
    let of_a_batch = Quantity::ALL.into_iter().map(Quantity::name);
    of_a_batch.chain([HESSIAN_DIAGONAL.0]).collect()
}

/// Tensors of a quantity, to be written and shown.
struct Measured {
    name: &'static str,
    backpack: &'static str,
    /// Name, shape and values.
    tensors: Vec<(String, Vec<usize>, Vec<f32>)>,
}

impl Measured {
    fn new(
        (name, backpack): (&'static str, &'static str),
        layout: &Layout,
        values: Vec<Vec<f32>>,
    ) -> Self {
        let entries = layout.entries().iter().zip(values);
        Self {
            name,
            backpack,
            tensors: entries
                .map(|(e, v)| (e.name.clone(), e.shape.clone(), v))
                .collect(),
        }
    }
}

/// Computes quantities, writes each into a file, and prints a table.
pub(crate) fn run(arguments: &BatchQuantities) -> Outcome {
    let folder = &arguments.out;
    std::fs::create_dir_all(folder).map_err(|error| Failure::file(folder, error))?;
    let problem = arguments.problem.open()?;
    let data = problem.load(arguments.data.as_deref())?;
    let all = data.train.len();
    let rows = match arguments.rows.map(|rows| rows as usize) {
        None => all.min(ROWS),
        Some(rows) if rows <= all => rows,
        Some(rows) => {
            let message = format!("--rows {rows}: the training set has {all}");
            return Err(Failure::new(message).hint(format!("give a number from 1 to {all}")));
        }
    };
    let gpu = &place::device(arguments.adapter.as_deref(), arguments.tuning.as_deref())?;
    let mut objective = problem.objective(gpu, &data.train)?;
    let theta = objective.initial_parameters(arguments.seed)?;
    if let Some(path) = &arguments.checkpoint {
        start::restore(&problem, &Checkpoint::load(path)?, gpu, &theta)?;
    }
    let batch = data.train.batch(&(0..rows).collect::<Vec<_>>())?;
    let loaded = objective.load(Slot::default(), &batch)?;
    let chosen = |name: &str| arguments.quantity.iter().any(|quantity| quantity == name);
    let of_a_batch: Vec<Quantity> = match arguments.quantity.is_empty() {
        true => DEFAULT.to_vec(),
        false => Quantity::ALL
            .into_iter()
            .filter(|q| chosen(q.name()))
            .collect(),
    };
    let mut measured = Vec::new();
    let mut summary = format!("{}, {rows} training rows", problem.name());
    if !of_a_batch.is_empty() {
        let request = StatisticsRequest::of(&of_a_batch);
        let statistics = objective.statistics(&theta, &loaded, request)?;
        statistics.seed(gpu, arguments.seed, 0)?;
        gpu.run([&statistics.run])?;
        summary += &cost(gpu, &statistics)?;
        for (quantity, vector) in &statistics.results {
            let names = (quantity.name(), quantity.name_in_backpack());
            measured.push(Measured::new(names, vector.layout(), vector.read(gpu)?));
        }
    }
    if chosen(HESSIAN_DIAGONAL.0) {
        let diagonal = hessian_diagonal(&mut objective, &theta, &loaded)?;
        measured.push(Measured::new(HESSIAN_DIAGONAL, theta.layout(), diagonal));
    }
    for quantity in &measured {
        write(folder, quantity)?;
    }
    println!("{}\n{summary}", table(&measured));
    println!("files: {}", folder.join("NAME.safetensors").display());
    Ok(())
}

fn cost(gpu: &Gpu, statistics: &BatchStatistics) -> Outcome<String> {
    let loss = gpu.read(&[&statistics.value])?[0][0];
    let gradients = statistics.cost.run as f64 / statistics.cost.gradient as f64;
    Ok(format!(
        ": loss {loss:.5}; as many operations as {gradients:.2} gradients"
    ))
}

fn write(folder: &Path, quantity: &Measured) -> Outcome {
    let path = folder.join(format!("{}.safetensors", quantity.name));
    let fail = |error: &dyn std::fmt::Display| Failure::file(&path, error);
    let bytes: Vec<Vec<u8>> = quantity
        .tensors
        .iter()
        .map(|(_, _, values)| values.iter().flat_map(|x| x.to_le_bytes()).collect())
        .collect();
    let mut views = Vec::with_capacity(bytes.len());
    for ((name, shape, _), bytes) in quantity.tensors.iter().zip(&bytes) {
        let view = TensorView::new(Dtype::F32, shape.clone(), bytes);
        views.push((name.as_str(), view.map_err(|error| fail(&error))?));
    }
    let file = safetensors::serialize(views, None).map_err(|error| fail(&error))?;
    std::fs::write(&path, file).map_err(|error| fail(&error))
}

fn table(measured: &[Measured]) -> Table {
    let mut table = Table::new();
    table
        .load_style(UTF8_FULL_CONDENSED)
        .set_content_arrangement(ContentArrangement::Dynamic)
        .set_header(["quantity", "in BackPACK", "tensor", "shape", "norm"]);
    if !table.is_tty() {
        table.set_width(160);
    }
    for quantity in measured {
        for (name, shape, values) in &quantity.tensors {
            let squares = values.iter().map(|&x| f64::from(x).powi(2));
            table.add_row([
                quantity.name.to_owned(),
                quantity.backpack.to_owned(),
                name.clone(),
                format!("{shape:?}"),
                format!("{:.4e}", squares.sum::<f64>().sqrt()),
            ]);
        }
    }
    table
}
