//! Decoupled mini-batches: the companion of conjugate gradients, and the optimizer made of it.

use crate::harness::least_squares::{batch_of, least_squares, near, random_rows, values_of};
use crate::harness::{self, GpuTest, Outcome};
use crate::reference::{add, bits, dot, flat, relative_error};
use osculant::data::{Batch, Role, Targets, digits};
use osculant::gpu::{Gpu, Work};
use osculant::linalg::{
    CgOptions, CgReport, Companion, ConjugateGradients, Operator, Stop, Submissions,
};
use osculant::nn::{Activation, DataShape, Init, Loss, Model, Output, Sequential, TargetShape};
use osculant::objective::{
    Curvature, Curved, GraphObjective, Group, GroupRequest, GroupedQuadratic, Objective, Parts,
    QuadraticRequest, Slot,
};
use osculant::optim::{
    DecoupledNewtonCg, DecoupledOptions, NewtonCg, NewtonCgOptions, Optimizer, Strategy,
};
use osculant::vector::Vector;

pub(crate) fn tests() -> Vec<GpuTest> {
    gpu_tests![
        with_the_same_examples_it_is_conjugate_gradients,
        iterates_are_those_of_the_recurrence,
        submissions_change_no_bits_of_a_companion,
        the_model_is_that_of_the_solution,
        a_warm_start_goes_on_from_the_last_step,
        slope_and_curvature_are_unbiased,
        directions_of_no_curvature_are_left_out,
        steps_shrink_with_the_noise_of_their_slopes,
        mixed_slopes_and_curvatures_are_refused,
        groups_have_the_quadratics_of_their_examples,
        a_single_fold_is_newton_cg,
        a_cross_fit_step_is_the_mean_of_decoupled_ones,
        a_step_of_length_zero_teaches_nothing,
        several_folds_are_one_side,
        it_trains_by_every_strategy,
        a_restored_state_goes_on_with_the_same_bits,
        readbacks_and_work_are_as_documented,
        options_out_of_range_are_named,
    ]
}

type Any = Box<dyn std::error::Error>;

/// Matrix and gradient at zero, in f64.
fn dense(batch: &Batch, n: usize) -> (Vec<f64>, Vec<f64>) {
    let Targets::Values { values, .. } = &batch.targets else {
        return (Vec::new(), Vec::new());
    };
    let (mut matrix, mut gradient) = (vec![0.0; n * n], vec![0.0; n]);
    for (row, (y, w)) in values.iter().zip(&batch.weights).enumerate() {
        let x = |i: usize| f64::from(batch.features[row * n + i]);
        for i in 0..n {
            gradient[i] -= f64::from(*w) * f64::from(*y) * x(i);
            for j in 0..n {
                matrix[i * n + j] += f64::from(*w) * x(i) * x(j);
            }
        }
    }
    (matrix, gradient)
}

fn times(matrix: &[f64], x: &[f64]) -> Vec<f64> {
    matrix
        .chunks_exact(x.len())
        .map(|row| dot(row, x))
        .collect()
}

/// Two quadratics of one objective, and a solver for both.
struct Pair {
    objective: GraphObjective,
    before: Work,
    cg: ConjugateGradients,
}

/// The rows of two batches, each with filling up to as many rows. Groups stand for the batch, whose weights sum to 1 as those of each of
/// the two do.
fn joined([a, b]: [&Batch; 2]) -> Result<Batch, Any> {
    let rows = a.len().max(b.len());
    let (a, b) = (a.clone().pad_to(rows)?, b.clone().pad_to(rows)?);
    let targets = match (&a.targets, &b.targets) {
        (Targets::Values { values, width }, Targets::Values { values: others, .. }) => {
            Targets::Values {
                values: [values.as_slice(), others].concat(),
                width: *width,
            }
        }
        _ => a.targets.clone(),
    };
    Ok(Batch {
        features: [a.features, b.features].concat(),
        targets,
        weights: [a.weights, b.weights]
            .concat()
            .iter()
            .map(|w| 0.5 * w)
            .collect(),
    })
}

fn halves(
    objective: &mut GraphObjective,
    theta: &Vector,
    batches: [&Batch; 2],
    slope_variance: bool,
) -> Result<std::sync::Arc<GroupedQuadratic>, Any> {
    let request = GroupRequest {
        curvature: Curvature::Hessian,
        slope_variance,
        losses: false,
    };
    let loaded = objective.load_groups(Slot::default(), &joined(batches)?, 2)?;
    Ok(objective.grouped(theta, &loaded, request)?)
}

fn operator(quadratic: &GroupedQuadratic, directions: usize) -> Operator {
    Operator {
        input: quadratic.direction.clone(),
        output: quadratic.groups[directions].product.clone(),
        multiply: quadratic.multiply.clone(),
    }
}

fn options(iterations: usize) -> CgOptions {
    CgOptions::default()
        .with_max_iterations(iterations)
        .with_progress_tolerance(0.0)
        .with_residual_tolerance(0.0)
}

/// Directions of the first batch, steps of the second.
fn pair(
    gpu: &Gpu,
    model: Model,
    batches: [&Batch; 2],
    iterations: usize,
    shrinks: bool,
) -> Result<Pair, Any> {
    pair_with(gpu, model, batches, &options(iterations), shrinks)
}

fn pair_with(
    gpu: &Gpu,
    model: Model,
    batches: [&Batch; 2],
    options: &CgOptions,
    shrinks: bool,
) -> Result<Pair, Any> {
    let mut objective = GraphObjective::new(gpu, model)?;
    let theta = objective.initial_parameters(0)?;
    let quadratic = halves(&mut objective, &theta, batches, shrinks)?;
    let [a, b] = &quadratic.groups[..] else {
        return Err("no halves".into());
    };
    let companion = Companion {
        gradient: b.gradient.clone(),
        product: b.product.clone(),
        variance: b.slope_variance.clone(),
    };
    let cg = ConjugateGradients::with_companion(
        gpu,
        &operator(&quadratic, 0),
        &a.gradient,
        None,
        options,
        &[],
        Some(&companion),
    )?;
    Ok(Pair {
        objective,
        before: quadratic.linearize.clone(),
        cg,
    })
}

impl Pair {
    fn solve(&self, shift: f32) -> Result<(CgReport, Vec<f64>), Any> {
        let report = self.cg.solve(&self.before, shift, None, false)?;
        let solution = self.cg.solution.read(self.objective.gpu())?;
        Ok((report, flat(&solution)))
    }
}

/// A small residual is known after the product that follows it, along which the companion goes, too: also where a submission ends before.
fn submissions_change_no_bits_of_a_companion(gpu: &Gpu) -> Outcome {
    for n in [6, 5_000] {
        let (a, b) = (random_rows(40, n, 1), random_rows(40, n, 2));
        let ends = options(30).with_residual_tolerance(1e-2);
        let mut seen = Vec::new();
        let fixed = [1, 2, 3, 5, 11, 20].map(Submissions::Fixed);
        for submissions in fixed.into_iter().chain([Submissions::default()]) {
            let options = ends.clone().with_submissions(submissions);
            let pair = pair_with(gpu, least_squares(n, 0.0), [&a, &b], &options, false)?;
            let (report, found) = pair.solve(0.1)?;
            if report.stop != Stop::Residual {
                return Err(format!("n = {n}: {report:?}").into());
            }
            seen.push((report.iterations, report.companion, found));
        }
        if let Some(other) = seen.iter().find(|other| **other != seen[0]) {
            return Err(format!("n = {n}: {:?} and {:?}", seen[0].1, other.1).into());
        }
    }
    Ok(())
}

fn with_the_same_examples_it_is_conjugate_gradients(gpu: &Gpu) -> Outcome {
    for n in [6, 5_000] {
        let batch = random_rows(40, n, 1);
        let pair = pair(gpu, least_squares(n, 0.0), [&batch, &batch], 5, false)?;
        let (report, found) = pair.solve(0.1)?;
        let mut objective = GraphObjective::new(gpu, least_squares(n, 0.0))?;
        let theta = objective.initial_parameters(0)?;
        let request = QuadraticRequest {
            curvature: Curvature::Hessian,
            ..QuadraticRequest::default()
        };
        let alone = objective.load_quadratic(Slot::default(), &theta, &batch, request)?;
        let operator = Operator::from(alone.as_ref());
        let cg = ConjugateGradients::new(gpu, &operator, &alone.gradient, None, &options(5), &[])?;
        let plain = cg.solve(&alone.linearize, 0.1, None, false)?;
        let error = relative_error(&found, &flat(&cg.solution.read(gpu)?));
        if error.is_nan() || error > 1e-5 {
            return Err(format!("n = {n}: {error:.1e} apart").into());
        }
        for (own, model) in report.companion_model().iter().zip(&plain.model) {
            near(*own, *model, 1e-4, "model")?;
        }
    }
    Ok(())
}

fn iterates_are_those_of_the_recurrence(gpu: &Gpu) -> Outcome {
    let (n, shift, iterations) = (8, 0.05, 6);
    let batches = [random_rows(12, n, 1), random_rows(12, n, 2)];
    let (report, found) = pair(
        gpu,
        least_squares(n, 0.0),
        [&batches[0], &batches[1]],
        iterations,
        false,
    )?
    .solve(shift)?;
    let shift = f64::from(shift);
    let ((a, g), (b, h)) = (dense(&batches[0], n), dense(&batches[1], n));
    let product = |m: &[f64], v: &[f64]| add(&times(m, v), shift, v);
    let value = |x: &[f64]| dot(&h, x) + 0.5 * dot(x, &product(&b, x));
    let (mut r, mut x, mut own) = (g.clone(), vec![0.0; n], h.clone());
    let mut d: Vec<f64> = r.iter().map(|r| -r).collect();
    assert_eq!(report.companion.len(), iterations);
    for (step, model) in report
        .companion
        .iter()
        .zip(report.companion_model().windows(2))
    {
        let (ad, bd) = (product(&a, &d), product(&b, &d));
        let alpha = dot(&r, &r) / dot(&d, &ad);
        let (slope, curvature) = (dot(&d, &own), dot(&d, &bd));
        near(step.slope, slope, 1e-3, "slope")?;
        near(step.curvature, curvature, 1e-3, "curvature")?;
        // Each step is an exact line search: the companion's quadratic falls by this much.
        near(
            model[1] - model[0],
            -slope * slope / (2.0 * curvature),
            2e-3,
            "fall",
        )?;
        x = add(&x, -slope / curvature, &d);
        own = add(&own, -slope / curvature, &bd);
        near(model[1], value(&x), 1e-3, "model")?;
        let next = add(&r, alpha, &ad);
        let beta = dot(&next, &next) / dot(&r, &r);
        d = add(&next.iter().map(|r| -r).collect::<Vec<_>>(), beta, &d);
        r = next;
    }
    let error = relative_error(&found, &x);
    if error.is_nan() || error > 1e-3 {
        return Err(format!("{found:?} instead of {x:?}").into());
    }
    Ok(())
}

/// Also where the solve stops at a direction, and where it starts at the last step.
fn the_model_is_that_of_the_solution(gpu: &Gpu) -> Outcome {
    let (n, shift) = (4, 0.05);
    let batches = [random_rows(12, n, 1), random_rows(12, n, 2)];
    let two = pair(
        gpu,
        least_squares(n, 0.0),
        [&batches[0], &batches[1]],
        3,
        false,
    )?;
    let (b, h) = dense(&batches[1], n);
    for warm in [false, true, true] {
        let report = two.cg.solve(&two.before, shift, None, warm)?;
        let x = flat(&two.cg.solution.read(gpu)?);
        let product = add(&times(&b, &x), f64::from(shift), &x);
        let value = dot(&h, &x) + 0.5 * dot(&x, &product);
        let model = report.companion_model();
        near(model[model.len() - 1], value, 1e-3, "model")?;
        assert_eq!(warm, report.companion_start != 0.0);
    }
    // Eigenvalues of two kinds: it stops by negative curvature or at a small residual, one direction after its last iterate.
    let batch = |features: [f32; 3]| Batch {
        features: features.to_vec(),
        ..Batch::without_data()
    };
    let (a, b) = (batch([1.0, -3.0, 1.0]), batch([1.0, 2.0, 4.0]));
    let (report, x) = pair(gpu, bowls(3), [&a, &b], 10, false)?.solve(0.0)?;
    let value: f64 = x
        .iter()
        .zip([1.0, 2.0, 4.0])
        .map(|(x, f)| x + 0.5 * f * x * x)
        .sum();
    let model = report.companion_model();
    assert!(report.iterations < 10 && value < 0.0, "{report:?}");
    near(
        model[model.len() - 1],
        value,
        1e-3,
        "model where it stopped",
    )
}

fn a_warm_start_goes_on_from_the_last_step(gpu: &Gpu) -> Outcome {
    let n = 6;
    let batch = random_rows(20, n, 3);
    let two = pair(gpu, least_squares(n, 0.0), [&batch, &batch], 4, false)?;
    two.solve(0.1)?;
    let report = two.cg.solve(&two.before, 0.1, None, true)?;
    // After four of six iterations the residual is what it was left at, so that the first slope is small and falls further.
    let (matrix, g) = dense(&batch, n);
    let x = flat(&two.cg.solution.read(gpu)?);
    let residual = add(&add(&times(&matrix, &x), 0.1, &x), 1.0, &g);
    let (left, start) = (dot(&residual, &residual).sqrt(), dot(&g, &g).sqrt());
    if left > 1e-3 * start || report.companion[0].slope.abs() > 1e-2 * start * start {
        return Err(format!("{left} of {start} is left, {report:?}").into());
    }
    Ok(())
}

/// All pairs of two of four examples: whatever examples make the direction, slope and curvature of the others are those of all four on
/// average.
fn slope_and_curvature_are_unbiased(gpu: &Gpu) -> Outcome {
    let n = 5;
    let all = random_rows(4, n, 4);
    let subsets = [[0, 1], [0, 2], [0, 3], [1, 2], [1, 3], [2, 3]];
    let of = |subset: [usize; 2]| all.part(&subset.map(|i| i..i + 1));
    for a in subsets {
        let directions = of(a)?;
        let line = |batch: &Batch| -> Result<(f64, f64), Any> {
            let (report, _) =
                pair(gpu, least_squares(n, 0.0), [&directions, batch], 1, false)?.solve(0.0)?;
            Ok((report.companion[0].slope, report.companion[0].curvature))
        };
        let (slope, curvature) = line(&all)?;
        let (mut slopes, mut curvatures) = (0.0, 0.0);
        for b in subsets {
            let (s, c) = line(&of(b)?)?;
            slopes += s / 6.0;
            curvatures += c / 6.0;
        }
        near(slopes, slope, 1e-4, "mean slope")?;
        near(curvatures, curvature, 1e-4, "mean curvature")?;
        // The examples' own are not: a gradient is steeper on what it was made of.
        let (own, _) = line(&directions)?;
        assert!(own < slope, "{own} and {slope}");
    }
    Ok(())
}

/// `mean of f[row, i] x_i^2 / 2 + x_i`, from zero.
fn bowls(n: usize) -> Model {
    let shape = DataShape {
        features: n,
        targets: TargetShape::Inputs,
    };
    Model::new(shape, move |scope| {
        let x = scope.parameter("x", &[n], Init::Constant(0.0));
        let own = (scope.features() * x.square().reshape(&[1, n])).sum(&[1]) * 0.5;
        let along = x.sum(&[0]).reshape(&[1]).broadcast(&[scope.rows()]);
        Output {
            losses: own.reshape(&[scope.rows()]) + along,
            outputs: x,
            metric: None,
        }
    })
}

fn directions_of_no_curvature_are_left_out(gpu: &Gpu) -> Outcome {
    let batch = |features: [f32; 2]| Batch {
        features: features.to_vec(),
        ..Batch::without_data()
    };
    let (up, down) = (batch([1.0, 3.0]), batch([-2.0, -1.0]));
    let (report, found) = pair(gpu, bowls(2), [&up, &down], 2, false)?.solve(0.0)?;
    assert!(
        report
            .companion
            .iter()
            .all(|s| s.curvature < 0.0 && s.length == 0.0)
    );
    assert_eq!(found, vec![0.0; 2]);
    // Where the directions' own curvature is negative they stop, as conjugate gradients do.
    let (report, _) = pair(gpu, bowls(2), [&down, &up], 2, false)?.solve(0.0)?;
    assert_eq!(report.iterations, 0);
    Ok(())
}

fn steps_shrink_with_the_noise_of_their_slopes(gpu: &Gpu) -> Outcome {
    let n = 5;
    let (a, b) = (random_rows(9, n, 5), random_rows(7, n, 6).pad_to(10)?);
    let step = |shrinks: bool| -> Result<_, Any> {
        let (report, _) = pair(gpu, least_squares(n, 0.0), [&a, &b], 1, shrinks)?.solve(0.2)?;
        Ok(report.companion[0])
    };
    let (whole, shrunk) = (step(false)?, step(true)?);
    // The direction is the negative gradient of the first batch; slopes of the seven examples of the second along it.
    let (_, g) = dense(&a, n);
    let Targets::Values { values, .. } = &b.targets else {
        return Err("targets".into());
    };
    let slopes: Vec<f64> = (0..7)
        .map(|row| {
            let x = &b.features[row * n..(row + 1) * n];
            let along: f64 = x.iter().zip(&g).map(|(x, g)| f64::from(*x) * g).sum();
            f64::from(values[row]) * along
        })
        .collect();
    let mean = slopes.iter().sum::<f64>() / 7.0;
    let variance = slopes.iter().map(|s| (s - mean).powi(2)).sum::<f64>() / 42.0;
    near(whole.slope, mean, 1e-4, "slope")?;
    let factor = (1.0 - variance / (mean * mean)).max(0.0);
    near(shrunk.length, factor * whole.length, 1e-3, "length")
}

fn mixed_slopes_and_curvatures_are_refused(gpu: &Gpu) -> Outcome {
    let batch = random_rows(6, 4, 7);
    let mut objective = GraphObjective::new(gpu, least_squares(4, 0.0))?;
    let theta = objective.initial_parameters(0)?;
    let quadratic = halves(&mut objective, &theta, [&batch, &batch], false)?;
    let [a, b]: &[Group; 2] = quadratic.groups[..].try_into()?;
    for (product, gradient) in [(b, a), (a, b)] {
        let companion = Companion {
            gradient: gradient.gradient.clone(),
            product: product.product.clone(),
            variance: None,
        };
        let made = ConjugateGradients::with_companion(
            gpu,
            &operator(&quadratic, 0),
            &a.gradient,
            None,
            &CgOptions::default(),
            &[],
            Some(&companion),
        );
        match made {
            Err(osculant::Error::Unsupported { .. }) => {}
            other => return Err(format!("{other:?}").into()),
        }
    }
    Ok(())
}

/// Value, gradient, product and noise of the slope of each group are those of its examples alone; value and gradient of the whole those of
/// all.
fn groups_have_the_quadratics_of_their_examples(gpu: &Gpu) -> Outcome {
    let (objective, train) = digits_objective(gpu)?;
    let mut objective = objective.with_l2(0.01)?;
    let theta = objective.initial_parameters(1)?;
    let direction = objective.initial_parameters(2)?.read(gpu)?;
    for (list, filled, count) in [
        ((0..26).collect::<Vec<_>>(), 30, 3),
        ((0..80).collect(), 80, 2),
        (vec![5, 9], 2, 1),
    ] {
        let batch = train.batch(&list)?.pad_to(filled)?;
        for curvature in [Curvature::GaussNewton, Curvature::Hessian] {
            let request = GroupRequest {
                curvature,
                slope_variance: true,
                losses: false,
            };
            let loaded = objective.load_groups(Slot::default(), &batch, count)?;
            let grouped = objective.grouped(&theta, &loaded, request)?;
            grouped.direction.write(gpu, &direction)?;
            gpu.run([&grouped.linearize, &grouped.multiply])?;
            let value = gpu.read(&[&grouped.value])?[0][0];
            let gradient = flat(&grouped.gradient.read(gpu)?);
            let dealt = batch.in_groups(count)?.into_owned();
            let request = QuadraticRequest {
                curvature,
                ..QuadraticRequest::default()
            };
            let compare = |objective: &mut GraphObjective,
                           examples: &Batch,
                           gradient: &[f64],
                           product: Option<&[f64]>| {
                let own = objective.load_quadratic(
                    Slot::new(Role::Steps, 0),
                    &theta,
                    examples,
                    request,
                )?;
                own.direction.write(gpu, &direction)?;
                gpu.run([&own.linearize, &own.multiply])?;
                let expected = flat(&own.gradient.read(gpu)?);
                let error = relative_error(gradient, &expected);
                if error.is_nan() || error > 1e-5 {
                    return Err(Any::from(format!("gradient: {error:.1e}")));
                }
                if let Some(product) = product {
                    let error = relative_error(product, &flat(&own.product.read(gpu)?));
                    if error.is_nan() || error > 1e-5 {
                        return Err(format!("product: {error:.1e}").into());
                    }
                }
                Ok(gpu.read(&[&own.value])?[0][0])
            };
            let mut variances = Vec::new();
            for group in &grouped.groups {
                let slice = group.slope_variance.as_ref().ok_or("no variance")?;
                variances.push(f64::from(gpu.read(&[slice])?[0][0]));
            }
            let whole = compare(&mut objective, &dealt, &gradient, None)?;
            near(f64::from(value), f64::from(whole), 1e-5, "value")?;
            let rows = dealt.len() / count;
            for (at, group) in grouped.groups.iter().enumerate() {
                let own = at * rows..(at + 1) * rows;
                let examples = dealt.part(&[own])?;
                let (g, p) = (group.gradient.read(gpu)?, group.product.read(gpu)?);
                compare(&mut objective, &examples, &flat(&g), Some(&flat(&p)))?;
                // Of the slopes of single examples, without the l2 term, which is the same for all.
                let place = |group: usize| group * list.len() / count;
                let mut slopes = Vec::new();
                for &row in &list[place(at)..place(at + 1)] {
                    let one = train.batch(&[row])?;
                    let own = objective.load_quadratic(
                        Slot::default(),
                        &theta,
                        &one,
                        QuadraticRequest::default(),
                    )?;
                    gpu.run([&own.linearize])?;
                    slopes.push(dot(&flat(&own.gradient.read(gpu)?), &flat(&direction)));
                }
                let count = slopes.len() as f64;
                let mean = slopes.iter().sum::<f64>() / count;
                let square: f64 = slopes.iter().map(|s| (s - mean).powi(2)).sum();
                let variance = square / (count - 1.0) / count;
                near(variances[at], variance, 1e-3, "variance")?;
            }
        }
    }
    Ok(())
}

/// With one fold for everything it is Newton-CG without backtracking, shortened steps included.
fn a_single_fold_is_newton_cg(gpu: &Gpu) -> Outcome {
    let mut shortened = 0;
    for damping in [1.0, 1e-3] {
        let mut newton = NewtonCgOptions::default();
        newton.cg = options(4);
        newton.backtracking = false;
        newton.damping = newton.damping.with_initial(damping);
        let (mut objective, train) = digits_objective(gpu)?;
        let (mut other_objective, _) = digits_objective(gpu)?;
        let theta = objective.initial_parameters(1)?;
        let other = other_objective.initial_parameters(1)?;
        let mut plain = NewtonCg::new(newton.clone())?;
        let options = DecoupledOptions::default()
            .with_newton(newton)
            .with_strategy(Strategy::Single);
        let mut single = DecoupledNewtonCg::new(options)?;
        for step in 0..4 {
            let batch = train.batch(&(step * 50..(step + 1) * 50).collect::<Vec<_>>())?;
            let report = plain.step(&mut objective, &theta, &batch)?;
            let own = single.step(&mut other_objective, &other, &batch)?;
            near(own.loss_before, report.loss_before, 1e-3, "loss")?;
            assert_eq!(own.step_length, report.step_length);
            shortened += usize::from(own.step_length.is_some_and(|length| length < 1.0));
            near(
                own.rho.unwrap_or(f64::NAN),
                report.rho.unwrap_or(0.0),
                1e-2,
                "ratio",
            )?;
            let error = relative_error(&flat(&other.read(gpu)?), &flat(&theta.read(gpu)?));
            if error.is_nan() || error > 1e-3 {
                return Err(format!("step {step}: {error:.1e} apart").into());
            }
        }
    }
    assert!(shortened > 0, "no step was shortened");
    Ok(())
}

/// The step of all folds is the mean of their own steps, and its ratio that of the change to the mean of what these promise.
fn a_cross_fit_step_is_the_mean_of_decoupled_ones(gpu: &Gpu) -> Outcome {
    let (n, size) = (6, 60);
    let mut newton = NewtonCgOptions::default();
    newton.cg = options(3);
    newton.damping = newton.damping.with_initial(0.5);
    for folds in [2, 3] {
        // Something to learn, with noise.
        let noise = random_rows(folds * size, n, 8);
        let sums = noise
            .features
            .chunks_exact(n)
            .map(|x| x.iter().sum::<f32>());
        let values = sums.zip(values_of(&noise)).map(|(sum, y)| sum + 0.3 * y);
        let all = batch_of(noise.features.clone(), values.collect());
        let rotated = |first: usize| -> Result<Batch, Any> {
            let (cut, end) = (first * size, folds * size);
            Ok(all.part(&[cut..end, 0..cut])?)
        };
        let step = |batch: &Batch, strategy: Strategy| -> Result<_, Any> {
            let mut objective = GraphObjective::new(gpu, least_squares(n, 0.0))?;
            let theta = objective.initial_parameters(0)?;
            let options = DecoupledOptions::default()
                .with_newton(newton.clone())
                .with_strategy(strategy);
            let mut method = DecoupledNewtonCg::new(options)?;
            let report = method.step(&mut objective, &theta, batch)?;
            assert_eq!(report.step_length, Some(1.0));
            Ok((flat(&theta.read(gpu)?), report))
        };
        let (found, report) = step(&all, Strategy::cross_fit(folds))?;
        let (mut mean, mut promised) = (vec![0.0; n], 0.0);
        for first in 0..folds {
            let batch = rotated(first)?;
            let directions = folds - 1;
            let (x, _) = step(&batch, Strategy::Decoupled { folds, directions })?;
            let own = directions * size..folds * size;
            let (matrix, gradient) = dense(&batch.part(&[own])?, n);
            let share = 1.0 / folds as f64;
            promised += share * (dot(&gradient, &x) + 0.5 * dot(&x, &times(&matrix, &x)));
            mean = add(&mean, share, &x);
        }
        let error = relative_error(&found, &mean);
        if error.is_nan() || error > 1e-5 {
            return Err(format!("{folds} folds: {error:.1e} apart").into());
        }
        let (matrix, gradient) = dense(&all, n);
        let change = dot(&gradient, &mean) + 0.5 * dot(&mean, &times(&matrix, &mean));
        near(report.rho.unwrap_or(0.0), change / promised, 1e-3, "ratio")?;
    }
    Ok(())
}

/// Examples that have nothing to learn from each other: no slope is left of any direction, and nothing moves, the damping neither.
fn a_step_of_length_zero_teaches_nothing(gpu: &Gpu) -> Outcome {
    let mut objective = GraphObjective::new(gpu, least_squares(2, 0.0))?;
    let theta = objective.initial_parameters(0)?;
    // Each half knows one coordinate.
    let batch = batch_of(
        vec![1.0, 0.0, 2.0, 0.0, 0.0, 1.0, 0.0, 2.0],
        vec![1.0, 2.0, 1.0, 3.0],
    );
    let options = DecoupledOptions::default().with_strategy(Strategy::decoupled());
    let mut method = DecoupledNewtonCg::new(options)?;
    let before = method.damping();
    let report = method.step(&mut objective, &theta, &batch)?;
    assert!(!report.accepted && report.rho.is_none(), "{report:?}");
    assert_eq!(method.damping(), before);
    assert_eq!(flat(&theta.read(gpu)?), vec![0.0; 2]);
    Ok(())
}

/// The mean of several folds' quadratics makes directions and steps as the quadratic of all their examples.
fn several_folds_are_one_side(gpu: &Gpu) -> Outcome {
    let newton = {
        let mut newton = NewtonCgOptions::default();
        newton.cg = options(3);
        newton
    };
    let moved = |rows: Vec<usize>, strategy: Strategy| -> Result<Vec<f64>, Any> {
        let (mut objective, train) = digits_objective(gpu)?;
        let theta = objective.initial_parameters(1)?;
        let options = DecoupledOptions::default()
            .with_newton(newton.clone())
            .with_strategy(strategy);
        let mut method = DecoupledNewtonCg::new(options)?;
        method.step(&mut objective, &theta, &train.batch(&rows)?)?;
        Ok(flat(&theta.read(gpu)?))
    };
    let of = |folds: usize, directions: usize| Strategy::Decoupled { folds, directions };
    // Three folds of directions and three of steps are two halves.
    let rows: Vec<usize> = (0..240).collect();
    let error = relative_error(&moved(rows.clone(), of(6, 3))?, &moved(rows, of(2, 1))?);
    if error.is_nan() || error > 1e-5 {
        return Err(format!("{error:.1e} apart").into());
    }
    Ok(())
}

fn digits_objective(gpu: &Gpu) -> Result<(GraphObjective, osculant::data::Dataset), Any> {
    let (train, _) = digits()?.split(0.2, 0)?;
    let model = Sequential::new()
        .dense(16)
        .activation(Activation::Tanh)
        .dense(10)
        .model(&train, Loss::SoftmaxCrossEntropy);
    Ok((GraphObjective::new(gpu, model)?, train))
}

fn methods() -> Vec<DecoupledOptions> {
    let newton = || {
        let mut newton = NewtonCgOptions::default();
        newton.cg.max_iterations = 4;
        newton
    };
    let options = || DecoupledOptions::default().with_newton(newton());
    vec![
        options().with_strategy(Strategy::decoupled()),
        options()
            .with_strategy(Strategy::Decoupled {
                folds: 4,
                directions: 1,
            })
            .with_acceptance(0.2),
        options().with_strategy(Strategy::cross_fit(2)),
        options()
            .with_strategy(Strategy::cross_fit(4))
            .with_shrinks(true),
    ]
}

fn it_trains_by_every_strategy(gpu: &Gpu) -> Outcome {
    for options in methods() {
        let (mut objective, train) = digits_objective(gpu)?;
        let theta = objective.initial_parameters(1)?;
        let mut method = DecoupledNewtonCg::new(options.clone())?;
        let first = objective.evaluate(&theta, &train)?.loss;
        for step in 0..6 {
            let indices: Vec<usize> = (step * 200..(step + 1) * 200).collect();
            // The last batch is short.
            let indices = &indices[..if step == 5 { 90 } else { 200 }];
            let batch = train.batch(indices)?.pad_to(200)?;
            method.step(&mut objective, &theta, &batch)?;
        }
        let last = objective.evaluate(&theta, &train)?.loss;
        if last.is_nan() || last > 0.7 * first {
            return Err(format!("{options:?}: {first} to {last}").into());
        }
    }
    Ok(())
}

fn a_restored_state_goes_on_with_the_same_bits(gpu: &Gpu) -> Outcome {
    for options in methods() {
        let (mut objective, train) = digits_objective(gpu)?;
        let theta = objective.initial_parameters(1)?;
        let mut method = DecoupledNewtonCg::new(options.clone())?;
        let batch = train.batch(&(0..160).collect::<Vec<_>>())?;
        for _ in 0..2 {
            method.step(&mut objective, &theta, &batch)?;
        }
        let state = Optimizer::<GraphObjective>::state(&method, &objective)?;
        let (mut other_objective, _) = digits_objective(gpu)?;
        let other = other_objective.initial_parameters(2)?;
        other.write(gpu, &theta.read(gpu)?)?;
        let mut restored = DecoupledNewtonCg::new(options)?;
        restored.restore(&other_objective, &state)?;
        for _ in 0..2 {
            method.step(&mut objective, &theta, &batch)?;
            restored.step(&mut other_objective, &other, &batch)?;
        }
        assert_eq!(bits(&theta.read(gpu)?), bits(&other.read(gpu)?));
    }
    Ok(())
}

fn readbacks_and_work_are_as_documented(gpu: &Gpu) -> Outcome {
    // A device of its own: other trials read from the shared one at the same time.
    let gpu = &harness::of_its_own(gpu)?;
    for (options, solves) in methods().into_iter().zip([1, 1, 2, 4]) {
        let (mut objective, train) = digits_objective(gpu)?;
        let theta = objective.initial_parameters(1)?;
        let apart = options.acceptance > 0.0;
        let mut method = DecoupledNewtonCg::new(options)?;
        let batch = train.batch(&(0..160).collect::<Vec<_>>())?;
        let report = method.step(&mut objective, &theta, &batch)?;
        assert_eq!(report.step_length, Some(1.0));
        assert_eq!(report.readbacks, solves + u64::from(apart));
        // A gradient of all, and four products for each solve; the change of the loss along the step, and where examples only judge their
        // gradient.
        let (folds, judging) = if apart { (128.0, 32.0) } else { (160.0, 160.0) };
        let products = 4.0 * solves as f64;
        let judgement = judging * (2.0 / 3.0 + f64::from(u8::from(apart)));
        near(
            report.work,
            folds * (1.0 + 2.0 * products) + judgement,
            1e-6,
            "work",
        )?;
    }
    Ok(())
}

fn options_out_of_range_are_named(_: &Gpu) -> Outcome {
    let default = DecoupledOptions::default;
    for (options, word) in [
        (
            default().with_strategy(Strategy::Decoupled {
                folds: 2,
                directions: 2,
            }),
            "strategy",
        ),
        (default().with_strategy(Strategy::cross_fit(1)), "strategy"),
        (
            default()
                .with_strategy(Strategy::CrossFit {
                    folds: 3,
                    directions: 1,
                })
                .with_shrinks(true),
            "one fold",
        ),
        (default().with_acceptance(1.0), "acceptance"),
        (
            default().with_newton(NewtonCgOptions::nystrom(4, 4)),
            "preconditioner",
        ),
        (
            default().with_newton(NewtonCgOptions::default().with_curvature(Curvature::Hessian)),
            "curvature",
        ),
    ] {
        match DecoupledNewtonCg::new(options) {
            Err(error) if error.to_string().contains(word) => {}
            Err(error) => return Err(format!("'{word}' is missing in: {error}").into()),
            Ok(_) => return Err(format!("{word} out of range was accepted").into()),
        }
    }
    Ok(())
}
