//! A training loop of somebody else: buffers at odd places, passes with pipelines and bind groups of their own, and our steps on them.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use crate::harness::{GpuTest, Outcome, arrived};
use osculant::gpu::{Gpu, Recorder, Work};
use osculant::linalg::{CgOptions, EigenOptions, Operator};
use osculant::objective::{
    Curvature, Curved, GradientRequest, Objective, OwnKernels, OwnTensor, QuadraticRequest, Slot,
};
use osculant::optim::{
    Adam, AdamOptions, LowRankSaddleFreeNewton, LrsfnOptions, NewtonCg, NewtonCgOptions, Optimizer,
    RankRule, Sgd, SgdOptions, StepReport, Strategy,
};

pub(crate) fn tests() -> Vec<GpuTest> {
    gpu_tests![
        gradients_are_those_of_a_hand_computation,
        every_method_steps_on_them,
        a_product_of_the_callers_is_used,
        points_that_are_compared_take_the_loss_alone,
        a_step_that_fails_leaves_the_callers_buffers,
        recorded_steps_read_and_write_the_callers_buffers,
        recorded_steps_go_on_between_refreshes,
        options_that_need_parts_are_refused,
        places_are_checked,
        what_is_wrong_with_kernels_is_found,
    ]
}

type Any = Box<dyn std::error::Error>;

/// Of `f(w, b) = sum_n log(1 + exp(-y_n (x_n.w + b))) / 8 + |w|^2 / 20`: the rows of `x` and `y` are numbers of a formula. `weights` begins at
/// byte 12 of its buffer, the bias at byte 4 of another; their gradients are in a third, at bytes 28 and 8.
const PASSES: &str = "
@group(0) @binding(0) var<storage, read_write> weights: array<f32>;
@group(0) @binding(1) var<storage, read_write> bias: array<f32>;
@group(0) @binding(2) var<storage, read_write> gradient: array<f32>;
@group(0) @binding(3) var<storage, read_write> loss: array<f32>;
@group(1) @binding(0) var<storage, read_write> direction: array<f32>;
@group(1) @binding(1) var<storage, read_write> product: array<f32>;

fn x(n: u32, i: u32) -> f32 { return 2.0 * fract(f32(n * 3u + i) * 0.40625 + 0.25) - 1.0; }
fn y(n: u32) -> f32 { return select(-1.0, 1.0, x(n, 1u) + 0.3 * x(n, 0u) > 0.07); }
fn margin(n: u32) -> f32 {
    return y(n) * (x(n, 0u) * weights[3] + x(n, 1u) * weights[4] + x(n, 2u) * weights[5] + bias[1]);
}

@compute @workgroup_size(1)
fn gradients() {
    var g = vec4<f32>(weights[3], weights[4], weights[5], 0.0) * 0.1;
    var sum = 0.05 * (weights[3] * weights[3] + weights[4] * weights[4] + weights[5] * weights[5]);
    for (var n = 0u; n < 8u; n++) {
        let m = margin(n);
        sum += log(1.0 + exp(-m)) / 8.0;
        g += -y(n) / (1.0 + exp(m)) / 8.0 * vec4<f32>(x(n, 0u), x(n, 1u), x(n, 2u), 1.0);
    }
    gradient[7] = g.x;
    gradient[8] = g.y;
    gradient[9] = g.z;
    gradient[2] = g.w;
    loss[0] = sum;
}

@compute @workgroup_size(1)
fn products() {
    let v = vec4<f32>(direction[0], direction[1], direction[2], direction[5]);
    var q = vec4<f32>(v.xyz, 0.0) * 0.1;
    for (var n = 0u; n < 8u; n++) {
        let m = margin(n);
        let row = vec4<f32>(x(n, 0u), x(n, 1u), x(n, 2u), 1.0);
        q += dot(row, v) / ((1.0 + exp(m)) * (1.0 + exp(-m))) / 8.0 * row;
    }
    product[0] = q.x;
    product[1] = q.y;
    product[2] = q.z;
    product[9] = q.w;
}
";

/// The caller's side.
struct Own {
    weights: wgpu::Buffer,
    bias: wgpu::Buffer,
    gradient: wgpu::Buffer,
    loss: wgpu::Buffer,
    direction: wgpu::Buffer,
    product: wgpu::Buffer,
    groups: [wgpu::BindGroup; 2],
    pipelines: [wgpu::ComputePipeline; 2],
}

impl Own {
    fn new(gpu: &Gpu) -> Arc<Self> {
        let device = gpu.device();
        let buffer = |elements: u64| {
            device.create_buffer(&wgpu::BufferDescriptor {
                label: None,
                size: 4 * elements,
                usage: wgpu::BufferUsages::STORAGE
                    | wgpu::BufferUsages::COPY_SRC
                    | wgpu::BufferUsages::COPY_DST,
                mapped_at_creation: false,
            })
        };
        let [weights, bias, gradient, loss, direction, product] = [7, 3, 10, 1, 6, 10].map(buffer);
        let layout = |count: u32| {
            let entries: Vec<_> = (0..count)
                .map(|binding| wgpu::BindGroupLayoutEntry {
                    binding,
                    visibility: wgpu::ShaderStages::COMPUTE,
                    ty: wgpu::BindingType::Buffer {
                        ty: wgpu::BufferBindingType::Storage { read_only: false },
                        has_dynamic_offset: false,
                        min_binding_size: None,
                    },
                    count: None,
                })
                .collect();
            device.create_bind_group_layout(&wgpu::BindGroupLayoutDescriptor {
                label: None,
                entries: &entries,
            })
        };
        let layouts = [layout(4), layout(2)];
        let group = |layout: &wgpu::BindGroupLayout, buffers: &[&wgpu::Buffer]| {
            let entries: Vec<_> = (0..)
                .zip(buffers)
                .map(|(binding, buffer)| wgpu::BindGroupEntry {
                    binding,
                    resource: buffer.as_entire_binding(),
                })
                .collect();
            device.create_bind_group(&wgpu::BindGroupDescriptor {
                label: None,
                layout,
                entries: &entries,
            })
        };
        let groups = [
            group(&layouts[0], &[&weights, &bias, &gradient, &loss]),
            group(&layouts[1], &[&direction, &product]),
        ];
        let module = device.create_shader_module(wgpu::ShaderModuleDescriptor {
            label: None,
            source: wgpu::ShaderSource::Wgsl(PASSES.into()),
        });
        let layout = device.create_pipeline_layout(&wgpu::PipelineLayoutDescriptor {
            label: None,
            bind_group_layouts: &[Some(&layouts[0]), Some(&layouts[1])],
            immediate_size: 0,
        });
        let pipelines = ["gradients", "products"].map(|entry| {
            device.create_compute_pipeline(&wgpu::ComputePipelineDescriptor {
                label: None,
                layout: Some(&layout),
                module: &module,
                entry_point: Some(entry),
                compilation_options: wgpu::PipelineCompilationOptions::default(),
                cache: None,
            })
        });
        let own = Self {
            weights,
            bias,
            gradient,
            loss,
            direction,
            product,
            groups,
            pipelines,
        };
        own.start(gpu);
        Arc::new(own)
    }

    /// What is beside the parameters in their buffers is nobody's business.
    fn start(&self, gpu: &Gpu) {
        let write = |buffer, numbers: &[f32]| {
            gpu.queue()
                .write_buffer(buffer, 0, bytemuck::cast_slice(numbers))
        };
        write(&self.weights, &[71.0, 72.0, 73.0, 0.5, -0.4, 0.3, 74.0]);
        write(&self.bias, &[75.0, 0.2, 76.0]);
    }

    fn record(&self, encoder: &mut wgpu::CommandEncoder, which: usize) {
        let mut pass = encoder.begin_compute_pass(&wgpu::ComputePassDescriptor::default());
        pass.set_pipeline(&self.pipelines[which]);
        pass.set_bind_group(0, &self.groups[0], &[]);
        pass.set_bind_group(1, &self.groups[1], &[]);
        pass.dispatch_workgroups(1, 1, 1);
    }

    fn objective(self: &Arc<Self>, gpu: &Gpu) -> Result<OwnKernels, Any> {
        let own = Arc::clone(self);
        self.objective_by(gpu, Work::passes(move |encoder| own.record(encoder, 0)))
    }

    /// The passes for loss and gradient, counted.
    fn counted(self: &Arc<Self>) -> (Work, Arc<AtomicUsize>) {
        let (own, count) = (Arc::clone(self), Arc::new(AtomicUsize::new(0)));
        let counted = Arc::clone(&count);
        let passes = move |encoder: &mut wgpu::CommandEncoder| {
            counted.fetch_add(1, Ordering::Relaxed);
            own.record(encoder, 0);
        };
        (Work::passes(passes), count)
    }

    fn objective_by(self: &Arc<Self>, gpu: &Gpu, passes: Work) -> Result<OwnKernels, Any> {
        let tensors = [
            OwnTensor {
                name: "weights",
                shape: &[3],
                parameters: (&self.weights, 12),
                gradient: (&self.gradient, 28),
            },
            OwnTensor {
                name: "bias",
                shape: &[1],
                parameters: (&self.bias, 4),
                gradient: (&self.gradient, 8),
            },
        ];
        Ok(OwnKernels::new(gpu, &tensors, (&self.loss, 0), passes)?)
    }

    fn with_product(self: &Arc<Self>, gpu: &Gpu) -> Result<OwnKernels, Any> {
        let own = Arc::clone(self);
        let (directions, products) = (
            [(&self.direction, 0), (&self.direction, 20)],
            [(&self.product, 0), (&self.product, 36)],
        );
        let passes = move |encoder: &mut wgpu::CommandEncoder| own.record(encoder, 1);
        Ok(self.objective(gpu)?.with_product(
            Curvature::GaussNewton,
            &directions,
            &products,
            passes,
        )?)
    }

    /// All numbers in the caller's parameter buffers.
    fn parameters(&self, gpu: &Gpu) -> Result<Vec<f32>, Any> {
        let slices = [
            gpu.wrap("weights", &self.weights)?,
            gpu.wrap("bias", &self.bias)?,
        ];
        Ok(gpu.read(&[&slices[0], &slices[1]])?.concat())
    }
}

/// The loss, its gradient and Hessian at parameters (w, b), in f64.
fn by_hand(at: &[f64; 4]) -> (f64, [f64; 4], [[f64; 4]; 4]) {
    let mut loss = 0.05 * at[..3].iter().map(|w| w * w).sum::<f64>();
    let mut gradient = [0.1 * at[0], 0.1 * at[1], 0.1 * at[2], 0.0];
    let mut hessian = [[0.0; 4]; 4];
    (0..3).for_each(|i| hessian[i][i] = 0.1);
    for n in 0..8 {
        let x = |i: usize| 2.0 * ((n * 3 + i) as f64 * 0.40625 + 0.25).fract() - 1.0;
        let row = [x(0), x(1), x(2), 1.0];
        let y = if x(1) + 0.3 * x(0) > 0.07 { 1.0 } else { -1.0 };
        let m = y * row.iter().zip(at).map(|(x, w)| x * w).sum::<f64>();
        loss += (1.0 + (-m).exp()).ln() / 8.0;
        for i in 0..4 {
            gradient[i] -= y / (1.0 + m.exp()) / 8.0 * row[i];
            for j in 0..4 {
                hessian[i][j] += row[i] * row[j] / ((1.0 + m.exp()) * (1.0 + (-m).exp())) / 8.0;
            }
        }
    }
    (loss, gradient, hessian)
}

const START: [f64; 4] = [0.5, -0.4, 0.3, 0.2];

/// A driver's `exp` and `log` may be off by 1e-5. Loss, gradient and, by differences and by the caller's kernel, a product at the start.
fn gradients_are_those_of_a_hand_computation(gpu: &Gpu) -> Outcome {
    let own = Own::new(gpu);
    let (loss, gradient, hessian) = by_hand(&START);
    let v = [0.7f32, -0.2, 0.4, 1.1];
    let cases = [
        (own.objective(gpu)?, Curvature::Hessian, 1e-3),
        (own.with_product(gpu)?, Curvature::GaussNewton, 1e-4),
    ];
    for (mut objective, curvature, tolerance) in cases {
        let request = QuadraticRequest {
            curvature,
            block: 2,
            ..QuadraticRequest::default()
        };
        own.start(gpu);
        gpu.submit(|recorder| recorder.replay(objective.gather()))?;
        let theta = objective.theta().clone();
        let quadratic = objective.load_quadratic(Slot::default(), &theta, &(), request)?;
        quadratic
            .direction
            .write(gpu, &[v[..3].to_vec(), vec![v[3]]])?;
        gpu.run([&quadratic.linearize, &quadratic.multiply])?;
        let found = gpu.read(&[&quadratic.value])?.concat()[0];
        assert!((f64::from(found) - loss).abs() < 1e-4, "{found} {loss}");
        let (slopes, product) = (
            quadratic.gradient.read(gpu)?.concat(),
            quadratic.product.read(gpu)?.concat(),
        );
        let length = (0..4)
            .map(|i| f64::from(product[i]).powi(2))
            .sum::<f64>()
            .sqrt();
        for i in 0..4 {
            assert!(
                (f64::from(slopes[i]) - gradient[i]).abs() < 1e-4,
                "{slopes:?} {gradient:?}"
            );
            let expected: f64 = (0..4).map(|j| hessian[i][j] * f64::from(v[j])).sum();
            assert!(
                (f64::from(product[i]) - expected).abs() < tolerance * length,
                "{product:?}: {expected}"
            );
        }
        let block = quadratic.block.as_ref().ok_or("no block")?;
        block.directions.vectors()[1].write(gpu, &[v[..3].to_vec(), vec![v[3]]])?;
        gpu.run([&block.multiply])?;
        assert_eq!(block.products.vectors()[1].read(gpu)?.concat(), product);
    }
    Ok(())
}

fn run<M: Optimizer<OwnKernels>>(
    objective: &mut OwnKernels,
    mut method: M,
    steps: usize,
) -> Result<StepReport, Any> {
    let mut last = StepReport::default();
    for _ in 0..steps {
        last = objective.step(&mut method)?;
    }
    Ok(last)
}

/// The methods come near the minimum, by the parameters in the caller's buffers, and touch nothing beside them.
fn every_method_steps_on_them(gpu: &Gpu) -> Outcome {
    let own = Own::new(gpu);
    let mut objective = own.objective(gpu)?;
    let hessian = NewtonCgOptions::default().with_curvature(Curvature::Hessian);
    let eigen = EigenOptions::default().with_rank(2).with_oversampling(1);
    let adam = AdamOptions::default().with_learning_rate(0.1);
    for round in 0..4 {
        own.start(gpu);
        match round {
            0 => run(
                &mut objective,
                Sgd::new(SgdOptions::default().with_learning_rate(0.5))?,
                200,
            )?,
            1 => run(&mut objective, Adam::new(adam.clone())?, 200)?,
            2 => run(&mut objective, NewtonCg::new(hessian.clone())?, 12)?,
            _ => run(
                &mut objective,
                LowRankSaddleFreeNewton::new(
                    LrsfnOptions::default()
                        .with_eigen(eigen.clone())
                        .with_damping(1e-3),
                )?,
                40,
            )?,
        };
        let numbers = own.parameters(gpu)?;
        assert_eq!(
            [
                numbers[0], numbers[1], numbers[2], numbers[6], numbers[7], numbers[9]
            ],
            [71.0, 72.0, 73.0, 74.0, 75.0, 76.0]
        );
        let at = [numbers[3], numbers[4], numbers[5], numbers[8]].map(f64::from);
        let (_, gradient, _) = by_hand(&at);
        let norm = gradient.iter().map(|g| g * g).sum::<f64>().sqrt();
        // At the start it is 0.14; steps that products by differences make end where those are as small as their error.
        assert!(norm < 5e-3, "method {round}: {norm:e} at {at:?}");
    }
    Ok(())
}

/// Gauss-Newton steps with the caller's kernel, which passes the probe.
fn a_product_of_the_callers_is_used(gpu: &Gpu) -> Outcome {
    let own = Own::new(gpu);
    let mut objective = own.with_product(gpu)?;
    let request = QuadraticRequest {
        curvature: Curvature::GaussNewton,
        ..QuadraticRequest::default()
    };
    let theta = objective.theta().clone();
    gpu.submit(|recorder| recorder.replay(objective.gather()))?;
    let quadratic = objective.load_quadratic(Slot::default(), &theta, &(), request)?;
    Operator::from(&*quadratic).probe(gpu, &quadratic.linearize)?;
    own.start(gpu);
    let report = run(
        &mut objective,
        NewtonCg::new(NewtonCgOptions::default())?,
        12,
    )?;
    assert!(report.gradient_norm < 1e-3, "{report:?}");
    // Without one there are no Gauss-Newton products.
    let refused = run(
        &mut own.objective(gpu)?,
        NewtonCg::new(NewtonCgOptions::default())?,
        1,
    );
    assert!(refused.is_err());
    Ok(())
}

/// At the base the loss is known, at other points the work for it runs and no other.
fn points_that_are_compared_take_the_loss_alone(gpu: &Gpu) -> Outcome {
    let own = Own::new(gpu);
    let ((both, gradients), (loss, losses)) = (own.counted(), own.counted());
    let mut objective = own.objective_by(gpu, both)?.with_loss(loss);
    gpu.run([objective.gather()])?;
    let (theta, loaded) = (
        objective.theta().clone(),
        objective.load(Slot::default(), &())?,
    );
    let gradient = objective.gradient(&theta, &loaded, GradientRequest { losses: true })?;
    let there = gradient.losses.as_ref().ok_or("no losses")?;
    let counts = || [&gradients, &losses].map(|count| count.load(Ordering::Relaxed));
    gpu.run([&gradient.run, &there.at_base])?;
    assert_eq!(counts(), [1, 0]);
    let base = gpu.read(&[&there.results, &gradient.value])?;
    assert_eq!(base[0][..2], [base[1][0], 0.0]);
    // At the base once more, by the work for the loss; and elsewhere.
    for moved in [0.0, 0.25] {
        let mut point = theta.read(gpu)?;
        point[0][1] += moved;
        there.point.write(gpu, &point)?;
        gpu.run([&there.at_point])?;
        let found = gpu.read(&[&there.results])?.concat();
        let (expected, ..) =
            by_hand(&[point[0][0], point[0][1], point[0][2], point[1][0]].map(f64::from));
        assert!((f64::from(found[0]) - expected).abs() < 1e-6, "{found:?}");
        assert_eq!(found[1], found[0] - base[1][0]);
        assert_eq!(found[1] != 0.0, moved != 0.0);
    }
    assert_eq!(counts(), [1, 2]);
    Ok(())
}

fn a_step_that_fails_leaves_the_callers_buffers(gpu: &Gpu) -> Outcome {
    let own = Own::new(gpu);
    let mut objective = own.objective(gpu)?;
    gpu.queue()
        .write_buffer(&own.bias, 4, bytemuck::bytes_of(&f32::NAN));
    let before = own.parameters(gpu)?;
    let mut newton = NewtonCg::new(NewtonCgOptions::default().with_curvature(Curvature::Hessian))?;
    assert!(objective.step(&mut newton).is_err());
    let bits = |numbers: Vec<f32>| numbers.into_iter().map(f32::to_bits).collect::<Vec<_>>();
    assert_eq!(bits(own.parameters(gpu)?), bits(before));
    own.start(gpu);
    assert!(objective.step(&mut newton)?.accepted);
    Ok(())
}

/// Recorded, between passes of the caller's: the parameters of each step come from the caller's buffers, and go there.
fn recorded_steps_read_and_write_the_callers_buffers(gpu: &Gpu) -> Outcome {
    let own = Own::new(gpu);
    let options = NewtonCgOptions::default()
        .with_curvature(Curvature::Hessian)
        .with_cg(CgOptions::default().with_max_iterations(4));
    let mut objective = own.objective(gpu)?;
    let report = run(&mut objective, NewtonCg::new(options.clone())?, 3)?;
    let host = own.parameters(gpu)?;
    own.start(gpu);
    let mut recorded = objective.recorded(NewtonCg::new(options)?)?;
    let mut encoder = gpu
        .device()
        .create_command_encoder(&wgpu::CommandEncoderDescriptor::default());
    for _ in 0..3 {
        recorded.record(&mut Recorder::new(&mut encoder))?;
    }
    gpu.queue().submit([encoder.finish()]);
    assert_eq!(own.parameters(gpu)?, host);
    let reports = arrived(gpu, &mut recorded, 3)?;
    assert_eq!(
        reports.last().ok_or("no report")?.2.loss_before,
        report.loss_before
    );
    Ok(())
}

/// Between two computations of eigenpairs, which are the host's: recorded steps of low-rank saddle-free Newton on the caller's buffers.
fn recorded_steps_go_on_between_refreshes(gpu: &Gpu) -> Outcome {
    let own = Own::new(gpu);
    let mut objective = own.objective(gpu)?;
    let eigen = EigenOptions::default().with_rank(2).with_oversampling(1);
    let options = LrsfnOptions::default()
        .with_eigen(eigen)
        .with_damping(1e-2)
        .with_refresh(4);
    let report = run(
        &mut objective,
        LowRankSaddleFreeNewton::new(options.clone())?,
        8,
    )?;
    let host = own.parameters(gpu)?;
    own.start(gpu);
    let mut method = LowRankSaddleFreeNewton::new(options)?;
    let mut last = None;
    for _ in 0..2 {
        assert!(objective.step(&mut method)?.accepted);
        let mut recorded = objective.recorded(method)?;
        let mut encoder = gpu
            .device()
            .create_command_encoder(&wgpu::CommandEncoderDescriptor::default());
        for _ in 0..3 {
            recorded.record(&mut Recorder::new(&mut encoder))?;
        }
        gpu.queue().submit([encoder.finish()]);
        let reports = arrived(gpu, &mut recorded, 3)?;
        assert!(reports.iter().all(|report| report.2.accepted));
        last = reports.last().map(|report| report.2.loss_before);
        method = recorded.finish()?;
    }
    assert_eq!(own.parameters(gpu)?, host);
    assert_eq!(last, Some(report.loss_before));
    Ok(())
}

fn options_that_need_parts_are_refused(gpu: &Gpu) -> Outcome {
    let own = Own::new(gpu);
    let mut objective = own.objective(gpu)?;
    let before = own.parameters(gpu)?;
    let eigen = EigenOptions::default().with_rank(2).with_oversampling(1);
    let options = LrsfnOptions::default().with_eigen(eigen);
    let noise = RankRule::Noise {
        least: 0.1,
        parts: 2,
    };
    for options in [
        options.clone().with_curvature_part(0.5),
        options.clone().with_acceptance(0.2),
        options.clone().with_rank_rule(noise),
        options.with_strategy(Strategy::decoupled()),
    ] {
        let refused = run(&mut objective, LowRankSaddleFreeNewton::new(options)?, 1);
        let message = refused.err().ok_or("was not refused")?.to_string();
        assert!(message.contains("without parts"), "{message}");
    }
    assert_eq!(own.parameters(gpu)?, before);
    Ok(())
}

fn places_are_checked(gpu: &Gpu) -> Outcome {
    let own = Own::new(gpu);
    let tensor = |parameters, gradient| OwnTensor {
        name: "weights",
        shape: &[3],
        parameters,
        gradient,
    };
    let plain = gpu.device().create_buffer(&wgpu::BufferDescriptor {
        label: None,
        size: 64,
        usage: wgpu::BufferUsages::STORAGE,
        mapped_at_creation: false,
    });
    let (w, g) = (&own.weights, &own.gradient);
    for (tensors, words) in [
        (vec![tensor((w, 20), (g, 0))], "the end of 'weights'"),
        (
            vec![tensor((w, 0), (g, 32))],
            "the end of 'gradient of weights'",
        ),
        (vec![tensor((w, 2), (g, 0))], "multiples of 4"),
        (vec![tensor((&plain, 0), (g, 0))], "COPY_DST"),
        (vec![tensor((w, 0), (&plain, 0))], "COPY_SRC"),
        (vec![tensor((w, 0), (w, 8))], "same elements"),
        (
            vec![tensor((w, 0), (g, 0)), tensor((w, 12), (g, 12))],
            "two parameters",
        ),
        (vec![], "at least one"),
    ] {
        let refused = OwnKernels::new(gpu, &tensors, (&own.loss, 0), Work::new());
        let message = refused.err().ok_or(words)?.to_string();
        assert!(message.contains(words), "{message}");
    }
    Ok(())
}

/// A check passes kernels that are right, and finds a gradient that is another one's, and a product that is not symmetric.
fn what_is_wrong_with_kernels_is_found(gpu: &Gpu) -> Outcome {
    let own = Own::new(gpu);
    let before = own.parameters(gpu)?;
    let found = own.objective(gpu)?.check(Curvature::Hessian)?;
    assert!(found.passed(), "{found}");
    let found = own.with_product(gpu)?.check(Curvature::GaussNewton)?;
    assert!(
        found.passed() && found.to_string().contains("Gauss-Newton"),
        "{found}"
    );
    assert_eq!(own.parameters(gpu)?, before);
    // The gradient one place too early, where the bias has nothing to do with it.
    let tensors = [OwnTensor {
        name: "weights",
        shape: &[3],
        parameters: (&own.weights, 12),
        gradient: (&own.gradient, 24),
    }];
    let passes = {
        let own = Arc::clone(&own);
        move |encoder: &mut wgpu::CommandEncoder| own.record(encoder, 0)
    };
    let found =
        OwnKernels::new(gpu, &tensors, (&own.loss, 0), passes)?.check(Curvature::Hessian)?;
    assert!(
        !found.passed() && found.to_string().contains("WRONG gradient"),
        "{found}"
    );
    // The product with two places exchanged.
    let (directions, products) = (
        [(&own.direction, 0), (&own.direction, 20)],
        [(&own.product, 4), (&own.product, 36)],
    );
    let passes = {
        let own = Arc::clone(&own);
        move |encoder: &mut wgpu::CommandEncoder| own.record(encoder, 1)
    };
    let mut wrong =
        own.objective(gpu)?
            .with_product(Curvature::Hessian, &directions, &products, passes)?;
    let found = wrong.check(Curvature::Hessian)?;
    let products = found.products.clone().ok_or("no products")?;
    assert!(
        !found.passed() && products.symmetric > 1e-3 && products.difference > 0.1,
        "{found}"
    );
    Ok(())
}
