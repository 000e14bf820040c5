//! Lanczos, the adaptive range finder, the Nystrom approximation and bases in half precision, on operators with known spectra.

use std::sync::Arc;

use crate::harness::rotated::{Rotated, orthogonality};
use crate::harness::{GpuTest, Outcome};
use osculant::data::Batch;
use osculant::gpu::Gpu;
use osculant::linalg::{
    Basis, EigenOptions, Lanczos, Nystrom, Operator, RandomizedEigensolver, RangeFinder,
    RangeOptions, Start, Storage,
};
use osculant::objective::{Curvature, Curved, GraphObjective, Quadratic, QuadraticRequest, Slot};
use osculant::vector::{Block, Vector};

pub(crate) fn tests() -> Vec<GpuTest> {
    gpu_tests![
        lanczos_finds_every_eigenvalue_of_a_small_matrix,
        lanczos_stops_where_the_krylov_space_ends,
        lanczos_finds_the_ends_of_a_large_spectrum,
        the_saddle_free_step_is_that_of_the_exact_matrix,
        a_range_finder_stops_at_the_rank,
        a_range_finder_keeps_its_tolerance,
        nystrom_is_exact_where_the_rank_suffices,
        nystrom_underestimates_a_decaying_spectrum_little,
        nystrom_refuses_an_indefinite_matrix,
        halves_are_rounded_and_nothing_else,
        eigenpairs_survive_in_half_precision,
        options_out_of_range_are_named,
    ]
}

type Any = Box<dyn std::error::Error>;

/// The Hessian of a rotated quadratic function.
struct Hessian {
    _objective: GraphObjective,
    theta: Vector,
    quadratic: Arc<Quadratic>,
}

fn hessian(gpu: &Gpu, problem: &Rotated, block: usize) -> Result<Hessian, Any> {
    let mut objective = GraphObjective::new(gpu, problem.model())?;
    let theta = objective.initial_parameters(1)?;
    let request = QuadraticRequest {
        curvature: Curvature::Hessian,
        block,
        ..QuadraticRequest::default()
    };
    let quadratic =
        objective.load_quadratic(Slot::default(), &theta, &Batch::without_data(), request)?;
    Ok(Hessian {
        _objective: objective,
        theta,
        quadratic,
    })
}

impl Hessian {
    fn lanczos(&self, gpu: &Gpu, steps: usize) -> Result<Lanczos, Any> {
        let operator = Operator::from(self.quadratic.as_ref());
        Ok(Lanczos::new(gpu, &operator, steps)?)
    }

    fn block(&self) -> Result<Operator<Block>, Any> {
        let block = self.quadratic.block.as_ref().ok_or("no block")?;
        Ok(Operator::from(block))
    }

    fn basis(&self, gpu: &Gpu, rank: usize, storage: Storage) -> Result<Basis, Any> {
        let layout = self.quadratic.gradient.layout();
        Ok(Basis::new(gpu, layout, rank, storage)?)
    }
}

fn rows(gpu: &Gpu, basis: &Basis) -> Result<Vec<Vec<f32>>, Any> {
    Ok(basis.read(gpu)?.iter().map(|v| v.concat()).collect())
}

fn close(found: f64, expected: f64, tolerance: f64, what: &str) -> Outcome {
    if (found - expected).abs() <= tolerance {
        Ok(())
    } else {
        Err(format!("{what}: {found}, not {expected}").into())
    }
}

const RANDOM: Start = Start::Random { seed: 7, number: 0 };

fn indefinite(i: usize) -> f64 {
    3.0 - 0.37 * i as f64
}

fn lanczos_finds_every_eigenvalue_of_a_small_matrix(gpu: &Gpu) -> Outcome {
    let problem = Rotated::new(21, indefinite, 21);
    let it = hessian(gpu, &problem, 0)?;
    let lanczos = it.lanczos(gpu, 21)?;
    let found = lanczos.run(&it.quadratic.linearize, RANDOM)?;
    let (values, _) = found.eigen();
    assert_eq!(values.len(), 21);
    for (i, &value) in values.iter().enumerate() {
        close(value, indefinite(i), 2e-5, "eigenvalue")?;
    }
    let total: f64 = found.quadrature().iter().map(|(_, weight)| weight).sum();
    close(total, 1.0, 1e-9, "sum of weights")
}

fn lanczos_stops_where_the_krylov_space_ends(gpu: &Gpu) -> Outcome {
    // Three different eigenvalues: the Krylov space has three dimensions, and rounding errors span no more.
    let problem = Rotated::new(500, |i| [4.0, -1.0, 0.5][i % 3], 500);
    let it = hessian(gpu, &problem, 0)?;
    let lanczos = it.lanczos(gpu, 12)?;
    let (values, _) = lanczos.run(&it.quadratic.linearize, RANDOM)?.eigen();
    assert_eq!(values.len(), 3, "{values:?}");
    for (value, expected) in values.iter().zip([4.0, 0.5, -1.0]) {
        close(*value, expected, 1e-5, "eigenvalue")?;
    }
    // Another run leaves nothing of the one before.
    let again = lanczos.run(&it.quadratic.linearize, RANDOM)?;
    assert_eq!(again.eigen().0, values);
    Ok(())
}

fn lanczos_finds_the_ends_of_a_large_spectrum(gpu: &Gpu) -> Outcome {
    let value = |i: usize| {
        if i == 5 {
            -6.0
        } else {
            10.0 * 0.8f64.powi(i as i32)
        }
    };
    let problem = Rotated::new(20_011, value, 200);
    let it = hessian(gpu, &problem, 0)?;
    let lanczos = it.lanczos(gpu, 60)?;
    let found = lanczos.run(&it.quadratic.linearize, RANDOM)?;
    let (values, vectors) = found.eigen();
    for (i, &found) in values.iter().enumerate().take(5) {
        close(found, value(i), 1e-4, "eigenvalue")?;
    }
    close(values[values.len() - 1], -6.0, 1e-4, "least eigenvalue")?;
    // A run too short for most: an eigenvalue lies within the residual of each Ritz value.
    let short = it.lanczos(gpu, 12)?.run(&it.quadratic.linearize, RANDOM)?;
    let residuals = short.residuals();
    assert!(residuals.iter().any(|r| *r > 0.1), "{residuals:?}");
    for (ritz, residual) in short.eigen().0.iter().zip(&residuals) {
        let gaps = (0..200).map(|i| (ritz - value(i)).abs());
        let nearest = gaps.fold(ritz.abs(), f64::min);
        assert!(nearest <= residual + 1e-4, "{ritz}: {nearest}, {residual}");
    }
    let out = Vector::new(gpu, "eigenvector", it.theta.layout())?;
    let coefficients: Vec<f64> = vectors.column(0).iter().copied().collect();
    lanczos.combine(&coefficients, &out)?;
    let along = problem.along(&out.read(gpu)?.concat(), 0).abs();
    close(along, 1.0, 1e-5, "eigenvector along its own")
}

fn the_saddle_free_step_is_that_of_the_exact_matrix(gpu: &Gpu) -> Outcome {
    let damping = 0.3;
    let problem = Rotated::new(30, indefinite, 30);
    let it = hessian(gpu, &problem, 0)?;
    let lanczos = it.lanczos(gpu, 30)?;
    let step = Vector::new(gpu, "step", it.theta.layout())?;
    let gradient = &it.quadratic.gradient;
    lanczos.saddle_free_step(&it.quadratic.linearize, gradient, damping, &step)?;
    let (g, d) = (gradient.read(gpu)?.concat(), step.read(gpu)?.concat());
    for i in 0..30 {
        let expected = -problem.along(&g, i) / (indefinite(i).abs() + damping);
        close(
            problem.along(&d, i),
            expected,
            1e-4,
            "step along an eigenvector",
        )?;
    }
    Ok(())
}

fn a_range_finder_stops_at_the_rank(gpu: &Gpu) -> Outcome {
    let value = |i: usize| if i < 7 { 5.0 - 1.5 * i as f64 } else { 0.0 };
    let problem = Rotated::new(3_001, value, 200);
    let it = hessian(gpu, &problem, 4)?;
    let basis = it.basis(gpu, 30, Storage::Full)?;
    let options = RangeOptions {
        tolerance: 1e-3,
        seed: 3,
    };
    let mut finder = RangeFinder::new(gpu, &it.block()?, &basis, &options)?;
    let found = finder.solve(&it.quadratic.linearize)?;
    // Two blocks of four hold the range, the third one tells so.
    assert_eq!(found.products, 5 * 4);
    let mut expected: Vec<f64> = (0..7).map(value).collect();
    expected.sort_by(|a, b| b.abs().total_cmp(&a.abs()));
    for (value, expected) in found.values.iter().zip(&expected) {
        close(*value, *expected, 1e-4, "eigenvalue")?;
    }
    let off = orthogonality(&rows(gpu, &basis)?[..7]);
    close(off, 0.0, 1e-5, "orthogonality")?;
    // A second run is independent of the first.
    let again = finder.solve(&it.quadratic.linearize)?;
    close(
        again.values[0],
        expected[0],
        1e-4,
        "eigenvalue of a second run",
    )
}

fn a_range_finder_keeps_its_tolerance(gpu: &Gpu) -> Outcome {
    let problem = Rotated::new(3_001, |i| 0.8f64.powi(i as i32), 200);
    let it = hessian(gpu, &problem, 5)?;
    let basis = it.basis(gpu, 60, Storage::Full)?;
    let mut products = Vec::new();
    for tolerance in [0.3, 0.03] {
        let options = RangeOptions { tolerance, seed: 3 };
        let mut finder = RangeFinder::new(gpu, &it.block()?, &basis, &options)?;
        let found = finder.solve(&it.quadratic.linearize)?;
        products.push(found.products);
        // What is left of the matrix, in the Frobenius norm that random vectors see.
        let all: f64 = (0..200).map(|i| 0.64f64.powi(i)).sum();
        let kept: f64 = found.values.iter().map(|v| v * v).sum();
        let rest = ((all - kept).max(0.0) / all).sqrt();
        if rest > tolerance || found.values.iter().filter(|v| **v != 0.0).count() > 40 {
            return Err(format!("tolerance {tolerance}: {rest} is left, {found:?}").into());
        }
    }
    assert!(products[0] < products[1], "{products:?}");
    Ok(())
}

fn nystrom_is_exact_where_the_rank_suffices(gpu: &Gpu) -> Outcome {
    let value = |i: usize| if i < 7 { 5.0 - 0.6 * i as f64 } else { 0.0 };
    let problem = Rotated::new(3_001, value, 200);
    let it = hessian(gpu, &problem, 12)?;
    let basis = it.basis(gpu, 12, Storage::Full)?;
    let found = Nystrom::new(gpu, &it.block()?, &basis, 5)?.solve(&it.quadratic.linearize)?;
    // As documented: to a thousandth of the Frobenius norm.
    let norm = (0..7).map(|i| value(i) * value(i)).sum::<f64>().sqrt();
    for i in 0..7 {
        close(found.values[i], value(i), 1e-3 * norm, "eigenvalue")?;
    }
    for value in &found.values[7..] {
        close(*value, 0.0, 1e-3 * norm, "eigenvalue beyond the rank")?;
    }
    let off = orthogonality(&rows(gpu, &basis)?[..7]);
    close(off, 0.0, 1e-3, "orthogonality")
}

fn nystrom_underestimates_a_decaying_spectrum_little(gpu: &Gpu) -> Outcome {
    let value = |i: usize| 0.7f64.powi(i as i32);
    let problem = Rotated::new(3_001, value, 200);
    let it = hessian(gpu, &problem, 20)?;
    let basis = it.basis(gpu, 20, Storage::Full)?;
    let found = Nystrom::new(gpu, &it.block()?, &basis, 5)?.solve(&it.quadratic.linearize)?;
    for i in 0..5 {
        let ratio = found.values[i] / value(i);
        if !(0.98..=1.002).contains(&ratio) {
            return Err(format!("eigenvalue {i} is {ratio} of its value").into());
        }
    }
    Ok(())
}

fn nystrom_refuses_an_indefinite_matrix(gpu: &Gpu) -> Outcome {
    let problem = Rotated::new(300, |i| if i % 2 == 0 { 3.0 } else { -3.0 }, 200);
    let it = hessian(gpu, &problem, 10)?;
    let basis = it.basis(gpu, 10, Storage::Full)?;
    match Nystrom::new(gpu, &it.block()?, &basis, 5)?.solve(&it.quadratic.linearize) {
        Err(error) if error.to_string().contains("GaussNewton") => Ok(()),
        other => Err(format!("{other:?}").into()),
    }
}

fn halves_are_rounded_and_nothing_else(gpu: &Gpu) -> Outcome {
    let it = hessian(gpu, &Rotated::new(1_003, indefinite, 10), 0)?;
    let basis = it.basis(gpu, 11, Storage::Half)?;
    let vectors: Vec<Vec<Vec<f32>>> = (0..11)
        .map(|k| {
            vec![
                (0..1_003)
                    .map(|i| ((i * 37 + k * 11) as f32).sin() / 30.0)
                    .collect(),
            ]
        })
        .collect();
    let borrowed: Vec<&[Vec<f32>]> = vectors.iter().map(Vec::as_slice).collect();
    basis.write(gpu, &borrowed)?;
    for (found, vector) in rows(gpu, &basis)?.iter().zip(&vectors) {
        for (&found, &x) in found.iter().zip(&vector[0]) {
            // Drivers may round to either side: between the neighbours.
            let half = half::f16::from_f32(32.0 * x);
            let ulp = f32::from(half).abs().max(1e-4) / 1024.0 / 32.0;
            if (found - x).abs() > ulp {
                return Err(format!("{found} for {x}").into());
            }
        }
    }
    Ok(())
}

fn eigenpairs_survive_in_half_precision(gpu: &Gpu) -> Outcome {
    let problem = Rotated::new(3_001, |i| 0.8f64.powi(i as i32), 200);
    let options = EigenOptions::default().with_rank(10);
    let it = hessian(gpu, &problem, options.width())?;
    let basis = it.basis(gpu, 10, Storage::Half)?;
    let mut solver = RandomizedEigensolver::new(gpu, &it.block()?, &basis, &options)?;
    for recall in [false, true] {
        let found = solver.solve(&it.quadratic.linearize, recall)?;
        for i in 0..5 {
            close(found.values[i], 0.8f64.powi(i as i32), 1e-4, "eigenvalue")?;
        }
    }
    let off = orthogonality(&rows(gpu, &basis)?);
    close(off, 0.0, 1e-3, "orthogonality")?;
    if off < 1e-6 {
        return Err("half floats cannot be that exact".into());
    }
    Ok(())
}

fn options_out_of_range_are_named(gpu: &Gpu) -> Outcome {
    let it = hessian(gpu, &Rotated::new(30, indefinite, 10), 4)?;
    assert!(it.lanczos(gpu, 0).is_err());
    let basis = it.basis(gpu, 8, Storage::Full)?;
    let options = RangeOptions {
        tolerance: 1.0,
        seed: 0,
    };
    assert!(RangeFinder::new(gpu, &it.block()?, &basis, &options).is_err());
    assert!(Nystrom::new(gpu, &it.block()?, &basis, 0).is_err());
    let lanczos = it.lanczos(gpu, 3)?;
    assert!(lanczos.combine(&[1.0; 4], &it.theta).is_err());
    Ok(())
}
