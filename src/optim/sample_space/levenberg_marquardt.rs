//! Levenberg-Marquardt with rows of examples.

use std::sync::Arc;

use super::options::{LevenbergMarquardtOptions, Scaling};
use super::solve::{Damped, addition_flops, gram, joined, normal, not_positive, parted, wide};
use super::trial::{Parameters, Samples, System, Trial, Way};
use crate::error::Result;
use crate::gpu::{BoxFuture, Commands, Gpu, Slice, Work as Run};
use crate::kernels::vector::{combine, inner_products, partial_elements};
use crate::objective::{
    Gradient, GradientRequest, SampleRequest, SampleSpace, SampleSystem, Slot, Square,
    without_residuals,
};
use crate::optim::course::Course;
use crate::optim::damping::LARGEST;
use crate::optim::engine::{self, Method, Outcome, Proposal};
use crate::optim::judge::{Candidate, Judge};
use crate::optim::not_finite;
use crate::optim::optimizer::Optimizer;
use crate::optim::report::{Stall, StepReport};
use crate::optim::saved::{self, OptimizerState, missing};
use crate::optim::state::Stateful;
use crate::optim::state_tensor::StateTensor;
use crate::optim::work::Work;
use crate::recent::Recent;
use crate::vector::Vector;

const DAMPING: &str = "damping";

/// The method of Levenberg (1944) and Marquardt (1963) with the Gauss-Newton matrix of a batch, for small networks and large or full
/// batches, whose losses are to become tiny: fields, curves, differential equations.
///
/// With the rows `A` of the batch, residuals `r` with `A^T r` the gradient, and damping `lambda`, relative to the mean of the diagonal unless
/// said otherwise:
///
/// ```text
/// d = (A^T A + lambda)^-1 A^T r        rho = (f(theta) - f(theta - d)) / (g.d - d.A^T A d / 2)
/// ```
///
/// A step is taken where the loss falls; else the damping is raised and the same matrix solved again, up to a number of attempts. After a
/// step the damping falls or rises with `rho`, as [`AdaptiveDamping`](crate::optim::AdaptiveDamping) has it.
///
/// Where there are fewer parameters than rows the normal matrix is summed on the device in f32 over at most 1,024 rows at a time, and these
/// sums are added in f64 on the host, with the right side; elsewhere the Gram matrix is made by layers. Either is factored in f64. The change
/// of the loss is computed without subtracting two losses. A step that gains less than f32 tells of the loss says so
/// ([`StepReport::stall`]).
///
/// With [geodesic acceleration](LevenbergMarquardtOptions::acceleration) (Transtrum and Sethna 2012) the step follows the curvature of the
/// residuals along it: `d + (A^T A + lambda)^-1 A^T r'' / 2`, with their second derivatives `r''` along `d`, where that is no longer than a
/// part of `d`.
///
/// ```
/// use osculant::objective::GraphObjective;
/// use osculant::optim::{LevenbergMarquardt, LevenbergMarquardtOptions, Optimizer};
/// # use osculant::{data::Batch, vector::Vector};
/// # fn fit(objective: &mut GraphObjective, theta: &Vector, batch: &Batch) -> osculant::Result<()> {
/// let mut method = LevenbergMarquardt::new(LevenbergMarquardtOptions::default())?;
/// for _ in 0..100 {
///     if method.step(objective, theta, batch)?.stall.is_some() {
///         break;
///     }
/// }
/// # Ok(())
/// # }
/// ```
pub struct LevenbergMarquardt {
    options: LevenbergMarquardtOptions,
    damping: f64,
    /// That of the last attempt of a step that is not decided yet.
    tried: f64,
    course: Course,
    workspaces: Recent<Workspace>,
}

impl std::fmt::Debug for LevenbergMarquardt {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("LevenbergMarquardt")
            .field("options", &self.options)
            .field("damping", &self.damping)
            .finish_non_exhaustive()
    }
}

/// What is recorded for one system.
struct Workspace {
    system: Arc<SampleSystem>,
    gradient: Arc<Gradient>,
    theta: Vector,
    judge: Judge,
    /// Loss, gradient, and the system, with the image of the parameters where they are part of a solution.
    begin: Run,
    image: Slice,
    square: Slice,
    /// `-d`
    step: Vector,
    /// Factors on what the step has beside the rows, and on their combination.
    ends: Slice,
    /// Makes the step from coefficients of the rows.
    make: Run,
    /// Second derivatives of the residuals along the step, and on the side of the parameters their combination.
    second: Run,
}

impl Workspace {
    fn new(
        gpu: &Gpu,
        theta: &Vector,
        (system, gradient): (&Arc<SampleSystem>, &Arc<Gradient>),
    ) -> Result<Self> {
        let losses = gradient.losses.as_ref();
        let judge = Judge::new(gpu, [theta, &gradient.gradient], losses)?;
        let step = Vector::new(gpu, "step", theta.layout())?;
        let ends = gpu.buffer("coefficients of a step", 2)?;
        let (image, square) = (
            gpu.buffer("image of the parameters", system.count)?,
            gpu.buffer("square of the parameters", 3)?,
        );
        let partials = gpu.buffer("partial sums", partial_elements(theta.slice()))?;
        let samples = system.square == Square::Gram;
        let mut begin = gradient.run.clone();
        begin.append(system.linearize.clone());
        if samples && system.l2 > 0.0 {
            begin.tail().copy(theta.slice(), system.direction.slice())?;
            begin.append(system.multiply.clone());
            begin.tail().copy(&system.image, &image)?;
        }
        let at = theta.slice();
        inner_products(gpu, begin.tail(), (&square, 0), &partials, at, at)?;
        let (mut make, mut second) = (Run::new(), Run::new());
        second.tail().copy(step.slice(), system.direction.slice())?;
        second.append(system.multiply.clone());
        if samples {
            make = system.combine.clone();
            let combination = system.combination.slice();
            combine(gpu, make.tail(), step.slice(), at, combination, (&ends, 0))?;
        } else if let Some(slice) = &system.second {
            second.tail().copy(slice, &system.coefficients)?;
            second.append(system.combine.clone());
        }
        Ok(Self {
            system: Arc::clone(system),
            gradient: Arc::clone(gradient),
            theta: theta.uncounted(),
            judge,
            begin,
            image,
            square,
            step,
            ends,
            make,
            second,
        })
    }

    /// The square of the rows, and what is solved for.
    async fn read(&self, gpu: &Gpu) -> Result<(f64, System)> {
        let system = &self.system;
        let residuals = system.residuals.as_ref();
        let residuals = residuals.ok_or_else(|| missing("residuals"))?;
        let mut reads = vec![&system.value, &system.matrix, residuals, &self.square];
        let samples = system.square == Square::Gram;
        match samples {
            true => reads.push(&self.image),
            false => reads.extend(self.theta.parts()),
        }
        let read = gpu.run_and_read_async([&self.begin], &reads).await?;
        let l2 = f64::from(system.l2);
        let loss = f64::from(read[0][0]);
        if !loss.is_finite() {
            return Err(not_finite::loss());
        }
        let solved = match samples {
            true => System::Samples(Samples {
                gram: gram(&read[1], system.count)?,
                residuals: wide(&read[2]),
                image: wide(&read[4]),
                square: f64::from(read[3][0]),
                l2,
            }),
            false => {
                let theta = joined(&read[4..]);
                let of = normal(&read[1], theta.len(), true)?;
                let (right, _) = of.right.ok_or_else(|| missing("residuals"))?;
                System::Parameters(Parameters {
                    normal: of.matrix,
                    gradient: right + theta * l2,
                    l2,
                })
            }
        };
        Ok((loss, solved))
    }

    /// Puts `-d` where steps are.
    async fn write(&self, gpu: &Gpu, way: &Way) -> Result<()> {
        match way {
            Way::Coefficients { rows, beside } => {
                gpu.upload(&self.ends, 0, &[-*beside as f32, -1.0f32])?;
                let rows: Vec<f32> = rows.iter().map(|&x| x as f32).collect();
                gpu.upload(&self.system.coefficients, 0, &rows)
            }
            Way::Whole(d) => {
                let entries = self.step.layout().entries().iter();
                let tensors = parted(&-d, entries.map(|entry| entry.elements()));
                self.step.write_async(gpu, &tensors).await
            }
        }
    }

    /// The solution with geodesic acceleration, where that is at most `bound / 2` of it.
    async fn accelerated(&self, gpu: &Gpu, trial: &Trial, of: &System, bound: f64) -> Result<Way> {
        self.write(gpu, &trial.way).await?;
        let commands = [&self.make, &self.second];
        let mut reads: Vec<&Slice> = self.system.second.iter().collect();
        if matches!(of, System::Parameters(_)) {
            reads.extend(self.system.combination.parts());
        }
        let read = gpu.run_and_read_async(commands, &reads).await?;
        let second = read.first().ok_or_else(|| missing("second derivatives"))?;
        Ok(match (of, &trial.way) {
            (System::Samples(samples), Way::Coefficients { rows, beside }) => {
                let more = trial.damped.solve(&wide(second));
                let square = more.dot(&(&samples.gram * &more));
                match 4.0 * square <= bound * bound * trial.square {
                    true => Way::Coefficients {
                        rows: rows + more * 0.5,
                        beside: *beside,
                    },
                    false => trial.way.clone(),
                }
            }
            (System::Parameters(_), Way::Whole(d)) => {
                let more = trial.damped.solve(&joined(&read[1..]));
                match 4.0 * more.norm_squared() <= bound * bound * trial.square {
                    true => Way::Whole(d + more * 0.5),
                    false => trial.way.clone(),
                }
            }
            _ => trial.way.clone(),
        })
    }
}

impl LevenbergMarquardt {
    /// With these options.
    ///
    /// # Errors
    /// [`Error::Option`](crate::Error::Option) naming the option and its range.
    pub fn new(options: LevenbergMarquardtOptions) -> Result<Self> {
        options.validate()?;
        let damping = options.damping.first();
        Ok(Self {
            damping,
            tried: damping,
            options,
            course: Course::default(),
            workspaces: Recent::default(),
        })
    }
}

impl<O: SampleSpace + ?Sized> Method<O> for LevenbergMarquardt {
    fn run(&mut self) -> &mut Course {
        &mut self.course
    }

    async fn propose(
        &mut self,
        objective: &mut O,
        theta: &Vector,
        batch: &O::Batch,
    ) -> Result<Proposal> {
        let (gpu, options) = (objective.gpu().clone(), &self.options);
        let loaded = objective.load(Slot::default(), batch)?;
        let request = SampleRequest {
            kind: options.rows,
            square: (options.scaling == Scaling::Diagonal).then_some(Square::Normal),
            second: options.acceleration > 0.0,
        };
        let system = objective.sample_system(theta, &loaded, request)?;
        if system.residuals.is_none() {
            return Err(without_residuals());
        }
        let gradient = objective.gradient(theta, &loaded, GradientRequest { losses: true })?;
        let known = |w: &Workspace| {
            let same = Arc::ptr_eq(&w.system, &system) && Arc::ptr_eq(&w.gradient, &gradient);
            same && w.theta.is_same(theta)
        };
        let bytes = system.cost.bytes + gradient.cost.bytes;
        let workspace = self.workspaces.find_or(known, (theta.life(), bytes), || {
            Workspace::new(&gpu, theta, (&system, &gradient))
        })?;
        workspace.judge.begin();
        let (loss, solved) = workspace.read(&gpu).await?;
        let (factor, order) = (self.course.factor(), solved.order());
        let mut work = Work::default();
        work.gradient(&gradient.cost, &loaded);
        work.gradient(&system.cost, &loaded);
        if system.square == Square::Normal {
            work.vectors(addition_flops(system.count, order + 1));
        }
        let [at_base, at_point] = workspace.judge.costs();
        work.losses(1, &at_base, &loaded);
        let smaller = system.count.min(theta.layout().parameters());
        let mut found = None;
        self.tried = self.damping;
        for attempt in 0..options.max_attempts {
            if attempt > 0 {
                self.tried = options.damping.next(self.tried, f64::NEG_INFINITY);
            }
            work.vectors(Damped::flops(order));
            let Some(trial) = solved.at(self.tried, options.scaling, smaller) else {
                continue;
            };
            let way = match options.acceleration > 0.0 && factor > 0.0 {
                false => trial.way.clone(),
                true => {
                    work.rows(1, system.cost.product, &loaded);
                    work.rows(1, system.combine_flops, &loaded);
                    let bound = options.acceleration;
                    let to = workspace.accelerated(&gpu, &trial, &solved, bound);
                    to.await?
                }
            };
            workspace.write(&gpu, &way).await?;
            let judge = &mut workspace.judge;
            judge.prepare(&gpu, &[(&workspace.step, factor)])?;
            let mut commands: Vec<Commands<'_>> = vec![(&workspace.make).into()];
            commands.extend(judge.commands());
            let read = gpu.run_and_read_async(commands, &judge.reads()).await?;
            let (_, candidates) = judge.results(&read)?;
            work.rows(1, system.combine_flops, &loaded);
            work.losses(1, &at_point, &loaded);
            let at = candidates.first().copied();
            let at: Candidate = at.ok_or_else(|| missing("candidate"))?;
            let promised = factor * trial.slope + 0.5 * factor * factor * trial.curvature;
            let taken = at.change < 0.0;
            found = Some((at, promised, taken));
            if taken || factor == 0.0 || !at.gradient_square.is_finite() {
                break;
            }
        }
        let (at, promised, taken) = found.ok_or_else(not_positive)?;
        let stationary = at.gradient_square == 0.0 || factor == 0.0;
        let gain = if taken { -at.change } else { -promised };
        Ok(Proposal {
            base: loss,
            at,
            factor,
            step: match taken && !stationary {
                true => Some(workspace.judge.prepared_move()?),
                false => None,
            },
            promised,
            stationary,
            remember: None,
            report: work.in_report(StepReport {
                damping: Some(self.tried),
                step_length: taken.then_some(factor),
                stall: match stationary {
                    true => None,
                    false => stall(loss, gain, taken),
                },
                ..StepReport::default()
            }),
        })
    }

    fn settle(&mut self, _: &Proposal, outcome: &Outcome) {
        if let Some(judged) = outcome.judged {
            self.damping = match outcome.accepted {
                true => self.options.damping.judge(self.tried, judged),
                false => self.options.damping.next(self.tried, f64::NEG_INFINITY),
            };
        }
    }
}

/// Why a step is one of the last ones, from what it gained, or promised where it is refused.
fn stall(loss: f64, gain: f64, taken: bool) -> Option<Stall> {
    if gain <= 0.5 * f64::from(f32::EPSILON) * loss.abs() {
        return Some(Stall::Precision);
    }
    (!taken).then_some(Stall::Attempts)
}

impl Stateful for LevenbergMarquardt {
    fn course(&self) -> &Course {
        &self.course
    }

    fn course_mut(&mut self) -> &mut Course {
        &mut self.course
    }

    fn scalars(&self) -> Vec<(String, f64)> {
        vec![(DAMPING.into(), self.damping)]
    }

    fn tensors(&self) -> Vec<StateTensor> {
        Vec::new()
    }
}

impl<O: SampleSpace + ?Sized> Optimizer<O> for LevenbergMarquardt {
    fn name(&self) -> &'static str {
        "levenberg-marquardt"
    }

    fn attempt<'a>(
        &'a mut self,
        objective: &'a mut O,
        theta: &'a Vector,
        batch: &'a O::Batch,
    ) -> BoxFuture<'a, Result<StepReport>> {
        Box::pin(engine::step(self, objective, theta, batch))
    }

    fn restore_async<'a>(
        &'a mut self,
        objective: &O,
        state: &'a OptimizerState,
    ) -> BoxFuture<'a, Result<()>> {
        let (gpu, layout) = (objective.gpu().clone(), Arc::clone(objective.layout()));
        Box::pin(async move {
            saved::only(state, &[DAMPING], &[])?;
            let damping = saved::number(state, DAMPING, 0.0..=LARGEST)?;
            self.course = self.course.restored(&gpu, &layout, state).await?;
            self.damping = damping;
            self.workspaces = Recent::default();
            Ok(())
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Of a loss of 2, f32 tells 1.2e-7.
    #[test]
    fn a_stall_is_told_by_what_a_step_gains() {
        assert_eq!(stall(2.0, 1.3e-7, true), None);
        assert_eq!(stall(2.0, 1.1e-7, true), Some(Stall::Precision));
        assert_eq!(stall(2.0, 1.1e-7, false), Some(Stall::Precision));
        assert_eq!(stall(2.0, 1e-3, false), Some(Stall::Attempts));
    }
}
