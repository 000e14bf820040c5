//! From graph to kernels: what is fused, kept and reused, which results are possible, and random
//! graphs through all of it.

use crate::harness::cases::{self, score};
use crate::harness::compare::{OnDevice, Problem};
use crate::harness::random_graph::{random_graph, recipes, runner};
use crate::harness::{GpuTest, Outcome, small};
use osculant::gpu::{Gpu, Slice};
use osculant::graph::executable::DeviceLeaves;
use osculant::graph::listing::Listing;
use osculant::graph::lower::sources;
use osculant::graph::plan::{Request, Wanted};
use osculant::graph::{Arena, Binary, DType, Executable, Graph, NodeId, Plan, Target};
use osculant::{Error, Result};
use proptest::test_runner::TestCaseError;

pub(crate) fn tests() -> Vec<GpuTest> {
    gpu_tests![
        a_sum_of_twelve_inputs_is_split,
        a_device_with_four_storage_buffers_is_enough,
        products_repeat_nothing_of_the_linearization,
        long_chains_are_cut,
        slots_are_reused,
        results_of_every_kind,
        missing_and_misfitting_slices_are_refused,
        foreign_nodes_and_bad_pitches_are_refused,
        what_kernels_cannot_express_is_refused,
        programs_repeat_their_bits,
        random_graphs,
    ]
}

/// Elementwise in twelve parameters, more than one kernel may read.
fn twelve_inputs(shape: &[usize]) -> Result<Problem> {
    Problem::new(|b| {
        let x: Vec<_> = (0..12)
            .map(|i| b.parameter(&format!("x{i}"), shape))
            .collect();
        let products = (0..12).map(|i| x[i] * x[(i + 5) % 12].sin());
        (
            score(b, products.fold(b.constant(0.1), |sum, p| sum + p)),
            None,
        )
    })
}

/// Seven operands and the result are the eight storage buffers that every WebGPU device has.
fn a_sum_of_twelve_inputs_is_split(gpu: &Gpu) -> Outcome {
    for shape in [[7], [8]] {
        let problem = twelve_inputs(&shape)?;
        let targets: Vec<NodeId> = problem.results().iter().map(|&(_, node)| node).collect();
        for (node, text) in sources(&problem.graph, &targets, &problem.directions)? {
            let bindings = text.matches("var<storage").count();
            if bindings > 8 {
                let what = problem.graph.describe(node);
                return Err(format!("the kernel of {what} has {bindings} storage buffers").into());
            }
        }
        problem.check(gpu, cases::TOLERANCE)?;
    }
    Ok(())
}

/// The same on a device with wgpu's smallest limits, as some GL drivers have them.
fn a_device_with_four_storage_buffers_is_enough(gpu: &Gpu) -> Outcome {
    let small = small::device(
        gpu,
        wgpu::Features::empty(),
        wgpu::Limits::downlevel_defaults(),
    )?;
    assert_eq!(small.limits().max_storage_buffers_per_shader_stage, 4);
    twelve_inputs(&[6])?.check(&small, cases::TOLERANCE)?;
    let classifier = cases::ALL.iter().find(|case| case.name == "classifier");
    let classifier = classifier.ok_or("there is no such case")?;
    (classifier.problem)()?.check(&small, cases::TOLERANCE)
}

/// `layers` dense layers with tanh between them, under least squares.
fn dense(layers: usize) -> Result<Problem> {
    Problem::new(|b| {
        let mut z = b.input("x", &[6, 8]);
        for layer in 0..layers {
            let z_in = if layer > 0 { z.tanh() } else { z };
            let weight = b.parameter(&format!("weight {layer}"), &[8, 8]);
            z = z_in.dot(weight) + b.parameter(&format!("bias {layer}"), &[8]);
        }
        let residual = z - b.input("targets", &[6, 8]);
        (residual.square().sum(&[0, 1]).reshape(&[]) * 0.5, Some(z))
    })
}

/// Number of runs of matrix products, elementwise kernels and sums in a phase.
fn count(listing: &Listing, phase: usize) -> [usize; 3] {
    ["product", "elementwise", "sum"].map(|kind| {
        listing
            .phase(phase)
            .filter(|k| k.kind.starts_with(kind))
            .count()
    })
}

/// What a product costs with L layers, in kernels:
///
/// * Hessian: the forward tangents are 2L - 1 matrix products (the input does not move); backwards,
///   the tangent of a weight's gradient is 2 (1 in the first layer), and that of the gradient that is
///   passed on 2 for each of L - 1 layers: 6L - 4. One sum per bias.
/// * Gauss-Newton: as above forward, then L products for the weights and L - 1 that pass on: 4L - 2.
///   One sum per bias.
///
/// Everything else, such as `1 - tanh^2`, is there already, and what is elementwise (biases, slopes, the sum of two
/// products) is done before a matrix product is stored.
fn products_repeat_nothing_of_the_linearization(gpu: &Gpu) -> Outcome {
    for layers in [1, 2, 3] {
        let problem = dense(layers)?;
        for (nodes, expected) in [
            (&problem.hessian, [6 * layers - 4, 0, layers]),
            (&problem.gauss_newton, [4 * layers - 2, 0, layers]),
        ] {
            let wanted = [&[problem.loss], problem.gradient.as_slice(), nodes].concat();
            let device = OnDevice::new(gpu, &problem, &wanted)?;
            assert_eq!(
                count(&device.executable.listing, 1),
                expected,
                "{layers} layers"
            );
            // The whole linear part is as long: nothing else hides in the recording.
            let all: usize = expected.iter().sum();
            assert_eq!(
                device.executable.product.commands().len(),
                all,
                "{layers} layers"
            );
            // A gradient's matrix products: L forward, L for the weights, L - 1 passed on.
            assert_eq!(count(&device.executable.listing, 0)[0], 3 * layers - 1);
            // The slopes 1 - tanh^2 are stored by the kernel of the tanh.
            assert_eq!(count(&device.executable.listing, 0)[1], 0);
        }
        problem.check(gpu, cases::TOLERANCE)?;
    }
    Ok(())
}

/// Kernels stay of bearable length, and nothing recurses as deep as the graph.
fn long_chains_are_cut(gpu: &Gpu) -> Outcome {
    let chain = |steps: usize| {
        let mut last = Vec::new();
        let problem = Problem::new(|b| {
            let x = b.parameter("x", &[6]);
            let y = (0..steps).fold(x, |y, _| y * 0.995 + x * 0.01);
            last = vec![y.id()];
            (score(b, y), None)
        });
        problem.map(|problem| (problem, last))
    };
    let (problem, last) = chain(10_000)?;
    let kernels = sources(&problem.graph, &last, &problem.directions)?;
    let longest = kernels.iter().map(|(_, text)| text.lines().count()).max();
    assert!(longest < Some(1000), "{longest:?} lines");
    chain(200)?.0.check(gpu, cases::TOLERANCE)
}

/// Ten layers one after another need the memory of two values, not of twenty.
fn slots_are_reused(gpu: &Gpu) -> Outcome {
    let mut last = Vec::new();
    let problem = Problem::new(|b| {
        let w = b.parameter("w", &[16, 16]);
        let z = (0..10).fold(b.input("x", &[4, 16]), |z, _| z.dot(w).tanh());
        last = vec![z.id()];
        (score(b, z), None)
    })?;
    let value = OnDevice::new(gpu, &problem, &last)?;
    // The tanh is applied before the product is stored.
    assert_eq!(value.executable.linearize.dispatches(), 10);
    assert_eq!(value.executable.listing.planned_bytes(), 4 * 2 * 4 * 16);
    // With derivatives, what products read of the linearization outlives it; the rest is shared.
    let wanted: Vec<NodeId> = problem.results().iter().map(|&(_, node)| node).collect();
    let listing = OnDevice::new(gpu, &problem, &wanted)?.executable.listing;
    let (planned, values) = (listing.planned_bytes(), listing.values);
    assert!(
        2 * planned < values,
        "{planned} bytes for {values} bytes of values"
    );
    // Ten layers of rounding.
    problem.check(gpu, 1e-4)
}

/// A result may be a parameter, a direction, data, a constant, a reshaped value, and twice the same;
/// all results lie in one buffer.
fn results_of_every_kind(gpu: &Gpu) -> Outcome {
    Problem::new(|b| {
        let x = b.parameter("x", &[6]);
        let y = b.parameter("y", &[6]);
        let z = b.parameter("z", &[5]);
        let u = b.parameter("u", &[2, 3]);
        // Gradients: of x and y one node, of z data, of u itself.
        let terms = [
            score(b, x + y),
            (z * b.data(vec![3.0, 1.0, 4.0, 1.0, 5.0], &[5]))
                .sum(&[0])
                .reshape(&[]),
            ((u * u).sum(&[0, 1]).reshape(&[])) * 0.5,
        ];
        (
            terms.into_iter().fold(b.constant(0.0), |loss, t| loss + t),
            None,
        )
    })?
    .check(gpu, 1e-6)?;

    let mut graph = Graph::new();
    let x = graph.parameter("x", &[2, 3])?;
    let square = graph.binary(Binary::Mul, x, x)?;
    let flat = graph.reshape(square, &[6])?;
    let turned = graph.permute(x, &[1, 0])?;
    let turned = graph.reshape(turned, &[6])?;
    let constant = graph.constant(2.5, &[3]);
    let stopped = graph.stop_gradient(x)?;
    let data = graph.data_tensor(vec![3.0, 1.0, 4.0], &[3])?;
    let loss = graph.sum(square, &[0, 1])?;
    let problem = Problem::of_graph(graph, loss, None)?;
    let wanted = [x, square, flat, flat, turned, constant, stopped, data];
    let direction = problem.direction(1);
    let found = OnDevice::new(gpu, &problem, &wanted)?.run(gpu, &direction, true)?;
    let p = &problem.parameters[0];
    let squares: Vec<f32> = p.iter().map(|x| x * x).collect();
    let turned = [0, 3, 1, 4, 2, 5].map(|i| p[i]).to_vec();
    let expected = [
        p.clone(),
        squares.clone(),
        squares.clone(),
        squares,
        turned,
        vec![2.5; 3],
        p.clone(),
        vec![3.0, 1.0, 4.0],
    ];
    assert_eq!(found, expected);
    Ok(())
}

fn missing_and_misfitting_slices_are_refused(gpu: &Gpu) -> Outcome {
    let mut graph = Graph::new();
    let x = graph.parameter("x", &[4])?;
    let t = graph.input("targets", &[4], DType::F32)?;
    let direction = graph.direction(&[4]);
    let y = graph.binary(Binary::Mul, x, t)?;
    let moved = graph.binary(Binary::Mul, direction, t)?;
    let four = gpu.buffer("four", 4)?;
    let five = gpu.buffer("five", 5)?;
    let result = gpu.buffer("result", 4)?;
    let new = |parameters: &[_], inputs: &[_], targets: &[_]| {
        let leaves = DeviceLeaves {
            parameters: Vec::from(parameters),
            inputs: Vec::from(inputs),
            ..DeviceLeaves::default()
        };
        Executable::new(gpu, &graph, &leaves, targets).map(|_| String::new())
    };
    let say = |outcome: Result<String>| outcome.unwrap_or_else(|error: Error| error.to_string());
    let (four, five) = (std::slice::from_ref(&four), std::slice::from_ref(&five));
    for (message, words) in [
        (
            say(new(four, five, &[(y, result.clone())])),
            "'targets' [4] has length 5, expected 4",
        ),
        (
            say(new(&[], four, &[(y, result.clone())])),
            "'x' [4] has length 0, expected 4",
        ),
        (
            say(new(four, four, &[(y, five[0].clone())])),
            "mul [4] has length 5, expected 4",
        ),
        (
            say(new(four, four, &[(moved, result.clone())])),
            "give the program a slice for this leaf",
        ),
    ] {
        assert!(
            message.contains(words),
            "'{words}' is missing in: {message}"
        );
    }
    Ok(())
}

/// Nodes of a larger graph, and results whose rows would overlap or that have none, are errors and no panics.
fn foreign_nodes_and_bad_pitches_are_refused(gpu: &Gpu) -> Outcome {
    let mut other = Graph::new();
    let mut foreign = other.parameter("far", &[4])?;
    for _ in 0..9 {
        foreign = other.binary(Binary::Mul, foreign, foreign)?;
    }
    let mut graph = Graph::new();
    let x = graph.parameter("x", &[2, 3])?;
    let sum = graph.sum(x, &[0, 1])?;
    let scalar = graph.reshape(sum, &[])?;
    let doubled = graph.binary(Binary::Add, x, x)?;
    let slice = gpu.buffer("six", 6)?;
    let leaves = DeviceLeaves {
        parameters: vec![slice.clone()],
        ..DeviceLeaves::default()
    };
    let result = gpu.buffer("result", 64)?;
    let bound = |wanted: Wanted, slices: &[Slice]| {
        let request = Request {
            wanted: vec![wanted],
            ..Request::default()
        };
        let plan = Plan::new(&Target::of(gpu), graph.clone(), request)?;
        plan.bind(gpu, &mut Arena::default(), &leaves, slices, &[])
    };
    let say = |wanted: Wanted, length: usize| -> std::result::Result<String, Error> {
        let slices = [result.slice(0..length)?];
        let program = bound(wanted, &slices);
        Ok(program.map_or_else(|error| error.to_string(), |_| "nothing".into()))
    };
    let at = |node: NodeId, pitch: usize| Wanted {
        node,
        pitch: Some(pitch),
    };
    for (wanted, length, words) in [
        (
            Wanted::from(foreign),
            4,
            "take ids from the graph that made them",
        ),
        (at(foreign, 64), 4, "take ids from the graph that made them"),
        (at(scalar, 64), 1, "has no rows"),
        (at(doubled, 2), 5, "overlap at a pitch of 2"),
        (at(doubled, usize::MAX), 6, "has length 6"),
        (at(doubled, 8), 6, "has length 6, expected 11"),
        (at(doubled, 8), 11, "nothing"),
        (at(doubled, 3), 6, "nothing"),
    ] {
        let message = say(wanted, length)?;
        assert!(
            message.contains(words),
            "'{words}' is missing in: {message}"
        );
    }
    let direction = DeviceLeaves {
        directions: vec![(foreign, slice.clone())],
        ..leaves.clone()
    };
    let targets = [(doubled, slice.clone())];
    let program = Executable::new(gpu, &graph, &direction, &targets);
    assert!(program.is_err_and(|error| error.to_string().contains("take ids from the graph")));
    let none = bound(doubled.into(), &[]);
    assert!(none.is_err_and(|error| error.to_string().contains("length 0")));
    let two = [slice.clone(), slice];
    let two = bound(doubled.into(), &two);
    assert!(two.is_err_and(|error| error.to_string().contains("slices for the results")));
    assert!(sources(&graph, &[foreign], &[]).is_err());
    Ok(())
}

/// Infinite constants, and more terms than a u32 counts, which need no large buffer.
fn what_kernels_cannot_express_is_refused(gpu: &Gpu) -> Outcome {
    let refusal = |define: fn(&mut Graph, NodeId) -> Result<NodeId>| -> Result<String> {
        let mut graph = Graph::new();
        let x = graph.parameter("x", &[4, 1])?;
        let wanted = define(&mut graph, x)?;
        let problem = Problem::of_graph(graph, x, None)?;
        let program = OnDevice::new(gpu, &problem, &[wanted]);
        Ok(program.map_or_else(|error| error.to_string(), |_| "nothing".into()))
    };
    let infinite = refusal(|graph, x| {
        let infinity = graph.constant(f32::NEG_INFINITY, &[4, 1]);
        graph.binary(Binary::Add, x, infinity)
    })?;
    assert!(infinite.contains("-1e30"), "{infinite}");
    let long = refusal(|graph, x| {
        let copies = graph.broadcast(x, &[4, 1 << 31])?;
        graph.sum(copies, &[1])
    })?;
    assert!(long.contains("8589934592"), "{long}");
    Ok(())
}

/// Sums are trees in fixed order: the same program gives the same bits, on the same buffers and on new ones.
fn programs_repeat_their_bits(gpu: &Gpu) -> Outcome {
    let problem = dense(3)?;
    let wanted: Vec<NodeId> = problem.results().iter().map(|&(_, node)| node).collect();
    let direction = problem.direction(1);
    let program = OnDevice::new(gpu, &problem, &wanted)?;
    let first = program.run(gpu, &direction, true)?;
    let other = OnDevice::new(gpu, &problem, &wanted)?.run(gpu, &direction, true)?;
    program.run(gpu, &problem.direction(2), false)?;
    let again = program.run(gpu, &direction, false)?;
    assert!(
        first == other && first == again,
        "results differ in their bits"
    );
    Ok(())
}

/// Random graphs with every primitive, all their derivatives, against the twin.
fn random_graphs(gpu: &Gpu) -> Outcome {
    runner(12).run(&recipes(), |recipe| {
        let fail = |error: &dyn std::fmt::Display| TestCaseError::fail(error.to_string());
        let problem = random_graph(&recipe, true).map_err(|error| fail(&error))?;
        problem.check(gpu, 1e-4).map_err(|error| fail(&error))
    })?;
    Ok(())
}
