//! Whole steps as commands, for the encoder of somebody else's loop: nothing waits, and nothing is read back.

use super::report::StepReport;
use super::state::Stateful;
use crate::error::{Error, Result};
use crate::gpu::{Arrivals, Gpu, Recorder, Recording, Slice, Upload};
use crate::objective::{Loaded, Objective};
use crate::vector::Vector;

/// Reports that may be on their way, or wait to be fetched.
const REPORTS: usize = 256;

/// A method whose steps can be recorded whole: directions, candidates, judgement, damping and the move, all on the device.
///
/// ```
/// use osculant::gpu::Recorder;
/// use osculant::linalg::CgOptions;
/// use osculant::optim::{NewtonCg, NewtonCgOptions, Recordable};
/// # use osculant::{data::Batch, objective::{GraphObjective, Objective, Slot}, vector::Vector};
/// # fn frames(objective: &mut GraphObjective, theta: &Vector, batch: &Batch, device: &wgpu::Device, queue: &wgpu::Queue) -> osculant::Result<()> {
/// let loaded = objective.load(Slot::default(), batch)?;
/// let cg = CgOptions::default().with_max_iterations(10);
/// let newton = NewtonCg::new(NewtonCgOptions::default().with_cg(cg))?;
/// let mut newton = newton.recorded(objective, theta, &loaded)?;
/// for _frame in 0..100 {
///     let mut encoder = device.create_command_encoder(&Default::default());
///     // Passes of the caller's own before, and after.
///     newton.record(&mut Recorder::new(&mut encoder))?;
///     queue.submit([encoder.finish()]);
///     for (step, outcome, report) in newton.reports()? {
///         println!("{step}: {outcome:?}, loss {}", report.loss_before);
///     }
/// }
/// # Ok(())
/// # }
/// ```
pub trait Recordable<O: Objective + ?Sized>: Stateful + Sized {
    /// Steps of `theta` on what is in a slot when they run: whoever changes the batch writes it there, or has it gathered on the device,
    /// before the step in the same queue.
    ///
    /// The steps are those of [`Optimizer::step`](super::Optimizer::step), with these differences. A solve has all of its iterations
    /// ([`CgOptions::max_iterations`](crate::linalg::CgOptions), 250 unless said otherwise): those after the reason to stop change nothing,
    /// and cost their products. Of the line search the first four lengths are tried, all in every step; with a trust region there is one.
    /// Earlier iterates are not gone back to. What decides is computed in f32, from the same numbers, so a ratio within some ulps of a
    /// threshold may fall to the other side. Where the loss or the gradient is not finite, nothing changes on the device, and the report
    /// says so; what the host counts, for a schedule and for Adam's corrections, goes on.
    ///
    /// [`LowRankSaddleFreeNewton`](super::LowRankSaddleFreeNewton) steps with the eigenpairs that it has, and goes back to the host for
    /// others.
    ///
    /// # Errors
    /// As a first step; [`Error::Unsupported`] for what only the host can do: products that need it, Nystrom preconditioners, eigenpairs
    /// that are not there yet, parts of a batch, averages of iterates. Weights in an average follow from the number of steps that were
    /// taken, which the device alone knows, and a table of them has no end where the average is a mean.
    fn recorded(self, objective: &mut O, theta: &Vector, loaded: &Loaded)
    -> Result<Recorded<Self>>;
}

/// What became of a recorded step.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum StepOutcome {
    /// The parameters moved.
    Taken,
    /// They have the bits of before; the damping, or the radius, is another one.
    Refused,
    /// Nothing pulls, or the schedule has come to zero: nothing changed.
    Stationary,
    /// The loss, its gradient or the step is not finite: nothing changed.
    NotFinite,
}

/// What a method has to say about its recorded steps.
pub(super) struct Script<M> {
    /// A whole step.
    pub(super) commands: Recording,
    /// Numbers that the host knows of each step before it runs, and what they are for the next one.
    pub(super) upload: Upload,
    pub(super) carried: fn(&M) -> Vec<f32>,
    /// What is left for a report, and how it is read; with the work of a step.
    pub(super) words: Slice,
    pub(super) read: fn(&M, &[u32]) -> (StepOutcome, StepReport),
    pub(super) work: StepReport,
    /// Counts a step that was recorded.
    pub(super) count: fn(&mut M),
    /// Takes up what the steps have left on the device.
    pub(super) settle: fn(&mut M, &[u32]),
}

/// A method of which each [`record`](Self::record) puts a whole step into an encoder; made by [`Recordable::recorded`].
///
/// Steps belong to the queue on which their encoders are submitted, in that order; an encoder that is dropped is a step that did not take
/// place, although a schedule has counted it.
pub struct Recorded<M> {
    method: M,
    gpu: Gpu,
    script: Script<M>,
    arrivals: Arrivals,
    steps: u64,
}

impl<M: Stateful> Recorded<M> {
    pub(super) fn new(gpu: &Gpu, method: M, script: Script<M>) -> Result<Self> {
        Ok(Self {
            gpu: gpu.clone(),
            arrivals: Arrivals::new(gpu, &script.words, REPORTS)?,
            method,
            script,
            steps: 0,
        })
    }

    /// Records the next step, and gives its number, counted from 0. Nothing is created here once the first steps have come back.
    ///
    /// # Errors
    /// [`Error::DeviceLost`]. Nothing is recorded then.
    pub fn record(&mut self, recorder: &mut Recorder<'_>) -> Result<u64> {
        self.gpu.check()?;
        let Script {
            commands,
            upload,
            carried,
            count,
            ..
        } = &self.script;
        upload.set(&carried(&self.method))?;
        recorder.replay(commands);
        let number = self.steps;
        if !self.arrivals.record(recorder, number) {
            log::debug!("step {number} has no report: {REPORTS} are on their way");
        }
        count(&mut self.method);
        self.steps += 1;
        Ok(number)
    }

    /// The reports that have arrived since the last call: number of the step, what became of it, and the report of it. They come some
    /// submissions later, in order unless another thread polls the device; the oldest are forgotten where nobody fetches them. Never waits.
    ///
    /// # Errors
    /// [`Error::DeviceLost`].
    pub fn reports(&mut self) -> Result<Vec<(u64, StepOutcome, StepReport)>> {
        let arrived = self.arrivals.take()?.into_iter();
        let reports = arrived.map(|(number, words)| {
            let (outcome, report) = (self.script.read)(&self.method, &words);
            let (work, work_flops) = (self.script.work.work, self.script.work.work_flops);
            let report = StepReport {
                accepted: outcome == StepOutcome::Taken,
                work,
                work_flops,
                ..report
            };
            (number, outcome, report)
        });
        Ok(reports.collect())
    }

    /// With commands around those of each step, such as one that gathers the rows of its batch.
    #[must_use]
    pub fn between(mut self, before: Recording, after: Recording) -> Self {
        let step = std::mem::replace(&mut self.script.commands, before);
        self.script.commands.append(step);
        self.script.commands.append(after);
        self
    }

    /// Says how much of a run is done, as [`Course::set_done`](super::Course::set_done): before each step, once it was said.
    pub fn set_done(&mut self, part: f64) {
        self.method.course_mut().set_done(part);
    }

    /// Steps recorded so far.
    #[must_use]
    pub fn steps(&self) -> u64 {
        self.steps
    }

    /// The commands of a step, to be looked at. What replays them without [`record`](Self::record) repeats the numbers of the last step.
    #[must_use]
    pub fn commands(&self) -> &Recording {
        &self.script.commands
    }

    /// Waits for the steps that were submitted, and gives the method back with the state that they have left: to be saved, or to go on with
    /// steps that the host judges. Where that fails, the method is gone with its state on the device.
    ///
    /// # Errors
    /// [`Error::Timeout`], [`Error::DeviceLost`].
    #[cfg(not(target_arch = "wasm32"))]
    pub fn finish(self) -> Result<M> {
        crate::gpu::blocking(self.finish_async())
    }

    /// As [`finish`](Self::finish), without blocking the thread.
    ///
    /// # Errors
    /// As there.
    pub async fn finish_async(mut self) -> Result<M> {
        let words = self.gpu.read_u32_async(&[&self.script.words]).await?;
        if let (true, Some(words)) = (self.steps > 0, words.first()) {
            (self.script.settle)(&mut self.method, words);
        }
        Ok(self.method)
    }
}

/// Refuses what a recorded step cannot do.
pub(super) fn refuse(what: &str) -> Error {
    Error::Unsupported {
        what: format!("{what} in recorded steps"),
        message: "the host has a part in it; make steps with `Optimizer::step`, or leave it out"
            .into(),
    }
}

/// Refuses methods that average their iterates.
pub(super) fn without_average(method: &impl Stateful) -> Result<()> {
    match method.course().averages() {
        true => Err(refuse("averages of iterates")),
        false => Ok(()),
    }
}
