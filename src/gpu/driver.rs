//! Drives the device for waits that do not block: wgpu runs callbacks only while somebody polls.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::{Arc, Condvar, Mutex, PoisonError, Weak};
use std::thread;
use std::time::{Duration, Instant};

use super::health::{Health, lock};
use super::outcome::{Arrival, Outcome};
use crate::error::{Error, Result};

/// How long the thread waits for the device before it looks at time-outs again, and for waits that nobody awaits any more.
const SLICE: Duration = Duration::from_millis(100);

/// A thread that polls a device as long as anybody waits for it, and sleeps otherwise. It starts with the first wait and ends with this.
#[derive(Default)]
pub(super) struct Driver {
    jobs: Arc<Jobs>,
}

#[derive(Default)]
struct Jobs {
    list: Mutex<List>,
    changed: Condvar,
}

#[derive(Default)]
struct List {
    waits: Vec<Job>,
    runs: bool,
    closed: bool,
}

/// A wait, in the order in which they began, which is about that in which they end.
struct Job {
    device: wgpu::Device,
    health: Arc<Health>,
    submission: Option<wgpu::SubmissionIndex>,
    deadline: Instant,
    /// Gone where nobody waits any more.
    arrival: Weak<Arrival>,
}

impl Job {
    fn waits(&self) -> bool {
        let arrival = self.arrival.upgrade();
        arrival.is_some_and(|arrival| !arrival.has_ended())
    }
}

impl Driver {
    /// Polls until the wait for a submission, or for all of them, has ended or its time is over.
    ///
    /// # Errors
    /// [`Error::Gpu`] where the system gives no thread.
    pub(super) fn drive(
        &self,
        (device, health): (&wgpu::Device, &Arc<Health>),
        (submission, timeout): (Option<wgpu::SubmissionIndex>, Duration),
        arrival: &Arc<Arrival>,
    ) -> Result<()> {
        let job = Job {
            device: device.clone(),
            health: Arc::clone(health),
            submission,
            deadline: Instant::now() + timeout,
            arrival: Arc::downgrade(arrival),
        };
        let mut list = lock(&self.jobs.list);
        if !list.runs {
            let jobs = Arc::clone(&self.jobs);
            let thread = thread::Builder::new().name("osculant: waits".into());
            thread
                .spawn(move || run(&jobs))
                .map_err(|error| Error::Gpu {
                    what: "starting a thread that waits for the device".into(),
                    message: error.to_string(),
                })?;
            list.runs = true;
        }
        list.waits.push(job);
        drop(list);
        self.jobs.changed.notify_one();
        Ok(())
    }
}

impl Drop for Driver {
    fn drop(&mut self) {
        lock(&self.jobs.list).closed = true;
        self.jobs.changed.notify_one();
    }
}

/// What the thread does.
fn run(jobs: &Jobs) {
    while let Some((device, health, wait)) = jobs.next() {
        match catch_unwind(AssertUnwindSafe(|| health.poll(&device, wait))) {
            Ok(Ok(_)) => {
                // Another thread may be about to run the callbacks.
                thread::yield_now();
                let now = Instant::now();
                jobs.end(|job| (job.deadline <= now).then_some(Outcome::TimedOut));
            }
            Ok(Err(error)) => jobs.end(|_| Some(Outcome::Failed(again(&error)))),
            Err(_) => jobs.end(|_| {
                Some(Outcome::Failed(Error::Gpu {
                    what: "waiting for the device".into(),
                    message: "a callback panicked".into(),
                }))
            }),
        }
    }
}

impl Jobs {
    /// What to wait for next; nothing once nobody will begin another wait.
    fn next(&self) -> Option<(wgpu::Device, Arc<Health>, wgpu::PollType)> {
        let mut list = lock(&self.list);
        loop {
            list.waits.retain(Job::waits);
            if let Some(first) = list.waits.first() {
                let deadline = list.waits.iter().map(|job| job.deadline).min()?;
                let left = deadline.saturating_duration_since(Instant::now());
                let wait = wgpu::PollType::Wait {
                    submission_index: first.submission.clone(),
                    timeout: Some(left.min(SLICE)),
                };
                return Some((first.device.clone(), Arc::clone(&first.health), wait));
            } else if list.closed {
                return None;
            }
            let changed = self.changed.wait(list);
            list = changed.unwrap_or_else(PoisonError::into_inner);
        }
    }

    /// Ends the waits for which there is an outcome.
    fn end(&self, outcome: impl Fn(&Job) -> Option<Outcome>) {
        let list = lock(&self.list);
        let ends = list.waits.iter().filter_map(|job| {
            let outcome = outcome(job)?;
            Some((job.arrival.upgrade()?, outcome))
        });
        let ends: Vec<(Arc<Arrival>, Outcome)> = ends.collect();
        // Who is woken may begin another wait.
        drop(list);
        for (arrival, outcome) in ends {
            arrival.end(outcome);
        }
    }
}

/// An error once more: that of a device is everybody's.
fn again(error: &Error) -> Error {
    match error {
        Error::DeviceLost { message } => Error::DeviceLost {
            message: message.clone(),
        },
        Error::Gpu { what, message } => Error::Gpu {
            what: what.clone(),
            message: message.clone(),
        },
        other => Error::Gpu {
            what: "waiting for the device".into(),
            message: other.to_string(),
        },
    }
}
