//! Other forms of K-FAC: what its factors are made of, factors of inputs alone, and parameters that have a diagonal instead.

use crate::harness::{GpuTest, Outcome};
use crate::kfac::{classifier, labelled, near, wide};
use nalgebra::DMatrix;
use osculant::gpu::Gpu;
use osculant::linalg::{FactorDamping, Function};
use osculant::nn::{Init, Loss, Model, Output};
use osculant::objective::{
    Estimate, Form, GraphObjective, KroneckerRequest, Layered, Objective, Quantity, Sizes, Slot,
    Statistics, StatisticsRequest,
};
use osculant::optim::{Approximation, Kfac, KfacOptions, Optimizer};
use osculant::vector::Vector;

pub(crate) fn tests() -> Vec<GpuTest> {
    gpu_tests![
        estimates_are_those_of_the_statistics,
        a_diagonal_is_the_square_of_its_sample,
        eigenvalues_add_up_to_the_trace_in_any_basis,
        all_forms_train,
    ]
}

const WHOLE: Sizes = Sizes::up_to(100, 0);

/// `tanh(x W + b) V + c` and a row of a table at a seventh feature's place, which is scaled by an element of `V`: neither table nor `V` has
/// Kronecker structure.
fn with_a_table() -> Model {
    let loss = Loss::SoftmaxCrossEntropy;
    Model::new(classifier().shape(), move |scope| {
        let h = scope
            .dense("first", scope.features(), 5, Init::Glorot)
            .tanh();
        let v = scope.parameter("v", &[5, 4], Init::Glorot);
        let table = scope.parameter("table", &[4, 4], Init::Glorot);
        let z = h.dot(v) + table.gather(scope.labels()) * v.slice(&[0, 0], &[1, 1]);
        Output {
            losses: loss.apply(scope, z),
            outputs: z,
            metric: None,
        }
    })
    .with_curvature_root(move |scope, z, signs| loss.curvature_root(scope, z, signs))
}

/// The two ways to the same factors, of which that of the statistics is compared with BackPACK.
fn estimates_are_those_of_the_statistics(gpu: &Gpu) -> Outcome {
    let mut objective = GraphObjective::new(gpu, classifier())?;
    let theta = objective.initial_parameters(1)?;
    let loaded = objective.load(Slot::default(), &labelled(12, 5))?;
    for (estimate, quantity) in [
        (Estimate::Exact, Quantity::KroneckerFactors),
        (Estimate::Empirical, Quantity::EmpiricalKroneckerFactors),
    ] {
        let statistics =
            objective.statistics(&theta, &loaded, StatisticsRequest::of(&[quantity]))?;
        gpu.run([&statistics.run])?;
        let expected = statistics.get(quantity).ok_or("no factors")?.read(gpu)?;
        let request = KroneckerRequest {
            sizes: WHOLE,
            estimate,
        };
        let inverses = Vector::new(gpu, "inverses", &objective.structure(request)?.functions)?;
        let program = objective.kronecker([&theta, &inverses], &loaded, request)?;
        gpu.run([&program.linearize, &program.refresh])?;
        let found = program.factors.read(gpu)?;
        for (found, expected) in found.iter().zip(&expected) {
            near(
                &format!("{estimate:?}"),
                &wide(found),
                &wide(expected),
                1e-5,
            )?;
        }
    }
    Ok(())
}

/// Signs that are all alike give the diagonal of `(sum_n sqrt(p_n) J_n^T S_n 1)^2`, and twice the signs four times of that.
fn a_diagonal_is_the_square_of_its_sample(gpu: &Gpu) -> Outcome {
    let mut objective = GraphObjective::new(gpu, with_a_table())?;
    let theta = objective.initial_parameters(1)?;
    let request = KroneckerRequest {
        sizes: WHOLE,
        ..KroneckerRequest::default()
    };
    let structure = objective.structure(request)?;
    let layout = objective.layout().clone();
    let names = structure
        .diagonals()
        .map(|at| layout.entries()[at].name.as_str());
    let names: Vec<&str> = names.collect();
    if names != ["v", "table"] {
        return Err(format!("{names:?} have diagonals").into());
    }
    let inverses = Vector::new(gpu, "inverses", &structure.functions)?;
    let loaded = objective.load(Slot::default(), &labelled(12, 5))?;
    let program = objective.kronecker([&theta, &inverses], &loaded, request)?;
    let mut found = Vec::new();
    for scale in [1.0, 2.0] {
        let signs = vec![scale; program.signs.layout().entries()[0].elements()];
        program.signs.write(gpu, &[vec![signs]])?;
        gpu.run([&program.linearize, &program.refresh])?;
        found.push(program.factors.read(gpu)?);
    }
    let sides = structure.sides().map(|side| side.form);
    for (at, form) in sides.enumerate() {
        let (once, twice) = (wide(&found[0][at]), wide(&found[1][at]));
        let [_, columns] = [0, 1].map(|axis| at % 2 == axis);
        if form == Form::Diagonal || columns {
            let expected: Vec<f64> = once.iter().map(|x| 4.0 * x).collect();
            near(&format!("factor {at}"), &twice, &expected, 1e-6)?;
        }
        if !once.iter().any(|&x| x > 0.0) {
            return Err(format!("factor {at} is zero").into());
        }
    }
    Ok(())
}

/// Measured in the basis of the factors' eigenvectors, and the step with them: `Q_A ((Q_A^T G Q_B) / values) Q_B^T`.
fn eigenvalues_add_up_to_the_trace_in_any_basis(gpu: &Gpu) -> Outcome {
    let mut objective = GraphObjective::new(gpu, classifier())?;
    let theta = objective.initial_parameters(1)?;
    let batch = labelled(12, 5);
    let loaded = objective.load(Slot::default(), &batch)?;
    let mut request = KroneckerRequest {
        sizes: WHOLE,
        estimate: Estimate::Exact,
    };
    request.sizes.corrected = true;
    let structure = objective.structure(request)?;
    let inverses = Vector::new(gpu, "inverses", &structure.functions)?;
    let program = objective.kronecker([&theta, &inverses], &loaded, request)?;
    let diagonal = Quantity::GaussNewtonDiagonal;
    let statistics = objective.statistics(&theta, &loaded, StatisticsRequest::of(&[diagonal]))?;
    gpu.run([&program.linearize, &program.refresh, &statistics.run])?;
    let first = program.factors.read(gpu)?;
    let damping = FactorDamping::Relative(1.0);
    let functions = structure.functions_of(&first, damping, &[Function::Inverse])?;
    inverses.write(gpu, &functions[0])?;
    gpu.run([&program.linearize, &program.refresh])?;
    let measured = program.factors.read(gpu)?;
    let diagonal = statistics
        .get(diagonal)
        .ok_or("no diagonal")?
        .read(gpu)?
        .concat();
    let total: f64 = batch.weights.iter().map(|&w| f64::from(w)).sum();
    let trace = wide(&diagonal).iter().sum::<f64>() / total;
    let sums: f64 = [2, 5]
        .map(|at: usize| wide(&measured[at]).iter().sum::<f64>())
        .iter()
        .sum();
    near("the trace", &[sums], &[trace], 1e-5)?;

    // Of the first layer, with its bias.
    let matrix = |tensor: &[f32], rows: usize| {
        DMatrix::from_row_slice(rows, tensor.len() / rows, &wide(tensor))
    };
    let gradient = program.gradient.read(gpu)?;
    let g = matrix(&gradient[..2].concat(), 7);
    let [a, b, values] = [
        matrix(&functions[0][0], 7),
        matrix(&functions[0][1], 5),
        matrix(&functions[0][2], 7),
    ];
    let expected = &a * (a.tr_mul(&g) * &b).component_mul(&values) * b.transpose();
    let found = program.direction.read(gpu)?[..2].concat();
    let expected = expected.transpose();
    near("the step", &wide(&found), expected.as_slice(), 1e-5)
}

/// Losses fall by each of them, also where parameters have no Kronecker structure.
fn all_forms_train(gpu: &Gpu) -> Outcome {
    for (number, (approximation, estimate)) in [
        (Approximation::Kfac, Estimate::Mixture),
        (Approximation::Kfac, Estimate::Exact),
        (Approximation::Kfac, Estimate::Empirical),
        (Approximation::Foof, Estimate::Mixture),
        (Approximation::Ekfac, Estimate::Mixture),
    ]
    .into_iter()
    .enumerate()
    {
        for model in [classifier(), with_a_table()] {
            let mut objective = GraphObjective::new(gpu, model)?;
            let theta = objective.initial_parameters(1)?;
            let mut options = KfacOptions::default()
                .with_approximation(approximation)
                .with_estimate(estimate);
            if approximation == Approximation::Ekfac {
                options = options.with_largest(1.0);
            }
            let mut kfac = Kfac::new(options)?;
            let mut losses = Vec::new();
            for step in 0..40 {
                let batch = labelled(16, step % 4);
                losses.push(kfac.step(&mut objective, &theta, &batch)?.loss_before);
            }
            let (first, last) = (losses[0], losses[39]);
            // Measured: a twentieth at most, but for gradients as cotangents.
            if last >= 0.5 * first || last.is_nan() {
                return Err(format!("form {number}: from {first} to {last}").into());
            }
        }
    }
    Ok(())
}
