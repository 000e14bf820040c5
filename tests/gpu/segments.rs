//! Vectors that are longer than a binding: on a device whose bindings are small, they have the numbers of f64 and those of a device on
//! which they are one segment.

use std::sync::Arc;

use crate::harness::{GpuTest, Outcome, small};
use crate::reference::conjugate_gradients::{End, System};
use crate::reference::{bits, dot, flat, no_data, relative_error, wide};
use osculant::gpu::{Gpu, Recording, grid};
use osculant::kernels::vector::{combine, inner_products, partial_elements};
use osculant::linalg::{
    Basis, CgOptions, CgReport, Companion, ConjugateGradients, EigenOptions, Lanczos, Operator,
    Stop, Storage,
};
use osculant::nn::{DataShape, Init, Model, Output, TargetShape};
use osculant::objective::{Curvature, Curved, GraphObjective, QuadraticRequest, Slot};
use osculant::optim::{
    Adam, AdamOptions, AdaptiveDamping, LowRankSaddleFreeNewton, LrsfnOptions, NewtonCg,
    NewtonCgOptions, Optimizer, Preconditioner, Sgd, SgdOptions,
};
use osculant::random::Philox;
use osculant::vector::{Block, Layout, Vector};
use osculant::{Error, Result};
use rand::RngExt;

pub(crate) fn tests() -> Vec<GpuTest> {
    gpu_tests![
        vectors_of_several_segments_are_written_copied_and_read,
        sums_over_segments_are_those_of_f64,
        first_order_steps_have_the_bits_of_one_segment,
        conjugate_gradients_over_segments_are_those_of_f64,
        solves_over_segments_stop_where_those_of_one_stop,
        a_companion_walks_over_segments,
        newton_steps_over_segments_are_those_of_one,
        what_needs_one_binding_is_refused,
    ]
}

type Any = Box<dyn std::error::Error>;

/// Elements of a segment on the narrow device.
const SEGMENT: usize = 65_536;
/// Elements of its bindings: a few more, so that where segments begin is not where bindings end.
const BINDING: usize = SEGMENT + 14;
/// One segment, two that are full, a last one of sixteen vec4s, and several.
const LENGTHS: [usize; 4] = [SEGMENT, 2 * SEGMENT, 2 * SEGMENT + 64, 4 * SEGMENT + 20_032];

/// The same device with small bindings.
fn narrow(gpu: &Gpu) -> std::result::Result<Gpu, Any> {
    let limits = wgpu::Limits {
        max_storage_buffer_binding_size: 4 * BINDING as u64,
        ..gpu.limits().clone()
    };
    small::device(gpu, gpu.features(), limits)
}

fn numbers(n: usize, seed: u64, low: f32, high: f32) -> Vec<f32> {
    let mut random = Philox::new(seed, 1 << 44);
    (0..n).map(|_| random.random_range(low..high)).collect()
}

fn layout(shapes: &[usize]) -> Result<Arc<Layout>> {
    let named = shapes.iter().enumerate();
    let tensors: Vec<_> = named.map(|(i, &n)| (format!("t{i}"), vec![n])).collect();
    Layout::new(&tensors).map(Arc::new)
}

fn vector(gpu: &Gpu, layout: &Arc<Layout>, values: &[f32]) -> Result<Vector> {
    let vector = Vector::new(gpu, "values", layout)?;
    vector.write(gpu, &[values.to_vec()])?;
    Ok(vector)
}

fn vectors_of_several_segments_are_written_copied_and_read(gpu: &Gpu) -> Outcome {
    let gpu = &narrow(gpu)?;
    // Tensors across the ends of segments, and one that is longer than a binding.
    let layout = layout(&[60_000, 7, 3 * SEGMENT + 5, 10_000])?;
    let (from, to) = (
        Vector::new(gpu, "from", &layout)?,
        Vector::new(gpu, "to", &layout)?,
    );
    let lengths: Vec<usize> = (0..from.slice().segments())
        .map(|number| from.slice().segment(number).len())
        .collect();
    let last = layout.len() - 4 * SEGMENT;
    assert_eq!(lengths, [SEGMENT, SEGMENT, SEGMENT, SEGMENT, last]);
    let tensors: Vec<Vec<f32>> = (0..)
        .zip(layout.entries())
        .map(|(seed, entry)| numbers(entry.elements(), seed, -1.0, 1.0))
        .collect();
    from.write(gpu, &tensors)?;
    let mut copy = Recording::new();
    copy.copy(from.slice(), to.slice())?;
    gpu.submit(|recorder| recorder.replay(&copy))?;
    for vector in [&from, &to] {
        assert!(bits(&vector.read(gpu)?) == bits(&tensors));
    }
    // Gaps stay zero, whatever is read at once.
    let whole = gpu.read(&[to.slice(), from.slice(), &to.parts()[1]])?;
    assert!(whole[0] == whole[1] && whole[2] == tensors[1]);
    let gaps = whole[0].iter().filter(|&&x| x == 0.0).count();
    assert_eq!(gaps, layout.len() - layout.parameters());
    Ok(())
}

fn sums_over_segments_are_those_of_f64(gpu: &Gpu) -> Outcome {
    let narrow = narrow(gpu)?;
    for n in LENGTHS {
        let layout = layout(&[n])?;
        let (a, b) = (numbers(n, 1, -1.0, 1.0), numbers(n, 2, -0.5, 1.0));
        let mut found = Vec::new();
        for gpu in [gpu, &narrow] {
            let (x, y) = (vector(gpu, &layout, &a)?, vector(gpu, &layout, &b)?);
            let out = Vector::new(gpu, "combination", &layout)?;
            let (sums, factors) = (gpu.buffer("sums", 3)?, gpu.buffer("factors", 2)?);
            gpu.upload(&factors, 0, &[0.25f32, -2.0])?;
            let partials = gpu.buffer("partial sums", partial_elements(x.slice()))?;
            let (x, y) = (x.slice(), y.slice());
            let mut recording = Recording::new();
            inner_products(gpu, &mut recording, (&sums, 0), &partials, x, y)?;
            combine(gpu, &mut recording, out.slice(), x, y, (&factors, 0))?;
            gpu.submit(|recorder| recorder.replay(&recording))?;
            found.push((gpu.read(&[&sums])?.remove(0), bits(&out.read(gpu)?)));
        }
        assert_eq!(found[0].1, found[1].1, "{n}: combinations");
        if n <= BINDING {
            assert_eq!(found[0].0, found[1].0, "{n}: sums of one segment");
        }
        let (a, b) = (wide(&a), wide(&b));
        for (i, (p, q)) in [(&a, &b), (&a, &a), (&b, &b)].into_iter().enumerate() {
            let size: f64 = p.iter().zip(q).map(|(p, q)| (p * q).abs()).sum();
            let error = (f64::from(found[1].0[i]) - dot(p, q)).abs();
            assert!(error <= 1e-6 * size, "{n}: sum {i} is off by {error:.1e}");
        }
    }
    Ok(())
}

const NO_DATA: DataShape = DataShape {
    features: 0,
    targets: TargetShape::Inputs,
};

/// `f(x) = sum of d_i (x_i - 1)^2 / 2` over tensors of which a binding holds each but not all.
fn bowl() -> Model {
    const SIZES: [usize; 4] = [50_000, 130, 65_000, 49_999];
    Model::new(NO_DATA, |scope| {
        let parts = SIZES.iter().enumerate().map(|(number, &n)| {
            let x = scope.parameter(&format!("x{number}"), &[n, 1], Init::Normal(1.0));
            let d = scope.data((0..n).map(|i| [0.5, 1.0, 2.0][i % 3]).collect(), &[n, 1]);
            let off = x - 1.0;
            let loss = (off.square() * d).sum(&[0, 1]).reshape(&[1]) * 0.5;
            (loss, x.sum(&[0, 1]).reshape(&[1]))
        });
        let parts: Vec<_> = parts.collect();
        let rest = parts[1..].iter().copied();
        let (losses, outputs) = rest.fold(parts[0], |(a, b), (c, d)| (a + c, b + d));
        Output {
            losses,
            outputs,
            metric: None,
        }
    })
}

/// Elementwise kernels have the same bits wherever the elements are.
fn first_order_steps_have_the_bits_of_one_segment(gpu: &Gpu) -> Outcome {
    type Boxed = Box<dyn Optimizer<GraphObjective>>;
    let sgd = SgdOptions::default()
        .with_learning_rate(0.25)
        .with_momentum(0.5);
    let nesterov = sgd.clone().with_nesterov(true).with_weight_decay(0.01);
    let adam = AdamOptions::default().with_learning_rate(0.25);
    let adamw = adam.clone().with_weight_decay(0.01);
    let narrow = narrow(gpu)?;
    for which in 0..4 {
        let mut found = Vec::new();
        for gpu in [gpu, &narrow] {
            let mut optimizer: Boxed = match which {
                0 => Box::new(Sgd::new(sgd.clone())?),
                1 => Box::new(Sgd::new(nesterov.clone())?),
                2 => Box::new(Adam::new(adam.clone())?),
                _ => Box::new(Adam::new(adamw.clone())?),
            };
            let mut objective = GraphObjective::new(gpu, bowl())?;
            let theta = objective.initial_parameters(3)?;
            let start = theta.read(gpu)?;
            let mut norm = 0.0;
            for _ in 0..3 {
                let report = optimizer.step(&mut objective, &theta, &no_data())?;
                norm = report.gradient_norm;
            }
            let end = theta.read(gpu)?;
            let all = start.iter().flatten().zip(end.iter().flatten());
            let still = all.filter(|(a, b)| a.to_bits() == b.to_bits()).count();
            assert!(still < 100, "{still} elements have not moved");
            found.push((bits(&end), norm));
        }
        let name = ["SGD", "Nesterov", "Adam", "AdamW"][which];
        assert!(found[0].0 == found[1].0, "{name}: other bits");
        let off = (found[0].1 - found[1].1).abs();
        assert!(off <= 1e-6 * found[0].1, "{name}: other norm");
    }
    Ok(())
}

/// `y = d x`
const PRODUCT: &str = "
@group(0) @binding(0) var<storage, read_write> y: array<f32>;
@group(0) @binding(1) var<storage, read> d: array<f32>;
@group(0) @binding(2) var<storage, read> x: array<f32>;
@compute @workgroup_size(64)
fn main(@builtin(global_invocation_id) id: vec3<u32>, @builtin(num_workgroups) groups: vec3<u32>) {
    let i = id.x + id.y * groups.x * 64u;
    if (i < arrayLength(&y)) { y[i] = d[i] * x[i]; }
}
";

/// A diagonal system, in f32 numbers.
struct Problem {
    d: Vec<f32>,
    g: Vec<f32>,
    inverse: Option<Vec<f32>>,
    shift: f32,
    radius: Option<f32>,
    /// The first iterate.
    start: Option<Vec<f32>>,
    /// Whether a companion on the same system goes along, and gives the iterate.
    companion: bool,
}

impl Problem {
    fn new(n: usize) -> Self {
        Self {
            d: numbers(n, 3, 1.0, 5.0),
            g: numbers(n, 4, -1.0, 1.0),
            inverse: None,
            shift: 0.0,
            radius: None,
            start: None,
            companion: false,
        }
    }

    /// The solve on a device, with the iterate.
    fn solve(
        &self,
        gpu: &Gpu,
        options: &CgOptions,
    ) -> std::result::Result<(CgReport, Vec<f64>), Any> {
        let layout = layout(&[self.d.len()])?;
        let new = |label: &str| Vector::new(gpu, label, &layout);
        let (d, g) = (
            vector(gpu, &layout, &self.d)?,
            vector(gpu, &layout, &self.g)?,
        );
        let inverse = self.inverse.as_ref();
        let inverse = inverse.map(|i| vector(gpu, &layout, i)).transpose()?;
        let (input, output) = (new("direction")?, new("product")?);
        let kernel = gpu.pipeline("product", PRODUCT, &[])?;
        let mut multiply = Recording::new();
        for number in 0..input.slice().segments() {
            let parts = [&output, &d, &input].map(|vector| vector.slice().segment(number));
            let workgroups = grid(gpu.limits(), parts[0].len().div_ceil(64))?;
            let [y, d, x] = &parts;
            multiply.dispatch(gpu, &kernel, &[y, d, x], workgroups)?;
        }
        let operator = Operator {
            input,
            output,
            multiply: multiply.into(),
        };
        let companion = self.companion.then(|| Companion {
            gradient: g.clone(),
            product: operator.output.clone(),
            variance: None,
        });
        let cg = ConjugateGradients::with_companion(
            gpu,
            &operator,
            &g,
            inverse.as_ref(),
            options,
            &[],
            companion.as_ref(),
        )?;
        if let Some(start) = &self.start {
            cg.solution.write(gpu, std::slice::from_ref(start))?;
        }
        let nothing = Recording::new();
        let report = cg.solve(&nothing, self.shift, self.radius, self.start.is_some())?;
        Ok((report, flat(&cg.solution.read(gpu)?)))
    }

    /// Compares it with the same in f64.
    fn check(&self, gpu: &Gpu, what: &str, iterations: usize) -> Outcome {
        let n = self.d.len();
        let product = |x: &[f64]| -> Vec<f64> {
            let d = self.d.iter().map(|&d| f64::from(d) + f64::from(self.shift));
            d.zip(x).map(|(d, x)| d * x).collect()
        };
        let g = wide(&self.g);
        let inverse = self.inverse.as_deref().map(wide);
        let expected = System {
            product: &product,
            g: &g,
            inverse: inverse.as_deref(),
            start: self.start.as_deref().map_or(vec![0.0; n], wide),
            radius: self.radius.map(f64::from),
        }
        .solve(iterations);
        let stop = match expected.end {
            End::Cap => Stop::MaxIterations,
            End::Boundary => Stop::Boundary,
            End::NegativeCurvature => Stop::NegativeCurvature,
        };
        let (report, x) = self.solve(gpu, &only(iterations))?;
        let lengths = (report.model.len(), expected.model.len());
        if report.stop != stop || lengths.0 != lengths.1 {
            return Err(format!("{what}: {report:?}, not {stop:?} after {}", lengths.1 - 1).into());
        }
        let lowest = expected.model.iter().fold(0.0f64, |m, v| m.max(v.abs()));
        for (found, expected) in report.model.iter().zip(&expected.model) {
            if (found - expected).abs() > 1e-5 * lowest || !found.is_finite() {
                return Err(format!("{what}: the model is {found}, not {expected}").into());
            }
        }
        let error = relative_error(&x, &expected.x);
        if error.is_nan() || error > 1e-5 {
            return Err(format!("{what}: the iterate is off by {error:.2e}").into());
        }
        Ok(())
    }
}

/// No stop but the cap, the curvature and the boundary.
fn only(iterations: usize) -> CgOptions {
    CgOptions::default()
        .with_max_iterations(iterations)
        .with_progress_tolerance(0.0)
        .with_residual_tolerance(0.0)
}

fn conjugate_gradients_over_segments_are_those_of_f64(gpu: &Gpu) -> Outcome {
    let gpu = &narrow(gpu)?;
    for n in [LENGTHS[1], LENGTHS[3]] {
        Problem::new(n).check(gpu, &format!("n = {n}"), 6)?;
    }
    let n = LENGTHS[3];
    let mut problem = Problem::new(n);
    problem.start = Some((0..n).map(|i| 0.25 * (i % 9) as f32 - 1.0).collect());
    problem.check(gpu, "warm", 6)?;
    problem.start = None;
    problem.inverse = Some((0..n).map(|i| 0.2 + (i % 5) as f32 * 0.25).collect());
    problem.shift = 0.5;
    problem.check(gpu, "preconditioned", 6)?;
    problem.radius = Some(40.0);
    problem.check(gpu, "region", 6)?;
    let mut indefinite = Problem::new(n);
    for d in indefinite.d.iter_mut().step_by(11) {
        *d = -2.0;
    }
    indefinite.check(gpu, "indefinite", 20)?;
    indefinite.radius = Some(1000.0);
    indefinite.check(gpu, "indefinite, region", 20)
}

/// Small residuals, little progress, a gradient of zeros and one that is not finite.
fn solves_over_segments_stop_where_those_of_one_stop(gpu: &Gpu) -> Outcome {
    let narrow = narrow(gpu)?;
    let n = LENGTHS[3];
    let residual = only(20).with_residual_tolerance(1e-3);
    let progress = only(60).with_progress_tolerance(1e-4);
    let mut zero = Problem::new(n);
    zero.g = vec![0.0; n];
    let mut infinite = Problem::new(n);
    infinite.g[n - 1] = f32::INFINITY;
    for (problem, options, stop) in [
        (Problem::new(n), &residual, Stop::Residual),
        (Problem::new(n), &progress, Stop::RelativeProgress),
        (zero, &residual, Stop::Residual),
        (infinite, &residual, Stop::NotFinite),
    ] {
        let (one, x) = problem.solve(gpu, options)?;
        let (several, y) = problem.solve(&narrow, options)?;
        assert_eq!((one.stop, several.stop), (stop, stop));
        assert_eq!(one.iterations, several.iterations, "{stop:?}");
        let error = relative_error(&x, &y);
        assert!(
            error <= 1e-5,
            "{stop:?}: the iterates differ by {error:.1e}"
        );
    }
    Ok(())
}

fn a_companion_walks_over_segments(gpu: &Gpu) -> Outcome {
    let gpu = &narrow(gpu)?;
    let mut problem = Problem::new(LENGTHS[2]);
    problem.companion = true;
    problem.check(gpu, "cold", 6)?;
    problem.start = Some(vec![0.5; LENGTHS[2]]);
    problem.check(gpu, "warm", 6)
}

/// Steps with the judge's candidates, a preconditioner and a warm start.
fn newton_steps_over_segments_are_those_of_one(gpu: &Gpu) -> Outcome {
    let narrow = narrow(gpu)?;
    let options = NewtonCgOptions::default()
        .with_curvature(Curvature::Hessian)
        .with_damping(AdaptiveDamping::default().with_initial(0.5))
        .with_preconditioner(Preconditioner::EmpiricalFisher { exponent: 0.75 })
        .with_cg(only(4));
    let mut found = Vec::new();
    for gpu in [gpu, &narrow] {
        let mut objective = GraphObjective::new(gpu, bowl())?;
        let theta = objective.initial_parameters(3)?;
        let mut newton = NewtonCg::new(options.clone())?;
        let mut losses = Vec::new();
        for _ in 0..2 {
            let report = newton.step(&mut objective, &theta, &no_data())?;
            assert!(report.accepted);
            losses.push(report.loss_before);
        }
        found.push((flat(&theta.read(gpu)?), losses));
    }
    let error = relative_error(&found[1].0, &found[0].0);
    assert!(error <= 1e-5, "the parameters differ by {error:.1e}");
    let error = relative_error(&found[1].1, &found[0].1);
    assert!(error <= 1e-5, "the losses differ by {error:.1e}");
    Ok(())
}

fn what_needs_one_binding_is_refused(gpu: &Gpu) -> Outcome {
    let gpu = &narrow(gpu)?;
    let refused = |outcome: Result<()>, what: &str| match outcome {
        Err(Error::OverLimit {
            what: found,
            limit_name: "max_storage_buffer_binding_size",
            limit,
            ..
        }) => {
            assert!(found.contains(what), "{found}");
            assert_eq!(limit, 4 * BINDING as u64);
        }
        other => assert!(other.is_err_and(|_| false), "{what}: no refusal"),
    };
    let n = 2 * SEGMENT;
    let layout = layout(&[n])?;
    refused(Block::new(gpu, "rows", &layout, 2).map(|_| ()), "'rows'");
    for storage in [Storage::Full, Storage::Half] {
        let basis = Basis::new(gpu, &layout, 3, storage);
        refused(basis.map(|_| ()), "eigenvectors");
    }
    let operator = Operator {
        input: Vector::new(gpu, "direction", &layout)?,
        output: Vector::new(gpu, "product", &layout)?,
        multiply: Recording::new().into(),
    };
    refused(Lanczos::new(gpu, &operator, 3).map(|_| ()), "vector");
    // A tensor of a graph, wherever its vector is from.
    let model = Model::new(NO_DATA, move |scope| {
        let x = scope.parameter("long", &[n, 1], Init::Constant(1.0));
        Output {
            losses: x.square().sum(&[0, 1]).reshape(&[1]),
            outputs: x,
            metric: None,
        }
    });
    let mut objective = GraphObjective::new(gpu, model)?;
    refused(objective.initial_parameters(1).map(|_| ()), "'long'");
    let theta = Vector::new(
        gpu,
        "theta",
        &Arc::new(Layout::new(&[("long".into(), vec![n, 1])])?),
    )?;
    let request = QuadraticRequest {
        curvature: Curvature::Hessian,
        ..QuadraticRequest::default()
    };
    let quadratic = objective.load_quadratic(Slot::default(), &theta, &no_data(), request);
    refused(quadratic.map(|_| ()), "'long'");
    let mut sgd = Sgd::new(SgdOptions::default())?;
    let step = sgd.step(&mut objective, &theta, &no_data());
    refused(step.map(|_| ()), "'long'");
    // A method with blocks of vectors, where a first-order method works.
    let mut objective = GraphObjective::new(gpu, bowl())?;
    let theta = objective.initial_parameters(1)?;
    let before = bits(&theta.read(gpu)?);
    let eigen = EigenOptions::default().with_rank(2).with_oversampling(2);
    let mut lrsfn = LowRankSaddleFreeNewton::new(LrsfnOptions::default().with_eigen(eigen))?;
    let readbacks = gpu.readbacks();
    let step = lrsfn.step(&mut objective, &theta, &no_data());
    refused(step.map(|_| ()), "block");
    assert_eq!(gpu.readbacks(), readbacks, "something was computed");
    assert!(bits(&theta.read(gpu)?) == before, "theta changed");
    gpu.check()?;
    Ok(())
}
