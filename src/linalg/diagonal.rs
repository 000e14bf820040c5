//! Diagonal matrices as operators.

use crate::error::Result;
use crate::gpu::Gpu;
use crate::graph::executable::DeviceLeaves;
use crate::graph::{Binary, DType, Executable, Graph};
use crate::linalg::Operator;
use crate::vector::Vector;

impl Operator {
    /// `diag(d) v`, with the numbers that are in `d` when a product is computed. `P` flops and `12 P` bytes moved; allocates two vectors, `8 P`
    /// bytes.
    ///
    /// # Errors
    /// Limits of the device, among them that a vector fits a binding; [`Error::OutOfMemory`](crate::Error::OutOfMemory).
    pub fn diagonal(gpu: &Gpu, d: &Vector) -> Result<Self> {
        let new = |label: &str| Vector::new(gpu, label, d.layout());
        let (input, output) = (new("direction")?, new("product")?);
        let elements = d.layout().len();
        let mut graph = Graph::default();
        let diagonal = graph.input("diagonal", &[elements], DType::F32)?;
        let direction = graph.input("direction", &[elements], DType::F32)?;
        let product = graph.binary(Binary::Mul, diagonal, direction)?;
        let leaves = DeviceLeaves {
            inputs: vec![d.slice().clone(), input.slice().clone()],
            ..DeviceLeaves::default()
        };
        let targets = [(product, output.slice().clone())];
        let multiply = Executable::new(gpu, &graph, &leaves, &targets)?.linearize;
        Ok(Self {
            input,
            output,
            multiply: multiply.into(),
        })
    }
}
