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
pub(in crate::objective) struct Inputs {
    pub(in crate::objective) features: Option<Slice>,
    pub(in crate::objective) targets: Option<Slice>,
    pub(in crate::objective) weights: Slice,
    /// Their sum, one element.
    pub(in crate::objective) total: Slice,
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
    /// The place of a batch of so many rows, which its slot holds from then on.
    pub(in crate::objective) fn place(&mut self, slot: Slot, rows: usize) -> Result<Arc<Inputs>> {
        self.gradients.sweep();
        self.quadratics.sweep();
        self.grouped.sweep();
        self.layered.sweep();
        self.statistics.sweep();
        self.evaluations.sweep();
        let (gpu, shape) = (&self.gpu, self.model.shape());
        self.places.place(slot, rows, || {
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
        })
    }

    /// The place of what was loaded.
    pub(in crate::objective) fn loaded(&self, loaded: &Loaded) -> Result<Arc<Inputs>> {
        self.places.loaded(loaded)
    }

    /// Uploads a batch into a slot, after checking that it fits the model.
    pub(super) fn fill(&mut self, slot: Slot, batch: &Batch, groups: usize) -> Result<Loaded> {
        let rows = batch.len();
        self.check(batch)?;
        let inputs = self.place(slot, rows)?;
        let gpu = &self.gpu;
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
        let Batch {
            features,
            targets,
            weights,
        } = batch;
        if weights.is_empty() {
            return bad("batch", "it is empty; give at least one example".to_owned());
        }
        self.check_features("batch", weights.len(), features)?;
        check_weights(weights)?;
        self.check_targets("batch", weights.len(), targets)
    }

    /// Fails unless these are the inputs of so many examples of the model.
    ///
    /// # Errors
    /// [`Error::Data`] for `what`.
    pub(in crate::objective) fn check_features(
        &self,
        what: &str,
        rows: usize,
        features: &[f32],
    ) -> Result<()> {
        let width = self.model.shape().features;
        if features.len() != rows * width {
            let found = features.len();
            return bad(
                what,
                format!("{found} features for {rows} examples; the model takes {width} each"),
            );
        }
        if let Some(at) = features.iter().position(|x| !x.is_finite()) {
            let (row, column) = (at / width, at % width);
            return bad(
                what,
                format!(
                    "feature {column} of example {row} is {}; remove or fill such examples",
                    features[at]
                ),
            );
        }
        Ok(())
    }

    /// Fails unless these are the targets of so many examples of the model.
    ///
    /// # Errors
    /// [`Error::Data`] for `what`.
    pub(in crate::objective) fn check_targets(
        &self,
        what: &str,
        rows: usize,
        targets: &Targets,
    ) -> Result<()> {
        let message = match (self.model.shape().targets, targets) {
            (TargetShape::Inputs, _) => return Ok(()),
            (TargetShape::Classes(classes), Targets::Classes { labels, .. }) => {
                if labels.len() == rows {
                    match labels.iter().position(|&label| label as usize >= classes) {
                        Some(row) => format!(
                            "label {} of example {row} is out of range; the model has {classes} classes, 0 to {}",
                            labels[row],
                            classes.saturating_sub(1)
                        ),
                        None => return Ok(()),
                    }
                } else {
                    format!("{} labels for {rows} examples", labels.len())
                }
            }
            (TargetShape::Values(width), Targets::Values { values, .. }) => {
                if values.len() == rows * width {
                    match values.iter().position(|x| !x.is_finite()) {
                        Some(at) => format!(
                            "target {} of example {} is {}",
                            at % width,
                            at / width,
                            values[at]
                        ),
                        None => return Ok(()),
                    }
                } else {
                    format!(
                        "{} target values for {rows} examples; the model takes {width} each",
                        values.len()
                    )
                }
            }
            (expected, _) => {
                format!("the model takes targets of kind {expected:?}, the batch has others")
            }
        };
        bad(what, message)
    }
}

/// Fails unless these are weights of a batch.
///
/// # Errors
/// [`Error::Data`].
pub(in crate::objective) fn check_weights(weights: &[f32]) -> Result<()> {
    if weights.iter().any(|w| !w.is_finite() || *w < 0.0) || weights.iter().all(|w| *w == 0.0) {
        return bad(
            "batch",
            "weights must be finite, not negative, and not all zero".to_owned(),
        );
    }
    let total: f64 = weights.iter().copied().map(f64::from).sum();
    if !(total as f32).is_normal() {
        return bad(
            "batch",
            format!(
                "weights add up to {total:.3e}, which f32 does not hold; scale them, for example to a sum of 1"
            ),
        );
    }
    Ok(())
}

fn bad(what: &str, message: String) -> Result<()> {
    Err(Error::Data {
        what: what.to_owned(),
        message,
    })
}
