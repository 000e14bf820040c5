//! Randomized eigenpairs of operators with known spectra, on every adapter.

use crate::harness::rotated::{Rotated, orthogonality};
use crate::harness::{GpuTest, Outcome};
use osculant::data::Batch;
use osculant::gpu::{Gpu, Work};
use osculant::linalg::{Basis, EigenOptions, Operator, RandomizedEigensolver, Sketch, Storage};
use osculant::nn::Model;
use osculant::objective::{Curvature, Curved, GraphObjective, QuadraticRequest, Slot};

/// Set to run at a million parameters, as `docs/results.md` reports: minutes, and 2 GB.
const LARGE: &str = "OSCULANT_TEST_LARGE";

pub(crate) fn tests() -> Vec<GpuTest> {
    let mut tests = gpu_tests![
        the_whole_space_is_an_exact_decomposition,
        the_last_eigenvectors_start_the_next_solve,
        same_seed_same_bits,
        sketches_are_the_hosts_numbers,
        an_operator_of_zeros_has_eigenvalues_zero,
    ];
    for spectrum in [
        Spectrum::Decaying,
        Spectrum::Clustered,
        Spectrum::Indefinite,
        Spectrum::RankDeficient,
        Spectrum::Steep,
    ] {
        tests.push(GpuTest::new(spectrum.name(), move |gpu| {
            known_spectrum(gpu, spectrum)
        }));
    }
    tests
}

#[derive(Clone, Copy, Debug)]
enum Spectrum {
    Decaying,
    Clustered,
    Indefinite,
    RankDeficient,
    Steep,
}

impl Spectrum {
    fn name(self) -> &'static str {
        match self {
            Spectrum::Decaying => "decaying spectrum",
            Spectrum::Clustered => "clustered spectrum",
            Spectrum::Indefinite => "indefinite spectrum",
            Spectrum::RankDeficient => "rank-deficient operator",
            Spectrum::Steep => "spectrum over six decades",
        }
    }

    /// Eigenvalue `i`, by falling magnitude.
    fn value(self, i: usize) -> f64 {
        let i = i as f64;
        match self {
            Spectrum::Decaying => 10.0 * 0.8f64.powf(i),
            // Groups of five that differ by 2 %.
            Spectrum::Clustered => {
                10.0 * 0.5f64.powf((i / 5.0).floor()) * (1.0 - 0.005 * (i % 5.0))
            }
            Spectrum::Indefinite => {
                10.0 * 0.8f64.powf(i)
                    * if (i as usize).is_multiple_of(2) {
                        1.0
                    } else {
                        -1.0
                    }
            }
            Spectrum::RankDeficient => {
                if i < 7.0 {
                    5.0 - 0.5 * i
                } else {
                    0.0
                }
            }
            Spectrum::Steep => 10.0 * 0.4f64.powf(i),
        }
    }
}

/// A solver for the Hessian of a model.
struct Solver {
    solver: RandomizedEigensolver,
    before: Work,
    _objective: GraphObjective,
}

fn solver(
    gpu: &Gpu,
    model: Model,
    options: &EigenOptions,
) -> Result<Solver, Box<dyn std::error::Error>> {
    solver_with(gpu, model, options, Storage::Full)
}

fn solver_with(
    gpu: &Gpu,
    model: Model,
    options: &EigenOptions,
    storage: Storage,
) -> Result<Solver, Box<dyn std::error::Error>> {
    let mut objective = GraphObjective::new(gpu, model)?;
    let theta = objective.initial_parameters(1)?;
    let request = QuadraticRequest {
        curvature: Curvature::Hessian,
        block: options.width(),
        ..QuadraticRequest::default()
    };
    let quadratic =
        objective.load_quadratic(Slot::default(), &theta, &Batch::without_data(), request)?;
    let block = quadratic.block.as_ref().ok_or("no block")?;
    let layout = quadratic.gradient.layout();
    let basis = Basis::new(gpu, layout, options.rank, storage)?;
    Ok(Solver {
        solver: RandomizedEigensolver::new(gpu, &Operator::from(block), &basis, options)?,
        before: quadratic.linearize.clone(),
        _objective: objective,
    })
}

fn vectors(gpu: &Gpu, basis: &Basis) -> Result<Vec<Vec<f32>>, Box<dyn std::error::Error>> {
    Ok(basis.read(gpu)?.iter().map(|v| v.concat()).collect())
}

fn known_spectrum(gpu: &Gpu, spectrum: Spectrum) -> Outcome {
    let large = std::env::var_os(LARGE).is_some();
    let (n, rank) = if large { (1_000_000, 64) } else { (20_011, 12) };
    let problem = Rotated::new(n, |i| spectrum.value(i), 200);
    let options = EigenOptions::default()
        .with_rank(rank)
        .with_oversampling(10)
        .with_power_iterations(2);
    let mut it = solver(gpu, problem.model(), &options)?;
    let found = it.solver.solve(&it.before, false)?;
    let basis = vectors(gpu, it.solver.basis())?;
    let off = orthogonality(&basis);
    // The leading half, down to what f32 products can tell from the largest.
    let noise = 1e-6 * spectrum.value(0).abs();
    let mut worst = 0.0f64;
    for i in 0..rank / 2 {
        let expected = spectrum.value(i);
        if expected != 0.0 && expected.abs() < noise {
            // Rounding errors of products with the largest have eigenvalues of this size, too.
            break;
        }
        let error = (found.values[i] - expected).abs();
        worst = worst.max(error / expected.abs().max(noise * 1e4));
        if error.is_nan() || error > 1e-4 * expected.abs() + noise {
            return Err(format!(
                "eigenvalue {i} is {}, not {expected}; {found:?}",
                found.values[i]
            )
            .into());
        }
    }
    if large {
        println!(
            "{}: P = {n}, r = {rank}: eigenvalues to {worst:.1e} relative, orthogonality {off:.1e}, {} passes",
            spectrum.name(),
            found.passes
        );
    }
    if off.is_nan() || off > 1e-5 {
        return Err(format!("orthogonality {off:.2e}").into());
    }
    // Eigenvectors of eigenvalues that stand apart.
    if matches!(
        spectrum,
        Spectrum::Decaying | Spectrum::Indefinite | Spectrum::Steep
    ) {
        for (i, vector) in basis.iter().enumerate().take(4) {
            let along = problem.along(vector, i).abs();
            if along.is_nan() || (along - 1.0).abs() > 1e-4 {
                return Err(format!("eigenvector {i} lies along its own by {along}").into());
            }
        }
    }
    Ok(())
}

fn the_whole_space_is_an_exact_decomposition(gpu: &Gpu) -> Outcome {
    let values = |i: usize| [3.0, -2.5, 2.0, 1.0, -0.5, 0.1, 0.0][i % 7] * (1.0 + (i / 7) as f64);
    let problem = Rotated::new(21, values, 21);
    let options = EigenOptions::default()
        .with_rank(21)
        .with_oversampling(0)
        .with_power_iterations(0)
        .with_sketch(Sketch::Gaussian);
    let mut it = solver(gpu, problem.model(), &options)?;
    let found = it.solver.solve(&it.before, false)?;
    let mut expected: Vec<f64> = (0..21).map(values).collect();
    expected.sort_by(|a, b| a.total_cmp(b));
    let mut ascending = found.values.clone();
    ascending.sort_by(|a, b| a.total_cmp(b));
    for (found, expected) in ascending.iter().zip(&expected) {
        if (found - expected).abs() > 2e-5 {
            return Err(format!("{ascending:?} instead of {expected:?}").into());
        }
    }
    Ok(())
}

fn the_last_eigenvectors_start_the_next_solve(gpu: &Gpu) -> Outcome {
    let problem = Rotated::new(3_001, |i| 0.9f64.powi(i as i32), 200);
    let options = EigenOptions::default()
        .with_rank(10)
        .with_oversampling(2)
        .with_power_iterations(0);
    let mut it = solver(gpu, problem.model(), &options)?;
    let error = |values: &[f64]| {
        let each = values
            .iter()
            .enumerate()
            .map(|(i, v)| (v - 0.9f64.powi(i as i32)).abs());
        each.fold(0.0, f64::max)
    };
    let first = error(&it.solver.solve(&it.before, false)?.values);
    let mut last = first;
    for _ in 0..5 {
        last = error(&it.solver.solve(&it.before, true)?.values);
    }
    if last.is_nan() || last > 0.2 * first {
        return Err(format!("error {first:.2e} at first, {last:.2e} after five more").into());
    }
    Ok(())
}

fn same_seed_same_bits(gpu: &Gpu) -> Outcome {
    let problem = Rotated::new(5_003, |i| 0.7f64.powi(i as i32), 60);
    let run = |seed| -> Result<_, Box<dyn std::error::Error>> {
        let options = EigenOptions::default().with_rank(5).with_seed(seed);
        let mut it = solver(gpu, problem.model(), &options)?;
        let found = it.solver.solve(&it.before, false)?;
        Ok((found, vectors(gpu, it.solver.basis())?))
    };
    let (one, two, other) = (run(1)?, run(1)?, run(2)?);
    assert_eq!(one, two);
    assert_ne!(one.1, other.1);
    Ok(())
}

/// With the identity as operator and no power iteration the basis spans the random block: its span is that of the host's numbers.
fn sketches_are_the_hosts_numbers(gpu: &Gpu) -> Outcome {
    let n = 300;
    let problem = Rotated::new(n, |_| 1.0, n);
    let options = EigenOptions::default()
        .with_rank(1)
        .with_oversampling(0)
        .with_power_iterations(0)
        .with_sketch(Sketch::Signs)
        .with_seed(9);
    let mut it = solver(gpu, problem.model(), &options)?;
    it.solver.solve(&it.before, false)?;
    let found = vectors(gpu, it.solver.basis())?.concat();
    let scale = (n as f64).sqrt().recip();
    let bits: Vec<u32> = (0..n.div_ceil(128) as u32)
        .flat_map(|block| osculant::random::philox4x32([block, 0, 0, 3 << 16], [9, 0]))
        .collect();
    let sign = |i: usize| {
        if bits[i / 32] >> (i % 32) & 1 == 1 {
            1.0
        } else {
            -1.0
        }
    };
    let turn = f64::from(found[0]).signum() * sign(0);
    for (i, &x) in found.iter().enumerate() {
        if (f64::from(x) * turn - scale * sign(i)).abs() > 1e-5 {
            return Err(format!("element {i} is {x}").into());
        }
    }
    Ok(())
}

fn an_operator_of_zeros_has_eigenvalues_zero(gpu: &Gpu) -> Outcome {
    let problem = Rotated::new(500, |_| 0.0, 500);
    let options = EigenOptions::default().with_rank(3);
    let mut it = solver(gpu, problem.model(), &options)?;
    let found = it.solver.solve(&it.before, false)?;
    assert_eq!(found.values, vec![0.0; 3]);
    Ok(())
}
