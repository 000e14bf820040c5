//! What SPRING has on the device.

use std::sync::Arc;

use super::prior::Beside;
use crate::error::Result;
use crate::gpu::{Gpu, Recording, Slice, Work};
use crate::kernels::vector::{combine, inner_products, partial_elements};
use crate::objective::{SampleSystem, Square};
use crate::vector::{Layout, Vector};

/// Places among the coefficients: the start, sums, the last solution with a combination, a step.
const START: usize = 0;
const SUM: usize = 2;
const LAST: usize = 4;
const STEP: usize = 6;

pub(super) struct Memory {
    /// The last solution, and the one that takes its place with the step.
    pub(super) last: Vector,
    pub(super) next: Vector,
    /// What a solution starts from, where that is not a part of the last one.
    start: Vector,
    trial: Vector,
    coefficients: Slice,
    /// `(d'.q, d'.d', q.q)`
    pub(super) sums: Slice,
    partials: Slice,
}

/// What is recorded for one system.
pub(super) struct Workspace {
    pub(super) system: Arc<SampleSystem>,
    pub(super) theta: Vector,
    /// The system, and the images of the last solution and of what is beside it.
    pub(super) begin: Work,
    pub(super) images: Vec<Slice>,
    /// The new solution from the host's coefficients.
    pub(super) solve: Work,
    /// Moves the parameters, and keeps the solution.
    pub(super) take: Recording,
}

impl Memory {
    pub(super) fn new(gpu: &Gpu, layout: &Arc<Layout>) -> Result<Self> {
        let new = |label: &str| Vector::new(gpu, label, layout);
        let last = new("last solution")?;
        let coefficients = gpu.buffer("coefficients of a step", 8)?;
        gpu.upload(&coefficients, SUM, &[1.0f32, 1.0])?;
        Ok(Self {
            next: new("next solution")?,
            start: new("start of a solution")?,
            trial: new("trial point")?,
            coefficients,
            sums: gpu.buffer("inner products", 3)?,
            partials: gpu.buffer("partial sums", partial_elements(last.slice()))?,
            last,
        })
    }

    /// Uploads what `solve` and `take` of a workspace need.
    pub(super) fn prepare(&self, gpu: &Gpu, [a, b]: [f64; 2], length: f64) -> Result<()> {
        let [a, b] = [a as f32, b as f32];
        gpu.upload(&self.coefficients, START, &[a, b])?;
        gpu.upload(&self.coefficients, LAST, &[a, 1.0f32])?;
        gpu.upload(&self.coefficients, STEP, &[1.0f32, -length as f32])
    }

    pub(super) fn record(
        &self,
        gpu: &Gpu,
        theta: &Vector,
        system: &Arc<SampleSystem>,
        (beside, momentum): (Beside, bool),
    ) -> Result<Workspace> {
        let mut begin = system.linearize.clone();
        let q = match beside {
            Beside::Nothing => None,
            Beside::Parameters => Some(theta),
            Beside::Gradient => system.gradient.as_ref(),
        };
        let (mut images, mut solve) = (Vec::new(), Work::new());
        let at = |slot| (&self.coefficients, slot);
        if system.square == Square::Gram {
            let vectors = [momentum.then_some(&self.last), q];
            for vector in vectors {
                let image = gpu.buffer("image", system.count)?;
                if let Some(vector) = vector {
                    let tail = begin.tail();
                    tail.copy(vector.slice(), system.direction.slice())?;
                    begin.append(system.multiply.clone());
                    begin.tail().copy(&system.image, &image)?;
                }
                images.push(image);
            }
            solve = system.combine.clone();
            let (tail, combination) = (solve.tail(), system.combination.slice());
            let [start, next, last] = [&self.start, &self.next, &self.last].map(Vector::slice);
            match q {
                None => combine(gpu, tail, next, last, combination, at(LAST))?,
                Some(q) => {
                    combine(gpu, tail, start, last, q.slice(), at(START))?;
                    combine(gpu, tail, next, start, combination, at(SUM))?;
                }
            }
        }
        let (tail, last) = (begin.tail(), self.last.slice());
        let other = q.map_or(last, Vector::slice);
        inner_products(gpu, tail, (&self.sums, 0), &self.partials, last, other)?;
        let mut take = Recording::new();
        let [trial, next, theta_slice] = [&self.trial, &self.next, theta].map(Vector::slice);
        combine(gpu, &mut take, trial, theta_slice, next, at(STEP))?;
        take.copy(trial, theta_slice)?;
        take.copy(next, last)?;
        Ok(Workspace {
            system: Arc::clone(system),
            theta: theta.uncounted(),
            begin,
            images,
            solve,
            take,
        })
    }
}
