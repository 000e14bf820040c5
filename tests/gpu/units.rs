//! Eigensolvers, low-rank methods and their steps do not depend on the unit of the loss; conjugate gradients have their own test.

use std::sync::Arc;

use crate::harness::rotated::Rotated;
use crate::harness::{GpuTest, Outcome};
use osculant::data::{Batch, Targets};
use osculant::gpu::Gpu;
use osculant::graph::executable::DeviceLeaves;
use osculant::graph::{Binary, DType, Executable, Graph};
use osculant::linalg::{
    Basis, EigenOptions, Lanczos, Nystrom, Operator, RandomizedEigensolver, RangeFinder,
    RangeOptions, Start, Storage,
};
use osculant::nn::{DataShape, Init, Model, Output, TargetShape};
use osculant::objective::{Curvature, Curved, GraphObjective, Quadratic, QuadraticRequest, Slot};
use osculant::optim::{LowRankSaddleFreeNewton, LrsfnOptions, Optimizer};
use osculant::vector::Block;

pub(crate) fn tests() -> Vec<GpuTest> {
    gpu_tests![
        lanczos_in_any_unit,
        eigenpairs_in_any_unit,
        ranges_in_any_unit,
        nystrom_in_any_unit,
        low_rank_steps_in_any_unit,
    ]
}

type Any = Box<dyn std::error::Error>;

/// From 1e-14 to 1e13: powers of two, which scale every number exactly, and others.
fn units() -> Vec<(f64, bool)> {
    let exact = [-46, -20, 20, 43].map(|k| (f64::from(k).exp2(), true));
    let others = [1e-14, 3e-7, 7e5, 1e13].map(|c| (c, false));
    exact.into_iter().chain(others).collect()
}

const N: usize = 1_003;
const RANK: usize = 6;

fn decaying(i: usize) -> f64 {
    0.6f64.powi(i as i32)
}

/// What a solver finds in units of the loss: eigenvalues, and what belongs to them.
type Found = (Vec<f64>, Vec<Vec<f32>>);

/// `c` times a matrix, the signs of whose eigenvalues may alternate.
fn quadratic(gpu: &Gpu, c: f64, alternates: bool) -> Result<(GraphObjective, Arc<Quadratic>), Any> {
    let sign = |i: usize| if alternates && i % 2 == 1 { -1.0 } else { 1.0 };
    // The matrix in f32 first, so that a power of two changes nothing but exponents.
    let value = |i: usize| c * f64::from((sign(i) * decaying(i)) as f32);
    let mut objective = GraphObjective::new(gpu, Rotated::new(N, value, 60).model())?;
    let theta = objective.initial_parameters(1)?;
    let request = QuadraticRequest {
        curvature: Curvature::Hessian,
        block: RANK,
        ..QuadraticRequest::default()
    };
    let batch = Batch::without_data();
    let quadratic = objective.load_quadratic(Slot::default(), &theta, &batch, request)?;
    Ok((objective, quadratic))
}

/// Whether a driver keeps numbers below the smallest normal one. Where it makes zeros of them, squares of small elements in small units are
/// lost.
fn keeps_denormals(gpu: &Gpu) -> Result<bool, Any> {
    let mut graph = Graph::new();
    let x = graph.input("x", &[4], DType::F32)?;
    let square = graph.binary(Binary::Mul, x, x)?;
    let (from, to) = (gpu.buffer("x", 4)?, gpu.buffer("x^2", 4)?);
    gpu.upload(&from, 0, &[1e-20f32; 4])?;
    let leaves = DeviceLeaves {
        inputs: vec![from],
        ..DeviceLeaves::default()
    };
    let program = Executable::new(gpu, &graph, &leaves, &[(square, to.clone())])?;
    gpu.run([&program.linearize])?;
    Ok(gpu.read(&[&to])?[0][0] > 0.0)
}

/// Compares what is found for every unit with what is found for 1: the same bits where the unit is a power of two, and the first
/// eigenvalues to `tolerance` elsewhere.
fn compare(gpu: &Gpu, tolerance: f64, find: impl Fn(f64) -> Result<Found, Any>) -> Outcome {
    let (values, vectors) = find(1.0)?;
    let denormals = keeps_denormals(gpu)?;
    for (c, exact) in units() {
        let exact = exact && (c > 1e-10 || denormals);
        let (found, basis) = find(c)?;
        let found: Vec<f64> = found.iter().map(|value| value / c).collect();
        if exact && (found != values || basis != vectors) {
            return Err(format!("{c:e}: {found:?} beside {values:?}").into());
        }
        for (found, value) in found.iter().zip(&values).take(3) {
            let error = (found - value).abs() / values[0].abs();
            if error.is_nan() || error > tolerance {
                return Err(format!("{c:e}: {found} beside {value}, {error:.1e}").into());
            }
        }
    }
    Ok(())
}

fn block(quadratic: &Quadratic) -> Result<Operator<Block>, Any> {
    let block = quadratic.block.as_ref().ok_or("no block")?;
    Ok(Operator::from(block))
}

fn vectors(gpu: &Gpu, basis: &Basis) -> Result<Vec<Vec<f32>>, Any> {
    Ok(basis.read(gpu)?.iter().map(|v| v.concat()).collect())
}

fn lanczos_in_any_unit(gpu: &Gpu) -> Outcome {
    compare(gpu, 1e-5, |c| {
        let (_objective, quadratic) = quadratic(gpu, c, true)?;
        let lanczos = Lanczos::new(gpu, &Operator::from(quadratic.as_ref()), 12)?;
        let start = Start::Random { seed: 1, number: 0 };
        let (mut values, _) = lanczos.run(&quadratic.linearize, start)?.eigen();
        values.sort_by(|a, b| b.abs().total_cmp(&a.abs()));
        Ok((values, Vec::new()))
    })
}

fn eigenpairs_in_any_unit(gpu: &Gpu) -> Outcome {
    let options = EigenOptions::default()
        .with_rank(RANK - 2)
        .with_oversampling(2)
        .with_power_iterations(2);
    compare(gpu, 1e-5, |c| {
        let (_objective, quadratic) = quadratic(gpu, c, true)?;
        let layout = quadratic.gradient.layout();
        let basis = Basis::new(gpu, layout, options.rank, Storage::Full)?;
        let operator = block(&quadratic)?;
        let mut solver = RandomizedEigensolver::new(gpu, &operator, &basis, &options)?;
        let first = solver.solve(&quadratic.linearize, false)?.values;
        // And from the last ones.
        let again = solver.solve(&quadratic.linearize, true)?.values;
        Ok(([first, again].concat(), vectors(gpu, &basis)?))
    })
}

fn ranges_in_any_unit(gpu: &Gpu) -> Outcome {
    // The finder takes squares of what is left to be captured. In the least unit, 2^-46, those below 8e-6 of it are subnormal, which have
    // fewer digits also where they are kept; this tolerance stops before them.
    let options = RangeOptions {
        tolerance: 1e-2,
        seed: 3,
    };
    compare(gpu, 1e-5, |c| {
        let (_objective, quadratic) = quadratic(gpu, c, true)?;
        let basis = Basis::new(gpu, quadratic.gradient.layout(), 30, Storage::Full)?;
        let mut finder = RangeFinder::new(gpu, &block(&quadratic)?, &basis, &options)?;
        let values = finder.solve(&quadratic.linearize)?.values;
        Ok((values, vectors(gpu, &basis)?))
    })
}

fn nystrom_in_any_unit(gpu: &Gpu) -> Outcome {
    // As documented: to a thousandth of the Frobenius norm in any unit.
    compare(gpu, 1e-3, |c| {
        let (_objective, quadratic) = quadratic(gpu, c, false)?;
        let basis = Basis::new(gpu, quadratic.gradient.layout(), RANK, Storage::Full)?;
        let found = Nystrom::new(gpu, &block(&quadratic)?, &basis, 5)?;
        let values = { found }.solve(&quadratic.linearize)?.values;
        Ok((values, vectors(gpu, &basis)?))
    })
}

/// `sum_i w_i x_i^2 / 2` with the features as weights: losses in their unit.
fn weighted() -> Model {
    let shape = DataShape {
        features: 4,
        targets: TargetShape::Inputs,
    };
    Model::new(shape, |scope| {
        let x = scope.parameter("x", &[4], Init::Constant(1.0));
        let losses = (scope.features() * x.square().reshape(&[1, 4])).sum(&[1]) * 0.5;
        Output {
            losses: losses.reshape(&[scope.rows()]),
            outputs: x,
            metric: None,
        }
    })
}

/// With damping in the same unit, steps are the same.
fn low_rank_steps_in_any_unit(gpu: &Gpu) -> Outcome {
    let steps = |c: f64| -> Result<Vec<f32>, Any> {
        let rows = [[8.0f32, -4.0, 2.0, 0.5], [6.0, -3.0, 1.0, 0.25]];
        let batch = Batch {
            features: rows.concat().iter().map(|w| w * c as f32).collect(),
            targets: Targets::Inputs,
            weights: vec![0.5; 2],
        };
        let eigen = EigenOptions::default()
            .with_rank(2)
            .with_oversampling(2)
            .with_power_iterations(1);
        let options = LrsfnOptions::paper(2, 0.5, 2.0 * c).with_eigen(eigen);
        let mut objective = GraphObjective::new(gpu, weighted())?;
        let theta = objective.initial_parameters(0)?;
        let mut method = LowRankSaddleFreeNewton::new(options)?;
        for _ in 0..3 {
            method.step(&mut objective, &theta, &batch)?;
        }
        Ok(theta.read(gpu)?.concat())
    };
    let expected = steps(1.0)?;
    for (c, exact) in units() {
        let found = steps(c)?;
        let off = found
            .iter()
            .zip(&expected)
            .map(|(a, b)| (a - b).abs() / b.abs());
        let error = off.fold(0.0f32, f32::max);
        if (exact && found != expected) || error.is_nan() || error > 1e-5 {
            return Err(format!("{c:e}: {found:?} beside {expected:?}").into());
        }
    }
    Ok(())
}
