//! Baselines: SGD with momentum, Adam and AdamW.

mod moments;
mod options;
mod recorded;

use std::sync::Arc;

pub(super) use moments::{Moments, remembered};
use options::Rule;
pub use options::{AdamOptions, SgdOptions};
pub(super) use options::{check_decay, scheduled};

use super::course::Course;
use super::engine::Clock;
use super::not_finite;
use super::optimizer::Optimizer;
use super::report::StepReport;
use super::saved::{self, OptimizerState};
use super::state::Stateful;
use super::state_tensor::StateTensor;
use super::work::Work;
use crate::error::{Error, Result};
use crate::gpu::{self, BoxFuture, Recording};
use crate::kernels::vector::FirstOrderMethod;
use crate::objective::{Gradient, GradientRequest, Objective, Slot};
use crate::recent::Recent;
use crate::vector::Vector;

/// Buffers of a first-order method, made at the first step.
struct Memory {
    moments: Moments,
    /// Kernels of a whole step, for each gradient seen.
    steps: Recent<Step>,
}

/// The kernels of a step: what is read before it is taken, and what takes it.
struct Step {
    gradient: Arc<Gradient>,
    theta: Vector,
    measure: gpu::Work,
    take: Recording,
}

/// A first-order method: [`Sgd`] or [`Adam`], by its options. A step has one readback, of what decides whether it is taken.
pub struct FirstOrder<S> {
    options: S,
    memory: Option<Memory>,
    steps: i32,
    course: Course,
}

/// Stochastic gradient descent with momentum (Polyak 1964, Nesterov 1983):
/// `m <- momentum m + g`, `theta <- theta - learning_rate m`.
pub type Sgd = FirstOrder<SgdOptions>;

/// Adam (Kingma and Ba 2015); AdamW when there is weight decay.
pub type Adam = FirstOrder<AdamOptions>;

impl<S: Rule> FirstOrder<S> {
    /// With these options.
    ///
    /// # Errors
    /// [`Error::Option`] naming the option and its range.
    pub fn new(options: S) -> Result<Self> {
        options.check()?;
        Ok(Self {
            options,
            memory: None,
            steps: 0,
            course: Course::default(),
        })
    }

    /// A step.
    async fn step_in<O: Objective + ?Sized>(
        &mut self,
        objective: &mut O,
        theta: &Vector,
        batch: &O::Batch,
    ) -> Result<StepReport> {
        let settings = self.options.at(self.steps + 1, self.course.factor());
        let gpu = objective.gpu().clone();
        let clock = Clock::start(&gpu);
        let loaded = objective.load(Slot::default(), batch)?;
        let gradient = objective.gradient(theta, &loaded, GradientRequest::default())?;
        let memory = memory(&mut self.memory, S::METHOD, objective)?;
        let course = &mut self.course;
        let moments = &memory.moments;
        let known = |s: &Step| Arc::ptr_eq(&s.gradient, &gradient) && s.theta.is_same(theta);
        let step = memory
            .steps
            .find_or(known, (theta.life(), gradient.cost.bytes), || {
                let mut measure = gradient.run.clone();
                moments.record_sums(&gpu, measure.tail(), &gradient.gradient, &gradient.value)?;
                let mut take = Recording::new();
                moments.record_step(&gpu, &mut take, theta, &gradient.gradient)?;
                Ok::<_, Error>(Step {
                    gradient: Arc::clone(&gradient),
                    theta: theta.uncounted(),
                    measure,
                    take,
                })
            })?;
        moments.upload(&gpu, &settings)?;
        let reads = [moments.reads()];
        let read = gpu.run_and_read_async([&step.measure], &reads).await?;
        let sums = Moments::sums(&read[0]);
        let (loss, square) = (f64::from(Moments::loss(&read[0])), f64::from(sums[1]));
        if !loss.is_finite() || !moments.moves(&settings, sums) {
            return Err(not_finite::step(loss, square));
        }
        let average = course.prepare(&gpu, theta)?;
        // The last thing that may fail: where it does, nothing has moved.
        gpu.submit(|recorder| {
            recorder.replay(&step.take);
            if let Some(average) = &average {
                recorder.replay(average);
            }
        })?;
        self.steps += 1;
        self.course.advance(true);
        let mut work = Work::default();
        work.gradient(&gradient.cost, &loaded);
        let report = StepReport {
            loss_before: loss,
            gradient_norm: square.sqrt(),
            accepted: true,
            ..StepReport::default()
        };
        Ok(clock.stop(&gpu, work.in_report(report)))
    }
}

impl<S: Rule> Stateful for FirstOrder<S> {
    fn course(&self) -> &Course {
        &self.course
    }

    fn course_mut(&mut self) -> &mut Course {
        &mut self.course
    }

    fn scalars(&self) -> Vec<(String, f64)> {
        vec![("steps".into(), f64::from(self.steps))]
    }

    fn tensors(&self) -> Vec<StateTensor> {
        let memory = self.memory.as_ref();
        memory.map_or(Vec::new(), |memory| memory.moments.tensors())
    }
}

impl<O: Objective + ?Sized, S: Rule> Optimizer<O> for FirstOrder<S> {
    fn name(&self) -> &'static str {
        self.options.name()
    }

    fn attempt<'a>(
        &'a mut self,
        objective: &'a mut O,
        theta: &'a Vector,
        batch: &'a O::Batch,
    ) -> BoxFuture<'a, Result<StepReport>> {
        Box::pin(self.step_in(objective, theta, batch))
    }

    fn restore_async<'a>(
        &'a mut self,
        objective: &O,
        state: &'a OptimizerState,
    ) -> BoxFuture<'a, Result<()>> {
        let (gpu, layout) = (objective.gpu().clone(), Arc::clone(objective.layout()));
        Box::pin(async move {
            saved::only(state, &["steps"], remembered(S::METHOD))?;
            let steps = saved::count(state, "steps")?;
            let course = self.course.restored(&gpu, &layout, state).await?;
            // At a beginning moments are zero again.
            let mut memory = None;
            if steps > 0 {
                let moments = Moments::new(&gpu, &layout, S::METHOD)?;
                moments.restore(&gpu, state).await?;
                memory = Some(Memory {
                    moments,
                    steps: Recent::default(),
                });
            }
            (self.steps, self.course, self.memory) = (steps as i32, course, memory);
            Ok(())
        })
    }
}

/// The buffers, which are made at the first step.
fn memory<'m, O: Objective + ?Sized>(
    memory: &'m mut Option<Memory>,
    method: FirstOrderMethod,
    objective: &O,
) -> Result<&'m mut Memory> {
    let known = match memory.take() {
        Some(known) => known,
        None => Memory {
            moments: Moments::new(objective.gpu(), objective.layout(), method)?,
            steps: Recent::default(),
        },
    };
    Ok(memory.insert(known))
}
