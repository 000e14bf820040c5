//! What conjugate gradients report.

use super::companion::{LineStep, read_log};
use crate::kernels::cg::{self, STATE_ELEMENTS, State};

/// Why a solve ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
#[serde(rename_all = "kebab-case")]
#[non_exhaustive]
pub enum Stop {
    /// The model fell by too little over the last iterations (Martens 2010, section 4.4).
    RelativeProgress,
    /// The residual is small enough.
    Residual,
    /// A direction of curvature zero or below. Without a trust region the last iterate before it is the result; with one, the point where
    /// that direction meets the boundary.
    NegativeCurvature,
    /// The boundary of the trust region.
    Boundary,
    /// The cap on iterations.
    MaxIterations,
    /// A number overflowed; the result is the last iterate whose numbers were finite.
    NotFinite,
}

impl Stop {
    /// The reason that the device has written down; none while a solve is running.
    pub(crate) fn from_code(code: u32) -> Option<Self> {
        match code {
            1 => Some(Self::RelativeProgress),
            2 => Some(Self::Residual),
            3 => Some(Self::NegativeCurvature),
            4 => Some(Self::Boundary),
            5 => Some(Self::MaxIterations),
            6 => Some(Self::NotFinite),
            _ => None,
        }
    }
}

/// How a solve went.
#[derive(Clone, Debug, PartialEq)]
pub struct CgReport {
    /// Why it ended.
    pub stop: Stop,
    /// Iterations that counted: products with `C` whose result was used.
    pub iterations: usize,
    /// Products computed, also those after the stop that nobody needed and the one for a warm start.
    pub products: usize,
    /// Value of the damped model `g.x + x.(C + shift) x / 2` at the start and after each iteration.
    pub model: Vec<f64>,
    /// `|g|`; not a number where the gradient is not finite.
    pub gradient_norm: f64,
    /// `|r| / |g|` at the end.
    pub relative_residual: f32,
    /// Curvature of the last direction as it is in [`ConjugateGradients::last_direction`](super::ConjugateGradients::last_direction), `p.(C
    /// + shift) p`.
    pub curvature: f32,
    /// The companion's model at the start: zero unless that is warm.
    pub companion_start: f64,
    /// What a companion found along each direction, that at which the solve stopped included; empty without one.
    pub companion: Vec<LineStep>,
}

impl CgReport {
    /// The companion's model `g'.x + x.(C' + shift) x / 2` at the start and after each of its steps.
    pub fn companion_model(&self) -> Vec<f64> {
        let mut value = self.companion_start;
        let mut model = vec![value];
        for step in &self.companion {
            value += step.length * (step.slope + 0.5 * step.length * step.curvature);
            model.push(value);
        }
        model
    }
}

/// The report in a state, if the solve has stopped; `read` begins with the state.
pub(super) fn report(read: &[Vec<f32>], products: usize) -> Option<CgReport> {
    let (fixed, model) = read.first()?.split_at_checked(STATE_ELEMENTS)?;
    let state: State = bytemuck::pod_read_unaligned(bytemuck::cast_slice(fixed));
    let last = state.next;
    let stop = Stop::from_code(last.stop)?;
    let iterations = last.iterations as usize;
    let unit = cg::unit(state.largest);
    let finite = f32::from_bits(state.largest).is_finite();
    let (companion_start, companion) = read
        .get(1)
        .map_or((0.0, Vec::new()), |log| read_log(log, iterations));
    // Along directions that start as -M^-1 g, not in units of it.
    let companion = companion
        .into_iter()
        .map(|step| LineStep {
            slope: step.slope * unit,
            curvature: step.curvature * unit * unit,
            length: step.length / unit,
        })
        .collect();
    Some(CgReport {
        stop,
        iterations,
        products,
        model: model[..=iterations.min(model.len() - 1)]
            .iter()
            .map(|&phi| f64::from(phi) * unit * unit)
            .collect(),
        gradient_norm: if finite {
            unit * f64::from(last.gg).sqrt()
        } else {
            f64::NAN
        },
        relative_residual: if last.gg > 0.0 {
            (last.rr / last.gg).sqrt()
        } else {
            0.0
        },
        curvature: last.curvature,
        companion_start,
        companion,
    })
}
