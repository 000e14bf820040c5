//! The handwritten digits, as tensors.

use burn::tensor::{Int, Tensor, TensorData};
use osculant::data::{Dataset, Targets};
use osculant_burn::SharedDevice;

use crate::Any;
use crate::network::{Mlp, cross_entropy};

/// Some rows.
pub(crate) struct Rows {
    pub(crate) features: Tensor<2>,
    pub(crate) labels: Tensor<1, Int>,
}

/// To train with, and to test with.
pub(crate) fn digits(shared: &SharedDevice) -> Result<(Rows, Rows), Any> {
    let (train, test) = osculant::data::digits()?.split(0.2, 0)?;
    Ok((Rows::new(shared, &train)?, Rows::new(shared, &test)?))
}

impl Rows {
    fn new(shared: &SharedDevice, data: &Dataset) -> Result<Self, Any> {
        let device = shared.device();
        let Targets::Classes { labels, .. } = data.targets() else {
            return Err("the digits have classes".into());
        };
        let labels: Vec<i32> = labels.iter().map(|&label| label as i32).collect();
        let features = TensorData::new(data.features().to_vec(), [data.len(), data.width()]);
        Ok(Self {
            features: Tensor::from_data(features, &device),
            labels: Tensor::from_data(TensorData::new(labels, [data.len()]), &device),
        })
    }

    pub(crate) fn len(&self) -> usize {
        self.features.dims()[0]
    }

    /// Whole batches, in order; the rows are in none.
    pub(crate) fn batches(&self, size: usize) -> impl Iterator<Item = Self> {
        (0..self.len() / size).map(move |at| Self {
            features: self.features.clone().narrow(0, at * size, size),
            labels: self.labels.clone().narrow(0, at * size, size),
        })
    }

    pub(crate) fn loss(&self, module: &Mlp) -> Result<f32, Any> {
        let scores = module.forward(self.features.clone());
        let loss = cross_entropy(scores, self.labels.clone());
        Ok(loss.into_data().try_to_vec::<f32>()?[0])
    }

    /// In per cent.
    pub(crate) fn accuracy(&self, module: &Mlp) -> Result<f32, Any> {
        let scores = module.forward(self.features.clone());
        let found = scores.argmax(1).flatten::<1>(0, 1);
        let right = found.equal(self.labels.clone()).float().mean();
        Ok(100.0 * right.into_data().try_to_vec::<f32>()?[0])
    }
}
