//! Whether a product is what solvers rely on.

use std::fmt;

use super::operator::Operator;
use crate::error::{Error, Result};
use crate::gpu::{Gpu, Recording};
use crate::random::philox4x32;
use crate::vector::Entry;

/// How far, against the lengths of the vectors, a symmetric and linear product may be from that in f32: rounding errors of a product are
/// about 1e-7 times the root of the number of its terms, and a sum over a million terms stays below this.
const PROBE_TOLERANCE: f64 = 1e-4;
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
    pub fn probe(&self, gpu: &Gpu, before: &Recording) -> Result<()> {
        gpu.submit(|recorder| recorder.replay(before))?;
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
        let product = |vector: &[Vec<f32>]| -> Result<Vec<f32>> {
            self.input.write(gpu, vector)?;
            self.multiply.run(gpu)?;
            let found = self.output.read(gpu)?.concat();
            if found.iter().all(|x| x.is_finite()) {
                Ok(found)
            } else {
                Err(super::scale::not_finite_product())
            }
        };
        let first = product(&v)?;
        let second = product(&v)?;
        let different = first
            .iter()
            .zip(&second)
            .filter(|(a, b)| a.to_bits() != b.to_bits());
        check(Property::Repeatable, different.count() as f64, 0.0)?;
        let doubled = product(&twice)?;
        let off = first
            .iter()
            .zip(&doubled)
            .map(|(a, b)| (2.0 * f64::from(*a) - f64::from(*b)).powi(2));
        let length = norm(&first);
        check(
            Property::Linear,
            off.sum::<f64>().sqrt(),
            2.0 * PROBE_TOLERANCE * length,
        )?;
        let other = product(&u)?;
        let (u, v) = (u.concat(), v.concat());
        check(
            Property::Symmetric,
            (dot(&u, &first) - dot(&v, &other)).abs(),
            PROBE_TOLERANCE * (norm(&u) * length + norm(&v) * norm(&other)),
        )
    }
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

fn dot(a: &[f32], b: &[f32]) -> f64 {
    a.iter()
        .zip(b)
        .map(|(x, y)| f64::from(*x) * f64::from(*y))
        .sum()
}

fn norm(a: &[f32]) -> f64 {
    dot(a, a).sqrt()
}
