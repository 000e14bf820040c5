//! Parameters of a module, written on the device.

use burn::module::{Module, ModuleMapper, Param, ParamId};
use burn::tensor::{Device, Tensor};
use osculant::gpu::{Gpu, Slice};
use osculant::{Error, Result};

use crate::copies::Copies;
use crate::parameters::place;
use crate::stored::Stored;

/// The module with the numbers of slices as its trained parameters, in the order of their ids; to be differentiated, or not.
///
/// Nobody else sees them change: memory that only this module has is written where it is; in place of any other, such as that of a parameter
/// of which there is a clone, the module gets new memory. What fails comes with the module, whose numbers are then undefined.
pub(crate) fn write<M: Module>(
    gpu: &Gpu,
    module: M,
    ids: &[ParamId],
    from: &[Slice],
    differentiated: bool,
) -> (M, Result<()>) {
    let mut write = Write {
        ids,
        from,
        differentiated,
        copies: Copies::default(),
        error: None,
    };
    let module = module.map(&mut write);
    let done = match write.error {
        Some(error) => Err(error),
        None => write.copies.submit(gpu),
    };
    (module, done)
}

struct Write<'a> {
    ids: &'a [ParamId],
    from: &'a [Slice],
    differentiated: bool,
    copies: Copies,
    error: Option<Error>,
}

impl ModuleMapper for Write<'_> {
    fn map_float<const D: usize>(&mut self, param: Param<Tensor<D>>) -> Param<Tensor<D>> {
        let (id, tensor, mapper) = param.consume();
        let Some(at) = place(self.ids, id) else {
            return Param::from_mapped_value(id, tensor, mapper);
        };
        let (tensor, memory) = writable(tensor);
        match memory {
            Ok(memory) => self.copies.write(&self.from[at], memory),
            Err(error) => self.error = Some(error),
        }
        let tensor = tensor.set_require_grad(self.differentiated);
        Param::from_mapped_value(id, tensor, mapper)
    }
}

/// A tensor like this one, which depends on nothing, and its memory, which nobody else has.
fn writable<const D: usize>(tensor: Tensor<D>) -> (Tensor<D>, Result<Stored>) {
    let (shape, device) = (tensor.shape(), tensor.device());
    let inner = tensor.inner();
    let (inner, memory) = match Stored::unique(inner) {
        Ok((inner, Some(memory))) => (inner, Ok(memory)),
        other => {
            // First away with it: its memory may serve again.
            let failed = other.err();
            let new = Tensor::<D>::empty(shape, &device.clone().inner());
            let memory = failed.map_or_else(|| Stored::fresh(new.clone()), Err);
            (new, memory)
        }
    };
    (differentiable(inner, &device), memory)
}

/// A new tensor like another one, with the numbers of a slice.
pub(crate) fn tensor<const D: usize>(
    gpu: &Gpu,
    from: &Slice,
    like: &Tensor<D>,
) -> Result<Tensor<D>> {
    let device = like.device();
    let new = Tensor::<D>::empty(like.shape(), &device.clone().inner());
    let mut copies = Copies::default();
    copies.write(from, Stored::fresh(new.clone())?);
    copies.submit(gpu)?;
    Ok(differentiable(new, &device))
}

/// A tensor as one of a device with automatic differentiation, which depends on nothing.
fn differentiable<const D: usize>(tensor: Tensor<D>, device: &Device) -> Tensor<D> {
    let tensor = Tensor::from_inner(tensor);
    match device.gradient_checkpointing_strategy() {
        Some(strategy) => tensor.with_gradient_checkpointing_strategy(strategy),
        None => tensor,
    }
}
