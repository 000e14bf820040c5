//! Vectors of an optimizer's state.

use super::saved::{self, OptimizerState};
use crate::error::Result;
use crate::gpu::Gpu;
use crate::linalg::Basis;
use crate::vector::Vector;

/// Vectors of an optimizer's state where they are, on the device.
#[derive(Clone, Debug)]
pub enum StateTensor {
    /// A vector in parameter space.
    Vector {
        /// Its name in a state.
        name: String,
        /// The vector itself, not a copy.
        vector: Vector,
    },
    /// The first vectors of a basis, which are `name 0`, `name 1` and so on in a state.
    Basis {
        /// What their names begin with.
        name: String,
        /// The basis itself, not a copy.
        basis: Basis,
        /// How many of its vectors.
        count: usize,
    },
}

impl StateTensor {
    pub(super) fn vector(name: &str, vector: &Vector) -> Self {
        Self::Vector {
            name: name.into(),
            vector: vector.clone(),
        }
    }

    pub(super) fn basis(name: String, basis: &Basis, count: usize) -> Self {
        Self::Basis {
            name,
            basis: basis.clone(),
            count,
        }
    }

    /// Copies to the host, with names.
    ///
    /// # Errors
    /// Loss of the device.
    #[cfg(not(target_arch = "wasm32"))]
    pub fn read(&self, gpu: &Gpu) -> Result<Vec<(String, Vec<Vec<f32>>)>> {
        crate::gpu::blocking(self.read_async(gpu))
    }

    /// As [`read`](Self::read), without blocking the thread.
    ///
    /// # Errors
    /// As there.
    pub async fn read_async(&self, gpu: &Gpu) -> Result<Vec<(String, Vec<Vec<f32>>)>> {
        Ok(match self {
            Self::Vector { name, vector } => {
                vec![(name.clone(), vector.read_async(gpu).await?)]
            }
            Self::Basis { name, basis, count } => {
                let vectors = basis.read_async(gpu).await?;
                let vectors = vectors.into_iter().take(*count).enumerate();
                vectors.map(|(i, v)| (format!("{name} {i}"), v)).collect()
            }
        })
    }

    /// Writes what a state has under these names, once all of it is there and fits.
    pub(super) async fn restore(&self, gpu: &Gpu, state: &OptimizerState) -> Result<()> {
        match self {
            Self::Vector { name, vector } => {
                let values = saved::vector(state, name, vector.layout())?;
                vector.write_async(gpu, values).await
            }
            Self::Basis { name, basis, count } => {
                let vectors = (0..*count)
                    .map(|i| saved::vector(state, &format!("{name} {i}"), basis.layout()))
                    .collect::<Result<Vec<_>>>()?;
                basis.write_async(gpu, &vectors).await
            }
        }
    }
}
