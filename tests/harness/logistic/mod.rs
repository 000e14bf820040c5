//! Logistic regression with kernels of its own and batches of its own: an objective without a graph, with all that objectives can do.
//!
//! ```text
//! f(theta) = sum_n w_n (log(1 + exp z_n) - y_n z_n) + l2/2 |theta|^2     z_n = x_n . theta
//! ```
//!
//! Its Hessian is its Gauss-Newton matrix, because `z` is linear.

#![allow(dead_code, reason = "not every test target uses everything")]

mod kernels;

use std::ops::Range;
use std::sync::Arc;

use osculant::gpu::{Gpu, Recording, Slice};
use osculant::objective::{
    BlockProduct, Cost, Curvature, Curved, Gradient, GradientRequest, Group, GroupRequest,
    GroupedQuadratic, Loaded, LossCost, Losses, Objective, Parts, Programs, Quadratic,
    QuadraticRequest, Slot,
};
use osculant::vector::{Block, Layout, Vector};
use osculant::{Error, Result};

use kernels::{Kernels, Kind, STRIDE};

/// A batch.
#[derive(Clone, Debug)]
pub(crate) struct Examples {
    /// Row after row.
    pub(crate) features: Vec<f32>,
    /// One for each row: 0, 1, or a probability between them.
    pub(crate) targets: Vec<f32>,
    /// One for each row, above 0.
    pub(crate) weights: Vec<f32>,
}

impl Examples {
    fn total(&self) -> f64 {
        self.weights.iter().map(|&w| f64::from(w)).sum()
    }
}

/// The objective.
pub(crate) struct Logistic {
    gpu: Gpu,
    layout: Arc<Layout>,
    l2: f32,
    /// How losses are told: by examples, or as a whole.
    whole_losses: bool,
    /// Batches on the device. What was once loaded stays.
    batches: Vec<(Loaded, Arc<Kernels>)>,
    gradients: Programs<GradientRequest, Arc<Gradient>>,
    quadratics: Programs<QuadraticRequest, Arc<Quadratic>>,
    grouped: Programs<GroupRequest, Arc<GroupedQuadratic>>,
}

impl Logistic {
    /// Of so many features.
    pub(crate) fn new(gpu: &Gpu, features: usize, l2: f32) -> Result<Self> {
        let layout = Layout::new(&[("theta".to_owned(), vec![features, 1])])?;
        Ok(Self {
            gpu: gpu.clone(),
            layout: Arc::new(layout),
            l2,
            whole_losses: false,
            batches: Vec::new(),
            gradients: Programs::default(),
            quadratics: Programs::default(),
            grouped: Programs::default(),
        })
    }

    /// Losses by [`Losses::of_value`], whose changes are differences of sums.
    pub(crate) fn with_whole_losses(mut self) -> Self {
        self.whole_losses = true;
        self
    }

    fn features(&self) -> usize {
        self.layout.parameters()
    }

    fn vector(&self, label: &str) -> Result<Vector> {
        Vector::new(&self.gpu, label, &self.layout)
    }

    /// The kernels on what was loaded so.
    fn kernels(&self, at: &Vector, loaded: &Loaded) -> Result<Arc<Kernels>> {
        if at.layout() != &self.layout {
            return Err(Error::Shape {
                node: "theta".into(),
                message: "is of another model".into(),
            });
        }
        let found = self.batches.iter().find(|(known, _)| same(known, loaded));
        found
            .map(|(_, kernels)| Arc::clone(kernels))
            .ok_or_else(|| Error::Unsupported {
                what: format!("a program for {loaded:?}"),
                message: "no such batch is loaded; load it first".into(),
            })
    }

    /// Losses around a base, if wanted, whose rows are in `before`.
    fn losses(
        &self,
        kernels: &Kernels,
        base: &Vector,
        before: &Slice,
        wanted: bool,
    ) -> Result<Option<Losses>> {
        if !wanted {
            return Ok(None);
        }
        let (gpu, point) = (&self.gpu, self.vector("point")?);
        let (state, results) = (kernels.state(gpu)?, gpu.buffer("losses", 3)?);
        let mut rows = Recording::new();
        kernels.rows(gpu, &mut rows, &point, &state)?;
        let mut sums = Recording::new();
        let (states, vectors) = ([&state, before], [&point, base]);
        kernels.losses(gpu, &mut sums, states, vectors, &results)?;
        if self.whole_losses {
            rows.append(sums);
            return Losses::of_value(gpu, base, &point, &results.slice(0..1)?, &rows.into())
                .map(Some);
        }
        let mut at_base = Recording::new();
        at_base.copy(base.slice(), point.slice())?;
        at_base.copy(before, &state)?;
        at_base.append(sums.clone());
        let mut at_point = rows;
        at_point.append(sums);
        Ok(Some(Losses {
            point,
            results,
            at_base: at_base.into(),
            at_point: at_point.into(),
            cost_at_base: LossCost::NOTHING,
            cost_at_point: LossCost::CHANGE,
        }))
    }

    fn fill(&mut self, slot: Slot, batch: &Examples, groups: usize) -> Result<Loaded> {
        let rows = batch.weights.len();
        let fits = rows > 0
            && batch.targets.len() == rows
            && batch.features.len() == rows * self.features()
            && batch.weights.iter().all(|w| *w > 0.0 && w.is_finite());
        if !fits || groups == 0 || !rows.is_multiple_of(groups) {
            return Err(bad(format!(
                "{rows} rows in {groups} groups, with weights above 0"
            )));
        }
        let loaded = Loaded {
            slot,
            rows,
            examples: rows,
            groups,
        };
        let known = self.batches.iter().find(|(known, _)| same(known, &loaded));
        let kernels = match known {
            Some((_, kernels)) => Arc::clone(kernels),
            None => {
                let kernels = Kernels::new(&self.gpu, &loaded, &self.layout, self.l2)?;
                let kernels = Arc::new(kernels);
                self.batches.push((loaded, Arc::clone(&kernels)));
                kernels
            }
        };
        kernels.upload(&self.gpu, batch)?;
        Ok(loaded)
    }
}

/// Whether both are in one place.
fn same(one: &Loaded, other: &Loaded) -> bool {
    (one.slot, one.rows, one.groups) == (other.slot, other.rows, other.groups)
}

fn bad(message: String) -> Error {
    Error::Data {
        what: "batch".into(),
        message,
    }
}

impl Objective for Logistic {
    type Batch = Examples;

    fn gpu(&self) -> &Gpu {
        &self.gpu
    }

    fn layout(&self) -> &Arc<Layout> {
        &self.layout
    }

    fn load(&mut self, slot: Slot, batch: &Examples) -> Result<Loaded> {
        self.fill(slot, batch, 1)
    }

    fn gradient(
        &mut self,
        at: &Vector,
        loaded: &Loaded,
        request: GradientRequest,
    ) -> Result<Arc<Gradient>> {
        if let Some(known) = self.gradients.get(at, loaded, &request) {
            return Ok(known);
        }
        let (gpu, kernels) = (&self.gpu, self.kernels(at, loaded)?);
        let (state, losses) = (kernels.state(gpu)?, gpu.buffer("loss", 3)?);
        let gradient = self.vector("gradient")?;
        let mut run = Recording::new();
        kernels.rows(gpu, &mut run, at, &state)?;
        kernels.losses(gpu, &mut run, [&state, &state], [at, at], &losses)?;
        kernels.whole_gradient(gpu, &mut run, &state, at, gradient.slice())?;
        let program = Arc::new(Gradient {
            value: losses.slice(0..1)?,
            gradient,
            run: run.into(),
            losses: self.losses(&kernels, at, &state, request.losses)?,
            loaded: *loaded,
            cost: Cost::default(),
        });
        let bytes = state.bytes() + 4 * self.layout.len() as u64;
        let kept = Arc::clone(&program);
        self.gradients.keep(at, loaded, request, bytes, kept);
        Ok(program)
    }
}

impl Curved for Logistic {
    fn quadratic(
        &mut self,
        at: &Vector,
        loaded: &Loaded,
        request: QuadraticRequest,
    ) -> Result<Arc<Quadratic>> {
        if let Some(known) = self.quadratics.get(at, loaded, &request) {
            return Ok(known);
        }
        let (gpu, kernels) = (&self.gpu, self.kernels(at, loaded)?);
        let curved = request.curvature != Curvature::None;
        let (state, along) = (kernels.state(gpu)?, kernels.state(gpu)?);
        let losses = gpu.buffer("loss", 3)?;
        let [gradient, direction, product] = [
            self.vector("gradient")?,
            self.vector("direction")?,
            self.vector("product")?,
        ];
        let mut linearize = Recording::new();
        kernels.rows(gpu, &mut linearize, at, &state)?;
        kernels.losses(gpu, &mut linearize, [&state, &state], [at, at], &losses)?;
        kernels.whole_gradient(gpu, &mut linearize, &state, at, gradient.slice())?;
        let fisher_diagonal = match request.fisher_diagonal {
            false => None,
            true => {
                let diagonal = self.vector("empirical Fisher diagonal")?;
                let states = [&state, &state];
                let kind = Kind::Fisher;
                kernels.columns(gpu, &mut linearize, kind, states, at, diagonal.slice())?;
                Some(diagonal)
            }
        };
        let multiply_one = |recording: &mut Recording, v: &Vector, to: &Vector| {
            kernels.rows(gpu, recording, v, &along)?;
            kernels.columns(
                gpu,
                recording,
                Kind::Product,
                [&state, &along],
                v,
                to.slice(),
            )
        };
        let mut multiply = Recording::new();
        let mut block = None;
        if curved {
            multiply_one(&mut multiply, &direction, &product)?;
        }
        if curved && request.block > 0 {
            let new = |label: &str| Block::new(gpu, label, &self.layout, request.block);
            let (directions, products) = (new("directions")?, new("products")?);
            let mut multiply = Recording::new();
            for (v, to) in directions.vectors().iter().zip(products.vectors()) {
                multiply_one(&mut multiply, v, to)?;
            }
            block = Some(BlockProduct {
                directions,
                products,
                multiply: multiply.into(),
                width: 1,
            });
        }
        let program = Arc::new(Quadratic {
            value: losses.slice(0..1)?,
            gradient,
            direction,
            product,
            fisher_diagonal,
            linearize: linearize.into(),
            multiply: multiply.into(),
            block,
            losses: self.losses(&kernels, at, &state, request.losses)?,
            listing: Arc::default(),
            loaded: *loaded,
            cost: Cost::default(),
        });
        let vectors = 4 + 2 * request.block as u64;
        let bytes = 2 * state.bytes() + 4 * vectors * self.layout.len() as u64;
        let kept = Arc::clone(&program);
        self.quadratics.keep(at, loaded, request, bytes, kept);
        Ok(program)
    }
}

impl Parts for Logistic {
    fn rows(&self, batch: &Examples) -> Option<usize> {
        Some(batch.weights.len())
    }

    fn part(&self, batch: &Examples, ranges: &[Range<usize>]) -> Result<Examples> {
        let (rows, features) = (batch.weights.len(), self.features());
        let chosen: Vec<usize> = ranges.iter().cloned().flatten().collect();
        if chosen.is_empty() || chosen.iter().any(|&row| row >= rows) {
            return Err(bad(format!("{ranges:?} are no rows of {rows}")));
        }
        let of = |row: &usize| batch.features[row * features..(row + 1) * features].to_vec();
        let sum: f64 = chosen
            .iter()
            .map(|&row| f64::from(batch.weights[row]))
            .sum();
        let scale = batch.total() / sum;
        let scaled = |&row: &usize| (f64::from(batch.weights[row]) * scale) as f32;
        Ok(Examples {
            features: chosen.iter().flat_map(of).collect(),
            targets: chosen.iter().map(|&row| batch.targets[row]).collect(),
            weights: chosen.iter().map(scaled).collect(),
        })
    }

    fn load_groups(&mut self, slot: Slot, batch: &Examples, groups: usize) -> Result<Loaded> {
        self.fill(slot, batch, groups)
    }

    fn grouped(
        &mut self,
        at: &Vector,
        loaded: &Loaded,
        request: GroupRequest,
    ) -> Result<Arc<GroupedQuadratic>> {
        if let Some(known) = self.grouped.get(at, loaded, &request) {
            return Ok(known);
        }
        let (gpu, kernels) = (&self.gpu, self.kernels(at, loaded)?);
        let curved = request.curvature != Curvature::None;
        let (state, along) = (kernels.state(gpu)?, kernels.state(gpu)?);
        let losses = gpu.buffer("loss", 3)?;
        let (gradient, direction) = (self.vector("gradient")?, self.vector("direction")?);
        let new = |label: &str| Block::new(gpu, label, &self.layout, loaded.groups);
        let (gradients, products) = (new("gradients of groups")?, new("products of groups")?);
        let mut linearize = Recording::new();
        kernels.rows(gpu, &mut linearize, at, &state)?;
        kernels.losses(gpu, &mut linearize, [&state, &state], [at, at], &losses)?;
        kernels.whole_gradient(gpu, &mut linearize, &state, at, gradient.slice())?;
        let (kind, states) = (Kind::Gradient, [&state, &state]);
        kernels.columns(gpu, &mut linearize, kind, states, at, gradients.slice())?;
        let mut multiply = Recording::new();
        let mut variances = None;
        if curved {
            let (kind, states) = (Kind::Product, [&state, &along]);
            kernels.rows(gpu, &mut multiply, &direction, &along)?;
            kernels.columns(
                gpu,
                &mut multiply,
                kind,
                states,
                &direction,
                products.slice(),
            )?;
            if request.slope_variance {
                let all = gpu.buffer("variances of slopes", STRIDE * loaded.groups)?;
                kernels.variances(gpu, &mut multiply, states, &all)?;
                variances = Some(all);
            }
        }
        let group = |at: usize| {
            let own = variances
                .as_ref()
                .map(|v| v.slice(STRIDE * at..STRIDE * at + 1));
            Ok(Group {
                gradient: gradients.vectors()[at].clone(),
                product: products.vectors()[at].clone(),
                slope_variance: own.transpose()?,
            })
        };
        let program = Arc::new(GroupedQuadratic {
            groups: (0..loaded.groups).map(group).collect::<Result<_>>()?,
            gradients,
            products,
            value: losses.slice(0..1)?,
            gradient,
            direction,
            linearize: linearize.into(),
            multiply: multiply.into(),
            losses: self.losses(&kernels, at, &state, request.losses)?,
            listing: Arc::default(),
            loaded: *loaded,
            cost: Cost::default(),
        });
        let vectors = 2 + 2 * loaded.groups as u64;
        let bytes = 2 * state.bytes() + 4 * vectors * self.layout.len() as u64;
        let kept = Arc::clone(&program);
        self.grouped.keep(at, loaded, request, bytes, kept);
        Ok(program)
    }
}
