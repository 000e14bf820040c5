//! Losses: one number per example, from the network's outputs.
//!
//! None is written as a difference of large numbers: value, slope and curvature of one example keep their digits where it is fitted, far
//! off, or has outputs with a large common part, as far as the outputs themselves hold them.

use super::model::{Scope, TargetShape};
use crate::error::Error;
use crate::graph::Tensor;

/// What is minimised: the mean over the batch of the loss of each example. All are convex in the outputs, so the Gauss-Newton matrix is
/// positive semi-definite.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Loss {
    /// `log sum_c exp(z_c) - z_y` for class labels `y`.
    SoftmaxCrossEntropy,
    /// Mean over outputs of `t log(1 + exp(-z)) + (1 - t) log(1 + exp(z))` for targets `t` in 0..1: binary cross-entropy with logits.
    BinaryCrossEntropy,
    /// Mean over outputs of `(z - t)^2`. There is no factor 1/2.
    MeanSquaredError,
    /// Mean over outputs of `exp(z) - t z + t log t - t` for counts `t` (`exp(z)` where `t = 0`): the Poisson negative log-likelihood with
    /// log rates, less its value at the best rates; half the deviance. It is 0 where `exp(z) = t`.
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
            return softmax_cross_entropy(scope, z, classes);
        }
        let t = scope.targets();
        let terms = match self {
            Loss::SoftmaxCrossEntropy | Loss::MeanSquaredError => (z - t).square(),
            Loss::BinaryCrossEntropy => (-z).softplus() * t + z.softplus() * (1.0 - t),
            Loss::Poisson => {
                // t (e^u - 1 - u) with u = z - log t. No digit of a small u is lost but those that z and log t do not have.
                let counted = t.select(t, scope.constant(1.0));
                t.select((z - counted.log()).expm1mx() * t, z.exp())
            }
        };
        terms.mean(&[1]).reshape(&[rows])
    }

    /// The columns of a root `S` of the Hessian of each example's loss in its outputs, `S S^T = H`, mixed by `signs` `xi`: `S xi`, like the
    /// outputs `z` `[n, outputs]`. With signs of equal odds, `E (S xi) (S xi)^T = H`.
    ///
    /// For class labels `S = diag(sqrt p) - p sqrt(p)^T` with `p = softmax(z)`, of which the columns sum to what keeps `H = diag(p) - p
    /// p^T`; other Hessians are diagonal.
    pub fn curvature_root<'b>(
        self,
        scope: &Scope<'b>,
        z: Tensor<'b>,
        signs: Tensor<'b>,
    ) -> Tensor<'b> {
        let share = z
            .shape()
            .last()
            .map_or(1.0, |&outputs| 1.0 / outputs as f32);
        match self {
            Loss::SoftmaxCrossEntropy => {
                let e = (z - z.max_over(&[1])).exp();
                let p = e / e.sum(&[1]);
                let mixed = p.sqrt() * signs;
                mixed - p * mixed.sum(&[1])
            }
            Loss::BinaryCrossEntropy => (z.logistic() * (-z).logistic() * share).sqrt() * signs,
            Loss::MeanSquaredError => scope.constant((2.0 * share).sqrt()) * signs,
            Loss::Poisson => (z * 0.5).exp() * share.sqrt() * signs,
        }
    }

    /// Numbers `rho`, like the outputs, that the root of [`curvature_root`](Self::curvature_root) turns into the slope of each example's loss:
    /// `S rho = dl/dz`. For squared errors they are the residuals `sqrt(2 / outputs) (z - t)`; for class labels `sqrt(p) - e_y / sqrt(p_y)`,
    /// the shortest such numbers; else `slope / S`, as `S` is a diagonal.
    ///
    /// Where the loss is nearly flat they would not be bounded: probabilities `p_y`, and curvatures `p (1 - p)`, below 1e-6 count as that,
    /// so that `S rho` falls short of the slope there.
    pub fn residuals<'b>(self, scope: &Scope<'b>, z: Tensor<'b>) -> Tensor<'b> {
        let share = z
            .shape()
            .last()
            .map_or(1.0, |&outputs| 1.0 / outputs as f32);
        let least = scope.constant(1e-6);
        match self {
            Loss::SoftmaxCrossEntropy => {
                let e = (z - z.max_over(&[1])).exp();
                let p = e / e.sum(&[1]);
                let label = scope.targets();
                // p_y - 1 as the sum of the others, which keeps its digits where the label is certain.
                let others = p * (1.0 - label);
                p.sqrt() * (1.0 - label) - label * others.sum(&[1]) / p.max(least).sqrt()
            }
            Loss::BinaryCrossEntropy => {
                let (p, q, t) = (z.logistic(), (-z).logistic(), scope.targets());
                // p - t, as which it would lose its digits where a target of 1 is fitted.
                (p * (1.0 - t) - q * t) * share.sqrt() / (p * q).max(least).sqrt()
            }
            Loss::MeanSquaredError => (z - scope.targets()) * (2.0 * share).sqrt(),
            Loss::Poisson => {
                let half = (z * 0.5).exp();
                (half - scope.targets() / half) * share.sqrt()
            }
        }
    }

    /// A figure of merit per example, `[n]`, whose mean is reported.
    ///
    /// For class labels 1 where the label is the first of the classes with the largest output, as a prediction would be, else 0; and 0
    /// where an output is not finite. For other targets the relative squared error `|p - t|^2 / |t|^2` of the prediction `p`, and where all
    /// targets of an example are 0 its squared error `|p|^2`: there is nothing for it to be relative to.
    pub fn metric<'b>(self, scope: &Scope<'b>, z: Tensor<'b>) -> Tensor<'b> {
        let rows = scope.rows();
        if let (Loss::SoftmaxCrossEntropy, TargetShape::Classes(classes)) =
            (self, scope.target_shape())
        {
            // Among the largest, the one that most classes follow.
            let followers = (0..classes).map(|c| (classes - c) as f32).collect();
            let score = largest(z) * scope.data(followers, &[1, classes]);
            let first = 1.0 - (score.max_over(&[1]) - score).step();
            let right = (first * scope.labels().one_hot(classes)).sum(&[1]);
            let broken = (1.0 - z.is_finite()).max_over(&[1]);
            return broken.select(scope.constant(0.0), right).reshape(&[rows]);
        }
        let t = scope.targets();
        let prediction = match self {
            Loss::BinaryCrossEntropy => z.logistic(),
            Loss::Poisson => z.exp(),
            _ => z,
        };
        let size = t.square().sum(&[1]);
        let size = size.select(size, scope.constant(1.0));
        ((prediction - t).square().sum(&[1]) / size).reshape(&[rows])
    }
}

/// 1 where an output is the largest of its example, else 0.
fn largest(z: Tensor<'_>) -> Tensor<'_> {
    1.0 - (z.max_over(&[1]) - z).step()
}

/// `log sum_c exp(z_c) - z_y`, as `log(1 + S) - (z_y - z_m)` with `S = sum over c != m of exp(z_c - z_m)`.
///
/// The anchor `m` is the class that has more than half of the probability. So `1 - p_m` is the sum of the others, for the loss, its slope
/// and its curvature alike. Where no class has so much (as where several are the largest) there is no anchor, and all are summed.
fn softmax_cross_entropy<'b>(scope: &Scope<'b>, z: Tensor<'b>, classes: usize) -> Tensor<'b> {
    let rows = scope.rows();
    // Any constant may be subtracted; the largest output keeps exp finite.
    let a = z - z.max_over(&[1]).stop_gradient();
    let e = a.exp();
    // Whether 1 of the sum is more than half of it; 1 + 1 never is.
    let anchored = (2.0 - e.sum(&[1])).step();
    let anchor = largest(z) * anchored;
    // One reduction for both: the sum of the others, and z_m, which is 0 but moves.
    let row = |x: Tensor<'b>| x.reshape(&[rows, 1, classes]);
    let both = row(e * (1.0 - anchor)).concat(&[row(anchor * a)], 1);
    let both = both.sum(&[2]);
    let part = |i: usize| both.slice(&[0, i, 0], &[rows, 1, 1]).reshape(&[rows, 1]);
    let sum = part(0) * (-part(1)).exp() - (1.0 - anchored);
    // Where the label is the anchor the difference of masks is 0, so that nothing is added that is subtracted again.
    let label = scope.labels().one_hot(classes);
    let at_label = ((label - anchor) * a).sum(&[1]);
    (sum.log1p() - at_label).reshape(&[rows])
}
