//! Vectors of 10^8 parameters, 400 MB, where a binding holds 128 MiB: inner products, conjugate gradients with a diagonal operator and
//! steps of Adam against formulas in f64.
//!
//! It takes five such vectors, and runs on one software adapter, where there is memory for them.

use std::sync::Arc;

use crate::harness::{GpuTest, Outcome, small};
use osculant::Result;
use osculant::gpu::{Gpu, Recording, Slice, grid};
use osculant::kernels::vector::{inner_products, partial_elements};
use osculant::linalg::{CgOptions, ConjugateGradients, Operator, Stop};
use osculant::objective::{Cost, Gradient, GradientRequest, Loaded, Objective, Slot};
use osculant::optim::{Adam, AdamOptions, Optimizer};
use osculant::vector::{Layout, Vector};

pub(crate) fn tests() -> Vec<GpuTest> {
    gpu_tests![a_hundred_million_parameters]
}

type Any = Box<dyn std::error::Error>;

const PARAMETERS: usize = 100_000_000;
/// Bytes of a binding: WebGPU's default.
const BINDING: u64 = 128 << 20;
/// Free memory that the test asks for: five vectors in the driver, two on the host, and something for others.
const MEMORY: u64 = 6 << 30;

/// `y[i] = value(i, place of i in the vector)`, with numbers that depend on the place alone.
const KERNEL: &str = "
override FIRST: u32 = 0u;
@group(0) @binding(0) var<storage, read_write> y: array<f32>;
fn number(i: u32, seed: u32) -> f32 {
    var h = (i * 0x9e3779b9u) ^ seed;
    h = (h ^ (h >> 16u)) * 0x85ebca6bu;
    return f32((h ^ (h >> 13u)) >> 16u) / 65536.0;
}
//-- operands
@compute @workgroup_size(64)
fn main(@builtin(global_invocation_id) id: vec3<u32>, @builtin(num_workgroups) groups: vec3<u32>) {
    let i = id.x + id.y * groups.x * 64u;
    if (i < arrayLength(&y)) { y[i] = value(i, FIRST + i); }
}
";

/// A number in 0..1, of sixteen bits, so that it is the same on both sides.
fn number(i: usize, seed: u32) -> f64 {
    let mut h = (i as u32).wrapping_mul(0x9e37_79b9) ^ seed;
    h = (h ^ (h >> 16)).wrapping_mul(0x85eb_ca6b);
    f64::from((h ^ (h >> 13)) >> 16) / 65536.0
}

const GRADIENT: u32 = 17;
const CURVATURE: u32 = 41;

/// In -1..1.
fn gradient(i: usize) -> f64 {
    2.0 * number(i, GRADIENT) - 1.0
}

/// In 1..3.
fn curvature(i: usize) -> f64 {
    1.0 + 2.0 * number(i, CURVATURE)
}

/// Records `y[i] = value(i, place in the vector)` over all segments.
fn fill(
    gpu: &Gpu,
    recording: &mut Recording,
    value: &str,
    y: &Vector,
    x: Option<&Vector>,
) -> Result<()> {
    let mut operands = format!("fn value(i: u32, at: u32) -> f32 {{ return {value}; }}");
    if x.is_some() {
        operands += "\n@group(0) @binding(1) var<storage, read> x: array<f32>;";
    }
    let text = KERNEL.replace("//-- operands", &operands);
    let mut first = 0;
    for number in 0..y.slice().segments() {
        let parts = [Some(y), x].map(|v| v.map(|v| v.slice().segment(number)));
        let bindings: Vec<&Slice> = parts.iter().flatten().collect();
        let len = bindings[0].len();
        let kernel = gpu.pipeline("fill", &text, &[("FIRST", first as f64)])?;
        recording.dispatch(
            gpu,
            &kernel,
            &bindings,
            grid(gpu.limits(), len.div_ceil(64))?,
        )?;
        first += len;
    }
    Ok(())
}

/// Free memory, in bytes, where the system tells.
fn free_memory() -> Option<u64> {
    let text = std::fs::read_to_string("/proc/meminfo").ok()?;
    let line = text
        .lines()
        .find(|line| line.starts_with("MemAvailable:"))?;
    let kib: u64 = line.split_whitespace().nth(1)?.parse().ok()?;
    Some(kib << 10)
}

fn a_hundred_million_parameters(gpu: &Gpu) -> Outcome {
    let info = gpu.info();
    if info.backend != "vulkan" || !info.name.contains("llvmpipe") {
        return Ok(());
    }
    let free = free_memory().unwrap_or(0);
    if free < MEMORY {
        eprintln!(
            "10^8 parameters: not tried with {} MiB of free memory",
            free >> 20
        );
        return Ok(());
    }
    let limits = wgpu::Limits {
        max_storage_buffer_binding_size: BINDING,
        ..gpu.limits().clone()
    };
    let gpu = &small::device(gpu, gpu.features(), limits)?;
    let layout = Arc::new(Layout::new(&[("all".into(), vec![PARAMETERS])])?);
    let first = Vector::new(gpu, "first", &layout)?;
    assert_eq!(first.slice().segments(), 3);
    is_read_as_written(gpu, &first)?;
    // What was written serves as the direction.
    solves(gpu, first)?;
    adam_steps(gpu, &layout)
}

fn is_read_as_written(gpu: &Gpu, vector: &Vector) -> Outcome {
    let values = vec![(0..PARAMETERS).map(|i| i as f32).collect::<Vec<f32>>()];
    vector.write(gpu, &values)?;
    assert!(vector.read(gpu)? == values, "other numbers are read");
    Ok(())
}

/// Elements around the ends of segments, and some between.
fn sample(gpu: &Gpu, vector: &Vector) -> std::result::Result<Vec<(usize, f64)>, Any> {
    let slice = vector.slice();
    let segment = slice.segment(0).len();
    let starts = (1..slice.segments()).map(|number| number * segment - 64);
    let between = (0..PARAMETERS - 128).step_by(PARAMETERS / 50 / 64 * 64);
    let starts = starts.chain(between).chain([PARAMETERS - 128]);
    let starts: Vec<usize> = starts.map(|start| start / 64 * 64).collect();
    let parts: Vec<Slice> = starts
        .iter()
        .map(|&start| slice.slice(start..start + 128))
        .collect::<Result<_>>()?;
    let read = gpu.read(&parts.iter().collect::<Vec<_>>())?;
    let places = starts.iter().zip(read);
    let numbers = places.flat_map(|(start, values)| {
        let values = values.into_iter().enumerate();
        values.map(move |(i, value)| (start + i, f64::from(value)))
    });
    Ok(numbers.collect())
}

fn near(what: &str, found: f64, expected: f64, tolerance: f64) -> Outcome {
    let error = (found - expected).abs();
    if error.is_nan() || error > tolerance {
        return Err(format!("{what} is {found}, not {expected}").into());
    }
    Ok(())
}

/// An iteration on a diagonal matrix from sums of `g^2 d^k`: `x = -alpha g`, and the residual is `(1 - alpha d) g`.
fn solves(gpu: &Gpu, input: Vector) -> Outcome {
    let layout = input.layout();
    let g = Vector::new(gpu, "gradient", layout)?;
    let output = Vector::new(gpu, "product", layout)?;
    let mut run = Recording::new();
    let number = |seed: u32| format!("number(at, {seed}u)");
    let d = format!("(1.0 + 2.0 * {})", number(CURVATURE));
    fill(
        gpu,
        &mut run,
        &format!("2.0 * {} - 1.0", number(GRADIENT)),
        &g,
        None,
    )?;
    fill(gpu, &mut run, &d, &input, None)?;
    let sums = gpu.buffer("sums", 3)?;
    let partials = gpu.buffer("partial sums", partial_elements(g.slice()))?;
    let (x, y) = (g.slice(), input.slice());
    inner_products(gpu, &mut run, (&sums, 0), &partials, x, y)?;
    gpu.submit(|recorder| recorder.replay(&run))?;
    // g^2 d^k for k = 0..3; g d and d^2.
    let (mut s, mut gd, mut dd) = ([0.0f64; 3], 0.0, 0.0);
    for i in 0..PARAMETERS {
        let (g, d) = (gradient(i), curvature(i));
        let square = g * g;
        let along = square * d;
        gd += g * d;
        dd += d * d;
        for (s, term) in s.iter_mut().zip([square, along, along * d]) {
            *s += term;
        }
    }
    let found = gpu.read(&[&sums])?.remove(0);
    // Terms of g d have both signs: the bound is of their sizes.
    let sizes = f64::sqrt(s[0] * dd);
    for (found, expected, size) in [
        (found[0], gd, sizes),
        (found[1], s[0], s[0]),
        (found[2], dd, dd),
    ] {
        near("a sum", f64::from(found), expected, 1e-5 * size)?;
    }
    let mut multiply = Recording::new();
    fill(
        gpu,
        &mut multiply,
        &format!("{d} * x[i]"),
        &output,
        Some(&input),
    )?;
    let operator = Operator {
        input,
        output,
        multiply: multiply.into(),
    };
    let options = CgOptions::default()
        .with_max_iterations(1)
        .with_progress_tolerance(0.0)
        .with_residual_tolerance(0.0);
    let cg = ConjugateGradients::new(gpu, &operator, &g, None, &options, &[])?;
    let report = cg.solve(&Recording::new(), 0.0, None, false)?;
    assert_eq!((report.stop, report.iterations), (Stop::MaxIterations, 1));
    let a = s[0] / s[1];
    let square = 1.0 - 2.0 * a * s[1] / s[0] + a * a * s[2] / s[0];
    let found = f64::from(report.relative_residual);
    near("the residual", found, square.sqrt(), 1e-5)?;
    for (i, found) in sample(gpu, &cg.solution)? {
        let expected = -a * gradient(i);
        near(
            &format!("x[{i}]"),
            found,
            expected,
            1e-5 * gradient(i).abs(),
        )?;
    }
    let model = -0.5 * a * s[0];
    let found = report.model.last().copied().unwrap_or(0.0);
    near("the model", found, model, 1e-5 * model.abs())
}

/// `sum of d_i x_i^2 / 2`, of which it tells the gradient, and 1 as its value.
struct Bowl {
    gpu: Gpu,
    layout: Arc<Layout>,
    gradient: Option<Arc<Gradient>>,
}

impl Objective for Bowl {
    type Batch = ();

    fn gpu(&self) -> &Gpu {
        &self.gpu
    }

    fn layout(&self) -> &Arc<Layout> {
        &self.layout
    }

    fn load(&mut self, slot: Slot, (): &()) -> Result<Loaded> {
        Ok(Loaded {
            slot,
            rows: 1,
            examples: 1,
            groups: 1,
        })
    }

    fn gradient(
        &mut self,
        at: &Vector,
        loaded: &Loaded,
        _: GradientRequest,
    ) -> Result<Arc<Gradient>> {
        if let Some(known) = &self.gradient {
            return Ok(Arc::clone(known));
        }
        let value = self.gpu.buffer("loss", 1)?;
        self.gpu.upload(&value, 0, &[1.0f32])?;
        let gradient = Vector::new(&self.gpu, "gradient", &self.layout)?;
        let mut run = Recording::new();
        let product = format!("(1.0 + 2.0 * number(at, {CURVATURE}u)) * x[i]");
        fill(&self.gpu, &mut run, &product, &gradient, Some(at))?;
        let gradient = Arc::new(Gradient {
            value,
            gradient,
            run: run.into(),
            losses: None,
            cost: Cost::default(),
            loaded: *loaded,
        });
        Ok(Arc::clone(self.gradient.insert(gradient)))
    }
}

/// Two steps from a point in 2..3.
fn adam_steps(gpu: &Gpu, layout: &Arc<Layout>) -> Outcome {
    let theta = Vector::new(gpu, "theta", layout)?;
    let mut start = Recording::new();
    let value = format!("2.0 + number(at, {GRADIENT}u)");
    fill(gpu, &mut start, &value, &theta, None)?;
    gpu.submit(|recorder| recorder.replay(&start))?;
    let mut objective = Bowl {
        gpu: gpu.clone(),
        layout: Arc::clone(layout),
        gradient: None,
    };
    let options = AdamOptions::default()
        .with_learning_rate(0.25)
        .with_beta1(0.5)
        .with_beta2(0.75);
    let mut adam = Adam::new(options)?;
    for _ in 0..2 {
        adam.step(&mut objective, &theta, &())?;
    }
    for (i, found) in sample(gpu, &theta)? {
        let (mut x, mut m, mut v) = (2.0 + number(i, GRADIENT), 0.0, 0.0f64);
        for step in 1..=2 {
            let g = curvature(i) * x;
            m = 0.5 * m + 0.5 * g;
            v = 0.75 * v + 0.25 * g * g;
            let mean = m / (1.0 - 0.5f64.powi(step));
            x -= 0.25 * mean / ((v / (1.0 - 0.75f64.powi(step))).sqrt() + 1e-8);
        }
        near(&format!("theta[{i}]"), found, x, 2e-6)?;
    }
    Ok(())
}
