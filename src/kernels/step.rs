//! Face of the kernels in `shaders/step/`: what a recorded step decides, and how it is taken.

use bytemuck::{Pod, Zeroable};

use super::cg::STATE;
use super::finite::FINITE;
use super::requirements;
use super::vector::in_segments;
use crate::error::Result;
use crate::gpu::{Gpu, Recording, Slice, grid};

pub(super) const CONTROL_TEXT: &str = include_str!("../../shaders/step/control.wgsl");
const DECIDE: &str = include_str!("../../shaders/step/decide.wgsl");
const TAKE: &str = include_str!("../../shaders/step/take.wgsl");

/// `Control` in `shaders/step/control.wgsl`: what a recorded step knows from one step to the next, and what it tells of each.
#[derive(Clone, Copy, Debug, Default, PartialEq, Pod, Zeroable)]
#[repr(C)]
pub(crate) struct Control {
    pub(crate) damping: f32,
    pub(crate) radius: f32,
    pub(crate) floored: f32,
    pub(crate) steps: u32,
    pub(crate) one: f32,
    pub(crate) chosen: f32,
    pub(crate) moves: u32,
    pub(crate) remembers: u32,
    pub(crate) reverts: u32,
    pub(crate) outcome: u32,
    pub(crate) stop: u32,
    pub(crate) iterations: u32,
    pub(crate) candidate: u32,
    pub(crate) loss_before: f32,
    pub(crate) loss: f32,
    pub(crate) change: f32,
    pub(crate) error: f32,
    pub(crate) slope: f32,
    pub(crate) square: f32,
    pub(crate) gradient_norm: f32,
    pub(crate) promised: f32,
    pub(crate) damping_used: f32,
    pub(crate) radius_used: f32,
    pub(crate) factor: f32,
    pub(crate) length: f32,
}

/// Elements of it, and places in it.
pub(crate) const CONTROL: usize = size_of::<Control>() / 4;
pub(crate) const DAMPING_AT: usize = std::mem::offset_of!(Control, damping) / 4;
pub(crate) const RADIUS_AT: usize = std::mem::offset_of!(Control, radius) / 4;
pub(crate) const FLOORED_AT: usize = std::mem::offset_of!(Control, floored) / 4;
pub(crate) const COEFFICIENTS_AT: usize = std::mem::offset_of!(Control, one) / 4;
pub(crate) const STEPS_AT: usize = std::mem::offset_of!(Control, steps) / 4;
/// Flags, for [`take`].
pub(crate) const MOVES_AT: usize = std::mem::offset_of!(Control, moves) / 4;
pub(crate) const REVERTS_AT: usize = std::mem::offset_of!(Control, reverts) / 4;

/// Outcomes of a step, as the kernel numbers them; others are those of numbers that are not finite.
pub(crate) const TAKEN: u32 = 1;
pub(crate) const REFUSED: u32 = 2;
pub(crate) const STATIONARY: u32 = 3;

/// The constants of the rules.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Rules {
    /// Candidates that were judged.
    pub(crate) candidates: usize,
    /// A trust region in place of damping.
    pub(crate) trusts: bool,
    pub(crate) armijo: f32,
    pub(crate) decrease: f32,
    pub(crate) grow: f32,
    pub(crate) minimum: f32,
    /// The most and the least that a radius may become.
    pub(crate) radii: [f32; 2],
}

/// What the decision reads.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Evidence<'a> {
    /// State of conjugate gradients.
    pub(crate) state: &'a Slice,
    pub(crate) base: &'a Slice,
    pub(crate) results: &'a Slice,
    pub(crate) sums: &'a Slice,
    pub(crate) coefficients: &'a Slice,
}

/// Records the decision on a step.
pub(crate) fn decide(
    gpu: &Gpu,
    recording: &mut Recording,
    rules: &Rules,
    on: &Evidence<'_>,
    control: &Slice,
) -> Result<()> {
    let constants = [
        ("CANDIDATES", rules.candidates as f64),
        ("TRUSTS", f64::from(u8::from(rules.trusts))),
        ("ARMIJO", rules.armijo.into()),
        ("DECREASE", rules.decrease.into()),
        ("GROW", rules.grow.into()),
        ("MINIMUM", rules.minimum.into()),
        ("MOST_RADIUS", rules.radii[0].into()),
        ("LEAST_RADIUS", rules.radii[1].into()),
    ];
    let text = [FINITE, STATE, CONTROL_TEXT, DECIDE].concat();
    let pipeline = gpu.kernel("decide", &text, &constants, requirements::DECIDE)?;
    let bindings = [
        on.state,
        on.base,
        on.results,
        control,
        on.sums,
        on.coefficients,
    ];
    recording.dispatch(gpu, &pipeline, &bindings, [1, 1, 1])
}

/// Records `to = source` for where a flag of `control` is set.
pub(crate) fn take(
    gpu: &Gpu,
    recording: &mut Recording,
    to: &Slice,
    source: &Slice,
    (control, flag): (&Slice, usize),
) -> Result<()> {
    for (count, [to, source]) in in_segments([to, source])? {
        let constants = [("COUNT", count as f64), ("FLAG", flag as f64)];
        let pipeline = gpu.kernel("take", TAKE, &constants, requirements::TAKE)?;
        let workgroups = grid(gpu.limits(), count.div_ceil(64))?;
        recording.dispatch(gpu, &pipeline, &[&to, &source, control], workgroups)?;
    }
    Ok(())
}
