//! Faces of the kernels in `shaders/step/` that are for low-rank saddle-free Newton: weights, decision, corrections of moments.

use bytemuck::{Pod, Zeroable};

use super::finite::FINITE;
use super::loops;
use super::requirements;
use super::step::{CONTROL_TEXT, STEPS_AT};
use super::vector::FirstOrderMethod;
use crate::error::Result;
use crate::gpu::{Gpu, Recording, Slice};

const SPECTRUM: &str = include_str!("../../shaders/step/spectrum.wgsl");
const WEIGHTS: &str = include_str!("../../shaders/step/weights.wgsl");
const ACCEPT: &str = include_str!("../../shaders/step/accept.wgsl");
const CORRECTIONS: &str = include_str!("../../shaders/step/corrections.wgsl");

/// The beginning of `Spectrum` in `shaders/step/spectrum.wgsl`, before the eigenvalues: what is known of a step before it runs.
#[derive(Clone, Copy, Debug, Default, PartialEq, Pod, Zeroable)]
#[repr(C)]
pub(crate) struct Spectrum {
    pub(crate) alpha: f32,
    pub(crate) beta: f32,
    pub(crate) damping: f32,
    pub(crate) least: f32,
    pub(crate) count: u32,
}

/// Elements of it, and the place of the damping; the step lengths come first.
pub(crate) const SPECTRUM_ELEMENTS: usize = size_of::<Spectrum>() / 4;
pub(crate) const SPECTRUM_DAMPING: usize = std::mem::offset_of!(Spectrum, damping) / 4;

impl Spectrum {
    /// All words of it, with eigenvalues, of which there are fewer than the rank where some are not in use.
    pub(crate) fn words(&self, values: &[f64], rank: usize) -> Vec<u32> {
        let mut words: Vec<u32> = bytemuck::cast_slice(std::slice::from_ref(self)).to_vec();
        words.extend(values.iter().map(|&value| (value as f32).to_bits()));
        words.resize(SPECTRUM_ELEMENTS + rank, 0);
        words
    }
}

/// Records the weights `[a | b]` of eigenvectors in a step, and the last of the factors; `base` says whether an optimizer moves what is
/// beyond them.
///
/// # Errors
/// Limits of the device.
pub(crate) fn eigenvector_weights(
    gpu: &Gpu,
    recording: &mut Recording,
    [weights, factors]: [&Slice; 2],
    spectrum: &Slice,
    base: bool,
) -> Result<()> {
    let rank = weights.len() / 2;
    let constants = [("RANK", rank as f64), ("BASE", f64::from(u8::from(base)))];
    let text = [SPECTRUM, WEIGHTS].concat();
    let pipeline = gpu.kernel("weights", &text, &constants, requirements::WEIGHTS)?;
    let workgroups = [rank.div_ceil(64).max(1) as u32, 1, 1];
    recording.dispatch(gpu, &pipeline, &[weights, factors, spectrum], workgroups)
}

/// The constants of the decision.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Acceptance {
    /// What moves the parameters beyond the captured space, where it is not the gradient.
    pub(crate) base: Option<FirstOrderMethod>,
    /// Whether the damping adapts, and bad steps are refused.
    pub(crate) adapts: bool,
    pub(crate) decrease: f32,
    pub(crate) grow: f32,
    pub(crate) minimum: f32,
    /// What the damping is never below.
    pub(crate) least: f32,
}

/// What it reads.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Found<'a> {
    /// [`EVIDENCE`] numbers.
    pub(crate) evidence: &'a Slice,
    pub(crate) spectrum: &'a Slice,
    /// `u_i . g`
    pub(crate) projections: &'a Slice,
}

/// Elements of the evidence, and where in it are the loss at theta, those of the candidate, its inner products, and the scalars of a base
/// optimizer.
pub(crate) const EVIDENCE: usize = 20;
pub(crate) const EVIDENCE_AT: [usize; 4] = [0, 1, 4, 8];

/// Records the decision on a step.
///
/// # Errors
/// Limits of the device.
pub(crate) fn accept(
    gpu: &Gpu,
    recording: &mut Recording,
    rules: &Acceptance,
    on: &Found<'_>,
    control: &Slice,
) -> Result<()> {
    loops::check("accept", on.projections.len())?;
    let base = match rules.base {
        None => 0u8,
        Some(FirstOrderMethod::Sgd) => 1,
        Some(FirstOrderMethod::Adam) => 2,
    };
    let constants = [
        ("BASE", base.into()),
        ("ADAPTS", f64::from(u8::from(rules.adapts))),
        ("DECREASE", rules.decrease.into()),
        ("GROW", rules.grow.into()),
        ("MINIMUM", rules.minimum.into()),
        ("LEAST_DAMPING", rules.least.into()),
    ];
    let text = [FINITE, CONTROL_TEXT, SPECTRUM, ACCEPT].concat();
    let pipeline = gpu.kernel("accept", &text, &constants, requirements::ACCEPT)?;
    let bindings = [on.evidence, on.spectrum, on.projections, control];
    recording.dispatch(gpu, &pipeline, &bindings, [1, 1, 1])
}

/// Records the corrections of Adam's moments among the `scalars` of a step, for the step that follows those which `control` has counted;
/// `table` has two numbers for each step, up to the first one for which both are 1.
///
/// # Errors
/// Limits of the device.
pub(crate) fn corrections(
    gpu: &Gpu,
    recording: &mut Recording,
    scalars: &Slice,
    table: &Slice,
    control: &Slice,
) -> Result<()> {
    let constants = [("STEPS", STEPS_AT as f64)];
    let pipeline = gpu.kernel(
        "corrections",
        CORRECTIONS,
        &constants,
        requirements::CORRECTIONS,
    )?;
    recording.dispatch(gpu, &pipeline, &[scalars, table, control], [1, 1, 1])
}
