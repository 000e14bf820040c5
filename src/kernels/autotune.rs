//! Measuring which kernel is fastest for which products on an adapter, for a [`Tuning`].

use std::time::Instant;

use super::dot::{Sizes, View, kernel};
use super::store::Store;
use super::tuning::{Capabilities, Class, Entry, Family, Layout, Products, Tuning};
use crate::error::Result;
use crate::gpu::{Gpu, Recording, Slice};

/// A product to measure: `[batch, m, k] x [batch, k, n]`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Product {
    /// Number of products.
    pub batch: usize,
    /// Rows.
    pub m: usize,
    /// Columns.
    pub n: usize,
    /// Terms.
    pub k: usize,
    /// Which axes of the operands are contiguous.
    pub layout: Layout,
}

impl Product {
    /// Multiplications and additions.
    #[must_use]
    pub fn flops(&self) -> f64 {
        2.0 * self.batch as f64 * self.m as f64 * self.n as f64 * self.k as f64
    }

    fn sizes(&self) -> Sizes {
        Sizes {
            batch: self.batch,
            m: self.m,
            n: self.n,
            k: self.k,
        }
    }

    /// How the operands are stored.
    fn views(&self) -> [View; 2] {
        let Product {
            m, n, k, layout, ..
        } = *self;
        let view = |rows: usize, columns: usize, along_columns: bool| {
            let strides = if along_columns {
                [rows * columns, 1, rows]
            } else {
                [rows * columns, columns, 1]
            };
            View::new(0, strides)
        };
        [
            view(m, k, matches!(layout, Layout::Tn | Layout::Tt)),
            view(k, n, matches!(layout, Layout::Nt | Layout::Tt)),
        ]
    }

    /// The kernel that programs on this device take for the product.
    #[must_use]
    pub fn chosen(&self, gpu: &Gpu) -> Family {
        let [lhs, rhs] = self.views();
        Products::of(gpu).family(self.sizes(), &lhs, &rhs)
    }
}

/// Layers `inputs -> outputs` with batch sizes that stand for their neighbours; each gives a product of its forward pass and two of its
/// backward pass.
const LAYERS: [[usize; 3]; 7] = [
    [64, 64, 32],
    [64, 32, 10],
    [256, 784, 128],
    [256, 128, 10],
    [1024, 784, 32],
    [1024, 32, 784],
    [512, 512, 512],
];

/// The products that [`tune`] measures; `quick` leaves out half of the layers.
#[must_use]
pub fn representative_products(quick: bool) -> Vec<Product> {
    let mut all = Vec::new();
    for (index, [rows, inputs, outputs]) in LAYERS.into_iter().enumerate() {
        if quick && index % 2 == 1 {
            continue;
        }
        for (m, n, k, layout) in [
            (rows, outputs, inputs, Layout::Nn),
            (rows, inputs, outputs, Layout::Nt),
            (inputs, outputs, rows, Layout::Tn),
        ] {
            all.push(Product {
                batch: 1,
                m,
                n,
                k,
                layout,
            });
        }
    }
    // Many directions at once.
    all.push(Product {
        batch: 32,
        m: 64,
        n: 32,
        k: 64,
        layout: Layout::Nn,
    });
    all
}

/// The kernels worth measuring for a product: those whose tile is at most half empty, and always the one that runs everywhere.
#[must_use]
pub fn candidates(capabilities: &Capabilities, product: &Product) -> Vec<Family> {
    Family::all(capabilities)
        .into_iter()
        .filter(|family| {
            let fits = |tile: usize, size: usize| {
                size.div_ceil(tile) * tile <= 2 * size.next_multiple_of(4)
            };
            match *family {
                Family::Registers { .. } => true,
                Family::Subgroup(tile) => {
                    let (rows, columns) = if tile.exchanged {
                        (product.n, product.m)
                    } else {
                        (product.m, product.n)
                    };
                    let width = 4 * tile.subgroup_size as usize * tile.vectors as usize;
                    // Surplus rows of the tile are not unrolled.
                    fits((tile.rows as usize).min(rows.next_multiple_of(4)), rows)
                        && (tile.rows as usize) < 2 * rows.next_multiple_of(8)
                        && fits(width, columns)
                }
                Family::Shared => fits(64, product.m) && fits(64, product.n),
                Family::Split { parts, .. } => {
                    family.takes(product.sizes())
                        && product.k >= 64 * parts as usize
                        && product.m * product.n <= FEW_RESULTS
                }
            }
        })
        .collect()
}

/// Results up to which a product is measured in parts.
const FEW_RESULTS: usize = 128 * 128;

/// Buffers for a product, which its kernels share.
#[derive(Debug)]
pub struct Bench {
    product: Product,
    result: Slice,
    operands: [Slice; 2],
}

/// Runs of the product that are submitted together, so that what a submission costs is a small part.
const TOGETHER_FLOPS: f64 = 5e7;

impl Bench {
    /// Buffers with numbers of order one.
    ///
    /// # Errors
    /// Limits of the device, or its memory.
    pub fn new(gpu: &Gpu, product: Product) -> Result<Self> {
        let operand = |label, count: usize| -> Result<Slice> {
            let values: Vec<f32> = (0..count)
                .map(|i| ((i * 7919) % 1000) as f32 / 1000.0)
                .collect();
            let slice = gpu.buffer(label, count)?;
            gpu.upload(&slice, 0, &values)?;
            Ok(slice)
        };
        let Product { batch, m, n, k, .. } = product;
        Ok(Self {
            product,
            result: gpu.buffer("product", batch * m * n)?,
            operands: [
                operand("left operand", batch * m * k)?,
                operand("right operand", batch * k * n)?,
            ],
        })
    }

    /// The commands for one submission with this kernel, and how often it computes the product.
    ///
    /// # Errors
    /// Refused shaders and limits of the device.
    pub fn record(&self, gpu: &Gpu, family: Family) -> Result<(Recording, usize)> {
        let [lhs, rhs] = self.product.views();
        let sizes = self.product.sizes();
        let kernel = kernel(sizes, &lhs, &rhs, family, &Store::new(sizes, None, None)?)?;
        let together = (TOGETHER_FLOPS / self.product.flops()).clamp(1.0, 64.0) as usize;
        let scratch = match kernel.scratch_elements() {
            0 => None,
            elements => Some(gpu.buffer("parts of a product", elements)?),
        };
        let mut recording = Recording::new();
        for _ in 0..together {
            kernel.record(
                gpu,
                &mut recording,
                &[&self.result, &self.operands[0], &self.operands[1]],
                scratch.as_ref(),
            )?;
        }
        Ok((recording, together))
    }
}

/// Seconds of the fastest of `runs` submissions, per product, for each kernel; kernels take turns, so that other work on the machine meets
/// all alike.
///
/// # Errors
/// Refused shaders, limits of the device, device loss.
pub fn measure(gpu: &Gpu, product: Product, families: &[Family], runs: usize) -> Result<Vec<f64>> {
    let bench = Bench::new(gpu, product)?;
    let recordings = families
        .iter()
        .map(|&family| bench.record(gpu, family))
        .collect::<Result<Vec<_>>>()?;
    let mut best = vec![f64::INFINITY; families.len()];
    // The first round also compiles.
    for round in 0..=runs {
        for ((recording, together), best) in recordings.iter().zip(&mut best) {
            let start = Instant::now();
            gpu.submit(|recorder| recorder.replay(recording))?;
            gpu.wait()?;
            if round > 0 {
                *best = best.min(start.elapsed().as_secs_f64() / *together as f64);
            }
        }
    }
    Ok(best)
}

/// What was measured for one product.
#[derive(Clone, Debug)]
pub struct Measured {
    /// The product.
    pub product: Product,
    /// Seconds for each kernel, fastest first.
    pub seconds: Vec<(Family, f64)>,
}

/// Measures the representative products and makes a table of the fastest kernels; `done` hears of each product.
///
/// # Errors
/// As [`measure`].
pub fn tune(
    gpu: &Gpu,
    quick: bool,
    mut done: impl FnMut(&Measured),
) -> Result<(Tuning, Vec<Measured>)> {
    let capabilities = Capabilities::of(gpu);
    let (mut entries, mut all) = (Vec::new(), Vec::new());
    for product in representative_products(quick) {
        let families = candidates(&capabilities, &product);
        let seconds = measure(gpu, product, &families, if quick { 3 } else { 7 })?;
        let mut seconds: Vec<(Family, f64)> = families.into_iter().zip(seconds).collect();
        seconds.sort_by(|a, b| a.1.total_cmp(&b.1));
        if let Some(&(kernel, _)) = seconds.first() {
            let Product {
                batch,
                m,
                n,
                k,
                layout,
            } = product;
            entries.push(Entry {
                class: Class::new(batch, m, n, k, layout),
                kernel,
            });
        }
        let measured = Measured { product, seconds };
        done(&measured);
        all.push(measured);
    }
    Ok((Tuning::table(gpu, entries), all))
}
