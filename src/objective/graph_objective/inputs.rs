//! Batches on the device.

use std::sync::{Arc, Weak};

use super::GraphObjective;
use crate::data::{Batch, Targets};
use crate::error::{Error, Result};
use crate::gpu::Slice;
use crate::nn::TargetShape;
use crate::objective::{Loaded, Slot};

/// The inputs of a batch of some number of rows, on the device.
#[derive(Debug)]
pub(super) struct Inputs {
    pub(super) features: Option<Slice>,
    pub(super) targets: Option<Slice>,
    pub(super) weights: Slice,
    /// Their sum, one element.
    pub(super) total: Slice,
}

/// The batches of an objective.
#[derive(Debug, Default)]
pub(super) struct Places {
    /// What is in each slot.
    filled: Vec<(Slot, Arc<Inputs>)>,
    /// The places of slots by their rows, as long as a program reads them.
    known: Vec<(Slot, usize, Weak<Inputs>)>,
}

impl Places {
    /// The last batch of so many rows in a slot.
    ///
    /// # Errors
    /// [`Error::Unsupported`] where there was none, or nothing has needed it since others were loaded.
    pub(super) fn loaded(&self, loaded: &Loaded) -> Result<Arc<Inputs>> {
        let of =
            |known: &&(Slot, usize, Weak<Inputs>)| (known.0, known.1) == (loaded.slot, loaded.rows);
        let place = self.known.iter().find(of);
        place
            .and_then(|(_, _, inputs)| inputs.upgrade())
            .ok_or_else(|| Error::Unsupported {
                what: format!(
                    "a program for {} rows in slot {:?} {}",
                    loaded.rows, loaded.slot.role, loaded.slot.number
                ),
                message: "no such batch is loaded there; load it first".into(),
            })
    }

    /// The place of a batch, which is then what its slot holds.
    fn place(
        &mut self,
        slot: Slot,
        rows: usize,
        make: impl FnOnce() -> Result<Inputs>,
    ) -> Result<Arc<Inputs>> {
        self.known
            .retain(|(_, _, inputs)| inputs.strong_count() > 0);
        let of = |known: &&(Slot, usize, Weak<Inputs>)| (known.0, known.1) == (slot, rows);
        let known = self.known.iter().find(of);
        let inputs = match known.and_then(|(_, _, inputs)| inputs.upgrade()) {
            Some(inputs) => inputs,
            None => {
                let inputs = Arc::new(make()?);
                self.known.push((slot, rows, Arc::downgrade(&inputs)));
                inputs
            }
        };
        self.filled.retain(|(other, _)| *other != slot);
        self.filled.push((slot, Arc::clone(&inputs)));
        Ok(inputs)
    }
}

impl GraphObjective {
    /// Uploads a batch into a slot, after checking that it fits the model.
    pub(super) fn fill(&mut self, slot: Slot, batch: &Batch, groups: usize) -> Result<Loaded> {
        let rows = batch.len();
        self.check(batch)?;
        self.gradients.sweep();
        self.quadratics.sweep();
        self.grouped.sweep();
        self.evaluations.sweep();
        let (gpu, shape) = (&self.gpu, self.model.shape());
        let inputs = self.places.place(slot, rows, || {
            let features = (shape.features > 0)
                .then(|| gpu.buffer("features", rows * shape.features))
                .transpose()?;
            let target_width = match shape.targets {
                TargetShape::Classes(_) => 1,
                TargetShape::Values(width) => width,
                TargetShape::Inputs => 0,
            };
            let targets = (target_width > 0)
                .then(|| gpu.buffer("targets", rows * target_width))
                .transpose()?;
            Ok(Inputs {
                features,
                targets,
                weights: gpu.buffer("weights", rows)?,
                total: gpu.buffer("total weight", 1)?,
            })
        })?;
        if let Some(features) = &inputs.features {
            gpu.upload(features, 0, &batch.features)?;
        }
        match (&inputs.targets, &batch.targets) {
            (Some(slice), Targets::Classes { labels, .. }) => gpu.upload(slice, 0, labels)?,
            (Some(slice), Targets::Values { values, .. }) => gpu.upload(slice, 0, values)?,
            _ => {}
        }
        gpu.upload(&inputs.weights, 0, &batch.weights)?;
        gpu.upload(&inputs.total, 0, &[batch.total_weight() as f32])?;
        Ok(Loaded {
            slot,
            rows,
            examples: batch.examples(),
            groups,
        })
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
