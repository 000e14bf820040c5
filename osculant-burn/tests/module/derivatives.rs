//! Gradient and products beside those of the graph of the same network.

use crate::Outcome;
use crate::fixture::{Subject, classifier, regression, shared};
use osculant::Result;
use osculant::gpu::Gpu;
use osculant::objective::{Curvature, Curved, GraphObjective, QuadraticRequest, Slot};
use osculant::vector::Vector;
use osculant_burn::ModuleObjective;

/// Of products by differences, with the Hessian and with the Gauss-Newton matrix: as of those of a caller's kernels, on both sides and on one.
const PRODUCTS: [f64; 2] = [1e-3, 3e-3];

/// Loss, gradient, and products along some directions.
type Derivatives = (f32, Vec<f32>, Vec<Vec<f32>>);

fn derivatives<O: Curved>(
    gpu: &Gpu,
    objective: &mut O,
    (theta, batch): (&Vector, &O::Batch),
    curvature: Curvature,
    directions: &[Vec<Vec<f32>>],
) -> Result<Derivatives> {
    let request = QuadraticRequest {
        curvature,
        ..QuadraticRequest::default()
    };
    let quadratic = objective.load_quadratic(Slot::default(), theta, batch, request)?;
    gpu.run([&quadratic.linearize])?;
    let gradient = quadratic.gradient.read(gpu)?;
    let mut products = Vec::new();
    for v in [&gradient].into_iter().chain(directions) {
        quadratic.direction.write(gpu, v)?;
        gpu.run([&quadratic.multiply])?;
        products.push(quadratic.product.read(gpu)?.concat());
    }
    let value = gpu.read(&[&quadratic.value])?[0][0];
    Ok((value, gradient.concat(), products))
}

/// Directions of three lengths, with numbers that follow no order.
fn directions(theta: &[Vec<f32>]) -> Vec<Vec<Vec<f32>>> {
    let mut state = 12_345u32;
    let mut number = move || {
        state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
        (state >> 8) as f32 / (1 << 23) as f32 - 1.0
    };
    let mut direction = |scale: f32| {
        let tensors = theta.iter();
        tensors
            .map(|t| t.iter().map(|_| scale * number()).collect())
            .collect()
    };
    [1.0, 1e-6, 1e6].map(&mut direction).into()
}

fn error(found: &[f32], expected: &[f32]) -> f64 {
    let square = |x: f64| x * x;
    let pairs = found.iter().zip(expected);
    let off: f64 = pairs.map(|(a, b)| square(f64::from(a - b))).sum();
    let all: f64 = expected.iter().map(|&b| square(f64::from(b))).sum();
    assert!(all > 0.0 && found.len() == expected.len());
    (off / all).sqrt()
}

fn compare(name: &str, found: &Derivatives, expected: &Derivatives, bound: f64) {
    assert!(
        (found.0 / expected.0 - 1.0).abs() < 1e-5,
        "{name}: loss {} {}",
        found.0,
        expected.0
    );
    let slope = error(&found.1, &expected.1);
    assert!(slope < 1e-5, "{name}: gradient {slope:e}");
    for (number, (found, expected)) in found.2.iter().zip(&expected.2).enumerate() {
        let error = error(found, expected);
        if std::env::var_os("OSCULANT_TEST_FIGURES").is_some() {
            eprintln!(
                "{name}, {} parameters, direction {number}: {error:.1e}",
                found.len()
            );
        }
        assert!(error < bound, "{name}, direction {number}: {error:e}");
    }
}

fn subjects() -> [(&'static str, Subject); 2] {
    [
        ("digits", classifier(&[64, 32, 10], 128)),
        ("sines", regression()),
    ]
}

#[test]
fn gradient_and_products_are_near_those_of_the_graph() -> Outcome {
    let gpu = shared().gpu();
    for (name, subject) in subjects() {
        let mut graph = GraphObjective::new(gpu, subject.model.clone())?;
        let theta = graph.initial_parameters(1)?;
        let start = theta.read(gpu)?;
        let along = directions(&start);
        let module = subject.module().with(&start);

        let hessian = Curvature::Hessian;
        let at = (&theta, &subject.batch);
        let expected = derivatives(gpu, &mut graph, at, hessian, &along)?;
        let mut objective = ModuleObjective::new(shared(), &module)?;
        let (module, found) = objective.at(module, subject.loss_of_module(), |own, theta| {
            derivatives(gpu, own, (theta, &()), hessian, &along)
        });
        compare(&format!("Hessian, {name}"), &found?, &expected, PRODUCTS[0]);

        let gauss_newton = Curvature::GaussNewton;
        let expected = derivatives(gpu, &mut graph, at, gauss_newton, &along)?;
        let shape = [subject.rows(), subject.widths[2]];
        let factor = 1.0 / subject.rows() as f32;
        let mut objective = objective.with_outputs(shape, subject.loss, factor)?;
        let (outputs, loss) = (subject.outputs(), subject.loss_of_outputs());
        let (module, found) = objective.at(module, outputs, loss, |own, theta| {
            derivatives(gpu, own, (theta, &()), gauss_newton, &along)
        });
        compare(
            &format!("Gauss-Newton, {name}"),
            &found?,
            &expected,
            PRODUCTS[1],
        );
        assert_eq!(crate::fixture::numbers(&module), start, "{name}");
    }
    Ok(())
}

/// What optimizers rely on: the same bits twice, symmetry, and slopes of the loss.
#[test]
fn the_check_of_objectives_passes() -> Outcome {
    let subject = classifier(&[64, 16, 10], 64);
    let mut objective = ModuleObjective::new(shared(), &subject.module())?;
    let (module, found) = objective.at(subject.module(), subject.loss_of_module(), |own, theta| {
        osculant::check(own, theta, &(), Curvature::Hessian)
    });
    let found = found?;
    assert!(found.passed(), "{found}");
    let mut objective = objective.with_outputs([64, 10], subject.loss, 1.0 / 64.0)?;
    let (outputs, loss) = (subject.outputs(), subject.loss_of_outputs());
    let (_, found) = objective.at(module, outputs, loss, |own, theta| {
        osculant::check(own, theta, &(), Curvature::GaussNewton)
    });
    let found = found?;
    assert!(found.passed(), "{found}");
    Ok(())
}
