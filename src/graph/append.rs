//! Primitives appended to a graph: shapes and operands are checked here, and nodes that are known already are shared.

use std::collections::BTreeSet;

use super::node::{Graph, NodeId, Shape, countable};
use super::op::{Binary, DType, Op, Unary};
use crate::error::Result;

impl Graph {
    pub(super) fn float(&self, op: &str, operands: &[NodeId]) -> Result<()> {
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
        let leaf = &self.inputs()[input];
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
    /// [`Error::Shape`](crate::Error::Shape), also where the indices' bound ([`Graph::index_input`]) is larger than `R`.
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
    /// [`Error::Shape`](crate::Error::Shape), also where the labels' bound ([`Graph::index_input`]) is larger than `classes`.
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
}
