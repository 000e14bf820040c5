//! Low-rank saddle-free Newton: its formula, its stability limit, its noise, and its way out of saddles.

mod harness;

use std::process::ExitCode;

use harness::Outcome;
use osculant::data::Batch;
use osculant::gpu::Gpu;
use osculant::linalg::EigenOptions;
use osculant::nn::functions::{michalewicz, monkey_saddle};
use osculant::nn::{DataShape, Init, Model, Output, TargetShape};
use osculant::objective::{GraphObjective, Objective};
use osculant::optim::{
    DampingRule, LowRankSaddleFreeNewton, LrsfnOptions, Optimizer, OptimizerState, StepReport,
};
use osculant::vector::Vector;

fn main() -> ExitCode {
    let tests = gpu_tests![
        a_step_is_the_formula,
        the_stability_limit_is_sharp,
        noise_leaves_the_loss_of_the_formula,
        it_leaves_a_saddle,
        a_step_that_raises_the_loss_is_refused,
        readbacks_are_as_documented,
        a_restored_state_goes_on_with_the_same_bits,
        options_out_of_range_are_named,
    ];
    harness::main(&tests, &[])
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
        .with_step_lengths(alpha, beta);
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
    use osculant::random::Philox;
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
    let rule = osculant::optim::LevenbergMarquardt::default().with_initial(1e-6);
    let options = LrsfnOptions::default()
        .with_damping(1e-6)
        .with_rule(DampingRule::Adaptive(rule))
        .with_step_lengths(4.0, 4.0)
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
    let gpu = &Gpu::from_wgpu(gpu.device().clone(), gpu.queue().clone())?;
    for (power_iterations, refresh, expected) in [(0, 1, 3), (1, 1, 4), (0, 2, 1)] {
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
            LrsfnOptions::default().with_step_lengths(-1.0, 1.0),
            "step length",
        ),
        (LrsfnOptions::paper(0, 1.0, 1.0), "rank"),
    ] {
        match LowRankSaddleFreeNewton::new(options) {
            Err(error) if error.to_string().contains(word) => {}
            Err(error) => return Err(format!("'{word}' is missing in: {error}").into()),
            Ok(_) => return Err(format!("{word} out of range was accepted").into()),
        }
    }
    Ok(())
}
