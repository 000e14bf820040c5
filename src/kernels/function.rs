//! The elementwise functions: name, f64 twin, WGSL.

/// Elementwise functions of one tensor.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Unary {
    /// `-x`
    Neg,
    /// `e^x`
    Exp,
    /// natural logarithm
    Log,
    /// hyperbolic tangent
    Tanh,
    /// `1 / (1 + e^-x)`
    Logistic,
    /// `log(1 + e^x)`, evaluated without overflow
    Softplus,
    /// sine
    Sin,
    /// cosine
    Cos,
    /// square root
    Sqrt,
    /// `1 / x`
    Reciprocal,
    /// the error function
    Erf,
    /// `max(x, 0)`
    Relu,
    /// 1 where `x > 0`, else 0; its derivative is 0
    Step,
}

impl Unary {
    /// All of them, for tests that must cover every primitive.
    pub const ALL: [Unary; 13] = [
        Unary::Neg,
        Unary::Exp,
        Unary::Log,
        Unary::Tanh,
        Unary::Logistic,
        Unary::Softplus,
        Unary::Sin,
        Unary::Cos,
        Unary::Sqrt,
        Unary::Reciprocal,
        Unary::Erf,
        Unary::Relu,
        Unary::Step,
    ];

    /// The f64 twin.
    pub fn apply(self, x: f64) -> f64 {
        match self {
            Unary::Neg => -x,
            Unary::Exp => x.exp(),
            Unary::Log => x.ln(),
            Unary::Tanh => x.tanh(),
            Unary::Logistic => 1.0 / (1.0 + (-x).exp()),
            Unary::Softplus => x.max(0.0) + (-x.abs()).exp().ln_1p(),
            Unary::Sin => x.sin(),
            Unary::Cos => x.cos(),
            Unary::Sqrt => x.sqrt(),
            Unary::Reciprocal => 1.0 / x,
            Unary::Erf => libm::erf(x),
            Unary::Relu => x.max(0.0),
            Unary::Step => f64::from(x > 0.0),
        }
    }

    /// The WGSL expression, where `x` is an expression of type `kind` (f32 or vec4<f32>, or a name for one; see `shaders/functions.wgsl`).
    pub(crate) fn wgsl(self, x: &str, kind: &str) -> String {
        let function = match self {
            Unary::Neg => return format!("-({x})"),
            Unary::Exp => "exp",
            Unary::Log => "log",
            Unary::Tanh => "safe_tanh",
            Unary::Logistic => "logistic",
            Unary::Softplus => "softplus",
            Unary::Sin => "sine",
            Unary::Cos => "cosine",
            Unary::Sqrt => "sqrt",
            Unary::Reciprocal => return format!("{kind}(1.0) / ({x})"),
            Unary::Erf => "erf",
            Unary::Relu => return format!("max({x}, {kind}(0.0))"),
            Unary::Step => return format!("select({kind}(0.0), {kind}(1.0), ({x}) > {kind}(0.0))"),
        };
        format!("{function}({x})")
    }

    /// Whether it is a function of `shaders/functions.wgsl`.
    pub(crate) fn is_own(self) -> bool {
        matches!(
            self,
            Unary::Tanh | Unary::Logistic | Unary::Softplus | Unary::Sin | Unary::Cos | Unary::Erf
        )
    }

    /// Whether evaluating it again costs more than loading its value.
    pub(crate) fn is_expensive(self) -> bool {
        !matches!(self, Unary::Neg | Unary::Relu | Unary::Step)
    }
}

/// Elementwise functions of two tensors of the same shape.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Binary {
    /// `a + b`
    Add,
    /// `a - b`
    Sub,
    /// `a * b`
    Mul,
    /// `a / b`
    Div,
    /// the larger of the two; where equal, the derivative goes to `a`
    Max,
}

impl Binary {
    /// All of them, for tests that must cover every primitive.
    pub const ALL: [Binary; 5] = [
        Binary::Add,
        Binary::Sub,
        Binary::Mul,
        Binary::Div,
        Binary::Max,
    ];

    /// The f64 twin.
    pub fn apply(self, a: f64, b: f64) -> f64 {
        match self {
            Binary::Add => a + b,
            Binary::Sub => a - b,
            Binary::Mul => a * b,
            Binary::Div => a / b,
            Binary::Max => a.max(b),
        }
    }

    /// The WGSL expression of two expressions of type `T`.
    pub(crate) fn wgsl(self, a: &str, b: &str) -> String {
        let sign = match self {
            Binary::Add => "+",
            Binary::Sub => "-",
            Binary::Mul => "*",
            Binary::Div => "/",
            Binary::Max => return format!("max({a}, {b})"),
        };
        format!("{a} {sign} {b}")
    }
}
