//! Every primitive on every adapter: value, gradient, Hessian product and, where outputs are named,
//! Gauss-Newton product, against the f64 twin.

use crate::harness::cases;
use crate::harness::compare::{Input, OnDevice, Problem, widen};
use crate::harness::{GpuTest, Outcome};
use osculant::gpu::Gpu;
use osculant::graph::tensor::Builder;
use osculant::graph::{Binary, DType, Graph, NodeId, Tensor, Unary};
use osculant::kernels::tuning::Tuning;

pub(crate) fn tests() -> Vec<GpuTest> {
    let mut tests = gpu_tests![
        functions_are_accurate_at_every_point,
        what_is_not_a_number_comes_out_again,
        largest_elements_of_special_numbers,
        functions_near_zero_keep_their_digits,
        second_derivatives_of_quotients_and_powers_do_not_overflow,
        branches_that_are_not_chosen_do_no_harm,
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
            Unary::Neg | Unary::Relu | Unary::Step | Unary::IsFinite => (0.0, 0.0),
            Unary::Log => (5e-6, 1.0),
            // Vulkan allows 2^-11 between -pi and pi, and says nothing of the rest.
            Unary::Sin | Unary::Cos => (5e-4, 1.0),
            _ => (5e-6, 0.0),
        };
        for (&x, &found) in points.iter().zip(found) {
            let expected = f.apply(f64::from(x));
            // What is not finite is the matter of another test.
            if !expected.is_finite() {
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

/// Numbers at which functions are special.
const SPECIAL: [f32; 16] = [
    f32::NAN,
    -f32::NAN,
    f32::INFINITY,
    f32::NEG_INFINITY,
    0.0,
    -0.0,
    1e-40,
    -1e-40,
    f32::MIN_POSITIVE,
    f32::MAX,
    f32::MIN,
    1.0,
    -1.0,
    -2.0,
    100.0,
    -100.0,
];

/// Whether a device may give `found` where the twin has `expected`: both not numbers, the same infinity, or finite and near. Devices may
/// take subnormal numbers for zeros, so there may be several expectations.
fn may_be(found: f32, expected: &[f64]) -> bool {
    expected.iter().any(|&e| {
        let narrow = e as f32;
        if narrow.is_nan() || narrow.is_infinite() {
            found.is_nan() == narrow.is_nan() && (found.is_nan() || found == narrow)
        } else {
            f64::from(found - narrow).abs() <= 1e-5 * e.abs() + 1e-6
        }
    })
}

/// The number, and zero where it is subnormal.
fn flushed(x: f32) -> Vec<f64> {
    let x = f64::from(x);
    if x != 0.0 && x.abs() < f64::from(f32::MIN_POSITIVE) {
        vec![x, 0.0_f64.copysign(x)]
    } else {
        vec![x]
    }
}

/// Every elementwise primitive, alone and in vec4s, of every (pair of) special numbers, as IEEE 754 has it.
fn what_is_not_a_number_comes_out_again(gpu: &Gpu) -> Outcome {
    let pairs: Vec<(f32, f32)> = SPECIAL
        .iter()
        .flat_map(|&a| SPECIAL.map(|b| (a, b)))
        .collect();
    for count in [pairs.len(), pairs.len() - 1] {
        let mut graph = Graph::new();
        let a = graph.input("a", &[count], DType::F32)?;
        let b = graph.input("b", &[count], DType::F32)?;
        let loss = graph.sum(a, &[0])?;
        let mut wanted = Vec::new();
        for f in Unary::ALL {
            wanted.push(graph.unary(f, a)?);
        }
        for f in Binary::ALL {
            wanted.push(graph.binary(f, a, b)?);
        }
        let three = graph.constant(3.0, &[count]);
        wanted.push(graph.select(a, b, three)?);
        // What a person writes is not simplified away.
        let zero = graph.constant(0.0, &[count]);
        wanted.push(graph.binary(Binary::Mul, a, zero)?);
        wanted.push(graph.binary(Binary::Div, zero, a)?);
        let mut problem = Problem::of_graph(graph, loss, None)?;
        let (left, right) = pairs[..count].iter().copied().unzip();
        problem.inputs = vec![Input::Floats(left), Input::Floats(right)];
        let found = OnDevice::new(gpu, &problem, &wanted)?.run(gpu, &[], true)?;
        let twin = problem.evaluate(&[], &wanted)?;
        for (i, &(a, b)) in pairs[..count].iter().enumerate() {
            let (left, right) = (flushed(a), flushed(b));
            let of = |f: &dyn Fn(f64, f64) -> f64| -> Vec<f64> {
                let all = left
                    .iter()
                    .flat_map(|&x| right.iter().map(move |&y| (x, y)));
                all.map(|(x, y)| f(x, y)).collect()
            };
            let mut expected: Vec<(String, Vec<f64>)> = Vec::new();
            for f in Unary::ALL {
                // Any number in +-1 is a sine of such a large one.
                let large = matches!(f, Unary::Sin | Unary::Cos) && a.is_finite() && a.abs() > 1e4;
                let here = found[expected.len()][i];
                // Some devices take the exponent of a subnormal number for that of the smallest normal one.
                let logarithm = f == Unary::Log && a == 1e-40 && here < -87.0;
                let values = of(&|x, _| f.apply(x));
                expected.push((
                    format!("{f:?}"),
                    if logarithm {
                        vec![f64::from(here), f.apply(f64::from(a))]
                    } else if large {
                        vec![f64::from(found[expected.len()][i].clamp(-1.0, 1.0))]
                    } else {
                        values
                    },
                ));
            }
            for f in Binary::ALL {
                expected.push((format!("{f:?}"), of(&|x, y| f.apply(x, y))));
            }
            let chosen = |x: f64, y: f64| match x {
                x if x.is_nan() => x,
                x if x > 0.0 => y,
                _ => 3.0,
            };
            expected.push(("select".into(), of(&chosen)));
            expected.push(("times 0".into(), of(&|x, _| x * 0.0)));
            expected.push(("0 by".into(), of(&|x, _| 0.0 / x)));
            for (which, (name, expected)) in expected.iter().enumerate() {
                let found = found[which][i];
                if !may_be(found, expected) {
                    return Err(format!(
                        "{name} of {a:e} and {b:e} is {found:e}, expected one of {expected:?}"
                    )
                    .into());
                }
                let large = name == "Sin" || name == "Cos";
                if !large
                    && !expected.iter().any(|e| {
                        e.to_bits() == twin[which][i].to_bits()
                            || e.is_nan() && twin[which][i].is_nan()
                    })
                {
                    return Err(
                        format!("twin: {name} of {a:e} and {b:e} is {}", twin[which][i]).into(),
                    );
                }
            }
        }
    }
    Ok(())
}

/// Maxima over rows with NaNs, over rows of -inf alone, and of few and many elements, folded from vec4s and not.
fn largest_elements_of_special_numbers(gpu: &Gpu) -> Outcome {
    let lowest = f32::NEG_INFINITY;
    for count in [3usize, 8, 100, 5000] {
        let with = |at: usize, special: f32, others: f32| -> Vec<f32> {
            (0..count)
                .map(|i| if i == at { special } else { others })
                .collect()
        };
        let rows = [
            vec![lowest; count],
            with(count / 2, -7.0, lowest),
            with(0, f32::NAN, 2.0),
            with(count - 1, f32::NAN, f32::INFINITY),
            with(1, f32::INFINITY, 0.0),
            with(2, -f32::NAN, lowest),
            with(1, f32::MIN, lowest),
        ];
        let mut graph = Graph::new();
        let x = graph.input("x", &[rows.len(), count], DType::F32)?;
        let across = graph.permute(x, &[1, 0])?;
        let loss = graph.sum(x, &[0, 1])?;
        let along = graph.max(x, &[1])?;
        let across = graph.max(across, &[0])?;
        let mut problem = Problem::of_graph(graph, loss, None)?;
        problem.inputs = vec![Input::Floats(rows.concat())];
        let wanted = [along, across];
        let found = OnDevice::new(gpu, &problem, &wanted)?.run(gpu, &[], true)?;
        let expected = [
            f64::from(lowest),
            -7.0,
            f64::NAN,
            f64::NAN,
            f64::INFINITY,
            f64::NAN,
            f64::from(f32::MIN),
        ];
        for values in found.iter().chain(
            &problem
                .evaluate(&[], &wanted)?
                .iter()
                .map(|v| v.iter().map(|&x| x as f32).collect())
                .collect::<Vec<Vec<f32>>>(),
        ) {
            if !values.iter().zip(expected).all(|(&f, e)| may_be(f, &[e])) {
                return Err(
                    format!("{count} elements: found {values:?}, expected {expected:?}").into(),
                );
            }
        }
    }
    Ok(())
}

/// A few roundings at most, down to the smallest numbers.
fn functions_near_zero_keep_their_digits(gpu: &Gpu) -> Outcome {
    let points: Vec<f32> = (0..400)
        .map(|i| 0.6 * (-0.1 * (i / 2) as f32).exp() * if i % 2 == 0 { 1.0 } else { -1.0 })
        .collect();
    let mut graph = Graph::new();
    let x = graph.input("x", &[points.len()], DType::F32)?;
    let loss = graph.sum(x, &[0])?;
    let functions = [
        Unary::Log1p,
        Unary::Expm1,
        Unary::Expm1mx,
        Unary::Tanh,
        Unary::Erf,
        Unary::Sin,
    ];
    let mut wanted = Vec::new();
    for f in functions {
        wanted.push(graph.unary(f, x)?);
    }
    let mut problem = Problem::of_graph(graph, loss, None)?;
    problem.inputs = vec![Input::Floats(points.clone())];
    let found = OnDevice::new(gpu, &problem, &wanted)?.run(gpu, &[], true)?;
    for (f, found) in functions.iter().zip(&found) {
        for (&x, &found) in points.iter().zip(found) {
            let expected = f.apply(f64::from(x));
            let error = (f64::from(found) / expected - 1.0).abs();
            if error.is_nan() || error > 2e-6 {
                return Err(format!("{f:?} of {x:e} is {found:e}, expected {expected:e}").into());
            }
        }
    }
    Ok(())
}

/// A second derivative, by its formula.
type Second = fn(f64) -> f64;
type Function = for<'b> fn(&'b Builder, Tensor<'b>) -> Tensor<'b>;

/// Value, gradient and Hessian product of `f`, summed, at `x` along ones: on the device, element by element, and in the twin.
fn at_points(
    gpu: &Gpu,
    f: Function,
    x: &[f32],
    tolerance: f64,
) -> std::result::Result<Vec<Vec<f64>>, Box<dyn std::error::Error>> {
    let mut problem = Problem::new(|b| {
        let x = b.parameter("x", &[x.len()]);
        (f(b, x).sum(&[0]).reshape(&[]), None)
    })?;
    problem.parameters = vec![x.to_vec()];
    let wanted = [problem.gradient[0], problem.hessian[0]];
    let direction = [vec![1.0; x.len()]];
    let found = widen(&OnDevice::new(gpu, &problem, &wanted)?.run(gpu, &direction, true)?);
    let expected = problem.evaluate(&direction, &wanted)?;
    for (what, (found, expected)) in ["slope", "curvature"]
        .iter()
        .zip(found.iter().zip(&expected))
    {
        for ((x, found), expected) in x.iter().zip(found).zip(expected) {
            let error = (found - expected).abs();
            if error.is_nan() || error > tolerance * expected.abs() {
                return Err(format!("{what} at {x:e} is {found:e}, expected {expected:e}").into());
            }
        }
    }
    Ok(expected)
}

/// Fails where anything on the way to slope and curvature of `f`, summed, is beyond f32 at `x`: a driver that computes products in another
/// order hides it.
fn nothing_on_the_way_overflows(f: Function, x: &[f32]) -> Outcome {
    let mut problem = Problem::new(|b| {
        let x = b.parameter("x", &[x.len()]);
        (f(b, x).sum(&[0]).reshape(&[]), None)
    })?;
    problem.parameters = vec![x.to_vec()];
    let direction = [vec![1.0; x.len()]];
    let mut on_the_way = vec![problem.gradient[0], problem.hessian[0]];
    let mut next = 0;
    while let Some(&node) = on_the_way.get(next) {
        for &operand in &problem.graph.node(node).operands {
            if !on_the_way.contains(&operand) {
                on_the_way.push(operand);
            }
        }
        next += 1;
    }
    for (node, values) in on_the_way
        .iter()
        .zip(problem.evaluate(&direction, &on_the_way)?)
    {
        if let Some(value) = values.iter().find(|v| v.abs() > f64::from(f32::MAX)) {
            let name = problem.graph.describe(*node);
            return Err(format!("{name} is {value:e}, beyond f32").into());
        }
    }
    Ok(())
}

/// At numbers whose inverse squares or cubes are beyond f32, with a factor that makes the result finite.
fn second_derivatives_of_quotients_and_powers_do_not_overflow(gpu: &Gpu) -> Outcome {
    let functions: [(&str, Function, Second); 5] = [
        (
            "1 / x",
            |_, x| x.reciprocal() * 1e-30,
            |x| 2e-30 / x.powi(3),
        ),
        ("a / x", |b, x| b.constant(1e-30) / x, |x| 2e-30 / x.powi(3)),
        (
            "sqrt",
            |_, x| x.sqrt() * 1e-20,
            |x| -0.25e-20 * x.powf(-1.5),
        ),
        ("log", |_, x| x.log() * 1e-30, |x| -1e-30 / (x * x)),
        (
            "log(1 + x)",
            |_, x| (x - 1.0).log1p() * 1e-10,
            |x| -1e-10 / (x * x),
        ),
    ];
    for (name, f, second) in functions {
        let points: &[f32] = match name {
            "1 / x" | "a / x" => &[1e-20, -3e-20, 2e-15],
            "log(1 + x)" => &[2.0, 1e-3],
            _ => &[1e-25, 3e-28, 1e-20],
        };
        let tolerance = if name == "log(1 + x)" { 1e-3 } else { 1e-5 };
        nothing_on_the_way_overflows(f, points).map_err(|e| format!("{name}: {e}"))?;
        let twin = at_points(gpu, f, points, tolerance).map_err(|e| format!("{name}: {e}"))?;
        for (&x, found) in points.iter().zip(&twin[1]) {
            let expected = second(f64::from(x));
            if (found / expected - 1.0).abs() > 1e-4 {
                return Err(format!(
                    "{name}: twin's curvature at {x:e} is {found:e}, expected {expected:e}"
                )
                .into());
            }
        }
    }
    Ok(())
}

/// Functions in pieces, where the other piece is infinite or undefined.
fn branches_that_are_not_chosen_do_no_harm(gpu: &Gpu) -> Outcome {
    // Each with its slope and curvature at -2, 0 and 0.5.
    let functions: [(&str, Function, [f64; 6]); 8] = [
        (
            "sqrt",
            |b, x| x.select(x.sqrt() * 2.0 + 1.0, b.constant(1.0)),
            [0.0, 0.0, 2.0_f64.sqrt(), 0.0, 0.0, -(2.0_f64.sqrt())],
        ),
        (
            "log",
            |_, x| x.select(x.log(), x.square()),
            [-4.0, 0.0, 2.0, 2.0, 2.0, -4.0],
        ),
        (
            "x log x",
            |b, x| x.select(x * x.log(), b.constant(0.0)),
            [0.0, 0.0, 1.0 + 0.5_f64.ln(), 0.0, 0.0, 2.0],
        ),
        (
            "1 / x, second branch",
            |_, x| (-x).step().select(x, x.select(x.reciprocal(), x)),
            [1.0, 1.0, -4.0, 0.0, 0.0, 16.0],
        ),
        (
            "quotient",
            |_, x| x.select(x.square() / x.sqrt(), x),
            [
                1.0,
                1.0,
                1.5 * 0.5_f64.sqrt(),
                0.0,
                0.0,
                0.75 / 0.5_f64.sqrt(),
            ],
        ),
        (
            "nested",
            |_, x| {
                x.select(
                    (x - 0.25).select((x - 0.25).sqrt(), x),
                    (-x - 5.0).select((-x - 5.0).log(), x),
                )
            },
            [1.0, 1.0, 1.0, 0.0, 0.0, -2.0],
        ),
        (
            "condition in a branch",
            |_, x| x.select(x.log().select(x, x * 3.0), x),
            [1.0, 1.0, 3.0, 0.0, 0.0, 0.0],
        ),
        (
            "maximum in a branch",
            |_, x| x.select(x.log().max(x), x.log1p().exp()),
            [1.0, 1.0, 1.0, 0.0, 0.0, 0.0],
        ),
    ];
    let points = [-2.0f32, 0.0, 0.5];
    for (name, f, expected) in functions {
        // log(1 + x) is undefined at -2, and chosen there.
        let points = if name == "maximum in a branch" {
            [-0.5, 0.0, 0.5]
        } else {
            points
        };
        let found = at_points(gpu, f, &points, 1e-5).map_err(|error| format!("{name}: {error}"))?;
        for (i, (found, expected)) in found.concat().iter().zip(expected).enumerate() {
            if (found - expected).abs() > 1e-6 {
                return Err(
                    format!("{name}: twin has {found} in place {i}, expected {expected}").into(),
                );
            }
        }
    }
    Ok(())
}
