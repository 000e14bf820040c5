//! Operations that do not block the thread: the bits of those that do, any number at once, and what one leaves behind that is dropped.

use std::pin::{Pin, pin};
use std::task::{Context, Poll, Waker};

use crate::engine::{classifier, memory, methods};
use crate::harness::{self, GpuTest, Outcome};
use crate::reference::batch_for;
use osculant::Result;
use osculant::gpu::{Gpu, Recording, Slice, Work, grid};
use osculant::linalg::{CgOptions, ConjugateGradients, Operator};
use osculant::objective::{Curvature, Curved, GraphObjective, OwnKernels, QuadraticRequest, Slot};
use osculant::optim::{NewtonCg, NewtonCgOptions, Optimizer};
use pollster::block_on;

pub(crate) fn tests() -> Vec<GpuTest> {
    gpu_tests![
        steps_have_the_bits_of_steps_that_block,
        reads_and_waits_give_what_blocking_ones_give,
        futures_wait_side_by_side,
        a_step_that_is_dropped_did_not_take_place,
        a_step_that_is_dropped_leaves_the_callers_buffers,
        a_product_may_wait,
    ]
}

fn steps_have_the_bits_of_steps_that_block(gpu: &Gpu) -> Outcome {
    // Others count readbacks on the shared one at the same time.
    let gpu = &harness::of_its_own(gpu)?;
    let model = classifier();
    let batches = [16, 16, 24, 16].map(|rows| batch_for(&model, rows, rows as u64));
    for ((name, mut method), (_, mut twin)) in methods()?.into_iter().zip(methods()?) {
        let [mut ours, mut theirs] = [
            GraphObjective::new(gpu, model.clone())?,
            GraphObjective::new(gpu, model.clone())?,
        ];
        let (theta, at) = (ours.initial_parameters(1)?, theirs.initial_parameters(1)?);
        for batch in &batches {
            let report = block_on(method.step_async(&mut ours, &theta, batch))?;
            let expected = twin.step(&mut theirs, &at, batch)?;
            let numbers = |r: &osculant::optim::StepReport| (r.readbacks, r.looks, r.loss_before);
            assert_eq!(numbers(&report), numbers(&expected), "{name}");
        }
        let state = block_on(method.state_async(&ours))?;
        let expected = memory(&theirs, &twin, &at)?;
        if memory(&ours, &method, &theta)? != expected || state != expected.1 {
            return Err(format!("{name}: other bits").into());
        }
        block_on(twin.restore_async(&theirs, &state))?;
        assert_eq!(memory(&theirs, &twin, &at)?, expected, "{name}");
    }
    Ok(())
}

const TWICE: &str = "
@group(0) @binding(0) var<storage, read_write> x: array<f32>;
@compute @workgroup_size(64)
fn main(@builtin(global_invocation_id) id: vec3<u32>) {
    if id.x < arrayLength(&x) { x[id.x] *= 2.0; }
}
";

/// Doubles a slice.
fn double(gpu: &Gpu, x: &Slice) -> Result<Recording> {
    let mut run = Recording::new();
    let kernel = gpu.pipeline("twice", TWICE, &[])?;
    run.dispatch(gpu, &kernel, &[x], grid(gpu.limits(), 1)?)?;
    Ok(run)
}

fn reads_and_waits_give_what_blocking_ones_give(gpu: &Gpu) -> Outcome {
    let (x, y) = (gpu.buffer("x", 64)?, gpu.buffer("y", 3)?);
    let run = double(gpu, &x)?;
    let numbers: Vec<f32> = (0..64u8).map(f32::from).collect();
    block_on(async {
        gpu.upload_async(&x, 0, &numbers).await?;
        gpu.upload_async(&y, 1, &[7u32]).await?;
        let record = |recorder: &mut osculant::gpu::Recorder<'_>| {
            recorder.replay(&run);
            Ok(())
        };
        let doubled = gpu.submit_and_read_async(record, &[&x]).await?;
        let twice: Vec<f32> = numbers.iter().map(|x| 2.0 * x).collect();
        assert_eq!(doubled, [twice]);
        let pending = gpu.submit_and_read_later(record, &[&x, &y])?;
        gpu.wait_async().await?;
        assert_eq!(gpu.read_u32_async(&[&y]).await?, [[0, 7, 0]]);
        assert_eq!(pending.wait_async().await?[0][1..3], [4.0, 8.0]);
        Ok::<_, osculant::Error>(())
    })?;
    let model = classifier();
    let data = batch_for(&model, 16, 1);
    let mut objective = GraphObjective::new(gpu, model)?;
    let theta = objective.initial_parameters(1)?;
    let found = block_on(osculant::check_async(
        &mut objective,
        &theta,
        &data,
        Curvature::Hessian,
    ))?;
    let expected = osculant::check(&mut objective, &theta, &data, Curvature::Hessian)?;
    assert_eq!(found, expected);
    assert!(found.passed(), "{found}");
    Ok(())
}

/// Polls both until both are ready.
async fn both<A: Future, B: Future>(a: A, b: B) -> (A::Output, B::Output) {
    let (mut a, mut b) = (pin!(a), pin!(b));
    let (mut first, mut second) = (None, None);
    std::future::poll_fn(move |context| {
        if first.is_none()
            && let Poll::Ready(output) = a.as_mut().poll(context)
        {
            first = Some(output);
        }
        if second.is_none()
            && let Poll::Ready(output) = b.as_mut().poll(context)
        {
            second = Some(output);
        }
        match (first.take(), second.take()) {
            (Some(a), Some(b)) => Poll::Ready((a, b)),
            left => {
                (first, second) = left;
                Poll::Pending
            }
        }
    })
    .await
}

/// Two solves in turns on one thread, on one device; then two on two threads, which their futures must be allowed to enter.
fn futures_wait_side_by_side(gpu: &Gpu) -> Outcome {
    let model = classifier();
    let batch = batch_for(&model, 16, 1);
    let run = async |seed: u64| {
        let mut objective = GraphObjective::new(gpu, model.clone())?;
        let theta = objective.initial_parameters(seed)?;
        let mut newton = NewtonCg::new(NewtonCgOptions::default())?;
        for _ in 0..3 {
            newton.step_async(&mut objective, &theta, &batch).await?;
        }
        theta.read_async(gpu).await
    };
    let expected = [osculant::gpu::blocking(run(1))?, block_on(run(2))?];
    let (one, two) = block_on(both(run(1), run(2)));
    assert_eq!([one?, two?], expected);
    let [one, two] = [1, 2].map(|seed| {
        let (gpu, model, batch) = (gpu.clone(), model.clone(), batch.clone());
        std::thread::spawn(move || {
            let mut objective = GraphObjective::new(&gpu, model)?;
            let theta = objective.initial_parameters(seed)?;
            let mut newton = NewtonCg::new(NewtonCgOptions::default())?;
            for _ in 0..3 {
                let step = newton.step_async(&mut objective, &theta, &batch);
                // Another thread goes on with it.
                std::thread::scope(|scope| scope.spawn(move || block_on(step)).join()).map_err(
                    |_| osculant::Error::Gpu {
                        what: "a thread".into(),
                        message: "panicked".into(),
                    },
                )??;
            }
            block_on(theta.read_async(&gpu))
        })
    });
    let joined = [one.join(), two.join()].map(|thread| thread.map_err(|_| "a thread panicked"));
    let [one, two] = joined;
    assert_eq!([one??, two??], expected);
    Ok(())
}

/// Polls so often that the future has waited for the device `waits` times, or gives its output. Nobody is woken.
fn poll_past<T>(
    gpu: &Gpu,
    mut future: Pin<Box<dyn Future<Output = Result<T>> + Send + '_>>,
    waits: usize,
) -> Result<Option<T>> {
    for _ in 0..=waits {
        let mut context = Context::from_waker(Waker::noop());
        if let Poll::Ready(output) = future.as_mut().poll(&mut context) {
            return output.map(Some);
        }
        gpu.wait()?;
        // The callback may be run by the thread that drives the device, a little later.
        std::thread::sleep(std::time::Duration::from_millis(1));
    }
    Ok(None)
}

/// Drops a step at each place where it waits, one after another: parameters and state are what they were each time, and the step that is
/// made in the end has the bits of one that nothing came before.
fn a_step_that_is_dropped_did_not_take_place(gpu: &Gpu) -> Outcome {
    let model = classifier();
    let batches = [16, 16, 24].map(|rows| batch_for(&model, rows, rows as u64));
    let mut dropped = 0;
    for ((name, mut method), (_, mut twin)) in methods()?.into_iter().zip(methods()?) {
        let [mut objective, mut other] = [
            GraphObjective::new(gpu, model.clone())?,
            GraphObjective::new(gpu, model.clone())?,
        ];
        let (theta, at) = (
            objective.initial_parameters(1)?,
            other.initial_parameters(1)?,
        );
        for batch in &batches[..2] {
            method.step(&mut objective, &theta, batch)?;
            twin.step(&mut other, &at, batch)?;
        }
        let before = memory(&objective, &method, &theta)?;
        let mut waits = 0;
        loop {
            let step = method.step_async(&mut objective, &theta, &batches[2]);
            if poll_past(gpu, step, waits)?.is_some() {
                break;
            }
            assert_eq!(
                memory(&objective, &method, &theta)?,
                before,
                "{name}, {waits}"
            );
            waits += 1;
        }
        dropped += waits;
        twin.step(&mut other, &at, &batches[2])?;
        let [ours, theirs] = [
            memory(&objective, &method, &theta)?,
            memory(&other, &twin, &at)?,
        ];
        assert_eq!(ours, theirs, "{name}, after {waits} that were dropped");
    }
    // Some wait once, most more often; now and then what is waited for is there at once.
    assert!(dropped > 15, "only {dropped}");
    Ok(())
}

fn a_step_that_is_dropped_leaves_the_callers_buffers(gpu: &Gpu) -> Outcome {
    let buffers = ["parameters", "gradient", "loss"].map(|label| gpu.buffer(label, 1));
    let [parameters, gradient, loss] = buffers;
    let (parameters, gradient, loss) = (parameters?, gradient?, loss?);
    gpu.upload(&parameters, 0, &[3.0f32])?;
    // Loss and gradient are constant, so each step goes to the boundary of the trust region.
    gpu.upload(&gradient, 0, &[1.0f32])?;
    let mut own = OwnKernels::flat(
        gpu,
        parameters.buffer(),
        gradient.buffer(),
        loss.buffer(),
        Work::new(),
    )?;
    let mut newton = NewtonCg::new(NewtonCgOptions::default().with_curvature(Curvature::Hessian))?;
    let step = Box::pin(own.step_async(&mut newton));
    assert!(poll_past(gpu, step, 0)?.is_none(), "it never waited");
    assert_eq!(gpu.read(&[&parameters])?, [[3.0]]);
    Ok(())
}

/// A product that waits in its middle gives solves the bits of the recorded one, whether they block or not.
fn a_product_may_wait(gpu: &Gpu) -> Outcome {
    let model = classifier();
    let batch = batch_for(&model, 16, 1);
    let mut objective = GraphObjective::new(gpu, model)?;
    let theta = objective.initial_parameters(1)?;
    let request = QuadraticRequest {
        curvature: Curvature::GaussNewton,
        ..QuadraticRequest::default()
    };
    let quadratic = objective.load_quadratic(Slot::default(), &theta, &batch, request)?;
    let recorded = Operator::from(&*quadratic);
    let multiply = quadratic.multiply.clone();
    let product = Work::hosted_async(move |gpu| {
        let multiply = multiply.clone();
        Box::pin(async move {
            gpu.wait_async().await?;
            gpu.run_async([&multiply]).await?;
            gpu.wait_async().await
        })
    });
    let hosted = Operator {
        multiply: product,
        ..recorded.clone()
    };
    let options = CgOptions::default().with_max_iterations(8);
    let mut found = Vec::new();
    for operator in [&recorded, &hosted] {
        let cg = ConjugateGradients::new(gpu, operator, &quadratic.gradient, None, &options, &[])?;
        let before = &quadratic.linearize;
        for blocks in [true, false] {
            let report = match blocks {
                true => cg.solve(before, 0.1, None, false)?,
                false => block_on(cg.solve_async(before, 0.1, None, false))?,
            };
            found.push((report.iterations, cg.solution.read(gpu)?));
        }
    }
    assert!(found.iter().all(|other| *other == found[0]), "{found:?}");
    Ok(())
}
