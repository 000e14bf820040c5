//! A training loop in plain wgpu.

use std::sync::Arc;

use crate::network::Network;
use crate::{Any, Batch, mean_loss};

pub(crate) fn train(
    device: &wgpu::Device,
    queue: &wgpu::Queue,
    batches: &[Batch],
    steps: usize,
) -> Result<f32, Any> {
    let network = Arc::new(Network::new(device, queue));
    for batch in batches.iter().cycle().take(steps) {
        network.load(batch);
        let mut encoder = device.create_command_encoder(&wgpu::CommandEncoderDescriptor::default());
        network.descend(&mut encoder);
        queue.submit([encoder.finish()]);
    }
    mean_loss(device, &network, batches)
}
