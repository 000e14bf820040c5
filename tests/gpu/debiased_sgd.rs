//! Gradient descent with debiased step lengths: its formula, its mean, and what it does where slopes disagree.

use std::ops::Range;

use crate::harness::least_squares::{
    Dense, batch_of, dot, least_squares, near, random_rows, values_of, wide,
};
use crate::harness::{self, GpuTest, Outcome};
use osculant::data::Batch;
use osculant::gpu::Gpu;
use osculant::objective::GraphObjective;
use osculant::optim::{
    DebiasedSgd, DebiasedSgdOptions, Optimizer, Sgd, SgdOptions, StepReport, Strategy,
};
use osculant::vector::Vector;

pub(crate) fn tests() -> Vec<GpuTest> {
    gpu_tests![
        a_step_is_the_formula,
        with_the_same_examples_it_is_an_exact_line_search,
        slopes_are_unbiased,
        where_slopes_disagree_it_stays_or_goes_back,
        step_lengths_have_a_limit,
        a_restored_state_goes_on_with_the_same_bits,
        numbers_that_are_not_finite_change_nothing,
        options_out_of_range_are_named,
    ]
}

/// The first `directions` of `folds` folds make the direction.
fn split(folds: usize, directions: usize) -> Strategy {
    Strategy::Decoupled { folds, directions }
}

type Any = Box<dyn std::error::Error>;

const N: usize = 6;

/// The rows of one batch after those of another.
fn joined(one: &Batch, two: &Batch) -> Batch {
    batch_of(
        [&one.features[..], &two.features].concat(),
        [values_of(one), values_of(two)].concat(),
    )
}

struct Run {
    gpu: Gpu,
    objective: GraphObjective,
    theta: Vector,
    method: DebiasedSgd,
}

impl Run {
    fn new(gpu: &Gpu, options: DebiasedSgdOptions) -> Result<Self, Any> {
        let objective = GraphObjective::new(gpu, least_squares(N, 1.0))?;
        Ok(Self {
            gpu: gpu.clone(),
            theta: objective.initial_parameters(0)?,
            objective,
            method: DebiasedSgd::new(options)?,
        })
    }

    fn step(&mut self, batch: &Batch) -> Result<StepReport, Any> {
        Ok(self.method.step(&mut self.objective, &self.theta, batch)?)
    }

    fn point(&self) -> Result<Vec<f64>, Any> {
        Ok(wide(&self.theta.read(&self.gpu)?.concat()))
    }
}

fn a_step_is_the_formula(gpu: &Gpu) -> Outcome {
    // A device of its own: other trials read from the shared one at the same time.
    let gpu = &harness::of_its_own(gpu)?;
    let batch = random_rows(20, N, 1);
    let plain = DebiasedSgdOptions::default().with_backwards(true);
    let crossed = plain.clone().with_strategy(Strategy::cross_fit(2));
    for (index, (options, cut)) in [
        (plain.clone(), 10),
        (
            plain
                .with_strategy(split(4, 1))
                .with_damping(0.3)
                .with_factor(0.5),
            5,
        ),
        (crossed.clone(), 10),
        (crossed.with_damping(0.2).with_factor(1.5), 10),
    ]
    .into_iter()
    .enumerate()
    {
        let mut run = Run::new(gpu, options.clone())?;
        let parts = [
            Dense::new(&batch, N, 0..cut),
            Dense::new(&batch, N, cut..20),
        ];
        let all = Dense::new(&batch, N, 0..20);
        for step in 0..3 {
            let what = |name: &str| format!("{name} in step {step} with options {index}");
            let before = run.point()?;
            let report = run.step(&batch)?;
            let after = run.point()?;
            let gradients = parts.each_ref().map(|part| part.gradient(&before));
            let slope = dot(&gradients[0], &gradients[1]);
            let length = |along: &[f64], other: &Dense| {
                let damping = options.damping * dot(along, along);
                options.factor * slope / (other.curvature(along) + damping)
            };
            let mut lengths = [length(&gradients[0], &parts[1]), 0.0];
            let mut work = cut as f64 + 3.0 * (20 - cut) as f64;
            if options.strategy == Strategy::cross_fit(2) {
                lengths[1] = length(&gradients[1], &parts[0]);
                lengths = lengths.map(|length| 0.5 * length);
                work += 2.0 * cut as f64;
            }
            let moves: Vec<f64> = (0..N)
                .map(|i| -lengths[0] * gradients[0][i] - lengths[1] * gradients[1][i])
                .collect();
            for i in 0..N {
                near(after[i], before[i] + moves[i], 1e-4, &what("x"))?;
            }
            let gradient = all.gradient(&before);
            let found = report.step_length.unwrap_or(f64::NAN);
            near(found, lengths[0] + lengths[1], 1e-3, &what("step length"))?;
            near(report.loss_before, all.loss(&before), 1e-5, &what("loss"))?;
            let norm = |x: &[f64]| dot(x, x).sqrt();
            near(
                report.gradient_norm,
                norm(&gradient),
                1e-4,
                &what("gradient"),
            )?;
            near(report.step_norm, norm(&moves), 1e-3, &what("length"))?;
            near(report.work, work, 1e-9, &what("work"))?;
            assert_eq!((report.readbacks, report.accepted), (1, true));
        }
    }
    Ok(())
}

fn with_the_same_examples_it_is_an_exact_line_search(gpu: &Gpu) -> Outcome {
    let once = random_rows(9, N, 2);
    for strategy in [Strategy::decoupled(), Strategy::cross_fit(2)] {
        let options = DebiasedSgdOptions::default().with_strategy(strategy);
        let mut run = Run::new(gpu, options)?;
        let all = Dense::new(&once, N, 0..9);
        for step in 0..3 {
            let before = run.point()?;
            run.step(&joined(&once, &once))?;
            let gradient = all.gradient(&before);
            let slope = dot(&gradient, &gradient);
            let gain = slope * slope / (2.0 * all.curvature(&gradient));
            let found = all.loss(&before) - all.loss(&run.point()?);
            near(
                found,
                gain,
                1e-3,
                &format!("fall of the loss in step {step}"),
            )?;
        }
    }
    Ok(())
}

/// Over all choices of three of six examples the mean slope is that of all six, whatever made the direction.
fn slopes_are_unbiased(gpu: &Gpu) -> Outcome {
    // So much damping that step lengths are slopes.
    let options = DebiasedSgdOptions::default()
        .with_damping(1e5)
        .with_backwards(true);
    let (directions, all) = (random_rows(3, N, 3), random_rows(6, N, 4));
    let measure = |batch: &Batch| -> Result<f64, Any> {
        // The first of two folds, or of three.
        let folds = 1 + values_of(batch).len() / 3;
        let options = options.clone().with_strategy(split(folds, 1));
        let mut run = Run::new(gpu, options)?;
        let report = run.step(&joined(&directions, batch))?;
        Ok(report.step_length.unwrap_or(f64::NAN))
    };
    let (mut sum, mut count) = (0.0, 0.0);
    for chosen in (0u32..64).filter(|chosen| chosen.count_ones() == 3) {
        let rows: Vec<Range<usize>> = (0..6)
            .filter(|row| chosen >> row & 1 == 1)
            .map(|row| row..row + 1)
            .collect();
        sum += 1e5 * measure(&all.part(&rows)?)?;
        count += 1.0;
    }
    let theta = [1.0; N];
    let gradient = Dense::new(&directions, N, 0..3).gradient(&theta);
    let slope = dot(&gradient, &Dense::new(&all, N, 0..6).gradient(&theta));
    near(
        sum / count,
        slope / dot(&gradient, &gradient),
        1e-3,
        "mean slope",
    )
}

/// One example of each part, which want opposite things of the first parameter.
fn disagreeing() -> Batch {
    let row = [1.0, 0.0, 0.0, 0.0, 0.0, 0.0];
    batch_of([row, row].concat(), vec![0.0, 3.0])
}

fn where_slopes_disagree_it_stays_or_goes_back(gpu: &Gpu) -> Outcome {
    for strategy in [Strategy::decoupled(), Strategy::cross_fit(2)] {
        let options = DebiasedSgdOptions::default().with_strategy(strategy);
        let mut run = Run::new(gpu, options.clone())?;
        let report = run.step(&disagreeing())?;
        assert_eq!((report.accepted, report.step_norm), (false, 0.0));
        assert_eq!(report.step_length, Some(0.0));
        assert_eq!(run.point()?, vec![1.0; N]);
        // Gradients 1 and -2, both curvatures 1: to the other's minimum, and with both roles to the middle of both.
        let mut run = Run::new(gpu, options.with_backwards(true))?;
        let report = run.step(&disagreeing())?;
        let crosses = strategy == Strategy::cross_fit(2);
        let expected = if crosses { 1.5 } else { 3.0 };
        near(run.point()?[0], expected, 1e-5, "x")?;
        assert!(report.accepted && report.step_length < Some(0.0));
    }
    Ok(())
}

fn step_lengths_have_a_limit(gpu: &Gpu) -> Outcome {
    let options = DebiasedSgdOptions::default()
        .with_max_step_length(0.01)
        .with_backwards(true);
    let mut run = Run::new(gpu, options.clone())?;
    near(
        run.step(&disagreeing())?.step_length.unwrap_or(0.0),
        -0.01,
        1e-9,
        "backwards",
    )?;
    let mut run = Run::new(gpu, options.with_factor(2.0))?;
    let once = random_rows(9, N, 2);
    let found = run.step(&joined(&once, &once))?.step_length;
    near(found.unwrap_or(0.0), 0.02, 1e-9, "forwards")
}

fn a_restored_state_goes_on_with_the_same_bits(gpu: &Gpu) -> Outcome {
    let options = DebiasedSgdOptions::default().with_strategy(Strategy::cross_fit(2));
    let batches: Vec<Batch> = (0..4).map(|seed| random_rows(20, N, seed)).collect();
    let mut run = Run::new(gpu, options.clone())?;
    for batch in &batches {
        run.step(batch)?;
    }
    let state = Optimizer::<GraphObjective>::state(&run.method, &run.objective)?;
    let mut other = Run::new(gpu, options)?;
    other.theta.write(gpu, &run.theta.read(gpu)?)?;
    other.method.restore(&other.objective, &state)?;
    let again = Optimizer::<GraphObjective>::state(&other.method, &other.objective)?;
    assert_eq!(state, again);
    for batch in &batches {
        let (one, two) = (run.step(batch)?, other.step(batch)?);
        assert_eq!(one.loss_before, two.loss_before);
        assert_eq!(one.step_length, two.step_length);
    }
    assert_eq!(run.point()?, other.point()?);
    // The state of another method is refused.
    let mut sgd = Sgd::new(SgdOptions::default())?;
    sgd.step(&mut run.objective, &run.theta, &batches[0])?;
    let foreign = sgd.state(&run.objective)?;
    assert!(run.method.restore(&run.objective, &foreign).is_err());
    assert!(sgd.restore(&run.objective, &state).is_err());
    Ok(())
}

fn numbers_that_are_not_finite_change_nothing(gpu: &Gpu) -> Outcome {
    let good = random_rows(4, N, 1);
    // A loss beyond f32, then one of which only the square of the gradient is.
    for (size, word) in [(1e30, "loss"), (1e19, "gradient")] {
        let mut features = [0.0; N];
        features[0] = if word == "loss" { 1.0 } else { 1e2 };
        let bad = batch_of(features.repeat(4), vec![size; 4]);
        for batch in [joined(&good, &bad), joined(&bad, &good)] {
            let mut run = Run::new(gpu, DebiasedSgdOptions::default())?;
            match run.step(&batch) {
                Err(error) if error.to_string().contains(word) => {}
                other => return Err(format!("{word}: {other:?}").into()),
            }
            assert_eq!(run.point()?, vec![1.0; N]);
        }
    }
    Ok(())
}

fn options_out_of_range_are_named(_: &Gpu) -> Outcome {
    let plain = DebiasedSgdOptions::default();
    for (options, word) in [
        (plain.clone().with_strategy(split(2, 2)), "strategy"),
        (plain.clone().with_strategy(Strategy::Single), "strategy"),
        (
            plain.clone().with_strategy(Strategy::cross_fit(3)),
            "two folds",
        ),
        (plain.clone().with_damping(-1.0), "damping"),
        (plain.clone().with_damping(f64::NAN), "damping"),
        (plain.clone().with_max_step_length(0.0), "max_step_length"),
        (plain.with_factor(f64::INFINITY), "factor"),
    ] {
        match DebiasedSgd::new(options) {
            Err(error) if error.to_string().contains(word) => {}
            Err(error) => return Err(format!("'{word}' is missing in: {error}").into()),
            Ok(_) => return Err(format!("{word} out of range was accepted").into()),
        }
    }
    Ok(())
}
