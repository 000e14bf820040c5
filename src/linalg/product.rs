//! What computes a product with an operator: recorded, or with the host in between.

use std::fmt;
use std::sync::Arc;

use crate::error::Result;
use crate::gpu::{BoxFuture, Gpu, Recording};

/// What the host does in the middle of a product.
type Call = Arc<dyn for<'g> Fn(&'g Gpu) -> BoxFuture<'g, Result<()>> + Send + Sync>;

/// What computes a product: a recording, or several with calls of the host in between, for an all-reduce, micro-batches, or work that is
/// more than one submission may hold.
///
/// Solvers put a recorded product into the middle of their submissions. Where the host is needed, a submission ends: before each call all
/// that comes before has been submitted, and what comes after is submitted after it. The numbers are the same.
///
/// ```
/// use osculant::gpu::Recording;
/// use osculant::linalg::Product;
///
/// let recorded = Product::from(Recording::new());
/// assert!(recorded.recording().is_some());
/// let hosted = Product::hosted(|gpu| gpu.submit(|_| ()));
/// assert!(hosted.recording().is_none());
/// ```
#[derive(Clone, Default)]
pub struct Product {
    /// What is submitted before each call, and the call.
    calls: Vec<(Recording, Call)>,
    /// What is recorded after the last call.
    tail: Recording,
}

impl fmt::Debug for Product {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Product")
            .field("calls", &self.calls.len())
            .field("tail", &self.tail)
            .finish_non_exhaustive()
    }
}

impl From<Recording> for Product {
    fn from(tail: Recording) -> Self {
        Self {
            calls: Vec::new(),
            tail,
        }
    }
}

impl Product {
    /// A product that the host computes with submissions of its own; `call` may end before the device has finished them. Where it waits, it
    /// blocks solves that do not block otherwise: see [`hosted_async`](Self::hosted_async).
    pub fn hosted(call: impl Fn(&Gpu) -> Result<()> + Send + Sync + 'static) -> Self {
        Self::hosted_async(move |gpu| Box::pin(std::future::ready(call(gpu))))
    }

    /// As [`hosted`](Self::hosted), with a call that waits for something: for other processes, or for numbers of the device.
    ///
    /// ```
    /// use osculant::linalg::Product;
    ///
    /// let hosted = Product::hosted_async(|gpu| Box::pin(async move { gpu.wait_async().await }));
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

    /// The recording, if the product does not need the host.
    pub fn recording(&self) -> Option<&Recording> {
        self.calls.is_empty().then_some(&self.tail)
    }

    /// Does `other` after this.
    pub fn append(&mut self, other: Self) {
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

    /// Computes the product: one submission, and one more for each call.
    ///
    /// # Errors
    /// Those of the calls, loss of the device.
    #[cfg(not(target_arch = "wasm32"))]
    pub fn run(&self, gpu: &Gpu) -> Result<()> {
        crate::gpu::blocking(self.run_async(gpu))
    }

    /// As [`run`](Self::run), without blocking the thread.
    ///
    /// # Errors
    /// As there.
    pub async fn run_async(&self, gpu: &Gpu) -> Result<()> {
        run(gpu, &[self.into()]).await
    }
}

/// A part of what a solver submits.
#[derive(Clone, Copy)]
pub(super) enum Part<'a> {
    Recorded(&'a Recording),
    Product(&'a Product),
}

impl<'a> From<&'a Recording> for Part<'a> {
    fn from(recording: &'a Recording) -> Self {
        Self::Recorded(recording)
    }
}

impl<'a> From<&'a Product> for Part<'a> {
    fn from(product: &'a Product) -> Self {
        Self::Product(product)
    }
}

/// Does everything up to the last call of the host; what is left to submit comes back. Nothing is submitted where no part needs the host.
pub(super) async fn until_last_call<'a>(
    gpu: &Gpu,
    parts: &[Part<'a>],
) -> Result<Vec<&'a Recording>> {
    let mut left = Vec::new();
    for part in parts {
        match *part {
            Part::Recorded(recording) => left.push(recording),
            Part::Product(product) => {
                for (recording, call) in &product.calls {
                    left.push(recording);
                    submit(gpu, &left)?;
                    left.clear();
                    call(gpu).await?;
                }
                left.push(&product.tail);
            }
        }
    }
    Ok(left)
}

/// Does all parts, in one submission where none needs the host.
pub(super) async fn run(gpu: &Gpu, parts: &[Part<'_>]) -> Result<()> {
    submit(gpu, &until_last_call(gpu, parts).await?)
}

fn submit(gpu: &Gpu, recordings: &[&Recording]) -> Result<()> {
    if recordings.iter().all(|r| r.commands().is_empty()) {
        return Ok(());
    }
    gpu.submit(|recorder| {
        for recording in recordings {
            recorder.replay(recording);
        }
    })
}
