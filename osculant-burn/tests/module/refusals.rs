//! What is refused, with what to do; and that parameters stay.

use crate::Outcome;
use crate::fixture::{Mlp, classifier, numbers, shared};
use burn::module::{Module, Param};
use burn::tensor::wgpu::WgpuSetup;
use burn::tensor::{Device, DeviceKind, Int, Tensor};
use osculant::Error;
use osculant::objective::Curvature;
use osculant::optim::{NewtonCg, NewtonCgOptions};
use osculant_burn::{ModuleObjective, SharedDevice};

fn newton() -> NewtonCg {
    NewtonCg::new(NewtonCgOptions::default().with_curvature(Curvature::Hessian)).unwrap()
}

fn refusal<M: burn::module::Module + 'static>(module: &M) -> Error {
    match ModuleObjective::new(shared(), module) {
        Ok(_) => panic!("was taken"),
        Err(error) => error,
    }
}

#[derive(Module, Debug)]
struct Counting {
    weight: Param<Tensor<1>>,
    count: Param<Tensor<1, Int>>,
}

#[test]
fn integers_are_refused() {
    let device = shared().device();
    let module = Counting {
        weight: Param::from_tensor(Tensor::ones([3], &device)),
        count: Param::initialized(burn::module::ParamId::new(), Tensor::zeros([1], &device)),
    };
    let error = refusal(&module);
    assert!(matches!(error, Error::Unsupported { .. }));
    let text = error.to_string();
    assert!(
        text.contains("'count', which has integers") && text.contains("make the field a tensor"),
        "{text}"
    );
}

#[derive(Module, Debug)]
struct Tied {
    one: Param<Tensor<1>>,
    other: Param<Tensor<1>>,
}

#[test]
fn a_parameter_that_occurs_twice_is_refused() {
    let one = Param::from_tensor(Tensor::<1>::ones([3], &shared().device()));
    let text = refusal(&Tied {
        other: one.clone(),
        one,
    })
    .to_string();
    assert!(text.contains("'other', which occurs twice"), "{text}");
}

#[test]
fn nothing_to_train_is_refused() {
    let error = refusal(&Mlp::new(&[2, 2]).set_require_grad(false));
    assert!(matches!(error, Error::Shape { .. }), "{error}");
}

#[test]
fn devices_without_automatic_differentiation_are_refused() {
    let text = refusal(&Mlp::new(&[2, 2]).valid()).to_string();
    assert!(
        text.contains("'layers.0.weight'") && text.contains("Module::train"),
        "{text}"
    );
}

/// A second device on an adapter of the kind of the shared one's.
fn elsewhere() -> Result<(Device, WgpuSetup), Box<dyn std::error::Error>> {
    let instance = wgpu::Instance::new(wgpu::InstanceDescriptor::new_without_display_handle());
    let adapters = pollster::block_on(instance.enumerate_adapters(wgpu::Backends::all()));
    let name = shared().gpu().device().adapter_info().name;
    let adapter = adapters
        .into_iter()
        .find(|adapter| adapter.get_info().name == name)
        .ok_or("no adapter")?;
    let (device, queue) = pollster::block_on(
        adapter.request_device(&wgpu::DeviceDescriptor {
            required_features: adapter
                .features()
                .difference(wgpu::Features::MAPPABLE_PRIMARY_BUFFERS)
                .difference(wgpu::Features::all_experimental_mask()),
            required_limits: adapter.limits(),
            ..wgpu::DeviceDescriptor::default()
        }),
    )?;
    let setup = WgpuSetup {
        backend: adapter.get_info().backend,
        instance,
        adapter,
        device,
        queue,
    };
    let device = Device::wgpu_options().setup(setup.clone()).init()?;
    Ok((device, setup))
}

#[test]
fn other_devices_are_refused() -> Outcome {
    let (device, setup) = elsewhere()?;
    let error = refusal(&burn::nn::LinearConfig::new(2, 2).init(&device.clone().autodiff()));
    assert!(matches!(error, Error::Unsupported { .. }));
    let text = error.to_string();
    assert!(
        text.contains("on another device") && text.contains("SharedDevice::device"),
        "{text}"
    );
    // Devices of two setups are not one; those of one are, and train.
    let mixed = SharedDevice::from_setup(&shared().device(), &setup);
    let text = mixed.err().ok_or("was taken")?.to_string();
    assert!(text.contains("they are not one device"), "{text}");
    let own = SharedDevice::from_setup(&device, &setup)?;
    let module = burn::nn::LinearConfig::new(3, 1).init(&own.device());
    let x = Tensor::<2>::ones([4, 3], &own.device());
    let loss = move |module: &burn::nn::Linear| module.forward(x.clone()).square().mean();
    let mut objective = ModuleObjective::new(&own, &module)?;
    let (_, report) = objective.step(&mut newton(), module, loss);
    assert!(report?.accepted);
    Ok(())
}

#[test]
fn kinds_that_do_not_exist_are_refused() {
    let error = SharedDevice::new(DeviceKind::DiscreteGpu(1_000)).err();
    assert!(matches!(error, Some(Error::NoAdapter { .. })), "{error:?}");
}

/// Parameters have the same bits after each refusal, and the objective goes on.
#[test]
fn refused_steps_leave_the_module() -> Outcome {
    let subject = classifier(&[64, 6, 10], 32);
    let module = subject.module();
    let before = numbers(&module);
    let mut objective = ModuleObjective::new(shared(), &module)?;

    let rows = |module: &Mlp| module.layers[0].bias.as_ref().unwrap().val() * 2.0;
    let (module, report) = objective.step(&mut newton(), module, rows);
    let error = report.err().ok_or("was taken")?;
    assert!(matches!(error, Error::Shape { .. }));
    assert!(
        error.to_string().contains("6 elements") && error.to_string().contains("`mean()`"),
        "{error}"
    );
    assert_eq!(numbers(&module), before);

    let mut loss = subject.loss_of_module();
    let (module, report) =
        objective.step(&mut newton(), module, move |module| loss(module) * f32::NAN);
    assert!(matches!(report, Err(Error::NotFinite { .. })));
    assert_eq!(numbers(&module), before);

    let mut loss = subject.loss_of_module();
    let (module, report) =
        objective.step(&mut newton(), module, move |module| loss(module).inner());
    let error = report.err().ok_or("was taken")?;
    assert!(
        error
            .to_string()
            .contains("without automatic differentiation"),
        "{error}"
    );
    assert_eq!(numbers(&module), before);

    let other = Mlp::new(&[64, 7, 10]);
    let kept = numbers(&other);
    let (other, report) = objective.step(&mut newton(), other, subject.loss_of_module());
    let error = report.err().ok_or("was taken")?;
    assert!(matches!(error, Error::Shape { .. }));
    let text = error.to_string();
    assert!(
        text.contains("[64, 7]") && text.contains("[64, 6]") && text.contains("make a new one"),
        "{text}"
    );
    assert_eq!(numbers(&other), kept);

    let mut objective = objective.with_outputs([16, 10], subject.loss, 1.0 / 16.0)?;
    let mut newton = NewtonCg::new(NewtonCgOptions::default())?;
    let (outputs, loss) = (subject.outputs(), subject.loss_of_outputs());
    let (module, report) = objective.step(&mut newton, module, outputs, loss);
    let error = report.err().ok_or("was taken")?;
    assert!(
        error.to_string().contains("[32, 10]") && error.to_string().contains("[16, 10]"),
        "{error}"
    );
    assert_eq!(numbers(&module), before);

    let mut objective = ModuleObjective::new(shared(), &module)?.with_outputs(
        [32, 10],
        subject.loss,
        1.0 / 32.0,
    )?;
    let (outputs, loss) = (subject.outputs(), subject.loss_of_outputs());
    let (module, report) = objective.step(&mut newton, module, outputs, loss);
    assert!(report?.accepted);
    assert_ne!(numbers(&module), before);
    Ok(())
}

#[test]
fn gauss_newton_wants_outputs() -> Outcome {
    let subject = classifier(&[64, 6, 10], 32);
    let module = subject.module();
    let mut objective = ModuleObjective::new(shared(), &module)?;
    let mut newton = NewtonCg::new(NewtonCgOptions::default())?;
    let (_, report) = objective.step(&mut newton, module, subject.loss_of_module());
    let text = report.err().ok_or("was taken")?.to_string();
    assert!(text.contains("with_outputs"), "{text}");
    Ok(())
}

/// A loss that panics takes its step with it, and not the next one.
#[test]
fn the_step_after_a_panic_is_whole() -> Outcome {
    let subject = classifier(&[64, 6, 10], 32);
    let module = subject.module();
    let (kept, before) = (module.clone(), numbers(&module));
    let mut objective = ModuleObjective::new(shared(), &module)?;
    let mut optimizer = newton();
    let panics = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| {
        let _ = objective.step(&mut optimizer, module, |_: &Mlp| panic!("on purpose"));
    }));
    assert!(panics.is_err());
    assert_eq!(numbers(&kept), before);
    let (module, report) = objective.step(&mut newton(), kept, subject.loss_of_module());
    assert!(report?.accepted);
    assert_ne!(numbers(&module), before);
    Ok(())
}
