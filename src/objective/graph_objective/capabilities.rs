//! What the objective of a model can do.

use std::ops::Range;
use std::sync::Arc;

use super::GraphObjective;
use crate::data::Batch;
use crate::error::Result;
use crate::gpu::Gpu;
use crate::graph::locate::Located;
use crate::objective::{
    BatchStatistics, Curved, Gradient, GradientRequest, GroupRequest, GroupedQuadratic, Kronecker,
    KroneckerRequest, KroneckerStructure, Layered, Loaded, Objective, Parts, Quadratic,
    QuadraticRequest, SampleRequest, SampleSpace, SampleSystem, Slot, Statistics,
    StatisticsRequest,
};
use crate::vector::{Layout, Vector};

impl Objective for GraphObjective {
    type Batch = Batch;

    fn gpu(&self) -> &Gpu {
        &self.gpu
    }

    fn layout(&self) -> &Arc<Layout> {
        &self.layout
    }

    fn load(&mut self, slot: Slot, batch: &Batch) -> Result<Loaded> {
        self.fill(slot, batch, 1)
    }

    fn gradient(
        &mut self,
        at: &Vector,
        loaded: &Loaded,
        request: GradientRequest,
    ) -> Result<Arc<Gradient>> {
        if let Some((_, kept)) = self.gradients.get(at, loaded, &request) {
            return Ok(kept);
        }
        let inputs = self.places.loaded(loaded)?;
        let plan = self.single(loaded.rows, request.into())?;
        let program = Arc::new(self.bind_gradient(&plan, (at, &inputs, loaded), request)?);
        let kept = (inputs, Arc::clone(&program));
        self.gradients
            .keep(at, loaded, request, program.cost.bytes, kept);
        Ok(program)
    }

    fn locate(&mut self, parameters: &[Vec<f32>], batch: &Batch, budget: u64) -> Result<Located> {
        self.find_origin(parameters, batch, budget)
    }
}

impl Curved for GraphObjective {
    fn quadratic(
        &mut self,
        at: &Vector,
        loaded: &Loaded,
        request: QuadraticRequest,
    ) -> Result<Arc<Quadratic>> {
        if let Some((_, kept)) = self.quadratics.get(at, loaded, &request) {
            return Ok(kept);
        }
        let inputs = self.places.loaded(loaded)?;
        let plan = self.single(loaded.rows, request)?;
        let program = Arc::new(self.bind_quadratic(&plan, (at, &inputs, loaded), request)?);
        let kept = (inputs, Arc::clone(&program));
        self.quadratics
            .keep(at, loaded, request, program.cost.bytes, kept);
        Ok(program)
    }

    fn layered(&self) -> Result<&dyn Layered<Batch = Self::Batch>> {
        Ok(self)
    }

    fn layered_mut(&mut self) -> Result<&mut dyn Layered<Batch = Self::Batch>> {
        Ok(self)
    }
}

impl Parts for GraphObjective {
    fn rows(&self, batch: &Batch) -> Option<usize> {
        Some(batch.len())
    }

    fn part(&self, batch: &Batch, ranges: &[Range<usize>]) -> Result<Batch> {
        batch.part(ranges)
    }

    fn load_groups(&mut self, slot: Slot, batch: &Batch, groups: usize) -> Result<Loaded> {
        let batch = batch.in_groups(groups)?;
        self.fill(slot, &batch, groups)
    }

    fn grouped(
        &mut self,
        at: &Vector,
        loaded: &Loaded,
        request: GroupRequest,
    ) -> Result<Arc<GroupedQuadratic>> {
        if let Some((_, kept)) = self.grouped.get(at, loaded, &request) {
            return Ok(kept);
        }
        let inputs = self.places.loaded(loaded)?;
        let plan = self.groups(loaded, request)?;
        let program = Arc::new(self.bind_groups(&plan, (at, &inputs, loaded), request)?);
        let kept = (inputs, Arc::clone(&program));
        self.grouped
            .keep(at, loaded, request, program.cost.bytes, kept);
        Ok(program)
    }
}

impl Layered for GraphObjective {
    fn structure(&self, request: KroneckerRequest) -> Result<KroneckerStructure> {
        self.layer_structure(request)
    }

    fn kronecker(
        &mut self,
        [at, inverses]: [&Vector; 2],
        loaded: &Loaded,
        request: KroneckerRequest,
    ) -> Result<Arc<Kronecker>> {
        let of = |(_, read, _): &super::Layered| read.is_same(inverses);
        if let Some((_, _, kept)) = self.layered.find(at, loaded, &request, of) {
            return Ok(kept);
        }
        let inputs = self.places.loaded(loaded)?;
        let plan = self.layers(loaded.rows, request)?;
        let program = Arc::new(self.bind_layers(&plan, ([at, inverses], &inputs, loaded))?);
        let kept = (inputs, inverses.uncounted(), Arc::clone(&program));
        self.layered
            .keep(at, loaded, request, program.cost.bytes, kept);
        Ok(program)
    }
}

impl Statistics for GraphObjective {
    fn statistics(
        &mut self,
        at: &Vector,
        loaded: &Loaded,
        request: StatisticsRequest,
    ) -> Result<Arc<BatchStatistics>> {
        if let Some((_, kept)) = self.statistics.get(at, loaded, &request) {
            return Ok(kept);
        }
        let inputs = self.places.loaded(loaded)?;
        let plan = self.measured(loaded.rows, request)?;
        let program = Arc::new(self.bind_measured(&plan, (at, &inputs, loaded))?);
        let kept = (inputs, Arc::clone(&program));
        self.statistics
            .keep(at, loaded, request, program.cost.bytes, kept);
        Ok(program)
    }
}

impl SampleSpace for GraphObjective {
    fn sample_system(
        &mut self,
        at: &Vector,
        loaded: &Loaded,
        request: SampleRequest,
    ) -> Result<Arc<SampleSystem>> {
        if let Some((_, kept)) = self.samples.get(at, loaded, &request) {
            return Ok(kept);
        }
        let inputs = self.places.loaded(loaded)?;
        let plan = self.sampled(loaded.rows, request)?;
        let program = Arc::new(self.bind_sampled(&plan, (at, &inputs, loaded))?);
        let kept = (inputs, Arc::clone(&program));
        self.samples
            .keep(at, loaded, request, program.cost.bytes, kept);
        Ok(program)
    }
}
