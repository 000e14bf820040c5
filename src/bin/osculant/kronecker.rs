//! Options of methods with Kronecker factors, as text.

use osculant::objective::{Estimate, KroneckerRequest, Sizes};
use osculant::optim::{Approximation, KfacOptions, Preconditioner};

use crate::failure::Outcome;
use crate::optimizers::Setup;

impl Setup {
    /// The settings of K-FAC.
    pub(crate) fn kfac(&self) -> Outcome<KfacOptions> {
        let approximation = match self.text("approximation")? {
            "kfac" => Approximation::Kfac,
            "foof" => Approximation::Foof,
            "ekfac" => Approximation::Ekfac,
            _ => return Err(self.bad("approximation", "kfac, foof or ekfac")),
        };
        Ok(KfacOptions::default()
            .with_step_length(self.get("step-length")?)
            .with_stretch(self.get("stretch")?)
            .with_damping(self.get("damping")?)
            .with_momentum(self.get("momentum")?)
            .with_memory(self.get("memory")?)
            .with_interval(self.get("interval")?)
            .with_largest(self.get("largest")?)
            .with_rank(self.get("rank")?)
            .with_approximation(approximation)
            .with_estimate(self.estimate()?))
    }

    /// The preconditioner of Kronecker factors.
    pub(crate) fn kronecker(&self) -> Outcome<Preconditioner> {
        let sizes = Sizes::up_to(self.get("largest")?, self.get("rank")?);
        let estimate = self.estimate()?;
        Ok(Preconditioner::Kronecker {
            request: KroneckerRequest { sizes, estimate },
            refresh: self.get("refresh")?,
            seed: 0,
        })
    }

    fn estimate(&self) -> Outcome<Estimate> {
        match self.text("estimate")? {
            "mixture" => Ok(Estimate::Mixture),
            "exact" => Ok(Estimate::Exact),
            "empirical" => Ok(Estimate::Empirical),
            _ => Err(self.bad("estimate", "mixture, exact or empirical")),
        }
    }
}
