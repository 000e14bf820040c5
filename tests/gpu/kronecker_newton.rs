//! Products with functions of Kronecker factors, and Newton-CG that is preconditioned by them.

use nalgebra::{DMatrix, DVector};

use crate::harness::least_squares::{random_rows, values_of};
use crate::harness::{GpuTest, Outcome};
use crate::kfac::{classifier, near, wide};
use osculant::Error;
use osculant::data::{Batch, digits};
use osculant::gpu::Gpu;
use osculant::linalg::{CgOptions, KroneckerOperator};
use osculant::nn::{DataShape, Loss, Sequential, TargetShape};
use osculant::objective::{
    Accumulated, Curvature, Form, GraphObjective, KroneckerRequest, KroneckerStructure, Layered,
    Objective, Sizes,
};
use osculant::optim::{AdaptiveDamping, KroneckerNewtonCg, NewtonCg, NewtonCgOptions, Optimizer};
use osculant::random::Philox;
use osculant::vector::Vector;
use rand::RngExt;

pub(crate) fn tests() -> Vec<GpuTest> {
    gpu_tests![
        products_are_those_of_matrices,
        steps_are_the_formula,
        it_solves_the_same_system_sooner,
        what_has_no_factors_is_refused,
    ]
}

type Any = Box<dyn std::error::Error>;
type Tensors = Vec<Vec<f32>>;

fn draw(count: usize, seed: u64) -> Vec<f32> {
    let mut random = Philox::new(seed, 1 << 42);
    (0..count).map(|_| random.random_range(-1.0..1.0)).collect()
}

/// Random tensors of functions, and the symmetric matrices that they stand for.
fn functions(structure: &KroneckerStructure) -> (Tensors, Vec<DMatrix<f64>>) {
    let (mut tensors, mut matrices) = (Vec::new(), Vec::new());
    for (seed, side) in structure.sides().enumerate() {
        let n = side.size;
        let own: Tensors = side
            .function_shapes()
            .iter()
            .map(|shape| draw(shape.iter().product(), seed as u64))
            .collect();
        let matrix = |values: &[f32]| DMatrix::from_row_slice(n, values.len() / n, &wide(values));
        let (own, full) = match side.form {
            Form::Full => {
                let half = matrix(&own[0]);
                let full = (&half + half.transpose()) / 2.0;
                let rows = full.iter().map(|&x| x as f32).collect();
                (vec![rows], full)
            }
            Form::Diagonal => {
                let full = DMatrix::from_diagonal(&DVector::from_vec(wide(&own[0])));
                (own, full)
            }
            Form::Mean => {
                let full = DMatrix::identity(n, n) * f64::from(own[0][0]);
                (own, full)
            }
            Form::Sketch { .. } => {
                let (root, numbers) = (matrix(&own[0]), wide(&own[1]));
                let one = DMatrix::<f64>::identity(n, n);
                let full = one * numbers[0] + numbers[1] * &root * root.transpose();
                (own, full)
            }
        };
        tensors.extend(own);
        matrices.push(full);
    }
    (tensors, matrices)
}

/// `A V B` with the bias as the last row of `V`.
fn products_are_those_of_matrices(gpu: &Gpu) -> Outcome {
    let objective = GraphObjective::new(gpu, classifier())?;
    let mut means = Sizes::up_to(512, 64);
    means.mean_columns = true;
    for sizes in [
        Sizes::up_to(512, 64),
        Sizes::up_to(4, 0),
        Sizes::up_to(4, 2),
        means,
    ] {
        let request = KroneckerRequest {
            sizes,
            ..KroneckerRequest::default()
        };
        let structure = objective.structure(request)?;
        let (tensors, matrices) = functions(&structure);
        let mut map = KroneckerOperator::new(gpu, objective.layout(), &structure)?;
        map.tensors().write(gpu, &tensors)?;
        let operator = map.operator(gpu)?;
        let entries = objective.layout().entries().iter();
        let v: Tensors = entries.map(|e| draw(e.elements(), 50)).collect();
        operator.input.write(gpu, &v)?;
        gpu.run([&operator.multiply])?;
        let found = operator.output.read(gpu)?;
        for (layer, sides) in structure.layers.iter().zip(matrices.chunks(2)) {
            let bias = layer.bias.ok_or("a layer without its bias")?.parameter;
            let (rows, columns) = (sides[0].nrows(), sides[1].nrows());
            let own = wide(&[&v[layer.weight][..], &v[bias]].concat());
            let own = DMatrix::from_row_slice(rows, columns, &own);
            let expected = (&sides[0] * own * &sides[1]).transpose();
            let found = wide(&[&found[layer.weight][..], &found[bias]].concat());
            let what = format!("weight {} with {sizes:?}", layer.weight);
            near(&what, &found, expected.as_slice(), 1e-5)?;
        }
    }
    Ok(())
}

const FEATURES: usize = 3;

/// Damping that stays as it is.
fn fixed(damping: f64) -> AdaptiveDamping {
    let mut rule = AdaptiveDamping::default().with_initial(damping);
    rule.decrease = 1.0;
    rule
}

/// Linear least squares: the curvature is `2 sum_n w_n x_n x_n^T`, and that of the output is 2. One iteration of preconditioned conjugate
/// gradients, from zero and from a part of the last step: in f64.
fn steps_are_the_formula(gpu: &Gpu) -> Outcome {
    let (damping, warm) = (0.05, 0.7f32);
    let shape = DataShape {
        features: FEATURES,
        targets: TargetShape::Values(1),
    };
    let model = Sequential::new()
        .dense(1)
        .model(shape, Loss::MeanSquaredError);
    let mut objective = GraphObjective::new(gpu, model)?;
    let theta = objective.initial_parameters(3)?;
    let mut batch: Batch = random_rows(9, FEATURES, 1);
    let all: f32 = (0..9).map(|n| (1 + n % 3) as f32).sum();
    for (n, weight) in batch.weights.iter_mut().enumerate() {
        *weight = (1 + n % 3) as f32 / all;
    }
    let mut options = NewtonCgOptions::kronecker(1)
        .with_cg(CgOptions::default().with_max_iterations(1))
        .with_damping(fixed(damping))
        .with_warm_start(warm);
    options.backtracking = false;
    let mut newton = KroneckerNewtonCg::new(options)?;
    let n = FEATURES + 1;
    let mut second = DMatrix::<f64>::zeros(n, n);
    let mut rows = Vec::new();
    for (row, target) in wide(&values_of(&batch)).into_iter().enumerate() {
        let mut x = wide(&batch.features[row * FEATURES..(row + 1) * FEATURES]);
        x.push(1.0);
        let (x, weight) = (DVector::from_vec(x), f64::from(batch.weights[row]));
        second += weight * &x * x.transpose();
        rows.push((weight, x, target));
    }
    let one = DMatrix::<f64>::identity(n, n);
    // The means of the factors' eigenvalues share the damping.
    let (mean, output) = (second.trace() / n as f64, 2.0);
    let share = (damping / (mean * output)).sqrt();
    let inverse = (&second + &one * (share * mean)).try_inverse();
    let inverse = inverse.ok_or("a singular factor")? / (output + share * output);
    let damped = 2.0 * &second + one * damping;
    let mut last = DVector::zeros(n);
    for step in 0..3 {
        let before = DVector::from_vec(wide(&theta.read(gpu)?.concat()));
        let slope = |(weight, x, target): &(f64, DVector<f64>, f64)| {
            2.0 * *weight * (x.dot(&before) - target) * x
        };
        let gradient: DVector<f64> = rows.iter().map(slope).sum();
        let start = f64::from(warm) * &last;
        let residual = gradient + &damped * &start;
        let turned = &inverse * &residual;
        let length = residual.dot(&turned) / turned.dot(&(&damped * &turned));
        last = start - length * turned;
        let report = newton.step(&mut objective, &theta, &batch)?;
        if report.step_length != Some(1.0) || report.cg_iterations != Some(1) {
            return Err(format!("step {step}: {report:?}").into());
        }
        let after = wide(&theta.read(gpu)?.concat());
        let expected = before + &last;
        near(&format!("step {step}"), &after, expected.as_slice(), 2e-6)?;
    }
    Ok(())
}

/// With as many iterations as it takes the step is that of plain conjugate gradients; with four it is much nearer to that.
fn it_solves_the_same_system_sooner(gpu: &Gpu) -> Outcome {
    let data = digits()?;
    let model = Sequential::new()
        .dense(10)
        .model(&data, Loss::SoftmaxCrossEntropy);
    let batch = data.batch(&(0..256).collect::<Vec<_>>())?;
    let step = |options: NewtonCgOptions, most: usize| -> Result<Vec<f64>, Any> {
        let cg = CgOptions::default()
            .with_max_iterations(most)
            .with_progress_tolerance(0.0)
            .with_residual_tolerance(1e-4);
        let mut options = options.with_cg(cg).with_damping(fixed(0.003));
        options.backtracking = false;
        let mut objective = GraphObjective::new(gpu, model.clone())?;
        let theta = objective.initial_parameters(1)?;
        let before = wide(&theta.read(gpu)?.concat());
        NewtonCg::new(options)?.step(&mut objective, &theta, &batch)?;
        let after = wide(&theta.read(gpu)?.concat());
        Ok(after.iter().zip(before).map(|(a, b)| a - b).collect())
    };
    let (plain, preconditioned) = (NewtonCgOptions::default, || NewtonCgOptions::kronecker(1));
    let expected = step(plain(), 200)?;
    let found = step(preconditioned(), 200)?;
    near("the step", &found, &expected, 2e-3)?;
    let off = |found: &[f64]| -> f64 {
        let squares = found.iter().zip(&expected).map(|(a, b)| (a - b).powi(2));
        squares.sum::<f64>().sqrt()
    };
    let [far, close] = [off(&step(plain(), 4)?), off(&step(preconditioned(), 4)?)];
    // 15.5 and 0.48 where it was tried.
    if 8.0 * close < far {
        Ok(())
    } else {
        Err(format!("after four iterations off by {close} with, by {far} without").into())
    }
}

fn what_has_no_factors_is_refused(gpu: &Gpu) -> Outcome {
    let hessian = NewtonCgOptions::kronecker(1).with_curvature(Curvature::Hessian);
    let never = NewtonCgOptions::kronecker(0);
    for options in [hessian, never] {
        match NewtonCg::new(options) {
            Err(Error::Option { .. }) => {}
            other => return Err(format!("{:?}", other.err()).into()),
        }
    }
    // Sums over micro-batches have none.
    let data = digits()?;
    let model = Sequential::new()
        .dense(10)
        .model(&data, Loss::SoftmaxCrossEntropy);
    let mut objective = Accumulated::new(GraphObjective::new(gpu, model)?);
    let theta = Vector::new(gpu, "theta", objective.layout())?;
    let batch = data.micro_batches(&[0, 1, 2, 3], 2)?;
    let mut newton = KroneckerNewtonCg::new(NewtonCgOptions::kronecker(1))?;
    match newton.step(&mut objective, &theta, &batch) {
        Err(Error::Unsupported { what, message }) => {
            assert!(
                what.contains("Kronecker") && message.contains("preconditioner"),
                "{what}"
            );
            Ok(())
        }
        other => Err(format!("{other:?}").into()),
    }
}
