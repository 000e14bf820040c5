//! Labels as they are in files, and the classes that they become.

use super::{Dataset, Targets};
use crate::Result;
use std::collections::BTreeSet;

/// The label of each class: those that occur, in order.
pub(super) struct Labels(Vec<u32>);

impl Labels {
    /// The labels of training and test rows together. Warnings in the log say which ones no training row has, and where a label is not the
    /// number of its class; `place` is where they come from.
    pub(super) fn of(train: &[u32], test: &[u32], place: &str) -> Self {
        let trained: BTreeSet<u32> = train.iter().copied().collect();
        let tested: BTreeSet<u32> = test.iter().copied().collect();
        let unknown: Vec<u32> = tested.difference(&trained).copied().collect();
        if !unknown.is_empty() {
            log::warn!(
                "{place}: only test rows have the labels {unknown:?}; what no training row shows cannot be learned"
            );
        }
        let labels = Self(trained.union(&tested).copied().collect());
        if labels.renumbers() {
            log::warn!(
                "{place}: the labels {:?} became the classes 0 to {}",
                labels.0,
                labels.0.len() - 1
            );
        }
        labels
    }

    /// Whether some of the labels, in order, differ from their classes 0, 1, 2, ...
    fn renumbers(&self) -> bool {
        self.0
            .iter()
            .enumerate()
            .any(|(class, &label)| class != label as usize)
    }

    /// A data set whose targets are the classes of these labels.
    pub(super) fn dataset(
        &self,
        labels: &[u32],
        dataset: impl FnOnce(Targets) -> Result<Dataset>,
    ) -> Result<Dataset> {
        let class = |label: &u32| self.0.partition_point(|known| known < label) as u32;
        let data = dataset(Targets::Classes {
            labels: labels.iter().map(class).collect(),
            classes: self.0.len(),
        })?;
        Ok(if self.renumbers() {
            data.with_original_labels(self.0.clone())
        } else {
            data
        })
    }
}
