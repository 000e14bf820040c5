//! Programs that were recorded, and when they are forgotten.

use super::slot::Loaded;
use crate::recent::Recent;
use crate::vector::Vector;

/// Programs by the vector, the slot and rows, and the request that they were made for. What was not asked for the longest goes first, once
/// all take more than a budget of bytes, 1 GiB unless another one is set, or are more than 64; and programs go with the vector, once the
/// last handle of it is dropped.
#[derive(Debug)]
pub struct Programs<R, P> {
    recent: Recent<Program<R, P>>,
    held: fn(&P) -> bool,
}

#[derive(Debug)]
struct Program<R, P> {
    at: Vector,
    loaded: Loaded,
    request: R,
    program: P,
    held: fn(&P) -> bool,
}

impl<R, P> Default for Programs<R, P> {
    fn default() -> Self {
        Self {
            recent: Recent::default(),
            held: |_| false,
        }
    }
}

impl<R: PartialEq, P: Clone> Programs<R, P> {
    /// With a budget of bytes; what was asked for last stays even where it is larger.
    #[must_use]
    pub fn with_budget(bytes: u64) -> Self {
        Self {
            recent: Recent::with_budget(bytes),
            held: |_| false,
        }
    }

    /// Keeps a program as long as this tells that somebody else holds it: nothing would be gained by forgetting it.
    #[must_use]
    pub fn with_held(self, held: fn(&P) -> bool) -> Self {
        Self {
            recent: self.recent.with_held(|p| (p.held)(&p.program)),
            held,
        }
    }

    /// The program made for these, if it is there.
    pub fn get(&mut self, at: &Vector, loaded: &Loaded, request: &R) -> Option<P> {
        self.find(at, loaded, request, |_| true)
    }

    /// As [`get`](Self::get), among those that are so.
    pub(crate) fn find(
        &mut self,
        at: &Vector,
        loaded: &Loaded,
        request: &R,
        is: impl Fn(&P) -> bool,
    ) -> Option<P> {
        let made_for = |p: &Program<R, P>| {
            let same = p.request == *request && p.loaded.same_programs(loaded);
            same && p.at.is_same(at) && is(&p.program)
        };
        self.recent.find(made_for).map(|p| p.program.clone())
    }

    /// Forgets programs whose vectors are gone.
    pub fn sweep(&mut self) {
        self.recent.sweep();
    }

    /// Keeps a program whose buffers take so many bytes.
    pub fn keep(&mut self, at: &Vector, loaded: &Loaded, request: R, bytes: u64, program: P) {
        let program = Program {
            at: at.uncounted(),
            loaded: *loaded,
            request,
            program,
            held: self.held,
        };
        self.recent.keep(program, (at.life(), bytes));
    }
}
