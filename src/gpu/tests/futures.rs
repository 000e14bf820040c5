//! Waits that do not block, and futures that a thread runs in place.

use std::pin::pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::task::{Context, Poll, Waker};
use std::thread;
use std::time::Duration;

use super::*;

#[test]
fn a_future_that_waits_for_something_else_is_run_to_its_end() -> Result<()> {
    let gpu = Gpu::new()?;
    let x = gpu.buffer("x", 1)?;
    let done = Arc::new(AtomicBool::new(false));
    let mut polls = 0;
    let other = std::future::poll_fn(|context| {
        polls += 1;
        if done.load(Ordering::Acquire) {
            return Poll::Ready(());
        }
        let (waker, done) = (context.waker().clone(), Arc::clone(&done));
        thread::spawn(move || {
            thread::sleep(Duration::from_millis(5));
            done.store(true, Ordering::Release);
            waker.wake();
        });
        Poll::Pending
    });
    let read = blocking(async {
        gpu.read_async(&[&x]).await?;
        other.await;
        gpu.read_async(&[&x]).await
    })?;
    assert_eq!(read, [[0.0]]);
    assert!(
        polls >= 3,
        "{polls}: at once, with a waker that wakes, and at the end"
    );
    Ok(())
}

/// Polls a future.
type Polls<'a> = &'a mut dyn FnMut(&mut Context<'_>) -> Poll<Result<()>>;

#[test]
fn a_wait_in_place_takes_one_poll_and_others_more() -> Result<()> {
    let gpu = Gpu::new()?;
    let x = gpu.buffer("x", 1)?;
    let polls = |run: fn(Polls<'_>) -> Result<()>| {
        let mut count = 0;
        let slices = [&x];
        let mut read = pin!(gpu.read_async(&slices));
        let outcome = run(&mut |context| {
            count += 1;
            read.as_mut().poll(context).map_ok(|_| ())
        });
        outcome.map(|()| count)
    };
    let mut woken = 0;
    for _ in 0..20 {
        assert_eq!(polls(|poll| blocking(std::future::poll_fn(poll)))?, 1);
        woken += polls(|poll| pollster::block_on(std::future::poll_fn(poll)))?;
    }
    // A read may arrive within its first poll, but hardly all do.
    assert!(woken > 20, "{woken}");
    Ok(())
}

#[test]
fn a_wait_that_began_in_one_way_ends_in_another() -> Result<()> {
    let gpu = Gpu::new()?;
    let x = gpu.buffer("x", 2)?;
    let slices = [&x];
    let mut begun = 0;
    for _ in 0..20 {
        let mut read = Box::pin(gpu.read_async(&slices));
        let mut context = Context::from_waker(Waker::noop());
        if read.as_mut().poll(&mut context).is_pending() {
            begun += 1;
            assert_eq!(blocking(read)?, [[0.0; 2]]);
        }
    }
    assert!(begun > 0, "all arrived within their first poll");
    Ok(())
}

#[test]
fn waits_that_do_not_block_tell_of_a_lost_device() -> Result<()> {
    let gpu = Gpu::new()?;
    let x = gpu.buffer("x", 1)?;
    lost(&gpu);
    assert!(is_lost(pollster::block_on(gpu.read_async(&[&x]))));
    assert!(is_lost(pollster::block_on(gpu.wait_async())));
    let gpu = Gpu::new()?;
    let x = gpu.buffer("x", 1)?;
    let record = |_: &mut Recorder<'_>| {
        lost(&gpu);
        Ok(())
    };
    let slices = [&x];
    let read = gpu.submit_and_read_async(record, &slices);
    assert!(is_lost(pollster::block_on(read)));
    Ok(())
}

/// A thousand reads are dropped on their way, and the device with them: no wait keeps either.
#[test]
fn reads_that_are_dropped_keep_nothing() -> Result<()> {
    let gpu = Gpu::new()?;
    let x = gpu.buffer("x", 1)?;
    let mut dropped = 0;
    for _ in 0..1000 {
        let slices = [&x];
        let mut read = pin!(gpu.read_async(&slices));
        let mut context = Context::from_waker(Waker::noop());
        dropped += usize::from(read.as_mut().poll(&mut context).is_pending());
    }
    assert!(dropped > 500, "{dropped}");
    assert_eq!(pollster::block_on(gpu.read_async(&[&x]))?, [[0.0]]);
    let shared = Arc::downgrade(&gpu.shared);
    drop((gpu, x));
    assert!(shared.upgrade().is_none());
    Ok(())
}
