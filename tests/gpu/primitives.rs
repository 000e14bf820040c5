//! Every primitive on every adapter: value, gradient, Hessian product and, where outputs are named,
//! Gauss-Newton product, against the f64 twin.

use crate::harness::cases;
use crate::harness::compare::{Input, OnDevice, Problem, widen};
use crate::harness::{GpuTest, Outcome};
use osculant::gpu::Gpu;
use osculant::graph::{Binary, DType, Graph, NodeId, Tensor, Unary};
use osculant::kernels::tuning::Tuning;

pub(crate) fn tests() -> Vec<GpuTest> {
    let mut tests = gpu_tests![
        functions_are_accurate_at_every_point,
        views_are_exact,
        indices_out_of_range_give_zero,
        grids_of_more_than_one_row,
    ];
    tests.extend(cases::ALL.iter().map(|case| {
        GpuTest::new(case.name, |gpu| {
            (case.problem)()?.check(gpu, cases::TOLERANCE)
        })
    }));
    tests
}

/// Errors element by element, far out and near zero, where a norm would hide them.
fn functions_are_accurate_at_every_point(gpu: &Gpu) -> Outcome {
    let points: Vec<f32> = (-400..=400)
        .map(|i| (i as f32 * 0.02).powi(3) * 0.05)
        .collect();
    let mut graph = Graph::new();
    let x = graph.input("x", &[points.len()], DType::F32)?;
    let loss = graph.sum(x, &[0])?;
    let mut values = Vec::new();
    for f in Unary::ALL {
        values.push(graph.unary(f, x)?);
    }
    let mut problem = Problem::of_graph(graph, loss, None)?;
    problem.inputs = vec![Input::Floats(points.clone())];
    let found = OnDevice::new(gpu, &problem, &values)?.run(gpu, &[], true)?;
    for (f, found) in Unary::ALL.iter().zip(&found) {
        // Relative to the value, and where a driver's error is absolute to at least the second number.
        let (tolerance, floor) = match f {
            Unary::Neg | Unary::Relu | Unary::Step => (0.0, 0.0),
            Unary::Log => (5e-6, 1.0),
            // Vulkan allows 2^-11 between -pi and pi, and says nothing of the rest.
            Unary::Sin | Unary::Cos => (5e-4, 1.0),
            _ => (5e-6, 0.0),
        };
        for (&x, &found) in points.iter().zip(found) {
            let expected = f.apply(f64::from(x));
            // WGSL leaves open what comes out where f32 has no value.
            if !expected.is_finite() || x < 0.0 && matches!(f, Unary::Log | Unary::Sqrt) {
                continue;
            }
            let error = (f64::from(found) - expected).abs();
            if error.is_nan() || error > tolerance * expected.abs().max(floor) {
                return Err(format!("{f:?} of {x:e} is {found:e}, expected {expected:e}").into());
            }
        }
    }
    Ok(())
}

/// Moving numbers about changes none of them; each view here has a kernel of its own.
fn views_are_exact(gpu: &Gpu) -> Outcome {
    let mut views: Vec<NodeId> = Vec::new();
    let problem = Problem::new(|b| {
        let x = b.parameter("x", &[4, 6, 8]);
        let y = b.parameter("y", &[3, 5]);
        let all = [
            x.permute(&[2, 0, 1]),
            x.permute(&[1, 0, 2]).reshape(&[6, 32]),
            x.permute(&[0, 2, 1])
                .slice(&[1, 2, 3], &[2, 4, 3])
                .permute(&[2, 1, 0]),
            x.slice(&[1, 2, 4], &[3, 4, 4]),
            x.slice(&[1, 2, 4], &[3, 4, 4])
                .reshape(&[12, 4])
                .permute(&[1, 0]),
            x.pad(&[0, 1, 4], &[4, 8, 16]),
            x.pad(&[1, 1, 1], &[6, 8, 11]).slice(&[0, 0, 0], &[5, 4, 9]),
            y.broadcast(&[2, 3, 5]).permute(&[1, 2, 0]),
            y.slice(&[0, 1], &[3, 1]).broadcast(&[3, 4]),
            y.slice(&[1, 0], &[1, 5])
                .broadcast(&[4, 5])
                .reshape(&[5, 4]),
            y.concat(&[y.slice(&[1, 0], &[2, 5]), y], 0),
            y.pad(&[2, 0], &[6, 5]).slice(&[0, 1], &[1, 3]),
            y.slice(&[1, 2], &[1, 1])
                .pad(&[3, 0], &[5, 2])
                .slice(&[2, 0], &[2, 1]),
            y.reshape(&[15])
                .pad(&[1], &[16])
                .reshape(&[4, 4])
                .permute(&[1, 0]),
            x.max_over(&[0, 2]),
            x.max_over(&[1]),
        ];
        views = all.map(Tensor::id).to_vec();
        (cases::score(b, x) + cases::score(b, y), None)
    })?;
    let direction = problem.direction(1);
    let found = OnDevice::new(gpu, &problem, &views)?.run(gpu, &direction, true)?;
    let found = widen(&found);
    let expected = problem.evaluate(&direction, &views)?;
    for ((&view, found), expected) in views.iter().zip(&found).zip(&expected) {
        if found != expected {
            let what = problem.graph.describe(view);
            return Err(
                format!("{what} is not exact\n  device {found:?}\n  twin   {expected:?}").into(),
            );
        }
    }
    Ok(())
}

/// An index beyond the table reads zeros, adds nothing, and is no class; nothing outside the buffers is touched.
fn indices_out_of_range_give_zero(gpu: &Gpu) -> Outcome {
    let mut graph = Graph::new();
    let table = graph.parameter("table", &[3, 4])?;
    let indices = graph.input("indices", &[4], DType::U32)?;
    let rows = graph.gather(table, indices)?;
    let added = graph.scatter_add(rows, indices, 2)?;
    let hot = graph.one_hot(indices, 3)?;
    let loss = graph.sum(added, &[0, 1])?;
    let mut problem = Problem::of_graph(graph, loss, None)?;
    problem.inputs = vec![Input::Indices(vec![2, 3, u32::MAX, 0])];
    let wanted = [rows, added, hot];
    let direction = problem.direction(1);
    let found = OnDevice::new(gpu, &problem, &wanted)?.run(gpu, &direction, true)?;
    let t = &problem.parameters[0];
    let expected = [
        [&t[8..12], &[0.0; 8], &t[0..4]].concat(),
        [&t[0..4], &[0.0; 4]].concat(),
        vec![0.0, 0.0, 1.0, 0.0, 0.0, 0.0, 0.0, 0.0, 0.0, 1.0, 0.0, 0.0],
    ];
    if found == expected {
        Ok(())
    } else {
        Err(format!("found {found:?}, expected {expected:?}").into())
    }
}

/// 65 626 workgroups of 64, more than one dimension of a grid holds, in each family of kernels; the value of each is twice its operand.
fn grids_of_more_than_one_row(gpu: &Gpu) -> Outcome {
    const COUNT: usize = 4_200_001;
    // Millions of products of 1 x 1 matrices would take minutes with a kernel for large tiles, should one be forced.
    let gpu = &gpu.with_tuning(Tuning::builtin())?;
    let mut graph = Graph::new();
    let x = graph.input("x", &[COUNT, 1, 1], DType::F32)?;
    let indices = graph.input("indices", &[COUNT], DType::U32)?;
    let pointwise = graph.binary(Binary::Add, x, x)?;
    let repeated = graph.broadcast(x, &[COUNT, 2, 1])?;
    let sum = graph.sum(repeated, &[1])?;
    let two = graph.data_tensor(vec![2.0], &[1, 1, 1])?;
    let two = graph.broadcast(two, &[COUNT, 1, 1])?;
    let dot = graph.dot(x, two, false, false)?;
    let table = graph.reshape(pointwise, &[COUNT, 1])?;
    let gather = graph.gather(table, indices)?;
    let loss = graph.sum(x, &[0])?;
    let mut problem = Problem::of_graph(graph, loss, None)?;
    let values: Vec<f32> = (0..COUNT).map(|i| i as f32).collect();
    problem.inputs = vec![
        Input::Floats(values),
        Input::Indices((0..COUNT as u32).collect()),
    ];
    let found =
        OnDevice::new(gpu, &problem, &[pointwise, sum, dot, gather])?.run(gpu, &[], true)?;
    for (values, family) in found.iter().zip(["pointwise", "sum", "dot", "gather"]) {
        if let Some(i) = (0..COUNT).find(|&i| values[i] != 2.0 * i as f32) {
            return Err(format!("{family}: element {i} is {}", values[i]).into());
        }
    }
    Ok(())
}
