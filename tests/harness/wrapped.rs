//! The objective of a model whose programs were changed.

use std::ops::Range;
use std::sync::Arc;

use osculant::Result;
use osculant::data::Batch;
use osculant::gpu::Gpu;
use osculant::nn::Model;
use osculant::objective::{
    Curved, Gradient, GradientRequest, GraphObjective, GroupRequest, GroupedQuadratic, Loaded,
    Objective, Parts, Quadratic, QuadraticRequest, Slot,
};
use osculant::vector::{Layout, Vector};

/// What is done to programs.
pub(crate) trait Change: Send {
    fn gradient(&self, program: &mut Gradient) -> Result<()>;
    fn quadratic(&self, program: &mut Quadratic) -> Result<()>;
    fn grouped(&self, program: &mut GroupedQuadratic) -> Result<()>;
}

/// The objective.
pub(crate) struct Wrapped<C> {
    pub(crate) inner: GraphObjective,
    change: C,
    gradients: Known<Gradient>,
    quadratics: Known<Quadratic>,
    grouped: Known<GroupedQuadratic>,
}

/// Programs, and what became of them.
type Known<P> = Vec<(Arc<P>, Arc<P>)>;

/// What became of a program.
fn changed<P: Clone>(
    known: &mut Known<P>,
    inner: Arc<P>,
    change: impl Fn(&mut P) -> Result<()>,
) -> Result<Arc<P>> {
    if let Some((_, known)) = known.iter().find(|(i, _)| Arc::ptr_eq(i, &inner)) {
        return Ok(Arc::clone(known));
    }
    let mut outer = P::clone(&inner);
    change(&mut outer)?;
    let outer = Arc::new(outer);
    known.push((inner, Arc::clone(&outer)));
    Ok(outer)
}

impl<C> Wrapped<C> {
    pub(crate) fn new(gpu: &Gpu, model: Model, change: C) -> Result<Self> {
        Ok(Self {
            inner: GraphObjective::new(gpu, model)?,
            change,
            gradients: Vec::new(),
            quadratics: Vec::new(),
            grouped: Vec::new(),
        })
    }
}

impl<C: Change> Objective for Wrapped<C> {
    type Batch = Batch;

    fn gpu(&self) -> &Gpu {
        self.inner.gpu()
    }

    fn layout(&self) -> &Arc<Layout> {
        self.inner.layout()
    }

    fn load(&mut self, slot: Slot, batch: &Batch) -> Result<Loaded> {
        self.inner.load(slot, batch)
    }

    fn gradient(
        &mut self,
        at: &Vector,
        loaded: &Loaded,
        request: GradientRequest,
    ) -> Result<Arc<Gradient>> {
        let inner = self.inner.gradient(at, loaded, request)?;
        changed(&mut self.gradients, inner, |p| self.change.gradient(p))
    }
}

impl<C: Change> Curved for Wrapped<C> {
    fn quadratic(
        &mut self,
        at: &Vector,
        loaded: &Loaded,
        request: QuadraticRequest,
    ) -> Result<Arc<Quadratic>> {
        let inner = self.inner.quadratic(at, loaded, request)?;
        changed(&mut self.quadratics, inner, |p| self.change.quadratic(p))
    }
}

impl<C: Change> Parts for Wrapped<C> {
    fn rows(&self, batch: &Batch) -> Option<usize> {
        self.inner.rows(batch)
    }

    fn part(&self, batch: &Batch, ranges: &[Range<usize>]) -> Result<Batch> {
        self.inner.part(batch, ranges)
    }

    fn load_groups(&mut self, slot: Slot, batch: &Batch, groups: usize) -> Result<Loaded> {
        self.inner.load_groups(slot, batch, groups)
    }

    fn grouped(
        &mut self,
        at: &Vector,
        loaded: &Loaded,
        request: GroupRequest,
    ) -> Result<Arc<GroupedQuadratic>> {
        let inner = self.inner.grouped(at, loaded, request)?;
        changed(&mut self.grouped, inner, |p| self.change.grouped(p))
    }
}
