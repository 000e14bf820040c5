//! The step of every method with curvature: a proposal, a decision, and one place where parameters and the method's state change.

use std::marker::PhantomData;
use std::sync::Arc;

use web_time::Instant;

use super::course::Course;
use super::decision::Ratio;
use super::judge::{Candidate, Move};
use super::not_finite;
use super::report::StepReport;
use crate::error::Result;
use crate::gpu::{Gpu, Recorder, Recording};
use crate::objective::Objective;
use crate::vector::Vector;

/// What a step would do, and what the judge says of it.
pub(super) struct Proposal {
    /// The loss before.
    pub(super) base: f64,
    /// What is known of the step; where it was shortened, of the shortened one.
    pub(super) at: Candidate,
    /// Factor on the direction.
    pub(super) factor: f64,
    /// Moves the parameters; none for a step that is refused.
    pub(super) step: Option<Move>,
    /// The change of the loss that the undamped model promised.
    pub(super) promised: f64,
    /// Whether nothing would move, because nothing pulls: no step, and nothing is learnt of the model.
    pub(super) stationary: bool,
    /// Turns what the step computed into what the method remembers, once it is taken.
    pub(super) remember: Option<Arc<Recording>>,
    /// What only the method knows.
    pub(super) report: StepReport,
}

impl Proposal {
    /// Of a batch on which the step cannot even be computed, with what is known of a step of no length: to be refused, where loss and
    /// gradient are finite.
    pub(super) fn overflow(still: Candidate, report: StepReport) -> Self {
        Self {
            base: still.loss,
            at: Candidate {
                loss: f64::INFINITY,
                change: f64::INFINITY,
                ..still
            },
            factor: 0.0,
            step: None,
            promised: -1.0,
            stationary: false,
            remember: None,
            report,
        }
    }

    /// The ratio of the actual change of the loss over the promised one.
    pub(super) fn ratio(&self) -> Ratio {
        Ratio::new(self.at.change, self.at.error, self.promised)
    }
}

/// What became of a proposal.
pub(super) struct Outcome {
    pub(super) accepted: bool,
    /// For damping and radius: the ratio, or that of a refusal; none for a stationary step.
    pub(super) judged: Option<Ratio>,
}

/// A method whose steps are proposed, judged, and taken or refused.
///
/// Until [`settle`](Self::settle) nothing of the method's state changes but what [`withdraw`](Self::withdraw) brings back.
pub(super) trait Method<O: Objective + ?Sized>: Send {
    /// The course of its run, which the engine keeps: the average of iterates, and the count of steps.
    fn run(&mut self) -> &mut Course;

    /// Makes a step and has it judged.
    fn propose(
        &mut self,
        objective: &mut O,
        theta: &Vector,
        batch: &O::Batch,
    ) -> impl Future<Output = Result<Proposal>> + Send;

    /// Whether a proposal that has a step is taken.
    fn accepts(&self, _proposal: &Proposal) -> bool {
        true
    }

    /// Takes up what the step has taught: cannot fail, and comes after the parameters moved, or did not.
    fn settle(&mut self, proposal: &Proposal, outcome: &Outcome);

    /// Records what brings the method's vectors back to where they were before the proposal.
    fn record_back(&self, _recorder: &mut Recorder<'_>) {}

    /// Takes back what the proposal changed in the method's own memory.
    fn withdraw(&mut self) {}
}

/// A step that is not decided yet: where it fails, or is dropped, everything is as it was.
struct Undecided<'m, O: Objective + ?Sized, M: Method<O>> {
    method: &'m mut M,
    gpu: Gpu,
    decided: bool,
    of: PhantomData<fn(&O)>,
}

impl<O: Objective + ?Sized, M: Method<O>> Drop for Undecided<'_, O, M> {
    fn drop(&mut self) {
        if !self.decided {
            let method = &*self.method;
            // What fails here is that the device is gone, which the error of the step says already.
            let _ = self.gpu.submit(|recorder| method.record_back(recorder));
            self.method.withdraw();
        }
    }
}

/// Proposes a step, decides, and takes it or leaves everything as it was. Where this fails, everything is as it was.
pub(super) async fn step<O: Objective + ?Sized>(
    method: &mut impl Method<O>,
    objective: &mut O,
    theta: &Vector,
    batch: &O::Batch,
) -> Result<StepReport> {
    let clock = Clock::start(objective.gpu());
    let gpu = objective.gpu().clone();
    let mut step = Undecided {
        method,
        gpu: gpu.clone(),
        decided: false,
        of: PhantomData::<fn(&O)>,
    };
    let proposal = step.method.propose(objective, theta, batch).await?;
    let (proposal, outcome) = take(step.method, &gpu, theta, proposal)?;
    step.decided = true;
    let method = &mut *step.method;
    if !outcome.accepted && !proposal.stationary {
        method.withdraw();
    }
    method.run().advance(outcome.accepted);
    method.settle(&proposal, &outcome);
    Ok(clock.stop(&gpu, report(proposal, &outcome)))
}

/// Decides, and submits what follows from it: the last thing that may fail.
fn take<O: Objective + ?Sized>(
    method: &mut impl Method<O>,
    gpu: &Gpu,
    theta: &Vector,
    proposal: Proposal,
) -> Result<(Proposal, Outcome)> {
    if !proposal.base.is_finite() {
        return Err(not_finite::loss());
    }
    if !proposal.at.gradient_square.is_finite() {
        return Err(if proposal.at.slope.is_finite() {
            not_finite::out_of_scale("the square of the gradient")
        } else {
            not_finite::gradient()
        });
    }
    let possible =
        !proposal.stationary && proposal.at.change.is_finite() && proposal.at.square.is_finite();
    let step = proposal
        .step
        .as_ref()
        .filter(|_| possible && method.accepts(&proposal));
    let average = match step {
        Some(_) => method.run().prepare(gpu, theta)?,
        None => None,
    };
    let method = &*method;
    gpu.submit(|recorder| match step {
        // What was learnt where nothing pulls stays.
        None if proposal.stationary => {}
        None => method.record_back(recorder),
        Some(step) => {
            step.record(recorder);
            if let Some(remember) = &proposal.remember {
                recorder.replay(remember);
            }
            if let Some(average) = &average {
                recorder.replay(average);
            }
        }
    })?;
    let accepted = step.is_some();
    let judged = match (proposal.stationary, accepted) {
        (true, _) => None,
        (false, true) => Some(proposal.ratio()),
        (false, false) => Some(Ratio::REFUSED),
    };
    Ok((proposal, Outcome { accepted, judged }))
}

fn report(proposal: Proposal, outcome: &Outcome) -> StepReport {
    let (at, ratio) = (proposal.at, proposal.ratio().value());
    let taken = outcome.accepted;
    StepReport {
        loss_before: proposal.base,
        loss_after: Some(if taken { at.loss } else { proposal.base }),
        loss_change: Some(if taken { at.change } else { 0.0 }),
        gradient_norm: at.gradient_square.sqrt(),
        step_norm: if taken {
            proposal.factor * at.square.sqrt()
        } else {
            0.0
        },
        accepted: taken,
        rho: (ratio.is_finite() && !proposal.stationary).then_some(ratio),
        ..proposal.report
    }
}

/// Time and readbacks of a step.
pub(super) struct Clock {
    start: Instant,
    readbacks: u64,
    looks: u64,
}

impl Clock {
    pub(super) fn start(gpu: &Gpu) -> Self {
        Self {
            start: Instant::now(),
            readbacks: gpu.readbacks(),
            looks: gpu.looks(),
        }
    }

    pub(super) fn stop(&self, gpu: &Gpu, report: StepReport) -> StepReport {
        StepReport {
            readbacks: gpu.readbacks() - self.readbacks,
            looks: gpu.looks() - self.looks,
            seconds: self.start.elapsed().as_secs_f64(),
            ..report
        }
    }
}
