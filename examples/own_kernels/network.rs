//! A network in plain wgpu: its buffers, and kernels written by hand.

use std::sync::Arc;

use wgpu::util::DeviceExt as _;

use crate::Any;

/// Rows of a batch, and numbers of a row.
pub(crate) const ROWS: usize = 256;
const IN: usize = 64;
const HIDDEN: usize = 24;
const OUT: usize = 10;
const PARAMETERS: usize = IN * HIDDEN + HIDDEN + HIDDEN * OUT + OUT;
const SCRATCH: usize = ROWS * (2 * HIDDEN + OUT + 1);

/// Buffers and kernels.
pub(crate) struct Network {
    queue: wgpu::Queue,
    images: wgpu::Buffer,
    labels: wgpu::Buffer,
    pub(crate) parameters: wgpu::Buffer,
    pub(crate) gradient: wgpu::Buffer,
    pub(crate) loss: wgpu::Buffer,
    group: wgpu::BindGroup,
    rows: wgpu::ComputePipeline,
    columns: wgpu::ComputePipeline,
    descend: wgpu::ComputePipeline,
}

impl Network {
    /// With the same random parameters every time.
    pub(crate) fn new(device: &wgpu::Device, queue: &wgpu::Queue) -> Self {
        let usage = wgpu::BufferUsages::STORAGE
            | wgpu::BufferUsages::COPY_SRC
            | wgpu::BufferUsages::COPY_DST;
        let buffer = |label, elements: usize| {
            device.create_buffer(&wgpu::BufferDescriptor {
                label: Some(label),
                size: 4 * elements as u64,
                usage,
                mapped_at_creation: false,
            })
        };
        let mut state = 1u32;
        let start: Vec<f32> = (0..PARAMETERS)
            .map(|at| {
                state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
                let uniform = (state >> 8) as f32 / 8_388_608.0 - 1.0;
                if at < IN * HIDDEN {
                    0.2 * uniform
                } else {
                    0.3 * uniform
                }
            })
            .collect();
        let parameters = device.create_buffer_init(&wgpu::util::BufferInitDescriptor {
            label: Some("parameters"),
            contents: bytemuck::cast_slice(&start),
            usage,
        });
        let (images, labels) = (buffer("images", ROWS * IN), buffer("labels", ROWS));
        let (gradient, loss, scratch) = (
            buffer("gradient", PARAMETERS),
            buffer("loss", 1),
            buffer("scratch", SCRATCH),
        );
        let module = device.create_shader_module(wgpu::include_wgsl!("network.wgsl"));
        let read_only = |binding| binding < 2;
        let entries: Vec<_> = (0..6)
            .map(|binding| wgpu::BindGroupLayoutEntry {
                binding,
                visibility: wgpu::ShaderStages::COMPUTE,
                ty: wgpu::BindingType::Buffer {
                    ty: wgpu::BufferBindingType::Storage {
                        read_only: read_only(binding),
                    },
                    has_dynamic_offset: false,
                    min_binding_size: None,
                },
                count: None,
            })
            .collect();
        let layout = device.create_bind_group_layout(&wgpu::BindGroupLayoutDescriptor {
            label: None,
            entries: &entries,
        });
        let buffers = [&images, &labels, &parameters, &gradient, &loss, &scratch];
        let entries: Vec<_> = (0..)
            .zip(buffers)
            .map(|(binding, buffer)| wgpu::BindGroupEntry {
                binding,
                resource: buffer.as_entire_binding(),
            })
            .collect();
        let group = device.create_bind_group(&wgpu::BindGroupDescriptor {
            label: None,
            layout: &layout,
            entries: &entries,
        });
        let layout = device.create_pipeline_layout(&wgpu::PipelineLayoutDescriptor {
            label: None,
            bind_group_layouts: &[Some(&layout)],
            immediate_size: 0,
        });
        let pipeline = |entry| {
            device.create_compute_pipeline(&wgpu::ComputePipelineDescriptor {
                label: Some(entry),
                layout: Some(&layout),
                module: &module,
                entry_point: Some(entry),
                compilation_options: wgpu::PipelineCompilationOptions::default(),
                cache: None,
            })
        };
        Self {
            queue: queue.clone(),
            rows: pipeline("rows"),
            columns: pipeline("columns"),
            descend: pipeline("descend"),
            images,
            labels,
            parameters,
            gradient,
            loss,
            group,
        }
    }

    /// Uploads a batch.
    pub(crate) fn load(&self, (images, labels): &(Vec<f32>, Vec<u32>)) {
        self.queue
            .write_buffer(&self.images, 0, bytemuck::cast_slice(images));
        self.queue
            .write_buffer(&self.labels, 0, bytemuck::cast_slice(labels));
    }

    /// Records loss and gradient.
    pub(crate) fn record(&self, encoder: &mut wgpu::CommandEncoder) {
        self.run(encoder, &self.rows, ROWS);
        self.run(encoder, &self.columns, PARAMETERS);
    }

    /// The same for whoever wants to own it.
    pub(crate) fn passes(self: &Arc<Self>) -> impl Fn(&mut wgpu::CommandEncoder) + use<> {
        let network = Arc::clone(self);
        move |encoder| network.record(encoder)
    }

    /// Records a step of gradient descent.
    pub(crate) fn descend(&self, encoder: &mut wgpu::CommandEncoder) {
        self.record(encoder);
        self.run(encoder, &self.descend, PARAMETERS);
    }

    fn run(
        &self,
        encoder: &mut wgpu::CommandEncoder,
        pipeline: &wgpu::ComputePipeline,
        invocations: usize,
    ) {
        let mut pass = encoder.begin_compute_pass(&wgpu::ComputePassDescriptor::default());
        pass.set_pipeline(pipeline);
        pass.set_bind_group(0, &self.group, &[]);
        pass.dispatch_workgroups(invocations.div_ceil(64) as u32, 1, 1);
    }

    /// The loss on the batch that is loaded.
    pub(crate) fn loss(&self, device: &wgpu::Device) -> Result<f32, Any> {
        let mut encoder = device.create_command_encoder(&wgpu::CommandEncoderDescriptor::default());
        self.record(&mut encoder);
        let staging = device.create_buffer(&wgpu::BufferDescriptor {
            label: None,
            size: 4,
            usage: wgpu::BufferUsages::MAP_READ | wgpu::BufferUsages::COPY_DST,
            mapped_at_creation: false,
        });
        encoder.copy_buffer_to_buffer(&self.loss, 0, &staging, 0, 4);
        self.queue.submit([encoder.finish()]);
        staging.map_async(wgpu::MapMode::Read, .., |_| {});
        device.poll(wgpu::PollType::wait_indefinitely())?;
        let loss = bytemuck::pod_read_unaligned(&staging.get_mapped_range(..)?);
        Ok(loss)
    }
}
