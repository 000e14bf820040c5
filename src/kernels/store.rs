//! The last step of every matrix product: bias, activation and whatever else is elementwise in it, and the store.

use super::dot::Sizes;
use super::expression::Expression;
use super::generated::functions;
use crate::error::Result;

/// The one way in which every family of matrix products writes its result.
pub(crate) struct Store {
    /// Elementwise functions, to be put in front of the kernel.
    pub(crate) functions: String,
    /// Element type of the result's binding.
    pub(crate) element: &'static str,
    /// The operands of the elementwise part and its other results, from binding 3 on.
    pub(crate) operands: String,
    /// How many they are.
    pub(crate) bindings: usize,
    /// The function `store(batch, row, column, inner: vec4<f32>)` for four neighbouring columns of a row, `column` a multiple of four. Rows
    /// and columns beyond the edge are left out, of which the number of rows is `M()` in WGSL.
    pub(crate) text: String,
    /// Whether `store` is too long to be in a kernel many times.
    pub(crate) expensive: bool,
}

/// Operations of an elementwise part from which on it is expensive, as is any with a function of its own.
const MANY_OPERATIONS: u64 = 4;

impl Store {
    /// Adds a product to what is in the result.
    pub(crate) fn adding(sizes: Sizes) -> Result<Self> {
        Self::made(sizes, None, None, true)
    }

    /// For a product of these sizes. `finish` has the product's axes (those that are not of size 1) as its index space; with a `pitch`, the
    /// matrices of the result are that many elements apart.
    pub(crate) fn new(
        sizes: Sizes,
        finish: Option<&Expression>,
        pitch: Option<usize>,
    ) -> Result<Self> {
        Self::made(sizes, finish, pitch, false)
    }

    fn made(
        sizes: Sizes,
        finish: Option<&Expression>,
        pitch: Option<usize>,
        adds: bool,
    ) -> Result<Self> {
        let Sizes { batch, m, n, .. } = sizes;
        let pitch = pitch.unwrap_or(m * n);
        let columns_axis = finish.and_then(|f| f.axes.len().checked_sub(1));
        // Which bindings are scalars in the vec4 form; none without an elementwise part.
        let vector = match (finish, columns_axis) {
            _ if !n.is_multiple_of(4) || !pitch.is_multiple_of(4) => None,
            (None, _) => Some(Vec::new()),
            (Some(finish), Some(axis)) => finish.vector_along(axis),
            (Some(_), None) => None,
        };
        let declarations = |scalar: Option<&[bool]>, element| {
            finish.map_or(String::new(), |f| {
                let also = 3 + f.integer.len();
                f.declarations(3, scalar) + &f.also_declarations(also, element)
            })
        };
        let functions = |wide: bool| finish.map_or(Ok(String::new()), |_| functions(wide));
        // The index along each axis of the index space.
        let mut indices = String::new();
        let sized = [(batch, "batch"), (m, "row"), (n, "column")];
        for (axis, (_, name)) in sized.iter().filter(|(size, _)| *size != 1).enumerate() {
            indices += &format!("    let x{axis} = {name};\n");
        }
        let body = |axis: Option<usize>| match finish {
            None => "    let value = inner;".to_string(),
            Some(finish) => indices.clone() + &finish.body(axis, 3, "T"),
        };
        let matrix = |pitch: usize| match batch {
            1 => String::new(),
            _ => format!("batch * {pitch}u + "),
        };
        let at = format!("{}row * {n}u + column", matrix(pitch));
        let others = |four: bool| {
            let at = format!("{}row * {n}u + column", matrix(m * n));
            let at = if four { format!("({at}) / 4u") } else { at };
            finish.map_or(String::new(), |f| f.also_stores(&at, four))
        };
        let (four, one) = if adds {
            (
                format!("floats(result[({at}) / 4u]) + value"),
                format!("result[{at}] + value"),
            )
        } else {
            ("value".into(), "value".into())
        };
        let expensive =
            finish.is_some_and(|f| f.calls_functions() || f.operations() > MANY_OPERATIONS);
        let bindings = finish.map_or(0, |f| f.integer.len() + f.also.len());
        let signature = "fn store(batch: u32, row: u32, column: u32, inner: vec4<f32>)";
        Ok(match vector {
            Some(scalar) => Self {
                functions: functions(true)?,
                element: "Four",
                operands: declarations(Some(&scalar), "Four"),
                bindings,
                text: format!(
                    "{signature} {{\n    if (row < M() && column < {n}u) {{\n{}{}\n    result[({at}) / 4u] = stored({four});\n    }}\n}}",
                    body(columns_axis),
                    others(true)
                ),
                expensive,
            },
            None => Self {
                functions: functions(false)?,
                element: "f32",
                operands: declarations(None, "f32"),
                bindings,
                text: format!(
                    "fn store_one(batch: u32, row: u32, column: u32, inner: f32) {{\n    if (row < M() && column < {n}u) {{\n{}{}\n    \
                     result[{at}] = {one};\n    }}\n}}\n\
                     {signature} {{\n    store_one(batch, row, column, inner.x);\n    \
                     store_one(batch, row, column + 1u, inner.y);\n    store_one(batch, row, column + 2u, inner.z);\n    \
                     store_one(batch, row, column + 3u, inner.w);\n}}",
                    body(None),
                    others(false)
                ),
                expensive,
            },
        })
    }
}
