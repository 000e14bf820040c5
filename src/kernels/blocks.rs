//! Faces of kernels on blocks of vectors: all inner products, linear combinations, random rows. Products go through [`dot`](super::dot).

use nalgebra::DMatrix;

use super::dot::{Sizes, View, kernel};
use super::loops::{self, TWO_LEVELS, in_chunks};
use super::philox::PHILOX;
use super::requirements;
use super::store::Store;
use super::tuning::Products;
use crate::error::{Error, Result};
use crate::gpu::{Gpu, Recording, Slice, grid};
use crate::vector::{Block, Layout, Vector};

const SKETCH: &str = include_str!("../../shaders/sketch.wgsl");
const ADD_SUMS: &str = include_str!("../../shaders/add_sums.wgsl");
const WEIGH: &str = include_str!("../../shaders/weigh.wgsl");

/// Terms that are added in f32 before the sums are added, in f64 where the host does it. With sums of 4096 terms eigenvectors are
/// orthonormal to 3e-5, with these to less than 1e-5 (tests/eigensolver.rs).
const TERMS: usize = 1024;

/// Vectors of one layout, one after another.
#[derive(Clone, Debug)]
pub(crate) struct Rows {
    slice: Slice,
    count: usize,
    len: usize,
}

impl Rows {
    /// The first `count` vectors of a block.
    pub(crate) fn first(block: &Block, count: usize) -> Self {
        Self {
            slice: block.slice().clone(),
            count,
            len: block.layout().len(),
        }
    }

    /// All vectors of a block.
    pub(crate) fn all(block: &Block) -> Self {
        Self::first(block, block.width())
    }

    /// The vectors of a block from `first` on.
    pub(crate) fn beyond(block: &Block, first: usize) -> Result<Self> {
        let (slice, len) = (block.slice(), block.layout().len());
        Ok(Self {
            slice: slice.slice(first * len..slice.len())?,
            count: block.width() - first,
            len,
        })
    }
}

impl From<&Block> for Rows {
    fn from(block: &Block) -> Self {
        Self::all(block)
    }
}

impl From<&Vector> for Rows {
    fn from(vector: &Vector) -> Self {
        Self {
            slice: vector.slice().clone(),
            count: 1,
            len: vector.layout().len(),
        }
    }
}

/// Rows that one binding holds: first and number.
struct Group {
    first: usize,
    count: usize,
    slice: Slice,
}

/// The rows in groups that fit into a binding.
fn groups(gpu: &Gpu, rows: &Rows) -> Result<Vec<Group>> {
    let limit = gpu.limits().max_storage_buffer_binding_size / 4;
    let most = usize::try_from(limit).unwrap_or(usize::MAX) / rows.len.max(1);
    if most == 0 {
        return Err(Error::OverLimit {
            what: format!("a vector of '{}'", rows.slice.label()),
            needed: 4 * rows.len as u64,
            limit_name: "max_storage_buffer_binding_size",
            limit: 4 * limit,
            advice: "use a smaller model",
        });
    }
    (0..rows.count)
        .step_by(most)
        .map(|first| {
            let count = most.min(rows.count - first);
            Ok(Group {
                first,
                count,
                slice: rows
                    .slice
                    .slice(first * rows.len..(first + count) * rows.len)?,
            })
        })
        .collect()
}

/// Inner products of all pairs of two lists of vectors: sums of [`TERMS`] terms on the device, which the host adds.
#[derive(Debug)]
pub(crate) struct InnerProducts {
    parts: Vec<Part>,
    rows: usize,
    columns: usize,
}

/// `sums` matrices of partial sums for some of the rows and columns.
#[derive(Debug)]
struct Part {
    slice: Slice,
    sums: usize,
    row: usize,
    rows: usize,
    column: usize,
    columns: usize,
}

impl InnerProducts {
    /// Records the inner products of the vectors in `left` with those in `right`. `2 * rows * columns * P` flops.
    ///
    /// # Errors
    /// [`Error::Length`] for vectors of different length; limits of the device.
    pub(crate) fn record(
        gpu: &Gpu,
        recording: &mut Recording,
        left: &Rows,
        right: &Rows,
    ) -> Result<Self> {
        if left.len != right.len {
            return Err(Error::Length {
                what: format!("the vectors of '{}'", right.slice.label()),
                found: right.len,
                expected: left.len,
            });
        }
        let len = left.len;
        let (chunks, rest) = (len / TERMS, len % TERMS);
        let mut parts = Vec::new();
        for a in groups(gpu, left)? {
            for b in groups(gpu, right)? {
                for (offset, sums, terms) in [(0, chunks, TERMS), (chunks * TERMS, 1, rest)] {
                    if sums == 0 || terms == 0 {
                        continue;
                    }
                    let sizes = Sizes {
                        batch: sums,
                        m: a.count,
                        n: b.count,
                        k: terms,
                    };
                    let lhs = View::new(offset, [TERMS, len, 1]);
                    let rhs = View::new(offset, [TERMS, 1, len]);
                    let part = Part {
                        slice: gpu.buffer("inner products", sums * a.count * b.count)?,
                        sums,
                        row: a.first,
                        rows: a.count,
                        column: b.first,
                        columns: b.count,
                    };
                    product(
                        gpu,
                        recording,
                        sizes,
                        [&lhs, &rhs],
                        [&part.slice, &a.slice, &b.slice],
                        false,
                    )?;
                    parts.push(part);
                }
            }
        }
        Ok(Self {
            parts,
            rows: left.count,
            columns: right.count,
        })
    }

    /// What [`sum`](Self::sum) needs to be read.
    pub(crate) fn reads(&self) -> Vec<&Slice> {
        self.parts.iter().map(|part| &part.slice).collect()
    }

    /// Records the matrix of inner products into columns from `first` on of `result`, whose rows have `width` elements.
    ///
    /// # Errors
    /// Limits of the device.
    pub(crate) fn record_sum(
        &self,
        gpu: &Gpu,
        recording: &mut Recording,
        result: &Slice,
        (first, width): (usize, usize),
    ) -> Result<()> {
        for (number, part) in self.parts.iter().enumerate() {
            let adds = self.parts[..number]
                .iter()
                .any(|other| (other.row, other.column) == (part.row, part.column));
            let lanes = if part.sums > TWO_LEVELS { 64 } else { 1 };
            // The lanes are added by halving six times.
            loops::check("add sums", in_chunks(part.sums.div_ceil(lanes)) + 6)?;
            let constants = [
                ("LANES", lanes as f64),
                ("SUMS", part.sums as f64),
                ("ROWS", part.rows as f64),
                ("COLUMNS", part.columns as f64),
                ("ROW", part.row as f64),
                ("COLUMN", (first + part.column) as f64),
                ("WIDTH", width as f64),
                ("ADDS", f64::from(u8::from(adds))),
            ];
            let pipeline = gpu.kernel("add sums", ADD_SUMS, &constants, requirements::ADD_SUMS)?;
            let workgroups = grid(
                gpu.limits(),
                (lanes * part.rows * part.columns).div_ceil(64),
            )?;
            recording.dispatch(gpu, &pipeline, &[result, &part.slice], workgroups)?;
        }
        Ok(())
    }

    /// The matrix of inner products from what was read; takes its part off the front.
    pub(crate) fn sum(&self, read: &mut impl Iterator<Item = Vec<f32>>) -> DMatrix<f64> {
        let mut total = DMatrix::zeros(self.rows, self.columns);
        for (part, numbers) in self.parts.iter().zip(read) {
            let each = part.rows * part.columns;
            for sum in numbers.chunks_exact(each).take(part.sums) {
                for (at, &number) in sum.iter().enumerate() {
                    let (row, column) = (at / part.columns, at % part.columns);
                    total[(part.row + row, part.column + column)] += f64::from(number);
                }
            }
        }
        total
    }
}

/// Rows of a matrix of coefficients, for [`combine_rows`].
#[derive(Clone, Copy, Debug)]
pub(crate) struct Coefficients<'a> {
    /// Row after row.
    pub(crate) slice: &'a Slice,
    /// The first column in use.
    pub(crate) first: usize,
    /// Elements of a row.
    pub(crate) width: usize,
}

/// Records `out[i] = sum over j of coefficients[i, first + j] * input[j]`, or adds that to `out`, which must lie in another buffer than
/// `input`. `2 * rows * columns * P` flops.
///
/// # Errors
/// As [`InnerProducts::record`].
pub(crate) fn combine_rows(
    gpu: &Gpu,
    recording: &mut Recording,
    out: &Rows,
    coefficients: Coefficients<'_>,
    input: &Rows,
    adds: bool,
) -> Result<()> {
    if out.len != input.len {
        return Err(Error::Length {
            what: format!("the vectors of '{}'", input.slice.label()),
            found: input.len,
            expected: out.len,
        });
    }
    for to in groups(gpu, out)? {
        for from in groups(gpu, input)? {
            let sizes = Sizes {
                batch: 1,
                m: to.count,
                n: out.len,
                k: from.count,
            };
            let lhs = View::new(
                to.first * coefficients.width + coefficients.first + from.first,
                [0, coefficients.width, 1],
            );
            let rhs = View::new(0, [0, input.len, 1]);
            product(
                gpu,
                recording,
                sizes,
                [&lhs, &rhs],
                [&to.slice, coefficients.slice, &from.slice],
                adds || from.first > 0,
            )?;
        }
    }
    Ok(())
}

fn product(
    gpu: &Gpu,
    recording: &mut Recording,
    sizes: Sizes,
    [lhs, rhs]: [&View; 2],
    bindings: [&Slice; 3],
    adds: bool,
) -> Result<()> {
    let family = Products::of(gpu).family(sizes, lhs, rhs);
    let store = if adds {
        Store::adding(sizes)?
    } else {
        Store::new(sizes, None, None)?
    };
    let kernel = kernel(sizes, lhs, rhs, family, &store)?;
    let scratch = match kernel.scratch_elements() {
        0 => None,
        elements => Some(gpu.buffer("parts of a product", elements)?),
    };
    kernel.record(gpu, recording, &bindings, scratch.as_ref())
}

/// Records `result[i] = a[i] x[i] + b[i] y[i]` with `weights = [a, b]`.
///
/// # Errors
/// Limits of the device.
pub(crate) fn weigh(
    gpu: &Gpu,
    recording: &mut Recording,
    result: &Slice,
    weights: &Slice,
    x: &Slice,
    y: &Slice,
) -> Result<()> {
    let count = result.len();
    let pipeline = gpu.kernel(
        "weigh",
        WEIGH,
        &[("COUNT", count as f64)],
        requirements::WEIGH,
    )?;
    let workgroups = [count.div_ceil(64) as u32, 1, 1];
    recording.dispatch(gpu, &pipeline, &[result, weights, x, y], workgroups)
}

/// The distribution of a random test matrix.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Sketch {
    /// Signs with equal odds (Rademacher). Cheaper to draw; but a block about as wide as the space can be singular, which in small spaces
    /// happens.
    Signs,
    /// Standard normal numbers.
    #[default]
    Gaussian,
}

/// Records random numbers for all tensors of the vectors of a block from `start` on; gaps stay zero. `settings` holds `[seed low, seed
/// high, stream low, stream high]`.
///
/// # Errors
/// Limits of the device.
pub(crate) fn sketch(
    gpu: &Gpu,
    recording: &mut Recording,
    block: &Block,
    start: usize,
    settings: &Slice,
    kind: Sketch,
) -> Result<()> {
    let layout: &Layout = block.layout();
    let text = [PHILOX, SKETCH].concat();
    let len = layout.len();
    let most = gpu.limits().max_storage_buffer_binding_size / 4;
    let most = (usize::try_from(most).unwrap_or(usize::MAX) / len).max(1);
    for first in (start..block.width()).step_by(most) {
        let rows = most.min(block.width() - first);
        for (index, (entry, tensor)) in layout
            .entries()
            .iter()
            .zip(block.tensors(first, rows)?)
            .enumerate()
        {
            let count = entry.elements();
            let constants = [
                ("COUNT", count as f64),
                ("ROWS", rows as f64),
                ("PITCH", len as f64),
                // Part of the counter: each tensor and group of rows has numbers of its own.
                ("FIRST", (first * layout.entries().len() + index) as f64),
                ("GAUSSIAN", f64::from(u8::from(kind == Sketch::Gaussian))),
            ];
            let pipeline = gpu.kernel("sketch", &text, &constants, requirements::SKETCH)?;
            let per = match kind {
                Sketch::Signs => 128,
                Sketch::Gaussian => 4,
            };
            let invocations = rows * count.div_ceil(per);
            recording.dispatch(
                gpu,
                &pipeline,
                &[&tensor, settings],
                grid(gpu.limits(), invocations.div_ceil(64))?,
            )?;
        }
    }
    Ok(())
}
