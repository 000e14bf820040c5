//! Face of the kernels in `shaders/cg/`: conjugate gradients whose scalars stay on the device.

use bytemuck::{Pod, Zeroable};

use super::vector::vec4s;
use crate::error::Result;
use crate::gpu::{Gpu, Recording, Slice};

const STATE: &str = include_str!("../../shaders/cg/state.wgsl");
const SUMS: &str = include_str!("../../shaders/cg/sums.wgsl");
const START: &str = include_str!("../../shaders/cg/start.wgsl");
const ITERATION: &str = include_str!("../../shaders/cg/iteration.wgsl");
const ENDS: &str = include_str!("../../shaders/cg/ends.wgsl");

/// Invocations of a workgroup, and the most workgroups of a solve.
const WORKGROUP: usize = 256;
/// Vectors of up to this many elements are left to one workgroup, and an iteration to one kernel.
const ONE_WORKGROUP: usize = 16 * 1024;
/// Least number of vec4s per invocation, where there are several workgroups.
const VEC4S: usize = 4;

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
    pub(crate) now: Scalars,
    pub(crate) next: Scalars,
}

/// Elements of the fixed part.
pub(crate) const STATE_ELEMENTS: usize = size_of::<State>() / 4;

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

/// Workgroups of a solve with vectors of `len` elements. Every workgroup of the step adds the partial sums of all, hence the upper bound.
fn workgroups(len: usize) -> usize {
    if len <= ONE_WORKGROUP {
        1
    } else {
        len.div_ceil(4 * VEC4S * WORKGROUP).clamp(2, WORKGROUP)
    }
}

/// Elements of the partial sums of a solve.
pub(crate) fn partial_elements(len: usize) -> usize {
    8 * workgroups(len)
}

/// The kernels of one solve.
struct Faces<'a> {
    gpu: &'a Gpu,
    on: &'a Operands<'a>,
    count: usize,
    groups: usize,
}

impl<'a> Faces<'a> {
    fn new(gpu: &'a Gpu, on: &'a Operands<'a>) -> Result<Self> {
        let count = vec4s(&[on.x, on.r, on.p, on.q, on.g, on.inverse.unwrap_or(on.g)])?;
        let groups = workgroups(4 * count);
        Ok(Self {
            gpu,
            on,
            count,
            groups,
        })
    }

    fn dispatch(
        &self,
        recording: &mut Recording,
        (label, text): (&str, &str),
        constants: &[(&str, f64)],
        bindings: &[&Slice],
        groups: usize,
    ) -> Result<()> {
        let text = format!("{STATE}{SUMS}{text}");
        let pipeline = self.gpu.pipeline(label, &text, constants)?;
        recording.dispatch(self.gpu, &pipeline, bindings, [groups as u32, 1, 1])
    }

    fn preconditioned(&self) -> (&'static str, f64) {
        (
            "PRECONDITIONED",
            f64::from(u8::from(self.on.inverse.is_some())),
        )
    }

    fn half(&self, recording: &mut Recording, half: u8, always: bool) -> Result<()> {
        let on = self.on;
        let constants = [
            ("COUNT", self.count as f64),
            ("GROUPS", self.groups as f64),
            ("HALF", f64::from(half)),
            ("ALWAYS", f64::from(u8::from(always))),
            self.preconditioned(),
        ];
        let inverse = on.inverse.unwrap_or(on.g);
        let bindings = [on.state, on.partials, on.x, on.r, on.p, on.q, inverse];
        self.dispatch(
            recording,
            ("cg iteration", ITERATION),
            &constants,
            &bindings,
            self.groups,
        )
    }

    fn ends(&self, recording: &mut Recording, close: bool) -> Result<()> {
        let constants = [
            ("GROUPS", self.groups as f64),
            ("CLOSE", f64::from(u8::from(close))),
        ];
        let bindings = [self.on.state, self.on.partials];
        self.dispatch(recording, ("cg ends", ENDS), &constants, &bindings, 1)
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
        on.inverse.unwrap_or(on.g),
    ];
    let groups = faces.groups;
    faces.dispatch(
        recording,
        ("cg start", START),
        &constants,
        &bindings,
        groups,
    )?;
    faces.ends(recording, false)
}

/// Records what follows the product `q = C p` in an iteration: one kernel for short vectors, two for long ones.
pub(crate) fn iteration(gpu: &Gpu, recording: &mut Recording, on: &Operands<'_>) -> Result<()> {
    let faces = Faces::new(gpu, on)?;
    if faces.groups == 1 {
        return faces.half(recording, 0, false);
    }
    faces.half(recording, 1, false)?;
    faces.half(recording, 2, false)
}

/// Records what makes the state complete before it is read: the residual of the last iterate.
pub(crate) fn close(gpu: &Gpu, recording: &mut Recording, on: &Operands<'_>) -> Result<()> {
    let faces = Faces::new(gpu, on)?;
    faces.half(recording, 1, true)?;
    faces.ends(recording, true)
}
