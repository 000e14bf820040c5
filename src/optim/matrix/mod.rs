//! Methods that treat each weight as a matrix: Muon, SOAP and Shampoo.
//!
//! The step of each is a small graph (`rule.rs`), planned and bound like any program (`memory.rs`). Numbers that change from step to step
//! are uploaded.

mod adam;
mod factors;
mod memory;
mod muon;
mod rule;
#[cfg(test)]
mod rule_tests;
mod shampoo;
mod soap;
mod spectral;

use std::sync::Arc;

use memory::{Memory, Step};
pub use muon::{Matrices, MuonOptions};
use rule::Rule;
pub use shampoo::ShampooOptions;
pub use soap::SoapOptions;

use super::course::Course;
use super::engine::Clock;
use super::not_finite;
use super::optimizer::Optimizer;
use super::report::StepReport;
use super::saved::{self, OptimizerState};
use super::state::Stateful;
use super::state_tensor::StateTensor;
use super::work::Work;
use crate::error::Result;
use crate::gpu::BoxFuture;
use crate::objective::{GradientRequest, Objective, Slot};
use crate::recent::Recent;
use crate::vector::Vector;

/// Gradients and steps whose squares add up to more are refused, so that parameters and what is remembered stay finite.
const LARGEST_SQUARE: f64 = 1e37;

/// A method that treats each weight as a matrix: [`Muon`], [`Soap`] or [`Shampoo`], by its options. It needs gradients, and the shapes of
/// parameters. A step has one readback, of what decides whether it is taken, and reads factors in the same where they are due.
///
/// A tensor `[.., in, out]` is a matrix of `out` columns, if it has more than one row and column. All else is stepped by Adam. Where a
/// batch's numbers are not finite the step fails, and parameters and state keep their bits.
///
/// A step writes what it makes beside what is in use, and copies it over that in the submission that moves the parameters: so memory is
/// twice what is remembered and made, and two vectors like the parameters.
pub struct MatrixMethod<S> {
    options: S,
    memory: Option<Memory>,
    /// Kernels of a whole step, for each gradient seen.
    recorded: Recent<Step>,
    /// Steps that took place, the one that only measures included.
    steps: i32,
    course: Course,
}

/// Muon (Jordan 2024): momentum whose singular values are all near 1.
///
/// For a matrix `[rows, columns]` with gradient `G`
///
/// ```text
/// M <- momentum M + (1 - momentum) G             U = momentum M + (1 - momentum) G  (Nesterov), or M
/// theta <- theta - rate (sqrt(max(1, columns / rows)) NS(U) + decay theta)
/// ```
///
/// where `NS` divides by the Frobenius norm and takes every singular value `s` to `3.4445 s - 4.775 s^3 + 2.0315 s^5`, five times, by
/// products with the matrix itself: values from 2e-3 of the norm on end between 0.68 and 1.21. Inputs are rows here, so that `columns /
/// rows` is what the source has as rows over columns. All else is stepped by AdamW with [options of its own](MuonOptions::adam).
///
/// A step costs a gradient and `5 (4 s^2 l + 2 s^3)` operations for a matrix of sides `s <= l`; memory is one matrix like the parameters.
pub type Muon = MatrixMethod<MuonOptions>;

/// SOAP (Vyas et al. 2024): Adam in the eigenbasis of Shampoo's factors.
///
/// For a matrix with gradient `G`, bases `Q`, `P` of rows and columns, and `beta1`, `beta2` of [Adam's options](SoapOptions::adam)
///
/// ```text
/// M <- beta1 M + (1 - beta1) G                   V <- beta2 V + (1 - beta2) (Q^T G P)^2
/// L <- beta2 L + (1 - beta2) G G^T               R <- beta2 R + (1 - beta2) G^T G
/// theta <- theta - rate (Q N P^T + decay theta)  N = (Q^T M P / c1) / (sqrt(V / c2) + epsilon)
/// ```
///
/// with Adam's corrections `c`. The first step makes factors and bases, and moves nothing. Bases are eigenvectors of `L` and `R` at first;
/// every [`interval`](SoapOptions::interval) steps the host, in f64, makes them the orthogonal factor of `L Q` and `R P`, with the columns
/// by falling `q^T L q`, with which rows and columns of `V` are reordered. They serve from the next step on. A side longer than
/// [`largest`](SoapOptions::largest) is not rotated; where both are, and for all else, this is Adam.
///
/// A step costs a gradient and `8 (m + n) m n` operations for a matrix `[m, n]`; a new basis of order `n` costs `14/3 n^3` on one core of
/// the host, while the device waits.
pub type Soap = MatrixMethod<SoapOptions>;

/// Shampoo (Gupta, Koren and Singer 2018) with running averages and Adam's step lengths (Anil et al. 2020).
///
/// For a matrix with gradient `G`, and `beta1`, `beta2` of [Adam's options](ShampooOptions::adam)
///
/// ```text
/// M <- beta1 M + (1 - beta1) G                   L, R as in SOAP
/// D = (L + ridge l)^-1/4 M (R + ridge r)^-1/4    with the largest eigenvalues l and r
/// theta <- theta - rate (|A|_F / |D|_F D + decay theta)
/// ```
///
/// where `A` is what Adam would step by. The first step makes factors and roots, and moves nothing; every
/// [`interval`](ShampooOptions::interval) steps the host makes new roots, in f64, which serve from the next step on. Where one side is
/// longer than [`largest`](ShampooOptions::largest), the root of the other one's factor is `-1/2`; where both are, and for all else, this
/// is Adam.
///
/// A step costs a gradient and `4 (m + n) m n` operations for a matrix `[m, n]`; a root of order `n` costs `11 n^3` on one core
/// of the host, while the device waits.
pub type Shampoo = MatrixMethod<ShampooOptions>;

impl<S> std::fmt::Debug for MatrixMethod<S>
where
    S: std::fmt::Debug,
{
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("MatrixMethod")
            .field("options", &self.options)
            .field("steps", &self.steps)
            .finish_non_exhaustive()
    }
}

impl<S: Rule> MatrixMethod<S> {
    /// With these options.
    ///
    /// # Errors
    /// [`Error::Option`](crate::Error::Option) naming the option and its range.
    pub fn new(options: S) -> Result<Self> {
        options.check()?;
        Ok(Self {
            options,
            memory: None,
            recorded: Recent::default(),
            steps: 0,
            course: Course::default(),
        })
    }

    /// A step, of which the last thing that may fail is what moves the parameters.
    async fn step_in<O: Objective + ?Sized>(
        &mut self,
        objective: &mut O,
        theta: &Vector,
        batch: &O::Batch,
    ) -> Result<StepReport> {
        let (gpu, rule) = (objective.gpu().clone(), &self.options);
        let loaded = objective.load(Slot::default(), batch)?;
        let gradient = objective.gradient(theta, &loaded, GradientRequest::default())?;
        let memory = match self.memory.take() {
            Some(known) => known,
            None => Memory::new(&gpu, objective.layout(), rule)?,
        };
        let memory = self.memory.insert(memory);
        let known = |s: &Step| Arc::ptr_eq(&s.gradient, &gradient) && s.theta.is_same(theta);
        let owner = (theta.life(), gradient.cost.bytes);
        let step = self
            .recorded
            .find_or(known, owner, || memory.record(&gpu, theta, &gradient))?;
        // The first step makes factors and does no more, where there are any.
        let first = self.steps == 0 && memory.made.is_some();
        let number = match memory.made {
            Some(_) => self.steps.max(1),
            None => self.steps.saturating_add(1),
        };
        memory.upload(&gpu, &rule.settings(number, self.course.factor()))?;
        let mut reads = vec![&memory.sums];
        let made = memory.made.as_ref();
        let made = made.filter(|_| rule.refreshes(self.steps));
        if let Some(made) = made {
            reads.extend(memory.state.next.parts());
            reads.extend(made.now.parts());
        }
        let mut read = gpu.run_and_read_async([&step.measure], &reads).await?;
        let mut factors = read.split_off(1);
        let [loss, _, gradient_square, step_square] =
            [0, 1, 2, 3].map(|at: usize| f64::from(read[0][at]));
        let is_small = |square: f64| square.is_finite() && square < LARGEST_SQUARE;
        if !loss.is_finite() || !is_small(gradient_square) || !is_small(step_square) {
            return Err(not_finite::step(loss, gradient_square));
        }
        let mut work = Work::default();
        work.gradient(&gradient.cost, &loaded);
        work.vectors(memory.sum(|matrix| rule.flops(matrix)));
        if made.is_some() {
            let state = factors.drain(..memory.state.next.parts().len()).collect();
            memory.refresh(&gpu, rule, first, (state, factors))?;
            work.vectors(memory.sum(|matrix| rule.refresh_flops(matrix, first)));
        }
        let average = match !first {
            true => self.course.prepare(&gpu, theta)?,
            false => None,
        };
        gpu.submit(|recorder| {
            if !first {
                recorder.replay(&step.take);
            }
            recorder.replay(&memory.state.renew);
            if let Some(made) = made {
                recorder.replay(&made.renew);
            }
            if let Some(average) = &average {
                recorder.replay(average);
            }
        })?;
        self.steps = self.steps.saturating_add(1);
        self.course.advance(!first);
        Ok(work.in_report(StepReport {
            loss_before: loss,
            gradient_norm: gradient_square.sqrt(),
            step_norm: if first { 0.0 } else { step_square.sqrt() },
            accepted: !first,
            ..StepReport::default()
        }))
    }
}

impl<S: Rule> Stateful for MatrixMethod<S> {
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
        let memory = self.memory.as_ref().filter(|_| self.steps > 0);
        memory.map_or(Vec::new(), |memory| memory.tensors(S::VECTORS))
    }
}

impl<O: Objective + ?Sized, S: Rule> Optimizer<O> for MatrixMethod<S> {
    fn name(&self) -> &'static str {
        S::NAME
    }

    fn attempt<'a>(
        &'a mut self,
        objective: &'a mut O,
        theta: &'a Vector,
        batch: &'a O::Batch,
    ) -> BoxFuture<'a, Result<StepReport>> {
        Box::pin(async move {
            let gpu = objective.gpu().clone();
            let clock = Clock::start(&gpu);
            let report = self.step_in(objective, theta, batch).await?;
            Ok(clock.stop(&gpu, report))
        })
    }

    fn restore_async<'a>(
        &'a mut self,
        objective: &O,
        state: &'a OptimizerState,
    ) -> BoxFuture<'a, Result<()>> {
        let (gpu, layout) = (objective.gpu().clone(), Arc::clone(objective.layout()));
        Box::pin(async move {
            saved::only(state, &["steps"], S::VECTORS)?;
            let steps = saved::count(state, "steps")?;
            let course = self.course.restored(&gpu, &layout, state).await?;
            let mut memory = None;
            if steps > 0 {
                let known = Memory::new(&gpu, &layout, &self.options)?;
                for tensor in known.tensors(S::VECTORS) {
                    tensor.restore(&gpu, state).await?;
                }
                memory = Some(known);
            }
            (self.steps, self.course, self.memory) = (steps as i32, course, memory);
            // They step with the memory of before.
            self.recorded = Recent::default();
            Ok(())
        })
    }
}
