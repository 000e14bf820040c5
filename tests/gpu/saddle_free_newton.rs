//! Low-rank saddle-free Newton: its formula, its stability limit, its noise, and its way out of saddles.

use crate::harness::least_squares::{
    self, Dense, dot, least_squares, random_rows, values_of, wide,
};
use crate::harness::{self, GpuTest, Outcome};
use osculant::data::{Batch, Targets};
use osculant::gpu::Gpu;
use osculant::linalg::EigenOptions;
use osculant::linalg::Storage;
use osculant::nn::functions::{michalewicz, monkey_saddle};
use osculant::nn::{DataShape, Init, Model, Output, TargetShape};
use osculant::objective::{GraphObjective, Objective};
use osculant::optim::{
    Adam, AdamOptions, Base, DampingRule, LowRankSaddleFreeNewton, LrsfnOptions, Optimizer,
    OptimizerState, RankRule, Sgd, SgdOptions, StepReport, Strategy,
};
use osculant::random::Philox;
use osculant::vector::Vector;

pub(crate) fn tests() -> Vec<GpuTest> {
    gpu_tests![
        a_step_is_the_formula,
        the_stability_limit_is_sharp,
        noise_leaves_the_loss_of_the_formula,
        it_leaves_a_saddle,
        a_step_that_raises_the_loss_is_refused,
        readbacks_are_as_documented,
        a_restored_state_goes_on_with_the_same_bits,
        options_out_of_range_are_named,
        momentum_moves_the_complement_alone,
        adam_moves_the_complement_alone,
        curvature_is_averaged,
        noise_is_the_standard_error_over_sub_batches,
        noisy_eigenvectors_stay_in_the_complement,
        curvature_comes_from_its_part_of_the_batch,
        with_the_same_examples_twice_it_is_the_single_step,
        a_decoupled_step_is_the_formula,
        held_out_curvature_is_averaged,
        held_out_noise_is_of_the_examples_that_step,
        held_out_slopes_and_eigenvalues_are_unbiased,
        a_cross_fit_step_is_the_mean_of_decoupled_ones,
        the_least_damping_is_of_the_examples_of_the_eigenvectors,
        it_trains_by_every_strategy,
        restored_folds_go_on_with_the_same_bits,
        readbacks_and_work_of_strategies_are_as_documented,
        batches_too_small_for_their_roles_are_refused,
        the_automatic_step_is_half_of_the_stable_one,
        a_residual_test_finds_the_rank,
        half_precision_takes_nearly_the_same_steps,
    ]
}

type Any = Box<dyn std::error::Error>;

/// `sum of d_i x_i^2 / 2 + b . x`, where `b` comes with the batch; from all ones.
fn diagonal(d: &[f32]) -> Model {
    let (n, d) = (d.len(), d.to_vec());
    let shape = DataShape {
        features: n,
        targets: TargetShape::Inputs,
    };
    Model::new(shape, move |scope| {
        let x = scope.parameter("x", &[n], Init::Constant(1.0));
        let own = (x.square() * scope.data(d.clone(), &[n])).sum(&[0]) * 0.5;
        let along = (scope.features() * x.reshape(&[1, n]))
            .sum(&[1])
            .reshape(&[scope.rows()]);
        Output {
            losses: along + own.reshape(&[1]).broadcast(&[scope.rows()]),
            outputs: x,
            metric: None,
        }
    })
}

fn batch_of(b: &[f32]) -> Batch {
    Batch {
        features: b.to_vec(),
        ..Batch::without_data()
    }
}

/// Spectrum with a gap after the first three.
const D: [f32; 8] = [8.0, -6.0, 4.0, 1.0, 0.8, 0.6, -0.4, 0.2];
const RANK: usize = 3;

fn eigen(rank: usize) -> EigenOptions {
    EigenOptions::default()
        .with_rank(rank)
        .with_oversampling(5)
        .with_power_iterations(2)
}

struct Run {
    gpu: Gpu,
    objective: GraphObjective,
    theta: Vector,
    method: LowRankSaddleFreeNewton,
}

impl Run {
    fn new(gpu: &Gpu, model: Model, options: LrsfnOptions, seed: u64) -> Result<Self, Any> {
        let objective = GraphObjective::new(gpu, model)?;
        let theta = objective.initial_parameters(seed)?;
        Ok(Self {
            gpu: gpu.clone(),
            objective,
            theta,
            method: LowRankSaddleFreeNewton::new(options)?,
        })
    }

    fn step(&mut self, batch: &Batch) -> Result<StepReport, Any> {
        Ok(self.method.step(&mut self.objective, &self.theta, batch)?)
    }

    fn point(&self) -> Result<Vec<f32>, Any> {
        Ok(self.theta.read(&self.gpu)?.concat())
    }
}

fn a_step_is_the_formula(gpu: &Gpu) -> Outcome {
    let (alpha, beta, gamma) = (0.7, 0.3, 0.9);
    let options = LrsfnOptions::paper(RANK, alpha, gamma)
        .with_eigen(eigen(RANK))
        .with_step_length(alpha)
        .with_step_length_beyond(beta);
    let mut run = Run::new(gpu, diagonal(&D), options, 0)?;
    let b = [0.5, -1.0, 0.25, 2.0, 0.0, 1.0, -0.5, 0.125];
    let report = run.step(&batch_of(&b))?;
    for (i, (x, (d, b))) in run.point()?.iter().zip(D.iter().zip(b)).enumerate() {
        let g = f64::from(*d) + f64::from(b);
        let factor = if i < RANK {
            alpha / (f64::from(d.abs()) + gamma)
        } else {
            beta / gamma
        };
        let expected = 1.0 - factor * g;
        if (f64::from(*x) - expected).abs() > 2e-4 {
            return Err(format!("x[{i}] is {x}, not {expected}").into());
        }
    }
    for (found, expected) in report.eigenvalues.iter().zip([8.0, -6.0, 4.0]) {
        if (found - expected).abs() > 1e-3 {
            return Err(format!("eigenvalues {:?}", report.eigenvalues).into());
        }
    }
    Ok(())
}

/// On a quadratic, what was not captured is stable for steps below `2 gamma / |l_(r+1)|` and no others.
fn the_stability_limit_is_sharp(gpu: &Gpu) -> Outcome {
    let d = [8.0, 6.0, 4.0, 1.0, 0.8, 0.6, 0.4, 0.2];
    let gamma = 0.25;
    let limit = 2.0 * gamma / 1.0;
    for (part, converges) in [(0.98, true), (1.02, false)] {
        let options = LrsfnOptions::paper(RANK, part * limit, gamma).with_eigen(eigen(RANK));
        let mut run = Run::new(gpu, diagonal(&d), options, 0)?;
        for _ in 0..120 {
            run.step(&batch_of(&[0.0; 8]))?;
        }
        let last = f64::from(run.point()?[3].abs());
        // The factor per step is 1 - 2 part.
        let expected = (2.0 * part - 1.0f64).abs().powi(120);
        if (last / expected - 1.0).abs() > 0.05 || (last < 1.0) != converges {
            return Err(format!("{part} of the limit: {last:.3e}, expected {expected:.3e}").into());
        }
    }
    Ok(())
}

/// With gradient noise of variance `s^2` per direction the loss stays above its minimum by the sum of `l Var / 2`, where
/// `Var = alpha s^2 m / (l (2 - alpha l m))` and `m` is `1 / (l + gamma)`, or `1 / gamma` beyond the captured space.
fn noise_leaves_the_loss_of_the_formula(gpu: &Gpu) -> Outcome {
    use rand_distr::{Distribution, StandardNormal};
    let d = [8.0f32, 6.0, 4.0, 1.0, 0.8, 0.6, 0.4, 0.2];
    let (alpha, gamma, s) = (0.3, 0.5, 0.1);
    let options = LrsfnOptions::paper(RANK, alpha, gamma)
        .with_eigen(eigen(RANK))
        .with_refresh(100_000);
    let mut run = Run::new(gpu, diagonal(&d), options, 0)?;
    let mut random = Philox::new(5, 7 << 40);
    let (mut sum, mut count) = (0.0, 0);
    for step in 0..6_000 {
        let noise: Vec<f32> = (0..8)
            .map(|_| {
                let z: f64 = StandardNormal.sample(&mut random);
                (s * z) as f32
            })
            .collect();
        if step >= 200 && step % 4 == 0 {
            let x = run.point()?;
            let excess: f64 = x
                .iter()
                .zip(d)
                .map(|(x, d)| 0.5 * f64::from(d * x * x))
                .sum();
            sum += excess;
            count += 1;
        }
        run.step(&batch_of(&noise))?;
    }
    let found = sum / f64::from(count);
    let expected: f64 = d
        .iter()
        .enumerate()
        .map(|(i, &l)| {
            let l = f64::from(l);
            let m = if i < RANK {
                1.0 / (l + gamma)
            } else {
                1.0 / gamma
            };
            0.5 * alpha * s * s * m / (2.0 - alpha * l * m)
        })
        .sum();
    if (found / expected - 1.0).abs() > 0.1 {
        return Err(format!("excess loss {found:.4e}, formula {expected:.4e}").into());
    }
    Ok(())
}

fn it_leaves_a_saddle(gpu: &Gpu) -> Outcome {
    for seed in 0..3 {
        let options = LrsfnOptions::default()
            .with_eigen(EigenOptions::default().with_rank(2).with_oversampling(0));
        let mut run = Run::new(gpu, monkey_saddle(), options, seed)?;
        let batch = Batch::without_data();
        let mut last = 0.0;
        for _ in 0..60 {
            last = run.step(&batch)?.loss_after.unwrap_or(f64::NAN);
        }
        if (last + 27.0 / 256.0).abs() > 1e-4 {
            return Err(format!("seed {seed}: {last} after 60 steps").into());
        }
    }
    Ok(())
}

fn a_step_that_raises_the_loss_is_refused(gpu: &Gpu) -> Outcome {
    let rule = osculant::optim::AdaptiveDamping::default().with_initial(1e-6);
    let options = LrsfnOptions::default()
        .with_damping(1e-6)
        .with_rule(DampingRule::Adaptive(rule))
        .with_step_length(4.0)
        .with_step_length_beyond(4.0)
        .with_eigen(eigen(4));
    let mut run = Run::new(gpu, michalewicz(20), options, 3)?;
    let batch = Batch::without_data();
    let (mut refused, mut before) = (0, f64::INFINITY);
    for _ in 0..30 {
        let start = run.point()?;
        let report = run.step(&batch)?;
        if report.loss_before > before + 1e-6 {
            return Err(format!("the loss rose from {before} to {}", report.loss_before).into());
        }
        before = report.loss_before;
        if !report.accepted {
            refused += 1;
            assert_eq!(start, run.point()?);
        }
    }
    if refused == 0 {
        return Err("no step was refused".into());
    }
    Ok(())
}

fn readbacks_are_as_documented(gpu: &Gpu) -> Outcome {
    // A device of its own: other trials read from the shared one at the same time.
    let gpu = &harness::of_its_own(gpu)?;
    for (power_iterations, refresh, expected) in [(0, 1, 2), (1, 1, 4), (0, 2, 1)] {
        let options = LrsfnOptions::default()
            .with_eigen(eigen(RANK).with_power_iterations(power_iterations))
            .with_refresh(refresh);
        // A block much narrower than the space is well conditioned, and one pass makes it orthonormal.
        let d: Vec<f32> = (0..64).map(|i| 4.0 - i as f32 / 32.0).collect();
        let mut run = Run::new(gpu, diagonal(&d), options, 0)?;
        let batch = batch_of(&[0.0; 64]);
        run.step(&batch)?;
        let report = run.step(&batch)?;
        if report.readbacks != expected {
            return Err(format!(
                "{power_iterations} power iterations, refresh {refresh}: {} readbacks, not {expected}",
                report.readbacks
            )
            .into());
        }
    }
    Ok(())
}

fn a_restored_state_goes_on_with_the_same_bits(gpu: &Gpu) -> Outcome {
    let options = || LrsfnOptions::default().with_eigen(eigen(4)).with_refresh(2);
    let batch = Batch::without_data();
    let mut run = Run::new(gpu, michalewicz(20), options(), 1)?;
    for _ in 0..3 {
        run.step(&batch)?;
    }
    let state: OptimizerState = Optimizer::<GraphObjective>::state(&run.method, &run.objective)?;
    let mut other = Run::new(gpu, michalewicz(20), options(), 1)?;
    other.theta.write(gpu, &run.theta.read(gpu)?)?;
    other.method.restore(&other.objective, &state)?;
    for _ in 0..3 {
        let (one, two) = (run.step(&batch)?, other.step(&batch)?);
        assert_eq!(one.loss_before, two.loss_before);
        assert_eq!(one.eigenvalues, two.eigenvalues);
    }
    assert_eq!(run.point()?, other.point()?);
    assert_eq!(run.objective.layout().parameters(), 20);
    Ok(())
}

fn options_out_of_range_are_named(_: &Gpu) -> Outcome {
    for (options, word) in [
        (LrsfnOptions::default().with_damping(0.0), "damping"),
        (LrsfnOptions::default().with_refresh(0), "refresh"),
        (
            LrsfnOptions::default()
                .with_step_length(-1.0)
                .with_step_length_beyond(1.0),
            "step_length",
        ),
        (LrsfnOptions::paper(0, 1.0, 1.0), "rank"),
        (
            LrsfnOptions::default().with_curvature_part(1.5),
            "curvature_part",
        ),
        (
            LrsfnOptions::default()
                .with_strategy(Strategy::decoupled())
                .with_curvature_part(0.5),
            "curvature_part",
        ),
        (
            LrsfnOptions::default().with_strategy(split(2, 0)),
            "strategy",
        ),
        (
            LrsfnOptions::default().with_strategy(Strategy::cross_fit(1)),
            "strategy",
        ),
        (
            LrsfnOptions::default()
                .with_strategy(Strategy::cross_fit(2))
                .with_base(Base::Adam(AdamOptions::default())),
            "base",
        ),
        (
            LrsfnOptions::default()
                .with_strategy(Strategy::cross_fit(2))
                .with_automatic(Some(5)),
            "automatic",
        ),
        (LrsfnOptions::default().with_acceptance(1.0), "acceptance"),
        (LrsfnOptions::default().with_average(1.0), "average"),
        (
            LrsfnOptions::default()
                .with_automatic(Some(5))
                .with_base(Base::Sgd(SgdOptions::default())),
            "automatic",
        ),
        (
            LrsfnOptions::default().with_base(Base::Sgd(SgdOptions::default().with_momentum(2.0))),
            "momentum",
        ),
        (
            LrsfnOptions::default()
                .with_base(Base::Adam(AdamOptions::default().with_weight_decay(0.1))),
            "weight decay",
        ),
        (
            LrsfnOptions::default().with_rank_rule(RankRule::Residual(2.0)),
            "residual",
        ),
    ] {
        match LowRankSaddleFreeNewton::new(options) {
            Err(error) if error.to_string().contains(word) => {}
            Err(error) => return Err(format!("'{word}' is missing in: {error}").into()),
            Ok(_) => return Err(format!("{word} out of range was accepted").into()),
        }
    }
    Ok(())
}

fn within(found: f64, expected: f64, tolerance: f64, what: &str) -> Outcome {
    if (found - expected).abs() <= tolerance {
        Ok(())
    } else {
        Err(format!("{what}: {found}, not {expected}").into())
    }
}

/// With axes as eigenvectors, coordinates beyond the captured ones move as the base optimizer moves them, and the others by the formula.
fn base_moves_the_complement_alone(
    gpu: &Gpu,
    base: Base,
    mut alone: impl Optimizer<GraphObjective>,
) -> Outcome {
    let (alpha, gamma) = (0.7, 0.9);
    let options = LrsfnOptions::paper(RANK, alpha, gamma)
        .with_eigen(eigen(RANK))
        .with_step_length(alpha)
        .with_step_length_beyond(1.0)
        .with_base(base);
    let mut run = Run::new(gpu, diagonal(&D), options, 0)?;
    // The captured directions do not act on the others, so the plain method sees the same there.
    let mut other = GraphObjective::new(gpu, diagonal(&D))?;
    let theta = other.initial_parameters(0)?;
    let b = [0.5, -1.0, 0.25, 2.0, 0.0, 1.0, -0.5, 0.125];
    for step in 0..5 {
        let before = run.point()?;
        run.step(&batch_of(&b))?;
        alone.step(&mut other, &theta, &batch_of(&b))?;
        let (after, plain) = (run.point()?, theta.read(gpu)?.concat());
        for i in 0..8 {
            let expected = if i < RANK {
                let g = f64::from(D[i] * before[i] + b[i]);
                f64::from(before[i]) - alpha * g / (f64::from(D[i].abs()) + gamma)
            } else {
                f64::from(plain[i])
            };
            let what = format!("x[{i}] after step {step}");
            within(f64::from(after[i]), expected, 1e-3, &what)?;
        }
    }
    Ok(())
}

fn momentum_moves_the_complement_alone(gpu: &Gpu) -> Outcome {
    let options = SgdOptions::default().with_learning_rate(0.05);
    base_moves_the_complement_alone(gpu, Base::Sgd(options.clone()), Sgd::new(options)?)
}

fn adam_moves_the_complement_alone(gpu: &Gpu) -> Outcome {
    let options = AdamOptions::default().with_learning_rate(0.05);
    base_moves_the_complement_alone(gpu, Base::Adam(options.clone()), Adam::new(options)?)
}

/// `mean over rows of sum_i f[row, i] x_i^2 / 2`: each example has a Hessian of its own.
fn weighted(n: usize) -> Model {
    let shape = DataShape {
        features: n,
        targets: TargetShape::Inputs,
    };
    Model::new(shape, move |scope| {
        let x = scope.parameter("x", &[n], Init::Constant(1.0));
        let losses = (scope.features() * x.square().reshape(&[1, n])).sum(&[1]) * 0.5;
        Output {
            losses: losses.reshape(&[scope.rows()]),
            outputs: x,
            metric: None,
        }
    })
}

/// Rows of features as a batch with equal weights.
fn rows(features: &[[f32; 4]]) -> Batch {
    Batch {
        features: features.concat(),
        weights: vec![1.0 / features.len() as f32; features.len()],
        ..Batch::without_data()
    }
}

fn four() -> EigenOptions {
    EigenOptions::default()
        .with_rank(4)
        .with_oversampling(0)
        .with_power_iterations(0)
}

fn curvature_is_averaged(gpu: &Gpu) -> Outcome {
    let beta = 0.5;
    let options = LrsfnOptions::paper(4, 0.0, 1.0)
        .with_eigen(four())
        .with_average(beta);
    let mut run = Run::new(gpu, weighted(4), options, 0)?;
    let batches = [
        [8.0, -4.0, 2.0, 0.5],
        [2.0, -8.0, 1.0, 0.25],
        [1.0, 2.0, 3.0, 1.0],
    ];
    let (mut sum, mut weight) = ([0.0f64; 4], 0.0);
    for batch in batches {
        let report = run.step(&rows(&[batch]))?;
        weight = beta * weight + 1.0 - beta;
        for (sum, x) in sum.iter_mut().zip(batch) {
            *sum = beta * *sum + (1.0 - beta) * f64::from(x);
        }
        let mut expected: Vec<f64> = sum.iter().map(|s| s / weight).collect();
        expected.sort_by(|a, b| b.abs().total_cmp(&a.abs()));
        for (found, expected) in report.eigenvalues.iter().zip(expected) {
            within(*found, expected, 1e-4, "eigenvalue")?;
        }
    }
    Ok(())
}

fn noisy() -> Batch {
    // Sub-batches of two: means of the first coordinate are 8 and 6, of the second -4 and -4, of the losses 3 and -1, of the fourth 0.5 and
    // 0.5.
    rows(&[
        [9.0, -4.0, 2.0, 0.5],
        [7.0, -4.0, 4.0, 0.5],
        [6.0, -4.0, -1.0, 0.5],
        [6.0, -4.0, -1.0, 0.5],
    ])
}

fn noise_is_the_standard_error_over_sub_batches(gpu: &Gpu) -> Outcome {
    let options = LrsfnOptions::paper(4, 0.0, 1.0)
        .with_eigen(four())
        .with_rank_rule(RankRule::Noise {
            least: 0.0,
            parts: 2,
        });
    let mut run = Run::new(gpu, weighted(4), options, 0)?;
    let report = run.step(&noisy())?;
    let expected = [(7.0, 1.0), (-4.0, 0.0), (1.0, 2.0), (0.5, 0.0)];
    assert_eq!(report.eigenvalue_noise.len(), 4);
    let found = report.eigenvalues.iter().zip(&report.eigenvalue_noise);
    for ((value, noise), (expected, deviation)) in found.zip(expected) {
        within(*value, expected, 1e-4, "eigenvalue")?;
        within(*noise, deviation, 1e-4, "noise")?;
    }
    Ok(())
}

fn noisy_eigenvectors_stay_in_the_complement(gpu: &Gpu) -> Outcome {
    let (alpha, beta, gamma) = (0.5, 0.25, 2.0);
    let options = LrsfnOptions::paper(4, alpha, gamma)
        .with_eigen(four())
        .with_step_length(alpha)
        .with_step_length_beyond(beta)
        .with_rank_rule(RankRule::Noise {
            least: 2.0,
            parts: 2,
        });
    let mut run = Run::new(gpu, weighted(4), options, 0)?;
    let report = run.step(&noisy())?;
    assert_eq!(report.eigenvalues.len(), 2);
    for (i, x) in run.point()?.iter().enumerate() {
        let value: f64 = [7.0, -4.0, 1.0, 0.5][i];
        let gain = if i < 2 {
            alpha / (value.abs() + gamma)
        } else {
            beta / gamma
        };
        within(f64::from(*x), 1.0 - gain * value, 1e-4, "x")?;
    }
    Ok(())
}

fn curvature_comes_from_its_part_of_the_batch(gpu: &Gpu) -> Outcome {
    let (alpha, gamma) = (0.5, 1.0);
    let (one, two) = ([4.0f32, 2.0, 1.0, 0.5], [1.0f32, 3.0, -2.0, 8.0]);
    let gradient = [2.5, 2.5, -0.5, 4.25];
    let options = LrsfnOptions::paper(4, alpha, gamma)
        .with_eigen(four())
        .with_curvature_part(0.5);
    let mut run = Run::new(gpu, weighted(4), options, 0)?;
    run.step(&rows(&[one, one, two, two]))?;
    for (i, x) in run.point()?.iter().enumerate() {
        let gain = alpha / (f64::from(one[i].abs()) + gamma);
        within(f64::from(*x), 1.0 - gain * gradient[i], 1e-4, "x")?;
    }
    Ok(())
}

/// The first `directions` of `folds` folds make eigenvectors.
fn split(folds: usize, directions: usize) -> Strategy {
    Strategy::Decoupled { folds, directions }
}

/// Random rows for least squares, with features of falling size.
fn graded_rows(count: usize, n: usize, seed: u64) -> Batch {
    let batch = random_rows(count, n, seed);
    let values = values_of(&batch).iter().map(|y| 3.0 * y).collect();
    let features = batch.features.iter().enumerate();
    least_squares::batch_of(
        features
            .map(|(at, x)| 3.0 * x / (1 + at % n) as f32)
            .collect(),
        values,
    )
}

/// The eigenvectors that an optimizer works with.
fn eigenvectors(run: &Run, rank: usize) -> Result<Vec<Vec<f64>>, Any> {
    let state = Optimizer::<GraphObjective>::state(&run.method, &run.objective)?;
    (0..rank)
        .map(|i| {
            let vector = state.vector(&format!("eigenvector {i}"));
            Ok(wide(&vector.ok_or("no eigenvector")?.concat()))
        })
        .collect()
}

const N: usize = 6;

/// An eigensolver that finds less than all of the eigenvectors, so that its start matters.
fn rough(rank: usize) -> EigenOptions {
    EigenOptions::default()
        .with_rank(rank)
        .with_oversampling(1)
        .with_power_iterations(0)
}

fn with_the_same_examples_twice_it_is_the_single_step(gpu: &Gpu) -> Outcome {
    let once = graded_rows(9, N, 4);
    let Targets::Values { values, .. } = &once.targets else {
        return Err("no values".into());
    };
    let twice = Batch {
        features: once.features.repeat(2),
        targets: Targets::Values {
            values: values.repeat(2),
            width: 1,
        },
        weights: vec![1.0 / 18.0; 18],
    };
    let plain = LrsfnOptions::default().with_eigen(eigen(3));
    let adam = AdamOptions::default().with_learning_rate(0.05);
    for (index, options) in [
        plain.clone(),
        LrsfnOptions::paper(3, 0.7, 0.3).with_eigen(eigen(3)),
        plain.clone().with_average(0.6),
        plain.clone().with_base(Base::Adam(adam)),
        plain.with_refresh(2),
    ]
    .into_iter()
    .enumerate()
    {
        let mut single = Run::new(gpu, least_squares(N, 1.0), options.clone(), 0)?;
        let both = [Strategy::decoupled(), Strategy::cross_fit(2)];
        let crossed = options.base == Base::Gradient;
        let mut others = both[..1 + usize::from(crossed)]
            .iter()
            .map(|&strategy| {
                let options = options.clone().with_strategy(strategy);
                Run::new(gpu, least_squares(N, 1.0), options, 0)
            })
            .collect::<Result<Vec<_>, _>>()?;
        for step in 0..3 {
            let expected = single.step(&once)?;
            for other in &mut others {
                let report = other.step(&twice)?;
                let what = |name: &str| format!("{name} of step {step} with options {index}");
                let (found, loss) = (report.loss_before, expected.loss_before);
                within(found, loss, 1e-4 * loss, &what("loss"))?;
                // One list for each fold.
                let count = expected.eigenvalues.len();
                let folds = report.eigenvalues.len() / count;
                assert!(folds >= 1 && report.eigenvalues.len() == folds * count);
                let all = expected.eigenvalues.iter().cycle();
                for (found, value) in report.eigenvalues.iter().zip(all) {
                    within(*found, *value, 1e-4, &what("eigenvalue"))?;
                }
                let damping = expected.damping.unwrap_or(0.0);
                let found = report.damping.unwrap_or(0.0);
                within(found, damping, 1e-3 * damping, &what("damping"))?;
                for (x, y) in other.point()?.iter().zip(single.point()?) {
                    within(f64::from(*x), f64::from(y), 1e-3, &what("x"))?;
                }
            }
        }
    }
    Ok(())
}

fn a_decoupled_step_is_the_formula(gpu: &Gpu) -> Outcome {
    let (alpha, beta, gamma, rank) = (0.7, 0.4, 0.8, 3);
    let batch = graded_rows(20, N, 1);
    // Rows of directions, of steps, and of judges.
    for (strategy, acceptance, cut, end, judging) in [
        (Strategy::decoupled(), 0.0, 10, 20, 0..20),
        (split(4, 1), 0.0, 5, 20, 0..20),
        // Two rows are left out by all but those who judge.
        (split(3, 2), 0.0, 12, 18, 0..20),
        (Strategy::decoupled(), 0.4, 6, 12, 12..20),
    ] {
        let options = LrsfnOptions::paper(rank, alpha, gamma)
            .with_eigen(eigen(rank))
            .with_step_length(alpha)
            .with_step_length_beyond(beta)
            .with_strategy(strategy)
            .with_acceptance(acceptance);
        let mut run = Run::new(gpu, least_squares(N, 1.0), options, 0)?;
        let before = wide(&run.point()?);
        let report = run.step(&batch)?;
        let after = wide(&run.point()?);
        let others = Dense::new(&batch, N, cut..end);
        let judges = Dense::new(&batch, N, judging);
        let vectors = eigenvectors(&run, rank)?;
        let axis =
            |at: usize| -> Vec<f64> { (0..N).map(|i| f64::from(u8::from(i == at))).collect() };
        let gradient: Vec<f64> = (0..N).map(|at| others.slope(&before, &axis(at))).collect();
        let mut step: Vec<f64> = gradient.iter().map(|g| -beta / gamma * g).collect();
        let mut curvature = 0.0;
        for (vector, found) in vectors.iter().zip(&report.eigenvalues) {
            let value = others.curvature(vector);
            within(*found, value, 1e-4 * value, "eigenvalue")?;
            let slope = dot(vector, &gradient);
            let moved = alpha * slope / (value.abs() + gamma);
            curvature += value * moved * moved;
            let more = beta / gamma * slope - moved;
            step.iter_mut()
                .zip(vector)
                .for_each(|(d, u)| *d += more * u);
        }
        for ((x, d), found) in before.iter().zip(&step).zip(&after) {
            within(*found, x + d, 2e-4, "x")?;
        }
        let (base, loss) = (judges.loss(&before), judges.loss(&after));
        within(report.loss_before, base, 1e-5 * base, "loss before")?;
        let found = report.loss_after.unwrap_or(f64::NAN);
        within(found, loss, 1e-5 * base, "loss after")?;
        let rho = (loss - base) / (judges.slope(&before, &step) + 0.5 * curvature);
        within(report.rho.unwrap_or(f64::NAN), rho, 1e-3, "rho")?;
        let length = dot(&step, &step).sqrt();
        within(report.step_norm, length, 1e-4 * length, "length")?;
    }
    Ok(())
}

fn held_out_curvature_is_averaged(gpu: &Gpu) -> Outcome {
    let beta = 0.5;
    let options = LrsfnOptions::paper(4, 0.0, 1.0)
        .with_eigen(four())
        .with_average(beta)
        .with_strategy(Strategy::decoupled());
    let mut run = Run::new(gpu, weighted(4), options, 0)?;
    // The first row makes eigenvectors; they are the axes all the time.
    let directions = [8.0, -4.0, 2.0, 0.5];
    let batches = [
        [7.0, -2.0, 1.5, 0.7],
        [9.0, -5.0, 1.0, 0.2],
        [6.0, -3.0, 3.0, -0.5],
    ];
    let (mut sum, mut weight) = ([0.0f64; 4], 0.0);
    for batch in batches {
        let report = run.step(&rows(&[directions, batch]))?;
        weight = beta * weight + 1.0 - beta;
        for ((sum, x), found) in sum.iter_mut().zip(batch).zip(&report.eigenvalues) {
            *sum = beta * *sum + (1.0 - beta) * f64::from(x);
            within(*found, *sum / weight, 1e-4, "eigenvalue")?;
        }
    }
    Ok(())
}

fn held_out_noise_is_of_the_examples_that_step(gpu: &Gpu) -> Outcome {
    let options = LrsfnOptions::paper(4, 0.0, 1.0)
        .with_eigen(four())
        .with_strategy(Strategy::decoupled())
        .with_rank_rule(RankRule::Noise {
            least: 2.0,
            parts: 2,
        });
    let mut run = Run::new(gpu, weighted(4), options, 0)?;
    let directions = [8.0, -5.0, 2.0, 0.5];
    let mut features = vec![directions; 4];
    // Sub-batches of two: means of the first coordinate are 8 and 6, of the second -4 and -4, of the losses 3 and -1.
    features.extend([
        [9.0, -4.0, 2.0, 0.5],
        [7.0, -4.0, 4.0, 0.5],
        [6.0, -4.0, -1.0, 0.5],
        [6.0, -4.0, -1.0, 0.5],
    ]);
    let report = run.step(&rows(&features))?;
    assert_eq!(report.eigenvalues.len(), 2, "{:?}", report.eigenvalues);
    let found = report.eigenvalues.iter().zip(&report.eigenvalue_noise);
    for ((value, noise), (expected, deviation)) in found.zip([(7.0, 1.0), (-4.0, 0.0)]) {
        within(*value, expected, 1e-4, "eigenvalue")?;
        within(*noise, deviation, 1e-4, "noise")?;
    }
    Ok(())
}

/// Over all batches of three of six examples the mean is what all six give, whatever made the eigenvectors.
fn held_out_slopes_and_eigenvalues_are_unbiased(gpu: &Gpu) -> Outcome {
    // So much damping that steps are slopes.
    let (gamma, rank) = (1e4, 3);
    let options = LrsfnOptions::paper(rank, gamma, gamma)
        .with_eigen(eigen(rank))
        .with_step_length(gamma)
        .with_step_length_beyond(0.0)
        .with_strategy(Strategy::decoupled());
    let all = graded_rows(6, N, 2);
    let directions = graded_rows(3, N, 3);
    let measure = |batch: &Batch| -> Result<Vec<f64>, Any> {
        let mut run = Run::new(gpu, least_squares(N, 1.0), options.clone(), 0)?;
        let before = run.point()?;
        let (objective, theta) = (&mut run.objective, &run.theta);
        let method = &mut run.method;
        let report = method.step_with_curvature(objective, theta, batch, &directions)?;
        let moved = run.point()?;
        let moved = moved.iter().zip(before).map(|(x, y)| f64::from(x - y));
        Ok(report.eigenvalues.into_iter().chain(moved).collect())
    };
    let expected = measure(&all)?;
    let (mut sum, mut count) = (vec![0.0; expected.len()], 0.0);
    for chosen in (0u32..64).filter(|chosen| chosen.count_ones() == 3) {
        let rows: Vec<std::ops::Range<usize>> = (0..6)
            .filter(|row| chosen >> row & 1 == 1)
            .map(|row| row..row + 1)
            .collect();
        let found = measure(&all.part(&rows)?)?;
        sum.iter_mut().zip(found).for_each(|(sum, x)| *sum += x);
        count += 1.0;
    }
    for (sum, expected) in sum.iter().zip(expected) {
        within(sum / count, expected, 2e-3, "mean")?;
    }
    Ok(())
}

fn a_cross_fit_step_is_the_mean_of_decoupled_ones(gpu: &Gpu) -> Outcome {
    let options = LrsfnOptions::paper(3, 0.6, 0.5)
        .with_eigen(rough(3))
        .with_recall(true)
        .with_step_length(0.6)
        .with_step_length_beyond(0.3);
    for (folds, directions) in [(2, 1), (3, 2), (3, 1)] {
        let batches: Vec<Batch> = (0..3).map(|seed| graded_rows(12, N, seed)).collect();
        let size = 12 / folds;
        let with = |strategy| options.clone().with_strategy(strategy);
        let crossed = with(Strategy::CrossFit { folds, directions });
        let mut crossed = Run::new(gpu, least_squares(N, 1.0), crossed, 0)?;
        let mut parts = (0..folds)
            .map(|_| {
                let part = with(split(folds, directions));
                Run::new(gpu, least_squares(N, 1.0), part, 0)
            })
            .collect::<Result<Vec<_>, _>>()?;
        for batch in &batches {
            let before = crossed.theta.read(gpu)?;
            let report = crossed.step(batch)?;
            let (mut mean, mut values) = (vec![0.0; N], Vec::new());
            for (first, part) in parts.iter_mut().enumerate() {
                part.theta.write(gpu, &before)?;
                // Directions before steps, both in the order of the batch.
                let mut order: Vec<usize> = (0..folds).map(|i| (first + i) % folds).collect();
                order[..directions].sort_unstable();
                order[directions..].sort_unstable();
                let order = order.iter().map(|fold| fold * size..(fold + 1) * size);
                let order = batch.part(&order.collect::<Vec<_>>())?;
                values.extend(part.step(&order)?.eigenvalues);
                let moved = part.point()?;
                let share = 1.0 / folds as f64;
                mean.iter_mut()
                    .zip(moved)
                    .for_each(|(mean, x)| *mean += share * f64::from(x));
            }
            for (found, expected) in crossed.point()?.iter().zip(mean) {
                within(f64::from(*found), expected, 1e-5, "x")?;
            }
            assert_eq!(report.eigenvalues, values);
        }
    }
    Ok(())
}

fn the_least_damping_is_of_the_examples_of_the_eigenvectors(gpu: &Gpu) -> Outcome {
    // Of the second row the second eigenvalue of the first is nearly zero, and its own second one is 2.
    let (one, two) = ([8.0f32, 4.0, 1.0, 0.5], [7.0f32, -0.25, 2.0, 0.5]);
    let options = LrsfnOptions::default().with_eigen(eigen(2));
    for (strategy, values) in [
        (Strategy::decoupled(), vec![7.0, -0.25]),
        (Strategy::cross_fit(2), vec![7.0, -0.25, 8.0, 1.0]),
    ] {
        let options = options.clone().with_strategy(strategy);
        let mut run = Run::new(gpu, weighted(4), options, 0)?;
        let report = run.step(&rows(&[one, two]))?;
        within(report.damping.unwrap_or(0.0), 4.0, 1e-3, "damping")?;
        assert_eq!(report.eigenvalues.len(), values.len());
        for (found, value) in report.eigenvalues.iter().zip(values) {
            within(*found, value, 1e-3, "eigenvalue")?;
        }
    }
    Ok(())
}

fn strategies() -> [LrsfnOptions; 4] {
    let options = LrsfnOptions::default().with_eigen(rough(3));
    let decoupled = options.clone().with_strategy(Strategy::decoupled());
    [
        decoupled.clone().with_refresh(2),
        decoupled
            .with_base(Base::Adam(AdamOptions::default().with_learning_rate(0.05)))
            .with_average(0.5),
        options
            .clone()
            .with_strategy(Strategy::cross_fit(3))
            .with_acceptance(0.25)
            .with_refresh(2),
        options
            .with_strategy(Strategy::cross_fit(2))
            .with_storage(Storage::Half)
            .with_average(0.5)
            .with_rank_rule(RankRule::Noise {
                least: 0.5,
                parts: 2,
            }),
    ]
}

fn it_trains_by_every_strategy(gpu: &Gpu) -> Outcome {
    let batch = graded_rows(48, N, 5);
    let all = Dense::new(&batch, N, 0..48);
    for (index, options) in strategies().into_iter().enumerate() {
        let mut run = Run::new(gpu, least_squares(N, 1.0), options, 0)?;
        let first = all.loss(&wide(&run.point()?));
        let mut last = f64::INFINITY;
        for _ in 0..30 {
            let report = run.step(&batch)?;
            let after = report.loss_after.unwrap_or(f64::NAN);
            // The change has more digits than the loss.
            let change = report.loss_change.unwrap_or(f64::NAN);
            if change > 0.0 || change.is_nan() || report.loss_before > last + 1e-6 {
                return Err(format!("strategy {index}: the loss rose, {report:?}").into());
            }
            last = after;
        }
        let found = all.loss(&wide(&run.point()?));
        if found > 0.7 * first {
            return Err(format!("strategy {index}: from {first} to {found}").into());
        }
    }
    Ok(())
}

fn restored_folds_go_on_with_the_same_bits(gpu: &Gpu) -> Outcome {
    let batches: Vec<Batch> = (0..3).map(|seed| graded_rows(24, N, seed)).collect();
    for (index, options) in strategies().into_iter().enumerate() {
        let mut run = Run::new(gpu, least_squares(N, 1.0), options.clone(), 1)?;
        for batch in &batches {
            run.step(batch)?;
        }
        let state = Optimizer::<GraphObjective>::state(&run.method, &run.objective)?;
        let mut other = Run::new(gpu, least_squares(N, 1.0), options, 1)?;
        other.theta.write(gpu, &run.theta.read(gpu)?)?;
        other.method.restore(&other.objective, &state)?;
        let again = Optimizer::<GraphObjective>::state(&other.method, &other.objective)?;
        assert_eq!(state, again, "strategy {index}");
        for batch in &batches {
            let (one, two) = (run.step(batch)?, other.step(batch)?);
            assert_eq!(one.loss_after, two.loss_after, "strategy {index}");
            assert_eq!(one.eigenvalues, two.eigenvalues, "strategy {index}");
            assert_eq!(one.damping, two.damping, "strategy {index}");
        }
        assert_eq!(run.point()?, other.point()?, "strategy {index}");
    }
    Ok(())
}

fn readbacks_and_work_of_strategies_are_as_documented(gpu: &Gpu) -> Outcome {
    // A device of its own: other trials read from the shared one at the same time.
    let gpu = &harness::of_its_own(gpu)?;
    let (n, rank) = (64, 3);
    let batch = graded_rows(24, n, 0);
    let plain = LrsfnOptions::default().with_eigen(rough(rank));
    let last = |options: LrsfnOptions| -> Result<StepReport, Any> {
        let mut run = Run::new(gpu, least_squares(n, 1.0), options, 0)?;
        // A refused step leaves no eigenpairs to start from.
        while !run.step(&batch)?.accepted {}
        run.step(&batch)
    };
    let with = |strategy| plain.clone().with_strategy(strategy);
    let (decoupled, crossed) = (Strategy::decoupled(), Strategy::cross_fit(3));
    let noise = RankRule::Noise {
        least: 0.1,
        parts: 2,
    };
    for (index, (options, expected)) in [
        (with(decoupled), 3),
        (with(decoupled).with_rank_rule(noise), 3),
        (with(decoupled).with_average(0.5), 3),
        (with(decoupled).with_acceptance(0.25), 3),
        (with(crossed), 7),
        (with(decoupled).with_refresh(2), 1),
        (with(crossed).with_refresh(2), 1),
    ]
    .into_iter()
    .enumerate()
    {
        let found = last(options)?.readbacks;
        if found != expected {
            return Err(format!("options {index}: {found} readbacks, not {expected}").into());
        }
    }
    // Who steps has a gradient, who judges a gradient and the change of the loss.
    let losses = 2.0 / 3.0;
    for (options, expected) in [
        (plain.clone(), 24.0 * (1.0 + losses)),
        (
            plain.clone().with_acceptance(0.25),
            18.0 + 6.0 * (1.0 + losses),
        ),
        (with(decoupled), 12.0 + 24.0 * (1.0 + losses)),
        (with(crossed), 24.0 + 24.0 * (1.0 + losses)),
        (
            with(crossed).with_acceptance(0.25),
            18.0 + 6.0 * (1.0 + losses),
        ),
    ] {
        let found = last(options.with_refresh(2))?.work;
        within(found, expected, 1e-9, "work")?;
    }
    // With eigenpairs of the same examples: linearization and products of those that step, as well as their gradient.
    let single = last(plain.clone().with_curvature_part(0.5))?.work;
    let more = last(with(decoupled))?.work - single;
    within(more, 12.0 * (1.0 + 2.0 * rank as f64) + 12.0, 1e-9, "work")
}

fn batches_too_small_for_their_roles_are_refused(gpu: &Gpu) -> Outcome {
    let plain = LrsfnOptions::default().with_eigen(rough(3));
    for (strategy, rows) in [(Strategy::decoupled(), 1), (Strategy::cross_fit(4), 3)] {
        let options = plain.clone().with_strategy(strategy);
        let mut run = Run::new(gpu, least_squares(N, 1.0), options, 0)?;
        let before = run.point()?;
        match run.step(&graded_rows(rows, N, 0)) {
            Err(error) if error.to_string().contains("larger batch") => {}
            other => return Err(format!("{strategy:?} of {rows} rows: {other:?}").into()),
        }
        assert_eq!(before, run.point()?);
    }
    Ok(())
}

fn the_automatic_step_is_half_of_the_stable_one(gpu: &Gpu) -> Outcome {
    // Preconditioned eigenvalues: 8/9, 6/7, 4/5 captured, then 3 and less.
    let d = [8.0, -6.0, 4.0, 3.0, 0.8, 0.6, -0.4, 0.2];
    let options = LrsfnOptions::paper(RANK, 1.0, 1.0)
        .with_eigen(eigen(RANK))
        .with_automatic(Some(8));
    let mut run = Run::new(gpu, diagonal(&d), options, 0)?;
    let report = run.step(&batch_of(&[0.0; 8]))?;
    within(
        report.step_length.unwrap_or(0.0),
        1.0 / 6.0,
        1e-4,
        "step length",
    )
}

fn a_residual_test_finds_the_rank(gpu: &Gpu) -> Outcome {
    let d: Vec<f32> = (0..64)
        .map(|i| if i < 5 { 6.0 - i as f32 } else { 0.0 })
        .collect();
    let options = LrsfnOptions::paper(30, 1.0, 1.0)
        .with_eigen(EigenOptions::default().with_rank(30).with_oversampling(3))
        .with_rank_rule(RankRule::Residual(1e-2));
    let mut run = Run::new(gpu, diagonal(&d), options, 0)?;
    let report = run.step(&batch_of(&[0.0; 64]))?;
    let leading = report.eigenvalues.iter().filter(|v| v.abs() > 1e-3).count();
    assert_eq!(leading, 5, "{:?}", report.eigenvalues);
    assert!(report.eigenvalues.len() <= 6, "{:?}", report.eigenvalues);
    Ok(())
}

fn half_precision_takes_nearly_the_same_steps(gpu: &Gpu) -> Outcome {
    let mut points = Vec::new();
    for storage in [Storage::Full, Storage::Half] {
        let options = LrsfnOptions::default()
            .with_eigen(eigen(12))
            .with_storage(storage);
        let mut run = Run::new(gpu, michalewicz(40), options, 2)?;
        for _ in 0..2 {
            run.step(&Batch::without_data())?;
        }
        points.push(run.point()?);
    }
    for (one, two) in points[0].iter().zip(&points[1]) {
        within(f64::from(*two), f64::from(*one), 2e-2, "x")?;
    }
    assert_ne!(points[0], points[1]);
    Ok(())
}
