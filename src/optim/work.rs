//! How work is counted.

use super::report::StepReport;
use crate::objective::{Cost, Loaded, LossCost};

/// Work of a step, in two measures.
///
/// In *examples*, as papers count: a gradient on n examples is n, a curvature product 2n, the empirical Fisher diagonal n, a loss n/3 (of
/// the three matrix products per layer of a gradient, a loss has one), its change from a point whose forward pass is there 2n/3. Everything
/// computed counts, needed or not.
///
/// In *gradients of an example*: the floating-point operations of the objective's programs, padding included, and of the vector work of
/// solvers, over those of a gradient of one row. Programs of an objective that does not count them have the classical numbers; where it
/// does not count its gradient, these are all there is, and vector work is left out. So is what the simplest method has, too: moving
/// parameters and moments, trial points, and their few inner products.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub(super) struct Work {
    examples: f64,
    /// Of programs without a count.
    classical: f64,
    flops: f64,
    /// Operations of the gradient of one row; 0 while they are not known.
    unit: f64,
}

impl Work {
    /// `count` runs of a program.
    fn add(&mut self, classical: f64, flops: f64) {
        self.examples += classical;
        if flops > 0.0 {
            self.flops += flops;
        } else {
            self.classical += classical;
        }
    }

    /// A gradient, or a linearization.
    pub(super) fn gradient(&mut self, cost: &Cost, loaded: &Loaded) {
        if self.unit == 0.0 && loaded.rows > 0 {
            self.unit = cost.gradient as f64 / loaded.rows as f64;
        }
        self.add(loaded.examples as f64, cost.run as f64);
    }

    /// A linearization with the diagonal of the empirical Fisher matrix.
    pub(super) fn gradient_and_fisher_diagonal(&mut self, cost: &Cost, loaded: &Loaded) {
        self.gradient(cost, loaded);
        let examples = loaded.examples as f64;
        self.examples += examples;
        if cost.run == 0 {
            self.classical += examples;
        }
    }

    /// Kronecker factors: as the empirical Fisher diagonal, where operations are not counted.
    pub(super) fn factors(&mut self, flops: u64, loaded: &Loaded) {
        self.add(loaded.examples as f64, flops as f64);
    }

    /// The curvature along one direction by a tangent of the outputs: two of the three matrix products per layer of a gradient.
    pub(super) fn tangent(&mut self, cost: &Cost, loaded: &Loaded) {
        self.add(2.0 / 3.0 * loaded.examples as f64, cost.product as f64);
    }

    /// Products with the rows of examples, or with their transpose: one of the three matrix products per layer of a gradient.
    pub(super) fn rows(&mut self, count: usize, flops: u64, loaded: &Loaded) {
        let count = count as f64;
        self.add(count / 3.0 * loaded.examples as f64, count * flops as f64);
    }

    /// Products with a curvature matrix.
    pub(super) fn products(&mut self, count: usize, cost: &Cost, loaded: &Loaded) {
        let count = count as f64;
        self.add(
            2.0 * count * loaded.examples as f64,
            count * cost.product as f64,
        );
    }

    /// The same, from blocks of `width` products each.
    pub(super) fn block_products(
        &mut self,
        count: usize,
        width: usize,
        cost: &Cost,
        loaded: &Loaded,
    ) {
        let blocks = count as f64 / width.max(1) as f64;
        self.add(
            2.0 * (count * loaded.examples) as f64,
            blocks * cost.block as f64,
        );
    }

    /// Losses, or changes of them.
    pub(super) fn losses(&mut self, count: usize, cost: &LossCost, loaded: &Loaded) {
        let count = count as f64;
        self.add(
            count * cost.gradients * loaded.examples as f64,
            count * cost.flops as f64,
        );
    }

    /// Work with vectors and small matrices.
    pub(super) fn vectors(&mut self, flops: f64) {
        self.flops += flops;
    }

    /// A report with both measures.
    pub(super) fn in_report(self, report: StepReport) -> StepReport {
        StepReport {
            work: self.examples,
            work_flops: if self.unit > 0.0 {
                self.classical + self.flops / self.unit
            } else {
                self.examples
            },
            ..report
        }
    }
}

impl std::ops::AddAssign for Work {
    fn add_assign(&mut self, other: Self) {
        self.examples += other.examples;
        self.classical += other.classical;
        self.flops += other.flops;
        if self.unit == 0.0 {
            self.unit = other.unit;
        }
    }
}

/// Floating-point operations of work with vectors of `p` elements and with small matrices, two for each multiply-add.
pub(super) mod flops {
    /// Conjugate gradients beside `products` products: `p.q`, `r.r`, the updates of iterate, residual and direction, and the shift, two
    /// operations an element each.
    pub(in crate::optim) fn conjugate_gradients(products: usize, p: usize) -> f64 {
        12.0 * products as f64 * p as f64
    }

    /// What a diagonal preconditioner adds to that: `z = r / M` and `r.z`.
    pub(in crate::optim) fn diagonal(products: usize, p: usize) -> f64 {
        3.0 * products as f64 * p as f64
    }

    /// What a companion adds: slope, curvature and residual along each direction, two operations an element each.
    pub(in crate::optim) fn companion(products: usize, p: usize) -> f64 {
        6.0 * products as f64 * p as f64
    }

    /// A low-rank operator on `count` vectors: `U x`, and a combination of `U`.
    pub(in crate::optim) fn low_rank(count: usize, rank: usize, p: usize) -> f64 {
        4.0 * (count * rank) as f64 * p as f64
    }

    /// Products of `count` vectors with `C + shift` between two low-rank operators.
    pub(in crate::optim) fn sandwich(count: usize, rank: usize, p: usize) -> f64 {
        2.0 * low_rank(count, rank, p) + 2.0 * count as f64 * p as f64
    }

    /// All inner products of `rows` vectors with `columns` others, or a combination of such a block.
    pub(in crate::optim) fn block(rows: usize, columns: usize, p: usize) -> f64 {
        2.0 * (rows * columns) as f64 * p as f64
    }

    /// A symmetric eigenproblem with its vectors: about `9 n^3` (Golub and Van Loan 2013, section 8.3).
    pub(in crate::optim) fn eigen(n: usize) -> f64 {
        9.0 * (n as f64).powi(3)
    }

    /// A step of orthogonal iteration with a matrix: a product, a QR decomposition by reflections, and its orthogonal factor (Golub and Van
    /// Loan 2013, section 5.2).
    pub(in crate::optim) fn orthogonal_iteration(n: usize) -> f64 {
        (2.0 + 4.0 / 3.0 + 4.0 / 3.0) * (n as f64).powi(3)
    }

    /// A Nystrom approximation of this rank beside its products: three matrices of inner products, two combinations, an eigenproblem.
    pub(in crate::optim) fn nystrom(rank: usize, p: usize) -> f64 {
        5.0 * block(rank, rank, p) + eigen(rank)
    }

    /// The randomized eigensolver beside its products: for each pass of orthogonalization inner products and a combination; two matrices of
    /// inner products, a combination and an eigenproblem at the end.
    pub(in crate::optim) fn randomized(width: usize, passes: usize, p: usize) -> f64 {
        (3 + 2 * passes) as f64 * block(width, width, p) + (1 + passes) as f64 * eigen(width)
    }

    /// The range finder beside its products, for a basis of `rank` vectors: half of `16 b r p` for each product, two for a vector.
    pub(in crate::optim) fn range_finder(products: usize, rank: usize, p: usize) -> f64 {
        8.0 * (products * rank) as f64 * p as f64 + eigen(rank)
    }

    /// Lanczos with full orthogonalization, twice: `8 s^2 p`, and a tridiagonal eigenproblem.
    pub(in crate::optim) fn lanczos(steps: usize, p: usize) -> f64 {
        8.0 * (steps * steps) as f64 * p as f64 + eigen(steps)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::data::Role;
    use crate::objective::Slot;

    const LOADED: Loaded = Loaded {
        slot: Slot::new(Role::Directions, 0),
        rows: 32,
        examples: 30,
        groups: 1,
    };

    fn both(work: Work) -> (f64, f64) {
        let report = work.in_report(StepReport::default());
        (report.work, report.work_flops)
    }

    #[test]
    fn without_counts_both_measures_are_the_classical_one() {
        let (mut work, cost) = (Work::default(), Cost::default());
        work.gradient_and_fisher_diagonal(&cost, &LOADED);
        work.products(2, &cost, &LOADED);
        work.block_products(3, 3, &cost, &LOADED);
        work.losses(4, &LossCost::LOSS, &LOADED);
        work.losses(2, &LossCost::CHANGE, &LOADED);
        work.losses(1, &LossCost::NOTHING, &LOADED);
        work.vectors(1e9);
        let expected = 60.0 + 120.0 + 180.0 + 40.0 + 40.0;
        assert_eq!(both(work), (expected, expected));
    }

    #[test]
    fn operations_are_counted_in_gradients_of_a_row() {
        let cost = Cost {
            gradient: 6400,
            run: 7000,
            product: 10_000,
            block: 24_000,
            bytes: 0,
        };
        let mut work = Work::default();
        work.gradient_and_fisher_diagonal(&cost, &LOADED);
        work.products(2, &cost, &LOADED);
        work.block_products(6, 3, &cost, &LOADED);
        // Its program is not counted.
        work.losses(1, &LossCost::LOSS, &LOADED);
        work.vectors(1000.0);
        let of_changes = LossCost {
            flops: 500,
            ..LossCost::CHANGE
        };
        work.losses(3, &of_changes, &LOADED);
        let flops = 7000.0 + 20_000.0 + 48_000.0 + 1000.0 + 1500.0;
        let (examples, gradients) = both(work);
        assert_eq!(examples, 60.0 + 120.0 + 360.0 + 10.0 + 60.0);
        assert!((gradients - (flops / 200.0 + 10.0)).abs() < 1e-9);
    }

    #[test]
    fn vector_work_follows_its_formulas() {
        assert_eq!(flops::conjugate_gradients(3, 10), 360.0);
        assert_eq!(flops::diagonal(3, 10) + flops::companion(3, 10), 270.0);
        assert_eq!(flops::low_rank(2, 5, 10), 400.0);
        assert_eq!(flops::sandwich(2, 5, 10), 840.0);
        assert_eq!(flops::nystrom(2, 10), 5.0 * 80.0 + 72.0);
        assert_eq!(flops::randomized(2, 1, 10), 5.0 * 80.0 + 144.0);
        assert_eq!(flops::range_finder(4, 2, 10), 640.0 + 72.0);
        assert_eq!(flops::lanczos(2, 10), 320.0 + 72.0);
    }
}
