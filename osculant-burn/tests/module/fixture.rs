//! A network as a module of burn's and as a graph, and a batch for both.

use std::sync::OnceLock;

use burn::module::{Module, ModuleVisitor, Param};
use burn::nn::loss::CrossEntropyLossConfig;
use burn::nn::{Linear, LinearConfig};
use burn::tensor::{DeviceKind, Int, Tensor, TensorData};
use osculant::data::{Batch, Targets, digits};
use osculant::nn::{Activation, DataShape, Loss, Model, Sequential, TargetShape};
use osculant_burn::SharedDevice;

/// The device of all tests: software, or with `OSCULANT_BURN_DEVICE=default` what burn takes by default.
pub(crate) fn shared() -> &'static SharedDevice {
    static SHARED: OnceLock<SharedDevice> = OnceLock::new();
    SHARED.get_or_init(|| {
        let kind = match std::env::var("OSCULANT_BURN_DEVICE").as_deref() {
            Ok("default") => DeviceKind::DefaultDevice,
            _ => DeviceKind::Cpu,
        };
        SharedDevice::new(kind).unwrap()
    })
}

/// Dense layers with tanh between them.
#[derive(Module, Debug)]
pub(crate) struct Mlp {
    pub(crate) layers: Vec<Linear>,
}

impl Mlp {
    pub(crate) fn new(widths: &[usize]) -> Self {
        let device = shared().device();
        let layers = widths.windows(2);
        Self {
            layers: layers
                .map(|w| LinearConfig::new(w[0], w[1]).init(&device))
                .collect(),
        }
    }

    /// With these tensors, weight and bias in turn.
    pub(crate) fn with(mut self, tensors: &[Vec<f32>]) -> Self {
        let device = shared().device();
        for (layer, pair) in self.layers.iter_mut().zip(tensors.chunks(2)) {
            let shape = layer.weight.dims();
            layer.weight = Param::from_data(TensorData::new(pair[0].clone(), shape), &device);
            let width = [pair[1].len()];
            layer.bias = Some(Param::from_data(
                TensorData::new(pair[1].clone(), width),
                &device,
            ));
        }
        self
    }

    pub(crate) fn forward(&self, x: Tensor<2>) -> Tensor<2> {
        let last = self.layers.len() - 1;
        let layers = self.layers.iter().enumerate();
        layers.fold(x, |x, (at, layer)| match layer.forward(x) {
            z if at < last => z.tanh(),
            z => z,
        })
    }
}

/// Targets of a batch.
#[derive(Clone)]
pub(crate) enum Wanted {
    Classes(Tensor<1, Int>),
    Values(Tensor<2>),
}

/// Means over rows.
pub(crate) fn loss(z: Tensor<2>, wanted: &Wanted) -> Tensor<1> {
    match wanted {
        Wanted::Classes(labels) => CrossEntropyLossConfig::new()
            .init(&z.device())
            .forward(z, labels.clone()),
        Wanted::Values(values) => (z - values.clone()).square().mean(),
    }
}

/// One network in both forms.
pub(crate) struct Subject {
    pub(crate) widths: Vec<usize>,
    pub(crate) model: Model,
    pub(crate) loss: Loss,
    pub(crate) batch: Batch,
    pub(crate) x: Tensor<2>,
    pub(crate) wanted: Wanted,
}

impl Subject {
    fn new(widths: &[usize], loss: Loss, batch: Batch) -> Self {
        let (device, rows) = (shared().device(), batch.len());
        let (targets, wanted) = match &batch.targets {
            Targets::Classes { labels, .. } => {
                let labels: Vec<i32> = labels.iter().map(|&label| label as i32).collect();
                let labels = Tensor::from_data(TensorData::new(labels, [rows]), &device);
                (TargetShape::Classes(10), Wanted::Classes(labels))
            }
            Targets::Values { values, width } => {
                let values = TensorData::new(values.clone(), [rows, *width]);
                let values = Tensor::from_data(values, &device);
                (TargetShape::Values(*width), Wanted::Values(values))
            }
            Targets::Inputs => unreachable!("no autoencoder here"),
        };
        let shape = DataShape {
            features: widths[0],
            targets,
        };
        let hidden = &widths[1..widths.len() - 1];
        let network = hidden.iter().fold(Sequential::new(), |network, &width| {
            network.dense(width).activation(Activation::Tanh)
        });
        let x = TensorData::new(batch.features.clone(), [rows, widths[0]]);
        Self {
            model: network.dense(widths[widths.len() - 1]).model(shape, loss),
            widths: widths.to_vec(),
            loss,
            x: Tensor::from_data(x, &device),
            wanted,
            batch,
        }
    }

    pub(crate) fn rows(&self) -> usize {
        self.batch.len()
    }

    /// The same at each call: burn's random numbers are of all tests together.
    pub(crate) fn module(&self) -> Mlp {
        let layers = self.widths.windows(2).flat_map(|w| {
            let weight = (0..w[0] * w[1]).map(|i| (i as f32).sin() / (w[0] as f32).sqrt());
            [weight.collect(), vec![0.0; w[1]]]
        });
        Mlp::new(&self.widths).with(&layers.collect::<Vec<_>>())
    }

    /// Outputs of a module on this batch.
    pub(crate) fn outputs(&self) -> impl FnMut(&Mlp) -> Tensor<2> + Send + 'static {
        let x = self.x.clone();
        move |module| module.forward(x.clone())
    }

    /// Loss of outputs.
    pub(crate) fn loss_of_outputs(&self) -> impl FnMut(Tensor<2>) -> Tensor<1> + Send + 'static {
        let wanted = self.wanted.clone();
        move |z| loss(z, &wanted)
    }

    /// Loss of a module.
    pub(crate) fn loss_of_module(&self) -> impl FnMut(&Mlp) -> Tensor<1> + Send + 'static {
        let (mut outputs, mut loss) = (self.outputs(), self.loss_of_outputs());
        move |module| loss(outputs(module))
    }
}

/// Digits, by cross-entropy.
pub(crate) fn classifier(widths: &[usize], rows: usize) -> Subject {
    let data = digits().unwrap();
    let batch = data.batch(&(0..rows).collect::<Vec<_>>()).unwrap();
    Subject::new(widths, Loss::SoftmaxCrossEntropy, batch)
}

/// Two sines of five numbers, by the squared error.
pub(crate) fn regression() -> Subject {
    let rows = 24;
    let features: Vec<f32> = (0..5 * rows).map(|i| (0.7 * i as f32).sin()).collect();
    let values = features.chunks(5).flat_map(|row| {
        let sum: f32 = row.iter().sum();
        [sum.sin(), (2.0 * sum).cos()]
    });
    let batch = Batch {
        targets: Targets::Values {
            values: values.collect(),
            width: 2,
        },
        weights: vec![1.0 / rows as f32; rows],
        features,
    };
    Subject::new(&[5, 6, 2], Loss::MeanSquaredError, batch)
}

/// All parameters of a module, as numbers.
pub(crate) fn numbers<M: Module>(module: &M) -> Vec<Vec<f32>> {
    struct Read(Vec<Vec<f32>>);
    impl ModuleVisitor for Read {
        fn visit_float<const D: usize>(&mut self, param: &Param<Tensor<D>>) {
            self.0.push(param.val().into_data().try_to_vec().unwrap());
        }
    }
    let mut read = Read(Vec::new());
    module.visit(&mut read);
    read.0
}
