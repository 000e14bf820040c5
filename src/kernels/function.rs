//! The elementwise functions: name, f64 twin, WGSL.
//!
//! What is not a number goes in and comes out, and infinities are what IEEE 754 makes of them; [`Unary::IsFinite`] alone looks at them.
//! WGSL lets a driver assume that neither occurs, and `max`, `min` and `clamp` may return the other operand of a NaN, so both are
//! recognized by their bits.

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
    /// `log(1 + x)`, with all digits where x is small
    Log1p,
    /// `e^x - 1`, with all digits where x is small
    Expm1,
    /// `e^x - 1 - x`, with all digits where x is small
    Expm1mx,
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
    /// 1 where x is finite, else (infinite or not a number) 0; its derivative is 0
    IsFinite,
}

impl Unary {
    /// All of them, for tests that must cover every primitive.
    pub const ALL: [Unary; 17] = [
        Unary::Neg,
        Unary::Exp,
        Unary::Log,
        Unary::Tanh,
        Unary::Logistic,
        Unary::Softplus,
        Unary::Log1p,
        Unary::Expm1,
        Unary::Expm1mx,
        Unary::Sin,
        Unary::Cos,
        Unary::Sqrt,
        Unary::Reciprocal,
        Unary::Erf,
        Unary::Relu,
        Unary::Step,
        Unary::IsFinite,
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
            Unary::Log1p => x.ln_1p(),
            Unary::Expm1 => x.exp_m1(),
            Unary::Expm1mx => expm1mx(x),
            // `f64::max` returns the other operand of a NaN.
            Unary::Relu if x < 0.0 => 0.0,
            Unary::Relu => x,
            Unary::Step if x.is_nan() => x,
            Unary::Step => f64::from(x > 0.0),
            Unary::IsFinite => f64::from(x.is_finite()),
        }
    }

    /// The WGSL expression, where `x` is an expression of type `kind` (`f32`, or `T` of `shaders/functions.wgsl`).
    pub(crate) fn wgsl(self, x: &str, kind: &str) -> String {
        let function = match self {
            Unary::Neg => return format!("-({x})"),
            // Some drivers make infinity of e^NaN.
            Unary::Exp => return format!("select(exp({x}), {x}, {})", is_nan(x, kind)),
            Unary::Log => "logarithm",
            Unary::Tanh => "safe_tanh",
            Unary::Logistic => "logistic",
            Unary::Softplus => "softplus",
            Unary::Log1p => "log1p",
            Unary::Expm1 => "expm1",
            Unary::Expm1mx => "expm1mx",
            Unary::Sin => "sine",
            Unary::Cos => "cosine",
            Unary::Sqrt => "sqrt",
            Unary::Reciprocal => return format!("{kind}(1.0) / ({x})"),
            Unary::Erf => "erf",
            // Negative numbers are those whose bits are from 0x80000000 to -inf; beyond are NaNs.
            Unary::Relu => {
                let bits = bits(kind);
                return format!(
                    "select({x}, {kind}(0.0), bitcast<{bits}>({x}) - {bits}(0x80000000u) <= {bits}({INFINITY}))"
                );
            }
            Unary::Step => {
                let step = format!("select({kind}(0.0), {kind}(1.0), ({x}) > {kind}(0.0))");
                return format!("select({step}, {x}, {})", is_nan(x, kind));
            }
            Unary::IsFinite => {
                return format!(
                    "select({kind}(0.0), {kind}(1.0), {} < {}({INFINITY}))",
                    size(x, kind),
                    bits(kind)
                );
            }
        };
        format!("{function}({x})")
    }

    /// Whether it is a function of `shaders/functions.wgsl`.
    pub(crate) fn is_own(self) -> bool {
        matches!(
            self,
            Unary::Log
                | Unary::Tanh
                | Unary::Logistic
                | Unary::Softplus
                | Unary::Log1p
                | Unary::Expm1
                | Unary::Expm1mx
                | Unary::Sin
                | Unary::Cos
                | Unary::Erf
        )
    }

    /// Whether evaluating it again costs more than loading its value.
    pub(crate) fn is_expensive(self) -> bool {
        !matches!(
            self,
            Unary::Neg | Unary::Relu | Unary::Step | Unary::IsFinite
        )
    }
}

/// `e^x - 1 - x` in f64: its series where the difference would lose more than three digits.
fn expm1mx(x: f64) -> f64 {
    if x.abs() < 0.1 {
        // 1/2! + x/3! + ..; the first term left out is 1e-17 of the sum.
        let series = (3..=12)
            .rev()
            .fold(0.0, |sum, n| (sum + 1.0) * x / f64::from(n));
        0.5 * x * x * (1.0 + series)
    } else if x == f64::INFINITY {
        x
    } else {
        x.exp_m1() - x
    }
}

/// The bits of an infinity without its sign; those of a NaN are larger.
const INFINITY: &str = "0x7f800000u";

/// The WGSL type of the bits of a number of this type.
fn bits(kind: &str) -> &'static str {
    if kind == "T" { "U" } else { "u32" }
}

/// The bits of `x` without its sign, in WGSL.
fn size(x: &str, kind: &str) -> String {
    let bits = bits(kind);
    format!("(bitcast<{bits}>({x}) & {bits}(0x7fffffffu))")
}

fn is_nan(x: &str, kind: &str) -> String {
    format!("{} > {}({INFINITY})", size(x, kind), bits(kind))
}

/// `x * 0` in WGSL: 0, or a NaN where `x` is not finite.
pub(crate) fn times_zero(x: &str, kind: &str) -> String {
    let bits = bits(kind);
    format!(
        "select({kind}(0.0), bitcast<{kind}>(bitcast<{bits}>({x}) | {bits}(0x7fc00000u)), {} >= {bits}({INFINITY}))",
        size(x, kind)
    )
}

/// `a` where `condition > 0`, else `b`, in WGSL; where the condition is not a number the result is not one either.
pub(crate) fn select(condition: &str, a: &str, b: &str, kind: &str) -> String {
    format!(
        "select(select({b}, {a}, {condition} > {kind}(0.0)), {condition}, {})",
        is_nan(condition, kind)
    )
}

/// [`select`] in f64.
pub(crate) fn select_f64(condition: f64, a: f64, b: f64) -> f64 {
    if condition.is_nan() {
        condition
    } else if condition > 0.0 {
        a
    } else {
        b
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
            // `f64::max` returns the other operand of a NaN.
            Binary::Max if a.is_nan() || b.is_nan() => f64::NAN,
            Binary::Max => a.max(b),
        }
    }

    /// The WGSL expression of two expressions of type `kind` (`f32`, or `T` of `shaders/functions.wgsl`).
    pub(crate) fn wgsl(self, a: &str, b: &str, kind: &str) -> String {
        let sign = match self {
            Binary::Add => "+",
            Binary::Sub => "-",
            Binary::Mul => "*",
            Binary::Div => "/",
            Binary::Max => {
                let larger = format!("max({}, {})", size(a, kind), size(b, kind));
                return format!(
                    "select(max({a}, {b}), {a} + {b}, {larger} > {}({INFINITY}))",
                    bits(kind)
                );
            }
        };
        format!("{a} {sign} {b}")
    }
}
