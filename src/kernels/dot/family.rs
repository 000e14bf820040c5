//! The kernels that a product can be computed with, and what a device must have for them.

use std::fmt;

use serde::{Deserialize, Serialize};

use super::Sizes;
use crate::gpu::Gpu;

/// What matters of a device for the choice of a kernel. The default has nothing, and can run what runs everywhere.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Capabilities {
    /// Lanes of a subgroup, where the device has subgroup operations and one size only.
    pub subgroup_size: Option<u32>,
    /// Whether loading four floats as two 64-bit integers is possible and worth while: on software adapters, where a load is a loop over
    /// lanes.
    pub wide_loads: bool,
    /// Whether its buffers can be copied to textures of four floats per texel.
    pub textures: bool,
    /// Whether it has workgroups of 256 invocations with 16 KiB of memory.
    pub large_workgroups: bool,
    /// Whether the device is a processor that plays the GPU.
    pub software: bool,
}

impl Capabilities {
    /// Those of a device.
    #[must_use]
    pub fn of(gpu: &Gpu) -> Self {
        let info = gpu.info();
        let fixed = info.subgroup_min_size == info.subgroup_max_size;
        let usable =
            (4..=128).contains(&info.subgroup_min_size) && info.subgroup_min_size.is_power_of_two();
        let limits = gpu.limits();
        let software = info.device_type == "cpu";
        Self {
            subgroup_size: (gpu.features().contains(wgpu::Features::SUBGROUP) && fixed && usable)
                .then_some(info.subgroup_min_size),
            wide_loads: software && gpu.features().contains(wgpu::Features::SHADER_INT64),
            // A binding may start anywhere that is aligned; a copy must start at a texel.
            textures: limits.max_texture_dimension_2d >= 8192
                && limits
                    .min_storage_buffer_offset_alignment
                    .is_multiple_of(16),
            large_workgroups: limits.max_compute_invocations_per_workgroup >= 256
                && limits.max_compute_workgroup_size_x >= 256
                && limits.max_compute_workgroup_storage_size >= 16384,
            software,
        }
    }
}

/// A kernel for products: a family and its variant.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(tag = "family", rename_all = "kebab-case", deny_unknown_fields)]
#[non_exhaustive]
pub enum Family {
    /// `shaders/dot/registers.wgsl`: every invocation on its own; runs everywhere.
    Registers {
        /// Blocks of four rows per invocation, 1 or 2.
        blocks: u32,
        /// Loads two floats as one 64-bit integer.
        wide: bool,
    },
    /// `shaders/dot/subgroup.wgsl`: a tile per subgroup, rows broadcast.
    Subgroup(SubgroupTile),
    /// `shaders/dot/shared.wgsl`: 64 x 64 tiles in workgroup memory.
    Shared,
    /// `shaders/dot/join.wgsl`: the terms in parts, each a product of its own, for few results with many terms. The other families do the
    /// same where the terms are too many for one invocation.
    Split {
        /// Number of parts; a few more or less, where that makes them equal.
        parts: u32,
        /// Whether the parts are computed in workgroup memory, else every invocation is on its own.
        shared: bool,
    },
}

/// The tile of a subgroup.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct SubgroupTile {
    /// Lanes; that of the device.
    pub subgroup_size: u32,
    /// Rows, a multiple of four.
    pub rows: u32,
    /// vec4 of columns per lane.
    pub vectors: u32,
    /// Exchanges the operands, so that the rows of the tile are columns of the result.
    pub exchanged: bool,
    /// How operands are loaded.
    pub loads: Loads,
}

/// How four neighbouring elements of an operand are loaded; those that are no neighbours, or start where a vec4 cannot, are always loaded
/// one by one.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
#[non_exhaustive]
pub enum Loads {
    /// As a vec4 from the buffer.
    Plain,
    /// As two 64-bit integers from the buffer.
    Wide,
    /// As a texel of a texture, to which the operand is copied before.
    Texture,
}

impl Loads {
    fn run_on(self, capabilities: &Capabilities) -> bool {
        match self {
            Loads::Plain => true,
            Loads::Wide => capabilities.wide_loads,
            Loads::Texture => capabilities.textures,
        }
    }
}

/// Most accumulators of a lane, in vec4: beyond this compilers take seconds over a kernel.
const MOST_ACCUMULATORS: u32 = 128;
/// The same where accumulators are registers of a GPU; a lane has at most 255.
const MOST_REGISTERS: u32 = 32;

impl Family {
    /// Every family and variant that a device can run.
    #[must_use]
    pub fn all(capabilities: &Capabilities) -> Vec<Family> {
        let mut all = Vec::new();
        let widths: &[bool] = if capabilities.wide_loads {
            &[false, true]
        } else {
            &[false]
        };
        for &wide in widths {
            for blocks in [1, 2] {
                all.push(Family::Registers { blocks, wide });
            }
        }
        if let Some(subgroup_size) = capabilities.subgroup_size {
            for loads in [Loads::Plain, Loads::Wide, Loads::Texture] {
                for (rows, vectors, exchanged) in [
                    (8, 1, false),
                    (16, 1, false),
                    (32, 1, false),
                    (64, 1, false),
                    (16, 2, false),
                    (32, 2, false),
                    (64, 2, false),
                    (16, 1, true),
                    (16, 2, true),
                    (32, 1, true),
                ] {
                    all.push(Family::Subgroup(SubgroupTile {
                        subgroup_size,
                        rows,
                        vectors,
                        exchanged,
                        loads,
                    }));
                }
            }
        }
        all.push(Family::Shared);
        for shared in [false, true] {
            all.extend([4, 16].map(|parts| Family::Split { parts, shared }));
        }
        all.retain(|family| family.runs_on(capabilities));
        all
    }

    /// Whether it can compute a product of these sizes: parts need terms.
    pub(crate) fn takes(&self, sizes: Sizes) -> bool {
        match *self {
            Family::Split { parts, .. } => sizes.k >= 4 * parts as usize,
            _ => true,
        }
    }

    /// The kernel that computes the parts of a product in this family.
    pub(super) fn of_parts(self) -> Self {
        match self {
            Family::Split { shared: true, .. } => Family::Shared,
            Family::Split { shared: false, .. } => Family::Registers {
                blocks: 1,
                wide: false,
            },
            other => other,
        }
    }

    /// Whether a device can run it. What nothing could run, such as a tile without rows, runs nowhere.
    #[must_use]
    pub fn runs_on(&self, capabilities: &Capabilities) -> bool {
        match *self {
            Family::Registers { blocks, wide } => {
                (1..=2).contains(&blocks) && (!wide || capabilities.wide_loads)
            }
            Family::Subgroup(tile) => {
                let most = if tile.subgroup_size < 16 {
                    MOST_ACCUMULATORS
                } else {
                    MOST_REGISTERS
                };
                capabilities.subgroup_size == Some(tile.subgroup_size)
                    && tile.rows > 0
                    && tile.rows.is_multiple_of(4)
                    && (1..=4).contains(&tile.vectors)
                    && tile.rows.saturating_mul(tile.vectors) <= most
                    && tile.loads.run_on(capabilities)
            }
            Family::Shared => capabilities.large_workgroups,
            Family::Split { parts, shared } => {
                (2..=64).contains(&parts) && (!shared || capabilities.large_workgroups)
            }
        }
    }
}

impl fmt::Display for Family {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let wide = |wide| if wide { " wide" } else { "" };
        match *self {
            Family::Registers { blocks, wide: w } => {
                write!(formatter, "registers {}x4{}", 4 * blocks, wide(w))
            }
            Family::Subgroup(tile) => write!(
                formatter,
                "subgroup {}x{}{}{}",
                tile.rows,
                4 * tile.subgroup_size * tile.vectors,
                if tile.exchanged { " exchanged" } else { "" },
                match tile.loads {
                    Loads::Plain => "",
                    Loads::Wide => " wide",
                    Loads::Texture => " texture",
                }
            ),
            Family::Shared => formatter.write_str("shared 64x64"),
            Family::Split { parts, shared } => {
                let of = if shared {
                    "shared 64x64"
                } else {
                    "registers 4x4"
                };
                write!(formatter, "split {parts} of {of}")
            }
        }
    }
}
