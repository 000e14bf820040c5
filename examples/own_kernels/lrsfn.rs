//! The same training loop, stepping by low-rank saddle-free Newton.

use std::sync::Arc;

use osculant::gpu::Gpu;
use osculant::objective::OwnKernels;
use osculant::optim::{LowRankSaddleFreeNewton, LrsfnOptions};

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
    let mut lrsfn = LowRankSaddleFreeNewton::new(LrsfnOptions::default())?;
    for batch in batches.iter().cycle().take(steps) {
        network.load(batch);
        objective.step(&mut lrsfn)?;
    }
    mean_loss(device, &network, batches)
}
