//! Products by differences of gradients beside exact ones, and what trains on them.

use crate::harness::{GpuTest, Outcome, arrived};
use crate::reference::{batch_for, flat, relative_error};
use osculant::data::{Batch, digits};
use osculant::gpu::Gpu;
use osculant::linalg::{EigenOptions, Operator};
use osculant::nn::{Activation, DataShape, Loss, Model, Sequential, TargetShape};
use osculant::objective::{
    Curvature, Curved, FiniteDifferences, GraphObjective, Objective, QuadraticRequest, Slot,
};
use osculant::optim::{
    LowRankSaddleFreeNewton, LrsfnOptions, NewtonCg, NewtonCgOptions, Optimizer, Recordable, Sgd,
    SgdOptions,
};
use osculant::random::Philox;
use osculant::vector::Vector;
use rand::RngExt;

pub(crate) fn tests() -> Vec<GpuTest> {
    gpu_tests![
        products_by_differences_are_near_exact_ones,
        displacements_are_neither_too_long_nor_too_short,
        blocks_by_differences_are_their_single_products,
        methods_step_on_differences,
        what_differences_cannot_give_is_refused,
    ]
}

type Any = Box<dyn std::error::Error>;

/// The network of the digits, with a batch of them.
fn of_digits() -> Result<(Model, Batch), Any> {
    let data = digits()?;
    let model = Sequential::new()
        .dense(64)
        .activation(Activation::Tanh)
        .dense(32)
        .activation(Activation::Tanh)
        .dense(10)
        .model(&data, Loss::SoftmaxCrossEntropy);
    let batch = data.batch(&(0..256).collect::<Vec<_>>())?;
    Ok((model, batch))
}

/// A network as large as that of Fashion-MNIST, on numbers out of a hat.
fn of_images() -> (Model, Batch) {
    let shape = DataShape {
        features: 784,
        targets: TargetShape::Classes(10),
    };
    let model = Sequential::new()
        .dense(128)
        .activation(Activation::Tanh)
        .dense(10)
        .model(shape, Loss::SoftmaxCrossEntropy);
    let mut batch = batch_for(&model, 64, 1);
    batch.features.iter_mut().for_each(|x| *x = 0.5 * x.abs());
    (model, batch)
}

const HESSIAN: QuadraticRequest = {
    QuadraticRequest {
        curvature: Curvature::Hessian,
        fisher_diagonal: false,
        block: 0,
        losses: false,
    }
};

fn product<O: Curved>(
    gpu: &Gpu,
    objective: &mut O,
    theta: &Vector,
    batch: &O::Batch,
    v: &[Vec<f32>],
) -> Result<Vec<f64>, Any> {
    let quadratic = objective.load_quadratic(Slot::default(), theta, batch, HESSIAN)?;
    quadratic.direction.write(gpu, v)?;
    gpu.run([&quadratic.linearize, &quadratic.multiply])?;
    Ok(flat(&quadratic.product.read(gpu)?))
}

/// Along the gradient and along random directions, at the start and after some steps: within a thousandth; the worst was 7e-4.
fn products_by_differences_are_near_exact_ones(gpu: &Gpu) -> Outcome {
    for (model, batch) in [of_digits()?, of_images()] {
        let mut exact = GraphObjective::new(gpu, model.clone())?.with_l2(1e-4)?;
        let mut by_differences =
            FiniteDifferences::new(GraphObjective::new(gpu, model)?.with_l2(1e-4)?);
        let theta = exact.initial_parameters(0)?;
        let mut sgd = Sgd::new(SgdOptions::default())?;
        for round in 0..2u64 {
            let gradient = exact.load_quadratic(Slot::default(), &theta, &batch, HESSIAN)?;
            gpu.run([&gradient.linearize])?;
            let mut random = Philox::new(round, 1 << 41);
            let mut directions = vec![gradient.gradient.read(gpu)?];
            for scale in [1.0f32, 1e-6, 1e6] {
                let tensors = theta.layout().entries().iter();
                let draw = tensors.map(|entry| {
                    (0..entry.elements())
                        .map(|_| scale * random.random_range(-1.0f32..1.0))
                        .collect()
                });
                directions.push(draw.collect());
            }
            for (number, v) in directions.iter().enumerate() {
                let one = product(gpu, &mut exact, &theta, &batch, v)?;
                let other = product(gpu, &mut by_differences, &theta, &batch, v)?;
                let error = relative_error(&other, &one);
                if std::env::var_os("OSCULANT_TEST_TIMES").is_some() {
                    eprintln!(
                        "{} parameters, round {round}, direction {number}: {error:.1e}",
                        one.len()
                    );
                }
                assert!(error < 1e-3, "round {round}, direction {number}: {error:e}");
            }
            for _ in 0..20 {
                sgd.step(&mut exact, &theta, &batch)?;
            }
        }
        let operator = Operator::from(&*by_differences.load_quadratic(
            Slot::default(),
            &theta,
            &batch,
            HESSIAN,
        )?);
        let zeros: Vec<Vec<f32>> = theta
            .layout()
            .entries()
            .iter()
            .map(|e| vec![0.0; e.elements()])
            .collect();
        operator.input.write(gpu, &zeros)?;
        gpu.run([&operator.multiply])?;
        assert!(flat(&operator.output.read(gpu)?).iter().all(|x| *x == 0.0));
    }
    Ok(())
}

/// Four times as long is worse along the gradient, where the third derivative is large, and a quarter along random directions, whose
/// products are small beside the gradient.
fn displacements_are_neither_too_long_nor_too_short(gpu: &Gpu) -> Outcome {
    let lengths = [0.0056, 0.0056 * 4.0, 0.0056 / 4.0];
    let mut worst = [0.0f64; 3];
    for (model, batch) in [of_digits()?, of_images()] {
        let mut exact = GraphObjective::new(gpu, model.clone())?;
        let theta = exact.initial_parameters(0)?;
        let quadratic = exact.load_quadratic(Slot::default(), &theta, &batch, HESSIAN)?;
        gpu.run([&quadratic.linearize])?;
        let mut random = Philox::new(7, 1 << 41);
        let mut directions = vec![quadratic.gradient.read(gpu)?];
        for _ in 0..3 {
            let mut v: Vec<Vec<f32>> = Vec::new();
            for entry in theta.layout().entries() {
                let tensor = (0..entry.elements()).map(|_| random.random_range(-1.0f32..1.0));
                v.push(tensor.collect());
            }
            directions.push(v);
        }
        for (number, length) in lengths.into_iter().enumerate() {
            let inner = GraphObjective::new(gpu, model.clone())?;
            let mut own = FiniteDifferences::new(inner);
            if number > 0 {
                own = own.with_length(length)?;
            }
            for v in &directions {
                let expected = product(gpu, &mut exact, &theta, &batch, v)?;
                let found = product(gpu, &mut own, &theta, &batch, v)?;
                worst[number] = worst[number].max(relative_error(&found, &expected));
            }
        }
    }
    let [usual, long, short] = worst;
    assert!(usual < long && usual < short, "{worst:?}");
    Ok(())
}

fn blocks_by_differences_are_their_single_products(gpu: &Gpu) -> Outcome {
    let (model, batch) = of_digits()?;
    let mut objective = FiniteDifferences::new(GraphObjective::new(gpu, model)?);
    let theta = objective.inner().initial_parameters(2)?;
    let request = QuadraticRequest {
        block: 3,
        ..HESSIAN
    };
    let quadratic = objective.load_quadratic(Slot::default(), &theta, &batch, request)?;
    let block = quadratic.block.as_ref().ok_or("no block")?;
    let mut random = Philox::new(3, 1 << 41);
    let mut singles = Vec::new();
    gpu.run([&quadratic.linearize])?;
    for vector in block.directions.vectors() {
        let tensors = theta.layout().entries().iter();
        let v: Vec<Vec<f32>> = tensors
            .map(|e| {
                (0..e.elements())
                    .map(|_| random.random_range(-1.0f32..1.0))
                    .collect()
            })
            .collect();
        vector.write(gpu, &v)?;
        quadratic.direction.write(gpu, &v)?;
        gpu.run([&quadratic.multiply])?;
        singles.push(quadratic.product.read(gpu)?);
    }
    gpu.run([&block.multiply])?;
    for (product, single) in block.products.vectors().iter().zip(&singles) {
        assert_eq!(&product.read(gpu)?, single);
    }
    Ok(())
}

/// Newton-CG with a trust region and low-rank saddle-free Newton, also recorded, on an objective of gradients alone: the loss falls as far as
/// with exact products, within a twentieth.
fn methods_step_on_differences(gpu: &Gpu) -> Outcome {
    fn last<O: Curved<Batch = Batch>>(
        objective: &mut O,
        theta: &Vector,
        batch: &Batch,
        method: &mut dyn Optimizer<O>,
    ) -> Result<f64, Any> {
        let mut loss = f64::NAN;
        for _ in 0..12 {
            loss = method.step(objective, theta, batch)?.loss_before;
        }
        Ok(loss)
    }
    let (model, batch) = of_digits()?;
    let mut exact = GraphObjective::new(gpu, model.clone())?;
    let mut by_differences = FiniteDifferences::new(GraphObjective::new(gpu, model)?);
    let start = |seed| exact.initial_parameters(seed);
    let [a, b, c, d] = [start(0)?, start(0)?, start(0)?, start(0)?];
    let hessian = || NewtonCg::new(NewtonCgOptions::default().with_curvature(Curvature::Hessian));
    let eigen = EigenOptions::default().with_rank(8).with_oversampling(4);
    let low_rank =
        || LowRankSaddleFreeNewton::new(LrsfnOptions::default().with_eigen(eigen.clone()));
    let newton = [
        last(&mut exact, &a, &batch, &mut hessian()?)?,
        last(&mut by_differences, &b, &batch, &mut hessian()?)?,
    ];
    let lrsfn = [
        last(&mut exact, &c, &batch, &mut low_rank()?)?,
        last(&mut by_differences, &d, &batch, &mut low_rank()?)?,
    ];
    for [exact, differences] in [newton, lrsfn] {
        assert!(
            exact < 1.5 && (differences / exact - 1.0).abs() < 0.05,
            "{exact} {differences}"
        );
    }
    let loaded = by_differences.load(Slot::default(), &batch)?;
    let e = by_differences.inner().initial_parameters(0)?;
    let mut recorded = hessian()?.recorded(&mut by_differences, &e, &loaded)?;
    for _ in 0..12 {
        gpu.try_submit(|recorder| recorded.record(recorder))?;
    }
    let reports = arrived(gpu, &mut recorded, 12)?;
    let loss = reports.last().ok_or("no report")?.2.loss_before;
    assert!((loss / newton[1] - 1.0).abs() < 0.05, "{loss}");
    Ok(())
}

fn what_differences_cannot_give_is_refused(gpu: &Gpu) -> Outcome {
    let (model, batch) = of_digits()?;
    let mut objective = FiniteDifferences::new(GraphObjective::new(gpu, model)?);
    let theta = objective.inner().initial_parameters(2)?;
    for request in [
        QuadraticRequest {
            curvature: Curvature::GaussNewton,
            ..HESSIAN
        },
        QuadraticRequest {
            fisher_diagonal: true,
            ..HESSIAN
        },
    ] {
        let refused = objective.load_quadratic(Slot::default(), &theta, &batch, request);
        let message = refused.err().ok_or("was not refused")?.to_string();
        assert!(message.contains("by differences of gradients"), "{message}");
    }
    assert!(objective.with_length(0.0).is_err());
    Ok(())
}
