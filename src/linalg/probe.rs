//! Whether a product is what solvers rely on.

use std::fmt;

use super::operator::Operator;
use crate::error::{Error, Result};
use crate::gpu::{Commands, Gpu};
use crate::random::philox4x32;
use crate::vector::Entry;

/// How far, against the lengths of the vectors, a symmetric and linear product may be from that in f32: rounding errors of a product are
/// about 1e-7 times the root of the number of its terms, and a sum over a million terms stays below this.
pub(crate) const PROBE_TOLERANCE: f64 = 1e-4;
/// Seed of the vectors of a probe.
const PROBE_SEED: [u32; 2] = [11, 0];
/// High half of the stream of random numbers of probes: no other part of the crate draws from it.
const STREAM: u32 = 9 << 16;

/// What [`Operator::probe`] asks of a product.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Property {
    /// The same bits twice.
    Repeatable,
    /// `C (2 v) = 2 C v`.
    Linear,
    /// `u . C v = v . C u`.
    Symmetric,
}

impl fmt::Display for Property {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Repeatable => "repeatable (the same product twice)",
            Self::Linear => "linear (C(2v) = 2Cv)",
            Self::Symmetric => "symmetric (u.Cv = v.Cu)",
        })
    }
}

impl Operator {
    /// Looks once whether products, after `before`, are what solvers rely on: the same bits twice, linear, symmetric. Four products, with
    /// blocking readbacks of whole vectors; for a product of a caller's own, before a long run.
    ///
    /// Rounding is allowed for: `|C(2v) - 2 C v| <= 2e-4 |C v|` and `|u.Cv - v.Cu| <= 1e-4 (|u| |Cv| + |v| |Cu|)`.
    ///
    /// # Errors
    /// [`Error::Operator`] naming the first property that is missing, [`Error::NotFinite`] where a product is not finite, loss of the
    /// device.
    #[cfg(not(target_arch = "wasm32"))]
    pub fn probe<'a>(&self, gpu: &'a Gpu, before: impl Into<Commands<'a>>) -> Result<()> {
        crate::gpu::blocking(self.probe_async(gpu, before))
    }

    /// As [`probe`](Self::probe), without blocking the thread.
    ///
    /// # Errors
    /// As there.
    pub async fn probe_async<'a>(
        &self,
        gpu: &'a Gpu,
        before: impl Into<Commands<'a>>,
    ) -> Result<()> {
        gpu.run_async([before]).await?;
        let found = self.behaviour(gpu).await?;
        check(Property::Repeatable, found.different as f64, 0.0)?;
        let [off, size] = found.nonlinear;
        check(Property::Linear, off, PROBE_TOLERANCE * size)?;
        let [off, size] = found.asymmetric;
        check(Property::Symmetric, off, PROBE_TOLERANCE * size)
    }

    /// How four products with random vectors behave.
    pub(crate) async fn behaviour(&self, gpu: &Gpu) -> Result<Behaviour> {
        let draw = |vector: u32| -> Vec<Vec<f32>> {
            let entries = self.input.layout().entries().iter().zip(0..);
            let uniform = |word: u32| f64::from(word) / f64::from(u32::MAX) - 0.5;
            let number = |tensor: u32, i: usize| {
                uniform(philox4x32([i as u32, tensor, vector, STREAM], PROBE_SEED)[0]) as f32
            };
            let tensor = |(entry, tensor): (&Entry, u32)| {
                (0..entry.elements()).map(|i| number(tensor, i)).collect()
            };
            entries.map(tensor).collect()
        };
        let (u, v) = (draw(0), draw(1));
        let twice: Vec<Vec<f32>> = v
            .iter()
            .map(|t| t.iter().map(|x| 2.0 * x).collect())
            .collect();
        let (first, second) = (self.product(gpu, &v).await?, self.product(gpu, &v).await?);
        let pairs = first.iter().zip(&second);
        let different = pairs.filter(|(a, b)| a.to_bits() != b.to_bits()).count();
        let doubled = self.product(gpu, &twice).await?;
        let off = first
            .iter()
            .zip(&doubled)
            .map(|(a, b)| (2.0 * f64::from(*a) - f64::from(*b)).powi(2));
        let length = norm(&first);
        let nonlinear = [off.sum::<f64>().sqrt(), 2.0 * length];
        let other = self.product(gpu, &u).await?;
        let (flat_u, flat_v) = (u.concat(), v.concat());
        let asymmetric = [
            (dot(&flat_u, &first) - dot(&flat_v, &other)).abs(),
            norm(&flat_u) * length + norm(&flat_v) * norm(&other),
        ];
        Ok(Behaviour {
            different,
            nonlinear,
            asymmetric,
            v,
            product: first,
        })
    }

    /// The product with a vector of the host.
    async fn product(&self, gpu: &Gpu, vector: &[Vec<f32>]) -> Result<Vec<f32>> {
        self.input.write_async(gpu, vector).await?;
        gpu.run_async([&self.multiply]).await?;
        let found = self.output.read_async(gpu).await?.concat();
        if found.iter().all(|x| x.is_finite()) {
            Ok(found)
        } else {
            Err(super::scale::not_finite_product())
        }
    }
}

/// What a probe measures: how far off, and the size to compare that with.
pub(crate) struct Behaviour {
    /// Elements of two equal products that differ.
    pub(crate) different: usize,
    /// `|C(2v) - 2 Cv|`, and `2 |Cv|`.
    pub(crate) nonlinear: [f64; 2],
    /// `|u.Cv - v.Cu|`, and `|u| |Cv| + |v| |Cu|`.
    pub(crate) asymmetric: [f64; 2],
    /// A random vector.
    pub(crate) v: Vec<Vec<f32>>,
    /// `Cv`
    pub(crate) product: Vec<f32>,
}

fn check(property: Property, found: f64, allowed: f64) -> Result<()> {
    if found <= allowed {
        return Ok(());
    }
    Err(Error::Operator {
        property,
        found,
        allowed,
    })
}

pub(crate) fn dot(a: &[f32], b: &[f32]) -> f64 {
    a.iter()
        .zip(b)
        .map(|(x, y)| f64::from(*x) * f64::from(*y))
        .sum()
}

pub(crate) fn norm(a: &[f32]) -> f64 {
    dot(a, a).sqrt()
}
