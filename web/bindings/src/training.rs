//! One run: a method on the problem `digits-mlp` of the command line, a step at a time.

use osculant::Result;
use osculant::data::{Dataset, Epochs, digits};
use osculant::gpu::Gpu;
use osculant::graph::twin::{self, Leaves};
use osculant::linalg::CgOptions;
use osculant::nn::{Activation, Loss, Sequential};
use osculant::objective::{GraphObjective, Objective};
use osculant::optim::{Adam, AdamOptions, AdaptiveDamping, NewtonCg, NewtonCgOptions, Optimizer};
use osculant::vector::Vector;

/// Part of the rows that is never trained on, and the seed of that split: those of the command line.
const TEST_PART: f64 = 0.2;
const SPLIT_SEED: u64 = 0;
/// Units between pixels and answers.
const HIDDEN: usize = 32;
/// Answers.
pub const CLASSES: usize = 10;

/// A method, with the settings that `osculant train digits-mlp` has when nothing is said.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Method {
    /// Newton's method by conjugate gradients.
    NewtonCg,
    /// Adam.
    Adam,
}

impl Method {
    /// Both.
    pub const ALL: [Self; 2] = [Self::NewtonCg, Self::Adam];

    /// The name on the command line and in the page.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::NewtonCg => "newton-cg",
            Self::Adam => "adam",
        }
    }

    /// The method of this name.
    #[must_use]
    pub fn named(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|method| method.name() == name)
    }

    /// Examples of a mini-batch.
    fn batch(self) -> usize {
        match self {
            Self::NewtonCg => 384,
            Self::Adam => 32,
        }
    }

    fn optimizer(self) -> Result<Box<dyn Optimizer<GraphObjective>>> {
        Ok(match self {
            Self::NewtonCg => {
                let options = NewtonCgOptions::default()
                    .with_cg(CgOptions::default().with_max_iterations(2))
                    .with_damping(AdaptiveDamping::default().with_initial(0.3));
                Box::new(NewtonCg::new(options)?)
            }
            Self::Adam => Box::new(Adam::new(AdamOptions::default().with_learning_rate(0.01))?),
        })
    }
}

/// How well the network does after some steps.
#[derive(Clone, Copy, Debug)]
pub struct Standing {
    /// Mean loss on the training rows.
    pub train_loss: f64,
    /// Mean loss on the test rows.
    pub test_loss: f64,
    /// Share of right answers on the test rows.
    pub accuracy: f64,
}

/// A run at one of its steps.
pub struct Training {
    train: Dataset,
    test: Dataset,
    objective: GraphObjective,
    theta: Vector,
    optimizer: Box<dyn Optimizer<GraphObjective>>,
    epochs: Epochs,
    steps: u32,
    examples: f64,
}

impl Training {
    /// A run at its first step. The seed decides about the initial parameters and the order of the rows.
    ///
    /// # Errors
    /// Limits of the device.
    pub fn new(gpu: &Gpu, method: Method, seed: u64) -> Result<Self> {
        let (train, test) = digits()?.split(TEST_PART, SPLIT_SEED)?;
        let network = Sequential::new()
            .dense(HIDDEN)
            .activation(Activation::Tanh)
            .dense(CLASSES);
        let model = network.model(&train, Loss::SoftmaxCrossEntropy);
        let objective = GraphObjective::new(gpu, model)?;
        Ok(Self {
            theta: objective.initial_parameters(seed)?,
            objective,
            optimizer: method.optimizer()?,
            epochs: Epochs::new(train.len(), method.batch(), seed)?,
            train,
            test,
            steps: 0,
            examples: 0.0,
        })
    }

    /// One step on the next mini-batch, and the loss of that batch before it.
    ///
    /// # Errors
    /// Numbers that are not finite, loss of the device.
    pub async fn step(&mut self) -> Result<f64> {
        let rows = self.epochs.batch();
        // A short last batch of an epoch is filled up with rows of weight zero, so that nothing is compiled again.
        let batch = self.train.batch(self.epochs.next_batch())?.pad_to(rows)?;
        let step = self
            .optimizer
            .step_async(&mut self.objective, &self.theta, &batch);
        let report = step.await?;
        self.steps += 1;
        self.examples += report.work;
        Ok(report.loss_before)
    }

    /// Steps taken.
    #[must_use]
    pub fn steps(&self) -> u32 {
        self.steps
    }

    /// Work done, in epochs: a gradient of every training row is 1.
    #[must_use]
    pub fn work(&self) -> f64 {
        self.examples / self.train.len() as f64
    }

    /// How well the network does now.
    ///
    /// # Errors
    /// Loss of the device.
    pub async fn evaluate(&mut self) -> Result<Standing> {
        let train = self
            .objective
            .evaluate_async(&self.theta, &self.train)
            .await?;
        let test = self
            .objective
            .evaluate_async(&self.theta, &self.test)
            .await?;
        Ok(Standing {
            train_loss: train.loss,
            test_loss: test.loss,
            accuracy: test.metric.unwrap_or(f64::NAN),
        })
    }

    /// The probability that the network gives to each answer for a picture.
    ///
    /// One picture is computed by the processor, with the graph's twin in f64: the parameters have to come from the device, and with them
    /// there the rest takes less than a millisecond.
    ///
    /// # Errors
    /// A picture of another size, loss of the device.
    pub async fn probabilities(&self, pixels: &[f32]) -> Result<Vec<f64>> {
        let traced = self.objective.model().trace(1)?;
        let parameters = self.theta.read_async(self.objective.gpu()).await?;
        let wide = |values: &[f32]| values.iter().map(|&value| f64::from(value)).collect();
        let leaves = Leaves {
            parameters: parameters.iter().map(|tensor| wide(tensor)).collect(),
            inputs: vec![wide(pixels)],
            directions: Vec::new(),
        };
        let outputs = twin::evaluate(&traced.graph, &leaves, &[traced.outputs])?;
        Ok(softmax(&outputs[0]))
    }
}

fn softmax(outputs: &[f64]) -> Vec<f64> {
    let largest = outputs.iter().copied().fold(f64::NEG_INFINITY, f64::max);
    let powers: Vec<f64> = outputs.iter().map(|z| (z - largest).exp()).collect();
    let sum: f64 = powers.iter().sum();
    powers.into_iter().map(|power| power / sum).collect()
}
