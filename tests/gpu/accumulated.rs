//! Micro-batches: an objective over them has the numbers of one pass over the whole batch, and every optimizer makes the same steps.

use std::sync::Arc;

use crate::harness::{GpuTest, Outcome};
use osculant::data::{Dataset, MicroBatches, digits};
use osculant::gpu::{Gpu, Slice};
use osculant::linalg::EigenOptions;
use osculant::nn::{Activation, Loss, Sequential};
use osculant::objective::{
    Accumulated, Curvature, Curved, GradientRequest, GraphObjective, GroupRequest, Losses,
    Objective, Parts, QuadraticRequest, Slot,
};
use osculant::optim::{
    Adam, AdamOptions, DecoupledNewtonCg, DecoupledOptions, LowRankSaddleFreeNewton, LrsfnOptions,
    NewtonCg, NewtonCgOptions, Optimizer, Strategy,
};
use osculant::vector::Vector;

pub(crate) fn tests() -> Vec<GpuTest> {
    gpu_tests![
        its_numbers_are_those_of_the_whole_batch,
        groups_are_those_of_all_micro_batches,
        methods_make_the_same_steps,
        other_micro_batches_in_a_slot_are_what_programs_compute_with,
        programs_are_found_again,
        parts_of_padded_micro_batches,
        micro_batches_without_sense_are_refused,
    ]
}

type Any = Box<dyn std::error::Error>;

const ROWS: usize = 30;
/// Sums of some hundred terms in another order, relative to the largest number.
const SUMS: f64 = 5e-6;
/// After solves, which amplify rounding errors.
const SOLVES: f64 = 2e-4;

fn data() -> osculant::Result<Dataset> {
    digits()?.head(ROWS)
}

fn whole(gpu: &Gpu) -> osculant::Result<GraphObjective> {
    let model = Sequential::new()
        .dense(6)
        .activation(Activation::Tanh)
        .dense(10)
        .model(&data()?, Loss::SoftmaxCrossEntropy);
    GraphObjective::new(gpu, model)?.with_l2(0.02)
}

fn all() -> Vec<usize> {
    (0..ROWS).collect()
}

fn distance(found: &[f32], expected: &[f32]) -> f64 {
    assert_eq!(found.len(), expected.len());
    let wide = |x: &f32| f64::from(*x);
    let largest = expected
        .iter()
        .map(wide)
        .fold(0.0, |a: f64, b| a.max(b.abs()));
    let off = found
        .iter()
        .zip(expected)
        .map(|(a, b)| (wide(a) - wide(b)).abs() / largest);
    off.fold(
        0.0,
        |a, b| if b.is_nan() { f64::INFINITY } else { a.max(b) },
    )
}

fn compare(what: &str, found: &[Vec<f32>], expected: &[Vec<f32>], tolerance: f64) -> Outcome {
    assert_eq!(found.len(), expected.len());
    for (number, (found, expected)) in found.iter().zip(expected).enumerate() {
        let off = distance(found, expected);
        if off > tolerance {
            return Err(format!("{what}, number {number}: {off:.1e} off").into());
        }
    }
    Ok(())
}

/// The loss at a point, from what is at the base.
fn at_point(gpu: &Gpu, losses: &Losses, point: &Vector) -> osculant::Result<Vec<f32>> {
    gpu.run([&losses.at_base])?;
    let at_base = gpu.read(&[&losses.results])?.remove(0);
    assert_eq!(at_base[1..], [0.0, 0.0], "no change at the base");
    losses.point.write(gpu, &point.read(gpu)?)?;
    gpu.run([&losses.at_point])?;
    let found = gpu.read(&[&losses.results])?.remove(0);
    assert!(found[2] > 0.0 && found[2] < 1e-4, "{found:?}");
    // Value and change by themselves; the bound is another.
    Ok([&at_base[..1], &found[..2]].concat())
}

/// All numbers of quadratics and gradients on a batch.
fn numbers<O: Curved>(
    gpu: &Gpu,
    objective: &mut O,
    [theta, other]: [&Vector; 2],
    batch: &O::Batch,
) -> Result<Vec<Vec<f32>>, Any> {
    let mut found = Vec::new();
    let loaded = objective.load(Slot::default(), batch)?;
    assert_eq!(loaded.examples, ROWS);
    let gradient = objective.gradient(theta, &loaded, GradientRequest { losses: true })?;
    gpu.run([&gradient.run])?;
    found.extend(gpu.read(&[&gradient.value, gradient.gradient.slice()])?);
    let losses = gradient.losses.as_ref().ok_or("no losses")?;
    found.push(at_point(gpu, losses, other)?);
    for curvature in [Curvature::Hessian, Curvature::GaussNewton] {
        let request = QuadraticRequest {
            curvature,
            fisher_diagonal: true,
            block: 3,
            losses: true,
        };
        let quadratic = objective.quadratic(theta, &loaded, request)?;
        let block = quadratic.block.as_ref().ok_or("no block")?;
        let direction = other.read(gpu)?;
        quadratic.direction.write(gpu, &direction)?;
        let scaled = |by: f32| -> Vec<Vec<f32>> {
            let scale = |tensor: &Vec<f32>| tensor.iter().map(|x| x * by).collect();
            direction.iter().map(scale).collect()
        };
        block.directions.write(gpu, &[1.0, -2.0, 0.5].map(scaled))?;
        gpu.run([&quadratic.linearize, &quadratic.multiply, &block.multiply])?;
        let diagonal = quadratic.fisher_diagonal.as_ref().ok_or("no diagonal")?;
        let all: [&Slice; 5] = [
            &quadratic.value,
            quadratic.gradient.slice(),
            quadratic.product.slice(),
            diagonal.slice(),
            block.products.slice(),
        ];
        found.extend(gpu.read(&all)?);
        let losses = quadratic.losses.as_ref().ok_or("no losses")?;
        found.push(at_point(gpu, losses, other)?);
        if gpu.read(&[&losses.results])?[0][0].is_nan() || quadratic.cost.product == 0 {
            return Err("a product costs nothing".into());
        }
    }
    Ok(found)
}

fn its_numbers_are_those_of_the_whole_batch(gpu: &Gpu) -> Outcome {
    let (data, mut one) = (data()?, whole(gpu)?);
    let theta = one.initial_parameters(1)?;
    let other = one.initial_parameters(2)?;
    let expected = numbers(gpu, &mut one, [&theta, &other], &data.batch(&all())?)?;
    for rows in [8, 30, 7] {
        let batch = data.micro_batches(&all(), rows)?;
        let mut many = Accumulated::new(one.sibling()?);
        let found = numbers(gpu, &mut many, [&theta, &other], &batch)?;
        compare(&format!("{rows} rows"), &found, &expected, SUMS)?;
    }
    Ok(())
}

/// Group `g` of two micro-batches is group `g` of the one and of the other.
fn groups_are_those_of_all_micro_batches(gpu: &Gpu) -> Outcome {
    let (data, mut one) = (data()?.head(24)?, whole(gpu)?);
    let theta = one.initial_parameters(1)?;
    let direction = one.initial_parameters(2)?.read(gpu)?;
    let rows: Vec<usize> = (0..24).collect();
    let in_order: Vec<usize> = [0..4, 12..16, 4..8, 16..20, 8..12, 20..24]
        .into_iter()
        .flatten()
        .collect();
    let request = GroupRequest {
        curvature: Curvature::Hessian,
        slope_variance: false,
        losses: true,
    };
    let mut many = Accumulated::new(one.sibling()?);
    fn numbers<O: Parts>(
        gpu: &Gpu,
        objective: &mut O,
        (theta, direction): (&Vector, &[Vec<f32>]),
        batch: &O::Batch,
        request: GroupRequest,
    ) -> Result<Vec<Vec<f32>>, Any> {
        let loaded = objective.load_groups(Slot::default(), batch, 3)?;
        let grouped = objective.grouped(theta, &loaded, request)?;
        grouped.direction.write(gpu, direction)?;
        gpu.run([&grouped.linearize, &grouped.multiply])?;
        let mut all = vec![&grouped.value, grouped.gradient.slice()];
        for group in &grouped.groups {
            all.extend([group.gradient.slice(), group.product.slice()]);
        }
        let mut found = gpu.read(&all)?;
        let losses = grouped.losses.as_ref().ok_or("no losses")?;
        let other = Vector::new(gpu, "other", objective.layout())?;
        other.write(gpu, direction)?;
        found.push(at_point(gpu, losses, &other)?);
        Ok(found)
    }
    let place = (&theta, direction.as_slice());
    let expected = numbers(gpu, &mut one, place, &data.batch(&in_order)?, request)?;
    let batch = data.micro_batches(&rows, 12)?;
    let found = numbers(gpu, &mut many, place, &batch, request)?;
    compare("groups", &found, &expected, SUMS)?;
    // Half of the first micro-batch and a quarter of the second: the mean of nine examples.
    let part = many.part(&batch, &[0..6, 12..15])?;
    assert_eq!(many.rows(&part), Some(9));
    let loaded = many.load(Slot::default(), &part)?;
    let gradient = many.gradient(&theta, &loaded, GradientRequest::default())?;
    gpu.run([&gradient.run])?;
    let found = gpu.read(&[&gradient.value, gradient.gradient.slice()])?;
    let rows: Vec<usize> = (0..6).chain(12..15).collect();
    let loaded = one.load(Slot::default(), &data.batch(&rows)?)?;
    let gradient = one.gradient(&theta, &loaded, GradientRequest::default())?;
    gpu.run([&gradient.run])?;
    let expected = gpu.read(&[&gradient.value, gradient.gradient.slice()])?;
    compare("part", &found, &expected, SUMS)?;
    let variance = GroupRequest {
        slope_variance: true,
        ..request
    };
    let loaded = many.load_groups(Slot::default(), &batch, 3)?;
    assert!(many.grouped(&theta, &loaded, variance).is_err());
    Ok(())
}

/// Three steps of a method on both, from the same start.
fn same_steps<M>(gpu: &Gpu, name: &str, make: impl Fn() -> osculant::Result<M>) -> Outcome
where
    M: Optimizer<GraphObjective> + Optimizer<Accumulated<GraphObjective>>,
{
    let (data, mut one) = (data()?, whole(gpu)?);
    let (theta, own) = (one.initial_parameters(1)?, one.initial_parameters(1)?);
    let mut many = Accumulated::new(one.sibling()?);
    let (mut of_one, mut of_many) = (make()?, make()?);
    for step in 0..3 {
        let expected = of_one.step(&mut one, &theta, &data.batch(&all())?)?;
        let found = of_many.step(&mut many, &own, &data.micro_batches(&all(), 8)?)?;
        let decisions = |r: &osculant::optim::StepReport| (r.accepted, r.cg_iterations);
        if decisions(&found) != decisions(&expected) || (found.work - expected.work).abs() > 1e-9 {
            return Err(format!("{name}, step {step}: {found:?}, not {expected:?}").into());
        }
        let what = format!("{name}, step {step}");
        compare(&what, &own.read(gpu)?, &theta.read(gpu)?, SOLVES)?;
    }
    Ok(())
}

fn methods_make_the_same_steps(gpu: &Gpu) -> Outcome {
    same_steps(gpu, "Adam", || {
        Adam::new(AdamOptions::default().with_learning_rate(0.01))
    })?;
    let mut options = NewtonCgOptions::default();
    options.backtracking = false;
    options.cg.max_iterations = 8;
    same_steps(gpu, "Newton-CG", || NewtonCg::new(options.clone()))?;
    let eigen = EigenOptions::default().with_rank(3).with_oversampling(2);
    same_steps(gpu, "low rank", || {
        LowRankSaddleFreeNewton::new(LrsfnOptions::default().with_eigen(eigen.clone()))
    })?;
    let single = DecoupledOptions::default().with_strategy(Strategy::Single);
    same_steps(gpu, "decoupled", || DecoupledNewtonCg::new(single.clone()))
}

/// The same slot with another batch of as many micro-batches, with other shares, and with another number of them.
fn other_micro_batches_in_a_slot_are_what_programs_compute_with(gpu: &Gpu) -> Outcome {
    let (data, mut one) = (data()?, whole(gpu)?);
    let theta = one.initial_parameters(1)?;
    let mut many = Accumulated::new(one.sibling()?);
    for (rows, each) in [(0..24, 8), (6..30, 8), (0..23, 8), (3..15, 4), (0..24, 12)] {
        let rows: Vec<usize> = rows.collect();
        let loaded = many.load(Slot::default(), &data.micro_batches(&rows, each)?)?;
        let gradient = many.gradient(&theta, &loaded, GradientRequest::default())?;
        gpu.run([&gradient.run])?;
        let found = gpu.read(&[&gradient.value, gradient.gradient.slice()])?;
        let loaded = one.load(Slot::default(), &data.batch(&rows)?)?;
        let gradient = one.gradient(&theta, &loaded, GradientRequest::default())?;
        gpu.run([&gradient.run])?;
        let expected = gpu.read(&[&gradient.value, gradient.gradient.slice()])?;
        compare(&format!("{} rows", rows.len()), &found, &expected, SUMS)?;
    }
    Ok(())
}

/// Batches that are cut in two ways in turns have two programs, each made once.
fn programs_are_found_again(gpu: &Gpu) -> Outcome {
    let (data, one) = (data()?, whole(gpu)?);
    let theta = one.initial_parameters(1)?;
    let mut many = Accumulated::new(one);
    let request = QuadraticRequest {
        curvature: Curvature::GaussNewton,
        ..QuadraticRequest::default()
    };
    let mut quadratics = Vec::new();
    for each in [6, 15, 6, 15, 6] {
        let batch = data.micro_batches(&all(), each)?;
        quadratics.push(many.load_quadratic(Slot::default(), &theta, &batch, request)?);
    }
    for (one, other) in [(0, 2), (1, 3), (2, 4)] {
        assert!(Arc::ptr_eq(&quadratics[one], &quadratics[other]));
    }
    Ok(())
}

/// A part that takes one row of a padded micro-batch, where there is no example, is of the others.
fn parts_of_padded_micro_batches(gpu: &Gpu) -> Outcome {
    let (data, mut one) = (data()?, whole(gpu)?);
    let theta = one.initial_parameters(1)?;
    let mut many = Accumulated::new(one.sibling()?);
    let batch = data.micro_batches(&all(), 8)?;
    let part = many.part(&batch, std::slice::from_ref(&(0..25)))?;
    let loaded = many.load(Slot::default(), &part)?;
    assert_eq!(loaded.examples, 24);
    let gradient = many.gradient(&theta, &loaded, GradientRequest::default())?;
    gpu.run([&gradient.run])?;
    let found = gpu.read(&[&gradient.value, gradient.gradient.slice()])?;
    let rows: Vec<usize> = (0..24).collect();
    let loaded = one.load(Slot::default(), &data.batch(&rows)?)?;
    let gradient = one.gradient(&theta, &loaded, GradientRequest::default())?;
    gpu.run([&gradient.run])?;
    let expected = gpu.read(&[&gradient.value, gradient.gradient.slice()])?;
    compare("part", &found, &expected, SUMS)?;
    assert!(many.part(&batch, std::slice::from_ref(&(24..25))).is_err());
    #[expect(clippy::reversed_empty_ranges, reason = "it is what is refused")]
    for range in [0..33, 5..4] {
        assert!(many.part(&batch, std::slice::from_ref(&range)).is_err());
    }
    // What was loaded as a whole has no groups.
    let groups = many.load_groups(Slot::default(), &batch, 2)?;
    many.load(Slot::default(), &batch)?;
    let request = GroupRequest {
        curvature: Curvature::GaussNewton,
        slope_variance: false,
        losses: false,
    };
    assert!(many.grouped(&theta, &groups, request).is_err());
    Ok(())
}

fn micro_batches_without_sense_are_refused(gpu: &Gpu) -> Outcome {
    let data = data()?;
    let batch = data.batch(&[0, 1])?;
    assert!(MicroBatches::<osculant::data::Batch>::new(Vec::new()).is_err());
    for share in [0.0, -1.0, f64::NAN, f64::INFINITY] {
        assert!(MicroBatches::new(vec![(batch.clone(), share)]).is_err());
    }
    assert!(data.micro_batches(&[], 8).is_err());
    assert!(data.micro_batches(&[ROWS], 8).is_err());
    // A batch that is refused half-way leaves nothing that could be mistaken for it.
    let mut many = Accumulated::new(whole(gpu)?);
    let theta = many.inner().initial_parameters(0)?;
    let loaded = many.load(Slot::default(), &data.micro_batches(&all(), 8)?)?;
    let mut broken = batch.clone();
    broken.features[3] = f32::NAN;
    let broken = MicroBatches::new(vec![(batch, 0.5), (broken, 0.5)])?;
    assert!(many.load(Slot::default(), &broken).is_err());
    let gone = many.gradient(&theta, &loaded, GradientRequest::default());
    let message = gone.map(drop).map_err(|error| error.to_string());
    assert!(message.is_err_and(|m| m.contains("load them first")));
    Ok(())
}
