//! Devices that grant little, and devices that take long: what does not fit is refused before anything changes, what is spread over
//! workgroups and bindings is computed all the same, and no wait is endless.

use std::time::{Duration, Instant};

use crate::harness::rotated::{Rotated, orthogonality};
use crate::harness::{GpuTest, Outcome, small};
use osculant::data::{Batch, digits};
use osculant::gpu::{AdapterOptions, Gpu, Recorder, Recording, Slice};
use osculant::linalg::{
    Basis, CgOptions, Companion, ConjugateGradients, EigenOptions, Lanczos, Operator,
    RandomizedEigensolver, Sketch, Start, Storage,
};
use osculant::nn::{Activation, DataShape, Init, Loss, Model, Output, Sequential, TargetShape};
use osculant::objective::{Curvature, Curved, GraphObjective, Objective, QuadraticRequest, Slot};
use osculant::optim::{
    Adam, AdamOptions, AdaptiveDamping, Base, DebiasedSgd, DebiasedSgdOptions, DecoupledNewtonCg,
    DecoupledOptions, LowRankSaddleFreeNewton, LrsfnOptions, NewtonCg, NewtonCgOptions, Optimizer,
    Preconditioner, Sgd, SgdOptions, Strategy,
};
use osculant::vector::Vector;
use osculant::{Error, Result};
use pollster::block_on;

pub(crate) fn tests() -> Vec<GpuTest> {
    gpu_tests![
        a_wait_that_takes_too_long_ends_and_the_device_goes_on,
        time_outs_out_of_range_are_refused,
        with_four_storage_buffers_conjugate_gradients_are_refused_before_a_step,
        with_four_storage_buffers_other_methods_work,
        a_device_that_grants_less_than_any_kernel_needs_is_refused,
        first_order_steps_reach_every_element_of_a_long_vector,
        conjugate_gradients_reach_every_element_of_a_long_vector,
        eigenvectors_of_a_long_vector,
        krylov_vectors_of_a_long_vector,
    ]
}

type Any = Box<dyn std::error::Error>;
type Boxed = Box<dyn Optimizer<GraphObjective>>;

/// `y[0] += 1` after 60,000 turns of a loop that depends on what it reads, in 64 workgroups; fewer turns than any driver is known to bear.
const LONG: &str = "
@group(0) @binding(0) var<storage, read_write> y: array<f32>;
@compute @workgroup_size(64)
fn main(@builtin(global_invocation_id) id: vec3<u32>) {
    var x = y[id.x];
    for (var turn = 0u; turn < 60000u; turn++) { x = fma(x, 0.5, 0.5); }
    y[id.x] += x;
}
";

/// The kernel so many times.
fn long_work(gpu: &Gpu, y: &Slice, times: usize) -> std::result::Result<Recording, Any> {
    let kernel = gpu.pipeline("long", LONG, &[])?;
    let mut recording = Recording::new();
    for _ in 0..times {
        recording.dispatch(gpu, &kernel, &[y], [64, 1, 1])?;
    }
    Ok(recording)
}

/// On a device of its own, so that tests beside this one do not wait. Every wait here is for a submission with nothing before it: some
/// drivers (that of llvmpipe) submit the next one only when the last has run, and some (its GL) run everything while it is submitted. There
/// no wait is left to end.
fn a_wait_that_takes_too_long_ends_and_the_device_goes_on(gpu: &Gpu) -> Outcome {
    let limits = wgpu::Limits::downlevel_defaults();
    let gpu = small::device(gpu, wgpu::Features::empty(), limits)?;
    let y = gpu.buffer("the slow result", 64 * 64)?;
    let mut times = 1;
    loop {
        let work = long_work(&gpu, &y, times)?;
        let start = Instant::now();
        gpu.submit(|recorder| recorder.replay(&work))?;
        let submitted = start.elapsed();
        gpu.wait()?;
        let all = start.elapsed();
        if all > Duration::from_millis(300) {
            if submitted > all / 2 {
                return Ok(());
            }
            break;
        }
        times *= 2;
    }
    let work = long_work(&gpu, &y, times)?;
    let hasty = gpu.with_timeout(Duration::from_millis(5))?;
    let timed_out = |outcome: Result<()>, what: &str| {
        let message = match outcome {
            Err(error @ Error::Timeout { .. }) => error.to_string(),
            other => format!("no time-out but {other:?}"),
        };
        let all = [what, "0.005 s", "smaller batches", "OSCULANT_TIMEOUT"];
        assert!(all.iter().all(|words| message.contains(words)), "{message}");
    };
    let ones = vec![1.0f32; y.len()];
    // x tends to 1 from wherever it starts, and 1 + 1 + ... has no rounding.
    let expected = vec![1.0 + times as f32; y.len()];
    let cases =
        [vec![], vec![&y], vec![&y, &y]].map(|reads| [(reads.clone(), false), (reads, true)]);
    for (reads, blocks) in cases.into_iter().flatten() {
        gpu.upload(&y, 0, &ones)?;
        gpu.wait()?;
        let record = |recorder: &mut Recorder<'_>| {
            recorder.replay(&work);
            Ok(())
        };
        let start = Instant::now();
        if reads.is_empty() {
            hasty.try_submit(record)?;
        }
        let outcome = match (reads.is_empty(), blocks) {
            (true, true) => hasty.wait(),
            (true, false) => block_on(hasty.wait_async()),
            (false, true) => hasty.submit_and_read(record, &reads).map(drop),
            (false, false) => block_on(hasty.submit_and_read_async(record, &reads)).map(drop),
        };
        let what = ["what was submitted", "'the slow result'", "' and 1 others"];
        timed_out(outcome, what[reads.len()]);
        assert!(start.elapsed() < Duration::from_millis(250), "it waited on");
        // The work ends, and the buffer that was under way is not used again.
        gpu.wait()?;
        for _ in 0..2 {
            assert_eq!(gpu.read(&[&y])?[0], expected);
        }
    }
    gpu.upload(&y, 0, &[7.0f32])?;
    assert_eq!(hasty.read(&[&y])?[0][..2], [7.0, expected[1]]);
    Ok(())
}

fn time_outs_out_of_range_are_refused(gpu: &Gpu) -> Outcome {
    let refused = gpu.with_timeout(Duration::ZERO);
    assert!(matches!(&refused, Err(Error::Option { option, .. }) if option == "timeout"));
    let options = AdapterOptions::default().with_timeout(Duration::ZERO);
    assert!(matches!(Gpu::request(&options), Err(Error::Option { .. })));
    let options = AdapterOptions::default().with_timeout(Duration::from_secs(5));
    assert_eq!(Gpu::request(&options)?.timeout(), Duration::from_secs(5));
    // Longer than any clock counts.
    gpu.with_timeout(Duration::MAX)?.wait()?;
    Ok(())
}

/// A device with wgpu's smallest limits, as some GL drivers have them.
fn downlevel(gpu: &Gpu) -> std::result::Result<Gpu, Any> {
    let limits = wgpu::Limits::downlevel_defaults();
    assert_eq!(limits.max_storage_buffers_per_shader_stage, 4);
    small::device(gpu, wgpu::Features::empty(), limits)
}

fn network() -> std::result::Result<(Model, Batch), Any> {
    let (data, _) = digits()?.split(0.2, 0)?;
    let model = Sequential::new()
        .dense(6)
        .activation(Activation::Tanh)
        .dense(10)
        .model(&data, Loss::SoftmaxCrossEntropy);
    Ok((model, data.batch(&(0..256).collect::<Vec<_>>())?))
}

fn with_four_storage_buffers_conjugate_gradients_are_refused_before_a_step(gpu: &Gpu) -> Outcome {
    let gpu = &downlevel(gpu)?;
    let (model, batch) = network()?;
    let jacobi = NewtonCgOptions::default()
        .with_preconditioner(Preconditioner::EmpiricalFisher { exponent: 0.75 });
    let optimizers: Vec<Boxed> = vec![
        Box::new(NewtonCg::new(NewtonCgOptions::default())?),
        Box::new(NewtonCg::new(jacobi)?),
        Box::new(NewtonCg::new(NewtonCgOptions::nystrom(4, 3))?),
        Box::new(DecoupledNewtonCg::new(DecoupledOptions::default())?),
    ];
    let refused = |outcome: Result<()>| match outcome {
        Err(Error::OverLimit {
            what,
            needed,
            limit_name,
            limit,
            ..
        }) => {
            assert!(what.contains("cg "), "{what}");
            assert_eq!(limit_name, "max_storage_buffers_per_shader_stage");
            assert_eq!((needed > 4, limit), (true, 4));
        }
        other => assert!(other.is_err_and(|_| false), "no refusal"),
    };
    refused(ConjugateGradients::check(gpu));
    let mut objective = GraphObjective::new(gpu, model)?;
    let theta = objective.initial_parameters(1)?;
    let before = theta.read(gpu)?;
    for mut optimizer in optimizers {
        refused(optimizer.check(gpu));
        let state = optimizer.state(&objective)?;
        let readbacks = gpu.readbacks();
        refused(optimizer.step(&mut objective, &theta, &batch).map(|_| ()));
        assert_eq!(gpu.readbacks(), readbacks, "something was computed");
        assert!(optimizer.state(&objective)? == state, "the state changed");
        assert!(theta.read(gpu)? == before, "theta changed");
    }
    Ok(())
}

/// Everything but conjugate gradients: a few steps of each method bring the loss of the data set down.
fn with_four_storage_buffers_other_methods_work(gpu: &Gpu) -> Outcome {
    let gpu = &downlevel(gpu)?;
    let eigen = EigenOptions::default().with_rank(4).with_oversampling(2);
    let averaged = LrsfnOptions::default()
        .with_eigen(eigen.clone())
        .with_average(0.5)
        .with_base(Base::Adam(AdamOptions::default()));
    let halves = LrsfnOptions::default()
        .with_eigen(eigen)
        .with_automatic(Some(4))
        .with_storage(Storage::Half);
    let debiased = DebiasedSgdOptions::default().with_strategy(Strategy::cross_fit(2));
    let optimizers: Vec<Boxed> = vec![
        Box::new(Sgd::new(SgdOptions::default())?),
        Box::new(Adam::new(AdamOptions::default())?),
        Box::new(DebiasedSgd::new(debiased)?),
        Box::new(LowRankSaddleFreeNewton::new(averaged)?),
        Box::new(LowRankSaddleFreeNewton::new(halves)?),
    ];
    let (data, _) = digits()?.split(0.2, 0)?;
    for mut optimizer in optimizers {
        let (model, batch) = network()?;
        let mut objective = GraphObjective::new(gpu, model)?;
        optimizer.check(gpu)?;
        let theta = objective.initial_parameters(1)?;
        let name = optimizer.name();
        let before = objective.evaluate(&theta, &data)?.loss;
        for _ in 0..6 {
            let step = optimizer.step(&mut objective, &theta, &batch);
            step.map_err(|error| format!("{name}: {error}"))?;
        }
        let after = objective.evaluate(&theta, &data)?.loss;
        if after.is_nan() || after >= before {
            return Err(format!("{name}: the loss went from {before} to {after}").into());
        }
    }
    Ok(())
}

fn a_device_that_grants_less_than_any_kernel_needs_is_refused(gpu: &Gpu) -> Outcome {
    type Change = fn(&mut wgpu::Limits);
    let changes: [(&str, Change); 2] = [
        ("max_storage_buffers_per_shader_stage", |limits| {
            limits.max_storage_buffers_per_shader_stage = 3;
        }),
        ("max_compute_invocations_per_workgroup", |limits| {
            limits.max_compute_invocations_per_workgroup = 32;
        }),
    ];
    for (name, change) in changes {
        let mut limits = wgpu::Limits::downlevel_defaults();
        change(&mut limits);
        match small::device(gpu, wgpu::Features::empty(), limits) {
            Err(error) => assert!(error.to_string().contains(name), "{error}"),
            Ok(_) => return Err(format!("{name} is too small, and nobody minds").into()),
        }
    }
    Ok(())
}

/// Elements of vectors that spread over two dimensions of 300 workgroups where an invocation has up to sixteen elements, and of which a
/// small adapter's binding holds three.
const LENGTH: usize = 320_012;

/// The curvature of element `i`: three values, so that conjugate gradients need three iterations.
fn curvature(i: usize) -> f32 {
    [0.5, 1.0, 2.0][i * 7 / 5 % 3]
}

/// `f(x) = sum of d_i (x_i - 1)^2 / 2`.
fn bowl() -> Model {
    let shape = DataShape {
        features: 0,
        targets: TargetShape::Inputs,
    };
    Model::new(shape, |scope| {
        let x = scope.parameter("x", &[LENGTH, 1], Init::Normal(1.0));
        let d = scope.data((0..LENGTH).map(curvature).collect(), &[LENGTH, 1]);
        let off = x - 1.0;
        Output {
            losses: ((off.square() * d).sum(&[0, 1]) * 0.5).reshape(&[1]),
            outputs: x,
            metric: None,
        }
    })
}

struct Long {
    objective: GraphObjective,
    theta: Vector,
    start: Vec<f64>,
}

fn long(gpu: &Gpu) -> std::result::Result<Long, Any> {
    let objective = GraphObjective::new(gpu, bowl())?;
    let theta = objective.initial_parameters(3)?;
    let start = theta.read(gpu)?.concat().into_iter().map(f64::from);
    Ok(Long {
        objective,
        start: start.collect(),
        theta,
    })
}

/// Every element against a hand computation in f64; none was left out, none was moved twice.
fn compare(gpu: &Gpu, theta: &Vector, expected: impl Fn(usize) -> f64, tolerance: f64) -> Outcome {
    for (i, &found) in theta.read(gpu)?.concat().iter().enumerate() {
        let (found, expected) = (f64::from(found), expected(i));
        let error = (found - expected).abs();
        if error.is_nan() || error > tolerance {
            return Err(format!("element {i} is {found}, not {expected}").into());
        }
    }
    Ok(())
}

/// Three iterations, with step lengths from sums of 320,012 terms, to 1e-6 each, for elements up to 6 from the minimum.
const SOLVED: f64 = 3e-5;

/// Three steps of rounding in numbers below 8: a few units of 2^-21.
const THREE_STEPS: f64 = 3e-6;

fn first_order_steps_reach_every_element_of_a_long_vector(gpu: &Gpu) -> Outcome {
    let mut it = long(gpu)?;
    let options = SgdOptions::default()
        .with_learning_rate(0.25)
        .with_momentum(0.5);
    let mut sgd = Sgd::new(options)?;
    for _ in 0..3 {
        sgd.step(&mut it.objective, &it.theta, &Batch::without_data())?;
    }
    let by_sgd = |i: usize| {
        let (mut x, mut m, d) = (it.start[i], 0.0, f64::from(curvature(i)));
        for _ in 0..3 {
            m = 0.5 * m + d * (x - 1.0);
            x -= 0.25 * m;
        }
        x
    };
    compare(gpu, &it.theta, by_sgd, THREE_STEPS)?;

    let mut it = long(gpu)?;
    let options = AdamOptions::default()
        .with_learning_rate(0.25)
        .with_beta1(0.5)
        .with_beta2(0.75);
    let mut adam = Adam::new(options)?;
    for _ in 0..3 {
        adam.step(&mut it.objective, &it.theta, &Batch::without_data())?;
    }
    let by_adam = |i: usize| {
        let (mut x, mut m, mut v, d) = (it.start[i], 0.0, 0.0f64, f64::from(curvature(i)));
        for step in 1..=3 {
            let g = d * (x - 1.0);
            m = 0.5 * m + 0.5 * g;
            v = 0.75 * v + 0.25 * g * g;
            let mean = m / (1.0 - 0.5f64.powi(step));
            x -= 0.25 * mean / ((v / (1.0 - 0.75f64.powi(step))).sqrt() + 1e-8);
        }
        x
    };
    // Where a slope nearly vanishes on the way its rounding error is seen: m / sqrt(v) of g = 1e-4 (1 +- 1e-3).
    compare(gpu, &it.theta, by_adam, 1e-3)
}

/// Three curvatures are three iterations: of plain conjugate gradients, with a preconditioner of ones (any power 0 of a positive diagonal),
/// and as the warm start of a companion on the same quadratic. All end in the minimum.
fn conjugate_gradients_reach_every_element_of_a_long_vector(gpu: &Gpu) -> Outcome {
    let mut undamped = AdaptiveDamping::default().with_initial(0.0);
    undamped.minimum = 0.0;
    let cg = CgOptions::default()
        .with_progress_tolerance(0.0)
        .with_residual_tolerance(1e-6)
        .with_max_iterations(8);
    for preconditioner in [
        Preconditioner::None,
        Preconditioner::EmpiricalFisher { exponent: 0.0 },
    ] {
        let mut it = long(gpu)?;
        let options = NewtonCgOptions::default()
            .with_damping(undamped)
            .with_preconditioner(preconditioner)
            .with_cg(cg.clone());
        let mut newton = NewtonCg::new(options)?;
        newton.step(&mut it.objective, &it.theta, &Batch::without_data())?;
        compare(gpu, &it.theta, |_| 1.0, SOLVED)?;
    }
    let mut it = long(gpu)?;
    let request = QuadraticRequest {
        curvature: Curvature::Hessian,
        ..QuadraticRequest::default()
    };
    let quadratic =
        it.objective
            .load_quadratic(Slot::default(), &it.theta, &Batch::without_data(), request)?;
    let companion = Companion {
        gradient: quadratic.gradient.clone(),
        product: quadratic.product.clone(),
        variance: None,
    };
    let cg = ConjugateGradients::with_companion(
        gpu,
        &Operator::from(quadratic.as_ref()),
        &quadratic.gradient,
        None,
        &cg,
        &[],
        Some(&companion),
    )?;
    cg.solution.write(gpu, &[vec![0.5; LENGTH]])?;
    cg.solve(&quadratic.linearize, 0.0, None, true)?;
    compare(gpu, &cg.solution, |i| 1.0 - it.start[i], SOLVED)
}

/// Known eigenvalues with eigenvectors of which a small adapter's binding holds three: inner products, combinations and random numbers of
/// rows in several bindings; and in half precision.
fn eigenvectors_of_a_long_vector(gpu: &Gpu) -> Outcome {
    let rank = 3;
    let value = |i: usize| 8.0 * 0.5f64.powi(i as i32);
    let problem = Rotated::new(LENGTH, value, 5);
    for (sketch, storage, tolerance) in [
        (Sketch::Gaussian, Storage::Full, 1e-4),
        // Halves have eleven bits.
        (Sketch::Signs, Storage::Half, 1e-3),
    ] {
        let options = EigenOptions::default()
            .with_rank(rank)
            .with_oversampling(3)
            .with_power_iterations(1)
            .with_sketch(sketch);
        let mut objective = GraphObjective::new(gpu, problem.model())?;
        let theta = objective.initial_parameters(1)?;
        let request = QuadraticRequest {
            curvature: Curvature::Hessian,
            block: options.width(),
            ..QuadraticRequest::default()
        };
        let quadratic =
            objective.load_quadratic(Slot::default(), &theta, &Batch::without_data(), request)?;
        let block = quadratic.block.as_ref().ok_or("no block")?;
        let basis = Basis::new(gpu, quadratic.gradient.layout(), rank, storage)?;
        let operator = Operator::from(block);
        let mut solver = RandomizedEigensolver::new(gpu, &operator, &basis, &options)?;
        let found = solver.solve(&quadratic.linearize, false)?;
        for i in 0..rank {
            let off = (found.values[i] - value(i)).abs() / value(i);
            assert!(
                off < 1e-4,
                "eigenvalue {i} is {}: {off:.1e}",
                found.values[i]
            );
        }
        let vectors = solver.basis().read(gpu)?;
        let vectors: Vec<Vec<f32>> = vectors.iter().map(|vector| vector.concat()).collect();
        let off = orthogonality(&vectors);
        assert!(off < tolerance, "orthogonality {off:.1e}");
        for (i, vector) in vectors.iter().enumerate() {
            let along = problem.along(vector, i).abs();
            assert!(
                (along - 1.0).abs() < tolerance,
                "eigenvector {i} lies along its own by {along}"
            );
        }
    }
    Ok(())
}

/// Three different eigenvalues: the Krylov space has three dimensions, and an element that a kernel did not reach would span more.
fn krylov_vectors_of_a_long_vector(gpu: &Gpu) -> Outcome {
    let mut it = long(gpu)?;
    let request = QuadraticRequest {
        curvature: Curvature::Hessian,
        ..QuadraticRequest::default()
    };
    let quadratic =
        it.objective
            .load_quadratic(Slot::default(), &it.theta, &Batch::without_data(), request)?;
    let lanczos = Lanczos::new(gpu, &Operator::from(quadratic.as_ref()), 6)?;
    let found = lanczos.run(&quadratic.linearize, Start::Random { seed: 7, number: 0 })?;
    let (values, _) = found.eigen();
    assert_eq!(values.len(), 3, "{values:?}");
    for (value, expected) in values.iter().zip([2.0, 1.0, 0.5]) {
        assert!((value - expected).abs() < 1e-5, "{values:?}");
    }
    // The saddle-free step of a positive matrix is Newton's with damping, for every element.
    let step = Vector::new(gpu, "step", it.objective.layout())?;
    let damping = 0.25;
    lanczos.saddle_free_step(&quadratic.linearize, &quadratic.gradient, damping, &step)?;
    compare(
        gpu,
        &step,
        |i| {
            let d = f64::from(curvature(i));
            d * (1.0 - it.start[i]) / (d + damping)
        },
        SOLVED,
    )
}
