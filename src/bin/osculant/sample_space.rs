//! Options of methods in the space of samples, as text.

use osculant::objective::RowKind;
use osculant::optim::{LevenbergMarquardtOptions, Scaling, SpringOptions};

use crate::failure::Outcome;
use crate::optimizers::Setup;

impl Setup {
    /// The settings of SPRING.
    pub(crate) fn spring(&self) -> Outcome<SpringOptions> {
        Ok(SpringOptions::default()
            .with_rows(self.rows()?)
            .with_step_length(self.get("step-length")?)
            .with_damping(self.get("damping")?)
            .with_momentum(self.get("momentum")?)
            .with_longest(self.get("longest-step")?))
    }

    /// The settings of Levenberg-Marquardt.
    pub(crate) fn levenberg_marquardt(&self) -> Outcome<LevenbergMarquardtOptions> {
        let options = LevenbergMarquardtOptions::default();
        let rule = options.damping;
        let rule = rule
            .with_initial(self.get("damping")?)
            .with_decrease(self.get("damping-decrease")?);
        let scaling = match self.text("scaling")? {
            "mean" => Scaling::Mean,
            "diagonal" => Scaling::Diagonal,
            "identity" => Scaling::Identity,
            _ => return Err(self.bad("scaling", "mean, diagonal or identity")),
        };
        Ok(options
            .with_rows(self.rows()?)
            .with_damping(rule)
            .with_scaling(scaling)
            .with_max_attempts(self.get("max-attempts")?)
            .with_acceleration(self.get("acceleration")?))
    }

    fn rows(&self) -> Outcome<RowKind> {
        match self.text("rows")? {
            "root-losses" => Ok(RowKind::RootLosses),
            "probe" => Ok(RowKind::Probe),
            "exact" => Ok(RowKind::Exact),
            _ => Err(self.bad("rows", "root-losses, probe or exact")),
        }
    }
}
