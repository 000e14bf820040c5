//! Every kernel, from a file in `shaders/` or generated, translates to what each backend of wgpu compiles. Only kernels of matrix products
//! use extensions of WGSL, and they are given only to devices that have them.

use std::collections::{HashMap, HashSet};

use crate::hand_written;
use crate::harness::cases;
use crate::harness::compare::Problem;
use crate::harness::random_graph::{random_graph, recipes, runner};
use naga::AddressSpace;
use naga::ShaderStage::Compute;
use naga::back::pipeline_constants::process_overrides;
use naga::back::{glsl, hlsl, msl, spv};
use naga::proc::BoundsCheckPolicies;
use naga::valid::{Capabilities, ShaderStages, SubgroupOperationSet, ValidationFlags, Validator};
use osculant::gpu::Requirements;
use osculant::graph::NodeId;
use osculant::graph::lower::sources;
use osculant::kernels::dot::catalogue;
use osculant::kernels::requirements::stated;
use proptest::test_runner::TestCaseError;

type Outcome = std::result::Result<(), Box<dyn std::error::Error>>;

/// Translates the kernels of a problem that were not seen before.
fn check(problem: &Problem, seen: &mut HashSet<String>) -> Outcome {
    let targets: Vec<NodeId> = problem.results().iter().map(|&(_, node)| node).collect();
    for (node, text) in sources(&problem.graph, &targets, &problem.directions)? {
        if !seen.contains(&text) {
            let describe = |error| format!("{}: {error}\n{text}", problem.graph.describe(node));
            translate(&text, &[], Capabilities::empty()).map_err(describe)?;
            seen.insert(text);
        }
    }
    Ok(())
}

/// The extensions that a text uses.
fn extensions(text: &str) -> Capabilities {
    let uses = |word: &str| {
        text.lines().any(|line| {
            line.split("//")
                .next()
                .is_some_and(|code| code.contains(word))
        })
    };
    let mut extensions = Capabilities::empty();
    extensions.set(Capabilities::SUBGROUP, uses("subgroup"));
    extensions.set(Capabilities::SHADER_INT64, uses("u64"));
    extensions
}

/// The first of naga's complaints about a text with these values for its `override` constants.
fn translate(
    text: &str,
    constants: &[(String, f64)],
    extensions: Capabilities,
) -> std::result::Result<(), String> {
    let plain = extensions.is_empty();
    // Halves packed in words are core WGSL; naga asks for a capability because some old OpenGL has no such function.
    let capabilities = extensions | Capabilities::SHADER_FLOAT16_IN_FLOAT32;
    let module = naga::front::wgsl::parse_str(text).map_err(|error| error.emit_to_string(text))?;
    let info = Validator::new(ValidationFlags::all(), capabilities)
        .subgroup_stages(ShaderStages::COMPUTE)
        .subgroup_operations(SubgroupOperationSet::all())
        .validate(&module)
        .map_err(|error| error.emit_to_string(text))?;
    let constants = constants.iter().cloned().collect();
    let entry_point = Some((Compute, "main"));
    let (module, info) = process_overrides(&module, &info, entry_point, &constants)
        .map_err(|error| format!("constants: {error}"))?;

    // Vulkan
    let options = spv::Options {
        lang_version: if plain { (1, 0) } else { (1, 3) },
        ..spv::Options::default()
    };
    let pipeline = spv::PipelineOptions {
        shader_stage: Compute,
        entry_point: "main".into(),
    };
    spv::write_vec(&module, &info, &options, Some(&pipeline))
        .map_err(|error| format!("SPIR-V: {error}"))?;

    // Metal
    let options = msl::Options {
        lang_version: if plain { (2, 0) } else { (2, 3) },
        ..msl::Options::default()
    };
    msl::write_string(&module, &info, &options, &msl::PipelineOptions::default())
        .map_err(|error| format!("MSL: {error}"))?;

    // Direct3D 12, with its old compiler; the new one has the extensions
    let options = hlsl::Options {
        shader_model: if plain {
            hlsl::ShaderModel::V5_1
        } else {
            hlsl::ShaderModel::V6_0
        },
        ..hlsl::Options::default()
    };
    let mut written = String::new();
    hlsl::Writer::new(&mut written, &options, &hlsl::PipelineOptions::default())
        .write(&module, &info, None)
        .map_err(|error| format!("HLSL: {error}"))?;

    // OpenGL ES 3.1, the first with compute shaders; it has none of the extensions
    if !plain {
        return Ok(());
    }
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
/// computed once, before. It may divide by what depends on them, as the tangents of quotients, roots
/// and logarithms do, but makes no reciprocal. Only the products are asked for here, so that no
/// gradient shares them.
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
        let extensions =
            // The probe of subgroups, too, is given only to devices that have them.
            if kernel.family.starts_with("dot/")
                || kernel.family == "doctor/subgroups"
                || kernel.name.ends_with("64-bit loads")
            {
                extensions(&kernel.text)
            } else {
                Capabilities::empty()
            };
        translate(&kernel.text, &kernel.constants, extensions)
            .map_err(|error| format!("{} {}: {error}", kernel.family, kernel.name))?;
    }
    let families: HashSet<&str> = kernels.iter().map(|k| k.family.as_str()).collect();
    assert!(families.contains("first_order") && families.len() > 10);
    Ok(())
}

/// What a text asks of a device, as the compiler sees it.
fn declared(text: &str) -> std::result::Result<Requirements, Box<dyn std::error::Error>> {
    let module = naga::front::wgsl::parse_str(text).map_err(|error| error.emit_to_string(text))?;
    let main = module.entry_points.first().ok_or("no entry point")?;
    let count = |space: fn(&AddressSpace) -> bool| {
        module
            .global_variables
            .iter()
            .filter(move |(_, variable)| space(&variable.space))
    };
    let bytes = |ty: naga::Handle<naga::Type>| module.types[ty].inner.size(module.to_ctx());
    Ok(Requirements {
        storage_buffers: count(|space| matches!(space, AddressSpace::Storage { .. })).count()
            as u32,
        invocations: main.workgroup_size.iter().product(),
        workgroup_bytes: count(|space| *space == AddressSpace::WorkGroup)
            .map(|(_, variable)| bytes(variable.ty))
            .sum(),
    })
}

/// Statements do not go stale: every kernel in a file but the templates of generated ones, which compute theirs, and those that
/// measure adapters.
#[test]
fn kernels_in_files_require_what_their_faces_state() -> Outcome {
    let mut stated: HashMap<&str, Requirements> = stated().into_iter().collect();
    let mut seen = HashSet::new();
    for kernel in hand_written::all()? {
        let family = kernel.family.as_str();
        let generated = ["pointwise", "reduce", "gather"].contains(&family)
            || family.starts_with("dot/")
            || family.starts_with("bench/")
            || family.starts_with("doctor/");
        if !generated {
            let expected = stated.get(family).copied();
            let found = declared(&kernel.text).map_err(|error| format!("{family}: {error}"))?;
            assert_eq!(Some(found), expected, "{family}");
            seen.insert(kernel.family);
        }
    }
    stated.retain(|family, _| !seen.contains(*family));
    assert!(stated.is_empty(), "stated, but not there: {stated:?}");
    Ok(())
}

#[test]
fn kernels_of_every_family_of_products_translate() -> Outcome {
    for subgroup_size in [
        None,
        Some(4),
        Some(8),
        Some(16),
        Some(32),
        Some(64),
        Some(128),
    ] {
        for (wide_loads, textures) in [(false, false), (true, false), (false, true)] {
            let device = osculant::kernels::dot::Capabilities {
                subgroup_size,
                wide_loads,
                textures,
                large_workgroups: true,
                software: false,
            };
            for (family, name, text) in catalogue(&device)? {
                let extensions = extensions(&text);
                let allowed =
                    subgroup_size.is_some() || !extensions.contains(Capabilities::SUBGROUP);
                assert!(allowed, "{family} {name} uses subgroups");
                let allowed = wide_loads || !extensions.contains(Capabilities::SHADER_INT64);
                assert!(allowed, "{family} {name} uses 64-bit integers");
                // Lavapipe compiles loops that a uniform alone bounds anew at every dispatch.
                let reads_its_terms = text.contains("fn K() -> u32 { return sizes");
                let bounds = !reads_its_terms || !text.contains("let terms = K();");
                assert!(bounds, "a uniform bounds loops of {family} {name}");
                translate(&text, &[], extensions)
                    .map_err(|error| format!("{family} {name}: {error}\n{text}"))?;
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
