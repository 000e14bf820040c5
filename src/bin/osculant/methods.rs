//! The optimizers by name, and the defaults of their options.

use clap::ValueEnum;

use crate::failure::{Failure, Outcome};
use crate::problems::Problem;

/// An optimizer that the command line knows.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum Method {
    /// stochastic gradient descent with momentum
    Sgd,
    /// gradient descent with step lengths that other examples measure
    DebiasedSgd,
    /// Adam (Kingma and Ba 2015)
    Adam,
    /// Adam with decoupled weight decay (Loshchilov and Hutter 2019)
    Adamw,
    /// momentum with all singular values near 1 (Jordan 2024)
    Muon,
    /// Adam in the eigenbasis of Shampoo's factors (Vyas et al. 2024)
    Soap,
    /// roots of two factors for each matrix (Gupta et al. 2018), with Adam's step lengths
    Shampoo,
    /// quasi-Newton steps from the last pairs of steps and gradients (Nocedal 1980), with a line search, on the whole data set
    Lbfgs,
    /// natural gradient with a Kronecker product for each layer and steps that measure themselves (after Martens and Grosse 2015)
    Kfac,
    /// Gauss-Newton on root losses, solved in the space of samples, with projected momentum (after Goldshlager et al. 2024)
    Spring,
    /// damped Gauss-Newton steps that are refused where the loss rises (Levenberg 1944, Marquardt 1963), on all rows at once
    LevenbergMarquardt,
    /// Newton's method by conjugate gradients, also called Hessian-free (Martens 2010)
    NewtonCg,
    /// Newton's method by conjugate gradients with a Nystrom preconditioner (Rathore et al. 2024)
    NystromNewtonCg,
    /// Newton's method by conjugate gradients with the Kronecker factors of K-FAC as preconditioner
    KroneckerNewtonCg,
    /// Newton's method by conjugate gradients, with directions and steps of different examples
    DecoupledNewtonCg,
    /// low-rank saddle-free Newton with stable damping, refusing steps that raise the loss
    Lrsfn,
    /// low-rank saddle-free Newton as its authors' program has it (O'Leary-Roseberry et al. 2020)
    LrsfnPaper,
}

impl Method {
    /// The name on the command line.
    pub(crate) fn name(self) -> &'static str {
        match self {
            Method::Sgd => "sgd",
            Method::DebiasedSgd => "debiased-sgd",
            Method::Adam => "adam",
            Method::Adamw => "adamw",
            Method::Muon => "muon",
            Method::Soap => "soap",
            Method::Shampoo => "shampoo",
            Method::Lbfgs => "lbfgs",
            Method::Kfac => "kfac",
            Method::Spring => "spring",
            Method::LevenbergMarquardt => "levenberg-marquardt",
            Method::NewtonCg => "newton-cg",
            Method::NystromNewtonCg => "nystrom-newton-cg",
            Method::KroneckerNewtonCg => "kronecker-newton-cg",
            Method::DecoupledNewtonCg => "decoupled-newton-cg",
            Method::Lrsfn => "lrsfn",
            Method::LrsfnPaper => "lrsfn-paper",
        }
    }

    /// The options with the values that they have when nothing is said.
    pub(crate) fn defaults(self, problem: &Problem) -> Vec<(&'static str, &'static str)> {
        let mut all = self.own_defaults(problem);
        if matches!(self, Method::DecoupledNewtonCg | Method::Lrsfn) {
            all.push(("dealing", "disjoint"));
        }
        all.extend([
            ("growth", "none"),
            (
                "decay",
                if self == Method::Kfac {
                    "linear"
                } else {
                    "constant"
                },
            ),
            ("averaging", "0"),
        ]);
        all
    }

    /// Those that not all optimizers have, and the batch.
    fn own_defaults(self, problem: &Problem) -> Vec<(&'static str, &'static str)> {
        let small = problem.is_small();
        let batch = ("batch", if small { "32" } else { "128" });
        let adam_rate = ("learning-rate", if small { "0.01" } else { "0.001" });
        // The squared error is a mean over pixels: its gradient and curvature are that much smaller.
        let mean_of_pixels = problem.is_autoencoder();
        match self {
            Method::Sgd => vec![
                batch,
                ("learning-rate", if mean_of_pixels { "1" } else { "0.1" }),
                ("momentum", "0.9"),
                ("nesterov", "false"),
                ("weight-decay", "0"),
            ],
            Method::DebiasedSgd => vec![
                batch,
                ("strategy", "decoupled"),
                ("folds", "2"),
                ("directions", "others"),
                ("damping", "0"),
                (
                    "max-step-length",
                    if mean_of_pixels { "1000" } else { "10" },
                ),
                ("factor", "1"),
                ("backwards", "false"),
            ],
            Method::Adam => vec![
                batch,
                adam_rate,
                ("beta1", "0.9"),
                ("beta2", "0.999"),
                ("epsilon", "1e-8"),
            ],
            Method::Adamw => vec![
                batch,
                adam_rate,
                ("beta1", "0.9"),
                ("beta2", "0.999"),
                ("epsilon", "1e-8"),
                ("weight-decay", "0.01"),
            ],
            Method::Muon => vec![
                batch,
                ("learning-rate", if small { "0.05" } else { "0.02" }),
                ("momentum", "0.95"),
                ("nesterov", "true"),
                ("weight-decay", "0"),
                ("matrices", "all"),
                ("adam-learning-rate", if small { "0.01" } else { "0.003" }),
            ],
            Method::Soap => vec![
                batch,
                ("learning-rate", if small { "0.03" } else { "0.003" }),
                ("beta1", "0.95"),
                ("beta2", "0.95"),
                ("epsilon", "1e-8"),
                ("weight-decay", "0"),
                ("interval", "10"),
                ("largest", "1024"),
            ],
            Method::Shampoo => vec![
                batch,
                adam_rate,
                ("beta1", "0.9"),
                ("beta2", "0.99"),
                ("epsilon", "1e-8"),
                ("ridge", "1e-6"),
                ("weight-decay", "0"),
                ("interval", "10"),
                ("largest", "1024"),
            ],
            Method::Lbfgs => vec![
                ("batch", "all"),
                ("history", "10"),
                ("first-step", "0.1"),
                ("armijo", "1e-4"),
                ("wolfe", "0.9"),
                ("max-trials", "20"),
            ],
            Method::Kfac => vec![
                ("batch", if small { "32" } else { "512" }),
                ("step-length", "0.45"),
                ("stretch", "4.5"),
                ("damping", "2"),
                ("momentum", "0.7"),
                ("memory", "0.99"),
                ("interval", "20"),
                ("largest", "0.55"),
                ("rank", "0.0625"),
                ("approximation", "kfac"),
                ("estimate", "mixture"),
            ],
            Method::Spring => vec![
                ("batch", if small { "32" } else { "128" }),
                ("rows", "root-losses"),
                ("step-length", "0.15"),
                ("damping", "0.3"),
                ("momentum", "0.95"),
                ("longest-step", "1e6"),
            ],
            Method::LevenbergMarquardt => vec![
                ("batch", if small { "all" } else { "512" }),
                ("rows", "root-losses"),
                ("damping", "0.01"),
                ("damping-decrease", "0.3333333333333333"),
                ("scaling", "mean"),
                ("max-attempts", "10"),
                ("acceleration", "0.75"),
            ],
            Method::NewtonCg => vec![
                ("batch", if small { "384" } else { "1024" }),
                ("max-iterations", if mean_of_pixels { "5" } else { "2" }),
                ("damping", if mean_of_pixels { "0.003" } else { "0.3" }),
                ("damping-decrease", "0.6666666666666666"),
                ("curvature", "ggn"),
                ("preconditioner", "none"),
                ("preconditioner-exponent", "0.75"),
                ("warm-start", "0.95"),
                ("backtracking", "true"),
                ("progress-tolerance", "5e-4"),
                ("residual-tolerance", "1e-5"),
                ("armijo", "0.01"),
                ("shrink", "0.8"),
                ("radius", "1"),
            ],
            Method::NystromNewtonCg => vec![
                ("batch", if small { "384" } else { "1024" }),
                ("max-iterations", if mean_of_pixels { "5" } else { "2" }),
                ("damping", if mean_of_pixels { "0.003" } else { "0.3" }),
                ("damping-decrease", "0.6666666666666666"),
                ("rank", "10"),
                ("refresh", "20"),
                ("warm-start", "0.95"),
                ("backtracking", "true"),
                ("progress-tolerance", "5e-4"),
                ("residual-tolerance", "1e-5"),
                ("armijo", "0.01"),
                ("shrink", "0.8"),
            ],
            Method::KroneckerNewtonCg => vec![
                ("batch", if small { "384" } else { "1024" }),
                ("max-iterations", if mean_of_pixels { "2" } else { "1" }),
                ("damping", if mean_of_pixels { "0.001" } else { "0.05" }),
                ("damping-decrease", "0.75"),
                ("refresh", "5"),
                ("largest", "512"),
                ("rank", "64"),
                ("estimate", "mixture"),
                ("warm-start", "0.8"),
                ("backtracking", "true"),
                ("progress-tolerance", "5e-4"),
                ("residual-tolerance", "1e-5"),
                ("armijo", "0.01"),
                ("shrink", "0.8"),
            ],
            Method::DecoupledNewtonCg => vec![
                ("batch", if small { "128" } else { "256" }),
                ("max-iterations", if mean_of_pixels { "5" } else { "2" }),
                ("damping", if mean_of_pixels { "0.003" } else { "0.3" }),
                ("damping-decrease", "0.6666666666666666"),
                ("strategy", "decoupled"),
                ("folds", "2"),
                ("directions", "others"),
                ("shrinking", "false"),
                ("acceptance", "0"),
                ("warm-start", "0.95"),
                ("progress-tolerance", "5e-4"),
                ("residual-tolerance", "1e-5"),
                ("armijo", "0.01"),
                ("shrink", "0.8"),
            ],
            Method::Lrsfn => vec![
                batch,
                ("rank", "10"),
                ("oversampling", "5"),
                ("power-iterations", "0"),
                ("refresh", "200"),
                ("base", "adam"),
                ("learning-rate", if small { "0.03" } else { "0.003" }),
                ("momentum", "0.9"),
                ("step-length", "0.3"),
                ("step-length-beyond", "1"),
                ("automatic", "0"),
                ("damping", if mean_of_pixels { "1e-3" } else { "0.01" }),
                ("damping-decrease", "0.6666666666666666"),
                ("curvature", "hessian"),
                ("strategy", "single"),
                ("folds", "2"),
                ("directions", "others"),
                ("curvature-part", "1"),
                ("acceptance", "0"),
                ("rank-rule", "fixed"),
                ("rank-threshold", "2"),
                ("average", "0.7"),
                ("storage", "full"),
            ],
            Method::LrsfnPaper => vec![
                ("batch", if small { "40" } else { "160" }),
                ("curvature-batch", "0.2"),
                ("rank", "20"),
                ("step-length", "0.05"),
                ("damping", if mean_of_pixels { "1e-3" } else { "0.1" }),
            ],
        }
    }
}

/// The optimizer of this name.
pub(crate) fn method(name: &str) -> Outcome<Method> {
    <Method as ValueEnum>::from_str(name, false).map_err(|_| {
        let names: Vec<&str> = Method::value_variants().iter().map(|m| m.name()).collect();
        Failure::new(format!("there is no optimizer '{name}'"))
            .hint(format!("there are {}", names.join(", ")))
    })
}
