//! Activation functions.

use crate::graph::Tensor;

/// An elementwise nonlinearity.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Activation {
    /// `x`
    Identity,
    /// `max(x, 0)`
    Relu,
    /// hyperbolic tangent
    Tanh,
    /// `1 / (1 + e^-x)`
    Sigmoid,
    /// `log(1 + e^x)`
    Softplus,
    /// `x/2 (1 + erf(x / sqrt 2))`, the exact form (Hendrycks and Gimpel 2016)
    Gelu,
    /// `x / (1 + e^-x)`, also called swish
    Silu,
    /// sine
    Sin,
}

impl Activation {
    /// All of them.
    pub const ALL: [Activation; 8] = [
        Activation::Identity,
        Activation::Relu,
        Activation::Tanh,
        Activation::Sigmoid,
        Activation::Softplus,
        Activation::Gelu,
        Activation::Silu,
        Activation::Sin,
    ];

    /// Applies it to every element.
    pub fn apply(self, x: Tensor<'_>) -> Tensor<'_> {
        match self {
            Activation::Identity => x,
            Activation::Relu => x.relu(),
            Activation::Tanh => x.tanh(),
            Activation::Sigmoid => x.logistic(),
            Activation::Softplus => x.softplus(),
            Activation::Gelu => x * 0.5 * ((x * std::f32::consts::FRAC_1_SQRT_2).erf() + 1.0),
            Activation::Silu => x * x.logistic(),
            Activation::Sin => x.sin(),
        }
    }
}
