//! From graph to kernels: which nodes get a buffer, which are computed inside another node's kernel, and in which phase each kernel runs.
//!
//! A *phase* is how often work is done. Phase 0 depends on parameters and inputs alone and runs once per quadratic; phase 1 depends on a
//! direction and runs once per product. Whatever phase 1 needs from phase 0 is kept in a buffer, so no product recomputes it.
//!
//! A node gets a buffer if it is a result, if it is not elementwise, if a kernel needs it as a buffer (operands of `dot`), if it crosses the
//! phases, if two kernels would compute it twice, or if its consumer's kernel would read too many buffers or become too long. Everything else is
//! fused into its consumer.

use std::collections::{BTreeSet, HashMap};

use super::node::{Graph, NodeId, elements};
use super::op::Op;
use crate::error::{Error, Result};
use crate::kernels::dot::View;
use crate::kernels::expression::{Coordinate, Expression, Range, Step, Within};
use crate::kernels::generated::{Reduction, pointwise, reduce};
use crate::kernels::template::Kernel;
use crate::kernels::tuning::Products;
use crate::kernels::{dot, gather};

/// What a consumer asks of a node that it does not compute itself.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Need {
    /// Any value.
    Nothing,
    /// A buffer, possibly behind strides.
    Strided,
    /// A buffer in row-major order.
    Contiguous,
}

/// The kernels of a program, in order of execution.
#[derive(Clone, Debug)]
pub struct Plan {
    /// For each node of the graph, whether its value is in a buffer made by a kernel.
    pub(crate) in_buffer: Vec<bool>,
    /// For each node, the phase in which it is known.
    pub(crate) phase: Vec<usize>,
    /// Nodes with a kernel of their own: phase 0 first, in topological order within a phase.
    pub(crate) kernels: Vec<NodeId>,
}

/// Follows nodes that are other names for the same row-major buffer.
pub(crate) fn same_buffer(graph: &Graph, mut id: NodeId) -> NodeId {
    while matches!(graph.node(id).op, Op::Reshape | Op::StopGradient) {
        id = graph.node(id).operands[0];
    }
    id
}

/// True where a reshape only adds or drops axes of size 1.
fn only_units(from: &[usize], to: &[usize]) -> bool {
    from.iter()
        .filter(|&&s| s != 1)
        .eq(to.iter().filter(|&&s| s != 1))
}

/// Plans the kernels that compute `targets` when `directions` are given anew for each product; a kernel may read `max_operands` buffers.
pub(crate) fn plan(
    graph: &Graph,
    targets: &[NodeId],
    directions: &[NodeId],
    max_operands: usize,
) -> Plan {
    let count = graph.nodes().len();
    let needed = graph.ancestors(targets);
    let phase: Vec<usize> = graph
        .depends_on(directions)
        .into_iter()
        .map(usize::from)
        .collect();
    let heavy = heavy(graph);
    let mut in_buffer = vec![false; count];
    let mut need = vec![Need::Nothing; count];
    // The kernels that contain a node: its own, or those of its consumers.
    let mut users: Vec<BTreeSet<usize>> = vec![BTreeSet::new(); count];
    for &target in targets {
        in_buffer[target.0] = !graph.node(target).op.is_leaf();
    }
    for index in (0..count).rev() {
        let node = &graph.nodes()[index];
        if !needed[index] || node.op.is_leaf() {
            continue;
        }
        let is_view = matches!(
            node.op,
            Op::Broadcast | Op::Reshape | Op::Permute(_) | Op::Slice(_) | Op::StopGradient
        );
        let free = is_view || matches!(node.op, Op::Constant(_) | Op::OneHot | Op::Pad(_));
        let satisfied = match need[index] {
            Need::Nothing => true,
            Need::Strided => is_view,
            Need::Contiguous => matches!(node.op, Op::Reshape | Op::StopGradient),
        };
        let crosses = phase[index] == 0 && users[index].iter().any(|&k| phase[k] == 1);
        if !node.op.is_pointwise() || !satisfied || !free && (crosses || users[index].len() > 1) {
            in_buffer[index] = true;
        }
        let inside: BTreeSet<usize> = if in_buffer[index] {
            [index].into()
        } else {
            users[index].clone()
        };
        for (position, operand) in node.operands.iter().enumerate() {
            let o = operand.0;
            users[o].extend(&inside);
            let asked = match node.op {
                Op::Dot { .. } => Need::Strided,
                Op::Gather | Op::ScatterAdd => Need::Contiguous,
                Op::Reshape if !only_units(graph.shape(*operand), &node.shape) => Need::Contiguous,
                _ if in_buffer[index] => Need::Nothing,
                // A view passes on what is asked of it.
                _ if is_view => need[index],
                _ => Need::Nothing,
            };
            need[o] = need[o].max(asked);
            // Repeating a costly elementwise value would compute it again for every copy.
            if node.op == Op::Broadcast && position == 0 && heavy[o] {
                need[o] = need[o].max(Need::Strided);
            }
        }
    }
    limit_kernels(graph, &needed, &mut in_buffer, max_operands);
    let mut kernels: Vec<NodeId> = (0..count)
        .filter(|&i| needed[i] && in_buffer[i])
        .map(NodeId)
        .collect();
    kernels.sort_by_key(|id| (phase[id.0], id.0));
    Plan {
        in_buffer,
        phase,
        kernels,
    }
}

/// Elementwise nodes whose fused computation contains a costly function.
fn heavy(graph: &Graph) -> Vec<bool> {
    let mut heavy = vec![false; graph.nodes().len()];
    for (index, node) in graph.nodes().iter().enumerate() {
        let own = match node.op {
            Op::Unary(f) => f.is_expensive(),
            Op::Binary(super::op::Binary::Div) => true,
            _ => false,
        };
        heavy[index] = node.op.is_pointwise() && (own || node.operands.iter().any(|o| heavy[o.0]));
    }
    heavy
}

/// Most nodes that are fused one after another. Longer kernels save nothing, compilers take ever longer over them, and the recursion that
/// writes them needs a bound.
const LONGEST_CHAIN: usize = 128;

/// Gives buffers to more nodes until no kernel reads more than `max_operands` buffers or chains more than [`LONGEST_CHAIN`] nodes.
fn limit_kernels(graph: &Graph, needed: &[bool], in_buffer: &mut [bool], max_operands: usize) {
    let mut reads: Vec<BTreeSet<usize>> = vec![BTreeSet::new(); needed.len()];
    let mut chain = vec![0; needed.len()];
    for index in 0..needed.len() {
        let node = &graph.nodes()[index];
        if !needed[index] || node.op.is_leaf() {
            continue;
        }
        for &NodeId(o) in &node.operands {
            in_buffer[o] |= chain[o] == LONGEST_CHAIN;
            let before = if in_buffer[o] { 0 } else { chain[o] };
            chain[index] = chain[index].max(before + 1);
        }
        loop {
            let mut all = BTreeSet::new();
            for operand in &node.operands {
                let o = operand.0;
                if in_buffer[o] || graph.nodes()[o].op.is_leaf() {
                    all.insert(o);
                } else {
                    all.extend(&reads[o]);
                }
            }
            let largest = node
                .operands
                .iter()
                .filter(|o| !in_buffer[o.0])
                .max_by_key(|o| reads[o.0].len());
            match largest {
                Some(o) if all.len() > max_operands && reads[o.0].len() > 1 => {
                    in_buffer[o.0] = true
                }
                _ => {
                    reads[index] = all;
                    break;
                }
            }
        }
    }
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
pub fn sources_for(
    graph: &Graph,
    targets: &[NodeId],
    directions: &[NodeId],
    products: &Products,
) -> Result<Vec<(NodeId, String)>> {
    let results: Vec<NodeId> = targets
        .iter()
        .map(|&node| same_buffer(graph, node))
        .collect();
    let plan = plan(graph, &results, directions, operand_limit(8));
    plan.kernels
        .iter()
        .map(|&root| Ok((root, plan.kernel(graph, root, products)?.0.text)))
        .collect()
}

fn strides(shape: &[usize]) -> Vec<usize> {
    let mut strides = vec![1; shape.len()];
    for d in (1..shape.len()).rev() {
        strides[d - 1] = strides[d] * shape[d];
    }
    strides
}

impl Plan {
    fn has_buffer(&self, graph: &Graph, id: NodeId) -> bool {
        self.in_buffer[id.0] || graph.node(id).op.is_leaf()
    }

    /// The kernel of a node, and the buffers it reads, in order of binding.
    pub(crate) fn kernel(
        &self,
        graph: &Graph,
        root: NodeId,
        products: &Products,
    ) -> Result<(Kernel, Vec<NodeId>)> {
        let node = graph.node(root);
        let shape_of = |position: usize| graph.shape(node.operands[position]);
        Ok(match node.op {
            Op::Dot {
                transpose_lhs,
                transpose_rhs,
            } => {
                let (left, lhs) = self.view(graph, node.operands[0]);
                let (right, rhs) = self.view(graph, node.operands[1]);
                let lhs = if transpose_lhs { lhs.transposed() } else { lhs };
                let rhs = if transpose_rhs { rhs.transposed() } else { rhs };
                let k = shape_of(0)[if transpose_lhs { 1 } else { 2 }];
                let sizes = dot::Sizes {
                    batch: node.shape[0],
                    m: node.shape[1],
                    n: node.shape[2],
                    k,
                };
                let family = products.family(sizes, &lhs, &rhs);
                (dot::kernel(sizes, &lhs, &rhs, family)?, vec![left, right])
            }
            Op::Gather | Op::ScatterAdd => {
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
                let operands = node
                    .operands
                    .iter()
                    .map(|&o| self.contiguous(graph, o))
                    .collect();
                (gather::kernel(scatter, sizes)?, operands)
            }
            _ => {
                let (expression, operands) = self.expression(graph, root);
                check_expressible(graph, root, &expression)?;
                let kernel = match node.op {
                    Op::Sum(_) => reduce(&expression, Reduction::Sum)?,
                    Op::Max(_) => reduce(&expression, Reduction::Max)?,
                    _ => pointwise(&expression)?,
                };
                (kernel, operands)
            }
        })
    }

    /// The buffer behind an operand of `dot`, as a view. The operand is a chain of views that ends in a buffer.
    fn view(&self, graph: &Graph, operand: NodeId) -> (NodeId, View) {
        let shape = graph.shape(operand);
        let coordinates: Vec<Coordinate> = (0..shape.len())
            .map(|d| Coordinate {
                axis: (shape[d] != 1).then_some(d),
                offset: 0,
            })
            .collect();
        let (buffer, offset, strides) = self.address(graph, operand, &coordinates, shape.len());
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
        graph: &Graph,
        mut id: NodeId,
        coordinates: &[Coordinate],
        axes: usize,
    ) -> (NodeId, isize, Vec<usize>) {
        let mut coordinates = coordinates.to_vec();
        loop {
            let node = graph.node(id);
            let reshapes_buffer =
                node.op == Op::Reshape && !only_units(graph.shape(node.operands[0]), &node.shape);
            if self.has_buffer(graph, id) || reshapes_buffer || node.operands.is_empty() {
                let (offset, per_axis) = linear_address(&coordinates, &node.shape, axes);
                let buffer = if self.has_buffer(graph, id) {
                    id
                } else {
                    self.contiguous(graph, id)
                };
                return (buffer, offset, per_axis);
            }
            coordinates = through_view(graph, id, &coordinates);
            id = node.operands[0];
        }
    }

    /// The buffer behind an operand that must be row-major.
    fn contiguous(&self, graph: &Graph, mut id: NodeId) -> NodeId {
        while !self.has_buffer(graph, id) {
            match graph.node(id).operands.first() {
                Some(&operand) => id = operand,
                None => break,
            }
        }
        id
    }

    /// The fused computation of an elementwise node, or of the terms of a reduction; with the buffers it reads, in order of binding.
    fn expression(&self, graph: &Graph, root: NodeId) -> (Expression, Vec<NodeId>) {
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
            graph,
            plan: self,
            root,
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
        expression.merge_axes();
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
    graph: &'a Graph,
    plan: &'a Plan,
    root: NodeId,
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
        let (graph, plan) = (self.graph, self.plan);
        let node = graph.node(id);
        let loads = id != self.root && plan.has_buffer(graph, id)
            || node.op == Op::Reshape && !only_units(graph.shape(node.operands[0]), &node.shape);
        let step = if loads || node.op.is_leaf() {
            // A root that reshapes a buffer reads the buffer, not itself.
            let (buffer, offset, strides) = if id == self.root && !node.op.is_leaf() {
                let operand = plan.contiguous(graph, node.operands[0]);
                let (offset, strides) = linear_address(&coordinates, &node.shape, self.axes.len());
                (operand, offset, strides)
            } else {
                plan.address(graph, id, &coordinates, self.axes.len())
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
                        plan.address(graph, node.operands[0], &coordinates[..1], self.axes.len());
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

/// Offset and stride per axis of the index space, for a row-major tensor of this shape.
fn linear_address(coordinates: &[Coordinate], shape: &[usize], axes: usize) -> (isize, Vec<usize>) {
    let mut offset = 0;
    let mut per_axis = vec![0; axes];
    for (coordinate, stride) in coordinates.iter().zip(strides(shape)) {
        offset += coordinate.offset * stride as isize;
        if let Some(axis) = coordinate.axis {
            per_axis[axis] += stride;
        }
    }
    (offset, per_axis)
}

/// How many buffers a kernel may read: one binding is the result. Eight, WebGPU's default, is enough; more are not used even where the device has
/// them, so that programs are the same everywhere.
pub(crate) fn operand_limit(max_storage_buffers: u32) -> usize {
    (max_storage_buffers.clamp(4, 8) - 1) as usize
}
