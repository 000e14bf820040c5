//! What a recorded step leaves on the device, as a report.

use super::decision::Ratio;
use super::recorded::StepOutcome;
use super::report::StepReport;
use crate::kernels::step::{self, Control};

/// The words of a [`Control`].
pub(super) fn control(words: &[u32]) -> Control {
    let bytes: &[u8] = bytemuck::cast_slice(words);
    bytemuck::try_pod_read_unaligned(bytes).unwrap_or_default()
}

/// What a step tells, whatever the method: as the step engine reports one that the host judged.
pub(super) fn told(control: &Control) -> (StepOutcome, StepReport) {
    let outcome = match control.outcome {
        step::TAKEN => StepOutcome::Taken,
        step::REFUSED => StepOutcome::Refused,
        step::STATIONARY => StepOutcome::Stationary,
        _ => StepOutcome::NotFinite,
    };
    let taken = outcome == StepOutcome::Taken;
    let number = |x: f32| f64::from(x);
    let base = number(control.loss_before);
    let [change, error, promised] =
        [control.change, control.error, control.promised].map(f64::from);
    let rho = Ratio::new(change, error, promised).value();
    let report = StepReport {
        loss_before: base,
        loss_after: Some(if taken { number(control.loss) } else { base }),
        loss_change: Some(if taken { change } else { 0.0 }),
        gradient_norm: number(control.gradient_norm),
        step_norm: if taken {
            number(control.factor) * number(control.square).sqrt()
        } else {
            0.0
        },
        rho: (rho.is_finite() && outcome != StepOutcome::Stationary).then_some(rho),
        ..StepReport::default()
    };
    (outcome, report)
}
