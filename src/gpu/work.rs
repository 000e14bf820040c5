//! Commands between which the host does something, and how they are run.

use std::any::Any;
use std::fmt;
use std::sync::Arc;

use super::device::Gpu;
use super::future::BoxFuture;
use super::recording::{Recorder, Recording};
use super::slice::Slice;
use crate::error::{Error, Result};

/// What the host does in between.
type Call = Arc<dyn for<'g> Fn(&'g Gpu) -> BoxFuture<'g, Result<()>> + Send + Sync>;

/// What computes something: a [`Recording`], or several with calls of the host in between, for an all-reduce, micro-batches, a function
/// of the host's, or commands that another library submits.
///
/// What is recorded is put into the middle of submissions. Where the host is needed, a submission ends: before each call all that comes
/// before has been submitted, and what comes after is submitted after it. The numbers are the same.
///
/// ```
/// use osculant::gpu::{Recording, Work};
///
/// let recorded = Work::from(Recording::new());
/// assert!(recorded.recording().is_some());
/// let hosted = Work::hosted(|gpu| gpu.submit(|_| ()));
/// assert!(hosted.recording().is_none());
/// ```
#[derive(Clone, Default)]
pub struct Work {
    /// What is submitted before each call, and the call.
    calls: Vec<(Recording, Call)>,
    /// What is recorded after the last call.
    tail: Recording,
}

impl fmt::Debug for Work {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Work")
            .field("calls", &self.calls.len())
            .field("tail", &self.tail)
            .finish_non_exhaustive()
    }
}

impl From<Recording> for Work {
    fn from(tail: Recording) -> Self {
        Self {
            calls: Vec::new(),
            tail,
        }
    }
}

/// What a caller records: see [`Work::passes`].
impl<F: Fn(&mut wgpu::CommandEncoder) + Send + Sync + 'static> From<F> for Work {
    fn from(record: F) -> Self {
        Self::passes(record)
    }
}

impl Work {
    /// Nothing.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// What a caller records: see [`Recording::custom`].
    pub fn passes(record: impl Fn(&mut wgpu::CommandEncoder) + Send + Sync + 'static) -> Self {
        let mut recording = Recording::new();
        recording.custom(record);
        recording.into()
    }

    /// What the host does with submissions of its own; `call` may end before the device has finished them. Where it waits, it blocks solves
    /// and steps that do not block otherwise: see [`hosted_async`](Self::hosted_async).
    pub fn hosted(call: impl Fn(&Gpu) -> Result<()> + Send + Sync + 'static) -> Self {
        Self::hosted_async(move |gpu| Box::pin(std::future::ready(call(gpu))))
    }

    /// As [`hosted`](Self::hosted), with a call that waits for something: for other processes, or for numbers of the device.
    ///
    /// ```
    /// use osculant::gpu::Work;
    ///
    /// let hosted = Work::hosted_async(|gpu| Box::pin(async move { gpu.wait_async().await }));
    /// assert!(hosted.recording().is_none());
    /// ```
    pub fn hosted_async(
        call: impl for<'g> Fn(&'g Gpu) -> BoxFuture<'g, Result<()>> + Send + Sync + 'static,
    ) -> Self {
        Self {
            calls: vec![(Recording::new(), Arc::new(call))],
            tail: Recording::new(),
        }
    }

    /// The recording, if the host is not needed.
    pub fn recording(&self) -> Option<&Recording> {
        self.calls.is_empty().then_some(&self.tail)
    }

    /// The recording.
    ///
    /// # Errors
    /// [`Error::Unsupported`] where the host is needed.
    pub fn recorded(&self) -> Result<&Recording> {
        self.recording().ok_or_else(|| Error::Unsupported {
            what: "recording commands that need the host in between".into(),
            message: "make steps and solves with `step` and `solve`, which let it; a recording holds only what the device does by itself"
                .into(),
        })
    }

    /// Does `other` after this.
    pub fn append(&mut self, other: impl Into<Self>) {
        let other = other.into();
        for (recording, call) in other.calls {
            self.tail.append(recording);
            self.calls.push((std::mem::take(&mut self.tail), call));
        }
        self.tail.append(other.tail);
    }

    /// Where to record what comes after all this.
    pub fn tail(&mut self) -> &mut Recording {
        &mut self.tail
    }

    /// Keeps something as long as this: see [`Recording::hold`].
    pub fn hold(&mut self, what: Arc<dyn Any + Send + Sync>) {
        self.tail.hold(what);
    }
}

/// Something to run: a recording, or work that may need the host.
#[derive(Clone, Copy, Debug)]
pub enum Commands<'a> {
    /// The device does it by itself.
    Recorded(&'a Recording),
    /// The host may be needed.
    Work(&'a Work),
}

impl<'a> From<&'a Recording> for Commands<'a> {
    fn from(recording: &'a Recording) -> Self {
        Self::Recorded(recording)
    }
}

impl<'a> From<&'a Work> for Commands<'a> {
    fn from(work: &'a Work) -> Self {
        Self::Work(work)
    }
}

impl Gpu {
    /// Runs commands one after another: in one submission, and one more for each call of the host.
    ///
    /// # Errors
    /// Those of the calls, and of [`submit`](Self::submit).
    #[cfg(not(target_arch = "wasm32"))]
    pub fn run<'a, C: Into<Commands<'a>>>(
        &'a self,
        commands: impl IntoIterator<Item = C>,
    ) -> Result<()> {
        super::blocking(self.run_async(commands))
    }

    /// As [`run`](Self::run), without blocking the thread.
    ///
    /// # Errors
    /// As there.
    pub fn run_async<'a, C: Into<Commands<'a>>>(
        &'a self,
        commands: impl IntoIterator<Item = C>,
    ) -> impl Future<Output = Result<()>> + Send {
        let commands = collect(commands);
        async move {
            let left = self.until_last_call(&commands).await?;
            self.submit_all(&left)
        }
    }

    /// Runs commands, and reads slices in the last of their submissions.
    ///
    /// # Errors
    /// Those of the calls, and of [`submit_and_read`](Self::submit_and_read).
    #[cfg(not(target_arch = "wasm32"))]
    pub fn run_and_read<'a, C: Into<Commands<'a>>>(
        &'a self,
        commands: impl IntoIterator<Item = C>,
        slices: &'a [&'a Slice],
    ) -> Result<Vec<Vec<f32>>> {
        super::blocking(self.run_and_read_async(commands, slices))
    }

    /// As [`run_and_read`](Self::run_and_read), without blocking the thread.
    ///
    /// # Errors
    /// As there.
    pub fn run_and_read_async<'a, C: Into<Commands<'a>>>(
        &'a self,
        commands: impl IntoIterator<Item = C>,
        slices: &'a [&'a Slice],
    ) -> impl Future<Output = Result<Vec<Vec<f32>>>> + Send {
        let commands = collect(commands);
        async move {
            let left = self.until_last_call(&commands).await?;
            let record = |recorder: &mut Recorder<'_>| {
                replay_all(recorder, &left);
                Ok(())
            };
            self.submit_and_read_async(record, slices).await
        }
    }

    /// Does everything up to the last call of the host; what is left to submit comes back. Nothing is submitted where none is needed.
    pub(crate) async fn until_last_call<'a>(
        &self,
        commands: &[Commands<'a>],
    ) -> Result<Vec<&'a Recording>> {
        let mut left = Vec::with_capacity(commands.len());
        for commands in commands {
            match *commands {
                Commands::Recorded(recording) => left.push(recording),
                Commands::Work(work) => {
                    for (recording, call) in &work.calls {
                        left.push(recording);
                        self.submit_all(&left)?;
                        left.clear();
                        call(self).await?;
                    }
                    left.push(&work.tail);
                }
            }
        }
        Ok(left)
    }

    fn submit_all(&self, recordings: &[&Recording]) -> Result<()> {
        if recordings.iter().all(|r| r.commands().is_empty()) {
            return Ok(());
        }
        self.submit(|recorder| replay_all(recorder, recordings))
    }
}

fn collect<'a, C: Into<Commands<'a>>>(commands: impl IntoIterator<Item = C>) -> Vec<Commands<'a>> {
    commands.into_iter().map(Into::into).collect()
}

/// Replays recordings one after another.
pub(crate) fn replay_all(recorder: &mut Recorder<'_>, recordings: &[&Recording]) {
    for recording in recordings {
        recorder.replay(recording);
    }
}
