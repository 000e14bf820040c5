//! Batches on the device.

use std::sync::Arc;

use super::GraphObjective;
use crate::data::{Batch, Targets};
use crate::error::{Error, Result};
use crate::gpu::Slice;
use crate::nn::TargetShape;

/// The inputs of a batch of some number of rows, on the device.
#[derive(Debug)]
pub(super) struct Inputs {
    pub(super) features: Option<Slice>,
    pub(super) targets: Option<Slice>,
    pub(super) weights: Slice,
    /// Their sum, one element.
    pub(super) total: Slice,
}

impl GraphObjective {
    /// Uploads a batch into the inputs for its number of rows, after checking that it fits the model.
    pub(super) fn load(&mut self, batch: &Batch) -> Result<Arc<Inputs>> {
        let rows = batch.len();
        self.check(batch)?;
        let inputs = match self.inputs.get(&rows) {
            Some(inputs) => Arc::clone(inputs),
            None => {
                let shape = self.model.shape();
                let features = (shape.features > 0)
                    .then(|| self.gpu.buffer("features", rows * shape.features))
                    .transpose()?;
                let target_width = match shape.targets {
                    TargetShape::Classes(_) => 1,
                    TargetShape::Values(width) => width,
                    TargetShape::Inputs => 0,
                };
                let targets = (target_width > 0)
                    .then(|| self.gpu.buffer("targets", rows * target_width))
                    .transpose()?;
                let inputs = Arc::new(Inputs {
                    features,
                    targets,
                    weights: self.gpu.buffer("weights", rows)?,
                    total: self.gpu.buffer("total weight", 1)?,
                });
                self.inputs.insert(rows, Arc::clone(&inputs));
                inputs
            }
        };
        if let Some(features) = &inputs.features {
            self.gpu.upload(features, 0, &batch.features)?;
        }
        match (&inputs.targets, &batch.targets) {
            (Some(slice), Targets::Classes { labels, .. }) => self.gpu.upload(slice, 0, labels)?,
            (Some(slice), Targets::Values { values, .. }) => self.gpu.upload(slice, 0, values)?,
            _ => {}
        }
        self.gpu.upload(&inputs.weights, 0, &batch.weights)?;
        self.gpu
            .upload(&inputs.total, 0, &[batch.total_weight() as f32])?;
        Ok(inputs)
    }

    /// A batch is a plain struct: whoever fills it by hand may get it wrong.
    pub(super) fn check(&self, batch: &Batch) -> Result<()> {
        let (rows, shape) = (batch.len(), self.model.shape());
        let bad = |message: String| {
            Err(Error::Data {
                what: "batch".into(),
                message,
            })
        };
        if rows == 0 {
            return bad("it is empty; give at least one example".into());
        }
        if batch.features.len() != rows * shape.features {
            let found = batch.features.len();
            return bad(format!(
                "{found} features for {rows} examples; the model takes {} each",
                shape.features
            ));
        }
        if let Some(at) = batch.features.iter().position(|x| !x.is_finite()) {
            let (row, column) = (at / shape.features, at % shape.features);
            return bad(format!(
                "feature {column} of example {row} is {}; remove or fill such examples",
                batch.features[at]
            ));
        }
        if batch.weights.iter().any(|w| !w.is_finite() || *w < 0.0)
            || batch.weights.iter().all(|w| *w == 0.0)
        {
            return bad("weights must be finite, not negative, and not all zero".into());
        }
        let total = batch.total_weight() as f32;
        if !total.is_normal() {
            return bad(format!(
                "weights add up to {:.3e}, which f32 does not hold; scale them, for example to a sum of 1",
                batch.total_weight()
            ));
        }
        match (shape.targets, &batch.targets) {
            (TargetShape::Inputs, _) => Ok(()),
            (TargetShape::Classes(classes), Targets::Classes { labels, .. }) => {
                if labels.len() != rows {
                    return bad(format!("{} labels for {rows} examples", labels.len()));
                }
                match labels.iter().position(|&label| label as usize >= classes) {
                    Some(row) => bad(format!(
                        "label {} of example {row} is out of range; the model has {classes} classes, 0 to {}",
                        labels[row],
                        classes.saturating_sub(1)
                    )),
                    None => Ok(()),
                }
            }
            (TargetShape::Values(width), Targets::Values { values, .. }) => {
                if values.len() != rows * width {
                    return bad(format!(
                        "{} target values for {rows} examples; the model takes {width} each",
                        values.len()
                    ));
                }
                match values.iter().position(|x| !x.is_finite()) {
                    Some(at) => bad(format!(
                        "target {} of example {} is {}",
                        at % width,
                        at / width,
                        values[at]
                    )),
                    None => Ok(()),
                }
            }
            (expected, _) => bad(format!(
                "the model takes targets of kind {expected:?}, the batch has others"
            )),
        }
    }
}
