//! The graph: nodes in single assignment form, appended in topological order.

use std::collections::{BTreeSet, HashMap};

use super::op::{Binary, DType, Op, Unary};
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
fn countable(shape: &[usize]) -> Option<usize> {
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

    fn bad<T>(&self, op: &str, operands: &[NodeId], message: impl Into<String>) -> Result<T> {
        let list: Vec<String> = operands.iter().map(|&o| self.describe(o)).collect();
        Err(Error::Shape {
            node: format!("new node '{op}' of ({})", list.join(", ")),
            message: message.into(),
        })
    }

    fn append(&mut self, op: Op, operands: Vec<NodeId>, shape: Shape, dtype: DType) -> NodeId {
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

    /// A tensor given by value.
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
        let id = self.append(
            Op::Data(self.data.len()),
            vec![],
            shape.to_vec(),
            DType::F32,
        );
        self.data.push(values);
        Ok(id)
    }

    pub(crate) fn constant_value(&self, id: NodeId) -> Option<f32> {
        match self.node(id).op {
            Op::Constant(bits) => Some(f32::from_bits(bits)),
            _ => None,
        }
    }

    fn float(&self, op: &str, operands: &[NodeId]) -> Result<()> {
        self.check_ids(operands)?;
        match operands.iter().find(|&&o| self.node(o).dtype != DType::F32) {
            Some(&o) => self.bad(
                op,
                operands,
                format!("{} holds indices; use one_hot or gather", self.describe(o)),
            ),
            None => Ok(()),
        }
    }

    /// `f(x)`, elementwise.
    pub fn unary(&mut self, f: Unary, x: NodeId) -> Result<NodeId> {
        let op = Op::Unary(f);
        self.float(op.name(), &[x])?;
        let shape = self.shape(x).clone();
        if let Some(value) = self.constant_value(x) {
            return Ok(self.constant(f.apply(f64::from(value)) as f32, &shape));
        }
        if f == Unary::Neg && self.node(x).op == op {
            return Ok(self.node(x).operands[0]);
        }
        Ok(self.append(op, vec![x], shape, DType::F32))
    }

    /// `f(a, b)`, elementwise; shapes must be equal (see [`Graph::broadcast_pair`]).
    ///
    /// Neutral elements are left out. A product with 0 is not 0, since the other factor may be infinite or not a number.
    pub fn binary(&mut self, f: Binary, a: NodeId, b: NodeId) -> Result<NodeId> {
        let op = Op::Binary(f);
        self.float(op.name(), &[a, b])?;
        if self.shape(a) != self.shape(b) {
            return self.bad(op.name(), &[a, b], "the shapes differ and do not broadcast");
        }
        let shape = self.shape(a).clone();
        let (ca, cb) = (self.constant_value(a), self.constant_value(b));
        if let (Some(x), Some(y)) = (ca, cb) {
            return Ok(self.constant(f.apply(f64::from(x), f64::from(y)) as f32, &shape));
        }
        match (f, ca, cb) {
            (Binary::Add, Some(0.0), _) | (Binary::Mul, Some(1.0), _) => return Ok(b),
            (Binary::Add | Binary::Sub, _, Some(0.0))
            | (Binary::Mul | Binary::Div, _, Some(1.0)) => return Ok(a),
            (Binary::Sub, Some(0.0), _) | (Binary::Mul, Some(-1.0), _) => {
                return self.unary(Unary::Neg, b);
            }
            (Binary::Mul, _, Some(-1.0)) => return self.unary(Unary::Neg, a),
            _ => {}
        }
        // One order for the commutative ones, so that a*b and b*a are one node.
        let operands = if matches!(f, Binary::Add | Binary::Mul) && b < a {
            vec![b, a]
        } else {
            vec![a, b]
        };
        Ok(self.append(op, operands, shape, DType::F32))
    }

    /// `a` where `condition > 0`, else `b`, and NaN where the condition is.
    pub fn select(&mut self, condition: NodeId, a: NodeId, b: NodeId) -> Result<NodeId> {
        let operands = [condition, a, b];
        self.float("select", &operands)?;
        if self.shape(condition) != self.shape(a) || self.shape(a) != self.shape(b) {
            return self.bad("select", &operands, "the three shapes must be equal");
        }
        let shape = self.shape(a).clone();
        Ok(self.append(Op::Select, operands.to_vec(), shape, DType::F32))
    }

    /// The same value, treated as a constant by every derivative.
    pub fn stop_gradient(&mut self, x: NodeId) -> Result<NodeId> {
        self.float("stop_gradient", &[x])?;
        let shape = self.shape(x).clone();
        Ok(self.append(Op::StopGradient, vec![x], shape, DType::F32))
    }

    /// Repeats axes of size 1 up to `shape` (same rank).
    pub fn broadcast(&mut self, x: NodeId, shape: &[usize]) -> Result<NodeId> {
        self.float("broadcast", &[x])?;
        let from = self.shape(x);
        if from == shape {
            return Ok(x);
        }
        if from.len() != shape.len()
            || from.iter().zip(shape).any(|(&f, &t)| f != t && f != 1)
            || shape.contains(&0)
        {
            return self.bad(
                "broadcast",
                &[x],
                format!("cannot be repeated to {shape:?}"),
            );
        }
        if let Some(value) = self.constant_value(x) {
            return Ok(self.constant(value, shape));
        }
        Ok(self.append(Op::Broadcast, vec![x], shape.to_vec(), DType::F32))
    }

    /// NumPy broadcasting of two operands to their common shape: missing leading axes count as 1.
    pub fn broadcast_pair(&mut self, a: NodeId, b: NodeId) -> Result<(NodeId, NodeId)> {
        self.check_ids(&[a, b])?;
        let rank = self.shape(a).len().max(self.shape(b).len());
        let lift = |shape: &Shape| {
            let mut lifted = vec![1; rank - shape.len()];
            lifted.extend(shape);
            lifted
        };
        let (sa, sb) = (lift(self.shape(a)), lift(self.shape(b)));
        let mut target = Vec::with_capacity(rank);
        for (&x, &y) in sa.iter().zip(&sb) {
            if x != y && x != 1 && y != 1 {
                return self.bad(
                    "broadcast",
                    &[a, b],
                    format!("axis sizes {x} and {y} do not fit"),
                );
            }
            target.push(x.max(y));
        }
        let a = self.reshape(a, &sa)?;
        let b = self.reshape(b, &sb)?;
        Ok((self.broadcast(a, &target)?, self.broadcast(b, &target)?))
    }

    /// The same elements under another shape.
    pub fn reshape(&mut self, x: NodeId, shape: &[usize]) -> Result<NodeId> {
        self.check_ids(&[x])?;
        let node = self.node(x);
        if node.shape == shape {
            return Ok(x);
        }
        if countable(shape).is_none() || countable(&node.shape) != countable(shape) {
            return self.bad("reshape", &[x], format!("cannot become {shape:?}"));
        }
        let dtype = node.dtype;
        if let Some(value) = self.constant_value(x) {
            return Ok(self.constant(value, shape));
        }
        if node.op == Op::Reshape {
            return self.reshape(node.operands[0], shape);
        }
        Ok(self.append(Op::Reshape, vec![x], shape.to_vec(), dtype))
    }

    /// Axis `d` of the result is axis `permutation[d]` of `x`.
    pub fn permute(&mut self, x: NodeId, permutation: &[usize]) -> Result<NodeId> {
        self.float("permute", &[x])?;
        let from = self.shape(x).clone();
        let mut sorted = permutation.to_vec();
        sorted.sort_unstable();
        if sorted != (0..from.len()).collect::<Vec<_>>() {
            return self.bad(
                "permute",
                &[x],
                format!("{permutation:?} is not a permutation of its axes"),
            );
        }
        if permutation.windows(2).all(|w| w[0] < w[1]) {
            return Ok(x);
        }
        let shape: Shape = permutation.iter().map(|&p| from[p]).collect();
        if let Some(value) = self.constant_value(x) {
            return Ok(self.constant(value, &shape));
        }
        Ok(self.append(
            Op::Permute(permutation.to_vec()),
            vec![x],
            shape,
            DType::F32,
        ))
    }

    /// Elements from `starts`, `shape` many along each axis.
    pub fn slice(&mut self, x: NodeId, starts: &[usize], shape: &[usize]) -> Result<NodeId> {
        self.float("slice", &[x])?;
        let from = self.shape(x).clone();
        let fits = starts.len() == from.len()
            && shape.len() == from.len()
            && (0..from.len()).all(|d| {
                let end = starts[d].checked_add(shape[d]);
                shape[d] > 0 && end.is_some_and(|end| end <= from[d])
            });
        if !fits {
            return self.bad(
                "slice",
                &[x],
                format!("starts {starts:?} with shape {shape:?} leave the tensor"),
            );
        }
        if from == shape {
            return Ok(x);
        }
        if let Some(value) = self.constant_value(x) {
            return Ok(self.constant(value, shape));
        }
        Ok(self.append(
            Op::Slice(starts.to_vec()),
            vec![x],
            shape.to_vec(),
            DType::F32,
        ))
    }

    /// Zeros around `x`: `before` of them ahead of each axis, up to `shape`.
    pub fn pad(&mut self, x: NodeId, before: &[usize], shape: &[usize]) -> Result<NodeId> {
        self.float("pad", &[x])?;
        let from = self.shape(x).clone();
        let fits = before.len() == from.len()
            && shape.len() == from.len()
            && (0..from.len()).all(|d| {
                let end = before[d].checked_add(from[d]);
                end.is_some_and(|end| end <= shape[d])
            });
        if !fits {
            return self.bad(
                "pad",
                &[x],
                format!("does not fit at {before:?} inside {shape:?}"),
            );
        }
        if from == shape {
            return Ok(x);
        }
        Ok(self.append(
            Op::Pad(before.to_vec()),
            vec![x],
            shape.to_vec(),
            DType::F32,
        ))
    }

    /// Tensors one after another along `axis`: a sum of padded ones, so it needs no rule of its own.
    pub fn concat(&mut self, parts: &[NodeId], axis: usize) -> Result<NodeId> {
        let Some(&first) = parts.first() else {
            return self.bad("concat", &[], "needs at least one tensor");
        };
        self.check_ids(parts)?;
        let mut shape = self.shape(first).clone();
        if axis >= shape.len() {
            return self.bad("concat", parts, format!("there is no axis {axis}"));
        }
        for &part in &parts[1..] {
            let other = self.shape(part);
            if other.len() != shape.len()
                || (0..shape.len()).any(|d| d != axis && other[d] != shape[d])
            {
                return self.bad(
                    "concat",
                    parts,
                    format!("shapes may differ only along axis {axis}"),
                );
            }
            shape[axis] = shape[axis].saturating_add(other[axis]);
        }
        let mut before = vec![0; shape.len()];
        let mut total: Option<NodeId> = None;
        for &part in parts {
            let padded = self.pad(part, &before, &shape)?;
            before[axis] += self.shape(part)[axis];
            total = Some(match total {
                None => padded,
                Some(sum) => self.binary(Binary::Add, sum, padded)?,
            });
        }
        Ok(total.unwrap_or(first))
    }

    fn reduced_shape(&self, op: &str, x: NodeId, axes: &[usize]) -> Result<Shape> {
        self.float(op, &[x])?;
        let mut shape = self.shape(x).clone();
        for &axis in axes {
            match shape.get_mut(axis) {
                Some(size) => *size = 1,
                None => return self.bad(op, &[x], format!("there is no axis {axis}")),
            }
        }
        Ok(shape)
    }

    /// Sum over `axes`, which stay with size 1.
    pub fn sum(&mut self, x: NodeId, axes: &[usize]) -> Result<NodeId> {
        let shape = self.reduced_shape("sum", x, axes)?;
        if &shape == self.shape(x) {
            return Ok(x);
        }
        if let Some(value) = self.constant_value(x) {
            let count: usize = (axes.iter().collect::<BTreeSet<_>>().into_iter())
                .map(|&axis| self.shape(x)[axis])
                .product();
            return Ok(self.constant((f64::from(value) * count as f64) as f32, &shape));
        }
        let axes = self.normal_axes(x, axes);
        Ok(self.append(Op::Sum(axes), vec![x], shape, DType::F32))
    }

    /// Maximum over `axes`, which stay with size 1.
    pub fn max(&mut self, x: NodeId, axes: &[usize]) -> Result<NodeId> {
        let shape = self.reduced_shape("max_over", x, axes)?;
        if &shape == self.shape(x) {
            return Ok(x);
        }
        let axes = self.normal_axes(x, axes);
        Ok(self.append(Op::Max(axes), vec![x], shape, DType::F32))
    }

    fn normal_axes(&self, x: NodeId, axes: &[usize]) -> Vec<usize> {
        let mut axes: Vec<usize> = axes
            .iter()
            .copied()
            .filter(|&a| self.shape(x)[a] > 1)
            .collect();
        axes.sort_unstable();
        axes.dedup();
        axes
    }

    /// Batched matrix product `[B,M,K] x [B,K,N] -> [B,M,N]`, each operand optionally stored transposed.
    pub fn dot(
        &mut self,
        lhs: NodeId,
        rhs: NodeId,
        transpose_lhs: bool,
        transpose_rhs: bool,
    ) -> Result<NodeId> {
        self.float("dot", &[lhs, rhs])?;
        let (a, b) = (self.shape(lhs), self.shape(rhs));
        if a.len() != 3 || b.len() != 3 || a[0] != b[0] {
            return self.bad("dot", &[lhs, rhs], "needs [B,M,K] and [B,K,N] with equal B");
        }
        let (m, k) = if transpose_lhs {
            (a[2], a[1])
        } else {
            (a[1], a[2])
        };
        let (k2, n) = if transpose_rhs {
            (b[2], b[1])
        } else {
            (b[1], b[2])
        };
        if k != k2 {
            return self.bad(
                "dot",
                &[lhs, rhs],
                format!("the inner sizes {k} and {k2} differ"),
            );
        }
        let shape = vec![a[0], m, n];
        let op = Op::Dot {
            transpose_lhs,
            transpose_rhs,
        };
        Ok(self.append(op, vec![lhs, rhs], shape, DType::F32))
    }

    /// How many rows are asked for.
    fn index_count(&self, op: &str, operands: &[NodeId], indices: NodeId) -> Result<usize> {
        self.check_ids(operands)?;
        let node = self.node(indices);
        if node.dtype != DType::U32 || node.shape.len() != 1 {
            return self.bad(op, operands, "the indices must be a u32 input of one axis");
        }
        Ok(node.shape[0])
    }

    /// Refuses indices for which there is no place.
    fn check_bound(
        &self,
        op: &str,
        operands: &[NodeId],
        mut indices: NodeId,
        (places, what): (usize, &str),
    ) -> Result<()> {
        while self.node(indices).op == Op::Reshape {
            indices = self.node(indices).operands[0];
        }
        let Op::Input(input) = self.node(indices).op else {
            return Ok(());
        };
        let leaf = &self.inputs[input];
        match leaf.below {
            Some(classes) if classes > places => self.bad(
                op,
                operands,
                format!(
                    "'{}' has {classes} classes, 0 to {}, but {what}; make it {classes} or more, or declare fewer classes",
                    leaf.name,
                    classes - 1
                ),
            ),
            _ => Ok(()),
        }
    }

    /// Rows of `table` `[R,D]` at `indices` `[I]`. An index beyond the table, of an input that promises no bound, gives a row of zeros.
    ///
    /// # Errors
    /// [`Error::Shape`], also where the indices' bound ([`Graph::index_input`]) is larger than `R`.
    pub fn gather(&mut self, table: NodeId, indices: NodeId) -> Result<NodeId> {
        let count = self.index_count("gather", &[table, indices], indices)?;
        self.float("gather", &[table])?;
        let &[rows, width] = self.shape(table).as_slice() else {
            return self.bad("gather", &[table, indices], "the table must have two axes");
        };
        let places = (rows, &*format!("the table has {rows} rows"));
        self.check_bound("gather", &[table, indices], indices, places)?;
        Ok(self.append(
            Op::Gather,
            vec![table, indices],
            vec![count, width],
            DType::F32,
        ))
    }

    /// `values` `[I,D]` added into `rows` rows of zeros at `indices` `[I]`; the transpose of [`Graph::gather`].
    pub fn scatter_add(&mut self, values: NodeId, indices: NodeId, rows: usize) -> Result<NodeId> {
        let count = self.index_count("scatter_add", &[values, indices], indices)?;
        self.float("scatter_add", &[values])?;
        let places = (rows, &*format!("there are {rows} rows"));
        self.check_bound("scatter_add", &[values, indices], indices, places)?;
        match *self.shape(values).as_slice() {
            [n, width] if n == count && rows > 0 => Ok(self.append(
                Op::ScatterAdd,
                vec![values, indices],
                vec![rows, width],
                DType::F32,
            )),
            _ => self.bad(
                "scatter_add",
                &[values, indices],
                "needs values [I,D] and indices [I]",
            ),
        }
    }

    /// `[..I] -> [..I, classes]`: 1 at the label, else 0. A label beyond `classes`, of an input that promises no bound, gives zeros.
    ///
    /// # Errors
    /// [`Error::Shape`], also where the labels' bound ([`Graph::index_input`]) is larger than `classes`.
    pub fn one_hot(&mut self, labels: NodeId, classes: usize) -> Result<NodeId> {
        self.check_ids(&[labels])?;
        let node = self.node(labels);
        if node.dtype != DType::U32 || node.shape.is_empty() {
            return self.bad("one_hot", &[labels], "the labels must be a u32 input");
        }
        let mut shape = node.shape.clone();
        if classes == 0 {
            return self.bad("one_hot", &[labels], "needs at least one class");
        }
        shape.push(classes);
        let places = (classes, &*format!("one_hot makes rows of {classes}"));
        self.check_bound("one_hot", &[labels], labels, places)?;
        Ok(self.append(Op::OneHot, vec![labels], shape, DType::F32))
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
