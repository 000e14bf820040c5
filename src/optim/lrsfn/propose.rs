//! How a step is made: eigenpairs, the steps of folds, and their judgement.

use std::sync::Arc;

use super::automatic::StepProbe;
use super::fold::{Fold, Memory};
use super::options::RankRule;
use super::{LowRankSaddleFreeNewton, all_values};
use crate::data::Role;
use crate::error::{Error, Result};
use crate::gpu::{self, Gpu};
use crate::kernels::spectrum::Spectrum as Numbers;
use crate::objective::{Curved, Gradient, GradientRequest, QuadraticRequest, Slot};
use crate::optim::engine::Proposal;
use crate::optim::first_order::Moments;
use crate::optim::judge::{Candidate, Judges};
use crate::optim::report::StepReport;
use crate::optim::saved::missing;
use crate::optim::work::{Work, flops};
use crate::recent::Recent;
use crate::vector::Vector;

/// The batches of a step.
pub(super) struct Cast<'a, O: Curved + ?Sized> {
    /// What makes eigenvectors, and what steps along them, for each step that is averaged.
    pub(super) folds: &'a [[&'a O::Batch; 2]],
    /// What judges, unless that is what steps.
    pub(super) judge: Option<&'a O::Batch>,
    /// Cuts a batch into parts, for the noise of eigenvalues.
    #[allow(clippy::type_complexity)]
    pub(super) cut: fn(&O, &O::Batch, usize) -> Result<Vec<O::Batch>>,
}

impl<'a, O: Curved + ?Sized> Cast<'a, O> {
    /// The slot of what steps: that of eigenvectors, where it is the same batch.
    fn slot_of_steps(&self) -> Slot {
        match self.folds {
            [[directions, steps]] if std::ptr::eq(*directions, *steps) => Slot::default(),
            _ => Slot::new(Role::Steps, 0),
        }
    }

    /// Who judges, where nobody is set apart for it.
    fn last(&self) -> Option<&'a O::Batch> {
        self.folds.last().map(|[_, steps]| *steps)
    }
}

/// What is recorded around programs.
#[derive(Default)]
pub(super) struct Caches {
    makers: Recent<Maker>,
    judges: Judges,
    probes: Recent<StepProbe>,
}

/// Computes a gradient and makes the step of a fold with it.
struct Maker {
    gradient: Arc<Gradient>,
    fold: usize,
    make: gpu::Work,
}

/// What a step would do.
struct Judged {
    /// The loss before.
    base: f64,
    candidate: Candidate,
    /// `u_i . g` of each fold.
    projections: Vec<Vec<f32>>,
    /// Whether the base optimizer moved at all.
    moved: bool,
}

impl LowRankSaddleFreeNewton {
    pub(super) async fn propose_in<O: Curved + ?Sized>(
        &mut self,
        memory: &mut Memory,
        objective: &mut O,
        theta: &Vector,
        cast: &Cast<'_, O>,
    ) -> Result<Proposal> {
        let gpu = objective.gpu().clone();
        let mut work = Work::default();
        let prepared = self
            .prepare(memory, objective, theta, cast, &mut work)
            .await;
        let damping = self.current_damping(&memory.folds[..cast.folds.len()]);
        let mut report = StepReport {
            damping: Some(damping),
            ..StepReport::default()
        };
        if let (Err(Error::NotFinite { .. }), true) = (&prepared, self.adapts()) {
            let still = self
                .at_theta(memory, objective, theta, cast, &mut work)
                .await?;
            return Ok(Proposal::overflow(still, work.in_report(report)));
        }
        prepared?;
        if let Some(base) = &mut memory.base {
            base.undo.begin(&gpu)?;
        }
        let lengths = self.lengths();
        let Judged {
            base,
            candidate,
            projections,
            moved,
        } = self
            .judged(memory, objective, theta, cast, damping, &mut work)
            .await?;
        let used = &memory.folds[..cast.folds.len()];
        // Where others judge, their gradient may be finite and that of those who step not.
        let slopes = projections.iter().flatten();
        let known = cast.judge.is_none() || slopes.copied().all(f32::is_finite);
        let starts = base.is_finite() && candidate.gradient_square.is_finite();
        if starts && !known {
            return Err(not_finite("the gradient of a fold"));
        }
        if starts && !moved && !self.adapts() {
            return Err(not_finite("the step"));
        }
        if starts && !candidate.change.is_finite() && !self.adapts() {
            return Err(not_finite("the loss after the step"));
        }
        let each = used.iter().zip(&projections);
        let curvature: f64 = each
            .map(|(fold, slopes)| fold.curvature_along(slopes, lengths[0], damping))
            .sum();
        let curvature = curvature / used.len() as f64;
        report.step_length = Some(lengths[0]);
        report.eigenvalues = all_values(used);
        let noise = used.iter().flat_map(|fold| &fold.spectrum.known.noise);
        report.eigenvalue_noise = noise.copied().collect();
        let judge = self.caches.judges.last().ok_or_else(|| missing("judge"))?;
        let step = judge.prepared_move()?;
        Ok(Proposal {
            base,
            at: candidate,
            factor: 1.0,
            step: moved.then_some(step),
            promised: candidate.slope + 0.5 * curvature,
            // Nothing moves where there is no gradient, and nothing is learnt about the model.
            stationary: moved && candidate.square == 0.0,
            remember: None,
            report: work.in_report(report),
        })
    }

    /// Computes eigenpairs where it is time for them.
    async fn prepare<O: Curved + ?Sized>(
        &mut self,
        memory: &mut Memory,
        objective: &mut O,
        theta: &Vector,
        cast: &Cast<'_, O>,
        work: &mut Work,
    ) -> Result<()> {
        let gpu = objective.gpu().clone();
        let due = self.steps.is_multiple_of(self.options.refresh);
        let holds_out = self.options.holds_out();
        let mut fresh = false;
        for (fold, [directions, steps]) in memory.folds.iter_mut().zip(cast.folds) {
            if due || fold.spectrum.is_new() {
                let held_out = holds_out.then_some(*steps);
                let parts = match self.options.rank_rule {
                    RankRule::Noise { parts, .. } => {
                        (cast.cut)(objective, held_out.unwrap_or(directions), parts)?
                    }
                    _ => Vec::new(),
                };
                let (options, spectrum) = (&self.options, &mut fold.spectrum);
                *work += spectrum
                    .refresh(options, objective, theta, directions, held_out, &parts)
                    .await?;
                fresh = true;
            }
            fold.upload_subtraction(&gpu)?;
        }
        if let (true, Some(lanczos), [[_, steps]]) = (fresh, self.options.automatic, cast.folds) {
            let slot = cast.slot_of_steps();
            let fold = &memory.folds[0];
            let length = self
                .measure(fold, objective, theta, (slot, *steps), lanczos, work)
                .await?;
            self.next = Some([length; 2]);
        }
        Ok(())
    }

    /// The automatic step length.
    async fn measure<O: Curved + ?Sized>(
        &mut self,
        fold: &Fold,
        objective: &mut O,
        theta: &Vector,
        (slot, batch): (Slot, &O::Batch),
        steps: usize,
        work: &mut Work,
    ) -> Result<f64> {
        let request = QuadraticRequest {
            curvature: self.options.curvature,
            ..QuadraticRequest::default()
        };
        let loaded = objective.load(slot, batch)?;
        let quadratic = objective.quadratic(theta, &loaded, request)?;
        let (rank, elements) = (fold.spectrum.basis.rank(), objective.layout().len());
        work.gradient(&quadratic.cost, &loaded);
        work.products(steps, &quadratic.cost, &loaded);
        work.vectors(flops::lanczos(steps, elements) + flops::sandwich(steps, rank, elements));
        let gpu = objective.gpu().clone();
        let damping = self.current_damping(std::slice::from_ref(fold));
        let known = |probe: &StepProbe| Arc::ptr_eq(&probe.quadratic, &quadratic);
        let bytes = quadratic.cost.bytes + 4 * (steps * objective.layout().len()) as u64;
        let probe = self
            .caches
            .probes
            .find_or(known, (theta.life(), bytes), || {
                StepProbe::new(&gpu, &quadratic, &fold.spectrum.basis, steps)
            })?;
        let values = &fold.spectrum.known.values;
        probe.measure(&gpu, values, damping).await
    }

    /// What makes the step of a fold with a gradient.
    fn maker<'c>(
        makers: &'c mut Recent<Maker>,
        memory: &Memory,
        gpu: &Gpu,
        (theta, gradient): (&Vector, &Arc<Gradient>),
        fold: usize,
    ) -> Result<&'c mut Maker> {
        let known = |m: &Maker| Arc::ptr_eq(&m.gradient, gradient) && m.fold == fold;
        makers.find_or(known, (theta.life(), gradient.cost.bytes), || {
            let mut make = gradient.run.clone();
            memory.record(gpu, make.tail(), gradient, fold)?;
            Ok(Maker {
                gradient: Arc::clone(gradient),
                fold,
                make,
            })
        })
    }

    /// Makes the step, and has it judged.
    async fn judged<O: Curved + ?Sized>(
        &mut self,
        memory: &Memory,
        objective: &mut O,
        theta: &Vector,
        cast: &Cast<'_, O>,
        damping: f64,
        work: &mut Work,
    ) -> Result<Judged> {
        let gpu = objective.gpu().clone();
        let settings = self.settings();
        if let (Some(base), Some(settings)) = (&memory.base, &settings) {
            base.moments.upload(&gpu, settings)?;
        }
        let lengths = self.lengths();
        let share = 1.0 / cast.folds.len() as f64;
        let slot = cast.slot_of_steps();
        let Caches { makers, judges, .. } = &mut self.caches;
        let judged = GradientRequest { losses: true };
        let request = match cast.judge {
            Some(_) => GradientRequest::default(),
            None => judged,
        };
        let mut judging = None;
        for (number, [_, steps]) in cast.folds.iter().enumerate() {
            let loaded = objective.load(slot, steps)?;
            let gradient = objective.gradient(theta, &loaded, request)?;
            let [alpha, beta] = lengths.map(|length| (share * length) as f32);
            memory.folds[number].upload_numbers(
                &gpu,
                Numbers {
                    alpha,
                    beta,
                    damping: damping as f32,
                    ..Numbers::default()
                },
            )?;
            work.gradient(&gradient.cost, &loaded);
            // Into the captured space and out of it, twice.
            let rank = memory.folds[number].spectrum.basis.rank();
            work.vectors(2.0 * flops::low_rank(1, rank, objective.layout().len()));
            let maker = Self::maker(makers, memory, &gpu, (theta, &gradient), number)?;
            if cast.judge.is_some() {
                // Submitted before the next examples are loaded into the same slot.
                gpu.run_async([&maker.make]).await?;
            }
            judging = Some((loaded, gradient, number));
        }
        if let Some(judge) = cast.judge {
            let loaded = objective.load(Slot::new(Role::Acceptance, 0), judge)?;
            let gradient = objective.gradient(theta, &loaded, judged)?;
            work.gradient(&gradient.cost, &loaded);
            judging = Some((loaded, gradient, 0));
        }
        let (loaded, gradient, number) = judging.ok_or_else(|| missing("batch"))?;
        let apart = judges.of(objective, theta, &loaded)?;
        for cost in apart.judge.costs() {
            work.losses(1, &cost, &loaded);
        }
        let judge = &mut apart.judge;
        judge.begin();
        judge.prepare(&gpu, &[(memory.step(cast.folds.len()), 1.0)])?;
        let before = match cast.judge {
            Some(_) => &gradient.run,
            None => &Self::maker(makers, memory, &gpu, (theta, &gradient), number)?.make,
        };
        let mut reads = judge.reads().to_vec();
        let folds = &memory.folds[..cast.folds.len()];
        reads.extend(folds.iter().map(|fold| &fold.projections));
        reads.extend(memory.base.as_ref().map(|base| base.moments.reads()));
        let commands = std::iter::once(before.into()).chain(judge.commands());
        let mut read = gpu.run_and_read_async(commands, &reads).await?;
        let moved = match (&memory.base, &settings) {
            (Some(base), Some(settings)) => {
                let scalars = read.pop().ok_or_else(|| missing("sums"))?;
                base.moments.moves(settings, Moments::sums(&scalars))
            }
            _ => true,
        };
        let projections = read.split_off(read.len() - folds.len());
        let (base, found) = judge.results(&read)?;
        let candidate = found.first().copied().ok_or_else(|| missing("candidate"))?;
        Ok(Judged {
            base,
            candidate,
            projections,
            moved,
        })
    }

    /// What is known at theta by those who judge, where no step could be computed.
    async fn at_theta<O: Curved + ?Sized>(
        &mut self,
        memory: &Memory,
        objective: &mut O,
        theta: &Vector,
        cast: &Cast<'_, O>,
        work: &mut Work,
    ) -> Result<Candidate> {
        let gpu = objective.gpu().clone();
        let (slot, batch) = match cast.judge {
            Some(judge) => (Slot::new(Role::Acceptance, 0), Some(judge)),
            None => (cast.slot_of_steps(), cast.last()),
        };
        let batch = batch.ok_or_else(|| missing("batch"))?;
        let loaded = objective.load(slot, batch)?;
        let apart = self.caches.judges.of(objective, theta, &loaded)?;
        work.gradient(&apart.gradient.cost, &loaded);
        for cost in apart.judge.costs() {
            work.losses(1, &cost, &loaded);
        }
        gpu.run_async([&apart.gradient.run]).await?;
        apart.judge.begin();
        let still = apart.judge.evaluate(&gpu, &[(memory.still(), 0.0)]).await?;
        still.first().copied().ok_or_else(|| missing("candidate"))
    }
}

fn not_finite(what: &str) -> Error {
    Error::NotFinite {
        what: what.into(),
        advice: "Use a smaller step length or more damping, or check the data.",
    }
}
