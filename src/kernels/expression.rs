//! A fused elementwise computation over an index space, and its WGSL.
//!
//! Every element of the index space loads operands at affine addresses (offset + sum of index times stride; a stride of 0 repeats),
//! possibly guarded by a range (padding), and combines them. Axes that all loads walk alike are merged, and four neighbours along the last
//! axis become one `vec4` where every load allows it.

use std::fmt::Write as _;

use super::function::{Binary, Unary, select, times_zero};

/// A coordinate: the index along an axis of the index space (or 0) plus an offset.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) struct Coordinate {
    pub(crate) axis: Option<usize>,
    pub(crate) offset: isize,
}

/// `low <= index along the axis < high`: a part of the axis, neither empty nor all of it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) struct Range {
    pub(crate) axis: usize,
    pub(crate) low: usize,
    pub(crate) high: usize,
}

/// Where a coordinate lies within an operand.
pub(crate) enum Within {
    Always,
    Never,
    Where(Range),
}

impl Coordinate {
    /// Where `0 <= self < size`, in an index space with these axes.
    pub(crate) fn within(self, size: usize, axes: &[usize]) -> Within {
        // An axis of size 1 is no axis: its index is always 0.
        let extent = self.axis.map_or(1, |axis| axes[axis]);
        let low = self.offset.min(0).unsigned_abs();
        let high = (size as isize - self.offset).clamp(0, extent as isize) as usize;
        match self.axis {
            _ if low >= high => Within::Never,
            Some(axis) if low > 0 || high < extent => Within::Where(Range { axis, low, high }),
            _ => Within::Always,
        }
    }
}

/// One step of the computation; operands are earlier steps.
#[derive(Clone, Debug)]
pub(crate) enum Step {
    Constant(f32),
    /// The element of a matrix product or of a reduction that is about to be stored, `inner` in WGSL.
    Inner,
    /// An element of the operand bound at `binding`; where `inside` does not hold, any element.
    Load {
        binding: usize,
        offset: isize,
        strides: Vec<usize>,
        inside: Vec<Range>,
    },
    Unary(Unary, usize),
    Binary(Binary, usize, usize),
    Select(usize, usize, usize),
    /// The step's value where all ranges hold, else 0.
    Inside(usize, Vec<Range>),
    /// 1 where the u32 element at the address equals the coordinate, else 0; where `inside` does not hold, either.
    OneHot {
        binding: usize,
        offset: isize,
        strides: Vec<usize>,
        inside: Vec<Range>,
        class: Coordinate,
    },
}

/// The computation: index space, steps, and which bindings hold u32.
#[derive(Clone, Debug)]
pub(crate) struct Expression {
    /// Sizes of the axes; no axis has size 1.
    pub(crate) axes: Vec<usize>,
    /// The first `kept` axes are those of the result; the rest is reduced away.
    pub(crate) kept: usize,
    pub(crate) steps: Vec<Step>,
    pub(crate) integer: Vec<bool>,
    /// The step that holds the value.
    pub(crate) value: usize,
    /// The steps whose values are stored beside it.
    pub(crate) also: Vec<usize>,
}

impl Step {
    fn strides(&mut self) -> Option<&mut Vec<usize>> {
        match self {
            Step::Load { strides, .. } | Step::OneHot { strides, .. } => Some(strides),
            _ => None,
        }
    }

    /// The axes whose index itself matters, not only the addresses made from it.
    fn axes(&mut self) -> Vec<&mut usize> {
        match self {
            Step::Load { inside, .. } | Step::Inside(_, inside) => {
                inside.iter_mut().map(|r| &mut r.axis).collect()
            }
            Step::OneHot { inside, class, .. } => inside
                .iter_mut()
                .map(|r| &mut r.axis)
                .chain(class.axis.as_mut())
                .collect(),
            _ => vec![],
        }
    }

    fn ranges(&self) -> &[Range] {
        match self {
            Step::Load { inside, .. } | Step::OneHot { inside, .. } | Step::Inside(_, inside) => {
                inside
            }
            _ => &[],
        }
    }
}

impl Expression {
    /// Arithmetic operations per element of the index space; an elementwise function counts as one.
    pub(crate) fn operations(&self) -> u64 {
        let arithmetic =
            |step: &&Step| matches!(step, Step::Unary(..) | Step::Binary(..) | Step::Select(..));
        self.steps.iter().filter(arithmetic).count() as u64
    }

    /// Merges neighbouring axes that every load walks as one.
    pub(crate) fn merge_axes(&mut self) {
        let mut axis = self.axes.len();
        while axis > 1 {
            axis -= 1;
            let outer = axis - 1;
            let size = self.axes[axis];
            let same_side = (outer < self.kept) == (axis < self.kept);
            let mergeable = same_side
                && self.steps.iter_mut().all(|step| {
                    step.strides().is_none_or(|s| s[outer] == s[axis] * size)
                        && step.axes().iter().all(|a| **a != axis && **a != outer)
                });
            if !mergeable {
                continue;
            }
            self.axes[outer] *= size;
            self.axes.remove(axis);
            if axis < self.kept {
                self.kept -= 1;
            }
            for step in &mut self.steps {
                if let Some(strides) = step.strides() {
                    strides.remove(outer);
                }
                step.axes()
                    .into_iter()
                    .filter(|a| **a > axis)
                    .for_each(|a| *a -= 1);
            }
        }
    }

    /// The axis along which four neighbours can be one vec4, if there is one: the last axis, or in a reduction the last kept one.
    /// With it, which bindings are read as scalars because they repeat along that axis.
    pub(crate) fn vector_axis(&self) -> Option<(usize, Vec<bool>)> {
        let candidates = [self.axes.len().checked_sub(1), self.kept.checked_sub(1)];
        candidates
            .into_iter()
            .flatten()
            .find_map(|axis| Some((axis, self.vector_along(axis)?)))
    }

    /// If four neighbours along `axis` can be one vec4: which bindings are read as scalars because they repeat along it.
    pub(crate) fn vector_along(&self, axis: usize) -> Option<Vec<bool>> {
        self.vectorizes(axis)
            .then(|| self.scalar_bindings(axis))
            .flatten()
    }

    fn vectorizes(&self, last: usize) -> bool {
        // Four neighbours are inside a range together or outside together.
        let together =
            |r: &Range| r.axis != last || r.low.is_multiple_of(4) && r.high.is_multiple_of(4);
        self.axes[last].is_multiple_of(4)
            && self.steps.iter().all(|step| {
                step.ranges().iter().all(together)
                    && match step {
                        Step::Load {
                            offset, strides, ..
                        } => {
                            strides[last] == 0
                                || strides[last] == 1
                                    && offset.rem_euclid(4) == 0
                                    && strides
                                        .iter()
                                        .enumerate()
                                        .all(|(a, s)| a == last || s.is_multiple_of(4))
                        }
                        // Labels are one u32 for all four neighbours.
                        Step::OneHot { strides, .. } => strides[last] == 0,
                        _ => true,
                    }
            })
    }

    /// A binding may not be read both as vec4 and as scalar; then the expression is not vectorized.
    fn scalar_bindings(&self, last: usize) -> Option<Vec<bool>> {
        let mut scalar: Vec<Option<bool>> = vec![None; self.integer.len()];
        for step in &self.steps {
            if let Step::Load {
                binding, strides, ..
            }
            | Step::OneHot {
                binding, strides, ..
            } = step
            {
                let this = strides[last] == 0;
                match scalar[*binding] {
                    Some(other) if other != this => return None,
                    _ => scalar[*binding] = Some(this),
                }
            }
        }
        Some(scalar.into_iter().map(|s| s.unwrap_or(false)).collect())
    }

    /// Whether it calls functions of `shaders/functions.wgsl`, which are made for one type.
    pub(crate) fn calls_functions(&self) -> bool {
        let own = |step: &Step| matches!(step, Step::Unary(f, _) if f.is_own());
        self.steps.iter().any(own)
    }

    fn is_zero(&self, step: usize) -> bool {
        matches!(self.steps[step], Step::Constant(value) if value == 0.0)
    }

    /// Declarations of the operands, from binding `first` on; the variables are numbered like the bindings.
    pub(crate) fn declarations(&self, first: usize, scalar: Option<&[bool]>) -> String {
        let mut out = String::new();
        for (i, integer) in self.integer.iter().enumerate() {
            let element = match (integer, scalar) {
                (true, _) => "u32",
                (false, Some(scalar)) if !scalar[i] => "Four",
                _ => "f32",
            };
            let _ = writeln!(
                out,
                "@group(0) @binding({at}) var<storage, read> in{at}: array<{element}>;",
                at = first + i
            );
        }
        out
    }

    /// Indices along the given axes from a linear index; the axis `vector` counts in units of four.
    pub(crate) fn unravel(
        &self,
        axes: std::ops::Range<usize>,
        linear: &str,
        vector: Option<usize>,
    ) -> String {
        let mut out = String::new();
        let mut rest = linear.to_string();
        for axis in axes.clone().rev() {
            let unit = if vector == Some(axis) { 4 } else { 1 };
            let size = self.axes[axis] / unit;
            let scaled = |e: String| if unit == 4 { format!("4u * ({e})") } else { e };
            if axis == axes.start {
                let _ = writeln!(out, "    let x{axis} = {};", scaled(rest.clone()));
            } else {
                let _ = writeln!(
                    out,
                    "    let x{axis} = {};",
                    scaled(format!("{rest} % {size}u"))
                );
                let _ = writeln!(out, "    let q{axis} = {rest} / {size}u;");
                rest = format!("q{axis}");
            }
        }
        out
    }

    /// The address; where `inside` does not hold, that of element 0, which exists.
    fn address(offset: isize, strides: &[usize], inside: &[Range], divide: usize) -> String {
        let mut terms = Vec::new();
        for (axis, &stride) in strides.iter().enumerate() {
            match stride {
                0 => {}
                1 => terms.push(format!("x{axis}")),
                _ => terms.push(format!("x{axis} * {stride}u")),
            }
        }
        let mut sum = if terms.is_empty() {
            "0u".to_string()
        } else {
            terms.join(" + ")
        };
        sum += &shift(offset);
        if divide > 1 {
            sum = format!("({sum}) / {divide}u");
        }
        if inside.is_empty() {
            sum
        } else {
            format!("select(0u, {sum}, {})", Self::condition(inside))
        }
    }

    fn condition(ranges: &[Range]) -> String {
        let parts: Vec<String> = ranges
            .iter()
            .map(|Range { axis, low, high }| match low {
                0 => format!("x{axis} < {high}u"),
                _ => format!("x{axis} >= {low}u && x{axis} < {high}u"),
            })
            .collect();
        parts.join(" && ")
    }

    /// Statements that end with `let value = ..;`, for indices `x0, x1, ..` and operands from binding `first` on, in numbers of this WGSL
    /// type (`f32`, or `T` of `shaders/functions.wgsl`).
    pub(crate) fn body(&self, vector: Option<usize>, first: usize, kind: &str) -> String {
        let mut out = String::new();
        for (i, step) in self.steps.iter().enumerate() {
            let text = match step {
                Step::Constant(value) => format!("{kind}({})", literal(*value)),
                Step::Inner => "inner".to_string(),
                Step::Load {
                    binding,
                    offset,
                    strides,
                    inside,
                } => {
                    let wide = vector.is_some_and(|axis| strides[axis] == 1);
                    let address = Self::address(*offset, strides, inside, if wide { 4 } else { 1 });
                    let element = format!("in{}[{address}]", first + binding);
                    if wide {
                        format!("floats({element})")
                    } else {
                        format!("{kind}({element})")
                    }
                }
                Step::Unary(f, x) => f.wgsl(&format!("v{x}"), kind),
                // Compilers take a product or quotient of a literal 0 for 0, whatever the other number.
                Step::Binary(Binary::Mul, a, b) if self.is_zero(*a) => {
                    times_zero(&format!("v{b}"), kind)
                }
                Step::Binary(Binary::Mul, a, b) if self.is_zero(*b) => {
                    times_zero(&format!("v{a}"), kind)
                }
                Step::Binary(Binary::Div, a, b) if self.is_zero(*a) => {
                    times_zero(&format!("({kind}(1.0) / v{b})"), kind)
                }
                Step::Binary(f, a, b) => f.wgsl(&format!("v{a}"), &format!("v{b}"), kind),
                Step::Select(c, a, b) => {
                    select(&format!("v{c}"), &format!("v{a}"), &format!("v{b}"), kind)
                }
                Step::Inside(x, ranges) => {
                    format!("select({kind}(0.0), v{x}, {})", Self::condition(ranges))
                }
                Step::OneHot {
                    binding,
                    offset,
                    strides,
                    inside,
                    class,
                } => {
                    let label = format!(
                        "in{}[{}]",
                        first + binding,
                        Self::address(*offset, strides, inside, 1)
                    );
                    let base = match class.axis {
                        Some(axis) => format!("(x{axis}{})", shift(class.offset)),
                        None => format!("{}u", class.offset),
                    };
                    if vector.is_some() && class.axis == vector {
                        format!(
                            "select({kind}(0.0), {kind}(1.0), vec4<u32>({label}) == {base} + vec4<u32>(0u, 1u, 2u, 3u))"
                        )
                    } else {
                        format!("select({kind}(0.0), {kind}(1.0), {label} == {base})")
                    }
                }
            };
            let _ = writeln!(out, "    let v{i} = {text};");
        }
        let _ = write!(out, "    let value = v{};", self.value);
        out
    }

    /// Declarations of the results beside the value, from binding `first` on.
    pub(crate) fn also_declarations(&self, first: usize, element: &str) -> String {
        let each = (0..self.also.len()).map(|i| {
            let at = first + i;
            format!(
                "@group(0) @binding({at}) var<storage, read_write> also{i}: array<{element}>;\n"
            )
        });
        each.collect()
    }

    /// Statements that store them at an index; `store` makes a number of one of these elements from a step's.
    pub(crate) fn also_stores(&self, at: &str, four: bool) -> String {
        let each = self.also.iter().enumerate().map(|(i, step)| {
            let value = if four {
                format!("stored(v{step})")
            } else {
                format!("v{step}")
            };
            format!("\n    also{i}[{at}] = {value};")
        });
        each.collect()
    }
}

/// Adds a constant to a u32 expression. What would be negative wraps around; it is used only where it is not.
fn shift(offset: isize) -> String {
    match offset {
        0 => String::new(),
        1.. => format!(" + {offset}u"),
        _ => format!(" - {}u", offset.unsigned_abs()),
    }
}

/// A WGSL literal that has exactly this value.
fn literal(value: f32) -> String {
    format!("{value:e}f")
}
