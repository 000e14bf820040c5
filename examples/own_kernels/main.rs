//! Kernels of your own under second-order methods: one training loop in plain wgpu, and the same loop twice more with a few lines changed.
//! README.md beside this file shows them.

mod lrsfn;
mod network;
mod newton_cg;
mod sgd;

use network::{Network, ROWS};

type Any = Box<dyn std::error::Error>;

/// Images and labels.
type Batch = (Vec<f32>, Vec<u32>);

/// All whole batches of the handwritten digits.
fn batches() -> Result<Vec<Batch>, Any> {
    let data = osculant::data::digits()?;
    let batches = (0..data.len() / ROWS).map(|number| {
        let rows: Vec<usize> = (number * ROWS..(number + 1) * ROWS).collect();
        let batch = data.batch(&rows)?;
        match batch.targets {
            osculant::data::Targets::Classes { labels, .. } => Ok((batch.features, labels)),
            _ => Err("the digits have classes".into()),
        }
    });
    batches.collect()
}

/// The mean of the losses of all batches.
fn mean_loss(device: &wgpu::Device, network: &Network, batches: &[Batch]) -> Result<f32, Any> {
    let mut sum = 0.0;
    for batch in batches {
        network.load(batch);
        sum += network.loss(device)?;
    }
    Ok(sum / batches.len() as f32)
}

fn main() -> Result<(), Any> {
    let instance = wgpu::Instance::default();
    let adapter =
        pollster::block_on(instance.request_adapter(&wgpu::RequestAdapterOptions::default()))?;
    // Limits and features as every WebGPU device has them.
    let (device, queue) =
        pollster::block_on(adapter.request_device(&wgpu::DeviceDescriptor::default()))?;
    let steps = match std::env::args().nth(1) {
        Some(steps) => steps.parse()?,
        None => 60,
    };
    println!("{}, {steps} steps", adapter.get_info().name);
    let batches = batches()?;
    let sgd = sgd::train(&device, &queue, &batches, steps)?;
    let newton_cg = newton_cg::train(&device, &queue, &batches, steps)?;
    let lrsfn = lrsfn::train(&device, &queue, &batches, steps)?;
    println!("sgd {sgd:.4} newton-cg {newton_cg:.4} lrsfn {lrsfn:.4}");
    Ok(())
}
