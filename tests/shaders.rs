//! Every generated kernel is WGSL without extensions, and translates to what each backend of wgpu
//! compiles. The files in `shaders/` are checked by the build.

mod harness;

use std::collections::HashSet;

use harness::cases;
use harness::compare::Problem;
use harness::random_graph::{random_graph, recipes, runner};
use naga::ShaderStage::Compute;
use naga::back::{glsl, hlsl, msl, spv};
use naga::proc::BoundsCheckPolicies;
use naga::valid::{Capabilities, ValidationFlags, Validator};
use osculant::graph::lower::{sources, sources_for};
use osculant::graph::{DType, Graph, NodeId};
use osculant::kernels::dot::catalogue;
use osculant::kernels::tuning::{Capabilities as DeviceCapabilities, Family, Products, Tuning};
use proptest::test_runner::TestCaseError;

type Outcome = std::result::Result<(), Box<dyn std::error::Error>>;

/// Translates the kernels of a problem that were not seen before.
fn check(problem: &Problem, seen: &mut HashSet<String>) -> Outcome {
    let targets: Vec<NodeId> = problem.results().iter().map(|&(_, node)| node).collect();
    for (node, text) in sources(&problem.graph, &targets, &problem.directions)? {
        if !seen.contains(&text) {
            let describe = |error| format!("{}: {error}\n{text}", problem.graph.describe(node));
            translate(&text, Needs::NOTHING).map_err(describe)?;
            seen.insert(text);
        }
    }
    Ok(())
}

/// What a kernel asks of the languages it is translated to.
#[derive(Clone, Copy)]
struct Needs {
    extensions: Capabilities,
    spirv: (u8, u8),
    metal: (u8, u8),
    shader_model: hlsl::ShaderModel,
    /// None where the language has no way to say it.
    opengl: Option<glsl::Version>,
}

impl Needs {
    /// No extension: the old compiler of Direct3D 12, and OpenGL ES 3.1, the first with compute shaders.
    const NOTHING: Needs = Needs {
        extensions: Capabilities::empty(),
        spirv: (1, 0),
        metal: (2, 0),
        shader_model: hlsl::ShaderModel::V5_1,
        opengl: Some(glsl::Version::new_gles(310)),
    };

    fn of(text: &str) -> Needs {
        let mut needs = Self::NOTHING;
        if text.contains("subgroup_invocation_id") {
            needs.extensions |= Capabilities::SUBGROUP;
            needs.spirv = (1, 3);
            needs.metal = (2, 1);
            needs.shader_model = hlsl::ShaderModel::V6_0;
        }
        if text.contains("u64") {
            needs.extensions |= Capabilities::SHADER_INT64;
            needs.metal = (2, 3);
            needs.shader_model = hlsl::ShaderModel::V6_0;
            // Has no 64-bit integers.
            needs.opengl = None;
        }
        needs
    }
}

/// The first of naga's complaints.
fn translate(text: &str, needs: Needs) -> std::result::Result<(), String> {
    let module = naga::front::wgsl::parse_str(text).map_err(|error| error.emit_to_string(text))?;
    let info = Validator::new(ValidationFlags::all(), needs.extensions)
        .validate(&module)
        .map_err(|error| error.emit_to_string(text))?;

    // Vulkan
    let pipeline = spv::PipelineOptions {
        shader_stage: Compute,
        entry_point: "main".into(),
    };
    let options = spv::Options {
        lang_version: needs.spirv,
        ..spv::Options::default()
    };
    spv::write_vec(&module, &info, &options, Some(&pipeline))
        .map_err(|error| format!("SPIR-V: {error}"))?;

    // Metal
    let options = msl::Options {
        lang_version: needs.metal,
        ..msl::Options::default()
    };
    msl::write_string(&module, &info, &options, &msl::PipelineOptions::default())
        .map_err(|error| format!("MSL: {error}"))?;

    // Direct3D 12
    let options = hlsl::Options {
        shader_model: needs.shader_model,
        ..hlsl::Options::default()
    };
    let mut written = String::new();
    hlsl::Writer::new(&mut written, &options, &hlsl::PipelineOptions::default())
        .write(&module, &info, None)
        .map_err(|error| format!("HLSL: {error}"))?;

    // OpenGL
    let Some(version) = needs.opengl else {
        return Ok(());
    };
    let options = glsl::Options {
        version,
        ..glsl::Options::default()
    };
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

#[test]
fn every_kernel_for_products_translates() -> Outcome {
    let all = catalogue()?;
    for family in ["registers", "subgroup", "shared"] {
        assert!(
            all.iter().any(|(name, _)| name.contains(family)),
            "{family}"
        );
    }
    for (name, text) in all {
        translate(&text, Needs::of(&text)).map_err(|error| format!("{name}: {error}\n{text}"))?;
    }
    Ok(())
}

/// The kernels of a program can be listed for a device that is not here.
#[test]
fn programs_are_written_with_the_kernel_that_is_asked_for() -> Outcome {
    let capabilities = DeviceCapabilities {
        subgroup_size: Some(16),
        wide_loads: true,
        large_workgroups: true,
        ..DeviceCapabilities::default()
    };
    let mut graph = Graph::new();
    let a = graph.input("a", &[2, 40, 12], DType::F32)?;
    let b = graph.input("b", &[2, 12, 36], DType::F32)?;
    let dot = graph.dot(a, b, false, false)?;
    let mut seen = HashSet::new();
    for family in Family::all(&capabilities) {
        let products = Products {
            capabilities,
            tuning: Tuning::forced(family),
        };
        for (_, text) in sources_for(&graph, &[dot], &[], &products)? {
            translate(&text, Needs::of(&text))
                .map_err(|error| format!("{family}: {error}\n{text}"))?;
            assert!(seen.insert(text), "{family} is the same as another");
        }
    }
    Ok(())
}
