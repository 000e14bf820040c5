//! The graph: nodes in single assignment form, appended in topological order.

use std::collections::HashMap;
use std::fmt;

use super::op::{DType, Op};
use crate::error::{Error, Result};

/// Sizes of the axes, outermost first; row-major. A scalar has no axes.
pub type Shape = Vec<usize>;

/// Number of elements of a shape; the largest number where there are more than can be counted, which no device holds.
pub fn elements(shape: &[usize]) -> usize {
    shape
        .iter()
        .fold(1, |product: usize, &size| product.saturating_mul(size))
}

/// Number of elements of a shape; `None` where there are more than can be counted.
pub(super) fn countable(shape: &[usize]) -> Option<usize> {
    shape
        .iter()
        .try_fold(1usize, |product, &size| product.checked_mul(size))
}

/// Index of a node in its graph.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct NodeId(pub(crate) usize);

impl NodeId {
    /// Position in the graph; operands always come before their consumers.
    pub fn index(self) -> usize {
        self.0
    }
}

/// One node: an operation, its operands, and the shape of its result.
#[derive(Clone, Debug)]
pub struct Node {
    /// What is computed.
    pub op: Op,
    /// From which nodes.
    pub operands: Vec<NodeId>,
    /// The shape of the result.
    pub shape: Shape,
    /// The element type of the result.
    pub dtype: DType,
    /// A name for errors and listings.
    pub name: Option<String>,
}

/// A named leaf: parameter or input.
#[derive(Clone, Debug)]
pub struct Leaf {
    /// Unique among its kind.
    pub name: String,
    /// The node that stands for it.
    pub node: NodeId,
    /// For an input of indices whose values have a bound: all are below this number.
    pub below: Option<usize>,
}

/// What to do about numbers in a model that are not finite.
pub(super) const FINITE_ONLY: &str =
    "kernels may assume that all numbers are finite; to mask, use a large number such as -1e30";

/// A static graph of tensor primitives.
#[derive(Clone, Debug, Default)]
pub struct Graph {
    nodes: Vec<Node>,
    parameters: Vec<Leaf>,
    inputs: Vec<Leaf>,
    directions: Vec<NodeId>,
    data: Vec<Vec<f32>>,
    shared: HashMap<(Op, Vec<NodeId>, Shape), NodeId>,
}

/// A line for each node, in order: its id, operation, name and shape, and the ids of its operands.
impl fmt::Display for Graph {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (index, node) in self.nodes.iter().enumerate() {
            let operands = node
                .operands
                .iter()
                .map(|operand| format!("%{}", operand.0));
            let operands: Vec<String> = operands.collect();
            let of = if operands.is_empty() { "" } else { " of " };
            let constant = match node.op {
                Op::Constant(_) => self.constant_value(NodeId(index)),
                _ => None,
            };
            write!(
                f,
                "{}{of}{}",
                self.describe(NodeId(index)),
                operands.join(", ")
            )?;
            match constant {
                Some(value) => writeln!(f, " = {value}")?,
                None => writeln!(f)?,
            }
        }
        Ok(())
    }
}

impl Graph {
    /// An empty graph.
    pub fn new() -> Self {
        Self::default()
    }

    /// Refuses ids beyond the nodes of this graph, as ids of another graph can be. (One that is within them names a node of this graph.)
    ///
    /// # Errors
    /// [`Error::Shape`] for such an id.
    pub fn check_ids(&self, ids: &[NodeId]) -> Result<()> {
        match ids.iter().find(|id| id.0 >= self.nodes.len()) {
            None => Ok(()),
            Some(id) => Err(Error::Shape {
                node: format!("node %{}", id.0),
                message: format!(
                    "this graph has {} nodes; take ids from the graph that made them",
                    self.nodes.len()
                ),
            }),
        }
    }

    /// Refuses tangents that are not of their nodes' shapes.
    pub(super) fn check_tangents(&self, tangents: &[(NodeId, NodeId)]) -> Result<()> {
        for &(node, tangent) in tangents {
            self.check_ids(&[node, tangent])?;
            if self.shape(node) != self.shape(tangent) {
                let message = "the tangent must have the shape of what moves";
                return self.bad("tangent", &[node, tangent], message);
            }
        }
        Ok(())
    }

    /// The node with this id.
    ///
    /// # Panics
    /// On an id of another graph that lies beyond this one's nodes; see [`check_ids`](Self::check_ids).
    pub fn node(&self, id: NodeId) -> &Node {
        &self.nodes[id.0]
    }

    /// The shape of a node.
    ///
    /// # Panics
    /// As [`node`](Self::node).
    pub fn shape(&self, id: NodeId) -> &Shape {
        &self.nodes[id.0].shape
    }

    /// All nodes, operands before consumers.
    pub fn nodes(&self) -> &[Node] {
        &self.nodes
    }

    /// All parameters in the order in which they were declared.
    pub fn parameters(&self) -> &[Leaf] {
        &self.parameters
    }

    /// All inputs in the order in which they were declared.
    pub fn inputs(&self) -> &[Leaf] {
        &self.inputs
    }

    /// All directions (tangent inputs and placeholders).
    pub fn directions(&self) -> &[NodeId] {
        &self.directions
    }

    /// The values of the data tensor with this index, as an [`Op::Data`] of this graph holds it.
    ///
    /// # Panics
    /// On an index of another graph.
    pub fn data(&self, index: usize) -> &[f32] {
        &self.data[index]
    }

    /// How errors and listings call a node: `%7 dot 'hidden' [32, 10]`; a nameless one that only
    /// repeats or reshapes a named one says `of 'name'`.
    pub fn describe(&self, id: NodeId) -> String {
        let Some(node) = self.nodes.get(id.0) else {
            return format!("%{} of another graph", id.0);
        };
        let mut source = id;
        while self.node(source).name.is_none()
            && matches!(self.node(source).op, Op::Reshape | Op::Broadcast)
        {
            source = self.node(source).operands[0];
        }
        let of = if source == id { "" } else { " of" };
        let name = self.node(source).name.as_ref();
        let name = name.map(|n| format!("{of} '{n}'")).unwrap_or_default();
        format!("%{} {}{name} {:?}", id.0, node.op.name(), node.shape)
    }

    /// Gives a node a name, unless it has one.
    pub fn set_name(&mut self, id: NodeId, name: &str) {
        if let Some(node) = self.nodes.get_mut(id.0) {
            node.name.get_or_insert_with(|| name.to_owned());
        }
    }

    pub(super) fn bad<T>(
        &self,
        op: &str,
        operands: &[NodeId],
        message: impl Into<String>,
    ) -> Result<T> {
        let list: Vec<String> = operands.iter().map(|&o| self.describe(o)).collect();
        Err(Error::Shape {
            node: format!("new node '{op}' of ({})", list.join(", ")),
            message: message.into(),
        })
    }

    pub(super) fn append(
        &mut self,
        op: Op,
        operands: Vec<NodeId>,
        shape: Shape,
        dtype: DType,
    ) -> NodeId {
        let key = (op, operands, shape);
        if let Some(&id) = self.shared.get(&key) {
            return id;
        }
        let id = NodeId(self.nodes.len());
        self.nodes.push(Node {
            op: key.0.clone(),
            operands: key.1.clone(),
            shape: key.2.clone(),
            dtype,
            name: None,
        });
        self.shared.insert(key, id);
        id
    }

    fn leaf_name(&self, kind: &str, existing: &[Leaf], name: &str, shape: &[usize]) -> Result<()> {
        if existing.iter().any(|leaf| leaf.name == name) {
            return Err(Error::Shape {
                node: format!("{kind} '{name}'"),
                message: format!(
                    "there is a {kind} of this name already; use the existing tensor again to share it"
                ),
            });
        }
        if shape.contains(&0) {
            return Err(Error::Shape {
                node: format!("{kind} '{name}'"),
                message: format!("shape {shape:?} has an axis of size 0"),
            });
        }
        Ok(())
    }

    /// Declares a parameter. It may be used any number of times.
    pub fn parameter(&mut self, name: &str, shape: &[usize]) -> Result<NodeId> {
        self.leaf_name("parameter", &self.parameters, name, shape)?;
        let id = self.append(
            Op::Parameter(self.parameters.len()),
            vec![],
            shape.to_vec(),
            DType::F32,
        );
        self.set_name(id, name);
        self.parameters.push(Leaf {
            name: name.to_string(),
            node: id,
            below: None,
        });
        Ok(id)
    }

    /// Declares an input.
    pub fn input(&mut self, name: &str, shape: &[usize], dtype: DType) -> Result<NodeId> {
        self.bounded_input(name, shape, dtype, None)
    }

    /// Declares an input of indices (or labels) that are all below a number. Tables and one-hot rows that have no place for some of them
    /// are refused; whoever fills the input keeps the promise.
    pub fn index_input(&mut self, name: &str, shape: &[usize], below: usize) -> Result<NodeId> {
        self.bounded_input(name, shape, DType::U32, Some(below))
    }

    pub(super) fn bounded_input(
        &mut self,
        name: &str,
        shape: &[usize],
        dtype: DType,
        below: Option<usize>,
    ) -> Result<NodeId> {
        self.leaf_name("input", &self.inputs, name, shape)?;
        let id = self.append(Op::Input(self.inputs.len()), vec![], shape.to_vec(), dtype);
        self.set_name(id, name);
        self.inputs.push(Leaf {
            name: name.to_string(),
            node: id,
            below,
        });
        Ok(id)
    }

    /// Declares a direction (tangent input) of this shape.
    pub fn direction(&mut self, shape: &[usize]) -> NodeId {
        let id = self.append(
            Op::Direction(self.directions.len()),
            vec![],
            shape.to_vec(),
            DType::F32,
        );
        self.directions.push(id);
        id
    }

    /// The same value at every element.
    pub fn constant(&mut self, value: f32, shape: &[usize]) -> NodeId {
        self.append(
            Op::Constant(value.to_bits()),
            vec![],
            shape.to_vec(),
            DType::F32,
        )
    }

    /// A tensor given by value; equal ones are shared.
    ///
    /// # Errors
    /// [`Error::Shape`] for another number of values than the shape has; [`Error::Unsupported`] for values that are not finite.
    pub fn data_tensor(&mut self, values: Vec<f32>, shape: &[usize]) -> Result<NodeId> {
        if Some(values.len()) != countable(shape) || values.is_empty() {
            return self.bad(
                "data",
                &[],
                format!("{} values for shape {shape:?}", values.len()),
            );
        }
        if let Some(at) = values.iter().position(|value| !value.is_finite()) {
            return Err(Error::Unsupported {
                what: format!(
                    "{}, value {at} of the tensor of shape {shape:?} given by value,",
                    values[at]
                ),
                message: FINITE_ONLY.into(),
            });
        }
        let equal = |known: &Vec<f32>| {
            let mut pairs = known.iter().zip(&values);
            known.len() == values.len() && pairs.all(|(a, b)| a.to_bits() == b.to_bits())
        };
        let index = match self.data.iter().position(equal) {
            Some(index) => index,
            None => {
                self.data.push(values);
                self.data.len() - 1
            }
        };
        Ok(self.append(Op::Data(index), vec![], shape.to_vec(), DType::F32))
    }

    pub(crate) fn constant_value(&self, id: NodeId) -> Option<f32> {
        match self.node(id).op {
            Op::Constant(bits) => Some(f32::from_bits(bits)),
            _ => None,
        }
    }

    /// For each node, whether it is one of `roots` or an operand of one, directly or not.
    pub fn ancestors(&self, roots: &[NodeId]) -> Vec<bool> {
        let mut needed = vec![false; self.nodes.len()];
        for &root in roots {
            if let Some(needed) = needed.get_mut(root.0) {
                *needed = true;
            }
        }
        for index in (0..self.nodes.len()).rev() {
            if needed[index] {
                for operand in &self.nodes[index].operands {
                    needed[operand.0] = true;
                }
            }
        }
        needed
    }

    /// For each node, whether its value can change with one of `sources`.
    pub fn depends_on(&self, sources: &[NodeId]) -> Vec<bool> {
        let mut depends = vec![false; self.nodes.len()];
        for &source in sources {
            if let Some(depends) = depends.get_mut(source.0) {
                *depends = true;
            }
        }
        for index in 0..self.nodes.len() {
            depends[index] |= self.nodes[index].operands.iter().any(|o| depends[o.0]);
        }
        depends
    }
}
