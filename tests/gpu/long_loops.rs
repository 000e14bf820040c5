//! Sums of more terms than drivers let one invocation loop over (65,535 iterations of all loops together on llvmpipe), and how many digits
//! they keep.

use crate::harness::compare::{Input, OnDevice, Problem};
use crate::harness::{GpuTest, Outcome};
use osculant::data::{Batch, Targets};
use osculant::gpu::{Gpu, Recording};
use osculant::graph::{DType, Graph};
use osculant::kernels::tuning::{Capabilities, Family, Tuning};
use osculant::kernels::vector;
use osculant::nn::{DataShape, Loss, Sequential, TargetShape};
use osculant::objective::{Curvature, Curved, GraphObjective, QuadraticRequest, Slot};
use osculant::random::Philox;
use rand::RngExt;

pub(crate) fn tests() -> Vec<GpuTest> {
    gpu_tests![
        products_keep_their_digits,
        gradients_of_300_000_rows,
        reductions_of_long_axes,
        sums_of_20_million_terms,
        scatter_add_with_200_000_indices,
        inner_products_of_20_million_terms,
    ]
}

/// One variant of each family, with and without exchanged operands: those whose tiles take least to compile.
fn families(gpu: &Gpu) -> Vec<Family> {
    let mut found: Vec<Family> = Vec::new();
    let kind = |family: &Family| match *family {
        Family::Registers { blocks, .. } => ("registers", blocks, false),
        Family::Subgroup(tile) => ("subgroup", 0, tile.exchanged),
        Family::Split { shared, .. } => ("split", 0, shared),
        _ => ("shared", 0, false),
    };
    for family in Family::all(&Capabilities::of(gpu)) {
        if !found.iter().any(|other| kind(other) == kind(&family)) {
            found.push(family);
        }
    }
    found
}

/// Absolute values of numbers with mean 0 and variance 1: sums of twelve uniform ones.
fn positive(random: &mut Philox, count: usize) -> Vec<f32> {
    let number = |_| {
        let sum: f32 = (0..12).map(|_| random.random_range(0.0f32..1.0)).sum();
        (sum - 6.0).abs()
    };
    (0..count).map(number).collect()
}

/// Largest error of a product of positive matrices relative to the element, for every family: see `src/kernels/dot/levels.rs` for the
/// analysis.
fn products_keep_their_digits(gpu: &Gpu) -> Outcome {
    const BOUND: f64 = 1e-6;
    let mut random = Philox::new(5, 1);
    // 100,000 terms are eight equal parts; 70,001 are four and a rest, of a batch of two; 4,099 three levels in one kernel, 301 two.
    for [batch, m, n, k] in [
        [1, 8, 8, 100_000],
        [2, 5, 7, 70_001],
        [1, 8, 12, 4099],
        [2, 8, 4, 301],
    ] {
        for constant in [true, false] {
            let mut values = |count| {
                if constant {
                    vec![0.1f32; count]
                } else {
                    positive(&mut random, count)
                }
            };
            let (a, b) = (values(batch * k * m), values(batch * k * n));
            let mut graph = Graph::new();
            let lhs = graph.input("a", &[batch, k, m], DType::F32)?;
            let rhs = graph.input("b", &[batch, k, n], DType::F32)?;
            let node = graph.dot(lhs, rhs, true, false)?;
            let loss = graph.sum(node, &[0, 1, 2])?;
            let mut problem = Problem::of_graph(graph, loss, None)?;
            let mut expected = vec![0.0f64; batch * m * n];
            for (row, terms) in a.chunks_exact(m).enumerate() {
                let columns = &b[row * n..(row + 1) * n];
                for (i, &x) in terms.iter().enumerate() {
                    let at = (row / k * m + i) * n;
                    for (sum, &y) in expected[at..at + n].iter_mut().zip(columns) {
                        *sum += f64::from(x) * f64::from(y);
                    }
                }
            }
            problem.inputs = vec![Input::Floats(a), Input::Floats(b)];
            for family in families(gpu) {
                let gpu = gpu.with_tuning(Tuning::forced(family))?;
                let device = OnDevice::new(&gpu, &problem, &[node])?;
                let found = device.run(&gpu, &[], true)?.concat();
                let errors = found
                    .iter()
                    .zip(&expected)
                    .map(|(&found, expected)| (f64::from(found) / expected - 1.0).abs());
                let worst = errors.fold(0.0, |worst, e| if e <= worst { worst } else { e });
                println!("{family}, {batch}x{m}x{n}x{k}, constant {constant}: {worst:.1e}");
                if worst.is_nan() || worst > BOUND || found.len() != expected.len() {
                    return Err(format!(
                        "{family}, {batch}x{m}x{n}x{k}, constant {constant}: error {worst:.1e}"
                    )
                    .into());
                }
            }
        }
    }
    Ok(())
}

/// A dense network without activation on equal rows: every mean is that of one row, and the gradients are known.
fn gradients_of_300_000_rows(gpu: &Gpu) -> Outcome {
    const ROWS: usize = 300_000;
    let model = Sequential::new().dense(64).dense(4).model(
        DataShape {
            features: 4,
            targets: TargetShape::Values(4),
        },
        Loss::MeanSquaredError,
    );
    let batch = Batch {
        features: vec![1.0; 4 * ROWS],
        targets: Targets::Values {
            values: vec![0.0; 4 * ROWS],
            width: 4,
        },
        weights: vec![1.0 / ROWS as f32; ROWS],
    };
    let few = families(gpu).into_iter().map(Tuning::forced);
    for tuning in few.chain([Tuning::builtin()]) {
        let gpu = gpu.with_tuning(tuning.clone())?;
        let mut objective = GraphObjective::new(&gpu, model.clone())?;
        let theta = objective.initial_parameters(0)?;
        // Hidden units are 1, outputs 1, the loss 1.
        theta.write(
            &gpu,
            &[
                vec![0.25; 256],
                vec![0.0; 64],
                vec![1.0 / 64.0; 256],
                vec![0.0; 4],
            ],
        )?;
        let request = QuadraticRequest {
            curvature: Curvature::None,
            ..QuadraticRequest::default()
        };
        let quadratic = objective.load_quadratic(Slot::default(), &theta, &batch, request)?;
        gpu.run([&quadratic.linearize])?;
        let loss = gpu.read(&[&quadratic.value])?[0][0];
        let gradient = quadratic.gradient.read(&gpu)?;
        // Slopes of the outputs are 1/2 each; the weights 1 / 300,000 are off by 3e-8.
        let expected = [1.0 / 32.0, 1.0 / 32.0, 0.5, 0.5];
        let near = |found: f32, expected: f32| (found / expected - 1.0).abs() <= 1e-5;
        for (tensor, (found, expected)) in gradient.iter().zip(expected).enumerate() {
            if let Some(wrong) = found.iter().find(|&&g| !near(g, expected)) {
                return Err(
                    format!("{tuning:?}: gradient {tensor} has {wrong}, not {expected}").into(),
                );
            }
        }
        if !near(loss, 1.0) {
            return Err(format!("{tuning:?}: the loss is {loss}").into());
        }
    }
    Ok(())
}

/// Sums and maxima of positive numbers along either axis, against f64. Chains of additions are as long as in products: 1e-6.
fn reductions_of_long_axes(gpu: &Gpu) -> Outcome {
    const LONG: usize = 300_000;
    let mut random = Philox::new(6, 1);
    // Along the contiguous axis, along the other one with and without vec4s, and of few results.
    for (shape, axis) in [
        ([20, LONG], 1),
        ([LONG, 20], 0),
        ([LONG, 19], 0),
        ([3, LONG + 1], 1),
        // On GPUs, many results in parts of one invocation each.
        ([9000, 2052], 0),
    ] {
        let values = positive(&mut random, shape[0] * shape[1]);
        let kept = shape[1 - axis];
        let (mut sums, mut largest) = (vec![0.0f64; kept], vec![0.0f32; kept]);
        for (at, &value) in values.iter().enumerate() {
            let index = if axis == 1 {
                at / shape[1]
            } else {
                at % shape[1]
            };
            sums[index] += f64::from(value);
            largest[index] = largest[index].max(value);
        }
        let mut graph = Graph::new();
        let x = graph.input("x", &shape, DType::F32)?;
        let (sum, max) = (graph.sum(x, &[axis])?, graph.max(x, &[axis])?);
        let loss = graph.sum(x, &[0, 1])?;
        let mut problem = Problem::of_graph(graph, loss, None)?;
        problem.inputs = vec![Input::Floats(values)];
        let found = OnDevice::new(gpu, &problem, &[sum, max])?.run(gpu, &[], true)?;
        for (index, &found) in found[0].iter().enumerate() {
            let error = (f64::from(found) / sums[index] - 1.0).abs();
            if error.is_nan() || error > 1e-6 {
                return Err(
                    format!("sum {index} of {shape:?} along {axis}: error {error:.1e}").into(),
                );
            }
        }
        if found[1] != largest {
            return Err(format!("maxima of {shape:?} along {axis} differ").into());
        }
    }
    Ok(())
}

/// To one result, as a loss is: a vec4 of terms in every iteration, and one term.
fn sums_of_20_million_terms(gpu: &Gpu) -> Outcome {
    for terms in [20_000_000usize, 20_000_001] {
        let mut graph = Graph::new();
        let x = graph.input("x", &[terms], DType::F32)?;
        let loss = graph.sum(x, &[0])?;
        let mut problem = Problem::of_graph(graph, loss, None)?;
        problem.inputs = vec![Input::Floats(vec![0.1; terms])];
        let found = OnDevice::new(gpu, &problem, &[loss])?.run(gpu, &[], true)?[0][0];
        let error = (f64::from(found) / (f64::from(0.1f32) * terms as f64) - 1.0).abs();
        println!("{terms} terms: {error:.1e}");
        if error.is_nan() || error > 3e-6 {
            return Err(format!("{terms} terms: {found}, error {error:.1e}").into());
        }
    }
    Ok(())
}

/// Against f64; every third index is the same row, so that chains are long there.
fn scatter_add_with_200_000_indices(gpu: &Gpu) -> Outcome {
    const COUNT: usize = 200_000;
    let (rows, width) = (7, 3);
    let mut random = Philox::new(7, 1);
    let values = positive(&mut random, COUNT * width);
    let indices: Vec<u32> = (0..COUNT as u32)
        .map(|i| if i % 3 == 0 { 2 } else { i % 11 })
        .collect();
    let mut expected = vec![0.0f64; rows * width];
    for (terms, &index) in values.chunks_exact(width).zip(&indices) {
        // Indices beyond the table are left out.
        if (index as usize) < rows {
            for (column, &term) in terms.iter().enumerate() {
                expected[index as usize * width + column] += f64::from(term);
            }
        }
    }
    let mut graph = Graph::new();
    let x = graph.input("x", &[COUNT, width], DType::F32)?;
    let index = graph.input("index", &[COUNT], DType::U32)?;
    let added = graph.scatter_add(x, index, rows)?;
    let loss = graph.sum(added, &[0, 1])?;
    let mut problem = Problem::of_graph(graph, loss, None)?;
    problem.inputs = vec![Input::Floats(values), Input::Indices(indices)];
    let found = OnDevice::new(gpu, &problem, &[added])?
        .run(gpu, &[], true)?
        .concat();
    for (at, (&found, expected)) in found.iter().zip(&expected).enumerate() {
        let error = (f64::from(found) / expected - 1.0).abs();
        if error.is_nan() || error > 1e-6 {
            return Err(
                format!("element {at}: {found}, expected {expected}, error {error:.1e}").into(),
            );
        }
    }
    Ok(())
}

/// For 2e7 terms chains of 3 + 20 + 6 + 4 + 6 additions, so errors below 39 x 2^-24 = 2.3e-6; of 10^8 terms 6e-6, by the same analysis
/// (`shaders/inner_products.wgsl`).
fn inner_products_of_20_million_terms(gpu: &Gpu) -> Outcome {
    const COUNT: usize = 20_000_000;
    let x = gpu.buffer("x", COUNT)?;
    let y = gpu.buffer("y", COUNT)?;
    let result = gpu.buffer("inner products", 4)?;
    let partials = gpu.buffer("partial sums", vector::partial_elements(&x))?;
    let mut recording = Recording::new();
    vector::inner_products(gpu, &mut recording, (&result, 1), &partials, &x, &y)?;
    let mut random = Philox::new(8, 1);
    let few = positive(&mut random, 1 << 16);
    let many = |shift: usize| -> Vec<f32> {
        (0..COUNT)
            .map(|i| few[(i * 7 + shift + i / 65_536) % (1 << 16)])
            .collect()
    };
    for (a, b) in [
        (vec![0.1f32; COUNT], vec![0.1f32; COUNT]),
        (many(0), many(5)),
    ] {
        gpu.upload(&x, 0, &a)?;
        gpu.upload(&y, 0, &b)?;
        let found = gpu.submit_and_read(
            |recorder| {
                recorder.replay(&recording);
                Ok(())
            },
            &[&result],
        )?;
        let dot = |p: &[f32], q: &[f32]| -> f64 {
            p.iter()
                .zip(q)
                .map(|(&p, &q)| f64::from(p) * f64::from(q))
                .sum()
        };
        for (number, expected) in [dot(&a, &b), dot(&a, &a), dot(&b, &b)]
            .into_iter()
            .enumerate()
        {
            let error = (f64::from(found[0][1 + number]) / expected - 1.0).abs();
            println!("inner product {number}: {error:.1e}");
            if error.is_nan() || error > 2.3e-6 {
                return Err(format!("inner product {number}: error {error:.1e}").into());
            }
        }
    }
    Ok(())
}
