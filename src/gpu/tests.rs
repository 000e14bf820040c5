//! Tests of the gpu layer. They need an adapter; a software one will do.
#![expect(clippy::panic, reason = "a test fails by panicking")]

use std::sync::Arc;
use std::thread;

use super::*;
use crate::error::{Error, Result};

const TWICE: &str = "
override FACTOR: f32 = 2.0;
@group(0) @binding(0) var<storage, read> x: array<f32>;
@group(0) @binding(1) var<storage, read_write> y: array<f32>;
@compute @workgroup_size(64)
fn main(
    @builtin(global_invocation_id) id: vec3<u32>,
    @builtin(num_workgroups) groups: vec3<u32>,
) {
    let i = id.x + id.y * groups.x * 64u;
    if i < arrayLength(&y) { y[i] += FACTOR * x[i]; }
}
";

/// A device, lost at once. It has to be one that nobody else uses.
fn lost(gpu: &Gpu) {
    gpu.device().destroy();
}

fn is_lost<T: std::fmt::Debug>(result: Result<T>) -> bool {
    matches!(result, Err(Error::DeviceLost { .. }))
}

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

#[test]
fn equal_kernels_are_compiled_once() -> Result<()> {
    let gpu = Gpu::new()?;
    let first = gpu.pipeline("first", TWICE, &[("FACTOR", 3.0)])?;
    let again = gpu.clone().pipeline("second", TWICE, &[("FACTOR", 3.0)])?;
    let other = gpu.pipeline("first", TWICE, &[("FACTOR", -3.0)])?;
    assert!(Arc::ptr_eq(&first, &again));
    assert!(!Arc::ptr_eq(&first, &other));
    Ok(())
}

#[test]
fn constants_reach_the_kernel() -> Result<()> {
    let gpu = Gpu::new()?;
    let (x, y) = (gpu.buffer("x", 1)?, gpu.buffer("y", 1)?);
    gpu.upload(&x, 0, &[2.0f32])?;
    let mut recording = Recording::new();
    recording.dispatch(
        &gpu,
        &gpu.pipeline("scaled", TWICE, &[("FACTOR", -0.75)])?,
        &[&x, &y],
        [1, 1, 1],
    )?;
    gpu.submit(|recorder| recorder.replay(&recording))?;
    assert_eq!(gpu.read(&[&y])?, [[-1.5]]);
    Ok(())
}

#[test]
fn every_call_after_the_loss_of_the_device_says_so() -> Result<()> {
    let gpu = Gpu::new()?;
    let (x, y) = (gpu.buffer("x", 4)?, gpu.buffer("y", 4)?);
    let twice = gpu.pipeline("twice", TWICE, &[])?;
    lost(&gpu);
    assert!(is_lost(gpu.upload(&x, 0, &[1.0f32])));
    assert!(is_lost(gpu.buffer("z", 4)));
    assert!(is_lost(gpu.pipeline("twice", TWICE, &[])));
    assert!(is_lost(Recording::new().dispatch(
        &gpu,
        &twice,
        &[&x, &y],
        [1, 1, 1]
    )));
    assert!(is_lost(gpu.submit(|_| ())));
    assert!(is_lost(gpu.read(&[&x])));
    assert!(is_lost(gpu.wait()));
    Ok(())
}

#[test]
fn loss_in_the_middle_of_a_readback_is_an_error() -> Result<()> {
    let gpu = Gpu::new()?;
    let x = gpu.buffer("x", 4)?;
    let result = gpu.submit_and_read(
        |_| {
            lost(&gpu);
            Ok(())
        },
        &[&x],
    );
    assert!(is_lost(result));
    Ok(())
}

#[test]
fn a_callers_device_is_shared_and_its_loss_noticed() -> Result<()> {
    let owner = Gpu::new()?;
    let gpu = Gpu::from_wgpu(owner.device().clone(), owner.queue().clone())?;
    let raw = gpu.device().create_buffer(&wgpu::BufferDescriptor {
        label: None,
        size: 32,
        usage: wgpu::BufferUsages::STORAGE | wgpu::BufferUsages::COPY_SRC,
        mapped_at_creation: false,
    });
    let (x, y) = (gpu.buffer("x", 8)?, gpu.wrap("raw", &raw)?);
    gpu.upload(&x, 0, &[1.0f32; 8])?;
    let mut recording = Recording::new();
    recording.dispatch(
        &gpu,
        &gpu.pipeline("twice", TWICE, &[])?,
        &[&x, &y],
        [1, 1, 1],
    )?;
    assert!(matches!(
        recording.copy(&x, &y),
        Err(Error::Unsupported { .. })
    ));
    gpu.submit(|recorder| recorder.replay(&recording))?;
    assert_eq!(owner.read(&[&y])?, [[2.0; 8]]);
    lost(&owner);
    assert!(is_lost(gpu.submit(|recorder| recorder.replay(&recording))));
    assert!(is_lost(Gpu::from_wgpu(
        owner.device().clone(),
        owner.queue().clone()
    )));
    Ok(())
}

#[test]
fn errors_outside_every_scope_are_returned_once_and_do_not_panic() -> Result<()> {
    let gpu = Gpu::new()?;
    let raw = gpu.device().create_buffer(&wgpu::BufferDescriptor {
        label: Some("no usage for writing"),
        size: 32,
        usage: wgpu::BufferUsages::STORAGE,
        mapped_at_creation: false,
    });
    gpu.queue().write_buffer(&raw, 0, &[0; 4]);
    assert!(matches!(gpu.check(), Err(Error::Gpu { .. })));
    gpu.check()
}

#[test]
fn threads_share_a_device() -> Result<()> {
    let gpu = Gpu::new()?;
    let work = |seed: u16| -> Result<()> {
        let (x, y) = (gpu.buffer("x", 500)?, gpu.buffer("y", 500)?);
        let mut recording = Recording::new();
        recording.dispatch(
            &gpu,
            &gpu.pipeline("twice", TWICE, &[])?,
            &[&x, &y],
            [8, 1, 1],
        )?;
        gpu.upload(&x, 0, &[f32::from(seed); 500])?;
        for round in 1..=50u16 {
            gpu.submit(|recorder| recorder.replay(&recording))?;
            assert_eq!(gpu.read(&[&y])?, [[f32::from(2 * seed * round); 500]]);
        }
        Ok(())
    };
    let work = &work;
    thread::scope(|scope| {
        let threads: Vec<_> = (1..=4)
            .map(|seed| scope.spawn(move || work(seed)))
            .collect();
        threads
            .into_iter()
            .try_for_each(|thread| match thread.join() {
                Ok(result) => result,
                Err(panic) => std::panic::resume_unwind(panic),
            })
    })
}

#[test]
fn grid_covers_the_count_within_the_limit() -> Result<()> {
    let limits = wgpu::Limits {
        max_compute_workgroups_per_dimension: 7,
        ..Default::default()
    };
    for count in 0..=49usize {
        let [x, y, z] = grid(&limits, count)?;
        assert!(x <= 7 && y <= 7 && z == 1, "{count}: {x} x {y}");
        let total = (x * y) as usize;
        assert!(
            total >= count && total - count < y as usize,
            "{count}: {x} x {y}"
        );
    }
    assert!(matches!(grid(&limits, 50), Err(Error::OverLimit { .. })));
    assert!(matches!(
        grid(&limits, usize::MAX),
        Err(Error::OverLimit { .. })
    ));
    Ok(())
}

#[test]
fn a_kernel_over_a_two_dimensional_grid_reaches_every_element() -> Result<()> {
    let gpu = Gpu::new()?;
    let length = 64 * 30 + 5;
    let (x, y) = (gpu.buffer("x", length)?, gpu.buffer("y", length)?);
    gpu.upload(&x, 0, &vec![0.5f32; length])?;
    let narrow = wgpu::Limits {
        max_compute_workgroups_per_dimension: 6,
        ..Default::default()
    };
    let workgroups = grid(&narrow, length.div_ceil(64))?;
    assert_eq!(workgroups, [6, 6, 1]);
    let mut recording = Recording::new();
    recording.dispatch(
        &gpu,
        &gpu.pipeline("twice", TWICE, &[])?,
        &[&x, &y],
        workgroups,
    )?;
    gpu.submit(|recorder| recorder.replay(&recording))?;
    assert_eq!(gpu.read(&[&y])?, [vec![1.0; length]]);
    Ok(())
}

#[test]
fn an_unknown_adapter_name_lists_the_adapters_present() {
    let result = Gpu::request(&AdapterOptions::default().with_name("no such adapter"));
    let Err(error @ Error::NoAdapter { .. }) = result else {
        panic!("{result:?}")
    };
    let message = error.to_string();
    assert!(message.contains("no such adapter"), "{message}");
    for adapter in adapters() {
        assert!(message.contains(&adapter.name), "{message}");
    }
}

#[test]
fn an_index_selects_from_the_list_of_adapters() -> Result<()> {
    let all = adapters();
    for (index, adapter) in all.iter().enumerate() {
        let gpu = Gpu::request(&AdapterOptions::default().with_index(index))?;
        assert_eq!(
            (&gpu.info().name, &gpu.info().backend),
            (&adapter.name, &adapter.backend)
        );
    }
    let beyond = Gpu::request(&AdapterOptions::default().with_index(all.len()));
    assert!(matches!(beyond, Err(Error::NoAdapter { .. })));
    Ok(())
}

#[test]
fn an_unknown_backend_is_refused_with_the_valid_names() {
    let result = Gpu::request(&AdapterOptions::default().with_backend("cuda"));
    let Err(error @ Error::Option { .. }) = result else {
        panic!("{result:?}")
    };
    assert!(
        error.to_string().contains("vulkan, metal, dx12, gl"),
        "{error}"
    );
    for valid in ["vulkan", "Metal", "dx12", "gl", "vulkan, gl"] {
        assert!(
            AdapterOptions::default()
                .with_backend(valid)
                .validate()
                .is_ok()
        );
    }
}

#[test]
fn own_variables_come_before_those_of_wgpu() {
    let options = |set: &[(&str, &str)]| {
        AdapterOptions::from_variables(|key| {
            set.iter()
                .find(|(name, _)| *name == key)
                .map(|(_, value)| (*value).to_owned())
        })
    };
    assert_eq!(options(&[]), AdapterOptions::default());
    let wgpu_only = options(&[("WGPU_ADAPTER_NAME", "radeon"), ("WGPU_BACKEND", "vulkan")]);
    assert_eq!(
        wgpu_only,
        AdapterOptions::default()
            .with_name("radeon")
            .with_backend("vulkan")
    );
    let both = options(&[
        ("WGPU_ADAPTER_NAME", "radeon"),
        ("OSCULANT_ADAPTER", "arc"),
        ("OSCULANT_BACKEND", " "),
    ]);
    assert_eq!(both, AdapterOptions::default().with_name("arc"));
}

#[test]
fn descriptions_are_data() -> Result<()> {
    let gpu = Gpu::new()?;
    let json = serde_json::to_value(gpu.info()).map_err(|error| Error::Data {
        what: "description".into(),
        message: error.to_string(),
    })?;
    assert_eq!(json["max_buffer_size"], gpu.limits().max_buffer_size);
    assert!(gpu.alignment() >= 1);
    Ok(())
}

#[test]
fn time_outs_come_from_the_environment() -> Result<()> {
    use std::time::Duration;

    use super::device::timeout_from;

    let with = |value: &str| {
        let value = value.to_owned();
        timeout_from(move |key| (key == "OSCULANT_TIMEOUT").then(|| value.clone()))
    };
    assert_eq!(timeout_from(|_| None)?, Duration::from_secs(60));
    assert_eq!(with(" ")?, Duration::from_secs(60));
    assert_eq!(with("0.25")?, Duration::from_millis(250));
    assert!(with("1e300")? > Duration::from_secs(1 << 28), "it is cut");
    for bad in ["0", "-1", "NaN", "soon", "60 s", "1e-300"] {
        match with(bad) {
            Err(Error::Option { option, message }) => {
                assert_eq!(option, "OSCULANT_TIMEOUT");
                assert!(message.contains(bad), "{message}");
            }
            other => panic!("{bad}: {other:?}"),
        }
    }
    Ok(())
}
