//! Data sets on the device.

use std::sync::Arc;

use super::{Dataset, Rows, Targets};
use crate::Result;
use crate::gpu::{Gpu, Recording, Slice};
use crate::kernels::gather_rows::Table;

/// A data set whose inputs and targets were uploaded once, so that a batch is a list of row numbers.
///
/// Inputs are `[rows, width]` floats, targets as many labels or rows of values; what is larger than one binding is in pieces of whole
/// rows. The data set on the host is kept, for batches of which an error has to be explained. Clones share both.
///
/// [`Resident`](crate::objective::Resident) is the objective over it; whoever has kernels of their own records
/// [`gather_features`](Self::gather_features) and [`gather_targets`](Self::gather_targets) in front of them.
///
/// ```
/// use osculant::data::{DeviceDataset, digits};
/// use osculant::gpu::{Gpu, Recording};
///
/// let gpu = Gpu::new()?;
/// let data = DeviceDataset::new(&gpu, digits()?)?;
/// assert_eq!((data.host().len(), data.bytes()), (1797, 1797 * 65 * 4));
/// let (index, labels) = (gpu.buffer("index", 3)?, gpu.buffer("labels", 3)?);
/// let mut gather = Recording::new();
/// data.gather_targets(&mut gather, &labels, &index)?;
/// gpu.upload(&index, 0, &[12u32, 0, 7])?;
/// gpu.submit(|recorder| recorder.replay(&gather))?;
/// assert_eq!(gpu.read_u32(&[&labels])?, [[2, 0, 7]]);
/// # Ok::<(), osculant::Error>(())
/// ```
#[derive(Clone)]
pub struct DeviceDataset {
    gpu: Gpu,
    host: Arc<Dataset>,
    features: Table,
    /// None where the inputs are the targets.
    targets: Option<Table>,
}

impl std::fmt::Debug for DeviceDataset {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("DeviceDataset")
            .field("name", &self.host.name())
            .field("rows", &self.host.len())
            .field("width", &self.host.width())
            .field("gpu", &self.gpu)
            .finish_non_exhaustive()
    }
}

impl DeviceDataset {
    /// Uploads a data set.
    ///
    /// # Errors
    /// [`Error::OutOfMemory`](crate::Error::OutOfMemory); [`Error::OverLimit`](crate::Error::OverLimit) where a single row is larger than a
    /// binding; [`Error::DeviceLost`](crate::Error::DeviceLost); [`Error::Unsupported`](crate::Error::Unsupported) for rows with weights.
    pub fn new(gpu: &Gpu, dataset: impl Into<Arc<Dataset>>) -> Result<Self> {
        let host = dataset.into();
        if host.is_weighted() {
            return Err(crate::Error::Unsupported {
                what: format!("{} on the device", host.name()),
                message: "its rows have weights, which batches by row numbers do not take from a data set; give weights to the rows \
                          (Rows::with_weights), or batches from the host"
                    .into(),
            });
        }
        let features = Table::upload(gpu, "features of a data set", host.features(), host.width())?;
        let label = "targets of a data set";
        let targets = match host.targets() {
            Targets::Classes { labels, .. } => Some(Table::upload(gpu, label, labels, 1)?),
            Targets::Values { values, width } => Some(Table::upload(gpu, label, values, *width)?),
            Targets::Inputs => None,
        };
        Ok(Self {
            gpu: gpu.clone(),
            host,
            features,
            targets,
        })
    }

    /// The data set on the host: its rows, width and kind of targets are those of the one on the device.
    #[must_use]
    pub fn host(&self) -> &Arc<Dataset> {
        &self.host
    }

    /// The device.
    #[must_use]
    pub fn gpu(&self) -> &Gpu {
        &self.gpu
    }

    /// Bytes that it takes on the device.
    #[must_use]
    pub fn bytes(&self) -> u64 {
        self.features.bytes() + self.targets.as_ref().map_or(0, Table::bytes)
    }

    /// Fails unless all rows are there.
    ///
    /// # Errors
    /// [`Error::Data`](crate::Error::Data), which names one that is not.
    pub fn check(&self, rows: &Rows) -> Result<()> {
        rows.check(self.host.name(), self.host.len())
    }

    /// Records that the inputs of the rows in `index`, `[n]` u32, are written to `result`, `[n, width]`. Numbers beyond the data set give
    /// zeros.
    ///
    /// # Errors
    /// [`Error::Length`](crate::Error::Length) for a `result` of another size; limits of the device.
    pub fn gather_features(
        &self,
        recording: &mut Recording,
        result: &Slice,
        index: &Slice,
    ) -> Result<()> {
        self.features.gather(&self.gpu, recording, result, index)
    }

    /// As [`gather_features`](Self::gather_features) for the targets: labels as u32 `[n]`, values `[n, width]`. Where inputs are the
    /// targets it is the same.
    ///
    /// # Errors
    /// As there.
    pub fn gather_targets(
        &self,
        recording: &mut Recording,
        result: &Slice,
        index: &Slice,
    ) -> Result<()> {
        let table = self.targets.as_ref().unwrap_or(&self.features);
        table.gather(&self.gpu, recording, result, index)
    }
}
