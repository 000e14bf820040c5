//! Conjugate gradients on every adapter against the same in f64: short vectors, where one workgroup does an iteration, and long ones.

use std::sync::Arc;

use crate::harness::{self, GpuTest, Outcome};
use crate::reference::conjugate_gradients::{End, System};
use crate::reference::{batch_for, bits, dot, flat, no_data, relative_error, vector};
use osculant::data::{Batch, Targets};
use osculant::gpu::Gpu;
use osculant::linalg::{CgOptions, CgReport, ConjugateGradients, Operator, Stop, Submissions};
use osculant::nn::{DataShape, Init, Loss, Model, Output, Sequential, TargetShape};
use osculant::objective::{Curvature, Curved, GraphObjective, Quadratic, QuadraticRequest, Slot};
use osculant::optim::{AdaptiveDamping, NewtonCg, NewtonCgOptions, Optimizer};
use osculant::random::Philox;
use rand::RngExt;

pub(crate) fn tests() -> Vec<GpuTest> {
    gpu_tests![
        iterates_are_those_of_f64,
        the_progress_test_is_that_of_martens,
        preconditioned_iterates_are_those_of_f64,
        warm_iterates_are_those_of_f64,
        the_boundary_is_met_where_f64_meets_it,
        negative_curvature_is_met_where_f64_meets_it,
        a_great_first_step_is_not_the_last,
        a_prediction_below_a_millionth_of_its_terms_is_noise,
        an_iteration_adds_one_kernel_or_two_to_its_product,
        equal_solves_give_equal_bits,
        few_iterations_come_after_the_stop,
        a_newton_step_waits_once,
        the_unit_of_the_loss_does_not_matter,
        submissions_change_no_bits_and_no_decision,
        a_warm_solve_with_no_gradient_ends_at_zero,
        least_squares_in_any_unit_are_solved,
    ]
}

type Any = Box<dyn std::error::Error>;

/// Lengths on both sides of what is left to one workgroup, padded and not.
const LENGTHS: [usize; 4] = [37, 4_000, 20_001, 70_016];

/// `A = diag(d) + u u^T + v v^T` and `g`, all in f32 numbers.
struct Problem {
    d: Vec<f32>,
    u: [Vec<f32>; 2],
    g: Vec<f32>,
}

impl Problem {
    /// A positive definite one: `d` in 1..5, and `|u|^2`, `|v|^2` about 10.
    fn random(n: usize, seed: u64) -> Self {
        let mut random = Philox::new(seed, 1 << 43);
        let mut draw = |low: f32, high: f32| -> Vec<f32> {
            (0..n).map(|_| random.random_range(low..high)).collect()
        };
        let scale = (30.0 / n as f32).sqrt();
        Self {
            d: draw(1.0, 5.0),
            u: [draw(-scale, scale), draw(-scale, scale)],
            g: draw(-1.0, 1.0),
        }
    }

    fn times(&self, x: &[f64]) -> Vec<f64> {
        let mut y: Vec<f64> = x
            .iter()
            .zip(&self.d)
            .map(|(x, &d)| x * f64::from(d))
            .collect();
        for u in &self.u {
            let along: f64 = u.iter().zip(x).map(|(&u, x)| f64::from(u) * x).sum();
            for (y, &u) in y.iter_mut().zip(u) {
                *y += along * f64::from(u);
            }
        }
        y
    }

    fn gradient(&self) -> Vec<f64> {
        self.g.iter().copied().map(f64::from).collect()
    }

    /// `x.A x / 2 + g.x`, at zero.
    fn model(&self) -> Model {
        let n = self.d.len();
        let (d, u, g) = (self.d.clone(), self.u.concat(), self.g.clone());
        let shape = DataShape {
            features: 0,
            targets: TargetShape::Inputs,
        };
        Model::new(shape, move |scope| {
            let x = scope.parameter("x", &[n, 1], Init::Constant(0.0));
            let d = scope.data(d.clone(), &[n, 1]);
            let u = scope.data(u.clone(), &[2, n]);
            let g = scope.data(g.clone(), &[n, 1]);
            let own = (x * (d * x * 0.5 + g)).sum(&[0, 1]).reshape(&[1]);
            let along = u.dot(x).square().sum(&[0, 1]).reshape(&[1]);
            Output {
                losses: own + along * 0.5,
                outputs: x,
                metric: None,
            }
        })
    }

    fn system<'a>(&self, product: &'a dyn Fn(&[f64]) -> Vec<f64>, g: &'a [f64]) -> System<'a> {
        System {
            product,
            g,
            inverse: None,
            start: vec![0.0; g.len()],
            radius: None,
        }
    }
}

/// A problem on a device.
struct Solve {
    gpu: Gpu,
    _objective: GraphObjective,
    quadratic: Arc<Quadratic>,
    operator: Operator,
    cg: ConjugateGradients,
}

impl Solve {
    fn new(
        gpu: &Gpu,
        problem: &Problem,
        options: &CgOptions,
        inverse: Option<&[f64]>,
    ) -> Result<Self, Any> {
        let mut objective = GraphObjective::new(gpu, problem.model())?;
        let theta = objective.initial_parameters(0)?;
        let request = QuadraticRequest {
            curvature: Curvature::Hessian,
            fisher_diagonal: false,
            ..QuadraticRequest::default()
        };
        let quadratic = objective.load_quadratic(Slot::default(), &theta, &no_data(), request)?;
        let inverse = match inverse {
            Some(values) => Some(vector(gpu, &objective, &vec![values.to_vec()])?),
            None => None,
        };
        let operator = Operator::from(quadratic.as_ref());
        let gradient = &quadratic.gradient;
        let cg = ConjugateGradients::new(gpu, &operator, gradient, inverse.as_ref(), options, &[])?;
        Ok(Self {
            gpu: gpu.clone(),
            _objective: objective,
            quadratic,
            operator,
            cg,
        })
    }

    fn run(&self, shift: f32, radius: Option<f32>, warm: bool) -> Result<CgReport, Any> {
        let before = &self.quadratic.linearize;
        Ok(self.cg.solve(before, shift, radius, warm)?)
    }

    fn solution(&self) -> Result<Vec<f64>, Any> {
        Ok(flat(&self.cg.solution.read(&self.gpu)?))
    }
}

/// No stop but the cap, the curvature and the boundary.
fn only(iterations: usize) -> CgOptions {
    CgOptions::default()
        .with_max_iterations(iterations)
        .with_progress_tolerance(0.0)
        .with_residual_tolerance(0.0)
}

/// Compares a solve with the one in f64. In f32 conjugacy is lost as the two far eigenvalues converge, most with short vectors: on forty
/// such problems of 37 elements, textbook conjugate gradients in f32 are off by up to 3e-5 after 13 iterations, those with the predicted
/// beta by up to 5e-5. The tolerance is 1e-4.
fn same(
    what: &str,
    solve: &Solve,
    report: &CgReport,
    expected: &crate::reference::conjugate_gradients::Solved,
) -> Outcome {
    let stop = match expected.end {
        End::Cap => Stop::MaxIterations,
        End::Boundary => Stop::Boundary,
        End::NegativeCurvature => Stop::NegativeCurvature,
    };
    if report.stop != stop || report.model.len() != expected.model.len() {
        return Err(format!(
            "{what}: {report:?} instead of {:?} after {} iterations",
            expected.end,
            expected.model.len() - 1
        )
        .into());
    }
    let model = &report.model;
    let lowest = expected.model.iter().fold(0.0f64, |m, v| m.max(v.abs()));
    for (i, (found, expected)) in model.iter().zip(&expected.model).enumerate() {
        if (found - expected).abs() > 1e-5 * lowest || !found.is_finite() {
            return Err(format!("{what}: model {i} is {found} instead of {expected}").into());
        }
    }
    let error = relative_error(&solve.solution()?, &expected.x);
    if error.is_nan() || error > 1e-4 {
        return Err(format!("{what}: the iterate is off by {error:.2e}").into());
    }
    Ok(())
}

/// `(phi(i) - phi(i - k)) / phi(i)`, the relative progress over the window `k = max(least, i / 10)`, as multiples of `k`; nothing before
/// the window is full.
fn progress(model: &[f64], i: usize, least: usize) -> Option<f64> {
    let k = least.max(i / 10);
    (i > k && model[i] < 0.0).then(|| (model[i] - model[i - k]) / model[i] / k as f64)
}

/// Solves stop at the first iteration with too little progress over Martens' window (2010, section 4.4), short and long windows alike.
fn the_progress_test_is_that_of_martens(gpu: &Gpu) -> Outcome {
    let mut stops = Vec::new();
    for (n, least) in [(37, 2), (300, 3), (300, 10)] {
        // Eigenvalues from 5e-4 to 5: hundreds of iterations would be of use.
        let mut problem = Problem::random(n, 2);
        for (i, d) in problem.d.iter_mut().enumerate() {
            *d = 5.0 * 10f32.powf(-4.0 * i as f32 / n as f32);
        }
        let all = Solve::new(gpu, &problem, &only(70), None)?.run(0.0, None, false)?;
        let of = |i: usize| progress(&all.model, i, least);
        for target in [least + 2, 24, 37, 52] {
            if target >= all.model.len() {
                continue;
            }
            // A tolerance that the progress at the target falls below, and no progress before comes near.
            let before = (0..target).filter_map(of).fold(f64::INFINITY, f64::min);
            let Some(at) = of(target).filter(|&at| at < 0.97 * before && at > 1e-5) else {
                continue;
            };
            let mut options =
                only(70).with_progress_tolerance((at * before.min(4.0 * at)).sqrt() as f32);
            options.min_window = least;
            let report = Solve::new(gpu, &problem, &options, None)?.run(0.0, None, false)?;
            if (report.stop, report.iterations) != (Stop::RelativeProgress, target) {
                let found = (report.stop, report.iterations);
                return Err(format!("{n}, window {least}: {found:?} instead of {target}").into());
            }
            stops.push(target);
        }
    }
    // Windows longer than the least have been tried, too.
    if stops.len() < 4 || !stops.iter().any(|&i| i >= 37) {
        return Err(format!("only stops at {stops:?}").into());
    }
    Ok(())
}

fn iterates_are_those_of_f64(gpu: &Gpu) -> Outcome {
    for n in LENGTHS {
        let problem = Problem::random(n, 1);
        let (g, product) = (problem.gradient(), |x: &[f64]| problem.times(x));
        let expected = problem.system(&product, &g).solve(8);
        let solve = Solve::new(gpu, &problem, &only(8), None)?;
        let report = solve.run(0.0, None, false)?;
        same(&format!("n = {n}"), &solve, &report, &expected)?;
        // Also the residual, which is that of the vector and not of a recurrence.
        let x = solve.solution()?;
        let r: Vec<f64> = problem
            .times(&x)
            .iter()
            .zip(&g)
            .map(|(a, g)| a + g)
            .collect();
        let residual = (dot(&r, &r) / dot(&g, &g)).sqrt();
        let told = f64::from(report.relative_residual);
        if told.is_nan() || (told - residual).abs() > 1e-2 * residual + 1e-6 {
            return Err(format!("n = {n}: residual {told}, not {residual}").into());
        }
    }
    Ok(())
}

fn preconditioned_iterates_are_those_of_f64(gpu: &Gpu) -> Outcome {
    for n in LENGTHS {
        let problem = Problem::random(n, 2);
        let inverse: Vec<f64> = (0..n)
            .map(|i| f64::from(0.2 + (i % 5) as f32 * 0.25))
            .collect();
        let g = problem.gradient();
        let shifted = |x: &[f64]| {
            let y = problem.times(x);
            y.iter().zip(x).map(|(y, x)| y + 0.5 * x).collect()
        };
        let mut system = problem.system(&shifted, &g);
        system.inverse = Some(&inverse);
        let expected = system.solve(9);
        let solve = Solve::new(gpu, &problem, &only(9), Some(&inverse))?;
        let report = solve.run(0.5, None, false)?;
        same(&format!("n = {n}"), &solve, &report, &expected)?;
    }
    Ok(())
}

fn warm_iterates_are_those_of_f64(gpu: &Gpu) -> Outcome {
    for n in LENGTHS {
        let problem = Problem::random(n, 3);
        let (g, product) = (problem.gradient(), |x: &[f64]| problem.times(x));
        let mut system = problem.system(&product, &g);
        system.start = (0..n).map(|i| 0.25 * (i % 9) as f64 - 1.0).collect();
        let expected = system.solve(13);
        let solve = Solve::new(gpu, &problem, &only(13), None)?;
        let start = system.start.iter().map(|&x| x as f32).collect();
        solve.cg.solution.write(gpu, &[start])?;
        let report = solve.run(0.0, None, true)?;
        same(&format!("n = {n}"), &solve, &report, &expected)?;
    }
    Ok(())
}

fn the_boundary_is_met_where_f64_meets_it(gpu: &Gpu) -> Outcome {
    for n in LENGTHS {
        let problem = Problem::random(n, 4);
        let (g, product) = (problem.gradient(), |x: &[f64]| problem.times(x));
        let inverse: Vec<f64> = (0..n)
            .map(|i| f64::from(0.2 + (i % 5) as f32 * 0.25))
            .collect();
        for inverse in [None, Some(&inverse[..])] {
            let mut system = problem.system(&product, &g);
            system.inverse = inverse;
            let inside = system.solve(8).x;
            let length = match inverse {
                Some(inverse) => inside.iter().zip(inverse).map(|(x, i)| x * x / i).sum(),
                None => dot(&inside, &inside),
            };
            for part in [0.3, 0.97] {
                let radius = (part * f64::sqrt(length)) as f32;
                system.radius = Some(f64::from(radius));
                let expected = system.solve(8);
                let solve = Solve::new(gpu, &problem, &only(8), inverse)?;
                let report = solve.run(0.0, Some(radius), false)?;
                same(&format!("n = {n}, {part}"), &solve, &report, &expected)?;
            }
        }
    }
    Ok(())
}

fn negative_curvature_is_met_where_f64_meets_it(gpu: &Gpu) -> Outcome {
    for n in LENGTHS {
        let mut problem = Problem::random(n, 5);
        for d in problem.d.iter_mut().step_by(11) {
            *d = -2.0;
        }
        let (g, product) = (problem.gradient(), |x: &[f64]| problem.times(x));
        let mut system = problem.system(&product, &g);
        let solve = Solve::new(gpu, &problem, &only(20), None)?;
        let expected = system.solve(20);
        if expected.end != End::NegativeCurvature || expected.model.len() < 2 {
            return Err("the problem has no negative curvature to find".into());
        }
        let report = solve.run(0.0, None, false)?;
        same(&format!("n = {n}"), &solve, &report, &expected)?;
        let radius = 10.0 * dot(&expected.x, &expected.x).sqrt();
        system.radius = Some(f64::from(radius as f32));
        let expected = system.solve(20);
        let report = solve.run(0.0, Some(radius as f32), false)?;
        same(&format!("n = {n}, region"), &solve, &report, &expected)?;
    }
    Ok(())
}

/// Near the identity the first step takes a million of the residual, and the prediction of its square is noise: it must not end the solve,
/// nor spoil the steps after it.
fn a_great_first_step_is_not_the_last(gpu: &Gpu) -> Outcome {
    for n in LENGTHS {
        let mut problem = Problem::random(n, 6);
        for d in &mut problem.d {
            *d = 1.0 + 5e-7 * (*d - 3.0);
        }
        problem.u = [vec![0.0; n], vec![0.0; n]];
        let (g, product) = (problem.gradient(), |x: &[f64]| problem.times(x));
        let system = problem.system(&product, &g);
        let residual = |x: &[f64]| {
            let r: Vec<f64> = problem
                .times(x)
                .iter()
                .zip(&g)
                .map(|(a, g)| a + g)
                .collect();
            (dot(&r, &r) / dot(&g, &g)).sqrt()
        };
        let first = residual(&system.solve(1).x);
        if !(3e-7..3e-6).contains(&first) {
            return Err(format!("the first step leaves {first:e}; the test shows nothing").into());
        }
        let options = only(9).with_residual_tolerance(2e-7);
        let solve = Solve::new(gpu, &problem, &options, None)?;
        let report = solve.run(0.0, None, false)?;
        let left = residual(&solve.solution()?);
        // x in f32 leaves up to 6e-8 in the true residual.
        if report.stop != Stop::Residual || !(2..=4).contains(&report.iterations) || left > 2.7e-7 {
            return Err(format!("n = {n}: {left:e} left, {report:?}").into());
        }
    }
    Ok(())
}

/// Long vectors with 32 slopes of 1 and no others, and curvatures of 1, but for `steep` of the 32, which have 1 + 2^-9 and 1 - 2^-9. The
/// first step is -1 along each slope, and of `r.z` it leaves `left = steep 2^-18`, which is predicted from terms that are 64 together, all
/// of them exact in f32. Where `left` is noise beside those terms the second direction is the residual, which is zero where the curvature
/// is 1; else `left / 32` of the first direction is in it.
fn a_prediction_below_a_millionth_of_its_terms_is_noise(gpu: &Gpu) -> Outcome {
    for n in [20_001, 70_016] {
        for (steep, noise) in [(14, true), (20, false)] {
            let mut problem = Problem::random(n, 6);
            problem.u = [vec![0.0; n], vec![0.0; n]];
            for i in 0..n {
                let tilt = [1.0, -1.0][i % 2] * f32::exp2(-9.0);
                problem.d[i] = if i < steep { 1.0 + tilt } else { 1.0 };
                problem.g[i] = if i < 32 { 1.0 } else { 0.0 };
            }
            let left = steep as f64 * f64::exp2(-18.0);
            let part = left / 64.0;
            if !(0.67e-6..1.33e-6).contains(&part) || noise != (part < 1e-6) {
                return Err(format!("{part:e} is left; the test shows nothing").into());
            }
            let solve = Solve::new(gpu, &problem, &only(2), None)?;
            let report = solve.run(0.0, None, false)?;
            // The second step is as long as its direction to 2^-9 of it, and rounded to 2^-23.
            let (moved, beta) = (-1.0 - solve.solution()?[31], left / 32.0);
            let right = if noise {
                moved == 0.0
            } else {
                (moved - beta).abs() < f64::exp2(-23.0)
            };
            if report.iterations != 2 || !right {
                let what = format!("n = {n}, {part:e} left");
                return Err(format!("{what}: {moved:e}, beta {beta:e}, {report:?}").into());
            }
        }
    }
    Ok(())
}

fn an_iteration_adds_one_kernel_or_two_to_its_product(gpu: &Gpu) -> Outcome {
    for (n, expected) in LENGTHS.into_iter().zip([1, 1, 2, 2]) {
        let ones = vec![1.0; n];
        for inverse in [None, Some(&ones[..])] {
            let solve = Solve::new(gpu, &Problem::random(n, 7), &only(3), inverse)?;
            let iteration = solve.cg.iteration().ok_or("not recorded")?;
            let product = solve.operator.multiply.recording().ok_or("not recorded")?;
            let more = iteration.dispatches() - product.dispatches();
            let commands = iteration.commands().len() - product.commands().len();
            if (more, commands) != (expected, expected) {
                return Err(format!("n = {n}: {more} kernels in {commands} commands").into());
            }
        }
    }
    Ok(())
}

fn equal_solves_give_equal_bits(gpu: &Gpu) -> Outcome {
    for n in LENGTHS {
        let problem = Problem::random(n, 8);
        let solve = Solve::new(gpu, &problem, &only(15), None)?;
        let again = Solve::new(gpu, &problem, &only(15), None)?;
        let mut seen = Vec::new();
        for solve in [&solve, &solve, &again] {
            let report = solve.run(0.25, None, false)?;
            let model: Vec<u64> = report.model.iter().map(|m| m.to_bits()).collect();
            seen.push((bits(&solve.cg.solution.read(gpu)?), model));
        }
        if seen[0] != seen[1] || seen[0] != seen[2] {
            return Err(format!("n = {n}: other bits").into());
        }
    }
    Ok(())
}

/// Whatever iteration a long solve ends at, the host sees it soon, and reads only while the device has more to do.
fn few_iterations_come_after_the_stop(gpu: &Gpu) -> Outcome {
    let gpu = &harness::of_its_own(gpu)?;
    let mut problem = Problem::random(500, 9);
    for d in &mut problem.d {
        *d = (*d / 5.0).powi(3);
    }
    let mut ends = Vec::new();
    for exponent in 2..28 {
        let options = only(200).with_residual_tolerance(0.75f32.powi(exponent));
        let solve = Solve::new(gpu, &problem, &options, None)?;
        let before = (gpu.readbacks(), gpu.looks());
        let report = solve.run(0.0, None, false)?;
        let (readbacks, looks) = (gpu.readbacks() - before.0, gpu.looks() - before.1);
        // A small residual at the end of a round is found in the next one.
        let expected = report.iterations.max(11) + 4;
        if report.stop != Stop::Residual
            || report.products > expected
            || readbacks > 0
            || looks == 0
        {
            return Err(format!("{readbacks} readbacks, {looks} looks, {report:?}").into());
        }
        ends.push(report.iterations);
    }
    ends.dedup();
    if ends.len() < 5 || ends.iter().all(|&end| end <= 11) {
        return Err(format!("too few different ends: {ends:?}").into());
    }
    Ok(())
}

fn a_newton_step_waits_once(gpu: &Gpu) -> Outcome {
    // A device of its own: other trials read from the shared one at the same time.
    let gpu = &harness::of_its_own(gpu)?;
    let shape = DataShape {
        features: 4,
        targets: TargetShape::Classes(3),
    };
    let model = Sequential::new()
        .dense(3)
        .model(shape, Loss::SoftmaxCrossEntropy);
    let batch = batch_for(&model, 24, 6);
    for iterations in [1, 5, 11, 12, 14, 30] {
        let cg = only(iterations);
        let mut newton = NewtonCg::new(NewtonCgOptions::default().with_cg(cg))?;
        let mut objective = GraphObjective::new(gpu, model.clone())?;
        let theta = objective.initial_parameters(7)?;
        for step in 0..3 {
            let before = (gpu.readbacks(), gpu.looks());
            let report = newton.step(&mut objective, &theta, &batch)?;
            let found = (gpu.readbacks() - before.0, gpu.looks() - before.1);
            let looks = (iterations > 11) == (found.1 > 0);
            if found.0 != 1 || !looks || found != (report.readbacks, report.looks) {
                return Err(format!("{iterations}, step {step}: {found:?}, {report:?}").into());
            }
        }
    }
    Ok(())
}

/// `C -> c C`, `g -> c g`, `shift -> c shift`: the same bits for a power of four (roots of it scale `u`), and the same solution to rounding
/// otherwise.
fn the_unit_of_the_loss_does_not_matter(gpu: &Gpu) -> Outcome {
    for n in LENGTHS {
        let inverse: Vec<f64> = (0..n)
            .map(|i| f64::from(0.2 + (i % 5) as f32 * 0.25))
            .collect();
        for (inverse, radius) in [
            (None, None),
            (Some(&inverse[..]), None),
            (None, Some(0.05 * (n as f32).sqrt())),
        ] {
            let solved = |root: f32, iterations: usize| -> Result<(CgReport, Vec<f64>), Any> {
                let mut problem = Problem::random(n, 10);
                problem.d.iter_mut().for_each(|d| *d *= root * root);
                problem.g.iter_mut().for_each(|g| *g *= root * root);
                problem.u.iter_mut().flatten().for_each(|u| *u *= root);
                let solve = Solve::new(gpu, &problem, &only(iterations), inverse)?;
                let shift = if radius.is_none() {
                    0.25 * root * root
                } else {
                    0.0
                };
                let report = solve.run(shift, radius, false)?;
                Ok((report, solve.solution()?))
            };
            let (expected, x) = solved(1.0, 12)?;
            // Data that are rounded otherwise are other data, whose iterates drift apart as conjugacy is lost (see `same`): in units near
            // this one by as much as in any other.
            let mut drift = 0.0_f64;
            for root in [1.1, 0.7, 1.3, 3.0] {
                drift = drift.max(relative_error(&solved(root, 12)?.1, &x));
            }
            for root in [f32::exp2(-23.0), f32::exp2(21.0), 1e-7, 3e6] {
                let exact = root.log2().fract() == 0.0;
                let (report, found) = solved(root, 12)?;
                let error = relative_error(&found, &x);
                let what = format!(
                    "n = {n}, {radius:?}, {:e}: off by {error:.1e}, in units near 1 by {drift:.1e}",
                    root * root
                );
                if (report.stop, report.iterations) != (expected.stop, expected.iterations) {
                    return Err(format!("{what}: {report:?}, not {expected:?}").into());
                }
                if (exact && found != x) || error.is_nan() || error > 1e-5f64.max(4.0 * drift) {
                    return Err(what.into());
                }
                if !exact {
                    let (early, early_x) = (solved(root, 7)?.1, solved(1.0, 7)?.1);
                    let error = relative_error(&early, &early_x);
                    if error.is_nan() || error > 1e-5 {
                        return Err(format!("{what}; after 7 iterations off by {error:.1e}").into());
                    }
                }
            }
        }
    }
    Ok(())
}

fn submissions_change_no_bits_and_no_decision(gpu: &Gpu) -> Outcome {
    for n in LENGTHS {
        let problem = Problem::random(n, 11);
        let inverse: Vec<f64> = (0..n)
            .map(|i| f64::from(0.2 + (i % 5) as f32 * 0.25))
            .collect();
        for (inverse, radius, options) in [
            (None, None, CgOptions::default()),
            (Some(&inverse[..]), None, CgOptions::default()),
            (
                None,
                None,
                CgOptions::default().with_residual_tolerance(1e-2),
            ),
            (None, Some(0.2 * (n as f32).sqrt()), CgOptions::default()),
        ] {
            let mut seen = Vec::new();
            let fixed = [1, 2, 3, 5, 11, 20].map(Submissions::Fixed);
            for submissions in fixed.into_iter().chain([Submissions::default()]) {
                let options = options.clone().with_submissions(submissions);
                let solve = Solve::new(gpu, &problem, &options, inverse)?;
                let report = solve.run(0.0, radius, false)?;
                let residual = report.relative_residual.to_bits();
                let x = bits(&solve.cg.solution.read(gpu)?);
                seen.push((report.stop, report.iterations, report.model, residual, x));
            }
            if let Some(other) = seen.iter().find(|other| **other != seen[0]) {
                let (a, b) = ((seen[0].0, seen[0].1), (other.0, other.1));
                return Err(format!("n = {n}: {a:?} and {b:?}, or other bits").into());
            }
        }
    }
    Ok(())
}

fn a_warm_solve_with_no_gradient_ends_at_zero(gpu: &Gpu) -> Outcome {
    for n in LENGTHS {
        let mut problem = Problem::random(n, 12);
        problem.g.fill(0.0);
        let solve = Solve::new(gpu, &problem, &only(5), None)?;
        solve.cg.solution.write(gpu, &[vec![1.0; n]])?;
        let report = solve.run(0.0, None, true)?;
        let still = report.stop == Stop::Residual && report.iterations == 0;
        if !still || report.gradient_norm != 0.0 || solve.solution()?.iter().any(|&x| x != 0.0) {
            return Err(format!("n = {n}: {report:?}").into());
        }
    }
    Ok(())
}

/// `y = 2 x` by undamped Newton-CG, with `x` in units from nanometres to the solar system's: right to a thousandth, or an error that names
/// the scale.
fn least_squares_in_any_unit_are_solved(gpu: &Gpu) -> Outcome {
    for unit in [1.0f32, 1e-6, 1e-9, 1e5, 1e8, 1e11] {
        let x: Vec<f32> = (0..8).map(|i| unit * (1.0 + i as f32 / 8.0)).collect();
        let y: Vec<f32> = x.iter().map(|x| 2.0 * x).collect();
        let shape = DataShape {
            features: 1,
            targets: TargetShape::Values(1),
        };
        let model = Sequential::new()
            .dense_with(1, Init::Constant(0.0))
            .model(shape, Loss::MeanSquaredError);
        let batch = Batch {
            features: x.clone(),
            targets: Targets::Values {
                values: y.clone(),
                width: 1,
            },
            weights: vec![0.125; 8],
        };
        let mut damping = AdaptiveDamping::default()
            .with_initial(0.0)
            .with_decrease(1.0);
        damping.minimum = 0.0;
        let mut newton = NewtonCg::new(NewtonCgOptions::default().with_damping(damping))?;
        let mut objective = GraphObjective::new(gpu, model)?;
        let theta = objective.initial_parameters(0)?;
        let mut log = String::new();
        for _ in 0..4 {
            match newton.step(&mut objective, &theta, &batch) {
                Ok(report) => log += &format!("{report:?}\n"),
                Err(error) if error.to_string().contains("scale") => continue,
                Err(error) => return Err(format!("unit {unit:e}: {error}").into()),
            }
        }
        let t = theta.read(gpu)?;
        let off = |(x, y): (&f32, &f32)| ((t[0][0] * x + t[1][0] - y) / y).abs();
        let worst = x.iter().zip(&y).map(off).fold(0.0, f32::max);
        if worst.is_nan() || worst > 1e-3 {
            return Err(format!("unit {unit:e}: off by {worst:e}\n{log}").into());
        }
    }
    Ok(())
}
