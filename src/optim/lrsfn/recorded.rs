//! Recorded steps of low-rank saddle-free Newton, between two computations of its eigenpairs.

use std::sync::Arc;

use super::corrections;
use super::fold::{self, BaseMemory, Fold, Memory};
use super::{Base, DampingRule, LowRankSaddleFreeNewton, LrsfnOptions, all_values};
use crate::error::{Error, Result};
use crate::gpu::{Gpu, Recording, Slice};
use crate::kernels::spectrum::{
    self, Acceptance, EVIDENCE, EVIDENCE_AT, Found, SPECTRUM_DAMPING, accept,
};
use crate::kernels::step::{CONTROL, Control, DAMPING_AT, MOVES_AT, REVERTS_AT, take};
use crate::kernels::vector::{FIRST_ORDER_SCALARS, FIRST_ORDER_SETTINGS};
use crate::objective::{Gradient, GradientRequest, Loaded, Objective};
use crate::optim::control::{control, told};
use crate::optim::judge::Judge;
use crate::optim::recorded::{Recordable, Recorded, Script, StepOutcome, refuse, without_average};
use crate::optim::report::StepReport;
use crate::optim::saved::missing;
use crate::optim::strategy::Strategy;
use crate::optim::work::{Work, flops};
use crate::vector::Vector;

/// What the host knows of each step before it runs: both step lengths, then the settings of the base optimizer.
fn carried(method: &LowRankSaddleFreeNewton) -> Vec<f32> {
    let lengths = method.lengths().map(|length| length as f32);
    let settings = method.settings();
    lengths
        .into_iter()
        .chain(settings.into_iter().flatten())
        .collect()
}

/// What a step tells, out of what the device has left of it.
fn read(method: &LowRankSaddleFreeNewton, words: &[u32]) -> (StepOutcome, StepReport) {
    let control = control(words);
    let (outcome, report) = told(&control);
    let folds = method
        .memory
        .as_ref()
        .map_or(&[][..], |memory| &memory.folds);
    let noise = folds.iter().flat_map(|fold| &fold.spectrum.known.noise);
    let report = StepReport {
        step_length: Some(f64::from(control.length)),
        damping: Some(f64::from(control.damping_used)),
        eigenvalues: all_values(folds),
        eigenvalue_noise: noise.copied().collect(),
        ..report
    };
    (outcome, report)
}

/// The rules of the decision.
pub(super) fn rules(options: &LrsfnOptions) -> Acceptance {
    let (adapts, rule) = match options.rule {
        DampingRule::Fixed => (false, Default::default()),
        DampingRule::Adaptive(rule) => (true, rule),
    };
    Acceptance {
        base: fold::method(&options.base),
        adapts,
        decrease: rule.decrease as f32,
        grow: rule.increase(),
        minimum: rule.minimum as f32,
        least: options.least_damping() as f32,
    }
}

/// Refuses what a recorded step has no part for.
fn check(options: &LrsfnOptions) -> Result<()> {
    if options.strategy != Strategy::Single {
        return Err(refuse("strategies that part a batch"));
    }
    if options.acceptance > 0.0 {
        return Err(refuse("examples that do nothing but judge"));
    }
    Ok(())
}

/// The buffers of a recorded step, beside those of the method.
struct Buffers {
    control: Slice,
    /// What [`carried`] gives.
    carried: Slice,
    evidence: Slice,
    /// Corrections of Adam's moments, which are of a step that the device counts.
    corrections: Option<Slice>,
}

impl Buffers {
    fn new(gpu: &Gpu, method: &LowRankSaddleFreeNewton) -> Result<Self> {
        let corrections = match &method.options.base {
            Base::Adam(options) => Some(corrections::table(gpu, options)?),
            _ => None,
        };
        Ok(Self {
            control: gpu.buffer("control of recorded steps", CONTROL)?,
            carried: gpu.buffer("numbers of a recorded step", carried(method).len())?,
            evidence: gpu.buffer("evidence of a recorded step", EVIDENCE)?,
            corrections,
        })
    }
}

/// Records what comes before the gradient: the numbers of this step, and copies of what it may have to bring back.
fn begin(
    gpu: &Gpu,
    commands: &mut Recording,
    (base, fold): (Option<&BaseMemory>, &Fold),
    buffers: &Buffers,
) -> Result<()> {
    let (control, carried) = (&buffers.control, &buffers.carried);
    commands.copy_part(carried, 0, &fold.numbers, 0, 2)?;
    commands.copy_part(control, DAMPING_AT, &fold.numbers, SPECTRUM_DAMPING, 1)?;
    let Some(base) = base else { return Ok(()) };
    let scalars = base.moments.reads();
    commands.copy_part(carried, 2, scalars, 0, FIRST_ORDER_SETTINGS)?;
    if let Some(table) = &buffers.corrections {
        spectrum::corrections(gpu, commands, scalars, table, control)?;
    }
    commands.append(base.undo.keep.clone());
    Ok(())
}

/// Records what comes after the candidate: the decision, and what follows from it.
fn end(
    gpu: &Gpu,
    commands: &mut Recording,
    (memory, judge): (&Memory, &Judge),
    (options, theta): (&LrsfnOptions, &Vector),
    buffers: &Buffers,
) -> Result<()> {
    let (control, evidence) = (&buffers.control, &buffers.evidence);
    let [at_base, at_candidate, at_sums, at_scalars] = EVIDENCE_AT;
    let [base, results, sums] = judge.reads();
    commands.copy_part(base, 0, evidence, at_base, 1)?;
    commands.copy_part(results, 0, evidence, at_candidate, 3)?;
    commands.copy_part(sums, 0, evidence, at_sums, 3)?;
    if let Some(base) = &memory.base {
        commands.copy_part(
            base.moments.reads(),
            0,
            evidence,
            at_scalars,
            FIRST_ORDER_SCALARS,
        )?;
    }
    let fold = &memory.folds[0];
    let found = Found {
        evidence,
        spectrum: &fold.numbers,
        projections: &fold.projections,
    };
    accept(gpu, commands, &rules(options), &found, control)?;
    // The candidate is still where it was judged.
    take(
        gpu,
        commands,
        theta.slice(),
        judge.point().slice(),
        (control, MOVES_AT),
    )?;
    match &memory.base {
        Some(base) => base.undo.record_back(gpu, commands, (control, REVERTS_AT)),
        None => Ok(()),
    }
}

/// The work of a step: that of one which the host judges.
fn work(gradient: &Gradient, judge: &Judge, fold: &Fold, loaded: &Loaded) -> Work {
    let mut work = Work::default();
    work.gradient(&gradient.cost, loaded);
    let (rank, elements) = (fold.spectrum.basis.rank(), gradient.gradient.layout().len());
    work.vectors(2.0 * flops::low_rank(1, rank, elements));
    for cost in judge.costs() {
        work.losses(1, &cost, loaded);
    }
    work
}

impl LowRankSaddleFreeNewton {
    /// Whether there are eigenpairs, which recorded steps do not compute.
    fn ready(&self) -> bool {
        let folds = self.memory.as_ref().map(|memory| &memory.folds);
        folds.is_some_and(|folds| folds.iter().all(|fold| !fold.spectrum.is_new()))
    }

    /// Puts on the device what is the same in all steps, and gives what it knows before the first.
    fn first(&self, gpu: &Gpu, fold: &Fold) -> Result<Control> {
        let least = if self.adapts() {
            self.damping_floor(std::slice::from_ref(fold)) as f32
        } else {
            0.0
        };
        fold.upload_subtraction(gpu)?;
        fold.upload_numbers(
            gpu,
            spectrum::Spectrum {
                least,
                ..Default::default()
            },
        )?;
        Ok(Control {
            damping: self.damping as f32,
            steps: self.steps as u32,
            ..Control::default()
        })
    }
}

/// Steps with the eigenpairs that are there: [`LrsfnOptions::refresh`] does not count in recorded steps. New ones are computed by
/// [`Optimizer::step`](crate::optim::Optimizer::step) where it is time for them, between one recording and the next:
///
/// ```
/// use osculant::optim::{LowRankSaddleFreeNewton, LrsfnOptions, Optimizer, Recordable};
/// # use osculant::{data::Batch, objective::{GraphObjective, Objective, Slot}, vector::Vector};
/// # fn train(objective: &mut GraphObjective, theta: &Vector, batch: &Batch) -> osculant::Result<()> {
/// // Every step that the host judges computes eigenpairs.
/// let mut method = LowRankSaddleFreeNewton::new(LrsfnOptions::default().with_refresh(1))?;
/// for _stretch in 0..10 {
///     method.step(objective, theta, batch)?;
///     let loaded = objective.load(Slot::default(), batch)?;
///     let mut recorded = method.recorded(objective, theta, &loaded)?;
///     for _step in 0..20 {
///         objective.gpu().clone().try_submit(|recorder| recorded.record(recorder))?;
///     }
///     method = recorded.finish()?;
/// }
/// # Ok(())
/// # }
/// ```
///
/// There is one candidate, `theta + d`, as where the host judges. A step has `8 r P` flops beside the gradient and two losses, and with a
/// base optimizer one copy more of what that remembers, which is brought back where the step is refused. Where the loss, the gradient or,
/// with a fixed damping, the step is not finite, nothing changes, and Adam's corrections do not go on either.
///
/// # Errors
/// Also [`Error::Unsupported`] before the first computation of eigenpairs, for other strategies than [`Strategy::Single`], with
/// [`LrsfnOptions::acceptance`], and for decays of Adam above 0.99998.
impl<O: Objective + ?Sized> Recordable<O> for LowRankSaddleFreeNewton {
    fn recorded(
        self,
        objective: &mut O,
        theta: &Vector,
        loaded: &Loaded,
    ) -> Result<Recorded<Self>> {
        without_average(&self)?;
        check(&self.options)?;
        if !self.ready() {
            return Err(Error::Unsupported {
                what: "recorded steps without eigenpairs".into(),
                message: "make a step with `Optimizer::step` first, which computes them".into(),
            });
        }
        let gpu = objective.gpu().clone();
        let gradient = objective.gradient(theta, loaded, GradientRequest { losses: true })?;
        let memory = self.memory.as_ref().ok_or_else(|| missing("memory"))?;
        let (fold, step) = (&memory.folds[0], memory.step(1));
        let mut judge = Judge::new(&gpu, [theta, &gradient.gradient], gradient.losses.as_ref())?;
        judge.prepare(&gpu, &[(step, 1.0)])?;
        let buffers = Buffers::new(&gpu, &self)?;
        let first = self.first(&gpu, fold)?;
        gpu.upload(&buffers.control, 0, bytemuck::bytes_of(&first))?;
        let mut commands = Recording::new();
        commands.hold(Arc::clone(&gradient) as _);
        commands.hold(Arc::new(theta.clone()));
        let upload = commands.upload(&gpu, &buffers.carried)?;
        begin(&gpu, &mut commands, (memory.base.as_ref(), fold), &buffers)?;
        commands.append(gradient.run.recorded()?.clone());
        memory.record(&gpu, &mut commands, &gradient, 0)?;
        judge.record_grid(&gpu, &mut commands, step, 1)?;
        let judged = (memory, &judge);
        end(
            &gpu,
            &mut commands,
            judged,
            (&self.options, theta),
            &buffers,
        )?;
        let script = Script {
            commands,
            upload,
            carried,
            words: buffers.control,
            read,
            work: work(&gradient, &judge, fold, loaded).in_report(StepReport::default()),
            count: |method| method.course.advance(true),
            settle: |method, words| {
                let left = control(words);
                (method.damping, method.steps) = (left.damping.into(), left.steps as usize);
            },
        };
        Recorded::new(&gpu, self, script)
    }
}
