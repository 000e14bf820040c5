//! Muon, SOAP and Shampoo: what they take for matrices, what they cost, refuse and leave, and that they train. Their formulas are in
//! [`matrix_formulas`](crate::matrix_formulas).

use crate::harness::{self, GpuTest, Outcome};
use crate::matrix_formulas::{Any, near, network};
use crate::reference::{batch_for, bits, flat};
use osculant::Error;
use osculant::data::{Targets, digits};
use osculant::gpu::Gpu;
use osculant::nn::{Activation, DataShape, Loss, Sequential, TargetShape};
use osculant::objective::{GradientRequest, GraphObjective, Objective, Slot};
use osculant::optim::{
    Adam, AdamOptions, Matrices, Muon, MuonOptions, Optimizer, Shampoo, ShampooOptions, Soap,
    SoapOptions,
};
use osculant::vector::Vector;

pub(crate) fn tests() -> Vec<GpuTest> {
    gpu_tests![
        hidden_matrices_are_those_between_others,
        a_step_has_one_readback_and_its_work,
        numbers_that_are_not_finite_change_nothing,
        options_out_of_range_are_refused,
        they_train,
    ]
}

fn hidden_matrices_are_those_between_others(gpu: &Gpu) -> Outcome {
    let deeper = |hidden: &[usize]| {
        let shape = DataShape {
            features: 5,
            targets: TargetShape::Classes(3),
        };
        let mut network = Sequential::new();
        for &width in hidden {
            network = network.dense(width).activation(Activation::Tanh);
        }
        network.dense(3).model(shape, Loss::SoftmaxCrossEntropy)
    };
    let own = AdamOptions::default().with_learning_rate(0.01);
    let options = MuonOptions::default()
        .with_adam(own.clone())
        .with_matrices(Matrices::Hidden);
    // Moments of each tensor: a weight and a bias for each layer.
    for (hidden, moments) in [
        (vec![], 4),
        (vec![4], 8),
        (vec![4, 6], 11),
        (vec![4, 6, 4], 14),
    ] {
        let model = deeper(&hidden);
        let run = |mut method: Box<dyn Optimizer<GraphObjective>>| {
            let mut objective = GraphObjective::new(gpu, model.clone())?;
            let theta = objective.initial_parameters(3)?;
            for seed in 0..3 {
                method.step(&mut objective, &theta, &batch_for(&model, 8, seed))?;
            }
            Ok::<_, Any>((theta.read(gpu)?, method.state(&objective)?))
        };
        let (found, state) = run(Box::new(Muon::new(options.clone())?))?;
        let remembered = state.vector("muon_moments").map_or(0, <[_]>::len);
        if remembered != moments {
            return Err(format!("{hidden:?}: {remembered} moments").into());
        }
        // Where no matrix lies between others, all of it is Adam.
        if hidden.len() < 2 {
            let (expected, _) = run(Box::new(Adam::new(own.clone())?))?;
            near("parameters", &flat(&found), &flat(&expected), 1e-6)?;
        }
    }
    Ok(())
}

type Boxed = Box<dyn Optimizer<GraphObjective>>;

fn all() -> Result<Vec<Boxed>, Any> {
    Ok(vec![
        Box::new(Muon::new(MuonOptions::default())?),
        Box::new(Soap::new(SoapOptions::default().with_interval(2))?),
        Box::new(Shampoo::new(ShampooOptions::default().with_interval(2))?),
    ])
}

/// Operations beside the gradient in a step of [`network`]: in all steps, in that of the first factors, and in that of new ones.
fn operations(name: &str) -> [f64; 3] {
    let matrices = [[3.0, 6.0], [6.0, 4.0]];
    let sum = |of: &dyn Fn([f64; 2]) -> f64| matrices.map(of).iter().sum::<f64>();
    let cubes = sum(&|[m, n]: [f64; 2]| m.powi(3) + n.powi(3));
    match name {
        "muon" => {
            let of = |[m, n]: [f64; 2]| {
                let (short, long) = (f64::min(m, n), f64::max(m, n));
                5.0 * (4.0 * short * short * long + 2.0 * short.powi(3))
            };
            [sum(&of), 0.0, 0.0]
        }
        "soap" => {
            let products = sum(&|[m, n]: [f64; 2]| 8.0 * (m + n) * m * n);
            [products, 9.0 * cubes, 14.0 / 3.0 * cubes]
        }
        _ => {
            let products = sum(&|[m, n]: [f64; 2]| 4.0 * (m + n) * m * n);
            [products, 11.0 * cubes, 11.0 * cubes]
        }
    }
}

fn a_step_has_one_readback_and_its_work(gpu: &Gpu) -> Outcome {
    // A device of its own: other trials read from the shared one at the same time.
    let gpu = &harness::of_its_own(gpu)?;
    let model = network();
    let batch = batch_for(&model, 10, 1);
    for mut method in all()? {
        let mut objective = GraphObjective::new(gpu, model.clone())?;
        let theta = objective.initial_parameters(7)?;
        let loaded = objective.load(Slot::default(), &batch)?;
        let cost = objective
            .gradient(&theta, &loaded, GradientRequest::default())?
            .cost;
        let unit = cost.gradient as f64 / 10.0;
        for step in 0..5 {
            let report = method.step(&mut objective, &theta, &batch)?;
            let [always, first, later] = operations(method.name());
            let beside = match step {
                0 => always + first,
                2 | 4 => always + later,
                _ => always,
            };
            let expected = (cost.run as f64 + beside) / unit;
            near("work", &[report.work_flops], &[expected], 1e-12)?;
            if report.readbacks != 1 || report.work != 10.0 {
                return Err(format!("{} step {step}: {report:?}", method.name()).into());
            }
        }
    }
    Ok(())
}

/// Parameters and state.
fn memory(
    objective: &GraphObjective,
    method: &Boxed,
    theta: &Vector,
) -> Result<(Vec<u32>, osculant::optim::OptimizerState), Any> {
    let theta = bits(&theta.read(objective.gpu())?);
    Ok((theta, method.state(objective)?))
}

fn numbers_that_are_not_finite_change_nothing(gpu: &Gpu) -> Outcome {
    let model = network();
    for mut method in all()? {
        let mut objective = GraphObjective::new(gpu, model.clone())?;
        let theta = objective.initial_parameters(1)?;
        for step in 0..4 {
            let before = memory(&objective, &method, &theta)?;
            // A loss that overflows, and one that does not and has a gradient of squares that do.
            for huge in [3e38, 1e19] {
                let mut batch = batch_for(&model, 8, step);
                batch.targets = Targets::Values {
                    values: vec![huge; 32],
                    width: 4,
                };
                match method.step(&mut objective, &theta, &batch) {
                    Err(Error::NotFinite { .. }) => {}
                    other => return Err(format!("{} {huge}: {other:?}", method.name()).into()),
                }
                if memory(&objective, &method, &theta)? != before {
                    return Err(format!("{} {huge} changed something", method.name()).into());
                }
            }
            method.step(&mut objective, &theta, &batch_for(&model, 8, step))?;
        }
    }
    // A step beyond f32, of a gradient within.
    let mut objective = GraphObjective::new(gpu, model.clone())?;
    let theta = objective.initial_parameters(1)?;
    let before = bits(&theta.read(gpu)?);
    let mut muon = Muon::new(MuonOptions::default().with_learning_rate(3e38))?;
    match muon.step(&mut objective, &theta, &batch_for(&model, 8, 1)) {
        Err(error @ Error::NotFinite { .. }) if error.to_string().contains("the step") => {}
        other => return Err(format!("a step beyond f32: {other:?}").into()),
    }
    if bits(&theta.read(gpu)?) == before {
        Ok(())
    } else {
        Err("a step beyond f32 moved".into())
    }
}

fn options_out_of_range_are_refused(_: &Gpu) -> Outcome {
    let refused = |result: osculant::Result<()>, name: &str| match result {
        Err(Error::Option { option, .. }) if option == name => Ok(()),
        other => Err::<(), Any>(format!("{name}: {other:?}").into()),
    };
    let muon = MuonOptions::default;
    let bad = AdamOptions::default().with_beta1(1.0);
    for (options, name) in [
        (muon().with_learning_rate(0.0), "learning_rate"),
        (muon().with_momentum(1.0), "momentum"),
        (muon().with_weight_decay(100.0), "weight_decay"),
        (muon().with_adam(bad.clone()), "beta1"),
    ] {
        refused(Muon::new(options).map(drop), name)?;
    }
    let soap = SoapOptions::default;
    for (options, name) in [
        (soap().with_interval(0), "interval"),
        (soap().with_adam(bad.clone()), "beta1"),
    ] {
        refused(Soap::new(options).map(drop), name)?;
    }
    let shampoo = ShampooOptions::default;
    for (options, name) in [
        (shampoo().with_interval(0), "interval"),
        (shampoo().with_ridge(0.0), "ridge"),
        (shampoo().with_adam(bad), "beta1"),
    ] {
        refused(Shampoo::new(options).map(drop), name)?;
    }
    Ok(())
}

/// Three epochs over the digits, where Adam comes to a loss of about 0.2.
fn they_train(gpu: &Gpu) -> Outcome {
    let (train, _) = digits()?.split(0.2, 0)?;
    let model = Sequential::new()
        .dense(32)
        .activation(Activation::Tanh)
        .dense(10)
        .model(&train, Loss::SoftmaxCrossEntropy);
    let rate = |options: AdamOptions| options.with_learning_rate(0.01);
    let muon = MuonOptions::default();
    let (soap, shampoo) = (SoapOptions::default(), ShampooOptions::default());
    let methods: [Boxed; 3] = [
        Box::new(Muon::new(muon.with_learning_rate(0.05))?),
        Box::new(Soap::new(soap.clone().with_adam(rate(soap.adam)))?),
        Box::new(Shampoo::new(shampoo.clone().with_adam(rate(shampoo.adam)))?),
    ];
    for mut method in methods {
        let mut objective = GraphObjective::new(gpu, model.clone())?;
        let theta = objective.initial_parameters(0)?;
        let mut epochs = osculant::data::Epochs::new(train.len(), 32, 0)?;
        for _ in 0..3 * train.len().div_ceil(32) {
            let batch = train.batch(epochs.next_batch())?.pad_to(32)?;
            method.step(&mut objective, &theta, &batch)?;
        }
        let loss = objective.evaluate(&theta, &train)?.loss;
        if std::env::var_os("OSCULANT_TEST_FIGURES").is_some() {
            eprintln!("{}: {loss}", method.name());
        }
        if loss.is_nan() || loss > 0.2 {
            return Err(format!("{}: a loss of {loss}", method.name()).into());
        }
    }
    Ok(())
}
