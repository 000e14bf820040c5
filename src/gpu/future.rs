//! Futures of this crate, and how a thread waits for one in place.

use std::pin::Pin;

/// A future behind a pointer: what methods of traits give that wait, so that the traits can be used as `dyn`.
pub type BoxFuture<'a, T> = Pin<Box<dyn Future<Output = T> + Send + 'a>>;

#[cfg(not(target_arch = "wasm32"))]
pub use native::blocking;
#[cfg(not(target_arch = "wasm32"))]
pub(super) use native::waits_in_place;

#[cfg(not(target_arch = "wasm32"))]
mod native {
    use std::pin::pin;
    use std::sync::{Arc, OnceLock};
    use std::task::{Context, Poll, Wake, Waker};

    /// Wakes nobody.
    struct InPlace;

    impl Wake for InPlace {
        fn wake(self: Arc<Self>) {}
    }

    /// The waker that tells a wait for the device to take place within its first poll.
    fn in_place() -> &'static Waker {
        static WAKER: OnceLock<Waker> = OnceLock::new();
        WAKER.get_or_init(|| Waker::from(Arc::new(InPlace)))
    }

    /// Whether the one who polls would rather have the thread wait than be woken.
    pub(in crate::gpu) fn waits_in_place(context: &Context<'_>) -> bool {
        context.waker().will_wake(in_place())
    }

    /// Runs a future to its end on this thread, which every blocking function of this crate does with the asynchronous one beside it.
    ///
    /// Waits of this crate in it are waits for the device on this thread, as if there were no futures: no other thread has a part in it.
    /// Should the future wait for something else, this thread sleeps until that wakes it. Not to be called by what an executor polls, which
    /// could do nothing else meanwhile.
    ///
    /// ```
    /// use osculant::gpu::{Gpu, blocking};
    ///
    /// let sum = blocking(async {
    ///     let gpu = Gpu::new_async().await?;
    ///     let (x, y) = (gpu.buffer("x", 1)?, gpu.buffer("y", 1)?);
    ///     gpu.upload(&x, 0, &[2.0f32])?;
    ///     Ok::<_, osculant::Error>(gpu.read_async(&[&x, &y]).await?.concat().iter().sum::<f32>())
    /// })?;
    /// assert_eq!(sum, 2.0);
    /// # Ok::<(), osculant::Error>(())
    /// ```
    pub fn blocking<F: Future>(future: F) -> F::Output {
        let mut future = pin!(future);
        match future.as_mut().poll(&mut Context::from_waker(in_place())) {
            Poll::Ready(output) => output,
            Poll::Pending => pollster::block_on(future),
        }
    }
}
