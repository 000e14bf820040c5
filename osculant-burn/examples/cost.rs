//! What a step of Newton-CG with ten iterations costs, in gradients: burn's gradient, waited for, is one.

use std::error::Error;
use std::time::Instant;

use burn::module::Module;
use burn::nn::{Linear, LinearConfig};
use burn::tensor::activation::log_softmax;
use burn::tensor::{Device, DeviceKind, Distribution, Tensor};
use osculant::linalg::CgOptions;
use osculant::nn::Loss;
use osculant::objective::Curvature;
use osculant::optim::{NewtonCg, NewtonCgOptions};
use osculant_burn::{ModuleObjective, SharedDevice};

const ITERATIONS: usize = 10;
const CLASSES: usize = 10;
/// Runs that are not timed, and gradients that are, on either side of a run.
const WARM_UP: usize = 3;
const GRADIENTS: usize = 5;

/// Dense layers with tanh between them.
#[derive(Module, Debug)]
struct Mlp {
    layers: Vec<Linear>,
}

impl Mlp {
    fn new(widths: &[usize], device: &Device) -> Self {
        let layers = widths.windows(2);
        Self {
            layers: layers
                .map(|w| LinearConfig::new(w[0], w[1]).init(device))
                .collect(),
        }
    }

    fn forward(&self, x: Tensor<2>) -> Tensor<2> {
        let last = self.layers.len() - 1;
        let layers = self.layers.iter().enumerate();
        layers.fold(x, |x, (at, layer)| match layer.forward(x) {
            z if at < last => z.tanh(),
            z => z,
        })
    }
}

fn cross_entropy(z: Tensor<2>, wanted: Tensor<2>) -> Tensor<1> {
    let rows = z.dims()[0] as f32;
    (log_softmax(z, 1) * wanted).sum() / -rows
}

type Any = Box<dyn Error>;

/// Something to be timed, and the iterations that it had.
type Act<'a> = &'a mut dyn FnMut() -> Result<usize, Any>;

/// Milliseconds of so many runs in turn, each.
fn milliseconds(runs: usize, act: Act<'_>) -> Result<f64, Any> {
    let start = Instant::now();
    (0..runs).try_for_each(|_| act().map(drop))?;
    Ok(1e3 * start.elapsed().as_secs_f64() / runs as f64)
}

/// What the runs with the most iterations took.
struct Found {
    iterations: usize,
    /// Milliseconds.
    time: f64,
    gradients: f64,
}

/// Medians of some runs, after others: of those that had the most iterations. Gradients are timed before and after each run, so that what else
/// the machine does counts on both sides.
fn median(runs: usize, gradient: Act<'_>, act: Act<'_>) -> Result<Found, Any> {
    milliseconds(WARM_UP, act)?;
    let mut all = Vec::new();
    for _ in 0..runs {
        let before = milliseconds(GRADIENTS, gradient)?;
        let mut iterations = 0;
        let time = milliseconds(1, &mut || {
            iterations = act()?;
            Ok(iterations)
        })?;
        let after = milliseconds(GRADIENTS, gradient)?;
        all.push((iterations, time, 2.0 * time / (before + after)));
    }
    let most = all.iter().map(|run| run.0).max().unwrap_or(0);
    all.retain(|run| run.0 == most);
    let middle = |of: fn(&(usize, f64, f64)) -> f64| {
        let mut values: Vec<f64> = all.iter().map(of).collect();
        values.sort_by(f64::total_cmp);
        values[values.len() / 2]
    };
    Ok(Found {
        iterations: most,
        time: middle(|run| run.1),
        gradients: middle(|run| run.2),
    })
}

fn measure(shared: &SharedDevice, widths: &[usize], rows: usize, runs: usize) -> Result<(), Any> {
    let device = shared.device();
    let x = Tensor::<2>::random([rows, widths[0]], Distribution::Uniform(-1.0, 1.0), &device);
    // The class of a row is the largest of its first numbers.
    let largest = x.clone().narrow(1, 0, CLASSES).argmax(1).flatten::<1>(0, 1);
    let wanted = largest.one_hot::<2>(CLASSES).float();
    let module = Mlp::new(widths, &device);
    let wait = || device.sync().map_err(|error| format!("{error:?}"));

    let mut gradient = || {
        let loss = cross_entropy(module.forward(x.clone()), wanted.clone());
        let gradients = loss.backward();
        let first = module.layers[0].weight.val().grad(&gradients);
        wait()?;
        first.map(|_| 0).ok_or_else(|| "no gradient".into())
    };
    milliseconds(WARM_UP, &mut gradient)?;
    let mut forward = || {
        let loss = cross_entropy(module.clone().valid().forward(x.clone()), wanted.clone());
        wait()?;
        drop(loss);
        Ok(0)
    };
    println!("{widths:?}, {rows} rows");
    let found = median(runs, &mut gradient, &mut forward)?;
    println!(
        "  a gradient {:.2} ms, a forward pass {:.2} of it",
        found.time / found.gradients,
        found.gradients
    );

    let tell = |name: &str, found: &Found| {
        println!(
            "  {name:<24} {:9.2} ms = {:5.1} gradients, {} iterations",
            found.time, found.gradients, found.iterations
        );
    };
    let options = |curvature| {
        // No step ends before its tenth iteration.
        let cg = CgOptions::default()
            .with_max_iterations(ITERATIONS)
            .with_residual_tolerance(0.0)
            .with_progress_tolerance(0.0);
        NewtonCg::new(
            NewtonCgOptions::default()
                .with_curvature(curvature)
                .with_cg(cg)
                .with_radius(1e3),
        )
    };

    let mut current = Some(module.clone());
    let mut objective = ModuleObjective::new(shared, &module)?;
    let mut newton = options(Curvature::Hessian)?;
    let mut step = || {
        let (x, wanted) = (x.clone(), wanted.clone());
        let loss = move |module: &Mlp| cross_entropy(module.forward(x.clone()), wanted.clone());
        let now = current.take().ok_or("no module")?;
        let (module, report) = objective.step(&mut newton, now, loss);
        current = Some(module);
        Ok(report?.cg_iterations.unwrap_or(0))
    };
    let found = median(runs, &mut gradient, &mut step)?;
    tell("differences of gradients", &found);

    current = Some(module.clone());
    let factor = 1.0 / rows as f32;
    let shape = [rows, CLASSES];
    let mut objective = objective.with_outputs(shape, Loss::SoftmaxCrossEntropy, factor)?;
    let mut newton = options(Curvature::GaussNewton)?;
    let mut step = || {
        let (x, wanted) = (x.clone(), wanted.clone());
        let outputs = move |module: &Mlp| module.forward(x.clone());
        let loss = move |z: Tensor<2>| cross_entropy(z, wanted.clone());
        let now = current.take().ok_or("no module")?;
        let (module, report) = objective.step(&mut newton, now, outputs, loss);
        current = Some(module);
        Ok(report?.cg_iterations.unwrap_or(0))
    };
    let found = median(runs, &mut gradient, &mut step)?;
    tell("Gauss-Newton", &found);
    Ok(())
}

fn main() -> Result<(), Any> {
    let kind = match std::env::args().nth(1).as_deref() {
        None | Some("cpu") => DeviceKind::Cpu,
        Some("default") => DeviceKind::DefaultDevice,
        Some(other) => return Err(format!("no device `{other}`: cpu or default").into()),
    };
    let shared = SharedDevice::new(kind)?;
    println!("{}", shared.gpu().info());
    measure(&shared, &[784, 128, 10], 256, 15)?;
    measure(&shared, &[256, 256, 256, 256, 10], 256, 15)?;
    measure(&shared, &[1024, 1024, 1024, 10], 256, 3)?;
    Ok(())
}
