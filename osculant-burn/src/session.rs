//! What burn computes within a step, as work of osculant's.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use burn::module::{Module, ParamId};
use burn::tensor::Tensor;
use osculant::gpu::{Gpu, Slice, Work};
use osculant::vector::Vector;
use osculant::{Error, Result};

use crate::SharedDevice;
use crate::copies::Copies;
use crate::network::Network;
use crate::parameters::{gather, gather_gradients};
use crate::write::write;

/// Where numbers change hands: copied there by one side, and from there by the other.
#[derive(Debug)]
pub(crate) struct Places {
    pub(crate) parameters: Vector,
    pub(crate) gradient: Vector,
    pub(crate) loss: Slice,
    pub(crate) outputs: Option<OutputPlaces>,
}

/// Of outputs, and of a cotangent of them.
#[derive(Debug)]
pub(crate) struct OutputPlaces {
    pub(crate) shape: [usize; 2],
    pub(crate) outputs: Slice,
    pub(crate) cotangent: Slice,
}

impl OutputPlaces {
    pub(crate) fn new(gpu: &Gpu, shape: [usize; 2]) -> Result<Self> {
        // Whether it is a shape at all is looked at with the outputs.
        let elements = shape[0].saturating_mul(shape[1]).max(1);
        Ok(Self {
            shape,
            outputs: gpu.buffer("outputs of a module", elements)?,
            cotangent: gpu.buffer("cotangent of the outputs of a module", elements)?,
        })
    }
}

/// The module of a step that is under way.
struct Current<M> {
    module: M,
    ids: Vec<ParamId>,
    network: Network<M>,
    /// Outputs that can be differentiated, of the last forward pass.
    tape: Option<Tensor<2>>,
}

/// What calls of the host share: at most one step is under way.
pub(crate) struct Session<M> {
    shared: SharedDevice,
    places: Places,
    current: Mutex<Option<Current<M>>>,
}

/// What one call of the host leaves in its place.
#[derive(Clone, Copy)]
enum Pass {
    /// And the outputs, where they have a place.
    LossAndGradient,
    Loss,
    /// The outputs, and a graph of them.
    Forward,
    /// `J^T u` where the gradient goes, of the cotangent `u`.
    Cotangent,
}

impl<M: Module + 'static> Session<M> {
    pub(crate) fn new(shared: SharedDevice, places: Places) -> Arc<Self> {
        Arc::new(Self {
            shared,
            places,
            current: Mutex::new(None),
        })
    }

    pub(crate) fn places(&self) -> &Places {
        &self.places
    }

    pub(crate) fn shared(&self) -> &SharedDevice {
        &self.shared
    }

    /// Begins a step: the parameters of the module are in their place from then on. Where it fails the module comes back.
    pub(crate) fn begin(
        &self,
        module: M,
        ids: Vec<ParamId>,
        network: Network<M>,
    ) -> std::result::Result<(), (M, Error)> {
        let gathered = gather(&module, &ids, self.places.parameters.parts());
        if let Err(error) = gathered.and_then(|copies| copies.submit(self.shared.gpu())) {
            return Err((module, error));
        }
        *self.lock() = Some(Current {
            module,
            ids,
            network,
            tape: None,
        });
        Ok(())
    }

    /// Ends the step that was begun: the module, with the parameters that are in their place.
    pub(crate) fn end(&self) -> (M, Result<()>) {
        let Current { module, ids, .. } = self.lock().take().expect("a step that was begun");
        let from = self.places.parameters.parts();
        write(self.shared.gpu(), module, &ids, from, true)
    }

    /// The loss and its gradient at the parameters that are in their place.
    pub(crate) fn loss_and_gradient(self: &Arc<Self>) -> Work {
        self.work(Pass::LossAndGradient)
    }

    /// The loss alone.
    pub(crate) fn loss(self: &Arc<Self>) -> Work {
        self.work(Pass::Loss)
    }

    /// The outputs, and a graph for [`cotangent`](Self::cotangent).
    pub(crate) fn forward(self: &Arc<Self>) -> Work {
        self.work(Pass::Forward)
    }

    /// `J^T u` of the last forward pass, where the gradient goes.
    pub(crate) fn cotangent(self: &Arc<Self>) -> Work {
        self.work(Pass::Cotangent)
    }

    fn work(self: &Arc<Self>, pass: Pass) -> Work {
        let session = Arc::clone(self);
        Work::hosted(move |gpu| session.run(gpu, pass))
    }

    fn run(&self, gpu: &Gpu, pass: Pass) -> Result<()> {
        let mut current = self.lock();
        let now = current.take().ok_or_else(|| Error::Unsupported {
            what: "the loss of a module outside of a step".into(),
            message: "call `step` or `check` of the objective of the module".into(),
        })?;
        if let Pass::Cotangent = pass {
            let now = current.insert(now);
            return self.pull_back(gpu, now);
        }
        let differentiated = matches!(pass, Pass::LossAndGradient | Pass::Forward);
        let from = self.places.parameters.parts();
        let (module, written) = write(gpu, now.module, &now.ids, from, differentiated);
        let now = current.insert(Current {
            module,
            tape: None,
            ..now
        });
        written?;
        match pass {
            Pass::Forward => self.evaluate_outputs(gpu, now),
            _ => self.evaluate(gpu, now, differentiated),
        }
    }

    fn evaluate(&self, gpu: &Gpu, now: &mut Current<M>, differentiated: bool) -> Result<()> {
        let places = &self.places.outputs;
        let shape = places.as_ref().map(|places| places.shape);
        let (loss, outputs) = now.network.loss(&now.module, shape)?;
        let mut copies = match differentiated {
            true => {
                let (gradients, to) = (loss.backward(), self.places.gradient.parts());
                gather_gradients(&now.module, &now.ids, to, gradients)?
            }
            false => Copies::default(),
        };
        if let (true, Some(outputs), Some(places)) = (differentiated, outputs, places) {
            copies.read(outputs.inner(), &places.outputs)?;
        }
        copies.read(loss.inner(), &self.places.loss)?;
        copies.submit(gpu)
    }

    fn evaluate_outputs(&self, gpu: &Gpu, now: &mut Current<M>) -> Result<()> {
        let places = self.output_places()?;
        let outputs = now.network.outputs(&now.module, places.shape)?;
        let mut copies = Copies::default();
        copies.read(outputs.clone().inner(), &places.outputs)?;
        now.tape = Some(outputs);
        copies.submit(gpu)
    }

    fn pull_back(&self, gpu: &Gpu, now: &mut Current<M>) -> Result<()> {
        let places = self.output_places()?;
        let outputs = now.tape.take().ok_or_else(|| Error::Unsupported {
            what: "a backward pass".into(),
            message: "a forward pass comes before it".into(),
        })?;
        let cotangent = crate::write::tensor(gpu, &places.cotangent, &outputs)?;
        let gradients = (outputs * cotangent).sum().backward();
        let to = self.places.gradient.parts();
        gather_gradients(&now.module, &now.ids, to, gradients)?.submit(gpu)
    }

    fn output_places(&self) -> Result<&OutputPlaces> {
        self.places
            .outputs
            .as_ref()
            .ok_or_else(|| Error::Unsupported {
                what: "outputs".into(),
                message: "see `ModuleObjective::with_outputs`".into(),
            })
    }

    /// Whoever panicked with the lock took the step with it.
    fn lock(&self) -> MutexGuard<'_, Option<Current<M>>> {
        self.current.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
