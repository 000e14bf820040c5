//! Functions of the host as objectives.

use crate::harness::{GpuTest, Outcome};
use osculant::Error;
use osculant::gpu::Gpu;
use osculant::linalg::EigenOptions;
use osculant::objective::{
    Curvature, Curved, GradientRequest, HostFunction, Objective, QuadraticRequest, Slot,
};
use osculant::optim::{
    Adam, AdamOptions, LowRankSaddleFreeNewton, LrsfnOptions, NewtonCg, NewtonCgOptions, Optimizer,
    Recordable, Sgd, SgdOptions,
};

pub(crate) fn tests() -> Vec<GpuTest> {
    gpu_tests![
        newton_finds_the_end_of_a_valley,
        products_are_those_of_a_hand_computation,
        changes_of_the_loss_keep_their_digits,
        batches_are_those_of_their_slots,
        first_order_steps_are_those_of_a_hand_computation,
        what_a_function_cannot_do_is_refused,
    ]
}

type Any = Box<dyn std::error::Error>;

const SHAPES: [(&str, &[usize]); 2] = [("a", &[1]), ("b", &[1])];

/// Rosenbrock's valley, and its Hessian.
fn valley(x: &[f64]) -> (f64, Vec<f64>) {
    let (a, b) = (1.0 - x[0], x[1] - x[0] * x[0]);
    let slopes = vec![-2.0 * a - 400.0 * x[0] * b, 200.0 * b];
    (a * a + 100.0 * b * b, slopes)
}

fn hessian(x: &[f64], v: &[f64]) -> Vec<f64> {
    let (p, q) = (2.0 + 1200.0 * x[0] * x[0] - 400.0 * x[1], -400.0 * x[0]);
    vec![p * v[0] + q * v[1], q * v[0] + 200.0 * v[1]]
}

fn newton_finds_the_end_of_a_valley(gpu: &Gpu) -> Outcome {
    let eigen = EigenOptions::default().with_rank(2).with_oversampling(0);
    let newton = || NewtonCgOptions::default().with_curvature(Curvature::Hessian);
    let by_differences = || HostFunction::new(gpu, &SHAPES, |x, ()| valley(x));
    let with_products =
        || by_differences()?.with_product(Curvature::Hessian, |x, (), v| hessian(x, v));
    type Method = Box<dyn Optimizer<HostFunction>>;
    let lrsfn = LrsfnOptions::default()
        .with_eigen(eigen)
        .with_curvature(Curvature::Hessian)
        .with_refresh(1);
    let runs: [(HostFunction, Method, usize); 3] = [
        (by_differences()?, Box::new(NewtonCg::new(newton())?), 60),
        (with_products()?, Box::new(NewtonCg::new(newton())?), 60),
        (
            with_products()?,
            Box::new(LowRankSaddleFreeNewton::new(lrsfn)?),
            400,
        ),
    ];
    for (mut objective, mut method, steps) in runs {
        let theta = objective.parameters(&[-1.2, 1.0])?;
        let mut readbacks = 0;
        for _ in 0..steps {
            let report = method.step(&mut objective, &theta, &())?;
            readbacks += report.readbacks;
        }
        let found = theta.read(gpu)?.concat();
        let name = method.name();
        assert!(
            found.iter().all(|x| (x - 1.0).abs() < 1e-4),
            "{name}: {found:?}"
        );
        // Each evaluation is one at least.
        assert!(readbacks as usize >= steps, "{name}: {readbacks}");
    }
    Ok(())
}

/// By differences in f64 to 1e-7, and those of a caller's to rounding; single ones and blocks.
fn products_are_those_of_a_hand_computation(gpu: &Gpu) -> Outcome {
    let own = HostFunction::new(gpu, &SHAPES, |x, ()| valley(x))?
        .with_product(Curvature::GaussNewton, |_, (), v| vec![3.0 * v[0], -v[1]])?;
    let mut objective = own;
    let theta = objective.parameters(&[0.5, -0.25])?;
    let v = [[0.75, -1.5], [2.0, 0.125], [0.0, 0.0]];
    for curvature in [Curvature::Hessian, Curvature::GaussNewton] {
        let request = QuadraticRequest {
            curvature,
            block: 3,
            ..QuadraticRequest::default()
        };
        let quadratic = objective.load_quadratic(Slot::default(), &theta, &(), request)?;
        gpu.run([&quadratic.linearize])?;
        let block = quadratic.block.as_ref().ok_or("no block")?;
        for (to, v) in block.directions.vectors().iter().zip(v) {
            to.write(gpu, &v.map(|x| vec![x as f32]))?;
        }
        gpu.run([&block.multiply])?;
        for (product, v) in block.products.vectors().iter().zip(v) {
            quadratic.direction.write(gpu, &v.map(|x| vec![x as f32]))?;
            gpu.run([&quadratic.multiply])?;
            let single = quadratic.product.read(gpu)?;
            assert_eq!(product.read(gpu)?, single);
            let expected = match curvature {
                Curvature::GaussNewton => vec![3.0 * v[0], -v[1]],
                _ => hessian(&[0.5, -0.25], &v),
            };
            let size = expected.iter().fold(1e-30f64, |a, x| a.max(x.abs()));
            for (x, y) in single.concat().iter().zip(&expected) {
                assert!(
                    (f64::from(*x) - y).abs() < 1e-7 * size,
                    "{single:?} {expected:?}"
                );
            }
        }
        assert_eq!(
            gpu.read(&[&quadratic.value])?[0][0],
            valley(&[0.5, -0.25]).0 as f32
        );
        let slopes: Vec<f32> = valley(&[0.5, -0.25]).1.iter().map(|&x| x as f32).collect();
        assert_eq!(quadratic.gradient.read(gpu)?.concat(), slopes);
    }
    let found = osculant::check(&mut objective, &theta, &(), Curvature::Hessian)?;
    assert!(found.passed(), "{found}");
    Ok(())
}

/// A step that changes a loss of a million by a millionth of a millionth.
fn changes_of_the_loss_keep_their_digits(gpu: &Gpu) -> Outcome {
    let mut objective = HostFunction::new(gpu, &[("x", &[1])], |x, ()| {
        (1e6 + 0.5 * x[0] * x[0], vec![x[0]])
    })?;
    let theta = objective.parameters(&[0.0])?;
    let loaded = objective.load(Slot::default(), &())?;
    let gradient = objective.gradient(&theta, &loaded, GradientRequest { losses: true })?;
    let losses = gradient.losses.as_ref().ok_or("no losses")?;
    gpu.run([&gradient.run, &losses.at_base])?;
    assert_eq!(gpu.read(&[&losses.results])?[0], [1e6, 0.0, 0.0]);
    losses.point.write(gpu, &[vec![0.001]])?;
    gpu.run([&losses.at_point])?;
    let read = gpu.read(&[&losses.results])?.concat();
    let error = (f64::from(read[1]) - 0.5e-6).abs();
    assert!(
        read[0] == 1e6 && error < 1e-9 && error <= f64::from(read[2]),
        "{read:?}"
    );
    assert!(read[2] < 1e-8, "{read:?}");
    Ok(())
}

/// Programs compute with the batch that is in their slot when they run.
fn batches_are_those_of_their_slots(gpu: &Gpu) -> Outcome {
    let mut objective: HostFunction<Vec<f64>> = HostFunction::new(gpu, &[("x", &[1])], {
        |x: &[f64], batch: &Vec<f64>| {
            let n = batch.len() as f64;
            let terms = batch.iter().map(|t| x[0] - t);
            let loss = terms.clone().map(|d| d * d).sum::<f64>() / n;
            (loss, vec![2.0 * terms.sum::<f64>() / n])
        }
    })?
    .with_examples(2);
    let theta = objective.parameters(&[1.0])?;
    let (one, two) = (Slot::default(), Slot::new(Slot::default().role, 1));
    let mut gradient = |slot, batch: &[f64]| -> Result<f32, Any> {
        let loaded = objective.load(slot, &batch.to_vec())?;
        let gradient = objective.gradient(&theta, &loaded, GradientRequest::default())?;
        gpu.run([&gradient.run])?;
        Ok(gradient.gradient.read(gpu)?.concat()[0])
    };
    assert_eq!(gradient(one, &[0.0, 4.0])?, -2.0);
    assert_eq!(gradient(two, &[3.0, 3.0])?, -4.0);
    assert_eq!(gradient(one, &[1.0, 3.0])?, -2.0);
    assert_eq!(gradient(one, &[1.0, 0.0])?, 1.0);
    let mut sgd = Sgd::new(SgdOptions::default())?;
    let report = sgd.step(&mut objective, &theta, &vec![0.0, 0.0])?;
    assert_eq!((report.work, report.loss_before), (2.0, 1.0));
    Ok(())
}

/// Steps of Adam on a slope of one and a slope of minus a thousand are equally long.
fn first_order_steps_are_those_of_a_hand_computation(gpu: &Gpu) -> Outcome {
    let mut objective = HostFunction::new(gpu, &SHAPES, |x, ()| {
        (x[0] - 1000.0 * x[1], vec![1.0, -1000.0])
    })?;
    let theta = objective.parameters(&[0.0, 0.0])?;
    let options = AdamOptions::default().with_learning_rate(0.125);
    let mut adam = Adam::new(options)?;
    adam.step(&mut objective, &theta, &())?;
    let found = theta.read(gpu)?.concat();
    assert!(
        (found[0] + 0.125).abs() < 1e-6 && (found[1] - 0.125).abs() < 1e-6,
        "{found:?}"
    );
    Ok(())
}

/// By errors that say what to do; parameters stay as they were.
fn what_a_function_cannot_do_is_refused(gpu: &Gpu) -> Outcome {
    let mut short = HostFunction::new(gpu, &SHAPES, |_, ()| (1.0, vec![1.0]))?;
    let theta = short.parameters(&[0.25, 0.5])?;
    let mut sgd = Sgd::new(SgdOptions::default())?;
    let refused = sgd.step(&mut short, &theta, &());
    assert!(matches!(refused, Err(Error::Length { .. })), "{refused:?}");
    let mut broken = HostFunction::new(gpu, &SHAPES, |_, ()| (f64::NAN, vec![1.0, 1.0]))?;
    let refused = sgd.step(&mut broken, &theta, &());
    assert!(
        matches!(refused, Err(Error::NotFinite { .. })),
        "{refused:?}"
    );
    assert_eq!(theta.read(gpu)?.concat(), [0.25, 0.5]);

    let mut objective = HostFunction::new(gpu, &SHAPES, |x, ()| valley(x))?;
    let mut newton = NewtonCg::new(NewtonCgOptions::default())?;
    let refused = newton.step(&mut objective, &theta, &());
    let message = refused.err().ok_or("no error")?.to_string();
    assert!(message.contains("with_product"), "{message}");
    let loaded = objective.load(Slot::default(), &())?;
    let recorded = Adam::new(AdamOptions::default())?.recorded(&mut objective, &theta, &loaded);
    let message = recorded.err().ok_or("was recorded")?.to_string();
    assert!(message.contains("need the host in between"), "{message}");
    assert!(objective.parameters(&[1.0]).is_err());
    assert!(
        objective
            .with_product(Curvature::None, |_, (), v| v.to_vec())
            .is_err()
    );
    Ok(())
}
