//! Times of linearization, Gauss-Newton product and Hessian product at a fixed quadratic, for the networks of docs/benchmarks.md.

use criterion::{Criterion, criterion_group, criterion_main};
use osculant::data::{Dataset, Targets};
use osculant::gpu::{Gpu, Work};
use osculant::nn::{Activation, Loss, Sequential};
use osculant::objective::{Curvature, Curved, GraphObjective, QuadraticRequest, Slot};

/// Name, sizes, activation, examples; an autoencoder where input and output sizes agree.
const NETWORKS: [(&str, &[usize], Activation, usize); 4] = [
    (
        "digits-mlp 64-32-10, batch 64",
        &[64, 32, 10],
        Activation::Tanh,
        64,
    ),
    (
        "mlp 784-128-10, batch 256",
        &[784, 128, 10],
        Activation::Relu,
        256,
    ),
    (
        "autoencoder 784-32-784, batch 64",
        &[784, 32, 784],
        Activation::Softplus,
        64,
    ),
    (
        "mlp 1024-1024-1024-10, batch 256",
        &[1024, 1024, 1024, 10],
        Activation::Tanh,
        256,
    ),
];

fn objective(
    gpu: &Gpu,
    sizes: &[usize],
    activation: Activation,
    rows: usize,
) -> osculant::Result<(GraphObjective, Dataset)> {
    let features = (0..rows * sizes[0])
        .map(|i| ((i * 7919) % 1000) as f32 / 1000.0)
        .collect();
    let autoencoder = sizes.first() == sizes.last();
    let targets = if autoencoder {
        Targets::Inputs
    } else {
        Targets::Classes {
            labels: (0..rows as u32).map(|i| i % 10).collect(),
            classes: 10,
        }
    };
    let dataset = Dataset::new("synthetic", features, sizes[0], targets)?;
    let mut network = Sequential::new();
    for (layer, &outputs) in sizes[1..].iter().enumerate() {
        network = network.dense(outputs);
        if layer + 2 < sizes.len() {
            network = network.activation(activation);
        }
    }
    let loss = if autoencoder {
        Loss::MeanSquaredError
    } else {
        Loss::SoftmaxCrossEntropy
    };
    if autoencoder {
        network = network.activation(Activation::Sigmoid);
    }
    Ok((
        GraphObjective::new(gpu, network.model(&dataset, loss))?,
        dataset,
    ))
}

fn products(criterion: &mut Criterion) -> osculant::Result<()> {
    let gpu = Gpu::new()?;
    for (name, sizes, activation, rows) in NETWORKS {
        let (mut objective, dataset) = objective(&gpu, sizes, activation, rows)?;
        let theta = objective.initial_parameters(0)?;
        let batch = dataset.full_batch();
        let mut group = criterion.benchmark_group(name);
        group.sample_size(20);
        let run = |work: &Work| gpu.run([work]).and_then(|()| gpu.wait());
        for (label, curvature) in [
            ("gradient", Curvature::None),
            ("gauss-newton", Curvature::GaussNewton),
            ("hessian", Curvature::Hessian),
        ] {
            let request = QuadraticRequest {
                curvature,
                fisher_diagonal: false,
                ..QuadraticRequest::default()
            };
            let quadratic = objective.load_quadratic(Slot::default(), &theta, &batch, request)?;
            run(&quadratic.linearize)?;
            group.bench_function(format!("{label}: linearize"), |b| {
                b.iter(|| run(&quadratic.linearize))
            });
            if curvature != Curvature::None {
                group.bench_function(format!("{label}: product"), |b| {
                    b.iter(|| run(&quadratic.multiply))
                });
            }
        }
        group.finish();
    }
    Ok(())
}

fn all(criterion: &mut Criterion) {
    if let Err(error) = products(criterion) {
        eprintln!("{error}");
        std::process::exit(1);
    }
}

criterion_group!(benches, all);
criterion_main!(benches);
