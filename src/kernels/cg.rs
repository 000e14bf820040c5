//! Face of the kernels in `shaders/cg/`: conjugate gradients whose scalars stay on the device.

use bytemuck::{Pod, Zeroable};

use super::vector::{reduction_groups, vec4s};
use crate::error::Result;
use crate::gpu::{Gpu, Recording, Slice, grid};

const STATE: &str = include_str!("../../shaders/cg/state.wgsl");
const START: &str = include_str!("../../shaders/cg/start.wgsl");
const CURVATURE: &str = include_str!("../../shaders/cg/curvature.wgsl");
const UPDATE: &str = include_str!("../../shaders/cg/update.wgsl");
const DIRECTION: &str = include_str!("../../shaders/cg/direction.wgsl");
const DECIDE: &str = include_str!("../../shaders/cg/decide.wgsl");

/// The fixed part of `State` in `shaders/cg/state.wgsl`; the model values follow.
#[derive(Clone, Copy, Debug, Default, Pod, Zeroable)]
#[repr(C)]
pub(crate) struct State {
    pub(crate) stop: u32,
    pub(crate) iterations: u32,
    pub(crate) pending: u32,
    pub(crate) max_iterations: u32,
    pub(crate) shift: f32,
    pub(crate) residual_tolerance: f32,
    pub(crate) progress_tolerance: f32,
    pub(crate) radius: f32,
    pub(crate) alpha: f32,
    pub(crate) beta: f32,
    pub(crate) rz: f32,
    pub(crate) rr: f32,
    pub(crate) gg: f32,
    pub(crate) curvature: f32,
    pub(crate) xx: f32,
    pub(crate) xp: f32,
    pub(crate) pp: f32,
    pub(crate) min_window: u32,
    pub(crate) padding: [u32; 2],
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

/// The number of workgroups of the reductions in a solve.
pub(crate) fn partial_elements(len: usize) -> usize {
    4 * reduction_groups(len / 4)
}

struct Faces<'a> {
    gpu: &'a Gpu,
    on: &'a Operands<'a>,
    count: usize,
}

impl Faces<'_> {
    fn dispatch(
        &self,
        recording: &mut Recording,
        label: &str,
        text: &str,
        constants: &[(&str, f64)],
        bindings: &[&Slice],
        workgroups: [u32; 3],
    ) -> Result<()> {
        let pipeline = self
            .gpu
            .pipeline(label, &format!("{STATE}{text}"), constants)?;
        recording.dispatch(self.gpu, &pipeline, bindings, workgroups)
    }

    fn groups(&self) -> [u32; 3] {
        [reduction_groups(self.count) as u32, 1, 1]
    }

    fn decide(&self, recording: &mut Recording, stage: u32) -> Result<()> {
        let constants = [
            ("GROUPS", f64::from(self.groups()[0])),
            ("STAGE", f64::from(stage)),
        ];
        self.dispatch(
            recording,
            "cg decide",
            DECIDE,
            &constants,
            &[self.on.state, self.on.partials],
            [1, 1, 1],
        )
    }
}

fn faces<'a>(gpu: &'a Gpu, on: &'a Operands<'a>) -> Result<Faces<'a>> {
    Ok(Faces {
        gpu,
        on,
        count: vec4s(&[on.x, on.r, on.p, on.q, on.g, on.inverse.unwrap_or(on.g)])?,
    })
}

/// Records the start of a solve; with `warm`, x holds the first iterate and q its product.
pub(crate) fn start(
    gpu: &Gpu,
    recording: &mut Recording,
    on: &Operands<'_>,
    warm: bool,
) -> Result<()> {
    let faces = faces(gpu, on)?;
    let constants = [
        ("COUNT", faces.count as f64),
        ("WARM", f64::from(u8::from(warm))),
        ("PRECONDITIONED", f64::from(u8::from(on.inverse.is_some()))),
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
    faces.dispatch(
        recording,
        "cg start",
        START,
        &constants,
        &bindings,
        faces.groups(),
    )?;
    faces.decide(recording, 0)
}

/// Records what follows the product `q = C p` in an iteration.
pub(crate) fn iteration(gpu: &Gpu, recording: &mut Recording, on: &Operands<'_>) -> Result<()> {
    let faces = faces(gpu, on)?;
    let inverse = on.inverse.unwrap_or(on.g);
    let count = ("COUNT", faces.count as f64);
    let constants = [
        count,
        ("PRECONDITIONED", f64::from(u8::from(on.inverse.is_some()))),
    ];
    let bindings = [on.state, on.partials, on.p, on.q];
    faces.dispatch(
        recording,
        "cg curvature",
        CURVATURE,
        &[count],
        &bindings,
        faces.groups(),
    )?;
    faces.decide(recording, 1)?;
    let bindings = [on.state, on.partials, on.x, on.r, on.p, on.q, on.g, inverse];
    faces.dispatch(
        recording,
        "cg update",
        UPDATE,
        &constants,
        &bindings,
        faces.groups(),
    )?;
    faces.decide(recording, 2)?;
    let workgroups = grid(gpu.limits(), faces.count.div_ceil(64))?;
    faces.dispatch(
        recording,
        "cg direction",
        DIRECTION,
        &constants,
        &[on.state, on.p, on.r, inverse],
        workgroups,
    )
}
