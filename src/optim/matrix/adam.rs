//! Adam as a graph, for what is stepped element by element, whatever it is rotated to.

use super::rule::{Operands, Tensors, Update};
use crate::graph::Tensor;

/// Number of settings: those of [`AdamOptions`](crate::optim::AdamOptions).
pub(super) const SETTINGS: usize = 8;

/// What is remembered of tensors of a shape.
pub(super) fn moments(shape: &[usize]) -> Tensors {
    let named = |name| (name, shape.to_vec());
    vec![named("first moment"), named("second moment")]
}

/// Adam's settings of a step.
pub(super) struct Adam<'b> {
    rate: Tensor<'b>,
    beta1: Tensor<'b>,
    beta2: Tensor<'b>,
    epsilon: Tensor<'b>,
    corrections: [Tensor<'b>; 2],
    decay: Tensor<'b>,
}

impl<'b> Adam<'b> {
    pub(super) fn of(on: &Operands<'b>) -> Self {
        Self {
            rate: on.setting(0),
            beta1: on.setting(1),
            beta2: on.setting(2),
            epsilon: on.setting(3),
            corrections: [on.setting(4), on.setting(5)],
            decay: on.setting(6),
        }
    }

    /// `beta1 m + (1 - beta1) g`
    pub(super) fn first_moment(&self, m: Tensor<'b>, g: Tensor<'b>) -> Tensor<'b> {
        self.beta1 * m + (1.0 - self.beta1) * g
    }

    /// `beta2 v + (1 - beta2) x`, for squares or factors.
    pub(super) fn second_moment(&self, v: Tensor<'b>, x: Tensor<'b>) -> Tensor<'b> {
        self.beta2 * v + (1.0 - self.beta2) * x
    }

    /// `(m / correction1) / (sqrt(v / correction2) + epsilon)`
    pub(super) fn direction(&self, m: Tensor<'b>, v: Tensor<'b>) -> Tensor<'b> {
        let [first, second] = self.corrections;
        (m / first) / ((v / second).sqrt() + self.epsilon)
    }

    /// `rate (direction + decay theta)`
    pub(super) fn step(&self, direction: Tensor<'b>, theta: Tensor<'b>) -> Tensor<'b> {
        self.rate * (direction + self.decay * theta)
    }
}

/// A step of Adam.
pub(super) fn update<'b>(on: &Operands<'b>) -> Update<'b> {
    let (adam, g) = (Adam::of(on), on.gradient);
    let m = adam.first_moment(on.state[0], g);
    let v = adam.second_moment(on.state[1], g.square());
    Update {
        step: adam.step(adam.direction(m, v), on.theta),
        state: vec![m, v],
    }
}
