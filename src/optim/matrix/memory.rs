//! What a method that treats weights as matrices has on the device: its vectors, and the program of a step.

use std::sync::Arc;

use super::adam;
use super::factors::FIRST_FACTOR;
use super::rule::{Form, Matrix, Operands, Rule, Tensors};
use crate::error::Result;
use crate::gpu::{Gpu, Recording, Slice, Work};
use crate::graph::executable::DeviceLeaves;
use crate::graph::plan::Request;
use crate::graph::tensor::Builder;
use crate::graph::{Arena, Graph, NodeId, Plan, Target};
use crate::kernels::vector::{combine, inner_products, partial_elements};
use crate::objective::Gradient;
use crate::optim::not_finite;
use crate::optim::state_tensor::StateTensor;
use crate::vector::{Entry, Layout, Vector};

/// Places of tensors in a vector, one list for each tensor of the parameters.
type Places = Vec<std::ops::Range<usize>>;

/// A vector that is in use, and the one that takes its place once the step is taken.
pub(super) struct Pair {
    pub(super) now: Vector,
    pub(super) next: Vector,
    /// Which of its tensors belong to which tensor of the parameters.
    pub(super) places: Places,
    /// Puts the other one into use.
    pub(super) renew: Recording,
}

impl Pair {
    fn new(gpu: &Gpu, what: &str, of: &Layout, tensors: Vec<Tensors>) -> Result<Self> {
        let (mut all, mut places) = (Vec::new(), Vec::new());
        for (entry, own) in of.entries().iter().zip(tensors) {
            let first = all.len();
            let named = |(name, shape): (&str, _)| (place(entry, name), shape);
            all.extend(own.into_iter().map(named));
            places.push(first..all.len());
        }
        let layout = Arc::new(Layout::new(&all)?);
        let now = Vector::new(gpu, what, &layout)?;
        let next = Vector::new(gpu, &format!("next {what}"), &layout)?;
        let mut renew = Recording::new();
        renew.copy(next.slice(), now.slice())?;
        Ok(Self {
            now,
            next,
            places,
            renew,
        })
    }

    /// Slices of the vector in use that belong to a tensor of the parameters.
    fn of(pair: Option<&Self>, tensor: usize) -> &[Slice] {
        pair.map_or(&[], |pair| &pair.now.parts()[pair.places[tensor].clone()])
    }
}

pub(super) struct Memory {
    pub(super) forms: Vec<Form>,
    /// What a step computes, and what the host makes of that.
    pub(super) state: Pair,
    pub(super) made: Option<Pair>,
    plan: Plan,
    arena: Arena,
    settings: Slice,
    step: Vector,
    moved: Vector,
    /// `(loss, g.s, g.g, s.s)` with the step `s`.
    pub(super) sums: Slice,
    partials: Slice,
    /// `(1, -1)`
    coefficients: Slice,
}

/// The kernels of a step: what is read before it is taken, and what moves the parameters.
pub(super) struct Step {
    pub(super) gradient: Arc<Gradient>,
    pub(super) theta: Vector,
    pub(super) measure: Work,
    pub(super) take: Recording,
}

impl Memory {
    pub(super) fn new(gpu: &Gpu, layout: &Arc<Layout>, rule: &impl Rule) -> Result<Self> {
        let program = program(rule, layout)?;
        let count = program.settings;
        let request = Request::of(&program.wanted, &[]);
        let plan = Plan::new(&Target::of(gpu), program.graph, request)?;
        let (step, moved) = (
            Vector::new(gpu, "step", layout)?,
            Vector::new(gpu, "parameters after a step", layout)?,
        );
        let coefficients = gpu.buffer("coefficients of parameters and step", 2)?;
        gpu.upload(&coefficients, 0, &[1.0f32, -1.0])?;
        let made = match program.made.iter().all(Vec::is_empty) {
            true => None,
            false => Some(Pair::new(gpu, "matrices of factors", layout, program.made)?),
        };
        Ok(Self {
            forms: program.forms,
            state: Pair::new(gpu, "moments", layout, program.state)?,
            made,
            plan,
            arena: Arena::default(),
            settings: gpu.buffer("settings of a step", count)?,
            sums: gpu.buffer("loss and inner products", 4)?,
            partials: gpu.buffer("partial sums", partial_elements(step.slice()))?,
            step,
            moved,
            coefficients,
        })
    }

    /// Sets the settings of the next step.
    pub(super) fn upload(&self, gpu: &Gpu, settings: &[f32]) -> Result<()> {
        gpu.upload(&self.settings, 0, settings)
    }

    /// Records the step of `theta` with a gradient.
    pub(super) fn record(
        &mut self,
        gpu: &Gpu,
        theta: &Vector,
        gradient: &Arc<Gradient>,
    ) -> Result<Step> {
        let mut inputs = vec![self.settings.clone()];
        let pairs = gradient.gradient.parts().iter().zip(theta.parts());
        for (tensor, (g, theta)) in pairs.enumerate() {
            inputs.extend([g.clone(), theta.clone()]);
            inputs.extend_from_slice(Pair::of(Some(&self.state), tensor));
            inputs.extend_from_slice(Pair::of(self.made.as_ref(), tensor));
        }
        let leaves = DeviceLeaves {
            inputs,
            ..DeviceLeaves::default()
        };
        let results = [self.step.parts(), self.state.next.parts()].concat();
        let program = self
            .plan
            .bind(gpu, &mut self.arena, &leaves, &results, &[])?;
        let mut measure = gradient.run.clone();
        let tail = measure.tail();
        tail.copy_part(&gradient.value, 0, &self.sums, 0, 1)?;
        tail.append(program.linearize);
        let (g, step) = (gradient.gradient.slice(), self.step.slice());
        inner_products(gpu, tail, (&self.sums, 1), &self.partials, g, step)?;
        let mut take = Recording::new();
        let (moved, ends) = (self.moved.slice(), (&self.coefficients, 0));
        combine(gpu, &mut take, moved, theta.slice(), step, ends)?;
        take.copy(moved, theta.slice())?;
        Ok(Step {
            gradient: Arc::clone(gradient),
            theta: theta.uncounted(),
            measure,
            take,
        })
    }

    /// The sum of a number over all matrices.
    pub(super) fn sum(&self, of: impl Fn(&Matrix) -> f64) -> f64 {
        let matrices = self.forms.iter().filter_map(Form::matrix);
        matrices.map(of).sum()
    }

    /// Makes anew what the host makes, of what the step leaves, and uploads both to where they are not yet in use. At first nothing but
    /// factors is kept of that.
    pub(super) fn refresh(
        &self,
        gpu: &Gpu,
        rule: &impl Rule,
        first: bool,
        (mut state, mut made): (Vec<Vec<f32>>, Vec<Vec<f32>>),
    ) -> Result<()> {
        let Some(pair) = &self.made else {
            return Ok(());
        };
        let places = self.state.places.iter().zip(&pair.places);
        for ((form, at), (own, others)) in self.forms.iter().zip(0..).zip(places) {
            let (state, made) = (&mut state[own.clone()], &mut made[others.clone()]);
            if first {
                let moments = state.iter_mut().take(FIRST_FACTOR);
                moments.for_each(|moment| moment.fill(0.0));
            }
            let Some(matrix) = form.matrix() else {
                continue;
            };
            let finite = |made: &[Vec<f32>]| made.iter().flatten().all(|x| x.is_finite());
            let done = rule.refresh(matrix, first, state, made);
            if done.filter(|()| finite(made)).is_none() {
                let entries = self.step.layout().entries();
                return Err(not_finite::factors(&entries[at].name));
            }
        }
        self.state.next.write(gpu, &state)?;
        pair.next.write(gpu, &made)
    }

    /// What must be remembered, by the rule's names.
    pub(super) fn tensors(&self, names: &[&str]) -> Vec<StateTensor> {
        let pairs = std::iter::once(&self.state).chain(&self.made);
        let named = pairs.zip(names);
        named
            .map(|(pair, name)| StateTensor::vector(name, &pair.now))
            .collect()
    }
}

/// What belongs to a tensor of the parameters, by name.
fn place(entry: &Entry, name: &str) -> String {
    format!("{} {name}", entry.name)
}

/// The graph of a step, whose leaves are settings, and for each tensor gradient, parameters, what is remembered, and what is made.
pub(super) struct Program {
    pub(super) forms: Vec<Form>,
    /// Of each tensor.
    pub(super) state: Vec<Tensors>,
    pub(super) made: Vec<Tensors>,
    /// Number of settings.
    pub(super) settings: usize,
    pub(super) graph: Graph,
    /// The steps of all tensors, and then all that is to be remembered.
    pub(super) wanted: Vec<NodeId>,
}

/// The program of a rule.
pub(super) fn program(rule: &impl Rule, layout: &Layout) -> Result<Program> {
    let graph = Builder::new();
    let count = rule.settings(1, 1.0).len();
    let settings = graph.input("settings", &[count]);
    let forms = rule.forms(layout);
    let (mut steps, mut remembered) = (Vec::new(), Vec::new());
    let (mut all_state, mut all_made) = (Vec::new(), Vec::new());
    for (form, entry) in forms.iter().zip(layout.entries()) {
        let shape = form.shape();
        let [state, made] = match form {
            Form::Elements(_) => [adam::moments(&shape), Vec::new()],
            Form::Matrix(matrix) => rule.memory(matrix),
        };
        let leaf = |name: &str, shape: &[usize]| graph.input(&place(entry, name), shape);
        let leaves = |tensors: &Tensors| {
            let leaves = tensors.iter().map(|(name, shape)| leaf(name, shape));
            leaves.collect()
        };
        let on = Operands {
            settings,
            gradient: leaf("gradient", &shape),
            theta: leaf("parameters", &shape),
            state: leaves(&state),
            made: leaves(&made),
        };
        let update = match form {
            Form::Elements(_) => adam::update(&on),
            Form::Matrix(matrix) => rule.update(matrix, &on),
        };
        steps.push(update.step.id());
        remembered.extend(update.state.iter().map(|tensor| tensor.id()));
        all_state.push(state);
        all_made.push(made);
    }
    steps.extend(remembered);
    Ok(Program {
        forms,
        state: all_state,
        made: all_made,
        settings: count,
        graph: graph.finish()?,
        wanted: steps,
    })
}
