//! What a caller says of a module: the loss, or outputs and the loss of them.

use burn::tensor::Tensor;
use osculant::{Error, Result};

/// Loss of a module.
type LossOf<M> = Box<dyn FnMut(&M) -> Tensor<1> + Send>;
/// Outputs of a module.
type OutputsOf<M> = Box<dyn FnMut(&M) -> Tensor<2> + Send>;
/// Loss of outputs.
type LossOfOutputs = Box<dyn FnMut(Tensor<2>) -> Tensor<1> + Send>;

/// How the loss depends on a module, on the batch of a step.
pub(crate) enum Network<M> {
    /// The loss alone is known.
    Loss(LossOf<M>),
    /// Also the outputs on the way.
    Outputs(OutputsOf<M>, LossOfOutputs),
}

impl<M> Network<M> {
    /// The loss, of one element, and the outputs on the way, which are of this shape.
    pub(crate) fn loss(
        &mut self,
        module: &M,
        shape: Option<[usize; 2]>,
    ) -> Result<(Tensor<1>, Option<Tensor<2>>)> {
        let outputs = match shape {
            Some(shape) => Some(self.outputs(module, shape)?),
            None => None,
        };
        let loss = match (self, &outputs) {
            (Self::Loss(loss), _) => loss(module),
            (Self::Outputs(_, loss), Some(outputs)) => loss(outputs.clone()),
            (Self::Outputs(outputs, loss), None) => loss(outputs(module)),
        };
        differentiable("the loss", loss.is_autodiff())?;
        let [elements] = loss.dims();
        if elements == 1 {
            return Ok((loss, outputs));
        }
        Err(Error::Shape {
            node: "the loss of a module".into(),
            message: format!(
                "it has {elements} elements, and a loss has one: end it with `mean()` or `sum()`"
            ),
        })
    }

    /// The outputs, of this shape.
    pub(crate) fn outputs(&mut self, module: &M, shape: [usize; 2]) -> Result<Tensor<2>> {
        let Self::Outputs(outputs, _) = self else {
            return Err(Error::Unsupported {
                what: "the outputs of a module".into(),
                message: "its loss alone is known".into(),
            });
        };
        let outputs = outputs(module);
        differentiable("the outputs", outputs.is_autodiff())?;
        let found = outputs.dims();
        if found == shape {
            return Ok(outputs);
        }
        Err(Error::Shape {
            node: "the outputs of a module".into(),
            message: format!(
                "they are {found:?}, and the objective was made for {shape:?}, rows and outputs of each: make one for each size of batch"
            ),
        })
    }
}

fn differentiable(what: &str, is: bool) -> Result<()> {
    if is {
        return Ok(());
    }
    Err(Error::Unsupported {
        what: format!("a gradient of {what} of a module"),
        message: "it came without automatic differentiation: leave out `valid()` and `inner()` on the way".into(),
    })
}
