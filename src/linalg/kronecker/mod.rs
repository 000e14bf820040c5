//! Products with functions of Kronecker factors.

mod corrected;
mod factor;
mod functions;

use std::sync::Arc;

pub use functions::{FactorDamping, Function, Functions};

use super::linear::Linear;
use super::operator::Operator;
use crate::error::Result;
use crate::gpu::{Gpu, Recording, Work};
use crate::graph::executable::DeviceLeaves;
use crate::graph::plan::Request;
use crate::graph::preconditioned::{function_leaves, preconditioned};
use crate::graph::{Arena, Graph, NodeId, Plan, Target};
use crate::objective::KroneckerStructure;
use crate::vector::{Layout, Vector};

/// `f(A) V f(B)` for each layer's part `V` of a vector: a symmetric block-diagonal matrix, such as an approximation of the Gauss-Newton
/// matrix by Kronecker factors, its inverse, or a root of either, on all parameters.
///
/// Parameters that share no factors stay as they are. A product takes `2 n^2 m + 2 n m^2` operations for a layer of `n` rows and `m`
/// columns with factors that are matrices; a sketch for `r` eigenvectors takes `4 n m r` in place of its part, a diagonal `n m`.
///
/// ```
/// use osculant::linalg::{FactorDamping, Function, KroneckerOperator};
/// use osculant::objective::{GraphObjective, KroneckerRequest, Layered};
/// # use osculant::{gpu::Gpu, objective::Objective, vector::Vector};
/// # type Tensors = Vec<Vec<f32>>;
/// # fn solve(gpu: &Gpu, objective: &GraphObjective, factors: &Tensors, v: &Tensors) -> osculant::Result<Tensors> {
/// let structure = objective.structure(KroneckerRequest::default())?;
/// let damping = FactorDamping::Relative(1.0);
/// let inverse = &structure.functions_of(factors, damping, &[Function::Inverse])?[0];
/// let mut operator = KroneckerOperator::new(gpu, objective.layout(), &structure)?;
/// operator.tensors().write(gpu, inverse)?;
/// let solves = operator.operator(gpu)?;
/// solves.input.write(gpu, v)?;
/// gpu.run([&solves.multiply])?;
/// solves.output.read(gpu)
/// # }
/// ```
#[derive(Debug)]
pub struct KroneckerOperator {
    layout: Arc<Layout>,
    tensors: Vector,
    plan: Plan,
    arena: Arena,
    leaves: Vec<NodeId>,
    given: Vec<NodeId>,
}

impl KroneckerOperator {
    /// On vectors of a layout, that of the parameters which the structure is of. The tensors are to be written before the first product.
    ///
    /// # Errors
    /// Limits of the device, [`Error::OutOfMemory`](crate::Error::OutOfMemory).
    pub fn new(gpu: &Gpu, layout: &Arc<Layout>, structure: &KroneckerStructure) -> Result<Self> {
        let mut graph = Graph::new();
        let entries = layout.entries().iter();
        let given: Vec<NodeId> = entries.map(|e| graph.direction(&e.shape)).collect();
        let leaves = function_leaves(&mut graph, &structure.layers);
        let results = preconditioned(&mut graph, &structure.layers, &given, &leaves)?;
        Ok(Self {
            layout: Arc::clone(layout),
            tensors: Vector::new(gpu, "functions of Kronecker factors", &structure.functions)?,
            plan: Plan::new(&Target::of(gpu), graph, Request::of(&results, &[]))?,
            arena: Arena::default(),
            leaves: leaves.into_iter().flatten().flatten().collect(),
            given,
        })
    }

    /// The tensors of the functions, of the structure's layout; products submitted before they change keep those of then.
    #[must_use]
    pub fn tensors(&self) -> &Vector {
        &self.tensors
    }

    /// As an operator for solvers, with vectors of its own.
    ///
    /// # Errors
    /// Limits of the device, [`Error::OutOfMemory`](crate::Error::OutOfMemory).
    pub fn operator(&mut self, gpu: &Gpu) -> Result<Operator> {
        let new = |label: &str| Vector::new(gpu, label, &self.layout);
        let (input, output) = (new("direction")?, new("product")?);
        let mut multiply = Work::new();
        self.record(gpu, multiply.tail(), &input, &output)?;
        Ok(Operator {
            input,
            output,
            multiply,
        })
    }
}

impl Linear for KroneckerOperator {
    fn record(
        &mut self,
        gpu: &Gpu,
        recording: &mut Recording,
        x: &Vector,
        out: &Vector,
    ) -> Result<()> {
        let functions = self.leaves.iter().zip(self.tensors.parts());
        let given = self.given.iter().zip(x.parts());
        let leaves = DeviceLeaves {
            directions: functions
                .chain(given)
                .map(|(&node, slice)| (node, slice.clone()))
                .collect(),
            ..DeviceLeaves::default()
        };
        let program = self
            .plan
            .bind(gpu, &mut self.arena, &leaves, out.parts(), &[])?;
        recording.append(program.linearize);
        Ok(())
    }

    fn flops(&self) -> f64 {
        self.plan.listing().flops(0) as f64
    }
}
