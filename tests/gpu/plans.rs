//! Programs that share a plan and buffers.

use crate::harness::{GpuTest, Outcome};
use crate::reference::batch_for;
use osculant::data::Batch;
use osculant::gpu::Gpu;
use osculant::graph::executable::DeviceLeaves;
use osculant::graph::plan::{Request, Wanted};
use osculant::graph::{Arena, Binary, Graph, Plan, Target};
use osculant::nn::{Activation, DataShape, Init, Loss, Model, Output, Sequential, TargetShape};
use osculant::objective::{
    Curvature, Curved, GradientRequest, GraphObjective, Objective, QuadraticRequest, Slot,
};
use osculant::vector::Vector;

pub(crate) fn tests() -> Vec<GpuTest> {
    gpu_tests![
        programs_that_share_buffers_do_not_disturb_each_other,
        other_settings_have_other_programs,
        products_that_depend_on_no_direction_stay_zero,
        rows_at_any_pitch_are_where_they_belong,
    ]
}

fn model() -> Model {
    let shape = DataShape {
        features: 5,
        targets: TargetShape::Classes(3),
    };
    Sequential::new()
        .dense(16)
        .activation(Activation::Tanh)
        .dense(16)
        .activation(Activation::Tanh)
        .dense(3)
        .model(shape, Loss::SoftmaxCrossEntropy)
}

/// Quadratics at two vectors and on two batches, and gradients of larger and smaller batches in between: each product is what an objective
/// gives that has no other program.
fn programs_that_share_buffers_do_not_disturb_each_other(gpu: &Gpu) -> Outcome {
    let model = model();
    let mut shared = GraphObjective::new(gpu, model.clone())?;
    let thetas: Vec<Vector> = (0..2)
        .map(|seed| shared.initial_parameters(seed))
        .collect::<Result<_, _>>()?;
    let request = QuadraticRequest {
        curvature: Curvature::Hessian,
        block: 3,
        losses: true,
        ..QuadraticRequest::default()
    };
    let direction = shared.initial_parameters(7)?.read(gpu)?;
    let products = |objective: &mut GraphObjective, places: &[(usize, usize)], between: bool| {
        let mut quadratics = Vec::new();
        for &(theta, rows) in places {
            let slot = Slot {
                number: theta,
                ..Slot::default()
            };
            let batch = batch_for(&model, rows, 5);
            let quadratic = objective.load_quadratic(slot, &thetas[theta], &batch, request)?;
            quadratic.direction.write(gpu, &direction)?;
            for row in quadratic.block.iter().flat_map(|b| b.directions.vectors()) {
                row.write(gpu, &direction)?;
            }
            if let Some(losses) = &quadratic.losses {
                losses.point.write(gpu, &direction)?;
            }
            gpu.run([&quadratic.linearize])?;
            quadratics.push(quadratic);
            for rows in [40, 3] {
                if between {
                    let batch = batch_for(&model, rows, 6);
                    let loaded = objective.load(Slot::new(slot.role, 9), &batch)?;
                    let request = GradientRequest { losses: false };
                    let gradient = objective.gradient(&thetas[0], &loaded, request)?;
                    gpu.run([&gradient.run])?;
                }
            }
        }
        let mut found = Vec::new();
        for quadratic in &quadratics {
            let mut work = vec![&quadratic.multiply];
            work.extend(quadratic.block.iter().map(|block| &block.multiply));
            work.extend(quadratic.losses.iter().map(|losses| &losses.at_point));
            gpu.run(work)?;
            let mut all = vec![&quadratic.value];
            all.extend([quadratic.gradient.slice(), quadratic.product.slice()]);
            all.extend(quadratic.block.iter().map(|block| block.products.slice()));
            all.extend(quadratic.losses.iter().map(|losses| &losses.results));
            found.push(gpu.read(&all)?);
        }
        Ok::<_, osculant::Error>(found)
    };
    let places = [(0, 24), (1, 24), (0, 12)];
    let together = products(&mut shared, &places, true)?;
    for (place, found) in places.iter().zip(&together) {
        let alone = products(&mut shared.sibling()?, &[*place], false)?;
        if alone[0] != *found || found.iter().flatten().any(|x| !x.is_finite()) {
            return Err(format!("{place:?}: {:?}, alone {:?}", found, alone[0]).into());
        }
    }
    Ok(())
}

/// What was made before a setting changed is not taken after it.
fn other_settings_have_other_programs(gpu: &Gpu) -> Outcome {
    let model = model();
    let batch = batch_for(&model, 6, 5);
    let mut objective = GraphObjective::new(gpu, model)?;
    let theta = objective.initial_parameters(0)?;
    let mut losses = Vec::new();
    for l2 in [0.0, 0.5] {
        objective = objective.with_l2(l2)?;
        let loaded = objective.load(Slot::default(), &batch)?;
        let gradient = objective.gradient(&theta, &loaded, GradientRequest::default())?;
        gpu.run([&gradient.run])?;
        losses.push(gpu.read(&[&gradient.value])?[0][0]);
    }
    let numbers = theta.read(gpu)?.concat();
    let square: f32 = numbers.iter().map(|x| x * x).sum();
    let off = losses[1] - losses[0] - 0.25 * square;
    if off.abs() > 1e-5 * losses[1] {
        return Err(format!("{losses:?}, |theta|^2 = {square}").into());
    }
    Ok(())
}

/// Parameters behind `stop_gradient` have products of zero, computed once; what runs between linearizing and multiplying does not get there.
fn products_that_depend_on_no_direction_stay_zero(gpu: &Gpu) -> Outcome {
    let shape = DataShape {
        features: 0,
        targets: TargetShape::Inputs,
    };
    for frozen in [1, 2] {
        let model = Model::new(shape, move |scope| {
            let x = scope.parameter("x", &[8], Init::Constant(0.5));
            let sum = (0..frozen).fold(x.tanh(), |sum, number| {
                let name = format!("frozen {number}");
                let y = scope.parameter(&name, &[8], Init::Constant(2.0));
                sum + y.stop_gradient()
            });
            Output {
                losses: sum.square().sum(&[0]).reshape(&[1]),
                outputs: sum,
                metric: None,
            }
        });
        let mut objective = GraphObjective::new(gpu, model)?;
        let theta = objective.initial_parameters(0)?;
        let batch = Batch::without_data();
        let request = QuadraticRequest {
            curvature: Curvature::Hessian,
            block: 3,
            ..QuadraticRequest::default()
        };
        let quadratic = objective.load_quadratic(Slot::default(), &theta, &batch, request)?;
        let block = quadratic.block.as_ref().ok_or("no block")?;
        let ones = vec![vec![1.0; 8]; 1 + frozen];
        block.directions.write(gpu, &vec![ones.clone(); 3])?;
        quadratic.direction.write(gpu, &ones)?;
        gpu.run([&quadratic.linearize])?;
        let slot = Slot {
            number: 1,
            ..Slot::default()
        };
        let plain = QuadraticRequest {
            block: 0,
            ..request
        };
        let other = objective.load_quadratic(slot, &theta, &batch, plain)?;
        gpu.run([
            &other.linearize,
            &other.multiply,
            &quadratic.multiply,
            &block.multiply,
        ])?;
        let single = quadratic.product.read(gpu)?;
        for row in block.products.vectors() {
            let found = row.read(gpu)?;
            let zero = found[1..].iter().flatten().all(|x| *x == 0.0);
            if !zero || found != single || found[0].contains(&0.0) {
                return Err(format!("{frozen} frozen: {found:?}, single {single:?}").into());
            }
        }
    }
    Ok(())
}

/// Rows of four elements, at pitches that are no multiple of four, too.
fn rows_at_any_pitch_are_where_they_belong(gpu: &Gpu) -> Outcome {
    let mut graph = Graph::new();
    let x = graph.parameter("x", &[3, 4])?;
    let doubled = graph.binary(Binary::Add, x, x)?;
    let values: Vec<f32> = (1..=12).map(|i| i as f32).collect();
    let slice = gpu.buffer("x", 12)?;
    gpu.upload(&slice, 0, &values)?;
    for pitch in [4, 5, 6, 8] {
        let request = Request {
            wanted: vec![Wanted {
                node: doubled,
                pitch: Some(pitch),
            }],
            ..Request::default()
        };
        let plan = Plan::new(&Target::of(gpu), graph.clone(), request)?;
        let result = gpu.buffer("result", 2 * pitch + 4)?;
        let leaves = DeviceLeaves {
            parameters: vec![slice.clone()],
            ..DeviceLeaves::default()
        };
        let results = [result.clone()];
        let program = plan.bind(gpu, &mut Arena::default(), &leaves, &results, &[])?;
        gpu.run([&program.linearize])?;
        let found = gpu.read(&[&result])?.remove(0);
        for (row, expected) in values.chunks(4).enumerate() {
            let doubled: Vec<f32> = expected.iter().map(|x| 2.0 * x).collect();
            if found[row * pitch..][..4] != doubled {
                return Err(format!("pitch {pitch}: {found:?}").into());
            }
        }
    }
    Ok(())
}
