//! Face of the kernels in `shaders/cg/`: conjugate gradients whose scalars stay on the device.

use bytemuck::{Pod, Zeroable};

use super::dot::Capabilities;
use super::requirements::Cg;
use super::template::{fill, repeat};
use super::vector::{MOST_GROUPS, in_segments, own_partials, reduction_groups, vec4s};
use super::{finite::FINITE, four::four};
use crate::error::Result;
use crate::gpu::{Gpu, Recording, Slice, grid};

const FLOATS: &str = include_str!("../../shaders/cg/floats.wgsl");
const FLOATS_WIDE: &str = include_str!("../../shaders/cg/floats_wide.wgsl");
pub(super) const STATE: &str = include_str!("../../shaders/cg/state.wgsl");
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
    /// Floats that an invocation loads at once.
    floats: usize,
    /// Invocations of a workgroup.
    lanes: usize,
    /// Workgroups of each segment; one means that an iteration is one kernel.
    groups: usize,
    segments: usize,
}

/// Vectors of up to this many elements are left to one workgroup: four vec4s of three vectors per invocation of a GPU. Eight spill on
/// Intel's.
const ONE_WORKGROUP: usize = 4096;
/// Elements of the partial sums of a workgroup.
const PARTIAL: usize = 8;

/// Invocations of a GPU's workgroups, the most that WebGPU lets every device have, and vec4s that each of them should have at least.
const LANES: (usize, usize) = (256, 4);

/// In software an `if` costs every vector of invocations what it holds, taken or not, and sums and decisions are many of them. So a
/// workgroup is one vector of eight invocations, of which each is busy.
const SOFTWARE_LANES: usize = 8;
/// Elements that a software workgroup should have at least, for what it takes to add and to decide.
const SOFTWARE_SHARE: usize = 4096;
/// Most workgroups in software, each of which adds the partial sums of all: a few for each core of a large processor.
const SOFTWARE_GROUPS: usize = 64;
/// In software, most elements of each vector that an invocation keeps in registers where one workgroup has the whole vector: the kernel is
/// as long as they are many, so that workgroups are larger for it.
const SOFTWARE_REGISTERS: usize = 96;
/// Most invocations of a software workgroup: what a short vector takes.
const MOST_SOFTWARE_LANES: usize = 64;

impl Division {
    /// No more than [`MOST_GROUPS`] workgroups for a segment: every workgroup adds the partial sums of all. In software, powers of two, so
    /// that cores have equal shares.
    fn new(gpu: &Gpu, vector: &Slice) -> Self {
        let Capabilities {
            software,
            wide_loads,
            ..
        } = Capabilities::of(gpu);
        let (len, segments) = (vector.len(), vector.segments());
        let short = segments == 1 && len <= ONE_WORKGROUP;
        let lanes = match (software, short) {
            (false, _) => LANES.0,
            (true, false) => SOFTWARE_LANES,
            (true, true) => len
                .div_ceil(SOFTWARE_REGISTERS)
                .next_power_of_two()
                .clamp(SOFTWARE_LANES, MOST_SOFTWARE_LANES),
        };
        let groups = if segments > 1 {
            MOST_GROUPS
        } else if short {
            1
        } else if software {
            (len / SOFTWARE_SHARE)
                .next_power_of_two()
                .clamp(2, SOFTWARE_GROUPS)
        } else {
            len.div_ceil(4 * LANES.0 * LANES.1).clamp(2, MOST_GROUPS)
        };
        Self {
            // All segments start at multiples of 64 elements.
            floats: if wide_loads && len.is_multiple_of(8) {
                8
            } else {
                4
            },
            lanes,
            groups,
            segments,
        }
    }

    /// Most invocations of a workgroup on a device.
    fn most_lanes(gpu: &Gpu) -> usize {
        if Capabilities::of(gpu).software {
            MOST_SOFTWARE_LANES
        } else {
            LANES.0
        }
    }

    /// Invocations that add the sums of all in a workgroup, before one adds theirs: about the root of their number.
    fn few(&self) -> usize {
        if self.lanes > 64 { 16 } else { 8 }
    }

    /// Workgroups of all segments.
    fn all_groups(&self) -> usize {
        self.groups * self.segments
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

/// Places of what a recorded solve is told on the device.
pub(crate) const SHIFT_AT: usize = std::mem::offset_of!(State, shift) / 4;
pub(crate) const RADIUS_AT: usize = std::mem::offset_of!(State, radius) / 4;

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
    let text = [four(&Capabilities::of(gpu)), LARGEST].concat();
    let groups = reduction_groups(x);
    for (count, [x]) in in_segments([x])? {
        let pipeline = gpu.kernel(
            "largest element",
            &text,
            &[("COUNT", count as f64), ("AT", at as f64)],
            Cg::Largest.requirements(64),
        )?;
        recording.dispatch(gpu, &pipeline, &[words, &x], [groups as u32, 1, 1])?;
    }
    Ok(())
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

/// Elements of the partial sums of a solve with vectors like this one.
pub(crate) fn partial_elements(gpu: &Gpu, vector: &Slice) -> usize {
    PARTIAL * Division::new(gpu, vector).all_groups()
}

/// What a kernel has at a binding.
#[derive(Clone, Copy)]
enum Bound<'a> {
    /// A slice as it is: scalars, or the partial sums of all segments.
    Whole(&'a Slice),
    /// The segment of a vector.
    Segment(&'a Slice),
    /// Where the partial sums of the segment belong.
    Partials(&'a Slice),
}

/// Fails unless the device can run conjugate gradients, with a companion or without; asks before anything is made.
///
/// # Errors
/// [`Error::OverLimit`](crate::Error::OverLimit).
pub(crate) fn check(gpu: &Gpu) -> Result<()> {
    let lanes = Division::most_lanes(gpu) as u32;
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
    division: Division,
}

impl<'a> Faces<'a> {
    fn new(gpu: &'a Gpu, on: &'a Operands<'a>) -> Result<Self> {
        vec4s(&[on.x, on.r, on.p, on.q, on.g, on.inverse.unwrap_or(on.g)])?;
        Ok(Self {
            gpu,
            on,
            division: Division::new(gpu, on.x),
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
        let (lanes, few) = (self.division.lanes, self.division.few());
        let lanes = format!("const LANES: u32 = {lanes}u;\nconst FEW: u32 = {few}u;");
        let sums = fill(SUMS, &[("lanes", &lanes)])?;
        let wide = self.division.floats == 8;
        let floats = if wide { FLOATS_WIDE } else { FLOATS };
        let text = [floats, FINITE, STATE, &sums].concat() + &parts.concat();
        let requirements = kernel.requirements(self.division.lanes as u32);
        let pipeline = self.gpu.kernel(label, &text, constants, requirements)?;
        recording.dispatch(self.gpu, &pipeline, bindings, [groups as u32, 1, 1])
    }

    /// Records a kernel over vectors, once for each segment; its COUNT is that of the segment.
    fn over_segments(
        &self,
        recording: &mut Recording,
        kernel: (Cg, &str),
        parts: &[&str],
        constants: &[(&str, f64)],
        bindings: &[Bound<'_>],
    ) -> Result<()> {
        let Division {
            groups, segments, ..
        } = self.division;
        for number in 0..segments {
            let slices = bindings.iter().map(|bound| match *bound {
                Bound::Whole(slice) => Ok(slice.clone()),
                Bound::Segment(vector) => Ok(vector.segment(number)),
                Bound::Partials(all) => own_partials(all, (number, segments), PARTIAL * groups),
            });
            let slices: Vec<Slice> = slices.collect::<Result<_>>()?;
            let slices: Vec<&Slice> = slices.iter().collect();
            let count = self.on.x.segment(number).len() / self.division.floats;
            let constants = [&[("COUNT", count as f64)], constants].concat();
            self.dispatch(recording, kernel, parts, &constants, &slices, groups)?;
        }
        Ok(())
    }

    /// The partial sums for a kernel that writes its own, or that adds all.
    fn partials(&self, adds: bool) -> Bound<'a> {
        if adds {
            Bound::Whole(self.on.partials)
        } else {
            Bound::Partials(self.on.partials)
        }
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
        let count = on.x.len() / self.division.floats;
        let per = count.div_ceil(self.division.lanes);
        let text = repeat(SHORT, &["sums", "step", "turn"], per)?;
        let constants = [("COUNT", count as f64), self.preconditioned()];
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
            ("GROUPS", self.division.all_groups() as f64),
            ("HALF", f64::from(half)),
            ("ALWAYS", f64::from(u8::from(always))),
            self.preconditioned(),
        ];
        let bindings = [
            Bound::Whole(on.state),
            self.partials(half == 2),
            Bound::Segment(on.x),
            Bound::Segment(on.r),
            Bound::Segment(on.p),
            Bound::Segment(on.q),
            Bound::Segment(self.inverse()),
        ];
        self.over_segments(
            recording,
            (Cg::Long, "cg long"),
            &[PARTIALS, DECISION, LONG],
            &constants,
            &bindings,
        )
    }

    fn ends(&self, recording: &mut Recording, close: bool) -> Result<()> {
        let constants = [
            ("GROUPS", self.division.all_groups() as f64),
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
    let constants = [("WARM", f64::from(u8::from(warm))), faces.preconditioned()];
    let bindings = [
        Bound::Whole(on.state),
        faces.partials(false),
        Bound::Segment(on.x),
        Bound::Segment(on.r),
        Bound::Segment(on.p),
        Bound::Segment(on.q),
        Bound::Segment(on.g),
        Bound::Segment(faces.inverse()),
    ];
    largest(gpu, recording, (on.state, LARGEST_AT), on.g)?;
    let kernel = (Cg::Start, "cg start");
    faces.over_segments(recording, kernel, &[START], &constants, &bindings)?;
    faces.ends(recording, false)
}

/// Records what follows the product `q = C p` in an iteration: one kernel for short vectors, two for long ones, each for every segment.
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

/// Records a companion's step, after both products and before [`iteration`]: one kernel for short vectors, two for long ones, each for
/// every segment.
pub(crate) fn companion(
    gpu: &Gpu,
    recording: &mut Recording,
    on: &Operands<'_>,
    own: &CompanionOperands<'_>,
) -> Result<()> {
    let faces = Faces::new(gpu, on)?;
    vec4s(&[on.p, own.q, own.x, own.r])?;
    let groups = faces.division.all_groups();
    let halves: &[u8] = if groups == 1 { &[0] } else { &[1, 2] };
    // What is bound where no variance is read.
    let variance = own.variance.map_or(Bound::Segment(on.p), Bound::Whole);
    for &half in halves {
        let constants = [
            ("GROUPS", groups as f64),
            ("HALF", f64::from(half)),
            ("SHRINKS", f64::from(u8::from(own.variance.is_some()))),
        ];
        let bindings = [
            Bound::Whole(on.state),
            faces.partials(half == 2),
            Bound::Segment(on.p),
            Bound::Segment(own.q),
            Bound::Segment(own.x),
            Bound::Segment(own.r),
            Bound::Whole(own.log),
            variance,
        ];
        let kernel = (Cg::Companion, "cg companion");
        let parts = [PARTIALS, COMPANION];
        faces.over_segments(recording, kernel, &parts, &constants, &bindings)?;
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
    let text = [FINITE, STATE, SHIFTED_SUM].concat();
    for (count, [r, q, x, g, s]) in in_segments(vectors)? {
        let pipeline = gpu.kernel(
            "cg shifted sum",
            &text,
            &[("COUNT", count as f64)],
            Cg::ShiftedSum.requirements(64),
        )?;
        let workgroups = grid(gpu.limits(), count.div_ceil(64))?;
        recording.dispatch(gpu, &pipeline, &[state, &r, &q, &x, &g, &s], workgroups)?;
    }
    Ok(())
}
