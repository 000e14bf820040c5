//! Buffers, recordings and reads.

use super::*;

#[test]
fn handles_may_cross_threads() {
    fn check<T: Send + Sync>() {}
    check::<Gpu>();
    check::<Slice>();
    check::<Pipeline>();
    check::<Recording>();
    check::<Error>();
}

#[test]
fn upload_then_read_gives_the_same_bits() -> Result<()> {
    let gpu = Gpu::new()?;
    let slice = gpu.buffer("numbers", 1000)?;
    assert_eq!(
        gpu.read(&[&slice])?,
        [vec![0.0; 1000]],
        "new buffers hold zeros"
    );
    let numbers: Vec<u32> = (0..1000u32)
        .map(|i| i.wrapping_mul(2_654_435_761))
        .collect();
    gpu.upload(&slice, 0, &numbers)?;
    assert_eq!(gpu.read_u32(&[&slice])?.concat(), numbers);
    gpu.upload(&slice, 3, &[0.5f32, -1.0])?;
    let read = gpu.read(&[&slice])?.remove(0);
    assert_eq!(read[3..5], [0.5, -1.0]);
    assert_eq!(
        (read[2].to_bits(), read[5].to_bits()),
        (numbers[2], numbers[5])
    );
    Ok(())
}

#[test]
fn several_slices_are_read_in_one_readback() -> Result<()> {
    let gpu = Gpu::new()?;
    let (a, b) = (gpu.buffer("a", 3)?, gpu.buffer("b", 70_000)?);
    gpu.upload(&a, 0, &[1.0f32, 2.0, 3.0])?;
    gpu.upload(&b, 69_999, &[4.0f32])?;
    for round in 1..=3 {
        let read = gpu.read(&[&b, &a, &a])?;
        assert_eq!((read[0].len(), read[0][69_999]), (70_000, 4.0));
        assert_eq!(read[1..], [[1.0, 2.0, 3.0], [1.0, 2.0, 3.0]]);
        assert_eq!(gpu.readbacks(), round);
    }
    assert!(gpu.read(&[])?.is_empty());
    assert_eq!(gpu.readbacks(), 3, "nothing was read");
    Ok(())
}

#[test]
fn reads_with_something_behind_them_are_looks() -> Result<()> {
    let gpu = Gpu::new()?;
    let x = gpu.buffer("x", 3)?;
    let read = |value: f32| -> Result<PendingRead> {
        gpu.upload(&x, 0, &[value; 3])?;
        gpu.submit_and_read_later(|_| Ok(()), &[&x])
    };
    let first = read(1.0)?;
    // Forgotten, and its buffer used again.
    drop(read(2.0)?);
    let last = read(3.0)?;
    assert_eq!(first.wait()?, [[1.0; 3]]);
    assert_eq!((gpu.readbacks(), gpu.looks()), (0, 1));
    assert_eq!(last.wait()?, [[3.0; 3]]);
    assert_eq!((gpu.readbacks(), gpu.looks()), (1, 1));
    Ok(())
}

#[test]
fn a_recording_replays_twice() -> Result<()> {
    let gpu = Gpu::new()?;
    let (x, y) = (gpu.buffer("x", 100)?, gpu.buffer("y", 100)?);
    gpu.upload(&x, 0, &[1.5f32; 100])?;
    let twice = gpu.pipeline("twice", TWICE, &[])?;
    let mut recording = Recording::new();
    recording.dispatch(&gpu, &twice, &[&x, &y], grid(gpu.limits(), 2)?)?;
    assert_eq!((recording.dispatches(), recording.commands().len()), (1, 1));
    gpu.submit(|recorder| {
        recorder.replay(&recording);
        recorder.replay(&recording);
    })?;
    assert_eq!(gpu.read(&[&y])?, [[6.0; 100]]);
    let read = gpu.submit_and_read(
        |recorder| {
            recorder.replay(&recording);
            Ok(())
        },
        &[&y],
    )?;
    assert_eq!(read, [[9.0; 100]]);
    Ok(())
}

#[test]
fn two_kernels_alternate_in_one_recording() -> Result<()> {
    let gpu = Gpu::new()?;
    let (x, y) = (gpu.buffer("x", 1)?, gpu.buffer("y", 1)?);
    gpu.upload(&x, 0, &[1.0f32])?;
    let mut recording = Recording::new();
    for factor in [1.0, 10.0, 10.0, 1.0] {
        let kernel = gpu.pipeline("scaled", TWICE, &[("FACTOR", factor)])?;
        recording.dispatch(&gpu, &kernel, &[&x, &y], [1, 1, 1])?;
    }
    gpu.submit(|recorder| recorder.replay(&recording))?;
    assert_eq!(gpu.read(&[&y])?, [[22.0]]);
    Ok(())
}

#[test]
fn a_part_is_written_and_read_at_its_own_place() -> Result<()> {
    let gpu = Gpu::new()?;
    let step = gpu.alignment();
    let whole = gpu.buffer("x", 3 * step)?;
    let part = whole.slice(step..3 * step)?.slice(step..2 * step)?;
    gpu.upload(&part, step - 1, &[7.0f32])?;
    let mut expected = vec![0.0; 3 * step];
    expected[3 * step - 1] = 7.0;
    assert_eq!(
        gpu.read(&[&whole, &part])?,
        [&expected[..], &expected[2 * step..]]
    );
    Ok(())
}

#[test]
fn a_callers_encoder_is_recorded_into() -> Result<()> {
    let gpu = Gpu::new()?;
    let (x, y) = (gpu.buffer("x", 8)?, gpu.buffer("y", 8)?);
    gpu.upload(&x, 0, &[1.0f32; 8])?;
    let mut recording = Recording::new();
    recording.dispatch(
        &gpu,
        &gpu.pipeline("twice", TWICE, &[])?,
        &[&x, &y],
        [1, 1, 1],
    )?;
    let mut encoder = gpu
        .device()
        .create_command_encoder(&wgpu::CommandEncoderDescriptor::default());
    let mut recorder = Recorder::new(&mut encoder);
    recorder.replay(&recording);
    recorder.encoder().clear_buffer(x.buffer(), 0, Some(16));
    recorder.replay(&recording);
    drop(recorder);
    gpu.queue().submit([encoder.finish()]);
    assert_eq!(gpu.read(&[&y])?, [[2.0, 2.0, 2.0, 2.0, 4.0, 4.0, 4.0, 4.0]]);
    Ok(())
}

#[test]
fn copies_move_slices_between_dispatches() -> Result<()> {
    let gpu = Gpu::new()?;
    let step = gpu.alignment();
    let (x, y) = (gpu.buffer("x", 3 * step)?, gpu.buffer("y", 3 * step)?);
    let numbers: Vec<f32> = (0u16..).take(3 * step).map(f32::from).collect();
    gpu.upload(&x, 0, &numbers)?;
    let mut recording = Recording::new();
    recording.copy(&x.slice(step..2 * step)?, &y.slice(2 * step..3 * step)?)?;
    let mut run = Recording::new();
    let groups = grid(gpu.limits(), (3 * step).div_ceil(64))?;
    run.dispatch(&gpu, &gpu.pipeline("twice", TWICE, &[])?, &[&x, &y], groups)?;
    recording.append(run);
    gpu.submit(|recorder| recorder.replay(&recording))?;
    let expected: Vec<f32> = (0..3 * step)
        .map(|i| 2.0 * numbers[i] + if i < 2 * step { 0.0 } else { numbers[i - step] })
        .collect();
    assert_eq!(gpu.read(&[&y])?, [expected]);
    Ok(())
}

#[test]
fn copies_that_cannot_work_are_refused() -> Result<()> {
    let gpu = Gpu::new()?;
    let step = gpu.alignment();
    let (x, y) = (gpu.buffer("x", 2 * step)?, gpu.buffer("y", step)?);
    let mut recording = Recording::new();
    assert!(matches!(recording.copy(&x, &y), Err(Error::Length { .. })));
    let within = recording.copy(&x.slice(0..step)?, &x.slice(step..2 * step)?);
    assert!(matches!(within, Err(Error::Unsupported { .. })));
    assert!(recording.commands().is_empty());
    Ok(())
}

#[test]
fn broken_wgsl_is_an_error_with_numbered_source() -> Result<()> {
    let gpu = Gpu::new()?;
    let source = "@compute @workgroup_size(1)\nfn main() {\n    let a: u32 = 1.5f;\n}";
    let Err(Error::Shader {
        label,
        message,
        source_text,
    }) = gpu.pipeline("broken", source, &[])
    else {
        panic!("broken WGSL was accepted");
    };
    assert_eq!(label, "broken");
    assert!(message.contains("u32"), "{message}");
    assert!(
        source_text.contains("   3 |     let a: u32 = 1.5f;\n"),
        "{source_text}"
    );

    // Valid WGSL that makes no pipeline: no `main`, and a constant that does not exist.
    let other = "@compute @workgroup_size(1) fn other() {}";
    for (source, constants) in [(other, &[][..]), (TWICE, &[("NO_SUCH", 1.0)])] {
        let result = gpu.pipeline("broken", source, constants);
        assert!(matches!(result, Err(Error::Shader { .. })), "{result:?}");
    }
    gpu.check()
}

#[test]
fn bindings_that_do_not_fit_the_kernel_are_an_error() -> Result<()> {
    let gpu = Gpu::new()?;
    let (x, y) = (gpu.buffer("x", 4)?, gpu.buffer("y", 4)?);
    let twice = gpu.pipeline("twice", TWICE, &[])?;
    let mut recording = Recording::new();
    for bindings in [&[&x][..], &[&x, &y, &y], &[]] {
        assert!(matches!(
            recording.dispatch(&gpu, &twice, bindings, [1, 1, 1]),
            Err(Error::Gpu { .. })
        ));
    }
    let too_many = gpu.limits().max_compute_workgroups_per_dimension + 1;
    let result = recording.dispatch(&gpu, &twice, &[&x, &y], [1, too_many, 1]);
    assert!(matches!(result, Err(Error::OverLimit { .. })));
    // One buffer both read and written is found by wgpu at submission.
    recording.dispatch(&gpu, &twice, &[&x, &x], [1, 1, 1])?;
    let result = gpu.submit(|recorder| recorder.replay(&recording));
    assert!(matches!(result, Err(Error::Gpu { .. })), "{result:?}");
    gpu.check()
}

#[test]
fn sizes_over_the_limits_are_refused() -> Result<()> {
    let gpu = Gpu::new()?;
    let too_long = usize::try_from(gpu.limits().max_storage_buffer_binding_size / 4)
        .map_or(usize::MAX, |n| n + 1);
    for elements in [too_long, usize::MAX] {
        let result = gpu.buffer("huge", elements);
        assert!(matches!(result, Err(Error::OverLimit { .. })), "{result:?}");
    }
    assert!(matches!(gpu.buffer("empty", 0), Err(Error::Length { .. })));
    Ok(())
}

#[test]
fn uploads_and_parts_out_of_bounds_are_refused() -> Result<()> {
    let gpu = Gpu::new()?;
    let step = gpu.alignment();
    let slice = gpu.buffer("x", 2 * step)?;
    let half = slice.slice(step..2 * step)?;
    for (offset, length) in [(0, step + 1), (step, 1), (usize::MAX, 1)] {
        let result = gpu.upload(&half, offset, &vec![0u32; length]);
        assert!(matches!(result, Err(Error::Length { .. })), "{result:?}");
    }
    assert!(matches!(
        gpu.upload(&half, 0, &[1u8, 2, 3]),
        Err(Error::Length { .. })
    ));
    gpu.upload::<f32>(&half, step, &[])?;
    #[expect(
        clippy::reversed_empty_ranges,
        reason = "a caller may compute such a range"
    )]
    for range in [0..step + 1, 1..1, 2..1] {
        assert!(matches!(half.slice(range), Err(Error::Length { .. })));
    }
    if step > 1 {
        assert!(matches!(slice.slice(1..2), Err(Error::Unsupported { .. })));
    }
    Ok(())
}
