//! Recorded steps of SGD and Adam: the kernel itself refuses what is not finite, so nothing has to be decided.

use std::sync::Arc;

use super::{FirstOrder, Moments, Rule, memory};
use crate::error::Result;
use crate::gpu::Recording;
use crate::kernels::vector::FIRST_ORDER_SETTINGS;
use crate::objective::{GradientRequest, Loaded, Objective};
use crate::optim::recorded::{Recordable, Recorded, Script, StepOutcome, without_average};
use crate::optim::report::StepReport;
use crate::optim::work::Work;
use crate::vector::Vector;

impl<O: Objective + ?Sized, S: Rule> Recordable<O> for FirstOrder<S> {
    fn recorded(
        mut self,
        objective: &mut O,
        theta: &Vector,
        loaded: &Loaded,
    ) -> Result<Recorded<Self>> {
        without_average(&self)?;
        let gpu = objective.gpu().clone();
        let gradient = objective.gradient(theta, loaded, GradientRequest::default())?;
        let moments = &memory(&mut self.memory, S::METHOD, objective)?.moments;
        let mut commands = Recording::new();
        commands.hold(Arc::clone(&gradient) as _);
        commands.hold(Arc::new(theta.clone()));
        let scalars = moments.reads().clone();
        let upload = commands.upload(&gpu, &scalars.slice(0..FIRST_ORDER_SETTINGS)?)?;
        commands.append(gradient.run.recorded()?.clone());
        moments.record_sums(&gpu, &mut commands, &gradient.gradient, &gradient.value)?;
        moments.record_step(&gpu, &mut commands, theta, &gradient.gradient)?;
        let mut work = Work::default();
        work.gradient(&gradient.cost, loaded);
        let script = Script {
            commands,
            upload,
            carried: |method: &Self| {
                let settings = method.options.at(method.steps + 1, method.course.factor());
                settings.to_vec()
            },
            words: scalars,
            read: |_, words| {
                let scalars: &[f32] = bytemuck::cast_slice(words);
                let (loss, sums) = (Moments::loss(scalars), Moments::sums(scalars));
                let settings = scalars.first_chunk().copied().unwrap_or_default();
                let taken = loss.is_finite() && Moments::reaches(S::METHOD, &settings, sums);
                let outcome = if taken {
                    StepOutcome::Taken
                } else {
                    StepOutcome::NotFinite
                };
                let report = StepReport {
                    loss_before: loss.into(),
                    gradient_norm: f64::from(sums[1]).sqrt(),
                    ..StepReport::default()
                };
                (outcome, report)
            },
            work: work.in_report(StepReport::default()),
            count: |method| {
                method.steps += 1;
                method.course.advance(true);
            },
            settle: |_, _| {},
        };
        Recorded::new(&gpu, self, script)
    }
}
