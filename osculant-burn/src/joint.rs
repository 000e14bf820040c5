//! A module's evaluations as work of an objective over places of our own.

use std::sync::Arc;

use burn::module::Module;
use osculant::Result;
use osculant::gpu::Slice;
use osculant::nn::Loss;
use osculant::objective::{Buffer, OutputHessian, OwnKernels, OwnOutputs, OwnTensor};
use osculant::vector::{Layout, Vector};

use crate::SharedDevice;
use crate::network::Network;
use crate::parameters::Parameters;
use crate::session::{OutputPlaces, Places, Session};

/// The objective, and what its calls of the host share.
pub(crate) struct Joint<M> {
    own: OwnKernels,
    session: Arc<Session<M>>,
    /// Names and shapes.
    tensors: Vec<(String, Vec<usize>)>,
}

/// What is known of outputs.
pub(crate) struct OutputsOf {
    pub(crate) shape: [usize; 2],
    pub(crate) loss: Loss,
    pub(crate) factor: f32,
}

impl<M: Module + 'static> Joint<M> {
    pub(crate) fn new(shared: &SharedDevice, module: &M) -> Result<Self> {
        let tensors = Parameters::of(module, shared)?.tensors;
        Self::over(shared, tensors, None)
    }

    pub(crate) fn with_outputs(self, outputs: OutputsOf) -> Result<Self> {
        Self::over(self.session.shared(), self.tensors.clone(), Some(outputs))
    }

    fn over(
        shared: &SharedDevice,
        tensors: Vec<(String, Vec<usize>)>,
        outputs: Option<OutputsOf>,
    ) -> Result<Self> {
        let gpu = shared.gpu();
        let layout = Arc::new(Layout::new(&tensors)?);
        let places = Places {
            parameters: Vector::new(gpu, "parameters of a module", &layout)?,
            gradient: Vector::new(gpu, "gradient of a module", &layout)?,
            loss: gpu.buffer("loss of a module", 1)?,
            outputs: match &outputs {
                None => None,
                Some(outputs) => Some(OutputPlaces::new(gpu, outputs.shape)?),
            },
        };
        let session = Session::new(shared.clone(), places);
        let places = session.places();
        let own: Vec<OwnTensor<'_>> = tensors
            .iter()
            .zip(
                places
                    .parameters
                    .parts()
                    .iter()
                    .zip(places.gradient.parts()),
            )
            .map(|((name, shape), (parameters, gradient))| OwnTensor {
                name,
                shape,
                parameters: buffer(parameters),
                gradient: buffer(gradient),
            })
            .collect();
        let mut own =
            OwnKernels::new(gpu, &own, buffer(&places.loss), session.loss_and_gradient())?
                .with_loss(session.loss());
        if let (Some(outputs), Some(at)) = (&outputs, &places.outputs) {
            let outputs = OwnOutputs {
                shape: outputs.shape,
                outputs: buffer(&at.outputs),
                cotangent: buffer(&at.cotangent),
                hessian: OutputHessian::Of {
                    loss: outputs.loss,
                    factor: outputs.factor,
                },
            };
            own = own
                .with_outputs(outputs, session.forward(), session.cotangent())?
                .with_outputs_of_gradient()?
                .with_one_sided_outputs()?
                .with_examples(at.shape[0]);
        }
        Ok(Self {
            own,
            session,
            tensors,
        })
    }

    pub(crate) fn with_examples(mut self, examples: usize) -> Self {
        self.own = self.own.with_examples(examples);
        self
    }

    pub(crate) fn with_length(mut self, length: f32) -> Result<Self> {
        self.own = self.own.with_length(length)?;
        Ok(self)
    }

    /// Lets something be done with the parameters of a module, which are those of before where it fails.
    pub(crate) fn run<T>(
        &mut self,
        module: M,
        network: Network<M>,
        act: impl FnOnce(&mut OwnKernels) -> Result<T>,
    ) -> (M, Result<T>) {
        let found = Parameters::like(&module, self.session.shared(), &self.tensors);
        let begun = match found {
            Ok(found) => self.session.begin(module, found.ids, network),
            Err(error) => Err((module, error)),
        };
        if let Err((module, error)) = begun {
            return (module, Err(error));
        }
        let done = act(&mut self.own);
        let (module, written) = self.session.end();
        (module, done.and_then(|done| written.map(|()| done)))
    }
}

fn buffer(slice: &Slice) -> Buffer<'_> {
    (slice.buffer(), slice.offset_bytes())
}
