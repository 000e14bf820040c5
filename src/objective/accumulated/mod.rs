//! An objective whose batches are too large for one pass: the sum over micro-batches, up to whole data sets.

mod parts;
mod sums;

use std::sync::Arc;

use sums::Sums;

use super::{
    BlockProduct, Cost, Curved, Gradient, GradientRequest, GroupRequest, GroupedQuadratic, Loaded,
    Objective, Programs, Quadratic, QuadraticRequest, Slot,
};
use crate::data::MicroBatches;
use crate::error::{Error, Result};
use crate::gpu::{Gpu, Work};
use crate::graph::locate::Located;
use crate::linalg::{Operator, Scalars};
use crate::vector::{Block, Layout, Vector};

/// Micro-batches that a batch may have: slots of the inner objective are as far apart.
const MOST: usize = 1 << 16;

/// The sum of an objective over [micro-batches](MicroBatches) with their shares,
///
/// ```text
/// L(theta) = sum_i share_i L_i(theta)
/// ```
///
/// with everything that the inner objective has: gradients, quadratics with blocks and diagonals, groups, and changes of losses. Each
/// micro-batch has a slot of the inner objective, all at a time: memory is that of the rows of all, and, for each, a gradient and what
/// its products need of the forward pass; what is needed only within a pass is there once. The bits depend on how a batch is cut,
/// and a program serves what is cut alike: whoever loads another cut asks for its program again.
///
/// ```
/// use osculant::data::digits;
/// use osculant::objective::{Accumulated, GraphObjective};
/// use osculant::optim::{NewtonCg, NewtonCgOptions, Optimizer};
/// # use osculant::{gpu::Gpu, nn::{Loss, Sequential}};
/// # fn train(gpu: &Gpu) -> osculant::Result<()> {
/// let data = digits()?;
/// let model = Sequential::new().dense(10).model(&data, Loss::SoftmaxCrossEntropy);
/// let inner = GraphObjective::new(gpu, model)?;
/// let theta = inner.initial_parameters(0)?;
/// let mut objective = Accumulated::new(inner);
/// let all: Vec<usize> = (0..data.len()).collect();
/// let mut optimizer = NewtonCg::new(NewtonCgOptions::default())?;
/// optimizer.step(&mut objective, &theta, &data.micro_batches(&all, 500)?)?;
/// # Ok(())
/// # }
/// ```
#[derive(Debug)]
pub struct Accumulated<O> {
    inner: O,
    slots: Vec<Held>,
    /// The shares of slots by the number of micro-batches: programs that were made for as many hold them.
    shares: Vec<(Slot, usize, Scalars)>,
    gradients: Programs<GradientRequest, Sum<Gradient>>,
    quadratics: Programs<QuadraticRequest, Sum<Quadratic>>,
    grouped: Programs<GroupRequest, Sum<GroupedQuadratic>>,
}

/// A program with those of the micro-batches that it is made of, and with their shares.
#[derive(Debug)]
struct Sum<P> {
    parts: Vec<Arc<P>>,
    shares: Scalars,
    all: Arc<P>,
}

impl<P> Clone for Sum<P> {
    fn clone(&self) -> Self {
        Self {
            parts: self.parts.clone(),
            shares: self.shares.clone(),
            all: Arc::clone(&self.all),
        }
    }
}

impl<P> Sum<P> {
    /// Whether it is made of these.
    fn is_of(&self, parts: &[Arc<P>], shares: &Scalars) -> bool {
        let mut pairs = parts.iter().zip(&self.parts);
        parts.len() == self.parts.len()
            && pairs.all(|(a, b)| Arc::ptr_eq(a, b))
            && self.shares.is_same(shares)
    }

    /// Whether somebody else holds it.
    fn held(&self) -> bool {
        Arc::strong_count(&self.all) > 1
    }
}

/// What was loaded into a slot.
#[derive(Debug)]
struct Held {
    slot: Slot,
    /// The micro-batches, in slots of the inner objective.
    parts: Vec<Loaded>,
    /// Their shares, on the device.
    shares: Scalars,
}

impl<O: Objective> Accumulated<O> {
    /// Over micro-batches of an objective.
    pub fn new(inner: O) -> Self {
        Self {
            inner,
            slots: Vec::new(),
            shares: Vec::new(),
            gradients: Programs::default().with_held(Sum::held),
            quadratics: Programs::default().with_held(Sum::held),
            grouped: Programs::default().with_held(Sum::held),
        }
    }

    /// The objective of one micro-batch.
    pub fn inner(&self) -> &O {
        &self.inner
    }

    /// That objective, to evaluate or load something of its own; slots of numbers below 2^16 are free.
    pub fn inner_mut(&mut self) -> &mut O {
        &mut self.inner
    }

    /// Loads micro-batches one after another. Where one is refused the slot holds nothing, so that no program computes with some of them.
    fn fill<B>(
        &mut self,
        slot: Slot,
        parts: &[(B, f64)],
        mut load: impl FnMut(&mut O, Slot, &B) -> Result<Loaded>,
    ) -> Result<Loaded> {
        if parts.len() >= MOST {
            return Err(Error::OverLimit {
                what: "a batch, in micro-batches,".into(),
                needed: parts.len() as u64,
                limit_name: "their number",
                limit: MOST as u64 - 1,
                advice: "give more rows to each",
            });
        }
        self.slots.retain(|held| held.slot != slot);
        let first = slot.number.wrapping_add(1).wrapping_mul(MOST);
        let mut loaded = Vec::with_capacity(parts.len());
        for (number, (batch, _)) in parts.iter().enumerate() {
            let own = Slot::new(slot.role, first.wrapping_add(number));
            loaded.push(load(&mut self.inner, own, batch)?);
        }
        let of = |known: &&(Slot, usize, Scalars)| (known.0, known.1) == (slot, parts.len());
        let shares = match self.shares.iter().find(of) {
            Some((_, _, shares)) => shares.clone(),
            None => {
                let shares = Scalars::of_sum(self.inner.gpu(), parts.len())?;
                self.shares.push((slot, parts.len(), shares.clone()));
                shares
            }
        };
        let values: Vec<f64> = parts.iter().map(|&(_, share)| share).collect();
        shares.set(self.inner.gpu(), &values)?;
        let whole = Loaded {
            slot,
            rows: loaded.iter().map(|part| part.rows).sum(),
            examples: loaded.iter().map(|part| part.examples).sum(),
            groups: loaded[0].groups,
        };
        self.slots.push(Held {
            slot,
            parts: loaded,
            shares,
        });
        Ok(whole)
    }

    fn held(&self, loaded: &Loaded) -> Result<&Held> {
        let rows = |held: &Held| held.parts.iter().map(|part| part.rows).sum::<usize>();
        let of = |held: &&Held| {
            let groups = held.parts.iter().all(|part| part.groups == loaded.groups);
            held.slot == loaded.slot && rows(held) == loaded.rows && groups
        };
        self.slots
            .iter()
            .find(of)
            .ok_or_else(|| Error::Unsupported {
                what: format!(
                    "a program for {} rows in slot {:?} {}",
                    loaded.rows, loaded.slot.role, loaded.slot.number
                ),
                message: "no such micro-batches are loaded there; load them first".into(),
            })
    }
}

impl<O: Objective> Objective for Accumulated<O> {
    type Batch = MicroBatches<O::Batch>;

    fn gpu(&self) -> &Gpu {
        self.inner.gpu()
    }

    fn layout(&self) -> &Arc<Layout> {
        self.inner.layout()
    }

    fn load(&mut self, slot: Slot, batch: &Self::Batch) -> Result<Loaded> {
        self.fill(slot, batch.parts(), |inner, slot, part| {
            inner.load(slot, part)
        })
    }

    fn gradient(
        &mut self,
        at: &Vector,
        loaded: &Loaded,
        request: GradientRequest,
    ) -> Result<Arc<Gradient>> {
        let held = self.held(loaded)?;
        let (shares, slots) = (held.shares.clone(), held.parts.clone());
        let parts: Vec<Arc<Gradient>> = slots
            .iter()
            .map(|part| self.inner.gradient(at, part, request))
            .collect::<Result<_>>()?;
        let made_of = |known: &Sum<Gradient>| known.is_of(&parts, &shares);
        if let Some(known) = self.gradients.find(at, loaded, &request, made_of) {
            return Ok(known.all);
        }
        let sums = Sums {
            gpu: self.inner.gpu(),
            shares: &shares,
        };
        let mut run = Work::new();
        for part in &parts {
            run.append(part.run.clone());
        }
        let results = sums.results(parts.len())?;
        let values: Vec<_> = parts.iter().map(|part| &part.value).collect();
        let gradients: Vec<&Vector> = parts.iter().map(|part| &part.gradient).collect();
        let losses: Option<Vec<_>> = parts.iter().map(|part| part.losses.as_ref()).collect();
        let gradient = Arc::new(Gradient {
            value: sums.value(run.tail(), &results, &values)?,
            gradient: sums.vector(run.tail(), "gradient", &gradients)?,
            losses: losses
                .map(|losses| sums.losses(at, &results, &losses))
                .transpose()?,
            cost: Cost::sum(parts.iter().map(|part| part.cost), 3 * at.slice().bytes()),
            run,
            loaded: *loaded,
        });
        let bytes = gradient.cost.bytes;
        let all = Arc::clone(&gradient);
        let sum = Sum { parts, shares, all };
        self.gradients.keep(at, loaded, request, bytes, sum);
        Ok(gradient)
    }

    fn locate(
        &mut self,
        parameters: &[Vec<f32>],
        batch: &Self::Batch,
        budget: u64,
    ) -> Result<Located> {
        let parts = batch.parts();
        let mut found = Located::Nowhere;
        for (part, _) in parts {
            match self
                .inner
                .locate(parameters, part, budget / parts.len() as u64)?
            {
                Located::Nowhere => {}
                Located::Unknown => found = Located::Unknown,
                at => return Ok(at),
            }
        }
        Ok(found)
    }
}

impl<O: Curved> Curved for Accumulated<O> {
    fn quadratic(
        &mut self,
        at: &Vector,
        loaded: &Loaded,
        request: QuadraticRequest,
    ) -> Result<Arc<Quadratic>> {
        let held = self.held(loaded)?;
        let (shares, slots) = (held.shares.clone(), held.parts.clone());
        let parts: Vec<Arc<Quadratic>> = slots
            .iter()
            .map(|part| self.inner.quadratic(at, part, request))
            .collect::<Result<_>>()?;
        let made_of = |known: &Sum<Quadratic>| known.is_of(&parts, &shares);
        if let Some(known) = self.quadratics.find(at, loaded, &request, made_of) {
            return Ok(known.all);
        }
        let gpu = self.inner.gpu();
        let sums = Sums {
            gpu,
            shares: &shares,
        };
        let mut linearize = Work::new();
        for part in &parts {
            linearize.append(part.linearize.clone());
        }
        let results = sums.results(parts.len())?;
        let values: Vec<_> = parts.iter().map(|part| &part.value).collect();
        let gradients: Vec<&Vector> = parts.iter().map(|part| &part.gradient).collect();
        let diagonals: Option<Vec<_>> = parts.iter().map(|p| p.fisher_diagonal.as_ref()).collect();
        let losses: Option<Vec<_>> = parts.iter().map(|part| part.losses.as_ref()).collect();
        let terms: Vec<Operator> = parts.iter().map(|part| part.as_ref().into()).collect();
        let operator = Operator::sum_with(gpu, &terms, &shares)?;
        let blocks: Option<Vec<_>> = parts.iter().map(|part| part.block.as_ref()).collect();
        let vectors = 8 + 3 * request.block as u64;
        let quadratic = Arc::new(Quadratic {
            value: sums.value(linearize.tail(), &results, &values)?,
            gradient: sums.vector(linearize.tail(), "gradient", &gradients)?,
            fisher_diagonal: diagonals
                .map(|terms| sums.vector(linearize.tail(), "empirical Fisher diagonal", &terms))
                .transpose()?,
            losses: losses
                .map(|losses| sums.losses(at, &results, &losses))
                .transpose()?,
            block: blocks
                .map(|blocks| multiply_blocks(&sums, &blocks))
                .transpose()?,
            direction: operator.input,
            product: operator.output,
            multiply: operator.multiply,
            listing: Arc::clone(&parts[0].listing),
            cost: Cost::sum(
                parts.iter().map(|part| part.cost),
                vectors * at.slice().bytes(),
            ),
            linearize,
            loaded: *loaded,
        });
        let bytes = quadratic.cost.bytes;
        let all = Arc::clone(&quadratic);
        let sum = Sum { parts, shares, all };
        self.quadratics.keep(at, loaded, request, bytes, sum);
        Ok(quadratic)
    }
}

/// Products with a block of directions: one micro-batch after another.
fn multiply_blocks(sums: &Sums<'_>, parts: &[&BlockProduct]) -> Result<BlockProduct> {
    let terms: Vec<Operator<Block>> = parts.iter().map(|&part| part.into()).collect();
    let operator = Operator::sum_with(sums.gpu, &terms, sums.shares)?;
    Ok(BlockProduct {
        directions: operator.input,
        products: operator.output,
        multiply: operator.multiply,
        width: parts[0].width,
    })
}
