//! The mean of quadratics that are too large to be one: a whole data set, part by part.

use std::sync::Arc;

use super::{Curved, GraphObjective, Objective, Quadratic, QuadraticRequest, Slot};
use crate::data::{Dataset, Role};
use crate::error::Result;
use crate::gpu::{Gpu, Recording, Slice};
use crate::linalg::Operator;
use crate::vector::Vector;

/// The quadratic of all rows of a data set at one point, as a weighted sum of quadratics of parts that are all on the device.
///
/// Replaying [`linearize`](Self::linearize) fills the gradient and what products need. Memory: the rows and the values of the network for
/// all of them.
pub struct MeanQuadratic {
    /// `g`
    pub gradient: Vector,
    /// Products with `C`.
    pub operator: Operator,
    /// Computes everything that does not depend on a direction.
    pub linearize: Recording,
    parts: Vec<(Arc<Quadratic>, f64)>,
}

impl MeanQuadratic {
    /// Of a data set at `theta`, in parts of up to `rows` rows, with the model and regularization of an objective.
    ///
    /// # Errors
    /// Data that do not fit the model, limits of the device.
    pub fn new(
        objective: &GraphObjective,
        theta: &Vector,
        data: &Dataset,
        rows: usize,
        request: QuadraticRequest,
    ) -> Result<Self> {
        let gpu = objective.gpu().clone();
        let count = data.len().div_ceil(rows.max(1));
        let rows = data.len().div_ceil(count);
        let mut parts = Vec::new();
        let mut own = objective.sibling()?;
        for part in 0..count {
            let indices: Vec<usize> = (part * rows..data.len().min((part + 1) * rows)).collect();
            let share = indices.len() as f64 / data.len() as f64;
            let batch = data.batch(&indices)?.pad_to(rows)?;
            let slot = Slot::new(Role::Directions, part);
            let quadratic = own.load_quadratic(slot, theta, &batch, request)?;
            parts.push((quadratic, share));
        }
        let layout = objective.layout();
        let new = |label: &str| Vector::new(&gpu, label, layout);
        let (gradient, other) = (new("mean gradient")?, new("sum of parts")?);
        let terms: Vec<Operator> = parts.iter().map(|(q, _)| q.as_ref().into()).collect();
        let (operator, shares) = Operator::sum(&gpu, &terms)?;
        shares.set(
            &gpu,
            &parts.iter().map(|(_, share)| *share).collect::<Vec<_>>(),
        )?;
        let mut linearize = Recording::new();
        for (quadratic, _) in &parts {
            linearize.append(quadratic.linearize.clone());
        }
        let gradients: Vec<&Slice> = parts.iter().map(|(q, _)| q.gradient.slice()).collect();
        let places = [gradient.slice(), other.slice()];
        shares.record_sum(&gpu, &mut linearize, &gradients, places)?;
        Ok(Self {
            gradient,
            operator,
            linearize,
            parts,
        })
    }

    /// The loss, after linearizing.
    ///
    /// # Errors
    /// Loss of the device.
    pub fn value(&self, gpu: &Gpu) -> Result<f64> {
        let slices: Vec<&Slice> = self.parts.iter().map(|(q, _)| &q.value).collect();
        let values = gpu.read(&slices)?;
        let shares = self.parts.iter().map(|(_, share)| share);
        Ok(values
            .iter()
            .zip(shares)
            .map(|(v, share)| share * f64::from(v[0]))
            .sum())
    }
}
