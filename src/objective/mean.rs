//! The mean of quadratics that are too large to be one: a whole data set, part by part.

use std::sync::Arc;

use super::{Curved, GraphObjective, Objective, Quadratic, QuadraticRequest, Slot};
use crate::data::{Dataset, Role};
use crate::error::Result;
use crate::gpu::{Gpu, Recording, Slice};
use crate::kernels::vector::combine;
use crate::linalg::Operator;
use crate::vector::Vector;

/// The quadratic of all rows of a data set at one point, as a weighted sum of quadratics of parts that are all on the device.
///
/// Replaying [`linearize`](Self::linearize) fills the gradient and what products need. Memory: the rows and the values of the network for all of them.
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
        let (gradient, direction, product) = (
            new("mean gradient")?,
            new("direction")?,
            new("mean product")?,
        );
        let other = new("sum of parts")?;
        let shares: Vec<f32> = parts
            .iter()
            .flat_map(|(_, share)| [1.0, *share as f32])
            .collect();
        let coefficients = gpu.buffer("shares of parts", shares.len())?;
        gpu.upload(&coefficients, 0, &shares)?;
        // A sum of no parts yet, so that the first is like the others.
        let zeros = new("zeros")?;
        let sum = |recording: &mut Recording, each: &dyn Fn(&Quadratic) -> Vector, to: &Vector| {
            add(
                &gpu,
                recording,
                &parts,
                each,
                [to, &other, &zeros],
                &coefficients,
            )
        };
        let mut linearize = Recording::new();
        let mut multiply = Recording::new();
        for (quadratic, _) in &parts {
            linearize.append(quadratic.linearize.clone());
        }
        sum(&mut linearize, &|q| q.gradient.clone(), &gradient)?;
        for (quadratic, _) in &parts {
            multiply.copy(direction.slice(), quadratic.direction.slice())?;
            multiply.append(quadratic.multiply.clone());
        }
        sum(&mut multiply, &|q| q.product.clone(), &product)?;
        Ok(Self {
            gradient,
            operator: Operator {
                input: direction,
                output: product,
                multiply: multiply.into(),
            },
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

/// Records the weighted sum of a vector of each part; sums change between two places and end in the first.
fn add(
    gpu: &Gpu,
    recording: &mut Recording,
    parts: &[(Arc<Quadratic>, f64)],
    each: &dyn Fn(&Quadratic) -> Vector,
    [to, other, zeros]: [&Vector; 3],
    coefficients: &Slice,
) -> Result<()> {
    let mut from = zeros;
    for (number, (quadratic, _)) in parts.iter().enumerate() {
        let left = parts.len() - 1 - number;
        let out = if left.is_multiple_of(2) { to } else { other };
        let (x, y) = (from.slice(), each(quadratic));
        combine(
            gpu,
            recording,
            out.slice(),
            x,
            y.slice(),
            (coefficients, 2 * number),
        )?;
        from = out;
    }
    Ok(())
}
