//! Levenberg-Marquardt: first steps against their formula in f64 on both sides, a curve that gradient descent does not fit, and what steps
//! must not do.

use nalgebra::{DMatrix, DVector};

use crate::harness::least_squares::batch_of;
use crate::harness::{self, GpuTest, Outcome};
use crate::kfac::{near, wide};
use crate::spring::{batch, dense, fails_unchanged, goes_on, model};
use osculant::Error;
use osculant::data::Batch;
use osculant::gpu::Gpu;
use osculant::nn::{Activation, DataShape, Init, Loss, Model, Output, Sequential, TargetShape};
use osculant::objective::{GraphObjective, RowKind, SampleRequest, Square};
use osculant::optim::{
    AdaptiveDamping, LevenbergMarquardt, LevenbergMarquardtOptions, Optimizer, Scaling, Sgd,
    SgdOptions, Stall,
};

pub(crate) fn tests() -> Vec<GpuTest> {
    gpu_tests![
        a_step_is_its_formula,
        acceleration_is_its_formula,
        a_curve_is_fitted_to_the_end_of_f32,
        a_restored_state_goes_on_with_the_same_bits,
        a_failed_step_changes_nothing,
        what_has_no_residuals_is_refused,
    ]
}

fn options() -> LevenbergMarquardtOptions {
    LevenbergMarquardtOptions::default()
}

/// 31 parameters, with 18 and 120 rows of squared errors, and 8 and 40 root losses: all ways to measure a damping.
fn a_step_is_its_formula(gpu: &Gpu) -> Outcome {
    let loss = Loss::MeanSquaredError;
    let cases = [
        (RowKind::Exact, 6, Scaling::Mean),
        (RowKind::Exact, 6, Scaling::Diagonal),
        (RowKind::Exact, 40, Scaling::Mean),
        (RowKind::Exact, 40, Scaling::Identity),
        (RowKind::RootLosses, 8, Scaling::Identity),
        (RowKind::RootLosses, 40, Scaling::Mean),
    ];
    for (number, (kind, rows, scaling)) in cases.into_iter().enumerate() {
        let l2 = [0.0, 0.2][number % 2];
        let what = format!("{kind:?} of {rows}, {scaling:?}");
        let mut objective = GraphObjective::new(gpu, model(loss))?.with_l2(l2)?;
        let theta = objective.initial_parameters(3)?;
        let before = DVector::from_vec(wide(&theta.read(gpu)?.concat()));
        let batch = batch(loss, rows, 5);
        let request = SampleRequest {
            kind,
            square: (scaling == Scaling::Diagonal).then_some(Square::Normal),
            second: false,
        };
        let known = dense(&mut objective, &theta, &batch, request)?;
        let rule = AdaptiveDamping::default().with_initial(0.3);
        let own = options().with_rows(kind).with_scaling(scaling);
        let own = own.with_acceleration(0.0);
        let mut method = LevenbergMarquardt::new(own.with_damping(rule))?;
        let report = method.step(&mut objective, &theta, &batch)?;
        let moved = &before - DVector::from_vec(wide(&theta.read(gpu)?.concat()));
        let l2 = f64::from(l2);
        let normal = known.a.transpose() * &known.a;
        let (p, m) = (normal.nrows(), known.a.nrows());
        // That of the attempt which was taken.
        let damping = report.damping.ok_or("no damping")?;
        let at = |i: usize| match scaling {
            Scaling::Mean => damping * normal.trace() / p.min(m) as f64,
            Scaling::Identity => damping,
            Scaling::Diagonal => damping * normal[(i, i)],
        };
        let shift = DMatrix::from_fn(p, p, |i, j| if i == j { at(i) + l2 } else { 0.0 });
        let gradient = &known.gradient + l2 * &before;
        let solved = (&normal + shift).lu().solve(&gradient);
        let expected = solved.ok_or("singular")?;
        near(&what, moved.as_slice(), expected.as_slice(), 1e-4)?;
        let promised = -gradient.dot(&expected)
            + 0.5 * (expected.dot(&(&normal * &expected)) + l2 * expected.norm_squared());
        let ratio = report.loss_change.ok_or("no change")? / promised;
        near(
            &format!("{what}, ratio"),
            &[report.rho.ok_or("no ratio")?],
            &[ratio],
            1e-3,
        )?;
    }
    Ok(())
}

/// By hand, from `w = 3/2` with the residual `sqrt(2) (w^2 - 1)`: `A^T A = 8 w^2 = 18`, `A^T r = 4 w (w^2 - 1) = 7.5`, and
/// `A^T r'' = 8 w d^2`; on one row, and on two of half the weight, which are solved by parameters.
fn acceleration_is_its_formula(gpu: &Gpu) -> Outcome {
    let loss = Loss::MeanSquaredError;
    let shape = DataShape {
        features: 1,
        targets: TargetShape::Values(1),
    };
    let square = Model::new(shape, move |scope| {
        let w = scope.parameter("w", &[1, 1], Init::Constant(1.5));
        let z = scope.features().dot(w).square();
        Output {
            losses: loss.apply(scope, z),
            outputs: z,
            metric: None,
        }
    })
    .with_curvature_root(move |scope, z, signs| loss.curvature_root(scope, z, signs))
    .with_residuals(move |scope, z| loss.residuals(scope, z));
    let rule = AdaptiveDamping::default().with_initial(0.5);
    for rows in [1, 2] {
        let mut objective = GraphObjective::new(gpu, square.clone())?;
        let theta = objective.initial_parameters(0)?;
        let own = options().with_damping(rule);
        for (bound, accelerated) in [(0.0, 0.0), (0.3, 1.0), (0.2, 0.0)] {
            theta.write(gpu, &[vec![1.5]])?;
            let mut method = LevenbergMarquardt::new(own.clone().with_acceleration(bound))?;
            method.step(
                &mut objective,
                &theta,
                &batch_of(vec![1.0; rows], vec![1.0; rows]),
            )?;
            let d = 7.5 / 27.0;
            let more: f64 = 12.0 * d * d / 27.0;
            // 2 more / d = 0.2469: beyond 0.2, and within 0.3.
            let expected = 1.5 - d - 0.5 * accelerated * more;
            let found = f64::from(theta.read(gpu)?[0][0]);
            near(
                &format!("{rows} rows, {bound}"),
                &[found],
                &[expected],
                1e-6,
            )?;
        }
    }
    Ok(())
}

fn network(width: usize) -> Model {
    let shape = DataShape {
        features: 1,
        targets: TargetShape::Values(1),
    };
    let hidden = Sequential::new().dense(width).activation(Activation::Tanh);
    hidden.dense(1).model(shape, Loss::MeanSquaredError)
}

/// `sin 3x` at points of -1..1.
fn curve(points: usize) -> Batch {
    let at = |i: usize| -1.0 + 2.0 * (i as f32 + 0.5) / points as f32;
    let features: Vec<f32> = (0..points).map(at).collect();
    let values = features.iter().map(|x| (3.0 * x).sin()).collect();
    batch_of(features, values)
}

/// 25 parameters with 40 points, and with 12 of them, where rounding hides what little the residuals still are in; with acceleration, and
/// without. And what gradient descent makes of several times the steps.
fn a_curve_is_fitted_to_the_end_of_f32(gpu: &Gpu) -> Outcome {
    for (points, acceleration, goal) in [
        (40, 0.0, 2e-5),
        (40, 0.75, 1e-6),
        (12, 0.0, 1e-6),
        (12, 0.75, 1e-6),
    ] {
        let what = format!("{points} points, acceleration {acceleration}");
        let mut objective = GraphObjective::new(gpu, network(8))?;
        let theta = objective.initial_parameters(1)?;
        let own = options().with_acceleration(acceleration);
        let mut method = LevenbergMarquardt::new(own)?;
        let batch = curve(points);
        let (mut loss, mut stalled) = (f64::INFINITY, None);
        for _ in 0..120 {
            let report = method.step(&mut objective, &theta, &batch)?;
            if report.loss_change.is_none_or(|change| change > 0.0) {
                return Err(format!("{what}: {report:?}").into());
            }
            (loss, stalled) = (report.loss_before, report.stall);
            if stalled == Some(Stall::Precision) {
                break;
            }
        }
        let at_the_end = points == 40 || stalled == Some(Stall::Precision);
        if loss > goal || !at_the_end {
            return Err(format!("{what}: {loss:e}, {stalled:?}").into());
        }
    }
    let mut objective = GraphObjective::new(gpu, network(8))?;
    let theta = objective.initial_parameters(1)?;
    let mut sgd = Sgd::new(SgdOptions::default())?;
    let mut last = 0.0;
    for _ in 0..400 {
        last = sgd.step(&mut objective, &theta, &curve(40))?.loss_before;
    }
    match last > 1e-4 {
        true => Ok(()),
        false => Err(format!("gradient descent does it as well: {last:e}").into()),
    }
}

fn a_restored_state_goes_on_with_the_same_bits(gpu: &Gpu) -> Outcome {
    let new = || LevenbergMarquardt::new(options());
    goes_on(gpu, new, Loss::MeanSquaredError)
}

fn a_failed_step_changes_nothing(gpu: &Gpu) -> Outcome {
    let gpu = &harness::of_its_own(gpu)?;
    for (rows, acceleration) in [(8, 0.0), (40, 0.75)] {
        let new = || LevenbergMarquardt::new(options().with_acceleration(acceleration));
        fails_unchanged(gpu, new, Loss::MeanSquaredError, rows)?;
    }
    Ok(())
}

fn what_has_no_residuals_is_refused(gpu: &Gpu) -> Outcome {
    let mut objective = GraphObjective::new(gpu, model(Loss::MeanSquaredError))?;
    let theta = objective.initial_parameters(1)?;
    let mut probes = LevenbergMarquardt::new(options().with_rows(RowKind::Probe))?;
    match probes.step(&mut objective, &theta, &batch(Loss::MeanSquaredError, 4, 1)) {
        Err(Error::Unsupported { .. }) => {}
        other => return Err(format!("{other:?}").into()),
    }
    for options in [
        options().with_max_attempts(0),
        options().with_acceleration(-1.0),
        options().with_damping(AdaptiveDamping::default().with_decrease(2.0)),
    ] {
        match LevenbergMarquardt::new(options) {
            Err(Error::Option { .. }) => {}
            other => return Err(format!("{other:?}").into()),
        }
    }
    Ok(())
}
