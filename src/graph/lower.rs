//! From planned nodes to kernels: the fused computation of each, the buffers it reads, its cost, and its WGSL.

use std::collections::HashMap;

use super::node::{Graph, NodeId, elements};
use super::op::Op;
use super::plan::{Plan, only_units, plan, same_buffer};
use crate::error::{Error, Result};
use crate::kernels::dot::{Family, View};
use crate::kernels::expression::{Coordinate, Expression, Range, Step, Within};
use crate::kernels::generated::{Reduce, Reduction, pointwise};
use crate::kernels::store::Store;
use crate::kernels::template::{Kernel, Rows};
use crate::kernels::tuning::Products;
use crate::kernels::{dot, gather};

/// What a kernel computes.
#[derive(Clone, Debug)]
enum Computation {
    Product {
        sizes: dot::Sizes,
        lhs: View,
        rhs: View,
        family: Family,
        /// What is applied to each element of the product before it is stored; its loads are the operands after the first two.
        finish: Option<Expression>,
    },
    Gather {
        scatter: bool,
        sizes: gather::Sizes,
    },
    Elementwise(Expression),
    Reduction(Reduce),
}

/// A node with the kernel that computes it.
#[derive(Clone, Debug)]
pub(crate) struct Lowered {
    pub(crate) root: NodeId,
    pub(crate) phase: usize,
    /// The buffers it reads, in order of binding.
    pub(crate) operands: Vec<NodeId>,
    computation: Computation,
}

impl Lowered {
    /// The kernel, with its result one row after another or, if `rows` says so, at a pitch.
    pub(crate) fn kernel(&self, rows: Option<Rows>) -> Result<Kernel> {
        match &self.computation {
            Computation::Product {
                sizes,
                lhs,
                rhs,
                family,
                finish,
            } => {
                let store = Store::new(*sizes, finish.as_ref(), rows.map(|r| r.pitch))?;
                dot::kernel(*sizes, lhs, rhs, *family, &store)
            }
            Computation::Gather { scatter, sizes } => gather::kernel(*scatter, *sizes),
            Computation::Elementwise(expression) => pointwise(expression, rows),
            Computation::Reduction(reduce) => reduce.kernel(rows),
        }
    }

    /// Whether the kernel can store `count` rows at a pitch.
    pub(crate) fn takes_pitch(&self, count: usize) -> bool {
        match &self.computation {
            Computation::Product { sizes, .. } => sizes.batch == count,
            Computation::Gather { .. } => false,
            Computation::Elementwise(_) | Computation::Reduction(_) => true,
        }
    }

    /// Floating-point operations: two per term of a matrix product, one per elementwise function and per term of a reduction.
    pub(crate) fn flops(&self) -> u64 {
        match &self.computation {
            Computation::Product { sizes, finish, .. } => {
                let dot::Sizes { batch, m, n, k } = *sizes;
                let outputs = (batch * m * n) as u64;
                outputs * (2 * k as u64 + finish.as_ref().map_or(0, Expression::operations))
            }
            Computation::Gather { .. } => 0,
            Computation::Elementwise(expression) => {
                elements(&expression.axes) as u64 * expression.operations()
            }
            Computation::Reduction(Reduce { terms, finish, .. }) => {
                let finish = finish
                    .as_ref()
                    .map_or(0, |f| elements(&f.axes) as u64 * f.operations());
                elements(&terms.axes) as u64 * (1 + terms.operations()) + finish
            }
        }
    }

    /// What kind of kernel it is.
    pub(crate) fn kind(&self) -> &'static str {
        match &self.computation {
            Computation::Product { finish: None, .. } => "product",
            Computation::Product { .. } => "product+",
            Computation::Gather { scatter: false, .. } => "gather",
            Computation::Gather { .. } => "scatter-add",
            Computation::Elementwise(_) => "elementwise",
            Computation::Reduction(reduce) => match (reduce.kind, &reduce.finish) {
                (Reduction::Sum, None) => "sum",
                (Reduction::Sum, _) => "sum+",
                (Reduction::Max, None) => "max",
                (Reduction::Max, _) => "max+",
            },
        }
    }
}

/// The kernels of the program that computes `targets`, in order of execution. Leaves in `pitches` have their rows that far apart.
pub(crate) fn lower(
    graph: &Graph,
    targets: &[NodeId],
    groups: &[Vec<NodeId>],
    max_operands: usize,
    pitches: &HashMap<NodeId, usize>,
    products: &Products,
) -> Result<(Plan, Vec<Lowered>)> {
    let results: Vec<NodeId> = targets
        .iter()
        .map(|&node| same_buffer(graph, node))
        .collect();
    let plan = plan(graph, &results, groups, max_operands);
    let lowering = Lowering {
        graph,
        plan: &plan,
        pitches,
        products,
    };
    let kernels = plan
        .kernels
        .iter()
        .map(|&root| lowering.kernel(root))
        .collect::<Result<_>>()?;
    Ok((plan, kernels))
}

/// The WGSL of every kernel of the program that computes `targets`, each with the node whose value it writes: for reading, and for checking
/// with other compilers than the one on this machine.
pub fn sources(
    graph: &Graph,
    targets: &[NodeId],
    directions: &[NodeId],
) -> Result<Vec<(NodeId, String)>> {
    sources_for(graph, targets, directions, &Products::default())
}

/// As [`sources`], with this choice of kernels for matrix products.
///
/// # Errors
/// What WGSL cannot express.
pub fn sources_for(
    graph: &Graph,
    targets: &[NodeId],
    directions: &[NodeId],
    products: &Products,
) -> Result<Vec<(NodeId, String)>> {
    let groups = [directions.to_vec()];
    let pitches = HashMap::new();
    let limit = operand_limit(8);
    let (_, kernels) = lower(graph, targets, &groups, limit, &pitches, products)?;
    kernels
        .iter()
        .map(|lowered| Ok((lowered.root, lowered.kernel(None)?.text)))
        .collect()
}

fn strides(shape: &[usize]) -> Vec<usize> {
    let mut strides = vec![1; shape.len()];
    for d in (1..shape.len()).rev() {
        strides[d - 1] = strides[d] * shape[d];
    }
    strides
}

/// Lowers the nodes of one plan.
struct Lowering<'a> {
    graph: &'a Graph,
    plan: &'a Plan,
    pitches: &'a HashMap<NodeId, usize>,
    products: &'a Products,
}

impl Lowering<'_> {
    fn has_buffer(&self, id: NodeId) -> bool {
        self.plan.in_buffer[id.0] || self.graph.node(id).op.is_leaf()
    }

    fn kernel(&self, root: NodeId) -> Result<Lowered> {
        let graph = self.graph;
        let node = graph.node(root);
        let (computation, operands) = match node.op {
            Op::Dot { .. } => self.product(root, None),
            Op::Gather | Op::ScatterAdd => {
                let shape_of = |position: usize| graph.shape(node.operands[position]);
                let scatter = node.op == Op::ScatterAdd;
                let rows = if scatter {
                    node.shape[0]
                } else {
                    shape_of(0)[0]
                };
                let sizes = gather::Sizes {
                    rows,
                    width: node.shape[1],
                    count: shape_of(1)[0],
                };
                let operands = node.operands.iter().map(|&o| self.contiguous(o)).collect();
                (Computation::Gather { scatter, sizes }, operands)
            }
            Op::Sum(_) | Op::Max(_) => self.reduction(root, None)?,
            _ => {
                let inside = self.plan.inside[root.0];
                let (expression, operands) = self.expression(root, inside);
                check_expressible(graph, root, &expression)?;
                match inside {
                    Some(inner) => {
                        let (computation, first) = match graph.node(inner).op {
                            Op::Dot { .. } => self.product(inner, Some(expression)),
                            _ => self.reduction(inner, Some(expression))?,
                        };
                        (computation, [first, operands].concat())
                    }
                    None => (Computation::Elementwise(expression), operands),
                }
            }
        };
        Ok(Lowered {
            root,
            phase: self.plan.phase[root.0],
            operands,
            computation,
        })
    }

    /// The reduction of a `sum` or `max` node, with the buffers that its terms read.
    fn reduction(
        &self,
        id: NodeId,
        finish: Option<Expression>,
    ) -> Result<(Computation, Vec<NodeId>)> {
        let (terms, operands) = self.expression(id, None);
        check_expressible(self.graph, id, &terms)?;
        let kind = match self.graph.node(id).op {
            Op::Max(_) => Reduction::Max,
            _ => Reduction::Sum,
        };
        let reduce = Reduce {
            terms,
            kind,
            finish,
            software: self.products.capabilities.software,
        };
        Ok((Computation::Reduction(reduce), operands))
    }

    /// The matrix product of a `dot` node, with the buffers of its two operands.
    fn product(&self, id: NodeId, finish: Option<Expression>) -> (Computation, Vec<NodeId>) {
        let node = self.graph.node(id);
        let (transpose_lhs, transpose_rhs) = match node.op {
            Op::Dot {
                transpose_lhs,
                transpose_rhs,
            } => (transpose_lhs, transpose_rhs),
            _ => (false, false),
        };
        let (left, lhs) = self.view(node.operands[0]);
        let (right, rhs) = self.view(node.operands[1]);
        let lhs = if transpose_lhs { lhs.transposed() } else { lhs };
        let rhs = if transpose_rhs { rhs.transposed() } else { rhs };
        let sizes = dot::Sizes {
            batch: node.shape[0],
            m: node.shape[1],
            n: node.shape[2],
            k: self.graph.shape(node.operands[0])[if transpose_lhs { 1 } else { 2 }],
        };
        let computation = Computation::Product {
            sizes,
            family: self.products.family(sizes, &lhs, &rhs),
            lhs,
            rhs,
            finish,
        };
        (computation, vec![left, right])
    }

    /// The buffer behind an operand of `dot`, as a view. The operand is a chain of views that ends in a buffer.
    fn view(&self, operand: NodeId) -> (NodeId, View) {
        let shape = self.graph.shape(operand);
        let coordinates: Vec<Coordinate> = (0..shape.len())
            .map(|d| Coordinate {
                axis: (shape[d] != 1).then_some(d),
                offset: 0,
            })
            .collect();
        let (buffer, offset, strides) = self.address(operand, &coordinates, shape.len());
        (
            buffer,
            View {
                offset: offset.unsigned_abs(),
                strides: [strides[0], strides[1], strides[2]],
            },
        )
    }

    /// Address of an element behind views: the buffer's node, offset and stride per axis of the index space.
    fn address(
        &self,
        mut id: NodeId,
        coordinates: &[Coordinate],
        axes: usize,
    ) -> (NodeId, isize, Vec<usize>) {
        let graph = self.graph;
        let mut coordinates = coordinates.to_vec();
        loop {
            let node = graph.node(id);
            let reshapes_buffer =
                node.op == Op::Reshape && !only_units(graph.shape(node.operands[0]), &node.shape);
            if self.has_buffer(id) || reshapes_buffer || node.operands.is_empty() {
                let buffer = self.contiguous(id);
                let (offset, per_axis) = self.linear_address(buffer, &coordinates, id, axes);
                return (buffer, offset, per_axis);
            }
            coordinates = through_view(graph, id, &coordinates);
            id = node.operands[0];
        }
    }

    /// Offset and stride per axis of the index space of an element of `id`, which is `buffer` or a reshape of it.
    fn linear_address(
        &self,
        buffer: NodeId,
        coordinates: &[Coordinate],
        id: NodeId,
        axes: usize,
    ) -> (isize, Vec<usize>) {
        let mut strides = strides(self.graph.shape(id));
        if let (Some(&pitch), Some(first)) = (self.pitches.get(&buffer), strides.first_mut()) {
            *first = pitch;
        }
        let mut offset = 0;
        let mut per_axis = vec![0; axes];
        for (coordinate, stride) in coordinates.iter().zip(strides) {
            offset += coordinate.offset * stride as isize;
            if let Some(axis) = coordinate.axis {
                per_axis[axis] += stride;
            }
        }
        (offset, per_axis)
    }

    /// The buffer behind an operand that must be row-major.
    fn contiguous(&self, mut id: NodeId) -> NodeId {
        while !self.has_buffer(id) {
            match self.graph.node(id).operands.first() {
                Some(&operand) => id = operand,
                None => break,
            }
        }
        id
    }

    /// The fused computation of an elementwise node, or of the terms of a reduction; with the buffers it reads, in order of binding. Where it is
    /// applied to the results of a product or reduction `inner`, the index space is theirs.
    fn expression(&self, root: NodeId, inner: Option<NodeId>) -> (Expression, Vec<NodeId>) {
        let graph = self.graph;
        let node = graph.node(root);
        let (start, reduced): (NodeId, &[usize]) = match &node.op {
            Op::Sum(axes) | Op::Max(axes) => (node.operands[0], axes),
            _ => (root, &[]),
        };
        let shape = graph.shape(start).clone();
        // Kept axes first, then reduced ones; axes of size 1 are no axes.
        let mut order: Vec<usize> = (0..shape.len())
            .filter(|d| shape[*d] != 1 && !reduced.contains(d))
            .collect();
        let kept = order.len();
        order.extend(reduced.iter().copied().filter(|&d| shape[d] != 1));
        let coordinates: Vec<Coordinate> = (0..shape.len())
            .map(|d| Coordinate {
                axis: order.iter().position(|&o| o == d),
                offset: 0,
            })
            .collect();
        let mut builder = Builder {
            lowering: self,
            root,
            inner,
            axes: order.iter().map(|&d| shape[d]).collect(),
            steps: Vec::new(),
            known: HashMap::new(),
            buffers: Vec::new(),
            integer: Vec::new(),
        };
        builder.visit(start, coordinates, Vec::new());
        let Builder {
            axes,
            steps,
            buffers,
            integer,
            ..
        } = builder;
        let mut expression = Expression {
            axes,
            kept,
            steps,
            integer,
        };
        // A product hands over one index per axis.
        if !inner.is_some_and(|inner| matches!(graph.node(inner).op, Op::Dot { .. })) {
            expression.merge_axes();
        }
        (expression, buffers)
    }
}

/// WGSL has no infinities, and kernels count in u32.
fn check_expressible(graph: &Graph, root: NodeId, expression: &Expression) -> Result<()> {
    let mut constants = expression.steps.iter().filter_map(|step| match step {
        Step::Constant(value) => Some(*value),
        _ => None,
    });
    if let Some(value) = constants.find(|value| !value.is_finite()) {
        return Err(Error::Unsupported {
            what: format!("the constant {value}, used in {},", graph.describe(root)),
            message: "kernels may assume that all numbers are finite; to mask, use a large number such as -1e30".into(),
        });
    }
    let count = elements(&expression.axes);
    if u32::try_from(count).is_err() {
        return Err(Error::OverLimit {
            what: format!("{}, in elements or terms,", graph.describe(root)),
            needed: count as u64,
            limit_name: "the range of u32",
            limit: u32::MAX.into(),
            advice: "use a smaller batch or network",
        });
    }
    Ok(())
}

/// Coordinates in the operand of a view from coordinates in the view.
fn through_view(graph: &Graph, id: NodeId, coordinates: &[Coordinate]) -> Vec<Coordinate> {
    const ORIGIN: Coordinate = Coordinate {
        axis: None,
        offset: 0,
    };
    let node = graph.node(id);
    let from = graph.shape(node.operands[0]);
    match &node.op {
        Op::Broadcast => (0..from.len())
            .map(|d| if from[d] == 1 { ORIGIN } else { coordinates[d] })
            .collect(),
        Op::Permute(p) => {
            let mut out = vec![ORIGIN; from.len()];
            for (d, &source) in p.iter().enumerate() {
                out[source] = coordinates[d];
            }
            out
        }
        Op::Slice(starts) => coordinates
            .iter()
            .zip(starts)
            .map(|(c, &s)| Coordinate {
                axis: c.axis,
                offset: c.offset + s as isize,
            })
            .collect(),
        Op::Pad(before) => coordinates
            .iter()
            .zip(before)
            .map(|(c, &b)| Coordinate {
                axis: c.axis,
                offset: c.offset - b as isize,
            })
            .collect(),
        // Axes of size 1 come and go; the others keep their order.
        Op::Reshape => {
            let mut rest = coordinates
                .iter()
                .zip(&node.shape)
                .filter(|&(_, &s)| s != 1)
                .map(|(c, _)| *c);
            from.iter()
                .map(|&s| {
                    if s == 1 {
                        ORIGIN
                    } else {
                        rest.next().unwrap_or(ORIGIN)
                    }
                })
                .collect()
        }
        _ => coordinates.to_vec(),
    }
}

type Key = (NodeId, Vec<Coordinate>, Vec<Range>);

/// Builds an [`Expression`] from the root down.
struct Builder<'a> {
    lowering: &'a Lowering<'a>,
    root: NodeId,
    /// The matrix product or reduction inside the kernel, if there is one.
    inner: Option<NodeId>,
    /// Sizes of the axes of the index space.
    axes: Vec<usize>,
    steps: Vec<Step>,
    known: HashMap<Key, usize>,
    buffers: Vec<NodeId>,
    integer: Vec<bool>,
}

impl Builder<'_> {
    fn binding(&mut self, buffer: NodeId, integer: bool) -> usize {
        if let Some(position) = self.buffers.iter().position(|&b| b == buffer) {
            return position;
        }
        self.buffers.push(buffer);
        self.integer.push(integer);
        self.buffers.len() - 1
    }

    fn push(&mut self, step: Step) -> usize {
        self.steps.push(step);
        self.steps.len() - 1
    }

    /// The step that holds the value of `id` at these coordinates; only valid where `inside` holds.
    fn visit(&mut self, id: NodeId, coordinates: Vec<Coordinate>, inside: Vec<Range>) -> usize {
        let key = (id, coordinates, inside);
        if let Some(&step) = self.known.get(&key) {
            return step;
        }
        let (coordinates, inside) = (key.1.clone(), key.2.clone());
        let lowering = self.lowering;
        let graph = lowering.graph;
        let node = graph.node(id);
        if self.inner == Some(id) {
            let step = self.push(Step::Inner);
            self.known.insert(key, step);
            return step;
        }
        let loads = id != self.root && lowering.has_buffer(id)
            || node.op == Op::Reshape && !only_units(graph.shape(node.operands[0]), &node.shape);
        let step = if loads || node.op.is_leaf() {
            // A root that reshapes a buffer reads the buffer, not itself.
            let (buffer, offset, strides) = if id == self.root && !node.op.is_leaf() {
                let operand = lowering.contiguous(node.operands[0]);
                let (offset, strides) =
                    lowering.linear_address(operand, &coordinates, id, self.axes.len());
                (operand, offset, strides)
            } else {
                lowering.address(id, &coordinates, self.axes.len())
            };
            let binding = self.binding(buffer, false);
            self.push(Step::Load {
                binding,
                offset,
                strides,
                inside,
            })
        } else {
            match &node.op {
                Op::Constant(bits) => self.push(Step::Constant(f32::from_bits(*bits))),
                Op::Unary(f) => {
                    let x = self.visit(node.operands[0], coordinates, inside);
                    self.push(Step::Unary(*f, x))
                }
                Op::Binary(f) => {
                    let a = self.visit(node.operands[0], coordinates.clone(), inside.clone());
                    let b = self.visit(node.operands[1], coordinates, inside);
                    self.push(Step::Binary(*f, a, b))
                }
                Op::Select => {
                    let c = self.visit(node.operands[0], coordinates.clone(), inside.clone());
                    let a = self.visit(node.operands[1], coordinates.clone(), inside.clone());
                    let b = self.visit(node.operands[2], coordinates, inside);
                    self.push(Step::Select(c, a, b))
                }
                Op::OneHot => {
                    let (buffer, offset, strides) =
                        lowering.address(node.operands[0], &coordinates[..1], self.axes.len());
                    let binding = self.binding(buffer, true);
                    self.push(Step::OneHot {
                        binding,
                        offset,
                        strides,
                        inside,
                        class: coordinates[1],
                    })
                }
                Op::Pad(_) => {
                    let moved = through_view(graph, id, &coordinates);
                    let mut ranges: Vec<Range> = Vec::new();
                    let mut never = false;
                    for (coordinate, &size) in moved.iter().zip(graph.shape(node.operands[0])) {
                        match coordinate.within(size, &self.axes) {
                            Within::Always => {}
                            Within::Never => never = true,
                            Within::Where(range) => ranges.push(range),
                        }
                    }
                    if never {
                        self.push(Step::Constant(0.0))
                    } else {
                        let x =
                            self.visit(node.operands[0], moved, [inside, ranges.clone()].concat());
                        if ranges.is_empty() {
                            x
                        } else {
                            self.push(Step::Inside(x, ranges))
                        }
                    }
                }
                _ => {
                    let moved = through_view(graph, id, &coordinates);
                    self.visit(node.operands[0], moved, inside)
                }
            }
        };
        self.known.insert(key, step);
        step
    }
}

/// How many buffers a kernel may read: one binding is the result. Eight, WebGPU's default, is enough; more are not used even where the device has
/// them, so that programs are the same everywhere.
pub(crate) fn operand_limit(max_storage_buffers: u32) -> usize {
    (max_storage_buffers.clamp(4, 8) - 1) as usize
}
