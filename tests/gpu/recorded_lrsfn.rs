//! Recorded steps of low-rank saddle-free Newton are those that the host judges, bit for bit, between one computation of eigenpairs and the
//! next.

use crate::harness::{self, GpuTest, Outcome, arrived, small};
use crate::recorded::{Course, SCHEDULES, bits, broken, equal_courses, task, task_with};
use osculant::Error;
use osculant::gpu::{Gpu, Recorder};
use osculant::linalg::{EigenOptions, Storage};
use osculant::nn::Activation;
use osculant::objective::{Curvature, Objective, Slot};
use osculant::optim::{
    AdamOptions, AdaptiveDamping, Base, DampingRule, LowRankSaddleFreeNewton, LrsfnOptions,
    Optimizer, RankRule, Recordable, Schedule, SgdOptions, Stateful, StepOutcome, Strategy,
};

pub(crate) fn tests() -> Vec<GpuTest> {
    gpu_tests![
        steps_are_those_of_the_host,
        every_option_is_followed,
        steps_on_the_edge_are_refused_as_by_the_host,
        stretches_between_refreshes_are_a_run_of_the_host,
        a_step_that_is_not_finite_changes_nothing,
        a_base_that_cannot_move_is_refused_as_by_the_host,
        nothing_pulls_at_a_stationary_point,
        what_needs_the_host_is_refused,
        nothing_waits_in_a_hundred_steps,
        four_storage_buffers_are_enough,
    ]
}

type Any = Box<dyn std::error::Error>;
const STEPS: usize = 25;
/// Steps from one computation of eigenpairs to the next, where there is to be no other.
const NEVER: usize = 1000;

fn options() -> LrsfnOptions {
    let eigen = EigenOptions::default().with_rank(5).with_oversampling(3);
    LrsfnOptions::default()
        .with_eigen(eigen)
        .with_refresh(NEVER)
}

/// Of a constant damping that is large enough for steps to be sound.
fn fixed() -> LrsfnOptions {
    options().with_rule(DampingRule::Fixed).with_damping(0.3)
}

fn bases() -> [(&'static str, Base); 3] {
    let sgd = SgdOptions::default()
        .with_learning_rate(0.2)
        .with_nesterov(true);
    let adam = AdamOptions::default().with_learning_rate(0.02);
    [
        ("gradient", Base::Gradient),
        ("sgd", Base::Sgd(sgd)),
        ("adam", Base::Adam(adam)),
    ]
}

/// A run of `steps` steps of which the first of each `stretch` is the host's, and the others are recorded; all are the host's in stretches
/// of one. A part of the run that is done before it begins counts for the first step, after which none is.
fn run(
    gpu: &Gpu,
    mut method: LowRankSaddleFreeNewton,
    steps: usize,
    stretch: usize,
) -> Result<Course, Any> {
    let starts_short = method.course().factor() < 1.0;
    let (mut objective, theta, batches) = task(gpu)?;
    let batch = |step: usize| &batches[step % batches.len()];
    let (mut path, mut reports) = (Vec::new(), Vec::new());
    for first in (0..steps).step_by(stretch) {
        reports.push(method.step(&mut objective, &theta, batch(first))?);
        if starts_short && first == 0 {
            method.course_mut().set_done(0.0);
        }
        path.push(bits(gpu, &theta)?);
        if stretch == 1 {
            continue;
        }
        let loaded = objective.load(Slot::default(), batch(first))?;
        let mut recorded = method.recorded(&mut objective, &theta, &loaded)?;
        for step in first + 1..steps.min(first + stretch) {
            objective.load(Slot::default(), batch(step))?;
            gpu.try_submit(|recorder| recorded.record(recorder))?;
            path.push(bits(gpu, &theta)?);
            let arrived = arrived(gpu, &mut recorded, 1)?;
            reports.extend(arrived.into_iter().map(|(_, _, report)| report));
        }
        method = recorded.finish()?;
    }
    let state = method.state(&objective)?;
    Ok((path, reports, state))
}

/// Compares a run of the host with one whose steps but the first are recorded, and gives the former.
fn compare(
    gpu: &Gpu,
    name: &str,
    method: impl Fn() -> osculant::Result<LowRankSaddleFreeNewton>,
) -> Result<Course, Any> {
    let host = run(gpu, method()?, STEPS, 1)?;
    assert!(
        host.1[0].accepted,
        "{name}: the first step computes eigenpairs again"
    );
    let device = run(gpu, method()?, STEPS, STEPS)?;
    equal_courses(name, &host, &device)?;
    for (a, b) in host.1.iter().zip(&device.1).skip(1) {
        assert_eq!(a.eigenvalues, b.eigenvalues, "{name}");
        assert_eq!(a.eigenvalue_noise, b.eigenvalue_noise, "{name}");
        let length = |length: Option<f64>| length.map(|length| length as f32);
        assert_eq!(length(a.step_length), length(b.step_length), "{name}");
        assert_eq!((a.work, b.readbacks), (b.work, 0), "{name}");
        assert!(
            (a.work_flops - b.work_flops).abs() <= 1e-9 * a.work_flops,
            "{name}"
        );
    }
    Ok(host)
}

fn taken(course: &Course) -> usize {
    course.1.iter().filter(|report| report.accepted).count()
}

fn steps_are_those_of_the_host(gpu: &Gpu) -> Outcome {
    for (name, base) in bases() {
        for (rule, options) in [("fixed", fixed()), ("adaptive", options())] {
            let options = options.with_base(base.clone());
            for schedule in SCHEDULES {
                let name = format!("{name}, {rule}, {schedule:?}");
                let method =
                    || LowRankSaddleFreeNewton::new(options.clone())?.with_schedule(schedule, 30);
                let course = compare(gpu, &name, method)?;
                assert!(taken(&course) > STEPS / 2, "{name}: {}", taken(&course));
            }
        }
    }
    Ok(())
}

/// What changes only how eigenpairs are computed, kept or measured, and step lengths.
fn every_option_is_followed(gpu: &Gpu) -> Outcome {
    let noise = RankRule::Noise {
        least: 1.0,
        parts: 3,
    };
    let own = options().with_damping(0.1);
    for (name, options) in [
        (
            "Gauss-Newton",
            own.clone().with_curvature(Curvature::GaussNewton),
        ),
        (
            "lengths",
            own.clone()
                .with_step_length(0.7)
                .with_step_length_beyond(0.3),
        ),
        ("a part", own.clone().with_curvature_part(0.5)),
        (
            "residual",
            own.clone().with_rank_rule(RankRule::Residual(0.3)),
        ),
        ("noise", own.clone().with_rank_rule(noise)),
        ("average", own.clone().with_average(0.5)),
        ("automatic", own.clone().with_automatic(Some(4))),
        ("halves", own.with_storage(Storage::Half)),
    ] {
        let course = compare(gpu, name, || LowRankSaddleFreeNewton::new(options.clone()))?;
        assert!(taken(&course) > STEPS / 3, "{name}: {}", taken(&course));
    }
    Ok(())
}

/// Steps that are too long, some of which raise the loss: theta, moments and counts of those are as before.
fn steps_on_the_edge_are_refused_as_by_the_host(gpu: &Gpu) -> Outcome {
    let rule = AdaptiveDamping::default()
        .with_initial(2.0)
        .with_decrease(0.2);
    for (name, base) in bases() {
        let base = match base {
            Base::Sgd(options) => Base::Sgd(options.with_learning_rate(2.5)),
            Base::Adam(options) => Base::Adam(options.with_learning_rate(0.3)),
            Base::Gradient => Base::Gradient,
            _ => return Err("a base without a case".into()),
        };
        let options = options()
            .with_rule(DampingRule::Adaptive(rule))
            .with_step_length(2.5)
            .with_step_length_beyond(2.5)
            .with_base(base);
        // A first step that is short enough to be taken, with its eigenpairs.
        let method = || {
            let mut method = LowRankSaddleFreeNewton::new(options.clone())?
                .with_schedule(Schedule::Linear { last: 0.0 }, 1)?;
            method.course_mut().set_done(0.95);
            Ok(method)
        };
        let course = compare(gpu, name, method)?;
        let refused = STEPS - taken(&course);
        assert!(
            refused > 2 && taken(&course) > 2,
            "{name}: {refused} refused"
        );
        for (step, report) in course.1.iter().enumerate().skip(1) {
            let same = course.0[step] == course.0[step - 1];
            assert_eq!(same, !report.accepted, "{name}, step {step}");
        }
    }
    Ok(())
}

/// The host computes eigenpairs in every fifth step, and the four after it are recorded: the run of the host.
fn stretches_between_refreshes_are_a_run_of_the_host(gpu: &Gpu) -> Outcome {
    for (name, base) in bases() {
        for (rule, options) in [("fixed", fixed()), ("adaptive", options())] {
            let options = options.with_base(base.clone()).with_refresh(5);
            let method = || {
                LowRankSaddleFreeNewton::new(options.clone())?
                    .with_schedule(Schedule::Linear { last: 0.5 }, STEPS as u64)
            };
            let name = format!("{name}, {rule}");
            let host = run(gpu, method()?, STEPS, 1)?;
            assert_eq!(
                taken(&host),
                STEPS,
                "{name}: steps are counted where they are taken"
            );
            assert_eq!(host.2.scalar("refreshes"), Some(5.0), "{name}");
            equal_courses(&name, &host, &run(gpu, method()?, STEPS, 5)?)?;
        }
    }
    Ok(())
}

/// Where the loss is not finite, theta and all that the method remembers keep their bits, and the report says so.
fn a_step_that_is_not_finite_changes_nothing(gpu: &Gpu) -> Outcome {
    for (name, base) in bases() {
        for options in [fixed(), options()] {
            let (mut objective, theta, batches) = task_with(gpu, Activation::Relu)?;
            let broken = broken(&batches[1]);
            let mut method = LowRankSaddleFreeNewton::new(options.with_base(base.clone()))?;
            method.step(&mut objective, &theta, &batches[0])?;
            let before = (bits(gpu, &theta)?, method.state(&objective)?);
            let loaded = objective.load(Slot::default(), &broken)?;
            let mut recorded = method.recorded(&mut objective, &theta, &loaded)?;
            gpu.try_submit(|recorder| recorded.record(recorder))?;
            let report = arrived(gpu, &mut recorded, 1)?;
            let (_, outcome, report) = report.first().ok_or("no report")?;
            assert_eq!(
                (*outcome, report.accepted),
                (StepOutcome::NotFinite, false),
                "{name}"
            );
            assert!(!report.loss_before.is_finite(), "{name}: {report:?}");
            let method = recorded.finish()?;
            assert_eq!(bits(gpu, &theta)?, before.0, "{name}");
            assert_eq!(method.state(&objective)?, before.1, "{name}");
            // The next batch goes on.
            let loaded = objective.load(Slot::default(), &batches[2])?;
            let mut recorded = method.recorded(&mut objective, &theta, &loaded)?;
            gpu.try_submit(|recorder| recorded.record(recorder))?;
            let report = arrived(gpu, &mut recorded, 1)?;
            assert_eq!(
                report.first().ok_or("no report")?.1,
                StepOutcome::Taken,
                "{name}"
            );
            assert_ne!(bits(gpu, &theta)?, before.0, "{name}");
        }
    }
    Ok(())
}

/// With learning rates beyond f32 the base does not move: refused where the damping adapts, and not finite where it is fixed.
fn a_base_that_cannot_move_is_refused_as_by_the_host(gpu: &Gpu) -> Outcome {
    let base = Base::Sgd(SgdOptions::default().with_learning_rate(1e37));
    for (options, expected) in [
        (fixed(), StepOutcome::NotFinite),
        (options(), StepOutcome::Refused),
    ] {
        let (mut objective, theta, batches) = task(gpu)?;
        let options = options.with_base(base.clone());
        // A schedule that begins at nothing: the host's first step computes eigenpairs, and is stationary beyond them.
        let mut method = LowRankSaddleFreeNewton::new(options)?
            .with_schedule(Schedule::Linear { last: 0.0 }, 10)?;
        method.course_mut().set_done(1.0);
        method.step(&mut objective, &theta, &batches[0])?;
        let mut state = method.state(&objective)?;
        let loaded = objective.load(Slot::default(), &batches[0])?;
        let before = bits(gpu, &theta)?;
        let mut recorded = method.recorded(&mut objective, &theta, &loaded)?;
        recorded.set_done(0.0);
        gpu.try_submit(|recorder| recorded.record(recorder))?;
        let report = arrived(gpu, &mut recorded, 1)?;
        let (_, outcome, report) = report.first().ok_or("no report")?;
        assert_eq!(*outcome, expected, "{report:?}");
        assert_eq!(bits(gpu, &theta)?, before);
        let left = recorded.finish()?.state(&objective)?;
        assert_eq!(left.vectors, state.vectors, "moments go back");
        // The course counts every step that was decided; and the damping learns from a refusal.
        for (name, value) in &mut state.scalars {
            match (name.as_str(), expected) {
                ("course_steps", _) => *value += 1.0,
                ("damping", StepOutcome::Refused) => {
                    let used = report.damping.ok_or("no damping")? as f32;
                    *value = f64::from(used * 1.5);
                }
                _ => {}
            }
        }
        assert_eq!(left.scalars, state.scalars);
    }
    Ok(())
}

/// A schedule that has come to zero: nothing moves, nothing is learnt, and the step is counted.
fn nothing_pulls_at_a_stationary_point(gpu: &Gpu) -> Outcome {
    for (name, base) in bases() {
        let options = options().with_base(base);
        let method = || {
            LowRankSaddleFreeNewton::new(options.clone())?
                .with_schedule(Schedule::Linear { last: 0.0 }, 3)
        };
        let host = run(gpu, method()?, 6, 1)?;
        assert_eq!(taken(&host), 3, "{name}");
        assert_eq!(host.2.scalar("steps"), Some(6.0), "{name}");
        equal_courses(name, &host, &run(gpu, method()?, 6, 6)?)?;
    }
    Ok(())
}

fn what_needs_the_host_is_refused(gpu: &Gpu) -> Outcome {
    let (mut objective, theta, batches) = task(gpu)?;
    let before = bits(gpu, &theta)?;
    let slow = Base::Adam(AdamOptions::default().with_beta2(0.99999));
    let new = |options: LrsfnOptions| LowRankSaddleFreeNewton::new(options);
    for (words, method, steps) in [
        ("averages", new(options())?.with_averaging(0.9)?, 1),
        (
            "strategies",
            new(options().with_strategy(Strategy::decoupled()))?,
            1,
        ),
        (
            "strategies",
            new(options().with_strategy(Strategy::cross_fit(2)))?,
            1,
        ),
        ("judge", new(options().with_acceptance(0.25))?, 1),
        ("0.99999", new(options().with_base(slow))?, 1),
        ("eigenpairs", new(options())?, 0),
    ] {
        let mut method = method;
        let copy = objective.initial_parameters(3)?;
        for _ in 0..steps {
            method.step(&mut objective, &copy, &batches[0])?;
        }
        let loaded = objective.load(Slot::default(), &batches[0])?;
        match method.recorded(&mut objective, &theta, &loaded) {
            Err(error @ Error::Unsupported { .. }) => {
                let message = error.to_string();
                assert!(
                    message.contains(words) && message.contains("recorded"),
                    "{message}"
                );
            }
            other => return Err(format!("{words}: {:?}", other.map(|_| ()).err()).into()),
        }
    }
    assert_eq!(bits(gpu, &theta)?, before);
    Ok(())
}

/// No readback and no wait; several steps in one encoder of the caller's.
fn nothing_waits_in_a_hundred_steps(gpu: &Gpu) -> Outcome {
    // With counters of its own.
    let gpu = &harness::of_its_own(gpu)?;
    let (mut objective, theta, batches) = task(gpu)?;
    let adam = Base::Adam(AdamOptions::default());
    let mut method = LowRankSaddleFreeNewton::new(options().with_base(adam))?;
    method.step(&mut objective, &theta, &batches[0])?;
    let loaded = objective.load(Slot::default(), &batches[0])?;
    let mut method = method.recorded(&mut objective, &theta, &loaded)?;
    let readbacks = gpu.readbacks();
    let mut made = gpu.allocated();
    for encoder in 0..20 {
        let device = gpu.device();
        let mut commands =
            device.create_command_encoder(&wgpu::CommandEncoderDescriptor::default());
        let mut recorder = Recorder::new(&mut commands);
        for _ in 0..5 {
            method.record(&mut recorder)?;
        }
        drop(recorder);
        gpu.queue().submit([commands.finish()]);
        if encoder == 0 {
            made = gpu.allocated();
        }
    }
    assert_eq!((gpu.readbacks(), gpu.allocated()), (readbacks, made));
    let reports = arrived(gpu, &mut method, 100)?;
    let numbers: Vec<u64> = reports.iter().map(|report| report.0).collect();
    assert_eq!(numbers, (0..100).collect::<Vec<_>>());
    let losses = [0, 99].map(|at: usize| reports[at].2.loss_before);
    assert!(losses[1] < losses[0], "{losses:?}");
    Ok(())
}

/// On a device with wgpu's smallest limits, where conjugate gradients are refused.
fn four_storage_buffers_are_enough(gpu: &Gpu) -> Outcome {
    let limits = wgpu::Limits::downlevel_defaults();
    let gpu = &small::device(gpu, wgpu::Features::empty(), limits)?;
    for (name, base) in bases() {
        let method = || LowRankSaddleFreeNewton::new(options().with_base(base.clone()));
        let host = run(gpu, method()?, 6, 1)?;
        assert!(taken(&host) > 3, "{name}");
        equal_courses(name, &host, &run(gpu, method()?, 6, 6)?)?;
    }
    Ok(())
}
