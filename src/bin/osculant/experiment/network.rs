//! The network of an experiment, its loss, and what is reported of its answers.

use osculant::data::{Dataset, Targets};
use osculant::graph::Tensor;
use osculant::nn::{Activation, Init, Loss, Model, Output, Scope, Sequential};
use serde::Serialize;

use super::document::{Key, Section};
use crate::failure::Outcome;

/// What `[network]` may say.
pub(crate) const KEYS: [Key; 6] = [
    Key {
        name: "hidden",
        form: "the width of a layer from 1 on, or a list of widths",
        example: "[32, 16]",
    },
    Key {
        name: "activation",
        form: "the name of an activation",
        example: "\"tanh\"",
    },
    Key {
        name: "output",
        form: "the name of an activation",
        example: "\"identity\"",
    },
    Key {
        name: "initial",
        form: "the name of a distribution",
        example: "\"glorot\"",
    },
    Key {
        name: "loss",
        form: "the name of a loss",
        example: "\"softmax-cross-entropy\"",
    },
    Key {
        name: "l2",
        form: "a number from 0 on",
        example: "0.0001",
    },
];

pub(crate) const ACTIVATIONS: [(&str, Activation); 8] = [
    ("identity", Activation::Identity),
    ("relu", Activation::Relu),
    ("tanh", Activation::Tanh),
    ("sigmoid", Activation::Sigmoid),
    ("softplus", Activation::Softplus),
    ("gelu", Activation::Gelu),
    ("silu", Activation::Silu),
    ("sin", Activation::Sin),
];

pub(crate) const INITIAL: [(&str, Init); 3] = [
    ("glorot", Init::Glorot),
    ("he", Init::He),
    ("lecun", Init::LeCun),
];

pub(crate) const LOSSES: [(&str, Loss); 4] = [
    ("softmax-cross-entropy", Loss::SoftmaxCrossEntropy),
    ("binary-cross-entropy", Loss::BinaryCrossEntropy),
    ("mean-squares", Loss::MeanSquaredError),
    ("poisson", Loss::Poisson),
];

/// Dense layers with one activation between them, and another one behind the last.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub(crate) struct Network {
    hidden: Vec<usize>,
    #[serde(serialize_with = "by_name")]
    activation: (&'static str, Activation),
    #[serde(serialize_with = "by_name")]
    output: (&'static str, Activation),
    #[serde(serialize_with = "by_name")]
    initial: (&'static str, Init),
    #[serde(serialize_with = "by_name")]
    loss: (&'static str, Loss),
    l2: f32,
}

fn by_name<T, S: serde::Serializer>(
    choice: &(&'static str, T),
    serializer: S,
) -> Result<S::Ok, S::Error> {
    serializer.serialize_str(choice.0)
}

impl Network {
    pub(crate) fn read(section: &Section<'_>) -> Outcome<Self> {
        let loss = section.choice("loss", &LOSSES)?;
        let l2 = section.number("l2", |l2| l2 >= 0.0 && (l2 as f32).is_finite())?;
        Ok(Self {
            hidden: section
                .widths("hidden")?
                .ok_or_else(|| section.missing("hidden", "how wide are its layers?"))?,
            activation: section
                .choice("activation", &ACTIVATIONS)?
                .unwrap_or(("tanh", Activation::Tanh)),
            output: section
                .choice("output", &ACTIVATIONS)?
                .unwrap_or(("identity", Activation::Identity)),
            initial: section
                .choice("initial", &INITIAL)?
                .unwrap_or(("glorot", Init::Glorot)),
            loss: loss.ok_or_else(|| section.missing("loss", "what is minimised?"))?,
            l2: l2.unwrap_or(0.0) as f32,
        })
    }

    pub(crate) fn loss(&self) -> Loss {
        self.loss.1
    }

    pub(crate) fn l2(&self) -> f32 {
        self.l2
    }

    /// The network with its loss, of as many outputs as the data have classes or numbers.
    pub(crate) fn model(&self, data: &Dataset) -> Model {
        let outputs = outputs(data);
        let (init, loss) = (self.initial.1, self.loss.1);
        let hidden = self
            .hidden
            .iter()
            .fold(Sequential::new(), |network, &width| {
                network
                    .dense_with(width, init)
                    .activation(self.activation.1)
            });
        let network = hidden.dense_with(outputs, init).activation(self.output.1);
        Model::new(data, move |scope| {
            let z = network.apply(scope, scope.features());
            Output {
                losses: loss.apply(scope, z),
                outputs: z,
                metric: Some(metric(loss, scope, z)),
            }
        })
        .with_curvature_root(move |scope, z, signs| loss.curvature_root(scope, z, signs))
        .with_residuals(move |scope, z| loss.residuals(scope, z))
    }

    /// Widths, activations and loss in words.
    pub(crate) fn description(&self, data: &Dataset) -> String {
        let widths = std::iter::once(data.width())
            .chain(self.hidden.iter().copied())
            .chain([outputs(data)]);
        let widths: Vec<String> = widths.map(|width| width.to_string()).collect();
        let mut text = format!("network {}", widths.join("-"));
        if !self.hidden.is_empty() {
            text += &format!(" with {}", self.activation.0);
        }
        if self.output.1 != Activation::Identity {
            text += &format!(", outputs through {}", self.output.0);
        }
        text += &format!("; {}", self.loss.0);
        if self.l2 > 0.0 {
            text += &format!(", l2 {}", self.l2);
        }
        text
    }

    /// What is reported as accuracy, from the mean metric of rows: the share of right answers, or how much smaller the
    /// squared error is than that of the training targets' mean, which is `spread`.
    pub(crate) fn accuracy(&self, metric: f64, spread: f64) -> f64 {
        if self.has_classes() {
            metric
        } else {
            1.0 - metric / spread
        }
    }

    /// Whether answers are right or wrong, and not nearer or farther.
    pub(crate) fn has_classes(&self) -> bool {
        matches!(
            self.loss.1,
            Loss::SoftmaxCrossEntropy | Loss::BinaryCrossEntropy
        )
    }

    pub(crate) fn accuracy_name(&self) -> &'static str {
        if self.has_classes() {
            "accuracy"
        } else {
            "R squared"
        }
    }

    pub(crate) fn accuracy_meaning(&self) -> &'static str {
        match self.loss.1 {
            Loss::SoftmaxCrossEntropy => "the share of right answers",
            Loss::BinaryCrossEntropy => "the share of outputs on the right side of one half",
            _ => {
                "1 minus the squared error over that of answering with the mean of the training targets"
            }
        }
    }
}

fn outputs(data: &Dataset) -> usize {
    match data.targets() {
        Targets::Classes { classes, .. } => *classes,
        Targets::Values { width, .. } => *width,
        Targets::Inputs => data.width(),
    }
}

/// The metric of each example: 1 for a right answer and 0 for a wrong one, or a mean squared error of predictions.
fn metric<'b>(loss: Loss, scope: &Scope<'b>, z: Tensor<'b>) -> Tensor<'b> {
    let t = scope.targets();
    let terms = match loss {
        // An output that is not finite is on no side.
        Loss::BinaryCrossEntropy => {
            let (answer, truth) = (z.step(), (t - 0.5).step());
            z.is_finite()
                .select(1.0 - (answer - truth).square(), scope.constant(0.0))
        }
        Loss::Poisson => (z.exp() - t).square(),
        Loss::MeanSquaredError => (z - t).square(),
        _ => return loss.metric(scope, z),
    };
    terms.mean(&[1]).reshape(&[scope.rows()])
}
