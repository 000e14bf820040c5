//! Loss and figure of merit over a data set.

use std::sync::Arc;

use super::GraphObjective;
use crate::data::{Dataset, Role};
use crate::error::Result;
use crate::gpu::{Recorder, Recording, Slice};
use crate::graph::plan::Request;
use crate::graph::{Binary, NodeId, Plan};
use crate::objective::{Loaded, Objective, Slot};
use crate::vector::Vector;

/// Rows of the batches in which a whole data set is evaluated.
const EVALUATION_ROWS: usize = 1000;
/// A slot that no optimizer uses.
const PLACE: Slot = Slot::new(Role::Acceptance, usize::MAX);

/// Mean loss and figure of merit over a data set.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Evaluation {
    /// Mean loss, without the `l2` term.
    pub loss: f64,
    /// Mean of the model's metric, if it has one.
    pub metric: Option<f64>,
}

/// Loss and metric of a batch.
pub(super) struct Evaluator {
    loss: Slice,
    metric: Option<Slice>,
    run: Recording,
}

impl GraphObjective {
    /// Mean loss and metric over a data set, in batches.
    ///
    /// # Errors
    /// Data that do not fit the model.
    #[cfg(not(target_arch = "wasm32"))]
    pub fn evaluate(&mut self, theta: &Vector, dataset: &Dataset) -> Result<Evaluation> {
        crate::gpu::blocking(self.evaluate_async(theta, dataset))
    }

    /// As [`evaluate`](Self::evaluate), without blocking the thread.
    ///
    /// # Errors
    /// As there.
    pub async fn evaluate_async(
        &mut self,
        theta: &Vector,
        dataset: &Dataset,
    ) -> Result<Evaluation> {
        let rows = EVALUATION_ROWS.min(dataset.len());
        let (mut loss, mut metric) = (0.0, None);
        for start in (0..dataset.len()).step_by(rows) {
            let indices: Vec<usize> = (start..dataset.len().min(start + rows)).collect();
            let share = indices.len() as f64 / dataset.len() as f64;
            let batch = dataset.batch(&indices)?.pad_to(rows)?;
            let loaded = self.load(PLACE, &batch)?;
            let evaluator = self.evaluator(theta, &loaded)?;
            let slices: Vec<&Slice> = std::iter::once(&evaluator.loss)
                .chain(&evaluator.metric)
                .collect();
            let record = |recorder: &mut Recorder<'_>| {
                recorder.replay(&evaluator.run);
                Ok(())
            };
            let read = self.gpu.submit_and_read_async(record, &slices).await?;
            loss += share * f64::from(read[0][0]);
            if let Some(values) = read.get(1) {
                *metric.get_or_insert(0.0) += share * f64::from(values[0]);
            }
        }
        Ok(Evaluation { loss, metric })
    }

    fn evaluator(&mut self, theta: &Vector, loaded: &Loaded) -> Result<Arc<Evaluator>> {
        if let Some((_, kept)) = self.evaluations.get(theta, loaded, &()) {
            return Ok(kept);
        }
        let inputs = self.places.loaded(loaded)?;
        let mut program = self.trace(loaded.rows)?;
        let leaves = self.leaves(&program.traced.graph, theta, &inputs)?;
        let loss = self.gpu.buffer("loss", 1)?;
        let mut targets = vec![(program.data_loss, loss.clone())];
        let metric = match program.traced.metric {
            None => None,
            Some(metric) => {
                let graph = &mut program.traced.graph;
                let weighted = graph.binary(Binary::Mul, program.weights, metric)?;
                let mean = graph.sum(weighted, &[0])?;
                let slice = self.gpu.buffer("metric", 1)?;
                targets.push((mean, slice.clone()));
                Some(slice)
            }
        };
        let (nodes, slices): (Vec<NodeId>, Vec<Slice>) = targets.into_iter().unzip();
        let request = Request::of(&nodes, &[]);
        let plan = Plan::new(&self.target, program.traced.graph, request)?;
        let executable = plan.bind(&self.gpu, &mut self.arena, &leaves, &slices, &[])?;
        let bytes = executable.listing.kept;
        let program = Arc::new(Evaluator {
            loss,
            metric,
            run: executable.linearize,
        });
        let kept = (inputs, Arc::clone(&program));
        self.evaluations.keep(theta, loaded, (), bytes, kept);
        Ok(program)
    }
}
