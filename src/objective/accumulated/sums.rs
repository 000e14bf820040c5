//! Sums over micro-batches, on the device.

use crate::error::Result;
use crate::gpu::{Gpu, Recording, Slice, Work};
use crate::linalg::Scalars;
use crate::objective::losses::{LABEL, RESULTS};
use crate::objective::{LossCost, Losses};
use crate::vector::{Block, Vector};

/// Elements of the results of a loss, as sums take them.
const ROW: usize = 4;
/// Elements from the results of one micro-batch to those of the next, where any device can bind them.
const APART: usize = 64;

/// Sums with the shares of the micro-batches of a slot.
pub(super) struct Sums<'a> {
    pub(super) gpu: &'a Gpu,
    pub(super) shares: &'a Scalars,
}

impl Sums<'_> {
    /// Records the sum of vectors, into a new one.
    pub(super) fn vector(
        &self,
        recording: &mut Recording,
        label: &str,
        terms: &[&Vector],
    ) -> Result<Vector> {
        let sum = Vector::new(self.gpu, label, terms[0].layout())?;
        let other = Vector::new(self.gpu, "sum of some terms", terms[0].layout())?;
        let slices: Vec<&Slice> = terms.iter().map(|term| term.slice()).collect();
        let places = [sum.slice(), other.slice()];
        self.shares
            .record_sum(self.gpu, recording, &slices, places)?;
        Ok(sum)
    }

    /// Records the sum of blocks, into a new one.
    pub(super) fn block(
        &self,
        recording: &mut Recording,
        label: &str,
        terms: &[&Block],
    ) -> Result<Block> {
        let (layout, width) = (terms[0].layout(), terms[0].width());
        let sum = Block::new(self.gpu, label, layout, width)?;
        let other = Vector::new(self.gpu, "sum of some terms", layout)?;
        for row in 0..width {
            let slices: Vec<&Slice> = terms.iter().map(|t| t.vectors()[row].slice()).collect();
            let places = [sum.vectors()[row].slice(), other.slice()];
            self.shares
                .record_sum(self.gpu, recording, &slices, places)?;
        }
        Ok(sum)
    }

    /// Where the results of losses are gathered.
    pub(super) fn results(&self, count: usize) -> Result<Results> {
        let rows = self.gpu.buffer("results of micro-batches", APART * count)?;
        let row = |i: usize| rows.slice(APART * i..APART * i + ROW);
        Ok(Results {
            rows: (0..count).map(row).collect::<Result<_>>()?,
            sum: self.gpu.buffer(LABEL, ROW)?,
            other: self.gpu.buffer("sum of some results", ROW)?,
        })
    }

    /// Records the loss of all micro-batches, one element, from theirs.
    pub(super) fn value(
        &self,
        recording: &mut Recording,
        results: &Results,
        values: &[&Slice],
    ) -> Result<Slice> {
        for (row, value) in results.rows.iter().zip(values) {
            recording.copy_part(value, 0, row, 0, 1)?;
        }
        let value = self.gpu.buffer("loss", 1)?;
        self.add(recording, results)?;
        recording.copy_part(&results.sum, 0, &value, 0, 1)?;
        Ok(value)
    }

    fn add(&self, recording: &mut Recording, results: &Results) -> Result<()> {
        let rows: Vec<&Slice> = results.rows.iter().collect();
        let places = [&results.sum, &results.other];
        self.shares.record_sum(self.gpu, recording, &rows, places)
    }

    /// The losses of all micro-batches around a base.
    pub(super) fn losses(
        &self,
        base: &Vector,
        results: &Results,
        parts: &[&Losses],
    ) -> Result<Losses> {
        let point = Vector::new(self.gpu, "point", base.layout())?;
        let [mut at_base, mut at_point] = [Work::new(), Work::new()];
        for (part, row) in parts.iter().zip(&results.rows) {
            at_base.append(part.at_base.clone());
            at_base
                .tail()
                .copy_part(&part.results, 0, row, 0, RESULTS)?;
            at_point.tail().copy(point.slice(), part.point.slice())?;
            at_point.append(part.at_point.clone());
            at_point
                .tail()
                .copy_part(&part.results, 0, row, 0, RESULTS)?;
        }
        at_base.tail().copy(base.slice(), point.slice())?;
        self.add(at_base.tail(), results)?;
        self.add(at_point.tail(), results)?;
        Ok(Losses {
            point,
            results: results.sum.slice(0..RESULTS)?,
            at_base,
            at_point,
            cost_at_base: LossCost::sum(parts.iter().map(|part| part.cost_at_base)),
            cost_at_point: LossCost::sum(parts.iter().map(|part| part.cost_at_point)),
        })
    }
}

/// The results of losses, one row for each micro-batch, and their sum.
pub(super) struct Results {
    rows: Vec<Slice>,
    sum: Slice,
    other: Slice,
}
