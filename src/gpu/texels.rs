//! Buffers seen as textures: on some software adapters a texture is read several times faster than a buffer.

use super::device::Gpu;
use super::health::lock;
use super::slice::{ELEMENT, Slice};
use crate::error::{Error, Result};

/// Texels in a row, of four floats each. Rows of 16 KiB meet the alignment that copies ask for, and 8192 of them, which every device
/// allows, hold 128 MiB.
pub(crate) const TEXELS_PER_ROW: u32 = 1024;
const ROWS: u32 = 8192;
const FLOATS_PER_TEXEL: usize = 4;

/// Floats that fit into a texture.
pub(crate) const TEXTURE_ELEMENTS: usize =
    TEXELS_PER_ROW as usize * ROWS as usize * FLOATS_PER_TEXEL;

/// The first elements of a slice as a texture: element `i` is component `i % 4` of texel `i / 4`, which is in row `i / 4 / 1024`.
///
/// The texture belongs to the [`Gpu`] and is shared by everything that is computed there; its content is only what was copied last, so the
/// copy and the kernel that reads it stand side by side in a recording.
#[derive(Clone, Debug)]
pub struct Texels {
    source: Slice,
    texels: u32,
    texture: wgpu::Texture,
    view: wgpu::TextureView,
}

impl Texels {
    pub(super) fn binding(&self) -> wgpu::BindingResource<'_> {
        wgpu::BindingResource::TextureView(&self.view)
    }

    /// Copies the elements.
    pub(super) fn update(&self, encoder: &mut wgpu::CommandEncoder) {
        let row_bytes = TEXELS_PER_ROW * FLOATS_PER_TEXEL as u32 * ELEMENT as u32;
        let (full, rest) = (self.texels / TEXELS_PER_ROW, self.texels % TEXELS_PER_ROW);
        for (row, width, height) in [(0, TEXELS_PER_ROW, full), (full, rest, 1)] {
            if width == 0 || height == 0 {
                continue;
            }
            encoder.copy_buffer_to_texture(
                wgpu::TexelCopyBufferInfo {
                    buffer: self.source.buffer(),
                    layout: wgpu::TexelCopyBufferLayout {
                        offset: self.source.offset_bytes() + u64::from(row) * u64::from(row_bytes),
                        bytes_per_row: Some(row_bytes),
                        rows_per_image: None,
                    },
                },
                wgpu::TexelCopyTextureInfo {
                    texture: &self.texture,
                    mip_level: 0,
                    origin: wgpu::Origin3d { x: 0, y: row, z: 0 },
                    aspect: wgpu::TextureAspect::All,
                },
                wgpu::Extent3d {
                    width,
                    height,
                    depth_or_array_layers: 1,
                },
            );
        }
    }
}

impl Gpu {
    /// The first `elements` elements of a slice as a texture; two operands of one kernel need different `place`s. `elements` is a multiple
    /// of four.
    ///
    /// # Errors
    /// [`Error::Length`] for more elements than the slice has, [`Error::OverLimit`] for more than a texture holds, [`Error::Unsupported`]
    /// for a buffer without `COPY_SRC`, [`Error::OutOfMemory`].
    pub(crate) fn texels(&self, source: &Slice, place: usize, elements: usize) -> Result<Texels> {
        if elements > source.len() {
            return Err(Error::Length {
                what: format!("the part of '{}' that is read", source.label()),
                found: source.len(),
                expected: elements,
            });
        }
        if elements > TEXTURE_ELEMENTS {
            return Err(Error::OverLimit {
                what: format!("'{}' as a texture", source.label()),
                needed: elements as u64,
                limit_name: "elements of a texture",
                limit: TEXTURE_ELEMENTS as u64,
                advice: "use a tuning without textures",
            });
        }
        if !source
            .buffer()
            .usage()
            .contains(wgpu::BufferUsages::COPY_SRC)
        {
            return Err(Error::Unsupported {
                what: format!("copying '{}' to a texture", source.label()),
                message: "create the buffer with BufferUsages::COPY_SRC".into(),
            });
        }
        let texels = (elements / FLOATS_PER_TEXEL) as u32;
        let rows = texels.div_ceil(TEXELS_PER_ROW).next_power_of_two();
        let mut pool = lock(&self.shared.texels);
        let texture = match pool.get(&(place, rows)) {
            Some(texture) => texture.clone(),
            None => {
                let descriptor = wgpu::TextureDescriptor {
                    label: Some("operand of a product"),
                    size: wgpu::Extent3d {
                        width: TEXELS_PER_ROW,
                        height: rows,
                        depth_or_array_layers: 1,
                    },
                    mip_level_count: 1,
                    sample_count: 1,
                    dimension: wgpu::TextureDimension::D2,
                    format: wgpu::TextureFormat::Rgba32Float,
                    usage: wgpu::TextureUsages::TEXTURE_BINDING | wgpu::TextureUsages::COPY_DST,
                    view_formats: &[],
                };
                let make = || self.device().create_texture(&descriptor);
                let texture = self.guarded(make, || "a texture for products".into())?;
                pool.insert((place, rows), texture.clone());
                texture
            }
        };
        let view = texture.create_view(&wgpu::TextureViewDescriptor::default());
        Ok(Texels {
            source: source.clone(),
            texels,
            texture,
            view,
        })
    }
}
