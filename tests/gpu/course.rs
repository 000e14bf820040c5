//! Schedules of step lengths, averages of iterates, and work in floating-point operations, for every method.

use crate::harness::{GpuTest, Outcome};
use crate::reference::{add, batch_for, bits, dot, flat, relative_error};
use osculant::data::Batch;
use osculant::gpu::Gpu;
use osculant::linalg::{CgOptions, EigenOptions, Storage};
use osculant::nn::{Activation, DataShape, Loss, Model, Sequential, TargetShape};
use osculant::objective::{
    Curvature, Curved, GradientRequest, GraphObjective, Objective, QuadraticRequest, Slot,
};
use osculant::optim::{
    Adam, AdamOptions, Base, DebiasedSgd, DebiasedSgdOptions, DecoupledNewtonCg, DecoupledOptions,
    Kfac, KfacOptions, KroneckerNewtonCg, LowRankSaddleFreeNewton, LrsfnOptions, Muon, MuonOptions,
    NewtonCg, NewtonCgOptions, NystromNewtonCg, Optimizer, Schedule, Sgd, SgdOptions, Spring,
    SpringOptions, Stateful, StepReport,
};
use osculant::vector::Vector;

pub(crate) fn tests() -> Vec<GpuTest> {
    gpu_tests![
        steps_are_as_long_as_the_schedule_says,
        a_linear_schedule_ends_with_its_smallest_factor,
        nothing_moves_or_is_learnt_where_the_factor_is_zero,
        averages_are_those_of_the_iterates,
        a_state_with_schedule_and_average_continues_with_equal_bits,
        steps_that_fail_or_are_refused_leave_the_average,
        work_of_sgd_in_operations_is_one_a_row,
        work_of_newton_in_operations_is_the_sum_of_its_parts,
    ]
}

type Any = Box<dyn std::error::Error>;
type Boxed = Box<dyn Optimizer<GraphObjective>>;

fn task(rows: usize) -> Result<(Model, Batch), Any> {
    let shape = DataShape {
        features: 4,
        targets: TargetShape::Classes(3),
    };
    let model = Sequential::new()
        .dense(8)
        .activation(Activation::Tanh)
        .dense(3)
        .model(shape, Loss::SoftmaxCrossEntropy);
    // Every example twice, half of a batch apart: so that parts agree, and methods with decoupled ones move.
    let half = batch_for(&model, rows / 2, 6);
    let batch = half.part(&[0..rows / 2, 0..rows / 2]).map_err(Into::into);
    batch.map(|batch| (model, batch))
}

/// Every method, without momentum where its first step would not know a factor.
fn all() -> Result<Vec<Boxed>, Any> {
    let sgd = SgdOptions::default()
        .with_momentum(0.5)
        .with_weight_decay(0.1);
    let eigen = EigenOptions::default()
        .with_rank(4)
        .with_oversampling(2)
        .with_power_iterations(0);
    let low_rank = LrsfnOptions::default()
        .with_eigen(eigen)
        .with_refresh(3)
        .with_damping(0.5)
        .with_step_length(0.3)
        .with_step_length_beyond(0.2);
    let adam = low_rank
        .clone()
        .with_base(Base::Adam(AdamOptions::default()));
    let half = low_rank.clone().with_storage(Storage::Half);
    let hessian = NewtonCgOptions::default().with_curvature(Curvature::Hessian);
    Ok(vec![
        Box::new(Sgd::new(sgd)?),
        Box::new(Adam::new(AdamOptions::default().with_weight_decay(0.1))?),
        Box::new(DebiasedSgd::new(
            DebiasedSgdOptions::default().with_backwards(true),
        )?),
        Box::new(Kfac::new(KfacOptions::default())?),
        Box::new(Spring::new(SpringOptions::default())?),
        Box::new(Muon::new(MuonOptions::default())?),
        Box::new(NewtonCg::new(NewtonCgOptions::default())?),
        Box::new(NewtonCg::new(hessian)?),
        Box::new(NystromNewtonCg::new(NewtonCgOptions::nystrom(4, 3))?),
        Box::new(KroneckerNewtonCg::new(NewtonCgOptions::kronecker(3))?),
        Box::new(DecoupledNewtonCg::new(DecoupledOptions::default())?),
        Box::new(LowRankSaddleFreeNewton::new(low_rank)?),
        Box::new(LowRankSaddleFreeNewton::new(adam)?),
        Box::new(LowRankSaddleFreeNewton::new(half)?),
    ])
}

/// Where a method goes from the same point in its first step, and what it says.
fn first_step(gpu: &Gpu, index: usize, factor: f64) -> Result<(Vec<f64>, StepReport, Boxed), Any> {
    let (model, batch) = task(16)?;
    let mut objective = GraphObjective::new(gpu, model)?;
    let theta = objective.initial_parameters(7)?;
    let mut method = all()?.swap_remove(index);
    let course = method.course_mut();
    course.set_schedule(Schedule::Linear { last: 0.0 }, 10)?;
    course.set_done(1.0 - factor);
    let before = flat(&theta.read(gpu)?);
    let report = method.step(&mut objective, &theta, &batch)?;
    let moved = add(&flat(&theta.read(gpu)?), -1.0, &before);
    Ok((moved, report, method))
}

fn steps_are_as_long_as_the_schedule_says(gpu: &Gpu) -> Outcome {
    for index in 0..all()?.len() {
        let (whole, report, method) = first_step(gpu, index, 1.0)?;
        let name = method.name();
        let (half, short, _) = first_step(gpu, index, 0.5)?;
        if !(report.accepted && short.accepted) || dot(&whole, &whole) == 0.0 {
            return Err(format!("{name} {index} does not move: {report:?}, {short:?}").into());
        }
        // The line search accepts the first factor, so that it is the schedule's.
        let expected: Vec<f64> = whole.iter().map(|x| 0.5 * x).collect();
        // Elements of about 1 are off by half an ulp in both, of steps of 1e-3 (Adam) or more: 2 * 6e-8 / 1e-3.
        let error = relative_error(&half, &expected);
        if error.is_nan() || error > 2e-4 {
            return Err(format!("{name} {index}: half a step is {error:.1e} off").into());
        }
        if let (Some(one), Some(other)) = (report.step_length, short.step_length)
            && (other - 0.5 * one).abs() > 1e-6 * one.abs()
        {
            return Err(format!("{name} {index}: step lengths {one} and {other}").into());
        }
        if report.step_norm > 0.0 && (short.step_norm / report.step_norm - 0.5).abs() > 1e-4 {
            let norms = (report.step_norm, short.step_norm);
            return Err(format!("{name} {index}: norms of steps {norms:?}").into());
        }
    }
    Ok(())
}

fn a_linear_schedule_ends_with_its_smallest_factor(gpu: &Gpu) -> Outcome {
    let (model, batch) = task(16)?;
    let mut objective = GraphObjective::new(gpu, model)?;
    let theta = objective.initial_parameters(7)?;
    let options = SgdOptions::default()
        .with_momentum(0.0)
        .with_learning_rate(0.5);
    let mut sgd = Sgd::new(options)?.with_schedule(Schedule::Linear { last: 0.0 }, 10)?;
    for step in 0..12 {
        let before = flat(&theta.read(gpu)?);
        let report = sgd.step(&mut objective, &theta, &batch)?;
        let moved = add(&flat(&theta.read(gpu)?), -1.0, &before);
        let found = dot(&moved, &moved).sqrt() / (0.5 * report.gradient_norm);
        let factor = (1.0 - f64::from(step) / 10.0).max(0.0);
        if (found - factor).abs() > 1e-5 {
            return Err(format!("step {step}: a factor of {found}, not {factor}").into());
        }
    }
    Ok(())
}

fn nothing_moves_or_is_learnt_where_the_factor_is_zero(gpu: &Gpu) -> Outcome {
    for index in 0..all()?.len() {
        let (moved, _, method) = first_step(gpu, index, 0.0)?;
        let damping = |method: &Boxed| {
            let scalars = method.scalars();
            let kept = |(name, _): &(String, f64)| name == "damping" || name == "radius";
            scalars.into_iter().filter(kept).collect::<Vec<_>>()
        };
        let same = damping(&method) == damping(&all()?.swap_remove(index));
        if moved.iter().any(|&x| x != 0.0) || !same {
            let name = method.name();
            return Err(format!("{name} {index}: {moved:?}, {:?}", damping(&method)).into());
        }
    }
    Ok(())
}

fn averages_are_those_of_the_iterates(gpu: &Gpu) -> Outcome {
    let (model, batch) = task(16)?;
    for decay in [1.0, 0.75] {
        for (index, mut method) in all()?.into_iter().enumerate() {
            let mut objective = GraphObjective::new(gpu, model.clone())?;
            let theta = objective.initial_parameters(7)?;
            method.course_mut().set_averaging(decay)?;
            if !method.evaluation_parameters(&theta).is_same(&theta) {
                return Err("an average of no iterates".into());
            }
            let mut sum = vec![0.0; flat(&theta.read(gpu)?).len()];
            let mut weight = 0.0;
            for _ in 0..7 {
                let report = method.step(&mut objective, &theta, &batch)?;
                if report.accepted {
                    let iterate = flat(&theta.read(gpu)?);
                    sum = add(&iterate, decay, &sum);
                    weight = 1.0 + decay * weight;
                }
            }
            let average: Vec<f64> = sum.iter().map(|x| x / weight).collect();
            let kept = method.evaluation_parameters(&theta);
            let error = relative_error(&flat(&kept.read(gpu)?), &average);
            // Seven updates with three roundings each, whose weights fall: at most 7 * 1.5 * 6e-8.
            if error.is_nan() || error > 7e-7 || weight < 1.5 {
                let name = method.name();
                let what = format!("{name} {index}, decay {decay}: {error:.1e} off");
                return Err(format!("{what}, weight {weight}").into());
            }
        }
    }
    Ok(())
}

fn a_state_with_schedule_and_average_continues_with_equal_bits(gpu: &Gpu) -> Outcome {
    let (model, batch) = task(16)?;
    let begun = |index: usize| -> Result<Boxed, Any> {
        let mut method = all()?.swap_remove(index);
        let course = method.course_mut();
        course.set_schedule(Schedule::Cosine { last: 0.1 }, 9)?;
        course.set_averaging(0.75)?;
        Ok(method)
    };
    for index in 0..all()?.len() {
        let mut objective = GraphObjective::new(gpu, model.clone())?;
        let theta = objective.initial_parameters(7)?;
        let mut straight = begun(index)?;
        let start = straight.state(&objective)?;
        for _ in 0..4 {
            straight.step(&mut objective, &theta, &batch)?;
        }
        let (state, saved) = (straight.state(&objective)?, theta.read(gpu)?);
        let go_on = |method: &mut Boxed, objective: &mut GraphObjective, theta: &Vector| {
            for _ in 0..4 {
                method.step(objective, theta, &batch)?;
            }
            let average = method.evaluation_parameters(theta).read(gpu)?;
            Ok::<_, Any>([bits(&theta.read(gpu)?), bits(&average)])
        };
        let expected = go_on(&mut straight, &mut objective, &theta)?;
        let name = straight.name();
        let mut other_objective = GraphObjective::new(gpu, model.clone())?;
        let other = other_objective.initial_parameters(1)?;
        let mut fresh = begun(index)?;
        fresh.restore(&other_objective, &state)?;
        other.write(gpu, &saved)?;
        if fresh.state(&other_objective)? != state || fresh.course().steps() != 4 {
            return Err(format!("{name} {index}: another state").into());
        }
        if go_on(&mut fresh, &mut other_objective, &other)? != expected {
            return Err(format!("{name} {index}: other bits").into());
        }
        // The state of the beginning has no average.
        fresh.restore(&other_objective, &start)?;
        if !fresh.evaluation_parameters(&other).is_same(&other) || fresh.course().steps() != 0 {
            return Err(format!("{name} {index}: an average of the time before").into());
        }
    }
    Ok(())
}

fn steps_that_fail_or_are_refused_leave_the_average(gpu: &Gpu) -> Outcome {
    let (model, batch) = task(16)?;
    let mut bad = batch.clone();
    bad.features[5] = f32::NAN;
    for (index, mut method) in all()?.into_iter().enumerate() {
        let mut objective = GraphObjective::new(gpu, model.clone())?;
        let theta = objective.initial_parameters(7)?;
        method.course_mut().set_averaging(0.75)?;
        for _ in 0..2 {
            method.step(&mut objective, &theta, &batch)?;
        }
        let before = bits(&method.evaluation_parameters(&theta).read(gpu)?);
        let failed = method.step(&mut objective, &theta, &bad);
        let after = bits(&method.evaluation_parameters(&theta).read(gpu)?);
        if failed.is_ok() || after != before || method.course().steps() != 2 {
            return Err(format!("{} {index}: {failed:?}", method.name()).into());
        }
    }
    // Far too long a step: refused, because it raises the loss.
    let options = LrsfnOptions::default()
        .with_damping(1e-3)
        .with_step_length(0.1)
        .with_step_length_beyond(0.1);
    let long = options
        .clone()
        .with_step_length(3e3)
        .with_step_length_beyond(3e3);
    let mut objective = GraphObjective::new(gpu, model)?;
    let theta = objective.initial_parameters(7)?;
    let mut method = LowRankSaddleFreeNewton::new(options)?.with_averaging(0.75)?;
    method.step(&mut objective, &theta, &batch)?;
    let state = Optimizer::<GraphObjective>::state(&method, &objective)?;
    let mut method = LowRankSaddleFreeNewton::new(long)?.with_averaging(0.75)?;
    let mut refused = state.clone();
    for (name, value) in &mut refused.scalars {
        if name.starts_with("step_length") {
            *value = 3e3;
        }
    }
    method.restore(&objective, &refused)?;
    let report = method.step(&mut objective, &theta, &batch)?;
    let average = method.evaluation_parameters(&theta).read(gpu)?;
    let kept = state.vector("average").unwrap_or_default();
    if report.accepted || bits(&average) != bits(kept) || method.course().steps() != 2 {
        return Err(format!("a step that was refused: {report:?}").into());
    }
    Ok(())
}

/// 16 inputs, 32 hidden units and 8 classes.
fn dense() -> Model {
    let shape = DataShape {
        features: 16,
        targets: TargetShape::Classes(8),
    };
    Sequential::new()
        .dense(32)
        .activation(Activation::Tanh)
        .dense(8)
        .model(shape, Loss::SoftmaxCrossEntropy)
}

fn work_of_sgd_in_operations_is_one_a_row(gpu: &Gpu) -> Outcome {
    let model = dense();
    let batch = batch_for(&model, 30, 6);
    let mut objective = GraphObjective::new(gpu, model)?;
    let theta = objective.initial_parameters(7)?;
    for (padded, rows) in [(batch.clone(), 30.0), (batch.clone().pad_to(32)?, 32.0)] {
        let mut sgd = Sgd::new(SgdOptions::default())?;
        let report = sgd.step(&mut objective, &theta, &padded)?;
        if (report.work_flops - rows).abs() > 1e-9 || report.work != 30.0 {
            return Err(format!("{rows} rows: {report:?}").into());
        }
    }
    // Five matrix products of the two layers, and little beside them: biases, tanh, the loss.
    let loaded = objective.load(Slot::default(), &batch)?;
    let cost = objective
        .gradient(&theta, &loaded, GradientRequest::default())?
        .cost;
    let products = 2 * 30 * (2 * 16 * 32 + 3 * 32 * 8);
    if cost.gradient != cost.run || cost.run < products || cost.run > products + products / 4 {
        return Err(format!("{cost:?}, of which products {products}").into());
    }
    // What a quadratic calls its gradient is the same but for what is fused with it.
    let request = QuadraticRequest {
        curvature: Curvature::GaussNewton,
        block: 3,
        ..QuadraticRequest::default()
    };
    let quadratic = objective.quadratic(&theta, &loaded, request)?;
    let (own, listing) = (quadratic.cost, &quadratic.listing);
    let off = (own.gradient as f64 / cost.gradient as f64 - 1.0).abs();
    let sums = (listing.flops(0), listing.flops(1), listing.flops(2));
    if off > 0.05 || (own.run, own.product, own.block) != sums || own.gradient > own.run {
        return Err(format!("{own:?} beside {cost:?}").into());
    }
    // A product of the Gauss-Newton matrix has four products of the two layers less the one with the inputs' tangent, a block three times
    // those.
    let product = 2 * 30 * (2 * 16 * 32 + 4 * 32 * 8);
    if own.product < product - 2 * 30 * 32 * 8 || own.block < 2 * own.product {
        return Err(format!("{own:?}, of which a product {product}").into());
    }
    Ok(())
}

fn work_of_newton_in_operations_is_the_sum_of_its_parts(gpu: &Gpu) -> Outcome {
    let model = dense();
    let batch = batch_for(&model, 30, 6);
    let mut objective = GraphObjective::new(gpu, model)?;
    let theta = objective.initial_parameters(7)?;
    let mut cg = CgOptions::default();
    cg.max_iterations = 3;
    let mut newton = NewtonCg::new(NewtonCgOptions::default().with_cg(cg))?;
    let report = newton.step(&mut objective, &theta, &batch)?;
    let loaded = objective.load(Slot::default(), &batch)?;
    let request = QuadraticRequest {
        curvature: Curvature::GaussNewton,
        losses: true,
        ..QuadraticRequest::default()
    };
    let quadratic = objective.quadratic(&theta, &loaded, request)?;
    let of_losses = quadratic.losses.as_ref().ok_or("no losses")?.cost_at_point;
    let (cost, elements) = (quadratic.cost, objective.layout().len() as f64);
    let unit = cost.gradient as f64 / 30.0;
    // Three iterations are three products, and as many changes of the loss as the other measure says.
    let changes = (report.work / 30.0 - 1.0 - 6.0) * 1.5;
    let flops = cost.run as f64
        + 3.0 * (cost.product as f64 + 12.0 * elements)
        + changes * of_losses.flops as f64;
    let expected = flops / unit;
    if report.cg_iterations != Some(3) || (report.work_flops / expected - 1.0).abs() > 1e-9 {
        return Err(format!("{} and not {expected}: {report:?}", report.work_flops).into());
    }
    Ok(())
}
