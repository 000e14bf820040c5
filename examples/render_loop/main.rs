//! A loop that draws a frame and trains a network in the same encoder, by recorded steps of Newton-CG: nothing waits, and nothing is read
//! back. The data set is on the device, and each step draws its rows there. Reports arrive some frames later, and colour the frames to come.
//!
//! `cargo run --release --example render_loop -- [frames]`

use osculant::data::{DeviceDataset, Rows, Shuffle, digits};
use osculant::gpu::{Gpu, Recorder, Recording};
use osculant::linalg::CgOptions;
use osculant::nn::{Activation, Loss, Sequential};
use osculant::objective::{GraphObjective, Objective, Resident, Slot};
use osculant::optim::{NewtonCg, NewtonCgOptions, Recordable};

const BATCH: usize = 256;

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let frames: u32 = match std::env::args().nth(1) {
        Some(frames) => frames.parse()?,
        None => 200,
    };
    // The device of a program that draws: ours is made of it.
    let instance = wgpu::Instance::default();
    let adapter =
        pollster::block_on(instance.request_adapter(&wgpu::RequestAdapterOptions::default()))?;
    let (device, queue) =
        pollster::block_on(adapter.request_device(&wgpu::DeviceDescriptor::default()))?;
    let picture = device.create_texture(&wgpu::TextureDescriptor {
        label: Some("picture"),
        size: wgpu::Extent3d {
            width: 320,
            height: 200,
            depth_or_array_layers: 1,
        },
        mip_level_count: 1,
        sample_count: 1,
        dimension: wgpu::TextureDimension::D2,
        format: wgpu::TextureFormat::Rgba8Unorm,
        usage: wgpu::TextureUsages::RENDER_ATTACHMENT,
        view_formats: &[],
    });
    let view = picture.create_view(&wgpu::TextureViewDescriptor::default());

    // What trains: all of it is made before the first frame.
    let gpu = Gpu::from_wgpu(device.clone(), queue.clone())?;
    let data = digits()?;
    let model = Sequential::new()
        .dense(64)
        .activation(Activation::Tanh)
        .dense(10)
        .model(&data, Loss::SoftmaxCrossEntropy);
    let shuffle = Shuffle::new(data.len(), BATCH, 1)?;
    let inner = GraphObjective::new(&gpu, model)?;
    let theta = inner.initial_parameters(0)?;
    let mut objective = Resident::new(inner, DeviceDataset::new(&gpu, data)?)?;
    let loaded = objective.load(Slot::default(), &Rows::new(&[0; BATCH])?)?;
    let gather = objective.gather(&loaded)?;
    let number = gpu.buffer("number of the step", 1)?;
    let mut rows = Recording::new();
    let upload = rows.upload(&gpu, &number)?;
    shuffle.record(&gpu, &mut rows, &gather.index, &number)?;
    rows.append(gather.run.clone());
    let options = NewtonCgOptions::default().with_cg(CgOptions::default().with_max_iterations(10));
    let newton = NewtonCg::new(options)?.recorded(&mut objective, &theta, &loaded)?;
    let mut newton = newton.between(rows, Recording::new());

    let (readbacks, mut loss, mut last, mut arrived) = (gpu.readbacks(), 2.3, 0, 0);
    for frame in 0..frames {
        let mut encoder = device.create_command_encoder(&wgpu::CommandEncoderDescriptor::default());
        upload.set(&[frame])?;
        newton.record(&mut Recorder::new(&mut encoder))?;
        draw(&mut encoder, &view, loss);
        queue.submit([encoder.finish()]);
        for (step, _, report) in newton.reports()? {
            (loss, last) = (report.loss_before, step);
            arrived += 1;
        }
    }
    println!(
        "{frames} frames, {} steps, {arrived} reports, the last of step {last} with loss {loss:.2e}; {} readbacks",
        newton.steps(),
        gpu.readbacks() - readbacks,
    );
    // The end of the loop, where waiting is fine.
    let method = newton.finish()?;
    let all = objective.data().host().clone();
    let evaluation = objective.inner_mut().evaluate(&theta, &all)?;
    println!(
        "loss on all digits {:.2e}, damping {:.2e}",
        evaluation.loss,
        method.damping()
    );
    Ok(())
}

/// A frame: green where the loss is small.
fn draw(encoder: &mut wgpu::CommandEncoder, view: &wgpu::TextureView, loss: f64) {
    let wrong = (loss / 2.3).clamp(0.0, 1.0);
    let colour = wgpu::Color {
        r: wrong,
        g: 1.0 - wrong,
        b: 0.2,
        a: 1.0,
    };
    encoder.begin_render_pass(&wgpu::RenderPassDescriptor {
        label: Some("frame"),
        color_attachments: &[Some(wgpu::RenderPassColorAttachment {
            view,
            depth_slice: None,
            resolve_target: None,
            ops: wgpu::Operations {
                load: wgpu::LoadOp::Clear(colour),
                store: wgpu::StoreOp::Store,
            },
        })],
        ..wgpu::RenderPassDescriptor::default()
    });
}
