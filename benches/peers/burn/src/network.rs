//! A network with its batch, as burn tensors.

use std::error::Error;

use burn::tensor::module::linear;
use burn::tensor::{Device, Tensor, TensorData, activation};

use crate::synthetic::{CLASSES, Hidden, Network};

/// A network, its parameters and its batch on an autodiff device.
pub(crate) struct Problem {
    pub(crate) name: &'static str,
    hidden: Hidden,
    is_autoencoder: bool,
    layers: Vec<(Tensor<2>, Tensor<1>)>,
    features: Tensor<2>,
    /// One-hot rows, or the features.
    targets: Tensor<2>,
}

impl Problem {
    pub(crate) fn new(network: &Network, device: &Device) -> Self {
        let matrix = |values: Vec<f32>, rows: usize, columns: usize| {
            Tensor::<2>::from_data(TensorData::new(values, [rows, columns]), device)
        };
        let features = matrix(network.features(), network.batch, network.sizes[0]);
        let targets = if network.is_autoencoder() {
            features.clone()
        } else {
            let mut one_hot = vec![0.0; network.batch * CLASSES];
            for (row, label) in network.labels().into_iter().enumerate() {
                one_hot[row * CLASSES + label as usize] = 1.0;
            }
            matrix(one_hot, network.batch, CLASSES)
        };
        let mut tensors = network.parameters().into_iter();
        let mut layers = Vec::new();
        for widths in network.sizes.windows(2) {
            let (weight, bias) = (
                tensors.next().unwrap_or_default(),
                tensors.next().unwrap_or_default(),
            );
            let bias = Tensor::<1>::from_data(TensorData::new(bias, [widths[1]]), device);
            layers.push((
                matrix(weight, widths[0], widths[1]).require_grad(),
                bias.require_grad(),
            ));
        }
        Self {
            name: network.name,
            hidden: network.hidden,
            is_autoencoder: network.is_autoencoder(),
            layers,
            features,
            targets,
        }
    }

    /// The loss of the batch: mean squared error over batch and outputs, or mean softmax cross-entropy.
    pub(crate) fn loss(&self) -> Tensor<1> {
        let mut x = self.features.clone();
        for (index, (weight, bias)) in self.layers.iter().enumerate() {
            x = linear(x, weight.clone(), Some(bias.clone()));
            if index + 1 < self.layers.len() {
                x = match self.hidden {
                    Hidden::Tanh => activation::tanh(x),
                    Hidden::Relu => activation::relu(x),
                    Hidden::Softplus => activation::softplus(x, 1.0),
                };
            }
        }
        if self.is_autoencoder {
            let difference = activation::sigmoid(x) - self.targets.clone();
            (difference.clone() * difference).mean()
        } else {
            let rows = x.dims()[0] as f32;
            (activation::log_softmax(x, 1) * self.targets.clone())
                .sum()
                .div_scalar(-rows)
        }
    }

    /// Forward and backward: the gradient of every parameter.
    pub(crate) fn gradient(&self) -> Result<Vec<(Tensor<2>, Tensor<1>)>, Box<dyn Error>> {
        let gradients = self.loss().backward();
        self.layers
            .iter()
            .map(|(weight, bias)| weight.grad(&gradients).zip(bias.grad(&gradients)))
            .collect::<Option<_>>()
            .ok_or_else(|| format!("{}: a parameter got no gradient", self.name).into())
    }

    /// Euclidean length of the gradient.
    pub(crate) fn gradient_norm(&self) -> Result<f64, Box<dyn Error>> {
        let mut squares = 0.0;
        for (weight, bias) in self.gradient()? {
            for data in [weight.into_data(), bias.into_data()] {
                let values = data.try_to_vec::<f32>()?;
                squares += values
                    .iter()
                    .map(|&value| f64::from(value).powi(2))
                    .sum::<f64>();
            }
        }
        Ok(squares.sqrt())
    }
}
