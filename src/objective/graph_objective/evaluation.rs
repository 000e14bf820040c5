//! Loss and figure of merit over a data set.

use std::sync::Arc;

use super::GraphObjective;
use crate::data::{Dataset, Role};
use crate::error::Result;
use crate::gpu::{Recorder, Recording, Slice};
use crate::graph::plan::Request;
use crate::graph::{Binary, Plan};
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

/// What is computed of a batch.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(super) enum Wanted {
    /// The mean of the losses, and that of the metric where there is one.
    Means,
    /// The outputs of all rows.
    Outputs,
}

/// That of a batch.
pub(super) struct Evaluator {
    results: Vec<Slice>,
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
        let (mut loss, mut metric) = (0.0, None);
        for (rows, read) in self.over(theta, dataset, Wanted::Means).await? {
            let share = rows as f64 / dataset.len() as f64;
            loss += share * f64::from(read[0][0]);
            if let Some(values) = read.get(1) {
                *metric.get_or_insert(0.0) += share * f64::from(values[0]);
            }
        }
        Ok(Evaluation { loss, metric })
    }

    /// The outputs of the model for each row of a data set, row after row: predictions. Targets are not looked at, but must be of the model's
    /// kind.
    ///
    /// ```
    /// # use osculant::{data::Dataset, objective::GraphObjective, vector::Vector};
    /// # fn best(objective: &mut GraphObjective, theta: &Vector, data: &Dataset) -> osculant::Result<Vec<usize>> {
    /// let logits = objective.outputs(theta, data)?;
    /// let classes = logits.len() / data.len();
    /// let largest = |row: &[f32]| (0..classes).max_by(|&a, &b| row[a].total_cmp(&row[b])).unwrap_or(0);
    /// Ok(logits.chunks(classes).map(largest).collect())
    /// # }
    /// ```
    ///
    /// # Errors
    /// As [`evaluate`](Self::evaluate).
    #[cfg(not(target_arch = "wasm32"))]
    pub fn outputs(&mut self, theta: &Vector, dataset: &Dataset) -> Result<Vec<f32>> {
        crate::gpu::blocking(self.outputs_async(theta, dataset))
    }

    /// As [`outputs`](Self::outputs), without blocking the thread.
    ///
    /// # Errors
    /// As there.
    pub async fn outputs_async(&mut self, theta: &Vector, dataset: &Dataset) -> Result<Vec<f32>> {
        let mut outputs = Vec::new();
        let padded = EVALUATION_ROWS.min(dataset.len());
        for (rows, read) in self.over(theta, dataset, Wanted::Outputs).await? {
            // Rows of padding come last.
            outputs.extend_from_slice(&read[0][..read[0].len() / padded * rows]);
        }
        Ok(outputs)
    }

    /// For each batch of a data set the number of its rows, and what is wanted of them.
    async fn over(
        &mut self,
        theta: &Vector,
        dataset: &Dataset,
        wanted: Wanted,
    ) -> Result<Vec<(usize, Vec<Vec<f32>>)>> {
        let rows = EVALUATION_ROWS.min(dataset.len());
        let mut found = Vec::with_capacity(dataset.len().div_ceil(rows.max(1)));
        for start in (0..dataset.len()).step_by(rows) {
            let indices: Vec<usize> = (start..dataset.len().min(start + rows)).collect();
            let batch = dataset.batch(&indices)?.pad_to(rows)?;
            let loaded = self.load(PLACE, &batch)?;
            let evaluator = self.evaluator(theta, &loaded, wanted)?;
            let slices: Vec<&Slice> = evaluator.results.iter().collect();
            let record = |recorder: &mut Recorder<'_>| {
                recorder.replay(&evaluator.run);
                Ok(())
            };
            let read = self.gpu.submit_and_read_async(record, &slices).await?;
            found.push((indices.len(), read));
        }
        Ok(found)
    }

    fn evaluator(
        &mut self,
        theta: &Vector,
        loaded: &Loaded,
        wanted: Wanted,
    ) -> Result<Arc<Evaluator>> {
        if let Some((_, kept)) = self.evaluations.get(theta, loaded, &wanted) {
            return Ok(kept);
        }
        let inputs = self.places.loaded(loaded)?;
        let mut program = self.trace(loaded.rows)?;
        let leaves = self.leaves(&program.traced.graph, theta, &inputs)?;
        let outputs = program.traced.outputs;
        let mut nodes = match wanted {
            Wanted::Means => vec![program.data_loss],
            Wanted::Outputs => vec![outputs],
        };
        if let (Some(metric), Wanted::Means) = (program.traced.metric, wanted) {
            let graph = &mut program.traced.graph;
            let weighted = graph.binary(Binary::Mul, program.weights, metric)?;
            nodes.push(graph.sum(weighted, &[0])?);
        }
        let mut results = Vec::with_capacity(nodes.len());
        for &node in &nodes {
            let elements = program.traced.graph.shape(node).iter().product();
            self.gpu
                .check_binding("the outputs of a batch".to_owned(), elements)?;
            results.push(self.gpu.buffer("evaluation", elements)?);
        }
        let request = Request::of(&nodes, &[]);
        let plan = Plan::new(&self.target, program.traced.graph, request)?;
        let executable = plan.bind(&self.gpu, &mut self.arena, &leaves, &results, &[])?;
        let bytes = executable.listing.kept;
        let program = Arc::new(Evaluator {
            results,
            run: executable.linearize,
        });
        let kept = (inputs, Arc::clone(&program));
        self.evaluations.keep(theta, loaded, wanted, bytes, kept);
        Ok(program)
    }
}
