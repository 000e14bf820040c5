//! Low-rank saddle-free Newton on the batches of its authors' program.

use osculant::gpu::BoxFuture;
use osculant::objective::{GraphObjective, Objective};
use osculant::optim::{
    Course, LowRankSaddleFreeNewton, LrsfnOptions, Optimizer, OptimizerState, StateTensor,
    Stateful, StepReport,
};
use osculant::vector::Vector;

type Result<T> = osculant::error::Result<T>;

/// The last part of each batch is set apart for eigenpairs, the rest is for the gradient.
pub(crate) struct Paper {
    method: LowRankSaddleFreeNewton,
    part: f64,
}

impl Paper {
    pub(crate) fn new(options: LrsfnOptions, part: f64) -> Result<Self> {
        if !(part > 0.0 && part < 1.0) {
            return Err(osculant::error::Error::Option {
                option: "curvature batch".into(),
                message: format!("{part} is not a part in 0..1"),
            });
        }
        let method = LowRankSaddleFreeNewton::new(options)?;
        Ok(Self { method, part })
    }
}

impl Stateful for Paper {
    fn course(&self) -> &Course {
        self.method.course()
    }

    fn course_mut(&mut self) -> &mut Course {
        self.method.course_mut()
    }

    fn scalars(&self) -> Vec<(String, f64)> {
        self.method.scalars()
    }

    fn tensors(&self) -> Vec<StateTensor> {
        self.method.tensors()
    }
}

impl Optimizer<GraphObjective> for Paper {
    fn name(&self) -> &'static str {
        Optimizer::<GraphObjective>::name(&self.method)
    }

    fn attempt<'a>(
        &'a mut self,
        objective: &'a mut GraphObjective,
        theta: &'a Vector,
        batch: &'a <GraphObjective as Objective>::Batch,
    ) -> BoxFuture<'a, Result<StepReport>> {
        Box::pin(async move {
            let rows = batch.len();
            let apart = ((rows as f64 * self.part).round() as usize).clamp(1, rows);
            let (first, last) = (0..rows - apart, rows - apart..rows);
            let gradient = batch.part(&[first])?;
            let curvature = batch.part(&[last])?;
            self.method
                .step_with_curvature_async(objective, theta, &gradient, &curvature)
                .await
        })
    }

    fn restore_async<'a>(
        &'a mut self,
        objective: &GraphObjective,
        state: &'a OptimizerState,
    ) -> BoxFuture<'a, Result<()>> {
        self.method.restore_async(objective, state)
    }
}
