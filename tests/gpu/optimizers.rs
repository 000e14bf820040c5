//! Conjugate gradients and optimizers on every adapter, against hand computations in f64.

use std::sync::Arc;

use crate::harness::{self, GpuTest, Outcome};
use crate::reference::{
    Reference, Tensors, add, batch_for, bits, cut, dot, draw, flat, no_data, relative_error,
    solve_dense, vector, wide_all,
};
use osculant::data::{Batch, Targets};
use osculant::gpu::Gpu;
use osculant::linalg::{CgOptions, CgReport, ConjugateGradients, EigenOptions, Operator, Stop};
use osculant::nn::{Activation, DataShape, Init, Loss, Model, Output, Sequential, TargetShape};
use osculant::objective::{Curvature, Curved, GraphObjective, Quadratic, QuadraticRequest, Slot};
use osculant::optim::{
    Adam, AdamOptions, AdaptiveDamping, Base, DebiasedSgd, DebiasedSgdOptions, Kfac, KfacOptions,
    KroneckerNewtonCg, Lbfgs, LbfgsOptions, LowRankSaddleFreeNewton, LrsfnOptions, Muon,
    MuonOptions, NewtonCg, NewtonCgOptions, NystromNewtonCg, Optimizer, Preconditioner, RankRule,
    Sgd, SgdOptions, Shampoo, ShampooOptions, Soap, SoapOptions, Spring, SpringOptions, Strategy,
};
use osculant::random::Philox;
use osculant::vector::Vector;
use rand::RngExt;

pub(crate) fn tests() -> Vec<GpuTest> {
    gpu_tests![
        sgd_follows_its_formula,
        adam_follows_its_formula,
        cg_solves_a_quadratic_within_as_many_iterations_as_parameters,
        cg_on_vectors_of_many_workgroups,
        cg_model_values_are_those_of_the_dense_quadratic,
        cg_with_a_shift_solves_the_damped_system,
        cg_starts_warm_from_the_solution_given,
        cg_preconditioned_reaches_the_same_solution,
        cg_stops_for_every_reason,
        cg_stops_at_the_boundary_of_the_trust_region,
        cg_follows_negative_curvature_to_the_boundary,
        newton_step_solves_least_squares,
        newton_warm_start_is_a_part_of_the_last_solution,
        newton_damping_responds_to_the_reduction_ratio,
        newton_at_the_minimum_keeps_working,
        newton_goes_back_to_an_earlier_iterate_with_lower_loss,
        newton_shortens_steps_by_four_fifths,
        newton_step_is_measured_and_never_goes_up,
        trust_region_leaves_a_saddle,
        preconditioned_newton_trains,
        preconditioned_newton_without_damping_has_a_floor,
        nystrom_newton_solves_the_same_system_in_fewer_iterations,
        equal_seeds_give_equal_bits,
        a_restored_state_continues_with_equal_bits,
        state_of_another_method_is_refused,
        readbacks_of_a_step,
        work_of_a_step,
    ]
}

type Any = Box<dyn std::error::Error>;

fn close(what: &str, found: f64, expected: f64, tolerance: f64) -> Result<(), Any> {
    let error = (found - expected).abs() / expected.abs().max(1e-30);
    if error.is_nan() || error > tolerance {
        return Err(format!("{what}: {found} instead of {expected}, {error:.2e} off").into());
    }
    Ok(())
}

fn near(what: &str, found: &[f64], expected: &[f64], tolerance: f64) -> Result<(), Any> {
    let error = relative_error(found, expected);
    if error.is_nan() || error > tolerance {
        return Err(format!("{what}: {found:?} instead of {expected:?}, {error:.2e} off").into());
    }
    Ok(())
}

fn expect<T: PartialEq + std::fmt::Debug>(what: &str, found: T, expected: T) -> Result<(), Any> {
    if found != expected {
        return Err(format!("{what}: {found:?} instead of {expected:?}").into());
    }
    Ok(())
}

/// `x.A x / 2 + b.x`, a function without data; its Gauss-Newton matrix is `A` too.
fn bowl(a: &[f64], b: &[f64]) -> Model {
    let n = b.len();
    let (a, b): (Vec<f32>, Vec<f32>) = (
        a.iter().map(|&v| v as f32).collect(),
        b.iter().map(|&v| v as f32).collect(),
    );
    let shape = DataShape {
        features: 0,
        targets: TargetShape::Inputs,
    };
    Model::new(shape, move |scope| {
        let x = scope.parameter("x", &[n, 1], Init::Constant(0.0));
        let a = scope.data(a.clone(), &[n, n]);
        let b = scope.data(b.clone(), &[n, 1]);
        let losses = (x * (a.dot(x) * 0.5 + b)).sum(&[0, 1]).reshape(&[1]);
        Output {
            losses,
            outputs: x,
            metric: None,
        }
    })
}

/// `R^T diag(e) R` in f32 numbers, for a random `R` that is near a rotation, and `b`.
fn symmetric(eigenvalues: &[f64], seed: u64) -> (Vec<f64>, Vec<f64>) {
    let n = eigenvalues.len();
    let mut random = Philox::new(seed, 1 << 42);
    let mut rows: Vec<Vec<f64>> = Vec::new();
    for _ in 0..n {
        let mut row: Vec<f64> = (0..n).map(|_| random.random_range(-1.0..1.0)).collect();
        for other in &rows {
            row = add(&row, -dot(&row, other), other);
        }
        let norm = dot(&row, &row).sqrt();
        rows.push(row.iter().map(|x| x / norm).collect());
    }
    let mut a = vec![0.0; n * n];
    for (row, e) in rows.iter().zip(eigenvalues) {
        for i in 0..n {
            for j in 0..n {
                a[i * n + j] += e * row[i] * row[j];
            }
        }
    }
    let a = a.iter().map(|&x| f64::from(x as f32)).collect();
    let b = (0..n)
        .map(|_| f64::from(random.random_range(-1.0f32..1.0)))
        .collect();
    (a, b)
}

fn times(a: &[f64], x: &[f64]) -> Vec<f64> {
    a.chunks(x.len()).map(|row| dot(row, x)).collect()
}

fn model_value(a: &[f64], b: &[f64], x: &[f64]) -> f64 {
    0.5 * dot(x, &times(a, x)) + dot(b, x)
}

/// A bowl, its quadratic at zero, and a solver for it.
struct Solve {
    gpu: Gpu,
    _objective: GraphObjective,
    quadratic: Arc<Quadratic>,
    cg: ConjugateGradients,
}

impl Solve {
    fn new(gpu: &Gpu, a: &[f64], b: &[f64], options: &CgOptions) -> Result<Self, Any> {
        Self::with(gpu, a, b, options, None)
    }

    fn with(
        gpu: &Gpu,
        a: &[f64],
        b: &[f64],
        options: &CgOptions,
        inverse: Option<Vec<f64>>,
    ) -> Result<Self, Any> {
        let mut objective = GraphObjective::new(gpu, bowl(a, b))?;
        let theta = objective.initial_parameters(0)?;
        let request = QuadraticRequest {
            curvature: Curvature::Hessian,
            fisher_diagonal: false,
            ..QuadraticRequest::default()
        };
        let quadratic = objective.load_quadratic(Slot::default(), &theta, &no_data(), request)?;
        let inverse = match inverse {
            Some(values) => Some(vector(gpu, &objective, &vec![values])?),
            None => None,
        };
        let keep: Vec<usize> = (1..=40).collect();
        let operator = Operator::from(quadratic.as_ref());
        let cg = ConjugateGradients::new(
            gpu,
            &operator,
            &quadratic.gradient,
            inverse.as_ref(),
            options,
            &keep,
        )?;
        Ok(Self {
            gpu: gpu.clone(),
            _objective: objective,
            quadratic,
            cg,
        })
    }

    fn solve(&self, shift: f32, radius: Option<f32>, warm: bool) -> Result<CgReport, Any> {
        Ok(self
            .cg
            .solve(&self.quadratic.linearize, shift, radius, warm)?)
    }

    fn solution(&self) -> Result<Vec<f64>, Any> {
        Ok(flat(&self.cg.solution.read(&self.gpu)?))
    }
}

fn exact() -> CgOptions {
    CgOptions::default()
        .with_progress_tolerance(0.0)
        .with_residual_tolerance(1e-6)
}

fn spread(n: usize) -> Vec<f64> {
    (0..n).map(|i| 0.5 + 0.3 * i as f64).collect()
}

fn minus(x: &[f64]) -> Vec<f64> {
    x.iter().map(|x| -x).collect()
}

fn plus_diagonal(a: &[f64], shift: f64) -> Vec<f64> {
    let n = a.len().isqrt();
    let mut a = a.to_vec();
    for i in 0..n {
        a[i * n + i] += shift;
    }
    a
}

fn cg_solves_a_quadratic_within_as_many_iterations_as_parameters(gpu: &Gpu) -> Outcome {
    for n in [1, 2, 5, 12] {
        let (a, b) = symmetric(&spread(n), 1);
        let solve = Solve::new(gpu, &a, &b, &exact())?;
        let report = solve.solve(0.0, None, false)?;
        // One more than in exact arithmetic, for the last digits.
        if report.stop != Stop::Residual || report.iterations > n + 1 {
            return Err(format!("n = {n}: {report:?}").into());
        }
        near(
            "solution",
            &solve.solution()?,
            &solve_dense(&a, &minus(&b)),
            1e-5,
        )?;
    }
    Ok(())
}

/// A diagonal operator on more elements than one workgroup adds, with few different eigenvalues: as many iterations.
fn cg_on_vectors_of_many_workgroups(gpu: &Gpu) -> Outcome {
    let n = 70_001;
    let shape = DataShape {
        features: 0,
        targets: TargetShape::Inputs,
    };
    let eigenvalue = |i: usize| [1.0f32, 2.0, 5.0, 9.0][i % 4];
    let model = Model::new(shape, move |scope| {
        let x = scope.parameter("x", &[n], Init::Constant(0.0));
        let a = scope.data((0..n).map(eigenvalue).collect(), &[n]);
        let b = scope.data((0..n).map(|i| (i % 7) as f32 - 3.0).collect(), &[n]);
        Output {
            losses: (x * (a * x * 0.5 + b)).sum(&[0]),
            outputs: x,
            metric: None,
        }
    });
    let mut objective = GraphObjective::new(gpu, model)?;
    let theta = objective.initial_parameters(0)?;
    let request = QuadraticRequest {
        curvature: Curvature::GaussNewton,
        fisher_diagonal: false,
        ..QuadraticRequest::default()
    };
    let quadratic = objective.load_quadratic(Slot::default(), &theta, &no_data(), request)?;
    let operator = Operator::from(quadratic.as_ref());
    let cg = ConjugateGradients::new(gpu, &operator, &quadratic.gradient, None, &exact(), &[])?;
    let report = cg.solve(&quadratic.linearize, 0.0, None, false)?;
    if report.stop != Stop::Residual || report.iterations > 5 {
        return Err(format!("{report:?}").into());
    }
    let expected: Vec<f64> = (0..n)
        .map(|i| (3.0 - (i % 7) as f64) / f64::from(eigenvalue(i)))
        .collect();
    let found = flat(&cg.solution.read(gpu)?);
    let error = relative_error(&found, &expected);
    if error.is_nan() || error > 1e-5 {
        return Err(format!("solution off by {error:.2e}").into());
    }
    Ok(())
}

fn cg_model_values_are_those_of_the_dense_quadratic(gpu: &Gpu) -> Outcome {
    let (a, b) = symmetric(&spread(9), 2);
    let solve = Solve::new(gpu, &a, &b, &exact())?;
    let report = solve.solve(0.0, None, false)?;
    expect("values", report.model.len(), report.iterations + 1)?;
    expect("first value", report.model[0], 0.0)?;
    expect(
        "kept",
        solve.cg.kept(&report).count(),
        report.iterations - 1,
    )?;
    for (after, iterate) in solve.cg.kept(&report) {
        let x = flat(&iterate.read(gpu)?);
        let found = report.model[after];
        close("model value", found, model_value(&a, &b, &x), 1e-5)?;
    }
    let x = solve.solution()?;
    let last = report.model[report.iterations];
    close("last model value", last, model_value(&a, &b, &x), 1e-5)?;
    if !report.model.windows(2).all(|w| w[1] <= w[0] + 1e-6) {
        return Err(format!("the model rose: {:?}", report.model).into());
    }
    // Again with the same solver: the state of the first solve must not leak.
    expect("second solve", solve.solve(0.0, None, false)?, report)
}

fn cg_with_a_shift_solves_the_damped_system(gpu: &Gpu) -> Outcome {
    let (a, b) = symmetric(&spread(8), 3);
    let damped = plus_diagonal(&a, 0.75);
    let solve = Solve::new(gpu, &a, &b, &exact())?;
    let report = solve.solve(0.75, None, false)?;
    let x = solve.solution()?;
    near("solution", &x, &solve_dense(&damped, &minus(&b)), 1e-5)?;
    let value = report.model[report.iterations];
    close("model value", value, model_value(&damped, &b, &x), 1e-5)
}

fn cg_starts_warm_from_the_solution_given(gpu: &Gpu) -> Outcome {
    let (a, b) = symmetric(&spread(8), 4);
    let solve = Solve::new(gpu, &a, &b, &exact())?;
    let start: Vec<f64> = (0..8).map(|i| 0.25 * i as f64 - 1.0).collect();
    let start32: Vec<f32> = start.iter().map(|&x| x as f32).collect();
    solve.cg.solution.write(gpu, &[start32])?;
    let report = solve.solve(0.5, None, true)?;
    let damped = plus_diagonal(&a, 0.5);
    let first = report.model[0];
    close("first value", first, model_value(&damped, &b, &start), 1e-5)?;
    let x = solve.solution()?;
    near("solution", &x, &solve_dense(&damped, &minus(&b)), 1e-5)?;
    // From the solution nothing is left to do.
    let again = solve
        .cg
        .solve(&solve.quadratic.linearize, 0.5, None, true)?;
    if again.iterations > 1 || again.stop != Stop::Residual {
        return Err(format!("from the solution: {again:?}").into());
    }
    Ok(())
}

fn cg_preconditioned_reaches_the_same_solution(gpu: &Gpu) -> Outcome {
    let n = 12;
    let (mut a, b) = symmetric(&spread(n), 5);
    for i in 0..n {
        for j in 0..n {
            // A bad scaling, of a kind that the diagonal repairs.
            let scale = |i: usize| f64::from(1.5f32.powi(i as i32));
            a[i * n + j] = f64::from((a[i * n + j] * scale(i) * scale(j)) as f32);
        }
    }
    let options = exact().with_residual_tolerance(1e-4);
    let plain = Solve::new(gpu, &a, &b, &options)?;
    let inverse = (0..n).map(|i| 1.0 / a[i * n + i]).collect();
    let jacobi = Solve::with(gpu, &a, &b, &options, Some(inverse))?;
    let (without, with) = (
        plain.solve(0.0, None, false)?,
        jacobi.solve(0.0, None, false)?,
    );
    near(
        "solution",
        &jacobi.solution()?,
        &solve_dense(&a, &minus(&b)),
        1e-3,
    )?;
    if with.iterations >= without.iterations || with.stop != Stop::Residual {
        return Err(format!("with {with:?}, without {without:?}").into());
    }
    Ok(())
}

fn cg_stops_for_every_reason(gpu: &Gpu) -> Outcome {
    let (a, b) = symmetric(&spread(12), 6);
    let capped = Solve::new(gpu, &a, &b, &exact().with_max_iterations(3))?;
    let report = capped.solve(0.0, None, false)?;
    expect(
        "cap",
        (report.stop, report.iterations),
        (Stop::MaxIterations, 3),
    )?;
    // 11 iterations are in the first submission and 2 in each other, but never more than the cap.
    expect("products", report.products, 3)?;

    let mut options = CgOptions::default().with_residual_tolerance(0.0);
    options.min_window = 2;
    options.progress_tolerance = 0.05;
    let report = Solve::new(gpu, &a, &b, &options)?.solve(0.0, None, false)?;
    expect("progress", report.stop, Stop::RelativeProgress)?;
    // The same test on the model values: this iteration passes it, the one before does not.
    let passes = |i: usize| {
        let (now, then) = (report.model[i], report.model[i - 2]);
        then - now < -now * 2.0 * 0.05
    };
    if !passes(report.iterations) || (3..report.iterations).any(passes) {
        return Err(format!("stopped at the wrong iteration: {report:?}").into());
    }

    let report = Solve::new(gpu, &a, &minus(&[0.0; 12]), &exact())?.solve(0.0, None, false)?;
    expect(
        "nothing to do",
        (report.stop, report.iterations),
        (Stop::Residual, 0),
    )?;

    let mut eigenvalues = spread(12);
    eigenvalues[3] = -2.0;
    let (indefinite, b) = symmetric(&eigenvalues, 7);
    let solve = Solve::new(gpu, &indefinite, &b, &exact())?;
    let report = solve.solve(0.0, None, false)?;
    expect("indefinite", report.stop, Stop::NegativeCurvature)?;
    let p = flat(&solve.cg.last_direction().read(gpu)?);
    let curvature = dot(&p, &times(&indefinite, &p));
    close("curvature", f64::from(report.curvature), curvature, 1e-4)?;
    if curvature >= 0.0 {
        return Err("the last direction has positive curvature".into());
    }
    // x is the last iterate before it.
    let x = solve.solution()?;
    let value = report.model[report.iterations];
    if report.iterations > 0 {
        close("model value", value, model_value(&indefinite, &b, &x), 1e-5)?;
    }
    // A shift above the lowest eigenvalue makes it positive definite.
    expect(
        "shifted",
        solve.solve(2.5, None, false)?.stop,
        Stop::Residual,
    )?;

    let huge: Vec<f64> = b.iter().map(|x| x * 1e25).collect();
    let report = Solve::new(gpu, &a, &huge, &exact())?.solve(0.0, None, false)?;
    expect(
        "overflow",
        (report.stop, report.iterations),
        (Stop::NotFinite, 0),
    )?;
    // Too flat a bowl: the minimum lies beyond f32, and x stays where it was.
    let flat_bowl: Vec<f64> = a.iter().map(|x| x * 1e-30).collect();
    let steep: Vec<f64> = b.iter().map(|x| x * 1e15).collect();
    let solve = Solve::new(gpu, &flat_bowl, &steep, &exact())?;
    let report = solve.solve(0.0, None, false)?;
    expect("overflow of x", report.stop, Stop::NotFinite)?;
    expect("x", solve.solution()?, vec![0.0; 12])
}

fn norm(x: &[f64]) -> f64 {
    dot(x, x).sqrt()
}

fn cg_stops_at_the_boundary_of_the_trust_region(gpu: &Gpu) -> Outcome {
    let (a, b) = symmetric(&spread(10), 8);
    let solve = Solve::new(gpu, &a, &b, &exact())?;
    let inside = solve_dense(&a, &minus(&b));
    for part in [0.1, 0.5, 0.9] {
        let radius = part * norm(&inside);
        let report = solve.solve(0.0, Some(radius as f32), false)?;
        expect("stop", report.stop, Stop::Boundary)?;
        let x = solve.solution()?;
        close("|x|", norm(&x), radius, 1e-5)?;
        let value = report.model[report.iterations];
        close("model value", value, model_value(&a, &b, &x), 1e-4)?;
    }
    let report = solve.solve(0.0, Some(2.0 * norm(&inside) as f32), false)?;
    expect("inside", report.stop, Stop::Residual)?;
    near("solution", &solve.solution()?, &inside, 1e-5)
}

fn cg_follows_negative_curvature_to_the_boundary(gpu: &Gpu) -> Outcome {
    let mut eigenvalues = spread(10);
    eigenvalues[4] = -0.5;
    for seed in 0..4 {
        let (a, b) = symmetric(&eigenvalues, 20 + seed);
        let solve = Solve::new(gpu, &a, &b, &exact())?;
        let report = solve.solve(0.0, Some(40.0), false)?;
        expect("stop", report.stop, Stop::NegativeCurvature)?;
        let x = solve.solution()?;
        close("|x|", norm(&x), 40.0, 1e-5)?;
        let (value, before) = (
            report.model[report.iterations],
            report.model[report.iterations - 1],
        );
        close("model value", value, model_value(&a, &b, &x), 1e-3)?;
        if value >= before {
            return Err(format!("the model rose to {value} from {before}").into());
        }
    }
    Ok(())
}

/// Regression from 3 features to 2 outputs.
fn regression() -> (Model, Batch) {
    let shape = DataShape {
        features: 3,
        targets: TargetShape::Values(2),
    };
    let model = Sequential::new()
        .dense(2)
        .model(shape, Loss::MeanSquaredError);
    let batch = batch_for(&model, 12, 5);
    (model, batch)
}

/// The Gauss-Newton matrix and gradient of a small model, dense.
fn dense(twin: &Reference, theta: &Tensors) -> Result<(Vec<f64>, Vec<f64>), Any> {
    let n = theta.concat().len();
    let mut matrix = Vec::new();
    for i in 0..n {
        let mut unit = vec![0.0; n];
        unit[i] = 1.0;
        matrix.extend(twin.answers(theta, &cut(&unit, theta))?.gauss_newton);
    }
    Ok((matrix, twin.gradient(theta)?))
}

fn undamped() -> AdaptiveDamping {
    let mut rule = AdaptiveDamping::default().with_initial(0.0);
    rule.minimum = 0.0;
    rule
}

fn newton_step_solves_least_squares(gpu: &Gpu) -> Outcome {
    let (model, batch) = regression();
    let start = draw(&model, 1)?;
    let twin = Reference::new(&model, &batch, 0.01)?;
    let (matrix, gradient) = dense(&twin, &start)?;
    let minimum = add(
        &start.concat(),
        1.0,
        &solve_dense(&matrix, &minus(&gradient)),
    );
    let mut objective = GraphObjective::new(gpu, model)?.with_l2(0.01)?;
    let theta = vector(gpu, &objective, &start)?;
    let options = NewtonCgOptions::default()
        .with_cg(exact())
        .with_damping(undamped());
    let report = NewtonCg::new(options)?.step(&mut objective, &theta, &batch)?;
    near("theta", &flat(&theta.read(gpu)?), &minimum, 1e-4)?;
    let lowest = twin.value(&cut(&minimum, &start))?;
    close("loss before", report.loss_before, twin.value(&start)?, 1e-5)?;
    close("loss after", report.loss_after.unwrap_or(0.0), lowest, 1e-5)?;
    close("rho", report.rho.unwrap_or(0.0), 1.0, 1e-3)?;
    close("|g|", report.gradient_norm, norm(&gradient), 1e-5)?;
    let step = norm(&add(&minimum, -1.0, &start.concat()));
    close("step", report.step_norm, step, 1e-4)?;
    expect("accepted", report.accepted, true)?;
    expect("length", report.step_length, Some(1.0))?;
    expect("stop", report.cg_stop, Some(Stop::Residual))
}

fn newton_warm_start_is_a_part_of_the_last_solution(gpu: &Gpu) -> Outcome {
    let (a, b) = symmetric(&spread(8), 9);
    let mut objective = GraphObjective::new(gpu, bowl(&a, &b))?;
    let theta = objective.initial_parameters(0)?;
    let options = NewtonCgOptions::default()
        .with_cg(exact().with_max_iterations(1))
        .with_damping(undamped());
    let mut newton = NewtonCg::new(options)?;
    // One iteration of conjugate gradients for A x = -g from x.
    let iterate = |x: &[f64], g: &[f64]| {
        let r = add(g, 1.0, &times(&a, x));
        add(x, -dot(&r, &r) / dot(&r, &times(&a, &r)), &r)
    };
    let mut x = vec![0.0; 8];
    for _ in 0..3 {
        let at = flat(&theta.read(gpu)?);
        let g = add(&b, 1.0, &times(&a, &at));
        let start: Vec<f64> = x.iter().map(|x| 0.95 * x).collect();
        let report = newton.step(&mut objective, &theta, &no_data())?;
        x = iterate(&start, &g);
        let state = newton.state(&objective)?;
        let Some(previous) = state.vector("previous") else {
            // Dropped after a step that made the loss rise, or after no step.
            if report.rho.is_some_and(|rho| rho >= 0.0) {
                return Err(format!("nothing remembered after {report:?}").into());
            }
            return Ok(());
        };
        near("solution", &flat(previous), &x, 1e-5)?;
    }
    Ok(())
}

fn newton_damping_responds_to_the_reduction_ratio(gpu: &Gpu) -> Outcome {
    let (model, batch) = regression();
    let mut objective = GraphObjective::new(gpu, model.clone())?;
    let theta = vector(gpu, &objective, &draw(&model, 1)?)?;
    let mut newton = NewtonCg::new(NewtonCgOptions::default())?;
    // A quadratic is its own model: rho is 1, against the model without damping.
    for k in 0..3 {
        // A product of f32, as devices make it.
        let fall = (2.0f64 / 3.0) as f32;
        let expected = (0..k).fold(1.0, |damping: f32, _| damping * fall);
        let damping = f64::from(expected);
        let report = newton.step(&mut objective, &theta, &batch)?;
        close(
            "damping of the step",
            report.damping.unwrap_or(0.0),
            damping,
            1e-12,
        )?;
        close("rho", report.rho.unwrap_or(0.0), 1.0, 1e-2)?;
        close(
            "next damping",
            newton.damping(),
            f64::from(expected * fall),
            0.0,
        )?;
    }
    // Where the model is bad, the damping grows: sin of a large argument.
    let shape = DataShape {
        features: 1,
        targets: TargetShape::Values(1),
    };
    let model = Model::new(shape, |scope| {
        let w = scope.parameter("w", &[1, 1], Init::Constant(0.2));
        let outputs = (scope.features().dot(w) * 30.0).sin();
        Output {
            losses: Loss::MeanSquaredError.apply(scope, outputs),
            outputs,
            metric: None,
        }
    });
    let batch = Batch {
        features: vec![1.0, 0.9],
        targets: Targets::Values {
            values: vec![30.0, -20.0],
            width: 1,
        },
        weights: vec![0.5, 0.5],
    };
    let mut objective = GraphObjective::new(gpu, model)?;
    let theta = objective.initial_parameters(0)?;
    let start = AdaptiveDamping::default().with_initial(1e-3);
    let mut newton = NewtonCg::new(NewtonCgOptions::default().with_damping(start))?;
    let report = newton.step(&mut objective, &theta, &batch)?;
    if report.rho.is_none_or(|rho| rho >= 0.25) {
        return Err(format!("the model was expected to be bad: {report:?}").into());
    }
    close(
        "grown damping",
        newton.damping(),
        f64::from(1e-3f32 * 1.5),
        0.0,
    )
}

/// At a minimum there is nothing to gain: no step may end in an error, however often it is tried.
fn newton_at_the_minimum_keeps_working(gpu: &Gpu) -> Outcome {
    let (a, _) = symmetric(&spread(3), 10);
    let mut objective = GraphObjective::new(gpu, bowl(&a, &[0.0; 3]))?;
    let theta = objective.initial_parameters(0)?;
    let mut options = NewtonCgOptions::default();
    let mut newton = NewtonCg::new(options.clone())?;
    options.curvature = Curvature::Hessian;
    let mut region = NewtonCg::new(options)?;
    for step in 0..260 {
        for optimizer in [&mut newton, &mut region] {
            optimizer
                .step(&mut objective, &theta, &no_data())
                .map_err(|e| format!("step {step}: {e}"))?;
        }
    }
    expect("theta", bits(&theta.read(gpu)?), vec![0; 3])
}

/// A small network with a data set that it can learn.
fn task(rows: usize) -> (Model, Batch) {
    let shape = DataShape {
        features: 4,
        targets: TargetShape::Classes(3),
    };
    let model = Sequential::new()
        .dense(8)
        .activation(Activation::Tanh)
        .dense(3)
        .model(shape, Loss::SoftmaxCrossEntropy);
    let batch = batch_for(&model, rows, 6);
    (model, batch)
}

fn newton_goes_back_to_an_earlier_iterate_with_lower_loss(gpu: &Gpu) -> Outcome {
    let (model, batch) = task(24);
    let twin = Reference::new(&model, &batch, 0.0)?;
    let mut objective = GraphObjective::new(gpu, model)?;
    let theta = objective.initial_parameters(1)?;
    let options = NewtonCgOptions::default()
        .with_cg(exact())
        .with_damping(AdaptiveDamping::default().with_initial(1e-3));
    let mut newton = NewtonCg::new(options)?;
    let mut seen = 0;
    for _ in 0..40 {
        let before = wide_all(&theta.read(gpu)?);
        let report = newton.step(&mut objective, &theta, &batch)?;
        let after = wide_all(&theta.read(gpu)?);
        if !report.accepted {
            continue;
        }
        // A softmax loss near zero is a difference of numbers near one.
        let gap = report.loss_after.unwrap_or(f64::NAN) - twin.value(&after)?;
        if gap.is_nan() || gap.abs() > 1e-5 {
            return Err(format!("loss after is off by {gap:e}: {report:?}").into());
        }
        let state = newton.state(&objective)?;
        if let (Some(from), Some(last)) = (report.backtracked_to, state.vector("previous")) {
            if report.cg_iterations.is_none_or(|all| from >= all) {
                return Err(format!("not an earlier iterate: {report:?}").into());
            }
            let whole = add(&before.concat(), 1.0, &flat(last));
            let there = twin.value(&cut(&whole, &before))?;
            if there < twin.value(&after)? - 1e-5 {
                return Err(
                    format!("the last iterate has the lower loss {there}: {report:?}").into(),
                );
            }
            seen += 1;
        }
    }
    if seen == 0 {
        return Err("no step went back in 40; the test shows nothing".into());
    }
    Ok(())
}

/// `sqrt(1 + x^2)` from 2: Newton's step is `-x (1 + x^2) = -10`. Armijo's condition asks for a loss of at most `sqrt 5 - 0.01 a 4 sqrt 5`;
/// it holds first at `a = 0.8^5`, where x is -1.2768 and the loss 1.6218; at `0.8^4` the loss is 2.32.
fn newton_shortens_steps_by_four_fifths(gpu: &Gpu) -> Outcome {
    let shape = DataShape {
        features: 0,
        targets: TargetShape::Inputs,
    };
    let model = Model::new(shape, |scope| {
        let x = scope.parameter("x", &[1], Init::Constant(2.0));
        let losses = (x.square() + 1.0).sqrt();
        Output {
            losses,
            outputs: x,
            metric: None,
        }
    });
    let mut damping = AdaptiveDamping::default()
        .with_initial(0.0)
        .with_decrease(1.0);
    damping.minimum = 0.0;
    let mut objective = GraphObjective::new(gpu, model)?;
    let theta = objective.initial_parameters(0)?;
    let mut newton = NewtonCg::new(NewtonCgOptions::default().with_damping(damping))?;
    let report = newton.step(&mut objective, &theta, &no_data())?;
    let length = 0.8f64.powi(5);
    close(
        "step length",
        report.step_length.unwrap_or(f64::NAN),
        length,
        1e-6,
    )?;
    let found = f64::from(theta.read(gpu)?[0][0]);
    close("x", found, 2.0 - 10.0 * length, 1e-5)
}

fn newton_step_is_measured_and_never_goes_up(gpu: &Gpu) -> Outcome {
    let (model, batch) = task(24);
    let twin = Reference::new(&model, &batch, 0.0)?;
    for curvature in [Curvature::GaussNewton, Curvature::Hessian] {
        let mut objective = GraphObjective::new(gpu, model.clone())?;
        let theta = objective.initial_parameters(2)?;
        let options = NewtonCgOptions::default().with_curvature(curvature);
        let mut newton = NewtonCg::new(options)?;
        let first = twin.value(&wide_all(&theta.read(gpu)?))?;
        for _ in 0..25 {
            let before = theta.read(gpu)?;
            let report = newton.step(&mut objective, &theta, &batch)?;
            let after = theta.read(gpu)?;
            let loss = twin.value(&wide_all(&after))?;
            close(
                "loss before",
                report.loss_before,
                twin.value(&wide_all(&before))?,
                1e-4,
            )?;
            close("loss after", report.loss_after.unwrap_or(0.0), loss, 1e-4)?;
            let moved = norm(&add(&flat(&after), -1.0, &flat(&before)));
            if report.accepted {
                close("step", report.step_norm, moved, 1e-3)?;
            } else {
                expect("refused step", bits(&after), bits(&before))?;
                expect("refused step norm", report.step_norm, 0.0)?;
            }
            if loss > report.loss_before * (1.0 + 1e-5) {
                return Err(format!("{curvature:?}: the loss rose: {report:?}").into());
            }
            if let Some(radius) = report.radius
                && moved > radius * (1.0 + 1e-4)
            {
                return Err(format!("step of {moved} in a region of {radius}").into());
            }
        }
        let last = twin.value(&wide_all(&theta.read(gpu)?))?;
        if last > 0.5 * first {
            return Err(format!("{curvature:?}: only from {first} to {last} in 25 steps").into());
        }
    }
    Ok(())
}

/// `(x^2 - 1)^2 / 4 + y^2` near its saddle at zero: the true Hessian shows the way out.
fn trust_region_leaves_a_saddle(gpu: &Gpu) -> Outcome {
    let shape = DataShape {
        features: 0,
        targets: TargetShape::Inputs,
    };
    let model = Model::new(shape, |scope| {
        let x = scope.parameter("x", &[1], Init::Constant(1e-3));
        let y = scope.parameter("y", &[1], Init::Constant(0.5));
        Output {
            losses: (x.square() - 1.0).square() * 0.25 + y.square(),
            outputs: x,
            metric: None,
        }
    });
    let mut objective = GraphObjective::new(gpu, model)?;
    let theta = objective.initial_parameters(0)?;
    let options = NewtonCgOptions::default().with_curvature(Curvature::Hessian);
    let mut newton = NewtonCg::new(options)?;
    let mut negative = 0;
    for _ in 0..12 {
        let report = newton.step(&mut objective, &theta, &no_data())?;
        negative += usize::from(report.cg_stop == Some(Stop::NegativeCurvature));
        expect("no damping", report.damping, None)?;
    }
    let at = flat(&theta.read(gpu)?);
    if (at[0].abs() - 1.0).abs() > 1e-3 || at[1].abs() > 1e-3 || negative == 0 {
        return Err(
            format!("ended at {at:?} after {negative} directions of negative curvature").into(),
        );
    }
    Ok(())
}

/// A condition number of 200, of which the approximation leaves about 3.
fn nystrom_newton_solves_the_same_system_in_fewer_iterations(gpu: &Gpu) -> Outcome {
    let eigenvalues: Vec<f64> = (0..60).map(|i| 100.0 * 0.8f64.powi(i)).collect();
    let (a, b) = symmetric(&eigenvalues, 9);
    let damping = 0.5;
    let expected = solve_dense(&plus_diagonal(&a, damping), &minus(&b));
    let mut iterations = Vec::new();
    for nystrom in [false, true] {
        let options = if nystrom {
            NewtonCgOptions::nystrom(20, 1)
        } else {
            NewtonCgOptions::default()
        };
        let mut rule = AdaptiveDamping::default().with_initial(damping);
        rule.decrease = 1.0;
        let options = options.with_cg(exact()).with_damping(rule);
        let mut objective = GraphObjective::new(gpu, bowl(&a, &b))?;
        let theta = objective.initial_parameters(0)?;
        let mut newton = NewtonCg::new(options)?;
        let report = newton.step(&mut objective, &theta, &no_data())?;
        near("theta", &flat(&theta.read(gpu)?), &expected, 1e-3)?;
        // The reduction ratio is that of the model without damping, in the old variables.
        close("rho", report.rho.unwrap_or(0.0), 1.0, 1e-2)?;
        expect("readbacks", report.readbacks > u64::from(nystrom), true)?;
        iterations.push(report.cg_iterations.unwrap_or(0));
        // A start at a part of the last solution is a start in the new variables.
        let second = newton.step(&mut objective, &theta, &no_data())?;
        expect(
            "accepted",
            second.loss_after <= Some(second.loss_before),
            true,
        )?;
    }
    if 2 * iterations[1] > iterations[0] {
        return Err(format!("iterations without and with: {iterations:?}").into());
    }
    Ok(())
}

fn preconditioned_newton_trains(gpu: &Gpu) -> Outcome {
    let (model, batch) = task(24);
    let mut objective = GraphObjective::new(gpu, model)?;
    let theta = objective.initial_parameters(2)?;
    let options = NewtonCgOptions::default()
        .with_preconditioner(Preconditioner::EmpiricalFisher { exponent: 0.75 });
    let mut newton = NewtonCg::new(options)?;
    let mut losses = Vec::new();
    for _ in 0..20 {
        let report = newton.step(&mut objective, &theta, &batch)?;
        losses.push(report.loss_before);
    }
    if losses[19] > 0.5 * losses[0] {
        return Err(format!("{losses:?}").into());
    }
    Ok(())
}

/// Two examples with a parameter each, targets of 1e-5 and 3e-5 and weights of a half: slopes `g` of half the targets, whose squares,
/// weighted, are near the least damping of the preconditioner. Undamped, one iteration from zero goes along `g / (squares + 1e-10)^(3/4)`.
fn preconditioned_newton_without_damping_has_a_floor(gpu: &Gpu) -> Outcome {
    let shape = DataShape {
        features: 2,
        targets: TargetShape::Values(1),
    };
    let model = Model::new(shape, |scope| {
        let theta = scope.parameter("theta", &[2, 1], Init::Constant(0.0));
        let z = scope.features().dot(theta);
        Output {
            losses: ((z - scope.targets()).square() * 0.5).reshape(&[scope.rows()]),
            outputs: z,
            metric: None,
        }
    });
    let batch = Batch {
        features: vec![1.0, 0.0, 0.0, 1.0],
        targets: Targets::Values {
            values: vec![1e-5, 3e-5],
            width: 1,
        },
        weights: vec![0.5; 2],
    };
    let mut damping = AdaptiveDamping::default().with_initial(0.0);
    damping.minimum = 0.0;
    let cg = CgOptions::default().with_max_iterations(1);
    let options = NewtonCgOptions::default()
        .with_cg(cg)
        .with_damping(damping)
        .with_preconditioner(Preconditioner::EmpiricalFisher { exponent: 0.75 });
    let mut newton = NewtonCg::new(options)?;
    let mut objective = GraphObjective::new(gpu, model)?;
    let theta = objective.initial_parameters(0)?;
    newton.step(&mut objective, &theta, &batch)?;
    let step = flat(&theta.read(gpu)?);
    let along = |t: f64| 0.5 * t / (0.5 * t * t + 1e-10).powf(0.75);
    let expected = along(3e-5) / along(1e-5);
    close("ratio of steps", step[1] / step[0], expected, 1e-4)
}

/// Three outputs from two features, in f64: theta, gradient at theta.
struct FirstOrder {
    twin: Reference,
    theta: Tensors,
}

fn first_order(gpu: &Gpu) -> Result<(FirstOrder, GraphObjective, Vector, Batch), Any> {
    let (model, batch) = task(10);
    let start = draw(&model, 4)?;
    let twin = Reference::new(&model, &batch, 0.0)?;
    let objective = GraphObjective::new(gpu, model)?;
    let theta = vector(gpu, &objective, &start)?;
    Ok((FirstOrder { twin, theta: start }, objective, theta, batch))
}

fn sgd_follows_its_formula(gpu: &Gpu) -> Outcome {
    for (momentum, nesterov, decay) in [
        (0.0, false, 0.0),
        (0.0, false, 0.3),
        (0.9, false, 0.0),
        (0.8, true, 0.0),
        (0.5, true, 0.1),
    ] {
        let (mut hand, mut objective, theta, batch) = first_order(gpu)?;
        let rate = 0.25;
        let options = SgdOptions::default()
            .with_learning_rate(rate)
            .with_momentum(momentum)
            .with_nesterov(nesterov)
            .with_weight_decay(decay);
        let mut sgd = Sgd::new(options)?;
        let (rate, momentum, decay) = (f64::from(rate), f64::from(momentum), f64::from(decay));
        let mut m = vec![0.0; hand.theta.concat().len()];
        for step in 0..6 {
            let g = hand.twin.gradient(&hand.theta)?;
            let loss = hand.twin.value(&hand.theta)?;
            let report = sgd.step(&mut objective, &theta, &batch)?;
            close("loss", report.loss_before, loss, 1e-5)?;
            close("|g|", report.gradient_norm, norm(&g), 1e-5)?;
            expect("loss after", report.loss_after, None)?;
            m = add(&g, momentum, &m);
            let direction = if nesterov {
                add(&g, momentum, &m)
            } else {
                m.clone()
            };
            let x: Vec<f64> = hand
                .theta
                .concat()
                .iter()
                .map(|x| (1.0 - rate * decay) * x)
                .collect();
            hand.theta = cut(&add(&x, -rate, &direction), &hand.theta);
            let found = flat(&theta.read(gpu)?);
            near(&format!("step {step}"), &found, &hand.theta.concat(), 1e-5)?;
        }
    }
    Ok(())
}

fn adam_follows_its_formula(gpu: &Gpu) -> Outcome {
    for (beta1, beta2, decay) in [
        (0.9f32, 0.999f32, 0.0f32),
        (0.5, 0.9, 0.0),
        (0.9, 0.999, 0.4),
    ] {
        let (mut hand, mut objective, theta, batch) = first_order(gpu)?;
        let rate = 0.05f32;
        let options = AdamOptions::default()
            .with_learning_rate(rate)
            .with_beta1(beta1)
            .with_beta2(beta2)
            .with_weight_decay(decay);
        let mut adam = Adam::new(options)?;
        let name = Optimizer::<GraphObjective>::name(&adam);
        expect("name", name, if decay > 0.0 { "adamw" } else { "adam" })?;
        let wide = f64::from;
        let (rate, beta1, beta2, decay) = (wide(rate), wide(beta1), wide(beta2), wide(decay));
        let n = hand.theta.concat().len();
        let (mut m, mut v) = (vec![0.0; n], vec![0.0; n]);
        for step in 1..=8 {
            let g = hand.twin.gradient(&hand.theta)?;
            adam.step(&mut objective, &theta, &batch)?;
            let mut x = hand.theta.concat();
            for i in 0..n {
                m[i] = beta1 * m[i] + (1.0 - beta1) * g[i];
                v[i] = beta2 * v[i] + (1.0 - beta2) * g[i] * g[i];
                let mean = m[i] / (1.0 - beta1.powi(step));
                let spread = v[i] / (1.0 - beta2.powi(step));
                x[i] -= rate * decay * x[i];
                x[i] -= rate * mean / (spread.sqrt() + 1e-8);
            }
            hand.theta = cut(&x, &hand.theta);
            let found = flat(&theta.read(gpu)?);
            near(&format!("step {step}"), &found, &x, 1e-5)?;
        }
    }
    Ok(())
}

type Boxed = Box<dyn Optimizer<GraphObjective>>;

fn all() -> Result<Vec<Boxed>, Any> {
    let jacobi = NewtonCgOptions::default()
        .with_preconditioner(Preconditioner::EmpiricalFisher { exponent: 0.75 });
    let hessian = NewtonCgOptions::default().with_curvature(Curvature::Hessian);
    Ok(vec![
        Box::new(Sgd::new(SgdOptions::default())?),
        Box::new(Adam::new(AdamOptions::default())?),
        Box::new(NewtonCg::new(NewtonCgOptions::default())?),
        Box::new(NewtonCg::new(jacobi)?),
        Box::new(NewtonCg::new(hessian)?),
    ])
}

/// Those, and the ones that approximate the matrix by eigenpairs.
fn all_and_low_rank() -> Result<Vec<Boxed>, Any> {
    let nystrom = NewtonCgOptions::nystrom(4, 3);
    let eigen = EigenOptions::default()
        .with_rank(4)
        .with_oversampling(2)
        .with_power_iterations(0);
    let averaged = LrsfnOptions::default()
        .with_eigen(eigen.clone())
        .with_refresh(3)
        .with_average(0.5)
        .with_base(Base::Adam(AdamOptions::default()));
    let growing = LrsfnOptions::default()
        .with_eigen(eigen)
        .with_rank_rule(RankRule::Residual(0.3))
        .with_automatic(Some(4));
    let noisy = LrsfnOptions::default()
        .with_rank_rule(RankRule::Noise {
            least: 2.0,
            parts: 4,
        })
        .with_refresh(2)
        .with_base(Base::Sgd(SgdOptions::default()));
    let mut all = all()?;
    all.push(Box::new(NystromNewtonCg::new(nystrom)?));
    let kronecker = NewtonCgOptions::kronecker(3);
    all.push(Box::new(KroneckerNewtonCg::new(kronecker)?));
    all.push(Box::new(Lbfgs::new(
        LbfgsOptions::default().with_history(3),
    )?));
    let debiased = DebiasedSgdOptions::default().with_strategy(Strategy::cross_fit(2));
    all.push(Box::new(DebiasedSgd::new(debiased)?));
    all.push(Box::new(Kfac::new(KfacOptions::default())?));
    all.push(Box::new(Spring::new(SpringOptions::default())?));
    all.push(Box::new(Muon::new(MuonOptions::default())?));
    let (soap, shampoo) = (SoapOptions::default(), ShampooOptions::default());
    all.push(Box::new(Soap::new(soap.with_interval(3))?));
    all.push(Box::new(Shampoo::new(shampoo.with_interval(3))?));
    for options in [averaged, growing, noisy] {
        all.push(Box::new(LowRankSaddleFreeNewton::new(options)?));
    }
    Ok(all)
}

fn equal_seeds_give_equal_bits(gpu: &Gpu) -> Outcome {
    let (model, _) = task(1);
    let batches: Vec<Batch> = (0..3).map(|seed| batch_for(&model, 16, seed)).collect();
    let run = |index: usize| -> Result<Vec<u32>, Any> {
        let mut objective = GraphObjective::new(gpu, model.clone())?;
        let theta = objective.initial_parameters(7)?;
        let mut optimizer = all_and_low_rank()?.swap_remove(index);
        for step in 0..9 {
            optimizer.step(&mut objective, &theta, &batches[step % 3])?;
        }
        Ok(bits(&theta.read(gpu)?))
    };
    for index in 0..all_and_low_rank()?.len() {
        if run(index)? != run(index)? {
            let name = all_and_low_rank()?[index].name();
            return Err(format!("optimizer {index}, {name}: other bits").into());
        }
    }
    Ok(())
}

fn a_restored_state_continues_with_equal_bits(gpu: &Gpu) -> Outcome {
    let (model, batch) = task(16);
    for index in 0..all_and_low_rank()?.len() {
        let mut objective = GraphObjective::new(gpu, model.clone())?;
        let theta = objective.initial_parameters(7)?;
        let mut straight = all_and_low_rank()?.swap_remove(index);
        for _ in 0..4 {
            straight.step(&mut objective, &theta, &batch)?;
        }
        let (state, saved) = (straight.state(&objective)?, theta.read(gpu)?);
        for _ in 0..4 {
            straight.step(&mut objective, &theta, &batch)?;
        }
        let expected = bits(&theta.read(gpu)?);
        // Into a fresh one, and into the one that has gone on.
        let mut fresh_objective = GraphObjective::new(gpu, model.clone())?;
        let other = fresh_objective.initial_parameters(1)?;
        let mut fresh = all_and_low_rank()?.swap_remove(index);
        fresh.restore(&fresh_objective, &state)?;
        other.write(gpu, &saved)?;
        straight.restore(&objective, &state)?;
        theta.write(gpu, &saved)?;
        expect("state", straight.state(&objective)? == state, true)?;
        for _ in 0..4 {
            fresh.step(&mut fresh_objective, &other, &batch)?;
            straight.step(&mut objective, &theta, &batch)?;
        }
        let name = straight.name();
        if bits(&other.read(gpu)?) != expected || bits(&theta.read(gpu)?) != expected {
            return Err(format!("optimizer {index}, {name}: other bits").into());
        }
        // The state of an optimizer that has not begun makes it begin again.
        let beginning = all_and_low_rank()?.swap_remove(index).state(&objective)?;
        let again = fresh_objective.initial_parameters(7)?;
        fresh.restore(&fresh_objective, &beginning)?;
        for _ in 0..8 {
            fresh.step(&mut fresh_objective, &again, &batch)?;
        }
        if bits(&again.read(gpu)?) != expected {
            return Err(format!("optimizer {index}, {name}: begins with old memory").into());
        }
    }
    Ok(())
}

fn state_of_another_method_is_refused(gpu: &Gpu) -> Outcome {
    let (model, batch) = task(8);
    let mut objective = GraphObjective::new(gpu, model)?;
    let theta = objective.initial_parameters(7)?;
    let mut states = Vec::new();
    for mut optimizer in all()?.into_iter().take(3) {
        optimizer.step(&mut objective, &theta, &batch)?;
        states.push(optimizer.state(&objective)?);
    }
    for (i, state) in states.iter().enumerate() {
        for (j, mut optimizer) in all()?.into_iter().take(3).enumerate() {
            let restored = optimizer.restore(&objective, state);
            if restored.is_ok() != (i == j) {
                return Err(format!("state {i} in optimizer {j}: {restored:?}").into());
            }
        }
    }
    Ok(())
}

fn readbacks_of_a_step(gpu: &Gpu) -> Outcome {
    // A device of its own: other trials read from the shared one at the same time.
    let gpu = &harness::of_its_own(gpu)?;
    let (model, batch) = task(16);
    for (index, mut optimizer) in all()?.into_iter().enumerate() {
        let mut objective = GraphObjective::new(gpu, model.clone())?;
        let theta = objective.initial_parameters(7)?;
        for _ in 0..6 {
            let before = gpu.readbacks();
            let report = optimizer.step(&mut objective, &theta, &batch)?;
            let found = gpu.readbacks() - before;
            let Some(iterations) = report.cg_iterations else {
                expect("readbacks of a first-order step", found, 1)?;
                continue;
            };
            // The solve and the losses of its last iterates end in one readback. Before that the host looks at the first 11 iterations and
            // at each two after them, while two more are queued.
            let looks = iterations.saturating_sub(11).div_ceil(2) as u64;
            expect("readbacks told", report.readbacks, found)?;
            if report.looks < looks || report.looks > looks + 1 {
                return Err(format!("optimizer {index}: {looks} expected, {report:?}").into());
            }
            let full_step = report.step_length == Some(1.0) && report.backtracked_to.is_none();
            if found < 1 || full_step && found > 1 {
                return Err(format!("optimizer {index}: {found} readbacks, {report:?}").into());
            }
        }
    }
    Ok(())
}

fn work_of_a_step(gpu: &Gpu) -> Outcome {
    let (model, batch) = task(15);
    let batch = batch.pad_to(20)?;
    for (index, mut optimizer) in all()?.into_iter().enumerate() {
        let mut objective = GraphObjective::new(gpu, model.clone())?;
        let theta = objective.initial_parameters(7)?;
        for step in 0..3 {
            let report = optimizer.step(&mut objective, &theta, &batch)?;
            // Padding is not counted.
            let Some(iterations) = report.cg_iterations else {
                expect("work of a gradient", report.work, 15.0)?;
                continue;
            };
            let units = report.work / 15.0;
            let warm = index < 4 && step > 0;
            let fisher = f64::from(u8::from(index == 3));
            // A gradient, the Fisher diagonal, the products, at least one change of the loss (2/3) and at most three of a full step.
            let least = 1.0 + fisher + 2.0 * (iterations.min(11) as f64);
            let most = 1.0 + fisher + 2.0 * (iterations.max(11) + 4 + usize::from(warm)) as f64;
            let searched = report.step_length != Some(1.0) || report.backtracked_to.is_some();
            if units < least + 2.0 / 3.0 - 1e-9 || !searched && units > most + 2.0 + 1e-9 {
                return Err(
                    format!("optimizer {index}, step {step}: {units} in {report:?}").into(),
                );
            }
        }
    }
    Ok(())
}
