//! Steps of our methods on a module.

use crate::Outcome;
use crate::fixture::{Mlp, classifier, numbers, shared};
use burn::module::{Module, ParamGroup};
use burn::tensor::Tensor;
use osculant::objective::{Curvature, GraphObjective};
use osculant::optim::{
    Adam, AdamOptions, LowRankSaddleFreeNewton, LrsfnOptions, NewtonCg, NewtonCgOptions, Optimizer,
};
use osculant_burn::ModuleObjective;

/// The loss falls as far as with exact products of the graph, within a twentieth.
#[test]
fn newton_cg_steps_as_on_the_graph() -> Outcome {
    let (gpu, subject) = (shared().gpu(), classifier(&[64, 24, 10], 256));
    let mut graph = GraphObjective::new(gpu, subject.model.clone())?;
    let theta = graph.initial_parameters(0)?;
    let mut module = subject.module().with(&theta.read(gpu)?);
    let mut objective = ModuleObjective::new(shared(), &module)?.with_outputs(
        [256, 10],
        subject.loss,
        1.0 / 256.0,
    )?;
    let newton = || NewtonCg::new(NewtonCgOptions::default());
    let (mut one, mut other) = (newton()?, newton()?);
    let mut losses = [0.0; 2];
    for _ in 0..8 {
        losses[0] = one.step(&mut graph, &theta, &subject.batch)?.loss_before;
        let (outputs, loss) = (subject.outputs(), subject.loss_of_outputs());
        let (stepped, report) = objective.step(&mut other, module, outputs, loss);
        (module, losses[1]) = (stepped, report?.loss_before);
    }
    assert!(
        losses[0] < 1.0 && (losses[1] / losses[0] - 1.0).abs() < 0.05,
        "{losses:?}"
    );
    Ok(())
}

/// A loss alone is enough for all of these.
#[test]
fn other_methods_step() -> Outcome {
    let subject = classifier(&[64, 12, 10], 128);
    let newton = NewtonCgOptions::default().with_curvature(Curvature::Hessian);
    let lrsfn = LrsfnOptions::default().with_curvature(Curvature::Hessian);
    let mut methods: Vec<Box<dyn Optimizer<osculant::objective::OwnKernels>>> = vec![
        Box::new(NewtonCg::new(newton)?),
        Box::new(LowRankSaddleFreeNewton::new(lrsfn)?),
        Box::new(Adam::new(AdamOptions::default())?),
    ];
    for method in &mut methods {
        let mut module = subject.module();
        let mut objective = ModuleObjective::new(shared(), &module)?;
        let mut losses = Vec::new();
        for _ in 0..5 {
            let (stepped, report) = objective.step(&mut **method, module, subject.loss_of_module());
            (module, losses) = (stepped, [losses, vec![report?.loss_before]].concat());
        }
        assert!(losses[4] < losses[0], "{}: {losses:?}", method.name());
    }
    Ok(())
}

/// What requires no gradient stays, and what the loss does not depend on has a gradient of zero.
#[test]
fn frozen_and_idle_parameters_stay() -> Outcome {
    let frozen = ParamGroup::from_path("layers.0.weight");
    let module = Mlp::new(&[3, 4, 2]).set_require_grad_group(frozen, false);
    let before = numbers(&module);
    let x = Tensor::<2>::ones([6, 3], &shared().device());
    // The second layer's bias is in no loss.
    let loss = move |module: &Mlp| {
        let hidden = module.layers[0].forward(x.clone()).tanh();
        hidden.matmul(module.layers[1].weight.val()).square().mean()
    };
    let mut objective = ModuleObjective::new(shared(), &module)?;
    let mut adam = Adam::new(AdamOptions::default())?;
    let (module, report) = objective.step(&mut adam, module, loss);
    report?;
    let after = numbers(&module);
    let moved: Vec<bool> = (0..4).map(|at| before[at] != after[at]).collect();
    assert_eq!(moved, [false, true, true, false]);
    Ok(())
}
