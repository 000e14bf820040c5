//! Settings of low-rank saddle-free Newton.

use std::ops::Bound::{Excluded, Included};

use crate::error::Result;
use crate::linalg::{EigenOptions, RangeOptions, Storage};
use crate::objective::Curvature;
use crate::optim::damping::AdaptiveDamping;
use crate::optim::first_order::{AdamOptions, SgdOptions};
use crate::optim::strategy::Strategy;
use crate::options::{check_range, options, require};

/// How the damping is set.
#[derive(Clone, Copy, Debug, PartialEq)]
#[non_exhaustive]
pub enum DampingRule {
    /// Always the same.
    Fixed,
    /// At least the smallest captured `|eigenvalue|`, so that a step length of 1 is stable for everything that was not captured: on a
    /// quadratic that needs `step < 2 damping / |l_(r+1)|`. Above that, adapted by the reduction ratio; a step that raises the loss is
    /// refused.
    ///
    /// What bounds the rest is the last eigenvalue on the examples that made the eigenvectors. The Rayleigh quotients of other examples,
    /// with which [`Strategy::Decoupled`] and [`Strategy::CrossFit`] step, are in no order, and one that happens to be near zero bounds
    /// nothing; so it is not theirs. With several turns it is the largest of theirs, one damping for all.
    Adaptive(AdaptiveDamping),
}

/// What moves the parameters in the complement of the captured space.
#[derive(Clone, Debug, Default, PartialEq)]
#[non_exhaustive]
pub enum Base {
    /// The gradient over the damping, as in the paper.
    #[default]
    Gradient,
    /// SGD with momentum on the gradient's part there; what momentum remembers of the captured space is taken out (as FOSI does, Sivan et
    /// al. 2024).
    Sgd(SgdOptions),
    /// Adam in the same way.
    Adam(AdamOptions),
}

/// How many of the eigenpairs are used.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub enum RankRule {
    /// All.
    #[default]
    Fixed,
    /// As many as span what the matrix makes of a random vector, up to this relative length of the rest; at most the rank of the
    /// eigensolver. Blocks of as many vectors as it has for oversampling are added until that is so.
    Residual(f64),
    /// Those before the first whose eigenvalue is smaller than `least` times its noise: the standard error of its Rayleigh quotient over
    /// `parts` sub-batches of the examples that the eigenvalues are of.
    Noise {
        /// Smallest ratio of signal to noise.
        least: f64,
        /// Number of sub-batches.
        parts: usize,
    },
}

options! {
    /// Settings of [`LowRankSaddleFreeNewton`](super::LowRankSaddleFreeNewton).
    pub struct LrsfnOptions {
        /// Which matrix. The negative eigenvalues of the Hessian lead away from saddles.
        curvature(with_curvature): Curvature = Curvature::Hessian;
        /// The eigensolver.
        eigen(with_eigen): EigenOptions = EigenOptions::default();
        /// Step length in the captured space, `alpha`.
        step_length(with_step_length): f64 = 1.0, in 0.0..=1e6 => "0 to 1e6";
        /// Step length in its complement, where the step is `-step_length_beyond / damping` times the gradient.
        step_length_beyond(with_step_length_beyond): f64 = 1.0, in 0.0..=1e6 => "0 to 1e6";
        /// The damping `gamma`, or the least of it.
        damping(with_damping): f64 = 1e-3, in 1e-20..=1e20 => "1e-20 to 1e20";
        /// How the damping is set.
        rule(with_rule): DampingRule = DampingRule::Adaptive(AdaptiveDamping::default().with_initial(1e-3));
        /// Steps from one computation of eigenpairs to the next.
        refresh(with_refresh): usize = 1, in 1.. => "1 step or more";
        /// Whether a computation starts from the last eigenvectors.
        recall(with_recall): bool = true;
        /// What moves the parameters in the complement.
        base(with_base): Base = Base::Gradient;
        /// Which examples make eigenvectors. Everything else is of those that step: slopes `u_i . g`, the gradient beyond the captured
        /// space, and eigenvalues, as Rayleigh quotients `u_i . C u_i`. There is no way to ask for one of them: slopes and curvatures are
        /// unbiased only if both are of others.
        strategy(with_strategy): Strategy = Strategy::Single;
        /// The first part of the examples, of which the eigenpairs are with [`Strategy::Single`]; the gradient is of all.
        curvature_part(with_curvature_part): f64 = 1.0, in (Excluded(0.0), Included(1.0)) => "a part above 0, at most 1";
        /// Part of the batch that does nothing but judge the step: losses, and the slope in the reduction ratio. 0: the whole batch judges.
        acceptance(with_acceptance): f64 = 0.0, in 0.0..1.0 => "0 or more, below 1";
        /// How many eigenpairs are used.
        rank_rule(with_rank_rule): RankRule = RankRule::Fixed;
        /// Decay of a running average of the matrix over computations of eigenpairs, of which the low-rank part is kept; 0 is no average.
        average(with_average): f64 = 0.0, in 0.0..1.0 => "0 or more, below 1";
        /// With a number of Lanczos steps: both step lengths become `1 / (2 m)` with `m` the largest `|eigenvalue|` of the preconditioned
        /// matrix on the batch of the gradient, after each computation of eigenpairs (the rule of SketchySGD, Frangella et al. 2024).
        automatic(with_automatic): Option<usize> = None;
        /// How eigenvectors are stored.
        storage(with_storage): Storage = Storage::Full;
    } together Self::check_together
}

impl LrsfnOptions {
    /// The method as its authors' program has it: fixed step length and damping, eigenpairs anew in every step from a fixed Gaussian block
    /// without oversampling or power iterations.
    #[must_use]
    pub fn paper(rank: usize, step_length: f64, damping: f64) -> Self {
        Self {
            eigen: EigenOptions::default()
                .with_rank(rank)
                .with_oversampling(0)
                .with_power_iterations(0)
                .with_sketch(crate::linalg::Sketch::Gaussian)
                .with_same_sketch(true),
            step_length,
            step_length_beyond: step_length,
            damping,
            rule: DampingRule::Fixed,
            recall: false,
            ..Self::default()
        }
    }

    /// The damping, or the least of it, as devices compute with it.
    pub(super) fn least_damping(&self) -> f64 {
        f64::from(self.damping as f32)
    }

    fn check_together(&self) -> Result<()> {
        self.eigen.validate()?;
        if let DampingRule::Adaptive(rule) = &self.rule {
            rule.validate()?;
        }
        require(
            self.curvature != Curvature::None,
            "curvature",
            "saddle-free Newton needs a matrix: Hessian or GaussNewton",
        )?;
        self.check_base()?;
        self.check_strategy()?;
        self.check_rank_rule()?;
        let Some(steps) = self.automatic else {
            return Ok(());
        };
        require(
            self.base == Base::Gradient,
            "automatic",
            "an automatic step length is for the base Gradient; SGD and Adam have learning rates",
        )?;
        check_range("automatic", &steps, 1..=100, "1 to 100 Lanczos steps")
    }

    fn check_base(&self) -> Result<()> {
        let decay = match &self.base {
            Base::Gradient => 0.0,
            Base::Sgd(options) => {
                options.validate()?;
                options.weight_decay
            }
            Base::Adam(options) => {
                options.validate()?;
                options.weight_decay
            }
        };
        require(
            decay == 0.0,
            "weight decay of the base",
            format!("{decay} would act on the step; give the objective an l2 term instead"),
        )
    }

    fn check_rank_rule(&self) -> Result<()> {
        match self.rank_rule {
            RankRule::Fixed => Ok(()),
            RankRule::Residual(tolerance) => {
                let seed = self.eigen.seed;
                RangeOptions { tolerance, seed }.validate()?;
                let possible = self.eigen.oversampling > 0 && self.average == 0.0;
                require(
                    possible,
                    "rank rule",
                    "a residual test needs oversampling, its block size, and no running average",
                )
            }
            RankRule::Noise { least, parts } => {
                check_range("rank rule's ratio", &least, 0.0..=1e6, "0 to 1e6")?;
                check_range("rank rule's sub-batches", &parts, 2..=1000, "2 to 1000")
            }
        }
    }

    fn check_strategy(&self) -> Result<()> {
        self.strategy.validate()?;
        require(
            self.curvature_part == 1.0 || self.strategy == Strategy::Single,
            "curvature_part",
            "it is for Strategy::Single; folds and directions of another strategy say what makes eigenvectors",
        )?;
        if !matches!(self.strategy, Strategy::CrossFit { .. }) {
            return Ok(());
        }
        require(
            self.base == Base::Gradient,
            "base",
            "each turn of CrossFit has a captured space of its own, and SGD or Adam has one memory beyond it; use the base Gradient, or \
                decoupled batches",
        )?;
        require(
            self.automatic.is_none(),
            "automatic",
            "each turn of CrossFit would have a step length of its own; set step lengths, or use decoupled batches",
        )
    }
}
