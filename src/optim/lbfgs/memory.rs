//! What L-BFGS has on the device.

use std::sync::Arc;

use super::recursion::{Along, Combination, Products};
use crate::error::Result;
use crate::gpu::{Gpu, Recording, Slice, Work};
use crate::kernels::blocks::Rows;
use crate::kernels::vector::{combine, inner_products, partial_elements};
use crate::linalg::Basis;
use crate::objective::Gradient;
use crate::optim::saved::missing;
use crate::vector::{Block, Layout, Vector};

/// Coefficients `(1, length)` of a trial, `(1, -1)` of a difference, `(1, c)` of the gradient in the direction, and zeros for a start.
const TRIAL: usize = 0;
const DIFFERENCE: usize = 2;
const GRADIENT: usize = 4;

pub(super) struct Memory {
    /// Steps, and what gradients changed by over them.
    pub(super) s: Basis,
    pub(super) y: Basis,
    pub(super) trial: Vector,
    direction: Vector,
    combined: Vector,
    /// The step of the trial, and what the gradient changes by over it.
    pair: Block,
    /// Products of `s` and `y` with the gradient, and with the pair.
    along: [Slice; 2],
    with_pair: [Slice; 2],
    /// `(g.g, ..)`, and of a trial `(s.y, s.s, y.y)`, `(g'.d, ..)`, `(g.d, ..)`.
    square: Slice,
    sums: Slice,
    partials: Slice,
    /// Of all `s` and of all `y` in the direction.
    coefficients: [Slice; 2],
    ends: Slice,
    /// Puts the pair of the last trial in each place.
    pub(super) remember: Vec<Recording>,
}

/// What is recorded for the gradients at the parameters and at a trial.
pub(super) struct Workspace {
    pub(super) base: Arc<Gradient>,
    pub(super) at_trial: Arc<Gradient>,
    pub(super) theta: Vector,
    /// Loss and gradient, with their products.
    pub(super) begin: Work,
    /// The direction.
    pub(super) aim: Recording,
    /// A trial.
    pub(super) probe: Work,
    /// Moves the parameters.
    pub(super) take: Recording,
}

/// What a trial tells.
pub(super) struct Told {
    pub(super) loss: f64,
    /// `g.d` at the parameters and at the trial.
    pub(super) slopes: [f64; 2],
    /// `|s|^2`
    pub(super) square: f64,
    pub(super) products: Products,
}

fn wide(values: &[f32]) -> Vec<f64> {
    values.iter().copied().map(f64::from).collect()
}

impl Memory {
    pub(super) fn new(gpu: &Gpu, layout: &Arc<Layout>, places: usize) -> Result<Self> {
        let new = |label: &str| Vector::new(gpu, label, layout);
        let block = |label: &str, width: usize| Block::new(gpu, label, layout, width);
        let (s, y) = (
            block("steps", places)?,
            block("changes of gradients", places)?,
        );
        let pair = block("pair", 2)?;
        let mut remember = vec![Recording::new(); places];
        for (from, to) in pair.vectors().iter().zip([&s, &y]) {
            for (recording, to) in remember.iter_mut().zip(to.vectors()) {
                recording.copy(from.slice(), to.slice())?;
            }
        }
        let [one, two] = ["with steps", "with changes of gradients"];
        let buffer = |what: &str, len: usize| gpu.buffer(&format!("products {what}"), len);
        let direction = new("direction")?;
        let ends = gpu.buffer("coefficients of a trial", 6)?;
        gpu.upload(&ends, DIFFERENCE, &[1.0f32, -1.0])?;
        Ok(Self {
            s: Basis::of(&s),
            y: Basis::of(&y),
            trial: new("trial point")?,
            combined: new("combination of pairs")?,
            pair,
            along: [buffer(one, places)?, buffer(two, places)?],
            with_pair: [buffer(one, 2 * places)?, buffer(two, 2 * places)?],
            square: gpu.buffer("square of the gradient", 3)?,
            sums: gpu.buffer("inner products", 9)?,
            partials: gpu.buffer("partial sums", partial_elements(direction.slice()))?,
            coefficients: [
                gpu.buffer("coefficients of steps", places)?,
                gpu.buffer("coefficients of changes", places)?,
            ],
            direction,
            ends,
            remember,
        })
    }

    pub(super) fn record(
        &self,
        gpu: &Gpu,
        theta: &Vector,
        [base, at_trial]: [&Arc<Gradient>; 2],
    ) -> Result<Workspace> {
        let (g, d) = (base.gradient.slice(), self.direction.slice());
        let mut begin = base.run.clone();
        for (basis, products) in [&self.s, &self.y].into_iter().zip(&self.along) {
            basis.record_products(gpu, begin.tail(), &(&base.gradient).into(), products)?;
        }
        let square = (&self.square, 0);
        inner_products(gpu, begin.tail(), square, &self.partials, g, g)?;

        let (mut aim, out) = (Recording::new(), Rows::from(&self.combined));
        let [of_s, of_y] = &self.coefficients;
        self.s
            .record_combination(gpu, &mut aim, &out, of_s, false)?;
        self.y.record_combination(gpu, &mut aim, &out, of_y, true)?;
        let combined = self.combined.slice();
        combine(gpu, &mut aim, d, combined, g, (&self.ends, GRADIENT))?;

        let mut probe = Work::new();
        let (trial, theta_slice) = (self.trial.slice(), theta.slice());
        combine(
            gpu,
            probe.tail(),
            trial,
            theta_slice,
            d,
            (&self.ends, TRIAL),
        )?;
        probe.append(at_trial.run.clone());
        let tail = probe.tail();
        let after = at_trial.gradient.slice();
        let [s, y] = [0, 1].map(|row: usize| self.pair.vectors()[row].slice());
        combine(gpu, tail, s, trial, theta_slice, (&self.ends, DIFFERENCE))?;
        combine(gpu, tail, y, after, g, (&self.ends, DIFFERENCE))?;
        for (basis, products) in [&self.s, &self.y].into_iter().zip(&self.with_pair) {
            basis.record_products(gpu, tail, &(&self.pair).into(), products)?;
        }
        for (at, [a, b]) in [(0, [s, y]), (3, [after, d]), (6, [g, d])] {
            inner_products(gpu, tail, (&self.sums, at), &self.partials, a, b)?;
        }

        let mut take = Recording::new();
        take.copy(trial, theta_slice)?;
        Ok(Workspace {
            base: Arc::clone(base),
            at_trial: Arc::clone(at_trial),
            theta: theta.uncounted(),
            begin,
            aim,
            probe,
            take,
        })
    }

    /// Loss and gradient at the parameters.
    pub(super) async fn begin(&self, gpu: &Gpu, workspace: &Workspace) -> Result<(f64, Along)> {
        let [s, y] = &self.along;
        let reads = [&workspace.base.value, &self.square, s, y];
        let read = gpu.run_and_read_async([&workspace.begin], &reads).await?;
        let [loss, square, s, y] = &read[..] else {
            return Err(missing("products"));
        };
        let along = Along {
            s: wide(s),
            y: wide(y),
            square: f64::from(square[0]),
        };
        Ok((f64::from(loss[0]), along))
    }

    /// Makes the direction.
    pub(super) fn aim(&self, gpu: &Gpu, workspace: &Workspace, way: &Combination) -> Result<()> {
        let narrow = |all: &[f64]| all.iter().map(|&x| x as f32).collect::<Vec<f32>>();
        gpu.upload(&self.coefficients[0], 0, &narrow(&way.s))?;
        gpu.upload(&self.coefficients[1], 0, &narrow(&way.y))?;
        gpu.upload(&self.ends, GRADIENT, &[1.0, way.gradient as f32])?;
        gpu.submit(|recorder| recorder.replay(&workspace.aim))
    }

    /// Tries a length of the direction.
    pub(super) async fn probe(
        &self,
        gpu: &Gpu,
        workspace: &Workspace,
        length: f64,
    ) -> Result<Told> {
        gpu.upload(&self.ends, TRIAL, &[1.0, length as f32])?;
        let [s, y] = &self.with_pair;
        let reads = [&workspace.at_trial.value, &self.sums, s, y];
        let read = gpu.run_and_read_async([&workspace.probe], &reads).await?;
        let [loss, sums, s, y] = &read[..] else {
            return Err(missing("products"));
        };
        let sum = |at: usize| f64::from(sums[at]);
        let places = s.len() / 2;
        Ok(Told {
            loss: f64::from(loss[0]),
            slopes: [sum(6), sum(3)],
            square: sum(1),
            products: Products {
                s_with_new_y: wide(&s[places..]),
                y_with_new_s: wide(&y[..places]),
                y_with_new_y: wide(&y[places..]),
                own: [sum(0), sum(2)],
            },
        })
    }
}
