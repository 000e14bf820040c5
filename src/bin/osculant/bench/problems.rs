//! The networks of the benchmark as data sets, models and initial parameters.

use osculant::data::{Dataset, Targets};
use osculant::nn::{Activation, Loss, Model, Sequential};

use crate::synthetic::{CLASSES, Hidden, NETWORKS, Network};

/// A network that is timed, with its batch and its parameters.
pub(crate) struct Problem {
    /// Name in tables and in JSON.
    pub(crate) name: &'static str,
    /// Widths, from the inputs to the outputs.
    pub(crate) sizes: &'static [usize],
    /// Activation between the layers.
    pub(crate) activation: Activation,
    /// What is minimised.
    pub(crate) loss: Loss,
    /// Number of examples.
    pub(crate) batch: usize,
    /// The examples; the batch is all of them.
    pub(crate) dataset: Dataset,
    /// Weight and bias of each layer in turn, as [`osculant::vector::Vector::write`] takes them.
    pub(crate) parameters: Vec<Vec<f32>>,
}

impl Problem {
    /// The network with its loss.
    pub(crate) fn model(&self) -> Model {
        let layers = self.sizes.len() - 1;
        let mut network = Sequential::new();
        for (layer, &outputs) in self.sizes[1..].iter().enumerate() {
            network = network.dense(outputs);
            if layer + 1 < layers {
                network = network.activation(self.activation);
            }
        }
        if self.loss == Loss::MeanSquaredError {
            network = network.activation(Activation::Sigmoid);
        }
        network.model(&self.dataset, self.loss)
    }
}

/// All of them: `digits-mlp`, `fashion-mlp`, `mnist-autoencoder`, `wide-mlp`.
pub(crate) fn problems() -> osculant::Result<Vec<Problem>> {
    NETWORKS.iter().map(problem).collect()
}

fn problem(network: &Network) -> osculant::Result<Problem> {
    let (targets, loss) = if network.is_autoencoder() {
        (Targets::Inputs, Loss::MeanSquaredError)
    } else {
        let targets = Targets::Classes {
            labels: network.labels(),
            classes: CLASSES,
        };
        (targets, Loss::SoftmaxCrossEntropy)
    };
    let dataset = Dataset::new(network.name, network.features(), network.sizes[0], targets)?;
    let activation = match network.hidden {
        Hidden::Tanh => Activation::Tanh,
        Hidden::Relu => Activation::Relu,
        Hidden::Softplus => Activation::Softplus,
    };
    Ok(Problem {
        name: network.name,
        sizes: network.sizes,
        activation,
        loss,
        batch: network.batch,
        dataset,
        parameters: network.parameters(),
    })
}

#[cfg(test)]
mod tests {
    use osculant::data::Targets;
    use osculant::graph::twin::{Leaves, evaluate};

    use super::problems;

    /// Losses that PyTorch 2.15.0 gives for the same networks (`benches/peers/peers.py`), in f32. Five digits agree where weights,
    /// features, labels and the meaning of the loss do.
    #[test]
    fn losses_are_those_of_pytorch() -> osculant::Result<()> {
        let expected = [
            ("digits-mlp", 2.491_786_7),
            ("fashion-mlp", 2.575_283_5),
            ("mnist-autoencoder", 0.086_558_42),
            ("wide-mlp", 2.372_634_4),
        ];
        let problems = problems()?;
        assert_eq!(problems.len(), expected.len());
        for (problem, (name, expected)) in problems.iter().zip(expected) {
            assert_eq!(problem.name, name);
            let traced = problem.model().trace(problem.batch)?;
            let mut inputs = vec![widened(problem.dataset.features())];
            if let Targets::Classes { labels, .. } = problem.dataset.targets() {
                inputs.push(labels.iter().map(|&label| f64::from(label)).collect());
            }
            let leaves = Leaves {
                parameters: problem.parameters.iter().map(|p| widened(p)).collect(),
                inputs,
                directions: Vec::new(),
            };
            let losses = &evaluate(&traced.graph, &leaves, &[traced.losses])?[0];
            let loss = losses.iter().sum::<f64>() / problem.batch as f64;
            assert!(
                (loss - expected).abs() < 1e-5 * expected,
                "{name}: {loss} in place of {expected}"
            );
        }
        Ok(())
    }

    fn widened(values: &[f32]) -> Vec<f64> {
        values.iter().map(|&value| f64::from(value)).collect()
    }
}
