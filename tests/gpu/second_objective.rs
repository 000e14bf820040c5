//! A second objective, with kernels and batches of its own ([`logistic`](crate::harness::logistic)), agrees with the same function as a
//! graph: in all that objectives can do, and step by step under every optimizer.

use crate::harness::logistic::{Examples, Logistic};
use crate::harness::{GpuTest, Outcome};
use osculant::data::{Batch, Targets};
use osculant::gpu::{Gpu, Slice};
use osculant::linalg::EigenOptions;
use osculant::nn::{DataShape, Init, Model, Output, TargetShape};
use osculant::objective::{
    Curvature, GradientRequest, GraphObjective, GroupRequest, Losses, Objective, Parts,
    QuadraticRequest, Slot,
};
use osculant::optim::{
    Adam, AdamOptions, Base, DebiasedSgd, DebiasedSgdOptions, DecoupledNewtonCg, DecoupledOptions,
    LowRankSaddleFreeNewton, LrsfnOptions, Muon, MuonOptions, NewtonCg, NewtonCgOptions, Optimizer,
    Preconditioner, Sgd, SgdOptions, Soap, SoapOptions, StepReport, Strategy,
};
use osculant::random::Philox;
use osculant::vector::Vector;
use rand::RngExt;

pub(crate) fn tests() -> Vec<GpuTest> {
    gpu_tests![
        its_numbers_are_those_of_the_graph,
        first_order_methods_make_the_same_steps,
        newton_makes_the_same_steps,
        decoupled_newton_makes_the_same_steps,
        saddle_free_newton_makes_the_same_steps,
        debiased_descent_makes_the_same_steps,
    ]
}

type Any = Box<dyn std::error::Error>;

const FEATURES: usize = 7;
const ROWS: usize = 48;
const L2: f32 = 0.02;
const STEPS: usize = 4;
/// A sum of ROWS or FEATURES terms in f32 is off by at most 48 half ulps of the sum of their magnitudes, 3e-6, in one order as in another,
/// plus a few ulps for `exp` and `log`; relative to the largest element.
const SUMS: f64 = 6e-6;
/// Of numbers that come from four steps with solves, which amplify rounding errors: the worst was 8.7e-6 off, on llvmpipe over GL (low-rank
/// saddle-free Newton that is judged apart), most below 1e-6.
const SOLVES: f64 = 1e-4;

/// The same batch for both objectives: weights that differ, and add up to something other than 1.
fn batch(seed: u64) -> (Examples, Batch) {
    let mut random = Philox::new(seed, 1 << 42);
    let mut draw = |count: usize, low: f32, high: f32| -> Vec<f32> {
        (0..count).map(|_| random.random_range(low..high)).collect()
    };
    let features = draw(ROWS * FEATURES, -2.0, 2.0);
    let targets: Vec<f32> = draw(ROWS, 0.0, 1.0).iter().map(|y| y.round()).collect();
    let weights = draw(ROWS, 0.5 / ROWS as f32, 2.0 / ROWS as f32);
    let graph = Batch {
        features: features.clone(),
        targets: Targets::Values {
            values: targets.clone(),
            width: 1,
        },
        weights: weights.clone(),
    };
    let own = Examples {
        features,
        targets,
        weights,
    };
    (own, graph)
}

fn graph(gpu: &Gpu) -> Result<GraphObjective, Any> {
    let shape = DataShape {
        features: FEATURES,
        targets: TargetShape::Values(1),
    };
    let model = Model::new(shape, |scope| {
        let theta = scope.parameter("theta", &[FEATURES, 1], Init::Constant(0.0));
        let z = scope.features().dot(theta);
        Output {
            losses: (z.softplus() - scope.targets() * z).reshape(&[scope.rows()]),
            outputs: z,
            metric: None,
        }
    });
    Ok(GraphObjective::new(gpu, model)?.with_l2(L2)?)
}

fn start(gpu: &Gpu, objective: &impl Objective) -> Result<Vector, Any> {
    let theta = Vector::new(gpu, "theta", objective.layout())?;
    let values = (0..FEATURES).map(|i| 0.8 * (1.7 * i as f32).sin());
    theta.write(gpu, &[values.collect()])?;
    Ok(theta)
}

/// The largest difference, relative to the largest number.
fn distance(one: &[f32], other: &[f32]) -> f64 {
    assert_eq!(one.len(), other.len());
    let largest = other
        .iter()
        .fold(0.0, |most: f64, x| most.max(f64::from(x.abs())));
    let pairs = one.iter().zip(other);
    pairs.fold(0.0, |most: f64, (x, y)| {
        let off = (f64::from(*x) - f64::from(*y)).abs() / largest;
        if off.is_nan() {
            f64::INFINITY
        } else {
            most.max(off)
        }
    })
}

/// Everything that an objective says of a batch at its start, by name.
fn numbers<O: Parts>(
    gpu: &Gpu,
    objective: &mut O,
    batch: &O::Batch,
) -> Result<Vec<(String, Vec<f32>)>, Any> {
    let theta = start(gpu, objective)?;
    let values = |k: usize| {
        vec![
            (0..FEATURES)
                .map(|i| (0.3 + (i * k) as f32).cos())
                .collect(),
        ]
    };
    let mut found = Vec::new();
    let mut take = |name: String, slice: &Slice| -> Result<(), Any> {
        found.push((name, gpu.read(&[slice])?.remove(0)));
        Ok(())
    };
    let loaded = objective.load(Slot::default(), batch)?;
    let request = GradientRequest { losses: true };
    let gradient = objective.gradient(&theta, &loaded, request)?;
    let losses = gradient.losses.as_ref().ok_or("no losses")?;
    gpu.run([&gradient.run, &losses.at_base])?;
    take("loss".into(), &gradient.value)?;
    take("gradient".into(), gradient.gradient.slice())?;
    take("loss at the base".into(), &losses.results.slice(0..2)?)?;
    take("point at the base".into(), losses.point.slice())?;
    losses.point.write(gpu, &values(5))?;
    gpu.run([&losses.at_point])?;
    take("loss at the point".into(), &losses.results.slice(0..2)?)?;

    for curvature in [Curvature::Hessian, Curvature::GaussNewton] {
        let request = QuadraticRequest {
            curvature,
            fisher_diagonal: true,
            block: 3,
            losses: true,
        };
        let quadratic = objective.quadratic(&theta, &loaded, request)?;
        let block = quadratic.block.as_ref().ok_or("no block")?;
        quadratic.direction.write(gpu, &values(2))?;
        block
            .directions
            .write(gpu, &[values(1), values(2), values(3)])?;
        gpu.run([&quadratic.linearize, &quadratic.multiply, &block.multiply])?;
        let diagonal = quadratic.fisher_diagonal.as_ref().ok_or("no diagonal")?;
        take(format!("{curvature:?}: loss"), &quadratic.value)?;
        let losses = quadratic.losses.as_ref().ok_or("no losses")?;
        around(gpu, losses, &values(5))?;
        take(
            format!("{curvature:?}: loss at the point"),
            &losses.results.slice(0..2)?,
        )?;
        take(
            format!("{curvature:?}: gradient"),
            quadratic.gradient.slice(),
        )?;
        take(format!("{curvature:?}: product"), quadratic.product.slice())?;
        take(format!("{curvature:?}: diagonal"), diagonal.slice())?;
        take(format!("{curvature:?}: block"), block.products.slice())?;
    }
    for groups in [1, 3, 4] {
        let loaded = objective.load_groups(Slot::default(), batch, groups)?;
        let request = GroupRequest {
            curvature: Curvature::GaussNewton,
            slope_variance: true,
            losses: true,
        };
        let grouped = objective.grouped(&theta, &loaded, request)?;
        grouped.direction.write(gpu, &values(2))?;
        gpu.run([&grouped.linearize, &grouped.multiply])?;
        take(format!("{groups} groups: loss"), &grouped.value)?;
        let losses = grouped.losses.as_ref().ok_or("no losses")?;
        around(gpu, losses, &values(5))?;
        take(
            format!("{groups} groups: loss at the point"),
            &losses.results.slice(0..2)?,
        )?;
        take(
            format!("{groups} groups: gradient"),
            grouped.gradient.slice(),
        )?;
        take(
            format!("{groups} groups: gradients"),
            grouped.gradients.slice(),
        )?;
        take(
            format!("{groups} groups: products"),
            grouped.products.slice(),
        )?;
        for group in &grouped.groups {
            let variance = group.slope_variance.as_ref().ok_or("no variance")?;
            take(format!("{groups} groups: variance"), variance)?;
        }
    }
    let part = objective.part(batch, &[4..9, 20..33])?;
    assert_eq!(objective.rows(&part), Some(18));
    let loaded = objective.load(Slot::default(), &part)?;
    let gradient = objective.gradient(&theta, &loaded, GradientRequest::default())?;
    gpu.run([&gradient.run])?;
    take("gradient of a part".into(), gradient.gradient.slice())?;
    Ok(found)
}

/// Results at a point, after what is at the base.
fn around(gpu: &Gpu, losses: &Losses, point: &[Vec<f32>]) -> osculant::Result<()> {
    gpu.run([&losses.at_base])?;
    losses.point.write(gpu, point)?;
    gpu.run([&losses.at_point])
}

fn its_numbers_are_those_of_the_graph(gpu: &Gpu) -> Outcome {
    let (examples, batch) = batch(1);
    let own = numbers(gpu, &mut Logistic::new(gpu, FEATURES, L2)?, &examples)?;
    let expected = numbers(gpu, &mut graph(gpu)?, &batch)?;
    assert_eq!(own.len(), expected.len());
    for ((name, found), (_, expected)) in own.iter().zip(&expected) {
        let off = distance(found, expected);
        if std::env::var_os("OSCULANT_SHOW").is_some() {
            eprintln!("{name}: {off:.1e}");
        }
        if off > SUMS {
            return Err(format!("{name}: {found:?}, not {expected:?}, {off:.1e} off").into());
        }
    }
    let at_base = own.iter().find(|(name, _)| name == "loss at the base");
    assert_eq!(at_base.ok_or("no loss")?.1[1], 0.0);
    Ok(())
}

/// Steps of a method, and where they led.
fn run<O: Objective>(
    gpu: &Gpu,
    method: &mut impl Optimizer<O>,
    objective: &mut O,
    batches: &[O::Batch],
) -> Result<Vec<(StepReport, Vec<f32>)>, Any> {
    let theta = start(gpu, objective)?;
    let mut steps = Vec::new();
    for batch in batches {
        let report = method.step(objective, &theta, batch)?;
        steps.push((report, theta.read(gpu)?.remove(0)));
    }
    Ok(steps)
}

type Steps = Vec<(StepReport, Vec<f32>)>;

/// Fails unless two runs make the same decisions, and numbers that are as near as `tolerance`, relative to themselves.
fn agree(name: &str, own: &Steps, expected: &Steps, tolerance: f64) -> Outcome {
    let mut most = 0.0;
    for (step, ((a, to), (b, expected))) in own.iter().zip(expected).enumerate() {
        let decisions = |r: &StepReport| (r.accepted, r.cg_iterations, r.backtracked_to, r.work);
        if decisions(a) != decisions(b) {
            return Err(format!("{name}, step {step}: {a:?}, not {b:?}").into());
        }
        let pairs = [
            ("loss before", a.loss_before, b.loss_before),
            (
                "loss after",
                a.loss_after.unwrap_or(1.0),
                b.loss_after.unwrap_or(1.0),
            ),
            (
                "change",
                a.loss_change.unwrap_or(1.0),
                b.loss_change.unwrap_or(1.0),
            ),
            ("gradient", a.gradient_norm, b.gradient_norm),
            ("length", a.step_norm, b.step_norm),
            (
                "damping",
                a.damping.unwrap_or(1.0),
                b.damping.unwrap_or(1.0),
            ),
        ];
        let numbers = pairs.map(|(what, a, b)| (what, (a - b).abs() / b.abs().max(1e-30)));
        let moved = [("theta", distance(to, expected))];
        for (what, off) in numbers.into_iter().chain(moved) {
            if off.is_nan() || off > tolerance {
                return Err(
                    format!("{name}, step {step}: {what} is {off:.1e} off:\n{a:?}\n{b:?}").into(),
                );
            }
            most = f64::max(most, off);
        }
    }
    if std::env::var_os("OSCULANT_SHOW").is_some() {
        let accepted = expected
            .iter()
            .filter(|(report, _)| report.accepted)
            .count();
        eprintln!(
            "{name}: {most:.1e}, {accepted} of {} accepted",
            expected.len()
        );
    }
    Ok(())
}

/// Both objectives under a method, on the same batches from the same start.
fn same_steps<M: Optimizer<Logistic> + Optimizer<GraphObjective>>(
    gpu: &Gpu,
    name: &str,
    tolerance: f64,
    make: impl Fn() -> osculant::Result<M>,
) -> Outcome {
    let (examples, batches): (Vec<_>, Vec<_>) = (0..STEPS as u64).map(batch).unzip();
    let mut own = Logistic::new(gpu, FEATURES, L2)?;
    let own = run(gpu, &mut make()?, &mut own, &examples)?;
    let expected = run(gpu, &mut make()?, &mut graph(gpu)?, &batches)?;
    agree(name, &own, &expected, tolerance)
}

fn first_order_methods_make_the_same_steps(gpu: &Gpu) -> Outcome {
    same_steps(gpu, "SGD", SUMS, || Sgd::new(SgdOptions::default()))?;
    same_steps(gpu, "Adam", SUMS, || {
        Adam::new(AdamOptions::default().with_learning_rate(0.05))
    })?;
    // Gradients and shapes are all that these need.
    same_steps(gpu, "Muon", SUMS, || Muon::new(MuonOptions::default()))?;
    same_steps(gpu, "SOAP", SUMS, || Soap::new(SoapOptions::default()))
}

fn newton_makes_the_same_steps(gpu: &Gpu) -> Outcome {
    let options = NewtonCgOptions::default();
    let fisher = Preconditioner::EmpiricalFisher { exponent: 0.75 };
    for (name, options) in [
        ("Gauss-Newton", options.clone()),
        (
            "trust region",
            options.clone().with_curvature(Curvature::Hessian),
        ),
        ("empirical Fisher", options.with_preconditioner(fisher)),
        ("Nystrom", NewtonCgOptions::nystrom(3, 2)),
    ] {
        // The last iterates of solves in seven dimensions differ by rounding errors, and so do their losses: which is the lowest is no
        // decision to compare.
        let mut options = options;
        options.backtracking = false;
        same_steps(gpu, name, SOLVES, || NewtonCg::new(options.clone()))?;
    }
    Ok(())
}

fn decoupled_newton_makes_the_same_steps(gpu: &Gpu) -> Outcome {
    let options = DecoupledOptions::default().with_strategy(Strategy::Single);
    same_steps(gpu, "single", SOLVES, || {
        DecoupledNewtonCg::new(options.clone())
    })
}

fn eigen() -> EigenOptions {
    EigenOptions::default().with_rank(3).with_oversampling(2)
}

fn saddle_free_newton_makes_the_same_steps(gpu: &Gpu) -> Outcome {
    let adaptive = LrsfnOptions::default().with_eigen(eigen());
    let crossed = Strategy::cross_fit(2);
    let decoupled = Strategy::decoupled();
    let adam = AdamOptions::default().with_learning_rate(0.02);
    for (name, options) in [
        ("adaptive", adaptive.clone()),
        ("paper", LrsfnOptions::paper(3, 0.3, 0.1)),
        ("decoupled pairs", adaptive.clone().with_strategy(decoupled)),
        ("cross-fit pairs", adaptive.clone().with_strategy(crossed)),
        ("judged apart", adaptive.clone().with_acceptance(0.25)),
        ("Adam beyond", adaptive.with_base(Base::Adam(adam))),
    ] {
        same_steps(gpu, name, SOLVES, || {
            LowRankSaddleFreeNewton::new(options.clone())
        })?;
    }
    Ok(())
}

fn debiased_descent_makes_the_same_steps(gpu: &Gpu) -> Outcome {
    let options = DebiasedSgdOptions::default();
    for (name, options) in [
        ("debiased", options.clone()),
        (
            "debiased, cross-fit",
            options.clone().with_strategy(Strategy::cross_fit(2)),
        ),
        ("debiased, backwards", options.with_backwards(true)),
    ] {
        same_steps(gpu, name, SOLVES, || DebiasedSgd::new(options.clone()))?;
    }
    Ok(())
}
