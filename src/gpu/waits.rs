//! The one place where anything waits for the device: a mapping, or the end of what was submitted.

use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use super::device::Gpu;
use super::outcome::{Arrival, Outcome};
use crate::error::{Error, Result};

/// What is waited for.
pub(super) enum Event {
    /// The first bytes of a buffer to be mapped for reading.
    Mapped(wgpu::Buffer, u64),
    /// What was submitted to have run.
    Done,
}

#[cfg_attr(
    target_arch = "wasm32",
    expect(dead_code, reason = "a browser needs no driving and has no time-outs")
)]
/// A wait; it begins when it is first polled. Dropping it waits no longer.
pub(super) struct Wait<W> {
    gpu: Gpu,
    event: Event,
    submission: Option<wgpu::SubmissionIndex>,
    /// Names it for the error of a time-out.
    what: W,
    arrival: Option<Arc<Arrival>>,
}

impl<W: Fn() -> String + Unpin> Wait<W> {
    /// Asks wgpu to tell of the event.
    fn begin(&self) -> Result<Arc<Arrival>> {
        let arrival = Arc::<Arrival>::default();
        let tell = Arc::clone(&arrival);
        match &self.event {
            Event::Mapped(buffer, bytes) => self.gpu.guarded(
                || {
                    buffer.map_async(wgpu::MapMode::Read, 0..*bytes, move |result| {
                        tell.end(match result {
                            Ok(()) => Outcome::Arrived,
                            Err(_) => Outcome::Refused,
                        });
                    });
                },
                || "mapping a buffer for reading".into(),
            )?,
            Event::Done => {
                let queue = self.gpu.queue();
                queue.on_submitted_work_done(move || tell.end(Outcome::Arrived));
            }
        }
        Ok(arrival)
    }

    /// The error of a wait that did not end well.
    fn result(&self, outcome: Outcome) -> Result<()> {
        match outcome {
            Outcome::Arrived => self.gpu.shared.health.check_reported(),
            Outcome::Refused => {
                self.gpu.check()?;
                Err(Error::Gpu {
                    what: "mapping a buffer for reading".into(),
                    message: "the driver refused".into(),
                })
            }
            #[cfg(not(target_arch = "wasm32"))]
            Outcome::TimedOut => {
                self.gpu.check()?;
                Err(self.gpu.timed_out((self.what)()))
            }
            #[cfg(not(target_arch = "wasm32"))]
            Outcome::Failed(error) => Err(error),
        }
    }
}

#[cfg(not(target_arch = "wasm32"))]
impl<W: Fn() -> String + Unpin> Wait<W> {
    /// The whole wait on this thread.
    fn in_place(&self) -> Result<()> {
        let arrival = match self.event {
            Event::Mapped(..) => Some(self.begin()?),
            Event::Done => None,
        };
        self.gpu.wait_for(self.submission.clone(), &self.what)?;
        match arrival {
            // Another thread that polls at the same time may be the one that runs the callback, so wait for it.
            Some(arrival) => self.result(arrival.wait(self.gpu.timeout())),
            None => Ok(()),
        }
    }

    /// Begins, and has another thread drive the device.
    fn in_background(&self) -> Result<Arc<Arrival>> {
        self.gpu.count_operation()?;
        let arrival = self.begin()?;
        let shared = &self.gpu.shared;
        let device = (self.gpu.device(), &shared.health);
        let wait = (self.submission.clone(), self.gpu.timeout());
        shared.driver.drive(device, wait, &arrival)?;
        Ok(arrival)
    }
}

impl<W: Fn() -> String + Unpin> Future for Wait<W> {
    type Output = Result<()>;

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Result<()>> {
        if self.arrival.is_none() {
            #[cfg(not(target_arch = "wasm32"))]
            if super::future::waits_in_place(context) {
                return Poll::Ready(self.in_place());
            }
            #[cfg(not(target_arch = "wasm32"))]
            let begun = self.in_background();
            #[cfg(target_arch = "wasm32")]
            let begun = self.begin();
            match begun {
                Ok(arrival) => self.arrival = Some(arrival),
                Err(error) => return Poll::Ready(Err(error)),
            }
        }
        match &self.arrival {
            Some(arrival) => arrival.poll(context).map(|outcome| self.result(outcome)),
            None => Poll::Pending,
        }
    }
}

impl Gpu {
    /// Waits for an event of a submission, or of all; `what` names it for the error of a time-out. In a browser, errors of what was done
    /// before come up here.
    pub(super) async fn wait_until(
        &self,
        event: Event,
        submission: Option<wgpu::SubmissionIndex>,
        what: impl Fn() -> String + Unpin,
    ) -> Result<()> {
        let wait = Wait {
            gpu: self.clone(),
            event,
            submission,
            what,
            arrival: None,
        };
        let outcome = wait.await;
        #[cfg(target_arch = "wasm32")]
        self.shared.health.settle().await?;
        outcome
    }

    /// Waits until everything submitted so far has run.
    ///
    /// # Errors
    /// [`Error::Timeout`], [`Error::DeviceLost`].
    #[cfg(not(target_arch = "wasm32"))]
    pub fn wait(&self) -> Result<()> {
        super::blocking(self.wait_async())
    }

    /// As [`wait`](Self::wait), without blocking the thread.
    ///
    /// # Errors
    /// As there.
    pub async fn wait_async(&self) -> Result<()> {
        self.check()?;
        let what = || "what was submitted".into();
        self.wait_until(Event::Done, None, what).await
    }
}
