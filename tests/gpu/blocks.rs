//! Blocks: products of several directions are those of its columns, and values of several inputs those of each, in the f64 twin and on
//! every adapter.

use crate::harness::cases;
use crate::harness::compare::{
    BlockOnDevice, INDEX_LIMIT, Input, OnDevice, Problem, relative_error, uniform, widen,
};
use crate::harness::random_graph::{random_graph, recipes, runner};
use crate::harness::{GpuTest, Outcome};
use osculant::Error;
use osculant::data::digits;
use osculant::gpu::Gpu;
use osculant::graph::batch::batched;
use osculant::graph::node::elements;
use osculant::graph::twin::{Leaves, evaluate};
use osculant::graph::{Graph, NodeId};
use osculant::nn::{Activation, Loss, Sequential};
use osculant::objective::{Curvature, Curved, GraphObjective, Objective, QuadraticRequest, Slot};
use osculant::random::Philox;
use proptest::test_runner::TestCaseError;
use rand::RngExt;

/// Directions in a block.
const WIDTH: usize = 3;

pub(crate) fn tests() -> Vec<GpuTest> {
    let mut tests = gpu_tests![
        in_the_twin_a_block_is_its_columns,
        in_the_twin_groups_are_their_inputs,
        random_graphs_in_the_twin,
        a_block_in_parts_has_the_same_bits,
        an_objectives_block_is_its_single_products,
    ];
    tests.extend(cases::ALL.iter().map(|case| {
        GpuTest::new(case.name, |gpu| {
            on_device(gpu, &(case.problem)()?)?;
            groups_on_device(gpu, (case.problem)()?)
        })
    }));
    tests
}

/// Relative error allowed between two ways to compute the same in f64.
const TWIN_TOLERANCE: f64 = 1e-12;

fn in_twin(problem: &Problem) -> Outcome {
    let products = problem.products();
    let mut graph = problem.graph.clone();
    let (wide_directions, wide_products) =
        batched(&mut graph, &products, &problem.directions, WIDTH)?;
    let columns: Vec<Vec<Vec<f64>>> = (0..WIDTH as u64)
        .map(|seed| widen(&problem.direction(seed)))
        .collect();
    let leaves = Leaves {
        directions: wide_directions
            .iter()
            .enumerate()
            .map(|(tensor, &node)| {
                (
                    node,
                    columns.iter().flat_map(|c| c[tensor].clone()).collect(),
                )
            })
            .collect(),
        ..problem.leaves(&[])
    };
    let found = evaluate(&graph, &leaves, &wide_products)?;
    for (column, direction) in columns.iter().enumerate() {
        let parameters = widen(&problem.parameters);
        let expected = problem.evaluate_at(&parameters, direction, &products)?;
        for ((&product, found), expected) in products.iter().zip(&found).zip(&expected) {
            let size = elements(problem.graph.shape(product));
            let row = &found[column * size..(column + 1) * size];
            let error = relative_error(row, expected, 1e-2);
            if error.is_nan() || error > TWIN_TOLERANCE {
                let what = problem.graph.describe(product);
                return Err(format!("{what}, column {column}: relative error {error:.2e}").into());
            }
        }
    }
    Ok(())
}

fn in_the_twin_a_block_is_its_columns(_: &Gpu) -> Outcome {
    for case in cases::ALL {
        in_twin(&(case.problem)()?).map_err(|error| format!("{}: {error}", case.name))?;
    }
    Ok(())
}

/// All results of a problem, and the same for several values of all inputs at once.
struct Groups {
    graph: Graph,
    wanted: Vec<NodeId>,
    wide: Vec<NodeId>,
}

/// None where rows of a table are taken at indices that differ from group to group.
fn groups(problem: &Problem) -> Result<Option<Groups>, Error> {
    let wanted: Vec<NodeId> = problem
        .results()
        .into_iter()
        .map(|(_, node)| node)
        .collect();
    let mut graph = problem.graph.clone();
    let inputs: Vec<NodeId> = graph.inputs().iter().map(|leaf| leaf.node).collect();
    match batched(&mut graph, &wanted, &inputs, WIDTH) {
        Ok((_, wide)) => Ok(Some(Groups {
            graph,
            wanted,
            wide,
        })),
        Err(Error::Unsupported { what, .. }) if what.contains("groups") => Ok(None),
        Err(error) => Err(error),
    }
}

/// Loss, gradient and products for three values of all inputs at once are those for each.
fn groups_in_twin(problem: &Problem) -> Outcome {
    let Some(Groups {
        graph,
        wanted,
        wide,
    }) = groups(problem)?
    else {
        return Ok(());
    };
    let direction = widen(&problem.direction(1));
    let narrow = problem.leaves(&direction);
    let mut random = Philox::new(9, 1 << 33);
    let groups: Vec<Vec<Vec<f64>>> = (0..WIDTH)
        .map(|_| {
            let of = |input: &Input| match input {
                Input::Floats(values) => widen(&[uniform(&mut random, values.len())]).concat(),
                Input::Indices(values) => values
                    .iter()
                    .map(|_| f64::from(random.random_range(0..INDEX_LIMIT)))
                    .collect(),
            };
            problem.inputs.iter().map(of).collect()
        })
        .collect();
    let mut leaves = narrow.clone();
    for input in 0..problem.inputs.len() {
        let all = groups.iter().flat_map(|group| group[input].clone());
        leaves.inputs.push(all.collect());
    }
    let found = evaluate(&graph, &leaves, &wide)?;
    for (at, group) in groups.into_iter().enumerate() {
        let own = Leaves {
            inputs: group,
            ..narrow.clone()
        };
        let expected = evaluate(&problem.graph, &own, &wanted)?;
        for ((&node, found), expected) in wanted.iter().zip(&found).zip(&expected) {
            let size = elements(problem.graph.shape(node));
            let error = relative_error(&found[at * size..(at + 1) * size], expected, 1e-2);
            if error.is_nan() || error > TWIN_TOLERANCE {
                let what = problem.graph.describe(node);
                return Err(format!("{what}, group {at}: relative error {error:.2e}").into());
            }
        }
    }
    Ok(())
}

/// The same programs on a device.
fn groups_on_device(gpu: &Gpu, problem: Problem) -> Outcome {
    let Some(Groups { graph, wide, .. }) = groups(&problem)? else {
        return Ok(());
    };
    let mut random = Philox::new(9, 1 << 33);
    let mut all = problem.inputs.clone();
    all.extend(problem.inputs.iter().map(|input| {
        match input {
            Input::Floats(values) => Input::Floats(uniform(&mut random, WIDTH * values.len())),
            Input::Indices(values) => Input::Indices(
                (0..WIDTH * values.len())
                    .map(|_| random.random_range(0..INDEX_LIMIT))
                    .collect(),
            ),
        }
    }));
    let problem = Problem {
        graph,
        inputs: all,
        ..problem
    };
    let direction = problem.direction(1);
    let found = OnDevice::new(gpu, &problem, &wide)?.run(gpu, &direction, true)?;
    let expected = problem.evaluate(&direction, &wide)?;
    for ((&node, found), expected) in wide.iter().zip(&found).zip(&expected) {
        let error = relative_error(&widen(std::slice::from_ref(found)).concat(), expected, 1e-2);
        if error.is_nan() || error > cases::TOLERANCE {
            let what = problem.graph.describe(node);
            return Err(format!("groups of {what}: relative error {error:.2e}").into());
        }
    }
    Ok(())
}

fn in_the_twin_groups_are_their_inputs(_: &Gpu) -> Outcome {
    let mut refused = Vec::new();
    for case in cases::ALL {
        let problem = (case.problem)()?;
        if groups(&problem)?.is_none() {
            refused.push(case.name);
        }
        groups_in_twin(&problem).map_err(|error| format!("{}: {error}", case.name))?;
    }
    assert_eq!(refused, ["gather_and_scatter_add"]);
    Ok(())
}

fn random_graphs_in_the_twin(_: &Gpu) -> Outcome {
    runner(100).run(&recipes(), |recipe| {
        let fail = |error: &dyn std::fmt::Display| TestCaseError::fail(error.to_string());
        let problem = random_graph(&recipe, true).map_err(|error| fail(&error))?;
        in_twin(&problem).map_err(|error| fail(&error))?;
        groups_in_twin(&problem).map_err(|error| fail(&error))
    })?;
    Ok(())
}

/// The products of a block of three, computed two at a time, so that the second part repeats a row of the first.
fn on_device(gpu: &Gpu, problem: &Problem) -> Outcome {
    let products = problem.products();
    let block = BlockOnDevice::new(gpu, problem, &products, WIDTH, 2)?;
    let directions: Vec<Vec<Vec<f32>>> = (0..WIDTH as u64).map(|s| problem.direction(s)).collect();
    let found = block.run(gpu, &directions)?;
    for (column, direction) in directions.iter().enumerate() {
        let expected = problem.evaluate(direction, &products)?;
        for ((&product, found), expected) in products.iter().zip(&found[column]).zip(&expected) {
            let error =
                relative_error(&widen(std::slice::from_ref(found)).concat(), expected, 1e-2);
            if error.is_nan() || error > cases::TOLERANCE {
                let what = problem.graph.describe(product);
                return Err(format!("{what}, column {column}: relative error {error:.2e}").into());
            }
        }
    }
    Ok(())
}

fn a_block_in_parts_has_the_same_bits(gpu: &Gpu) -> Outcome {
    let classifier = cases::ALL.iter().find(|case| case.name == "classifier");
    let problem = (classifier.ok_or("there is no such case")?.problem)()?;
    let directions: Vec<Vec<Vec<f32>>> = (0..5).map(|seed| problem.direction(seed)).collect();
    let products = problem.products();
    let whole = BlockOnDevice::new(gpu, &problem, &products, 5, 5)?.run(gpu, &directions)?;
    for width in [1, 2, 3, 4] {
        let parts =
            BlockOnDevice::new(gpu, &problem, &products, 5, width)?.run(gpu, &directions)?;
        assert!(parts == whole, "parts of {width} give other bits");
    }
    Ok(())
}

/// Digits through a small network, for both matrices: with all memory the block is computed at once, with none one by one, and
/// nobody sees it in the bits; and each product is the single one to rounding.
fn an_objectives_block_is_its_single_products(gpu: &Gpu) -> Outcome {
    let (data, _) = digits()?.split(0.95, 0)?;
    let network = Sequential::new()
        .dense(6)
        .activation(Activation::Tanh)
        .dense(10);
    for curvature in [Curvature::Hessian, Curvature::GaussNewton] {
        let mut found = Vec::new();
        for memory in [u64::MAX, 0] {
            let model = network.clone().model(&data, Loss::SoftmaxCrossEntropy);
            let mut objective = GraphObjective::new(gpu, model)?.with_l2(0.01)?;
            objective = objective.with_block_memory(memory);
            let theta = objective.initial_parameters(3)?;
            let request = QuadraticRequest {
                curvature,
                block: 5,
                ..QuadraticRequest::default()
            };
            let quadratic =
                objective.load_quadratic(Slot::default(), &theta, &data.full_batch(), request)?;
            let block = quadratic.block.as_ref().ok_or("no block")?;
            assert_eq!(block.width, if memory == 0 { 1 } else { 5 });
            let directions: Vec<Vec<Vec<f32>>> = (0..5)
                .map(|seed| {
                    let mut random = Philox::new(seed, 1 << 34);
                    let entries = objective.layout().entries().iter();
                    entries
                        .map(|e| uniform(&mut random, e.elements()))
                        .collect()
                })
                .collect();
            block.directions.write(gpu, &directions)?;
            gpu.run([&quadratic.linearize, &block.multiply])?;
            for (direction, product) in directions.iter().zip(block.products.vectors()) {
                quadratic.direction.write(gpu, direction)?;
                gpu.run([&quadratic.multiply])?;
                let single = widen(&quadratic.product.read(gpu)?).concat();
                let wide = widen(&product.read(gpu)?).concat();
                let error = relative_error(&wide, &single, 0.0);
                assert!(error < 1e-5, "{curvature:?}: relative error {error:.2e}");
            }
            found.push(gpu.read(&[block.products.slice()])?);
        }
        assert!(
            found[0] == found[1],
            "{curvature:?}: memory changes the bits"
        );
    }
    Ok(())
}
