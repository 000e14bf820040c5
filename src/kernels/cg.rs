//! Face of the kernels in `shaders/cg/`: conjugate gradients whose scalars stay on the device.

use bytemuck::{Pod, Zeroable};

use super::dot::Capabilities;
use super::four::four;
use super::requirements::Cg;
use super::template::fill;
use super::vector::{reduction_groups, vec4s};
use crate::error::Result;
use crate::gpu::{Gpu, Recording, Slice, grid};

const STATE: &str = include_str!("../../shaders/cg/state.wgsl");
const SUMS: &str = include_str!("../../shaders/cg/sums.wgsl");
const PARTIALS: &str = include_str!("../../shaders/cg/partials.wgsl");
const DECISION: &str = include_str!("../../shaders/cg/decision.wgsl");
const LARGEST: &str = include_str!("../../shaders/cg/largest.wgsl");
const START: &str = include_str!("../../shaders/cg/start.wgsl");
const SHORT: &str = include_str!("../../shaders/cg/short.wgsl");
const LONG: &str = include_str!("../../shaders/cg/long.wgsl");
const COMPANION: &str = include_str!("../../shaders/cg/companion.wgsl");
const SHIFTED_SUM: &str = include_str!("../../shaders/cg/shifted_sum.wgsl");
const ENDS: &str = include_str!("../../shaders/cg/ends.wgsl");

/// How the work on a vector is divided.
#[derive(Clone, Copy, Debug)]
struct Division {
    /// Invocations of a workgroup.
    lanes: usize,
    /// Workgroups; one means that an iteration is one kernel.
    groups: usize,
}

/// Vectors of up to this many elements are left to one workgroup: four vec4s of three vectors per invocation of a GPU. Eight spill on
/// Intel's.
const ONE_WORKGROUP: usize = 4096;
/// Most workgroups: every one of them adds the partial sums of all.
const MOST_GROUPS: usize = 256;

impl Division {
    /// On a GPU, workgroups as large as WebGPU lets every device have, with at least four vec4s per invocation. In software a barrier costs
    /// something for every few invocations, so workgroups are small and their invocations busy.
    fn new(gpu: &Gpu, len: usize) -> Self {
        let (lanes, vec4s) = if Capabilities::of(gpu).software {
            (64, 32)
        } else {
            (256, 4)
        };
        let groups = if len <= ONE_WORKGROUP {
            1
        } else {
            len.div_ceil(4 * vec4s * lanes).clamp(2, MOST_GROUPS)
        };
        Self { lanes, groups }
    }
}

/// `Scalars` in `shaders/cg/state.wgsl`: what an iteration changes.
#[derive(Clone, Copy, Debug, Default, Pod, Zeroable)]
#[repr(C)]
pub(crate) struct Scalars {
    pub(crate) stop: u32,
    pub(crate) iterations: u32,
    pub(crate) rr: f32,
    pub(crate) gg: f32,
    pub(crate) curvature: f32,
    pub(crate) xx: f32,
    pub(crate) xp: f32,
    pub(crate) tail: f32,
    pub(crate) phi: f32,
    pub(crate) lift: f32,
}

/// The fixed part of `State` in `shaders/cg/state.wgsl`; the model values follow.
#[derive(Clone, Copy, Debug, Default, Pod, Zeroable)]
#[repr(C)]
pub(crate) struct State {
    pub(crate) max_iterations: u32,
    pub(crate) min_window: u32,
    pub(crate) shift: f32,
    pub(crate) residual_tolerance: f32,
    pub(crate) progress_tolerance: f32,
    pub(crate) radius: f32,
    /// Bits of the largest `|g_i|`.
    pub(crate) largest: u32,
    pub(crate) now: Scalars,
    pub(crate) next: Scalars,
}

/// Place of the bits of the largest `|g_i|` in it.
const LARGEST_AT: usize = std::mem::offset_of!(State, largest) / 4;

/// Elements of the fixed part.
pub(crate) const STATE_ELEMENTS: usize = size_of::<State>() / 4;

/// The unit of residuals and directions: the power of two at or below the largest `|g_i|`, as `unit` in `shaders/cg/state.wgsl` has it.
pub(crate) fn unit(largest: u32) -> f64 {
    f64::from(f32::from_bits(
        (largest & 0x7f80_0000).clamp(0x0080_0000, 0x7e80_0000),
    ))
}

/// Records `words[at] = max(words[at], bits of the largest |x_i|)`: what is not finite is larger than all that is. Somebody must have set
/// the word to zero before.
pub(crate) fn largest(
    gpu: &Gpu,
    recording: &mut Recording,
    (words, at): (&Slice, usize),
    x: &Slice,
) -> Result<()> {
    let count = vec4s(&[x])?;
    let text = [four(&Capabilities::of(gpu)), LARGEST].concat();
    let constants = [("COUNT", count as f64), ("AT", at as f64)];
    let pipeline = gpu.kernel(
        "largest element",
        &text,
        &constants,
        Cg::Largest.requirements(64),
    )?;
    let groups = reduction_groups(count);
    recording.dispatch(gpu, &pipeline, &[words, x], [groups as u32, 1, 1])
}

/// The vectors of a solve.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Operands<'a> {
    pub(crate) state: &'a Slice,
    pub(crate) partials: &'a Slice,
    pub(crate) x: &'a Slice,
    pub(crate) r: &'a Slice,
    /// Input of the operator.
    pub(crate) p: &'a Slice,
    /// Output of the operator.
    pub(crate) q: &'a Slice,
    pub(crate) g: &'a Slice,
    /// Inverse of a diagonal preconditioner.
    pub(crate) inverse: Option<&'a Slice>,
}

/// Elements of the partial sums of a solve with vectors of `len` elements.
pub(crate) fn partial_elements(gpu: &Gpu, len: usize) -> usize {
    8 * Division::new(gpu, len).groups
}

/// Fails unless the device can run conjugate gradients, with a companion or without; asks before anything is made.
///
/// # Errors
/// [`Error::OverLimit`](crate::Error::OverLimit).
pub(crate) fn check(gpu: &Gpu) -> Result<()> {
    let lanes = Division::new(gpu, ONE_WORKGROUP).lanes as u32;
    let all = [
        (Cg::Largest, "largest element"),
        (Cg::Start, "cg start"),
        (Cg::Short, "cg short"),
        (Cg::Long, "cg long"),
        (Cg::Companion, "cg companion"),
        (Cg::Ends, "cg ends"),
        (Cg::ShiftedSum, "cg shifted sum"),
    ];
    all.into_iter()
        .try_for_each(|(kernel, label)| kernel.requirements(lanes).check(label, gpu.limits()))
}

/// The kernels of one solve.
struct Faces<'a> {
    gpu: &'a Gpu,
    on: &'a Operands<'a>,
    count: usize,
    division: Division,
}

impl<'a> Faces<'a> {
    fn new(gpu: &'a Gpu, on: &'a Operands<'a>) -> Result<Self> {
        let count = vec4s(&[on.x, on.r, on.p, on.q, on.g, on.inverse.unwrap_or(on.g)])?;
        Ok(Self {
            gpu,
            on,
            count,
            division: Division::new(gpu, 4 * count),
        })
    }

    /// Records a kernel made of these parts after those that all have.
    fn dispatch(
        &self,
        recording: &mut Recording,
        (kernel, label): (Cg, &str),
        parts: &[&str],
        constants: &[(&str, f64)],
        bindings: &[&Slice],
        groups: usize,
    ) -> Result<()> {
        let lanes = format!("const LANES: u32 = {}u;", self.division.lanes);
        let sums = fill(SUMS, &[("lanes", &lanes)])?;
        let text = [four(&Capabilities::of(self.gpu)), STATE, &sums].concat() + &parts.concat();
        let requirements = kernel.requirements(self.division.lanes as u32);
        let pipeline = self.gpu.kernel(label, &text, constants, requirements)?;
        recording.dispatch(self.gpu, &pipeline, bindings, [groups as u32, 1, 1])
    }

    fn preconditioned(&self) -> (&'static str, f64) {
        (
            "PRECONDITIONED",
            f64::from(u8::from(self.on.inverse.is_some())),
        )
    }

    fn inverse(&self) -> &'a Slice {
        self.on.inverse.unwrap_or(self.on.g)
    }

    /// A whole iteration, in one workgroup.
    fn short(&self, recording: &mut Recording) -> Result<()> {
        let on = self.on;
        let per = format!(
            "const PER: u32 = {}u;",
            self.count.div_ceil(self.division.lanes)
        );
        let text = fill(SHORT, &[("per", &per)])?;
        let constants = [("COUNT", self.count as f64), self.preconditioned()];
        let bindings = [on.state, on.x, on.r, on.p, on.q, self.inverse()];
        self.dispatch(
            recording,
            (Cg::Short, "cg short"),
            &[DECISION, &text],
            &constants,
            &bindings,
            1,
        )
    }

    /// Half of an iteration, by several workgroups.
    fn long(&self, recording: &mut Recording, half: u8, always: bool) -> Result<()> {
        let on = self.on;
        let constants = [
            ("COUNT", self.count as f64),
            ("GROUPS", self.division.groups as f64),
            ("HALF", f64::from(half)),
            ("ALWAYS", f64::from(u8::from(always))),
            self.preconditioned(),
        ];
        let bindings = [
            on.state,
            on.partials,
            on.x,
            on.r,
            on.p,
            on.q,
            self.inverse(),
        ];
        self.dispatch(
            recording,
            (Cg::Long, "cg long"),
            &[PARTIALS, DECISION, LONG],
            &constants,
            &bindings,
            self.division.groups,
        )
    }

    fn ends(&self, recording: &mut Recording, close: bool) -> Result<()> {
        let constants = [
            ("GROUPS", self.division.groups as f64),
            ("CLOSE", f64::from(u8::from(close))),
        ];
        let bindings = [self.on.state, self.on.partials];
        let parts = [PARTIALS, ENDS];
        let kernel = (Cg::Ends, "cg ends");
        self.dispatch(recording, kernel, &parts, &constants, &bindings, 1)
    }
}

/// Records the start of a solve; with `warm`, x holds the first iterate and q its product.
pub(crate) fn start(
    gpu: &Gpu,
    recording: &mut Recording,
    on: &Operands<'_>,
    warm: bool,
) -> Result<()> {
    let faces = Faces::new(gpu, on)?;
    let constants = [
        ("COUNT", faces.count as f64),
        ("WARM", f64::from(u8::from(warm))),
        faces.preconditioned(),
    ];
    let bindings = [
        on.state,
        on.partials,
        on.x,
        on.r,
        on.p,
        on.q,
        on.g,
        faces.inverse(),
    ];
    let groups = faces.division.groups;
    largest(gpu, recording, (on.state, LARGEST_AT), on.g)?;
    faces.dispatch(
        recording,
        (Cg::Start, "cg start"),
        &[START],
        &constants,
        &bindings,
        groups,
    )?;
    faces.ends(recording, false)
}

/// Records what follows the product `q = C p` in an iteration: one kernel for short vectors, two for long ones.
pub(crate) fn iteration(gpu: &Gpu, recording: &mut Recording, on: &Operands<'_>) -> Result<()> {
    let faces = Faces::new(gpu, on)?;
    if faces.division.groups == 1 {
        return faces.short(recording);
    }
    faces.long(recording, 1, false)?;
    faces.long(recording, 2, false)
}

/// Records what makes the state complete before it is read: the residual of the last iterate.
pub(crate) fn close(gpu: &Gpu, recording: &mut Recording, on: &Operands<'_>) -> Result<()> {
    let faces = Faces::new(gpu, on)?;
    faces.long(recording, 1, true)?;
    faces.ends(recording, true)
}

/// The vectors of a companion, which another quadratic moves along the directions of a solve.
#[derive(Clone, Copy, Debug)]
pub(crate) struct CompanionOperands<'a> {
    /// The product of its matrix with the direction.
    pub(crate) q: &'a Slice,
    pub(crate) x: &'a Slice,
    pub(crate) r: &'a Slice,
    /// Slope, curvature and step length of every iteration.
    pub(crate) log: &'a Slice,
    /// Variance of the slope, where steps shrink by it.
    pub(crate) variance: Option<&'a Slice>,
}

/// Records a companion's step, after both products and before [`iteration`]: one kernel for short vectors, two for long ones.
pub(crate) fn companion(
    gpu: &Gpu,
    recording: &mut Recording,
    on: &Operands<'_>,
    own: &CompanionOperands<'_>,
) -> Result<()> {
    let faces = Faces::new(gpu, on)?;
    let count = vec4s(&[on.p, own.q, own.x, own.r])?;
    let groups = faces.division.groups;
    let halves: &[u8] = if groups == 1 { &[0] } else { &[1, 2] };
    for &half in halves {
        let constants = [
            ("COUNT", count as f64),
            ("GROUPS", groups as f64),
            ("HALF", f64::from(half)),
            ("SHRINKS", f64::from(u8::from(own.variance.is_some()))),
        ];
        let variance = own.variance.unwrap_or(on.p);
        let bindings = [
            on.state,
            on.partials,
            on.p,
            own.q,
            own.x,
            own.r,
            own.log,
            variance,
        ];
        let parts = [PARTIALS, COMPANION];
        faces.dispatch(
            recording,
            (Cg::Companion, "cg companion"),
            &parts,
            &constants,
            &bindings,
            groups,
        )?;
    }
    Ok(())
}

/// Records `r = q + shift x + g` and `s = (r + g) / 2` for vectors `[r, q, x, g, s]`.
pub(crate) fn shifted_sum(
    gpu: &Gpu,
    recording: &mut Recording,
    state: &Slice,
    vectors: [&Slice; 5],
) -> Result<()> {
    let count = vec4s(&vectors)?;
    let text = [STATE, SHIFTED_SUM].concat();
    let pipeline = gpu.kernel(
        "cg shifted sum",
        &text,
        &[("COUNT", count as f64)],
        Cg::ShiftedSum.requirements(64),
    )?;
    let workgroups = grid(gpu.limits(), count.div_ceil(64))?;
    let [r, q, x, g, s] = vectors;
    recording.dispatch(gpu, &pipeline, &[state, r, q, x, g, s], workgroups)
}
