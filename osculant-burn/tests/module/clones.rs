//! Whoever has a clone of a module, or of one of its parameters, keeps the numbers.

use std::sync::{Arc, Mutex};

use crate::Outcome;
use crate::fixture::{Mlp, classifier, numbers, shared};
use burn::tensor::Tensor;
use osculant::objective::Curvature;
use osculant::optim::{NewtonCg, NewtonCgOptions};
use osculant_burn::ModuleObjective;

/// Of all parameters.
type Numbers = Vec<Vec<f32>>;

fn newton() -> osculant::Result<NewtonCg> {
    NewtonCg::new(NewtonCgOptions::default().with_curvature(Curvature::Hessian))
}

#[test]
fn clones_from_before_a_step_keep_their_numbers() -> Outcome {
    let subject = classifier(&[64, 8, 10], 32);
    let mut module = subject.module();
    let mut objective = ModuleObjective::new(shared(), &module)?;
    let mut newton = newton()?;
    // In the first step nobody has written the parameters, in the second one a step has.
    for _ in 0..2 {
        let kept = module.clone();
        let weight: Tensor<2> = module.layers[0].weight.val();
        let flat: Tensor<1> = module.layers[1].weight.val().reshape([80]);
        let before = numbers(&module);
        let (stepped, report) = objective.step(&mut newton, module, subject.loss_of_module());
        assert!(report?.accepted);
        let after = numbers(&stepped);
        assert_ne!(before, after);
        assert_eq!(numbers(&kept), before);
        assert_eq!(weight.into_data().try_to_vec::<f32>()?, before[0]);
        assert_eq!(flat.into_data().try_to_vec::<f32>()?, before[2]);
        module = stepped;
    }
    Ok(())
}

/// An average that a loss makes on the way, say.
#[test]
fn clones_from_within_a_step_keep_their_numbers() -> Outcome {
    let subject = classifier(&[64, 8, 10], 32);
    let module = subject.module();
    let mut objective = ModuleObjective::new(shared(), &module)?;
    let seen: Arc<Mutex<Vec<(Mlp, Numbers)>>> = Arc::default();
    let loss = {
        let (seen, mut loss) = (Arc::clone(&seen), subject.loss_of_module());
        move |module: &Mlp| {
            seen.lock().unwrap().push((module.clone(), numbers(module)));
            loss(module)
        }
    };
    let (module, report) = objective.step(&mut newton()?, module, loss);
    assert!(report?.accepted);
    let seen = seen.lock().unwrap();
    assert!(seen.len() > 10, "{} evaluations", seen.len());
    assert!(seen.windows(2).any(|pair| pair[0].1 != pair[1].1));
    for (number, (clone, then)) in seen.iter().enumerate() {
        assert_eq!(&numbers(clone), then, "evaluation {number}");
    }
    drop(module);
    Ok(())
}

/// Where a tensor is: fused operations keep that to themselves.
#[cfg(not(feature = "fusion"))]
mod places {
    use super::*;
    use burn_cubecl::Cube;
    use burn_cubecl::cubecl::wgpu::{AutoCompiler, WgpuServer};

    fn place(module: &Mlp) -> (wgpu::Buffer, u64) {
        let tensor = module.layers[0].weight.val().inner();
        let cube = tensor.try_into_primitive::<Cube>().unwrap();
        let memory = cube
            .client
            .get_resource::<WgpuServer<AutoCompiler>>(cube.handle.clone());
        let memory = memory.unwrap();
        (memory.resource().buffer.clone(), memory.resource().offset)
    }

    #[test]
    fn parameters_are_written_in_place_unless_there_is_a_clone() -> Outcome {
        let subject = classifier(&[64, 8, 10], 32);
        let module = subject.module();
        let before = place(&module);
        let mut objective = ModuleObjective::new(shared(), &module)?;
        let mut newton = newton()?;
        let (module, report) = objective.step(&mut newton, module, subject.loss_of_module());
        assert!(report?.accepted);
        assert_eq!(place(&module), before);
        let kept = module.clone();
        let (module, report) = objective.step(&mut newton, module, subject.loss_of_module());
        assert!(report?.accepted);
        assert_ne!(place(&module), before);
        assert_eq!(place(&kept), before);
        Ok(())
    }
}
