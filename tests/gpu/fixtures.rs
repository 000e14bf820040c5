//! What PyTorch says about loss, gradient, Hessian product, Gauss-Newton product and empirical Fisher diagonal, and BackPACK about what
//! each example adds, on the device and in the f64 twin.

use std::path::{Path, PathBuf};

use crate::harness::{GpuTest, Outcome};
use crate::reference::examples::Examples;
use crate::reference::{
    Answers, Reference, Tensors, compare, on_device, relative_error, vector, wide, wide_all,
};
use osculant::data::{Batch, Targets};
use osculant::gpu::Gpu;
use osculant::nn::{Activation, DataShape, Loss, Model, Sequential, TargetShape};
use osculant::objective::{
    GraphObjective, Objective, Quantity, Slot, Statistics, StatisticsRequest, hessian_diagonal,
};
use safetensors::{SafeTensors, tensor::Dtype};

/// Errors on a device, in f32.
const DEVICE: f64 = 1e-4;
/// Errors of the twin. Inputs are the same numbers and both sides compute in f64, but constants of a graph are f32: `1/sqrt 2` in gelu and
/// the factor `1 / outputs` of a mean, relative errors up to 6e-8.
const TWIN: f64 = 3e-7;

pub(crate) fn tests() -> Vec<GpuTest> {
    let products = CASES
        .into_iter()
        .map(|case| GpuTest::new(case, move |gpu: &Gpu| torch_agrees(gpu, case)));
    let statistics = STATISTICS
        .into_iter()
        .map(|case| GpuTest::new(case, move |gpu: &Gpu| statistics_agree(gpu, case)));
    products.chain(statistics).collect()
}

/// Files of what each example adds.
const STATISTICS: [&str; 8] = [
    "deep-bce-statistics",
    "deep-cross-entropy-statistics",
    "deep-poisson-statistics",
    "mixed-mse-statistics",
    "relu-cross-entropy-statistics",
    "relu-mse-statistics",
    "tanh-cross-entropy-statistics",
    "tanh-mse-statistics",
];

/// Quantities by BackPACK's names. Its variance is that of gradients of which each has its share of a mean.
const NAMES: [(Quantity, &str); 6] = [
    (Quantity::PerExampleGradients, "grad_batch"),
    (Quantity::SquaredNorms, "batch_l2"),
    (Quantity::SquareSum, "sum_grad_squared"),
    (Quantity::Variance, "variance"),
    (Quantity::GaussNewtonDiagonal, "diag_ggn_exact"),
    (
        Quantity::PerExampleGaussNewtonDiagonals,
        "diag_ggn_exact_batch",
    ),
];

/// The files, without their ending.
const CASES: [&str; 15] = [
    "autoencoder-mse",
    "deep-bce",
    "deep-cross-entropy",
    "deep-mse",
    "deep-poisson",
    "digits-cross-entropy",
    "mixed-mse",
    "relu-bce",
    "relu-cross-entropy",
    "relu-mse",
    "relu-poisson",
    "tanh-bce",
    "tanh-cross-entropy",
    "tanh-mse",
    "tanh-poisson",
];

struct Fixture {
    model: Model,
    batch: Batch,
    theta: Tensors,
    direction: Tensors,
    expected: Answers,
}

type Any = Box<dyn std::error::Error>;

fn numbers(file: &SafeTensors<'_>, key: &str) -> Result<Vec<f64>, Any> {
    let tensor = file.tensor(key).map_err(|e| format!("{key}: {e}"))?;
    let bytes = tensor.data();
    Ok(match tensor.dtype() {
        Dtype::F32 => bytes
            .as_chunks::<4>()
            .0
            .iter()
            .map(|&b| f64::from(f32::from_le_bytes(b)))
            .collect(),
        Dtype::F64 => bytes
            .as_chunks::<8>()
            .0
            .iter()
            .map(|&b| f64::from_le_bytes(b))
            .collect(),
        Dtype::I64 => bytes
            .as_chunks::<8>()
            .0
            .iter()
            .map(|&b| i64::from_le_bytes(b) as f64)
            .collect(),
        other => return Err(format!("{key} has type {other:?}").into()),
    })
}

fn load(path: &Path) -> Result<Fixture, Any> {
    let bytes = std::fs::read(path)?;
    let (_, metadata) = SafeTensors::read_metadata(&bytes)?;
    let file = SafeTensors::deserialize(&bytes)?;
    let description = metadata
        .metadata()
        .as_ref()
        .and_then(|m| m.get("network"))
        .ok_or("no metadata 'network'")?;
    let network: serde_json::Value = serde_json::from_str(description)?;
    let list = |key: &str| network[key].as_array().cloned().unwrap_or_default();
    let sizes: Vec<usize> = list("sizes")
        .iter()
        .filter_map(serde_json::Value::as_u64)
        .map(|n| n as usize)
        .collect();
    let mut layers = Sequential::new();
    for (&size, activation) in sizes[1..].iter().zip(list("activations")) {
        layers = layers.dense(size).activation(match activation.as_str() {
            Some("identity") => Activation::Identity,
            Some("tanh") => Activation::Tanh,
            Some("relu") => Activation::Relu,
            Some("sigmoid") => Activation::Sigmoid,
            Some("sin") => Activation::Sin,
            Some("softplus") => Activation::Softplus,
            Some("silu") => Activation::Silu,
            Some("gelu") => Activation::Gelu,
            _ => return Err(format!("unknown activation {activation}").into()),
        });
    }
    let loss = match network["loss"].as_str() {
        Some("cross-entropy") => Loss::SoftmaxCrossEntropy,
        Some("bce") => Loss::BinaryCrossEntropy,
        Some("mse") => Loss::MeanSquaredError,
        Some("poisson") => Loss::Poisson,
        _ => return Err(format!("unknown loss {}", network["loss"]).into()),
    };
    let (features, outputs) = (sizes[0], sizes[sizes.len() - 1]);
    let x: Vec<f32> = numbers(&file, "x")?.iter().map(|&v| v as f32).collect();
    let rows = x.len() / features;
    let has_targets = file.names().contains(&"t");
    let (shape, targets) = if !has_targets {
        (TargetShape::Inputs, Targets::Inputs)
    } else if loss == Loss::SoftmaxCrossEntropy {
        let labels = numbers(&file, "t")?.iter().map(|&v| v as u32).collect();
        (
            TargetShape::Classes(outputs),
            Targets::Classes {
                labels,
                classes: outputs,
            },
        )
    } else {
        let values = numbers(&file, "t")?.iter().map(|&v| v as f32).collect();
        (
            TargetShape::Values(outputs),
            Targets::Values {
                values,
                width: outputs,
            },
        )
    };
    let shape = DataShape {
        features,
        targets: shape,
    };
    let model = layers.model(shape, loss);
    let names: Vec<String> = model
        .trace(1)?
        .graph
        .parameters()
        .iter()
        .map(|p| p.name.clone())
        .collect();
    let all = |what: &str| -> Result<Tensors, Any> {
        names
            .iter()
            .map(|name| numbers(&file, &format!("{what}/{name}")))
            .collect()
    };
    let constant = match (&targets, loss) {
        (Targets::Values { values, .. }, Loss::Poisson) => {
            let term = |&t: &f32| {
                let t = f64::from(t);
                if t > 0.0 { t * t.ln() - t } else { 0.0 }
            };
            values.iter().map(term).sum::<f64>() / values.len() as f64
        }
        _ => 0.0,
    };
    Ok(Fixture {
        model,
        batch: Batch {
            features: x,
            targets,
            weights: vec![1.0 / rows as f32; rows],
        },
        theta: all("parameter")?,
        direction: all("direction")?,
        expected: Answers {
            // PyTorch leaves out what does not depend on the outputs.
            value: numbers(&file, "loss")?[0] + constant,
            gradient: all("gradient")?.concat(),
            hessian: all("hvp")?.concat(),
            gauss_newton: all("ggn")?.concat(),
            fisher: all("empirical_fisher_diagonal")?.concat(),
        },
    })
}

fn path_of(case: &str) -> PathBuf {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures");
    folder.join(format!("{case}.safetensors"))
}

fn near(what: &str, found: &[f64], expected: &[f64], tolerance: f64) -> Outcome {
    let error = relative_error(found, expected);
    if error.is_nan() || error > tolerance {
        return Err(format!("{what} is off by {error:.2e}").into());
    }
    Ok(())
}

/// What each example adds, in the twin and on the device; Kronecker factors and eigenvalues where the file has them.
fn statistics_agree(gpu: &Gpu, case: &str) -> Outcome {
    let Fixture {
        model,
        batch,
        theta: values,
        ..
    } = load(&path_of(case.trim_end_matches("-statistics")))?;
    let bytes = std::fs::read(path_of(case))?;
    let file = SafeTensors::deserialize(&bytes)?;
    let has = |key: &str| file.names().contains(&key);
    let rows = batch.len() as f64;
    let mut objective = GraphObjective::new(gpu, model.clone())?;
    let theta = vector(gpu, &objective, &values)?;
    let names: Vec<String> = objective
        .layout()
        .entries()
        .iter()
        .map(|e| e.name.clone())
        .collect();
    let loaded = objective.load(Slot::default(), &batch)?;
    let mut asked = vec![Quantity::KroneckerFactors, Quantity::GaussNewtonGram];
    asked.extend(NAMES.map(|(quantity, _)| quantity));
    let request = StatisticsRequest::of(&asked);
    let statistics = objective.statistics(&theta, &loaded, request)?;
    gpu.run([&statistics.run])?;
    let outputs = model.trace(1)?;
    let outputs: usize = outputs.graph.shape(outputs.outputs).iter().product();
    let twin = Examples::new(&model, &batch, &values, &vec![1.0; batch.len() * outputs])?;
    let of = |quantity| -> Result<(Tensors, Tensors), Any> {
        let found = statistics.get(quantity).ok_or("a quantity is missing")?;
        Ok((twin.quantity(quantity), wide_all(&found.read(gpu)?)))
    };
    for (quantity, key) in NAMES {
        let (twin, device) = of(quantity)?;
        let unit = if quantity == Quantity::Variance {
            rows * rows
        } else {
            1.0
        };
        for (index, name) in names.iter().enumerate() {
            let key = format!("{key}/{name}");
            let expected = numbers(&file, &key)?;
            let expected: Vec<f64> = expected.iter().map(|x| unit * x).collect();
            near(&format!("twin: {key}"), &twin[index], &expected, TWIN)?;
            near(&format!("device: {key}"), &device[index], &expected, DEVICE)?;
        }
    }
    let diagonal = hessian_diagonal(&mut objective, &theta, &loaded)?;
    for (name, found) in names.iter().zip(&diagonal) {
        let key = format!("diag_h/{name}");
        near(&key, &wide(found), &numbers(&file, &key)?, DEVICE)?;
    }
    if !has("ggn_eigenvalues") {
        return Ok(());
    }
    let (twin, device) = of(Quantity::KroneckerFactors)?;
    for (what, found, tolerance) in [("twin", &twin, TWIN), ("device", &device, DEVICE)] {
        for (at, pair) in found.chunks(2).enumerate() {
            // Ours has the bias as a last row and column.
            let order = (pair[0].len() as f64).sqrt() as usize;
            let inputs = pair[0].chunks(order).take(order - 1);
            let inputs: Vec<f64> = inputs.flat_map(|row| &row[..order - 1]).copied().collect();
            for (side, found) in [("rows", &inputs), ("columns", &pair[1])] {
                let key = format!("kflr/dense{at}.{side}");
                near(
                    &format!("{what}: {key}"),
                    found,
                    &numbers(&file, &key)?,
                    tolerance,
                )?;
            }
        }
    }
    let pairs = statistics.eigenpairs(gpu, usize::MAX)?;
    let found: Vec<f64> = pairs.iter().map(|pair| pair.value).collect();
    let expected = numbers(&file, "ggn_eigenvalues")?;
    let (there, rest) = expected.split_at(found.len());
    near("eigenvalues", &found, there, DEVICE)?;
    if rest.iter().any(|value| value.abs() > DEVICE * expected[0]) {
        return Err(format!("eigenvalues are missing: {rest:?}").into());
    }
    Ok(())
}

/// Loss, gradient, products and Fisher diagonal, in the twin and on the device.
fn torch_agrees(gpu: &Gpu, case: &str) -> Outcome {
    let path = path_of(case);
    let fixture = load(&path).map_err(|e| format!("{}: {e}", path.display()))?;
    let twin = Reference::new(&fixture.model, &fixture.batch, 0.0)?;
    let found = twin.answers(&fixture.theta, &fixture.direction)?;
    compare("twin", &found, &fixture.expected, TWIN)?;
    let fisher = twin.fisher_by_graph(&fixture.theta)?;
    let error = relative_error(&fisher, &fixture.expected.fisher);
    if error.is_nan() || error > TWIN {
        return Err(format!("twin: Fisher diagonal of the graph is off by {error:.2e}").into());
    }
    let mut objective = GraphObjective::new(gpu, fixture.model)?;
    let theta = vector(gpu, &objective, &fixture.theta)?;
    let (batch, v) = (&fixture.batch, &fixture.direction);
    let found = on_device(&mut objective, &theta, batch, v, true)?;
    compare("device", &found, &fixture.expected, DEVICE)?;
    Ok(())
}
