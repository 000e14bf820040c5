//! The objective of a model over a data set that is on the device.

use std::ops::Range;
use std::sync::Arc;

use super::graph_objective::{Inputs, check_weights};
use super::{
    Curved, Gradient, GradientRequest, GraphObjective, GroupRequest, GroupedQuadratic, Kronecker,
    KroneckerRequest, KroneckerStructure, Layered, Loaded, Objective, Parts, Quadratic,
    QuadraticRequest, SampleRequest, SampleSpace, SampleSystem, Slot,
};
use crate::data::{DeviceDataset, Rows};
use crate::error::{Error, Result};
use crate::gpu::{Gpu, Recording, Slice};
use crate::graph::locate::Located;
use crate::vector::{Layout, Vector};

/// A [`GraphObjective`] whose batches are [`Rows`] of a data set that resides on the device.
///
/// Loading a batch uploads its row numbers and weights, 8 bytes for each row, and copies the rows on the device. What computes with them
/// is the same programs, so that losses, gradients, products and steps have the bits of those with a [`Batch`](crate::data::Batch) of the
/// same rows.
///
/// ```
/// use osculant::data::{DeviceDataset, Epochs, Rows, digits};
/// use osculant::objective::{GraphObjective, Resident};
/// use osculant::optim::{Adam, AdamOptions, Optimizer};
/// # use osculant::{gpu::Gpu, nn::{Loss, Sequential}};
/// # fn train(gpu: &Gpu) -> osculant::Result<()> {
/// let data = digits()?;
/// let model = Sequential::new().dense(10).model(&data, Loss::SoftmaxCrossEntropy);
/// let mut epochs = Epochs::new(data.len(), 256, 1)?;
/// let inner = GraphObjective::new(gpu, model)?;
/// let theta = inner.initial_parameters(0)?;
/// let mut objective = Resident::new(inner, DeviceDataset::new(gpu, data)?)?;
/// let mut adam = Adam::new(AdamOptions::default())?;
/// for _ in 0..100 {
///     let rows = Rows::new(epochs.next_batch())?.pad_to(256)?;
///     adam.step(&mut objective, &theta, &rows)?;
/// }
/// # Ok(())
/// # }
/// ```
///
/// A step that is recorded has its rows from [`gather`](Self::gather).
///
/// On a software adapter, where the device is the processor, there is nothing to save: copying by a kernel takes longer than an upload.
pub struct Resident {
    inner: GraphObjective,
    data: DeviceDataset,
    gathers: Vec<Arc<Gather>>,
}

impl std::fmt::Debug for Resident {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Resident")
            .field("inner", &self.inner)
            .field("data", &self.data)
            .finish_non_exhaustive()
    }
}

/// How the batches of one slot and number of rows are copied together.
#[derive(Debug)]
pub struct Gather {
    /// The numbers of the rows, `[rows]` u32: from an upload, a kernel of the caller's, or
    /// [`Shuffle::record`](crate::data::Shuffle::record). Numbers beyond the data set give rows of zeros.
    pub index: Slice,
    /// The weights of the rows as they were loaded, `[rows]`. Whoever changes what they add up to loads the batch instead, because
    /// programs know the sum.
    pub weights: Slice,
    /// Copies the rows to where programs read them.
    pub run: Recording,
    inputs: Arc<Inputs>,
}

impl Gather {
    fn new(data: &DeviceDataset, inputs: &Arc<Inputs>) -> Result<Self> {
        let index = data.gpu().buffer("row numbers", inputs.weights.len())?;
        let mut run = Recording::new();
        if let Some(features) = &inputs.features {
            data.gather_features(&mut run, features, &index)?;
        }
        if let Some(targets) = &inputs.targets {
            data.gather_targets(&mut run, targets, &index)?;
        }
        Ok(Self {
            index,
            weights: inputs.weights.clone(),
            run,
            inputs: Arc::clone(inputs),
        })
    }
}

impl Resident {
    /// Of an objective and a data set that fits its model, made with one [`Gpu`] and its clones.
    ///
    /// # Errors
    /// [`Error::Data`] for a data set that does not fit the model; [`Error::Unsupported`] for one of another [`Gpu`].
    pub fn new(inner: GraphObjective, data: DeviceDataset) -> Result<Self> {
        if !data.gpu().is_same(inner.gpu()) {
            return Err(Error::Unsupported {
                what: format!("data set {} for this objective", data.host().name()),
                message:
                    "it belongs to another Gpu; upload it with that of the objective, or a clone"
                        .into(),
            });
        }
        let host = data.host();
        inner.check_features(host.name(), host.len(), host.features())?;
        inner.check_targets(host.name(), host.len(), host.targets())?;
        Ok(Self {
            inner,
            data,
            gathers: Vec::new(),
        })
    }

    /// The objective of batches from the host, which has the same slots and programs.
    pub fn inner(&self) -> &GraphObjective {
        &self.inner
    }

    /// That objective, to evaluate or load something of its own.
    pub fn inner_mut(&mut self) -> &mut GraphObjective {
        &mut self.inner
    }

    /// The data set.
    pub fn data(&self) -> &DeviceDataset {
        &self.data
    }

    /// How the rows of what was loaded come to where its programs read them: for steps that choose other rows without the host. It serves
    /// as long as it is held, or a program for what was loaded is.
    ///
    /// ```
    /// use osculant::data::{Rows, Shuffle};
    /// use osculant::gpu::Recording;
    /// use osculant::objective::{GradientRequest, Objective, Resident, Slot};
    /// # use osculant::vector::Vector;
    /// # fn record(objective: &mut Resident, theta: &Vector, encoder: &mut wgpu::CommandEncoder) -> osculant::Result<()> {
    /// // Any rows, for their number and weights.
    /// let loaded = objective.load(Slot::default(), &Rows::new(&[0; 256])?)?;
    /// let gather = objective.gather(&loaded)?;
    /// let gradient = objective.gradient(theta, &loaded, GradientRequest::default())?;
    /// let gpu = objective.gpu();
    /// let (step, mut draw) = (gpu.buffer("step", 1)?, Recording::new());
    /// Shuffle::new(objective.data().host().len(), 256, 1)?.record(gpu, &mut draw, &gather.index, &step)?;
    /// let mut recorder = osculant::gpu::Recorder::new(encoder);
    /// for recording in [&draw, &gather.run, gradient.run.recorded()?] {
    ///     recorder.replay(recording);
    /// }
    /// # Ok(())
    /// # }
    /// ```
    ///
    /// # Errors
    /// [`Error::Unsupported`] where no such rows are loaded; limits of the device.
    pub fn gather(&mut self, loaded: &Loaded) -> Result<Arc<Gather>> {
        let inputs = self.inner.loaded(loaded)?;
        self.gather_to(&inputs)
    }

    /// That of a place, made where it is not there. Others go with the last program for their place.
    fn gather_to(&mut self, inputs: &Arc<Inputs>) -> Result<Arc<Gather>> {
        let needed = |gather: &Arc<Gather>| Arc::strong_count(gather) > 1;
        let in_use = |gather: &Arc<Gather>| Arc::strong_count(&gather.inputs) > 1;
        self.gathers
            .retain(|gather| needed(gather) || in_use(gather));
        let of = |gather: &&Arc<Gather>| Arc::ptr_eq(&gather.inputs, inputs);
        if let Some(known) = self.gathers.iter().find(of) {
            return Ok(Arc::clone(known));
        }
        let gather = Arc::new(Gather::new(&self.data, inputs)?);
        self.gathers.push(Arc::clone(&gather));
        Ok(gather)
    }

    fn fill(&mut self, slot: Slot, rows: &Rows, groups: usize) -> Result<Loaded> {
        self.data.check(rows)?;
        check_weights(rows.weights())?;
        let inputs = self.inner.place(slot, rows.len())?;
        let gather = self.gather_to(&inputs)?;
        let gpu = self.inner.gpu();
        gpu.upload(&gather.index, 0, rows.numbers())?;
        gpu.upload(&gather.weights, 0, rows.weights())?;
        gpu.upload(&inputs.total, 0, &[rows.total_weight() as f32])?;
        gpu.submit(|recorder| recorder.replay(&gather.run))?;
        Ok(Loaded {
            slot,
            rows: rows.len(),
            examples: rows.examples(),
            groups,
        })
    }
}

impl Objective for Resident {
    type Batch = Rows;

    fn gpu(&self) -> &Gpu {
        self.inner.gpu()
    }

    fn layout(&self) -> &Arc<Layout> {
        self.inner.layout()
    }

    fn load(&mut self, slot: Slot, batch: &Rows) -> Result<Loaded> {
        self.fill(slot, batch, 1)
    }

    fn gradient(
        &mut self,
        at: &Vector,
        loaded: &Loaded,
        request: GradientRequest,
    ) -> Result<Arc<Gradient>> {
        self.inner.gradient(at, loaded, request)
    }

    fn locate(&mut self, parameters: &[Vec<f32>], batch: &Rows, budget: u64) -> Result<Located> {
        let batch = batch.batch(self.data.host())?;
        self.inner.locate(parameters, &batch, budget)
    }
}

impl Curved for Resident {
    fn quadratic(
        &mut self,
        at: &Vector,
        loaded: &Loaded,
        request: QuadraticRequest,
    ) -> Result<Arc<Quadratic>> {
        self.inner.quadratic(at, loaded, request)
    }

    fn layered(&self) -> Result<&dyn Layered<Batch = Self::Batch>> {
        Ok(self)
    }

    fn layered_mut(&mut self) -> Result<&mut dyn Layered<Batch = Self::Batch>> {
        Ok(self)
    }
}

impl Parts for Resident {
    fn rows(&self, batch: &Rows) -> Option<usize> {
        Some(batch.len())
    }

    fn part(&self, batch: &Rows, ranges: &[Range<usize>]) -> Result<Rows> {
        batch.part(ranges)
    }

    fn load_groups(&mut self, slot: Slot, batch: &Rows, groups: usize) -> Result<Loaded> {
        self.fill(slot, &batch.in_groups(groups)?, groups)
    }

    fn grouped(
        &mut self,
        at: &Vector,
        loaded: &Loaded,
        request: GroupRequest,
    ) -> Result<Arc<GroupedQuadratic>> {
        self.inner.grouped(at, loaded, request)
    }
}

impl Layered for Resident {
    fn structure(&self, request: KroneckerRequest) -> Result<KroneckerStructure> {
        self.inner.structure(request)
    }

    fn kronecker(
        &mut self,
        at_and_inverses: [&Vector; 2],
        loaded: &Loaded,
        request: KroneckerRequest,
    ) -> Result<Arc<Kronecker>> {
        self.inner.kronecker(at_and_inverses, loaded, request)
    }
}

impl SampleSpace for Resident {
    fn sample_system(
        &mut self,
        at: &Vector,
        loaded: &Loaded,
        request: SampleRequest,
    ) -> Result<Arc<SampleSystem>> {
        self.inner.sample_system(at, loaded, request)
    }
}
