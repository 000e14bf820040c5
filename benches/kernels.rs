//! Speeds of single kernels: matrix products by kernel and shape, and the vector operations that conjugate gradients are made of.

use criterion::{Criterion, Throughput, criterion_group, criterion_main};
use osculant::gpu::{Gpu, Recording, grid};
use osculant::kernels::autotune::{Bench, Product, candidates};
use osculant::kernels::tuning::{Capabilities, Layout};

/// Batch, rows, columns, terms, layout.
const PRODUCTS: [(usize, usize, usize, usize, Layout); 10] = [
    (1, 512, 512, 512, Layout::Nn),
    (1, 512, 512, 512, Layout::Nt),
    (1, 512, 512, 512, Layout::Tn),
    (1, 1024, 1024, 1024, Layout::Nn),
    (1, 256, 128, 784, Layout::Nn),
    (1, 784, 128, 256, Layout::Tn),
    (1, 256, 784, 128, Layout::Nt),
    (1, 256, 10, 128, Layout::Nn),
    (1, 64, 32, 64, Layout::Nn),
    (32, 256, 128, 784, Layout::Nn),
];

/// Elements of the vectors: 64 MiB each, more than caches hold.
const ELEMENTS: usize = 1 << 24;

const AXPY: &str = "
@group(0) @binding(0) var<storage, read_write> y: array<vec4<f32>>;
@group(0) @binding(1) var<storage, read> x: array<vec4<f32>>;
@compute @workgroup_size(64)
fn main(@builtin(global_invocation_id) id: vec3<u32>, @builtin(num_workgroups) groups: vec3<u32>) {
    let i = id.x + id.y * groups.x * 64u;
    if (i < arrayLength(&y)) {
        y[i] = fma(vec4<f32>(1.5), x[i], y[i]);
    }
}";

const DOT_PRODUCT: &str = "
@group(0) @binding(0) var<storage, read_write> partial: array<f32>;
@group(0) @binding(1) var<storage, read> x: array<vec4<f32>>;
@group(0) @binding(2) var<storage, read> y: array<vec4<f32>>;
@compute @workgroup_size(64)
fn main(@builtin(global_invocation_id) id: vec3<u32>, @builtin(num_workgroups) groups: vec3<u32>) {
    let count = groups.x * 64u;
    var sum = 0.0;
    for (var i = id.x; i < arrayLength(&x); i += count) {
        sum += dot(x[i], y[i]);
    }
    partial[id.x] = sum;
}";

fn products(criterion: &mut Criterion, gpu: &Gpu) -> osculant::Result<()> {
    let capabilities = Capabilities::of(gpu);
    for (batch, m, n, k, layout) in PRODUCTS {
        let product = Product {
            batch,
            m,
            n,
            k,
            layout,
        };
        let bench = Bench::new(gpu, product)?;
        let mut group = criterion.benchmark_group(format!("dot {batch}x{m}x{n}x{k} {layout}"));
        group.sample_size(10);
        for family in candidates(&capabilities, &product) {
            let (recording, together) = bench.record(gpu, family)?;
            group.throughput(Throughput::Elements(
                (product.flops() * together as f64) as u64,
            ));
            run(gpu, &recording)?;
            group.bench_function(family.to_string(), |b| b.iter(|| run(gpu, &recording)));
        }
        group.finish();
    }
    Ok(())
}

fn vectors(criterion: &mut Criterion, gpu: &Gpu) -> osculant::Result<()> {
    let ones = vec![1.0f32; ELEMENTS];
    let (x, y) = (gpu.buffer("x", ELEMENTS)?, gpu.buffer("y", ELEMENTS)?);
    gpu.upload(&x, 0, &ones)?;
    gpu.upload(&y, 0, &ones)?;
    let mut group = criterion.benchmark_group("vectors of 2^24");
    group.sample_size(10);

    let pipeline = gpu.pipeline("axpy", AXPY, &[])?;
    let mut axpy = Recording::new();
    let workgroups = ELEMENTS.div_ceil(4 * 64);
    axpy.dispatch(gpu, &pipeline, &[&y, &x], grid(gpu.limits(), workgroups)?)?;
    run(gpu, &axpy)?;
    group.throughput(Throughput::Bytes(12 * ELEMENTS as u64));
    group.bench_function("y += 1.5 x", |b| b.iter(|| run(gpu, &axpy)));

    let pipeline = gpu.pipeline("dot product", DOT_PRODUCT, &[])?;
    let mut dot = Recording::new();
    let partial = gpu.buffer("partial sums", 64 * 64)?;
    dot.dispatch(gpu, &pipeline, &[&partial, &x, &y], grid(gpu.limits(), 64)?)?;
    run(gpu, &dot)?;
    group.throughput(Throughput::Bytes(8 * ELEMENTS as u64));
    group.bench_function("x . y", |b| b.iter(|| run(gpu, &dot)));
    group.finish();
    Ok(())
}

fn run(gpu: &Gpu, recording: &Recording) -> osculant::Result<()> {
    gpu.submit(|recorder| recorder.replay(recording))?;
    gpu.wait()
}

fn all(criterion: &mut Criterion) {
    let outcome = Gpu::new().and_then(|gpu| {
        products(criterion, &gpu)?;
        vectors(criterion, &gpu)
    });
    if let Err(error) = outcome {
        eprintln!("{error}");
        std::process::exit(1);
    }
}

criterion_group!(benches, all);
criterion_main!(benches);
