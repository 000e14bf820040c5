//! Objectives whose programs all need the host in between.

use crate::engine::{classifier, memory, methods};
use crate::harness::wrapped::{Change, Wrapped};
use crate::harness::{GpuTest, Outcome};
use crate::reference::batch_for;
use osculant::Result;
use osculant::gpu::Gpu;
use osculant::gpu::Work;
use osculant::objective::{
    Gradient, GraphObjective, GroupedQuadratic, Losses, Objective, Quadratic, Slot,
};
use osculant::optim::{
    Adam, AdamOptions, LowRankSaddleFreeNewton, LrsfnOptions, NewtonCg, NewtonCgOptions, Recordable,
};

pub(crate) fn tests() -> Vec<GpuTest> {
    gpu_tests![
        every_method_lets_the_host_in_between,
        recorded_steps_refuse_the_host,
    ]
}

/// Everything is submitted by calls, the second half of it after a wait.
struct ByHost;

/// The same, by the host.
fn by_host(work: &mut Work) {
    let inner = work.clone();
    *work = Work::hosted_async(move |gpu| {
        let inner = inner.clone();
        Box::pin(async move {
            gpu.run_async([&inner]).await?;
            gpu.wait_async().await
        })
    });
}

fn losses(losses: &mut Option<Losses>) {
    if let Some(losses) = losses {
        by_host(&mut losses.at_base);
        by_host(&mut losses.at_point);
    }
}

impl Change for ByHost {
    fn gradient(&self, program: &mut Gradient) -> Result<()> {
        by_host(&mut program.run);
        losses(&mut program.losses);
        Ok(())
    }

    fn quadratic(&self, program: &mut Quadratic) -> Result<()> {
        by_host(&mut program.linearize);
        by_host(&mut program.multiply);
        if let Some(block) = &mut program.block {
            by_host(&mut block.multiply);
        }
        losses(&mut program.losses);
        Ok(())
    }

    fn grouped(&self, program: &mut GroupedQuadratic) -> Result<()> {
        by_host(&mut program.linearize);
        by_host(&mut program.multiply);
        losses(&mut program.losses);
        Ok(())
    }
}

/// Steps, parameters and state have the bits of those that need no host.
fn every_method_lets_the_host_in_between(gpu: &Gpu) -> Outcome {
    let model = classifier();
    let batches = [16, 16, 24].map(|rows| batch_for(&model, rows, rows as u64));
    let recorded: Result<Vec<_>> = methods::<GraphObjective>()?
        .into_iter()
        .map(|(_, mut method)| {
            let mut objective = GraphObjective::new(gpu, model.clone())?;
            let theta = objective.initial_parameters(1)?;
            for batch in &batches {
                method.step(&mut objective, &theta, batch)?;
            }
            Ok(memory(&objective, &method, &theta))
        })
        .collect();
    for ((name, mut method), recorded) in methods()?.into_iter().zip(recorded?) {
        let mut objective = Wrapped::new(gpu, model.clone(), ByHost)?;
        let theta = objective.inner.initial_parameters(1)?;
        for batch in &batches {
            method.step(&mut objective, &theta, batch)?;
        }
        let found = memory(&objective, &method, &theta)?;
        assert!(found == recorded?, "{name}");
    }
    Ok(())
}

fn recorded_steps_refuse_the_host(gpu: &Gpu) -> Outcome {
    let model = classifier();
    let batch = batch_for(&model, 16, 1);
    let mut objective = Wrapped::new(gpu, model, ByHost)?;
    let theta = objective.inner.initial_parameters(1)?;
    let loaded = objective.load(Slot::default(), &batch)?;
    let mut lrsfn = LowRankSaddleFreeNewton::new(LrsfnOptions::default())?;
    osculant::optim::Optimizer::step(&mut lrsfn, &mut objective, &theta, &batch)?;
    let refused = [
        Adam::new(AdamOptions::default())?
            .recorded(&mut objective, &theta, &loaded)
            .err(),
        NewtonCg::new(NewtonCgOptions::default())?
            .recorded(&mut objective, &theta, &loaded)
            .err(),
        lrsfn.recorded(&mut objective, &theta, &loaded).err(),
    ];
    for error in refused {
        let message = error.ok_or("was recorded")?.to_string();
        assert!(message.contains("need the host in between"), "{message}");
    }
    Ok(())
}
