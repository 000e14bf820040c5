//! The networks of osculant's benchmark in burn on wgpu: matrix products, forward passes and gradients.
//!
//! Prints one JSON with the keys of `bench.json`; progress goes to standard error. `../README.md` says what each figure includes.

mod network;
#[path = "../../../../src/bin/osculant/synthetic.rs"]
mod synthetic;
mod timer;

use std::error::Error;

use burn::tensor::{Device, DeviceKind, Tensor, TensorData};
use serde_json::{Map, Value, json};

use network::Problem;
use synthetic::NETWORKS;
use timer::Timer;

/// As in Cargo.toml.
const BURN: &str = "0.22.1";

const HELP: &str = "\
Usage: burn-peer [--quick] [--device KIND]

  --quick         10 samples and a short warm-up in place of 21 and a second
  --device KIND   cpu (default), discrete-gpu, integrated-gpu, virtual-gpu or default";

fn main() -> Result<(), Box<dyn Error>> {
    let mut quick = false;
    let mut kind = DeviceKind::Cpu;
    let mut arguments = std::env::args().skip(1);
    while let Some(argument) = arguments.next() {
        match argument.as_str() {
            "--quick" => quick = true,
            "--device" => kind = device_kind(&arguments.next().unwrap_or_default())?,
            _ => return Err(format!("unknown argument `{argument}`\n{HELP}").into()),
        }
    }

    let (device, setup) = Device::wgpu_options()
        .device_kind(kind)
        .init_with_setup()
        .map_err(|error| format!("no such wgpu device: {error}\n{HELP}"))?;
    let adapter = setup.adapter.get_info();
    eprintln!("burn {BURN} on {} ({})", adapter.name, adapter.driver_info);

    let timer = if quick {
        Timer::new(&device, 10, 0.2)
    } else {
        Timer::new(&device, 21, 1.0)
    };
    let gemm = time_gemm(&device, &timer)?;
    let mut problems = Map::new();
    let differentiating = device.clone().autodiff();
    for network in NETWORKS {
        let problem = Problem::new(&network, &differentiating);
        problems.insert(network.name.into(), time_problem(&problem, &timer)?);
    }
    let result = json!({
        "environment": {
            "adapter": adapter.name,
            "driver": adapter.driver_info,
            "backend": format!("{:?}", adapter.backend),
            "burn": BURN,
            "fusion": cfg!(feature = "fusion"),
            "autotune": cfg!(feature = "autotune"),
            "quick": quick,
        },
        "gemm": gemm,
        "problems": problems,
    });
    println!("{}", serde_json::to_string_pretty(&result)?);
    Ok(())
}

fn device_kind(name: &str) -> Result<DeviceKind, String> {
    Ok(match name {
        "cpu" => DeviceKind::Cpu,
        "discrete-gpu" => DeviceKind::DiscreteGpu(0),
        "integrated-gpu" => DeviceKind::IntegratedGpu(0),
        "virtual-gpu" => DeviceKind::VirtualGpu(0),
        "default" => DeviceKind::DefaultDevice,
        _ => return Err(format!("no kind of device `{name}`\n{HELP}")),
    })
}

/// Square matrix products, operands stored by rows: N as it stands, T transposed.
fn time_gemm(device: &Device, timer: &Timer) -> Result<Vec<Value>, Box<dyn Error>> {
    let mut rows = Vec::new();
    for size in [512, 1024] {
        let matrix = |tensor| {
            let values: Vec<f32> = (0..size * size)
                .map(|index| 2.0 * synthetic::uniform(tensor, index) - 1.0)
                .collect();
            Tensor::<2>::from_data(TensorData::new(values, [size, size]), device)
        };
        let (a, b) = (matrix(0), matrix(1));
        for transpose in ["NN", "NT", "TN"] {
            let times = timer.milliseconds(&format!("gemm {size} {transpose}"), || {
                let left = if transpose == "TN" {
                    a.clone().transpose()
                } else {
                    a.clone()
                };
                let right = if transpose == "NT" {
                    b.clone().transpose()
                } else {
                    b.clone()
                };
                Ok(left.matmul(right))
            })?;
            let gflops = |milliseconds: f64| 2e-6 * (size as f64).powi(3) / milliseconds;
            rows.push(json!({
                "m": size, "n": size, "k": size, "transpose": transpose,
                "gflops": gflops(times.median), "gflops_max": gflops(times.min), "gflops_min": gflops(times.max),
                "samples": times.samples,
            }));
        }
    }
    Ok(rows)
}

fn time_problem(problem: &Problem, timer: &Timer) -> Result<Value, Box<dyn Error>> {
    let loss = problem.loss().into_data().try_to_vec::<f32>()?;
    let norm = problem.gradient_norm()?;
    let label = |figure: &str| format!("{} {figure}", problem.name);
    let forward = timer.milliseconds(&label("forward_ms"), || Ok(problem.loss().inner()))?;
    let gradient = timer.milliseconds(&label("gradient_ms"), || problem.gradient())?;
    Ok(json!({
        "loss": loss[0],
        "gradient_norm": norm,
        "forward_ms": forward.median,
        "gradient_ms": gradient.median,
        "spread": { "forward_ms": forward.json(), "gradient_ms": gradient.json() },
    }))
}
