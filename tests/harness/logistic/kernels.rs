//! The kernels of logistic regression on a batch in its place on the device.

use std::sync::Arc;

use osculant::Result;
use osculant::gpu::{Gpu, Recording, Slice, grid};
use osculant::objective::Loaded;
use osculant::vector::{Layout, Vector};

use super::Examples;

/// Elements from one group's variance to the next, where any device can bind them.
pub(super) const STRIDE: usize = 64;

/// What `columns.wgsl` sums.
#[derive(Clone, Copy, PartialEq)]
pub(super) enum Kind {
    Gradient,
    Product,
    Fisher,
}

/// A place for a batch, and what is recorded on it.
pub(super) struct Kernels {
    rows: usize,
    groups: usize,
    features: usize,
    l2: f32,
    /// Elements from one vector to the next.
    pitch: usize,
    x: Slice,
    /// Target and weight by turns.
    examples: Slice,
    /// What makes the weights of a group add up to those of the batch.
    scales: Slice,
    /// That of the batch as a group: 1.
    one: Slice,
}

impl Kernels {
    pub(super) fn new(gpu: &Gpu, loaded: &Loaded, layout: &Arc<Layout>, l2: f32) -> Result<Self> {
        let (rows, features) = (loaded.rows, layout.parameters());
        let one = gpu.buffer("scale", 1)?;
        gpu.upload(&one, 0, &[1.0f32])?;
        Ok(Self {
            rows,
            groups: loaded.groups,
            features,
            l2,
            pitch: layout.len(),
            x: gpu.buffer("features", rows * features)?,
            examples: gpu.buffer("targets and weights", 2 * rows)?,
            scales: gpu.buffer("scales of groups", loaded.groups)?,
            one,
        })
    }

    pub(super) fn upload(&self, gpu: &Gpu, batch: &Examples) -> Result<()> {
        let pairs = batch.targets.iter().zip(&batch.weights);
        let pairs: Vec<f32> = pairs.flat_map(|(&y, &w)| [y, w]).collect();
        let groups = batch.weights.chunks(self.rows / self.groups);
        let sums = groups.map(|group| group.iter().map(|&w| f64::from(w)).sum::<f64>());
        let scales: Vec<f32> = sums.map(|sum| (batch.total() / sum) as f32).collect();
        gpu.upload(&self.x, 0, &batch.features)?;
        gpu.upload(&self.examples, 0, &pairs)?;
        gpu.upload(&self.scales, 0, &scales)
    }

    /// A place for what `rows.wgsl` makes.
    pub(super) fn state(&self, gpu: &Gpu) -> Result<Slice> {
        gpu.buffer("state of the rows", 4 * self.rows)
    }

    pub(super) fn rows(
        &self,
        gpu: &Gpu,
        recording: &mut Recording,
        at: &Vector,
        state: &Slice,
    ) -> Result<()> {
        let constants = [
            ("ROWS", self.rows as f64),
            ("FEATURES", self.features as f64),
        ];
        let kernel = gpu.pipeline("rows", include_str!("rows.wgsl"), &constants)?;
        let bindings = [&self.x, &self.examples, at.slice(), state];
        let workgroups = grid(gpu.limits(), self.rows.div_ceil(64))?;
        recording.dispatch(gpu, &kernel, &bindings, workgroups)
    }

    /// The sums of all groups.
    pub(super) fn columns(
        &self,
        gpu: &Gpu,
        recording: &mut Recording,
        kind: Kind,
        states: [&Slice; 2],
        at: &Vector,
        result: &Slice,
    ) -> Result<()> {
        let groups = (self.groups, &self.scales);
        self.sums(gpu, recording, (kind, groups), states, at, result)
    }

    /// The gradient of the batch, whatever its groups.
    pub(super) fn whole_gradient(
        &self,
        gpu: &Gpu,
        recording: &mut Recording,
        state: &Slice,
        at: &Vector,
        result: &Slice,
    ) -> Result<()> {
        let kind = (Kind::Gradient, (1, &self.one));
        self.sums(gpu, recording, kind, [state, state], at, result)
    }

    fn sums(
        &self,
        gpu: &Gpu,
        recording: &mut Recording,
        (kind, (groups, scales)): (Kind, (usize, &Slice)),
        [state, along]: [&Slice; 2],
        at: &Vector,
        result: &Slice,
    ) -> Result<()> {
        let l2 = if kind == Kind::Fisher { 0.0 } else { self.l2 };
        let constants = [
            ("ROWS_OF_GROUP", (self.rows / groups) as f64),
            ("GROUPS", groups as f64),
            ("FEATURES", self.features as f64),
            ("PITCH", self.pitch as f64),
            ("KIND", f64::from(kind as u32)),
            ("L2", f64::from(l2)),
        ];
        let kernel = gpu.pipeline("columns", include_str!("columns.wgsl"), &constants)?;
        let (x, examples) = (&self.x, &self.examples);
        let bindings = [x, examples, scales, state, along, at.slice(), result];
        let workgroups = grid(gpu.limits(), (groups * self.features).div_ceil(64))?;
        recording.dispatch(gpu, &kernel, &bindings, workgroups)
    }

    pub(super) fn losses(
        &self,
        gpu: &Gpu,
        recording: &mut Recording,
        [state, before]: [&Slice; 2],
        [point, base]: [&Vector; 2],
        results: &Slice,
    ) -> Result<()> {
        let constants = [
            ("ROWS", self.rows as f64),
            ("FEATURES", self.features as f64),
            ("L2", f64::from(self.l2)),
        ];
        let kernel = gpu.pipeline("losses", include_str!("losses.wgsl"), &constants)?;
        let vectors = [point.slice(), base.slice()];
        let bindings = [
            &self.examples,
            state,
            before,
            vectors[0],
            vectors[1],
            results,
        ];
        recording.dispatch(gpu, &kernel, &bindings, [1, 1, 1])
    }

    pub(super) fn variances(
        &self,
        gpu: &Gpu,
        recording: &mut Recording,
        [state, along]: [&Slice; 2],
        results: &Slice,
    ) -> Result<()> {
        let constants = [
            ("ROWS_OF_GROUP", (self.rows / self.groups) as f64),
            ("GROUPS", self.groups as f64),
        ];
        let kernel = gpu.pipeline("variances", include_str!("variances.wgsl"), &constants)?;
        let bindings = [&self.examples, &self.scales, state, along, results];
        let workgroups = grid(gpu.limits(), self.groups.div_ceil(64))?;
        recording.dispatch(gpu, &kernel, &bindings, workgroups)
    }
}
