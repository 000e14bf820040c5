//! Eigenpairs of the Gauss-Newton matrix of a batch, out of the Gram matrix of its root.

use nalgebra::{DMatrix, SymmetricEigen};

use super::statistics::{BatchStatistics, Quantity, RootProduct};
use crate::error::{Error, Result};
use crate::gpu::Gpu;

/// Eigenvalues below this part of the largest are rounding errors of a Gram matrix in f32.
const NEGLIGIBLE: f64 = 1e-6;

/// An eigenvalue of the Gauss-Newton matrix with its eigenvector.
#[derive(Clone, Debug, PartialEq)]
pub struct Eigenpair {
    /// The eigenvalue, positive.
    pub value: f64,
    /// The eigenvector, of norm 1, one list for each parameter.
    pub vector: Vec<Vec<f32>>,
}

impl BatchStatistics {
    /// The `count` largest eigenvalues of the Gauss-Newton matrix with their eigenvectors, largest first; fewer where the matrix has a
    /// smaller rank. After [`run`](Self::run) with [`Quantity::GaussNewtonGram`].
    ///
    /// With the root `V`, whose columns are `C n` vectors in parameter space, `V V^T` is the matrix and `V^T V` the Gram matrix. An
    /// eigenvector `u` of this with eigenvalue `l` gives `V u / sqrt l` of that, by one backpropagation (Dangel, Tatzel and Hennig 2022,
    /// "ViViT"), and what rounding leaves in it of those with larger eigenvalues is taken out. Values are known to some 1e-7 of the
    /// largest, and none below 1e-6 of it is given. The eigenvectors of the Gram matrix are computed on the CPU in f64, in about
    /// `9 (C n)^3` operations.
    ///
    /// # Errors
    /// [`Error::Unsupported`] where the Gram matrix was not asked for; [`Error::NotFinite`] where it is not finite; of the device.
    #[cfg(not(target_arch = "wasm32"))]
    pub fn eigenpairs(&self, gpu: &Gpu, count: usize) -> Result<Vec<Eigenpair>> {
        crate::gpu::blocking(self.eigenpairs_async(gpu, count))
    }

    /// As `eigenpairs`, without blocking the thread while the device computes.
    ///
    /// # Errors
    /// As there.
    pub async fn eigenpairs_async(&self, gpu: &Gpu, count: usize) -> Result<Vec<Eigenpair>> {
        let (Some(gram), Some(root)) = (self.get(Quantity::GaussNewtonGram), &self.root) else {
            return Err(Error::Unsupported {
                what: "eigenpairs of these statistics".into(),
                message: "the Gram matrix is not among them; ask for Quantity::GaussNewtonGram"
                    .into(),
            });
        };
        let gram = gram.read_async(gpu).await?.concat();
        let mut pairs: Vec<Eigenpair> = Vec::new();
        for (value, coefficients) in leading(&gram, count)? {
            let mut vector = root.product(gpu, &coefficients).await?;
            for larger in &pairs {
                let part = dot(&vector, &larger.vector);
                let both = vector
                    .iter_mut()
                    .flatten()
                    .zip(larger.vector.iter().flatten());
                both.for_each(|(x, y)| *x = (f64::from(*x) - part * f64::from(*y)) as f32);
            }
            // Divided by its own norm, not by sqrt l: that is as exact as the vector.
            let norm = dot(&vector, &vector).sqrt();
            let elements = vector.iter_mut().flatten();
            elements.for_each(|x| *x = (f64::from(*x) / norm) as f32);
            pairs.push(Eigenpair { value, vector });
        }
        Ok(pairs)
    }
}

fn dot(a: &[Vec<f32>], b: &[Vec<f32>]) -> f64 {
    let both = a.iter().flatten().zip(b.iter().flatten());
    both.map(|(&a, &b)| f64::from(a) * f64::from(b)).sum()
}

impl RootProduct {
    /// The sum of the root's columns times these numbers, which lie column after column.
    async fn product(&self, gpu: &Gpu, coefficients: &[f64]) -> Result<Vec<Vec<f32>>> {
        let examples = coefficients.len() / self.columns;
        let by_example: Vec<f32> = (0..coefficients.len())
            .map(|at| coefficients[at % self.columns * examples + at / self.columns] as f32)
            .collect();
        gpu.upload_async(&self.coefficients, 0, &by_example).await?;
        gpu.run_async([&self.multiply]).await?;
        self.sum.read_async(gpu).await
    }
}

/// The largest eigenvalues of a symmetric matrix with their eigenvectors, largest first.
fn leading(gram: &[f32], count: usize) -> Result<Vec<(f64, Vec<f64>)>> {
    if gram.iter().any(|x| !x.is_finite()) {
        return Err(Error::NotFinite {
            what: "the Gram matrix of the Gauss-Newton matrix".into(),
            advice: "Look at the parameters and the batch: loss and outputs must be finite.",
        });
    }
    let size = (gram.len() as f64).sqrt().round() as usize;
    let at = |i: usize, j: usize| f64::from(gram[i * size + j]);
    let matrix = DMatrix::from_fn(size, size, |i, j| 0.5 * (at(i, j) + at(j, i)));
    let eigen = SymmetricEigen::new(matrix);
    let mut order: Vec<usize> = (0..size).collect();
    order.sort_by(|&a, &b| eigen.eigenvalues[b].total_cmp(&eigen.eigenvalues[a]));
    let largest = order.first().map_or(0.0, |&first| eigen.eigenvalues[first]);
    let pairs = order.into_iter().take(count).map(|at| {
        let vector = eigen.eigenvectors.column(at).iter().copied().collect();
        (eigen.eigenvalues[at], vector)
    });
    let is_there = |(value, _): &(f64, Vec<f64>)| *value > NEGLIGIBLE * largest;
    Ok(pairs.take_while(is_there).collect())
}
