//! Settings of Newton-CG.

use std::ops::Bound::Excluded;

use crate::error::Result;
use crate::linalg::CgOptions;
use crate::objective::{Curvature, KroneckerRequest};
use crate::optim::damping::AdaptiveDamping;
use crate::optim::judge::Armijo;
use crate::options::{check_range, options, require};

/// Radii of the trust region whose squares are well inside f32.
pub(super) const RADII: std::ops::RangeInclusive<f64> = 1e-12..=1e12;

/// Preconditioner of the conjugate gradients.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Preconditioner {
    /// None.
    None,
    /// `(diag F + damping)^exponent` with the diagonal of the empirical Fisher matrix, `sum_n w_n g_n * g_n` (Martens 2010, section 4.7,
    /// takes 3/4).
    EmpiricalFisher {
        /// In 0..=1.
        exponent: f32,
    },
    /// `(l_r + damping) U (L + damping)^-1 U^T + I - U U^T` with the Nystrom approximation `U L U^T` of the matrix (Frangella, Tropp and
    /// Udell 2021; as optimizer Rathore et al. 2024). For [`Curvature::GaussNewton`].
    Nystrom {
        /// Number of eigenpairs: products with the matrix per approximation.
        rank: usize,
        /// Steps from one approximation to the next.
        refresh: usize,
        /// Seed of the random vectors.
        seed: u64,
    },
    /// `(A + a) (x) (B + b)` for each layer, with the Kronecker factors of the step's batch as in [`Kfac`](crate::optim::Kfac), and the
    /// damping of the step split between them: [`FactorDamping::Split`](crate::linalg::FactorDamping::Split). For
    /// [`Curvature::GaussNewton`], and objectives that are [`Layered`](crate::objective::Layered).
    Kronecker {
        /// Which factors are matrices.
        request: KroneckerRequest,
        /// Steps from one approximation to the next.
        refresh: usize,
        /// Seed of the random signs.
        seed: u64,
    },
}

impl Preconditioner {
    /// Steps from one approximation of the matrix to the next, where there is one.
    pub(super) fn refresh(self) -> Option<usize> {
        match self {
            Self::Nystrom { refresh, .. } | Self::Kronecker { refresh, .. } => Some(refresh),
            Self::None | Self::EmpiricalFisher { .. } => None,
        }
    }
}

options! {
    /// Settings of [`NewtonCg`](super::NewtonCg).
    pub struct NewtonCgOptions {
        /// The matrix: [`Curvature::GaussNewton`] with Levenberg-Marquardt damping, or [`Curvature::Hessian`] with a trust region.
        curvature(with_curvature): Curvature = Curvature::GaussNewton;
        /// Settings of conjugate gradients.
        cg(with_cg): CgOptions = CgOptions::default();
        /// Damping, with the Gauss-Newton matrix.
        damping(with_damping): AdaptiveDamping = AdaptiveDamping::default();
        /// None unless asked for: where it was tried it did not save work (see docs/rejected-ideas.md).
        preconditioner(with_preconditioner): Preconditioner = Preconditioner::None;
        /// The next solve starts at this fraction of the last solution (before backtracking); 0 starts at zero.
        warm_start(with_warm_start): f32 = 0.95, in 0.0..=1.0 => "0 to 1";
        /// Whether to try earlier iterates when the last one has a higher loss.
        backtracking(with_backtracking): bool = true;
        /// Armijo's constant: the loss must fall by this part of the slope.
        armijo(with_armijo): f64 = 1e-2, in (Excluded(0.0), Excluded(1.0)) => "above 0, below 1";
        /// Factor between step lengths that the line search tries.
        shrink(with_shrink): f64 = 0.8, in (Excluded(0.0), Excluded(1.0)) => "above 0, below 1";
        /// Step lengths that the line search tries before the step is refused.
        max_line_search(with_max_line_search): usize = 20, in 1..=1000 => "1 to 1000";
        /// First radius of the trust region, with the Hessian.
        radius(with_radius): f64 = 1.0, in RADII => "1e-12 to 1e12";
    } together Self::check_together
}

impl NewtonCgOptions {
    /// Conjugate gradients preconditioned by a Nystrom approximation of this rank, made again every `refresh` steps.
    #[must_use]
    pub fn nystrom(rank: usize, refresh: usize) -> Self {
        Self::default().with_preconditioner(Preconditioner::Nystrom {
            rank,
            refresh,
            seed: 0,
        })
    }

    /// Conjugate gradients preconditioned by Kronecker factors, made again every `refresh` steps.
    #[must_use]
    pub fn kronecker(refresh: usize) -> Self {
        Self::default().with_preconditioner(Preconditioner::Kronecker {
            request: KroneckerRequest::default(),
            refresh,
            seed: 0,
        })
    }

    /// The line search.
    pub(in crate::optim) fn search(&self) -> Armijo {
        Armijo {
            constant: self.armijo,
            shrink: self.shrink,
            most: self.max_line_search,
        }
    }

    fn check_together(&self) -> Result<()> {
        self.cg.validate()?;
        self.damping.validate()?;
        require(
            self.curvature != Curvature::None,
            "curvature",
            "Newton-CG needs a matrix: Hessian or GaussNewton",
        )?;
        match self.preconditioner {
            Preconditioner::None => Ok(()),
            Preconditioner::EmpiricalFisher { exponent } => {
                check_range("preconditioner exponent", &exponent, 0.0..=1.0, "0 to 1")
            }
            Preconditioner::Nystrom { rank, refresh, .. } => {
                self.check_approximation(refresh)?;
                check_range("preconditioner rank", &rank, 1..=1024, "1 to 1024")
            }
            Preconditioner::Kronecker { refresh, .. } => self.check_approximation(refresh),
        }
    }

    fn check_approximation(&self, refresh: usize) -> Result<()> {
        let definite = self.curvature == Curvature::GaussNewton;
        require(
            definite,
            "preconditioner",
            "an approximation needs a positive semi-definite matrix; use Curvature::GaussNewton",
        )?;
        check_range("preconditioner refresh", &refresh, 1.., "1 step or more")
    }
}
