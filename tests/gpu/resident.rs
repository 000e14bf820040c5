//! An objective over a data set on the device has the bits of one whose batches come from the host, in all that it says and under every
//! kind of optimizer; bad rows are refused and change nothing.

use std::sync::Arc;

use crate::harness::{self, GpuTest, Outcome, small};
use osculant::Error;
use osculant::data::{
    Batch, Dataset, DeviceDataset, Epochs, MicroBatches, Rows, Shuffle, Targets, digits,
};
use osculant::gpu::{Gpu, Recording, Slice};
use osculant::linalg::EigenOptions;
use osculant::nn::{Activation, Loss, Model, Sequential};
use osculant::objective::{
    Accumulated, GradientRequest, GraphObjective, Objective, Parts, QuadraticRequest, Resident,
    Slot,
};
use osculant::optim::{
    Adam, AdamOptions, DecoupledNewtonCg, DecoupledOptions, LowRankSaddleFreeNewton, LrsfnOptions,
    NewtonCg, NewtonCgOptions, Optimizer, OptimizerState, Strategy,
};
use osculant::random::philox4x32;
use osculant::vector::Vector;

pub(crate) fn tests() -> Vec<GpuTest> {
    gpu_tests![
        first_order_steps_have_the_bits_of_batches,
        newton_steps_have_the_bits_of_batches,
        saddle_free_newton_steps_have_the_bits_of_batches,
        targets_of_every_kind_are_those_of_the_host,
        tables_larger_than_a_binding_are_in_pieces,
        micro_batches_of_rows_are_those_of_the_host,
        bad_rows_change_nothing,
        a_step_that_fails_changes_nothing,
        data_that_do_not_fit_the_model_are_refused,
        rows_drawn_on_the_device_need_no_host,
        numbers_that_are_not_finite_are_traced_to_their_rows,
    ]
}

type Any = Box<dyn std::error::Error>;

const ROWS: usize = 100;
const BATCH: usize = 24;
/// More than an epoch: its last batch has 4 rows and is filled up.
const STEPS: usize = 6;

fn data() -> osculant::Result<Dataset> {
    digits()?.head(ROWS)
}

fn network(data: &Dataset) -> Model {
    Sequential::new()
        .dense(6)
        .activation(Activation::Tanh)
        .dense(10)
        .model(data, Loss::SoftmaxCrossEntropy)
}

fn objective(gpu: &Gpu) -> osculant::Result<GraphObjective> {
    GraphObjective::new(gpu, network(&data()?))?.with_l2(0.02)
}

fn resident(gpu: &Gpu) -> osculant::Result<Resident> {
    Resident::new(objective(gpu)?, DeviceDataset::new(gpu, data()?)?)
}

fn bits(gpu: &Gpu, slices: &[&Slice]) -> osculant::Result<Vec<Vec<u32>>> {
    gpu.read_u32(slices)
}

/// Losses of each step, and parameters and state after the last, to the bit.
type Course = (Vec<[Option<f64>; 3]>, Vec<Vec<u32>>, OptimizerState);

fn course<O: Objective>(
    gpu: &Gpu,
    objective: &mut O,
    mut method: Box<dyn Optimizer<O>>,
    theta: &Vector,
    batch: impl Fn(&[usize]) -> osculant::Result<O::Batch>,
) -> Result<Course, Any> {
    let mut epochs = Epochs::new(ROWS, BATCH, 3)?;
    let mut losses = Vec::new();
    for _ in 0..STEPS {
        let report = method.step(objective, theta, &batch(epochs.next_batch())?)?;
        losses.push([
            Some(report.loss_before),
            report.loss_after,
            report.loss_change,
        ]);
    }
    let theta = bits(gpu, &[theta.slice()])?;
    Ok((losses, theta, method.state(objective)?))
}

/// One method twice.
macro_rules! same_course {
    ($gpu:expr, $method:expr) => {{
        let mut host = objective($gpu)?;
        let theta = host.initial_parameters(1)?;
        let data = data()?;
        let batch = |rows: &[usize]| data.batch(rows)?.pad_to(BATCH);
        let expected = course($gpu, &mut host, Box::new($method), &theta, batch)?;
        let mut device = resident($gpu)?;
        let theta = device.inner().initial_parameters(1)?;
        let before = bits($gpu, &[theta.slice()])?;
        let rows = |rows: &[usize]| Rows::new(rows)?.pad_to(BATCH);
        let found = course($gpu, &mut device, Box::new($method), &theta, rows)?;
        assert_ne!(found.1, before);
        if found != expected {
            return Err(format!("{}: {found:?}, {expected:?}", stringify!($method)).into());
        }
    }};
}

fn first_order_steps_have_the_bits_of_batches(gpu: &Gpu) -> Outcome {
    same_course!(gpu, Adam::new(AdamOptions::default())?);
    Ok(())
}

fn newton_steps_have_the_bits_of_batches(gpu: &Gpu) -> Outcome {
    same_course!(gpu, NewtonCg::new(NewtonCgOptions::default())?);
    let options = DecoupledOptions::default;
    same_course!(gpu, DecoupledNewtonCg::new(options())?);
    same_course!(
        gpu,
        DecoupledNewtonCg::new(
            options()
                .with_strategy(Strategy::cross_fit(2))
                .with_acceptance(0.25)
        )?
    );
    Ok(())
}

fn saddle_free_newton_steps_have_the_bits_of_batches(gpu: &Gpu) -> Outcome {
    let options = || LrsfnOptions::default().with_eigen(EigenOptions::default().with_rank(3));
    same_course!(gpu, LowRankSaddleFreeNewton::new(options())?);
    same_course!(
        gpu,
        LowRankSaddleFreeNewton::new(
            options()
                .with_strategy(Strategy::cross_fit(2))
                .with_acceptance(0.25)
        )?
    );
    Ok(())
}

/// Rows of so many features; two columns of numbers each, of which some are not normal.
fn synthetic(rows: usize, width: usize, targets: usize) -> osculant::Result<Dataset> {
    let number = |i: usize| {
        let word = philox4x32([i as u32, 0, 0, 0], [9, 0])[0];
        (f64::from(word) / f64::from(u32::MAX) * 2.0 - 1.0) as f32
    };
    let features = (0..rows * width).map(number).collect();
    let targets = match targets {
        0 => Targets::Inputs,
        width => Targets::Values {
            values: (0..rows * width).map(|i| number(i + 1_000_000)).collect(),
            width,
        },
    };
    Dataset::new("synthetic", features, width, targets)
}

/// Loss and gradient, to the bit, of a batch and of its groups.
fn numbers<O: Parts>(
    gpu: &Gpu,
    objective: &mut O,
    theta: &Vector,
    batch: &O::Batch,
) -> osculant::Result<Vec<Vec<u32>>> {
    let loaded = objective.load(Slot::default(), batch)?;
    let gradient = objective.gradient(theta, &loaded, GradientRequest::default())?;
    gpu.run([&gradient.run])?;
    let mut found = bits(gpu, &[&gradient.value, gradient.gradient.slice()])?;
    let quadratic =
        objective.load_quadratic(Slot::default(), theta, batch, QuadraticRequest::default())?;
    gpu.run([&quadratic.linearize])?;
    found.extend(bits(gpu, &[&quadratic.value, quadratic.gradient.slice()])?);
    Ok(found)
}

fn targets_of_every_kind_are_those_of_the_host(gpu: &Gpu) -> Outcome {
    for (width, targets, unit) in [(5, 3, true), (8, 4, true), (4, 0, true), (3, 1, false)] {
        let data = Arc::new(synthetic(50, width, targets)?);
        let outputs = if targets == 0 { width } else { targets };
        let network = Sequential::new()
            .dense(3)
            .activation(Activation::Tanh)
            .dense(outputs);
        let model = || network.clone().model(&*data, Loss::MeanSquaredError);
        let mut host = GraphObjective::new(gpu, model())?;
        let theta = host.initial_parameters(1)?;
        let mut device = Resident::new(
            GraphObjective::new(gpu, model())?,
            DeviceDataset::new(gpu, Arc::clone(&data))?,
        )?;
        let chosen = [49, 0, 7, 7, 31];
        let weights: Vec<f32> = (0..6)
            .map(|i| match i {
                5 => 0.0,
                _ if unit => 0.2,
                i => 0.1 + i as f32,
            })
            .collect();
        let rows = Rows::new(&chosen)?
            .pad_to(6)?
            .with_weights(weights.clone())?;
        let batch = Batch {
            weights,
            ..data.batch(&chosen)?.pad_to(6)?
        };
        let expected = numbers(gpu, &mut host, &theta, &batch)?;
        let found = numbers(gpu, &mut device, &theta, &rows)?;
        assert_eq!(found, expected, "{width} features, {targets} targets");
        // The same slot from the host, by the same programs.
        let found = numbers(gpu, device.inner_mut(), &theta, &batch)?;
        assert_eq!(found, expected);
        let parts = [0..2, 4..6];
        let of_part = numbers(gpu, &mut host, &theta, &batch.part(&parts)?)?;
        let part = device.part(&rows, &parts)?;
        assert_eq!(numbers(gpu, &mut device, &theta, &part)?, of_part);
        assert_eq!(device.rows(&part), Some(4));
    }
    Ok(())
}

/// A device of the same adapter whose bindings hold 2,048 elements.
fn narrow(gpu: &Gpu) -> Result<Gpu, Any> {
    let limits = wgpu::Limits {
        max_storage_buffer_binding_size: 8192,
        ..wgpu::Limits::downlevel_defaults()
    };
    small::device(gpu, wgpu::Features::empty(), limits)
}

fn tables_larger_than_a_binding_are_in_pieces(gpu: &Gpu) -> Outcome {
    let gpu = &narrow(gpu)?;
    // 41 rows of 48 columns in a piece: three pieces, of which the last has 18.
    let data = synthetic(100, 48, 1)?;
    let model = Sequential::new()
        .dense(1)
        .model(&data, Loss::MeanSquaredError);
    let mut host = GraphObjective::new(gpu, model.clone())?;
    let theta = host.initial_parameters(1)?;
    let chosen = [99, 0, 41, 42, 82, 81, 17];
    let batch = data.batch(&chosen)?.pad_to(8)?;
    let expected = numbers(gpu, &mut host, &theta, &batch)?;
    let device = DeviceDataset::new(gpu, data)?;
    assert_eq!(device.bytes(), 100 * 49 * 4);
    let mut device = Resident::new(GraphObjective::new(gpu, model)?, device)?;
    let rows = Rows::new(&chosen)?.pad_to(8)?;
    assert_eq!(numbers(gpu, &mut device, &theta, &rows)?, expected);

    let wide = Dataset::new("wide", vec![0.5; 2 * 2049], 2049, Targets::Inputs)?;
    match DeviceDataset::new(gpu, wide) {
        Err(Error::OverLimit {
            what,
            needed: 8196,
            limit: 8192,
            ..
        }) if what.contains("row") => Ok(()),
        other => Err(format!("{other:?}").into()),
    }
}

fn micro_batches_of_rows_are_those_of_the_host(gpu: &Gpu) -> Outcome {
    let mut host = Accumulated::new(objective(gpu)?);
    let theta = host.inner().initial_parameters(1)?;
    let mut device = Accumulated::new(resident(gpu)?);
    let data = data()?;
    let chosen: Vec<usize> = (3..17).collect();
    let batch = data.micro_batches(&chosen, 6)?;
    let parts = chosen.chunks(5).zip(batch.parts());
    let rows: Vec<_> = parts
        .map(|(chosen, (_, share))| Ok((Rows::new(chosen)?.pad_to(5)?, *share)))
        .collect::<osculant::Result<_>>()?;
    let expected = numbers(gpu, &mut host, &theta, &batch)?;
    let rows = MicroBatches::new(rows)?;
    assert_eq!(rows.parts().len(), 3);
    assert_eq!(numbers(gpu, &mut device, &theta, &rows)?, expected);
    Ok(())
}

/// Lets every operation of a step fail, one after another, the loading of its rows among them.
fn a_step_that_fails_changes_nothing(gpu: &Gpu) -> Outcome {
    // A device of its own: other trials work with the shared one at the same time.
    let gpu = &harness::of_its_own(gpu)?;
    let batches = [Rows::new(&[5, 6, 7])?, Rows::new(&[1, 2, 3, 4])?];
    let start = || -> Result<_, Any> {
        let objective = resident(gpu)?;
        let theta = objective.inner().initial_parameters(1)?;
        Ok((objective, theta, Adam::new(AdamOptions::default())?))
    };
    let (mut objective, theta, mut adam) = start()?;
    adam.step(&mut objective, &theta, &batches[0])?;
    let before = (bits(gpu, &[theta.slice()])?, adam.state(&objective)?);
    let mut failures = 0;
    loop {
        gpu.fail_after(Some(failures));
        let result = adam.step(&mut objective, &theta, &batches[1]);
        let reached = !gpu.fails_later();
        gpu.fail_after(None);
        if !reached {
            result?;
            break;
        }
        assert!(result.is_err(), "operation {failures} failed unseen");
        let after = (bits(gpu, &[theta.slice()])?, adam.state(&objective)?);
        assert_eq!(after, before, "after operation {failures} failed");
        failures += 1;
    }
    // Index, weights, their sum and the copies, beside what the step itself does.
    assert!(failures > 10, "{failures}");
    let after = (bits(gpu, &[theta.slice()])?, adam.state(&objective)?);
    let (mut objective, theta, mut adam) = start()?;
    for batch in &batches {
        adam.step(&mut objective, &theta, batch)?;
    }
    let expected = (bits(gpu, &[theta.slice()])?, adam.state(&objective)?);
    assert_eq!(after, expected);
    Ok(())
}

fn bad_rows_change_nothing(gpu: &Gpu) -> Outcome {
    let mut objective = resident(gpu)?;
    let theta = objective.inner().initial_parameters(1)?;
    let mut adam = Adam::new(AdamOptions::default())?;
    let good = Rows::new(&[5, 6, 7])?;
    adam.step(&mut objective, &theta, &good)?;
    let memory = |objective: &Resident, adam: &Adam| -> Result<_, Any> {
        Ok((bits(gpu, &[theta.slice()])?, adam.state(objective)?))
    };
    let before = memory(&objective, &adam)?;
    let loaded = objective.load(Slot::default(), &good)?;
    let gradient = objective.gradient(&theta, &loaded, GradientRequest::default())?;
    let run = || -> osculant::Result<Vec<Vec<u32>>> {
        gpu.run([&gradient.run])?;
        bits(gpu, &[&gradient.value, gradient.gradient.slice()])
    };
    let expected = run()?;
    // As many rows as are loaded, so that the slot would be theirs.
    let beyond = Rows::new(&[0, 100, 1])?;
    let tiny = Rows::new(&[0, 1, 2])?.with_weights(vec![1e-40, 0.0, 0.0])?;
    for (rows, said) in [
        (&beyond, "asks for row 100 of 100"),
        (&tiny, "weights add up to"),
    ] {
        let message = |error: Error| match error {
            Error::Data { message, .. } => message,
            other => format!("another error: {other}"),
        };
        let of_load = objective.load(Slot::default(), rows).err().map(message);
        let of_groups = objective
            .load_groups(Slot::default(), &rows.clone().pad_to(4)?, 1)
            .err()
            .map(message);
        let of_step = adam.step(&mut objective, &theta, rows).err().map(message);
        for found in [of_load, of_groups, of_step] {
            let found = found.ok_or("nothing was refused")?;
            assert!(found.contains(said), "{found}");
        }
        assert_eq!(memory(&objective, &adam)?, before);
        assert_eq!(run()?, expected, "the slot holds another batch");
    }
    let nothing = osculant::objective::Loaded { rows: 9, ..loaded };
    let found = objective.gather(&nothing).map(|_| ());
    assert!(matches!(found, Err(Error::Unsupported { .. })), "{found:?}");
    Ok(())
}

fn data_that_do_not_fit_the_model_are_refused(gpu: &Gpu) -> Outcome {
    let found = |model: Model, data: Dataset| -> Result<String, Any> {
        let result = Resident::new(
            GraphObjective::new(gpu, model)?,
            DeviceDataset::new(gpu, data)?,
        );
        match result {
            Err(Error::Data { what, message }) => Ok(format!("{what}: {message}")),
            other => Err(format!("{other:?}").into()),
        }
    };
    let labels = |classes: usize, label: u32| Targets::Classes {
        labels: vec![0, label],
        classes,
    };
    let two =
        |width: usize, targets: Targets| Dataset::new("two", vec![0.5; 2 * width], width, targets);
    let classifier = network(&data()?);
    for (data, said) in [
        (
            two(63, labels(10, 9))?,
            "two: 126 features for 2 examples; the model takes 64",
        ),
        (
            two(64, labels(11, 10))?,
            "two: label 10 of example 1 is out of range",
        ),
        (
            two(64, Targets::Inputs)?,
            "two: the model takes targets of kind Classes(10)",
        ),
    ] {
        let message = found(classifier.clone(), data)?;
        assert!(message.starts_with(said), "{message}");
    }
    // More classes than the model's, none of which occurs.
    let few = two(64, labels(11, 9))?;
    Resident::new(
        GraphObjective::new(gpu, classifier.clone())?,
        DeviceDataset::new(gpu, few)?,
    )?;
    let elsewhere = small::device(
        gpu,
        wgpu::Features::empty(),
        wgpu::Limits::downlevel_defaults(),
    )?;
    let elsewhere = DeviceDataset::new(&elsewhere, data()?)?;
    let result = Resident::new(GraphObjective::new(gpu, classifier)?, elsewhere);
    assert!(
        matches!(result, Err(Error::Unsupported { .. })),
        "{result:?}"
    );
    Ok(())
}

/// Gradients of ten steps in one submission each of draw, copies and gradient: those of the same rows from the host.
fn rows_drawn_on_the_device_need_no_host(gpu: &Gpu) -> Outcome {
    // A device of its own, whose readbacks are counted: other trials work with the shared one at the same time.
    let gpu = &harness::of_its_own(gpu)?;
    let mut objective = resident(gpu)?;
    let theta = objective.inner().initial_parameters(1)?;
    let shuffle = Shuffle::new(ROWS, BATCH, 5)?;
    let loaded = objective.load(Slot::default(), &Rows::new(&[0; BATCH])?)?;
    let gather = objective.gather(&loaded)?;
    assert!(Arc::ptr_eq(&gather, &objective.gather(&loaded)?));
    let gradient = objective.gradient(&theta, &loaded, GradientRequest::default())?;
    let (step, mut draw) = (gpu.buffer("step", 1)?, Recording::new());
    shuffle.record(gpu, &mut draw, &gather.index, &step)?;
    let values = gpu.buffer("values", 10 * 64)?;
    let readbacks = gpu.readbacks();
    for number in 0..10u32 {
        gpu.upload(&step, 0, &[number])?;
        let mut keep = Recording::new();
        keep.copy_part(&gradient.value, 0, &values, 64 * number as usize, 1)?;
        gpu.run([&draw, &gather.run, gradient.run.recorded()?, &keep])?;
    }
    assert_eq!(gpu.readbacks(), readbacks);
    let found = gpu.read(&[&values])?.remove(0);
    let last = bits(gpu, &[gradient.gradient.slice()])?;
    let (mut host, data) = (self::objective(gpu)?, data()?);
    for number in 0..10u32 {
        let batch = data.batch(&shuffle.batch(number))?;
        let loaded = host.load(Slot::default(), &batch)?;
        let gradient = host.gradient(&theta, &loaded, GradientRequest::default())?;
        gpu.run([&gradient.run])?;
        let value = gpu.read(&[&gradient.value])?[0][0];
        assert_eq!(
            value.to_bits(),
            found[64 * number as usize].to_bits(),
            "step {number}"
        );
        if number == 9 {
            assert_eq!(bits(gpu, &[gradient.gradient.slice()])?, last);
        }
    }
    Ok(())
}

/// The error of a step says the same as with rows from the host.
fn numbers_that_are_not_finite_are_traced_to_their_rows(gpu: &Gpu) -> Outcome {
    let mut host = objective(gpu)?;
    let mut device = resident(gpu)?;
    let said = |theta: &Vector, objective: &mut dyn FnMut(&Vector) -> Option<Error>| match objective(
        theta,
    ) {
        Some(error @ Error::NotFinite { .. }) => Ok(error.to_string()),
        other => Err(format!("{other:?}")),
    };
    let theta = host.initial_parameters(1)?;
    let mut tensors = theta.read(gpu)?;
    for value in tensors.iter_mut().flatten() {
        *value = 3e38;
    }
    theta.write(gpu, &tensors)?;
    let chosen = [4, 5, 6];
    let batch = data()?.batch(&chosen)?.pad_to(4)?;
    let rows = Rows::new(&chosen)?.pad_to(4)?;
    let mut adam = Adam::new(AdamOptions::default())?;
    let expected = said(&theta, &mut |theta| {
        adam.step(&mut host, theta, &batch).err()
    })?;
    let mut adam = Adam::new(AdamOptions::default())?;
    let found = said(&theta, &mut |theta| {
        adam.step(&mut device, theta, &rows).err()
    })?;
    assert_eq!(found, expected);
    assert!(found.contains("first in"), "{found}");
    Ok(())
}
