//! The same training loop, stepping by curvature.

use std::sync::Arc;

use osculant::gpu::Gpu;
use osculant::objective::{Curvature, OwnKernels};
use osculant::optim::{NewtonCg, NewtonCgOptions};

use crate::network::Network;
use crate::{Any, Batch, mean_loss};

pub(crate) fn train(
    device: &wgpu::Device,
    queue: &wgpu::Queue,
    batches: &[Batch],
    steps: usize,
) -> Result<f32, Any> {
    let network = Arc::new(Network::new(device, queue));
    let gpu = Gpu::from_wgpu(device.clone(), queue.clone())?;
    let mut objective = OwnKernels::flat(
        &gpu,
        &network.parameters,
        &network.gradient,
        &network.loss,
        network.passes(),
    )?;
    let mut newton = NewtonCg::new(NewtonCgOptions::default().with_curvature(Curvature::Hessian))?;
    for batch in batches.iter().cycle().take(steps) {
        network.load(batch);
        objective.step(&mut newton)?;
    }
    mean_loss(device, &network, batches)
}
