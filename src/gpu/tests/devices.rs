//! Kernels, losses of devices, threads and adapters.

use std::sync::Arc;
use std::thread;

use super::*;

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
