//! Settings of low-rank saddle-free Newton.

use crate::error::{Error, Result};
use crate::linalg::{EigenOptions, Storage};
use crate::objective::Curvature;
use crate::optim::damping::LevenbergMarquardt;
use crate::optim::first_order::{AdamOptions, SgdOptions};

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
    /// with which [`CurvatureBatch::Decoupled`] and [`CurvatureBatch::CrossFit`] step, are in no order, and one that happens to be near
    /// zero bounds nothing; so it is not theirs. With several folds it is the largest of theirs, one damping for all.
    Adaptive(LevenbergMarquardt),
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

/// Which examples of a step's batch the eigenpairs come from.
///
/// `Decoupled` and `CrossFit` are Newton's method in eigenvectors with debiased mini-batches (Tatzel et al. 2025), a reconstruction: the
/// paper's text and program were not available. On the batch that made them eigenvectors are too steep and too curved. Slopes and
/// curvatures of other examples have no such bias, if both are of others: there is no way to ask for one of them.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
#[non_exhaustive]
pub enum CurvatureBatch {
    /// All of them.
    #[default]
    Same,
    /// This part of them, from 0 to 1; the gradient is of all.
    Part(f64),
    /// Eigenvectors come from the first part of them, from 0 to 1. Everything else is of the others: slopes `u_i . g`, the gradient beyond
    /// the captured space, and eigenvalues, as Rayleigh quotients `u_i . C u_i`.
    Decoupled(f64),
    /// They are cut into this many folds of equal size. Each makes a step as [`Decoupled`](Self::Decoupled) does, with the eigenvectors of
    /// all others, and the steps are averaged. Eigenvectors of each fold start from its own last ones.
    CrossFit(usize),
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

/// Settings of [`LowRankSaddleFreeNewton`](super::LowRankSaddleFreeNewton).
#[derive(Clone, Debug, PartialEq)]
#[non_exhaustive]
pub struct LrsfnOptions {
    /// Which matrix. Default the Hessian, whose negative eigenvalues lead away from saddles.
    pub curvature: Curvature,
    /// The eigensolver.
    pub eigen: EigenOptions,
    /// Step length in the captured space, `alpha`. Default 1.
    pub step_length: f64,
    /// Step length in its complement, where the step is `-step_length_beyond / damping` times the gradient. Default 1.
    pub step_length_beyond: f64,
    /// The damping `gamma`, or the least of it. Default 1e-3.
    pub damping: f64,
    /// How the damping is set. Default adaptive.
    pub rule: DampingRule,
    /// Steps from one computation of eigenpairs to the next. Default 1.
    pub refresh: usize,
    /// Whether a computation starts from the last eigenvectors. Default true.
    pub recall: bool,
    /// What moves the parameters in the complement. Default the gradient.
    pub base: Base,
    /// Which examples the eigenpairs come from. Default all.
    pub curvature_batch: CurvatureBatch,
    /// Part of the batch that does nothing but judge the step: losses, and the slope in the reduction ratio. 0: the whole batch judges.
    /// Default 0.
    pub acceptance: f64,
    /// How many eigenpairs are used. Default all.
    pub rank_rule: RankRule,
    /// Decay of a running average of the matrix over computations of eigenpairs, of which the low-rank part is kept; 0 is no average.
    /// Default 0.
    pub average: f64,
    /// With a number of Lanczos steps: both step lengths become `1 / (2 m)` with `m` the largest `|eigenvalue|` of the preconditioned
    /// matrix on the batch of the gradient, after each computation of eigenpairs (the rule of SketchySGD, Frangella et al. 2024). Default
    /// none.
    pub automatic: Option<usize>,
    /// How eigenvectors are stored. Default full precision.
    pub storage: Storage,
}

impl Default for LrsfnOptions {
    fn default() -> Self {
        Self {
            curvature: Curvature::Hessian,
            eigen: EigenOptions::default(),
            step_length: 1.0,
            step_length_beyond: 1.0,
            damping: 1e-3,
            rule: DampingRule::Adaptive(LevenbergMarquardt::default().with_initial(1e-3)),
            refresh: 1,
            recall: true,
            base: Base::Gradient,
            curvature_batch: CurvatureBatch::Same,
            acceptance: 0.0,
            rank_rule: RankRule::Fixed,
            average: 0.0,
            automatic: None,
            storage: Storage::Full,
        }
    }
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

    /// Sets the eigensolver.
    #[must_use]
    pub fn with_eigen(mut self, eigen: EigenOptions) -> Self {
        self.eigen = eigen;
        self
    }

    /// Sets the matrix.
    #[must_use]
    pub fn with_curvature(mut self, curvature: Curvature) -> Self {
        self.curvature = curvature;
        self
    }

    /// Sets the step lengths in the captured space and in its complement.
    #[must_use]
    pub fn with_step_lengths(mut self, captured: f64, beyond: f64) -> Self {
        self.step_length = captured;
        self.step_length_beyond = beyond;
        self
    }

    /// Sets the damping, or the least of it.
    #[must_use]
    pub fn with_damping(mut self, damping: f64) -> Self {
        self.damping = damping;
        self
    }

    /// Sets how the damping is set.
    #[must_use]
    pub fn with_rule(mut self, rule: DampingRule) -> Self {
        self.rule = rule;
        self
    }

    /// Sets the steps from one computation of eigenpairs to the next.
    #[must_use]
    pub fn with_refresh(mut self, steps: usize) -> Self {
        self.refresh = steps;
        self
    }

    /// Sets whether a computation starts from the last eigenvectors.
    #[must_use]
    pub fn with_recall(mut self, recall: bool) -> Self {
        self.recall = recall;
        self
    }

    /// Sets what moves the parameters in the complement.
    #[must_use]
    pub fn with_base(mut self, base: Base) -> Self {
        self.base = base;
        self
    }

    /// Sets which examples the eigenpairs come from.
    #[must_use]
    pub fn with_curvature_batch(mut self, batch: CurvatureBatch) -> Self {
        self.curvature_batch = batch;
        self
    }

    /// Sets the part of the batch that only judges.
    #[must_use]
    pub fn with_acceptance(mut self, part: f64) -> Self {
        self.acceptance = part;
        self
    }

    /// Sets how many eigenpairs are used.
    #[must_use]
    pub fn with_rank_rule(mut self, rule: RankRule) -> Self {
        self.rank_rule = rule;
        self
    }

    /// Sets the decay of the running average of the matrix.
    #[must_use]
    pub fn with_average(mut self, decay: f64) -> Self {
        self.average = decay;
        self
    }

    /// Sets the number of Lanczos steps that the automatic step length takes.
    #[must_use]
    pub fn with_automatic(mut self, steps: usize) -> Self {
        self.automatic = Some(steps);
        self
    }

    /// Sets how eigenvectors are stored.
    #[must_use]
    pub fn with_storage(mut self, storage: Storage) -> Self {
        self.storage = storage;
        self
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
        self.eigen.validate()?;
        if let DampingRule::Adaptive(rule) = &self.rule {
            rule.validate()?;
        }
        if self.curvature == Curvature::None {
            return bad(
                "curvature",
                "saddle-free Newton needs a matrix: Hessian or GaussNewton".into(),
            );
        }
        for (name, value) in [
            ("step length", self.step_length),
            (
                "step length beyond the captured space",
                self.step_length_beyond,
            ),
        ] {
            if !(0.0..=1e6).contains(&value) {
                return bad(name, format!("{value} is not in 0..=1e6"));
            }
        }
        if !(1e-20..=1e20).contains(&self.damping) {
            return bad(
                "damping",
                format!("{} is not in 1e-20..=1e20", self.damping),
            );
        }
        if self.refresh == 0 {
            return bad("refresh", "0 is no number of steps; give at least 1".into());
        }
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
        if decay != 0.0 {
            return bad(
                "weight decay of the base",
                format!("{decay} would act on the step; give the objective an l2 term instead"),
            );
        }
        self.validate_roles()?;
        match self.rank_rule {
            RankRule::Fixed => {}
            RankRule::Residual(tolerance) => {
                if !(tolerance > 0.0 && tolerance < 1.0) {
                    return bad("residual tolerance", format!("{tolerance} is not in 0..1"));
                }
                if self.eigen.oversampling == 0 || self.average > 0.0 {
                    return bad(
                        "rank rule",
                        "a residual test needs oversampling, its block size, and no running average".into(),
                    );
                }
            }
            RankRule::Noise { least, parts } => {
                if !(0.0..=1e6).contains(&least) || !(2..=1000).contains(&parts) {
                    return bad(
                        "rank rule",
                        format!(
                            "{least} and {parts}: the ratio must be in 0..=1e6, the sub-batches 2 to 1000"
                        ),
                    );
                }
            }
        }
        if !(0.0..1.0).contains(&self.average) {
            return bad("average", format!("{} is not in 0..1", self.average));
        }
        if let Some(steps) = self.automatic
            && (self.base != Base::Gradient || !(1..=100).contains(&steps))
        {
            return bad(
                "automatic step length",
                "it is for the base Gradient, and takes 1 to 100 Lanczos steps".into(),
            );
        }
        Ok(())
    }

    /// Who makes what.
    fn validate_roles(&self) -> Result<()> {
        let bad = |option: &str, message: String| {
            Err(Error::Option {
                option: option.into(),
                message,
            })
        };
        match self.curvature_batch {
            CurvatureBatch::Part(part) | CurvatureBatch::Decoupled(part)
                if !(part > 0.0 && part < 1.0) =>
            {
                bad("curvature batch", format!("{part} is not a part in 0..1"))
            }
            CurvatureBatch::CrossFit(folds) if !(2..=100).contains(&folds) => bad(
                "curvature batch",
                format!("{folds} folds are not in 2..=100"),
            ),
            CurvatureBatch::CrossFit(_) if self.base != Base::Gradient => bad(
                "base",
                "each fold of CrossFit has a captured space of its own, and SGD or Adam has one memory beyond it; use the base Gradient, \
                    or decoupled batches"
                    .into(),
            ),
            CurvatureBatch::CrossFit(_) if self.automatic.is_some() => bad(
                "automatic step length",
                "each fold of CrossFit would have its own; set step lengths, or use decoupled batches"
                    .into(),
            ),
            _ if !(0.0..1.0).contains(&self.acceptance) => {
                bad("acceptance", format!("{} is not in 0..1", self.acceptance))
            }
            _ => Ok(()),
        }
    }
}
