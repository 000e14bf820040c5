//! What the kernels in files ask of a device: storage buffers, invocations of a workgroup, bytes of workgroup memory. Generated kernels
//! compute theirs (`Kernel::requirements`).
//!
//! No kernel needs more than eight storage buffers, 256 invocations and 16,352 bytes, which every WebGPU device grants. Those that neither
//! conjugate gradients are made of, nor what decides on their recorded steps, need four at most, which is what
//! [`wgpu::Limits::downlevel_defaults`] grants.

use crate::gpu::Requirements;

pub(crate) const COMBINE: Requirements = Requirements::new(4, 64, 0);
pub(crate) const INNER_PRODUCTS: Requirements = Requirements::new(3, 64, 64 * 16);
pub(crate) const SUM_PARTIALS: Requirements = Requirements::new(2, 64, 64 * 16);
pub(crate) const NORMALIZE: Requirements = Requirements::new(3, 64, 0);
pub(crate) const PRECONDITIONER: Requirements = Requirements::new(3, 64, 0);
/// And a uniform buffer, which is not scarce.
pub(crate) const FIRST_ORDER: Requirements = Requirements::new(4, 64, 0);
pub(crate) const ADD_SUMS: Requirements = Requirements::new(2, 64, 64 * 4);
pub(crate) const WEIGH: Requirements = Requirements::new(4, 64, 0);
pub(crate) const SKETCH: Requirements = Requirements::new(2, 64, 0);
pub(crate) const DRAW_ROWS: Requirements = Requirements::new(3, 64, 0);
/// And a uniform buffer.
pub(crate) const GATHER_ROWS: Requirements = Requirements::new(3, 64, 0);
pub(crate) const DISPLACEMENT: Requirements = Requirements::new(2, 1, 0);
pub(crate) const DECIDE: Requirements = Requirements::new(6, 1, 0);
pub(crate) const TAKE: Requirements = Requirements::new(3, 64, 0);
pub(crate) const ACCEPT: Requirements = Requirements::new(4, 1, 0);
pub(crate) const WEIGHTS: Requirements = Requirements::new(3, 64, 0);
pub(crate) const CORRECTIONS: Requirements = Requirements::new(3, 1, 0);
pub(crate) const HALF: Requirements = Requirements::new(2, 64, 0);

/// The kernels of conjugate gradients.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Cg {
    Largest,
    Start,
    Short,
    Long,
    Companion,
    Ends,
    ShiftedSum,
}

impl Cg {
    /// In workgroups of so many invocations; the largest element and a shifted sum have always 64.
    pub(crate) const fn requirements(self, lanes: u32) -> Requirements {
        // Six sums of every invocation, and of sixteen more; and the scalars that one invocation hands on.
        let sums = 24 * (lanes + 16);
        match self {
            Self::Largest => Requirements::new(2, 64, 4),
            Self::Start => Requirements::new(8, lanes, sums + 12),
            Self::Short => Requirements::new(6, lanes, sums + 24),
            Self::Long => Requirements::new(7, lanes, sums + 28),
            Self::Companion => Requirements::new(8, lanes, sums + 12),
            Self::Ends => Requirements::new(2, lanes, sums),
            Self::ShiftedSum => Requirements::new(6, 64, 0),
        }
    }
}

/// The kernels in files, by the file's place in `shaders/`, with what their faces state; those of conjugate gradients in workgroups of 256
/// invocations.
#[must_use]
pub fn stated() -> Vec<(&'static str, Requirements)> {
    let cg = |kernel: Cg| kernel.requirements(256);
    vec![
        ("combine", COMBINE),
        ("inner_products", INNER_PRODUCTS),
        ("sum_partials", SUM_PARTIALS),
        ("normalize", NORMALIZE),
        ("preconditioner", PRECONDITIONER),
        ("first_order", FIRST_ORDER),
        ("add_sums", ADD_SUMS),
        ("weigh", WEIGH),
        ("sketch", SKETCH),
        ("draw_rows", DRAW_ROWS),
        ("gather_rows", GATHER_ROWS),
        ("pack_half", HALF),
        ("unpack_half", HALF),
        ("displacement", DISPLACEMENT),
        ("step/decide", DECIDE),
        ("step/take", TAKE),
        ("step/accept", ACCEPT),
        ("step/weights", WEIGHTS),
        ("step/corrections", CORRECTIONS),
        ("cg/largest", cg(Cg::Largest)),
        ("cg/start", cg(Cg::Start)),
        ("cg/short", cg(Cg::Short)),
        ("cg/long", cg(Cg::Long)),
        ("cg/companion", cg(Cg::Companion)),
        ("cg/ends", cg(Cg::Ends)),
        ("cg/shifted_sum", cg(Cg::ShiftedSum)),
    ]
}
