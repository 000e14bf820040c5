//! Recorded steps are those that the host judges, bit for bit where both try the same candidates; nothing waits for them.

use crate::harness::logistic::{Examples, Logistic};
use crate::harness::{self, GpuTest, Outcome, arrived};
use crate::reference::batch_for;
use osculant::data::Batch;
use osculant::gpu::{Gpu, Recorder, Recording};
use osculant::linalg::CgOptions;
use osculant::nn::{Activation, DataShape, Loss, Model, Sequential, TargetShape};
use osculant::objective::{
    Curvature, Curved, GradientRequest, GraphObjective, Loaded, Objective, Slot,
};
use osculant::optim::{
    Adam, AdamOptions, NewtonCg, NewtonCgOptions, Optimizer, OptimizerState, Preconditioner,
    Recordable, Recorded, Schedule, Sgd, SgdOptions, Stateful, StepOutcome, StepReport,
};
use osculant::vector::Vector;

pub(crate) fn tests() -> Vec<GpuTest> {
    gpu_tests![
        first_order_steps_are_those_of_the_host,
        newton_steps_are_those_of_the_host,
        a_second_objective_can_be_recorded,
        a_step_that_is_not_finite_changes_nothing,
        steps_on_the_edge_are_refused_as_by_the_host,
        several_steps_share_an_encoder_of_the_caller,
        an_encoder_that_is_refused_has_no_report,
        batches_of_other_sizes_do_not_lead_steps_astray,
        uploads_travel_with_their_replay,
        what_needs_the_host_is_refused,
        nothing_waits_in_a_thousand_steps,
    ]
}

type Any = Box<dyn std::error::Error>;
const ROWS: usize = 48;
const STEPS: usize = 25;
/// One of each kind.
pub(crate) const SCHEDULES: [Schedule; 3] = [
    Schedule::Constant,
    Schedule::Linear { last: 0.2 },
    Schedule::Cosine { last: 0.1 },
];

fn model(activation: Activation) -> Model {
    let shape = DataShape {
        features: 6,
        targets: TargetShape::Classes(3),
    };
    Sequential::new()
        .dense(9)
        .activation(activation)
        .dense(3)
        .model(shape, Loss::SoftmaxCrossEntropy)
}

/// An objective with its parameters and three batches.
pub(crate) fn task(gpu: &Gpu) -> Result<(GraphObjective, Vector, Vec<Batch>), Any> {
    task_with(gpu, Activation::Tanh)
}

pub(crate) fn task_with(
    gpu: &Gpu,
    activation: Activation,
) -> Result<(GraphObjective, Vector, Vec<Batch>), Any> {
    let model = model(activation);
    let batches = (0..3).map(|seed| batch_for(&model, ROWS, seed)).collect();
    let objective = GraphObjective::new(gpu, model)?.with_l2(1e-3)?;
    let theta = objective.initial_parameters(3)?;
    Ok((objective, theta, batches))
}

pub(crate) fn bits(gpu: &Gpu, theta: &Vector) -> Result<Vec<Vec<u32>>, Any> {
    let tensors = theta.read(gpu)?.into_iter();
    Ok(tensors
        .map(|tensor| tensor.into_iter().map(f32::to_bits).collect())
        .collect())
}

/// Steps that the host judges: parameters after each, reports, and the state at the end.
pub(crate) type Course = (Vec<Vec<Vec<u32>>>, Vec<StepReport>, OptimizerState);

fn by_the_host<M: Optimizer<GraphObjective>>(
    gpu: &Gpu,
    mut method: M,
    steps: usize,
) -> Result<Course, Any> {
    let (mut objective, theta, batches) = task(gpu)?;
    let (mut path, mut reports) = (Vec::new(), Vec::new());
    for step in 0..steps {
        reports.push(method.step(&mut objective, &theta, &batches[step % batches.len()])?);
        path.push(bits(gpu, &theta)?);
    }
    let state = method.state(&objective)?;
    Ok((path, reports, state))
}

/// The same steps, recorded.
fn recorded<M>(gpu: &Gpu, method: M, steps: usize) -> Result<Course, Any>
where
    M: Optimizer<GraphObjective> + Recordable<GraphObjective>,
{
    let (mut objective, theta, batches) = task(gpu)?;
    let loaded = objective.load(Slot::default(), &batches[0])?;
    let mut method = method.recorded(&mut objective, &theta, &loaded)?;
    let (mut path, mut reports) = (Vec::new(), Vec::new());
    for step in 0..steps {
        objective.load(Slot::default(), &batches[step % batches.len()])?;
        gpu.try_submit(|recorder| method.record(recorder))?;
        path.push(bits(gpu, &theta)?);
        let arrived = arrived(gpu, &mut method, 1)?;
        reports.extend(arrived.into_iter().map(|(_, _, report)| report));
    }
    let state = method.finish()?.state(&objective)?;
    Ok((path, reports, state))
}

pub(crate) fn equal_courses(name: &str, one: &Course, other: &Course) -> Outcome {
    for (step, (a, b)) in one.0.iter().zip(&other.0).enumerate() {
        if a != b {
            return Err(format!(
                "{name}: parameters differ after step {step}: {:?}, {:?}",
                one.1[step], other.1[step]
            )
            .into());
        }
    }
    assert_eq!(one.1.len(), other.1.len(), "{name}: reports");
    for (host, device) in one.1.iter().zip(&other.1) {
        assert_eq!(host.accepted, device.accepted, "{name}");
        assert_eq!(host.loss_before, device.loss_before, "{name}");
        assert_eq!(host.damping, device.damping, "{name}");
        assert_eq!(host.radius, device.radius, "{name}");
        assert_eq!(host.cg_stop, device.cg_stop, "{name}");
        assert_eq!(host.cg_iterations, device.cg_iterations, "{name}");
        assert_eq!(host.loss_change, device.loss_change, "{name}");
        // The host computes with the same numbers in f64; its sums are of up to four terms, which may cancel.
        let close = |a: f64, b: f64| (a - b).abs() <= 1e-4 * a.abs().max(b.abs());
        assert!(
            close(host.gradient_norm, device.gradient_norm),
            "{name}: {host:?} {device:?}"
        );
        assert!(
            close(host.step_norm, device.step_norm) || host.loss_after.is_none(),
            "{name}: {host:?} {device:?}"
        );
        if let (Some(a), Some(b)) = (host.rho, device.rho) {
            assert!(close(a, b), "{name}: {a} {b}");
        }
    }
    assert_eq!(one.2, other.2, "{name}: state");
    Ok(())
}

fn first_order_steps_are_those_of_the_host(gpu: &Gpu) -> Outcome {
    let sgd = || {
        Sgd::new(
            SgdOptions::default()
                .with_nesterov(true)
                .with_weight_decay(0.01),
        )
    };
    let adam = || {
        Adam::new(
            AdamOptions::default()
                .with_learning_rate(0.02)
                .with_weight_decay(0.01),
        )
    };
    for schedule in SCHEDULES {
        let method = || sgd()?.with_schedule(schedule, 30);
        let course = by_the_host(gpu, method()?, STEPS)?;
        equal_courses("sgd", &course, &recorded(gpu, method()?, STEPS)?)?;
        let method = || adam()?.with_schedule(schedule, 30);
        let course = by_the_host(gpu, method()?, STEPS)?;
        equal_courses("adam", &course, &recorded(gpu, method()?, STEPS)?)?;
    }
    Ok(())
}

/// Options with which the host does what recorded steps do.
fn options() -> NewtonCgOptions {
    NewtonCgOptions::default()
        .with_backtracking(false)
        .with_max_line_search(4)
        .with_cg(CgOptions::default().with_max_iterations(12))
}

fn newton_steps_are_those_of_the_host(gpu: &Gpu) -> Outcome {
    let fisher = Preconditioner::EmpiricalFisher { exponent: 0.75 };
    let cases = [
        ("damped", options()),
        ("cold", options().with_warm_start(0.0)),
        ("preconditioned", options().with_preconditioner(fisher)),
        (
            "preconditioned trust region",
            options()
                .with_curvature(Curvature::Hessian)
                .with_preconditioner(fisher),
        ),
        ("trust region", options().with_curvature(Curvature::Hessian)),
    ];
    for (name, options) in cases {
        for schedule in SCHEDULES {
            let method = || NewtonCg::new(options.clone())?.with_schedule(schedule, 30);
            let course = by_the_host(gpu, method()?, STEPS)?;
            let taken = course.1.iter().filter(|report| report.accepted).count();
            assert!(taken > STEPS / 2, "{name}: {taken} steps were taken");
            equal_courses(name, &course, &recorded(gpu, method()?, STEPS)?)?;
        }
    }
    Ok(())
}

/// A damping that is far too small makes steps that are shortened or refused.
fn steps_on_the_edge_are_refused_as_by_the_host(gpu: &Gpu) -> Outcome {
    let mut options = options().with_armijo(0.9).with_shrink(0.5);
    options.damping = options.damping.with_initial(1e-4).with_decrease(0.3);
    let course = by_the_host(gpu, NewtonCg::new(options.clone())?, STEPS)?;
    let refused = course.1.iter().filter(|report| !report.accepted).count();
    let shortened = course
        .1
        .iter()
        .filter(|report| report.step_length.is_some_and(|a| a < 1.0));
    assert!(refused > 2 && shortened.count() > 2, "{:?}", course.1);
    equal_courses(
        "on the edge",
        &course,
        &recorded(gpu, NewtonCg::new(options)?, STEPS)?,
    )
}

/// A batch of which a loss is not finite: rows of 3e38 in all combinations of signs, so that some sum of theirs overflows.
pub(crate) fn broken(batch: &Batch) -> Batch {
    let mut broken = batch.clone();
    for (i, x) in broken.features.iter_mut().take(32 * 6).enumerate() {
        *x = if (i / 6) >> (i % 6) & 1 == 1 {
            -3e38
        } else {
            3e38
        };
    }
    broken
}

/// Where the loss is not finite, theta, damping and all else keep their bits, and the report says so; the next batch goes on.
fn a_step_that_is_not_finite_changes_nothing(gpu: &Gpu) -> Outcome {
    let (mut objective, theta, batches) = task_with(gpu, Activation::Relu)?;
    let broken = broken(&batches[1]);
    let loaded = objective.load(Slot::default(), &batches[0])?;
    let mut newton = NewtonCg::new(options())?.recorded(&mut objective, &theta, &loaded)?;
    let adam_theta = objective.initial_parameters(4)?;
    let mut adam =
        Adam::new(AdamOptions::default())?.recorded(&mut objective, &adam_theta, &loaded)?;
    let mut seen = Vec::new();
    for batch in [&batches[0], &broken, &batches[2]] {
        objective.load(Slot::default(), batch)?;
        let before = (bits(gpu, &theta)?, bits(gpu, &adam_theta)?);
        gpu.try_submit(|recorder| newton.record(recorder))?;
        gpu.try_submit(|recorder| adam.record(recorder))?;
        let newton = arrived(gpu, &mut newton, 1)?;
        let adam = arrived(gpu, &mut adam, 1)?;
        let (newton, adam) = (
            newton.first().ok_or("no report")?,
            adam.first().ok_or("no report")?,
        );
        let same = [
            bits(gpu, &theta)? == before.0,
            bits(gpu, &adam_theta)? == before.1,
        ];
        seen.push((newton.1, adam.1, same, newton.2.damping));
    }
    let (good, bad) = (StepOutcome::Taken, StepOutcome::NotFinite);
    assert_eq!(
        (seen[0].0, seen[0].1, seen[0].2),
        (good, good, [false, false])
    );
    assert_eq!(
        (seen[1].0, seen[1].1, seen[1].2),
        (bad, bad, [true, true]),
        "{seen:?}"
    );
    assert_eq!(
        (seen[2].0, seen[2].1, seen[2].2),
        (good, good, [false, false])
    );
    assert_eq!(
        seen[1].3, seen[2].3,
        "the damping has learnt from a batch that is not finite"
    );
    Ok(())
}

fn a_second_objective_can_be_recorded(gpu: &Gpu) -> Outcome {
    let features: Vec<f32> = (0..40 * 5).map(|i| (i as f32 * 1.3).sin()).collect();
    let targets = (0..40)
        .map(|n| f32::from(u8::from(features[5 * n] > 0.1)))
        .collect();
    let batch = Examples {
        features,
        targets,
        weights: vec![1.0 / 40.0; 40],
    };
    fn steps<O: Curved>(
        gpu: &Gpu,
        objective: &mut O,
        batch: &O::Batch,
    ) -> Result<[Vec<Vec<u32>>; 2], Any> {
        let start = Vector::new(gpu, "theta", objective.layout())?;
        let other = Vector::new(gpu, "theta", objective.layout())?;
        let mut host = NewtonCg::new(options())?;
        for _ in 0..6 {
            host.step(objective, &start, batch)?;
        }
        let loaded: Loaded = objective.load(Slot::default(), batch)?;
        let mut device = NewtonCg::new(options())?.recorded(objective, &other, &loaded)?;
        for _ in 0..6 {
            gpu.try_submit(|recorder| device.record(recorder))?;
        }
        Ok([bits(gpu, &start)?, bits(gpu, &other)?])
    }
    let mut objective = Logistic::new(gpu, 5, 0.01)?;
    let [host, device] = steps(gpu, &mut objective, &batch)?;
    assert_eq!(host, device);
    Ok(())
}

/// Three steps in one encoder, between commands of the caller's own, on another's submission.
fn several_steps_share_an_encoder_of_the_caller(gpu: &Gpu) -> Outcome {
    let (mut objective, theta, batches) = task(gpu)?;
    let loaded = objective.load(Slot::default(), &batches[0])?;
    let mut method = NewtonCg::new(options())?
        .with_schedule(Schedule::Linear { last: 0.0 }, 8)?
        .recorded(&mut objective, &theta, &loaded)?;
    let (device, queue) = (gpu.device(), gpu.queue());
    let copy = Vector::new(gpu, "copy", objective.layout())?;
    let mut snapshot = Recording::new();
    snapshot.copy(theta.slice(), copy.slice())?;
    // An encoder that is never submitted: its step does not take place.
    let mut dropped = device.create_command_encoder(&wgpu::CommandEncoderDescriptor::default());
    method.record(&mut Recorder::new(&mut dropped))?;
    drop(dropped);
    let start = bits(gpu, &theta)?;
    let mut encoder = device.create_command_encoder(&wgpu::CommandEncoderDescriptor::default());
    let mut recorder = Recorder::new(&mut encoder);
    recorder.replay(&snapshot);
    for _ in 0..3 {
        method.record(&mut recorder)?;
    }
    drop(recorder);
    queue.submit([encoder.finish()]);
    let reports = arrived(gpu, &mut method, 3)?;
    assert_eq!(bits(gpu, &copy)?, start);
    assert_eq!(
        reports.iter().map(|report| report.0).collect::<Vec<_>>(),
        [1, 2, 3]
    );
    let lengths: Vec<Option<f64>> = reports.iter().map(|report| report.2.step_length).collect();
    let expected = [7.0 / 8.0, 6.0 / 8.0, 5.0 / 8.0].map(Some);
    assert_eq!(
        lengths, expected,
        "each step carries its own factor of the schedule"
    );
    assert!(reports.iter().all(|report| report.1 == StepOutcome::Taken));
    assert!(reports[2].2.loss_before < reports[0].2.loss_before);
    Ok(())
}

/// A mistake of the caller's in the same encoder: wgpu runs none of it, and no report says otherwise.
fn an_encoder_that_is_refused_has_no_report(gpu: &Gpu) -> Outcome {
    let (mut objective, theta, batches) = task(gpu)?;
    let loaded = objective.load(Slot::default(), &batches[0])?;
    let mut method = NewtonCg::new(options())?.recorded(&mut objective, &theta, &loaded)?;
    let start = bits(gpu, &theta)?;
    let slice = gpu.buffer("four numbers", 4)?;
    let other = gpu.buffer("four others", 4)?;
    let device = gpu.device();
    let scope = device.push_error_scope(wgpu::ErrorFilter::Validation);
    let mut encoder = device.create_command_encoder(&wgpu::CommandEncoderDescriptor::default());
    method.record(&mut Recorder::new(&mut encoder))?;
    encoder.copy_buffer_to_buffer(slice.buffer(), 0, other.buffer(), 0, 4096);
    gpu.queue().submit([encoder.finish()]);
    assert!(
        pollster::block_on(scope.pop()).is_some(),
        "4096 bytes of 16"
    );
    gpu.wait()?;
    assert_eq!(bits(gpu, &theta)?, start);
    assert!(method.reports()?.is_empty());
    gpu.try_submit(|recorder| method.record(recorder))?;
    let numbers: Vec<u64> = arrived(gpu, &mut method, 1)?
        .iter()
        .map(|report| report.0)
        .collect();
    assert_eq!(numbers, [1]);
    Ok(())
}

/// The batch in the slot is read however many others came by: the programs of recorded steps are held.
fn batches_of_other_sizes_do_not_lead_steps_astray(gpu: &Gpu) -> Outcome {
    let model = model(Activation::Tanh);
    let one = batch_for(&model, ROWS, 0);
    // Programs that nobody holds are forgotten at once.
    let mut objective = GraphObjective::new(gpu, model)?.with_program_memory(0);
    let theta = objective.initial_parameters(3)?;
    let loaded = objective.load(Slot::default(), &one)?;
    let mut method = Sgd::new(SgdOptions::default())?.recorded(&mut objective, &theta, &loaded)?;
    let mut losses = Vec::new();
    for seed in 1..4 {
        let other = batch_for(&objective.model().clone(), 20 + seed as usize, seed);
        let loaded = objective.load(Slot::default(), &other)?;
        objective.gradient(&theta, &loaded, GradientRequest::default())?;
        let next = batch_for(&objective.model().clone(), ROWS, seed);
        let loaded = objective.load(Slot::default(), &next)?;
        let gradient = objective.gradient(&theta, &loaded, GradientRequest::default())?;
        gpu.run([&gradient.run])?;
        let expected = gpu.read(&[&gradient.value])?.concat()[0];
        gpu.try_submit(|recorder| method.record(recorder))?;
        let reports = arrived(gpu, &mut method, 1)?.into_iter();
        losses.extend(reports.map(|report| (report.2.loss_before, f64::from(expected))));
    }
    assert_eq!(losses.len(), 3);
    for (found, expected) in losses {
        assert_eq!(found, expected);
    }
    Ok(())
}

/// Two replays of one recording in one encoder carry different numbers.
fn uploads_travel_with_their_replay(gpu: &Gpu) -> Outcome {
    let (slice, first, second) = (
        gpu.buffer("numbers", 4)?,
        gpu.buffer("first", 4)?,
        gpu.buffer("second", 4)?,
    );
    let mut write = Recording::new();
    let upload = write.upload(gpu, &slice)?;
    assert!(
        upload.set(&[1.0f32; 3]).is_err(),
        "three numbers for four places"
    );
    let [mut keep_first, mut keep_second] = [Recording::new(), Recording::new()];
    keep_first.copy(&slice, &first)?;
    keep_second.copy(&slice, &second)?;
    for round in 0..20 {
        let numbers = |k: u32| [round as f32, k as f32, 2.0, 3.0];
        gpu.try_submit(|recorder| {
            upload.set(&numbers(1))?;
            recorder.replay(&write);
            recorder.replay(&keep_first);
            upload.set(&numbers(2))?;
            recorder.replay(&write);
            recorder.replay(&keep_second);
            Ok(())
        })?;
        assert_eq!(gpu.read(&[&first, &second])?, [numbers(1), numbers(2)]);
    }
    Ok(())
}

fn what_needs_the_host_is_refused(gpu: &Gpu) -> Outcome {
    let (mut objective, theta, batches) = task(gpu)?;
    let loaded = objective.load(Slot::default(), &batches[0])?;
    let nystrom =
        NewtonCg::new(NewtonCgOptions::nystrom(4, 3))?.recorded(&mut objective, &theta, &loaded);
    let average = Adam::new(AdamOptions::default())?
        .with_averaging(0.9)?
        .recorded(&mut objective, &theta, &loaded);
    for (what, error) in [("Nystrom", nystrom.err()), ("averages", average.err())] {
        let message = error.ok_or("was recorded")?.to_string();
        assert!(
            message.contains(what) && message.contains("Optimizer::step"),
            "{message}"
        );
    }
    Ok(())
}

/// No readback and no wait in a thousand steps; reports come in order, and none is lost where somebody fetches them.
fn nothing_waits_in_a_thousand_steps(gpu: &Gpu) -> Outcome {
    // With counters of its own.
    let gpu = &harness::of_its_own(gpu)?;
    let (mut objective, theta, batches) = task(gpu)?;
    let loaded = objective.load(Slot::default(), &batches[0])?;
    let options = options().with_cg(CgOptions::default().with_max_iterations(2));
    let mut method = NewtonCg::new(options)?.recorded(&mut objective, &theta, &loaded)?;
    let readbacks = gpu.readbacks();
    let mut numbers = Vec::new();
    let fetch = |method: &mut Recorded<NewtonCg>, numbers: &mut Vec<u64>| -> Outcome {
        for (number, _, report) in method.reports()? {
            assert!(report.cg_iterations <= Some(2), "{report:?}");
            numbers.push(number);
        }
        Ok(())
    };
    for step in 0..1000 {
        let mut encoder = gpu
            .device()
            .create_command_encoder(&wgpu::CommandEncoderDescriptor::default());
        method.record(&mut Recorder::new(&mut encoder))?;
        gpu.queue().submit([encoder.finish()]);
        if step % 100 == 99 {
            fetch(&mut method, &mut numbers)?;
        }
    }
    assert_eq!(gpu.readbacks(), readbacks);
    // A device that is far behind has no room for more than 256 reports; once it has caught up, there is.
    let missing = 256usize.saturating_sub(numbers.len());
    numbers.extend(
        arrived(gpu, &mut method, missing)?
            .iter()
            .map(|report| report.0),
    );
    assert!(numbers.len() >= 256, "{} reports", numbers.len());
    gpu.try_submit(|recorder| method.record(recorder))?;
    for _ in 0..1000 {
        numbers.extend(arrived(gpu, &mut method, 1)?.iter().map(|report| report.0));
        if numbers.contains(&1000) {
            break;
        }
    }
    // Other threads may poll this device, and hand over one report before the other.
    numbers.sort_unstable();
    assert!(
        numbers.windows(2).all(|pair| pair[0] < pair[1]),
        "a report twice"
    );
    assert_eq!(numbers.last(), Some(&1000));
    Ok(())
}
