//! A function of the host with the batch of a slot, and what it reads and writes.

use std::sync::{Arc, Mutex, PoisonError};

use crate::error::{Error, Result};
use crate::gpu::{Gpu, Work};
use crate::vector::{Layout, Vector};

/// Loss and gradient at parameters, on a batch.
pub(super) type Function<B> = dyn Fn(&[f64], &B) -> (f64, Vec<f64>) + Send + Sync;

/// Length of a displacement over that of the parameters: `eps^(1/3)` balances rounding errors of a central difference in f64 with what it
/// leaves out.
const LENGTH: f64 = 6.0e-6;

/// The batch in a slot: programs compute with what is there when they run.
pub(super) type Batch<B> = Arc<Mutex<Arc<B>>>;

/// Where a gradient ran last: what products and changes of the loss begin with.
#[derive(Debug, Default)]
pub(super) struct Base(pub(super) Mutex<(Vec<f64>, f64)>);

impl Base {
    pub(super) fn set(&self, parameters: Vec<f64>, loss: f64) {
        *lock(&self.0) = (parameters, loss);
    }
}

/// Whoever panicked with the lock has left whole numbers.
pub(super) fn lock<T>(mutex: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// A function with the batch of a slot.
pub(super) struct Bound<B> {
    pub(super) layout: Arc<Layout>,
    pub(super) function: Arc<Function<B>>,
    pub(super) batch: Batch<B>,
}

impl<B> Clone for Bound<B> {
    fn clone(&self) -> Self {
        Self {
            layout: Arc::clone(&self.layout),
            function: Arc::clone(&self.function),
            batch: Arc::clone(&self.batch),
        }
    }
}

impl<B> Bound<B> {
    /// Loss and gradient.
    pub(super) fn evaluate(&self, parameters: &[f64]) -> Result<(f64, Vec<f64>)> {
        let batch = Arc::clone(&lock(&self.batch));
        let (loss, gradient) = (self.function)(parameters, &batch);
        self.check("the gradient that a function gave", &gradient)?;
        Ok((loss, gradient))
    }

    /// The Hessian's product, by a difference of gradients on both sides.
    pub(super) fn difference(&self, parameters: &[f64], v: &[f64]) -> Result<Vec<f64>> {
        let norm = |x: &[f64]| x.iter().map(|x| x * x).sum::<f64>().sqrt();
        let length = norm(v);
        if length == 0.0 {
            return Ok(vec![0.0; v.len()]);
        }
        let e = LENGTH * (1.0 + norm(parameters)) / length;
        let at = |e: f64| {
            let moved = parameters.iter().zip(v).map(|(x, v)| x + e * v);
            self.evaluate(&moved.collect::<Vec<_>>())
        };
        let ((_, ahead), (_, behind)) = (at(e)?, at(-e)?);
        let pairs = ahead.iter().zip(&behind);
        Ok(pairs.map(|(a, b)| (a - b) / (2.0 * e)).collect())
    }

    pub(super) fn check(&self, what: &str, vector: &[f64]) -> Result<()> {
        let expected = self.layout.parameters();
        if vector.len() == expected {
            return Ok(());
        }
        Err(Error::Length {
            what: what.into(),
            found: vector.len(),
            expected,
        })
    }

    /// All tensors, one after another.
    pub(super) async fn read(&self, gpu: &Gpu, vector: &Vector) -> Result<Vec<f64>> {
        let tensors = vector.read_async(gpu).await?;
        Ok(tensors.into_iter().flatten().map(f64::from).collect())
    }

    pub(super) async fn write(&self, gpu: &Gpu, vector: &Vector, numbers: &[f64]) -> Result<()> {
        vector
            .write_async(gpu, &tensors(&self.layout, numbers))
            .await
    }
}

/// The tensors of a vector, rounded.
pub(super) fn tensors(layout: &Layout, numbers: &[f64]) -> Vec<Vec<f32>> {
    let mut rest = numbers.iter().map(|&x| x as f32);
    let entries = layout.entries().iter();
    entries
        .map(|entry| rest.by_ref().take(entry.elements()).collect())
        .collect()
}

/// A call that reads, computes and writes.
pub(super) fn hosted<B, F>(
    bound: Bound<B>,
    call: impl Fn(Gpu, Bound<B>) -> F + Send + Sync + 'static,
) -> Work
where
    B: Send + Sync + 'static,
    F: Future<Output = Result<()>> + Send + 'static,
{
    Work::hosted_async(move |gpu| Box::pin(call(gpu.clone(), bound.clone())))
}
