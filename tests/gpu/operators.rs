//! Operators made of others, products that need the host, and what a probe catches.

use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};

use crate::harness::rotated::Rotated;
use crate::harness::{self, GpuTest, Outcome};
use crate::reference::{relative_error, solve_dense};
use osculant::Error;
use osculant::data::Batch;
use osculant::gpu::{Gpu, Recording, Work};
use osculant::linalg::{
    Basis, CgOptions, ConjugateGradients, EigenOptions, Lanczos, LowRank, Nystrom, Operator,
    Property, RandomizedEigensolver, RangeFinder, RangeOptions, Start, Storage,
};
use osculant::objective::{Curvature, Curved, GraphObjective, Quadratic, QuadraticRequest, Slot};
use osculant::vector::{Block, Layout, Vector};

pub(crate) fn tests() -> Vec<GpuTest> {
    gpu_tests![
        combinators_are_those_of_the_products,
        diagonals_and_low_ranks_are_operators,
        solvers_take_the_bytes_that_they_ask_for,
        hosted_products_change_no_bit,
        a_probe_names_what_is_missing,
    ]
}

type Any = Box<dyn std::error::Error>;

const N: usize = 37;

fn quadratic(gpu: &Gpu, block: usize) -> Result<(GraphObjective, Arc<Quadratic>), Any> {
    let problem = Rotated::new(N, |i| 3.0 / (1.0 + i as f64), N);
    let mut objective = GraphObjective::new(gpu, problem.model())?;
    let theta = objective.initial_parameters(1)?;
    let request = QuadraticRequest {
        curvature: Curvature::Hessian,
        block,
        ..QuadraticRequest::default()
    };
    let quadratic =
        objective.load_quadratic(Slot::default(), &theta, &Batch::without_data(), request)?;
    Ok((objective, quadratic))
}

/// The same product, computed by the host in a submission of its own.
fn hosted(product: &Work) -> Work {
    let product = product.clone();
    Work::hosted(move |gpu| gpu.run([&product]))
}

fn direction() -> Vec<f32> {
    (0..N).map(|i| (i as f32 * 0.7).sin()).collect()
}

fn apply(gpu: &Gpu, operator: &Operator) -> Result<Vec<f64>, Any> {
    operator.input.write(gpu, &[direction()])?;
    gpu.run([&operator.multiply])?;
    let found = operator.output.read(gpu)?.concat();
    Ok(found.into_iter().map(f64::from).collect())
}

fn combinators_are_those_of_the_products(gpu: &Gpu) -> Outcome {
    let (_objective, quadratic) = quadratic(gpu, 0)?;
    gpu.run([&quadratic.linearize])?;
    let c = Operator::from(quadratic.as_ref());
    let v: Vec<f64> = direction().into_iter().map(f64::from).collect();
    // The matrix, column by column.
    let mut columns = Vec::new();
    for i in 0..N {
        let mut unit = vec![0.0f32; N];
        unit[i] = 1.0;
        c.input.write(gpu, &[unit])?;
        gpu.run([&c.multiply])?;
        columns.push(c.output.read(gpu)?.concat());
    }
    let times = |x: &[f64]| -> Vec<f64> {
        let row = |j: usize| (0..N).map(|i| f64::from(columns[i][j]) * x[i]).sum();
        (0..N).map(row).collect()
    };
    let near = |what: &str, found: Vec<f64>, expected: Vec<f64>| -> Outcome {
        for (found, expected) in found.iter().zip(&expected) {
            // Sums of 37 products with a norm of 3, twice over: 2 * 37 * 6e-8 * 9 * |v|.
            if (found - expected).abs() > 2e-4 {
                return Err(format!("{what}: {found} instead of {expected}").into());
            }
        }
        Ok(())
    };
    let (cv, ccv) = (times(&v), times(&times(&v)));
    let (shifted, scalars) = c.shifted(gpu)?;
    scalars.set(gpu, &[0.5, -2.0])?;
    let expected = |a: f64, b: f64| (0..N).map(|i| a * cv[i] + b * v[i]).collect();
    near("shifted", apply(gpu, &shifted)?, expected(0.5, -2.0))?;
    for count in 1..=3 {
        // A shifted operator shares the input of what it shifts.
        let terms = [c.clone(), shifted.clone(), c.clone()];
        let (sum, weights) = Operator::sum(gpu, &terms[..count])?;
        let c = [2.0, 3.0, -0.25];
        weights.set(gpu, &c[..count])?;
        let (mut a, mut b) = (2.0, 0.0);
        if count > 1 {
            (a, b) = (a + 1.5, -6.0);
        }
        if count > 2 {
            a -= 0.25;
        }
        near("sum", apply(gpu, &sum)?, expected(a, b))?;
        assert!(weights.set(gpu, &[1.0; 4]).is_err());
    }
    let chain = Operator::chain(gpu, &[c.clone(), c.clone()])?;
    near("chain", apply(gpu, &chain)?, ccv)?;
    assert!(Operator::<osculant::vector::Vector>::chain(gpu, &[]).is_err());
    assert!(Operator::<osculant::vector::Vector>::sum(gpu, &[]).is_err());

    // The same algebra of blocks.
    let (_objective, quadratic) = self::quadratic(gpu, 3)?;
    gpu.run([&quadratic.linearize])?;
    let c = Operator::from(quadratic.block.as_ref().ok_or("no block")?);
    let (shifted, scalars) = c.shifted(gpu)?;
    scalars.set(gpu, &[0.5, -2.0])?;
    let (sum, weights) = Operator::sum(gpu, &[c.clone(), shifted.clone()])?;
    weights.set(gpu, &[2.0, 3.0])?;
    let chain = Operator::chain(gpu, &[c.clone(), c])?;
    let factors = [1.0, -2.0, 0.5];
    let rows = factors.map(|f| vec![direction().iter().map(|x| f * x).collect::<Vec<f32>>()]);
    let ccv = times(&times(&v));
    for (what, operator, expected) in [
        ("shifted block", shifted, expected(0.5, -2.0)),
        ("sum of blocks", sum, expected(3.5, -6.0)),
        ("chain of blocks", chain, ccv),
    ] {
        operator.input.write(gpu, &rows)?;
        gpu.run([&operator.multiply])?;
        for (row, factor) in operator.output.vectors().iter().zip(factors) {
            let found = row.read(gpu)?.concat();
            let scaled = expected.iter().map(|x| x * f64::from(factor)).collect();
            near(what, found.into_iter().map(f64::from).collect(), scaled)?;
        }
    }
    Ok(())
}

/// `(D + 3 u u^T + 1/2) x = -g` by conjugate gradients, beside elimination in f64.
fn diagonals_and_low_ranks_are_operators(gpu: &Gpu) -> Outcome {
    let layout = Arc::new(Layout::new(&[("x".to_owned(), vec![N])])?);
    let d: Vec<f32> = (0..N).map(|i| 1.0 + (i as f32 * 0.3).cos()).collect();
    let u: Vec<f32> = (0..N).map(|i| (i as f32 * 1.1).sin() / 4.3).collect();
    let g = direction();
    let diagonal = Vector::new(gpu, "diagonal", &layout)?;
    diagonal.write(gpu, std::slice::from_ref(&d))?;
    let basis = Basis::new(gpu, &layout, 1, Storage::Full)?;
    basis.write(gpu, &[std::slice::from_ref(&u)])?;
    let low_rank = LowRank::new(gpu, &basis)?;
    low_rank.set(gpu, 0.5, &[3.0])?;
    let terms = [Operator::diagonal(gpu, &diagonal)?, low_rank.operator(gpu)?];
    let (sum, weights) = Operator::sum(gpu, &terms)?;
    weights.set(gpu, &[1.0, 1.0])?;
    let gradient = Vector::new(gpu, "gradient", &layout)?;
    gradient.write(gpu, std::slice::from_ref(&g))?;
    let cg = CgOptions::default()
        .with_max_iterations(60)
        .with_residual_tolerance(1e-6)
        .with_progress_tolerance(0.0);
    let solver = ConjugateGradients::new(gpu, &sum, &gradient, None, &cg, &[])?;
    solver.solve(&Recording::new(), 0.0, None, false)?;
    let found = solver.solution.read(gpu)?.concat();
    let wide = |x: &[f32]| -> Vec<f64> { x.iter().map(|x| f64::from(*x)).collect() };
    let (d, u, g) = (wide(&d), wide(&u), wide(&g));
    let mut matrix = vec![0.0; N * N];
    for i in 0..N {
        for j in 0..N {
            matrix[i * N + j] = 3.0 * u[i] * u[j];
        }
        matrix[i * N + i] += d[i] + 0.5;
    }
    let right: Vec<f64> = g.iter().map(|g| -g).collect();
    let expected = solve_dense(&matrix, &right);
    let error = relative_error(&wide(&found), &expected);
    // A residual of 1e-6 of |g|, and a smallest eigenvalue of 1/2 beside a largest of 5.
    assert!(error < 1e-5, "{error:e}");
    Ok(())
}

fn solvers_take_the_bytes_that_they_ask_for(gpu: &Gpu) -> Outcome {
    // With a counter of its own.
    let gpu = &harness::of_its_own(gpu)?;
    let layout = Arc::new(Layout::new(&[("x".to_owned(), vec![70_000])])?);
    let elements = layout.len();
    let vector = |label: &str| Vector::new(gpu, label, &layout);
    let block = |width: usize| Block::new(gpu, "block", &layout, width);
    let one = Operator {
        input: vector("v")?,
        output: vector("Cv")?,
        multiply: Work::new(),
    };
    let several = |width: usize| -> Result<Operator<Block>, Any> {
        Ok(Operator {
            input: block(width)?,
            output: block(width)?,
            multiply: Work::new(),
        })
    };
    let (gradient, few, wide) = (vector("g")?, several(3)?, several(4)?);
    let check = |what: &str, asked: u64, before: u64| {
        let taken = gpu.allocated() - before;
        // Less than a MiB for scalars and partial sums.
        assert!(
            asked <= taken && taken < asked + (1 << 20),
            "{what}: {taken} bytes, asked for {asked}"
        );
    };
    let before = gpu.allocated();
    let _cg = ConjugateGradients::new(gpu, &one, &gradient, None, &CgOptions::default(), &[1, 5])?;
    check(
        "conjugate gradients",
        ConjugateGradients::bytes(elements, 2, false),
        before,
    );
    let before = gpu.allocated();
    let _lanczos = Lanczos::new(gpu, &one, 6)?;
    check("Lanczos", Lanczos::bytes(elements, 6), before);
    for storage in [Storage::Full, Storage::Half] {
        let before = gpu.allocated();
        let _basis = Basis::new(gpu, &layout, 11, storage)?;
        check("basis", Basis::bytes(elements, 11, storage), before);
    }
    let basis = Basis::new(gpu, &layout, 3, Storage::Full)?;
    let before = gpu.allocated();
    let _nystrom = Nystrom::new(gpu, &few, &basis, 1)?;
    check("Nystrom", Nystrom::bytes(elements, 3), before);
    let basis = Basis::new(gpu, &layout, 10, Storage::Full)?;
    let before = gpu.allocated();
    let _range = RangeFinder::new(
        gpu,
        &wide,
        &basis,
        &RangeOptions {
            tolerance: 1e-3,
            seed: 3,
        },
    )?;
    check("range finder", RangeFinder::bytes(elements, 10, 4), before);
    Ok(())
}

fn hosted_products_change_no_bit(gpu: &Gpu) -> Outcome {
    let (rank, width) = (5, 5);
    let (_objective, quadratic) = quadratic(gpu, width)?;
    let before = &quadratic.linearize;
    let block = Operator::from(quadratic.block.as_ref().ok_or("no block")?);
    let operator = Operator::from(quadratic.as_ref());
    let mut results = Vec::new();
    for host in [false, true] {
        let (mut operator, mut block) = (operator.clone(), block.clone());
        if host {
            operator.multiply = hosted(&operator.multiply);
            block.multiply = hosted(&block.multiply);
        }
        let options = CgOptions::default()
            .with_max_iterations(30)
            .with_progress_tolerance(0.0);
        let cg = ConjugateGradients::new(
            gpu,
            &operator,
            &quadratic.gradient,
            None,
            &options,
            &[3, 12],
        )?;
        let mut found = Vec::new();
        for warm in [false, true] {
            let report = cg.solve(before, 0.1, None, warm)?;
            found.push(format!("{report:?} {:?}", cg.solution.read(gpu)?));
            for (at, kept) in cg.kept(&report) {
                found.push(format!("{at} {:?}", kept.read(gpu)?));
            }
        }
        let start = Start::Random { seed: 7, number: 0 };
        found.push(format!(
            "{:?}",
            Lanczos::new(gpu, &operator, 12)?.run(before, start)?
        ));
        let layout = quadratic.gradient.layout();
        let basis = Basis::new(gpu, layout, rank, Storage::Full)?;
        for power_iterations in [0, 2] {
            let options = EigenOptions::default()
                .with_rank(rank)
                .with_oversampling(0)
                .with_power_iterations(power_iterations);
            let mut solver = RandomizedEigensolver::new(gpu, &block, &basis, &options)?;
            for recall in [false, true] {
                let values = solver.solve(before, recall)?;
                found.push(format!("{values:?} {:?}", basis.read(gpu)?));
            }
        }
        let values = Nystrom::new(gpu, &block, &basis, 3)?.solve(before)?;
        found.push(format!("{values:?} {:?}", basis.read(gpu)?));
        let range = RangeOptions {
            tolerance: 0.01,
            seed: 5,
        };
        let values = RangeFinder::new(gpu, &block, &basis, &range)?.solve(before)?;
        found.push(format!("{values:?} {:?}", basis.read(gpu)?));
        results.push(found);
    }
    assert_eq!(results[0], results[1]);
    Ok(())
}

fn a_probe_names_what_is_missing(gpu: &Gpu) -> Outcome {
    let (_objective, quadratic) = quadratic(gpu, 0)?;
    let before = &quadratic.linearize;
    let c = Operator::from(quadratic.as_ref());
    c.probe(gpu, before)?;
    let missing = |change: fn(&mut [f32], u32)| -> Result<Option<Property>, Any> {
        let (count, inner) = (AtomicU32::new(0), c.clone());
        let broken = Operator {
            multiply: Work::hosted(move |gpu| {
                gpu.run([&inner.multiply])?;
                let mut product = inner.output.read(gpu)?;
                change(&mut product[0], count.fetch_add(1, Ordering::Relaxed));
                inner.output.write(gpu, &product)
            }),
            ..c.clone()
        };
        match broken.probe(gpu, &Recording::new()) {
            Ok(()) => Ok(None),
            Err(Error::Operator { property, .. }) => Ok(Some(property)),
            Err(other) => Err(other.into()),
        }
    };
    assert_eq!(missing(|_, _| ())?, None);
    let random = missing(|product, count| product[3] += 1e-3 * count as f32)?;
    assert_eq!(random, Some(Property::Repeatable));
    let constant = missing(|product, _| product[0] += 1.0)?;
    assert_eq!(constant, Some(Property::Linear));
    let turned = missing(|product, _| product.rotate_left(1))?;
    assert_eq!(turned, Some(Property::Symmetric));
    Ok(())
}
