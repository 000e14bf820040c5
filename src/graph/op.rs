//! The primitives. Each is one kernel form, one JVP rule, at most one transpose rule, one f64 twin.

pub use crate::kernels::function::{Binary, Unary};

/// Element type of a node. Only inputs may be `U32` (labels, indices).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum DType {
    /// 32-bit float
    F32,
    /// 32-bit unsigned integer
    U32,
}

/// What a node computes from its operands.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Op {
    /// The parameter with this index.
    Parameter(usize),
    /// The input with this index.
    Input(usize),
    /// A tangent: the direction that belongs to a parameter, or a placeholder that a transposition removes.
    Direction(usize),
    /// One f32 (as bits) at every element.
    Constant(u32),
    /// A tensor given by value: the data with this index.
    Data(usize),
    /// `f(x)` for each element.
    Unary(Unary),
    /// `f(a, b)` for each element.
    Binary(Binary),
    /// `a` where `condition > 0`, else `b`, and NaN where the condition is; operands (condition, a, b).
    Select,
    /// The operand, with a derivative of zero.
    StopGradient,
    /// Axes of size 1 repeated to the node's shape; the rank stays.
    Broadcast,
    /// The same elements in row-major order under another shape.
    Reshape,
    /// Axis `d` of the result is axis `permutation[d]` of the operand.
    Permute(Vec<usize>),
    /// From `starts`, as many elements as the node's shape says.
    Slice(Vec<usize>),
    /// Zeros before (these counts) and after, up to the node's shape.
    Pad(Vec<usize>),
    /// Sum over these axes, which stay with size 1.
    Sum(Vec<usize>),
    /// Maximum over these axes, which stay with size 1.
    Max(Vec<usize>),
    /// Batched matrix product `[B,M,K] x [B,K,N] -> [B,M,N]`; a flag says that the operand is stored transposed.
    Dot {
        /// The left operand is stored as `[B,K,M]`.
        transpose_lhs: bool,
        /// The right operand is stored as `[B,N,K]`.
        transpose_rhs: bool,
    },
    /// Rows of a table `[R,D]` at indices `[I]`: `[I,D]`.
    Gather,
    /// Rows `[I,D]` added into zeros `[R,D]` at indices `[I]`, in order of `I`.
    ScatterAdd,
    /// 1 at the label, else 0: `[..I] -> [..I, classes]`.
    OneHot,
}

impl Op {
    /// A short name for errors and listings.
    pub fn name(&self) -> &'static str {
        match self {
            Op::Parameter(_) => "parameter",
            Op::Input(_) => "input",
            Op::Direction(_) => "direction",
            Op::Constant(_) => "constant",
            Op::Data(_) => "data",
            Op::Unary(Unary::Neg) => "neg",
            Op::Unary(Unary::Exp) => "exp",
            Op::Unary(Unary::Log) => "log",
            Op::Unary(Unary::Tanh) => "tanh",
            Op::Unary(Unary::Logistic) => "logistic",
            Op::Unary(Unary::Softplus) => "softplus",
            Op::Unary(Unary::Log1p) => "log1p",
            Op::Unary(Unary::Expm1) => "expm1",
            Op::Unary(Unary::Expm1mx) => "expm1mx",
            Op::Unary(Unary::Sin) => "sin",
            Op::Unary(Unary::Cos) => "cos",
            Op::Unary(Unary::Sqrt) => "sqrt",
            Op::Unary(Unary::Reciprocal) => "reciprocal",
            Op::Unary(Unary::Erf) => "erf",
            Op::Unary(Unary::Relu) => "relu",
            Op::Unary(Unary::Step) => "step",
            Op::Unary(Unary::IsFinite) => "is_finite",
            Op::Binary(Binary::Add) => "add",
            Op::Binary(Binary::Sub) => "sub",
            Op::Binary(Binary::Mul) => "mul",
            Op::Binary(Binary::Div) => "div",
            Op::Binary(Binary::Max) => "max",
            Op::Select => "select",
            Op::StopGradient => "stop_gradient",
            Op::Broadcast => "broadcast",
            Op::Reshape => "reshape",
            Op::Permute(_) => "permute",
            Op::Slice(_) => "slice",
            Op::Pad(_) => "pad",
            Op::Sum(_) => "sum",
            Op::Max(_) => "max_over",
            Op::Dot { .. } => "dot",
            Op::Gather => "gather",
            Op::ScatterAdd => "scatter_add",
            Op::OneHot => "one_hot",
        }
    }

    /// Elementwise in its operands or a pure change of index, so that it can be part of a fused kernel.
    pub(crate) fn is_pointwise(&self) -> bool {
        matches!(
            self,
            Op::Constant(_)
                | Op::Unary(_)
                | Op::Binary(_)
                | Op::Select
                | Op::StopGradient
                | Op::Broadcast
                | Op::Reshape
                | Op::Permute(_)
                | Op::Slice(_)
                | Op::Pad(_)
                | Op::OneHot
        )
    }

    /// A value that exists before any kernel runs.
    pub(crate) fn is_leaf(&self) -> bool {
        matches!(
            self,
            Op::Parameter(_) | Op::Input(_) | Op::Direction(_) | Op::Data(_)
        )
    }
}
