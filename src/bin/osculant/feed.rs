//! The mini-batches of a run: how large they are, and which rows are in them.

use osculant::data::{Dealing, Epochs, EpochsState, Growth, Role, Roles, RolesState};
use serde::{Deserialize, Serialize};

use crate::failure::Outcome;
use crate::methods::Method;
use crate::optimizers::Setup;

/// Deals the mini-batches of a run.
pub(crate) struct Feed {
    rows: usize,
    growth: Growth,
    /// Where batches are cut into parts, the part of one that the last batch of an epoch must have; a smaller one is left out.
    least: f64,
    source: Source,
}

/// A quarter of a batch can be cut wherever a whole one can.
const LEAST: f64 = 0.25;

enum Source {
    /// One permutation per epoch. Where a batch has roles the optimizer cuts it, which deals disjoint batches.
    Epochs(Epochs),
    /// Batches for roles that may overlap, one after another.
    Roles(Roles),
}

/// Where it stands, for checkpoints.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(untagged)]
pub(crate) enum FeedState {
    Roles(RolesState),
    Epochs(EpochsState),
}

impl Feed {
    /// From the first epoch on.
    pub(crate) fn new(setup: &Setup, rows: usize, seed: u64) -> Outcome<Self> {
        let first = setup.batch(rows)?;
        let growth = setup.growth(first, rows)?;
        let source = match setup.dealing()? {
            Dealing::Disjoint => Source::Epochs(Epochs::new(rows, first, seed)?),
            dealing => {
                if growth.factor > 1.0 {
                    return Err(setup.bad("growth", "none where dealing is not disjoint"));
                }
                let plan = setup.plan(first)?;
                Source::Roles(Roles::new(rows, &plan, dealing, seed)?)
            }
        };
        Ok(Self {
            rows,
            growth,
            least: if setup.cuts_batches() { LEAST } else { 0.0 },
            source,
        })
    }

    /// Rows of the next batch, and how many it is to be filled up to.
    pub(crate) fn next(&mut self) -> osculant::Result<(Vec<usize>, usize)> {
        match &mut self.source {
            Source::Epochs(epochs) => {
                let state = epochs.state();
                // The batch that ends an epoch belongs to it; the next one begins with the size of its own.
                let epoch = state.epoch + u64::from(state.position == self.rows);
                let size = self.growth.batch(epoch).min(self.rows);
                if self.growth.factor > 1.0 && size != epochs.batch() {
                    *epochs = Epochs::resume(self.rows, size, state)?;
                }
                let least = self.least * size as f64;
                let mut rows = epochs.next_batch().to_vec();
                while (rows.len() as f64) < least {
                    rows = epochs.next_batch().to_vec();
                }
                Ok((rows, size))
            }
            Source::Roles(roles) => {
                let rows = roles.next_step().concat();
                let size = rows.len();
                Ok((rows, size))
            }
        }
    }

    /// Where it stands.
    pub(crate) fn state(&self) -> FeedState {
        match &self.source {
            Source::Epochs(epochs) => FeedState::Epochs(epochs.state()),
            Source::Roles(roles) => FeedState::Roles(roles.state()),
        }
    }

    /// Continues at a stored place.
    pub(crate) fn set_state(&mut self, state: &FeedState) -> Outcome {
        match (&mut self.source, state) {
            (Source::Epochs(epochs), FeedState::Epochs(state)) => {
                *epochs = Epochs::resume(self.rows, epochs.batch(), *state)?;
            }
            (Source::Roles(roles), FeedState::Roles(state)) => {
                *roles = Roles::resume(self.rows, roles.plan(), state)?;
            }
            _ => {
                return Err(crate::failure::Failure::new(
                    "the checkpoint's rows were dealt in another way",
                ));
            }
        }
        Ok(())
    }
}

impl Setup {
    /// Examples per mini-batch, out of `rows` training rows.
    pub(crate) fn batch(&self, rows: usize) -> Outcome<usize> {
        if self.text("batch")? == "all" {
            return Ok(rows);
        }
        match self.get("batch") {
            Ok(batch) if (1..=rows).contains(&batch) => Ok(batch),
            _ => Err(self.bad_batch(rows)),
        }
    }

    /// How batches grow from `first` examples on: `none`, or `FACTOR:EPOCHS:MOST`.
    fn growth(&self, first: usize, rows: usize) -> Outcome<Growth> {
        let text = self.text("growth")?;
        let none = Growth {
            first,
            factor: 1.0,
            epochs: 1,
            most: rows,
        };
        if text == "none" {
            return Ok(none);
        }
        let parse = || -> Option<Growth> {
            let mut parts = text.split(':');
            let growth = Growth {
                first,
                factor: parts.next()?.parse().ok()?,
                epochs: parts.next()?.parse().ok()?,
                most: parts.next()?.parse().ok()?,
            };
            let valid = (1.0..=1e3).contains(&growth.factor)
                && growth.epochs > 0
                && (first..=rows).contains(&growth.most);
            (valid && parts.next().is_none()).then_some(growth)
        };
        parse().ok_or_else(|| {
            let expected = format!(
                "none or FACTOR:EPOCHS:MOST with a factor from 1 on and at most {rows} rows, like 2:5:{rows}"
            );
            self.bad("growth", &expected)
        })
    }

    /// How the roles of a step share the rows.
    fn dealing(&self) -> Outcome<Dealing> {
        if !self.has_roles() {
            return Ok(Dealing::Disjoint);
        }
        match self.text("dealing")? {
            "disjoint" => Ok(Dealing::Disjoint),
            "overlapping" => Ok(Dealing::Overlapping),
            "with-replacement" => Ok(Dealing::WithReplacement),
            _ => Err(self.bad("dealing", "disjoint, overlapping or with-replacement")),
        }
    }

    /// Whether the optimizer gives roles to the examples of a batch.
    pub(crate) fn has_roles(&self) -> bool {
        matches!(self.method, Method::DecoupledNewtonCg | Method::Lrsfn)
    }

    /// Whether the optimizer cuts batches into parts.
    fn cuts_batches(&self) -> bool {
        self.text("strategy").is_ok_and(|name| name != "single")
    }

    /// Roles and numbers of rows as the optimizer cuts a batch of `batch` rows.
    fn plan(&self, batch: usize) -> Outcome<Vec<(Role, usize)>> {
        Ok(match self.method {
            Method::Lrsfn => self.lrsfn()?.plan(batch)?,
            _ => self.decoupled()?.plan(batch)?,
        })
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;
    use crate::problems::Problem;

    fn feed(method: Method, settings: &[&str], rows: usize) -> Outcome<Feed> {
        let mut setup = Setup::new(method, &Problem::DigitsMlp);
        setup.set_all(settings.iter().copied())?;
        Feed::new(&setup, rows, 1)
    }

    #[test]
    fn a_last_batch_that_is_too_short_to_cut_is_left_out() {
        let sizes = |method| -> Vec<usize> {
            let mut feed = feed(method, &["batch=8"], 17).unwrap();
            (0..5).map(|_| feed.next().unwrap().0.len()).collect()
        };
        assert_eq!(sizes(Method::NewtonCg), [8, 8, 1, 8, 8]);
        assert_eq!(sizes(Method::DecoupledNewtonCg), [8, 8, 8, 8, 8]);
    }

    #[test]
    fn batches_grow_where_an_epoch_begins() {
        let mut feed = feed(Method::Sgd, &["batch=4", "growth=2:1:8"], 8).unwrap();
        let sizes: Vec<usize> = (0..4).map(|_| feed.next().unwrap().0.len()).collect();
        assert_eq!(sizes, [4, 4, 8, 8]);
    }

    #[test]
    fn only_decoupled_batches_are_dealt_to_roles() {
        let dealt = |settings: &[&str]| {
            let common = ["batch=20", "dealing=overlapping"];
            feed(
                Method::DecoupledNewtonCg,
                &[&common[..], settings].concat(),
                40,
            )
        };
        let (rows, size) = dealt(&["acceptance=0.2"]).unwrap().next().unwrap();
        assert_eq!((rows.len(), size), (20, 20));
        assert!(dealt(&["strategy=cross-fit"]).is_err());
    }
}
