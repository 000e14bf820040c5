//! Tensors of burn's where wgpu sees them.

use std::any::Any;

#[cfg(not(feature = "fusion"))]
use burn::backend::StreamId;
use burn::tensor::Tensor;
use burn_cubecl::cubecl::wgpu::{AutoCompiler, WgpuServer};
use burn_cubecl::tensor::CubeTensor;
use burn_cubecl::{Cube, kernel::into_contiguous};
use osculant::{Error, Result};

/// A tensor of burn's, row-major, as a range of a wgpu buffer. The range is that of the tensor as long as this lives.
///
/// What burn had to do for it when this was made is submitted with [`flush`](Self::flush), so that commands which are submitted then, on the
/// same queue, come after that.
pub(crate) struct Stored {
    tensor: CubeTensor,
    buffer: wgpu::Buffer,
    offset: u64,
    /// Keeps the range.
    _memory: Box<dyn Any>,
}

impl Stored {
    /// Of a tensor without automatic differentiation; where it is not stored row by row, of a copy that is.
    pub(crate) fn read<const D: usize>(tensor: Tensor<D>) -> Result<Self> {
        Self::new(into_contiguous(cube(tensor)?))
    }

    /// Of memory for a tensor that is about to be written.
    pub(crate) fn fresh<const D: usize>(tensor: Tensor<D>) -> Result<Self> {
        let tensor = cube(tensor)?;
        if !tensor.is_contiguous() {
            return Err(refused("new memory is not stored row by row"));
        }
        Self::new(tensor)
    }

    /// Of memory that only this tensor has, which comes back with it; none where somebody else has it too, or may not have read it yet.
    ///
    /// Fused operations keep that to themselves: with them it is always none.
    #[cfg_attr(feature = "fusion", allow(clippy::unnecessary_wraps))]
    pub(crate) fn unique<const D: usize>(tensor: Tensor<D>) -> Result<(Tensor<D>, Option<Self>)> {
        #[cfg(feature = "fusion")]
        return Ok((tensor, None));
        #[cfg(not(feature = "fusion"))]
        {
            let cube = cube(tensor)?;
            // Other threads have queues of commands of their own.
            let here = cube.handle.stream == StreamId::current();
            let memory = match here && cube.can_mut() && cube.is_contiguous() {
                true => Some(Self::new(cube.clone())?),
                false => None,
            };
            Ok((Tensor::from_primitive::<Cube>(cube), memory))
        }
    }

    /// The buffer, and the byte from which on the tensor lies in it. Other tensors lie beside it.
    pub(crate) fn range(&self) -> (&wgpu::Buffer, u64) {
        (&self.buffer, self.offset)
    }

    /// Submits all that burn has to do on this thread.
    pub(crate) fn flush(&self) -> Result<()> {
        self.tensor.client.flush().map_err(refused)
    }

    fn new(tensor: CubeTensor) -> Result<Self> {
        let found = tensor
            .client
            .get_resource::<WgpuServer<AutoCompiler>>(tensor.handle.clone());
        let memory = found.map_err(refused)?;
        let (buffer, offset) = (memory.resource().buffer.clone(), memory.resource().offset);
        Ok(Self {
            buffer,
            offset,
            _memory: Box::new(memory),
            tensor,
        })
    }
}

/// What burn says when it does not give a buffer.
fn refused(error: impl std::fmt::Debug) -> Error {
    Error::Gpu {
        what: "a tensor of burn's as a buffer".into(),
        message: format!("{error:?}"),
    }
}

/// The tensor of the backend, which has the buffer.
fn cube<const D: usize>(tensor: Tensor<D>) -> Result<CubeTensor> {
    let primitive = tensor.try_into_primitive::<Cube>().map_err(refused)?;
    #[cfg(feature = "fusion")]
    let primitive = {
        let client = primitive.client.clone();
        client.resolve_tensor_float::<burn_cubecl::CubeBackend>(primitive)
    };
    Ok(primitive)
}
