//! Loss and gradient by a caller's work.

use std::sync::Arc;

use super::places::{Place, check_apart, gather, scatter};
use super::{Buffer, OwnTensor};
use crate::error::Result;
use crate::gpu::{Gpu, Slice, Work};
use crate::objective::capability::Objective;
use crate::objective::programs::Programs;
use crate::objective::quadratic::{Gradient, GradientRequest};
use crate::objective::slot::{Loaded, Slot};
use crate::objective::{Cost, Losses};
use crate::vector::{Layout, Vector};

/// An objective that has nothing but gradients.
#[derive(Debug)]
pub(super) struct Gradients {
    gpu: Gpu,
    layout: Arc<Layout>,
    pub(super) parameters: Vec<Place>,
    pub(super) gradients: Vec<Place>,
    loss: Place,
    work: Work,
    /// Where there is work for the loss alone.
    loss_alone: Option<Work>,
    pub(super) examples: usize,
    programs: Programs<GradientRequest, Arc<Gradient>>,
}

impl Gradients {
    pub(super) fn new(
        gpu: &Gpu,
        tensors: &[OwnTensor<'_>],
        loss: Buffer<'_>,
        work: Work,
    ) -> Result<Self> {
        let named: Vec<(String, Vec<usize>)> = tensors
            .iter()
            .map(|tensor| (tensor.name.to_owned(), tensor.shape.to_vec()))
            .collect();
        let layout = Arc::new(Layout::new(&named)?);
        let (mut parameters, mut gradients) = (Vec::new(), Vec::new());
        for (tensor, entry) in tensors.iter().zip(layout.entries()) {
            let len = entry.elements();
            parameters.push(Place::new(gpu, tensor.name, tensor.parameters, len)?);
            let label = format!("gradient of {}", tensor.name);
            gradients.push(Place::new(gpu, &label, tensor.gradient, len)?);
        }
        let loss = Place::new(gpu, "loss", loss, 1)?;
        check_apart(parameters.iter().chain(&gradients).chain([&loss]))?;
        let own = Self {
            gpu: gpu.clone(),
            layout,
            parameters,
            gradients,
            loss,
            work,
            loss_alone: None,
            examples: 1,
            programs: Programs::default(),
        };
        // What is asked of the buffers is asked now, not in the first step.
        let (value, vector) = (
            gpu.buffer("loss", 1)?,
            Vector::new(gpu, "gradient", &own.layout)?,
        );
        own.evaluate(&vector, &value, Some(&vector))?;
        Ok(own)
    }

    /// With work for the loss alone.
    pub(super) fn set_loss(&mut self, work: Work) {
        self.loss_alone = Some(work);
        self.programs = Programs::default();
    }

    /// What computes the loss at a vector, and its gradient where there is a place for it.
    fn evaluate(&self, at: &Vector, value: &Slice, gradient: Option<&Vector>) -> Result<Work> {
        let mut run = Work::new();
        scatter(run.tail(), &self.parameters, at)?;
        let work = match gradient {
            Some(_) => &self.work,
            None => self.loss_alone.as_ref().unwrap_or(&self.work),
        };
        run.append(work.clone());
        self.loss.copy_to(run.tail(), value)?;
        if let Some(gradient) = gradient {
            gather(run.tail(), &self.gradients, gradient)?;
        }
        Ok(run)
    }
}

impl Objective for Gradients {
    type Batch = ();

    fn gpu(&self) -> &Gpu {
        &self.gpu
    }

    fn layout(&self) -> &Arc<Layout> {
        &self.layout
    }

    fn load(&mut self, slot: Slot, (): &()) -> Result<Loaded> {
        Ok(Loaded {
            slot,
            rows: self.examples,
            examples: self.examples,
            groups: 1,
        })
    }

    fn gradient(
        &mut self,
        at: &Vector,
        loaded: &Loaded,
        request: GradientRequest,
    ) -> Result<Arc<Gradient>> {
        if let Some(known) = self.programs.get(at, loaded, &request) {
            return Ok(known);
        }
        let gpu = &self.gpu;
        let (value, gradient) = (
            gpu.buffer("loss", 1)?,
            Vector::new(gpu, "gradient", &self.layout)?,
        );
        let run = self.evaluate(at, &value, Some(&gradient))?;
        let losses = match request.losses {
            false => None,
            true => {
                let (point, there) = (
                    Vector::new(gpu, "point", &self.layout)?,
                    gpu.buffer("loss", 1)?,
                );
                let run = self.evaluate(&point, &there, None)?;
                let base = (at, &value);
                Some(Losses::of_value_from(gpu, base, &point, &there, &run)?)
            }
        };
        let vectors = 1 + u64::from(request.losses);
        let bytes = 4 * vectors * self.layout.len() as u64;
        let program = Arc::new(Gradient {
            value,
            gradient,
            run,
            losses,
            cost: Cost {
                bytes,
                ..Cost::default()
            },
            loaded: *loaded,
        });
        self.programs
            .keep(at, loaded, request, bytes, Arc::clone(&program));
        Ok(program)
    }
}
