//! Preconditioned conjugate gradients (Hestenes and Stiefel 1952) for a Newton step, with all scalars on the device.

use std::sync::Arc;

use web_time::Instant;

use super::afterword::{Afterword, Nothing};
use super::cg_options::CgOptions;
use super::cg_report::{CgReport, report};
use super::companion::{Beside, Companion};
use super::operator::Operator;
use super::submissions::{Pace, Submissions};
use crate::error::{Error, Result};
use crate::gpu::{Commands, Gpu, PendingRead, Recording, Slice, Work, replay_all};
use crate::kernels::cg::{self, STATE_ELEMENTS, State};
use crate::options::{check_range, require};
use crate::vector::Vector;

/// Iterations before the host's first look: Martens' test needs more than ten.
const FIRST: usize = 11;
/// Iterations from one look to the next. Two products keep a device busy for longer than the host needs to look, and are little to waste:
/// when a stop is seen, the next ones are queued already, so at most four iterations (and those before the first look) come after it.
const LATER: usize = 2;

/// Radii of a trust region whose squares are well inside f32.
const RADII: std::ops::RangeInclusive<f32> = 1e-15..=1e15;
/// What a solve is about.
#[derive(Clone, Copy, Debug)]
pub(crate) struct System {
    pub(crate) shift: f32,
    pub(crate) radius: Option<f32>,
    pub(crate) warm: bool,
}

/// A solver of `(C + shift) x = -g` with buffers and recordings for one operator; made once, run often.
#[derive(Debug)]
pub struct ConjugateGradients {
    pub(super) gpu: Gpu,
    pub(super) options: CgOptions,
    pub(super) state: Slice,
    /// Log of a companion.
    pub(super) log: Option<Slice>,
    /// The solution, that of the companion where there is one; also the first iterate of a warm start.
    pub solution: Vector,
    input: Vector,
    pub(super) cold_start: Recording,
    pub(super) warm_start: Work,
    pub(super) iteration: Work,
    pub(super) close: Recording,
    /// Iterates kept, with the number of the iteration after which each was copied.
    stored: Vec<(usize, Vector)>,
    stores: Vec<Recording>,
    /// Time of an iteration.
    pace: Pace,
}

impl ConjugateGradients {
    /// Whether a device can run conjugate gradients: its kernels need up to eight storage buffers, which is WebGPU's default. Asks before
    /// anything is made.
    ///
    /// # Errors
    /// [`Error::OverLimit`] naming the kernel and the limit.
    pub fn check(gpu: &Gpu) -> Result<()> {
        cg::check(gpu)
    }

    /// Bytes of the vectors of a solver for vectors of so many elements ([`Layout::len`](crate::vector::Layout::len)), which keeps so many
    /// iterates: to ask before anything is made. Scalars and partial sums come to less than a MiB.
    #[must_use]
    pub fn bytes(elements: usize, kept: usize, companion: bool) -> u64 {
        let vectors = 2 + kept + if companion { 3 } else { 0 };
        4 * elements as u64 * vectors as u64
    }

    /// Prepares solves with `operator` and right-hand side `-gradient`. `inverse` holds the inverse diagonal of a preconditioner.
    /// The iterates after the iterations in `keep` (ascending) are kept in vectors of their own.
    ///
    /// # Errors
    /// [`Error::Option`], [`Error::Length`] for vectors of different layouts, [`Error::OverLimit`] on a device that grants too little,
    /// [`Error::OutOfMemory`].
    pub fn new(
        gpu: &Gpu,
        operator: &Operator,
        gradient: &Vector,
        inverse: Option<&Vector>,
        options: &CgOptions,
        keep: &[usize],
    ) -> Result<Self> {
        Self::with_companion(gpu, operator, gradient, inverse, options, keep, None)
    }

    /// As [`new`](Self::new), with a companion that chooses the steps along the directions: two recurrences in one pass, and no further
    /// readbacks.
    ///
    /// The companion's first direction and its iterates start where those of conjugate gradients do. It goes `-d.r' / d.(C' + shift) d`
    /// along each direction `d` of the other, and not at all where that curvature is not positive; with the same quadratic on both sides
    /// these are the iterates of conjugate gradients. A solve ends where conjugate gradients on the first quadratic end; the last direction
    /// counts for the companion even where they stop at it.
    ///
    /// # Errors
    /// As [`new`](Self::new), and [`Error::Unsupported`] for a companion that has only the gradient, or only the product, of the
    /// directions' quadratic.
    pub fn with_companion(
        gpu: &Gpu,
        operator: &Operator,
        gradient: &Vector,
        inverse: Option<&Vector>,
        options: &CgOptions,
        keep: &[usize],
        companion: Option<&Companion>,
    ) -> Result<Self> {
        options.validate()?;
        Self::check(gpu)?;
        let layout: &Arc<_> = gradient.layout();
        let (solution, residual) = (
            Vector::new(gpu, "CG solution", layout)?,
            Vector::new(gpu, "CG residual", layout)?,
        );
        let state = gpu.buffer("CG state", STATE_ELEMENTS + options.max_iterations + 1)?;
        let partial_elements = cg::partial_elements(gpu, solution.slice());
        let partials = gpu.buffer("CG partial sums", partial_elements)?;
        let on = cg::Operands {
            state: &state,
            partials: &partials,
            x: solution.slice(),
            r: residual.slice(),
            p: operator.input.slice(),
            q: operator.output.slice(),
            g: gradient.slice(),
            inverse: inverse.map(Vector::slice),
        };
        let mut cold_start = Recording::new();
        cg::start(gpu, &mut cold_start, &on, false)?;
        if let Some(companion) = companion
            && companion.gradient.is_same(gradient) != companion.product.is_same(&operator.output)
        {
            return Err(Error::Unsupported {
                what: "a companion with slopes of one quadratic and curvatures of another".into(),
                message: "that is worse than no companion; give gradient and product of the same examples".into(),
            });
        }
        let beside = match companion {
            None => None,
            Some(companion) => Some(Beside::new(gpu, companion, options)?),
        };
        let mut warm_start = Work::new();
        if let Some(beside) = &beside {
            // The start has just made the solution zero.
            beside.record_cold_start(&mut cold_start, &solution)?;
            warm_start
                .tail()
                .copy(beside.solution.slice(), solution.slice())?;
        }
        warm_start
            .tail()
            .copy(solution.slice(), operator.input.slice())?;
        warm_start.append(operator.multiply.clone());
        if let Some(beside) = &beside {
            beside.record_warm_start(gpu, warm_start.tail(), &state)?;
        }
        cg::start(gpu, warm_start.tail(), &on, true)?;
        let mut iteration = operator.multiply.clone();
        if let Some(beside) = &beside {
            beside.record_step(gpu, iteration.tail(), &on)?;
        }
        cg::iteration(gpu, iteration.tail(), &on)?;
        let (log, solution) = match beside {
            None => (None, solution.clone()),
            Some(beside) => (Some(beside.log), beside.solution),
        };
        let mut close = Recording::new();
        cg::close(gpu, &mut close, &on)?;
        let mut stored = Vec::new();
        let mut stores = Vec::new();
        for &after in keep
            .iter()
            .filter(|&&after| after <= options.max_iterations)
        {
            let vector = Vector::new(gpu, "CG iterate", layout)?;
            let mut store = Recording::new();
            store.copy(solution.slice(), vector.slice())?;
            stored.push((after, vector));
            stores.push(store);
        }
        let input = operator.input.clone();
        Ok(Self {
            gpu: gpu.clone(),
            options: options.clone(),
            state,
            log,
            solution,
            input,
            cold_start,
            warm_start,
            iteration,
            close,
            stored,
            stores,
            pace: Pace::new(options.submissions),
        })
    }

    /// Solves with `shift` added to the diagonal; from `solution` if `warm`, else from zero. With a `radius`, stays in the trust region
    /// `|x| <= radius` (Steihaug 1983; the norm is that of the preconditioner), which needs a start from zero.
    ///
    /// `before` is run first, in the same submission, for what the operator and right-hand side depend on.
    ///
    /// The host first looks after up to 11 iterations. Longer solves go on in twos, and the host looks at the end of two while the next
    /// ones are queued. How many iterations go into one submission is decided by [`CgOptions::submissions`].
    ///
    /// # Errors
    /// [`Error::Option`] for a shift or radius out of range, or loss of the device.
    #[cfg(not(target_arch = "wasm32"))]
    pub fn solve<'a>(
        &self,
        before: impl Into<Commands<'a>>,
        shift: f32,
        radius: Option<f32>,
        warm: bool,
    ) -> Result<CgReport> {
        crate::gpu::blocking(self.solve_async(before, shift, radius, warm))
    }

    /// As [`solve`](Self::solve), without blocking the thread. What was submitted of a solve that is dropped runs on.
    ///
    /// # Errors
    /// As there.
    pub async fn solve_async<'a>(
        &self,
        before: impl Into<Commands<'a>>,
        shift: f32,
        radius: Option<f32>,
        warm: bool,
    ) -> Result<CgReport> {
        let system = System {
            shift,
            radius,
            warm,
        };
        self.solve_after(system, &[before.into()]).await
    }

    /// As [`solve`](Self::solve), with several things before.
    pub(crate) async fn solve_after(
        &self,
        system: System,
        before: &[Commands<'_>],
    ) -> Result<CgReport> {
        Ok(self.run(system, before, None::<&mut Nothing>).await?.0)
    }

    /// As [`solve`](Self::solve), with several things before, and with an afterword in the one blocking readback that ends it. Gives what
    /// the afterword reads.
    pub(crate) async fn solve_and<A: Afterword>(
        &self,
        system: System,
        before: &[Commands<'_>],
        afterword: &mut A,
    ) -> Result<(CgReport, Vec<Vec<f32>>)> {
        self.run(system, before, Some(afterword)).await
    }

    async fn run<A: Afterword>(
        &self,
        system: System,
        before: &[Commands<'_>],
        mut afterword: Option<&mut A>,
    ) -> Result<(CgReport, Vec<Vec<f32>>)> {
        let most = self.options.max_iterations;
        self.prepare(&system)?;
        let mut submitted = 0usize;
        let mut older: Option<PendingRead> = None;
        let (start, mut before_look) = (Instant::now(), 0);
        let mut commands = before.to_vec();
        commands.push(if system.warm {
            (&self.warm_start).into()
        } else {
            (&self.cold_start).into()
        });
        loop {
            let round = match (self.options.submissions, submitted) {
                (Submissions::Fixed(count), _) => count,
                (Submissions::Timed(_), 0) => FIRST,
                (Submissions::Timed(_), _) => LATER,
            };
            let until = submitted.saturating_add(round).min(most);
            let last = until == most;
            let mut reads = vec![&self.state];
            reads.extend(&self.log);
            let own = reads.len();
            if let (true, Some(afterword)) = (last, &mut afterword) {
                afterword.prepare(most)?;
            }
            let joined = afterword.as_deref().filter(|_| last);
            if let Some(afterword) = joined {
                reads.extend(afterword.reads());
            }
            // All submissions of a round but the last one, which is looked at.
            let each = self.pace.at_once(round);
            while until - submitted > each {
                self.iterate(&mut commands, submitted + 1..=submitted + each);
                self.gpu.run_async(commands.drain(..)).await?;
                submitted += each;
            }
            self.iterate(&mut commands, submitted + 1..=until);
            let mut commands = std::mem::take(&mut commands);
            commands.push((&self.close).into());
            if let Some(afterword) = joined {
                commands.extend(afterword.commands());
            }
            let left = self.gpu.until_last_call(&commands).await?;
            let pending = self.gpu.submit_and_read_later(
                |recorder| {
                    replay_all(recorder, &left);
                    Ok(())
                },
                &reads,
            )?;
            submitted = until;
            let products = submitted + usize::from(system.warm);
            let looked = match older.take() {
                None => None,
                Some(look) => {
                    let read = look.wait_async().await?;
                    self.pace.measured(start.elapsed(), before_look);
                    report(&read, products)
                }
            };
            if let Some(report) = looked {
                // What was queued meanwhile changes nothing, but may hold the afterword.
                let read = match &mut afterword {
                    None => Vec::new(),
                    Some(_) if last => pending.wait_async().await?.split_off(own),
                    Some(afterword) => {
                        afterword.prepare(report.iterations)?;
                        let (commands, reads) = (afterword.commands(), afterword.reads());
                        self.gpu.run_and_read_async(commands, &reads).await?
                    }
                };
                return Ok((report, read));
            }
            if last {
                let mut read = pending.wait_async().await?;
                self.pace.measured(start.elapsed(), until);
                let extra = read.split_off(own);
                // At the cap the device always has a reason to stop.
                let report = report(&read, products).ok_or_else(|| Error::Gpu {
                    what: "conjugate gradients".into(),
                    message: "the device left no reason for its stop".into(),
                })?;
                return Ok((report, extra));
            }
            (older, before_look) = (Some(pending), until);
        }
    }

    /// Checks the system and uploads a new state.
    fn prepare(&self, system: &System) -> Result<()> {
        let &System {
            shift,
            radius,
            warm,
        } = system;
        check_range("CG shift", &shift, 0.0..f32::INFINITY, "0 or more")?;
        if let Some(radius) = radius {
            let possible = !warm && self.log.is_none() && RADII.contains(&radius);
            require(
                possible,
                "trust region",
                format!(
                    "radius {radius} with warm start {warm}: needs a radius in 1e-15..=1e15, a start from zero, and no companion"
                ),
            )?;
        }
        let state = self.first_state(shift, radius.unwrap_or(0.0));
        self.gpu.upload(&self.state, 0, bytemuck::bytes_of(&state))
    }

    /// The state with which a solve begins.
    pub(super) fn first_state(&self, shift: f32, radius: f32) -> State {
        let options = &self.options;
        State {
            max_iterations: options.max_iterations as u32,
            min_window: options.min_window as u32,
            shift,
            residual_tolerance: options.residual_tolerance,
            progress_tolerance: options.progress_tolerance,
            radius,
            ..State::default()
        }
    }

    /// Adds iterations, with copies of the iterates to keep.
    fn iterate<'s>(
        &'s self,
        commands: &mut Vec<Commands<'s>>,
        numbers: std::ops::RangeInclusive<usize>,
    ) {
        for number in numbers {
            commands.push((&self.iteration).into());
            let stored = self.stored.iter().position(|(after, _)| *after == number);
            commands.extend(stored.map(|at| Commands::from(&self.stores[at])));
        }
    }

    /// One iteration, its product included: what a submission repeats. After the product come one kernel for vectors that one workgroup
    /// manages, two for longer ones, those for each segment of the vectors. None where the product needs the host.
    pub fn iteration(&self) -> Option<&Recording> {
        self.iteration.recording()
    }

    /// The kept iterates of the last solve: number of the iteration and vector, ascending; only those before its end.
    pub fn kept(&self, report: &CgReport) -> impl DoubleEndedIterator<Item = (usize, &Vector)> {
        self.kept_before(report.iterations)
    }

    /// The kept iterates of a solve that ends after iteration `end`.
    pub(crate) fn kept_before(
        &self,
        end: usize,
    ) -> impl DoubleEndedIterator<Item = (usize, &Vector)> {
        self.stored
            .iter()
            .filter(move |(after, _)| *after < end)
            .map(|(after, vector)| (*after, vector))
    }

    /// The direction of negative curvature after [`Stop::NegativeCurvature`](crate::linalg::Stop::NegativeCurvature); after other stops,
    /// one that was or would have been next. Its length has no meaning: directions are kept in units of the power of two at or below the
    /// gradient's largest element, in which their squares are finite.
    pub fn last_direction(&self) -> &Vector {
        &self.input
    }
}
