//! Layers one after another.

use super::activation::Activation;
use super::init::Init;
use super::loss::Loss;
use super::model::{DataShape, Model, Output, Scope};
use crate::graph::Tensor;

/// One layer.
#[derive(Clone, Debug)]
enum Layer {
    Dense { outputs: usize, init: Init },
    Activation(Activation),
}

/// A stack of layers.
#[derive(Clone, Debug, Default)]
pub struct Sequential {
    layers: Vec<Layer>,
}

impl Sequential {
    /// No layers yet.
    pub fn new() -> Self {
        Self::default()
    }

    /// A dense layer with Glorot weights and zero biases. Its parameters are `denseK.weight` and `denseK.bias`, counted from 0.
    #[must_use]
    pub fn dense(self, outputs: usize) -> Self {
        self.dense_with(outputs, Init::Glorot)
    }

    /// A dense layer with weights of this distribution.
    #[must_use]
    pub fn dense_with(mut self, outputs: usize, init: Init) -> Self {
        self.layers.push(Layer::Dense { outputs, init });
        self
    }

    /// An activation.
    #[must_use]
    pub fn activation(mut self, activation: Activation) -> Self {
        self.layers.push(Layer::Activation(activation));
        self
    }

    /// The outputs for inputs `x` `[rows, inputs]`.
    pub fn apply<'b>(&self, scope: &Scope<'b>, x: Tensor<'b>) -> Tensor<'b> {
        let mut index = 0;
        self.layers.iter().fold(x, |x, layer| match layer {
            Layer::Dense { outputs, init } => {
                let name = format!("dense{index}");
                index += 1;
                scope.dense(&name, x, *outputs, *init)
            }
            Layer::Activation(activation) => activation.apply(x),
        })
    }

    /// The model that applies these layers to the features and minimises `loss`.
    pub fn model(self, shape: impl Into<DataShape>, loss: Loss) -> Model {
        Model::new(shape, move |scope| {
            let outputs = self.apply(scope, scope.features());
            Output {
                losses: loss.apply(scope, outputs),
                outputs,
                metric: Some(loss.metric(scope, outputs)),
            }
        })
        .with_curvature_root(move |scope, z, signs| loss.curvature_root(scope, z, signs))
        .with_residuals(move |scope, z| loss.residuals(scope, z))
    }
}

/// An autoencoder: encoder and decoder of one layer each, `width-code-width`.
pub fn autoencoder(
    width: usize,
    code: usize,
    hidden: Activation,
    output: Activation,
) -> Sequential {
    Sequential::new()
        .dense(code)
        .activation(hidden)
        .dense(width)
        .activation(output)
}
