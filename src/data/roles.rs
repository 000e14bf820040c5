//! Mini-batches for several roles at once: which examples make directions, which make step sizes, which judge the step.

use rand::RngExt;
use serde::{Deserialize, Serialize};

use super::{Epochs, EpochsState};
use crate::random::Philox;
use crate::{Error, Result};

/// Streams of random numbers of draws with replacement: no other part of the crate draws from them.
const STREAM: u64 = 1 << 48;
/// Factor between the seeds of overlapping roles' permutations.
const NEXT_SEED: u64 = 0x9e37_79b9_7f4a_7c15;

/// What a mini-batch is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub enum Role {
    /// Directions: eigenvectors, or those of conjugate gradients.
    Directions,
    /// Slopes and curvatures along them, and so step sizes.
    Steps,
    /// Judging the step.
    Acceptance,
}

/// How the roles of a step share the examples.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub enum Dealing {
    /// One permutation of all rows per epoch, dealt to the roles in turn: no example is in two roles of a step, and every example is seen
    /// exactly once per epoch.
    #[default]
    Disjoint,
    /// A permutation for each role: every role sees every example once per epoch of its own, and batches of a step may overlap.
    Overlapping,
    /// Every example of every batch is drawn from all rows, independently.
    WithReplacement,
}

/// Deals mini-batches to roles.
///
/// ```
/// # use osculant::data::{Dealing, Role, Roles};
/// let plan = [(Role::Directions, 3), (Role::Steps, 1)];
/// let mut roles = Roles::new(100, &plan, Dealing::Disjoint, 1)?;
/// let step = roles.next_step();
/// assert_eq!((step[0].len(), step[1].len()), (3, 1));
/// assert!(!step[0].contains(&step[1][0]));
/// # Ok::<(), osculant::Error>(())
/// ```
#[derive(Clone, Debug)]
pub struct Roles {
    rows: usize,
    plan: Vec<(Role, usize)>,
    dealing: Dealing,
    seed: u64,
    steps: u64,
    /// One for all roles, or one for each; none where draws are independent.
    epochs: Vec<Epochs>,
}

/// Where dealing stands; to be stored with a checkpoint.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct RolesState {
    dealing: Dealing,
    seed: u64,
    steps: u64,
    epochs: Vec<EpochsState>,
}

impl Roles {
    /// Batches of these sizes for these roles, out of `rows` rows, from the first epoch on. Short last batches of an epoch are left out.
    ///
    /// # Errors
    /// [`Error::Option`] for a plan without a role, with a role twice, a size of zero, or more examples than there are rows.
    pub fn new(rows: usize, plan: &[(Role, usize)], dealing: Dealing, seed: u64) -> Result<Self> {
        let bad = |message: String| {
            Err(Error::Option {
                option: "roles".into(),
                message,
            })
        };
        let total: usize = plan.iter().map(|(_, size)| size).sum();
        if plan.is_empty() || plan.iter().any(|(_, size)| *size == 0) {
            return bad("every role needs at least one example, and there must be a role".into());
        }
        for (i, (role, _)) in plan.iter().enumerate() {
            if plan[..i].iter().any(|(other, _)| other == role) {
                return bad(format!("{role:?} is in the plan twice"));
            }
        }
        let most = match dealing {
            Dealing::Disjoint => total,
            _ => plan.iter().map(|(_, size)| *size).max().unwrap_or(0),
        };
        if most > rows {
            return bad(format!(
                "{most} examples in a step, but there are {rows} rows"
            ));
        }
        let epochs = |batch: usize, seed: u64| Ok(Epochs::new(rows, batch, seed)?.drop_last(true));
        let epochs = match dealing {
            Dealing::Disjoint => vec![epochs(total, seed)?],
            Dealing::Overlapping => plan
                .iter()
                .zip(0u64..)
                .map(|((_, size), i)| epochs(*size, seed.wrapping_add(i.wrapping_mul(NEXT_SEED))))
                .collect::<Result<_>>()?,
            Dealing::WithReplacement => Vec::new(),
        };
        Ok(Self {
            rows,
            plan: plan.to_vec(),
            dealing,
            seed,
            steps: 0,
            epochs,
        })
    }

    /// Continues at a stored place; the plan may be another one than that of the stored run, with [`Dealing::Disjoint`].
    ///
    /// # Errors
    /// As [`new`](Self::new), and [`Error::Data`] for a state of another dealing or other data.
    pub fn resume(rows: usize, plan: &[(Role, usize)], state: &RolesState) -> Result<Self> {
        let mut roles = Self::new(rows, plan, state.dealing, state.seed)?;
        if roles.epochs.len() != state.epochs.len() {
            return Err(Error::Data {
                what: "roles".into(),
                message: format!(
                    "the stored run dealt to {} roles, not to {}",
                    state.epochs.len(),
                    roles.epochs.len()
                ),
            });
        }
        let total: usize = plan.iter().map(|(_, size)| size).sum();
        for (i, stored) in state.epochs.iter().enumerate() {
            let batch = match state.dealing {
                Dealing::Disjoint => total,
                _ => plan[i].1,
            };
            roles.epochs[i] = Epochs::resume(rows, batch, *stored)?;
        }
        roles.steps = state.steps;
        Ok(roles)
    }

    /// The rows of the next step, for each role of the plan in its order.
    pub fn next_step(&mut self) -> Vec<Vec<usize>> {
        self.steps += 1;
        match self.dealing {
            Dealing::Disjoint => {
                let mut rest = self.epochs[0].next_batch();
                self.plan
                    .iter()
                    .map(|(_, size)| {
                        let (own, left) = rest.split_at(*size);
                        rest = left;
                        own.to_vec()
                    })
                    .collect()
            }
            Dealing::Overlapping => {
                let each = self.epochs.iter_mut();
                each.map(|epochs| epochs.next_batch().to_vec()).collect()
            }
            Dealing::WithReplacement => {
                let mut random = Philox::new(self.seed, STREAM + self.steps);
                let rows = self.rows;
                let mut draw =
                    |size: usize| (0..size).map(|_| random.random_range(0..rows)).collect();
                self.plan.iter().map(|(_, size)| draw(*size)).collect()
            }
        }
    }

    /// Roles and sizes.
    #[must_use]
    pub fn plan(&self) -> &[(Role, usize)] {
        &self.plan
    }

    /// Where dealing stands, to be given to [`Roles::resume`].
    #[must_use]
    pub fn state(&self) -> RolesState {
        RolesState {
            dealing: self.dealing,
            seed: self.seed,
            steps: self.steps,
            epochs: self.epochs.iter().map(Epochs::state).collect(),
        }
    }
}

/// Batch sizes that grow with the epochs.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Growth {
    /// Examples in the first epoch.
    pub first: usize,
    /// Factor from one stage to the next, at least 1.
    pub factor: f64,
    /// Epochs of a stage.
    pub epochs: u64,
    /// Largest batch.
    pub most: usize,
}

impl Growth {
    /// The batch size in an epoch, counted from 0.
    #[must_use]
    pub fn batch(&self, epoch: u64) -> usize {
        let stage = epoch / self.epochs.max(1);
        let size = self.first as f64 * self.factor.max(1.0).powf(stage as f64);
        (size.round() as usize).min(self.most).max(1)
    }
}

/// The step length that contracts a direction of curvature `curvature` as much per epoch with `after` batches per epoch as `step` did with
/// `before`: `(1 - (1 - step curvature)^(before / after)) / curvature`.
///
/// Where `step * curvature` is small this is the linear rule `step before / after`; unlike that it never goes beyond `1 / curvature`. Exact
/// for gradient steps on a quadratic that is the same for all batches (derived in the notes on least squares with reshuffling;
/// `docs/ARCHITECTURE.md`).
///
/// # Errors
/// [`Error::Option`] unless `0 < step * curvature < 1` and both numbers of batches are above zero.
pub fn rescaled_step(step: f64, curvature: f64, before: f64, after: f64) -> Result<f64> {
    let product = step * curvature;
    let valid = product > 0.0 && product < 1.0 && before > 0.0 && after > 0.0;
    if !valid || !(before / after).is_finite() {
        return Err(Error::Option {
            option: "step length".into(),
            message: format!(
                "{step} at curvature {curvature} with {before} batches, then {after}: the product must be in 0..1, and there must be \
                    batches"
            ),
        });
    }
    Ok(-(before / after * (-product).ln_1p()).exp_m1() / curvature)
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    const PLAN: [(Role, usize); 3] = [
        (Role::Directions, 4),
        (Role::Steps, 3),
        (Role::Acceptance, 1),
    ];

    #[test]
    fn every_example_is_seen_once_per_epoch_whatever_the_plan() {
        for plan in [&PLAN[..], &PLAN[..1], &PLAN[1..]] {
            let total: usize = plan.iter().map(|p| p.1).sum();
            let rows = 5 * total;
            let mut roles = Roles::new(rows, plan, Dealing::Disjoint, 3).unwrap();
            for _ in 0..3 {
                let mut seen = vec![0; rows];
                for _ in 0..5 {
                    let step = roles.next_step();
                    let sizes: Vec<usize> = step.iter().map(Vec::len).collect();
                    assert_eq!(sizes, plan.iter().map(|p| p.1).collect::<Vec<_>>());
                    step.concat().iter().for_each(|&row| seen[row] += 1);
                }
                assert_eq!(seen, vec![1; rows]);
            }
        }
    }

    #[test]
    fn overlapping_roles_see_every_example_in_their_own_order() {
        let plan = [(Role::Directions, 4), (Role::Steps, 4)];
        let mut roles = Roles::new(12, &plan, Dealing::Overlapping, 3).unwrap();
        let mut seen = [vec![0; 12], vec![0; 12]];
        let mut overlap = false;
        for _ in 0..3 {
            let step = roles.next_step();
            overlap |= step[0].iter().any(|row| step[1].contains(row));
            for (role, rows) in step.iter().enumerate() {
                rows.iter().for_each(|&row| seen[role][row] += 1);
            }
        }
        assert_eq!(seen, [vec![1; 12], vec![1; 12]]);
        assert!(overlap);
    }

    #[test]
    fn draws_with_replacement_repeat_examples() {
        let mut roles = Roles::new(10, &[(Role::Steps, 10)], Dealing::WithReplacement, 3).unwrap();
        let mut rows = roles.next_step().remove(0);
        rows.sort_unstable();
        rows.dedup();
        assert!(rows.len() < 10);
    }

    #[test]
    fn a_stored_run_goes_on_with_the_same_rows() {
        for dealing in [
            Dealing::Disjoint,
            Dealing::Overlapping,
            Dealing::WithReplacement,
        ] {
            let mut roles = Roles::new(100, &PLAN, dealing, 5).unwrap();
            for _ in 0..17 {
                roles.next_step();
            }
            let mut other = Roles::resume(100, &PLAN, &roles.state()).unwrap();
            for _ in 0..20 {
                assert_eq!(roles.next_step(), other.next_step());
            }
        }
    }

    #[test]
    fn bad_plans_are_refused() {
        let new = |rows, plan: &[(Role, usize)]| Roles::new(rows, plan, Dealing::Disjoint, 0);
        assert!(new(10, &[]).is_err());
        assert!(new(10, &[(Role::Steps, 0)]).is_err());
        assert!(new(10, &[(Role::Steps, 1), (Role::Steps, 2)]).is_err());
        assert!(new(7, &PLAN).is_err());
        assert!(new(8, &PLAN).is_ok());
    }

    #[test]
    fn batches_grow_by_stages() {
        let growth = Growth {
            first: 32,
            factor: 2.0,
            epochs: 2,
            most: 100,
        };
        let sizes: Vec<usize> = (0..8).map(|epoch| growth.batch(epoch)).collect();
        assert_eq!(sizes, [32, 32, 64, 64, 100, 100, 100, 100]);
    }

    #[test]
    fn a_rescaled_step_contracts_as_much_per_epoch() {
        let (step, curvature) = (0.2f64, 3.0f64);
        for (before, after) in [(8.0, 2.0), (2.0, 8.0), (5.0, 5.0)] {
            let other = rescaled_step(step, curvature, before, after).unwrap();
            let per_epoch = |step: f64, batches: f64| (1.0 - step * curvature).powf(batches);
            assert!((per_epoch(step, before) - per_epoch(other, after)).abs() < 1e-12);
            assert!(other < 1.0 / curvature);
        }
        assert!(rescaled_step(0.5, 3.0, 8.0, 2.0).is_err());
        assert!(rescaled_step(0.1, -1.0, 8.0, 2.0).is_err());
    }
}
