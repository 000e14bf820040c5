//! Operands of a product that are read in place, and the WGSL that loads them.

use super::family::Loads;
use crate::gpu::TEXELS_PER_ROW;

/// An operand read in place: element `[b, i, j]` is at `offset + b*strides[0] + i*strides[1] + j*strides[2]`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct View {
    pub(crate) offset: usize,
    pub(crate) strides: [usize; 3],
    /// The terms in parts, one batch of matrices after another.
    pub(super) parts: Option<PartsOfView>,
}

/// Matrix `b` of the batch is matrix `b % batch` of part `b / batch`, and parts are `terms` apart, which are themselves `along_k` elements
/// apart.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct PartsOfView {
    pub(super) batch: usize,
    pub(super) terms: usize,
    pub(super) along_k: usize,
}

impl PartsOfView {
    fn stride(&self) -> usize {
        self.terms * self.along_k
    }
}

/// How much one call of a load function returns.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Access {
    /// `fn name(batch, i, j) -> vec4<f32>`: elements `(i, j .. j+3)`.
    Row,
    /// `fn name(batch, i, j) -> mat4x4<f32>`: column `r` holds the elements `(i + r, j .. j+3)`.
    Block,
}

/// What the text of a load function depends on. `j` must be a multiple of four, and for blocks `i` too; both below their sizes.
pub(super) struct Load<'a> {
    /// Name of the function.
    pub(super) name: &'a str,
    /// Name of the binding.
    pub(super) binding: &'a str,
    pub(super) view: &'a View,
    /// Sizes of the view: `[B, I, J]`.
    pub(super) sizes: [usize; 3],
    /// The last two in WGSL.
    pub(super) names: [&'static str; 2],
    /// Whether a block may end beyond the last row, the end of axis `i`, or beyond that of `j`.
    pub(super) overruns: [bool; 2],
    pub(super) access: Access,
    /// Elements beyond the end of axis `j` are zero; otherwise they repeat the last one.
    pub(super) zero_beyond: bool,
    /// How four neighbours are loaded where addresses allow it.
    pub(super) loads: Loads,
}

impl View {
    /// A view of one batch.
    pub(crate) fn new(offset: usize, strides: [usize; 3]) -> View {
        View {
            offset,
            strides,
            parts: None,
        }
    }

    /// The view with its last two axes exchanged.
    pub(crate) fn transposed(&self) -> View {
        let [b, i, j] = self.strides;
        View {
            strides: [b, j, i],
            ..self.clone()
        }
    }

    /// Where matrix `b` begins, in elements from the offset on.
    fn matrix(&self, b: usize) -> usize {
        match &self.parts {
            None => b * self.strides[0],
            Some(parts) => b % parts.batch * self.strides[0] + b / parts.batch * parts.stride(),
        }
    }

    /// The same in WGSL, of one of `matrices`.
    fn base(&self, matrices: usize) -> String {
        let View {
            offset,
            strides: [sb, _, _],
            parts,
        } = self;
        match parts {
            None if matrices == 1 => format!("{offset}u"),
            None => format!("batch * {sb}u + {offset}u"),
            Some(PartsOfView { batch, along_k, .. }) => {
                let own = match batch {
                    1 => String::new(),
                    _ => format!("(batch % {batch}u) * {sb}u + "),
                };
                format!("{own}(batch / {batch}u) * (K() * {along_k}u) + {offset}u")
            }
        }
    }

    /// One more than the largest address of an element.
    pub(super) fn end(&self, sizes: [usize; 3]) -> usize {
        let [b, i, j] = sizes.map(|size| size - 1);
        // Of the batch, the last matrix of the last part.
        self.offset + self.matrix(b) + i * self.strides[1] + j * self.strides[2] + 1
    }

    /// vec4 loads along the axis of stride 1 need every address they start at to be a multiple of 4.
    pub(super) fn aligned(&self, along: usize, sizes: [usize; 3]) -> bool {
        let other = 3 - along;
        self.strides[along] == 1
            && sizes[along].is_multiple_of(4)
            && self.offset.is_multiple_of(4)
            && (sizes[0] == 1 || self.strides[0].is_multiple_of(4))
            && self
                .parts
                .as_ref()
                .is_none_or(|parts| parts.stride().is_multiple_of(4))
            && (sizes[other] == 1 || self.strides[other].is_multiple_of(4))
    }
}

impl Load<'_> {
    /// The function, and the element type of the binding.
    pub(super) fn text(&self) -> (String, &'static str) {
        let [_, si, sj] = self.view.strides;
        let base = self.view.base(self.sizes[0]);
        let rows = if self.access == Access::Block { 4 } else { 1 };
        // Where an edge cannot occur nothing is clamped. A row is never beyond its edge, a block can be.
        let clamp =
            |variable: &str, delta: usize, overruns: bool, name: &str| match (delta, overruns) {
                (0, _) => variable.to_string(),
                (_, false) => format!("{variable} + {delta}u"),
                _ => format!("min({variable} + {delta}u, {name} - 1u)"),
            };
        let ([overruns_i, overruns_j], [name_i, name_j]) = (self.overruns, self.names);
        let (i, j) = (
            |delta| clamp("i", delta, overruns_i, name_i),
            |delta| clamp("j", delta, overruns_j, name_j),
        );
        let vector = |at: String| {
            let element = format!("{}[({at}) / 4u]", self.binding);
            match self.loads {
                Loads::Plain => element,
                Loads::Wide => format!("floats({element})"),
                Loads::Texture => format!("{}_texel(({at}) / 4u)", self.binding),
            }
        };
        let vector_type = match self.loads {
            Loads::Plain => "vec4<f32>",
            Loads::Wide => "Four",
            Loads::Texture => TEXTURE,
        };
        let along_j = self.view.aligned(2, self.sizes);
        let along_i = self.access == Access::Block && self.view.aligned(1, self.sizes);
        let mut vectors: Vec<String> = Vec::new();
        for r in 0..rows {
            vectors.push(if along_j {
                vector(format!("{base} + ({}) * {si}u + j", i(r)))
            } else if along_i {
                vector(format!("{base} + i + ({}) * {sj}u", j(r)))
            } else {
                let element = |q: usize| {
                    format!(
                        "{}[{base} + ({}) * {si}u + ({}) * {sj}u]",
                        self.binding,
                        i(r),
                        j(q)
                    )
                };
                let elements: Vec<String> = (0..4).map(element).collect();
                format!("vec4<f32>({})", elements.join(", "))
            });
        }
        let (returned, value) = match self.access {
            Access::Row => ("vec4<f32>", vectors.concat()),
            Access::Block => {
                let block = format!("mat4x4<f32>({})", vectors.join(",\n        "));
                let transposed = along_i && !along_j;
                (
                    "mat4x4<f32>",
                    if transposed {
                        format!("transpose({block})")
                    } else {
                        block
                    },
                )
            }
        };
        let body = if self.zero_beyond && overruns_j {
            let masked = match self.access {
                Access::Row => "values * inside",
                Access::Block => {
                    "mat4x4<f32>(values[0] * inside, values[1] * inside, values[2] * inside, values[3] * inside)"
                }
            };
            format!(
                "let values = {value};\n    \
                 let inside = vec4<f32>(select(vec4(0.0), vec4(1.0), vec4(j, j + 1u, j + 2u, j + 3u) < vec4({name_j})));\n    \
                 return {masked};"
            )
        } else {
            format!("return {value};")
        };
        let name = self.name;
        let text =
            format!("fn {name}(batch: u32, i: u32, j: u32) -> {returned} {{\n    {body}\n}}\n");
        let element = if along_j || along_i {
            vector_type
        } else {
            "f32"
        };
        let texel = if element == TEXTURE {
            let binding = self.binding;
            format!(
                "fn {binding}_texel(i: u32) -> vec4<f32> {{\n    \
                 return textureLoad({binding}, vec2<u32>(i % {TEXELS_PER_ROW}u, i / {TEXELS_PER_ROW}u), 0);\n}}\n"
            )
        } else {
            String::new()
        };
        (texel + &text, element)
    }
}

/// The type of a binding that is a texture.
pub(super) const TEXTURE: &str = "texture_2d<f32>";
