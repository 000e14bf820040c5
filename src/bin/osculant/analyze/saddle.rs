//! `osculant analyze saddle`: how many steps each optimizer needs to leave a saddle point.

use comfy_table::{Table, presets::UTF8_FULL_CONDENSED};
use osculant::data::Batch;
use osculant::gpu::Gpu;
use osculant::linalg::EigenOptions;
use osculant::nn::Model;
use osculant::nn::functions::monkey_saddle;
use osculant::objective::GraphObjective;
use osculant::optim::{
    Adam, AdamOptions, AdaptiveDamping, DampingRule, LowRankSaddleFreeNewton, LrsfnOptions,
    NewtonCg, NewtonCgOptions, Optimizer, Sgd, SgdOptions,
};
use serde::Serialize;

use crate::arguments::Saddle;
use crate::failure::{Failure, Outcome};
use crate::problems::Problem;

/// Steps after which a run is given up.
const MOST_STEPS: usize = 2000;
/// Factor of the initial parameters: how near to the saddle a run starts.
const NEAR: f32 = 1e-3;
/// Value of the monkey saddle's minimum in `nn::functions`.
const MONKEY_MINIMUM: f64 = -27.0 / 256.0;

/// A row of the table.
#[derive(Clone, Debug, Serialize)]
struct Row {
    saddle: &'static str,
    method: String,
    /// Steps until the loss has come half of the way, the median over the seeds; none where most runs were given up.
    steps: Option<usize>,
    /// The work of that, in gradients.
    gradients: Option<f64>,
    /// Steps of each run.
    runs: Vec<Option<usize>>,
}

/// Where runs start, and how far they are to come.
struct Place {
    name: &'static str,
    model: Model,
    batch: Batch,
    /// The loss to reach, of the loss at the start.
    goal: fn(f64) -> f64,
}

type Boxed = Box<dyn Optimizer<GraphObjective>>;

/// Runs the command.
pub(crate) fn run(arguments: &Saddle) -> Outcome {
    std::fs::create_dir_all(&arguments.out)
        .map_err(|error| Failure::file(&arguments.out, error))?;
    let gpu = crate::place::device(arguments.adapter.as_deref(), None)?;
    let data = Problem::DigitsMlp.load(None)?;
    let places = [
        Place {
            name: "monkey saddle",
            model: monkey_saddle(),
            batch: Batch::without_data(),
            goal: |_| 0.5 * MONKEY_MINIMUM,
        },
        Place {
            name: "tanh network near zero",
            model: Problem::DigitsMlp.model(&data.train),
            batch: data.train.full_batch(),
            goal: |start| 0.5 * start,
        },
    ];
    let mut rows = Vec::new();
    for place in &places {
        let small = place.batch.width() == 0;
        for (family, grid) in methods(small) {
            // The best of each family's grid, as its user would tune it.
            let mut best: Option<Row> = None;
            for (options, make) in grid {
                let row = measure(
                    &gpu,
                    place,
                    &format!("{family} {options}"),
                    arguments,
                    &make,
                )?;
                let better = |new: &Row, old: &Row| {
                    new.steps.unwrap_or(usize::MAX) < old.steps.unwrap_or(usize::MAX)
                };
                if best.as_ref().is_none_or(|old| better(&row, old)) {
                    best = Some(row);
                }
            }
            rows.extend(best);
        }
    }
    println!("{}", table(&rows));
    let json = serde_json::to_string_pretty(&rows).map_err(|e| Failure::new(e.to_string()))?;
    let path = arguments.out.join("saddle.json");
    std::fs::write(&path, json + "\n").map_err(|error| Failure::file(&path, error))
}

type Maker = Box<dyn Fn() -> osculant::Result<Boxed>>;

/// Options as text, and how to make the optimizer with them.
type Grid = Vec<(String, Maker)>;

/// Each optimizer with a grid of options.
fn methods(small: bool) -> Vec<(&'static str, Grid)> {
    let rates = [0.01f32, 0.03, 0.1, 0.3, 1.0, 3.0];
    let sgd = rates.map(|rate| {
        let make: Maker = Box::new(move || {
            Ok(Box::new(Sgd::new(
                SgdOptions::default().with_learning_rate(rate),
            )?))
        });
        (format!("rate {rate}, momentum 0.9"), make)
    });
    let adam = [0.001f32, 0.003, 0.01, 0.03, 0.1, 0.3].map(|rate| {
        let make: Maker = Box::new(move || {
            Ok(Box::new(Adam::new(
                AdamOptions::default().with_learning_rate(rate),
            )?))
        });
        (format!("rate {rate}"), make)
    });
    let dampings = [1e-4, 1e-3, 1e-2, 1e-1, 1.0];
    let newton = dampings.map(|damping| {
        let make: Maker = Box::new(move || {
            let rule = AdaptiveDamping::default().with_initial(damping);
            let options = NewtonCgOptions::default().with_damping(rule);
            Ok(Box::new(NewtonCg::new(options)?))
        });
        (format!("damping {damping}"), make)
    });
    let rank = if small { 2 } else { 20 };
    let lrsfn = dampings.map(|damping| {
        let make: Maker = Box::new(move || {
            let eigen = EigenOptions::default()
                .with_rank(rank)
                .with_oversampling(if small { 0 } else { 10 })
                .with_power_iterations(0);
            let rule = AdaptiveDamping::default().with_initial(damping);
            let options = LrsfnOptions::default()
                .with_eigen(eigen)
                .with_damping(damping)
                .with_rule(DampingRule::Adaptive(rule));
            Ok(Box::new(LowRankSaddleFreeNewton::new(options)?))
        });
        (format!("rank {rank}, damping {damping}"), make)
    });
    vec![
        ("sgd", sgd.into_iter().collect()),
        ("adam", adam.into_iter().collect()),
        ("newton-cg (Gauss-Newton)", newton.into_iter().collect()),
        ("lrsfn", lrsfn.into_iter().collect()),
    ]
}

fn measure(
    gpu: &Gpu,
    place: &Place,
    method: &str,
    arguments: &Saddle,
    make: &Maker,
) -> Outcome<Row> {
    let mut objective = GraphObjective::new(gpu, place.model.clone())?;
    let examples = place.batch.examples() as f64;
    let mut runs: Vec<(Option<usize>, f64)> = Vec::new();
    for seed in 0..arguments.seeds {
        let theta = objective.initial_parameters(seed)?;
        let start: Vec<Vec<f32>> = theta
            .read(gpu)?
            .into_iter()
            .map(|tensor| tensor.into_iter().map(|x| NEAR * x).collect())
            .collect();
        theta.write(gpu, &start)?;
        let mut optimizer = make()?;
        let (mut goal, mut work, mut found) = (None, 0.0, None);
        for step in 0..=MOST_STEPS {
            let report = match optimizer.step(&mut objective, &theta, &place.batch) {
                Ok(report) => report,
                Err(osculant::Error::NotFinite { .. }) => break,
                Err(error) => return Err(error.into()),
            };
            let goal = *goal.get_or_insert((place.goal)(report.loss_before));
            if report.loss_before <= goal {
                found = Some(step);
                break;
            }
            work += report.work / examples;
        }
        runs.push((found, work));
    }
    // Runs that were given up come last.
    runs.sort_by_key(|(steps, _)| steps.unwrap_or(usize::MAX));
    let (steps, work) = runs[runs.len() / 2];
    eprintln!("{}: {method}: {steps:?} steps", place.name);
    Ok(Row {
        saddle: place.name,
        method: method.to_owned(),
        steps,
        gradients: steps.map(|_| work),
        runs: runs.into_iter().map(|(steps, _)| steps).collect(),
    })
}

fn table(rows: &[Row]) -> Table {
    let mut table = Table::new();
    table.load_style(UTF8_FULL_CONDENSED).set_header([
        "saddle",
        "method, best of its grid",
        "steps to half of the way",
        "work in gradients",
    ]);
    for row in rows {
        table.add_row([
            row.saddle.to_owned(),
            row.method.clone(),
            row.steps
                .map_or(format!("more than {MOST_STEPS}"), |steps| steps.to_string()),
            row.gradients
                .map_or(String::new(), |work| format!("{work:.0}")),
        ]);
    }
    table
}
