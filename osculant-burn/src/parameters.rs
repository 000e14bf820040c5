//! The parameters of a module that are trained.

use burn::module::{Module, ModuleVisitor, Param, ParamId};
use burn::tensor::{Bool, DType, Gradients, Int, Tensor};
use osculant::gpu::Slice;
use osculant::{Error, Result};

use crate::SharedDevice;
use crate::copies::Copies;

/// Which parameters are trained, in the order in which burn visits them: those that require gradients.
#[derive(Clone, Debug, Default)]
pub(crate) struct Parameters {
    pub(crate) ids: Vec<ParamId>,
    /// Names, by the fields on the way, and shapes.
    pub(crate) tensors: Vec<(String, Vec<usize>)>,
}

impl Parameters {
    /// Those of a module on this device.
    pub(crate) fn of<M: Module>(module: &M, shared: &SharedDevice) -> Result<Self> {
        let mut find = Find {
            shared,
            path: Vec::new(),
            found: Ok(Self::default()),
        };
        module.visit(&mut find);
        find.found
    }

    /// Those of a module that is to have the names and shapes of another one's.
    pub(crate) fn like<M: Module>(
        module: &M,
        shared: &SharedDevice,
        expected: &[(String, Vec<usize>)],
    ) -> Result<Self> {
        let found = Self::of(module, shared)?;
        let (now, then) = (&found.tensors, expected);
        let Some(at) = (0..now.len().max(then.len())).find(|&at| now.get(at) != then.get(at))
        else {
            return Ok(found);
        };
        let tell = |tensors: &[(String, Vec<usize>)]| match tensors.get(at) {
            Some((name, shape)) => format!("'{name}' of shape {shape:?}"),
            None => "none".into(),
        };
        Err(Error::Shape {
            node: format!("parameter {at} of the module"),
            message: format!(
                "it is {}, and was {} when the objective was made: make a new one for this module",
                tell(now),
                tell(then)
            ),
        })
    }
}

struct Find<'a> {
    shared: &'a SharedDevice,
    path: Vec<String>,
    found: Result<Parameters>,
}

impl Find<'_> {
    fn name(&self) -> String {
        match self.path.is_empty() {
            true => "parameter".into(),
            false => self.path.join("."),
        }
    }

    fn refuse(&mut self, what: &str, message: &str) {
        if self.found.is_ok() {
            self.found = Err(Error::Unsupported {
                what: format!("training '{}', {what},", self.name()),
                message: message.into(),
            });
        }
    }
}

impl ModuleVisitor for Find<'_> {
    fn enter_module(&mut self, name: &str, _container: &str) {
        self.path.push(name.to_owned());
    }

    fn exit_module(&mut self, _name: &str, _container: &str) {
        self.path.pop();
    }

    fn visit_float<const D: usize>(&mut self, param: &Param<Tensor<D>>) {
        let device = param.device();
        if !self.shared.is(&device) {
            return self.refuse(
                &format!("which is on another device ({device:?})"),
                "make the module on `SharedDevice::device()`, or move it there by `Module::fork`",
            );
        }
        if !device.is_autodiff() {
            return self.refuse(
                "which is on a device without automatic differentiation",
                "make the module on `SharedDevice::device()`, or turn it by `Module::train`",
            );
        }
        if !param.is_require_grad() {
            return;
        }
        if param.dtype() != DType::F32 {
            let what = format!("whose numbers are {:?}", param.dtype());
            return self.refuse(
                &what,
                "parameters are f32; cast it, or freeze it by `Module::set_require_grad_group`",
            );
        }
        let name = self.name();
        let Ok(found) = &mut self.found else {
            return;
        };
        if found.ids.contains(&param.id) {
            return self.refuse(
                "which occurs twice in the module",
                "have one field for it, and use that in both places",
            );
        }
        found.ids.push(param.id);
        found.tensors.push((name, param.dims().to_vec()));
    }

    fn visit_int<const D: usize>(&mut self, _param: &Param<Tensor<D, Int>>) {
        self.refuse(
            "which has integers",
            "there are no gradients of it: make the field a tensor in place of a parameter",
        );
    }

    fn visit_bool<const D: usize>(&mut self, _param: &Param<Tensor<D, Bool>>) {
        self.refuse(
            "which has booleans",
            "there are no gradients of it: make the field a tensor in place of a parameter",
        );
    }
}

/// Copies of a module's parameters to slices, in the order of their ids.
pub(crate) fn gather<M: Module>(module: &M, ids: &[ParamId], to: &[Slice]) -> Result<Copies> {
    collect(module, ids, to, None)
}

/// Copies of the gradients of a module's parameters to slices: zeros where the loss does not depend on one.
pub(crate) fn gather_gradients<M: Module>(
    module: &M,
    ids: &[ParamId],
    to: &[Slice],
    gradients: Gradients,
) -> Result<Copies> {
    collect(module, ids, to, Some(gradients))
}

fn collect<M: Module>(
    module: &M,
    ids: &[ParamId],
    to: &[Slice],
    gradients: Option<Gradients>,
) -> Result<Copies> {
    let mut gather = Gather {
        ids,
        to,
        gradients,
        copies: Ok(Copies::default()),
    };
    module.visit(&mut gather);
    gather.copies
}

struct Gather<'a> {
    ids: &'a [ParamId],
    to: &'a [Slice],
    /// To be gathered in place of the parameters.
    gradients: Option<Gradients>,
    copies: Result<Copies>,
}

impl ModuleVisitor for Gather<'_> {
    fn visit_float<const D: usize>(&mut self, param: &Param<Tensor<D>>) {
        let (Some(at), Ok(copies)) = (place(self.ids, param.id), &mut self.copies) else {
            return;
        };
        let (value, to) = (param.val(), &self.to[at]);
        let tensor = match &mut self.gradients {
            None => Some(value.inner()),
            Some(gradients) => value.grad_remove(gradients),
        };
        match tensor {
            None => copies.zeros(to),
            Some(tensor) => {
                if let Err(error) = copies.read(tensor, to) {
                    self.copies = Err(error);
                }
            }
        }
    }
}

/// Which of the trained parameters one is.
pub(crate) fn place(ids: &[ParamId], id: ParamId) -> Option<usize> {
    ids.iter().position(|&known| known == id)
}
