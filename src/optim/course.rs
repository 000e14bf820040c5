//! What belongs to a run rather than to a method: where it stands, its schedule, and the average of its iterates.

use std::sync::Arc;

use super::average::Average;
use super::saved::{self, AVERAGE, AVERAGED, OptimizerState, STEPS};
use super::schedule::Schedule;
use super::state_tensor::StateTensor;
use crate::error::Result;
use crate::gpu::{Gpu, Recording};
use crate::options::{check_range, require};
use crate::vector::{Layout, Vector};

/// How far a run has come, what that means for the length of steps, and the average of its iterates.
///
/// Every optimizer has one; [`Stateful`](super::Stateful) has the ways to it. A step that was decided counts, whether it was taken or
/// refused: each is a mini-batch of the run. One that failed does not.
#[derive(Clone, Debug, Default)]
pub struct Course {
    schedule: Schedule,
    /// Steps of the run, for the schedule.
    total: u64,
    steps: u64,
    /// The part that is done, where somebody else knows.
    done: Option<f64>,
    /// 0: no average.
    decay: f64,
    average: Option<Average>,
}

impl Course {
    /// Sets the schedule of a run of so many steps: step `k`, counted from 0, has the factor at the part `k / total`.
    ///
    /// # Errors
    /// [`Error::Option`](crate::Error::Option) for a last factor outside of 0..=1, or a run of no steps.
    pub fn set_schedule(&mut self, schedule: Schedule, total_steps: u64) -> Result<()> {
        schedule.validate()?;
        require(
            total_steps > 0,
            "schedule",
            "a run of 0 steps has none; give the number of steps of the whole run",
        )?;
        (self.schedule, self.total) = (schedule, total_steps);
        Ok(())
    }

    /// Says how much of a run is done, from 0 to 1, where its end is not a number of steps, but of epochs or of seconds. Steps are not
    /// asked any more then, and it is to be said before every step.
    pub fn set_done(&mut self, part: f64) {
        self.done = Some(part);
    }

    /// Sets the decay of the average of iterates: see [`Stateful::with_averaging`](super::Stateful::with_averaging). 0 switches it off, and
    /// forgets it.
    ///
    /// # Errors
    /// [`Error::Option`](crate::Error::Option) outside of 0..=1.
    pub fn set_averaging(&mut self, decay: f64) -> Result<()> {
        check_range("averaging", &decay, 0.0..=1.0, "a decay from 0 to 1")?;
        if decay == 0.0 {
            self.average = None;
        }
        self.decay = decay;
        Ok(())
    }

    /// Steps decided so far.
    pub fn steps(&self) -> u64 {
        self.steps
    }

    /// The factor on the length of the next step.
    pub fn factor(&self) -> f64 {
        let counted = self.steps as f64 / self.total.max(1) as f64;
        self.schedule.factor(self.done.unwrap_or(counted))
    }

    /// The average of the iterates after all steps that were taken, if there is one.
    pub fn average(&self) -> Option<&Vector> {
        let average = self.average.as_ref().filter(|average| average.count > 0);
        average.map(|average| &average.vector)
    }

    /// What is to run, in the submission that moves `theta`, after that; nothing of the average changes before it does.
    pub(super) fn prepare(&mut self, gpu: &Gpu, theta: &Vector) -> Result<Option<Arc<Recording>>> {
        if self.decay == 0.0 {
            return Ok(None);
        }
        let average = match self.average.take() {
            Some(average) => average,
            None => Average::new(gpu, theta.layout())?,
        };
        let average = self.average.insert(average);
        average.prepare(gpu, theta, self.decay).map(Some)
    }

    /// Counts a step, which cannot fail any more.
    pub(super) fn advance(&mut self, taken: bool) {
        self.steps += 1;
        if let (true, Some(average)) = (taken, &mut self.average) {
            average.count += 1;
        }
    }

    /// Whether iterates are averaged.
    pub(super) fn averages(&self) -> bool {
        self.decay > 0.0
    }

    /// Whether there is anything to remember.
    fn is_in_use(&self) -> bool {
        self.schedule != Schedule::Constant || self.decay > 0.0
    }

    /// What a state must have of it: nothing without schedule and average.
    pub(super) fn scalars(&self) -> Vec<(String, f64)> {
        if !self.is_in_use() {
            return Vec::new();
        }
        let mut scalars = vec![(STEPS.into(), self.steps as f64)];
        if let Some(average) = self.average.as_ref().filter(|average| average.count > 0) {
            scalars.push((AVERAGED.into(), average.count as f64));
        }
        scalars
    }

    pub(super) fn tensors(&self) -> Vec<StateTensor> {
        let tensor = |vector: &Vector| StateTensor::vector(AVERAGE, vector);
        self.average().map(tensor).into_iter().collect()
    }

    /// The course that a state has come to, with the options of this one.
    pub(super) async fn restored(
        &self,
        gpu: &Gpu,
        layout: &Arc<Layout>,
        state: &OptimizerState,
    ) -> Result<Self> {
        let mut course = self.clone();
        course.average = None;
        course.steps = 0;
        if !self.is_in_use() {
            return Ok(course);
        }
        course.steps = saved::count(state, STEPS)? as u64;
        if self.decay > 0.0 && state.scalar(AVERAGED).is_some() {
            let count = saved::count(state, AVERAGED)? as u64;
            let mut average = Average::new(gpu, layout)?;
            if count > 0 {
                let values = saved::vector(state, AVERAGE, layout)?;
                average.vector.write_async(gpu, values).await?;
            }
            average.count = count;
            course.average = Some(average);
        }
        Ok(course)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_schedule_follows_the_steps_or_what_it_is_told() {
        let mut course = Course::default();
        assert_eq!(course.factor(), 1.0);
        assert!(
            course
                .set_schedule(Schedule::Linear { last: 0.0 }, 4)
                .is_ok()
        );
        let mut factors = Vec::new();
        for taken in [true, false, true, true, true, true] {
            factors.push(course.factor());
            course.advance(taken);
        }
        assert_eq!(factors, [1.0, 0.75, 0.5, 0.25, 0.0, 0.0]);
        assert_eq!(course.steps(), 6);
        course.set_done(0.5);
        assert_eq!(course.factor(), 0.5);
        assert!(course.set_schedule(Schedule::Constant, 0).is_err());
        assert!(course.set_averaging(1.5).is_err());
        assert!(course.set_averaging(1.0).is_ok());
    }

    #[test]
    fn what_is_not_in_use_is_not_remembered() {
        let mut course = Course::default();
        course.advance(true);
        assert!(course.scalars().is_empty() && course.tensors().is_empty());
        assert!(course.set_averaging(0.9).is_ok());
        assert_eq!(course.scalars(), [(STEPS.to_owned(), 1.0)]);
    }
}
