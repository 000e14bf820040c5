//! Which kernel computes a matrix product: a table from classes of sizes to kernels, made once per adapter and never at run time, so that
//! the same program on the same adapter has the same bits every time.

#[cfg(not(target_arch = "wasm32"))]
mod files;

use std::fmt;

use serde::{Deserialize, Serialize};

pub use super::dot::{Capabilities, Family, Loads, SubgroupTile};
use super::dot::{Sizes, View};
use crate::error::{Error, Result};
use crate::gpu::{AdapterDescription, Gpu};

/// Which axis of the operands of a product is contiguous.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Layout {
    /// Both along rows: `A[m, k] B[k, n]` as written.
    Nn,
    /// The right one along columns: `B` is the transpose of what is stored.
    Nt,
    /// The left one along columns.
    Tn,
    /// Both along columns.
    Tt,
}

impl Layout {
    /// From the contiguity of the operands; one that is contiguous along neither axis, or a vector, counts as along rows.
    fn of(lhs: &View, rhs: &View) -> Self {
        let along_columns = |view: &View| view.strides[1] == 1 && view.strides[2] != 1;
        match (along_columns(lhs), along_columns(rhs)) {
            (false, false) => Layout::Nn,
            (false, true) => Layout::Nt,
            (true, false) => Layout::Tn,
            (true, true) => Layout::Tt,
        }
    }
}

impl fmt::Display for Layout {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(match self {
            Layout::Nn => "nn",
            Layout::Nt => "nt",
            Layout::Tn => "tn",
            Layout::Tt => "tt",
        })
    }
}

/// Products that are treated alike: logarithms of the sizes of `[B, M, K] x [B, K, N]`, rounded up, and the layout.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Class {
    /// `ceil(log2 B)`
    pub batch: u32,
    /// `ceil(log2 M)`
    pub m: u32,
    /// `ceil(log2 N)`
    pub n: u32,
    /// `ceil(log2 K)`
    pub k: u32,
    /// Which axes are contiguous.
    pub layout: Layout,
}

impl Class {
    /// The class of a product `[batch, m, k] x [batch, k, n]`.
    #[must_use]
    pub fn new(batch: usize, m: usize, n: usize, k: usize, layout: Layout) -> Self {
        let bits = |size: usize| usize::BITS - size.saturating_sub(1).leading_zeros();
        Self {
            batch: bits(batch),
            m: bits(m),
            n: bits(n),
            k: bits(k),
            layout,
        }
    }

    /// How unlike two classes are: factors of two between their sizes, where a factor in the number of columns or rows, which decide how
    /// much of a tile is used, counts twice.
    fn distance(&self, other: &Class) -> u32 {
        2 * (self.m.abs_diff(other.m) + self.n.abs_diff(other.n))
            + self.k.abs_diff(other.k)
            + self.batch.abs_diff(other.batch)
    }
}

/// The kernel for a class.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct Entry {
    /// The products.
    pub class: Class,
    /// Their kernel.
    pub kernel: Family,
}

/// A table of kernels for products, or a rule for them.
///
/// [`Tuning::builtin`] knows kinds of adapters; a table made by `osculant tune` knows one. A class that a table does not hold gets the
/// kernel of the nearest one that it holds, and a kernel that the device cannot run is replaced by the built-in one, always in the same
/// way.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Tuning {
    rule: Rule,
}

#[derive(Clone, Debug, Default, PartialEq)]
enum Rule {
    #[default]
    Builtin,
    Forced(Family),
    Table(Table),
}

/// What is in a file.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Table {
    /// Version of this crate that measured.
    version: String,
    /// The adapter, as [`adapter_key`] writes it.
    adapter: String,
    entries: Vec<Entry>,
}

/// What must agree for measurements to hold: another driver is another compiler.
fn adapter_key(info: &AdapterDescription) -> String {
    format!(
        "{} | {} | {} {}",
        info.name, info.backend, info.driver, info.driver_info
    )
}

impl Tuning {
    /// The built-in rules for kinds of adapters.
    #[must_use]
    pub fn builtin() -> Self {
        Self::default()
    }

    /// This kernel for every product, wherever the device can run it: for tests and comparisons.
    #[must_use]
    pub fn forced(family: Family) -> Self {
        Self {
            rule: Rule::Forced(family),
        }
    }

    /// A table of what was measured on the adapter of `gpu`.
    #[must_use]
    pub fn table(gpu: &Gpu, entries: Vec<Entry>) -> Self {
        Self {
            rule: Rule::Table(Table {
                version: env!("CARGO_PKG_VERSION").into(),
                adapter: adapter_key(gpu.info()),
                entries,
            }),
        }
    }

    /// The entries of a table; none for rules.
    #[must_use]
    pub fn entries(&self) -> &[Entry] {
        match &self.rule {
            Rule::Table(table) => &table.entries,
            _ => &[],
        }
    }

    /// Fails where the table was measured on another adapter.
    pub(crate) fn check(&self, info: &AdapterDescription) -> Result<()> {
        match &self.rule {
            Rule::Table(table) if table.adapter != adapter_key(info) => Err(Error::Option {
                option: "tuning".into(),
                message: format!(
                    "the table was measured on '{}', and this is '{}'; make a new one with `osculant tune --out FILE`, or leave the \
                        option out",
                    table.adapter,
                    adapter_key(info)
                ),
            }),
            _ => Ok(()),
        }
    }

    /// The kernel for a product on a device with these capabilities.
    pub(crate) fn family(
        &self,
        capabilities: &Capabilities,
        sizes: Sizes,
        lhs: &View,
        rhs: &View,
    ) -> Family {
        let class = Class::new(sizes.batch, sizes.m, sizes.n, sizes.k, Layout::of(lhs, rhs));
        self.choose(capabilities, class)
            .filter(|family| family.takes(sizes))
            .unwrap_or_else(|| builtin(capabilities, sizes))
    }

    /// The kernel that a table or a forced choice has for a class; none where the built-in rules decide.
    #[must_use]
    pub fn choose(&self, capabilities: &Capabilities, class: Class) -> Option<Family> {
        let wanted = match &self.rule {
            Rule::Builtin => None,
            Rule::Forced(family) => Some(*family),
            Rule::Table(table) => table
                .entries
                .iter()
                .filter(|entry| entry.kernel.runs_on(capabilities))
                // The first of equally near entries.
                .min_by_key(|entry| {
                    let other = entry.class;
                    (class.layout != other.layout, class.distance(&other))
                })
                .map(|entry| entry.kernel),
        };
        wanted.filter(|family| family.runs_on(capabilities))
    }
}

/// The choice of kernels for the products of a program: the tuning and what the device can run. The default is the choice for a device that
/// can run only what runs everywhere.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Products {
    /// What the device can run.
    pub capabilities: Capabilities,
    /// What was measured, or the rules.
    pub tuning: Tuning,
}

impl Products {
    /// The choice for a device.
    #[must_use]
    pub fn of(gpu: &Gpu) -> Self {
        Self {
            capabilities: Capabilities::of(gpu),
            tuning: gpu.tuning().clone(),
        }
    }

    /// The kernel for a product.
    pub(crate) fn family(&self, sizes: Sizes, lhs: &View, rhs: &View) -> Family {
        self.tuning.family(&self.capabilities, sizes, lhs, rhs)
    }
}

/// The kernel without a table.
fn builtin(capabilities: &Capabilities, sizes: Sizes) -> Family {
    let Sizes { batch, m, n, .. } = sizes;
    let blocks = if batch * m.div_ceil(8) * n.div_ceil(4) >= 1024 {
        2
    } else {
        1
    };
    let registers = Family::Registers {
        blocks,
        wide: capabilities.wide_loads,
    };
    let choice = match capabilities.subgroup_size {
        // A vector times a matrix fills no tile.
        Some(subgroup_size) if capabilities.software && m >= 4 && n >= 4 => {
            software(capabilities, subgroup_size, sizes)
        }
        _ if !capabilities.software => {
            // Below half a tile most of the work would be thrown away.
            let shared = m >= 32 && n >= 32;
            match split(sizes, shared) {
                Some(split) => split,
                None if shared => Family::Shared,
                None => registers,
            }
        }
        _ => registers,
    };
    if choice.runs_on(capabilities) {
        choice
    } else {
        registers
    }
}

/// Workgroups that keep a GPU busy, and terms of a part that are worth a kernel of their own. Chosen by thought, not measured.
const BUSY: usize = 64;
const PART_TERMS: usize = 128;

/// A GPU with few results and many terms: as many parts as keep it busy.
fn split(sizes: Sizes, shared: bool) -> Option<Family> {
    let Sizes { batch, m, n, k } = sizes;
    let workgroups = if shared {
        m.div_ceil(64) * n.div_ceil(64)
    } else {
        (m.div_ceil(4) * n.div_ceil(4)).div_ceil(64)
    };
    [32u32, 16, 8, 4]
        .map(|parts| Family::Split { parts, shared })
        .into_iter()
        .zip([32, 16, 8, 4])
        .find(|&(_, parts)| {
            batch == 1
                && k.is_multiple_of(4 * parts)
                && workgroups * parts <= BUSY
                && k >= parts * PART_TERMS
        })
        .map(|(family, _)| family)
}

/// Software with subgroups: loads are what costs (see `shaders/dot/subgroup.wgsl`), so operands are read from textures where the product is
/// worth the copy, and the tile is as large as the product fills and as the time to compile it is worth. On lavapipe (8 lanes) a 32 x 32
/// tile takes half a second to compile, 32 x 64 one, 64 x 64 two and a half.
fn software(capabilities: &Capabilities, subgroup_size: u32, sizes: Sizes) -> Family {
    let Sizes { batch, m, n, k } = sizes;
    let terms = (batch * m * n) as f64 * k as f64;
    let textures = capabilities.textures && terms >= WORTH_A_COPY;
    let tile = |rows, vectors, exchanged| {
        Family::Subgroup(SubgroupTile {
            subgroup_size,
            rows,
            vectors,
            exchanged,
            loads: if textures {
                Loads::Texture
            } else if capabilities.wide_loads {
                Loads::Wide
            } else {
                Loads::Plain
            },
        })
    };
    let fills_two = n >= 6 * subgroup_size as usize;
    let large = terms >= WORTH_COMPILING;
    // Few columns leave lanes idle unless they become the rows.
    if n <= 16 && m > n {
        let two = m >= 8 * subgroup_size as usize;
        tile(16, if two { 2 } else { 1 }, true)
    } else if !textures && large && fills_two && m >= 48 {
        tile(64, 2, false)
    } else if large && fills_two && m > 16 {
        tile(32, 2, false)
    } else {
        tile(if m > 16 { 32 } else { 16 }, 1, false)
    }
}

/// Terms of a product from which on copying its operands to textures saves more than it costs: 64 x 64 x 64.
const WORTH_A_COPY: f64 = 262_144.0;
/// Terms of a product that runs long enough, thousands of times in a training, to be worth a longer compilation: 256 x 128 x 512.
const WORTH_COMPILING: f64 = 16_777_216.0;
