//! Losses: one number per example, from the network's outputs.

use super::model::{Scope, TargetShape};
use crate::error::Error;
use crate::graph::Tensor;

/// What is minimised: the mean over the batch of the loss of each example. All are convex in the outputs, so the Gauss-Newton matrix is positive
/// semi-definite.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Loss {
    /// `log sum_c exp(z_c) - z_y` for class labels `y`.
    SoftmaxCrossEntropy,
    /// Mean over outputs of `log(1 + exp(z)) - t z` for targets `t` in 0..1: binary cross-entropy with logits.
    BinaryCrossEntropy,
    /// Mean over outputs of `(z - t)^2`. There is no factor 1/2.
    MeanSquaredError,
    /// Mean over outputs of `exp(z) - t z` for counts `t`: the Poisson negative log-likelihood with log rates, without its constant.
    Poisson,
}

impl Loss {
    /// All of them.
    pub const ALL: [Loss; 4] = [
        Loss::SoftmaxCrossEntropy,
        Loss::BinaryCrossEntropy,
        Loss::MeanSquaredError,
        Loss::Poisson,
    ];

    /// The loss of each example, `[n]`, from outputs `z` `[n, outputs]` and the scope's targets.
    pub fn apply<'b>(self, scope: &Scope<'b>, z: Tensor<'b>) -> Tensor<'b> {
        let rows = scope.rows();
        if self == Loss::SoftmaxCrossEntropy {
            let TargetShape::Classes(classes) = scope.target_shape() else {
                return scope.fail(Error::Shape {
                    node: "loss SoftmaxCrossEntropy".into(),
                    message: "needs class labels as targets; for float targets use another loss"
                        .into(),
                });
            };
            // Any constant may be subtracted inside; the largest output keeps exp finite.
            let top = z.max_over(&[1]).stop_gradient();
            let log_sum = (z - top).exp().sum(&[1]).log() + top;
            let at_label = (z * scope.labels().one_hot(classes)).sum(&[1]);
            return (log_sum - at_label).reshape(&[rows]);
        }
        let t = scope.targets();
        let terms = match self {
            Loss::SoftmaxCrossEntropy | Loss::MeanSquaredError => (z - t).square(),
            Loss::BinaryCrossEntropy => z.softplus() - t * z,
            Loss::Poisson => z.exp() - t * z,
        };
        terms.mean(&[1]).reshape(&[rows])
    }

    /// A figure of merit per example, `[n]`, whose mean is reported: for class labels 1 where the label has the largest output (ties count),
    /// else the relative squared error `|z - t|^2 / |t|^2`.
    pub fn metric<'b>(self, scope: &Scope<'b>, z: Tensor<'b>) -> Tensor<'b> {
        let rows = scope.rows();
        if let (Loss::SoftmaxCrossEntropy, TargetShape::Classes(classes)) =
            (self, scope.target_shape())
        {
            let at_label = (z * scope.labels().one_hot(classes)).sum(&[1]);
            return (1.0 - (z.max_over(&[1]) - at_label).step()).reshape(&[rows]);
        }
        let t = scope.targets();
        let prediction = match self {
            Loss::BinaryCrossEntropy => z.logistic(),
            Loss::Poisson => z.exp(),
            _ => z,
        };
        ((prediction - t).square().sum(&[1]) / (t.square().sum(&[1]) + 1e-12)).reshape(&[rows])
    }
}
