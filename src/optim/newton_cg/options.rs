//! Settings of Newton-CG.

use crate::error::{Error, Result};
use crate::linalg::CgOptions;
use crate::objective::Curvature;
use crate::optim::damping::LevenbergMarquardt;
use crate::optim::judge::Armijo;

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
}

/// Settings of [`NewtonCg`](super::NewtonCg).
#[derive(Clone, Debug, PartialEq)]
#[non_exhaustive]
pub struct NewtonCgOptions {
    /// The matrix. [`Curvature::GaussNewton`] (default) with Levenberg-Marquardt damping, or [`Curvature::Hessian`] with a trust region.
    pub curvature: Curvature,
    /// Settings of conjugate gradients.
    pub cg: CgOptions,
    /// Damping, with the Gauss-Newton matrix.
    pub damping: LevenbergMarquardt,
    /// Default none: where it was tried it did not save work (see docs/rejected-ideas.md).
    pub preconditioner: Preconditioner,
    /// The next solve starts at this fraction of the last solution (before backtracking); 0 starts at zero. Default 0.95.
    pub warm_start: f32,
    /// Whether to try earlier iterates when the last one has a higher loss. Default true.
    pub backtracking: bool,
    /// Armijo's constant: the loss must fall by this part of the slope. Default 1e-2.
    pub armijo: f64,
    /// Factor between step lengths that the line search tries. Default 0.8.
    pub shrink: f64,
    /// Step lengths that the line search tries before the step is refused. Default 20.
    pub max_line_search: usize,
    /// First radius of the trust region, with the Hessian. Default 1.
    pub radius: f64,
}

impl Default for NewtonCgOptions {
    fn default() -> Self {
        Self {
            curvature: Curvature::GaussNewton,
            cg: CgOptions::default(),
            damping: LevenbergMarquardt::default(),
            preconditioner: Preconditioner::None,
            warm_start: 0.95,
            backtracking: true,
            armijo: 1e-2,
            shrink: 0.8,
            max_line_search: 20,
            radius: 1.0,
        }
    }
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

    /// Sets the matrix.
    #[must_use]
    pub fn with_curvature(mut self, curvature: Curvature) -> Self {
        self.curvature = curvature;
        self
    }

    /// Sets the conjugate gradient settings.
    #[must_use]
    pub fn with_cg(mut self, cg: CgOptions) -> Self {
        self.cg = cg;
        self
    }

    /// Sets the damping rule.
    #[must_use]
    pub fn with_damping(mut self, damping: LevenbergMarquardt) -> Self {
        self.damping = damping;
        self
    }

    /// Sets the preconditioner.
    #[must_use]
    pub fn with_preconditioner(mut self, preconditioner: Preconditioner) -> Self {
        self.preconditioner = preconditioner;
        self
    }

    /// Sets the fraction of the last solution at which the next solve starts.
    #[must_use]
    pub fn with_warm_start(mut self, fraction: f32) -> Self {
        self.warm_start = fraction;
        self
    }

    /// The line search.
    pub(in crate::optim) fn search(&self) -> Armijo {
        Armijo {
            constant: self.armijo,
            shrink: self.shrink,
            most: self.max_line_search,
        }
    }

    /// Checks the ranges.
    ///
    /// # Errors
    /// [`Error::Option`] naming the option and its range.
    pub fn validate(&self) -> Result<()> {
        let bad = |option: &str, message: String| {
            Err(Error::Option {
                option: option.into(),
                message,
            })
        };
        self.cg.validate()?;
        self.damping.validate()?;
        if self.curvature == Curvature::None {
            return bad(
                "curvature",
                "Newton-CG needs a matrix: Hessian or GaussNewton".into(),
            );
        }
        if let Preconditioner::EmpiricalFisher { exponent } = self.preconditioner
            && !(0.0..=1.0).contains(&exponent)
        {
            return bad(
                "preconditioner exponent",
                format!("{exponent} is not in 0..=1"),
            );
        }
        if let Preconditioner::Nystrom { rank, refresh, .. } = self.preconditioner {
            if self.curvature != Curvature::GaussNewton {
                return bad(
                    "preconditioner",
                    "a Nystrom approximation needs a positive semi-definite matrix; use Curvature::GaussNewton".into(),
                );
            }
            if !(1..=1024).contains(&rank) || refresh == 0 {
                return bad(
                    "Nystrom preconditioner",
                    format!("rank {rank} must be in 1..=1024, refresh {refresh} at least 1"),
                );
            }
        }
        if !(0.0..=1.0).contains(&self.warm_start) {
            return bad("warm_start", format!("{} is not in 0..=1", self.warm_start));
        }
        if !(self.shrink > 0.0 && self.shrink < 1.0 && self.armijo > 0.0 && self.armijo < 1.0) {
            return bad(
                "line search",
                format!(
                    "shrink {} and armijo {} must be in 0..1",
                    self.shrink, self.armijo
                ),
            );
        }
        if self.max_line_search == 0 || self.max_line_search > 1000 {
            return bad(
                "max_line_search",
                format!("{} is not in 1..=1000", self.max_line_search),
            );
        }
        if !RADII.contains(&self.radius) {
            return bad("radius", format!("{} is not in 1e-12..=1e12", self.radius));
        }
        Ok(())
    }
}
