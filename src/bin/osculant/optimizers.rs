//! Optimizers with their options as text.

use std::fmt;
use std::str::FromStr;

use osculant::linalg::Storage;
use osculant::objective::{Curvature, GraphObjective};
use osculant::optim::{
    Adam, AdamOptions, AdaptiveDamping, Base, DampingRule, DebiasedSgd, DebiasedSgdOptions,
    DecoupledNewtonCg, DecoupledOptions, Kfac, KroneckerNewtonCg, Lbfgs, LbfgsOptions,
    LevenbergMarquardt, LowRankSaddleFreeNewton, LrsfnOptions, Matrices, Muon, MuonOptions,
    NewtonCg, NewtonCgOptions, NystromNewtonCg, Optimizer, Preconditioner, RankRule, Sgd,
    SgdOptions, Shampoo, ShampooOptions, Soap, SoapOptions, Spring, Strategy,
};
use serde_json::{Map, Value};

use crate::failure::{Failure, Outcome};
use crate::methods::Method;
use crate::paper::Paper;
use crate::problems::Problem;

/// Sub-batches of the noise test.
const NOISE_PARTS: usize = 8;

/// Who chose the options of an optimizer, which decides how they are changed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Origin {
    /// `osculant train`, by `--set KEY=VALUE`.
    Train,
    /// `osculant compare`, by `--set OPTIMIZER.KEY=VALUE`.
    Compare,
    /// A checkpoint, whose options stay as they are.
    Checkpoint,
    /// A command that has no such options.
    Fixed,
}

/// An optimizer with a value for each of its options.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Setup {
    /// Which optimizer.
    pub(crate) method: Method,
    /// Names and values, in the order of the help text.
    options: Vec<(&'static str, String)>,
    /// Who chose the values.
    pub(crate) origin: Origin,
}

impl Setup {
    /// The optimizer with the defaults for a problem.
    pub(crate) fn new(method: Method, problem: &Problem) -> Self {
        let options = method.defaults(problem);
        let options = options
            .into_iter()
            .map(|(key, value)| (key, value.to_owned()));
        let mut setup = Self {
            method,
            options: options.collect(),
            origin: Origin::Fixed,
        };
        setup.fit_batch(problem);
        setup
    }

    /// Says who chooses the values of the options.
    #[must_use]
    pub(crate) fn with_origin(mut self, origin: Origin) -> Self {
        self.origin = origin;
        self
    }

    /// Takes all rows where there are fewer than the default batch has, of an experiment of whatever size, and all points of a differential equation.
    fn fit_batch(&mut self, problem: &Problem) {
        if problem.field().is_some()
            && let Some((_, value)) = self.options.iter_mut().find(|(key, _)| *key == "batch")
        {
            "all".clone_into(value);
        }
        if let (Problem::Own(experiment), Ok(batch)) = (problem, self.get::<usize>("batch"))
            && batch > experiment.rows()
            && let Some((_, value)) = self.options.iter_mut().find(|(key, _)| *key == "batch")
        {
            "all".clone_into(value);
        }
    }

    /// The names of the options.
    pub(crate) fn keys(&self) -> Vec<&'static str> {
        self.options.iter().map(|(key, _)| *key).collect()
    }

    /// Whether there is such an option.
    pub(crate) fn has(&self, key: &str) -> bool {
        self.options.iter().any(|(name, _)| *name == key)
    }

    /// Sets an option by name.
    pub(crate) fn set(&mut self, key: &str, value: &str) -> Outcome {
        match self.options.iter_mut().find(|(name, _)| *name == key) {
            Some((_, old)) => {
                value.trim().clone_into(old);
                Ok(())
            }
            None => {
                let valid = self.keys();
                Err(
                    Failure::new(format!("{} has no option '{key}'", self.method.name()))
                        .hint(format!("its options are {}", valid.join(", "))),
                )
            }
        }
    }

    /// Sets options from texts `key=value`.
    pub(crate) fn set_all<'a>(&mut self, settings: impl IntoIterator<Item = &'a str>) -> Outcome {
        for setting in settings {
            let (key, value) = setting
                .split_once('=')
                .ok_or_else(|| self.no_setting(setting))?;
            self.set(key, value)?;
        }
        Ok(())
    }

    /// The value of an option, as text.
    pub(crate) fn text(&self, key: &str) -> Outcome<&str> {
        let found = self.options.iter().find(|(name, _)| *name == key);
        found
            .map(|(_, value)| value.as_str())
            .ok_or_else(|| Failure::new(format!("{} has no option '{key}'", self.method.name())))
    }

    pub(crate) fn get<T: FromStr>(&self, key: &str) -> Outcome<T> {
        let text = self.text(key)?;
        text.parse().map_err(|_| {
            let kind = std::any::type_name::<T>();
            let expected = match kind {
                "bool" => "true or false",
                "usize" => "a whole number",
                _ => "a number",
            };
            self.bad(key, expected)
        })
    }

    /// The optimizer itself, at its first step.
    pub(crate) fn build(&self) -> Outcome<Box<dyn Optimizer<GraphObjective>>> {
        let mut optimizer = self.build_method()?;
        self.set_course(&mut *optimizer)?;
        Ok(optimizer)
    }

    fn build_method(&self) -> Outcome<Box<dyn Optimizer<GraphObjective>>> {
        match self.method {
            Method::Sgd => {
                let mut options = SgdOptions::default();
                options.learning_rate = self.get("learning-rate")?;
                options.momentum = self.get("momentum")?;
                options.nesterov = self.get("nesterov")?;
                options.weight_decay = self.get("weight-decay")?;
                Ok(Box::new(Sgd::new(options)?))
            }
            Method::DebiasedSgd => {
                let options = DebiasedSgdOptions::default()
                    .with_strategy(self.strategy()?)
                    .with_damping(self.get("damping")?)
                    .with_max_step_length(self.get("max-step-length")?)
                    .with_factor(self.get("factor")?)
                    .with_backwards(self.get("backwards")?);
                Ok(Box::new(DebiasedSgd::new(options)?))
            }
            Method::Adam | Method::Adamw => Ok(Box::new(Adam::new(self.adam()?)?)),
            Method::Muon => {
                let mut options = MuonOptions::default()
                    .with_learning_rate(self.get("learning-rate")?)
                    .with_momentum(self.get("momentum")?)
                    .with_nesterov(self.get("nesterov")?)
                    .with_weight_decay(self.get("weight-decay")?)
                    .with_matrices(match self.text("matrices")? {
                        "all" => Matrices::All,
                        "hidden" => Matrices::Hidden,
                        _ => return Err(self.bad("matrices", "all or hidden")),
                    });
                options.adam.learning_rate = self.get("adam-learning-rate")?;
                Ok(Box::new(Muon::new(options)?))
            }
            Method::Soap => {
                let options = SoapOptions::default()
                    .with_adam(self.adam()?)
                    .with_interval(self.get("interval")?)
                    .with_largest(self.get("largest")?);
                Ok(Box::new(Soap::new(options)?))
            }
            Method::Shampoo => {
                let options = ShampooOptions::default()
                    .with_adam(self.adam()?)
                    .with_ridge(self.get("ridge")?)
                    .with_interval(self.get("interval")?)
                    .with_largest(self.get("largest")?);
                Ok(Box::new(Shampoo::new(options)?))
            }
            Method::Lbfgs => {
                let options = LbfgsOptions::default()
                    .with_history(self.get("history")?)
                    .with_first(self.get("first-step")?)
                    .with_armijo(self.get("armijo")?)
                    .with_wolfe(self.get("wolfe")?)
                    .with_max_trials(self.get("max-trials")?);
                Ok(Box::new(Lbfgs::new(options)?))
            }
            Method::Kfac => Ok(Box::new(Kfac::new(self.kfac()?)?)),
            Method::Spring => Ok(Box::new(Spring::new(self.spring()?)?)),
            Method::LevenbergMarquardt => {
                let options = self.levenberg_marquardt()?;
                Ok(Box::new(LevenbergMarquardt::new(options)?))
            }
            Method::NewtonCg => {
                let mut options = self.newton_cg()?;
                options.curvature = self.curvature()?;
                options.radius = self.get("radius")?;
                options.preconditioner = match self.text("preconditioner")? {
                    "none" => Preconditioner::None,
                    "fisher" => Preconditioner::EmpiricalFisher {
                        exponent: self.get("preconditioner-exponent")?,
                    },
                    _ => return Err(self.bad("preconditioner", "none or fisher")),
                };
                Ok(Box::new(NewtonCg::new(options)?))
            }
            Method::DecoupledNewtonCg => Ok(Box::new(DecoupledNewtonCg::new(self.decoupled()?)?)),
            Method::NystromNewtonCg => {
                let nystrom = Preconditioner::Nystrom {
                    rank: self.get("rank")?,
                    refresh: self.get("refresh")?,
                    seed: 0,
                };
                let options = self.newton_cg()?.with_preconditioner(nystrom);
                Ok(Box::new(NystromNewtonCg::new(options)?))
            }
            Method::KroneckerNewtonCg => {
                let options = self.newton_cg()?.with_preconditioner(self.kronecker()?);
                Ok(Box::new(KroneckerNewtonCg::new(options)?))
            }
            Method::Lrsfn => Ok(Box::new(LowRankSaddleFreeNewton::new(self.lrsfn()?)?)),
            Method::LrsfnPaper => {
                let part = self.get("curvature-batch")?;
                let options = LrsfnOptions::paper(
                    self.get("rank")?,
                    self.get("step-length")?,
                    self.get("damping")?,
                );
                Ok(Box::new(Paper::new(options, part)?))
            }
        }
    }

    /// The settings of Adam, for all methods that have them.
    fn adam(&self) -> Outcome<AdamOptions> {
        let options = AdamOptions::default()
            .with_learning_rate(self.get("learning-rate")?)
            .with_beta1(self.get("beta1")?)
            .with_beta2(self.get("beta2")?)
            .with_epsilon(self.get("epsilon")?);
        match self.has("weight-decay") {
            true => Ok(options.with_weight_decay(self.get("weight-decay")?)),
            false => Ok(options),
        }
    }

    /// The settings of decoupled Newton-CG.
    pub(crate) fn decoupled(&self) -> Outcome<DecoupledOptions> {
        Ok(DecoupledOptions::default()
            .with_newton(self.newton_cg()?)
            .with_strategy(self.strategy()?)
            .with_shrinks(self.get("shrinking")?)
            .with_acceptance(self.get("acceptance")?))
    }

    /// Which examples make directions, and which steps.
    fn strategy(&self) -> Outcome<Strategy> {
        let folds: usize = self.get("folds")?;
        let directions = match self.text("directions")? {
            "others" => folds.saturating_sub(1),
            number => number
                .parse()
                .map_err(|_| self.bad("directions", "a whole number or 'others'"))?,
        };
        match self.text("strategy")? {
            "single" => Ok(Strategy::Single),
            "decoupled" => Ok(Strategy::Decoupled { folds, directions }),
            "cross-fit" => Ok(Strategy::CrossFit { folds, directions }),
            _ => Err(self.bad("strategy", "single, decoupled or cross-fit")),
        }
    }

    fn curvature(&self) -> Outcome<Curvature> {
        match self.text("curvature")? {
            "ggn" => Ok(Curvature::GaussNewton),
            "hessian" => Ok(Curvature::Hessian),
            _ => Err(self.bad("curvature", "ggn or hessian")),
        }
    }

    /// The settings of low-rank saddle-free Newton.
    pub(crate) fn lrsfn(&self) -> Outcome<LrsfnOptions> {
        let options = LrsfnOptions::default();
        let eigen = options
            .eigen
            .clone()
            .with_rank(self.get("rank")?)
            .with_oversampling(self.get("oversampling")?)
            .with_power_iterations(self.get("power-iterations")?);
        let rule = AdaptiveDamping::default()
            .with_initial(self.get("damping")?)
            .with_decrease(self.get("damping-decrease")?);
        let base = match self.text("base")? {
            "gradient" => Base::Gradient,
            "sgd" => Base::Sgd(
                SgdOptions::default()
                    .with_learning_rate(self.get("learning-rate")?)
                    .with_momentum(self.get("momentum")?),
            ),
            "adam" => {
                Base::Adam(AdamOptions::default().with_learning_rate(self.get("learning-rate")?))
            }
            _ => return Err(self.bad("base", "gradient, sgd or adam")),
        };
        let threshold = self.get("rank-threshold")?;
        let rank_rule = match self.text("rank-rule")? {
            "fixed" => RankRule::Fixed,
            "residual" => RankRule::Residual(threshold),
            "noise" => RankRule::Noise {
                least: threshold,
                parts: NOISE_PARTS,
            },
            _ => return Err(self.bad("rank-rule", "fixed, residual or noise")),
        };
        let storage = match self.text("storage")? {
            "full" => Storage::Full,
            "half" => Storage::Half,
            _ => return Err(self.bad("storage", "full or half")),
        };
        let options = match self.get("automatic")? {
            0 => options,
            steps => options.with_automatic(Some(steps)),
        };
        Ok(options
            .with_eigen(eigen)
            .with_base(base)
            .with_strategy(self.strategy()?)
            .with_curvature_part(self.get("curvature-part")?)
            .with_acceptance(self.get("acceptance")?)
            .with_rank_rule(rank_rule)
            .with_average(self.get("average")?)
            .with_storage(storage)
            .with_curvature(self.curvature()?)
            .with_step_length(self.get("step-length")?)
            .with_step_length_beyond(self.get("step-length-beyond")?)
            .with_damping(self.get("damping")?)
            .with_rule(DampingRule::Adaptive(rule))
            .with_refresh(self.get("refresh")?))
    }

    fn newton_cg(&self) -> Outcome<NewtonCgOptions> {
        let mut options = NewtonCgOptions::default();
        options.cg.max_iterations = self.get("max-iterations")?;
        options.cg.progress_tolerance = self.get("progress-tolerance")?;
        options.cg.residual_tolerance = self.get("residual-tolerance")?;
        options.damping.initial = self.get("damping")?;
        options.damping.decrease = self.get("damping-decrease")?;
        options.warm_start = self.get("warm-start")?;
        if self.method != Method::DecoupledNewtonCg {
            options.backtracking = self.get("backtracking")?;
        }
        options.armijo = self.get("armijo")?;
        options.shrink = self.get("shrink")?;
        Ok(options)
    }

    /// All options as JSON: numbers and truth values as such.
    pub(crate) fn json(&self) -> Map<String, Value> {
        let value = |text: &String| match serde_json::from_str(text) {
            Ok(value @ (Value::Number(_) | Value::Bool(_))) => value,
            _ => Value::String(text.clone()),
        };
        self.options
            .iter()
            .map(|(key, text)| ((*key).to_owned(), value(text)))
            .collect()
    }

    /// All options as lines `key=value`, for [`set_all`](Self::set_all).
    pub(crate) fn lines(&self) -> String {
        let lines: Vec<String> = self
            .options
            .iter()
            .map(|(key, value)| format!("{key}={value}"))
            .collect();
        lines.join("\n")
    }
}

impl fmt::Display for Setup {
    /// The options that matter most, one a line, for tables.
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let default = Setup::new(self.method, &Problem::DigitsMlp);
        let main: &[&str] = match self.method {
            Method::DebiasedSgd => &["batch", "factor"],
            Method::Kfac | Method::Spring => &["batch"],
            Method::LevenbergMarquardt => &["batch", "rows", "damping"],
            Method::Lbfgs => &["batch", "history"],
            Method::NewtonCg => &["batch", "max-iterations", "damping"],
            Method::NystromNewtonCg => &["batch", "max-iterations", "damping", "rank"],
            Method::KroneckerNewtonCg => &["batch", "max-iterations", "damping", "refresh"],
            Method::DecoupledNewtonCg => &["batch", "max-iterations", "damping", "strategy"],
            Method::Lrsfn => &["batch", "learning-rate", "rank", "refresh"],
            Method::LrsfnPaper => &["batch", "rank", "step-length", "damping"],
            _ => &["batch", "learning-rate"],
        };
        let shown = self
            .options
            .iter()
            .filter(|option| main.contains(&option.0) || !default.options.contains(option));
        let shown: Vec<String> = shown.map(|(key, value)| format!("{key}={value}")).collect();
        formatter.write_str(&shown.join("\n"))
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[test]
    fn methods_with_roles_have_one_vocabulary() {
        for method in [
            Method::DebiasedSgd,
            Method::DecoupledNewtonCg,
            Method::Lrsfn,
        ] {
            let mut setup = Setup::new(method, &Problem::DigitsMlp).with_origin(Origin::Train);
            let mut strategy = |settings: &[&str]| {
                setup.set_all(settings.iter().copied()).unwrap();
                setup.build().map(drop)?;
                setup.strategy()
            };
            let found = strategy(&["strategy=decoupled"]).unwrap();
            assert_eq!(found, Strategy::decoupled());
            let (folds, directions) = (4, 1);
            let found = strategy(&["folds=4", "directions=1"]).unwrap();
            assert_eq!(found, Strategy::Decoupled { folds, directions });
            let part = strategy(&["directions=0.5"]).unwrap_err().to_string();
            assert!(part.contains("a whole number or 'others'"), "{part}");
            assert!(part.contains("--set directions=others"), "{part}");
            assert!(strategy(&["directions=4"]).is_err());
        }
    }
}
