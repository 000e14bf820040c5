//! Every kernel, from a file in `shaders/` or generated, is WGSL without extensions and translates to what each backend of wgpu
//! compiles.

#[path = "../examples/kernels/hand_written.rs"]
mod hand_written;
mod harness;
#[path = "../examples/kernels/listed.rs"]
mod listed;

use std::collections::HashSet;

use harness::cases;
use harness::compare::Problem;
use harness::random_graph::{random_graph, recipes, runner};
use naga::ShaderStage::Compute;
use naga::back::pipeline_constants::process_overrides;
use naga::back::{glsl, hlsl, msl, spv};
use naga::proc::BoundsCheckPolicies;
use naga::valid::{Capabilities, ValidationFlags, Validator};
use osculant::graph::NodeId;
use osculant::graph::lower::sources;
use proptest::test_runner::TestCaseError;

type Outcome = std::result::Result<(), Box<dyn std::error::Error>>;

/// Translates the kernels of a problem that were not seen before.
fn check(problem: &Problem, seen: &mut HashSet<String>) -> Outcome {
    let targets: Vec<NodeId> = problem.results().iter().map(|&(_, node)| node).collect();
    for (node, text) in sources(&problem.graph, &targets, &problem.directions)? {
        if !seen.contains(&text) {
            let describe = |error| format!("{}: {error}\n{text}", problem.graph.describe(node));
            translate(&text, &[]).map_err(describe)?;
            seen.insert(text);
        }
    }
    Ok(())
}

/// The first of naga's complaints about a text with these values for its `override` constants.
fn translate(text: &str, constants: &[(String, f64)]) -> std::result::Result<(), String> {
    let module = naga::front::wgsl::parse_str(text).map_err(|error| error.emit_to_string(text))?;
    let info = Validator::new(ValidationFlags::all(), Capabilities::empty())
        .validate(&module)
        .map_err(|error| error.emit_to_string(text))?;
    let constants = constants.iter().cloned().collect();
    let entry_point = Some((Compute, "main"));
    let (module, info) = process_overrides(&module, &info, entry_point, &constants)
        .map_err(|error| format!("constants: {error}"))?;

    // Vulkan
    let pipeline = spv::PipelineOptions {
        shader_stage: Compute,
        entry_point: "main".into(),
    };
    spv::write_vec(&module, &info, &spv::Options::default(), Some(&pipeline))
        .map_err(|error| format!("SPIR-V: {error}"))?;

    // Metal
    let options = msl::Options {
        lang_version: (2, 0),
        ..msl::Options::default()
    };
    msl::write_string(&module, &info, &options, &msl::PipelineOptions::default())
        .map_err(|error| format!("MSL: {error}"))?;

    // Direct3D 12, with its old compiler
    let options = hlsl::Options {
        shader_model: hlsl::ShaderModel::V5_1,
        ..hlsl::Options::default()
    };
    let mut written = String::new();
    hlsl::Writer::new(&mut written, &options, &hlsl::PipelineOptions::default())
        .write(&module, &info, None)
        .map_err(|error| format!("HLSL: {error}"))?;

    // OpenGL ES 3.1, the first with compute shaders
    let options = glsl::Options::default();
    let pipeline = glsl::PipelineOptions {
        shader_stage: Compute,
        entry_point: "main".into(),
        multiview: None,
    };
    let mut written = String::new();
    let policies = BoundsCheckPolicies::default();
    glsl::Writer::new(&mut written, &module, &info, &options, &pipeline, policies)
        .and_then(|mut writer| writer.write())
        .map_err(|error| format!("GLSL: {error}"))?;
    Ok(())
}

/// A product multiplies by slopes; the slopes themselves depend on the parameters alone and are
/// computed once, before. Only the products are asked for here, so that no gradient shares them.
#[test]
fn products_evaluate_no_function() -> Outcome {
    let functions = [
        "exp(",
        "log(",
        "tanh(",
        "logistic(",
        "softplus(",
        "sin(",
        "cos(",
        "sqrt(",
        "erf(",
        " / (",
        " / v",
    ];
    for case in cases::ALL {
        let problem = (case.problem)()?;
        let graph = &problem.graph;
        let moves = graph.depends_on(&problem.directions);
        let targets = [problem.hessian.as_slice(), &problem.gauss_newton].concat();
        for (node, text) in sources(graph, &targets, &problem.directions)? {
            // The library of functions stands before the bindings; the body is a list of steps.
            let steps = text
                .lines()
                .filter(|line| line.trim_start().starts_with("let v"));
            for step in steps.filter(|_| moves[node.index()]) {
                let evaluates = functions.iter().any(|f| step.contains(f));
                assert!(
                    !evaluates,
                    "{}: {}\n{text}",
                    case.name,
                    graph.describe(node)
                );
            }
        }
    }
    Ok(())
}

#[test]
fn kernels_in_files_translate_for_every_backend() -> Outcome {
    let kernels = hand_written::all()?;
    for kernel in &kernels {
        translate(&kernel.text, &kernel.constants)
            .map_err(|error| format!("{} {}: {error}", kernel.family, kernel.name))?;
    }
    let families: HashSet<&str> = kernels.iter().map(|k| k.family.as_str()).collect();
    assert!(families.contains("first_order") && families.len() > 10);
    Ok(())
}

#[test]
fn kernels_of_every_primitive_translate_for_every_backend() -> Outcome {
    let mut seen = HashSet::new();
    for case in cases::ALL {
        check(&(case.problem)()?, &mut seen)?;
    }
    assert!(seen.len() > 500, "only {} kernels", seen.len());
    Ok(())
}

#[test]
fn kernels_of_random_graphs_translate_for_every_backend() -> Outcome {
    let seen = std::cell::RefCell::new(HashSet::new());
    runner(20).run(&recipes(), |recipe| {
        random_graph(&recipe, true)
            .map_err(Into::into)
            .and_then(|problem| check(&problem, &mut seen.borrow_mut()))
            .map_err(|error| TestCaseError::fail(error.to_string()))
    })?;
    Ok(())
}
