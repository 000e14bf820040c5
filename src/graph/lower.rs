//! From planned nodes to kernels: the fused computation of each, the buffers it reads, its cost, and its WGSL.

use std::collections::HashMap;

use super::address::Addresses;
use super::fuse::fuse;
use super::fused::Builder;
use super::fusion::{Fusion, same_buffer};
use super::node::{Graph, NodeId, elements};
use super::op::Op;
pub use super::plan::sources;
use crate::error::{Error, Result};
use crate::kernels::dot::{Family, View};
use crate::kernels::expression::{Coordinate, Expression, Step};
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
        software: bool,
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
    /// The other nodes whose values it stores; their bindings come last.
    pub(crate) also: Vec<NodeId>,
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
            Computation::Gather {
                scatter,
                sizes,
                software,
            } => gather::kernel(*scatter, *sizes, *software),
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
) -> Result<(Fusion, Vec<Lowered>)> {
    graph.check_ids(targets)?;
    graph.check_ids(&groups.concat())?;
    let results: Vec<NodeId> = targets
        .iter()
        .map(|&node| same_buffer(graph, node))
        .collect();
    let fusion = fuse(graph, &results, groups, max_operands);
    let lowering = Lowering {
        graph,
        fusion: &fusion,
        addresses: Addresses {
            graph,
            fusion: &fusion,
            pitches,
        },
        products,
    };
    let kernels = fusion
        .kernels
        .iter()
        .map(|&root| lowering.kernel(root))
        .collect::<Result<_>>()?;
    Ok((fusion, kernels))
}

/// Lowers the nodes of a program.
struct Lowering<'a> {
    graph: &'a Graph,
    fusion: &'a Fusion,
    addresses: Addresses<'a>,
    products: &'a Products,
}

impl Lowering<'_> {
    /// The other nodes whose values the kernel of `root` stores.
    fn also(&self, root: NodeId) -> &[NodeId] {
        self.fusion.also.get(&root).map_or(&[], Vec::as_slice)
    }

    fn kernel(&self, root: NodeId) -> Result<Lowered> {
        let graph = self.graph;
        let node = graph.node(root);
        let (computation, operands) = match node.op {
            Op::Dot { .. } if self.also(root).is_empty() => self.product(root, None),
            // The product itself is stored, and what is elementwise in it.
            Op::Dot { .. } => {
                let (expression, operands) = self.expression(root, Some(root));
                let (computation, first) = self.product(root, Some(expression));
                (computation, [first, operands].concat())
            }
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
                let operands = node
                    .operands
                    .iter()
                    .map(|&o| self.addresses.contiguous(o))
                    .collect();
                (
                    Computation::Gather {
                        scatter,
                        sizes,
                        software: self.products.capabilities.software,
                    },
                    operands,
                )
            }
            Op::Sum(_) | Op::Max(_) => self.reduction(root, None)?,
            _ => {
                let inside = self.fusion.inside[root.0];
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
            phase: self.fusion.phase[root.0],
            operands,
            also: self.also(root).to_vec(),
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
        let (buffer, offset, strides) = self.addresses.of(operand, &coordinates, shape.len());
        (
            buffer,
            View::new(offset.unsigned_abs(), [strides[0], strides[1], strides[2]]),
        )
    }

    /// The fused computation of an elementwise node, or of the terms of a reduction; with the buffers it reads, in order of binding. Where
    /// it is applied to the results of a product or reduction `inner`, the index space is theirs.
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
        // A reduction within a kernel is not what the kernel stores.
        let also = if reduced.is_empty() {
            self.also(root)
        } else {
            &[]
        };
        let mut builder = Builder {
            addresses: &self.addresses,
            root,
            also,
            inner,
            axes: order.iter().map(|&d| shape[d]).collect(),
            steps: Vec::new(),
            known: HashMap::new(),
            buffers: Vec::new(),
            integer: Vec::new(),
        };
        let value = builder.visit(start, coordinates, Vec::new());
        // Sizes of axes agree, up to axes of size 1.
        let stored = also
            .iter()
            .map(|&node| {
                let mut axis = 0..;
                let of = |&size: &usize| Coordinate {
                    axis: if size == 1 { None } else { axis.next() },
                    offset: 0,
                };
                let coordinates = graph.shape(node).iter().map(of).collect();
                builder.visit(node, coordinates, Vec::new())
            })
            .collect();
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
            value,
            also: stored,
        };
        // A product hands over one index per axis.
        if !inner.is_some_and(|inner| matches!(graph.node(inner).op, Op::Dot { .. })) {
            expression.merge_axes();
        }
        (expression, buffers)
    }
}

/// What u32 counts, less what a workgroup may count beyond the end.
const MOST_ELEMENTS: usize = u32::MAX as usize - (1 << 20);

/// WGSL has no infinities, and kernels count in u32.
fn check_expressible(graph: &Graph, root: NodeId, expression: &Expression) -> Result<()> {
    let mut constants = expression.steps.iter().filter_map(|step| match step {
        Step::Constant(value) => Some(*value),
        _ => None,
    });
    if let Some(value) = constants.find(|value| !value.is_finite()) {
        return Err(Error::Unsupported {
            what: format!("the constant {value}, used in {},", graph.describe(root)),
            message: super::node::FINITE_ONLY.into(),
        });
    }
    let count = elements(&expression.axes);
    if count > MOST_ELEMENTS {
        return Err(Error::OverLimit {
            what: format!("{}, in elements or terms,", graph.describe(root)),
            needed: count as u64,
            limit_name: "the range of u32",
            limit: MOST_ELEMENTS as u64,
            advice: "use a smaller batch or network",
        });
    }
    Ok(())
}

/// How many buffers a kernel may read: one binding is the result. Eight, WebGPU's default, is enough; more are not used even where the
/// device has them, so that programs are the same everywhere.
pub(crate) fn operand_limit(max_storage_buffers: u32) -> usize {
    (max_storage_buffers.clamp(4, 8) - 1) as usize
}
