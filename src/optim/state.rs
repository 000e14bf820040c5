//! What an optimizer carries from step to step.

use super::course::Course;
use super::saved::OptimizerState;
use super::schedule::Schedule;
use super::state_tensor::StateTensor;
use crate::error::Result;
use crate::gpu::{BoxFuture, Gpu};
use crate::vector::Vector;

/// What every optimizer carries from step to step, whatever it optimizes: numbers, vectors, and the [`Course`] of its run.
///
/// ```
/// use osculant::optim::{Adam, AdamOptions, Schedule, Stateful};
/// # fn main() -> osculant::Result<()> {
/// let adam = Adam::new(AdamOptions::default())?
///     .with_schedule(Schedule::Cosine { last: 0.0 }, 1000)?
///     .with_averaging(0.99)?;
/// assert_eq!(adam.course().factor(), 1.0);
/// # Ok(())
/// # }
/// ```
pub trait Stateful: Send {
    /// Where the run stands.
    fn course(&self) -> &Course;

    /// The same, to set a schedule or an average.
    fn course_mut(&mut self) -> &mut Course;

    /// The numbers of the method's state, by name, without those of the course.
    fn scalars(&self) -> Vec<(String, f64)>;

    /// The vectors of the method's state, where they are, without those of the course.
    fn tensors(&self) -> Vec<StateTensor>;

    /// Multiplies the length of steps by a [`Schedule`] over a run of so many steps.
    ///
    /// # Errors
    /// [`Error::Option`](crate::Error::Option) for a last factor outside of 0..=1, or a run of no steps.
    fn with_schedule(mut self, schedule: Schedule, total_steps: u64) -> Result<Self>
    where
        Self: Sized,
    {
        self.course_mut().set_schedule(schedule, total_steps)?;
        Ok(self)
    }

    /// Keeps an average of the iterates `theta_1 .. theta_k` after the steps that were taken,
    ///
    /// ```text
    /// sum_j decay^(k - j) theta_j / sum_j decay^(k - j)
    /// ```
    ///
    /// with a decay in 0..=1: 1 is the mean of all (Polyak and Juditsky 1992), 0 is none. The update is part of the submission that moves
    /// the parameters; a step that is refused or fails leaves the average as it is. In f32 the rounding errors of `k` updates add up to at
    /// most `2 k` ulps of the largest iterate where the decay is 1, and `3 / (1 - decay)` where it is less.
    ///
    /// # Errors
    /// [`Error::Option`](crate::Error::Option) for a decay outside of 0..=1.
    fn with_averaging(mut self, decay: f64) -> Result<Self>
    where
        Self: Sized,
    {
        self.course_mut().set_averaging(decay)?;
        Ok(self)
    }

    /// The parameters to evaluate a model with: the average of the iterates where one is kept and a step was taken, or `theta`.
    fn evaluation_parameters<'a>(&'a self, theta: &'a Vector) -> &'a Vector {
        self.course().average().unwrap_or(theta)
    }
}

/// The state of an optimizer as it is now: all its numbers, and copies of all its vectors.
pub(super) fn capture(
    optimizer: &(impl Stateful + ?Sized),
    gpu: &Gpu,
) -> BoxFuture<'static, Result<OptimizerState>> {
    let (gpu, course) = (gpu.clone(), optimizer.course());
    let mut state = OptimizerState {
        scalars: [optimizer.scalars(), course.scalars()].concat(),
        vectors: Vec::new(),
    };
    let tensors = [optimizer.tensors(), course.tensors()].concat();
    Box::pin(async move {
        for tensor in tensors {
            state.vectors.extend(tensor.read_async(&gpu).await?);
        }
        Ok(state)
    })
}
