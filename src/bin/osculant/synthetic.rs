//! The networks of the benchmark, with data and weights from one formula, so that every program that is timed on them has the same numbers.
//!
//! Tensor `t`, element `i`, counted from 0 in row-major order, is made of
//!
//! ```text
//! u(t, i) = floor(mix(t 2^32 + i) / 2^40) / 2^24        in [0, 1), exact in f32
//! ```
//!
//! where `mix` is the output function of SplitMix64 (Steele, Lea, Flood 2014) at that state, on unsigned integers of 64 bits. Tensors are
//! numbered
//!
//! ```text
//! 0           features  [batch, inputs]     u
//! 1           labels    [batch]             floor(classes u)
//! 2 + 2 l     weight l  [inputs, outputs]   (2 u - 1) sqrt(6 / (inputs + outputs)),  the root in f64, rounded to f32
//! 3 + 2 l     bias l    [outputs]           (2 u - 1) / 10
//! ```
//!
//! This file depends on nothing but the standard library, because `benches/peers/burn` includes it as it stands; `benches/peers/peers.py`
//! has the same formula for PyTorch.

/// Number of classes of the classifiers.
pub(crate) const CLASSES: usize = 10;

/// Activation of the hidden layers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Hidden {
    /// `tanh(x)`
    Tanh,
    /// `max(x, 0)`
    Relu,
    /// `log(1 + exp(x))`
    Softplus,
}

/// A network of dense layers. Where it reproduces its input, the outputs pass a sigmoid and the loss is the mean squared error over batch
/// and outputs; otherwise the outputs are logits and the loss is the mean softmax cross-entropy.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Network {
    /// Name in tables and in JSON.
    pub(crate) name: &'static str,
    /// Widths, from the inputs to the outputs.
    pub(crate) sizes: &'static [usize],
    /// Activation between the layers.
    pub(crate) hidden: Hidden,
    /// Number of examples.
    pub(crate) batch: usize,
}

/// What is timed.
pub(crate) const NETWORKS: [Network; 4] = [
    Network {
        name: "digits-mlp",
        sizes: &[64, 32, CLASSES],
        hidden: Hidden::Tanh,
        batch: 64,
    },
    Network {
        name: "fashion-mlp",
        sizes: &[784, 128, CLASSES],
        hidden: Hidden::Relu,
        batch: 256,
    },
    Network {
        name: "mnist-autoencoder",
        sizes: &[784, 32, 784],
        hidden: Hidden::Softplus,
        batch: 64,
    },
    Network {
        name: "wide-mlp",
        sizes: &[1024, 1024, 1024, CLASSES],
        hidden: Hidden::Tanh,
        batch: 256,
    },
];

impl Network {
    /// Whether it reproduces its input.
    pub(crate) fn is_autoencoder(&self) -> bool {
        self.sizes.first() == self.sizes.last()
    }

    /// Features of the batch, `[batch, inputs]`.
    pub(crate) fn features(&self) -> Vec<f32> {
        (0..self.batch * self.sizes[0])
            .map(|index| uniform(0, index))
            .collect()
    }

    /// Labels of the batch, `[batch]`.
    pub(crate) fn labels(&self) -> Vec<u32> {
        (0..self.batch)
            .map(|index| (CLASSES as f32 * uniform(1, index)) as u32)
            .collect()
    }

    /// Weight `[inputs, outputs]` and bias `[outputs]` of each layer in turn.
    pub(crate) fn parameters(&self) -> Vec<Vec<f32>> {
        let layers = self.sizes.windows(2).enumerate();
        layers
            .flat_map(|(layer, widths)| {
                let bound = (6.0 / (widths[0] + widths[1]) as f64).sqrt() as f32;
                let weight = symmetric(2 + 2 * layer, widths[0] * widths[1], bound);
                [weight, symmetric(3 + 2 * layer, widths[1], 0.1)]
            })
            .collect()
    }
}

/// `count` numbers between `-bound` and `bound`.
fn symmetric(tensor: usize, count: usize, bound: f32) -> Vec<f32> {
    (0..count)
        .map(|index| (2.0 * uniform(tensor, index) - 1.0) * bound)
        .collect()
}

/// `u(t, i)`.
pub(crate) fn uniform(tensor: usize, index: usize) -> f32 {
    let state = ((tensor as u64) << 32).wrapping_add(index as u64);
    let mut z = state.wrapping_add(1).wrapping_mul(0x9E37_79B9_7F4A_7C15);
    z = (z ^ (z >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
    z = (z ^ (z >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
    z ^= z >> 31;
    (z >> 40) as f32 / (1 << 24) as f32
}

#[cfg(test)]
mod tests {
    use super::{NETWORKS, uniform};

    /// `benches/peers/peers.py` asserts the same numbers when it starts. The first is the first output of SplitMix64 with seed 0,
    /// 0xE220A8397B1DCDAF, cut to 24 bits.
    #[test]
    fn the_formula_gives_the_numbers_that_the_peers_expect() {
        let units = |value: f32| (value * (1 << 24) as f32) as u32;
        assert_eq!(units(uniform(0, 0)), 0xE2_20A8);
        assert_eq!(units(uniform(2, 12_345)), 0x24_53C9);
    }

    #[test]
    fn parameters_have_the_shapes_of_the_layers() {
        for network in NETWORKS {
            let lengths: Vec<usize> = network.parameters().iter().map(Vec::len).collect();
            let expected: Vec<usize> = network
                .sizes
                .windows(2)
                .flat_map(|widths| [widths[0] * widths[1], widths[1]])
                .collect();
            assert_eq!(lengths, expected, "{}", network.name);
        }
    }

    #[test]
    fn labels_are_classes_and_all_occur() {
        for network in NETWORKS {
            let labels = network.labels();
            assert_eq!(labels.len(), network.batch);
            let mut seen = [false; super::CLASSES];
            labels.iter().for_each(|&label| seen[label as usize] = true);
            assert!(seen.iter().all(|&seen| seen), "{}: {seen:?}", network.name);
        }
    }
}
