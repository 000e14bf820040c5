//! The limited-memory method of Broyden, Fletcher, Goldfarb and Shanno.

mod memory;
mod recursion;
mod wolfe;

use std::ops::Bound::{Excluded, Included};
use std::sync::Arc;

use memory::{Memory, Workspace};
use recursion::Pairs;
use wolfe::{Next, Probe, Search};

use super::course::Course;
use super::engine::Clock;
use super::not_finite;
use super::optimizer::Optimizer;
use super::report::StepReport;
use super::saved::{self, OptimizerState, missing};
use super::state::Stateful;
use super::state_tensor::StateTensor;
use super::work::{Work, flops};
use crate::error::Result;
use crate::gpu::BoxFuture;
use crate::objective::{GradientRequest, Objective, Slot};
use crate::options::{options, require};
use crate::recent::Recent;
use crate::vector::Vector;

const STEPS: &str = "lbfgs_steps";
const PAIRS: &str = "lbfgs_pairs";
const PLACE: &str = "lbfgs_place ";
const SY: &str = "lbfgs_sy ";
const YY: &str = "lbfgs_yy ";
const PAIRS_S: &str = "lbfgs_s";
const PAIRS_Y: &str = "lbfgs_y";

/// A pair is remembered where `s.y` is more than this part of `|s| |y|`, so that the matrix stays positive definite.
const LEAST_CURVATURE: f64 = 1e-6;

options! {
    /// Settings of [`Lbfgs`].
    pub struct LbfgsOptions {
        /// Pairs that are remembered.
        history(with_history): usize = 10, in 1..=100 => "1 to 100";
        /// Length of the first step that is tried without any pair.
        first(with_first): f64 = 0.1, in (Excluded(0.0), Included(1e6)) => "above 0, at most 1e6";
        /// The loss falls by this part of what the slope promises.
        armijo(with_armijo): f64 = 1e-4, in (Excluded(0.0), Excluded(0.5)) => "above 0, below 0.5";
        /// The slope after a step is at most this part of that before.
        wolfe(with_wolfe): f64 = 0.9, in (Excluded(0.0), Excluded(1.0)) => "above 0, below 1";
        /// Gradients that a line search computes before the step is refused.
        max_trials(with_max_trials): usize = 20, in 1..=1000 => "1 to 1000";
    } together Self::check_together
}

impl LbfgsOptions {
    fn check_together(&self) -> Result<()> {
        require(
            self.armijo < self.wolfe,
            "armijo",
            "both conditions can hold only where armijo is below wolfe",
        )
    }
}

/// L-BFGS (Nocedal 1980; Liu and Nocedal 1989) with a line search for the strong Wolfe conditions: a method for full batches, or large ones.
///
/// ```text
/// d = -H g        H from the last pairs s = theta' - theta, y = g' - g by the two-loop recursion, started from s.y / y.y of the newest
/// theta <- theta + a d        f(theta') <= f + armijo a g.d,   |g'.d| <= wolfe |g.d|
/// ```
///
/// Both gradients of a pair are of the step's own batch, so that pairs have no noise of different batches in them; a step takes a gradient,
/// and one more for each length that is tried, of which there is mostly one. Where the loss changes by less than rounding, slopes decide
/// (Hager and Zhang 2005). A step that finds no length is refused, and forgets all pairs: the next one goes along the gradient.
///
/// The recursion works in inner products, in f64 on the host, and the device combines the pairs (vector-free L-BFGS, Chen, Wang and Zhou
/// 2014): `16 m P` operations for each gradient beside it, with `m` pairs, and one blocking readback. Memory is `2 m + 5` vectors. A
/// schedule scales the first length that is tried.
pub struct Lbfgs {
    options: LbfgsOptions,
    steps: usize,
    pairs: Pairs,
    course: Course,
    memory: Option<Memory>,
    workspaces: Recent<Workspace>,
}

impl std::fmt::Debug for Lbfgs {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Lbfgs")
            .field("options", &self.options)
            .field("steps", &self.steps)
            .finish_non_exhaustive()
    }
}

impl Lbfgs {
    /// With these options.
    ///
    /// # Errors
    /// [`Error::Option`](crate::Error::Option) naming the option and its range.
    pub fn new(options: LbfgsOptions) -> Result<Self> {
        options.validate()?;
        Ok(Self {
            pairs: Pairs::new(options.history),
            options,
            steps: 0,
            course: Course::default(),
            memory: None,
            workspaces: Recent::default(),
        })
    }

    /// One step, of which the last thing that may fail is what moves the parameters.
    async fn step_in<O: Objective + ?Sized>(
        &mut self,
        objective: &mut O,
        theta: &Vector,
        batch: &O::Batch,
    ) -> Result<StepReport> {
        let (gpu, options) = (objective.gpu().clone(), &self.options);
        let loaded = objective.load(Slot::default(), batch)?;
        if self.memory.is_none() {
            self.memory = Some(Memory::new(&gpu, objective.layout(), options.history)?);
        }
        let memory = self.memory.as_ref().ok_or_else(|| missing("memory"))?;
        let request = GradientRequest::default();
        let base = objective.gradient(theta, &loaded, request)?;
        let at_trial = objective.gradient(&memory.trial, &loaded, request)?;
        let known = |w: &Workspace| {
            let same = Arc::ptr_eq(&w.base, &base) && Arc::ptr_eq(&w.at_trial, &at_trial);
            same && w.theta.is_same(theta)
        };
        let bytes = base.cost.bytes + at_trial.cost.bytes;
        let workspace = self.workspaces.find_or(known, (theta.life(), bytes), || {
            memory.record(&gpu, theta, [&base, &at_trial])
        })?;
        let (elements, places) = (theta.layout().len(), options.history);
        let mut work = Work::default();
        let (loss, along) = memory.begin(&gpu, workspace).await?;
        work.gradient(&base.cost, &loaded);
        work.vectors(flops::block(1, 2 * places, elements));
        if !loss.is_finite() {
            return Err(not_finite::loss());
        }
        if !along.square.is_finite() {
            return Err(not_finite::gradient());
        }
        let report = StepReport {
            loss_before: loss,
            gradient_norm: along.square.sqrt(),
            ..StepReport::default()
        };
        let factor = self.course.factor();
        if along.square == 0.0 || factor == 0.0 {
            // Nothing to learn, and nothing to move.
            self.steps += 1;
            self.course.advance(false);
            return Ok(work.in_report(report));
        }
        let way = self.pairs.direction(&along);
        let first = match self.pairs.order.is_empty() {
            true => options.first / along.square.sqrt(),
            false => 1.0,
        };
        memory.aim(&gpu, workspace, &way)?;
        work.vectors(flops::block(1, 2 * places, elements));
        let conditions = [options.armijo, options.wolfe];
        let mut length = factor * first;
        let mut search: Option<Search> = None;
        let told = loop {
            let told = memory.probe(&gpu, workspace, length).await?;
            work.gradient(&at_trial.cost, &loaded);
            work.vectors(flops::block(2, 2 * places, elements));
            let [slope, after] = told.slopes;
            let downhill = slope < 0.0;
            let search = search
                .get_or_insert_with(|| Search::new(loss, slope, conditions, options.max_trials));
            let probe = Probe {
                length,
                change: told.loss - loss,
                slope: after,
            };
            match if downhill {
                search.next(probe)
            } else {
                Next::Fail
            } {
                Next::Try(next) => length = next,
                Next::Take => break Some(told),
                Next::Fail => break None,
            }
        };
        let Some(told) = told else {
            self.pairs = Pairs::new(places);
            self.steps += 1;
            self.course.advance(false);
            return Ok(work.in_report(StepReport {
                loss_after: Some(loss),
                ..report
            }));
        };
        let [curvature, square] = told.products.own;
        let least = LEAST_CURVATURE * (told.square * square).sqrt();
        let place = (curvature > least && square.is_finite()).then(|| self.pairs.next());
        let average = self.course.prepare(&gpu, theta)?;
        gpu.submit(|recorder| {
            recorder.replay(&workspace.take);
            if let Some(place) = place {
                recorder.replay(&memory.remember[place]);
            }
            if let Some(average) = &average {
                recorder.replay(average);
            }
        })?;
        if let Some(place) = place {
            self.pairs.insert(place, &told.products);
        }
        self.steps += 1;
        self.course.advance(true);
        Ok(work.in_report(StepReport {
            loss_after: Some(told.loss),
            loss_change: Some(told.loss - loss),
            step_norm: told.square.sqrt(),
            accepted: true,
            step_length: Some(length),
            ..report
        }))
    }
}

impl Pairs {
    fn scalars(&self) -> Vec<(String, f64)> {
        let places = self.order.iter().enumerate();
        let places = places.map(|(at, &place)| (format!("{PLACE}{at}"), place as f64));
        let order = &self.order;
        let pairs = order
            .iter()
            .flat_map(|&i| order.iter().map(move |&j| (i, j)));
        let products = pairs.flat_map(|(i, j)| {
            [
                (format!("{SY}{i} {j}"), self.sy[i][j]),
                (format!("{YY}{i} {j}"), self.yy[i][j]),
            ]
        });
        let count = std::iter::once((PAIRS.into(), order.len() as f64));
        count.chain(places).chain(products).collect()
    }

    fn restored(state: &OptimizerState, places: usize) -> Result<Self> {
        let mut pairs = Self::new(places);
        let count = saved::number(state, PAIRS, 0.0..=places as f64)? as usize;
        let last = (places - 1) as f64;
        for at in 0..count {
            let place = saved::number(state, &format!("{PLACE}{at}"), 0.0..=last)? as usize;
            if pairs.order.contains(&place) {
                return Err(missing(&format!("pair of its own for '{PLACE}{at}'")));
            }
            pairs.order.push(place);
        }
        for i in pairs.order.clone() {
            for j in pairs.order.clone() {
                // Those of a pair with itself are divided by.
                let least = if i == j { f64::MIN_POSITIVE } else { -f64::MAX };
                let number =
                    |name: &str| saved::number(state, &format!("{name}{i} {j}"), least..=f64::MAX);
                (pairs.sy[i][j], pairs.yy[i][j]) = (number(SY)?, number(YY)?);
            }
        }
        Ok(pairs)
    }
}

impl Memory {
    /// The pairs; those in places that are not in use are zeros, or forgotten.
    fn tensors(&self) -> Vec<StateTensor> {
        let tensor = |name: &str, basis| StateTensor::basis(name.into(), basis, self.s.rank());
        vec![tensor(PAIRS_S, &self.s), tensor(PAIRS_Y, &self.y)]
    }
}

impl Stateful for Lbfgs {
    fn course(&self) -> &Course {
        &self.course
    }

    fn course_mut(&mut self) -> &mut Course {
        &mut self.course
    }

    fn scalars(&self) -> Vec<(String, f64)> {
        let steps = std::iter::once((STEPS.into(), self.steps as f64));
        steps.chain(self.pairs.scalars()).collect()
    }

    fn tensors(&self) -> Vec<StateTensor> {
        let memory = self
            .memory
            .as_ref()
            .filter(|_| !self.pairs.order.is_empty());
        memory.map_or(Vec::new(), Memory::tensors)
    }
}

impl<O: Objective + ?Sized> Optimizer<O> for Lbfgs {
    fn name(&self) -> &'static str {
        "lbfgs"
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
        let places = self.options.history;
        Box::pin(async move {
            let vectors = [PAIRS_S, PAIRS_Y].map(|name| format!("{name} "));
            let vectors: Vec<&str> = vectors.iter().map(String::as_str).collect();
            saved::only(state, &[STEPS, PAIRS, PLACE, SY, YY], &vectors)?;
            let steps = saved::count(state, STEPS)?;
            let pairs = Pairs::restored(state, places)?;
            let memory = Memory::new(&gpu, &layout, places)?;
            if !pairs.order.is_empty() {
                for tensor in memory.tensors() {
                    tensor.restore(&gpu, state).await?;
                }
            }
            let course = self.course.restored(&gpu, &layout, state).await?;
            (self.steps, self.pairs, self.course) = (steps, pairs, course);
            self.memory = Some(memory);
            self.workspaces = Recent::default();
            Ok(())
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Two pairs in one place would count twice.
    #[test]
    fn every_pair_has_a_place_of_its_own() -> Result<()> {
        let mut pairs = Pairs::new(3);
        pairs.order = vec![2, 0];
        for &place in &pairs.order {
            (pairs.sy[place][place], pairs.yy[place][place]) = (1.0, 2.0);
        }
        let mut state = OptimizerState {
            scalars: pairs.scalars(),
            ..OptimizerState::default()
        };
        assert_eq!(Pairs::restored(&state, 3)?, pairs);
        state.scalars[2].1 = 2.0;
        assert!(Pairs::restored(&state, 3).is_err());
        Ok(())
    }
}
