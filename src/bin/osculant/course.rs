//! Options of a run that every optimizer has: how its steps get shorter, and the average of its iterates.

use osculant::objective::GraphObjective;
use osculant::optim::{Optimizer, Schedule};

use crate::failure::Outcome;
use crate::optimizers::Setup;

impl Setup {
    /// Gives an optimizer the schedule and the average of the options. The trainer tells it how much of the work is done.
    pub(crate) fn set_course(&self, optimizer: &mut dyn Optimizer<GraphObjective>) -> Outcome {
        let course = optimizer.course_mut();
        course.set_schedule(self.schedule()?, 1)?;
        course.set_done(0.0);
        Ok(course.set_averaging(self.get("averaging")?)?)
    }

    /// `constant`, or `linear` or `cosine` with the last factor after a colon.
    fn schedule(&self) -> Outcome<Schedule> {
        let text = self.text("decay")?;
        let (name, last) = text.split_once(':').unwrap_or((text, "0"));
        let schedule = match (name, last.parse()) {
            ("constant", Ok(_)) if !text.contains(':') => Some(Schedule::Constant),
            ("linear", Ok(last)) => Some(Schedule::Linear { last }),
            ("cosine", Ok(last)) => Some(Schedule::Cosine { last }),
            _ => None,
        };
        let valid = schedule.filter(|schedule| schedule.validate().is_ok());
        valid.ok_or_else(|| {
            let expected = "constant, linear or cosine, or with a last factor in 0..=1: linear:0.1";
            self.bad("decay", expected)
        })
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;
    use crate::methods::Method;
    use crate::problems::Problem;

    #[test]
    fn every_optimizer_has_a_schedule_and_an_average() {
        use clap::ValueEnum;
        for &method in Method::value_variants() {
            let mut setup = Setup::new(method, &Problem::DigitsMlp);
            setup.set("decay", "linear:0.2").unwrap();
            setup.set("averaging", "0.9").unwrap();
            let mut optimizer = setup.build().unwrap();
            optimizer.course_mut().set_done(0.5);
            let factor = optimizer.course().factor();
            assert!((factor - 0.6).abs() < 1e-15, "{}: {factor}", method.name());
        }
    }

    #[test]
    fn what_is_no_schedule_is_named() {
        for text in ["linear:2", "step", "constant:0.5", "cosine:x"] {
            let mut setup = Setup::new(Method::Sgd, &Problem::DigitsMlp);
            setup.set("decay", text).unwrap();
            assert!(setup.build().is_err(), "{text}");
        }
    }
}
