//! How work is counted.

/// Work of a step in examples: a gradient on n examples is n, a curvature product 2n, the empirical Fisher diagonal n, a loss n/3 (of the three matrix products
/// per layer of a gradient, a loss has one), its change along a step 2n/3. Everything computed counts, needed or not.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub(super) struct Work(f64);

impl Work {
    /// Gradients, linearizations included.
    pub(super) fn gradients(&mut self, count: usize, examples: usize) {
        self.0 += (count * examples) as f64;
    }

    /// Products with a curvature matrix.
    pub(super) fn products(&mut self, count: usize, examples: usize) {
        self.0 += 2.0 * (count * examples) as f64;
    }

    /// Diagonals of the empirical Fisher matrix.
    pub(super) fn fisher_diagonals(&mut self, count: usize, examples: usize) {
        self.0 += (count * examples) as f64;
    }

    /// Losses.
    pub(super) fn losses(&mut self, count: usize, examples: usize) {
        self.0 += (count * examples) as f64 / 3.0;
    }

    /// Changes of the loss at candidate points: of the three matrix products per layer of a gradient, one has two.
    pub(super) fn changes(&mut self, count: usize, examples: usize) {
        self.0 += 2.0 * (count * examples) as f64 / 3.0;
    }

    /// In examples.
    pub(super) fn in_examples(self) -> f64 {
        self.0
    }
}

impl std::ops::AddAssign for Work {
    fn add_assign(&mut self, other: Self) {
        self.0 += other.0;
    }
}

#[cfg(test)]
mod tests {
    use super::Work;

    #[test]
    fn everything_is_counted_in_examples() {
        let mut work = Work::default();
        work.gradients(1, 30);
        work.products(2, 30);
        work.fisher_diagonals(1, 30);
        work.losses(4, 30);
        assert_eq!(work.in_examples(), 30.0 + 120.0 + 30.0 + 40.0);
    }
}
