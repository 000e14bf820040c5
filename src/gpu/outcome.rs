//! How a wait for the device ended, told from one thread to another.

use std::sync::Mutex;
use std::task::{Context, Poll, Waker};

use super::health::lock;
#[cfg(not(target_arch = "wasm32"))]
use crate::error::Error;

/// How a wait ended.
pub(super) enum Outcome {
    Arrived,
    /// The driver gave no mapping.
    Refused,
    #[cfg(not(target_arch = "wasm32"))]
    TimedOut,
    #[cfg(not(target_arch = "wasm32"))]
    Failed(Error),
}

/// Where callbacks of wgpu, and whoever drives the device, leave the outcome of a wait.
#[derive(Default)]
pub(super) struct Arrival {
    state: Mutex<State>,
    #[cfg(not(target_arch = "wasm32"))]
    ended: std::sync::Condvar,
}

#[derive(Default)]
struct State {
    outcome: Option<Outcome>,
    waker: Option<Waker>,
    /// Whether a thread waits in place.
    #[cfg(not(target_arch = "wasm32"))]
    sleeps: bool,
}

impl Arrival {
    /// Ends the wait, unless it has ended.
    pub(super) fn end(&self, outcome: Outcome) {
        let mut state = lock(&self.state);
        if state.outcome.is_none() {
            state.outcome = Some(outcome);
        }
        let waker = state.waker.take();
        #[cfg(not(target_arch = "wasm32"))]
        let sleeps = state.sleeps;
        drop(state);
        #[cfg(not(target_arch = "wasm32"))]
        if sleeps {
            self.ended.notify_all();
        }
        if let Some(waker) = waker {
            waker.wake();
        }
    }

    pub(super) fn poll(&self, context: &Context<'_>) -> Poll<Outcome> {
        let mut state = lock(&self.state);
        match state.outcome.take() {
            Some(outcome) => Poll::Ready(outcome),
            None => {
                state.waker = Some(context.waker().clone());
                Poll::Pending
            }
        }
    }
}

#[cfg(not(target_arch = "wasm32"))]
impl Arrival {
    pub(super) fn has_ended(&self) -> bool {
        lock(&self.state).outcome.is_some()
    }

    /// Waits on this thread.
    pub(super) fn wait(&self, timeout: std::time::Duration) -> Outcome {
        let mut state = lock(&self.state);
        state.sleeps = true;
        let waits = |state: &mut State| state.outcome.is_none();
        let ended = self.ended.wait_timeout_while(state, timeout, waits);
        let (mut state, _) = ended.unwrap_or_else(std::sync::PoisonError::into_inner);
        state.outcome.take().unwrap_or(Outcome::TimedOut)
    }
}
