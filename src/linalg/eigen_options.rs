//! Settings of the randomized eigensolver.

use crate::error::{Error, Result};
use crate::kernels::blocks::Sketch;

/// Settings of a [`RandomizedEigensolver`](super::RandomizedEigensolver).
#[derive(Clone, Debug, PartialEq)]
#[non_exhaustive]
pub struct EigenOptions {
    /// Eigenpairs wanted. Default 20.
    pub rank: usize,
    /// Vectors in the random block beyond them. Default 10.
    pub oversampling: usize,
    /// Further products of the block with the operator before the eigenvalues are computed: each squares the ratio between captured and
    /// other eigenvalues. Default 1.
    pub power_iterations: usize,
    /// Distribution of the random block. Default [`Sketch::Gaussian`].
    pub sketch: Sketch,
    /// Seed of the random block.
    pub seed: u64,
    /// Whether every solve draws the same random block. Default false.
    pub same_sketch: bool,
}

impl Default for EigenOptions {
    fn default() -> Self {
        Self {
            rank: 20,
            oversampling: 10,
            power_iterations: 1,
            sketch: Sketch::Gaussian,
            seed: 0,
            same_sketch: false,
        }
    }
}

impl EigenOptions {
    /// Sets the number of eigenpairs.
    #[must_use]
    pub fn with_rank(mut self, rank: usize) -> Self {
        self.rank = rank;
        self
    }

    /// Sets the oversampling.
    #[must_use]
    pub fn with_oversampling(mut self, oversampling: usize) -> Self {
        self.oversampling = oversampling;
        self
    }

    /// Sets the number of power iterations.
    #[must_use]
    pub fn with_power_iterations(mut self, power_iterations: usize) -> Self {
        self.power_iterations = power_iterations;
        self
    }

    /// Sets the distribution of the random block.
    #[must_use]
    pub fn with_sketch(mut self, sketch: Sketch) -> Self {
        self.sketch = sketch;
        self
    }

    /// Sets the seed of the random block.
    #[must_use]
    pub fn with_seed(mut self, seed: u64) -> Self {
        self.seed = seed;
        self
    }

    /// Sets whether every solve draws the same random block.
    #[must_use]
    pub fn with_same_sketch(mut self, same: bool) -> Self {
        self.same_sketch = same;
        self
    }

    /// Vectors in a block: rank and oversampling.
    #[must_use]
    pub fn width(&self) -> usize {
        self.rank.saturating_add(self.oversampling)
    }

    /// Products with the operator in a solve, counted in single vectors.
    #[must_use]
    pub fn products(&self) -> usize {
        self.width() * (2 + self.power_iterations)
    }

    /// Checks the ranges.
    ///
    /// # Errors
    /// [`Error::Option`] naming the option and its range.
    pub fn validate(&self) -> Result<()> {
        if self.rank == 0 || self.width() > MOST_VECTORS || self.power_iterations > 100 {
            return Err(Error::Option {
                option: "rank, oversampling and power iterations".into(),
                message: format!(
                    "{}, {} and {}: the rank must be at least 1, rank and oversampling together at most {MOST_VECTORS}, power iterations \
                        at most 100",
                    self.rank, self.oversampling, self.power_iterations
                ),
            });
        }
        Ok(())
    }
}

/// Small matrices are as wide as the block, and the host decomposes them.
const MOST_VECTORS: usize = 1024;
