//! Settings of the randomized eigensolver.

use crate::error::Result;
use crate::kernels::blocks::Sketch;
use crate::options::{options, require};

/// Small matrices are as wide as the block, and the host decomposes them.
const MOST_VECTORS: usize = 1024;

options! {
    /// Settings of a [`RandomizedEigensolver`](super::RandomizedEigensolver).
    pub struct EigenOptions {
        /// Eigenpairs wanted.
        rank(with_rank): usize = 20, in 1..=MOST_VECTORS => "1 to 1024";
        /// Vectors in the random block beyond them.
        oversampling(with_oversampling): usize = 10;
        /// Further products of the block with the operator before the eigenvalues are computed: each squares the ratio between captured and
        /// other eigenvalues.
        power_iterations(with_power_iterations): usize = 1, in 0..=100 => "0 to 100";
        /// Distribution of the random block.
        sketch(with_sketch): Sketch = Sketch::Gaussian;
        /// Seed of the random block.
        seed(with_seed): u64 = 0;
        /// Whether every solve draws the same random block.
        same_sketch(with_same_sketch): bool = false;
    } together Self::check_together
}

impl EigenOptions {
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

    fn check_together(&self) -> Result<()> {
        let (rank, oversampling) = (self.rank, self.oversampling);
        let message = format!(
            "{oversampling} beside a rank of {rank}: together they may be {MOST_VECTORS} at most"
        );
        require(self.width() <= MOST_VECTORS, "oversampling", message)
    }
}
