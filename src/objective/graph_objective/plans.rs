//! Plans of programs, which serve all vectors and slots.

use std::sync::Arc;

use crate::recent::Recent;

/// Bytes of host memory that plans may take, for each kind of program.
const BUDGET: u64 = 128 << 20;
/// Most of them: so many sizes of batches, each with a few requests.
const MOST: usize = 1024;

/// Plans by the rows and the request that they were made for. What was not asked for the longest goes first, once all take more than 128
/// MiB of host memory.
#[derive(Debug)]
pub(super) struct Plans<R, P> {
    recent: Recent<Planned<R, P>>,
    /// Plans belong to no vector: this lives as long as they do.
    owner: Arc<()>,
}

#[derive(Debug)]
struct Planned<R, P> {
    /// Of the batch, and the groups that it is cut into.
    rows: [usize; 2],
    request: R,
    plan: Arc<P>,
}

impl<R, P> Default for Plans<R, P> {
    fn default() -> Self {
        Self {
            recent: Recent::with_budget(BUDGET).with_most(MOST),
            owner: Arc::default(),
        }
    }
}

impl<R: Copy + PartialEq, P> Plans<R, P> {
    /// The plan for these.
    pub(super) fn get(&mut self, rows: [usize; 2], request: R) -> Option<Arc<P>> {
        let made_for = |p: &Planned<R, P>| (p.rows, p.request) == (rows, request);
        self.recent.find(made_for).map(|p| Arc::clone(&p.plan))
    }

    /// Keeps one that takes so many bytes.
    pub(super) fn keep(&mut self, rows: [usize; 2], request: R, bytes: u64, plan: P) -> Arc<P> {
        let plan = Arc::new(plan);
        let kept = Planned {
            rows,
            request,
            plan: Arc::clone(&plan),
        };
        self.recent.keep(kept, (Arc::downgrade(&self.owner), bytes));
        plan
    }
}
