//! Averages of iterates.

use std::sync::Arc;

use crate::error::Result;
use crate::gpu::{Gpu, Recording, Slice};
use crate::kernels::vector::combine;
use crate::vector::{Layout, Vector};

/// Weights `(a, b)` in `average <- a average + b theta` of the iterate after `count` others:
///
/// ```text
/// average = sum_j w_j theta_j / sum_j w_j     with w_j = decay^(newest - j)
/// a = 1 - b,     b = 1 / sum_(j <= count) decay^j
/// ```
///
/// With a decay of 1 that is the mean of all iterates (Polyak and Juditsky 1992).
pub(super) fn weights(decay: f64, count: u64) -> (f64, f64) {
    let next = count as f64 + 1.0;
    let newest = if decay < 1.0 {
        // 1 - decay^next, which loses no digits where the decay is near 1.
        (1.0 - decay) / -(next * decay.ln()).exp_m1()
    } else {
        1.0 / next
    };
    (1.0 - newest, newest)
}

/// An average on the device. Three vectors' worth of reads and writes for a step, and one more copy; memory for two vectors.
#[derive(Clone, Debug)]
pub(super) struct Average {
    pub(super) vector: Vector,
    next: Vector,
    coefficients: Slice,
    /// Iterates in it.
    pub(super) count: u64,
    /// What adds the iterate that is in a vector.
    add: Option<(Vector, Arc<Recording>)>,
}

impl Average {
    pub(super) fn new(gpu: &Gpu, layout: &Arc<Layout>) -> Result<Self> {
        let new = |label: &str| Vector::new(gpu, label, layout);
        Ok(Self {
            vector: new("average of iterates")?,
            next: new("next average of iterates")?,
            coefficients: gpu.buffer("weights of average and iterate", 2)?,
            count: 0,
            add: None,
        })
    }

    /// What adds `theta` as it will be when that runs. Nothing of the average changes before.
    pub(super) fn prepare(
        &mut self,
        gpu: &Gpu,
        theta: &Vector,
        decay: f64,
    ) -> Result<Arc<Recording>> {
        let (old, newest) = weights(decay, self.count);
        gpu.upload(&self.coefficients, 0, &[old as f32, newest as f32])?;
        if let Some((_, add)) = self.add.as_ref().filter(|(of, _)| of.is_same(theta)) {
            return Ok(Arc::clone(add));
        }
        let mut add = Recording::new();
        let (average, next) = (self.vector.slice(), self.next.slice());
        let factors = (&self.coefficients, 0);
        combine(gpu, &mut add, next, average, theta.slice(), factors)?;
        add.copy(next, average)?;
        let add = Arc::new(add);
        self.add = Some((theta.uncounted(), Arc::clone(&add)));
        Ok(add)
    }
}

#[cfg(test)]
mod tests {
    use super::weights;

    #[test]
    fn weights_are_those_of_a_hand_computation() {
        let close = |found: (f64, f64), newest: f64| {
            (found.1 - newest).abs() < 1e-15 && (found.0 + found.1 - 1.0).abs() < 1e-15
        };
        assert!(close(weights(0.5, 0), 1.0));
        // 1 / (1 + 1/2) and 1 / (1 + 1/2 + 1/4)
        assert!(close(weights(0.5, 1), 2.0 / 3.0));
        assert!(close(weights(0.5, 2), 4.0 / 7.0));
        assert!(close(weights(1.0, 3), 0.25));
        // Near 1 it is nearly the mean, without a loss of digits.
        assert!((weights(1.0 - 1e-12, 3).1 - 0.25).abs() < 1e-9);
    }
}
